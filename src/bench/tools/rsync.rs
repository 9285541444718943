//! rsync to a daemon.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ground::Ground;
use crate::error::{Error, Result};
use crate::hosts::accept;
use crate::measurement::{Load, Measurement, Situations};
use crate::process::{Ended, Running};
use disk::files::OnPath;

/// TCP, the greeting, the module, the arguments with the seed, the transfer, the goodbye.
const ROUND_TRIPS: u32 = 6;

/// A daemon's configuration, and its module that holds what was brought.
#[derive(Debug)]
pub struct Daemon {
    configuration: PathBuf,
    module: PathBuf,
}

impl Daemon {
    /// Writes the configuration of a daemon with one empty module, `release`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        let (configuration, module) = (folder.join("rsyncd.conf"), folder.join("module"));
        fs::create_dir(&module).on("create", &module)?;
        // Without root there is no other user to become.
        let user = if rustix::process::geteuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let text = format!(
            "use chroot = no\nreverse lookup = no\nmunge symlinks = no\n{user}\
             log file = {}\n[release]\npath = {}\nread only = no\n",
            folder.join("log").display(),
            module.display()
        );
        fs::write(&configuration, text).on("write", &configuration)?;
        Ok(Self { configuration, module })
    }

    /// Returns the folder of the daemon's module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Runs a client at the near host, and the daemon for its connection at the far one; returns how each ended, the client
    /// first.
    ///
    /// # Errors
    /// Either side fails.
    pub fn serve(
        &self,
        ground: &Ground<'_>,
        client: impl FnOnce(SocketAddr) -> Command,
    ) -> Result<[Ended; 2]> {
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--config"]).arg(&self.configuration);
        serve_once(ground, command, client)
    }

    /// Sends a folder to the module and measures both sides.
    fn bring(&self, ground: &Ground<'_>, flags: &[&str], from: &Path) -> Result<Measurement> {
        let [sent, received] = self.serve(ground, |address| push(flags, from, address))?;
        let mut measured = transferred(&sent.out, sent.wall_seconds, sent.load)?;
        measured.receiver = Some(received.load);
        Ok(measured)
    }
}

/// Runs a client at the near host, and for its connection a server that takes the socket as its standard input, as inetd
/// starts it: its processor time and memory are then those of that transfer. Returns how each ended, the client first.
///
/// # Errors
/// The client fails, as it does where the server fails.
pub fn serve_once(
    ground: &Ground<'_>,
    mut server: Command,
    client: impl FnOnce(SocketAddr) -> Command,
) -> Result<[Ended; 2]> {
    let listener = ground.hosts.listen()?;
    let socket_error = |source| Error::Socket { action: "use a socket", source };
    let address = listener.local_addr().map_err(socket_error)?;
    let mut client = ground.hosts.near(client(address));
    let client = Running::start(ground.stop, client.stdin(Stdio::null()))?;
    let socket = match accept(&listener) {
        Ok(socket) => socket,
        // Its own words say more.
        Err(error) => return Err(client.end().err().unwrap_or(error)),
    };
    let output = socket.try_clone().map_err(socket_error)?;
    server.stdin(OwnedFd::from(socket)).stdout(OwnedFd::from(output));
    let running = Running::spawn(ground.stop, &mut server)?;
    drop(server);
    let sent = client.wait();
    let received = running.wait_for_server();
    Ok([sent?, received?])
}

/// Returns the command that sends a folder to the daemon's module.
pub fn push(flags: &[&str], from: &Path, to: SocketAddr) -> Command {
    let mut command = client(flags, to);
    command.arg(inside(from)).arg(format!("{}::release/", to.ip()));
    command
}

/// Returns the command that fetches the daemon's module into a folder.
pub fn pull(flags: &[&str], from: SocketAddr, to: &Path) -> Command {
    let mut command = client(flags, from);
    command.arg(format!("{}::release/", from.ip())).arg(inside(to));
    command
}

fn client(flags: &[&str], daemon: SocketAddr) -> Command {
    let mut command = Command::new("rsync");
    command.args(["--stats", "--delete", "--port", &daemon.port().to_string()]).args(flags);
    command
}

/// Returns a folder's path as rsync means what is inside it.
pub fn inside(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    path.push("/");
    path
}

/// Reads the figures of `--stats` at a client that sends.
///
/// # Errors
/// They are not there.
pub fn transferred(stats: &str, wall_seconds: f64, sender: Load) -> Result<Measurement> {
    Ok(Measurement {
        up_bytes: number_after(stats, "Total bytes sent:")?,
        down_bytes: number_after(stats, "Total bytes received:")?,
        round_trips: Some(ROUND_TRIPS),
        wall_seconds,
        sender,
        receiver: None,
    })
}

fn number_after(text: &str, words: &str) -> Result<u64> {
    let unreadable = Error::Unreadable { program: "rsync", expected: "count of bytes" };
    let rest = text.split_once(words).map(|(_, rest)| rest.lines().next().unwrap_or_default());
    let digits: String = rest.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| unreadable)
}

/// Measures `rsync -a`.
pub fn plain(ground: &Ground<'_>) -> Result<Situations> {
    measure(ground, "rsync-a", &["-a"])
}

/// Measures `rsync -az`, with zstd.
pub fn compressed(ground: &Ground<'_>) -> Result<Situations> {
    measure(ground, "rsync-az", &["-a", "-z", "--zc=zstd"])
}

/// Measures `rsync -acz`: files are compared by their checksums first.
pub fn checksums(ground: &Ground<'_>) -> Result<Situations> {
    measure(ground, "rsync-acz", &["-a", "-c", "-z", "--zc=zstd"])
}

/// Measures `rsync -acz --fuzzy`: a new file is compared with the most similar name beside it.
pub fn fuzzy(ground: &Ground<'_>) -> Result<Situations> {
    measure(ground, "rsync-fuzzy", &["-a", "-c", "-z", "--zc=zstd", "--fuzzy", "--delete-after"])
}

fn measure(ground: &Ground<'_>, tool: &'static str, flags: &[&str]) -> Result<Situations> {
    let daemon = Daemon::create(ground.work)?;
    let first = daemon.bring(ground, flags, &ground.input.old.folder)?;
    let fresh = daemon.bring(ground, flags, &ground.input.new.folder)?;
    ground.input.expect_new(tool, daemon.module())?;
    Ok(Situations { first: Some(first), fresh: Some(fresh), ..Situations::default() })
}

#[cfg(test)]
mod tests {
    use super::{Load, transferred};

    #[test]
    fn bytes_are_read_out_of_the_statistics() {
        let stats =
            "Matched data: 1,000 bytes\nTotal bytes sent: 1,234,567\nTotal bytes received: 89\n\nsent 1";
        let run = transferred(stats, 1.0, Load::default()).expect("both are there");
        assert_eq!((run.up_bytes, run.down_bytes), (1_234_567, 89));
        assert!(transferred("Total bytes sent: 1\n", 1.0, Load::default()).is_err());
        assert!(
            transferred("Total bytes sent: many\nTotal bytes received: 1", 1.0, Load::default()).is_err()
        );
    }
}
