//! The pool's promises: each tile once, worker numbers apart, many callers, nesting, panics.

use super::*;
use std::sync::atomic::AtomicBool;

/// Runs `tiles` tiles and checks that each ran once and that no worker number was in use twice.
fn check_run(pool: &Pool, tiles: usize) {
    let counts: Vec<AtomicUsize> = (0..tiles).map(|_| AtomicUsize::new(0)).collect();
    let in_use: Vec<AtomicBool> = (0..pool.threads()).map(|_| AtomicBool::new(false)).collect();
    pool.run(tiles, &|tile, worker| {
        assert!(!in_use[worker].swap(true, Ordering::SeqCst), "worker {worker} is in use twice");
        counts[tile].fetch_add(1, Ordering::SeqCst);
        in_use[worker].store(false, Ordering::SeqCst);
    });
    assert!(counts.iter().all(|count| count.load(Ordering::SeqCst) == 1));
}

#[test]
fn every_tile_runs_once() {
    for threads in [0, 1, 2, 3, 5] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads.max(1));
        for tiles in [0, 1, 2, 3, 7, 64, 1000] {
            check_run(&pool, tiles);
        }
    }
}

#[test]
fn many_callers_share_a_pool() {
    let pool = Pool::new(3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|round| check_run(&pool, round % 17)));
        }
    });
}

#[test]
fn sleeping_workers_wake() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        std::thread::sleep(SPIN * 4);
        let met = AtomicUsize::new(0);
        // Both tiles wait for each other, so the run ends only if a second thread takes part.
        pool.run(2, &|_, _| {
            met.fetch_add(1, Ordering::SeqCst);
            while met.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn nested_runs_are_inline() {
    let pool = Pool::new(3);
    let total = AtomicUsize::new(0);
    pool.run(8, &|_, _| {
        pool.run(8, &|_, worker| {
            assert_eq!(worker, 0);
            pool.run(3, &|_, _| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
    });
    assert_eq!(total.load(Ordering::Relaxed), 8 * 8 * 3);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for _ in 0..10 {
            let others = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(16, &|tile, _| {
                    if tile == 5 {
                        std::panic::panic_any("tile five");
                    }
                    others.fetch_add(1, Ordering::SeqCst);
                });
            }));
            let payload = outcome.expect_err("the panic must reach the caller");
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"tile five"));
            assert_eq!(others.load(Ordering::SeqCst), 15);
            check_run(&pool, 64);
        }
    }
}

#[test]
fn chunks_are_disjoint_and_cover() {
    let pool = Pool::new(4);
    for (len, chunk) in [(0, 3), (1, 3), (10, 3), (1000, 7), (9, 0)] {
        let mut data = vec![0_u64; len];
        pool.run_chunks(&mut data, chunk, &|index, part, _| {
            for (offset, value) in part.iter_mut().enumerate() {
                *value += (index * chunk.max(1) + offset) as u64 + 1;
            }
        });
        assert!(data.iter().enumerate().all(|(index, value)| *value == index as u64 + 1));
    }
}

/// An embedder's threads that start anew for each run; `lazy` ones never call the job.
struct Scoped {
    lazy: bool,
}

impl Threads for Scoped {
    fn threads(&self) -> usize {
        3
    }
    fn broadcast(&self, job: &(dyn Fn() + Sync)) {
        if !self.lazy {
            std::thread::scope(|scope| (0..5).for_each(|_| _ = scope.spawn(job)));
        }
    }
}

#[test]
fn lent_threads_cannot_lose_or_repeat_a_tile() {
    for lazy in [false, true] {
        let pool = Pool::lent(Box::new(Scoped { lazy }));
        for tiles in [0, 1, 2, 50] {
            check_run(&pool, tiles);
        }
    }
}

#[test]
fn a_pool_can_be_dropped_at_once() {
    for _ in 0..50 {
        let pool = Pool::new(4);
        check_run(&pool, 2);
    }
}
