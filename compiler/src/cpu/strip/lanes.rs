//! Operations on four lanes of 32 bits, as CLIF on 128-bit vectors.
//!
//! How lanes hold types: f32 as itself; integers extended to 32 bits by their sign; bools as all ones or zeros; 16- and
//! 8-bit floats as their bits, zero-extended. What has no vector instruction is done lane by lane with the scalar code,
//! so nothing is refused for that.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{BlockArg, ConstantData, InstBuilder, Type, Value};
use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::fits_lane;
use crate::cpu::error::Refusal;
use crate::cpu::scalar::{BITS, MEMORY, Ops, clif_type};
use crate::kernel::{Combine, Scalar};

/// Lanes of one value.
pub(super) const WIDTH: usize = 4;

/// The vector type that holds four values of a type.
pub(super) fn vector_type(dtype: DType) -> Type {
    if dtype == DType::F32 { F32X4 } else { I32X4 }
}

/// Writes operations on vectors, with the scalar ones at hand.
pub(super) struct Lanes<'f, 'b> {
    pub(super) ops: Ops<'f, 'b>,
}

impl Lanes<'_, '_> {
    fn refuse(what: String) -> Refusal {
        Refusal::Unsupported(what)
    }

    /// The same bits in each lane.
    fn splat_bits(&mut self, ty: Type, bits: u32) -> Value {
        let bytes = bits.to_le_bytes().repeat(WIDTH);
        let constant = self.ops.f.func.dfg.constants.insert(ConstantData::from(bytes.as_slice()));
        self.ops.f.ins().vconst(ty, constant)
    }

    /// A constant in each lane.
    pub(super) fn constant(&mut self, value: Scalar) -> Value {
        let bits = lane_bits(value);
        self.splat_bits(vector_type(value.dtype), bits)
    }

    fn as_type(&mut self, ty: Type, x: Value) -> Value {
        if self.ops.f.func.dfg.value_type(x) == ty { x } else { self.ops.f.ins().bitcast(ty, BITS, x) }
    }

    /// An integer result brought back into its type's range.
    fn normal(&mut self, dtype: DType, x: Value) -> Value {
        let unused = 32 - 8 * dtype.size() as i64;
        if unused <= 0 {
            return x;
        }
        if dtype.class() == Class::Signed {
            let high = self.ops.f.ins().ishl_imm_u(x, unused);
            return self.ops.f.ins().sshr_imm_u(high, unused);
        }
        let mask = self.splat_bits(I32X4, u32::MAX >> unused);
        self.ops.f.ins().band(x, mask)
    }

    /// Four elements in a row.
    pub(super) fn load(&mut self, dtype: DType, address: Value, offset: i32) -> Value {
        let f = &mut *self.ops.f;
        let signed = dtype.class() == Class::Signed;
        let x = match dtype.size() {
            1 => {
                let four = f.ins().load(I32, MEMORY, address, offset);
                let bytes = f.ins().scalar_to_vector(I32X4, four);
                let bytes = f.ins().bitcast(I8X16, BITS, bytes);
                let words = if signed { f.ins().swiden_low(bytes) } else { f.ins().uwiden_low(bytes) };
                if signed { f.ins().swiden_low(words) } else { f.ins().uwiden_low(words) }
            }
            2 => {
                let four = f.ins().load(I64, MEMORY, address, offset);
                let words = f.ins().scalar_to_vector(I64X2, four);
                let words = f.ins().bitcast(I16X8, BITS, words);
                if signed { f.ins().swiden_low(words) } else { f.ins().uwiden_low(words) }
            }
            _ => f.ins().load(vector_type(dtype), MEMORY, address, offset),
        };
        if dtype == DType::Bool { self.is_not_zero(x) } else { x }
    }

    fn is_not_zero(&mut self, x: Value) -> Value {
        let zero = self.splat_bits(I32X4, 0);
        self.ops.f.ins().icmp(IntCC::NotEqual, x, zero)
    }

