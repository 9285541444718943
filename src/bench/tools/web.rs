//! A web server for one folder on loopback: GET, byte ranges, and a count of what crossed.
//!
//! For the tools of `fetch` alone: it trusts them, serves plain names, and knows no more of HTTP/1.1
//! (RFC 9110, 9112) than they ask for.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::error::Result;
use disk::files::OnPath;
use ground::poison::Unpoisoned as _;

/// More than any request of the measured tools.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// The boundary between the parts of an answer to several ranges.
const BOUNDARY: &str = "whit-bench-part";

/// The traffic of the server's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent, headers included.
    pub out_bytes: u64,
    /// Bytes received.
    pub in_bytes: u64,
    /// Connections with a request.
    pub connections: u32,
    /// Requests.
    pub requests: u32,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    folder: PathBuf,
    stopped: AtomicBool,
    out_bytes: AtomicU64,
    in_bytes: AtomicU64,
    connections: AtomicU32,
    requests: AtomicU32,
    open: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Serves the files of a folder on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start(folder: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).on("serve", folder)?;
        let address = listener.local_addr().on("serve", folder)?;
        let shared = Arc::new(Shared { folder: folder.to_owned(), ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || accept(&listener, &of_thread)));
        Ok(Self { address, shared, thread })
    }

    /// Returns the address of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Stops the server; returns the traffic.
    pub fn stop(mut self) -> Traffic {
        self.end();
        let shared = &self.shared;
        Traffic {
            out_bytes: shared.out_bytes.load(Relaxed),
            in_bytes: shared.in_bytes.load(Relaxed),
            connections: shared.connections.load(Relaxed),
            requests: shared.requests.load(Relaxed),
        }
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopped.store(true, Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        for stream in self.shared.open.lock().unpoisoned().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        drop(thread.join());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for stream in listener.incoming().flatten() {
        if shared.stopped.load(Relaxed) {
            break;
        }
        if let Ok(second) = stream.try_clone() {
            shared.open.lock().unpoisoned().push(second);
        }
        let shared = Arc::clone(shared);
        // A client that leaves ends only its connection.
        threads.push(std::thread::spawn(move || drop(converse(&stream, &shared))));
    }
    for thread in threads {
        drop(thread.join());
    }
}

/// Answers one request after the other, until the client leaves.
fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let mut is_first = true;
    loop {
        let head = read_head(&mut input)?;
        let Some(Request { name, ranges, is_last }) = parse(&head) else { return Ok(()) };
        shared.connections.fetch_add(u32::from(std::mem::take(&mut is_first)), Relaxed);
        shared.requests.fetch_add(1, Relaxed);
        shared.in_bytes.fetch_add(head.len() as u64, Relaxed);
        let sent = answer(stream, &shared.folder.join(name), &ranges)?;
        shared.out_bytes.fetch_add(sent, Relaxed);
        if is_last {
            // The other handle, by which `end` closes open connections, would keep this one open.
            return stream.shutdown(Shutdown::Both);
        }
    }
}

/// Returns the lines of a request up to the empty one.
fn read_head(input: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    let mut input = input.take(HEAD_BYTES_MAX);
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head)? == 0 {
            return Ok(String::new());
        }
    }
    Ok(head)
}

/// A request.
struct Request<'a> {
    /// The file's name.
    name: &'a str,
    /// The first and the last byte of each; empty for the whole file.
    ranges: Vec<(u64, u64)>,
    /// True if the client waits for the connection's end after the answer.
    is_last: bool,
}

