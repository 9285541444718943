//! Serves one push: the link on async threads, the state machine and the store on a blocking one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Interval;

use super::audit::Entry;
use super::current_token::checks;
use super::follow::{Following, Unheard};
use super::granted::Queued;
use super::incoming::{Inbox, Incoming};
use super::memory_share::MemoryShare;
use super::rollouts::split;
use super::store_view::StoreView;
use super::{Granted, now, owner, refuse};
use crate::delivery::Events;
use crate::net::blocking;
use crate::net::link::{Pulse, Receiver, Replies, Sender, replies};
use crate::net::link_estimate::{Link, LinkEstimate};
use crate::store::{CurrentAfter, Intent, Records};
use disk::crash_points;
use format::record::Record;
use ground::faults::{Fault, Faulty};
use ground::ids::{ActionName, DestinationName};
use ground::limits::ALIVE_EVERY;
use ground::poison::Unpoisoned as _;
use ground::stall::Watch;
use protocol::Error;
use protocol::push::Proxy;
use protocol::token::{Action, Hop};
use protocol::transfer::BeyondCredit;
use protocol::wire::{FromAgent, Open, PushReply, Refusal};

/// Messages from the agent that wait for the state machine. A full queue makes the link wait, and bounds memory.
const MESSAGES_AHEAD: usize = 8;

/// Serves a push until the agent is done or gone.
pub async fn serve(granted: Arc<Granted>, open: Open, link: Link, mut sender: Sender, receiver: Receiver) {
    let destinations = &open.destinations;
    let allowed = granted.allow(Action::Push, Some(&open.app));
    let allowed = match allowed {
        Ok(()) => granted.allow_places(&open.app, destinations).await,
        refused => refused,
    };
    let allowed = allowed.and_then(|()| granted.allow_behalf(&open.behalf));
    let allowed = allowed.and_then(|()| granted.allow_then(&open.app, destinations, &open.then));
    if let Err(refusal) = allowed {
        return refuse(sender, refusal).await;
    }
    let (messages_in, messages) = mpsc::channel(MESSAGES_AHEAD);
    let (said, mut backlog) = replies();
    let progress = Arc::new(Progress {
        watch: Mutex::new(Watch::new(Instant::now(), receiver.progress_max())),
        pulse: said.pulse(),
    });
    let reader = tokio::spawn(read(receiver, messages_in, Arc::clone(&progress), Arc::clone(&granted)));
    let push = {
        let granted = Arc::clone(&granted);
        let link = granted.shared.links.estimate(&owner(&granted.grant), &link);
        blocking::start(move || run(&granted, open, link, Inbox::Read(messages), &said, &progress))
    };
    let mut gone = false;
    loop {
        let reply = match tokio::time::timeout(ALIVE_EVERY, backlog.next()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => break,
            Err(_) => match backlog.alive() {
                Some(alive) => alive,
                None => continue,
            },
        };
        // If the agent is gone, what it has sent so far is still stored: its next push continues there.
        gone = gone || sender.send(&reply).await.is_err();
    }
    let events = match push.await {
        Ok(Ok(queued)) => queued.events,
        Ok(Err(refusal)) => {
            reader.abort();
            return refuse(sender, refusal).await;
        }
        Err(error) => {
            reader.abort();
            return refuse(sender, Refusal::of(&error)).await;
        }
    };
    let followed = if gone { Ok(()) } else { follow(events, &granted, &mut sender).await };
    reader.abort();
    match followed {
        Ok(()) if gone => {}
        Ok(()) => {
            if sender.send(&PushReply::Done).await.is_ok() {
                drop(sender.finish());
            }
        }
        Err(Unheard::Gone) => {}
        Err(Unheard::Refused(refusal)) => refuse(sender, refusal).await,
    }
}

/// The progress of a push, shared by the task that reads messages and the thread that works on them.
struct Progress {
    watch: Mutex<Watch>,
    pulse: Pulse,
}

impl Progress {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unpoisoned()
    }
}

