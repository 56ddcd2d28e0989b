//! `frit inspect`: what a model is, what it costs, what became of it and why.

use std::collections::BTreeMap;

use frit_compiler::kernel::Role;
use frit_compiler::plan::Step;
use frit_runtime::compile::Compiled;
use serde_json::json;

use crate::args::InspectArgs;
use crate::commands::compile::{pass_record, passes};
use crate::console::Console;
use crate::cost;
use crate::engine::{self, Loaded};
use crate::error::Done;
use crate::inputs;
use crate::table::{Align, bytes, count, cut, milliseconds, table, time};

/// Remarks shown without `--kernels`.
const FEW: usize = 5;
/// Characters of an origin in a table.
const ORIGIN: usize = 60;

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    let loaded = engine::load(&args.model)?;
    let file = &loaded.source.file;
    let ports = engine::inputs_of(&loaded.module);
    let given = inputs::given(&ports, &Default::default(), loaded.source.case.as_deref())?;
    let compiled =
        engine::compile(&loaded.module, &engine::options(&args.flags), &given).map_err(|e| e.in_file(file))?;
    console.line(format!(
        "{}: read in {}, compiled in {}",
        file.display(),
        time(loaded.time),
        time(compiled.times.total())
    ))?;
    signature(&compiled, &console)?;
    let facts = facts(&loaded, &compiled, args);
    costs(&facts, &console)?;
    ops(&loaded, &compiled, &console)?;
    console.line("\npasses")?;
    for line in passes(&compiled) {
        console.line(line)?;
    }
    if args.kernels {
        kernels(&compiled, &console)?;
    }
    let remarks = remarks(&compiled);
    console.line(format!("\nremarks: {} things that were not done", remarks.len()))?;
    let shown = if args.kernels { remarks.len() } else { FEW.min(remarks.len()) };
    for remark in remarks.iter().take(shown) {
        console.line(format!("  {remark}"))?;
    }
    if shown < remarks.len() {
        console.line(format!("  ... and {} more; --kernels shows all, and every kernel", remarks.len() - shown))?;
    }
    console.json(&json!({
        "model": file.display().to_string(),
        "load_ms": milliseconds(loaded.time),
        "compile_ms": milliseconds(compiled.times.total()),
        "ops_before": cost::histogram(&loaded.module),
        "ops_after": cost::histogram(&compiled.module),
        "parameters": facts.parameters,
        "parameter_bytes": facts.parameter_bytes,
        "flops": facts.flops,
        "constant_bytes": facts.constant_bytes,
        "arena_bytes": facts.arena_bytes,
        "code_bytes": facts.code_bytes,
        "passes": compiled.report.passes.iter().map(pass_record).collect::<Vec<_>>(),
        "kernels": compiled.kernels.iter().map(|k| json!({ "name": k.kernel.name, "origin": k.origin })).collect::<Vec<_>>(),
        "remarks": remarks,
    }))
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

fn facts(loaded: &Loaded, compiled: &Compiled, args: &InspectArgs) -> Facts {
    let (parameters, parameter_bytes) = cost::parameters(&loaded.module);
    let plan = compiled.model.plan();
    Facts {
        parameters,
        parameter_bytes,
        flops: cost::flops(&compiled.module, &args.flags.dims),
        constant_bytes: cost::constant_bytes(plan),
        arena_bytes: plan.programs.iter().map(|p| cost::arena_bytes(p, &args.flags.dims)).sum(),
        code_bytes: plan.code.len() as u64,
    }
}

fn signature(compiled: &Compiled, console: &Console) -> Done {
    for port in compiled.model.inputs() {
        console.line(format!("  input   {}: {}", port.name, port.ty))?;
    }
    for port in compiled.model.outputs() {
        console.line(format!("  output  {}: {}", port.name, port.ty))?;
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

fn ops(loaded: &Loaded, compiled: &Compiled, console: &Console) -> Done {
    let list = |counts: &BTreeMap<String, usize>| {
        let mut all: Vec<(&String, &usize)> = counts.iter().collect();
        all.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
        let texts: Vec<String> = all.into_iter().map(|(name, n)| format!("{name} {n}")).collect();
        (counts.values().sum::<usize>(), texts.join(", "))
    };
    let (before, imported) = list(&cost::histogram(&loaded.module));
    let (after, core) = list(&cost::histogram(&compiled.module));
    console.line("\nops")?;
    console.line(format!("  imported   {before}: {imported}"))?;
    console.line(format!("  core       {after}: {core}"))?;
    console.line(format!("  they run   as {}", compiled.model.ops()))
}

fn kernels(compiled: &Compiled, console: &Console) -> Done {
    let rows: Vec<Vec<String>> = compiled
        .kernels
        .iter()
        .zip(&compiled.model.plan().kernels)
        .map(|(source, plan)| {
            let of = |role: Role| source.kernel.buffers.iter().filter(|b| b.role == role).count().to_string();
            vec![
                source.kernel.name.clone(),
                (plan.ops.generated + plan.ops.view).to_string(),
                source.kernel.phases.len().to_string(),
                of(Role::Input),
                of(Role::Output),
                cut(&source.origin, ORIGIN),
            ]
        })
        .collect();
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
    for step in compiled.model.plan().programs.iter().flat_map(|p| &p.steps) {
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
