//! The operations of the loop IR on one value each, as CLIF.
//!
//! How types are carried: integers in their width, bool as an i8 that is 0 or 1, f16 and bf16 as the i16 of their bits
//! (only moved, selected, reinterpreted), the 8-bit floats and the 2- and 4-bit types as i8. The meaning of each
//! operation is that of the core op of the same name, bit for bit, where [`crate::kernel`]'s primitives leave nothing open;
//! nothing here traps.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I16, I32, I32X4, I64};
use cranelift_codegen::ir::{AbiParam, BlockArg, Endianness, InstBuilder, MemFlagsData, Signature, Type, Value};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::abi::FUNCTIONS;
use super::error::Refusal;
use super::target::Features;
use crate::kernel::{Combine, Scalar};

/// How memory is accessed: never out of bounds, not always aligned.
pub(super) const MEMORY: MemFlagsData = MemFlagsData::new().with_notrap();

/// How a value is reinterpreted.
pub(super) const BITS: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

/// The CLIF type that carries an element type.
pub(super) fn clif_type(dtype: DType) -> Result<Type, Refusal> {
    match (dtype, dtype.size()) {
        (DType::F32, _) => Ok(F32),
        (DType::F64, _) => Ok(F64),
        (_, 1) => Ok(I8),
        (_, 2) => Ok(I16),
        (_, 4) => Ok(I32),
        (_, 8) => Ok(I64),
        _ => Err(Refusal::Unsupported(format!("a value of type {dtype}"))),
    }
}

/// Whether numbers of a type can be computed with as they are.
fn arithmetic(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64) || (dtype.class() != Class::Float && dtype.class() != Class::Text)
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}

fn is_signed(dtype: DType) -> bool {
    dtype.class() == Class::Signed
}

fn unsupported(op: &str, dtype: DType) -> Refusal {
    if dtype.is_float() && !is_float(dtype) {
        return Refusal::Invalid(format!("`{op}` on {dtype}: arithmetic on it is written as casts to f32 and back"));
    }
    Refusal::Invalid(format!("`{op}` on {dtype}"))
}

/// Whether an operation is a call through the function table.
pub(super) fn is_call(unary: Option<UnaryOp>, binary: Option<BinaryOp>, dtype: DType) -> bool {
    unary.is_some_and(UnaryOp::is_elementary)
        || binary.is_some_and(|op| match op {
            BinaryOp::Pow | BinaryOp::Atan2 => true,
            BinaryOp::Rem => is_float(dtype),
            _ => false,
        })
}

/// The element that a reduction starts from; argmin and argmax as min and max.
pub(super) fn neutral(combine: Combine, dtype: DType) -> Result<Scalar, Refusal> {
    combine.of_values().neutral(dtype).ok_or_else(|| unsupported("reduce", dtype))
}

/// Writes operations at the builder's position.
pub(super) struct Ops<'f, 'b> {
    /// Where to.
    pub(super) f: &'f mut FunctionBuilder<'b>,
    /// What the machine has.
    pub(super) features: Features,
    /// The function table, where there is one.
    pub(super) functions: Option<Value>,
    /// How functions are called.
    pub(super) convention: CallConv,
}

impl Ops<'_, '_> {
    /// A constant.
    pub(super) fn constant(&mut self, value: Scalar) -> Result<Value, Refusal> {
        Ok(match clif_type(value.dtype)? {
            F32 => self.f.ins().f32const(f32::from_bits(value.bits as u32)),
            F64 => self.f.ins().f64const(f64::from_bits(value.bits)),
            ty => self.integer(ty, value.bits),
        })
    }

    /// The low bits of a number as an integer of some width.
    fn integer(&mut self, ty: Type, bits: u64) -> Value {
        // CLIF wants constants zero-extended from their width.
        let mask = if ty.bits() >= 64 { u64::MAX } else { (1u64 << ty.bits()) - 1 };
        self.f.ins().iconst(ty, (bits & mask) as i64)
    }

    fn float(&mut self, dtype: DType, value: f64) -> Value {
        if dtype == DType::F32 { self.f.ins().f32const(value as f32) } else { self.f.ins().f64const(value) }
    }

