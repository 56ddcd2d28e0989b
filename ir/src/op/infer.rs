//! Type rules: the result types of an op from its operand types.
//!
//! In: an op, its operands' types, its regions' signatures. Out: result types, or a [`TypeError`] that says which
//! operand, axis and extent is wrong. A builder calls this for every op it adds and the verifier calls it again, so a
//! module whose types were checked holds only ops whose axes, ranks and counts are in range.
//!
//! Extents are compared as canonical expressions. Two that differ only as expressions (`B` and `C`) are not equal
//! here: a pass that knows better writes an explicit broadcast or reshape.

use super::{BinaryOp, Op, ReduceKind, UnaryOp};
use crate::types::{Class, DType, Dim, TensorType, ValueType};

/// Why an op can't have these operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{op}`: {message}")]
pub struct TypeError {
    /// The op's word.
    pub op: &'static str,
    /// What is wrong, with operand, axis and extents.
    pub message: String,
}

/// Parameter and result types of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Types of its inputs.
    pub inputs: Vec<ValueType>,
    /// Types of its outputs.
    pub outputs: Vec<ValueType>,
}

type Checked<T> = Result<T, String>;

/// The result types of `op`. `call` and `onnx` can't be inferred here: their nodes state their types.
pub fn infer(op: &Op, operands: &[&ValueType], regions: &[Signature]) -> Result<Vec<ValueType>, TypeError> {
    let fail = |message: String| TypeError { op: op.name(), message };
    if !op.operand_count().allows(operands.len()) {
        return Err(fail(format!("takes {}, has {} operands", count_text(op.operand_count()), operands.len())));
    }
    if !op.region_count().allows(regions.len()) {
        return Err(fail(format!("takes {}, has {} regions", count_text(op.region_count()), regions.len())));
    }
    results(op, operands, regions).map_err(fail)
}

fn count_text(count: super::Count) -> String {
    match count.max {
        Some(max) if max == count.min => format!("{max}"),
        Some(max) => format!("{} to {max}", count.min),
        None => format!("at least {}", count.min),
    }
}

fn one(t: TensorType) -> Checked<Vec<ValueType>> {
    Ok(vec![t.into()])
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Checked<()> {
    if condition { Ok(()) } else { Err(message()) }
}

fn tensor<'a>(operands: &[&'a ValueType], i: usize) -> Checked<&'a TensorType> {
    let Some(ty) = operands.get(i) else { return Err(format!("operand {i} is missing")) };
    ty.tensor().ok_or_else(|| format!("operand {i} is {ty}, not a tensor"))
}

fn axis_in(axis: usize, rank: usize, what: &str) -> Checked<()> {
    ensure(axis < rank, || format!("{what} {axis} is outside rank {rank}"))
}

/// Strictly ascending axes inside the rank.
fn axes_in(axes: &[usize], rank: usize, what: &str) -> Checked<()> {
    for (i, &axis) in axes.iter().enumerate() {
        axis_in(axis, rank, what)?;
        ensure(i == 0 || axes[i - 1] < axis, || format!("{what} {axes:?} are not strictly ascending"))?;
    }
    Ok(())
}

fn length(found: usize, expected: usize, what: &str) -> Checked<()> {
    ensure(found == expected, || format!("`{what}` has {found} entries, expected {expected}"))
}

fn scalar(operands: &[&ValueType], i: usize, dtype: DType) -> Checked<()> {
    let t = tensor(operands, i)?;
    ensure(t.dtype == dtype && t.rank() == 0, || format!("operand {i} is {t}, expected a scalar {dtype}"))
}

/// No known extent is negative.
fn extents(dims: &[Dim]) -> Checked<()> {
    for (axis, dim) in dims.iter().enumerate() {
        ensure(dim.known().is_none_or(|d| d >= 0), || format!("axis {axis} would have extent {dim}"))?;
    }
    ensure(Dim::product(dims).known() != Some(i64::MAX), || "the result would have more than 2^63 elements".to_owned())
}

