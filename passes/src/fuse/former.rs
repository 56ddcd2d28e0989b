//! Which ops share a kernel.
//!
//! A kernel is a set of outputs (values that are stored) and the ops computed for them; an op may be computed in several
//! kernels. Greedy steps, each in an order that depends on the function alone:
//!
//! 0. A large value that ends in several small reductions makes one kernel with them ([`super::frontier`]).
//! 1. From the last op to the first: an op is computed inside the kernels that use it, unless one of them would break
//!    the contract or its limits, or computing it again costs more than storing it ([`super::cost`]). Else it is stored.
//! 2. A stored value's kernel joins one that reads it, when that is cheaper: one kernel with several outputs.
//! 3. Kernels that read the same value join, when that is cheaper.
//!
//! A join must not make a cycle: nothing outside may need one of its outputs and be needed by it.

use std::collections::{BTreeSet, HashMap, HashSet};

use frit_ir::types::{Dim, TensorType};
use frit_ir::{Function, Node, NodeId, Op, Value};

use super::append::appended;
use super::cost::{self, LAUNCH, Limits, Profile};
use super::frontier::{self, Frontier};
use super::{is_fusable, is_small, kernel_shape_of};
use crate::manager::Remark;

/// A function with its ops numbered in dependency order.
pub(super) struct Graph<'f> {
    pub(super) f: &'f Function,
    order: Vec<NodeId>,
    index: HashMap<NodeId, usize>,
    fusable: Vec<bool>,
}

impl<'f> Graph<'f> {
    pub(super) fn new(f: &'f Function) -> Option<Self> {
        let order = f.toposort()?;
        let index = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let alone = appended(f);
        let fusable = order.iter().map(|id| !alone.contains(id) && is_fusable(f, *id)).collect();
        Some(Graph { f, order, index, fusable })
    }

    pub(super) fn id(&self, i: usize) -> NodeId {
        self.order[i]
    }

    pub(super) fn node(&self, i: usize) -> &'f Node {
        self.f.node(self.order[i])
    }

    pub(super) fn value(&self, i: usize) -> Value {
        Value { node: self.order[i], result: 0 }
    }

    pub(super) fn index(&self, value: Value) -> Option<usize> {
        self.index.get(&value.node).copied()
    }

    pub(super) fn fusable(&self, i: usize) -> bool {
        self.fusable[i]
    }

    fn ty(&self, value: Value) -> Option<&'f TensorType> {
        self.f.ty(value).tensor()
    }

    pub(super) fn dims(&self, value: Value) -> &'f [Dim] {
        self.ty(value).map_or(&[], |t| &t.dims)
    }

    pub(super) fn elements(&self, value: Value) -> f64 {
        self.ty(value).map_or(1.0, cost::elements)
    }

    pub(super) fn access(&self, value: Value) -> f64 {
        self.ty(value).map_or(0.0, cost::access)
    }

    fn label(&self, i: usize) -> String {
        format!("{} at {}", self.node(i).op.name(), self.node(i).origin)
    }
}

/// A kernel in the making: ops by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Ops computed.
    pub(super) members: BTreeSet<usize>,
    /// Those whose results are stored.
    pub(super) outputs: BTreeSet<usize>,
    /// Values that it does not compute, in the order of first use; filled after step 1.
    pub(super) reads: Vec<Value>,
    /// What it costs; filled after step 1.
    cost: f64,
}

/// The groups of a function, and why there are not fewer.
pub(super) struct Former<'g, 'f> {
    g: &'g Graph<'f>,
    limits: Limits,
    /// By number; a group that joined another is empty.
    pub(super) groups: Vec<Group>,
    /// The group that stores each op's result.
    home: Vec<Option<usize>>,
    /// The groups that compute each op.
    inside: Vec<BTreeSet<usize>>,
    /// Whether something that is in no kernel uses the result.
    outside: Vec<bool>,
    /// Ops that use each result.
    users: Vec<Vec<usize>>,
    /// Results that will probably be stored.
    stored: Vec<bool>,
    pub(super) remarks: Vec<Remark>,
}

