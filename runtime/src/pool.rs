//! The process-wide CPU thread pool.
//!
//! In: a number of tiles and a function of (tile, worker). Out: every tile has run exactly once,
//! and the call returns. One pool serves the whole process, so that ten loaded models do not
//! start ten sets of threads; an embedder that has threads of its own lends them through
//! [`Threads`] instead.
//!
//! What holds:
//! - The calling thread works too, as worker 0. Tiles that run at the same time have different
//!   worker numbers, all below [`Pool::threads`], so scratch memory can be indexed by worker.
//! - Which worker takes which tile is left to chance. Results must not depend on it; every caller
//!   derives its number of tiles from shapes alone, never from the number of threads.
//! - A run allocates nothing: the job lives on the caller's stack.
//! - A pool that is busy, or called from inside a tile, does not queue: the caller runs its tiles
//!   alone. Several models on several threads are then parallel already, and nothing can deadlock.
//! - A panic in a tile is raised again in the caller after the other tiles are done; the pool
//!   stays usable.
//!
//! Why so: a matrix product of a small model takes tens of microseconds, so waking a thread
//! through the kernel (5 to 50 microseconds) for each would cost more than it brings. Workers
//! therefore spin for [`SPIN`] after a run, then sleep.
//!
//! The protocol of the pool's own threads rests on one word, the *gate*: a generation number, the count
//! of workers inside the job, and a bit that says whether it is open. A worker may look at the job
//! only after it has counted itself in while the gate was open; the caller closes the gate and
//! waits until the count is zero before it returns, so no worker sees a job whose stack frame is
//! gone.

mod own;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long a worker spins after a run before it sleeps.
pub const SPIN: Duration = Duration::from_micros(50);

/// The largest number of threads a pool starts; more are asked for in vain.
pub const MAX_THREADS: usize = 256;

/// What a run calls for each tile: (tile, worker).
pub type TileFn<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads lent by an embedder.
///
/// Tiles are claimed and worker numbers given inside `job`, so an implementation cannot make a
/// tile run twice or never: what its threads leave undone, the calling thread does.
pub trait Threads: Send + Sync {
    /// How many threads [`Threads::broadcast`] may use, the caller's included; at least 1.
    fn threads(&self) -> usize;

    /// Calls `job` on some threads, ideally `threads() - 1` of them and the caller, and returns
    /// when all those calls have returned. A call returns once no tile is left.
    fn broadcast(&self, job: &(dyn Fn() + Sync));
}

/// A set of threads that run tiles. See the module page for what holds.
pub struct Pool {
    kind: Kind,
}

enum Kind {
    Inline,
    Own(own::OwnThreads),
    Lent(Box<dyn Threads>),
}

static GLOBAL: OnceLock<Pool> = OnceLock::new();

impl Pool {
    /// A pool of `threads` threads, the caller's included: `threads - 1` are started here.
    ///
    /// 0 and 1 both mean that everything runs on the calling thread. Where the system refuses to
    /// start a thread the pool is smaller than asked for; [`Pool::threads`] tells.
    pub fn new(threads: usize) -> Pool {
        let workers = threads.clamp(1, MAX_THREADS) - 1;
        let own = match workers {
            0 => None,
            n => own::OwnThreads::start(n),
        };
        Pool { kind: own.map_or(Kind::Inline, Kind::Own) }
    }

    /// A pool on threads that the embedder owns.
    pub fn lent(threads: Box<dyn Threads>) -> Pool {
        Pool { kind: Kind::Lent(threads) }
    }

    /// The pool of the process, made on first use with one thread a logical CPU.
    pub fn global() -> &'static Pool {
        GLOBAL.get_or_init(|| Pool::new(std::thread::available_parallelism().map_or(1, |threads| threads.get())))
    }

    /// Makes `pool` the pool of the process.
    ///
    /// # Errors
    /// Gives `pool` back when [`Pool::global`] or `set_global` was called before.
    pub fn set_global(pool: Pool) -> Result<(), Pool> {
        GLOBAL.set(pool)
    }

    /// How many threads work on a run, the caller's included; worker numbers are below this.
    pub fn threads(&self) -> usize {
        match &self.kind {
            Kind::Inline => 1,
            Kind::Own(own) => own.workers() + 1,
            Kind::Lent(lent) => lent.threads().max(1),
        }
    }

    /// Runs `job(tile, worker)` once for every tile below `tiles` and returns when all are done.
    ///
    /// # Panics
    /// Raises the first panic of a tile again, after every other tile has run.
    pub fn run(&self, tiles: usize, job: &TileFn<'_>) {
        let tiles = Tiles::new(tiles, job);
        match &self.kind {
            _ if tiles.count <= 1 => tiles.work(0),
            Kind::Inline => tiles.work(0),
            Kind::Own(own) => own.run(&tiles),
            Kind::Lent(lent) => {
                let workers = AtomicUsize::new(1);
                let threads = self.threads();
                let owner = std::thread::current().id();
                lent.broadcast(&|| {
                    if std::thread::current().id() == owner {
                        tiles.work(0);
                        return;
                    }
                    let worker = workers.fetch_add(1, Ordering::Relaxed);
                    if worker < threads {
                        tiles.work(worker);
                    }
                });
                tiles.work(0);
            }
        }
        tiles.finish();
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and runs
    /// `job(index of the chunk, the chunk, worker)` for each, in parallel.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn run_chunks<T: Send>(&self, data: &mut [T], chunk: usize, job: &(dyn Fn(usize, &mut [T], usize) + Sync)) {
        let chunk = chunk.max(1);
        let tiles = data.len().div_ceil(chunk);
        let parts = own::Parts::new(data, chunk);
        self.run(tiles, &|tile, worker| parts.with(tile, |part| job(tile, part, worker)));
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

/// One run: the tiles not yet taken and what to do with them.
///
/// Tiles are taken from both ends, by half of the workers each: so of two threads each works on the same half of all
/// tensors, step after step, and finds in its own cache what it wrote.
struct Tiles<'a> {
    count: usize,
    /// How many are taken from the front, and in the upper half of the bits from the back.
    taken: AtomicU64,
    job: &'a TileFn<'a>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> Tiles<'a> {
    fn new(count: usize, job: &'a TileFn<'a>) -> Self {
        Tiles { count, taken: AtomicU64::new(0), job, panic: Mutex::new(None) }
    }

    /// Takes tiles until none is left.
    fn work(&self, worker: usize) {
        const BACK: u64 = 1 << 32;
        // Each thread may ask once more when all are taken.
        let from_back = worker % 2 == 1 && self.count < u32::MAX as usize / 2;
        loop {
            let taken = self.taken.fetch_add(if from_back { BACK } else { 1 }, Ordering::Relaxed);
            let (front, back) =
                if self.count < u32::MAX as usize / 2 { (taken % BACK, taken / BACK) } else { (taken, 0) };
            let (front, back) = (front as usize, back as usize);
            if front.saturating_add(back) >= self.count {
                return;
            }
            let tile = if from_back { self.count - 1 - back } else { front };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.job)(tile, worker))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(payload);
            }
        }
    }

    /// Raises the panic of a tile, if there was one.
    fn finish(self) {
        if let Some(payload) = self.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}
