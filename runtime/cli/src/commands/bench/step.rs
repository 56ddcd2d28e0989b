//! `frit bench --train`: how long a whole training step takes.
//!
//! In: a network as `frit train` takes it, the size of a batch, a kind of numbers. Out: times, as of any run, and the
//! loss of the first step and of the last. Every step is on the same seeded batch and goes on from the state that the
//! one before left, so the loss falls. What is timed is all that a run's loop asks of a network for a batch: forward,
//! cross-entropy, backward, AdamW.

use std::time::Instant;

use frit_ir::random::Philox;
use frit_ir::tensor::checked_numel;
use frit_ir::{Module, TensorType};
use frit_runtime::RunError;
use frit_runtime::data::dataset::{Batch, TargetSlice};
use frit_runtime::pool::Pool;
use frit_runtime::train::{CompiledStepper, Config, Hyper, MemoryPlan, Process, Room, StepError, Stepper as _};
use serde_json::json;

use super::{WARM_UP, measure, serve};
use crate::args::{BenchArgs, StepData};
use crate::commands::train::{apply_compile, apply_network, network};
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::inputs::MADE_LIMIT;
use crate::table::{milliseconds, time};
use crate::watch::memory;

/// Records a step, of a network that takes any number.
const BATCH: usize = 64;
/// Streams of random numbers under the seed: initial values have 0, an order of records 1.
const INPUT_STREAM: u64 = 2;
const LABEL_STREAM: u64 = 3;

/// A network and the batch that it trains on.
struct Step {
    stepper: CompiledStepper,
    /// Records of the batch.
    len: usize,
    /// Extents of one.
    sample: Vec<usize>,
    inputs: Vec<f32>,
    labels: Vec<i64>,
    next: Hyper,
    /// Loss of the first step and of the last.
    losses: Option<(f32, f32)>,
}

impl Step {
    fn run(&mut self) -> Done {
        let targets = TargetSlice::Classes(&self.labels);
        let batch = Batch { len: self.len, inputs: &self.inputs, shape: &self.sample, targets };
        let loss = self.stepper.step(&batch, &self.next).map_err(failed)?.loss;
        self.next.step += 1;
        self.losses = Some((self.losses.map_or(loss, |(first, _)| first), loss));
        Ok(())
    }
}

fn failed(error: StepError) -> CliError {
    match error.downcast::<RunError>() {
        Ok(error) => (*error).into(),
        Err(error) => CliError::failed(error, "check that the network takes a batch of this size"),
    }
}

/// Settings of the run that the step is of. Optimiser and loss are named, whatever the defaults of a run become.
fn config(args: &BenchArgs) -> Done<Config> {
    let mut config = Config { seed: args.inputs.seed, ..Config::default() };
    let model = args.model.to_str();
    config.model =
        model.ok_or_else(|| CliError::failed(format!("{}: no UTF-8", args.model.display()), "rename it"))?.to_owned();
    config.optimizer.learning_rate = 1e-3;
    config.optimizer.weight_decay = 1e-4;
    apply_network(&mut config, &args.network);
    apply_compile(&mut config, &args.flags);
    Ok(config)
}

/// Extents of the network's first input, as `dims` gives those that it leaves open; `None` where they don't.
fn extents(module: &Module, dims: &[(String, usize)]) -> Vec<Option<usize>> {
    let inputs = engine::inputs_of(module);
    let ty: Option<&TensorType> = inputs.first().and_then(|(_, ty)| ty.tensor());
    let given = |symbol: &frit_ir::Symbol| {
        let named = dims.iter().find(|(name, _)| name == symbol.name());
        named.and_then(|(_, n)| i64::try_from(*n).ok())
    };
    let extent = |dim: &frit_ir::Dim| usize::try_from(dim.eval(&given)?).ok();
    ty.map(|ty| ty.dims.iter().map(extent).collect()).unwrap_or_default()
}

/// Numbers of a batch.
fn numbers(kind: StepData, count: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, INPUT_STREAM);
    let pixel = |random: &mut Philox| {
        let shade = if random.below(2) == 0 { 0 } else { random.below(256) };
        (shade as f32 / 255.0 - 0.5) / 0.5
    };
    match kind {
        StepData::Normal => (0..count).map(|_| random.normal()).collect(),
        StepData::Pixels => (0..count).map(|_| pixel(&mut random)).collect(),
    }
}

