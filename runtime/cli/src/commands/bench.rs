//! `frit bench`: how long a run takes, median and minimum of many.

use std::time::{Duration, Instant};

use frit_runtime::Context;
use frit_runtime::pool::Pool;
use serde_json::json;

use crate::args::BenchArgs;
use crate::commands::run::execute;
use crate::console::Console;
use crate::engine;
use crate::error::Done;
use crate::inputs::{self, Bound};
use crate::table::{milliseconds, time};

/// Runs before the first that counts last at least this long, so that clocks and caches settle.
const WARM_UP: Duration = Duration::from_millis(100);

/// Median and minimum of runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Half of the runs are faster.
    pub(crate) median: Duration,
    /// The fastest.
    pub(crate) least: Duration,
}

/// Times runs after a warm-up.
pub(crate) fn measure(context: &mut Context, bound: &[Bound], runs: u32, warm_up: Duration) -> Done<Timing> {
    let start = Instant::now();
    loop {
        execute(context, bound)?;
        if start.elapsed() >= warm_up {
            break;
        }
    }
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        execute(context, bound)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Timing { median, least: times.first().copied().unwrap_or_default() })
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Done {
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    inputs::check_files(&args.inputs)?;
    let loaded = engine::load(&args.model)?;
    let file = &loaded.source.file;
    let ports = engine::inputs_of(&loaded.module);
    let given = inputs::given(&ports, &args.inputs, loaded.source.case.as_deref())?;
    let start = Instant::now();
    let compiled =
        engine::compile(&loaded.module, &engine::options(&args.flags), &given).map_err(|e| e.in_file(file))?;
    let compile_time = start.elapsed();
    let bound = inputs::complete(&engine::ports_of(&compiled.model), given, args.inputs.seed)?;
    for line in inputs::describe(&bound, args.inputs.seed) {
        console.line(line)?;
    }
    let mut context = compiled.model.context();
    let timing = measure(&mut context, &bound, args.runs, WARM_UP).map_err(|e| e.in_file(file))?;
    let (threads, bits) = (Pool::global().threads(), engine::vector_bits(&args.flags)?);
    console.line(format!(
        "median {}, fastest {} of {} runs on {threads} threads, vectors of {bits} bits (read {}, compiled {})",
        time(timing.median),
        time(timing.least),
        args.runs,
        time(loaded.time),
        time(compile_time),
    ))?;
    console.json(&json!({
        "model": file.display().to_string(),
        "median_ms": milliseconds(timing.median),
        "min_ms": milliseconds(timing.least),
        "runs": args.runs,
        "threads": threads,
        "vector_bits": bits,
        "compile_ms": milliseconds(compile_time),
        "load_ms": milliseconds(loaded.time),
    }))
}
