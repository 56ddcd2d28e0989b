//! Ops whose operands say where elements are: gather, scatter, compact.

use super::array::{Array, Data, for_each_index, strides};
use super::elementwise::{binary_float, binary_int};
use super::number::wrap;
use super::{Cx, EvalError, Evaluated};
use crate::op::{BinaryOp, ScatterKind};
use crate::types::DType;

/// Operand `operand` as indices inside `extent`.
fn indices(cx: &Cx<'_>, operand: usize, extent: usize) -> Result<Vec<usize>, EvalError> {
    let inside =
        |&i: &i128| if (0..extent as i128).contains(&i) { Ok(i as usize) } else { Err(cx.outside(operand, i, extent)) };
    cx.array(operand)?.as_ints().iter().map(inside).collect()
}

pub(super) fn gather(cx: &Cx<'_>, shape: Vec<usize>, axis: usize) -> Evaluated {
    let (x, looked_up) = (cx.array(0)?, cx.array(1)?);
    let rank = looked_up.shape.len();
    let list = indices(cx, 1, x.shape[axis])?;
    let (steps, index_steps) = (strides(&x.shape), strides(&looked_up.shape));
    Ok(x.pick(&shape, |index| {
        let (before, rest) = index.split_at(axis);
        let (inside, after) = rest.split_at(rank);
        let row = list[super::array::flat(inside, &index_steps)];
        let position = before.iter().chain([&row]).chain(after);
        position.zip(&steps).map(|(i, s)| i * s).sum()
    }))
}

pub(super) fn scatter(cx: &Cx<'_>, axis: usize, kind: ScatterKind) -> Evaluated {
    let (x, updates) = (cx.array(0)?, cx.array(2)?);
    let list = indices(cx, 1, x.shape[axis])?;
    let steps = strides(&x.shape);
    // Targets in the order of the updates: ascending j for any one element of the result.
    let mut targets = Vec::new();
    for_each_index(&updates.shape, |index| {
        let along = |i: usize| if i == axis { list[index[i]] } else { index[i] };
        targets.push((0..index.len()).map(|i| along(i) * steps[i]).sum::<usize>());
    });
    let op = match kind {
        ScatterKind::Assign => {
            let mut from: Vec<usize> = (0..x.len()).collect();
            for (i, &target) in targets.iter().enumerate() {
                from[target] = x.len() + i;
            }
            return Ok(Array::joined(&[x, updates]).take(&x.shape, &from));
        }
        ScatterKind::Add => BinaryOp::Add,
        ScatterKind::Mul => BinaryOp::Mul,
        ScatterKind::Min => BinaryOp::Min,
        ScatterKind::Max => BinaryOp::Max,
    };
    let undefined = || cx.bad_operand(0, format!("is {}, which `{}` can't combine", x.dtype, kind.name()));
    if x.dtype.is_storage_only() {
        return Err(undefined());
    }
    let mut result = x.clone();
    match (&mut result.data, &updates.data) {
        (Data::Float(values), Data::Float(updates)) => {
            let rounding = cx.rounding(x.dtype);
            for (&target, &update) in targets.iter().zip(updates) {
                values[target] = rounding.apply(binary_float(op, values[target], update).ok_or_else(undefined)?);
            }
        }
        (Data::Int(values), Data::Int(updates)) => {
            for (&target, &update) in targets.iter().zip(updates) {
                let combined = binary_int(op, values[target], update, x.dtype).ok_or_else(undefined)?;
                values[target] = wrap(x.dtype, combined);
            }
        }
        (Data::Float(_) | Data::Int(_) | Data::Text(_), _) => return Err(undefined()),
    }
    Ok(result)
}

pub(super) fn compact(cx: &Cx<'_>) -> Evaluated {
    let mask = cx.array(0)?;
    if mask.dtype != DType::Bool || mask.shape.len() != 1 {
        return Err(cx.bad_operand(0, format!("is {}, expected bool[n]", mask.ty())));
    }
    cx.count(mask.len() as u64)?;
    let set: Vec<i128> = mask.as_ints().iter().enumerate().filter(|(_, m)| **m != 0).map(|(i, _)| i as i128).collect();
    Ok(Array::ints(DType::I64, vec![set.len()], set))
}
