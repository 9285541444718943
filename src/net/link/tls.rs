//! TLS 1.3 with raw public keys (RFC 7250): the proxy's key is its certificate, the pin is the trust.
//!
//! QUIC names its crypto provider itself, so that a program which uses whit as a library keeps its own. HTTP clients use the
//! process's: [`use_our_cryptography`] names ours where the program has none.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};

use crate::net::identity::Identity;
use protocol::address::Fingerprint;

/// The protocol that both sides must name; the number rises when peers of different versions cannot work together.
pub(super) const PROTOCOL: &[u8] = b"whit/1";

/// Returns the proxy's side: shows the identity's key, asks for none.
pub(super) fn server(identity: &Identity, protocol: &[u8]) -> QuicServerConfig {
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.tls_key()));
    let key = key.expect("Identity checked its key");
    let shown = CertificateDer::from(identity.key_info().to_vec());
    let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(vec![shown], key)));
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("every suite of ours is of TLS 1.3");
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![protocol.to_vec()];
    // Agents do not resume: a handshake with a raw key takes one round trip and few bytes anyway.
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).expect("AES-128-GCM, which QUIC begins with, is among the suites")
}

/// Returns the agent's side: accepts the key that `pin` names.
pub(super) fn client(pin: Arc<Pin>, protocol: &[u8]) -> QuicClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("every suite of ours is of TLS 1.3");
    let mut config = builder.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).expect("AES-128-GCM, which QUIC begins with, is among the suites")
}

/// Makes ring the process's provider of cryptography, for HTTP clients, unless the program has named one.
pub fn use_our_cryptography() {
    drop(ring::default_provider().install_default());
}

/// ring's algorithms; AES-128-GCM first, as it takes half of what `ChaCha20` takes where AES is in the CPU.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// Accepts one key and remembers which other was shown.
#[derive(Debug)]
pub(super) struct Pin {
    expected: Fingerprint,
    other: OnceLock<Fingerprint>,
    provider: CryptoProvider,
}

impl Pin {
    pub(super) fn new(expected: Fingerprint) -> Self {
        Self { expected, other: OnceLock::new(), provider: provider() }
    }

    /// Returns the key that was refused, if one was.
    pub(super) fn other(&self) -> Option<Fingerprint> {
        self.other.get().copied()
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        key_info: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of_key(key_info);
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        self.other.get_or_init(|| found);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key_info: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key_info: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key_info = SubjectPublicKeyInfoDer::from(key_info.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key_info, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
