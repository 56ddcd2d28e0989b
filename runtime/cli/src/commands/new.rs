//! `frit new`: a network built in code, with initial values, as a file that every other command reads.

use frit_ir::Module;
use frit_ir::model::{AfKan, Mlp};
use frit_ir::text;
use serde_json::json;

use crate::args::{AfKanArgs, MlpArgs, Network, NewFlags};
use crate::console::Console;
use crate::cost;
use crate::error::{CliError, Done};
use crate::table::count;

/// Runs the command.
pub(crate) fn run(network: &Network) -> Done {
    match network {
        Network::AfKan(args) => write(&args.new, || Ok(af_kan(args).module(args.new.seed)?)),
        Network::Mlp(args) => write(&args.new, || Ok(mlp(args).module(args.new.seed)?)),
    }
}

fn af_kan(args: &AfKanArgs) -> AfKan {
    AfKan {
        layers: args.new.layers.clone(),
        grid: args.grid,
        order: args.order,
        activation: args.new.activation,
        function: args.function,
        methods: args.method.clone(),
        combination: args.combine,
        norm: args.new.norm,
        func_norm: !args.no_func_norm,
    }
}

fn mlp(args: &MlpArgs) -> Mlp {
    Mlp {
        layers: args.new.layers.clone(),
        activation: args.new.activation,
        norm: args.new.norm,
        activation_last: args.activation_last,
    }
}

/// Builds a module and writes it.
fn write(flags: &NewFlags, build: impl FnOnce() -> Done<Module>) -> Done {
    let path = &flags.output;
    if path.extension().is_none_or(|e| e != "frit") {
        let message = format!("--output {}: a network is written as .frit", path.display());
        return Err(CliError::usage(message, "choose a name that ends in .frit"));
    }
    CliError::check_output(path)?;
    let mut console = Console::new(&flags.json)?;
    let module = build()?;
    text::write_file(&module, path)?;
    let values = path.with_extension("safetensors");
    let (parameters, _) = cost::parameters(&module);
    console.line(format!(
        "{}: {} parameters, seed {} (values in {})",
        path.display(),
        count(parameters),
        flags.seed,
        values.display()
    ))?;
    for (name, function) in &module.functions {
        let outputs: Vec<String> =
            function.outputs().iter().map(|o| format!("{}: {}", o.name, function.ty(o.value))).collect();
        console.line(format!("  {name} -> {}", outputs.join(", ")))?;
    }
    console.json(&json!({
        "model": path.display().to_string(),
        "values": values.display().to_string(),
        "parameters": parameters,
        "functions": module.functions.keys().collect::<Vec<_>>(),
        "seed": flags.seed,
    }))
}
