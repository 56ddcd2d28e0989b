//! Casts between all element types, and the small floats as bits.
//!
//! A small float format is a row of [`Format`]; one encoder and one decoder serve f16, bf16, f8e4m3fn(uz), f8e5m2(fnuz)
//! and f4e2m1 alike, in 32-bit lanes. Everything narrower than f32 passes through f32. Integers of 2 and 4 bits live
//! extended in a byte. Meanings are those of the core op `cast`.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType};

use super::{Machine, Val, is_signed};
use crate::kernel::{Scalar, primitive};

/// A float format below f32. Codes are sign, exponent, mantissa.
#[derive(Clone, Copy)]
struct Format {
    /// Mantissa bits.
    mantissa: i32,
    /// Exponent bias.
    bias: i32,
    /// The sign's bit.
    sign: i32,
    /// Code of the largest finite magnitude.
    largest: i32,
    /// Code of infinity, if any.
    infinity: Option<i32>,
    /// Code of NaN, if any.
    nan: Option<i32>,
    /// The code of -0 is NaN; there is no -0.
    unsigned_zero: bool,
    /// Unsaturated overflow gives infinity or NaN (`saturate` is for 8-bit floats only).
    saturates: bool,
}

const F16: Format = Format {
    mantissa: 10,
    bias: 15,
    sign: 0x8000,
    largest: 0x7bff,
    infinity: Some(0x7c00),
    nan: Some(0x7e00),
    unsigned_zero: false,
    saturates: false,
};
const BF16: Format =
    Format { mantissa: 7, bias: 127, largest: 0x7f7f, infinity: Some(0x7f80), nan: Some(0x7fc0), ..F16 };
const F8E5M2: Format =
    Format { mantissa: 2, sign: 0x80, largest: 0x7b, infinity: Some(0x7c), nan: Some(0x7e), saturates: true, ..F16 };
const F8E4M3FN: Format = Format { mantissa: 3, bias: 7, largest: 0x7e, infinity: None, nan: Some(0x7f), ..F8E5M2 };
const F8E4M3FNUZ: Format = Format { bias: 8, largest: 0x7f, nan: Some(0x80), unsigned_zero: true, ..F8E4M3FN };
const F8E5M2FNUZ: Format = Format { mantissa: 2, bias: 16, ..F8E4M3FNUZ };
const F4E2M1: Format = Format { mantissa: 1, bias: 1, sign: 8, largest: 7, infinity: None, nan: None, ..F8E5M2 };

fn format(dtype: DType) -> Option<Format> {
    match dtype {
        DType::F16 => Some(F16),
        DType::BF16 => Some(BF16),
        DType::F8E4M3FN => Some(F8E4M3FN),
        DType::F8E4M3FNUZ => Some(F8E4M3FNUZ),
        DType::F8E5M2 => Some(F8E5M2),
        DType::F8E5M2FNUZ => Some(F8E5M2FNUZ),
        DType::F4E2M1 => Some(F4E2M1),
        _ => None,
    }
}

/// The exponent field of 2^e, in f32 bits.
fn power_bits(e: i32) -> i32 {
    (e + 127) << 23
}

/// An f32 from a code held in an i32.
fn decode<'m, M: Machine>(format: Format, code: Val<'m, M>) -> Val<'m, M> {
    let magnitude = code & (format.sign - 1);
    let sign_shift = 31 - format.sign.trailing_zeros() as i32;
    let sign = (code & format.sign) << sign_shift;
    let raised = magnitude << (23 - format.mantissa);
    // The mantissa at f32's place under the format's exponent; one exact product mends the bias, subnormals included.
    let value = if format.bias == 127 {
        raised
    } else {
        // 2^(127 - bias) is an f32 for every bias in the table.
        (raised.float() * f32::from_bits(power_bits(127 - format.bias) as u32)).bits()
    };
    let value = match format.infinity {
        // The exponent field of infinity and NaN, mantissa kept.
        Some(infinity) if format.bias != 127 => {
            magnitude.lt(magnitude.i32(infinity)).select(value, raised | 0x7f80_0000)
        }
        _ => value,
    };
    let value = match format.nan {
        Some(nan) if format.infinity.is_none() && !format.unsigned_zero => {
            magnitude.eq(magnitude.i32(nan)).select(magnitude.i32(0x7fc0_0000), value)
        }
        _ => value,
    };
    let signed = value | sign;
    let signed = if format.unsigned_zero {
        code.eq(code.i32(format.sign)).select(code.i32(0x7fc0_0000), signed)
    } else {
        signed
    };
    signed.float()
}

