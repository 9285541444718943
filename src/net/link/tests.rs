//! Real QUIC over loopback: what a link carries, refuses, and gives up.

use std::net::Ipv4Addr;
use std::time::Instant;

use serde_bytes::ByteBuf;

use super::listener::Listener;
use super::*;
use crate::net::identity::Identity;
use ground::faults::{Fault, Faulty as _};
use ground::limits::{MESSAGE_BYTES_MAX, REQUESTS_PER_CONNECTION, STRANGER_WINDOW};
use protocol::address::{Fingerprint, ProxyUrl};

/// A proxy's end on a free port, and how an agent finds it.
struct Proxy {
    listener: Listener,
    url: ProxyUrl,
    options: Options,
    _folder: tempfile::TempDir,
}

impl Proxy {
    fn start(options: Options) -> Self {
        Self::start_for(options, tls::PROTOCOL)
    }

    fn start_for(options: Options, protocol: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = Listener::bind_for(address, &identity, &options, protocol).expect("a free port");
        let port = listener.local_address().expect("an address").port();
        let url = ProxyUrl::new("127.0.0.1", port, identity.fingerprint()).expect("an address");
        Self { listener, url, options, _folder: folder }
    }

    /// An agent's connection and the proxy's end of it.
    async fn pair(&mut self) -> (Connection, Connection) {
        let (agent, proxy) = tokio::join!(connect(&self.url, &self.options), self.listener.accept());
        let proxy = proxy.expect("a connection");
        proxy.prove(u32::MAX).expect("nobody else is there");
        (agent.expect("a connection"), proxy)
    }

    /// The same where the agent has not said who it is.
    async fn strangers(&mut self) -> (Connection, Connection) {
        let (agent, proxy) = tokio::join!(connect(&self.url, &self.options), self.listener.accept());
        (agent.expect("a connection"), proxy.expect("a connection"))
    }
}

/// A stream on which the agent has said one word, as a stream begins to exist only then.
async fn stream(agent: &Connection, proxy: &Connection) -> ((Sender, Receiver), (Sender, Receiver)) {
    let (mut sender, receiver) = agent.open().await.expect("a stream");
    sender.send("hello").await.expect("sent");
    let (answer, mut request) = proxy.accept().await.expect("a live connection").expect("a stream");
    assert_eq!(request.receive::<String>().await.expect("a message").as_deref(), Some("hello"));
    ((sender, receiver), (answer, request))
}

