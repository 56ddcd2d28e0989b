//! State that grows: a `concat` behind a donated input writes only what is new.
//!
//! The state's memory (its storage) is of the input's type with room for `capacity` elements along the axis that grows;
//! the capacity is a symbol that a run binds. The input is a slice of the storage, and so is the output. What lies
//! before the axis is a pitch apart, so the values are *pitched*: kernels read them through a slice of the storage at the
//! front of their body, products by the distance of their matrices, everything else from a dense copy. Where nothing
//! lies before the axis, both are the storage's first bytes and dense.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use frit_ir::{DType, Dim, Donation, Function, NodeId, Op, Origin, Symbol, TensorType, Value, ValueType};
use frit_passes::fuse::{append, grown_axis};

use super::super::{DimId, OpCounts, Place, SlotId, State, StateForm};
use super::{BuildError, Building, PlanBuilder, Slots};
use crate::lower::{Target, lower, lower_append};

/// Values that grow in place.
#[derive(Default)]
pub(super) struct Appends {
    /// The `concat`s.
    concats: HashMap<NodeId, Growth>,
    /// Views that change nothing around them.
    views: HashSet<NodeId>,
    /// Outputs that they make.
    outputs: BTreeSet<usize>,
    pitched: HashMap<SlotId, Pitched>,
    /// Forms of the donations that are appends, by index.
    pub(super) forms: HashMap<usize, StateForm>,
}

impl Appends {
    /// Whether an output of the function lies in its state.
    pub(super) fn makes(&self, output: usize) -> bool {
        self.outputs.contains(&output)
    }
}

/// What a `concat` appends to.
#[derive(Clone)]
struct Growth {
    storage: SlotId,
    ty: TensorType,
    axis: usize,
    /// The input's extent along the axis.
    start: Dim,
}

/// A value that is a slice of a storage.
#[derive(Clone)]
struct Pitched {
    storage: SlotId,
    /// The storage's type; the value's but for the axis.
    ty: TensorType,
    axis: usize,
    /// A dense copy.
    dense: Option<SlotId>,
}

/// A symbol that the function does not use.
fn fresh(f: &Function, taken: &[Symbol]) -> Symbol {
    let mut used: HashSet<Symbol> = taken.iter().cloned().collect();
    for id in f.nodes() {
        for dim in f.node(id).results().iter().filter_map(ValueType::tensor).flat_map(|t| &t.dims) {
            dim.visit_symbols(&mut |s| _ = used.insert(s.clone()));
        }
    }
    let mut n = 0usize;
    loop {
        let symbol = Symbol::new(&format!("capacity{n}"));
        if !used.contains(&symbol) {
            return symbol;
        }
        n += 1;
    }
}

/// Whether nothing lies before an axis but extents of 1.
fn is_outermost(dims: &[Dim], axis: usize) -> bool {
    dims.iter().take(axis).all(|d| *d == Dim::ONE)
}

