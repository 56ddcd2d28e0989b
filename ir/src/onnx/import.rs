//! From a model file to a module.
//!
//! In: the bytes of a model, and the folder that its external data may lie in. Out: a [`Module`] with one function,
//! `infer`, whose ops are `onnx` nodes, constants and parameters. Afterwards:
//! - every name is resolved: operands are values, model-local functions are inlined, subgraphs are isolated regions
//!   whose captured values are operands (after the node's own; `__captured` counts them) and inputs (after the
//!   region's own);
//! - every `onnx` node says which version of its operator is meant ([`opsets`](super::opsets)); an operator that no
//!   official domain has keeps the imported version of its domain, and legalize reports it with all others;
//! - the graph is acyclic and in order, however the file ordered it; constants that nothing uses are gone;
//! - every op has an origin: the node's name, and the PyTorch line where the exporter recorded it.
//!
//! Initializers and `Constant` nodes become `constant` ops, or parameters when they are larger than
//! [`INLINE_ELEMENTS`]; neither depends on inputs, so each region gets its own instead of capturing them. A graph input
//! that has an initializer is a constant too: the format allows callers to override it, exporters before IR version 4
//! had to write all weights so, and nothing in a file tells the two apart.
//!
//! [`ImportOptions::trainable`] keeps what can be trained ([`trainable`](super::trainable) says what that is) as
//! parameters of any size, under their names, those that a subgraph uses among what it captures.
//!
//! What is missing is collected and refused in one [`Report`](super::Report) at the end; what is wrong is refused at
//! once. [`survey`] gives the report beside as much of the module as there is, so that a caller who knows which operators
//! it takes can add to it.

mod attributes;
mod body;
mod functions;
mod order;
mod origin;
mod scope;
mod types;

use std::collections::HashMap;
use std::path::Path;

use prost::bytes::Bytes;
use prost::{DecodeError, Message};

use super::error::{MissingKind, OnnxError, Report};
use super::opsets;
use super::proto::{FunctionProto, ModelProto, OperatorSetIdProto};
use super::tensor::TensorReader;
use super::trainable::{Roles, prepare};
use crate::module::Module;
use functions::FunctionKey;
use scope::Constants;
use types::Symbols;

/// Constants of more elements than this go to the parameter store; smaller ones are printed in the text.
pub const INLINE_ELEMENTS: usize = 16;

/// Versions of the file format that are known. What 12 to 14 added are element types, and opaque types outside of
/// ai.onnx.ml: those that are not supported are refused where they are used.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 1..=14;

/// Bytes that a model file may have: what protobuf allows. Larger weights lie in external data.
const FILE_LIMIT: u64 = 2 << 30;

/// Messages in messages that prost decodes: protobuf's own limit.
const MESSAGE_DEPTH: usize = 100;

/// How to import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Weights are trainable parameters, not constants.
    pub trainable: bool,
}

/// Reads the model at `path`; external data lies in the same folder.
pub fn load(path: &Path) -> Result<Module, OnnxError> {
    survey(path, ImportOptions::default()).and_then(|(module, missing)| whole(module, missing))
}

/// Reads the model at `path` as far as it goes, and gives what is missing. A module that misses something is good for
/// looking at only: what was refused is left out of it, or absent.
pub fn survey(path: &Path, options: ImportOptions) -> Result<(Module, Report), OnnxError> {
    let (mut module, missing) = imported_from(file_bytes(path)?, path.parent(), options)?;
    module.source = path.to_string_lossy().into_owned();
    Ok((module, missing))
}

/// The bytes of a model file.
pub(super) fn file_bytes(path: &Path) -> Result<Bytes, OnnxError> {
    let io = |source| OnnxError::Io { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("is not a regular file")));
    }
    if metadata.len() > FILE_LIMIT {
        let what = format!("{} bytes; a model file may have {FILE_LIMIT}", metadata.len());
        return Err(OnnxError::limit(path.to_string_lossy(), what));
    }
    Ok(std::fs::read(path).map_err(io)?.into())
}

fn whole(module: Module, missing: Report) -> Result<Module, OnnxError> {
    if missing.is_empty() { Ok(module) } else { Err(OnnxError::Unsupported(missing)) }
}

/// Reads a model from memory; without `base_dir`, one with external data is refused.
pub fn from_bytes(bytes: impl Into<Bytes>, base_dir: Option<&Path>) -> Result<Module, OnnxError> {
    from_bytes_with(bytes, base_dir, ImportOptions::default())
}

/// [`from_bytes`] with options.
pub fn from_bytes_with(
    bytes: impl Into<Bytes>,
    base_dir: Option<&Path>,
    options: ImportOptions,
) -> Result<Module, OnnxError> {
    imported_from(bytes.into(), base_dir, options).and_then(|(module, missing)| whole(module, missing))
}

fn imported_from(bytes: Bytes, base_dir: Option<&Path>, options: ImportOptions) -> Result<(Module, Report), OnnxError> {
    let mut model = decode(bytes)?;
    let mut reader = TensorReader::new(base_dir);
    let roles = if options.trainable { prepare(&mut model, &mut reader) } else { Roles::default() };
    Importer::new(&model, Constants::new(reader, roles))?.module(&model)
}

/// A model file's message.
pub(super) fn decode(bytes: Bytes) -> Result<ModelProto, OnnxError> {
    ModelProto::decode(bytes).map_err(|e| undecoded(&e))
}