/// The code of an f32, in an i32, rounded to nearest even.
fn encode<'m, M: Machine>(format: Format, x: Val<'m, M>, saturate: bool) -> Val<'m, M> {
    let saturate = saturate && format.saturates;
    let bits = x.bits();
    let magnitude = bits & i32::MAX;
    let shift = 23 - format.mantissa;
    let rebias = (127 - format.bias) << 23;
    // Half an ulp less one, plus one when the kept part is odd; a carry runs into the exponent as it should.
    let tie = (magnitude >> shift) & 1;
    let normal = (magnitude + ((1 << (shift - 1)) - 1 - rebias) + tie) >> shift;
    // Below the normal numbers, adding 2^(23 - steps) makes the float unit round at the format's step.
    let code = if format.bias == 127 {
        normal
    } else {
        let unit = power_bits(1 - format.bias - format.mantissa + 23);
        let sum = (magnitude.float() + f32::from_bits(unit as u32)).bits() - unit;
        magnitude.lt(magnitude.i32(power_bits(1 - format.bias))).select(sum, normal)
    };
    let beyond = if saturate || format.nan.is_none() {
        format.largest
    } else {
        format.infinity.or(format.nan).unwrap_or(format.largest)
    };
    let code = code.i32(format.largest).lt(code).select(code.i32(beyond), code);
    let sign_shift = 31 - format.sign.trailing_zeros() as i32;
    // A logical shift of the sign bit: the shift of i32 copies it, the mask takes one.
    let sign = (bits >> sign_shift) & format.sign;
    let signed = code | sign;
    // Infinity goes with overflow, NaN apart.
    let is_nan = magnitude.i32(0x7f80_0000).lt(magnitude);
    let signed = if format.unsigned_zero {
        // A zero has no sign; NaN has one code, that of -0, which overflow gives too.
        let zero = code.eq(code.i32(0));
        let overflow = code.eq(code.i32(format.sign));
        (zero | overflow).select(code, signed)
    } else {
        signed
    };
    match format.nan {
        // f16 and bf16 keep a NaN's sign, as the 8-bit floats do not need to.
        Some(nan) if format.unsigned_zero => is_nan.select(code.i32(nan), signed),
        Some(nan) if format.saturates => is_nan.select(code.i32(nan), signed),
        Some(nan) => is_nan.select(sign | nan, signed),
        None => is_nan.select(code.i32(format.sign), signed),
    }
}

/// Powers of two: the exponent field alone; 0xff is NaN and code 0 is 2^-127.
fn decode_e8m0<'m, M: Machine>(code: Val<'m, M>) -> Val<'m, M> {
    let value = code.eq(code.i32(0)).select(code.i32(0x0040_0000), code << 23);
    code.eq(code.i32(0xff)).select(code.i32(0x7fc0_0000), value).float()
}

/// The magnitude's exponent, rounded up to the next power of two; infinity and NaN become NaN.
fn encode_e8m0<'m, M: Machine>(x: Val<'m, M>, saturate: bool) -> Val<'m, M> {
    let magnitude = x.bits() & i32::MAX;
    let up = (magnitude + 0x007f_ffff) >> 23;
    let up = magnitude.le(magnitude.i32(0x0040_0000)).select(magnitude.i32(0), up);
    let beyond = if saturate { 0xfe } else { 0xff };
    let up = up.i32(0xfe).lt(up).select(up.i32(beyond), up);
    let endless = magnitude.i32(0x7f80_0000).le(magnitude);
    endless.select(up.i32(0xff), up)
}