/// Runs the command.
pub(super) fn run(args: &BenchArgs) -> Done {
    let before = Process::now();
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    engine::check_flags(&args.flags, &console)?;
    let mut config = config(args)?;
    let in_model = |error: CliError| error.in_file(&args.model);

    let start = Instant::now();
    let module = network(&config)?;
    let load_time = start.elapsed();

    let extents = extents(&module, &args.flags.dims);
    let (batch, sample) = extents.split_first().map_or((None, &[][..]), |(batch, sample)| (*batch, sample));
    let asked = args.step.batch.and_then(|n| usize::try_from(n).ok());
    if let (Some(fixed), Some(asked)) = (batch, asked)
        && fixed != asked
    {
        let message = format!("--batch {asked}: the network takes {fixed} records at a time");
        return Err(in_model(CliError::usage(message, format!("leave out --batch, or give {fixed}"))));
    }
    let len = asked.or(batch).unwrap_or(BATCH);
    let sample: Vec<usize> = sample.iter().map(|extent| extent.unwrap_or(1)).collect();
    let count = checked_numel(&sample).and_then(|n| n.checked_mul(len)).filter(|n| *n <= MADE_LIMIT);
    let count = count.ok_or_else(|| {
        let message = format!("--batch {len}: {len} samples of shape {sample:?} are too many to make up");
        in_model(CliError::failed(message, "choose fewer with --batch"))
    })?;

    config.batch = u32::try_from(len).unwrap_or(u32::MAX);
    let start = Instant::now();
    let options = engine::options(&args.flags);
    let stepper = CompiledStepper::new(module, &config, &sample, &options).map_err(|e| in_model(e.into()))?;
    let compile_time = start.elapsed();
    let room = Room { before, batch: len, ..Room::default() };

    let classes = stepper.classes().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| {
        let message = "the first output has no known number of classes";
        in_model(CliError::failed(message, "time a network whose output is [batch, classes]"))
    })?;
    let kind = args.step.data.unwrap_or_default();
    let mut labels = Philox::new(config.seed, LABEL_STREAM);
    let momentum = config.optimizer.usual_momentum();
    let mut step = Step {
        inputs: numbers(kind, count, config.seed),
        labels: (0..len).map(|_| i64::from(labels.below(classes))).collect(),
        next: Hyper { step: 1, learning_rate: config.optimizer.learning_rate, momentum },
        losses: None,
        stepper,
        len,
        sample,
    };
    let shown = match kind {
        StepData::Normal => "normal",
        StepData::Pixels => "pixels",
    };
    console.line(format!(
        "step   {len} samples {:?} of {shown} numbers, {classes} classes, made from seed {}",
        step.sample, config.seed
    ))?;
    let plan = room.plan(step.stepper.memory(&room.sizes()).map_err(failed)?, 0);
    console.line(memory(&plan))?;
    if args.serve {
        return serve(&mut || step.run(), &console).map_err(in_model);
    }
    let timing = measure(&mut || step.run(), args.runs, WARM_UP).map_err(in_model)?;

    let (first, last) = step.losses.unwrap_or_default();
    let (threads, bits) = (Pool::global().threads(), engine::vector_bits(&args.flags)?);
    console.line(format!(
        "median {}, fastest {} of {} steps on {threads} threads, vectors of {bits} bits (read {}, compiled {})",
        time(timing.median),
        time(timing.least),
        args.runs,
        time(load_time),
        time(compile_time),
    ))?;
    console.line(format!("loss   {first:.6} at first, {last:.6} at last, {} steps later", step.next.step - 2,))?;
    let measured = MemoryPlan::measured(before);
    console.line(plan.line(measured))?;
    console.json(&json!({
        "model": config.model,
        "median_ms": milliseconds(timing.median),
        "min_ms": milliseconds(timing.least),
        "runs": args.runs,
        "threads": threads,
        "vector_bits": bits,
        "compile_ms": milliseconds(compile_time),
        "load_ms": milliseconds(load_time),
        "batch": len,
        "data": shown,
        "loss_first": first,
        "loss_last": last,
        "memory": plan,
        "memory_measured": measured,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_pixels_are_background_and_all_are_shades() {
        let shades: Vec<f32> = (0..256).map(|p| (p as f32 / 255.0 - 0.5) / 0.5).collect();
        let made = numbers(StepData::Pixels, 50_176, 0);
        let background = made.iter().filter(|x| **x == -1.0).count();
        assert!((24_000..26_500).contains(&background), "{background}");
        assert!(made.iter().all(|x| shades.contains(x)) && made.contains(&1.0));
        assert_ne!(made, numbers(StepData::Pixels, 50_176, 1));
        let normal = numbers(StepData::Normal, 50_176, 0);
        let variance = normal.iter().map(|x| f64::from(x * x)).sum::<f64>() / 50_176.0;
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }
}
