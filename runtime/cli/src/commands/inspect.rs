//! `frit inspect`: what a model is, what it costs, what became of it and why.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use frit_compiler::cost::{Level, Rates};
use frit_compiler::plan::{Bind, Plan, Program, StateForm};
use frit_ir::{Module, Symbol};
use frit_runtime::Model;
use frit_runtime::compile::Compiled;
use frit_runtime::load::load_module;
use frit_runtime::machine::measure;
use frit_runtime::pool::Pool;
use serde_json::json;

use crate::args::InspectArgs;
use crate::commands::compile::{pass_record, passes};
use crate::commands::kernels::{self, Edge, Kind, Row};
use crate::console::Console;
use crate::cost;
use crate::engine::{self, Ready, Subject};
use crate::error::{CliError, Done};
use crate::inputs::{self, Bound};
use crate::table::{Align, bytes, count, cut, milliseconds, table, time};

/// Remarks shown without `--kernels`.
const FEW: usize = 5;
/// Reasons shown of an edge; --json gives all.
const REASONS: usize = 3;
/// Characters of a line.
const WIDTH: usize = 120;

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    inputs::check_files(&args.inputs)?;
    engine::check_flags(&args.flags, &console)?;
    let ready = engine::ready(&args.model, args.trust, &args.flags, &args.inputs)?;
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
    let surveyed = if args.kernels { kernels(args, &ready, &console)? } else { named(ready.model().plan()) };
    let remarks = compiled.map(remarks).unwrap_or_default();
    if compiled.is_some() {
        show_remarks(&remarks, args.kernels, &console)?;
    }
    let mut record = json!({
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
        "remarks": remarks,
    });
    if let (Some(record), serde_json::Value::Object(surveyed)) = (record.as_object_mut(), surveyed) {
        record.extend(surveyed);
    }
    console.json(&record)
}

