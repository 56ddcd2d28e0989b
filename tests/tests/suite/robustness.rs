//! Damaged files: refused or run, never a panic, a hang or memory that a file merely claims.
//!
//! Small models built here, the embedded demo and texts of random modules are damaged (bits and bytes, cuts, splices,
//! protobuf fields at every depth, several times over) and go through import, passes, code generation and, where they
//! compile, a run within a small memory limit. `FRIT_MUTATIONS` says how many, `FRIT_MUTATION_SEED` from which seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use frit_compiler::driver::{Options, compile};
use frit_ir::testing::{self, Rng};
use frit_ir::types::Dim;
use frit_ir::{HostValue, Module, Tensor, ValueType, onnx as import, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_runtime::{InputRef, Model};
use frit_tests::onnx::{
    Extent, FLOAT, INT64, float, floats, graph, int, int_list, ints, model, node, output, value_info,
};
use frit_tests::wire;

use super::random::number;

/// Processor time that one file may take.
const TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

/// After this a file counts as hanging for ever: the process ends, naming its seed.
const HANG: Duration = Duration::from_secs(60);

/// Kibibytes by which the peak of the process may grow.
const MEMORY_KIB: u64 = 1 << 20;

/// Bytes that one buffer of a run may take.
const RUN_LIMIT: usize = 1 << 22;

/// Seeds that once broke something.
const REGRESSIONS: &[u64] = &[];

/// Sound models to damage: one for each family of ops.
fn corpus() -> Vec<Vec<u8>> {
    let known = |dims: &[u64]| dims.iter().map(|&d| Extent::Known(d)).collect::<Vec<_>>();
    let shape = [Extent::Named("N"), Extent::Known(4)];
    let mlp = graph(
        &[
            node("Gemm", &["x", "w", "b"], &["h"], &[int("transB", 1), float("alpha", 0.5)]),
            node("LayerNormalization", &["h", "b"], &["n"], &[int("axis", -1)]),
            node("Softmax", &["n"], &["y"], &[int("axis", -1)]),
        ],
        &[floats("w", &[3, 4], &[0.5; 12]), floats("b", &[3], &[0.1, 0.2, 0.3])],
        &[value_info("x", FLOAT, &shape)],
        &[output("y")],
    );
    let shapes = graph(
        &[
            node("Shape", &["x"], &["s"], &[]),
            node("Slice", &["s", "from", "to"], &["head"], &[]),
            node("Concat", &["head", "rest"], &["target"], &[int("axis", 0)]),
            node("Reshape", &["x", "target"], &["r"], &[]),
            node("Transpose", &["r"], &["t"], &[int_list("perm", &[0, 2, 1])]),
            node("Expand", &["t", "wide"], &["y"], &[]),
        ],
        &[
            ints("from", &[1], &[0]),
            ints("to", &[1], &[1]),
            ints("rest", &[2], &[2, 2]),
            ints("wide", &[3], &[1, 2, 2]),
        ],
        &[value_info("x", FLOAT, &shape)],
        &[output("y")],
    );
    let image = graph(
        &[
            node("Conv", &["x", "w"], &["c"], &[int_list("pads", &[1, 1, 1, 1]), int_list("strides", &[2, 2])]),
            node("MaxPool", &["c"], &["m"], &[int_list("kernel_shape", &[2, 2])]),
            node("Pad", &["m", "pads"], &["p"], &[]),
            node("GlobalAveragePool", &["p"], &["y"], &[]),
        ],
        &[floats("w", &[2, 1, 3, 3], &[0.25; 18]), ints("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1])],
        &[value_info("x", FLOAT, &known(&[1, 1, 8, 8]))],
        &[output("y")],
    );
    let indexed = graph(
        &[
            node("Gather", &["x", "i"], &["g"], &[int("axis", 0)]),
            node("TopK", &["g", "k"], &["v", "at"], &[int("axis", -1)]),
            node("CumSum", &["v", "axis"], &["c"], &[]),
            node("NonZero", &["c"], &["nz"], &[]),
            node("ReduceSum", &["c", "axes"], &["y"], &[int("keepdims", 0)]),
        ],
        &[ints("k", &[1], &[2]), ints("axis", &[], &[1]), ints("axes", &[1], &[0])],
        &[value_info("x", FLOAT, &known(&[20, 4])), value_info("i", INT64, &known(&[3]))],
        &[output("y"), output("nz")],
    );
    let mut files: Vec<Vec<u8>> = [mlp, shapes, image, indexed].into_iter().map(model).collect();
    files.push(include_bytes!("../../../runtime/cli/assets/demo/model.onnx").to_vec());
    files
}

fn texts() -> Vec<String> {
    let module = |seed| testing::module(seed, 3).expect("a random module");
    (1..12).map(|seed| text::to_inline_text(&module(seed))).collect()
}

/// What is read: a model file or a text.
enum File {
    Onnx(Vec<u8>),
    Text(String),
}

/// The damaged file of a seed.
fn damaged(seed: u64, models: &[Vec<u8>], texts: &[String]) -> File {
    let mut rng = Rng::new(seed);
    if rng.once_in(5) {
        let mut bytes = rng.pick(texts).cloned().unwrap_or_default().into_bytes();
        for _ in 0..1 + rng.below(2) {
            damage_text(&mut bytes, &mut rng);
        }
        return File::Text(String::from_utf8_lossy(&bytes).into_owned());
    }
    let mut bytes = rng.pick(models).cloned().unwrap_or_default();
    for _ in 0..1 + rng.below(2) {
        match wire::parse(&bytes) {
            Some(mut message) if !rng.once_in(6) => {
                wire::damage(&mut message, &mut rng);
                bytes = wire::write(&message);
            }
            _ => wire::damage_bytes(&mut bytes, &mut rng),
        }
    }
    File::Onnx(bytes)
}

/// Swaps two tokens, changes a number, or damages bytes.
fn damage_text(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
    match (rng.below(3), rng.pick(&digits)) {
        (0, Some(&at)) => bytes[at] = b'0' + rng.below(10) as u8,
        (1, Some(&at)) => _ = bytes.splice(at..at, b"-9999999999".iter().copied().take(1 + rng.below(11))),
        _ => wire::damage_bytes(bytes, rng),
    }
}

/// How far a file came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Refused,
    Imported,
    Compiled,
    Ran,
}

fn process(file: &File, seed: u64, pool: &Arc<Pool>) -> Reached {
    let module = match file {
        File::Onnx(bytes) => import::from_bytes(bytes.clone(), None).ok(),
        File::Text(source) => text::from_text(source, &text::NoConstants).ok(),
    };
    let Some(module) = module else { return Reached::Refused };
    let level = if seed.is_multiple_of(2) { Level::O0 } else { Level::O3 };
    let options = Options { level, math: Math::Fast, verify_each: true, ..Options::default() };
    let inputs = feed(&module, seed);
    let Ok(compiled) = compile(module, &options) else { return Reached::Imported };
    let Ok(model) = Model::new(compiled.plan) else { return Reached::Imported };
    let Some(inputs) = inputs else { return Reached::Compiled };
    let mut context = model.with_pool(pool.clone()).context();
    context.set_memory_limit(RUN_LIMIT);
    let values: Vec<InputRef<'_>> = inputs.iter().map(InputRef::from).collect();
    if context.run(&values).is_ok() { Reached::Ran } else { Reached::Compiled }
}

/// Small values for every input, 2 for each unknown extent; `None` when they would be large or of a type without data.
fn feed(module: &Module, seed: u64) -> Option<Vec<HostValue>> {
    let mut rng = Rng::new(seed);
    let function = module.entry()?;
    let mut value = |ty: &ValueType| {
        let ty = ty.tensor()?;
        let extent = |d: &Dim| usize::try_from(d.eval(&|_| Some(2))?).ok();
        let shape = ty.dims.iter().map(extent).collect::<Option<Vec<_>>>()?;
        let elements = frit_ir::tensor::checked_numel(&shape).filter(|n| *n <= 1 << 16)?;
        let random = testing::tensor(&mut rng, ty.dtype, &shape);
        let zeros = || Tensor::from_bytes(ty.dtype, &shape, &vec![0; elements * ty.dtype.size()]).ok();
        random.or_else(zeros).map(HostValue::Tensor)
    };
    function.input_values().map(|v| value(function.ty(v))).collect()
}

/// Processor time of this thread, where the system tells.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// The most memory that this process ever held, in KiB, where the system tells. Linux counts in batches a thread, so a
/// later answer may be a little smaller.
fn peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

#[test]
fn damaged_files_are_refused_or_run() {
    let count = number("FRIT_MUTATIONS", if cfg!(debug_assertions) { 1500 } else { 20_000 });
    let start = number("FRIT_MUTATION_SEED", 1);
    let (models, texts, pool) = (corpus(), texts(), Arc::new(Pool::new(1)));
    for (i, bytes) in models.iter().enumerate() {
        let sound = process(&File::Onnx(bytes.clone()), 0, &pool);
        assert!(sound == Reached::Ran, "model {i} of the corpus runs before it is damaged");
        assert!(wire::parse(bytes).is_some_and(|m| wire::write(&m) == *bytes), "model {i} is written as it was read");
    }
    let seeds: Vec<u64> = REGRESSIONS.iter().copied().chain(start..start + count).collect();
    let (next, faults) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let reached: [AtomicU64; 4] = Default::default();
    let before = peak().unwrap_or(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    // What each worker is at, for the watch.
    let busy: Vec<Mutex<Option<(u64, Instant)>>> = (0..workers).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        let work = |busy: &Mutex<Option<(u64, Instant)>>| {
            let set = |state| *busy.lock().expect("no panic inside") = state;
            while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                let file = damaged(seed, &models, &texts);
                set(Some((seed, Instant::now())));
                let (began, held) = (processor_time(), peak());
                let done = catch_unwind(AssertUnwindSafe(|| process(&file, seed, &pool)));
                set(None);
                let took = processor_time().zip(began).map(|(end, begin)| end.saturating_sub(begin));
                let grown = peak().zip(held).map(|(end, begin)| end.saturating_sub(begin));
                let fault = |what: String| faults.lock().expect("no panic inside").push((seed, what));
                match done {
                    Ok(stage) => _ = reached[stage as usize].fetch_add(1, Ordering::Relaxed),
                    Err(_) => fault("a panic".to_owned()),
                }
                if let Some(took) = took.filter(|t| *t > TIME) {
                    fault(format!("{took:?}"));
                }
                if let Some(grown) = grown.filter(|g| *g > MEMORY_KIB / 4) {
                    fault(format!("the peak of memory grew by {grown} KiB"));
                }
            }
        };
        let handles: Vec<_> = busy.iter().map(|slot| scope.spawn(move || work(slot))).collect();
        while !handles.iter().all(|h| h.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            for slot in &busy {
                let now = *slot.lock().expect("no panic inside");
                if let Some((seed, _)) = now.filter(|(_, since)| since.elapsed() > HANG) {
                    eprintln!("FRIT_MUTATION_SEED={seed} hangs");
                    std::process::exit(1);
                }
            }
        }
    });
    let [refused, imported, compiled, ran] = reached.map(AtomicU64::into_inner);
    println!("{refused} refused by the reader, {imported} by the compiler, {compiled} not run, {ran} run");
    let faults = faults.into_inner().expect("no panic inside");
    assert!(faults.is_empty(), "{} of {count} files break something, by seed: {faults:?}", faults.len());
    let grown = peak().unwrap_or(0).saturating_sub(before);
    assert!(grown < MEMORY_KIB, "the peak of memory grew by {grown} KiB");
    // Damage that nothing survives, or that nothing notices, would test little.
    assert!([refused, imported, ran].iter().all(|n| *n > count / 100), "the damage is one-sided");
}
