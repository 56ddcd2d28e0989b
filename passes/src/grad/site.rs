//! What a gradient rule sees: one op, the cotangents of its results, and a builder.

use frit_ir::builder::Builder;
use frit_ir::op::infer::TypeError;
use frit_ir::types::Dim;
use frit_ir::{BinaryOp, DType, NodeId, Op, TensorType, UnaryOp, Value};

use super::GradError;

/// A rule's error: a refusal in words, or an op that does not type-check.
#[derive(Debug)]
pub(super) enum Fail {
    /// Why there is no gradient.
    Refused(String),
    /// A bug of the rule.
    Type(TypeError),
}

impl From<TypeError> for Fail {
    fn from(error: TypeError) -> Self {
        Fail::Type(error)
    }
}

/// What a rule gives.
pub(super) type Ruled<T = ()> = Result<T, Fail>;

/// A refusal.
pub(super) fn refuse<T>(message: impl Into<String>) -> Ruled<T> {
    Err(Fail::Refused(message.into()))
}

/// One op while its gradient is written.
pub(super) struct Site<'f> {
    /// Adds ops, with the origin and numerics of this one.
    pub b: Builder<'f>,
    /// The op.
    pub id: NodeId,
    /// Its operands.
    pub operands: Vec<Value>,
    /// Whether an operand's cotangent is wanted.
    pub wanted: Vec<bool>,
    /// Cotangents of its results; `None`: 0.
    pub cotangents: Vec<Option<Value>>,
    /// What operands get, in order.
    pub given: Vec<(usize, Value)>,
}

impl Site<'_> {
    /// Operand `i`.
    pub(super) fn x(&self, i: usize) -> Ruled<Value> {
        self.operands.get(i).copied().ok_or_else(|| Fail::Refused(format!("operand {i} is missing")))
    }

    /// Result 0.
    pub(super) fn y(&self) -> Value {
        Value { node: self.id, result: 0 }
    }

    /// The cotangent of result 0; a rule of an op with one result is called only when there is one.
    pub(super) fn g(&self) -> Ruled<Value> {
        self.cotangents.first().copied().flatten().ok_or_else(|| Fail::Refused("no cotangent".to_owned()))
    }

    /// Whether operand `i` gets a cotangent.
    pub(super) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// Adds to the cotangent of operand `i`.
    pub(super) fn give(&mut self, i: usize, value: Value) {
        self.given.push((i, value));
    }

    /// The tensor type of a value.
    pub(super) fn ty(&self, value: Value) -> Ruled<TensorType> {
        Ok(self.b.tensor(value)?)
    }

    /// Its extents.
    pub(super) fn dims(&self, value: Value) -> Ruled<Vec<Dim>> {
        Ok(self.b.dims(value)?)
    }

    /// An elementwise op of one operand.
    pub(super) fn un(&mut self, op: UnaryOp, x: Value) -> Ruled<Value> {
        Ok(self.b.unary(op, x)?)
    }

    /// An elementwise op of two operands.
    pub(super) fn bin(&mut self, op: BinaryOp, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(op, a, b)?)
    }

    /// a b.
    pub(super) fn mul(&mut self, a: Value, b: Value) -> Ruled<Value> {
        self.bin(BinaryOp::Mul, a, b)
    }

    /// a / b.
    pub(super) fn div(&mut self, a: Value, b: Value) -> Ruled<Value> {
        self.bin(BinaryOp::Div, a, b)
    }

    /// -x.
    pub(super) fn neg(&mut self, x: Value) -> Ruled<Value> {
        self.un(UnaryOp::Neg, x)
    }

    /// A number in the shape and type of `x`.
    pub(super) fn like(&mut self, x: Value, number: f64) -> Ruled<Value> {
        let ty = self.ty(x)?;
        Ok(self.b.filled(&ty, number)?)
    }

    /// x op number.
    pub(super) fn with(&mut self, op: BinaryOp, x: Value, number: f64) -> Ruled<Value> {
        let other = self.like(x, number)?;
        self.bin(op, x, other)
    }

    /// number - x.
    pub(super) fn from(&mut self, number: f64, x: Value) -> Ruled<Value> {
        let other = self.like(x, number)?;
        self.bin(BinaryOp::Sub, other, x)
    }

    /// select(c, a, b).
    pub(super) fn select(&mut self, c: Value, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.select(c, a, b)?)
    }

    /// Zeros in the shape and type of `x`.
    pub(super) fn zeros(&mut self, x: Value) -> Ruled<Value> {
        self.like(x, 0.0)
    }

    /// g where the condition does not hold, else 0.
    pub(super) fn unless(&mut self, c: Value, g: Value) -> Ruled<Value> {
        let zero = self.zeros(g)?;
        self.select(c, zero, g)
    }

    /// g where the condition holds, else 0.
    pub(super) fn when(&mut self, c: Value, g: Value) -> Ruled<Value> {
        let zero = self.zeros(g)?;
        self.select(c, g, zero)
    }

    /// g x, and 0 where g is 0 whatever x is.
    pub(super) fn strong_mul(&mut self, g: Value, x: Value) -> Ruled<Value> {
        let product = self.mul(g, x)?;
        let zero = self.zeros(g)?;
        let nothing = self.bin(BinaryOp::Eq, g, zero)?;
        self.select(nothing, zero, product)
    }

    /// An op with one result.
    pub(super) fn op(&mut self, op: Op, operands: &[Value]) -> Ruled<Value> {
        Ok(self.b.op(op, operands)?)
    }

    /// 0, 1, 2, .. along an axis of a shape, as i64.
    pub(super) fn count(&mut self, dims: Vec<Dim>, axis: usize) -> Ruled<Value> {
        self.op(Op::Iota { dtype: DType::I64, dims, axis }, &[])
    }

    /// What is missing, as an error of the pass.
    pub(super) fn error(&self, fail: Fail) -> GradError {
        let node = self.b.function.node(self.id);
        let (op, origin) = (node.op.name(), node.origin.to_string());
        match fail {
            Fail::Refused(message) => GradError::Op { op, origin, message },
            Fail::Type(source) => GradError::Rule { op, origin, source },
        }
    }
}
