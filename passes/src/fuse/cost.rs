//! What work costs, in vector operations an element: the model that decides between computing again and storing.
//!
//! | what | cost |
//! |---|---|
//! | one arithmetic op | 1; division, remainder, square root 3; elementary functions 8, of two arguments 16 |
//! | a load or store | 1 + bytes an element |
//! | a view, a constant | 0 |
//! | a pad, concat, window | a compare and a select an operand |
//! | a kernel more | [`LAUNCH`], in elements' operations |
//!
//! Elements that are needed again within one kernel (a second section, a second output) count half: operands are in the
//! cache by then. A value repeated along the innermost axis is computed outside its loop.

use std::collections::{BTreeMap, BTreeSet};

use frit_ir::op::BinaryOp;
use frit_ir::types::{Dim, TensorType};
use frit_ir::{Node, Op, UnaryOp, Value};

use super::former::Graph;
use super::{SMALL_REDUCE, is_small};

/// Operations that starting one kernel more is worth.
pub(super) const LAUNCH: f64 = 200_000.0;
/// What an extent is taken for that is not known.
const GUESS: i64 = 64;

/// Limits of one kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Operations of its body once unrolled, elementary functions as in the table.
    pub(super) ops: f64,
    /// Values that are live at once.
    pub(super) live: usize,
}

/// Operations of one element of an op's result, its operands given.
pub(super) fn ops(node: &Node) -> f64 {
    match &node.op {
        Op::Unary(UnaryOp::Sqrt) => 3.0,
        Op::Unary(u) if u.is_elementary() => 8.0,
        Op::Unary(_) => 1.0,
        Op::Binary(BinaryOp::Div | BinaryOp::Rem) => 3.0,
        Op::Binary(BinaryOp::Pow | BinaryOp::Atan2) => 16.0,
        Op::Binary(_) | Op::Select { .. } | Op::Cast { .. } | Op::Reduce { .. } | Op::Iota { .. } => 1.0,
        Op::Pad { .. } | Op::Window { .. } => 2.0,
        Op::Concat { .. } => 2.0 * node.operands().len() as f64,
        Op::Gather { .. } => 2.0,
        // Views and constants; what no body holds never gets here.
        _ => 0.0,
    }
}

/// Elements of a shape, with a guess for what is not known.
pub(super) fn elements(ty: &TensorType) -> f64 {
    ty.dims.iter().map(|d| d.known().unwrap_or(GUESS).max(0) as f64).product()
}

/// Cost of one load or store of an element.
pub(super) fn access(ty: &TensorType) -> f64 {
    1.0 + ty.dtype.size() as f64
}

/// Elements that a reduce combines for one of its results.
pub(super) fn reduced(g: &Graph<'_>, node: &Node, axes: &[usize]) -> f64 {
    let dims = node.operands().first().map_or(&[][..], |v| g.dims(*v));
    axes.iter().filter_map(|&a| dims.get(a)).map(|d| d.known().unwrap_or(GUESS).max(0) as f64).product()
}

/// What makes a kernel compute a value: a level of its sections, or a loop over outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Feed {
    Level(usize),
    Output(usize),
}

/// How often a kernel computes its values, and what they are made of.
pub(super) struct Profile {
    /// Elements computed of each member, in all loops.
    work: BTreeMap<usize, f64>,
    /// Elements asked of each member by its users.
    asked: BTreeMap<usize, f64>,
    /// Elements loaded of each value from outside.
    loads: BTreeMap<Value, f64>,
    /// Copies of each member in the code: unrolling and loops.
    copies: BTreeMap<usize, f64>,
}

/// Elements and copies that users ask of a value.
#[derive(Clone, Debug, Default)]
struct Asked {
    elements: f64,
    copies: f64,
    feeds: BTreeSet<Feed>,
}

impl Asked {
    fn join(&mut self, elements: f64, copies: f64, feeds: &BTreeSet<Feed>) {
        self.elements = self.elements.max(elements);
        self.copies = self.copies.max(copies);
        self.feeds.extend(feeds.iter().copied());
    }

    fn factor(&self) -> f64 {
        1.0 + 0.5 * (self.feeds.len().max(1) - 1) as f64
    }
}

