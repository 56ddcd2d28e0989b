//! Elementwise ops: functions that ONNX lacks, corners that it leaves open, element types without kernels.
//!
//! Error of the compositions, in ulp beyond the ops they are made of: `expm1` 2, `log1p` 3, `atan2` 3.

use std::f64::consts::{FRAC_PI_2, PI};

use super::Expander;
use crate::builder::Built;
use crate::graph::{Function, Value};
use crate::op::{BinaryOp, Op, UnaryOp};
use crate::tensor::Tensor;
use crate::types::{Class, DType, Dim, TensorType};

impl Expander<'_> {
    fn un(&mut self, op: UnaryOp, x: Value) -> Built {
        self.b().unary(op, x)
    }

    fn bin(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        self.b().binary(op, a, b)
    }

    /// `op` with a number at the right.
    fn bin_s(&mut self, op: BinaryOp, a: Value, b: f64) -> Built {
        let dtype = self.dtype(a)?;
        let b = self.scalar(dtype, b)?;
        self.bin(op, a, b)
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: Value) -> Built {
        use UnaryOp::{Abs, Ceil, Cos, Exp, Expm1, Floor, Log1p, Neg, Sign, Sin, Tan, Tanh, Trunc};
        let dtype = self.dtype(x)?;
        let composed = matches!(op, Expm1 | Log1p);
        if dtype == DType::BF16 || (dtype == DType::F16 && composed) {
            return self.through(DType::F32, &[x], |e, v| e.unary(op, v[0]));
        }
        let unsigned = dtype.class() == Class::Unsigned;
        match op {
            Neg if unsigned => {
                let zero = self.scalar(dtype, 0.0)?;
                self.bin(BinaryOp::Sub, zero, x)
            }
            Abs if unsigned => Ok(x),
            // Zeros keep their sign, and NaN stays.
            Sign if dtype.is_float() => {
                let (magnitude, zero) = (self.un(Abs, x)?, self.scalar(dtype, 0.0)?);
                let nonzero = self.bin(BinaryOp::Lt, zero, magnitude)?;
                let sign = self.un(Sign, x)?;
                self.select(nonzero, sign, x)
            }
            Trunc => {
                let negative = self.bin_s(BinaryOp::Lt, x, 0.0)?;
                let (up, down) = (self.un(Ceil, x)?, self.un(Floor, x)?);
                self.select(negative, up, down)
            }
            // e^x - 1 = tanh(x/2) (e^x + 1): nothing cancels, and infinities and zeros come out right.
            Expm1 => {
                let half = self.bin_s(BinaryOp::Mul, x, 0.5)?;
                let (tanh, exp) = (self.un(Tanh, half)?, self.un(Exp, x)?);
                let sum = self.bin_s(BinaryOp::Add, exp, 1.0)?;
                self.bin(BinaryOp::Mul, tanh, sum)
            }
            Log1p => self.log1p(x),
            // No f64 kernel of `Tan` is to be expected.
            Tan if dtype == DType::F64 => {
                let (sin, cos) = (self.un(Sin, x)?, self.un(Cos, x)?);
                self.bin(BinaryOp::Div, sin, cos)
            }
            Neg
            | Abs
            | Sign
            | Floor
            | Ceil
            | UnaryOp::RoundEven
            | UnaryOp::Sqrt
            | Exp
            | UnaryOp::Log
            | Sin
            | Cos
            | Tan
            | UnaryOp::Asin
            | UnaryOp::Acos
            | UnaryOp::Atan
            | Tanh
            | UnaryOp::Erf
            | UnaryOp::Not => self.un(op, x),
        }
    }

    /// With u = 1 + x rounded, log(u) x / (u - 1) makes good what the sum lost (Kahan); where u is 1, x itself.
    fn log1p(&mut self, x: Value) -> Built {
        let u = self.bin_s(BinaryOp::Add, x, 1.0)?;
        let d = self.bin_s(BinaryOp::Sub, u, 1.0)?;
        let (log, ratio) = (self.un(UnaryOp::Log, u)?, self.bin(BinaryOp::Div, x, d)?);
        // Infinity by itself is no number.
        let (same, one) = (self.bin(BinaryOp::Eq, x, d)?, self.like(x, 1.0)?);
        let ratio = self.select(same, one, ratio)?;
        let long = self.bin(BinaryOp::Mul, log, ratio)?;
        let tiny = self.bin_s(BinaryOp::Eq, d, 0.0)?;
        self.select(tiny, x, long)
    }

    /// A number of the type of `x`.
    fn like(&mut self, x: Value, value: f64) -> Built {
        let dtype = self.dtype(x)?;
        self.scalar(dtype, value)
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        use BinaryOp::{Add, And, Atan2, Div, Eq, Le, Lt, Max, Min, Mul, Or, Pow, Rem, Shl, Shr, Sub, Xor};
        let dtype = self.dtype(a)?;
        if dtype == DType::BF16 {
            return self.through(DType::F32, &[a, b], |e, v| e.binary(op, v[0], v[1]));
        }
        match op {
            Div | Rem if dtype.is_int() => self.divide(op, a, b),
            Pow if dtype.is_int() => self.integer_power(a, b),
            Atan2 => match dtype {
                DType::F16 => self.through(DType::F32, &[a, b], |e, v| e.atan2(v[0], v[1])),
                _ => self.atan2(a, b),
            },
            Min if dtype == DType::Bool => self.bin(And, a, b),
            Max if dtype == DType::Bool => self.bin(Or, a, b),
            Min | Max if matches!(dtype, DType::I16 | DType::U16) => {
                self.through(DType::I32, &[a, b], |e, v| e.bin(op, v[0], v[1]))
            }
            Shl | Shr => self.shift(op, a, b),
            Add | Sub | Mul | Div | Rem | Pow | Min | Max | And | Or | Xor | Eq | Lt | Le => self.bin(op, a, b),
        }
    }

    /// Integers: by 0 gives 0, the smallest by -1 wraps. Processors trap on both, so the divisor is 1 there.
    fn divide(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        let known = self.constant(b).and_then(|t| t.to_i64s());
        if known.is_some_and(|v| v.iter().all(|v| !(-1..=0).contains(v))) {
            return self.bin(op, a, b);
        }
        let mut odd = self.bin_s(BinaryOp::Eq, b, 0.0)?;
        if self.dtype(b)?.class() == Class::Signed {
            let minus_one = self.bin_s(BinaryOp::Eq, b, -1.0)?;
            odd = self.bin(BinaryOp::Or, odd, minus_one)?;
        }
        let one = self.like(b, 1.0)?;
        let divisor = self.select(odd, one, b)?;
        let result = self.bin(op, a, divisor)?;
        if op == BinaryOp::Rem {
            return Ok(result);
        }
        // a b is what a / b is there: 0, or -a.
        let product = self.bin(BinaryOp::Mul, a, b)?;
        self.select(odd, product, result)
    }

    /// By squaring, in a loop over the bits of the exponent.
    fn integer_power(&mut self, base: Value, exponent: Value) -> Built {
        let ty = self.tensor(base)?;
        let bits = unsigned(ty.dtype);
        let left = self.cast(exponent, bits)?;
        let one = self.like(base, 1.0)?;
        let one = self.b().broadcast_to(one, ty.dims.clone())?;
        let region = self.power_step(&ty, bits)?;
        let width = Tensor::i64(&[], &[i64::from(ty.dtype.bits())]).map_err(internal)?;
        let trips = self.b().constant(width)?;
        let go = self.scalar(DType::Bool, 1.0)?;
        let op = Op::Loop { carried: 3, trips: Dim::from(i64::from(ty.dtype.bits())) };
        let (at, numerics) = (self.at.clone(), self.numerics);
        let node = self.new.add_op_with(op, &[trips, go, one, base, left], vec![region], &at, numerics)?;
        let power = Value { node, result: 0 };
        if ty.dtype.class() == Class::Unsigned {
            return Ok(power);
        }
        // A negative exponent gives 0, but for 1 and -1, whose powers the bits of the exponent tell.
        let negative = self.bin_s(BinaryOp::Lt, exponent, 0.0)?;
        let magnitude = self.un(UnaryOp::Abs, base)?;
        let unit = self.bin_s(BinaryOp::Eq, magnitude, 1.0)?;
        let other = self.un(UnaryOp::Not, unit)?;
        let none = self.bin(BinaryOp::And, negative, other)?;
        let zero = self.like(base, 0.0)?;
        self.select(none, zero, power)
    }

    /// (i, go, result, square, exponent) -> (go, result by square where the lowest bit is set, square^2, exponent / 2)
    fn power_step(&self, ty: &TensorType, bits: DType) -> Result<Function, crate::op::infer::TypeError> {
        let mut region =
            Expander { module: self.module, new: Function::new(""), at: self.at.clone(), numerics: self.numerics };
        region.new.add_input("i", TensorType::scalar(DType::I64));
        let go = region.new.add_input("go", TensorType::scalar(DType::Bool));
        let result = region.new.add_input("result", ty.clone());
        let square = region.new.add_input("square", ty.clone());
        let left = region.new.add_input("exponent", TensorType::new(bits, ty.dims.clone()));
        let lowest = region.bin_s(BinaryOp::And, left, 1.0)?;
        let set = region.bin_s(BinaryOp::Eq, lowest, 1.0)?;
        let longer = region.bin(BinaryOp::Mul, result, square)?;
        let next = region.select(set, longer, result)?;
        let squared = region.bin(BinaryOp::Mul, square, square)?;
        let halved = region.bin_s(BinaryOp::Div, left, 2.0)?;
        for (name, value) in [("go", go), ("result", next), ("square", squared), ("exponent", halved)] {
            region.new.add_output(name, value);
        }
        Ok(region.new)
    }

    /// The arc tangent of a ratio in [0, 1], brought to its quadrant: right for zeros of either sign and infinities.
    fn atan2(&mut self, y: Value, x: Value) -> Built {
        let (ax, ay) = (self.un(UnaryOp::Abs, x)?, self.un(UnaryOp::Abs, y)?);
        let steep = self.bin(BinaryOp::Lt, ax, ay)?;
        let (flat, tall) = (self.bin(BinaryOp::Div, ay, ax)?, self.bin(BinaryOp::Div, ax, ay)?);
        let ratio = self.select(steep, tall, flat)?;
        // Both 0 or both infinite have no ratio.
        let (equal, origin) = (self.bin(BinaryOp::Eq, ax, ay)?, self.bin_s(BinaryOp::Eq, ax, 0.0)?);
        let (zero, one) = (self.like(x, 0.0)?, self.like(x, 1.0)?);
        let (zero, one) = (self.spread(zero, x)?, self.spread(one, x)?);
        let at_equal = self.select(origin, zero, one)?;
        let ratio = self.select(equal, at_equal, ratio)?;
        let angle = self.un(UnaryOp::Atan, ratio)?;
        let quarter = self.like(x, FRAC_PI_2)?;
        let rest = self.bin(BinaryOp::Sub, quarter, angle)?;
        let angle = self.select(steep, rest, angle)?;
        let half = self.like(x, PI)?;
        let rest = self.bin(BinaryOp::Sub, half, angle)?;
        let left = self.negative(x)?;
        let angle = self.select(left, rest, angle)?;
        let (below, mirrored) = (self.negative(y)?, self.un(UnaryOp::Neg, angle)?);
        self.select(below, mirrored, angle)
    }

    /// A scalar in the shape of `x`.
    fn spread(&mut self, scalar: Value, x: Value) -> Built {
        let dims = self.tensor(x)?.dims;
        self.b().broadcast_to(scalar, dims)
    }

    /// Whether a float is below 0 or -0.
    fn negative(&mut self, x: Value) -> Built {
        let one = self.like(x, 1.0)?;
        let reciprocal = self.bin(BinaryOp::Div, one, x)?;
        let (below, zero_below) = (self.bin_s(BinaryOp::Lt, x, 0.0)?, self.bin_s(BinaryOp::Lt, reciprocal, 0.0)?);
        self.bin(BinaryOp::Or, below, zero_below)
    }

    /// ONNX shifts unsigned integers by less than their width.
    fn shift(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        let dtype = self.dtype(a)?;
        let (bits, width) = (unsigned(dtype), i64::from(dtype.bits()));
        let known = self.constant(b).and_then(|t| t.to_i64s());
        let inside = known.is_some_and(|v| v.iter().all(|v| (0..width).contains(v)));
        let by = self.cast(b, bits)?;
        // Counts outside the width: 0 is shifted by 0 there.
        let (by, ok) = if inside {
            (by, None)
        } else {
            let ok = self.bin_s(BinaryOp::Lt, by, width as f64)?;
            let zero = self.like(by, 0.0)?;
            (self.select(ok, by, zero)?, Some(ok))
        };
        // Arithmetic to the right: the complement of a negative number is shifted, so that ones come in.
        let sign = if op == BinaryOp::Shr && dtype.class() == Class::Signed {
            Some(self.bin_s(BinaryOp::Lt, a, 0.0)?)
        } else {
            None
        };
        let mut x = self.flipped(a, sign)?;
        x = self.cast(x, bits)?;
        x = self.bin(op, x, by)?;
        if let Some(ok) = ok {
            let zero = self.like(x, 0.0)?;
            x = self.select(ok, x, zero)?;
        }
        x = self.cast(x, dtype)?;
        self.flipped(x, sign)
    }

    /// The bitwise complement where `sign` holds.
    fn flipped(&mut self, x: Value, sign: Option<Value>) -> Built {
        let Some(sign) = sign else { return Ok(x) };
        let complement = self.un(UnaryOp::Not, x)?;
        self.select(sign, complement, x)
    }

    /// A choice, in a type that `Where` has kernels for.
    pub(super) fn select(&mut self, c: Value, a: Value, b: Value) -> Built {
        let wide = match self.dtype(a)? {
            DType::Bool => {
                let (yes, otherwise) = (self.bin(BinaryOp::And, c, a)?, self.un(UnaryOp::Not, c)?);
                let no = self.bin(BinaryOp::And, otherwise, b)?;
                return self.bin(BinaryOp::Or, yes, no);
            }
            DType::I16 | DType::U16 => DType::I32,
            DType::U64 => DType::I64,
            DType::BF16 => DType::F32,
            other => super::stored(other),
        };
        self.through(wide, &[a, b], |e, v| e.b().select(c, v[0], v[1]))
    }

    /// ONNX clamps casts to 8-bit floats only.
    pub(super) fn cast_to(&mut self, x: Value, to: DType, saturate: bool) -> Built {
        let from = self.dtype(x)?;
        if !saturate || !to.is_int() {
            return self.op(Op::Cast { to, saturate }, &[x]);
        }
        let bits = i32::try_from(to.bits()).unwrap_or(64);
        let signed = to.class() == Class::Signed;
        let (low, high) = if signed { (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1)) } else { (0.0, 2f64.powi(bits)) };
        let least = self.limit(to, low)?;
        let most = self.limit(to, high)?;
        if from.is_float() && from != DType::F32 && from != DType::F64 {
            let wide = self.cast(x, DType::F32)?;
            return self.cast_to(wide, to, true);
        }
        if !from.is_float() {
            // Within i64 (a u64 above it is above everything but u64, which needs no clamp).
            let x = match from {
                DType::U64 if to == DType::U64 => return Ok(x),
                DType::U64 => {
                    let cap = self.scalar(from, i64::MAX as f64)?;
                    let cap = self.spread(cap, x)?;
                    let one = self.like(x, 1.0)?;
                    // i64::MAX as a float is 2^63.
                    let cap = self.bin(BinaryOp::Sub, cap, one)?;
                    self.bin(BinaryOp::Min, x, cap)?
                }
                _ => x,
            };
            let x = self.cast(x, DType::I64)?;
            let above = match to {
                DType::U64 | DType::I64 => x,
                _ => {
                    let most = self.cast(most, DType::I64)?;
                    self.bin(BinaryOp::Min, x, most)?
                }
            };
            let clamped = match to {
                DType::I64 => above,
                _ => {
                    let least = self.cast(least, DType::I64)?;
                    self.bin(BinaryOp::Max, above, least)?
                }
            };
            return self.cast(clamped, to);
        }
        // The bounds are powers of 2, so floats hold them; NaN becomes 0.
        let (under, below_high) = (self.bin_s(BinaryOp::Lt, x, low)?, self.bin_s(BinaryOp::Lt, x, high)?);
        let not_under = self.un(UnaryOp::Not, under)?;
        let inside = self.bin(BinaryOp::And, below_high, not_under)?;
        let zero = self.like(x, 0.0)?;
        let safe = self.select(inside, x, zero)?;
        let number = self.cast(safe, to)?;
        let bound = self.like(x, high)?;
        let over = self.bin(BinaryOp::Le, bound, x)?;
        let topped = self.select(over, most, number)?;
        self.select(under, least, topped)
    }

    /// The lowest value of an integer type, or the highest for the power of 2 above it.
    fn limit(&mut self, dtype: DType, bound: f64) -> Built {
        let value = if bound <= 0.0 { bound as i128 } else { bound as i128 - 1 };
        let bytes = value.to_le_bytes();
        let tensor = Tensor::from_bytes(dtype, &[], bytes.get(..dtype.size()).unwrap_or(&[])).map_err(internal)?;
        self.b().constant(tensor)
    }

    /// Between integers of one width a cast keeps the bits; between others only `BitCast` does.
    pub(super) fn bitcast(&mut self, x: Value, to: DType) -> Built {
        let from = self.dtype(x)?;
        if from == to {
            return Ok(x);
        }
        if from.is_int() && to.is_int() {
            return self.cast(x, to);
        }
        self.op(Op::Bitcast { to }, &[x])
    }
}

pub(super) fn internal(error: crate::tensor::TensorError) -> crate::op::infer::TypeError {
    crate::op::infer::TypeError { op: "constant", message: error.to_string() }
}

/// The unsigned integer of the same width.
fn unsigned(dtype: DType) -> DType {
    match dtype {
        DType::I8 => DType::U8,
        DType::I16 => DType::U16,
        DType::I32 => DType::U32,
        DType::I64 => DType::U64,
        other => other,
    }
}
