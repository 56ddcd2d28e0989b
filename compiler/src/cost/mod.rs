//! How long a kernel should take: what its loop IR counts to ([`count`]), at the rates of a machine ([`Rates`]).
//!
//! # The formula
//!
//! ```text
//! kernel = max(sum of its phases, memory) + step
//! phase  = (strips + scalar) / threads at work + fork, where several threads work
//! strip  = calls (max(ports, chain) + elements apart + entry + parameters)
//! ports  = ceil(elements / lanes) max(products, sums, (products + sums + others) issue, divisions + roots, loads + stores)
//! chain  = ceil(elements / 16) latency of the slowest accumulator
//! scalar = instructions and loop rounds, one after another
//! memory = sum over buffers of bytes read / read rate + bytes written / write rate
//! ```
//!
//! - *ports*: each kind of instruction has one reciprocal throughput, in nanoseconds a vector; kinds overlap. `issue` is
//!   what a vector instruction takes when kinds are mixed.
//! - *apart*: accesses whose elements are no neighbours move one at a time, and a line of 64 bytes each: from the second
//!   cache where that holds the lines of one walk, at `far` where it does not. Distances that are multiples of a power of
//!   two share few of a cache's sets (8 ways are assumed), so that less of it counts.
//! - *chain*: accumulators are 16 lanes at every width, so element k + 16 waits for element k.
//! - *threads at work*: `t` tiles on `n` threads keep `t / ceil(t / n)` busy; the number of tiles follows from the
//!   schedule's grain as in the executor.
//! - *memory*: a buffer is read at the rate of the smallest memory that holds everything touched since it was touched
//!   last, over runs that follow each other; every buffer counts once a kernel, however often a kernel reads it.
//!
//! # Where the constants come from
//!
//! The numbers of [`Rates`] are measured on the machine at hand, at the vector width in use, by small kernels that frit
//! compiles itself (`machine` of the runtime), each of which has one of the terms above and next to nothing else. No table
//! of processors is kept. [`Rates::typical`] is one such measurement (AMD EPYC 9004, 512 bits, one thread): the compiler
//! decides by it how many iterations of a phase are worth a thread ([`grain`]), so that what it makes depends on no
//! machine's mood. `python3 tests/peers/cost.py` prints predicted beside measured times.
//!
//! # What it does not know
//!
//! Branches count as taken with a half chance, calls of functions as [`Rates::call`], lanes that need rescue as none.
//! Misses of the address translation (walks down the columns of large matrices, as in transposes, take several times what is expected),
//! addresses, spills and the latency of a body's own chain are not counted.

pub mod count;

use count::{Apart, Chain, Instructions, LINE, PhaseWork, Strip, Work};

/// Tiles that the executor makes of a long phase, a thread.
const TILES_A_THREAD: f64 = 4.0;
/// Lines that a set of a cache holds.
const WAYS: f64 = 8.0;
/// Nanoseconds of work that are worth a thread: four times what handing it over takes.
const WORTH_A_THREAD: f64 = 4_000.0;
/// Nanoseconds that moving an element takes where a phase is worth threads: its buffers lie in the second cache.
const MOVED: f64 = 0.05;

/// Memory of some size.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// What it is called.
    pub name: &'static str,
    /// Bytes that fit.
    pub bytes: f64,
    /// Nanoseconds to read a byte.
    pub read: f64,
    /// Nanoseconds to write one.
    pub write: f64,
}

/// What instructions and calls take, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Elements of 32 bits in a vector.
    pub lanes: f64,
    /// A vector of products.
    pub product: f64,
    /// A vector of sums.
    pub sum: f64,
    /// A vector instruction among others.
    pub issue: f64,
    /// A vector of quotients.
    pub division: f64,
    /// A vector of square roots.
    pub root: f64,
    /// A vector read from the first-level cache.
    pub load: f64,
    /// A vector written to it.
    pub store: f64,
    /// An element that is no neighbour of the one before.
    pub apart: f64,
    /// Such an element where lines of the walk push each other out of the second cache.
    pub far: f64,
    /// From one sum of 16 lanes to the next.
    pub sum_chain: f64,
    /// From one minimum or maximum of 16 lanes to the next.
    pub extreme_chain: f64,
    /// Entering a strip, and combining its lanes.
    pub entry: f64,
    /// An instruction of one element.
    pub scalar: f64,
    /// A function that is called.
    pub call: f64,
    /// A step of a program.
    pub step: f64,
    /// Handing a phase to other threads.
    pub fork: f64,
    /// Memories as one thread sees them, the smallest first; the last one holds everything.
    pub alone: Vec<Level>,
    /// Memories as all threads together see them.
    pub together: Vec<Level>,
}

/// What a kernel should take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Arithmetic, with loads and stores that hit the first cache.
    pub arithmetic: f64,
    /// Memory beyond it.
    pub memory: f64,
    /// The call itself.
    pub overhead: f64,
}

impl Estimate {
    /// The prediction, in nanoseconds.
    pub fn total(&self) -> f64 {
        self.arithmetic.max(self.memory) + self.overhead
    }
}

