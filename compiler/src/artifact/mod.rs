//! `.fritc`: a compiled model in one file, and the module that it came from.
//!
//! ```text
//!  magic, ABI version, hash of what follows
//!  sections (kind, offset, length):
//!    target    architecture, system and CPU features that the code may use
//!    plan      programs, kernels, names of constants; see `plan`
//!    code      machine code
//!    tensors   a table of element type, shape, place; weights of plan and module, each once
//!    data      their bytes, each aligned to 64: mapped, not read
//!    module    the module as .frit text, and which tensors it names
//! ```
//!
//! The hash finds damage, not malice: code of a file runs only when the caller trusts where it came from. Whatever the
//! bytes, reading gives an artifact or an error; nothing is allocated because a file claims to need it.

mod codec;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frit_ir::text::{ConstantPool, ConstantSource, PrintOptions, TextError, from_text, map_file, print};
use frit_ir::{DType, Module, Tensor, TensorType};
use memmap2::Mmap;

use crate::cpu::abi::ABI_VERSION;
use crate::plan::{Constant, Guard, Plan};
use codec::{Codec, Reader};

/// First bytes of every artifact: the word, and [`VERSION`] as a digit or a letter.
const MAGIC: &[u8; 8] = b"fritc 5\n";
/// Where the version stands in [`MAGIC`].
const VERSION_AT: usize = 6;
/// Version of the layout: of sections, and of what a plan may hold. A new step, library call or field is a new version.
const VERSION: char = MAGIC[VERSION_AT] as char;
const ALIGN: usize = 64;
/// magic, ABI version, number of sections, hash.
const HEADER: usize = 24;
const ENTRY: usize = 20;

/// Why a file can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not an artifact.
    #[error("not a compiled model of this format; compile the model again")]
    Magic,
    /// Of an earlier or later frit.
    #[error("a compiled model of format version {found}, this frit reads version {VERSION}; compile the model again")]
    Version {
        /// What it says.
        found: char,
    },
    /// Cut off or changed.
    #[error("damaged: {0}; compile the model again")]
    Damaged(String),
    /// The text of its module can't be read.
    #[error("its module: {0}")]
    Module(#[from] TextError),
}

/// A compiled model as a file holds it.
#[derive(Debug)]
pub struct Artifact {
    /// The plan, its code included.
    pub plan: Plan,
    /// The machine that the code is for.
    pub target: Target,
    /// The version of the calling convention that the code keeps.
    pub abi: u32,
    module_text: String,
    module_tensors: Vec<(String, usize)>,
    tensors: Vec<Tensor>,
}

/// A machine, as far as code depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Architecture and system.
    pub name: String,
    /// Extensions of the instruction set.
    pub features: Vec<String>,
}

impl Target {
    /// This machine.
    pub fn host() -> Target {
        let name = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        Target { name, features: features().into_iter().map(str::to_owned).collect() }
    }

    /// Why code for this target does not run on the machine at hand; `None` when it does.
    pub fn mismatch(&self) -> Option<String> {
        let host = Target::host();
        if host.name != self.name {
            return Some(format!("it was compiled for {}, this is {}", self.name, host.name));
        }
        let missing: Vec<&str> =
            self.features.iter().filter(|f| !host.features.contains(f)).map(String::as_str).collect();
        (!missing.is_empty()).then(|| format!("this CPU has no {}", missing.join(", ")))
    }
}

/// Extensions that the code generator may use and this CPU has.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => {
            [$( ($name, is_x86_feature_detected!($name)) ),*].into_iter().filter(|(_, has)| *has).map(|(n, _)| n).collect()
        };
    }
    detected!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "lzcnt" "f16c" "avx512f"
        "avx512bw" "avx512dq" "avx512vl" "avx512vbmi" "avx512bitalg")
}

/// The baseline of other architectures is all that is used.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Section {
    Target = 1,
    Plan = 2,
    Code = 3,
    Tensors = 4,
    Data = 5,
    Module = 6,
}

const SECTIONS: [Section; 6] =
    [Section::Target, Section::Plan, Section::Code, Section::Tensors, Section::Data, Section::Module];

/// FNV-1a over eight bytes at a time (the last padded with zeros).
fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

/// Tensors, each once.
#[derive(Default)]
struct Pool {
    table: Vec<u8>,
    count: usize,
    data: Vec<u8>,
    known: HashMap<(usize, usize, DType, Vec<usize>), usize>,
}

impl Pool {
    fn add(&mut self, tensor: &Tensor) -> usize {
        let bytes = tensor.bytes();
        let key = (bytes.as_ptr().addr(), bytes.len(), tensor.dtype(), tensor.shape().to_vec());
        if let Some(index) = self.known.get(&key).filter(|_| !bytes.is_empty()) {
            return *index;
        }
        tensor.dtype().write(&mut self.table);
        tensor.shape().to_vec().write(&mut self.table);
        self.data.resize(self.data.len().next_multiple_of(ALIGN), 0);
        self.data.len().write(&mut self.table);
        tensor.strings().unwrap_or(&[]).to_vec().write(&mut self.table);
        self.data.extend(bytes);
        self.known.insert(key, self.count);
        self.count += 1;
        self.count - 1
    }
}

