//! What every step of a plan does and takes: `frit inspect --kernels`.
//!
//! In: a model, its kernels' sources where it was just compiled, values of its inputs. Out: a [`Survey`]: for each step its
//! ops and ONNX nodes, floating-point operations, bytes, the time that the cost model expects and the median of many
//! runs, and which limit of the machine it is closer to; for each value that goes from one kernel to another why both
//! are not one kernel. Bytes count every element that a step can reach once. A value is taken to lie in the smallest
//! memory that holds all that was touched since it was touched last (runs follow each other).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use frit_compiler::cost::count::{Touched, Work, count};
use frit_compiler::cost::{Estimate, Rates, at_work};
use frit_compiler::kernel::expand::expand;
use frit_compiler::plan::build::{KernelSource, Part};
use frit_compiler::plan::{DimId, LibraryCall, Place, Plan, Program, SlotId, Step};
use frit_ir::Symbol;
use frit_runtime::Context;
use frit_runtime::compile::Compiled;
use frit_runtime::session::StepTime;

use crate::commands::run::execute;
use crate::error::Done;
use crate::inputs::Bound;

/// Runs that settle caches and clocks.
const WARM_UP: Duration = Duration::from_millis(30);
/// How long runs are timed.
const TIMED: Duration = Duration::from_millis(200);
/// Most runs that are timed.
const MOST_RUNS: usize = 400;

/// Who does the work of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A generated kernel.
    Generated,
    /// A call of the library.
    Library,
    /// The host.
    Host,
}

impl Kind {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Generated => "generated",
            Kind::Library => "library",
            Kind::Host => "host",
        }
    }
}

/// What the machine allows a step at best.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    /// The limit that is closer: `arithmetic`, or the memory by name.
    pub(crate) name: &'static str,
    /// Nanoseconds at that limit.
    pub(crate) nanoseconds: f64,
}

/// A step of a program.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The program.
    pub(crate) program: String,
    /// Its place in the program.
    pub(crate) step: usize,
    /// Kernel's name, call, or kind of step.
    pub(crate) name: String,
    /// Who does it.
    pub(crate) kind: Kind,
    /// Ops, and how many of each.
    pub(crate) ops: BTreeMap<&'static str, usize>,
    /// ONNX nodes that it computes a part of.
    pub(crate) nodes: Vec<String>,
    /// Bytes read and written; `None` where extents are known only later, or no source is at hand.
    pub(crate) touched: Option<Touched>,
    /// Floating-point operations.
    pub(crate) flops: Option<f64>,
    /// What the cost model expects.
    pub(crate) estimate: Option<Estimate>,
    /// What the machine allows.
    pub(crate) limit: Option<Limit>,
    /// Median nanoseconds of a call.
    pub(crate) median: Option<f64>,
    /// The fastest.
    pub(crate) fastest: Option<f64>,
    /// Calls a run.
    pub(crate) calls: u64,
}

impl Row {
    /// The time at the limit over the time that it took.
    pub(crate) fn share(&self) -> Option<f64> {
        Some(self.limit.as_ref()?.nanoseconds / self.median.filter(|m| *m > 0.0)?)
    }
}

/// A value from one step to another.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// The program.
    pub(crate) program: String,
    /// The step that writes it.
    pub(crate) from: usize,
    /// A step that reads it.
    pub(crate) to: usize,
    /// Why both are not one kernel.
    pub(crate) reasons: Vec<String>,
}

/// All steps and edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// In order.
    pub(crate) rows: Vec<Row>,
    /// In order of the readers.
    pub(crate) edges: Vec<Edge>,
}

/// Bytes that a run of a plan may touch.
pub(crate) fn working_set(plan: &Plan, extents: &dyn Fn(&Symbol) -> Option<i64>) -> f64 {
    let slots = plan.programs.iter().flat_map(|p| (0..p.slots.len() as u32).map(move |i| (p, SlotId(i))));
    slots.filter(|(p, slot)| p.root(*slot) == *slot).filter_map(|(p, slot)| bytes(p, slot, extents)).sum()
}

