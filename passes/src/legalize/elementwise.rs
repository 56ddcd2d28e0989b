//! Elementwise arithmetic, comparisons, logic, rounding, trigonometry, casts.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, Dim, Op, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::error::{Ruled, invalid, unsupported};
use super::table::{Row, onnx, versions};

const LAST: i64 = i64::MAX;

pub(super) const TABLE: &[Row] = &[
    onnx("Abs", |c| unary(c, UnaryOp::Abs)),
    onnx("Acos", |c| unary(c, UnaryOp::Acos)),
    onnx("Acosh", acosh),
    onnx("Add", |c| binary(c, BinaryOp::Add)),
    onnx("And", |c| binary(c, BinaryOp::And)),
    onnx("Asin", |c| unary(c, UnaryOp::Asin)),
    onnx("Asinh", asinh),
    onnx("Atan", |c| unary(c, UnaryOp::Atan)),
    onnx("Atanh", atanh),
    onnx("BitShift", bit_shift),
    onnx("BitCast", bit_cast),
    onnx("BitwiseAnd", |c| binary(c, BinaryOp::And)),
    onnx("BitwiseNot", |c| unary(c, UnaryOp::Not)),
    onnx("BitwiseOr", |c| binary(c, BinaryOp::Or)),
    onnx("BitwiseXor", |c| binary(c, BinaryOp::Xor)),
    onnx("Cast", cast),
    onnx("CastLike", cast),
    onnx("Ceil", |c| unary(c, UnaryOp::Ceil)),
    onnx("Clip", clip),
    onnx("Cos", |c| unary(c, UnaryOp::Cos)),
    onnx("Cosh", cosh),
    onnx("Div", |c| binary(c, BinaryOp::Div)),
    onnx("Equal", |c| binary(c, BinaryOp::Eq)),
    onnx("Erf", |c| unary(c, UnaryOp::Erf)),
    onnx("Exp", |c| unary(c, UnaryOp::Exp)),
    onnx("Floor", |c| unary(c, UnaryOp::Floor)),
    onnx("Greater", |c| swapped(c, BinaryOp::Lt)),
    onnx("GreaterOrEqual", |c| swapped(c, BinaryOp::Le)),
    onnx("IsInf", is_inf),
    onnx("IsNaN", is_nan),
    onnx("Less", |c| binary(c, BinaryOp::Lt)),
    onnx("LessOrEqual", |c| binary(c, BinaryOp::Le)),
    onnx("Log", |c| unary(c, UnaryOp::Log)),
    onnx("Max", |c| variadic(c, BinaryOp::Max)),
    onnx("Mean", mean),
    onnx("Min", |c| variadic(c, BinaryOp::Min)),
    onnx("Mod", modulo),
    onnx("Mul", |c| binary(c, BinaryOp::Mul)),
    onnx("Neg", |c| unary(c, UnaryOp::Neg)),
    onnx("Not", |c| unary(c, UnaryOp::Not)),
    onnx("Or", |c| binary(c, BinaryOp::Or)),
    onnx("Pow", pow),
    onnx("Reciprocal", reciprocal),
    onnx("Round", |c| unary(c, UnaryOp::RoundEven)),
    onnx("Sign", |c| unary(c, UnaryOp::Sign)),
    onnx("Sin", |c| unary(c, UnaryOp::Sin)),
    onnx("Sinh", sinh),
    onnx("Sqrt", |c| unary(c, UnaryOp::Sqrt)),
    onnx("Sub", |c| binary(c, BinaryOp::Sub)),
    onnx("Sum", |c| variadic(c, BinaryOp::Add)),
    onnx("Tan", |c| unary(c, UnaryOp::Tan)),
    onnx("Tanh", |c| unary(c, UnaryOp::Tanh)),
    versions("Where", 9, LAST, where_),
    onnx("Xor", |c| binary(c, BinaryOp::Xor)),
];

fn unary(c: &mut Ctx, op: UnaryOp) -> Results {
    let x = c.x(0)?;
    Ok(vec![c.un(op, x)?])
}

