//! Bounds of every f32 function over sweeps of all bit patterns, special values, casts against other code.

use half::{bf16, f16};

use super::*;

/// Distance of an f32 from the exact value, in units of the exact value's last place as an f32.
fn ulps(found: f32, exact: f64) -> f64 {
    if found.is_nan() || exact.is_nan() {
        return if found.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let exponent = if exact == 0.0 { -126 } else { exact.abs().log2().floor().clamp(-126.0, 127.0) as i32 };
    let ulp = 2f64.powi(exponent - 23);
    if found.is_infinite() {
        // Right when the exact value rounds there.
        let limit = f64::from(f32::MAX) + 2f64.powi(102);
        return if exact.abs() >= limit && exact.signum() == f64::from(found.signum()) {
            0.0
        } else {
            (limit - exact.abs()).abs() / ulp + 1.0
        };
    }
    (f64::from(found) - exact).abs() / ulp
}

const FUNCTIONS: [UnaryOp; 12] = [
    UnaryOp::Exp,
    UnaryOp::Expm1,
    UnaryOp::Log,
    UnaryOp::Log1p,
    UnaryOp::Sin,
    UnaryOp::Cos,
    UnaryOp::Tan,
    UnaryOp::Asin,
    UnaryOp::Acos,
    UnaryOp::Atan,
    UnaryOp::Tanh,
    UnaryOp::Erf,
];

fn eval(op: UnaryOp, x: f32, fast: bool) -> f32 {
    evaluate_unary(op, Scalar::f32(x), fast).expect("defined on f32").to_f32()
}

/// The largest error over the bit patterns, and where.
fn worst(op: UnaryOp, fast: bool, patterns: impl Iterator<Item = u32>) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for pattern in patterns {
        let x = f32::from_bits(pattern);
        let exact = double::unary(op, f64::from(x)).expect("elementary");
        let found = eval(op, x, fast);
        if fast && op == UnaryOp::Exp && exact < 2f64.powi(-125) {
            assert!(found == 0.0 || ulps(found, exact) <= 4.0, "exp({x}) = {found}");
            continue;
        }
        let error = ulps(found, exact);
        if error > worst.0 {
            worst = (error, x);
        }
        assert!(
            found.is_nan() || found.is_sign_negative() == exact.is_sign_negative() || found != 0.0,
            "{}({x:e}) = {found:e}, a zero of the wrong sign",
            op.name()
        );
    }
    worst
}

