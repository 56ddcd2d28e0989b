//! What this machine does in a nanosecond, measured: the rates that the cost model ([`frit_compiler::cost`]) asks for.
//!
//! Each rate comes from a small kernel made by frit itself, at the vector width in use, that has one term of the model and
//! next to nothing else: chains of products, of sums, of both with comparisons; divisions; one copy in the first cache;
//! reductions of long and of short rows; 64-bit integers (which run one at a time); transposes of a small matrix and of
//! one whose columns share sets of the caches; one element. Memory is measured by a copy and by a sum of three tensors, at
//! sizes that fit half of a cache, and at one that fits none. The fastest of many runs counts: what others do on the
//! machine only ever adds time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frit_compiler::cost::{Level, Rates};
use frit_compiler::cpu::{CodeError, Target, Vectors};
use frit_ir::builder::{Builder, Built};
use frit_ir::op::infer::TypeError;
use frit_ir::op::{BinaryOp, ReduceKind, UnaryOp};
use frit_ir::tensor::TensorError;
use frit_ir::{DType, Function, HostValue, Module, Numerics, Origin, Tensor, TensorType, Value};
use frit_passes::manager::Math;

use crate::compile::CompileOptions;
use crate::load::LoadError;
use crate::pool::Pool;
use crate::session::{InputRef, Model, ModelError, RunError};

/// How long one kernel runs again and again.
const BURST: Duration = Duration::from_micros(1200);
/// Fewest runs of one kernel.
const FEWEST: usize = 5;
/// Chains that run side by side: more than the latency of an instruction times the units that run it.
const CHAINS: usize = 8;
/// Instructions of a chain.
const LENGTH: usize = 12;
/// Elements that fit the first cache, four times.
const SMALL: usize = 1024;
/// Elements of a long row.
const LONG: usize = 2048;
/// Bytes of one tensor that no cache holds with three others.
const HUGE: usize = 20 << 20;

