//! `frit train`: settings, data and a network to a run in a folder.
//!
//! ```text
//!  defaults < --config < flags --> Config --> data, network --> Stepper --> Trainer --> folder, last line
//! ```

use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use frit_ir::Module;
use frit_ir::model::{AfKan, Mlp};
use frit_runtime::compile::CompileOptions;
use frit_runtime::data::dataset::{TrainingData, source};
use frit_runtime::train::config::{LossKind, MathKind};
use frit_runtime::train::optimizer::DecayGroup;
use frit_runtime::train::{
    CompiledStepper, Config, End, OptimizerKind, Outcome, Parameters, Process, Room, RunFolder, Schedule, Stepper,
    SystemDisk, Trainer,
};
use serde_json::json;

use crate::args::{CompileFlags, Math, NetworkFlags, TrainArgs};
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::table::count;
use crate::watch::{Watch, percent};

/// Whether somebody asked the run to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// The built-in AF-KAN's name.
pub(crate) const AF_KAN: &str = "af-kan";

/// Folder of runs that were not given one.
const RUNS: &str = "runs";

/// Builds what is trained.
type MakeStepper = dyn Fn(&Config, &TrainingData, &Room) -> Done<Box<dyn Stepper>>;

/// Runs the command.
pub(crate) fn run(args: &TrainArgs) -> Done {
    let handler = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            // Checkpoints are replaced whole, so there is nothing to tidy up. 130: ended by an interrupt.
            process::exit(130);
        }
        eprintln!("note: stopping after this step; again to stop at once");
    });
    if let Err(error) = handler {
        Console::new(&args.json)?.note(format_args!("an interrupt will end the run without a checkpoint: {error}"));
    }
    let options = engine::options(&args.flags);
    run_with(args, &move |config, data, room| stepper(config, data, &options, room), &STOP)
}

/// The compiled step of a network.
fn stepper(config: &Config, data: &TrainingData, options: &CompileOptions, room: &Room) -> Done<Box<dyn Stepper>> {
    let made = || {
        let stepper = CompiledStepper::within(network(config)?, config, data.train.shape(), options, room)?;
        stepper.check_batches(config, data)?;
        Ok(stepper)
    };
    let in_model =
        |error: CliError| if is_built_in(&config.model) { error } else { error.in_file(Path::new(&config.model)) };
    Ok(Box::new(made().map_err(in_model)?))
}

/// The network that settings name: built in, or a file.
pub(crate) fn network(config: &Config) -> Done<Module> {
    let layers = config.network.layers.clone();
    let built = match config.model.as_str() {
        AF_KAN => af_kan(config).module(config.seed),
        "mlp" => {
            Mlp { layers, activation_last: !config.network.activation_first, ..Mlp::default() }.module(config.seed)
        }
        file => return engine::load_to_train(Path::new(file)),
    };
    built.map_err(|error| {
        if error.is_internal() {
            return CliError::internal(error);
        }
        CliError::usage(error, "check --layers, --grid and --order")
    })
}

/// The AF-KAN that settings describe.
pub(crate) fn af_kan(config: &Config) -> AfKan {
    let (layers, grid, order) = (config.network.layers.clone(), config.network.grid, config.network.order);
    AfKan { layers, grid, order, ..AfKan::default() }
}

/// Whether a model is built in: its name is no path.
pub(crate) fn is_built_in(model: &str) -> bool {
    matches!(model, AF_KAN | "mlp")
}

/// Trains what `make` builds, until `stop`.
fn run_with(args: &TrainArgs, make: &MakeStepper, stop: &AtomicBool) -> Done {
    let before = Process::now();
    refuse_states(&args.flags)?;
    let mut console = Console::new(&args.json)?;
    engine::check_flags(&args.flags, &console)?;
    engine::set_threads(args.flags.threads);
    let opened = match &args.resume {
        Some(path) => Some(RunFolder::open(path, Box::new(SystemDisk))?),
        None => None,
    };
    let (folder, mut config) = match (opened, &args.config) {
        (Some((folder, config)), _) => (Some(folder), config),
        (None, Some(path)) => (None, Config::read_file(path)?),
        (None, None) => (None, Config::default()),
    };
    apply(&mut config, args)?;
    config.check()?;
    if !is_built_in(&config.model) {
        engine::locate(Path::new(&config.model))?;
    }
    // The folder first: a run that ends at any later moment can go on.
    let resumes = folder.as_ref().is_some_and(RunFolder::has_begun);
    let made = folder.is_none();
    let folder = match folder {
        Some(folder) => folder,
        None => {
            let path = args.out.clone().map_or_else(|| free_folder(&config), Ok)?;
            RunFolder::create(&path, &config, Box::new(SystemDisk))?
        }
    };
    let (columns, holdout) = (config.columns(), config.holdout());
    let prepared = || -> Done<_> {
        let data = source::open(&config.request(&columns, &holdout))?;
        let stepper = make(&config, &data, &Room::of(&config, &data, before))?;
        Ok((data, stepper))
    };
    let (data, mut stepper) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => {
            if made {
                folder.discard();
            }
            return Err(error);
        }
    };
    let parameters = stepper.parameters();
    parameters.notes.iter().for_each(|note| console.note(note));
    let path = folder.path().to_owned();
    let mut watch = Watch::new(&console, stop);
    describe(&parameters, &mut watch);
    let trainer =
        Trainer::new(config.clone(), stepper.as_mut(), &data, &mut watch)?.in_folder(folder).until(stop).since(before);
    let outcome = if resumes { trainer.resume()? } else { trainer }.run()?;
    if let Some(failed) = watch.failed.take() {
        return Err(failed);
    }
    drop(watch);
    tell(&outcome, &config, &path, &parameters, &mut console)
}

