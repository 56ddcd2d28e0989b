//! A network whose training step is one compiled function.
//!
//! In: a module of a network and a [`Config`]. Out: a [`Stepper`] that runs the functions `train_step` and `evaluate` of
//! [`frit_ir::model::train`]. Parameters, moments and buffers live in [`StateBuffer`]s, which a step updates where they
//! lie; an evaluation reads them there. `prepare` makes imported networks ready.

mod plans;
mod prepare;

use std::collections::HashSet;

use frit_compiler::driver::{pipeline, run_passes};
use frit_ir::model::train::{self as graph, Recipe, SCALARS, train_module};
use frit_ir::{DType, Dim, Function, Module, Op, Param};
use frit_passes::manager::{Level, Math};
use indexmap::IndexMap;

use super::anomaly::Search;
use super::config::{LossKind, MathKind};
use super::fit::Fit;
use super::memory::{MemoryPlan, Room, Size, StepMemory};
use super::stepper::Take;
use super::{Config, ConfigError, EvalResult, Hyper, State, StepError, StepResult, Stepper, TrainError};
use crate::compile::CompileOptions;
use crate::data::dataset::{Batch, TargetSlice};
use crate::load::LoadError;
use crate::session::{Context, InputRef, RunError, StateBuffer, TensorView};
pub(super) use plans::Extents;
use plans::{Part, Plans, Wanted};
pub use prepare::Parameters;

/// Why a network can't be trained.
#[derive(Debug, thiserror::Error)]
pub enum StepperError {
    /// A setting that does not fit the network.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network has no training step.
    #[error("the network can't be trained: {0}")]
    Graph(#[from] graph::TrainError),
    /// A pass, the compiler or the loader refused.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// Memory for state, or a run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The network does not take what the data has.
    #[error("input `{name}` of the network is {expected}, a sample of the data has the extents {found:?}")]
    Sample {
        /// The input.
        name: String,
        /// Its type.
        expected: String,
        /// Extents of a sample.
        found: Vec<usize>,
    },
    /// More inputs than one.
    #[error("the network has the inputs {names}; one that takes the samples can be trained")]
    Inputs {
        /// All of them.
        names: String,
    },
    /// A batch of another size than the network's.
    #[error("the network takes {fixed} records at a time, a batch has {found}")]
    Batch {
        /// What it takes.
        fixed: usize,
        /// What it would get.
        found: usize,
    },
    /// Records are left for a smaller batch, which the network does not take.
    #[error(
        "the network takes {fixed} records at a time; of {records} {what} records the last batch would have {last}"
    )]
    LastBatch {
        /// Which set.
        what: &'static str,
        /// How many it has.
        records: usize,
        /// What the network takes.
        fixed: usize,
        /// What is left.
        last: usize,
    },
    /// More memory than a run may take, however much is computed again.
    #[error(
        "the run takes {} of memory, {} at the least; the limit is {} (data {}, state {}, step {}; {} until now)",
        Size(*.planned), Size(*.least), Size(*.limit), Size(.plan.run.data), Size(.plan.step.state),
        Size(.plan.step.arena.saturating_add(.plan.step.scratch)), Size(.plan.until_now)
    )]
    Memory {
        /// What it takes when nothing is computed again for the sake of memory.
        planned: u64,
        /// What it takes at the least.
        least: u64,
        /// What it may take.
        limit: u64,
        /// The thriftiest plan.
        plan: Box<MemoryPlan>,
    },
    /// State of another network.
    #[error("state `{name}` is missing")]
    State {
        /// Its name.
        name: String,
    },
}

impl From<LoadError> for StepperError {
    fn from(error: LoadError) -> StepperError {
        StepperError::Load(Box::new(error))
    }
}

