//! Pushes a directory and shows progress, against a proxy elsewhere:
//!
//! ```sh
//! cargo run --example push -- URL TOKEN APP DIRECTORY
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use whit::{Access, Monitor, Phase, PushOptions, Receipt};

/// Prints each phase, and each further megabyte of it. Called from many threads.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
}

impl Monitor for Progress {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.bytes.store(0, Ordering::Relaxed);
        println!("{phase:?}: {}", total.map_or("…".to_owned(), |total| format!("{total} B")));
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / 1_000_000 < (before + bytes) / 1_000_000 {
            println!("{phase:?}: {} MB", (before + bytes) / 1_000_000);
        }
    }

    fn note(&self, text: &str) {
        println!("note: {text}");
    }
}

/// Pushes `directory` as the next release of `app`.
pub(crate) async fn push(
    access: &Access,
    app: &str,
    directory: PathBuf,
) -> Result<Receipt, Box<dyn std::error::Error>> {
    let mut options = PushOptions::new(app.parse()?, directory);
    options.threads = std::thread::available_parallelism()?.get();
    // Labels, destinations, a rate and the state folder of a build host are fields of the options, too.
    Ok(whit::push(access, &options, Arc::new(Progress::default())).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, app, directory] = arguments.as_slice() else {
        return Err("usage: push URL TOKEN APP DIRECTORY".into());
    };
    let access = Access { url: url.parse()?, token: token.clone() };
    let receipt = push(&access, app, directory.into()).await?;
    println!("release {}: {} of {} B crossed", receipt.release, receipt.wire.up, receipt.bytes.logical);
    Ok(())
}
