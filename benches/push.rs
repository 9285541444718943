//! How fast a tree of 64 MiB is pushed over loopback QUIC, beside `cp -r` and, where it is installed, rsync.
//!
//! Agent and proxy share this process. `rsync -a` goes to a daemon on a free loopback port; it neither
//! compresses nor syncs, whit does both, so that `cp -r` is measured with a sync as well.

mod sample;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use disk::files;
use ground::monitor::{Monitor, Silent};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use whit::agent::push::{PushOptions, push};
use whit::agent::{Access, Receipt, Session};
use whit::net::link;
use whit::proxy::{Options, Proxy};

/// Half in files of 32 KiB, half in two of 16 MiB.
fn make_tree(folder: &Path, content: &[u8]) {
    let (small, large) = content.split_at(content.len() / 2);
    let write = |name: String, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("written");
    for (number, bytes) in small.chunks(32 * 1024).enumerate() {
        let directory = format!("small-{:02}", number % 16);
        files::create_folder(&folder.join(&directory)).expect("created");
        write(format!("{directory}/{number:05}"), bytes);
    }
    for (number, bytes) in large.chunks(16 * 1024 * 1024).enumerate() {
        write(format!("large-{number}"), bytes);
    }
}

/// A proxy with empty data on a free loopback port.
struct Served {
    runtime: Runtime,
    access: Access,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    _data: TempDir,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let data = tempfile::tempdir().expect("a temporary folder");
        let (stop, stopped) = oneshot::channel::<()>();
        let (access, running) = runtime.block_on(async {
            let options = Options::new(data.path(), (Ipv4Addr::LOCALHOST, 0).into());
            let proxy = Proxy::start(&options).expect("a proxy");
            let token = proxy.identity().sign_own(|id| Grant {
                id,
                user: "bench".parse().expect("a name"),
                space: "bench".parse().expect("a name"),
                actions: Action::ALL.to_vec(),
                applications: vec![Pattern::any()],
                destinations: Vec::new(),
                issued: 0,
                expires: None,
                on_behalf: false,
                then: Vec::new(),
                target: None,
            });
            let access = Access { url: proxy.url().clone(), token: token.expect("a token") };
            (access, tokio::spawn(proxy.run(async { drop(stopped.await) })))
        });
        Self { runtime, access, stop: Some(stop), running: Some(running), _data: data }
    }

    /// One push on a connection of its own.
    fn push(&self, tree: &Path) -> Receipt {
        let options = PushOptions {
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            ..PushOptions::new("bench".parse().expect("a name"), tree.to_owned())
        };
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        self.runtime.block_on(async {
            let session = Session::open(&self.access, &link::Options::default()).await.expect("connected");
            let receipt = push(&session, &options, &monitor).await.expect("pushed");
            session.finish().await;
            receipt
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running).expect("the proxy ended well");
        }
    }
}

/// An rsync daemon on a free loopback port; it ends with this value.
struct Rsync {
    daemon: Child,
    port: u16,
    folder: TempDir,
}

impl Rsync {
    /// None where rsync is not installed or its daemon does not start.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let config = folder.path().join("rsyncd.conf");
        let mut text = fs::File::create(&config).expect("created");
        // A daemon of root's would otherwise write as nobody.
        let user = if rustix::process::geteuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let path = folder.path().display();
        write!(text, "use chroot = no\n{user}[bench]\npath = {path}\nread only = no\n").expect("written");
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
        command.arg(format!("--config={}", config.display()));
        let daemon = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let rsync = Self { daemon, port, folder };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(rsync)
    }

    fn copy(&self, tree: &Path) {
        let to = format!("rsync://127.0.0.1:{}/bench/made/", self.port);
        let from = format!("{}/", tree.display());
        let status = Command::new("rsync").args(["-a", &from, &to]).status();
        assert!(status.expect("rsync is installed").success());
    }

    /// Where the copy appears.
    fn made(&self) -> PathBuf {
        self.folder.path().join("made")
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// Moves a copy aside instead of removing it: ext4 keeps from using inodes again for some seconds, and
/// its search for others would be measured as part of the next copy. All go at the end: some 4 GB.
fn set_aside(made: &Path) {
    if made.exists() {
        let mut names = (0..u32::MAX).map(|number| made.with_extension(number.to_string()));
        let aside = names.find(|path| !path.exists()).expect("a free name");
        fs::rename(made, aside).expect("renamed");
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().expect("cp is installed").success());
}

fn pushes(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tree = folder.path().join("tree");
    files::create_folder(&tree).expect("created");
    make_tree(&tree, &sample::content());
    let made = folder.path().join("made");
    let sync = |path: &Path| files::sync_file_system(path).expect("synced");
    let rsync = Rsync::start();

    for state in ["cold", "unchanged"] {
        let cold = state == "cold";
        let mut group = criterion.benchmark_group("push of 64 MiB");
        group.throughput(Throughput::Bytes(sample::CONTENT_BYTES as u64)).sample_size(10);
        group.sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
        let name = |name: &str| BenchmarkId::new(name, state);
        group.bench_function(name("whit"), |bench| {
            if cold {
                bench.iter_custom(|rounds| {
                    sample::timed(rounds, Served::start, |served| drop(served.push(&tree)))
                });
            } else {
                let kept = Served::start();
                kept.push(&tree);
                bench.iter_custom(|rounds| {
                    sample::timed(rounds, || (), |()| assert!(kept.push(&tree).unchanged))
                });
            }
        });
        if let Some(rsync) = &rsync {
            let before = || {
                if cold {
                    set_aside(&rsync.made());
                }
            };
            group.bench_function(name("rsync -a"), |bench| {
                bench.iter_custom(|rounds| sample::timed(rounds, before, |()| rsync.copy(&tree)));
            });
        }
        if cold {
            let before = || set_aside(&made);
            group.bench_function(name("cp -r"), |bench| {
                bench.iter_custom(|rounds| sample::timed(rounds, before, |()| copy(&tree, &made)));
            });
            group.bench_function(name("cp -r, synced"), |bench| {
                bench.iter_custom(|rounds| {
                    sample::timed(rounds, before, |()| {
                        copy(&tree, &made);
                        sync(&made);
                    })
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pushes);
criterion_main!(benches);
