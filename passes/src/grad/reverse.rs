//! The reverse sweep: ops that the wanted inputs reach, from the last to the first.

use std::collections::{HashMap, HashSet};

use frit_ir::builder::Builder;
use frit_ir::{BinaryOp, DType, Function, NodeId, Numerics, Op, TensorType, Value};

use super::site::{Ruled, Site, refuse};
use super::{GradError, contraction, control, elementwise, invariant, movement, reduction, window};

/// Adds the ops that differentiate: of the sum over `seeds` of output times cotangent, the derivatives by `wanted`, in
/// its order; zeros where there is no dependence. Ops that are there stay; only loops are replaced by ones that also
/// keep what the derivative needs.
///
/// # Errors
/// An op that has no gradient, by its name and origin.
pub fn reverse(f: &mut Function, seeds: &[(Value, Value)], wanted: &[Value]) -> Result<Vec<Value>, GradError> {
    let order = f.toposort().ok_or_else(|| GradError::Cycle(f.name.clone()))?;
    let varied = varied(f, &order, wanted);
    let outputs: Vec<Value> = seeds.iter().map(|(output, _)| *output).collect();
    let dead = invariant::dead_operands(f, &order, &outputs);
    let common = common(f, &order);
    let mut cotangents: HashMap<Value, Value> = HashMap::new();
    for &(output, cotangent) in seeds {
        if varied.contains(&output) {
            add(f, &mut cotangents, output, cotangent, common)?;
        }
    }
    for &id in order.iter().rev() {
        let results = f.node(id).results().len();
        let own: Vec<Option<Value>> =
            (0..results).map(|result| cotangents.get(&Value { node: id, result }).copied()).collect();
        let operands = f.node(id).operands().to_vec();
        let flows = |(i, v): (usize, &Value)| varied.contains(v) && !dead.contains(&(id, i));
        let wants: Vec<bool> = operands.iter().enumerate().map(flows).collect();
        if own.iter().all(Option::is_none) || !wants.contains(&true) {
            continue;
        }
        let (origin, numerics) = (f.node(id).origin.clone(), numerics_of(f, id, common));
        let mut b = Builder::new(f, origin);
        b.numerics = numerics;
        let mut site =
            Site { b, id, operands: operands.clone(), wanted: wants.clone(), cotangents: own, given: Vec::new() };
        if let Err(fail) = rule(&mut site) {
            return Err(site.error(fail));
        }
        for (operand, value) in site.given {
            if let Some(&target) = operands.get(operand)
                && wants.get(operand) == Some(&true)
            {
                add(f, &mut cotangents, target, value, common)?;
            }
        }
    }
    let mut gradients = Vec::with_capacity(wanted.len());
    for &value in wanted {
        gradients.push(match cotangents.get(&value) {
            Some(&found) => found,
            None => zeros(f, value)?,
        });
    }
    Ok(gradients)
}

/// Values that depend on the wanted ones by way of floats.
fn varied(f: &Function, order: &[NodeId], wanted: &[Value]) -> HashSet<Value> {
    let mut varied: HashSet<Value> = wanted.iter().copied().collect();
    for &id in order {
        let node = f.node(id);
        if !node.operands().iter().any(|v| varied.contains(v)) {
            continue;
        }
        for (result, ty) in node.results().iter().enumerate() {
            // Lists may hold floats: they count, so that their ops are refused by name.
            if ty.tensor().is_none_or(|t| t.dtype.is_float()) {
                varied.insert(Value { node: id, result });
            }
        }
    }
    varied
}

/// What all ops allow that take numerics.
fn common(f: &Function, order: &[NodeId]) -> Numerics {
    let all = order.iter().map(|id| f.node(*id)).filter(|n| n.op.takes_numerics()).map(|n| n.numerics);
    all.reduce(Numerics::meet).unwrap_or_default()
}

/// The numerics of an op's gradient: its own, or what all ops allow where it has none, as a broadcast, whose gradient is
/// a sum.
fn numerics_of(f: &Function, id: NodeId, common: Numerics) -> Numerics {
    let node = f.node(id);
    if node.op.takes_numerics() { node.numerics } else { common }
}