impl Profile {
    /// The profile of a kernel of these ops and outputs, by index in the graph.
    pub(super) fn of(g: &Graph<'_>, members: &BTreeSet<usize>, outputs: &BTreeSet<usize>) -> Profile {
        let levels = levels(g, members);
        let sectioned = !levels.is_empty();
        let mut asked: BTreeMap<Value, Asked> = BTreeMap::new();
        let mut profile =
            Profile { work: BTreeMap::new(), asked: BTreeMap::new(), loads: BTreeMap::new(), copies: BTreeMap::new() };
        for &m in members.iter().rev() {
            let value = g.value(m);
            let own = asked.entry(value).or_default();
            if outputs.contains(&m) {
                // A map kernel has one loop for all outputs, a row kernel one each, unless its first reductions store
                // them on the way.
                let feed = match () {
                    () if !sectioned => Feed::Output(0),
                    () if stored_on_the_way(g, members, &levels, m) => Feed::Level(1),
                    () => Feed::Output(m + 1),
                };
                own.join(g.elements(value), 1.0, &BTreeSet::from([feed]));
            }
            let mut own = own.clone();
            profile.asked.insert(m, own.elements * own.factor());
            let node = g.node(m);
            let mut times = 1.0;
            if let Op::Reduce { axes, .. } = &node.op {
                times = reduced(g, node, axes);
                if let Some(&level) = levels.get(&m) {
                    // A section runs once, whoever uses it.
                    own =
                        Asked { elements: g.elements(value), copies: 1.0, feeds: BTreeSet::from([Feed::Level(level)]) };
                }
            }
            let unrolled = if levels.contains_key(&m) { 1.0 } else { times };
            let factor = own.factor();
            profile.work.insert(m, own.elements * factor * times);
            profile.copies.insert(m, own.copies * own.feeds.len().max(1) as f64 * unrolled);
            for (i, &operand) in node.operands().iter().enumerate() {
                if is_rare(node, i) {
                    asked.entry(operand).or_default().join(0.0, 0.0, &own.feeds);
                    continue;
                }
                let mut elements = own.elements * times;
                let held = g.elements(operand);
                if held == 1.0 || (repeats_innermost(g, node) && held < elements) {
                    elements = held;
                }
                asked.entry(operand).or_default().join(elements, own.copies * unrolled, &own.feeds);
            }
        }
        for (value, asked) in asked {
            if g.index(value).is_none_or(|i| !members.contains(&i)) {
                profile.loads.insert(value, asked.elements * asked.factor());
            }
        }
        profile
    }

    /// Cost of the kernel: operations, loads, stores, its start.
    pub(super) fn cost(&self, g: &Graph<'_>, outputs: &BTreeSet<usize>) -> f64 {
        let work: f64 = self.work.iter().map(|(&m, elements)| ops(g.node(m)) * elements).sum();
        let loads: f64 = self.loads.iter().map(|(&v, elements)| g.access(v) * elements).sum();
        let stores: f64 = outputs.iter().map(|&o| g.access(g.value(o)) * g.elements(g.value(o))).sum();
        work + loads + stores + LAUNCH
    }

    /// Elements that the kernel asks of a member that is no output.
    pub(super) fn asked(&self, member: usize) -> f64 {
        self.asked.get(&member).copied().unwrap_or(0.0)
    }

    /// Operations of the body once unrolled.
    pub(super) fn body_ops(&self, g: &Graph<'_>) -> f64 {
        self.copies.iter().map(|(&m, copies)| ops(g.node(m)) * copies).sum()
    }
}

/// Whether the loop of the first reductions of a single row stores an output (F7).
fn stored_on_the_way(g: &Graph<'_>, members: &BTreeSet<usize>, levels: &BTreeMap<usize, usize>, output: usize) -> bool {
    let mut below = BTreeSet::from([output]);
    let mut free = true;
    for &m in members.range(..=output).rev() {
        if below.contains(&m) {
            free &= !levels.contains_key(&m);
            below.extend(g.node(m).operands().iter().filter_map(|v| g.index(*v)));
        }
    }
    let elements = g.elements(g.value(output));
    free && levels.keys().all(|&s| {
        let all = g.node(s).operands().first().map_or(0.0, |v| g.elements(*v));
        let n = all / elements.max(1.0);
        g.elements(g.value(s)) == 1.0 && n.fract() == 0.0 && (1.0..=SMALL_REDUCE as f64).contains(&n)
    })
}

