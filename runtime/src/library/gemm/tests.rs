//! Products against plain loops in f64, over random shapes, strides and batches.

use super::int::{ZeroPoint, gemm_int};
use super::*;
use proptest::prelude::*;

/// A layout over a fresh buffer: dims in a random order, some broadcast, some walking backwards.
#[derive(Debug, Clone)]
struct Buffer {
    batch: Vec<isize>,
    row: isize,
    col: isize,
    offset: usize,
    len: usize,
}

impl Buffer {
    /// `order` decides which dim is innermost; `flags` bit 0 repeats the batch, bit 1 reverses rows,
    /// bit 2 reverses columns, bit 3 leaves gaps.
    fn new(batch: &[usize], rows: usize, cols: usize, flags: u8, col_major: bool) -> Buffer {
        let gap = usize::from(flags & 8 != 0);
        let (inner, outer) = if col_major { (rows, cols) } else { (cols, rows) };
        let line = inner + gap;
        let mut size = line * outer + gap;
        let mut strides = vec![0_isize; batch.len()];
        for (stride, extent) in strides.iter_mut().zip(batch).rev() {
            if flags & 1 == 0 {
                *stride = size as isize;
                size *= extent;
            }
        }
        let (mut row, mut col) = if col_major { (1, line as isize) } else { (line as isize, 1) };
        let mut offset = 0;
        if flags & 2 != 0 {
            offset += row.unsigned_abs() * rows.saturating_sub(1);
            row = -row;
        }
        if flags & 4 != 0 {
            offset += col.unsigned_abs() * cols.saturating_sub(1);
            col = -col;
        }
        Buffer { batch: strides, row, col, offset, len: size }
    }

    fn layout(&self) -> Layout<'_> {
        Layout { offset: self.offset, batch: &self.batch, row: self.row, col: self.col }
    }

    fn index(&self, batch: &[usize], row: usize, col: usize) -> usize {
        let start: isize = self.batch.iter().zip(batch).map(|(stride, at)| stride * *at as isize).sum();
        (self.offset as isize + start + self.row * row as isize + self.col * col as isize) as usize
    }
}

/// Values in -1..1 from a seed.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn batch_indices(batch: &[usize]) -> Vec<Vec<usize>> {
    batch.iter().fold(vec![vec![]], |all, extent| {
        let extend = |index: Vec<usize>| (0..*extent).map(move |at| [&index[..], &[at]].concat());
        all.into_iter().flat_map(extend).collect()
    })
}

