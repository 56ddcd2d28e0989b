//! Roles of initializers as exporters write them; merged ones taken apart; the way into a module and back to a file.

use indexmap::IndexMap;
use prost::Message;

use super::*;
use crate::onnx::proto::StringStringEntryProto;
use crate::onnx::tensor::to_proto;
use crate::onnx::testing::*;
use crate::onnx::{ImportOptions, UNBIASED, add_train_function, from_bytes_with, load, write_with_values};
use crate::op::{AttrValue, Op};

fn floats(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    to_proto(name, &Tensor::f32(shape, values).unwrap())
}

fn noted(mut tensor: TensorProto, key: &str, value: &str) -> TensorProto {
    let entry = StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    tensor.metadata_props.push(entry);
    tensor
}

fn with(initializers: Vec<TensorProto>, nodes: Vec<NodeProto>, producer: &str) -> ModelProto {
    let mut graph = graph(vec![value("x", "N 4")], nodes, "y");
    graph.initializer = initializers;
    ModelProto { producer_name: Some(producer.into()), ..model(graph) }
}

/// The role of an initializer at a place.
fn role(initializer: TensorProto, op: &str, inputs: &str, producer: &str, more: &[TensorProto]) -> Option<Role> {
    let name = initializer.name().to_owned();
    let nodes = vec![node(op, &inputs.replace('%', &name), "y")];
    let mut model = with([vec![initializer], more.to_vec()].concat(), nodes, producer);
    prepare(&mut model, &mut TensorReader::new(None)).get(&name).copied()
}

#[test]
fn weights_are_trained_under_any_name_and_settings_under_none() {
    let vector = |name: &str| floats(name, &[4], &[1.0, 2.0, 3.0, 4.0]);
    let number = |name: &str| floats(name, &[], &[2.0]);
    let trained = Some(Role::Trained);
    // PyTorch's older exporter.
    let legacy = |tensor, op: &str, inputs: &str| role(tensor, op, inputs, "pytorch", &[]);
    assert_eq!(legacy(vector("layers.0.bias"), "Add", "x %"), trained);
    assert_eq!(legacy(vector("onnx::MatMul_27"), "MatMul", "x %"), trained);
    assert_eq!(legacy(vector("onnx::Add_57"), "Add", "x %"), trained);
    assert_eq!(legacy(number("layers.0.temperature"), "Div", "x %"), trained);
    assert_eq!(legacy(number("scale_alpha"), "Mul", "x %"), trained);
    assert_eq!(legacy(number("onnx::Mul_33"), "Mul", "x %"), None);
    assert_eq!(legacy(number("lower"), "Clip", "x %"), None);
    assert_eq!(legacy(vector("exponents"), "Pow", "x %"), None);
    assert_eq!(legacy(vector("base"), "Pow", "% x"), trained);
    assert_eq!(legacy(vector("grid"), "Less", "x %"), None);
    assert_eq!(legacy(floats("onnx::Add_5", &[2], &[0.0, -1e9]), "Add", "x %"), None);
    assert_eq!(legacy(floats("mask", &[2], &[0.0, f32::NEG_INFINITY]), "Add", "x %"), None);
    let integers = to_proto("index", &Tensor::i64(&[2], &[1, 2]).unwrap());
    assert_eq!(legacy(integers, "Add", "x %"), None);
    // The newer one, without its notes: what is called after an op was made by one.
    for made in ["arange", "arange_3", "val_12", "_to_copy", "full_1", "scalar_tensor_default_2"] {
        assert_eq!(legacy(vector(made), "Mul", "x %"), None, "{made}");
    }
    assert_eq!(legacy(number("scalar_tensor_default"), "Add", "x %"), None);
    assert_eq!(legacy(number("clamp"), "Div", "x %"), trained);
    assert_eq!(legacy(vector("val_12"), "MatMul", "x %"), trained);
    // With its notes.
    let other = noted(vector("other"), KIND, "PARAMETER");
    let newer = |tensor, op: &str, inputs: &str| role(tensor, op, inputs, "pytorch", std::slice::from_ref(&other));
    assert_eq!(newer(noted(number("scale"), KIND, "PARAMETER"), "Mul", "x %"), trained);
    assert_eq!(newer(noted(number("p"), KIND, "PARAMETER"), "Pow", "x %"), trained);
    assert_eq!(newer(noted(vector("table"), KIND, "BUFFER"), "MatMul", "x %"), None);
    assert_eq!(newer(noted(vector("val_6"), FOLDED, "['patch.weight']"), "MatMul", "x %"), trained);
    assert_eq!(newer(noted(vector("val_7"), FOLDED, "['val_1', 'val_2']"), "Add", "x %"), None);
    assert_eq!(newer(vector("stem.weight_bias"), "Add", "x %"), trained);
    assert_eq!(newer(vector("clamp"), "Mul", "x %"), None);
    assert_eq!(newer(number("val_32"), "Div", "x %"), None);
    // Others: a single number only where weights are.
    let others = |tensor, op: &str, inputs: &str| role(tensor, op, inputs, "tf2onnx", &[]);
    assert_eq!(others(vector("dense/kernel:0"), "Mul", "x %"), trained);
    assert_eq!(others(number("mul/y:0"), "Mul", "x %"), None);
    assert_eq!(others(floats("dense/bias:0", &[1], &[2e5]), "Gemm", "x x %"), trained);
    assert_eq!(others(vector("unused"), "Exp", "x"), None);
    // Statistics, whatever they are called.
    assert_eq!(others(vector("onnx::B_4"), "BatchNormalization", "x w b % v"), Some(Role::Statistic));
}

