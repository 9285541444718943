//! Tools with which a receiver that has OLD fetches from a web server what it lacks of NEW.
//!
//! The server is our own, on loopback, and counts what crosses its sockets, HTTP's headers included. What
//! it serves goes *up* here, as for all tools: from the side that has NEW.

use std::process::Command;

use super::ground::Ground;
use super::web::{Server, Traffic};
use crate::error::{Error, Result};
use crate::measurement::{Measurement, Situations};
use crate::process::{self, Ended};
use disk::files::OnPath;

/// TCP, TLS, the archive's head, the chunks.
const BITA_ROUND_TRIPS: u32 = 4;

/// Measures `zsyncmake` at the sender, `zsync` at the receiver.
pub fn zsync(ground: &Ground<'_>) -> Result<Situations> {
    let (served, copy) = (ground.path("served"), ground.path("copy"));
    std::fs::create_dir(&served).on("create", &served)?;
    let stream = served.join("new");
    std::fs::hard_link(&ground.input.new.stream, &stream).on("link", &stream)?;
    let server = Server::start(&served)?;
    let mut make = Command::new("zsyncmake");
    make.args(["-f", "new", "-u", &server.url("new"), "-o"]).arg(served.join("new.zsync")).arg(&stream);
    let made = process::run(ground.stop, &mut make)?;
    let mut fetch = Command::new("zsync");
    // It unpacks a seed with this suffix.
    let seed = ground.path(if is_gzip(ground)? { "old.gz" } else { "old" });
    std::fs::hard_link(&ground.input.old.stream, &seed).on("link", &seed)?;
    fetch.arg("-q").arg("-i").arg(&seed).arg("-o").arg(&copy);
    fetch.arg(server.url("new.zsync")).current_dir(ground.work);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        fetch.env_remove(name);
    }
    let fetched = process::run(ground.stop, &mut fetch)?;
    let traffic = server.stop();
    // It unpacks gzip, and then returns the unpacked content.
    let note = match ground.input.expect_new_stream("zsync", &copy) {
        Ok(()) => None,
        Err(Error::Differs { .. }) if is_gzip(ground)? => {
            Some("hands back what the gzip stream holds, not the stream".to_owned())
        }
        Err(error) => return Err(error),
    };
    // Connections and requests are sequential; TLS adds one round trip to the first.
    let round_trips = traffic.connections + traffic.requests + 1;
    Ok(Situations { note, ..fresh(traffic, round_trips, &made, &fetched) })
}

fn is_gzip(ground: &Ground<'_>) -> Result<bool> {
    use std::io::Read;
    let path = &ground.input.new.stream;
    let mut magic = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(2).read_to_end(&mut magic)).on("read", path)?;
    Ok(magic == [0x1f, 0x8b])
}

/// Measures `bita compress` at the sender, `bita clone` at the receiver.
pub fn bita(ground: &Ground<'_>) -> Result<Situations> {
    let (served, copy) = (ground.path("served"), ground.path("copy"));
    std::fs::create_dir(&served).on("create", &served)?;
    let mut compress = Command::new("bita");
    compress.args(["compress", "-i"]);
    let made = process::run(ground.stop, compress.arg(&ground.input.new.stream).arg(served.join("new.cba")))?;
    let server = Server::start(&served)?;
    let mut clone = Command::new("bita");
    // Its errors are recognised by their text, without what the user's environment adds.
    clone
        .env("RUST_BACKTRACE", "0")
        .arg("clone")
        .arg("--seed")
        .arg(&ground.input.old.stream)
        .arg(server.url("new.cba"))
        .arg(&copy);
    let fetched = process::run(ground.stop, &mut clone)?;
    let traffic = server.stop();
    ground.input.expect_new_stream("bita", &copy)?;
    Ok(fresh(traffic, BITA_ROUND_TRIPS, &made, &fetched))
}

fn fresh(traffic: Traffic, round_trips: u32, made: &Ended, fetched: &Ended) -> Situations {
    let fresh = Measurement {
        up_bytes: traffic.out_bytes,
        down_bytes: traffic.in_bytes,
        round_trips: Some(round_trips),
        wall_seconds: made.wall_seconds + fetched.wall_seconds,
        sender: made.load,
        receiver: Some(fetched.load),
    };
    Situations { fresh: Some(fresh), ..Situations::default() }
}
