//! Scalar maths, written once: every operation that is no machine primitive, as straight-line code of primitives.
//!
//! ```text
//!  unary / binary / cast --> formulas over Val<M> --> M: Machine --> Lets of a kernel   (super::expand)
//!                                                              '--> values              (Evaluator: tests, folding,
//!                                                                                        the interpreter)
//! ```
//!
//! A formula is text over [`Val`]: `x * x + 1.0` appends primitives to its machine. No branches and no tables in
//! memory, 32-bit lanes only (f32, i32), so formulas vectorise. All use fused multiply-add, in strict mode too: they
//! are definitions, not graph arithmetic.
//!
//! Bounds of f32 functions, in units of the last place of the exact result (tested in `tests.rs`): 2 strict, 4 fast;
//! fast `exp` also gives 0 for results below 2^-125. Special values are C's. f64 functions are not expanded: back ends
//! call [`double`].

use std::cell::RefCell;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Shl, Shr, Sub};

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::{Scalar, primitive};

mod cast;
mod circular;
mod coefficients;
pub mod double;
mod error;
mod exponential;
mod inverse;
mod number;
mod power;
#[cfg(test)]
mod tests;

pub use cast::cast;
pub(crate) use cast::is_plain as is_plain_cast;

/// Something that runs or records primitives.
pub trait Machine {
    /// A scalar value of it.
    type Value: Copy;
    /// Type of a value.
    fn dtype(&self, x: Self::Value) -> DType;
    /// A constant.
    fn constant(&self, value: Scalar) -> Self::Value;
    /// The value, when it is a constant.
    fn known(&self, x: Self::Value) -> Option<Scalar>;
    /// A primitive of one operand.
    fn unary(&self, op: UnaryOp, x: Self::Value) -> Self::Value;
    /// A primitive of two operands.
    fn binary(&self, op: BinaryOp, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `c ? a : b`
    fn select(&self, c: Self::Value, a: Self::Value, b: Self::Value) -> Self::Value;
    /// a b + c, rounded once.
    fn fma(&self, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    /// A primitive cast.
    fn cast(&self, x: Self::Value, to: DType, saturate: bool) -> Self::Value;
    /// The same bits.
    fn bitcast(&self, x: Self::Value, to: DType) -> Self::Value;
    /// `ok ? value : op(x)` of f32, the op computed in f64 (see [`super::Expr::Rescue`]).
    fn rescue(&self, ok: Self::Value, value: Self::Value, op: UnaryOp, x: Self::Value) -> Self::Value;
}

/// A value with its machine, so that formulas read as formulas.
pub struct Val<'m, M: Machine> {
    machine: &'m M,
    /// The machine's value.
    pub value: M::Value,
}

impl<M: Machine> Clone for Val<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Val<'_, M> {}

impl<'m, M: Machine> Val<'m, M> {
    /// A value of a machine.
    pub fn new(machine: &'m M, value: M::Value) -> Self {
        Val { machine, value }
    }

    /// Its type.
    pub fn dtype(self) -> DType {
        self.machine.dtype(self.value)
    }

    fn with(self, value: M::Value) -> Self {
        Val { machine: self.machine, value }
    }

    fn scalar(self, value: Scalar) -> Self {
        self.with(self.machine.constant(value))
    }

    fn f32(self, value: f32) -> Self {
        self.scalar(Scalar::f32(value))
    }

    fn i32(self, value: i32) -> Self {
        self.scalar(Scalar::i32(value))
    }

    /// A number of this value's type.
    fn like(self, value: i64) -> Self {
        self.scalar(match self.dtype() {
            DType::F32 => Scalar::f32(value as f32),
            DType::F64 => Scalar::f64(value as f64),
            dtype => Scalar::int(dtype, i128::from(value)),
        })
    }

    fn known(self) -> Option<Scalar> {
        self.machine.known(self.value)
    }

    fn unary(self, op: UnaryOp) -> Self {
        self.with(self.machine.unary(op, self.value))
    }

    fn binary(self, op: BinaryOp, other: Self) -> Self {
        self.with(self.machine.binary(op, self.value, other.value))
    }

    fn eq(self, other: Self) -> Self {
        self.binary(BinaryOp::Eq, other)
    }

    fn lt(self, other: Self) -> Self {
        self.binary(BinaryOp::Lt, other)
    }

    fn le(self, other: Self) -> Self {
        self.binary(BinaryOp::Le, other)
    }

    /// This condition ? a : b
    fn select(self, a: Self, b: Self) -> Self {
        self.with(self.machine.select(self.value, a.value, b.value))
    }

    /// self b + c
    fn fma(self, b: Self, c: Self) -> Self {
        self.with(self.machine.fma(self.value, b.value, c.value))
    }

