//! Files to modules: ONNX models, native texts, ONNX test-case folders.

use std::path::{Path, PathBuf};

use frit_compiler::artifact::{self, ArtifactError};
use frit_ir::onnx::{ImportOptions, MissingKind, OnnxError, Report};
use frit_ir::text::TextError;
use frit_ir::{Module, onnx, text};
use frit_passes::legalize;

use crate::session::{ModelError, RunError};

/// Where the machine code of a model came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeSource {
    /// Compiled from a module.
    Compiled,
    /// Taken from a compiled file as it is.
    Loaded,
    /// Compiled again from the module of a compiled file; why its code was not used.
    Recompiled(String),
}

impl CodeSource {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            CodeSource::Compiled => "compiled",
            CodeSource::Loaded => "loaded",
            CodeSource::Recompiled(_) => "recompiled",
        }
    }
}

/// Why a model can't be loaded or compiled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not an ONNX model, or one that frit does not support.
    #[error("{path}: {source}")]
    Onnx {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OnnxError,
    },
    /// Not a text of a module.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Not a compiled file.
    #[error("{path}: {source}")]
    Artifact {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ArtifactError,
    },
    /// Code of a file that may not or can't run here.
    #[error("{path}: its code can't be used: {reason}; this build can't compile, so trust it or compile it here")]
    Code {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of no known kind.
    #[error("{path}: not a model; give a .onnx, .frit or .fritc file or an ONNX test-case folder")]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// It can't be compiled.
    #[cfg(feature = "jit")]
    #[error(transparent)]
    Compile(#[from] frit_compiler::driver::CompileError),
    /// Shapes depend on the values of inputs.
    #[error(
        "the values of {} are needed to compile (node `{node}`); compile for given inputs, or run with them",
        quoted(inputs)
    )]
    NeedsValues {
        /// The inputs.
        inputs: Vec<String>,
        /// The first node that needs one.
        node: String,
    },
    /// The plan can't be made ready.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It can't be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl LoadError {
    /// Whether it is a bug of frit, not of the model or the caller.
    pub fn is_internal(&self) -> bool {
        match self {
            #[cfg(feature = "jit")]
            LoadError::Compile(e) => e.is_internal(),
            LoadError::Run(e) => e.is_internal(),
            LoadError::Onnx { .. }
            | LoadError::Text(_)
            | LoadError::Artifact { .. }
            | LoadError::Code { .. }
            | LoadError::Unknown { .. }
            | LoadError::NeedsValues { .. }
            | LoadError::Model(_) => false,
        }
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("input `{n}`")).collect();
    names.join(", ")
}

/// What import and legalize lack is told at once, though legalize runs later where import lacks nothing.
fn load_onnx(path: &Path, options: ImportOptions) -> Result<Module, OnnxError> {
    let (module, mut missing) = onnx::survey(path, options)?;
    if missing.is_empty() {
        return Ok(module);
    }
    add_operators(&mut missing, &legalize::missing(&module));
    Err(OnnxError::Unsupported(missing))
}

/// Adds what legalize lacks; nodes whose operator import refused already are left out.
fn add_operators(missing: &mut Report, found: &legalize::Report) {
    let refused = |m: &onnx::Missing| matches!(m.kind, MissingKind::Op | MissingKind::Opset);
    let told: Vec<String> = missing.missing().filter(refused).flat_map(|m| m.nodes).collect();
    for entry in &found.entries {
        let (kind, what) = match entry.is_operator() {
            true => (MissingKind::Op, entry.op_type.clone()),
            false => (MissingKind::Feature, format!("{}: {}", entry.op_type, entry.reason)),
        };
        for node in entry.nodes.iter().filter(|n| !(entry.is_operator() && told.contains(n))) {
            missing.add(kind, &entry.domain, entry.since_version, &what, node);
        }
    }
}

/// Reads a module: `.onnx`, `.frit`, `.fritc` (the module that it holds), or a folder that holds `model.onnx`.
///
/// # Errors
/// A file that can't be read, is damaged, or holds what frit does not support.
pub fn load_module(path: &Path) -> Result<Module, LoadError> {
    load_with(path, ImportOptions::default())
}

/// [`load_module`] of a model that is to be trained: weights of an ONNX model are trainable parameters.
///
/// # Errors
/// As [`load_module`].
pub fn load_to_train(path: &Path) -> Result<Module, LoadError> {
    load_with(path, ImportOptions { trainable: true })
}

fn load_with(path: &Path, options: ImportOptions) -> Result<Module, LoadError> {
    let path = if path.is_dir() { path.join("model.onnx") } else { path.to_owned() };
    match path.extension().and_then(|e| e.to_str()) {
        Some("onnx") => load_onnx(&path, options).map_err(|source| LoadError::Onnx { path, source }),
        Some("frit") => Ok(text::read_file(&path)?),
        Some("fritc") => {
            let module = artifact::read_file(&path).and_then(|a| a.module());
            module.map_err(|source| LoadError::Artifact { path, source })
        }
        _ => Err(LoadError::Unknown { path }),
    }
}
