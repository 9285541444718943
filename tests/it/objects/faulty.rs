//! A server that misbehaves on purpose, and what a delivery makes of it.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ground::faults::Fault;
use whit::delivery::destination::{Definition, Destination};

use super::{deliver, fail, files, options, site};
use crate::world::{World, push_as, web, within};

/// One request: method, path, headers.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    /// Counts the requests of this method from 1.
    pub number: usize,
}

/// What to do with a request.
pub enum Do {
    /// What `WebDAV` says.
    Serve,
    /// Answer this status with these header lines, and keep nothing.
    Answer(&'static str),
    /// Close without an answer.
    Close,
    /// Never answer.
    Hang,
    /// Close in the middle of the body.
    Cut,
    /// What `WebDAV` says, but read the body slowly.
    Slow,
    /// Answer this status, and repeat the credentials.
    Repeat(&'static str),
}

type Rule = dyn Fn(&Asked) -> Do + Send + Sync;

/// A server of the test: files in memory, and a rule that may do something else.
pub struct Faulty {
    pub port: u16,
    pub files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub asked: Arc<Mutex<Vec<String>>>,
    rule: Arc<Mutex<Arc<Rule>>>,
}

impl Faulty {
    pub fn start(rule: impl Fn(&Asked) -> Do + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let files = Arc::<Mutex<BTreeMap<String, Vec<u8>>>>::default();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let rule: Arc<Mutex<Arc<Rule>>> = Arc::new(Mutex::new(Arc::new(rule)));
        let shared = (Arc::clone(&files), Arc::clone(&asked), Arc::clone(&rule));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, asked, rule) =
                    (Arc::clone(&shared.0), Arc::clone(&shared.1), Arc::clone(&shared.2));
                std::thread::spawn(move || serve(stream, &files, &asked, &rule));
            }
        });
        Self { port, files, asked, rule }
    }

    pub fn change(&self, rule: impl Fn(&Asked) -> Do + Send + Sync + 'static) {
        *self.rule.lock().expect("no panic") = Arc::new(rule);
    }

    pub fn destination(&self, more: &str) -> Arc<dyn Destination> {
        let text =
            format!("kind = 'http'\nurl = 'http://127.0.0.1:{}/{{app}}'\ntimeout = 2\n{more}", self.port);
        toml::from_str::<Definition>(&text).expect("a definition").open()
    }

    pub fn world(&self, more: &str) -> World {
        let destination = self.destination(more);
        World::start_with(|options| {
            options.destinations.insert(web(), destination);
        })
    }

    pub fn shown(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.files.lock().expect("no panic");
        files
            .iter()
            .map(|(path, bytes)| (path.trim_start_matches("/web/").to_owned(), bytes.clone()))
            .collect()
    }

    pub fn count(&self, method: &str) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|line| line.starts_with(method)).count()
    }
}

fn serve(
    stream: TcpStream,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    asked: &Mutex<Vec<String>>,
    rule: &Mutex<Arc<Rule>>,
) {
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        let number = {
            let mut asked = asked.lock().expect("no panic");
            asked.push(format!("{method} {path}"));
            asked.iter().filter(|line| line.starts_with(&format!("{method} "))).count()
        };
        let path = path.split('?').next().unwrap_or_default().to_owned();
        let request = Asked { method, path, headers, number };
        let rule = Arc::clone(&rule.lock().expect("no panic"));
        let action = rule(&request);
        if matches!(action, Do::Cut) {
            drop(reader.read_exact(&mut vec![0; 64 * 1024]));
            return;
        }
        let Some(body) = body(&mut reader, &request, matches!(action, Do::Slow)) else { return };
        let answer = match action {
            Do::Serve | Do::Slow => answer(&request, body, files),
            Do::Answer(head) => (head.to_owned(), Vec::new()),
            Do::Repeat(head) => {
                let credentials = request.headers.get("authorization").cloned().unwrap_or_default();
                (head.to_owned(), format!("you sent {credentials}").into_bytes())
            }
            Do::Cut => unreachable!("it was closed"),
            Do::Close => return,
            Do::Hang => {
                std::thread::sleep(Duration::from_secs(30));
                return;
            }
        };
        let length = answer.1.len();
        let head = format!("HTTP/1.1 {}\r\nContent-Length: {length}\r\n\r\n", answer.0);
        let body = if request.method == "HEAD" { &[][..] } else { &answer.1 };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() {
            return;
        }
    }
}

