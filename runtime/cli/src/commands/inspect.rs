//! `frit inspect`: what a model is, what it costs, what became of it and why.

use std::collections::BTreeMap;

use frit_compiler::kernel::Role;
use frit_compiler::plan::{Plan, PlanKernel, StateForm, Step};
use frit_ir::Module;
use frit_runtime::Model;
use frit_runtime::compile::Compiled;
use frit_runtime::load::load_module;
use serde_json::json;

use crate::args::{InputFlags, InspectArgs};
use crate::commands::compile::{pass_record, passes};
use crate::console::Console;
use crate::cost;
use crate::engine::{self, Subject};
use crate::error::{CliError, Done};
use crate::table::{Align, bytes, count, cut, milliseconds, table, time};

/// Remarks shown without `--kernels`.
const FEW: usize = 5;
/// Characters of an origin in a table.
const ORIGIN: usize = 60;

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::check_flags(&args.flags, &console)?;
    let ready = engine::ready(&args.model, args.trust, &args.flags, &InputFlags::default())?;
    let file = &ready.source.file;
    let stored;
    let (before, after, compiled) = match &ready.subject {
        Subject::Compiled(compiled, module) => (&**module, &compiled.module, Some(&**compiled)),
        Subject::Loaded(_) => {
            // Running it needs no module; what it computes is told from the one that the file holds.
            stored = load_module(file).map_err(|e| CliError::from(e).in_file(file))?;
            (&stored, &stored, None)
        }
    };
    let took = match compiled {
        Some(compiled) => format!("compiled in {}", time(compiled.times.total())),
        None => "nothing compiled".to_owned(),
    };
    console.line(format!("{}: read in {}, {took}", file.display(), time(ready.load_time)))?;
    if let Some(line) = ready.code_line() {
        console.line(line)?;
    }
    signature(ready.model(), &console)?;
    let facts = facts(before, after, ready.model().plan(), args);
    costs(&facts, &console)?;
    ops(before, after, ready.model(), &console)?;
    if let Some(compiled) = compiled {
        console.line("\npasses")?;
        for line in passes(compiled) {
            console.line(line)?;
        }
    }
    if args.kernels {
        kernels(ready.model().plan(), compiled, &console)?;
    }
    let remarks = compiled.map(remarks).unwrap_or_default();
    if compiled.is_some() {
        show_remarks(&remarks, args.kernels, &console)?;
    }
    let kernels = ready.model().plan().kernels.iter();
    console.json(&json!({
        "model": file.display().to_string(),
        "load_ms": milliseconds(ready.load_time),
        "compile_ms": milliseconds(ready.compile_time),
        "code": ready.code.name(),
        "recompiled_because": ready.recompiled_because(),
        "ops_before": cost::histogram(before),
        "ops_after": cost::histogram(after),
        "parameters": facts.parameters,
        "parameter_bytes": facts.parameter_bytes,
        "flops": facts.flops,
        "constant_bytes": facts.constant_bytes,
        "arena_bytes": facts.arena_bytes,
        "code_bytes": facts.code_bytes,
        "passes": compiled.map(|c| c.report.passes.iter().map(pass_record).collect::<Vec<_>>()).unwrap_or_default(),
        "kernels": kernels.map(|k| json!({ "name": k.name, "origin": k.origin })).collect::<Vec<_>>(),
        "remarks": remarks,
    }))
}

fn show_remarks(remarks: &[String], all: bool, console: &Console) -> Done {
    console.line(format!("\nremarks: {} things that were not done", remarks.len()))?;
    let shown = if all { remarks.len() } else { FEW.min(remarks.len()) };
    for remark in remarks.iter().take(shown) {
        console.line(format!("  {remark}"))?;
    }
    if shown < remarks.len() {
        console.line(format!("  ... and {} more; --kernels shows all, and every kernel", remarks.len() - shown))?;
    }
    Ok(())
}

/// Numbers of a model.
struct Facts {
    parameters: u64,
    parameter_bytes: u64,
    flops: u64,
    constant_bytes: u64,
    arena_bytes: u64,
    code_bytes: u64,
}

fn facts(before: &Module, after: &Module, plan: &Plan, args: &InspectArgs) -> Facts {
    let (parameters, parameter_bytes) = cost::parameters(before);
    Facts {
        parameters,
        parameter_bytes,
        flops: cost::flops(after, &args.flags.dims),
        constant_bytes: cost::constant_bytes(plan),
        arena_bytes: plan.programs.iter().map(|p| cost::arena_bytes(p, &args.flags.dims)).sum(),
        code_bytes: plan.code.len() as u64,
    }
}

