//! What grows with a store: the index of many chunks, and garbage that is collected beside pushes.
//!
//! ```text
//! cargo bench --bench scale -- index 10000000         packs without an index are opened, chunks looked up
//! cargo bench --bench scale -- grow 5000000           chunks come to a store that stays open: its memory
//! cargo bench --bench scale -- releases 100000        pushes to an application that has so many releases
//! cargo bench --bench scale -- gc 1000000             half of all chunks die, in every pack; pushes go on
//! ```
//!
//! Chunks are tiny, so that packs are nothing but what the index is made of. `TMPDIR` is heeded. Without
//! arguments all of it runs with few chunks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use delta::compression::Codec;
use format::manifest::{Builder, EntryPath, Item, Profile, Segment, Shape};
use format::pack::{self, Footer, Frame, FrameKind, PackId};
use format::recipe::{ChunkRef, Recipe};
use format::record::{Cost, Record};
use ground::ids::ChunkId;
use whit::store::{Options, Place, Records, Store};

/// As many as a pack takes before it is sealed.
const PACK_CHUNKS: u64 = 32_000;
const FRAME_CHUNKS: u64 = 1000;
const LOOKUPS: u64 = 500_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let count =
        |default: u64| arguments.get(1).map_or(default, |text| text.parse().expect("a number of chunks"));
    match arguments.first().map(String::as_str) {
        Some("index") => index(count(10_000_000)),
        Some("grow") => grow(count(5_000_000)),
        Some("releases") => releases(count(100_000)),
        Some("gc") => collect(count(1_000_000)),
        Some(other) => panic!("there is no `{other}` to measure"),
        None => {
            index(100_000);
            grow(200_000);
            releases(100);
            collect(50_000);
        }
    }
}

fn id(number: u64) -> ChunkId {
    ChunkId::of(&number.to_le_bytes())
}

/// MiB that a process has in memory at most, and now.
fn memory(process: &str) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("this is Linux");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
    };
    (field("VmHWM"), field("VmRSS"))
}

/// What this process has used of processors: on a machine with other work it says more than the time that passed.
fn processor() -> Duration {
    processor_of("self")
}

fn processor_of(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("this is Linux");
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1;
    // proc(5): fields 14 and 15, in ticks of 10 ms.
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Measures the time and the processors' time from its making on.
struct Watch(Instant, Duration);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), processor())
    }

    fn rate(&self, count: u64) -> String {
        let (time, used) = (self.0.elapsed(), processor().saturating_sub(self.1));
        let rate = |time: Duration| u128::from(count) / time.as_millis().max(1);
        let (seconds, used_seconds) = (time.as_secs_f64(), used.as_secs_f64());
        format!("{seconds:.2} s, {} k/s; of processors {used_seconds:.2} s, {} k/s", rate(time), rate(used))
    }
}

/// A sealed pack of the chunks with these numbers.
fn write_pack(packs: &Path, pack: u64, numbers: std::ops::Range<u64>) {
    let name = PackId::from_bytes(
        u128::from(pack).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
    );
    let mut bytes = pack::header(name).to_vec();
    let mut footer = Footer::default();
    let mut at = numbers.start;
    while at < numbers.end {
        let end = (at + FRAME_CHUNKS).min(numbers.end);
        let chunks: Vec<ChunkRef> = (at..end).map(|number| ChunkRef { id: id(number), bytes: 8 }).collect();
        let payload = (at..end).flat_map(u64::to_le_bytes).collect();
        let offset = bytes.len() as u64;
        Frame { kind: FrameKind::Content, codec: Codec::Raw, chunks: chunks.clone(), payload }
            .encode(&mut bytes);
        let length = u32::try_from(bytes.len() as u64 - offset).expect("a frame is small");
        footer.add(offset, length, FrameKind::Content, chunks.into_iter());
        at = end;
    }
    let end = bytes.len() as u64;
    bytes.extend_from_slice(&footer.encode(end));
    let view = packs.join(&name.to_string()[..2]);
    fs::create_dir_all(&view).expect("created");
    fs::write(view.join(format!("{name}.pack")), bytes).expect("written");
}

