//! Why a name or id was refused.

/// The reasons to refuse a name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not 64 hexadecimal digits.
    #[error("`{0}` is not an id: expected 64 hexadecimal digits")]
    Id(String),
    /// No id of a delivery.
    #[error("`{0}` is not the id of a delivery: expected one like 5499220e-17")]
    Delivery(String),
    /// No id of a rollout.
    #[error("`{0}` is not the id of a rollout: expected one like 5499220e-17")]
    Rollout(String),
    /// No id of a token.
    #[error("`{0}` is not a token's id: expected 16 hexadecimal digits")]
    Token(String),
    /// A word that is no name.
    #[error("{what} `{name}` is not allowed: use 1 to 64 of A-Z a-z 0-9 . _ - and do not start with . or -")]
    Name {
        /// The kind of name.
        what: &'static str,
        /// The word.
        name: String,
    },
}
