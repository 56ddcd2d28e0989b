//! What follows from constants alone is computed once, when a model is made.
//!
//! A step moves to the plan's preparation when everything that it reads is a constant or was prepared itself, its
//! extents are known, it can't fail, and its results are not much larger than what they were made from: a transposed
//! weight matrix yes, a mask written out over a whole attention matrix no. The values that other steps read become
//! outputs of the preparation.

use std::collections::{HashMap, HashSet};

use super::super::{Place, PlanKernel, Port, Program, ProgramId, SlotId, Step};
use super::lives::{accesses, lives};
use super::{Building, PlanBuilder};

/// Bytes that a prepared result may always have.
const SMALL: usize = 1 << 16;
/// Bytes that it may have for one byte of what it is made from.
const GROWTH: usize = 2;

/// Everything that is prepared, in the making.
#[derive(Default)]
pub(super) struct Preparation {
    building: Option<Building>,
}

impl PlanBuilder<'_> {
    /// Moves what can be prepared out of a program whose steps and outputs are complete.
    pub(super) fn prepare(&mut self, b: &mut Building) {
        let program = &b.program;
        let kept: HashSet<SlotId> = program.outputs.iter().map(|o| program.root(o.slot)).collect();
        let written: Vec<Vec<SlotId>> = program
            .steps
            .iter()
            .map(|step| accesses(step, &self.built.kernels).1.into_iter().map(|s| program.root(s)).collect())
            .collect();
        let mut writers: HashMap<SlotId, usize> = HashMap::new();
        written.iter().flatten().for_each(|slot| *writers.entry(*slot).or_default() += 1);
        let mut ready: HashSet<SlotId> = HashSet::new();
        let mut moved: Vec<usize> = Vec::new();
        for (i, step) in program.steps.iter().enumerate() {
            let private = written[i].iter().all(|s| {
                writers.get(s) == Some(&1)
                    && !kept.contains(s)
                    && matches!(program.slots[s.index()].place, Place::Arena { .. })
            });
            if !private || !pure(program, step, &self.built.plan.kernels) {
                continue;
            }
            let own: HashSet<SlotId> = written[i].iter().copied().collect();
            let reads = accesses(step, &self.built.kernels).0.into_iter().map(|s| program.root(s));
            let reads: HashSet<SlotId> = reads.filter(|s| !own.contains(s)).collect();
            let constant =
                |s: &SlotId| matches!(program.slots[s.index()].place, Place::Constant(_)) || ready.contains(s);
            let size = |slots: &HashSet<SlotId>| slots.iter().map(|s| bytes(program, *s)).sum::<Option<usize>>();
            let (Some(taken), Some(made)) = (size(&reads), size(&own)) else { continue };
            if reads.is_empty() || !reads.iter().all(constant) || made > SMALL.max(taken.saturating_mul(GROWTH)) {
                continue;
            }
            ready.extend(own);
            moved.push(i);
        }
        if moved.is_empty() {
            return;
        }
        let into = self.preparation.building.get_or_insert_with(|| Building::new("preparation", Vec::new()));
        let mut slots: HashMap<SlotId, SlotId> = HashMap::new();
        let steps = std::mem::take(&mut b.program.steps);
        for (i, step) in steps.into_iter().enumerate() {
            if moved.binary_search(&i).is_ok() {
                let step = translated(step, b, into, &mut slots);
                into.push(step);
            } else {
                b.program.steps.push(step);
            }
        }
        // Only what is still read is handed out.
        let mut used: HashSet<SlotId> = HashSet::new();
        for step in &b.program.steps {
            let (reads, writes) = accesses(step, &self.built.kernels);
            used.extend(reads.into_iter().chain(writes).map(|s| b.program.root(s)));
        }
        let mut handed: Vec<SlotId> = ready.into_iter().filter(|s| used.contains(s)).collect();
        handed.sort_unstable();
        for slot in handed {
            let ty = b.program.slots[slot.index()].ty.clone();
            let place = Place::Prepared(into.program.outputs.len() as u32);
            let name = format!("prepared{}", into.program.outputs.len());
            into.program.outputs.push(Port { name, ty, slot: slots[&slot] });
            b.program.slots[slot.index()].place = place;
        }
    }

    /// The program that prepares, if anything is prepared.
    pub(super) fn finish_preparation(&mut self) {
        let Some(mut building) = self.preparation.building.take() else { return };
        lives(&mut building.program, &self.built.kernels);
        let plan = &mut self.built.plan;
        plan.preparation = Some(ProgramId(plan.programs.len() as u32));
        plan.programs.push(building.program);
    }
}

/// Whether a step computes, on extents that are known, and can't fail.
fn pure(program: &Program, step: &Step, kernels: &[PlanKernel]) -> bool {
    match step {
        Step::Kernel { kernel, lens, dims, phases, .. } => {
            let known = lens.iter().chain(dims).chain(phases).all(|d| program.dims[d.index()].known().is_some());
            known && kernels.get(kernel.index()).is_some_and(|k| k.traps.is_empty())
        }
        Step::Library { .. } => true,
        Step::Compact { .. }
        | Step::If { .. }
        | Step::Loop { .. }
        | Step::Call { .. }
        | Step::Assert { .. }
        | Step::Sequence { .. }
        | Step::Copy { .. } => false,
    }
}

/// Bytes of a slot whose extents are known.
fn bytes(program: &Program, slot: SlotId) -> Option<usize> {
    let ty = program.slots[slot.index()].ty.tensor()?;
    usize::try_from(ty.numel().known()?).ok()?.checked_mul(ty.dtype.size())
}

/// A step of one program as a step of another.
fn translated(step: Step, from: &Building, into: &mut Building, slots: &mut HashMap<SlotId, SlotId>) -> Step {
    let mut moved = |ids: Vec<SlotId>, into: &mut Building| -> Vec<SlotId> {
        ids.into_iter().map(|id| slot(id, from, into, slots)).collect()
    };
    let known = |ids: Vec<super::DimId>, into: &mut Building| -> Vec<super::DimId> {
        ids.into_iter().map(|id| into.dim(&from.program.dims[id.index()])).collect()
    };
    match step {
        Step::Kernel { kernel, arguments, lens, dims, phases } => Step::Kernel {
            kernel,
            arguments: moved(arguments, into),
            lens: known(lens, into),
            dims: known(dims, into),
            phases: known(phases, into),
        },
        Step::Library { mut call, operands, results, origin } => {
            call.dims_mut().into_iter().for_each(|id| *id = into.dim(&from.program.dims[id.index()]));
            Step::Library { call, operands: moved(operands, into), results: moved(results, into), origin }
        }
        other => other,
    }
}

fn slot(id: SlotId, from: &Building, into: &mut Building, slots: &mut HashMap<SlotId, SlotId>) -> SlotId {
    if let Some(known) = slots.get(&id) {
        return *known;
    }
    let found = &from.program.slots[id.index()];
    let place = match found.place {
        Place::Alias(of) => Place::Alias(slot(of, from, into, slots)),
        ref other => other.clone(),
    };
    let made = into.slot_at(&found.ty, place);
    slots.insert(id, made);
    made
}
