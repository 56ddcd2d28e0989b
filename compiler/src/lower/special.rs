//! Ops whose elements depend on each other in order: cumulate and scatter. Each is a kernel of its own.

use frit_ir::{BinaryOp, DType, Dim, Op, ReduceKind, ScatterKind, Value};

use super::combine::{combine_of, reduction_type};
use super::index::{delinearize, linearize};
use super::{LowerError, Lowering, map};
use crate::kernel::{BufferId, Reg, Role, Stmt};

/// Lowers a body whose one output is a special op.
pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Result<(), LowerError> {
    let [(value, buffer)] = lowering.outputs[..] else {
        return Err(LowerError::Internal("a special op shares its kernel".to_owned()));
    };
    match lowering.body.op(value).clone() {
        Op::Cumulate { axis, kind, exclusive, reverse } => {
            cumulate(lowering, value, buffer, axis, kind, exclusive, reverse)
        }
        Op::Scatter { axis, kind } => scatter(lowering, value, buffer, axis, kind),
        other => Err(LowerError::Internal(format!("`{}` is not special", other.name()))),
    }
}

fn cumulate(
    lowering: &mut Lowering<'_>,
    value: Value,
    buffer: BufferId,
    axis: usize,
    kind: ReduceKind,
    exclusive: bool,
    reverse: bool,
) -> Result<(), LowerError> {
    let dims = lowering.e.dims(value)?;
    let dtype = lowering.e.tensor(value)?.dtype;
    let x = lowering.body.node(value.node).operands()[0];
    let work = reduction_type(dtype);
    if let ReduceKind::ArgMin | ReduceKind::ArgMax = kind {
        return Err(lowering.e.unsupported(value, format!("a running {}", kind.name())));
    }
    let combine = combine_of(kind, Reg(0)).op();
    let mut others = dims.clone();
    let extent = others.remove(axis);
    // The running value lies in a local cell; a kernel has no registers carried by loops.
    let cell = lowering.e.kb.buffer("running", work, Dim::ONE, Role::Local);
    let rows = Dim::product(&others);
    let (outer, p) = lowering.e.var(&rows);
    lowering.e.open();
    let start = lowering.e.combine_tree(Vec::new(), kind, work, false)?;
    lowering.e.kb.push(Stmt::Store { buffer: cell, index: Dim::ZERO, value: start });
    let kept = delinearize(&p, &others, &lowering.e.ranges);
    let last = &extent - &Dim::ONE;
    let written = lowering.e.for_(extent, |e, k| {
        let at = if reverse { &last - k } else { k.clone() };
        let mut index = kept.clone();
        index.insert(axis, at);
        let position = e.ranges.simplify(&linearize(&index, &dims));
        let element = e.emit(x, &index)?;
        let element = e.cast(element, work, false);
        let before = e.kb.load(cell, Dim::ZERO);
        let after = e.kb.binary(combine, before, element);
        e.kb.push(Stmt::Store { buffer: cell, index: Dim::ZERO, value: after });
        let result = e.cast(if exclusive { before } else { after }, dtype, false);
        e.kb.push(Stmt::Store { buffer, index: position, value: result });
        Ok::<(), LowerError>(())
    });
    let body = lowering.e.close();
    written?;
    lowering.e.kb.push_phase(outer, rows, body);
    Ok(())
}

fn scatter(
    lowering: &mut Lowering<'_>,
    value: Value,
    buffer: BufferId,
    axis: usize,
    kind: ScatterKind,
) -> Result<(), LowerError> {
    let node = lowering.body.node(value.node);
    let (x, indices, updates) = (node.operands()[0], node.operands()[1], node.operands()[2]);
    let origin = node.origin.to_string();
    let dims = lowering.e.dims(value)?;
    map::nest(lowering, &dims, |e, position, index| {
        let element = e.emit(x, index)?;
        e.kb.push(Stmt::Store { buffer, index: position.clone(), value: element });
        Ok(())
    })?;
    let count = lowering.e.dims(indices)?[0].clone();
    let mut others = dims.clone();
    others.remove(axis);
    let rows = Dim::product(&others);
    let (outer, p) = lowering.e.var(&rows);
    lowering.e.open();
    let kept = delinearize(&p, &others, &lowering.e.ranges);
    let written = lowering.e.for_(count, |e, k| {
        let looked_up = e.emit(indices, std::slice::from_ref(k))?;
        let looked_up = e.cast(looked_up, DType::I64, false);
        let at = e.checked_index(looked_up, &dims[axis], &origin);
        let mut source = kept.clone();
        source.insert(axis, k.clone());
        let new = e.emit(updates, &source)?;
        let mut target = kept.clone();
        target.insert(axis, at);
        let position = e.ranges.simplify(&linearize(&target, &dims));
        let combined = match kind {
            ScatterKind::Assign => new,
            ScatterKind::Add => combine(e, BinaryOp::Add, buffer, &position, new),
            ScatterKind::Mul => combine(e, BinaryOp::Mul, buffer, &position, new),
            ScatterKind::Min => combine(e, BinaryOp::Min, buffer, &position, new),
            ScatterKind::Max => combine(e, BinaryOp::Max, buffer, &position, new),
        };
        e.kb.push(Stmt::Store { buffer, index: position, value: combined });
        Ok::<(), LowerError>(())
    });
    let body = lowering.e.close();
    written?;
    lowering.e.kb.push_phase(outer, rows, body);
    Ok(())
}

fn combine(e: &mut super::emit::Emitter<'_>, op: BinaryOp, buffer: BufferId, position: &Dim, new: Reg) -> Reg {
    let old = e.kb.load(buffer, position.clone());
    e.binary(op, old, new)
}
