//! A training step that fits a limit: how much of the forward is computed again.
//!
//! In: a step, and a [`Room`]. Out: options with which it fits, or the least that it can take. Storing is made dearer, so
//! that more of what lies between products is computed again (`fuse(store=N)`), and the forward is cut into ever more
//! parts (`segments=N`), of which the gradient gets one after the other. Plans are made without machine code until one
//! fits; what costs least time comes first.

use frit_compiler::driver;
use frit_compiler::plan::{Plan, Port};
use frit_ir::Module;
use frit_ir::model::train::SCALARS;
use frit_passes::manager::Level;

use super::StepperError;
use super::compiled::Extents;
use super::memory::{MemoryPlan, Room, StepMemory};
use crate::compile::CompileOptions;
use crate::load::LoadError;
use crate::pool::Pool;
use crate::session::{Footprint, Model, RunError, footprint_of};

/// What is tried: parts, and how dear storing is.
const LADDER: [(u32, u32); 11] =
    [(1, 4), (1, 16), (2, 4), (3, 4), (4, 4), (6, 16), (8, 16), (12, 16), (16, 16), (24, 16), (32, 16)];

/// What a step must fit.
pub(super) struct Fit<'f> {
    /// How it is compiled when there is no limit.
    pub(super) options: &'f CompileOptions,
    /// Extents of a sample.
    pub(super) sample: &'f [usize],
    /// What the run may take.
    pub(super) room: &'f Room,
    /// Bytes of it.
    pub(super) limit: u64,
    /// Whether steps keep a copy of state.
    pub(super) kept: bool,
    /// Bytes of initial values, which go when state is made.
    pub(super) held: u64,
}

impl Fit<'_> {
    /// Options with which the run fits; `None`: it does as it is. `plans`: the extents and batches of each of `models`.
    pub(super) fn thrifty(
        &self,
        made: &Module,
        plans: &[(Extents, Vec<usize>)],
        models: &[Model],
    ) -> Result<Option<CompileOptions>, StepperError> {
        // Kernels that have no code yet take scratch memory like those that have.
        let planned = |found: &[&Plan], scratch: u64| -> Result<MemoryPlan, StepperError> {
            let of: Vec<_> = found.iter().zip(plans).map(|(plan, (_, sizes))| (*plan, sizes.as_slice())).collect();
            let mut step = step_memory(&of, self.sample, self.kept)?;
            step.scratch = step.scratch.max(scratch);
            Ok(self.room.plan(step, step.state.saturating_sub(self.held)))
        };
        let first = planned(&models.iter().map(Model::plan).collect::<Vec<_>>(), 0)?;
        let mut best = first;
        if first.peak <= self.limit {
            return Ok(None);
        }
        // What was taken until now can't be given back.
        let hopeless = first.until_now > self.limit;
        for (parts, store) in LADDER.into_iter().filter(|_| !hopeless) {
            let Some(options) = self.thriftier(parts, store) else { break };
            let plan = |(extents, _): &(Extents, _)| {
                let options = CompileOptions { dims: extents.clone(), ..options.clone() };
                driver::plan(made.clone(), &options).map_err(LoadError::Compile)
            };
            let thriftier = plans.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
            let found = planned(&thriftier.iter().collect::<Vec<_>>(), first.step.scratch)?;
            if found.peak <= self.limit {
                return Ok(Some(options));
            }
            if found.peak < best.peak {
                best = found;
            }
        }
        let (planned, least, limit) = (first.peak, best.peak, self.limit);
        Err(StepperError::Memory { planned, least, limit, plan: Box::new(best) })
    }

    /// Options that store less; `None` where the passes form no kernels.
    fn thriftier(&self, parts: u32, store: u32) -> Option<CompileOptions> {
        let text = self.options.passes.clone().unwrap_or_else(|| self.options.level.pipeline_text().to_owned());
        let (before, after) = text.rsplit_once("fuse")?;
        let passes = match after.strip_prefix('(') {
            Some(rest) => format!("{before}fuse(segments={parts},store={store},{rest}"),
            None => format!("{before}fuse(segments={parts},store={store}){after}"),
        };
        let dump_dir = None;
        Some(CompileOptions { passes: Some(passes), dump_dir, ..self.options.clone() }).filter(|_| self.fuses())
    }

    fn fuses(&self) -> bool {
        self.options.passes.is_some() || self.options.level != Level::O0
    }
}

/// What steps and evaluations take: of each plan on batches of these sizes, in turn and in the same memory.
pub(super) fn step_memory(plans: &[(&Plan, &[usize])], sample: &[usize], kept: bool) -> Result<StepMemory, RunError> {
    let entry = |plan: &Plan, name: &str| plan.entries.iter().find(|(entry, _)| entry == name).map(|(_, id)| *id);
    let threads = Pool::global().threads();
    let mut taken = Footprint::default();
    for (plan, sizes) in plans {
        for id in ["train_step", "evaluate"].into_iter().filter_map(|name| entry(plan, name)) {
            for size in *sizes {
                let shapes = shapes(&plan.programs[id.index()].inputs, sample, *size);
                taken = taken.or(footprint_of(plan, id, &shapes, threads)?);
            }
        }
    }
    let step = plans.first().and_then(|(plan, _)| Some(&plan.programs[entry(plan, "train_step")?.index()]));
    let states = step.into_iter().flat_map(|p| p.states.iter().map(|s| &p.inputs[s.input as usize]));
    let state = states.map(bytes_of).fold(0u64, u64::saturating_add);
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Ok(StepMemory { state, kept: if kept { state } else { 0 }, arena: wide(taken.arena), scratch: wide(taken.scratch) })
}

/// Bytes of a port whose extents are known.
fn bytes_of(port: &Port) -> u64 {
    let ty = port.ty.tensor();
    let count = ty.and_then(|ty| ty.known_dims()?.iter().try_fold(ty.dtype.size(), |n, d| n.checked_mul(*d)));
    count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// Shapes of inputs: those that a type leaves open are a batch's, and of the data a sample's.
fn shapes(ports: &[Port], sample: &[usize], batch: usize) -> Vec<Vec<usize>> {
    let shape = |port: &Port| {
        let Some(ty) = port.ty.tensor() else { return Vec::new() };
        let is_data = port.name != "target" && !SCALARS.contains(&port.name.as_str());
        let extent = |(axis, dim): (usize, &frit_ir::Dim)| match dim.known() {
            Some(known) => usize::try_from(known).unwrap_or(0),
            None if axis > 0 && is_data => sample.get(axis - 1).copied().unwrap_or(1),
            None => batch,
        };
        ty.dims.iter().enumerate().map(extent).collect()
    };
    ports.iter().map(shape).collect()
}
