//! How fast changed bytes are told by older ones on one thread, beside copying them, and beside `rdiff` where it is
//! installed.
//!
//! ```text
//! cargo bench --bench delta            MB/s of new bytes (of old ones for signatures)
//! cargo bench --bench delta -- costs   processor time and peak memory of each, in a process of its own
//! ```
//!
//! The old bytes are 16 MiB of machine code, what one parcel may be told against. The new ones are the same with a
//! byte changed and seven inserted every 20 KB; *strange* ones are others, in which nothing is found.

mod sample;

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use delta::compression::{compress_against, decompress_against};
use delta::patch;
use delta::rsync::{Delta, Geometry, Matcher, ODDS_DEFAULT, Signature, checksum_bits};
use delta::similar::Sketch;
use wait4::Wait4;

const OLD_BYTES: usize = 16 * 1024 * 1024;
const BETWEEN_EDITS: usize = 20_000;
const BLOCK_BYTES: u32 = 512;
const LEVEL: i32 = 3;
/// What is sketched by itself: chunks of average size.
const CHUNK_BYTES: usize = 16 * 1024;
/// Rounds of one operation in a process of its own.
const ROUNDS: u32 = 4;
/// Patches are slow, and bounded by their bytes.
const PATCH_BYTES: usize = 4 * 1024 * 1024;

/// Names the operation that a process of its own does.
const OPERATION: &str = "WHIT_BENCH_OPERATION";

struct Input {
    old: Vec<u8>,
    new: Vec<u8>,
    strange: Vec<u8>,
    signature: Signature,
    delta: Delta,
    literals: Vec<u8>,
}

impl Input {
    fn make() -> Self {
        let content = sample::content();
        let old = content[..OLD_BYTES].to_vec();
        let strange = content[2 * OLD_BYTES..3 * OLD_BYTES].to_vec();
        let mut new = Vec::with_capacity(OLD_BYTES + OLD_BYTES / 1000);
        for part in old.chunks(BETWEEN_EDITS) {
            let begin = new.len();
            new.extend_from_slice(part);
            new[begin + part.len() / 2] ^= 0x55;
            new.extend_from_slice(b"\x01insert");
        }
        let signature = sign(&old);
        let mut literals = Vec::new();
        let delta = Matcher::new(&signature).delta(&new, &mut literals);
        Self { old, new, strange, signature, delta, literals }
    }
}

fn sign(old: &[u8]) -> Signature {
    let geometry = Geometry::new(old.len() as u64, BLOCK_BYTES).expect("in bounds");
    let bits = checksum_bits(&geometry, old.len() as u64, ODDS_DEFAULT);
    Signature::new([old], BLOCK_BYTES, bits).expect("in bounds")
}

/// One operation: its name, the bytes that it is measured by, the work.
struct Operation {
    name: &'static str,
    bytes: usize,
    work: Box<dyn Fn()>,
}

fn operations(input: &'static Input) -> Vec<Operation> {
    let Input { old, new, strange, signature, delta, literals } = input;
    let matching = |new: &'static [u8]| {
        move || {
            let mut literals = Vec::new();
            black_box(Matcher::new(signature).delta(black_box(new), &mut literals));
        }
    };
    let applying = move || {
        let read = |range: Range<u64>, out: &mut Vec<u8>| {
            let at = |offset: u64| usize::try_from(offset).expect("a basis is some MiB");
            out.extend_from_slice(&old[at(range.start)..at(range.end)]);
            Ok::<(), ()>(())
        };
        let mut made = Vec::new();
        delta.apply(&mut literals.as_slice(), read, &mut made).expect("its own literals");
        assert_eq!(black_box(made).len(), new.len());
    };
    let against = compress_against(old, new, LEVEL);
    let decompressing = move || {
        let mut made = Vec::new();
        decompress_against(old, &against, new.len(), &mut made).expect("just made");
        black_box(made);
    };
    let few = &new[..PATCH_BYTES];
    let patched = patch::compress(few, &old[..PATCH_BYTES]).expect("in bounds");
    let unpatching = move || drop(black_box(patch::decompress(&patched, &old[..PATCH_BYTES], few.len())));
    let operation = |name, bytes, work: Box<dyn Fn()>| Operation { name, bytes, work };
    vec![
        operation("memcpy", new.len(), Box::new(move || drop(black_box(black_box(new).clone())))),
        operation("signature", old.len(), Box::new(move || drop(black_box(sign(black_box(old)))))),
        operation(
            "sketches",
            new.len(),
            Box::new(move || {
                for chunk in new.chunks(CHUNK_BYTES) {
                    black_box(Sketch::of(black_box(chunk)));
                }
            }),
        ),
        operation("match", new.len(), Box::new(matching(new))),
        operation("match, strange", strange.len(), Box::new(matching(strange))),
        operation("apply", new.len(), Box::new(applying)),
        operation(
            "zstd -3, old as prefix",
            new.len(),
            Box::new(move || drop(black_box(compress_against(old, black_box(new), LEVEL)))),
        ),
        operation("the same, undone", new.len(), Box::new(decompressing)),
        operation(
            "patch",
            few.len(),
            Box::new(move || drop(black_box(patch::compress(black_box(few), &old[..PATCH_BYTES])))),
        ),
        operation("the same, undone", few.len(), Box::new(unpatching)),
    ]
}

