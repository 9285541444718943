//! The two releases, copied so that all tools get the same input.
//!
//! A copy's files have their content, names and permission bits, and the current time as modification time, as after a
//! checkout or a build in CI; OLD's have that of an hour ago, since some tools compare whole seconds. A release that is one
//! file has the name of NEW's file on both sides. Tools for a single stream get the file, or a tar of the tree: entries
//! sorted by name, all times and owners zero, for small differences.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::process::{self, Stop};
use disk::files::OnPath;

/// The age difference between OLD's and NEW's files.
const OLDER: Duration = Duration::from_secs(3600);

/// The size of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// A release in the forms that tools take.
#[derive(Debug)]
pub struct Release {
    /// The folder that holds the tree, or the one file.
    pub folder: PathBuf,
    /// The one file, or a tar of the tree.
    pub stream: PathBuf,
    /// Its size.
    pub size: Size,
}

/// Both releases.
#[derive(Debug)]
pub struct Input {
    /// The earlier one.
    pub old: Release,
    /// The later one.
    pub new: Release,
    /// The name of the one file, where the releases are files.
    pub file: Option<PathBuf>,
    /// BLAKE3 of both streams: the same for the same releases, wherever and whenever they were copied.
    pub digest: String,
}

impl Input {
    /// Copies both releases into `work`.
    ///
    /// # Errors
    /// A file cannot be read or written, one release is a directory and the other a file, or the user stopped it.
    pub fn stage(old: &Path, new: &Path, work: &Path, stop: &Stop) -> Result<Self> {
        let kind = |path: &Path| fs::metadata(path).on("read", path);
        let is_file = kind(new)?.is_file();
        if kind(old)?.is_file() != is_file {
            let (old, new) = (old.display().to_string(), new.display().to_string());
            return Err(Error::Mixed { old, new });
        }
        let file = if is_file { new.file_name().map(PathBuf::from) } else { None };
        let stage = |from: &Path, name: &str| -> Result<Release> {
            let folder = work.join(name);
            let size = match &file {
                Some(file) => {
                    fs::create_dir(&folder).on("create", &folder)?;
                    copy_file(from, &folder.join(file))?
                }
                None => copy_tree(from, &folder, stop)?,
            };
            if name == "old" {
                make_older(&folder)?;
            }
            let stream = if let Some(file) = &file {
                folder.join(file)
            } else {
                let stream = work.join(format!("{name}.tar"));
                process::run(stop, tar(&folder).arg("-f").arg(&stream).arg("."))?;
                stream
            };
            Ok(Release { folder, stream, size })
        };
        let (old, new) = (stage(old, "old")?, stage(new, "new")?);
        let mut hasher = blake3::Hasher::new();
        for stream in [&old.stream, &new.stream] {
            hasher.update(hash(stream)?.as_bytes());
        }
        Ok(Self { old, new, file, digest: hasher.finalize().to_hex().to_string() })
    }

    /// Checks that `folder` holds exactly NEW.
    ///
    /// # Errors
    /// [`Error::Differs`] names `tool` and the first place that differs.
    pub fn expect_new(&self, tool: &'static str, folder: &Path) -> Result<()> {
        same_tree(tool, &self.new.folder, folder)
    }

    /// Checks that a file is exactly NEW's stream.
    ///
    /// # Errors
    /// [`Error::Differs`] names `tool`.
    pub fn expect_new_stream(&self, tool: &'static str, stream: &Path) -> Result<()> {
        if hash(stream)? == hash(&self.new.stream)? {
            return Ok(());
        }
        Err(Error::Differs { tool, place: "the stream".to_owned() })
    }
}

/// Returns the command `tar -c` for a folder, with equal bytes for equal content.
pub fn tar(folder: &Path) -> Command {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    command.arg("-c").arg("-C").arg(folder);
    command
}

/// Copies a tree; folders and symbolic links are created anew.
///
/// # Errors
/// As [`Input::stage`].
pub fn copy_tree(from: &Path, to: &Path, stop: &Stop) -> Result<Size> {
    stop.check()?;
    fs::create_dir(to).on("create", to)?;
    let mut size = Size::default();
    for entry in fs::read_dir(from).on("read", from)? {
        let entry = entry.on("read", from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().on("read", &source)?;
        let added = if kind.is_dir() {
            copy_tree(&source, &target, stop)?
        } else if kind.is_symlink() {
            let leads_to = fs::read_link(&source).on("read", &source)?;
            symlink(leads_to, &target).on("create", &target)?;
            Size::default()
        } else if kind.is_file() {
            copy_file(&source, &target)?
        } else {
            return Err(Error::Kind { path: source.display().to_string() });
        };
        size = Size { files: size.files + added.files, bytes: size.bytes + added.bytes };
    }
    Ok(size)
}

fn copy_file(from: &Path, to: &Path) -> Result<Size> {
    let bytes = fs::copy(from, to).on("copy", from)?;
    Ok(Size { files: 1, bytes })
}

/// Sets the modification times of all files below a folder to an hour ago.
fn make_older(folder: &Path) -> Result<()> {
    let then = SystemTime::now().checked_sub(OLDER).unwrap_or(SystemTime::UNIX_EPOCH);
    let seconds = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in fs::read_dir(folder).on("read", folder)? {
        let path = entry.on("read", folder)?.path();
        if fs::symlink_metadata(&path).on("read", &path)?.is_dir() {
            make_older(&path)?;
        } else {
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).on("date", &path)?;
        }
    }
    Ok(())
}

