//! Sign, absolute value, minimum and maximum, and integer ops with their corner cases.

use frit_ir::{BinaryOp, DType};

use super::{Machine, Val, is_signed};
use crate::kernel::Scalar;

/// -1, 0 or 1; of floats zeros and NaN stay.
pub(super) fn sign<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let zero = x.like(0);
    let above = zero.lt(x);
    match (x.dtype().is_float(), is_signed(x.dtype())) {
        (true, _) => above.select(x.like(1), x.lt(zero).select(x.like(-1), x)),
        (false, true) => above.select(x.like(1), x.lt(zero).select(x.like(-1), zero)),
        (false, false) => above.select(x.like(1), zero),
    }
}

/// |x| of integers; the smallest stays.
pub(super) fn abs<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    if is_signed(x.dtype()) { x.lt(x.like(0)).select(-x, x) } else { x }
}

/// A constant operand that is neither NaN nor zero.
fn plain_constant<M: Machine>(x: Val<'_, M>) -> bool {
    x.known().is_some_and(|s| !s.is_nan() && !is_zero(s))
}

fn is_zero(s: Scalar) -> bool {
    match s.dtype {
        DType::F32 => s.to_f32() == 0.0,
        DType::F64 => s.to_f64() == 0.0,
        _ => s.bits == 0,
    }
}

fn is_positive_zero<M: Machine>(x: Val<'_, M>) -> bool {
    x.known().is_some_and(|s| s.bits == 0)
}

/// The smaller; NaN when either is; -0 below +0. Against a constant c it is cheaper than the primitive: `c < x ? c : x`
/// lets a NaN x through.
pub(super) fn minimum<'m, M: Machine>(a: Val<'m, M>, b: Val<'m, M>) -> Val<'m, M> {
    for (c, x) in [(b, a), (a, b)] {
        if plain_constant(c) || is_positive_zero(c) {
            return c.lt(x).select(c, x);
        }
    }
    a.binary(BinaryOp::Min, b)
}

/// The larger; NaN when either is; -0 below +0. As for [`minimum`].
pub(super) fn maximum<'m, M: Machine>(a: Val<'m, M>, b: Val<'m, M>) -> Val<'m, M> {
    for (c, x) in [(b, a), (a, b)] {
        if plain_constant(c) {
            return x.lt(c).select(c, x);
        }
        if is_positive_zero(c) {
            // The sum makes -0 into +0 and changes nothing else.
            return x.lt(c).select(c, x) + c;
        }
    }
    a.binary(BinaryOp::Max, b)
}

/// Ops on bool beyond and, or, xor, eq: min is and, max is or, false is below true.
pub(super) fn logical<'m, M: Machine>(op: BinaryOp, a: Val<'m, M>, b: Val<'m, M>) -> Option<Val<'m, M>> {
    match op {
        BinaryOp::Min => Some(a & b),
        BinaryOp::Max => Some(a | b),
        BinaryOp::Lt => Some(a.not() & b),
        BinaryOp::Le => Some(a.not() | b),
        _ => None,
    }
}

/// Integer ops whose primitive does not take every operand.
pub(super) fn integer<'m, M: Machine>(op: BinaryOp, a: Val<'m, M>, b: Val<'m, M>) -> Option<Val<'m, M>> {
    let zero = b.like(0);
    let (signed, divisor) = (is_signed(b.dtype()), b.known().map(Scalar::to_int));
    match op {
        BinaryOp::Min => Some(a.lt(b).select(a, b)),
        BinaryOp::Max => Some(b.lt(a).select(a, b)),
        BinaryOp::Div | BinaryOp::Rem if divisor.is_some_and(|d| d != 0 && (d != -1 || !signed)) => {
            Some(a.binary(op, b))
        }
        BinaryOp::Div => {
            let one = b.like(1);
            let by_zero = b.eq(zero);
            if !signed {
                return Some(by_zero.select(zero, a / by_zero.select(one, b)));
            }
            // The smallest number by -1 wraps to itself, as its negation does.
            let by_minus = b.eq(b.like(-1));
            let quotient = a / (by_zero | by_minus).select(one, b);
            Some(by_zero.select(zero, by_minus.select(-a, quotient)))
        }
        BinaryOp::Rem => {
            // Any number by 1 leaves 0, which is also right by -1.
            let guarded = if signed { b.eq(zero) | b.eq(b.like(-1)) } else { b.eq(zero) };
            Some(a.binary(op, guarded.select(b.like(1), b)))
        }
        BinaryOp::Shl | BinaryOp::Shr => {
            let bits = i64::from(b.dtype().bits());
            if divisor.is_some_and(|d| (0..i128::from(bits)).contains(&d)) {
                return Some(a.binary(op, b));
            }
            let count = b & b.like(bits - 1);
            let inside = b.eq(count);
            Some(match (op, signed) {
                (BinaryOp::Shr, true) => a.binary(op, inside.select(count, b.like(bits - 1))),
                _ => inside.select(a.binary(op, count), zero),
            })
        }
        _ => None,
    }
}
