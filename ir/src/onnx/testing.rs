//! What the tests of this folder share: random draws from bytes, where test files lie, and models in few words.

use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use super::proto::*;

/// Random values drawn from a byte string; zeros once it is used up, so that every generator ends.
pub(crate) struct Draws<'a> {
    rest: &'a [u8],
}

impl<'a> Draws<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Draws { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// Small most of the time, else an extreme.
    pub(crate) fn integer(&mut self) -> i64 {
        match self.byte() {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => -1,
            small => i64::from(small),
        }
    }

    /// Never NaN, so that messages compare equal to themselves.
    pub(crate) fn float(&mut self) -> f32 {
        match self.byte() {
            255 => f32::INFINITY,
            254 => f32::MIN_POSITIVE,
            253 => -0.0,
            small => f32::from(small) / 16.0 - 4.0,
        }
    }

    pub(crate) fn string(&mut self) -> String {
        ["", "x", "y", "W", "Add", "If", "é", "a b"][usize::from(self.byte() % 8)].into()
    }

    pub(crate) fn bytes(&mut self) -> Bytes {
        let count = self.byte() % 9;
        (0..count).map(|_| self.byte()).collect()
    }

    pub(crate) fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| make(self))
    }

    pub(crate) fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        // Mostly empty: fields that hold lists of messages would otherwise use up the bytes before the last of them.
        let count = match self.byte() {
            0..=127 => 0,
            128..=223 => 1,
            _ => 2,
        };
        (0..count).map(|_| make(self)).collect()
    }
}

/// The folder of shared test files: `FRIT_SHARED`, else `shared` beside the workspace.
pub(crate) fn shared_folder() -> Option<PathBuf> {
    let path = match std::env::var_os("FRIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    path.is_dir().then_some(path)
}

/// Every regular file below a folder, sorted.
pub(crate) fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A node; names are separated by spaces, `-` stands for one left out.
pub(crate) fn node(op_type: &str, inputs: &str, outputs: &str) -> NodeProto {
    let names = |text: &str| text.split_whitespace().map(|n| if n == "-" { "" } else { n }.to_owned()).collect();
    NodeProto {
        op_type: Some(op_type.into()),
        name: Some(format!("{}_node", outputs.split_whitespace().next().unwrap_or(op_type))),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

/// A node with attributes.
pub(crate) fn node_with(op_type: &str, inputs: &str, outputs: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto { attribute: attributes, ..node(op_type, inputs, outputs) }
}

/// An attribute of kind INT.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, i: Some(value), ..AttributeProto::default() }
}

/// An attribute of kind GRAPH.
pub(crate) fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    let kind = Some(AttributeType::Graph as i32);
    AttributeProto { name: Some(name.into()), r#type: kind, g: Some(graph), ..AttributeProto::default() }
}

/// An attribute that is the `reference` of the function's call.
pub(crate) fn reference(name: &str, reference: &str) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    let reference = Some(reference.into());
    AttributeProto { name: Some(name.into()), r#type: kind, ref_attr_name: reference, ..AttributeProto::default() }
}

/// An initializer of zeros.
pub(crate) fn zeros(name: &str, data_type: DataType, dims: &[i64], bytes: usize) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(data_type as i32),
        raw_data: Some(vec![0; bytes].into()),
        ..TensorProto::default()
    }
}

/// A float value; a dim is a number, a name, or `?`.
pub(crate) fn value(name: &str, dims: &str) -> ValueInfoProto {
    let dim = |text: &str| Dimension {
        value: match text.parse() {
            Ok(number) => Some(DimensionValue::DimValue(number)),
            Err(_) if text == "?" => None,
            Err(_) => Some(DimensionValue::DimParam(text.into())),
        },
        denotation: None,
    };
    let tensor = TensorTypeProto {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim: dims.split_whitespace().map(dim).collect() }),
    };
    let ty = TypeProto { value: Some(TypeValue::TensorType(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..ValueInfoProto::default() }
}

/// A value whose type the graph does not tell.
pub(crate) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
}

/// A graph.
pub(crate) fn graph(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, outputs: &str) -> GraphProto {
    GraphProto {
        name: Some("g".into()),
        input: inputs,
        node: nodes,
        output: outputs.split_whitespace().map(untyped).collect(),
        ..GraphProto::default()
    }
}

/// A domain's version.
pub(crate) fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

/// A model of opset 21.
pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto { ir_version: Some(10), opset_import: vec![opset("", 21)], graph: Some(graph), ..ModelProto::default() }
}

/// A function of domain `local` whose body means opset 21.
pub(crate) fn function(name: &str, inputs: &str, outputs: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: names(inputs),
        output: names(outputs),
        node: nodes,
        opset_import: vec![opset("", 21), opset("local", 1)],
        ..FunctionProto::default()
    }
}

/// A call of a function of domain `local`.
pub(crate) fn call(name: &str, inputs: &str, outputs: &str) -> NodeProto {
    NodeProto { domain: Some("local".into()), ..node(name, inputs, outputs) }
}