fn unary(op: UnaryOp, x: &TensorType) -> Checked<Vec<ValueType>> {
    use UnaryOp::{Abs, Ceil, Floor, Neg, Not, RoundEven, Sign, Trunc};
    let class = x.dtype.class();
    let allowed = match op {
        Not => matches!(class, Class::Bool | Class::Signed | Class::Unsigned),
        Neg | Abs | Sign => matches!(class, Class::Float | Class::Signed | Class::Unsigned),
        Floor | Ceil | Trunc | RoundEven => class == Class::Float,
        UnaryOp::Sqrt
        | UnaryOp::Exp
        | UnaryOp::Expm1
        | UnaryOp::Log
        | UnaryOp::Log1p
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Tanh
        | UnaryOp::Erf => class == Class::Float,
    };
    ensure(allowed && !x.dtype.is_storage_only(), || format!("not defined on {}", x.dtype))?;
    one(x.clone())
}

fn binary(op: BinaryOp, a: &TensorType, b: &TensorType) -> Checked<Vec<ValueType>> {
    use BinaryOp::{Add, And, Atan2, Div, Eq, Le, Lt, Max, Min, Mul, Or, Pow, Rem, Shl, Shr, Sub, Xor};
    ensure(a == b, || format!("operands are {a} and {b}, expected one type and shape"))?;
    let class = a.dtype.class();
    let number = matches!(class, Class::Float | Class::Signed | Class::Unsigned);
    let allowed = match op {
        Add | Sub | Mul | Div | Rem | Pow | Lt | Le => number,
        Min | Max | Eq => class != Class::Text,
        Atan2 => class == Class::Float,
        And | Or | Xor => matches!(class, Class::Bool | Class::Signed | Class::Unsigned),
        Shl | Shr => matches!(class, Class::Signed | Class::Unsigned),
    };
    ensure(allowed && !a.dtype.is_storage_only(), || format!("not defined on {}", a.dtype))?;
    let dtype = if op.is_comparison() { DType::Bool } else { a.dtype };
    one(TensorType::new(dtype, a.dims.clone()))
}

