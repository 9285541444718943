//! `whit pull --watch` as a process: stopped and continued, with a token that is renewed, with a command that never ends; and pulls that
//! share what a proxy may send.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use format::target::TargetState;
use protocol::token::claimed;
use rustix::process::Signal;

use ground::rate::Rate;
use whit::agent::Access;

use crate::fake_target::access_of;
use crate::program::{Home, Served};
use crate::targets::{listed, push};
use crate::trees::{assert_same, noise, write};
use crate::world::{World, pull_as, within};

/// More than the time after which a target says that it is there.
const PATIENCE: Duration = Duration::from_secs(13);

fn watch(home: &Home, access: &Access, more: &[&str]) -> Served {
    let mut command = home.command(&[&["pull", "--watch", "app", "copy", "--json"], more].concat());
    command.env("WHIT_PROXY", access.url.to_string());
    Served::start(command)
}

fn write_token(file: &Path, token: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, token).expect("written");
    fs::rename(aside, file).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_stopped_is_unreachable_and_goes_on_when_it_is_continued() {
    within(async {
        let world = World::start_with(|options| options.target_patience = PATIENCE);
        let home = Home::new();
        let first = push(&world, "app", "one", &[]).await;
        let access = access_of(&world, "web-1");
        let watching = watch(&home, &access, &["--token", &access.token]);
        let is_confirmed = |state: &TargetState| *state == TargetState::Confirmed;
        listed(&world, |row| row.status.reachable && row.status.known.report.shown == Some(first)).await;
        // It is not silent, though nothing happens for longer than that.
        tokio::time::sleep(PATIENCE + Duration::from_secs(2)).await;
        assert!(listed(&world, |_| true).await.status.reachable);
        watching.signal(Signal::STOP);
        let away = listed(&world, |row| !row.status.reachable).await.status.known.report;
        assert!(away.shown == Some(first) && is_confirmed(&away.state), "{away:?}");
        let second = push(&world, "app", "two", &[]).await;
        watching.signal(Signal::CONT);
        let back = |report: &format::target::TargetReport| {
            report.shown == Some(second) && is_confirmed(&report.state)
        };
        listed(&world, |row| row.status.reachable && back(&row.status.known.report)).await;
        assert!(watching.stop(Signal::TERM).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_renewed_in_its_file_takes_over_on_the_stream_and_after_one_that_ended() {
    within(async {
        let world = World::start();
        let home = Home::new();
        let tokens = [1, 2, 3].map(|_| access_of(&world, "web-1"));
        let file = home.path("token");
        write_token(&file, &tokens[0].token);
        let revoke = |access: &Access| {
            world.identity().revoke(claimed(&access.token).expect("a token").id).expect("revoked");
        };
        let first = push(&world, "app", "one", &[]).await;
        let watching = watch(&home, &tokens[0], &["--token-file", &file.display().to_string()]);
        listed(&world, |row| row.status.known.report.shown == Some(first)).await;
        write_token(&file, &tokens[1].token);
        // Both look every 2 s.
        tokio::time::sleep(Duration::from_secs(5)).await;
        revoke(&tokens[0]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let second = push(&world, "app", "two", &[]).await;
        listed(&world, |row| row.status.reachable && row.status.known.report.shown == Some(second)).await;
        revoke(&tokens[1]);
        // That is its first word about the stream since it began.
        let word = watching.line(|line| line.contains("trying again") || line.contains("revoked"));
        assert!(word.contains("revoked"), "{word}");
        listed(&world, |row| !row.status.reachable).await;
        write_token(&file, &tokens[2].token);
        let third = push(&world, "app", "three", &[]).await;
        listed(&world, |row| row.status.reachable && row.status.known.report.shown == Some(third)).await;
        assert!(watching.stop(Signal::TERM).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_ends_is_ended_with_all_that_it_started_and_the_release_left() {
    within(async {
        let world = World::start();
        let home = Home::new();
        let first = push(&world, "app", "one", &[]).await;
        let access = access_of(&world, "web-1");
        let pids = home.path("pids");
        // It does not listen to TERM, nor does its child.
        let hangs = format!("trap '' TERM; sleep 1000 & echo $$ $! > {}; wait", pids.display());
        let start = format!("if test $WHIT_EVENT = released && test $(cat file) = two; then {hangs}; fi");
        let more = ["--token", &access.token, "--on-release", &start, "--hook-timeout", "1s"];
        let watching = watch(&home, &access, &more);
        listed(&world, |row| row.status.known.report.shown == Some(first)).await;
        let second = push(&world, "app", "two", &[]).await;
        let left =
            listed(&world, |row| matches!(row.status.known.report.state, TargetState::RolledBack { .. }))
                .await;
        let report = left.status.known.report;
        assert_eq!((report.shown, report.about), (Some(first), Some(second)));
        assert!(format!("{:?}", report.state).contains("took longer than 1s"), "{report:?}");
        for pid in fs::read_to_string(&pids).expect("it ran").split_whitespace() {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(state.is_empty() || state.contains(") Z "), "{state}");
        }
        assert!(watching.stop(Signal::TERM).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pulls_at_a_time_get_what_a_proxy_may_send_and_each_as_much_as_another() {
    within(async {
        let (rate, bytes, pulls) = (6_000_000, 2_000_000, 10);
        let world =
            World::start_with(|options| options.download_rate_max = Some(Rate { bytes_a_second: rate }));
        let tree = world.path("tree");
        write(&tree, "noise", noise(1, bytes));
        world.push("app", &tree).await;
        let begin = Instant::now();
        let pulls: Vec<_> = (0..pulls)
            .map(|number| {
                let (access, place) = (world.access().clone(), world.path(&format!("copy-{number}")));
                tokio::spawn(async move {
                    pull_as(&access, "app", &place, false).await.expect("pulled");
                    begin.elapsed()
                })
            })
            .collect();
        let mut times = Vec::new();
        for pull in pulls {
            times.push(pull.await.expect("no panic").as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        for number in 0..times.len() {
            assert_same(&tree, &world.path(&format!("copy-{number}")));
        }
        // The last message of each is not waited for.
        let least = 10.0 * 2.0 / 6.0;
        println!("ten pulls took {times:.2?} s, at the rate {least:.2} s");
        assert!(times[9] > 0.9 * least, "{times:?}");
        assert!(times[0] > 0.6 * times[9], "{times:?}");
    })
    .await;
}
