//! The training step of a network as one function: forward, loss, gradients, clipping, update.
//!
//! ```text
//!  module { train or infer } --> train_step(x, target, learning_rate, .., parameters, moments)
//!                                  vjp { forward, loss } --> gradients --> clip --> update
//!                                --> loss, correct, grad_norm, parameters', moments'
//! ```
//!
//! In: a module of core ops, and a [`Recipe`]. Out: a module with two functions. `train_step` takes a batch, numbers of
//! the schedule as scalars, and all state; it gives the loss and the new state, each donated to what it came from, so
//! that a plan updates it where it lies. `evaluate` takes a batch and parameters, and gives loss and logits as inference
//! has them. Parameters that are not trained and that training does not renew stay in the store.
//!
//! Holds: state is named as in the store, moments `optimizer.first.NAME` and so on; everything that is the same in every
//! step is in the graph, everything that changes is an input.

mod loss;
#[cfg(test)]
mod tests;
mod update;

use indexmap::IndexMap;

use crate::builder::Builder;
use crate::graph::{Donation, Function, Value};
use crate::module::Module;
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, Op, ReduceKind, UnaryOp};
use crate::origin::Origin;
use crate::types::{DType, Dim, TensorType};

pub use loss::Loss;
pub use update::{Update, moments};

/// What a step does besides the forward.
#[derive(Clone, Debug)]
pub struct Recipe<'r> {
    /// What is minimised.
    pub loss: Loss,
    /// The output that it looks at; `None`: the first.
    pub output: Option<&'r str>,
    /// How parameters change.
    pub update: Update,
    /// Weight decay of each trained parameter that has any, by name.
    pub decay: IndexMap<String, f64>,
    /// Gradients together are scaled down to this L2 norm; `None`: never.
    pub clip_norm: Option<f64>,
    /// Parameters that do not change, beside those that the module says are not trained and those that the output does
    /// not depend on: another head's, which decay would shrink.
    pub frozen: Vec<String>,
}

/// Why there is no training step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// The module has no function to train.
    #[error("the model has no function")]
    NoFunction,
    /// No output of that name.
    #[error("the model has no output `{name}`; it has {known}")]
    NoOutput {
        /// The name.
        name: String,
        /// Those that it has.
        known: String,
    },
    /// A type that can't be trained.
    #[error("{what} `{name}` is {ty}; {expected}")]
    Type {
        /// Input or output.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its type.
        ty: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Nothing to train.
    #[error("no parameter is trained: all are frozen, or constants")]
    NoParameters,
    /// A parameter called like an input that a step has besides.
    #[error("a parameter is called `{name}`, as an input of every training step is")]
    Name {
        /// The name.
        name: String,
    },
    /// The module does not hold what it refers to, or an op does not type-check.
    #[error("{0}")]
    Graph(String),
}

impl From<TypeError> for TrainError {
    fn from(error: TypeError) -> Self {
        TrainError::Graph(error.to_string())
    }
}

/// What state is called.
pub const OPTIMIZER_PREFIX: &str = "optimizer.";

/// Scalars of the schedule, f32, inputs of `train_step` after the batch: the learning rate, SGD's momentum or Adam's
/// first beta, and Adam's corrections 1 - beta^step of both moments.
pub const SCALARS: [&str; 4] = ["learning_rate", "momentum", "first_correction", "second_correction"];

/// The forward of a module with its parameters as inputs.
struct Forward {
    /// Data inputs, then parameters.
    function: Function,
    /// How many data inputs there are.
    data: usize,
    /// Parameters, in the order of inputs.
    params: Vec<String>,
    /// Index of the output that the loss looks at.
    output: usize,
    /// Outputs that renew a parameter, with its name.
    renewed: Vec<(usize, String)>,
}

