//! ONNX test-case folders: `model.onnx` and `test_data_set_*` with inputs and expected outputs.
//!
//! A case fails when a result is wrong, a run ends in an error, or anything panics; it is skipped when the model needs
//! what frit does not support, with the reason. A compiled file may stand for the model. `input_K.pb` is the K-th graph input that is no initializer; an absent
//! file is an optional input that the case leaves out.

mod compare;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frit_compiler::driver::CompileError;
use frit_compiler::plan::build::BuildError;
use frit_compiler::plan::{OpCounts, Port};
use frit_ir::{HostValue, Module, Op, ValueType, onnx};
use frit_passes::legalize::LegalizeError;
use frit_passes::manager::{Math, PassError};

pub use compare::{Tolerance, compare};

use crate::artifact::{Opened, open_artifact};
use crate::compile::{CompileOptions, Runner};
use crate::load::{CodeSource, LoadError, load_module};
use crate::session::Model;

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
    /// Whether it failed by a bug of frit.
    pub internal: bool,
    /// Where its code came from; `None`: it did not get that far.
    pub code: Option<CodeSource>,
    /// How its ops ran.
    pub ops: OpCounts,
    /// Milliseconds for loading, compiling and running all data sets.
    pub milliseconds: f64,
}

/// Runs one case.
pub fn verify(folder: &Path, options: &CompileOptions) -> Record {
    record(folder, None, options)
}

/// Runs one case with a compiled file, whose code may run here, in place of the folder's model.
pub fn verify_compiled(folder: &Path, file: &Path, options: &CompileOptions) -> Record {
    record(folder, Some(file), options)
}

fn record(folder: &Path, trusted: Option<&Path>, options: &CompileOptions) -> Record {
    let start = Instant::now();
    let case = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let (mut ops, mut code) = (OpCounts::default(), None);
    let stop = caught(|| run_case(folder, trusted, options, &mut ops, &mut code));
    let (verdict, reason, internal) = match stop {
        None => (Verdict::Passed, String::new(), false),
        Some(Stop::Skip(reason)) => (Verdict::Skipped, reason, false),
        Some(Stop::Fail(reason)) => (Verdict::Failed, reason, false),
        Some(Stop::Internal(reason)) => (Verdict::Failed, reason, true),
    };
    Record { case, verdict, reason, internal, code, ops, milliseconds: millis(start.elapsed()) }
}

/// Why a case did not pass. A panic is caught, so that the other cases run, and told as the bug that it is.
fn caught(run: impl FnOnce() -> Result<(), Stop>) -> Option<Stop> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.err(),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|t| (*t).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Some(Stop::Internal(format!("internal error: {}", text.as_deref().unwrap_or("a panic without a message"))))
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Why a case did not pass.
#[derive(Debug, PartialEq)]
enum Stop {
    Skip(String),
    Fail(String),
    Internal(String),
}

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Stop {
        if is_unsupported(&error) {
            Stop::Skip(error.to_string())
        } else if error.is_internal() {
            Stop::Internal(error.to_string())
        } else {
            Stop::Fail(error.to_string())
        }
    }
}

