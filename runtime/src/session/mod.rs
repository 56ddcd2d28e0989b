//! Compiled models and what runs them.
//!
//! ```text
//!  Plan --[Model::new]--> Model   shared, any number of threads: plan, constants, code placed once
//!                           |
//!                      [Model::context]
//!                           v
//!                        Context  one a thread: extents, arena, scratch; run, read outputs, run again
//! ```
//!
//! [`Model::run`] is the call for those who run once; a [`Context`] allocates nothing after the first run with the same
//! shapes. [`Context::step`] runs with state that it updates: a [`StateBuffer`] for each donated input. Inputs are borrowed bytes with a shape ([`TensorView`]) or host values; a mismatch is a [`RunError`] that
//! names the input, the axis, what was expected and found.

mod bind;
mod context;
mod error;
mod profile;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, OnceLock};

use frit_compiler::cpu::exec::ExecutableCode;
use frit_compiler::plan::{Constant, ConstantId, OpCounts, Place, Plan, Port, Program, ProgramId, State};
use frit_ir::{DType, HostValue, Tensor};

pub use context::{Context, Output};
pub use error::RunError;
pub(crate) use error::uncopied;
pub use profile::{Profile, StepTime};
pub use state::StateBuffer;

pub use crate::executor::Footprint;
use crate::executor::{Facts, PackedOperands, footprint};
use crate::pool::Pool;

/// Most bytes that one buffer of a run may take where the system does not tell how much memory it has.
const FALLBACK_MEMORY_LIMIT: usize = 1 << 35;

/// Most bytes that one buffer of a run may take, unless [`Context::set_memory_limit`] says otherwise: the memory of the
/// machine, so that what a small file merely claims to need is refused before anything is paged out for it.
pub fn default_memory_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        physical_memory(&text).unwrap_or(FALLBACK_MEMORY_LIMIT)
    })
}

/// The total that Linux states, in bytes.
fn physical_memory(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).filter(|&bytes| bytes > 0)
}

/// A dense, row-major tensor in someone else's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Elements, little-endian, [`DType::size`] bytes each.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// A copy with memory of its own.
    ///
    /// # Errors
    /// Data whose length is not what shape and type take.
    pub fn to_tensor(&self) -> Result<Tensor, frit_ir::TensorError> {
        Tensor::from_bytes(self.dtype, self.shape, self.data)
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        TensorView { dtype: tensor.dtype(), shape: tensor.shape(), data: tensor.bytes() }
    }
}

/// A value bound to an input.
#[derive(Clone, Copy, Debug)]
pub enum InputRef<'a> {
    /// A tensor.
    Tensor(TensorView<'a>),
    /// A host value: a sequence, a string tensor, or a tensor.
    Host(&'a HostValue),
}

impl<'a> From<TensorView<'a>> for InputRef<'a> {
    fn from(view: TensorView<'a>) -> Self {
        InputRef::Tensor(view)
    }
}

impl<'a> From<&'a Tensor> for InputRef<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        InputRef::Tensor(tensor.into())
    }
}

impl<'a> From<&'a HostValue> for InputRef<'a> {
    fn from(value: &'a HostValue) -> Self {
        InputRef::Host(value)
    }
}