    fn not(self) -> Self {
        self.unary(UnaryOp::Not)
    }

    fn abs(self) -> Self {
        self.unary(UnaryOp::Abs)
    }

    fn sqrt(self) -> Self {
        self.unary(UnaryOp::Sqrt)
    }

    /// A primitive cast.
    fn to(self, to: DType, saturate: bool) -> Self {
        if self.dtype() == to {
            return self;
        }
        self.with(self.machine.cast(self.value, to, saturate))
    }

    fn bitcast(self, to: DType) -> Self {
        if self.dtype() == to {
            return self;
        }
        self.with(self.machine.bitcast(self.value, to))
    }

    /// f32 to its bits.
    fn bits(self) -> Self {
        self.bitcast(DType::I32)
    }

    /// i32 bits to the f32.
    fn float(self) -> Self {
        self.bitcast(DType::F32)
    }

    /// max(self, c) for a constant that is not NaN; NaN stays. One x86 instruction.
    fn at_least(self, c: f32) -> Self {
        let c = self.f32(c);
        self.lt(c).select(c, self)
    }

    /// min(self, c) for a constant that is not NaN; NaN stays. One x86 instruction.
    fn at_most(self, c: f32) -> Self {
        let c = self.f32(c);
        c.lt(self).select(c, self)
    }

    /// self with its sign bit or-ed with that of `from`: self must not be negative where `from` is positive.
    fn or_sign(self, from: Self) -> Self {
        (self.bits() | (from.bits() & i32::MIN)).float()
    }

    /// self with its sign flipped where that of `from` is set.
    fn xor_sign(self, from: Self) -> Self {
        (self.bits() ^ (from.bits() & i32::MIN)).float()
    }

    fn rescue(self, ok: Self, op: UnaryOp, x: Self) -> Self {
        self.with(self.machine.rescue(ok.value, self.value, op, x.value))
    }
}

/// c0 + x (c1 + x (c2 + ..)).
fn poly<'m, M: Machine>(x: Val<'m, M>, coefficients: &[f32]) -> Val<'m, M> {
    match coefficients.split_last() {
        Some((last, rest)) => rest.iter().rev().fold(x.f32(*last), |sum, c| sum.fma(x, x.f32(*c))),
        None => x.f32(0.0),
    }
}

macro_rules! operator {
    ($trait:ident $method:ident $op:ident $($constant:ident)*) => {
        impl<M: Machine> $trait for Val<'_, M> {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.binary(BinaryOp::$op, other)
            }
        }
        $(
            impl<M: Machine> $trait<$constant> for Val<'_, M> {
                type Output = Self;
                fn $method(self, other: $constant) -> Self {
                    self.binary(BinaryOp::$op, self.$constant(other))
                }
            }
        )*
    };
}

operator!(Add add Add f32 i32);
operator!(Sub sub Sub f32 i32);
operator!(Mul mul Mul f32);
operator!(Div div Div);
operator!(BitAnd bitand And i32);
operator!(BitOr bitor Or i32);
operator!(BitXor bitxor Xor);
operator!(Shl shl Shl i32);
operator!(Shr shr Shr i32);

impl<M: Machine> Neg for Val<'_, M> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(UnaryOp::Neg)
    }
}

/// A core op of one operand, in primitives; `None` when the type has no such op.
pub fn unary<'m, M: Machine>(op: UnaryOp, x: Val<'m, M>, fast: bool) -> Option<Val<'m, M>> {
    let dtype = x.dtype();
    if primitive::is_unary(op, dtype) {
        return Some(x.unary(op));
    }
    match op {
        UnaryOp::Sign if dtype != DType::Bool => return Some(number::sign(x)),
        UnaryOp::Abs if primitive::is_plain_int(dtype) => return Some(number::abs(x)),
        _ => {}
    }
    if dtype != DType::F32 {
        return None;
    }
    Some(match op {
        UnaryOp::Exp => exponential::exp(x, fast),
        UnaryOp::Expm1 => exponential::expm1(x),
        UnaryOp::Log => exponential::log(x),
        UnaryOp::Log1p => exponential::log1p(x),
        UnaryOp::Tanh => exponential::tanh(x, fast),
        UnaryOp::Erf => error::erf(x, fast),
        UnaryOp::Sin => circular::sin(x),
        UnaryOp::Cos => circular::cos(x),
        UnaryOp::Tan => circular::tan(x),
        UnaryOp::Asin => inverse::asin(x),
        UnaryOp::Acos => inverse::acos(x),
        UnaryOp::Atan => inverse::atan(x),
        UnaryOp::Neg
        | UnaryOp::Abs
        | UnaryOp::Sign
        | UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Trunc
        | UnaryOp::RoundEven
        | UnaryOp::Sqrt
        | UnaryOp::Not => return None,
    })
}

