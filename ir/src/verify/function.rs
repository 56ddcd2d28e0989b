//! Checks of one function or region: graph, inputs, types, origins, numerics (V1 to V7, V14, V15, V17 to V19).
//!
//! Later checks of an op run only where the earlier ones held, so that nothing here looks up what is not there.

use std::collections::{HashMap, HashSet};

use super::{Invariant, MAX_DEPTH, Report};
use crate::graph::{Function, Node, NodeId, Port, Value};
use crate::op::infer::{Signature, infer};
use crate::op::{Numerics, Op, OpClass};
use crate::tensor::Tensor;
use crate::types::{Class, DType, Dim, TensorType, ValueType};

/// Checks a function (`depth` 0) or region and all regions in it.
pub(super) fn check(f: &Function, path: &str, depth: usize, report: &mut Report) {
    edges(f, path, report);
    if f.toposort().is_none() {
        report.add(Invariant::V3, path, None, "its ops form a cycle");
    }
    inputs(f, path, depth, report);
    for requirement in f.requirements().iter().filter(|r| r.origin.is_empty()) {
        report.add(Invariant::V7, path, None, format!("the requirement {requirement} has no origin"));
    }
    for output in f.outputs() {
        if type_of(f, output.value).is_none() {
            let message = format!("output \"{}\" is no result of an op", output.name);
            report.add(Invariant::V2, path, None, message);
        }
    }
    for id in f.nodes() {
        let Some(node) = f.get(id) else { continue };
        for (i, region) in node.regions().iter().enumerate() {
            if depth >= MAX_DEPTH {
                report.add(Invariant::V19, path, Some(node), format!("regions nest deeper than {MAX_DEPTH}"));
                break;
            }
            check(region, &format!("{path} / {} region {i}", node.op.name()), depth + 1, report);
        }
        op(f, node, path, depth, report);
    }
}

/// V1, and the operands' part of V2.
fn edges(f: &Function, path: &str, report: &mut Report) {
    let mut incoming: HashMap<NodeId, Vec<(NodeId, Port)>> = HashMap::new();
    for (source, target, port) in f.edges() {
        incoming.entry(target).or_default().push((source, port));
    }
    for id in f.nodes() {
        let Some(node) = f.get(id) else { continue };
        let mut found = incoming.remove(&id).unwrap_or_default();
        found.sort_unstable_by_key(|(_, port)| port.operand);
        let mut dead = false;
        for (i, value) in node.operands().iter().enumerate() {
            if type_of(f, *value).is_none() {
                dead = true;
                report.add(Invariant::V2, path, Some(node), format!("operand {i} is no result of an op"));
            }
        }
        let mirrored =
            node.operands().iter().enumerate().map(|(operand, v)| (v.node, Port { result: v.result, operand }));
        if !dead && !mirrored.eq(found) {
            report.add(Invariant::V1, path, Some(node), "the edges into it are not its operands");
        }
    }
}

/// The type of a value that may not be there.
pub(super) fn type_of(f: &Function, value: Value) -> Option<&ValueType> {
    f.get(value.node)?.results().get(value.result)
}

/// Input and output types; `None` when one is not there.
pub(super) fn signature(f: &Function) -> Option<Signature> {
    Some(Signature {
        inputs: f.input_values().map(|v| type_of(f, v).cloned()).collect::<Option<_>>()?,
        outputs: f.outputs().iter().map(|o| type_of(f, o.value).cloned()).collect::<Option<_>>()?,
    })
}

/// V4, and V5 for functions: a region's names carry no meaning.
fn inputs(f: &Function, path: &str, depth: usize, report: &mut Report) {
    let mut listed = HashSet::new();
    let mut names = HashSet::new();
    for &id in f.inputs() {
        match f.get(id).map(|n| &n.op) {
            Some(Op::Input { name, .. }) => {
                if !listed.insert(id) {
                    report.add(Invariant::V4, path, None, format!("input \"{name}\" is listed twice"));
                } else if !names.insert(name) && depth == 0 {
                    report.add(Invariant::V5, path, None, format!("two inputs are called \"{name}\""));
                }
            }
            _ => report.add(Invariant::V4, path, None, "the list of inputs names an op that is no `input`"),
        }
    }
    for id in f.nodes() {
        if let Some(node) = f.get(id).filter(|n| matches!(n.op, Op::Input { .. }) && !listed.contains(&id)) {
            report.add(Invariant::V4, path, Some(node), "it is not in the list of inputs");
        }
    }
    let mut names = HashSet::new();
    for output in f.outputs().iter().filter(|_| depth == 0) {
        if !names.insert(&output.name) {
            report.add(Invariant::V5, path, None, format!("two outputs are called \"{}\"", output.name));
        }
    }
}