fn results(op: &Op, operands: &[&ValueType], regions: &[Signature]) -> Checked<Vec<ValueType>> {
    match op {
        Op::Unary(u) => unary(*u, tensor(operands, 0)?),
        Op::Binary(b) => binary(*b, tensor(operands, 0)?, tensor(operands, 1)?),
        Op::Input { ty, .. } => Ok(vec![ty.clone()]),
        Op::Constant { value } => one(value.ty()),
        Op::Param { ty, .. } => {
            ensure(ty.known_dims().is_some(), || format!("a parameter's shape must be known, found {ty}"))?;
            one(ty.clone())
        }
        Op::Iota { dtype, dims, axis } => {
            axis_in(*axis, dims.len(), "axis")?;
            extents(dims)?;
            ensure(dtype.is_int() || dtype.is_float(), || format!("can't count in {dtype}"))?;
            one(TensorType::new(*dtype, dims.clone()))
        }
        Op::DimValue { .. } => one(TensorType::scalar(DType::I64)),
        Op::Select { .. } => {
            let (c, a, b) = (tensor(operands, 0)?, tensor(operands, 1)?, tensor(operands, 2)?);
            ensure(c.dtype == DType::Bool, || format!("the condition is {c}, expected bool"))?;
            ensure(a == b && a.dims == c.dims, || format!("operands are {c}, {a}, {b}, expected one shape"))?;
            one(a.clone())
        }
        Op::Cast { to, .. } => {
            let x = tensor(operands, 0)?;
            ensure(x.dtype != DType::Str && *to != DType::Str, || format!("can't cast {} to {to}", x.dtype))?;
            one(TensorType::new(*to, x.dims.clone()))
        }
        Op::Bitcast { to } => {
            let x = tensor(operands, 0)?;
            ensure(x.dtype.size() == to.size() && to.size() > 0 && x.dtype.bits() == to.bits(), || {
                format!("{} and {to} differ in size", x.dtype)
            })?;
            one(TensorType::new(*to, x.dims.clone()))
        }
        Op::Broadcast { dims, axes } => broadcast(tensor(operands, 0)?, dims, axes),
        Op::Reshape { dims } => {
            let x = tensor(operands, 0)?;
            extents(dims)?;
            let (from, to) = (x.numel(), Dim::product(dims));
            // Symbolic counts that differ as expressions may still agree at run time: a guard checks.
            ensure(from == to || from.known().is_none() || to.known().is_none(), || {
                format!("{x} has {from} elements, the new shape has {to}")
            })?;
            one(TensorType::new(x.dtype, dims.clone()))
        }
        Op::Transpose { perm } => {
            let x = tensor(operands, 0)?;
            length(perm.len(), x.rank(), "perm")?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            ensure(sorted.iter().copied().eq(0..x.rank()), || format!("{perm:?} is no permutation"))?;
            one(TensorType::new(x.dtype, perm.iter().map(|&p| x.dims[p].clone()).collect::<Vec<_>>()))
        }
        Op::Slice { starts, sizes, steps } => slice(tensor(operands, 0)?, starts, sizes, steps),
        Op::DynamicSlice { sizes } => {
            let x = tensor(operands, 0)?;
            length(sizes.len(), x.rank(), "sizes")?;
            length(operands.len() - 1, x.rank(), "starts")?;
            (1..operands.len()).try_for_each(|i| scalar(operands, i, DType::I64))?;
            fits(sizes, &x.dims)?;
            one(TensorType::new(x.dtype, sizes.clone()))
        }
        Op::UpdateSlice {} => {
            let (x, update) = (tensor(operands, 0)?, tensor(operands, 1)?);
            ensure(x.dtype == update.dtype && x.rank() == update.rank(), || format!("{update} doesn't fit in {x}"))?;
            length(operands.len() - 2, x.rank(), "starts")?;
            (2..operands.len()).try_for_each(|i| scalar(operands, i, DType::I64))?;
            fits(&update.dims, &x.dims)?;
            one(x.clone())
        }
        Op::Pad { low, high } => {
            let x = tensor(operands, 0)?;
            scalar(operands, 1, x.dtype)?;
            length(low.len(), x.rank(), "low")?;
            length(high.len(), x.rank(), "high")?;
            for pad in low.iter().chain(high) {
                ensure(pad.known().is_none_or(|p| p >= 0), || format!("padding {pad} is negative"))?;
            }
            let dims: Vec<Dim> = x.dims.iter().zip(low).zip(high).map(|((d, l), h)| &(d + l) + h).collect();
            extents(&dims)?;
            one(TensorType::new(x.dtype, dims))
        }
        Op::Concat { axis } => concat(operands, *axis),
        Op::Gather { axis } => {
            let (x, indices) = (tensor(operands, 0)?, tensor(operands, 1)?);
            axis_in(*axis, x.rank(), "axis")?;
            ensure(indices.dtype.is_int(), || format!("indices are {indices}, expected integers"))?;
            let mut dims = x.dims.clone();
            dims.splice(*axis..=*axis, indices.dims.iter().cloned());
            extents(&dims)?;
            some_of_nothing(&x.dims[*axis], &dims)?;
            one(TensorType::new(x.dtype, dims))
        }
        Op::Scatter { axis, .. } => {
            let (x, indices, updates) = (tensor(operands, 0)?, tensor(operands, 1)?, tensor(operands, 2)?);
            axis_in(*axis, x.rank(), "axis")?;
            ensure(indices.dtype.is_int() && indices.rank() == 1, || {
                format!("indices are {indices}, expected one dim of integers")
            })?;
            let mut dims = x.dims.clone();
            dims[*axis] = indices.dims[0].clone();
            let expected = TensorType::new(x.dtype, dims);
            ensure(*updates == expected, || format!("updates are {updates}, expected {expected}"))?;
            some_of_nothing(&x.dims[*axis], &updates.dims)?;
            one(x.clone())
        }
        Op::Window { axes, sizes, strides, dilations, low, high } => {
            let x = tensor(operands, 0)?;
            scalar(operands, 1, x.dtype)?;
            axes_in(axes, x.rank(), "axes")?;
            let mut dims = x.dims.clone();
            window_dims(&mut dims, axes, [sizes, strides, dilations, low, high])?;
            dims.extend(sizes.iter().map(|&s| Dim::from(s)));
            extents(&dims)?;
            one(TensorType::new(x.dtype, dims))
        }
        Op::Reduce { axes, kind } => reduce(tensor(operands, 0)?, axes, *kind),
        Op::Cumulate { axis, kind, .. } => {
            let x = tensor(operands, 0)?;
            axis_in(*axis, x.rank(), "axis")?;
            ensure(!matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax), || format!("can't run {}", kind.name()))?;
            arithmetic(x.dtype)?;
            one(x.clone())
        }
        Op::Sort { axis, .. } => {
            let keys = tensor(operands, 0)?;
            axis_in(*axis, keys.rank(), "axis")?;
            arithmetic(keys.dtype)?;
            for i in 1..operands.len() {
                let t = tensor(operands, i)?;
                ensure(t.dims == keys.dims, || format!("operand {i} is {t}, the keys are {keys}"))?;
            }
            Ok(operands.iter().map(|t| (*t).clone()).collect())
        }
        Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } => dot_general(
            (tensor(operands, 0)?, lhs_batch, lhs_contract),
            (tensor(operands, 1)?, rhs_batch, rhs_contract),
            *accumulate,
        ),
        Op::Conv { strides, dilations, low, high, groups } => {
            let (x, w) = (tensor(operands, 0)?, tensor(operands, 1)?);
            conv_operands(x, w, *groups)?;
            divides(&w.dims[0], *groups, "output channels")?;
            let channels = &w.dims[1] * &Dim::from(*groups);
            ensure(same(&x.dims[1], &channels), || {
                format!("the input has {} channels, the weights ask for {channels}", x.dims[1])
            })?;
            let mut spatial = x.dims[2..].to_vec();
            let kernel = kernel_extents(w)?;
            let axes: Vec<usize> = (0..spatial.len()).collect();
            window_dims(&mut spatial, &axes, [&kernel, strides, dilations, low, high])?;
            let dims: Vec<Dim> = [x.dims[0].clone(), w.dims[0].clone()].into_iter().chain(spatial).collect();
            extents(&dims)?;
            one(TensorType::new(x.dtype, dims))
        }
        Op::ConvTranspose { strides, dilations, low, high, output_padding, groups } => {
            let (x, w) = (tensor(operands, 0)?, tensor(operands, 1)?);
            conv_operands(x, w, *groups)?;
            divides(&w.dims[0], *groups, "input channels")?;
            ensure(same(&x.dims[1], &w.dims[0]), || {
                format!("the input has {} channels, the weights ask for {}", x.dims[1], w.dims[0])
            })?;
            let kernel = kernel_extents(w)?;
            let rank = kernel.len();
            for (list, what) in [
                (strides, "strides"),
                (dilations, "dilations"),
                (low, "low"),
                (high, "high"),
                (output_padding, "output_padding"),
            ] {
                length(list.len(), rank, what)?;
            }
            at_least_one(strides, "strides")?;
            at_least_one(dilations, "dilations")?;
            let mut dims = vec![x.dims[0].clone(), &w.dims[1] * &Dim::from(*groups)];
            for i in 0..rank {
                let reach = &Dim::from(dilations[i]) * &Dim::from(kernel[i].saturating_sub(1));
                let full = &(&Dim::from(strides[i]) * &(&x.dims[i + 2] - &Dim::ONE)) + &reach;
                let grown = &(&full + &Dim::ONE) + &Dim::from(output_padding[i]);
                dims.push(&(&grown - &Dim::from(low[i])) - &Dim::from(high[i]));
            }
            extents(&dims)?;
            one(TensorType::new(x.dtype, dims))
        }
        Op::Compact { count } => {
            let mask = tensor(operands, 0)?;
            ensure(mask.dtype == DType::Bool && mask.rank() == 1, || format!("the mask is {mask}, expected bool[n]"))?;
            one(TensorType::new(DType::I64, vec![count.clone().into()]))
        }
        Op::If {} => {
            scalar(operands, 0, DType::Bool)?;
            let captured = &operands[1..];
            for region in regions {
                region_takes(region, captured)?;
            }
            let [first, second] = regions else { return Err("takes two regions".to_owned()) };
            ensure(first.outputs == second.outputs, || {
                format!("the branches give {} and {}", list(&first.outputs), list(&second.outputs))
            })?;
            Ok(first.outputs.clone())
        }
        Op::Loop { carried, trips } => loop_results(operands, regions, *carried, trips),
        Op::Composite { .. } | Op::Fusion {} => {
            let [region] = regions else { return Err("takes one region".to_owned()) };
            region_takes(region, operands)?;
            Ok(region.outputs.clone())
        }
        Op::Vjp { of, wrt } => vjp(operands, regions, *of, wrt),
        Op::Assert { .. } => {
            let condition = tensor(operands, 1)?;
            ensure(condition.dtype == DType::Bool, || format!("the condition is {condition}, expected bool"))?;
            Ok(vec![operands[0].clone()])
        }
        Op::SequenceConstruct { element } => {
            for (i, ty) in operands.iter().enumerate() {
                element_fits(ty, element).map_err(|e| format!("operand {i}: {e}"))?;
            }
            Ok(vec![ValueType::Sequence(Box::new(element.clone()))])
        }
        Op::SequenceAt {} => {
            let element = sequence(operands, 0)?;
            scalar(operands, 1, DType::I64)?;
            Ok(vec![element.clone()])
        }
        Op::SequenceInsert {} => {
            let element = sequence(operands, 0)?;
            let Some(value) = operands.get(1) else { return Err("operand 1 is missing".to_owned()) };
            element_fits(value, element)?;
            scalar(operands, 2, DType::I64)?;
            Ok(vec![operands[0].clone()])
        }
        Op::SequenceErase {} => {
            sequence(operands, 0)?;
            scalar(operands, 1, DType::I64)?;
            Ok(vec![operands[0].clone()])
        }
        Op::SequenceLength {} => {
            sequence(operands, 0)?;
            one(TensorType::scalar(DType::I64))
        }
        Op::Absent {} => Ok(vec![ValueType::Unknown]),
        Op::Call { .. } | Op::Onnx { .. } => Err("its result types must be stated".to_owned()),
    }
}

