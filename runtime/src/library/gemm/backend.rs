//! The library crate that multiplies general matrices: gemmkit, called on one thread.
//!
//! In: two views and a tile that fit each other. Out: the tile holds their product. Nothing else
//! in the workspace names the crate but a benchmark, so another can take its place here.
#![allow(unsafe_code)] // The crate's checked entry refuses negative strides and shared tiles.

use super::blocks::{Rhs, multiply};
use super::kernels::Kernels;
use super::{Epilogue, GemmShape, Layout, Operand, Panels, gemm_packed, packed_first};
use crate::library::LibraryError;
use crate::library::grid::{Batched, MatView, Tile};
use crate::pool::Pool;
use std::ops::Add;

/// Element types of float products: f32 and f64.
pub trait Float: Copy + Send + Sync + PartialOrd + Add<Output = Self> + sealed::Kernels {
    /// Zero.
    const ZERO: Self;
    /// What changes nothing when it is added.
    const NEG_ZERO: Self;
    /// Above everything.
    const INFINITY: Self;
    /// Below everything.
    const NEG_INFINITY: Self;

    /// Whether it is -0.
    fn is_negative_zero(self) -> bool;
    /// The nearest one.
    fn of(number: f64) -> Self;
}

macro_rules! floats {
    ($($ty:ident)*) => {$(
        impl Float for $ty {
            const ZERO: $ty = 0.0;
            const NEG_ZERO: $ty = -0.0;
            const INFINITY: $ty = $ty::INFINITY;
            const NEG_INFINITY: $ty = $ty::NEG_INFINITY;

            fn is_negative_zero(self) -> bool {
                self == 0.0 && self.is_sign_negative()
            }

            fn of(number: f64) -> $ty {
                number as $ty
            }
        }
    )*};
}

floats!(f32 f64);

pub(crate) mod sealed {
    //! What computes a tile, for each element type.
    use super::{Batched, Epilogue, GemmShape, Layout, LibraryError, Operand, Panels, Pool, gemm_packed, packed_first};
    use super::{Kernels as Own, MatView, Rhs, Tile, general, multiply};

    /// `tile = a b`, then the epilogue. Sealed: nobody outside can name or call it, so its types stay private.
    #[allow(private_interfaces)]
    pub trait Kernels: Sized {
        /// Computes the tile.
        fn product(a: &MatView<'_, Self>, b: &MatView<'_, Self>, after: &Epilogue<'_, Self>, tile: &mut Tile<'_, Self>);

        /// The whole product where a B that is not packed is packed first, if it is worth it.
        fn packed_first(
            _pool: &Pool,
            _shape: &GemmShape<'_>,
            _a: &Batched<'_, Self>,
            _b: &Batched<'_, Self>,
            _after: Epilogue<'_, Self>,
            _c: &mut [Self],
            _layout: Layout<'_>,
        ) -> Option<Result<(), LibraryError>> {
            None
        }

        /// The whole product with a packed B, for the element type that has them.
        fn packed(
            _pool: &Pool,
            _shape: &GemmShape<'_>,
            _a: Operand<'_, Self>,
            _b: &Panels,
            _after: Epilogue<'_, Self>,
            _c: &mut [Self],
            _layout: Layout<'_>,
        ) -> Option<Result<(), LibraryError>> {
            None
        }
    }

    #[allow(private_interfaces)] // As above.
    impl Kernels for f32 {
        fn product(a: &MatView<'_, f32>, b: &MatView<'_, f32>, after: &Epilogue<'_, f32>, tile: &mut Tile<'_, f32>) {
            let own = Own::detect();
            if !own.is_some_and(|kernels| multiply(kernels, a, Rhs::View(*b), after, tile)) {
                general(1.0, 0.0, a, b, tile);
                after.apply(tile);
            }
        }

        fn packed_first(
            pool: &Pool,
            shape: &GemmShape<'_>,
            a: &Batched<'_, f32>,
            b: &Batched<'_, f32>,
            after: Epilogue<'_, f32>,
            c: &mut [f32],
            layout: Layout<'_>,
        ) -> Option<Result<(), LibraryError>> {
            packed_first(pool, shape, a, b, after, c, layout)
        }

        fn packed(
            pool: &Pool,
            shape: &GemmShape<'_>,
            a: Operand<'_, f32>,
            b: &Panels,
            after: Epilogue<'_, f32>,
            c: &mut [f32],
            layout: Layout<'_>,
        ) -> Option<Result<(), LibraryError>> {
            Some(gemm_packed(pool, shape, a, b, after, c, layout))
        }
    }

    #[allow(private_interfaces)] // As above.
    impl Kernels for f64 {
        fn product(a: &MatView<'_, f64>, b: &MatView<'_, f64>, after: &Epilogue<'_, f64>, tile: &mut Tile<'_, f64>) {
            general(1.0, 0.0, a, b, tile);
            after.apply(tile);
        }
    }
}

/// `tile = a b` through the library crate.
fn general<T: gemmkit::GemmScalar>(one: T, zero: T, a: &MatView<'_, T>, b: &MatView<'_, T>, tile: &mut Tile<'_, T>) {
    let (m, n, k) = (tile.rows.len(), tile.cols.len(), a.cols());
    assert!(a.rows() == m && b.cols() == n && b.rows() == k, "views that fit the tile");
    // SAFETY: the extents agree, so every element the product touches is one of the views' or the
    // tile's, which `grid` has checked; the tile is borrowed mutably, the views are not, so they
    // do not overlap. With beta zero the tile is not read.
    unsafe {
        gemmkit::gemm_unchecked(
            m,
            k,
            n,
            one,
            a.as_ptr(),
            a.row_stride,
            a.col_stride,
            b.as_ptr(),
            b.row_stride,
            b.col_stride,
            zero,
            tile.as_mut_ptr(),
            tile.row_stride,
            tile.col_stride,
            gemmkit::Parallelism::Serial,
        );
    }
}