fn op(f: &Function, node: &Node, path: &str, depth: usize, report: &mut Report) {
    if node.origin.is_empty() {
        report.add(Invariant::V7, path, Some(node), "it has no origin");
    }
    if node.numerics != Numerics::STRICT && !node.op.takes_numerics() {
        report.add(Invariant::V14, path, Some(node), "it calculates nothing, but has numerics");
    }
    if let Op::Constant { value } = &node.op
        && let Some(message) = stray_element(value)
    {
        report.add(Invariant::V15, path, Some(node), message);
    }
    let is_input = matches!(node.op, Op::Input { .. });
    let may_be_unknown = |ty: &ValueType| match ty {
        _ if node.op.class() == OpClass::Foreign || (depth > 0 && is_input) => true,
        // ONNX may leave a sequence input's elements open: the host finds out when it gets one.
        ValueType::Sequence(_) | ValueType::Optional(_) | ValueType::Map(..) => is_input,
        ValueType::Tensor(_) | ValueType::Unknown => false,
    };
    for ty in node.results() {
        if mentions_unknown(ty) && !may_be_unknown(ty) {
            report.add(Invariant::V17, path, Some(node), format!("its type is {ty}"));
        }
        if let Some(message) = bad_extent(ty) {
            report.add(Invariant::V18, path, Some(node), message);
            return;
        }
    }
    types(f, node, path, report);
}

/// V6. Ops whose types are stated are checked in number only; calls have their own check.
fn types(f: &Function, node: &Node, path: &str, report: &mut Report) {
    let operands: Option<Vec<&ValueType>> = node.operands().iter().map(|v| type_of(f, *v)).collect();
    let regions: Option<Vec<Signature>> = node.regions().iter().map(signature).collect();
    let (Some(operands), Some(regions)) = (operands, regions) else { return };
    match node.op {
        Op::Call { .. } | Op::Onnx { .. } => {
            if !node.op.region_count().allows(regions.len()) {
                report.add(Invariant::V6, path, Some(node), format!("it has {} regions", regions.len()));
            }
        }
        _ => match infer(&node.op, &operands, &regions) {
            Err(e) => report.add(Invariant::V6, path, Some(node), e.message),
            Ok(inferred) if inferred != node.results() => {
                let show = |types: &[ValueType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let message = format!("it gives ({}), but states ({})", show(&inferred), show(node.results()));
                report.add(Invariant::V6, path, Some(node), message);
            }
            Ok(_) => {}
        },
    }
}

/// Why a tensor's bytes are no values of its type.
pub(super) fn stray_element(tensor: &Tensor) -> Option<String> {
    let dtype = tensor.dtype();
    let stored_bits = 8 * u32::try_from(dtype.size()).unwrap_or(0);
    if dtype.bits() >= stored_bits {
        return None;
    }
    let unused = stored_bits - dtype.bits();
    let valid = |b: u8| match dtype.class() {
        Class::Signed => ((b << unused) as i8 >> unused) as u8 == b,
        Class::Unsigned | Class::Bool | Class::Float | Class::Text => b >> dtype.bits() == 0,
    };
    let stray = tensor.bytes().iter().position(|&b| !valid(b))?;
    Some(format!("element {stray} is byte {:#x}, no {dtype}", tensor.bytes().get(stray).copied().unwrap_or(0)))
}

fn mentions_unknown(ty: &ValueType) -> bool {
    match ty {
        ValueType::Unknown => true,
        ValueType::Tensor(_) => false,
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => mentions_unknown(e),
    }
}

/// V18: what is wrong with a type's extents.
fn bad_extent(ty: &ValueType) -> Option<String> {
    match ty {
        ValueType::Unknown => None,
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => bad_extent(e),
        ValueType::Tensor(t) => bad_tensor(t),
    }
}

fn bad_tensor(t: &TensorType) -> Option<String> {
    if let Some(dim) = t.dims.iter().find(|d| d.known().is_some_and(|d| d < 0)) {
        return Some(format!("{t} has an extent of {dim}"));
    }
    // A string takes no bytes here, so only its number counts.
    let unit = if t.dtype == DType::Str { 1 } else { t.dtype.size() };
    let known = t.dims.iter().filter_map(Dim::known);
    let bytes = known.clone().try_fold(i64::try_from(unit).unwrap_or(i64::MAX), i64::checked_mul);
    (bytes.is_none() && known.clone().all(|d| d != 0)).then(|| format!("{t} is larger than 2^63 bytes"))
}

/// Reports `onnx` and `absent` ops.
pub(super) fn check_core(f: &Function, name: &str, depth: usize, report: &mut Report) {
    super::visit(f, depth, &mut |_, node, _| {
        if node.op.class() == OpClass::Foreign {
            report.add(Invariant::V17, name, Some(node), "it is not a core op: run `legalize`");
        }
    });
}
