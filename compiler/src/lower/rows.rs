//! Kernels with large reductions: rows in registers, or tiles of few long rows.

use std::cell::LazyCell;
use std::collections::HashMap;

use frit_ir::{BinaryOp, DType, Dim, Function, NodeId, Op, OpClass, ReduceKind, Value};
use frit_passes::fuse::{kernel_shape, reduces_neighbours};

use super::combine::{combine_of, reduced_index, reduction_type};
use super::emit::{Emitter, UNROLLED};
use super::index::{delinearize, linearize};
use super::line::Pass;
use super::{LowerError, Lowering, columns, contract, map};
use crate::kernel::{Acc, BufferId, Combine, Reg, Role, Scalar, Stmt};
use crate::schedule::Directive;

/// Elements that one accumulation takes: longer rows are cut into tiles, by `frit_ir::order`.
pub(super) const TILE: i64 = frit_ir::order::TILE as i64;
/// Fewer rows than this, if long, are split over threads.
const FEW_ROWS: i64 = 8;
/// Rows longer than this can't be reduced in two levels of tiles.
const LONGEST: i64 = TILE * TILE;

/// A reduction that needs a loop.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    pub(super) value: Value,
    pub(super) kind: ReduceKind,
    /// Reduced extents, outermost first.
    extents: Vec<Dim>,
    /// Element type of what is reduced.
    pub(super) dtype: DType,
    /// How many reductions deep it depends on others.
    pub(super) level: usize,
    /// Sums may be reordered.
    reassociate: bool,
    /// A condition of the row under which nothing needs the result.
    unless: Option<Value>,
}

/// The row space of a body.
pub(crate) struct Rows {
    pub(super) large: Vec<Large>,
    /// Number of rows.
    count: Dim,
    /// Elements reduced in each.
    pub(super) length: Dim,
    /// How many reductions deep each op lies.
    levels: HashMap<NodeId, usize>,
}

impl Rows {
    /// Whether a value needs only reductions before those of a level.
    pub(super) fn is_ready(&self, value: Value, level: usize) -> bool {
        self.levels.get(&value.node).is_some_and(|l| *l < level)
    }
}

/// The large reductions of a body, if any; an error when they don't share rows.
pub(crate) fn find(lowering: &mut Lowering<'_>) -> Result<Option<Rows>, LowerError> {
    let body = lowering.body;
    let order = body.toposort().ok_or_else(|| LowerError::Internal("a cycle in a fused body".to_owned()))?;
    // A short reduction is a section all the same where its row needs it again and again (softmax over few classes).
    let sections = LazyCell::new(|| match kernel_shape(body) {
        Ok(shape) => shape.space.map(|s| s.sections).unwrap_or_default(),
        Err(_) => Vec::new(),
    });
    let mut levels: HashMap<NodeId, usize> = HashMap::new();
    let mut rows: Option<Rows> = None;
    for id in order {
        let node = body.node(id);
        let value = Value { node: id, result: 0 };
        let mut level = node.operands().iter().map(|v| levels.get(&v.node).copied().unwrap_or(0)).max().unwrap_or(0);
        let reduction = match &node.op {
            Op::Reduce { axes, kind } => {
                let dims = lowering.e.dims(node.operands()[0])?;
                let dtype = lowering.e.tensor(node.operands()[0])?.dtype;
                Some((*kind, axes.iter().map(|&a| dims[a].clone()).collect::<Vec<_>>(), dtype))
            }
            op if op.class() == OpClass::Contraction => {
                let terms = contract::terms(&mut lowering.e, value)?;
                Some((ReduceKind::Sum, terms.extents, terms.dtype))
            }
            _ => None,
        };
        if let Some((kind, extents, dtype)) = reduction {
            let length = Dim::product(&extents);
            let unrolled = length.known().is_some_and(|n| n <= UNROLLED);
            if !unrolled || sections.contains(&id) {
                level += 1;
                let count = Dim::product(&lowering.e.dims(value)?);
                let reassociate = node.numerics.reassociate;
                let large = Large { value, kind, extents, dtype, level, reassociate, unless: None };
                match &mut rows {
                    None => rows = Some(Rows { large: vec![large], count, length, levels: HashMap::new() }),
                    Some(rows) if rows.count == count && rows.length == length => rows.large.push(large),
                    Some(rows) => {
                        return Err(LowerError::Unfusable {
                            origin: node.origin.to_string(),
                            message: format!(
                                "it reduces {length} elements in {count} rows, the kernel {} in {}",
                                rows.length, rows.count
                            ),
                        });
                    }
                }
            }
        }
        levels.insert(id, level);
    }
    Ok(rows.map(|mut rows| {
        rows.large.iter_mut().for_each(|large| large.unless = needed_unless(body, large.value, &levels));
        Rows { levels, ..rows }
    }))
}

