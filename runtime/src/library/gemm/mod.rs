//! Matrix products: `C[m, n] = A[m, k] B[k, n]`, then a bias and bounds, over batches and any strides.
//!
//! In: a [`GemmShape`], operands as slice and [`Layout`]. Out: C filled.
//!
//! - `kernels` our own f32 kernels, over registers; `x86` compiles them over the vector units of `isa`.
//! - `blocks` the loops around them: cache blocks, packing.
//! - [`Panels`] a constant B, packed once; it stands in for an [`Operand`] in [`gemm_packed`].
//! - [`Epilogue`] bias and bounds, in the registers from which C is stored.
//! - `backend` one library crate for the rest: f64, CPUs without AVX2, results without neighbours.
//! - [`int`] 8-bit integer products with zero points.
//!
//! What holds: our kernels give an f32 element of C the same bits in every layout and form, packed
//! or not, on every CPU that has them, however C is cut: one chain of fused multiply-adds over
//! ascending k. For the library crate tiles follow from the shape alone ([`GemmShape`] to `Grid`) and
//! each is computed by one thread: the same bits at any number of threads. With `k == 0` C is what the
//! epilogue makes of zeros.
//!
//! Why our own: measured on a Zen 4 against ONNX Runtime, oneDNN and OpenBLAS no library was best on
//! all sizes; `benches/matmul.rs` and `tests/peers/matmul.py` measure it again.
//!
//! Why bias and bounds are done in registers: they then cost nothing to speak of, while a pass of its own, even over rows
//! that lie in the cache, costs most of what it would elsewhere. Whole models, `frit bench --threads 1`, Zen 4, medians of
//! turns, (m, n, k): bias and relu in a kernel of their own against none, 335 to 309 us at (4096, 64, 64), where the product
//! alone takes 307; 1.77 to 1.56 us at (16, 64, 64); 1 % at (64, 64, 784); nothing that can be told where much is
//! multiplied.

mod backend;
mod blocks;
mod epilogue;
#[cfg(test)]
#[cfg(unix)]
mod exact;
pub mod int;
#[cfg(target_arch = "x86_64")]
mod isa;
mod kernels;
mod panels;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use super::grid::{Layout, MAX_BATCH_RANK};
pub use backend::Float;
pub use epilogue::{Bias, Clamp, Epilogue};
pub use panels::Panels;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::LibraryError;
use super::grid::{Batched, Extents, Grid, MatView, Tile, run_grid};
use crate::pool::Pool;
use blocks::{Rhs, copies, multiply};
use kernels::Kernels;
use panels::Memory;

const OP: &str = "MatMul";

/// Multiply-adds that are worth a tile: ten to twenty microseconds, some times the cost of handing a
/// tile to another thread.
const TILE_WORK: usize = 1_500_000;
/// Multiply-adds that are worth two tiles, of so few rows each.
const PAIR_WORK: usize = 500_000;
const PAIR_ROWS: usize = 8;
/// Tiles of a product that is not large, where each costs some of what its neighbours have in the
/// cache.
const SOME_TILES: usize = 8;
/// Multiply-adds of a tile that is large: more of them than [`SOME_TILES`] are cut.
const LARGE_TILE_WORK: usize = 64_000_000;
/// The most tiles a product is cut into.
const MAX_TILES: usize = 64;
/// Columns are cut first, down to half of this: then B is read, and packed, once.
const TILE_COLS: usize = 256;
/// Then rows, down to half of this.
const TILE_ROWS: usize = 256;
/// With fewer tiles than this, smaller ones are cut.
const FEW_TILES: usize = 4;
/// No tile has fewer rows than these, unless the matrix has.
const MIN_TILE_ROWS: usize = 32;
/// Tiles have a multiple of so many columns: whole panels on every CPU.
const TILE_COLS_UNIT: usize = 64;
/// Rows of a tile that make good use of panels as they pass.
const PACKED_TILE_ROWS: usize = 64;
/// From so many rows and columns on, panels of B are made before the product, by all threads.
const PACKED_FIRST: (usize, usize) = (256, 128);
/// Elements of the panels made at a time: 8 MiB.
const PACKED_AT_ONCE: usize = 2 << 20;

/// The extents of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmShape<'a> {
    /// Leading dims, common to A, B and C; broadcast with stride 0.
    pub batch: &'a [usize],
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