/// Why bytes are no message. Depth is prost's to count and has an error of its own only in its text.
fn undecoded(error: &DecodeError) -> OnnxError {
    let text = error.to_string();
    if text.contains("recursion limit") {
        let what = format!(
            "messages lie more than {MESSAGE_DEPTH} deep in one another, a subgraph in a subgraph takes three: about {} \
             nested If, Loop or Scan nodes can be read, as in every reader that keeps protobuf's limit",
            MESSAGE_DEPTH / 3
        );
        return OnnxError::limit("file", what);
    }
    OnnxError::invalid("file", text)
}

/// What one import carries from node to node. `'a` is the life of the decoded model.
struct Importer<'a> {
    constants: Constants<'a>,
    symbols: Symbols,
    functions: HashMap<FunctionKey<'a>, &'a FunctionProto>,
    opsets: Opsets<'a>,
    /// What is missing.
    report: Report,
    /// Ops that no official domain has: joined to the report only when there is one, else they are legalize's.
    unknown: Report,
    /// What inlined functions may still cost.
    inline_budget: usize,
}

/// Imported version of each domain; the default domain under the empty name.
type Opsets<'a> = HashMap<&'a str, i64>;

impl<'a> Importer<'a> {
    fn new(model: &'a ModelProto, constants: Constants<'a>) -> Result<Self, OnnxError> {
        let mut importer = Importer {
            constants,
            symbols: Symbols::default(),
            functions: HashMap::with_capacity(model.functions.len()),
            opsets: imported(&model.opset_import)?,
            report: Report::default(),
            unknown: Report::default(),
            inline_budget: functions::INLINE_BUDGET,
        };
        for function in &model.functions {
            let key = (normal(function.domain()), function.name(), function.overload());
            if importer.functions.insert(key, function).is_some() {
                let place = format!("function `{}.{}`", function.domain(), function.name());
                return Err(OnnxError::invalid(place, "is defined twice"));
            }
        }
        Ok(importer)
    }

    fn module(mut self, model: &'a ModelProto) -> Result<(Module, Report), OnnxError> {
        let Some(graph) = &model.graph else {
            return Err(OnnxError::invalid("file", "holds no graph: it is empty, or no ONNX model"));
        };
        if !IR_VERSIONS.contains(&model.ir_version()) {
            let what = format!("IR version {} ({IR_VERSIONS:?} are known)", model.ir_version());
            self.report.add(MissingKind::Feature, "", 0, &what, graph.name());
        }
        let opsets = std::mem::take(&mut self.opsets);
        let function = self.main_graph(graph, &opsets)?;
        if !self.report.is_empty() {
            self.report.merge(self.unknown);
        }
        let mut module = Module::of(function);
        module.params = self.constants.into_params();
        Ok((module, self.report))
    }

    /// Puts what `user` needs and is missing on the report and goes on with `fallback`; other errors stay.
    fn collect<T>(&mut self, user: &str, result: Result<T, OnnxError>, fallback: T) -> Result<T, OnnxError> {
        match result {
            Err(OnnxError::Unsupported(report)) => {
                self.report.merge_for(user, report);
                Ok(fallback)
            }
            other => other,
        }
    }

    /// The version that a node's operator has, noting what is missing.
    fn since_version(
        &mut self,
        domain: &str,
        op_type: &str,
        opsets: &Opsets<'_>,
        node: &str,
    ) -> Result<i64, OnnxError> {
        let imported = opsets.get(domain).copied();
        let Some(known) = opsets::known_versions(domain) else {
            let opset = imported.unwrap_or(0);
            self.unknown.add(MissingKind::Op, domain, opset, op_type, node);
            return Ok(opset);
        };
        let shown = if domain.is_empty() { "ai.onnx" } else { domain };
        let Some(opset) = imported else {
            return Err(OnnxError::invalid(format!("domain `{shown}`"), "is used, but the model does not import it"));
        };
        let version = opsets::version(domain, op_type, opset);
        // An operator that has not changed since means the same in an older set.
        let first = opsets::version(domain, op_type, *known.start());
        let unchanged = opset < *known.start() && version == first && matches!(first, opsets::Version::Since(_));
        if !known.contains(&opset) && !unchanged {
            let what = format!("{shown} {opset} ({} to {} are known)", known.start(), known.end());
            self.report.add(MissingKind::Opset, domain, opset, &what, node);
            return Ok(opset);
        }
        match version {
            opsets::Version::Since(version) => return Ok(version),
            opsets::Version::Unknown => self.unknown.add(MissingKind::Op, domain, opset, op_type, node),
            opsets::Version::Removed(version) => {
                let what = format!("{op_type} (removed in opset {version})");
                self.report.add(MissingKind::Op, domain, opset, &what, node);
            }
            opsets::Version::Later(version) => {
                let what = format!("{op_type} (new in opset {version})");
                self.report.add(MissingKind::Op, domain, opset, &what, node);
            }
        }
        Ok(opset)
    }
}

/// The default domain has two spellings.
fn normal(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn imported(imports: &[OperatorSetIdProto]) -> Result<Opsets<'_>, OnnxError> {
    let mut opsets = Opsets::with_capacity(imports.len());
    for import in imports {
        let (domain, version) = (normal(import.domain()), import.version());
        if opsets.insert(domain, version).is_some_and(|earlier| earlier != version) {
            return Err(OnnxError::invalid(format!("domain `{domain}`"), "is imported in two versions"));
        }
    }
    Ok(opsets)
}

#[cfg(test)]
mod robustness;
#[cfg(test)]
mod tests;
