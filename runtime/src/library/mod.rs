//! What compiled programs call rather than generate: matrix products, convolutions, sorting.
//!
//! In: slices with explicit shapes and strides, and the [`Pool`](crate::pool::Pool) to run on.
//! Out: a filled output slice, or a [`LibraryError`]; nothing here panics on what it is given.
//!
//! - [`gemm`] matrix products, batched and strided, float and integer.
//! - [`conv`] convolution and transposed convolution of any spatial rank.
//! - [`sort`] stable sort and top-k along an axis.
//! - `grid` cuts an output into disjoint tiles; with `simd` and the kernels of `gemm` the only `unsafe`.
//! - `simd` compiles a plain loop for the vector units of the running CPU.
//!
//! How work is cut into tiles follows from shapes alone, and each output element is computed
//! whole by one tile: the same bits come out at any number of threads.

pub mod conv;
pub mod gemm;
mod grid;
mod simd;
pub mod sort;

/// What a library call refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// A view reaches outside its slice.
    #[error(
        "{op}: {operand} with these strides reaches elements {low} to {high} of a buffer of {len}; \
         pass a buffer that holds the whole view"
    )]
    OutOfBounds {
        /// The operation, by its ONNX name.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// The lowest element reached; negative when the view starts before the buffer.
        low: i128,
        /// The highest element reached.
        high: i128,
        /// Elements in the buffer.
        len: usize,
    },
    /// Two elements of an output would be stored in one place.
    #[error("{op}: two elements of {operand} share a place in memory; give it strides that do not overlap")]
    Overlapping {
        /// The operation, by its ONNX name.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
    },
    /// Lengths that must agree do not.
    #[error("{op}: {operand} has {found} where {expected} is needed; check the shapes of the call")]
    Mismatch {
        /// The operation, by its ONNX name.
        op: &'static str,
        /// Which operand or attribute.
        operand: &'static str,
        /// What was given.
        found: usize,
        /// What the other arguments ask for.
        expected: usize,
    },
    /// An attribute that no shape makes sense with.
    #[error("{op}: {reason}")]
    Invalid {
        /// The operation, by its ONNX name.
        op: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// Checks that `found` is `expected`.
fn expect_len(op: &'static str, operand: &'static str, found: usize, expected: usize) -> Result<(), LibraryError> {
    if found == expected {
        return Ok(());
    }
    Err(LibraryError::Mismatch { op, operand, found, expected })
}

/// The product of `extents`, or an error when no memory could hold it.
fn volume(op: &'static str, extents: &[usize]) -> Result<usize, LibraryError> {
    if extents.contains(&0) {
        return Ok(0);
    }
    extents.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent)).ok_or_else(|| {
        LibraryError::Invalid {
            op,
            reason: format!("a tensor of shape {extents:?} has more elements than memory can hold"),
        }
    })
}
