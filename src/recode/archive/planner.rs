//! Looks at an archive and writes the plan of its pieces.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::known::{KnownStreams, Named};
use super::limits::Limits;
use super::plan::{Piece, Plan};
use super::scratch::Scratch;
use super::sought::{Found, Sought};
use super::{Member, Packing, ar, gzip, png, tar, zip};
use crate::codec::{self, Decoder, Format, Permits, Stream};
use crate::deflate::{Guesser, Learned};
use ground::poison::Unpoisoned as _;
use ground::threads;

/// 128 B: a shorter stream costs more to describe than it can save.
const PACKED_BYTES_MIN: usize = 128;
/// 1 MiB: what any archive may inflate to, whatever the ratio.
const PLAIN_BYTES_FREE: u64 = 1024 * 1024;
/// 1,000: concatenated streams.
const STREAMS_MAX: usize = 1000;

/// 64: members that are tried one after another, each with what was learned from those before it.
const BATCH_MEMBERS: usize = 64;

/// Makes plans; keeps the memory of its encoders.
///
/// A plan depends on the archive's bytes alone: equal archives make equal releases.
pub struct Planner {
    guesser: Guesser,
    /// For members that are tried in parallel.
    helpers: Vec<Guesser>,
    /// For xz and zstd.
    heavy_guesser: codec::Guesser,
    turns: Arc<Permits>,
    decoder: Decoder,
    left_packed: LeftPacked,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new(1, Arc::default())
    }
}

/// Streams of an archive that stay packed, as no method reproduces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftPacked {
    /// Their number.
    pub streams: u64,
    /// Their bytes, as packed.
    pub bytes: u64,
}

/// The rest of the limits of one archive.
struct Budget<'a, R> {
    plain_bytes: u64,
    pieces: usize,
    nested_bytes: u64,
    heavy_bytes: u64,
    /// True if what is looked at is in an xz or zstd stream.
    in_heavy: bool,
    scratch: &'a mut R,
    known: Option<&'a dyn KnownStreams>,
}

impl Planner {
    /// Creates a planner that uses up to `threads` threads, at least one, for archives of many members, and waits for one of
    /// `turns` before it tries an xz or zstd stream.
    pub fn new(threads: usize, turns: Arc<Permits>) -> Self {
        let helpers = (1..threads).map(|_| Guesser::default()).collect();
        Self {
            guesser: Guesser::default(),
            helpers,
            heavy_guesser: codec::Guesser::default(),
            turns,
            decoder: Decoder::new(Format::Deflate),
            left_packed: LeftPacked::default(),
        }
    }

    /// Ends its work soon, within a stream too, once `stopping` is set: a plan is then worth nothing.
    #[must_use]
    pub fn stopped_by(self, stopping: &Arc<AtomicBool>) -> Self {
        let stop = |guesser: Guesser| guesser.stopped_by(Arc::clone(stopping));
        Self {
            guesser: stop(self.guesser),
            helpers: self.helpers.into_iter().map(stop).collect(),
            heavy_guesser: self.heavy_guesser.stopped_by(Arc::clone(stopping)),
            ..self
        }
    }

    /// Plans `archive`; the plan covers it exactly, and each packed piece was re-encoded and compared.
    ///
    /// There are no errors: bytes that are no archive, or a hostile one, become one content stream or framing.
    /// Memory: 3 MiB for each thread, the plan, `scratch`, and 220 MiB while an xz or zstd stream is tried. Time: a few times
    /// that of inflating and encoding `plain_bytes_max` at worst.
    ///
    /// Names the packed streams and believes what is `known` of them: those are neither searched nor encoded. The plan is the
    /// same as without it, if what was known came from plans.
    pub fn plan(
        &mut self,
        archive: &[u8],
        limits: &Limits,
        scratch: &mut impl Scratch,
        known: Option<&dyn KnownStreams>,
    ) -> Plan {
        let ratio_bytes = (archive.len() as u64).saturating_mul(limits.ratio_max);
        let mut budget = Budget {
            plain_bytes: limits.plain_bytes_max.min(ratio_bytes.saturating_add(PLAIN_BYTES_FREE)),
            pieces: limits.pieces_max,
            nested_bytes: limits.nested_bytes_max,
            heavy_bytes: limits.heavy_bytes_max,
            in_heavy: false,
            scratch,
            known,
        };
        self.left_packed = LeftPacked::default();
        self.guesser.learn(Learned::default());
        self.look(archive, limits.depth_max, &mut budget).unwrap_or_else(|| Plan::plain(archive.len() as u64))
    }

