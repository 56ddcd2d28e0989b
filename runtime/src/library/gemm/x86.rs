//! The kernels of x86-64: written once over a vector unit, compiled for AVX-512 and for AVX2 with FMA.
//!
//! In: a [`Block`] that the caller vouches for. Out: its part of C. See `kernels` for what all of them hold to.
#![allow(unsafe_code)] // Kernels over raw pointers; target features.
#![allow(
    clippy::needless_range_loop,
    reason = "an iterator would be a closure, which is not compiled for the vector unit"
)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::isa::{Avx2, Avx512, Isa};
use super::kernels::{Along, Block, Finish, Kernel, Kernels, PANEL_VECTORS, Part};

/// `rows` by `vectors` of C, in registers.
#[inline(always)]
unsafe fn block<I: Isa, const ROWS: usize, const VECTORS: usize>(block: &Block, finish: Option<&Finish>) {
    // SAFETY: the caller vouches for all elements of the block: `ROWS` rows, `depth` steps, `cols` columns in at most
    // `VECTORS` vectors, and for the CPU. Prefetching touches nothing.
    unsafe {
        let mut masks = [I::mask(0); VECTORS];
        for (v, mask) in masks.iter_mut().enumerate() {
            *mask = I::mask(block.cols.saturating_sub(v * I::LANES));
        }
        // Loops, not closures: a closure would not be compiled for the vector unit.
        let mut sums = [[I::zero(); VECTORS]; ROWS];
        if !block.from_zero {
            for r in 0..ROWS {
                let row = block.c.offset(r as isize * block.c_row);
                for v in 0..VECTORS {
                    sums[r][v] = I::load_part(row.wrapping_add(v * I::LANES), masks[v]);
                }
            }
        }
        let (mut a, mut b, mut fetch) = (block.a, block.b, block.fetch);
        for _ in 0..block.depth {
            let mut values = [I::zero(); VECTORS];
            for v in 0..VECTORS {
                let offset = v / PANEL_VECTORS * block.b_panel + v % PANEL_VECTORS * I::LANES;
                _mm_prefetch::<_MM_HINT_T0>(fetch.wrapping_add(offset).cast());
                values[v] = I::load(b.wrapping_add(offset), masks[v]);
            }
            for r in 0..ROWS {
                let factor = I::splat(a.offset(r as isize * block.a_row));
                for v in 0..VECTORS {
                    sums[r][v] = I::mul_add(factor, values[v], sums[r][v]);
                }
            }
            a = a.wrapping_offset(block.a_step);
            b = b.wrapping_offset(block.b_step);
            fetch = fetch.wrapping_offset(block.fetch_step);
        }
        // Each way to the end has stores of its own: where they met again, sums would be moved.
        if let Some(finish) = finish {
            match (finish.along, finish.upper < f32::INFINITY) {
                (Along::Rows, _) => store_finished::<I, ROWS, VECTORS, true, true>(block, finish, &masks, &sums),
                (_, true) => store_finished::<I, ROWS, VECTORS, false, true>(block, finish, &masks, &sums),
                (_, false) => store_finished::<I, ROWS, VECTORS, false, false>(block, finish, &masks, &sums),
            }
            return;
        }
        for r in 0..ROWS {
            let row = block.c.offset(r as isize * block.c_row);
            for v in 0..VECTORS {
                I::store_part(row.wrapping_add(v * I::LANES), masks[v], sums[r][v]);
            }
        }
    }
}

/// Stores sums that are complete, with bias and bounds.
#[inline(always)]
unsafe fn store_finished<I: Isa, const ROWS: usize, const VECTORS: usize, const BY_ROW: bool, const UPPER: bool>(
    block: &Block,
    finish: &Finish,
    masks: &[I::Mask; VECTORS],
    sums: &[[I::Vector; VECTORS]; ROWS],
) {
    // SAFETY: the caller vouches for C and the CPU, and for as many elements of the bias as there are rows, or columns.
    unsafe {
        // A sum is -0 only where both parts are: with a bias of +0 instead of -0 it becomes what the bound makes of it.
        let (zero, lower, upper) = (I::splat(&finish.zero), I::splat(&finish.lower), I::splat(&finish.upper));
        let mut bias = [zero; VECTORS];
        if finish.along == Along::Columns {
            for v in 0..VECTORS {
                bias[v] = I::add(I::load_part(finish.bias.wrapping_add(v * I::LANES), masks[v]), zero);
            }
        }
        for r in 0..ROWS {
            let row = block.c.offset(r as isize * block.c_row);
            if BY_ROW {
                bias = [I::add(I::splat(finish.bias.add(r)), zero); VECTORS];
            }
            for v in 0..VECTORS {
                let value = I::max(lower, I::add(sums[r][v], bias[v]));
                let value = if UPPER { I::min(upper, value) } else { value };
                I::store_part(row.wrapping_add(v * I::LANES), masks[v], value);
            }
        }
    }
}

