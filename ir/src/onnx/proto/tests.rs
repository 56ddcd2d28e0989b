//! Our messages against the independent reader and writer of the `onnx-protobuf` crate, in both directions.

use super::*;
use crate::onnx::testing::{Draws, files_under, shared_folder};
use proptest::prelude::*;

/// What we write reads the same to them, and what they write reads the same to us. Compared in their terms: they
/// keep fields they do not know, but follow proto3 and drop a scalar that was written with its default.
fn agree<Ours, Theirs>(bytes: &[u8]) -> Result<(), String>
where
    Ours: Message + Default + PartialEq,
    Theirs: onnx_protobuf::Message + PartialEq,
{
    let theirs = Theirs::parse_from_bytes(bytes).map_err(|e| format!("theirs: {e}"))?;
    let ours = Ours::decode(Bytes::copy_from_slice(bytes)).map_err(|e| format!("ours: {e}"))?;
    let written_by_us = ours.encode_to_vec();
    let read_by_them = Theirs::parse_from_bytes(&written_by_us).map_err(|e| format!("theirs from ours: {e}"))?;
    if read_by_them != theirs {
        return Err("what we wrote reads differently".into());
    }
    let written_by_them = theirs.write_to_bytes().map_err(|e| format!("theirs: {e}"))?;
    let read_by_us = Ours::decode(Bytes::from(written_by_them)).map_err(|e| format!("ours from theirs: {e}"))?;
    let back = Theirs::parse_from_bytes(&read_by_us.encode_to_vec()).map_err(|e| format!("theirs again: {e}"))?;
    if back != theirs {
        return Err("what they wrote reads differently".into());
    }
    match Ours::decode(Bytes::from(written_by_us)) {
        Ok(again) if again == ours => Ok(()),
        _ => Err("what we wrote reads differently to us".into()),
    }
}

