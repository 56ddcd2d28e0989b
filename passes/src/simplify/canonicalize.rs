//! One form among several: what must not depend on the optimisation level.
//!
//! Composites that no backend claims and calls are inlined, powers with constant exponents become products, products
//! with short vectors become sums, dead ops go. Part of every pipeline that is compiled, and not optional: it spends no
//! fuel, or the bits of a strict result would depend on how much there is.

use std::collections::BTreeSet;

use frit_ir::{Function, Module, NodeId, Op, Value};

use super::algebra::{self, Set};
use super::dce;
use crate::manager::{Context, Pass, PassError};

/// The pass.
pub struct Canonicalize;

const INLINE_COMPOSITE: &str = "inline-composite";
const INLINE_CALL: &str = "inline-call";

impl Pass for Canonicalize {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        context.required(|context| canonicalize(module, context))
    }
}

fn canonicalize(module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
    inline_calls(module, context)?;
    for f in module.functions.values_mut() {
        inline_composites(f, context)?;
        dce::remove_dead(f, context)?;
        algebra::rewrite(f, &module.params, &[Set::Canonical], None, context)?;
        dce::remove_dead(f, context)?;
    }
    Ok(())
}

/// Replaces an op by the outputs of a body bound to its operands.
fn inline_op(f: &mut Function, id: NodeId, body: &Function) -> Result<(), PassError> {
    let operands = f.node(id).operands().to_vec();
    let origin = f.node(id).origin.clone();
    let Some(values) = f.inline(body, &operands) else {
        let message = format!("`{origin}`: the body does not fit its operands, or has a cycle");
        return Err(PassError::Internal { pass: "canonicalize", message });
    };
    for (result, value) in values.into_iter().enumerate() {
        f.replace_uses(Value { node: id, result }, value);
    }
    f.remove_op(id);
    Ok(())
}

pub(crate) fn inline_composites(f: &mut Function, context: &mut Context<'_>) -> Result<(), PassError> {
    for id in f.nodes() {
        for region in f.regions_mut(id) {
            inline_composites(region, context)?;
        }
        if matches!(f.node(id).op, Op::Composite { .. })
            && let [body] = f.node(id).regions()
            && context.take(INLINE_COMPOSITE)
        {
            let body = body.clone();
            inline_op(f, id, &body)?;
        }
    }
    Ok(())
}

/// Functions that `f` calls, regions included.
fn callees(f: &Function, found: &mut BTreeSet<String>) {
    for id in f.nodes() {
        if let Op::Call { function } = &f.node(id).op {
            found.insert(function.clone());
        }
        f.node(id).regions().iter().for_each(|region| callees(region, found));
    }
}

/// Inlines calls, callees first. Functions that call themselves stay as they are.
fn inline_calls(module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
    // A callee without calls of its own is ready; each round makes callers ready.
    for _ in 0..module.functions.len() {
        let ready: Vec<String> = module
            .functions
            .iter()
            .filter(|(_, f)| {
                let mut called = BTreeSet::new();
                callees(f, &mut called);
                called.is_empty()
            })
            .map(|(name, _)| name.clone())
            .collect();
        let before = context.fired();
        let bodies: Vec<(String, Function)> =
            ready.iter().filter_map(|name| Some((name.clone(), module.functions.get(name)?.clone()))).collect();
        for f in module.functions.values_mut() {
            inline_calls_in(f, &bodies, context)?;
        }
        if context.fired() == before {
            break;
        }
    }
    Ok(())
}

fn inline_calls_in(
    f: &mut Function,
    bodies: &[(String, Function)],
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    for id in f.nodes() {
        for region in f.regions_mut(id) {
            inline_calls_in(region, bodies, context)?;
        }
        let Op::Call { function } = &f.node(id).op else { continue };
        let Some((_, body)) = bodies.iter().find(|(name, _)| name == function) else { continue };
        if context.take(INLINE_CALL) {
            inline_op(f, id, body)?;
        }
    }
    Ok(())
}
