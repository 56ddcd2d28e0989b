//! Where nothing flows, though every op on the way has a slope: shifts that a softmax does not see.
//!
//! softmax(t + s) = softmax(t) for any s that is the same along the normalised axes: s gets a cotangent of exactly 0, as
//! the sum of many that cancel but for rounding. So the largest score that is taken off before the exponential, and a
//! bias that all scores share, end the sweep at once.
//!
//! That is found, not matched: adding s to an exponent t adds it to what is a *shift* of t (t - x, the logarithm below)
//! and multiplies by a power of e^s what has a *degree* (e^t, its sums, products and quotients). Where all that follows
//! from t ends in degree 0 and no shift, as e^t / sum(e^t) and t - log(sum(e^t)) do, t is invariant.

use std::collections::{BTreeMap, HashMap, HashSet};

use frit_ir::types::Dim;
use frit_ir::{BinaryOp, Function, NodeId, Op, ReduceKind, UnaryOp, Value};

use crate::simplify::algebra::unit_map;

/// Ops that are followed up from an exponent.
const DEPTH: usize = 8;

/// How a value changes when s is added to t.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// By how many s it grows; with a degree it grows by factors.
    shift: i32,
    /// By which power of e^s it is multiplied.
    degree: i32,
    /// For each axis along which s may vary, the axis of t that it is.
    rows: BTreeMap<usize, usize>,
}

/// Operands, by op and place, that get no cotangent when `seeds` are differentiated.
pub(super) fn dead_operands(f: &Function, order: &[NodeId], seeds: &[Value]) -> HashSet<(NodeId, usize)> {
    let mut dead = HashSet::new();
    // What the seeds do not depend on does not count.
    let mut useful: HashSet<NodeId> = HashSet::new();
    let mut open: Vec<NodeId> = seeds.iter().map(|v| v.node).collect();
    while let Some(id) = open.pop() {
        if useful.insert(id) {
            open.extend(f.node(id).operands().iter().map(|v| v.node));
        }
    }
    let order: Vec<NodeId> = order.iter().copied().filter(|id| useful.contains(id)).collect();
    for &id in &order {
        if f.node(id).op != Op::Unary(UnaryOp::Exp) {
            continue;
        }
        let (e, t) = (Value { node: id, result: 0 }, f.node(id).operands()[0]);
        let sums = f.uses(e).into_iter().filter_map(|(user, _)| match &f.node(user).op {
            Op::Reduce { axes, kind: ReduceKind::Sum } => Some(axes.clone()),
            _ => None,
        });
        if let Some(axes) = sums.into_iter().next()
            && is_invariant(f, &order, t, &axes, seeds)
        {
            shifts(f, t, &axes, seeds, &mut dead);
        }
    }
    dead
}

/// Whether nothing that follows from `t` sees a shift of it that is the same along `axes`.
fn is_invariant(f: &Function, order: &[NodeId], t: Value, axes: &[usize], seeds: &[Value]) -> bool {
    let Some(ty) = f.ty(t).tensor() else { return false };
    let rows = (0..ty.rank()).filter(|a| !axes.contains(a)).map(|a| (a, a)).collect();
    let mut changes: HashMap<Value, Change> = HashMap::new();
    changes.insert(t, Change { shift: 1, degree: 0, rows });
    let start = order.iter().position(|id| *id == t.node).unwrap_or(order.len());
    for &id in order.get(start + 1..).unwrap_or(&[]) {
        let node = f.node(id);
        if !node.operands().iter().any(|v| changes.contains_key(v)) {
            continue;
        }
        let Some(change) = changed(f, id, &changes) else { return false };
        if change.shift != 0 || change.degree != 0 {
            changes.insert(Value { node: id, result: 0 }, change);
        }
    }
    !seeds.iter().any(|v| changes.contains_key(v))
}

/// How an op's result changes; `None` where that has no such form.
fn changed(f: &Function, id: NodeId, changes: &HashMap<Value, Change>) -> Option<Change> {
    let node = f.node(id);
    let of = |i: usize| node.operands().get(i).and_then(|v| changes.get(v));
    let first = of(0);
    match &node.op {
        Op::Unary(UnaryOp::Exp) => {
            let Change { shift, degree: 0, rows } = first? else { return None };
            Some(Change { shift: 0, degree: *shift, rows: rows.clone() })
        }
        Op::Unary(UnaryOp::Log) => {
            let Change { shift: 0, degree, rows } = first? else { return None };
            Some(Change { shift: *degree, degree: 0, rows: rows.clone() })
        }
        Op::Unary(UnaryOp::Neg) => first.map(|c| Change { shift: -c.shift, ..c.clone() }),
        Op::Binary(op) => combined(*op, first, of(1)),
        Op::Broadcast { axes, .. } => moved(first?, |axis| axes.get(axis).copied()),
        Op::Transpose { perm } => moved(first?, |axis| perm.iter().position(|p| *p == axis)),
        Op::Reshape { dims } => {
            let from = &f.ty(node.operands()[0]).tensor()?.dims;
            let places = unit_map(from, dims)?;
            let mut change = first?.clone();
            change.rows.retain(|axis, _| from[*axis] != Dim::ONE);
            moved(&change, |axis| places.get(axis).copied().flatten())
        }
        Op::Reduce { axes, kind } => {
            let change = first?;
            let mixes = axes.iter().any(|a| change.rows.contains_key(a));
            let keeps = match kind {
                ReduceKind::Sum => change.shift == 0,
                ReduceKind::Max | ReduceKind::Min => change.degree == 0,
                ReduceKind::Prod | ReduceKind::ArgMin | ReduceKind::ArgMax => false,
            };
            if mixes || !keeps {
                return None;
            }
            moved(change, |axis| Some(axis - axes.iter().filter(|a| **a < axis).count()))
        }
        _ => None,
    }
}

