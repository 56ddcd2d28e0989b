//! Runs programs of a plan: binds extents, walks the steps.
//!
//! ```text
//!  session --inputs--> frame   extents, guards, places of values
//!                        |
//!                      mod     steps in order --> kernels (memory), library, control, sequence
//! ```
//!
//! In: a model, frames whose inputs are bound. Out: frames whose outputs are written. Each program of the plan has one
//! frame in a context; programs call earlier ones only, so a frame is in use at most once at a time, and is taken out of
//! the list while it is. `footprint` says what a run will take before it does. Nothing here allocates when a run has the extents of the one before, host values excepted.

mod control;
mod footprint;
mod frame;
mod library;
pub(crate) mod memory;
mod packed;
mod sequence;

use std::time::Instant;

use frit_compiler::cpu::functions;
use frit_compiler::plan::{KernelId, Plan, Program, ProgramId, SlotId, Step};

pub use footprint::Footprint;
pub(crate) use footprint::footprint;
pub(crate) use frame::{Facts, Frame, Kept, reserve};
pub(crate) use packed::PackedOperands;

use crate::pool::Pool;
use crate::session::{ModelData, Profile, RunError};
use memory::{Buffer, PhaseCall, Region, run_phase};

/// A run under way.
pub(crate) struct Run<'r> {
    pub(crate) model: &'r ModelData,
    pub(crate) pool: &'r Pool,
    /// Scratch memory of kernels and library calls.
    pub(crate) scratch: &'r mut Buffer,
    /// A frame for each program.
    pub(crate) frames: &'r mut [Frame],
    /// Where step times go.
    pub(crate) profile: Option<&'r mut Profile>,
    /// Most bytes that one buffer may take.
    pub(crate) limit: usize,
}

/// The program at work, with its frame.
struct At<'a> {
    program: &'a Program,
    facts: &'a Facts,
    frame: &'a mut Frame,
}

impl At<'_> {
    /// Where a slot lies; late ones get their memory.
    fn region(&mut self, slot: SlotId, limit: usize) -> Result<Region, RunError> {
        self.frame.prepare(self.program, self.facts, slot, limit)
    }

    /// The elements of a scalar slot.
    fn scalar<const N: usize>(&mut self, slot: SlotId, limit: usize) -> Result<[u8; N], RunError> {
        let region = self.region(slot, limit)?;
        region.bytes().try_into().map_err(|_| RunError::Internal("a scalar of another size".to_owned()))
    }
}

