//! State and position of a run as a .safetensors file.
//!
//! In and out: a [`Checkpoint`]. Its tensors are the stepper's state under its names; all else is JSON under the key
//! `frit` of the file's metadata, so that other programs read the parameters and frit reads the rest. A file is nothing
//! that anybody vouches for: what is missing, damaged, of another version, or of another run is an error that says so.

use std::path::Path;

use frit_ir::{DType, Module, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::metrics::{EpochRecord, Sums};
use super::stepper::OPTIMIZER_PREFIX;
use super::{Rates, State};
use crate::data::dataset::batches::SHUFFLE_STREAM;
use crate::session::TensorView;

/// Version of what the metadata holds.
pub const FORMAT: u32 = 1;

/// Key of the file's metadata.
const KEY: &str = "frit";

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Cut off or damaged.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A .safetensors file that frit's training did not write.
    #[error("{path}: no checkpoint of frit: its metadata has no `frit`")]
    Foreign {
        /// The file.
        path: String,
    },
    /// Of another version.
    #[error("{path}: a checkpoint of version {found}; this frit reads version {FORMAT}")]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
    },
    /// Of a run with other settings or data.
    #[error("{path}: of a run with other {what}")]
    OtherRun {
        /// The file.
        path: String,
        /// What differs.
        what: &'static str,
    },
    /// Its tensors are not those of the network and its optimiser.
    #[error("{path}: tensor `{name}`: {reason}")]
    State {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// An element type that the format does not have.
    #[error("tensor `{name}` is {dtype}: .safetensors files have no such type")]
    Unstorable {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// What can't be: a bug.
    #[error("a checkpoint can't be written: {0}")]
    Internal(String),
}

impl CheckpointError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            CheckpointError::Io { .. } => "check that the folder is a run's (--out of `frit train`)",
            CheckpointError::Damaged { .. } => "begin anew with another --out; best.safetensors may still be whole",
            CheckpointError::Foreign { .. } => "--resume takes the folder that `frit train --out` wrote",
            CheckpointError::Version { .. } => "go on with the frit that wrote it, or begin anew",
            CheckpointError::OtherRun { .. } => {
                "leave out flags that change the run, or begin anew with another --out folder"
            }
            CheckpointError::State { .. } => "the checkpoint is of another network or optimiser: begin anew",
            CheckpointError::Unstorable { .. } => "cast that parameter to a plain type in the model",
            CheckpointError::Internal(_) => "this is a bug in frit: please report it",
        }
    }
}

/// The best result so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Counted from 1.
    pub epoch: u32,
    /// Validation accuracy; of values, validation loss.
    pub metric: f64,
}

/// Where a run is, and what it has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epochs done.
    pub epoch: u32,
    /// Batches done of the next one.
    pub batch: u64,
    /// Steps done.
    pub step: u64,
    /// The next epoch so far.
    pub sums: Sums,
    /// The best result so far.
    pub best: Option<Best>,
    /// Epochs since then.
    pub stale: u32,
    /// Seconds of all parts of the run.
    pub seconds: f64,
    /// Every epoch that is done.
    pub history: Vec<EpochRecord>,
}

/// Random numbers of the run: the order of an epoch begins at this block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Random {
    generator: String,
    seed: u64,
    stream: u64,
    epoch: u32,
}

/// What the metadata holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    config_hash: u64,
    data_hash: u64,
    random: Random,
    learning_rate: f64,
    momentum: Option<f64>,
    position: Position,
}

/// State and position of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// [`Config::hash`](super::Config::hash) of the run.
    pub config_hash: u64,
    /// [`TrainingData::fingerprint`](crate::data::dataset::TrainingData::fingerprint) of its data.
    pub data_hash: u64,
    /// Its seed.
    pub seed: u64,
    /// What its schedule gives for the next step.
    pub rates: Rates,
    /// Where it is.
    pub position: Position,
    /// Parameters, buffers, moments.
    pub state: State,
}

