//! What it costs to share a step among threads.
//!
//! `cargo bench -p frit-runtime --bench pool [-- --threads N]` runs a step of one tile a thread, each a known amount of
//! arithmetic, and prints the time beyond one tile's own: for steps that follow one another (threads still spin) and for
//! a step after a pause (they sleep). Medians of many, in microseconds.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use frit_runtime::pool::Pool;

/// Microseconds of arithmetic a tile.
const WORK: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];
/// Longer than threads spin.
const PAUSE: Duration = Duration::from_micros(500);

/// Dependent multiply-adds, which take the same time wherever they run.
fn arithmetic(steps: u64) {
    let mut x = black_box(0.5_f64);
    for _ in 0..steps {
        x = x.mul_add(black_box(0.999), 0.001);
    }
    black_box(x);
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median microseconds of a call.
fn time(rounds: usize, pause: Option<Duration>, mut call: impl FnMut()) -> f64 {
    let one = |call: &mut dyn FnMut()| {
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..rounds / 10).for_each(|_| call());
    median((0..rounds).map(|_| one(&mut call)).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|i| arguments.get(i + 1));
    let threads: usize = after("--threads").map_or(Ok(2), |n| n.parse())?;
    let pool = Pool::new(threads);
    // Steps of arithmetic in a microsecond.
    let speed = 100_000.0 / time(50, None, || arithmetic(100_000));
    println!("{threads} threads; microseconds beyond the work of one tile");
    println!("{:>8} {:>10} {:>10} {:>12}", "a tile", "one thread", "in a row", "after pause");
    for work in WORK {
        let steps = (work * speed) as u64;
        let alone = time(2000, None, || arithmetic(steps));
        let every = time(2000, None, || (0..threads).for_each(|_| arithmetic(steps)));
        let mut step = || pool.run(threads, &|_, _| arithmetic(steps));
        let (row, paused) = (time(2000, None, &mut step), time(200, Some(PAUSE), &mut step));
        println!("{work:>8.1} {:>10.2} {:>10.2} {:>12.2}", every - alone, row - alone, paused - alone);
    }
    Ok(())
}
