//! The releases and the folder on which a tool runs.

use std::path::{Path, PathBuf};

use crate::input::Input;
use crate::process::Stop;

/// Two releases and a folder to work in.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Ends the running programs.
    pub stop: &'a Stop,
    /// Both releases.
    pub input: &'a Input,
    /// An empty folder of the tool's own.
    pub work: &'a Path,
    /// The program that is running: whit.
    pub whit: &'a Path,
}

impl Ground<'_> {
    /// Returns a path below the tool's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }
}
