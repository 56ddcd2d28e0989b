//! Where data sets come from: names and files to what a run trains on and what it is judged by.
//!
//! In: a [`Request`]. Out: [`TrainingData`].
//!
//! - `fashion-mnist`, `mnist`: four IDX files, found in known folders or the one that is given. Their test set is the
//!   validation set.
//! - `.npz`: `x` and `y`, and `x_test` and `y_test` beside `x_train` and `y_train` where there are such; or names given.
//! - `.npy` of rank 2, `.csv`, `.tsv`: a row a record; the last column is the target, or those named.
//!
//! Bytes (u8) are pixels and become (p/255 - 0.5)/0.5; other numbers stay as they are. A file without a validation set
//! of its own keeps a share of its records for it, drawn from the seed, both parts in the file's order.

use std::path::{Path, PathBuf};

use frit_ir::random::Philox;

use super::samples::Samples;
use super::{Dataset, DatasetError, Targets, Task, csv, idx};
use crate::data::{Array, NpyDtype, npy, npz};

/// Stream of random numbers that draws the records kept for validation.
const HOLDOUT_STREAM: u64 = 2;

/// A data set that is known by name.
struct Named {
    name: &'static str,
    folders: &'static [&'static str],
    origin: &'static str,
}

const NAMED: &[Named] = &[
    Named {
        name: "fashion-mnist",
        folders: &["/usr/share/datasets/fashion-mnist"],
        origin: "install Debian's package (apt-get install dataset-fashion-mnist), or fetch the four *-ubyte.gz files of \
                 https://github.com/zalandoresearch/fashion-mnist (data/fashion) and name their folder with --data-dir",
    },
    Named {
        name: "mnist",
        folders: &["/usr/share/datasets/mnist"],
        origin: "fetch train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and \
                 t10k-labels-idx1-ubyte.gz (https://ossci-datasets.s3.amazonaws.com/mnist/) and name their folder with \
                 --data-dir",
    },
];

/// Which parts of a file are inputs and targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The array of an .npz that holds the inputs.
    pub inputs: Option<String>,
    /// The array, or the columns of a table, that are the target; none: found by their usual names, the last column.
    pub targets: Vec<String>,
}

/// What a run is judged by.
#[derive(Clone, Debug, PartialEq)]
pub enum Holdout {
    /// A share of the records, which are not trained on then. Of no meaning where the data has a test set.
    Fraction(f64),
    /// Another file.
    File(PathBuf),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// A name, or a file.
    pub source: &'a str,
    /// Where the files of a name are.
    pub folder: Option<&'a Path>,
    /// What targets are.
    pub task: Task,
    /// Which parts of a file are inputs and targets.
    pub columns: &'a Columns,
    /// What the run is judged by.
    pub holdout: &'a Holdout,
    /// Draws the records that are kept for validation.
    pub seed: u64,
}

/// What a run trains on, and what it is judged by.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// Trained on.
    pub train: Dataset,
    /// Judged by.
    pub validation: Dataset,
}

impl TrainingData {
    /// Two data sets that fit each other.
    ///
    /// # Errors
    /// Samples or targets of another shape.
    pub fn new(train: Dataset, validation: Dataset) -> Result<TrainingData, DatasetError> {
        let unfit = |reason: String| Err(DatasetError::unfit(validation.source(), reason));
        if train.shape() != validation.shape() {
            return unfit(format!(
                "samples of shape {:?}, those trained on have {:?}",
                validation.shape(),
                train.shape()
            ));
        }
        match (train.targets(), validation.targets()) {
            (Targets::Classes(_), Targets::Classes(_)) => {}
            (Targets::Values { shape: a, .. }, Targets::Values { shape: b, .. }) if a == b => {}
            _ => return unfit("its targets are of another kind or shape than those trained on".to_owned()),
        }
        Ok(TrainingData { train, validation })
    }

    /// A checksum of both.
    pub fn fingerprint(&self) -> u64 {
        u64::from(self.train.fingerprint()) << 32 | u64::from(self.validation.fingerprint())
    }

    /// How many classes either names; of values, `None`.
    pub fn classes(&self) -> Option<usize> {
        self.train.classes().max(self.validation.classes())
    }
}

