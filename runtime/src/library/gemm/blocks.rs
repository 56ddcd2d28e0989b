//! f32 products by our own kernels: which blocks in which order, and what is packed.
//!
//! ```text
//!  rows of A, a hundred or so at a time where their strides would fight for one cache set: then copied
//!    depth, in parts that keep a panel of B in the cache
//!      panels of B: packed at load, read in place, or packed now into scratch
//!        blocks of rows ---> a kernel
//! ```
//!
//! In: views and a tile that fit each other. Out: the tile filled, or `false` where C has no neighbouring elements in
//! either direction. None of the choices made here changes a bit of the result (see `kernels`), so they may depend on
//! the layout and on what the CPU has.
#![allow(unsafe_code)] // Pointers into checked views, for the kernels.

use std::cell::RefCell;

use super::Epilogue;
use super::kernels::{Block, Finish, Kernels, Part};
use super::panels::{Memory, Panels};
use crate::library::grid::{MatView, Tile};

/// The deepest part: a panel of that depth is 128 KiB.
const DEPTH: usize = 1024;
/// Part of the depth where B is read in place by one block of rows: the rows of B are read side by side, so that memory
/// gives long stretches of each.
const DEPTH_IN_PLACE: usize = 16;
/// Elements of B in scratch.
const B_SCRATCH: usize = DEPTH * 32;
/// Elements of A in scratch: 128 rows of the deepest part, half of a second-level cache of 1 MiB.
const A_SCRATCH: usize = 136 * DEPTH;
/// Elements of a cache line.
const LINE: usize = 16;
/// How far ahead panels are fetched, in elements: 2 KiB.
const PANEL_AHEAD: usize = 512;
/// Panels made at a time of columns that are read once.
const WIDE_COLUMNS: usize = 2;
/// With at least so many blocks of rows, a panel of B in scratch pays.
const BLOCKS_WORTH_PACKING: usize = 3;
/// Of so few rows a panel stays in the first level of the cache as it lies.
const SHALLOW: usize = 96;
/// Rows of B up to this length are one stretch of memory: packing brings nothing.
const NARROW: usize = 64;
/// Addresses this far apart share a cache set.
const SET_STRIDE: usize = 4096;
/// A larger B is fetched ahead of being turned; in a smaller one that costs more than it brings.
const FAR: usize = 8 << 20;
/// A larger A is copied, so that its pages are visited once.
const A_LARGE: usize = 2 << 20;

/// The second operand of a product.
#[derive(Clone, Copy)]
pub(super) enum Rhs<'a> {
    /// Where it lies.
    View(MatView<'a, f32>),
    /// Packed: which matrix, and its first column, which starts a panel.
    Packed { panels: &'a Panels, matrix: usize, first: usize },
}

/// B in memory.
#[derive(Clone, Copy)]
enum Form {
    /// Rows of neighbours, `step` apart.
    Rows { b: *const f32, step: isize },
    /// Columns of neighbours, `step` apart; `far`: they come from memory, not from a cache.
    Columns { b: *const f32, step: isize, far: bool },
    /// Whole panels, `depth` rows each.
    Panels { b: *const f32, depth: usize },
}

/// A product, C with neighbours along its rows.
#[derive(Clone, Copy)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row: isize,
    a_step: isize,
    b: Form,
    c: *mut f32,
    c_row: isize,
    /// What is done to an element that is complete.
    finish: Option<Finish>,
}

struct Scratch {
    a: Memory,
    b: Memory,
}

thread_local! {
    /// Of fixed size, so a thread allocates it once.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { a: Memory::NONE, b: Memory::NONE }) };
}

impl Scratch {
    /// Makes the parts that are wanted; false when there is no memory.
    fn reserve(&mut self, a: bool, b: bool) -> bool {
        (!a || self.a.grow(A_SCRATCH)) && (!b || self.b.grow(B_SCRATCH))
    }
}

