//! Reductions over outer axes: neighbouring results side by side in vectors.
//!
//! Sums over the rows of a matrix read elements that lie a row apart. So a block of columns is reduced at once: lane k
//! mod 16 of `frit_ir::order` is a line of accumulators, one for each column of the block, in the first level of the
//! cache. An iteration adds a row's block to one line, from memory that follows itself; at the end the lines are
//! combined as lanes are. The bits are those of one column after the other. Where order is free, fewer lanes do.

use frit_ir::order::LANES;
use frit_ir::{Dim, Op, ReduceKind, Value};

use super::combine::{combine_of, reduced_index, reduction_type};
use super::emit::Emitter;
use super::index::{delinearize, linearize};
use super::rows::{self, Large, Rows, TILE};
use super::{LowerError, Lowering, map};
use crate::kernel::{BufferId, Combine, Reg, Role, Stmt};
use crate::schedule::Directive;

/// Columns of a block. Two lines for each lane of two reductions fit the first level of the cache.
const BLOCK: i64 = 256;
/// Fewer columns than this are reduced one by one.
const FEW: i64 = 16;
/// Rows that one pass over a block takes, where their number is known; also the lanes of what has no order.
const TOGETHER: i64 = 4;
/// Longest sum in so few lanes: rounding errors grow with what a lane adds.
const SHORT: i64 = 1024;

/// The space of a reduction over outer axes.
pub(super) struct Columns {
    /// Extents of what is reduced.
    dims: Vec<Dim>,
    /// Reduced axes; the last is not among them.
    axes: Vec<usize>,
}

impl Columns {
    /// Extents of the kept axes, or of the reduced ones.
    fn extents(&self, reduced: bool) -> Vec<Dim> {
        let axes = (0..self.dims.len()).filter(|a| self.axes.contains(a) == reduced);
        axes.map(|a| self.dims[a].clone()).collect()
    }
}

/// Whether the reductions of a body run over outer axes of one shape, and no output needs another order.
pub(super) fn find(lowering: &mut Lowering<'_>, rows: &Rows) -> Result<Option<Columns>, LowerError> {
    let mut columns: Option<Columns> = None;
    for large in &rows.large {
        let node = lowering.body.node(large.value.node);
        let (Op::Reduce { axes, kind }, Some(&x)) = (&node.op, node.operands().first()) else { return Ok(None) };
        let dims = lowering.e.dims(x)?;
        let last = dims.len().saturating_sub(1);
        let wide = dims.last().is_some_and(|d| d.known().is_none_or(|n| n >= FEW));
        let sums = matches!(kind, ReduceKind::Sum | ReduceKind::Prod | ReduceKind::Min | ReduceKind::Max);
        if !wide || !sums || axes.contains(&last) {
            return Ok(None);
        }
        match &columns {
            Some(c) if c.dims != dims || c.axes != *axes => return Ok(None),
            Some(_) => {}
            None => columns = Some(Columns { dims, axes: axes.clone() }),
        }
    }
    let Some(columns) = columns else { return Ok(None) };
    let (whole, kept) = (real(&columns.dims), real(&columns.extents(false)));
    for (value, _) in lowering.outputs.clone() {
        let dims = real(&lowering.e.dims(value)?);
        if dims != whole && dims != kept {
            return Ok(None);
        }
    }
    Ok(Some(columns))
}

/// Extents other than 1.
fn real(dims: &[Dim]) -> Vec<Dim> {
    dims.iter().filter(|d| **d != Dim::ONE).cloned().collect()
}

/// An index into extents `from` as one into extents `to`, which differ in extents of 1 only.
fn among(index: &[Dim], from: &[Dim], to: &[Dim]) -> Vec<Dim> {
    let mut parts = index.iter().zip(from).filter(|(_, d)| **d != Dim::ONE).map(|(i, _)| i.clone());
    to.iter().map(|d| if *d == Dim::ONE { Dim::ZERO } else { parts.next().unwrap_or(Dim::ZERO) }).collect()
}

/// A block of columns at work.
struct Block {
    /// Index along the kept axes before the last.
    before: Vec<Dim>,
    /// The first column.
    start: Dim,
    /// How many there are.
    count: Dim,
}

/// A reduction, and where its accumulators lie.
struct Sums<'l> {
    large: &'l Large,
    combine: Combine,
    /// How many lanes.
    count: i64,
    /// A line for each lane.
    lanes: BufferId,
    /// The same for the results of tiles, where there is more than one.
    tiles: Option<BufferId>,
    /// One line: the result.
    result: BufferId,
}

