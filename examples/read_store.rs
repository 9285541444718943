//! Writes one file of a release to standard output, out of a proxy's data folder on disk; the proxy must not run:
//!
//! ```sh
//! cargo run --example read_store -- DATA APP PATH
//! ```

use std::io::Write;
use std::path::Path;

use whit::{EntryPath, SpaceName};

/// Writes the file at `path` of what `release` means in the space `default`; returns its bytes, each of them verified.
pub(crate) fn read(
    data: &Path,
    release: &str,
    path: &str,
    out: &mut dyn Write,
) -> Result<u64, Box<dyn std::error::Error>> {
    let space: SpaceName = "default".parse()?;
    let path = EntryPath::new(path)?;
    Ok(whit::read_file(data, &space, &release.parse()?, Some(&path), out)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, release, path] = arguments.as_slice() else {
        return Err("usage: read_store DATA APP PATH".into());
    };
    read(Path::new(data), release, path, &mut std::io::stdout())?;
    Ok(())
}