/// Reads what a run needs.
///
/// # Errors
/// A file that is not there or damaged; data that does not fit the task.
pub fn open(request: &Request<'_>) -> Result<TrainingData, DatasetError> {
    if let Some(named) = NAMED.iter().find(|named| named.name == request.source) {
        return open_named(named, request);
    }
    let (all, test) = open_file(Path::new(request.source), request)?;
    match (request.holdout, test) {
        (Holdout::File(path), _) => TrainingData::new(all, open_file(path, request)?.0),
        (Holdout::Fraction(_), Some(test)) => TrainingData::new(all, test),
        (Holdout::Fraction(share), None) => hold_out(all, *share, request.seed),
    }
}

fn hold_out(mut all: Dataset, share: f64, seed: u64) -> Result<TrainingData, DatasetError> {
    if !(share > 0.0 && share < 1.0) {
        return Err(DatasetError::unfit(
            all.source(),
            format!("a share of {share} for validation: it lies between 0 and 1"),
        ));
    }
    if all.len() < 2 {
        return Err(DatasetError::unfit(all.source(), "one record can't be both trained on and kept for validation"));
    }
    let count = ((all.len() as f64 * share).round() as usize).clamp(1, all.len() - 1);
    let mut order: Vec<usize> = (0..all.len()).collect();
    Philox::new(seed, HOLDOUT_STREAM).shuffle(&mut order);
    let mut chosen = vec![false; all.len()];
    order.iter().take(count).for_each(|i| chosen[*i] = true);
    let validation = all.take(&chosen);
    TrainingData::new(all, validation)
}

fn open_named(named: &Named, request: &Request<'_>) -> Result<TrainingData, DatasetError> {
    if request.task == Task::Values {
        return Err(DatasetError::unfit(named.name, "its targets are classes: train on it with --loss cross-entropy"));
    }
    let known = named.folders.iter().map(PathBuf::from);
    let folders: Vec<PathBuf> = request.folder.map_or_else(|| known.collect(), |folder| vec![folder.to_owned()]);
    let file = |folder: &Path, part: &str| {
        let names =
            [format!("{part}-ubyte.gz"), format!("{part}-ubyte"), format!("{}-ubyte", part.replace("-idx", ".idx"))];
        names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
    };
    for folder in &folders {
        let parts = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"];
        let found: Vec<PathBuf> = parts.iter().filter_map(|part| file(folder, part)).collect();
        match &found[..] {
            [images, labels, test_images, test_labels] => {
                return TrainingData::new(pictures(images, labels)?, pictures(test_images, test_labels)?);
            }
            [] => {}
            some => {
                let missing = parts.iter().find(|part| file(folder, part).is_none()).unwrap_or(&"");
                let there = some.len();
                let reason = format!("holds {there} of the 4 files of {}; {missing}-ubyte.gz is missing", named.name);
                return Err(DatasetError::damaged(folder, reason));
            }
        }
    }
    let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(DatasetError::Absent { name: named.name, looked: looked.join(", "), origin: named.origin })
}

/// Images and labels of two IDX files.
fn pictures(images: &Path, labels: &Path) -> Result<Dataset, DatasetError> {
    let (pixels, marks) = (idx::read_file(images)?, idx::read_file(labels)?);
    let (Some((count, shape)), [marked]) = (pixels.shape.split_first(), &marks.shape[..]) else {
        let file = if pixels.shape.is_empty() { images } else { labels };
        return Err(DatasetError::damaged(file, "another rank than images and labels have"));
    };
    if count != marked {
        let reason = format!("{count} images, but {marked} labels in {}", labels.display());
        return Err(DatasetError::unfit(&images.display().to_string(), reason));
    }
    let shape = shape.to_vec();
    let inputs = match pixels.element {
        idx::Element::U8 => Samples::Pixels(pixels.data),
        _ => Samples::Floats(pixels.values().map(|v| v as f32).collect()),
    };
    let classes = marks.values().enumerate().map(|(i, v)| label(v, i, labels)).collect::<Result<_, _>>()?;
    Dataset::of_samples(images.display().to_string(), Vec::new(), shape, inputs, Targets::Classes(classes))
}

/// A label that was read as a number.
fn label(value: f64, index: usize, path: &Path) -> Result<i64, DatasetError> {
    // Beyond 2^53 not every integer is a f64, and no network has so many classes.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Ok(value as i64);
    }
    let reason = format!("label {value} is no integer; --loss mse is for targets that are numbers");
    Err(DatasetError::Record { path: path.display().to_string(), record: index + 1, reason })
}