/// Why a plan can't be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The plan's numbers lead nowhere.
    #[error("the plan is damaged: {0}; compile the model again")]
    Plan(String),
    /// The system gives no executable memory.
    #[error("no executable memory for {bytes} bytes of code: {source}")]
    Code {
        /// How much code.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// What follows from its constants can't be computed.
    #[error("what follows from the model's constants can't be computed: {0}")]
    Preparation(#[from] Box<RunError>),
    /// The module has no function to run.
    #[error("the module has no function{}", name.as_ref().map(|n| format!(" `{n}`")).unwrap_or_default())]
    NoEntry {
        /// The function asked for.
        name: Option<String>,
    },
}

/// A compiled model, shared by clones. Many threads may run it at once, each with a [`Context`] of its own.
#[derive(Clone)]
pub struct Model {
    data: Arc<ModelData>,
    entry: ProgramId,
    pool: Option<Arc<Pool>>,
}

/// What all runs of a model share.
pub(crate) struct ModelData {
    pub(crate) plan: Plan,
    pub(crate) code: ExecutableCode,
    /// One entry a program.
    pub(crate) facts: Vec<Facts>,
    /// Constant operands of products.
    pub(crate) packed: PackedOperands,
}

impl ModelData {
    /// A plan with nothing packed.
    fn new(plan: Plan, code: ExecutableCode) -> ModelData {
        let facts = plan.programs.iter().map(Facts::of).collect();
        ModelData { plan, code, facts, packed: PackedOperands::default() }
    }
}

/// Runs the preparation of a plan. What it gives are constants from then on, so that nobody else needs to know of it.
fn prepared(data: ModelData, preparation: ProgramId) -> Result<ModelData, ModelError> {
    let model = Model { data: Arc::new(data), entry: preparation, pool: None };
    let outputs = model.run(&[]).map_err(Box::new)?;
    // No context is left that would hold it.
    let data = Arc::into_inner(model.data).ok_or_else(|| ModelError::Plan("its preparation still runs".to_owned()))?;
    let ModelData { mut plan, code, .. } = data;
    let first = plan.constants.len() as u32;
    plan.constants.extend(outputs.into_iter().map(|(_, value)| Constant { name: String::new(), value }));
    for slot in plan.programs.iter_mut().flat_map(|p| &mut p.slots) {
        if let Place::Prepared(output) = slot.place {
            slot.place = Place::Constant(ConstantId(first + output));
        }
    }
    // It would be computed again by those who load this plan from a file.
    plan.preparation = None;
    Ok(ModelData::new(plan, code))
}

impl Model {
    /// Makes a plan ready: checks its references, places its code, aligns its constants, computes what follows from
    /// them, packs those that products read. Runs `infer`, else the first entry.
    ///
    /// The plan's code is run as it is: it must come from the code generator, or from a file that the caller trusts.
    ///
    /// # Errors
    /// A plan that contradicts itself, no executable memory, no memory for what is prepared, no entry.
    pub fn new(mut plan: Plan) -> Result<Model, ModelError> {
        plan.check().map_err(ModelError::Plan)?;
        for constant in &mut plan.constants {
            let (dtype, shape) = (constant.value.dtype(), constant.value.shape());
            let aligned = constant.value.bytes().as_ptr().addr().is_multiple_of(dtype.size().max(1));
            if !aligned && let Ok(copy) = Tensor::from_bytes(dtype, shape, constant.value.bytes()) {
                constant.value = copy;
            }
        }
        let code =
            ExecutableCode::new(&plan.code).map_err(|source| ModelError::Code { bytes: plan.code.len(), source })?;
        let entry = plan.entries.iter().find(|(name, _)| name == "infer").or_else(|| plan.entries.first());
        let entry = entry.map(|(_, id)| *id).ok_or(ModelError::NoEntry { name: None })?;
        let mut data = ModelData::new(plan, code);
        if let Some(preparation) = data.plan.preparation {
            data = prepared(data, preparation)?;
        }
        data.packed = PackedOperands::of(&data.plan);
        Ok(Model { data: Arc::new(data), entry, pool: None })
    }

    /// The same model, running another of its functions.
    ///
    /// # Errors
    /// No function of that name.
    pub fn function(&self, name: &str) -> Result<Model, ModelError> {
        let found = self.data.plan.entries.iter().find(|(entry, _)| entry == name);
        let (_, entry) = found.ok_or_else(|| ModelError::NoEntry { name: Some(name.to_owned()) })?;
        Ok(Model { entry: *entry, ..self.clone() })
    }

    /// The same model on threads of its own instead of the process's.
    pub fn with_pool(&self, pool: Arc<Pool>) -> Model {
        Model { pool: Some(pool), ..self.clone() }
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.data.plan
    }

    /// The function that it runs.
    pub fn program(&self) -> &Program {
        &self.data.plan.programs[self.entry.index()]
    }

    /// What it takes.
    pub fn inputs(&self) -> &[Port] {
        &self.program().inputs
    }

    /// What it gives.
    pub fn outputs(&self) -> &[Port] {
        &self.program().outputs
    }

    /// Its state: which inputs are donated to which outputs, and how they are updated.
    pub fn states(&self) -> &[State] {
        &self.program().states
    }

    /// How its ops run, in all programs.
    pub fn ops(&self) -> OpCounts {
        let mut sum = OpCounts::default();
        self.data.plan.programs.iter().for_each(|p| sum += p.ops);
        sum
    }

    /// Bytes of memory that it holds besides its plan: constants packed for the kernels of products.
    pub fn packed_bytes(&self) -> usize {
        self.data.packed.bytes()
    }

    /// Memory that a run with inputs of these shapes takes, said before it does.
    ///
    /// # Errors
    /// Shapes from which extents can't be computed.
    pub fn footprint(&self, shapes: &[Vec<usize>]) -> Result<Footprint, RunError> {
        footprint_of(self.plan(), self.entry, shapes, self.pool().threads())
    }

    /// What a thread needs to run it.
    pub fn context(&self) -> Context {
        Context::new(self)
    }

    /// Runs once: named values in, named values out.
    ///
    /// # Errors
    /// Inputs that don't fit, or whatever the run meets.
    pub fn run_values(&self, inputs: &[(&str, &HostValue)]) -> Result<Vec<(String, HostValue)>, RunError> {
        let context = self.ran(inputs.iter().map(|(name, v)| (*name, (*v).into())))?;
        let outputs = self.outputs().iter().enumerate();
        outputs.map(|(i, port)| Ok((port.name.clone(), context.output(i)?.to_host()?))).collect()
    }

    /// A context after a run.
    fn ran<'i>(&self, inputs: impl Iterator<Item = (&'i str, InputRef<'i>)>) -> Result<Context, RunError> {
        let mut context = self.context();
        context.run_named(&inputs.collect::<Vec<_>>())?;
        Ok(context)
    }

    /// Runs once: named tensors in, named tensors out.
    ///
    /// # Errors
    /// Inputs that don't fit, or whatever the run meets.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RunError> {
        let context = self.ran(inputs.iter().map(|(name, t)| (*name, (*t).into())))?;
        let outputs = self.outputs().iter().enumerate();
        outputs
            .map(|(i, port)| match context.output(i)?.to_host()? {
                HostValue::Tensor(tensor) => Ok((port.name.clone(), tensor)),
                _ => Err(RunError::Kind {
                    name: port.name.clone(),
                    expected: "a tensor".to_owned(),
                    found: port.ty.to_string(),
                }),
            })
            .collect()
    }

    pub(crate) fn data(&self) -> &ModelData {
        &self.data
    }

    pub(crate) fn entry(&self) -> ProgramId {
        self.entry
    }

    pub(crate) fn pool(&self) -> &Pool {
        self.pool.as_deref().unwrap_or_else(|| Pool::global())
    }
}

/// [`Model::footprint`] of a plan's program.
pub(crate) fn footprint_of(
    plan: &Plan,
    entry: ProgramId,
    shapes: &[Vec<usize>],
    threads: usize,
) -> Result<Footprint, RunError> {
    let extent = |extent: &usize| i64::try_from(*extent).unwrap_or(i64::MAX);
    let shapes: Vec<Vec<i64>> = shapes.iter().map(|shape| shape.iter().map(extent).collect()).collect();
    footprint(plan, entry, &shapes, threads)
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("source", &self.data.plan.source).field("entry", &self.program().name).finish()
    }
}
