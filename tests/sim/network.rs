//! A network inside one process: it loses, repeats, reorders and delays datagrams, all by a seed.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use ground::poison::Unpoisoned as _;
use whit::net::link::Datagrams;

use crate::random::Random;

/// How the network treats datagrams.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Lost datagrams per thousand.
    pub lost: usize,
    /// Repeated datagrams per thousand.
    pub repeated: usize,
    /// Delay one way.
    pub delay: Duration,
    /// The largest additional delay, drawn for each datagram: later ones overtake earlier ones.
    pub jitter: Duration,
    /// A time without any arrivals: from and to, since the network began.
    pub blackout: Option<(Duration, Duration)>,
    /// Bytes per second, each way.
    pub rate: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            lost: 0,
            repeated: 0,
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            blackout: None,
            rate: 2_500_000,
        }
    }
}

/// Datagrams that would wait longer than this in a link's queue are lost, as in a full router;
const QUEUE: Duration = Duration::from_millis(100);
/// but a slow link queues this many bytes, however long that takes.
const QUEUE_BYTES: u64 = 20_000;

/// One datagram: time of sending, source, destination, bytes, and time of arrival, if any.
pub type Sent = (Duration, SocketAddr, SocketAddr, usize, Option<Duration>);

#[derive(Debug, Default)]
struct Inbox {
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    weather: Weather,
    inboxes: HashMap<SocketAddr, Arc<Mutex<Inbox>>>,
    /// The time until which the link from an address is busy.
    busy: HashMap<SocketAddr, Instant>,
    trace: Vec<Sent>,
}

/// The network; clones share it.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    begin: Instant,
}

impl Network {
    pub fn new(seed: u64, weather: Weather) -> Self {
        let inner = Inner {
            random: Random::new(seed),
            weather,
            inboxes: HashMap::new(),
            busy: HashMap::new(),
            trace: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), begin: Instant::now() }
    }

    pub fn socket(&self, address: SocketAddr) -> Arc<Socket> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        self.lock().inboxes.insert(address, Arc::clone(&inbox));
        Arc::new(Socket { network: self.clone(), address: Mutex::new(address), inbox })
    }

    /// Returns all datagrams sent so far.
    pub fn trace(&self) -> Vec<Sent> {
        self.lock().trace.clone()
    }

    /// Returns the number of datagrams larger than `bytes` that have arrived by now.
    pub fn useful(&self, bytes: usize) -> usize {
        let now = self.begin.elapsed();
        let inner = self.lock();
        inner
            .trace
            .iter()
            .filter(|(_, _, _, length, at)| *length > bytes && at.is_some_and(|at| at <= now))
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unpoisoned()
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let mut inner = self.lock();
        let weather = inner.weather.clone();
        let turn = inner.busy.get(&from).copied().unwrap_or(now).max(now);
        let time = Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / weather.rate);
        let sent = now - self.begin;
        let dark = weather.blackout.is_some_and(|(from, to)| (from..to).contains(&sent));
        let queue = QUEUE.max(
            Duration::from_secs(1) * u32::try_from(QUEUE_BYTES).expect("small")
                / u32::try_from(weather.rate).expect("a rate"),
        );
        let lost = inner.random.below(1000) < weather.lost || dark || turn - now > queue;
        if lost {
            inner.trace.push((sent, from, to, bytes.len(), None));
            return;
        }
        inner.busy.insert(from, turn + time);
        let copies = 1 + usize::from(inner.random.below(1000) < weather.repeated);
        for _ in 0..copies {
            let nanoseconds = usize::try_from(weather.jitter.as_nanos()).expect("jitter is short");
            let more = Duration::from_nanos(inner.random.below(nanoseconds + 1) as u64);
            let at = turn + time + weather.delay + more;
            inner.trace.push((sent, from, to, bytes.len(), Some(at - self.begin)));
            let (network, bytes) = (self.clone(), bytes.to_vec());
            tokio::spawn(async move {
                sleep_until(at).await;
                network.arrive(from, to, bytes);
            });
        }
    }

    fn arrive(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        // The datagram is lost if its address is no longer in use.
        let Some(inbox) = self.lock().inboxes.get(&to).cloned() else { return };
        let mut inbox = inbox.lock().unpoisoned();
        inbox.arrived.push_back((from, bytes));
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }
}

/// A socket of the network.
#[derive(Debug)]
pub struct Socket {
    network: Network,
    address: Mutex<SocketAddr>,
    inbox: Arc<Mutex<Inbox>>,
}

impl Socket {
    /// Gives the socket another address, as after a lost address translation or a change of network.
    pub fn move_to(&self, address: SocketAddr) {
        let before = std::mem::replace(&mut *self.address.lock().expect("not poisoned"), address);
        let mut inner = self.network.lock();
        inner.inboxes.remove(&before);
        inner.inboxes.insert(address, Arc::clone(&self.inbox));
    }
}

impl Datagrams for Socket {
    fn local_address(&self) -> SocketAddr {
        *self.address.lock().expect("not poisoned")
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.network.send(self.local_address(), to, bytes);
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<(SocketAddr, Vec<u8>)> {
        let mut inbox = self.inbox.lock().unpoisoned();
        if let Some(arrived) = inbox.arrived.pop_front() {
            return Poll::Ready(arrived);
        }
        inbox.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn seed(&self) -> [u8; 32] {
        let address = self.local_address();
        let mut random = Random::new(self.network.lock().random.clone().next() ^ u64::from(address.port()));
        random.bytes(32).try_into().expect("32 bytes")
    }
}
