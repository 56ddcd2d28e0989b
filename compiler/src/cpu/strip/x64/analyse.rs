//! What is known of a strip before its code is written: which ops join others, which lanes need more than the usual.

use frit_ir::{BinaryOp, DType, UnaryOp};

use crate::cpu::strip::{Op, Strip, StripAcc, TypedOp, Val, operands};
use crate::kernel::Combine;

/// How one body is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Groups of 16 elements.
    pub(super) groups: usize,
    /// Vectors of each group: all, or one in a pass over one column.
    pub(super) copies: usize,
    /// Only some lanes count.
    pub(super) tail: bool,
    /// Which part; see [`Part`].
    pub(super) part: Part,
}

/// Bodies in which lanes may need a function come in two versions, when one look at few early values tells which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// All groups and vectors, each complete.
    Complete,
    /// All groups and vectors, for lanes that need no function; what does not hold leaves by [`Kind::Guard`].
    Usual,
    /// Only what is computed ahead, for the first vector.
    First,
    /// One group and vector, complete: where a guard leads.
    One(usize, usize),
    /// After all elements: the lanes of each accumulator as one. Its vectors have four lanes.
    Fold,
}

/// What the usual version of a body computes.
pub(super) struct Usual {
    /// What guards look at: computed first.
    pub(super) early: Vec<bool>,
    /// All else that is needed.
    pub(super) late: Vec<bool>,
    /// The conditions.
    pub(super) conditions: Vec<Val>,
    /// Of each value: what its magnitude does not exceed where the conditions hold, if they say so.
    bounds: Vec<Option<f32>>,
}

/// Most operations that a guard may look at.
const EARLY: usize = 12;

impl Usual {
    /// `None`: no lane needs a function, or that is not known early.
    pub(super) fn of(strip: &Strip) -> Option<Usual> {
        let mut conditions: Vec<Val> = Vec::new();
        let mut roots: Vec<Val> = strip.accs.iter().flat_map(StripAcc::operands).collect();
        for (i, typed) in strip.ops.iter().enumerate() {
            match typed.op {
                Op::Rescue { ok, .. } if !conditions.contains(&ok) => conditions.push(ok),
                Op::Store(..) => roots.push(i as Val),
                _ => {}
            }
        }
        // Operands that the usual version needs.
        let usual = |op: &Op| match *op {
            Op::Rescue { value, .. } => vec![value],
            Op::Select(c, value, _) if conditions.contains(&c) => vec![value],
            _ => operands(op).collect(),
        };
        let closure = |roots: &[Val], follow: &dyn Fn(&Op) -> Vec<Val>| {
            let mut needed = vec![false; strip.ops.len()];
            let mut open = roots.to_vec();
            while let Some(v) = open.pop() {
                let (Some(slot), Some(typed)) = (needed.get_mut(v as usize), strip.ops.get(v as usize)) else {
                    continue;
                };
                if !std::mem::replace(slot, true) {
                    open.extend(follow(&typed.op));
                }
            }
            needed
        };
        let early = closure(&conditions, &|op| operands(op).collect());
        let rare = |(i, needed): (usize, &bool)| {
            *needed && strip.ops.get(i).is_some_and(|o| matches!(o.op, Op::Rescue { .. } | Op::Store(..)))
        };
        let count = early.iter().filter(|e| **e).count();
        if conditions.is_empty() || count > EARLY || early.iter().enumerate().any(rare) {
            return None;
        }
        let late = closure(&roots, &usual);
        let bounds = bounds(strip, &conditions);
        Some(Usual { early, late, conditions, bounds })
    }

    /// What a clamp gives that a bound makes idle.
    ///
    /// A bound comes from a condition on a value of its own, and values follow their operands: where a guard passes
    /// although its condition was computed without clamps, all conditions hold with them too.
    pub(super) fn clamped(&self, strip: &Strip, condition: Val, a: Val, b: Val) -> Option<Val> {
        idle(strip, &self.bounds, condition, a, b).map(|(value, _)| value)
    }
}

/// `a < b ? a : b`, or the larger of both, where a bound says which of a constant and a value it is: the value, and its
/// bound.
fn idle(strip: &Strip, bounds: &[Option<f32>], condition: Val, a: Val, b: Val) -> Option<(Val, f32)> {
    let Some(Op::Binary(BinaryOp::Lt, p, q)) = strip.ops.get(condition as usize).map(|o| o.op) else { return None };
    let constant = |v: Val| match strip.ops.get(v as usize).map(|o| (o.op, o.dtype)) {
        Some((Op::Const(c), DType::F32)) => Some(c.to_f32()),
        _ => None,
    };
    let (limit, value) = match (constant(p), constant(q)) {
        (Some(limit), None) => (limit, q),
        (None, Some(limit)) => (limit, p),
        _ => return None,
    };
    let bound = (*bounds.get(value as usize)?)?;
    let holds = if (a, b) == (p, q) { limit > bound } else { (a, b) == (q, p) && limit < -bound };
    holds.then_some((value, bound))
}

