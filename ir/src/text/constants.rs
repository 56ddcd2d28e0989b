//! Tensors that a text names: collected while printing, kept in a safetensors file, found again while reading.
//!
//! A [`ConstantPool`] collects them. Several texts may share one pool and one file: equal bytes that are shared in
//! memory are stored once. The text states element type and shape of each; the file's own must agree. Element types
//! that safetensors lacks take one byte each and are stored as U8.
//!
//! Files are memory-mapped: a tensor is a view, read when used.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, View};

use super::error::TextError;
use crate::map::map_file;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Where the tensors that a text names are found.
pub trait ConstantSource {
    /// The tensor `name` of `file` (as the text's header says), which must have that type. The error is a phrase.
    fn constant(&self, file: Option<&str>, name: &str, ty: &TensorType) -> Result<Tensor, String>;
}

/// A source that holds nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConstants;

impl ConstantSource for NoConstants {
    fn constant(&self, _: Option<&str>, name: &str, _: &TensorType) -> Result<Tensor, String> {
        Err(format!("no constants file to find \"{name}\" in"))
    }
}

/// Tensors by name, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct ConstantPool {
    tensors: IndexMap<String, Tensor>,
    /// Names by (address, bytes, type): clones of a tensor share their bytes, and the pool keeps them alive.
    known: HashMap<(usize, usize, TensorType), String>,
}

impl ConstantPool {
    /// The name under which a tensor is stored; `wanted` unless that name holds something else.
    pub fn add(&mut self, wanted: &str, tensor: &Tensor) -> String {
        let key = (tensor.bytes().as_ptr().addr(), tensor.bytes().len(), tensor.ty());
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let mut name = wanted.to_owned();
        let mut suffix = 1;
        while let Some(there) = self.tensors.get(&name) {
            if there == tensor {
                return name;
            }
            suffix += 1;
            name = format!("{wanted}#{suffix}");
        }
        self.known.insert(key, name.clone());
        self.tensors.insert(name.clone(), tensor.clone());
        name
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Names and tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Writes all as a safetensors file: under another name first, then moved, so that a file which is mapped by one
    /// of the tensors stays whole.
    pub fn write(&self, path: &Path) -> Result<(), TextError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let views = self.tensors.iter().map(|(name, tensor)| (name.as_str(), Stored(tensor)));
        safetensors::serialize_to_file(views, None, &partial).map_err(|e| TextError::file(&partial, e))?;
        std::fs::rename(&partial, path).map_err(|e| TextError::file(path, e))
    }
}

impl ConstantSource for ConstantPool {
    fn constant(&self, _: Option<&str>, name: &str, ty: &TensorType) -> Result<Tensor, String> {
        let tensor = self.tensors.get(name).ok_or_else(|| format!("no constant \"{name}\""))?;
        if tensor.ty() == *ty { Ok(tensor.clone()) } else { Err(format!("\"{name}\" is {}, not {ty}", tensor.ty())) }
    }
}

impl FromIterator<(String, Tensor)> for ConstantPool {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(items: I) -> Self {
        ConstantPool { tensors: items.into_iter().collect(), known: HashMap::new() }
    }
}

/// A tensor as safetensors writes it.
struct Stored<'t>(&'t Tensor);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        stored_dtype(self.0.dtype())
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.0.bytes().into()
    }
    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

/// How safetensors stores an element type. Strings never get there: they stand in the text.
fn stored_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I8 => Dtype::I8,
        DType::I16 => Dtype::I16,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::U16 => Dtype::U16,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::Bool => Dtype::BOOL,
        DType::U8
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::Str => Dtype::U8,
    }
}

/// One mapped file.
struct Mapped {
    map: Arc<memmap2::Mmap>,
    metadata: Metadata,
    /// Where the data starts.
    base: usize,
}

/// The safetensors files of one folder, opened when first named.
pub struct FolderConstants {
    folder: PathBuf,
    files: RefCell<HashMap<String, Arc<Mapped>>>,
}

impl FolderConstants {
    /// The files beside a text.
    pub fn new(folder: &Path) -> Self {
        FolderConstants { folder: folder.to_owned(), files: RefCell::new(HashMap::new()) }
    }

    fn open(&self, file: &str) -> Result<Arc<Mapped>, String> {
        if let Some(mapped) = self.files.borrow().get(file) {
            return Ok(mapped.clone());
        }
        // A text may come from anyone: it names files of its own folder only.
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            return Err(format!("the constants file \"{}\" must be a plain file name", file.escape_debug()));
        }
        let path = self.folder.join(file);
        let map = map_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| format!("{} is no safetensors file: {e}", path.display()))?;
        let base = header.checked_add(8).ok_or("the header is too large")?;
        let mapped = Arc::new(Mapped { map: Arc::new(map), metadata, base });
        self.files.borrow_mut().insert(file.to_owned(), mapped.clone());
        Ok(mapped)
    }
}

impl ConstantSource for FolderConstants {
    fn constant(&self, file: Option<&str>, name: &str, ty: &TensorType) -> Result<Tensor, String> {
        let file = file.ok_or("the text's header names no constants file (`constants \"FILE.safetensors\"`)")?;
        let mapped = self.open(file)?;
        let info = mapped.metadata.info(name).ok_or_else(|| format!("\"{file}\" has no tensor \"{name}\""))?;
        let shape = ty.known_dims().unwrap_or_default();
        if info.dtype != stored_dtype(ty.dtype) || info.shape != shape {
            return Err(format!("\"{name}\" of \"{file}\" is {:?}{:?}, the text says {ty}", info.dtype, info.shape));
        }
        let start = mapped.base.checked_add(info.data_offsets.0).ok_or("the offset is too large")?;
        Tensor::from_map(ty.dtype, &shape, mapped.map.clone(), start).map_err(|e| e.to_string())
    }
}