/// What is trained and what not; names beyond the first few are in the JSON.
fn describe(parameters: &Parameters, watch: &mut Watch<'_>) {
    const SHOWN: usize = 6;
    let names = |names: &[String]| {
        let more = if names.len() > SHOWN { format!(", and {} more", names.len() - SHOWN) } else { String::new() };
        format!("{}{more}", names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
    };
    if parameters.trained.is_empty() {
        return;
    }
    let elements = count(parameters.elements as u64);
    let trained = &parameters.trained;
    watch.line(&format!("trains {elements} parameters in {} tensors: {}", trained.len(), names(trained)));
    let others = [
        ("renews", "running statistics", &parameters.renewed),
        ("keeps", "frozen tensors", &parameters.frozen),
        ("keeps", "other tensors", &parameters.constant),
    ];
    for (verb, what, list) in others.into_iter().filter(|(_, _, list)| !list.is_empty()) {
        watch.line(&format!("{verb} {} {what}: {}", list.len(), names(list)));
    }
}

/// Refuses state by hand: that of a step follows from the network and the optimiser.
fn refuse_states(flags: &CompileFlags) -> Done {
    match flags.states.first() {
        Some((input, output)) => Err(CliError::usage(
            format!("--state {input}={output}: a training step keeps parameters and moments by itself"),
            "leave it out; parameters that are not to change are named with --freeze",
        )),
        None => Ok(()),
    }
}

/// The last lines.
fn tell(outcome: &Outcome, config: &Config, path: &Path, parameters: &Parameters, console: &mut Console) -> Done {
    let classes = config.loss.kind == LossKind::CrossEntropy;
    let (epochs, seconds, shown) = (outcome.epochs, outcome.seconds, path.display());
    if let Some(best) = &outcome.best {
        let metric = match classes {
            true => format!("accuracy {}", percent(best.metric)),
            false => format!("loss {:.6}", best.metric),
        };
        console.line(format!("best validation {metric} at epoch {}; {epochs} epochs in {seconds:.1} s", best.epoch))?;
    }
    console.line(outcome.memory.line(outcome.measured))?;
    if outcome.end == End::Patience {
        console.line(format!("ended early: no better result for {} epochs", config.patience.unwrap_or_default()))?;
    }
    if outcome.best.is_some() {
        console.line(format!("the run is in {shown}; `frit export {shown} -o model.onnx` writes its best network"))?;
    }
    let end = match outcome.end {
        End::Finished => "finished",
        End::Patience => "patience",
        End::Stopped => "stopped",
    };
    let metric = if classes { "best_validation_accuracy" } else { "best_validation_loss" };
    console.json(&json!({
        metric: outcome.best.map(|best| best.metric),
        "best_epoch": outcome.best.map(|best| best.epoch),
        "epochs": epochs,
        "steps": outcome.steps,
        "seconds": seconds,
        "end": end,
        "run": shown.to_string(),
        "trained": parameters.trained,
        "renewed": parameters.renewed,
        "frozen": parameters.frozen,
        "constant": parameters.constant,
        "memory": outcome.memory,
        "memory_measured": outcome.measured,
    }))?;
    if outcome.end == End::Stopped {
        let message = format!("stopped after {epochs} epochs, {} steps; the run is saved in {shown}", outcome.steps);
        return Err(CliError::failed(message, format!("`frit train --resume {shown}` goes on from there")));
    }
    Ok(())
}

/// A path that means the same wherever a run goes on from.
fn absolute(path: &Path) -> Done<PathBuf> {
    std::path::absolute(path).map_err(|e| CliError::file(path, &e))
}

/// The same for settings that are a path or a name.
fn absolute_text(text: &str) -> Done<String> {
    let path = absolute(Path::new(text))?;
    path.to_str().map(str::to_owned).ok_or_else(|| CliError::failed(format!("{text}: no UTF-8"), "rename it"))
}

/// Flags over settings; settings that must be there.
fn apply(config: &mut Config, args: &TrainArgs) -> Done {
    fn put<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            to.clone_from(from);
        }
    }
    set(&mut config.model, &args.model);
    put(&mut config.epochs, &args.epochs);
    set(&mut config.batch, &args.batch);
    set(&mut config.seed, &args.seed);
    put(&mut config.patience, &args.patience);
    put(&mut config.checkpoint_steps, &args.checkpoint_steps);
    put(&mut config.log_every, &args.log_every);
    put(&mut config.memory_limit, &args.memory_limit);
    config.detect_anomaly |= args.detect_anomaly;
    apply_network(config, &args.network);
    let data = &args.data;
    set(&mut config.data.source, &data.source);
    put(&mut config.data.folder, &data.data_dir);
    set(&mut config.data.targets, &data.label);
    put(&mut config.data.inputs, &data.inputs);
    put(&mut config.data.validation, &data.validation);
    set(&mut config.data.validation_share, &data.validation_share);
    config.shuffle |= data.shuffle;
    let recipe = &args.recipe;
    if let Some(name) = &recipe.loss {
        set(&mut config.loss.kind, &LossKind::ALL.into_iter().find(|kind| kind.name() == name));
    }
    put(&mut config.loss.output, &recipe.target);
    set(&mut config.loss.label_smoothing, &recipe.label_smoothing);
    let optimizer = &mut config.optimizer;
    if let Some(name) = &recipe.optimizer {
        set(&mut optimizer.kind, &OptimizerKind::ALL.into_iter().find(|kind| kind.name() == name));
    }
    set(&mut optimizer.learning_rate, &recipe.learning_rate);
    set(&mut optimizer.weight_decay, &recipe.weight_decay);
    set(&mut optimizer.momentum, &recipe.momentum);
    optimizer.nesterov |= recipe.nesterov;
    put(&mut optimizer.clip_norm, &recipe.clip_norm);
    if !recipe.groups.is_empty() {
        let group = |(pattern, decay): &(String, f64)| DecayGroup { pattern: pattern.clone(), weight_decay: *decay };
        optimizer.groups = recipe.groups.iter().map(group).collect();
    }
    // The numbers of a schedule stay when the flag names the one that the settings have.
    if let Some(name) = recipe.schedule.as_ref().filter(|name| *name != config.schedule.name()) {
        set(&mut config.schedule, &Schedule::of_name(name));
    }
    if !recipe.freeze.is_empty() {
        config.freeze.clone_from(&recipe.freeze);
    }
    config.freeze_statistics |= recipe.freeze_statistics;
    apply_compile(config, &args.flags);
    complete(config)
}