    /// Stores four elements in a row.
    pub(super) fn store(&mut self, dtype: DType, x: Value, address: Value, offset: i32) {
        let x = if dtype == DType::Bool {
            let one = self.splat_bits(I32X4, 1);
            self.ops.f.ins().band(x, one)
        } else {
            x
        };
        let f = &mut *self.ops.f;
        let packed: [u8; 16] = match dtype.size() {
            1 => [0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12],
            2 => [0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13],
            _ => {
                f.ins().store(MEMORY, x, address, offset);
                return;
            }
        };
        let mask = f.func.dfg.immediates.push(ConstantData::from(packed.as_slice()));
        let bytes = f.ins().bitcast(I8X16, BITS, x);
        let bytes = f.ins().shuffle(bytes, bytes, mask);
        let all = if dtype.size() == 1 { I32X4 } else { I64X2 };
        let all = f.ins().bitcast(all, BITS, bytes);
        let low = f.ins().extractlane(all, 0);
        f.ins().store(MEMORY, low, address, offset);
    }

    /// An element from memory into a lane's form, as a scalar.
    fn load_one(&mut self, dtype: DType, address: Value) -> Result<Value, Refusal> {
        let x = self.ops.f.ins().load(clif_type(dtype)?, MEMORY, address, 0);
        let x = if dtype == DType::Bool { self.ops.cast(DType::U8, DType::Bool, false, x)? } else { x };
        Ok(self.lane_of(dtype, x))
    }

    /// Four elements from four addresses.
    pub(super) fn gather(&mut self, dtype: DType, addresses: [Value; WIDTH]) -> Result<Value, Refusal> {
        let mut elements = Vec::with_capacity(WIDTH);
        for address in addresses {
            elements.push(self.load_one(dtype, address)?);
        }
        Ok(self.assemble(vector_type(dtype), &elements))
    }

    /// Four elements to four addresses.
    pub(super) fn scatter(&mut self, dtype: DType, x: Value, addresses: [Value; WIDTH]) -> Result<(), Refusal> {
        for (lane, address) in addresses.into_iter().enumerate() {
            let element = self.scalar_of(dtype, x, lane)?;
            self.ops.f.ins().store(MEMORY, element, address, 0);
        }
        Ok(())
    }

    /// Scalars in lane form as one vector.
    fn assemble(&mut self, ty: Type, elements: &[Value]) -> Value {
        let mut vector = None;
        for (lane, element) in elements.iter().enumerate() {
            vector = Some(match vector {
                None => self.ops.f.ins().scalar_to_vector(ty, *element),
                Some(vector) => self.ops.f.ins().insertlane(vector, *element, lane as u8),
            });
        }
        vector.unwrap_or_else(|| self.splat_bits(ty, 0))
    }

    /// A scalar as lanes hold it.
    pub(super) fn lane_of(&mut self, dtype: DType, x: Value) -> Value {
        match dtype {
            DType::F32 => x,
            DType::Bool => {
                let wide = self.ops.f.ins().uextend(I32, x);
                self.ops.f.ins().ineg(wide)
            }
            _ => self.ops.widen(x, dtype, I32),
        }
    }

    /// The scalar in a lane.
    fn scalar_of(&mut self, dtype: DType, x: Value, lane: usize) -> Result<Value, Refusal> {
        let x = self.ops.f.ins().extractlane(x, lane as u8);
        Ok(match clif_type(dtype)? {
            I8 => {
                let low = self.ops.f.ins().ireduce(I8, x);
                if dtype == DType::Bool { self.ops.f.ins().band_imm_u(low, 1) } else { low }
            }
            I16 => self.ops.f.ins().ireduce(I16, x),
            _ => x,
        })
    }

