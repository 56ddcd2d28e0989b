//! exp, expm1, log, log1p, tanh of f32.

use frit_ir::DType;

use super::coefficients::{EXP, EXP_FAST, EXPM1, LN2, LN2_TWICE, LOG, LOG2E, TANH};
use super::{Machine, Val, poly};

/// Added to a small float, it rounds it to an integer that stands in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0; // 1.5 * 2^23

/// x = n ln 2 + r with n whole: r, and the bits of n + `bias` in the low bits of an i32.
fn reduce<'m, M: Machine>(x: Val<'m, M>, bias: f32) -> (Val<'m, M>, Val<'m, M>) {
    let shifted = x.fma(x.f32(LOG2E[0]), x.f32(ROUNDER + bias));
    let n = shifted - (ROUNDER + bias);
    let r = n.fma(x.f32(-LN2[1]), n.fma(x.f32(-LN2[0]), x));
    (r, shifted.bits())
}

/// e^x, 13 primitives fast (clamps count one), 16 strict.
///
/// Fast: e^x = (2 e^r) 2^(n-1), the power made by shifting n into the exponent. At the lower clamp the exponent field
/// is 0, so small results (below 2^-125) become 0; at the upper one the product overflows to infinity.
/// Strict: x = 2 n ln 2 + r, e^x = e^r 2^n 2^n, whose last product alone rounds, also to subnormal numbers.
pub(super) fn exp<'m, M: Machine>(x: Val<'m, M>, fast: bool) -> Val<'m, M> {
    if fast {
        let x = x.at_least(-87.3).at_most(89.0);
        let (r, n) = reduce(x, 126.0);
        return poly(r, &EXP_FAST) * (n << 23).float();
    }
    let x = x.at_least(-105.0).at_most(89.0);
    let bias = ROUNDER + 127.0;
    let shifted = x.fma(x.f32(LOG2E[0] / 2.0), x.f32(bias));
    let n = shifted - bias;
    let r = n.fma(x.f32(-LN2_TWICE[1]), n.fma(x.f32(-LN2_TWICE[0]), x));
    let scale = (shifted.bits() << 23).float();
    one_plus(r, &EXP) * scale * scale
}

/// e^x for -87 < x < 88, without clamps.
pub(super) fn exp_inside<'m, M: Machine>(x: Val<'m, M>, fast: bool) -> Val<'m, M> {
    if fast {
        let (r, n) = reduce(x, 126.0);
        return poly(r, &EXP_FAST) * (n << 23).float();
    }
    let (r, n) = reduce(x, 127.0);
    one_plus(r, &EXP) * (n << 23).float()
}

/// 1 + x poly(x).
fn one_plus<'m, M: Machine>(x: Val<'m, M>, coefficients: &[f32]) -> Val<'m, M> {
    poly(x, coefficients).fma(x, x.f32(1.0))
}

/// e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2); halves, so that n = 128 does not overflow early.
pub(super) fn expm1<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let inside = x.at_least(-17.5).at_most(89.0);
    let (r, n) = reduce(inside, 126.0);
    let p = (r * r).fma(poly(r, &EXPM1), r);
    let half_power = (n << 23).float();
    let half = half_power.fma(p, half_power - 0.5);
    (half + half).or_sign(x)
}

/// u = 2^k m with sqrt(1/2) <= m < sqrt(2), for positive normal u: k as an i32, m - 1.
pub(super) fn split<'m, M: Machine>(u: Val<'m, M>) -> (Val<'m, M>, Val<'m, M>) {
    let bits = u.bits();
    let k = (bits - 0x3f35_04f3) >> 23;
    (k, (bits - (k << 23)).float() - 1.0)
}

/// e ln 2 + ln(1 + f).
fn log_of<'m, M: Machine>(e: Val<'m, M>, f: Val<'m, M>) -> Val<'m, M> {
    e.fma(f.f32(LN2[0]), (f * f).fma(poly(f, &LOG), f))
}

/// ln of u = result for u > 0, -inf for 0, NaN below; infinity and NaN stay.
fn log_specials<'m, M: Machine>(u: Val<'m, M>, result: Val<'m, M>) -> Val<'m, M> {
    let zero = u.f32(0.0);
    let result = u.lt(u.f32(f32::INFINITY)).select(result, u);
    zero.lt(u).select(result, u.eq(zero).select(u.f32(f32::NEG_INFINITY), u.f32(f32::NAN)))
}

/// ln x; subnormal numbers are scaled by 2^23 first.
pub(super) fn log<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let tiny = x.lt(x.f32(f32::MIN_POSITIVE));
    let (k, f) = split(tiny.select(x * 8_388_608.0, x));
    let e = k.to(DType::F32, false) + tiny.select(x.f32(-23.0), x.f32(0.0));
    log_specials(x, log_of(e, f))
}

/// ln(1 + x): u = 1 + x rounded, and what the rounding lost is added to m - 1 at its scale.
pub(super) fn log1p<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let one = x.f32(1.0);
    let u = x + one;
    let seen = u - one;
    let lost = (one - (u - seen)) + (x - seen);
    let (k, f) = split(u);
    // Half of what was lost times 2^(1-k): k may be 128.
    let scale = ((x.i32(128) - k) << 23).float();
    let lost = lost * 0.5;
    log_specials(u, log_of(k.to(DType::F32, false), lost.fma(scale, f))).or_sign(x)
}

/// tanh x = x + x^3 P(x^2) below 0.8, else 1 - 2 / (e^(2|x|) + 1).
pub(super) fn tanh<'m, M: Machine>(x: Val<'m, M>, fast: bool) -> Val<'m, M> {
    let a = x.abs();
    let z = x * x;
    let near = (x * z).fma(poly(z, &TANH), x);
    let capped = a.at_most(10.0);
    let e = exp_inside(capped + capped, fast);
    let far = x.f32(1.0) - x.f32(2.0) / (e + 1.0);
    // The sign of `near` is that of x but for -0.
    a.lt(x.f32(0.8)).select(near, far).or_sign(x)
}