    /// Returns what stayed packed of the archive planned last.
    pub fn left_packed(&self) -> LeftPacked {
        self.left_packed
    }

    /// Returns the plan of `bytes`; `None` if they are no archive.
    fn look(&mut self, bytes: &[u8], depth: u8, budget: &mut Budget<'_, impl Scratch>) -> Option<Plan> {
        let depth = depth.checked_sub(1)?;
        if gzip::header(bytes).is_some() {
            return self.gzip(bytes, depth, budget);
        }
        if let Some(format) = Format::of(bytes) {
            return self.heavy(bytes, format, depth, budget);
        }
        if tar::begins(bytes) {
            let members = tar::members(bytes, budget.pieces / 2);
            return self.members(bytes, &members, Piece::Content, depth, budget);
        }
        if let Some(member) = png::member(bytes) {
            return self.members(bytes, &[member], Piece::Framing, depth, budget);
        }
        let members = ar::members(bytes, budget.pieces / 2);
        let members = members.or_else(|| zip::members(bytes, budget.pieces / 2))?;
        self.members(bytes, &members, Piece::Framing, depth, budget)
    }

    fn members(
        &mut self,
        bytes: &[u8],
        members: &[Member],
        between: fn(u64) -> Piece,
        depth: u8,
        budget: &mut Budget<'_, impl Scratch>,
    ) -> Option<Plan> {
        let mut streams = self.streams(bytes, members, budget.plain_bytes, budget.known).into_iter();
        let mut plan = Plan::default();
        let mut at = 0usize;
        for member in members {
            let stream = streams.next().flatten();
            let begin = usize::try_from(member.at).ok()?;
            let end = usize::try_from(member.end()).ok()?;
            let inside = bytes.get(begin..end)?;
            if inside.len() < PACKED_BYTES_MIN || budget.pieces < 2 {
                continue;
            }
            let mut found = Plan::default();
            match member.packing {
                Packing::Stored => found = self.stored(inside, depth, budget),
                Packing::Deflated(_) => match self.packed(inside, stream, depth, budget) {
                    Some(piece) => found.push(piece),
                    None => found.push(Piece::Content(inside.len() as u64)),
                },
            }
            budget.pieces -= 2;
            plan.push(between((begin - at) as u64));
            at = begin + usize::try_from(found.bytes()).ok()?;
            plan.append(found);
        }
        plan.push(between((bytes.len() - at) as u64));
        (!plan.is_plain()).then_some(plan)
    }

    fn stored(&mut self, bytes: &[u8], depth: u8, budget: &mut Budget<'_, impl Scratch>) -> Plan {
        let found = if has_magic(bytes) { self.look(bytes, depth, budget) } else { None };
        found.unwrap_or_else(|| Plan::plain(bytes.len() as u64))
    }

