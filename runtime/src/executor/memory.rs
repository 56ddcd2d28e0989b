//! The memory that values lie in, and the jump into generated code: the only `unsafe` of the executor.
//!
//! A [`Buffer`] owns memory and only ever grows. A [`Region`] says where a value lies: an address and a length, in a
//! buffer, a constant or the caller's memory. Regions are kept from step to step of one run in tables that are reused,
//! so their borrow can't be written as a lifetime; what holds instead:
//!
//! - M1 a region is made anew for every run (inputs when they are bound, arena and late slots when they are sized) and
//!   not used after the run in which it was made;
//! - M2 during a run, what a region points to is alive: the model holds constants, the context holds buffers, the
//!   caller's borrow of inputs and states outlasts the call; a buffer that grows gets new regions before its next use;
//! - M3 memory is written only through a writable region, by one step at a time: [`Views`] checks that what a step
//!   writes overlaps nothing else it touches; kernels rely on the plan's invariants P2 and P4.
#![allow(unsafe_code, reason = "regions outlive what the borrow checker sees; each block says why it holds")]

use std::collections::TryReserveError;
use std::sync::atomic::{AtomicU32, Ordering};

use frit_compiler::cpu::abi::KernelArgs;
use frit_compiler::cpu::exec::ExecutableCode;
use half::{bf16, f16};

use crate::pool::Pool;

/// A cache line: what buffers are made of, so that they are aligned for every vector.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

const LINE: usize = size_of::<Line>();

