//! 8-bit integer products with zero points: `C = (A - zero_a) (B - zero_b)` in i32.
//!
//! In: i8 or u8 operands in any mix. Out: i32, exact while the sum fits and wrapping beyond, as
//! ONNX MatMulInteger. Plain loops for now; dot-product instructions belong to the packed kernels.

use super::{GemmShape, Operand};
use crate::library::grid::{Batched, Layout, MatView, Tile, run_grid};
use crate::library::simd::{Job, Simd, dispatch};
use crate::library::{LibraryError, expect_len};
use crate::pool::Pool;

const OP: &str = "MatMulInteger";

/// What stands for zero in a quantised operand.
#[derive(Debug, Clone, Copy)]
pub enum ZeroPoint<'a, T> {
    /// One for the whole operand.
    All(T),
    /// One for each row of A, or each column of B.
    Each(&'a [T]),
}

impl<T: Copy + Into<i32>> ZeroPoint<'_, T> {
    fn check(&self, operand: &'static str, len: usize) -> Result<(), LibraryError> {
        match self {
            ZeroPoint::All(_) => Ok(()),
            ZeroPoint::Each(values) => expect_len(OP, operand, values.len(), len),
        }
    }

    #[inline(always)]
    fn at(&self, index: usize) -> i32 {
        match self {
            ZeroPoint::All(value) => (*value).into(),
            ZeroPoint::Each(values) => values[index].into(),
        }
    }
}

/// `C = (A - zero_a) (B - zero_b)` for every matrix of the batch.
///
/// `zero_a` has a value or m of them, `zero_b` a value or n of them.
///
/// # Errors
/// As [`gemm`](super::gemm); zero points of another length.
pub fn gemm_int<A, B>(
    pool: &Pool,
    shape: &GemmShape<'_>,
    a: Operand<'_, A>,
    zero_a: ZeroPoint<'_, A>,
    b: Operand<'_, B>,
    zero_b: ZeroPoint<'_, B>,
    c: &mut [i32],
    c_layout: Layout<'_>,
) -> Result<(), LibraryError>
where
    A: Copy + Into<i32> + Sync,
    B: Copy + Into<i32> + Sync,
{
    zero_a.check("the zero points of A", shape.m)?;
    zero_b.check("the zero points of B", shape.n)?;
    let a = Batched::new(a.data, a.layout, shape.a(), OP, "A")?;
    let b = Batched::new(b.data, b.layout, shape.b(), OP, "B")?;
    run_grid(pool, c, &c_layout, &shape.c(), shape.grid(false), OP, &|mut tile, _| {
        let a = a.matrix(tile.matrix).row_range(tile.rows.clone());
        let b = b.matrix(tile.matrix).col_range(tile.cols.clone());
        dispatch(Product { a: &a, zero_a: &zero_a, b: &b, zero_b: &zero_b, tile: &mut tile });
    })
}

struct Product<'r, 'v, 't, A, B> {
    a: &'r MatView<'v, A>,
    zero_a: &'r ZeroPoint<'v, A>,
    b: &'r MatView<'v, B>,
    zero_b: &'r ZeroPoint<'v, B>,
    tile: &'r mut Tile<'t, i32>,
}

impl<A: Copy + Into<i32>, B: Copy + Into<i32>> Job for Product<'_, '_, '_, A, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Product { a, zero_a, b, zero_b, tile } = self;
        let (row0, col0) = (tile.rows.start, tile.cols.start);
        for row in 0..a.rows() {
            let zero_row = zero_a.at(row0 + row);
            for col in 0..b.cols() {
                *tile.at(row, col) = 0;
            }
            for depth in 0..a.cols() {
                let factor = a.at(row, depth).into().wrapping_sub(zero_row);
                if let (ZeroPoint::All(zero), Some(b), Some(c)) = (zero_b, b.row(depth), tile.row(row)) {
                    let zero = (*zero).into();
                    for (c, b) in c.iter_mut().zip(b) {
                        *c = c.wrapping_add(factor.wrapping_mul((*b).into().wrapping_sub(zero)));
                    }
                    continue;
                }
                for col in 0..b.cols() {
                    let value = b.at(depth, col).into().wrapping_sub(zero_b.at(col0 + col));
                    let c = tile.at(row, col);
                    *c = c.wrapping_add(factor.wrapping_mul(value));
                }
            }
        }
    }
}
