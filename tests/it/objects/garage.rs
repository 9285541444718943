//! A real distributed store: Garage, one node, where its program is installed or `WHIT_GARAGE` names it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ground::faults::Fault;
use serde_json::Value;
use whit::delivery::destination::Definition;
use whit::net::blocking;

use super::readers::{copied_by_rclone, output};
use super::{assert_same_files, deliver, files, site};
use crate::trees::{noise, write};
use crate::world::{World, web, within};

/// A node, with a bucket `site` and a key for it.
struct Garage {
    program: PathBuf,
    conf: PathBuf,
    port: u16,
    id: String,
    secret: String,
    server: Child,
}

impl Drop for Garage {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Garage {
    /// Starts a node below `folder`; none where the program is not there, which is said.
    fn start(folder: &Path) -> Option<Self> {
        let program = std::env::var_os("WHIT_GARAGE").map_or_else(|| PathBuf::from("garage"), PathBuf::from);
        if Command::new(&program).arg("--version").output().is_err() {
            println!("skipped: no Garage: install it, or let WHIT_GARAGE name its program");
            return None;
        }
        let listeners: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")).collect();
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect();
        drop(listeners);
        let (port, conf) = (ports[0], folder.join("garage.toml"));
        let text = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"lmdb\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{port}\"\n",
            folder = folder.display(),
            rpc = ports[1],
            secret = "5a".repeat(32),
        );
        fs::write(&conf, text).expect("written");
        rustix::fs::chmod(&conf, rustix::fs::Mode::from_raw_mode(0o600)).expect("set");
        let log = fs::File::create(folder.join("garage.log")).expect("a log");
        let mut command = Command::new(&program);
        command.arg("-c").arg(&conf).arg("server").stdout(Stdio::null()).stderr(log);
        let server = command.spawn().expect("Garage starts");
        let mut garage = Self { program, conf, port, id: String::new(), secret: String::new(), server };
        let begun = Instant::now();
        while garage.run(&["status"]).is_none() {
            let log = fs::read_to_string(folder.join("garage.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "Garage does not answer: {log}");
        }
        let told = |arguments: &[&str]| garage.run(arguments).unwrap_or_else(|| panic!("{arguments:?}"));
        let node = told(&["node", "id", "-q"]);
        let node = node.split('@').next().expect("an id");
        told(&["layout", "assign", "-z", "here", "-c", "1G", node]);
        told(&["layout", "apply", "--version", "1"]);
        told(&["bucket", "create", "site"]);
        let key = told(&["key", "create", "ci"]);
        told(&["bucket", "allow", "--read", "--write", "site", "--key", "ci"]);
        let word = |name: &str| {
            let line = key.lines().find(|line| line.trim_start().starts_with(name));
            line.and_then(|line| line.split_whitespace().last()).expect("in the answer").to_owned()
        };
        (garage.id, garage.secret) = (word("Key ID"), word("Secret key"));
        fs::write(folder.join("id"), &garage.id).expect("written");
        fs::write(folder.join("secret"), &garage.secret).expect("written");
        Some(garage)
    }

    /// Runs a command of its program; none if that fails.
    fn run(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(&self.program).arg("-c").arg(&self.conf).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

const RULES: &str = "last = ['*.html']\n\
    [[metadata]]\nfiles = ['*.js']\ncache_control = 'max-age=31536000, immutable'\n\
    [[metadata]]\nfiles = ['*.html']\ncache_control = 'no-cache'\ncontent_type = 'text/html; charset=latin1'\n";

#[tokio::test(flavor = "multi_thread")]
async fn others_read_from_garage_what_was_delivered_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(garage) = Garage::start(folder.path()) else { return };
    let shown = folder.path().display();
    let keys = format!(
        "kind = 's3'\nbucket = 'site'\nprefix = '{{app}}'\nendpoint = 'http://127.0.0.1:{}'\nregion = 'garage'\n\
         access_key = {{ file = '{shown}/id' }}\nsecret_key = {{ file = '{shown}/secret' }}\n{RULES}",
        garage.port
    );
    let place = toml::from_str::<Definition>(&keys).expect("a definition").open();
    let checked = place.clone();
    let world = World::start_with(|options| {
        options.destinations.insert(web(), place);
    });
    let remote = format!(
        ":s3,provider=Other,endpoint='http://127.0.0.1:{}',region=garage,force_path_style=true,\
         access_key_id={},secret_access_key={}:site/web",
        garage.port, garage.id, garage.secret
    );
    within(async {
        let tree = world.path("tree");
        site(&tree);
        // Beyond 8 MiB an object goes in parts.
        write(&tree, "big.bin", noise(9, 20_000_000));
        for number in 0..40 {
            write(&tree, &format!("ü/{number} +&.js"), noise(number, 2000));
        }
        let first = deliver(&world).await;
        assert_eq!(first.sent_bytes, first.bytes);
        let again = deliver(&world).await;
        assert!(again.already && again.requests == 0, "{again:?}");
        fs::remove_file(tree.join("app.1.js")).expect("removed");
        write(&tree, "index.html", "<script src=app.2.js>");
        write(&tree, "app.2.js", noise(3, 200_000));
        write(&tree, "big.bin", noise(10, 9_000_000));
        let second = deliver(&world).await;
        assert_eq!(second.sent_bytes, 21 + 200_000 + 9_000_000);
        if let Some(copy) = copied_by_rclone(&remote, &folder.path().join("copy")) {
            assert_same_files(&copy, &files(&tree));
        }
        let listed = output("rclone", &["--config", "", "lsjson", "--metadata", "--recursive", &remote]);
        let listed = listed.map(|listed| serde_json::from_str::<Vec<Value>>(&listed).expect("JSON"));
        for (path, cached, kind) in [
            ("app.2.js", Value::from("max-age=31536000, immutable"), "text/javascript; charset=utf-8"),
            ("index.html", "no-cache".into(), "text/html; charset=latin1"),
            ("logo.png", Value::Null, "image/png"),
            ("big.bin", Value::Null, "application/octet-stream"),
        ] {
            let Some(listed) = &listed else { break };
            let found = listed.iter().find(|object| object["Path"] == path).expect("it is listed");
            let found = &found["Metadata"];
            assert_eq!((&found["cache-control"], &found["content-type"]), (&cached, &kind.into()), "{path}");
        }
        let checks = blocking::start(move || checked.check(&AtomicBool::new(false))).await.expect("a thread");
        assert!(checks.len() >= 5 && checks.iter().all(|check| check.failure.is_none()), "{checks:?}");
        // A key that was taken away fails a delivery at once.
        garage.run(&["bucket", "deny", "--write", "site", "--key", "ci"]).expect("denied");
        write(&tree, "index.html", "nobody may write this");
        let (fault, reason) = super::fail(&world).await;
        assert_eq!(fault, Fault::Denied, "{reason}");
        assert!(!reason.contains(&garage.secret), "{reason}");
    })
    .await;
}