/// A network that trains by compiled functions.
pub struct CompiledStepper {
    plans: Plans,
    /// How further plans are compiled.
    options: CompileOptions,
    states: Vec<StateBuffer>,
    config: Config,
    /// Extents of a batch's inputs but the first, as the network has them.
    sample: Vec<usize>,
    classes: Option<usize>,
    /// Records a step, where the network fixes them.
    fixed_batch: Option<usize>,
    parameters: Parameters,
    /// Where a step's results are among the outputs.
    outputs: Outputs,
    /// The states that an evaluation reads, in the order of its inputs.
    judged: Vec<usize>,
    /// Looks for the op that made a value which is not finite.
    search: Search,
    /// States from before the last step, where they are kept.
    before: Option<Vec<Vec<u8>>>,
}

/// Places of outputs.
struct Outputs {
    correct: Option<usize>,
    norm: usize,
}

/// The compiler's options for a run: settings decide what its results depend on, `base` the rest.
fn options(config: &Config, base: &CompileOptions) -> CompileOptions {
    let level = Level::from_digit(config.compile.level).unwrap_or_default();
    let math = match config.compile.math {
        MathKind::Strict => Math::Strict,
        MathKind::Fast => Math::Fast,
    };
    CompileOptions { level, math, ..base.clone() }
}

/// What a step does besides the forward.
fn recipe<'c>(config: &'c Config, module: &Module) -> Recipe<'c> {
    let loss = match config.loss.kind {
        LossKind::CrossEntropy => graph::Loss::CrossEntropy { smoothing: config.loss.label_smoothing },
        LossKind::Mse => graph::Loss::Mse,
        LossKind::Bce => graph::Loss::Bce,
    };
    let decay = |name: &String| (name.clone(), config.optimizer.decay_of(name));
    Recipe {
        loss,
        output: config.loss.output.as_deref(),
        update: config.optimizer.update(),
        decay: module.params.keys().map(decay).filter(|(_, decay)| *decay != 0.0).collect(),
        clip_norm: config.optimizer.clip_norm,
        frozen: module.params.keys().filter(|name| config.is_frozen(name)).cloned().collect(),
    }
}

impl CompiledStepper {
    /// Compiles a network's training step. `sample` are the extents of one sample of the data. Level and math are those
    /// of `config`, which a run that goes on keeps; all else is as `compile` has it, but states: they are the step's own.
    ///
    /// # Errors
    /// Settings that don't fit the network, a network that has no gradient or does not take the samples, what the
    /// compiler refuses, no memory.
    pub fn new(
        module: Module,
        config: &Config,
        sample: &[usize],
        compile: &CompileOptions,
    ) -> Result<CompiledStepper, StepperError> {
        let room = Room { batch: config.batch as usize, ..Room::default() };
        CompiledStepper::within(module, config, sample, compile, &room)
    }

