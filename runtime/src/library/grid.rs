//! Batches of strided matrices: read as a whole, written tile by tile from many threads.
//!
//! In: a slice, a [`Layout`], extents. Out: [`Batched`] for reading and [`run_grid`] for writing,
//! both checked once, so that what is behind them needs no further checks.
//!
//! What holds: every element of a [`MatView`] or [`Tile`] lies in its slice; the tiles of a grid
//! are disjoint and cover the output; how many there are follows from the shape alone.
#![allow(unsafe_code)] // Disjoint strided tiles of one slice cannot be said with borrows.

use super::LibraryError;
use crate::pool::Pool;
use std::marker::PhantomData;
use std::ops::Range;

/// The most leading dims a batch may have.
pub const MAX_BATCH_RANK: usize = 16;

/// Where the elements of a batch of matrices lie in a slice. Strides count elements; 0 repeats
/// (not for outputs), negative ones walk backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout<'a> {
    /// Index of element (0, 0) of the first matrix.
    pub offset: usize,
    /// A stride for each batch dim.
    pub batch: &'a [isize],
    /// From one row to the next.
    pub row: isize,
    /// From one column to the next.
    pub col: isize,
}

impl Layout<'_> {
    /// One dense matrix, or its transpose stored densely.
    pub fn matrix(rows: usize, cols: usize, transposed: bool) -> Layout<'static> {
        if transposed {
            Layout { row: 1, col: isize::try_from(rows).unwrap_or(isize::MAX), ..Layout::default() }
        } else {
            Layout::row_major(cols)
        }
    }

    /// One matrix with its rows one after the other.
    pub fn row_major(cols: usize) -> Layout<'static> {
        Layout { row: isize::try_from(cols).unwrap_or(isize::MAX), col: 1, ..Layout::default() }
    }
}

/// The extents of a batch of matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents<'a> {
    pub(super) batch: &'a [usize],
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Extents<'_> {
    pub(super) fn matrices(&self) -> usize {
        if self.batch.contains(&0) {
            return 0;
        }
        self.batch.iter().fold(1_usize, |product, extent| product.saturating_mul(*extent))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0 || self.matrices() == 0
    }

    fn dims<'b>(&'b self, layout: &'b Layout<'_>) -> impl Iterator<Item = (usize, isize)> + 'b {
        let batch = self.batch.iter().copied().zip(layout.batch.iter().copied());
        batch.chain([(self.rows, layout.row), (self.cols, layout.col)])
    }

    /// Checks that every element lies in a slice of `len`.
    fn check_bounds(
        &self,
        layout: &Layout<'_>,
        len: usize,
        op: &'static str,
        operand: &'static str,
    ) -> Result<(), LibraryError> {
        super::expect_len(op, operand, layout.batch.len(), self.batch.len())?;
        if self.batch.len() > MAX_BATCH_RANK {
            let reason = format!("{operand} has more than {MAX_BATCH_RANK} batch dims; merge some");
            return Err(LibraryError::Invalid { op, reason });
        }
        if self.is_empty() {
            return Ok(());
        }
        // No slice has more elements than an isize counts, so what saturates is outside.
        let offset = isize::try_from(layout.offset).unwrap_or(isize::MAX);
        let (mut low, mut high) = (offset, offset);
        for (extent, stride) in self.dims(layout) {
            let reach = isize::try_from(extent - 1).unwrap_or(isize::MAX).saturating_mul(stride);
            if reach < 0 {
                low = low.saturating_add(reach);
            } else {
                high = high.saturating_add(reach);
            }
        }
        if low < 0 || high.unsigned_abs() >= len {
            let (low, high) = (low as i128, high as i128);
            return Err(LibraryError::OutOfBounds { op, operand, low, high, len });
        }
        Ok(())
    }

    /// Checks that no two elements share a place: sorted by stride, each dim must step over all
    /// that the smaller ones reach.
    fn check_disjoint(&self, layout: &Layout<'_>, op: &'static str, operand: &'static str) -> Result<(), LibraryError> {
        // Most outputs are a matrix of dense rows.
        if layout.col == 1 && layout.row.unsigned_abs() >= self.cols && self.matrices() == 1 {
            return Ok(());
        }
        let mut dims = [(0_usize, 0_usize); MAX_BATCH_RANK + 2];
        let mut count = 0;
        for (extent, stride) in self.dims(layout).filter(|(extent, _)| *extent > 1) {
            if let Some(dim) = dims.get_mut(count) {
                *dim = (stride.unsigned_abs(), extent);
                count += 1;
            }
        }
        let dims = dims.get_mut(..count).unwrap_or_default();
        dims.sort_unstable();
        let mut reach = 0_usize;
        for (stride, extent) in dims {
            if *stride <= reach {
                return Err(LibraryError::Overlapping { op, operand });
            }
            // In bounds, so neither overflows.
            reach = reach.saturating_add(stride.saturating_mul(*extent - 1));
        }
        Ok(())
    }
}

