//! f32 products with few rows, or few columns.
//!
//! In: views and a tile. Out: the tile filled, or `false` where the general product is better.
//! With m of a few, packing B costs as much as the product itself; here B is read once, as it
//! lies, four rows at a time, and C stays in the first-level cache.

use crate::library::grid::{MatView, Tile};
use crate::library::simd::{Job, Simd, dispatch};

/// The most rows that are multiplied here.
const MAX_ROWS: usize = 8;
/// Columns of C that are worked on together: with `MAX_ROWS` rows, 16 KiB.
const BLOCK: usize = 512;

/// `tile = a b` if the tile is skinny and B (or, transposed, A) has neighbouring elements in rows.
pub(super) fn product(a: &MatView<'_, f32>, b: &MatView<'_, f32>, tile: &mut Tile<'_, f32>) -> bool {
    let (m, n) = (tile.rows.len(), tile.cols.len());
    // A single row of C is a matrix-vector product, which the general product does well.
    if !(2..=MAX_ROWS).contains(&m) || n < 16 || b.col_stride != 1 || tile.col_stride != 1 {
        return false;
    }
    dispatch(FewRows { a, b, tile });
    true
}

struct FewRows<'r, 'v, 't> {
    a: &'r MatView<'v, f32>,
    b: &'r MatView<'v, f32>,
    tile: &'r mut Tile<'t, f32>,
}

impl Job for FewRows<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let FewRows { a, b, tile } = self;
        let (m, n, k) = (tile.rows.len(), tile.cols.len(), a.cols());
        let mut begin = 0;
        while begin < n {
            let end = n.min(begin + BLOCK);
            for row in 0..m {
                if let Some(c) = tile.row(row) {
                    c[begin..end].fill(0.0);
                }
            }
            let mut depth = 0;
            while depth + 4 <= k {
                let rows = [b.row(depth), b.row(depth + 1), b.row(depth + 2), b.row(depth + 3)];
                if let [Some(b0), Some(b1), Some(b2), Some(b3)] = rows {
                    let b = [&b0[begin..end], &b1[begin..end], &b2[begin..end], &b3[begin..end]];
                    for row in 0..m {
                        let factors = [0, 1, 2, 3].map(|step| a.at(row, depth + step));
                        if let Some(c) = tile.row(row) {
                            add_four(simd, &mut c[begin..end], factors, b);
                        }
                    }
                }
                depth += 4;
            }
            for depth in depth..k {
                if let Some(b) = b.row(depth) {
                    for row in 0..m {
                        let factor = a.at(row, depth);
                        if let Some(c) = tile.row(row) {
                            for (c, b) in c[begin..end].iter_mut().zip(&b[begin..end]) {
                                *c = simd.mul_add(factor, *b, *c);
                            }
                        }
                    }
                }
            }
            begin = end;
        }
    }
}

/// `c += factors[0] b[0] + ... + factors[3] b[3]`, in that order.
#[inline(always)]
fn add_four<S: Simd>(simd: S, c: &mut [f32], factors: [f32; 4], b: [&[f32]; 4]) {
    let len = c.len();
    let [b0, b1, b2, b3] = b.map(|row| &row[..len]);
    for j in 0..len {
        let sum = simd.mul_add(factors[0], b0[j], c[j]);
        let sum = simd.mul_add(factors[1], b1[j], sum);
        let sum = simd.mul_add(factors[2], b2[j], sum);
        c[j] = simd.mul_add(factors[3], b3[j], sum);
    }
}
