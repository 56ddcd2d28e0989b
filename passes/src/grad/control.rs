//! Gradients of branches and loops: regions that run again, in reverse.
//!
//! A branch is taken again with the cotangents. A loop keeps what it carried at the start of each trip, stacked; its
//! gradient is a loop from the last trip to the first, which runs each trip again from there and differentiates it.

use frit_ir::builder::Builder;
use frit_ir::types::Dim;
use frit_ir::{BinaryOp, DType, Function, NodeId, Op, TensorType, Value, ValueType};

use super::GradError;
use super::reverse::reverse;
use super::site::{Fail, Ruled, Site, refuse};

/// What an op inside a region refuses, said of the op that holds it.
fn inner(error: GradError) -> Fail {
    Fail::Refused(error.to_string())
}

fn tensor(ty: &ValueType) -> Ruled<TensorType> {
    match ty.tensor() {
        Some(ty) => Ok(ty.clone()),
        None => refuse(format!("it handles {ty}")),
    }
}

/// An op with regions, as the site's builder would add it.
fn add(s: &mut Site<'_>, op: Op, operands: &[Value], regions: Vec<Function>) -> Ruled<NodeId> {
    let (origin, numerics) = (s.b.origin.clone(), s.b.numerics);
    Ok(s.b.function.add_op_with(op, operands, regions, &origin, numerics)?)
}

/// Differentiates a copy of `body` inside `f`: gradients by its inputs `wanted`, given cotangents of its outputs.
fn differentiate(
    f: &mut Function,
    body: &Function,
    arguments: &[Value],
    cotangents: &[(usize, Value)],
    wanted: &[usize],
) -> Ruled<(Vec<Value>, Vec<Value>)> {
    let Some(outputs) = f.inline(body, arguments) else { return refuse("its region does not fit its operands") };
    let seeds: Vec<(Value, Value)> =
        cotangents.iter().filter_map(|&(i, g)| Some((outputs.get(i).copied()?, g))).collect();
    let by: Vec<Value> = wanted.iter().filter_map(|&i| arguments.get(i).copied()).collect();
    let gradients = reverse(f, &seeds, &by).map_err(inner)?;
    Ok((outputs, gradients))
}

pub(super) fn branch(s: &mut Site<'_>) -> Ruled {
    let regions = s.b.function.node(s.id).regions().to_vec();
    let captured = s.operands[1..].to_vec();
    let wanted: Vec<usize> = (0..captured.len()).filter(|i| s.wants(i + 1)).collect();
    let given: Vec<(usize, Value)> = s.cotangents.iter().enumerate().filter_map(|(i, g)| Some((i, (*g)?))).collect();
    let mut backward = Vec::with_capacity(regions.len());
    for region in &regions {
        let mut f = Function::new("");
        f.symbols.clone_from(&region.symbols);
        let mut arguments = Vec::with_capacity(captured.len());
        for (i, value) in captured.iter().enumerate() {
            let ty = s.b.function.ty(*value).clone();
            arguments.push(f.add_input(&format!("x{i}"), ty));
        }
        let mut cotangents = Vec::with_capacity(given.len());
        for (i, g) in &given {
            let ty = s.b.function.ty(*g).clone();
            cotangents.push((*i, f.add_input(&format!("g{i}"), ty)));
        }
        let (_, gradients) = differentiate(&mut f, region, &arguments, &cotangents, &wanted)?;
        for (i, gradient) in gradients.into_iter().enumerate() {
            f.add_output(&format!("d{i}"), gradient);
        }
        backward.push(f);
    }
    let operands: Vec<Value> = s.operands.iter().copied().chain(given.iter().map(|(_, g)| *g)).collect();
    let node = add(s, Op::If {}, &operands, backward)?;
    for (result, i) in wanted.into_iter().enumerate() {
        s.give(i + 1, Value { node, result });
    }
    Ok(())
}

/// The loop with what it carries at the start of each trip as more stacked results.
fn keeping(s: &mut Site<'_>, carried: usize, trips: &Dim) -> Ruled<NodeId> {
    let Some(mut body) = s.b.function.node(s.id).regions().first().cloned() else {
        return refuse("it has no region");
    };
    // The trip number and the condition come first.
    let starts: Vec<Value> = body.input_values().skip(2).take(carried).collect();
    for (i, value) in starts.into_iter().enumerate() {
        body.add_output(&format!("kept{i}"), value);
    }
    let results = s.b.function.node(s.id).results().len();
    let operands = s.operands.clone();
    let node = add(s, Op::Loop { carried, trips: trips.clone() }, &operands, vec![body])?;
    for result in 0..results {
        s.b.function.replace_uses(Value { node: s.id, result }, Value { node, result });
    }
    Ok(node)
}

/// One element of the first axis of a stacked tensor.
fn at_trip(b: &mut Builder<'_>, stacked: Value, trip: Value) -> Ruled<Value> {
    let mut sizes = b.dims(stacked)?;
    let inner = sizes.get(1..).unwrap_or(&[]).to_vec();
    if let Some(first) = sizes.first_mut() {
        *first = Dim::ONE;
    }
    let zero = b.dim(Dim::ZERO)?;
    let mut operands = vec![stacked, trip];
    operands.resize(1 + sizes.len(), zero);
    let one = b.op(Op::DynamicSlice { sizes }, &operands)?;
    Ok(b.reshape(one, inner)?)
}