/// A file: all records, or those to train on and those to be judged by.
fn open_file(path: &Path, request: &Request<'_>) -> Result<(Dataset, Option<Dataset>), DatasetError> {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("csv" | "tsv") => {
            let table = csv::read_file(path, &request.columns.targets)?;
            Ok((from_table(table, path, request)?, None))
        }
        Some("npy") => {
            let array = npy::read_file(path)?;
            let [_, columns] = array.shape()[..] else {
                let reason = format!("an array of shape {:?}: a table has rows and columns", array.shape());
                return Err(DatasetError::unfit(&path.display().to_string(), reason));
            };
            let values = numbers(&array, path)?;
            Ok((from_table(csv::Table { names: Vec::new(), columns, values }, path, request)?, None))
        }
        Some("npz") => from_arrays(npz::read_file(path)?, path, request),
        _ if path.exists() || extension.is_none() => Err(DatasetError::Unknown(request.source.to_owned())),
        _ => Err(DatasetError::io(path, std::io::ErrorKind::NotFound.into())),
    }
}

/// A table, its target columns set apart.
fn from_table(table: csv::Table, path: &Path, request: &Request<'_>) -> Result<Dataset, DatasetError> {
    let file = path.display().to_string();
    let unfit = |reason: String| DatasetError::unfit(&file, reason);
    let columns = table.columns;
    let mut targets = Vec::new();
    for wanted in &request.columns.targets {
        let by_number = || wanted.parse::<usize>().ok().filter(|n| *n >= 1 && *n <= columns).map(|n| n - 1);
        let found = table.names.iter().position(|name| name == wanted).or_else(by_number);
        let known = if table.names.is_empty() { format!("1 to {columns}") } else { table.names.join(", ") };
        targets.push(found.ok_or_else(|| unfit(format!("it has no column `{wanted}`; columns: {known}")))?);
    }
    if targets.is_empty() {
        targets.extend(columns.checked_sub(1));
    }
    if columns <= targets.len() {
        return Err(unfit(format!("{columns} columns leave no input beside {} targets", targets.len())));
    }
    let is_target: Vec<bool> = (0..columns).map(|column| targets.contains(&column)).collect();
    let kept =
        |row: &[f64]| row.iter().zip(&is_target).filter(|(_, t)| !**t).map(|(v, _)| *v as f32).collect::<Vec<_>>();
    let rows = table.values.chunks_exact(columns);
    let inputs: Vec<f32> = rows.clone().flat_map(kept).collect();
    let made = match (request.task, &targets[..]) {
        (Task::Classes, [column]) => {
            let labels = rows.enumerate().map(|(i, row)| label(row[*column], i, path));
            Targets::Classes(labels.collect::<Result<_, _>>()?)
        }
        (Task::Classes, several) => {
            return Err(unfit(format!("{} target columns: a class is one number", several.len())));
        }
        (Task::Values, several) => Targets::Values {
            data: rows.flat_map(|row| several.iter().map(|column| row[*column] as f32)).collect(),
            shape: vec![several.len()],
        },
    };
    let names = table.names.into_iter().zip(&is_target).filter(|(_, t)| !**t).map(|(name, _)| name).collect();
    Dataset::with_names(file, names, vec![columns - targets.len()], inputs, made)
}

