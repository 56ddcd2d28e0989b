//! Broadcasts, written only where ONNX's own broadcasting does not do the same.
//!
//! The core broadcasts explicitly; ONNX's elementwise ops align shapes at the right and repeat extents of 1. So an
//! operand that was broadcast is handed over as it was before, given its rank, when for every axis of the result some
//! operand has the full extent, provably. Otherwise one of them is written out with `Expand`.

use super::ExportError;
use super::types::index;
use super::writer::{Frame, Held, Spread, Writer};
use crate::graph::{NodeId, Value};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, TensorType, ValueType};

/// Counts up to this many are constants.
const TABLE: i64 = 256;

impl Writer<'_> {
    /// Notes a `broadcast`; nothing is written.
    pub(super) fn broadcast(&mut self, frame: &mut Frame<'_>, id: NodeId, axes: &[usize]) -> Result<(), ExportError> {
        let operand = operand(frame, id, 0)?;
        let from = frame.tensor(operand)?.clone();
        let held = match frame.values.get(&operand) {
            Some(Held::Constant(tensor)) => Held::Constant(tensor.clone()),
            // A broadcast of a broadcast is one.
            Some(Held::Spread(inner)) => {
                let axes: Vec<usize> = inner.axes.iter().filter_map(|&a| axes.get(a).copied()).collect();
                let spread = Spread { source: inner.source.clone(), from: inner.from.clone(), axes };
                frame.values.insert(Value { node: id, result: 0 }, Held::Spread(spread));
                return Ok(());
            }
            _ => Held::Is(self.name(frame, operand)?),
        };
        let spread = Spread { source: Box::new(held), from, axes: axes.to_vec() };
        frame.values.insert(Value { node: id, result: 0 }, Held::Spread(spread));
        Ok(())
    }

    /// Notes an `iota`: a range along one axis, broadcast.
    pub(super) fn iota(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        dtype: DType,
        dims: &[Dim],
        axis: usize,
    ) -> Result<(), ExportError> {
        let extent = dims.get(axis).cloned().unwrap_or(Dim::ZERO);
        let source = match extent.known() {
            Some(n) if n <= TABLE => Held::Constant(count(dtype, n)?),
            _ => {
                // Counted in i64, whatever the type: readers follow extents through integers only.
                let end = self.scalar_extent(frame, &extent)?;
                let (start, step) = (self.number(frame, 0)?, self.number(frame, 1)?);
                let mut range = self.emit(frame, "Range", &[&start, &end, &step], Vec::new());
                if dtype != DType::I64 {
                    let to = super::types::int("to", i64::from(super::super::tensor::data_type(dtype) as i32));
                    range = self.emit(frame, "Cast", &[&range], vec![to]);
                }
                Held::Is(range)
            }
        };
        let spread = Spread { source: Box::new(source), from: TensorType::new(dtype, vec![extent]), axes: vec![axis] };
        frame.values.insert(Value { node: id, result: 0 }, Held::Spread(spread));
        Ok(())
    }

    /// A broadcast value in full.
    pub(super) fn materialized(
        &mut self,
        frame: &mut Frame<'_>,
        value: Value,
        spread: &Spread,
    ) -> Result<String, ExportError> {
        let ValueType::Tensor(ty) = frame.f.ty(value) else {
            return Err(super::writer::internal("a broadcast that is no tensor"));
        };
        let at = std::mem::replace(&mut frame.at, frame.f.node(value.node).origin.clone());
        let same = spread.from.dims == ty.dims;
        let name = if let (true, Held::Is(name)) = (same, spread.source.as_ref()) {
            name.clone()
        } else {
            let aligned = self.aligned(frame, value, spread, ty.rank())?;
            if covers(spread, &ty.dims) && spread.axes.first().copied().unwrap_or(ty.rank()) == 0 {
                aligned
            } else {
                let shape = self.extents(frame, &ty.dims)?;
                self.finish(frame, value.node, "Expand", &[&aligned, &shape], Vec::new());
                match frame.values.get(&value) {
                    Some(Held::Is(name)) => name.clone(),
                    _ => aligned,
                }
            }
        };
        frame.at = at;
        Ok(name)
    }

    /// What is broadcast, with axes of extent 1 where the result has axes of its own, so that aligning at the right is
    /// right.
    fn aligned(
        &mut self,
        frame: &mut Frame<'_>,
        value: Value,
        spread: &Spread,
        rank: usize,
    ) -> Result<String, ExportError> {
        if let Some(name) = frame.aligned.get(&value) {
            return Ok(name.clone());
        }
        let first = spread.axes.first().copied().unwrap_or(rank);
        let missing: Vec<i64> = (first..rank).filter(|a| !spread.axes.contains(a)).map(|a| index(a - first)).collect();
        let name = match spread.source.as_ref() {
            Held::Constant(tensor) => {
                let mut shape = vec![1usize; rank - first];
                for (&axis, &extent) in spread.axes.iter().zip(tensor.shape()) {
                    if let Some(slot) = shape.get_mut(axis - first) {
                        *slot = extent;
                    }
                }
                let shaped = tensor.reshaped(&shape).map_err(|e| super::writer::internal(e.to_string()))?;
                self.constant(frame, &shaped)
            }
            Held::Is(name) if missing.is_empty() => name.clone(),
            Held::Is(name) => {
                let name = name.clone();
                let axes = self.list(frame, &missing)?;
                self.emit(frame, "Unsqueeze", &[&name, &axes], Vec::new())
            }
            Held::Spread(_) | Held::Pooled => return Err(super::writer::internal("a broadcast of nothing")),
        };
        frame.aligned.insert(value, name.clone());
        Ok(name)
    }

    /// Names of operands of one shape for an op that broadcasts by itself.
    pub(super) fn broadcasting(
        &mut self,
        frame: &mut Frame<'_>,
        operands: &[Value],
    ) -> Result<Vec<String>, ExportError> {
        let Some(&first) = operands.first() else { return Ok(Vec::new()) };
        let dims = frame.tensor(first)?.dims.clone();
        let full = |frame: &Frame<'_>, axis: usize| {
            let has = |v: &Value| match frame.values.get(v) {
                Some(Held::Spread(spread)) => has_axis(spread, &dims, axis),
                Some(Held::Is(_) | Held::Constant(_) | Held::Pooled) | None => true,
            };
            operands.iter().any(has)
        };
        if !(0..dims.len()).all(|axis| full(frame, axis)) {
            self.name(frame, first)?;
        }
        let mut names = Vec::with_capacity(operands.len());
        for &v in operands {
            names.push(match frame.values.get(&v).cloned() {
                Some(Held::Spread(spread)) => {
                    let at = std::mem::replace(&mut frame.at, frame.f.node(v.node).origin.clone());
                    let name = self.aligned(frame, v, &spread, dims.len());
                    frame.at = at;
                    name?
                }
                Some(Held::Is(_) | Held::Constant(_) | Held::Pooled) | None => self.name(frame, v)?,
            });
        }
        Ok(names)
    }
}

