//! One file after another by PUT and DELETE, as `WebDAV` servers take them (RFC 4918; nginx's `dav_methods`).

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, RANGE,
};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use tokio::sync::mpsc;

use super::super::Error;
use super::super::objects::{Content, Metadata, Object, Service, Stored};
use super::super::web::{Client, received};
use super::Verify;
use ground::faults::Fault;
use ground::poison::Unpoisoned as _;

/// Files up to this size are sent from memory.
const WHOLE_BYTES_MAX: u64 = 1024 * 1024;
/// Pieces of a larger file that wait to be sent.
const PIECES_AHEAD: usize = 4;

/// The files below one address.
pub(super) struct WebDav<'a> {
    client: &'a Client,
    base: String,
    cancelled: &'a AtomicBool,
    verify: Verify,
    /// How a file is sent.
    method: Method,
    /// Addresses of collections that are there.
    made: Mutex<HashSet<String>>,
}

impl<'a> WebDav<'a> {
    /// Takes the address of all files, which ends with a slash.
    pub fn new(client: &'a Client, base: String, cancelled: &'a AtomicBool, verify: Verify) -> Self {
        Self { client, base, cancelled, verify, method: Method::PUT, made: Mutex::default() }
    }

    /// Sends by POST instead of PUT.
    pub fn posting(self) -> Self {
        Self { method: Method::POST, ..self }
    }

