//! What a rule works with: operands, attributes, known values, and shorthand for core ops.
//!
//! A [`Ctx`] is made for one ONNX node. It dereferences to a [`Builder`] whose ops carry the node's origin.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use frit_ir::builder::Builder;
use frit_ir::{
    AttrValue, BinaryOp, DType, Dim, Function, Op, ReduceKind, Relation, Requirement, Symbol, Tensor, TensorType,
    UnaryOp, Value, ValueType,
};

use super::driver::{Bound, Session};
use super::error::{Fail, Ruled, invalid, unsupported};
use crate::shape::{self, Values};

/// One node on its way to core ops.
pub(super) struct Ctx<'a, 's> {
    pub(super) b: Builder<'a>,
    /// Operator type.
    pub(super) op_type: &'a str,
    /// Version of the operator.
    pub(super) version: i64,
    pub(super) attributes: &'a BTreeMap<String, AttrValue>,
    /// Operands in the new function; `None`: left out.
    pub(super) operands: Vec<Option<Value>>,
    /// The node's regions.
    pub(super) regions: &'a [Function],
    /// Types that the model declares for the results.
    pub(super) declared: &'a [ValueType],
    pub(super) values: &'a mut Values,
    pub(super) bound: &'a Bound,
    pub(super) session: &'a Session<'s>,
}

impl<'a> Deref for Ctx<'a, '_> {
    type Target = Builder<'a>;
    fn deref(&self) -> &Builder<'a> {
        &self.b
    }
}

impl<'a> DerefMut for Ctx<'a, '_> {
    fn deref_mut(&mut self) -> &mut Builder<'a> {
        &mut self.b
    }
}

/// Result of a rule: the node's results in order; those past the end are not supported.
pub(super) type Results = Ruled<Vec<Value>>;

impl Ctx<'_, '_> {
    // ---- operands ----

    /// Operand `i`, which must be there.
    pub(super) fn x(&self, i: usize) -> Ruled<Value> {
        self.opt(i).ok_or_else(|| Fail::Invalid(format!("input {i} is missing")))
    }

    /// Operand `i`, unless it is left out.
    pub(super) fn opt(&self, i: usize) -> Option<Value> {
        self.operands.get(i).copied().flatten()
    }

    /// All operands, which must be there.
    pub(super) fn all(&self) -> Ruled<Vec<Value>> {
        (0..self.operands.len()).map(|i| self.x(i)).collect()
    }

    pub(super) fn ty(&self, v: Value) -> Ruled<TensorType> {
        Ok(self.b.tensor(v)?)
    }

    pub(super) fn dtype(&self, v: Value) -> Ruled<DType> {
        Ok(self.b.tensor(v)?.dtype)
    }

    pub(super) fn shape(&self, v: Value) -> Ruled<Vec<Dim>> {
        Ok(self.b.dims(v)?)
    }

    pub(super) fn rank(&self, v: Value) -> Ruled<usize> {
        Ok(self.b.dims(v)?.len())
    }

    /// One extent that must be a number.
    pub(super) fn known_extent(&self, v: Value, axis: usize) -> Ruled<usize> {
        let ty = self.ty(v)?;
        let extent = ty.dims.get(axis).and_then(Dim::known).and_then(|d| usize::try_from(d).ok());
        extent.ok_or_else(|| Fail::Unsupported(format!("axis {axis} of {ty} must be known")))
    }

    // ---- attributes ----

    pub(super) fn attr(&self, name: &str) -> Option<&AttrValue> {
        self.attributes.get(name)
    }

    /// An integer attribute.
    pub(super) fn int(&self, name: &str) -> Ruled<Option<i64>> {
        match self.attr(name) {
            None => Ok(None),
            Some(AttrValue::Int(v)) => Ok(Some(*v)),
            Some(AttrValue::Bool(v)) => Ok(Some(i64::from(*v))),
            Some(other) => invalid(format!("attribute `{name}` should be an integer, is {other:?}")),
        }
    }

    /// A float attribute.
    pub(super) fn float(&self, name: &str) -> Ruled<Option<f64>> {
        match self.attr(name) {
            None => Ok(None),
            Some(AttrValue::Float(v)) => Ok(Some(*v)),
            Some(other) => invalid(format!("attribute `{name}` should be a float, is {other:?}")),
        }
    }

    /// A text attribute, or its default.
    pub(super) fn text(&self, name: &str, default: &str) -> Ruled<String> {
        match self.attr(name) {
            None => Ok(default.to_owned()),
            Some(AttrValue::Str(v)) => Ok(v.clone()),
            Some(other) => invalid(format!("attribute `{name}` should be a text, is {other:?}")),
        }
    }

