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

use frit_ir::op::BinaryOp;
use frit_ir::types::TensorType;
use frit_ir::{Node, Op, UnaryOp, Value};

use super::SMALL_REDUCE;
use super::contract::rounds_with_user;
use super::former::Graph;

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
pub fn ops(node: &Node) -> f64 {
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

/// Whether an operand is computed almost nowhere.
pub(super) fn is_rare(node: &Node, operand: usize) -> bool {
    operand == 2 && matches!(node.op, Op::Select { likely } if likely.0)
}

/// Which values will probably be stored, from the first op to the last: those with several users for whom computing
/// them again costs more. What follows from them is judged as if it read them.
pub(super) fn likely_stored(g: &Graph<'_>, users: &[Vec<usize>], cones: &mut Cones) -> Vec<bool> {
    let mut stored = vec![false; users.len()];
    for (p, users) in users.iter().enumerate() {
        let mut distinct = users.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let value = g.value(p);
        if distinct.len() < 2 || !g.fusable(p) || g.elements(value) * g.access(value) < LAUNCH {
            continue;
        }
        let n = distinct.len() as f64;
        // From here on the answer is yes.
        let enough = g.access(value) * (1.0 + n) / (n - 1.0) + 1.0;
        let once = cones.cost(g, p, &stored, enough.min(1000.0));
        stored[p] = once * n > once + g.access(value) * (1.0 + n) && !rounds_with_user(g.f, value);
    }
    stored
}

/// Costs of cones: what one element of a value needs when it is computed from what is stored anyway.
pub(super) struct Cones {
    /// The walk that saw each op last.
    seen: Vec<u32>,
    walk: u32,
}

impl Cones {
    pub(super) fn new(ops: usize) -> Self {
        Cones { seen: vec![0; ops], walk: 0 }
    }

    /// Cost of one element of an op's result: its cone of ops up to reduces, inputs, what no kernel holds and what is
    /// `stored`. Stops counting above `enough`.
    pub(super) fn cost(&mut self, g: &Graph<'_>, root: usize, stored: &[bool], enough: f64) -> f64 {
        let mut total = 0.0;
        self.walk = self.walk.wrapping_add(1);
        let mut further: Vec<Value> = Vec::new();
        let mut open = vec![(g.value(root), 1.0)];
        while let Some((value, times)) = open.pop() {
            if total > enough {
                break;
            }
            let Some(i) = g.index(value) else { continue };
            let known = match value.result {
                0 => std::mem::replace(&mut self.seen[i], self.walk) == self.walk,
                _ => {
                    further.contains(&value) || {
                        further.push(value);
                        false
                    }
                }
            };
            if known {
                continue;
            }
            if !g.fusable(i) || (i != root && stored.get(i) == Some(&true)) {
                total += g.access(value) * times;
                continue;
            }
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
}