/// Lowers a body whose reductions run over outer axes.
pub(super) fn lower(lowering: &mut Lowering<'_>, rows: &Rows, columns: &Columns) -> Result<(), LowerError> {
    let kept = columns.extents(false);
    let Some((last, before)) = kept.split_last() else {
        return Err(LowerError::Internal("columns of nothing".to_owned()));
    };
    let blocks = last.ceildiv(&Dim::Known(BLOCK));
    let extent = &Dim::product(before) * &blocks;
    let (outer, o) = lowering.e.var(&extent);
    lowering.e.open();
    let mut index = delinearize(&o, &[before, &[blocks]].concat(), &lowering.e.ranges);
    let block = index.pop().unwrap_or(Dim::ZERO);
    let start = lowering.e.ranges.simplify(&(&block * &Dim::Known(BLOCK)));
    let count = match last.known() {
        Some(n) if n % BLOCK == 0 => Dim::Known(BLOCK),
        Some(n) if n < BLOCK => Dim::Known(n),
        _ => Dim::Known(BLOCK).minimum(&(last - &start)),
    };
    let written = block_of(lowering, rows, columns, &Block { before: index, start, count });
    let body = lowering.e.close();
    lowering.e.columns.clear();
    written?;
    lowering.e.kb.push_phase(outer.clone(), extent, body);
    lowering.schedule.directives.push(Directive::Threads { var: outer, grain: 1 });
    Ok(())
}

fn block_of(lowering: &mut Lowering<'_>, rows: &Rows, columns: &Columns, block: &Block) -> Result<(), LowerError> {
    rows::check_length(lowering, rows);
    let tiled = rows.length.known().is_none_or(|n| n > TILE);
    let mut left = lowering.outputs.clone();
    for level in 1..=rows::depth(rows) {
        let sums: Vec<Sums<'_>> =
            rows.large.iter().filter(|l| l.level == level).map(|l| Sums::new(lowering, rows, l)).collect();
        let stores = stored_in(lowering, rows, columns, level, &mut left)?;
        if tiled {
            let tile = Dim::Known(TILE);
            let tiles = rows.length.ceildiv(&tile);
            clear(lowering, &sums, |s| s.tiles)?;
            let (var, t) = lowering.e.var(&tiles);
            lowering.e.open();
            let first = &t * &tile;
            let size = tile.minimum(&(&rows.length - &first));
            let written = reduce(lowering, columns, &sums, block, &first, &size, &stores).and_then(|()| {
                // The tile's result goes to lane t mod 16 of the tiles.
                over(lowering, &block.count, |e, j| {
                    for s in &sums {
                        let value = s.combined(e, s.lanes, j);
                        s.accumulate(e, s.tiles.unwrap_or(s.lanes), (&t, 1, 0), j, value);
                    }
                    Ok(())
                })
            });
            let body = lowering.e.close();
            written?;
            lowering.e.kb.push(Stmt::For { var, extent: tiles, body });
        } else {
            reduce(lowering, columns, &sums, block, &Dim::ZERO, &rows.length, &stores)?;
        }
        over(lowering, &block.count, |e, j| {
            for s in &sums {
                let value = s.combined(e, s.tiles.unwrap_or(s.lanes), j);
                let dtype = e.tensor(s.large.value)?.dtype;
                let value = e.cast(value, dtype, false);
                e.kb.push(Stmt::Store { buffer: s.result, index: j.clone(), value });
            }
            Ok(())
        })?;
        for s in &sums {
            lowering.e.columns.insert(s.large.value, s.result);
        }
    }
    outputs(lowering, columns, rows, block, &left)
}

/// Outputs with all elements that the pass of a level stores, taken from those that are left: what needs none of its
/// reductions.
fn stored_in(
    lowering: &mut Lowering<'_>,
    rows: &Rows,
    columns: &Columns,
    level: usize,
    left: &mut Vec<(Value, BufferId)>,
) -> Result<Vec<(Value, BufferId)>, LowerError> {
    let whole = real(&columns.dims);
    let mut stores = Vec::new();
    for (value, buffer) in std::mem::take(left) {
        let full = real(&lowering.e.dims(value)?) == whole;
        if full && rows.is_ready(value, level) { &mut stores } else { &mut *left }.push((value, buffer));
    }
    Ok(stores)
}

