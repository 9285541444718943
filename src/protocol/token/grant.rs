//! What a token allows, on whose behalf.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;
use ground::ids::{ActionName, AppName, DestinationName, SpaceName, TargetName, UserName};
use ground::limits::LIST_MAX;
use ground::pattern::Pattern;
use ground::token_id::TokenId;

/// An action on an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make a new release.
    Push,
    /// Take a release's content.
    Pull,
    /// List releases, deliveries and what they cost.
    Read,
    /// Send a release to a destination.
    Deliver,
    /// Remove and pin releases, collect garbage, verify.
    Admin,
    /// Make stored releases current, deliver them with that, and label them. [`Action::Deliver`] allows it too.
    Promote,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 6] =
        [Self::Push, Self::Pull, Self::Read, Self::Deliver, Self::Admin, Self::Promote];
    /// The everyday actions of agents: all but [`Action::Admin`], and [`Action::Promote`], which is allowed with them.
    pub const USUAL: [Self; 4] = [Self::Push, Self::Pull, Self::Read, Self::Deliver];

    /// Returns the action's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Read => "read",
            Self::Deliver => "deliver",
            Self::Admin => "admin",
            Self::Promote => "promote",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == text);
        found.ok_or_else(|| Error::Action(text.chars().take(80).collect()))
    }
}

/// The permissions of one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The token.
    pub id: TokenId,
    /// On whose behalf its holder acts.
    pub user: UserName,
    /// The one space it opens.
    pub space: SpaceName,
    /// The allowed actions.
    pub actions: Vec<Action>,
    /// The applications with which it may be done; none matches none.
    pub applications: Vec<Pattern>,
    /// The destinations that may be named; none matches none.
    pub destinations: Vec<Pattern>,
    /// When the token was made, Unix seconds.
    pub issued: u64,
    /// From when on it is refused, Unix seconds; never where absent.
    pub expires: Option<u64>,
    /// True for another proxy's token: its pushes say on whose behalf they are made.
    #[serde(default)]
    pub on_behalf: bool,
    /// The actions that its deliveries may ask for to follow; none matches none.
    #[serde(default)]
    pub then: Vec<Pattern>,
    /// The target whose token it is; none for a user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
}

impl Grant {
    /// Returns whether `action` is allowed with `application`, or with some application where none is given.
    pub fn allows(&self, action: Action, application: Option<&AppName>) -> bool {
        // A token of before there was `promote` could deliver any release anywhere it names.
        let is_covered = action == Action::Promote && self.actions.contains(&Action::Deliver);
        (is_covered || self.actions.contains(&action))
            && application.is_none_or(|name| self.has_application(name))
    }

    /// Returns whether the token names all present and future applications.
    pub fn has_all_applications(&self) -> bool {
        self.applications.iter().any(Pattern::is_any)
    }

    /// Returns whether `application` is one of the token's; what may be done with it is for [`Grant::allows`]
    /// to say.
    pub fn has_application(&self, application: &AppName) -> bool {
        self.applications.iter().any(|pattern| pattern.matches(application.as_str()))
    }

    /// Returns whether `destination` may be named; by what action is for [`Grant::allows`] to say.
    pub fn allows_destination(&self, destination: &DestinationName) -> bool {
        self.destinations.iter().any(|pattern| pattern.matches(destination.as_str()))
    }

    /// Returns whether `action` may be asked for to follow a delivery.
    pub fn allows_then(&self, action: &ActionName) -> bool {
        self.then.iter().any(|pattern| pattern.matches(action.as_str()))
    }

    /// Returns whether the token's time is over at `now`, Unix seconds.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Checks the lists against their bound.
    ///
    /// # Errors
    /// [`Error::TooMany`] names the first that is longer.
    pub fn check(&self) -> Result<(), Error> {
        let lists = [
            ("actions", self.actions.len()),
            ("applications", self.applications.len()),
            ("destinations", self.destinations.len()),
            ("actions that follow", self.then.len()),
        ];
        match lists.into_iter().find(|(_, length)| *length > LIST_MAX) {
            None => Ok(()),
            Some((what, found)) => Err(Error::TooMany { what, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_allows_only_what_it_names() {
        let name = |text: &str| text.parse::<AppName>().expect("a name");
        let grant = Grant {
            id: TokenId::from_bytes([1; 8]),
            user: "ada".parse().expect("a name"),
            space: "shop".parse().expect("a name"),
            actions: vec![Action::Push],
            applications: vec!["web-*".parse().expect("a pattern")],
            destinations: vec![],
            issued: 0,
            expires: Some(10),
            on_behalf: false,
            then: Vec::new(),
            target: None,
        };
        assert!(grant.allows(Action::Push, Some(&name("web-1"))));
        assert!(grant.allows(Action::Push, None));
        assert!(!grant.allows(Action::Push, Some(&name("api"))));
        assert!(!grant.allows(Action::Pull, Some(&name("web-1"))));
        assert!(!grant.allows(Action::Promote, Some(&name("web-1"))));
        let delivers = Grant { actions: vec![Action::Deliver], ..grant.clone() };
        assert!(
            delivers.allows(Action::Promote, Some(&name("web-1"))) && !delivers.allows(Action::Push, None)
        );
        assert!(!delivers.allows(Action::Promote, Some(&name("api"))));
        assert!(!grant.allows_destination(&"edge".parse().expect("a name")));
        assert!(!grant.has_all_applications() && grant.has_application(&name("web-1")));
        let all =
            Grant { applications: vec!["api".parse().expect("a pattern"), Pattern::any()], ..grant.clone() };
        assert!(all.has_all_applications() && !grant.has_application(&name("api")));
        assert!(!grant.is_expired(9) && grant.is_expired(10));
    }

    #[test]
    fn a_grant_of_before_there_were_chains_speaks_for_its_own_user() {
        let (id, issued, expires) = (TokenId::from_bytes([1; 8]), 5_u64, None::<u64>);
        let older = (id, "ada", "shop", [Action::Push], ["web"], ["edge"], issued, expires);
        let older = rmp_serde::to_vec(&older).expect("bytes");
        let grant: Grant = rmp_serde::from_slice(&older).expect("a grant");
        assert!(!grant.on_behalf && grant.allows(Action::Push, None));
        assert!(!grant.allows_then(&"restart".parse().expect("a name")));
    }

    #[test]
    fn words_survive_their_text_form() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
            assert_eq!(serde_json::to_string(&action).expect("a word"), format!("\"{action}\""));
        }
        assert!("Push".parse::<Action>().is_err());
    }
}
