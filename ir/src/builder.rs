//! Shorthand for adding ops: broadcasting, constants, reductions.
//!
//! A [`Builder`] adds ops to one function under one origin. Methods that take two values broadcast them as NumPy does
//! (ONNX's multidirectional broadcasting) and write the `broadcast` ops that the core set asks for.

use crate::graph::{Function, Value};
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, Flag, Numerics, Op, ReduceKind, UnaryOp};
use crate::origin::Origin;
use crate::tensor::Tensor;
use crate::types::{DType, Dim, TensorType};

/// Result of building.
pub type Built = Result<Value, TypeError>;

/// Adds ops to a function.
pub struct Builder<'f> {
    /// The function.
    pub function: &'f mut Function,
    /// Origin given to every op.
    pub origin: Origin,
    /// Numerics given to every op that takes them.
    pub numerics: Numerics,
}

impl<'f> Builder<'f> {
    /// A builder with strict numerics.
    pub fn new(function: &'f mut Function, origin: Origin) -> Self {
        Builder { function, origin, numerics: Numerics::STRICT }
    }

    /// Any op with one result.
    pub fn op(&mut self, op: Op, operands: &[Value]) -> Built {
        let numerics = if op.takes_numerics() { self.numerics } else { Numerics::STRICT };
        let node = self.function.add_op_with(op, operands, Vec::new(), &self.origin, numerics)?;
        Ok(Value { node, result: 0 })
    }

    fn error(op: &'static str, message: String) -> TypeError {
        TypeError { op, message }
    }

    /// The tensor type of a value.
    pub fn tensor(&self, value: Value) -> Result<TensorType, TypeError> {
        let ty = self.function.ty(value);
        ty.tensor().cloned().ok_or_else(|| Self::error("operand", format!("{ty} is not a tensor")))
    }

    /// Its extents.
    pub fn dims(&self, value: Value) -> Result<Vec<Dim>, TypeError> {
        Ok(self.tensor(value)?.dims)
    }

    /// A constant.
    pub fn constant(&mut self, value: Tensor) -> Built {
        self.op(Op::Constant { value }, &[])
    }

    /// A scalar constant of any numeric type, converted from f64 (integers: exact up to 2^53).
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Built {
        let tensor = crate::convert::scalar(dtype, value)
            .ok_or_else(|| Self::error("constant", format!("no {dtype} scalar of {value}")))?;
        self.constant(tensor)
    }

    /// A number in every element of a type, as [`Builder::scalar`] converts it.
    pub fn filled(&mut self, ty: &TensorType, value: f64) -> Built {
        let scalar = self.scalar(ty.dtype, value)?;
        self.broadcast_to(scalar, ty.dims.clone())
    }

    /// An extent as an i64 scalar.
    pub fn dim(&mut self, value: Dim) -> Built {
        match value {
            Dim::Known(v) => {
                let t = Tensor::i64(&[], &[v]).map_err(|e| Self::error("constant", e.to_string()))?;
                self.constant(t)
            }
            Dim::Expr(_) => self.op(Op::DimValue { value }, &[]),
        }
    }

    /// An elementwise op of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Value) -> Built {
        self.op(Op::Unary(op), &[x])
    }

    /// An elementwise op of two operands, broadcast to one shape.
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Built {
        let values = self.broadcast_all(&[a, b])?;
        self.op(Op::Binary(op), &values)
    }

    /// select(c, a, b), broadcast to one shape.
    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Built {
        let values = self.broadcast_all(&[c, a, b])?;
        self.op(Op::Select { likely: Flag(false) }, &values)
    }

    /// select(c, a, b) where c holds almost everywhere, broadcast to one shape.
    pub fn select_likely(&mut self, c: Value, a: Value, b: Value) -> Built {
        let values = self.broadcast_all(&[c, a, b])?;
        self.op(Op::Select { likely: Flag(true) }, &values)
    }

    /// A conversion, unless it already has that type.
    pub fn cast(&mut self, x: Value, to: DType) -> Built {
        if self.tensor(x)?.dtype == to { Ok(x) } else { self.op(Op::Cast { to, saturate: false }, &[x]) }
    }

    /// A reshape, unless it already has that shape.
    pub fn reshape(&mut self, x: Value, dims: Vec<Dim>) -> Built {
        if self.dims(x)? == dims { Ok(x) } else { self.op(Op::Reshape { dims }, &[x]) }
    }

    /// A transpose, unless it is the identity.
    pub fn transpose(&mut self, x: Value, perm: Vec<usize>) -> Built {
        if perm.iter().copied().eq(0..perm.len()) && perm.len() == self.dims(x)?.len() {
            return Ok(x);
        }
        self.op(Op::Transpose { perm }, &[x])
    }

    /// A reduction over ascending axes; `keep` leaves them with extent 1.
    pub fn reduce(&mut self, x: Value, axes: Vec<usize>, kind: ReduceKind, keep: bool) -> Built {
        let mut dims = self.dims(x)?;
        if let Some(&bad) = axes.iter().find(|&&a| a >= dims.len()) {
            return Err(Self::error("reduce", format!("axis {bad} is outside rank {}", dims.len())));
        }
        for &axis in &axes {
            dims[axis] = Dim::ONE;
        }
        let reduced = self.op(Op::Reduce { axes, kind }, &[x])?;
        if keep { self.reshape(reduced, dims) } else { Ok(reduced) }
    }

    /// Aligns `x` at the right and repeats it to `dims`, as NumPy does.
    pub fn broadcast_to(&mut self, x: Value, dims: Vec<Dim>) -> Built {
        let from = self.dims(x)?;
        if from == dims {
            return Ok(x);
        }
        let Some(offset) = dims.len().checked_sub(from.len()) else {
            return Err(Self::error("broadcast", format!("rank {} to rank {}", from.len(), dims.len())));
        };
        self.op(Op::Broadcast { dims, axes: (offset..offset + from.len()).collect() }, &[x])
    }

    /// Repeats all to their common shape.
    pub fn broadcast_all(&mut self, values: &[Value]) -> Result<Vec<Value>, TypeError> {
        let shapes = values.iter().map(|v| self.dims(*v)).collect::<Result<Vec<_>, _>>()?;
        let dims = broadcast_shapes(&shapes).map_err(|m| Self::error("broadcast", m))?;
        values.iter().map(|v| self.broadcast_to(*v, dims.clone())).collect()
    }
}

/// The shape that several shapes broadcast to. Of two extents that may differ, a symbol against a known number above 1
/// gives the number (the symbol is then that number or 1 at run time); two different symbols give their maximum.
pub fn broadcast_shapes(shapes: &[Vec<Dim>]) -> Result<Vec<Dim>, String> {
    let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
    let mut dims = vec![Dim::ONE; rank];
    for shape in shapes {
        for (dim, new) in dims[rank - shape.len()..].iter_mut().zip(shape) {
            *dim = match (&*dim, new) {
                (a, b) if a == b => continue,
                (Dim::Known(1), b) => b.clone(),
                (a, Dim::Known(1)) => a.clone(),
                (Dim::Known(a), Dim::Known(b)) => return Err(format!("extents {a} and {b} don't broadcast")),
                (Dim::Known(a), Dim::Expr(_)) | (Dim::Expr(_), Dim::Known(a)) => Dim::Known(*a),
                // A 0 against a 1 would give 0, not the maximum; a run-time guard refuses that corner.
                (a, b) => a.maximum(b),
            };
        }
    }
    Ok(dims)
}