#[test]
fn what_exporters_merged_is_taken_apart() {
    let nodes = vec![
        node("Identity", "one", "bn.running_var"),
        node("Identity", "zero", "bn.running_mean"),
        node("BatchNormalization", "x one zero bn.running_mean bn.running_var", "a"),
        node("LayerNormalization", "a one zero", "b"),
        node("MatMul", "b tied", "c"),
        node("MatMul", "c tied", "d"),
        node("Identity", "d", "y"),
    ];
    let initializers = vec![
        floats("one", &[4], &[1.0; 4]),
        floats("zero", &[4], &[0.0; 4]),
        floats(
            "tied",
            &[4, 4],
            &[0.5; 16].map(|v| v).iter().enumerate().map(|(i, v)| v + i as f32).collect::<Vec<_>>(),
        ),
    ];
    let mut model = with(initializers, nodes, "pytorch");
    let roles = prepare(&mut model, &mut TensorReader::new(None));
    let graph = model.graph.as_ref().unwrap();
    let inputs: Vec<String> = graph.node.iter().map(|n| n.input.join(" ")).collect();
    assert_eq!(
        inputs,
        ["x one zero bn.running_mean bn.running_var", "a one__2 zero__2", "b tied", "c tied", "d"],
        "one node each but what is tied"
    );
    let mut names: Vec<(&str, Role)> = roles.iter().map(|(name, role)| (name.as_str(), *role)).collect();
    names.sort_by_key(|(name, _)| *name);
    let (t, s) = (Role::Trained, Role::Statistic);
    let expected = [
        ("bn.running_mean", s),
        ("bn.running_var", s),
        ("one", t),
        ("one__2", t),
        ("tied", t),
        ("zero", t),
        ("zero__2", t),
    ];
    assert_eq!(names, expected);
    // Before IR version 4 an initializer is an input as well, whose name nothing may change.
    model.ir_version = Some(3);
    let before = model.clone();
    prepare(&mut model, &mut TensorReader::new(None));
    assert_eq!(model, before);
}

/// y = norm(x) scale, where a branch scales: norm of two statistics.
fn small() -> ModelProto {
    let branch = |factor: &str| graph(vec![], vec![node("Mul", &format!("a {factor}"), "z")], "z");
    let mut other = branch("scale");
    other.initializer = vec![floats("inner", &[1], &[3.0])];
    other.node.push(node("Add", "z inner", "z2"));
    other.output = vec![untyped("z2")];
    let nodes = vec![
        node("BatchNormalization", "x weight bias mean var", "a"),
        node_with(
            "If",
            "condition",
            "y",
            vec![subgraph("then_branch", branch("scale")), subgraph("else_branch", other)],
        ),
    ];
    let mut model = with(
        vec![
            floats("weight", &[4], &[1.0; 4]),
            floats("bias", &[4], &[0.5, 0.0, 0.0, 0.0]),
            floats("mean", &[4], &[0.0, 1.0, 2.0, 3.0]),
            floats("var", &[4], &[1.0, 2.0, 3.0, 4.0]),
            floats("scale", &[4], &[1.0, 2.0, 3.0, 4.0]),
            zeros("condition", crate::onnx::proto::DataType::Bool, &[], 1),
        ],
        nodes,
        "pytorch",
    );
    model.ir_version = Some(9);
    model
}

