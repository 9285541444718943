//! Names of values, and of tables of them.

use std::fmt;

use ground::ids::{AppName, ChunkId, DestinationName, Label, ReleaseId, SpaceName, TargetName};
use protocol::token::TokenId;

/// The name of a value. Keys of one table are ordered by their last field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The record of a push (FORMAT 4).
    Record {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// Counts the application's pushes from 1.
        number: u64,
    },
    /// There while a release is pinned; the value is empty.
    Pin {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The release.
        release: ReleaseId,
    },
    /// A delivery that has not ended (FORMAT 5).
    Delivery {
        /// Deliveries are made in the order of their numbers.
        number: u64,
    },
    /// A delivery that has ended (FORMAT 5.2).
    Ended {
        /// The number that it had.
        number: u64,
    },
    /// What a destination shows of an application (FORMAT 5.1).
    Shown {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The destination.
        destination: DestinationName,
    },
    /// What is known of a target of an application (FORMAT 5.4).
    Target {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The target.
        target: TargetName,
    },
    /// A rollout (FORMAT 5.5).
    Rollout {
        /// Counts them.
        number: u64,
    },
    /// The release of a group of an application (FORMAT 5.6).
    Group {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The group.
        group: DestinationName,
    },
    /// An action that is to follow an event (FORMAT 5.3).
    Notice {
        /// Counts them.
        number: u64,
    },
    /// The grant of a token (FORMAT 6).
    Token {
        /// The token.
        id: TokenId,
    },
    /// There once a token was revoked; the value is empty.
    Revoked {
        /// The token.
        id: TokenId,
    },
    /// An entry of the log of an application's current release (FORMAT 4.1).
    Current {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// Counts the entries from 1.
        number: u64,
    },
    /// The meaning that a label was given or lost after its push (FORMAT 4.2).
    Label {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The label.
        label: Label,
    },
    /// The mark of content that was pushed without a release (FORMAT 4.3).
    Cached {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
        /// The root of its manifest.
        root: ChunkId,
    },
    /// The manifests of a release that has archives (FORMAT 4.4).
    Manifests {
        /// The space.
        space: SpaceName,
        /// The release.
        release: ReleaseId,
    },
}

impl Key {
    /// The table that has the key.
    pub fn table(&self) -> Table {
        match self {
            Self::Record { space, app, .. } => Table::Records { space: space.clone(), app: app.clone() },
            Self::Pin { space, app, .. } => Table::Pins { space: space.clone(), app: app.clone() },
            Self::Delivery { .. } => Table::Deliveries,
            Self::Ended { .. } => Table::Ended,
            Self::Shown { space, app, .. } => Table::Shown { space: space.clone(), app: app.clone() },
            Self::Target { space, app, .. } => Table::Targets { space: space.clone(), app: app.clone() },
            Self::Rollout { .. } => Table::Rollouts,
            Self::Group { space, app, .. } => Table::Groups { space: space.clone(), app: app.clone() },
            Self::Notice { .. } => Table::Notices,
            Self::Token { .. } => Table::Tokens,
            Self::Revoked { .. } => Table::Revoked,
            Self::Current { space, app, .. } => Table::Current { space: space.clone(), app: app.clone() },
            Self::Label { space, app, .. } => Table::Labels { space: space.clone(), app: app.clone() },
            Self::Cached { space, app, .. } => Table::Cached { space: space.clone(), app: app.clone() },
            Self::Manifests { space, .. } => Table::Manifests { space: space.clone() },
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { space, app, number } => write!(f, "record {number} of `{app}` in space `{space}`"),
            Self::Pin { space, app, release } => {
                write!(f, "the pin of release {} of `{app}` in space `{space}`", release.short())
            }
            Self::Delivery { number } => write!(f, "delivery {number}"),
            Self::Ended { number } => write!(f, "the end of delivery {number}"),
            Self::Shown { space, app, destination } => {
                write!(f, "what destination `{destination}` shows of `{app}` in space `{space}`")
            }
            Self::Target { space, app, target } => {
                write!(f, "target `{target}` of `{app}` in space `{space}`")
            }
            Self::Rollout { number } => write!(f, "rollout {number}"),
            Self::Group { space, app, group } => {
                write!(f, "the release of group `{group}` of `{app}` in space `{space}`")
            }
            Self::Notice { number } => write!(f, "notice {number}"),
            Self::Token { id } => write!(f, "the grant of token {id}"),
            Self::Revoked { id } => write!(f, "the revocation of token {id}"),
            Self::Current { space, app, number } => {
                write!(f, "entry {number} of the log of `{app}` in space `{space}`")
            }
            Self::Label { space, app, label } => write!(f, "label `{label}` of `{app}` in space `{space}`"),
            Self::Cached { space, app, root } => {
                write!(f, "the mark of cached content {} of `{app}` in space `{space}`", root.short())
            }
            Self::Manifests { space, release } => {
                write!(f, "the manifests of release {} in space `{space}`", release.short())
            }
        }
    }
}

/// Keys that are listed together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The records of an application.
    Records {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The pinned releases of an application.
    Pins {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The deliveries of all spaces.
    Deliveries,
    /// The deliveries of all spaces that ended last.
    Ended,
    /// What destinations show of an application.
    Shown {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The targets of an application.
    Targets {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The rollouts of all spaces: those that have not ended, and those that ended last.
    Rollouts,
    /// The releases of an application's groups.
    Groups {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The actions that are to follow events, of all spaces.
    Notices,
    /// The grants of tokens.
    Tokens,
    /// The tokens that were revoked.
    Revoked,
    /// The log of an application's current release.
    Current {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The labels of an application that were given or lost after their pushes.
    Labels {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The cached content of an application.
    Cached {
        /// The space.
        space: SpaceName,
        /// The application.
        app: AppName,
    },
    /// The manifests of a space's releases that have archives.
    Manifests {
        /// The space.
        space: SpaceName,
    },
}