impl<'a> GemmShape<'a> {
    fn a(&self) -> Extents<'a> {
        Extents { batch: self.batch, rows: self.m, cols: self.k }
    }

    fn b(&self) -> Extents<'a> {
        Extents { batch: self.batch, rows: self.k, cols: self.n }
    }

    fn c(&self) -> Extents<'a> {
        Extents { batch: self.batch, rows: self.m, cols: self.n }
    }

    /// How C is cut where B is packed: rows first if A is copied, so that it is copied once. Panels are then read more
    /// often, but as fast as memory gives them.
    fn packed_grid(&self, a: &MatView<'_, f32>) -> Grid {
        let mut grid = self.grid(true);
        if grid.batch == 1 && copies(a) {
            let tiles = grid.rows * grid.cols;
            while grid.rows < tiles && 2 * grid.rows * PACKED_TILE_ROWS <= self.m {
                grid.rows *= 2;
            }
            grid.cols = (tiles / grid.rows).max(1);
        }
        grid
    }

    /// Two tiles, cut so that what is stored in rows is read and written in halves of its rows where that makes no other
    /// difference: the two threads that take them then keep to the same half of it, as all kernels do. Of weights
    /// `[n, k]` each reads its own, and of their gradient, whose A is stored `[k, m]`, it writes its own: 9 of 330 us of
    /// a training step of 784-64-10 on two threads.
    fn in_halves(&self, grid: Grid, [a, b]: &[Layout<'_>; 2]) -> Grid {
        let columns = |x: &Layout<'_>| x.row == 1 && x.col != 1;
        match (grid.batch, grid.rows, grid.cols) {
            (1, 1, 2) if columns(a) && self.m >= 2 * MIN_TILE_ROWS => Grid { rows: 2, cols: 1, ..grid },
            (1, 2, 1) if columns(b) && self.n >= TILE_COLS_UNIT && self.n.is_multiple_of(TILE_COLS_UNIT) => {
                Grid { rows: 1, cols: 2, unit: TILE_COLS_UNIT / 2, ..grid }
            }
            _ => grid,
        }
    }

    /// How C is cut. `pairs`: whether few rows may be parted, which costs nothing where B is read as it lies.
    fn grid(&self, pairs: bool) -> Grid {
        let matrices = self.c().matrices();
        let one = self.m.saturating_mul(self.n).saturating_mul(self.k.max(1));
        let work = one.saturating_mul(matrices);
        let least = if pairs && work >= PAIR_WORK { 2 } else { 1 };
        let wanted = (work / TILE_WORK).min(SOME_TILES).max(work / LARGE_TILE_WORK).clamp(least, MAX_TILES);
        let batch = wanted.min(matrices.max(1));
        let (mut rows, mut cols) = (1, 1);
        while 2 * batch * rows * cols <= wanted {
            let (tile_rows, tile_cols) = (self.m / rows, self.n / cols);
            let tiles = batch * rows * cols;
            if tile_cols >= TILE_COLS && tile_rows < 8 * tile_cols {
                cols *= 2;
            } else if tile_rows >= TILE_ROWS {
                rows *= 2;
            } else if tiles < FEW_TILES && tile_cols >= 2 * TILE_COLS_UNIT {
                cols *= 2;
            } else if (tiles < FEW_TILES || tile_cols < TILE_COLS_UNIT * 2) && tile_rows >= 2 * MIN_TILE_ROWS {
                rows *= 2;
            } else if pairs && tiles == 1 && tile_rows >= 2 * PAIR_ROWS {
                rows = 2;
            } else {
                break;
            }
        }
        Grid { batch, rows, cols, unit: TILE_COLS_UNIT }
    }
}

/// A batch of matrices to read.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a, T> {
    /// The memory they are in.
    pub data: &'a [T],
    /// Where in it.
    pub layout: Layout<'a>,
}

/// `C = A B`, then what `after` says, in f32 or f64, for every matrix of the batch.
///
/// `c` is written, never read; elements of the slice outside the layout keep their values.
///
/// # Errors
/// A layout that does not fit its slice, a C whose elements overlap, a bias of another length.
pub fn gemm<T: Float>(
    pool: &Pool,
    shape: &GemmShape<'_>,
    a: Operand<'_, T>,
    b: Operand<'_, T>,
    after: Epilogue<'_, T>,
    c: &mut [T],
    c_layout: Layout<'_>,
) -> Result<(), LibraryError> {
    after.check(OP, shape.m, shape.n)?;
    let layouts = [a.layout, b.layout];
    let a = Batched::new(a.data, a.layout, shape.a(), OP, "A")?;
    let b = Batched::new(b.data, b.layout, shape.b(), OP, "B")?;
    if let Some(done) = T::packed_first(pool, shape, &a, &b, after, c, c_layout) {
        return done;
    }
    let grid = shape.in_halves(shape.grid(b.has_rows()), &layouts);
    run_grid(pool, c, &c_layout, &shape.c(), grid, OP, &|mut tile, _| {
        let a = a.matrix(tile.matrix).row_range(tile.rows.clone());
        let b = b.matrix(tile.matrix).col_range(tile.cols.clone());
        product(&a, &b, &after, &mut tile);
    })
}