/// Returns the bytes of all files below a folder.
///
/// # Errors
/// A folder that cannot be read.
pub fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).on("read", folder)? {
        let entry = entry.on("read", folder)?;
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).on("read", &path)?;
        bytes += if metadata.is_dir() { bytes_below(&path)? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Returns the length of a file.
///
/// # Errors
/// It cannot be read.
pub fn bytes_of(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).on("read", path)?.len())
}

fn hash(path: &Path) -> Result<blake3::Hash> {
    let file = File::open(path).on("open", path)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).on("read", path)?;
    Ok(hasher.finalize())
}

/// Compares names, links and contents.
fn same_tree(tool: &'static str, expected: &Path, found: &Path) -> Result<()> {
    let differs = |path: &Path| Error::Differs { tool, place: path.display().to_string() };
    let names = |folder: &Path| -> Result<Vec<std::ffi::OsString>> {
        let entries = fs::read_dir(folder).on("read", folder)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>();
        let mut names: Vec<_> = names.on("read", folder)?;
        names.sort();
        Ok(names)
    };
    let here = names(expected)?;
    if here != names(found)? {
        return Err(differs(found));
    }
    for name in here {
        let (one, other) = (expected.join(&name), found.join(&name));
        let kind = |path: &Path| fs::symlink_metadata(path).on("read", path);
        let (one_kind, other_kind) = (kind(&one)?.file_type(), kind(&other)?.file_type());
        let same = if one_kind != other_kind {
            false
        } else if one_kind.is_dir() {
            same_tree(tool, &one, &other)?;
            true
        } else if one_kind.is_symlink() {
            fs::read_link(&one).on("read", &one)? == fs::read_link(&other).on("read", &other)?
        } else {
            bytes_of(&one)? == bytes_of(&other)? && hash(&one)? == hash(&other)?
        };
        if !same {
            return Err(differs(&other));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Input, Size, bytes_below, copy_tree};
    use crate::{Error, Stop};

    fn tree(folder: &Path, word: &str) {
        fs::create_dir_all(folder.join("a/empty")).expect("created");
        fs::write(folder.join("a/file"), word).expect("written");
        fs::write(folder.join("b"), "the same").expect("written");
        std::os::unix::fs::symlink("a/file", folder.join("link")).expect("linked");
    }

    #[test]
    fn staged_releases_are_what_they_were() {
        let work = tempfile::tempdir().expect("a folder");
        tree(&work.path().join("x"), "one");
        tree(&work.path().join("y"), "three");
        let stage = work.path().join("stage");
        fs::create_dir(&stage).expect("created");
        let input = Input::stage(&work.path().join("x"), &work.path().join("y"), &stage, &Stop::default());
        let input = input.expect("staged");
        assert_eq!(
            (input.old.size, input.new.size),
            (Size { files: 2, bytes: 11 }, Size { files: 2, bytes: 13 })
        );
        input.expect_new("test", &work.path().join("y")).expect("the same");
        let written = |release: &super::Release| {
            fs::metadata(release.folder.join("b")).and_then(|file| file.modified()).expect("a time")
        };
        let between = written(&input.new).duration_since(written(&input.old)).expect("it is later");
        assert!(between >= super::OLDER, "{between:?}");
        let error = input.expect_new("test", &work.path().join("x")).expect_err("another");
        assert!(matches!(error, Error::Differs { place, .. } if place.ends_with("a/file")));
        assert!(input.expect_new_stream("test", &input.new.stream).is_ok());
        assert!(input.expect_new_stream("test", &input.old.stream).is_err());
        assert_eq!(bytes_below(&input.new.folder).expect("read"), 13 + "a/file".len() as u64);
    }

    #[test]
    fn the_digest_tells_contents_apart_and_not_copies() {
        let work = tempfile::tempdir().expect("a folder");
        tree(&work.path().join("x"), "one");
        tree(&work.path().join("y"), "two");
        copy_tree(&work.path().join("x"), &work.path().join("copy"), &Stop::default()).expect("copied");
        let digest = |old: &str, new: &str, stage: &str| {
            let stage = work.path().join(stage);
            fs::create_dir(&stage).expect("created");
            let (old, new) = (work.path().join(old), work.path().join(new));
            Input::stage(&old, &new, &stage, &Stop::default()).expect("staged").digest
        };
        let expected = digest("x", "y", "1");
        assert_eq!(digest("copy", "y", "2"), expected);
        assert_ne!(digest("x", "x", "3"), expected);
    }

    #[test]
    fn a_file_has_the_name_of_the_new_one_on_both_sides() {
        let work = tempfile::tempdir().expect("a folder");
        fs::write(work.path().join("app-1"), "one").expect("written");
        fs::write(work.path().join("app-2"), "two").expect("written");
        let (old, new) = (work.path().join("app-1"), work.path().join("app-2"));
        let input = Input::stage(&old, &new, &work.path().join("."), &Stop::default()).expect("staged");
        assert_eq!(fs::read(input.old.folder.join("app-2")).expect("read"), b"one");
        assert!(matches!(
            Input::stage(work.path(), &new, &work.path().join("."), &Stop::default()),
            Err(Error::Mixed { .. })
        ));
    }
}