    /// Does with each lane what `write` does with scalars.
    fn each(
        &mut self,
        operands: &[(DType, Value)],
        result: DType,
        mut write: impl FnMut(&mut Ops<'_, '_>, &[Value]) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let mut elements = Vec::with_capacity(WIDTH);
        for lane in 0..WIDTH {
            let mut scalars = Vec::with_capacity(operands.len());
            for (dtype, x) in operands {
                scalars.push(self.scalar_of(*dtype, *x, lane)?);
            }
            let value = write(&mut self.ops, &scalars)?;
            elements.push(self.lane_of(result, value));
        }
        Ok(self.assemble(vector_type(result), &elements))
    }

    /// An op of one operand.
    pub(super) fn unary(&mut self, op: UnaryOp, dtype: DType, x: Value) -> Result<Value, Refusal> {
        let rounds = self.ops.features.round;
        let ins = |lanes: &mut Self| match (dtype.class(), op) {
            (Class::Float, _) if dtype != DType::F32 => None,
            (Class::Float, UnaryOp::Neg) => Some(lanes.ops.f.ins().fneg(x)),
            (Class::Float, UnaryOp::Abs) => Some(lanes.ops.f.ins().fabs(x)),
            (Class::Float, UnaryOp::Sqrt) => Some(lanes.ops.f.ins().sqrt(x)),
            (Class::Float, UnaryOp::Floor) if rounds => Some(lanes.ops.f.ins().floor(x)),
            (Class::Float, UnaryOp::Ceil) if rounds => Some(lanes.ops.f.ins().ceil(x)),
            (Class::Float, UnaryOp::Trunc) if rounds => Some(lanes.ops.f.ins().trunc(x)),
            (Class::Float, UnaryOp::RoundEven) if rounds => Some(lanes.ops.f.ins().nearest(x)),
            (Class::Bool, UnaryOp::Not) => Some(lanes.ops.f.ins().bnot(x)),
            (Class::Signed | Class::Unsigned, UnaryOp::Not | UnaryOp::Neg) => {
                let all = if op == UnaryOp::Not { lanes.ops.f.ins().bnot(x) } else { lanes.ops.f.ins().ineg(x) };
                Some(lanes.normal(dtype, all))
            }
            _ => None,
        };
        match ins(self) {
            Some(value) => Ok(value),
            None => self.each(&[(dtype, x)], dtype, |ops, v| match v {
                [x] => ops.unary(op, dtype, *x),
                _ => Err(Self::refuse(format!("`{}` on {dtype}", op.name()))),
            }),
        }
    }