    /// Returns how the deflate streams of members were made, as far as they inflate to `plain_bytes` in total.
    ///
    /// The first batch is tried alone, and all others start from what was learned from it, so that the plan does not depend
    /// on how threads divide them.
    fn streams(
        &mut self,
        bytes: &[u8],
        members: &[Member],
        plain_bytes: u64,
        known: Option<&dyn KnownStreams>,
    ) -> Vec<Option<Found>> {
        let left = AtomicU64::new(plain_bytes);
        let look = |guesser: &mut Guesser, members: &[Member], found: &mut [Option<Found>]| {
            for (member, found) in members.iter().zip(found) {
                *found = stream_of(bytes, member, guesser, &left, known);
            }
        };
        let mut streams = vec![None; members.len()];
        let mut batches = members.chunks(BATCH_MEMBERS).zip(streams.chunks_mut(BATCH_MEMBERS));
        if let Some((members, found)) = batches.next() {
            look(&mut self.guesser, members, found);
        }
        if batches.len() == 0 {
            return streams;
        }
        let learned = self.guesser.learned().clone();
        let batches = Mutex::new(batches);
        // With fewer helpers it takes longer.
        let work = |guesser: &mut Guesser| {
            loop {
                let next = batches.lock().unpoisoned().next();
                let Some((members, found)) = next else { break };
                guesser.learn(learned.clone());
                look(guesser, members, found);
            }
        };
        std::thread::scope(|scope| {
            for helper in &mut self.helpers {
                if threads::start(scope, || work(helper)).is_err() {
                    break;
                }
            }
            work(&mut self.guesser);
        });
        self.guesser.learn(learned);
        streams
    }

    /// Returns the stream at the start of `bytes`, with its content; `None` if it cannot be reproduced.
    fn packed(
        &mut self,
        bytes: &[u8],
        found: Option<Found>,
        depth: u8,
        budget: &mut Budget<'_, impl Scratch>,
    ) -> Option<Piece> {
        let Found { stream: Stream { packed, plain, method }, name, is_leaf } = found?;
        budget.plain_bytes = budget.plain_bytes.checked_sub(plain)?;
        let Some(method) = method else {
            self.left_packed.streams += 1;
            self.left_packed.bytes += packed;
            return None;
        };
        let stream = &bytes[..usize::try_from(packed).ok()?];
        let before = budget.in_heavy;
        budget.in_heavy |= method.format().is_heavy();
        // At the last level nobody looks; what is in the stream matters where it lies higher.
        let is_leaf = is_leaf || (depth > 0 && !self.is_archive(stream, method.format()));
        let inner = if is_leaf { None } else { self.nested(stream, plain, method.format(), depth, budget) };
        budget.in_heavy = before;
        let named = name.map(|name| Named { name, is_leaf });
        Some(Piece::Packed { packed, method, plain: inner.unwrap_or_else(|| Plan::plain(plain)), named })
    }

    /// Plans the content of a stream that begins an archive, if there is room for it.
    fn nested(
        &mut self,
        stream: &[u8],
        plain: u64,
        format: Format,
        depth: u8,
        budget: &mut Budget<'_, impl Scratch>,
    ) -> Option<Plan> {
        if depth == 0 || plain > budget.nested_bytes {
            return None;
        }
        self.decoder.reset(format);
        let held = budget.scratch.hold(plain, &mut |take| {
            self.decoder.push(stream, |piece| take(piece)).map(drop).map_err(|_| io::ErrorKind::Other.into())
        })?;
        budget.nested_bytes -= plain;
        let plan = self.look(held.as_ref(), depth, budget);
        budget.nested_bytes += plain;
        plan
    }

    /// Returns whether the first bytes of a stream are those of an archive.
    fn is_archive(&mut self, stream: &[u8], format: Format) -> bool {
        let mut archive = false;
        self.decoder.reset(format);
        // The first piece is the whole stream or at least 64 KiB; then it stops.
        let _ = self.decoder.push(stream, |piece| {
            archive = has_magic(piece);
            Err::<(), _>(())
        });
        archive
    }

    fn gzip(&mut self, bytes: &[u8], depth: u8, budget: &mut Budget<'_, impl Scratch>) -> Option<Plan> {
        let mut plan = Plan::default();
        let mut at = 0;
        for _ in 0..STREAMS_MAX {
            let Some((header, hint)) = gzip::header(&bytes[at..]) else { break };
            if budget.pieces < 2 || bytes.len() - at - header < PACKED_BYTES_MIN {
                break;
            }
            let rest = &bytes[at + header..];
            // Only the first is named: to name each would read the rest as often.
            let whole = rest.len().checked_sub(gzip::TRAILER_BYTES).filter(|_| at == 0);
            let sought = whole.map(|end| Sought::of(&rest[..end], budget.known)).unwrap_or_default();
            let found = sought.deflated(&mut self.guesser, rest, budget.plain_bytes, hint);
            let Some(piece) = self.packed(rest, found, depth, budget) else { break };
            budget.pieces -= 2;
            at += header + usize::try_from(piece.bytes()).ok()?;
            plan.push(Piece::Framing(header as u64));
            plan.push(piece);
            let trailer = gzip::TRAILER_BYTES.min(bytes.len() - at);
            plan.push(Piece::Framing(trailer as u64));
            at += trailer;
        }
        ended(plan, at, bytes)
    }

