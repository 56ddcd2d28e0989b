//! The step and the evaluation of a network, compiled for the batch that nearly all steps are of, and for any other.
//!
//! In: the module of both functions, and the sizes that batches of a run have. Out: contexts that run them, which take
//! turns in one memory. Where extents are known, fewer and larger kernels are formed and nothing is computed of sizes; so
//! the full batch has a plan of its own. The rest of an epoch runs by a plan that leaves the extent open.
//!
//! ```text
//!  batch of 64  --->  plan of 64  (train_step, evaluate)  \
//!  batch of 16  --->  open plan   (train_step, evaluate)  --- one arena, one state
//! ```

use frit_ir::{Function, Module};

use super::super::memory::{Room, StepMemory};
use super::super::{fit, stepper::StepError};
use super::StepperError;
use crate::compile::CompileOptions;
use crate::load::LoadError;
use crate::session::{Context, Model};

/// Extents that a plan is made for, by symbol; none: any.
pub(in crate::train) type Extents = Vec<(String, usize)>;

/// What is compiled, before it is.
pub(in crate::train) struct Wanted {
    /// The size of a full batch and the extents that it gives the network, where the network leaves it open.
    full: Option<(usize, Extents)>,
    /// Sizes of other batches.
    others: Vec<usize>,
}

impl Wanted {
    /// What a run needs. `extents` are those of the network's input, `sample` those of a sample.
    pub(super) fn of(step: &Function, extents: &[frit_ir::Dim], sample: &[usize], room: &Room) -> Wanted {
        let is_open = extents.first().is_some_and(|batch| batch.known().is_none());
        let full = is_open.then(|| fixed(step, extents, sample, room.batch)).flatten();
        let mut others = room.others.clone();
        if full.is_none() {
            others.push(room.batch);
        }
        Wanted { full: full.map(|extents| (room.batch, extents)), others }
    }

    /// The plans, each with the sizes that it runs.
    pub(in crate::train) fn plans(&self) -> Vec<(Extents, Vec<usize>)> {
        let full = self.full.iter().map(|(size, extents)| (extents.clone(), vec![*size]));
        let others = (!self.others.is_empty()).then(|| (Extents::new(), self.others.clone()));
        full.chain(others).collect()
    }
}

/// What symbols are for a batch; `None` where they can't be that, which a run then says.
fn fixed(step: &Function, extents: &[frit_ir::Dim], sample: &[usize], batch: usize) -> Option<Extents> {
    let mut found = Extents::new();
    for (dim, extent) in extents.iter().zip(std::iter::once(batch).chain(sample.iter().copied())) {
        let Some(symbol) = dim.as_symbol() else { continue };
        let n = i64::try_from(extent).ok()?;
        let facts = step.symbols.get(symbol).cloned().unwrap_or_default();
        let fits = n >= facts.min && facts.max.is_none_or(|most| n <= most) && n % facts.multiple_of.max(1) == 0;
        if !fits || found.iter().any(|(name, other)| name == symbol.name() && *other != extent) {
            return None;
        }
        found.push((symbol.name().to_owned(), extent));
    }
    (!found.is_empty()).then_some(found)
}

/// Compiles a module for each of some plans, side by side; what is dumped is of the first.
pub(super) fn compile(
    module: Module,
    plans: &[(Extents, Vec<usize>)],
    options: &CompileOptions,
) -> Result<Vec<Model>, StepperError> {
    let Some(((first, _), rest)) = plans.split_first() else { return Ok(Vec::new()) };
    let rest: Vec<(&Extents, Module)> = rest.iter().map(|(extents, _)| (extents, module.clone())).collect();
    let others = &CompileOptions { dump_dir: None, ..options.clone() };
    std::thread::scope(|scope| {
        let others: Vec<_> =
            rest.into_iter().map(|(extents, module)| scope.spawn(move || one(module, extents, others))).collect();
        let mut made = vec![one(module, first, options)?];
        for other in others {
            made.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(made)
    })
}

/// Compiles a module for batches of any size, beside plans that are there.
pub(super) fn open(module: &Module, options: &CompileOptions) -> Result<Model, StepperError> {
    one(module.clone(), &Extents::new(), &CompileOptions { dump_dir: None, ..options.clone() })
}

fn one(module: Module, extents: &Extents, options: &CompileOptions) -> Result<Model, StepperError> {
    Ok(Model::compile(module, &CompileOptions { dims: extents.clone(), ..options.clone() })?.model)
}

/// Which function of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Step,
    Evaluate,
}

/// Contexts for batches of all sizes.
pub(super) struct Plans {
    /// Size of a full batch, where it has contexts of its own: the first two.
    full: Option<usize>,
    /// Of each plan, step and evaluation.
    contexts: Vec<Context>,
    /// Which ran last: it has the memory.
    last: usize,
}

impl Plans {
    /// Of compiled models.
    pub(super) fn new(models: &[Model], wanted: &Wanted) -> Result<Plans, StepperError> {
        let full = wanted.full.as_ref().map(|(size, _)| *size);
        Ok(Plans { full, contexts: contexts(models)?, last: 0 })
    }

    /// Where a batch's context is.
    fn place(&self, len: usize, part: Part) -> usize {
        let other = self.full.is_some_and(|full| full != len);
        2 * usize::from(other) + usize::from(part == Part::Evaluate)
    }