    /// An integer in a wider type, by its sign.
    pub(super) fn widen(&mut self, x: Value, from: DType, ty: Type) -> Value {
        if self.f.func.dfg.value_type(x).bits() >= ty.bits() {
            return x;
        }
        if is_signed(from) { self.f.ins().sextend(ty, x) } else { self.f.ins().uextend(ty, x) }
    }

    fn narrow(&mut self, x: Value, ty: Type) -> Value {
        if self.f.func.dfg.value_type(x).bits() <= ty.bits() {
            return x;
        }
        self.f.ins().ireduce(ty, x)
    }

    /// An op of one operand.
    pub(super) fn unary(&mut self, op: UnaryOp, dtype: DType, x: Value) -> Result<Value, Refusal> {
        use UnaryOp::{Abs, Ceil, Floor, Neg, Not, RoundEven, Sign, Sqrt, Trunc};
        if !arithmetic(dtype) {
            return Err(unsupported(op.name(), dtype));
        }
        if is_call(Some(op), None, dtype) {
            return self.call_float(op.name(), dtype, &[x]);
        }
        Ok(match (op, dtype.class()) {
            (Neg, Class::Float) => self.f.ins().fneg(x),
            (Neg, Class::Signed | Class::Unsigned) => self.f.ins().ineg(x),
            (Abs, Class::Float) => self.f.ins().fabs(x),
            (Abs, Class::Signed) => {
                let ty = self.f.func.dfg.value_type(x);
                let zero = self.integer(ty, 0);
                let negative = self.f.ins().icmp(IntCC::SignedLessThan, x, zero);
                let negated = self.f.ins().ineg(x);
                self.f.ins().select(negative, negated, x)
            }
            (Abs, Class::Unsigned) => x,
            (Sign, Class::Float) => {
                let zero = self.float(dtype, 0.0);
                let one = self.float(dtype, 1.0);
                let minus = self.float(dtype, -1.0);
                let below = self.f.ins().fcmp(FloatCC::LessThan, x, zero);
                let above = self.f.ins().fcmp(FloatCC::GreaterThan, x, zero);
                let rest = self.f.ins().select(below, minus, x);
                self.f.ins().select(above, one, rest)
            }
            (Sign, Class::Signed | Class::Unsigned) => {
                let ty = self.f.func.dfg.value_type(x);
                let zero = self.integer(ty, 0);
                let one = self.integer(ty, 1);
                let minus = self.integer(ty, u64::MAX);
                let (below, nonzero) = if is_signed(dtype) {
                    (self.f.ins().icmp(IntCC::SignedLessThan, x, zero), self.f.ins().icmp(IntCC::NotEqual, x, zero))
                } else {
                    let never = self.f.ins().iconst(I8, 0);
                    (never, self.f.ins().icmp(IntCC::NotEqual, x, zero))
                };
                let rest = self.f.ins().select(nonzero, one, zero);
                self.f.ins().select(below, minus, rest)
            }
            (Floor | Ceil | Trunc | RoundEven, Class::Float) => {
                if !self.features.round {
                    return Err(Refusal::Unsupported(format!("`{}` (it needs SSE4.1)", op.name())));
                }
                match op {
                    Floor => self.f.ins().floor(x),
                    Ceil => self.f.ins().ceil(x),
                    Trunc => self.f.ins().trunc(x),
                    _ => self.f.ins().nearest(x),
                }
            }
            (Floor | Ceil | Trunc | RoundEven, Class::Signed | Class::Unsigned) => x,
            (Sqrt, Class::Float) => self.f.ins().sqrt(x),
            (Not, Class::Bool) => {
                let one = self.f.ins().iconst(I8, 1);
                self.f.ins().bxor(x, one)
            }
            (Not, Class::Signed | Class::Unsigned) => self.f.ins().bnot(x),
            _ => return Err(unsupported(op.name(), dtype)),
        })
    }