/// The bytes of an artifact: a plan, and the module that it came from.
pub fn to_bytes(plan: &Plan, module: &Module) -> Vec<u8> {
    let mut pool = Pool::default();
    let constants: Vec<(String, usize)> = plan.constants.iter().map(|c| (c.name.clone(), pool.add(&c.value))).collect();
    let mut tensors_of_module = ConstantPool::default();
    let options = PrintOptions { used_params: true, ..PrintOptions::default() };
    let text = print(module, &options, &mut tensors_of_module);
    let named: Vec<(String, usize)> = tensors_of_module.iter().map(|(n, t)| (n.to_owned(), pool.add(t))).collect();

    let mut body: [Vec<u8>; 6] = Default::default();
    let [target, plan_bytes, code, tensors, data, module_bytes] = &mut body;
    let host = Target::host();
    (host.name, host.features).write(target);
    plan.source.write(plan_bytes);
    constants.write(plan_bytes);
    plan.programs.write(plan_bytes);
    plan.entries.write(plan_bytes);
    plan.preparation.write(plan_bytes);
    plan.kernels.write(plan_bytes);
    code.extend(&plan.code);
    pool.count.write(tensors);
    tensors.extend(&pool.table);
    *data = pool.data;
    text.write(module_bytes);
    named.write(module_bytes);

    let mut offset = (HEADER + SECTIONS.len() * ENTRY).next_multiple_of(ALIGN);
    let mut rest: Vec<u8> = Vec::new();
    for (section, bytes) in SECTIONS.iter().zip(&body) {
        (*section as u32).write(&mut rest);
        offset.write(&mut rest);
        bytes.len().write(&mut rest);
        offset = (offset + bytes.len()).next_multiple_of(ALIGN);
    }
    for bytes in &body {
        rest.resize((HEADER + rest.len()).next_multiple_of(ALIGN) - HEADER, 0);
        rest.extend(bytes);
    }
    let mut out = MAGIC.to_vec();
    ABI_VERSION.write(&mut out);
    (SECTIONS.len() as u32).write(&mut out);
    hash(&rest).write(&mut out);
    out.extend(rest);
    out
}

/// Writes an artifact: under another name first, then moved, so that a file which is mapped stays whole.
///
/// # Errors
/// What the system refuses.
pub fn write_file(plan: &Plan, module: &Module, path: &Path) -> Result<(), ArtifactError> {
    let io = |source| ArtifactError::Io { path: path.to_owned(), source };
    let temporary = path.with_extension(format!("fritc.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| file.write_all(&to_bytes(plan, module)));
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        // What is left of the attempt is of no use; whether it can be removed changes nothing.
        let _ = std::fs::remove_file(&temporary);
        io(source)
    })
}

/// Maps and reads an artifact. Its weights stay in the file until they are used.
///
/// # Errors
/// A file that can't be read, or is no whole artifact.
pub fn read_file(path: &Path) -> Result<Artifact, ArtifactError> {
    let map = map_file(path).map_err(|source| ArtifactError::Io { path: path.to_owned(), source })?;
    from_map(&Arc::new(map))
}

/// Reads an artifact from mapped memory.
///
/// # Errors
/// As [`read_file`].
pub fn from_map(map: &Arc<Mmap>) -> Result<Artifact, ArtifactError> {
    let mut header = Reader::new(map);
    check_magic(header.take(MAGIC.len()).unwrap_or(&[]))?;
    let (abi, count, stated) = (u32::read(&mut header)?, u32::read(&mut header)?, u64::read(&mut header)?);
    let rest = map.get(HEADER..).unwrap_or(&[]);
    if hash(rest) != stated {
        return Err(ArtifactError::Damaged("the file is not what was written".to_owned()));
    }
    let mut places: HashMap<u32, (usize, usize)> = HashMap::new();
    for _ in 0..count {
        let (kind, offset, len) = (u32::read(&mut header)?, usize::read(&mut header)?, usize::read(&mut header)?);
        places.insert(kind, (offset, len));
    }
    let section = |section: Section| -> Result<(usize, &[u8]), ArtifactError> {
        let place = places.get(&(section as u32)).copied();
        let bytes = place.and_then(|(offset, len)| Some((offset, map.get(offset..offset.checked_add(len)?)?)));
        bytes.ok_or_else(|| ArtifactError::Damaged("a section is missing".to_owned()))
    };
    let (name, features) = Codec::read(&mut Reader::new(section(Section::Target)?.1))?;
    let tensors = read_tensors(map, section(Section::Tensors)?.1, section(Section::Data)?)?;

    let mut reader = Reader::new(section(Section::Plan)?.1);
    let source = String::read(&mut reader)?;
    let constants: Vec<(String, usize)> = Codec::read(&mut reader)?;
    let constants: Option<Vec<Constant>> =
        constants.into_iter().map(|(name, i)| Some(Constant { name, value: tensors.get(i)?.clone() })).collect();
    let constants = constants.ok_or_else(|| ArtifactError::Damaged("a constant is missing".to_owned()))?;
    let (programs, entries) = (Codec::read(&mut reader)?, Codec::read(&mut reader)?);
    let (preparation, kernels) = (Codec::read(&mut reader)?, Codec::read(&mut reader)?);
    if !reader.is_empty() {
        return Err(ArtifactError::Damaged("the plan has more bytes than it takes".to_owned()));
    }
    let code = section(Section::Code)?.1.to_vec();
    let plan = Plan { programs, entries, preparation, kernels, code, constants, source };
    let mut reader = Reader::new(section(Section::Module)?.1);
    let (module_text, module_tensors) = (Codec::read(&mut reader)?, Codec::read(&mut reader)?);
    Ok(Artifact { plan, target: Target { name, features }, abi, module_text, module_tensors, tensors })
}