    /// The same for a run that has batches of these sizes and may take only so much memory: more of the forward is
    /// computed again until it fits.
    ///
    /// # Errors
    /// As [`CompiledStepper::new`]; a run that can't be made to fit.
    pub fn within(
        mut module: Module,
        config: &Config,
        sample: &[usize],
        compile: &CompileOptions,
        room: &Room,
    ) -> Result<CompiledStepper, StepperError> {
        let names: Vec<&str> = module.params.keys().map(String::as_str).collect();
        config.check_patterns(&names)?;
        prepare::prepare(&mut module, config)?;
        let parameters = prepare::parameters(&module, config);
        let mut options = CompileOptions { state: Vec::new(), ..options(config, compile) };
        // Losses and updates join core ops. Extents are given here, once; counts and dumps are of the step.
        let early = CompileOptions {
            passes: Some("legalize,shape,canonicalize".to_owned()),
            dims: std::mem::take(&mut options.dims),
            fuel: None,
            dump_dir: None,
            ..options.clone()
        };
        let pipeline = pipeline(&early).map_err(LoadError::Compile)?;
        run_passes(&mut module, &pipeline, &early).map_err(LoadError::Compile)?;
        prepare::take_floats(&mut module)?;
        let mut made = train_module(&module, &recipe(config, &module))?;
        drop(module);
        options.verify_each |= cfg!(debug_assertions);
        // What steps change lies in states: the functions need only the others.
        let inputs: HashSet<String> = made.functions.values().flat_map(input_names).collect();
        let (values, params) =
            std::mem::take(&mut made.params).into_iter().partition(|(name, _)| inputs.contains(name));
        made.params = params;
        let mut values: IndexMap<String, Param> = values;
        let search = Search::new(made.clone(), options.clone());
        let train_step = made.functions.get("train_step").ok_or_else(|| no_function("train_step"))?;
        let (extents, sample) = sample_of(train_step, sample)?;
        let fixed_batch = extents[0].known().and_then(|n| usize::try_from(n).ok());
        let wanted = Wanted::of(train_step, &extents, &sample, room);
        let sizes = wanted.plans();
        let spare = room.limit.map(|_| made.clone());
        let mut models = plans::compile(made, &sizes, &options)?;
        if let (Some(limit), Some(made)) = (room.limit, spare) {
            let held = values.values().map(|param| param.value.bytes().len() as u64).sum();
            let fit = Fit { options: &options, sample: &sample, room, limit, kept: config.detect_anomaly, held };
            if let Some(thrifty) = fit.thrifty(&made, &sizes, &models)? {
                models.clear();
                options = thrifty;
                models = plans::compile(made, &sizes, &options)?;
            }
        }
        let plans = Plans::new(&models, &wanted)?;
        let model = |part, name| plans.model(part).ok_or_else(|| no_function(name));
        let (step, evaluate) = (model(Part::Step, "train_step")?, model(Part::Evaluate, "evaluate")?);
        let mut states = Vec::with_capacity(step.states().len());
        for (index, state) in step.states().iter().enumerate() {
            let port = &step.inputs()[state.input as usize];
            states.push(match values.swap_remove(&port.name) {
                Some(param) => StateBuffer::new(step, index, TensorView::from(&param.value))?,
                None => StateBuffer::zeros(step, index)?,
            });
        }
        // After the data and the target.
        let judged = evaluate.inputs().iter().skip(2).map(|port| {
            let at = states.iter().position(|state| state.name() == port.name);
            at.ok_or_else(|| StepperError::State { name: port.name.clone() })
        });
        let judged = judged.collect::<Result<_, _>>()?;
        let place = |name: &str| step.outputs().iter().position(|port| port.name == name);
        let outputs = Outputs { correct: place("correct"), norm: place("grad_norm").unwrap_or(1) };
        let logits = evaluate.outputs().iter().find(|port| port.name == "logits");
        let extents = logits.and_then(|port| port.ty.tensor()).map(|ty| ty.dims.clone()).unwrap_or_default();
        let classes = match (config.loss.kind, extents.as_slice()) {
            (LossKind::CrossEntropy, [_, classes]) => classes.known().and_then(|n| usize::try_from(n).ok()),
            _ => None,
        };
        Ok(CompiledStepper {
            plans,
            options,
            states,
            config: config.clone(),
            sample,
            classes,
            fixed_batch,
            parameters,
            outputs,
            judged,
            search,
            before: config.detect_anomaly.then(Vec::new),
        })
    }

    /// What changes from step to step, in the order of [`SCALARS`].
    fn numbers(&self, hyper: &Hyper) -> [f32; 4] {
        let numbers = self.config.optimizer.scalars(hyper);
        [
            numbers.learning_rate as f32,
            numbers.momentum as f32,
            numbers.first_correction as f32,
            numbers.second_correction as f32,
        ]
    }

    /// Extents of a batch of inputs.
    fn extents(&self, len: usize) -> Vec<usize> {
        std::iter::once(len).chain(self.sample.iter().copied()).collect()
    }
}

/// Names of a function's inputs.
fn input_names(f: &Function) -> Vec<String> {
    let name = |v| match f.op(v) {
        Op::Input { name, .. } => name.clone(),
        _ => String::new(),
    };
    f.input_values().map(name).collect()
}

