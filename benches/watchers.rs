//! What targets that watch cost a proxy: memory for each, seconds from a push until all know of it, and a rollout through all of them in
//! batches, where each confirms at once.
//!
//! `cargo bench --bench watchers [-- TARGETS [BATCH]]` (1,000 and 10). The proxy is a process of its own, so that its memory can be read; all targets are in
//! this one, each on a connection of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use format::target::{TargetReport, TargetState};
use ground::ids::{DestinationName, TargetName};
use ground::monitor::{Monitor, Silent};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant};
use protocol::wire::{
    Answer, FromTarget, Operation, RolloutState, RolloutStatus, ToTarget, Wanted, Watching,
};
use tokio::task::JoinSet;
use whit::agent::push::{PushOptions, push};
use whit::agent::{Access, Session};
use whit::delivery::rollout::{Group, Rules, Share};
use whit::net::identity::Identity;
use whit::net::link::{self, Receiver, Sender};
use whit::proxy::{Options, Proxy};

/// Names the data folder, in the process that is the proxy.
const SERVE: &str = "WHIT_BENCH_SERVE";
/// Connections that are made at a time.
const TOGETHER: usize = 50;

fn main() {
    match std::env::var_os(SERVE) {
        Some(data) => serve(Path::new(&data)),
        None => measure(),
    }
}

#[tokio::main]
async fn serve(data: &Path) {
    let mut options = Options::new(data, (Ipv4Addr::LOCALHOST, 0).into());
    let rules = Rules { batch: Share::Members(number(1, 10)), ..Rules::default() };
    let group = Group { targets: vec![Pattern::any()], rules, ..Group::default() };
    options.groups.insert(all(), group);
    let proxy = Proxy::start(&options).expect("a proxy");
    println!("{}", proxy.url());
    // Until nobody holds the other end.
    let ended = whit::net::blocking::start(|| std::io::stdin().read_to_end(&mut Vec::new()));
    proxy.run(async { drop(ended.await) }).await;
}

/// Returns the number with this place among the arguments.
fn number(place: usize, otherwise: u32) -> u32 {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    numbers.nth(place).unwrap_or(otherwise)
}

/// The group of all targets.
fn all() -> DestinationName {
    "all".parse().expect("a name")
}

/// The process that is the proxy.
struct Served(Child);

impl Served {
    fn start(data: &Path) -> (Self, String) {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(std::env::args().skip(1)).env(SERVE, data).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("an address");
        (Self(child), url.trim().to_owned())
    }