/// Aligned memory that grows and never shrinks.
#[derive(Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Makes room for at least `bytes`; what is there stays.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        let lines = bytes.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.try_reserve_exact(lines - self.lines.len())?;
            self.lines.resize(lines, Line([0; 64]));
        }
        Ok(())
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` are initialised plain bytes without padding, borrowed for as long as the result.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// A part of it; `None` when it reaches outside.
    pub(crate) fn region(&mut self, offset: usize, len: usize) -> Option<Region> {
        let all = Region { start: self.lines.as_mut_ptr().cast(), len: self.len(), writable: true };
        all.part(offset, len)
    }
}

/// An element type that slices of regions may have.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
pub(crate) unsafe trait Element: Copy + Send + Sync + 'static {}

macro_rules! elements {
    // SAFETY: numbers without padding, all of whose bit patterns are values.
    ($($name:ty)*) => { $( unsafe impl Element for $name {} )* };
}

elements!(i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 f16 bf16);

/// Where a value lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    start: *mut u8,
    len: usize,
    writable: bool,
}

// SAFETY: an address and a length; whoever follows it keeps M1 to M3.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Default for Region {
    fn default() -> Self {
        Region { start: std::ptr::without_provenance_mut(LINE), len: 0, writable: false }
    }
}

impl Region {
    /// Memory that is only read.
    pub(crate) fn read_only(bytes: &[u8]) -> Region {
        Region { start: bytes.as_ptr().cast_mut(), len: bytes.len(), writable: false }
    }

    /// Bytes.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Where it starts.
    pub(crate) fn address(self) -> usize {
        self.start.addr()
    }

    /// Whether its address suits elements of `size` bytes.
    pub(crate) fn is_aligned(self, size: usize) -> bool {
        size < 2 || self.start.addr().is_multiple_of(size)
    }

    /// A part of it; `None` when it reaches outside.
    pub(crate) fn part(self, offset: usize, len: usize) -> Option<Region> {
        let end = offset.checked_add(len)?;
        // The address stays inside, or one past the end of, the memory that `self` covers.
        (end <= self.len).then(|| Region { start: self.start.wrapping_add(offset), len, ..self })
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: alive by M2, and written by no one while a step reads it (M3).
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Copies bytes of the same length here; they may overlap. False when the lengths differ or this is read only.
    pub(crate) fn copy_from(self, from: Region) -> bool {
        let fits = self.len == from.len && self.writable;
        if fits {
            // SAFETY: both are alive for their lengths (M2), this one is writable; `copy` allows overlap.
            unsafe { std::ptr::copy(from.start, self.start, self.len) };
        }
        fits
    }

    /// Copies `rows` equal parts of `from` to the beginnings of as many equal parts of this. False when they don't fit.
    pub(crate) fn spread(self, from: Region, rows: usize) -> bool {
        if rows == 0 || from.len == 0 {
            return from.len == 0;
        }
        let (pitch, len) = (self.len / rows, from.len / rows);
        let parts = |row: usize| Some((self.part(row * pitch, len)?, from.part(row * len, len)?));
        let fits = len <= pitch && from.len == len * rows && self.len == pitch * rows;
        fits && (0..rows).all(|row| parts(row).is_some_and(|(to, from)| to.copy_from(from)))
    }

    fn overlaps(self, other: Region) -> bool {
        let (a, b) = (self.start.addr(), other.start.addr());
        self.len > 0 && other.len > 0 && a < b + other.len && b < a + self.len
    }
}

/// What one library call reads and writes, as typed slices.
pub(crate) struct Views<'r> {
    reads: &'r [Region],
    writes: &'r [Region],
    taken: u32,
}

impl<'r> Views<'r> {
    /// `None` when a region to be written is read only or overlaps another one.
    pub(crate) fn new(reads: &'r [Region], writes: &'r [Region]) -> Option<Views<'r>> {
        let apart = |(i, w): (usize, &Region)| {
            let others = reads.iter().chain(writes.iter().take(i));
            w.writable && others.into_iter().all(|other| !w.overlaps(*other))
        };
        (writes.len() <= 32 && writes.iter().enumerate().all(apart)).then_some(Views { reads, writes, taken: 0 })
    }

    /// An operand; `None` when there is none or its address or length does not suit the type.
    pub(crate) fn read<T: Element>(&self, index: usize) -> Option<&'r [T]> {
        let region = self.reads.get(index)?;
        let len = elements_of::<T>(region)?;
        // SAFETY: aligned and as long as `elements_of` says, any bits are a T, alive by M2; no slice that `write`
        // hands out overlaps it (checked by `new`).
        Some(unsafe { std::slice::from_raw_parts(region.start.cast(), len) })
    }

    /// A result, once; `None` when there is none (any more) or its address or length does not suit the type.
    pub(crate) fn write<T: Element>(&mut self, index: usize) -> Option<&'r mut [T]> {
        let region = self.writes.get(index)?;
        let len = elements_of::<T>(region)?;
        if self.taken >> index & 1 == 1 {
            return None;
        }
        self.taken |= 1 << index;
        // SAFETY: as in `read`; it overlaps no other region (checked by `new`) and is handed out once.
        Some(unsafe { std::slice::from_raw_parts_mut(region.start.cast(), len) })
    }
}

fn elements_of<T: Element>(region: &Region) -> Option<usize> {
    let size = size_of::<T>();
    (region.is_aligned(align_of::<T>()) && region.len.is_multiple_of(size)).then(|| region.len / size)
}

/// What the start of an empty value points to: a kernel that reads an element only to drop it reads it here.
static NOTHING: Line = Line([0; LINE]);

/// The starts of a kernel's argument buffers, kept to be filled again.
#[derive(Default)]
pub(crate) struct Pointers(Vec<*mut u8>);

// SAFETY: addresses, followed by `run_phase` alone.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Pointers {
    /// Replaces them.
    pub(crate) fn set(&mut self, regions: impl Iterator<Item = Region>) {
        self.0.clear();
        let nothing = || std::ptr::from_ref(&NOTHING).cast::<u8>().cast_mut();
        self.0.extend(regions.map(|r| if r.len == 0 { nothing() } else { r.start }));
    }
}

/// A phase of a kernel and what it is called with.
pub(crate) struct PhaseCall<'a> {
    /// Where its code is.
    pub(crate) code: &'a ExecutableCode,
    /// Its entry in the code.
    pub(crate) entry: usize,
    /// Argument buffers.
    pub(crate) buffers: &'a Pointers,
    /// Kernel dims.
    pub(crate) dims: &'a [i64],
    /// Scratch memory of all workers, `stride` bytes for each.
    pub(crate) scratch: Region,
    /// Bytes of scratch a worker, a multiple of the alignment.
    pub(crate) stride: usize,
    /// The function table.
    pub(crate) functions: &'a [usize],
}

/// Tiles that a thread gets of a long phase: enough that uneven ones level out, few enough that handing out costs little.
const TILES_A_THREAD: i64 = 4;

/// Runs outer = 0 .. extent of a phase, split over the pool. Gives 0, or 1 + the largest code of a failed check.
///
/// A phase's iterations write different elements (K5), so neither the split nor the order can change a result.
pub(crate) fn run_phase(call: &PhaseCall<'_>, pool: &Pool, extent: i64, grain: u32) -> u32 {
    if extent <= 0 {
        return 0;
    }
    let status = AtomicU32::new(0);
    let most = (pool.threads() as i64).saturating_mul(TILES_A_THREAD);
    let tiles = if pool.threads() == 1 { 1 } else { (extent / i64::from(grain.max(1))).clamp(1, most) };
    let bound = |tile: i64| (i128::from(extent) * i128::from(tile) / i128::from(tiles)) as i64;
    pool.run(tiles as usize, &|tile, worker| {
        let Some(scratch) = call.scratch.part(worker.saturating_mul(call.stride), call.stride) else {
            status.fetch_max(u32::MAX, Ordering::Relaxed);
            return;
        };
        let mut failed = 0u32;
        let args = KernelArgs {
            buffers: call.buffers.0.as_ptr(),
            dims: call.dims.as_ptr(),
            scratch: scratch.start,
            functions: call.functions.as_ptr(),
            status: &raw mut failed,
        };
        let (begin, end) = (bound(tile as i64), bound(tile as i64 + 1));
        // SAFETY: the code is the plan's own, placed as it was generated, and `entry` one of its phases (checked when
        // the model was made; code of files runs only where the caller vouches for it). Buffers are alive (M2) and as
        // large as the kernel's extents say, which are those of the slots, after all guards held. Scratch is this
        // worker's alone and as large as the largest phase asks for.
        let ran = unsafe { call.code.run(call.entry, &args, begin, end) };
        status.fetch_max(if ran { failed } else { u32::MAX }, Ordering::Relaxed);
    });
    status.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_and_keep_what_they_hold() {
        let mut buffer = Buffer::default();
        buffer.reserve(10).unwrap();
        assert_eq!(buffer.len(), 64);
        buffer.region(9, 1).unwrap().copy_from(Region::read_only(&[7]));
        buffer.reserve(1000).unwrap();
        assert_eq!(buffer.bytes()[9], 7);
        assert!(buffer.region(0, 64).unwrap().is_aligned(64));
        assert!(buffer.region(1000, 64).is_none());
        assert!(buffer.region(usize::MAX, 2).is_none());
        assert!(buffer.reserve(usize::MAX).is_err());
    }

    #[test]
    fn rows_are_spread_within_their_bounds() {
        let mut buffer = Buffer::default();
        buffer.reserve(64).unwrap();
        let region = |b: &mut Buffer, len| b.region(0, len).unwrap();
        assert!(region(&mut buffer, 6).spread(Region::read_only(&[1, 2, 3, 4]), 2));
        assert_eq!(buffer.bytes()[..6], [1, 2, 0, 3, 4, 0]);
        assert!(!region(&mut buffer, 6).spread(Region::read_only(&[1; 8]), 2), "longer rows than there is room");
        assert!(!region(&mut buffer, 7).spread(Region::read_only(&[1; 4]), 2), "rows of no whole length");
        assert!(
            region(&mut buffer, 6).spread(Region::read_only(&[]), 0)
                && !region(&mut buffer, 6).spread(Region::read_only(&[1]), 0)
        );
    }

    #[test]
    fn views_refuse_what_overlaps() {
        let mut buffer = Buffer::default();
        buffer.reserve(64).unwrap();
        let (a, b, both) = (buffer.region(0, 16), buffer.region(16, 16), buffer.region(8, 16));
        let (a, b, both) = (a.unwrap(), b.unwrap(), both.unwrap());
        assert!(Views::new(&[a, both], &[b]).is_none());
        assert!(Views::new(&[a], &[b, both]).is_none());
        assert!(Views::new(&[], &[Region::read_only(&[1, 2])]).is_none());
        let (reads, writes) = ([a, a], [b]);
        let mut views = Views::new(&reads, &writes).unwrap();
        views.write::<u32>(0).unwrap()[3] = 5;
        assert!(views.write::<u32>(0).is_none(), "handed out twice");
        assert_eq!(views.read::<f32>(1).unwrap(), [0.0; 4]);
        assert!(views.read::<f32>(2).is_none());
        assert_eq!(b.bytes()[12], 5);
    }

    #[test]
    fn odd_addresses_are_no_floats() {
        let mut buffer = Buffer::default();
        buffer.reserve(64).unwrap();
        let odd = [buffer.region(1, 8).unwrap()];
        let views = Views::new(&odd, &[]).unwrap();
        assert!(views.read::<f32>(0).is_none());
        assert_eq!(views.read::<u8>(0).map(<[u8]>::len), Some(8));
    }
}
