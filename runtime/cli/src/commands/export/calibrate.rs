//! `frit export --calibrate`: the extremes that an AF-KAN's bases are scaled by, measured on the data of its run.
//!
//! In: a run of the built-in AF-KAN, its best checkpoint, a number of records. Out: the network with extremes as
//! constants. They are measured layer by layer over batches of the run's size, the layers before scaled by what was
//! measured already: they are the least and largest of all records, however these are parted into batches, and every
//! basis of a record that was measured on lies between 0 and 1, as in training.

use std::ops::ControlFlow;
use std::path::Path;

use frit_ir::model::{AfKan, ModelError};
use frit_ir::{Module, Tensor};
use frit_runtime::Model;
use frit_runtime::compile::CompileOptions;
use frit_runtime::data::dataset::{Dataset, Order, TrainingData, batches, source};
use frit_runtime::train::{Checkpoint, Config, RunFolder};

use crate::commands::train::{AF_KAN, af_kan};
use crate::engine;
use crate::error::{CliError, Done};

/// Refuses what is no run: nothing says then which data to measure on.
pub(super) fn check(run: &Path) -> Done {
    if run.join(RunFolder::CONFIG).is_file() {
        return Ok(());
    }
    // What is not there at all has an error of its own.
    std::fs::metadata(run).map_err(|e| CliError::file(run, &e))?;
    Err(CliError::usage(
        format!("--calibrate: {} is no folder of a run, which says what data to measure on", run.display()),
        "name the folder of a run of `frit train af-kan`, or leave --calibrate out",
    ))
}

/// The network of a run, if it has extremes.
pub(super) fn network(run: &Path, config: &Config) -> Done<AfKan> {
    if config.model == AF_KAN {
        return Ok(af_kan(config));
    }
    let message = format!("--calibrate: {} trains {}, not {AF_KAN}", run.display(), config.model);
    let help = match config.model.as_str() {
        "mlp" => "leave --calibrate out: what an MLP gives for a record does not depend on its batch",
        _ => "leave --calibrate out; only in the built-in network (`frit train af-kan`) is it known what to measure",
    };
    Err(CliError::usage(message, help))
}

/// What the run trained on.
pub(super) fn data(run: &Path, config: &Config, checkpoint: &Checkpoint) -> Done<TrainingData> {
    let settings = run.join(RunFolder::CONFIG);
    let help = |what: &str| {
        let file = settings.display();
        format!("{what}: `source`, `folder` and `validation` under [data] in {file}; or leave --calibrate out")
    };
    let (columns, holdout) = (config.columns(), config.holdout());
    let data = source::open(&config.request(&columns, &holdout)).map_err(|error| {
        CliError::failed(format!("--calibrate: {error}"), help("put the run's data back, or say where it is now"))
    })?;
    if data.fingerprint() != checkpoint.data_hash {
        let message = format!("--calibrate: {}: other data than {} trained on", data.train.source(), run.display());
        return Err(CliError::failed(message, help("put the run's data back, or say where it is now")));
    }
    Ok(data)
}

/// The network with extremes as constants, and how many records they were measured on: all, unless `records` are fewer.
pub(super) fn frozen(
    network: &AfKan,
    module: &Module,
    data: &TrainingData,
    config: &Config,
    records: Option<u64>,
    options: &CompileOptions,
) -> Done<(Module, usize)> {
    let all = data.train.len();
    let records = records.and_then(|n| usize::try_from(n).ok()).map_or(all, |n| n.min(all));
    let unfit = |error: ModelError| match error {
        ModelError::Extremes { name, reason } => CliError::failed(
            format!("--calibrate: {} on {records} training records: {name}: {reason}", data.train.source()),
            "measure on more records (--calibrate alone takes all), or leave --calibrate out",
        ),
        other => other.into(),
    };
    // A few records of data that is sorted would be of one class.
    let order = if records < all { Order::Shuffled { seed: config.seed, epoch: 0 } } else { Order::Data };
    // What flags say of the model that is written is not meant for those that measure.
    let options = CompileOptions { dims: Vec::new(), state: Vec::new(), dump_dir: None, ..options.clone() };
    let mut measured: Vec<(String, Tensor)> = Vec::new();
    while let Some(measuring) = network.next_extremes(module, &measured).map_err(unfit)? {
        let model = engine::compile(&measuring, &options, &Vec::new())?.model;
        measured.extend(over(&model, &data.train, order, config.batch as usize, records)?);
    }
    Ok((network.freeze(module, &measured).map_err(unfit)?, records))
}

/// What a model measures over the first `records` of an order: the least of minima, the largest of maxima.
fn over(model: &Model, data: &Dataset, order: Order, batch: usize, records: usize) -> Done<Vec<(String, Tensor)>> {
    let mut found: Vec<(String, Vec<f32>)> = Vec::new();
    let mut left = records;
    batches::for_each(data, batch, order, 0, |_, batch| {
        let rows = batch.len.min(left);
        let x = batch.inputs.get(..rows * data.width()).unwrap_or_default();
        let x = Tensor::f32(&[rows, data.width()], x).map_err(CliError::internal)?;
        let outputs = model.run(&[("x", &x)])?;
        merge(&mut found, outputs.into_iter().map(|(name, tensor)| (name, tensor.to_vec())));
        left -= rows;
        Ok::<_, CliError>(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let tensor = |(name, values): (String, Vec<f32>)| match Tensor::f32(&[values.len()], &values) {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(CliError::internal(error)),
    };
    found.into_iter().map(tensor).collect()
}

/// Widens extremes by those of another batch. NaN stays: it is to be refused, not passed over.
fn merge(found: &mut Vec<(String, Vec<f32>)>, batch: impl Iterator<Item = (String, Vec<f32>)>) {
    for (name, values) in batch {
        let Some((_, known)) = found.iter_mut().find(|(n, _)| *n == name) else {
            found.push((name, values));
            continue;
        };
        let least = name.ends_with(".phi_min");
        for (known, value) in known.iter_mut().zip(values) {
            let wider = if least { value < *known } else { value > *known };
            if wider || value.is_nan() {
                *known = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_of_batches_are_those_of_all_and_nan_stays() {
        let batch = |least: &[f32], most: &[f32]| {
            [("layers.0.phi_min".to_owned(), least.to_vec()), ("layers.0.phi_max".to_owned(), most.to_vec())]
        };
        let mut found = Vec::new();
        for (least, most) in [(&[0.5, -1.0], &[2.0, 0.0]), (&[0.25, -0.5], &[3.0, -0.25])] {
            merge(&mut found, batch(least, most).into_iter());
        }
        assert_eq!(found, batch(&[0.25, -1.0], &[3.0, 0.0]));
        merge(&mut found, batch(&[f32::NAN, -2.0], &[0.0, f32::NAN]).into_iter());
        merge(&mut found, batch(&[-9.0, -1.0], &[9.0, 9.0]).into_iter());
        assert!(found[0].1[0].is_nan() && found[1].1[1].is_nan(), "{found:?}");
        assert_eq!((found[0].1[1], found[1].1[0]), (-2.0, 9.0));
    }
}
