//! Destructive tests (docs/PROOFS.md): the real program, over real QUIC on loopback, is killed at every crash point and
//! at random moments, runs out of disk and of memory, and meets a failing disk, wrong clocks and damaged files.
//!
//! `cargo test --test crash`; `WHIT_CRASH_ROUNDS=20` and the other variables of docs/PROOFS.md make it run longer.
//! Every random choice is printed with its seed.

mod clocks;
mod damage;
mod delivering;
mod disk;
mod hooks;
mod improving;
mod kills;
mod memory;
mod passing_on;
mod points;
mod points_of_services;
mod points_of_targets;
mod rolling_out;
#[expect(dead_code, reason = "tests of whole roles have more of them in use")]
#[path = "../it/objects/servers.rs"]
mod servers;
mod site;
mod target_clocks;
mod target_disk;
mod targets;
mod trees;
mod world;
