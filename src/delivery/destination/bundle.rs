//! A release as one stream of bytes: an archive of all of it, or its single file.
//!
//! The bytes are a function of the release and the options: entries in the manifest's order, owner 0, one time. What is read
//! is verified chunk by chunk, and memory is bounded: some MiB, for a zip also its list of entries.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::restore::{self, ChunkSource, StreamOptions, write_file, write_tar, write_zip};
use format::manifest::Root;
use ground::monitor::{Monitor, Phase};

/// zstd's own default: quicker than most links and disks.
const ZSTD_LEVEL: i32 = 3;

/// The format of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Bundle {
    /// A tar in the GNU format.
    #[serde(rename = "tar")]
    Tar,
    /// The same, compressed by gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// The same, compressed by zstd.
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A zip archive.
    #[serde(rename = "zip")]
    Zip,
    /// The file of a release that is a single file, as it is.
    #[serde(rename = "file")]
    File,
}

/// The size and hash of a bundle that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundled {
    /// Bytes of the bundle.
    pub bytes: u64,
    /// BLAKE3 of the bundle.
    pub hash: blake3::Hash,
}

impl Bundle {
    /// Writes a release to `out`, front to back, and tells the monitor how far it is: in bytes of the tar that is
    /// compressed, or of the zip.
    ///
    /// # Errors
    /// The release cannot be read or does not fit the format, `out` fails, or `cancelled` is set; what was written is then a
    /// part, to be thrown away.
    pub fn write(
        self,
        root: &Root,
        source: &dyn ChunkSource,
        options: &StreamOptions,
        (cancelled, monitor): (&AtomicBool, &dyn Monitor),
        out: &mut dyn Write,
    ) -> Result<Bundled, restore::Error> {
        let mut counted = Counted { out, bytes: 0, hasher: blake3::Hasher::new() };
        let written = self.stream(root, source, options, (cancelled, monitor), &mut counted);
        if cancelled.load(Ordering::Relaxed) {
            return Err(restore::Error::Cancelled);
        }
        written?;
        counted.flush().map_err(restore::Error::OutputEnd)?;
        Ok(Bundled { bytes: counted.bytes, hash: counted.hasher.finalize() })
    }

    fn stream(
        self,
        root: &Root,
        source: &dyn ChunkSource,
        options: &StreamOptions,
        (cancelled, monitor): (&AtomicBool, &dyn Monitor),
        out: &mut dyn Write,
    ) -> Result<(), restore::Error> {
        let end = restore::Error::OutputEnd;
        match self {
            Self::Tar => write_tar(root, source, options, &mut Stoppable { out, cancelled, monitor }),
            Self::TarGz => {
                let encoder = flate2::GzBuilder::new().write(out, flate2::Compression::default());
                let mut out = Stoppable { out: encoder, cancelled, monitor };
                write_tar(root, source, options, &mut out)?;
                out.out.finish().map(drop).map_err(end)
            }
            Self::TarZst => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(end)?;
                encoder.include_checksum(true).map_err(end)?;
                let mut out = Stoppable { out: encoder, cancelled, monitor };
                write_tar(root, source, options, &mut out)?;
                out.out.finish().map(drop).map_err(end)
            }
            Self::Zip => write_zip(root, source, options, &mut Stoppable { out, cancelled, monitor }),
            Self::File => {
                write_file(root, source, None, &mut Stoppable { out, cancelled, monitor }).map(drop)
            }
        }
    }
}

/// Fills the placeholders of a bundle's name or address.
pub fn name(template: &str, app: &str, release: &str, label: &str) -> String {
    template.replace("{app}", app).replace("{release}", release).replace("{label}", label)
}

/// The word of a configuration, which is the end of a file's name, too.
impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
            Self::Zip => "zip",
            Self::File => "file",
        })
    }
}