fn no_function(name: &str) -> StepperError {
    StepperError::Run(RunError::Internal(format!("the step's module has no function `{name}`")))
}

/// Extents of the network's input, at least one, and of a sample of it: those that the network has, which must hold as
/// many elements as a sample of the data.
fn sample_of(step: &Function, found: &[usize]) -> Result<(Vec<Dim>, Vec<usize>), StepperError> {
    let data = step.inputs().iter().enumerate().filter_map(|(i, id)| match &step.node(*id).op {
        Op::Input { name, ty } if !step.donations.iter().any(|d| d.input == i) => Some((name, ty)),
        _ => None,
    });
    let data: Vec<_> = data.filter(|(name, _)| *name != "target" && !SCALARS.contains(&name.as_str())).collect();
    let [(name, ty)] = data[..] else {
        let names: Vec<String> = data.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(StepperError::Inputs { names: names.join(", ") });
    };
    let wrong = || StepperError::Sample { name: name.clone(), expected: ty.to_string(), found: found.to_vec() };
    let ty = ty.tensor().filter(|ty| ty.dtype == DType::F32 && ty.rank() > 0).ok_or_else(wrong)?;
    // Extents that the network leaves open are those of the sample.
    let own: Option<Vec<usize>> = ty.dims[1..].iter().map(|d| usize::try_from(d.known()?).ok()).collect();
    match own {
        Some(own) if own.iter().product::<usize>() == found.iter().product::<usize>() => Ok((ty.dims.clone(), own)),
        None if ty.rank() == found.len() + 1 => Ok((ty.dims.clone(), found.to_vec())),
        _ => Err(wrong()),
    }
}

/// A view of numbers in memory.
fn view<'a, T: bytemuck::NoUninit>(dtype: DType, shape: &'a [usize], data: &'a [T]) -> TensorView<'a> {
    TensorView { dtype, shape, data: bytemuck::cast_slice(data) }
}

/// The targets of a batch, and their extents.
fn targets<'a>(batch: &'a Batch<'_>, shape: &'a mut Vec<usize>) -> TensorView<'a> {
    shape.clear();
    shape.push(batch.len);
    match batch.targets {
        TargetSlice::Classes(classes) => view(DType::I64, shape, classes),
        TargetSlice::Values { data, shape: own } => {
            shape.extend_from_slice(own);
            view(DType::F32, shape, data)
        }
    }
}

fn scalar<T: bytemuck::AnyBitPattern>(context: &Context, index: usize) -> Result<T, RunError> {
    let found = context.output(index)?.tensor().and_then(|view| bytemuck::try_pod_read_unaligned(view.data).ok());
    found.ok_or_else(|| RunError::Internal(format!("output {index} is no scalar")))
}

fn count(context: &Context, index: Option<usize>) -> Result<Option<u64>, RunError> {
    index.map(|index| scalar::<i64>(context, index).map(|n| u64::try_from(n).unwrap_or(0))).transpose()
}

impl Stepper for CompiledStepper {
    fn step(&mut self, batch: &Batch<'_>, hyper: &Hyper) -> Result<StepResult, StepError> {
        if let Some(before) = &mut self.before {
            before.resize_with(self.states.len(), Vec::new);
            for (kept, state) in before.iter_mut().zip(&self.states) {
                kept.clear();
                kept.extend_from_slice(state.bytes());
            }
        }
        let numbers = self.numbers(hyper);
        let (extents, mut target) = (self.extents(batch.len), Vec::new());
        let mut inputs: Vec<InputRef<'_>> =
            vec![view(DType::F32, &extents, batch.inputs).into(), targets(batch, &mut target).into()];
        inputs.extend(numbers.chunks(1).map(|n| InputRef::from(view(DType::F32, &[], n))));
        let more = || plans::open(self.search.module(), &self.options);
        let step = self.plans.ready(batch.len, Part::Step, more)?;
        step.step(&inputs, &mut self.states)?;
        Ok(StepResult {
            loss: scalar(step, 0)?,
            correct: count(step, self.outputs.correct)?,
            grad_norm: scalar(step, self.outputs.norm)?,
        })
    }

