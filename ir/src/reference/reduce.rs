//! Ops that combine along axes: reduce, cumulate, sort.

use std::cmp::Ordering;

use super::array::{Array, Data, empty, offsets};
use super::elementwise::{binary_float, binary_int};
use super::number::{int_limits, wrap};
use super::{Cx, EvalError, Evaluated};
use crate::op::{BinaryOp, ReduceKind};
use crate::order::tree_reduce;
use crate::types::DType;

/// How a reduction combines, from what, for floats and integers.
struct Combine {
    op: BinaryOp,
    float: f64,
    int: i128,
}

fn combine(kind: ReduceKind, dtype: DType) -> Option<Combine> {
    let (low, high) = int_limits(dtype);
    match kind {
        ReduceKind::Sum => Some(Combine { op: BinaryOp::Add, float: 0.0, int: 0 }),
        ReduceKind::Prod => Some(Combine { op: BinaryOp::Mul, float: 1.0, int: 1 }),
        ReduceKind::Min => Some(Combine { op: BinaryOp::Min, float: f64::INFINITY, int: high }),
        ReduceKind::Max => Some(Combine { op: BinaryOp::Max, float: f64::NEG_INFINITY, int: low }),
        ReduceKind::ArgMin | ReduceKind::ArgMax => None,
    }
}

/// For bool only min and max; the type rules say so for `reduce`.
fn defined(cx: &Cx<'_>, x: &Array, how: Option<Combine>) -> Result<Combine, EvalError> {
    let undefined = || cx.bad_operand(0, format!("is {}, on which the op is not defined", x.dtype));
    let how = how.ok_or_else(undefined)?;
    let possible = match &x.data {
        Data::Float(_) => binary_float(how.op, 0.0, 0.0).is_some(),
        Data::Int(_) => binary_int(how.op, 0, 0, x.dtype).is_some(),
        Data::Text(_) => false,
    };
    if possible { Ok(how) } else { Err(undefined()) }
}

/// Axes that are not in `axes`.
fn others(rank: usize, axes: &[usize]) -> Vec<usize> {
    (0..rank).filter(|a| !axes.contains(a)).collect()
}

pub(super) fn reduce(cx: &Cx<'_>, x: &Array, shape: Vec<usize>, axes: &[usize], kind: ReduceKind) -> Evaluated {
    cx.count(x.len() as u64)?;
    let kept = offsets(&x.shape, &others(x.shape.len(), axes));
    let reduced = offsets(&x.shape, axes);
    if matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax) {
        let largest = kind == ReduceKind::ArgMax;
        let first = |base: &usize| match &x.data {
            Data::Float(v) => first_best(&reduced, |o| v[base + o], largest),
            Data::Int(v) => first_best(&reduced, |o| v[base + o], largest),
            Data::Text(_) => None,
        };
        let nothing = || cx.bad_operand(0, format!("is {}: nothing to choose from", x.ty()));
        let found = kept.iter().map(|base| first(base).map(|i| i as i128).ok_or_else(nothing));
        return Ok(Array::ints(DType::I64, shape, found.collect::<Result<Vec<_>, _>>()?));
    }
    if axes.is_empty() {
        return Ok(x.clone());
    }
    let Combine { op, float, int } = defined(cx, x, combine(kind, x.dtype))?;
    match &x.data {
        Data::Float(v) => {
            let rounding = cx.rounding(x.dtype);
            let accumulator = rounding.accumulator();
            let add = |a: f64, b: f64| accumulator.apply(binary_float(op, a, b).unwrap_or(f64::NAN));
            let line = |base: &usize| {
                let values: Vec<f64> = reduced.iter().map(|o| v[base + o]).collect();
                tree_reduce(&values, float, &add)
            };
            Ok(Array::floats(rounding, shape, kept.iter().map(line)))
        }
        Data::Int(v) => {
            let add = |a: i128, b: i128| wrap(x.dtype, binary_int(op, a, b, x.dtype).unwrap_or(0));
            let line = |base: &usize| {
                let values: Vec<i128> = reduced.iter().map(|o| v[base + o]).collect();
                tree_reduce(&values, int, &add)
            };
            Ok(Array::ints(x.dtype, shape, kept.iter().map(line)))
        }
        Data::Text(_) => Ok(empty(x.dtype, shape)),
    }
}

/// Position of the first largest or smallest value; the first that is not equal to itself (NaN) wins over all.
fn first_best<T: PartialOrd + Copy>(offsets: &[usize], value: impl Fn(usize) -> T, largest: bool) -> Option<usize> {
    let mut best: Option<(usize, T)> = None;
    for (i, &offset) in offsets.iter().enumerate() {
        let v = value(offset);
        if v.partial_cmp(&v).is_none() {
            return Some(i);
        }
        let better = match best {
            None => true,
            Some((_, b)) => {
                if largest {
                    v > b
                } else {
                    v < b
                }
            }
        };
        if better {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

pub(super) fn cumulate(
    cx: &Cx<'_>,
    x: &Array,
    axis: usize,
    kind: ReduceKind,
    exclusive: bool,
    reverse: bool,
) -> Evaluated {
    let Combine { op, float, int } = defined(cx, x, combine(kind, x.dtype))?;
    let mut along = offsets(&x.shape, &[axis]);
    if reverse {
        along.reverse();
    }
    let lines = offsets(&x.shape, &others(x.shape.len(), &[axis]));
    fn run<T: Copy>(
        values: &mut [T],
        line: impl Iterator<Item = usize>,
        from: T,
        exclusive: bool,
        add: impl Fn(T, T) -> T,
    ) {
        let mut sum = from;
        for i in line {
            let next = add(sum, values[i]);
            values[i] = if exclusive { sum } else { next };
            sum = next;
        }
    }
    match &x.data {
        Data::Float(v) => {
            let rounding = cx.rounding(x.dtype);
            let accumulator = rounding.accumulator();
            let mut values = v.clone();
            for base in lines {
                let line = along.iter().map(|o| base + o);
                let add = |a, b| accumulator.apply(binary_float(op, a, b).unwrap_or(f64::NAN));
                run(&mut values, line, float, exclusive, add);
            }
            Ok(Array::floats(rounding, x.shape.clone(), values))
        }
        Data::Int(v) => {
            let mut values = v.clone();
            for base in lines {
                let line = along.iter().map(|o| base + o);
                let add = |a, b| wrap(x.dtype, binary_int(op, a, b, x.dtype).unwrap_or(0));
                run(&mut values, line, int, exclusive, add);
            }
            Ok(Array::ints(x.dtype, x.shape.clone(), values))
        }
        Data::Text(_) => Ok(x.clone()),
    }
}

/// NaN is the largest; -0 equals +0.
fn float_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

pub(super) fn sort(arrays: &[&Array], axis: usize, descending: bool) -> Vec<Array> {
    let Some(keys) = arrays.first() else { return Vec::new() };
    let along = offsets(&keys.shape, &[axis]);
    let order = |a: usize, b: usize| match &keys.data {
        Data::Float(v) => float_order(v[a], v[b]),
        Data::Int(v) => v[a].cmp(&v[b]),
        Data::Text(v) => v[a].cmp(&v[b]),
    };
    let mut from = vec![0; keys.len()];
    for base in offsets(&keys.shape, &others(keys.shape.len(), &[axis])) {
        let mut line: Vec<usize> = along.iter().map(|o| base + o).collect();
        line.sort_by(|&a, &b| if descending { order(b, a) } else { order(a, b) });
        for (o, source) in along.iter().zip(line) {
            from[base + o] = source;
        }
    }
    arrays.iter().map(|a| a.take(&a.shape, &from)).collect()
}
