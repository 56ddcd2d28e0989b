//! pow of f32: 2^(y log2 |x|), the logarithm and the product as unevaluated sums of two f32.

use frit_ir::{DType, UnaryOp};

use super::coefficients::{ATANH, EXP2, LOG2E, THIRD};
use super::exponential::split;
use super::{Machine, Val, poly};

/// high + low, |low| at most half an ulp of high or little more.
struct Sum<'m, M: Machine> {
    high: Val<'m, M>,
    low: Val<'m, M>,
}

/// a b exactly.
fn product<'m, M: Machine>(a: Val<'m, M>, b: Val<'m, M>) -> Sum<'m, M> {
    let high = a * b;
    Sum { high, low: a.fma(b, -high) }
}

/// a + b exactly, for |a| >= |b| or a = 0.
fn sum<'m, M: Machine>(a: Val<'m, M>, b: Val<'m, M>) -> Sum<'m, M> {
    let high = a + b;
    Sum { high, low: b - (high - a) }
}

/// log2 a to about 2^-42, for finite a > 0: a = 2^k m, s = (m - 1) / (m + 1), ln m = 2 s (1 + s^2/3 + ..).
fn log2<'m, M: Machine>(a: Val<'m, M>) -> Sum<'m, M> {
    let tiny = a.lt(a.f32(f32::MIN_POSITIVE));
    let (k, f) = split(tiny.select(a * 8_388_608.0, a));
    let k = k.to(DType::F32, false) + tiny.select(a.f32(-23.0), a.f32(0.0));

    let below = sum(f.f32(2.0), f);
    let s = f / below.high;
    let rest = (-s).fma(below.low, (-s).fma(below.high, f));
    let s_low = rest / below.high;

    let z = product(s, s);
    let z_low = (s + s).fma(s_low, z.low);
    let third = product(z.high, z.high.f32(THIRD[0]));
    let tail = z.high * z.high * poly(z.high, &ATANH);
    let third_low = z.high.fma(f.f32(THIRD[1]), z_low.fma(f.f32(THIRD[0]), third.low)) + tail;

    let cubic = product(s, third.high);
    let series = sum(s, cubic.high);
    let series_low = series.low + (s.fma(third_low, s_low.fma(third.high, cubic.low)) + s_low);

    let scaled = product(series.high, f.f32(2.0 * LOG2E[0]));
    let scaled_low = series.high.fma(f.f32(2.0 * LOG2E[1]), series_low.fma(f.f32(2.0 * LOG2E[0]), scaled.low));
    let total = sum(k, scaled.high);
    Sum { high: total.high, low: total.low + scaled_low }
}

/// 2^(high + low), for any high: beyond 160 it overflows, below -160 it is 0.
fn exp2<'m, M: Machine>(x: Sum<'m, M>) -> Val<'m, M> {
    let low = x.high.abs().lt(x.low.f32(160.0)).select(x.low, x.low.f32(0.0));
    let high = x.high.at_least(-160.0).at_most(160.0);
    let n = high.unary(UnaryOp::RoundEven);
    let r = (high - n) + low;
    let power = poly(r, &EXP2).fma(r, r.f32(1.0));
    let n = n.to(DType::I32, false);
    let half = n >> 1;
    let scale = |n: Val<'m, M>| ((n + 127) << 23).float();
    power * scale(half) * scale(n - half)
}

/// x^y with the special values of C's pow.
pub(super) fn pow<'m, M: Machine>(x: Val<'m, M>, y: Val<'m, M>) -> Val<'m, M> {
    let (zero, one, infinity) = (x.f32(0.0), x.f32(1.0), x.f32(f32::INFINITY));
    let a = x.abs();
    let log = log2(a);
    let high = a.eq(zero).select(-infinity, a.eq(infinity).select(infinity, log.high));
    let exponent = product(y, high);
    let magnitude = exp2(Sum { high: exponent.high, low: y.fma(log.low, exponent.low) });

    let whole = y.unary(UnaryOp::Trunc).eq(y);
    let half = y * 0.5;
    let odd = whole & half.unary(UnaryOp::Trunc).eq(half).not();
    let signed = odd.select(magnitude.or_sign(x), magnitude);
    let undefined = x.lt(zero) & a.lt(infinity) & whole.not();
    let result = undefined.select(x.f32(f32::NAN), signed);
    let result = (x.eq(x) & y.eq(y)).select(result, x + y);
    let is_one = x.eq(one) | y.eq(zero) | (a.eq(one) & y.abs().eq(infinity));
    is_one.select(one, result)
}
