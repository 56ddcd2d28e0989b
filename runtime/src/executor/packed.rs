//! Constant operands of products, packed when the model is made.
//!
//! In: a plan that has been checked. Out: the second operand of every f32 product that is always the same constant, in
//! the layout that the kernels read. Constants that a program hands to a loop, a branch or a callee count too: they are
//! handed down as they lie. A product finds its panels by the operand's place in memory and its shape, so a step needs
//! no field for them, and nothing of this is in a compiled file. The constant itself stays: other steps may read it.

use frit_compiler::plan::{ConstantId, LibraryCall, Place, Plan, Program, SlotId, Step};
use frit_ir::DType;

use super::memory::{Region, Views};
use crate::library::gemm::{GemmShape, Layout, Operand, Panels};

/// What tells packed operands apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackedKey {
    /// Where the constant lies; alive as long as the plan, and never written.
    pub(crate) address: usize,
    /// Stored `[.., n, k]`.
    pub(crate) transposed: bool,
    pub(crate) matrices: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
}

/// Packed operands of a plan.
#[derive(Default)]
pub(crate) struct PackedOperands {
    /// In ascending order.
    entries: Vec<(PackedKey, Panels)>,
}

/// What a program's input is bound to by those who run it.
#[derive(Clone, Copy, PartialEq)]
enum Binding {
    /// Nobody has been seen to run it.
    Unseen,
    /// Always this constant.
    Constant(ConstantId),
    /// Anything.
    Varies,
}

impl Binding {
    fn meet(&mut self, other: Binding) {
        *self = match *self {
            Binding::Unseen => other,
            same if same == other => same,
            _ => Binding::Varies,
        };
    }
}

impl PackedOperands {
    /// Packs what the products of a plan read.
    pub(crate) fn of(plan: &Plan) -> PackedOperands {
        let mut bindings: Vec<Vec<Binding>> =
            plan.programs.iter().map(|p| vec![Binding::Unseen; p.inputs.len()]).collect();
        for (_, entry) in &plan.entries {
            bindings[entry.index()].fill(Binding::Varies);
        }
        let mut packed = PackedOperands::default();
        // Programs call earlier ones only, so all who run a program have been seen before it.
        for (index, program) in plan.programs.iter().enumerate().rev() {
            let own = std::mem::take(&mut bindings[index]);
            let constant = |slot: SlotId| match program.slots[program.root(slot).index()].place {
                Place::Constant(id) => Binding::Constant(id),
                Place::Input(input) => own[input as usize],
                _ => Binding::Varies,
            };
            for step in &program.steps {
                match step {
                    Step::Library { call, operands, .. } => {
                        if let Some(Binding::Constant(id)) = operands.get(1).map(|slot| constant(*slot)) {
                            packed.pack(plan, program, call, id);
                        }
                    }
                    Step::Call { program: callee, arguments, .. } => {
                        for (input, slot) in bindings[callee.index()].iter_mut().zip(arguments) {
                            input.meet(constant(*slot));
                        }
                    }
                    Step::If { then, otherwise, arguments, .. } => {
                        for callee in [then, otherwise] {
                            for (input, slot) in bindings[callee.index()].iter_mut().zip(arguments) {
                                input.meet(constant(*slot));
                            }
                        }
                    }
                    Step::Loop { body, arguments, carried, .. } => {
                        // Counter and condition come first; carried values change from trip to trip.
                        let arguments = arguments
                            .iter()
                            .enumerate()
                            .map(|(i, slot)| if i < *carried as usize { Binding::Varies } else { constant(*slot) });
                        let all = [Binding::Varies; 2].into_iter().chain(arguments);
                        bindings[body.index()].iter_mut().zip(all).for_each(|(input, binding)| input.meet(binding));
                    }
                    Step::Kernel { .. }
                    | Step::Compact { .. }
                    | Step::Assert { .. }
                    | Step::Sequence { .. }
                    | Step::Copy { .. } => {}
                }
            }
        }
        packed
    }

    /// Packs the second operand of a call, if it is a product that gains by it.
    fn pack(&mut self, plan: &Plan, program: &Program, call: &LibraryCall, constant: ConstantId) {
        let LibraryCall::MatMul { batch, n, k, rhs_transposed, dtype: DType::F32, accumulate: DType::F32, .. } = call
        else {
            return;
        };
        let extent = |dim: &frit_compiler::plan::DimId| {
            program.dims[dim.index()].known().and_then(|extent| usize::try_from(extent).ok())
        };
        let matrices = batch.iter().map(extent).try_fold(1usize, |all, extent| all.checked_mul(extent?));
        let (Some(matrices), Some(k), Some(n)) = (matrices, extent(k), extent(n)) else { return };
        let region = Region::read_only(plan.constants[constant.index()].value.bytes());
        let key = PackedKey { address: region.address(), transposed: *rhs_transposed, matrices, k, n };
        let Err(place) = self.entries.binary_search_by_key(&key, |(key, _)| *key) else { return };
        let reads = [region];
        let data = Views::new(&reads, &[]).and_then(|views| views.read::<f32>(0));
        let (Some(data), Some(between)) = (data, k.checked_mul(n).and_then(|size| isize::try_from(size).ok())) else {
            return;
        };
        let stride = [between];
        let layout = Layout { batch: &stride, ..Layout::matrix(k, n, *rhs_transposed) };
        let shape = GemmShape { batch: &[matrices], m: 1, n, k };
        // Where it can't be packed, or there is no memory, the product reads it as it lies.
        if let Ok(Some(panels)) = Panels::new(&shape, Operand { data, layout }) {
            self.entries.insert(place, (key, panels));
        }
    }

    /// The panels of an operand.
    pub(crate) fn find(&self, key: &PackedKey) -> Option<&Panels> {
        let at = self.entries.binary_search_by_key(key, |(key, _)| *key).ok()?;
        self.entries.get(at).map(|(_, panels)| panels)
    }

    /// For each: whether it is stored transposed, k and n.
    #[cfg(test)]
    pub(crate) fn shapes(&self) -> Vec<(bool, usize, usize)> {
        self.entries.iter().map(|(key, _)| (key.transposed, key.k, key.n)).collect()
    }

    /// Bytes of memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, panels)| panels.bytes()).sum()
    }
}