/// Passes on the agent's messages until they end, the push stalls, or the token becomes invalid.
async fn read(
    mut receiver: Receiver,
    messages: mpsc::Sender<Result<FromAgent, Refusal>>,
    progress: Arc<Progress>,
    granted: Arc<Granted>,
) {
    let mut checks = checks();
    loop {
        let message = match next(&mut receiver, &progress, &granted, &mut checks).await {
            Ok(Some(FromAgent::Renew(token))) => match granted.renew(&token) {
                Ok(()) => continue,
                Err(refusal) => Err(refusal),
            },
            Ok(Some(FromAgent::LinkSeen(seen))) => {
                granted.shared.links.note(owner(&granted.grant), seen);
                continue;
            }
            Ok(Some(message)) => Ok(message),
            Ok(None) => break,
            Err(refusal) => Err(refusal),
        };
        let ends = message.is_err();
        if messages.send(message).await.is_err() || ends {
            break;
        }
    }
}

/// Returns the next message, while the push makes progress and the token is valid.
async fn next(
    receiver: &mut Receiver,
    progress: &Progress,
    granted: &Granted,
    checks: &mut Interval,
) -> Result<Option<FromAgent>, Refusal> {
    let progress_max = receiver.progress_max();
    let mut taken = progress.pulse.taken();
    // Kept across the loop, so that its deadlines are not restarted.
    let receive = receiver.receive::<FromAgent>();
    tokio::pin!(receive);
    loop {
        let Some(left) = progress.watch().left(Instant::now()) else { return Err(stalled(progress_max)) };
        tokio::select! {
            received = &mut receive => return received.map_err(|error| Refusal::of(&error)),
            _ = checks.tick() => granted.still_holds()?,
            () = tokio::time::sleep(left) => {
                // The agent is not to blame while its messages are worked on, or while it reads the replies.
                let is_reading = progress.pulse.taken() > taken;
                if progress.pulse.is_at_work() || is_reading {
                    taken = progress.pulse.taken();
                    progress.watch().renew(Instant::now());
                }
            }
        }
    }
}

/// Returns the refusal of an agent that keeps asking and does not read.
fn beyond(error: BeyondCredit) -> Refusal {
    Refusal { fault: Fault::Bug, text: error.to_string(), hint: None }
}

/// Returns the refusal that ends a push without progress.
fn stalled(time: Duration) -> Refusal {
    let text = format!("the push made no progress for {} s", time.as_secs());
    let hint = "push again: stored content is not sent again".to_owned();
    Refusal { fault: Fault::Retry, text, hint: Some(hint) }
}

/// Runs the state machine against the space. Returns what the agent may follow.
fn run(
    granted: &Arc<Granted>,
    open: Open,
    link: LinkEstimate,
    mut inbox: Inbox,
    replies: &Replies,
    progress: &Progress,
) -> Result<Queued, Refusal> {
    replies.at_work(true);
    let store = granted.store()?;
    if open.cache_only {
        store.check_cache().map_err(|error| Refusal::of(&error))?;
    }
    let (app, release) = (open.app.clone(), open.release);
    let view = StoreView::new(store, open.app.clone(), granted.grant.user.clone(), now(), replies.clone());
    let mut view = view?
        .sharing_heavy_work(&granted.shared.heavy_work)
        .on_behalf_of(granted)
        .over_fast_link(link.is_fast());
    let refusal = |error: Error| Refusal::of(&error as &dyn Faulty);
    let asked = Asked {
        destinations: open.destinations.clone(),
        behalf: open.behalf.clone(),
        then: open.then.clone(),
        keeps_current: open.keeps_current,
    };
    let dry_run = open.dry_run;
    let (mut machine, mut next) = Proxy::open(open, &mut view).map_err(refusal)?;
    let mut memory = MemoryShare::new(&granted.shared.memory, owner(&granted.grant));
    loop {
        for reply in next {
            if matches!(reply, PushReply::Cached(_)) {
                granted.audit("cache", &app, release);
            }
            if let PushReply::Committed { record, .. } = &reply {
                // Deliveries are recorded before the push is acknowledged, with the record if there is a new one.
                let queued = if dry_run {
                    Queued::default()
                } else {
                    queue(granted, record, &asked, view.take_queued())?
                };
                crash_points::point("commit.queued");
                replies.say(reply).map_err(beyond)?;
                if let Some(rollout) = queued.rollout {
                    replies.say(PushReply::RollsOut(rollout)).map_err(beyond)?;
                }
                return Ok(queued);
            }
            replies.say(reply).map_err(beyond)?;
        }
        if machine.is_finished() {
            return Ok(Queued::default());
        }
        memory.resize(machine.memory_bytes() + view.memory_bytes() + replies.memory_bytes())?;
        replies.at_work(false);
        let message = inbox.next();
        replies.at_work(true);
        let begin = Instant::now();
        match message {
            Some(Ok(message)) => {
                let replies = match message {
                    Incoming::Message(message) => machine.receive(message, &mut view),
                    Incoming::Chunks(opened) => machine.receive_chunks(opened, &mut view),
                };
                next = replies.map_err(refusal)?;
                progress.watch().hear(machine.progress(), begin, Instant::now());
            }
            Some(Err(refusal)) => return Err(refusal),
            None => {
                let text = "the push ended before its commit".to_owned();
                return Err(Refusal { fault: Fault::Input, text, hint: None });
            }
        }
    }
}

