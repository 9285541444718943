//! A target without a directory: it watches, and says what a test tells it to say.

use std::time::Duration;

use format::target::{TargetReport, TargetState};
use ground::ids::{Label, ReleaseId, TargetName};
use protocol::token::Action;
use protocol::wire::{FromTarget, Operation, Refusal, ToTarget, Wanted, Watching};
use whit::agent::{Access, Session};
use whit::net::link::{self, Receiver, Sender};

use crate::world::World;

/// A target that watches.
pub struct FakeTarget {
    session: Session,
    sender: Sender,
    receiver: Receiver,
}

/// Returns the hello of a target that shows nothing.
pub fn hello(app: &str, instance: u64) -> Watching {
    Watching {
        app: app.parse().expect("a name"),
        at: None,
        version: "0".to_owned(),
        instance,
        report: TargetReport::default(),
    }
}

/// Returns access with the token of a target, which may pull.
pub fn access_of(world: &World, target: &str) -> Access {
    let name: TargetName = target.parse().expect("a name");
    world.access_with(|grant| (grant.target, grant.actions) = (Some(name), vec![Action::Pull]))
}

/// Returns the report of a target that is sure of a release.
pub fn confirmed(release: ReleaseId, previous: Option<ReleaseId>) -> TargetReport {
    let (shown, about) = (Some(release), Some(release));
    TargetReport { shown, previous, about, state: TargetState::Confirmed, ..TargetReport::default() }
}

impl FakeTarget {
    /// Watches an application's current release.
    pub async fn watch(access: &Access, app: &str, instance: u64) -> Self {
        Self::begin(access, hello(app, instance)).await
    }

    /// Watches a label of an application.
    pub async fn watch_label(access: &Access, app: &str, at: &str, instance: u64) -> Self {
        let at: Label = at.parse().expect("a label");
        Self::begin(access, Watching { at: Some(at), ..hello(app, instance) }).await
    }

    /// Watches with any hello.
    pub async fn begin(access: &Access, watching: Watching) -> Self {
        let session = Session::open(access, &link::Options::default()).await.expect("a connection");
        let asked = session.request(&Operation::Watch(Box::new(watching))).await;
        let (sender, receiver) = asked.expect("a request");
        Self { session, sender, receiver }
    }

    /// Waits for what it is to show.
    pub async fn wanted(&mut self) -> Wanted {
        loop {
            match self.receiver.receive().await.expect("a message") {
                Some(ToTarget::Wanted(wanted)) => return *wanted,
                Some(ToTarget::Alive) => {}
                other => panic!("{other:?} is not wanted"),
            }
        }
    }

    /// Waits for the release that it is to show.
    pub async fn wanted_release(&mut self) -> ReleaseId {
        self.wanted().await.record.release
    }

    /// Returns whether nothing new is wanted for a moment.
    pub async fn hears_nothing(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.wanted()).await.is_err()
    }

    /// Waits for the end of its stream; returns why it ended.
    pub async fn refused(mut self) -> Refusal {
        loop {
            match self.receiver.receive().await {
                Ok(Some(ToTarget::Refused(refusal))) => return refusal,
                Ok(Some(ToTarget::Wanted(_) | ToTarget::Alive)) => {}
                Err(link::Error::Closed { fault, reason }) => {
                    return Refusal { fault, text: reason, hint: None };
                }
                other => panic!("it ended without a reason: {other:?}"),
            }
        }
    }

    /// Says what it does.
    pub async fn report(&mut self, report: TargetReport) {
        self.send(&FromTarget::Report(Box::new(report))).await;
    }

    /// Sends a message. A proxy that refuses takes no more of it, and says why.
    pub async fn send(&mut self, message: &FromTarget) {
        drop(self.sender.send(message).await);
    }

    /// Ends the connection.
    pub async fn leave(self) {
        self.session.finish().await;
    }
}