/// Kernels that nobody timed.
fn named(plan: &Plan) -> serde_json::Value {
    let kernels = plan.kernels.iter().map(|k| json!({ "name": k.name, "origin": k.origin }));
    json!({ "kernels": kernels.collect::<Vec<_>>() })
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

/// Every step of the plan with what it takes, then what the kernels hand to each other.
fn kernels(args: &InspectArgs, ready: &Ready, console: &Console) -> Done<serde_json::Value> {
    let (model, compiled) = (ready.model(), ready.compiled());
    let bound = inputs::complete(&engine::ports_of(model), ready.given.clone(), &args.flags.dims, args.inputs.seed)?;
    let threads = Pool::global().threads();
    let times = match kernels::measure(&mut model.context(), &bound) {
        Ok(times) => times,
        Err(error) => {
            console.note(format!("the model does not run on these inputs, so nothing is timed: {}", error.message));
            kernels::Times::new()
        }
    };
    let extents = extents_of(model.program(), &bound);
    let lookup = |s: &Symbol| extents.get(s).copied();
    let start = Instant::now();
    let rates = measure(engine::vectors(&args.flags), threads, kernels::working_set(model.plan(), &lookup))?;
    let took = start.elapsed();
    let survey = kernels::survey(model.plan(), compiled, &lookup, &times, &rates, threads);
    console.line(format!(
        "\nmachine: {threads} thread(s), vectors of {:.0} bits, {:.1} GFLOP/s; {} (measured in {})",
        rates.lanes * 32.0,
        rates.peak(threads),
        rates.together.iter().map(memory).collect::<Vec<_>>().join(", "),
        time(took),
    ))?;
    for line in inputs::describe(&bound, args.inputs.seed) {
        console.line(line)?;
    }
    console.line(format!(
        "\nsteps: {} (time: median of many runs; model: what the cost model expects; share: of the limit)",
        survey.rows.len()
    ))?;
    for line in table(&HEAD, &survey.rows.iter().map(cells).collect::<Vec<_>>()) {
        console.line(cut(&line, WIDTH))?;
    }
    for row in &survey.rows {
        console.line(format!("\n  {}.{} {}", row.program, row.step, row.name))?;
        let ops: Vec<String> = row.ops.iter().map(|(op, n)| format!("{op} {n}")).collect();
        for (what, words) in [("ops", &ops), ("nodes", &row.nodes)] {
            wrapped(&format!("    {what:<6}"), words, console)?;
        }
    }
    console.line(format!("\nedges: {} values that steps hand to each other through memory", survey.edges.len()))?;
    for edge in &survey.edges {
        let mut reasons: Vec<String> = edge.reasons.iter().take(REASONS).cloned().collect();
        if reasons.len() < edge.reasons.len() {
            reasons.push(format!("and {} more", edge.reasons.len() - reasons.len()));
        }
        wrapped(&format!("  {}: {} -> {}  ", edge.program, edge.from, edge.to), &reasons, console)?;
    }
    Ok(json!({
        "machine": machine(&rates, threads, took),
        "kernels": survey.rows.iter().map(record).collect::<Vec<_>>(),
        "edges": survey.edges.iter().map(edge_record).collect::<Vec<_>>(),
    }))
}

const HEAD: [(&str, Align); 10] = [
    ("step", Align::Left),
    ("what", Align::Left),
    ("ops", Align::Right),
    ("read", Align::Right),
    ("written", Align::Right),
    ("flops", Align::Right),
    ("time", Align::Right),
    ("model", Align::Right),
    ("limit", Align::Left),
    ("share", Align::Right),
];

fn cells(row: &Row) -> Vec<String> {
    let unknown = || "?".to_owned();
    let nanoseconds = |n: f64| time(Duration::from_nanos(n.max(0.0) as u64));
    let size = |n: f64| bytes(n as u64);
    vec![
        format!("{}.{}", cut(&row.program, 8), row.step),
        cut(&row.name, 28),
        match row.kind {
            Kind::Generated => row.ops.values().sum::<usize>().to_string(),
            Kind::Library | Kind::Host => row.kind.name().to_owned(),
        },
        row.touched.map_or_else(unknown, |t| size(t.read)),
        row.touched.map_or_else(unknown, |t| size(t.written)),
        row.flops.map_or_else(unknown, |n| count(n as u64)),
        row.median.map_or_else(unknown, nanoseconds),
        row.estimate.map_or_else(unknown, |e| nanoseconds(e.total())),
        row.limit.as_ref().map_or_else(unknown, |l| l.name.to_owned()),
        row.share().map_or_else(unknown, |s| format!("{:.0}%", s * 100.0)),
    ]
}

fn memory(level: &Level) -> String {
    format!("{} {:.0}/{:.0}", level.name, 1.0 / level.read, 1.0 / level.write) + " GB/s"
}

/// Words behind a head, as many lines as they need.
fn wrapped(head: &str, words: &[String], console: &Console) -> Done {
    let mut line = head.to_owned();
    let indent = head.chars().count();
    for (i, word) in words.iter().enumerate() {
        let word = if i + 1 < words.len() { format!("{word}, ") } else { word.clone() };
        if line.chars().count() > indent && line.chars().count() + word.trim_end().chars().count() > WIDTH {
            console.line(line.trim_end())?;
            line = " ".repeat(indent);
        }
        line.push_str(&word);
    }
    if words.is_empty() { Ok(()) } else { console.line(line.trim_end()) }
}

/// Values of the entry's symbols, from its inputs.
fn extents_of(program: &Program, bound: &[Bound]) -> HashMap<Symbol, i64> {
    let value = |bind: &Bind| {
        let symbol = program.symbols.get(bind.symbol as usize)?.clone();
        let shape = bound.get(bind.input as usize)?.value.tensor()?.shape();
        Some((symbol, i64::try_from(*shape.get(bind.axis as usize)?).ok()?))
    };
    program.binds.iter().filter_map(value).collect()
}

fn record(row: &Row) -> serde_json::Value {
    let micro = |n: f64| n / 1e3;
    json!({
        "program": row.program,
        "step": row.step,
        "name": row.name,
        "kind": row.kind.name(),
        "ops": row.ops,
        "nodes": row.nodes,
        "bytes_read": row.touched.map(|t| t.read),
        "bytes_written": row.touched.map(|t| t.written),
        "flops": row.flops,
        "calls": row.calls,
        "median_us": row.median.map(micro),
        "fastest_us": row.fastest.map(micro),
        "predicted_us": row.estimate.map(|e| micro(e.total())),
        "predicted": row.estimate.map(|e| json!({
            "arithmetic_us": micro(e.arithmetic),
            "memory_us": micro(e.memory),
            "overhead_us": micro(e.overhead),
        })),
        "limit": row.limit.as_ref().map(|l| if l.name == "arithmetic" { l.name } else { "memory" }),
        "memory": row.limit.as_ref().map(|l| l.name).filter(|n| *n != "arithmetic"),
        "limit_us": row.limit.as_ref().map(|l| micro(l.nanoseconds)),
        "share": row.share(),
    })
}

fn edge_record(edge: &Edge) -> serde_json::Value {
    json!({ "program": edge.program, "from": edge.from, "to": edge.to, "reasons": edge.reasons })
}

fn machine(rates: &Rates, threads: usize, took: Duration) -> serde_json::Value {
    let levels = |all: &[Level]| -> Vec<serde_json::Value> {
        let level = |l: &Level| json!({ "name": l.name, "bytes": l.bytes, "read_gb_s": 1.0 / l.read, "write_gb_s": 1.0 / l.write });
        all.iter().map(level).collect()
    };
    json!({
        "threads": threads,
        "vector_bits": rates.lanes * 32.0,
        "peak_gflops": rates.peak(threads),
        "measured_ms": milliseconds(took),
        "nanoseconds": {
            "product": rates.product, "sum": rates.sum, "issue": rates.issue, "division": rates.division, "root": rates.root,
            "load": rates.load, "store": rates.store, "apart": rates.apart, "far": rates.far, "sum_chain": rates.sum_chain,
            "extreme_chain": rates.extreme_chain, "entry": rates.entry, "scalar": rates.scalar, "call": rates.call,
            "step": rates.step, "fork": rates.fork,
        },
        "memory": levels(&rates.together),
        "memory_of_one_thread": levels(&rates.alone),
    })
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
