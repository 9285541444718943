//! `tar | zstd -3`, through a socket, to `zstd -d | tar -x`: the whole release each time.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::case::Case;
use crate::error::{Error, Result};
use crate::hosts::accept;
use crate::input;
use crate::measurement::Load;
use crate::process::Running;
use crate::race::{Race, Transfer};
use crate::tools::ground::{Done, Ground, sync};

/// Times it in all cases. OLD at the receiver helps nothing.
pub fn run(ground: &Ground<'_>) -> Result<Race> {
    let Ground { input, .. } = *ground;
    let first = bring(ground, &input.old.folder, &ground.folder("first")?, Sender::Near)?;
    let (fresh_copy, pulled) = (ground.folder("fresh")?, ground.folder("pulled")?);
    let fresh = bring(ground, &input.new.folder, &fresh_copy, Sender::Near)?;
    let pull = bring(ground, &input.new.folder, &pulled, Sender::Far)?;
    input.expect_new("tar", &fresh_copy)?;
    input.expect_new("tar", &pulled)?;
    Ok([(Case::First, first), (Case::Fresh, fresh), (Case::Pull, pull), (Case::Update, pull)].into())
}

/// The host that has what is brought. The near one connects in either case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Near,
    Far,
}

fn bring(ground: &Ground<'_>, from: &Path, to: &Path, sender: Sender) -> Result<Transfer> {
    let listener = ground.hosts.listen()?;
    let socket_error = |source| Error::Socket { action: "use a socket", source };
    let port = listener.local_addr().map_err(socket_error)?.port();
    ground.time(|| {
        let near = ground.hosts.connect(port)?;
        let far = accept(&listener)?;
        let (out, back) = if sender == Sender::Near { (near, far) } else { (far, near) };
        let unpacking = unpack(ground, back, to)?;
        let (sent_bytes, sending) = send(ground, from, &out)?;
        let [sent, received] = [ended(sending)?, ended(unpacking)?];
        let ended = Instant::now();
        sync(to)?;
        let bytes = if sender == Sender::Near { [sent_bytes, 0] } else { [0, sent_bytes] };
        Ok(Done { ended, copied: Instant::now(), bytes, sender: sent, receiver: received })
    })
}

/// Starts `zstd -d | tar -x` on what a socket brings.
fn unpack(ground: &Ground<'_>, socket: TcpStream, to: &Path) -> Result<[Running; 2]> {
    let (mut zstd, mut tar) = (Command::new("zstd"), Command::new("tar"));
    zstd.args(["-d", "-q", "-c"]).stdin(OwnedFd::from(socket));
    let (zstd, pipe) = Running::start_piped(ground.stop, &mut zstd)?;
    tar.args(["-x", "-f", "-", "-C"]).arg(to).stdin(pipe);
    Ok([zstd, Running::start(ground.stop, &mut tar)?])
}

/// Runs `tar | zstd -3` into a socket; returns the bytes and both programs, which have written everything.
fn send(ground: &Ground<'_>, from: &Path, socket: &TcpStream) -> Result<(u64, [Running; 2])> {
    let (mut tar, mut zstd) = (input::tar(from), Command::new("zstd"));
    let (tar, pipe) = Running::start_piped(ground.stop, tar.args(["-f", "-", "."]).stdin(Stdio::null()))?;
    let (zstd, mut packed) = Running::start_reading(ground.stop, zstd.args(["-3", "-q", "-c"]).stdin(pipe))?;
    // On Linux, the kernel moves these bytes from the pipe to the socket.
    let copied = io::copy(&mut packed, &mut { socket }).and_then(|bytes| {
        socket.shutdown(Shutdown::Write)?;
        Ok(bytes)
    });
    let bytes = copied.map_err(|source| Error::Socket { action: "send", source })?;
    Ok((bytes, [tar, zstd]))
}

/// Waits for both programs of a side.
fn ended([first, second]: [Running; 2]) -> Result<Load> {
    let (first, second) = (first.wait(), second.wait());
    let mut load = first?.load;
    load.add(second?.load);
    Ok(load)
}
