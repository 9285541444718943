//! A proxy's data, a destination and the pushed trees, in one temporary folder.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::trees::{self, Shape};

/// Long enough for a slow machine; whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn is_good(&self) -> bool {
        self.status.success()
    }

    /// Returns the report, which must exist.
    pub fn json(&self) -> Value {
        assert!(self.is_good(), "{self:?}");
        serde_json::from_str(self.out.trim()).expect("a report")
    }
}

/// A process that is killed on drop.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }

    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a child can be told");
    }

    /// Waits up to `patience` for the process to end; returns its status if it did.
    pub fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be asked") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the lines of its standard output as they come.
    pub fn lines(&mut self) -> std::sync::mpsc::Receiver<String> {
        let out = self.0.stdout.take().expect("it is piped");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        lines
    }

    /// Adds what it says on standard error to a file.
    pub fn log_to(&mut self, log: &Path) {
        let mut err = self.0.stderr.take().expect("it is piped");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut log = log.expect("a log");
        std::thread::spawn(move || drop(std::io::copy(&mut err, &mut log)));
    }

    /// Returns the output once the process has ended; kills it if that takes too long.
    pub fn done(mut self, patience: Duration) -> Done {
        let out = reader(self.0.stdout.take());
        let err = reader(self.0.stderr.take());
        let status = self.ended(patience).unwrap_or_else(|| {
            self.kill();
            ExitStatus::from_raw(9)
        });
        Done { status, out: out.join().expect("text"), err: err.join().expect("text") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// A whole experiment. Versions are numbers; a release is identified by the version that was pushed as it.
#[derive(Debug)]
pub struct World {
    pub folder: PathBuf,
    pub shape: Shape,
    url: String,
    token: String,
    port: u16,
    /// Acknowledged releases: release id to version.
    pub acknowledged: BTreeMap<String, u64>,
    /// True if the trees have files that are encoded against their earlier versions ([`trees::write_related`]).
    pub related: bool,
    /// True if pushes remember what they pushed, and build on it.
    pub remembers: bool,
    /// The command prefix that the agents run under, as with [`World::try_serve_under`].
    pub agents_below: Vec<String>,
    /// The folder, removed with the world.
    kept: Option<tempfile::TempDir>,
}

pub const APP: &str = "app";

impl World {
    /// Creates a world; `keep` copies stay at the destination.
    pub fn new(shape: Shape, keep: usize) -> Self {
        let temporary = temporary();
        let mut world = Self::at(temporary.path(), shape, keep);
        world.kept = Some(temporary);
        world
    }

    /// Creates a world in a folder that the caller removes.
    pub fn at(folder: &Path, shape: Shape, keep: usize) -> Self {
        let mut world = Self {
            folder: folder.to_owned(),
            shape,
            url: String::new(),
            token: String::new(),
            port: 0,
            acknowledged: BTreeMap::new(),
            related: false,
            remembers: true,
            agents_below: Vec::new(),
            kept: None,
        };
        world.configure(keep);
        let data = world.path("data");
        let mut create = world.command();
        create.args(["token", "create", "--user", "tester", "--data"]).arg(&data);
        for action in ["push", "pull", "read", "deliver", "admin"] {
            create.args(["--allow", action]);
        }
        let token = Process::spawn(&mut create).done(PATIENCE);
        assert!(token.is_good(), "{token:?}");
        token.out.trim().clone_into(&mut world.token);
        world
    }

    fn configure(&self, keep: usize) {
        let config = format!(
            "reserve_mib = 1\ncollect_minutes = 0\nverify_days = 0\n[destinations.d]\nkind = \"dir\"\npath = \"{}\"\nkeep = {keep}\n",
            self.path("dest").display()
        );
        fs::write(self.path("whit.toml"), config).expect("written");
    }

    /// Copies the world to another folder.
    pub fn copy(&self) -> Self {
        let temporary = temporary();
        let folder = temporary.path().join("w");
        trees::copy(&self.folder, &folder);
        let config = fs::read_to_string(self.path("whit.toml")).expect("a configuration");
        let here = |path: &Path| path.display().to_string();
        let config = config.replace(&here(&self.folder), &here(&folder));
        fs::write(folder.join("whit.toml"), config).expect("written");
        Self {
            folder,
            shape: self.shape,
            url: String::new(),
            token: self.token.clone(),
            port: 0,
            acknowledged: self.acknowledged.clone(),
            related: self.related,
            remembers: self.remembers,
            agents_below: self.agents_below.clone(),
            kept: Some(temporary),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the folder of the space's packs.
    pub fn packs(&self) -> PathBuf {
        self.path("data/spaces/default/packs")
    }

    pub fn index(&self) -> PathBuf {
        self.path("data/spaces/default/index")
    }

    fn command(&self) -> Command {
        // `WHIT_CRASH_PROGRAM` names another build of whit, since long loops outlive cargo's build.
        let program = std::env::var_os("WHIT_CRASH_PROGRAM");
        let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_whit").into()));
        command.env_clear().env("HOME", &self.folder).env("PATH", std::env::var("PATH").unwrap_or_default());
        for name in ["TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the proxy on the port it had before. `crash` is a point to die at.
    pub fn serve(&mut self, crash: Option<&str>) -> Process {
        self.start(&[], crash).unwrap_or_else(|| panic!("the proxy did not start: {}", self.log()))
    }

    /// Starts the proxy under another program; returns none if it ends at once.
    pub fn try_serve_under(&mut self, below: &[&str]) -> Option<Process> {
        self.start(below, None)
    }

    fn start(&mut self, below: &[&str], crash: Option<&str>) -> Option<Process> {
        let mut command = under(below, self.command());
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        command.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--config"]);
        command.arg(self.path("whit.toml")).arg("--data").arg(self.path("data"));
        command.stdout(Stdio::piped()).stderr(log);
        if let Some(crash) = crash {
            command.env("WHIT_CRASH", crash);
        }
        let mut process = Process::spawn(&mut command);
        let out = process.0.stdout.take().expect("it is piped");
        let (sender, told) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            drop(BufReader::new(out).read_line(&mut line));
            // The caller may have stopped waiting.
            drop(sender.send(line));
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_default();
        if !line.starts_with("whit://") {
            process.kill();
            reading.join().expect("its pipe has ended");
            return None;
        }
        line.trim().clone_into(&mut self.url);
        let port =
            self.url.split(['@', '/', '?', '#']).find_map(|part| part.rsplit_once(':')?.1.parse().ok());
        self.port = port.expect("an address has a port");
        Some(process)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Returns whether the program prints its version when run under another program.
    pub fn is_loaded_below(&self, below: &[String]) -> bool {
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let mut command = under(&below, self.command());
        Process::spawn(command.arg("--version")).done(PATIENCE).is_good()
    }

    /// Starts an agent's command.
    pub fn begin(&self, arguments: &[&str], crash: Option<&str>) -> Process {
        let below: Vec<&str> = self.agents_below.iter().map(String::as_str).collect();
        let mut command = under(&below, self.command());
        command.args(arguments).arg("--json").env("WHIT_PROXY", &self.url).env("WHIT_TOKEN", &self.token);
        if !self.remembers {
            command.env("WHIT_STATE", "");
        }
        if let Some(crash) = crash {
            command.env("WHIT_CRASH", crash);
        }
        Process::spawn(&mut command)
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        self.begin(arguments, None).done(PATIENCE)
    }

    /// Returns the folder of a version's tree, which it creates if missing.
    pub fn tree(&self, version: u64) -> PathBuf {
        let folder = self.path(&format!("tree-{version}"));
        if !folder.exists() {
            self.shape.write(&folder, version);
            if self.related {
                trees::write_related(&folder, version);
            }
        }
        folder
    }

    /// Makes later commands use a token that expires after `lifetime`, and returns the previous one.
    pub fn use_token_of(&mut self, lifetime: &str) -> String {
        let mut create = self.command();
        create.args(["token", "create", "--user", "tester", "--expires", lifetime, "--data"]);
        create.arg(self.path("data")).args(["--allow", "push", "--allow", "read"]);
        let token = Process::spawn(&mut create).done(PATIENCE);
        assert!(token.is_good(), "{token:?}");
        std::mem::replace(&mut self.token, token.out.trim().to_owned())
    }

    /// Returns a new token; `more` says what it allows.
    pub fn new_token(&self, more: &[&str]) -> String {
        let mut create = self.command();
        create.args(["token", "create", "--user", "tester", "--data"]).arg(self.path("data")).args(more);
        let token = Process::spawn(&mut create).done(PATIENCE);
        assert!(token.is_good(), "{token:?}");
        token.out.trim().to_owned()
    }

    /// Returns the proxy's address once it has been started.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds to the proxy's configuration, for its next start.
    pub fn configure_more(&self, text: &str) {
        let mut config = fs::read_to_string(self.path("whit.toml")).expect("a configuration");
        config.push_str(text);
        fs::write(self.path("whit.toml"), config).expect("written");
    }

    /// Starts the push of a folder to a destination.
    pub fn begin_push_to(&self, folder: &Path, destination: &str) -> Process {
        let folder = folder.display().to_string();
        self.begin(&["push", APP, &folder, "--to", destination, "--retry-for", "0s"], None)
    }

    pub fn use_token(&mut self, token: String) {
        self.token = token;
    }

    /// Starts the push of a version, to the destination.
    pub fn begin_push(&self, version: u64) -> Process {
        let tree = self.tree(version).display().to_string();
        let order = ["push", APP, &tree, "--to", "d", "--retry-for", "0s"];
        // On a slow link it pays to encode against older content, and `--explain` reports it.
        let related = ["--effort", "bytes", "--explain"];
        self.begin(&[&order[..], if self.related { &related } else { &[] }].concat(), None)
    }

    /// Records the output of a push: a receipt is an acknowledgement. Returns whether there was one.
    pub fn took(&mut self, version: u64, done: &Done) -> bool {
        // A second line may report a delivery that has not been made.
        let receipt = done.out.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        let release = receipt.as_ref().and_then(|receipt| receipt["release"].as_str());
        if let Some(release) = release {
            self.acknowledged.insert(release.to_owned(), version);
        }
        release.is_some()
    }

    /// Pushes a version, which must succeed; returns the receipt.
    pub fn push(&mut self, version: u64) -> Value {
        let done = self.begin_push(version).done(PATIENCE);
        assert!(done.is_good(), "{done:?}\n{}", self.log());
        self.took(version, &done);
        let receipt = done.out.lines().next().and_then(|line| serde_json::from_str(line).ok());
        receipt.unwrap_or_else(|| panic!("no receipt: {done:?}"))
    }

    /// Returns the ids of the releases that the proxy lists, oldest first.
    pub fn releases(&self) -> Vec<String> {
        let done = self.run(&["releases", APP]);
        if done.status.code() == Some(3) {
            return Vec::new();
        }
        let mut releases: Vec<String> = Vec::new();
        for record in done.json().as_array().expect("a list") {
            releases.push(record["release"].as_str().expect("an id").to_owned());
        }
        releases.reverse();
        releases
    }

    /// Returns which of some versions the destination shows; none before its first.
    pub fn current(&self, versions: &[u64]) -> Option<u64> {
        let current = fs::canonicalize(self.path("dest/current")).ok()?;
        let shown = trees::read(&current);
        let version = versions.iter().find(|version| trees::read(&self.tree(**version)) == shown);
        Some(*version.unwrap_or_else(|| panic!("the destination shows none of {versions:?}")))
    }

    /// Pulls a release into a new folder and returns which of the versions it is; panics if the pull fails.
    pub fn pulls(&self, release: &str, versions: &[u64]) -> Option<u64> {
        let target = self.path("pulled");
        drop(fs::remove_dir_all(&target));
        drop(fs::remove_dir_all(self.path(".pulled.whit")));
        let done = self.run(&["pull", &format!("{APP}@{release}"), &target.display().to_string()]);
        assert!(done.is_good(), "{done:?}\n{}", self.log());
        versions.iter().copied().find(|version| trees::is_same(&self.tree(*version), &target))
    }

    /// Checks that everything acknowledged is listed, and everything listed is complete, byte for byte.
    pub fn check_releases(&self, attempted: &[u64]) {
        let listed = self.releases();
        for (release, version) in &self.acknowledged {
            assert!(
                listed.contains(release),
                "version {version} was acknowledged and is gone\n{}",
                self.log()
            );
        }
        let mut distinct = listed;
        distinct.sort();
        distinct.dedup();
        for release in distinct {
            let expected = self.acknowledged.get(&release).map_or(attempted.to_vec(), |known| vec![*known]);
            let found = self.pulls(&release, &expected);
            assert!(found.is_some(), "{release} is not {expected:?}");
        }
    }

    /// Checks that `whit verify` finds no damage.
    pub fn check_verified(&self) {
        let done = self.run(&["verify"]);
        assert!(done.is_good(), "{done:?}\n{}", self.log());
        let verified = done.json();
        for list in ["damaged", "incomplete"] {
            assert_eq!(verified[list].as_array().map(Vec::len), Some(0), "{verified}");
        }
    }

    /// Returns the number of recorded deliveries.
    pub fn deliveries(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.path("data/deliveries")) else { return 0 };
        entries
            .filter(|entry| {
                let path = entry.as_ref().expect("an entry").path();
                path.extension().is_some_and(|extension| extension == "delivery")
            })
            .count()
    }

    /// Waits until no delivery is left.
    pub fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.deliveries() > 0 {
            assert!(Instant::now() < deadline, "a delivery never ends\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns all sealed packs.
    pub fn sealed(&self) -> Vec<PathBuf> {
        let mut packs: Vec<PathBuf> = Vec::new();
        for view in fs::read_dir(self.packs()).into_iter().flatten().flatten() {
            let name = view.file_name();
            if name == "open" || name == "damaged" {
                continue;
            }
            packs.extend(fs::read_dir(view.path()).into_iter().flatten().flatten().map(|pack| pack.path()));
        }
        packs.sort();
        packs
    }

    /// Changes a byte of a file in place.
    pub fn flip(path: &Path, at: u64) {
        use std::os::unix::fs::FileExt;
        let file = File::options().read(true).write(true).open(path).expect("it is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("within the file");
        file.write_all_at(&[byte[0] ^ 0x40], at).expect("written");
    }
}

/// Returns a command that runs under another program.
fn under(below: &[&str], own: Command) -> Command {
    let [program, arguments @ ..] = below else { return own };
    let mut command = Command::new(program);
    command.args(arguments).arg(own.get_program());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear();
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Creates a folder in memory if possible: a killed process loses nothing of the page cache, and syncs to a disk only
/// take time. `TMPDIR` comes first. Power loss is tested elsewhere.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let is_chosen = std::env::var_os("TMPDIR").is_none() && memory.is_dir();
    let folder = if is_chosen { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

/// Reads a number from the environment.
pub fn rounds(name: &str, normal: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(normal)
}

/// Returns whether this test may mount; prints why not.
pub fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: {what} needs root");
    }
    is_root
}
