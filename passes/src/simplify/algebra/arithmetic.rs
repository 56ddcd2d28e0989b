//! Elementwise identities.
//!
//! What holds bit for bit: x 1, x / 1, x - 0, x + (-0), double negation, a division by a power of two (both sides are
//! one rounding of the same number). What does not, and is fast only: x + 0 (-0 + 0 is 0). What never is here: x - x
//! and x 0, because of NaN and infinity.

use frit_ir::op::BinaryOp;
use frit_ir::types::Class;
use frit_ir::{DType, NodeId, Op, UnaryOp, Value};

use super::movement::input;
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("mul-one", "x 1 = x", "a constant 1", Strict Algebra Bits, |s, id| neutral(s, id, BinaryOp::Mul, 1.0), |b| {
        let (x, one) = (input(b, &[3]), b.scalar(DType::F32, 1.0)?);
        Ok(vec![b.binary(BinaryOp::Mul, x, one)?])
    }),
    rule!("div-one", "x / 1 = x", "a constant 1", Strict Algebra Bits, |s, id| right(s, id, BinaryOp::Div, 1.0), |b| {
        let (x, one) = (input(b, &[3]), b.scalar(DType::F32, 1.0)?);
        Ok(vec![b.binary(BinaryOp::Div, x, one)?])
    }),
    rule!("sub-zero", "x - 0 = x", "a constant +0", Strict Algebra Bits, |s, id| right(s, id, BinaryOp::Sub, 0.0), |b| {
        let (x, zero) = (input(b, &[3]), b.scalar(DType::F32, 0.0)?);
        Ok(vec![b.binary(BinaryOp::Sub, x, zero)?])
    }),
    rule!("add-minus-zero", "x + -0 = x", "a constant -0", Strict Algebra Bits,
        |s, id| neutral(s, id, BinaryOp::Add, -0.0), |b| {
        let (x, zero) = (input(b, &[3]), b.scalar(DType::F32, -0.0)?);
        Ok(vec![b.binary(BinaryOp::Add, x, zero)?])
    }),
    rule!("add-zero-int", "x + 0 = x", "integers", Strict Algebra Bits, add_zero_int, |b| {
        let (x, zero) = (input(b, &[3]), b.scalar(DType::I32, 0.0)?);
        let x = b.cast(x, DType::I32)?;
        Ok(vec![b.binary(BinaryOp::Add, x, zero)?])
    }),
    rule!("add-zero", "x + 0 = x", "floats; -0 becomes 0 on the left", Reassociate Algebra Rounding, add_zero, |b| {
        let (x, zero) = (input(b, &[3]), b.scalar(DType::F32, 0.0)?);
        Ok(vec![b.binary(BinaryOp::Add, x, zero)?])
    }),
    rule!("mul-minus-one", "x (-1) = -x", "a constant -1", Strict Algebra Bits, mul_minus_one, |b| {
        let (x, c) = (input(b, &[3]), b.scalar(DType::F32, -1.0)?);
        Ok(vec![b.binary(BinaryOp::Mul, x, c)?])
    }),
    rule!("div-power-of-two", "x / c = x (1/c)", "c is a power of two with a normal reciprocal", Strict Algebra Bits,
        |s, id| reciprocal(s, id, true), |b| {
        let (x, c) = (input(b, &[3]), b.scalar(DType::F32, 8.0)?);
        Ok(vec![b.binary(BinaryOp::Div, x, c)?])
    }),
    rule!("div-constant", "x / c = x (1/c)", "c is a constant with a normal reciprocal", Approximate Algebra Rounding,
        |s, id| reciprocal(s, id, false), |b| {
        let (x, c) = (input(b, &[3]), b.scalar(DType::F32, 3.0)?);
        Ok(vec![b.binary(BinaryOp::Div, x, c)?])
    }),
    rule!("neg-neg", "-(-x) = x", "always", Strict Algebra Bits, |s, id| twice(s, id, UnaryOp::Neg), |b| {
        let x = input(b, &[3]);
        let y = b.unary(UnaryOp::Neg, x)?;
        Ok(vec![b.unary(UnaryOp::Neg, y)?])
    }),
    rule!("not-not", "not(not x) = x", "always", Strict Algebra Bits, |s, id| twice(s, id, UnaryOp::Not), |b| {
        let x = input(b, &[3]);
        let m = b.binary(BinaryOp::Lt, x, x)?;
        let y = b.unary(UnaryOp::Not, m)?;
        Ok(vec![b.unary(UnaryOp::Not, y)?])
    }),
    rule!("abs-of-sign", "|-x| = |x|, ||x|| = |x|", "not of unsigned integers", Strict Algebra Bits, abs_of_sign, |b| {
        let x = input(b, &[3]);
        let y = b.unary(UnaryOp::Neg, x)?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("add-neg", "a + (-b) = a - b, a - (-b) = a + b", "always", Strict Algebra Bits, add_neg, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let n = b.unary(UnaryOp::Neg, y)?;
        Ok(vec![b.binary(BinaryOp::Add, x, n)?, b.binary(BinaryOp::Sub, x, n)?])
    }),
    rule!("same-operands", "min(x, x) = max(x, x) = x and x = x or x = x", "always", Strict Algebra Bits, same_operands, |b| {
        let x = input(b, &[3]);
        Ok(vec![b.binary(BinaryOp::Max, x, x)?])
    }),
    rule!("select-same", "select(c, x, x) = x", "always", Strict Algebra Bits, select_same, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let c = b.binary(BinaryOp::Lt, x, y)?;
        Ok(vec![b.select(c, y, y)?])
    }),
    rule!("add-of-masked", "x + select(c, y, 0) = select(c, x + y, x)", "floats; -0 becomes 0 on the left; the select is used once",
        Reassociate Strength Rounding, add_of_masked, |b| {
        let (x, y, z) = (input(b, &[3]), input(b, &[3]), input(b, &[3]));
        let (c, zero) = (b.binary(BinaryOp::Lt, x, z)?, b.scalar(DType::F32, 0.0)?);
        let masked = b.select(c, y, zero)?;
        Ok(vec![b.binary(BinaryOp::Add, x, masked)?])
    }),
    rule!("select-constant", "select(true, a, b) = a, select(false, a, b) = b", "the condition is one constant",
        Strict Algebra Bits, select_constant, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let c = b.scalar(DType::Bool, 1.0)?;
        Ok(vec![b.select(c, x, y)?])
    }),
    rule!("select-not", "select(not c, a, b) = select(c, b, a)", "neither side is the likely one", Strict Algebra Bits, select_not, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let c = b.binary(BinaryOp::Lt, x, y)?;
        let n = b.unary(UnaryOp::Not, c)?;
        Ok(vec![b.select(n, x, y)?])
    }),
    rule!("select-min-max", "select(a < b, a, b) = min(a, b), select(a < b, b, a) = max(a, b)",
        "integers; floats differ at NaN and -0", Strict Algebra Bits, select_min_max, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let (x, y) = (b.cast(x, DType::I32)?, b.cast(y, DType::I32)?);
        let c = b.binary(BinaryOp::Lt, x, y)?;
        Ok(vec![b.select(c, x, y)?, b.select(c, y, x)?])
    }),
    rule!("cast-identity", "cast(x) = x", "x has that type", Strict Algebra Bits, cast_identity, |b| {
        let x = input(b, &[3]);
        let y = b.op(Op::Cast { to: DType::F32, saturate: false }, &[x])?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("cast-of-widening", "cast(cast(x, wide), to) = cast(x, to)", "the wide type holds every x exactly",
        Strict Algebra Bits, cast_of_widening, |b| {
        let x = input(b, &[3]);
        let y = b.cast(x, DType::F64)?;
        Ok(vec![b.cast(y, DType::I32)?])
    }),
];

fn is_float(s: &Scope<'_>, id: NodeId) -> bool {
    s.result(id).is_some_and(|t| t.dtype.is_float())
}

fn same(x: Value) -> Outcome {
    found([], move |_| Ok(x))
}

/// op(x, c) or op(c, x) is x.
fn neutral(s: &Scope<'_>, id: NodeId, op: BinaryOp, c: f64) -> Outcome {
    match s.binary(id, op) {
        Some((x, y)) if s.is_number(y, c) => same(x),
        Some((x, y)) if s.is_number(x, c) => same(y),
        Some(_) | None => Outcome::No,
    }
}

/// op(x, c) is x.
fn right(s: &Scope<'_>, id: NodeId, op: BinaryOp, c: f64) -> Outcome {
    match s.binary(id, op) {
        Some((x, y)) if s.is_number(y, c) => same(x),
        Some(_) | None => Outcome::No,
    }
}

fn add_zero_int(s: &Scope<'_>, id: NodeId) -> Outcome {
    if is_float(s, id) { Outcome::No } else { neutral(s, id, BinaryOp::Add, 0.0) }
}

fn add_zero(s: &Scope<'_>, id: NodeId) -> Outcome {
    if is_float(s, id) { neutral(s, id, BinaryOp::Add, 0.0) } else { Outcome::No }
}

fn mul_minus_one(s: &Scope<'_>, id: NodeId) -> Outcome {
    let signed = s.result(id).is_some_and(|t| matches!(t.dtype.class(), Class::Float | Class::Signed));
    let x = match s.binary(id, BinaryOp::Mul) {
        Some((x, y)) if signed && s.is_number(y, -1.0) => x,
        Some((x, y)) if signed && s.is_number(x, -1.0) => y,
        Some(_) | None => return Outcome::No,
    };
    found([], move |b| b.unary(UnaryOp::Neg, x))
}

fn reciprocal(s: &Scope<'_>, id: NodeId, exact: bool) -> Outcome {
    let (Some((x, c)), Some(ty)) = (s.binary(id, BinaryOp::Div), s.result(id)) else { return Outcome::No };
    let Some(number) = s.number(c).filter(|n| *n != 0.0 && n.is_finite()) else { return Outcome::No };
    let inverse = 1.0 / number;
    // Normal in the type itself, with room: halves keep to its exponents too.
    let (low, high) = match ty.dtype {
        DType::F64 => (f64::MIN_POSITIVE, f64::MAX),
        DType::F32 => (f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)),
        DType::F16 => (6.103_515_625e-5, 65_504.0),
        DType::BF16 => (f64::from(f32::MIN_POSITIVE), 3.389e38),
        _ => return Outcome::No,
    };
    if !(low..=high).contains(&inverse.abs()) {
        return Outcome::Near("the reciprocal is not a normal number");
    }
    let power_of_two = number.to_bits() & ((1 << 52) - 1) == 0;
    if power_of_two != exact {
        return Outcome::No;
    }
    let (dtype, dims) = (ty.dtype, ty.dims.clone());
    found([c], move |b| {
        let scalar = b.scalar(dtype, inverse)?;
        let factor = b.broadcast_to(scalar, dims)?;
        b.binary(BinaryOp::Mul, x, factor)
    })
}

