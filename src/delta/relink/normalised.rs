//! A file split into what depends on addresses and what does not, and its rebuilding.

use std::borrow::Cow;
use std::ops::Range;

use super::code::walk_x86;
use super::elf::{Image, Machine};
use super::exchange::{Counting, Direction, Exchange, Putting, Taking, Targets};
use super::frames::Frames;
use super::functions::Functions;
use super::layout::Layout;
use super::numbers::Cursor;
use super::plan::Plan;
use super::tables::{self, Made};
use super::{arm, go};
use super::{relocations, stream, unwind};
use ground::faults::{Fault, faulty};

/// 1 GiB: above it the transform stays off, as it takes a multiple of the file in memory.
pub const FILE_BYTES_MAX: usize = 1 << 30;

/// The reasons why parts do not make a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The parts contradict one another: damaged, or not made by [`normalise`].
    #[error("the parts of an executable are inconsistent")]
    Parts,
    /// More bytes than allowed.
    #[error("an executable of {0} B is larger than allowed")]
    Bytes(usize),
}

faulty! {
    Error;
    _ => Fault::Corrupt;
}

/// A split file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// The layout, then the stream: the order in which they are compressed, without a copy.
    body: Vec<u8>,
    stream_at: usize,
    /// Where each function's record ends in the stream; plain bytes follow.
    pub function_ends: Vec<usize>,
    /// Where the parts go.
    pub layout: Layout,
    /// The targets that were taken out.
    pub targets: Targets,
    /// For each function: the number of branches and of data targets before it.
    pub before: Vec<(u32, u32)>,
    /// The address of each function.
    pub addresses: Vec<u64>,
}

/// Splits a file and proves that it can be restored bit for bit; `None` for a file that stays raw: no executable of a
/// known form, or one that would not come back.
///
/// For a sender. Memory: about 2.5 times the file, the file itself included if it is passed by value. Time: as for
/// [`normalise_unproven`] and [`Normalised::restore`] together, and two BLAKE3 passes.
pub fn normalise<'a>(file: impl Into<Cow<'a, [u8]>>) -> Option<Normalised> {
    let file = file.into();
    let hash = blake3::hash(&file);
    normalise_unproven(file)
        .filter(|parts| parts.restore().is_ok_and(|restored| blake3::hash(&restored) == hash))
}

/// Splits a file without the proof: for a reference, as the hash of the rebuilt file decides.
///
/// Memory: about 2.5 times the file, the file itself included if it is passed by value; half of it stays. Time: 100
/// to 200 MB/s.
pub fn normalise_unproven<'a>(file: impl Into<Cow<'a, [u8]>>) -> Option<Normalised> {
    let file: Cow<'_, [u8]> = file.into();
    if file.len() > FILE_BYTES_MAX {
        return None;
    }
    let image = Image::parse(&file)?;
    let frames = Frames::read(&file, &image);
    let mut plan = Plan::new(&file, &image, &frames);
    if plan.functions.is_empty() {
        return None;
    }
    if let Some((place, table)) = unwind::table(&image, &frames)
        && file.get(place.clone()) == Some(&table)
    {
        plan.frame_table = place;
    }
    let covers = plan.covers(file.len())?;
    let mut layout = Layout::new(&plan, file.len());
    let mut work = file.into_owned();
    let mut taking = Taking::default();
    unwind::take(&mut work, &plan, &frames)?;
    let addresses = trade(&mut work, &image, &plan, &covers, &mut taking)?;
    relocations::take(&work, plan.relocations.clone(), &mut layout.relocations, &mut taking)?;
    let mut body = Vec::new();
    layout.encode(&mut body);
    let stream_at = body.len();
    let function_ends = stream::write(&work, &plan, &covers, &mut body)?;
    Some(Normalised {
        body,
        stream_at,
        function_ends,
        layout,
        targets: taking.targets,
        before: taking.before,
        addresses,
    })
}

/// Trades code, jump tables and type tables, in this order in both directions.
fn trade(
    file: &mut [u8],
    image: &Image,
    plan: &Plan,
    covers: &[Range<usize>],
    exchange: &mut impl Exchange,
) -> Option<Vec<u64>> {
    let (addresses, made) = trade_code(file, image, plan, exchange)?;
    tables::trade(file, image, plan, covers, made, exchange.direction() == Direction::Out);
    unwind::trade_types(file, image, plan, exchange)?;
    go::trade(file, exchange.direction() == Direction::Out);
    Some(addresses)
}

