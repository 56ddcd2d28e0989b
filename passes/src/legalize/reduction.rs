//! Reductions, running sums, softmax and its relatives, sorting.
//!
//! 16-bit floats are reduced in f32 and rounded once at the end, as ONNX Runtime does.

use frit_ir::{BinaryOp, DType, Dim, Op, ReduceKind, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::error::{Ruled, invalid};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("ArgMax", |c| arg(c, ReduceKind::ArgMax)),
    onnx("ArgMin", |c| arg(c, ReduceKind::ArgMin)),
    onnx("CumProd", |c| cumulate(c, ReduceKind::Prod)),
    onnx("CumSum", |c| cumulate(c, ReduceKind::Sum)),
    onnx("Hardmax", hardmax),
    onnx("LogSoftmax", |c| along_axis(c, log_softmax)),
    onnx("ReduceL1", |c| reduce(c, Measure::L1)),
    onnx("ReduceL2", |c| reduce(c, Measure::L2)),
    onnx("ReduceLogSum", |c| reduce(c, Measure::LogSum)),
    onnx("ReduceLogSumExp", |c| reduce(c, Measure::LogSumExp)),
    onnx("ReduceMax", |c| reduce(c, Measure::Plain(ReduceKind::Max))),
    onnx("ReduceMean", |c| reduce(c, Measure::Mean)),
    onnx("ReduceMin", |c| reduce(c, Measure::Plain(ReduceKind::Min))),
    onnx("ReduceProd", |c| reduce(c, Measure::Plain(ReduceKind::Prod))),
    onnx("ReduceSum", |c| reduce(c, Measure::Plain(ReduceKind::Sum))),
    onnx("ReduceSumSquare", |c| reduce(c, Measure::SumSquare)),
    onnx("Softmax", |c| along_axis(c, softmax)),
    onnx("TopK", top_k),
];

/// What a reduction computes.
#[derive(Clone, Copy)]
enum Measure {
    Plain(ReduceKind),
    Mean,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

fn reduce(c: &mut Ctx, measure: Measure) -> Results {
    let x = c.x(0)?;
    let rank = c.rank(x)?;
    let keep = c.flag("keepdims", true)?;
    let axes = c.axes_input(1)?.unwrap_or_default();
    let axes = if !axes.is_empty() {
        c.axes_of(&axes, rank)?
    } else if c.flag("noop_with_empty_axes", false)? {
        Vec::new()
    } else {
        (0..rank).collect()
    };
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let y = measured(c, x, &axes, measure, keep)?;
    Ok(vec![c.to(y, dtype)?])
}

fn measured(c: &mut Ctx, x: Value, axes: &[usize], measure: Measure, keep: bool) -> Ruled<Value> {
    match measure {
        Measure::Plain(kind) => Ok(c.b.reduce(x, axes.to_vec(), kind, keep)?),
        Measure::Mean => c.mean(x, axes, keep),
        Measure::L1 => {
            let a = c.un(UnaryOp::Abs, x)?;
            c.sum(a, axes, keep)
        }
        Measure::SumSquare => {
            let square = c.mul(x, x)?;
            c.sum(square, axes, keep)
        }
        Measure::L2 => {
            let sum = measured(c, x, axes, Measure::SumSquare, keep)?;
            through_float(c, sum, UnaryOp::Sqrt)
        }
        Measure::LogSum => {
            let sum = c.sum(x, axes, keep)?;
            through_float(c, sum, UnaryOp::Log)
        }
        Measure::LogSumExp => {
            let dtype = c.dtype(x)?;
            let x = if dtype.is_float() { x } else { c.to(x, DType::F64)? };
            let y = log_sum_exp(c, x, axes, keep)?;
            c.to(y, dtype)
        }
    }
}

/// A float function of a number that may be an integer.
fn through_float(c: &mut Ctx, x: Value, op: UnaryOp) -> Ruled<Value> {
    let dtype = c.dtype(x)?;
    let float = if dtype.is_float() { x } else { c.to(x, DType::F64)? };
    let y = c.un(op, float)?;
    c.to(y, dtype)
}

/// m + ln sum e^(x - m), m the largest element where that is finite, else 0.
pub(super) fn log_sum_exp(c: &mut Ctx, x: Value, axes: &[usize], keep: bool) -> Ruled<Value> {
    let top = c.b.reduce(x, axes.to_vec(), ReduceKind::Max, true)?;
    let size = c.un(UnaryOp::Abs, top)?;
    let finite = c.bin_s(BinaryOp::Lt, size, f64::INFINITY)?;
    let zero = c.like(top, 0.0)?;
    let top = c.pick(finite, top, zero)?;
    let shifted = c.sub(x, top)?;
    let e = c.un(UnaryOp::Exp, shifted)?;
    let sum = c.sum(e, axes, true)?;
    let log = c.un(UnaryOp::Log, sum)?;
    let y = c.add(log, top)?;
    if keep {
        return Ok(y);
    }
    let kept = c.shape(y)?.into_iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, d)| d).collect();
    Ok(c.b.reshape(y, kept)?)
}