    /// An op of two operands of one type.
    pub(super) fn binary(&mut self, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Result<Value, Refusal> {
        use BinaryOp::{Add, And, Div, Eq, Le, Lt, Max, Min, Mul, Or, Sub, Xor};
        let f = &mut *self.ops.f;
        let value = match (dtype.class(), op) {
            (Class::Float, _) if dtype != DType::F32 => None,
            (Class::Float, Add) => Some(f.ins().fadd(a, b)),
            (Class::Float, Sub) => Some(f.ins().fsub(a, b)),
            (Class::Float, Mul) => Some(f.ins().fmul(a, b)),
            (Class::Float, Div) => Some(f.ins().fdiv(a, b)),
            (Class::Float, Min) => Some(f.ins().fmin(a, b)),
            (Class::Float, Max) => Some(f.ins().fmax(a, b)),
            (Class::Float, Eq) => Some(f.ins().fcmp(FloatCC::Equal, a, b)),
            (Class::Float, Lt) => Some(f.ins().fcmp(FloatCC::LessThan, a, b)),
            (Class::Float, Le) => Some(f.ins().fcmp(FloatCC::LessThanOrEqual, a, b)),
            (Class::Float | Class::Text, _) => None,
            (_, And) => Some(f.ins().band(a, b)),
            (_, Or) => Some(f.ins().bor(a, b)),
            (_, Xor) => Some(f.ins().bxor(a, b)),
            (_, Eq) => Some(f.ins().icmp(IntCC::Equal, a, b)),
            (Class::Bool, _) => None,
            (class, Lt | Le | Min | Max) => {
                // Narrow unsigned values are positive in their lane: the signed forms are as right, and cheaper.
                let signed = class == Class::Signed || dtype.size() < 4;
                Some(match (op, signed) {
                    (Lt, true) => f.ins().icmp(IntCC::SignedLessThan, a, b),
                    (Lt, false) => f.ins().icmp(IntCC::UnsignedLessThan, a, b),
                    (Le, true) => f.ins().icmp(IntCC::SignedLessThanOrEqual, a, b),
                    (Le, false) => f.ins().icmp(IntCC::UnsignedLessThanOrEqual, a, b),
                    (Min, true) => f.ins().smin(a, b),
                    (Min, false) => f.ins().umin(a, b),
                    (_, true) => f.ins().smax(a, b),
                    (_, false) => f.ins().umax(a, b),
                })
            }
            (_, Add | Sub | Mul) => {
                let all = match op {
                    Add => f.ins().iadd(a, b),
                    Sub => f.ins().isub(a, b),
                    _ => f.ins().imul(a, b),
                };
                Some(self.normal(dtype, all))
            }
            _ => None,
        };
        if let Some(value) = value {
            return Ok(value);
        }
        let result = if op.is_comparison() { DType::Bool } else { dtype };
        self.each(&[(dtype, a), (dtype, b)], result, |ops, v| match v {
            [a, b] => ops.binary(op, dtype, *a, *b),
            _ => Err(Self::refuse(format!("`{}` on {dtype}", op.name()))),
        })
    }

    /// A shift by an amount that is the same in all lanes, an i32.
    pub(super) fn shift(&mut self, op: BinaryOp, dtype: DType, a: Value, amount: Value) -> Value {
        if op == BinaryOp::Shl {
            let all = self.ops.f.ins().ishl(a, amount);
            return self.normal(dtype, all);
        }
        if dtype.class() == Class::Signed { self.ops.f.ins().sshr(a, amount) } else { self.ops.f.ins().ushr(a, amount) }
    }

    /// `c ? a : b`
    pub(super) fn select(&mut self, dtype: DType, c: Value, a: Value, b: Value) -> Value {
        let ty = vector_type(dtype);
        if self.ops.features.blend {
            let (a, b) = (self.as_type(I32X4, a), self.as_type(I32X4, b));
            let chosen = self.ops.f.ins().blendv(c, a, b);
            return self.as_type(ty, chosen);
        }
        let c = self.as_type(ty, c);
        self.ops.f.ins().bitselect(c, a, b)
    }

    /// a b + c, rounded once.
    pub(super) fn fma(&mut self, dtype: DType, a: Value, b: Value, c: Value) -> Result<Value, Refusal> {
        if dtype == DType::F32 && self.ops.features.fma {
            return Ok(self.ops.f.ins().fma(a, b, c));
        }
        self.each(&[(dtype, a), (dtype, b), (dtype, c)], dtype, |ops, v| match v {
            [a, b, c] => ops.fma(dtype, *a, *b, *c),
            _ => Err(Self::refuse(format!("`fma` on {dtype}"))),
        })
    }

    /// `ok ? value : op(x)` of f32; calls are made only when some lane needs one.
    pub(super) fn rescue(&mut self, op: UnaryOp, ok: Value, value: Value, x: Value) -> Result<Value, Refusal> {
        let f = &mut *self.ops.f;
        let (rescued, after) = (f.create_block(), f.create_block());
        f.set_cold_block(rescued);
        let result = f.append_block_param(after, F32X4);
        let all = f.ins().vall_true(ok);
        f.ins().brif(all, after, &[BlockArg::Value(value)], rescued, &[]);
        f.switch_to_block(rescued);
        let called = self.each(&[(DType::F32, x)], DType::F32, |ops, v| match v {
            [x] => ops.call_float(op.name(), DType::F32, &[*x]),
            _ => Err(Self::refuse(format!("`{}`", op.name()))),
        })?;
        let mixed = self.select(DType::F32, ok, value, called);
        self.ops.f.ins().jump(after, &[BlockArg::Value(mixed)]);
        self.ops.f.switch_to_block(after);
        Ok(result)
    }

    /// A conversion.
    pub(super) fn cast(&mut self, from: DType, to: DType, saturate: bool, x: Value) -> Result<Value, Refusal> {
        if from == to {
            return Ok(x);
        }
        let plain = |dtype: DType| dtype.is_int() && dtype.bits() >= 8 && fits_lane(dtype);
        Ok(match (from, to) {
            (DType::F32, DType::Bool) => {
                let zero = self.splat_bits(F32X4, 0);
                self.ops.f.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            (DType::F32, DType::I32) if saturate => self.ops.f.ins().fcvt_to_sint_sat(I32X4, x),
            (DType::F32, DType::I32) if self.ops.features.blend => self.ops.f.ins().x86_cvtt2dq(I32X4, x),
            (DType::Bool, DType::F32) => {
                let one = self.splat_bits(I32X4, 1f32.to_bits());
                let bits = self.ops.f.ins().band(x, one);
                self.as_type(F32X4, bits)
            }
            (DType::Bool, to) if plain(to) => {
                let one = self.splat_bits(I32X4, 1);
                self.ops.f.ins().band(x, one)
            }
            (DType::U32, DType::F32) => self.ops.f.ins().fcvt_from_uint(F32X4, x),
            (from, DType::F32) if plain(from) => self.ops.f.ins().fcvt_from_sint(F32X4, x),
            (from, DType::Bool) if plain(from) => self.is_not_zero(x),
            (from, to) if plain(from) && plain(to) && !saturate => self.normal(to, x),
            _ => self.each(&[(from, x)], to, |ops, v| match v {
                [x] => ops.cast(from, to, saturate, *x),
                _ => Err(Self::refuse(format!("a cast from {from} to {to}"))),
            })?,
        })
    }

    /// The same bits as another type of that size.
    pub(super) fn bitcast(&mut self, from: DType, to: DType, x: Value) -> Result<Value, Refusal> {
        if from.size() != to.size() || (from == DType::Bool) != (to == DType::Bool) {
            return Err(Self::refuse(format!("a bitcast from {from} to {to}")));
        }
        let x = self.as_type(vector_type(to), x);
        Ok(if to.size() < 4 && to != DType::Bool { self.normal(to, x) } else { x })
    }

    /// One step of a reduction.
    pub(super) fn combine(&mut self, how: Combine, dtype: DType, a: Value, b: Value) -> Result<Value, Refusal> {
        self.binary(how.op(), dtype, a, b)
    }

    /// Sixteen lanes, in four vectors, combined pairwise: lane i with i + 8, i + 4, i + 2, i + 1.
    pub(super) fn combine_all(&mut self, how: Combine, dtype: DType, v: [Value; 4]) -> Result<Value, Refusal> {
        let [a, b, c, d] = v;
        let (low, high) = (self.combine(how, dtype, a, c)?, self.combine(how, dtype, b, d)?);
        let four = self.combine(how, dtype, low, high)?;
        let mut lanes = [four; WIDTH];
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = self.ops.f.ins().extractlane(four, i as u8);
        }
        let [a, b, c, d] = lanes;
        let (even, odd) = (self.ops.combine(how, dtype, a, c)?, self.ops.combine(how, dtype, b, d)?);
        self.ops.combine(how, dtype, even, odd)
    }
}

/// A scalar's bits as a lane holds them.
pub(super) fn lane_bits(value: Scalar) -> u32 {
    let unused = 32u32.saturating_sub(8 * value.dtype.size() as u32);
    match (value.dtype, value.dtype.class()) {
        (DType::Bool, _) => 0u32.wrapping_sub(value.bits as u32 & 1),
        (_, Class::Signed) => (((value.bits as u32) << unused) as i32 >> unused) as u32,
        _ => value.bits as u32 & (u32::MAX >> unused),
    }
}

/// The scalar type of a lane.
pub(super) fn lane_type(dtype: DType) -> Type {
    if dtype == DType::F32 { F32 } else { I32 }
}
