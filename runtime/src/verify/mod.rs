//! ONNX test-case folders: `model.onnx` and `test_data_set_*` with inputs and expected outputs.
//!
//! A case fails when a result is wrong, a run ends in an error, or anything panics; it is skipped when the model needs
//! what frit does not support, with the reason. `input_K.pb` is the K-th graph input that is no initializer; an absent
//! file is an optional input that the case leaves out.

mod compare;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frit_compiler::driver::CompileError;
use frit_compiler::plan::OpCounts;
use frit_compiler::plan::build::BuildError;
use frit_ir::{HostValue, ValueType, onnx};
use frit_passes::legalize::LegalizeError;
use frit_passes::manager::PassError;

pub use compare::{Tolerance, compare};

use crate::compile::{CompileOptions, Runner};
use crate::load::{LoadError, load_module};

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every data set gave what is expected.
    Passed,
    /// Wrong, an error, or a crash.
    Failed,
    /// Refused as unsupported.
    Skipped,
}

impl Verdict {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        }
    }
}

/// A case and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The folder's name.
    pub case: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, when it did not pass.
    pub reason: String,
    /// How its ops ran.
    pub ops: OpCounts,
    /// Milliseconds for loading, compiling and running all data sets.
    pub milliseconds: f64,
}

/// Runs one case.
pub fn verify(folder: &Path, options: &CompileOptions) -> Record {
    let start = Instant::now();
    let case = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let mut ops = OpCounts::default();
    let done = catch_unwind(AssertUnwindSafe(|| run_case(folder, options, &mut ops)));
    let (verdict, reason) = match done {
        Ok(Ok(())) => (Verdict::Passed, String::new()),
        Ok(Err(Stop::Skip(reason))) => (Verdict::Skipped, reason),
        Ok(Err(Stop::Fail(reason))) => (Verdict::Failed, reason),
        Err(_) => (Verdict::Failed, "a panic: a bug of frit".to_owned()),
    };
    Record { case, verdict, reason, ops, milliseconds: millis(start.elapsed()) }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Why a case did not pass.
enum Stop {
    Skip(String),
    Fail(String),
}

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Stop {
        if is_unsupported(&error) { Stop::Skip(error.to_string()) } else { Stop::Fail(error.to_string()) }
    }
}

/// Whether an error says that frit does not support a model, which is not wrong in itself.
pub fn is_unsupported(error: &LoadError) -> bool {
    match error {
        LoadError::Onnx { source, .. } => matches!(source, onnx::OnnxError::Unsupported(_)),
        LoadError::NeedsValues { .. } => true,
        LoadError::Compile(error) => match error {
            CompileError::Pass(PassError::Legalize(error)) => {
                matches!(error, LegalizeError::Unsupported(_) | LegalizeError::NeedsValues { .. })
            }
            CompileError::Pass(_) | CompileError::Code(_) | CompileError::UnknownDim { .. } => false,
            CompileError::Build(error) => {
                matches!(error, BuildError::Unsupported { .. } | BuildError::Unbound { .. } | BuildError::Lower(_))
            }
        },
        LoadError::Text(_)
        | LoadError::Artifact { .. }
        | LoadError::Code { .. }
        | LoadError::Unknown { .. }
        | LoadError::Model(_)
        | LoadError::Run(_) => false,
    }
}

fn run_case(folder: &Path, options: &CompileOptions, ops: &mut OpCounts) -> Result<(), Stop> {
    let module = load_module(folder)?;
    let tolerance = Tolerance::of_case(folder).map_err(Stop::Fail)?;
    let types: Vec<ValueType> = match module.entry() {
        Some(f) => f.input_values().map(|v| f.ty(v).clone()).collect(),
        None => return Err(Stop::Fail("the model has no function".to_owned())),
    };
    let output_types: Vec<ValueType> =
        module.entry().map(|f| f.outputs().iter().map(|o| f.ty(o.value).clone()).collect()).unwrap_or_default();
    let mut runner = Runner::new(module, options.clone());
    let names = runner.input_names();
    let sets = data_sets(folder);
    if sets.is_empty() {
        return Err(Stop::Fail("the case has no test_data_set_*".to_owned()));
    }
    for set in sets {
        let inputs = read_values(&set, "input", &types)?;
        let expected = read_values(&set, "output", &output_types)?;
        let named: Vec<(&str, &HostValue)> =
            names.iter().zip(&inputs).filter_map(|(n, v)| Some((n.as_str(), v.as_ref()?))).collect();
        *ops = runner.model(&named)?.model.ops();
        let results = runner.run(&named)?;
        for (i, expected) in expected.iter().enumerate() {
            let Some(expected) = expected else { continue };
            let Some((name, found)) = results.get(i) else {
                return Err(Stop::Fail(format!("output {i} is missing")));
            };
            compare(found, expected, &tolerance).map_err(|e| Stop::Fail(format!("output `{name}`: {e}")))?;
        }
    }
    Ok(())
}

/// The data sets of a case, in order.
pub fn data_sets(folder: &Path) -> Vec<PathBuf> {
    let name = |n: usize| folder.join(format!("test_data_set_{n}"));
    (0..).map(name).take_while(|set| set.is_dir()).collect()
}

/// The values of `input_K.pb` or `output_K.pb`, an entry a type; `None` where there is no file.
fn read_values(set: &Path, kind: &str, types: &[ValueType]) -> Result<Vec<Option<HostValue>>, Stop> {
    let read = |(i, ty): (usize, &ValueType)| {
        let path = set.join(format!("{kind}_{i}.pb"));
        if !path.exists() {
            return Ok(None);
        }
        read_value(&path, ty).map(Some).map_err(Stop::Fail)
    };
    types.iter().enumerate().map(read).collect()
}

/// A value of a `.pb` file.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read_value(path: &Path, ty: &ValueType) -> Result<HostValue, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    onnx::read_value(&bytes, ty).map_err(|e| format!("{}: {e}", path.display()))
}
