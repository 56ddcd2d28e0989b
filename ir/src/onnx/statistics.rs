//! How batch norms of an imported model train.
//!
//! In: a module as imported to be trained, with the function `infer`. Out: the same with a function `train` where there
//! is a batch norm whose running statistics are its own: it normalises by the batch, and gives the renewed statistics
//! as outputs called like the parameters that they replace. Everything else in it is `infer`'s: a `Dropout` that was
//! exported for inference stays the identity.
//!
//! Renewed is `momentum` (0.9 unless the node says otherwise) times the old plus the rest times the batch's, and the
//! variance that is kept has the divisor n - 1, as in PyTorch, where ONNX and its own training mode say n: what is
//! fine-tuned here goes on as it would there. A norm that is applied twice renews its statistics twice.
//!
//! Left as they are: norms whose mean or variance is frozen, is computed, or lies in a subgraph.

use indexmap::IndexMap;

use crate::graph::{Function, NodeId, Value};
use crate::module::Module;
use crate::op::{AttrValue, Op};

/// Attribute of a batch norm in training whose kept variance has the divisor n - 1.
pub const UNBIASED: &str = "__unbiased";

/// The first version whose training mode gives renewed statistics.
const TRAINING_MODE: i64 = 14;

/// Adds the function `train`, unless the module has one or nothing would be other than in `infer`. Gives the number of
/// batch norms that renew their statistics.
pub fn add_train_function(module: &mut Module, frozen: &dyn Fn(&str) -> bool) -> usize {
    if module.functions.contains_key("train") {
        return 0;
    }
    let Some(mut f) = module.entry().cloned() else { return 0 };
    "train".clone_into(&mut f.name);
    let own = |name: &str| module.params.get(name).is_some_and(|p| !p.trainable) && !frozen(name);
    let mut now: IndexMap<String, Value> = IndexMap::new();
    let mut norms = 0;
    for id in f.toposort().unwrap_or_default() {
        if let Some(names) = statistics(&f, id).filter(|names| names.iter().all(|name| own(name))) {
            train(&mut f, id, &names, &mut now);
            norms += 1;
        }
    }
    if norms > 0 {
        now.iter().for_each(|(name, value)| f.add_output(name, *value));
        module.functions.insert("train".to_owned(), f);
    }
    norms
}

/// Names of the running mean and variance of a batch norm that can train.
fn statistics(f: &Function, id: NodeId) -> Option<[String; 2]> {
    let node = f.node(id);
    let Op::Onnx { domain, op_type, since_version: 7.., attributes } = &node.op else { return None };
    let flat = matches!(attributes.get("spatial"), Some(AttrValue::Int(0) | AttrValue::Bool(false)));
    let more = (1..node.results().len()).any(|result| f.use_count(Value { node: id, result }) > 0);
    if !domain.is_empty() || op_type != "BatchNormalization" || flat || more {
        return None;
    }
    let name = |operand: usize| match f.op(*node.operands().get(operand)?) {
        Op::Param { name, .. } => Some(name.clone()),
        _ => None,
    };
    Some([name(3)?, name(4)?])
}

/// Makes a batch norm train: by the batch, with renewed statistics in `now`.
fn train(f: &mut Function, id: NodeId, names: &[String; 2], now: &mut IndexMap<String, Value>) {
    let node = f.node(id).clone();
    let Op::Onnx { domain, op_type, since_version, mut attributes } = node.op.clone() else { return };
    attributes.insert("training_mode".to_owned(), AttrValue::Int(1));
    attributes.insert(UNBIASED.to_owned(), AttrValue::Int(1));
    let op = Op::Onnx { domain, op_type, since_version: since_version.max(TRAINING_MODE), attributes };
    let mut operands = node.operands().to_vec();
    let mut results = node.results().get(..1).unwrap_or_default().to_vec();
    for (operand, name) in operands.iter_mut().skip(3).zip(names) {
        results.push(f.ty(*operand).clone());
        *operand = now.get(name).copied().unwrap_or(*operand);
    }
    let trained = f.add_typed(op, &operands, results, Vec::new(), &node.origin);
    f.replace_uses(Value { node: id, result: 0 }, Value { node: trained, result: 0 });
    f.remove_op(id);
    for (name, result) in names.iter().zip(1..) {
        now.insert(name.clone(), Value { node: trained, result });
    }
}