fn check_bounds(patterns: impl Iterator<Item = u32> + Clone) {
    let mut failed = Vec::new();
    for op in FUNCTIONS {
        for (fast, bound) in [(false, 2.0), (true, 4.0)] {
            let (error, x) = worst(op, fast, patterns.clone());
            println!("{:6} {}: {error:.3} ulp at {x:e}", op.name(), if fast { "fast  " } else { "strict" });
            if error > bound {
                failed.push(format!("{} fast={fast}: {error:.3} ulp at {x:e} ({:#x})", op.name(), x.to_bits()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Values where formulas change over, and special ones.
fn edges() -> impl Iterator<Item = u32> + Clone {
    const VALUES: [f32; 28] = [
        0.0,
        f32::MIN_POSITIVE,
        1e-45,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        1.0,
        0.5,
        2.0,
        88.722_84,
        88.722_83,
        87.336_55,
        103.972_08,
        86.99,
        0.8,
        0.92,
        3.95,
        0.346_573_6,
        17.5,
        65536.0,
        65537.0,
        std::f32::consts::FRAC_PI_4,
        std::f32::consts::FRAC_PI_2,
        std::f32::consts::PI,
        0.414_213_57,
        2.414_213_7,
        9.0,
        1e30,
    ];
    VALUES.into_iter().flat_map(|v| {
        let bits = v.to_bits();
        (bits.saturating_sub(40)..=bits.saturating_add(40)).flat_map(|b| [b, b | 0x8000_0000])
    })
}

#[test]
fn sampled_bounds_hold() {
    check_bounds((0..=u32::MAX).step_by(32_749).chain(edges()));
}

/// Every f32 up to step 1; takes a quarter of an hour a function.
#[test]
#[ignore = "long: all bit patterns"]
fn all_bounds_hold() {
    let step = std::env::var("FRIT_SWEEP_STEP").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    check_bounds((0..=u32::MAX).step_by(step));
}

#[test]
fn special_values_are_those_of_c() {
    let table: [(UnaryOp, f32, f32); 23] = [
        (UnaryOp::Exp, f32::NEG_INFINITY, 0.0),
        (UnaryOp::Exp, f32::INFINITY, f32::INFINITY),
        (UnaryOp::Expm1, -0.0, -0.0),
        (UnaryOp::Expm1, f32::NEG_INFINITY, -1.0),
        (UnaryOp::Log, 0.0, f32::NEG_INFINITY),
        (UnaryOp::Log, -0.0, f32::NEG_INFINITY),
        (UnaryOp::Log, 1.0, 0.0),
        (UnaryOp::Log, -1.0, f32::NAN),
        (UnaryOp::Log1p, -1.0, f32::NEG_INFINITY),
        (UnaryOp::Log1p, -0.0, -0.0),
        (UnaryOp::Log1p, -1.5, f32::NAN),
        (UnaryOp::Sin, -0.0, -0.0),
        (UnaryOp::Sin, f32::INFINITY, f32::NAN),
        (UnaryOp::Cos, f32::NEG_INFINITY, f32::NAN),
        (UnaryOp::Cos, 0.0, 1.0),
        (UnaryOp::Tan, -0.0, -0.0),
        (UnaryOp::Asin, -0.0, -0.0),
        (UnaryOp::Asin, 1.1, f32::NAN),
        (UnaryOp::Acos, 1.0, 0.0),
        (UnaryOp::Tanh, f32::INFINITY, 1.0),
        (UnaryOp::Tanh, -0.0, -0.0),
        (UnaryOp::Erf, f32::NEG_INFINITY, -1.0),
        (UnaryOp::Erf, -0.0, -0.0),
    ];
    for (op, x, expected) in table {
        for fast in [false, true] {
            let found = Scalar::f32(eval(op, x, fast));
            assert!(found.same(Scalar::f32(expected)), "{}({x}) = {}", op.name(), found.to_f32());
        }
    }
    for op in FUNCTIONS {
        assert!(eval(op, f32::NAN, false).is_nan() && eval(op, -f32::NAN, true).is_nan(), "{}", op.name());
        assert!(eval(op, f32::from_bits(0x7fc0_1234), true).is_nan(), "{}", op.name());
    }
}

const SPECIALS: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    2.5,
    -2.5,
    1e-45,
    -1e-40,
    1e38,
    -1e38,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    16_777_217.0,
    -8_388_607.0,
    1.000_000_1,
];

/// A small generator, so that samples are the same everywhere.
fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}

fn check_binary(op: BinaryOp, bound: f64, samples: usize) {
    let mut state = 1;
    let mut pairs: Vec<(f32, f32)> = SPECIALS.iter().flat_map(|&a| SPECIALS.map(|b| (a, b))).collect();
    for i in 0..samples {
        let (a, b) = (random(&mut state), random(&mut state));
        pairs.push(if i % 2 == 0 {
            (f32::from_bits(a), f32::from_bits(b))
        } else {
            // Exponents near 0, where most interesting results are.
            let near = |v: u32| f32::from_bits((v & 0x83ff_ffff) + 0x3e00_0000);
            (near(a), near(b) * if i % 4 == 1 { 1.0 } else { 40.0 })
        });
    }
    let mut worst = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let (x, y) = (f64::from(a), f64::from(b));
        let exact = match op {
            BinaryOp::Min if x.is_nan() || y.is_nan() => f64::NAN,
            BinaryOp::Min if x < y || (x == y && x.is_sign_negative()) => x,
            BinaryOp::Min => y,
            BinaryOp::Max if x.is_nan() || y.is_nan() => f64::NAN,
            BinaryOp::Max if x > y || (x == y && x.is_sign_positive()) => x,
            BinaryOp::Max => y,
            _ => double::binary(op, x, y).expect("elementary"),
        };
        let found = evaluate_binary(op, Scalar::f32(a), Scalar::f32(b)).expect("defined on f32").to_f32();
        let error = ulps(found, exact);
        assert!(error <= bound, "{}({a:e}, {b:e}) = {found:e}, exactly {exact:e}: {error:.2} ulp", op.name());
        let zeros_agree = found != 0.0 || exact.abs() > 0.0 || found.is_sign_negative() == exact.is_sign_negative();
        assert!(zeros_agree, "{}({a:e}, {b:e}) = {found:e}, exactly {exact:e}", op.name());
        if error > worst.0 {
            worst = (error, a, b);
        }
    }
    println!("{}: {:.3} ulp at {:e}, {:e}", op.name(), worst.0, worst.1, worst.2);
}

#[test]
fn binary_bounds_hold() {
    check_binary(BinaryOp::Pow, 2.0, 200_000);
    check_binary(BinaryOp::Atan2, 2.0, 200_000);
    for op in [BinaryOp::Rem, BinaryOp::Min, BinaryOp::Max] {
        check_binary(op, 0.0, 20_000);
    }
}

#[test]
fn sixteen_bit_floats_agree_with_half() {
    let patterns = || (0..=u32::MAX).step_by(65_521).chain(edges());
    for x in patterns().map(f32::from_bits) {
        let to = |dtype| evaluate_cast(Scalar::f32(x), dtype, false).expect("a cast");
        let expected = Scalar { dtype: DType::F16, bits: u64::from(f16::from_f32(x).to_bits()) };
        assert!(to(DType::F16).same(expected), "{x:e}: {:?} not {expected:?}", to(DType::F16));
        let expected = Scalar { dtype: DType::BF16, bits: u64::from(bf16::from_f32(x).to_bits()) };
        assert!(to(DType::BF16).same(expected), "{x:e}: {:?} not {expected:?}", to(DType::BF16));
    }
    for bits in 0..=u16::MAX {
        let from = |dtype| evaluate_cast(Scalar { dtype, bits: u64::from(bits) }, DType::F32, false).expect("a cast");
        assert!(from(DType::F16).same(Scalar::f32(f16::from_bits(bits).to_f32())), "f16 {bits:#x}");
        assert!(from(DType::BF16).same(Scalar::f32(bf16::from_bits(bits).to_f32())), "bf16 {bits:#x}");
    }
}

/// Codes from ml_dtypes 0.5, without saturation.
#[test]
fn eight_bit_floats_agree_with_ml_dtypes() {
    let inputs: [f32; 21] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        464.0,
        465.0,
        480.0,
        248.0,
        247.0,
        61440.0,
        61439.0,
        60000.0,
        1e9,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.000_976_562_5,
        0.000_488_281_25,
        0.001_464_843_8,
        3.3,
        -17.5,
        0.1,
    ];
    let expected: [(DType, [u64; 21]); 4] = [
        (
            DType::F8E4M3FN,
            [0, 128, 56, 184, 126, 127, 127, 120, 119, 127, 127, 127, 127, 127, 255, 0, 0, 1, 69, 217, 29],
        ),
        (
            DType::F8E4M3FNUZ,
            [0, 0, 64, 192, 128, 128, 128, 128, 127, 128, 128, 128, 128, 128, 128, 1, 0, 2, 77, 225, 37],
        ),
        (DType::F8E5M2, [0, 128, 60, 188, 95, 95, 96, 92, 92, 124, 123, 123, 124, 124, 252, 20, 16, 22, 67, 204, 46]),
        (
            DType::F8E5M2FNUZ,
            [0, 0, 64, 192, 99, 99, 100, 96, 96, 128, 127, 127, 128, 128, 128, 24, 20, 26, 71, 208, 50],
        ),
    ];
    for (dtype, codes) in expected {
        for (x, code) in inputs.into_iter().zip(codes) {
            let found = evaluate_cast(Scalar::f32(x), dtype, false).expect("a cast");
            assert_eq!(found.bits, code, "{x} to {dtype}");
        }
    }
    let halves = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0, 5.0, -0.0, 0.25, 0.75, 2.5, 3.5];
    let codes = halves.map(|v| evaluate_cast(Scalar::f32(v), DType::F4E2M1, false).expect("a cast").bits);
    assert_eq!(codes, [8, 7, 15, 7, 6, 8, 0, 2, 4, 6]);
    let scales = [(3.0, true, 129), (-4.0, true, 129), (0.0, true, 0), (3e38, true, 254), (3e38, false, 255)];
    for (v, saturate, code) in scales {
        assert_eq!(evaluate_cast(Scalar::f32(v), DType::F8E8M0, saturate).expect("a cast").bits, code, "{v}");
    }
}

/// Every code of every small format, there and back.
#[test]
fn small_floats_round_trip() {
    for dtype in DType::ALL.iter().copied().filter(|d| d.is_float() && d.bits() <= 8) {
        for bits in 0..1u64 << dtype.bits() {
            let wide = evaluate_cast(Scalar { dtype, bits }, DType::F32, false).expect("a cast");
            let back = evaluate_cast(wide, dtype, false).expect("a cast");
            if wide.is_nan() {
                let again = evaluate_cast(back, DType::F32, false).expect("a cast");
                assert!(again.is_nan(), "{dtype} {bits:#x}");
            } else {
                assert_eq!(back.bits, bits, "{dtype} {bits:#x} is {}", wide.to_f32());
            }
        }
    }
}

/// The core op's meaning in wide integers.
fn cast_to_int(v: f64, to: DType, saturate: bool) -> Scalar {
    let whole = v as i128;
    let bits = to.bits();
    let (low, high): (i128, i128) =
        if super::is_signed(to) { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    let value = if saturate {
        whole.clamp(low, high)
    } else if to == DType::U64 && whole >= 0 {
        whole.clamp(0, i128::from(u64::MAX))
    } else {
        whole.clamp(i128::from(i64::MIN), i128::from(i64::MAX))
    };
    Scalar::int(to, low.wrapping_add(value.wrapping_sub(low) & (high - low)))
}

#[test]
fn floats_become_integers_as_the_core_op_says() {
    let patterns = (0..=u32::MAX).step_by(1_048_573).chain(edges());
    let near = (0..64).flat_map(|e| {
        let power = 2f32.powi(e).to_bits();
        (power - 3..power + 4).flat_map(|b| [b, b | 0x8000_0000])
    });
    for x in patterns.chain(near).map(f32::from_bits) {
        for to in DType::ALL.iter().copied().filter(|d| d.is_int()) {
            for saturate in [false, true] {
                let expected = cast_to_int(f64::from(x), to, saturate);
                let found = evaluate_cast(Scalar::f32(x), to, saturate).expect("a cast");
                assert_eq!(found, expected, "{x:e} to {to}, saturate {saturate}");
                let found = evaluate_cast(Scalar::f64(f64::from(x)), to, saturate).expect("a cast");
                assert_eq!(found, expected, "f64 {x:e} to {to}, saturate {saturate}");
            }
        }
    }
}

#[test]
fn integers_become_integers_as_the_core_op_says() {
    let ints: Vec<DType> = DType::ALL.iter().copied().filter(|d| d.is_int()).collect();
    let values: [i128; 13] =
        [0, 1, -1, 7, -8, 100, -129, 255, 70_000, -70_000, i64::MAX as i128, i64::MIN as i128, u64::MAX as i128];
    for &from in &ints {
        for v in values.map(|v| cast_to_int_exact(v, from)) {
            for &to in &ints {
                for saturate in [false, true] {
                    let found = evaluate_cast(v, to, saturate).expect("a cast");
                    let (low, high) = range(to);
                    let expected = if saturate {
                        Scalar::int(to, v.to_int().clamp(low, high))
                    } else {
                        cast_to_int_exact(v.to_int(), to)
                    };
                    assert_eq!(found, expected, "{} of {from} to {to}, saturate {saturate}", v.to_int());
                }
            }
            let float = evaluate_cast(v, DType::F32, false).expect("a cast");
            assert_eq!(float.to_f32(), v.to_int() as f32);
        }
    }
}

fn range(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    if super::is_signed(dtype) { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// Low bits, extended in the type's byte.
fn cast_to_int_exact(v: i128, to: DType) -> Scalar {
    let (low, high) = range(to);
    Scalar::int(to, low.wrapping_add(v.wrapping_sub(low) & (high - low)))
}

#[test]
fn integer_corner_cases() {
    for dtype in DType::ALL.iter().copied().filter(|d| primitive::is_plain_int(*d)) {
        let (low, high) = range(dtype);
        let values = [low, low + 1, -1, 0, 1, 2, 7, 8, 31, 63, 64, high - 1, high];
        let values: Vec<Scalar> =
            values.into_iter().filter(|v| (low..=high).contains(v)).map(|v| Scalar::int(dtype, v)).collect();
        for &a in &values {
            for &b in &values {
                let (x, y) = (a.to_int(), b.to_int());
                let shifted = (0..i128::from(dtype.bits())).contains(&y);
                let cases = [
                    (BinaryOp::Div, x.checked_div(y).unwrap_or(0)),
                    (BinaryOp::Rem, x.checked_rem(y).unwrap_or(0)),
                    (BinaryOp::Shl, if shifted { x << y } else { 0 }),
                    (BinaryOp::Shr, if shifted { x >> y } else { x >> 127 }),
                    (BinaryOp::Min, x.min(y)),
                    (BinaryOp::Max, x.max(y)),
                    (BinaryOp::Mul, x.wrapping_mul(y)),
                ];
                for (op, expected) in cases {
                    let found = evaluate_binary(op, a, b).expect("defined on integers");
                    assert_eq!(found, Scalar::int(dtype, expected), "{} {x} {y} of {dtype}", op.name());
                }
            }
            let x = a.to_int();
            for (op, expected) in
                [(UnaryOp::Neg, -x), (UnaryOp::Abs, x.abs()), (UnaryOp::Sign, x.signum()), (UnaryOp::Not, !x)]
            {
                let found = evaluate_unary(op, a, false).expect("defined on integers");
                assert_eq!(found, Scalar::int(dtype, expected), "{} {x} of {dtype}", op.name());
            }
        }
    }
    assert_eq!(
        evaluate_binary(BinaryOp::Pow, Scalar::i32(3), Scalar::i32(21)).expect("pow"),
        Scalar::int(DType::I32, 10_460_353_203)
    );
    assert_eq!(evaluate_binary(BinaryOp::Pow, Scalar::i64(-1), Scalar::i64(-3)).expect("pow"), Scalar::i64(-1));
    assert_eq!(evaluate_binary(BinaryOp::Pow, Scalar::i64(2), Scalar::i64(-1)).expect("pow"), Scalar::i64(0));
}