impl Rates {
    /// One measurement, to decide by.
    pub fn typical() -> Self {
        Rates {
            lanes: 16.0,
            product: 0.27,
            sum: 0.31,
            issue: 0.22,
            division: 1.63,
            root: 2.7,
            load: 0.5,
            store: 0.23,
            apart: 0.6,
            far: 2.4,
            sum_chain: 0.98,
            extreme_chain: 2.3,
            entry: 14.6,
            scalar: 0.06,
            call: 5.6,
            step: 70.0,
            fork: 1000.0,
            alone: Vec::new(),
            together: Vec::new(),
        }
    }

    /// The memory that holds some bytes, for one thread or for all; `None` where none was measured.
    pub fn level(&self, bytes: f64, all: bool) -> Option<&Level> {
        let levels = if all { &self.together } else { &self.alone };
        levels.iter().find(|l| bytes <= l.bytes).or(levels.last())
    }

    /// Floating-point operations a nanosecond of some threads, when all are fmas.
    pub fn peak(&self, threads: usize) -> f64 {
        2.0 * self.lanes * threads.max(1) as f64 / self.product
    }

    /// What a kernel's instructions take on some threads; memory, which depends on what else runs, is `memory`.
    pub fn estimate(&self, work: &Work, threads: usize, memory: f64) -> Estimate {
        let arithmetic = work.phases.iter().map(|p| self.phase(p, threads)).sum();
        Estimate { arithmetic, memory, overhead: self.step }
    }

    fn phase(&self, phase: &PhaseWork, threads: usize) -> f64 {
        let serial = self.serial(phase);
        let busy = at_work(phase, threads);
        if busy > 1.0 { serial / busy + self.fork } else { serial }
    }

    /// What a phase takes on one thread.
    pub fn serial(&self, phase: &PhaseWork) -> f64 {
        let strips: f64 = phase.strips.iter().map(|s| self.strip(s)).sum();
        strips + self.scalar(&phase.scalar) + phase.rounds * 2.0 * self.scalar
    }

    fn strip(&self, strip: &Strip) -> f64 {
        let Strip { calls, extent, body, parameters, chain, apart } = strip;
        let vectors = (extent / self.lanes).ceil();
        let steps = (extent / 16.0).ceil();
        let chain = steps
            * match chain {
                Some(Chain::Sum) => self.sum_chain,
                Some(Chain::Extreme) => self.extreme_chain,
                None => 0.0,
            };
        let apart = extent * apart.iter().map(|access| self.walk(*extent, *access)).sum::<f64>();
        calls * ((vectors * self.ports(body)).max(chain) + apart + self.entry + parameters * self.scalar)
    }

    /// An element of a walk of some elements.
    fn walk(&self, extent: f64, access: Apart) -> f64 {
        let lines = access.distance.max(LINE) / LINE;
        let fits = |level: &Level| {
            // All lines of the walk lie in one of `common` sets.
            let sets = (level.bytes / LINE / WAYS).max(1.0);
            let mut common = 1.0;
            while common * 2.0 <= sets && lines % (common * 2.0) == 0.0 {
                common *= 2.0;
            }
            extent * LINE * common <= level.bytes
        };
        match self.alone.as_slice() {
            [first, ..] if fits(first) => self.apart,
            [_, second, ..] if fits(second) => self.apart.max(LINE * second.read),
            [_, _, third, last] if access.whole > third.bytes => self.far.max(LINE * last.read),
            [] => self.apart,
            _ => self.far,
        }
    }

    /// One vector of a body.
    fn ports(&self, body: &Instructions) -> f64 {
        let Instructions { flops: _, products, sums, others, divisions, roots, loads, stores, calls } = body;
        let kinds = [
            products * self.product,
            sums * self.sum,
            (products + sums + others) * self.issue,
            divisions * self.division + roots * self.root,
            loads * self.load + stores * self.store,
        ];
        kinds.into_iter().fold(0.0, f64::max) + calls * self.call * self.lanes
    }

    fn scalar(&self, i: &Instructions) -> f64 {
        let Instructions { flops: _, products, sums, others, divisions, roots, loads, stores, calls } = i;
        // An address goes with each access.
        let plain = products + sums + others + 2.0 * (loads + stores);
        plain * self.scalar + divisions * self.division + roots * self.root + calls * self.call
    }
}

/// How many iterations of a phase are worth a thread.
pub fn grain(phase: &PhaseWork, rates: &Rates) -> u32 {
    let moved = |s: &Strip| s.calls * s.extent * (s.body.loads + s.body.stores) * MOVED;
    let serial = rates.serial(phase).max(phase.strips.iter().map(moved).sum());
    let each = serial / phase.extent.max(1.0);
    (WORTH_A_THREAD / each.max(1e-3)).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// How many threads a phase keeps busy.
pub fn at_work(phase: &PhaseWork, threads: usize) -> f64 {
    let threads = threads.max(1) as f64;
    if threads <= 1.0 {
        return 1.0;
    }
    let tiles = (phase.extent / f64::from(phase.grain.max(1))).floor().clamp(1.0, threads * TILES_A_THREAD);
    tiles / (tiles / threads).ceil()
}

#[cfg(test)]
mod tests;