    /// An op of two operands of one type.
    pub(super) fn binary(&mut self, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Result<Value, Refusal> {
        use BinaryOp::{Add, And, Atan2, Div, Eq, Le, Lt, Max, Min, Mul, Or, Pow, Rem, Shl, Shr, Sub, Xor};
        if !arithmetic(dtype) {
            return Err(unsupported(op.name(), dtype));
        }
        let signed = is_signed(dtype);
        let class = dtype.class();
        let (float, bool_) = (class == Class::Float, class == Class::Bool);
        Ok(match op {
            Add if float => self.f.ins().fadd(a, b),
            Sub if float => self.f.ins().fsub(a, b),
            Mul if float => self.f.ins().fmul(a, b),
            Div if float => self.f.ins().fdiv(a, b),
            Rem if float => self.call_float("fmod", dtype, &[a, b])?,
            Pow | Atan2 if float => self.call_float(op.name(), dtype, &[a, b])?,
            Min if float => self.f.ins().fmin(a, b),
            Max if float => self.f.ins().fmax(a, b),
            Eq if float => self.f.ins().fcmp(FloatCC::Equal, a, b),
            Lt if float => self.f.ins().fcmp(FloatCC::LessThan, a, b),
            Le if float => self.f.ins().fcmp(FloatCC::LessThanOrEqual, a, b),
            And if !float => self.f.ins().band(a, b),
            Or if !float => self.f.ins().bor(a, b),
            Xor if !float => self.f.ins().bxor(a, b),
            Eq => self.f.ins().icmp(IntCC::Equal, a, b),
            Lt if signed => self.f.ins().icmp(IntCC::SignedLessThan, a, b),
            Lt => self.f.ins().icmp(IntCC::UnsignedLessThan, a, b),
            Le if signed => self.f.ins().icmp(IntCC::SignedLessThanOrEqual, a, b),
            Le => self.f.ins().icmp(IntCC::UnsignedLessThanOrEqual, a, b),
            Min | Max => {
                let less = if signed { IntCC::SignedLessThan } else { IntCC::UnsignedLessThan };
                let (x, y) = if op == Min { (a, b) } else { (b, a) };
                let first = self.f.ins().icmp(less, x, y);
                self.f.ins().select(first, a, b)
            }
            Add if !bool_ => self.f.ins().iadd(a, b),
            Sub if !bool_ => self.f.ins().isub(a, b),
            Mul if !bool_ => self.f.ins().imul(a, b),
            Div | Rem if class == Class::Signed || class == Class::Unsigned => self.divide(op, dtype, a, b),
            Pow if !bool_ => {
                let ty = self.f.func.dfg.value_type(a);
                let (x, n) = (self.widen(a, dtype, I64), self.widen(b, dtype, I64));
                let power = self.call(if signed { "ipow" } else { "upow" }, &[I64, I64], I64, &[x, n])?;
                self.narrow(power, ty)
            }
            Shl | Shr if !bool_ => self.shift(op, dtype, a, b),
            _ => return Err(unsupported(op.name(), dtype)),
        })
    }

    /// Integer quotient or remainder: by 0 gives 0, and the lowest number by -1 wraps.
    fn divide(&mut self, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Value {
        let quotient = op == BinaryOp::Div;
        let ty = self.f.func.dfg.value_type(a);
        let wide = if ty.bits() < 32 { I32 } else { ty };
        let (a, b) = (self.widen(a, dtype, wide), self.widen(b, dtype, wide));
        let (zero, one) = (self.integer(wide, 0), self.integer(wide, 1));
        let by_zero = self.f.ins().icmp(IntCC::Equal, b, zero);
        let result = if is_signed(dtype) {
            let minus = self.integer(wide, u64::MAX);
            let by_minus = self.f.ins().icmp(IntCC::Equal, b, minus);
            let special = self.f.ins().bor(by_zero, by_minus);
            let safe = self.f.ins().select(special, one, b);
            if quotient {
                let plain = self.f.ins().sdiv(a, safe);
                let negated = self.f.ins().ineg(a);
                self.f.ins().select(by_minus, negated, plain)
            } else {
                // A remainder by 1 is 0, as is one by -1.
                self.f.ins().srem(a, safe)
            }
        } else {
            let safe = self.f.ins().select(by_zero, one, b);
            if quotient { self.f.ins().udiv(a, safe) } else { self.f.ins().urem(a, safe) }
        };
        let result = self.f.ins().select(by_zero, zero, result);
        self.narrow(result, ty)
    }

    /// A shift by less than the width: what a larger amount gives is open, as for the primitive.
    fn shift(&mut self, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Value {
        match op {
            BinaryOp::Shl => self.f.ins().ishl(a, b),
            _ if is_signed(dtype) => self.f.ins().sshr(a, b),
            _ => self.f.ins().ushr(a, b),
        }
    }

    /// a b + c, rounded once.
    pub(super) fn fma(&mut self, dtype: DType, a: Value, b: Value, c: Value) -> Result<Value, Refusal> {
        match (dtype, self.features.fma) {
            (DType::F32 | DType::F64, true) => Ok(self.f.ins().fma(a, b, c)),
            (DType::F32, false) => self.call("fmaf", &[F32, F32, F32], F32, &[a, b, c]),
            (DType::F64, false) => self.call("fma", &[F64, F64, F64], F64, &[a, b, c]),
            _ => Err(unsupported("fma", dtype)),
        }
    }

    /// A conversion, as the core op `cast`.
    pub(super) fn cast(&mut self, from: DType, to: DType, saturate: bool, x: Value) -> Result<Value, Refusal> {
        if from == to {
            return Ok(x);
        }
        let none = || Refusal::Invalid(format!("a cast from {from} to {to}: casts of these types are written out"));
        if !arithmetic(from) || !arithmetic(to) || from.is_storage_only() || to.is_storage_only() {
            return Err(none());
        }
        let ty = clif_type(to)?;
        Ok(match (from.class(), to.class()) {
            (Class::Float, Class::Bool) => {
                let zero = self.float(from, 0.0);
                self.f.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            (_, Class::Bool) => {
                let from_ty = self.f.func.dfg.value_type(x);
                let zero = self.integer(from_ty, 0);
                self.f.ins().icmp(IntCC::NotEqual, x, zero)
            }
            (Class::Float, Class::Float) => {
                if to == DType::F64 {
                    self.f.ins().fpromote(F64, x)
                } else {
                    self.f.ins().fdemote(F32, x)
                }
            }
            (Class::Float, _) if saturate => self.float_to_int_clamped(to, x),
            (Class::Float, _) if from == DType::F32 && to == DType::I32 && self.features.blend => {
                // The machine's own conversion: outside of i32 it gives what the primitive leaves open.
                let vector = self.f.ins().scalar_to_vector(F32X4, x);
                let vector = self.f.ins().x86_cvtt2dq(I32X4, vector);
                self.f.ins().extractlane(vector, 0)
            }
            (Class::Float, _) if to == DType::U64 => {
                let zero = self.float(from, 0.0);
                let negative = self.f.ins().fcmp(FloatCC::LessThan, x, zero);
                let below = self.f.ins().fcvt_to_sint_sat(I64, x);
                let above = self.f.ins().fcvt_to_uint_sat(I64, x);
                self.f.ins().select(negative, below, above)
            }
            (Class::Float, _) => {
                let wide = self.f.ins().fcvt_to_sint_sat(I64, x);
                self.narrow(wide, ty)
            }
            (_, Class::Float) => {
                if from == DType::U64 {
                    self.f.ins().fcvt_from_uint(ty, x)
                } else {
                    let wide = self.widen(x, from, if from.size() < 4 { I32 } else { I64 });
                    let wide = if from == DType::U32 { self.widen(wide, from, I64) } else { wide };
                    self.f.ins().fcvt_from_sint(ty, wide)
                }
            }
            (Class::Bool, _) => self.widen(x, DType::U8, ty),
            (_, _) => {
                let wide = self.widen(x, from, I64);
                let wide = if saturate { self.clamp(from, to, wide) } else { wide };
                // From a narrower type the extension above already has the right width or more.
                self.narrow(wide, ty)
            }
        })
    }

    fn float_to_int_clamped(&mut self, to: DType, x: Value) -> Value {
        let wide = if to.size() == 8 { I64 } else { I32 };
        if is_signed(to) {
            let value = self.f.ins().fcvt_to_sint_sat(wide, x);
            if to.size() >= 4 {
                return value;
            }
            let value = self.f.ins().sextend(I64, value);
            let value = self.clamp(DType::I64, to, value);
            self.f.ins().ireduce(if to.size() == 2 { I16 } else { I8 }, value)
        } else {
            let value = self.f.ins().fcvt_to_uint_sat(wide, x);
            if to.size() >= 4 {
                return value;
            }
            let value = self.f.ins().uextend(I64, value);
            let value = self.clamp(DType::U64, to, value);
            self.f.ins().ireduce(if to.size() == 2 { I16 } else { I8 }, value)
        }
    }

    /// An i64 (holding a value of type `from`) clamped to the range of `to`.
    fn clamp(&mut self, from: DType, to: DType, x: Value) -> Value {
        let bits = to.size() as u32 * 8;
        let highest = if is_signed(to) { (1u64 << (bits - 1)) - 1 } else { u64::MAX >> (64 - bits) };
        let (mut x, from_signed) = (x, is_signed(from));
        if from_signed {
            let lowest = if is_signed(to) { (highest as i64).wrapping_neg().wrapping_sub(1) } else { 0 };
            let low = self.f.ins().iconst(I64, lowest);
            let below = self.f.ins().icmp(IntCC::SignedLessThan, x, low);
            x = self.f.ins().select(below, low, x);
        }
        if from_signed && highest > i64::MAX as u64 {
            return x;
        }
        let high = self.f.ins().iconst(I64, highest as i64);
        let greater = if from_signed { IntCC::SignedGreaterThan } else { IntCC::UnsignedGreaterThan };
        let above = self.f.ins().icmp(greater, x, high);
        self.f.ins().select(above, high, x)
    }

    /// The same bits as another type.
    pub(super) fn bitcast(&mut self, from: DType, to: DType, x: Value) -> Result<Value, Refusal> {
        if from.size() != to.size() {
            return Err(Refusal::Invalid(format!("a bitcast from {from} to {to}")));
        }
        let (old, new) = (clif_type(from)?, clif_type(to)?);
        Ok(if old == new { x } else { self.f.ins().bitcast(new, BITS, x) })
    }

    /// One step of a reduction (not of argmin and argmax).
    pub(super) fn combine(&mut self, how: Combine, dtype: DType, a: Value, b: Value) -> Result<Value, Refusal> {
        self.binary(how.op(), dtype, a, b)
    }

    /// `ok ? value : op(x)` of f32, the call made only when it counts.
    pub(super) fn rescue(&mut self, op: UnaryOp, ok: Value, value: Value, x: Value) -> Result<Value, Refusal> {
        let (rescued, after) = (self.f.create_block(), self.f.create_block());
        self.f.set_cold_block(rescued);
        let result = self.f.append_block_param(after, F32);
        self.f.ins().brif(ok, after, &[BlockArg::Value(value)], rescued, &[]);
        self.f.switch_to_block(rescued);
        let called = self.call_float(op.name(), DType::F32, &[x])?;
        self.f.ins().jump(after, &[BlockArg::Value(called)]);
        self.f.switch_to_block(after);
        Ok(result)
    }

    /// A float function of the table; f32 goes through f64.
    pub(super) fn call_float(&mut self, name: &str, dtype: DType, args: &[Value]) -> Result<Value, Refusal> {
        if dtype == DType::F64 {
            return self.call(name, &vec![F64; args.len()], F64, args);
        }
        if dtype != DType::F32 {
            return Err(unsupported(name, dtype));
        }
        let wide: Vec<Value> = args.iter().map(|x| self.f.ins().fpromote(F64, *x)).collect();
        let result = self.call(name, &vec![F64; args.len()], F64, &wide)?;
        Ok(self.f.ins().fdemote(F32, result))
    }

    fn call(&mut self, name: &str, params: &[Type], result: Type, args: &[Value]) -> Result<Value, Refusal> {
        let position = FUNCTIONS.iter().position(|f| *f == name);
        let position = position.ok_or_else(|| Refusal::Internal(format!("no function `{name}`")))?;
        let table = self.functions.ok_or_else(|| Refusal::Internal(format!("a call of `{name}` in a strip")))?;
        let mut signature = Signature::new(self.convention);
        signature.params.extend(params.iter().map(|ty| AbiParam::new(*ty)));
        signature.returns.push(AbiParam::new(result));
        let signature = self.f.import_signature(signature);
        let address = self.f.ins().load(I64, MEMORY, table, 8 * position as i32);
        let call = self.f.ins().call_indirect(signature, address, args);
        let results = self.f.inst_results(call);
        results.first().copied().ok_or_else(|| Refusal::Internal(format!("`{name}` gives nothing")))
    }
}
