//! Elementwise kernels: one loop nest over the elements of the outputs.

use std::collections::HashSet;

use frit_ir::types::dim::Atom;
use frit_ir::{Dim, Op, OpClass, Symbol, Value};

use super::emit::{Emitter, UNROLLED};
use super::index::{delinearize, divides_variable, linearize};
use super::{LowerError, Lowering};
use crate::kernel::{BufferId, Expr, Stmt};
use crate::schedule::Directive;

/// Elements of a flat loop that one outer iteration takes.
const BLOCK: i64 = 2048;
/// Statements that a body with its periods written out may have.
const LARGE: usize = 800;
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
        let parts = parts(&lowering.e, value)?;
        if parts.len() > 1 {
            for part in parts {
                store_part(lowering, value, buffer, &part)?;
            }
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

/// A phase over a part of a value.
fn store_part(lowering: &mut Lowering<'_>, value: Value, buffer: BufferId, part: &Part) -> Result<(), LowerError> {
    if part.extents.contains(&Dim::ZERO) {
        return Ok(());
    }
    let dims = lowering.e.dims(value)?;
    let extents = lowering.e.kernel_dims(&part.extents);
    nest(lowering, &extents, |e, _, index| {
        let at = |e: &mut Emitter<'_>, begin: &[Dim]| -> Vec<Dim> {
            index.iter().zip(e.kernel_dims(begin)).map(|(i, begin)| i + &begin).collect()
        };
        // Innermost first: what an outer one needs is known by then.
        for pick in part.picks.iter().rev() {
            let source = at(e, &pick.operand_begin);
            let element = e.emit(pick.operand, &source)?;
            let place = at(e, &pick.begin);
            e.assume(pick.concat, place, element);
        }
        let target = at(e, &part.begin);
        let element = e.emit(value, &target)?;
        let position = e.ranges.simplify(&linearize(&target, &dims));
        e.kb.push(Stmt::Store { buffer, index: position, value: element });
        Ok(())
    })
}

/// A box of a value, over the module's symbols.
#[derive(Clone)]
struct Part {
    begin: Vec<Dim>,
    extents: Vec<Dim>,
    picks: Vec<Pick>,
}

/// The operand of a concat that a part needs, and where in both the part begins.
#[derive(Clone)]
struct Pick {
    concat: Value,
    begin: Vec<Dim>,
    operand: Value,
    operand_begin: Vec<Dim>,
}

/// A value as boxes that each need one operand of every concat between it and other ops than elementwise ones: a loop
/// for each then selects nothing. The whole value where there is no such concat, or where the loops would be too much
/// code.
fn parts(e: &Emitter<'_>, value: Value) -> Result<Vec<Part>, LowerError> {
    /// Ops that are written again for each box, in all.
    const MOST_COPIES: usize = 1024;
    let most = MOST_COPIES.max(4 * e.body.node(value.node).operands().len());
    let extents = e.tensor(value)?.dims.clone();
    let whole = Part { begin: vec![Dim::ZERO; extents.len()], extents, picks: Vec::new() };
    let (mut open, mut done) = (vec![whole.clone()], Vec::new());
    let mut copies = 0;
    while let Some(part) = open.pop() {
        match cut(e, value, part)? {
            Cut::Fits(part, ops) => {
                copies += 1 + ops;
                done.push(part);
            }
            // The first comes first.
            Cut::Smaller(parts) => open.extend(parts.into_iter().rev()),
        }
        if copies + open.len() > most {
            return Ok(vec![whole]);
        }
    }
    Ok(done)
}

enum Cut {
    /// The part, with what it picks, and how many ops are written for it.
    Fits(Part, usize),
    /// It needs several operands of a concat: parts that need one.
    Smaller(Vec<Part>),
}