fn check(batch: &[usize], (m, n, k): (usize, usize, usize), flags: [u8; 3], major: u8, bias: u8, seed: u64) {
    let shape = GemmShape { batch, m, n, k };
    let a = Buffer::new(batch, m, k, flags[0], major & 1 != 0);
    let b = Buffer::new(batch, k, n, flags[1], major & 2 != 0);
    let c = Buffer::new(batch, m, n, flags[2] & !1, major & 4 != 0);
    let (a_data, b_data) = (values(a.len, seed), values(b.len, seed + 1));
    let (per_row, per_col) = (values(m, seed + 2), values(n, seed + 3));
    let bias = match bias % 3 {
        0 => Bias::None,
        1 => Bias::PerRow(&per_row[..]),
        _ => Bias::PerColumn(&per_col[..]),
    };
    let mut results = [1, 2, 4].map(|threads| {
        let pool = Pool::new(threads);
        let mut out = vec![f32::NAN; c.len];
        let (a, b) =
            (Operand { data: &a_data[..], layout: a.layout() }, Operand { data: &b_data[..], layout: b.layout() });
        gemm(&pool, &shape, a, b, bias.into(), &mut out, c.layout()).unwrap();
        out
    });
    let (left, right) =
        (Operand { data: &a_data[..], layout: a.layout() }, Operand { data: &b_data[..], layout: b.layout() });
    let mut bounded = vec![f32::NAN; c.len];
    let after = Epilogue { bias, clamp: Clamp::new(Some(-0.25), Some(0.5)).unwrap() };
    gemm(&Pool::new(2), &shape, left, right, after, &mut bounded, c.layout()).unwrap();
    let bits = |out: &[f32]| out.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&results[0]), bits(&results[1]), "1 and 2 threads");
    assert_eq!(bits(&results[0]), bits(&results[2]), "1 and 4 threads");
    let expected: Vec<f32> = results[0].iter().map(|v| v.clamp(-0.25, 0.5)).collect();
    assert_eq!(bits(&bounded), bits(&expected), "bounds");
    let out = &mut results[0];
    for index in batch_indices(batch) {
        for row in 0..m {
            for col in 0..n {
                let (mut sum, mut size) = (0.0_f64, 1.0_f64);
                for depth in 0..k {
                    let term =
                        f64::from(a_data[a.index(&index, row, depth)]) * f64::from(b_data[b.index(&index, depth, col)]);
                    sum += term;
                    size += term.abs();
                }
                sum += match bias {
                    Bias::None => 0.0,
                    Bias::PerRow(bias) => f64::from(bias[row]),
                    Bias::PerColumn(bias) => f64::from(bias[col]),
                };
                let place = c.index(&index, row, col);
                let error = (f64::from(out[place]) - sum).abs();
                // Each of k additions rounds a partial sum that is at most `size`.
                let bound = (k + 2) as f64 * f64::from(f32::EPSILON) * (size + 1.0);
                assert!(error <= bound, "({row}, {col}): {} for {sum}", out[place]);
                out[place] = f32::NAN;
            }
        }
    }
    assert!(out.iter().all(|value| value.is_nan()), "what is outside the layout keeps its value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_agree_with_loops(
        batch in prop::collection::vec(0_usize..4, 0..3),
        mnk in (0_usize..40, 0_usize..70, 0_usize..40),
        flags in prop::array::uniform3(0_u8..16),
        major in 0_u8..8, bias in 0_u8..3, seed in 0_u64..1000,
    ) {
        check(&batch, mnk, flags, major, bias, seed);
    }

    #[test]
    fn integer_products_agree_with_loops(
        (m, n, k) in (0_usize..12, 0_usize..20, 0_usize..20), major in 0_u8..8, each: bool, seed in 0_u64..1000,
    ) {
        let to_u8 = |len, seed| values(len, seed).iter().map(|v| (v * 128.0 + 128.0) as u8).collect::<Vec<u8>>();
        let to_i8 = |len, seed| values(len, seed).iter().map(|v| (v * 128.0) as i8).collect::<Vec<i8>>();
        let (la, lb) = (Buffer::new(&[], m, k, 0, major & 1 != 0), Buffer::new(&[], k, n, 0, major & 2 != 0));
        let lc = Buffer::new(&[], m, n, 0, major & 4 != 0);
        let (a, b) = (to_u8(la.len, seed), to_i8(lb.len, seed + 1));
        let (za, zb) = (to_u8(m, seed + 2), to_i8(n, seed + 3));
        let (zero_a, zero_b) = if each {
            (ZeroPoint::Each(&za[..]), ZeroPoint::Each(&zb[..]))
        } else {
            (ZeroPoint::All(77), ZeroPoint::All(-5))
        };
        let mut c = vec![i32::MIN; lc.len];
        let shape = GemmShape { batch: &[], m, n, k };
        gemm_int(&Pool::new(1), &shape, Operand { data: &a, layout: la.layout() }, zero_a,
            Operand { data: &b, layout: lb.layout() }, zero_b, &mut c, lc.layout()).unwrap();
        for row in 0..m {
            for col in 0..n {
                let (za, zb) = if each { (i32::from(za[row]), i32::from(zb[col])) } else { (77, -5) };
                let sum: i32 = (0..k).map(|depth| (i32::from(a[la.index(&[], row, depth)]) - za)
                    * (i32::from(b[lb.index(&[], depth, col)]) - zb)).sum();
                prop_assert_eq!(c[lc.index(&[], row, col)], sum);
            }
        }
    }
}

#[test]
fn large_and_skinny_products_agree_with_loops() {
    for (m, n, k) in [(200, 150, 300), (1, 300, 257), (300, 1, 257), (3, 1100, 130), (8, 64, 401), (64, 10, 64)] {
        check(&[], (m, n, k), [0; 3], 0, 2, 7);
        check(&[], (m, n, k), [0; 3], 3, 1, 8);
    }
    check(&[5, 4], (30, 40, 33), [1, 0, 0], 0, 0, 9);
}