/// Arrays of an archive, found by name.
fn from_arrays(
    mut arrays: Vec<(String, Array)>,
    path: &Path,
    request: &Request<'_>,
) -> Result<(Dataset, Option<Dataset>), DatasetError> {
    let file = path.display().to_string();
    let held: Vec<String> = arrays.iter().map(|(name, _)| name.clone()).collect();
    // Arrays are moved out: most of a run's memory may be theirs.
    let mut find = |name: &str| {
        let at = arrays.iter().position(|(n, _)| n == name)?;
        Some(arrays.swap_remove(at).1)
    };
    let lacks = |what: &str, tried: &[&str]| {
        let tried = tried.join(", ");
        DatasetError::unfit(&file, format!("no array of {what} (looked for {tried}); it holds {}", held.join(", ")))
    };
    let first = |find: &mut dyn FnMut(&str) -> Option<Array>, names: &[&str]| names.iter().find_map(|name| find(name));
    let pair = |x: Array, y: Array| from_pair(x, &y, path, request.task);
    match (&request.columns.inputs, &request.columns.targets[..]) {
        (_, [_, _, ..]) => Err(DatasetError::unfit(&file, "an .npz has one array of targets: name one")),
        (None, []) => {
            const TRAIN: [&[&str]; 2] = [
                &["x_train", "X_train", "x", "X", "inputs", "images", "data", "train_images"],
                &["y_train", "Y_train", "y", "Y", "targets", "labels", "label", "train_labels"],
            ];
            const TEST: [&[&str]; 2] = [
                &["x_test", "X_test", "x_val", "X_val", "x_validation", "test_images"],
                &["y_test", "Y_test", "y_val", "Y_val", "y_validation", "test_labels"],
            ];
            let x = first(&mut find, TRAIN[0]).ok_or_else(|| lacks("inputs", TRAIN[0]))?;
            let y = first(&mut find, TRAIN[1]).ok_or_else(|| lacks("targets", TRAIN[1]))?;
            let test = match (first(&mut find, TEST[0]), first(&mut find, TEST[1])) {
                (Some(x), Some(y)) => Some(pair(x, y)?),
                _ => None,
            };
            Ok((pair(x, y)?, test))
        }
        (x, y) => {
            let x = x.as_deref().unwrap_or("x");
            let y = y.first().map_or("y", String::as_str);
            let inputs = find(x).ok_or_else(|| lacks("inputs", &[x]))?;
            let targets = find(y).ok_or_else(|| lacks("targets", &[y]))?;
            Ok((pair(inputs, targets)?, None))
        }
    }
}

fn from_pair(x: Array, y: &Array, path: &Path, task: Task) -> Result<Dataset, DatasetError> {
    let file = path.display().to_string();
    let unfit = |reason: String| DatasetError::unfit(&file, reason);
    let (Some((count, shape)), Some((marked, target))) = (x.shape().split_first(), y.shape().split_first()) else {
        return Err(unfit("an array without records: it has no dims".to_owned()));
    };
    if count != marked {
        return Err(unfit(format!("{count} samples, but {marked} targets")));
    }
    let shape = shape.to_vec();
    let values = numbers(y, path)?;
    let targets = match task {
        Task::Classes if target.iter().all(|n| *n == 1) => {
            let labels = values.into_iter().enumerate().map(|(i, v)| label(v, i, path));
            Targets::Classes(labels.collect::<Result<_, _>>()?)
        }
        Task::Classes => {
            return Err(unfit(format!("targets of shape {:?}: labels are one number a record", y.shape())));
        }
        Task::Values => {
            let shape = if target.is_empty() { vec![1] } else { target.to_vec() };
            Targets::Values { data: values.into_iter().map(|v| v as f32).collect(), shape }
        }
    };
    let inputs = match x.dtype() {
        NpyDtype::U8 => Samples::Pixels(x.into_parts().2),
        NpyDtype::F32 => Samples::of_bytes(x.into_parts().2),
        _ => Samples::Floats(numbers(&x, path)?.into_iter().map(|v| v as f32).collect()),
    };
    Dataset::of_samples(file, Vec::new(), shape, inputs, targets)
}

/// An array's elements as numbers.
fn numbers(array: &Array, path: &Path) -> Result<Vec<f64>, DatasetError> {
    macro_rules! all {
        ($ty:ty, $value:ident => $made:expr) => {
            array
                .data()
                .chunks_exact(size_of::<$ty>())
                .filter_map(|bytes| bytes.try_into().ok().map(<$ty>::from_le_bytes))
                .map(|$value| $made)
                .collect()
        };
    }
    Ok(match array.dtype() {
        NpyDtype::Bool | NpyDtype::U8 => array.data().iter().map(|b| f64::from(*b)).collect(),
        NpyDtype::I8 => all!(i8, v => f64::from(v)),
        NpyDtype::I16 => all!(i16, v => f64::from(v)),
        NpyDtype::I32 => all!(i32, v => f64::from(v)),
        NpyDtype::I64 => all!(i64, v => v as f64),
        NpyDtype::U16 => all!(u16, v => f64::from(v)),
        NpyDtype::U32 => all!(u32, v => f64::from(v)),
        NpyDtype::U64 => all!(u64, v => v as f64),
        NpyDtype::F16 => all!(u16, v => half::f16::from_bits(v).to_f64()),
        NpyDtype::F32 => all!(f32, v => f64::from(v)),
        NpyDtype::F64 => all!(f64, v => v),
        NpyDtype::C64 | NpyDtype::C128 => {
            return Err(DatasetError::unfit(
                &path.display().to_string(),
                "complex numbers: save real and imaginary parts",
            ));
        }
    })
}