fn arithmetic(dtype: DType) -> Checked<()> {
    ensure(dtype != DType::Str && !dtype.is_storage_only(), || format!("not defined on {dtype}"))
}

/// An axis without elements is not looked up: no index is inside.
fn some_of_nothing(extent: &Dim, dims: &[Dim]) -> Checked<()> {
    ensure(*extent != Dim::ZERO || Dim::product(dims).known().is_none_or(|n| n == 0), || {
        "an axis of extent 0 is indexed".to_owned()
    })
}

/// Equal, or not both known.
fn same(a: &Dim, b: &Dim) -> bool {
    a == b || a.known().is_none() || b.known().is_none()
}

fn broadcast(x: &TensorType, dims: &[Dim], axes: &[usize]) -> Checked<Vec<ValueType>> {
    length(axes.len(), x.rank(), "axes")?;
    axes_in(axes, dims.len(), "axes")?;
    extents(dims)?;
    for (i, (&axis, from)) in axes.iter().zip(&x.dims).enumerate() {
        let to = &dims[axis];
        ensure(*from == Dim::ONE || same(from, to), || format!("operand axis {i} is {from}, the result has {to}"))?;
    }
    one(TensorType::new(x.dtype, dims))
}

fn slice(x: &TensorType, starts: &[Dim], sizes: &[Dim], steps: &[i64]) -> Checked<Vec<ValueType>> {
    for (found, what) in [(starts.len(), "starts"), (sizes.len(), "sizes"), (steps.len(), "steps")] {
        length(found, x.rank(), what)?;
    }
    extents(sizes)?;
    for (axis, step) in steps.iter().enumerate() {
        ensure(*step != 0, || format!("axis {axis}: a step of 0"))?;
        let (Some(start), Some(size), Some(extent)) = (starts[axis].known(), sizes[axis].known(), x.dims[axis].known())
        else {
            continue;
        };
        let last = size.checked_sub(1).and_then(|n| n.checked_mul(*step)).and_then(|n| n.checked_add(start));
        let inside = |i: i64| (0..extent).contains(&i);
        ensure(size == 0 || (inside(start) && last.is_some_and(inside)), || {
            format!("axis {axis}: {size} elements from {start} by {step} leave extent {extent}")
        })?;
    }
    one(TensorType::new(x.dtype, sizes))
}