    /// A list of integers.
    pub(super) fn ints(&self, name: &str) -> Ruled<Option<Vec<i64>>> {
        let Some(value) = self.attr(name) else { return Ok(None) };
        let AttrValue::List(items) = value else {
            return invalid(format!("attribute `{name}` should be integers, is {value:?}"));
        };
        let item = |i: &AttrValue| match i {
            AttrValue::Int(v) => Ok(*v),
            other => invalid(format!("attribute `{name}` should be integers, holds {other:?}")),
        };
        items.iter().map(item).collect::<Ruled<Vec<_>>>().map(Some)
    }

    /// A list of numbers that are not negative, one for each of `n` axes; absent: `default` for each.
    pub(super) fn per_axis(&self, name: &str, n: usize, default: usize) -> Ruled<Vec<usize>> {
        let Some(list) = self.ints(name)? else { return Ok(vec![default; n]) };
        if list.len() != n {
            return invalid(format!("attribute `{name}` has {} entries, expected {n}", list.len()));
        }
        let item = |v: i64| match usize::try_from(v) {
            Ok(v) => Ok(v),
            Err(_) => unsupported(format!("attribute `{name}` holds {v}")),
        };
        list.into_iter().map(item).collect()
    }

    /// Whether a flag attribute is set.
    pub(super) fn flag(&self, name: &str, default: bool) -> Ruled<bool> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    /// An element type attribute.
    pub(super) fn dtype_attr(&self, name: &str) -> Ruled<Option<DType>> {
        match self.attr(name) {
            None => Ok(None),
            Some(AttrValue::DType(d)) => Ok(Some(*d)),
            Some(AttrValue::Int(code)) => dtype_from_onnx(*code).map(Some),
            Some(other) => invalid(format!("attribute `{name}` should be an element type, is {other:?}")),
        }
    }

    /// An axis, which may count from the end.
    pub(super) fn axis_of(&self, axis: i64, rank: usize) -> Ruled<usize> {
        let extent = i64::try_from(rank).unwrap_or(i64::MAX);
        let from_start = if axis < 0 { axis.saturating_add(extent) } else { axis };
        match usize::try_from(from_start) {
            Ok(a) if a < rank => Ok(a),
            _ => invalid(format!("axis {axis} is outside rank {rank}")),
        }
    }

    /// The `axis` attribute.
    pub(super) fn axis(&self, default: i64, rank: usize) -> Ruled<usize> {
        self.axis_of(self.int("axis")?.unwrap_or(default), rank)
    }

    /// Axes, ascending, each once.
    pub(super) fn axes_of(&self, axes: &[i64], rank: usize) -> Ruled<Vec<usize>> {
        let mut found: Vec<usize> = axes.iter().map(|&a| self.axis_of(a, rank)).collect::<Ruled<_>>()?;
        found.sort_unstable();
        if found.windows(2).any(|w| w[0] == w[1]) {
            return invalid(format!("axes {axes:?} name one axis twice"));
        }
        Ok(found)
    }

    // ---- known values ----

    /// Elements of a small integer tensor as extents, which must be known.
    pub(super) fn const_dims(&mut self, v: Value, what: &str) -> Ruled<Vec<Dim>> {
        let found = self.values.ints(self.b.function, self.session.params, v).and_then(|x| x.dims());
        found.ok_or_else(|| Fail::NeedsValue(v, what.to_owned()))
    }

    /// Elements of a small integer tensor, as far as they are known.
    pub(super) fn partial_dims(&mut self, v: Value) -> Option<Vec<Option<Dim>>> {
        self.values.ints(self.b.function, self.session.params, v).map(|x| x.elements.clone())
    }

    /// Elements of an integer tensor, which must be numbers.
    pub(super) fn const_ints(&mut self, v: Value, what: &str) -> Ruled<Vec<i64>> {
        if let Some(found) = self.values.ints(self.b.function, self.session.params, v).and_then(|x| x.numbers()) {
            return Ok(found);
        }
        let found = self.known(v).and_then(|t| t.to_i64s());
        found.ok_or_else(|| Fail::NeedsValue(v, what.to_owned()))
    }

    /// One integer that must be known.
    pub(super) fn const_int(&mut self, v: Value, what: &str) -> Ruled<i64> {
        match self.const_ints(v, what)?.as_slice() {
            [one] => Ok(*one),
            other => invalid(format!("{what} should be one number, is {other:?}")),
        }
    }

    /// A tensor, when every element is known.
    pub(super) fn known(&mut self, v: Value) -> Option<Tensor> {
        self.values.tensor(self.b.function, self.session.params, v)
    }