/// Why a machine can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// No code generator for it.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// A probe is no function.
    #[error("internal: a probe of the machine: {0}")]
    Probe(#[from] TypeError),
    /// A probe can't be compiled.
    #[error("a probe of the machine: {0}")]
    Load(Box<LoadError>),
    /// A probe is not there.
    #[error("a probe of the machine: {0}")]
    Model(#[from] ModelError),
    /// A probe does not run.
    #[error("a probe of the machine: {0}")]
    Run(#[from] RunError),
    /// No values for it.
    #[error("a probe of the machine: {0}")]
    Tensor(#[from] TensorError),
}

impl From<LoadError> for MeasureError {
    fn from(error: LoadError) -> Self {
        MeasureError::Load(Box::new(error))
    }
}

/// Measures this machine for code with vectors of a width, for a number of threads and for programs that touch some bytes:
/// memory is measured as far as these do not fit the caches.
///
/// # Errors
/// No code generator for this machine; no memory.
pub fn measure(vectors: Vectors, threads: usize, bytes: f64) -> Result<Rates, MeasureError> {
    let lanes = f64::from(vectors.bits(&Target::host()?).bits()) / 32.0;
    let caches = caches();
    let alone = Arc::new(Pool::new(1));
    let all = if threads > 1 { Arc::new(Pool::new(threads)) } else { alone.clone() };
    let sizes = caches.map(|bytes| bytes / 8 / 4).map(|n| n.min(HUGE / 16));
    let places = [("L2", sizes[1], caches[1]), ("L3", sizes[2], caches[2]), ("DRAM", HUGE / 4, usize::MAX)];
    let needed = 1 + places.iter().take_while(|(_, _, holds)| bytes > *holds as f64).count();
    let places = places.get(..needed.min(places.len())).unwrap_or_default();

    let mut module = Module::default();
    let mut probe = |name: &str, dims: &[usize], inputs: usize, body: &Body<'_>| {
        add(&mut module, name, DType::F32, dims, inputs, body)
    };
    probe("product", &[SMALL], 1, &|b, x| chains(b, x[0], &product))?;
    probe("sum", &[SMALL], 1, &|b, x| chains(b, x[0], &sum))?;
    probe("mixed", &[SMALL], 1, &|b, x| chains(b, x[0], &mixed))?;
    probe("division", &[SMALL], 1, &|b, x| chains(b, x[0], &division))?;
    probe("root", &[SMALL], 1, &|b, x| chains(b, x[0], &root))?;
    probe("copy", &[SMALL], 1, &|b, x| b.unary(UnaryOp::Neg, x[0]))?;
    probe("three", &[SMALL], 3, &three)?;
    probe("one", &[1], 1, &|b, x| b.unary(UnaryOp::Neg, x[0]))?;
    probe("long rows", &[16, LONG], 1, &|b, x| b.reduce(x[0], vec![1], ReduceKind::Sum, false))?;
    probe("extremes", &[16, LONG], 1, &|b, x| b.reduce(x[0], vec![1], ReduceKind::Max, false))?;
    probe("short rows", &[1024, 32], 1, &|b, x| b.reduce(x[0], vec![1], ReduceKind::Sum, false))?;
    probe("transpose", &[128, 128], 1, &|b, x| b.transpose(x[0], vec![1, 0]))?;
    probe("far transpose", &[512, 512], 1, &|b, x| b.transpose(x[0], vec![1, 0]))?;
    for (name, elements, _) in places {
        probe(&format!("{name} copy"), &[*elements], 1, &|b, x| b.unary(UnaryOp::Neg, x[0]))?;
        probe(&format!("{name} three"), &[*elements], 3, &three)?;
    }
    add(&mut module, "integers", DType::I64, &[SMALL], 1, &|b, x| {
        let square = b.binary(BinaryOp::Mul, x[0], x[0])?;
        b.binary(BinaryOp::Add, square, x[0])
    })?;
    add(&mut module, "calls", DType::F64, &[256], 1, &|b, x| b.unary(UnaryOp::Exp, x[0]))?;

    let options = CompileOptions {
        math: Math::AsWritten,
        passes: Some("fuse".to_owned()),
        vectors,
        verify_each: false,
        ..CompileOptions::default()
    };
    let model = Model::compile(module, &options)?.model;
    let most = places.iter().map(|(_, elements, _)| *elements).max().unwrap_or(SMALL);
    let long = Tensor::f32(&[most], &vec![1.0; most])?;
    let time = |name: &str, pool: &Arc<Pool>| run(&model.function(name)?.with_pool(pool.clone()), &long);
    let vectors = (SMALL as f64 / lanes).ceil();
    let chained = vectors * (CHAINS * LENGTH) as f64;
    let step = time("one", &alone)?;
    let in_chains = |name: &str, count: f64| Ok::<f64, MeasureError>((time(name, &alone)? - step).max(1.0) / count);
    let product = in_chains("product", chained)?;
    let sum = in_chains("sum", chained)?;
    let copy = (time("copy", &alone)? - step) / vectors;
    let three = (time("three", &alone)? - step) / vectors;
    // Differences of short times: no machine is outside of these bounds.
    let load = ((three - copy) / 2.0).clamp(0.3 * product, 3.0 * product);
    let steps = LONG as f64;
    let sum_chain = in_chains("long rows", steps)?;
    let entry = (in_chains("short rows", 1024.0)? - 2.0 * sum_chain).max(product);
    let store = (copy - load).clamp(0.3 * product, 4.0 * product);
    let levels = |pool: &Arc<Pool>, threads: usize| -> Result<Vec<Level>, MeasureError> {
        let bytes = 4.0 * lanes * threads as f64;
        let first = (caches[0] * threads) as f64;
        let mut levels = vec![Level { name: "L1", bytes: first, read: load / bytes, write: store / bytes }];
        for &(name, elements, holds) in places {
            let n = 4.0 * elements as f64;
            // Two bytes moved and four: which are read and which are written, times do not tell apart reliably.
            let byte = (time(&format!("{name} copy"), pool)? + time(&format!("{name} three"), pool)?) / (6.0 * n);
            let bytes = if name == "L2" { holds * threads } else { holds } as f64;
            levels.push(Level { name, bytes, read: byte, write: byte });
        }
        Ok(levels)
    };
    let own = levels(&alone, 1)?;
    let together = if threads > 1 { levels(&all, threads)? } else { own.clone() };
    let fork =
        if threads > 1 { (time("L2 copy", &all)? - time("L2 copy", &alone)? / threads as f64).max(0.0) } else { 0.0 };
    Ok(Rates {
        lanes,
        product,
        sum,
        issue: in_chains("mixed", vectors * (CHAINS * LENGTH / 3 * 4) as f64)?,
        division: in_chains("division", chained)?,
        root: in_chains("root", chained)?,
        load,
        store,
        apart: in_chains("transpose", 128.0 * 128.0)?,
        far: in_chains("far transpose", 512.0 * 512.0)?,
        sum_chain,
        extreme_chain: in_chains("extremes", steps)?,
        entry,
        // Two for the product, one for the sum, two for each access, two for the round.
        scalar: in_chains("integers", 9.0 * SMALL as f64)?,
        call: in_chains("calls", 256.0)?,
        step,
        fork,
        alone: own,
        together,
    })
}

type Body<'b> = dyn Fn(&mut Builder<'_>, &[Value]) -> Built + 'b;
type Link<'l> = dyn Fn(&mut Builder<'_>, Value, [Value; 2], usize) -> Built + 'l;