fn fits(sizes: &[Dim], dims: &[Dim]) -> Checked<()> {
    for (axis, (size, dim)) in sizes.iter().zip(dims).enumerate() {
        let too_large = matches!((size.known(), dim.known()), (Some(s), Some(d)) if s > d || s < 0);
        ensure(!too_large, || format!("axis {axis}: {size} elements of {dim}"))?;
    }
    Ok(())
}

fn concat(operands: &[&ValueType], axis: usize) -> Checked<Vec<ValueType>> {
    let first = tensor(operands, 0)?;
    axis_in(axis, first.rank(), "axis")?;
    let mut dims = first.dims.clone();
    for i in 1..operands.len() {
        let t = tensor(operands, i)?;
        let agrees = t.dtype == first.dtype
            && t.rank() == first.rank()
            && (0..first.rank()).all(|a| a == axis || t.dims[a] == first.dims[a]);
        ensure(agrees, || format!("operand {i} is {t}, operand 0 is {first}"))?;
        dims[axis] = &dims[axis] + &t.dims[axis];
    }
    extents(&dims)?;
    one(TensorType::new(first.dtype, dims))
}

fn reduce(x: &TensorType, axes: &[usize], kind: ReduceKind) -> Checked<Vec<ValueType>> {
    axes_in(axes, x.rank(), "axes")?;
    arithmetic(x.dtype)?;
    let dims: Vec<Dim> = x.dims.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect();
    match kind {
        ReduceKind::Sum | ReduceKind::Prod => {
            ensure(x.dtype != DType::Bool, || format!("`{}` is not defined on bool", kind.name()))?;
            one(TensorType::new(x.dtype, dims))
        }
        ReduceKind::Min | ReduceKind::Max => one(TensorType::new(x.dtype, dims)),
        ReduceKind::ArgMin | ReduceKind::ArgMax => {
            ensure(axes.len() == 1, || format!("`{}` takes one axis", kind.name()))?;
            ensure(x.dims[axes[0]] != Dim::ZERO, || format!("`{}` of nothing", kind.name()))?;
            one(TensorType::new(DType::I64, dims))
        }
    }
}

