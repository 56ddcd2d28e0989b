//! Forming kernels: groups of ops become `fusion` nodes, and every group that does not says why.
//!
//! In: a function of core ops. Out: the same function where groups of elementwise ops, views and reductions are
//! `fusion` nodes (the region is the meaning; isolated, so what it reads are operands). An op that joins no group stays
//! as it is: the compiler compiles a lone op as a body of one. `-O0` runs no fusion. Before, `recompute` settles what is
//! computed again instead of stored, what is stored for good, and, where less memory is asked for (`segments`),
//! `segments` has parts of a training step's forward run again.
//!
//! # The contract with the compiler
//!
//! [`kernel_shape`] computes all of this from a body; the pass forms only bodies that it accepts, and the compiler
//! calls it again instead of guessing.
//!
//! - F1 *Ops.* A body holds elementwise ops (unary, binary, select, cast, bitcast), views and other movement (iota, dim,
//!   broadcast, reshape, transpose, slice, pad, concat of at most [`MOST_PIECES`], window, gather), constants of at
//!   most [`SMALL_CONSTANT`] elements, and reduces. Every op has one result, a tensor of numbers or bools. No parameter is inside: parameters
//!   are operands. No dot_general, conv, sort, cumulate, scatter, dynamic slice, control or host op.
//! - F2 *Values are functions of an index.* A value at an index is computed from its operands at indices that follow
//!   from the op (reshape: same row-major position; transpose: permuted; broadcast: repeated axes at 0; ...), down to
//!   operands, constants and iota. Reshape, transpose, broadcast and slice therefore cost no memory.
//! - F3 *Unrolled reduces.* A reduce of at most [`SMALL_REDUCE`] elements (all reduced extents known) is written out
//!   where its result is used, in the order of the reference; of no elements it is the initial value.
//! - F4 *Map kernels.* Without sections (F5) every output has the same number N of elements, shapes aside; the kernel
//!   runs p = 0..N and computes output k at row-major position p of its own shape.
//! - F5 *Row kernels.* The space is X rows of R reduced elements. It is given by [`Space::factors`]: alternating kept
//!   and reduced extents whose row-major product is the operand of every section (`[(kept, 64), (reduced, 784)]`; a
//!   reduce over channels `[(kept, N), (reduced, C), (kept, H*W)]`). x counts kept factors in row-major order, r the
//!   reduced ones; p is the row-major position over all factors. All reduces in [`Space::sections`] have exactly these
//!   factors, whatever the dims of their operands; they run per row over r in the order of the reference, and may
//!   depend on each other. The list is in order of dependence.
//! - F6 *Places.* A [`Place::Row`] value needs a section and is one value a row: its row-major position is x. A
//!   [`Place::Full`] value needs a section and has one value per (x, r): its row-major position is p, so a section's
//!   result that it reads is always that of its own row. A [`Place::Free`] value needs no section and may be computed at
//!   any index anywhere. Nothing else occurs.
//! - F7 *Outputs of a row kernel* have X R elements (stored at p) or X elements (stored at x); several of both may occur.
//!   Where the elements of a row are neighbours, free outputs may also have X R / n elements, n at most [`SMALL_REDUCE`].
//!   Sections that need equally many others run in one pass, and so do the full outputs that need no more than they do;
//!   full outputs that are left have one pass of their own. If a row's first reduces combine groups of n, free outputs of
//!   X R / n elements are stored in their pass.
//! - F8 *Split.* When X is 1 and R is above [`SPLIT_ABOVE`] or not known ([`Space::split`]), the reduce runs in tiles
//!   over threads and partials are combined at the end: then no section depends on a section and no value is dependent
//!   and full. Row values after the sections (sqrt of the sum) and independent outputs of R elements do occur.
//! - F9 *Costs the former of groups relies on.* A value used in several sections may be computed again in each or kept
//!   in a buffer of R elements: the compiler's choice. A value of one element is computed once, outside the loops.
//! - F10 *Bits.* Whatever the grouping, results are those of the single ops: fusing never changes a result in strict
//!   mode. Numerics stay on the ops of the body; which products round together with a sum is settled
//!   before (`contract`).
//! - F11 *Rows passed over.* A section that only a likely `select` of row values uses, as its second side, runs in the rows
//!   whose condition, which needs no section, does not hold. The former stores that `select` in the section's kernel.
//! - F12 *Appends.* A `concat` that appends to a donated input, and the views that change nothing around it, are in no
//!   body ([`append()`]): the compiler writes only what is new.

mod append;
mod contract;
mod cost;
mod former;
mod frontier;
mod merge;
mod outline;
mod profile;
mod recompute;
mod segments;
mod space;
#[cfg(test)]
mod tests;
mod unstore;

use std::collections::{BTreeSet, HashMap, HashSet};

use frit_ir::{Function, Module, NodeId, Op, Value};