/// The change with its axes renamed.
fn moved(change: &Change, to: impl Fn(usize) -> Option<usize>) -> Option<Change> {
    let rows = change.rows.iter().map(|(axis, row)| Some((to(*axis)?, *row))).collect::<Option<_>>()?;
    Some(Change { rows, ..change.clone() })
}

fn combined(op: BinaryOp, a: Option<&Change>, b: Option<&Change>) -> Option<Change> {
    let still = |c: &Change| Change { shift: 0, degree: 0, rows: c.rows.clone() };
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) if a.rows == b.rows => (a.clone(), b.clone()),
        (Some(_), Some(_)) => return None,
        (Some(a), None) => (a.clone(), still(a)),
        (None, Some(b)) => (still(b), b.clone()),
        (None, None) => return None,
    };
    let rows = a.rows.clone();
    let no_shift = a.shift == 0 && b.shift == 0;
    match op {
        BinaryOp::Add if a.degree == b.degree && (a.degree == 0 || no_shift) => {
            Some(Change { shift: a.shift + b.shift, degree: a.degree, rows })
        }
        BinaryOp::Sub if a.degree == b.degree && (a.degree == 0 || no_shift) => {
            Some(Change { shift: a.shift - b.shift, degree: a.degree, rows })
        }
        BinaryOp::Mul if no_shift => Some(Change { shift: 0, degree: a.degree + b.degree, rows }),
        BinaryOp::Div if no_shift => Some(Change { shift: 0, degree: a.degree - b.degree, rows }),
        _ => None,
    }
}

/// Marks what only shifts `t` along the axes: terms of it that are the same along them, behind factors that are.
fn shifts(f: &Function, t: Value, axes: &[usize], seeds: &[Value], dead: &mut HashSet<(NodeId, usize)>) {
    let mut at = t;
    for _ in 0..DEPTH {
        let [a, b] = f.node(at.node).operands() else { return };
        let (first, second) = (repeats(f, *a, axes), repeats(f, *b, axes));
        let user = at.node;
        match &f.node(at.node).op {
            Op::Binary(BinaryOp::Add | BinaryOp::Sub) => {
                dead.extend([first.then_some((at.node, 0)), second.then_some((at.node, 1))].into_iter().flatten());
                match (first, second) {
                    (false, true) => at = *a,
                    (true, false) => at = *b,
                    _ => return,
                }
            }
            Op::Binary(BinaryOp::Mul) if second => at = *a,
            Op::Binary(BinaryOp::Mul) if first => at = *b,
            Op::Binary(BinaryOp::Div) if second => at = *a,
            _ => return,
        }
        // Beyond a value that others use, what flows is not only from here.
        let alone =
            f.uses(at).into_iter().all(|(other, i)| other == user || is_dead(f, (other, i), seeds, dead, DEPTH));
        if !alone || seeds.contains(&at) {
            return;
        }
    }
}

/// Whether nothing flows back through an operand of an op.
fn is_dead(
    f: &Function,
    (id, operand): (NodeId, usize),
    seeds: &[Value],
    dead: &HashSet<(NodeId, usize)>,
    depth: usize,
) -> bool {
    if dead.contains(&(id, operand)) {
        return true;
    }
    let value = Value { node: id, result: 0 };
    let users = f.uses(value);
    let followed = depth > 0 && f.node(id).results().len() == 1 && !users.is_empty() && !seeds.contains(&value);
    followed && users.into_iter().all(|user| is_dead(f, user, seeds, dead, depth - 1))
}

/// Whether a value is the same along these axes.
fn repeats(f: &Function, value: Value, axes: &[usize]) -> bool {
    let node = f.node(value.node);
    match (&node.op, node.operands().first()) {
        (Op::Broadcast { axes: kept, .. }, Some(&x)) => {
            let Some(from) = f.ty(x).tensor() else { return false };
            let varies = kept.iter().zip(&from.dims).filter(|(_, d)| **d != Dim::ONE);
            varies.into_iter().all(|(a, _)| !axes.contains(a))
        }
        (Op::Constant { value }, _) => value.numel() == 1,
        _ => false,
    }
}
