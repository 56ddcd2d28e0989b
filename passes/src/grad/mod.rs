//! Reverse-mode automatic differentiation, as a pass on core ops.
//!
//! ```text
//!  vjp(inputs, cotangents) { forward } --> forward written out, then its ops in reverse order:
//!                                          each op's rule turns the cotangents of its results
//!                                          into cotangents of its operands, which add up
//! ```
//!
//! In: a module whose functions hold `vjp` ops. Out: the same without them. The forward is first simplified by the
//! rules that remove work ([`crate::simplify::algebra::Set::Algebra`]): afterwards the same terms would cancel
//! mathematically, but not as text. Nothing here is optional, so the pass costs no fuel and is part of every level.
//!
//! Conventions, where a function has no derivative: |x| and sign have 0 at 0; of `min` and `max` of two values each gets
//! half at a tie, and a constant gets all (so relu and clipping have 0 where they start, as PyTorch's relu and hardtanh);
//! reductions by min and max share equally among ties (PyTorch's amax), windows of a pooling give all to the first. A
//! cotangent of 0 stays 0 where e^x overflows, so that a sigmoid's tail gives 0, not NaN.
//!
//! Rules live by kind: `elementwise`, `movement`, `window`, `reduction`, `contraction`, `control`. Each sees one op
//! through a `Site`.

mod contraction;
mod control;
mod elementwise;
mod invariant;
mod movement;
mod reduction;
mod reverse;
mod site;
#[cfg(test)]
mod tests;
mod window;

use frit_ir::op::infer::TypeError;
use frit_ir::{Function, Module, NodeId, Op, Param, Value};
use indexmap::IndexMap;

use crate::manager::{Context, Pass, PassError};
use crate::simplify::algebra::{Set, rewrite};
use crate::simplify::{canonicalize, cse, dce, fold};

pub use reverse::reverse;

/// Why something can't be differentiated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GradError {
    /// An op without a rule for what is asked.
    #[error("`{op}` ({origin}) has no gradient: {message}")]
    Op {
        /// Its word.
        op: &'static str,
        /// Where it came from.
        origin: String,
        /// What is missing.
        message: String,
    },
    /// A rule built an op that does not type-check: an internal error.
    #[error("internal error: the gradient of `{op}` ({origin}): {source}")]
    Rule {
        /// Its word.
        op: &'static str,
        /// Where it came from.
        origin: String,
        /// What does not fit.
        source: TypeError,
    },
    /// A function has a cycle.
    #[error("function `{0}` has a cycle")]
    Cycle(String),
}

impl GradError {
    /// Whether it is a bug of frit, not of the model.
    pub fn is_internal(&self) -> bool {
        matches!(self, GradError::Rule { .. })
    }
}

/// Rounds of simplification before a forward is differentiated.
const ROUNDS: usize = 8;

/// The pass.
pub struct Grad;

impl Pass for Grad {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        context.required(|context| {
            for f in module.functions.values_mut() {
                if expand(f, &module.params, context)? {
                    // Derivatives are written plainly; the one form of each op is chosen here, as for everything else.
                    dce::remove_dead(f, context)?;
                    rewrite(f, &module.params, &[Set::Canonical], None, context)?;
                    dce::remove_dead(f, context)?;
                }
            }
            Ok(())
        })
    }
}

/// Replaces the `vjp` ops of a function, inner ones first; whether there were any.
fn expand(f: &mut Function, params: &IndexMap<String, Param>, context: &mut Context<'_>) -> Result<bool, PassError> {
    let mut found = false;
    for id in f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))? {
        for region in f.regions_mut(id) {
            found |= expand(region, params, context)?;
        }
        if let Op::Vjp { of, wrt } = f.node(id).op.clone() {
            context.count("vjp", 1);
            write_out(f, id, of, &wrt, params, context)?;
            found = true;
        }
    }
    Ok(found)
}

fn write_out(
    f: &mut Function,
    id: NodeId,
    of: usize,
    wrt: &[usize],
    params: &IndexMap<String, Param>,
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    let origin = f.node(id).origin.clone();
    let internal = |message: String| PassError::Internal { pass: "grad", message };
    let Some(mut forward) = f.take_regions(id).pop() else {
        return Err(internal(format!("`{origin}`: a vjp without a region")));
    };
    prepare(&mut forward, params, context)?;
    let operands = f.node(id).operands().to_vec();
    let (inputs, cotangents) = operands.split_at(forward.inputs().len().min(operands.len()));
    let Some(outputs) = f.inline(&forward, inputs) else {
        return Err(internal(format!("`{origin}`: the forward does not fit its operands, or has a cycle")));
    };
    let wanted: Vec<Value> = wrt.iter().filter_map(|&i| inputs.get(i).copied()).collect();
    let seeds: Vec<(Value, Value)> = outputs.iter().copied().take(of).zip(cotangents.iter().copied()).collect();
    let gradients = reverse(f, &seeds, &wanted)?;
    for (result, value) in outputs.into_iter().chain(gradients).enumerate() {
        f.replace_uses(Value { node: id, result }, value);
    }
    f.remove_op(id);
    Ok(())
}

/// Brings a forward to the form that is differentiated: the same at every level, since it decides the gradient's bits.
fn prepare(
    forward: &mut Function,
    params: &IndexMap<String, Param>,
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    canonicalize::inline_composites(forward, context)?;
    rewrite(forward, params, &[Set::Canonical], None, context)?;
    for _ in 0..ROUNDS {
        let before = context.fired();
        fold::fold(forward, params, context)?;
        rewrite(forward, params, &[Set::Algebra], None, context)?;
        cse::merge_equal(forward, context)?;
        dce::remove_dead(forward, context)?;
        if context.fired() == before {
            break;
        }
    }
    Ok(())
}
