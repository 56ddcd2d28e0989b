//! `frit run`: a model once, on given inputs or on seeded ones, and what came out.

use std::path::Path;
use std::time::Instant;

use frit_ir::HostValue;
use frit_runtime::data::{Array, npz};
use frit_runtime::{CodeSource, Context, InputRef, Model};
use serde_json::json;

use crate::args::RunArgs;
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::inputs::{self, Bound};
use crate::summary::{Number, Summary};
use crate::table::{Align, milliseconds, table, time};

/// Elements shown of an output.
const SHOWN: usize = 6;

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    inputs::check_files(&args.inputs)?;
    if let Some(path) = args.output.as_ref().filter(|path| path.extension().is_none_or(|e| e != "npz")) {
        let message = format!("--output {}: outputs are written as .npz", path.display());
        return Err(CliError::usage(message, "choose a name that ends in .npz"));
    }
    args.output.iter().chain(&args.profile).try_for_each(|path| CliError::check_output(path))?;
    engine::check_flags(&args.flags, &console)?;
    let ready = engine::ready(&args.model, args.trust, &args.flags, &args.inputs)?;
    let (file, model) = (ready.source.file.clone(), ready.model());
    if let Some(line) = ready.code_line() {
        console.line(line)?;
    }
    let bound = inputs::complete(&engine::ports_of(model), ready.given.clone(), &args.flags.dims, args.inputs.seed)?;
    for line in inputs::describe(&bound, args.inputs.seed) {
        console.line(line)?;
    }
    let mut context = model.context();
    context.set_profiling(args.profile.is_some());
    let start = Instant::now();
    execute(&mut context, &bound).map_err(|e| e.in_file(&file))?;
    let took = start.elapsed();
    let outputs = collect(model, &context)?;
    if let Some(path) = &args.profile {
        write_profile(path, &context)?;
    }
    if let Some(path) = &args.output {
        write_outputs(path, &outputs)?;
    }
    let compiled = match ready.code {
        CodeSource::Loaded => String::new(),
        CodeSource::Compiled | CodeSource::Recompiled(_) => format!(", compiled {}", time(ready.compile_time)),
    };
    console.line(format!("ran in {} (read {}{compiled}; {})", time(took), time(ready.load_time), model.ops()))?;
    for line in summary(&outputs) {
        console.line(line)?;
    }
    if let Some(path) = &args.output {
        console.line(format!("outputs are in {}", path.display()))?;
    }
    console.json(&json!({
        "model": file.display().to_string(),
        "run_ms": milliseconds(took),
        "load_ms": milliseconds(ready.load_time),
        "compile_ms": milliseconds(ready.compile_time),
        "code": ready.code.name(),
        "recompiled_because": ready.recompiled_because(),
        "inputs": bound.iter().map(|b| record(&b.name, &b.value)).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(|(name, value)| record(name, value)).collect::<Vec<_>>(),
    }))
}

/// Runs once with the values bound.
pub(crate) fn execute(context: &mut Context, bound: &[Bound]) -> Done {
    let values: Vec<InputRef<'_>> = bound.iter().map(|b| (&b.value).into()).collect();
    Ok(context.run(&values)?)
}

/// Copies of all outputs, by name.
pub(crate) fn collect(model: &Model, context: &Context) -> Done<Vec<(String, HostValue)>> {
    let outputs = model.outputs().iter().enumerate();
    outputs.map(|(i, port)| Ok((port.name.clone(), context.output(i)?.to_host()?))).collect()
}

fn summary(outputs: &[(String, HostValue)]) -> Vec<String> {
    let row = |(name, value): &(String, HostValue)| {
        let mut row = vec![name.clone()];
        let Some(tensor) = value.tensor() else {
            let what = match value {
                HostValue::Sequence(items) => format!("sequence of {}", items.len()),
                other => other.kind().to_owned(),
            };
            row.extend([what]);
            return row;
        };
        row.extend([tensor.dtype().to_string(), format!("{:?}", tensor.shape())]);
        match (Summary::of(tensor, SHOWN), tensor.strings()) {
            (Some(s), _) => {
                row.extend(s.extremes.map_or([const { String::new() }; 3], |(least, mean, largest)| {
                    [least.to_string(), mean.to_string(), largest.to_string()]
                }));
                row.push(s.first.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            }
            (None, Some(texts)) => {
                row.extend(["", "", ""].map(str::to_owned));
                row.push(texts.iter().take(SHOWN).map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" "));
            }
            (None, None) => {}
        }
        row
    };
    let head = [
        ("output", Align::Left),
        ("type", Align::Left),
        ("shape", Align::Left),
        ("min", Align::Right),
        ("mean", Align::Right),
        ("max", Align::Right),
        ("first values", Align::Left),
    ];
    table(&head, &outputs.iter().map(row).collect::<Vec<_>>())
}

fn record(name: &str, value: &HostValue) -> serde_json::Value {
    let Some(tensor) = value.tensor() else { return json!({ "name": name, "kind": value.kind() }) };
    let mut record = json!({ "name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape() });
    // JSON has no NaN and no infinity: they become null, as does what an empty tensor has not.
    if let (Some(summary), Some(fields)) = (Summary::of(tensor, SHOWN), record.as_object_mut()) {
        let number = |n: Option<Number>| n.map_or(serde_json::Value::Null, |n| json!(n.value()));
        fields.insert("min".to_owned(), number(summary.extremes.map(|e| e.0)));
        fields.insert("mean".to_owned(), number(summary.extremes.map(|e| e.1)));
        fields.insert("max".to_owned(), number(summary.extremes.map(|e| e.2)));
        fields.insert("first".to_owned(), summary.first.iter().map(|n| json!(n.value())).collect());
    }
    record
}

fn write_outputs(path: &Path, outputs: &[(String, HostValue)]) -> Done {
    let mut arrays = Vec::with_capacity(outputs.len());
    for (name, value) in outputs {
        let Some(tensor) = value.tensor() else {
            let message = format!("output `{name}` is {}: an .npz holds tensors only", value.kind());
            return Err(CliError::failed(message, "run without --output; the summary tells what it holds"));
        };
        let array = Array::try_from(tensor).map_err(|e| CliError::from(e).in_output(name))?;
        arrays.push((name.as_str(), array));
    }
    Ok(npz::write_file(path, arrays.iter().map(|(name, array)| (*name, array)))?)
}

fn write_profile(path: &Path, context: &Context) -> Done {
    let steps = context.profile();
    let step = |s: &frit_runtime::session::StepTime| {
        json!({
            "program": s.program,
            "step": s.step,
            "name": s.name,
            "origin": s.origin,
            "microseconds": s.nanoseconds as f64 / 1e3,
            "calls": s.calls,
        })
    };
    let text = json!({ "steps": steps.iter().map(step).collect::<Vec<_>>() }).to_string();
    std::fs::write(path, text + "\n").map_err(|e| CliError::file(path, &e))
}