/// Passes on bytes until it is cancelled, and tells how many.
struct Stoppable<'a, W> {
    out: W,
    cancelled: &'a AtomicBool,
    monitor: &'a dyn Monitor,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let written = self.out.write(bytes)?;
        self.monitor.advance(Phase::Transfer, written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Counts and hashes what it passes on.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::restore::{Entry, MemorySource, noise, one_of_each, read_tree, sorted};
    use format::manifest::{EntryPath, Shape};
    use ground::faults::{Fault, Faulty as _};
    use ground::monitor::{Counter, Silent};

    const ALL: [Bundle; 5] = [Bundle::Tar, Bundle::TarGz, Bundle::TarZst, Bundle::Zip, Bundle::File];

    fn release(shape: Shape) -> (Root, MemorySource) {
        match shape {
            Shape::File => MemorySource::of(shape, &[Entry::file("app", 0o755, noise(4, 3_000_000))]),
            Shape::Tree => {
                // A zip archive does not hold all names.
                let is_text = |entry: &Entry| std::str::from_utf8(entry.path().as_bytes()).is_ok();
                let entries: Vec<Entry> = one_of_each().into_iter().filter(is_text).collect();
                MemorySource::of(shape, &entries)
            }
        }
    }

    fn bundle(format: Bundle, options: &StreamOptions) -> (Vec<u8>, Bundled) {
        let (root, source) = release(if format == Bundle::File { Shape::File } else { Shape::Tree });
        let (mut out, never) = (Vec::new(), AtomicBool::new(false));
        let bundled =
            format.write(&root, &source, options, (&never, &Silent), &mut out).expect("an honest release");
        (out, bundled)
    }

    #[test]
    fn the_size_and_hash_are_the_bundles_and_it_is_the_same_each_time() {
        for format in ALL {
            let (bytes, bundled) = bundle(format, &StreamOptions::default());
            assert_eq!(
                bundled,
                Bundled { bytes: bytes.len() as u64, hash: blake3::hash(&bytes) },
                "{format}"
            );
            assert!(bundle(format, &StreamOptions::default()).0 == bytes, "{format}");
        }
    }

    #[test]
    fn compressed_tars_hold_the_tar_and_a_file_is_itself() {
        let of = |format| bundle(format, &StreamOptions::default()).0;
        let tar = of(Bundle::Tar);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(Cursor::new(of(Bundle::TarGz))).read_to_end(&mut plain).expect("gzip");
        assert!(plain == tar);
        assert!(zstd::decode_all(Cursor::new(of(Bundle::TarZst))).expect("zstd") == tar);
        assert!(of(Bundle::File) == noise(4, 3_000_000));
    }

    #[test]
    fn all_of_a_tar_lies_below_the_prefix_with_its_time() {
        let prefix = EntryPath::new("web-1").expect("a plain path");
        let options = StreamOptions { prefix: Some(prefix), time: 1_700_000_000, ..StreamOptions::default() };
        let (archive, _) = bundle(Bundle::Tar, &options);
        let mut reader = tar::Archive::new(archive.as_slice());
        for entry in reader.entries().expect("an archive") {
            let entry = entry.expect("an entry");
            assert!(entry.path_bytes().starts_with(b"web-1/"));
            assert_eq!(entry.header().mtime().expect("a time"), 1_700_000_000);
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut tar = Command::new("tar");
        tar.args(["-x", "-p", "--no-same-owner", "-f", "-", "-C"]).arg(folder.path()).stdin(Stdio::piped());
        let mut tar = tar.spawn().expect("tar is installed wherever this is built");
        tar.stdin.take().expect("a pipe").write_all(&archive).expect("taken");
        assert!(tar.wait().expect("it ends").success());
        let is_text = |entry: &Entry| std::str::from_utf8(entry.path().as_bytes()).is_ok();
        let entries: Vec<Entry> = one_of_each().into_iter().filter(is_text).collect();
        assert_eq!(read_tree(&folder.path().join("web-1")), sorted(&entries));
    }

    #[test]
    fn a_cancelled_bundle_and_one_that_nobody_takes_end_with_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in ALL {
            let (root, source) = release(if format == Bundle::File { Shape::File } else { Shape::Tree });
            let options = StreamOptions::default();
            let write = |cancelled: bool, out: &mut dyn Write| {
                let cancelled = AtomicBool::new(cancelled);
                format
                    .write(&root, &source, &options, (&cancelled, &Silent), out)
                    .expect_err("it cannot be written")
            };
            assert_eq!(write(true, &mut Vec::new()).fault(), Fault::Interrupted, "{format}");
            assert_eq!(write(false, &mut Full).fault(), Fault::Full, "{format}");
        }
    }

    #[test]
    fn a_bundle_tells_how_far_it_is_while_it_is_written() {
        for format in ALL {
            let (root, source) = release(if format == Bundle::File { Shape::File } else { Shape::Tree });
            let (told, never) = (Counter::default(), AtomicBool::new(false));
            let options = StreamOptions::default();
            let written = format.write(&root, &source, &options, (&never, &told), &mut io::sink());
            let bytes = written.expect("an honest release").bytes;
            let least = match format {
                Bundle::Zip => bytes,
                _ => root.totals.bytes,
            };
            assert!(told.bytes() >= least, "{format}: {} of {least}", told.bytes());
        }
    }

    #[test]
    fn a_tree_is_no_single_file() {
        let (root, source) = release(Shape::Tree);
        let (options, never) = (StreamOptions::default(), AtomicBool::new(false));
        let error = Bundle::File.write(&root, &source, &options, (&never, &Silent), &mut io::sink());
        assert!(matches!(error, Err(restore::Error::Unnamed(_))));
    }
}
