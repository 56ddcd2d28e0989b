//! Constant folding: ops on constants become constants, computed by the reference evaluator.
//!
//! Strict results must not depend on whether an op was folded, so only ops that are exact, or correctly rounded and
//! single, or that follow the documented order (sums, products) are folded then; elementary functions, powers and
//! float contractions only where the op's numerics allow approximation.
//!
//! Results stay small ([`LIMIT`]). A broadcast or an iota is smaller than its elements and is never written out:
//! elementwise work moves before broadcasts by algebra, and is folded there.

use frit_ir::op::BinaryOp;
use frit_ir::reference::{self, Symbols};
use frit_ir::types::ValueType;
use frit_ir::value::HostValue;
use frit_ir::{Function, Module, Node, Op, OpClass, Param, Tensor, Value};
use indexmap::IndexMap;

use super::algebra::Scope;
use crate::manager::{Context, Pass, PassError};

/// Most elements of a folded result.
pub const LIMIT: usize = 4096;
/// Most elements of an operand.
const OPERAND_LIMIT: usize = 1 << 16;
/// Most scalar steps of one op.
const STEPS: u64 = 1 << 20;

const RULE: &str = "fold";

/// The pass.
pub struct Fold;

impl Pass for Fold {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            fold(f, &module.params, context)?;
        }
        Ok(())
    }
}

/// Whether the evaluator gives the bits that compiled code gives, or the op may be approximated.
fn may_fold(node: &Node, is_float: bool) -> bool {
    let exact = match &node.op {
        Op::Unary(u) => !u.is_elementary(),
        Op::Binary(BinaryOp::Pow | BinaryOp::Atan2) => !is_float,
        Op::Broadcast { .. } | Op::Iota { .. } | Op::DimValue { .. } => return false,
        op => match op.class() {
            OpClass::Elementwise | OpClass::Movement | OpClass::Reduction => true,
            OpClass::Contraction => !is_float,
            OpClass::Source | OpClass::Control | OpClass::Host | OpClass::Foreign => return false,
        },
    };
    exact || node.numerics.approximate
}

/// The operands as tensors, when all are constants of a fair size.
fn operands(scope: &Scope<'_>, node: &Node) -> Option<Vec<HostValue>> {
    if node.operands().is_empty() {
        return None;
    }
    let small = |t: &&Tensor| t.numel() <= OPERAND_LIMIT;
    node.operands().iter().map(|v| scope.constant(*v).filter(small).map(|t| HostValue::Tensor(t.clone()))).collect()
}

fn small_results(node: &Node) -> bool {
    node.results().iter().all(|ty| {
        let dims = ty.tensor().and_then(|t| t.known_dims());
        dims.and_then(|d| frit_ir::tensor::checked_numel(&d)).is_some_and(|n| n <= LIMIT)
    })
}

/// Folds ops of a function, regions first.
pub fn fold(f: &mut Function, params: &IndexMap<String, Param>, context: &mut Context<'_>) -> Result<(), PassError> {
    for id in f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))? {
        for region in f.regions_mut(id) {
            fold(region, params, context)?;
        }
        let node = f.node(id);
        let used = (0..node.results().len()).any(|result| f.use_count(Value { node: id, result }) > 0);
        if !used || !node.regions().is_empty() || !small_results(node) {
            continue;
        }
        let Some(given) = operands(&Scope { f, params }, node) else { continue };
        let float = node.operands().iter().any(|v| f.ty(*v).tensor().is_some_and(|t| t.dtype.is_float()));
        if !may_fold(node, float) {
            if node.op.takes_numerics() {
                context.near_miss(RULE, &node.origin, "strict: compiled code may round it differently");
            }
            continue;
        }
        let options = reference::Options { limit_elements: OPERAND_LIMIT, limit_steps: STEPS, ..Default::default() };
        let symbols = Symbols::new();
        let results = reference::eval_op(&node.op, &node.origin, &given, node.results(), &[], &symbols, options);
        let results = match results {
            Ok(results) => results,
            // What fails at run time must fail there.
            Err(error) => {
                context.near_miss(RULE, &node.origin, error.to_string());
                continue;
            }
        };
        let (origin, types) = (node.origin.clone(), node.results().to_vec());
        let tensors: Vec<Tensor> = results.iter().filter_map(HostValue::tensor).cloned().collect();
        if tensors.iter().map(|t| ValueType::from(t.ty())).ne(types) {
            continue;
        }
        if !context.take(RULE) {
            return Ok(());
        }
        for (result, value) in tensors.into_iter().enumerate() {
            let new = f.add_op(Op::Constant { value }, &[], Vec::new(), &origin).map_err(|source| {
                PassError::Rewrite { pass: "fold", rule: RULE, origin: origin.to_string(), source }
            })?;
            f.replace_uses(Value { node: id, result }, Value { node: new, result: 0 });
        }
        f.remove_op(id);
    }
    Ok(())
}
