//! Which constants of a model training may change.
//!
//! In: a decoded model that is to be trained. Out: the role of every initializer of its main graph that has one, and
//! the model with initializers taken apart that an exporter had merged because they were equal. The file does not say
//! what was a parameter, so this is decided, in this order:
//!
//! 1. What feeds the mean or the variance of a `BatchNormalization` is a running statistic.
//! 2. Integers, and tensors with a value that is not finite (masks), are constants.
//! 3. Where PyTorch's newer exporter recorded it, a parameter is one and a buffer is not; what it folded from
//!    parameters (transposed weights) is one too.
//! 4. What is only compared, or only sets an op up (bounds of `Clip`, the exponent of `Pow`, scales of `Resize`, ..),
//!    is a constant.
//! 5. What feeds a place for weights (`Conv`, `Gemm`, `MatMul`, norms, recurrent nets, tables of `Gather`, slopes) is a
//!    parameter, a transposed or folded weight under a name that an exporter made up included, as long as it has more
//!    than one element.
//! 6. Of the rest, one that is called after an op (`val_12`, `arange`) is a constant. One under another made-up name
//!    (`onnx::Add_33`) is a constant when it has one element, when the model records parameters, or when it holds a
//!    number beyond 10,000 (a mask); else it is a parameter: a part of a table, say. One under a name of its own is a
//!    parameter, but a single number only where PyTorch gave the name: others call the 2 of `2 x` something too.
//!
//! `Constant` nodes, and initializers of subgraphs and functions, stay constants. A buffer that the older exporter wrote,
//! or that the newer one folded (a grid of splines), looks like any weight and is taken for one: whoever knows better
//! names what is to be frozen.
//!
//! Exporters keep one of several initializers with equal values. In a network as it was initialised that joins all
//! biases of zeros and all scales of ones, which train apart. So one whose elements are all the same, with several
//! users, becomes one for each: the first keeps the name, `Identity` nodes leave theirs, others get a number. Equal
//! tensors with different elements are taken as tied.

use std::collections::{HashMap, HashSet};

use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use super::tensor::TensorReader;
use crate::convert::to_f64s;
use crate::tensor::Tensor;

/// What training does to an initializer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is trained.
    Trained,
    /// A batch norm's running mean or variance: training renews it by the batches that it sees.
    Statistic,
}

/// Roles by name.
pub(super) type Roles = HashMap<String, Role>;

/// Where PyTorch's newer exporter says what an initializer was.
const KIND: &str = "pkg.torch.export.graph_signature.InputSpec.kind";
/// Where its optimiser says what it folded.
const FOLDED: &str = "pkg.onnxscript.optimizer.folded_from";
/// Numbers beyond this are a mask's.
const MASK: f64 = 1e4;
/// In files before this version every initializer is an input as well.
const FREE_INITIALIZERS: i64 = 4;
/// Names that PyTorch's newer exporter gives results of ops that make constants.
const MADE_BY_OPS: [&str; 13] = [
    "arange",
    "clone",
    "convert_element_type",
    "detach",
    "full",
    "lift_fresh_copy",
    "linspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "to_copy",
    "val",
    "zeros",
];

/// A place where a value is used: the operator, and which operand.
type Place<'g> = (&'g str, usize);

/// Takes merged initializers apart and gives the roles of all. A tensor that can't be read has none: import refuses it.
pub(super) fn prepare(model: &mut ModelProto, reader: &mut TensorReader) -> Roles {
    let pytorch = model.producer_name() == "pytorch";
    let apart = model.ir_version() >= FREE_INITIALIZERS;
    let Some(graph) = &mut model.graph else { return Roles::new() };
    if apart {
        untie(graph, reader);
    }
    let uses = uses(graph);
    let recorded = graph.initializer.iter().any(|t| note(t, KIND).is_some());
    let mut roles = Roles::new();
    for tensor in graph.initializer.iter().filter(|t| is_float(t)) {
        let places = uses.get(tensor.name()).map_or(&[][..], Vec::as_slice);
        let initializer = Initializer { tensor, places, pytorch, recorded };
        if let Some(role) = initializer.role(reader) {
            roles.insert(tensor.name().to_owned(), role);
        }
    }
    roles
}

