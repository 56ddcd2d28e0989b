//! What a long body computes one vector ahead.
//!
//! A body that begins with a few long chains that all else waits for (the exponentials of a basis) leaves the machine
//! idle: what comes next is too far away for it to see. So the main loop computes those chains for the next vector while
//! it uses those of this one:
//!
//! ```text
//!  chains(0); loop { next = chains(k + 1); rest(k, now); now = next }
//! ```
//!
//! The last iteration computes its own chains once more, so that nothing beyond the elements is read.

use frit_ir::{BinaryOp, DType, UnaryOp};

use super::analyse::Usual;
use crate::cpu::strip::{Op, Strip, StripAcc, Val, operands};

/// What is computed ahead.
pub(super) struct Ahead {
    /// Its results: what the rest uses.
    pub(super) results: Vec<Val>,
    /// All that makes them.
    pub(super) chains: Vec<bool>,
    /// What is left to be computed for the results of a body.
    pub(super) rest: Vec<bool>,
}

/// Fewest ops of a body that is too long for the machine to look past.
const LONG: usize = 80;
/// Cycles that a chain takes at least.
const CHAIN: u32 = 20;
/// Most results: each takes two registers.
const MOST: usize = 2;
/// Ops that the rest may have to compute again.
const AGAIN: usize = 4;

impl Ahead {
    /// `None`: the body is short, or has no such chains. `usual`: what of it the main loop computes.
    pub(super) fn of(strip: &Strip, usual: Option<&Usual>) -> Option<Ahead> {
        let count = strip.ops.len();
        if strip.streams.iter().any(|s| !s.is_dense() || s.loaded && s.stored) {
            return None;
        }
        let op = |v: usize| strip.ops.get(v).map(|o| o.op);
        let uniform = |v: usize| matches!(op(v), Some(Op::Const(_) | Op::Param(_)));
        let needs = |op: &Op| -> Vec<Val> {
            match *op {
                Op::Rescue { value, .. } if usual.is_some() => vec![value],
                Op::Select(c, value, _) if usual.is_some_and(|u| u.conditions.contains(&c)) => vec![value],
                _ => operands(op).collect(),
            }
        };
        let closure = |roots: &[Val], stop: &[Val]| -> Vec<bool> {
            let mut needed = vec![false; count];
            let mut open = roots.to_vec();
            while let Some(v) = open.pop() {
                let Some(slot @ false) = needed.get_mut(v as usize) else { continue };
                *slot = true;
                if let (Some(op), false) = (op(v as usize), stop.contains(&v)) {
                    open.extend(needs(&op));
                }
            }
            needed
        };
        let stores = (0..count).filter(|i| matches!(op(*i), Some(Op::Store(..)))).map(|i| i as Val);
        let roots: Vec<Val> = strip.accs.iter().flat_map(StripAcc::operands).chain(stores).collect();
        let needed = closure(&roots, &[]);
        let total = (0..count).filter(|i| needed.get(*i) == Some(&true) && !uniform(*i)).count();
        if total < LONG {
            return None;
        }
        // How long each value takes, and how many need it.
        let words = count.div_ceil(64);
        let mut takes = vec![0_u32; count];
        let mut behind = vec![vec![0_u64; words]; count];
        let mut users = vec![0_usize; count];
        for i in (0..count).filter(|i| needed.get(*i) == Some(&true)) {
            let Some(op) = op(i) else { continue };
            let mut bits = vec![0_u64; words];
            for v in needs(&op).into_iter().map(|v| v as usize).filter(|v| !uniform(*v)) {
                takes[i] = takes[i].max(takes[v]);
                bits.iter_mut().zip(&behind[v]).for_each(|(a, b)| *a |= b);
                bits[v / 64] |= 1 << (v % 64);
            }
            takes[i] += latency(&op);
            for v in (0..i).filter(|v| bits[v / 64] >> (v % 64) & 1 == 1) {
                users[v] += 1;
            }
            behind[i] = bits;
        }
        let carries = |v: usize| takes[v] >= CHAIN && 5 * users[v] >= 2 * total;
        // What carries to the end of a chain: something uses it that is none.
        let mut ends = vec![false; count];
        for i in (0..count).filter(|i| needed.get(*i) == Some(&true) && !carries(*i)) {
            for v in op(i).iter().flat_map(&needs) {
                ends[v as usize] = true;
            }
        }
        let results: Vec<Val> = (0..count).filter(|v| ends[*v] && carries(*v)).map(|v| v as Val).collect();
        let is_float = |v: &Val| strip.ops.get(*v as usize).is_some_and(|o| o.dtype == DType::F32);
        if results.is_empty() || results.len() > MOST || !results.iter().all(is_float) {
            return None;
        }
        let chains = closure(&results, &[]);
        let rest = closure(&roots, &results);
        let early = |i: usize| usual.is_some_and(|u| u.early.get(i) == Some(&true));
        let work = |i: &usize| !uniform(*i) && !matches!(op(*i), Some(Op::Load(_)));
        let twice = (0..count)
            .filter(|i| chains[*i] && (rest[*i] && !results.contains(&(*i as Val)) || early(*i)))
            .filter(work)
            .count();
        let blocked =
            |i: usize| chains[i] && matches!(op(i), Some(Op::Store(..) | Op::Rescue { .. })) && usual.is_none();
        if twice > AGAIN || (0..count).any(blocked) {
            return None;
        }
        Some(Ahead { results, chains, rest })
    }
}

/// Cycles from operands to result, about.
fn latency(op: &Op) -> u32 {
    match op {
        Op::Const(_) | Op::Param(_) | Op::Load(_) | Op::Store(..) | Op::Rescue { .. } | Op::Bitcast(_) => 0,
        Op::Binary(BinaryOp::Div, ..) | Op::Unary(UnaryOp::Sqrt, _) => 12,
        Op::Fma(..) | Op::Cast { .. } => 4,
        Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, ..) => 3,
        Op::Unary(..) | Op::Binary(..) | Op::Select(..) => 1,
    }
}
