//! Moves the current release of an application, and labels.

use std::sync::Arc;

use super::audit::Entry;
use super::follow::follow;
use super::rollouts::{before, others, split};
use super::{Granted, now};
use crate::delivery::Events;
use crate::delivery::actions::{Changed, Event, Happened, Planned};
use crate::delivery::rollout::Rollout;
use crate::net::blocking;
use crate::net::link::Sender;
use crate::store::{self, Mover, Store, Together};
use format::current::{CurrentEntry, REASON_BYTES_MAX};
use format::record::Record;
use ground::faults::{Fault, Faulty};
use ground::ids::{ActionName, AppName, DestinationName, Label, ReleaseId, Selector};
use ground::limits::LIST_MAX;
use protocol::token::Action;
use protocol::wire::{Answer, LogEntry, Moved, Operation, Refusal};

/// Entries of a log in one message: with the longest reasons below its bound.
const LOG_ROWS: usize = 200;

/// Where the current release goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// To a release that a selector means.
    Promote(Selector),
    /// Back to the one before.
    Rollback(AppName),
}

impl Target {
    fn app(&self) -> &AppName {
        match self {
            Self::Promote(release) => &release.app,
            Self::Rollback(app) => app,
        }
    }
}

/// A move that is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where the current release goes.
    pub target: Target,
    /// Where it is delivered.
    pub destinations: Vec<DestinationName>,
    /// The user's reason.
    pub because: Option<String>,
    /// The actions that are to follow each delivery.
    pub then: Vec<ActionName>,
}

fn refusal(error: &store::Error) -> Refusal {
    Refusal::of(error as &dyn Faulty)
}

/// Makes a release current, delivers it, and reports the deliveries' progress.
///
/// # Errors
/// The text for the agent.
pub async fn serve(granted: &Arc<Granted>, wanted: Wanted, sender: &mut Sender) -> Result<(), Refusal> {
    let app = wanted.target.app();
    granted.allow(Action::Promote, Some(app))?;
    if let Err(refused) = granted.allow_places(app, &wanted.destinations).await {
        if let Target::Promote(release) = &wanted.target {
            // That the release is not there comes first: a group has no target of an application that nobody knows.
            let (by, release) = (Arc::clone(granted), release.clone());
            let found =
                blocking::start(move || by.store()?.select(&release).map_err(|error| refusal(&error)));
            found.await.map_err(|error| Refusal::of(&error))??;
        }
        return Err(refused);
    }
    granted.allow_then(app, &wanted.destinations, &wanted.then)?;
    check_reason(wanted.because.as_deref())?;
    let on_behalf = Arc::clone(granted);
    let moved = blocking::start(move || move_current(&on_behalf, &wanted));
    let (answers, events) = moved.await.map_err(|error| Refusal::of(&error))??;
    for answer in answers {
        if sender.send(&answer).await.is_err() {
            // The agent is gone; the deliveries continue.
            return Ok(());
        }
    }
    follow(events, granted, sender).await
}

fn check_reason(because: Option<&str>) -> Result<(), Refusal> {
    let bytes = because.map_or(0, str::len);
    if bytes <= REASON_BYTES_MAX {
        return Ok(());
    }
    let text = format!("the reason has {bytes} B, expected at most {REASON_BYTES_MAX} B");
    Err(Refusal { fault: Fault::Input, text, hint: None })
}

