//! The smallest network that can be trained: outputs = inputs W^T + b.
//!
//! With cross-entropy it is softmax regression, with squared differences linear regression. Its parameters are `weight`
//! and `bias`, of Philox's stream 0.

use frit_ir::Tensor;
use frit_ir::random::Philox;

use super::loss::{Loss, loss};
use super::update::{clip_factor, update};
use crate::data::dataset::{Batch, TrainingData};
use crate::train::stepper::OPTIMIZER_PREFIX;
use crate::train::{Config, EvalResult, Hyper, State, StepError, StepResult, Stepper};

/// A parameter with its optimiser's state.
struct Parameter {
    name: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
    moments: Vec<Vec<f32>>,
}

/// A linear network.
pub struct Linear {
    config: Config,
    inputs: usize,
    outputs: usize,
    classes: Option<usize>,
    parameters: [Parameter; 2],
}

impl Linear {
    /// A network for this data, its first values drawn from the seed.
    pub fn new(config: &Config, data: &TrainingData) -> Linear {
        let inputs = data.train.width();
        let classes = data.classes();
        let outputs = classes.unwrap_or(match data.train.targets() {
            crate::data::dataset::Targets::Values { shape, .. } => shape.iter().product(),
            crate::data::dataset::Targets::Classes(_) => 0,
        });
        let mut random = Philox::new(config.seed, 0);
        let bound = 1.0 / (inputs.max(1) as f32).sqrt();
        let moments = config.optimizer.moments().len();
        let mut parameter = |name, shape: Vec<usize>| {
            let count = shape.iter().product();
            let values = (0..count).map(|_| random.uniform(-bound, bound)).collect();
            Parameter { name, shape, values, moments: vec![vec![0.0; count]; moments] }
        };
        let parameters = [parameter("weight", vec![outputs, inputs]), parameter("bias", vec![outputs])];
        Linear { config: config.clone(), inputs, outputs, classes, parameters }
    }

    fn forward(&self, batch: &Batch<'_>, smoothing: f64) -> Result<Loss, StepError> {
        if batch.inputs.len() != batch.len * self.inputs {
            let found = batch.inputs.len();
            return Err(format!("{found} inputs for {} records of {}", batch.len, self.inputs).into());
        }
        let [weight, bias] = &self.parameters;
        let mut outputs = Vec::with_capacity(batch.len * self.outputs);
        for sample in batch.inputs.chunks_exact(self.inputs.max(1)) {
            for (row, b) in weight.values.chunks_exact(self.inputs.max(1)).zip(&bias.values) {
                let dot: f64 = row.iter().zip(sample).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                outputs.push(dot + f64::from(*b));
            }
        }
        Ok(loss(self.config.loss.kind, smoothing, &outputs, self.outputs, batch.targets))
    }
}

impl Stepper for Linear {
    fn step(&mut self, batch: &Batch<'_>, hyper: &Hyper) -> Result<StepResult, StepError> {
        let Loss { loss, correct, gradient } = self.forward(batch, self.config.loss.label_smoothing)?;
        let mut gradients = [vec![0.0; self.outputs * self.inputs], vec![0.0; self.outputs]];
        let [weight, bias] = &mut gradients;
        let rows = gradient.chunks_exact(self.outputs.max(1)).zip(batch.inputs.chunks_exact(self.inputs.max(1)));
        for (outputs, sample) in rows {
            for ((g, row), b) in outputs.iter().zip(weight.chunks_exact_mut(self.inputs.max(1))).zip(bias.iter_mut()) {
                *b += g;
                row.iter_mut().zip(sample).for_each(|(w, x)| *w += g * f64::from(*x));
            }
        }
        for (parameter, gradient) in self.parameters.iter().zip(&mut gradients) {
            if self.config.is_frozen(parameter.name) {
                gradient.fill(0.0);
            }
        }
        let norm = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let optimizer = &self.config.optimizer;
        let (factor, scalars) = (clip_factor(optimizer, norm), optimizer.scalars(hyper));
        for (parameter, mut gradient) in self.parameters.iter_mut().zip(gradients) {
            if self.config.is_frozen(parameter.name) {
                continue;
            }
            gradient.iter_mut().for_each(|g| *g *= factor);
            let decay = optimizer.decay_of(parameter.name);
            update(optimizer, &scalars, decay, &mut parameter.values, &gradient, &mut parameter.moments);
        }
        Ok(StepResult { loss: loss as f32, correct, grad_norm: norm as f32 })
    }

    fn evaluate(&mut self, batch: &Batch<'_>) -> Result<EvalResult, StepError> {
        let Loss { loss, correct, .. } = self.forward(batch, 0.0)?;
        Ok(EvalResult { loss: loss as f32, correct })
    }

    fn state(&self) -> Result<State, StepError> {
        let mut state = State::new();
        let names = self.config.optimizer.moments();
        for Parameter { name, shape, values, moments } in &self.parameters {
            state.insert((*name).to_owned(), Tensor::f32(shape, values)?);
            for (moment, values) in names.iter().zip(moments) {
                state.insert(format!("{OPTIMIZER_PREFIX}{moment}.{name}"), Tensor::f32(shape, values)?);
            }
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &State) -> Result<(), StepError> {
        let names = self.config.optimizer.moments();
        let find = |name: String| match state.get(&name) {
            Some(tensor) => Ok(tensor.to_vec::<f32>()),
            None => Err(format!("state `{name}` is missing")),
        };
        for Parameter { name, values, moments, .. } in &mut self.parameters {
            *values = find((*name).to_owned())?;
            for (moment, values) in names.iter().zip(moments) {
                *values = find(format!("{OPTIMIZER_PREFIX}{moment}.{name}"))?;
            }
        }
        Ok(())
    }

    fn classes(&self) -> Option<usize> {
        self.classes
    }

    fn anomaly(&mut self, batch: &Batch<'_>, hyper: Option<&Hyper>) -> Result<Option<String>, StepError> {
        let [weight, bias] = &self.parameters;
        let finite = weight.values.iter().chain(&bias.values).all(|v| v.is_finite());
        let op = if finite { "the product of inputs and `weight`" } else { "`weight` before the step" };
        let (what, first) = (if hyper.is_some() { "trained on" } else { "judged" }, batch.inputs.first());
        Ok(Some(format!("{op}, {what} from input {}", first.copied().unwrap_or_default())))
    }
}
