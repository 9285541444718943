//! `rsync -a` over ssh, with keys, settings and a server of its own.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rsync::Cases;
use crate::error::Result;
use crate::process::{self, Ended};
use crate::race::Race;
use crate::tools::find_program;
use crate::tools::ground::Ground;
use crate::tools::rsync::{inside, serve_once};
use disk::files::OnPath;

/// Where a server of root's separates its privileges. What installs the server may leave it to the first start.
const SEPARATION: &str = "/run/sshd";

/// Times `rsync -a` over ssh.
pub fn run(ground: &Ground<'_>) -> Result<Race> {
    let server = Server::create(ground)?;
    let module = ground.folder("module")?;
    let remote = |host: IpAddr| {
        let mut place = OsString::from(format!("{host}:"));
        place.push(inside(&module));
        place
    };
    let send = |from: &Path| server.serve(ground, |host| [inside(from), remote(host)]);
    let fetch = |to: &Path| server.serve(ground, |host| [remote(host), inside(to)]);
    Cases { ground, tool: "rsync-ssh", module: &module, send: &send, fetch: &fetch }.run()
}

/// The settings of both sides; dropping it removes the folder that it made for root.
struct Server {
    program: PathBuf,
    settings: PathBuf,
    client_settings: PathBuf,
    made_separation: bool,
}

impl Server {
    /// Makes keys, and writes the settings of both sides.
    fn create(ground: &Ground<'_>) -> Result<Self> {
        let [host, client] = ["host-key", "client-key"].map(|name| ground.path(name));
        for key in [&host, &client] {
            let mut make = Command::new("ssh-keygen");
            process::run(ground.stop, make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key))?;
        }
        let [settings, client_settings] = ["sshd_config", "ssh_config"].map(|name| ground.path(name));
        let text = format!(
            "HostKey \"{}\"\nAuthorizedKeysFile \"{}.pub\"\nPidFile none\nStrictModes no\nUseDNS no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PrintMotd no\nPrintLastLog no\nLogLevel ERROR\n",
            host.display(),
            client.display()
        );
        fs::write(&settings, text).on("write", &settings)?;
        let text = format!(
            "IdentityFile \"{}\"\nIdentitiesOnly yes\nUserKnownHostsFile \"{}\"\nStrictHostKeyChecking no\n\
             BatchMode yes\nCompression no\nControlPath none\nLogLevel ERROR\n",
            client.display(),
            ground.path("known-hosts").display()
        );
        fs::write(&client_settings, text).on("write", &client_settings)?;
        let made_separation = rustix::process::geteuid().is_root() && fs::create_dir(SEPARATION).is_ok();
        let program = find_program("sshd").unwrap_or_else(|| PathBuf::from("sshd"));
        Ok(Self { program, settings, client_settings, made_separation })
    }

    /// Runs rsync from the first place to the second.
    fn serve(&self, ground: &Ground<'_>, places: impl FnOnce(IpAddr) -> [OsString; 2]) -> Result<[Ended; 2]> {
        let mut server = Command::new(&self.program);
        server.args(["-i", "-e", "-f"]).arg(&self.settings);
        serve_once(ground, server, |address| {
            let shell = format!("ssh -F '{}' -p {}", self.client_settings.display(), address.port());
            let mut client = Command::new("rsync");
            client.args(["-a", "--stats", "--delete", "-e", &shell]).args(places(address.ip()));
            client
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.made_separation {
            // It is empty, or another server's by now.
            drop(fs::remove_dir(SEPARATION));
        }
    }
}