/// Moves the current release and, in one transaction with that, writes down its deliveries; queues these.
fn move_current(granted: &Granted, wanted: &Wanted) -> Result<(Vec<Answer>, Vec<Events>), Refusal> {
    let Wanted { target, destinations, because, then } = wanted;
    let because = because.as_deref();
    let store = granted.store()?;
    let records = store.records();
    // No push may move it between the look and the move, or queue a delivery before these.
    let turn = records.turn();
    granted.still_holds()?;
    let is_rollback = matches!(target, Target::Rollback(_));
    let (group, places) = split(granted, destinations)?;
    if let Some(group) = group {
        let (record, rollout) = of_group(granted, &store, wanted, &group)?;
        let (app, release) = (target.app(), record.release);
        let queued = granted.add(app, release, &places, &[], then, rollout)?;
        granted.shared.audit.write(&Entry {
            destinations,
            because,
            ..Entry::of(&granted.grant, if is_rollback { "rollback" } else { "promote" }, app, release)
        });
        let meant = (!is_rollback).then(|| Answer::Meant(record.clone()));
        // The rollout moves it, when it has succeeded.
        let from = store.records().standing(app).current;
        let moved = Moved { record, from, number: None, rolled_back: false, groups: Vec::new() };
        let mut answers: Vec<Answer> = meant.into_iter().chain([Answer::Moved(Box::new(moved))]).collect();
        answers.extend(queued.rollout.map(Answer::RollsOut));
        return Ok((answers, queued.events));
    }
    let (record, from) = find(&store, target)?;
    let (app, release) = (&record.app, record.release);
    let token = granted.grant.id.to_string();
    let mover = Mover { user: &granted.grant.user, token: &token, time: now(), because };
    let deliveries = &granted.shared.deliveries;
    let asked = granted.deliveries(app, release, destinations, &[], then);
    let mut plan = deliveries.plan(asked).map_err(|error| Refusal::of(&error))?;
    let (actions, mut notices) = (&granted.shared.actions, Planned::default());
    let moved = match target {
        Target::Promote(_) => records.promote(app, &release, &mover, || deliveries.changes(&mut plan)),
        Target::Rollback(_) => {
            let more = |number, entry: &_| {
                notices = actions.plan(&rolled_back(granted, &record, number, entry), then, Some(number));
                Together { before: notices.changes(), after: deliveries.changes(&mut plan) }
            };
            let from = from.ok_or_else(|| store::Error::CurrentMoved(app.clone()));
            from.and_then(|from| records.roll_back(app, (&from, &release), &mover, more).map(Some))
        }
    };
    let moved = match moved {
        Ok(moved) => moved,
        Err(error) => {
            deliveries.enter_written(plan);
            actions.settle(notices);
            return Err(refusal(&error));
        }
    };
    let events = deliveries.enter(plan);
    actions.enter(notices);
    granted.moved(app);
    granted.shared.audit.write(&Entry {
        destinations,
        because,
        ..Entry::of(&granted.grant, if is_rollback { "rollback" } else { "promote" }, app, release)
    });
    drop(turn);
    let mut answers = Vec::new();
    if !is_rollback {
        answers.push(Answer::Meant(record.clone()));
    }
    let number = moved.as_ref().map(|(number, _)| *number);
    let from = moved.map_or(Some(release), |(_, entry)| entry.from);
    let groups =
        others(granted, app, release, from.filter(|_| is_rollback)).map_err(|error| Refusal::of(&error))?;
    answers.push(Answer::Moved(Box::new(Moved { record, from, number, rolled_back: is_rollback, groups })));
    Ok((answers, events))
}

/// Returns the release that a group is to have, and its rollout. One that takes back the release that is current makes that bad.
fn of_group(
    granted: &Granted,
    store: &Store,
    wanted: &Wanted,
    group: &DestinationName,
) -> Result<(Record, Option<Rollout>), Refusal> {
    let Wanted { target, because, then, .. } = wanted;
    let (records, app) = (store.records(), target.app());
    let (record, left) = match target {
        Target::Promote(_) => (find(store, target)?.0, None),
        Target::Rollback(_) => {
            let bad = records.standing(app).bad;
            let is_good = |it: &ReleaseId| !bad.contains(it) && records.has(it, |of| of == app);
            let (left, release) = before(granted, app, group, is_good)?;
            let at = release.to_string().parse().expect("64 digits are a word");
            let selector = Selector { app: app.clone(), at: Some(at) };
            (store.select(&selector).map_err(|error| refusal(&error))?, Some(left))
        }
    };
    let takes_back = left.filter(|left| records.standing(app).current == Some(*left));
    // Another group's, or none's, stays current.
    let moves_current = left.is_none() || takes_back.is_some();
    let group = Some(group.clone());
    let rollout = granted.rollout(app, record.release, group, because.as_deref(), then, moves_current);
    Ok((record, rollout.map(|rollout| Rollout { takes_back, ..rollout })))
}

/// Returns what a rollback tells.
fn rolled_back(
    granted: &Granted,
    record: &Record,
    number: u64,
    CurrentEntry { from, time, user, because, .. }: &CurrentEntry,
) -> Happened {
    let (shared, space) = (&granted.shared, &granted.grant.space);
    // Without names, which may have dots: the signature of a webhook separates its parts by them.
    let change = blake3::hash(format!("{space}/{}/{number}/{time}", record.app).as_bytes());
    let (proxy, change) = (shared.identity.fingerprint().to_string(), change.to_hex());
    Happened {
        event: Event::RolledBack,
        time: *time,
        id: format!("{}-{}", &proxy[..8], &change[..16]),
        space: space.clone(),
        app: record.app.clone(),
        release: record.release,
        labels: record.labels.clone(),
        previous: *from,
        destination: None,
        place: None,
        user: Some(user.clone()),
        reason: because.clone(),
        changed: Changed::default(),
    }
}