/// Ops that are computed wherever they are used.
fn is_free(op: &Op) -> bool {
    matches!(
        op,
        Op::Constant { .. }
            | Op::Iota { .. }
            | Op::DimValue { .. }
            | Op::Broadcast { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
    )
}

impl<'g, 'f> Former<'g, 'f> {
    pub(super) fn new(g: &'g Graph<'f>, limits: Limits) -> Self {
        let n = g.order.len();
        let (mut outside, mut users) = (vec![false; n], vec![Vec::new(); n]);
        for user in 0..n {
            for operand in g.node(user).operands() {
                let Some(i) = g.index(*operand) else { continue };
                if g.fusable(user) {
                    users[i].push(user);
                } else {
                    outside[i] = true;
                }
            }
        }
        for output in g.f.outputs() {
            if let Some(i) = g.index(output.value) {
                outside[i] = true;
            }
        }
        let stored = cost::likely_stored(g, &users);
        Former {
            g,
            limits,
            groups: Vec::new(),
            home: vec![None; n],
            inside: vec![BTreeSet::new(); n],
            outside,
            users,
            stored,
            remarks: Vec::new(),
        }
    }

    /// Step 0: see [`super::frontier`].
    fn form_frontiers(&mut self) {
        for p in (0..self.g.order.len()).rev() {
            let several = self.users[p].iter().any(|u| *u != self.users[p][0]);
            if !several || !self.g.fusable(p) || is_free(&self.g.node(p).op) {
                continue;
            }
            let Some(Frontier { members, outputs }) = frontier::find(self.g, &self.users, &self.outside, p) else {
                continue;
            };
            if members.iter().any(|m| !self.inside[*m].is_empty()) {
                continue;
            }
            let mut group = Group { members, outputs, ..Group::default() };
            // What the members repeat or read of constants costs nothing.
            if let Err(reason) = self.check(&group) {
                let label = self.g.label(p);
                self.remark(p, &label, reason);
                continue;
            }
            let k = self.groups.len();
            // The value itself joins in step 1, when that is what it costs least.
            group.members.remove(&p);
            for &m in &group.members {
                self.inside[m].insert(k);
            }
            for &o in &group.outputs {
                self.home[o] = Some(k);
            }
            self.groups.push(group);
        }
    }

    /// Runs the steps.
    pub(super) fn form(&mut self) {
        self.form_frontiers();
        for p in (0..self.g.order.len()).rev() {
            if self.g.fusable(p) && self.inside[p].is_empty() {
                self.place(p);
            }
        }
        for k in 0..self.groups.len() {
            let group = &self.groups[k];
            let (reads, cost) = (self.reads(&group.members), self.cost(group));
            (self.groups[k].reads, self.groups[k].cost) = (reads, cost);
        }
        self.join_consumers();
        self.join_siblings();
    }

    fn remark(&mut self, producer: usize, consumer: &str, reason: String) {
        let (function, producer) = (self.g.f.name.clone(), self.g.label(producer));
        self.remarks.push(Remark { function, producer, consumer: consumer.to_owned(), reason });
    }

    fn group_label(&self, group: usize) -> String {
        self.groups[group].outputs.last().map_or(String::new(), |&o| self.g.label(o))
    }

    /// Whether the group keeps the contract.
    fn check_shape(&self, group: &Group) -> Result<(), String> {
        let members: Vec<NodeId> = group.members.iter().map(|&m| self.g.id(m)).collect();
        let outputs: Vec<Value> = group.outputs.iter().map(|&o| self.g.value(o)).collect();
        kernel_shape_of(self.g.f, &members, &outputs).map(|_| ()).map_err(|e| e.to_string())
    }

    /// Whether the group keeps the contract and the limits.
    fn check(&self, group: &Group) -> Result<Profile, String> {
        self.check_shape(group)?;
        let profile = Profile::of(self.g, &group.members, &group.outputs);
        let ops = profile.body_ops(self.g);
        if ops > self.limits.ops {
            return Err(format!("{ops} operations in one body, the limit is {}", self.limits.ops));
        }
        let live = cost::live(self.g, &group.members);
        if live > self.limits.live {
            return Err(format!("{live} values live at once, the limit is {}", self.limits.live));
        }
        Ok(profile)
    }

    /// Gives the op a group of its own.
    fn store(&mut self, p: usize) {
        let group = Group { members: BTreeSet::from([p]), outputs: BTreeSet::from([p]), ..Group::default() };
        self.home[p] = Some(self.groups.len());
        self.inside[p].insert(self.groups.len());
        self.groups.push(group);
    }

    /// Step 1 for one op; all its users are placed.
    fn place(&mut self, p: usize) {
        let consumers: BTreeSet<usize> = self.users[p].iter().flat_map(|&u| self.inside[u].iter().copied()).collect();
        let op = &self.g.node(p).op;
        let free = is_free(op);
        if consumers.is_empty() || (self.outside[p] && !free) {
            // A constant that only others read needs no kernel; nor does an op that nothing uses.
            if self.outside[p] && !matches!(op, Op::Constant { .. }) {
                self.store(p);
            }
            return;
        }
        if self.inlines(p, &consumers, free) {
            for &c in &consumers {
                self.groups[c].members.insert(p);
            }
            self.inside[p] = consumers;
            if self.outside[p] && !matches!(op, Op::Constant { .. }) {
                self.store(p);
            }
        } else {
            self.store(p);
        }
    }

    fn inlines(&mut self, p: usize, consumers: &BTreeSet<usize>, free: bool) -> bool {
        let value = self.g.value(p);
        let mut loaded = 0.0;
        let mut refused = Vec::new();
        for &c in consumers {
            let group = &self.groups[c];
            let mut with = Group { members: group.members.clone(), outputs: group.outputs.clone(), ..Group::default() };
            with.members.insert(p);
            // What costs nothing breaks no limit.
            let checked = if free {
                self.check_shape(&with)
            } else {
                self.check(&with).map(|profile| loaded += profile.asked(p))
            };
            if let Err(reason) = checked {
                refused.push((c, reason));
            }
        }
        if !refused.is_empty() {
            for (c, reason) in refused {
                let label = self.group_label(c);
                self.remark(p, &label, reason);
            }
            return false;
        }
        if free {
            return true;
        }
        let (elements, access) = (self.g.elements(value), self.g.access(value));
        let cone = cost::cone(self.g, p, &self.stored, 10_000.0);
        if let Op::Reduce { axes, .. } = &self.g.node(p).op
            && !is_small(self.g.f, self.g.node(p), axes)
        {
            // Read from several loops of one kernel, a section is still computed once.
            loaded = loaded.min(elements * consumers.len() as f64);
        }
        let (again, stored) = (cone * loaded, cone * elements + access * (elements + loaded) + LAUNCH);
        // One use of each element: storing never helps.
        if loaded <= elements || again <= stored {
            return true;
        }
        let label = consumers.iter().map(|&c| self.group_label(c)).collect::<Vec<_>>().join(", ");
        self.remark(p, &label, format!("computing it where it is used costs {again:.0}, storing it {stored:.0}"));
        false
    }

    fn cost(&self, group: &Group) -> f64 {
        Profile::of(self.g, &group.members, &group.outputs).cost(self.g, &group.outputs)
    }

    /// The group of two, without outputs that only it reads.
    fn joined(&self, a: usize, b: usize) -> Group {
        let members: BTreeSet<usize> = self.groups[a].members.union(&self.groups[b].members).copied().collect();
        let needed = |o: &usize| {
            self.outside[*o]
                || self.users[*o]
                    .iter()
                    .any(|u| self.inside[*u].iter().any(|&k| k != a && k != b && !self.groups[k].members.contains(o)))
        };
        let outputs = self.groups[a].outputs.union(&self.groups[b].outputs).copied().filter(needed).collect();
        Group { reads: self.reads(&members), members, outputs, cost: 0.0 }
    }

    /// Joins two groups when that is legal and cheaper.
    fn try_join(&mut self, a: usize, b: usize) -> bool {
        let mut group = self.joined(a, b);
        let (Some(&first), label) = (self.groups[a].outputs.first(), self.group_label(b)) else { return false };
        let profile = match self.check(&group) {
            Ok(profile) => profile,
            Err(reason) => {
                self.remark(first, &label, reason);
                return false;
            }
        };
        let (together, apart) = (profile.cost(self.g, &group.outputs), self.groups[a].cost + self.groups[b].cost);
        if together >= apart {
            self.remark(first, &label, format!("one kernel costs {together:.0}, two cost {apart:.0}"));
            return false;
        }
        if self.makes_cycle(a, b) {
            self.remark(first, &label, "what lies between needs one and is needed by the other".to_owned());
            return false;
        }
        for &m in &group.members {
            self.inside[m].remove(&b);
            self.inside[m].insert(a);
        }
        for o in self.groups[b].outputs.clone() {
            self.home[o] = Some(a);
        }
        for &o in self.groups[a].outputs.union(&self.groups[b].outputs) {
            if !group.outputs.contains(&o) {
                self.home[o] = None;
            }
        }
        group.cost = together;
        self.groups[b] = Group::default();
        self.groups[a] = group;
        true
    }

    /// What a group of these ops reads: values that it does not compute.
    fn reads(&self, members: &BTreeSet<usize>) -> Vec<Value> {
        let mut reads = Vec::new();
        for &m in members {
            for &operand in self.g.node(m).operands() {
                let own = self.g.index(operand).is_some_and(|i| members.contains(&i));
                if !own && !reads.contains(&operand) {
                    reads.push(operand);
                }
            }
        }
        reads
    }

    /// Whether something outside the two needs one of them and is needed by one.
    fn makes_cycle(&self, a: usize, b: usize) -> bool {
        let stored_by_pair = |v: &Value| self.g.index(*v).and_then(|i| self.home[i]).is_some_and(|k| k == a || k == b);
        // Backwards from what the pair reads of others.
        let mut open: Vec<Value> = [a, b].iter().flat_map(|&k| self.groups[k].reads.iter().copied()).collect();
        open.retain(|v| !stored_by_pair(v));
        let mut seen: HashSet<Value> = HashSet::new();
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            if stored_by_pair(&value) {
                return true;
            }
            let Some(i) = self.g.index(value) else { continue };
            match self.home[i] {
                Some(k) => open.extend(&self.groups[k].reads),
                None => open.extend(self.g.node(i).operands()),
            }
        }
        false
    }

    /// Groups that read a value, in order.
    fn readers(&self, value: Value) -> Vec<usize> {
        (0..self.groups.len()).filter(|&k| self.groups[k].reads.contains(&value)).collect()
    }

    /// Step 2.
    fn join_consumers(&mut self) {
        for p in 0..self.g.order.len() {
            while let Some(a) = self.home[p] {
                let readers = self.readers(self.g.value(p));
                if !readers.into_iter().any(|b| b != a && self.try_join(a, b)) {
                    break;
                }
            }
        }
    }

    /// Step 3.
    fn join_siblings(&mut self) {
        /// Readers that each reader of a value is compared with.
        const NEAR: usize = 8;
        for i in 0..self.g.order.len() {
            for result in 0..self.g.node(i).results().len() {
                let value = Value { node: self.g.id(i), result };
                if self.g.elements(value) <= 1.0 {
                    continue;
                }
                let mut readers = self.readers(value);
                let mut at = 0;
                while at < readers.len() {
                    let a = readers[at];
                    let near: Vec<usize> = readers.iter().copied().skip(at + 1).take(NEAR).collect();
                    match near.into_iter().find(|&b| self.try_join(a, b)) {
                        Some(b) => readers.retain(|&k| k != b),
                        None => at += 1,
                    }
                }
            }
        }
    }
}
