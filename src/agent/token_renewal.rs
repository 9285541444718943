//! Reads a token's file again during a conversation, so that a newer token takes over.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::net::blocking;
use disk::files;
use protocol::token::claimed;

/// A longer file holds no token.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How often to read the file, which is small: well below the lifetime of any token.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Returns the token in a file if it differs from `current` and is of the same user and space.
///
/// Returns none for a file that is gone or half written.
fn renewed(file: &Path, current: &str) -> Option<String> {
    let bytes = files::read_bounded(file, FILE_BYTES_MAX).ok()?;
    let text = String::from_utf8(bytes).ok()?.trim().to_owned();
    let (new, old) = (claimed(&text)?, claimed(current)?);
    (text != current && (new.user, new.space) == (old.user, old.space)).then_some(text)
}

/// Sends new tokens as they come, until nobody receives them; none without a file.
pub(super) fn watch(file: Option<&Path>, current: &str) -> mpsc::Receiver<String> {
    let (tokens, new) = mpsc::channel(1);
    let Some(file) = file.map(Path::to_owned) else { return new };
    let mut current = current.to_owned();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokens.closed() => break,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (file, before) = (file.clone(), current.clone());
            let Ok(looked) = blocking::start(move || renewed(&file, &before)).await else { continue };
            if let Some(token) = looked {
                current.clone_from(&token);
                if tokens.send(token).await.is_err() {
                    break;
                }
            }
        }
    });
    new
}

/// Returns the token to begin a request with: the file's if it may replace `current`, else `current`.
pub(super) async fn latest(file: Option<&Path>, current: &str) -> String {
    let Some(file) = file.map(Path::to_owned) else { return current.to_owned() };
    let before = current.to_owned();
    let looked = blocking::start(move || renewed(&file, &before)).await;
    looked.ok().flatten().unwrap_or_else(|| current.to_owned())
}
