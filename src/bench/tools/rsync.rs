//! rsync to a daemon over loopback TCP.
//!
//! The daemon is started for each connection with the socket as its standard input, as inetd does it, so
//! that its processor time and memory are those of that transfer.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ground::Ground;
use crate::error::{Error, Result};
use crate::measurement::{Load, Measurement, Situations};
use crate::process::{Running, Stop};
use disk::files::OnPath;

/// TCP, the greeting, the module, the arguments with the seed, the transfer, the goodbye.
const ROUND_TRIPS: u32 = 6;
/// A client connects at once.
const CONNECT_SECONDS: i64 = 30;

/// A module that holds what was brought, and where the daemon listens.
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

    /// Returns the daemon's command, without its address.
    pub fn command(&self) -> Command {
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--config"]).arg(&self.configuration);
        command
    }

    /// Sends a folder to the module and measures both sides.
    ///
    /// # Errors
    /// Either side fails.
    pub fn bring(&self, stop: &Stop, flags: &[&str], from: &Path) -> Result<Measurement> {
        let start_error = |source| Error::Start { program: "rsync".to_owned(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(start_error)?;
        let address = listener.local_addr().map_err(start_error)?;
        let client = Running::start(stop, &mut client(flags, from, address))?;
        wait_for_connection(&listener).map_err(start_error)?;
        let (socket, _) = listener.accept().map_err(start_error)?;
        let output = socket.try_clone().map_err(start_error)?;
        let mut command = self.command();
        command.stdin(OwnedFd::from(socket)).stdout(OwnedFd::from(output));
        let daemon = Running::spawn(stop, &mut command)?;
        drop(command);
        let sent = client.wait();
        let received = daemon.wait();
        let sent = sent?;
        let mut measured = transferred(&sent.out, sent.wall_seconds, sent.load)?;
        measured.receiver = Some(received?.load);
        Ok(measured)
    }
}

/// Waits until somebody connects: a client that fails to start would never connect.
fn wait_for_connection(listener: &TcpListener) -> std::io::Result<()> {
    let patience = Timespec { tv_sec: CONNECT_SECONDS, tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience)) {
        Ok(0) => Err(std::io::ErrorKind::TimedOut.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the client's command.
pub fn client(flags: &[&str], from: &Path, to: SocketAddr) -> Command {
    let mut command = Command::new("rsync");
    let mut source = from.as_os_str().to_owned();
    source.push("/");
    command.args(["--stats", "--delete", "--port", &to.port().to_string()]).args(flags);
    command.arg(source).arg(format!("{}::release/", to.ip())).stdin(Stdio::null());
    command
}

/// Reads the figures of `--stats`.
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
    let first = daemon.bring(ground.stop, flags, &ground.input.old.folder)?;
    let fresh = daemon.bring(ground.stop, flags, &ground.input.new.folder)?;
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
