//! `whit cat`.

use std::io::Write as _;

use clap::Args;

use super::access::AccessArgs;
use super::error::Error;
use super::output::Output;
use super::passing_release::{PassingRelease, check_plain};
use crate::delivery::destination::Destinations;
use crate::restore;
use format::manifest::EntryPath;
use ground::ids::Selector;

/// Write one file of a release to standard output.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// APP, APP@LABEL, APP@RELEASE or APP@latest; APP alone is its current release.
    release: Selector,
    /// The file's path in the release; not needed if the release is a single file.
    path: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit cat`.
pub async fn run(arguments: CatArgs, output: &Output) -> Result<(), Error> {
    check_plain(output)?;
    let path = match &arguments.path {
        Some(path) => Some(EntryPath::new(path.as_bytes()).map_err(restore::Error::from)?),
        None => None,
    };
    let open = arguments.access.open(output, Destinations::new()).await?;
    open.run(async |session| {
        let temporary = std::env::temp_dir();
        let release = PassingRelease::fetch(session, &arguments.release, &temporary, output).await?;
        let written = release.write(move |root, chunks| {
            restore::write_file(root, chunks, path.as_ref(), &mut std::io::stdout().lock())?;
            std::io::stdout().flush().map_err(Error::Output)
        });
        written.await
    })
    .await
}
