//! Speed of matrix products in f32: ours with B packed at load, ours with B as it lies, gemmkit.
//!
//! `cargo bench -p frit-runtime --bench matmul [-- --threads N] [--rounds N]` prints GFLOP/s for a table of sizes: the
//! best of many short runs, forms taking turns, so that a moment of noise hits all of them.
//! `... -- --serve` answers lines `M K N FORM THREADS MILLISECONDS` on standard input with `BEST MEDIAN` nanoseconds;
//! `tests/peers/matmul.py` asks it in turns with other libraries.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use frit_runtime::library::gemm::{Epilogue, GemmShape, Layout, Operand, Panels, gemm, gemm_packed};
use frit_runtime::pool::Pool;

/// M, K, N.
const SIZES: &[(usize, usize, usize)] = &[
    (1, 784, 64),
    (16, 784, 64),
    (64, 784, 64),
    (256, 784, 64),
    (64, 64, 10),
    (8, 768, 768),
    (128, 768, 768),
    (128, 3072, 768),
    (128, 768, 3072),
    (128, 384, 1536),
    (512, 512, 512),
    (1024, 1024, 1024),
    (3136, 576, 64),
    (1, 2304, 9216),
    (8, 2304, 9216),
];

const FORMS: &[&str] = &["packed", "packed_t", "plain", "plain_t", "gemmkit"];

/// Elements from the start of a cache line on, as in a session.
struct Aligned {
    memory: Vec<f32>,
    start: usize,
}

impl Aligned {
    fn new(mut memory: Vec<f32>) -> Aligned {
        let len = memory.len();
        memory.reserve(16);
        let start = memory.as_ptr().align_offset(64).min(16);
        memory.resize(len + start, 0.0);
        memory.copy_within(..len, start);
        Aligned { memory, start }
    }

    fn get(&self) -> &[f32] {
        &self.memory[self.start..]
    }
}

/// Operands of one size.
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a: Aligned,
    b: Aligned,
    c: Aligned,
    packed: Option<Panels>,
    packed_t: Option<Panels>,
}

/// Values in -1..1.
fn values(len: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

impl Case {
    fn new((m, k, n): (usize, usize, usize)) -> Result<Case, Box<dyn Error>> {
        let (a, b, c) = (values(m * k), values(k * n), vec![0.0; m * n]);
        let [a, b, c] = [a, b, c].map(Aligned::new);
        let shape = GemmShape { batch: &[], m, n, k };
        let packed = Panels::new(&shape, Operand { data: b.get(), layout: Layout::row_major(n) })?;
        let packed_t = Panels::new(&shape, Operand { data: b.get(), layout: transposed(k) })?;
        Ok(Case { m, k, n, a, b, c, packed, packed_t })
    }

    /// One product.
    fn run(&mut self, form: &str, pool: &Pool) -> Result<(), Box<dyn Error>> {
        let Case { m, k, n, a, b, c, packed, packed_t } = self;
        let (a, b, c) = (a.get(), b.get(), &mut c.memory[c.start..]);
        let shape = GemmShape { batch: &[], m: *m, n: *n, k: *k };
        let (left, out) = (Operand { data: a, layout: Layout::row_major(*k) }, Layout::row_major(*n));
        let lines = match form {
            "packed" | "packed_t" => {
                let panels = if form == "packed" { packed } else { packed_t };
                let panels = panels.as_ref().ok_or("no kernels for this CPU")?;
                return Ok(gemm_packed(pool, &shape, left, panels, Epilogue::NONE, c, out)?);
            }
            "plain" => Layout::row_major(*n),
            "plain_t" => transposed(*k),
            "gemmkit" => {
                let threads = match pool.threads() {
                    1 => gemmkit::Parallelism::Serial,
                    threads => gemmkit::Parallelism::Rayon(threads),
                };
                let a = gemmkit::MatRef::from_row_major(a, *m, *k);
                let b = gemmkit::MatRef::from_row_major(b, *k, *n);
                gemmkit::gemm(1.0, a, b, 0.0, gemmkit::MatMut::from_row_major(c, *m, *n), threads);
                return Ok(());
            }
            _ => return Err(format!("no form `{form}`; there are {FORMS:?}").into()),
        };
        Ok(gemm(pool, &shape, left, Operand { data: b, layout: lines }, Epilogue::NONE, c, out)?)
    }

    /// Nanoseconds of a product, many times over, for about so long.
    fn time(&mut self, form: &str, pool: &Pool, length: Duration) -> Result<Vec<f64>, Box<dyn Error>> {
        let begin = Instant::now();
        self.run(form, pool)?;
        // Enough products a sample that reading the clock does not count.
        let batch = (2e-5 / begin.elapsed().as_secs_f64()).clamp(1.0, 1000.0) as u32;
        let mut times = Vec::new();
        while begin.elapsed() < length || times.len() < 3 {
            let start = Instant::now();
            for _ in 0..batch {
                self.run(form, pool)?;
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(batch));
        }
        black_box(self.c.get());
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// B stored `[n, k]`.
fn transposed(k: usize) -> Layout<'static> {
    Layout { row: 1, col: k as isize, ..Layout::default() }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let pools = [Pool::new(1), Pool::new(2)];
    let mut kept: Option<Case> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [m, k, n, form, threads, millis] = words[..] else { return Err("M K N FORM THREADS MILLISECONDS".into()) };
        let size = (m.parse()?, k.parse()?, n.parse()?);
        let mut case = match kept.take() {
            Some(case) if (case.m, case.k, case.n) == size => case,
            _ => Case::new(size)?,
        };
        let pool = if threads == "1" { &pools[0] } else { &pools[1] };
        let times = case.time(form, pool, Duration::from_millis(millis.parse()?))?;
        println!("{} {}", times[0], times[times.len() / 2]);
        std::io::stdout().flush()?;
        kept = Some(case);
    }
    Ok(())
}

fn table(threads: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(threads);
    println!("GFLOP/s, best of {rounds} turns, {} threads; pack: milliseconds a MB", pool.threads());
    print!("{:>5} {:>5} {:>5}", "m", "k", "n");
    FORMS.iter().for_each(|form| print!(" {form:>9}"));
    println!(" {:>6} {:>6}", "pack", "pack_t");
    for &(m, k, n) in SIZES {
        let mut case = Case::new((m, k, n))?;
        let mut best = vec![f64::INFINITY; FORMS.len()];
        for _ in 0..rounds {
            for (form, best) in FORMS.iter().zip(&mut best) {
                *best = best.min(case.time(form, &pool, Duration::from_millis(10))?[0]);
            }
        }
        print!("{m:>5} {k:>5} {n:>5}");
        best.iter().for_each(|best| print!(" {:>9.1}", 2.0 * (m * k * n) as f64 / best));
        let shape = GemmShape { batch: &[], m, n, k };
        for layout in [Layout::row_major(n), transposed(k)] {
            let mut best = f64::INFINITY;
            for _ in 0..rounds {
                let start = Instant::now();
                black_box(Panels::new(&shape, Operand { data: case.b.get(), layout })?);
                best = best.min(start.elapsed().as_secs_f64() * 1e3);
            }
            print!(" {:>6.2}", best / ((k * n * 4) as f64 / 1e6));
        }
        println!();
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> Result<usize, Box<dyn Error>> {
        match words.iter().position(|word| word == name) {
            Some(at) => Ok(words.get(at + 1).ok_or("a number is missing")?.parse()?),
            None => Ok(default),
        }
    };
    if words.iter().any(|word| word == "--serve") {
        serve()
    } else {
        table(number("--threads", 1)?, number("--rounds", 20)?)
    }
}
