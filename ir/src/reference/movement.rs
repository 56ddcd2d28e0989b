//! Ops that move elements and change none: each says where an element of the result comes from.

use super::array::{Array, flat, strides};
use super::{Cx, Evaluated};
use crate::types::{Class, DType, Dim};

pub(super) fn iota(cx: &Cx<'_>, dtype: DType, shape: Vec<usize>, axis: usize) -> Array {
    let mut counts = Vec::new();
    super::array::for_each_index(&shape, |index| counts.push(index[axis]));
    match dtype.class() {
        Class::Float => Array::floats(cx.rounding(dtype), shape, counts.into_iter().map(|i| i as f64)),
        Class::Signed | Class::Unsigned | Class::Bool | Class::Text => {
            Array::ints(dtype, shape, counts.into_iter().map(|i| i as i128))
        }
    }
}

pub(super) fn broadcast(x: &Array, shape: Vec<usize>, axes: &[usize]) -> Array {
    let steps = strides(&x.shape);
    x.pick(&shape, |index| {
        let along = |i: usize| if x.shape[i] == 1 { 0 } else { index[axes[i]] * steps[i] };
        (0..axes.len()).map(along).sum()
    })
}

pub(super) fn transpose(x: &Array, shape: Vec<usize>, perm: &[usize]) -> Array {
    let steps = strides(&x.shape);
    let steps: Vec<usize> = perm.iter().map(|&axis| steps[axis]).collect();
    x.pick(&shape, |index| flat(index, &steps))
}

/// The type rules have checked that the slice stays inside.
pub(super) fn slice(x: &Array, shape: Vec<usize>, starts: &[Dim], by: &[i64]) -> Array {
    let steps = strides(&x.shape);
    x.pick(&shape, |index| {
        let along = |i: usize| starts[i].known().unwrap_or(0) + index[i] as i64 * by[i];
        (0..index.len()).map(|i| along(i) as usize * steps[i]).sum()
    })
}

/// Operands from `first` on: where a window of `sizes` in `extents` starts, clamped so that it stays inside.
fn clamped_starts(
    cx: &Cx<'_>,
    first: usize,
    extents: &[usize],
    sizes: &[usize],
) -> Result<Vec<usize>, super::EvalError> {
    let room = extents.iter().zip(sizes).map(|(extent, size)| extent.saturating_sub(*size));
    room.enumerate().map(|(axis, room)| Ok(cx.scalar(first + axis)?.clamp(0, room as i128) as usize)).collect()
}

pub(super) fn dynamic_slice(cx: &Cx<'_>, shape: Vec<usize>) -> Evaluated {
    let x = cx.array(0)?;
    let starts = clamped_starts(cx, 1, &x.shape, &shape)?;
    let steps = strides(&x.shape);
    let base = flat(&starts, &steps);
    Ok(x.pick(&shape, |index| base + flat(index, &steps)))
}

pub(super) fn update_slice(cx: &Cx<'_>, shape: Vec<usize>) -> Evaluated {
    let (x, update) = (cx.array(0)?, cx.array(1)?);
    let starts = clamped_starts(cx, 2, &x.shape, &update.shape)?;
    let (steps, inner) = (strides(&x.shape), strides(&update.shape));
    let both = Array::joined(&[x, update]);
    Ok(both.pick(&shape, |index| {
        let inside = (0..index.len()).all(|i| (starts[i]..starts[i] + update.shape[i]).contains(&index[i]));
        let offset = |i: usize| (index[i] - starts[i]) * inner[i];
        if inside { x.len() + (0..index.len()).map(offset).sum::<usize>() } else { flat(index, &steps) }
    }))
}

/// The element of `x` at a position that may lie outside, where `value` (the one behind `x`'s elements) stands.
fn at_or_value(x: &Array, steps: &[usize], position: &[i64]) -> usize {
    let inside = position.iter().zip(&x.shape).all(|(p, extent)| (0..*extent as i64).contains(p));
    if inside { position.iter().zip(steps).map(|(p, s)| *p as usize * s).sum() } else { x.len() }
}

pub(super) fn pad(x: &Array, value: &Array, shape: Vec<usize>, low: &[Dim]) -> Array {
    let steps = strides(&x.shape);
    let low: Vec<i64> = low.iter().map(|l| l.known().unwrap_or(0)).collect();
    Array::joined(&[x, value]).pick(&shape, |index| {
        let position: Vec<i64> = index.iter().zip(&low).map(|(i, l)| *i as i64 - l).collect();
        at_or_value(x, &steps, &position)
    })
}

pub(super) fn concat(parts: &[&Array], shape: Vec<usize>, axis: usize) -> Array {
    Array::joined(parts).pick(&shape, |index| {
        let (mut along, mut before) = (index[axis], 0);
        for part in parts {
            if along < part.shape[axis] {
                let mut index = index.to_vec();
                index[axis] = along;
                return before + flat(&index, &strides(&part.shape));
            }
            along -= part.shape[axis];
            before += part.len();
        }
        before
    })
}

pub(super) fn window(
    x: &Array,
    value: &Array,
    shape: Vec<usize>,
    axes: &[usize],
    by: &[usize],
    dilations: &[usize],
    low: &[usize],
) -> Array {
    let steps = strides(&x.shape);
    let rank = x.shape.len();
    Array::joined(&[x, value]).pick(&shape, |index| {
        let mut position: Vec<i64> = index[..rank].iter().map(|&i| i as i64).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let inside = index[axis] * by[i] + index[rank + i] * dilations[i];
            position[axis] = inside as i64 - low[i] as i64;
        }
        at_or_value(x, &steps, &position)
    })
}
