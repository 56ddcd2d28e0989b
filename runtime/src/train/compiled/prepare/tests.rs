//! Imported networks on their way to a step: inputs, notes, norms whose batch is too small.

use std::collections::BTreeMap;

use frit_ir::{AttrValue, Dim, Param, Tensor};

use super::*;
use crate::compile::CompileOptions;
use crate::data::dataset::{Batch, TargetSlice};
use crate::train::{Hyper, Stepper};

/// An op of ONNX with attributes of integers.
fn onnx(op_type: &str, since_version: i64, attributes: &[(&str, i64)]) -> Op {
    let attributes: BTreeMap<String, AttrValue> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), AttrValue::Int(*value))).collect();
    Op::Onnx { domain: String::new(), op_type: op_type.to_owned(), since_version, attributes }
}

/// `y` of one input [B, 4] and parameters, made by one op.
fn module(input: DType, op: Op, params: &[(&str, bool)]) -> Module {
    let mut f = Function::new("infer");
    let rows = Dim::symbol("B");
    let mut operands = vec![f.add_input("target", TensorType::new(input, vec![rows, Dim::Known(4)]))];
    let mut module = Module::default();
    for (name, trainable) in params {
        let value = Tensor::f32(&[4], &[0.5, 1.0, 2.0, 4.0]).unwrap();
        let ty = value.ty();
        let read = Op::Param { name: (*name).to_owned(), ty: ty.clone() };
        let node = f.add_typed(read, &[], vec![ty.into()], Vec::new(), &Origin::named(*name));
        operands.push(frit_ir::Value { node, result: 0 });
        module.params.insert((*name).to_owned(), Param { value, trainable: *trainable });
    }
    let node = f.add_typed(op, &operands, vec![ValueType::Unknown], Vec::new(), &Origin::named("node"));
    f.add_output("y", frit_ir::Value { node, result: 0 });
    module.functions.insert("infer".to_owned(), f);
    module
}

#[test]
fn scores_that_are_probabilities_already_are_noted() {
    let noted = |op: &str, loss: LossKind| {
        let mut config = Config::default();
        config.loss.kind = loss;
        parameters(&module(DType::F32, onnx(op, 13, &[]), &[]), &config).notes.join("")
    };
    assert!(noted("Softmax", LossKind::CrossEntropy).contains("output `y` is a softmax"));
    assert!(noted("Sigmoid", LossKind::Bce).contains("output `y` is a sigmoid"));
    // The logarithm of a softmax is its own softmax.
    assert_eq!(noted("LogSoftmax", LossKind::CrossEntropy) + &noted("Softmax", LossKind::Mse), "");
}

#[test]
fn integers_come_as_floats() {
    let mut module = module(DType::I64, onnx("Cast", 13, &[("to", 1)]), &[]);
    take_floats(&mut module).unwrap();
    let f = module.entry().unwrap();
    let input = f.input_values().next().unwrap();
    assert_eq!(f.ty(input).to_string(), "f32[B, 4]");
    let cast = f.node(f.outputs()[0].value.node).operands()[0];
    assert_eq!((f.ty(cast).to_string().as_str(), f.op(cast).name()), ("i64[B, 4]", "cast"));
    frit_ir::verify::verify(&module).unwrap();
}

const NORM: [(&str, bool); 4] = [("weight", true), ("bias", true), ("mean", false), ("var", false)];

fn step(stepper: &mut CompiledStepper, records: usize) -> Result<f32, String> {
    let (inputs, classes) = (vec![1.0; 4 * records], vec![1; records]);
    let targets = TargetSlice::Classes(&classes);
    let batch = Batch { len: records, inputs: &inputs, shape: &[4], targets };
    let hyper = Hyper { step: 1, learning_rate: 0.1, momentum: 0.9 };
    stepper.step(&batch, &hyper).map(|r| r.loss).map_err(|e| e.to_string())
}

#[test]
fn a_norm_renews_its_statistics_unless_they_are_frozen() {
    let stepper = |config: &Config| {
        let module = module(DType::F32, onnx("BatchNormalization", 9, &[]), &NORM);
        CompiledStepper::new(module, config, &[4], &CompileOptions::default()).unwrap()
    };
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let mut plain = stepper(&Config::default());
    let told = plain.parameters();
    assert_eq!((told.trained, told.renewed, told.elements), (list(&["weight", "bias"]), list(&["mean", "var"]), 8));
    // The variance of one value is not known.
    let one = step(&mut plain, 1).unwrap_err();
    assert!(one.contains("values a channel that a batch norm is trained on"), "{one}");
    step(&mut plain, 2).unwrap();
    let mean = plain.state().unwrap()["mean"].to_vec::<f32>();
    // 0.9 of what it was, and 0.1 of the batch's: ones.
    assert!(mean.iter().zip([0.55, 1.0, 1.9, 3.7]).all(|(a, b)| (a - b).abs() < 1e-6), "{mean:?}");
    let var = plain.state().unwrap()["var"].to_vec::<f32>();
    assert!(var.iter().zip([0.45, 0.9, 1.8, 3.6]).all(|(a, b)| (a - b).abs() < 1e-6), "{var:?}");
    for config in [
        Config { freeze: vec!["var".to_owned()], ..Config::default() },
        Config { freeze_statistics: true, ..Config::default() },
    ] {
        let mut frozen = stepper(&config);
        assert!(frozen.parameters().renewed.is_empty());
        step(&mut frozen, 1).unwrap();
        assert!(frozen.state().unwrap().get("mean").is_none());
    }
}

#[test]
fn frozen_statistics_of_a_network_in_code_stay() {
    use frit_ir::model::{Mlp, Norm};
    let mlp = || Mlp { layers: vec![4, 3], norm: Norm::Batch, ..Mlp::default() }.module(0).unwrap();
    let config = Config { freeze_statistics: true, ..Config::default() };
    let mut frozen = CompiledStepper::new(mlp(), &config, &[4], &CompileOptions::default()).unwrap();
    step(&mut frozen, 1).unwrap();
    assert!(frozen.state().unwrap().keys().all(|name| !name.contains("running")));
    // One of two stays as it is, the other is renewed.
    let config = Config { freeze: vec!["*.running_var".to_owned()], ..Config::default() };
    let mut half = CompiledStepper::new(mlp(), &config, &[4], &CompileOptions::default()).unwrap();
    step(&mut half, 2).unwrap();
    let state = half.state().unwrap();
    let names: Vec<&String> = state.keys().filter(|name| name.contains("running")).collect();
    assert_eq!(names, ["layers.0.norm.running_mean"]);
    assert_eq!(half.parameters().renewed, ["layers.0.norm.running_mean"]);
}

#[test]
fn more_inputs_than_one_are_refused_by_name() {
    let mut two = module(DType::F32, onnx("Relu", 14, &[]), &[]);
    if let Some(f) = two.entry_mut() {
        f.add_input("mask", TensorType::new(DType::F32, vec![Dim::Known(4)]));
    }
    let error = prepare(&mut two, &Config::default()).unwrap_err().to_string();
    assert!(error.contains("the inputs `target`, `mask`"), "{error}");
    let mut one = module(DType::F32, onnx("Relu", 14, &[]), &[]);
    prepare(&mut one, &Config::default()).unwrap();
    assert!(matches!(&one.entry().unwrap().signature().inputs[..], [ValueType::Tensor(_)]));
    assert_eq!(input_names(one.entry().unwrap()), ["`target_input`"]);
}
