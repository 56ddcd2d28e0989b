//! Every element type: arithmetic at the edges, conversions, calls.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::harness::{bytes, run, values};
use crate::kernel::build::KernelBuilder;
use crate::kernel::{Kernel, Reg, Role, Scalar, Stmt};
use crate::schedule::Schedule;

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

/// y[i] = write(x[i], z[i]).
fn pairs(from: DType, to: DType, n: usize, write: impl FnOnce(&mut KernelBuilder, Reg, Reg) -> Reg) -> Kernel {
    let mut b = KernelBuilder::new("pairs", false);
    let n = Dim::from(n);
    let x = b.buffer("x", from, n.clone(), Role::Input);
    let z = b.buffer("z", from, n.clone(), Role::Input);
    let y = b.buffer("y", to, n.clone(), Role::Output);
    b.phase(n, |b, i| {
        let (u, v) = (b.load(x, i.clone()), b.load(z, i.clone()));
        let w = write(b, u, v);
        b.push(Stmt::Store { buffer: y, index: i, value: w });
    });
    b.finish()
}

macro_rules! integer_tests {
    ($($name:ident $ty:ty, $dtype:ident;)*) => { $(
        #[test]
        fn $name() {
            let edge: Vec<$ty> = vec![0, 1, 2, 3, 7, 100, <$ty>::MAX, <$ty>::MAX - 1, <$ty>::MIN, <$ty>::MIN + 1,
                (0 as $ty).wrapping_sub(1), (0 as $ty).wrapping_sub(7)];
            let all: Vec<($ty, $ty)> = edge.iter().flat_map(|a| edge.iter().map(move |b| (*a, *b))).collect();
            let x: Vec<$ty> = all.iter().map(|p| p.0).collect();
            let z: Vec<$ty> = all.iter().map(|p| p.1).collect();
            let arguments = |size: usize| {
                vec![bytes(&x, <$ty>::to_le_bytes), bytes(&z, <$ty>::to_le_bytes), vec![0; size * all.len()]]
            };
            let check = |op: BinaryOp, expected: &dyn Fn($ty, $ty) -> $ty| {
                let kernel = pairs(DType::$dtype, DType::$dtype, all.len(), |b, u, v| b.binary(op, u, v));
                let out = run(&kernel, &Schedule::default(), &arguments(size_of::<$ty>()), &[]);
                let out = values(&out.buffers[2], <$ty>::from_le_bytes);
                for ((a, b), y) in all.iter().zip(out) {
                    assert_eq!(y, expected(*a, *b), "{} {a} {b}", op.name());
                }
            };
            check(BinaryOp::Add, &|a, b| a.wrapping_add(b));
            check(BinaryOp::Sub, &|a, b| a.wrapping_sub(b));
            check(BinaryOp::Mul, &|a, b| a.wrapping_mul(b));
            check(BinaryOp::Div, &|a, b| if b == 0 { 0 } else { a.wrapping_div(b) });
            check(BinaryOp::Rem, &|a, b| if b == 0 { 0 } else { a.wrapping_rem(b) });
            check(BinaryOp::Min, &|a, b| a.min(b));
            check(BinaryOp::Max, &|a, b| a.max(b));
            check(BinaryOp::And, &|a, b| a & b);
            check(BinaryOp::Or, &|a, b| a | b);
            check(BinaryOp::Xor, &|a, b| a ^ b);
            #[allow(unused_comparisons, reason = "the macro is for unsigned types too")]
            check(BinaryOp::Pow, &|a, b| {
                let minus = (0 as $ty).wrapping_sub(1);
                if b < 0 {
                    return if a == 1 { 1 } else if a == minus { if b % 2 == 0 { 1 } else { minus } } else { 0 };
                }
                let (mut result, mut square, mut left) = (1 as $ty, a, b);
                while left > 0 {
                    if left % 2 == 1 { result = result.wrapping_mul(square); }
                    square = square.wrapping_mul(square);
                    left /= 2;
                }
                result
            });
            let compare = |op: BinaryOp, expected: &dyn Fn($ty, $ty) -> bool| {
                let kernel = pairs(DType::$dtype, DType::Bool, all.len(), |b, u, v| b.binary(op, u, v));
                let out = run(&kernel, &Schedule::default(), &arguments(1), &[]);
                for ((a, b), y) in all.iter().zip(&out.buffers[2]) {
                    assert_eq!(*y, u8::from(expected(*a, *b)), "{} {a} {b}", op.name());
                }
            };
            compare(BinaryOp::Eq, &|a, b| a == b);
            compare(BinaryOp::Lt, &|a, b| a < b);
            compare(BinaryOp::Le, &|a, b| a <= b);
            let shift = |op: BinaryOp, expected: &dyn Fn($ty, u32) -> $ty| {
                let kernel = pairs(DType::$dtype, DType::$dtype, all.len(), |b, u, v| {
                    let most = b.constant(Scalar { dtype: DType::$dtype, bits: u64::from(<$ty>::BITS) - 1 });
                    let amount = b.binary(BinaryOp::And, v, most);
                    b.binary(op, u, amount)
                });
                let out = run(&kernel, &Schedule::default(), &arguments(size_of::<$ty>()), &[]);
                let out = values(&out.buffers[2], <$ty>::from_le_bytes);
                for ((a, b), y) in all.iter().zip(out) {
                    assert_eq!(y, expected(*a, *b as u32 & (<$ty>::BITS - 1)), "{} {a} {b}", op.name());
                }
            };
            shift(BinaryOp::Shl, &|a, b| a << b);
            shift(BinaryOp::Shr, &|a, b| a >> b);
            for (to, op) in [(DType::F32, UnaryOp::Neg), (DType::F64, UnaryOp::Abs), (DType::F64, UnaryOp::Not)] {
                let kernel = pairs(DType::$dtype, to, all.len(), |b, u, _| {
                    let v = b.unary(op, u);
                    b.cast(v, to, false)
                });
                let out = run(&kernel, &Schedule::default(), &arguments(to.size()), &[]);
                for (i, a) in x.iter().enumerate() {
                    #[allow(unused_comparisons, reason = "the macro is for unsigned types too")]
                    let v = match op {
                        UnaryOp::Neg => (0 as $ty).wrapping_sub(*a),
                        UnaryOp::Abs if *a < 0 => (0 as $ty).wrapping_sub(*a),
                        UnaryOp::Abs => *a,
                        _ => !*a,
                    };
                    let expected = if to == DType::F32 { (v as f32).to_le_bytes().to_vec() } else { (v as f64).to_le_bytes().to_vec() };
                    let size = to.size();
                    assert_eq!(&out.buffers[2][i * size..(i + 1) * size], expected, "{} {a}", op.name());
                }
            }
        }
    )* };
}