/// Replaces the extents of `axes` by their numbers of windows.
fn window_dims(dims: &mut [Dim], axes: &[usize], parts: [&[usize]; 5]) -> Checked<()> {
    let [sizes, strides, dilations, low, high] = parts;
    for (list, what) in [(sizes, "sizes"), (strides, "strides"), (dilations, "dilations"), (low, "low"), (high, "high")]
    {
        length(list.len(), axes.len(), what)?;
    }
    at_least_one(strides, "strides")?;
    at_least_one(dilations, "dilations")?;
    at_least_one(sizes, "sizes")?;
    for (i, &axis) in axes.iter().enumerate() {
        let reach = Dim::from(sizes[i].saturating_sub(1).saturating_mul(dilations[i]));
        let padded = &(&dims[axis] + &Dim::from(low[i])) + &Dim::from(high[i]);
        let room = &(&padded - &reach) - &Dim::ONE;
        // A window larger than the padded input has no position: 0, never negative.
        dims[axis] = (&room.floordiv(&Dim::from(strides[i])) + &Dim::ONE).maximum(&Dim::ZERO);
    }
    Ok(())
}

fn at_least_one(list: &[usize], what: &str) -> Checked<()> {
    ensure(list.iter().all(|&v| v >= 1), || format!("`{what}` {list:?} must be at least 1"))
}