impl PlanBuilder<'_> {
    /// Finds the donations that are appends and gives them storage. The inputs have slots already. Returns, for each
    /// donation that grows in another way, why.
    pub(super) fn appends(
        &mut self,
        b: &mut Building,
        f: &Function,
        donations: &[Donation],
    ) -> Result<HashMap<usize, String>, BuildError> {
        let mut refused = HashMap::new();
        for (index, donation) in donations.iter().enumerate() {
            let input = f.inputs().get(donation.input).map(|&node| Value { node, result: 0 });
            let (Some(input), Some(output)) = (input, f.outputs().get(donation.output)) else {
                return Err(BuildError::Internal(format!("a donation of `{}` leads nowhere", f.name)));
            };
            let (Some(from), Some(to)) = (f.ty(input).tensor(), f.ty(output.value).tensor()) else { continue };
            if from.dtype != to.dtype || from.rank() != to.rank() {
                return Err(BuildError::Internal(format!("{from} is donated to {to}")));
            }
            if from.dtype == DType::Str || grown_axis(from, to).is_none() {
                continue;
            }
            let found = match append(f, *donation) {
                Ok(found) => found,
                Err(reason) => {
                    refused.insert(index, reason);
                    continue;
                }
            };
            if self.fixed.contains(&b.program.inputs[donation.input].name) {
                refused.insert(index, "the model was compiled for one value of it".to_owned());
                continue;
            }
            if b.is_late(&to.dims) {
                refused.insert(index, "how far it grows is known only after steps have run".to_owned());
                continue;
            }
            let (axis, capacity) = (found.axis, fresh(f, &b.program.symbols));
            let mut ty = from.clone();
            ty.dims[axis] = Dim::from(capacity.clone());
            let storage = b.slot_at(&ty.clone().into(), Place::State(index as u32));
            let len = b.dim(&to.dims[axis]);
            let symbol = b.symbol(&capacity);
            let slot = b.program.inputs[donation.input].slot;
            if !is_outermost(&ty.dims, axis) {
                b.appends.pitched.insert(slot, Pitched { storage, ty: ty.clone(), axis, dense: None });
            }
            b.appends.views.extend(found.views);
            b.appends.concats.insert(found.concat, Growth { storage, ty, axis, start: from.dims[axis].clone() });
            b.appends.outputs.insert(donation.output);
            let form = StateForm::Append { storage, axis: axis as u32, capacity: symbol, len };
            b.appends.forms.insert(index, form);
        }
        Ok(refused)
    }

    /// The step for an op of an append; false when it is none.
    pub(super) fn append(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        id: NodeId,
    ) -> Result<bool, BuildError> {
        let node = f.node(id);
        let value = Value { node: id, result: 0 };
        if b.appends.views.contains(&id) {
            let slot = self.read_any(b, f, slots, node.operands()[0])?;
            slots.insert(value, slot);
            b.program.ops.view += 1;
            return Ok(true);
        }
        let Some(growth) = b.appends.concats.get(&id).cloned() else { return Ok(false) };
        let mut body = Function::new("");
        let mut operands = Vec::new();
        for &operand in &node.operands()[1..] {
            let input = body.add_input(&format!("in{}", operands.len()), f.ty(operand).clone());
            body.add_output(&format!("out{}", operands.len()), input);
            operands.push(self.read_any(b, f, slots, operand)?);
        }
        let body = b.in_place_reads(&body, &mut operands)?;
        let target = Target { ty: &growth.ty, axis: growth.axis, start: &growth.start };
        let lowered = lower_append(&body, "append", self.numerics, &target)?;
        let ops = OpCounts { generated: 1, ..OpCounts::default() };
        self.kernel(b, lowered, &operands, &[growth.storage], ops, &node.origin)?;
        let slot = b.slot_at(&node.results()[0], Place::Prefix(growth.storage));
        let Growth { storage, ty, axis, .. } = growth;
        if !is_outermost(&ty.dims, axis) {
            b.appends.pitched.insert(slot, Pitched { storage, ty, axis, dense: None });
        }
        slots.insert(value, slot);
        Ok(true)
    }

    /// A slot without gaps: itself, or a copy of a pitched one.
    pub(super) fn dense(&mut self, b: &mut Building, slot: SlotId) -> Result<SlotId, BuildError> {
        let Some(pitched) = b.appends.pitched.get(&slot) else { return Ok(slot) };
        if let Some(dense) = pitched.dense {
            return Ok(dense);
        }
        let ty = b.program.slots[slot.index()].ty.clone();
        let mut body = Function::new("");
        let x = body.add_input("x", ty.clone());
        body.add_output("y", x);
        let mut operands = [slot];
        let body = b.in_place_reads(&body, &mut operands)?;
        let lowered = lower(&body, "dense", self.numerics)?;
        let target = b.slot(&ty);
        self.kernel(b, lowered, &operands, &[target], OpCounts::default(), &Origin::named("state"))?;
        if let Some(pitched) = b.appends.pitched.get_mut(&slot) {
            pitched.dense = Some(target);
        }
        Ok(target)
    }

    /// The form of every donation, those that are no appends last; remarks say which are copied.
    pub(super) fn states(
        &mut self,
        b: &mut Building,
        donations: &[Donation],
        mut refused: HashMap<usize, String>,
    ) -> Result<(), BuildError> {
        for (index, donation) in donations.iter().enumerate() {
            let (input, output) = (donation.input, donation.output);
            let form = match (b.appends.forms.remove(&index), refused.remove(&index)) {
                (Some(form), _) => Ok(form),
                (None, Some(reason)) => Err(reason),
                (None, None) => self.in_place(b, index, *donation),
            };
            let form = form.unwrap_or_else(|reason| {
                let name = |ports: &[super::Port], i: usize| ports[i].name.clone();
                let (from, to) = (name(&b.program.inputs, input), name(&b.program.outputs, output));
                self.built.remarks.push(format!(
                    "state: `{to}` of `{}` is copied over `{from}` instead of written in place: {reason}",
                    b.program.name
                ));
                StateForm::Copied { reason }
            });
            b.program.states.push(State { input: input as u32, output: output as u32, form });
        }
        Ok(())
    }
}

