//! What was stored though its readers would rather compute it.
//!
//! The steps of [`super::former`] store a value before they know what else its readers have at hand. Once all kernels are
//! there, a softmax may lie in memory beside the exponentials and the sums that it is the quotient of, and a kernel reads
//! all three. So each output that kernels alone read is looked at once more: computed by each of them from what the
//! kernel that stores it stores or reads itself, it costs a few operations instead of a store and loads.
//!
//! ```text
//!  kernel a: e, s, e / s  --->  kernel b: reads e, s, e / s
//!  kernel a: e, s         --->  kernel b: reads e, s; computes e / s
//! ```
//!
//! No cycle comes of it: a kernel that reads an output of another waits for all that the other reads.

use std::collections::BTreeSet;

use frit_ir::{Op, Value};

use super::contract::rounds_with_user;
use super::former::{Former, Group};
use super::is_small;
use super::profile::Profile;

/// Ops that a reader takes for a value.
const MOST: usize = 32;
/// Part of what its loads and stores cost that has to be saved: both sides are estimates, and what is stored is known to
/// work.
const CLEAR: f64 = 0.5;

impl Former<'_, '_> {
    /// Step 4.
    pub(super) fn unstore(&mut self) {
        for k in 0..self.groups.len() {
            for o in self.groups[k].outputs.clone().into_iter().rev() {
                self.try_unstore(k, o);
            }
        }
    }

    /// Has the readers of an output of group `k` compute it, when they may and that is cheaper.
    fn try_unstore(&mut self, k: usize, o: usize) {
        let value = self.g.value(o);
        let readers = self.readers(value);
        if self.outside[o] || readers.is_empty() || readers.contains(&k) || self.groups[k].outputs.len() < 2 {
            return;
        }
        let mut less = self.groups[k].outputs.clone();
        less.remove(&o);
        let Some(own) = self.changed(k, self.needed(&self.groups[k].members, &less), less) else { return };
        let mut saved = self.groups[k].cost - own.cost;
        let memory = self.g.access(value) * self.g.elements(value) * (1.0 + readers.len() as f64);
        let mut changed = vec![(k, own)];
        for reader in readers {
            let Some(cone) = self.cone(k, reader, o).filter(|cone| self.lines_up(reader, cone)) else { return };
            let Group { members, outputs, .. } = &self.groups[reader];
            let members = members.union(&cone).copied().collect();
            let Some(group) = self.changed(reader, members, outputs.clone()) else { return };
            saved += self.groups[reader].cost - group.cost;
            changed.push((reader, group));
        }
        if saved < memory * CLEAR {
            return;
        }
        self.home[o] = None;
        changed.into_iter().for_each(|(k, group)| self.replace(k, group));
    }

    /// A group with other members and outputs; `None` where it may not have them.
    fn changed(&self, k: usize, members: BTreeSet<usize>, outputs: BTreeSet<usize>) -> Option<Group> {
        let profile: Profile = self.check(&members, &outputs).ok()?;
        let (cost, ops, reads) = (profile.cost(self.g, &outputs), self.ops(&members), self.reads(&members));
        // What it reads is stored, and no group reads itself.
        let stored =
            |v: &Value| self.g.index(*v).is_none_or(|i| !self.g.fusable(i) || self.home[i].is_some_and(|h| h != k));
        reads.iter().all(stored).then_some(Group { members, outputs, reads, cost, ops })
    }

    /// Members that outputs need.
    fn needed(&self, members: &BTreeSet<usize>, outputs: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut needed = outputs.clone();
        for &m in members.iter().rev() {
            if needed.contains(&m) {
                let operands = self.g.node(m).operands().iter().filter_map(|v| self.g.index(*v));
                needed.extend(operands.filter(|i| members.contains(i)));
            }
        }
        needed
    }

    /// What a reader has to compute for an output of group `k`: down to what `k` stores or reads.
    fn cone(&self, k: usize, reader: usize, o: usize) -> Option<BTreeSet<usize>> {
        let mut cone = BTreeSet::from([o]);
        let mut open = vec![o];
        while let Some(at) = open.pop() {
            let node = self.g.node(at);
            if cone.len() > MOST || matches!(&node.op, Op::Reduce { axes, .. } if !is_small(self.g.f, node, axes)) {
                return None;
            }
            for &operand in node.operands() {
                let Some(i) = self.g.index(operand) else { continue };
                let own = self.groups[k].members.contains(&i);
                // What rounds with its sum goes with it.
                let stored = if own { self.home[i] == Some(k) && !rounds_with_user(self.g.f, operand) } else { true };
                if !stored && !self.groups[reader].members.contains(&i) && cone.insert(i) {
                    open.push(i);
                }
            }
        }
        Some(cone)
    }

    /// Whether a reader may repeat what ops repeat: one that reduces all axes as one would have to divide its position.
    fn lines_up(&self, reader: usize, ops: &BTreeSet<usize>) -> bool {
        let whole = |m: &usize| {
            let node = self.g.node(*m);
            let long = matches!(&node.op, Op::Reduce { axes, .. } if !is_small(self.g.f, node, axes));
            long && self.g.elements(self.g.value(*m)) <= 1.0
        };
        let repeats = |m: &usize| {
            let node = self.g.node(*m);
            matches!(node.op, Op::Broadcast { .. }) && node.operands().iter().any(|v| self.g.elements(*v) > 1.0)
        };
        !ops.iter().any(repeats) || !self.groups[reader].members.iter().any(whole)
    }

    fn replace(&mut self, k: usize, group: Group) {
        let old = std::mem::replace(&mut self.groups[k], group);
        for &m in old.members.difference(&self.groups[k].members) {
            self.inside[m].remove(&k);
        }
        for &m in self.groups[k].members.difference(&old.members) {
            self.inside[m].insert(k);
        }
        for read in old.reads {
            self.readers.entry(read).or_default().remove(&k);
        }
        for &read in &self.groups[k].reads {
            self.readers.entry(read).or_default().insert(k);
        }
    }
}
