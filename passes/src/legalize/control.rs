//! Control flow: branches, loops, scans.
//!
//! A branch whose condition is known, and a loop of few known trips, are written out where they stand: their extents
//! may then change from trip to trip. Everything else becomes a region with fixed types.

use std::collections::HashMap;

use frit_ir::{DType, Dim, Function, Op, Value, ValueType};

use super::context::{Ctx, Results};
use super::driver::{self, Argument, Slot, depends_on};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::source::as_scalar;
use super::table::{Row, onnx, versions};

pub(super) const TABLE: &[Row] =
    &[onnx("If", if_), onnx("Loop", loop_), versions("Scan", 9, i64::MAX, scan), onnx("SequenceMap", sequence_map)];

/// Loops are written out for at most this many trips, and this many ops in all.
const MAX_TRIPS: i64 = 64;
const MAX_OPS: usize = 4096;

fn inner<T>(result: Result<T, super::LegalizeError>) -> Ruled<T> {
    result.map_err(|e| Fail::Inner(Box::new(e)))
}

/// The ops of a region added here; its results.
pub(super) fn inline(c: &mut Ctx, region: &Function, arguments: &[Value]) -> Ruled<Vec<Value>> {
    if region.inputs().len() != arguments.len() {
        return invalid(format!("a region of {} inputs is given {}", region.inputs().len(), arguments.len()));
    }
    if !c.session.may_inline(region.len()) {
        return unsupported("too many ops in loops that would be written out");
    }
    let mut slots: HashMap<Value, Slot> = region.input_values().zip(arguments.iter().map(|v| Slot::Is(*v))).collect();
    inner(driver::body(c.session, region, c.b.function, c.values, c.bound, &mut slots))?;
    region
        .outputs()
        .iter()
        .map(|o| match slots.get(&o.value) {
            Some(Slot::Is(v)) => Ok(*v),
            _ => Err(Fail::Poisoned),
        })
        .collect()
}

/// The ops of the region in attribute `name` added here, when there is one; captured values follow the arguments.
pub(super) fn inline_named(c: &mut Ctx, name: &str, arguments: &[Value]) -> Ruled<Option<Vec<Value>>> {
    let Ok(region) = regions_by_name(c, name) else { return Ok(None) };
    let (_, captured) = own_and_captured(c)?;
    let arguments: Vec<Value> = arguments.iter().copied().chain(captured).collect();
    inline(c, region, &arguments).map(Some)
}

/// A value as a region sees it.
fn argument(c: &mut Ctx, v: Value) -> Argument {
    Argument {
        ty: c.b.function.ty(v).clone(),
        ints: c.values.ints(c.b.function, c.session.params, v),
        tensor: c.known(v),
        inputs: depends_on(c.b.function, c.bound, v),
    }
}

/// A value that a region sees anew in each trip.
fn changing(c: &mut Ctx, v: Value) -> Argument {
    Argument { ints: None, tensor: None, ..argument(c, v) }
}

fn region(c: &mut Ctx, old: &Function, arguments: Vec<Argument>) -> Ruled<Function> {
    if old.inputs().len() != arguments.len() {
        return invalid(format!("a region of {} inputs is given {}", old.inputs().len(), arguments.len()));
    }
    inner(driver::region(c.session, old, arguments))?.ok_or(Fail::Poisoned)
}