/// Looks chunks up in no order.
fn look_up(what: &str, count: u64, find: impl Fn(&ChunkId) -> Option<Place>) {
    for (kind, first) in [("found", 0), ("not found", count)] {
        let ids: Vec<ChunkId> = (0..LOOKUPS)
            .map(|number| id(first + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count))
            .collect();
        let watch = Watch::start();
        let found = ids.iter().filter(|id| find(id).is_some()).count();
        assert_eq!(found as u64, if first == 0 { LOOKUPS } else { 0 });
        println!("{what}: {LOOKUPS} lookups, {kind}: {}", watch.rate(LOOKUPS));
    }
}

fn index(count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let packs = folder.path().join("packs");
    for (pack, first) in (0..count).step_by(usize::try_from(PACK_CHUNKS).expect("small")).enumerate() {
        write_pack(&packs, pack as u64, first..(first + PACK_CHUNKS).min(count));
    }
    let open = || {
        let watch = Watch::start();
        let store =
            Store::open(folder.path(), Options { reserve_bytes: 0, ..Options::default() }).expect("opened");
        (store, watch.rate(count))
    };
    let (store, rate) = open();
    let (peak, now) = memory("self");
    println!("index of {count} chunks, built from packs: {rate}; peak {peak} MiB, then {now} MiB");
    look_up("index", count, |id| store.find(id).expect("readable"));
    println!("index: {} MiB after the lookups", memory("self").1);
    drop(store);
    let (_store, rate) = open();
    println!("index: opened again: {rate}");
}

