//! Tries a service: writes, reads and removes an object of its own.

use std::sync::atomic::AtomicBool;

use super::super::{Check, Error};
use super::options::Options;
use super::service::{Content, Object, Service, Source};

/// Writes an object with a name that no release has, finds it, reads it, and removes it.
pub fn check(service: &dyn Service, options: &Options, prefix: &str, cancelled: &AtomicBool) -> Vec<Check> {
    let random = u64::from_le_bytes(
        *blake3::hash(format!("{:?}", std::time::Instant::now()).as_bytes())
            .as_bytes()
            .first_chunk()
            .expect("32 bytes"),
    );
    let key = format!("{prefix}.whit-check-{random:016x}");
    let text = b"whit tries whether it can write here".as_slice();
    let metadata = options.metadata_of("check.txt");
    let object = Object { key: &key, size: Some(text.len() as u64), metadata: &metadata };
    let mut content = Content::unsent(Source::Bytes(text), cancelled);
    let mut checks = Vec::new();
    let mut step = |name: &str, result: Result<(), &Error>| {
        checks.push(Check::of(&format!("{name} {}", service.describe(&key)), result));
    };
    let unverified = Error::Unverified(service.describe(&key));
    let stored = service.put(&object, &mut content);
    step("write", stored.as_ref().map(drop));
    if let Ok(stored) = stored {
        let found = service.verify(&object, &stored, &mut content);
        step("find", found.as_ref().map_or_else(Err, |found| found.then_some(()).ok_or(&unverified)));
        let read = service.read(&key, 0, u32::try_from(text.len()).expect("short"));
        let is_same = |read: &Vec<u8>| if read == text { Ok(()) } else { Err(&unverified) };
        step("read", read.as_ref().map_or_else(Err, is_same));
        let deleted = service.delete(&key);
        step("remove", deleted.as_ref().copied());
    }
    checks
}
