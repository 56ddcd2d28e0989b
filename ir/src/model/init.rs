//! Parameters: their names, shapes and initial values.
//!
//! In: a list of [`Spec`]s. Out: the parameter store, filled in the list's order from stream 0 of a seed. Distributions
//! are PyTorch's defaults: a linear map or convolution and its bias are uniform within 1 / sqrt(fan in).

use indexmap::IndexMap;

use super::ModelError;
use crate::module::{Module, Param};
use crate::random::Philox;
use crate::tensor::{Tensor, checked_numel};
use crate::types::{DType, TensorType};

/// Most parameters of a network: 1 GiB.
const MAX_PARAMETERS: usize = 1 << 28;
/// The stream that initial values are drawn from.
const STREAM: u64 = 0;

/// Initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    /// One number.
    Fill(f32),
    /// Uniform within a bound of 0.
    Uniform(f32),
    /// (j - order) / grid + shift.
    Phases {
        /// The grid size.
        grid: usize,
        /// The order.
        order: usize,
        /// Added to each.
        shift: f32,
    },
}

impl Init {
    /// What a linear map of so many inputs starts with.
    pub(super) fn linear(fan_in: usize) -> Init {
        Init::Uniform((1.0 / (fan_in as f64).sqrt()) as f32)
    }

    /// Xavier's: the variance of what goes in and out is kept, as far as both can be.
    pub(super) fn xavier(fan_in: usize, fan_out: usize) -> Init {
        Init::Uniform((6.0 / (fan_in as f64 + fan_out as f64)).sqrt() as f32)
    }

    fn values(self, count: usize, random: &mut Philox) -> Vec<f32> {
        match self {
            Init::Fill(value) => vec![value; count],
            Init::Uniform(bound) => (0..count).map(|_| random.uniform(-bound, bound)).collect(),
            Init::Phases { grid, order, shift } => {
                // The quotient is rounded before the shift is added, as PyTorch does.
                (0..count).map(|j| (j as f32 - order as f32) / grid as f32 + shift).collect()
            }
        }
    }
}

/// A parameter to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) init: Init,
    pub(super) trainable: bool,
}

/// Parameters of a network, as its builder lists them.
#[derive(Debug, Default)]
pub(super) struct Specs(pub(super) Vec<Spec>);

impl Specs {
    /// A trained parameter.
    pub(super) fn add(&mut self, name: String, shape: &[usize], init: Init) {
        self.0.push(Spec { name, shape: shape.to_vec(), init, trainable: true });
    }

    /// Weight and bias of a linear map or convolution.
    pub(super) fn linear(&mut self, name: &str, weight: &[usize]) {
        // What one output is a sum over.
        let fan_in = weight.iter().skip(1).product();
        self.add(format!("{name}.weight"), weight, Init::linear(fan_in));
        self.add(format!("{name}.bias"), weight.get(..1).unwrap_or(&[]), Init::linear(fan_in));
    }

    /// What is renewed by training steps, not by gradients.
    pub(super) fn buffer(&mut self, name: String, shape: &[usize], init: Init) {
        self.0.push(Spec { name, shape: shape.to_vec(), init, trainable: false });
    }

    /// The total is within limits.
    fn check(&self) -> Result<(), ModelError> {
        let count = |s: &Spec| checked_numel(&s.shape);
        let total = self.0.iter().try_fold(0usize, |n, s| n.checked_add(count(s)?));
        match total {
            Some(n) if n <= MAX_PARAMETERS => Ok(()),
            _ => Err(ModelError::Parameters { limit: MAX_PARAMETERS }),
        }
    }

    /// The store with initial values under a seed.
    pub(super) fn initial(&self, seed: u64) -> Result<IndexMap<String, Param>, ModelError> {
        self.check()?;
        let mut random = Philox::new(seed, STREAM);
        let mut made = IndexMap::with_capacity(self.0.len());
        for spec in &self.0 {
            let values = spec.init.values(spec.shape.iter().product(), &mut random);
            let value = Tensor::f32(&spec.shape, &values)?;
            made.insert(spec.name.clone(), Param { value, trainable: spec.trainable });
        }
        Ok(made)
    }

    /// The store of a module that has these parameters, in this order; others are left out.
    pub(super) fn of(&self, module: &Module) -> Result<IndexMap<String, Param>, ModelError> {
        let found = self.0.iter().map(|spec| {
            let expected = TensorType::known(DType::F32, &spec.shape);
            let wrong =
                |found: String| ModelError::Param { name: spec.name.clone(), expected: expected.clone(), found };
            match module.params.get(&spec.name) {
                None => Err(wrong("is missing".to_owned())),
                Some(param) if param.value.ty() != expected => Err(wrong(format!("is {}", param.value.ty()))),
                Some(param) => Ok((spec.name.clone(), param.clone())),
            }
        });
        found.collect()
    }
}
