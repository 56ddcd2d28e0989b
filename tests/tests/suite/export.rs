//! What is exported as ONNX and imported again means the same: official cases, random modules.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use frit_ir::onnx::{self, ExportError, ExportOptions, export_bytes};
use frit_ir::reference::{Options, eval_function};
use frit_ir::{HostValue, Module, Op, ValueType};
use frit_passes::manager::{self, Level, Math, Pipeline};
use frit_runtime::export::{Portable, portable};
use frit_runtime::verify::{Verdict, data_sets, read_value, verify};
use frit_runtime::{CompileOptions, load_module};
use frit_tests::{Case, within};

/// Official node cases that come back and pass, of 1,765.
const OFFICIAL_PASSES: usize = 1580;

/// Compositions of elementary functions round more often than the one that they stand for.
const FACTOR: f64 = 16.0;

fn options(level: Level) -> CompileOptions {
    CompileOptions { level, math: Math::Strict, ..CompileOptions::default() }
}

/// What became of a case.
enum Came {
    Passed,
    /// frit does not run the original either.
    Skipped,
    Refused(String),
    Failed(String),
}

/// Names and types of a model's inputs.
fn ports(module: &Module) -> Vec<(String, ValueType)> {
    let Some(f) = module.entry() else { return Vec::new() };
    let port = |v| match f.op(v) {
        Op::Input { name, .. } => (name.clone(), f.ty(v).clone()),
        other => (other.name().to_owned(), f.ty(v).clone()),
    };
    f.input_values().map(port).collect()
}

/// Exports a case into `to` and runs what comes back on the same data.
fn there_and_back(case: &Path, to: &Path, level: Level) -> Result<Came, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let Ok(module) = load_module(case) else { return Ok(Came::Skipped) };
    let Some(set) = data_sets(case).into_iter().next() else { return Ok(Came::Skipped) };
    let ports = ports(&module);
    let mut given = Vec::new();
    for (i, (name, ty)) in ports.iter().enumerate() {
        let path = set.join(format!("input_{i}.pb"));
        if path.is_file() {
            given.push((name.as_str(), read_value(&path, ty)?));
        }
    }
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(n, v)| (*n, v)).collect();
    let Ok(Portable { module, fixed }) = portable(&module, &named, &options(level)) else { return Ok(Came::Skipped) };
    let bytes = match export_bytes(&module, &ExportOptions::default()) {
        Ok(bytes) => bytes,
        Err(e @ ExportError::Unsupported { .. }) => return Ok(Came::Refused(e.to_string())),
        Err(e) => return Ok(Came::Failed(e.to_string())),
    };
    let here = to.join("test_data_set_0");
    std::fs::create_dir_all(&here).map_err(|e| text(&e))?;
    std::fs::write(to.join("model.onnx"), bytes).map_err(|e| text(&e))?;
    if case.join("data.json").is_file() {
        std::fs::copy(case.join("data.json"), to.join("data.json")).map_err(|e| text(&e))?;
    }
    // Inputs that became constants are gone: the others move up.
    let left = ports.iter().enumerate().filter(|(_, (name, _))| !fixed.contains(name));
    for (now, (before, _)) in left.enumerate() {
        let from = set.join(format!("input_{before}.pb"));
        if from.is_file() {
            std::fs::copy(from, here.join(format!("input_{now}.pb"))).map_err(|e| text(&e))?;
        }
    }
    for i in 0.. {
        let name = format!("output_{i}.pb");
        if std::fs::copy(set.join(&name), here.join(&name)).is_err() {
            break;
        }
    }
    let record = verify(to, &options(Level::O0));
    Ok(match record.verdict {
        Verdict::Passed => Came::Passed,
        Verdict::Failed | Verdict::Skipped => Came::Failed(record.reason),
    })
}

#[test]
fn official_cases_come_back() {
    let Some(folder) = std::env::var_os("FRIT_ONNX_CASES") else {
        println!("skipped: FRIT_ONNX_CASES names no folder of ONNX node cases");
        return;
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut cases: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.join("model.onnx").is_file()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "FRIT_ONNX_CASES holds no case");
    for level in [Level::O0, Level::O2] {
        let folder = tempfile::tempdir().expect("a folder");
        let (next, passed, skipped) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let (refused, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
                        let came = there_and_back(case, &folder.path().join(&name), level);
                        match came.unwrap_or_else(Came::Failed) {
                            Came::Passed => _ = passed.fetch_add(1, Ordering::Relaxed),
                            Came::Skipped => _ = skipped.fetch_add(1, Ordering::Relaxed),
                            Came::Refused(why) => refused.lock().expect("no panic").push(format!("{name}: {why}")),
                            Came::Failed(why) => failed.lock().expect("no panic").push(format!("{name}: {why}")),
                        }
                    }
                });
            }
        });
        let (passed, refused) = (passed.into_inner(), refused.into_inner().expect("no panic"));
        let failed = failed.into_inner().expect("no panic");
        let skipped = skipped.into_inner();
        println!("{level:?}: {passed} passed, {} failed, {} refused, {skipped} skipped", failed.len(), refused.len());
        assert!(failed.is_empty(), "{level:?}:\n  {}", failed.join("\n  "));
        assert!(refused.is_empty(), "{level:?}:\n  {}", refused.join("\n  "));
        assert!(passed >= OFFICIAL_PASSES.min(cases.len()), "{level:?}: only {passed} of {}", cases.len());
    }
}

/// A module exported, imported and legalized.
fn back(module: &Module) -> Result<Module, String> {
    let bytes = export_bytes(module, &ExportOptions::default()).map_err(|e| e.to_string())?;
    let mut module = onnx::from_bytes(bytes, None).map_err(|e| e.to_string())?;
    let pipeline = Pipeline::parse("legalize,shape").map_err(|e| e.to_string())?;
    manager::run(&mut module, &pipeline, &manager::Options::default()).map_err(|e| e.to_string())?;
    Ok(module)
}

fn same(case: &Case, exported: &Module) -> Result<usize, String> {
    let expected = case.bounds(2.0)?;
    let module = back(exported)?;
    let function = module.entry().ok_or("no function came back")?;
    let names = Case { module: module.clone(), inputs: Vec::new() }.input_names();
    let originals = case.input_names();
    let find = |name: &String| {
        let i = originals.iter().position(|n| n == name)?;
        case.inputs.get(i).cloned()
    };
    let inputs = names.iter().map(find).collect::<Option<Vec<_>>>().ok_or("inputs of other names")?;
    let found = eval_function(&module, function, &inputs, Options::default()).map_err(|e| format!("{e}"))?;
    within(&found, &expected, FACTOR)
}

#[test]
fn random_modules_come_back() {
    let (mut failures, mut elements) = (Vec::new(), 0);
    for seed in 1..=400 {
        let case = Case::random(seed, super::random::size(seed)).expect("a random module");
        let mut exported = case.module.clone();
        if seed % 2 == 1 {
            exported = portable(&exported, &[], &options(Level::O2)).expect("passes run").module;
        }
        match same(&case, &exported) {
            Ok(checked) => elements += checked,
            Err(message) => failures.push(format!("seed {seed}: {message}\n{}", case.text())),
        }
    }
    let count = failures.len();
    failures.truncate(2);
    assert!(failures.is_empty(), "{count} of 400 fail:\n{}", failures.join("\n"));
    assert!(elements > 4000, "only {elements} elements have a bound");
}
