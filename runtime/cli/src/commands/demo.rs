//! `frit demo`: the main job on a model that the program carries, then a training run, each step told with its time.
//!
//! The model is an AF-KAN 64-32-10 as PyTorch exports it, with an input and the output that PyTorch gave. It is
//! imported, optimised, compiled at -O3 and at -O0, run, and compared with PyTorch. Then a network of the same extents
//! learns digits that code draws. Nothing is written to disk.
//!
//! - [`training`] the run and its check; [`digits`] its data; [`plot`] its curves.

mod digits;
mod plot;
mod training;

use std::time::{Duration, Instant};

use frit_ir::{HostValue, Module, ValueType, onnx};
use frit_passes::manager::Level;
use frit_runtime::Model;
use frit_runtime::compile::{CompileOptions, Compiled};
use frit_runtime::pool::Pool;
use serde_json::json;

use crate::args::DemoArgs;
use crate::commands::bench::{Timing, measure};
use crate::commands::compile::passes;
use crate::commands::run::{collect, execute};
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::inputs::{self, Bound};
use crate::numbers::{Difference, difference};
use crate::table::{Align, bytes, milliseconds, table, time};

const MODEL: &[u8] = include_bytes!("../../assets/demo/model.onnx");
const INPUT: &[u8] = include_bytes!("../../assets/demo/input.pb");
const OUTPUT: &[u8] = include_bytes!("../../assets/demo/output.pb");

/// Each of the two engines is timed this long: with a second of training the whole demo stays under three.
const TIMED: Duration = Duration::from_millis(250);
/// Most runs that are timed.
const RUNS: u32 = 200;
/// How far from PyTorch's result is right: the tolerance of ONNX test cases, but for results near 0.
const RTOL: f64 = 1e-3;
const ATOL: f64 = 1e-5;

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.threads);
    let whole = Instant::now();
    console.line(
        "frit demo: an AF-KAN 64-32-10, exported from PyTorch, from ONNX to machine code; then one that learns\n",
    )?;

    let start = Instant::now();
    let module = onnx::from_bytes(MODEL, None)?;
    let read = start.elapsed();
    let ops = frit_passes::manager::count_ops(&module);
    console.line(format!("import    {} of ONNX, {ops} ops: {}", bytes(MODEL.len() as u64), time(read)))?;

    let best = compile(&module, Level::O3)?;
    console.line(format!("optimise  -O3: {}", time(best.times.passes)))?;
    for line in passes(&best) {
        console.line(format!("        {line}"))?;
    }
    let code = bytes(best.model.plan().code.len() as u64);
    console.line(format!(
        "lower     {} kernels ({}): {}",
        best.kernels.len(),
        best.model.ops(),
        time(best.times.plan)
    ))?;
    console.line(format!("codegen   {code} of machine code: {}", time(best.times.code)))?;

    let bound = bind(&best.model)?;
    let mut context = best.model.context();
    let start = Instant::now();
    execute(&mut context, &bound)?;
    console.line(format!("run       {}: {}", shapes(&bound), time(start.elapsed())))?;
    let difference = check(&best.model, &collect(&best.model, &context)?)?;
    let verdict = if difference.outside == 0 { "as PyTorch computed" } else { "NOT what PyTorch computed" };
    console.line(format!("check     {verdict}: largest relative error {:.1e}", difference.relative))?;

    let fast = timed(&mut context, &bound)?;
    let plain = compile(&module, Level::O0)?;
    let mut plain_context = plain.model.context();
    let slow = timed(&mut plain_context, &bound)?;
    let plain_difference = check(&plain.model, &collect(&plain.model, &plain_context)?)?;
    console.line(format!(
        "compare   -O0: {} kernels, compiled in {}",
        plain.kernels.len(),
        time(plain.times.total())
    ))?;

    let speedup = slow.median.as_secs_f64() / fast.median.as_secs_f64().max(1e-12);
    console.line("")?;
    for line in results(&[("-O3", &best, fast, difference), ("-O0", &plain, slow, plain_difference)]) {
        console.line(line)?;
    }
    console.line(format!("\n  -O3 is {speedup:.1} times as fast as -O0 on {} threads", Pool::global().threads()))?;

    let trained = training::run(&console)?;
    console.line(format!("  all of this took {}", time(whole.elapsed())))?;
    console.line(NEXT)?;
    let outside = difference.outside + plain_difference.outside;
    let failure = trained.failure();
    console.json(&json!({
        "import_ms": milliseconds(read),
        "compile_ms": milliseconds(best.times.total()),
        "median_ms": milliseconds(fast.median),
        "median_o0_ms": milliseconds(slow.median),
        "speedup": speedup,
        "max_abs_error": difference.absolute,
        "max_rel_error": difference.relative,
        "training": trained.json(),
        "passed": outside == 0 && failure.is_none(),
        "seconds": whole.elapsed().as_secs_f64(),
    }))?;
    if outside > 0 {
        let message = format!("the demo's check failed: {outside} elements differ from PyTorch's");
        return Err(CliError::failed(message, BUG));
    }
    match failure {
        Some(failure) => Err(CliError::failed(format!("the demo's training failed: {failure}"), BUG)),
        None => Ok(()),
    }
}