fn divides(dim: &Dim, groups: usize, what: &str) -> Checked<()> {
    let known = dim.known().and_then(|d| usize::try_from(d).ok());
    ensure(known.is_none_or(|d| d % groups == 0), || format!("{dim} {what} don't split into {groups} groups"))
}

fn conv_operands(x: &TensorType, w: &TensorType, groups: usize) -> Checked<()> {
    ensure(x.rank() >= 3 && x.rank() == w.rank() && x.dtype == w.dtype, || {
        format!("operands are {x} and {w}, expected one type and [n, c, spatial..]")
    })?;
    ensure(groups >= 1, || "`groups` must be at least 1".to_owned())?;
    arithmetic(x.dtype)
}

fn kernel_extents(w: &TensorType) -> Checked<Vec<usize>> {
    w.dims[2..]
        .iter()
        .map(|d| d.known().and_then(|d| usize::try_from(d).ok()))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("the weights are {w}: kernel extents must be known"))
}

fn dot_general(
    (lhs, lhs_batch, lhs_contract): (&TensorType, &[usize], &[usize]),
    (rhs, rhs_batch, rhs_contract): (&TensorType, &[usize], &[usize]),
    accumulate: DType,
) -> Checked<Vec<ValueType>> {
    arithmetic(lhs.dtype)?;
    arithmetic(rhs.dtype)?;
    let number = |t: DType| t.is_float() || t.is_int();
    ensure(number(lhs.dtype) && number(rhs.dtype) && number(accumulate) && !accumulate.is_storage_only(), || {
        format!("not defined on {} and {} into {accumulate}", lhs.dtype, rhs.dtype)
    })?;
    length(rhs_batch.len(), lhs_batch.len(), "rhs_batch")?;
    length(rhs_contract.len(), lhs_contract.len(), "rhs_contract")?;
    for (t, batch, contract, side) in [(lhs, lhs_batch, lhs_contract, "lhs"), (rhs, rhs_batch, rhs_contract, "rhs")] {
        let mut used: Vec<usize> = batch.iter().chain(contract).copied().collect();
        used.iter().try_for_each(|&axis| axis_in(axis, t.rank(), side))?;
        used.sort_unstable();
        ensure(used.windows(2).all(|w| w[0] != w[1]), || format!("{side} uses an axis twice"))?;
    }
    for (&l, &r) in lhs_batch.iter().chain(lhs_contract).zip(rhs_batch.iter().chain(rhs_contract)) {
        let (a, b) = (&lhs.dims[l], &rhs.dims[r]);
        ensure(same(a, b), || format!("lhs axis {l} is {a}, rhs axis {r} is {b}"))?;
    }
    let free = |t: &TensorType, batch: &[usize], contract: &[usize]| -> Vec<Dim> {
        let is_free = |i: &usize| !batch.contains(i) && !contract.contains(i);
        (0..t.rank()).filter(is_free).map(|i| t.dims[i].clone()).collect()
    };
    let mut dims: Vec<Dim> = lhs_batch.iter().map(|&i| lhs.dims[i].clone()).collect();
    dims.extend(free(lhs, lhs_batch, lhs_contract));
    dims.extend(free(rhs, rhs_batch, rhs_contract));
    extents(&dims)?;
    one(TensorType::new(accumulate, dims))
}

fn list(types: &[ValueType]) -> String {
    let texts: Vec<String> = types.iter().map(ToString::to_string).collect();
    format!("({})", texts.join(", "))
}

fn region_takes(region: &Signature, operands: &[&ValueType]) -> Checked<()> {
    ensure(region.inputs.iter().eq(operands.iter().copied()), || {
        let given: Vec<ValueType> = operands.iter().map(|t| (*t).clone()).collect();
        format!("the region takes {}, given {}", list(&region.inputs), list(&given))
    })
}

