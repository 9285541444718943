//! Servers that releases are written to: nginx with `WebDAV`, and an S3 server within the test. `tests/crash` has them too.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::trees::walk_files;

/// A server, and the folder in which it keeps what is written.
pub struct Server {
    /// The folder of the files that it shows.
    pub root: PathBuf,
    /// The lines of a definition that say where it is.
    pub keys: String,
    /// Its log, where it writes one.
    pub log: Option<PathBuf>,
    _running: Running,
}

enum Running {
    Nginx(Process),
    S3(Option<tokio::runtime::Runtime>),
}

struct Process(Child);

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
        let files = walk_files(&self.root).into_iter();
        files.map(|path| (name(&path), fs::read(&path).expect("a file"))).collect()
    }

    /// Returns the requests so far, as `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        let log = self.log.as_ref().map(|log| fs::read_to_string(log).expect("a log"));
        log.unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Starts nginx with `WebDAV` below `folder`; none where it is not installed.
pub fn nginx(folder: &Path) -> Option<Server> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(program) = program else {
        println!("skipped: nginx is not installed");
        return None;
    };
    let (root, log) = (folder.join("root"), folder.join("access.log"));
    fs::create_dir_all(&root).expect("a folder");
    let port = free_port();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let shown = folder.display();
    let conf = format!(
        "{user} worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ log_format whit '$request_method $uri'; access_log {log} whit;\n\
         client_body_temp_path {shown}/body; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {root}; client_max_body_size 0;\n\
         location / {{ dav_methods PUT DELETE MKCOL; create_full_put_path on; autoindex on; index no-index; }} }} }}\n",
        root = root.display(),
        log = log.display(),
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
    let keys = format!("kind = \"http\"\nurl = \"http://127.0.0.1:{port}/{{app}}/\"\n");
    Some(Server { root: root.join("web"), keys, log: Some(log), _running: Running::Nginx(process) })
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
    for (name, text) in [("id", "an-id"), ("secret", "a secret key")] {
        fs::write(folder.with_extension(name), text).expect("written");
    }
    let files = s3s_fs::FileSystem::new(folder).expect("a folder");
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single("an-id", "a secret key"));
    let service = builder.build().into_shared();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("it listens").port();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                drop(
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await,
                );
            });
        }
    });
    let secret = |name: &str| folder.with_extension(name).display().to_string();
    let keys = format!(
        "kind = \"s3\"\nbucket = \"site\"\nprefix = \"{{app}}\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
         access_key = {{ file = \"{}\" }}\nsecret_key = {{ file = \"{}\" }}\n",
        secret("id"),
        secret("secret"),
    );
    Server { root: bucket.join("web"), keys, log: None, _running: Running::S3(Some(runtime)) }
}