/// Both operands; below opset 7 the second is aligned by `axis` and grows only with `broadcast`.
pub(super) fn pair(c: &mut Ctx) -> Ruled<[Value; 2]> {
    let (a, b) = (c.x(0)?, c.x(1)?);
    if c.version >= 7 || !c.flag("broadcast", false)? {
        return Ok([a, b]);
    }
    let (rank, width) = (c.rank(a)?, c.rank(b)?);
    let Some(axis) = c.int("axis")? else { return Ok([a, b]) };
    let axis = c.axis_of(axis, rank.max(1))?;
    let axes: Vec<usize> = (axis..axis + width).collect();
    let b = c.spread(b, &axes, rank)?;
    Ok([a, b])
}

fn binary(c: &mut Ctx, op: BinaryOp) -> Results {
    let [a, b] = pair(c)?;
    Ok(vec![c.bin(op, a, b)?])
}

/// a > b is b < a.
fn swapped(c: &mut Ctx, op: BinaryOp) -> Results {
    let [a, b] = pair(c)?;
    Ok(vec![c.bin(op, b, a)?])
}

fn variadic(c: &mut Ctx, op: BinaryOp) -> Results {
    let all = c.all()?;
    let Some((&first, rest)) = all.split_first() else { return invalid("no inputs") };
    rest.iter().try_fold(first, |acc, &v| c.bin(op, acc, v)).map(|v| vec![v])
}

fn mean(c: &mut Ctx) -> Results {
    let sum = variadic(c, BinaryOp::Add)?;
    let n = c.operands.len() as f64;
    sum.into_iter().map(|s| c.bin_s(BinaryOp::Div, s, n)).collect()
}

fn reciprocal(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let one = c.like(x, 1.0)?;
    Ok(vec![c.div(one, x)?])
}

/// Without `fmod` the result has the sign of the divisor, as Python's.
/// The remainder of a division that truncates (`fmod`) or rounds down; the latter has the sign of b, a zero too.
fn modulo(c: &mut Ctx) -> Results {
    let [a, b] = pair(c)?;
    let class = c.dtype(a)?.class();
    let rest = c.bin(BinaryOp::Rem, a, b)?;
    if c.flag("fmod", false)? || class == Class::Unsigned {
        return Ok(vec![rest]);
    }
    let zero = c.like(rest, 0.0)?;
    let (rest_negative, divisor_negative) = (c.bin(BinaryOp::Lt, rest, zero)?, c.bin(BinaryOp::Lt, b, zero)?);
    let signs_differ = c.bin(BinaryOp::Xor, rest_negative, divisor_negative)?;
    let exact = c.bin(BinaryOp::Eq, rest, zero)?;
    let inexact = c.un(UnaryOp::Not, exact)?;
    let moved = c.bin(BinaryOp::And, signs_differ, inexact)?;
    let other = c.add(rest, b)?;
    let floored = c.pick(moved, other, rest)?;
    if class != Class::Float {
        return Ok(vec![floored]);
    }
    let below = c.like(rest, -0.0)?;
    let signed = c.pick(divisor_negative, below, zero)?;
    Ok(vec![c.pick(exact, signed, floored)?])
}

/// The result has the base's type; integers raised to floats go through f64.
fn pow(c: &mut Ctx) -> Results {
    let [base, exponent] = pair(c)?;
    let (b, e) = (c.dtype(base)?, c.dtype(exponent)?);
    let common = if b == e || b.is_float() || e.is_int() { b } else { DType::F64 };
    // Narrowing an f64 exponent of an f32 base loses what the base never had.
    let (base, exponent) = (c.to(base, common)?, c.to(exponent, common)?);
    let power = c.bin(BinaryOp::Pow, base, exponent)?;
    Ok(vec![c.to(power, b)?])
}

fn bit_shift(c: &mut Ctx) -> Results {
    let op = match c.text("direction", "")?.as_str() {
        "LEFT" => BinaryOp::Shl,
        "RIGHT" => BinaryOp::Shr,
        other => return invalid(format!("no direction `{other}`")),
    };
    binary(c, op)
}

fn bit_cast(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let Some(to) = c.dtype_attr("to")? else { return invalid("attribute `to` is missing") };
    let from = c.dtype(x)?;
    let op = match (from == DType::Bool, to == DType::Bool) {
        // A bool is a byte of 0 or 1.
        (true, false) | (false, true) if from.size() == to.size() => Op::Cast { to, saturate: false },
        _ => Op::Bitcast { to },
    };
    Ok(vec![if from == to { x } else { c.op(op, &[x])? }])
}