/// `tile = a b`, then what `after` says; `a` holds the tile's rows, `b` its columns.
pub(super) fn multiply(
    kernels: &Kernels,
    a: &MatView<'_, f32>,
    b: Rhs<'_>,
    after: &Epilogue<'_, f32>,
    tile: &mut Tile<'_, f32>,
) -> bool {
    let (m, n, k) = (tile.rows.len(), tile.cols.len(), a.cols());
    assert!(a.rows() == m && k > 0, "views that fit the tile");
    let (form, swapped) = match b {
        Rhs::View(b) => {
            assert!(b.rows() == k && b.cols() == n, "views that fit the tile");
            (Form::of(&b), Form::of(&a.transposed()))
        }
        Rhs::Packed { panels, matrix, first } => {
            let Some(packed) = panels.from(matrix, first, k, n) else { return false };
            (Some(Form::Panels { b: packed.as_ptr(), depth: k }), None)
        }
    };
    let finish = after.finish(tile);
    let c = tile.as_mut_ptr();
    // A single column is a row of the transposed product, where kernels are as wide as they can be.
    let across = n == 1 && m > 1 && tile.row_stride == 1 && swapped.is_some();
    let product = if let (Some(b), false, true) = (form, across, tile.col_stride == 1 || n == 1) {
        let (a_row, a_step) = (a.row_stride, a.col_stride);
        Product { m, n, k, a: a.as_ptr(), a_row, a_step, b, c, c_row: tile.row_stride, finish }
    } else if let (Some(form), Rhs::View(b), true) = (swapped, b, tile.row_stride == 1 || m == 1) {
        let (a_row, a_step) = (b.col_stride, b.row_stride);
        let finish = finish.map(Finish::transposed);
        Product { m: n, n: m, k, a: b.as_ptr(), a_row, a_step, b: form, c, c_row: tile.col_stride, finish }
    } else {
        return false;
    };
    SCRATCH.with_borrow_mut(|scratch| product.run(kernels, scratch))
}

impl Form {
    /// How a matrix lies, if it has neighbours in some direction.
    fn of(b: &MatView<'_, f32>) -> Option<Form> {
        let ptr = b.as_ptr();
        if b.col_stride == 1 || b.cols() == 1 {
            Some(Form::Rows { b: ptr, step: b.row_stride })
        } else if b.row_stride == 1 || b.rows() == 1 {
            let far = b.rows().saturating_mul(b.cols()).saturating_mul(size_of::<f32>()) > FAR;
            Some(Form::Columns { b: ptr, step: b.col_stride, far })
        } else {
            None
        }
    }
}

/// Whether lines so many elements apart share a cache set.
fn collides(stride: isize) -> bool {
    let bytes = stride.unsigned_abs().wrapping_mul(size_of::<f32>());
    bytes >= SET_STRIDE && bytes.is_multiple_of(SET_STRIDE)
}

/// `extent` in equal parts of at most `most`.
fn equal_parts(extent: usize, most: usize) -> usize {
    if extent <= most {
        return extent;
    }
    extent.div_ceil(extent.div_ceil(most).max(1))
}

/// Whether A gains by being copied for many panels: its strides are bad for the cache, or it is large.
fn worth_copying(m: usize, k: usize, row: isize, step: isize) -> bool {
    let far = if step == 1 { row } else { step };
    let large = m.saturating_mul(k).saturating_mul(size_of::<f32>()) > A_LARGE;
    (step == 1 || row == 1) && (large || collides(far))
}

/// Whether a large product copies this A.
pub(super) fn copies(a: &MatView<'_, f32>) -> bool {
    worth_copying(a.rows(), a.cols(), a.row_stride, a.col_stride)
}

/// [`copies`] of a matrix `[m, k]`, or one that is stored `[k, m]`.
pub(super) fn copies_rows(m: usize, k: usize, transposed: bool) -> bool {
    let wide = |n: usize| isize::try_from(n).unwrap_or(isize::MAX);
    let (row, step) = if transposed { (1, wide(m)) } else { (wide(k), 1) };
    worth_copying(m, k, row, step)
}

/// Elements that a thread writes for its part of a product, of which it has `m` rows.
pub(super) fn scratch_elements(m: usize, n: usize, k: usize, copies: bool) -> usize {
    let wide = Kernels::detect().is_some_and(|kernels| m >= 2 * kernels.rows && n >= 4 * kernels.panel());
    let a = if copies && wide { A_SCRATCH.min(m.saturating_mul(k)) } else { 0 };
    a + B_SCRATCH.min(n.saturating_mul(k))
}