integer_tests! {
    i8_arithmetic i8, I8;
    i16_arithmetic i16, I16;
    i32_arithmetic i32, I32;
    i64_arithmetic i64, I64;
    u8_arithmetic u8, U8;
    u16_arithmetic u16, U16;
    u32_arithmetic u32, U32;
    u64_arithmetic u64, U64;
}

#[test]
fn integers_convert_by_wrapping_or_clamping() {
    let x: Vec<i64> =
        vec![0, 1, -1, 127, 128, 255, 256, -128, -129, 65535, 65536, i64::MAX, i64::MIN, 1 << 31, 1 << 32];
    macro_rules! check {
        ($($to:ty, $dtype:ident;)*) => { $(
            for saturate in [false, true] {
                let kernel = pairs(DType::I64, DType::$dtype, x.len(), |b, u, _| b.cast(u, DType::$dtype, saturate));
                let input = bytes(&x, i64::to_le_bytes);
                let size = size_of::<$to>();
                let out = run(&kernel, &Schedule::default(), &[input.clone(), input, vec![0; size * x.len()]], &[]);
                let expected: Vec<$to> = x.iter().map(|v| {
                    if saturate { (i128::from(*v)).clamp(<$to>::MIN as i128, <$to>::MAX as i128) as $to } else { *v as $to }
                }).collect();
                assert_eq!(values(&out.buffers[2], <$to>::from_le_bytes), expected, "{} {saturate}", DType::$dtype);
            }
        )* };
    }
    check! { i8, I8; i16, I16; i32, I32; u8, U8; u16, U16; u32, U32; u64, U64; }
    let x: Vec<u64> = vec![0, 1, 255, 256, u64::MAX, 1 << 63, (1 << 63) - 1];
    let kernel = pairs(DType::U64, DType::I64, x.len(), |b, u, _| b.cast(u, DType::I64, true));
    let input = bytes(&x, u64::to_le_bytes);
    let out = run(&kernel, &Schedule::default(), &[input.clone(), input, vec![0; 8 * x.len()]], &[]);
    let expected: Vec<i64> = x.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect();
    assert_eq!(values(&out.buffers[2], i64::from_le_bytes), expected);
}

#[test]
fn floats_convert_to_integers_without_traps() {
    let x: Vec<f32> = vec![0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 127.9, 128.0, -129.0, 300.0, 3e9, -3e9, 1e19, 2e19, -1e30]
        .into_iter()
        .chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
        .collect();
    macro_rules! check {
        ($($to:ty, $dtype:ident, $saturate:literal, $expected:expr;)*) => { $( {
            let kernel = pairs(DType::F32, DType::$dtype, x.len(), |b, u, _| b.cast(u, DType::$dtype, $saturate));
            let input = bytes(&x, f32::to_le_bytes);
            let size = size_of::<$to>();
            let out = run(&kernel, &Schedule::default(), &[input.clone(), input, vec![0; size * x.len()]], &[]);
            let expected: Vec<$to> = x.iter().map(|v| $expected(*v)).collect();
            assert_eq!(values(&out.buffers[2], <$to>::from_le_bytes), expected, "{} {}", DType::$dtype, $saturate);
        } )* };
    }
    check! {
        i8, I8, true, |v: f32| v as i8;
        i16, I16, true, |v: f32| v as i16;
        i32, I32, true, |v: f32| v as i32;
        i64, I64, true, |v: f32| v as i64;
        u8, U8, true, |v: f32| v as u8;
        u16, U16, true, |v: f32| v as u16;
        u32, U32, true, |v: f32| v as u32;
        u64, U64, true, |v: f32| v as u64;
        i8, I8, false, |v: f32| v as i64 as i8;
        u8, U8, false, |v: f32| v as i64 as u8;
        i64, I64, false, |v: f32| v as i64;
        u32, U32, false, |v: f32| v as i64 as u32;
        u64, U64, false, |v: f32| if v < 0.0 { v as i64 as u64 } else { v as u64 };
    }
}