fn signature(model: &Model, console: &Console) -> Done {
    for port in model.inputs() {
        console.line(format!("  input   {}: {}", port.name, port.ty))?;
    }
    for port in model.outputs() {
        console.line(format!("  output  {}: {}", port.name, port.ty))?;
    }
    for state in model.states() {
        let (input, output) = (&model.inputs()[state.input as usize], &model.outputs()[state.output as usize]);
        let how = match &state.form {
            StateForm::InPlace { .. } => "written in place".to_owned(),
            StateForm::Append { axis, .. } => format!("appended along axis {axis}"),
            StateForm::Copied { reason } => format!("copied: {reason}"),
        };
        console.line(format!("  state   {} <- {}: {how}", input.name, output.name))?;
    }
    Ok(())
}

fn costs(facts: &Facts, console: &Console) -> Done {
    let lines = [
        ("parameters", format!("{} ({})", count(facts.parameters), bytes(facts.parameter_bytes))),
        ("operations", format!("{} floating-point a run (symbolic extents as --dim says, else 1)", count(facts.flops))),
        ("memory", format!("{} at the peak, {} of constants", bytes(facts.arena_bytes), bytes(facts.constant_bytes))),
        ("code", bytes(facts.code_bytes)),
    ];
    console.line("\ncost")?;
    lines.iter().try_for_each(|(name, text)| console.line(format!("  {name:<11} {text}")))
}

fn ops(before: &Module, after: &Module, model: &Model, console: &Console) -> Done {
    let list = |counts: &BTreeMap<String, usize>| {
        let mut all: Vec<(&String, &usize)> = counts.iter().collect();
        all.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
        let texts: Vec<String> = all.into_iter().map(|(name, n)| format!("{name} {n}")).collect();
        (counts.values().sum::<usize>(), texts.join(", "))
    };
    let (before, imported) = list(&cost::histogram(before));
    let (after, core) = list(&cost::histogram(after));
    console.line("\nops")?;
    console.line(format!("  imported   {before}: {imported}"))?;
    console.line(format!("  core       {after}: {core}"))?;
    console.line(format!("  they run   as {}", model.ops()))
}

/// Every kernel; what it reads and writes is known of those that were just compiled.
fn kernels(plan: &Plan, compiled: Option<&Compiled>, console: &Console) -> Done {
    let sources = compiled.map_or(&[][..], |c| &c.kernels);
    let row = |(i, kernel): (usize, &PlanKernel)| {
        let of = |role: Role| match sources.get(i) {
            Some(source) => source.kernel.buffers.iter().filter(|b| b.role == role).count().to_string(),
            None => "?".to_owned(),
        };
        vec![
            kernel.name.clone(),
            (kernel.ops.generated + kernel.ops.view).to_string(),
            kernel.phases.len().to_string(),
            of(Role::Input),
            of(Role::Output),
            cut(&kernel.origin, ORIGIN),
        ]
    };
    let rows: Vec<Vec<String>> = plan.kernels.iter().enumerate().map(row).collect();
    let head = [
        ("kernel", Align::Left),
        ("ops", Align::Right),
        ("phases", Align::Right),
        ("reads", Align::Right),
        ("writes", Align::Right),
        ("computes", Align::Left),
    ];
    console.line(format!("\nkernels: {}", rows.len()))?;
    for line in table(&head, &rows) {
        console.line(line)?;
    }
    let mut calls = Vec::new();
    for step in plan.programs.iter().flat_map(|p| &p.steps) {
        if let Step::Library { call, origin, .. } = step {
            calls.push(vec![call.name().to_owned(), cut(origin, ORIGIN)]);
        }
    }
    console.line(format!("\nlibrary calls: {}", calls.len()))?;
    table(&[("call", Align::Left), ("computes", Align::Left)], &calls)
        .into_iter()
        .try_for_each(|line| console.line(line))
}

/// Why ops were not fused, loops are not vectors, rules did not fire.
fn remarks(compiled: &Compiled) -> Vec<String> {
    let mut all = Vec::new();
    for pass in &compiled.report.passes {
        for r in &pass.remarks {
            all.push(format!("not fused: {} and {}: {}", r.producer, r.consumer, r.reason));
        }
        for miss in &pass.near_misses {
            all.push(format!("rule {} did not fire at {}: {}", miss.rule, miss.origin, miss.reason));
        }
    }
    all.extend(compiled.remarks.iter().cloned());
    all
}
