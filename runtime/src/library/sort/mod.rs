//! Stable sort and top-k along one axis.
//!
//! In: a dense row-major tensor and an axis. Out: for each line along the axis, the elements in
//! order and the positions they came from, all of them ([`sort`]) or the first k ([`top_k`]).
//!
//! The order: numbers by value, -0 and +0 equal; a NaN is greater than every number and equal to
//! every other NaN (as NumPy and PyTorch have it; ONNX leaves it open). Elements that are equal
//! keep their order, ascending and descending alike, as ONNX TopK asks (the lower index first).
//!
//! How: positions are sorted, not elements, in a worker's scratch; with the position as a second
//! key an unstable sort is stable, and that allocates nothing. Where k is less than the extent, the
//! first k are selected before they are sorted.

#[cfg(test)]
mod tests;

use super::grid::{Batched, Extents, Grid, Layout, MatView, Slots, run_grid};
use super::{LibraryError, expect_len, volume};
use crate::pool::Pool;
use half::{bf16, f16};
use std::cmp::Ordering;

/// Elements that are worth a tile.
const TILE_WORK: usize = 4096;

/// An element type that can be sorted.
pub trait SortKey: Copy + Send + Sync {
    /// A total order, as the module page says.
    fn order(self, other: Self) -> Ordering;
}

macro_rules! integer_keys {
    ($($name:ty)*) => {
        $(impl SortKey for $name {
            #[inline(always)]
            fn order(self, other: Self) -> Ordering {
                self.cmp(&other)
            }
        })*
    };
}

macro_rules! float_keys {
    ($($name:ty)*) => {
        $(impl SortKey for $name {
            #[inline(always)]
            fn order(self, other: Self) -> Ordering {
                // Only with a NaN is there no order: then the NaN is the greater.
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        })*
    };
}

integer_keys!(bool i8 i16 i32 i64 u8 u16 u32 u64);
float_keys!(f16 bf16 f32 f64);

/// Which elements come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The smallest.
    Ascending,
    /// The largest; NaN before all.
    Descending,
}

/// The lines of a tensor along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Product of the extents before the axis.
    pub outer: usize,
    /// Extent of the axis.
    pub extent: usize,
    /// Product of the extents after the axis.
    pub inner: usize,
}

impl Lines {
    /// The lines of a dense tensor of this shape along `axis`.
    ///
    /// # Errors
    /// When there is no such axis, or no memory could hold the tensor.
    pub fn new(shape: &[usize], axis: usize) -> Result<Lines, LibraryError> {
        let Some(extent) = shape.get(axis) else {
            let reason = format!("axis {axis} of a tensor of rank {}", shape.len());
            return Err(LibraryError::Invalid { op: "TopK", reason });
        };
        volume("TopK", shape)?;
        let outer = volume("TopK", &shape[..axis])?;
        let inner = volume("TopK", &shape[axis + 1..])?;
        Ok(Lines { outer, extent: *extent, inner })
    }

    /// Elements of scratch memory that a run on `threads` threads needs.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.extent.saturating_mul(threads)
    }
}

/// Sorts every line: `values[i] = input[indices[i]]` along the axis. Both outputs are dense and of
/// the input's shape.
///
/// # Errors
/// Slices of other lengths than `lines` asks for, or scratch shorter than [`Lines::scratch_len`].
pub fn sort<T: SortKey>(
    pool: &Pool,
    lines: Lines,
    direction: Direction,
    input: &[T],
    values: &mut [T],
    indices: &mut [i64],
    scratch: &mut [u32],
) -> Result<(), LibraryError> {
    top_k(pool, lines, lines.extent, direction, input, values, indices, scratch)
}

/// The first `k` elements of every line in order, and where they were. Both outputs are dense, with
/// extent `k` along the axis.
///
/// # Errors
/// As [`sort`]; a `k` greater than the extent.
pub fn top_k<T: SortKey>(
    pool: &Pool,
    lines: Lines,
    k: usize,
    direction: Direction,
    input: &[T],
    values: &mut [T],
    indices: &mut [i64],
    scratch: &mut [u32],
) -> Result<(), LibraryError> {
    let op = "TopK";
    let Lines { outer, extent, inner } = lines;
    if k > extent || u32::try_from(extent).is_err() {
        let reason = format!("k is {k} along an axis of {extent}; k is at most the extent, that at most 2^32 - 1");
        return Err(LibraryError::Invalid { op, reason });
    }
    expect_len(op, "X", input.len(), volume(op, &[outer, extent, inner])?)?;
    let len = volume(op, &[outer, k, inner])?;
    expect_len(op, "the values", values.len(), len)?;
    expect_len(op, "the indices", indices.len(), len)?;
    let wanted = lines.scratch_len(pool.threads());
    if scratch.len() < wanted {
        return Err(LibraryError::Mismatch { op, operand: "scratch", found: scratch.len(), expected: wanted });
    }
    // A matrix for each outer index: its rows are the lines.
    let batch = [outer];
    let matrix = |cols| Extents { batch: &batch, rows: inner, cols };
    let (from, to) = ([(extent * inner) as isize], [(k * inner) as isize]);
    let layout = |batch| Layout { offset: 0, batch, row: 1, col: inner as isize };
    let input = Batched::new(input, layout(&from), matrix(extent), op, "X")?;
    let tiles = (outer.saturating_mul(inner).saturating_mul(extent) / TILE_WORK).max(1);
    let grid = Grid { batch: tiles, rows: tiles.div_ceil(outer.max(1)), cols: 1, unit: 1 };
    let slots = Slots::new(scratch, extent);
    run_grid(pool, indices, &layout(&to), &matrix(k), grid, op, &|mut tile, worker| {
        let input = input.matrix(tile.matrix).row_range(tile.rows.clone());
        slots.with(worker, |order| {
            for row in 0..input.rows() {
                order_line(&input, row, k, direction, order);
                for (col, from) in order.iter().take(k).enumerate() {
                    *tile.at(row, col) = i64::from(*from);
                }
            }
        });
    })?;
    let indices = Batched::new(indices, layout(&to), matrix(k), op, "the indices")?;
    run_grid(pool, values, &layout(&to), &matrix(k), grid, op, &|mut tile, _| {
        let input = input.matrix(tile.matrix).row_range(tile.rows.clone());
        let indices = indices.matrix(tile.matrix).row_range(tile.rows.clone());
        tile.for_each(|row, col, value| *value = input.at(row, indices.at(row, col) as usize));
    })
}

/// Fills `order` with the positions of a line, the first `k` of them in their place.
fn order_line<T: SortKey>(input: &MatView<'_, T>, row: usize, k: usize, direction: Direction, order: &mut [u32]) {
    for (position, place) in order.iter_mut().enumerate() {
        *place = position as u32;
    }
    let compare = |a: &u32, b: &u32| {
        let keys = input.at(row, *a as usize).order(input.at(row, *b as usize));
        let keys = if direction == Direction::Descending { keys.reverse() } else { keys };
        keys.then(a.cmp(b))
    };
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, compare);
    }
    if let Some(first) = order.get_mut(..k) {
        first.sort_unstable_by(compare);
    }
}
