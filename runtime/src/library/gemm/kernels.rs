//! The kernels: a few rows of A times a few vectors of B, in registers; and panels made from B.
//!
//! In: [`Block`], pointers and strides. Out: a block of C. A kernel `rows x vectors` holds that part of C in registers
//! and goes through the depth once: B a vector at a time, A an element at a time, spread over the lanes.
//!
//! What holds, whatever the kernel, the vector unit, the layout or the form of B: an element of C is ONE chain of fused
//! multiply-adds over ascending depth, from zero; then bias and bounds, each an op of its own. A product that is cut along its depth stores C and takes the chain up
//! again from there. So all of them give the same bits, and where work is cut cannot change a result.
#![allow(unsafe_code)] // Kernels over raw pointers; tables that exist only where the CPU has the features.

#[cfg(target_arch = "x86_64")]
use super::x86;

/// Vectors in a row of a panel. Two leave room for the most rows of C in registers.
pub(super) const PANEL_VECTORS: usize = 2;

/// Which way a bias goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// There is none.
    Nothing,
    /// One element for each row.
    Rows,
    /// One element for each column.
    Columns,
}

/// What is done to a sum before it is stored: see `epilogue`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// The bias of the first row or column.
    pub(super) bias: *const f32,
    pub(super) along: Along,
    pub(super) lower: f32,
    pub(super) zero: f32,
    pub(super) upper: f32,
}

impl Finish {
    /// The same from another row and column on.
    pub(super) fn from(self, row: usize, col: usize) -> Finish {
        let on = match self.along {
            Along::Nothing => 0,
            Along::Rows => row,
            Along::Columns => col,
        };
        Finish { bias: self.bias.wrapping_add(on), ..self }
    }

    /// For the transposed product.
    pub(super) fn transposed(self) -> Finish {
        let along = match self.along {
            Along::Nothing => Along::Nothing,
            Along::Rows => Along::Columns,
            Along::Columns => Along::Rows,
        };
        Finish { along, ..self }
    }
}

/// What a kernel works on.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Multiply-adds for each element of C.
    pub(super) depth: usize,
    /// A: element (row, depth) at `a + row * a_row + depth * a_step`.
    pub(super) a: *const f32,
    pub(super) a_row: isize,
    pub(super) a_step: isize,
    /// B: panel `p` of the block, depth `d` at `b + p * b_panel + d * b_step`.
    pub(super) b: *const f32,
    pub(super) b_panel: usize,
    pub(super) b_step: isize,
    /// What is fetched into the cache meanwhile: for each vector of B that is loaded, the one that lies as far from
    /// `fetch`, which moves on by `fetch_step`. Any address will do.
    pub(super) fetch: *const f32,
    pub(super) fetch_step: isize,
    /// C: element (row, col) at `c + row * c_row + col`.
    pub(super) c: *mut f32,
    pub(super) c_row: isize,
    /// Columns of C.
    pub(super) cols: usize,
    /// Start from zero; otherwise from what C holds.
    pub(super) from_zero: bool,
}

/// A kernel, with what is done to sums that are complete; `None` where they are not, or nothing is. Its caller vouches for
/// every element that the block reaches, and for the CPU. (The second is no part of the first, whose copies are in the
/// way of many small blocks.)
pub(super) type Kernel = unsafe fn(&Block, Option<&Finish>);

/// A part of B to pack: `depth` by `cols`, neighbours along its rows or along its columns.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) from: *const f32,
    /// From one row, or from one column, to the next.
    pub(super) step: isize,
    pub(super) depth: usize,
    pub(super) cols: usize,
    /// Whether columns are fetched ahead.
    pub(super) far: bool,
}

/// Packs a part into a panel of some width.
pub(super) type Pack = unsafe fn(&Part, *mut f32, usize);

/// What is done with a vector unit.
pub(super) struct Kernels {
    /// f32 in a vector.
    pub(super) lanes: usize,
    /// The most rows of a block.
    pub(super) rows: usize,
    /// Whether a panel of B that is narrower than its vectors may be read in place.
    pub(super) reads_masked: bool,
    /// Kernels by rows - 1 and by vectors: 1, 2, 4, 8. Empty places hold the widest there is.
    pub(super) blocks: &'static [[Option<Kernel>; 4]],
    /// See [`Kernels::pack`].
    pub(super) pack_rows: Pack,
    /// See [`Kernels::pack`].
    pub(super) pack_columns: Pack,
}

impl Kernels {
    /// Those of this CPU, if there are any.
    pub(super) fn detect() -> Option<&'static Kernels> {
        Kernels::available().next()
    }

    /// All that this CPU can run, the fastest first.
    pub(super) fn available() -> impl Iterator<Item = &'static Kernels> {
        #[cfg(target_arch = "x86_64")]
        let found = [
            is_x86_feature_detected!("avx512f").then_some(&x86::AVX512),
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&x86::AVX2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let found: [Option<&'static Kernels>; 0] = [];
        found.into_iter().flatten()
    }

    /// Columns of a whole panel.
    pub(super) fn panel(&self) -> usize {
        self.lanes * PANEL_VECTORS
    }

    /// The most whole panels that a kernel for so many rows takes at once: with few rows, more columns keep more chains
    /// of multiply-adds under way.
    pub(super) fn panels_at_once(&self, rows: usize) -> usize {
        match self.blocks.get(rows.wrapping_sub(1)) {
            Some([.., Some(_)]) => 4,
            Some([_, _, Some(_), None]) => 2,
            _ => 1,
        }
    }

    /// Computes a block of C.
    ///
    /// # Safety
    /// 1 to `rows` rows and 1 to `panels_at_once(rows)` panels of columns. Every element of A, B, C and the bias that the
    /// block describes is there; where `reads_masked` is false, B has whole vectors. Nothing else uses those of C meanwhile.
    pub(super) unsafe fn run(&self, rows: usize, block: &Block, finish: Option<&Finish>) {
        let class = match block.cols.div_ceil(self.lanes) {
            0 | 1 => 0,
            2 => 1,
            3 | 4 => 2,
            _ => 3,
        };
        let kernel = self.blocks.get(rows.wrapping_sub(1)).and_then(|row| row.get(class).copied().flatten());
        debug_assert!(kernel.is_some(), "{rows} rows, {} columns", block.cols);
        if let Some(kernel) = kernel {
            // SAFETY: the caller vouches for the block; a table exists only where the CPU has its features.
            unsafe { kernel(block, finish) }
        }
    }

    /// Packs a part of B into a panel: `width` elements for each step of the depth, zeros after the last column.
    ///
    /// # Safety
    /// The part is there to read. `width` is a multiple of the lanes, at least its columns; the panel holds that for
    /// the depth.
    pub(super) unsafe fn pack(&self, in_columns: bool, part: &Part, panel: *mut f32, width: usize) {
        let pack = if in_columns { self.pack_columns } else { self.pack_rows };
        // SAFETY: the caller vouches for the part and the panel; a table exists only where the CPU has its features.
        unsafe { pack(part, panel, width) }
    }
}
