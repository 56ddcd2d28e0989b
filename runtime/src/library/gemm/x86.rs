//! The kernels of x86-64: written once over a vector unit, compiled for AVX-512 and for AVX2 with FMA.
//!
//! In: a [`Block`] that the caller vouches for. Out: its part of C. See `kernels` for what all of them hold to.
#![allow(unsafe_code)] // Kernels over raw pointers; target features.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::isa::{Avx2, Avx512, Isa};
use super::kernels::{Block, Kernel, Kernels, PANEL_VECTORS};

/// `rows` by `vectors` of C, in registers.
#[inline(always)]
unsafe fn block<I: Isa, const ROWS: usize, const VECTORS: usize>(block: &Block) {
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
        let (mut a, mut b) = (block.a, block.b);
        for _ in 0..block.depth {
            let mut values = [I::zero(); VECTORS];
            for v in 0..VECTORS {
                let from = b.wrapping_add(v / PANEL_VECTORS * block.b_panel + v % PANEL_VECTORS * I::LANES);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(block.ahead).cast());
                values[v] = I::load(from, masks[v]);
            }
            for r in 0..ROWS {
                let factor = I::splat(a.offset(r as isize * block.a_row));
                for v in 0..VECTORS {
                    sums[r][v] = I::mul_add(factor, values[v], sums[r][v]);
                }
            }
            a = a.wrapping_offset(block.a_step);
            b = b.wrapping_offset(block.b_step);
        }
        for r in 0..ROWS {
            let row = block.c.offset(r as isize * block.c_row);
            for v in 0..VECTORS {
                I::store_part(row.wrapping_add(v * I::LANES), masks[v], sums[r][v]);
            }
        }
    }
}

/// Compiles the kernels for a vector unit.
macro_rules! kernels {
    ($name:ident, $module:ident, $isa:ident, $features:literal, [$($rows:literal)*]) => {
        mod $module {
            use super::{$isa, Block, Isa, Kernel};

            // SAFETY: as `super::block`.
            #[target_feature(enable = $features)]
            unsafe fn block<const ROWS: usize, const VECTORS: usize>(block: &Block) {
                // SAFETY: as the caller vouches.
                unsafe { super::block::<$isa, ROWS, VECTORS>(block) }
            }

            // SAFETY: as `Isa::transpose`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn transpose(
                from: *const f32, from_row: isize, to: *mut f32, to_row: usize, rows: usize, cols: usize,
            ) {
                // SAFETY: as the caller vouches.
                unsafe { $isa::transpose(from, from_row, to, to_row, rows, cols) }
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
            transpose: $module::transpose,
        };
    };
}

// 14 rows of two vectors, two vectors of B and one of A are 31 of 32 registers; 6 rows are 15 of 16.
kernels!(AVX512, avx512, Avx512, "avx512f", [4 5 6 7 8 9 10 11 12 13 14]);
kernels!(AVX2, avx2, Avx2, "avx2,fma", [4 5 6]);