    /// Returns a key's address: each byte that is not plain is written `%XX`, so that no name is taken for another.
    fn url(&self, key: &str) -> String {
        let mut url = self.base.clone();
        for byte in key.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push('%');
                url.push_str(&hex(byte));
            }
        }
        url
    }

    fn head(&self, key: &str) -> Result<Option<Response>, Error> {
        let what = format!("HEAD {}", self.describe(key));
        let request = self.client.request(Method::HEAD, &self.url(key));
        let response = self.client.answer(&what, request, self.cancelled)?;
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            _ if status.is_success() => Ok(Some(response)),
            _ => {
                // An answer to HEAD has no words: one to GET may say why.
                let request = self.client.request(Method::GET, &self.url(key)).header(RANGE, "bytes=0-0");
                let said = self.client.answer(&what, request, self.cancelled)?;
                let refusal = if said.status() == status { said } else { response };
                self.client.success(&what, refusal, self.cancelled).map(Some)
            }
        }
    }

    /// Sends a file once.
    fn put_once(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<(Response, u64), Error> {
        let what = format!("{} {}", self.method, self.describe(object.key));
        let mut request = self.client.request(self.method.clone(), &self.url(object.key));
        request = with_metadata(request, object.metadata);
        if let Some(size) = object.size {
            request = request.header(CONTENT_LENGTH, size);
        }
        if object.size.is_some_and(|size| size <= WHOLE_BYTES_MAX) {
            let bytes = content.bytes()?;
            let sent = bytes.len() as u64;
            return Ok((self.client.answer(&what, request.body(bytes), self.cancelled)?, sent));
        }
        let (mut sent, mut held, mut is_answered) = (0, None, false);
        let told = content.sent;
        let (pieces_in, pieces) = mpsc::channel::<Bytes>(PIECES_AHEAD);
        let stream = futures_util::stream::unfold(pieces, |mut pieces| async move {
            pieces.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), pieces))
        });
        let request = request.body(Body::wrap_stream(stream));
        let sending = self.client.driver().start(async move { request.send().await })?;
        let mut pass = |piece: Bytes| {
            // A server that says no early stops listening: its answer says why.
            is_answered = sending.is_finished();
            if is_answered { Err(Error::Cancelled) } else { self.pass(&what, &pieces_in, piece) }
        };
        // The last piece waits until all was read and verified: a part is never taken for the whole.
        let read = content.read(&mut |piece| {
            sent += piece.len() as u64;
            told(piece.len() as u64);
            held.replace(Bytes::copy_from_slice(piece)).map_or(Ok(()), &mut pass)
        });
        let read = read.and_then(|()| held.take().map_or(Ok(()), &mut pass));
        if let Err(error) = read
            && !is_answered
        {
            sending.abort();
            let never = AtomicBool::new(false);
            // The body must not end before the request has.
            let ended = self.client.driver().run(&never, async { Ok(sending.await) })?;
            drop(ended);
            return Err(error);
        }
        drop(pieces_in);
        let timeout = self.client.timeout;
        let answer = self.client.driver().run(self.cancelled, async {
            let answered = tokio::time::timeout(timeout, sending).await;
            match answered.map(|joined| joined.map_err(|_| Error::Cancelled)) {
                Ok(joined) => received(&what, Ok(joined?)),
                Err(elapsed) => received(&what, Err(elapsed)),
            }
        })?;
        Ok((answer, sent))
    }

    /// Passes a piece to a request under way, which must take it within the client's time.
    fn pass(&self, what: &str, pieces: &mpsc::Sender<Bytes>, piece: Bytes) -> Result<(), Error> {
        self.client.driver().run(self.cancelled, async {
            match tokio::time::timeout(self.client.timeout, pieces.send(piece)).await {
                // One that has ended says why by its answer.
                Ok(_) => Ok(()),
                Err(_) => Err(Error::Service {
                    what: what.to_owned(),
                    reason: "the server takes no more bytes".to_owned(),
                    fault: Fault::Retry,
                    retry_after: None,
                }),
            }
        })
    }

    /// Makes the collections above a file, those of the address included. Servers that make them by themselves are never asked to.
    fn make_parents(&self, key: &str) -> Result<(), Error> {
        let url = self.url(key);
        let host = url.find("://").map_or(0, |at| at + 3);
        let top = url[host..].find('/').map_or(url.len(), |at| host + at + 1);
        // One at a time: nobody may write into a collection that another thread is about to make.
        let mut made = self.made.lock().unpoisoned();
        for (end, _) in url.match_indices('/').filter(|(end, _)| *end >= top) {
            let folder = &url[..=end];
            if made.contains(folder) {
                continue;
            }
            let what = format!("MKCOL {}", ground::escape::text(folder));
            let method = Method::from_bytes(b"MKCOL").expect("a token");
            let response = self.client.answer(&what, self.client.request(method, folder), self.cancelled)?;
            // 405: it is there already (RFC 4918, section 9.3.1).
            if response.status() != StatusCode::METHOD_NOT_ALLOWED {
                self.client.success(&what, response, self.cancelled)?;
            }
            made.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Returns whether the server's file has the content.
    fn same_content(&self, key: &str, content: &mut Content<'_, '_>) -> Result<bool, Error> {
        let (mut hasher, mut left) = (blake3::Hasher::new(), 0);
        content.read(&mut |piece| {
            hasher.update(piece);
            left += piece.len();
            Ok(())
        })?;
        let what = format!("GET {}", self.describe(key));
        let request = self.client.request(Method::GET, &self.url(key));
        let mut response = self.client.send(&what, request, self.cancelled)?;
        let mut found = blake3::Hasher::new();
        let timeout = self.client.timeout;
        self.client.driver().run(self.cancelled, async {
            while let Some(piece) = received(&what, tokio::time::timeout(timeout, response.chunk()).await)? {
                // A server that never ends is not read to its end.
                if piece.len() > left {
                    return Ok(false);
                }
                left -= piece.len();
                found.update(&piece);
            }
            Ok(found.finalize() == hasher.finalize())
        })
    }
}

impl Service for WebDav<'_> {
    fn describe(&self, key: &str) -> String {
        format!("{}{}", self.base, ground::escape::text(key))
    }

    fn refuses(&self, key: &str) -> Option<String> {
        key.contains('\0').then(|| "holds a NUL".to_owned())
    }

    fn put(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<Stored, Error> {
        let (mut response, mut bytes) = self.put_once(object, content)?;
        let is_homeless = matches!(response.status(), StatusCode::CONFLICT | StatusCode::NOT_FOUND);
        if is_homeless && self.method == Method::PUT {
            self.make_parents(object.key)?;
            (response, bytes) = self.put_once(object, content)?;
        }
        let what = format!("{} {}", self.method, self.describe(object.key));
        let response = self.client.success(&what, response, self.cancelled)?;
        Ok(Stored { tag: text(response.headers(), ETAG.as_str()), bytes })
    }

    fn has(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<bool, Error> {
        let Some(found) = self.head(object.key)? else { return Ok(false) };
        if object.size.zip(size(&found)).is_some_and(|(size, found)| size != found)
            || !has_metadata(found.headers(), object.metadata)
        {
            return Ok(false);
        }
        self.same_content(object.key, content)
    }

    fn verify(
        &self,
        object: &Object<'_>,
        stored: &Stored,
        content: &mut Content<'_, '_>,
    ) -> Result<bool, Error> {
        if self.method == Method::POST {
            // What a server makes of a form is its own matter.
            return Ok(true);
        }
        let Some(found) = self.head(object.key)? else { return Ok(false) };
        let tag = text(found.headers(), ETAG.as_str());
        let is_same = size(&found).is_none_or(|size| size == stored.bytes)
            && stored.tag.as_ref().zip(tag.as_ref()).is_none_or(|(stored, found)| stored == found);
        match self.verify {
            Verify::Size => Ok(is_same),
            Verify::Content => Ok(is_same && self.same_content(object.key, content)?),
        }
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        let what = format!("DELETE {}", self.describe(key));
        let response =
            self.client.answer(&what, self.client.request(Method::DELETE, &self.url(key)), self.cancelled)?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(()),
            _ => self.client.success(&what, response, self.cancelled).map(drop),
        }
    }

    fn read(&self, key: &str, offset: u64, bytes: u32) -> Result<Vec<u8>, Error> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let what = format!("GET {}", self.describe(key));
        let end = offset + u64::from(bytes) - 1;
        let request =
            self.client.request(Method::GET, &self.url(key)).header(RANGE, format!("bytes={offset}-{end}"));
        let mut response = self.client.send(&what, request, self.cancelled)?;
        // A server that knows no ranges sends all of it.
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        let (wanted, timeout) = (skip.saturating_add(bytes as usize), self.client.timeout);
        let mut found = Vec::new();
        self.client.driver().run(self.cancelled, async {
            while found.len() < wanted {
                match received(&what, tokio::time::timeout(timeout, response.chunk()).await)? {
                    Some(piece) => found.extend_from_slice(&piece),
                    None => break,
                }
            }
            Ok(())
        })?;
        let found = found.get(skip..wanted).map(<[u8]>::to_vec);
        found.ok_or_else(|| Error::Unverified(self.describe(key)))
    }

    fn requests(&self) -> u64 {
        self.client.requests()
    }
}

/// Two hexadecimal digits.
fn hex(byte: u8) -> String {
    format!("{byte:02X}")
}

fn with_metadata(request: RequestBuilder, metadata: &Metadata) -> RequestBuilder {
    let mut request = request.header(CONTENT_TYPE, &metadata.content_type);
    if let Some(value) = &metadata.cache_control {
        request = request.header(CACHE_CONTROL, value);
    }
    if let Some(value) = &metadata.content_encoding {
        request = request.header(CONTENT_ENCODING, value);
    }
    request
}

/// Returns whether an answer has the metadata that rules name.
fn has_metadata(headers: &HeaderMap, metadata: &Metadata) -> bool {
    let is = |name: &str, value: &str| text(headers, name).as_deref() == Some(value);
    (!metadata.is_type_ruled || is(CONTENT_TYPE.as_str(), &metadata.content_type))
        && metadata.cache_control.as_ref().is_none_or(|value| is(CACHE_CONTROL.as_str(), value))
        && metadata.content_encoding.as_ref().is_none_or(|value| is(CONTENT_ENCODING.as_str(), value))
}

/// The length that an answer to HEAD says.
fn size(response: &Response) -> Option<u64> {
    text(response.headers(), CONTENT_LENGTH.as_str())?.parse().ok()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
