//! A release as a zip archive, written front to back.

use std::io::{self, Write};

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::entries::{Entries, each_entry};
use super::{ChunkSource, Error, StreamOptions};
use format::manifest::{EntryPath, Item, Root};

/// A size from which an entry has 64-bit sizes: 4 GiB, less what deflate adds to what it cannot compress.
const LARGE_BYTES: u64 = 0xff00_0000;

/// Writes the whole release as a zip archive, its files deflated. Symbolic links are entries with a link's mode, as `unzip`
/// and `bsdtar` make links again; a hard link is a link, too, to the file's name from its own folder.
///
/// The archive is a function of the release and the options. Memory: some 400 B for each entry, since the list of them ends
/// the archive, and what rebuilds one archive inside the release.
///
/// # Errors
/// As [`super::write_tar`]'s; [`Error::NotText`] for a name or target that is not UTF-8, which zip cannot hold.
pub fn write_zip(
    root: &Root,
    source: &dyn ChunkSource,
    options: &StreamOptions,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut zip = Zip { writer: ZipWriter::new_stream(out), options, time: dos_time(options.time) };
    if let Some(prefix) = &options.prefix {
        let top = Item::Directory { path: prefix.clone(), mode: 0o755 };
        zip.add(&top, text(prefix, prefix.as_bytes())?).map_err(|error| Error::OutputEnd(error.into()))?;
    }
    each_entry(root, source, options.links, &mut zip)?;
    let finished = zip.writer.finish().map_err(io::Error::from);
    finished.and_then(|mut stream| stream.flush()).map_err(Error::OutputEnd)
}

struct Zip<'a> {
    writer: ZipWriter<StreamWriter<&'a mut dyn Write>>,
    options: &'a StreamOptions,
    time: DateTime,
}

impl Zip<'_> {
    fn add(&mut self, item: &Item, name: &str) -> Result<(), Unfit> {
        let options = SimpleFileOptions::default().last_modified_time(self.time);
        match item {
            Item::Directory { mode, .. } => {
                self.writer.add_directory(name, options.unix_permissions(u32::from(*mode)))?;
            }
            Item::File { mode, size, .. } => {
                let options = options.unix_permissions(u32::from(*mode)).large_file(*size >= LARGE_BYTES);
                self.writer.start_file(name, options.compression_method(CompressionMethod::Deflated))?;
            }
            Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
                self.writer.add_symlink(name, text(path, target)?, options.unix_permissions(0o777))?;
            }
            Item::HardLink { path, target } => {
                let up = path.as_bytes().split(|byte| *byte == b'/').count() - 1;
                let target = format!("{}{}", "../".repeat(up), text(path, target.as_bytes())?);
                self.writer.add_symlink(name, target, options.unix_permissions(0o777))?;
            }
            Item::Chunk(_) | Item::Linked => {}
        }
        Ok(())
    }
}

impl Entries for Zip<'_> {
    fn begin(&mut self, item: &Item, path: &EntryPath) -> Result<(), Error> {
        let name = text(path, path.as_bytes())?;
        let prefix =
            self.options.prefix.as_ref().map(|prefix| text(prefix, prefix.as_bytes())).transpose()?;
        let name = prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}/{name}"));
        self.add(item, &name).map_err(|unfit| match unfit {
            Unfit::Name(error) => error,
            Unfit::Output(source) => Error::Output { path: path.clone(), source },
        })
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// The next entry ends the file.
    fn end(&mut self, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Why an entry could not be added.
enum Unfit {
    Name(Error),
    Output(io::Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Name(error)
    }
}

impl From<zip::result::ZipError> for Unfit {
    fn from(error: zip::result::ZipError) -> Self {
        Self::Output(error.into())
    }
}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Name(error) => Self::other(error),
            Unfit::Output(error) => error,
        }
    }
}

/// Returns a name as text, the only names that every reader of zip archives takes alike.
fn text<'a>(path: &EntryPath, name: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(name).map_err(|_| Error::NotText(path.clone()))
}

/// Returns a time as zip holds it: UTC, in steps of 2 s, from 1980 to 2107.
fn dos_time(seconds: u64) -> DateTime {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, by Howard Hinnant's `civil_from_days`; years begin in March.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    let (year, second) = (u16::try_from(year).unwrap_or(u16::MAX), rest % 60);
    DateTime::from_date_and_time(
        year,
        small(month),
        small(day),
        small(rest / 3600),
        small(rest / 60 % 60),
        small(second),
    )
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use super::super::sample::{MemorySource, one_of_each};
    use super::super::{Entry, noise};
    use super::*;
    use format::manifest::Shape;

    fn plain() -> Vec<Entry> {
        let is_text = |entry: &Entry| std::str::from_utf8(entry.path().as_bytes()).is_ok();
        one_of_each().into_iter().filter(is_text).collect()
    }

    fn zip_of(options: &StreamOptions) -> Vec<u8> {
        let (root, source) = MemorySource::of(Shape::Tree, &plain());
        let mut archive = Vec::new();
        write_zip(&root, &source, options, &mut archive).expect("an honest release");
        archive
    }

    #[test]
    fn a_zip_holds_every_entry_with_its_mode_and_the_same_release_gives_the_same_bytes() {
        let prefix = EntryPath::new("web-1").expect("a plain path");
        let options = StreamOptions { prefix: Some(prefix), time: 1_700_000_001, ..StreamOptions::default() };
        let archive = zip_of(&options);
        assert!(archive == zip_of(&options));
        let mut zip = zip::ZipArchive::new(Cursor::new(archive)).expect("an archive");
        assert_eq!(zip.len(), plain().len() + 1);
        for entry in plain() {
            let (end, mode, expected) = match &entry {
                Entry::Directory(_, mode) => ("/", 0o040_000 | u32::from(*mode), &[][..]),
                Entry::File(_, mode, content) => ("", 0o100_000 | u32::from(*mode), content.as_slice()),
                Entry::Symlink(_, target) => ("", 0o120_777, target.as_slice()),
            };
            let name = format!("web-1/{}{end}", entry.path());
            let mut found = zip.by_name(&name).expect(&name);
            assert_eq!(found.unix_mode(), Some(mode), "{name}");
            assert_eq!(
                found.last_modified().map(|time| time.to_string()).as_deref(),
                Some("2023-11-14 22:13:20")
            );
            let mut content = Vec::new();
            found.read_to_end(&mut content).expect("its content");
            assert!(content == expected, "{name}");
        }
    }

    #[test]
    fn times_that_zip_cannot_hold_are_its_first() {
        for (seconds, expected) in [
            (0, "1980-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_735_689_598, "2024-12-31 23:59:58"),
            (u64::MAX / 2, "1980-01-01 00:00:00"),
        ] {
            assert_eq!(dos_time(seconds).to_string(), expected);
        }
    }

    #[test]
    fn a_name_that_zip_cannot_hold_is_refused_by_its_name() {
        for entries in [
            vec![Entry::file(b"not \xff utf-8".as_slice(), 0o644, noise(1, 10))],
            vec![Entry::symlink("link", b"to \xff".as_slice()), Entry::file("x", 0o644, "")],
        ] {
            let (root, source) = MemorySource::of(Shape::Tree, &entries);
            let error = write_zip(&root, &source, &StreamOptions::default(), &mut io::sink());
            let text = error.expect_err("no text").to_string();
            assert!(text.contains("\\xff") || text.contains("link"), "{text}");
        }
    }
}