/// What conditions `|v| <= constant` say of v, -v, |v| and idle clamps of them.
fn bounds(strip: &Strip, conditions: &[Val]) -> Vec<Option<f32>> {
    let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
    let mut bounds = vec![None; strip.ops.len()];
    let mut open = conditions.to_vec();
    let mut seen = vec![false; strip.ops.len()];
    while let Some(v) = open.pop() {
        if seen.get_mut(v as usize).is_none_or(|s| std::mem::replace(s, true)) {
            continue;
        }
        match op(v) {
            Some(Op::Binary(BinaryOp::And, a, b)) => open.extend([a, b]),
            Some(Op::Binary(BinaryOp::Le | BinaryOp::Lt, a, b)) => {
                if let (Some(Op::Unary(UnaryOp::Abs, x)), Some(Op::Const(limit))) = (op(a), op(b))
                    && limit.dtype == DType::F32
                    && let Some(bound) = bounds.get_mut(x as usize)
                {
                    *bound = Some(limit.to_f32());
                }
            }
            _ => {}
        }
    }
    for (i, typed) in strip.ops.iter().enumerate() {
        let found = match typed.op {
            Op::Unary(UnaryOp::Neg | UnaryOp::Abs, x) => bounds.get(x as usize).copied().flatten(),
            Op::Select(c, a, b) => idle(strip, &bounds, c, a, b).map(|(_, bound)| bound),
            _ => None,
        };
        if let Some(bound @ None) = bounds.get_mut(i) {
            *bound = found;
        }
    }
    bounds
}

/// Whether an accumulator takes extremes of what is never negative nor -0: squares and magnitudes.
///
/// As integers without sign such numbers have the order that they have as numbers, and every NaN is larger: so the
/// largest is the integers' maximum, where NaN wins by itself. The least is [`INFINITY`] less the largest of what is
/// left up to it: a NaN wraps around, to where it is larger than all that numbers give.
pub(super) fn of_magnitudes(strip: &Strip, acc: &StripAcc) -> bool {
    let value = strip.ops.get(acc.value as usize);
    let never_negative = |op: &TypedOp| match op.op {
        Op::Binary(BinaryOp::Mul, a, b) => a == b && op.dtype == DType::F32,
        Op::Unary(UnaryOp::Abs, _) => op.dtype == DType::F32,
        _ => false,
    };
    matches!(acc.combine, Combine::Min | Combine::Max) && value.is_some_and(never_negative)
}

/// The bits of the largest f32 that is no NaN.
pub(super) const INFINITY: u32 = f32::INFINITY.to_bits();

/// The least or largest of values, or NaN, on its way to an accumulator: `condition ? best : nan`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded {
    /// Position of the select.
    pub(super) at: usize,
    pub(super) condition: Val,
    /// Where the condition holds: a number, and not -0.
    pub(super) best: Val,
    pub(super) nan: Val,
}

/// Of each accumulator of extremes: what it takes, if that can only be NaN where a condition says so and is never -0.
/// Then x86's own minimum and maximum do: they err only for these.
pub(super) fn guarded(strip: &Strip) -> Vec<Option<Guarded>> {
    let mut uses = vec![0_u32; strip.ops.len()];
    let reads = strip.ops.iter().flat_map(|o| operands(&o.op)).chain(strip.accs.iter().flat_map(StripAcc::operands));
    for v in reads {
        if let Some(n) = uses.get_mut(v as usize) {
            *n += 1;
        }
    }
    let find = |acc: &StripAcc| {
        let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
        let (Combine::Min | Combine::Max, Some(Op::Select(condition, best, nan))) = (acc.combine, op(acc.value)) else {
            return None;
        };
        let is_nan = matches!(op(nan), Some(Op::Const(c)) if c.dtype == DType::F32 && c.to_f32().is_nan());
        if !is_nan || uses.get(acc.value as usize) != Some(&1) {
            return None;
        }
        let (mut numbers, mut seen) = (vec![false; strip.ops.len()], vec![false; strip.ops.len()]);
        let mut open = vec![condition];
        while let Some(v) = open.pop() {
            match op(v) {
                _ if seen.get_mut(v as usize).is_none_or(|s| std::mem::replace(s, true)) => {}
                Some(Op::Binary(BinaryOp::And, a, b)) => open.extend([a, b]),
                Some(Op::Binary(BinaryOp::Eq, a, b)) if a == b => {
                    if let Some(number) = numbers.get_mut(a as usize) {
                        *number = true;
                    }
                }
                _ => {}
            }
        }
        seen.fill(false);
        open.push(best);
        while let Some(v) = open.pop() {
            if seen.get_mut(v as usize).is_none_or(|s| std::mem::replace(s, true)) {
                continue;
            }
            match op(v) {
                Some(Op::Select(c, a, b)) if matches!(op(c), Some(Op::Binary(BinaryOp::Lt, p, q)) if (a, b) == (p, q) || (a, b) == (q, p)) =>
                {
                    open.extend([a, b]);
                }
                Some(Op::Binary(BinaryOp::Mul, a, b)) if a == b && numbers.get(v as usize) == Some(&true) => {}
                Some(Op::Unary(UnaryOp::Abs, _)) if numbers.get(v as usize) == Some(&true) => {}
                _ => return None,
            }
        }
        Some(Guarded { at: acc.value as usize, condition, best, nan })
    };
    strip.accs.iter().map(find).collect()
}