/// Appends chunks straight to a store that is never closed meanwhile.
fn grow(count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { reserve_bytes: 0, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a new store");
    let before = memory("self").1;
    let watch = Watch::start();
    for first in (0..count).step_by(usize::try_from(FRAME_CHUNKS).expect("small")) {
        let end = (first + FRAME_CHUNKS).min(count);
        let chunks = (first..end).map(|number| ChunkRef { id: id(number), bytes: 8 }).collect();
        let payload = (first..end).flat_map(u64::to_le_bytes).collect();
        let frame = Frame { kind: FrameKind::Content, codec: Codec::Raw, chunks, payload };
        store.append(&frame).expect("appended");
        if end.is_multiple_of((count / 5).next_multiple_of(FRAME_CHUNKS)) {
            println!("grow: {end} chunks: {} MiB more", memory("self").1 - before);
        }
    }
    store.settle().expect("sealed");
    let (peak, now) = memory("self");
    let bytes = (now - before) * 1024 * 1024 / count;
    println!(
        "grow: {count} chunks: {}; {} MiB more, {bytes} B a chunk; peak {peak}",
        watch.rate(count),
        now - before
    );
    look_up("grow", count, |id| store.find(id).expect("readable"));
    println!("grow: {} MiB after the lookups", memory("self").1);
    let watch = Watch::start();
    drop(store);
    println!("grow: closed: {}", watch.rate(count));
    let watch = Watch::start();
    let store = Store::open(folder.path(), options).expect("opened");
    println!("grow: opened again: {}", watch.rate(count));
    look_up("grow, opened again", count, |id| store.find(id).expect("readable"));
}

const RELEASES: u64 = 20;
const CHUNK_BYTES: u64 = 256;

/// A store of so many chunks: chunk `n` is of release `n % RELEASES`.
fn fill(folder: &Path, count: u64) {
    let store = Store::open(folder, Options { reserve_bytes: 0, ..Options::default() }).expect("a new store");
    let content = |number: u64| {
        let mut bytes = vec![0; usize::try_from(CHUNK_BYTES).expect("small")];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    let mut releases: Vec<Vec<ChunkRef>> = vec![Vec::new(); usize::try_from(RELEASES).expect("few")];
    for first in (0..count).step_by(usize::try_from(FRAME_CHUNKS).expect("small")) {
        let parts: Vec<Vec<u8>> = (first..(first + FRAME_CHUNKS).min(count)).map(content).collect();
        let chunks: Vec<ChunkRef> = parts
            .iter()
            .map(|part| ChunkRef { id: ChunkId::of(part), bytes: u32::try_from(part.len()).expect("small") })
            .collect();
        for (number, chunk) in (first..).zip(&chunks) {
            releases[usize::try_from(number % RELEASES).expect("few")].push(*chunk);
        }
        let frame = Frame { kind: FrameKind::Content, codec: Codec::Raw, chunks, payload: parts.concat() };
        store.append(&frame).expect("appended");
    }
    for (number, chunks) in releases.into_iter().enumerate() {
        let mut builder = Builder::new(Profile::DEFAULT);
        let mut segments: Vec<Segment> = Vec::new();
        for (file, chunks) in chunks.chunks(1000).enumerate() {
            let size = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            let path = EntryPath::new(format!("{file:06}")).expect("a path");
            segments.extend(builder.push(&Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }));
            segments.extend(chunks.iter().filter_map(|chunk| builder.push(&Item::Chunk(*chunk))));
        }
        let totals = builder.totals();
        let (last, _, nodes) = builder.finish(Shape::Tree).expect("within the limits");
        segments.extend(last);
        let mut nodes_above = Vec::new();
        let root = format::manifest::Root::above(Profile::DEFAULT, Shape::Tree, totals, nodes, |node| {
            nodes_above.push(node);
        });
        let root = root.expect("within the limits");
        let mut parts: Vec<Vec<u8>> =
            segments.into_iter().chain(nodes_above).map(|segment| segment.bytes).collect();
        parts.push(root.encode());
        for some in parts.chunks(16) {
            let chunks = some
                .iter()
                .map(|part| ChunkRef {
                    id: ChunkId::of(part),
                    bytes: u32::try_from(part.len()).expect("small"),
                })
                .collect();
            let frame =
                Frame { kind: FrameKind::Manifest, codec: Codec::Raw, chunks, payload: some.concat() };
            store.append(&frame).expect("appended");
        }
        store.sync().expect("synced");
        let record = Record {
            app: format!("app-{number}").parse().expect("a name"),
            release: root.release(),
            sequence: 0,
            created: 0,
            user: "bench".parse().expect("a name"),
            labels: vec!["v1".parse().expect("a label")],
            totals,
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        store.records().add(record).expect("recorded");
    }
    store.close();
}

/// Ends with its owner.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A proxy on a data folder, and what its agents are told.
struct World {
    home: std::path::PathBuf,
    served: Served,
    url: String,
    token: String,
}

impl World {
    fn start(home: &Path) -> Self {
        let data = home.join("data");
        let mut create = program(home);
        create.args(["token", "create", "--user", "bench", "--data"]).arg(&data);
        for action in ["push", "read", "admin"] {
            create.args(["--allow", action]);
        }
        let token = printed(&mut create);
        let config = home.join("whit.toml");
        fs::write(&config, "reserve_mib = 0\ncollect_minutes = 0\nverify_days = 0\n").expect("written");
        let mut serve = program(home);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config).arg("--data").arg(&data);
        let mut served =
            Served(serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts"));
        let mut url = String::new();
        BufReader::new(served.0.stdout.take().expect("it is piped")).read_line(&mut url).expect("an address");
        Self { home: home.to_owned(), served, url, token }
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.home);
        command.args(arguments).arg("--json");
        command.env("WHIT_PROXY", self.url.trim()).env("WHIT_TOKEN", &self.token);
        command
    }

    fn id(&self) -> String {
        self.served.0.id().to_string()
    }
}

fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whit"));
    command.env("HOME", home).env_remove("WHIT_DATA").stdin(Stdio::null());
    command
}

fn printed(command: &mut Command) -> String {
    let done = command.stderr(Stdio::inherit()).output().expect("it runs");
    assert!(done.status.success(), "{command:?}");
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}

const PUSHES: u32 = 200;

