//! A model of the newest file format and operator set that the `onnx` package writes is imported, compiled and run.

use frit_ir::Tensor;
use frit_ir::onnx::from_bytes;
use frit_ir::onnx::opsets::OPSETS;
use frit_ir::onnx::proto::{
    AttributeProto, AttributeType, DataType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};
use frit_passes::manager::Level;
use frit_runtime::{CompileOptions, Model};
use prost::Message;

/// The newest version of the file format.
const IR_VERSION: i64 = 14;

fn value(name: &str, data_type: DataType) -> ValueInfoProto {
    let batch = Dimension { value: Some(DimensionValue::DimParam("N".to_owned())), ..Dimension::default() };
    let tensor =
        TensorTypeProto { elem_type: Some(data_type as i32), shape: Some(TensorShapeProto { dim: vec![batch] }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

fn node(op_type: &str, input: [&str; 2], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: input.map(str::to_owned).to_vec(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

/// Gated activation, remainder of floats and shift of signed integers: all new in opset 28.
fn model() -> ModelProto {
    let direction = AttributeProto {
        name: Some("direction".to_owned()),
        s: Some("RIGHT".into()),
        r#type: Some(AttributeType::String as i32),
        ..AttributeProto::default()
    };
    let graph = GraphProto {
        name: Some("newest".to_owned()),
        node: vec![
            node("SwiGLU", ["a", "b"], "gated", Vec::new()),
            node("Mod", ["gated", "b"], "rest", Vec::new()),
            node("BitShift", ["i", "j"], "shifted", vec![direction]),
        ],
        input: vec![
            value("a", DataType::Float),
            value("b", DataType::Float),
            value("i", DataType::Int32),
            value("j", DataType::Int32),
        ],
        output: vec![value("rest", DataType::Float), value("shifted", DataType::Int32)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(*OPSETS.end()), ..OperatorSetIdProto::default() };
    ModelProto { ir_version: Some(IR_VERSION), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
}

#[test]
fn the_newest_models_run() {
    let module = from_bytes(model().encode_to_vec(), None).unwrap_or_else(|e| panic!("{e}"));
    let (a, b) = ([1.0_f32, -2.0, 3.0, 0.5], [3.0_f32, 5.0, -0.75, 2.0]);
    let ints = |values: &[i32]| Tensor::from_slice(frit_ir::DType::I32, &[values.len()], values).expect("sizes agree");
    let (i, j) = (ints(&[-16, 16, -16, i32::MIN]), ints(&[2, 2, 40, -1]));
    let floats = |values: &[f32]| Tensor::f32(&[values.len()], values).expect("sizes agree");
    for level in [Level::O0, Level::O3] {
        let options = CompileOptions { level, ..CompileOptions::default() };
        let model = Model::compile(module.clone(), &options).unwrap_or_else(|e| panic!("{e}")).model;
        let inputs = [("a", &floats(&a)), ("b", &floats(&b)), ("i", &i), ("j", &j)];
        let made = model.run(&inputs).unwrap_or_else(|e| panic!("{e}"));
        for ((found, a), b) in made[0].1.to_vec::<f32>().into_iter().zip(a).zip(b) {
            let (a, b) = (f64::from(a), f64::from(b));
            let gated = a / (1.0 + (-a).exp()) * b;
            let expected = gated - (gated / b).floor() * b;
            assert!((f64::from(found) - expected).abs() < 1e-5, "{level:?}: {found}, expected {expected}");
        }
        assert_eq!(made[1].1.to_vec::<i32>(), [-4, 4, -1, -1], "{level:?}");
    }
}
