//! Commands that follow a proxy, which is killed meanwhile and starts again.

use std::fs;
use std::io::Write as _;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;
use rustix::process::{Signal, kill_process};
use tokio::sync::mpsc;

use ground::faults::{Fault, Faulty as _};
use protocol::wire::{DeliveriesWanted, Operation};
use whit::agent::Session;
use whit::agent::push::PushOptions;
use whit::net::link;

use crate::program::{Home, Running};
use crate::trees::write;
use crate::world::{World, patience, push_options, web, within};

/// A command that runs, and its lines.
struct Command {
    running: Running,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Command {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut running = Running::start(&mut home.command(arguments));
        let (out, err) = running.lines();
        Self { running, out, err }
    }

    /// Waits for a line that holds `words`.
    fn until(lines: &Receiver<String>, words: &str) {
        while !lines.recv_timeout(patience()).expect("it says so").contains(words) {}
    }

    /// Waits for the end. Returns the exit code, and what else it printed.
    fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.running.wait().code();
        (code, self.out.iter().chain(self.err.iter()).collect())
    }

    /// Ends it as Ctrl-C does. Returns how often it said that the proxy was lost.
    fn interrupted(self) -> usize {
        kill_process(self.running.pid(), Signal::INT).expect("it runs");
        let (_, lines) = self.ended();
        lines.iter().filter(|line| line.contains("following again")).count()
    }
}

/// The proxy would wait ten minutes for work under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_to_stop_does_not_wait_for_who_only_follows() {
    let mut world = World::start_with(|options| options.drain_patience = Duration::from_secs(600));
    within(async {
        write(&world.path("tree"), "a", "one");
        let options = PushOptions { destinations: vec![web()], ..push_options("app", &world.path("tree")) };
        world.push_with(&options).await;
        let wanted = DeliveriesWanted { watch: true, ..DeliveriesWanted::default() };
        let questions = [
            Operation::Rollouts { app: None, watch: true },
            Operation::Targets { app: None, watch: true },
            Operation::Deliveries(wanted),
        ];
        let (heard_in, mut heard) = mpsc::unbounded_channel();
        let mut followers = Vec::new();
        for question in questions {
            let session = Session::open(world.access(), &link::Options::default()).await.expect("connected");
            let heard = heard_in.clone();
            followers.push(tokio::spawn(async move {
                let take = |answer| {
                    drop(heard.send(answer));
                    true
                };
                session.follow(&question, Duration::ZERO, |_| {}, take).await
            }));
        }
        heard.recv().await.expect("the delivery is listed");
        world.stop().await;
        for follower in followers {
            let error = follower.await.expect("no panic").expect_err("the proxy is gone");
            assert_eq!(error.fault(), Fault::Retry, "{error}");
        }
    })
    .await;
}

#[test]
fn a_target_whose_words_nobody_reads_goes_on() {
    let home = Home::new();
    let proxy = home.serve(&["--data", "data"]);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    let url =
        login.split_whitespace().find(|word| word.starts_with("whit://")).expect("an address").to_owned();
    let token =
        ["token", "create", "--data", "data", "--user", "web", "--target", "web-1", "--allow", "pull"];
    let token = home.run(&token).good().lines().last().expect("a token").to_owned();
    let (_read, mut full) = std::io::pipe().expect("a pipe");
    ioctl_fionbio(&full, true).expect("set");
    while full.write(&[b'.'; 4096]).is_ok() {}
    ioctl_fionbio(&full, false).expect("set");
    let target = home.path("srv").display().to_string();
    let mut command = home.command(&["pull", "--watch", "app", &target, "--proxy", &url, "--token", &token]);
    command.stdout(full.try_clone().expect("a clone")).stderr(full);
    let mut running = Running::start(&mut command);
    drop(command);
    for version in ["1", "2"] {
        write(&home.path("tree"), "version", version);
        home.run(&["push", "app", "tree"]).good();
        let shown = || fs::read_to_string(home.path("srv/current/version")).unwrap_or_default();
        let began = Instant::now();
        while shown() != version {
            assert!(began.elapsed() < patience(), "it hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    kill_process(running.pid(), Signal::TERM).expect("it runs");
    assert!(running.wait().success());
}

/// A proxy with a group for each of two applications, of one target each, whose start command waits for a file `go` and fails in
/// releases that say that they are bad.
#[test]
fn what_follows_a_rollout_goes_on_after_its_proxy_was_killed() {
    let home = Home::new();
    let path = |name: &str| home.path(name).display().to_string();
    let group = |name: &str| {
        format!("[groups.of-{name}]\ntargets = ['{name}']\nhealthy_for = '0s'\nhealthy_within = '10m'\n")
    };
    fs::write(home.path("whit.toml"), group("good") + &group("bad")).expect("written");
    let serve = ["--data", "data", "--config", "whit.toml"];
    let proxy = home.serve(&serve);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    let url =
        login.split_whitespace().find(|word| word.starts_with("whit://")).expect("an address").to_owned();
    let address = url.trim_start_matches("whit://").split('#').next().expect("a host and a port").to_owned();
    let on_release = format!("until [ -e {} ]; do sleep 0.05; done; ! grep -q bad version", path("go"));
    let mut targets = Vec::new();
    for name in ["good", "bad"] {
        let token =
            ["token", "create", "--data", "data", "--user", "web", "--target", name, "--allow", "pull"];
        let token = home.run(&token).good().lines().last().expect("a token").to_owned();
        let watch = ["pull", "--watch", name, &path(&format!("srv-{name}")), "--on-release", &on_release];
        let access = ["--proxy", &url, "--token", &token];
        targets.push(Command::start(&home, &[&watch[..], &access].concat()));
    }
    let tree = |name: &str, version: &str| {
        write(&home.path(name), "version", version);
        path(name)
    };
    fs::write(home.path("go"), "").expect("written");
    for (name, target) in ["good", "bad"].into_iter().zip(&targets) {
        home.run(&["push", name, &tree(name, "one"), "--to", &format!("of-{name}")]).good();
        Command::until(&target.out, "confirmed");
    }
    fs::remove_file(home.path("go")).expect("removed");

    let good = Command::start(&home, &["push", "good", &tree("good", "two"), "--to", "of-good"]);
    home.run(&["push", "bad", &tree("bad", "bad"), "--no-current", "--label", "v2"]).good();
    let bad = Command::start(&home, &["promote", "bad@v2", "--to", "of-bad"]);
    let lists = [
        Command::start(&home, &["rollouts", "--watch"]),
        Command::start(&home, &["targets", "good", "--watch"]),
        Command::start(&home, &["deliveries", "--watch"]),
    ];
    for followed in [&good.err, &bad.err, &lists[0].out] {
        Command::until(followed, "0 of 1 confirmed");
    }
    Command::until(&lists[1].out, "confirming");
    proxy.kill();
    let _proxy = home.serve_at(&address, &serve);
    for command in [&good, &bad].into_iter().chain(&lists) {
        Command::until(&command.err, "following again");
    }
    fs::write(home.path("go"), "").expect("written");
    let (code, lines) = good.ended();
    assert_eq!(code, Some(0), "{lines:?}");
    let (code, lines) = bad.ended();
    assert!(code == Some(9) && lines.iter().any(|line| line.contains("rolled back")), "{lines:?}");
    for words in ["succeeded", "rolled back"] {
        Command::until(&lists[0].out, words);
    }
    Command::until(&lists[1].out, "confirmed");
    for list in lists {
        assert_eq!(list.interrupted(), 0, "said once");
    }
}
