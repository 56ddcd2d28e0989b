//! Data sets: samples and what a network should make of them, in memory.
//!
//! In: files that nobody vouches for. Out: a [`Dataset`] of which always holds: at least one record, as many targets as
//! samples, every input and value finite, every class at least 0.
//!
//! ```text
//!  idx (MNIST)  csv  .npy .npz --> source (names, files, train | validation) --> Dataset --> batches
//! ```
//!
//! - [`source`] names of data sets and files to what training and validation use.
//! - [`idx`], [`csv`] formats; those of NumPy are in [`crate::data`].
//! - `samples` numbers as they are stored.
//! - [`batches`] parts of a data set in order, borrowed or gathered one ahead of their use.

pub mod batches;
pub mod csv;
mod error;
pub mod idx;
mod samples;
pub mod source;
#[cfg(test)]
mod tests;

pub use batches::{Batch, Order, TargetSlice};
pub use error::DatasetError;
pub use source::{Columns, Holdout, Request, TrainingData};

use std::borrow::Cow;

use flate2::Crc;
use samples::Samples;

/// What targets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of several classes: an index.
    Classes,
    /// Numbers, as the output has them.
    Values,
}

/// What a network should say of each sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The index of a class.
    Classes(Vec<i64>),
    /// Numbers.
    Values {
        /// Those of all samples, sample after sample.
        data: Vec<f32>,
        /// Extents of one sample's.
        shape: Vec<usize>,
    },
}

/// Samples and their targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    source: String,
    len: usize,
    shape: Vec<usize>,
    inputs: Samples,
    targets: Targets,
    names: Vec<String>,
}

impl Dataset {
    /// A data set from samples of extents `shape`, one after another, and their targets. `source` is for messages.
    ///
    /// # Errors
    /// No record, numbers that do not fit, a number that is not finite, a class below 0.
    pub fn new(
        source: impl Into<String>,
        shape: Vec<usize>,
        inputs: Vec<f32>,
        targets: Targets,
    ) -> Result<Dataset, DatasetError> {
        Dataset::with_names(source, Vec::new(), shape, inputs, targets)
    }