impl Granted {
    /// Writes a record and, in one transaction with it, that its release is current, its deliveries and its rollout; begins these.
    pub(super) fn record(
        &self,
        records: &Records,
        record: Record,
        open: &Open,
    ) -> Result<(Record, Queued), Refusal> {
        // Another push may be about to queue a later delivery than the one that this plan would follow.
        let _turn = records.turn();
        self.still_holds()?;
        let (deliveries, rollouts) = (&self.shared.deliveries, &self.shared.rollouts);
        let Open { destinations, behalf, then, .. } = open;
        let (group, destinations) = split(self, destinations)?;
        let (app, release) = (&record.app, record.release);
        let asked = self.deliveries(app, release, &destinations, behalf, then);
        let token = self.grant.id.to_string();
        // A rollout makes it current when it has succeeded.
        let current = match group {
            Some(_) => CurrentAfter::Awaited,
            None if open.keeps_current => CurrentAfter::Kept,
            None => CurrentAfter::Pushed,
        };
        let intent = Intent { token: &token, current, moves: open.moves };
        let mut plan = deliveries.plan(asked).map_err(|error| Refusal::of(&error))?;
        let rollout = self.rollout(app, release, group, None, then, !open.keeps_current);
        let mut rollout = rollouts.plan(rollout);
        let more = || {
            let mut changes = deliveries.changes(&mut plan);
            changes.extend(rollouts.changes(&mut rollout));
            changes
        };
        match records.add_with(record, intent, more) {
            Ok(record) => {
                self.moved(&record.app);
                let (events, rollout) = (deliveries.enter(plan), rollouts.enter(rollout));
                Ok((record, Queued { events, rollout }))
            }
            Err(error) => {
                deliveries.enter_written(plan);
                rollouts.enter_written(rollout);
                Err(Refusal::of(&error))
            }
        }
    }
}

/// What a push asks for besides its release.
struct Asked {
    destinations: Vec<DestinationName>,
    behalf: Vec<Hop>,
    then: Vec<ActionName>,
    keeps_current: bool,
}

/// Records what a push did, and queues its deliveries if they are not queued yet because it wrote no record.
fn queue(
    granted: &Granted,
    record: &Record,
    asked: &Asked,
    queued: Option<Queued>,
) -> Result<Queued, Refusal> {
    let Asked { destinations, behalf, then, keeps_current } = asked;
    if queued.is_none() {
        granted.still_holds()?;
    }
    granted.shared.audit.write(&Entry {
        destinations,
        behalf,
        ..Entry::of(&granted.grant, "push", &record.app, record.release)
    });
    let queue = || {
        let (group, destinations) = split(granted, destinations)?;
        let (app, release) = (&record.app, record.release);
        let rollout = granted.rollout(app, release, group, None, then, !keeps_current);
        granted.queue(app, release, &destinations, behalf, then, rollout)
    };
    queued.map_or_else(queue, Ok)
}

/// Reports the progress of an agent's deliveries, until each has ended or has failed a few times.
async fn follow(events: Vec<Events>, granted: &Granted, sender: &mut Sender) -> Result<(), Unheard> {
    let (mut following, mut checks) = (Following::new(events), checks());
    while let Some(event) = following.next(granted, &mut checks).await? {
        sender.send(&PushReply::Delivery(event)).await.map_err(|_| Unheard::Gone)?;
    }
    Ok(())
}
