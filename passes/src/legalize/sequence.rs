//! Sequences and optionals.
//!
//! A sequence that is built in the graph is a `sequence_construct` op whose elements are known one by one: positions
//! that are known too are resolved here, so few sequences are left to run.

use frit_ir::{DType, Dim, Op, TensorType, Value, ValueType};

use super::context::{Ctx, Results};
use super::error::{Ruled, invalid, unsupported};
use super::movement::{aligned, parts_of, split_sizes};
use super::source::as_scalar;
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("ConcatFromSequence", concat_from_sequence),
    onnx("OptionalGetElement", optional_get_element),
    onnx("OptionalHasElement", optional_has_element),
    onnx("SequenceAt", sequence_at),
    onnx("SequenceConstruct", |c| {
        let all = c.all()?;
        Ok(vec![list(c, &all)?])
    }),
    onnx("SequenceEmpty", |c| Ok(vec![list(c, &[])?])),
    onnx("SequenceErase", sequence_erase),
    onnx("SequenceInsert", sequence_insert),
    onnx("SequenceLength", sequence_length),
    onnx("SplitToSequence", split_to_sequence),
];

/// Most elements that an axis split into a sequence may have.
const MAX_PARTS: usize = 4096;

/// Elements of a sequence that is built in the graph.
pub(super) fn elements(c: &Ctx, v: Value) -> Option<Vec<Value>> {
    let node = c.b.function.node(v.node);
    matches!(node.op, Op::SequenceConstruct { .. }).then(|| node.operands().to_vec())
}

/// A sequence of values. Extents in which they differ are symbols that stand for any.
pub(super) fn list(c: &mut Ctx, values: &[Value]) -> Ruled<Value> {
    let mut element: Option<ValueType> = None;
    for &v in values {
        let ty = c.b.function.ty(v).clone();
        element = Some(match element {
            None => ty,
            Some(before) => joined(c, before, ty)?,
        });
    }
    let element = element.unwrap_or(ValueType::Unknown);
    Ok(c.op(Op::SequenceConstruct { element }, values)?)
}

fn joined(c: &mut Ctx, a: ValueType, b: ValueType) -> Ruled<ValueType> {
    if a == b {
        return Ok(a);
    }
    match (a, b) {
        (ValueType::Tensor(a), ValueType::Tensor(b)) if a.dtype == b.dtype && a.rank() == b.rank() => {
            let merge = |(x, y): (&Dim, &Dim)| if x == y { x.clone() } else { c.fresh("any").into() };
            let dims: Vec<Dim> = a.dims.iter().zip(&b.dims).map(merge).collect();
            Ok(TensorType::new(a.dtype, dims).into())
        }
        (a, b) => unsupported(format!("a sequence of {a} and {b}")),
    }
}

/// A position as an i64 scalar.
fn position(c: &mut Ctx, v: Value) -> Ruled<Value> {
    let v = as_scalar(c, v)?;
    c.to(v, DType::I64)
}

/// A known position in 0..n.
fn index(c: &mut Ctx, v: Value, n: usize) -> Ruled<usize> {
    let at = c.const_int(v, "the position in the sequence")?;
    let from_start = if at < 0 { at.saturating_add(i64::try_from(n).unwrap_or(i64::MAX)) } else { at };
    match usize::try_from(from_start) {
        Ok(i) if i < n => Ok(i),
        _ => invalid(format!("position {at} is outside a sequence of {n}")),
    }
}

fn sequence_at(c: &mut Ctx) -> Results {
    let (sequence, at) = (c.x(0)?, c.x(1)?);
    if let Some(all) = elements(c, sequence)
        && c.const_int(at, "the position").is_ok()
    {
        let i = index(c, at, all.len())?;
        return Ok(all.get(i).copied().into_iter().collect());
    }
    let at = position(c, at)?;
    Ok(vec![c.op(Op::SequenceAt {}, &[sequence, at])?])
}