/// The unsigned integer that holds a storage type's bits.
fn storage(dtype: DType) -> DType {
    match (dtype.size(), is_signed(dtype)) {
        (2, _) => DType::U16,
        (_, true) => DType::I8,
        (_, false) => DType::U8,
    }
}

/// Any float below f32 as an f32.
fn widen<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let code = || x.bitcast(storage(x.dtype())).to(DType::I32, false);
    match (x.dtype(), format(x.dtype())) {
        (DType::F8E8M0, _) => decode_e8m0(code()),
        (_, Some(format)) => decode(format, code()),
        (_, None) => x,
    }
}

/// An f32 as a float below it.
fn narrow<'m, M: Machine>(x: Val<'m, M>, to: DType, saturate: bool) -> Val<'m, M> {
    let store = |code: Val<'m, M>| code.to(storage(to), false).bitcast(to);
    match (to, format(to)) {
        (DType::F8E8M0, _) => store(encode_e8m0(x, saturate)),
        (_, Some(format)) => store(encode(format, x, saturate)),
        (_, None) => x,
    }
}

/// A core cast, in primitives; `None` for strings.
pub fn cast<'m, M: Machine>(x: Val<'m, M>, to: DType, saturate: bool) -> Option<Val<'m, M>> {
    let from = x.dtype();
    if from == to {
        return Some(x);
    }
    Some(match (from.class(), to.class()) {
        (Class::Text, _) | (_, Class::Text) => return None,
        (Class::Float, Class::Float) => {
            let wide = widen(x);
            if to == DType::F64 { wide.to(DType::F64, false) } else { narrow(wide.to(DType::F32, false), to, saturate) }
        }
        (Class::Float, Class::Bool) => {
            let wide = widen(x);
            wide.eq(wide.like(0)).not()
        }
        (Class::Float, Class::Signed | Class::Unsigned) => float_to_int(widen(x), to, saturate),
        (Class::Signed | Class::Unsigned | Class::Bool, Class::Float) => int_to_float(x, to, saturate),
        (Class::Bool, Class::Bool) => x,
        (Class::Bool, _) => pack(x.to(byte(to), false), to),
        (Class::Signed | Class::Unsigned, Class::Bool) => {
            let plain = unpack(x);
            plain.eq(plain.like(0)).not()
        }
        (Class::Signed | Class::Unsigned, Class::Signed | Class::Unsigned) => int_to_int(unpack(x), to, saturate),
    })
}

/// The type itself, or the byte that holds a 2- or 4-bit integer.
fn byte(dtype: DType) -> DType {
    if dtype.is_int() && dtype.bits() < 8 { storage(dtype) } else { dtype }
}

/// A 2- or 4-bit integer as its byte.
fn unpack<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    x.bitcast(byte(x.dtype()))
}

/// A byte as a 2- or 4-bit integer: low bits kept and extended.
fn pack<'m, M: Machine>(x: Val<'m, M>, to: DType) -> Val<'m, M> {
    if to.bits() >= 8 || !to.is_int() {
        return x;
    }
    let unused = x.like(i64::from(8 - to.bits()));
    let shifted = x.binary(BinaryOp::Shl, unused);
    shifted.binary(BinaryOp::Shr, unused).bitcast(to)
}

/// Smallest and largest value.
fn limits(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    if is_signed(dtype) { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn int_to_int<'m, M: Machine>(x: Val<'m, M>, to: DType, saturate: bool) -> Val<'m, M> {
    let mut x = x;
    if saturate {
        let ((low, high), (from_low, from_high)) = (limits(to), limits(x.dtype()));
        if from_low < low {
            let low = x.scalar(Scalar::int(x.dtype(), low));
            x = x.lt(low).select(low, x);
        }
        if from_high > high {
            let high = x.scalar(Scalar::int(x.dtype(), high));
            x = high.lt(x).select(high, x);
        }
    }
    pack(x.to(byte(to), false), to)
}

