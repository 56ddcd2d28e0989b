//! What is known of a strip before its code is written: which ops join others, which lanes need more than the usual.

use frit_ir::{BinaryOp, DType};

use crate::cpu::strip::{Op, Strip, Val};

/// How one body is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Groups of 16 elements.
    pub(super) groups: usize,
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
    /// One group and vector, complete: where a guard leads.
    One(usize, usize),
}

/// What the usual version of a body computes.
pub(super) struct Usual {
    /// What guards look at: computed first.
    pub(super) early: Vec<bool>,
    /// All else that is needed.
    pub(super) late: Vec<bool>,
    /// The conditions.
    pub(super) conditions: Vec<Val>,
}

/// Most operations that a guard may look at.
const EARLY: usize = 12;

impl Usual {
    /// `None`: no lane needs a function, or that is not known early.
    pub(super) fn of(strip: &Strip) -> Option<Usual> {
        let mut conditions: Vec<Val> = Vec::new();
        let mut roots: Vec<Val> = strip.accs.iter().map(|acc| acc.value).collect();
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
        Some(Usual { early, late, conditions })
    }
}

/// The operands of an op.
pub(super) fn operands(op: &Op) -> impl Iterator<Item = Val> + use<> {
    let all = match *op {
        Op::Const(_) | Op::Param(_) | Op::Load(_) => [None; 3],
        Op::Store(_, v) | Op::Unary(_, v) | Op::Cast { value: v, .. } | Op::Bitcast(v) => [Some(v), None, None],
        Op::Binary(_, a, b) => [Some(a), Some(b), None],
        Op::Select(a, b, c) | Op::Fma(a, b, c) | Op::Rescue { ok: a, value: b, x: c, .. } => {
            [Some(a), Some(b), Some(c)]
        }
    };
    all.into_iter().flatten()
}

/// Comparisons that become part of the instruction of their only user: `a < b ? a : b` is x86's own minimum, and
/// `a == a and b == b` is one comparison for NaN.
pub(super) fn absorbed(strip: &Strip, uses: &[u32]) -> Vec<bool> {
    let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
    let is_f32 = |v: Val| strip.ops.get(v as usize).is_some_and(|o| o.dtype == DType::F32);
    let once = |v: Val| uses.get(v as usize) == Some(&1);
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