/// What becomes part of the instruction of its only user: in `a < b ? a : b` the comparison is x86's own minimum, in
/// `a == a and b == b` both are one comparison for NaN, and of what a fused multiply-add takes one sign may be changed.
pub(super) fn absorbed(strip: &Strip, uses: &[u32]) -> Vec<bool> {
    let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
    let is_f32 = |v: Val| strip.ops.get(v as usize).is_some_and(|o| o.dtype == DType::F32);
    let once = |v: Val| uses.get(v as usize) == Some(&1);
    // How often a value is the one negated factor that a fused multiply-add can take.
    let mut factors = vec![0; strip.ops.len()];
    for typed in &strip.ops {
        if let Op::Fma(a, b, c) = typed.op
            && a != b
            && ![a, b].contains(&c)
            && let Some(v) = [a, b].into_iter().find(|v| matches!(op(*v), Some(Op::Unary(UnaryOp::Neg, _))))
            && let Some(n) = factors.get_mut(v as usize)
        {
            *n += 1;
        }
    }
    let mut absorbed = vec![false; strip.ops.len()];
    for typed in &strip.ops {
        let parts = match typed.op {
            Op::Select(c, a, b) if is_f32(a) && once(c) => match op(c) {
                Some(Op::Binary(BinaryOp::Lt, p, q)) if (a, b) == (p, q) || (a, b) == (q, p) => [Some(c), None],
                _ => continue,
            },
            Op::Binary(BinaryOp::And, c, d) if c != d && once(c) && once(d) => match (op(c), op(d)) {
                (Some(Op::Binary(BinaryOp::Eq, a, p)), Some(Op::Binary(BinaryOp::Eq, b, q)))
                    if a == p && b == q && is_f32(a) && is_f32(b) =>
                {
                    [Some(c), Some(d)]
                }
                _ => continue,
            },
            Op::Fma(a, b, c) => {
                let negated = |v: Val| is_f32(v) && matches!(op(v), Some(Op::Unary(UnaryOp::Neg, _)));
                let factor =
                    [a, b].into_iter().find(|v| negated(*v) && factors.get(*v as usize) == uses.get(*v as usize));
                [factor.or(Some(c).filter(|c| negated(*c) && once(*c))), None]
            }
            _ => continue,
        };
        for c in parts.into_iter().flatten() {
            if let Some(absorbed) = absorbed.get_mut(c as usize) {
                *absorbed = true;
            }
        }
    }
    absorbed
}

/// With mask registers also sums, differences, products and quotients that only one side of a choice takes: the other
/// side's register is left as it is where they do not count.
pub(super) fn merged(strip: &Strip, uses: &[u32], absorbed: &mut [bool]) {
    let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
    // In bodies for lanes that need no function those choices are not made.
    let is_guard = |c: Val| strip.ops.iter().any(|o| matches!(o.op, Op::Rescue { ok, .. } if ok == c));
    for typed in strip.ops.iter().filter(|o| o.dtype == DType::F32) {
        let Op::Select(c, a, _) = typed.op else { continue };
        let arithmetic =
            matches!(op(a), Some(Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div, ..)));
        let own = uses.get(a as usize) == Some(&1) && absorbed.get(c as usize) == Some(&false);
        if arithmetic
            && own
            && !is_guard(c)
            && let Some(slot) = absorbed.get_mut(a as usize)
        {
            *slot = true;
        }
    }
}

/// Of each value, the last op that reads it, by itself or for what it absorbs; accumulators read with the op that makes
/// the last of their operands.
pub(super) fn reach(strip: &Strip, absorbed: &[bool]) -> Vec<usize> {
    let mut reach = vec![0; strip.ops.len()];
    let mut read = |v: Val, at: usize| {
        if let Some(slot) = reach.get_mut(v as usize) {
            *slot = at.max(*slot);
        }
        reach.get(v as usize).copied()
    };
    for acc in &strip.accs {
        let at = acc.operands().max().unwrap_or(0) as usize;
        acc.operands().for_each(|v| {
            read(v, at);
        });
    }
    for (i, typed) in strip.ops.iter().enumerate().rev() {
        let at = if absorbed.get(i) == Some(&true) { read(i as Val, i).unwrap_or(i) } else { i };
        operands(&typed.op).for_each(|v| {
            read(v, at);
        });
    }
    reach
}
