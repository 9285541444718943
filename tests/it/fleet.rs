//! A proxy with a group of targets that confirm or refuse as they are told.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use format::target::{TargetReport, TargetState};
use ground::faults::Fault;
use ground::ids::{DestinationName, Label, ReleaseId, RolloutId};
use ground::pattern::Pattern;
use protocol::wire::{Answer, ListedTarget, Operation, RolloutStatus, RolloutSteering, Wanted};
use whit::agent;
use whit::agent::push::PushOptions;
use whit::delivery::rollout::{Group, Rules, Share};

use crate::fake_target::{FakeTarget, access_of, hello};
use crate::trees::write;
use crate::world::{World, ask_as, push_options};

/// How a target takes releases, and what it did.
#[derive(Default)]
pub struct Machine {
    pub refuses: HashSet<ReleaseId>,
    /// Those that it refuses and shows, as it had nothing before.
    pub keeps: HashSet<ReleaseId>,
    pub ignores: HashSet<ReleaseId>,
    pub shown: Option<ReleaseId>,
    /// The label that it follows.
    pub follows: Option<Label>,
    /// The releases that it was told to have, in order.
    pub told: Vec<ReleaseId>,
}

/// A target that watches.
#[derive(Clone, Default)]
pub struct Watcher(Arc<Mutex<Machine>>);

impl Watcher {
    pub fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.0.lock().expect("no panic")
    }

    pub fn refuses(&self, release: ReleaseId) {
        self.machine().refuses.insert(release);
    }

    pub fn keeps_what_it_refuses(&self, release: ReleaseId) {
        self.machine().keeps.insert(release);
    }

    pub fn shown(&self) -> Option<ReleaseId> {
        self.machine().shown
    }

    /// Returns what it says about what it is told, if anything.
    fn answer(&self, wanted: &Wanted) -> Option<TargetReport> {
        let mut machine = self.machine();
        let release = wanted.record.release;
        machine.told.push(release);
        if machine.ignores.contains(&release) {
            return None;
        }
        let rollout = wanted.assigned.as_ref().map(|assigned| assigned.rollout);
        let state = if machine.refuses.contains(&release) {
            TargetState::RolledBack { reason: "the check failed".to_owned() }
        } else if machine.keeps.contains(&release) {
            machine.shown = Some(release);
            TargetState::Failed { reason: "the check failed".to_owned(), fault: Fault::Input }
        } else {
            machine.shown = Some(release);
            TargetState::Confirmed
        };
        let shown = machine.shown;
        Some(TargetReport { shown, about: Some(release), rollout, state, ..TargetReport::default() })
    }

    /// Watches until the task is ended.
    async fn watch(self, access: agent::Access) {
        let shown = self.shown();
        let mut watching = hello("app", 1);
        watching.at = self.machine().follows.clone();
        (watching.report.shown, watching.report.about) = (shown, shown);
        if shown.is_some() {
            watching.report.state = TargetState::Confirmed;
        }
        let mut target = FakeTarget::begin(&access, watching).await;
        loop {
            let wanted = target.wanted().await;
            if let Some(report) = self.answer(&wanted) {
                target.report(report).await;
            }
        }
    }
}

/// A proxy with the group `all` of the targets `web-*`.
pub struct Fleet {
    pub world: World,
    pub watchers: BTreeMap<String, Watcher>,
    pub tasks: BTreeMap<String, JoinHandle<()>>,
}

pub fn name(text: &str) -> DestinationName {
    text.parse().expect("a name")
}

pub fn rules() -> Rules {
    Rules { canary: Share::Members(1), batch: Share::Percent(50), healthy_within: 60, ..Rules::default() }
}

impl Fleet {
    /// Starts the proxy, gives it a first release, and lets `count` targets have that.
    pub async fn start(rules: Rules, count: usize) -> (Self, ReleaseId) {
        Self::start_with(&[("all", "web-*")], rules, count).await
    }

    /// The same, with groups of these patterns.
    pub async fn start_with(groups: &[(&str, &str)], rules: Rules, count: usize) -> (Self, ReleaseId) {
        let mut fleet = Self::without_targets(groups, &rules);
        let first = fleet.push("first", &[]).await.expect("pushed");
        fleet.grow(count);
        fleet.until(|fleet| fleet.watchers.values().all(|watcher| watcher.shown() == Some(first))).await;
        (fleet, first)
    }

    /// Starts the proxy, without a release, and `count` targets that watch.
    pub async fn without_release(rules: Rules, count: usize) -> Self {
        let mut fleet = Self::without_targets(&[("all", "web-*")], &rules);
        fleet.grow(count);
        while fleet.targets().await.len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fleet
    }