/// Surveys a plan: `extents` are the values of symbols.
pub(crate) fn survey(
    plan: &Plan,
    compiled: Option<&Compiled>,
    extents: &dyn Fn(&Symbol) -> Option<i64>,
    times: &Times,
    rates: &Rates,
    threads: usize,
) -> Survey {
    let sources = compiled.map_or(&[][..], |c| &c.kernels);
    let mut survey = Survey::default();
    for program in &plan.programs {
        let steps: Vec<Counted> = program.steps.iter().map(|s| counted(program, s, sources, extents)).collect();
        let memory = memory_times(program, &steps, rates, threads);
        for (i, ((step, counted), memory)) in program.steps.iter().zip(&steps).zip(memory).enumerate() {
            let mut row = row(plan, program, i, step, sources);
            let time = times.get(&(program.name.clone(), i));
            (row.median, row.fastest) = time.map(|t| (t.median, t.fastest)).unzip();
            row.calls = time.map_or(0, |t| t.calls);
            row.flops = counted.flops;
            if let Some(all) = &counted.touched {
                let sum = all.iter().fold(Touched::default(), |sum, (_, t)| Touched {
                    read: sum.read + t.read,
                    written: sum.written + t.written,
                });
                row.touched = Some(sum);
                row.limit = Some(limit(rates, threads, counted.flops.unwrap_or(0.0), &memory));
            }
            row.estimate = match (&counted.work, row.kind, &counted.touched) {
                (Some(work), _, Some(_)) => Some(rates.estimate(work, threads, memory.nanoseconds)),
                (None, Kind::Library, Some(_)) => Some(Estimate {
                    arithmetic: counted.flops.unwrap_or(0.0) / rates.peak(threads),
                    memory: memory.nanoseconds,
                    overhead: rates.step,
                }),
                _ => None,
            };
            survey.rows.push(row);
        }
        survey.edges.extend(edges(program, sources, compiled));
    }
    survey
}

fn limit(rates: &Rates, threads: usize, flops: f64, memory: &Memory) -> Limit {
    let arithmetic = flops / rates.peak(threads);
    if arithmetic > memory.nanoseconds {
        Limit { name: "arithmetic", nanoseconds: arithmetic }
    } else {
        Limit { name: memory.level, nanoseconds: memory.nanoseconds }
    }
}

/// What is counted of a step.
#[derive(Default)]
struct Counted {
    work: Option<Work>,
    flops: Option<f64>,
    /// Storage and what is touched of it.
    touched: Option<Vec<(SlotId, Touched)>>,
}

fn counted(
    program: &Program,
    step: &Step,
    sources: &[KernelSource],
    extents: &dyn Fn(&Symbol) -> Option<i64>,
) -> Counted {
    let whole = |slots: &[SlotId], written: bool| -> Option<Vec<(SlotId, Touched)>> {
        let each = slots.iter().map(|slot| {
            let bytes = bytes(program, *slot, extents)?;
            let touched =
                if written { Touched { read: 0.0, written: bytes } } else { Touched { read: bytes, written: 0.0 } };
            Some((program.root(*slot), touched))
        });
        each.collect()
    };
    match step {
        Step::Kernel { kernel, arguments, .. } => {
            let work = sources.get(kernel.index()).and_then(|source| {
                let mut kernel = source.kernel.clone();
                expand(&mut kernel).ok()?;
                let dims = kernel.dims.clone();
                let value = |s: &Symbol| dims.iter().find(|d| d.symbol == *s)?.value.eval(extents);
                count(&kernel, &source.schedule, &value)
            });
            let touched = work
                .as_ref()
                .map(|w| arguments.iter().zip(&w.arguments).map(|(slot, t)| (program.root(*slot), *t)).collect());
            Counted { flops: work.as_ref().map(Work::flops), touched, work }
        }
        Step::Library { call, operands, results, .. } => {
            let touched = whole(operands, false).zip(whole(results, true));
            let touched = touched.map(|(read, written)| read.into_iter().chain(written).collect());
            Counted { flops: library_flops(program, call, operands, results, extents), touched, work: None }
        }
        Step::Copy { from, to } => {
            let touched = whole(&[*from], false).zip(whole(&[*to], true));
            Counted { touched: touched.map(|(a, b)| a.into_iter().chain(b).collect()), ..Counted::default() }
        }
        Step::Compact { .. }
        | Step::If { .. }
        | Step::Loop { .. }
        | Step::Call { .. }
        | Step::Assert { .. }
        | Step::Sequence { .. } => Counted::default(),
    }
}

