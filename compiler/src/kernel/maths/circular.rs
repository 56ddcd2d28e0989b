//! sin, cos, tan of f32.
//!
//! |x| = n pi/2 + r with |r| <= pi/4: pi/2 is a sum of three f32, each product exact under fma (Cody and Waite), which
//! is good up to [`LIMIT`]. Beyond, the result comes from the f64 function: a slow lane that programs rarely enter.

use frit_ir::UnaryOp;

use super::coefficients::{COS, PI_HALF, SIN, TAN, TWO_OVER_PI};
use super::{Machine, Val, poly};

/// Largest |x| whose reduction is good.
const LIMIT: f32 = 65536.0;

/// As in the exponentials: rounds, and leaves the integer in the low bits.
const ROUNDER: f32 = 12_582_912.0;

struct Reduced<'m, M: Machine> {
    /// Whether |x| is within the limit; NaN is not.
    ok: Val<'m, M>,
    /// n in the low bits.
    n: Val<'m, M>,
    r: Val<'m, M>,
}

fn reduce<'m, M: Machine>(x: Val<'m, M>) -> Reduced<'m, M> {
    let a = x.abs();
    let shifted = a.fma(x.f32(TWO_OVER_PI), x.f32(ROUNDER));
    let n = shifted - ROUNDER;
    let r = PI_HALF.iter().fold(a, |r, part| n.fma(x.f32(-part), r));
    Reduced { ok: a.le(x.f32(LIMIT)), n: shifted.bits(), r }
}

fn odd<'m, M: Machine>(n: Val<'m, M>) -> Val<'m, M> {
    (n & 1).eq(n.i32(1))
}

/// sin and cos of r.
fn both<'m, M: Machine>(r: Val<'m, M>) -> (Val<'m, M>, Val<'m, M>) {
    let z = r * r;
    let sin = (r * z).fma(poly(z, &SIN), r);
    let cos = (z * z).fma(poly(z, &COS), z.fma(z.f32(-0.5), z.f32(1.0)));
    (sin, cos)
}

pub(super) fn sin<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let Reduced { ok, n, r } = reduce(x);
    let (sin, cos) = both(r);
    // Quadrants 2 and 3 flip the sign: bit 1 of n, moved to bit 31.
    let magnitude = odd(n).select(cos, sin);
    let value = magnitude.xor_sign((n << 30).float()).xor_sign(x);
    value.rescue(ok, UnaryOp::Sin, x)
}

pub(super) fn cos<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let Reduced { ok, n, r } = reduce(x);
    let (sin, cos) = both(r);
    let value = odd(n).select(sin, cos).xor_sign(((n + 1) << 30).float());
    value.rescue(ok, UnaryOp::Cos, x)
}

/// tan r, or -1 / tan r for odd n. The quotient would add to the rounding of r, so r here is r + `low`, the part that
/// its rounding lost.
pub(super) fn tan<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let a = x.abs();
    let shifted = a.fma(x.f32(TWO_OVER_PI), x.f32(ROUNDER));
    let (whole, n, ok) = (shifted - ROUNDER, shifted.bits(), a.le(x.f32(LIMIT)));
    // Exact: the first two parts of pi/2 leave first + second + lost.
    let first = whole.fma(x.f32(-PI_HALF[0]), a);
    let second = whole * x.f32(-PI_HALF[1]);
    let lost = whole.fma(x.f32(-PI_HALF[1]), -second);
    let r = first + second;
    let seen = r - first;
    let dropped = (first - (r - seen)) + (second - seen);
    let low = whole.fma(x.f32(-PI_HALF[2]), dropped + lost);
    let z = r * r;
    // tan' = 1 + tan^2, near enough 1 + r^2 for so small a term.
    let t = (r * z).fma(poly(z, &TAN), z.fma(low, low)) + r;
    let value = odd(n).select(x.f32(-1.0) / t, t).xor_sign(x);
    value.rescue(ok, UnaryOp::Tan, x)
}
