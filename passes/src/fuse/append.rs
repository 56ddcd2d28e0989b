//! Appends: a donated input that grows by a `concat`.
//!
//! In: a function and one of its donations. Out: the `concat` whose first operand is the input and whose result is the
//! output, perhaps through views that change nothing, or why there is none. The compiler makes it a step that writes
//! only the new elements behind the old ones, so it stays an op of its own, and so do the views (F12).

use std::collections::BTreeSet;

use frit_ir::{Dim, Donation, Function, NodeId, Op, TensorType, Value};

/// A donated input that grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The `concat`.
    pub concat: NodeId,
    /// The axis that grows.
    pub axis: usize,
    /// Views that change nothing between input, `concat` and output.
    pub views: Vec<NodeId>,
}

/// The axis along which a donation grows; `None` when it keeps its type.
pub fn grown_axis(from: &TensorType, to: &TensorType) -> Option<usize> {
    from.dims.iter().zip(&to.dims).position(|(a, b)| a != b)
}

/// The append that a donation means.
///
/// # Errors
/// Why the output is not the input with more behind it, as the end of a sentence.
pub fn append(f: &Function, donation: Donation) -> Result<Append, String> {
    let (Some(&input), Some(output)) = (f.inputs().get(donation.input), f.outputs().get(donation.output)) else {
        return Err("the donation leads nowhere".to_owned());
    };
    let input = Value { node: input, result: 0 };
    let (Some(from), Some(to)) = (f.ty(input).tensor(), f.ty(output.value).tensor()) else {
        return Err("only tensors have memory to take over".to_owned());
    };
    let Some(grown) = grown_axis(from, to) else { return Err("it does not grow".to_owned()) };
    let mut views = Vec::new();
    let value = through_views(f, output.value, &mut views);
    let node = f.node(value.node);
    let (Op::Concat { axis }, Some(&first)) = (&node.op, node.operands().first()) else {
        return Err(format!("the output is made by a `{}`, not by a `concat` of the input", node.op.name()));
    };
    if through_views(f, first, &mut views) != input {
        return Err("the first operand of the output's `concat` is not the input".to_owned());
    }
    if *axis != grown {
        return Err(format!("the output's `concat` runs along axis {axis}, the state grows along axis {grown}"));
    }
    Ok(Append { concat: value.node, axis: *axis, views })
}

/// Ops that belong to appends of the function.
pub(super) fn appended(f: &Function) -> BTreeSet<NodeId> {
    let appends = f.donations.iter().filter_map(|d| append(f, *d).ok());
    appends.flat_map(|a| a.views.into_iter().chain([a.concat])).collect()
}

/// Follows a value up through views that change nothing.
fn through_views(f: &Function, mut value: Value, views: &mut Vec<NodeId>) -> Value {
    while is_identity(f, value) {
        views.push(value.node);
        value = f.node(value.node).operands()[0];
    }
    value
}

/// Whether a value is the first operand of its op, type and all.
pub fn is_identity(f: &Function, value: Value) -> bool {
    let node = f.node(value.node);
    let Some(&operand) = node.operands().first() else { return false };
    let same = f.ty(operand) == f.ty(value);
    same && match &node.op {
        Op::Reshape { .. } => true,
        Op::Broadcast { axes, .. } => axes.iter().enumerate().all(|(i, &a)| i == a),
        Op::Transpose { perm } => perm.iter().enumerate().all(|(i, &p)| i == p),
        Op::Slice { starts, steps, .. } => starts.iter().all(|s| *s == Dim::ZERO) && steps.iter().all(|s| *s == 1),
        _ => false,
    }
}