/// Adds to a value's cotangent.
fn add(
    f: &mut Function,
    cotangents: &mut HashMap<Value, Value>,
    target: Value,
    value: Value,
    common: Numerics,
) -> Result<(), GradError> {
    let sum = match cotangents.get(&target) {
        None => value,
        Some(&before) => {
            let node = f.node(target.node);
            let (op, origin, numerics) = (node.op.name(), node.origin.clone(), numerics_of(f, target.node, common));
            let mut b = Builder { function: f, origin: origin.clone(), numerics };
            let fail = |source| GradError::Rule { op, origin: origin.to_string(), source };
            b.op(Op::Binary(BinaryOp::Add), &[before, value]).map_err(fail)?
        }
    };
    cotangents.insert(target, sum);
    Ok(())
}

fn zeros(f: &mut Function, like: Value) -> Result<Value, GradError> {
    let node = f.node(like.node);
    let (op, origin) = (node.op.name(), node.origin.clone());
    let ty = f.ty(like).tensor().cloned().unwrap_or_else(|| TensorType::scalar(DType::F32));
    let made = Builder::new(f, origin.clone()).filled(&ty, 0.0);
    made.map_err(|source| GradError::Rule { op, origin: origin.to_string(), source })
}

/// Writes the gradient of one op.
fn rule(s: &mut Site<'_>) -> Ruled {
    let op = s.b.function.node(s.id).op.clone();
    match &op {
        Op::Unary(op) => elementwise::unary(s, *op),
        Op::Binary(op) => elementwise::binary(s, *op),
        Op::Select { .. } => elementwise::select(s),
        Op::Cast { .. } => elementwise::cast(s),
        Op::Bitcast { .. } => refuse("it looks at bits"),
        Op::Broadcast { axes, .. } => movement::broadcast(s, axes),
        Op::Reshape { .. } => movement::reshape(s),
        Op::Transpose { perm } => movement::transpose(s, perm),
        Op::Slice { starts, sizes, steps } => movement::slice(s, starts, sizes, steps),
        Op::DynamicSlice { .. } => movement::dynamic_slice(s),
        Op::UpdateSlice {} => movement::update_slice(s),
        Op::Pad { low, .. } => movement::pad(s, low),
        Op::Concat { axis } => movement::concat(s, *axis),
        Op::Gather { axis } => movement::gather(s, *axis),
        Op::Scatter { axis, kind } => movement::scatter(s, *axis, *kind),
        Op::Window { axes, sizes, strides, dilations, low, .. } => {
            window::window(s, &window::Slide { axes, sizes, strides, dilations, low })
        }
        Op::Reduce { axes, kind } => reduction::reduce(s, axes, *kind),
        Op::Cumulate { axis, kind, exclusive, reverse } => reduction::cumulate(s, *axis, *kind, *exclusive, *reverse),
        Op::Sort { axis, descending } => reduction::sort(s, *axis, *descending),
        Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } => {
            contraction::dot_general(s, (lhs_batch, lhs_contract), (rhs_batch, rhs_contract), *accumulate)
        }
        Op::Conv { strides, dilations, low, high, groups } => {
            contraction::conv(s, &contraction::Geometry { strides, dilations, low, high, groups: *groups })
        }
        Op::ConvTranspose { strides, dilations, low, high, groups, .. } => {
            contraction::conv_transpose(s, &contraction::Geometry { strides, dilations, low, high, groups: *groups })
        }
        Op::If {} => control::branch(s),
        Op::Loop { carried, trips } => control::repeat(s, *carried, trips),
        Op::Assert { .. } => {
            let g = s.g()?;
            s.give(0, g);
            Ok(())
        }
        // They are written out before.
        Op::Call { .. } | Op::Composite { .. } | Op::Fusion {} | Op::Vjp { .. } => refuse("it is not written out"),
        Op::SequenceConstruct { .. }
        | Op::SequenceAt {}
        | Op::SequenceInsert {}
        | Op::SequenceErase {}
        | Op::SequenceLength {} => refuse("lists of tensors are not differentiated"),
        Op::Onnx { op_type, .. } => refuse(format!("ONNX {op_type} is not legalized")),
        // Nothing flows into these: they have no float operand, or no float result.
        Op::Input { .. }
        | Op::Constant { .. }
        | Op::Param { .. }
        | Op::Iota { .. }
        | Op::DimValue { .. }
        | Op::Compact { .. }
        | Op::Absent {} => Ok(()),
    }
}
