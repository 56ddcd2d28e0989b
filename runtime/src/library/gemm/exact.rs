//! Every kernel in every form against one chain of fused multiply-adds, bit by bit, between pages that can't be touched.

#![allow(unsafe_code)] // Pages are protected by the system's calls.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::blocks::{Rhs, multiply};
use super::kernels::Kernels;
use super::*;
use crate::library::grid::{Extents, MatView};

/// Elements that end where a protected page begins, or begin where one ends.
struct Guarded {
    base: *mut libc::c_void,
    bytes: usize,
    start: *mut f32,
    len: usize,
}

impl Guarded {
    fn new(values: &[f32], at_end: bool) -> Guarded {
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let inner = size_of_val(values).next_multiple_of(page).max(page);
        let bytes = inner + 2 * page;
        // SAFETY: fresh memory; the inner pages are made accessible, the values fit them.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            let first = base.byte_add(page);
            assert_eq!(libc::mprotect(first, inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            let offset = if at_end { inner - size_of_val(values) } else { 0 };
            let start = first.byte_add(offset).cast::<f32>();
            start.copy_from_nonoverlapping(values.as_ptr(), values.len());
            Guarded { base, bytes, start, len: values.len() }
        }
    }

    fn values(&self) -> &[f32] {
        // SAFETY: initialised by `new`, alive as long as self.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and not used any more.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

/// Values in -1..1; with `special`, one in sixteen is a zero, an infinity, a NaN or a denormal.
fn values(len: usize, seed: u64, special: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let odd = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, -0.0, 0.0];
    (0..len)
        .map(|_| match next() {
            bits if special && bits % 16 == 0 => odd[(bits / 16 % 8) as usize],
            bits => bits as f32 / (1 << 23) as f32 - 1.0,
        })
        .collect()
}

/// How operands lie.
#[derive(Clone, Copy, Debug)]
struct Forms {
    a_transposed: bool,
    b_transposed: bool,
    c_transposed: bool,
    packed: bool,
    at_end: bool,
    special: bool,
    after: After,
}

/// What follows the product.
#[derive(Clone, Copy, Debug)]
struct After {
    /// 0: no bias, 1: one for each row, 2: one for each column.
    bias: usize,
    lower: Option<f32>,
    upper: Option<f32>,
}

/// The core op `max`: NaN when either is, -0 below +0.
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else if a == b {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The core op `min`.
fn smaller(a: f32, b: f32) -> f32 {
    -larger(-a, -b)
}

impl After {
    fn clamp(&self) -> Clamp<f32> {
        Clamp::new(self.lower, self.upper).unwrap()
    }

    fn epilogue<'b>(&self, bias: &'b [f32]) -> Epilogue<'b, f32> {
        let bias = [Bias::None, Bias::PerRow(bias), Bias::PerColumn(bias)][self.bias];
        Epilogue { bias, clamp: self.clamp() }
    }

    /// Elements of the bias.
    fn len(&self, m: usize, n: usize) -> usize {
        [0, m, n][self.bias]
    }

    /// What the ops after the product give, one after the other.
    fn expected(&self, sum: f32, bias: &[f32], row: usize, col: usize) -> f32 {
        let value = if self.bias == 0 { sum } else { sum + bias[[0, row, col][self.bias]] };
        let value = self.lower.map_or(value, |lower| larger(value, lower));
        self.upper.map_or(value, |upper| smaller(value, upper))
    }
}

fn after() -> impl Strategy<Value = After> {
    let lower = [None, Some(0.0), Some(-0.0), Some(-0.5), Some(0.25), Some(f32::INFINITY)];
    let upper = [None, Some(0.0), Some(0.5), Some(-0.25), Some(6.0), Some(f32::NEG_INFINITY)];
    let (lower, upper) = (prop::sample::select(lower.to_vec()), prop::sample::select(upper.to_vec()));
    (0_usize..3, lower, upper).prop_map(|(bias, lower, upper)| After { bias, lower, upper })
}

/// A layout with a gap behind every line but the last.
fn lines(rows: usize, cols: usize, transposed: bool, gap: usize) -> (Layout<'static>, usize) {
    let (inner, outer) = if transposed { (rows, cols) } else { (cols, rows) };
    let line = (inner + gap) as isize;
    let (row, col) = if transposed { (1, line) } else { (line, 1) };
    (Layout { row, col, ..Layout::default() }, (inner + gap) * (outer - 1) + inner)
}

fn at(layout: &Layout<'_>, row: usize, col: usize) -> usize {
    row * layout.row as usize + col * layout.col as usize
}

fn same(found: f32, expected: f32) -> bool {
    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
}

/// Runs one product with the kernels and compares every element.
fn check(kernels: &'static Kernels, (m, n, k): (usize, usize, usize), forms: Forms, gap: usize, seed: u64) {
    let (a_layout, a_len) = lines(m, k, forms.a_transposed, gap);
    let (b_layout, b_len) = lines(k, n, forms.b_transposed, gap);
    let (c_layout, c_len) = lines(m, n, forms.c_transposed, gap);
    let a = Guarded::new(&values(a_len, seed, forms.special), forms.at_end);
    let b = Guarded::new(&values(b_len, seed + 1, forms.special), forms.at_end);
    let bias = Guarded::new(&values(forms.after.len(m, n), seed + 2, forms.special), forms.at_end);
    let after = forms.after.epilogue(bias.values());
    // A marked NaN tells what was not written.
    let mark = f32::from_bits(0x7fc1_2345);
    let mut c = Guarded::new(&vec![mark; c_len], forms.at_end);
    let shape = GemmShape { batch: &[], m, n, k };
    let panels = Panels::with(kernels, &shape, Operand { data: b.values(), layout: b_layout }).unwrap();
    let packed = panels.as_ref().filter(|_| forms.packed && !forms.c_transposed);
    let a_view = Batched::new(a.values(), a_layout, shape.a(), OP, "A").unwrap().matrix(0);
    let b_view = Batched::new(b.values(), b_layout, shape.b(), OP, "B").unwrap().matrix(0);
    let whole = Grid { batch: 1, rows: 1, cols: 1, unit: 1 };
    let done = AtomicBool::new(false);
    let extents: Extents<'_> = shape.c();
    run_grid(&Pool::new(1), c.values_mut(), &c_layout, &extents, whole, OP, &|mut tile, _| {
        let rhs = match packed {
            Some(panels) => Rhs::Packed { panels, matrix: 0, first: 0 },
            None => Rhs::View(b_view),
        };
        done.store(multiply(kernels, &a_view, rhs, &after, &mut tile), Ordering::Relaxed);
    })
    .unwrap();
    assert!(done.into_inner(), "{m} {n} {k} {forms:?} is refused");
    for row in 0..m {
        for col in 0..n {
            let (mut chain, mut sum, mut size) = (0.0_f32, 0.0_f64, 1.0_f64);
            for depth in 0..k {
                let (left, right) = (a_view.at(row, depth), b_view.at(depth, col));
                chain = left.mul_add(right, chain);
                sum += f64::from(left) * f64::from(right);
                size += (f64::from(left) * f64::from(right)).abs();
            }
            let place = at(&c_layout, row, col);
            let found = c.values()[place];
            let expected = forms.after.expected(chain, bias.values(), row, col);
            assert!(same(found, expected), "({row}, {col}) of {m} {n} {k} {forms:?}: {found} for {expected}");
            let bound = (k + 1) as f64 * f64::from(f32::EPSILON) * size;
            let close = (f64::from(chain) - sum).abs() <= bound || !sum.is_finite() && same(chain, sum as f32);
            assert!(close, "({row}, {col}) of {m} {n} {k} {forms:?}: {chain} for {sum}");
            c.values_mut()[place] = mark;
        }
    }
    assert!(c.values().iter().all(|value| value.to_bits() == mark.to_bits()), "{forms:?}: C is written outside");
}

fn forms() -> impl Strategy<Value = Forms> {
    (prop::array::uniform6(any::<bool>()), after()).prop_map(
        |([a_transposed, b_transposed, c_transposed, packed, at_end, special], after)| Forms {
            a_transposed,
            b_transposed,
            c_transposed,
            packed,
            at_end,
            special,
            after,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_kernel_is_one_chain(
        mnk in (1_usize..71, 1_usize..71, 1_usize..71), forms in forms(), gap in 0_usize..4, seed in 0_u64..1000,
    ) {
        Kernels::available().for_each(|kernels| check(kernels, mnk, forms, gap, seed));
    }

    #[test]
    fn few_rows_and_columns_are_one_chain(
        mnk in (1_usize..9, 1_usize..300, 1_usize..80), forms in forms(), gap in 0_usize..2, seed in 0_u64..1000,
    ) {
        let (m, n, k) = mnk;
        Kernels::available().for_each(|kernels| check(kernels, (m, n, k), forms, gap, seed));
        Kernels::available().for_each(|kernels| check(kernels, (n, m, k), forms, gap, seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Cut along the depth, with A packed (lines that share a cache set), B in scratch.
    #[test]
    fn deep_and_wide_products_are_one_chain(
        m in 1_usize..90, n in prop::sample::select(vec![10_usize, 64, 300, 530]),
        k in prop::sample::select(vec![500_usize, 1023, 1024, 1300, 2049]), forms in forms(), seed in 0_u64..1000,
    ) {
        Kernels::available().for_each(|kernels| check(kernels, (m, n, k), forms, 0, seed));
    }
}

#[test]
fn this_cpu_has_the_kernels_that_it_should_have() {
    let names: Vec<usize> = Kernels::available().map(|kernels| kernels.lanes).collect();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        assert_eq!(names, [16, 8]);
    }
    assert!(names.is_sorted_by(|a, b| a > b), "the widest first");
}

/// All forms, all numbers of threads: the same bits. The last two copy A and pack B first, at once and in parts.
#[test]
fn cuts_and_forms_change_no_bit() {
    let small = [(70, 700, 300), (1, 3000, 1200), (9, 1000, 800), (600, 40, 300), (200, 10, 2000), (1500, 1, 900)];
    for (m, n, k) in small.into_iter().chain([(300, 500, 1024), (270, 300, 9216)]) {
        let shape = GemmShape { batch: &[], m, n, k };
        let (a, b) = (values(m * k, 1, false), values(k * n, 2, false));
        let mut b_t = vec![0.0; k * n];
        for (i, value) in b.iter().enumerate() {
            b_t[i % n * k + i / n] = *value;
        }
        let left = Operand { data: &a[..], layout: Layout::row_major(k) };
        let plain = Operand { data: &b[..], layout: Layout::matrix(k, n, false) };
        let turned = Operand { data: &b_t[..], layout: Layout::matrix(k, n, true) };
        let mut results = Vec::new();
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for operand in [plain, turned] {
                let mut c = vec![f32::NAN; m * n];
                gemm(&pool, &shape, left, operand, Epilogue::NONE, &mut c, Layout::row_major(n)).unwrap();
                results.push(c);
                if let Some(panels) = Panels::new(&shape, operand).unwrap() {
                    let mut c = vec![f32::NAN; m * n];
                    gemm_packed(&pool, &shape, left, &panels, Epilogue::NONE, &mut c, Layout::row_major(n)).unwrap();
                    results.push(c);
                }
            }
        }
        let bits = |c: &[f32]| c.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        if Kernels::detect().is_some() {
            for i in (0..m * n).step_by(97) {
                let chain = (0..k).fold(0.0_f32, |sum, d| a[i / n * k + d].mul_add(b[d * n + i % n], sum));
                assert_eq!(results[0][i].to_bits(), chain.to_bits(), "{m} {n} {k}: element {i}");
            }
        }
        assert!(results.iter().all(|c| bits(c) == bits(&results[0])), "{m} {n} {k}");
    }
}

/// Sums, biases and bounds of every kind of number, in every kernel: what passes a bound keeps its bits, but for a sign.
#[test]
fn zeros_and_nan_pass_bounds_as_the_ops_say() {
    let sums = [-0.0, 0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-45, -1e-45, 7.0];
    let (m, n) = (sums.len(), 37);
    // One product of each row by a column of ones is the sum itself but for -0, which comes from what is too small.
    let a: Vec<f32> = sums.iter().map(|s| if s.to_bits() == (-0.0_f32).to_bits() { -1e-30 } else { *s }).collect();
    let b: Vec<f32> = vec![1.0; n];
    let tiny: Vec<f32> = vec![1e-30; n];
    let shape = GemmShape { batch: &[], m, n, k: 1 };
    for (lower, upper) in
        [(Some(0.0), None), (Some(-0.0), None), (None, Some(0.0)), (Some(0.0), Some(0.0)), (None, None)]
    {
        for (bias, biases) in [(0, 0.0), (2, -0.0_f32), (2, 0.0), (2, f32::NAN), (2, f32::NEG_INFINITY), (1, -0.0)] {
            let after = After { bias, lower, upper };
            let biases = vec![biases; after.len(m, n)];
            for kernels in Kernels::available() {
                for right in [&b, &tiny] {
                    let a_view = MatView::row_major(&a, m, 1, 1).unwrap();
                    let b_view = MatView::row_major(right, 1, n, n).unwrap();
                    let mut c = vec![1.0; m * n];
                    let mut tile = Tile::over(&mut c, m, n).unwrap();
                    assert!(multiply(kernels, &a_view, Rhs::View(b_view), &after.epilogue(&biases), &mut tile));
                    for (i, found) in c.iter().enumerate() {
                        let sum = a[i / n].mul_add(right[i % n], 0.0);
                        let expected = after.expected(sum, &biases, i / n, i % n);
                        assert!(same(*found, expected), "{sum} {after:?} {biases:?}: {found} for {expected}");
                    }
                }
            }
        }
    }
    let left = Operand { data: &a[..], layout: Layout::row_major(1) };
    let right = Operand { data: &tiny[..], layout: Layout::row_major(n) };
    let mut c = vec![1.0; m * n];
    gemm(&Pool::new(1), &shape, left, right, Epilogue::NONE, &mut c, Layout::row_major(n)).unwrap();
    assert_eq!(c[0].to_bits(), (-0.0_f32).to_bits(), "a sum may be -0");
}

#[test]
fn packed_batches_with_bias_agree_with_plain_ones() {
    let (batch, m, n, k) = ([3, 2], 5, 37, 21);
    let shape = GemmShape { batch: &batch, m, n, k };
    let (a, b, bias) = (values(6 * m * k, 1, false), values(6 * k * n, 2, false), values(n, 3, false));
    let strides = |size: usize| [2 * size as isize, size as isize];
    let (sa, sb, sc) = (strides(m * k), strides(k * n), strides(m * n));
    let left = Operand { data: &a[..], layout: Layout { batch: &sa, ..Layout::row_major(k) } };
    let right = Operand { data: &b[..], layout: Layout { batch: &sb, ..Layout::matrix(k, n, true) } };
    let out = Layout { batch: &sc, ..Layout::row_major(n) };
    let (mut plain, mut packed) = (vec![0.0; 6 * m * n], vec![1.0; 6 * m * n]);
    let after = Epilogue::from(Bias::PerColumn(&bias));
    let pool = Pool::new(2);
    gemm(&pool, &shape, left, right, after, &mut plain, out).unwrap();
    let Some(panels) = Panels::new(&shape, right).unwrap() else { return };
    assert!(panels.bytes() >= 6 * k * n * 4);
    gemm_packed(&pool, &shape, left, &panels, after, &mut packed, out).unwrap();
    assert_eq!(plain, packed);
}

#[test]
fn panels_of_another_shape_are_refused() {
    let b = values(64, 1, false);
    let pool = Pool::new(1);
    let shape = GemmShape { batch: &[], m: 2, n: 8, k: 8 };
    let Some(panels) = Panels::new(&shape, Operand { data: &b, layout: Layout::row_major(8) }).unwrap() else { return };
    let call = |shape: GemmShape<'_>, layout| {
        let left = Operand { data: &b[..], layout: Layout::row_major(shape.k) };
        gemm_packed(&pool, &shape, left, &panels, Epilogue::NONE, &mut [0.0; 64], layout)
    };
    assert!(call(shape, Layout::row_major(8)).is_ok());
    assert!(matches!(call(GemmShape { k: 7, ..shape }, Layout::row_major(8)), Err(LibraryError::Invalid { .. })));
    assert!(matches!(call(shape, Layout::matrix(2, 8, true)), Err(LibraryError::Invalid { .. })));
    let short = Operand { data: &b[..60], layout: Layout::row_major(8) };
    assert!(matches!(Panels::new(&shape, short), Err(LibraryError::OutOfBounds { .. })));
    for (n, k) in [(1, 8), (0, 8), (8, 0)] {
        let none = Panels::new(&GemmShape { n, k, ..shape }, Operand { data: &b, layout: Layout::row_major(n) });
        assert!(none.unwrap().is_none(), "n {n}, k {k}: nothing to gain");
    }
}