use crate::manager::{Context, Pass, PassError};
pub use append::{Append, append, grown_axis, is_identity};
use cost::Limits;
pub use cost::ops as op_cost;
use former::{Former, Graph};
use outline::Outline;
use space::is_small;
pub(crate) use space::keeps_order;
pub use space::{
    Factor, KernelShape, Place, Refusal, Space, is_fusable, kernel_shape, kernel_shape_of, reduces_neighbours,
};

/// Most elements of a reduce that is written out (F3).
pub const SMALL_REDUCE: i64 = 16;
/// Most elements of a constant inside a body (F1).
pub const SMALL_CONSTANT: usize = 64;
/// Most operands of a concat inside a body (F1).
pub const MOST_PIECES: usize = 128;
/// A reduce to one element of more than this many is split in tiles (F8).
pub const SPLIT_ABOVE: i64 = 4096;

/// Operations of one body unless `max-ops` says otherwise.
pub(crate) const MAX_OPS: u64 = 384;
/// Values live at once unless `max-live` says otherwise.
pub(crate) const MAX_LIVE: u64 = 48;

/// The pass.
pub struct Fuse;

const RULE: &str = "fuse";

impl Pass for Fuse {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            fuse(f, context)?;
        }
        Ok(())
    }
}

/// Forms the kernels of a function, regions of control ops first.
fn fuse(f: &mut Function, context: &mut Context<'_>) -> Result<(), PassError> {
    for id in f.nodes() {
        // These regions are kernels, or what a backend claims, already.
        if matches!(f.node(id).op, Op::Fusion {} | Op::Composite { .. }) {
            continue;
        }
        for region in f.regions_mut(id) {
            fuse(region, context)?;
        }
    }
    contract::settle(f);
    let settled = recompute::recompute(f, context)?;
    // The forward of a training step may be run again in parts, which are kernels of their own.
    let again = segments::segment(f, context.step().get("segments", 1), context)?;
    for &id in &again {
        for region in f.regions_mut(id) {
            form(region, &HashSet::new(), context)?;
        }
    }
    form(f, &settled, context)?;
    segments::put_last(f, &again);
    Ok(())
}

/// Forms the kernels of a function, its regions left as they are; what is `settled` is stored.
fn form(f: &mut Function, settled: &HashSet<Value>, context: &mut Context<'_>) -> Result<(), PassError> {
    let limits = Limits {
        ops: context.step().get("max-ops", MAX_OPS) as f64,
        live: usize::try_from(context.step().get("max-live", MAX_LIVE)).unwrap_or(usize::MAX),
    };
    let mut outlines = plan(f, limits, settled, context)?;
    let mut covered: BTreeSet<NodeId> = BTreeSet::new();
    let mut replaced: Vec<(Value, Value)> = Vec::new();
    let order = f.nodes();
    for (twice, once) in merge::merge(f, &mut outlines) {
        covered.insert(twice.node);
        replaced.push((twice, once));
    }
    for outline in outlines.iter().filter(|o| o.is_kernel(f)).collect::<Vec<_>>() {
        if !context.take(RULE) {
            break;
        }
        let origin = outline.outputs.last().map(|v| f.node(v.node).origin.to_string()).unwrap_or_default();
        let node = outline.add(f).map_err(|source| PassError::Rewrite { pass: "fuse", rule: RULE, origin, source })?;
        // Types that were narrowed after their op was made don't follow from it.
        if outline.outputs.iter().enumerate().any(|(result, old)| f.ty(Value { node, result }) != f.ty(*old)) {
            f.remove_op(node);
            continue;
        }
        covered.extend(&outline.members);
        covered.extend(outline.same.keys().map(|v| v.node));
        replaced.extend(outline.outputs.iter().enumerate().map(|(result, old)| (*old, Value { node, result })));
    }
    for (old, new) in replaced {
        f.replace_uses(old, new);
    }
    // Users have later positions than what they use among the ops that were there before: most go at once.
    let mut left: Vec<NodeId> = order.into_iter().rev().filter(|id| covered.contains(id)).collect();
    loop {
        let before = left.len();
        left.retain(|id| !f.remove_op(*id));
        if left.len() == before {
            return Ok(());
        }
    }
}

fn plan(
    f: &Function,
    limits: Limits,
    settled: &HashSet<Value>,
    context: &mut Context<'_>,
) -> Result<Vec<Outline>, PassError> {
    let graph = Graph::new(f).ok_or_else(|| PassError::Cycle(f.name.clone()))?;
    let mut former = Former::new(&graph, limits, settled);
    former.form();
    former.remarks.drain(..).for_each(|remark| context.remark(remark));
    let outlines = former.groups.iter().filter(|g| !g.outputs.is_empty()).map(|group| Outline {
        members: group.members.iter().map(|&m| graph.id(m)).collect(),
        outputs: group.outputs.iter().map(|&o| graph.value(o)).collect(),
        reads: group.reads.clone(),
        same: HashMap::new(),
    });
    Ok(outlines.collect())
}