impl Product {
    /// Whether B is read in place.
    fn in_place(&self, kernels: &Kernels) -> bool {
        match self.b {
            Form::Panels { .. } => true,
            Form::Columns { .. } => false,
            Form::Rows { step, .. } => {
                let blocks = self.m.div_ceil(kernels.rows);
                let few = blocks < BLOCKS_WORTH_PACKING || self.k <= SHALLOW;
                let once = blocks == 1 || self.n <= NARROW || few && !collides(step);
                once && (kernels.reads_masked || self.n.is_multiple_of(kernels.lanes))
            }
        }
    }

    /// Whether A is copied.
    fn copies_a(&self, kernels: &Kernels) -> bool {
        let used = self.m >= 2 * kernels.rows && self.n >= 4 * kernels.panel();
        used && worth_copying(self.m, self.k, self.a_row, self.a_step)
    }

    fn run(&self, kernels: &Kernels, scratch: &mut Scratch) -> bool {
        let wide = WIDE_COLUMNS * kernels.panel();
        if let (Form::Columns { b, step, far }, true) = (self.b, self.m <= kernels.rows && self.n > wide) {
            // Columns are read once: each from end to end, which memory likes best.
            return (0..self.n).step_by(wide).all(|col| {
                let b = Form::Columns { b: b.wrapping_offset(col as isize * step), step, far };
                let n = wide.min(self.n - col);
                let finish = self.finish.map(|finish| finish.from(0, col));
                Product { n, b, c: self.c.wrapping_add(col), finish, ..*self }.run(kernels, scratch)
            });
        }
        let (in_place, copies_a) = (self.in_place(kernels), self.copies_a(kernels));
        if !scratch.reserve(copies_a, !in_place) {
            return false;
        }
        let rows = equal_parts(self.m, kernels.rows);
        let at_once = match self.b {
            Form::Columns { .. } => kernels.panels_at_once(rows).min(WIDE_COLUMNS),
            Form::Rows { .. } | Form::Panels { .. } => kernels.panels_at_once(rows),
        };
        let single = self.m <= kernels.rows;
        let deepest = match self.b {
            Form::Panels { .. } if single => usize::MAX,
            Form::Rows { .. } if single && in_place && self.n > NARROW => DEPTH_IN_PLACE,
            _ if in_place => DEPTH,
            _ => B_SCRATCH / kernels.panel() / at_once,
        };
        let depth = equal_parts(self.k, deepest);
        let copy = copies_a.then(|| Copied::new(kernels, depth, self.a_step == 1, rows));
        // Rows of A at a time: whole blocks.
        let height = copy.map_or(self.m, |copy| equal_parts(self.m.div_ceil(rows), A_SCRATCH / copy.block) * rows);
        // Here and in a strip: `step_by` divides, which counts in a small product.
        let mut top = 0;
        while top < self.m {
            let bottom = self.m.min(top + height);
            let mut begin = 0;
            while begin < self.k {
                let depth = depth.min(self.k - begin);
                let strip = Strip { product: self, kernels, begin, depth, top, bottom, rows, in_place, at_once, copy };
                strip.run(scratch.a.elements_mut(), scratch.b.elements_mut());
                begin += depth;
            }
            top = bottom;
        }
        true
    }
}

/// How rows of A are copied.
#[derive(Clone, Copy)]
struct Copied {
    /// From one block of rows to the next.
    block: usize,
    row: usize,
    step: usize,
}

impl Copied {
    /// A keeps its form: rows of neighbours an odd number of cache lines apart, which share no set; or a vector for each
    /// step of the depth.
    fn new(kernels: &Kernels, depth: usize, in_rows: bool, rows: usize) -> Copied {
        if in_rows {
            let row = (depth.div_ceil(LINE) | 1) * LINE;
            Copied { block: rows * row, row, step: 1 }
        } else {
            Copied { block: depth * kernels.lanes, row: 1, step: kernels.lanes }
        }
    }
}

