//! A path to something that runs: find the model, read it, compile it, make it ready.
//!
//! In: what the user typed. Out: a module, a compiled model. A folder means the test case in it; what a file is, its
//! extension says. When shapes depend on the values of inputs, and those are given, the model is compiled for these.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frit_compiler::artifact;
use frit_compiler::cpu::{Target, VectorBits, Vectors};
use frit_ir::{HostValue, Module, Op, ValueType};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use frit_runtime::compile::{CompileOptions, Compiled};
use frit_runtime::load::load_module;
use frit_runtime::pool::Pool;

use crate::args::{self, CompileFlags};
use crate::error::{CliError, Done};

/// A model on disk.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The model file.
    pub(crate) file: PathBuf,
    /// The test-case folder that it was named by.
    pub(crate) case: Option<PathBuf>,
}

/// A model in memory.
pub(crate) struct Loaded {
    /// Where it lies.
    pub(crate) source: Source,
    /// What it says.
    pub(crate) module: Module,
    /// What reading took.
    pub(crate) time: Duration,
}

/// Values of inputs by name, before the rest is made up.
pub(crate) type Given = Vec<(String, HostValue)>;

/// Finds the model that a path means.
pub(crate) fn locate(path: &Path) -> Done<Source> {
    let metadata = std::fs::metadata(path).map_err(|e| CliError::file(path, &e))?;
    if metadata.is_dir() {
        let file = path.join("model.onnx");
        if !file.is_file() {
            let message = format!("{}: a folder without model.onnx", path.display());
            return Err(CliError::failed(message, "name a model file, or an ONNX test-case folder"));
        }
        return Ok(Source { file, case: Some(path.to_owned()) });
    }
    if !matches!(path.extension().and_then(|e| e.to_str()), Some("onnx" | "frit" | "fritc")) {
        let message = format!("{}: neither .onnx, .frit nor .fritc", path.display());
        return Err(CliError::failed(
            message,
            "a model is an .onnx, .frit or .fritc file, or an ONNX test-case folder",
        ));
    }
    if metadata.len() == 0 {
        let message = format!("{}: the file is empty", path.display());
        return Err(CliError::failed(message, "write the model again: nothing was saved in it"));
    }
    Ok(Source { file: path.to_owned(), case: None })
}

/// Reads a model.
pub(crate) fn load(path: &Path) -> Done<Loaded> {
    let start = Instant::now();
    let source = locate(path)?;
    let module = if source.file.extension().is_some_and(|e| e == "fritc") {
        // Its code is whoever wrote the file's; its module is compiled again instead.
        artifact::read_file(&source.file).and_then(|a| a.module()).map_err(CliError::from)
    } else {
        load_module(&source.file).map_err(CliError::from)
    }
    .map_err(|e| e.in_file(&source.file))?;
    Ok(Loaded { source, module, time: start.elapsed() })
}

/// Inputs of a module's entry: name and type.
pub(crate) fn inputs_of(module: &Module) -> Vec<(String, ValueType)> {
    let Some(entry) = module.entry() else { return Vec::new() };
    let named = entry.input_values().map(|v| match entry.op(v) {
        Op::Input { name, .. } => (name.clone(), entry.ty(v).clone()),
        other => (other.name().to_owned(), entry.ty(v).clone()),
    });
    named.collect()
}

/// Flags as the compiler's options.
pub(crate) fn options(flags: &CompileFlags) -> CompileOptions {
    CompileOptions {
        level: Level::from_digit(flags.level).unwrap_or_default(),
        math: match flags.math {
            args::Math::Strict => Math::Strict,
            args::Math::Fast => Math::Fast,
        },
        passes: flags.passes.clone(),
        verify_each: flags.verify_each,
        fuel: flags.fuel,
        dump_dir: flags.dump_ir.clone(),
        dims: flags.dims.clone(),
        fixed: HashMap::new(),
        vectors: vectors(flags),
    }
}

/// How wide the user wants vectors.
pub(crate) fn vectors(flags: &CompileFlags) -> Vectors {
    let wanted = flags.vector_bits.as_deref().and_then(|bits| bits.parse::<u32>().ok());
    let bits = wanted.and_then(|wanted| VectorBits::ALL.into_iter().find(|b| b.bits() == wanted));
    bits.map_or(Vectors::Widest, Vectors::AtMost)
}

/// Holds the process to a number of threads; call it before anything runs.
pub(crate) fn set_threads(threads: Option<u16>) {
    if let Some(threads) = threads {
        // A pool that is there already was made by this call's twin, with the same number.
        let _ = Pool::set_global(Pool::new(usize::from(threads)));
    }
}

/// Compiles a module; `given` are values that shapes may depend on.
pub(crate) fn compile(module: &Module, options: &CompileOptions, given: &Given) -> Done<Compiled> {
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(name, value)| (name.as_str(), value)).collect();
    Ok(Model::compile_for(module, &named, options)?)
}

/// Bits of the vectors that code for this machine uses.
pub(crate) fn vector_bits(flags: &CompileFlags) -> Done<u32> {
    Ok(vectors(flags).bits(&Target::host()?).bits())
}

/// Inputs of a compiled model: name and type.
pub(crate) fn ports_of(model: &Model) -> Vec<(String, ValueType)> {
    model.inputs().iter().map(|port| (port.name.clone(), port.ty.clone())).collect()
}