fn impatient() -> Options {
    let silence_max = Duration::from_millis(100);
    Options { silence_max, pause_max: silence_max, ..Options::default() }
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_both_ways() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    assert!(agent.is_loopback() && served.is_loopback());
    let echo = async {
        let (mut sender, mut receiver) = served.accept().await.expect("live").expect("a stream");
        while let Some(message) = receiver.receive::<(u64, ByteBuf)>().await.expect("a message") {
            sender.send(&message).await.expect("sent");
        }
        sender.finish().expect("finished");
    };
    let talk = async {
        let (mut sender, mut receiver) = agent.open().await.expect("a stream");
        for (number, length) in [0, 1, 100, 16_384, 70_000, 1_000_000].into_iter().enumerate() {
            let message = (number as u64, ByteBuf::from(vec![7; length]));
            sender.send(&message).await.expect("sent");
            assert_eq!(receiver.receive().await.expect("a message"), Some(message));
        }
        sender.finish().expect("finished");
        assert_eq!(receiver.receive::<u64>().await.expect("a clean end"), None);
    };
    tokio::join!(echo, talk);
    let started = Instant::now();
    let (end, ()) = tokio::join!(served.accept(), agent.finish());
    assert!(end.expect("a clean end").is_none());
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_proxy_with_another_key_is_refused_by_name() {
    let mut proxy = Proxy::start(Options::default());
    let (right, wrong) = (proxy.url.fingerprint(), Fingerprint::of_key(b"another"));
    let url = ProxyUrl::new("127.0.0.1", proxy.url.port(), wrong).expect("an address");
    let error = tokio::select! {
        result = connect(&url, &proxy.options) => result.expect_err("another key"),
        _ = proxy.listener.accept() => panic!("the agent ends the handshake"),
    };
    assert_eq!(error.fault(), Fault::Denied);
    assert!(
        matches!(error, Error::WrongFingerprint { expected, found } if (expected, found) == (wrong, right))
    );
}

#[tokio::test]
async fn another_protocol_is_a_matter_of_versions() {
    let mut proxy = Proxy::start_for(Options::default(), b"whit/2");
    let error = tokio::select! {
        result = connect(&proxy.url, &proxy.options) => result.expect_err("another protocol"),
        _ = proxy.listener.accept() => panic!("the proxy ends the handshake"),
    };
    assert!(matches!(error, Error::NoCommonVersion(_)), "{error}");
    assert_eq!(error.fault(), Fault::Version);
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_no_such_host_is_missing() {
    let options = Options { connect_time_max: Duration::from_millis(100), ..Options::default() };
    // The port stays taken, so that nothing else can answer there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("an address").port();
    let url = ProxyUrl::new("127.0.0.1", port, Fingerprint::of_key(b"")).expect("an address");
    let error = connect(&url, &options).await.expect_err("nobody");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let url = ProxyUrl::new("no-such-host.invalid", port, Fingerprint::of_key(b"")).expect("an address");
    let error = connect(&url, &options).await.expect_err("nobody");
    assert!(matches!(error, Error::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused() {
    let mut proxy = Proxy::start(Options { connections_max: 2, ..Options::default() });
    let _first = proxy.pair().await;
    // The second proves its address first.
    let _second = proxy.pair().await;
    let error = tokio::select! {
        result = connect(&proxy.url, &proxy.options) => result.expect_err("one too many"),
        _ = proxy.listener.accept() => panic!("the proxy refuses it"),
    };
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert_eq!(error.fault(), Fault::Retry);
}

#[tokio::test]
async fn a_stranger_has_one_stream_and_a_few_kib_until_it_is_proven() {
    let mut proxy = Proxy::start(impatient());
    let (agent, served) = proxy.strangers().await;
    let (mut sender, _answers) = agent.open().await.expect("a stream");
    let error = agent.open().await.expect_err("no second stream");
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    let sent = sender.stream.write(&vec![0; 64 * 1024]).await.expect("sent");
    assert_eq!(sent, STRANGER_WINDOW as usize);
    let more = tokio::time::timeout(Duration::from_millis(100), sender.stream.write(&[0])).await;
    assert!(more.is_err(), "the window is full, and nobody reads");
    served.prove(u32::MAX).expect("nobody else is there");
    sender.stream.write_all(&vec![0; 128 * 1024]).await.expect("the window is wide");
    agent.open().await.expect("a second stream");
}

#[tokio::test]
async fn the_beginning_of_a_message_is_read_before_the_rest_has_come() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.strangers().await;
    let (mut sender, _answers) = agent.open().await.expect("a stream");
    let message = ("a token", ByteBuf::from(vec![7; 500_000]));
    let send = async {
        sender.send(&message).await.expect("sent");
        sender
    };
    let receive = async {
        let (_, mut receiver) = served.accept().await.expect("live").expect("a stream");
        let is_there = |bytes: &[u8]| bytes.get(..9).map(<[u8]>::to_vec);
        let begins = receiver.peek(4096, is_there).await.expect("a message");
        assert_eq!(begins.as_deref(), Some(b"\x92\xa7a token".as_slice()));
        assert!(receiver.arrived.len() <= 4096 + 4);
        served.prove(u32::MAX).expect("nobody else is there");
        receiver.receive::<(String, ByteBuf)>().await.expect("a message").expect("one")
    };
    let (_sender, (token, content)) = tokio::join!(send, receive);
    assert_eq!((token.as_str(), content.len()), ("a token", 500_000));
}

#[tokio::test]
async fn a_message_that_does_not_begin_as_it_should_costs_its_first_bytes() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.strangers().await;
    let (mut sender, _answers) = agent.open().await.expect("a stream");
    sender.stream.write_all(&[0, 0, 16, 0]).await.expect("sent");
    sender.stream.write_all(&[1; 8000]).await.expect("sent");
    let (_, mut receiver) = served.accept().await.expect("live").expect("a stream");
    let error = receiver.peek(4096, |_| None::<()>).await.expect_err("nothing");
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    assert_eq!(receiver.arrived.len(), 4096 + 4);
}

#[tokio::test]
async fn strangers_beyond_the_bound_give_way_to_new_ones_and_those_who_are_known_stay() {
    let mut proxy = Proxy::start(Options { strangers_max: 2, ..Options::default() });
    let (known, _served) = proxy.pair().await;
    let (first, served_first) = proxy.strangers().await;
    let (_second, _served_second) = proxy.strangers().await;
    let (third, served) = proxy.strangers().await;
    let error = first.closed().await.expect_err("it gave way");
    assert_eq!(error.fault(), Fault::Retry);
    served.prove(u32::MAX).expect("it is there");
    assert!(matches!(served_first.prove(u32::MAX), Err(Error::Ended)));
    assert!(third.open().await.is_ok() && known.open().await.is_ok());
}

#[tokio::test]
async fn a_stopping_proxy_waits_for_those_who_are_known_and_for_no_stranger() {
    let mut proxy = Proxy::start(Options::default());
    let (known, _served) = proxy.pair().await;
    let (stranger, _stranger) = proxy.strangers().await;
    let begin = Instant::now();
    let drain = proxy.listener.drain(Duration::from_secs(600));
    let watch = async {
        assert!(stranger.closed().await.is_err());
        assert!(known.open().await.is_ok(), "it may go on");
        known.finish().await;
    };
    tokio::join!(drain, watch);
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_neither_sent_nor_received() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    let large = ByteBuf::from(vec![0; MESSAGE_BYTES_MAX]);
    assert!(matches!(sender.send(&large).await, Err(Error::TooLarge { .. })));
    sender.send(&1u8).await.expect("the stream is as it was");
    assert_eq!(receiver.receive().await.expect("a message"), Some(1u8));
    sender.stream.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
    assert!(matches!(receiver.receive::<u8>().await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_peer_that_announces_much_and_sends_nothing_costs_its_deadline_and_no_memory() {
    let mut proxy = Proxy::start(impatient());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    let announced = u32::try_from(MESSAGE_BYTES_MAX).expect("1 MiB");
    sender.stream.write_all(&announced.to_le_bytes()).await.expect("sent");
    let error = receiver.receive::<ByteBuf>().await.expect_err("silence");
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    assert!(receiver.arrived.capacity() < 1000);
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_a_sender_its_deadline() {
    let mut proxy = Proxy::start(impatient());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), _unread) = stream(&agent, &served).await;
    let message = ByteBuf::from(vec![0; MESSAGE_BYTES_MAX - 5]);
    let mut sent = 0;
    let error = loop {
        match sender.send(&message).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    assert!(sent <= 24, "the windows bound what is taken over: {sent} MiB");
}

#[tokio::test]
async fn a_message_cut_short_is_an_error_and_not_an_end() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    sender.stream.write_all(&[100, 0, 0, 0, 1, 2, 3]).await.expect("sent");
    sender.finish().expect("finished");
    let error = receiver.receive::<ByteBuf>().await.expect_err("a message cut short");
    assert!(matches!(error, Error::Cut { expected: 100, found: 3 }), "{error}");
    assert_eq!(error.fault(), Fault::Corrupt);
}

#[tokio::test]
async fn a_peer_that_gives_up_says_why() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;

    let ((sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    sender.reset(Fault::Full);
    let error = receiver.receive::<u8>().await.expect_err("given up");
    assert!(matches!(error, Error::Closed { fault: Fault::Full, .. }), "{error}");

    let ((dropped, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    drop(dropped);
    let error = receiver.receive::<u8>().await.expect_err("given up");
    assert!(matches!(error, Error::Closed { fault: Fault::Retry, .. }), "{error}");

    let ((mut sender, _answers), (_, receiver)) = stream(&agent, &served).await;
    receiver.stop(Fault::Input);
    let error = loop {
        match sender.send(&0u8).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Closed { fault: Fault::Input, .. }), "{error}");

    let ((mut sender, mut receiver), _served) = stream(&agent, &served).await;
    sender.stream.write_all(&[100, 0, 0, 0, 1]).await.expect("sent");
    served.close(Fault::Denied, "token revoked\x1b[2J");
    let error = receiver.receive::<u8>().await.expect_err("closed");
    assert_eq!(error.to_string(), "the peer ended the request: token revoked [2J");
    assert_eq!(error.fault(), Fault::Denied);
    assert!(agent.closed().await.is_err());
    assert!(matches!(served.open().await, Err(Error::Ended)));
}

#[tokio::test]
async fn bytes_that_are_no_message_are_malformed() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    // A string of 4 GiB inside 5 bytes.
    sender.stream.write_all(&[5, 0, 0, 0, 0xdb, 0xff, 0xff, 0xff, 0xff]).await.expect("sent");
    assert!(matches!(receiver.receive::<String>().await, Err(Error::Malformed { bytes: 5 })));
    sender.send("and the next is whole").await.expect("sent");
    assert!(receiver.receive::<String>().await.is_ok());
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let ((mut sender, _answers), (_, mut receiver)) = stream(&agent, &served).await;
    sender.stream.write_all(&[3, 0, 0]).await.expect("sent");
    let cancelled = tokio::time::timeout(Duration::from_millis(50), receiver.receive::<String>()).await;
    assert!(cancelled.is_err() && !receiver.arrived.is_empty());
    sender.stream.write_all(&[0, 0xa2, b'h', b'i']).await.expect("sent");
    assert_eq!(receiver.receive::<String>().await.expect("a message").as_deref(), Some("hi"));
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_for_their_turn() {
    let mut proxy = Proxy::start(impatient());
    let (agent, served) = proxy.pair().await;
    let mut open = Vec::new();
    for _ in 0..REQUESTS_PER_CONNECTION {
        open.push(stream(&agent, &served).await);
    }
    assert!(matches!(agent.open().await, Err(Error::Silent { .. })));
    open.clear();
    agent.open().await.expect("their place is free again");
}

#[tokio::test]
async fn a_draining_listener_refuses_the_new_and_waits_for_the_rest() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let (url, options) = (proxy.url.clone(), proxy.options.clone());
    let work = async {
        let error = connect(&url, &options).await.expect_err("no longer taken");
        assert!(matches!(error, Error::Refused(_)), "{error}");
        stream(&agent, &served).await;
        agent.finish().await;
    };
    let started = Instant::now();
    tokio::join!(proxy.listener.drain(Duration::from_secs(20)), work);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_listener_that_drained_in_vain_tells_the_agents() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, _served) = proxy.pair().await;
    proxy.listener.drain(Duration::from_millis(10)).await;
    let error = agent.closed().await.expect_err("closed");
    assert_eq!(error.to_string(), "the peer ended the request: the proxy is stopping");
}

/// Measured: the handshake takes 2,400 B up and 1,246 B down, in two datagrams each; with a short message
/// each way and the end it is 2,484 and 1,337 B.
#[tokio::test]
async fn both_sides_count_the_same_and_a_handshake_stays_small() {
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let handshake = agent.counters();
    let ((_sender, mut receiver), (mut sender, _request)) = stream(&agent, &served).await;
    sender.send("hello").await.expect("sent");
    receiver.receive::<String>().await.expect("a message");
    agent.clone().finish().await;
    assert!(served.closed().await.is_ok());
    let (agent, served) = (agent.counters(), served.counters());
    println!("handshake {handshake:?}\nagent {agent:?}\nproxy {served:?}");
    assert_eq!(agent.sent_bytes, served.received_bytes);
    // The proxy's last acknowledgement may meet a socket that is gone.
    assert!(served.sent_bytes - agent.received_bytes < 200);
    assert!(handshake.sent_bytes + handshake.received_bytes < 4000);
    assert!(agent.sent_bytes + served.sent_bytes < 4200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transfer_over_loopback_keeps_its_large_datagrams() {
    const MESSAGES: u64 = 800;
    let mut proxy = Proxy::start(Options::default());
    let (agent, served) = proxy.pair().await;
    let started = Instant::now();
    let receive = tokio::spawn({
        let served = served.clone();
        async move {
            let (mut answer, mut receiver) = served.accept().await.expect("live").expect("a stream");
            let mut total = 0;
            while let Some(message) = receiver.receive::<ByteBuf>().await.expect("a message") {
                total += message.len() as u64;
            }
            answer.send(&total).await.expect("sent");
            answer.finish().expect("finished");
        }
    });
    let (mut sender, mut answer) = agent.open().await.expect("a stream");
    let message = ByteBuf::from(vec![9; 64 * 1024]);
    for _ in 0..MESSAGES {
        sender.send(&message).await.expect("sent");
    }
    sender.finish().expect("finished");
    assert_eq!(answer.receive::<u64>().await.expect("a message"), Some(MESSAGES * 64 * 1024));
    receive.await.expect("the proxy's end");
    let counters = agent.counters();
    println!("{:?} for {} MiB: {counters:?}", started.elapsed(), MESSAGES / 16);
    assert_eq!((counters.mtu, served.counters().mtu), (6400, 6400));
    assert!(counters.sent_bytes < MESSAGES * 64 * 1024 * 105 / 100);
}