fn twice(s: &Scope<'_>, id: NodeId, op: UnaryOp) -> Outcome {
    let inner = s.unary(Value { node: id, result: 0 }, op);
    match inner.and_then(|inner| Some((inner, s.unary(inner, op)?))) {
        Some((inner, x)) => found([inner], move |_| Ok(x)),
        None => Outcome::No,
    }
}

fn abs_of_sign(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some(inner) = s.unary(Value { node: id, result: 0 }, UnaryOp::Abs) else { return Outcome::No };
    if s.ty(inner).is_none_or(|t| t.dtype.class() == Class::Unsigned) {
        return Outcome::No;
    }
    let x = s.unary(inner, UnaryOp::Neg).or_else(|| s.unary(inner, UnaryOp::Abs));
    match x {
        Some(x) => found([inner], move |b| b.unary(UnaryOp::Abs, x)),
        None => Outcome::No,
    }
}

fn add_neg(s: &Scope<'_>, id: NodeId) -> Outcome {
    let rows = [(BinaryOp::Add, BinaryOp::Sub), (BinaryOp::Sub, BinaryOp::Add)];
    for (op, other) in rows {
        let Some((x, y)) = s.binary(id, op) else { continue };
        if let Some(n) = s.unary(y, UnaryOp::Neg) {
            return found([y], move |b| b.binary(other, x, n));
        }
        if op == BinaryOp::Add
            && let Some(n) = s.unary(x, UnaryOp::Neg)
        {
            return found([x], move |b| b.binary(other, y, n));
        }
    }
    Outcome::No
}