/// Sets what is given.
fn set<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(value) = from {
        to.clone_from(value);
    }
}

/// What flags say of a built-in network.
pub(crate) fn apply_network(config: &mut Config, flags: &NetworkFlags) {
    set(&mut config.network.layers, &flags.layers);
    set(&mut config.network.grid, &flags.grid);
    set(&mut config.network.order, &flags.order);
    config.network.activation_first |= flags.activation_first;
}

/// What flags say of the code that results depend on.
pub(crate) fn apply_compile(config: &mut Config, flags: &CompileFlags) {
    if let Some(math) = flags.math {
        config.compile.math = match math {
            Math::Strict => MathKind::Strict,
            Math::Fast => MathKind::Fast,
        };
    }
    if flags.level != 3 {
        config.compile.level = flags.level;
    }
}

/// What must be there, and paths that mean the same anywhere.
fn complete(config: &mut Config) -> Done {
    if config.model.is_empty() {
        return Err(CliError::usage("no model is named", "frit train af-kan, frit train mlp, or frit train FILE"));
    }
    if config.data.source.is_empty() {
        return Err(CliError::usage("no data is named", "--data fashion-mnist, --data mnist or --data FILE"));
    }
    config.epochs = Some(config.epochs());
    if !is_built_in(&config.model) {
        config.model = absolute_text(&config.model)?;
    }
    if Path::new(&config.data.source).exists() {
        config.data.source = absolute_text(&config.data.source)?;
    }
    for path in [&mut config.data.folder, &mut config.data.validation].into_iter().flatten() {
        *path = absolute(path)?;
    }
    Ok(())
}

/// A folder for a run that was given none: by model and data, with a number where there is one already.
fn free_folder(config: &Config) -> Done<PathBuf> {
    let stem = |text: &str| {
        let stem = Path::new(text).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        stem.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect::<String>()
    };
    let name = format!("{}-{}", stem(&config.model), stem(&config.data.source));
    let numbered = (2..10_000).map(|n| format!("{name}-{n}"));
    let free = std::iter::once(name.clone()).chain(numbered).map(|name| Path::new(RUNS).join(name));
    free.into_iter()
        .find(|path| !path.exists())
        .ok_or_else(|| CliError::failed(format!("{RUNS}/{name}: too many runs"), "name a folder with --out"))
}

#[cfg(test)]
mod tests;
