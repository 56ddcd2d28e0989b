//! f32 products of few rows with weights stored as `[outputs, inputs]`.
//!
//! In: views and a tile. Out: the tile filled, or `false` where the general product is better.
//! There rows of A and columns of B have neighbouring elements, and with few rows the general
//! product spends its time on packing B. Here both are read as they lie: 4 rows by 2 columns of C,
//! eight partial sums each. (2 to 8 rows of 784 by 64: 2.4 to 1.5 times as fast on a Zen 3. Where
//! rows of B have neighbouring elements the general product does well.)

use crate::library::grid::{MatView, Tile};
use crate::library::simd::{Job, LANES, Simd, dispatch};

/// The most rows of a skinny tile.
const MAX_ROWS: usize = 8;
/// Rows of C in registers.
const ROWS: usize = 4;
/// Columns of C in registers.
const COLS: usize = 2;

/// `tile = a b`, if the tile is skinny and the operands lie as the kernel needs.
pub(super) fn product(a: &MatView<'_, f32>, b: &MatView<'_, f32>, tile: &mut Tile<'_, f32>) -> bool {
    // A single row is a matrix-vector product, which the general product does well.
    if !(2..=MAX_ROWS).contains(&tile.rows.len()) || a.col_stride != 1 || b.row_stride != 1 {
        return false;
    }
    dispatch(Dots { a, b, tile });
    true
}

struct Dots<'r, 'v, 't> {
    a: &'r MatView<'v, f32>,
    b: &'r MatView<'v, f32>,
    tile: &'r mut Tile<'t, f32>,
}

impl Job for Dots<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Dots { a, b, tile } = self;
        let (m, n, k) = (tile.rows.len(), tile.cols.len(), a.cols());
        for col in (0..n).step_by(COLS) {
            // A column past the end repeats the last one, and its sums are not stored.
            let last = n - 1;
            let columns = [&b.from(0, col)[..k], &b.from(0, last.min(col + 1))[..k]];
            for row in (0..m).step_by(ROWS) {
                let last = m - 1;
                let rows = [row, row + 1, row + 2, row + 3].map(|row| &a.from(last.min(row), 0)[..k]);
                let sums = dots(simd, rows, columns);
                for (i, sums) in sums.iter().enumerate().take(m - row) {
                    for (j, sum) in sums.iter().enumerate().take(n - col) {
                        *tile.at(row + i, col + j) = *sum;
                    }
                }
            }
        }
    }
}

/// The dot products of each row with each column.
#[inline(always)]
fn dots<S: Simd>(simd: S, rows: [&[f32]; ROWS], columns: [&[f32]; COLS]) -> [[f32; COLS]; ROWS] {
    let zero = [simd.splat(0.0); COLS];
    // Named one by one, as `ROWS` of them: an array indexed in a loop would live in memory.
    let (mut first, mut second, mut third, mut fourth) = (zero, zero, zero, zero);
    let k = rows[0].len();
    let whole = k / LANES * LANES;
    let mut depth = 0;
    while depth < whole {
        let values = [load(simd, columns[0], depth), load(simd, columns[1], depth)];
        first = add_row(simd, first, load(simd, rows[0], depth), values);
        second = add_row(simd, second, load(simd, rows[1], depth), values);
        third = add_row(simd, third, load(simd, rows[2], depth), values);
        fourth = add_row(simd, fourth, load(simd, rows[3], depth), values);
        depth += LANES;
    }
    let sums = [first, second, third, fourth];
    let mut out = [[0.0; COLS]; ROWS];
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in columns.iter().enumerate() {
            let mut lanes = [0.0; LANES];
            simd.store(sums[i][j], &mut lanes);
            // Pairs far apart first: three vector additions.
            let four = [0, 1, 2, 3].map(|lane| lanes[lane] + lanes[lane + 4]);
            let mut sum = (four[0] + four[2]) + (four[1] + four[3]);
            for (a, b) in row[whole..].iter().zip(&column[whole..]) {
                sum = simd.mul_add(*a, *b, sum);
            }
            out[i][j] = sum;
        }
    }
    out
}

/// Neighbouring elements; zeros if the slice ends before, which its callers rule out.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> S::Vector {
    match from.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => simd.load(chunk),
        None => simd.splat(0.0),
    }
}

/// `sums += factor values`, for one row of C.
#[inline(always)]
fn add_row<S: Simd>(simd: S, sums: [S::Vector; 2], factor: S::Vector, values: [S::Vector; 2]) -> [S::Vector; 2] {
    [simd.mul_add_lanes(factor, values[0], sums[0]), simd.mul_add_lanes(factor, values[1], sums[1])]
}
