//! `kill -9` of watching targets and of their proxy at random moments of rollouts: no directory ever shows a mixture, no rollout is lost,
//! nobody is stuck, and what users put beside a release stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::trees::{self, Dice, Shape, noise};
use crate::world::{APP, PATIENCE, Process, World, rounds};

/// The targets: more than the canary and one batch.
const TARGETS: usize = 4;
/// The files that change with each release.
const PARTS: u64 = 12;
const CONFIG: &str =
    "\n[groups.g]\ntargets = [\"web-*\"]\ncanary = 1\nbatch = \"50%\"\nhealthy_within = \"30s\"\n";

/// A machine that watches.
struct Member {
    name: String,
    token: String,
    layout: &'static str,
    dir: PathBuf,
    process: Option<Process>,
    /// What its user put there: what a delivered file was changed to, or what lies in a shared folder.
    put: Vec<String>,
}

impl Member {
    fn new(world: &World, number: usize) -> Self {
        let name = format!("web-{number}");
        let token = world.new_token(&["--target", &name, "--allow", "pull"]);
        let dir = world.path(&name).join("app");
        fs::create_dir_all(dir.parent().expect("a folder")).expect("created");
        fs::write(dir.with_file_name("beside"), &name).expect("written");
        let layout = if number % 2 == 0 { "releases" } else { "plain" };
        Self { name, token, layout, dir, process: None, put: Vec::new() }
    }

    fn start(&mut self, world: &World) {
        let dir = self.dir.display().to_string();
        let words = ["pull", "--watch", APP, &dir, "--token", &self.token, "--layout", self.layout];
        let log = self.dir.with_file_name("started");
        let start = format!("echo $WHIT_RELEASE >> {}", log.display());
        let check = "test ! -e bad-$WHIT_TARGET";
        let more =
            ["--on-release", &start, "--confirm", check, "--confirm-within", "1s", "--healthy-for", "0s"];
        let shared = if self.layout == "releases" { ["--shared", "uploads/"].as_slice() } else { &[] };
        let mut process = world.begin(&[&words, &more, shared].concat(), None);
        // It goes on, whoever reads its words.
        drop(process.lines());
        process.log_to(&self.dir.with_file_name("log"));
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
    }

    fn shown(&self) -> PathBuf {
        shown(self.layout, &self.dir)
    }

    /// Its user changes a file of the release, or uploads one.
    fn put(&mut self, number: u64) {
        let text = format!("by the user of {} in round {number}", self.name);
        if self.layout == "plain" {
            let (written, settings) = (self.dir.with_file_name("settings.new"), self.dir.join("settings"));
            // What it changes once more, nobody else has lost.
            let present = fs::read_to_string(&settings).unwrap_or_default();
            self.put.retain(|text| *text != present);
            fs::write(&written, &text).expect("written");
            fs::rename(&written, &settings).expect("renamed");
        } else {
            fs::write(self.dir.join("shared/uploads").join(number.to_string()), &text).expect("written");
        }
        self.put.push(text);
    }

    /// Returns how much of what its user put there is gone.
    fn lost(&self) -> usize {
        let around = self.dir.parent().expect("a folder");
        let files = trees::walk_files(around).into_iter().filter_map(|path| fs::read_to_string(path).ok());
        let texts: BTreeSet<String> = files.collect();
        let lost = self.put.iter().filter(|text| !texts.contains(*text)).count();
        lost + usize::from(!texts.contains(&self.name))
    }

    /// Returns whether it shows a version, and nothing else but what is shared or was changed by its user.
    fn shows(&self, world: &World, version: u64) -> bool {
        let mut shown = trees::read(&fs::canonicalize(self.shown()).expect("something is shown"));
        let mut expected = trees::read(&tree(world, version));
        shown.remove(Path::new("uploads"));
        if let Some((.., settings)) = shown.get(Path::new("settings"))
            && self.put.iter().any(|text| text.as_bytes() == settings)
        {
            shown.remove(Path::new("settings"));
            expected.remove(Path::new("settings"));
        }
        shown == expected
    }