    /// The resident bytes of the process.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The bytes that the process has written to disks.
    fn written(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.0.id())).expect("it runs");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a line");
        line.parse().expect("a number")
    }

    /// The seconds of processor time that the process has used.
    fn processor(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks"));
        ticks.sum::<f64>() / 100.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

/// A target that watches.
struct Target {
    _session: Session,
    sender: Sender,
    receiver: Receiver,
}

impl Target {
    async fn watch(access: Access) -> Self {
        let session = Session::open(&access, &link::Options::default()).await.expect("connected");
        let watching = Watching {
            app: "app".parse().expect("a name"),
            at: None,
            version: "0".to_owned(),
            instance: 1,
            report: TargetReport::default(),
        };
        let asked = session.request(&Operation::Watch(Box::new(watching))).await;
        let (sender, receiver) = asked.expect("asked");
        let mut target = Self { _session: session, sender, receiver };
        target.wanted().await;
        target
    }

    /// Waits for what it is to show.
    async fn wanted(&mut self) -> (Wanted, Instant) {
        let mut alive = tokio::time::interval(Duration::from_secs(10));
        loop {
            tokio::select! {
                message = self.receiver.receive::<ToTarget>() => match message.expect("a message") {
                    Some(ToTarget::Wanted(wanted)) => return (*wanted, Instant::now()),
                    Some(ToTarget::Alive) => {}
                    other => panic!("{other:?}"),
                },
                _ = alive.tick() => self.sender.send(&FromTarget::Alive).await.expect("sent"),
            }
        }
    }
}

impl Target {
    /// Says of each release that it is told that it is sure of it, without end.
    async fn confirm(mut self) {
        loop {
            let (Wanted { record, assigned }, _) = self.wanted().await;
            let report = TargetReport {
                shown: Some(record.release),
                about: Some(record.release),
                rollout: assigned.map(|assigned| assigned.rollout),
                state: TargetState::Confirmed,
                ..TargetReport::default()
            };
            self.sender.send(&FromTarget::Report(Box::new(report))).await.expect("sent");
        }
    }
}

fn token(identity: &Identity, target: Option<TargetName>) -> String {
    let actions = if target.is_some() { vec![Action::Pull] } else { Action::ALL.to_vec() };
    let token = identity.sign_own(|id| Grant {
        id,
        user: "bench".parse().expect("a name"),
        space: "bench".parse().expect("a name"),
        actions,
        applications: vec![Pattern::any()],
        destinations: vec![Pattern::any()],
        issued: 0,
        expires: None,
        on_behalf: false,
        then: Vec::new(),
        target,
    });
    token.expect("a token")
}

async fn push_file(access: &Access, file: &Path, content: &str, destinations: Vec<DestinationName>) {
    fs::write(file, content).expect("written");
    let session = Session::open(access, &link::Options::default()).await.expect("connected");
    let app = "app".parse().expect("a name");
    let options = PushOptions { destinations, ..PushOptions::new(app, file.to_owned()) };
    let monitor: Arc<dyn Monitor> = Arc::new(Silent);
    push(&session, &options, &monitor).await.expect("pushed");
    session.finish().await;
}

/// Waits until the rollout has succeeded; returns its batches.
async fn rolled_out(access: &Access) -> u32 {
    let session = Session::open(access, &link::Options::default()).await.expect("connected");
    let mut last = None;
    let take = |answer| {
        if let Answer::Rollouts(rows) = answer {
            last = rows.into_iter().next_back().or(last.take());
        }
        last.as_ref().is_none_or(|status: &RolloutStatus| !status.state.is_last())
    };
    session.ask_while(&Operation::Rollouts { app: None, watch: true }, take).await.expect("answered");
    let status = last.expect("there is one");
    assert_eq!(status.state, RolloutState::Succeeded, "{status:?}");
    status.batches
}

#[tokio::main]
async fn measure() {
    let count = number(0, 1000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (served, url) = Served::start(&folder.path().join("data"));
    let (identity, _) = Identity::open_or_create(&folder.path().join("data/identity")).expect("keys");
    let access = |token| Access { url: url.parse().expect("an address"), token };
    let pushes = access(token(&identity, None));
    let file = folder.path().join("file");
    push_file(&pushes, &file, "one", Vec::new()).await;

    let (before, begin) = (served.memory(), Instant::now());
    let (mut targets, mut connecting) = (Vec::new(), JoinSet::new());
    for number in 0..count {
        if connecting.len() == TOGETHER {
            targets.extend(connecting.join_next().await.map(|target| target.expect("connected")));
        }
        let name = format!("web-{number}").parse().expect("a name");
        connecting.spawn(Target::watch(access(token(&identity, Some(name)))));
    }
    targets.extend(connecting.join_all().await);
    let connected = begin.elapsed();
    let each = (served.memory().saturating_sub(before)) / u64::from(count);
    println!(
        "{count} targets watch after {:.1} s: {each} B of the proxy's memory each",
        connected.as_secs_f64()
    );

    let mut waiting = JoinSet::new();
    for mut target in targets {
        waiting.spawn(async move {
            let (_, heard) = target.wanted().await;
            (target, heard)
        });
    }
    let (used, idle) = (served.processor(), Duration::from_secs(30));
    tokio::time::sleep(idle).await;
    let used = (served.processor() - used) / idle.as_secs_f64() * 100.0;
    println!("idle for {} s: {used:.1} % of a processor", idle.as_secs());

    let begin = Instant::now();
    push_file(&pushes, &file, "two", Vec::new()).await;
    let pushed = begin.elapsed();
    let heard = waiting.join_all().await;
    let mut times: Vec<Duration> = heard.iter().map(|(_, heard)| heard.duration_since(begin)).collect();
    times.sort_unstable();
    let (first, last) = (times[0].as_secs_f64(), times[times.len() - 1].as_secs_f64());
    println!(
        "a push takes {:.3} s; of it know the first after {first:.3} s, all after {last:.3} s",
        pushed.as_secs_f64()
    );
    let each = (served.memory().saturating_sub(before)) / u64::from(count);
    println!("afterwards: {each} B of the proxy's memory each");

    let mut sure = JoinSet::new();
    for (target, _) in heard {
        sure.spawn(target.confirm());
    }
    let (used, written, begin) = (served.processor(), served.written(), Instant::now());
    push_file(&pushes, &file, "three", vec![all()]).await;
    let batches = rolled_out(&pushes).await;
    println!(
        "{batches} batches after {:.1} s, {:.2} s of a processor, {} kB written",
        begin.elapsed().as_secs_f64(),
        served.processor() - used,
        (served.written() - written) / 1000
    );
    sure.abort_all();
}