fn loop_results(
    operands: &[&ValueType],
    regions: &[Signature],
    carried: usize,
    trips: &Dim,
) -> Checked<Vec<ValueType>> {
    scalar(operands, 0, DType::I64)?;
    scalar(operands, 1, DType::Bool)?;
    let [region] = regions else { return Err("takes one region".to_owned()) };
    let Some(state) = operands.get(2..2 + carried) else {
        return Err(format!("carries {carried} values, has {} operands", operands.len()));
    };
    let counter: ValueType = TensorType::scalar(DType::I64).into();
    let condition: ValueType = TensorType::scalar(DType::Bool).into();
    let takes: Vec<&ValueType> = [&counter, &condition].into_iter().chain(operands[2..].iter().copied()).collect();
    region_takes(region, &takes)?;
    let Some((first, rest)) = region.outputs.split_first() else { return Err("the region gives nothing".to_owned()) };
    ensure(*first == condition, || format!("the region's first output is {first}, expected bool[]"))?;
    ensure(rest.len() >= carried && rest[..carried].iter().eq(state.iter().copied()), || {
        format!("the region gives {}, the first {carried} must be the carried types", list(rest))
    })?;
    let mut types = rest[..carried].to_vec();
    for output in &rest[carried..] {
        let t = output.tensor().ok_or_else(|| format!("can't stack {output}"))?;
        let dims: Vec<Dim> = std::iter::once(trips.clone()).chain(t.dims.iter().cloned()).collect();
        extents(&dims)?;
        types.push(TensorType::new(t.dtype, dims).into());
    }
    Ok(types)
}

fn vjp(operands: &[&ValueType], regions: &[Signature], of: usize, wrt: &[usize]) -> Checked<Vec<ValueType>> {
    let [region] = regions else { return Err("takes one region".to_owned()) };
    let Some((inputs, cotangents)) = operands.split_at_checked(region.inputs.len()) else {
        return Err(format!("the region takes {}, there are {} operands", list(&region.inputs), operands.len()));
    };
    region_takes(region, inputs)?;
    let differentiated = region
        .outputs
        .get(..of)
        .ok_or_else(|| format!("{of} outputs have a cotangent, the region gives {}", list(&region.outputs)))?;
    let float = |ty: &ValueType| ty.tensor().is_some_and(|t| t.dtype.is_float());
    ensure(differentiated.iter().eq(cotangents.iter().copied()) && differentiated.iter().all(float), || {
        let given: Vec<ValueType> = cotangents.iter().map(|t| (*t).clone()).collect();
        format!(
            "cotangents are {}, the outputs {}, expected one of each output's type, floats",
            list(&given),
            list(differentiated)
        )
    })?;
    let mut types = region.outputs.clone();
    for &input in wrt {
        let ty = region.inputs.get(input).filter(|ty| float(ty));
        types.push(
            ty.ok_or_else(|| format!("input {input} in `wrt` is no float tensor of {}", list(&region.inputs)))?.clone(),
        );
    }
    Ok(types)
}

fn sequence<'a>(operands: &[&'a ValueType], i: usize) -> Checked<&'a ValueType> {
    match operands.get(i) {
        Some(ValueType::Sequence(element)) => Ok(element),
        Some(other) => Err(format!("operand {i} is {other}, expected a sequence")),
        None => Err(format!("operand {i} is missing")),
    }
}

/// An element fits when it is the sequence's type, or a tensor of its element type where the sequence leaves extents
/// open (symbols that stand for "any").
fn element_fits(found: &ValueType, element: &ValueType) -> Checked<()> {
    let fits = match (found, element) {
        (ValueType::Tensor(f), ValueType::Tensor(e)) => {
            f.dtype == e.dtype && f.rank() == e.rank() && f.dims.iter().zip(&e.dims).all(|(a, b)| same(a, b))
        }
        _ => found == element,
    };
    ensure(fits, || format!("{found} is no {element}"))
}
