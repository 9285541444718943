//! The tools: what each is called, what it needs, and how it is run.
//!
//! docs/BENCHMARKS.md defines what is counted for each.

mod archive;
mod fetch;
mod ground;
mod patch;
mod race;
mod repository;
mod rsync;
mod web;
mod whit;

use std::path::PathBuf;

use super::error::{Error, Result};
use super::measurement::Situations;
use super::race::{Race, WHIT};

pub use self::ground::Ground;

/// A tool.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its name in tables and for `--only`.
    pub name: &'static str,
    /// The programs that it needs.
    pub programs: &'static [&'static str],
    /// The most bytes of a release; for larger ones it would take hours, or all memory.
    pub input_bytes_max: u64,
    /// Counts its bytes, over loopback, once in each situation that it supports.
    pub measure: Option<fn(&Ground<'_>) -> Result<Situations>>,
    /// Runs it over a link, once in each case: what people would use to bring a release there.
    pub race: Option<fn(&Ground<'_>) -> Result<Race>>,
}

const ANY: u64 = u64::MAX;
const MIB: u64 = 1024 * 1024;
/// zstd at level 19 over a stream: a minute or two on one processor.
const SLOW_BYTES_MAX: u64 = 128 * MIB;
/// bsdiff sorts all suffixes: 17 times OLD in memory, and minutes.
const SUFFIX_BYTES_MAX: u64 = 48 * MIB;

/// All tools, in the order of tables.
pub const TOOLS: [Tool; 18] = [
    tool(WHIT, &[], whit::measure).over_links(race::whit::run),
    tool("rsync-a", &["rsync"], rsync::plain).over_links(race::rsync::plain),
    tool("rsync-az", &["rsync"], rsync::compressed).over_links(race::rsync::compressed),
    Tool {
        name: "rsync-ssh",
        programs: &["rsync", "ssh", "ssh-keygen", "sshd"],
        input_bytes_max: ANY,
        measure: None,
        race: Some(race::ssh::run),
    },
    tool("rsync-acz", &["rsync"], rsync::checksums),
    tool("rsync-fuzzy", &["rsync"], rsync::fuzzy),
    tool("casync", &["casync"], repository::casync),
    tool("casync-16k", &["casync"], repository::casync_small),
    tool("zsync", &["zsync", "zsyncmake"], fetch::zsync),
    tool("bita", &["bita"], fetch::bita),
    tool("restic", &["restic"], repository::restic),
    tool("borg", &["borg"], repository::borg),
    tool("rdiff", &["rdiff", "zstd"], patch::rdiff),
    tool("tar", &["tar", "zstd"], archive::upload).over_links(race::tar::run),
    tool("zstd-3", &["zstd"], patch::zstd_fast),
    tool("zstd-19", &["zstd"], patch::zstd_best).up_to(SLOW_BYTES_MAX),
    tool("xdelta3", &["xdelta3"], patch::xdelta3),
    tool("bsdiff", &["bsdiff", "bspatch"], patch::bsdiff).up_to(SUFFIX_BYTES_MAX),
];

/// Returns a tool whose bytes are counted, for releases of any size.
const fn tool(
    name: &'static str,
    programs: &'static [&'static str],
    measure: fn(&Ground<'_>) -> Result<Situations>,
) -> Tool {
    Tool { name, programs, input_bytes_max: ANY, measure: Some(measure), race: None }
}

impl Tool {
    const fn up_to(self, input_bytes_max: u64) -> Self {
        Self { input_bytes_max, ..self }
    }

    const fn over_links(self, race: fn(&Ground<'_>) -> Result<Race>) -> Self {
        Self { race: Some(race), ..self }
    }

    /// Returns whether it is whit itself, whose figures are never taken from an earlier run.
    pub fn is_whit(&self) -> bool {
        self.name == WHIT
    }

    /// Returns the first of its programs that is not installed.
    pub fn missing_program(&self) -> Option<&'static str> {
        self.programs.iter().copied().find(|program| find_program(program).is_none())
    }
}

/// Returns the names of all tools.
pub fn names() -> Vec<&'static str> {
    TOOLS.iter().map(|tool| tool.name).collect()
}

/// Returns the tools of `only`, or all, without those of `skip`.
///
/// # Errors
/// [`Error::Tool`] for an unknown name.
pub fn select(only: &[String], skip: &[String]) -> Result<Vec<Tool>> {
    for name in only.iter().chain(skip) {
        if !names().contains(&name.as_str()) {
            return Err(Error::Tool { name: name.clone(), known: names() });
        }
    }
    let has = |list: &[String], tool: &Tool| list.iter().any(|name| name == tool.name);
    let wanted = |tool: &Tool| (only.is_empty() || has(only, tool)) && !has(skip, tool);
    Ok(TOOLS.into_iter().filter(wanted).collect())
}

/// Where servers lie that are not in every user's `PATH`.
const SERVERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Returns the path of a program, by `PATH` and where servers are.
fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let by_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&by_path).chain(SERVERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::{find_program, names, select};

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn tools_are_chosen_and_left_out_by_name() {
        let chosen = |only: &[&str], skip: &[&str]| -> Vec<&str> {
            let tools = select(&words(only), &words(skip)).expect("known names");
            tools.iter().map(|tool| tool.name).collect()
        };
        assert_eq!(chosen(&[], &[]), names());
        assert_eq!(chosen(&["tar", "whit"], &[]), ["whit", "tar"]);
        assert_eq!(chosen(&["tar", "whit"], &["tar"]), ["whit"]);
        assert!(select(&words(&["rcync"]), &[]).is_err() && select(&[], &words(&["rcync"])).is_err());
    }

    #[test]
    fn programs_are_found_by_path() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no program has this name"), None);
    }
}
