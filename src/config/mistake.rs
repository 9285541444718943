//! Mistakes in a configuration's values, and suggestions for misspelt keys.

use std::borrow::Cow;
use std::path::PathBuf;

use super::places::Relation;
use crate::delivery::{actions, destination};
use ground::ids::{ActionName, AppName, DestinationName};
use ground::pattern::Pattern;
use protocol::address;

/// A mistake in a key's value.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A mistake in a destination's own keys.
    #[error(transparent)]
    Definition(destination::Mistake),
    /// A mistake in the keys of a hook or webhook.
    #[error(transparent)]
    Action(actions::Mistake),
    /// A hook and a webhook of one name.
    #[error("there is a hook named `{0}`, too")]
    Twice(ActionName),
    /// Nothing would be kept.
    #[error("0 keeps nothing")]
    Nothing,
    /// A group with the name of a destination.
    #[error("`{0}` is a destination too")]
    GroupAndDestination(DestinationName),
    /// A member of a group that is no destination.
    #[error("there is no destination `{member}`")]
    NoDestination {
        /// The member.
        member: DestinationName,
        /// The destination that is named most alike.
        nearest: Option<String>,
    },
    /// A group without members.
    #[error("a group has targets or destinations")]
    NoMembers,
    /// A group whose members have no time to confirm.
    #[error("members need time to confirm")]
    NoTime,
    /// A group that updates nobody at a time.
    #[error("a batch is somebody")]
    Nobody,
    /// A host that no address can name.
    #[error(transparent)]
    Host(address::Error),
    /// A rule that never applies, as an earlier one matches the same applications.
    #[error("the earlier rule for `{0}` already matches all these applications")]
    Unreached(Pattern),
    /// Two destinations that would write into one another.
    #[error("it {} destination `{other}`{}", words(*.relation), for_app(.app.as_ref()))]
    Destination {
        /// The relation of its folder to the other's.
        relation: Relation,
        /// The other.
        other: DestinationName,
        /// The application for which they meet, where they do not for all.
        app: Option<AppName>,
    },
    /// A destination that overlaps the proxy's data folder.
    #[error("it {} the data folder {}{}", words(*.relation), .data.display(), for_app(.app.as_ref()))]
    Data {
        /// Its relation to the data folder.
        relation: Relation,
        /// The data folder.
        data: PathBuf,
        /// The application for which they meet, where they do not for all.
        app: Option<AppName>,
    },
}

fn words(relation: Relation) -> &'static str {
    match relation {
        Relation::Same => "is the same folder as",
        Relation::Inside => "lies inside",
        Relation::Holds => "holds",
    }
}

fn for_app(app: Option<&AppName>) -> String {
    app.map(|app| format!(", for the application `{app}`")).unwrap_or_default()
}

impl Mistake {
    /// Returns what to do about it.
    pub fn hint(&self) -> Cow<'static, str> {
        let hint = match self {
            Self::NoDestination { nearest, .. } => {
                let meant = nearest.as_ref().map(|word| format!("did you mean `{word}`? "));
                let meant = meant.unwrap_or_default();
                return format!(
                    "{meant}`targets` names machines that pull, `destinations` those of this file"
                )
                .into();
            }
            Self::GroupAndDestination(_) => "`--to` names either: give each a name of its own",
            Self::NoMembers => "give `targets = [\"web-*\"]`, or `destinations`",
            Self::NoTime => "give the longest time that an update may take, like \"10m\"",
            Self::Nobody => "give 1 or more, or a percentage, which is rounded up",
            Self::Definition(mistake) => mistake.hint(),
            Self::Action(mistake) => mistake.hint(),
            Self::Twice(_) => "`--then` names either: give each a name of its own",
            Self::Nothing => "give 1 or more, or omit the key",
            Self::Host(_) => "give a name or an IP address, without a port: `listen` has the port",
            Self::Unreached(_) => "the first rule that matches applies: put the more specific one first",
            Self::Destination { .. } => "give each destination a folder of its own, such as /srv/NAME/{app}",
            Self::Data { .. } => "choose a folder outside the proxy's data folder",
        };
        hint.into()
    }
}

/// Returns the expected word most like the one that a parser did not know. Reads both from the parser's message: only a
/// hint depends on its text.
pub fn suggestion(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted)
}

/// Returns the word most like one that is unknown, if one is like it.
pub fn nearest<'a>(unknown: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = words.map(|word| (edits(unknown, word), word)).min()?;
    (nearest.0 <= 1 + unknown.len() / 3).then_some(nearest.1)
}

/// Letters to change, add or leave out to make one word the other (Levenshtein 1966). Time O(n · m).
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], line + 1);
        for (place, other) in other.bytes().enumerate() {
            let changed = corner + usize::from(letter != other);
            corner = row[place + 1];
            row[place + 1] = changed.min(row[place] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}
