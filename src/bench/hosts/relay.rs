//! Carries packets between two devices as a link would: at a rate, with a delay, losing some.
//!
//! Each direction by itself. A packet is lost at random, or because the queue before the link is full
//! (tail drop); else it leaves the link when those before it have, at the link's rate, and arrives half a
//! round trip later. The losses are the same for the same packets in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::device::{Device, PACKET_BYTES_MAX};
use crate::link::LinkSpec;
use crate::measurement::Counts;

/// The least queue before a link: 170 full packets.
const QUEUE_BYTES_MIN: f64 = 256.0 * 1024.0;
/// Packets under way in one direction: 1 Gbit/s at 500 ms.
const PACKETS_MAX: usize = 65_536;
/// The interval between checks whether the relay should end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

#[derive(Debug, Default)]
struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    fn read(&self) -> Counts {
        Counts {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.lost.load(Relaxed),
        }
    }
}

/// A running link; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    stopped: Arc<AtomicBool>,
    counters: [Arc<Counters>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Carries packets between `near` and `far` from now on.
    pub fn start(link: LinkSpec, near: Device, far: Device) -> Self {
        let (near, far) = (Arc::new(near), Arc::new(far));
        let stopped = Arc::new(AtomicBool::new(false));
        let counters = [Arc::<Counters>::default(), Arc::default()];
        let mut threads = Vec::new();
        for (seed, from, to) in [(1, &near, &far), (2, &far, &near)] {
            let (send, receive) = sync_channel(PACKETS_MAX);
            let counters = &counters[usize::from(seed == 2)];
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (of_reader, of_writer) = (Arc::clone(counters), Arc::clone(counters));
            let is_stopped = Arc::clone(&stopped);
            let entrance = Entrance { link, shaper: Shaper::new(link, seed), send };
            threads.push(std::thread::spawn(move || entrance.run(&from, &of_reader, &is_stopped)));
            threads.push(std::thread::spawn(move || leave(&receive, &to, &of_writer)));
        }
        Self { stopped, counters, threads }
    }

    /// Returns the traffic so far, from near to far and back.
    pub fn counts(&self) -> [Counts; 2] {
        [self.counters[0].read(), self.counters[1].read()]
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A packet under way.
struct Packet {
    arrives: Instant,
    bytes: Vec<u8>,
}

struct Entrance {
    link: LinkSpec,
    shaper: Shaper,
    send: SyncSender<Packet>,
}

impl Entrance {
    fn run(mut self, device: &Device, counters: &Counters, is_stopped: &AtomicBool) {
        let begin = Instant::now();
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while !is_stopped.load(Relaxed) {
            let length = match device.read(&mut buffer, LOOK_EVERY) {
                Ok(Some(length)) => length,
                Ok(None) => continue,
                Err(_) => return,
            };
            let Some(leaves) = self.shaper.admit(length, begin.elapsed()) else {
                counters.lost.fetch_add(1, Relaxed);
                continue;
            };
            let arrives = begin + leaves + self.link.round_trip() / 2;
            match self.send.try_send(Packet { arrives, bytes: buffer[..length].to_vec() }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => drop(counters.lost.fetch_add(1, Relaxed)),
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

/// Passes packets on when they arrive, until the entrance closes.
fn leave(receive: &Receiver<Packet>, device: &Device, counters: &Counters) {
    for packet in receive {
        let wait = packet.arrives.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if device.write(&packet.bytes).is_ok() {
            counters.packets.fetch_add(1, Relaxed);
            counters.bytes.fetch_add(packet.bytes.len() as u64, Relaxed);
        } else {
            counters.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Decides when a packet leaves the link, or that it is lost. Times count from any fixed moment.
#[derive(Debug)]
struct Shaper {
    link: LinkSpec,
    queue: Duration,
    free_at: Duration,
    random: u64,
}

impl Shaper {
    #[expect(clippy::cast_precision_loss, reason = "rates far below 52 bits")]
    fn new(link: LinkSpec, seed: u64) -> Self {
        // One bandwidth-delay product, as routers are commonly given.
        let product = link.bits_per_second as f64 / 8.0 * link.round_trip_ms / 1e3;
        let queue = product.max(QUEUE_BYTES_MIN) * 8.0 / link.bits_per_second as f64;
        Self { link, queue: Duration::from_secs_f64(queue), free_at: Duration::ZERO, random: seed }
    }

    /// Returns when the packet's last bit has left; `None` where it is lost.
    #[expect(clippy::cast_precision_loss, reason = "packets and rates far below 52 bits")]
    fn admit(&mut self, length: usize, now: Duration) -> Option<Duration> {
        let is_lost = self.link.loss_percent > 0.0 && self.fraction() * 100.0 < self.link.loss_percent;
        let takes = Duration::from_secs_f64(length as f64 * 8.0 / self.link.bits_per_second as f64);
        let begins = self.free_at.max(now);
        if is_lost || begins + takes > now + self.queue {
            return None;
        }
        self.free_at = begins + takes;
        Some(self.free_at)
    }

    /// Returns the next number from 0 to below 1: `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom
    /// number generators, 2014, figure 17).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Shaper;
    use crate::link::Link;

    fn shaper(link: &str) -> Shaper {
        let Ok(Link::Emulated(spec)) = link.parse() else { panic!("{link} is emulated") };
        Shaper::new(spec, 1)
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate() {
        let mut shaper = shaper("8mbit/10ms");
        let now = Duration::from_secs(1);
        // 1,000 bytes take a millisecond.
        assert_eq!(shaper.admit(1000, now), Some(now + Duration::from_millis(1)));
        assert_eq!(shaper.admit(1000, now), Some(now + Duration::from_millis(2)));
        let later = now + Duration::from_millis(500);
        assert_eq!(shaper.admit(500, later), Some(later + Duration::from_micros(500)));
    }

    #[test]
    fn a_full_queue_drops_what_comes_last() {
        // 256 KiB of queue: 174 packets of 1,500 bytes.
        let mut shaper = shaper("8mbit/10ms");
        let admitted = (0..1000).filter(|_| shaper.admit(1500, Duration::ZERO).is_some()).count();
        assert_eq!(admitted, 174);
        assert!(shaper.admit(1500, Duration::from_millis(2)).is_some(), "room comes back with time");
    }

    #[test]
    fn a_fat_far_link_has_a_queue_of_one_product() {
        // 100 Mbit/s x 100 ms = 1.25 MB.
        let mut shaper = shaper("100mbit/100ms");
        let admitted = (0..2000).filter(|_| shaper.admit(1250, Duration::ZERO).is_some()).count();
        assert_eq!(admitted, 1000);
    }

    #[test]
    fn losses_are_about_as_many_as_asked_for_and_the_same_every_time() {
        let lost = || {
            let mut shaper = shaper("200mbit/1ms/2%");
            let lost = |place: &u64| shaper.admit(100, Duration::from_millis(*place)).is_none();
            (0..10_000u64).filter(lost).collect::<Vec<_>>()
        };
        let places = lost();
        assert!((140..260).contains(&places.len()), "{}", places.len());
        assert_eq!(places, lost());
    }
}
