//! What a request asks of groups.

use std::sync::Arc;

use super::super::granted::Granted;
use super::super::now;
use crate::delivery::rollout::{Group, Rollout};
use crate::net::blocking;
use ground::faults::Fault;
use ground::ids::{ActionName, AppName, DestinationName, ReleaseId, TargetName};
use protocol::token::Action;
use protocol::wire::Refusal;

/// Names in a hint.
const NAMES_MAX: usize = 8;

/// Parts what a request names into the group and the destinations.
///
/// # Errors
/// It names two groups.
pub fn split(
    granted: &Granted,
    names: &[DestinationName],
) -> Result<(Option<DestinationName>, Vec<DestinationName>), Refusal> {
    let is_group = |name: &&DestinationName| granted.shared.rollouts.group(name).is_some();
    let (groups, destinations): (Vec<_>, Vec<_>) = names.iter().partition(is_group);
    if let [one, other, ..] = groups[..] {
        let text = format!("`{one}` and `{other}` are groups, and a release is rolled out to one at a time");
        let hint = "roll it out to one, then `whit promote APP@RELEASE --to` the other".to_owned();
        return Err(Refusal { fault: Fault::Input, text, hint: Some(hint) });
    }
    Ok((groups.first().map(|group| (*group).clone()), destinations.into_iter().cloned().collect()))
}

impl Granted {
    /// Checks the destinations and the group that a request names.
    pub async fn allow_places(
        self: &Arc<Self>,
        app: &AppName,
        names: &[DestinationName],
    ) -> Result<(), Refusal> {
        let (group, destinations) = split(self, names)?;
        self.allow_destinations(&destinations)?;
        let Some(name) = group else { return Ok(()) };
        let (granted, app) = (Arc::clone(self), app.clone());
        let allowed = blocking::start(move || granted.allow_group(&app, &name));
        allowed.await.map_err(|error| Refusal::of(&error))?
    }

    /// Checks that the token allows a group, and that it has members. Blocks for the ledger.
    fn allow_group(&self, app: &AppName, name: &DestinationName) -> Result<(), Refusal> {
        self.allow_destination(name)?;
        let Some(group) = self.shared.rollouts.group(name) else { return Ok(()) };
        let space = &self.grant.space;
        let known = self.shared.targets.known(space, app).map_err(|error| Refusal::of(&error))?;
        let mut targets: Vec<&TargetName> = known.iter().map(|status| &status.target).collect();
        if !group.destinations.is_empty() || targets.iter().any(|target| group.has_target(target)) {
            return Ok(());
        }
        if !self.grant.allows(Action::Read, Some(app)) {
            targets.clear();
        }
        Err(no_members(app, name, group, &targets))
    }

    /// Returns the rollout of a release to a group, on the token's behalf.
    pub fn rollout(
        &self,
        app: &AppName,
        release: ReleaseId,
        group: Option<DestinationName>,
        because: Option<&str>,
        then: &[ActionName],
        moves_current: bool,
    ) -> Option<Rollout> {
        let group = group?;
        Some(Rollout {
            space: self.grant.space.clone(),
            app: app.clone(),
            group,
            release,
            previous: None,
            user: self.grant.user.clone(),
            token: self.grant.id,
            because: because.map(str::to_owned),
            then: then.to_vec(),
            asked: now(),
            moves_current,
            members: Vec::new(),
            machine: None,
            ended: None,
            own: Vec::new(),
            current_stays: None,
            takes_back: None,
        })
    }
}

fn no_members(app: &AppName, name: &DestinationName, group: &Group, targets: &[&TargetName]) -> Refusal {
    let patterns: Vec<&str> = group.targets.iter().map(ground::pattern::Pattern::as_str).collect();
    let text = format!("group `{name}` has no target of `{app}`: none is named like {}", patterns.join(", "));
    let names: Vec<&str> = targets.iter().take(NAMES_MAX).map(|target| target.as_str()).collect();
    let more = if targets.len() > NAMES_MAX { ", …" } else { "" };
    let hint = if names.is_empty() {
        format!(
            "start `whit pull --watch {app} DIR` there, with a token of \
            `whit token create --target NAME`"
        )
    } else {
        format!("the targets of `{app}` are {}{more}", names.join(", "))
    };
    Refusal { fault: Fault::Input, text, hint: Some(hint) }
}
