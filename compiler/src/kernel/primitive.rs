//! Machine primitives: the scalar operations that every back end has, and what each computes.
//!
//! After [`super::expand`] a kernel holds only these, so all back ends give the same bits. This file is their
//! definition: back ends are tested against it.
//!
//! - f32, f64: add sub mul div sqrt neg abs floor ceil trunc round_even fma (IEEE, rounded to nearest even), min max
//!   (NaN when either is, -0 below +0), eq lt le (false with NaN). f64 also keeps every elementary function, rem, pow and atan2: calls of [`double`].
//! - integers of 8 to 64 bits: add sub mul (wrapping) neg and or xor not eq lt le; div and rem by divisors other than
//!   0 and -1; shl and shr by less than the width; pow, a call.
//! - bool: and or xor not eq.
//! - select of any type; [`Expr::Rescue`](super::Expr::Rescue).
//! - casts: between integers (low bits kept, extended by the source's sign), bool to integer, i32 i64 u64 to f32 and
//!   f64, f32 to and from f64; f32 to i32 truncates (outside i32's range any value may come out and none is used);
//!   f32 and f64 to i64 and u64 with `saturate`, NaN giving 0.
//! - bitcasts between types of one size in memory.
//!
//! Which NaN comes out of an operation is open.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::{Scalar, maths::double};

impl Scalar {
    /// An f64.
    pub fn f64(value: f64) -> Self {
        Scalar { dtype: DType::F64, bits: value.to_bits() }
    }

    /// The low bits of an integer.
    pub fn int(dtype: DType, value: i128) -> Self {
        let bits = value as u64;
        let width = dtype.size() * 8;
        Scalar { dtype, bits: if width < 64 { bits & ((1 << width) - 1) } else { bits } }
    }

    /// As an f32, when it is one.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(self.bits as u32)
    }

    /// As an f64, when it is one.
    pub fn to_f64(self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// As an integer; bool: 0 or 1.
    pub fn to_int(self) -> i128 {
        let width = self.dtype.size() as u32 * 8;
        if self.dtype.class() == Class::Signed && width > 0 {
            let unused = 64 - width;
            i128::from(((self.bits << unused) as i64) >> unused)
        } else {
            i128::from(self.bits)
        }
    }

    /// Whether it is true.
    pub fn is_true(self) -> bool {
        self.bits & 1 == 1
    }

    /// Equal bits, or both NaN.
    pub fn same(self, other: Scalar) -> bool {
        self.dtype == other.dtype && (self.bits == other.bits || (self.is_nan() && other.is_nan()))
    }

    /// Whether it is a NaN of a type of 16 bits or more.
    pub fn is_nan(self) -> bool {
        match self.dtype {
            DType::F32 => self.to_f32().is_nan(),
            DType::F64 => self.to_f64().is_nan(),
            DType::F16 => self.bits & 0x7fff > 0x7c00,
            DType::BF16 => self.bits & 0x7fff > 0x7f80,
            _ => false,
        }
    }
}

/// Integers of 8 bits or more.
pub fn is_plain_int(dtype: DType) -> bool {
    dtype.is_int() && dtype.bits() >= 8
}

fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}

/// The value of a primitive; `None` when it is none.
pub fn unary(op: UnaryOp, x: Scalar) -> Option<Scalar> {
    match x.dtype {
        DType::F32 => real_unary(op, f64::from(x.to_f32())).map(|v| Scalar::f32(v as f32)),
        DType::F64 => real_unary(op, x.to_f64()).or_else(|| double::unary(op, x.to_f64())).map(Scalar::f64),
        DType::Bool if op == UnaryOp::Not => Some(Scalar::bool(!x.is_true())),
        dtype if is_plain_int(dtype) => match op {
            UnaryOp::Neg => Some(Scalar::int(dtype, -x.to_int())),
            UnaryOp::Not => Some(Scalar::int(dtype, !x.to_int())),
            _ => None,
        },
        _ => None,
    }
}

/// Also exact for f32 held as f64: sqrt of an f32 in f64 rounds to the same f32.
fn real_unary(op: UnaryOp, x: f64) -> Option<f64> {
    Some(match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Trunc => x.trunc(),
        UnaryOp::RoundEven => x.round_ties_even(),
        UnaryOp::Sqrt => x.sqrt(),
        _ => return None,
    })
}