/// How far ahead of a square its rows are fetched, in elements: 256 bytes.
const SQUARE_AHEAD: usize = 64;

/// Packs rows of neighbours.
#[inline(always)]
unsafe fn pack_rows<I: Isa>(part: &Part, panel: *mut f32, width: usize) {
    let Part { from, step, depth, cols, .. } = *part;
    let (mut from, mut to) = (from, panel);
    for _ in 0..depth {
        for col in (0..width).step_by(I::LANES) {
            // SAFETY: no element past the last column is read; the caller vouches for the others and the panel.
            unsafe {
                let mask = I::mask(cols.saturating_sub(col));
                I::store(to.add(col), I::load_part(from.wrapping_add(col), mask));
            }
        }
        (from, to) = (from.wrapping_offset(step), to.wrapping_add(width));
    }
}

/// Packs columns of neighbours.
#[inline(always)]
unsafe fn pack_columns<I: Isa>(part: &Part, panel: *mut f32, width: usize) {
    // SAFETY: as the caller vouches.
    unsafe {
        if part.far {
            pack_squares::<I, true>(part, panel, width)
        } else {
            pack_squares::<I, false>(part, panel, width)
        }
    }
}

/// [`pack_columns`], a square at a time, perhaps fetched ahead: a constant, since its 16 addresses take registers.
#[inline(always)]
unsafe fn pack_squares<I: Isa, const FAR: bool>(part: &Part, panel: *mut f32, width: usize) {
    let Part { from, step, depth, cols, .. } = *part;
    for col in (0..width).step_by(I::LANES) {
        // Past the last column nothing is read, the square has no rows.
        let rows = cols.saturating_sub(col).min(I::LANES);
        for begin in (0..depth).step_by(I::LANES) {
            let from = from.wrapping_offset(col as isize * step).wrapping_add(begin);
            let to = panel.wrapping_add(begin * width + col);
            let left = depth - begin;
            // SAFETY: the caller vouches for the part and the panel, whose end a square may pass only in `last`, which
            // holds the largest square. Prefetching touches nothing.
            unsafe {
                if left < I::LANES {
                    let mut last = [0.0; 256];
                    I::transpose(from, step, last.as_mut_ptr(), I::LANES, rows, left);
                    for depth in 0..left {
                        let line = last.as_ptr().add(depth * I::LANES);
                        line.copy_to_nonoverlapping(to.add(depth * width), I::LANES);
                    }
                    continue;
                }
                for row in 0..if FAR { I::LANES } else { 0 } {
                    let ahead = from.wrapping_offset(row as isize * step).wrapping_add(SQUARE_AHEAD);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
                I::transpose(from, step, to, width, rows, I::LANES);
            }
        }
    }
}

/// Compiles the kernels for a vector unit.
macro_rules! kernels {
    ($name:ident, $module:ident, $isa:ident, $features:literal, [$($rows:literal)*]) => {
        mod $module {
            use super::{$isa, Block, Finish, Kernel, Part};

            // SAFETY: as `super::block`.
            #[target_feature(enable = $features)]
            unsafe fn block<const ROWS: usize, const VECTORS: usize>(block: &Block, finish: Option<&Finish>) {
                // SAFETY: as the caller vouches.
                unsafe { super::block::<$isa, ROWS, VECTORS>(block, finish) }
            }

            // SAFETY: as `Kernels::pack`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn pack_rows(part: &Part, panel: *mut f32, width: usize) {
                // SAFETY: as the caller vouches.
                unsafe { super::pack_rows::<$isa>(part, panel, width) }
            }

            // SAFETY: as `Kernels::pack`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn pack_columns(part: &Part, panel: *mut f32, width: usize) {
                // SAFETY: as the caller vouches.
                unsafe { super::pack_columns::<$isa>(part, panel, width) }
            }

            pub(super) const BLOCKS: &[[Option<Kernel>; 4]] = &[
                [Some(block::<1, 1>), Some(block::<1, 2>), Some(block::<1, 4>), Some(block::<1, 8>)],
                [Some(block::<2, 1>), Some(block::<2, 2>), Some(block::<2, 4>), None],
                [Some(block::<3, 1>), Some(block::<3, 2>), Some(block::<3, 4>), None],
                $([Some(block::<$rows, 1>), Some(block::<$rows, 2>), None, None],)*
            ];
        }

        pub(super) static $name: Kernels = Kernels {
            lanes: $isa::LANES,
            rows: $module::BLOCKS.len(),
            reads_masked: $isa::READS_MASKED,
            blocks: $module::BLOCKS,
            pack_rows: $module::pack_rows,
            pack_columns: $module::pack_columns,
        };
    };
}

// 14 rows of two vectors, two vectors of B and one of A are 31 of 32 registers; 6 rows are 15 of 16.
kernels!(AVX512, avx512, Avx512, "avx512f", [4 5 6 7 8 9 10 11 12 13 14]);
kernels!(AVX2, avx2, Avx2, "avx2,fma", [4 5 6]);