/// Some rows of a product and a part of its depth.
struct Strip<'a> {
    product: &'a Product,
    kernels: &'a Kernels,
    begin: usize,
    depth: usize,
    top: usize,
    bottom: usize,
    /// Rows of a block.
    rows: usize,
    in_place: bool,
    /// Whole panels that a block of so many rows may have.
    at_once: usize,
    /// How A is copied, if it is.
    copy: Option<Copied>,
}

impl Strip<'_> {
    fn run(&self, copied: &mut [f32], scratch: &mut [f32]) {
        let Strip { product, kernels, begin, depth, .. } = *self;
        let Product { a, a_row, a_step, c, c_row, .. } = *product;
        // Only the last part of the depth completes a sum.
        let finish = product.finish.as_ref().filter(|_| begin + depth == product.k);
        if let Some(copy) = &self.copy {
            self.copy_a(copy, copied);
        }
        let panel = kernels.panel();
        let mut col = 0;
        while col < product.n {
            let left = product.n - col;
            // Groups are of whole panels; what is narrower comes alone.
            let mut group = self.at_once;
            while group > 1 && group * panel > left {
                group /= 2;
            }
            let cols = left.min(group * panel);
            let b = self.panel(col, cols, scratch);
            let (mut index, mut row) = (0, self.top);
            while row < self.bottom {
                let rows = self.rows.min(self.bottom - row);
                let (a, a_row, a_step) = match self.copy {
                    Some(Copied { block, row, step }) => {
                        (copied.as_ptr().wrapping_add(index * block), row as isize, step as isize)
                    }
                    None => (a.wrapping_offset(row as isize * a_row + begin as isize * a_step), a_row, a_step),
                };
                let c = c.wrapping_offset(row as isize * c_row).wrapping_add(col);
                // The next panel is fetched once.
                let (fetch, fetch_step) = if index == 0 { (b.fetch, b.fetch_step) } else { (b.b, b.b_step) };
                let from_zero = begin == 0;
                let block = Block { depth, a, a_row, a_step, c, c_row, cols, fetch, fetch_step, from_zero, ..b };
                let here = finish.map(|finish| finish.from(row, col));
                // SAFETY: rows, columns and depth are within the product's, whose views, tile and bias were checked
                // against their slices and fit each other; copied operands hold what `copy_a` and `panel` put there. The
                // tile is borrowed mutably, so nothing else uses C. `rows` is at most the kernels', and there are at
                // most `at_once` panels; `in_place` has made sure that B has whole vectors where they are read.
                unsafe { kernels.run(rows, &block, here.as_ref()) }
                (index, row) = (index + 1, row + rows);
            }
            col += cols;
        }
    }

    /// Copies the strip of A, a block of rows after the other.
    fn copy_a(&self, copy: &Copied, target: &mut [f32]) {
        let Strip { product, kernels, begin, depth, .. } = *self;
        let Product { a, a_row, a_step, .. } = *product;
        for (index, top) in (self.top..self.bottom).step_by(self.rows).enumerate() {
            let rows = self.rows.min(self.bottom - top);
            let target = &mut target[index * copy.block..][..copy.block];
            let from = a.wrapping_offset(top as isize * a_row + begin as isize * a_step);
            if a_step == 1 {
                for (row, target) in target.chunks_exact_mut(copy.row).take(rows).enumerate() {
                    let from = from.wrapping_offset(row as isize * a_row);
                    // SAFETY: `depth` neighbours are there; scratch is no part of A.
                    unsafe { from.copy_to_nonoverlapping(target[..depth].as_mut_ptr(), depth) }
                }
            } else {
                // SAFETY: `rows` neighbours are there for each step of the depth (`copies_a` wants one stride to be 1);
                // the kernels' rows are at most the lanes.
                unsafe {
                    kernels.pack(
                        false,
                        &Part { from, step: a_step, depth, cols: rows, far: false },
                        target.as_mut_ptr(),
                        copy.step,
                    )
                }
            }
        }
    }

    /// Columns of B as a kernel reads them, packed into scratch where they are not read in place. Only what describes
    /// B is set.
    fn panel(&self, col: usize, cols: usize, scratch: &mut [f32]) -> Block {
        let Strip { product, kernels, begin, depth, .. } = *self;
        let panel = kernels.panel();
        let width = if cols <= kernels.lanes { kernels.lanes } else { panel };
        let empty = Block {
            depth,
            a: std::ptr::null(),
            a_row: 0,
            a_step: 0,
            b: std::ptr::null(),
            b_panel: 0,
            b_step: 0,
            fetch: std::ptr::null(),
            fetch_step: 0,
            c: std::ptr::null_mut(),
            c_row: 0,
            cols,
            from_zero: false,
        };
        match product.b {
            Form::Panels { b, depth: whole } => {
                let b = b.wrapping_add(col * whole + begin * width);
                let (b_step, fetch) = (width as isize, b.wrapping_add(PANEL_AHEAD));
                Block { b, b_panel: panel * whole, b_step, fetch, fetch_step: b_step, ..empty }
            }
            Form::Rows { b, step } if self.in_place => {
                let b = b.wrapping_offset(begin as isize * step).wrapping_add(col);
                Block { b, b_panel: panel, b_step: step, fetch: b.wrapping_add(cols), fetch_step: step, ..empty }
            }
            Form::Rows { .. } | Form::Columns { .. } => {
                let (fetch, fetch_step) = match product.b {
                    Form::Rows { b, step } => (b.wrapping_offset(begin as isize * step).wrapping_add(col + cols), step),
                    Form::Columns { .. } | Form::Panels { .. } => (scratch.as_ptr(), 0),
                };
                let mut done = 0;
                while done < cols {
                    let cols = panel.min(cols - done);
                    let target = &mut scratch[done * depth..][..width * depth];
                    // SAFETY: the columns and the part of the depth are within B.
                    unsafe { pack_panel(kernels, product.b, (begin, depth), (col + done, cols), target, width) };
                    done += cols;
                }
                let (b_panel, b_step) = (panel * depth, width as isize);
                Block { b: scratch.as_ptr(), b_panel, b_step, fetch, fetch_step, ..empty }
            }
        }
    }
}

