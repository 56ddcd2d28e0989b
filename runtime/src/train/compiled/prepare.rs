//! A network made ready to be trained: what trains, what does not, and what it takes.
//!
//! In: a module as loaded to be trained, and settings. Out: the module with a function `train` where batch norms renew
//! their statistics, one input of floats, and [`Parameters`]: what the run says about itself before it begins.

use std::collections::BTreeSet;

use frit_ir::builder::Builder;
use frit_ir::model::train::SCALARS;
use frit_ir::onnx::add_train_function;
use frit_ir::{DType, Function, Module, Op, Origin, TensorType, ValueType};

use super::super::config::{Config, LossKind};
use super::{CompiledStepper, StepperError};
use crate::data::dataset::TrainingData;

/// What a run does to the tensors of its network, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Trained, and the elements of all of them.
    pub trained: Vec<String>,
    /// Their elements.
    pub elements: usize,
    /// Frozen by a pattern.
    pub frozen: Vec<String>,
    /// Running statistics that training renews.
    pub renewed: Vec<String>,
    /// None of these: buffers, masks, weights of another output, statistics that are all frozen.
    pub constant: Vec<String>,
    /// What is odd about this, in sentences.
    pub notes: Vec<String>,
}

/// Gives the module its function `train`, and refuses one that is not from one tensor to others.
pub(super) fn prepare(module: &mut Module, config: &Config) -> Result<(), StepperError> {
    let entry = module.entry().map(Function::signature);
    if entry.is_some_and(|signature| signature.inputs.len() != 1) {
        let names: Vec<String> = module.entry().map(input_names).unwrap_or_default();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(StepperError::Inputs { names });
    }
    module.functions.values_mut().for_each(rename_input);
    let is_frozen = |name: &str| config.freeze_statistics || config.is_frozen(name);
    // A built-in network renews all statistics or none.
    let renewed = renewed_names(module);
    if !renewed.is_empty() && renewed.iter().all(|name| is_frozen(name)) {
        module.functions.shift_remove("train");
    } else if renewed.is_empty() {
        add_train_function(module, &is_frozen);
    }
    Ok(())
}

fn input_names(f: &Function) -> Vec<String> {
    let named = f.input_values().filter_map(|v| match f.op(v) {
        Op::Input { name, .. } => Some(format!("`{name}`")),
        _ => None,
    });
    named.collect()
}

/// An input that is called like one which every training step has gets another name.
fn rename_input(f: &mut Function) {
    let Some(&id) = f.inputs().first() else { return };
    if let Op::Input { name, ty } = f.node(id).op.clone()
        && (name == "target" || SCALARS.contains(&name.as_str()))
    {
        f.set_op(id, Op::Input { name: format!("{name}_input"), ty });
    }
}

/// Parameters that the function `train` renews.
fn renewed_names(module: &Module) -> Vec<String> {
    let outputs = module.functions.get("train").map_or(&[][..], Function::outputs);
    outputs.iter().map(|o| o.name.clone()).filter(|name| module.params.contains_key(name)).collect()
}

/// Makes an input of integers, as the indices of a table's rows, one of floats that are made integers: data are floats.
/// They hold integers up to 2^24 exactly.
pub(super) fn take_floats(module: &mut Module) -> Result<(), StepperError> {
    for f in module.functions.values_mut() {
        let Some(input) = f.input_values().next() else { continue };
        let Some(ty) = f.ty(input).tensor().filter(|ty| ty.dtype.is_int()).cloned() else { continue };
        let uses = f.uses(input);
        f.set_type(input, ValueType::Tensor(TensorType { dtype: DType::F32, ..ty.clone() }));
        let integers = Builder::new(f, Origin::named("input")).cast(input, ty.dtype);
        let integers = integers.map_err(|e| StepperError::Graph(e.into()))?;
        for (node, operand) in uses {
            f.set_operand(node, operand, integers);
        }
    }
    Ok(())
}

/// Tensors that functions read, by what training does to them; before parameters become inputs.
pub(super) fn parameters(module: &Module, config: &Config) -> Parameters {
    let mut found = Parameters { notes: notes(module, config), ..Parameters::default() };
    let (mut read, mut reached) = (BTreeSet::new(), BTreeSet::new());
    let wanted = config.loss.output.as_deref();
    for f in module.functions.values() {
        let output = f.outputs().iter().find(|o| wanted.is_none_or(|name| o.name == name));
        let behind = f.behind(output.map(|o| o.value));
        for id in f.nodes() {
            if let Op::Param { name, .. } = &f.node(id).op {
                read.insert(name.as_str());
                if behind.contains(&id) {
                    reached.insert(name.as_str());
                }
            }
        }
    }
    let renewed = renewed_names(module);
    for (name, param) in module.params.iter().filter(|(name, _)| read.contains(name.as_str())) {
        let floats = param.value.dtype().is_float();
        let list = if renewed.contains(name) && !config.is_frozen(name) {
            &mut found.renewed
        } else if floats && config.is_frozen(name) {
            &mut found.frozen
        } else if param.trainable && floats && reached.contains(name.as_str()) {
            found.elements += param.value.numel();
            &mut found.trained
        } else if floats {
            &mut found.constant
        } else {
            continue;
        };
        list.push(name.clone());
    }
    found
}

/// What fits the letter, but hardly what was meant.
fn notes(module: &Module, config: &Config) -> Vec<String> {
    let Some(f) = module.entry() else { return Vec::new() };
    let wanted = config.loss.output.as_deref();
    let output = f.outputs().iter().find(|o| wanted.is_none_or(|name| o.name == name));
    let Some(Op::Onnx { op_type, .. }) = output.map(|o| f.op(o.value)) else { return Vec::new() };
    let name = output.map_or("", |o| o.name.as_str());
    let (takes, loss) = match (op_type.as_str(), config.loss.kind) {
        ("Softmax", LossKind::CrossEntropy) => ("a softmax", "cross-entropy"),
        ("Sigmoid", LossKind::Bce) => ("a sigmoid", "bce"),
        _ => return Vec::new(),
    };
    vec![format!(
        "output `{name}` is {takes}, and {loss} takes scores before it: as in PyTorch it trains, but slowly; export the \
         network without it"
    )]
}

impl CompiledStepper {
    /// Records that the network takes at a time, where that is fixed.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// Refuses data that does not come in batches of the size that the network fixes.
    ///
    /// # Errors
    /// A batch that would be of another size; which is the first.
    pub fn check_batches(&self, config: &Config, data: &TrainingData) -> Result<(), StepperError> {
        let Some(fixed) = self.fixed_batch else { return Ok(()) };
        let batch = config.batch as usize;
        if batch != fixed {
            return Err(StepperError::Batch { fixed, found: batch });
        }
        for (what, records) in [("training", data.train.len()), ("validation", data.validation.len())] {
            let last = records.checked_rem(fixed).unwrap_or(0);
            if last != 0 {
                return Err(StepperError::LastBatch { what, records, fixed, last });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
