//! A model file with other weights: what was trained goes back where it came from.
//!
//! In: the file that was imported to be trained, and values of its parameters by name. Out: the same model, node for
//! node, with these values in the initializers of the main graph that have the names. Names, opset, metadata and all
//! else stay; initializers that [`trainable`](super::trainable) took apart stay apart. Data that lay beside the file is
//! part of the new one, or lies beside that.

use std::path::Path;

use indexmap::IndexMap;

use super::error::OnnxError;
use super::export::{ExportError, ExportOptions, write_message};
use super::import::{decode, file_bytes};
use super::proto::{DataLocation, GraphProto, ModelProto, NodeProto, TensorProto};
use super::tensor::{TensorReader, to_proto};
use super::trainable::prepare;
use crate::tensor::Tensor;

/// Why a model was not written again.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The file is not what it was when it was imported.
    #[error(transparent)]
    Read(#[from] OnnxError),
    /// The model has no such parameter.
    #[error("the model has no initializer `{name}`")]
    Missing {
        /// The parameter.
        name: String,
    },
    /// The model's is of another type.
    #[error("`{name}` is {found}, the model's is {expected}")]
    Type {
        /// The parameter.
        name: String,
        /// Its type in the model.
        expected: String,
        /// The type of its value.
        found: String,
    },
    /// The new file can't be written.
    #[error(transparent)]
    Write(#[from] ExportError),
}

/// Writes the model at `source` to `path` with other values.
///
/// # Errors
/// What importing it would give; a value that the model has no place for; what the system refuses.
pub fn write_with_values(source: &Path, values: &IndexMap<String, Tensor>, path: &Path) -> Result<(), RewriteError> {
    let mut model = decode(file_bytes(source)?)?;
    let mut reader = TensorReader::new(source.parent());
    prepare(&mut model, &mut reader);
    set(&mut model, values, &mut reader)?;
    embed(&mut model, &mut reader)?;
    Ok(write_message(model, ExportOptions::default().external_above, path)?)
}

/// Puts the values into their initializers.
fn set(
    model: &mut ModelProto,
    values: &IndexMap<String, Tensor>,
    reader: &mut TensorReader,
) -> Result<(), RewriteError> {
    let mut left: IndexMap<&String, &Tensor> = values.iter().collect();
    for tensor in model.graph.iter_mut().flat_map(|g| &mut g.initializer) {
        let Some((name, value)) = left.shift_remove_entry(&tensor.name().to_owned()) else { continue };
        let expected = reader.read(tensor)?.ty();
        if expected != value.ty() {
            let (expected, found) = (expected.to_string(), value.ty().to_string());
            return Err(RewriteError::Type { name: name.clone(), expected, found });
        }
        replace(tensor, value);
    }
    match left.first() {
        Some((name, _)) => Err(RewriteError::Missing { name: (*name).clone() }),
        None => Ok(()),
    }
}

/// Other data for a tensor; its name and what is noted about it stay.
fn replace(tensor: &mut TensorProto, value: &Tensor) {
    let mut new = to_proto(tensor.name(), value);
    new.doc_string = tensor.doc_string.take();
    new.metadata_props = std::mem::take(&mut tensor.metadata_props);
    *tensor = new;
}

/// Takes all data from other files into the message.
fn embed(model: &mut ModelProto, reader: &mut TensorReader) -> Result<(), OnnxError> {
    let mut nodes = model.functions.iter_mut().flat_map(|f| &mut f.node);
    nodes.try_for_each(|node| embed_node(node, reader))?;
    model.graph.iter_mut().try_for_each(|graph| embed_graph(graph, reader))
}

fn embed_graph(graph: &mut GraphProto, reader: &mut TensorReader) -> Result<(), OnnxError> {
    graph.initializer.iter_mut().try_for_each(|t| embed_tensor(t, reader))?;
    for sparse in &mut graph.sparse_initializer {
        let parts = sparse.values.iter_mut().chain(&mut sparse.indices);
        parts.into_iter().try_for_each(|t| embed_tensor(t, reader))?;
    }
    graph.node.iter_mut().try_for_each(|node| embed_node(node, reader))
}

/// Decoding bounds how deep graphs lie in one another.
fn embed_node(node: &mut NodeProto, reader: &mut TensorReader) -> Result<(), OnnxError> {
    for attribute in &mut node.attribute {
        let tensors = attribute.t.iter_mut().chain(&mut attribute.tensors);
        tensors.into_iter().try_for_each(|t| embed_tensor(t, reader))?;
        let graphs = attribute.g.iter_mut().chain(&mut attribute.graphs);
        graphs.into_iter().try_for_each(|g| embed_graph(g, reader))?;
    }
    Ok(())
}

fn embed_tensor(tensor: &mut TensorProto, reader: &mut TensorReader) -> Result<(), OnnxError> {
    if tensor.data_location == Some(DataLocation::External as i32) {
        let value = reader.read(tensor)?;
        replace(tensor, &value);
    }
    Ok(())
}
