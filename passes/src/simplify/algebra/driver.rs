//! Applies rules until none applies.
//!
//! A worklist of ops in dependency order; after a rewrite the new ops, their operands and their users are looked at
//! again. The order depends on the function alone. New ops take the merged origins of what they replace and the meet of
//! its numerics. Replaced ops go at once, so that "used once" stays true.

use std::collections::{BTreeSet, HashSet, VecDeque};

use frit_ir::builder::Builder;
use frit_ir::{Function, NodeId, Numerics, Op, Origin, Param, Value};
use indexmap::IndexMap;

use super::{Outcome, Rule, Scope, Set, rules};
use crate::manager::{Context, PassError};

/// Rewrites of one function stop after this many times its number of ops: rules that chase each other end.
const ROUNDS: usize = 32;

/// Applies the rules of some sets to a function and its regions. `only` picks one rule by name.
pub fn rewrite(
    f: &mut Function,
    params: &IndexMap<String, Param>,
    sets: &[Set],
    only: Option<&str>,
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    for id in f.nodes() {
        for region in f.regions_mut(id) {
            rewrite(region, params, sets, only, context)?;
        }
    }
    let rules: Vec<&Rule> =
        rules().filter(|r| sets.contains(&r.set) && only.is_none_or(|name| r.name == name)).collect();
    let order = f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))?;
    let limit = (order.len() + 8) * ROUNDS;
    let mut queued: HashSet<NodeId> = order.iter().copied().collect();
    let mut queue: VecDeque<NodeId> = order.into();
    let mut rewrites = 0;
    while let Some(id) = queue.pop_front() {
        queued.remove(&id);
        if f.get(id).is_none() {
            continue;
        }
        let Some(touched) = visit(f, params, &rules, id, context)? else { continue };
        rewrites += 1;
        if rewrites > limit {
            let origin = f.get(id).map(|n| n.origin.clone()).unwrap_or_default();
            context.near_miss("limit", &origin, format!("rules still apply after {limit} rewrites"));
            return Ok(());
        }
        for id in touched {
            if f.get(id).is_some() && queued.insert(id) {
                queue.push_back(id);
            }
        }
        if !context.has_fuel() {
            return Ok(());
        }
    }
    Ok(())
}

/// Tries the rules on one op; what to look at again when one fired.
fn visit(
    f: &mut Function,
    params: &IndexMap<String, Param>,
    rules: &[&Rule],
    id: NodeId,
    context: &mut Context<'_>,
) -> Result<Option<Vec<NodeId>>, PassError> {
    let node = f.node(id);
    if matches!(node.op, Op::Input { .. } | Op::Constant { .. } | Op::Param { .. }) || node.results().len() != 1 {
        return Ok(None);
    }
    let root = Value { node: id, result: 0 };
    if f.use_count(root) == 0 {
        return Ok(None);
    }
    for rule in rules {
        let (used, build) = match (rule.apply)(&Scope { f, params }, id) {
            Outcome::No => continue,
            Outcome::Near(reason) => {
                context.near_miss(rule.name, &f.node(id).origin, reason);
                continue;
            }
            Outcome::Found { used, build } => (used, build),
        };
        let left: Vec<NodeId> = std::iter::once(id).chain(used).collect();
        let calculating = left.iter().map(|n| f.node(*n)).filter(|n| n.op.takes_numerics());
        let numerics = calculating.map(|n| n.numerics).reduce(Numerics::meet).unwrap_or_default();
        if !rule.needs.met(numerics) {
            context.near_miss(rule.name, &f.node(id).origin, "the ops' numerics don't allow it");
            continue;
        }
        if !context.take(rule.name) {
            return Ok(None);
        }
        let origin = Origin::merge(left.iter().map(|n| &f.node(*n).origin));
        let before = f.node(id).operands().to_vec();
        let wanted = f.ty(root).clone();
        let mut builder = Builder { function: f, origin: origin.clone(), numerics };
        let new = build(&mut builder).map_err(|source| PassError::Rewrite {
            pass: "algebra",
            rule: rule.name,
            origin: origin.to_string(),
            source,
        })?;
        if *f.ty(new) != wanted {
            let message = format!("rule `{}` at `{origin}` gives {}, not {wanted}", rule.name, f.ty(new));
            return Err(PassError::Internal { pass: "algebra", message });
        }
        f.replace_uses(root, new);
        let mut touched: BTreeSet<NodeId> = f.uses(new).into_iter().map(|(user, _)| user).collect();
        touched.insert(new.node);
        touched.extend(f.node(new.node).operands().iter().map(|v| v.node));
        touched.extend(before.iter().map(|v| v.node));
        sweep(f, id);
        return Ok(Some(touched.into_iter().collect()));
    }
    Ok(None)
}

/// Removes an op that nothing uses, and what only it used.
fn sweep(f: &mut Function, id: NodeId) {
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let Some(node) = f.get(id) else { continue };
        let operands: Vec<NodeId> = node.operands().iter().map(|v| v.node).collect();
        if f.remove_op(id) {
            open.extend(operands);
        }
    }
}