fn cut(e: &Emitter<'_>, value: Value, mut part: Part) -> Result<Cut, LowerError> {
    part.picks.clear();
    let mut ops = 0;
    let mut seen: HashSet<(Value, Vec<Dim>)> = HashSet::new();
    // Values with the place in them where the part begins.
    let mut open = vec![(value, part.begin.clone())];
    while let Some((value, begin)) = open.pop() {
        if e.memory.contains_key(&value) || !seen.insert((value, begin.clone())) {
            continue;
        }
        let node = e.body.node(value.node);
        let Op::Concat { axis } = node.op else {
            if node.op.class() == OpClass::Elementwise {
                ops += 1;
                open.extend(node.operands().iter().map(|&v| (v, begin.clone())));
            }
            continue;
        };
        let end = &begin[axis] + &part.extents[axis];
        let mut start = Dim::ZERO;
        let mut pieces = Vec::with_capacity(node.operands().len());
        let mut inside = None;
        for &operand in node.operands() {
            let extent = e.tensor(operand)?.dims[axis].clone();
            let stop = &start + &extent;
            if (&begin[axis] - &start).is_nonnegative() && (&stop - &end).is_nonnegative() {
                inside = Some((operand, start.clone()));
            }
            pieces.push((start, extent));
            start = stop;
        }
        if let Some((operand, start)) = inside {
            let mut operand_begin = begin.clone();
            operand_begin[axis] = &operand_begin[axis] - &start;
            open.push((operand, operand_begin.clone()));
            part.picks.push(Pick { concat: value, begin, operand, operand_begin });
            continue;
        }
        // A part of a concat is left to selects, the whole of it is cut.
        if begin[axis] == Dim::ZERO && end == start {
            let smaller = |(start, extent): (Dim, Dim)| {
                let mut smaller = part.clone();
                smaller.begin[axis] = &smaller.begin[axis] + &start;
                smaller.extents[axis] = extent;
                smaller
            };
            return Ok(Cut::Smaller(pieces.into_iter().map(smaller).collect()));
        }
    }
    Ok(Cut::Fits(part, ops))
}

/// A phase over the elements of a shape. `body` gets the row-major position and the index.
pub(crate) fn nest<'a>(
    lowering: &mut Lowering<'a>,
    dims: &[Dim],
    body: impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<(), LowerError> {
    let axes: Vec<usize> = (0..dims.len()).filter(|&a| dims[a] != Dim::ONE).collect();
    let mut best = Form { merged: 1, cut: Cutting::None };
    let mut best_use = 0.0;
    let mut merged = axes.len();
    while merged > 0 {
        let plain = Form { merged, cut: Cutting::None };
        let before = lowering.e.kb.mark();
        let Trial { usage, divisors, loops } = attempt(&mut lowering.e, dims, &axes, plain, &body)?;
        // Nothing does better: it stays.
        if usage >= 1.0 {
            return schedule(lowering, loops);
        }
        lowering.e.kb.back_to(before);
        if usage > best_use {
            (best, best_use) = (plain, usage);
        }
        let Some(by) = divisors else { break };
        let last = || axes.iter().rev().take(merged).map(|&a| &dims[a]);
        for cut in cuts(&by).into_iter().filter(|c| whole(last(), c.elements())) {
            let form = Form { merged, cut };
            let before = lowering.e.kb.mark();
            let trial = attempt(&mut lowering.e, dims, &axes, form, &body)?;
            lowering.e.kb.back_to(before);
            if trial.usage > best_use {
                (best, best_use) = (form, trial.usage);
            }
        }
        merged -= 1;
    }
    let loops = write(&mut lowering.e, dims, &axes, best, &body)?;
    schedule(lowering, loops)
}

/// How a phase over the elements of a shape is written.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// How many of the last axes the innermost loop runs over.
    merged: usize,
    cut: Cutting,
}

/// What becomes of the elements of the innermost loop. Numbers of elements divide the length of the merged axes.
#[derive(Clone, Copy, Debug)]
enum Cutting {
    /// They follow one another.
    None,
    /// So many are written out in one iteration: what repeats with this period needs no division then.
    Period(i64),
    /// The loop is so long; what is divided by its length is the outer loop's.
    Block(i64),
}

impl Cutting {
    fn elements(self) -> i64 {
        match self {
            Cutting::None => 1,
            Cutting::Period(n) | Cutting::Block(n) => n,
        }
    }
}