fn elements(program: &Program, slot: SlotId, extents: &dyn Fn(&Symbol) -> Option<i64>) -> Option<f64> {
    let slot = program.slots.get(slot.index())?;
    let dims = slot.dims.iter().map(|d| program.dims.get(d.index())?.eval(extents));
    dims.map(|d| d.map(|n| n as f64)).product()
}

fn bytes(program: &Program, slot: SlotId, extents: &dyn Fn(&Symbol) -> Option<i64>) -> Option<f64> {
    let ty = program.slots.get(slot.index())?.ty.tensor()?;
    Some(elements(program, slot, extents)? * ty.dtype.size() as f64)
}

fn library_flops(
    program: &Program,
    call: &LibraryCall,
    operands: &[SlotId],
    results: &[SlotId],
    extents: &dyn Fn(&Symbol) -> Option<i64>,
) -> Option<f64> {
    let first_extent = |slot: SlotId| {
        let id = program.slots.get(slot.index())?.dims.first()?;
        program.dims.get(id.index())?.eval(extents).map(|n| n as f64)
    };
    match (call, operands, results) {
        (LibraryCall::MatMul { batch, m, n, k, epilogue, .. }, ..) => {
            let extent = |d: &DimId| program.dims.get(d.index())?.eval(extents).map(|n| n as f64);
            let results = batch.iter().chain([m, n]).map(extent).product::<Option<f64>>()?;
            Some(results * (2.0 * extent(k)? + epilogue.ops().count() as f64))
        }
        (LibraryCall::Conv { .. }, [_, w, ..], [y, ..]) => {
            let each = elements(program, *w, extents)? / first_extent(*w)?.max(1.0);
            Some(2.0 * each * elements(program, *y, extents)?)
        }
        (LibraryCall::ConvTranspose { .. }, [x, w, ..], _) => {
            let each = elements(program, *w, extents)? / first_extent(*w)?.max(1.0);
            Some(2.0 * each * elements(program, *x, extents)?)
        }
        (LibraryCall::Sort { .. } | LibraryCall::Concat { .. }, ..) => Some(0.0),
        (LibraryCall::Conv { .. } | LibraryCall::ConvTranspose { .. }, ..) => None,
    }
}

/// What a step's memory takes.
struct Memory {
    nanoseconds: f64,
    /// The memory that most of the time goes to.
    level: &'static str,
}

/// Memory times of the steps of a program that runs again and again.
fn memory_times(program: &Program, steps: &[Counted], rates: &Rates, threads: usize) -> Vec<Memory> {
    let mut touched_at: HashMap<SlotId, f64> = HashMap::new();
    let mut clock = 0.0;
    let mut times = Vec::new();
    // The second round finds everything as the first one left it.
    for _ in 0..2 {
        times.clear();
        for (step, counted) in program.steps.iter().zip(steps) {
            let all = matches!(step, Step::Library { .. })
                || counted.work.as_ref().is_some_and(|w| w.phases.iter().any(|p| at_work(p, threads) > 1.0));
            let list = counted.touched.as_deref().unwrap_or_default();
            let own: f64 = list.iter().map(|(_, t)| t.read.max(t.written)).sum();
            let mut by_level: BTreeMap<&'static str, f64> = BTreeMap::new();
            for (slot, t) in list {
                let since = touched_at.get(slot).map_or(f64::INFINITY, |at| clock - at);
                let Some(level) = rates.level(since.max(own), all) else { continue };
                *by_level.entry(level.name).or_default() += t.read * level.read + t.written * level.write;
            }
            clock += own;
            list.iter().for_each(|(slot, _)| {
                touched_at.insert(*slot, clock);
            });
            let most = by_level.iter().max_by(|a, b| a.1.total_cmp(b.1));
            let level = most.map_or("L1", |(name, _)| name);
            times.push(Memory { nanoseconds: by_level.values().sum(), level });
        }
    }
    times
}

