//! Ops on host lists.

use frit_compiler::plan::{Place, SequenceOp, SlotId};
use frit_ir::{HostValue, Tensor, ValueType};

use super::memory::Region;
use super::{At, Run};
use crate::session::{RunError, uncopied};

impl Run<'_> {
    pub(super) fn sequence(
        &mut self,
        at: &mut At<'_>,
        op: SequenceOp,
        operands: &[SlotId],
        result: SlotId,
        origin: &str,
    ) -> Result<(), RunError> {
        let refuse = |message: String| RunError::Sequence { origin: origin.to_owned(), message };
        if op == SequenceOp::Construct {
            let items: Result<Vec<HostValue>, RunError> = operands.iter().map(|s| self.value(at, *s)).collect();
            return self.set_value(at, result, HostValue::Sequence(items?), origin);
        }
        let first = operands.first().map(|s| self.value(at, *s)).transpose()?;
        let Some(HostValue::Sequence(mut items)) = first else {
            return Err(refuse("the first operand is no sequence".to_owned()));
        };
        let len = items.len();
        if op == SequenceOp::Length {
            let value = Tensor::i64(&[], &[len as i64]).map_err(|e| refuse(e.to_string()))?;
            return self.set_value(at, result, HostValue::Tensor(value), origin);
        }
        let place = if op == SequenceOp::Insert { operands.get(2) } else { operands.get(1) };
        // Without a position the end is meant.
        let position = match place {
            Some(slot) => i64::from_le_bytes(at.scalar(*slot, self.limit)?),
            None if op == SequenceOp::Insert => len as i64,
            None => -1,
        };
        let index = if position < 0 { position.saturating_add(len as i64) } else { position };
        let last = if op == SequenceOp::Insert { len } else { len.saturating_sub(1) };
        let index = usize::try_from(index).ok().filter(|i| *i <= last && (len > 0 || op == SequenceOp::Insert));
        let Some(index) = index else {
            return Err(refuse(format!("position {position} is outside a sequence of {len}")));
        };
        let value = match op {
            SequenceOp::At => items.swap_remove(index),
            SequenceOp::Erase => {
                items.remove(index);
                HostValue::Sequence(items)
            }
            SequenceOp::Insert | SequenceOp::Construct | SequenceOp::Length => {
                let value = operands.get(1).map(|s| self.value(at, *s)).transpose()?;
                items.insert(index, value.ok_or_else(|| refuse("nothing to insert".to_owned()))?);
                HostValue::Sequence(items)
            }
        };
        self.set_value(at, result, value, origin)
    }

    /// A slot's value as a host value; tensors are copied.
    fn value(&mut self, at: &mut At<'_>, slot: SlotId) -> Result<HostValue, RunError> {
        let root = at.facts.root(slot);
        if let Some(value) = &at.frame.host[root] {
            return Ok(value.clone());
        }
        let ValueType::Tensor(ty) = &at.program.slots[slot.index()].ty else {
            return Err(RunError::Internal("a host value is read before it is made".to_owned()));
        };
        if let Place::Constant(id) = at.program.slots[root].place {
            return Ok(HostValue::Tensor(self.plan().constants[id.index()].value.clone()));
        }
        let mut shape: Vec<usize> = Vec::new();
        at.frame.shape_into(at.program, slot, &mut shape)?;
        let region = at.region(slot, self.limit)?;
        let tensor = Tensor::from_bytes(ty.dtype, &shape, region.bytes());
        tensor.map(HostValue::Tensor).map_err(|e| uncopied("an element of a sequence", e))
    }

    /// Writes a host value to a slot, in memory when the slot is a tensor there.
    fn set_value(&mut self, at: &mut At<'_>, slot: SlotId, value: HostValue, origin: &str) -> Result<(), RunError> {
        let root = at.facts.root(slot);
        if at.program.slots[root].place == Place::Host {
            at.frame.host[root] = Some(value);
            return Ok(());
        }
        let refuse = |message: String| RunError::Sequence { origin: origin.to_owned(), message };
        let (HostValue::Tensor(tensor), ValueType::Tensor(ty)) = (&value, &at.program.slots[slot.index()].ty) else {
            return Err(refuse("the element is no tensor".to_owned()));
        };
        // An element whose extents only the run shows binds them.
        for (axis, dim) in ty.dims.iter().enumerate() {
            let symbol = dim.as_symbol().and_then(|s| at.program.symbols.iter().position(|known| known == s));
            if let (Some(symbol), Some(extent)) = (symbol, tensor.shape().get(axis)) {
                at.frame.bind(&self.model.plan, at.program, symbol as u32, *extent as i64)?;
            }
        }
        let mut shape: Vec<usize> = Vec::new();
        at.frame.shape_into(at.program, slot, &mut shape)?;
        if tensor.dtype() != ty.dtype || tensor.shape() != shape {
            let found = tensor.ty();
            return Err(refuse(format!("the element is {found}, the model says {}{shape:?}", ty.dtype)));
        }
        if at.region(slot, self.limit)?.copy_from(Region::read_only(tensor.bytes())) {
            return Ok(());
        }
        Err(RunError::Internal(format!("`{origin}`: the element has another size")))
    }
}