/// Packs some columns and a part of the depth of B, zeros behind the last column.
///
/// # Safety
/// They are within B, which is no packed one. The target holds `width` for each step of the depth.
unsafe fn pack_panel(
    kernels: &Kernels,
    b: Form,
    (begin, depth): (usize, usize),
    (col, cols): (usize, usize),
    target: &mut [f32],
    width: usize,
) {
    let (from, step, in_columns, far) = match b {
        Form::Rows { b, step } => (b.wrapping_offset(begin as isize * step).wrapping_add(col), step, false, false),
        Form::Columns { b, step, far } => (b.wrapping_offset(col as isize * step).wrapping_add(begin), step, true, far),
        Form::Panels { .. } => return,
    };
    // SAFETY: as the caller vouches.
    unsafe { kernels.pack(in_columns, &Part { from, step, depth, cols, far }, target.as_mut_ptr(), width) }
}

/// Packs some columns of a matrix into whole panels, from a column on that starts one. False when the matrix does not
/// lie in rows or columns of neighbours.
pub(super) fn pack(kernels: &Kernels, b: &MatView<'_, f32>, first: usize, target: &mut [f32]) -> bool {
    let Some(form) = Form::of(b) else { return false };
    let (k, n, panel) = (b.rows(), b.cols(), kernels.panel());
    for (index, target) in target.chunks_mut(panel * k).enumerate() {
        let col = first + index * panel;
        let cols = panel.min(n - col);
        let width = if cols <= kernels.lanes { kernels.lanes } else { panel };
        let target = &mut target[..width * k];
        // SAFETY: the columns are within the view, which was checked against its slice.
        unsafe { pack_panel(kernels, form, (0, k), (col, cols), target, width) };
    }
    true
}

/// Elements of panels, the last one perhaps half as wide. `None` on overflow.
pub(super) fn packed_len(kernels: &Kernels, k: usize, n: usize) -> Option<usize> {
    n.checked_next_multiple_of(kernels.lanes)?.checked_mul(k)
}
