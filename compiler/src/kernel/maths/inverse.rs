//! asin, acos, atan, atan2 of f32.

use super::coefficients::{ASIN, ATAN, PI_HALF, PI_QUARTER};
use super::{Machine, Val, poly};

/// What asin and acos share: |x| > 1/2, and asin of s = |x| or, when far, of sqrt((1 - |x|) / 2), as s + rest.
struct ArcSine<'m, M: Machine> {
    far: Val<'m, M>,
    s: Val<'m, M>,
    rest: Val<'m, M>,
}

fn arc_sine<'m, M: Machine>(x: Val<'m, M>) -> ArcSine<'m, M> {
    let a = x.abs();
    let far = x.f32(0.5).lt(a);
    // (1 - a) / 2 is exact for a >= 1/2.
    let z = far.select((x.f32(1.0) - a) * 0.5, a * a);
    let s = far.select(z.sqrt(), a);
    ArcSine { far, s, rest: s * z * poly(z, &ASIN) }
}

/// asin x = pi/2 - 2 asin(sqrt((1 - x) / 2)) above 1/2. Outside [-1, 1] the root is NaN.
pub(super) fn asin<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let ArcSine { far, s, rest } = arc_sine(x);
    let minus_two = x.f32(-2.0);
    // pi/2 - 2 s is nearly exact; small terms are added to it at last.
    let lead = far.select(s.fma(minus_two, x.f32(PI_HALF[0])), s);
    let small = far.select(rest.fma(minus_two, x.f32(PI_HALF[1])), rest);
    (lead + small).or_sign(x)
}

/// acos x = 2 asin(sqrt((1 - x) / 2)) above 1/2, pi minus that below -1/2, else pi/2 - asin x.
pub(super) fn acos<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let ArcSine { far, s, rest } = arc_sine(x);
    let angle = s + rest;
    let twice = angle + angle;
    let negative = x.lt(x.f32(0.0));
    let below = x.f32(2.0 * PI_HALF[0]) - (twice - (2.0 * PI_HALF[1]));
    let near = x.f32(PI_HALF[0]) - (angle.xor_sign(x) - PI_HALF[1]);
    far.select(negative.select(below, twice), near)
}

/// k pi/4 + sign atan(t), |t| <= 1/2, where `sign` is 1 or -1.
fn arc<'m, M: Machine>(k: Val<'m, M>, sign: Val<'m, M>, t: Val<'m, M>) -> Val<'m, M> {
    let z = t * t;
    let angle = (t * z).fma(poly(z, &ATAN), t) * sign;
    k.fma(k.f32(PI_QUARTER[0]), k.fma(k.f32(PI_QUARTER[1]), angle))
}

/// Ratios from which (a - 1) / (a + 1) is used; a - 1 is exact from there on.
const MIDDLE: f32 = 0.5;

/// atan of |x|: t = x, (x - 1) / (x + 1) around 1, -1 / x above tan(3 pi/8), with 0, 1, 2 times pi/4 added.
pub(super) fn atan<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let (a, zero, one) = (x.abs(), x.f32(0.0), x.f32(1.0));
    let middle = x.f32(MIDDLE).lt(a);
    let high = x.f32(2.414_213_7).lt(a);
    let above = high.select(x.f32(-1.0), a - one);
    let below = high.select(a, a + one);
    let t = middle.select(above, a) / middle.select(below, one);
    let k = high.select(x.f32(2.0), middle.select(one, zero));
    arc(k, one, t).or_sign(x)
}

/// The angle of (x, y), of the quotient of the smaller by the larger magnitude, moved to its octant.
pub(super) fn atan2<'m, M: Machine>(y: Val<'m, M>, x: Val<'m, M>) -> Val<'m, M> {
    let (zero, one, infinity) = (x.f32(0.0), x.f32(1.0), x.f32(f32::INFINITY));
    let (ax, ay) = (x.abs(), y.abs());
    let swap = ax.lt(ay);
    let (low, high) = (swap.select(ax, ay), swap.select(ay, ax));
    // Both infinite stand for (1, 1), one for (0, 1), both zero for (0, 1): ratios with the same angle.
    let endless = high.eq(infinity);
    let low = endless.select(low.eq(infinity).select(one, zero), low);
    let high = (endless | high.eq(zero)).select(one, high);
    // Scaled so that neither sum overflows nor difference loses bits below the normal numbers.
    let scale = high.lt(x.f32(1e10)).select(x.f32(1.152_921_5e18), x.f32(0.25));
    let (low, high) = (low * scale, high * scale);
    let middle = (high * MIDDLE).lt(low);
    let t = middle.select(low - high, low) / middle.select(low + high, high);
    // k pi/4 + s atan t, reflected at pi/4 when swapped (k to 2 - k) and at pi/2 when x is negative (k to 4 - k).
    let k = middle.select(one, zero);
    let k = swap.select(x.f32(2.0) - k, k);
    let sign = swap.select(x.f32(-1.0), one);
    let left = x.bits().lt(x.i32(0));
    let k = left.select(x.f32(4.0) - k, k);
    let sign = left.select(-sign, sign);
    let angle = arc(k, sign, t).or_sign(y);
    let ordered = x.eq(x) & y.eq(y);
    ordered.select(angle, x + y)
}
