//! Tokens: any text, and any payload with a valid signature. The first byte selects one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use protocol::token::{Error, Issuer, verify};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

const NOW: u64 = 1_750_000_000;
const SEED: [u8; 32] = [7; 32];

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let issuer = issuer();
    let text = if mode & 1 == 0 {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        text.to_owned()
    } else {
        signed(bytes)
    };
    match verify(&text, issuer.public_key(), NOW) {
        Ok(grant) => {
            grant.check().expect("a list within its bound");
            assert!(!grant.is_expired(NOW));
            // A grant that was accepted in another encoding may not fit a token of ours.
            if let Ok(again) = issuer.sign(&grant) {
                assert_eq!(verify(&again, issuer.public_key(), NOW), Ok(grant));
            }
            assert!(verify(&text, &[0; 32], NOW).is_err(), "another proxy takes it");
        }
        Err(error) => {
            drop(error.to_string());
            assert!(mode & 1 == 0 || !matches!(error, Error::Forged | Error::Foreign));
        }
    }
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any seed makes a key")
}

/// Returns the issuer whose key has the PKCS#8 form that ring writes.
fn issuer() -> Issuer {
    let mut der = vec![0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(&SEED);
    der.extend_from_slice(&[0x81, 0x21, 0]);
    der.extend_from_slice(key().public_key().as_ref());
    Issuer::from_pkcs8(&der).expect("the form that ring writes")
}

fn signed(payload: &[u8]) -> String {
    let message = [b"whit token v1\0", payload].concat();
    format!("whit1.{}.{}", BASE64.encode(payload), BASE64.encode(key().sign(&message)))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let grant = super::wire::grant();
    let text = issuer().sign(&grant).expect("a small grant");
    let payload =
        text.split('.').nth(1).and_then(|payload| BASE64.decode(payload).ok()).expect("three parts");
    vec![
        [b"0", text.as_bytes()].concat(),
        [b"0", text.replacen("whit1", "whit2", 1).as_bytes()].concat(),
        [b"1", payload.as_slice()].concat(),
    ]
}