    /// A function of the first plan.
    pub(super) fn model(&self, part: Part) -> Option<&Model> {
        self.contexts.get(usize::from(part == Part::Evaluate)).map(Context::model)
    }

    /// The context for a batch, with all memory; `more` compiles the open plan, when the first batch of another size
    /// comes and nobody said that it would.
    pub(super) fn ready(
        &mut self,
        len: usize,
        part: Part,
        more: impl FnOnce() -> Result<Model, StepperError>,
    ) -> Result<&mut Context, StepError> {
        let place = self.place(len, part);
        if place >= self.contexts.len() {
            self.contexts.extend(contexts(&[more()?])?);
        }
        if let Ok([next, last]) = self.contexts.get_disjoint_mut([place, self.last]) {
            next.take_over(last);
        }
        self.last = place;
        self.contexts.get_mut(place).ok_or_else(|| StepError::from(format!("there is no plan for {len} records")))
    }

    /// What batches of these sizes take.
    pub(super) fn memory(&self, batches: &[usize], sample: &[usize], kept: bool) -> Result<StepMemory, StepError> {
        let plan = |len: &usize| self.contexts.get(self.place(*len, Part::Step)).map(|c| c.model().plan());
        let plans: Vec<_> = batches.iter().filter_map(|len| Some((plan(len)?, std::slice::from_ref(len)))).collect();
        Ok(fit::step_memory(&plans, sample, kept)?)
    }
}

/// A context for each function of some models.
fn contexts(models: &[Model]) -> Result<Vec<Context>, StepperError> {
    let mut made = Vec::with_capacity(2 * models.len());
    for model in models {
        for name in ["train_step", "evaluate"] {
            made.push(model.function(name).map_err(LoadError::Model)?.context());
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use frit_ir::model::Mlp;

    use super::super::super::{CompiledStepper, Config, Hyper, Stepper as _};
    use super::*;
    use crate::data::dataset::{Batch, TargetSlice};

    /// Losses of steps and evaluations on batches of these sizes.
    fn losses(batch: u32, room: &Room, sizes: &[usize]) -> (Vec<f32>, Vec<usize>) {
        let config = Config { batch, ..Config::default() };
        let module = Mlp { layers: vec![4, 5, 3], ..Mlp::default() }.module(0).unwrap();
        let options = CompileOptions::default();
        let mut stepper = CompiledStepper::within(module, &config, &[4], &options, room).unwrap();
        assert_eq!(stepper.fixed_batch(), None);
        let (mut found, mut contexts) = (Vec::new(), Vec::new());
        for (k, &len) in sizes.iter().enumerate() {
            let inputs: Vec<f32> = (0..4 * len).map(|i| ((i * 7 + k) % 11) as f32 / 5.0 - 1.0).collect();
            let classes: Vec<i64> = (0..len as i64).map(|i| i % 3).collect();
            let batch = Batch { len, inputs: &inputs, shape: &[4], targets: TargetSlice::Classes(&classes) };
            let hyper = Hyper { step: 1 + k as u64, learning_rate: 0.1, momentum: 0.9 };
            found.push(stepper.step(&batch, &hyper).unwrap().loss);
            found.push(stepper.evaluate(&batch).unwrap().loss);
            contexts.push(stepper.plans.contexts.len());
        }
        assert!(stepper.memory(sizes).unwrap().arena > 0);
        (found, contexts)
    }

    #[test]
    fn the_full_batch_has_a_plan_and_others_share_one() {
        let sizes = [8, 8, 5, 8, 3];
        let full = Room { batch: 8, ..Room::default() };
        let (expected, late) = losses(8, &full, &sizes);
        assert_eq!(late, [2, 2, 4, 4, 4]);
        let told = Room { others: vec![5, 3], ..full.clone() };
        assert_eq!(losses(8, &told, &sizes), (expected.clone(), vec![4; 5]));
        // By another plan, sums may round otherwise.
        let (open, _) = losses(64, &Room { batch: 64, ..full }, &sizes);
        assert!(expected.iter().zip(&open).all(|(a, b)| (a - b).abs() < 1e-5), "{expected:?} {open:?}");
    }

    #[test]
    fn extents_that_do_not_fit_stay_open() {
        let made = |facts: frit_ir::graph::SymbolFacts, batch| {
            let mut f = Function::new("train_step");
            f.symbols.insert(frit_ir::Symbol::new("B"), facts);
            let dims = [frit_ir::Dim::symbol("B"), frit_ir::Dim::symbol("T"), frit_ir::Dim::Known(4)];
            let room = Room { batch, others: vec![2], ..Room::default() };
            Wanted::of(&f, &dims, &[7, 4], &room).plans()
        };
        let any = frit_ir::graph::SymbolFacts::default();
        let fixed = vec![("B".to_owned(), 8), ("T".to_owned(), 7)];
        assert_eq!(made(any.clone(), 8), [(fixed, vec![8]), (Vec::new(), vec![2])]);
        let open = [(Vec::new(), vec![2, 8])];
        assert_eq!(made(frit_ir::graph::SymbolFacts { min: 9, ..any.clone() }, 8), open);
        assert_eq!(made(frit_ir::graph::SymbolFacts { max: Some(7), ..any.clone() }, 8), open);
        assert_eq!(made(frit_ir::graph::SymbolFacts { multiple_of: 3, ..any }, 8), open);
    }
}
