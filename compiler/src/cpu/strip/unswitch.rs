//! Strips that choose by what is the same in all lanes, as one strip for each choice.
//!
//! A gradient looks at every element for an extreme, in each row; where the row's own extreme says that there is none,
//! none of it is needed. So a loop whose `select`s ask a parameter becomes several, in each of which the answer is known,
//! and the call asks once (LLVM's loop unswitching).
//!
//! ```text
//!  strip with select(%p, a, b)  --->  [select = b, what only a needs is gone], [select = a, ...]; call: %p ? 2nd : 1st
//! ```

use super::schedule::with_ops;
use super::{Op, Strip, TypedOp, Val, operands};

/// Conditions that a strip is written out for: each doubles its code.
const MOST: usize = 2;
/// Ops that a condition must save on one side.
const WORTHWHILE: usize = 8;

/// A strip for each case of some conditions.
#[derive(Debug)]
pub(super) struct Cases {
    /// Parameters that are asked, by position.
    pub(super) conditions: Vec<u32>,
    /// The strip where bit k of its position says whether condition k holds.
    pub(super) strips: Vec<Strip>,
}

/// The cases of a strip: itself alone where none are worth it.
pub(super) fn cases(strip: Strip) -> Cases {
    let mut worth: Vec<(usize, u32)> = Vec::new();
    for (i, typed) in strip.ops.iter().enumerate() {
        let Op::Param(param) = typed.op else { continue };
        let chooses = |t: &TypedOp| matches!(t.op, Op::Select(c, ..) if c as usize == i);
        if strip.ops.iter().any(chooses) {
            let least = [false, true].map(|holds| assuming(&strip, param, holds).ops.len()).into_iter().min();
            worth.push((strip.ops.len().saturating_sub(least.unwrap_or(0)), param));
        }
    }
    worth.retain(|(saved, _)| *saved >= WORTHWHILE);
    worth.sort_by_key(|(saved, param)| (std::cmp::Reverse(*saved), *param));
    worth.truncate(MOST);
    let mut cases = Cases { conditions: Vec::new(), strips: vec![strip] };
    for (_, param) in worth {
        let both = [false, true].map(|holds| cases.strips.iter().map(move |s| assuming(s, param, holds)));
        cases.strips = both.into_iter().flatten().collect();
        cases.conditions.push(param);
    }
    cases
}

/// What is left of a strip where a parameter holds, or does not.
pub(super) fn assuming(strip: &Strip, param: u32, holds: bool) -> Strip {
    // What each value is the same as; operands come first, so these are settled.
    let mut same: Vec<Val> = Vec::with_capacity(strip.ops.len());
    let is_param = |v: Val| matches!(strip.ops.get(v as usize), Some(t) if t.op == Op::Param(param));
    for (i, typed) in strip.ops.iter().enumerate() {
        let other = match typed.op {
            Op::Select(c, a, b) if is_param(c) => Some(if holds { a } else { b }),
            _ => None,
        };
        let settled = other.and_then(|v| same.get(v as usize).copied());
        same.push(settled.unwrap_or(i as Val));
    }
    let settled = |v: Val| same.get(v as usize).copied().unwrap_or(v);
    let mut needed = vec![false; strip.ops.len()];
    let need = |v: Val, needed: &mut Vec<bool>| {
        if let Some(slot) = needed.get_mut(settled(v) as usize) {
            *slot = true;
        }
    };
    for v in strip.accs.iter().flat_map(super::StripAcc::operands) {
        need(v, &mut needed);
    }
    for (i, typed) in strip.ops.iter().enumerate().rev() {
        if matches!(typed.op, Op::Store(..)) {
            need(i as Val, &mut needed);
        }
        if needed.get(i) == Some(&true) {
            operands(&typed.op).for_each(|v| need(v, &mut needed));
        }
    }
    let kept: Vec<usize> = (0..strip.ops.len()).filter(|i| needed.get(*i) == Some(&true)).collect();
    with_ops(strip, &kept, &settled)
}
