//! Destinations over TLS: whom they trust, what they show, and what they say where that does not fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ground::faults::Fault;
use whit::net::blocking;

use super::servers::{Server, nginx_with, s3, start_nginx};
use super::{defined, deliver, destination, fail, files, site};
use crate::world::{World, web, within};

/// A certificate authority of the test, made by OpenSSL's program: wherever there is nginx there is its library, and nothing
/// else is to be built.
pub struct Authority {
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    /// Makes one; none where OpenSSL is not installed.
    pub fn create(folder: &Path, name: &'static str) -> Option<Self> {
        fs::write(folder.join("openssl.conf"), "[req]\ndistinguished_name = name\n[name]\n")
            .expect("written");
        let authority = Self { folder: folder.to_owned(), name };
        let made = authority.certify(name, &["-addext", "basicConstraints=critical,CA:TRUE"]);
        if !made {
            println!("skipped: openssl is not installed");
        }
        made.then_some(authority)
    }

    /// Makes a certificate `NAME.pem` and its key `NAME.key` for 127.0.0.1.
    pub fn issue(&self, name: &str) {
        let by = [self.path("pem"), self.path("key")].map(|path| path.display().to_string());
        let made = self.certify(
            name,
            &[
                "-CA",
                &by[0],
                "-CAkey",
                &by[1],
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=CA:FALSE",
            ],
        );
        assert!(made, "openssl makes no certificate");
    }

    fn certify(&self, name: &str, arguments: &[&str]) -> bool {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-config",
            "openssl.conf",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).args(arguments);
        openssl.current_dir(&self.folder).output().is_ok_and(|output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            true
        })
    }

    fn path(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", self.name))
    }

    /// Returns the key that makes a definition trust it.
    pub fn trusted(&self) -> String {
        format!("ca_file = \"{}\"\n", self.path("pem").display())
    }
}

/// Returns the lines that make nginx show a certificate.
pub fn shows(folder: &Path, name: &str) -> String {
    let path = folder.join(name).display().to_string();
    format!("ssl_certificate {path}.pem; ssl_certificate_key {path}.key;")
}

fn world(server: &Server, more: &str) -> World {
    let world = World::start_with(|options| {
        options.destinations.insert(web(), destination(server, more));
    });
    site(&world.path("tree"));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_certificate_must_be_of_a_known_authority_and_for_its_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(authority) = Authority::create(folder.path(), "authority") else { return };
    let other = Authority::create(folder.path(), "other").expect("as the first");
    authority.issue("server");
    let Some(server) = nginx_with(folder.path(), "https", &shows(folder.path(), "server")) else { return };
    within(async {
        for more in [String::new(), other.trusted()] {
            let (fault, reason) = fail(&world(&server, &more)).await;
            assert!(fault == Fault::Input && reason.contains("as `ca_file`"), "{reason}");
        }
        let elsewhere = server.address.replace("127.0.0.1", "localhost");
        let text = format!("kind = 'http'\nurl = '{elsewhere}/{{app}}/'\n{}", authority.trusted());
        let misnamed = World::start_with(|options| {
            options.destinations.insert(web(), defined(&text));
        });
        site(&misnamed.path("tree"));
        let (fault, reason) = fail(&misnamed).await;
        assert!(fault == Fault::Input && reason.contains("give the name"), "{reason}");
        assert!(server.files().is_empty());

        let world = world(&server, &authority.trusted());
        deliver(&world).await;
        assert_eq!(server.files(), files(&world.path("tree")));
        let trusting = destination(&server, &authority.trusted());
        let checks =
            blocking::start(move || trusting.check(&AtomicBool::new(false))).await.expect("a thread");
        assert!(checks.len() >= 4 && checks.iter().all(|check| check.failure.is_none()), "{checks:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_gets_the_right_one_or_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(authority) = Authority::create(folder.path(), "authority") else { return };
    let other = Authority::create(folder.path(), "other").expect("as the first");
    authority.issue("server");
    authority.issue("client");
    other.issue("stranger");
    let shown = folder.path().display();
    let lines = format!(
        "{} ssl_client_certificate {shown}/authority.pem; ssl_verify_client on;",
        shows(folder.path(), "server")
    );
    let Some(server) = nginx_with(folder.path(), "https", &lines) else { return };
    let shows = |name: &str| {
        let (trusted, path) = (authority.trusted(), folder.path().join(name).display().to_string());
        format!("{trusted}client_cert = \"{path}.pem\"\nclient_key = \"{path}.key\"\n")
    };
    within(async {
        let (fault, reason) = fail(&world(&server, &authority.trusted())).await;
        assert!(fault == Fault::Input && reason.contains("No required SSL certificate was sent"), "{reason}");
        let (fault, reason) = fail(&world(&server, &shows("stranger"))).await;
        assert!(fault == Fault::Input && reason.contains("The SSL certificate error"), "{reason}");
        let unpaired = shows("client").replace("client.key", "stranger.key");
        let (fault, reason) = fail(&world(&server, &unpaired)).await;
        assert!(fault == Fault::Input && reason.contains("the key in `client_key` is not that"), "{reason}");
        assert!(server.files().is_empty());
        let world = world(&server, &shows("client"));
        deliver(&world).await;
        assert_eq!(server.files(), files(&world.path("tree")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_tls_needs_a_known_authority_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(authority) = Authority::create(folder.path(), "authority") else { return };
    authority.issue("server");
    let below = folder.path().join("s3");
    fs::create_dir(&below).expect("a folder");
    let server = s3(&below);
    let location = format!("proxy_pass {}; proxy_set_header Host $http_host;", server.address);
    let started = start_nginx(folder.path(), "https", &shows(folder.path(), "server"), &location);
    let Some((_nginx, port)) = started else { return };
    let keys = server.keys.replace(&server.address, &format!("https://127.0.0.1:{port}"));
    let world = |more: &str| {
        let world = World::start_with(|options| {
            options.destinations.insert(web(), defined(&format!("{keys}{more}")));
        });
        site(&world.path("tree"));
        crate::trees::write(&world.path("tree"), "large", crate::trees::noise(9, 9_000_000));
        world
    };
    within(async {
        let (fault, reason) = fail(&world("")).await;
        assert!(fault == Fault::Input && reason.contains("as `ca_file`"), "{reason}");
        assert!(server.requests().is_empty());
        let world = world(&authority.trusted());
        deliver(&world).await;
        assert_eq!(server.files(), files(&world.path("tree")));
    })
    .await;
}