/// The training module of a network: `train_step`, and `evaluate`.
///
/// # Errors
/// An output that is not there or has no loss, a module without trained parameters.
pub fn train_module(module: &Module, recipe: &Recipe<'_>) -> Result<Module, TrainError> {
    let infer = module.entry().ok_or(TrainError::NoFunction)?;
    let train = module.functions.get("train").unwrap_or(infer);
    let mut made = Module { source: module.source.clone(), params: module.params.clone(), ..Module::default() };
    let forward = forward(module, train, recipe)?;
    if !forward.params.iter().any(|name| is_trained(module, recipe, name)) {
        return Err(TrainError::NoParameters);
    }
    let step = train_step(module, &forward, recipe)?;
    made.functions.insert("train_step".to_owned(), step);
    let judged = evaluate(&self::forward(module, infer, recipe)?, recipe)?;
    made.functions.insert("evaluate".to_owned(), judged);
    Ok(made)
}

fn is_trained(module: &Module, recipe: &Recipe<'_>, name: &str) -> bool {
    let trainable = module.params.get(name).is_some_and(|p| p.trainable && p.value.dtype().is_float());
    trainable && !recipe.frozen.iter().any(|frozen| frozen == name)
}

fn names(f: &Function) -> String {
    let names: Vec<String> = f.outputs().iter().map(|o| format!("`{}`", o.name)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A copy of a function whose trained and renewed parameters are inputs.
fn forward(module: &Module, function: &Function, recipe: &Recipe<'_>) -> Result<Forward, TrainError> {
    let output = match recipe.output {
        None => 0,
        Some(name) => function.outputs().iter().position(|o| o.name == name).unwrap_or(usize::MAX),
    };
    if function.outputs().get(output).is_none() {
        let name = recipe.output.unwrap_or("0").to_owned();
        return Err(TrainError::NoOutput { name, known: names(function) });
    }
    let renews = module.functions.get("train").map_or(&[][..], Function::outputs);
    let renewed_name = |name: &str| {
        let frozen = recipe.frozen.iter().any(|frozen| frozen == name);
        !frozen && renews.iter().any(|o| o.name == name) && module.params.contains_key(name)
    };
    let mut f = function.clone();
    f.name = String::new();
    f.donations.clear();
    let data = f.inputs().len();
    let mut params: Vec<String> = Vec::new();
    let mut inputs: IndexMap<String, Value> = IndexMap::new();
    let behind = f.behind(f.outputs().get(output).map(|o| o.value));
    for id in f.nodes() {
        let Op::Param { name, ty } = f.node(id).op.clone() else { continue };
        let trained = behind.contains(&id) && is_trained(module, recipe, &name);
        if !trained && !renewed_name(&name) {
            continue;
        }
        let input = match inputs.get(&name) {
            Some(&input) => input,
            None if name == "target" || SCALARS.contains(&name.as_str()) => return Err(TrainError::Name { name }),
            None => {
                let input = f.add_input(&name, ty);
                inputs.insert(name.clone(), input);
                params.push(name);
                input
            }
        };
        f.replace_uses(Value { node: id, result: 0 }, input);
        f.remove_op(id);
    }
    let renewed = f.outputs().iter().enumerate().filter(|(_, o)| params.contains(&o.name));
    let renewed = renewed.map(|(i, o)| (i, o.name.clone())).collect();
    Ok(Forward { function: f, data, params, output, renewed })
}

impl Forward {
    /// A region that ends in the loss: inputs data, target, parameters; outputs loss, logits, renewed parameters.
    fn with_loss(&self, loss: &Loss) -> Result<Function, TrainError> {
        let mut region = Function::new("");
        let mut arguments = Vec::new();
        for value in self.function.input_values().take(self.data) {
            arguments.push(copy_input(&mut region, &self.function, value));
        }
        let at = self.function.outputs()[self.output].value;
        let found = self.function.ty(at).tensor().cloned();
        let logits_ty = found.filter(|t| t.dtype.is_float()).ok_or_else(|| TrainError::Type {
            what: "output",
            name: self.function.outputs()[self.output].name.clone(),
            ty: self.function.ty(at).to_string(),
            expected: "a loss takes floats",
        })?;
        let target_ty = loss.target(&logits_ty).ok_or_else(|| TrainError::Type {
            what: "output",
            name: self.function.outputs()[self.output].name.clone(),
            ty: logits_ty.to_string(),
            expected: "cross-entropy takes scores [batch, classes]",
        })?;
        let target = region.add_input("target", target_ty);
        for value in self.function.input_values().skip(self.data) {
            arguments.push(copy_input(&mut region, &self.function, value));
        }
        region.symbols.clone_from(&self.function.symbols);
        let outputs = region
            .inline(&self.function, &arguments)
            .ok_or_else(|| TrainError::Graph("the forward has a cycle".to_owned()))?;
        let logits = outputs[self.output];
        let mut b = Builder::new(&mut region, Origin::named("loss"));
        let value = loss.of(&mut b, logits, target)?;
        region.add_output("loss", value);
        region.add_output("logits", logits);
        for (i, name) in &self.renewed {
            region.add_output(name, outputs[*i]);
        }
        Ok(region)
    }
}

fn copy_input(to: &mut Function, from: &Function, value: Value) -> Value {
    let name = match from.op(value) {
        Op::Input { name, .. } => name.clone(),
        _ => String::new(),
    };
    to.add_input(&name, from.ty(value).clone())
}

/// How many rows of [batch, classes] have their largest score at the target's place, as an i64 scalar.
fn correct(b: &mut Builder<'_>, logits: Value, target: Value) -> Result<Value, TypeError> {
    let best = b.reduce(logits, vec![1], ReduceKind::ArgMax, false)?;
    let right = b.binary(BinaryOp::Eq, best, target)?;
    let ones = b.cast(right, DType::I64)?;
    b.reduce(ones, vec![0], ReduceKind::Sum, false)
}

fn train_step(module: &Module, forward: &Forward, recipe: &Recipe<'_>) -> Result<Function, TrainError> {
    let region = forward.with_loss(&recipe.loss)?;
    let mut f = Function::new("train_step");
    f.symbols.clone_from(&region.symbols);
    let mut operands: Vec<Value> = Vec::new();
    // Data and target, then what the schedule says.
    let batch: Vec<Value> = region.input_values().take(forward.data + 1).collect();
    for value in batch {
        operands.push(copy_input(&mut f, &region, value));
    }
    let target = operands[forward.data];
    let mut scalars = [target; SCALARS.len()];
    for (scalar, name) in scalars.iter_mut().zip(SCALARS) {
        *scalar = f.add_input(name, TensorType::scalar(DType::F32));
    }
    let mut states: Vec<(Value, String)> = Vec::new();
    for name in &forward.params {
        let param = module.params.get(name).ok_or_else(|| TrainError::Graph(format!("no parameter `{name}`")))?;
        let value = f.add_input(name, param.value.ty());
        operands.push(value);
        states.push((value, name.clone()));
    }
    let trained: Vec<usize> =
        (0..forward.params.len()).filter(|&i| is_trained(module, recipe, &forward.params[i])).collect();
    let wrt: Vec<usize> = trained.iter().map(|i| forward.data + 1 + i).collect();
    let mut b = Builder::new(&mut f, Origin::named("loss"));
    let one = b.scalar(DType::F32, 1.0)?;
    operands.push(one);
    let kept = region.outputs().len();
    let node = f.add_op(Op::Vjp { of: 1, wrt }, &operands, vec![region], &Origin::named("gradient"))?;
    let result = |result: usize| Value { node, result };
    let mut gradients: Vec<Value> = (0..trained.len()).map(|i| result(kept + i)).collect();

    f.add_output("loss", result(0));
    let mut b = Builder::new(&mut f, Origin::named("metrics"));
    let right = if recipe.loss.has_classes() { Some(correct(&mut b, result(1), target)?) } else { None };
    b.origin = Origin::named("grad_norm");
    let norm = norm(&mut b, &gradients)?;
    if let Some(limit) = recipe.clip_norm {
        b.origin = Origin::named("clip");
        gradients = clipped(&mut b, &gradients, norm, limit)?;
    }
    // What a state becomes, in the order of inputs.
    let mut renewed: Vec<(Value, Value)> = Vec::new();
    for (i, (_, name)) in forward.renewed.iter().enumerate() {
        if let Some((input, _)) = states.iter().find(|(_, state)| state == name) {
            // After the loss and the logits.
            renewed.push((*input, result(2 + i)));
        }
    }
    for (gradient, &i) in gradients.into_iter().zip(&trained) {
        let (param, name) = states[i].clone();
        let mut b = Builder::new(&mut f, Origin::named(format!("update.{name}")));
        let decay = recipe.decay.get(&name).copied().unwrap_or(0.0);
        let (next, moved) = recipe.update.apply(&mut b, &name, param, gradient, decay, &scalars)?;
        renewed.push((param, next));
        for (moment, input, next) in moved {
            states.push((input, moment));
            renewed.push((input, next));
        }
    }
    if let Some(right) = right {
        f.add_output("correct", right);
    }
    f.add_output("grad_norm", norm);
    for (input, name) in states {
        // What nothing renews stays as it is: a batch norm's statistics that are frozen.
        let next = renewed.iter().find(|(from, _)| *from == input).map_or(input, |(_, next)| *next);
        let place = f.input_values().position(|v| v == input).unwrap_or(0);
        f.donations.push(Donation { input: place, output: f.outputs().len() });
        f.add_output(&name, next);
    }
    Ok(f)
}

fn evaluate(forward: &Forward, recipe: &Recipe<'_>) -> Result<Function, TrainError> {
    let mut f = forward.with_loss(&recipe.loss.plain())?;
    "evaluate".clone_into(&mut f.name);
    let target = f.input_values().nth(forward.data);
    let (loss, logits) = (f.outputs()[0].value, f.outputs()[1].value);
    f.clear_outputs();
    f.add_output("loss", loss);
    if let Some(target) = target.filter(|_| recipe.loss.has_classes()) {
        let mut b = Builder::new(&mut f, Origin::named("metrics"));
        let right = correct(&mut b, logits, target)?;
        f.add_output("correct", right);
    }
    f.add_output("logits", logits);
    Ok(f)
}

/// The L2 norm of all gradients together.
fn norm(b: &mut Builder<'_>, gradients: &[Value]) -> Result<Value, TypeError> {
    let mut sum: Option<Value> = None;
    for &gradient in gradients {
        let square = b.binary(BinaryOp::Mul, gradient, gradient)?;
        let rank = b.dims(square)?.len();
        let part = b.reduce(square, (0..rank).collect(), ReduceKind::Sum, false)?;
        let part = b.cast(part, DType::F32)?;
        sum = Some(match sum {
            Some(sum) => b.binary(BinaryOp::Add, sum, part)?,
            None => part,
        });
    }
    let sum = match sum {
        Some(sum) => sum,
        None => b.scalar(DType::F32, 0.0)?,
    };
    b.unary(UnaryOp::Sqrt, sum)
}

/// Gradients times min(1, limit / (norm + 1e-6)), as PyTorch's clip_grad_norm_.
fn clipped(b: &mut Builder<'_>, gradients: &[Value], norm: Value, limit: f64) -> Result<Vec<Value>, TypeError> {
    let (limit, epsilon, one) = (b.scalar(DType::F32, limit)?, b.scalar(DType::F32, 1e-6)?, b.scalar(DType::F32, 1.0)?);
    let below = b.binary(BinaryOp::Add, norm, epsilon)?;
    let ratio = b.binary(BinaryOp::Div, limit, below)?;
    let scale = b.binary(BinaryOp::Min, ratio, one)?;
    let scaled = gradients.iter().map(|&g| {
        let dtype = b.tensor(g)?.dtype;
        let scale = b.cast(scale, dtype)?;
        b.binary(BinaryOp::Mul, g, scale)
    });
    scaled.collect()
}

/// 1 / count of a shape, as a scalar of a type.
fn reciprocal_of_count(b: &mut Builder<'_>, dims: &[Dim], dtype: DType) -> Result<Value, TypeError> {
    let count = b.dim(Dim::product(dims))?;
    let count = b.cast(count, dtype)?;
    let one = b.scalar(dtype, 1.0)?;
    b.binary(BinaryOp::Div, one, count)
}