#[test]
fn f64_products_are_exact_on_integers() {
    let a: Vec<f64> = (0..6).map(f64::from).collect();
    let mut c = vec![0.0; 4];
    let shape = GemmShape { batch: &[], m: 2, n: 2, k: 3 };
    let (left, right) = (Layout::row_major(3), Layout::row_major(2));
    let a = |layout| Operand { data: &a[..], layout };
    gemm(&Pool::new(2), &shape, a(left), a(right), Epilogue::NONE, &mut c, Layout::row_major(2)).unwrap();
    assert_eq!(c, [10.0, 13.0, 28.0, 40.0]);
    let after = Epilogue { bias: Bias::PerColumn(&[-11.0, 0.0]), clamp: Clamp::new(Some(0.0), Some(30.0)).unwrap() };
    gemm(&Pool::new(2), &shape, a(left), a(right), after, &mut c, Layout::row_major(2)).unwrap();
    assert_eq!(c, [0.0, 13.0, 17.0, 30.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let pool = Pool::new(1);
    let shape = GemmShape { batch: &[], m: 2, n: 2, k: 2 };
    let data = [0.0_f32; 4];
    let good = Operand { data: &data[..], layout: Layout::row_major(2) };
    let call = |a, bias: Bias<'_, f32>, len: usize, layout| {
        gemm(&pool, &shape, a, good, bias.into(), &mut vec![0.0; len], layout)
    };
    let square = Layout::row_major(2);
    assert!(call(good, Bias::None, 4, square).is_ok());
    let short = Operand { data: &data[..3], layout: square };
    assert!(matches!(
        call(short, Bias::None, 4, square),
        Err(LibraryError::OutOfBounds { operand: "A", high: 3, len: 3, .. })
    ));
    let before = Operand { data: &data[..], layout: Layout { row: -2, ..square } };
    assert!(matches!(call(before, Bias::None, 4, square), Err(LibraryError::OutOfBounds { low: -2, .. })));
    assert!(matches!(call(good, Bias::None, 3, square), Err(LibraryError::OutOfBounds { .. })));
    assert!(matches!(call(good, Bias::None, 4, Layout { row: 1, ..square }), Err(LibraryError::Overlapping { .. })));
    assert!(matches!(
        call(good, Bias::PerRow(&data), 4, square),
        Err(LibraryError::Mismatch { found: 4, expected: 2, .. })
    ));
    let huge = Layout { row: isize::MAX, col: isize::MAX, ..square };
    assert!(matches!(call(good, Bias::None, 4, huge), Err(LibraryError::OutOfBounds { .. })));
    assert!(matches!(call(good, Bias::None, 4, Layout { batch: &[1], ..square }), Err(LibraryError::Mismatch { .. })));
}

#[test]
fn what_is_no_bound_is_refused() {
    assert_eq!(Clamp::<f32>::new(None, None), Some(Clamp::NONE));
    assert_eq!(Clamp::new(Some(f32::NAN), None), None);
    assert_eq!(Clamp::new(None, Some(f64::NAN)), None);
    assert_eq!(Clamp::new(None, Some(-0.0_f32)), None);
    assert!(Clamp::new(Some(-0.0_f32), Some(0.0)).is_some());
}

/// By the library crate: C has no neighbours, f64 has no kernels of ours.
#[test]
fn a_pass_over_a_tile_keeps_nan_and_orders_zeros() {
    fn bits<T: Float + Into<f64>>(values: [T; 4], lower: Option<T>, upper: Option<T>) -> Vec<u64> {
        let mut c = vec![T::ZERO; 8];
        let shape = GemmShape { batch: &[], m: 2, n: 2, k: 0 };
        let none = Operand { data: &[], layout: Layout::row_major(0) };
        let clamp = Clamp::new(lower, upper).unwrap();
        let mut found = Vec::new();
        for value in values {
            // Zeros plus a bias of -0 are +0: the sign comes from the bound.
            let bias = [value, value];
            let after = Epilogue { bias: Bias::PerRow(&bias), clamp };
            let layout = Layout { row: 4, col: 2, ..Layout::default() };
            gemm(&Pool::new(1), &shape, none, none, after, &mut c, layout).unwrap();
            found.push(c[0].into().to_bits());
        }
        found
    }
    let expected = |values: [f64; 4]| values.map(f64::to_bits).to_vec();
    assert_eq!(bits([-1.0_f64, 0.0, 2.0, -3.0], Some(0.0), Some(1.5)), expected([0.0, 0.0, 1.5, 0.0]));
    assert_eq!(bits([-1.0_f32, 0.0, 2.0, -3.0], Some(-0.0), None), expected([-0.0, 0.0, 2.0, -0.0]));
    assert!(f64::from_bits(bits([f32::NAN; 4], Some(0.0), Some(1.0))[0]).is_nan());
}
