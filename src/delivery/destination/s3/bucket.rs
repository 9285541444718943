//! Objects in a bucket, by `object_store`: it signs, retries and cuts large objects into parts.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore as _, ObjectStoreExt as _, PutMultipartOptions, PutOptions,
};

use super::super::Error;
use super::super::objects::{Content, Listing, Metadata, Object, Service, Stored};
use super::connection::{Connection, failed};
use super::parts::Parts;
use ground::escape;

/// 8 MiB, as AWS's own tools: larger objects go in parts of this size.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// S3's limit of a key.
const KEY_BYTES_MAX: usize = 1024;
/// Objects that are listed at most: some 200 MB of memory.
const LISTED_MAX: usize = 1_000_000;
/// S3's limit of parts.
const PARTS_MAX: u64 = 10_000;
/// The user-defined metadata with the content's BLAKE3, by which it is known later without reading it.
const HASH: &str = "whit-blake3";

/// The objects of a bucket, until a flag is set.
pub(super) struct Bucket<'a> {
    connection: &'a Connection,
    cancelled: &'a AtomicBool,
}

impl<'a> Bucket<'a> {
    /// Ends requests once `cancelled` is set.
    pub fn new(connection: &'a Connection, cancelled: &'a AtomicBool) -> Self {
        Self { connection, cancelled }
    }

    fn run<T>(
        &self,
        (method, key): (&str, &str),
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        self.connection.driver.run(self.cancelled, async {
            request.await.map_err(|error| failed(format!("{method} {}", self.describe(key)), &error))
        })
    }

    fn path(key: &str) -> Result<Path, Error> {
        Path::parse(key).map_err(|_| Error::KeyName {
            path: escape::text(key),
            reason: "is not possible as a key".to_owned(),
        })
    }

    /// Returns the object's head, without its content; none if there is none.
    fn head(&self, key: &str) -> Result<Option<Head>, Error> {
        let path = Self::path(key)?;
        self.connection.driver.run(self.cancelled, async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            match self.connection.store.get_opts(&path, options).await {
                Ok(found) => Ok(Some(Head {
                    size: found.meta.size,
                    tag: found.meta.e_tag.clone(),
                    attributes: found.attributes.clone(),
                })),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(format!("HEAD {}", self.describe(key)), &error)),
            }
        })
    }

    /// Sends an object in parts, several at a time.
    fn put_parts(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<Stored, Error> {
        let path = Self::path(object.key)?;
        // A bundle is made anew each time that it is read.
        let hash = if object.size.is_some() { Some(hash_of(content)?) } else { None };
        let options = PutMultipartOptions {
            attributes: attributes(object.metadata, hash.as_ref()),
            ..Default::default()
        };
        let Connection { store, driver, turns, .. } = self.connection;
        let upload = self.run(("begin PUT", object.key), store.put_multipart_opts(&path, options))?;
        let failed = |error: &_| failed(format!("PUT {}", self.describe(object.key)), error);
        let mut parts = Parts::new(upload, (driver, self.cancelled), turns, content.sent, &failed);
        let mut part = Vec::with_capacity(PART_BYTES);
        let mut bytes = 0;
        let mut sent = content.read(&mut |piece| {
            bytes += piece.len() as u64;
            part.extend_from_slice(piece);
            if part.len() < PART_BYTES {
                return Ok(());
            }
            let rest = part.split_off(PART_BYTES);
            parts.put(std::mem::replace(&mut part, rest))
        });
        if sent.is_ok() && !part.is_empty() {
            sent = parts.put(part);
        }
        match sent.and_then(|()| parts.complete()) {
            Ok(stored) => Ok(Stored { tag: stored.e_tag, bytes }),
            Err(error) => {
                parts.abort();
                Err(error)
            }
        }
    }
}

struct Head {
    size: u64,
    tag: Option<String>,
    attributes: Attributes,
}

