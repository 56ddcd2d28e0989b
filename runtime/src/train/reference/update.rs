//! Optimisers' rules for one parameter, as PyTorch's optimisers of the same names apply them.

use crate::train::optimizer::{Optimizer, OptimizerKind, Scalars};

/// Added to a norm before it is divided by, as `clip_grad_norm_` does.
const CLIP_EPSILON: f64 = 1e-6;

/// What gradients are multiplied by when their norm is clipped.
pub fn clip_factor(optimizer: &Optimizer, norm: f64) -> f64 {
    optimizer.clip_norm.map_or(1.0, |limit| (limit / (norm + CLIP_EPSILON)).min(1.0))
}

/// Updates a parameter's elements by its gradient (clipped before); `moments` are the optimiser's state of it.
pub fn update(
    optimizer: &Optimizer,
    scalars: &Scalars,
    decay: f64,
    values: &mut [f32],
    gradients: &[f64],
    moments: &mut [Vec<f32>],
) {
    let Scalars { learning_rate, momentum, first_correction, second_correction } = *scalars;
    let beta2 = optimizer.betas[1];
    for (i, (value, gradient)) in values.iter_mut().zip(gradients).enumerate() {
        let x = f64::from(*value);
        let mut kept = moments.iter_mut().filter_map(|moment| moment.get_mut(i));
        match (optimizer.kind, kept.next(), kept.next()) {
            (OptimizerKind::Sgd, None, _) => {
                *value = (x - learning_rate * (gradient + decay * x)) as f32;
            }
            (OptimizerKind::Sgd, Some(velocity), _) => {
                let gradient = gradient + decay * x;
                let moved = momentum * f64::from(*velocity) + gradient;
                *velocity = moved as f32;
                let direction = if optimizer.nesterov { gradient + momentum * moved } else { moved };
                *value = (x - learning_rate * direction) as f32;
            }
            (kind @ (OptimizerKind::Adam | OptimizerKind::Adamw), Some(first), Some(second)) => {
                let apart = kind == OptimizerKind::Adamw;
                let x = if apart { x * (1.0 - learning_rate * decay) } else { x };
                let gradient = if apart { *gradient } else { gradient + decay * x };
                let m = momentum * f64::from(*first) + (1.0 - momentum) * gradient;
                let v = beta2 * f64::from(*second) + (1.0 - beta2) * gradient * gradient;
                (*first, *second) = (m as f32, v as f32);
                let root = (v / second_correction).sqrt() + optimizer.epsilon;
                *value = (x - learning_rate * (m / first_correction) / root) as f32;
            }
            // Without its state Adam does nothing.
            (OptimizerKind::Adam | OptimizerKind::Adamw, _, _) => {}
        }
    }
}
