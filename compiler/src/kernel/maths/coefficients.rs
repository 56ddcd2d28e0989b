//! Coefficients of the elementary functions, computed by `coefficients.py` beside this file.
//!
//! `NAME: powers a..=b` approximates what its function in this folder divides out or adds first (see the row of the
//! same name in the script): minimax in relative error over the interval, each coefficient rounded to f32 and the rest
//! fitted again. Sums of f32 hold constants beyond 24 bits.

// The script's digits are kept as they are, also where they come near a named constant.
#![allow(clippy::approx_constant, clippy::excessive_precision)]

/// EXP_FAST: powers 0..=5 on [-0.3467, 0.3467], relative error 2^-23.0.
pub(super) const EXP_FAST: [f32; 6] =
    [2.0000002e+0, 2.0000007e+0, 9.999696e-1, 3.3329314e-1, 8.391037e-2, 1.7048875e-2];

/// EXP: powers 1..=7 on [-0.6935, 0.6935], relative error 2^-24.6.
pub(super) const EXP: [f32; 7] =
    [1.0000004e+0, 5.0000036e-1, 1.6666111e-1, 4.1661005e-2, 8.354286e-3, 1.4112437e-3, 1.7709985e-4];

/// EXPM1: powers 2..=6 on [-0.3467, 0.3467], relative error 2^-26.1.
pub(super) const EXPM1: [f32; 5] = [4.9999997e-1, 1.6666539e-1, 4.166775e-2, 8.367088e-3, 1.3837861e-3];

/// EXP2: powers 1..=7 on [-0.5005, 0.5005], relative error 2^-28.7.
pub(super) const EXP2: [f32; 7] =
    [6.931472e-1, 2.402265e-1, 5.550405e-2, 9.618166e-3, 1.3345537e-3, 1.5416593e-4, 1.1006757e-5];

/// LOG: powers 2..=10 on [-0.2929, 0.4142], relative error 2^-24.5.
pub(super) const LOG: [f32; 9] = [
    -4.9999988e-1,
    3.3333337e-1,
    -2.500164e-1,
    2.0001201e-1,
    -1.6606647e-1,
    1.4196187e-1,
    -1.328777e-1,
    1.2876318e-1,
    -7.507126e-2,
];

/// ATANH: powers 2..=5 on [1e-12, 0.0296], relative error 2^-36.5.
pub(super) const ATANH: [f32; 4] = [2.0e-1, 1.4285722e-1, 1.1103909e-1, 9.545927e-2];

/// SIN: powers 1..=3 on [1e-12, 0.6173], relative error 2^-27.9.
pub(super) const SIN: [f32; 3] = [-1.6666655e-1, 8.332188e-3, -1.9518095e-4];

/// COS: powers 2..=4 on [1e-12, 0.6173], relative error 2^-33.0.
pub(super) const COS: [f32; 3] = [4.1666646e-2, -1.388731e-3, 2.4432327e-5];

/// TAN: powers 1..=6 on [1e-12, 0.6173], relative error 2^-25.7.
pub(super) const TAN: [f32; 6] = [3.3333156e-1, 1.3338836e-1, 5.34082e-2, 2.4441391e-2, 3.1014823e-3, 9.396526e-3];

/// ASIN: powers 1..=5 on [1e-12, 0.25], relative error 2^-27.6.
pub(super) const ASIN: [f32; 5] = [1.6666752e-1, 7.4953094e-2, 4.5469154e-2, 2.4184743e-2, 4.2158388e-2];

/// ATAN: powers 1..=5 on [1e-12, 0.2501], relative error 2^-27.5.
pub(super) const ATAN: [f32; 5] = [-3.3333233e-1, 1.9994168e-1, -1.4174213e-1, 1.0155835e-1, -5.125162e-2];

/// TANH: powers 1..=7 on [1e-12, 0.64], relative error 2^-32.0.
pub(super) const TANH: [f32; 7] =
    [-3.333333e-1, 1.3333242e-1, -5.3954747e-2, 2.177643e-2, -8.517467e-3, 2.861242e-3, -5.754173e-4];

/// ERF_SMALL: powers 0..=6 on [1e-12, 0.8464], relative error 2^-30.1.
pub(super) const ERF_SMALL: [f32; 7] =
    [1.2837917e-1, -3.761263e-1, 1.1283626e-1, -2.685573e-2, 5.1923925e-3, -8.049515e-4, 7.9950485e-5];

/// ERF_TAIL: powers 0..=8 on [0.92, 3.95], relative error 2^-32.4.
pub(super) const ERF_TAIL: [f32; 9] = [
    1.6039658e-4,
    -1.1294341e+0,
    -6.335434e-1,
    -1.0801224e-1,
    2.4895571e-2,
    -4.0537007e-3,
    3.9679013e-4,
    -1.4329353e-5,
    -5.201251e-7,
];

/// LN2, as a sum.
pub(super) const LN2: [f32; 2] = [6.931472e-1, -1.9046542e-9];

/// LN2_TWICE, as a sum.
pub(super) const LN2_TWICE: [f32; 2] = [1.3862944e+0, -3.8093084e-9];

/// LOG2E, as a sum.
pub(super) const LOG2E: [f32; 2] = [1.442695e+0, 1.925963e-8];

/// PI_HALF, as a sum.
pub(super) const PI_HALF: [f32; 3] = [1.5707964e+0, -4.371139e-8, -1.7151245e-15];

/// PI_QUARTER, as a sum.
pub(super) const PI_QUARTER: [f32; 2] = [7.853982e-1, -2.1855694e-8];

/// THIRD, as a sum.
pub(super) const THIRD: [f32; 2] = [3.3333334e-1, -9.934108e-9];

/// 2/pi.
pub(super) const TWO_OVER_PI: f32 = std::f32::consts::FRAC_2_PI;
