//! Every bound that whit puts on what a peer or a disk can make it spend.
//!
//! A value from outside is compared with one of these before memory, disk or time is spent on it.
//! Lengths are bytes unless the name says otherwise.

use std::time::Duration;

/// 64 KiB: the largest chunk of any profile; a frame holds several.
pub const CHUNK_BYTES_MAX: u32 = 64 * 1024;
/// 256 KiB: plain bytes gathered into one frame: enough neighbours for zstd, little to decode for one chunk.
pub const FRAME_PLAIN_TARGET: usize = 256 * 1024;
/// 320 KiB: a frame at its target plus one more chunk.
pub const FRAME_PLAIN_MAX: usize = FRAME_PLAIN_TARGET + CHUNK_BYTES_MAX as usize;
/// Chunks in one frame; also bounds the frame's table.
pub const FRAME_CHUNKS_MAX: usize = 1024;
/// Bytes of a frame's payload: its plain bytes, as raw is always possible.
pub const FRAME_STORED_MAX: usize = FRAME_PLAIN_MAX;
/// 64 MiB: a pack is sealed when it reaches this.
pub const PACK_BYTES_TARGET: u64 = 64 * 1024 * 1024;
/// Chunks of one pack, which bounds the memory of an unsealed one: a pack is sealed at half of this; a reader accepts twice
/// as many.
pub const PACK_CHUNKS_MAX: usize = 64 * 1024;
/// Spaces that stay open while they are idle: 64 of some ten files and up to 10 MB each.
pub const SPACES_OPEN_MAX: usize = 64;
/// New chunks that a space holds in memory, some 75 B each, until they become a run of its index: 10 MB.
pub const INDEX_RECENT_CHUNKS: usize = 128 * 1024;
/// Runs of an index; more are merged. A lookup queries each, and mostly reads from one.
pub const INDEX_RUNS_MAX: usize = 6;

/// 1 MiB: the largest message on a control stream, and the largest batch of chunks.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Names or marks in one message, so that it stays below [`MESSAGE_BYTES_MAX`].
pub const MESSAGE_ITEMS_MAX: usize = 32 * 1024;
/// Segment names that travel with `Open` itself: 64 KiB, those of a release of 16 GiB; they save a round trip.
pub const OPEN_NAMES_MAX: usize = 16 * 1024;
/// Steps of an outline: 500 KB at most; a manifest that differs more is sent by names.
pub const OUTLINE_STEPS_MAX: usize = 32 * 1024;
/// Plain bytes of segments in one message.
pub const SEGMENT_BATCH_BYTES: usize = 128 * 1024;
/// 16 MiB: new segments of a pull that are sent thin; the agent holds them until their chunks arrive.
pub const PULL_THIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// 8 MiB: plain bytes of one parcel; enough for a long window, and few enough to hold several.
pub const PARCEL_PLAIN_MAX: usize = 8 * 1024 * 1024;
/// 16 MiB: bytes of the older content that one parcel is encoded against.
pub const PARCEL_BASIS_MAX: usize = 16 * 1024 * 1024;
/// Chunks of one parcel: four times as many as fit at average size.
pub const PARCEL_CHUNKS_MAX: usize = 2048;
/// Runs of older chunks that one parcel is encoded against.
pub const PARCEL_SPANS_MAX: usize = 4096;
/// 256 KiB: a piece of a parcel in one message.
pub const PARCEL_PIECE_BYTES: usize = 256 * 1024;
/// 256 KiB: the least executable that is sent by its functions; below, the gain is small.
pub const EXECUTABLE_BYTES_MIN: u64 = 256 * 1024;
/// 128 MiB: the largest executable that is sent by its functions. The proxy takes up to 4 times as much to rebuild one,
/// for one push at a time.
pub const EXECUTABLE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Chunks of one executable, at the smallest size of the default profile.
pub const EXECUTABLE_CHUNKS_MAX: usize = 32 * 1024;
/// Bytes of an older executable for each byte of chunks encoded against it: an agent that sends an eighth of a file
/// against one that was eight times as large. Bounds the work that little content can cause.
pub const EXECUTABLE_BASIS_RATIO_MAX: usize = 64;
/// 32 MiB: the payload of one encoded executable; one that takes more hardly resembles its older version.
pub const EXECUTABLE_PAYLOAD_MAX: usize = 32 * 1024 * 1024;
/// 8 MiB: names of records that one push may query, for some gigabyte of executables.
pub const RECORD_QUERY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Executables whose records one push may query.
pub const RECORD_QUERIES_MAX: usize = 4096;
/// 1 MiB: answers to all record queries of one push: a bit for each name, and for every 64 a check of 2 bytes, with room to
/// spare.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The interval between checks of a conversation's token, each of which looks up one file.
pub const TOKEN_CHECK_EVERY: Duration = Duration::from_secs(2);
/// New tokens in one conversation: one a minute, for a day and more.
pub const RENEWALS_MAX: usize = 2048;
/// 16 MiB: the chunks of one proof, which are read for nothing where it is wrong.
pub const PROOF_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// 64 GiB: content that one push may prove, some minutes of reading and hashing on either side; the rest is sent.
pub const PROVEN_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// 512 Ki, some 20 MB: chunks remembered, in one push, as the agent's own; others are proven again.
pub const OWN_CHUNKS_MAX: usize = 512 * 1024;
/// 512 Ki, some 20 MB: chunks of readable releases remembered in one push, some 4 GiB; others are proven.
pub const READABLE_CHUNKS_MAX: usize = 512 * 1024;

