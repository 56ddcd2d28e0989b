//! What the training loop asks of a network.
//!
//! A [`Stepper`] holds parameters, the optimiser's state and buffers, and changes them one batch at a time. What stays
//! the same for a run (loss, optimiser, decay, clipping, frozen parameters) it knows from the [`Config`](super::Config)
//! that it was made with; what changes from step to step comes as [`Hyper`].

use frit_ir::Tensor;
use indexmap::IndexMap;

use super::TrainError;
use super::compiled::Parameters;
use super::memory::StepMemory;
use crate::data::dataset::Batch;
use crate::session::TensorView;

/// Names of state that is the optimiser's own begin with this; all others are the module's parameters and buffers, under
/// the names that they have there.
pub use frit_ir::model::train::OPTIMIZER_PREFIX;

/// Why a step failed, as whoever runs it says.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// All that a run depends on besides its position: parameters, buffers, moments, by name.
pub type State = IndexMap<String, Tensor>;

/// What takes state, by name.
pub type Take<'t> = dyn FnMut(&[(&str, TensorView<'_>)]) -> Result<(), TrainError> + 't;

/// Numbers that change from step to step, computed in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// The step's number, counted from 1.
    pub step: u64,
    /// The schedule's learning rate.
    pub learning_rate: f64,
    /// Momentum of SGD, the first beta of Adam and AdamW: the schedule's, else the optimiser's.
    pub momentum: f64,
}

/// What a step says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss over the batch, before the update.
    pub loss: f32,
    /// Of classes: how many of the batch the network got right, before the update.
    pub correct: Option<u64>,
    /// L2 norm of the gradients of all trained parameters together, before clipping.
    pub grad_norm: f32,
}

/// What an evaluation says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalResult {
    /// Mean loss over the batch, without label smoothing or decay.
    pub loss: f32,
    /// Of classes: how many of the batch the network got right.
    pub correct: Option<u64>,
}

/// A network that can be trained.
pub trait Stepper {
    /// Trains on one batch; the last of an epoch may be smaller than the others.
    ///
    /// A loss or gradient that is not finite is no error: the loop finds it in the result, goes back to the state from
    /// before ([`Stepper::rewind`], else a checkpoint and the steps since), and asks [`Stepper::anomaly`].
    ///
    /// # Errors
    /// A step that can't be run.
    fn step(&mut self, batch: &Batch<'_>, hyper: &Hyper) -> Result<StepResult, StepError>;

    /// Judges one batch as in inference; changes nothing that a later step could see.
    ///
    /// # Errors
    /// A batch that can't be run.
    fn evaluate(&mut self, batch: &Batch<'_>) -> Result<EvalResult, StepError>;

    /// A copy of all state. [`Stepper::set_state`] of it, in a new stepper made with the same config, must give the same
    /// bits from then on.
    ///
    /// # Errors
    /// State that can't be read.
    fn state(&self) -> Result<State, StepError>;

    /// Hands all state to whoever writes it, where it lies if it can.
    ///
    /// # Errors
    /// State that can't be read; what `take` says is inside.
    fn lend(&self, take: &mut Take<'_>) -> Result<Result<(), TrainError>, StepError> {
        let state = self.state()?;
        let views: Vec<(&str, TensorView<'_>)> = state.iter().map(|(name, t)| (name.as_str(), t.into())).collect();
        Ok(take(&views))
    }

    /// Replaces all state. Names, element types and shapes are those of [`Stepper::state`]: the loop has checked.
    ///
    /// # Errors
    /// State that can't be written.
    fn set_state(&mut self, state: &State) -> Result<(), StepError>;

    /// How many classes the output has; `None`: it is no classifier.
    fn classes(&self) -> Option<usize>;

    /// What it trains and what not, as far as it can say.
    fn parameters(&self) -> Parameters {
        Parameters::default()
    }

    /// What steps and evaluations on batches of these sizes take, said before they run.
    ///
    /// # Errors
    /// Extents that can't be computed.
    fn memory(&self, batches: &[usize]) -> Result<StepMemory, StepError> {
        let _ = batches;
        Ok(StepMemory::default())
    }

    /// Puts back the state from before the last step, where it was kept; false where it was not.
    ///
    /// # Errors
    /// State that can't be written.
    fn rewind(&mut self) -> Result<bool, StepError> {
        Ok(false)
    }

    /// Which op gives the first value that is not finite when this batch is trained on (with `hyper`) or judged
    /// (without) from the state as it is, and stays; `None` when the stepper can't say.
    ///
    /// # Errors
    /// A search that can't be run.
    fn anomaly(&mut self, batch: &Batch<'_>, hyper: Option<&Hyper>) -> Result<Option<String>, StepError> {
        let _ = (batch, hyper);
        Ok(None)
    }
}
