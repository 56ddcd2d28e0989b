//! `frit bench`: how long a run takes, median and minimum of many. With `--train` a run is a step of training: [`step`].

mod step;

use std::time::{Duration, Instant};

use frit_runtime::CodeSource;
use frit_runtime::pool::Pool;
use serde_json::json;

use crate::args::BenchArgs;
use crate::commands::run::execute;
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done};
use crate::inputs;
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

/// What is timed.
pub(crate) type Run<'r> = dyn FnMut() -> Done + 'r;

/// Times runs after a warm-up.
pub(crate) fn measure(run: &mut Run<'_>, runs: u32, warm_up: Duration) -> Done<Timing> {
    let start = Instant::now();
    loop {
        run()?;
        if start.elapsed() >= warm_up {
            break;
        }
    }
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Timing { median, least: times.first().copied().unwrap_or_default() })
}

/// Bursts of runs, each asked for by a line, so that whoever compares can take turns with others.
fn serve(run: &mut Run<'_>, console: &Console) -> Done {
    run()?;
    console.line("ready")?;
    for line in std::io::stdin().lines() {
        let line =
            line.map_err(|e| CliError::failed(format!("stdin: {e}"), "write a number of milliseconds a line"))?;
        let asked: u64 = line.trim().parse().map_err(|_| {
            CliError::usage(format!("--serve: `{}` is no number of milliseconds", line.trim()), "write one a line")
        })?;
        let (start, burst, mut times) = (Instant::now(), Duration::from_millis(asked), Vec::new());
        while times.len() < 3 || start.elapsed() < burst {
            let begin = Instant::now();
            run()?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let nanoseconds = |at: usize| times.get(at).map_or(0, Duration::as_nanos);
        console.line(format!("{} {} {}", nanoseconds(0), nanoseconds(times.len() / 2), times.len()))?;
    }
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Done {
    if args.step.train {
        return step::run(args);
    }
    if let Some(flag) = args.network.given() {
        return Err(CliError::usage(format!("{flag} is for a network that is made"), "add --train, or leave it out"));
    }
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    inputs::check_files(&args.inputs)?;
    engine::check_flags(&args.flags, &console)?;
    let ready = engine::ready(&args.model, args.trust, &args.flags, &args.inputs)?;
    let (file, model) = (&ready.source.file, ready.model());
    if let Some(line) = ready.code_line() {
        console.line(line)?;
    }
    let bound = inputs::complete(&engine::ports_of(model), ready.given.clone(), &args.flags.dims, args.inputs.seed)?;
    for line in inputs::describe(&bound, args.inputs.seed) {
        console.line(line)?;
    }
    let mut context = model.context();
    let mut once = || execute(&mut context, &bound);
    if args.serve {
        return serve(&mut once, &console).map_err(|e| e.in_file(file));
    }
    let timing = measure(&mut once, args.runs, WARM_UP).map_err(|e| e.in_file(file))?;
    let threads = Pool::global().threads();
    let bits = ready.vector_bits(&args.flags)?;
    let vectors = bits.map_or(String::new(), |bits| format!(", vectors of {bits} bits"));
    let compiled = match ready.code {
        CodeSource::Loaded => String::new(),
        CodeSource::Compiled | CodeSource::Recompiled(_) => format!(", compiled {}", time(ready.compile_time)),
    };
    console.line(format!(
        "median {}, fastest {} of {} runs on {threads} threads{vectors} (read {}{compiled})",
        time(timing.median),
        time(timing.least),
        args.runs,
        time(ready.load_time),
    ))?;
    console.json(&json!({
        "model": file.display().to_string(),
        "median_ms": milliseconds(timing.median),
        "min_ms": milliseconds(timing.least),
        "runs": args.runs,
        "threads": threads,
        "vector_bits": bits,
        "compile_ms": milliseconds(ready.compile_time),
        "load_ms": milliseconds(ready.load_time),
        "code": ready.code.name(),
        "recompiled_because": ready.recompiled_because(),
    }))
}
