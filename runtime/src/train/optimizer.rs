//! Settings of optimisers, and the numbers of a step that are computed on the host.

use frit_ir::model::train::{Update, moments};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Hyper, pattern};

/// Which rule updates parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with momentum or without; decay is added to the gradient.
    Sgd,
    /// Adam; decay is added to the gradient.
    Adam,
    /// Adam with decay of its own, which moments do not see.
    #[default]
    Adamw,
}

impl OptimizerKind {
    /// All of them.
    pub const ALL: [OptimizerKind; 3] = [OptimizerKind::Sgd, OptimizerKind::Adam, OptimizerKind::Adamw];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::Sgd => "sgd",
            OptimizerKind::Adam => "adam",
            OptimizerKind::Adamw => "adamw",
        }
    }
}

/// Parameters whose decay differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecayGroup {
    /// Their names; see [`pattern`].
    pub pattern: String,
    /// Their weight decay.
    pub weight_decay: f64,
}

/// An optimiser's settings. The names of its state are [`OPTIMIZER_PREFIX`](super::stepper::OPTIMIZER_PREFIX), the moment
/// of [`Optimizer::moments`], a dot and the parameter: `optimizer.first.layers.0.base_weight`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Learning rate that the schedule begins with.
    pub learning_rate: f64,
    /// Weight decay of parameters that no group names.
    pub weight_decay: f64,
    /// Decay rates of Adam's moments.
    pub betas: [f64; 2],
    /// Added to the root of Adam's second moment.
    pub epsilon: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// SGD looks ahead along its momentum.
    pub nesterov: bool,
    /// Gradients are scaled down to this norm; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Parameters whose decay differs; the first pattern that matches counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<DecayGroup>,
}

impl Default for Optimizer {
    fn default() -> Optimizer {
        Optimizer {
            kind: OptimizerKind::Adamw,
            learning_rate: 1e-3,
            weight_decay: 1e-4,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            momentum: 0.9,
            nesterov: false,
            clip_norm: None,
            groups: Vec::new(),
        }
    }
}

/// Numbers of a step that need f64 or a power: computed on the host, handed to the step as f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars {
    /// The schedule's learning rate.
    pub learning_rate: f64,
    /// Momentum of SGD, the first beta of Adam.
    pub momentum: f64,
    /// 1 - beta1^step; 1 for SGD.
    pub first_correction: f64,
    /// 1 - beta2^step; 1 for SGD.
    pub second_correction: f64,
}

impl Optimizer {
    /// The numbers of a step.
    pub fn scalars(&self, hyper: &Hyper) -> Scalars {
        let correction = |beta: f64| match self.kind {
            OptimizerKind::Sgd => 1.0,
            OptimizerKind::Adam | OptimizerKind::Adamw => 1.0 - beta.powf(hyper.step as f64),
        };
        Scalars {
            learning_rate: hyper.learning_rate,
            momentum: hyper.momentum,
            first_correction: correction(hyper.momentum),
            second_correction: correction(self.betas[1]),
        }
    }

    /// Tensors of state that it keeps for each parameter, all 0 at first.
    pub fn moments(&self) -> &'static [&'static str] {
        moments(self.update())
    }

    /// The rule as a compiled step has it.
    pub fn update(&self) -> Update {
        let adam = |decoupled| Update::Adam { decoupled, beta2: self.betas[1], epsilon: self.epsilon };
        match self.kind {
            OptimizerKind::Sgd => Update::Sgd { momentum: self.momentum > 0.0, nesterov: self.nesterov },
            OptimizerKind::Adam => adam(false),
            OptimizerKind::Adamw => adam(true),
        }
    }

    /// Momentum where the schedule moves none.
    pub fn usual_momentum(&self) -> f64 {
        match self.kind {
            OptimizerKind::Sgd => self.momentum,
            OptimizerKind::Adam | OptimizerKind::Adamw => self.betas[0],
        }
    }

    /// Weight decay of a parameter.
    pub fn decay_of(&self, parameter: &str) -> f64 {
        let group = self.groups.iter().find(|group| pattern::matches(&group.pattern, parameter));
        group.map_or(self.weight_decay, |group| group.weight_decay)
    }

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// The setting and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let at_least_0 =
            |name: &str, x: f64| ConfigError::need(x.is_finite() && x >= 0.0, name, "is a number of at least 0", x);
        at_least_0("optimizer.learning_rate", self.learning_rate)?;
        at_least_0("optimizer.weight_decay", self.weight_decay)?;
        for beta in self.betas {
            ConfigError::need((0.0..1.0).contains(&beta), "optimizer.betas", "has numbers in [0, 1)", beta)?;
        }
        let fits = self.epsilon.is_finite() && self.epsilon > 0.0;
        ConfigError::need(fits, "optimizer.epsilon", "is a number above 0", self.epsilon)?;
        ConfigError::need((0.0..1.0).contains(&self.momentum), "optimizer.momentum", "lies in [0, 1)", self.momentum)?;
        let nesterov = !self.nesterov || (self.kind == OptimizerKind::Sgd && self.momentum > 0.0);
        ConfigError::need(nesterov, "optimizer.nesterov", "needs sgd with a momentum above 0", self.momentum)?;
        if let Some(norm) = self.clip_norm {
            let fits = norm.is_finite() && norm > 0.0;
            ConfigError::need(fits, "optimizer.clip_norm", "is a number above 0", norm)?;
        }
        self.groups.iter().try_for_each(|group| at_least_0("optimizer.groups.weight_decay", group.weight_decay))
    }
}