pub(super) fn repeat(s: &mut Site<'_>, carried: usize, trips: &Dim) -> Ruled {
    let forward = keeping(s, carried, trips)?;
    let Some(body) = s.b.function.node(s.id).regions().first().cloned() else {
        return refuse("it has no region");
    };
    let results = s.b.function.node(s.id).results().len();
    let captured: Vec<Value> = s.operands[2 + carried..].to_vec();
    let kept: Vec<Value> = (0..carried).map(|i| Value { node: forward, result: results + i }).collect();
    let is_float = |s: &Site<'_>, v: Value| s.b.function.ty(v).tensor().is_some_and(|t| t.dtype.is_float());
    // A carried value that starts constant may still pass cotangents on to the others.
    let states: Vec<usize> = (0..carried).filter(|&i| is_float(s, s.operands[2 + i])).collect();
    let sums: Vec<usize> = (0..captured.len()).filter(|&i| s.wants(2 + carried + i)).collect();
    let stacks: Vec<(usize, Value)> = (carried..results).filter_map(|i| Some((i, s.cotangents[i]?))).collect();

    // What the gradient's loop carries: cotangents of the states, sums for the captured values.
    let mut start = Vec::new();
    for &i in &states {
        let zero = match s.cotangents[i] {
            Some(g) => g,
            None => {
                let ty = tensor(s.b.function.ty(Value { node: forward, result: i }))?;
                s.b.filled(&ty, 0.0)?
            }
        };
        start.push(zero);
    }
    for &i in &sums {
        let ty = tensor(s.b.function.ty(captured[i]))?;
        let zero = s.b.filled(&ty, 0.0)?;
        start.push(zero);
    }
    let outside: Vec<Value> = captured.iter().copied().chain(kept).chain(stacks.iter().map(|(_, g)| *g)).collect();

    let mut f = Function::new("");
    f.symbols.clone_from(&body.symbols);
    let trip = f.add_input("trip", TensorType::scalar(DType::I64));
    let condition = f.add_input("condition", TensorType::scalar(DType::Bool));
    let input = |f: &mut Function, v: Value, name: String| {
        let ty = s.b.function.ty(v).clone();
        f.add_input(&name, ty)
    };
    let moving: Vec<Value> = start.iter().enumerate().map(|(i, v)| input(&mut f, *v, format!("g{i}"))).collect();
    let fixed: Vec<Value> = outside.iter().enumerate().map(|(i, v)| input(&mut f, *v, format!("x{i}"))).collect();
    let mut b = Builder::new(&mut f, s.b.origin.clone());
    b.numerics = s.b.numerics;
    // From the last trip to the first.
    let last = b.dim(trips - &Dim::ONE)?;
    let here = b.binary(BinaryOp::Sub, last, trip)?;
    let mut arguments = vec![here, condition];
    for stack in &fixed[captured.len()..captured.len() + carried] {
        arguments.push(at_trip(&mut b, *stack, here)?);
    }
    arguments.extend_from_slice(&fixed[..captured.len()]);
    // The region's outputs: condition, carried, stacked.
    let mut cotangents: Vec<(usize, Value)> = states.iter().zip(&moving).map(|(&i, &g)| (1 + i, g)).collect();
    for ((i, _), stack) in stacks.iter().zip(&fixed[captured.len() + carried..]) {
        cotangents.push((1 + i, at_trip(&mut b, *stack, here)?));
    }
    let wanted: Vec<usize> = states.iter().map(|i| 2 + i).chain(sums.iter().map(|i| 2 + carried + i)).collect();
    let (_, gradients) = differentiate(&mut f, &body, &arguments, &cotangents, &wanted)?;
    let mut b = Builder::new(&mut f, s.b.origin.clone());
    b.numerics = s.b.numerics;
    let go_on = b.scalar(DType::Bool, 1.0)?;
    let mut outputs = vec![go_on];
    outputs.extend_from_slice(&gradients[..states.len()]);
    for (sum, gradient) in moving[states.len()..].iter().zip(&gradients[states.len()..]) {
        outputs.push(b.binary(BinaryOp::Add, *sum, *gradient)?);
    }
    for (i, output) in outputs.into_iter().enumerate() {
        f.add_output(&format!("out{i}"), output);
    }

    let count = s.b.dim(trips.clone())?;
    let begin = s.b.scalar(DType::Bool, 1.0)?;
    let operands: Vec<Value> = [count, begin].into_iter().chain(start).chain(outside).collect();
    let op = Op::Loop { carried: states.len() + sums.len(), trips: trips.clone() };
    let node = add(s, op, &operands, vec![f])?;
    for (result, i) in states.iter().map(|i| 2 + i).chain(sums.iter().map(|i| 2 + carried + i)).enumerate() {
        s.give(i, Value { node, result });
    }
    Ok(())
}