/// Pushes small releases to an application that has many; their records are made up.
fn releases(count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let records = folder.path().join("data/spaces/default/releases/app");
    fs::create_dir_all(&records).expect("created");
    for sequence in 1..=count {
        let record = Record {
            app: "app".parse().expect("a name"),
            release: ground::ids::ReleaseId::of(&sequence.to_le_bytes()),
            sequence,
            created: 0,
            user: "bench".parse().expect("a name"),
            labels: vec![format!("v{sequence}").parse().expect("a label")],
            totals: format::manifest::Totals::default(),
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        fs::write(records.join(format!("{sequence:010}.record")), Records::encode(&record)).expect("written");
    }
    // The first start reads all records, the second the history.
    for start in ["first", "second"] {
        let world = World::start(folder.path());
        let begin = Instant::now();
        printed(&mut world.agent(&["apps"]));
        let (seconds, mebibytes) = (begin.elapsed().as_secs_f64(), memory(&world.id()).1);
        println!("releases, {count}: {start} answer after {seconds:.2} s; the proxy has {mebibytes} MiB");
    }
    let world = World::start(folder.path());
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("created");
    let push = |version: u32| {
        fs::write(tree.join("file"), version.to_string()).expect("written");
        printed(&mut world.agent(&["push", "app", &tree.display().to_string()]));
    };
    (0..20).for_each(push);
    let (begin, used) = (Instant::now(), processor_of(&world.id()));
    (20..20 + PUSHES).for_each(push);
    let per = |time: Duration| time.as_secs_f64() * 1000.0 / f64::from(PUSHES);
    let used = processor_of(&world.id()).saturating_sub(used);
    println!(
        "releases, {count}: a push takes {:.1} ms, of the proxy's processor {:.2} ms",
        per(begin.elapsed()),
        per(used)
    );
    let begin = Instant::now();
    let listed = printed(&mut world.agent(&["releases", "app"])).len();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "releases, {count}: listed in {seconds:.2} s, {listed} B; the proxy's peak {} MiB",
        memory(&world.id()).0
    );
}

fn collect(count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fill(&folder.path().join("data/spaces/default"), count);
    let world = World::start(folder.path());
    let agent = |arguments: &[&str]| world.agent(arguments);
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("created");
    let mut version = 0_u64;
    let mut push = || {
        version += 1;
        for file in 0..10 {
            let bytes = (0..12_500_u64)
                .flat_map(|n| (n * (file + 10 * (version * u64::from(file == 0)))).to_le_bytes());
            fs::write(tree.join(file.to_string()), bytes.collect::<Vec<u8>>()).expect("written");
        }
        let begin = Instant::now();
        printed(&mut agent(&["push", "beside", &tree.display().to_string()]));
        begin.elapsed()
    };
    let told = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_millis();
        println!(
            "gc: {} pushes of 1 MB {what}: median {} ms, 95 % {} ms, longest {} ms",
            times.len(),
            at(50),
            at(95),
            at(100)
        );
    };
    push();
    told("with nothing beside", (0..20).map(|_| push()).collect());
    for number in 0..RELEASES / 2 {
        printed(&mut agent(&["rm", &format!("app-{number}@v1")]));
    }
    let id = world.id();
    println!("gc: {count} chunks in {RELEASES} releases; the proxy has {} MiB before", memory(&id).1);
    for run in 1..=2 {
        let begin = Instant::now();
        let mut collecting = agent(&["gc"]).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut times = Vec::new();
        let ended = loop {
            times.push(push());
            if let Some(status) = collecting.try_wait().expect("a child can be asked") {
                break status;
            }
        };
        let time = begin.elapsed();
        assert!(ended.success());
        let report = std::io::read_to_string(collecting.stdout.take().expect("it is piped")).expect("text");
        println!("gc: run {run}, with pushes beside: within {:.2} s: {}", time.as_secs_f64(), report.trim());
        told("beside it", times);
    }
    // With nothing beside it, to the end of what had to wait.
    let begin = Instant::now();
    let report = printed(&mut agent(&["gc"]));
    println!("gc: run 3, alone: {:.2} s: {report}", begin.elapsed().as_secs_f64());
    println!("gc: the proxy's peak {} MiB", memory(&id).0);
}