/// Segments of 2 KiB: a manifest of about 1 GiB, some 450 GiB of content.
pub const MANIFEST_SEGMENTS_MAX: usize = 512 * 1024;
/// 4 KiB: Linux's own limit on a path.
pub const PATH_BYTES_MAX: usize = 4096;
/// Linux's own limit on one name.
pub const NAME_BYTES_MAX: usize = 255;
/// Directories below one another; bounds every walk.
pub const PATH_DEPTH_MAX: usize = 256;
/// Some more than that: folders below one another in a directory that people may have changed. Bounds the stack (1.3 MB
/// without optimisation) and the open files of a walk or a removal.
pub const FOLDER_DEPTH_MAX: usize = PATH_DEPTH_MAX + 64;
/// Files of one release with hard links, and its symbolic links: 16 MiB of memory each.
pub const LINKS_MAX: usize = 1024 * 1024;
/// 8 EiB: sizes fit a file offset.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// 64 MiB: the room that a delivery or a pull leaves free on a file system that others use too …
pub const ROOM_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// … or a twentieth of it, where that is less.
pub const ROOM_RESERVE_PART: u64 = 20;

/// 4 GiB: bytes of an unpacked archive; with the next two, it bounds the cost of rebuilding it.
pub const STREAM_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of a stream for each byte of its archive.
pub const STREAM_RATIO_MAX: u64 = 200;
/// 1 MiB: bytes that a stream may have, however short its archive.
pub const STREAM_BYTES_FREE: u64 = 1024 * 1024;
/// Chunks of one stream, 19 MB of memory while its archive is rebuilt.
pub const STREAM_CHUNKS_MAX: u64 = 512 * 1024;

