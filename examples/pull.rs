//! Makes a directory equal to an application's latest release, from a proxy elsewhere:
//!
//! ```sh
//! cargo run --example pull -- URL TOKEN APP DIRECTORY
//! ```
//!
//! APP may also be `APP@LABEL` or `APP@RELEASE`.

use std::path::Path;
use std::sync::Arc;

use whit::{Access, Faulty, PullOptions, Pulled, Silent};

/// Pulls what `release` means into `directory`, which must be new or made by a pull.
pub(crate) async fn pull(
    access: &Access,
    release: &str,
    directory: &Path,
) -> Result<Pulled, Box<dyn std::error::Error>> {
    let options =
        PullOptions { threads: std::thread::available_parallelism()?.get(), ..PullOptions::default() };
    let pulled = whit::pull(access, &release.parse()?, directory, options, Arc::new(Silent)).await;
    // An error says what its reader can do about it.
    pulled.map_err(|error| match error.hint() {
        Some(hint) => format!("{error} ({:?}); {hint}", error.fault()).into(),
        None => error.into(),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, release, directory] = arguments.as_slice() else {
        return Err("usage: pull URL TOKEN APP DIRECTORY".into());
    };
    let access = Access { url: url.parse()?, token: token.clone() };
    let pulled = pull(&access, release, Path::new(directory)).await?;
    println!("release {}: {} chunks fetched", pulled.release, pulled.fetched_chunks);
    Ok(())
}