/// The start of matrix `index` of a batch.
fn matrix_start(layout: &Layout<'_>, batch: &[usize], mut index: usize) -> usize {
    let mut start = layout.offset as isize;
    for (extent, stride) in batch.iter().zip(layout.batch).rev() {
        start += (index % extent) as isize * stride;
        index /= extent;
    }
    start as usize
}

/// A batch of matrices to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batched<'a, T> {
    data: &'a [T],
    layout: Layout<'a>,
    extents: Extents<'a>,
}

impl<'a, T> Batched<'a, T> {
    pub(super) fn new(
        data: &'a [T],
        layout: Layout<'a>,
        extents: Extents<'a>,
        op: &'static str,
        operand: &'static str,
    ) -> Result<Self, LibraryError> {
        extents.check_bounds(&layout, data.len(), op, operand)?;
        Ok(Batched { data, layout, extents })
    }

    /// Whether the elements of a row are neighbours.
    pub(super) fn has_rows(&self) -> bool {
        self.layout.col == 1
    }

    /// Matrix `index`, counted with the last batch dim fastest.
    pub(super) fn matrix(&self, index: usize) -> MatView<'a, T> {
        MatView {
            data: self.data,
            start: matrix_start(&self.layout, self.extents.batch, index),
            rows: self.extents.rows,
            cols: self.extents.cols,
            row_stride: self.layout.row,
            col_stride: self.layout.col,
        }
    }
}

/// A matrix to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatView<'a, T> {
    data: &'a [T],
    start: usize,
    rows: usize,
    cols: usize,
    pub(super) row_stride: isize,
    pub(super) col_stride: isize,
}

impl<'a, T: Copy> MatView<'a, T> {
    /// A matrix in a slice, if it fits.
    pub(super) fn row_major(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Option<Self> {
        let row_stride = isize::try_from(row_stride).ok()?;
        let extents = Extents { batch: &[], rows, cols };
        let layout = Layout { row: row_stride, col: 1, ..Layout::default() };
        extents.check_bounds(&layout, data.len(), "", "").ok()?;
        Some(MatView { data, start: 0, rows, cols, row_stride, col_stride: 1 })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Whether elements are neighbours along rows or columns.
    pub(super) fn has_neighbours(&self) -> bool {
        self.col_stride == 1 || self.row_stride == 1
    }

    /// The matrix with rows and columns exchanged.
    pub(super) fn transposed(&self) -> Self {
        MatView { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..*self }
    }

    /// Some of the rows, cut to those that exist.
    pub(super) fn row_range(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.rows);
        let begin = range.start.min(end);
        let start = if begin == end { self.start } else { self.index(begin, 0) };
        MatView { start, rows: end - begin, ..*self }
    }

    /// Some of the columns, cut to those that exist.
    pub(super) fn col_range(&self, range: Range<usize>) -> Self {
        self.transposed().row_range(range).transposed()
    }

    fn index(&self, row: usize, col: usize) -> usize {
        (self.start as isize + row as isize * self.row_stride + col as isize * self.col_stride) as usize
    }

    /// Element (row, col).
    #[inline(always)]
    pub(super) fn at(&self, row: usize, col: usize) -> T {
        self.data[self.index(row, col)]
    }

    /// A row as a slice, where its elements are neighbours.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Option<&'a [T]> {
        if self.col_stride != 1 && self.cols > 1 || row >= self.rows {
            return None;
        }
        let start = self.index(row, 0);
        self.data.get(start..start + self.cols)
    }

