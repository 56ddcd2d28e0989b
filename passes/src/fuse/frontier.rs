//! Where a large value ends in small results only: one kernel computes it and all of them, and it is never stored.
//!
//! ```text
//!        p            elements: N          basis functions of a layer, squared errors, ...
//!      / | \          elementwise ops, views
//!   min sum max       elements: N / n, 1   what is stored instead
//! ```
//!
//! The greedy steps of [`super::former`] look at one op after the other: each reduction would join whatever uses its
//! result, then read p from memory. So these kernels are formed first. Reductions that depend on each other, or do not
//! share a space, are left to the steps.

use std::collections::BTreeSet;

use frit_ir::{Op, OpClass, ReduceKind};

use super::former::Graph;
use super::is_small;

/// Ops between a value and its reductions that are looked at.
const NEAR: usize = 256;

/// A kernel to begin with, by numbers of ops.
pub(super) struct Frontier {
    /// The value and what lies between it and the reductions, reductions included.
    pub(super) members: BTreeSet<usize>,
    /// The reductions.
    pub(super) outputs: BTreeSet<usize>,
}

/// The kernel that begins at `p`, when all that p is used for ends in several independent reductions.
pub(super) fn find(g: &Graph<'_>, users: &[Vec<usize>], outside: &[bool], p: usize) -> Option<Frontier> {
    let mut frontier = Frontier { members: BTreeSet::from([p]), outputs: BTreeSet::new() };
    let mut open = vec![p];
    while let Some(at) = open.pop() {
        if outside[at] || users[at].is_empty() || frontier.members.len() > NEAR {
            return None;
        }
        for &user in &users[at] {
            if !frontier.members.insert(user) {
                continue;
            }
            let node = g.node(user);
            let views = matches!(node.op, Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. });
            match &node.op {
                Op::Reduce { kind: ReduceKind::ArgMin | ReduceKind::ArgMax, .. } => return None,
                Op::Reduce { .. } => {
                    let smaller = 2.0 * g.elements(g.value(user)) <= g.elements(g.value(p));
                    if !smaller {
                        return None;
                    }
                    // The steps of one reduction: only the last is a result.
                    if ends_in_reductions(g, users, outside, user) {
                        open.push(user);
                    } else {
                        frontier.outputs.insert(user);
                    }
                }
                op if views || op.class() == OpClass::Elementwise => open.push(user),
                _ => return None,
            }
        }
    }
    let independent = frontier.members.iter().all(|m| !needs_result(g, &frontier, *m));
    (frontier.outputs.len() > 1 && independent).then_some(frontier)
}

/// Whether a short reduction is there for others only.
fn ends_in_reductions(g: &Graph<'_>, users: &[Vec<usize>], outside: &[bool], at: usize) -> bool {
    let short = matches!(&g.node(at).op, Op::Reduce { axes, .. } if is_small(g.f, g.node(at), axes));
    let reduces = |u: &usize| matches!(g.node(*u).op, Op::Reduce { .. });
    short && !outside[at] && !users[at].is_empty() && users[at].iter().all(reduces)
}

/// Whether a member needs one of the results through ops that are no members.
fn needs_result(g: &Graph<'_>, frontier: &Frontier, member: usize) -> bool {
    let first = frontier.members.first().copied().unwrap_or(0);
    let own = |i: &usize| !frontier.members.contains(i);
    let operands = |i: usize| g.node(i).operands().iter().filter_map(|v| g.index(*v)).collect::<Vec<_>>();
    let mut open: Vec<usize> = operands(member).into_iter().filter(own).collect();
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        // Operands come before their users: what lies before all members needs none.
        if at < first || !seen.insert(at) {
            continue;
        }
        if frontier.outputs.contains(&at) {
            return true;
        }
        open.extend(operands(at));
    }
    false
}
