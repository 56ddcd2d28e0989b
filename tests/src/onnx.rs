//! Small ONNX models spelled out field by field, from the public schema's numbers.
//!
//! Each function gives a message; [`model`] the bytes of a file. Meant for tests that need a model which no exporter
//! made, or which is to be damaged.

use crate::wire::{Content, Message, write};

/// Element types by the schema's number.
pub const FLOAT: u64 = 1;
/// 64-bit integers.
pub const INT64: u64 = 7;
/// Booleans.
pub const BOOL: u64 = 9;

fn string(text: &str) -> Content {
    Content::Bytes(text.as_bytes().to_vec())
}

/// An extent of a declared shape.
#[derive(Clone, Copy, Debug)]
pub enum Extent<'a> {
    /// Known.
    Known(u64),
    /// By name.
    Named(&'a str),
}

/// A named tensor type of an input or output.
pub fn value_info(name: &str, element: u64, shape: &[Extent<'_>]) -> Message {
    let dim = |extent: &Extent<'_>| {
        let field = match extent {
            Extent::Known(n) => (1, Content::Varint(*n)),
            Extent::Named(name) => (2, string(name)),
        };
        (1, Content::Message(vec![field]))
    };
    let shape: Message = shape.iter().map(dim).collect();
    let tensor = vec![(1, Content::Varint(element)), (2, Content::Message(shape))];
    vec![(1, string(name)), (2, Content::Message(vec![(1, Content::Message(tensor))]))]
}

/// A named tensor type that says nothing of the shape.
pub fn unranked(name: &str, element: u64) -> Message {
    let tensor = vec![(1, Content::Varint(element))];
    vec![(1, string(name)), (2, Content::Message(vec![(1, Content::Message(tensor))]))]
}

/// A named output whose type the importer infers.
pub fn output(name: &str) -> Message {
    vec![(1, string(name))]
}

/// An f32 tensor with raw data.
pub fn floats(name: &str, shape: &[u64], values: &[f32]) -> Message {
    tensor(name, FLOAT, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// An i64 tensor with raw data.
pub fn ints(name: &str, shape: &[u64], values: &[i64]) -> Message {
    tensor(name, INT64, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn tensor(name: &str, element: u64, shape: &[u64], raw: Vec<u8>) -> Message {
    let mut fields: Message = shape.iter().map(|&d| (1, Content::Varint(d))).collect();
    fields.extend([(2, Content::Varint(element)), (8, string(name)), (9, Content::Bytes(raw))]);
    fields
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> Message {
    vec![(1, string(name)), (3, Content::Varint(value as u64)), (20, Content::Varint(2))]
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> Message {
    vec![(1, string(name)), (2, Content::Fixed32(value.to_le_bytes())), (20, Content::Varint(1))]
}

/// A list of integers as an attribute.
pub fn int_list(name: &str, values: &[i64]) -> Message {
    let mut fields = vec![(1, string(name))];
    fields.extend(values.iter().map(|&v| (8, Content::Varint(v as u64))));
    fields.push((20, Content::Varint(7)));
    fields
}

/// A subgraph as an attribute.
pub fn subgraph(name: &str, graph: Message) -> Message {
    vec![(1, string(name)), (6, Content::Message(graph)), (20, Content::Varint(5))]
}

/// A node of the default domain, named after its op and first output.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    let mut fields: Message = inputs.iter().map(|i| (1, string(i))).collect();
    fields.extend(outputs.iter().map(|o| (2, string(o))));
    fields.push((3, string(&format!("{op}_{}", outputs.first().unwrap_or(&"")))));
    fields.push((4, string(op)));
    fields.extend(attributes.iter().map(|a| (5, Content::Message(a.clone()))));
    fields
}

/// A graph.
pub fn graph(nodes: &[Message], initializers: &[Message], inputs: &[Message], outputs: &[Message]) -> Message {
    let each =
        |number: u64, list: &[Message]| list.iter().map(|m| (number, Content::Message(m.clone()))).collect::<Message>();
    let name = vec![(2, string("g"))];
    [each(1, nodes), name, each(5, initializers), each(11, inputs), each(12, outputs)].concat()
}

/// The bytes of a model of opset 17.
pub fn model(graph: Message) -> Vec<u8> {
    let opset = vec![(1, string("")), (2, Content::Varint(17))];
    write(&vec![(1, Content::Varint(8)), (8, Content::Message(opset)), (7, Content::Message(graph))])
}
