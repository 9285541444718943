//! Tries a service: writes, reads and removes an object of its own.

use std::sync::atomic::AtomicBool;

use super::super::{Check, Error};
use super::options::Options;
use super::service::{Content, Object, Service, Source};

/// Writes an object with a name that no release has, finds it, reads it, and removes it.
pub fn check(service: &dyn Service, options: &Options, prefix: &str) -> Vec<Check> {
    let random = u64::from_le_bytes(
        *blake3::hash(format!("{:?}", std::time::Instant::now()).as_bytes())
            .as_bytes()
            .first_chunk()
            .expect("32 bytes"),
    );
    let key = format!("{prefix}.whit-check-{random:016x}");
    let text = b"whit tries whether it can write here".as_slice();
    let (metadata, never) = (options.metadata_of("check.txt"), AtomicBool::new(false));
    let object = Object { key: &key, size: Some(text.len() as u64), metadata: &metadata };
    let mut content = Content { source: Source::Bytes(text), cancelled: &never };
    let mut checks = Vec::new();
    let mut step = |name: &str, result: Result<(), Error>| {
        checks.push(Check::of(&format!("{name} {}", service.describe(&key)), result.as_ref().map(|()| ())));
        result.is_ok()
    };
    let unverified = || Error::Unverified(service.describe(&key));
    let stored = service.put(&object, &mut content);
    let is_stored = step("write", stored.as_ref().map(|_| ()).map_err(|error| clone(error)));
    if let Ok(stored) = stored {
        let found = service.verify(&object, &stored, &mut content);
        step("find", found.and_then(|found| if found { Ok(()) } else { Err(unverified()) }));
        let read = service.read(&key, 0, u32::try_from(text.len()).expect("short"));
        step("read", if read.as_deref() == Some(text) { Ok(()) } else { Err(unverified()) });
    }
    if is_stored {
        step("remove", service.delete(&key));
    }
    checks
}

/// An error's text, to be shown again.
fn clone(error: &Error) -> Error {
    use ground::faults::Faulty as _;
    Error::Service {
        what: "put".to_owned(),
        reason: error.to_string(),
        fault: error.fault(),
        retry_after: None,
    }
}
