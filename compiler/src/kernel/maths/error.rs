//! The error function of f32.

use super::coefficients::{ERF_SMALL, ERF_TAIL};
use super::exponential::exp_inside;
use super::{Machine, Val, poly};

/// erf x = x + x P(x^2) below 0.92, else 1 - e^Q(|x|), where Q is ln erfc; from 3.95 on it rounds to 1.
pub(super) fn erf<'m, M: Machine>(x: Val<'m, M>, fast: bool) -> Val<'m, M> {
    let a = x.abs();
    let near = x.fma(poly(x * x, &ERF_SMALL), x);
    let far = x.f32(1.0) - exp_inside(poly(a.at_most(3.95), &ERF_TAIL), fast);
    a.lt(x.f32(0.92)).select(near, far.or_sign(x))
}
