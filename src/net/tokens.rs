//! The register of a proxy's tokens: grants for lists, and revocations.
//!
//! A token carries its grant and needs no entry here to be accepted. Any number of processes may share one ledger; a
//! revocation by one is honoured by all at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ledger::{Change, Key, Ledger, Result, Table};
use protocol::token::{Grant, TokenId};

/// The register.
#[derive(Debug)]
pub struct Tokens {
    ledger: Arc<dyn Ledger>,
}

impl Tokens {
    /// Returns the register in a ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }

    /// Enters a new token.
    ///
    /// # Errors
    /// The ledger's.
    pub fn enter(&self, grant: &Grant) -> Result<()> {
        let value = rmp_serde::to_vec(grant).expect("a Vec takes every write");
        self.ledger.apply(&[Change::Create { key: Key::Token { id: grant.id }, value }])
    }

    /// Revokes a token; a second time changes nothing. Returns whether the token was entered here.
    ///
    /// # Errors
    /// The ledger's.
    pub fn revoke(&self, id: TokenId) -> Result<bool> {
        self.ledger.apply(&[Change::Put { key: Key::Revoked { id }, value: Vec::new() }])?;
        self.ledger.has(&Key::Token { id })
    }

    /// Returns whether a token was revoked. Looks for one key.
    ///
    /// # Errors
    /// The ledger's: that is no "no".
    pub fn is_revoked(&self, id: TokenId) -> Result<bool> {
        self.ledger.has(&Key::Revoked { id })
    }

    /// Returns all tokens that were entered or revoked: the oldest first, those without a known grant last.
    ///
    /// # Errors
    /// The ledger's.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut ids = BTreeSet::new();
        for table in [Table::Tokens, Table::Revoked] {
            ids.extend(self.ledger.list(&table)?.into_iter().filter_map(|key| match key {
                Key::Token { id } | Key::Revoked { id } => Some(id),
                _ => None,
            }));
        }
        let listed = |id| {
            let (grant, is_recorded) = match self.ledger.read(&Key::Token { id }) {
                Ok(Some(bytes)) => (grant_of(id, &bytes), true),
                Ok(None) => (None, false),
                // A grant that cannot be read does not hide the others.
                Err(_) => (None, true),
            };
            Ok(Listed { id, grant, is_recorded, is_revoked: self.is_revoked(id)? })
        };
        let mut tokens = ids.into_iter().map(listed).collect::<Result<Vec<_>>>()?;
        tokens.sort_by_key(|token| (token.grant.as_ref().map_or(u64::MAX, |grant| grant.issued), token.id));
        Ok(tokens)
    }
}

/// A token that was entered or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The id to revoke it by.
    pub id: TokenId,
    /// The token's grant; none if that is damaged or gone. The token may still be valid.
    pub grant: Option<Grant>,
    /// True if the token was entered, its grant damaged or not.
    pub is_recorded: bool,
    /// True if it was revoked.
    pub is_revoked: bool,
}

/// Decodes a whole grant.
fn grant_of(id: TokenId, bytes: &[u8]) -> Option<Grant> {
    let grant = rmp_serde::from_slice::<Grant>(bytes).ok();
    grant.filter(|grant| grant.id == id && grant.check().is_ok())
}