/// The condition, known before a reduction runs, under which a likely `select` takes another value in all places where
/// the result is used.
fn needed_unless(body: &Function, value: Value, levels: &HashMap<NodeId, usize>) -> Option<Value> {
    let mut found: Option<Value> = None;
    for (user, i) in body.uses(value) {
        let node = body.node(user);
        let (Op::Select { likely }, [condition, ..]) = (&node.op, node.operands()) else { return None };
        // A condition that needs no reduction is known before any.
        if !likely.0 || i != 2 || levels.get(&condition.node) != Some(&0) || found.is_some_and(|c| c != *condition) {
            return None;
        }
        found = Some(*condition);
    }
    found.filter(|_| !body.is_output(value))
}

/// Lowers a body with large reductions.
pub(crate) fn lower(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<(), LowerError> {
    if rows.length.known().is_some_and(|n| n > LONGEST) {
        let large = &rows.large[0];
        return Err(lowering.e.unsupported(large.value, format!("a reduction over {} elements", rows.length)));
    }
    let few = rows.count.known().is_some_and(|n| n < FEW_ROWS);
    let long = rows.length.known().is_none_or(|n| n > TILE);
    if few && long {
        return split(lowering, rows);
    }
    match columns::find(lowering, rows)? {
        Some(found) => columns::lower(lowering, rows, &found),
        None => together(lowering, rows),
    }
}

/// Deepest level.
pub(super) fn depth(rows: &Rows) -> usize {
    rows.large.iter().map(|l| l.level).max().unwrap_or(0)
}

/// All levels of a row in one phase.
fn together(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<(), LowerError> {
    let (outer, p) = lowering.e.var(&rows.count);
    lowering.e.open();
    let p = lowering.e.ranges.simplify(&p);
    lowering.e.row = p.clone();
    let written = row(lowering, rows, &p);
    let body = lowering.e.close();
    written?;
    lowering.e.kb.push_phase(outer.clone(), rows.count.clone(), body);
    let grain = (16_384 / rows.length.known().unwrap_or(TILE).max(1)).max(1);
    lowering.schedule.directives.push(Directive::Threads { var: outer, grain: grain as u32 });
    lowering.e.rows.clear();
    Ok(())
}

/// Refuses at run time what is too long to be reduced in two levels of tiles.
pub(super) fn check_length(lowering: &mut Lowering<'_>, rows: &Rows) {
    if rows.length.known().is_none() {
        let code = lowering.e.kb.trap(format!("a reduction over more than {LONGEST} elements"));
        let (n, limit) = (lowering.e.index_value(rows.length.clone()), lowering.e.kb.constant(Scalar::i64(LONGEST)));
        let ok = lowering.e.kb.binary(BinaryOp::Le, n, limit);
        lowering.e.kb.push(Stmt::Check { ok, code });
    }
}

fn row(lowering: &mut Lowering<'_>, rows: &Rows, p: &Dim) -> Result<(), LowerError> {
    check_length(lowering, rows);
    plan_lines(lowering, rows)?;
    for level in 1..=depth(rows) {
        let (rare, usual): (Vec<&Large>, Vec<&Large>) =
            rows.large.iter().filter(|l| l.level == level).partition(|l| l.unless.is_some());
        if !usual.is_empty() {
            let results = reduce_row(lowering, rows, level, &usual, p)?;
            reduced(lowering, &usual, results)?;
        }
        for rare in by_slice(lowering.body, rare) {
            let results = reduce_rarely(lowering, rows, &rare, p)?;
            reduced(lowering, &rare, results)?;
        }
    }
    outputs(lowering, rows, p)
}

/// What is stored after the reductions: row values, then full ones, all in one pass.
fn outputs(lowering: &mut Lowering<'_>, rows: &Rows, p: &Dim) -> Result<(), LowerError> {
    let mut full: Vec<(Value, BufferId)> = Vec::new();
    for (value, buffer) in lowering.outputs.clone() {
        let dims = lowering.e.dims(value)?;
        let count = lowering.e.ranges.simplify(&Dim::product(&dims));
        if same(lowering, &count, &rows.count) {
            let index = delinearize(p, &dims, &lowering.e.ranges);
            let element = lowering.e.emit(value, &index)?;
            lowering.e.kb.push(Stmt::Store { buffer, index: p.clone(), value: element });
        } else if same(lowering, &count, &(&rows.count * &rows.length)) {
            full.push((value, buffer));
        } else if let Some(part) = part_of_rows(rows, value, &count) {
            // Fewer elements than are reduced, and no part of it.
            let var = lowering.e.for_(part.clone(), |e, r| {
                let position = e.ranges.simplify(&(&(p * &part) + r));
                let index = delinearize(&position, &dims, &e.ranges);
                let element = e.emit(value, &index)?;
                e.kb.push(Stmt::Store { buffer, index: position, value: element });
                Ok::<(), LowerError>(())
            })?;
            lowering.schedule.directives.push(Directive::Vector { var, lanes: map::LANES });
        } else {
            let origin = lowering.body.node(value.node).origin.to_string();
            let message =
                format!("an output of {count} elements in a kernel of {} rows of {}", rows.count, rows.length);
            return Err(LowerError::Unfusable { origin, message });
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    let layout = full_layout(lowering, rows)?;
    let var = lowering.e.for_(rows.length.clone(), |e, r| {
        let position = layout.position(e, p, r);
        for &(value, _) in &full {
            let dims = e.dims(value)?;
            if e.keeps(&dims) {
                e.begin_pass(depth(rows), delinearize(&position, &dims, &e.ranges), r.clone());
                break;
            }
        }
        let stored = store_all(e, &full, &position);
        e.end_pass();
        stored
    })?;
    lowering.schedule.directives.push(Directive::Vector { var, lanes: map::LANES });
    Ok(())
}

/// Stores values at one position: all are there before the first is stored, which may be where another was read.
fn store_all(e: &mut Emitter<'_>, outputs: &[(Value, BufferId)], position: &Dim) -> Result<(), LowerError> {
    let mut elements = Vec::with_capacity(outputs.len());
    for &(value, buffer) in outputs {
        let dims = e.dims(value)?;
        let index = delinearize(position, &dims, &e.ranges);
        elements.push((buffer, e.emit(value, &index)?));
    }
    for (buffer, value) in elements {
        e.kb.push(Stmt::Store { buffer, index: position.clone(), value });
    }
    Ok(())
}

/// Reductions of the row are there, in their reduction types.
fn reduced(lowering: &mut Lowering<'_>, large: &[&Large], results: Vec<Reg>) -> Result<(), LowerError> {
    for (large, reg) in large.iter().zip(results) {
        let dtype = lowering.e.tensor(large.value)?.dtype;
        let reg = lowering.e.cast(reg, dtype, false);
        lowering.e.rows.insert(large.value, reg);
    }
    Ok(())
}

/// Reductions of the same slice of values, which share what they compute; those of others may be idle while they run.
fn by_slice<'l>(body: &Function, large: Vec<&'l Large>) -> Vec<Vec<&'l Large>> {
    let slice = |large: &Large| {
        let reduced = body.node(large.value.node).operands().first().map(|x| &body.node(x.node).op);
        reduced.filter(|op| matches!(op, Op::Slice { .. }))
    };
    let mut groups: Vec<Vec<&'l Large>> = Vec::new();
    for large in large {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| slice(first) == slice(large))) {
            Some(group) => group.push(large),
            None => groups.push(vec![large]),
        }
    }
    groups
}

