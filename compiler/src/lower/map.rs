//! Elementwise kernels: one loop nest over the elements of the outputs.

use frit_ir::types::dim::Atom;
use frit_ir::{Dim, Op, Symbol, Value};

use super::emit::{Emitter, UNROLLED};
use super::index::{delinearize, divides_variable, linearize};
use super::{LowerError, Lowering};
use crate::kernel::{BufferId, Expr, Stmt};
use crate::schedule::Directive;

/// Elements of a flat loop that one outer iteration takes.
const BLOCK: i64 = 2048;
/// Statements that a body with its periods written out may have.
const LARGE: usize = 400;
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
    let mut periodic = None;
    while merged > 0 {
        let mut trial = lowering.e.clone();
        let inner = write(&mut trial, dims, &axes, merged, 1, &body)?;
        let Some(by) = divisors(&trial, &inner.vector) else {
            lowering.e = trial;
            return schedule(lowering, inner);
        };
        // What repeats with a short period is written out: the loop then runs over whole periods.
        if let [period] = by[..]
            && (2..=UNROLLED).contains(&period)
            && periodic.is_none()
            && whole(axes.iter().rev().take(merged).map(|&a| &dims[a]), period)
        {
            let mut trial = lowering.e.clone();
            let inner = write(&mut trial, dims, &axes, merged, period, &body)?;
            if divisors(&trial, &inner.vector).is_none() && statements(&trial) <= LARGE {
                periodic = Some((trial, inner));
            }
        }
        merged -= 1;
    }
    if let Some((trial, inner)) = periodic {
        lowering.e = trial;
        return schedule(lowering, inner);
    }
    let inner = write(&mut lowering.e, dims, &axes, 1, 1, &body)?;
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

/// Writes the phase with the last `merged` axes as the innermost loop, `period` elements (which divide its length) an
/// iteration.
fn write<'a>(
    e: &mut Emitter<'a>,
    dims: &[Dim],
    axes: &[usize],
    merged: usize,
    period: i64,
    body: &impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<Loops, LowerError> {
    let (outer_axes, inner_axes) = axes.split_at(axes.len() - merged.min(axes.len()));
    let extent_of = |axes: &[usize]| axes.iter().fold(Dim::ONE, |n, &a| &n * &dims[a]);
    let (rows, count) = (extent_of(outer_axes), extent_of(inner_axes));
    // One long loop is cut in blocks, so that threads have something to share.
    let blocked = outer_axes.is_empty() && count.known().is_none_or(|n| n > BLOCK);
    let block = Dim::Known(BLOCK / period * period);
    let (extent, start_scale) = if blocked { (count.ceildiv(&block), block.clone()) } else { (rows, count.clone()) };
    let (outer, p) = e.var(&extent);
    e.open();
    let start = &p * &start_scale;
    let inner_extent = if blocked { block.minimum(&(&count - &start)) } else { count.clone() };
    let repeats = Dim::Known(period);
    let most = if blocked { &block } else { &inner_extent };
    let inner_extent = if period == 1 { inner_extent.clone() } else { inner_extent.floordiv(&repeats) };
    let (vector, j) = e.var(&if period == 1 { most.clone() } else { most.floordiv(&repeats) });
    e.open();
    let sub = |axes: &[usize]| axes.iter().map(|&a| dims[a].clone()).collect::<Vec<_>>();
    let mut written = Ok(());
    for k in 0..period {
        let j = &(&j * &repeats) + &Dim::Known(k);
        let position = &start + &j;
        let mut index = vec![Dim::ZERO; dims.len()];
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
        written = written.and_then(|()| body(e, &position, &index));
    }
    let stmts = e.close();
    e.kb.push(Stmt::For { var: vector.clone(), extent: inner_extent, body: stmts });
    let stmts = e.close();
    written?;
    e.kb.push_phase(outer.clone(), extent, stmts);
    Ok(Loops { outer, vector, inner: if blocked { Some(BLOCK) } else { count.known() } })
}

/// Whether periods divide a number of elements.
fn whole<'d>(extents: impl Iterator<Item = &'d Dim>, period: i64) -> bool {
    let (count, period) = (Dim::product(extents), Dim::Known(period));
    &count.floordiv(&period) * &period == count
}

/// Statements of the last phase.
fn statements(e: &Emitter<'_>) -> usize {
    fn count(stmts: &[Stmt]) -> usize {
        let inside = |s: &Stmt| match s {
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => count(body),
            Stmt::If { then, otherwise, .. } => count(then) + count(otherwise),
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => 1,
        };
        stmts.iter().map(inside).sum()
    }
    e.kb.last_phase().map_or(0, |phase| count(&phase.body))
}

/// By what accesses of the last phase divide something that depends on the innermost variable: `None`, they do not;
/// nothing, by what is not known.
fn divisors(e: &Emitter<'_>, var: &Symbol) -> Option<Vec<i64>> {
    fn visit(stmts: &[Stmt], var: &Symbol, found: &mut Option<Vec<i64>>) {
        for stmt in stmts {
            match stmt {
                Stmt::Let(_, Expr::Load { index, .. } | Expr::Index(index)) | Stmt::Store { index, .. } => {
                    if divides_variable(index, var) {
                        let found = found.get_or_insert_default();
                        divisors_of(index, var, found);
                    }
                }
                Stmt::Let(..) | Stmt::Check { .. } => {}
                Stmt::For { body, .. } | Stmt::Reduce { body, .. } => visit(body, var, found),
                Stmt::If { then, otherwise, .. } => {
                    visit(then, var, found);
                    visit(otherwise, var, found);
                }
            }
        }
    }
    let mut found = None;
    if let Some(phase) = e.kb.last_phase() {
        visit(&phase.body, var, &mut found);
    }
    found
}

/// Adds the known divisors of what depends on a variable.
fn divisors_of(index: &Dim, var: &Symbol, found: &mut Vec<i64>) {
    for (atoms, _) in index.terms() {
        for atom in atoms {
            let (Atom::FloorDiv(a, by) | Atom::Mod(a, by)) = atom else { continue };
            let mut depends = false;
            a.visit_symbols(&mut |s| depends |= s == var);
            // 0 is no period.
            let by = by.known().unwrap_or(0);
            if depends && !found.contains(&by) {
                found.push(by);
            }
        }
    }
}