/// Whether training can change numbers of this type.
fn is_float(tensor: &TensorProto) -> bool {
    use super::proto::DataType;
    let floats = [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];
    floats.iter().any(|d| *d as i32 == tensor.data_type())
}

fn note<'t>(tensor: &'t TensorProto, key: &str) -> Option<&'t str> {
    tensor.metadata_props.iter().find(|p| p.key() == key).map(|p| p.value())
}

/// Uses of names in a graph and in those below it.
fn uses(graph: &GraphProto) -> HashMap<&str, Vec<Place<'_>>> {
    fn add<'g>(graph: &'g GraphProto, found: &mut HashMap<&'g str, Vec<Place<'g>>>) {
        for node in &graph.node {
            for (index, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                found.entry(name).or_default().push((node.op_type(), index));
            }
            let below = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
            below.for_each(|graph| add(graph, found));
        }
    }
    let mut found = HashMap::new();
    add(graph, &mut found);
    found
}

/// Mean and variance of a batch norm.
fn is_statistic(&(op, operand): &Place<'_>) -> bool {
    op == "BatchNormalization" && matches!(operand, 3 | 4)
}

/// Whether a gradient goes nowhere from here, or the op takes it as a setting.
fn is_setting(&(op, operand): &Place<'_>) -> bool {
    match op {
        "Shape" | "Size" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Range" | "Sign"
        | "IsNaN" | "IsInf" | "NonZero" | "ConstantOfShape" => true,
        "Pow" | "Clip" | "Resize" | "Upsample" | "Dropout" | "Pad" | "OneHot" | "QuantizeLinear"
        | "DequantizeLinear" | "CastLike" | "Mod" => operand > 0,
        _ => false,
    }
}

/// Whether what is used here is a weight or a bias.
fn is_weight(&(op, operand): &Place<'_>) -> bool {
    match op {
        "MatMul" | "Gemm" | "Einsum" => true,
        "Conv" | "ConvTranspose" | "DeformConv" | "LSTM" | "GRU" | "RNN" | "Attention" => operand > 0,
        "BatchNormalization"
        | "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "RMSNormalization" => matches!(operand, 1 | 2),
        "PRelu" => operand == 1,
        "Gather" => operand == 0,
        _ => false,
    }
}

/// A name without its number, and without what the newer exporter adds to an op's.
fn word(name: &str) -> &str {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_matches('_');
    word.strip_suffix("_default").unwrap_or(word)
}

/// Whether the name is that of an op which makes constants.
fn is_after_op(name: &str) -> bool {
    MADE_BY_OPS.contains(&word(name))
}

/// Whether an exporter made the name up: of an op and a number, or of a place in the code.
fn is_made_up(name: &str) -> bool {
    name.starts_with("onnx::") || name.starts_with('/') || word(name).is_empty() || is_after_op(name)
}

/// An initializer and what is known of it.
struct Initializer<'g> {
    tensor: &'g TensorProto,
    places: &'g [Place<'g>],
    /// PyTorch wrote the model.
    pytorch: bool,
    /// The model says what some of its initializers were.
    recorded: bool,
}

