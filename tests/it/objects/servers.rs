//! Servers that releases are written to: nginx with `WebDAV`, and an S3 server within the test. `tests/crash` has them too.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3ServiceBuilder, SharedS3Service};

use crate::trees::walk_files;

/// The keys of the S3 server.
pub const SECRET_KEY: &str = "a secret key";

/// What the S3 server answers in place of what it should.
pub enum Trouble {
    /// This status, these headers and this body.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Nothing, ever.
    Hang,
}

/// Says what goes wrong with a request, `METHOD /path?query`, the so-many-th of its method.
type Rule = dyn Fn(&str, usize) -> Option<Trouble> + Send + Sync;

/// What the S3 server was asked, and what it does about it.
#[derive(Default)]
pub struct Troubled {
    asked: Mutex<Vec<String>>,
    rule: Mutex<Option<Arc<Rule>>>,
}

impl Troubled {
    fn next(&self, request: &Request<Incoming>) -> Option<Trouble> {
        let line = format!("{} {}", request.method(), request.uri());
        let number = {
            let mut asked = self.asked.lock().expect("no panic");
            asked.push(line.clone());
            let method = format!("{} ", request.method());
            asked.iter().filter(|asked| asked.starts_with(&method)).count()
        };
        let rule = self.rule.lock().expect("no panic").clone();
        rule.and_then(|rule| rule(&line, number))
    }
}

/// A server, and the folder in which it keeps what is written.
pub struct Server {
    /// The folder of the files that it shows.
    pub root: PathBuf,
    /// Its address, without a slash at its end.
    pub address: String,
    /// The lines of a definition that say where it is.
    pub keys: String,
    /// Its log, where it writes one.
    pub log: Option<PathBuf>,
    troubled: Arc<Troubled>,
    _running: Running,
}

enum Running {
    Nginx(Process),
    S3(Option<tokio::runtime::Runtime>),
}

/// A program that ends with the test.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            Self::Nginx(process) => drop(process.0.kill()),
            // It is dropped within the test's own runtime, where waiting is not allowed.
            Self::S3(runtime) => drop(runtime.take().map(tokio::runtime::Runtime::shutdown_background)),
        }
    }
}

impl Server {
    /// Returns what readers see, by path.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let name =
            |path: &Path| path.strip_prefix(&self.root).expect("below it").to_str().expect("text").to_owned();
        let files = if self.root.exists() { walk_files(&self.root) } else { Vec::new() };
        files.into_iter().map(|path| (name(&path), fs::read(&path).expect("a file"))).collect()
    }

    /// Returns the requests so far, as `METHOD /path`, those to an S3 server with their queries.
    pub fn requests(&self) -> Vec<String> {
        let log = self.log.as_ref().map(|log| fs::read_to_string(log).expect("a log"));
        let asked = self.troubled.asked.lock().expect("no panic").clone();
        log.map_or(asked, |log| log.lines().map(str::to_owned).collect())
    }

    /// Makes an S3 server do something else than it should, from now on.
    pub fn trouble(&self, rule: impl Fn(&str, usize) -> Option<Trouble> + Send + Sync + 'static) {
        *self.troubled.rule.lock().expect("no panic") = Some(Arc::new(rule));
    }
}

/// Starts nginx with `WebDAV` below `folder`; none where it is not installed.
pub fn nginx(folder: &Path) -> Option<Server> {
    nginx_with(folder, "http", "")
}

/// Starts nginx with `WebDAV` below `folder` and more lines about its `scheme`.
pub fn nginx_with(folder: &Path, scheme: &str, lines: &str) -> Option<Server> {
    let (root, log) = (folder.join("root"), folder.join("access.log"));
    fs::create_dir_all(&root).expect("a folder");
    let location = format!(
        "root {root}; dav_methods PUT DELETE MKCOL; create_full_put_path on; autoindex on; index no-index;",
        root = root.display()
    );
    let (process, port) = start_nginx(folder, scheme, lines, &location)?;
    let address = format!("{scheme}://127.0.0.1:{port}");
    let keys = format!("kind = \"http\"\nurl = \"{address}/{{app}}/\"\n");
    let (troubled, running) = (Arc::default(), Running::Nginx(process));
    Some(Server { root: root.join("web"), address, keys, log: Some(log), troubled, _running: running })
}

/// Starts nginx with one location. Returns its port.
pub fn start_nginx(folder: &Path, scheme: &str, lines: &str, location: &str) -> Option<(Process, u16)> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(program) = program else {
        println!("skipped: nginx is not installed");
        return None;
    };
    let port = free_port();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (shown, ssl) = (folder.display(), if scheme == "https" { " ssl" } else { "" });
    let conf = format!(
        "{user} worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ log_format whit '$request_method $uri'; access_log {shown}/access.log whit;\n\
         client_body_temp_path {shown}/body; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen 127.0.0.1:{port}{ssl}; client_max_body_size 0;\n{lines}\n\
         location / {{ {location} }} }} }}\n",
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, conf).expect("written");
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(&file).args(["-g", "daemon off; master_process off;"]);
    let process = Process(command.stderr(Stdio::null()).spawn().expect("nginx starts"));
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((process, port))
}

/// A port that was free a moment ago: nginx cannot be told to take any.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("it listens").port()
}

/// Starts an S3 server with a bucket `site` below `folder`.
pub fn s3(folder: &Path) -> Server {
    let bucket = folder.join("site");
    fs::create_dir_all(&bucket).expect("a folder");
    for (name, text) in [("id", "an-id"), ("secret", SECRET_KEY)] {
        fs::write(folder.with_extension(name), text).expect("written");
    }
    let files = s3s_fs::FileSystem::new(folder).expect("a folder");
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single("an-id", SECRET_KEY));
    let service = builder.build().into_shared();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("it listens").port();
    let troubled = Arc::<Troubled>::default();
    let shared = Arc::clone(&troubled);
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while let Ok((socket, _)) = listener.accept().await {
            let (service, troubled) = (service.clone(), Arc::clone(&shared));
            let serve = service_fn(move |request| answer(service.clone(), Arc::clone(&troubled), request));
            tokio::spawn(async move {
                drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve).await);
            });
        }
    });
    let secret = |name: &str| folder.with_extension(name).display().to_string();
    let address = format!("http://127.0.0.1:{port}");
    let keys = format!(
        "kind = \"s3\"\nbucket = \"site\"\nprefix = \"{{app}}\"\n\
         access_key = {{ file = \"{}\" }}\nsecret_key = {{ file = \"{}\" }}\nendpoint = \"{address}\"\n",
        secret("id"),
        secret("secret"),
    );
    let running = Running::S3(Some(runtime));
    Server { root: bucket.join("web"), address, keys, log: None, troubled, _running: running }
}

async fn answer(
    service: SharedS3Service,
    troubled: Arc<Troubled>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    match troubled.next(&request) {
        None => Ok(service.as_ref().call(request.map(Body::from)).await?),
        Some(Trouble::Answer(status, headers, body)) => {
            let is_empty = body.is_empty() || request.method() == "HEAD";
            let body = if is_empty { Body::empty() } else { Body::from(body.to_owned()) };
            let builder = Response::builder().status(status);
            let builder =
                headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
            Ok(builder.body(body)?)
        }
        Some(Trouble::Hang) => std::future::pending().await,
    }
}