/// [`gemm`] in f32 with a packed B.
///
/// # Errors
/// As [`gemm`]; panels of another shape.
pub fn gemm_packed(
    pool: &Pool,
    shape: &GemmShape<'_>,
    a: Operand<'_, f32>,
    b: &Panels,
    after: Epilogue<'_, f32>,
    c: &mut [f32],
    c_layout: Layout<'_>,
) -> Result<(), LibraryError> {
    after.check(OP, shape.m, shape.n)?;
    let a = Batched::new(a.data, a.layout, shape.a(), OP, "A")?;
    // Rows of C may lie anywhere, but kernels store vectors into them.
    if !b.suits(shape) || c_layout.col != 1 {
        let reason = format!("{b:?} do not suit a product of {shape:?} into rows of neighbours");
        return Err(LibraryError::Invalid { op: OP, reason });
    }
    packed_tiles(pool, shape, &a, b, after, c, c_layout)
}

/// [`gemm_packed`], checked.
fn packed_tiles(
    pool: &Pool,
    shape: &GemmShape<'_>,
    a: &Batched<'_, f32>,
    b: &Panels,
    after: Epilogue<'_, f32>,
    c: &mut [f32],
    c_layout: Layout<'_>,
) -> Result<(), LibraryError> {
    let failed = AtomicBool::new(false);
    run_grid(pool, c, &c_layout, &shape.c(), shape.packed_grid(&a.matrix(0)), OP, &|mut tile, _| {
        let a = a.matrix(tile.matrix).row_range(tile.rows.clone());
        let b_tile = Rhs::Packed { panels: b, matrix: tile.matrix, first: tile.cols.start };
        if !multiply(b.kernels, &a, b_tile, &after, &mut tile) {
            failed.store(true, Ordering::Relaxed);
        }
    })?;
    if failed.into_inner() {
        return Err(LibraryError::Invalid { op: OP, reason: "no memory for the parts of a product".to_owned() });
    }
    Ok(())
}

/// Bytes that a product of f32 matrices takes for copies of its operands, and that threads keep afterwards.
/// `transposed`: A is stored `[k, m]`.
pub(crate) fn kept_bytes(m: usize, n: usize, k: usize, transposed: bool, threads: usize) -> usize {
    let (rows, cols) = PACKED_FIRST;
    let width = PACKED_AT_ONCE / k.max(1) / TILE_COLS_UNIT * TILE_COLS_UNIT;
    let copies = blocks::copies_rows(m, k, transposed);
    let panels = match m >= rows && n >= cols && width >= cols && copies {
        true => n.div_ceil(n.div_ceil(width)).next_multiple_of(TILE_COLS_UNIT).saturating_mul(k),
        false => 0,
    };
    let each = blocks::scratch_elements(m.div_ceil(threads.max(1)), n, k, copies);
    panels.saturating_add(each.saturating_mul(threads)).saturating_mul(size_of::<f32>())
}

thread_local! {
    /// Memory for panels that are used once, kept from product to product.
    static PANELS: Cell<Memory> = const { Cell::new(Memory::NONE) };
}

/// [`gemm`] where A is copied some rows at a time: panels of B are made first, not again for each of those.
/// `None` where that would bring nothing, or can't be done.
fn packed_first(
    pool: &Pool,
    shape: &GemmShape<'_>,
    a: &Batched<'_, f32>,
    b: &Batched<'_, f32>,
    after: Epilogue<'_, f32>,
    c: &mut [f32],
    c_layout: Layout<'_>,
) -> Option<Result<(), LibraryError>> {
    let GemmShape { batch, m, n, k } = *shape;
    let (rows, cols) = PACKED_FIRST;
    let one = batch.iter().all(|extent| *extent == 1);
    if m < rows || n < cols || k == 0 || !one || c_layout.col != 1 || !copies(&a.matrix(0)) {
        return None;
    }
    let kernels = Kernels::detect()?;
    let width = PACKED_AT_ONCE / k / TILE_COLS_UNIT * TILE_COLS_UNIT;
    if width < cols || !b.matrix(0).has_neighbours() {
        return None;
    }
    // Parts of nearly equal width.
    let width = n.div_ceil(n.div_ceil(width)).next_multiple_of(TILE_COLS_UNIT);
    for first in (0..n).step_by(width) {
        let cols = first..n.min(first + width);
        let panels = Panels::now(kernels, pool, &b.matrix(0).col_range(cols.clone()), PANELS.replace(Memory::NONE))?;
        let after = after.of_columns(cols.clone());
        let c_layout = Layout { offset: c_layout.offset + first, ..c_layout };
        let done = packed_tiles(pool, &GemmShape { n: cols.len(), ..*shape }, a, &panels, after, c, c_layout);
        PANELS.set(panels.into_memory());
        if done.is_err() {
            return Some(done);
        }
    }
    Some(Ok(()))
}

/// One tile of a product, on the calling thread: `a` holds the tile's rows, `b` its columns.
pub(super) fn product<T: Float>(
    a: &MatView<'_, T>,
    b: &MatView<'_, T>,
    after: &Epilogue<'_, T>,
    tile: &mut Tile<'_, T>,
) {
    if a.cols() == 0 {
        tile.for_each(|_, _, value| *value = T::ZERO);
        after.apply(tile);
    } else {
        T::product(a, b, after, tile);
    }
}
