//! From a module to an ONNX model.
//!
//! ```text
//!  Module --> expand (core ops that ONNX lacks, in others) --> writer (names, nodes, subgraphs) --> ModelProto --> file
//! ```
//!
//! In: a module of core ops, after any stage; fusions are opened. Out: a model of one graph that is the entry function:
//! its inputs and outputs under their names, parameters as initializers under theirs, a node's name its op's origin
//! (numbered where several share it) with the source line where the importer looks for it. The model means what the
//! [reference evaluator](mod@crate::reference) says of the module. What can't be said is refused in one report.
//!
//! - [`expand`](self::expand): module to module; every corner that ONNX leaves open is settled there.
//! - `writer`: frames, names, constants; `ops`: the table of how each op is written, with `movement`, `contraction`,
//!   `control`; `spread`: broadcasts; `extents`: what is known of shapes at run time only; `types`; `error`.
//!
//! Where runtimes depart from the evaluator although the model says the same (ONNX Runtime 1.32 on a CPU): NaN in
//! `ReduceMin`, `ReduceMax`, `MaxPool`, `ArgMin`, `ArgMax` and `TopK` is passed over; `Where` makes -0 a 0; which zero `Min`
//! and `Max` give is open; integer sums and products over axes go through f64; casts of floats outside an integer's range
//! are open; `Atan`, `Asin`, `Acos`, `Erf`, `Conv` have no f64 kernels. The order of sums is the runtime's.
//!
//! Facts of symbols, numerics, donations, which parameters are trained, and functions that the entry does not call have
//! no place in a model.
//!
//! Same module, same bytes: nothing here depends on addresses or on hashes.

mod contraction;
mod control;
mod error;
mod expand;
mod extents;
mod movement;
mod ops;
mod spread;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use prost::Message;

use super::proto::{DataLocation, GraphProto, ModelProto, StringStringEntryProto};
use crate::graph::Function;
use crate::module::Module;
use crate::op::Op;
use crate::types::{Dim, Symbol, ValueType};
pub use error::{ExportError, Refusals};
use writer::{Frame, Known, Writer, internal};

/// Versions of the default domain that can be written.
pub const EXPORT_OPSETS: std::ops::RangeInclusive<i64> = 18..=26;

/// The version that is written when nothing needs a newer one: what most runtimes have.
pub const DEFAULT_OPSET: i64 = 21;

/// Domain of model-local functions.
const DOMAIN: &str = "frit";

/// Bytes that one protobuf file may have.
const FILE_LIMIT: usize = (2 << 30) - 1;

/// Weights of at least this many bytes go to the second file, where there is one.
const EXTERNAL_LEAST: usize = 1024;

/// Where each weight starts in the second file, so that it can be mapped.
const ALIGNMENT: u64 = 4096;

/// What to write, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Version of the default operator domain; `None`: [`DEFAULT_OPSET`], or the first that has all that is needed.
    pub opset: Option<i64>,
    /// The function that becomes the graph; `None`: the module's entry.
    pub function: Option<String>,
    /// Composites and called functions as model-local functions; else their ops stand in the graph.
    pub functions: bool,
    /// [`write_file`] puts weights in a second file when the model would take more bytes than this.
    pub external_above: usize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions { opset: None, function: None, functions: true, external_above: 1 << 30 }
    }
}

/// The model of a function of the module, complete in itself.
///
/// # Errors
/// [`ExportError::Unsupported`] lists everything that ONNX can't express.
pub fn export(module: &Module, options: &ExportOptions) -> Result<ModelProto, ExportError> {
    let opset = options.opset.unwrap_or(DEFAULT_OPSET);
    if !EXPORT_OPSETS.contains(&opset) {
        return Err(ExportError::Opset { opset, known: EXPORT_OPSETS });
    }
    crate::verify::verify(module)?;
    let function = match &options.function {
        Some(name) => module.functions.get(name),
        None => module.entry(),
    };
    let missing = || ExportError::NoFunction { name: options.function.clone().unwrap_or_else(|| "infer".to_owned()) };
    let expanded = expand::expand(module, function.ok_or_else(missing)?)?;
    let mut writer = Writer::new(module, options, opset);
    let written = model(&mut writer, &expanded);
    // Only here and there a newer version is needed: all is written in it.
    if options.opset.is_none() && writer.needed > opset && EXPORT_OPSETS.contains(&writer.needed) {
        let mut writer = Writer::new(module, options, writer.needed);
        return model(&mut writer, &expanded);
    }
    written
}