impl<'l> Sums<'l> {
    fn new(lowering: &mut Lowering<'_>, rows: &Rows, large: &'l Large) -> Sums<'l> {
        let work = reduction_type(large.dtype);
        let length = rows.length.known();
        let extreme = matches!(large.kind, ReduceKind::Min | ReduceKind::Max);
        let few = rows::order_is_free(large) && (extreme || length.is_some_and(|n| n <= SHORT));
        let count = if few { TOGETHER } else { LANES as i64 };
        let mut lines = |name| lowering.e.kb.buffer(name, work, Dim::Known(count * BLOCK), Role::Local);
        let lanes = lines("lanes");
        let tiles = length.is_none_or(|n| n > TILE).then(|| lines("tiles"));
        let dtype = lowering.e.tensor(large.value).map_or(work, |t| t.dtype);
        let result = lowering.e.kb.buffer("column", dtype, Dim::Known(BLOCK), Role::Local);
        Sums { large, combine: combine_of(large.kind, Reg(0)), count, lanes, tiles, result }
    }

    /// Adds element `g * step + k` of a tile to its lane of column `j`. Tiles begin at a multiple of the lanes.
    fn accumulate(&self, e: &mut Emitter<'_>, lanes: BufferId, at: (&Dim, i64, i64), j: &Dim, value: Reg) {
        let (g, step, k) = at;
        let lane = &(&g.modulo(&Dim::Known(self.count / step)) * &Dim::Known(step)) + &Dim::Known(k);
        let index = e.ranges.simplify(&(&(&lane * &Dim::Known(BLOCK)) + j));
        let sum = e.kb.load(lanes, index.clone());
        let sum = e.kb.binary(self.combine.op(), sum, value);
        e.kb.push(Stmt::Store { buffer: lanes, index, value: sum });
    }

    /// The lanes of column `j` as one value.
    fn combined(&self, e: &mut Emitter<'_>, lanes: BufferId, j: &Dim) -> Reg {
        let mut values: Vec<Reg> = (0..self.count).map(|k| e.kb.load(lanes, &Dim::Known(k * BLOCK) + j)).collect();
        let mut step = values.len() / 2;
        while step > 0 {
            for i in 0..step {
                values[i] = e.kb.binary(self.combine.op(), values[i], values[i + step]);
            }
            step /= 2;
        }
        values[0]
    }
}

/// A vector loop over some columns of a block.
fn over<'a>(
    lowering: &mut Lowering<'a>,
    count: &Dim,
    body: impl FnOnce(&mut Emitter<'a>, &Dim) -> Result<(), LowerError>,
) -> Result<(), LowerError> {
    let most = if count.known().is_some() { count.clone() } else { Dim::Known(BLOCK) };
    let (var, j) = lowering.e.var(&most);
    lowering.e.open();
    let done = body(&mut lowering.e, &j);
    let stmts = lowering.e.close();
    done?;
    lowering.e.kb.push(Stmt::For { var: var.clone(), extent: count.clone(), body: stmts });
    lowering.schedule.directives.push(Directive::Vector { var, lanes: map::LANES });
    Ok(())
}