#[test]
fn what_is_trained_is_a_parameter_of_any_size_and_captured_by_subgraphs() {
    let bytes = small().encode_to_vec();
    let module = from_bytes_with(bytes.clone(), None, ImportOptions { trainable: true }).unwrap();
    crate::verify::verify(&module).unwrap();
    let mut params: Vec<(&str, bool)> = module.params.iter().map(|(name, p)| (name.as_str(), p.trainable)).collect();
    params.sort_unstable();
    assert_eq!(params, [("bias", true), ("mean", false), ("scale", true), ("var", false), ("weight", true)]);
    let f = module.entry().unwrap();
    let branches = f.nodes().into_iter().find(|id| !f.node(*id).regions().is_empty()).unwrap();
    let inside = f.node(branches).regions().iter().flat_map(|r| r.nodes().into_iter().map(|id| r.node(id).op.clone()));
    assert!(!inside.into_iter().any(|op| matches!(op, Op::Param { .. })));
    // Not asked for, small tensors are constants.
    assert!(from_bytes_with(bytes, None, ImportOptions::default()).unwrap().params.is_empty());
}

#[test]
fn batch_norms_get_a_function_that_renews_their_statistics() {
    let module = || from_bytes_with(small().encode_to_vec(), None, ImportOptions { trainable: true }).unwrap();
    let mut trained = module();
    assert_eq!(add_train_function(&mut trained, &|_| false), 1);
    let f = &trained.functions["train"];
    let outputs: Vec<&str> = f.outputs().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["y", "mean", "var"]);
    let norm = f.node(f.outputs()[1].value.node);
    let Op::Onnx { op_type, since_version, attributes, .. } = &norm.op else { panic!("{:?}", norm.op) };
    assert_eq!((op_type.as_str(), *since_version, norm.results().len()), ("BatchNormalization", 15, 3));
    assert_eq!(attributes.get("training_mode"), Some(&AttrValue::Int(1)));
    assert_eq!(attributes.get(UNBIASED), Some(&AttrValue::Int(1)));
    // A second time there is nothing to do; nor where one of the two is frozen.
    assert_eq!(add_train_function(&mut trained, &|_| false), 0);
    let mut frozen = module();
    assert_eq!(add_train_function(&mut frozen, &|name| name == "var"), 0);
    assert_eq!(frozen.functions.len(), 1);
}

#[test]
fn values_go_back_into_the_file_they_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.onnx"), folder.path().join("b.onnx"));
    let mut model = small();
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0] = noted(graph.initializer[0].clone(), KIND, "PARAMETER");
    std::fs::write(&from, model.encode_to_vec()).unwrap();
    let new = Tensor::f32(&[4], &[9.0, 8.0, 7.0, 6.0]).unwrap();
    let values = |name: &str, value: &Tensor| IndexMap::from([(name.to_owned(), value.clone())]);
    write_with_values(&from, &values("weight", &new), &to).unwrap();
    let written = ModelProto::decode(std::fs::read(&to).unwrap().as_slice()).unwrap();
    let mut expected = model.clone();
    expected.graph.as_mut().unwrap().initializer[0] = noted(to_proto("weight", &new), KIND, "PARAMETER");
    assert_eq!(written, expected);
    load(&to).unwrap();
    let missing = write_with_values(&from, &values("other", &new), &to).unwrap_err().to_string();
    assert_eq!(missing, "the model has no initializer `other`");
    let short = Tensor::f32(&[1], &[0.0]).unwrap();
    let wrong = write_with_values(&from, &values("bias", &short), &to).unwrap_err().to_string();
    assert_eq!(wrong, "`bias` is f32[1], the model's is f32[4]");
}