fn cast(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let to = match c.op_type {
        "CastLike" => {
            let like = c.x(1)?;
            c.dtype(like)?
        }
        _ => match c.attr("to") {
            // Opset 1 to 5 named the type by a word.
            Some(frit_ir::AttrValue::Str(word)) => match word.as_str() {
                "FLOAT" => DType::F32,
                "DOUBLE" => DType::F64,
                "INT32" => DType::I32,
                "INT64" => DType::I64,
                "BOOL" => DType::Bool,
                other => return unsupported(format!("a cast to {other}")),
            },
            _ => match c.dtype_attr("to")? {
                Some(to) => to,
                None => return invalid("attribute `to` is missing"),
            },
        },
    };
    let from = c.dtype(x)?;
    if from == to {
        return Ok(vec![x]);
    }
    if from == DType::Str || to == DType::Str {
        return unsupported("strings");
    }
    if to == DType::F8E8M0 && c.text("round_mode", "up")? != "up" {
        return unsupported("attribute `round_mode` other than `up`");
    }
    let eight_bit_float = to.is_float() && to.bits() <= 8;
    let saturate = eight_bit_float && c.flag("saturate", true)?;
    Ok(vec![c.op(Op::Cast { to, saturate }, &[x])?])
}

fn clip(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (low, high) = if c.version < 11 {
        let (low, high) = (c.float("min")?, c.float("max")?);
        let mut bound = |v: Option<f64>| v.map(|v| c.like(x, v)).transpose();
        (bound(low)?, bound(high)?)
    } else {
        (c.opt(1), c.opt(2))
    };
    let mut y = x;
    for (bound, op) in [(low, BinaryOp::Max), (high, BinaryOp::Min)] {
        if let Some(bound) = bound {
            let bound = super::source::as_scalar(c, bound)?;
            y = c.bin(op, y, bound)?;
        }
    }
    Ok(vec![y])
}

fn where_(c: &mut Ctx) -> Results {
    let (condition, a, b) = (c.x(0)?, c.x(1)?, c.x(2)?);
    Ok(vec![c.pick(condition, a, b)?])
}

/// Only NaN differs from itself. Storage types are looked at as f32.
fn is_nan(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let x = if c.dtype(x)?.is_storage_only() { c.to(x, DType::F32)? } else { x };
    let same = c.bin(BinaryOp::Eq, x, x)?;
    Ok(vec![c.un(UnaryOp::Not, same)?])
}

fn is_inf(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let x = if c.dtype(x)?.is_storage_only() { c.to(x, DType::F32)? } else { x };
    let (negative, positive) = (c.flag("detect_negative", true)?, c.flag("detect_positive", true)?);
    let (x, sign) = match (negative, positive) {
        (true, true) => (c.un(UnaryOp::Abs, x)?, 1.0),
        (true, false) => (x, -1.0),
        (false, true) => (x, 1.0),
        (false, false) => {
            let dims = c.shape(x)?;
            let no = c.scalar(DType::Bool, 0.0)?;
            return Ok(vec![c.full(no, dims)?]);
        }
    };
    let infinity = c.like(x, sign * f64::INFINITY)?;
    Ok(vec![c.bin(BinaryOp::Eq, x, infinity)?])
}

/// x with the sign of `sign` (x is not negative).
fn signed(c: &mut Ctx, x: Value, sign: Value) -> Ruled<Value> {
    let negative = c.bin_s(BinaryOp::Lt, sign, 0.0)?;
    let flipped = c.un(UnaryOp::Neg, x)?;
    c.pick(negative, flipped, x)
}

/// Beyond this, e^-2x is nothing beside 1.
fn one_sided(dtype: DType) -> f64 {
    if dtype == DType::F64 { 20.0 } else { 9.0 }
}

/// e^a / 2 for a large a, without overflow before the result's: (e^(a/2) / 2) e^(a/2).
fn half_exp(c: &mut Ctx, a: Value) -> Ruled<Value> {
    let half = c.mul_s(a, 0.5)?;
    let root = c.un(UnaryOp::Exp, half)?;
    let half_root = c.mul_s(root, 0.5)?;
    c.mul(half_root, root)
}

