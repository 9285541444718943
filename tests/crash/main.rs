//! Proofs by violence (docs/PROOFS.md): the real program, over real QUIC on loopback, is ended at every
//! named point and at random moments, runs out of disk and of memory, meets a failing disk, wrong clocks and
//! damaged files.
//!
//! `cargo test --test crash`; `WHIT_CRASH_ROUNDS=20` and the other variables of
//! docs/PROOFS.md make it long. A seed is printed with everything that is drawn.

mod clocks;
mod damage;
mod disk;
mod kills;
mod memory;
mod points;
mod trees;
mod world;
