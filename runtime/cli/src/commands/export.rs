//! `frit export`: the best checkpoint of a run, or a model, as ONNX.

use std::path::Path;
use std::time::Instant;

use frit_ir::onnx::{ExportOptions, write_model};
use frit_ir::{HostValue, Module};
use frit_runtime::export::portable;
use frit_runtime::train::{Checkpoint, Config, RunFolder};
use serde_json::json;

use super::train::network;
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
    let (module, given, best) = if args.source.join(RunFolder::CONFIG).is_file() {
        let (module, checkpoint) = best_of(&args.source)?;
        (module, Given::new(), checkpoint.position.best)
    } else {
        let loaded = engine::load(&args.source)?;
        let ports = engine::inputs_of(&loaded.module);
        let given = crate::inputs::given(&ports, &Default::default(), loaded.source.case.as_deref())?;
        (loaded.module, given, None)
    };
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let failed = |e: CliError| e.in_file(&args.source);
    let portable = portable(&module, &named, &engine::options(&args.flags)).map_err(|e| failed(e.into()))?;
    for name in &portable.fixed {
        console.note(format_args!("input `{name}` became a constant, because shapes depend on its value"));
    }
    write_model(&portable.module, &ExportOptions::default(), &args.output).map_err(|e| failed(e.into()))?;
    let epoch = best.map(|best| best.epoch);
    let of = epoch.map(|epoch| format!(", the network of epoch {epoch}")).unwrap_or_default();
    console.line(format!("wrote {}{of} in {}", args.output.display(), time(start.elapsed())))?;
    console.json(&json!({
        "model": args.output.display().to_string(),
        "best_epoch": epoch,
        "best_validation_metric": best.map(|best| best.metric),
    }))
}

/// The network of a run with the parameters of its best epoch, and what else is known of that.
fn best_of(run: &Path) -> Done<(Module, Checkpoint)> {
    let config = Config::read_file(&run.join(RunFolder::CONFIG))?;
    let path = run.join(RunFolder::BEST);
    if !path.is_file() {
        let message = format!("{}: the run has no best network: no epoch of it is done", run.display());
        return Err(CliError::failed(message, format!("`frit train --resume {}` goes on with it", run.display())));
    }
    let checkpoint = Checkpoint::read_file(&path)?;
    let mut module = network(&config)?;
    checkpoint.clone().load_parameters(&mut module, &path)?;
    // A run trains; what is exported infers.
    module.functions.shift_remove("train");
    Ok((module, checkpoint))
}
