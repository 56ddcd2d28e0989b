//! Damaged models: whatever the bytes, import answers soon, with an error or a module that verifies.

use std::time::{Duration, Instant};

use prost::Message;

use super::*;
use crate::onnx::proto::{
    AttributeProto, AttributeType, DataType, GraphProto, NodeProto, SequenceTypeProto, TypeProto, TypeValue,
};
use crate::onnx::testing::*;

const MUTATIONS: u64 = 2_000;

/// xorshift64*: Marsaglia, "Xorshift RNGs", 2003; multiplied as Vigna proposed in 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `n`; 0 for an empty range.
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
}

/// Three models that together use every part of import.
fn models() -> [ModelProto; 3] {
    let mut calls = super::tests::unary(vec![
        NodeProto { attribute: vec![int("axis", 1)], ..call("F", "x w", "a") },
        call("F", "a", "y"),
    ]);
    let body = vec![
        node_with("Gather", "p q", "g", vec![reference("axis", "axis")]),
        node_with("Constant", "", "c", vec![int("value_int", 3)]),
        call("H", "g c", "r"),
    ];
    calls.functions = vec![function("F", "p q", "r", body), function("H", "p q", "r", vec![node("Add", "p q", "r")])];
    let w = |name, data_type, dims: &[i64], bytes| zeros(name, data_type, dims, bytes);
    let graph = |m: &mut ModelProto| m.graph.take().unwrap_or_default();
    let mut g = graph(&mut calls);
    g.initializer = vec![w("w", DataType::Float, &[5, 5], 100), w("v", DataType::Int4, &[3], 2)];
    calls.graph = Some(g);

    let loop_body = GraphProto {
        value_info: vec![value("n", "N")],
        ..graph_of(vec![untyped("i"), untyped("go"), untyped("s")], vec![node("Add", "s x", "n")], "go n n")
    };
    let nodes = vec![
        node_with("Loop", "- - x", "y z", vec![subgraph("body", loop_body)]),
        node_with("Cast", "z", "k", vec![int("to", 1)]),
    ];
    let mut looped = super::tests::unary(nodes);
    let mut g = graph(&mut looped);
    let element = g.input.first().and_then(|i| i.r#type.clone()).map(Box::new);
    let sequence = TypeValue::SequenceType(Box::new(SequenceTypeProto { elem_type: element }));
    let ty = TypeProto { value: Some(sequence), denotation: None };
    g.input.push(crate::onnx::proto::ValueInfoProto { r#type: Some(ty), ..untyped("list") });
    looped.graph = Some(g);
    [super::tests::conditional(), calls, looped]
}

fn graph_of(inputs: Vec<crate::onnx::proto::ValueInfoProto>, nodes: Vec<NodeProto>, outputs: &str) -> GraphProto {
    graph(inputs, nodes, outputs)
}

/// Imports, and fails when that takes long or what comes out does not verify; the count is of models that were taken.
fn survives(bytes: Vec<u8>, seed: u64) -> usize {
    let start = Instant::now();
    let module = from_bytes(bytes, None);
    assert!(start.elapsed() < Duration::from_secs(1), "seed {seed} takes {:?}", start.elapsed());
    if let Ok(module) = &module {
        crate::verify::verify(module).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    usize::from(module.is_ok())
}

#[test]
fn models_are_taken_whole() {
    for model in models() {
        from_bytes(model.encode_to_vec(), None).unwrap();
    }
}

#[test]
fn damaged_bytes_do_not_panic() {
    let originals = models().map(|m| m.encode_to_vec());
    let mut taken = 0;
    for seed in 1..=MUTATIONS {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut bytes = originals[random.below(3)].clone();
        for _ in 0..=random.below(4) {
            damage(&mut bytes, &originals, &mut random);
        }
        taken += survives(bytes, seed);
    }
    println!("{taken} of {MUTATIONS} damaged models are still models");
    assert!(taken > 0 && taken < MUTATIONS as usize);
}

#[test]
fn ten_thousand_messages_in_one_another_are_a_limit() {
    // Node in graph, attribute in node, graph in attribute, and so on, innermost first; the model's graph is field 7.
    let mut bytes = Vec::new();
    for tag in [6, 5, 1].into_iter().cycle().take(9_999).chain([7]) {
        let mut outer = vec![tag << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let error = from_bytes(bytes, None).unwrap_err();
    assert!(matches!(error, OnnxError::Limit { .. }) && error.to_string().contains("more than 100 deep"), "{error}");
}

/// Flips bits, overwrites a byte, cuts the end off, or splices in a piece of another model.
fn damage(bytes: &mut Vec<u8>, others: &[Vec<u8>; 3], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => {
            let other = &others[random.below(3)];
            let from = random.below(other.len());
            let to = from + random.below((other.len() - from).min(60));
            let end = at + random.below((bytes.len() - at).min(60));
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        2 | 3 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = [0, 1, 0x7f, 0x80, 0xff][random.below(5)]),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
    }
}

#[test]
fn damaged_messages_do_not_panic() {
    let originals = models();
    let mut taken = 0;
    for seed in 1..=MUTATIONS {
        let mut random = Random(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let mut model = originals[random.below(3)].clone();
        for _ in 0..=random.below(3) {
            distort_model(&mut model, &mut random);
        }
        taken += survives(model.encode_to_vec(), seed);
    }
    println!("{taken} of {MUTATIONS} distorted models are still models");
    assert!(taken > 0 && taken < MUTATIONS as usize);
}

fn distort_model(model: &mut ModelProto, random: &mut Random) {
    match random.below(8) {
        0 => model.opset_import.iter_mut().for_each(|o| o.version = Some(random.below(30) as i64 - 1)),
        1 if !model.functions.is_empty() => {
            let index = random.below(model.functions.len());
            distort_nodes(&mut model.functions[index].node, random);
        }
        2 if !model.functions.is_empty() => {
            let index = random.below(model.functions.len());
            rename(&mut model.functions[index].input, random);
        }
        _ => model.graph.iter_mut().for_each(|g| distort_graph(g, random)),
    }
}

fn distort_graph(graph: &mut GraphProto, random: &mut Random) {
    match random.below(8) {
        0 if !graph.initializer.is_empty() => {
            let index = random.below(graph.initializer.len());
            let tensor = &mut graph.initializer[index];
            match random.below(3) {
                0 => tensor.data_type = Some(random.below(29) as i32),
                1 => tensor.dims.push([-1, 0, 1, 2, i64::MAX, i64::MIN][random.below(6)]),
                _ => tensor.raw_data = None,
            }
        }
        1 if !graph.input.is_empty() => {
            let index = random.below(graph.input.len());
            graph.input[index].r#type = None;
        }
        2 if !graph.output.is_empty() => {
            let index = random.below(graph.output.len());
            graph.output[index].name = Some(name(random).into());
        }
        _ => distort_nodes(&mut graph.node, random),
    }
}

fn distort_nodes(nodes: &mut [NodeProto], random: &mut Random) {
    let index = random.below(nodes.len());
    let Some(node) = nodes.get_mut(index) else { return };
    match random.below(8) {
        0 => rename(&mut node.input, random),
        1 => rename(&mut node.output, random),
        2 => node.op_type = Some(["", "If", "Constant", "Add", "F", "H"][random.below(6)].into()),
        3 => node.domain = Some(["", "local", "ai.onnx", "ai.onnx.ml", "x"][random.below(5)].into()),
        4 => node.attribute.push(AttributeProto {
            name: Some(["axis", "body", "value"][random.below(3)].into()),
            r#type: Some(random.below(16) as i32),
            ..AttributeProto::default()
        }),
        5 => node.input.push(name(random).into()),
        6 => {
            let (from, to) = (random.below(nodes.len()), random.below(nodes.len()));
            nodes.swap(from, to);
        }
        _ => {
            let graphs = node.attribute.iter_mut().filter(|a| a.r#type == Some(AttributeType::Graph as i32));
            graphs.filter_map(|a| a.g.as_mut()).for_each(|g| distort_graph(g, random));
        }
    }
}

fn name(random: &mut Random) -> &'static str {
    ["x", "y", "a", "b", "w", "p", "q", "r", "", "none"][random.below(10)]
}

fn rename(names: &mut [String], random: &mut Random) {
    let index = random.below(names.len());
    if let Some(slot) = names.get_mut(index) {
        *slot = name(random).to_owned();
    }
}
