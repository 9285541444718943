//! A request whose token was checked, and what the token allows.

use std::sync::Arc;

use super::current_token::CurrentToken;
use super::{Shared, audit, now};
use crate::delivery::rollout::Rollout;
use crate::delivery::{Delivery, Events};
use crate::net::blocking;
use crate::store;
use ground::faults::Fault;
use ground::ids::{ActionName, AppName, DestinationName, ReleaseId, RolloutId};
use protocol::token::{Action, Grant, Hop};
use protocol::wire::{DeliveryStatus, Refusal};

/// What a request has begun, and its agent may follow.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// The events of each delivery.
    pub events: Vec<Events>,
    /// The rollout.
    pub rollout: Option<RolloutId>,
}

/// A request whose token was checked.
pub(super) struct Granted {
    pub shared: Arc<Shared>,
    /// The grant at the beginning of the request, whose bounds hold to its end.
    pub grant: Grant,
    pub token: CurrentToken,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Granted {
    /// Checks that the token allows the action on the application.
    pub fn allow(&self, action: Action, app: Option<&AppName>) -> Result<(), Refusal> {
        if self.grant.allows(action, app) {
            return Ok(());
        }
        let on = app.map(|app| format!(" `{app}`")).unwrap_or_default();
        Err(Refusal {
            fault: Fault::Denied,
            text: format!("the token does not allow {action}{on}"),
            hint: Some("ask the proxy's admin for a token that does (`whit token create`)".to_owned()),
        })
    }

    /// Checks that an application has releases: an empty list of one that nobody knows looks like one where nothing happens.
    pub async fn has_app(self: &Arc<Self>, app: &AppName) -> Result<(), Refusal> {
        let (by, app) = (Arc::clone(self), app.clone());
        let found = blocking::start(move || {
            let known = by.store()?.records().latest(&app).is_some();
            if known { Ok(()) } else { Err(Refusal::of(&store::Error::NoApp(app))) }
        });
        found.await.map_err(|error| Refusal::of(&error))?
    }

    /// Checks that the token allows the action on all present and future applications. The refusal names none.
    pub fn allow_whole_space(&self, action: Action) -> Result<(), Refusal> {
        self.allow(action, None)?;
        if self.grant.has_all_applications() {
            return Ok(());
        }
        Err(Refusal {
            fault: Fault::Denied,
            text: format!("the token does not allow {action} on all applications of the space"),
            hint: Some(
                "name an application; or ask the proxy's admin for a token for all of them".to_owned(),
            ),
        })
    }

    /// Checks that each destination exists, the token allows it, and the user may have another delivery waiting.
    pub fn allow_destinations(&self, destinations: &[DestinationName]) -> Result<(), Refusal> {
        for destination in destinations {
            self.allow_destination(destination)?;
            self.is_no_group(destination)?;
            let Grant { space, user, .. } = &self.grant;
            let room = self.shared.deliveries.check_room(destination, space, Some(user));
            room.map_err(|error| Refusal::of(&error))?;
        }
        Ok(())
    }

    /// Checks that what a delivery names is not a group.
    pub fn is_no_group(&self, name: &DestinationName) -> Result<(), Refusal> {
        if self.shared.rollouts.group(name).is_none() {
            return Ok(());
        }
        let text = format!("`{name}` is a group: releases are rolled out to it");
        let hint = format!("`whit promote APP@RELEASE --to {name}` or `whit push APP PATH --to {name}`");
        Err(Refusal { fault: Fault::Input, text, hint: Some(hint) })
    }

    /// Checks that the token allows the destination.
    pub fn allow_destination(&self, destination: &DestinationName) -> Result<(), Refusal> {
        if self.grant.allows_destination(destination) {
            return Ok(());
        }
        Err(Refusal {
            fault: Fault::Denied,
            text: format!("the token does not allow destination `{destination}`"),
            hint: Some("ask the proxy's admin for a token that does (`whit token create`)".to_owned()),
        })
    }

    /// Checks that the token and the admin allow actions to follow an application's deliveries to destinations.
    pub fn allow_then(
        &self,
        app: &AppName,
        destinations: &[DestinationName],
        then: &[ActionName],
    ) -> Result<(), Refusal> {
        if let Some(action) = then.iter().find(|action| !self.grant.allows_then(action)) {
            return Err(Refusal {
                fault: Fault::Denied,
                text: format!("the token does not allow the action `{action}`"),
                hint: Some(
                    "ask the proxy's admin for a token that does (`whit token create --then`)".to_owned(),
                ),
            });
        }
        // What follows the rollout to a group follows its deliveries to the group's destinations.
        let mut places = Vec::new();
        for name in destinations {
            match self.shared.rollouts.group(name) {
                Some(group) => places.extend_from_slice(&group.destinations),
                None => places.push(name.clone()),
            }
        }
        self.shared.actions.check(app, &places, then).map_err(|error| Refusal::of(&error))
    }

    /// Returns the deliveries of a release to destinations, on the token's behalf; `behalf` are the proxies before this one,
    /// `then` the actions that follow.
    pub fn deliveries(
        &self,
        app: &AppName,
        release: ReleaseId,
        to: &[DestinationName],
        behalf: &[Hop],
        then: &[ActionName],
    ) -> Vec<Delivery> {
        let delivery = |destination: &DestinationName| Delivery {
            user: Some(self.grant.user.clone()),
            asked: now(),
            token: Some(self.grant.id),
            behalf: behalf.to_vec(),
            then: then.to_vec(),
            ..Delivery::new(self.grant.space.clone(), app.clone(), release, destination.clone())
        };
        to.iter().map(delivery).collect()
    }

    /// Queues deliveries of a release that was stored before, and begins its rollout.
    pub fn queue(
        &self,
        app: &AppName,
        release: ReleaseId,
        to: &[DestinationName],
        behalf: &[Hop],
        then: &[ActionName],
        rollout: Option<Rollout>,
    ) -> Result<Queued, Refusal> {
        if to.is_empty() && rollout.is_none() {
            return Ok(Queued::default());
        }
        let store = self.store()?;
        // Until they are queued, nobody removes the release.
        let _turn = store.records().turn();
        if !store.records().has(&release, |other| other == app) {
            let text = format!("release {} of `{app}` was removed meanwhile", release.short());
            let hint = Some("push again: it is stored again".to_owned());
            return Err(Refusal { fault: Fault::Retry, text, hint });
        }
        self.add(app, release, to, behalf, then, rollout)
    }

    /// The same, for who has the turn of the records and found the release.
    pub fn add(
        &self,
        app: &AppName,
        release: ReleaseId,
        to: &[DestinationName],
        behalf: &[Hop],
        then: &[ActionName],
        rollout: Option<Rollout>,
    ) -> Result<Queued, Refusal> {
        let deliveries = self.deliveries(app, release, to, behalf, then);
        let events = self.shared.deliveries.add(deliveries).map_err(|error| Refusal::of(&error))?;
        let rollout = self.shared.rollouts.add(rollout).map_err(|error| Refusal::of(&error))?;
        Ok(Queued { events, rollout })
    }

    /// Tells targets that the current release of an application, or a label, has moved.
    pub fn moved(&self, app: &AppName) {
        self.shared.targets.moved(&self.grant.space, app);
    }

    /// Appends an operation on a release, on the token's behalf, to the audit log.
    pub fn audit(&self, action: &'static str, app: &AppName, release: ReleaseId) {
        self.shared.audit.write(&audit::Entry::of(&self.grant, action, app, release));
    }

    /// Appends an operation on a delivery, on the token's behalf, to the audit log.
    pub fn audit_delivery(&self, action: &'static str, delivery: &DeliveryStatus) {
        self.shared.audit.write(&audit::Entry {
            destinations: std::slice::from_ref(&delivery.destination),
            behalf: &delivery.behalf,
            ..audit::Entry::of(&self.grant, action, &delivery.app, delivery.release)
        });
    }

    /// Returns the space that the token names. Blocks for the disk at its first use.
    pub fn store(&self) -> Result<Arc<store::Store>, Refusal> {
        self.shared.spaces.open(&self.grant.space).map_err(|error| Refusal::of(&error))
    }
}
