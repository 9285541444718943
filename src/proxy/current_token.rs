//! Checks regularly that a conversation's token is still valid, however long the conversation takes.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at};

use super::Granted;
use disk::clock::now;
use ground::faults::Fault;
use ground::limits::{ALIVE_EVERY, RENEWALS_MAX, TOKEN_CHECK_EVERY};
use ground::poison::Unpoisoned as _;
use protocol::token::Grant;
use protocol::wire::Refusal;

/// The present token of a conversation.
#[derive(Debug)]
pub(super) struct CurrentToken(Mutex<Current>);

#[derive(Debug)]
struct Current {
    grant: Grant,
    renewals: usize,
}

impl CurrentToken {
    /// Starts with the token of the request.
    pub fn new(grant: Grant) -> Self {
        Self(Mutex::new(Current { grant, renewals: 0 }))
    }
}

/// Returns whether `new` allows all that `first` allows, for the same user and target in the same space.
fn continues(new: &Grant, first: &Grant) -> bool {
    let actions = first.actions.iter().all(|action| new.allows(*action, None));
    let applications = new.has_all_applications()
        || first.applications.iter().all(|pattern| new.applications.contains(pattern));
    let destinations = new.destinations.iter().any(ground::pattern::Pattern::is_any)
        || first.destinations.iter().all(|pattern| new.destinations.contains(pattern));
    let then = new.then.iter().any(ground::pattern::Pattern::is_any)
        || first.then.iter().all(|pattern| new.then.contains(pattern));
    let behalf = new.on_behalf || !first.on_behalf;
    (&new.user, &new.space, &new.target) == (&first.user, &first.space, &first.target)
        && actions
        && applications
        && destinations
        && behalf
        && then
}

impl Granted {
    /// Checks again that the token has neither expired nor been revoked. Looks for one file.
    pub(super) fn still_holds(&self) -> Result<(), Refusal> {
        let current = self.token.0.lock().unpoisoned();
        let checked = self.shared.identity.check_again(&current.grant, now());
        checked.map_err(|error| {
            let hint = "get a new token (`whit token create` on the proxy) and run the command again: what was \
                        acknowledged is not sent twice. A token in a file (WHIT_TOKEN_FILE) may be renewed while a \
                        command runs";
            Refusal { hint: Some(hint.to_owned()), ..Refusal::of(&error) }
        })
    }

    /// Replaces the token by another of the same user and space, which allows no less than the first.
    pub(super) fn renew(&self, token: &str) -> Result<(), Refusal> {
        let grant = self.shared.identity.check(token, now());
        let grant = grant.map_err(|error| Refusal::of(&error))?;
        if !continues(&grant, &self.grant) {
            return Err(Refusal {
                fault: Fault::Denied,
                text: "the new token has another user, space or target, or allows less than the first"
                    .to_owned(),
                hint: Some("run the command again with the new token".to_owned()),
            });
        }
        let mut current = self.token.0.lock().unpoisoned();
        current.renewals += 1;
        if current.renewals > RENEWALS_MAX {
            let text = format!("the token was renewed more than {RENEWALS_MAX} times");
            return Err(Refusal { fault: Fault::Full, text, hint: None });
        }
        current.grant = grant;
        Ok(())
    }
}

/// Ticks whenever a token must be checked again.
pub(super) fn checks() -> Interval {
    let mut checks = interval(TOKEN_CHECK_EVERY.max(Duration::from_millis(1)));
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    checks
}

/// Ticks whenever an agent that follows something must hear that the proxy is there; only so is it noticed that it is gone.
pub(super) fn alive() -> Interval {
    let mut alive = interval_at(Instant::now() + ALIVE_EVERY, ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::pattern::Pattern;
    use protocol::token::{Action, TokenId};

    #[test]
    fn a_token_goes_on_with_one_that_allows_no_less() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let first = Grant {
            id: TokenId::from_bytes([1; 8]),
            user: "ada".parse().expect("a name"),
            space: "shop".parse().expect("a name"),
            actions: vec![Action::Push],
            applications: vec![pattern("web-*")],
            destinations: vec![pattern("edge")],
            issued: 0,
            expires: Some(10),
            on_behalf: false,
            then: Vec::new(),
            target: None,
        };
        let other = |change: &dyn Fn(&mut Grant)| {
            let mut grant = Grant { id: TokenId::from_bytes([2; 8]), expires: None, ..first.clone() };
            change(&mut grant);
            grant
        };
        assert!(continues(&other(&|_| {}), &first));
        assert!(continues(&other(&|grant| grant.actions = Action::USUAL.to_vec()), &first));
        assert!(continues(&other(&|grant| grant.applications = vec![Pattern::any()]), &first));
        for change in [
            &(|grant: &mut Grant| grant.user = "eve".parse().expect("a name")) as &dyn Fn(&mut Grant),
            &|grant| grant.space = "other".parse().expect("a name"),
            &|grant| grant.target = Some("web-1".parse().expect("a name")),
            &|grant| grant.actions = vec![Action::Read],
            &|grant| grant.applications = vec![pattern("web-1")],
            &|grant| grant.destinations.clear(),
        ] {
            assert!(!continues(&other(change), &first));
        }
    }
}