fn regions_by_name<'a>(c: &Ctx<'a, '_>, name: &str) -> Ruled<&'a Function> {
    let names: Vec<String> = match c.attr("__regions") {
        Some(frit_ir::AttrValue::List(list)) => list
            .iter()
            .filter_map(|v| match v {
                frit_ir::AttrValue::Str(s) | frit_ir::AttrValue::Word(s) => Some(s.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let index = names.iter().position(|n| n == name);
    match index.and_then(|i| c.regions.get(i)) {
        Some(region) => Ok(region),
        None => invalid(format!("attribute `{name}` holds no graph")),
    }
}

/// The node's own operands and those that its regions capture.
fn own_and_captured(c: &Ctx) -> Ruled<(Vec<Option<Value>>, Vec<Value>)> {
    let count = usize::try_from(c.int("__captured")?.unwrap_or(0)).unwrap_or(0);
    let own = c.operands.len().saturating_sub(count);
    let captured = c.operands.iter().skip(own).copied().collect::<Option<Vec<_>>>();
    let Some(captured) = captured else { return c.session.lacking("a region that captures an absent input") };
    Ok((c.operands.iter().take(own).copied().collect(), captured))
}

fn if_(c: &mut Ctx) -> Results {
    let (_, captured) = own_and_captured(c)?;
    let condition = c.x(0)?;
    let (then_branch, else_branch) = (regions_by_name(c, "then_branch")?, regions_by_name(c, "else_branch")?);
    if let Ok(known) = c.const_int(condition, "the condition") {
        return inline(c, if known != 0 { then_branch } else { else_branch }, &captured);
    }
    // Both are looked at before either is refused: the report names what each of them lacks.
    let mut branches = Vec::with_capacity(2);
    for old in [then_branch, else_branch] {
        let arguments = captured.iter().map(|v| argument(c, *v)).collect();
        branches.push(match region(c, old, arguments) {
            Err(fail @ (Fail::Invalid(_) | Fail::Inner(_))) => return Err(fail),
            other => other,
        });
    }
    let branches = branches.into_iter().collect::<Ruled<Vec<_>>>()?;
    let outputs: Vec<Vec<ValueType>> = branches.iter().map(|b| b.signature().outputs).collect();
    if outputs.first() != outputs.last() {
        // Branches of different types need the condition, or the input that it comes from.
        return Err(Fail::NeedsValue(condition, "the condition of branches with different types".to_owned()));
    }
    let scalar = as_scalar(c, condition)?;
    let operands: Vec<Value> = std::iter::once(scalar).chain(captured).collect();
    let origin = c.b.origin.clone();
    let node = c.b.function.add_op_with(Op::If {}, &operands, branches, &origin, c.b.numerics)?;
    Ok((0..c.declared.len()).map(|result| Value { node, result }).collect())
}

/// Values of several trips one after another along a new axis.
fn stacked(c: &mut Ctx, values: &[Value], axis: usize) -> Ruled<Value> {
    let mut parts = Vec::with_capacity(values.len());
    for &v in values {
        let mut dims = c.shape(v)?;
        dims.insert(axis.min(dims.len()), Dim::ONE);
        parts.push(c.b.reshape(v, dims)?);
    }
    let parts = super::movement::aligned(c, &parts, Some(axis))?;
    if parts.is_empty() {
        return unsupported("no trip: the extents of what it would stack are not known");
    }
    c.cat(&parts, axis)
}

fn loop_(c: &mut Ctx) -> Results {
    let (own, captured) = own_and_captured(c)?;
    let body = regions_by_name(c, "body")?;
    let carried: Vec<Value> = own.iter().skip(2).copied().collect::<Option<_>>().ok_or(Fail::Poisoned)?;
    let (trips, condition) = (own.first().copied().flatten(), own.get(1).copied().flatten());
    let known_trips = match trips {
        Some(v) => c.const_int(v, "the trip count").ok(),
        None => Some(i64::MAX),
    };
    let known_condition = match condition {
        Some(v) => c.const_int(v, "the condition").ok(),
        None => Some(1),
    };
    if let (Some(trips), Some(condition)) = (known_trips, known_condition) {
        let stated = c.b.function.requirements().len();
        if let Some(results) = written_out(c, body, &carried, &captured, if condition == 0 { 0 } else { trips })? {
            return Ok(results);
        }
        // What trips asked for that are not written out after all.
        c.b.function.retract_requirements(stated);
    }
    let trips = match trips {
        Some(v) => {
            let v = as_scalar(c, v)?;
            c.to(v, DType::I64)?
        }
        None => c.i64s(&[], &[i64::MAX])?,
    };
    let condition = match condition {
        Some(v) => as_scalar(c, v)?,
        None => c.b.scalar(DType::Bool, 1.0)?,
    };
    let mut arguments = vec![changing(c, trips), changing(c, condition)];
    for &v in &carried {
        arguments.push(changing(c, v));
    }
    for &v in &captured {
        arguments.push(argument(c, v));
    }
    let types: Vec<ValueType> = arguments.iter().skip(2).take(carried.len()).map(|a| a.ty.clone()).collect();
    let mut body = region(c, body, arguments)?;
    let outputs = body.signature().outputs;
    if !types.iter().eq(outputs.iter().skip(1).take(carried.len())) {
        let what = "the trip count and condition of a loop whose values change their type".to_owned();
        return Err(Fail::NeedsValue(trips, what));
    }
    scalar_condition(&mut body)?;
    let operands: Vec<Value> = [trips, condition].into_iter().chain(carried.iter().copied()).chain(captured).collect();
    let op = Op::Loop { carried: carried.len(), trips: c.fresh("trips").into() };
    let origin = c.b.origin.clone();
    let node = c.b.function.add_op_with(op, &operands, vec![body], &origin, c.b.numerics)?;
    Ok((0..c.declared.len()).map(|result| Value { node, result }).collect())
}

/// A condition bool[1] as bool[].
fn scalar_condition(body: &mut Function) -> Ruled<()> {
    let Some(value) = body.outputs().first().map(|o| o.value) else { return invalid("the body gives nothing") };
    let scalar = body.ty(value).tensor().is_some_and(|t| t.rank() == 0);
    if !scalar {
        let origin = body.node(value.node).origin.clone();
        let node = body.add_op(Op::Reshape { dims: Vec::new() }, &[value], Vec::new(), &origin)?;
        body.set_output(0, Value { node, result: 0 });
    }
    Ok(())
}

/// A loop written out trip by trip; `None`: too long, or its condition is not known.
fn written_out(
    c: &mut Ctx,
    body: &Function,
    carried: &[Value],
    captured: &[Value],
    trips: i64,
) -> Ruled<Option<Vec<Value>>> {
    let mut state = carried.to_vec();
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); body.outputs().len().saturating_sub(1 + carried.len())];
    let mut condition = c.b.scalar(DType::Bool, 1.0)?;
    let mut trip = 0i64;
    while trip < trips {
        if trip >= MAX_TRIPS || body.len().saturating_mul(usize::try_from(trip).unwrap_or(usize::MAX)) > MAX_OPS {
            return Ok(None);
        }
        let index = c.i64s(&[], &[trip])?;
        let arguments: Vec<Value> =
            [index, condition].into_iter().chain(state.iter().copied()).chain(captured.iter().copied()).collect();
        let results = inline(c, body, &arguments)?;
        let Some((&next, rest)) = results.split_first() else { return invalid("the body gives nothing") };
        let (now, stacks) = rest.split_at(carried.len().min(rest.len()));
        state = now.to_vec();
        for (column, v) in columns.iter_mut().zip(stacks) {
            column.push(*v);
        }
        trip += 1;
        match c.const_int(next, "the condition") {
            Ok(0) => break,
            Ok(_) => condition = next,
            Err(_) if trip >= trips => break,
            Err(_) => return Ok(None),
        }
    }
    for column in columns {
        if column.is_empty() {
            return Ok(None);
        }
        state.push(stacked(c, &column, 0)?);
    }
    Ok(Some(state))
}

/// Scans over known extents, written out.
fn scan(c: &mut Ctx) -> Results {
    let (own, captured) = own_and_captured(c)?;
    let body = regions_by_name(c, "body")?;
    let own: Vec<Value> = own.into_iter().collect::<Option<_>>().ok_or(Fail::Poisoned)?;
    let scanned = usize::try_from(c.int("num_scan_inputs")?.unwrap_or(0)).unwrap_or(0);
    let Some(states) = own.len().checked_sub(scanned).filter(|_| scanned > 0) else {
        return invalid("attribute `num_scan_inputs` doesn't fit the inputs");
    };
    let outputs = body.outputs().len().saturating_sub(states);
    let list = |c: &Ctx, name: &str, n: usize| -> Ruled<Vec<i64>> {
        let list = c.ints(name)?.unwrap_or_else(|| vec![0; n]);
        if list.len() == n { Ok(list) } else { invalid(format!("attribute `{name}` has {} entries", list.len())) }
    };
    let (axes, backwards) = (list(c, "scan_input_axes", scanned)?, list(c, "scan_input_directions", scanned)?);
    let (out_axes, out_backwards) =
        (list(c, "scan_output_axes", outputs)?, list(c, "scan_output_directions", outputs)?);
    let mut inputs = Vec::with_capacity(scanned);
    let mut trips = None;
    for (i, &v) in own.iter().skip(states).enumerate() {
        let axis = c.axis_of(axes.get(i).copied().unwrap_or(0), c.rank(v)?)?;
        let extent = c.known_extent(v, axis)?;
        if *trips.get_or_insert(extent) != extent {
            return invalid("scan inputs of different lengths");
        }
        inputs.push((v, axis, backwards.get(i) == Some(&1)));
    }
    let trips = trips.unwrap_or(0);
    if trips > MAX_OPS || trips.saturating_mul(body.len()) > MAX_OPS {
        return unsupported(format!("a scan of {trips} steps"));
    }
    let mut state: Vec<Value> = own.iter().take(states).copied().collect();
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); outputs];
    for trip in 0..trips {
        let mut arguments = state.clone();
        for &(v, axis, backwards) in &inputs {
            let at = if backwards { trips - 1 - trip } else { trip };
            let part = c.part(v, axis, Dim::from(at), Dim::ONE)?;
            let mut dims = c.shape(part)?;
            dims.remove(axis);
            arguments.push(c.b.reshape(part, dims)?);
        }
        arguments.extend(captured.iter().copied());
        let results = inline(c, body, &arguments)?;
        let (now, outs) = results.split_at(states.min(results.len()));
        state = now.to_vec();
        for (column, v) in columns.iter_mut().zip(outs) {
            column.push(*v);
        }
    }
    for (i, mut column) in columns.into_iter().enumerate() {
        if out_backwards.get(i) == Some(&1) {
            column.reverse();
        }
        let rank = column.first().map(|v| c.rank(*v)).transpose()?.unwrap_or(0);
        let axis = c.axis_of(out_axes.get(i).copied().unwrap_or(0), rank + 1)?;
        state.push(stacked(c, &column, axis)?);
    }
    Ok(state)
}

