//! `frit compile`: a model through all stages; what each did, or one stage as text. (ONNX models: see `onnx`.)

use frit_compiler::artifact;
use frit_compiler::cpu::{CodeOptions, compile_text};
use frit_compiler::cuda;
use frit_compiler::kernel::expand::expand;
use frit_compiler::plan::build::KernelSource;
use frit_ir::text::{self, ConstantPool, PrintOptions};
use frit_runtime::compile::Compiled;
use serde_json::json;
use std::collections::HashSet;

use crate::args::{CompileArgs, Emit};
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::table::{Align, bytes, milliseconds, table, time};

/// Runs the command.
pub(crate) fn run(args: &CompileArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::check_flags(&args.flags, &console)?;
    if let Some(path) = args.output.as_ref().filter(|path| path.extension().is_none_or(|e| e != "fritc"))
        && args.emit.is_none()
    {
        let message = format!("{}: a compiled model's name ends in .fritc", path.display());
        return Err(CliError::usage(message, "rename it, or say with --emit which stage to write"));
    }
    args.output.iter().try_for_each(|path| CliError::check_output(path))?;
    let loaded = engine::load(&args.model)?;
    let file = &loaded.source.file;
    let ports = engine::inputs_of(&loaded.module);
    let given = crate::inputs::given(&ports, &Default::default(), loaded.source.case.as_deref())?;
    if args.emit == Some(Emit::Onnx) {
        return super::onnx::emit(&loaded, &given, args, &console).map_err(|e| e.in_file(file));
    }
    let compiled = engine::compile_loaded(&loaded, &args.flags, &given)?;
    if let Some(stage) = args.emit {
        return emit(&compiled, stage, args, &console);
    }
    if let Some(path) = &args.output {
        artifact::write_file(compiled.model.plan(), &compiled.module, path)?;
    }
    for line in passes(&compiled) {
        console.line(line)?;
    }
    let times = compiled.times;
    let code = compiled.model.plan().code.len() as u64;
    console.line(format!(
        "plan    {} kernels, {} in {}",
        compiled.kernels.len(),
        compiled.model.ops(),
        time(times.plan)
    ))?;
    console.line(format!("code    {} of machine code in {}", bytes(code), time(times.code)))?;
    console.line(format!("total   {} (reading the file: {})", time(times.total()), time(loaded.time)))?;
    console.json(&json!({
        "model": file.display().to_string(),
        "load_ms": milliseconds(loaded.time),
        "passes_ms": milliseconds(times.passes),
        "plan_ms": milliseconds(times.plan),
        "code_ms": milliseconds(times.code),
        "compile_ms": milliseconds(times.total()),
        "kernels": compiled.kernels.len(),
        "code_bytes": code,
        "passes": compiled.report.passes.iter().map(pass_record).collect::<Vec<_>>(),
    }))
}

/// A pass as JSON.
pub(crate) fn pass_record(pass: &frit_passes::manager::PassReport) -> serde_json::Value {
    json!({
        "pass": pass.step,
        "ms": pass.seconds * 1e3,
        "ops_before": pass.ops_before,
        "ops_after": pass.ops_after,
        "rules": pass.fired,
        "near_misses": pass.near_miss_count,
    })
}

/// A line for each pass: ops before and after, time, rules that fired most.
pub(crate) fn passes(compiled: &Compiled) -> Vec<String> {
    const RULES: usize = 4;
    let row = |pass: &frit_passes::manager::PassReport| {
        let mut rules: Vec<(&str, u64)> = pass.fired.iter().map(|(rule, n)| (*rule, *n)).collect();
        rules.sort_by_key(|(rule, n)| (std::cmp::Reverse(*n), *rule));
        let more = if rules.len() > RULES { ", ..." } else { "" };
        let shown: Vec<String> = rules.iter().take(RULES).map(|(rule, n)| format!("{rule} x{n}")).collect();
        vec![
            pass.step.clone(),
            pass.ops_before.to_string(),
            pass.ops_after.to_string(),
            time(std::time::Duration::from_secs_f64(pass.seconds.max(0.0))),
            if shown.is_empty() { "nothing to do".to_owned() } else { shown.join(", ") + more },
        ]
    };
    let head = [
        ("pass", Align::Left),
        ("ops", Align::Right),
        ("then", Align::Right),
        ("time", Align::Right),
        ("rules", Align::Left),
    ];
    table(&head, &compiled.report.passes.iter().map(row).collect::<Vec<_>>())
}