/// Trades code; returns the functions' addresses, and the addresses that `lea` makes.
fn trade_code(
    file: &mut [u8],
    image: &Image,
    plan: &Plan,
    exchange: &mut impl Exchange,
) -> Option<(Vec<u64>, Vec<Made>)> {
    let mut made = Vec::new();
    let mut addresses = Vec::with_capacity(plan.functions.len());
    for (number, function) in (0u32..).zip(&plan.functions) {
        exchange.begin(addresses.len());
        let address = image.address(function.code.start)?;
        addresses.push(address);
        let code = file.get_mut(function.code.clone())?;
        match image.machine {
            Machine::X86 => walk_x86(code, address, exchange, &mut |target| {
                made.push(Made { target, function: number });
            })?,
            Machine::Arm => arm::walk(code, address, exchange)?,
        }
    }
    Some((addresses, made))
}

/// A file whose bytes are in their places, without the values that depend on addresses.
#[derive(Debug)]
pub struct Skeleton {
    file: Vec<u8>,
    image: Image,
    plan: Plan,
    covers: Vec<Range<usize>>,
    function_ends: Vec<usize>,
    addresses: Vec<u64>,
    before: Vec<(u32, u32)>,
    relocations: Vec<u8>,
}

impl Skeleton {
    /// Puts the bytes of `stream` in their places.
    ///
    /// Memory: in proportion to the stream and the layout, `bytes_max` at most.
    ///
    /// # Errors
    /// The parts contradict one another, or the file would be larger than `bytes_max`.
    pub fn new(stream: &[u8], layout: &Layout, bytes_max: usize) -> Result<Self, Error> {
        let (mut plan, file_bytes, count) = layout.shape().ok_or(Error::Parts)?;
        if file_bytes > bytes_max {
            return Err(Error::Bytes(file_bytes));
        }
        let made = || {
            let function_ends = stream::read_lengths(stream, count, &mut plan)?;
            layout.place(&mut plan)?;
            let covers = plan.covers(file_bytes)?;
            // No memory is allocated that the parts do not fill.
            let filled: usize = plan.filled.iter().map(Range::len).sum();
            let tables = plan.frame_table.len().min(stream.len())
                + layout.relocations.len() * relocations::ENTRY_BYTES;
            if file_bytes > stream.len() + filled + tables {
                return None;
            }
            let mut file = vec![0; file_bytes];
            stream::place(stream, &plan, &covers, &mut file)?;
            let image = Image::parse(&file)?;
            let mut counting = Counting::default();
            let (addresses, _) = trade_code(&mut file, &image, &plan, &mut counting)?;
            let (before, relocations) = (counting.before, layout.relocations.clone());
            Some(Self { file, image, plan, covers, function_ends, addresses, before, relocations })
        };
        made().ok_or(Error::Parts)
    }

    /// Returns where each function's record ends in the stream.
    pub fn function_ends(&self) -> &[usize] {
        &self.function_ends
    }

    /// Returns the functions, which are known without the targets.
    pub fn known(&self) -> Functions<'_> {
        Functions { addresses: &self.addresses, before: &self.before }
    }

    /// Returns how many targets the file has room for.
    pub fn targets_max(&self) -> usize {
        self.file.len() / 4
    }

    /// Puts the targets in their places.
    ///
    /// # Errors
    /// The parts contradict one another.
    pub fn finish(mut self, targets: &Targets) -> Result<Vec<u8>, Error> {
        self.put(targets).ok_or(Error::Parts)?;
        Ok(self.file)
    }

    fn put(&mut self, targets: &Targets) -> Option<()> {
        let Self { file, image, plan, covers, relocations, .. } = self;
        let mut putting = Putting::new(targets);
        unwind::put(file, image, plan)?;
        trade(file, image, plan, covers, &mut putting)?;
        let mut cursor = Cursor::new(relocations);
        relocations::put(file, image, plan.relocations.clone(), &mut cursor, &mut putting)?;
        if !plan.frame_table.is_empty() {
            let (place, table) = unwind::table(image, &Frames::read(file, image))?;
            if place != plan.frame_table {
                return None;
            }
            file.get_mut(place)?.copy_from_slice(&table);
        }
        (putting.is_done() && cursor.rest().is_empty()).then_some(())
    }
}

impl Normalised {
    /// Returns the records, one after another.
    pub fn stream(&self) -> &[u8] {
        &self.body[self.stream_at..]
    }

    /// Returns the layout and the records, as they are compressed and used as a prefix.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the layout and the records; drops the rest.
    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Frees the records' memory; the targets and functions stay.
    pub(super) fn drop_body(&mut self) {
        (self.body, self.stream_at) = (Vec::new(), 0);
    }

    /// Returns the functions, which are known without the targets.
    pub fn known(&self) -> Functions<'_> {
        Functions { addresses: &self.addresses, before: &self.before }
    }

    /// Restores the file.
    ///
    /// # Errors
    /// The parts contradict one another.
    pub fn restore(&self) -> Result<Vec<u8>, Error> {
        Skeleton::new(self.stream(), &self.layout, FILE_BYTES_MAX)?.finish(&self.targets)
    }
}
