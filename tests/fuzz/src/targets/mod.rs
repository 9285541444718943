//! One function for each target: it takes any bytes and panics where a promise is broken.
//!
//! Used by the fuzzer's programs and, over the committed corpora, by `tests/fuzz_corpus.rs`.

mod agent;
mod archive;
mod config;
mod delta;
mod deflate;
mod exclude;
mod executable;
mod manifest;
mod memory;
mod names;
mod pack;
mod parcel;
mod patch;
mod plan;
mod proxy;
mod pull;
mod records;
mod script;
mod token;
mod wire;

/// A target: its name, its function, and valid bytes to begin with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 20] = [
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds },
    Target { name: "pack", run: pack::run, seeds: pack::seeds },
    Target { name: "wire", run: wire::run, seeds: wire::seeds },
    Target { name: "push_proxy", run: proxy::run, seeds: proxy::seeds },
    Target { name: "push_agent", run: agent::run, seeds: agent::seeds },
    Target { name: "pull_agent", run: pull::run_agent, seeds: pull::seeds_agent },
    Target { name: "pull_proxy", run: pull::run_proxy, seeds: pull::seeds_proxy },
    Target { name: "parcel", run: parcel::run, seeds: parcel::seeds },
    Target { name: "delta", run: delta::run, seeds: delta::seeds },
    Target { name: "patch", run: patch::run, seeds: patch::seeds },
    Target { name: "archive", run: archive::run, seeds: archive::seeds },
    Target { name: "deflate", run: deflate::run, seeds: deflate::seeds },
    Target { name: "plan", run: plan::run, seeds: plan::seeds },
    Target { name: "executable", run: executable::run, seeds: executable::seeds },
    Target { name: "token", run: token::run, seeds: token::seeds },
    Target { name: "names", run: names::run, seeds: names::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "records", run: records::run, seeds: records::seeds },
    Target { name: "memory", run: memory::run, seeds: memory::seeds },
    Target { name: "exclude", run: exclude::run, seeds: exclude::seeds },
];

/// Returns the target of that name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target")
}
