//! How a parameter changes: SGD, Adam, AdamW, with PyTorch's formulas.

use super::{OPTIMIZER_PREFIX, SCALARS};
use crate::builder::{Builder, Built};
use crate::graph::Value;
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, UnaryOp};
use crate::types::DType;

/// A rule that updates parameters. Learning rate and momentum come from outside, step by step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// p - lr (g + d p), or with momentum u = m u + g + d p.
    Sgd {
        /// Whether u is kept.
        momentum: bool,
        /// Steps along g + m u instead of u.
        nesterov: bool,
    },
    /// Moments of g + d p (Kingma and Ba, arXiv 1412.6980), or of g with the decay taken from p itself (Loshchilov and
    /// Hutter, arXiv 1711.05101).
    Adam {
        /// Decay apart from the moments: AdamW.
        decoupled: bool,
        /// Decay rate of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
}

/// Names of a rule's moments: each has the shape of its parameter, and starts at 0.
pub fn moments(update: Update) -> &'static [&'static str] {
    match update {
        Update::Sgd { momentum: false, .. } => &[],
        Update::Sgd { momentum: true, .. } => &["momentum"],
        Update::Adam { .. } => &["first", "second"],
    }
}

/// Name, value and next value of a moment.
type Moved = (String, Value, Value);

impl Update {
    /// Adds inputs for the moments and the ops of the update; the new parameter and moments.
    pub(super) fn apply(
        self,
        b: &mut Builder<'_>,
        name: &str,
        param: Value,
        gradient: Value,
        decay: f64,
        scalars: &[Value; SCALARS.len()],
    ) -> Result<(Value, Vec<Moved>), TypeError> {
        let ty = b.tensor(param)?;
        let names = moments(self).iter().map(|moment| format!("{OPTIMIZER_PREFIX}{moment}.{name}"));
        let inputs: Vec<(String, Value)> = names
            .map(|name| {
                let input = b.function.add_input(&name, ty.clone());
                (name, input)
            })
            .collect();
        let mut cast = [param; SCALARS.len()];
        for (to, from) in cast.iter_mut().zip(scalars) {
            *to = b.cast(*from, ty.dtype)?;
        }
        let part = Part { b, dtype: ty.dtype, scalars: cast };
        let (next, values) = part.step(self, param, gradient, decay, &inputs)?;
        Ok((next, inputs.into_iter().zip(values).map(|((name, input), next)| (name, input, next)).collect()))
    }
}

/// One parameter's update.
struct Part<'p, 'f> {
    b: &'p mut Builder<'f>,
    dtype: DType,
    scalars: [Value; SCALARS.len()],
}

impl Part<'_, '_> {
    fn number(&mut self, value: f64) -> Built {
        self.b.scalar(self.dtype, value)
    }

    fn bin(&mut self, op: BinaryOp, x: Value, y: Value) -> Built {
        self.b.binary(op, x, y)
    }

    /// x + y z.
    fn plus_product(&mut self, x: Value, y: Value, z: Value) -> Built {
        let product = self.bin(BinaryOp::Mul, y, z)?;
        self.bin(BinaryOp::Add, x, product)
    }

    /// g + decay p.
    fn decayed(&mut self, gradient: Value, param: Value, decay: f64) -> Built {
        if decay == 0.0 {
            return Ok(gradient);
        }
        let decay = self.number(decay)?;
        self.plus_product(gradient, param, decay)
    }

    fn step(
        mut self,
        update: Update,
        param: Value,
        gradient: Value,
        decay: f64,
        moments: &[(String, Value)],
    ) -> Result<(Value, Vec<Value>), TypeError> {
        let [rate, momentum, first_correction, second_correction] = self.scalars;
        match (update, moments) {
            (Update::Sgd { nesterov, .. }, kept) => {
                let g = self.decayed(gradient, param, decay)?;
                let Some((_, before)) = kept.first() else {
                    let step = self.bin(BinaryOp::Mul, g, rate)?;
                    return Ok((self.bin(BinaryOp::Sub, param, step)?, Vec::new()));
                };
                let u = self.plus_product(g, *before, momentum)?;
                let along = if nesterov { self.plus_product(g, u, momentum)? } else { u };
                let step = self.bin(BinaryOp::Mul, along, rate)?;
                Ok((self.bin(BinaryOp::Sub, param, step)?, vec![u]))
            }
            (Update::Adam { decoupled, beta2, epsilon }, [(_, first), (_, second)]) => {
                let mut start = param;
                let mut g = gradient;
                if decoupled && decay != 0.0 {
                    // p (1 - lr d)
                    let (one, decay) = (self.number(1.0)?, self.number(decay)?);
                    let lost = self.bin(BinaryOp::Mul, rate, decay)?;
                    let kept = self.bin(BinaryOp::Sub, one, lost)?;
                    start = self.bin(BinaryOp::Mul, param, kept)?;
                } else if !decoupled {
                    g = self.decayed(gradient, param, decay)?;
                }
                // m + (1 - beta1) (g - m)
                let one = self.number(1.0)?;
                let share = self.bin(BinaryOp::Sub, one, momentum)?;
                let difference = self.bin(BinaryOp::Sub, g, *first)?;
                let m = self.plus_product(*first, difference, share)?;
                // beta2 v + (1 - beta2) g^2
                let (keep, add) = (self.number(beta2)?, self.number(1.0 - beta2)?);
                let old = self.bin(BinaryOp::Mul, *second, keep)?;
                let square = self.bin(BinaryOp::Mul, g, g)?;
                let v = self.plus_product(old, square, add)?;
                // p - (lr / c1) m / (sqrt(v) / sqrt(c2) + epsilon)
                let (root, correction) =
                    (self.b.unary(UnaryOp::Sqrt, v)?, self.b.unary(UnaryOp::Sqrt, second_correction)?);
                let scaled = self.bin(BinaryOp::Div, root, correction)?;
                let epsilon = self.number(epsilon)?;
                let below = self.bin(BinaryOp::Add, scaled, epsilon)?;
                let size = self.bin(BinaryOp::Div, rate, first_correction)?;
                let quotient = self.bin(BinaryOp::Div, m, below)?;
                let step = self.bin(BinaryOp::Mul, quotient, size)?;
                Ok((self.bin(BinaryOp::Sub, start, step)?, vec![m, v]))
            }
            (Update::Adam { .. }, _) => Err(TypeError { op: "update", message: "Adam keeps two moments".to_owned() }),
        }
    }
}