fn row(plan: &Plan, program: &Program, i: usize, step: &Step, sources: &[KernelSource]) -> Row {
    let (mut ops, mut nodes) = (BTreeMap::new(), Vec::new());
    let (name, kind) = match step {
        Step::Kernel { kernel, .. } => {
            let planned = plan.kernels.get(kernel.index());
            let parts = sources.get(kernel.index()).map_or(&[][..], |s| &s.parts);
            for part in parts {
                *ops.entry(part.op).or_insert(0) += 1;
                add_nodes(&mut nodes, &part.origin);
            }
            if parts.is_empty() {
                add_nodes(&mut nodes, planned.map_or("", |k| &k.origin));
            }
            (planned.map_or("kernel", |k| &k.name).to_owned(), Kind::Generated)
        }
        Step::Library { call, origin, .. } => {
            add_nodes(&mut nodes, origin);
            if let LibraryCall::MatMul { epilogue, .. } = call {
                ops.extend(epilogue.ops().map(|op| (op, 1)));
            }
            (call.name().to_owned(), Kind::Library)
        }
        Step::Compact { .. } => ("compact".to_owned(), Kind::Host),
        Step::Copy { .. } => ("copy".to_owned(), Kind::Host),
        Step::If { origin, .. } => host("if", origin, &mut nodes),
        Step::Loop { origin, .. } => host("loop", origin, &mut nodes),
        Step::Call { origin, .. } => host("call", origin, &mut nodes),
        Step::Assert { origin, .. } => host("assert", origin, &mut nodes),
        Step::Sequence { origin, .. } => host("sequence", origin, &mut nodes),
    };
    Row {
        program: program.name.clone(),
        step: i,
        name,
        kind,
        ops,
        nodes,
        touched: None,
        flops: None,
        estimate: None,
        limit: None,
        median: None,
        fastest: None,
        calls: 0,
    }
}

fn host(name: &str, origin: &str, nodes: &mut Vec<String>) -> (String, Kind) {
    add_nodes(nodes, origin);
    (name.to_owned(), Kind::Host)
}

/// Origins of merged ops are joined by `+`.
fn add_nodes(nodes: &mut Vec<String>, origin: &str) {
    for name in origin.split('+').filter(|n| !matches!(*n, "" | "..." | "?")) {
        if !nodes.iter().any(|n| n == name) {
            nodes.push(name.to_owned());
        }
    }
}

/// Values that kernels hand to each other, and what the fuse pass said about the ops at both ends.
fn edges(program: &Program, sources: &[KernelSource], compiled: Option<&Compiled>) -> Vec<Edge> {
    let mut writers: HashMap<SlotId, usize> = HashMap::new();
    let mut edges: Vec<Edge> = Vec::new();
    for (to, step) in program.steps.iter().enumerate() {
        let (read, written) = ends(step, sources);
        for slot in read.iter().map(|s| program.root(*s)) {
            let constant = matches!(program.slots.get(slot.index()).map(|s| &s.place), Some(Place::Constant(_)));
            let Some(&from) = writers.get(&slot).filter(|from| **from != to && !constant) else { continue };
            if edges.iter().any(|e| e.from == from && e.to == to) {
                continue;
            }
            let reasons = match program.steps.get(from) {
                Some(producer) => reasons(producer, step, sources, compiled),
                None => Vec::new(),
            };
            edges.push(Edge { program: program.name.clone(), from, to, reasons });
        }
        writers.extend(written.into_iter().map(|s| (program.root(s), to)));
    }
    edges
}

