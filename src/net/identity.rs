//! The proxy's keys, in files below `DATA/identity/`, and what they sign: tokens.
//!
//! ```text
//! tls.key         Ed25519, PKCS#8: what agents pin
//! token.key       Ed25519, PKCS#8: what signs tokens
//! revoked/        made before tokens/
//! tokens/         there once both keys are
//! lock            held while the keys are made
//! ```
//!
//! The ledger ([`Tokens`]) knows which tokens exist and which were revoked. Neither a key nor a token is ever written
//! to a log. The calls block on the disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::tokens::{Listed, Tokens};
use crate::ledger::{self, FileLedger, Ledger};
use disk::files::{self, Lock, OnPath as _};
use ground::faults::{Fault, faulty};
use protocol::address::Fingerprint;
use protocol::token::{self, Grant, Issuer, PUBLIC_KEY_BYTES, TokenId};

/// A key in PKCS#8 form takes 83 bytes; anything beyond this is no key.
const KEY_BYTES_MAX: u64 = 256;
/// Making two keys takes milliseconds; a lock that lasts longer than this means that something is wrong with the disk.
const LOCK_TIME_MAX: Duration = Duration::from_secs(10);
/// RFC 8410, section 4: what precedes the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo`.
const KEY_INFO_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why the identity could not be used, or a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A key file that holds no key.
    #[error("key file {} is damaged: expected an Ed25519 key in PKCS#8 form", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// One of two keys is gone: a new one would silently make tokens or pins worthless.
    #[error("key file {} is missing, but the other key exists", .path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock while it makes the keys, or tries to.
    #[error("another process has locked {} for {} s", .path.display(), LOCK_TIME_MAX.as_secs())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system returned no random numbers")]
    Random,
    /// The token itself.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// The admin took it back.
    #[error("token {0} was revoked")]
    Revoked(TokenId),
}

faulty! {
    Error passes on File, Ledger, Token;
    Self::Key { .. } | Self::Incomplete { .. } => Fault::Corrupt,
        "restore the folder from a backup, or remove it to start with new keys: agents must then \
         log in again and need new tokens";
    Self::Busy { .. } | Self::Random => Fault::Retry;
    Self::Revoked(_) => Fault::Denied, "ask for a new token: `whit token create` on the proxy";
}

/// The result of an operation on the identity.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The proxy's keys, and the tokens that it gave.
///
/// Any number of processes may use one folder at a time; a revocation by one is honoured by all at once.
pub struct Identity {
    folder: PathBuf,
    tls_key: Vec<u8>,
    public_key: [u8; PUBLIC_KEY_BYTES],
    issuer: Issuer,
    tokens: Tokens,
}

impl Identity {
    /// Opens the identity in `folder`, which is made where it is not there. Its tokens are there too: see
    /// [`Identity::open_over`].
    ///
    /// # Errors
    /// Those of [`Identity::open_over`].
    pub fn open_or_create(folder: &Path) -> Result<(Self, bool)> {
        Self::open_over(folder, Arc::new(FileLedger::of_identity(folder)))
    }

    /// Opens the keys in `folder`, which is made where it is not there. The tokens are in the ledger.
    ///
    /// Returns also whether the keys were made now. Two processes that start at once get the same keys.
    ///
    /// # Errors
    /// [`Error::Key`] for a damaged key, [`Error::Incomplete`] where one of two is gone; else the disk.
    pub fn open_over(folder: &Path, ledger: Arc<dyn Ledger>) -> Result<(Self, bool)> {
        files::create_folder(folder)?;
        let lock = folder.join("lock");
        let _held = Lock::take(&lock, LOCK_TIME_MAX)?.ok_or(Error::Busy { path: lock })?;
        let created = create_keys(folder)?;
        // The proxy's user makes both: the proxy could not look into a folder that root's first `whit token revoke`
        // made.
        for table in ["revoked", "tokens"] {
            files::create_folder(&folder.join(table))?;
        }
        Ok((Self::open(folder, Tokens::new(ledger))?, created))
    }

    fn open(folder: &Path, tokens: Tokens) -> Result<Self> {
        let (tls_path, token_path) = (tls_path(folder), token_path(folder));
        let tls_key = files::read_bounded(&tls_path, KEY_BYTES_MAX)?;
        let key = Ed25519KeyPair::from_pkcs8(&tls_key).ok();
        let public_key = key.and_then(|key| key.public_key().as_ref().try_into().ok());
        let public_key = public_key.ok_or(Error::Key { path: tls_path })?;
        let token_key = files::read_bounded(&token_path, KEY_BYTES_MAX)?;
        let issuer = Issuer::from_pkcs8(&token_key).map_err(|_| Error::Key { path: token_path })?;
        Ok(Self { folder: folder.to_owned(), tls_key, public_key, issuer, tokens })
    }

