//! Simulations: seeded random histories of a store, checked against a model, and pushes over a simulated
//! network in virtual time.
//!
//! `WHIT_SEED` runs one seed, `WHIT_SIM_STEPS` sets the number of steps in a history of the store. A failure prints the
//! seed and the last steps.

mod collector;
mod commit;
mod content;
mod crash;
mod flow;
mod history;
mod link;
mod network;
mod pulling;
mod pusher;
mod random;
mod rebuilding;
mod store;
mod verification;