/// Slots that a step reads and writes.
fn ends(step: &Step, sources: &[KernelSource]) -> (Vec<SlotId>, Vec<SlotId>) {
    match step {
        Step::Kernel { kernel, arguments, .. } => {
            let Some(source) = sources.get(kernel.index()) else { return Default::default() };
            let roles = source.kernel.arguments().map(|(_, b)| b.role == frit_compiler::kernel::Role::Input);
            let (mut read, mut written) = (Vec::new(), Vec::new());
            for (slot, is_input) in arguments.iter().zip(roles) {
                if is_input { read.push(*slot) } else { written.push(*slot) }
            }
            (read, written)
        }
        Step::Library { operands, results, .. } => (operands.clone(), results.clone()),
        Step::Compact { mask, result, .. } => (vec![*mask], vec![*result]),
        Step::If { condition, arguments, results, .. } => {
            (arguments.iter().copied().chain([*condition]).collect(), results.clone())
        }
        Step::Loop { trip, condition, arguments, results, .. } => {
            (arguments.iter().copied().chain([*trip, *condition]).collect(), results.clone())
        }
        Step::Call { arguments, results, .. } => (arguments.clone(), results.clone()),
        Step::Assert { condition, .. } => (vec![*condition], Vec::new()),
        Step::Sequence { operands, result, .. } => (operands.clone(), vec![*result]),
        Step::Copy { from, to } => (vec![*from], vec![*to]),
    }
}

fn reasons(from: &Step, to: &Step, sources: &[KernelSource], compiled: Option<&Compiled>) -> Vec<String> {
    let parts = |step: &Step| match step {
        Step::Kernel { kernel, .. } => sources.get(kernel.index()).map(|s| s.parts.as_slice()),
        Step::Library { .. }
        | Step::Compact { .. }
        | Step::If { .. }
        | Step::Loop { .. }
        | Step::Call { .. }
        | Step::Assert { .. }
        | Step::Sequence { .. }
        | Step::Copy { .. } => None,
    };
    let (before, after) = match (parts(from), parts(to)) {
        (Some(before), Some(after)) => (before, after),
        (None, _) => return vec![not_generated(from)],
        (_, None) => return vec![not_generated(to)],
    };
    let is_part = |parts: &[Part], label: &str| parts.iter().any(|p| label == format!("{} at {}", p.op, p.origin));
    let mut found: Vec<String> = Vec::new();
    for remark in compiled.iter().flat_map(|c| &c.report.passes).flat_map(|p| &p.remarks) {
        if is_part(before, &remark.producer) && is_part(after, &remark.consumer) && !found.contains(&remark.reason) {
            found.push(remark.reason.clone());
        }
    }
    if found.is_empty() {
        found.push("the fuse pass did not try".to_owned());
    }
    found
}

fn not_generated(step: &Step) -> String {
    match step {
        Step::Library { call, .. } => format!("`{}` is a call of the library", call.name()),
        Step::Kernel { .. } => "a kernel".to_owned(),
        Step::Compact { .. } => "the number of elements is known only after `compact`".to_owned(),
        Step::If { .. } | Step::Loop { .. } | Step::Call { .. } => "control flow lies between".to_owned(),
        Step::Assert { .. } => "a check on the host".to_owned(),
        Step::Sequence { .. } => "a sequence on the host".to_owned(),
        Step::Copy { .. } => "a copy of whole tensors".to_owned(),
    }
}

/// Times of a step's calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// Median nanoseconds of a call.
    pub(crate) median: f64,
    /// The fastest.
    pub(crate) fastest: f64,
    /// Calls a run.
    pub(crate) calls: u64,
}

/// By program and step.
pub(crate) type Times = HashMap<(String, usize), Time>;

/// Runs the model again and again, each step timed.
pub(crate) fn measure(context: &mut Context, bound: &[Bound]) -> Done<Times> {
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        execute(context, bound)?;
    }
    let mut all: HashMap<(String, usize), Vec<StepTime>> = HashMap::new();
    let start = Instant::now();
    let mut runs = 0;
    while runs < 3 || (start.elapsed() < TIMED && runs < MOST_RUNS) {
        context.set_profiling(true);
        execute(context, bound)?;
        for step in context.profile() {
            all.entry((step.program.clone(), step.step)).or_default().push(step);
        }
        runs += 1;
    }
    context.set_profiling(false);
    let times = all.into_iter().map(|(key, steps)| {
        let mut each: Vec<f64> = steps.iter().map(|s| s.nanoseconds as f64 / s.calls.max(1) as f64).collect();
        each.sort_by(f64::total_cmp);
        let median = each.get(each.len() / 2).copied().unwrap_or_default();
        let fastest = each.first().copied().unwrap_or_default();
        (key, Time { median, fastest, calls: steps.first().map_or(0, |s| s.calls) })
    });
    Ok(times.collect())
}