/// What to do when a check fails.
const BUG: &str = "this is a bug in frit: please report it with the type of your CPU";

/// Where to look next.
const NEXT: &str = "
Next, with a model of your own:
  frit run model.onnx                        run it on made-up inputs; --input NAME=FILE.npy for your own
  frit inspect model.onnx --kernels          its ops, kernels, memory, and why things were not fused
  frit bench model.onnx                      time it
  frit run model.onnx --dump-ir dump         what every pass did to it, as files that run again
  frit verify CASES/*                        check ONNX test cases
  frit train af-kan --data fashion-mnist     train a network; --data FILE.csv --layers N,N,.. on your own table
  frit help                                  all commands; `frit help ops`, `frit help passes`";

fn compile(module: &Module, level: Level) -> Done<Compiled> {
    let options = CompileOptions { level, verify_each: false, ..CompileOptions::default() };
    engine::compile(module, &options, &Vec::new())
}

/// The input that PyTorch was given.
fn bind(model: &Model) -> Done<Vec<Bound>> {
    let ports = engine::ports_of(model);
    let Some((name, ty)) = ports.first() else { return Err(CliError::internal("the demo's model has no input")) };
    let value = onnx::read_value(INPUT, ty)?;
    inputs::complete(&ports, vec![(name.clone(), value)], &[], 0)
}

fn check(model: &Model, outputs: &[(String, HostValue)]) -> Done<Difference> {
    let ty = model.outputs().first().map_or(ValueType::Unknown, |port| port.ty.clone());
    let expected = onnx::read_value(OUTPUT, &ty)?;
    let found = outputs.first().and_then(|(_, value)| value.tensor());
    let compared = found.zip(expected.tensor()).and_then(|(found, expected)| difference(found, expected, RTOL, ATOL));
    compared.ok_or_else(|| CliError::internal("the demo's output has another type or shape than PyTorch's"))
}

/// As many runs as fit in the time.
fn timed(context: &mut frit_runtime::Context, bound: &[Bound]) -> Done<Timing> {
    let mut run = || execute(context, bound);
    let once = measure(&mut run, 3, TIMED / 10)?.median;
    let runs = TIMED.as_secs_f64() / once.as_secs_f64().max(1e-9);
    measure(&mut run, (runs as u32).clamp(3, RUNS), Duration::ZERO)
}

fn shapes(bound: &[Bound]) -> String {
    let shape = |b: &Bound| b.value.tensor().map_or(b.name.clone(), |t| format!("{} {:?}", b.name, t.shape()));
    bound.iter().map(shape).collect::<Vec<_>>().join(", ")
}

fn results(rows: &[(&str, &Compiled, Timing, Difference)]) -> Vec<String> {
    let row = |(level, compiled, timing, apart): &(&str, &Compiled, Timing, Difference)| {
        vec![
            (*level).to_owned(),
            compiled.kernels.len().to_string(),
            time(compiled.times.total()),
            time(timing.median),
            time(timing.least),
            format!("{:.1e}", apart.absolute),
            format!("{:.1e}", apart.relative),
            if apart.outside == 0 { "ok".to_owned() } else { format!("{} wrong", apart.outside) },
        ]
    };
    let head = [
        ("level", Align::Left),
        ("kernels", Align::Right),
        ("compile", Align::Right),
        ("run, median", Align::Right),
        ("fastest", Align::Right),
        ("max abs error", Align::Right),
        ("max rel error", Align::Right),
        ("check", Align::Left),
    ];
    table(&head, &rows.iter().map(row).collect::<Vec<_>>())
}
