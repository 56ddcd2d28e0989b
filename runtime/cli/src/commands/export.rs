//! `frit export`: the best checkpoint of a run, or a model, as ONNX; an AF-KAN's calibrated where that is asked for.

mod calibrate;

use std::path::{Path, PathBuf};
use std::time::Instant;

use frit_ir::onnx::{ExportOptions, write_model, write_with_values};
use frit_ir::{HostValue, Module};
use frit_runtime::export::portable;
use frit_runtime::train::checkpoint::Best;
use frit_runtime::train::stepper::OPTIMIZER_PREFIX;
use frit_runtime::train::{Checkpoint, Config, RunFolder};
use serde_json::json;

use super::train::{is_built_in, network};
use crate::args::ExportArgs;
use crate::console::Console;
use crate::engine::{self, Given};
use crate::error::{CliError, Done};
use crate::table::time;

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::check_flags(&args.flags, &console)?;
    CliError::check_output(&args.output)?;
    let start = Instant::now();
    if let Some(records) = args.calibrate {
        return calibrated(args, records, start, &mut console);
    }
    if args.source.join(RunFolder::CONFIG).is_file()
        && let Some((model, checkpoint)) = imported(&args.source)?
    {
        let best = checkpoint.position.best;
        let mut values = checkpoint.state;
        values.retain(|name, _| !name.starts_with(OPTIMIZER_PREFIX));
        write_with_values(&model, &values, &args.output).map_err(|e| CliError::from(e).in_file(&model))?;
        return tell(args, best, None, start, &mut console);
    }
    let (module, given, best) = if args.source.join(RunFolder::CONFIG).is_file() {
        let (module, checkpoint) = best_of(&args.source)?;
        (module, Given::new(), checkpoint.position.best)
    } else {
        let loaded = engine::load(&args.source)?;
        let ports = engine::inputs_of(&loaded.module);
        let given = crate::inputs::given(&ports, &Default::default(), loaded.source.case.as_deref())?;
        (loaded.module, given, None)
    };
    write(args, &module, &given, &console)?;
    tell(args, best, None, start, &mut console)
}

/// Exports the best network of a run with what its bases are scaled by as constants.
fn calibrated(args: &ExportArgs, records: Option<u64>, start: Instant, console: &mut Console) -> Done {
    calibrate::check(&args.source)?;
    let (config, checkpoint, path) = best_checkpoint(&args.source)?;
    let network = calibrate::network(&args.source, &config)?;
    engine::set_threads(args.flags.threads);
    let best = checkpoint.position.best;
    let data = calibrate::data(&args.source, &config, &checkpoint)?;
    let module = parameters_of(&config, checkpoint, &path)?;
    let (module, records) =
        calibrate::frozen(&network, &module, &data, &config, records, &engine::options(&args.flags))?;
    write(args, &module, &Given::new(), console)?;
    tell(args, best, Some(records), start, console)
}

/// Writes a module as far as the passes go that are about no machine.
fn write(args: &ExportArgs, module: &Module, given: &Given, console: &Console) -> Done {
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let failed = |e: CliError| e.in_file(&args.source);
    let portable = portable(module, &named, &engine::options(&args.flags)).map_err(|e| failed(e.into()))?;
    for name in &portable.fixed {
        console.note(format_args!("input `{name}` became a constant, because shapes depend on its value"));
    }
    write_model(&portable.module, &ExportOptions::default(), &args.output).map_err(|e| failed(e.into()))
}

/// The last lines; `records` are those that extremes were measured on.
fn tell(args: &ExportArgs, best: Option<Best>, records: Option<usize>, start: Instant, console: &mut Console) -> Done {
    let epoch = best.map(|best| best.epoch);
    let of = epoch.map(|epoch| format!(", the network of epoch {epoch}")).unwrap_or_default();
    let on = records.map(|n| format!(", calibrated on {n} training records")).unwrap_or_default();
    console.line(format!("wrote {}{of}{on} in {}", args.output.display(), time(start.elapsed())))?;
    console.json(&json!({
        "model": args.output.display().to_string(),
        "best_epoch": epoch,
        "best_validation_metric": best.map(|best| best.metric),
        "calibration_records": records,
    }))
}

/// The ONNX file that a run trains, and its best checkpoint; `None`: its network is no ONNX file.
fn imported(run: &Path) -> Done<Option<(PathBuf, Checkpoint)>> {
    let (config, checkpoint, _) = best_checkpoint(run)?;
    let built_in = is_built_in(&config.model);
    let file = if built_in { None } else { Some(engine::locate(Path::new(&config.model))?.file) };
    let file = file.filter(|file| file.extension().is_some_and(|e| e == "onnx"));
    Ok(file.map(|file| (file, checkpoint)))
}

/// The network of a run with the parameters of its best epoch, and what else is known of that.
fn best_of(run: &Path) -> Done<(Module, Checkpoint)> {
    let (config, checkpoint, path) = best_checkpoint(run)?;
    Ok((parameters_of(&config, checkpoint.clone(), &path)?, checkpoint))
}

/// The network of settings with a checkpoint's parameters.
fn parameters_of(config: &Config, checkpoint: Checkpoint, path: &Path) -> Done<Module> {
    let mut module = network(config)?;
    checkpoint.load_parameters(&mut module, path)?;
    // A run trains; what is exported infers.
    module.functions.shift_remove("train");
    Ok(module)
}

/// Settings of a run, its best checkpoint, and where that lies.
fn best_checkpoint(run: &Path) -> Done<(Config, Checkpoint, PathBuf)> {
    let config = Config::read_file(&run.join(RunFolder::CONFIG))?;
    let path = run.join(RunFolder::BEST);
    if !path.is_file() {
        let message = format!("{}: the run has no best network: no epoch of it is done", run.display());
        return Err(CliError::failed(message, format!("`frit train --resume {}` goes on with it", run.display())));
    }
    let checkpoint = Checkpoint::read_file(&path)?;
    Ok((config, checkpoint, path))
}