/// rdiff on the same bytes, which it reads from files and writes to files; none where it is not installed.
fn rdiff_operations(input: &Input, folder: &Path) -> Vec<(&'static str, usize, Vec<String>)> {
    if Command::new("rdiff").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("rdiff is not installed: its rows are left out");
        return Vec::new();
    }
    for (name, bytes) in [("old", &input.old), ("new", &input.new), ("strange", &input.strange)] {
        fs::write(folder.join(name), bytes).expect("a folder that can be written");
    }
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let arguments = |words: &[&str], files: &[&str]| {
        let words = ["--force"].iter().chain(words).map(|word| (*word).to_owned());
        words.chain(files.iter().map(|name| path(name))).collect::<Vec<_>>()
    };
    let block = format!("--block-size={BLOCK_BYTES}");
    let signing = arguments(&[block.as_str(), "signature"], &["old", "signature"]);
    let (len, old, strange) = (input.new.len(), input.old.len(), input.strange.len());
    vec![
        ("rdiff signature", old, signing),
        ("rdiff delta", len, arguments(&["delta"], &["signature", "new", "delta"])),
        ("rdiff delta, strange", strange, arguments(&["delta"], &["signature", "strange", "large"])),
        ("rdiff patch", len, arguments(&["patch"], &["old", "delta", "made"])),
    ]
}

fn rdiff(arguments: &[String]) -> Command {
    let mut command = Command::new("rdiff");
    command.args(arguments);
    command
}

fn speeds(input: &'static Input) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("delta");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut undone = "";
    for operation in operations(input) {
        let name = match operation.name {
            "the same, undone" => format!("{undone}, undone"),
            name => name.to_owned(),
        };
        undone = operation.name;
        group.throughput(Throughput::Bytes(operation.bytes as u64));
        group.bench_function(name, |bench| bench.iter(|| (operation.work)()));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes, arguments) in rdiff_operations(input, folder.path()) {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| assert!(rdiff(&arguments).status().expect("it starts").success()));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Processor seconds and peak memory of a program.
fn cost(command: &mut Command) -> (f64, u64) {
    let ended = command.stdout(Stdio::null()).spawn().and_then(|mut child| child.wait4()).expect("it runs");
    assert!(ended.status.success(), "{command:?}");
    ((ended.rusage.utime + ended.rusage.stime).as_secs_f64(), ended.rusage.maxrss)
}

/// Nanoseconds that this thread ran (Linux).
fn nanoseconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

/// A line of this process's status, in bytes (Linux).
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of each");
    line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number") * 1024
}

/// Prints what an operation takes: processor seconds, and bytes above what is held before it.
fn measure(operation: &Operation) {
    // What was freed before goes back first, and the peak begins anew.
    fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let (held, began) = (status("VmRSS:"), nanoseconds());
    (0..ROUNDS).for_each(|_| (operation.work)());
    let seconds = (nanoseconds() - began) / 1e9 / f64::from(ROUNDS);
    println!("{seconds} {}", status("VmHWM:").saturating_sub(held));
}

fn costs(input: &'static Input) {
    let own = || Command::new(std::env::current_exe().expect("its own path"));
    println!("| operation | MB | processor seconds | MB/s | peak MiB |\n|---|--:|--:|--:|--:|");
    // Millions of bytes.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let row = |name: &str, bytes: usize, seconds: f64, memory: u64| {
        let megabytes = bytes as f64 / 1e6;
        let speed = megabytes / seconds;
        println!("| {name} | {megabytes:.1} | {seconds:.4} | {speed:.0} | {} |", memory / (1024 * 1024));
    };
    for (number, operation) in operations(input).iter().enumerate() {
        let said = own().env(OPERATION, number.to_string()).output().expect("it runs").stdout;
        let said = String::from_utf8(said).expect("numbers");
        let (seconds, memory) = said.trim().split_once(' ').expect("two numbers");
        row(operation.name, operation.bytes, seconds.parse().expect("one"), memory.parse().expect("another"));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes, arguments) in rdiff_operations(input, folder.path()) {
        let all: Vec<_> = (0..ROUNDS).map(|_| cost(&mut rdiff(&arguments))).collect();
        let seconds = all.iter().map(|(seconds, _)| seconds).sum::<f64>() / f64::from(ROUNDS);
        row(name, bytes, seconds, all.iter().map(|(_, memory)| *memory).max().unwrap_or_default());
    }
}

fn main() {
    let input: &'static Input = Box::leak(Box::new(Input::make()));
    if let Ok(operation) = std::env::var(OPERATION) {
        let all = operations(input);
        if let Some(operation) = operation.parse().ok().and_then(|number: usize| all.get(number)) {
            measure(operation);
        }
        return;
    }
    if std::env::args().any(|word| word == "costs") {
        costs(input);
    } else {
        speeds(input);
    }
}