fn same_operands(s: &Scope<'_>, id: NodeId) -> Outcome {
    let ops = [BinaryOp::Min, BinaryOp::Max, BinaryOp::And, BinaryOp::Or];
    match ops.iter().find_map(|op| s.binary(id, *op)) {
        Some((x, y)) if x == y => same(x),
        Some(_) | None => Outcome::No,
    }
}

fn select_of(s: &Scope<'_>, id: NodeId) -> Option<(Value, Value, Value)> {
    match (&s.f.node(id).op, s.f.node(id).operands()) {
        (Op::Select { .. }, [c, a, b]) => Some((*c, *a, *b)),
        _ => None,
    }
}

fn select_same(s: &Scope<'_>, id: NodeId) -> Outcome {
    match select_of(s, id) {
        Some((_, a, b)) if a == b => same(a),
        Some(_) | None => Outcome::No,
    }
}

fn select_constant(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((c, a, b)) = select_of(s, id) else { return Outcome::No };
    match s.splat(c) {
        Some((_, bytes)) => same(if bytes == [0] { b } else { a }),
        None => Outcome::No,
    }
}

fn select_not(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((c, a, b)) = select_of(s, id) else { return Outcome::No };
    let likely = matches!(s.f.node(id).op, Op::Select { likely } if likely.0);
    match s.unary(c, UnaryOp::Not) {
        Some(_) if likely => Outcome::Near("its first side is the likely one"),
        Some(inner) => found([c], move |build| build.select(inner, b, a)),
        None => Outcome::No,
    }
}