impl<'r> Run<'r> {
    fn plan(&self) -> &'r Plan {
        &self.model.plan
    }

    /// Runs a program; its frame's inputs are bound.
    pub(crate) fn execute(&mut self, id: ProgramId, frame: &mut Frame) -> Result<(), RunError> {
        let (plan, program, facts) = (self.plan(), &self.plan().programs[id.index()], &self.model.facts[id.index()]);
        frame.begin(plan, program, facts, self.limit)?;
        let mut at = At { program, facts, frame };
        for (i, step) in program.steps.iter().enumerate() {
            let start = self.profile.is_some().then(Instant::now);
            self.step(&mut at, step)?;
            if let (Some(start), Some(profile)) = (start, self.profile.as_deref_mut()) {
                profile.add(id, i, start.elapsed());
            }
        }
        Ok(())
    }

    fn step(&mut self, at: &mut At<'_>, step: &Step) -> Result<(), RunError> {
        match step {
            Step::Kernel { kernel, arguments, lens, dims, phases } => {
                for (slot, len) in arguments.iter().zip(lens) {
                    let region = at.region(*slot, self.limit)?;
                    let needed = at.frame.extent(at.program, *len)?.checked_mul(at.facts.element(*slot));
                    if needed.is_none_or(|n| n > region.len()) {
                        return Err(self.too_short(*kernel, region.len(), needed));
                    }
                }
                let At { program, facts, frame } = at;
                frame.pointers.set(arguments.iter().map(|s| frame.regions[facts.root(*s)]));
                let mut values = std::mem::take(&mut frame.kernel_dims);
                values.clear();
                let filled = dims.iter().try_for_each(|d| frame.dim(program, *d).map(|v| values.push(v)));
                frame.kernel_dims = values;
                filled?;
                phases.iter().enumerate().try_for_each(|(i, extent)| {
                    let extent = frame.dim(program, *extent)?;
                    self.kernel_phase(frame, *kernel, i, extent)
                })
            }
            Step::Library { call, operands, results, origin } => self.library(at, call, operands, results, origin),
            Step::Compact { mask, result, symbol } => {
                let mask = at.region(*mask, self.limit)?;
                let count = mask.bytes().iter().filter(|b| **b != 0).count() as i64;
                at.frame.bind(self.plan(), at.program, *symbol, count)?;
                let writes = [at.region(*result, self.limit)?];
                let mut views = memory::Views::new(&[], &writes).ok_or_else(overlap)?;
                let indices = views.write::<i64>(0).ok_or_else(overlap)?;
                let set = mask.bytes().iter().enumerate().filter(|(_, b)| **b != 0);
                indices.iter_mut().zip(set).for_each(|(place, (i, _))| *place = i as i64);
                Ok(())
            }
            Step::If { condition, then, otherwise, arguments, results, binds, origin } => {
                let [condition] = at.scalar::<1>(*condition, self.limit)?;
                let chosen = if condition != 0 { *then } else { *otherwise };
                self.call(at, chosen, arguments, results, binds, origin)
            }
            Step::Loop { .. } => self.repeat(at, step),
            Step::Call { program, arguments, results, origin } => {
                self.call(at, *program, arguments, results, &[], origin)
            }
            Step::Assert { condition, message, origin } => {
                let region = at.region(*condition, self.limit)?;
                if region.bytes().contains(&0) {
                    return Err(RunError::Assertion { origin: origin.clone(), message: message.clone() });
                }
                Ok(())
            }
            Step::Sequence { op, operands, result, origin } => self.sequence(at, *op, operands, *result, origin),
            Step::Copy { from, to } => self.copy(at, *from, *to),
        }
    }

    /// No guard should let this happen; a kernel does not check its own indices, so it is asked again.
    #[cold]
    fn too_short(&self, kernel: KernelId, found: usize, needed: Option<usize>) -> RunError {
        let origin = self.plan().kernels[kernel.index()].origin.clone();
        let needed = needed.map_or_else(|| "more than 64 bits hold".to_owned(), |n| n.to_string());
        RunError::Shape { origin, message: format!("a value has {found} bytes, {needed} are needed for these inputs") }
    }

    fn copy(&mut self, at: &mut At<'_>, from: SlotId, to: SlotId) -> Result<(), RunError> {
        let (source, target) = (at.facts.root(from), at.facts.root(to));
        if at.frame.host[source].is_some() {
            at.frame.host[target] = at.frame.host[source].clone();
            return Ok(());
        }
        let source = at.region(from, self.limit)?;
        let copied = at.region(to, self.limit)?.copy_from(source);
        if copied { Ok(()) } else { Err(RunError::Internal("a copy between different sizes".to_owned())) }
    }

    fn kernel_phase(&mut self, frame: &Frame, kernel: KernelId, phase: usize, extent: i64) -> Result<(), RunError> {
        let plan = self.plan();
        let info = &plan.kernels[kernel.index()];
        let code = &info.phases[phase];
        let stride = code.scratch.next_multiple_of(frit_compiler::plan::memory::ALIGN);
        let threads = self.pool.threads();
        let wanted = stride.saturating_mul(threads);
        reserve(self.scratch, wanted, self.limit, || format!("scratch memory of kernel `{}`", info.name))?;
        let scratch = self.scratch.region(0, wanted).unwrap_or_default();
        let call = PhaseCall {
            code: &self.model.code,
            entry: info.code + code.entry,
            buffers: &frame.pointers,
            dims: &frame.kernel_dims,
            scratch,
            stride,
            functions: functions::table(),
        };
        match run_phase(&call, self.pool, extent, code.grain) {
            0 => Ok(()),
            u32::MAX => Err(RunError::Internal(format!("kernel `{}` could not be entered", info.name))),
            status => {
                let message = info.traps.get(status as usize - 1).cloned();
                let message = message.unwrap_or_else(|| format!("check {} failed", status - 1));
                // A check names the op that asks for it, which may be all that the kernel is.
                let message = match message.strip_prefix(&info.origin).and_then(|rest| rest.strip_prefix(": ")) {
                    Some(alone) => alone.to_owned(),
                    None => message,
                };
                Err(RunError::Trap { origin: info.origin.clone(), message })
            }
        }
    }
}

fn overlap() -> RunError {
    RunError::Internal("a step's values overlap in memory".to_owned())
}