/// A region for each element of known sequences.
fn sequence_map(c: &mut Ctx) -> Results {
    let (own, captured) = own_and_captured(c)?;
    let body = regions_by_name(c, "body")?;
    let own: Vec<Value> = own.into_iter().collect::<Option<_>>().ok_or(Fail::Poisoned)?;
    let mut length = None;
    let mut lists = Vec::with_capacity(own.len());
    for &v in &own {
        let list = super::sequence::elements(c, v);
        if list.is_none() && matches!(c.b.function.ty(v), ValueType::Sequence(_)) {
            return unsupported("a sequence whose length is not known");
        }
        if let Some(list) = &list
            && *length.get_or_insert(list.len()) != list.len()
        {
            return invalid("sequences of different lengths");
        }
        lists.push(list);
    }
    let length = length.unwrap_or(0);
    if length.saturating_mul(body.len()) > MAX_OPS {
        return unsupported(format!("a map over {length} elements"));
    }
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); body.outputs().len()];
    for i in 0..length {
        let mut arguments = Vec::with_capacity(own.len() + captured.len());
        for (v, list) in own.iter().zip(&lists) {
            arguments.push(list.as_ref().and_then(|l| l.get(i).copied()).unwrap_or(*v));
        }
        arguments.extend(captured.iter().copied());
        let results = inline(c, body, &arguments)?;
        for (column, v) in columns.iter_mut().zip(results) {
            column.push(v);
        }
    }
    columns.into_iter().map(|column| super::sequence::list(c, &column)).collect()
}