fn int_to_float<'m, M: Machine>(x: Val<'m, M>, to: DType, saturate: bool) -> Val<'m, M> {
    let real = if to == DType::F64 { DType::F64 } else { DType::F32 };
    let value = if x.dtype() == DType::Bool {
        let (one, zero) = if real == DType::F64 {
            (x.scalar(Scalar::f64(1.0)), x.scalar(Scalar::f64(0.0)))
        } else {
            (x.f32(1.0), x.f32(0.0))
        };
        x.select(one, zero)
    } else {
        let plain = unpack(x);
        // Narrow integers through i32, u32 through i64: the conversions that machines have.
        let lane = match plain.dtype() {
            DType::I64 | DType::U64 => plain,
            DType::U32 => plain.to(DType::I64, false),
            _ => plain.to(DType::I32, false),
        };
        lane.to(real, false)
    };
    narrow(value, to, saturate)
}

/// Truncation. 32-bit lanes serve f32 to integers of up to 32 bits (u32 apart), the rest goes through i64 or u64.
fn float_to_int<'m, M: Machine>(x: Val<'m, M>, to: DType, saturate: bool) -> Val<'m, M> {
    let target = byte(to);
    let lanes = x.dtype() == DType::F32 && target.size() <= 4 && target != DType::U32;
    if to.bits() == 64 {
        let sixty_four = if saturate || to == DType::I64 { to } else { DType::I64 };
        let value = x.to(sixty_four, true);
        if sixty_four == to {
            return value;
        }
        // Unsaturated to u64: positive values up to u64's limit, negative ones by their low bits.
        return x.lt(x.like(0)).select(value.to(DType::U64, false), x.to(DType::U64, true));
    }
    if !lanes {
        return int_to_int(x.to(DType::I64, true), to, saturate);
    }
    let value = if saturate { clamped(x, to) } else { wrapped(x) };
    pack(value.to(target, false), to)
}

/// f32 to an i32 inside the limits of `to`; NaN gives 0.
fn clamped<'m, M: Machine>(x: Val<'m, M>, to: DType) -> Val<'m, M> {
    let (low, high) = limits(to);
    // For i32 the highest f32 below its limit, with the limit itself selected afterwards.
    let top = if to == DType::I32 { 2_147_483_520.0 } else { high as f32 };
    let inside = x.at_least(low as f32).at_most(top).to(DType::I32, false);
    let value = if to == DType::I32 { x.f32(2_147_483_520.0).lt(x).select(x.i32(i32::MAX), inside) } else { inside };
    x.eq(x).select(value, x.i32(0))
}

/// f32 to the low 32 bits of its i64, which clamps; NaN gives 0.
fn wrapped<'m, M: Machine>(x: Val<'m, M>) -> Val<'m, M> {
    let a = x.abs();
    let direct = x.to(DType::I32, false);
    // From 2^31 to 2^63 the magnitude is its mantissa, shifted left by 8 or more; from 2^55 on no bit is left below 32.
    let bits = a.bits();
    let mantissa = (bits & 0x007f_ffff) | 0x0080_0000;
    let count = (bits >> 23) - 150;
    let shifted = mantissa.binary(BinaryOp::Shl, count & 31);
    let magnitude = count.lt(count.i32(32)).select(shifted, count.i32(0));
    let large = x.lt(x.f32(0.0)).select(-magnitude, magnitude);
    // i64::MAX has all low bits set, i64::MIN none.
    let large = x.f32(9.223_372e18).le(x).select(x.i32(-1), large);
    let value = a.lt(x.f32(2_147_483_648.0)).select(direct, large);
    x.eq(x).select(value, x.i32(0))
}

/// Whether a cast needs no expansion.
pub(crate) fn is_plain(from: DType, to: DType, saturate: bool) -> bool {
    from == to || (primitive::is_cast(from, to, saturate) && (from, to) != (DType::F32, DType::I32))
}