    /// The same with names of the inputs.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn with_names(
        source: impl Into<String>,
        names: Vec<String>,
        shape: Vec<usize>,
        inputs: Vec<f32>,
        targets: Targets,
    ) -> Result<Dataset, DatasetError> {
        Dataset::of_samples(source.into(), names, shape, Samples::Floats(inputs), targets)
    }

    fn of_samples(
        source: String,
        names: Vec<String>,
        shape: Vec<usize>,
        inputs: Samples,
        targets: Targets,
    ) -> Result<Dataset, DatasetError> {
        let unfit = |reason: String| DatasetError::Unfit { path: source.clone(), reason };
        let width = frit_ir::tensor::checked_numel(&shape).unwrap_or(usize::MAX);
        if inputs.len() == 0 || width == 0 {
            return Err(unfit("it holds no records".to_owned()));
        }
        let len = inputs.len() / width;
        if len.checked_mul(width) != Some(inputs.len()) {
            return Err(unfit(format!("{} numbers do not make samples of shape {shape:?}", inputs.len())));
        }
        let count = match &targets {
            Targets::Classes(classes) => classes.len(),
            Targets::Values { data, shape } => {
                let width = frit_ir::tensor::checked_numel(shape).unwrap_or(usize::MAX);
                if width == 0 || data.len() % width != 0 {
                    return Err(unfit(format!("{} numbers do not make targets of shape {shape:?}", data.len())));
                }
                data.len() / width
            }
        };
        if count != len {
            return Err(unfit(format!("{len} samples, but {count} targets")));
        }
        let dataset = Dataset { source, len, shape, inputs, targets, names };
        dataset.check_numbers()?;
        Ok(dataset)
    }

    fn record(&self, index: usize, reason: String) -> DatasetError {
        DatasetError::Record { path: self.source.clone(), record: index + 1, reason }
    }

    fn check_numbers(&self) -> Result<(), DatasetError> {
        let width = self.width();
        // Pixels are finite.
        let floats = self.inputs.floats().unwrap_or_default();
        if let Some((at, found)) = floats.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            let name = self.names.get(at % width).map_or_else(|| format!("{}", at % width), |name| format!("`{name}`"));
            return Err(self.record(at / width, format!("input {name} is {found}")));
        }
        match &self.targets {
            Targets::Classes(classes) => match classes.iter().position(|class| *class < 0) {
                Some(at) => Err(self.record(at, format!("label {} is below 0", classes[at]))),
                None => Ok(()),
            },
            Targets::Values { data, shape } => match data.iter().position(|x| !x.is_finite()) {
                Some(at) => {
                    let width = shape.iter().product::<usize>();
                    Err(self.record(at / width, format!("target {} is {}", at % width, data[at])))
                }
                None => Ok(()),
            },
        }
    }

    /// Refuses labels that a network with this many classes cannot give.
    ///
    /// # Errors
    /// The first record with such a label; targets that are no labels.
    pub fn check_classes(&self, classes: usize) -> Result<(), DatasetError> {
        let Targets::Classes(labels) = &self.targets else {
            return Err(DatasetError::unfit(&self.source, "its targets are numbers, where labels are needed"));
        };
        let out_of_range = |label: &i64| usize::try_from(*label).map_or(true, |label| label >= classes);
        match labels.iter().position(out_of_range) {
            Some(at) => {
                let reason = format!("label {} is out of range: the model has {classes} classes", labels[at]);
                Err(self.record(at, reason))
            }
            None => Ok(()),
        }
    }

    /// Where it came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a data set holds at least one record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Extents of one sample.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Numbers of one sample.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// All samples, one after another; pixels are made into numbers for it.
    pub fn inputs(&self) -> Cow<'_, [f32]> {
        match self.inputs.floats() {
            Some(floats) => Cow::Borrowed(floats),
            None => {
                let mut all = Vec::with_capacity(self.inputs.len());
                self.inputs.for_each_part(|part| all.extend_from_slice(part));
                Cow::Owned(all)
            }
        }
    }

    /// Whether batches have to be gathered, whatever the order: its numbers do not lie in memory as f32.
    pub fn is_packed(&self) -> bool {
        self.inputs.floats().is_none()
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let targets = self.batch_bytes(self.len) - self.len * self.width() * size_of::<f32>();
        self.inputs.len() * self.inputs.size() + targets
    }

    /// All targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Bytes of memory that so many of its records take as a batch.
    pub fn batch_bytes(&self, records: usize) -> usize {
        let targets = match &self.targets {
            Targets::Classes(_) => size_of::<i64>(),
            Targets::Values { shape, .. } => shape.iter().product::<usize>().saturating_mul(size_of::<f32>()),
        };
        records.saturating_mul(self.width().saturating_mul(size_of::<f32>()).saturating_add(targets))
    }

    /// What the inputs are called, where the file says so.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The largest label and one; of values, `None`.
    pub fn classes(&self) -> Option<usize> {
        match &self.targets {
            Targets::Classes(labels) => labels.iter().max().and_then(|label| usize::try_from(label + 1).ok()),
            Targets::Values { .. } => None,
        }
    }

    /// A checksum of all that it holds: a run goes on only with the data that it began with.
    pub fn fingerprint(&self) -> u32 {
        let mut crc = Crc::new();
        let extent = |crc: &mut Crc, n: usize| crc.update(&(n as u64).to_le_bytes());
        extent(&mut crc, self.len);
        self.shape.iter().for_each(|n| extent(&mut crc, *n));
        self.inputs.for_each_part(|part| crc.update(bytemuck::cast_slice(part)));
        match &self.targets {
            Targets::Classes(classes) => crc.update(bytemuck::cast_slice(classes)),
            Targets::Values { data, shape } => {
                shape.iter().for_each(|n| extent(&mut crc, *n));
                crc.update(bytemuck::cast_slice(data));
            }
        }
        crc.sum()
    }

    /// Moves the records that are `chosen` to a set of their own; both keep the order that they have here.
    fn take(&mut self, chosen: &[bool]) -> Dataset {
        let mut taken = self.shell();
        taken.inputs = self.inputs.take(chosen, self.width());
        match (&mut self.targets, &mut taken.targets) {
            (Targets::Classes(from), Targets::Classes(to)) => *to = samples::take(from, chosen, 1),
            (Targets::Values { data: from, shape }, Targets::Values { data: to, .. }) => {
                *to = samples::take(from, chosen, shape.iter().product());
            }
            (Targets::Classes(_), Targets::Values { .. }) | (Targets::Values { .. }, Targets::Classes(_)) => {}
        }
        taken.len = chosen.iter().filter(|chosen| **chosen).count();
        self.len -= taken.len;
        taken
    }

    /// The same without records.
    fn shell(&self) -> Dataset {
        let targets = match &self.targets {
            Targets::Classes(_) => Targets::Classes(Vec::new()),
            Targets::Values { shape, .. } => Targets::Values { data: Vec::new(), shape: shape.clone() },
        };
        Dataset {
            source: self.source.clone(),
            len: 0,
            shape: self.shape.clone(),
            inputs: Samples::Floats(Vec::new()),
            targets,
            names: self.names.clone(),
        }
    }
}