    /// Plans concatenated xz streams or zstd frames.
    fn heavy(
        &mut self,
        bytes: &[u8],
        format: Format,
        depth: u8,
        budget: &mut Budget<'_, impl Scratch>,
    ) -> Option<Plan> {
        let mut plan = Plan::default();
        let mut at = 0;
        while !budget.in_heavy
            && budget.pieces > 0
            && plan.pieces().len() < STREAMS_MAX
            && bytes.len() - at >= PACKED_BYTES_MIN
            && Format::of(&bytes[at..]) == Some(format)
        {
            let plain_max = budget.plain_bytes.min(budget.heavy_bytes);
            let rest = &bytes[at..];
            let sought = if at == 0 { Sought::of(rest, budget.known) } else { Sought::default() };
            let turn = self.turns.wait();
            let found = sought.heavy(&mut self.heavy_guesser, format, rest, plain_max);
            drop(turn);
            let Some(found) = found else { break };
            budget.heavy_bytes -= found.stream.plain;
            let Some(piece) = self.packed(rest, Some(found), depth, budget) else { break };
            budget.pieces -= 1;
            at += usize::try_from(piece.bytes()).ok()?;
            plan.push(piece);
        }
        ended(plan, at, bytes)
    }
}

/// Returns the plan with what follows the streams that end at `at`; `None` where there are none.
fn ended(mut plan: Plan, at: usize, bytes: &[u8]) -> Option<Plan> {
    if at == 0 {
        return None;
    }
    let rest = (bytes.len() - at) as u64;
    plan.push(if rest < PACKED_BYTES_MIN as u64 { Piece::Framing(rest) } else { Piece::Content(rest) });
    Some(plan)
}

/// Returns how a member's deflate stream was made, if it has one that inflates to no more than is left.
fn stream_of(
    bytes: &[u8],
    member: &Member,
    guesser: &mut Guesser,
    left: &AtomicU64,
    known: Option<&dyn KnownStreams>,
) -> Option<Found> {
    let Packing::Deflated(hint) = member.packing else { return None };
    let (begin, end) = (usize::try_from(member.at).ok()?, usize::try_from(member.end()).ok()?);
    let inside = bytes.get(begin..end).filter(|inside| inside.len() >= PACKED_BYTES_MIN)?;
    let found = Sought::of(inside, known).deflated(guesser, inside, left.load(Ordering::Relaxed), hint)?;
    let spend = |left: u64| Some(left.saturating_sub(found.stream.plain));
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
    Some(found)
}

/// Returns whether these are the first bytes of an archive, as far as 512 B tell.
pub fn begins_archive(bytes: &[u8]) -> bool {
    has_magic(bytes) || bytes.starts_with(b"\x1f\x8b\x08")
}

/// Returns whether these are the first 8 bytes of an xz or zstd stream, or of `ar`, as a Debian package, which mostly holds one.
pub fn is_tight(bytes: &[u8]) -> bool {
    Format::of(bytes).is_some() || bytes.starts_with(b"!<arch>\n")
}

/// Returns whether a nested archive begins here. Only the outermost may begin with something else.
fn has_magic(bytes: &[u8]) -> bool {
    let magic = [&b"PK\x03\x04"[..], b"!<arch>\n", b"\x89PNG"];
    gzip::header(bytes).is_some()
        || Format::of(bytes).is_some()
        || tar::begins(bytes)
        || magic.iter().any(|magic| bytes.starts_with(magic))
}