/// Neutral elements in all lanes.
fn clear(
    lowering: &mut Lowering<'_>,
    sums: &[Sums<'_>],
    lanes: impl Fn(&Sums<'_>) -> Option<BufferId>,
) -> Result<(), LowerError> {
    for s in sums {
        let Some(buffer) = lanes(s) else { continue };
        over(lowering, &Dim::Known(s.count * BLOCK), |e, j| {
            let neutral = s.combine.neutral(e.kb.buffer_type(buffer));
            let neutral = neutral.ok_or_else(|| LowerError::Internal("no neutral element".to_owned()))?;
            let value = e.kb.constant(neutral);
            e.kb.push(Stmt::Store { buffer, index: j.clone(), value });
            Ok(())
        })?;
    }
    Ok(())
}

/// Rows `first` to `first + size` of a block, into the lanes.
fn reduce(
    lowering: &mut Lowering<'_>,
    columns: &Columns,
    sums: &[Sums<'_>],
    block: &Block,
    first: &Dim,
    size: &Dim,
    stores: &[(Value, BufferId)],
) -> Result<(), LowerError> {
    clear(lowering, sums, |s| Some(s.lanes))?;
    let together = if size.known().is_some_and(|n| n >= LANES as i64) { TOGETHER } else { 1 };
    let group = Dim::Known(together);
    let groups = size.floordiv(&group);
    let mut pass = |extent: Dim, begin: Dim, together: i64| -> Result<(), LowerError> {
        let (var, g) = lowering.e.var(&extent);
        lowering.e.open();
        let step = Dim::Known(together);
        let written = over(lowering, &block.count, |e, j| {
            for k in 0..together {
                let at = &(&begin + &(&g * &step)) + &Dim::Known(k);
                let index = element_index(e, columns, block, &(first + &at), j);
                for s in sums {
                    let node = e.body.node(s.large.value.node);
                    let value = e.emit(node.operands()[0], &index)?;
                    let value = e.cast(value, reduction_type(s.large.dtype), false);
                    let place = if together == 1 { (&at, 1, 0) } else { (&g, together, k) };
                    s.accumulate(e, s.lanes, place, j, value);
                }
                store_full(e, columns, stores, &index)?;
            }
            Ok(())
        });
        let body = lowering.e.close();
        written?;
        lowering.e.kb.push(Stmt::For { var, extent, body });
        Ok(())
    };
    pass(groups.clone(), Dim::ZERO, together)?;
    let done = &groups * &group;
    match (size - &done).known() {
        Some(0) => Ok(()),
        _ if together == 1 => Ok(()),
        _ => pass(size - &done, done, 1),
    }
}

/// Index of row `r`, column `j` of a block; also says where row results are read from then on.
fn element_index(e: &mut Emitter<'_>, columns: &Columns, block: &Block, r: &Dim, j: &Dim) -> Vec<Dim> {
    let kept = kept_index(e, columns, block, j);
    let r = e.ranges.simplify(r);
    let at = delinearize(&r, &columns.extents(true), &e.ranges);
    reduced_index(&columns.axes, &kept, &at)
}

/// Index of column `j` of a block among the results.
fn kept_index(e: &mut Emitter<'_>, columns: &Columns, block: &Block, j: &Dim) -> Vec<Dim> {
    let mut kept = block.before.clone();
    kept.push(e.ranges.simplify(&(&block.start + j)));
    e.row = e.ranges.simplify(&linearize(&kept, &columns.extents(false)));
    e.column = j.clone();
    kept
}

/// Stores values that have all elements at an index of the space.
fn store_full(
    e: &mut Emitter<'_>,
    columns: &Columns,
    outputs: &[(Value, BufferId)],
    index: &[Dim],
) -> Result<(), LowerError> {
    let position = e.ranges.simplify(&linearize(index, &columns.dims));
    store_all(e, &columns.dims, outputs, index, &position)
}

/// Stores values at one index of extents `from`: all are there before the first is stored, which may be where another
/// was read.
fn store_all(
    e: &mut Emitter<'_>,
    from: &[Dim],
    outputs: &[(Value, BufferId)],
    index: &[Dim],
    position: &Dim,
) -> Result<(), LowerError> {
    let mut elements = Vec::with_capacity(outputs.len());
    for &(value, buffer) in outputs {
        let dims = e.dims(value)?;
        elements.push((buffer, e.emit(value, &among(index, from, &dims))?));
    }
    for (buffer, value) in elements {
        e.kb.push(Stmt::Store { buffer, index: position.clone(), value });
    }
    Ok(())
}

/// Outputs of a block that are left: those with an element for each column in one loop, those with all in another.
fn outputs(
    lowering: &mut Lowering<'_>,
    columns: &Columns,
    rows: &Rows,
    block: &Block,
    left: &[(Value, BufferId)],
) -> Result<(), LowerError> {
    let (mut full, mut single) = (Vec::new(), Vec::new());
    let (whole, kept) = (real(&columns.dims), columns.extents(false));
    for &(value, buffer) in left {
        let own = real(&lowering.e.dims(value)?);
        if own == whole { &mut full } else { &mut single }.push((value, buffer));
    }
    if !single.is_empty() {
        over(lowering, &block.count, |e, j| {
            let index = kept_index(e, columns, block, j);
            let position = e.row.clone();
            store_all(e, &kept, &single, &index, &position)
        })?;
    }
    if full.is_empty() {
        return Ok(());
    }
    let (var, r) = lowering.e.var(&rows.length);
    lowering.e.open();
    let written = over(lowering, &block.count, |e, j| {
        let index = element_index(e, columns, block, &r, j);
        store_full(e, columns, &full, &index)
    });
    let body = lowering.e.close();
    written?;
    lowering.e.kb.push(Stmt::For { var, extent: rows.length.clone(), body });
    Ok(())
}