/// Reads a body, whose length is given or which comes in pieces (RFC 9112, section 7.1).
fn body(reader: &mut BufReader<TcpStream>, request: &Asked, slowly: bool) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if !request.headers.contains_key("transfer-encoding") {
        let length = request.headers.get("content-length").and_then(|length| length.parse().ok());
        let mut left: u64 = length.unwrap_or(0);
        while left > 0 {
            let some = left.min(1024 * 1024);
            (reader.by_ref().take(some).read_to_end(&mut body).ok()? as u64 == some).then_some(())?;
            left -= some;
            if slowly {
                std::thread::sleep(Duration::from_millis(120));
            }
        }
        return Some(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut piece = vec![0; length + 2];
        reader.read_exact(&mut piece).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&piece[..length]);
    }
}

fn answer(request: &Asked, body: Vec<u8>, files: &Mutex<BTreeMap<String, Vec<u8>>>) -> (String, Vec<u8>) {
    let mut files = files.lock().expect("no panic");
    let found = files.get(&request.path).cloned();
    match (request.method.as_str(), found) {
        ("PUT" | "POST", _) => {
            files.insert(request.path.clone(), body);
            ("201 Created".to_owned(), Vec::new())
        }
        ("DELETE", Some(_)) => {
            files.remove(&request.path);
            ("204 No Content".to_owned(), Vec::new())
        }
        (_, Some(found)) => ("200 OK".to_owned(), found),
        (_, None) => ("404 Not Found".to_owned(), Vec::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_the_request_and_the_status_and_never_a_secret() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "hunter2").expect("written");
    for (status, fault) in [
        ("401 Unauthorized", Fault::Denied),
        ("403 Forbidden", Fault::Denied),
        ("400 Bad Request", Fault::Input),
        ("507 Insufficient Storage", Fault::Full),
    ] {
        let server =
            Faulty::start(move |asked| if asked.method == "PUT" { Do::Answer(status) } else { Do::Serve });
        let world = server.world(&format!("token = {{ file = '{}' }}\n", secret.path().display()));
        site(&world.path("tree"));
        let (found, reason) = within(fail(&world)).await;
        assert_eq!(found, fault, "{reason}");
        assert!(
            reason.contains("PUT http://127.0.0.1:")
                && reason.contains(status)
                && !reason.contains("hunter2"),
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_sent_with_each_request() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "hunter2\n").expect("written");
    let shown = secret.path().display().to_string();
    for (keys, expected) in [
        (format!("token = {{ file = '{shown}' }}\n"), "Bearer hunter2"),
        (format!("user = 'me'\npassword = {{ file = '{shown}' }}\n"), "Basic bWU6aHVudGVyMg=="),
    ] {
        let server = Faulty::start(move |asked| {
            let is_known = asked.headers.get("authorization").is_some_and(|found| found == expected);
            if is_known { Do::Serve } else { Do::Answer("401 Unauthorized") }
        });
        let world = server.world(&keys);
        site(&world.path("tree"));
        within(deliver(&world)).await;
        assert_eq!(server.shown(), files(&world.path("tree")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_is_tried_again_and_only_the_rest_is_sent() {
    let server = Faulty::start(|asked| {
        if asked.method == "PUT" && asked.number == 20 {
            Do::Answer("500 Internal Server Error")
        } else {
            Do::Serve
        }
    });
    let world = server.world("parallel = 1\n");
    for number in 0..40 {
        crate::trees::write(&world.path("tree"), &format!("f{number:02}"), number.to_string());
    }
    within(deliver(&world)).await;
    assert_eq!(server.shown(), files(&world.path("tree")));
    // A second's work at most is compared again: what was written is not sent again.
    assert_eq!(server.count("PUT"), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_keeps_nothing_is_no_success() {
    let server =
        Faulty::start(|asked| if asked.method == "PUT" { Do::Answer("201 Created") } else { Do::Serve });
    let world = server.world("");
    site(&world.path("tree"));
    let (fault, reason) = within(fail(&world)).await;
    assert!(fault == Fault::Retry && reason.contains("is not there"), "{reason}");
    // Nor is one that somebody changed at once.
    server.change(|asked| match asked.method.as_str() {
        "HEAD" if !asked.path.ends_with("nothing") => Do::Answer("200 OK"),
        _ => Do::Serve,
    });
    let (fault, reason) = within(fail(&world)).await;
    assert!(fault == Fault::Retry && reason.contains("is not there"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_may_take_longer_than_the_time_without_a_byte() {
    let server = Faulty::start(|asked| if asked.method == "PUT" { Do::Slow } else { Do::Serve });
    let world = server.world("");
    crate::trees::write(&world.path("tree"), "large", crate::trees::noise(1, 30_000_000));
    within(deliver(&world)).await;
    assert_eq!((server.shown(), server.count("PUT")), (files(&world.path("tree")), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_refused_unless_they_are_allowed() {
    let rule = |asked: &Asked| {
        if asked.path.starts_with("/web/") && asked.method == "PUT" && !asked.path.contains("elsewhere") {
            Do::Answer("307 Temporary Redirect\r\nLocation: /elsewhere?token=secret")
        } else {
            Do::Serve
        }
    };
    let server = Faulty::start(rule);
    let world = server.world("");
    site(&world.path("tree"));
    let (fault, reason) = within(fail(&world)).await;
    assert!(
        fault == Fault::Input && reason.contains("`/elsewhere`") && !reason.contains("secret"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_closes_is_an_error_within_its_time() {
    for hangs in [true, false] {
        let server = Faulty::start(move |asked| match asked.method.as_str() {
            "PUT" if hangs => Do::Hang,
            "PUT" => Do::Close,
            _ => Do::Serve,
        });
        let world = server.world("");
        site(&world.path("tree"));
        let (fault, reason) = within(fail(&world)).await;
        assert_eq!(fault, Fault::Retry, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_a_cache_answers_or_that_shows_another_release_fails_the_delivery() {
    let server = Faulty::start(|_| Do::Serve);
    let probe = format!(
        "stamp = 'release.txt'\nprobe = 'http://127.0.0.1:{}/{{app}}/release.txt'\nprobe_seconds = 1\n",
        server.port
    );
    let world = server.world(&probe);
    site(&world.path("tree"));
    within(deliver(&world)).await;
    // From now on an old page is served, by a cache that says so.
    server.change(|asked| {
        if asked.method == "GET" && asked.path.ends_with("release.txt") {
            Do::Answer("200 OK\r\nAge: 5")
        } else {
            Do::Serve
        }
    });
    crate::trees::write(&world.path("tree"), "new", "new");
    std::fs::remove_file(world.path("tree/app.1.js")).expect("removed");
    let (fault, reason) = within(fail(&world)).await;
    assert!(fault == Fault::Retry && reason.contains("a cache answered"), "{reason}");
    assert!(server.shown().contains_key("app.1.js"), "nothing is deleted before the probe succeeds");
    // One that does not say so shows itself by what it serves.
    server.change(|asked| {
        if asked.method == "GET" && asked.path.ends_with("release.txt") {
            Do::Answer("200 OK")
        } else {
            Do::Serve
        }
    });
    let (fault, reason) = within(fail(&world)).await;
    assert!(fault == Fault::Retry && reason.contains("does not hold"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_delivery_left_is_removed_by_the_next_and_what_was_there_before_is_not() {
    let server = Faulty::start(|asked| {
        if asked.method == "PUT" && asked.path.ends_with("zz") {
            Do::Answer("400 Bad Request")
        } else {
            Do::Serve
        }
    });
    let world = server.world("");
    let tree = world.path("tree");
    server.files.lock().expect("no panic").insert("/web/theirs".to_owned(), b"theirs".to_vec());
    site(&tree);
    within(deliver(&world)).await;
    for name in ["half", "zz"] {
        crate::trees::write(&tree, name, name);
    }
    within(fail(&world)).await;
    assert!(server.shown().contains_key("half"));
    for name in ["half", "zz"] {
        std::fs::remove_file(tree.join(name)).expect("removed");
    }
    crate::trees::write(&tree, "other", "other");
    let receipt = within(push_as(world.access(), &options(&world))).await.expect("pushed");
    assert!(!receipt.delivered.is_empty());
    let mut expected = files(&tree);
    expected.insert("theirs".to_owned(), b"theirs".to_vec());
    assert_eq!(server.shown(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_files_that_are_there_are_not_sent_again_for_metadata_that_the_server_keeps_to_itself()
 {
    let server = Faulty::start(|asked| {
        if asked.method == "PUT" && asked.path.ends_with("zz") {
            Do::Answer("400 Bad Request")
        } else {
            Do::Serve
        }
    });
    let world = server.world("[[metadata]]\nfiles = ['*.js']\ncache_control = 'max-age=60'\n");
    let tree = world.path("tree");
    site(&tree);
    within(deliver(&world)).await;
    crate::trees::write(&tree, "zz", "refused");
    within(fail(&world)).await;
    std::fs::remove_file(tree.join("zz")).expect("removed");
    crate::trees::write(&tree, "other", "other");
    let report = within(deliver(&world)).await;
    assert_eq!(report.sent_bytes, 5, "only the new file: {report:?}");
    assert_eq!(server.shown(), files(&tree));
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_made_where_a_server_makes_none_the_topmost_first() {
    let made: Arc<Mutex<Vec<String>>> = Arc::default();
    let known = Arc::clone(&made);
    let server = Faulty::start(move |asked| {
        let mut known = known.lock().expect("no panic");
        let above = |path: &str| {
            path.trim_end_matches('/')
                .rsplit_once('/')
                .map_or(String::new(), |(above, _)| format!("{above}/"))
        };
        let has = |known: &[String], folder: &str| folder == "/" || known.iter().any(|one| one == folder);
        match asked.method.as_str() {
            "MKCOL" if has(&known, &asked.path) => Do::Answer("405 Method Not Allowed"),
            "PUT" | "MKCOL" if !has(&known, &above(&asked.path)) => Do::Answer("409 Conflict"),
            "MKCOL" => {
                known.push(asked.path.clone());
                Do::Answer("201 Created")
            }
            _ => Do::Serve,
        }
    });
    let world = server.world("");
    let tree = world.path("tree");
    for number in 0..40 {
        crate::trees::write(&tree, &format!("a/b{}/c/f{number}", number % 3), number.to_string());
    }
    within(deliver(&world)).await;
    assert_eq!(server.shown(), files(&tree));
    assert_eq!(made.lock().expect("no panic").len(), 8, "web, a, and three times b and c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_reading_in_the_middle_of_a_file_is_an_error_within_its_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let connections = Arc::clone(&held);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // There is nothing, it says, and reads no further.
            let mut head = [0; 512];
            if stream.read(&mut head).is_ok_and(|_| head.starts_with(b"HEAD")) {
                drop(
                    stream.write_all(
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    ),
                );
            } else {
                connections.lock().expect("no panic").push(stream);
            }
        }
    });
    let text = format!("kind = 'http'\nurl = 'http://127.0.0.1:{port}/{{app}}'\ntimeout = 1\n");
    let destination = toml::from_str::<Definition>(&text).expect("a definition").open();
    let world = World::start_with(|options| {
        options.destinations.insert(web(), destination);
    });
    crate::trees::write(&world.path("tree"), "large", crate::trees::noise(1, 30_000_000));
    let (fault, reason) = within(fail(&world)).await;
    assert!(fault == Fault::Retry && reason.contains("takes no more bytes"), "{reason}");
}
