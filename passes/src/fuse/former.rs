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
//! 4. What is stored is computed by the kernels that read it, when that is cheaper with what they read ([`super::unstore`]).
//!
//! A join must not make a cycle: nothing outside may need one of its outputs and be needed by it.
//!
//! Work grows with the function, not with its square: in step 1 a group takes an op before all its others, which its
//! [`Profile`] and its shape follow without a look at the rest; which groups read a value is kept; a cycle is looked
//! for no further back than it can reach.

use std::collections::{BTreeSet, HashMap, HashSet};

use frit_ir::types::{Dim, TensorType};
use frit_ir::{Function, Node, NodeId, Op, Value};

use super::append::appended;
use super::contract::rounds_with_user;
use super::cost::{self, Cones, LAUNCH, Limits};
use super::frontier::{self, Frontier};
use super::profile::{Profile, Taken};
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
    /// What it costs, and the operations that its ops have at least; filled after step 1.
    pub(super) cost: f64,
    pub(super) ops: f64,
}

/// What step 1 knows of a group that grows.
struct Growing {
    profile: Profile,
    /// Whether it keeps the contract.
    shape: Result<(), String>,
}

/// The groups of a function, and why there are not fewer.
pub(super) struct Former<'g, 'f> {
    pub(super) g: &'g Graph<'f>,
    limits: Limits,
    /// What is stored whatever it costs: other steps rely on it.
    settled: &'g HashSet<Value>,
    /// By number; a group that joined another is empty.
    pub(super) groups: Vec<Group>,
    /// The same by number, in step 1.
    growing: Vec<Growing>,
    /// The groups that read a value; filled after step 1.
    pub(super) readers: HashMap<Value, BTreeSet<usize>>,
    /// First output and last op of the groups with several outputs.
    spans: BTreeSet<(usize, usize, usize)>,
    cones: Cones,
    /// The group that stores each op's result.
    pub(super) home: Vec<Option<usize>>,
    /// The groups that compute each op.
    pub(super) inside: Vec<BTreeSet<usize>>,
    /// Whether something that is in no kernel uses the result.
    pub(super) outside: Vec<bool>,
    /// Ops that use each result.
    users: Vec<Vec<usize>>,
    /// Results that will probably be stored.
    stored: Vec<bool>,
    pub(super) remarks: Vec<Remark>,
}

