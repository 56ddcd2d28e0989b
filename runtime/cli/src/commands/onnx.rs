//! `frit compile --emit onnx`: the optimised module as an ONNX model.

use std::io::IsTerminal;
use std::time::Instant;

use frit_ir::HostValue;
use frit_ir::onnx::{ExportOptions, export_bytes, write_model};
use frit_runtime::export::portable;

use crate::args::CompileArgs;
use crate::console::Console;
use crate::engine::{self, Given, Loaded};
use crate::error::{CliError, Done};
use crate::table::time;

/// Writes the model.
pub(crate) fn emit(loaded: &Loaded, given: &Given, args: &CompileArgs, console: &Console) -> Done {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(CliError::usage("an ONNX model is no text", "name a file with -o"));
    }
    let start = Instant::now();
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let portable = portable(&loaded.module, &named, &engine::options_of(loaded, &args.flags))?;
    for name in &portable.fixed {
        eprintln!("note: input `{name}` became a constant, because shapes depend on its value");
    }
    let export = ExportOptions::default();
    let Some(path) = &args.output else { return console.bytes(&export_bytes(&portable.module, &export)?) };
    write_model(&portable.module, &export, path)?;
    console.line(format!("wrote {} in {}", path.display(), time(start.elapsed())))
}