impl Building {
    /// A body whose pitched operands are their storages, cut to the values; `operands` become the slots that it reads.
    pub(super) fn in_place_reads<'f>(
        &self,
        body: &'f Function,
        operands: &mut [SlotId],
    ) -> Result<Cow<'f, Function>, BuildError> {
        if !operands.iter().any(|slot| self.appends.pitched.contains_key(slot)) {
            return Ok(Cow::Borrowed(body));
        }
        let mut body = body.clone();
        let inputs: Vec<Value> = body.input_values().collect();
        for (input, slot) in inputs.into_iter().zip(operands) {
            let Some(pitched) = self.appends.pitched.get(slot) else { continue };
            let Some(value) = body.ty(input).tensor().cloned() else { continue };
            // The slot's type and the body's are one up to extents that are equal at run time.
            let mut ty = value.clone();
            ty.dims[pitched.axis] = pitched.ty.dims[pitched.axis].clone();
            body.set_type(input, ty.into());
            let rank = value.rank();
            let cut = Op::Slice { starts: vec![Dim::ZERO; rank], sizes: value.dims, steps: vec![1; rank] };
            let origin = body.node(input.node).origin.clone();
            let node =
                body.add_op(cut, &[input], Vec::new(), &origin).map_err(|e| BuildError::Internal(e.to_string()))?;
            let cut = Value { node, result: 0 };
            body.replace_uses(input, cut);
            body.set_operand(node, 0, input);
            *slot = pitched.storage;
        }
        Ok(Cow::Owned(body))
    }

    /// The slot of a reshape of a pitched slot that only joins or splits what lies before or behind the axis; `None`:
    /// it needs a dense operand.
    pub(super) fn reshaped(&mut self, of: SlotId, ty: &ValueType) -> Option<SlotId> {
        let pitched = self.appends.pitched.get(&of)?.clone();
        let (from, to) = (self.program.slots[of.index()].ty.tensor()?.clone(), ty.tensor()?);
        let product = |dims: &[Dim]| Dim::product(dims);
        let (before, behind) = (product(&from.dims[..pitched.axis]), product(&from.dims[pitched.axis + 1..]));
        let axis = (0..to.rank()).find(|&a| {
            to.dims[a] == from.dims[pitched.axis]
                && product(&to.dims[..a]) == before
                && product(&to.dims[a + 1..]) == behind
        })?;
        let mut storage_ty = to.clone();
        storage_ty.dims[axis] = pitched.ty.dims[pitched.axis].clone();
        let root = self.program.root(pitched.storage);
        let storage = self.slot_at(&storage_ty.clone().into(), Place::Alias(root));
        let slot = self.slot_at(ty, Place::Prefix(root));
        self.appends.pitched.insert(slot, Pitched { storage, ty: storage_ty, axis, dense: None });
        Some(slot)
    }

    /// For a pitched slot whose axes before the pitched one are all of a product's batch: its storage, and the distance
    /// from one matrix to the next.
    pub(super) fn matrices(&mut self, slot: SlotId, ty: &TensorType, batch: &[usize]) -> Option<(SlotId, DimId)> {
        let pitched = self.appends.pitched.get(&slot)?.clone();
        let real = |a: &usize| ty.dims[*a] != Dim::ONE;
        let before: Vec<usize> = (0..pitched.axis).filter(real).collect();
        let of_batch: Vec<usize> = batch.iter().copied().filter(real).collect();
        if before != of_batch {
            return None;
        }
        let pitch = self.dim(&Dim::product(&pitched.ty.dims[pitched.axis..]));
        Some((pitched.storage, pitch))
    }
}