    fn without_targets(groups: &[(&str, &str)], rules: &Rules) -> Self {
        let world = World::start_with(|options| {
            for (group, pattern) in groups {
                let targets = vec![pattern.parse::<Pattern>().expect("a pattern")];
                let group_of = Group { targets, rules: rules.clone(), ..Group::default() };
                options.groups.insert(name(group), group_of);
            }
        });
        Self { world, watchers: BTreeMap::new(), tasks: BTreeMap::new() }
    }

    fn grow(&mut self, count: usize) {
        for number in 1..=count {
            let target = format!("web-{number}");
            self.watchers.insert(target.clone(), Watcher::default());
            self.join(&target);
        }
    }

    /// Returns the targets that the proxy knows.
    pub async fn targets(&self) -> Vec<ListedTarget> {
        let app = Some("app".parse().expect("a name"));
        let question = Operation::Targets { app, watch: false };
        let answers = ask_as(self.world.access(), &question).await.expect("listed");
        let rows = answers.into_iter().flat_map(|answer| match answer {
            Answer::Targets(rows) => rows,
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    pub fn join(&mut self, target: &str) {
        let access = access_of(&self.world, target);
        let watching = self.watchers[target].clone().watch(access);
        self.tasks.insert(target.to_owned(), tokio::spawn(watching));
    }

    pub fn leave(&mut self, target: &str) {
        self.tasks.remove(target).expect("it is there").abort();
    }

    pub fn watcher(&self, target: &str) -> &Watcher {
        &self.watchers[target]
    }

    pub async fn push(&self, word: &str, to: &[&str]) -> agent::Result<ReleaseId> {
        let folder = self.world.path(&format!("in-{word}"));
        write(&folder, "file", word.as_bytes());
        let destinations = to.iter().map(|to| name(to)).collect();
        let options = PushOptions { destinations, ..push_options("app", &folder) };
        crate::world::push_as(self.world.access(), &options).await.map(|receipt| receipt.release)
    }

    /// Pushes a word with a label, if any, and leaves the current release as it is.
    pub async fn store(&self, word: &str, label: Option<&str>, to: &[&str]) -> ReleaseId {
        let folder = self.world.path(&format!("in-{word}"));
        write(&folder, "file", word.as_bytes());
        let destinations = to.iter().map(|to| name(to)).collect();
        let labels = label.iter().map(|label| label.parse().expect("a label")).collect();
        let options =
            PushOptions { destinations, labels, keeps_current: true, ..push_options("app", &folder) };
        self.world.push_with(&options).await.release
    }

    pub async fn until(&self, is_right: impl Fn(&Self) -> bool) {
        while !is_right(self) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn rollouts(&self) -> Vec<RolloutStatus> {
        let question = Operation::Rollouts { app: None, watch: false };
        let answers = ask_as(self.world.access(), &question).await.expect("listed");
        let rows = answers.into_iter().flat_map(|answer| match answer {
            Answer::Rollouts(rows) => rows,
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    /// Waits until a rollout is as it is to be.
    pub async fn rollout(&self, number: u64, is_right: impl Fn(&RolloutStatus) -> bool) -> RolloutStatus {
        loop {
            let rows = self.rollouts().await;
            if let Some(row) = rows.into_iter().find(|row| row.id.number == number && is_right(row)) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn ended(&self, number: u64) -> RolloutStatus {
        self.rollout(number, |status| status.state.is_last()).await
    }

    pub async fn steer(&self, rollout: RolloutId, how: RolloutSteering) -> agent::Result<()> {
        ask_as(self.world.access(), &Operation::SteerRollout { rollout, how }).await.map(drop)
    }

    pub async fn current(&self) -> ReleaseId {
        self.standing().await.expect("a release is current")
    }

    /// Returns the current release, if one is.
    pub async fn standing(&self) -> Option<ReleaseId> {
        let question = Operation::Current { app: "app".parse().expect("a name"), log: false };
        let answers = ask_as(self.world.access(), &question).await.expect("there are releases");
        let standing = answers.into_iter().find_map(|answer| match answer {
            Answer::Standing(standing) => Some(standing.current),
            _ => None,
        });
        standing.expect("the proxy says where releases stand")
    }

    pub fn all_show(&self, release: ReleaseId) -> bool {
        self.watchers.values().all(|watcher| watcher.shown() == Some(release))
    }
}

/// Returns the id of the release that a push of this word makes, without pushing it.
pub async fn scanned(fleet: &Fleet, word: &str) -> ReleaseId {
    let folder = fleet.world.path(&format!("in-{word}"));
    write(&folder, "file", word.as_bytes());
    let options = PushOptions { dry_run: true, ..push_options("app", &folder) };
    fleet.world.push_with(&options).await.release
}

/// Returns the id of the release that a push of this word makes, and makes it without moving anything.
pub async fn scan(fleet: &Fleet, word: &str) -> ReleaseId {
    let folder = fleet.world.path(&format!("in-{word}"));
    write(&folder, "file", word.as_bytes());
    let options = PushOptions { keeps_current: true, ..push_options("app", &folder) };
    fleet.world.push_with(&options).await.release
}