fn sequence_insert(c: &mut Ctx) -> Results {
    let (sequence, value) = (c.x(0)?, c.x(1)?);
    if let Some(mut all) = elements(c, sequence) {
        let i = match c.opt(2) {
            None => all.len(),
            Some(at) => match c.const_int(at, "the position in the sequence")? {
                i if usize::try_from(i) == Ok(all.len()) => all.len(),
                _ => index(c, at, all.len())?,
            },
        };
        all.insert(i, value);
        return Ok(vec![list(c, &all)?]);
    }
    let at = match c.opt(2) {
        Some(at) => position(c, at)?,
        None => c.op(Op::SequenceLength {}, &[sequence])?,
    };
    Ok(vec![c.op(Op::SequenceInsert {}, &[sequence, value, at])?])
}

fn sequence_erase(c: &mut Ctx) -> Results {
    let sequence = c.x(0)?;
    if let Some(mut all) = elements(c, sequence) {
        let i = match c.opt(1) {
            Some(at) => index(c, at, all.len())?,
            None => all.len().saturating_sub(1),
        };
        if i < all.len() {
            all.remove(i);
        }
        return Ok(vec![list(c, &all)?]);
    }
    let at = match c.opt(1) {
        Some(at) => position(c, at)?,
        None => c.i64s(&[], &[-1])?,
    };
    Ok(vec![c.op(Op::SequenceErase {}, &[sequence, at])?])
}

fn sequence_length(c: &mut Ctx) -> Results {
    let sequence = c.x(0)?;
    if let Some(all) = elements(c, sequence) {
        return Ok(vec![c.dim(Dim::from(all.len()))?]);
    }
    Ok(vec![c.op(Op::SequenceLength {}, &[sequence])?])
}

fn split_to_sequence(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axis = c.axis(0, dims.len())?;
    let extent = c.known_extent(x, axis)?;
    if extent > MAX_PARTS {
        return unsupported(format!("a sequence of up to {extent} parts"));
    }
    let (sizes, keep) = match c.opt(1) {
        None => (vec![Dim::ONE; extent], c.flag("keepdims", true)?),
        Some(v) => {
            let stated = c.const_ints(v, "the split")?;
            let sizes = match (c.rank(v)?, stated.as_slice()) {
                (0, &[size]) => {
                    let Some(size) = usize::try_from(size).ok().filter(|&s| s > 0) else {
                        return invalid(format!("parts of {size}"));
                    };
                    let mut sizes = vec![Dim::from(size); extent / size];
                    sizes.extend((extent % size > 0).then(|| Dim::from(extent % size)));
                    sizes
                }
                _ => split_sizes(c, &Dim::from(extent), 0, Some(stated.into_iter().map(Dim::Known).collect()))?,
            };
            (sizes, true)
        }
    };
    let mut parts = parts_of(c, x, axis, &sizes)?;
    if !keep {
        let kept: Vec<Dim> = dims.into_iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, d)| d).collect();
        for part in &mut parts {
            *part = c.b.reshape(*part, kept.clone())?;
        }
    }
    Ok(vec![list(c, &parts)?])
}

fn concat_from_sequence(c: &mut Ctx) -> Results {
    let sequence = c.x(0)?;
    let Some(all) = elements(c, sequence) else { return unsupported("a sequence whose length is not known") };
    let Some(&first) = all.first() else { return unsupported("an empty sequence") };
    let new_axis = c.flag("new_axis", false)?;
    let rank = c.rank(first)? + usize::from(new_axis);
    let Some(axis) = c.int("axis")? else { return invalid("attribute `axis` is missing") };
    let axis = c.axis_of(axis, rank)?;
    let mut parts = aligned(c, &all, (!new_axis).then_some(axis))?;
    if new_axis {
        for part in &mut parts {
            let mut dims = c.shape(*part)?;
            dims.insert(axis, Dim::ONE);
            *part = c.b.reshape(*part, dims)?;
        }
    }
    Ok(vec![c.cat(&parts, axis)?])
}

/// A value that is no optional is there.
fn optional_get_element(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    match c.b.function.ty(x) {
        ValueType::Optional(_) => unsupported("optional values"),
        _ => Ok(vec![x]),
    }
}

fn optional_has_element(c: &mut Ctx) -> Results {
    let there = match c.opt(0) {
        None => 0.0,
        Some(x) if matches!(c.b.function.ty(x), ValueType::Optional(_)) => return unsupported("optional values"),
        Some(_) => 1.0,
    };
    Ok(vec![c.b.scalar(DType::Bool, there)?])
}
