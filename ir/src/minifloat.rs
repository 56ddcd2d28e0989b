//! The 8- and 4-bit floats: their codes and values.
//!
//! A format is sign, exponent and mantissa with a bias, and what it does beyond its largest value. Encoding rounds to
//! nearest even (E8M0: up to the next power of two, ONNX's default). Sources: OCP 8-bit floating point specification
//! (E4M3FN, E5M2), OCP microscaling formats (E2M1, E8M0), the FNUZ variants of ONNX's float8 page.

use crate::types::DType;

/// One format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    mantissa: i32,
    bias: i32,
    /// Code of the largest finite magnitude.
    largest: u8,
    /// Bit of the sign.
    sign: u8,
    infinity: Option<u8>,
    nan: Option<u8>,
    /// FNUZ: no negative zero; its code is the NaN.
    unsigned_zero: bool,
}

const E4M3FN: Format =
    Format { mantissa: 3, bias: 7, largest: 0x7e, sign: 0x80, infinity: None, nan: Some(0x7f), unsigned_zero: false };
const E4M3FNUZ: Format = Format { bias: 8, largest: 0x7f, nan: Some(0x80), unsigned_zero: true, ..E4M3FN };
const E5M2: Format = Format { mantissa: 2, bias: 15, largest: 0x7b, infinity: Some(0x7c), nan: Some(0x7e), ..E4M3FN };
const E5M2FNUZ: Format =
    Format { bias: 16, largest: 0x7f, infinity: None, nan: Some(0x80), unsigned_zero: true, ..E5M2 };
const E2M1: Format =
    Format { mantissa: 1, bias: 1, largest: 0x7, sign: 0x8, infinity: None, nan: None, unsigned_zero: false };

fn format(dtype: DType) -> Option<Format> {
    match dtype {
        DType::F8E4M3FN => Some(E4M3FN),
        DType::F8E4M3FNUZ => Some(E4M3FNUZ),
        DType::F8E5M2 => Some(E5M2),
        DType::F8E5M2FNUZ => Some(E5M2FNUZ),
        DType::F4E2M1 => Some(E2M1),
        DType::F32
        | DType::F64
        | DType::F16
        | DType::BF16
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2
        | DType::F8E8M0
        | DType::Str => None,
    }
}

/// The value of a code; `None` when the type is no 8- or 4-bit float.
pub fn decode(dtype: DType, code: u8) -> Option<f64> {
    if dtype == DType::F8E8M0 {
        return Some(if code == 0xff { f64::NAN } else { 2f64.powi(i32::from(code) - 127) });
    }
    let f = format(dtype)?;
    let magnitude = code & (f.sign - 1);
    let negative = code & f.sign != 0;
    let value = if f.unsigned_zero && code == f.sign {
        f64::NAN
    } else if magnitude > f.largest {
        if f.infinity == Some(magnitude) { f64::INFINITY } else { f64::NAN }
    } else {
        let exponent = i32::from(magnitude >> f.mantissa);
        let fraction = f64::from(magnitude & ((1 << f.mantissa) - 1)) * 2f64.powi(-f.mantissa);
        let lead = if exponent == 0 { 0.0 } else { 1.0 };
        (lead + fraction) * 2f64.powi(exponent.max(1) - f.bias)
    };
    Some(if negative { -value } else { value })
}

/// The code of a value; `None` when the type is no 8- or 4-bit float. With `saturate` what is too large, infinity
/// included, becomes the largest; without, infinity (E5M2) or NaN. E2M1 has neither: it always saturates, and NaN
/// becomes -0. E8M0 has no sign: the magnitude counts, 0 becomes the smallest, infinity NaN.
pub fn encode(dtype: DType, value: f64, saturate: bool) -> Option<u8> {
    if dtype == DType::F8E8M0 {
        return Some(encode_e8m0(value, saturate));
    }
    let f = format(dtype)?;
    if value.is_nan() {
        return Some(f.nan.unwrap_or(f.sign));
    }
    let smallest_exponent = 1 - f.bias;
    let magnitude = value.abs();
    let sign = if value.is_sign_negative() { f.sign } else { 0 };
    let exponent = exponent_of(magnitude).max(smallest_exponent);
    let step = 2f64.powi(exponent - f.mantissa);
    // Steps above the exponent's base; a carry into the next exponent is the same code, because codes are consecutive.
    let steps = (magnitude / step).round_ties_even();
    let largest = decode(dtype, f.largest)?;
    if steps * step > largest || magnitude.is_infinite() {
        return Some(if saturate || f.nan.is_none() {
            sign | f.largest
        } else if let Some(infinity) = f.infinity {
            sign | infinity
        } else if f.unsigned_zero {
            f.sign
        } else {
            sign | f.nan.unwrap_or(f.largest)
        });
    }
    let below = (exponent - smallest_exponent) * (1 << f.mantissa);
    let code = u8::try_from(below + steps as i32).unwrap_or(f.largest);
    Some(if code == 0 && f.unsigned_zero { 0 } else { sign | code })
}