/// A core op of two operands, in primitives; `None` when the type has no such op.
pub fn binary<'m, M: Machine>(op: BinaryOp, a: Val<'m, M>, b: Val<'m, M>) -> Option<Val<'m, M>> {
    let dtype = a.dtype();
    match op {
        BinaryOp::Min if dtype.is_float() => return Some(number::minimum(a, b)),
        BinaryOp::Max if dtype.is_float() => return Some(number::maximum(a, b)),
        _ if primitive::is_binary(op, dtype) => return Some(a.binary(op, b)),
        _ => {}
    }
    match op {
        BinaryOp::Pow if dtype == DType::F32 => Some(power::pow(a, b)),
        BinaryOp::Atan2 if dtype == DType::F32 => Some(inverse::atan2(a, b)),
        // Exact in f64, and the remainder of two f32 is an f32.
        BinaryOp::Rem if dtype == DType::F32 => {
            Some(a.to(DType::F64, false).binary(BinaryOp::Rem, b.to(DType::F64, false)).to(DType::F32, false))
        }
        _ if dtype == DType::Bool => number::logical(op, a, b),
        _ if primitive::is_plain_int(dtype) => number::integer(op, a, b),
        _ => None,
    }
}

/// The machine that computes: values are scalars. An operation that is no primitive, which no formula here emits,
/// gives 0 and is remembered.
#[derive(Default)]
pub struct Evaluator {
    wrong: RefCell<bool>,
}

impl Evaluator {
    fn checked(&self, value: Option<Scalar>) -> Scalar {
        value.unwrap_or_else(|| {
            *self.wrong.borrow_mut() = true;
            Scalar { dtype: DType::F32, bits: 0 }
        })
    }

    /// Its value, unless something was no primitive.
    fn finish(&self, value: Option<Val<'_, Self>>) -> Option<Scalar> {
        value.filter(|_| !*self.wrong.borrow()).map(|v| v.value)
    }
}

impl Machine for Evaluator {
    type Value = Scalar;

    fn dtype(&self, x: Scalar) -> DType {
        x.dtype
    }

    fn constant(&self, value: Scalar) -> Scalar {
        value
    }

    // Formulas may simplify for constants, with equal results; values here are no constants of the program.
    fn known(&self, _: Scalar) -> Option<Scalar> {
        None
    }

    fn unary(&self, op: UnaryOp, x: Scalar) -> Scalar {
        self.checked(primitive::unary(op, x))
    }

    fn binary(&self, op: BinaryOp, a: Scalar, b: Scalar) -> Scalar {
        self.checked(primitive::binary(op, a, b))
    }

    fn select(&self, c: Scalar, a: Scalar, b: Scalar) -> Scalar {
        if c.is_true() { a } else { b }
    }

    fn fma(&self, a: Scalar, b: Scalar, c: Scalar) -> Scalar {
        self.checked(primitive::fma(a, b, c))
    }

    fn cast(&self, x: Scalar, to: DType, saturate: bool) -> Scalar {
        self.checked(primitive::cast(x, to, saturate))
    }

    fn bitcast(&self, x: Scalar, to: DType) -> Scalar {
        self.checked(primitive::bitcast(x, to))
    }

    fn rescue(&self, ok: Scalar, value: Scalar, op: UnaryOp, x: Scalar) -> Scalar {
        if ok.is_true() { value } else { self.checked(rescued(op, x)) }
    }
}

/// An f32 function computed in f64.
pub fn rescued(op: UnaryOp, x: Scalar) -> Option<Scalar> {
    double::unary(op, f64::from(x.to_f32())).map(|v| Scalar::f32(v as f32))
}

/// The value of a core op of one operand.
pub fn evaluate_unary(op: UnaryOp, x: Scalar, fast: bool) -> Option<Scalar> {
    let machine = Evaluator::default();
    machine.finish(unary(op, Val::new(&machine, x), fast))
}

/// The value of a core op of two operands.
pub fn evaluate_binary(op: BinaryOp, a: Scalar, b: Scalar) -> Option<Scalar> {
    if a.dtype != b.dtype {
        return None;
    }
    let machine = Evaluator::default();
    machine.finish(binary(op, Val::new(&machine, a), Val::new(&machine, b)))
}

/// The value of a core cast.
pub fn evaluate_cast(x: Scalar, to: DType, saturate: bool) -> Option<Scalar> {
    let machine = Evaluator::default();
    machine.finish(cast(Val::new(&machine, x), to, saturate))
}

/// Whether an integer type has negative values.
fn is_signed(dtype: DType) -> bool {
    dtype.class() == Class::Signed
}