#[test]
fn f64_calls_its_functions() {
    let x: Vec<f64> = vec![0.25, 0.5, -0.75, 0.9, 1.0, f64::NAN];
    let z: Vec<f64> = vec![2.0, -1.5, 0.5, 3.0, f64::INFINITY, 1.0];
    let arguments = [bytes(&x, f64::to_le_bytes), bytes(&z, f64::to_le_bytes), vec![0; 8 * x.len()]];
    let unary: [(UnaryOp, Unary); 13] = [
        (UnaryOp::Exp, f64::exp),
        (UnaryOp::Expm1, f64::exp_m1),
        (UnaryOp::Log, f64::ln),
        (UnaryOp::Log1p, f64::ln_1p),
        (UnaryOp::Sin, f64::sin),
        (UnaryOp::Cos, f64::cos),
        (UnaryOp::Tan, f64::tan),
        (UnaryOp::Asin, f64::asin),
        (UnaryOp::Acos, f64::acos),
        (UnaryOp::Atan, f64::atan),
        (UnaryOp::Tanh, f64::tanh),
        (UnaryOp::Floor, f64::floor),
        (UnaryOp::RoundEven, f64::round_ties_even),
    ];
    let same =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
    for (op, expected) in unary {
        let kernel = pairs(DType::F64, DType::F64, x.len(), |b, u, _| b.unary(op, u));
        let out = values(&run(&kernel, &Schedule::default(), &arguments, &[]).buffers[2], f64::from_le_bytes);
        let expected: Vec<f64> = x.iter().map(|v| expected(*v)).collect();
        assert!(same(&out, &expected), "{} {out:?} {expected:?}", op.name());
    }
    let binary: [(BinaryOp, Binary); 4] = [
        (BinaryOp::Pow, f64::powf),
        (BinaryOp::Atan2, f64::atan2),
        (BinaryOp::Rem, |a, b| a % b),
        (BinaryOp::Sub, |a, b| a - b),
    ];
    for (op, expected) in binary {
        let kernel = pairs(DType::F64, DType::F64, x.len(), |b, u, v| b.binary(op, u, v));
        let out = values(&run(&kernel, &Schedule::default(), &arguments, &[]).buffers[2], f64::from_le_bytes);
        let expected: Vec<f64> = x.iter().zip(&z).map(|(a, b)| expected(*a, *b)).collect();
        assert!(same(&out, &expected), "{} {out:?} {expected:?}", op.name());
    }
    let kernel = pairs(DType::F64, DType::F64, x.len(), |b, u, v| b.fma(u, v, u));
    let out = values(&run(&kernel, &Schedule::default(), &arguments, &[]).buffers[2], f64::from_le_bytes);
    let expected: Vec<f64> = x.iter().zip(&z).map(|(a, b)| a.mul_add(*b, *a)).collect();
    assert!(same(&out, &expected), "{out:?} {expected:?}");
}

#[test]
fn bools_are_any_byte_but_zero() {
    let kernel = pairs(DType::Bool, DType::Bool, 4, |b, u, v| {
        let w = b.unary(UnaryOp::Not, u);
        b.binary(BinaryOp::And, w, v)
    });
    let out = run(&kernel, &Schedule::default(), &[vec![0, 1, 2, 0], vec![1, 1, 1, 7], vec![9; 4]], &[]);
    assert_eq!(out.buffers[2], [1, 0, 0, 1]);
}

#[test]
fn sixteen_bit_floats_move_and_select() {
    let kernel = pairs(DType::F16, DType::F16, 2, |b, u, v| {
        let bits = b.bitcast(u, DType::I16);
        let zero = b.constant(Scalar { dtype: DType::I16, bits: 0 });
        let negative = b.binary(BinaryOp::Lt, bits, zero);
        b.select(negative, v, u)
    });
    let (x, z) = (bytes(&[0x3c00u16, 0xbc00], u16::to_le_bytes), bytes(&[0x4000u16, 0x4200], u16::to_le_bytes));
    let out = run(&kernel, &Schedule::default(), &[x, z, vec![0; 4]], &[]);
    assert_eq!(values(&out.buffers[2], u16::from_le_bytes), [0x3c00, 0x4200]);
}
