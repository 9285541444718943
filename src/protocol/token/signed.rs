//! The signed text form: `whit1.PAYLOAD.SIGNATURE`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{Error, Grant};
use ground::ids::SpaceName;
use ground::limits::TOKEN_BYTES_MAX;

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// The start of a token's text, before its version.
const MARK: &str = "whit";
/// The version that this module writes and reads.
const VERSION: u32 = 1;
/// Signed before the payload, so that no signature made for a token means anything elsewhere.
const DOMAIN: &[u8] = b"whit token v1\0";

/// The signed part.
#[derive(Serialize, Deserialize)]
struct Payload {
    issuer: KeyId,
    grant: Grant,
}

/// The first 8 bytes of BLAKE3 of a public key: identifies the proxy that signed a token.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct KeyId(#[serde(with = "serde_bytes")] [u8; 8]);

impl KeyId {
    fn of(public_key: &[u8]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&blake3::hash(public_key).as_bytes()[..8]);
        Self(id)
    }
}

/// The proxy's side: the key that signs tokens.
pub struct Issuer {
    key: Ed25519KeyPair,
    public_key: [u8; PUBLIC_KEY_BYTES],
}

impl Issuer {
    /// Takes an Ed25519 key in PKCS#8 form (version 2, with its public key).
    ///
    /// # Errors
    /// [`Error::Key`] where the bytes are anything else, or private and public key do not match.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        let key = Ed25519KeyPair::from_pkcs8(der).map_err(|_| Error::Key)?;
        let public_key = key.public_key().as_ref().try_into().map_err(|_| Error::Key)?;
        Ok(Self { key, public_key })
    }

    /// Returns the input of [`verify`].
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public_key
    }

    /// Signs a grant; the same grant always gives the same text.
    ///
    /// # Errors
    /// [`Error::TooMany`] or [`Error::TooLarge`] for a grant that no proxy would accept.
    pub fn sign(&self, grant: &Grant) -> Result<String, Error> {
        grant.check()?;
        let payload = Payload { issuer: KeyId::of(&self.public_key), grant: grant.clone() };
        let mut message = DOMAIN.to_vec();
        rmp_serde::encode::write(&mut message, &payload).expect("a Vec takes every write");
        let signature = self.key.sign(&message);
        let payload = BASE64.encode(&message[DOMAIN.len()..]);
        let text = format!("{MARK}{VERSION}.{payload}.{}", BASE64.encode(signature));
        if text.len() > TOKEN_BYTES_MAX { Err(Error::TooLarge { found: text.len() }) } else { Ok(text) }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}

/// Checks a token's text and gives what it allows at `now`, Unix seconds.
///
/// `public_key` is the issuer's. Whether the token was revoked is not known here.
///
/// # Errors
/// The text is longer than [`TOKEN_BYTES_MAX`] or no token, of a newer version, of another proxy, not
/// what was signed, or its time is over.
pub fn verify(text: &str, public_key: &[u8; PUBLIC_KEY_BYTES], now: u64) -> Result<Grant, Error> {
    let (message, signature) = parse(text)?;
    let payload = &message[DOMAIN.len()..];
    if UnparsedPublicKey::new(&ED25519, public_key).verify(&message, &signature).is_err() {
        // Read only to choose between two errors: nothing in it is trusted.
        return Err(match rmp_serde::from_slice::<Payload>(payload) {
            Err(_) => Error::Malformed,
            Ok(claimed) if claimed.issuer != KeyId::of(public_key) => Error::Foreign,
            Ok(_) => Error::Forged,
        });
    }
    let grant = rmp_serde::from_slice::<Payload>(payload).map_err(|_| Error::Malformed)?.grant;
    grant.check()?;
    match grant.expires {
        Some(since) if grant.is_expired(now) => Err(Error::Expired { since, now }),
        _ => Ok(grant),
    }
}

/// Reads the grant of a token without checking its signature: fit to compare tokens with one another, not to allow
/// anything.
///
/// None for text that is no token of this version.
pub fn claimed(text: &str) -> Option<Grant> {
    let (message, _) = parse(text).ok()?;
    let payload: Payload = rmp_serde::from_slice(&message[DOMAIN.len()..]).ok()?;
    Some(payload.grant)
}

/// Reads the space of a token without checking its signature: fit only to choose where a cache is kept.
///
/// None for text that is no token of this version.
pub fn claimed_space(text: &str) -> Option<SpaceName> {
    claimed(text).map(|grant| grant.space)
}

