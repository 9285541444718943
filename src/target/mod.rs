//! A target: a directory of this machine that pulls, and goes back.

pub mod place;
