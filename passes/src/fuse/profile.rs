//! How often a kernel computes its values, and what its body takes: built from the last op to the first.
//!
//! In: the ops of a kernel and which of them it stores. Out: elements asked of each value, the cost of the kernel, the
//! operations of its body once written out, the values that live at once. [`Profile::add`] takes one op more before all
//! others and costs as much as the op has operands, so that a group may grow op by op.
//!
//! A body computes a value once for each index that its users ask it at ([`Place`]): users that are elementwise share
//! one, two slices with other starts don't, each operand of a concat is asked apart. So what doubles at every level
//! (`v = concat(v, v)`) has as many copies as the code that the compiler would write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use frit_ir::types::Dim;
use frit_ir::{Node, Op, OpClass, Value};

use super::cost::{LAUNCH, is_rare, ops, reduced};
use super::former::Graph;
use super::{SMALL_REDUCE, is_small, keeps_order};

/// Places of one value that are told apart; the copies at others are only counted.
const MOST_PLACES: usize = 16;

/// What makes a kernel compute a value: a level of its sections, the loop over outputs, or an output of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Feed {
    Level(usize),
    Elements,
    Row,
}

/// An index that a value is asked at, by number.
type Place = u32;

/// The index of an output or a section.
const ROOT: Place = 0;
/// All indices that are not told apart.
const OTHERS: Place = 1;

/// How an index follows from another. Places along rows and what repeats or reduces them are not told apart: their
/// copies multiply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// Those that follow from none.
    Start,
    /// Op `1` asks for its operand `2`, as only it does.
    Through(Place, usize, usize),
    /// Moved by so much along each axis, to an index of a value of these extents (slice, pad, concat).
    Moved(Place, Vec<i64>, Vec<Dim>),
    /// Axes of a value of these extents change places.
    Turned(Place, Vec<usize>, Vec<Dim>),
}

/// Elements and copies that users ask of a value.
#[derive(Clone, Debug, Default)]
struct Asked {
    elements: f64,
    /// Sorted.
    feeds: Vec<Feed>,
    /// Copies at each place.
    places: Vec<(Place, f64)>,
}

impl Asked {
    fn once(elements: f64, feed: Feed) -> Asked {
        Asked { elements, feeds: vec![feed], places: vec![(ROOT, 1.0)] }
    }

    fn join(&mut self, elements: f64, feeds: &[Feed], places: &[(Place, f64)]) {
        self.elements = self.elements.max(elements);
        for &feed in feeds {
            if let Err(at) = self.feeds.binary_search(&feed) {
                self.feeds.insert(at, feed);
            }
        }
        for &(place, copies) in places {
            let known = self.places.len();
            match self.places.iter_mut().find(|(p, _)| *p == place) {
                Some((_, most)) => *most = most.max(copies),
                None if known > MOST_PLACES => self.places[MOST_PLACES].1 += copies,
                None if known == MOST_PLACES => self.places.push((OTHERS, copies)),
                None => self.places.push((place, copies)),
            }
        }
    }

    fn copies(&self) -> f64 {
        self.places.iter().map(|(_, copies)| copies).sum()
    }

    fn factor(&self) -> f64 {
        1.0 + 0.5 * (self.feeds.len().max(1) - 1) as f64
    }
}

/// What adding an op would make of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Elements that the kernel asks of it.
    pub(super) asked: f64,
    /// Operations of the body once written out.
    pub(super) ops: f64,
    /// Most values that live at once.
    pub(super) live: usize,
}

/// What an op does in a kernel.
struct Demand {
    asked: f64,
    work: f64,
    /// Its operations in all copies.
    body: f64,
    /// Elements that a result combines, and how many of them are written out.
    times: f64,
    unrolled: f64,
    own: Asked,
}

/// The profile of a kernel.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// How deep each section lies.
    levels: HashMap<usize, usize>,
    /// What computes each output.
    feeds: HashMap<usize, Feed>,
    asked: HashMap<Value, Asked>,
    /// Elements computed of each member in all loops, from the last to the first.
    work: Vec<(usize, f64)>,
    /// Operations of the body once written out.
    body: f64,
    ways: Vec<Way>,
    places: HashMap<Way, Place>,
    /// The last user of each op inside.
    last: HashMap<usize, usize>,
    /// Values alive at each member that counts, from the last to the first.
    alive: Vec<(usize, usize)>,
    live: usize,
}

impl Profile {
    /// The profile of a kernel of these ops and outputs, by index in the graph.
    pub(super) fn of(g: &Graph<'_>, members: &BTreeSet<usize>, outputs: &BTreeSet<usize>) -> Profile {
        let (levels, depth) = levels(g, members);
        let feeds = outputs.iter().map(|&m| (m, output_feed(g, &levels, &depth, m))).collect();
        let mut profile = Profile { levels, feeds, ways: vec![Way::Start; 2], ..Profile::default() };
        for &m in members.iter().rev() {
            profile.add(g, m);
        }
        profile
    }

