//! The order of a strip's ops: what is computed for one result is used up before the next is begun.
//!
//! In: a strip whose results (accumulators, stores) share parts, in whatever order they were written. Out: the same ops
//! in an order that keeps fewer values alive, if there is one. A gradient asks three things of each of six bases:
//! written down by question, the parts of all six are alive at once, and registers run out; basis by basis they fit.
//!
//! What holds: stores keep their order, and no load that came before a store comes after it.

use std::borrow::Cow;

use frit_ir::{BinaryOp, DType};

use super::{Op, Strip, TypedOp, Val, operands};

/// Sets of ops, a bit each.
type Bits = Vec<u64>;

/// Below so many live values nothing is to be gained.
const FEW: usize = 10;

/// The strip in the better order.
pub(super) fn scheduled(strip: &Strip) -> Cow<'_, Strip> {
    let before = most_alive(strip);
    if before <= FEW {
        return Cow::Borrowed(strip);
    }
    let other = by_result(strip);
    if most_alive(&other) < before { Cow::Owned(other) } else { Cow::Borrowed(strip) }
}

/// The strip in the order of its results.
pub(super) fn by_result(strip: &Strip) -> Strip {
    // Products of accumulators, which come last here, are no ops of the strip.
    let mut by_result = order(&with_products(strip));
    by_result.retain(|i| *i < strip.ops.len());
    with_ops(strip, &by_result, &|v| v)
}

/// The strip of some of its ops, in this order; `same` says which of them gives a value.
pub(super) fn with_ops(strip: &Strip, kept: &[usize], same: &dyn Fn(Val) -> Val) -> Strip {
    let mut place = vec![0; strip.ops.len()];
    for (new, old) in kept.iter().enumerate() {
        if let Some(slot) = place.get_mut(*old) {
            *slot = new as Val;
        }
    }
    let moved = |v: Val| place.get(same(v) as usize).copied().unwrap_or(v);
    let mut out = Strip { ops: Vec::with_capacity(kept.len()), ..strip.clone() };
    for typed in kept.iter().filter_map(|i| strip.ops.get(*i)) {
        out.ops.push(TypedOp { op: renamed(typed.op, &moved), ..*typed });
    }
    for acc in &mut out.accs {
        (acc.value, acc.factor) = (moved(acc.value), acc.factor.map(&moved));
    }
    out
}

/// The strip with an op for each product that an accumulator takes: its factors stay alive until it has both.
fn with_products(strip: &Strip) -> Cow<'_, Strip> {
    if strip.accs.iter().all(|acc| acc.factor.is_none()) {
        return Cow::Borrowed(strip);
    }
    let mut all = strip.clone();
    for acc in &mut all.accs {
        if let Some(factor) = acc.factor.take() {
            all.ops.push(TypedOp { op: Op::Binary(BinaryOp::Mul, acc.value, factor), dtype: DType::F32 });
            acc.value = all.ops.len() as Val - 1;
        }
    }
    Cow::Owned(all)
}

fn renamed(op: Op, moved: &dyn Fn(Val) -> Val) -> Op {
    match op {
        Op::Const(_) | Op::Param(_) | Op::Load(_) => op,
        Op::Store(s, v) => Op::Store(s, moved(v)),
        Op::Unary(u, v) => Op::Unary(u, moved(v)),
        Op::Binary(b, x, y) => Op::Binary(b, moved(x), moved(y)),
        Op::Select(c, x, y) => Op::Select(moved(c), moved(x), moved(y)),
        Op::Fma(x, y, z) => Op::Fma(moved(x), moved(y), moved(z)),
        Op::Cast { value, saturate } => Op::Cast { value: moved(value), saturate },
        Op::Rescue { ok, value, op, x } => Op::Rescue { ok: moved(ok), value: moved(value), op, x: moved(x) },
        Op::Bitcast(v) => Op::Bitcast(moved(v)),
    }
}