    /// Where element (0, 0) is. Every element of the view may be read through it.
    pub(super) fn as_ptr(&self) -> *const T {
        // An empty view keeps a start that may be the end of the slice.
        self.data.as_ptr().wrapping_add(self.start)
    }
}

/// How an output is cut: so many tiles along each of batch, rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) batch: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Columns are cut at multiples of this.
    pub(super) unit: usize,
}

/// The range of part `index` when `extent` is cut into `parts` of nearly equal size.
pub(super) fn part(extent: usize, parts: usize, index: usize) -> Range<usize> {
    let (size, rest) = (extent / parts, extent % parts);
    let begin = index * size + index.min(rest);
    begin..begin + size + usize::from(index < rest)
}

/// A part of one matrix of an output, written by one thread.
pub(super) struct Tile<'a, T> {
    start: *mut T,
    /// Which matrix of the batch.
    pub(super) matrix: usize,
    /// Which of its rows.
    pub(super) rows: Range<usize>,
    /// Which of its columns.
    pub(super) cols: Range<usize>,
    pub(super) row_stride: isize,
    pub(super) col_stride: isize,
    data: PhantomData<&'a mut [T]>,
}

impl<'a, T: Copy> Tile<'a, T> {
    /// A slice as a dense matrix, if it is long enough.
    pub(super) fn over(data: &'a mut [T], rows: usize, cols: usize) -> Option<Tile<'a, T>> {
        if rows.checked_mul(cols)? > data.len() {
            return None;
        }
        let col_stride = 1;
        let row_stride = isize::try_from(cols).ok()?;
        let (rows, cols) = (0..rows, 0..cols);
        let start = data.as_mut_ptr();
        Some(Tile { start, matrix: 0, rows, cols, row_stride, col_stride, data: PhantomData })
    }

    /// Element (row, col), counted from the tile's corner.
    #[inline(always)]
    pub(super) fn at(&mut self, row: usize, col: usize) -> &mut T {
        assert!(row < self.rows.len() && col < self.cols.len(), "element inside the tile");
        let offset = row as isize * self.row_stride + col as isize * self.col_stride;
        // SAFETY: inside the tile, which is inside the slice and belongs to this thread.
        unsafe { &mut *self.start.offset(offset) }
    }

    /// A row of the tile as a slice, where its elements are neighbours.
    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> Option<&mut [T]> {
        let neighbours = self.col_stride == 1 || self.cols.len() == 1;
        if !neighbours || row >= self.rows.len() {
            return None;
        }
        // SAFETY: as `at`, for a run of neighbouring elements.
        unsafe {
            let start = self.start.offset(row as isize * self.row_stride);
            Some(std::slice::from_raw_parts_mut(start, self.cols.len()))
        }
    }

    /// Changes every element: `change(row, col, element)`, counted from the tile's corner.
    pub(super) fn for_each(&mut self, mut change: impl FnMut(usize, usize, &mut T)) {
        for row in 0..self.rows.len() {
            if let Some(elements) = self.row(row) {
                elements.iter_mut().enumerate().for_each(|(col, element)| change(row, col, element));
                continue;
            }
            for col in 0..self.cols.len() {
                change(row, col, self.at(row, col));
            }
        }
    }

    /// Where element (0, 0) is. Every element of the tile may be written through it.
    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }
}

