//! Constant operands, packed once at load.
//!
//! In: matrices `[.., k, n]` in any layout. Out: [`Panels`], each matrix as panels of columns in the order in which the
//! kernels of this CPU read them, so that `[k, n]` and `[n, k]` weights are multiplied at the same speed.
#![allow(unsafe_code)] // Memory aligned to cache lines, seen as elements.

use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, MmapMut};

use super::blocks::{pack, packed_len};
use super::kernels::Kernels;
use super::{GemmShape, OP, Operand};
use crate::library::LibraryError;
use crate::library::grid::{Batched, MatView};
use crate::pool::Pool;

/// As large as this, memory comes in large pages where the system has them.
const LARGE: usize = 4 << 20;

/// Panels that a thread packs at a time.
const PANELS_AT_ONCE: usize = 2;

/// A cache line, which no vector of a panel straddles.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Line([f32; 16]);

/// Elements from the start of a cache line on.
pub(super) enum Memory {
    Lines(Vec<Line>),
    Map(MmapMut),
}

impl Memory {
    pub(super) const NONE: Memory = Memory::Lines(Vec::new());

    /// Zeros for so many elements, or `None` where there is no memory.
    fn zeros(len: usize) -> Option<Memory> {
        let bytes = len.checked_mul(size_of::<f32>())?.checked_next_multiple_of(size_of::<Line>())?;
        if bytes >= LARGE {
            let map = MmapMut::map_anon(bytes).ok()?;
            // Small pages do as well.
            let _ = map.advise(Advice::HugePage);
            return Some(Memory::Map(map));
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(bytes / size_of::<Line>()).ok()?;
        lines.resize(bytes / size_of::<Line>(), Line([0.0; 16]));
        Some(Memory::Lines(lines))
    }

    /// Room for at least so many elements, whatever they hold; false where there is no memory.
    pub(super) fn grow(&mut self, len: usize) -> bool {
        if self.elements().len() < len {
            match Memory::zeros(len) {
                Some(memory) => *self = memory,
                None => return false,
            }
        }
        true
    }

    fn start(&self) -> (*const f32, usize) {
        match self {
            Memory::Lines(lines) => (lines.as_ptr().cast(), size_of_val(&lines[..])),
            Memory::Map(map) => (map.as_ptr().cast(), map.len()),
        }
    }

    fn elements(&self) -> &[f32] {
        let (start, bytes) = self.start();
        // SAFETY: lines are floats without padding; a map is aligned to pages, and any bits are floats. Both are
        // borrowed for as long as the result.
        unsafe { std::slice::from_raw_parts(start, bytes / size_of::<f32>()) }
    }

    pub(super) fn elements_mut(&mut self) -> &mut [f32] {
        let (start, bytes) = match self {
            Memory::Lines(lines) => (lines.as_mut_ptr().cast(), size_of_val(&lines[..])),
            Memory::Map(map) => (map.as_mut_ptr().cast(), map.len()),
        };
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, bytes / size_of::<f32>()) }
    }
}

/// The second operand of products, packed.
pub struct Panels {
    memory: Memory,
    pub(super) kernels: &'static Kernels,
    matrices: usize,
    k: usize,
    n: usize,
    /// From one matrix to the next.
    stride: usize,
}

impl Panels {
    /// Packs B of `shape`, whose m does not matter. `None` where packing would bring nothing: a single column or an
    /// empty matrix, a CPU without kernels, memory that ran out.
    ///
    /// # Errors
    /// A layout that does not fit its slice.
    pub fn new(shape: &GemmShape<'_>, b: Operand<'_, f32>) -> Result<Option<Panels>, LibraryError> {
        match Kernels::detect() {
            Some(kernels) => Panels::with(kernels, shape, b),
            None => Ok(None),
        }
    }

    pub(super) fn with(
        kernels: &'static Kernels,
        shape: &GemmShape<'_>,
        b: Operand<'_, f32>,
    ) -> Result<Option<Panels>, LibraryError> {
        let b = Batched::new(b.data, b.layout, shape.b(), OP, "B")?;
        let (k, n, matrices) = (shape.k, shape.n, shape.b().matrices());
        if k == 0 || n < 2 || matrices == 0 {
            return Ok(None);
        }
        let sizes = packed_len(kernels, k, n).and_then(|stride| {
            let memory = Memory::zeros(stride.checked_mul(matrices)?)?;
            Some((stride, memory))
        });
        let Some((stride, mut memory)) = sizes else { return Ok(None) };
        for (index, target) in memory.elements_mut().chunks_exact_mut(stride).take(matrices).enumerate() {
            if !pack(kernels, &b.matrix(index), 0, target) {
                return Ok(None);
            }
        }
        Ok(Some(Panels { memory, kernels, matrices, k, n, stride }))
    }

    /// Packs a matrix on all threads into memory that is handed on. `None` where there is no memory, or the matrix has
    /// no neighbours.
    pub(super) fn now(
        kernels: &'static Kernels,
        pool: &Pool,
        b: &MatView<'_, f32>,
        mut memory: Memory,
    ) -> Option<Panels> {
        let (k, n) = (b.rows(), b.cols());
        let stride = packed_len(kernels, k, n)?;
        let failed = AtomicBool::new(!memory.grow(stride));
        let target = memory.elements_mut().get_mut(..stride)?;
        let chunk = PANELS_AT_ONCE * kernels.panel();
        pool.run_chunks(target, chunk * k, &|index, target, _| {
            if !pack(kernels, b, index * chunk, target) {
                failed.store(true, Ordering::Relaxed);
            }
        });
        (!failed.into_inner()).then_some(Panels { memory, kernels, matrices: 1, k, n, stride })
    }

    /// The memory, for other panels.
    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        self.memory.start().1
    }

    /// Whether they are B of that shape.
    pub(super) fn suits(&self, shape: &GemmShape<'_>) -> bool {
        self.k == shape.k && self.n == shape.n && self.matrices == shape.b().matrices()
    }

    /// The panels of `cols` columns of a matrix from column `first` on, which starts a panel.
    pub(super) fn from(&self, matrix: usize, first: usize, k: usize, cols: usize) -> Option<&[f32]> {
        let last = first.checked_add(cols)?;
        let fits = matrix < self.matrices && k == self.k && last <= self.n;
        let whole =
            first.is_multiple_of(self.kernels.panel()) && (last == self.n || last.is_multiple_of(self.kernels.panel()));
        if !fits || !whole {
            return None;
        }
        self.memory.elements().get(matrix * self.stride + first * k..(matrix + 1) * self.stride)
    }
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panels({} of [{}, {}])", self.matrices, self.k, self.n)
    }
}
