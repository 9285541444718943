//! Objects in a bucket, by `object_store`: it signs, retries and cuts large objects into parts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, GetOptions, ObjectStore as _, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, RetryConfig,
};

use super::super::Error;
use super::super::driver::Driver;
use super::super::objects::{Content, Listing, Metadata, Object, Service, Stored};
use super::answer::reason_of;
use super::{Keys, credentials};
use crate::net::link::use_our_cryptography;
use ground::escape;
use ground::faults::Fault;

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
/// The time that a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The time that one request may take: a part over a link of 1 Mbit/s.
const REQUEST_TIME: Duration = Duration::from_secs(120);
/// The time for which one request is tried again; the delivery is, after that.
const RETRY_TIME: Duration = Duration::from_secs(20);

/// A bucket.
pub(super) struct Bucket<'a> {
    store: AmazonS3,
    name: String,
    driver: &'a Driver,
    cancelled: &'a AtomicBool,
    requests: Arc<AtomicU64>,
}

impl<'a> Bucket<'a> {
    /// Finds the credentials.
    ///
    /// # Errors
    /// The definition names something that cannot be read, or the parts do not fit one another.
    pub fn open(keys: &Keys, driver: &'a Driver, cancelled: &'a AtomicBool) -> Result<Self, Error> {
        use_our_cryptography();
        let requests = Arc::new(AtomicU64::new(0));
        let options = ClientOptions::new().with_connect_timeout(CONNECT_TIME).with_timeout(REQUEST_TIME);
        let is_plain = keys.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: RETRY_TIME };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&keys.bucket)
            .with_client_options(options.with_allow_http(is_plain))
            .with_retry(retry)
            .with_http_connector(Counting { requests: Arc::clone(&requests) })
            .with_virtual_hosted_style_request(!keys.path_style.unwrap_or(keys.endpoint.is_some()));
        if let Some(endpoint) = &keys.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let store = credentials::apply(builder, keys)?.build();
        let store = store.map_err(|error| failed(format!("bucket {}", keys.bucket), &error))?;
        Ok(Self { store, name: keys.bucket.clone(), driver, cancelled, requests })
    }

    fn run<T>(
        &self,
        (method, key): (&str, &str),
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        self.driver.run(self.cancelled, async {
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
        self.driver.run(self.cancelled, async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            match self.store.get_opts(&path, options).await {
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

    /// Sends an object in parts, one after the other; several objects go at a time.
    fn put_parts(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<Stored, Error> {
        let path = Self::path(object.key)?;
        // A bundle is made anew each time that it is read.
        let hash = if object.size.is_some() { Some(hash_of(content)?) } else { None };
        let options = PutMultipartOptions {
            attributes: attributes(object.metadata, hash.as_ref()),
            ..Default::default()
        };
        let named = |method: &'static str| (method, object.key);
        let mut upload = self.run(named("begin PUT"), self.store.put_multipart_opts(&path, options))?;
        let mut part = Vec::with_capacity(PART_BYTES);
        let mut bytes = 0;
        let mut sent = content.read(&mut |piece| {
            bytes += piece.len() as u64;
            part.extend_from_slice(piece);
            if part.len() < PART_BYTES {
                return Ok(());
            }
            let rest = part.split_off(PART_BYTES);
            let full = std::mem::replace(&mut part, rest);
            self.run(named("PUT"), upload.put_part(full.into()))
        });
        if sent.is_ok() && !part.is_empty() {
            sent = self.run(named("PUT"), upload.put_part(part.into()));
        }
        let ended = sent.and_then(|()| self.run(named("end PUT"), upload.complete()));
        match ended {
            Ok(stored) => Ok(Stored { tag: stored.e_tag, bytes }),
            Err(error) => {
                // Parts of an upload that was not ended cost money.
                let never = AtomicBool::new(false);
                let aborted = self.driver.run(&never, async { Ok(upload.abort().await) });
                drop(aborted);
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
        format!("s3://{}/{}", self.name, escape::text(key))
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
        let stored = self.run(("PUT", object.key), self.store.put_opts(&path, bytes.into(), options))?;
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
        self.driver.run(self.cancelled, async {
            match self.store.delete(&path).await {
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
        self.driver.run(self.cancelled, async {
            let (mut found, mut objects) = (Listing::new(), self.store.list(Some(&below)));
            while let Some(object) = objects.next().await {
                let object =
                    object.map_err(|error| failed(format!("LIST {}", self.describe(prefix)), &error))?;
                if found.len() == LISTED_MAX {
                    return Ok(None);
                }
                found.insert(object.location.to_string(), (object.size, object.e_tag));
            }
            Ok(Some(found))
        })
    }

    fn read(&self, key: &str, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        if bytes == 0 {
            return Some(Vec::new());
        }
        let path = Self::path(key).ok()?;
        let range = offset..offset + u64::from(bytes);
        let found = self.run(("GET", key), self.store.get_range(&path, range)).ok()?;
        (found.len() == bytes as usize).then(|| found.to_vec())
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
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

fn failed(what: String, error: &object_store::Error) -> Error {
    let fault = match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Fault::Denied
        }
        object_store::Error::NotFound { .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. } => Fault::Input,
        _ => Fault::Retry,
    };
    let reason = reason_of(&error.to_string());
    Error::Service { what, reason, fault, retry_after: None }
}

/// Makes clients that count their requests, repeated ones too.
#[derive(Debug)]
struct Counting {
    requests: Arc<AtomicU64>,
}

impl HttpConnector for Counting {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Counted { inner, requests: Arc::clone(&self.requests) }))
    }
}

#[derive(Debug)]
struct Counted {
    inner: HttpClient,
    requests: Arc<AtomicU64>,
}

impl HttpService for Counted {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.inner.execute(request))
    }
}