fn encode_e8m0(value: f64, saturate: bool) -> u8 {
    let magnitude = value.abs();
    if !magnitude.is_finite() {
        return 0xff;
    }
    let exponent = exponent_of(magnitude);
    let rounded = if magnitude > 2f64.powi(exponent) { exponent + 1 } else { exponent };
    match rounded {
        ..=-127 => 0,
        128.. => {
            if saturate {
                0xfe
            } else {
                0xff
            }
        }
        e => u8::try_from(e + 127).unwrap_or(0xff),
    }
}

/// Largest e with 2^e <= x, for finite x; far below every format's range for 0 and f64 subnormals.
fn exponent_of(x: f64) -> i32 {
    i32::try_from((x.to_bits() >> 52) & 0x7ff).unwrap_or(0) - 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [DType; 6] =
        [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0, DType::F4E2M1];

    fn codes(dtype: DType) -> impl Iterator<Item = u8> {
        (0..=255u8).filter(move |c| dtype.bits() == 8 || *c < 16)
    }

    #[test]
    fn every_value_encodes_to_its_code() {
        for dtype in FORMATS {
            for code in codes(dtype) {
                let value = decode(dtype, code).expect("a minifloat");
                if value.is_nan() {
                    let again = encode(dtype, value, false).expect("a minifloat");
                    assert!(decode(dtype, again).expect("a minifloat").is_nan(), "{dtype} {code:#x}");
                } else if value.is_finite() {
                    assert_eq!(encode(dtype, value, false), Some(code), "{dtype} {code:#x} {value}");
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even_code() {
        for dtype in FORMATS.into_iter().filter(|d| *d != DType::F8E8M0) {
            let mut finite: Vec<(f64, u8)> = codes(dtype)
                .filter_map(|c| decode(dtype, c).filter(|v| v.is_finite() && v.is_sign_positive()).map(|v| (v, c)))
                .collect();
            finite.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in finite.windows(2) {
                let middle = (pair[0].0 + pair[1].0) / 2.0;
                let even = if pair[0].1 % 2 == 0 { pair[0].1 } else { pair[1].1 };
                assert_eq!(encode(dtype, middle, true), Some(even), "{dtype} {middle}");
                assert_eq!(encode(dtype, middle * (1.0 + 1e-9), true), Some(pair[1].1), "{dtype} {middle}");
                assert_eq!(encode(dtype, middle * (1.0 - 1e-9), true), Some(pair[0].1), "{dtype} {middle}");
            }
        }
    }

    /// Values from ml_dtypes 0.5 for these inputs, without saturation.
    #[test]
    fn codes_agree_with_ml_dtypes() {
        let inputs = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            464.0,
            465.0,
            480.0,
            248.0,
            247.0,
            61440.0,
            61439.0,
            60000.0,
            1e9,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0009765625,
            0.00048828125,
            0.00146484375,
            3.3,
            -17.5,
            0.1,
        ];
        let expected: [(DType, [u8; 21]); 4] = [
            (
                DType::F8E4M3FN,
                [0, 128, 56, 184, 126, 127, 127, 120, 119, 127, 127, 127, 127, 127, 255, 0, 0, 1, 69, 217, 29],
            ),
            (
                DType::F8E4M3FNUZ,
                [0, 0, 64, 192, 128, 128, 128, 128, 127, 128, 128, 128, 128, 128, 128, 1, 0, 2, 77, 225, 37],
            ),
            (
                DType::F8E5M2,
                [0, 128, 60, 188, 95, 95, 96, 92, 92, 124, 123, 123, 124, 124, 252, 20, 16, 22, 67, 204, 46],
            ),
            (
                DType::F8E5M2FNUZ,
                [0, 0, 64, 192, 99, 99, 100, 96, 96, 128, 127, 127, 128, 128, 128, 24, 20, 26, 71, 208, 50],
            ),
        ];
        for (dtype, codes) in expected {
            for (input, code) in inputs.iter().zip(codes) {
                assert_eq!(encode(dtype, *input, false), Some(code), "{dtype} {input}");
            }
        }
        let halves = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 7.0, 5.0, -0.0, 0.25, 0.75, 2.5, 3.5];
        let codes: Vec<_> = halves.iter().map(|v| encode(DType::F4E2M1, *v, false)).collect();
        assert_eq!(codes, [8, 7, 15, 7, 6, 8, 0, 2, 4, 6].map(Some));
    }

    #[test]
    fn saturation_and_powers_of_two() {
        assert_eq!(encode(DType::F8E4M3FN, f64::INFINITY, true), Some(0x7e));
        assert_eq!(encode(DType::F8E5M2, -1e9, true), Some(0xfb));
        assert_eq!(encode(DType::F8E5M2FNUZ, f64::NAN, true), Some(0x80));
        assert_eq!(encode(DType::F8E8M0, 3.0, true), Some(129));
        assert_eq!(encode(DType::F8E8M0, -4.0, true), Some(129));
        assert_eq!(encode(DType::F8E8M0, 0.0, true), Some(0));
        assert_eq!(encode(DType::F8E8M0, 3e38, true), Some(254));
        assert_eq!(encode(DType::F8E8M0, 3e38, false), Some(255));
    }
}