/// Results that the row at `p` needs only where conditions do not hold; elsewhere they are anything.
fn reduce_rarely(lowering: &mut Lowering<'_>, rows: &Rows, large: &[&Large], p: &Dim) -> Result<Vec<Reg>, LowerError> {
    let mut idle: Option<Reg> = None;
    for condition in large.iter().filter_map(|l| l.unless) {
        let dims = lowering.e.dims(condition)?;
        let index = delinearize(p, &dims, &lowering.e.ranges);
        let holds = lowering.e.emit(condition, &index)?;
        idle = Some(idle.map_or(holds, |idle| lowering.e.kb.binary(BinaryOp::And, idle, holds)));
    }
    let Some(idle) = idle else { return Err(LowerError::Internal("a reduction without its condition".to_owned())) };
    let kept: Vec<BufferId> =
        large.iter().map(|l| lowering.e.kb.buffer("rare", reduction_result(l), Dim::ONE, Role::Local)).collect();
    lowering.e.open();
    for (large, &buffer) in large.iter().zip(&kept) {
        let nothing = lowering.e.kb.constant(Scalar { dtype: reduction_result(large), bits: 0 });
        lowering.e.kb.push(Stmt::Store { buffer, index: Dim::ZERO, value: nothing });
    }
    let then = lowering.e.close();
    lowering.e.open();
    let written = reduce_in_tiles(lowering, rows, large, p, &row_cut(rows, large)).map(|results| {
        for (value, &buffer) in results.into_iter().zip(&kept) {
            lowering.e.kb.push(Stmt::Store { buffer, index: Dim::ZERO, value });
        }
    });
    let otherwise = lowering.e.close();
    written?;
    lowering.e.kb.push(Stmt::If { condition: idle, then, otherwise });
    Ok(kept.into_iter().map(|buffer| lowering.e.kb.load(buffer, Dim::ZERO)).collect())
}

