//! A site as releases of it are delivered: an entry point that names its assets, and a reader who follows it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::servers::Server;
use crate::trees::{noise, walk_files};

/// So many assets have the version in their names: more than are verified one by one.
const ASSETS: u64 = 40;
/// So many files are in all versions.
const CONSTANT: u64 = 10;
/// The keys of a destination for sites, besides those of its server; `keep` is added.
const KEYS: &str = "last = [\"*.html\"]\nstamp = \"release.txt\"\n";
/// The file with the release's id.
pub const STAMP: &str = "release.txt";

/// Returns the definition of a destination `name`, which keeps the files of `keep` releases.
pub fn definition(server: &Server, name: &str, keep: usize) -> String {
    // What servers show of `web` is read.
    let keys = server.keys.replace("{app}", "web");
    format!("[destinations.{name}]\n{keys}{KEYS}keep = {keep}\n")
}

fn asset(version: u64, number: u64) -> Vec<u8> {
    noise(1_000_000 + version * ASSETS + number, 4000)
}

/// Returns the files of a version, by path.
pub fn files(version: u64) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<String> = (0..ASSETS).map(|number| format!("assets/{number}.{version}.js")).collect();
    let assets = names.iter().zip(0..).map(|(name, number)| (name.clone(), asset(version, number)));
    let constant = (0..CONSTANT).map(|number| (format!("images/{number}.png"), noise(number, 4000)));
    let mut files: BTreeMap<String, Vec<u8>> = assets.chain(constant).collect();
    files.insert("style.css".to_owned(), noise(2_000_000 + version, 4000));
    files.insert("index.html".to_owned(), format!("{version}\n{}\n", names.join("\n")).into_bytes());
    files
}

/// Writes a version into a folder, and returns it.
pub fn write(folder: PathBuf, version: u64) -> PathBuf {
    drop(fs::remove_dir_all(&folder));
    for (path, content) in files(version) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, content).expect("written");
    }
    folder
}

/// Reads the entry point, and all that it names; returns its version, none where there is none yet.
///
/// # Errors
/// What it names is not there, or is of another version.
pub fn look(root: &Path) -> Result<Option<u64>, String> {
    let Ok(entry) = fs::read_to_string(root.join("index.html")) else { return Ok(None) };
    let version = entry.lines().next().and_then(|line| line.parse().ok());
    let version = version.ok_or_else(|| format!("the entry point is `{entry}`"))?;
    if entry.as_bytes() != files(version)["index.html"] {
        return Err(format!("half an entry point of {version}"));
    }
    for (number, name) in (0..).zip(entry.lines().skip(1)) {
        match fs::read(root.join(name)) {
            Ok(found) if found == asset(version, number) => {}
            Ok(found) => return Err(format!("{name} of {version} has {} wrong bytes", found.len())),
            Err(error) => return Err(format!("{name} of {version}: {error}")),
        }
    }
    Ok(Some(version))
}

/// A reader who looks again and again.
pub struct Reader {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, Vec<String>)>>,
}

impl Reader {
    /// Begins to read by `look`.
    pub fn start(look: impl Fn() -> Result<Option<u64>, String> + Send + 'static) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let (mut looks, mut half) = (0, Vec::new());
            while !until.load(Ordering::Relaxed) {
                match look() {
                    Ok(Some(_)) => looks += 1,
                    Ok(None) => {}
                    Err(what) => half.push(what),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            (looks, half)
        });
        Self { ends, thread: Some(thread) }
    }

    /// Returns how often it looked, and what it found wrong.
    pub fn end(mut self) -> (u64, Vec<String>) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().expect("once").join().expect("no panic")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Returns for each file below a folder what changes when it is written again, whatever the content.
pub fn marks(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mark = |path: PathBuf| {
        let metadata = fs::metadata(&path).expect("it is there");
        (path, (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    };
    walk_files(root).into_iter().map(mark).collect()
}

/// Waits until `is_so`.
pub fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