/// A function of one kernel.
fn add(
    module: &mut Module,
    name: &str,
    dtype: DType,
    dims: &[usize],
    inputs: usize,
    body: &Body<'_>,
) -> Result<(), MeasureError> {
    let mut f = Function::new(name);
    let x: Vec<Value> = (0..inputs).map(|i| f.add_input(&format!("x{i}"), TensorType::known(dtype, dims))).collect();
    let mut b = Builder::new(&mut f, Origin::named(name));
    b.numerics = Numerics::FAST;
    let y = body(&mut b, &x)?;
    f.add_output("y", y);
    module.functions.insert(name.to_owned(), f);
    Ok(())
}

/// Chains of instructions that wait for each other, several side by side.
fn chains(b: &mut Builder<'_>, x: Value, link: &Link<'_>) -> Built {
    let constants = [b.scalar(DType::F32, 1.000_1)?, b.scalar(DType::F32, 0.001)?];
    let mut total = None;
    for chain in 0..CHAINS {
        let start = b.scalar(DType::F32, 1.0 + chain as f64)?;
        let mut y = b.binary(BinaryOp::Add, x, start)?;
        for i in 0..LENGTH {
            y = link(b, y, constants, i)?;
        }
        total = Some(match total {
            Some(sum) => b.binary(BinaryOp::Add, sum, y)?,
            None => y,
        });
    }
    Ok(total.unwrap_or(x))
}

fn product(b: &mut Builder<'_>, y: Value, [factor, term]: [Value; 2], _: usize) -> Built {
    let y = b.binary(BinaryOp::Mul, y, factor)?;
    b.binary(BinaryOp::Add, y, term)
}

fn sum(b: &mut Builder<'_>, y: Value, [_, term]: [Value; 2], _: usize) -> Built {
    b.binary(BinaryOp::Add, y, term)
}

fn division(b: &mut Builder<'_>, y: Value, [divisor, _]: [Value; 2], _: usize) -> Built {
    b.binary(BinaryOp::Div, y, divisor)
}

fn root(b: &mut Builder<'_>, y: Value, _: [Value; 2], _: usize) -> Built {
    b.unary(UnaryOp::Sqrt, y)
}

/// Of three links one compares and selects, which are two instructions.
fn mixed(b: &mut Builder<'_>, y: Value, [factor, term]: [Value; 2], i: usize) -> Built {
    match i % 3 {
        0 => product(b, y, [factor, term], i),
        1 => sum(b, y, [factor, term], i),
        _ => {
            let less = b.binary(BinaryOp::Lt, y, factor)?;
            b.select(less, y, term)
        }
    }
}

fn three(b: &mut Builder<'_>, x: &[Value]) -> Built {
    let sum = b.binary(BinaryOp::Add, x[0], x[1])?;
    b.binary(BinaryOp::Add, sum, x[2])
}

/// Nanoseconds of the fastest run.
fn run(model: &Model, long: &Tensor) -> Result<f64, MeasureError> {
    let mut given: Vec<HostValue> = Vec::new();
    for port in model.inputs() {
        let Some(ty) = port.ty.tensor() else { continue };
        let shape: Vec<usize> =
            ty.dims.iter().filter_map(|d| d.known()).filter_map(|n| usize::try_from(n).ok()).collect();
        let count: usize = shape.iter().product();
        given.push(HostValue::Tensor(match ty.dtype {
            DType::F32 if shape == long.shape() => long.clone(),
            DType::I64 => Tensor::i64(&shape, &vec![1; count])?,
            DType::F64 => Tensor::from_slice(DType::F64, &shape, &vec![1.0_f64; count])?,
            _ => Tensor::f32(&shape, &vec![1.0; count])?,
        }));
    }
    let inputs: Vec<InputRef<'_>> = given.iter().map(InputRef::from).collect();
    let mut context = model.context();
    // Places its memory.
    context.run(&inputs)?;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    let mut runs = 0;
    while runs < FEWEST || begin.elapsed() < BURST {
        runs += 1;
        context.set_profiling(true);
        context.run(&inputs)?;
        best = best.min(context.profile().iter().map(|s| s.nanoseconds as f64).sum());
    }
    Ok(best)
}

/// Bytes that the caches of one core hold, the third shared; common sizes where the system does not tell. Of each cache
/// a part counts: something else is always in it, and of the third others take most.
fn caches() -> [usize; 3] {
    let mut found = [32 << 10, 1 << 20, 32 << 20];
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    for index in 0..8 {
        let text =
            |file: &str| std::fs::read_to_string(folder.join(format!("index{index}")).join(file)).unwrap_or_default();
        let (level, size) = (text("level"), text("size"));
        let (level, size) = (level.trim().parse::<usize>(), size.trim().trim_end_matches('K').parse::<usize>());
        if let (Ok(level), Ok(size)) = (level, size)
            && text("type").trim() != "Instruction"
            && let Some(place) = level.checked_sub(1).and_then(|i| found.get_mut(i))
        {
            *place = size << 10;
        }
    }
    [found[0], found[1] / 4 * 3, found[2] / 2]
}