/// Another version is told apart from what is no artifact at all.
fn check_magic(found: &[u8]) -> Result<(), ArtifactError> {
    if found == MAGIC {
        return Ok(());
    }
    let version = found.get(VERSION_AT).map(|b| char::from(*b)).filter(char::is_ascii_alphanumeric);
    let is_ours = |at: usize| at == VERSION_AT || found.get(at) == MAGIC.get(at);
    match version {
        Some(found) if (0..MAGIC.len()).all(is_ours) => Err(ArtifactError::Version { found }),
        _ => Err(ArtifactError::Magic),
    }
}

fn read_tensors(map: &Arc<Mmap>, table: &[u8], data: (usize, &[u8])) -> Result<Vec<Tensor>, ArtifactError> {
    let mut reader = Reader::new(table);
    let count = usize::read(&mut reader)?;
    let mut tensors = Vec::new();
    let refused = |e: frit_ir::TensorError| ArtifactError::Damaged(format!("a tensor: {e}"));
    for _ in 0..count {
        let dtype = DType::read(&mut reader)?;
        let shape: Vec<usize> = Codec::read(&mut reader)?;
        let at = usize::read(&mut reader)?;
        let strings: Vec<String> = Codec::read(&mut reader)?;
        if dtype == DType::Str {
            tensors.push(Tensor::from_strings(&shape, strings).map_err(refused)?);
            continue;
        }
        let offset = data.0.checked_add(at).filter(|_| at <= data.1.len());
        let offset = offset.ok_or_else(|| ArtifactError::Damaged("a tensor lies outside".to_owned()))?;
        tensors.push(Tensor::from_map(dtype, &shape, Arc::clone(map), offset).map_err(refused)?);
    }
    Ok(tensors)
}

impl Artifact {
    /// Why the code does not run here; `None` when it does.
    pub fn mismatch(&self) -> Option<String> {
        if self.abi != ABI_VERSION {
            return Some(format!("it keeps version {} of the calling convention, this is {ABI_VERSION}", self.abi));
        }
        self.target.mismatch()
    }

    /// Inputs that the plan was specialised for, with the values that a run must give them.
    pub fn fixed_inputs(&self) -> HashMap<String, Tensor> {
        let mut fixed = HashMap::new();
        for program in self.plan.entries.iter().filter_map(|(_, id)| self.plan.programs.get(id.index())) {
            for guard in &program.guards {
                let Guard::Value { input, constant } = guard else { continue };
                let port = program.inputs.get(*input as usize);
                if let (Some(port), Some(constant)) = (port, self.plan.constants.get(constant.index())) {
                    fixed.insert(port.name.clone(), constant.value.clone());
                }
            }
        }
        fixed
    }

    /// The module that the plan came from: what any other machine compiles again.
    ///
    /// # Errors
    /// A text that can't be read.
    pub fn module(&self) -> Result<Module, ArtifactError> {
        Ok(from_text(&self.module_text, self)?)
    }
}

impl ConstantSource for Artifact {
    fn constant(&self, _: Option<&str>, name: &str, ty: &TensorType) -> Result<Tensor, String> {
        let index = self.module_tensors.iter().find(|(known, _)| known == name).map(|(_, i)| *i);
        let tensor = index.and_then(|i| self.tensors.get(i)).ok_or_else(|| format!("there is no tensor \"{name}\""))?;
        if tensor.ty() == *ty { Ok(tensor.clone()) } else { Err(format!("tensor \"{name}\" is {}", tensor.ty())) }
    }
}