/// Takes the text apart: what must have been signed, and the signature.
fn parse(text: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let text = Some(text).filter(|text| text.len() <= TOKEN_BYTES_MAX).ok_or(Error::Malformed)?;
    let (version, rest) =
        text.strip_prefix(MARK).and_then(|rest| rest.split_once('.')).ok_or(Error::Malformed)?;
    if version.is_empty() || version.starts_with('0') || !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Malformed);
    }
    match version.parse() {
        Ok(VERSION) => {}
        Ok(other) => return Err(Error::Version(other)),
        Err(_) => return Err(Error::Malformed),
    }
    let (payload, signature) = rest.split_once('.').ok_or(Error::Malformed)?;
    let mut message = DOMAIN.to_vec();
    BASE64.decode_vec(payload, &mut message).map_err(|_| Error::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| Error::Malformed)?;
    Ok((message, signature))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::{Action, TokenId};
    use ground::pattern::Pattern;

    /// Returns the PKCS#8 form (RFC 8410, section 10.3, with the public key of RFC 5958) of the key made from `seed`.
    fn issuer(seed: u8) -> Issuer {
        let seed = [seed; 32];
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed makes a key");
        let mut der = vec![0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend_from_slice(&seed);
        der.extend_from_slice(&[0x81, 0x21, 0]);
        der.extend_from_slice(key.public_key().as_ref());
        Issuer::from_pkcs8(&der).expect("the form that ring writes")
    }

    fn grant() -> Grant {
        Grant {
            id: TokenId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
            user: "ada".parse().expect("a name"),
            space: "shop".parse().expect("a name"),
            actions: vec![Action::Push, Action::Read],
            applications: vec!["web-*".parse().expect("a pattern")],
            destinations: vec![Pattern::any()],
            issued: 1_700_000_000,
            expires: Some(1_800_000_000),
            on_behalf: false,
            then: Vec::new(),
            target: None,
        }
    }

    const NOW: u64 = 1_750_000_000;
    /// FORMAT 6: the vector of a key whose seed is 32 times 7.
    const VECTOR: &str = "whit1.ksQICHHzqrwm5FiaxAgBAgMEBQYHCKNhZGGkc2hvcJKkcHVzaKRyZWFkkaV3ZWItKpGhKs5lU_EAzmtJ0gDCkA\
        .wubNoJnU2AbCBnzysA_XUcKGcu0ofd4sTECULToDI-P7WRK_DspBy-sTpjnRq7kTzARqbyQqVluF0WhTE4eXBQ";

    #[test]
    fn a_token_is_its_vector() {
        assert_eq!(issuer(7).sign(&grant()), Ok(VECTOR.to_owned()));
        assert_eq!(verify(VECTOR, issuer(7).public_key(), NOW), Ok(grant()));
    }

    #[test]
    fn a_token_cut_short_is_refused_everywhere() {
        for length in 0..VECTOR.len() {
            assert!(verify(&VECTOR[..length], issuer(7).public_key(), NOW).is_err(), "{length}");
        }
    }

    #[test]
    fn a_changed_byte_is_refused_everywhere() {
        let key = *issuer(7).public_key();
        for at in 0..VECTOR.len() {
            for bit in 0..7 {
                let mut bytes = VECTOR.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let text = String::from_utf8(bytes).expect("still ASCII");
                assert!(verify(&text, &key, NOW).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_token_of_another_proxy_is_told_from_a_forged_one() {
        let key = *issuer(7).public_key();
        let foreign = issuer(8).sign(&grant()).expect("a small grant");
        assert_eq!(verify(&foreign, &key, NOW), Err(Error::Foreign));
        let (payload, _) = VECTOR.rsplit_once('.').expect("three parts");
        let (_, signature) = foreign.rsplit_once('.').expect("three parts");
        assert_eq!(verify(&format!("{payload}.{signature}"), &key, NOW), Err(Error::Forged));
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let key = *issuer(7).public_key();
        assert!(verify(VECTOR, &key, 1_799_999_999).is_ok());
        let error = verify(VECTOR, &key, 1_800_000_000).expect_err("its time is over");
        assert_eq!(error, Error::Expired { since: 1_800_000_000, now: 1_800_000_000 });
        let text =
            "the token expired at 2027-01-15T08:00:00Z; by the proxy's clock it is 2027-01-15T08:00:00Z";
        assert_eq!(error.to_string(), text);
        let text = issuer(7).sign(&Grant { expires: None, ..grant() }).expect("a small grant");
        assert!(verify(&text, &key, u64::MAX).is_ok());
    }

    #[test]
    fn a_newer_version_is_named() {
        let newer = VECTOR.replacen("whit1", "whit2", 1);
        assert_eq!(verify(&newer, issuer(7).public_key(), NOW), Err(Error::Version(2)));
    }

    #[test]
    fn what_no_proxy_would_accept_is_not_signed() {
        let long: Pattern = "x".repeat(64).parse().expect("a pattern");
        let many = Grant { applications: vec![long.clone(); 65], ..grant() };
        assert_eq!(issuer(7).sign(&many), Err(Error::TooMany { what: "applications", found: 65 }));
        let large = Grant { applications: vec![long; 64], ..grant() };
        assert!(matches!(issuer(7).sign(&large), Err(Error::TooLarge { .. })));
        let text = "x".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(verify(&text, issuer(7).public_key(), NOW), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn a_grant_survives_its_token(
            id: [u8; 8],
            user in "[a-z][a-z0-9._-]{0,20}",
            space in "[A-Z][a-z0-9._-]{0,20}",
            actions in proptest::collection::vec(prop::sample::select(&Action::ALL), 0..5),
            applications in proptest::collection::vec("[a-z*][a-z0-9*-]{0,9}", 0..5),
            issued: u64,
            expires in proptest::option::of(1u64..),
        ) {
            let grant = Grant {
                id: TokenId::from_bytes(id),
                user: user.parse().expect("a name"),
                space: space.parse().expect("a name"),
                actions,
                applications: applications.iter().map(|text| text.parse().expect("a pattern")).collect(),
                destinations: vec![],
                issued,
                expires,
                on_behalf: false,
                then: Vec::new(),
                target: None,
            };
            let text = issuer(7).sign(&grant).expect("a small grant");
            prop_assert_eq!(verify(&text, issuer(7).public_key(), 0), Ok(grant));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            prop_assert!(verify(&text, issuer(7).public_key(), NOW).is_err());
        }
    }
}