    /// Returns the fingerprint that agents pin: BLAKE3-256 of the TLS key's `SubjectPublicKeyInfo`.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_key(&self.key_info())
    }

    /// Returns the public TLS key as the 44 bytes of DER that the handshake sends.
    pub fn key_info(&self) -> [u8; KEY_INFO_PREFIX.len() + PUBLIC_KEY_BYTES] {
        let mut info = [0; KEY_INFO_PREFIX.len() + PUBLIC_KEY_BYTES];
        let (prefix, key) = info.split_at_mut(KEY_INFO_PREFIX.len());
        prefix.copy_from_slice(&KEY_INFO_PREFIX);
        key.copy_from_slice(&self.public_key);
        info
    }

    /// Returns the private TLS key, PKCS#8: for the handshake alone.
    pub fn tls_key(&self) -> &[u8] {
        &self.tls_key
    }

    /// Makes a token and enters it in the register, durably; returns its id and its text.
    ///
    /// `grant` gets a new id and says what the token with that id allows. The text is shown once and
    /// kept nowhere.
    ///
    /// # Errors
    /// A grant beyond the limits, or the ledger's.
    pub fn create_token(&self, grant: impl FnOnce(TokenId) -> Grant) -> Result<(TokenId, String)> {
        let (grant, text) = self.issue(grant)?;
        self.tokens.enter(&grant)?;
        Ok((grant.id, text))
    }

    /// Makes a token that is not registered: for a command of a user who may read this folder anyway.
    ///
    /// # Errors
    /// A grant beyond the limits.
    pub fn sign_own(&self, grant: impl FnOnce(TokenId) -> Grant) -> Result<String> {
        self.issue(grant).map(|(_, text)| text)
    }

    fn issue(&self, grant: impl FnOnce(TokenId) -> Grant) -> Result<(Grant, String)> {
        let grant = grant(TokenId::from_bytes(random()?));
        let text = self.issuer.sign(&grant)?;
        Ok((grant, text))
    }

    /// Returns all tokens that were registered or revoked: the oldest first, those without a known grant last.
    ///
    /// # Errors
    /// The ledger's.
    pub fn tokens(&self) -> Result<Vec<Listed>> {
        Ok(self.tokens.list()?)
    }

    /// Revokes a token, durably and at once for every process; a second time changes nothing. Returns whether the token
    /// is registered here; it need not be to be accepted or revoked.
    ///
    /// # Errors
    /// The ledger's.
    pub fn revoke(&self, id: TokenId) -> Result<bool> {
        Ok(self.tokens.revoke(id)?)
    }

    /// Checks a token's text at `now`, Unix seconds, and returns what it allows.
    ///
    /// Looks for one key of the ledger; the token need not be registered.
    ///
    /// # Errors
    /// [`Error::Token`] as [`token::verify`] says, [`Error::Revoked`]; else the ledger's.
    pub fn check(&self, text: &str, now: u64) -> Result<Grant> {
        let grant = token::verify(text, self.issuer.public_key(), now)?;
        self.check_again(&grant, now)?;
        Ok(grant)
    }

    /// Checks at `now` that a token checked earlier has neither expired nor been revoked. Looks for one key of the
    /// ledger.
    ///
    /// # Errors
    /// Those of [`Identity::check`].
    pub fn check_again(&self, grant: &Grant, now: u64) -> Result<()> {
        match grant.expires {
            Some(since) if grant.is_expired(now) => Err(token::Error::Expired { since, now }.into()),
            _ if self.tokens.is_revoked(grant.id)? => Err(Error::Revoked(grant.id)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Returns `N` random bytes from the system.
///
/// # Errors
/// [`Error::Random`].
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// Makes the keys that are not there yet and says whether there were any to make.
///
/// The token key comes first and `tokens/` after both, so that what an interrupted first start left
/// differs from a key that was lost later.
fn create_keys(folder: &Path) -> Result<bool> {
    let (tls_path, token_path) = (tls_path(folder), token_path(folder));
    let in_use = exists(&folder.join("tokens"))?;
    let mut created = false;
    for path in [token_path, tls_path] {
        if exists(&path)? {
            continue;
        }
        if in_use {
            return Err(Error::Incomplete { path });
        }
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::Random)?;
        files::publish(&path, key.as_ref(), 0o600)?;
        created = true;
    }
    Ok(created)
}

fn tls_path(folder: &Path) -> PathBuf {
    folder.join("tls.key")
}

fn token_path(folder: &Path) -> PathBuf {
    folder.join("token.key")
}

/// Returns whether something has this name; not knowing is an error, not a no.
fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Ok(Err(error).on("examine", path)?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use ground::pattern::Pattern;
    use protocol::token::Action;

    fn open(folder: &Path) -> (Identity, bool) {
        Identity::open_or_create(folder).expect("an identity")
    }

    fn grant(id: TokenId, issued: u64) -> Grant {
        Grant {
            id,
            user: "ada".parse().expect("a name"),
            space: "shop".parse().expect("a name"),
            actions: vec![Action::Push],
            applications: vec![Pattern::any()],
            destinations: vec![],
            issued,
            expires: None,
            on_behalf: false,
            then: Vec::new(),
            target: None,
        }
    }

    #[test]
    fn the_keys_are_made_once_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (first, created) = open(&folder.path().join("identity"));
        let (second, created_again) = open(&folder.path().join("identity"));
        assert_eq!((created, created_again), (true, false));
        assert_eq!(first.fingerprint(), second.fingerprint());
        for name in ["tls.key", "token.key"] {
            let mode =
                fs::metadata(folder.path().join("identity").join(name)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn the_first_to_revoke_a_token_makes_no_folder_that_the_proxy_cannot_look_into() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        open(folder.path());
        for table in ["tokens", "revoked"] {
            let made = fs::metadata(folder.path().join(table)).expect("made with the keys");
            assert_eq!(made.permissions().mode() & 0o777, 0o700, "{table}");
        }
    }

    #[test]
    fn two_that_start_at_once_are_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let starts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(folder.path()))).collect();
            threads.into_iter().map(|thread| thread.join().expect("an identity")).collect()
        });
        assert_eq!(starts.iter().filter(|(_, created)| *created).count(), 1);
        assert!(starts.iter().all(|(one, _)| one.fingerprint() == starts[0].0.fingerprint()));
        let (_, text) = starts[0].0.create_token(|id| grant(id, 0)).expect("a token");
        assert!(starts.iter().all(|(one, _)| one.check(&text, 0).is_ok()));
    }

    #[test]
    fn a_damaged_or_lost_key_is_never_replaced_in_silence() {
        for name in ["tls.key", "token.key"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            open(folder.path());
            let path = folder.path().join(name);
            fs::write(&path, b"not a key").expect("written");
            let error = Identity::open_or_create(folder.path()).expect_err("a damaged key");
            assert!(matches!(&error, Error::Key { path: named } if *named == path), "{error}");
            fs::remove_file(&path).expect("removed");
            let error = Identity::open_or_create(folder.path()).expect_err("a lost key");
            assert!(matches!(&error, Error::Incomplete { path: named } if *named == path), "{error}");
        }
    }

    #[test]
    fn an_interrupted_first_start_is_finished_by_the_next() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        open(folder.path());
        fs::remove_dir(folder.path().join("tokens")).expect("removed");
        fs::remove_file(folder.path().join("tls.key")).expect("removed");
        assert!(open(folder.path()).1);
    }

    #[test]
    fn a_revocation_is_honoured_at_once_by_a_running_proxy() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (admin, _) = open(folder.path());
        let (proxy, _) = open(folder.path());
        let (late, text) = admin.create_token(|id| grant(id, 7)).expect("a token");
        let (early, _) = admin.create_token(|id| grant(id, 5)).expect("a token");
        assert_eq!(proxy.check(&text, 0).expect("a good token"), grant(late, 7));
        assert!(admin.revoke(late).expect("revoked"));
        assert!(admin.revoke(late).expect("revoked twice"));
        assert!(matches!(proxy.check(&text, 0), Err(Error::Revoked(id)) if id == late));
        let listed = |id, issued, is_revoked| Listed {
            id,
            grant: Some(grant(id, issued)),
            is_recorded: true,
            is_revoked,
        };
        assert_eq!(proxy.tokens().expect("a list"), [listed(early, 5, false), listed(late, 7, true)]);
    }

    #[test]
    fn a_token_outlives_its_record_and_is_revoked_without_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (identity, _) = open(folder.path());
        let (whole, _) = identity.create_token(|id| grant(id, 3)).expect("a token");
        let (id, text) = identity.create_token(|id| grant(id, 0)).expect("a token");
        let listed = |is_recorded, is_revoked| Listed { id, grant: None, is_recorded, is_revoked };
        for damaged in [&b"damaged"[..], b"", &vec![0; 70_000]] {
            fs::write(folder.path().join("tokens").join(id.to_string()), damaged).expect("written");
            let tokens = identity.tokens().expect("a list");
            assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [whole, id]);
            assert_eq!(tokens[1], listed(true, false));
        }
        fs::remove_file(folder.path().join("tokens").join(id.to_string())).expect("removed");
        assert!(identity.check(&text, 0).is_ok());
        assert!(!identity.revoke(id).expect("revoked"), "there is no record");
        assert!(matches!(identity.check(&text, 0), Err(Error::Revoked(found)) if found == id));
        assert_eq!(identity.tokens().expect("a list")[1], listed(false, true));
    }
}
