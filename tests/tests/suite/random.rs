//! Random modules: one meaning at every level, width and thread count.
//!
//! Strict mode gives the same bits at -O0 and -O3, on 1 and 2 threads, in groups of 4, 8 and 16 lanes and at every vector
//! width of the machine, and stays within the error bound computed for that graph; fast mode stays within a wider one. `FRIT_RANDOM_MODULES` says how many,
//! `FRIT_RANDOM_SEED` from which seed. What fails is printed with its seed, shrunk to a text that can be pasted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use frit_compiler::cpu::{VectorBits, Vectors};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_tests::case::differing;
use frit_tests::{Case, shrink, within};

/// Ulp of elementary functions that the code generator promises.
const STRICT_ULP: f64 = 2.0;
const FAST_ULP: f64 = 4.0;

/// How much wider than the bound of the graph as written fast mode may be: rewrites add roundings of their own.
const FAST_FACTOR: f64 = 8.0;

/// Failures that are shrunk and printed; one bug often fails many modules.
const SHOWN: usize = 3;

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Every way to run the innermost loops; a width that the machine lacks is its widest.
const WIDTHS: [Vectors; 6] = [
    Vectors::AtMost(VectorBits::B512),
    Vectors::Groups(4),
    Vectors::AtMost(VectorBits::B256),
    Vectors::Groups(8),
    Vectors::AtMost(VectorBits::B128),
    Vectors::Groups(16),
];

pub(crate) struct Pools {
    one: Arc<Pool>,
    two: Arc<Pool>,
}

impl Pools {
    pub(crate) fn new() -> Pools {
        Pools { one: Arc::new(Pool::new(1)), two: Arc::new(Pool::new(2)) }
    }
}

/// How large the random module of a seed is.
pub(crate) fn size(seed: u64) -> usize {
    3 + (seed % 12) as usize
}

/// Everything that must hold for a case; gives how many elements had a bound. Widths rotate with `turn`: each module
/// sees -O3 in two of the six.
fn check(case: &Case, turn: u64, pools: &Pools) -> Result<usize, String> {
    let expected = case.bounds(STRICT_ULP)?;
    let plain = case.run(Level::O0, Math::Strict, Vectors::Widest, &pools.one)?;
    let checked = within(&plain, &expected, 1.0).map_err(|e| format!("strict -O0: {e}"))?;
    let (first, second) = (WIDTHS[(turn % 6) as usize], WIDTHS[((turn + 1 + turn / 6 % 5) % 6) as usize]);
    for (level, vectors) in [(Level::O3, first), (Level::O3, second)] {
        let model = case.compile(level, Math::Strict, vectors)?;
        for pool in [&pools.one, &pools.two] {
            let found = case.run_on(&model.with_pool(pool.clone()))?;
            if let Some(output) = differing(&plain, &found) {
                let off = within(&found, &expected, 1.0).err().unwrap_or_else(|| "within the bound".to_owned());
                let threads = pool.threads();
                return Err(format!(
                    "strict {level:?}, {vectors:?}, {threads} threads: output {output} has other bits than -O0; {off}"
                ));
            }
        }
    }
    let fast = case.run(Level::O3, Math::Fast, first, &pools.two)?;
    let expected = case.bounds(FAST_ULP)?;
    within(&fast, &expected, FAST_FACTOR).map_err(|e| format!("fast -O3 {first:?}: {e}"))?;
    Ok(checked)
}

#[test]
fn random_modules_mean_the_same_everywhere() {
    let count = number("FRIT_RANDOM_MODULES", if cfg!(debug_assertions) { 60 } else { 2000 });
    let start = number("FRIT_RANDOM_SEED", 1);
    let pools = Pools::new();
    let (next, elements) = (AtomicU64::new(start), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + count {
                        break;
                    }
                    let case = Case::random(seed, size(seed)).expect("a random module");
                    match check(&case, seed, &pools) {
                        Ok(checked) => _ = elements.fetch_add(checked, Ordering::Relaxed),
                        Err(message) => failures.lock().expect("no panic inside").push((seed, message)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic inside");
    for (seed, message) in failures.iter().take(SHOWN) {
        let case = Case::random(*seed, size(*seed)).expect("a random module");
        let fails = |case: &Case| case.bounds(STRICT_ULP).is_ok() && check(case, *seed, &pools).is_err();
        let small = shrink(&case, *seed, &fails);
        let now = check(&small, *seed, &pools).err().unwrap_or_default();
        println!("seed {seed}: {message}\nshrunk: {now}\n{}", small.text());
    }
    let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    for (seed, message) in failures.iter().skip(SHOWN) {
        println!("seed {seed}: {message}");
    }
    println!("{count} random modules from seed {start}, {} elements with a bound", elements.load(Ordering::Relaxed));
    assert!(seeds.is_empty(), "{} of {count} modules fail, seeds {seeds:?}", seeds.len());
    assert!(elements.load(Ordering::Relaxed) as u64 > count * 10, "too few elements have a finite bound");
}
