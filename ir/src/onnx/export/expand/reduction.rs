//! Reductions, running combinations, sorts and products: element types with kernels, and what has to be a loop.

use super::{Expander, Many};
use crate::builder::Built;
use crate::graph::{Function, Value};
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, Op, ReduceKind};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, TensorType};

/// The type that sums and products of `dtype` are made in: 16-bit floats sum in f32, integers keep their low bits.
fn summed(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::I8 | DType::I16 | DType::U8 | DType::U16 | DType::Bool => DType::I32,
        DType::U32 | DType::U64 => DType::I64,
        DType::F32
        | DType::F64
        | DType::I32
        | DType::I64
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::Str => dtype,
    }
}

/// The type that elements of `dtype` are compared in; it keeps their order. (u64 has none: see [`Expander::ordered`].)
fn compared(dtype: DType) -> DType {
    match dtype {
        DType::BF16 => DType::F32,
        DType::I16 | DType::U16 => DType::I32,
        DType::U32 => DType::I64,
        DType::Bool => DType::U8,
        DType::F32
        | DType::F64
        | DType::F16
        | DType::I8
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U64
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::Str => dtype,
    }
}

impl Expander<'_> {
    /// Keys in a type that compares them alike: u64 as i64 with the highest bit flipped.
    fn ordered(&mut self, x: Value) -> Built {
        match self.dtype(x)? {
            DType::U64 => {
                let bits = self.cast(x, DType::I64)?;
                self.flip(bits)
            }
            dtype => self.cast(x, compared(dtype)),
        }
    }

    /// The reverse of [`Expander::ordered`].
    fn restored(&mut self, x: Value, dtype: DType) -> Built {
        let bits = if dtype == DType::U64 { self.flip(x)? } else { x };
        self.cast(bits, dtype)
    }

    fn flip(&mut self, x: Value) -> Built {
        let lowest = self.scalar(DType::I64, i64::MIN as f64)?;
        self.b().binary(BinaryOp::Xor, x, lowest)
    }

    pub(super) fn reduce(&mut self, x: Value, axes: Vec<usize>, kind: ReduceKind) -> Built {
        let ty = self.tensor(x)?;
        let dtype = ty.dtype;
        let op = Op::Reduce { axes: axes.clone(), kind };
        match kind {
            ReduceKind::ArgMin | ReduceKind::ArgMax => {
                let keys = self.ordered(x)?;
                self.op(op, &[keys])
            }
            _ if axes.is_empty() => Ok(x),
            ReduceKind::Sum | ReduceKind::Prod => self.through(summed(dtype), &[x], |e, v| e.op(op, v)),
            ReduceKind::Min | ReduceKind::Max => {
                let keys = self.ordered(x)?;
                let mut best = self.op(op, &[keys])?;
                let some = axes.iter().all(|&a| ty.dims.get(a).and_then(Dim::known).is_some_and(|d| d > 0));
                if self.dtype(best)? != dtype && dtype.is_int() && dtype != DType::U64 && !some {
                    // Over nothing the wider type's limit comes out: the narrow one's is meant.
                    let bits = i32::try_from(dtype.bits()).unwrap_or(32);
                    let signed = dtype.class() == crate::types::Class::Signed;
                    let (clamp, limit) = match (kind, signed) {
                        (ReduceKind::Min, true) => (BinaryOp::Min, 2f64.powi(bits - 1) - 1.0),
                        (ReduceKind::Min, false) => (BinaryOp::Min, 2f64.powi(bits) - 1.0),
                        (_, true) => (BinaryOp::Max, -(2f64.powi(bits - 1))),
                        (_, false) => (BinaryOp::Max, 0.0),
                    };
                    let wide = self.dtype(best)?;
                    let limit = self.scalar(wide, limit)?;
                    best = self.b().binary(clamp, best, limit)?;
                }
                self.restored(best, dtype)
            }
        }
    }

    pub(super) fn cumulate(
        &mut self,
        x: Value,
        axis: usize,
        kind: ReduceKind,
        exclusive: bool,
        reverse: bool,
    ) -> Built {
        let dtype = self.dtype(x)?;
        if kind == ReduceKind::Sum {
            let op = Op::Cumulate { axis, kind, exclusive, reverse };
            return self.through(summed(dtype), &[x], |e, v| e.op(op, v));
        }
        let wide = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
        self.through(wide, &[x], |e, v| e.running(v[0], axis, kind, exclusive, reverse))
    }

    /// A loop along `axis` that carries the combination and stacks it.
    fn running(&mut self, x: Value, axis: usize, kind: ReduceKind, exclusive: bool, reverse: bool) -> Built {
        let ty = self.tensor(x)?;
        let combine = match kind {
            ReduceKind::Prod => BinaryOp::Mul,
            ReduceKind::Min => BinaryOp::Min,
            ReduceKind::Max => BinaryOp::Max,
            ReduceKind::Sum | ReduceKind::ArgMin | ReduceKind::ArgMax => BinaryOp::Add,
        };
        let extent = ty.dims[axis].clone();
        let mut line = ty.dims.clone();
        line.remove(axis);
        let region = self.running_step(&ty, axis, combine, exclusive, reverse)?;
        let trips = self.b().dim(extent.clone())?;
        let go = self.scalar(DType::Bool, 1.0)?;
        let neutral = neutral(combine, ty.dtype)?;
        let neutral = self.b().constant(neutral)?;
        let neutral = self.b().broadcast_to(neutral, line)?;
        let neutral = if ty.dtype == DType::BF16 { self.cast(neutral, DType::BF16)? } else { neutral };
        let op = Op::Loop { carried: 1, trips: extent };
        let (at, numerics) = (self.at.clone(), self.numerics);
        let node = self.new.add_op_with(op, &[trips, go, neutral, x], vec![region], &at, numerics)?;
        let mut stacked = Value { node, result: 1 };
        if reverse {
            let dims = self.tensor(stacked)?.dims;
            let mut starts = vec![Dim::ZERO; dims.len()];
            let mut steps = vec![1; dims.len()];
            starts[0] = &dims[0] - &Dim::ONE;
            steps[0] = -1;
            stacked = self.op(Op::Slice { starts, sizes: dims, steps }, &[stacked])?;
        }
        // Axis 0 goes back to where it came from.
        let perm: Vec<usize> = (1..=axis).chain([0]).chain(axis + 1..ty.rank()).collect();
        self.b().transpose(stacked, perm)
    }

    /// (i, go, state, x) -> (go, state with row i, the state before or after)
    fn running_step(
        &self,
        ty: &TensorType,
        axis: usize,
        combine: BinaryOp,
        exclusive: bool,
        reverse: bool,
    ) -> Result<Function, TypeError> {
        let mut region =
            Expander { module: self.module, new: Function::new(""), at: self.at.clone(), numerics: self.numerics };
        let mut line = ty.dims.clone();
        line.remove(axis);
        let mut row = region.new.add_input("i", TensorType::scalar(DType::I64));
        let go = region.new.add_input("go", TensorType::scalar(DType::Bool));
        let state = region.new.add_input("state", TensorType::new(ty.dtype, line));
        let x = region.new.add_input("x", ty.clone());
        if reverse {
            let last = region.b().dim(&ty.dims[axis] - &Dim::ONE)?;
            row = region.b().binary(BinaryOp::Sub, last, row)?;
        }
        let element = region.op(Op::Gather { axis }, &[x, row])?;
        let next = region.binary(combine, state, element)?;
        region.new.add_output("go", go);
        region.new.add_output("state", next);
        region.new.add_output("row", if exclusive { state } else { next });
        Ok(region.new)
    }

    pub(super) fn sort(&mut self, op: &Op, keys: Value, rest: &[Value]) -> Many {
        let dtype = self.dtype(keys)?;
        let ordered = match dtype {
            DType::U16 => self.cast(keys, DType::I32)?,
            _ => self.ordered(keys)?,
        };
        let operands: Vec<Value> = std::iter::once(ordered).chain(rest.iter().copied()).collect();
        let (at, numerics) = (self.at.clone(), self.numerics);
        let node = self.new.add_op_with(op.clone(), &operands, Vec::new(), &at, numerics)?;
        let mut results: Vec<Value> = (0..operands.len()).map(|result| Value { node, result }).collect();
        if let Some(first) = results.first_mut() {
            *first = self.restored(*first, dtype)?;
        }
        Ok(results)
    }

    /// Products in a type that has them; the accumulator's type says which.
    pub(super) fn dot(&mut self, op: &Op, a: Value, b: Value) -> Built {
        let Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } = op else {
            return self.op(op.clone(), &[a, b]);
        };
        let (left, right) = (self.dtype(a)?, self.dtype(b)?);
        if super::super::contraction::is_integer_matmul(op, &self.tensor(a)?, &self.tensor(b)?) {
            return self.op(op.clone(), &[a, b]);
        }
        let wide = if left.is_int() && right.is_int() {
            if accumulate.is_int() && accumulate.bits() <= 32 { DType::I32 } else { DType::I64 }
        } else if [left, right, *accumulate].contains(&DType::F64) {
            DType::F64
        } else {
            DType::F32
        };
        let (a, b) = (self.cast(a, wide)?, self.cast(b, wide)?);
        let op = Op::DotGeneral {
            lhs_batch: lhs_batch.clone(),
            rhs_batch: rhs_batch.clone(),
            lhs_contract: lhs_contract.clone(),
            rhs_contract: rhs_contract.clone(),
            accumulate: wide,
        };
        let product = self.op(op, &[a, b])?;
        self.cast(product, *accumulate)
    }
}

/// What a combination starts from.
fn neutral(combine: BinaryOp, dtype: DType) -> Result<Tensor, TypeError> {
    let refused = || TypeError { op: "cumulate", message: format!("not defined on {dtype}") };
    if combine == BinaryOp::Mul {
        return crate::convert::scalar(dtype, 1.0).ok_or_else(refused);
    }
    let least = combine == BinaryOp::Max;
    if dtype.is_float() {
        let value = if least { f64::NEG_INFINITY } else { f64::INFINITY };
        return crate::convert::scalar(dtype, value).ok_or_else(refused);
    }
    let bits = dtype.bits();
    let value: i128 = match (dtype.class() == crate::types::Class::Signed, least) {
        (true, true) => -(1 << (bits - 1)),
        (true, false) => (1 << (bits - 1)) - 1,
        (false, true) => 0,
        (false, false) => (1 << bits) - 1,
    };
    let bytes = value.to_le_bytes();
    let bytes = bytes.get(..dtype.size()).unwrap_or(&[]);
    Tensor::from_bytes(dtype, &[], bytes).map_err(|_| refused())
}