impl Initializer<'_> {
    fn role(&self, reader: &mut TensorReader) -> Option<Role> {
        if self.places.iter().any(is_statistic) {
            return Some(Role::Statistic);
        }
        if self.places.is_empty() {
            return None;
        }
        let largest = largest(&reader.read(self.tensor).ok()?)?;
        (largest.is_finite() && self.is_parameter(largest)).then_some(Role::Trained)
    }

    fn is_parameter(&self, largest: f64) -> bool {
        if let Some(kind) = note(self.tensor, KIND) {
            return kind == "PARAMETER";
        }
        if self.places.iter().all(is_setting) {
            return false;
        }
        let name = self.tensor.name();
        let single = self.tensor.dims.iter().all(|d| *d == 1);
        if let Some(sources) = note(self.tensor, FOLDED) {
            // A list as Python prints it.
            let mut sources = sources.split(['\'', '"']).skip(1).step_by(2);
            return sources.any(|source| !is_made_up(source));
        }
        let weight = self.places.iter().any(is_weight);
        if is_made_up(name) {
            return !single && (weight || !(self.recorded || is_after_op(name) || largest > MASK));
        }
        // Ops name their results without a dot; so are parameters of the outermost module, but those are recorded.
        let own = self.pytorch && (!self.recorded || name.contains('.'));
        weight || own || (!self.pytorch && !single && largest <= MASK)
    }
}

/// The largest magnitude, infinite where a value is not a number.
fn largest(tensor: &Tensor) -> Option<f64> {
    let values = to_f64s(tensor)?;
    Some(values.iter().fold(0.0, |most: f64, v| if v.is_finite() { most.max(v.abs()) } else { f64::INFINITY }))
}

/// Whether all elements are the same bits.
fn is_uniform(tensor: &Tensor) -> bool {
    let size = tensor.dtype().size().max(1);
    let mut elements = tensor.bytes().chunks(size);
    let first = elements.next();
    first.is_some_and(|first| elements.all(|element| element == first))
}

/// An `Identity` of one operand.
fn is_identity(node: &NodeProto) -> bool {
    node.op_type() == "Identity" && matches!(node.domain(), "" | "ai.onnx") && node.input.len() == 1
}

/// Gives each user of a uniform initializer one of its own.
fn untie(graph: &mut GraphProto, reader: &mut TensorReader) {
    let mut users: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for (operand, name) in node.input.iter().enumerate() {
            users.entry(name).or_default().push((at, operand));
        }
    }
    let outputs: HashSet<&str> = graph.output.iter().map(|o| o.name()).collect();
    let results = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
    let known = results.chain(graph.initializer.iter().map(|t| t.name())).chain(graph.input.iter().map(|i| i.name()));
    let mut taken: HashSet<String> = known.map(str::to_owned).collect();
    // Copies of initializers, operands that get other names, nodes that go.
    let (mut copies, mut renamed, mut gone) = (Vec::new(), Vec::new(), HashSet::new());
    for tensor in graph.initializer.iter().filter(|t| is_float(t)) {
        let name = tensor.name();
        let Some(users) = users.get(name).filter(|users| users.len() > 1) else { continue };
        let single = tensor.dims.iter().all(|d| *d == 1);
        if (single && !name.contains('.')) || !reader.read(tensor).is_ok_and(|t| is_uniform(&t)) {
            continue;
        }
        let mut kept = false;
        for &(at, operand) in users {
            let Some(node) = graph.node.get(at) else { continue };
            let output = node.output.first().map_or("", String::as_str);
            if is_identity(node) && !output.is_empty() && !outputs.contains(output) {
                copies.push(TensorProto { name: Some(output.to_owned()), ..tensor.clone() });
                gone.insert(at);
            } else if kept {
                let numbered = (2..).map(|n: u32| format!("{name}__{n}"));
                let Some(own) = numbered.into_iter().find(|own| !taken.contains(own)) else { continue };
                taken.insert(own.clone());
                copies.push(TensorProto { name: Some(own.clone()), ..tensor.clone() });
                renamed.push((at, operand, own));
            } else {
                kept = true;
            }
        }
    }
    for (at, operand, name) in renamed {
        if let Some(input) = graph.node.get_mut(at).and_then(|node| node.input.get_mut(operand)) {
            *input = name;
        }
    }
    graph.initializer.extend(copies);
    let mut at = 0;
    graph.node.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
}

#[cfg(test)]
mod tests;
