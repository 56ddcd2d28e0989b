//! The pool's own threads, and the one place of the pool that needs `unsafe`.
//!
//! In: a [`Tiles`] on the stack of a caller. Out: worked off by the caller and the workers that
//! came in time. Two things cannot be said in safe Rust: a borrow handed to threads that outlive
//! it ([`OwnThreads::run`] waits for them), and disjoint parts of one slice handed to several
//! threads by number ([`Parts`]).
#![allow(unsafe_code)] // A scoped borrow crosses to long-lived threads; each block says why it holds.

use super::{SPIN, Tiles};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Bit 0 of the gate: workers may come in.
const OPEN: u64 = 1;
/// One worker inside the job: bits 1 to 31 of the gate count them.
const INSIDE: u64 = 2;
/// The generation: bits 32 to 63, one more with every job, so that a worker enters each job once.
const GENERATION: u64 = 1 << 32;

struct Shared {
    gate: AtomicU64,
    job: AtomicPtr<Tiles<'static>>,
    /// Held by the caller whose job is at the gate.
    busy: AtomicBool,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// Started worker threads; dropped, they end.
pub(super) struct OwnThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl OwnThreads {
    /// Starts up to `workers` threads; `None` when the system starts none.
    pub(super) fn start(workers: usize) -> Option<OwnThreads> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            busy: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let threads: Vec<_> = (1..=workers)
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name(format!("frit-{worker}"));
                thread.spawn(move || shared.serve(worker)).ok()
            })
            .collect();
        (!threads.is_empty()).then_some(OwnThreads { shared, threads })
    }

    pub(super) fn workers(&self) -> usize {
        self.threads.len()
    }

    /// Works `tiles` off, with the workers' help unless they are busy with another caller's.
    pub(super) fn run(&self, tiles: &Tiles<'_>) {
        let shared = &*self.shared;
        if shared.busy.swap(true, Ordering::Acquire) {
            tiles.work(0);
            return;
        }
        // The borrow's lifetime is erased here; `close` below restores it by waiting.
        shared.job.store(std::ptr::from_ref(tiles).cast_mut().cast(), Ordering::Relaxed);
        shared.open(tiles.count - 1);
        tiles.work(0);
        shared.close();
        shared.busy.store(false, Ordering::Release);
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_up(self.threads.len());
        for thread in self.threads.drain(..) {
            // A worker catches the panics of tiles, so it ends by returning; nothing to report.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Lets workers in, and wakes as many sleepers as there are tiles for them.
    fn open(&self, wanted: usize) {
        let generation = self.gate.load(Ordering::Relaxed) & !(GENERATION - 1);
        // SeqCst, as in `sleep_until_open`: either this thread sees the sleeper, or the sleeper
        // sees the open gate.
        self.gate.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            self.wake_up(wanted.min(sleepers));
        }
    }

    /// Shuts the gate and waits for the workers inside.
    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::Relaxed);
        let mut waiter = Waiter::new();
        // Acquire pairs with the Release of each worker's leaving: their writes are visible now.
        while self.gate.load(Ordering::Acquire) & (GENERATION - 1) != 0 {
            if !waiter.spin() {
                std::thread::yield_now();
            }
        }
    }

    fn wake_up(&self, count: usize) {
        let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..count {
            self.wake.notify_one();
        }
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut done = 0;
        let mut waiter = Waiter::new();
        while !self.stop.load(Ordering::Relaxed) {
            let gate = self.gate.load(Ordering::Acquire);
            let generation = gate & !(GENERATION - 1);
            if gate & OPEN == 0 || generation == done {
                if !waiter.spin() {
                    self.sleep_until_open(done);
                    waiter = Waiter::new();
                }
                continue;
            }
            let entered = self.gate.compare_exchange_weak(gate, gate + INSIDE, Ordering::Acquire, Ordering::Relaxed);
            if entered.is_err() {
                continue;
            }
            // SAFETY: the gate was open when this worker was counted in, and Acquire makes the
            // pointer stored before opening visible. The caller returns (and drops the job) only
            // after `close` has seen this worker leave, below.
            let tiles = unsafe { &*self.job.load(Ordering::Relaxed) };
            tiles.work(worker);
            self.gate.fetch_sub(INSIDE, Ordering::Release);
            done = generation;
            waiter = Waiter::new();
        }
    }

    fn sleep_until_open(&self, done: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            let new_job = gate & OPEN != 0 && gate & !(GENERATION - 1) != done;
            if new_job || self.stop.load(Ordering::SeqCst) {
                break;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Spins for [`SPIN`], asking for the time only now and then.
struct Waiter {
    turns: u32,
    since: Option<Instant>,
}

impl Waiter {
    fn new() -> Waiter {
        Waiter { turns: 0, since: None }
    }

    /// Waits a moment; `false` once the time is up.
    fn spin(&mut self) -> bool {
        std::hint::spin_loop();
        self.turns = self.turns.wrapping_add(1);
        !self.turns.is_multiple_of(64) || self.since.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}

/// A slice cut into chunks that are handed out by number, each to one thread at a time.
pub(super) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    chunk: usize,
    data: PhantomData<&'a mut [T]>,
}

// SAFETY: the tiles of one run are distinct numbers, so threads that share a `Parts` get disjoint
// chunks; sending a `&mut T` to another thread needs `T: Send`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(data: &'a mut [T], chunk: usize) -> Self {
        let (start, len) = (data.as_mut_ptr(), data.len());
        Parts { start, len, chunk, data: PhantomData }
    }

    /// Calls `job` with chunk `index`. Private to the pool, which passes each index once.
    pub(super) fn with(&self, index: usize, job: impl FnOnce(&mut [T])) {
        let Some(begin) = index.checked_mul(self.chunk).filter(|begin| *begin < self.len) else {
            return;
        };
        let length = self.chunk.min(self.len - begin);
        // SAFETY: the range is inside the borrowed slice; the pool runs each tile exactly once, so
        // no other reference to this chunk exists while `job` runs.
        job(unsafe { std::slice::from_raw_parts_mut(self.start.add(begin), length) });
    }
}