/// The value of a primitive; `None` when it is none or its operands are not allowed.
pub fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Option<Scalar> {
    if a.dtype != b.dtype {
        return None;
    }
    match a.dtype {
        // One f32 operation in f64 rounds to the same f32 (53 >= 2 * 24 + 2 bits).
        DType::F32 => match compare(op, a.to_f32(), b.to_f32()) {
            Some(truth) => Some(Scalar::bool(truth)),
            None => arithmetic(op, f64::from(a.to_f32()), f64::from(b.to_f32())).map(|v| Scalar::f32(v as f32)),
        },
        DType::F64 => match compare(op, a.to_f64(), b.to_f64()) {
            Some(truth) => Some(Scalar::bool(truth)),
            None => arithmetic(op, a.to_f64(), b.to_f64())
                .or_else(|| double::binary(op, a.to_f64(), b.to_f64()))
                .map(Scalar::f64),
        },
        DType::Bool => {
            let (a, b) = (a.is_true(), b.is_true());
            Some(Scalar::bool(match op {
                BinaryOp::And => a & b,
                BinaryOp::Or => a | b,
                BinaryOp::Xor => a ^ b,
                BinaryOp::Eq => a == b,
                _ => return None,
            }))
        }
        dtype if is_plain_int(dtype) => {
            let (x, y) = (a.to_int(), b.to_int());
            if let Some(truth) = compare(op, x, y) {
                return Some(Scalar::bool(truth));
            }
            let in_width = (0..i128::from(dtype.bits())).contains(&y);
            Some(Scalar::int(
                dtype,
                match op {
                    BinaryOp::Add => x + y,
                    BinaryOp::Sub => x - y,
                    BinaryOp::Mul => x.wrapping_mul(y),
                    BinaryOp::Div => x.checked_div(y)?,
                    BinaryOp::Rem => x.checked_rem(y)?,
                    BinaryOp::And => x & y,
                    BinaryOp::Or => x | y,
                    BinaryOp::Xor => x ^ y,
                    BinaryOp::Shl if in_width => x << y,
                    BinaryOp::Shr if in_width => x >> y,
                    BinaryOp::Pow => double::ipow(dtype, x, y),
                    _ => return None,
                },
            ))
        }
        _ => None,
    }
}

fn compare<T: PartialOrd>(op: BinaryOp, a: T, b: T) -> Option<bool> {
    match op {
        BinaryOp::Eq => Some(a == b),
        BinaryOp::Lt => Some(a < b),
        BinaryOp::Le => Some(a <= b),
        _ => None,
    }
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Min | BinaryOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Min if a < b || (a == b && a.is_sign_negative()) => a,
        BinaryOp::Max if a > b || (a == b && a.is_sign_positive()) => a,
        BinaryOp::Min | BinaryOp::Max => b,
        _ => return None,
    })
}

/// a b + c rounded once.
pub fn fma(a: Scalar, b: Scalar, c: Scalar) -> Option<Scalar> {
    match (a.dtype, b.dtype, c.dtype) {
        (DType::F32, DType::F32, DType::F32) => Some(Scalar::f32(a.to_f32().mul_add(b.to_f32(), c.to_f32()))),
        (DType::F64, DType::F64, DType::F64) => Some(Scalar::f64(a.to_f64().mul_add(b.to_f64(), c.to_f64()))),
        _ => None,
    }
}

/// Whether a cast is one.
pub fn is_cast(from: DType, to: DType, saturate: bool) -> bool {
    match (from, to) {
        (DType::F32, DType::F64) | (DType::F64, DType::F32) => true,
        (DType::F32, DType::I32) => !saturate,
        (DType::F32 | DType::F64, DType::I64 | DType::U64) => saturate,
        (DType::I32 | DType::I64 | DType::U64, DType::F32 | DType::F64) => true,
        (DType::Bool, to) => is_plain_int(to),
        (from, to) => is_plain_int(from) && is_plain_int(to) && !saturate,
    }
}

/// The value of a primitive cast; `None` when it is none.
pub fn cast(x: Scalar, to: DType, saturate: bool) -> Option<Scalar> {
    if !is_cast(x.dtype, to, saturate) {
        return None;
    }
    let real = if x.dtype == DType::F64 { x.to_f64() } else { f64::from(x.to_f32()) };
    Some(match (x.dtype, to) {
        (DType::F32 | DType::F64, DType::F32) => Scalar::f32(real as f32),
        (DType::F32 | DType::F64, DType::F64) => Scalar::f64(real),
        // What x86 gives outside the range; expansions use no such value.
        (DType::F32, DType::I32) if !(-2147483648.0..2147483648.0).contains(&real) => Scalar::i32(i32::MIN),
        (DType::F32 | DType::F64, DType::U64) => Scalar { dtype: to, bits: real as u64 },
        (DType::F32 | DType::F64, to) => Scalar::int(to, i128::from(real as i64)),
        (_, DType::F32) => Scalar::f32(x.to_int() as f32),
        (_, DType::F64) => Scalar::f64(x.to_int() as f64),
        (_, to) => Scalar::int(to, x.to_int()),
    })
}

/// The same bits; `None` when the sizes differ.
pub fn bitcast(x: Scalar, to: DType) -> Option<Scalar> {
    (x.dtype.size() == to.size() && to.size() > 0).then_some(Scalar { dtype: to, bits: x.bits })
}

/// Whether an op on operands of a type is a primitive.
pub fn is_unary(op: UnaryOp, dtype: DType) -> bool {
    unary(op, Scalar { dtype, bits: 0 }).is_some()
}

/// Whether an op on operands of a type is a primitive for every value of them.
pub fn is_binary(op: BinaryOp, dtype: DType) -> bool {
    let guarded = matches!(op, BinaryOp::Div | BinaryOp::Rem | BinaryOp::Shl | BinaryOp::Shr) && !is_real(dtype);
    !guarded && binary(op, Scalar { dtype, bits: 1 }, Scalar { dtype, bits: 1 }).is_some()
}
