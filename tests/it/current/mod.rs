//! The current release: what moves it, what follows it, and what it keeps in the store.

mod labels;
mod log;
mod moves;

use std::fs;

use format::current::{MovedBy, Standing};
use format::manifest::Totals;
use format::record::{Cost, Record};
use ground::ids::{Label, ReleaseId, UserName};
use protocol::wire::{Answer, Moved, Operation};
use whit::agent;
use whit::agent::Access;
use whit::agent::push::PushOptions;
use whit::store::Mover;

use crate::trees::write;
use crate::world::{World, ask_as, push_options};

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

fn options(world: &World, content: &str) -> PushOptions {
    let tree = world.path("tree");
    write(&tree, "file", content);
    push_options("app", &tree)
}

/// Pushes content; returns its release.
async fn push(world: &World, content: &str) -> ReleaseId {
    world.push_with(&options(world, content)).await.release
}

/// Returns what a bare pull brings.
async fn pulled(world: &World) -> String {
    world.pull("app", &world.path("pulled")).await.expect("pulled");
    fs::read_to_string(world.path("pulled/file")).expect("a file")
}

fn labelled(world: &World, content: &str, text: &str, moves: bool) -> PushOptions {
    PushOptions { labels: vec![label(text)], moves, ..options(world, content) }
}

async fn rollback_as(access: &Access) -> agent::Result<Moved> {
    let app = "app".parse().expect("a name");
    let because = Some("it is slow".to_owned());
    Ok(moved(
        ask_as(access, &Operation::Rollback { app, destinations: Vec::new(), because, then: Vec::new() })
            .await?,
    ))
}

fn moved(answers: Vec<Answer>) -> Moved {
    let mut moved = answers.into_iter().filter_map(|answer| match answer {
        Answer::Moved(moved) => Some(*moved),
        _ => None,
    });
    moved.next().expect("it says what moved")
}

async fn promote(world: &World, selector: &str) -> agent::Result<Moved> {
    let release = selector.parse().expect("a selector");
    let promote = Operation::Promote { release, destinations: Vec::new(), because: None, then: Vec::new() };
    Ok(moved(ask_as(world.access(), &promote).await?))
}

async fn standing(world: &World) -> (Standing, Vec<(MovedBy, ReleaseId)>) {
    let app = "app".parse().expect("a name");
    let answers = ask_as(world.access(), &Operation::Current { app, log: true }).await.expect("answered");
    let (mut standing, mut log) = (Standing::default(), Vec::new());
    for answer in answers {
        match answer {
            Answer::Standing(found) => standing = found,
            Answer::Log(entries) => log.extend(entries.iter().map(|entry| (entry.by, entry.release))),
            other => panic!("{other:?}"),
        }
    }
    (standing, log)
}

fn record(seed: u64, labels: &[&str]) -> Record {
    Record {
        app: "app".parse().expect("a name"),
        release: ReleaseId::of(&seed.to_le_bytes()),
        sequence: 0,
        created: seed,
        user: "ada".parse().expect("a name"),
        labels: labels.iter().map(|text| label(text)).collect(),
        totals: Totals::default(),
        cost: Cost::default(),
        behalf: Vec::new(),
    }
}

fn mover(user: &UserName) -> Mover<'_> {
    Mover { user, token: "", time: 7, because: None }
}