/// Whether an error says that frit does not support a model, which is not wrong in itself.
pub fn is_unsupported(error: &LoadError) -> bool {
    match error {
        LoadError::Onnx { source, .. } => matches!(source, onnx::OnnxError::Unsupported(_)),
        LoadError::NeedsValues { .. } => true,
        LoadError::Compile(error) => match error {
            CompileError::Pass(PassError::Legalize(error)) => match error {
                LegalizeError::Unsupported(_) | LegalizeError::NeedsValues { .. } | LegalizeError::Shapeless { .. } => {
                    true
                }
                LegalizeError::Invalid { .. } | LegalizeError::Fixed { .. } | LegalizeError::Cycle(_) => false,
            },
            CompileError::Pass(_)
            | CompileError::Code(_)
            | CompileError::UnknownDim { .. }
            | CompileError::UnknownState { .. }
            | CompileError::State(_) => false,
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

/// What runs the data sets of a case.
enum Subject {
    /// Compiled as the inputs demand.
    Module(Box<Runner>),
    /// A compiled file.
    Model(Box<Model>),
}

impl Subject {
    fn ops(&mut self, inputs: &[(&str, &HostValue)]) -> Result<OpCounts, LoadError> {
        match self {
            Subject::Module(runner) => Ok(runner.model(inputs)?.model.ops()),
            Subject::Model(model) => Ok(model.ops()),
        }
    }

    fn run(&mut self, inputs: &[(&str, &HostValue)]) -> Result<Vec<(String, HostValue)>, LoadError> {
        match self {
            Subject::Module(runner) => runner.run(inputs),
            Subject::Model(model) => model.run_values(inputs).map_err(LoadError::from),
        }
    }
}

/// Name and type of inputs or outputs, in order.
type Ports = Vec<(String, ValueType)>;

fn ports_of_module(module: &Module) -> Result<(Ports, Ports), Stop> {
    let f = module.entry().ok_or_else(|| Stop::Fail("the model has no function".to_owned()))?;
    let named = |v| match f.op(v) {
        Op::Input { name, .. } => (name.clone(), f.ty(v).clone()),
        _ => (String::new(), f.ty(v).clone()),
    };
    let outputs = f.outputs().iter().map(|o| (o.name.clone(), f.ty(o.value).clone())).collect();
    Ok((f.input_values().map(named).collect(), outputs))
}

fn run_case(
    folder: &Path,
    trusted: Option<&Path>,
    options: &CompileOptions,
    ops: &mut OpCounts,
    code: &mut Option<CodeSource>,
) -> Result<(), Stop> {
    let (mut subject, (inputs, outputs)) = match trusted.map(|file| open_artifact(file, true)).transpose()? {
        Some(Opened::Code { model, .. }) => {
            *code = Some(CodeSource::Loaded);
            let named = |ports: &[Port]| ports.iter().map(|p| (p.name.clone(), p.ty.clone())).collect();
            let ports = (named(model.inputs()), named(model.outputs()));
            (Subject::Model(Box::new(model)), ports)
        }
        Some(Opened::Module { module, fixed, reason }) => {
            *code = Some(CodeSource::Recompiled(reason));
            let ports = ports_of_module(&module)?;
            let options = CompileOptions { fixed, math: Math::AsWritten, ..options.clone() };
            (Subject::Module(Box::new(Runner::new(module, options))), ports)
        }
        None => {
            let module = load_module(folder)?;
            *code = Some(CodeSource::Compiled);
            let ports = ports_of_module(&module)?;
            (Subject::Module(Box::new(Runner::new(module, options.clone()))), ports)
        }
    };
    let tolerance = Tolerance::of_case(folder).map_err(Stop::Fail)?;
    let sets = data_sets(folder);
    if sets.is_empty() {
        return Err(Stop::Fail("the case has no test_data_set_*".to_owned()));
    }
    for set in sets {
        let values = read_values(&set, "input", &inputs)?;
        let expected = read_values(&set, "output", &outputs)?;
        let named: Vec<(&str, &HostValue)> =
            inputs.iter().zip(&values).filter_map(|((n, _), v)| Some((n.as_str(), v.as_ref()?))).collect();
        *ops = subject.ops(&named)?;
        let results = subject.run(&named)?;
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

/// The values of `input_K.pb` or `output_K.pb`, an entry a port; `None` where there is no file.
fn read_values(set: &Path, kind: &str, ports: &[(String, ValueType)]) -> Result<Vec<Option<HostValue>>, Stop> {
    let read = |(i, (_, ty)): (usize, &(String, ValueType))| {
        let path = set.join(format!("{kind}_{i}.pb"));
        if !path.exists() {
            return Ok(None);
        }
        read_value(&path, ty).map(Some).map_err(Stop::Fail)
    };
    ports.iter().enumerate().map(read).collect()
}

/// A value of a `.pb` file.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read_value(path: &Path, ty: &ValueType) -> Result<HostValue, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    onnx::read_value(&bytes, ty).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_and_a_bug() {
        assert_eq!(
            caught(|| panic!("index {} of {}", 3, 2)),
            Some(Stop::Internal("internal error: index 3 of 2".to_owned()))
        );
        assert_eq!(caught(|| panic!("plain")), Some(Stop::Internal("internal error: plain".to_owned())));
        assert_eq!(caught(|| Ok(())), None);
        let bug = LoadError::Run(crate::RunError::Internal("a slot".to_owned()));
        assert_eq!(Stop::from(bug), Stop::Internal("internal error: a slot".to_owned()));
    }
}