fn parse(head: &str) -> Option<Request<'_>> {
    let mut lines = head.lines();
    let mut words = lines.next()?.strip_prefix("GET ")?.split(' ');
    // Some clients send the whole address, as to a proxy.
    let name = words.next()?.rsplit('/').next().filter(|name| !name.is_empty() && *name != "..")?;
    let mut is_last = words.next() == Some("HTTP/1.0");
    let mut ranges = Vec::new();
    for line in lines {
        let Some((field, value)) = line.split_once(':') else { continue };
        if field.eq_ignore_ascii_case("connection") {
            is_last = !value.trim().eq_ignore_ascii_case("keep-alive");
        } else if field.eq_ignore_ascii_case("range") {
            for range in value.trim().strip_prefix("bytes=")?.split(',') {
                let (first, last) = range.trim().split_once('-')?;
                ranges.push((first.parse().ok()?, last.parse().unwrap_or(u64::MAX)));
            }
        }
    }
    Some(Request { name, ranges, is_last })
}

/// Sends a file or parts of it; returns the bytes sent.
fn answer(stream: &TcpStream, path: &Path, ranges: &[(u64, u64)]) -> io::Result<u64> {
    let mut output = Counted { stream, bytes: 0 };
    let Ok(mut file) = File::open(path) else {
        output.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(output.bytes);
    };
    let length = file.metadata()?.len();
    let ranges: Vec<(u64, u64)> = ranges
        .iter()
        .map(|(first, last)| (*first, (*last).min(length.saturating_sub(1))))
        .filter(|(first, last)| first <= last && length > 0)
        .collect();
    match ranges.as_slice() {
        [] => {
            let head = format!("HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n");
            output.write_all(head.as_bytes())?;
            io::copy(&mut file, &mut output)?;
        }
        [(first, last)] => {
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{length}\r\n\
                 Content-Length: {}\r\n\r\n",
                last - first + 1
            );
            output.write_all(head.as_bytes())?;
            copy_range(&mut file, &mut output, (*first, *last))?;
        }
        several => {
            let part = |(first, last): &(u64, u64)| {
                format!("\r\n--{BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{length}\r\n\r\n")
            };
            let end = format!("\r\n--{BOUNDARY}--\r\n");
            let of = |range: &(u64, u64)| part(range).len() as u64 + range.1 - range.0 + 1;
            let total = several.iter().map(of).sum::<u64>() + end.len() as u64;
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary={BOUNDARY}\r\n\
                 Content-Length: {total}\r\n\r\n"
            );
            output.write_all(head.as_bytes())?;
            for range in several {
                output.write_all(part(range).as_bytes())?;
                copy_range(&mut file, &mut output, *range)?;
            }
            output.write_all(end.as_bytes())?;
        }
    }
    Ok(output.bytes)
}

fn copy_range(file: &mut File, output: &mut Counted<'_>, (first, last): (u64, u64)) -> io::Result<()> {
    file.seek(SeekFrom::Start(first))?;
    io::copy(&mut file.take(last - first + 1), output).map(drop)
}

/// A socket that counts what is written to it.
struct Counted<'a> {
    stream: &'a TcpStream,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::Server;

    #[test]
    fn files_and_ranges_are_served_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("digits"), "0123456789").expect("written");
        let server = Server::start(folder.path()).expect("a port");
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        let questions = "GET /digits HTTP/1.1\r\n\r\nGET /digits HTTP/1.1\r\nRange: bytes=2-4\r\n\r\n\
                         GET /digits HTTP/1.1\r\nrange: bytes=0-0, 8-99\r\n\r\nGET /none HTTP/1.1\r\nConnection: close\r\n\r\n";
        stream.write_all(questions.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        assert!(answer.contains("\r\n\r\n0123456789HTTP/1.1 206"), "{answer}");
        assert!(
            answer.contains("Content-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\n234HTTP"),
            "{answer}"
        );
        assert!(
            answer.contains("bytes 0-0/10\r\n\r\n0\r\n--") && answer.contains("bytes 8-9/10\r\n\r\n89\r\n--")
        );
        assert!(answer.ends_with("404 Not Found\r\nContent-Length: 0\r\n\r\n"), "{answer}");
        let traffic = server.stop();
        assert_eq!((traffic.out_bytes, traffic.in_bytes), (answer.len() as u64, questions.len() as u64));
        assert_eq!((traffic.connections, traffic.requests), (1, 4));
    }
}