    fn evaluate(&mut self, batch: &Batch<'_>) -> Result<EvalResult, StepError> {
        let (extents, mut target) = (self.extents(batch.len), Vec::new());
        let mut inputs: Vec<InputRef<'_>> =
            vec![view(DType::F32, &extents, batch.inputs).into(), targets(batch, &mut target).into()];
        for &at in &self.judged {
            let view = self.states.get(at).and_then(StateBuffer::view);
            inputs.push(view.ok_or_else(|| RunError::Internal("state that grows".to_owned()))?.into());
        }
        let more = || plans::open(self.search.module(), &self.options);
        let evaluate = self.plans.ready(batch.len, Part::Evaluate, more)?;
        evaluate.run(&inputs)?;
        // After the loss, where there is one.
        let correct = self.outputs.correct.map(|_| 1);
        Ok(EvalResult { loss: scalar(evaluate, 0)?, correct: count(evaluate, correct)? })
    }

    fn state(&self) -> Result<State, StepError> {
        let named = self.states.iter().map(|state| Ok((state.name().to_owned(), state.to_tensor()?)));
        Ok(named.collect::<Result<IndexMap<_, _>, RunError>>()?)
    }

    fn lend(&self, take: &mut Take<'_>) -> Result<Result<(), TrainError>, StepError> {
        let mut views = Vec::with_capacity(self.states.len());
        for state in &self.states {
            let view = state.view().ok_or_else(|| RunError::Internal("state that grows".to_owned()))?;
            views.push((state.name(), view));
        }
        Ok(take(&views))
    }

    fn set_state(&mut self, state: &State) -> Result<(), StepError> {
        for buffer in &mut self.states {
            let value = state.get(buffer.name());
            let value = value.ok_or_else(|| StepperError::State { name: buffer.name().to_owned() })?;
            buffer.set(value.into())?;
        }
        Ok(())
    }

    fn classes(&self) -> Option<usize> {
        self.classes
    }

    fn parameters(&self) -> Parameters {
        self.parameters.clone()
    }

    fn memory(&self, batches: &[usize]) -> Result<StepMemory, StepError> {
        self.plans.memory(batches, &self.sample, self.before.is_some())
    }

    fn rewind(&mut self) -> Result<bool, StepError> {
        let Some(before) = &self.before else { return Ok(false) };
        for (kept, state) in before.iter().zip(&mut self.states) {
            let (dtype, shape) = (state.dtype(), state.shape().to_vec());
            state.set(TensorView { dtype, shape: &shape, data: kept })?;
        }
        Ok(!before.is_empty())
    }

    fn anomaly(&mut self, batch: &Batch<'_>, hyper: Option<&Hyper>) -> Result<Option<String>, StepError> {
        let numbers = hyper.map(|hyper| self.numbers(hyper));
        let (extents, mut target) = (self.extents(batch.len), Vec::new());
        let target = targets(batch, &mut target);
        let data = view(DType::F32, &extents, batch.inputs);
        let input = |name: &str| -> Option<InputRef<'_>> {
            let scalar = SCALARS.iter().position(|scalar| *scalar == name);
            if let (Some(at), Some(numbers)) = (scalar, &numbers) {
                return numbers.get(at..=at).map(|n| view(DType::F32, &[], n).into());
            }
            match self.states.iter().find(|state| state.name() == name) {
                Some(state) => state.view().map(InputRef::from),
                None if name == "target" => Some(target.into()),
                None => Some(data.into()),
            }
        };
        let found = match hyper {
            None => self.search.find("evaluate", "loss", input)?,
            Some(_) => match self.search.find("train_step", "loss", input)? {
                None => self.search.find("train_step", "grad_norm", input)?,
                found => found,
            },
        };
        Ok(Some(found.unwrap_or_else(|| "no op as it is written; rewrites of fast maths, or their order".to_owned())))
    }
}