impl Service for Bucket<'_> {
    fn describe(&self, key: &str) -> String {
        format!("s3://{}/{}", self.connection.name, escape::text(key))
    }

    fn refuses(&self, key: &str) -> Option<String> {
        if key.len() > KEY_BYTES_MAX {
            return Some(format!("makes a key of {} bytes, at most {KEY_BYTES_MAX} are possible", key.len()));
        }
        Path::parse(key).is_err().then(|| "is not possible as a key".to_owned())
    }

    fn put(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<Stored, Error> {
        if object.size.is_some_and(|size| size > PARTS_MAX * PART_BYTES as u64) {
            let reason = format!("is of a file beyond {} GB", PARTS_MAX * PART_BYTES as u64 / 1_000_000_000);
            return Err(Error::KeyName { path: object.key.to_owned(), reason });
        }
        if object.size.is_none_or(|size| size > PART_BYTES as u64) {
            return self.put_parts(object, content);
        }
        let (path, bytes) = (Self::path(object.key)?, content.bytes()?);
        let attributes = attributes(object.metadata, Some(&blake3::hash(&bytes)));
        let size = bytes.len() as u64;
        let sum = hex(&Md5::digest(&bytes));
        let options = PutOptions { attributes, ..PutOptions::default() };
        let stored =
            self.run(("PUT", object.key), self.connection.store.put_opts(&path, bytes.into(), options))?;
        // The tag of an object that is not encrypted is its MD5: what arrived is what was sent.
        let is_other = stored.e_tag.as_deref().and_then(sum_of_tag).is_some_and(|found| found != sum);
        if is_other {
            Err(Error::Unverified(self.describe(object.key)))
        } else {
            Ok(Stored { tag: stored.e_tag, bytes: size })
        }
    }

    fn has(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<bool, Error> {
        let Some(head) = self.head(object.key)? else { return Ok(false) };
        if object.size.is_some_and(|size| head.size != size)
            || !has_metadata(&head.attributes, object.metadata)
        {
            return Ok(false);
        }
        if let Some(found) = head.attributes.get(&Attribute::Metadata(HASH.into())) {
            return Ok(found.as_ref() == hash_of(content)?.to_hex().as_str());
        }
        let Some(found) = head.tag.as_deref().and_then(sum_of_tag) else { return Ok(false) };
        let mut sum = Md5::new();
        content.read(&mut |piece| {
            sum.update(piece);
            Ok(())
        })?;
        Ok(found == hex(&sum.finalize()))
    }

    fn verify(
        &self,
        object: &Object<'_>,
        stored: &Stored,
        _content: &mut Content<'_, '_>,
    ) -> Result<bool, Error> {
        let Some(head) = self.head(object.key)? else { return Ok(false) };
        let is_same_tag =
            stored.tag.as_ref().zip(head.tag.as_ref()).is_none_or(|(stored, found)| stored == found);
        Ok(head.size == stored.bytes && is_same_tag)
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        let path = Self::path(key)?;
        self.connection.driver.run(self.cancelled, async {
            match self.connection.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(format!("DELETE {}", self.describe(key)), &error)),
            }
        })
    }

    fn lists(&self) -> bool {
        true
    }

    fn list(&self, prefix: &str) -> Result<Option<Listing>, Error> {
        let below = Self::path(prefix)?;
        self.connection.driver.run(self.cancelled, async {
            let (mut found, mut objects) = (Listing::new(), self.connection.store.list(Some(&below)));
            while let Some(object) = objects.next().await {
                let object = match object {
                    // Somebody's object has a name that is impossible here.
                    Err(object_store::Error::InvalidPath { .. }) => return Ok(None),
                    object => {
                        object.map_err(|error| failed(format!("LIST {}", self.describe(prefix)), &error))?
                    }
                };
                if found.len() == LISTED_MAX {
                    return Ok(None);
                }
                found.insert(object.location.to_string(), (object.size, object.e_tag));
            }
            Ok(Some(found))
        })
    }

    fn read(&self, key: &str, offset: u64, bytes: u32) -> Result<Vec<u8>, Error> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let path = Self::path(key)?;
        let range = offset..offset + u64::from(bytes);
        let found = self.run(("GET", key), self.connection.store.get_range(&path, range))?;
        let is_all = found.len() == bytes as usize;
        is_all.then(|| found.to_vec()).ok_or_else(|| Error::Unverified(self.describe(key)))
    }

    fn requests(&self) -> u64 {
        self.connection.requests.load(Ordering::Relaxed)
    }
}

fn hash_of(content: &mut Content<'_, '_>) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    content.read(&mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finalize())
}

fn attributes(metadata: &Metadata, hash: Option<&blake3::Hash>) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, metadata.content_type.clone().into());
    if let Some(value) = &metadata.cache_control {
        attributes.insert(Attribute::CacheControl, value.clone().into());
    }
    if let Some(value) = &metadata.content_encoding {
        attributes.insert(Attribute::ContentEncoding, value.clone().into());
    }
    if let Some(hash) = hash {
        attributes.insert(Attribute::Metadata(HASH.into()), hash.to_hex().to_string().into());
    }
    attributes
}

/// Returns whether an object has the metadata that rules name.
fn has_metadata(attributes: &Attributes, metadata: &Metadata) -> bool {
    let is =
        |attribute, value: &String| attributes.get(&attribute).is_some_and(|found| found.as_ref() == value);
    (!metadata.is_type_ruled || is(Attribute::ContentType, &metadata.content_type))
        && metadata.cache_control.as_ref().is_none_or(|value| is(Attribute::CacheControl, value))
        && metadata.content_encoding.as_ref().is_none_or(|value| is(Attribute::ContentEncoding, value))
}

/// Returns the MD5 that a tag is, in hexadecimal digits; none for the tag of an object that came in parts.
fn sum_of_tag(tag: &str) -> Option<&str> {
    let tag = tag.trim_matches('"');
    (tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(tag)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