    fn started(&self) -> String {
        let log = fs::read_to_string(self.dir.with_file_name("started")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

fn shown(layout: &str, dir: &Path) -> PathBuf {
    if layout == "plain" { dir.to_owned() } else { dir.join("current") }
}

fn part(number: u64) -> String {
    if number % 3 == 0 { format!("deep/part-{number}") } else { format!("part-{number}") }
}

/// Returns the folder of a version, whose changing files begin with its number; created if missing.
fn tree(world: &World, version: u64) -> PathBuf {
    let folder = world.path(&format!("version-{version}"));
    if !folder.exists() {
        fs::create_dir_all(folder.join("deep")).expect("created");
        for number in 0..PARTS {
            let content =
                [format!("{version}\n").into_bytes(), noise(number + 100 * version, 20_000)].concat();
            fs::write(folder.join(part(number)), content).expect("written");
            fs::write(folder.join(format!("same-{number}")), noise(number, 20_000)).expect("written");
        }
        fs::write(folder.join("settings"), "as delivered").expect("written");
    }
    folder
}

/// Looks at what each member shows, through one opened directory at a time, until it is stopped.
struct Looker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Looker {
    fn start(members: &[Member]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (places, stopped): (Vec<PathBuf>, _) =
            (members.iter().map(Member::shown).collect(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut looks, mut wrong) = (0, Vec::new());
            let mut were_there = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for place in &places {
                    match look(place) {
                        Ok(()) => _ = were_there.insert(place),
                        Err(None) if !were_there.contains(place) => {}
                        Err(text) => wrong.push(format!("{}: {}", place.display(), text.unwrap_or_default())),
                    }
                    looks += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            (looks, wrong)
        });
        Self { stop, thread }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Looks once. An error says what is wrong; without words: nothing is shown.
fn look(place: &Path) -> Result<(), Option<String>> {
    let opened = match File::open(place) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(Some(error.to_string())),
    };
    let folder = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let mut versions = BTreeSet::new();
    for number in 0..PARTS {
        match fs::read(folder.join(part(number))) {
            Ok(content) => {
                let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
                versions.insert(String::from_utf8_lossy(line).into_owned());
                let whole = line.len() + 1 + 20_000;
                if content.len() != whole {
                    return Err(Some(format!("{} has {} of {whole} B", part(number), content.len())));
                }
            }
            // A copy that nobody shows any more is removed under those who still have it open.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|found| found.ino()).ok();
                if inode(opened.metadata()) == inode(fs::metadata(place)) {
                    return Err(Some(format!("{} is missing", part(number))));
                }
            }
            Err(error) => return Err(Some(error.to_string())),
        }
    }
    if versions.len() > 1 { Err(Some(format!("a mixture of {versions:?}"))) } else { Ok(()) }
}

/// Returns the word for a state.
fn word(state: &Value) -> String {
    let first = state.as_object().and_then(|object| object.keys().next().cloned());
    state.as_str().map(str::to_owned).or(first).unwrap_or_default()
}

/// Returns what is listed, once the proxy answers.
fn list(world: &World, words: &[&str]) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let done = world.run(words);
        if done.is_good() {
            return done.json().as_array().expect("a list").clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{done:?}\n{}", world.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rollouts(world: &World) -> Vec<Value> {
    list(world, &["rollouts", APP, "--last", "100000"])
}

/// Waits until no rollout is under way, and each target shows what it is to show. Returns what each shows.
fn settle(world: &World, members: &[Member]) -> BTreeMap<String, String> {
    let begin = Instant::now();
    loop {
        let under_way = ["waiting", "running", "held", "rolling_back"];
        let listed = rollouts(world);
        let going: Vec<_> =
            listed.iter().filter(|row| under_way.contains(&word(&row["state"]).as_str())).collect();
        let rows = list(world, &["targets", APP]);
        let is_settled = |row: &&Value| {
            let (status, report) = (&row["status"], &row["status"]["known"]["report"]);
            let is_at_rest =
                ["confirmed", "rolled_back", "failed"].contains(&word(&report["state"]).as_str());
            status["reachable"] == true && is_at_rest && report["shown"] == row["wants"]
        };
        let at_rest: Vec<_> = rows.iter().filter(is_settled).collect();
        if going.is_empty() && at_rest.len() == members.len() {
            let shown = |row: &&Value| {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                (text(&row["status"]["target"]), text(&row["status"]["known"]["report"]["shown"]))
            };
            return at_rest.iter().map(shown).collect();
        }
        if begin.elapsed() > PATIENCE {
            let said = members.iter().map(|member| {
                let log = fs::read_to_string(member.dir.with_file_name("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                format!("{}: {last:?}", member.name)
            });
            let said: Vec<String> = said.collect();
            panic!("stuck: {going:#?}\n{rows:#?}\n{}\n{said:#?}", world.log());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Pushes a version to the group; returns the release and its rollout.
fn pushed(world: &World, version: u64, first: Process) -> (String, String) {
    let folder = tree(world, version).display().to_string();
    let mut done = first.done(PATIENCE);
    let begin = Instant::now();
    while !done.is_good() {
        assert!(begin.elapsed() < PATIENCE, "{done:?}\n{}", world.log());
        done = world.run(&["push", APP, &folder, "--to", "g", "--no-wait"]);
    }
    let receipt: Value = serde_json::from_str(done.out.lines().next().expect("a line")).expect("a receipt");
    let text = |name: &str| receipt[name].as_str().unwrap_or_else(|| panic!("{receipt}")).to_owned();
    (text("release"), text("rollout"))
}

#[test]
fn rollouts_outlive_kills_of_targets_and_of_the_proxy_at_random_moments() {
    let most = rounds("WHIT_CRASH_ROLLOUT_KILLS", 12);
    let mut dice = Dice::cast("rollouts");
    let mut world = World::new(Shape::SMALL, 1);
    world.configure_more(CONFIG);
    let mut served = world.serve(None);
    let mut members: Vec<Member> = (1..=TARGETS).map(|number| Member::new(&world, number)).collect();
    members.iter_mut().for_each(|member| member.start(&world));
    let mut versions = BTreeMap::new();
    let mut begun = BTreeSet::new();
    let begin_push = |world: &World, version: u64| {
        let folder = tree(world, version).display().to_string();
        world.begin(&["push", APP, &folder, "--to", "g", "--no-wait"], None)
    };
    // Targets that nobody knows yet are members of nothing.
    let here = Instant::now();
    while list(&world, &["targets", APP]).len() < TARGETS {
        assert!(here.elapsed() < PATIENCE, "{}", world.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let push = begin_push(&world, 0);
    let (release, rollout) = pushed(&world, 0, push);
    versions.insert(release, 0);
    begun.insert(rollout);
    settle(&world, &members);
    let looker = Looker::start(&members);
    let (mut version, mut killed) = (0, [0_u64; 2]);
    while killed.iter().sum::<u64>() < most {
        version += 1;
        let folder = tree(&world, version);
        if dice.below(3) == 0 {
            fs::write(folder.join(format!("bad-web-{}", 1 + dice.below(TARGETS as u64))), "")
                .expect("written");
        }
        let user = usize::try_from(dice.below(TARGETS as u64)).expect("small");
        members[user].put(version);
        let push = begin_push(&world, version);
        for _ in 0..=dice.below(3) {
            std::thread::sleep(Duration::from_millis(dice.below(500)));
            let victim = usize::try_from(dice.below(6)).expect("small");
            let pause = Duration::from_millis(dice.below(150));
            if let Some(member) = members.get_mut(victim) {
                member.kill();
                std::thread::sleep(pause);
                member.start(&world);
                killed[0] += 1;
            } else {
                served.kill();
                std::thread::sleep(pause);
                served = world.serve(None);
                killed[1] += 1;
            }
        }
        let (release, rollout) = pushed(&world, version, push);
        versions.insert(release, version);
        begun.insert(rollout);
        // The next one may take its place.
        if dice.below(4) > 0 {
            let shown = settle(&world, &members);
            for member in &members {
                let release = &shown[&member.name];
                assert!(member.shows(&world, versions[release]), "{} does not show {release}", member.name);
                assert_eq!(member.started(), *release, "{} started another release", member.name);
            }
        }
    }
    settle(&world, &members);
    version += 1;
    let push = begin_push(&world, version);
    let (release, rollout) = pushed(&world, version, push);
    begun.insert(rollout.clone());
    let shown = settle(&world, &members);
    let (looks, wrong) = looker.stop();
    let listed = rollouts(&world);
    let mut ended = BTreeMap::new();
    for row in &listed {
        *ended.entry(word(&row["state"])).or_insert(0) += 1;
    }
    let ids: BTreeSet<String> =
        listed.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect();
    let lost = begun.difference(&ids).count();
    let files: usize = members.iter().map(Member::lost).sum();
    let put: usize = members.iter().map(|member| member.put.len() + 1).sum();
    println!(
        "{} targets and {} proxies killed in {} rollouts ({ended:?}): {looks} looks at directories, {} wrong; {lost} rollouts lost; {put} files of users, {files} lost; nobody is stuck",
        killed[0],
        killed[1],
        listed.len(),
        wrong.len(),
    );
    assert_eq!((lost, files), (0, 0));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let last = listed.iter().find(|row| row["id"] == *rollout).expect("it is listed");
    assert_eq!(last["state"], "succeeded", "{last}");
    for member in &members {
        assert_eq!(shown[&member.name], release);
        assert!(member.shows(&world, version), "{} does not show the last release", member.name);
    }
    assert!(ended.contains_key("succeeded"), "nothing was rolled out");
    world.check_verified();
    for member in &mut members {
        member.process.as_ref().expect("it runs").terminate();
        let status = member.process.as_mut().expect("it runs").ended(PATIENCE).expect("it stops");
        assert!(status.success(), "{status}");
    }
    served.terminate();
    assert!(served.ended(PATIENCE).is_some_and(|status| status.success()));
}