fn model(writer: &mut Writer<'_>, f: &Function) -> Result<ModelProto, ExportError> {
    let graph = graph(writer, f)?;
    if !writer.refused.is_empty() {
        return Err(writer.unsupported());
    }
    Ok(ModelProto {
        ir_version: Some(ir_version(writer.opset)),
        producer_name: Some("frit".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        opset_import: writer.opsets(!writer.functions.written.is_empty()),
        graph: Some(graph),
        functions: std::mem::take(&mut writer.functions.written),
        ..ModelProto::default()
    })
}

/// The bytes of a model file.
///
/// # Errors
/// As [`export`]; [`ExportError::TooLarge`] past what protobuf allows.
pub fn export_bytes(module: &Module, options: &ExportOptions) -> Result<Vec<u8>, ExportError> {
    let model = export(module, options)?;
    let bytes = model.encoded_len();
    if bytes > FILE_LIMIT {
        return Err(ExportError::TooLarge { bytes, limit: FILE_LIMIT });
    }
    Ok(model.encode_to_vec())
}

/// Writes a model file; a large model's weights go to a file beside it, named like it with `.data` appended.
///
/// # Errors
/// As [`export_bytes`]; what the system refuses.
pub fn write_file(module: &Module, options: &ExportOptions, path: &Path) -> Result<(), ExportError> {
    write_message(export(module, options)?, options.external_above, path)
}

/// [`write_file`] of a model that is a message already.
pub(super) fn write_message(mut model: ModelProto, external_above: usize, path: &Path) -> Result<(), ExportError> {
    if model.encoded_len() > external_above.min(FILE_LIMIT) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default() + ".data";
        externalize(&mut model, &name, &path.with_file_name(&name))?;
    }
    let bytes = model.encoded_len();
    if bytes > FILE_LIMIT {
        return Err(ExportError::TooLarge { bytes, limit: FILE_LIMIT });
    }
    std::fs::write(path, model.encode_to_vec()).map_err(|source| ExportError::Io { path: path.to_owned(), source })
}

/// Moves the larger initializers to the file `data`, called `location` from the model's folder.
fn externalize(model: &mut ModelProto, location: &str, data: &Path) -> Result<(), ExportError> {
    let io = |source| ExportError::Io { path: data.to_owned(), source };
    let mut file = std::io::BufWriter::new(std::fs::File::create(data).map_err(io)?);
    let mut offset = 0u64;
    let initializers = model.graph.iter_mut().flat_map(|g| &mut g.initializer);
    for tensor in initializers.filter(|t| t.raw_data.as_ref().is_some_and(|d| d.len() >= EXTERNAL_LEAST)) {
        let bytes = tensor.raw_data.take().unwrap_or_default();
        let padding = offset.next_multiple_of(ALIGNMENT) - offset;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), padding), &mut file).map_err(io)?;
        file.write_all(&bytes).map_err(io)?;
        offset += padding;
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation::External as i32);
        offset += bytes.len() as u64;
    }
    file.flush().map_err(io)
}

/// The file format that came with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

/// The main graph.
fn graph(writer: &mut Writer<'_>, f: &Function) -> Result<GraphProto, ExportError> {
    let mut named: HashSet<Symbol> = HashSet::new();
    for value in f.input_values() {
        let dims = f.ty(value).tensor().map_or(&[][..], |t| &t.dims);
        named.extend(dims.iter().filter_map(Dim::as_symbol).cloned());
    }
    let mut frame = Frame::new(f, Known::default(), named);
    let mut input = Vec::with_capacity(f.inputs().len());
    for value in f.input_values() {
        let Op::Input { name, ty } = f.op(value) else { return Err(internal("an input that is another op")) };
        let name = writer.body.names.fresh(name);
        if !portable(ty) {
            writer.refused.add(format!("an input of type {ty}"), &name);
        }
        if let ValueType::Tensor(t) = ty {
            frame.at = f.node(value.node).origin.clone();
            writer.check_type(&frame, t.dtype);
        }
        input.push(types::value_info(&name, ty, &frame.named));
        frame.bind(value, &name);
    }
    // Names of outputs are theirs before any value in between could take them.
    let mut names = Vec::with_capacity(f.outputs().len());
    for output in f.outputs() {
        let passed = matches!(frame.values.get(&output.value), Some(writer::Held::Is(n)) if *n == output.name);
        let name = if passed { output.name.clone() } else { writer.body.names.fresh(&output.name) };
        if name != output.name {
            writer.refused.add("an output with the name of another value", &output.name);
        }
        if !passed {
            frame.wanted.entry(output.value).or_insert_with(|| name.clone());
        }
        names.push(name);
    }
    writer.ops(&mut frame)?;
    let mut output = Vec::with_capacity(names.len());
    for (name, of) in names.iter().zip(f.outputs()) {
        let held = writer.name(&mut frame, of.value)?;
        if held != *name {
            frame.at = f.node(of.value.node).origin.clone();
            writer.copy(&frame, &held, name);
        }
        let ty = f.ty(of.value);
        if !portable(ty) {
            writer.refused.add(format!("an output of type {ty}"), name);
        }
        output.push(types::value_info(name, ty, &frame.named));
    }
    let (node, initializer) = (std::mem::take(&mut writer.body.nodes), std::mem::take(&mut writer.body.stored));
    let name = Some(if f.name.is_empty() { "graph".to_owned() } else { f.name.clone() });
    Ok(GraphProto { node, name, initializer, input, output, ..GraphProto::default() })
}

/// Whether ONNX's value types nest like this: sequences and optionals of tensors.
fn portable(ty: &ValueType) -> bool {
    match ty {
        ValueType::Tensor(_) => true,
        ValueType::Sequence(e) | ValueType::Optional(e) => !matches!(**e, ValueType::Unknown) && portable(e),
        ValueType::Map(_, e) => portable(e),
        ValueType::Unknown => false,
    }
}