    /// Elements of a float (or integer) tensor, which must be known.
    pub(super) fn const_floats(&mut self, v: Value, what: &str) -> Ruled<Vec<f64>> {
        let found = self.known(v).and_then(|t| {
            shape::floats(&t).or_else(|| t.to_i64s().map(|list| list.into_iter().map(|i| i as f64).collect()))
        });
        found.ok_or_else(|| Fail::NeedsValue(v, what.to_owned()))
    }

    /// Axes from input `i` or, where that is no input, the `axes` attribute.
    pub(super) fn axes_input(&mut self, i: usize) -> Ruled<Option<Vec<i64>>> {
        match self.opt(i) {
            Some(v) => self.const_ints(v, "axes").map(Some),
            None => self.ints("axes"),
        }
    }

    /// A fresh extent that depends on data.
    pub(super) fn fresh(&self, what: &str) -> Symbol {
        self.session.fresh(what)
    }

    // ---- extents ----

    /// States a requirement that ops alone would not ask for; one that can't hold is refused at once.
    pub(super) fn require(
        &mut self,
        relation: Relation,
        left: &Dim,
        right: &Dim,
        what: impl Into<String>,
    ) -> Ruled<()> {
        let (left, right, what, origin) = (left.clone(), right.clone(), what.into(), self.b.origin.clone());
        if let (Some(a), Some(b)) = (left.known(), right.known())
            && !relation.holds(a, b)
        {
            return invalid(format!("{what}: {}", relation.broken((&left, a), (&right, b))));
        }
        self.b.function.require(Requirement { relation, left, right, what, origin });
        Ok(())
    }

    /// [`Ctx::require`] of equality.
    pub(super) fn equal(&mut self, left: &Dim, right: &Dim, what: impl Into<String>) -> Ruled<()> {
        self.require(Relation::Equal, left, right, what)
    }

    // ---- core ops ----