/// How many sections deep each section lies.
fn levels(g: &Graph<'_>, members: &BTreeSet<usize>) -> BTreeMap<usize, usize> {
    let mut depth: BTreeMap<usize, usize> = BTreeMap::new();
    let mut levels = BTreeMap::new();
    for &m in members {
        let node = g.node(m);
        let above = node.operands().iter().filter_map(|v| depth.get(&g.index(*v)?)).max().copied().unwrap_or(0);
        let own = match &node.op {
            Op::Reduce { axes, .. } if !is_small(g.f, node, axes) => {
                levels.insert(m, above + 1);
                above + 1
            }
            _ => above,
        };
        depth.insert(m, own);
    }
    levels
}

/// Whether an operand is computed almost nowhere.
fn is_rare(node: &Node, operand: usize) -> bool {
    operand == 2 && matches!(node.op, Op::Select { likely } if likely.0)
}

/// Whether a broadcast repeats its operand along the innermost axis that is not 1.
fn repeats_innermost(g: &Graph<'_>, node: &Node) -> bool {
    let (Op::Broadcast { dims, axes }, Some(x)) = (&node.op, node.operands().first()) else { return false };
    let Some(inner) = dims.iter().rposition(|d| *d != Dim::ONE) else { return false };
    match axes.iter().position(|&a| a == inner) {
        Some(i) => g.dims(*x).get(i) == Some(&Dim::ONE),
        None => true,
    }
}

/// Which values will probably be stored, from the first op to the last: those with several users for whom computing
/// them again costs more. What follows from them is judged as if it read them.
pub(super) fn likely_stored(g: &Graph<'_>, users: &[Vec<usize>]) -> Vec<bool> {
    let mut stored = vec![false; users.len()];
    for p in 0..users.len() {
        let distinct: BTreeSet<usize> = users[p].iter().copied().collect();
        let value = g.value(p);
        if distinct.len() < 2 || !g.fusable(p) || g.elements(value) * g.access(value) < LAUNCH {
            continue;
        }
        let n = distinct.len() as f64;
        let once = cone(g, p, &stored, 1000.0);
        stored[p] = once * n > once + g.access(value) * (1.0 + n);
    }
    stored
}

/// Cost of one element of a value computed from what is stored anyway: its cone of ops up to reduces, inputs, what no
/// kernel holds and what is `stored`. Stops counting at `enough`.
pub(super) fn cone(g: &Graph<'_>, root: usize, stored: &[bool], enough: f64) -> f64 {
    let mut total = 0.0;
    let mut seen: BTreeSet<Value> = BTreeSet::new();
    let mut open = vec![(g.value(root), 1.0)];
    while let Some((value, times)) = open.pop() {
        if total > enough {
            break;
        }
        if !seen.insert(value) {
            continue;
        }
        let inside = g.index(value).filter(|&i| g.fusable(i) && (i == root || stored.get(i) != Some(&true)));
        let Some(i) = inside else {
            total += g.access(value) * times;
            continue;
        };
        let node = g.node(i);
        let mut below = times;
        if let Op::Reduce { axes, .. } = &node.op {
            let n = reduced(g, node, axes);
            if n > SMALL_REDUCE as f64 && i != root {
                total += g.access(value) * times;
                continue;
            }
            below = times * n;
        }
        total += ops(node) * below;
        let operands = node.operands().iter().enumerate().filter(|(i, _)| !is_rare(node, *i)).map(|(_, v)| *v);
        open.extend(operands.filter(|v| g.elements(*v) > 1.0).map(|v| (v, below)));
    }
    total
}

/// Most values that are live at once when the body runs from top to bottom.
pub(super) fn live(g: &Graph<'_>, members: &BTreeSet<usize>) -> usize {
    let counts = |i: &usize| ops(g.node(*i)) > 0.0 && g.elements(g.value(*i)) > 1.0;
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for &m in members {
        for operand in g.node(m).operands() {
            if let Some(i) = g.index(*operand).filter(|i| members.contains(i)) {
                last.insert(i, m);
            }
        }
    }
    let (mut now, mut most) = (0usize, 0usize);
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    for m in members.iter().filter(|i| counts(i)) {
        let ended: Vec<usize> = ends.range(..=*m).map(|(at, _)| *at).collect();
        for at in ended {
            now -= ends.remove(&at).unwrap_or(0);
        }
        now += 1;
        most = most.max(now);
        *ends.entry(last.get(m).copied().unwrap_or(*m) + 1).or_insert(0) += 1;
    }
    most
}