/// Operand `i` of an op.
pub(super) fn operand(frame: &Frame<'_>, id: NodeId, i: usize) -> Result<Value, ExportError> {
    let operands = frame.f.node(id).operands();
    operands.get(i).copied().ok_or_else(|| super::writer::internal("an operand is missing"))
}

/// Whether what is broadcast has the result's extent along an axis, provably.
fn has_axis(spread: &Spread, dims: &[Dim], axis: usize) -> bool {
    let here = spread.axes.iter().position(|&a| a == axis).and_then(|i| spread.from.dims.get(i));
    dims.get(axis).is_some_and(|d| *d == Dim::ONE || here == Some(d))
}

/// Whether a broadcast repeats nothing.
fn covers(spread: &Spread, dims: &[Dim]) -> bool {
    (0..dims.len()).all(|axis| has_axis(spread, dims, axis))
}

/// 0, 1, .., n - 1.
fn count(dtype: DType, n: i64) -> Result<Tensor, ExportError> {
    let n = n.max(0);
    let mut bytes = Vec::new();
    for i in 0..n {
        match dtype {
            DType::F32 => bytes.extend((i as f32).to_le_bytes()),
            DType::F64 => bytes.extend((i as f64).to_le_bytes()),
            DType::I32 => bytes.extend(i32::try_from(i).unwrap_or(i32::MAX).to_le_bytes()),
            _ => bytes.extend(i.to_le_bytes()),
        }
    }
    let shape = [usize::try_from(n).unwrap_or(0)];
    Tensor::from_bytes(dtype, &shape, &bytes).map_err(|e| super::writer::internal(e.to_string()))
}
