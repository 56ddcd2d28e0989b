//! The official ONNX cases and the golden models through legalize and the reference evaluator.
//!
//! Cases are folders with `model.onnx` and `test_data_set_*`. `FRIT_ONNX_CASES` names the folder of the official ones;
//! the golden models are found through `FRIT_SHARED` or beside the workspace. Each case passes, is refused with a
//! reason, or fails: none may fail. `FRIT_CASE` picks cases whose name contains it and prints more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use frit_ir::onnx::{self, read_value};
use frit_ir::reference::{Options, Symbols, eval_function, eval_op};
use frit_ir::types::Class;
use frit_ir::value::HostValue;
use frit_ir::verify::verify_core;
use frit_ir::{DType, Dim, Module, Op, Origin, Tensor, TensorType, Value, ValueType};
use frit_passes::legalize::{LegalizeError, LegalizeOptions, legalize};

enum Outcome {
    Passed,
    Refused(String),
    Failed(String),
}

fn cases_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.join("model.onnx").is_file()).collect();
    found.sort();
    found
}

/// Inputs and outputs of the first data set, by the names and types of the function.
fn data(case: &Path, kind: &str, types: &[(String, ValueType)]) -> Result<Vec<(String, HostValue)>, String> {
    let read = |(i, (name, ty)): (usize, &(String, ValueType))| {
        let path = case.join(format!("test_data_set_0/{kind}_{i}.pb"));
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let value = read_value(&bytes, ty).map_err(|e| e.to_string())?;
        Ok((name.clone(), value))
    };
    types.iter().enumerate().map(read).collect()
}

/// The elements of a float tensor of any width as f64.
fn floats(t: &Tensor) -> Option<Vec<f64>> {
    if t.dtype().class() != Class::Float {
        return None;
    }
    let op = Op::Cast { to: DType::F64, saturate: false };
    let ty = TensorType::new(DType::F64, t.ty().dims).into();
    let operand = HostValue::Tensor(t.clone());
    let made = eval_op(&op, &Origin::named("check"), &[operand], &[ty], &[], &Symbols::new(), Options::default());
    made.ok()?.first()?.tensor().map(Tensor::to_vec)
}

fn compare(found: &HostValue, expected: &HostValue, rtol: f64, atol: f64) -> Result<(), String> {
    match (found, expected) {
        (HostValue::Tensor(f), HostValue::Tensor(e)) => {
            if (f.dtype(), f.shape()) != (e.dtype(), e.shape()) {
                return Err(format!("found {f:?}, expected {e:?}"));
            }
            if let (Some(a), Some(b)) = (floats(f), floats(e)) {
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    let close = (a - b).abs() <= atol + rtol * b.abs() || a == b || (a.is_nan() && b.is_nan());
                    if !close {
                        return Err(format!("element {i} is {a}, expected {b}"));
                    }
                }
                return Ok(());
            }
            if f == e {
                return Ok(());
            }
            let (a, b) = (f.to_i64s().unwrap_or_default(), e.to_i64s().unwrap_or_default());
            let at = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or(0);
            Err(format!("element {at} is {:?}, expected {:?}", a.get(at), b.get(at)))
        }
        (HostValue::Sequence(f), HostValue::Sequence(e)) if f.len() == e.len() => {
            f.iter().zip(e).try_for_each(|(f, e)| compare(f, e, rtol, atol))
        }
        (HostValue::Optional(None), HostValue::Optional(None)) => Ok(()),
        (HostValue::Optional(Some(f)), HostValue::Optional(Some(e))) => compare(f, e, rtol, atol),
        _ => Err("values of different kinds".to_owned()),
    }
}

/// Relative and absolute tolerance of a case: `data.json` may widen the usual ones.
fn tolerance(case: &Path) -> (f64, f64) {
    let text = std::fs::read_to_string(case.join("data.json")).unwrap_or_default();
    let number = |key: &str| -> Option<f64> {
        let (_, rest) = text.split_once(&format!("\"{key}\""))?;
        let rest = rest.trim_start_matches([':', ' ']);
        rest.split([',', '}', '\n']).next()?.trim().parse().ok()
    };
    (number("rtol").unwrap_or(1e-3), number("atol").unwrap_or(1e-7))
}

fn compiled(original: &Module, inputs: &[(String, HostValue)]) -> Result<Module, Outcome> {
    let mut options = LegalizeOptions::default();
    for _ in 0..8 {
        let mut module = original.clone();
        match legalize(&mut module, &options) {
            Ok(_) => return Ok(module),
            Err(LegalizeError::NeedsValues { inputs: names, node }) => {
                for name in names {
                    match inputs.iter().find(|(n, _)| *n == name) {
                        Some((_, HostValue::Tensor(t))) => _ = options.fixed.insert(name, t.clone()),
                        _ => return Err(Outcome::Refused(format!("{node} needs the value of `{name}`"))),
                    }
                }
            }
            Err(LegalizeError::Unsupported(report)) => return Err(Outcome::Refused(report.to_string())),
            Err(other) => return Err(Outcome::Failed(other.to_string())),
        }
    }
    Err(Outcome::Failed("values are asked for again and again".to_owned()))
}

