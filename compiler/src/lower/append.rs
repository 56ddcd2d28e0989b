//! Appends: values written into larger memory, behind what is there.
//!
//! In: a body whose outputs follow each other along an axis of the target. Out: a kernel with one output, the target's
//! memory, of which it writes those elements and no others. The target's extents are symbols like any: where it has room
//! for more than it holds, its rows lie apart by the room.

use frit_ir::{Dim, Function, Numerics, TensorType};

use super::index::linearize;
use super::map::nest;
use super::{Argument, LowerError, Lowered, Lowering};
use crate::kernel::{Role, Stmt};

/// What is written into.
pub struct Target<'a> {
    /// Its type, over the module's symbols.
    pub ty: &'a TensorType,
    /// The axis along which values follow each other.
    pub axis: usize,
    /// Where along the axis the first begins.
    pub start: &'a Dim,
}

/// Lowers a body to a kernel that appends its outputs.
pub fn lower_append(
    body: &Function,
    name: &str,
    numerics: Numerics,
    target: &Target<'_>,
) -> Result<Lowered, LowerError> {
    let mut lowering = Lowering::without_outputs(body, name, numerics)?;
    let axis = target.axis;
    let dims: Vec<Dim> = target.ty.dims.iter().map(|d| lowering.e.kb.dim(d)).collect();
    let len = lowering.e.kb.dim(&target.ty.numel());
    let buffer = lowering.e.kb.buffer("out0", target.ty.dtype, len, Role::Output);
    lowering.arguments.push(Argument::Output(0));
    let mut start = lowering.e.kb.dim(target.start);
    for output in body.outputs() {
        let own = lowering.e.dims(output.value)?;
        if own.len() != dims.len() || axis >= own.len() {
            return Err(LowerError::Internal(format!("a value of rank {} is appended to {}", own.len(), target.ty)));
        }
        let begin = start.clone();
        start = &start + &own[axis];
        if own.contains(&Dim::ZERO) {
            continue;
        }
        nest(&mut lowering, &own, |e, _, index| {
            let element = e.emit(output.value, index)?;
            let mut place = index.to_vec();
            place[axis] = &place[axis] + &begin;
            let position = e.ranges.simplify(&linearize(&place, &dims));
            e.kb.push(Stmt::Store { buffer, index: position, value: element });
            Ok(())
        })?;
    }
    Ok(lowering.finish())
}
