//! Losses of one batch: the mean, how many are right, and the gradient with respect to the outputs.

use crate::data::dataset::TargetSlice;
use crate::train::config::LossKind;

/// A loss and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// Mean over the batch (cross-entropy), over all outputs (the others).
    pub loss: f64,
    /// Of classes: how many largest outputs are the class's; the first of equal ones counts.
    pub correct: Option<u64>,
    /// Gradient with respect to each output.
    pub gradient: Vec<f64>,
}

/// The loss of `outputs`, a row of `width` for each record. Targets that are not of the loss's kind count for nothing:
/// the caller has checked.
pub fn loss(kind: LossKind, smoothing: f64, outputs: &[f64], width: usize, targets: TargetSlice<'_>) -> Loss {
    let mut result = Loss { loss: 0.0, correct: None, gradient: vec![0.0; outputs.len()] };
    match targets {
        TargetSlice::Classes(classes) => {
            let rows = outputs.chunks_exact(width.max(1)).zip(result.gradient.chunks_exact_mut(width.max(1)));
            let mut correct = 0;
            for ((row, gradient), class) in rows.zip(classes) {
                let class = usize::try_from(*class).unwrap_or(usize::MAX);
                result.loss += cross_entropy(row, class, smoothing, gradient);
                let best = row
                    .iter()
                    .enumerate()
                    .fold((0, f64::NEG_INFINITY), |best, (i, v)| if *v > best.1 { (i, *v) } else { best });
                correct += u64::from(best.0 == class);
            }
            let count = classes.len().max(1) as f64;
            result.loss /= count;
            result.gradient.iter_mut().for_each(|g| *g /= count);
            result.correct = Some(correct);
        }
        TargetSlice::Values { data, .. } => {
            let count = outputs.len().max(1) as f64;
            for ((z, t), g) in outputs.iter().zip(data).zip(&mut result.gradient) {
                let t = f64::from(*t);
                match kind {
                    LossKind::Bce => {
                        // log(1 + exp(z)) - t z, without overflow.
                        result.loss += z.max(0.0) - z * t + (-z.abs()).exp().ln_1p();
                        *g = (1.0 / (1.0 + (-z).exp()) - t) / count;
                    }
                    LossKind::Mse | LossKind::CrossEntropy => {
                        result.loss += (z - t) * (z - t);
                        *g = 2.0 * (z - t) / count;
                    }
                }
            }
            result.loss /= count;
        }
    }
    result
}

/// Cross-entropy of one row, its gradient written to `gradient`.
fn cross_entropy(row: &[f64], class: usize, smoothing: f64, gradient: &mut [f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = row.iter().map(|z| (z - largest).exp()).sum::<f64>().ln() + largest;
    let mut loss = 0.0;
    for (i, (z, g)) in row.iter().zip(gradient).enumerate() {
        let wanted = smoothing / row.len() as f64 + if i == class { 1.0 - smoothing } else { 0.0 };
        // What is not wanted counts for nothing, however small its probability.
        if wanted > 0.0 {
            loss += wanted * (log_sum - z);
        }
        *g = (z - log_sum).exp() - wanted;
    }
    loss
}