/// Ops, result by result, always that which leaves fewest values alive.
fn order(strip: &Strip) -> Vec<usize> {
    let count = strip.ops.len();
    let words = count.div_ceil(64);
    let mut needs: Vec<Bits> = Vec::with_capacity(count);
    let mut loads: Bits = vec![0; words];
    for (i, typed) in strip.ops.iter().enumerate() {
        let mut need: Bits = vec![0; words];
        for v in operands(&typed.op) {
            let of = needs.get(v as usize).map_or(&[][..], Vec::as_slice);
            need.iter_mut().zip(of).for_each(|(a, b)| *a |= b);
        }
        // Loads that come before a store stay there.
        if matches!(typed.op, Op::Store(..)) {
            need.iter_mut().zip(&loads).for_each(|(a, b)| *a |= b);
        }
        for set in [Some(&mut need), matches!(typed.op, Op::Load(_)).then_some(&mut loads)].into_iter().flatten() {
            if let Some(word) = set.get_mut(i / 64) {
                *word |= 1 << (i % 64);
            }
        }
        needs.push(need);
    }
    let stores: Vec<usize> = (0..count).filter(|i| matches!(strip.ops[*i].op, Op::Store(..))).collect();
    let mut stores = stores.into_iter().peekable();
    let mut left: Vec<usize> = strip.accs.iter().map(|acc| acc.value as usize).collect();
    left.sort_unstable();
    left.dedup();
    let mut alive = Alive::of(strip);
    let (mut done, mut order): (Bits, Vec<usize>) = (vec![0; words], Vec::with_capacity(count));
    loop {
        // What is left to compute for a result, in order.
        let more = |root: usize| -> Vec<usize> {
            let need = needs.get(root).map_or(&[][..], Vec::as_slice);
            let new = need.iter().zip(&done).map(|(need, done)| need & !done).enumerate();
            new.flat_map(|(word, new)| (0..64).filter(move |bit| new >> bit & 1 == 1).map(move |bit| 64 * word + bit))
                .collect()
        };
        let each = left.iter().chain(stores.peek()).map(|root| {
            let ops = more(*root);
            (alive.after(&ops), ops.len(), *root, ops)
        });
        let Some((_, _, root, ops)) = each.min() else { break };
        ops.iter().for_each(|i| alive.step(*i));
        left.retain(|other| *other != root);
        stores.next_if_eq(&root);
        if let Some(need) = needs.get(root) {
            done.iter_mut().zip(need).for_each(|(done, need)| *done |= need);
        }
        order.extend(ops);
    }
    order
}

/// Values that are alive as ops are done one by one: those that lie in memory, and accumulators, do not count.
struct Alive<'s> {
    strip: &'s Strip,
    /// Uses of each value that are to come.
    left: Vec<u32>,
    now: usize,
    most: usize,
}

impl Alive<'_> {
    fn of(strip: &Strip) -> Alive<'_> {
        let mut left = vec![0_u32; strip.ops.len()];
        for v in strip.ops.iter().flat_map(|typed| operands(&typed.op)) {
            if let Some(n) = left.get_mut(v as usize) {
                *n += 1;
            }
        }
        Alive { strip, left, now: 0, most: 0 }
    }

    fn step(&mut self, i: usize) {
        let Some(typed) = self.strip.ops.get(i) else { return };
        for v in operands(&typed.op) {
            if let Some(n) = self.left.get_mut(v as usize) {
                *n -= 1;
                let uniform = matches!(self.strip.ops.get(v as usize).map(|o| o.op), Some(Op::Const(_) | Op::Param(_)));
                self.now = self.now.saturating_sub(usize::from(*n == 0 && !uniform));
            }
        }
        let counts = !matches!(typed.op, Op::Const(_) | Op::Param(_) | Op::Store(..));
        self.most = self.most.max(self.now + usize::from(counts));
        self.now += usize::from(counts && self.left.get(i).is_some_and(|n| *n > 0));
    }

    /// How many would be alive after some more ops.
    fn after(&mut self, ops: &[usize]) -> usize {
        let (now, most) = (self.now, self.most);
        ops.iter().for_each(|i| self.step(*i));
        let after = self.now;
        for v in ops.iter().filter_map(|i| self.strip.ops.get(*i)).flat_map(|typed| operands(&typed.op)) {
            if let Some(n) = self.left.get_mut(v as usize) {
                *n += 1;
            }
        }
        (self.now, self.most) = (now, most);
        after
    }
}

/// The most values that are alive at once.
pub(super) fn most_alive(strip: &Strip) -> usize {
    let strip = with_products(strip);
    let mut alive = Alive::of(&strip);
    (0..strip.ops.len()).for_each(|i| alive.step(i));
    alive.most
}