    /// What would come of an op before all others that is no output.
    pub(super) fn with(&self, g: &Graph<'_>, m: usize) -> Taken {
        let demand = self.demand(g, m);
        Taken { asked: demand.asked, ops: self.body + demand.body, live: self.live_with(g, m) }
    }

    /// What the kernel takes as it is, and what it asks of one of its ops.
    pub(super) fn taken(&self, g: &Graph<'_>, m: Option<usize>) -> Taken {
        let asked = m.and_then(|m| self.asked.get(&g.value(m))).map_or(0.0, |a| a.elements * a.factor());
        Taken { asked, ops: self.body, live: self.live }
    }

    /// Whether the profile may take the op by [`Profile::add`]: one that opens a section changes what lies below it.
    pub(super) fn takes(g: &Graph<'_>, m: usize) -> bool {
        !is_section(g, g.node(m))
    }

    /// Takes an op before all others.
    pub(super) fn add(&mut self, g: &Graph<'_>, m: usize) {
        let node = g.node(m);
        let demand = self.demand(g, m);
        if let Some(&feed) = self.feeds.get(&m) {
            // Who asks for an output by name finds that too.
            let elements = g.elements(g.value(m));
            self.asked.entry(g.value(m)).or_default().join(elements, &[feed], &[(ROOT, 1.0)]);
        }
        self.live = self.live_with(g, m);
        if counts(g, m) {
            let until = self.last.get(&m).copied().unwrap_or(m);
            for (_, alive) in self.alive.iter_mut().rev().take_while(|(at, _)| *at <= until) {
                *alive += 1;
            }
            self.alive.push((m, 1));
        }
        self.work.push((m, demand.work));
        self.body += demand.body;
        for (slot, &operand) in node.operands().iter().enumerate() {
            if let Some(i) = g.index(operand) {
                self.last.entry(i).or_insert(m);
            }
            if is_rare(node, slot) {
                self.asked.entry(operand).or_default().join(0.0, &demand.own.feeds, &[]);
                continue;
            }
            let held = g.elements(operand);
            let mut elements = demand.own.elements * demand.times;
            if held == 1.0 || (repeats_innermost(g, node) && held < elements) {
                elements = held;
            }
            let places = self.places_of(g, m, slot, &demand.own, demand.unrolled);
            self.asked.entry(operand).or_default().join(elements, &demand.own.feeds, &places);
        }
    }

    fn demand(&self, g: &Graph<'_>, m: usize) -> Demand {
        let (value, node) = (g.value(m), g.node(m));
        let mut own = self.asked.get(&value).cloned().unwrap_or_default();
        if let Some(&feed) = self.feeds.get(&m) {
            own.join(g.elements(value), &[feed], &[(ROOT, 1.0)]);
        }
        let asked = own.elements * own.factor();
        let level = self.levels.get(&m);
        let times = match &node.op {
            Op::Reduce { axes, .. } => reduced(g, node, axes),
            _ => 1.0,
        };
        if let Some(&level) = level {
            // A section runs once, whoever uses it, and hardly ever where all of them seldom do.
            let run = if own.elements > 0.0 { g.elements(value) } else { 0.0 };
            own = Asked::once(run, Feed::Level(level));
        }
        let unrolled = if level.is_some() { 1.0 } else { times };
        let body = match ops(node) {
            // Any number of copies of what costs nothing.
            0.0 => 0.0,
            ops => ops * own.copies() * own.feeds.len().max(1) as f64 * unrolled,
        };
        Demand { asked, work: own.elements * own.factor() * times, body, times, unrolled, own }
    }

    /// Where an op that is asked for at `own` places asks for its operand.
    fn places_of(&mut self, g: &Graph<'_>, m: usize, slot: usize, own: &Asked, unrolled: f64) -> Vec<(Place, f64)> {
        let node = g.node(m);
        let operand = node.operands().get(slot).map_or(&[][..], |v| g.dims(*v));
        let by = offsets(g, node, slot);
        let mut places: Vec<(Place, f64)> = Vec::with_capacity(own.places.len());
        for &(place, copies) in &own.places {
            let way = match &node.op {
                Op::Transpose { perm } if !keeps_order(operand, perm) => {
                    Some(Way::Turned(place, perm.clone(), operand.to_vec()))
                }
                Op::Transpose { .. } | Op::Reshape { .. } | Op::Broadcast { .. } | Op::Reduce { .. } => None,
                op if op.class() == OpClass::Elementwise => None,
                _ => Some(match &by {
                    Some(by) => self.moved(place, by, g.dims(g.value(m)), operand),
                    None => Way::Through(place, m, slot),
                }),
            };
            let next = match way {
                None => place,
                Some(Way::Moved(from, by, _)) if by.iter().all(|o| *o == 0) => from,
                Some(way) => self.place(way),
            };
            places.push((next, copies * unrolled));
        }
        places
    }