    pub(super) fn add(&mut self, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(BinaryOp::Add, a, b)?)
    }

    pub(super) fn sub(&mut self, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(BinaryOp::Sub, a, b)?)
    }

    pub(super) fn mul(&mut self, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(BinaryOp::Mul, a, b)?)
    }

    pub(super) fn div(&mut self, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(BinaryOp::Div, a, b)?)
    }

    pub(super) fn bin(&mut self, op: BinaryOp, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.binary(op, a, b)?)
    }

    /// An op with a scalar of the same type at the right.
    pub(super) fn bin_s(&mut self, op: BinaryOp, a: Value, scalar: f64) -> Ruled<Value> {
        let s = self.like(a, scalar)?;
        self.bin(op, a, s)
    }

    pub(super) fn add_s(&mut self, a: Value, scalar: f64) -> Ruled<Value> {
        self.bin_s(BinaryOp::Add, a, scalar)
    }

    pub(super) fn mul_s(&mut self, a: Value, scalar: f64) -> Ruled<Value> {
        self.bin_s(BinaryOp::Mul, a, scalar)
    }

    pub(super) fn un(&mut self, op: UnaryOp, a: Value) -> Ruled<Value> {
        Ok(self.b.unary(op, a)?)
    }

    pub(super) fn pick(&mut self, c: Value, a: Value, b: Value) -> Ruled<Value> {
        Ok(self.b.select(c, a, b)?)
    }

    pub(super) fn to(&mut self, a: Value, dtype: DType) -> Ruled<Value> {
        Ok(self.b.cast(a, dtype)?)
    }

    /// A scalar of the type of `a`.
    pub(super) fn like(&mut self, a: Value, scalar: f64) -> Ruled<Value> {
        let dtype = self.dtype(a)?;
        Ok(self.b.scalar(dtype, scalar)?)
    }

    /// An i64 tensor.
    pub(super) fn i64s(&mut self, shape: &[usize], values: &[i64]) -> Ruled<Value> {
        let tensor = Tensor::i64(shape, values).map_err(|e| Fail::Invalid(e.to_string()))?;
        Ok(self.b.constant(tensor)?)
    }

    pub(super) fn sum(&mut self, x: Value, axes: &[usize], keep: bool) -> Ruled<Value> {
        Ok(self.b.reduce(x, axes.to_vec(), ReduceKind::Sum, keep)?)
    }

    /// Number of elements along axes, as a scalar of `dtype`.
    pub(super) fn count(&mut self, x: Value, axes: &[usize], dtype: DType) -> Ruled<Value> {
        let dims = self.shape(x)?;
        let n = Dim::product(axes.iter().filter_map(|&a| dims.get(a)));
        match n {
            Dim::Known(n) => Ok(self.b.scalar(dtype, n as f64)?),
            Dim::Expr(_) => {
                let n = self.b.dim(n)?;
                self.to(n, dtype)
            }
        }
    }

    pub(super) fn mean(&mut self, x: Value, axes: &[usize], keep: bool) -> Ruled<Value> {
        let dtype = self.dtype(x)?;
        let n = self.count(x, axes, dtype)?;
        let sum = self.sum(x, axes, keep)?;
        self.div(sum, n)
    }

    /// `dims` filled with a scalar.
    pub(super) fn full(&mut self, scalar: Value, dims: Vec<Dim>) -> Ruled<Value> {
        Ok(self.b.broadcast_to(scalar, dims)?)
    }

    /// x with extra axes of extent 1 inserted so that its axes land at `axes` of `rank`.
    pub(super) fn spread(&mut self, x: Value, axes: &[usize], rank: usize) -> Ruled<Value> {
        let from = self.shape(x)?;
        let mut dims = vec![Dim::ONE; rank];
        for (&axis, d) in axes.iter().zip(from) {
            match dims.get_mut(axis) {
                Some(slot) => *slot = d,
                None => return invalid(format!("axis {axis} is outside rank {rank}")),
            }
        }
        Ok(self.b.reshape(x, dims)?)
    }

    /// Part `start..start + size` of one axis.
    pub(super) fn part(&mut self, x: Value, axis: usize, start: Dim, size: Dim) -> Ruled<Value> {
        let mut sizes = self.shape(x)?;
        let mut starts = vec![Dim::ZERO; sizes.len()];
        match (starts.get_mut(axis), sizes.get_mut(axis)) {
            (Some(s), Some(n)) => (*s, *n) = (start, size),
            _ => return invalid(format!("axis {axis} is outside rank {}", sizes.len())),
        }
        if starts.iter().all(|s| *s == Dim::ZERO) && sizes == self.shape(x)? {
            return Ok(x);
        }
        let steps = vec![1; sizes.len()];
        Ok(self.b.op(Op::Slice { starts, sizes, steps }, &[x])?)
    }

    /// x backwards along axes.
    pub(super) fn reversed(&mut self, x: Value, axes: &[usize]) -> Ruled<Value> {
        let sizes = self.shape(x)?;
        let mut starts = vec![Dim::ZERO; sizes.len()];
        let mut steps = vec![1; sizes.len()];
        for &a in axes {
            if let (Some(start), Some(step), Some(d)) = (starts.get_mut(a), steps.get_mut(a), sizes.get(a)) {
                (*start, *step) = ((d - &Dim::ONE).maximum(&Dim::ZERO), -1);
            }
        }
        Ok(self.b.op(Op::Slice { starts, sizes, steps }, &[x])?)
    }

    /// 0, 1, .. along `axis` of `dims`.
    pub(super) fn iota(&mut self, dtype: DType, dims: Vec<Dim>, axis: usize) -> Ruled<Value> {
        Ok(self.b.op(Op::Iota { dtype, dims, axis }, &[])?)
    }

    pub(super) fn cat(&mut self, parts: &[Value], axis: usize) -> Ruled<Value> {
        match parts {
            [one] => Ok(*one),
            _ => Ok(self.b.op(Op::Concat { axis }, parts)?),
        }
    }

    /// Extents as an i64 tensor of one dim.
    pub(super) fn dims_tensor(&mut self, dims: &[Dim]) -> Ruled<Value> {
        if let Some(known) = dims.iter().map(Dim::known).collect::<Option<Vec<i64>>>() {
            return self.i64s(&[known.len()], &known);
        }
        let mut parts = Vec::with_capacity(dims.len());
        for d in dims {
            let scalar = self.b.dim(d.clone())?;
            parts.push(self.b.reshape(scalar, vec![Dim::ONE])?);
        }
        self.cat(&parts, 0)
    }

    /// f32 for 16-bit floats: where ONNX Runtime computes in f32 what is stored in less.
    pub(super) fn wide(&self, dtype: DType) -> DType {
        if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
    }
}

/// The element type that a TensorProto code names.
pub(super) fn dtype_from_onnx(code: i64) -> Ruled<DType> {
    use DType::*;
    Ok(match code {
        1 => F32,
        2 => U8,
        3 => I8,
        4 => U16,
        5 => I16,
        6 => I32,
        7 => I64,
        8 => Str,
        9 => Bool,
        10 => F16,
        11 => F64,
        12 => U32,
        13 => U64,
        14 | 15 => return unsupported("complex numbers"),
        16 => BF16,
        17 => F8E4M3FN,
        18 => F8E4M3FNUZ,
        19 => F8E5M2,
        20 => F8E5M2FNUZ,
        21 => U4,
        22 => I4,
        23 => F4E2M1,
        24 => F8E8M0,
        25 => U2,
        26 => I2,
        other => return invalid(format!("{other} names no element type")),
    })
}