/// Ops of a body for each operation that it may have.
const VIEWS_AN_OP: f64 = 4.0;
/// Ops of any body: the compiler goes down from one to the next on its stack.
const MOST_MEMBERS: f64 = 1024.0;

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
    pub(super) fn new(g: &'g Graph<'f>, limits: Limits, settled: &'g HashSet<Value>) -> Self {
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
        let mut cones = Cones::new(n);
        let stored = cost::likely_stored(g, &users, &mut cones);
        Former {
            g,
            limits,
            settled,
            groups: Vec::new(),
            growing: Vec::new(),
            readers: HashMap::new(),
            spans: BTreeSet::new(),
            cones,
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
        // From the first op: what the earliest value ends in holds what later ones end in.
        for p in 0..self.g.order.len() {
            let several = self.users[p].iter().any(|u| *u != self.users[p][0]);
            if !several || !self.g.fusable(p) || is_free(&self.g.node(p).op) {
                continue;
            }
            let Some(Frontier { mut members, outputs }) = frontier::find(self.g, &self.users, &self.outside, p) else {
                continue;
            };
            if members.iter().any(|m| !self.inside[*m].is_empty()) {
                continue;
            }
            // What the members repeat or read of constants costs nothing.
            if let Err(reason) = self.check(&members, &outputs) {
                let label = self.g.label(p);
                self.remark(p, &label, reason);
                continue;
            }
            // The value itself joins in step 1, when that is what it costs least.
            members.remove(&p);
            self.open(members, outputs);
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
        for (k, growing) in std::mem::take(&mut self.growing).into_iter().enumerate() {
            let group = &self.groups[k];
            let (reads, cost) = (self.reads(&group.members), growing.profile.cost(self.g, &group.outputs));
            for &read in &reads {
                self.readers.entry(read).or_default().insert(k);
            }
            self.groups[k].ops = self.ops(&self.groups[k].members);
            (self.groups[k].reads, self.groups[k].cost) = (reads, cost);
            if self.groups[k].outputs.len() > 1 {
                let span = self.span(k);
                self.spans.insert(span);
            }
        }
        self.join_consumers();
        self.join_siblings();
        self.unstore();
    }

    fn remark(&mut self, producer: usize, consumer: &str, reason: String) {
        let (function, producer) = (self.g.f.name.clone(), self.g.label(producer));
        self.remarks.push(Remark { function, producer, consumer: consumer.to_owned(), reason });
    }

    fn group_label(&self, group: usize) -> String {
        self.groups[group].outputs.last().map_or(String::new(), |&o| self.g.label(o))
    }

    /// Whether ops and outputs keep the contract.
    fn check_shape(&self, members: &BTreeSet<usize>, outputs: &BTreeSet<usize>) -> Result<(), String> {
        let members: Vec<NodeId> = members.iter().map(|&m| self.g.id(m)).collect();
        let outputs: Vec<Value> = outputs.iter().map(|&o| self.g.value(o)).collect();
        kernel_shape_of(self.g.f, &members, &outputs).map(|_| ()).map_err(|e| e.to_string())
    }

    /// Views without end are no longer free for who compiles them.
    fn check_count(&self, members: usize) -> Result<(), String> {
        let most = (self.limits.ops * VIEWS_AN_OP).min(MOST_MEMBERS);
        if members as f64 > most {
            return Err(format!("{members} ops in one body, the limit is {most}"));
        }
        Ok(())
    }

    fn check_limits(&self, taken: Taken) -> Result<(), String> {
        if taken.ops > self.limits.ops {
            return Err(format!("{} operations in one body, the limit is {}", taken.ops, self.limits.ops));
        }
        if taken.live > self.limits.live {
            return Err(format!("{} values live at once, the limit is {}", taken.live, self.limits.live));
        }
        Ok(())
    }

    /// Whether ops and outputs keep the contract and the limits.
    pub(super) fn check(&self, members: &BTreeSet<usize>, outputs: &BTreeSet<usize>) -> Result<Profile, String> {
        self.check_count(members.len())?;
        self.check_shape(members, outputs)?;
        let profile = Profile::of(self.g, members, outputs);
        self.check_limits(profile.taken(self.g, None)).map(|()| profile)
    }

    /// A new group.
    fn open(&mut self, members: BTreeSet<usize>, outputs: BTreeSet<usize>) {
        let k = self.groups.len();
        self.growing.push(Growing {
            profile: Profile::of(self.g, &members, &outputs),
            shape: self.check_shape(&members, &outputs),
        });
        for &m in &members {
            self.inside[m].insert(k);
        }
        for &o in &outputs {
            self.home[o] = Some(k);
        }
        self.groups.push(Group { members, outputs, ..Group::default() });
    }

    /// Gives the op a group of its own.
    fn store(&mut self, p: usize) {
        self.open(BTreeSet::from([p]), BTreeSet::from([p]));
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
        if self.settled.contains(&self.g.value(p)) || self.skips_a_section(p) {
            self.store(p);
            return;
        }
        // What costs nothing, and what has to be where its sum is, whatever the limits and costs.
        let stays = free || rounds_with_user(self.g.f, self.g.value(p));
        if self.inlines(p, &consumers, stays) {
            self.inside[p] = consumers;
            if self.outside[p] && !matches!(op, Op::Constant { .. }) {
                self.store(p);
            }
        } else {
            self.store(p);
        }
    }

    /// Whether an op usually does without one of its operands, a long reduction: then it is stored by the reduction's own
    /// kernel, which runs only the rows that are needed.
    fn skips_a_section(&self, p: usize) -> bool {
        let node = self.g.node(p);
        node.operands().iter().enumerate().filter(|(i, _)| cost::is_rare(node, *i)).any(|(_, v)| {
            let section = self.g.index(*v).map(|i| self.g.node(i));
            section.is_some_and(|s| matches!(&s.op, Op::Reduce { axes, .. } if !is_small(self.g.f, s, axes)))
        })
    }

    /// A group that takes an op before all others: what it becomes, unless it may not. A group is made anew only where
    /// the op changes what lies below it.
    fn grown(&self, p: usize, group: usize, stays: bool) -> Result<(Taken, Option<Growing>), String> {
        let Group { members, outputs, .. } = &self.groups[group];
        let growing = &self.growing[group];
        self.check_count(members.len() + 1)?;
        // Only a reduce decides about loops (F5, F6): before all others, anything else stands where it is free.
        let first = members.first().is_none_or(|m| p < *m);
        let shaped = !first || matches!(self.g.node(p).op, Op::Reduce { .. });
        let mut anew = None;
        let taken = if shaped {
            let mut with = members.clone();
            with.insert(p);
            self.check_shape(&with, outputs)?;
            if first && Profile::takes(self.g, p) {
                growing.profile.with(self.g, p)
            } else {
                let profile = Profile::of(self.g, &with, outputs);
                let taken = profile.taken(self.g, Some(p));
                anew = Some(Growing { profile, shape: Ok(()) });
                taken
            }
        } else {
            growing.shape.clone()?;
            growing.profile.with(self.g, p)
        };
        if !stays {
            self.check_limits(taken)?;
        }
        Ok((taken, anew))
    }

    /// Computes the op inside its consumers, unless it has to be stored.
    fn inlines(&mut self, p: usize, consumers: &BTreeSet<usize>, stays: bool) -> bool {
        let mut loaded = 0.0;
        let mut refused = Vec::new();
        let mut grown = Vec::with_capacity(consumers.len());
        for &c in consumers {
            match self.grown(p, c, stays) {
                Ok((taken, anew)) => {
                    loaded += taken.asked;
                    grown.push((c, anew));
                }
                Err(reason) => refused.push((c, reason)),
            }
        }
        if !refused.is_empty() {
            for (c, reason) in refused {
                let label = self.group_label(c);
                self.remark(p, &label, reason);
            }
            return false;
        }
        if !stays && let Some((again, stored)) = self.is_dearer(p, consumers.len(), loaded) {
            let label = consumers.iter().map(|&c| self.group_label(c)).collect::<Vec<_>>().join(", ");
            self.remark(p, &label, format!("computing it where it is used costs {again:.0}, storing it {stored:.0}"));
            return false;
        }
        for (c, anew) in grown {
            self.groups[c].members.insert(p);
            match anew {
                Some(anew) => self.growing[c] = anew,
                None => self.growing[c].profile.add(self.g, p),
            }
        }
        true
    }

    /// The costs of an op computed where it is used and of one stored, when storing is cheaper.
    fn is_dearer(&mut self, p: usize, consumers: usize, mut loaded: f64) -> Option<(f64, f64)> {
        /// What is not counted beyond.
        const MOST: f64 = 10_000.0;
        let value = self.g.value(p);
        let (elements, access) = (self.g.elements(value), self.g.access(value));
        if let Op::Reduce { axes, .. } = &self.g.node(p).op
            && !is_small(self.g.f, self.g.node(p), axes)
        {
            // Read from several loops of one kernel, a section is still computed once.
            loaded = loaded.min(elements * consumers as f64);
        }
        // One use of each element: storing never helps.
        if loaded <= elements {
            return None;
        }
        // From here on the answer is known.
        let enough = (access * (elements + loaded) + LAUNCH) / (loaded - elements) + 1.0;
        let cone = self.cones.cost(self.g, p, &self.stored, enough.min(MOST));
        let (again, stored) = (cone * loaded, cone * elements + access * (elements + loaded) + LAUNCH);
        (again > stored).then_some((again, stored))
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
        Group { members, outputs, ..Group::default() }
    }

    /// Operations of ops without copies; 0 where some are computed almost nowhere and don't count.
    pub(super) fn ops(&self, members: &BTreeSet<usize>) -> f64 {
        let rare = |m: &usize| (0..self.g.node(*m).operands().len()).any(|i| cost::is_rare(self.g.node(*m), i));
        if members.iter().any(rare) { 0.0 } else { members.iter().map(|&m| cost::ops(self.g.node(m))).sum() }
    }

    /// The operations that a body of both has at least, when they are too many.
    fn too_many(&self, a: usize, b: usize) -> Option<f64> {
        let (large, small) = match self.groups[a].members.len() >= self.groups[b].members.len() {
            true => (&self.groups[a], &self.groups[b]),
            false => (&self.groups[b], &self.groups[a]),
        };
        if large.ops == 0.0 || small.ops == 0.0 {
            return None;
        }
        let more = small.members.iter().filter(|m| !large.members.contains(m));
        let ops = large.ops + more.map(|&m| cost::ops(self.g.node(m))).sum::<f64>();
        (ops > self.limits.ops).then_some(ops)
    }

    /// Joins two groups when that is legal and cheaper.
    fn try_join(&mut self, a: usize, b: usize) -> bool {
        let (Some(&first), label) = (self.groups[a].outputs.first(), self.group_label(b)) else { return false };
        if let Some(ops) = self.too_many(a, b) {
            let limit = self.limits.ops;
            self.remark(first, &label, format!("{ops} operations in one body, the limit is {limit}"));
            return false;
        }
        let mut group = self.joined(a, b);
        let profile = match self.check(&group.members, &group.outputs) {
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
        (group.cost, group.ops) = (together, self.ops(&group.members));
        group.reads = self.reads(&group.members);
        for k in [a, b] {
            for read in std::mem::take(&mut self.groups[k].reads) {
                self.readers.entry(read).or_default().remove(&k);
            }
            let span = self.span(k);
            self.spans.remove(&span);
        }
        for &read in &group.reads {
            self.readers.entry(read).or_default().insert(a);
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
        self.groups[b] = Group::default();
        self.groups[a] = group;
        if self.groups[a].outputs.len() > 1 {
            let span = self.span(a);
            self.spans.insert(span);
        }
        true
    }

    /// First output, last op and number of a group.
    fn span(&self, k: usize) -> (usize, usize, usize) {
        let Group { outputs, members, .. } = &self.groups[k];
        (outputs.first().copied().unwrap_or(0), members.last().copied().unwrap_or(0), k)
    }

    /// What a group of these ops reads: values that it does not compute.
    pub(super) fn reads(&self, members: &BTreeSet<usize>) -> Vec<Value> {
        let mut reads = Vec::new();
        let mut seen: HashSet<Value> = HashSet::new();
        for &m in members {
            for &operand in self.g.node(m).operands() {
                let own = self.g.index(operand).is_some_and(|i| members.contains(&i));
                if !own && seen.insert(operand) {
                    reads.push(operand);
                }
            }
        }
        reads
    }

    /// Whether something outside the two needs one of them and is needed by one.
    fn makes_cycle(&self, a: usize, b: usize) -> bool {
        let stored_by_pair = |v: &Value| self.g.index(*v).and_then(|i| self.home[i]).is_some_and(|k| k == a || k == b);
        let first = [a, b].iter().filter_map(|&k| self.groups[k].outputs.first()).min();
        let mut reach = first.copied().unwrap_or(0);
        // Ops before the pair's outputs need none of them, unless they share a kernel with one that comes after.
        for &(output, last, _) in self.spans.range(..(reach, 0, 0)).rev() {
            if last >= reach {
                reach = output;
            }
        }
        // Backwards from what the pair reads of others.
        let mut open: Vec<Value> = [a, b].iter().flat_map(|&k| self.groups[k].reads.iter().copied()).collect();
        open.retain(|v| !stored_by_pair(v));
        let mut seen: HashSet<Value> = HashSet::new();
        while let Some(value) = open.pop() {
            let Some(i) = self.g.index(value).filter(|i| *i >= reach) else { continue };
            if !seen.insert(value) {
                continue;
            }
            if stored_by_pair(&value) {
                return true;
            }
            match self.home[i] {
                Some(k) => open.extend(&self.groups[k].reads),
                None => open.extend(self.g.node(i).operands()),
            }
        }
        false
    }

    /// Groups that read a value, in order.
    pub(super) fn readers(&self, value: Value) -> Vec<usize> {
        self.readers.get(&value).map(|k| k.iter().copied().collect()).unwrap_or_default()
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