    /// Two moves are one.
    fn moved(&self, place: Place, by: &[i64], from: &[Dim], to: &[Dim]) -> Way {
        match self.ways.get(place as usize) {
            Some(Way::Moved(start, before, dims)) if dims == from => {
                let by = before.iter().zip(by).map(|(a, b)| a.saturating_add(*b)).collect();
                Way::Moved(*start, by, to.to_vec())
            }
            _ => Way::Moved(place, by.to_vec(), to.to_vec()),
        }
    }

    fn place(&mut self, way: Way) -> Place {
        let next = self.ways.len() as Place;
        let place = *self.places.entry(way.clone()).or_insert(next);
        if place == next {
            self.ways.push(way);
        }
        place
    }

    /// Most values that live at once when the body runs from top to bottom and `m` comes first.
    fn live_with(&self, g: &Graph<'_>, m: usize) -> usize {
        if !counts(g, m) {
            return self.live;
        }
        let until = self.last.get(&m).copied().unwrap_or(m);
        let below = self.alive.iter().rev().take_while(|(at, _)| *at <= until).map(|(_, alive)| alive + 1).max();
        self.live.max(below.unwrap_or(1))
    }

    /// Cost of the kernel: operations, loads, stores, its start.
    pub(super) fn cost(&self, g: &Graph<'_>, outputs: &BTreeSet<usize>) -> f64 {
        let work: f64 = self.work.iter().rev().map(|&(m, elements)| ops(g.node(m)) * elements).sum();
        let inside: BTreeSet<Value> = self.work.iter().map(|&(m, _)| g.value(m)).collect();
        let read: BTreeMap<Value, &Asked> =
            self.asked.iter().filter(|(v, _)| !inside.contains(v)).map(|(v, asked)| (*v, asked)).collect();
        let loads: f64 = read.iter().map(|(&v, asked)| g.access(v) * (asked.elements * asked.factor())).sum();
        let stores: f64 = outputs.iter().map(|&o| g.access(g.value(o)) * g.elements(g.value(o))).sum();
        work + loads + stores + LAUNCH
    }
}

/// How far an op moves the index along each axis, when it does nothing else and that is known.
fn offsets(g: &Graph<'_>, node: &Node, slot: usize) -> Option<Vec<i64>> {
    let back = |d: &Dim| d.known().and_then(i64::checked_neg);
    match &node.op {
        Op::Slice { starts, steps, .. } if steps.iter().all(|s| *s == 1) => starts.iter().map(Dim::known).collect(),
        Op::Pad { low, .. } if slot == 0 => low.iter().map(back).collect(),
        Op::Concat { axis } => {
            let before = node.operands().get(..slot)?;
            let start = before.iter().map(|v| g.dims(*v).get(*axis)?.known()).sum::<Option<i64>>()?;
            let rank = g.dims(*node.operands().get(slot)?).len();
            Some((0..rank).map(|a| if a == *axis { -start } else { 0 }).collect())
        }
        _ => None,
    }
}

fn is_section(g: &Graph<'_>, node: &Node) -> bool {
    matches!(&node.op, Op::Reduce { axes, .. } if !is_small(g.f, node, axes))
}

/// Whether a value takes a register while it lives.
fn counts(g: &Graph<'_>, m: usize) -> bool {
    ops(g.node(m)) > 0.0 && g.elements(g.value(m)) > 1.0
}

/// What computes an output (F7): a map kernel has one loop; a row kernel has one for what is left after its passes, which
/// store what needs none of their own reductions, and computes row values outside of them.
fn output_feed(g: &Graph<'_>, levels: &HashMap<usize, usize>, depth: &HashMap<usize, usize>, m: usize) -> Feed {
    let Some((&section, _)) = levels.iter().min() else { return Feed::Elements };
    let elements = g.elements(g.value(m));
    if elements <= g.elements(g.value(section)) {
        return Feed::Row;
    }
    let all = g.node(section).operands().first().map_or(0.0, |v| g.elements(*v));
    let n = all / elements.max(1.0);
    let own = depth.get(&m).copied().unwrap_or(0);
    let in_pass = n == 1.0 || (own == 0 && n.fract() == 0.0 && n <= SMALL_REDUCE as f64);
    let last = levels.values().max().copied().unwrap_or(0);
    if in_pass && own < last { Feed::Level(own + 1) } else { Feed::Elements }
}

/// How many sections deep each section lies, and each op.
fn levels(g: &Graph<'_>, members: &BTreeSet<usize>) -> (HashMap<usize, usize>, HashMap<usize, usize>) {
    let mut depth: HashMap<usize, usize> = HashMap::new();
    let mut levels = HashMap::new();
    if !members.iter().any(|&m| is_section(g, g.node(m))) {
        return (levels, depth);
    }
    for &m in members {
        let node = g.node(m);
        let above = node.operands().iter().filter_map(|v| depth.get(&g.index(*v)?)).max().copied().unwrap_or(0);
        let own = above + usize::from(is_section(g, node));
        if own > above {
            levels.insert(m, own);
        }
        depth.insert(m, own);
    }
    (levels, depth)
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
