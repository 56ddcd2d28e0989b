//! Elementwise kernels: one loop nest over the elements of the outputs.

use frit_ir::{Dim, Op, Symbol, Value};

use super::emit::Emitter;
use super::index::{delinearize, divides_variable, linearize};
use super::{LowerError, Lowering};
use crate::kernel::{BufferId, Expr, Stmt};
use crate::schedule::Directive;

/// Elements of a flat loop that one outer iteration takes.
const BLOCK: i64 = 2048;
/// Elements worth a thread.
const GRAIN: i64 = 16_384;
/// Lanes of a vector loop: one accumulator of 16, whatever the width of the machine.
pub(crate) const LANES: u32 = 16;

/// Lowers a body without large reductions.
pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Result<(), LowerError> {
    let outputs = lowering.outputs.clone();
    stores(lowering, &outputs)
}

/// Phases that compute and store `outputs`; those of one element count share a phase.
pub(crate) fn stores(lowering: &mut Lowering<'_>, outputs: &[(Value, BufferId)]) -> Result<(), LowerError> {
    let mut groups: Vec<(Dim, Vec<(Value, BufferId)>)> = Vec::new();
    for &(value, buffer) in outputs {
        // A concat is as many loops as it has operands: no select per element.
        if let Op::Concat { axis } = lowering.body.op(value) {
            concat(lowering, value, *axis, buffer)?;
            continue;
        }
        let count = lowering.e.tensor(value)?.numel();
        match groups.iter_mut().find(|(c, _)| *c == count) {
            Some((_, group)) => group.push((value, buffer)),
            None => groups.push((count, vec![(value, buffer)])),
        }
    }
    for (_, group) in groups {
        let dims = lowering.e.dims(group[0].0)?;
        nest(lowering, &dims, |e, position, index| {
            for &(value, buffer) in &group {
                let own = e.dims(value)?;
                let own_index = if own == dims { index.to_vec() } else { delinearize(position, &own, &e.ranges) };
                let element = e.emit(value, &own_index)?;
                e.kb.push(Stmt::Store { buffer, index: position.clone(), value: element });
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn concat(lowering: &mut Lowering<'_>, value: Value, axis: usize, buffer: BufferId) -> Result<(), LowerError> {
    let dims = lowering.e.dims(value)?;
    let mut start = Dim::ZERO;
    for &operand in lowering.body.node(value.node).operands() {
        let own = lowering.e.dims(operand)?;
        let begin = start.clone();
        start = &start + &own[axis];
        if own.contains(&Dim::ZERO) {
            continue;
        }
        nest(lowering, &own, |e, _, index| {
            let element = e.emit(operand, index)?;
            let mut target = index.to_vec();
            target[axis] = &target[axis] + &begin;
            let position = e.ranges.simplify(&linearize(&target, &dims));
            e.kb.push(Stmt::Store { buffer, index: position, value: element });
            Ok(())
        })?;
    }
    Ok(())
}

/// A phase over the elements of a shape. `body` gets the row-major position and the index.
pub(crate) fn nest<'a>(
    lowering: &mut Lowering<'a>,
    dims: &[Dim],
    body: impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<(), LowerError> {
    let axes: Vec<usize> = (0..dims.len()).filter(|&a| dims[a] != Dim::ONE).collect();
    // Most merged first: the first that leaves no division in the innermost index.
    let mut merged = axes.len();
    while merged > 1 {
        let mut trial = lowering.e.clone();
        let inner = write(&mut trial, dims, &axes, merged, &body)?;
        if !divides(&trial, &inner.vector) {
            lowering.e = trial;
            return schedule(lowering, inner);
        }
        merged -= 1;
    }
    let inner = write(&mut lowering.e, dims, &axes, merged, &body)?;
    schedule(lowering, inner)
}

/// Loop variables of a phase that was written.
struct Loops {
    outer: Symbol,
    vector: Symbol,
    /// Elements one outer iteration takes, when known.
    inner: Option<i64>,
}

fn schedule(lowering: &mut Lowering<'_>, loops: Loops) -> Result<(), LowerError> {
    let grain = (GRAIN / loops.inner.unwrap_or(BLOCK).max(1)).max(1);
    lowering.schedule.directives.push(Directive::Vector { var: loops.vector, lanes: LANES });
    lowering.schedule.directives.push(Directive::Threads { var: loops.outer, grain: grain as u32 });
    Ok(())
}

/// Writes the phase with the last `merged` axes as the innermost loop.
fn write<'a>(
    e: &mut Emitter<'a>,
    dims: &[Dim],
    axes: &[usize],
    merged: usize,
    body: &impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<Loops, LowerError> {
    let (outer_axes, inner_axes) = axes.split_at(axes.len() - merged.min(axes.len()));
    let extent_of = |axes: &[usize]| axes.iter().fold(Dim::ONE, |n, &a| &n * &dims[a]);
    let (rows, count) = (extent_of(outer_axes), extent_of(inner_axes));
    // One long loop is cut in blocks, so that threads have something to share.
    let blocked = outer_axes.is_empty() && count.known().is_none_or(|n| n > BLOCK);
    let block = Dim::Known(BLOCK);
    let (extent, start_scale) = if blocked { (count.ceildiv(&block), block.clone()) } else { (rows, count.clone()) };
    let (outer, p) = e.var(&extent);
    e.open();
    let start = &p * &start_scale;
    let inner_extent = if blocked { block.minimum(&(&count - &start)) } else { count.clone() };
    let (vector, j) = e.var(if blocked { &block } else { &inner_extent });
    e.open();
    let position = &start + &j;
    let mut index = vec![Dim::ZERO; dims.len()];
    let sub = |axes: &[usize]| axes.iter().map(|&a| dims[a].clone()).collect::<Vec<_>>();
    if blocked {
        for (&axis, i) in axes.iter().zip(delinearize(&position, &sub(axes), &e.ranges)) {
            index[axis] = i;
        }
    } else {
        for (&axis, i) in outer_axes.iter().zip(delinearize(&p, &sub(outer_axes), &e.ranges)) {
            index[axis] = i;
        }
        for (&axis, i) in inner_axes.iter().zip(delinearize(&j, &sub(inner_axes), &e.ranges)) {
            index[axis] = i;
        }
    }
    let position = e.ranges.simplify(&position);
    let written = body(e, &position, &index);
    let stmts = e.close();
    e.kb.push(Stmt::For { var: vector.clone(), extent: inner_extent, body: stmts });
    let stmts = e.close();
    written?;
    e.kb.push_phase(outer.clone(), extent, stmts);
    Ok(Loops { outer, vector, inner: if blocked { Some(BLOCK) } else { count.known() } })
}

/// Whether an access of the last phase divides something that depends on the innermost variable.
fn divides(e: &Emitter<'_>, var: &Symbol) -> bool {
    fn any(stmts: &[Stmt], var: &Symbol) -> bool {
        stmts.iter().any(|s| match s {
            Stmt::Let(_, Expr::Load { index, .. } | Expr::Index(index)) | Stmt::Store { index, .. } => {
                divides_variable(index, var)
            }
            Stmt::Let(..) | Stmt::Check { .. } => false,
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => any(body, var),
            Stmt::If { then, otherwise, .. } => any(then, var) || any(otherwise, var),
        })
    }
    e.kb.last_phase().is_some_and(|phase| any(&phase.body, var))
}