fn arg(c: &mut Ctx, kind: ReduceKind) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axis = c.axis(0, dims.len())?;
    let keep = c.flag("keepdims", true)?;
    let last = c.flag("select_last_index", false)?;
    let x = if last { c.reversed(x, &[axis])? } else { x };
    let mut y = c.b.reduce(x, vec![axis], kind, keep)?;
    if last && let Some(extent) = dims.get(axis) {
        let end = c.dim(extent - &Dim::ONE)?;
        y = c.sub(end, y)?;
    }
    Ok(vec![y])
}

fn cumulate(c: &mut Ctx, kind: ReduceKind) -> Results {
    let (x, axis) = (c.x(0)?, c.x(1)?);
    let axis = c.const_int(axis, "the axis")?;
    let axis = c.axis_of(axis, c.rank(x)?)?;
    let (exclusive, reverse) = (c.flag("exclusive", false)?, c.flag("reverse", false)?);
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let y = c.op(Op::Cumulate { axis, kind, exclusive, reverse }, &[x])?;
    Ok(vec![c.to(y, dtype)?])
}

/// Below opset 13 an operator works on the input flattened to two dims at `axis`.
fn along_axis(c: &mut Ctx, f: fn(&mut Ctx, Value, &[usize]) -> Ruled<Value>) -> Results {
    let x = c.x(0)?;
    let (dtype, rank) = (c.dtype(x)?, c.rank(x)?);
    let x = c.to(x, c.wide(dtype))?;
    let axes = softmax_axes(c, rank)?;
    let y = f(c, x, &axes)?;
    Ok(vec![c.to(y, dtype)?])
}

fn softmax_axes(c: &Ctx, rank: usize) -> Ruled<Vec<usize>> {
    if c.version >= 13 {
        return Ok(vec![c.axis(-1, rank)?]);
    }
    let axis = c.int("axis")?.unwrap_or(1);
    let axis = if usize::try_from(axis) == Ok(rank) { rank } else { c.axis_of(axis, rank)? };
    Ok((axis..rank).collect())
}

/// e^(x - max) over its sum; a row of -inf gives NaN, as the formula says.
pub(super) fn softmax(c: &mut Ctx, x: Value, axes: &[usize]) -> Ruled<Value> {
    let top = c.b.reduce(x, axes.to_vec(), ReduceKind::Max, true)?;
    let shifted = c.sub(x, top)?;
    let e = c.un(UnaryOp::Exp, shifted)?;
    let sum = c.sum(e, axes, true)?;
    c.div(e, sum)
}

pub(super) fn log_softmax(c: &mut Ctx, x: Value, axes: &[usize]) -> Ruled<Value> {
    let top = c.b.reduce(x, axes.to_vec(), ReduceKind::Max, true)?;
    let shifted = c.sub(x, top)?;
    let e = c.un(UnaryOp::Exp, shifted)?;
    let sum = c.sum(e, axes, true)?;
    let log = c.un(UnaryOp::Log, sum)?;
    c.sub(shifted, log)
}

/// 1 at the first largest element, 0 elsewhere.
fn hardmax(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axes = softmax_axes(c, dims.len())?;
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else { return invalid("no axis to reduce") };
    let (outer, rest) = dims.split_at(first.min(dims.len()));
    let (inner, after) = rest.split_at((last + 1 - first).min(rest.len()));
    let mut merged = outer.to_vec();
    merged.push(Dim::product(inner));
    merged.extend_from_slice(after);
    let flat = c.b.reshape(x, merged.clone())?;
    let best = c.b.reduce(flat, vec![first], ReduceKind::ArgMax, true)?;
    let at = c.iota(DType::I64, merged, first)?;
    let hit = c.bin(BinaryOp::Eq, at, best)?;
    let hit = c.b.reshape(hit, dims)?;
    let dtype = c.dtype(x)?;
    Ok(vec![c.to(hit, dtype)?])
}

/// The first k of each row sorted; equal elements keep their order.
fn top_k(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axis = c.axis(-1, dims.len())?;
    let k = if c.version < 10 {
        c.int("k")?.map(Dim::Known)
    } else {
        let k = c.x(1)?;
        c.const_dims(k, "k")?.into_iter().next()
    };
    let Some(k) = k else { return invalid("k is missing") };
    if let (Some(k), Some(extent)) = (k.known(), dims.get(axis).and_then(Dim::known))
        && !(0..=extent).contains(&k)
    {
        return invalid(format!("k is {k}, axis {axis} has extent {extent}"));
    }
    let at = c.iota(DType::I64, dims, axis)?;
    let descending = c.flag("largest", true)?;
    let sorted = c.b.function.add_op_with(
        Op::Sort { axis, descending },
        &[x, at],
        Vec::new(),
        &c.b.origin.clone(),
        c.b.numerics,
    )?;
    let result = |result| Value { node: sorted, result };
    Ok(vec![c.part(result(0), axis, Dim::ZERO, k.clone())?, c.part(result(1), axis, Dim::ZERO, k)?])
}