struct Shared<T>(*mut T);
// SAFETY: used only in `run_grid`, whose tiles are disjoint.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn start(&self) -> *mut T {
        self.0
    }
}

/// Calls `job(tile, worker)` for every tile of a batch of output matrices, in parallel.
///
/// # Errors
/// When the layout reaches outside `out` or lets two elements share a place.
pub(super) fn run_grid<T: Copy + Send>(
    pool: &Pool,
    out: &mut [T],
    layout: &Layout<'_>,
    extents: &Extents<'_>,
    grid: Grid,
    op: &'static str,
    job: &(dyn Fn(Tile<'_, T>, usize) + Sync),
) -> Result<(), LibraryError> {
    extents.check_bounds(layout, out.len(), op, "the output")?;
    if extents.is_empty() {
        return Ok(());
    }
    extents.check_disjoint(layout, op, "the output")?;
    let matrices = extents.matrices();
    let batch_parts = grid.batch.clamp(1, matrices);
    let row_parts = grid.rows.clamp(1, extents.rows);
    let unit = grid.unit.max(1);
    let units = extents.cols.div_ceil(unit);
    let col_parts = grid.cols.clamp(1, units);
    let shared = Shared(out.as_mut_ptr());
    if batch_parts * row_parts * col_parts == 1 {
        let whole = |matrix| Tile {
            // SAFETY: `check_bounds` holds for every element, and this is one.
            start: unsafe { shared.start().add(matrix_start(layout, extents.batch, matrix)) },
            matrix,
            rows: 0..extents.rows,
            cols: 0..extents.cols,
            row_stride: layout.row,
            col_stride: layout.col,
            data: PhantomData,
        };
        (0..matrices).for_each(|matrix| job(whole(matrix), 0));
        return Ok(());
    }
    pool.run(batch_parts * row_parts * col_parts, &|index, worker| {
        let cols = part(units, col_parts, index % col_parts);
        let cols = cols.start * unit..extents.cols.min(cols.end * unit);
        let rows = part(extents.rows, row_parts, index / col_parts % row_parts);
        for matrix in part(matrices, batch_parts, index / col_parts / row_parts) {
            let corner = matrix_start(layout, extents.batch, matrix) as isize
                + rows.start as isize * layout.row
                + cols.start as isize * layout.col;
            let tile = Tile {
                // SAFETY: `check_bounds` holds for every element, and this is one.
                start: unsafe { shared.start().offset(corner) },
                matrix,
                rows: rows.clone(),
                cols: cols.clone(),
                row_stride: layout.row,
                col_stride: layout.col,
                data: PhantomData,
            };
            job(tile, worker);
        }
    });
    Ok(())
}

/// Scratch memory, a part for each worker.
pub(super) struct Slots<'a, T> {
    start: Shared<T>,
    slot: usize,
    slots: usize,
    data: PhantomData<&'a mut [T]>,
}

impl<'a, T> Slots<'a, T> {
    /// Parts of `slot` elements each.
    pub(super) fn new(scratch: &'a mut [T], slot: usize) -> Self {
        let slots = scratch.len().checked_div(slot).unwrap_or(usize::MAX);
        Slots { start: Shared(scratch.as_mut_ptr()), slot, slots, data: PhantomData }
    }

    /// Calls `job` with a worker's part. Only for use inside [`run_grid`] on one pool, which never
    /// has one worker number in use twice at a time.
    pub(super) fn with(&self, worker: usize, job: impl FnOnce(&mut [T])) {
        assert!(worker < self.slots, "scratch for every worker");
        // SAFETY: the part lies in the borrowed slice, and while `job` runs no other thread has
        // this worker number. A part of no elements is valid at any place.
        job(unsafe { std::slice::from_raw_parts_mut(self.start.start().add(worker * self.slot), self.slot) });
    }
}