fn select_min_max(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((c, a, b)) = select_of(s, id) else { return Outcome::No };
    let compared = s.binary(c.node, BinaryOp::Lt).or_else(|| s.binary(c.node, BinaryOp::Le));
    let op = match compared {
        Some(pair) if pair == (a, b) => BinaryOp::Min,
        Some(pair) if pair == (b, a) => BinaryOp::Max,
        Some(_) | None => return Outcome::No,
    };
    if is_float(s, id) {
        return Outcome::Near("floats differ at NaN and -0");
    }
    found([c], move |build| build.binary(op, a, b))
}

fn cast_identity(s: &Scope<'_>, id: NodeId) -> Outcome {
    match (&s.f.node(id).op, s.operand(id, 0)) {
        (Op::Cast { .. } | Op::Bitcast { .. }, Some(x)) if s.ty(x) == s.result(id) => same(x),
        _ => Outcome::No,
    }
}

/// Whether `wide` holds every value of `narrow` exactly.
fn holds(narrow: DType, wide: DType) -> bool {
    if narrow.is_storage_only() || wide.is_storage_only() {
        return false;
    }
    match (narrow.class(), wide.class()) {
        (Class::Bool, Class::Float | Class::Signed | Class::Unsigned) => true,
        (Class::Unsigned, Class::Unsigned) | (Class::Signed, Class::Signed) => wide.bits() >= narrow.bits(),
        (Class::Unsigned, Class::Signed) => wide.bits() > narrow.bits(),
        (Class::Float, Class::Float) => wide.bits() > narrow.bits(),
        _ => false,
    }
}

fn cast_of_widening(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Cast { to, saturate }, Some(middle)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let (Op::Cast { to: wide, .. }, Some(x)) = (&s.node(middle).op, s.operand(middle.node, 0)) else {
        return Outcome::No;
    };
    if !s.ty(x).is_some_and(|t| holds(t.dtype, *wide)) {
        return Outcome::No;
    }
    let op = Op::Cast { to: *to, saturate: *saturate };
    found([middle], move |b| b.op(op, &[x]))
}

fn add_of_masked(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((a, b)) = s.binary(id, BinaryOp::Add).filter(|_| s.result(id).is_some_and(|t| t.dtype.is_float())) else {
        return Outcome::No;
    };
    for (x, masked) in [(a, b), (b, a)] {
        let node = s.node(masked);
        let (Op::Select { likely }, [c, y, zero]) = (&node.op, node.operands()) else { continue };
        if likely.0 || s.number(*zero) != Some(0.0) || !s.single_use(masked) || s.dims(*c) != s.dims(x) {
            continue;
        }
        let (c, y) = (*c, *y);
        return found([masked], move |b| {
            let sum = b.binary(BinaryOp::Add, x, y)?;
            b.select(c, sum, x)
        });
    }
    Outcome::No
}