#[test]
fn shared_cases_read_and_write_as_the_independent_crate_does() {
    let Some(shared) = shared_folder() else {
        println!("skipped: no shared folder (FRIT_SHARED)");
        return;
    };
    let (mut models, mut tensors) = (0, 0);
    for path in files_under(&shared.join("golden")) {
        let name = path.to_string_lossy().into_owned();
        let bytes = || std::fs::read(&path).unwrap();
        if name.ends_with(".onnx") {
            agree::<ModelProto, onnx_protobuf::ModelProto>(&bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            models += 1;
        } else if name.ends_with(".pb") {
            agree::<TensorProto, onnx_protobuf::TensorProto>(&bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            tensors += 1;
        }
    }
    assert!(models >= 10 && tensors >= 20, "{models} models, {tensors} tensors");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The bytes drive the generator, so a failure shrinks to a small message.
    #[test]
    fn random_messages_agree(seed in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut draws = Draws::new(&seed);
        let model = random_model(&mut draws);
        agree::<ModelProto, onnx_protobuf::ModelProto>(&model.encode_to_vec()).map_err(TestCaseError::fail)?;
    }

    /// Any bytes at all: an error or a message, never a panic.
    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ModelProto::decode(bytes.as_slice());
        let _ = TensorProto::decode(bytes.as_slice());
        let _ = SequenceProto::decode(bytes.as_slice());
        let _ = OptionalProto::decode(bytes.as_slice());
    }
}

#[test]
fn truncated_messages_are_errors_or_shorter_messages() {
    let seed: Vec<u8> = (0..600u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let whole = random_model(&mut Draws::new(&seed)).encode_to_vec();
    for end in 0..whole.len() {
        if let Ok(ours) = ModelProto::decode(&whole[..end]) {
            assert_eq!(ours.encode_to_vec(), &whole[..end], "cut at {end}");
        }
    }
}

/// `depth` messages, each inside the one before; the fields repeat `tags`, outermost first.
fn nested(tags: &[u8], depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in 0..depth {
        let mut outer = vec![tags[(depth - 1 - level) % tags.len()] << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn deep_nesting_is_an_error() {
    // Node in graph, attribute in node, graph in attribute, and so on; the model holds the first graph as field 7.
    let bytes = nested(&[1, 5, 6], 10_000);
    let mut model = vec![7 << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut model);
    model.extend(bytes);
    assert!(ModelProto::decode(model.as_slice()).is_err());
    assert!(SequenceProto::decode(nested(&[5], 10_000).as_slice()).is_err());
    assert!(OptionalProto::decode(nested(&[7], 10_000).as_slice()).is_err());
    assert!(SequenceProto::decode(nested(&[5], 50).as_slice()).is_ok());
}

#[test]
fn claimed_lengths_past_the_end_are_errors() {
    for tag in [8u8, 9] {
        for claimed in [5u64, 1 << 20, 1 << 40, u64::MAX] {
            let mut bytes = vec![tag << 3 | 2];
            prost::encoding::encode_varint(claimed, &mut bytes);
            bytes.extend([1, 2, 3]);
            assert!(TensorProto::decode(bytes.as_slice()).is_err(), "field {tag} of {claimed} bytes");
        }
    }
}

/// Written by the official Python package: a sequence with a tensor, a map, an optional and a sparse tensor in it.
const SEQUENCE: &str = "0a0171100322380a19080210074201744a10010000000000000002000000000000001219080210074201744a100100\
    000000000000020000000000000018042a200a017310011a19080210074201744a100100000000000000020000000000000032340a016e1007\
    180318ffffffffffffffffff012a200a017310011a19080210074201744a10010000000000000002000000000000003a380a016f10053a310a\
    01691004322a0a016d100822016b2a200a017310011a19080210074201744a1001000000000000000200000000000000";

#[test]
fn test_values_read_as_the_official_package_wrote_them() {
    let digits: String = SEQUENCE.split_whitespace().collect();
    let bytes: Vec<u8> =
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect();
    let sequence = SequenceProto::decode(bytes.as_slice()).unwrap();
    assert_eq!(sequence.encode_to_vec(), bytes);
    assert_eq!(sequence.elem_type(), ValueKind::Sequence);
    assert_eq!(sequence.sequence_values[0].tensor_values[0].dims, [2]);
    assert_eq!(sequence.map_values[0].keys, [3, -1]);
    assert_eq!(sequence.sparse_tensor_values[0].dims, [4]);
    let inner = sequence.optional_values[0].optional_value.as_ref().unwrap();
    let map = inner.map_value.as_ref().unwrap();
    assert_eq!((inner.elem_type(), map.key_type()), (ValueKind::Map, DataType::String as i32));
    assert_eq!(map.string_keys, ["k"]);
}

fn random_model(d: &mut Draws<'_>) -> ModelProto {
    ModelProto {
        ir_version: d.option(|d| d.integer()),
        producer_name: d.option(Draws::string),
        producer_version: d.option(Draws::string),
        domain: d.option(Draws::string),
        model_version: d.option(|d| d.integer()),
        doc_string: d.option(Draws::string),
        graph: d.option(|d| random_graph(d, 2)),
        opset_import: d
            .list(|d| OperatorSetIdProto { domain: d.option(Draws::string), version: d.option(|d| d.integer()) }),
        metadata_props: d.list(random_entry),
        training_info: d.list(|d| TrainingInfoProto {
            initialization: d.option(|d| random_graph(d, 0)),
            algorithm: d.option(|d| random_graph(d, 0)),
            initialization_binding: d.list(random_entry),
            update_binding: d.list(random_entry),
        }),
        functions: d.list(|d| FunctionProto {
            name: d.option(Draws::string),
            input: d.list(Draws::string),
            output: d.list(Draws::string),
            attribute: d.list(Draws::string),
            node: d.list(|d| random_node(d, 1)),
            doc_string: d.option(Draws::string),
            opset_import: Vec::new(),
            domain: d.option(Draws::string),
            attribute_proto: d.list(|d| random_attribute(d, 0)),
            value_info: d.list(random_value_info),
            overload: d.option(Draws::string),
            metadata_props: d.list(random_entry),
        }),
    }
}

fn random_graph(d: &mut Draws<'_>, depth: u32) -> GraphProto {
    GraphProto {
        node: d.list(|d| random_node(d, depth)),
        name: d.option(Draws::string),
        initializer: d.list(random_tensor),
        doc_string: d.option(Draws::string),
        input: d.list(random_value_info),
        output: d.list(random_value_info),
        value_info: d.list(random_value_info),
        quantization_annotation: d.list(|d| TensorAnnotation {
            tensor_name: d.option(Draws::string),
            quant_parameter_tensor_names: d.list(random_entry),
        }),
        sparse_initializer: d.list(random_sparse),
        metadata_props: d.list(random_entry),
    }
}

fn random_node(d: &mut Draws<'_>, depth: u32) -> NodeProto {
    NodeProto {
        input: d.list(Draws::string),
        output: d.list(Draws::string),
        name: d.option(Draws::string),
        op_type: d.option(Draws::string),
        attribute: d.list(|d| random_attribute(d, depth)),
        doc_string: d.option(Draws::string),
        domain: d.option(Draws::string),
        overload: d.option(Draws::string),
        metadata_props: d.list(random_entry),
    }
}

fn random_attribute(d: &mut Draws<'_>, depth: u32) -> AttributeProto {
    let deeper = depth.checked_sub(1);
    AttributeProto {
        name: d.option(Draws::string),
        f: d.option(Draws::float),
        i: d.option(|d| d.integer()),
        s: d.option(Draws::bytes),
        t: d.option(random_tensor),
        g: deeper.and_then(|depth| d.option(|d| random_graph(d, depth))),
        floats: d.list(Draws::float),
        ints: d.list(|d| d.integer()),
        strings: d.list(Draws::bytes),
        tensors: d.list(random_tensor),
        graphs: deeper.map(|depth| d.list(|d| random_graph(d, depth))).unwrap_or_default(),
        doc_string: d.option(Draws::string),
        tp: d.option(|d| random_type(d, 3)),
        type_protos: d.list(|d| random_type(d, 1)),
        r#type: d.option(|d| i32::from(d.byte() % 15)),
        ref_attr_name: d.option(Draws::string),
        sparse_tensor: d.option(random_sparse),
        sparse_tensors: d.list(random_sparse),
    }
}

fn random_tensor(d: &mut Draws<'_>) -> TensorProto {
    TensorProto {
        dims: d.list(|d| d.integer()),
        data_type: d.option(|d| d.integer() as i32),
        segment: d.option(|d| Segment { begin: d.option(|d| d.integer()), end: d.option(|d| d.integer()) }),
        float_data: d.list(Draws::float),
        int32_data: d.list(|d| d.integer() as i32),
        string_data: d.list(Draws::bytes),
        int64_data: d.list(|d| d.integer()),
        name: d.option(Draws::string),
        raw_data: d.option(Draws::bytes),
        double_data: d.list(|d| f64::from(d.float())),
        uint64_data: d.list(|d| d.integer() as u64),
        doc_string: d.option(Draws::string),
        external_data: d.list(random_entry),
        data_location: d.option(|d| i32::from(d.byte() % 2)),
        metadata_props: d.list(random_entry),
    }
}

fn random_sparse(d: &mut Draws<'_>) -> SparseTensorProto {
    SparseTensorProto {
        values: d.option(random_tensor),
        indices: d.option(random_tensor),
        dims: d.list(|d| d.integer()),
    }
}

fn random_value_info(d: &mut Draws<'_>) -> ValueInfoProto {
    ValueInfoProto {
        name: d.option(Draws::string),
        r#type: d.option(|d| random_type(d, 2)),
        doc_string: d.option(Draws::string),
        metadata_props: d.list(random_entry),
    }
}

fn random_type(d: &mut Draws<'_>, depth: u32) -> TypeProto {
    let inner =
        |d: &mut Draws<'_>| depth.checked_sub(1).and_then(|depth| d.option(|d| Box::new(random_type(d, depth))));
    let tensor = |d: &mut Draws<'_>| TensorTypeProto {
        elem_type: d.option(|d| d.integer() as i32),
        shape: d.option(|d| TensorShapeProto {
            dim: d.list(|d| Dimension {
                value: d.option(|d| match d.byte() % 2 {
                    0 => DimensionValue::DimValue(d.integer()),
                    _ => DimensionValue::DimParam(d.string()),
                }),
                denotation: d.option(Draws::string),
            }),
        }),
    };
    TypeProto {
        value: d.option(|d| match d.byte() % 6 {
            0 => TypeValue::TensorType(tensor(d)),
            1 => TypeValue::SparseTensorType(tensor(d)),
            2 => TypeValue::SequenceType(Box::new(SequenceTypeProto { elem_type: inner(d) })),
            3 => TypeValue::OptionalType(Box::new(OptionalTypeProto { elem_type: inner(d) })),
            4 => TypeValue::MapType(Box::new(MapTypeProto {
                key_type: d.option(|d| d.integer() as i32),
                value_type: inner(d),
            })),
            _ => TypeValue::OpaqueType(OpaqueTypeProto {
                domain: d.option(Draws::string),
                name: d.option(Draws::string),
            }),
        }),
        denotation: d.option(Draws::string),
    }
}

fn random_entry(d: &mut Draws<'_>) -> StringStringEntryProto {
    StringStringEntryProto { key: d.option(Draws::string), value: d.option(Draws::string) }
}
