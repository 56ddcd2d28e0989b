//! Inputs of a caller to the inputs of a program: kinds, types, ranks, lengths; extents are the frame's business.

use frit_compiler::plan::{Place, Port, Program};
use frit_ir::{DType, HostValue, MapKey, Tensor, ValueType};

use super::{InputRef, RunError, TensorView};
use crate::executor::memory::Region;
use crate::executor::{Frame, reserve};

/// Binds input `index`.
pub(super) fn bind(
    program: &Program,
    frame: &mut Frame,
    index: usize,
    input: InputRef<'_>,
    limit: usize,
) -> Result<(), RunError> {
    let port = &program.inputs[index];
    let on_host = program.slots[port.slot.index()].place == Place::Host;
    match input {
        InputRef::Tensor(view) if !on_host => tensor(port, frame, index, view, limit),
        InputRef::Host(HostValue::Tensor(t)) if !on_host => tensor(port, frame, index, t.into(), limit),
        InputRef::Host(value) if on_host && is_of(value, &port.ty) => {
            frame.shapes[index].clear();
            if let HostValue::Tensor(t) = value {
                frame.shapes[index].extend(t.shape().iter().map(|d| *d as i64));
            }
            frame.host[port.slot.index()] = Some(value.clone());
            Ok(())
        }
        other => Err(RunError::Kind { name: port.name.clone(), expected: port.ty.to_string(), found: kind(other) }),
    }
}

/// The error of an input that was not given.
pub(super) fn missing(port: &Port) -> RunError {
    RunError::MissingInput { name: port.name.clone(), ty: port.ty.to_string() }
}

/// Whether a tensor can be a port's, extents aside.
pub(super) fn check(port: &Port, view: TensorView<'_>) -> Result<(), RunError> {
    let name = || port.name.clone();
    let ValueType::Tensor(ty) = &port.ty else {
        return Err(RunError::Kind { name: name(), expected: port.ty.to_string(), found: "a tensor".to_owned() });
    };
    if view.dtype != ty.dtype {
        return Err(RunError::Dtype { name: name(), expected: ty.dtype, found: view.dtype });
    }
    if view.shape.len() != ty.rank() {
        return Err(RunError::Rank { name: name(), expected: ty.to_string(), found: view.shape.to_vec() });
    }
    let empty = view.shape.contains(&0);
    let numel = view.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let bytes = if empty { Some(0) } else { numel.and_then(|n| n.checked_mul(ty.dtype.size())) };
    if bytes != Some(view.data.len()) {
        let (shape, found) = (view.shape.to_vec(), view.data.len());
        return Err(RunError::Size { name: name(), dtype: ty.dtype, shape, found });
    }
    // Any nonzero byte would read as true here and as another number there.
    if ty.dtype == DType::Bool && view.data.iter().any(|b| *b > 1) {
        let expected = "bytes that are 0 or 1".to_owned();
        return Err(RunError::Kind { name: name(), expected, found: "other bytes".to_owned() });
    }
    Ok(())
}

fn tensor(port: &Port, frame: &mut Frame, index: usize, view: TensorView<'_>, limit: usize) -> Result<(), RunError> {
    check(port, view)?;
    let shape = &mut frame.shapes[index];
    shape.clear();
    for extent in view.shape {
        shape.push(i64::try_from(*extent).unwrap_or(i64::MAX));
    }
    let mut region = Region::read_only(view.data);
    if !region.is_aligned(view.dtype.size()) {
        let buffer = &mut frame.staging[index];
        reserve(buffer, view.data.len(), limit, || format!("a copy of input `{}`", port.name))?;
        let place = buffer.region(0, view.data.len()).unwrap_or_default();
        place.copy_from(region);
        region = place;
    }
    frame.regions[port.slot.index()] = region;
    Ok(())
}

/// Whether a host value is of a type, tensors up to their extents.
fn is_of(value: &HostValue, ty: &ValueType) -> bool {
    match (value, ty) {
        (HostValue::Tensor(t), ValueType::Tensor(ty)) => t.dtype() == ty.dtype && t.shape().len() == ty.rank(),
        (HostValue::Sequence(items), ValueType::Sequence(element)) => {
            items.iter().all(|item| match (item, &**element) {
                // The element type's rank may be a placeholder of the exporter's.
                (HostValue::Tensor(t), ValueType::Tensor(ty)) => t.dtype() == ty.dtype,
                (item, element) => is_of(item, element),
            })
        }
        (HostValue::Optional(inner), ValueType::Optional(element)) => {
            inner.as_ref().is_none_or(|inner| is_of(inner, element))
        }
        (HostValue::Map(entries), ValueType::Map(key, element)) => entries.iter().all(|(k, v)| {
            let text = matches!(k, MapKey::Str(_));
            text == (*key == DType::Str) && is_of(v, element)
        }),
        (
            HostValue::Tensor(_) | HostValue::Sequence(_) | HostValue::Optional(_) | HostValue::Map(_),
            ValueType::Tensor(_)
            | ValueType::Sequence(_)
            | ValueType::Optional(_)
            | ValueType::Map(..)
            | ValueType::Unknown,
        ) => false,
    }
}

fn kind(input: InputRef<'_>) -> String {
    let of_tensor = |t: &Tensor| format!("a {} tensor of shape {:?}", t.dtype(), t.shape());
    match input {
        InputRef::Tensor(view) => format!("a {} tensor of shape {:?}", view.dtype, view.shape),
        InputRef::Host(HostValue::Tensor(t)) => of_tensor(t),
        InputRef::Host(HostValue::Sequence(items)) => match items.first() {
            Some(HostValue::Tensor(t)) => format!("a sequence of {} values, first {}", items.len(), of_tensor(t)),
            _ => format!("a sequence of {} values", items.len()),
        },
        InputRef::Host(HostValue::Optional(_)) => "an optional".to_owned(),
        InputRef::Host(HostValue::Map(_)) => "a map".to_owned(),
    }
}
