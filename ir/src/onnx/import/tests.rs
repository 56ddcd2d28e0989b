//! Models built here, and every model of the shared cases.

use super::*;
use crate::graph::Function;
use crate::onnx::testing::{files_under, shared_folder};
use crate::onnx::{HostValue, read_value};
use crate::types::ValueType;

/// Folders with models to try: the shared ones, and the official cases where `FRIT_ONNX_CASES` says they are.
fn model_files() -> Vec<std::path::PathBuf> {
    let golden = shared_folder().map(|s| s.join("golden"));
    let official = std::env::var_os("FRIT_ONNX_CASES").map(std::path::PathBuf::from);
    let folders = golden.into_iter().chain(official);
    folders.flat_map(|f| files_under(&f)).filter(|p| p.file_name().is_some_and(|n| n == "model.onnx")).collect()
}

#[test]
fn every_known_model_loads_or_is_refused_with_a_reason() {
    let models = model_files();
    if models.is_empty() {
        println!("skipped: no shared folder (FRIT_SHARED)");
    }
    let (mut loaded, mut refused) = (0, 0);
    for path in &models {
        match load(path) {
            Ok(module) => {
                loaded += 1;
                let function = module.entry().unwrap();
                check(function, &path.to_string_lossy());
                read_test_inputs(path.parent().unwrap(), function);
            }
            Err(OnnxError::Unsupported(report)) => {
                refused += 1;
                println!("{}: {report}", path.display());
            }
            Err(other) => panic!("{}: {other}", path.display()),
        }
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(refused * 50 <= loaded);
}

/// What holds for every function that import makes.
fn check(function: &Function, model: &str) {
    assert_eq!(function.toposort().map(|t| t.len()), Some(function.len()), "{model}");
    assert!(!function.outputs().is_empty(), "{model}");
    for id in function.nodes() {
        let node = function.node(id);
        assert!(!node.origin.is_empty(), "{model}: {:?}", node.op);
        for region in node.regions() {
            check(region, model);
        }
    }
}

fn read_test_inputs(case: &Path, function: &Function) {
    for (index, input) in function.input_values().enumerate() {
        let path = case.join(format!("test_data_set_0/input_{index}.pb"));
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let value = read_value(&bytes, function.ty(input)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let (HostValue::Tensor(tensor), ValueType::Tensor(ty)) = (&value, function.ty(input)) {
            assert_eq!((tensor.dtype(), tensor.shape().len()), (ty.dtype, ty.rank()), "{}", path.display());
        }
    }
}