/// sinh |x| = (t + t / (t + 1)) / 2 with t = e^|x| - 1: no cancellation near 0.
fn sinh(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let a = c.un(UnaryOp::Abs, x)?;
    let t = c.un(UnaryOp::Expm1, a)?;
    let t1 = c.add_s(t, 1.0)?;
    let ratio = c.div(t, t1)?;
    let sum = c.add(t, ratio)?;
    let near = c.mul_s(sum, 0.5)?;
    let far = half_exp(c, a)?;
    let limit = one_sided(c.dtype(x)?);
    let is_near = c.bin_s(BinaryOp::Lt, a, limit)?;
    let y = c.pick(is_near, near, far)?;
    Ok(vec![signed(c, y, x)?])
}

fn cosh(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let a = c.un(UnaryOp::Abs, x)?;
    let e = c.un(UnaryOp::Exp, a)?;
    let half = c.like(a, 0.5)?;
    let (grows, falls) = (c.mul(e, half)?, c.div(half, e)?);
    let near = c.add(grows, falls)?;
    let far = half_exp(c, a)?;
    let limit = one_sided(c.dtype(x)?);
    let is_near = c.bin_s(BinaryOp::Lt, a, limit)?;
    Ok(vec![c.pick(is_near, near, far)?])
}

/// Beyond this, sqrt(a^2 + 1) is a in the type.
fn large(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 128.0,
        DType::F64 => 2f64.powi(28),
        _ => 2f64.powi(14),
    }
}

/// `near` below [`large`], else ln a + ln 2.
fn log_tail(c: &mut Ctx, a: Value, near: Value) -> Ruled<Value> {
    let log = c.un(UnaryOp::Log, a)?;
    let far = c.add_s(log, std::f64::consts::LN_2)?;
    let limit = large(c.dtype(a)?);
    let is_far = c.bin_s(BinaryOp::Lt, a, limit)?;
    c.pick(is_far, near, far)
}

/// asinh |x| = log1p(a + a^2 / (1 + sqrt(a^2 + 1))).
fn asinh(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let a = c.un(UnaryOp::Abs, x)?;
    let square = c.mul(a, a)?;
    let plus = c.add_s(square, 1.0)?;
    let root = c.un(UnaryOp::Sqrt, plus)?;
    let below = c.add_s(root, 1.0)?;
    let ratio = c.div(square, below)?;
    let sum = c.add(a, ratio)?;
    let near = c.un(UnaryOp::Log1p, sum)?;
    let y = log_tail(c, a, near)?;
    Ok(vec![signed(c, y, x)?])
}

/// acosh x = log1p(t + sqrt(2 t + t^2)) with t = x - 1.
fn acosh(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let t = c.add_s(x, -1.0)?;
    let (double, square) = (c.mul_s(t, 2.0)?, c.mul(t, t)?);
    let sum = c.add(double, square)?;
    let root = c.un(UnaryOp::Sqrt, sum)?;
    let inner = c.add(t, root)?;
    let near = c.un(UnaryOp::Log1p, inner)?;
    let y = log_tail(c, x, near)?;
    // Far below 1 the square overflows, and t + sqrt(t^2) cancels: no sum above is NaN there.
    let one = c.like(x, 1.0)?;
    let below = c.bin(BinaryOp::Lt, x, one)?;
    let nan = c.like(x, f64::NAN)?;
    Ok(vec![c.pick(below, nan, y)?])
}

/// atanh |x| = log1p(2 a / (1 - a)) / 2.
fn atanh(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let a = c.un(UnaryOp::Abs, x)?;
    let double = c.mul_s(a, 2.0)?;
    let one = c.like(a, 1.0)?;
    let below = c.sub(one, a)?;
    let ratio = c.div(double, below)?;
    let log = c.un(UnaryOp::Log1p, ratio)?;
    let y = c.mul_s(log, 0.5)?;
    Ok(vec![signed(c, y, x)?])
}

/// Extents after `axis` are 1: a vector that runs along `axis` of a tensor of `rank` dims.
pub(super) fn along(c: &mut Ctx, v: Value, axis: usize, rank: usize) -> Ruled<Value> {
    if c.shape(v)?.iter().all(|d| *d == Dim::ONE) {
        return Ok(c.b.reshape(v, vec![Dim::ONE; rank])?);
    }
    if c.rank(v)? != 1 {
        return invalid(format!("{} should have one dim", c.ty(v)?));
    }
    c.spread(v, &[axis], rank)
}