/// The type that a reduction's result has first.
fn reduction_result(large: &Large) -> DType {
    if is_arg(large.kind) { DType::I64 } else { reduction_type(large.dtype) }
}

/// Chooses what the passes over a row share, where its elements are passed over one by one.
fn plan_lines(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<(), LowerError> {
    let Some(length) = rows.length.known().filter(|n| *n <= TILE) else { return Ok(()) };
    let reduced = |large: &Large| match &lowering.body.node(large.value.node).op {
        Op::Reduce { .. } => lowering.body.node(large.value.node).operands().first().copied(),
        _ => None,
    };
    let Some(first) = rows.large.first().and_then(reduced) else { return Ok(()) };
    let mut passes = Vec::new();
    let mut left = lowering.outputs.clone();
    for level in 1..=depth(rows) {
        // What runs seldom keeps nothing for others.
        let large: Vec<&Large> = rows.large.iter().filter(|l| l.level == level && l.unless.is_none()).collect();
        if large.is_empty() {
            passes.push(Pass { roots: Vec::new() });
            continue;
        }
        let cut = row_cut(rows, &large);
        let stores = stored_in(lowering, rows, level, &cut, &mut left)?.into_iter().map(|(value, _)| value);
        let roots = large.into_iter().filter_map(reduced).chain(stores).filter(|_| cut.group == 1).collect();
        passes.push(Pass { roots });
    }
    passes.push(Pass { roots: left.iter().map(|(value, _)| *value).collect() });
    let dims = lowering.e.dims(first)?;
    lowering.e.plan_lines(&passes, &dims, length)
}

/// Where row and reduced position lie among the elements that are reduced: kept and reduced axes may interleave.
struct Layout {
    dims: Vec<Dim>,
    axes: Vec<usize>,
}

impl Layout {
    fn position(&self, e: &Emitter<'_>, p: &Dim, r: &Dim) -> Dim {
        let pick = |reduced: bool| {
            self.dims.iter().enumerate().filter(move |(a, _)| self.axes.contains(a) == reduced).map(|(_, d)| d.clone())
        };
        let kept = delinearize(p, &pick(false).collect::<Vec<_>>(), &e.ranges);
        let at = delinearize(r, &pick(true).collect::<Vec<_>>(), &e.ranges);
        e.ranges.simplify(&linearize(&reduced_index(&self.axes, &kept, &at), &self.dims))
    }
}

fn full_layout(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<Layout, LowerError> {
    let node = lowering.body.node(rows.large[0].value.node);
    match &node.op {
        Op::Reduce { axes, .. } => Ok(Layout { dims: lowering.e.dims(node.operands()[0])?, axes: axes.clone() }),
        other => Err(LowerError::Unfusable {
            origin: node.origin.to_string(),
            message: format!("a `{}` shares its kernel with an output of every term", other.name()),
        }),
    }
}

/// Results of one level for the row at `p`, in their reduction types.
fn reduce_row(
    lowering: &mut Lowering<'_>,
    rows: &Rows,
    level: usize,
    large: &[&Large],
    p: &Dim,
) -> Result<Vec<Reg>, LowerError> {
    let mut cut = row_cut(rows, large);
    take_stores(lowering, rows, level, &mut cut)?;
    let results = reduce_in_tiles(lowering, rows, large, p, &cut)?;
    stored(lowering, &cut);
    Ok(results)
}

fn row_cut(rows: &Rows, large: &[&Large]) -> Cut {
    let length = &rows.length;
    // Where order is free a row somewhat longer than a tile is not worth two.
    let most = if large.iter().all(|l| order_is_free(l)) { 2 * TILE } else { TILE };
    if length.known().is_some_and(|n| n <= most) {
        return Cut { group: trailing(large), size: length.clone(), tiles: Dim::ONE, stores: Vec::new() };
    }
    cut(large, length, false)
}

fn reduce_in_tiles(
    lowering: &mut Lowering<'_>,
    rows: &Rows,
    large: &[&Large],
    p: &Dim,
    cut: &Cut,
) -> Result<Vec<Reg>, LowerError> {
    let length = &rows.length;
    if cut.tiles == Dim::ONE {
        return tile(lowering, large, cut, length, p, &Dim::ZERO);
    }
    let most = cut.tiles.known().unwrap_or(TILE);
    let partials: Vec<Partial> = large.iter().map(|l| Partial::local(lowering, l, most)).collect();
    let (var, t) = lowering.e.var(&cut.tiles);
    lowering.e.open();
    let written = tile(lowering, large, cut, length, p, &t)
        .and_then(|results| store_partials(lowering, large, &partials, &results, p, &t));
    let body = lowering.e.close();
    written?;
    lowering.e.kb.push(Stmt::For { var, extent: cut.tiles.clone(), body });
    Ok(combine_partials(lowering, large, &partials, &cut.tiles, &Dim::ZERO))
}

/// How many elements for each row a value has that needs no reduction and has some for each, fewer than are reduced.
fn part_of_rows(rows: &Rows, value: Value, count: &Dim) -> Option<Dim> {
    let part = count.floordiv(&rows.count);
    (rows.levels.get(&value.node) == Some(&0) && &part * &rows.count == *count).then_some(part)
}

/// Whether the elements of a row are neighbours.
fn is_trailing(lowering: &mut Lowering<'_>, large: &Large) -> Result<bool, LowerError> {
    let node = lowering.body.node(large.value.node);
    let (Op::Reduce { axes, .. }, Some(&x)) = (&node.op, node.operands().first()) else { return Ok(false) };
    Ok(reduces_neighbours(&lowering.e.dims(x)?, axes))
}

/// Outputs that the pass of a level stores, taken from those that are left: those that need none of its reductions, where
/// there is an element for each of its iterations. One pass over the operands does for both.
fn stored_in(
    lowering: &mut Lowering<'_>,
    rows: &Rows,
    level: usize,
    cut: &Cut,
    left: &mut Vec<(Value, BufferId)>,
) -> Result<Vec<(Value, BufferId)>, LowerError> {
    // Only neighbours are combined first; what needs a reduction needs to know that it is its row's.
    if !is_trailing(lowering, &rows.large[0])? || (level > 1 && cut.tiles != Dim::ONE) {
        return Ok(Vec::new());
    }
    let mut stores = Vec::new();
    for (value, buffer) in std::mem::take(left) {
        let dims = lowering.e.dims(value)?;
        let count = lowering.e.ranges.simplify(&Dim::product(&dims));
        // A group has several elements of what needs a reduction.
        let ready = rows.is_ready(value, if cut.group == 1 { level } else { 1 });
        if ready && same(lowering, &(&count * &Dim::Known(cut.group)), &(&rows.count * &rows.length)) {
            stores.push((value, buffer));
        } else {
            left.push((value, buffer));
        }
    }
    Ok(stores)
}

fn take_stores(lowering: &mut Lowering<'_>, rows: &Rows, level: usize, cut: &mut Cut) -> Result<(), LowerError> {
    let mut left = std::mem::take(&mut lowering.outputs);
    let stores = stored_in(lowering, rows, level, cut, &mut left);
    lowering.outputs = left;
    cut.stores = stores?;
    Ok(())
}

/// What was stored is read from now on.
fn stored(lowering: &mut Lowering<'_>, cut: &Cut) {
    for (value, buffer) in &cut.stores {
        lowering.e.memory.insert(*value, *buffer);
    }
}

/// How the reduced elements of a row are cut into tiles. It follows from shapes and numerics alone.
struct Cut {
    /// Neighbours that an iteration combines first.
    group: i64,
    /// Elements of a tile, a multiple of the group.
    size: Dim,
    /// Number of tiles.
    tiles: Dim,
    /// Outputs with one element for each group, stored on the way.
    stores: Vec<(Value, BufferId)>,
}

/// Where order is free a tile is a whole line of the innermost axis: its index then needs no division. Else it is the
/// tile of `frit_ir::order`. Partials that lie in local memory are at most as many as such a tile holds elements.
fn cut(large: &[&Large], length: &Dim, split: bool) -> Cut {
    /// Shortest line worth a tile.
    const LINE: i64 = 64;
    let by_size = |group: i64| {
        let size = TILE / group * group;
        Cut { group, size: Dim::Known(size), tiles: length.ceildiv(&Dim::Known(size)), stores: Vec::new() }
    };
    let by_order = by_size(1);
    let extents = &large[0].extents;
    if !large.iter().all(|l| order_is_free(l) && l.extents == *extents) {
        return by_order;
    }
    let group = trailing(large);
    let leading = extents.len() - 1 - usize::from(group > 1);
    // Shorter lines follow one another in a tile of whole groups.
    let by_order = if length.known().is_some() { by_size(group) } else { by_order };
    // A short axis goes with those before it.
    let mut first = leading;
    let mut line = extents.get(leading).and_then(Dim::known);
    while let (Some(short), Some(before)) = (line, first.checked_sub(1).and_then(|a| extents[a].known()))
        && short < LINE
        && short.saturating_mul(before) <= TILE
    {
        (line, first) = (Some(short * before), first - 1);
    }
    match line {
        Some(line) if line >= LINE && first > 0 => {
            let tiles = Dim::product(&extents[..first]);
            let fits = split || tiles.known().is_some_and(|n| n <= TILE);
            if fits { Cut { group, size: Dim::Known(line * group), tiles, stores: Vec::new() } } else { by_order }
        }
        _ => by_order,
    }
}

pub(super) fn order_is_free(large: &Large) -> bool {
    match large.kind {
        ReduceKind::Min | ReduceKind::Max => true,
        ReduceKind::Sum | ReduceKind::Prod => large.reassociate || large.dtype.is_int(),
        ReduceKind::ArgMin | ReduceKind::ArgMax => false,
    }
}

/// How many neighbouring elements an iteration may combine first: a short last axis, where order is free. The loop
/// then runs along the axis before it, without dividing.
fn trailing(large: &[&Large]) -> i64 {
    let last = large[0].extents.last().and_then(Dim::known).unwrap_or(1);
    let same =
        large.iter().all(|l| order_is_free(l) && l.extents.len() > 1 && l.extents.last() == large[0].extents.last());
    if (2..=UNROLLED).contains(&last) && same { last } else { 1 }
}

/// Results of tile `t` of the row at `p`: one `Reduce`.
fn tile(
    lowering: &mut Lowering<'_>,
    large: &[&Large],
    cut: &Cut,
    length: &Dim,
    p: &Dim,
    t: &Dim,
) -> Result<Vec<Reg>, LowerError> {
    let group = Dim::Known(cut.group);
    let (lines, all) = (cut.size.floordiv(&group), length.floordiv(&group));
    let start = t * &lines;
    // A tile may reach over the end where the tiles do not divide the row.
    let exact = &cut.tiles * &cut.size == *length;
    let count = if exact { lines.clone() } else { lines.minimum(&(&all - &start)) };
    let (var, r) = lowering.e.var(&lines);
    lowering.e.open();
    let at = &start + &r;
    if cut.tiles == Dim::ONE && cut.group == 1 && large.iter().all(|l| l.unless.is_none()) {
        begin_pass(lowering, large, p, &r)?;
    }
    let values: Result<Vec<_>, LowerError> =
        large.iter().map(|l| grouped(&mut lowering.e, l, p, &at, cut.group)).collect();
    let position = lowering.e.ranges.simplify(&(&(p * &all) + &at));
    let written = store_all(&mut lowering.e, &cut.stores, &position);
    lowering.e.end_pass();
    let body = lowering.e.close();
    written?;
    let accs: Vec<Acc> = values?
        .into_iter()
        .map(|(value, combine)| {
            let dtype = combine.result(lowering.e.kb.reg_type(value));
            Acc { result: lowering.e.kb.reg(dtype), value, combine }
        })
        .collect();
    let results = accs.iter().map(|a| a.result).collect();
    lowering.schedule.directives.push(Directive::Vector { var: var.clone(), lanes: map::LANES });
    lowering.e.kb.push(Stmt::Reduce { var, extent: count, body, accs });
    Ok(results)
}

/// The pass of one level over the row at `p`, at position `r` of it.
fn begin_pass(lowering: &mut Lowering<'_>, large: &[&Large], p: &Dim, r: &Dim) -> Result<(), LowerError> {
    let e = &mut lowering.e;
    for l in large {
        let node = e.body.node(l.value.node);
        let (Op::Reduce { axes, .. }, Some(&x)) = (&node.op, node.operands().first()) else { continue };
        let dims = e.dims(x)?;
        if !e.keeps(&dims) {
            continue;
        }
        let kept = delinearize(p, &e.dims(l.value)?, &e.ranges);
        let at = delinearize(r, &l.extents, &e.ranges);
        e.begin_pass(l.level - 1, reduced_index(axes, &kept, &at), r.clone());
        return Ok(());
    }
    Ok(())
}

/// The value that an iteration adds: element `at`, or a group of neighbours from `at * group` on.
fn grouped(e: &mut Emitter<'_>, large: &Large, p: &Dim, at: &Dim, group: i64) -> Result<(Reg, Combine), LowerError> {
    if group == 1 {
        return element(e, large, p, at, true);
    }
    let base = at * &Dim::Known(group);
    let mut values = Vec::new();
    for k in 0..group {
        values.push(element(e, large, p, &(&base + &Dim::Known(k)), false)?.0);
    }
    let value = e.combine_tree(values, large.kind, reduction_type(large.dtype), large.reassociate)?;
    Ok((value, combine_of(large.kind, value)))
}

/// What position `r` of the row at `p` adds; `dots`: the factors of a product that may round with its sum, for themselves.
fn element(e: &mut Emitter<'_>, large: &Large, p: &Dim, r: &Dim, dots: bool) -> Result<(Reg, Combine), LowerError> {
    let dims = e.dims(large.value)?;
    let kept = delinearize(p, &dims, &e.ranges);
    let at = delinearize(r, &large.extents, &e.ranges);
    let node = e.body.node(large.value.node);
    let value = match &node.op {
        Op::Reduce { axes, .. } => {
            let (x, source) = (node.operands()[0], reduced_index(axes, &kept, &at));
            if dots
                && large.kind == ReduceKind::Sum
                && node.numerics.contract
                && let Some((a, b)) = e.element_factors(x, source.clone())?
            {
                return Ok((a, Combine::Dot(b)));
            }
            e.emit(x, &source)?
        }
        _ => contract::term(e, large.value, &kept, &at)?,
    };
    let value = e.cast(value, reduction_type(large.dtype), false);
    let index = match large.kind {
        ReduceKind::ArgMin | ReduceKind::ArgMax => e.index_value(e.ranges.simplify(r)),
        ReduceKind::Sum | ReduceKind::Prod | ReduceKind::Min | ReduceKind::Max => value,
    };
    Ok((value, combine_of(large.kind, index)))
}

/// Where the results of tiles are kept: the value, and for argmin and argmax the index.
struct Partial {
    value: BufferId,
    index: Option<BufferId>,
}

impl Partial {
    fn local(lowering: &mut Lowering<'_>, large: &Large, tiles: i64) -> Partial {
        let mut buffer = |dtype| lowering.e.kb.buffer("partial", dtype, Dim::Known(tiles), Role::Local);
        Partial { value: buffer(reduction_type(large.dtype)), index: is_arg(large.kind).then(|| buffer(DType::I64)) }
    }

    /// `len` is over the module's symbols.
    fn temp(lowering: &mut Lowering<'_>, large: &Large, len: &Dim) -> Partial {
        let value = lowering.temp("partial", reduction_type(large.dtype), len);
        Partial { value, index: is_arg(large.kind).then(|| lowering.temp("partial_index", DType::I64, len)) }
    }
}

fn is_arg(kind: ReduceKind) -> bool {
    matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax)
}

fn store_partials(
    lowering: &mut Lowering<'_>,
    large: &[&Large],
    partials: &[Partial],
    results: &[Reg],
    p: &Dim,
    at: &Dim,
) -> Result<(), LowerError> {
    for ((l, partial), &result) in large.iter().zip(partials).zip(results) {
        let value = match partial.index {
            None => result,
            Some(index) => {
                // The reduction gives an index only: its value is computed again.
                lowering.e.kb.push(Stmt::Store { buffer: index, index: at.clone(), value: result });
                lowering.e.ranges.insert_opaque(result.symbol());
                element(&mut lowering.e, l, p, &result.symbol().into(), false)?.0
            }
        };
        lowering.e.kb.push(Stmt::Store { buffer: partial.value, index: at.clone(), value });
    }
    Ok(())
}

/// Combines partials start .. start + tiles.
fn combine_partials(
    lowering: &mut Lowering<'_>,
    large: &[&Large],
    partials: &[Partial],
    tiles: &Dim,
    start: &Dim,
) -> Vec<Reg> {
    let (var, t) = lowering.e.var(tiles);
    lowering.e.open();
    let mut values = Vec::with_capacity(large.len());
    for (l, partial) in large.iter().zip(partials) {
        let at = lowering.e.ranges.simplify(&(start + &t));
        let value = lowering.e.kb.load(partial.value, at.clone());
        let index = partial.index.map_or(value, |b| lowering.e.kb.load(b, at));
        values.push((value, combine_of(l.kind, index)));
    }
    let body = lowering.e.close();
    let accs: Vec<Acc> = values
        .into_iter()
        .zip(partials)
        .map(|((value, combine), partial)| {
            let dtype = if partial.index.is_some() { DType::I64 } else { lowering.e.kb.reg_type(value) };
            Acc { result: lowering.e.kb.reg(dtype), value, combine }
        })
        .collect();
    let results = accs.iter().map(|a| a.result).collect();
    lowering.e.kb.push(Stmt::Reduce { var, extent: tiles.clone(), body, accs });
    results
}

/// Each level as a phase over tiles and a phase that combines them.
fn split(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<(), LowerError> {
    // Sizes that the host sees are over the module's symbols.
    let module_count = lowering.e.tensor(rows.large[0].value)?.numel();
    for level in 1..=depth(rows) {
        let large: Vec<&Large> = rows.large.iter().filter(|l| l.level == level).collect();
        let mut cut = cut(&large, &rows.length, true);
        take_stores(lowering, rows, level, &mut cut)?;
        let module_tiles = &module_count * &module_dim(lowering, &cut.tiles);
        let partials: Vec<Partial> = large.iter().map(|l| Partial::temp(lowering, l, &module_tiles)).collect();
        let extent = &rows.count * &cut.tiles;
        let (outer, o) = lowering.e.var(&extent);
        lowering.e.open();
        let at = delinearize(&o, &[rows.count.clone(), cut.tiles.clone()], &lowering.e.ranges);
        let written = tile(lowering, &large, &cut, &rows.length, &at[0], &at[1])
            .and_then(|results| store_partials(lowering, &large, &partials, &results, &at[0], &o));
        let body = lowering.e.close();
        written?;
        lowering.e.kb.push_phase(outer.clone(), extent, body);
        lowering.schedule.directives.push(Directive::Threads { var: outer, grain: 4 });
        stored(lowering, &cut);

        let finals: Vec<BufferId> = large
            .iter()
            .map(|l| {
                let dtype = lowering.e.tensor(l.value)?.dtype;
                Ok(lowering.temp("row", dtype, &module_count))
            })
            .collect::<Result<_, LowerError>>()?;
        let (outer, p) = lowering.e.var(&rows.count);
        lowering.e.open();
        let start = &p * &cut.tiles;
        let results = combine_partials(lowering, &large, &partials, &cut.tiles, &start);
        for ((l, &buffer), reg) in large.iter().zip(&finals).zip(results) {
            let dtype = lowering.e.kb.buffer_type(buffer);
            let value = lowering.e.cast(reg, dtype, false);
            lowering.e.kb.push(Stmt::Store { buffer, index: p.clone(), value });
            lowering.e.memory.insert(l.value, buffer);
        }
        let body = lowering.e.close();
        lowering.e.kb.push_phase(outer, rows.count.clone(), body);
    }
    let outputs = lowering.outputs.clone();
    map::stores(lowering, &outputs)
}

/// Whether extents over kernel dims are equal: a kernel may have several dims of one symbol, as B and 6 B.
fn same(lowering: &Lowering<'_>, a: &Dim, b: &Dim) -> bool {
    a == b || module_dim(lowering, a) == module_dim(lowering, b)
}

/// An extent over kernel dims as one over the module's symbols.
fn module_dim(lowering: &Lowering<'_>, dim: &Dim) -> Dim {
    dim.substitute(&|s| lowering.e.kb.dim_value(s))
}