fn emit(compiled: &Compiled, stage: Emit, args: &CompileArgs, console: &Console) -> Done {
    let options = PrintOptions { short_sources: true, used_params: true, ..PrintOptions::default() };
    if let (Emit::Frit, Some(path)) = (stage, &args.output) {
        return Ok(text::write_file_with(&compiled.module, path, &options)?);
    }
    let text = match stage {
        Emit::Frit => {
            let inline = PrintOptions { short_sources: true, used_params: true, ..PrintOptions::inline() };
            text::print(&compiled.module, &inline, &mut ConstantPool::default())
        }
        Emit::Onnx => return Err(CliError::internal("an ONNX model is written before code is made")),
        Emit::Loops => loops(compiled),
        Emit::Clif | Emit::Asm => machine_text(compiled, stage, args).map_err(|e| e.in_file(&args.model))?,
        Emit::Cuda => cuda_text(compiled).map_err(|e| e.in_file(&args.model))?,
    };
    match &args.output {
        Some(path) => std::fs::write(path, text).map_err(|e| CliError::file(path, &e)),
        None => console.text(&text),
    }
}

/// Loop IR of all kernels, each under its schedule.
fn loops(compiled: &Compiled) -> String {
    let mut all = String::new();
    for KernelSource { kernel, schedule, origin, .. } in &compiled.kernels {
        all.push_str(&format!("; {origin}\n"));
        if !schedule.directives.is_empty() {
            all.push_str(&format!("; schedule: {schedule}\n"));
        }
        all.push_str(&format!("{kernel}\n"));
    }
    all
}

/// Every kernel as CUDA C++, one after another: one translation unit, so that names which come again get a number.
fn cuda_text(compiled: &Compiled) -> Done<String> {
    let mut all = String::new();
    let mut names: HashSet<String> = HashSet::new();
    for KernelSource { kernel, origin, .. } in &compiled.kernels {
        let mut expanded = kernel.clone();
        let numbered = (2..).map(|n| format!("{}_{n}", kernel.name));
        let free = std::iter::once(kernel.name.clone()).chain(numbered).find(|name| !names.contains(name));
        expanded.name = free.unwrap_or_default();
        names.insert(expanded.name.clone());
        expand(&mut expanded).map_err(|e| CliError::internal(format!("kernel `{}`: {e}", kernel.name)))?;
        let text = cuda::emit(&expanded).map_err(|e| CliError::failed(e, "use --emit loops to see the kernel"))?;
        all.push_str(&format!("// {}: {origin}\n{text}\n", kernel.name));
    }
    Ok(all)
}

/// Cranelift IR or instructions of all kernels.
fn machine_text(compiled: &Compiled, stage: Emit, args: &CompileArgs) -> Done<String> {
    let options = CodeOptions { vectors: engine::vectors(&args.flags), ..CodeOptions::host()? };
    let mut all = String::new();
    for source in &compiled.kernels {
        let mut kernel = source.kernel.clone();
        expand(&mut kernel).map_err(|e| CliError::internal(format!("kernel `{}`: {e}", kernel.name)))?;
        let (clif, asm) = compile_text(&kernel, &source.schedule, &options)?;
        all.push_str(&format!("; kernel {}: {}\n", source.kernel.name, source.origin));
        all.push_str(if stage == Emit::Clif { &clif } else { &asm });
        all.push('\n');
    }
    Ok(all)
}