/// Returns the record that is to be current, and the release that is current now, if one is.
fn find(store: &Store, target: &Target) -> Result<(Record, Option<ReleaseId>), Refusal> {
    let records = store.records();
    let standing = records.standing(target.app());
    let selector = match target {
        Target::Promote(selector) => selector.clone(),
        Target::Rollback(app) if standing.current.is_none() => Selector { app: app.clone(), at: None },
        Target::Rollback(app) => {
            let nothing = || refusal(&store::Error::NothingBefore(app.clone()));
            let previous = standing.previous.ok_or_else(nothing)?;
            let at = previous.to_string().parse().expect("64 digits are a word");
            Selector { app: app.clone(), at: Some(at) }
        }
    };
    Ok((store.select(&selector).map_err(|error| refusal(&error))?, standing.current))
}

/// Answers questions about the current release, and moves labels.
///
/// # Errors
/// The text for the agent.
pub fn answer(granted: &Granted, question: Operation, give: &impl Fn(Answer) -> bool) -> Result<(), Refusal> {
    match question {
        Operation::Current { app, log } => show(granted, &app, log, give),
        Operation::Label { release, labels, moves } => label(granted, &release, &labels, moves, give),
        Operation::Unlabel { app, labels } => unlabel(granted, &app, &labels, give),
        _ => unreachable!("only these come here"),
    }
}

fn show(granted: &Granted, app: &AppName, log: bool, give: &impl Fn(Answer) -> bool) -> Result<(), Refusal> {
    granted.allow(Action::Read, Some(app))?;
    let store = granted.store()?;
    let standing = store.records().standing(app);
    if store.records().latest(app).is_none() {
        return Err(refusal(&store::Error::NoApp(app.clone())));
    }
    give(Answer::Standing(standing));
    let mut before = u64::MAX;
    loop {
        let most = if log { LOG_ROWS } else { 1 };
        let entries = store.records().log(app, before, most).map_err(|error| refusal(&error))?;
        let Some((last, _)) = entries.last() else { break };
        before = *last;
        let rows = entries.into_iter().filter_map(|(number, entry)| LogEntry::of(number, entry));
        if !give(Answer::Log(rows.collect())) || !log {
            break;
        }
    }
    Ok(())
}

/// Checks that a token may label, and that there are not too many labels.
fn allow_labels(granted: &Granted, app: &AppName, labels: &[Label]) -> Result<(), Refusal> {
    // Who pushes may label what is pushed.
    if !granted.grant.allows(Action::Push, Some(app)) {
        granted.allow(Action::Promote, Some(app))?;
    }
    granted.still_holds()?;
    if labels.len() <= LIST_MAX {
        return Ok(());
    }
    let text = format!("{} labels, expected at most {LIST_MAX}", labels.len());
    Err(Refusal { fault: Fault::Input, text, hint: None })
}

fn label(
    granted: &Granted,
    selector: &Selector,
    labels: &[Label],
    moves: bool,
    give: &impl Fn(Answer) -> bool,
) -> Result<(), Refusal> {
    allow_labels(granted, &selector.app, labels)?;
    protocol::check_labels(labels).map_err(|error| Refusal::of(&error))?;
    let store = granted.store()?;
    let meant = store.select(selector).map_err(|error| refusal(&error))?;
    let (app, release) = (meant.app.clone(), meant.release);
    let token = granted.grant.id.to_string();
    let mover = Mover { user: &granted.grant.user, token: &token, time: now(), because: None };
    store.records().label(&app, &release, labels, moves, &mover).map_err(|error| refusal(&error))?;
    granted.moved(&app);
    granted.shared.audit.write(&Entry { labels, ..Entry::of(&granted.grant, "label", &app, release) });
    // Read again: it shows its new labels.
    let at = Some(release.to_string().parse().expect("64 digits are a word"));
    let record = store.select(&Selector { app, at }).map_err(|error| refusal(&error))?;
    give(Answer::Meant(meant));
    give(Answer::Done(record));
    Ok(())
}

fn unlabel(
    granted: &Granted,
    app: &AppName,
    labels: &[Label],
    give: &impl Fn(Answer) -> bool,
) -> Result<(), Refusal> {
    allow_labels(granted, app, labels)?;
    let store = granted.store()?;
    let token = granted.grant.id.to_string();
    let mover = Mover { user: &granted.grant.user, token: &token, time: now(), because: None };
    let releases = store.records().unlabel(app, labels, &mover).map_err(|error| refusal(&error))?;
    granted.moved(app);
    for (label, release) in labels.iter().zip(releases) {
        let labels = std::slice::from_ref(label);
        granted.shared.audit.write(&Entry { labels, ..Entry::of(&granted.grant, "unlabel", app, release) });
    }
    give(Answer::Unlabelled(labels.to_vec()));
    Ok(())
}