/// Element types that both sides have.
const TYPES: &[(DType, Dtype)] = &[
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I8, Dtype::I8),
    (DType::I16, Dtype::I16),
    (DType::I32, Dtype::I32),
    (DType::I64, Dtype::I64),
    (DType::U8, Dtype::U8),
    (DType::U16, Dtype::U16),
    (DType::U32, Dtype::U32),
    (DType::U64, Dtype::U64),
    (DType::Bool, Dtype::BOOL),
];

const GENERATOR: &str = "philox4x32-10";

impl Checkpoint {
    /// The file with `state` in place of its own: the header, and the bytes of tensors, which follow it. Nothing is
    /// copied.
    ///
    /// # Errors
    /// An element type that the format does not have.
    pub fn parts<'s>(&self, state: &[(&str, TensorView<'s>)]) -> Result<(Vec<u8>, Vec<&'s [u8]>), CheckpointError> {
        let internal = |error: &dyn std::fmt::Display| CheckpointError::Internal(error.to_string());
        let random = Random {
            generator: GENERATOR.to_owned(),
            seed: self.seed,
            stream: SHUFFLE_STREAM,
            epoch: self.position.epoch,
        };
        let header = Header {
            format: FORMAT,
            config_hash: self.config_hash,
            data_hash: self.data_hash,
            random,
            learning_rate: self.rates.learning_rate,
            momentum: self.rates.momentum,
            position: self.position.clone(),
        };
        let text = serde_json::to_string(&header).map_err(|error| internal(&error))?;
        // As the format's own writer orders them: large elements first, so that all are aligned.
        let mut tensors = state.to_vec();
        tensors.sort_by(|(a, x), (b, y)| y.dtype.size().cmp(&x.dtype.size()).then_with(|| a.cmp(b)));
        let mut entries = serde_json::Map::from_iter([("__metadata__".to_owned(), json!({ KEY: text }))]);
        let mut at = 0;
        for (name, tensor) in &tensors {
            let dtype = TYPES.iter().find(|(ours, _)| *ours == tensor.dtype).map(|(_, theirs)| *theirs);
            let unstorable = || CheckpointError::Unstorable { name: (*name).to_owned(), dtype: tensor.dtype };
            let (dtype, begin) = (dtype.ok_or_else(unstorable)?, at);
            at += tensor.data.len();
            let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, at] });
            entries.insert((*name).to_owned(), entry);
        }
        let mut head = vec![0; 8];
        serde_json::to_writer(&mut head, &entries).map_err(|error| internal(&error))?;
        head.resize(head.len().next_multiple_of(8), b' ');
        let size = head.len() as u64 - 8;
        head[..8].copy_from_slice(&size.to_le_bytes());
        Ok((head, tensors.into_iter().map(|(_, tensor)| tensor.data).collect()))
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// As [`Checkpoint::parts`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let own: Vec<_> = self.state.iter().map(|(name, tensor)| (name.as_str(), tensor.into())).collect();
        let (head, tensors) = self.parts(&own)?;
        Ok([&[&head[..]], &tensors[..]].concat().concat())
    }

    /// A checkpoint of bytes; `path` is for messages.
    ///
    /// # Errors
    /// Bytes that are damaged, or no checkpoint of this version.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Checkpoint, CheckpointError> {
        let path = path.display().to_string();
        let damaged = |reason: String| CheckpointError::Damaged { path: path.clone(), reason };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|all| all.get(KEY));
        let text = text.ok_or_else(|| CheckpointError::Foreign { path: path.clone() })?;
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let found = value.get("format").and_then(serde_json::Value::as_u64);
        let found = found.ok_or_else(|| damaged("its metadata names no version".to_owned()))?;
        if found != u64::from(FORMAT) {
            return Err(CheckpointError::Version { path, found });
        }
        // From the text again: a value has been through another representation of numbers.
        let header: Header = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let random = &header.random;
        if random.generator != GENERATOR || random.stream != SHUFFLE_STREAM || random.epoch != header.position.epoch {
            return Err(damaged("random numbers that no run of this version draws".to_owned()));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
        let mut state = State::new();
        let mut all = tensors.tensors();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, view) in all {
            let failed = |reason: String| CheckpointError::State { path: path.clone(), name: name.clone(), reason };
            let dtype = TYPES.iter().find(|(_, theirs)| *theirs == view.dtype()).map(|(ours, _)| *ours);
            let dtype =
                dtype.ok_or_else(|| failed(format!("an element type {:?} that frit does not train", view.dtype())))?;
            let tensor = match dtype {
                // Any other byte than 0 and 1 is undefined to a kernel.
                DType::Bool => {
                    let bytes: Vec<u8> = view.data().iter().map(|byte| u8::from(*byte != 0)).collect();
                    Tensor::from_bytes(dtype, view.shape(), &bytes)
                }
                _ => Tensor::from_bytes(dtype, view.shape(), view.data()),
            };
            let tensor = tensor.map_err(|error| failed(error.to_string()))?;
            state.insert(name, tensor);
        }
        Ok(Checkpoint {
            config_hash: header.config_hash,
            data_hash: header.data_hash,
            seed: header.random.seed,
            rates: Rates { learning_rate: header.learning_rate, momentum: header.momentum },
            position: header.position,
            state,
        })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// What the system says; a file that is damaged, or no checkpoint of this version.
    pub fn read_file(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.display().to_string(), source };
        Checkpoint::from_bytes(&std::fs::read(path).map_err(io)?, path)
    }

    /// Refuses state that is not of the network and optimiser whose state `expected` is.
    ///
    /// # Errors
    /// The first tensor that does not fit; `path` is for messages.
    pub fn check_state(&self, expected: &State, path: &Path) -> Result<(), CheckpointError> {
        let failed = |name: &str, reason: String| {
            Err(CheckpointError::State { path: path.display().to_string(), name: name.to_owned(), reason })
        };
        for (name, wanted) in expected {
            let Some(found) = self.state.get(name) else {
                return failed(name, "it is missing".to_owned());
            };
            if (found.dtype(), found.shape()) != (wanted.dtype(), wanted.shape()) {
                let (a, b) = (found.ty(), wanted.ty());
                return failed(name, format!("it is {a}, the model's is {b}"));
            }
        }
        match self.state.keys().find(|name| !expected.contains_key(*name)) {
            Some(name) => failed(name, "the model has no such tensor".to_owned()),
            None => Ok(()),
        }
    }

    /// Puts the parameters and buffers into a module's store; those that the checkpoint does not have stay as they are.
    ///
    /// # Errors
    /// A parameter that the module does not have, or has with another type; `path` is for messages.
    pub fn load_parameters(self, module: &mut Module, path: &Path) -> Result<(), CheckpointError> {
        for (name, tensor) in self.state {
            if name.starts_with(OPTIMIZER_PREFIX) {
                continue;
            }
            let failed = |reason: String| CheckpointError::State {
                path: path.display().to_string(),
                name: name.clone(),
                reason,
            };
            let param = module.params.get_mut(&name);
            let param = param.ok_or_else(|| failed("the model has no such parameter".to_owned()))?;
            if param.value.ty() != tensor.ty() {
                return Err(failed(format!("it is {}, the model's is {}", tensor.ty(), param.value.ty())));
            }
            param.value = tensor;
        }
        Ok(())
    }

    /// Refuses a position that no run with this many batches an epoch can be at.
    ///
    /// # Errors
    /// What does not fit; `path` is for messages.
    pub fn check_position(&self, batches: usize, path: &Path) -> Result<(), CheckpointError> {
        let at = &self.position;
        let batches = batches as u64;
        let step = u64::from(at.epoch).checked_mul(batches).and_then(|steps| steps.checked_add(at.batch));
        let epochs_fit = at.history.iter().zip(1..).all(|(record, epoch)| record.epoch == epoch);
        let fits = at.batch <= batches
            && step == Some(at.step)
            && at.sums.batches == at.batch
            && at.history.len() == at.epoch as usize
            && epochs_fit
            && at.stale <= at.epoch;
        if fits {
            return Ok(());
        }
        let reason = format!("epoch {}, batch {}, step {}: no such position", at.epoch, at.batch, at.step);
        Err(CheckpointError::Damaged { path: path.display().to_string(), reason })
    }
}