/// Chunks a proxy has asked one push for and not yet received, and references of segments that wait for
/// some: 4 GiB of content.
pub const PUSH_CHUNKS_IN_FLIGHT: usize = 256 * 1024;
/// Steps of a push under way at a time: each is a `Segments` or `Sketches` message until it is answered and the chunks that
/// the answer asks for are sent. Bounds the chunks asked for and not yet received to some 30,000, and keeps the link busy
/// over any round trip.
pub const PUSH_STEPS_OPEN: usize = 8;
/// 4 MiB: signatures in the answer to one step: four times those of a step whose chunks had all changed in a few places.
pub const ANSWER_SIGNED_MAX: usize = 4 * 1024 * 1024;
/// 40 MiB: replies of a push that may wait: the answers to all steps that may be under way, to all offers, and the
/// messages between. Each side can hold as many, so that neither stops reading while its own messages wait.
pub const PUSH_REPLIES_MAX: usize = 40 * 1024 * 1024;
/// 4 MiB: memory that a push or a pull may hold in any case; most hold less …
pub const REQUEST_HELD_FREE: usize = 4 * 1024 * 1024;
/// … and 2 GiB: memory that all together may hold beyond it, shared by the users: segments that wait for chunks, unread
/// answers, incomplete parcels, the changed part of a base. A request without a share ends, to be tried again.
pub const REQUESTS_HELD_TOTAL: u64 = 2 * 1024 * 1024 * 1024;
/// Requests of one pull that may be unanswered: more than twice what an agent has under way.
pub const PULL_REQUESTS_OPEN: usize = 16;
/// Sketches in one message: more than a batch of segments has chunks; each may be answered by a signature.
pub const SKETCHES_MAX: usize = 4096;
/// Labels, destinations or patterns in one request or token.
pub const LIST_MAX: usize = 64;
/// Proxies that a release may come through.
pub const HOPS_MAX: usize = 8;
/// Bytes of the last lines that a target reports of a failed hook or check.
pub const TARGET_OUTPUT_BYTES_MAX: usize = 4096;
/// Bytes of the reason that a target reports.
pub const TARGET_REASON_BYTES_MAX: usize = 1024;
/// 16 KiB: a message of a target, whose texts are bounded by the two above and its token by [`TOKEN_BYTES_MAX`].
pub const TARGET_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Targets of one application that a proxy remembers: some 10 MB of memory.
pub const TARGETS_PER_APP_MAX: usize = 10_000;
/// Targets that watch a proxy at a time, shared by the users; each costs a connection of some 50 KB as well.
pub const WATCHERS_MAX: u64 = 4096;
/// How often a target that watches and its proxy say that they are there.
pub const TARGET_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// The silence after which the other side of a watching target's stream counts as gone.
pub const TARGET_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Deliveries of one user that may wait for one destination; the same one asked for again waits with the first.
pub const DELIVERIES_PER_USER_MAX: usize = 64;
/// Bytes of a token as text.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Connections one proxy serves at a time, strangers' included; users share the rest.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections that a proxy holds, including those that are ending, which take QUIC some seconds (RFC 9000, section 10.2).
pub const CONNECTIONS_HELD_MAX: usize = 2 * CONNECTIONS_MAX;
/// Connections that have not shown a valid token yet: a quarter of all. Beyond it, a new one replaces the oldest of the
/// address that has most of them.
pub const STRANGERS_MAX: usize = 1024;
/// 16 KiB: unread bytes of a peer that has not shown a valid token. QUIC lets an agent send about as much in its first flight
/// anyway (RFC 9002, section 7.2), after which the window is wide.
pub const STRANGER_WINDOW: u32 = 16 * 1024;
/// How long a peer may take to show a valid token once the connection is made: enough for a first flight at 1 kB/s.
pub const STRANGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests with an invalid token that a stranger may make, like an agent that tries an older one.
pub const STRANGER_TRIES_MAX: u32 = 4;
/// The time that a stopping proxy waits for a stranger that may be about to show its token.
pub const STRANGER_DRAIN_MAX: Duration = Duration::from_secs(1);
/// Addresses that have shown a valid token and that a proxy remembers: their strangers are replaced last.
pub const ADDRESSES_KNOWN_MAX: usize = 4096;
/// Strangers of one such address that are replaced last: more than the agents of one address that connect at a time.
pub const STRANGERS_KNOWN_MAX: usize = 64;
/// 1 GiB: unread bytes that all connections of a proxy together may hold. A connection without a share has
/// [`WINDOW_BYTES_MIN`].
pub const WINDOW_BYTES_TOTAL: u64 = 1024 * 1024 * 1024;
/// 64 KiB: the window of a connection without a share: 640 kB/s at 100 ms.
pub const WINDOW_BYTES_MIN: u32 = 64 * 1024;
/// Bytes of a request before its operation: the frame of the message, the version and the token.
pub const REQUEST_HEAD_BYTES_MAX: usize = TOKEN_BYTES_MAX + 16;
/// Requests that a proxy serves at a time, each on a thread, shared by its users; further ones are refused, to be tried again.
pub const REQUESTS_MAX: u64 = 512;
/// Requests that read whole releases, like a difference, shared by the users; each holds some 32 MiB while it works.
pub const READERS_MAX: u64 = 64;
/// Those of them that work at a time; the others wait in order of arrival.
pub const READERS_AT_WORK_MAX: usize = 4;
/// Requests under way on one connection.
pub const REQUESTS_PER_CONNECTION: u32 = 16;
/// 10 s: two pings that keep a connection alive. An agent that gives up sooner than the transport (`--retry-for`)
/// waits in complete silence for at least this long.
pub const UNHEARD_TIME_MIN: Duration = Duration::from_secs(10);
/// The time that a peer may stay silent inside a message.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a peer may work silently between two messages of a request. The connection notices within half a
/// minute that a peer is gone; this limit is for one that is alive and has nothing to send, as a proxy
/// that commits a release of hundreds of gigabytes, or delivers one.
pub const PEER_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// 256 MiB: a whole answer to a query, such as the difference of two releases of a million files with long paths. The agent
/// holds it in memory.
pub const ANSWER_TOTAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The time for a whole answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The same for operations on a whole store or on what destinations hold, and for deliveries, which are tried for a day.
pub const ANSWER_TIME_LONG_MAX: Duration = Duration::from_secs(25 * 60 * 60);
/// The time after which an agent without a request yet identifies itself, so that the proxy does not end the connection.
pub const INTRODUCTION_TIME: Duration = Duration::from_secs(4);
/// How long a conversation may go on without progress: without [`PROGRESS_BYTES_MIN`] of something new that is stored,
/// sent or requested.
pub const PROGRESS_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// The same for an agent that pulls, whose proxy may work silently for [`PEER_PAUSE_MAX`]: twice that.
pub const PULL_PROGRESS_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// 16 KiB: the least that counts as progress. The slowest link on which a push succeeds carries some 600 B a second, as a
/// message must arrive within [`PROGRESS_TIME_MAX`].
pub const PROGRESS_BYTES_MIN: u64 = 16 * 1024;
/// How often a working proxy reports that it is alive.
pub const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long a proxy may report only that it is alive: while it rebuilds archives, or makes long deliveries.
pub const WORK_TIME_MAX: Duration = Duration::from_secs(6 * 3600);
/// The time to make a connection.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The time that `serve` waits for work under way after Ctrl-C.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
