//! A target: a directory of this machine that pulls, and goes back.

mod error;
mod decision;
mod gate;
mod going_back;
mod hooks;
pub mod place;
mod reports;
mod state_file;
mod stream;
mod update;
mod watched_directory;
mod watch;

pub use error::Error;
#[cfg(feature = "testing")]
pub use gate::Gate;
pub use hooks::Hooks;
pub use reports::{Listener, Reports};
pub use state_file::StateFile;
pub use stream::Route;
#[cfg(feature = "testing")]
pub use update::Outcome;
pub use watch::watch;
pub use watched_directory::{Options, Target};