/// Ways around the divisors of an innermost index.
fn cuts(by: &[i64]) -> Vec<Cutting> {
    let common = by.iter().copied().fold(0, gcd);
    let mut cuts = Vec::new();
    if let [period] = *by
        && (2..=UNROLLED).contains(&period)
    {
        cuts.push(Cutting::Period(period));
    }
    if common > 1 {
        cuts.push(Cutting::Block(common));
    }
    cuts
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A form that was written.
struct Trial {
    loops: Loops,
    /// What share of a vector's lanes it keeps busy; 0 where indices are divided in the innermost loop.
    usage: f64,
    /// By what they are; `None` where they are not, nothing by what is not known.
    divisors: Option<Vec<i64>>,
}

fn attempt<'a>(
    e: &mut Emitter<'a>,
    dims: &[Dim],
    axes: &[usize],
    form: Form,
    body: &impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<Trial, LowerError> {
    /// What accesses with a stride are worth.
    const STRIDED: f64 = 0.7;
    let loops = write(e, dims, axes, form, body)?;
    let divisors = divisors(e, &loops.vector);
    let large = statements(e) > LARGE;
    let lanes = i64::from(LANES);
    let busy = loops.iterations.map_or(1.0, |n| n as f64 / ((n + lanes - 1) / lanes * lanes).max(1) as f64);
    let usage = match form.cut {
        _ if divisors.is_some() => 0.0,
        Cutting::Period(_) if large => 0.0,
        Cutting::Period(_) => STRIDED * busy,
        Cutting::None | Cutting::Block(_) => busy,
    };
    Ok(Trial { loops, usage, divisors })
}

/// Loop variables of a phase that was written.
struct Loops {
    outer: Symbol,
    vector: Symbol,
    /// Elements one outer iteration takes, when known.
    inner: Option<i64>,
    /// Iterations of the innermost loop, when known.
    iterations: Option<i64>,
}

fn schedule(lowering: &mut Lowering<'_>, loops: Loops) -> Result<(), LowerError> {
    let grain = (GRAIN / loops.inner.unwrap_or(BLOCK).max(1)).max(1);
    lowering.schedule.directives.push(Directive::Vector { var: loops.vector, lanes: LANES });
    lowering.schedule.directives.push(Directive::Threads { var: loops.outer, grain: grain as u32 });
    Ok(())
}

/// Writes the phase in a form.
fn write<'a>(
    e: &mut Emitter<'a>,
    dims: &[Dim],
    axes: &[usize],
    form: Form,
    body: &impl Fn(&mut Emitter<'a>, &Dim, &[Dim]) -> Result<(), LowerError>,
) -> Result<Loops, LowerError> {
    let (outer_axes, inner_axes) = axes.split_at(axes.len() - form.merged.min(axes.len()));
    let extent_of = |axes: &[usize]| axes.iter().fold(Dim::ONE, |n, &a| &n * &dims[a]);
    let (rows, count) = (extent_of(outer_axes), extent_of(inner_axes));
    let period = if let Cutting::Period(n) = form.cut { n } else { 1 };
    let block = match form.cut {
        Cutting::Block(n) => Some(n),
        // One long loop is cut in blocks, so that threads have something to share.
        Cutting::None | Cutting::Period(_) => {
            let long = outer_axes.is_empty() && count.known().is_none_or(|n| n > BLOCK);
            long.then_some(BLOCK / period * period)
        }
    };
    let (extent, length) = match block.map(Dim::Known) {
        Some(block) => (&rows * &count.ceildiv(&block), block),
        None => (rows, count.clone()),
    };
    let (outer, p) = e.var(&extent);
    e.open();
    let start = &p * &length;
    let repeats = Dim::Known(period);
    let whole = &length * &count.floordiv(&length) == count;
    // The last block is shorter where blocks don't divide the length; there is one row then.
    let inner_extent = if whole { length.clone() } else { length.minimum(&(&count - &start)) };
    let (inner_extent, most) = match period {
        1 => (inner_extent, length.clone()),
        _ => (inner_extent.floordiv(&repeats), length.floordiv(&repeats)),
    };
    let (vector, j) = e.var(&most);
    e.open();
    let sub = |axes: &[usize]| axes.iter().map(|&a| dims[a].clone()).collect::<Vec<_>>();
    let mut written = Ok(());
    for k in 0..period {
        let j = &(&j * &repeats) + &Dim::Known(k);
        let position = &start + &j;
        let mut index = vec![Dim::ZERO; dims.len()];
        // Rows and what lies in them are told apart by the loops, where the loops do.
        let places = match block {
            Some(_) => delinearize(&position, &sub(axes), &e.ranges),
            None => {
                [delinearize(&p, &sub(outer_axes), &e.ranges), delinearize(&j, &sub(inner_axes), &e.ranges)].concat()
            }
        };
        for (&axis, i) in axes.iter().zip(places) {
            index[axis] = i;
        }
        let position = e.ranges.simplify(&position);
        written = written.and_then(|()| body(e, &position, &index));
    }
    let stmts = e.close();
    e.kb.push(Stmt::For { var: vector.clone(), extent: inner_extent, body: stmts });
    let stmts = e.close();
    written?;
    e.kb.push_phase(outer.clone(), extent, stmts);
    Ok(Loops { outer, vector, inner: length.known(), iterations: most.known() })
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
    e.kb.last_phase().and_then(|phase| divisors_in(&phase.body, var))
}

/// [`divisors`] of the accesses of some statements.
pub(super) fn divisors_in(stmts: &[Stmt], var: &Symbol) -> Option<Vec<i64>> {
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
    visit(stmts, var, &mut found);
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