/// Every extent above 1 of every input becomes a symbol, one for each extent; what the model declares is forgotten.
fn opened(module: &mut Module) {
    let Some(f) = module.entry_mut() else { return };
    for id in f.nodes() {
        for result in 0..f.node(id).results().len() {
            let value = Value { node: id, result };
            match (f.op(value), f.ty(value)) {
                (Op::Input { .. }, ValueType::Tensor(t)) => {
                    let open = |d: &Dim| match d.known() {
                        Some(n) if n > 1 => Dim::symbol(&format!("N{n}")),
                        _ => d.clone(),
                    };
                    let dims: Vec<Dim> = t.dims.iter().map(open).collect();
                    let ty = TensorType::new(t.dtype, dims);
                    f.set_type(value, ty.into());
                }
                (Op::Onnx { .. }, ValueType::Tensor(_)) => f.set_type(value, ValueType::Unknown),
                _ => {}
            }
        }
    }
}

fn run(case: &Path, open: bool) -> Outcome {
    let mut original = match onnx::load(&case.join("model.onnx")) {
        Ok(module) => module,
        Err(onnx::OnnxError::Unsupported(report)) => return Outcome::Refused(report.to_string()),
        Err(other) => return Outcome::Failed(other.to_string()),
    };
    if open {
        opened(&mut original);
    }
    let Some(f) = original.entry() else { return Outcome::Failed("no function".to_owned()) };
    let input_types: Vec<(String, ValueType)> = f
        .input_values()
        .map(|v| match f.op(v) {
            Op::Input { name, ty } => (name.clone(), ty.clone()),
            other => (other.name().to_owned(), ValueType::Unknown),
        })
        .collect();
    let output_types: Vec<(String, ValueType)> =
        f.outputs().iter().map(|o| (o.name.clone(), f.ty(o.value).clone())).collect();
    let inputs = match data(case, "input", &input_types) {
        Ok(inputs) => inputs,
        Err(message) => return Outcome::Refused(message),
    };
    let module = match compiled(&original, &inputs) {
        Ok(module) => module,
        Err(outcome) => return outcome,
    };
    if let Err(error) = verify_core(&module) {
        return Outcome::Failed(error.to_string());
    }
    let Some(function) = module.entry() else { return Outcome::Failed("no function".to_owned()) };
    let values: Vec<HostValue> = inputs.into_iter().map(|(_, v)| v).collect();
    let outputs = match eval_function(&module, function, &values, Options::default()) {
        Ok(outputs) => outputs,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let expected = match data(case, "output", &output_types) {
        Ok(expected) => expected,
        Err(message) => return Outcome::Refused(message),
    };
    let (rtol, atol) = tolerance(case);
    for (found, (name, expected)) in outputs.iter().zip(&expected) {
        if let Err(message) = compare(found, expected, rtol, atol) {
            return Outcome::Failed(format!("output `{name}`: {message}"));
        }
    }
    Outcome::Passed
}

fn judge(cases: &[PathBuf], open: bool) -> (usize, usize, usize) {
    let only = std::env::var("FRIT_CASE").ok();
    let (mut passed, mut failed, mut refused) = (0, Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for case in cases {
        let name = case.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let outcome = std::panic::catch_unwind(|| run(case, open)).unwrap_or(Outcome::Failed("panicked".to_owned()));
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Refused(reason) => {
                if only.is_some() {
                    println!("refused {name}: {reason}");
                }
                let reason = reason.split("; node").next().unwrap_or_default().replace("not supported yet:\n", "");
                refused.entry(reason.trim().to_owned()).or_default().push(name);
            }
            Outcome::Failed(message) => failed.push(format!("{name}: {message}")),
        }
    }
    let count = refused.values().map(Vec::len).sum();
    for (reason, names) in &refused {
        println!("refused {:4} {reason} ({})", names.len(), names.first().map_or("", String::as_str));
    }
    for line in &failed {
        println!("FAILED {line}");
    }
    println!("{passed} passed, {} failed, {count} skipped", failed.len());
    (passed, failed.len(), count)
}

#[test]
fn official_cases() {
    let Some(folder) = std::env::var_os("FRIT_ONNX_CASES") else {
        println!("skipped: FRIT_ONNX_CASES names no folder");
        return;
    };
    let (passed, failed, _) = judge(&cases_in(Path::new(&folder)), false);
    assert_eq!(failed, 0);
    assert!(passed > 0);
}

#[test]
fn official_cases_with_open_extents() {
    let Some(folder) = std::env::var_os("FRIT_ONNX_CASES") else {
        println!("skipped: FRIT_ONNX_CASES names no folder");
        return;
    };
    let (passed, failed, _) = judge(&cases_in(Path::new(&folder)), true);
    assert_eq!(failed, 0);
    assert!(passed > 0);
}

fn shared_folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    std::env::var_os("FRIT_SHARED").map_or(beside, PathBuf::from)
}

#[test]
fn a_squeeze_of_64_names_node_axis_and_extent() {
    let path = shared_folder().join("golden/afkan/invalid/squeeze_of_64.onnx");
    if !path.is_file() {
        println!("skipped: no shared folder (FRIT_SHARED)");
        return;
    }
    let mut module = onnx::load(&path).expect("the file itself is sound");
    let error = legalize(&mut module, &LegalizeOptions::default()).expect_err("64 is not 1");
    let text = error.to_string();
    assert!(text.contains("Squeeze") && text.contains("axis") && text.contains("64"), "{text}");
    println!("{text}");
}

#[test]
fn golden_models() {
    let cases = cases_in(&shared_folder().join("golden/afkan/cases"));
    if cases.is_empty() {
        println!("skipped: no shared folder (FRIT_SHARED)");
        return;
    }
    let (_, failed, refused) = judge(&cases, false);
    assert_eq!((failed, refused), (0, 0));
}
