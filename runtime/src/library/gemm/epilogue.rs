//! What is done to an element of C when its sum over k is complete, before or as it is stored.
//!
//! In: a sum. Out: `min(max(sum + bias, lower), upper)` with the meanings of the core ops, each rounded on its own, so that
//! a product with an [`Epilogue`] gives the bits of the product followed by the ops. Our own kernels do it in registers,
//! by these same formulas ([`Finish`]); for the rest [`Epilogue::apply`] passes over a finished tile.

use super::super::grid::Tile;
use super::super::{LibraryError, expect_len};
use super::Float;
use super::kernels::{Along, Finish};

/// What is added to every matrix of C.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a, T> {
    /// Nothing.
    None,
    /// A value for each row of C: length m.
    PerRow(&'a [T]),
    /// A value for each column of C: length n.
    PerColumn(&'a [T]),
}

/// Bounds of every element: the larger of it and `lower`, then the smaller of that and `upper`. NaN stays NaN, -0 is
/// below +0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamp<T> {
    lower: T,
    /// +0 where the lower bound is +0, else -0, which changes nothing: added, it makes a -0 that the bound lets pass +0.
    zero: T,
    upper: T,
}

impl<T: Float> Clamp<T> {
    /// No bounds.
    pub const NONE: Clamp<T> = Clamp { lower: T::NEG_INFINITY, zero: T::NEG_ZERO, upper: T::INFINITY };

    /// Bounds, either of them perhaps none. `None` for what is no bound: a NaN, and an upper one of -0, which only
    /// changes a sign.
    pub fn new(lower: Option<T>, upper: Option<T>) -> Option<Clamp<T>> {
        let (lower, upper) = (lower.unwrap_or(T::NEG_INFINITY), upper.unwrap_or(T::INFINITY));
        let is_nan = |x: T| x.partial_cmp(&x).is_none();
        if is_nan(lower) || is_nan(upper) || upper.is_negative_zero() {
            return None;
        }
        let positive_zero = lower == T::ZERO && !lower.is_negative_zero();
        Some(Clamp { lower, zero: if positive_zero { T::ZERO } else { T::NEG_ZERO }, upper })
    }

    /// The kernels' maximum and minimum are these, and give the second operand when the comparison fails; they add `zero`
    /// to the bias, before.
    #[inline(always)]
    fn apply(self, value: T) -> T {
        let value = if self.lower > value { self.lower } else { value };
        let value = value + self.zero;
        if self.upper < value { self.upper } else { value }
    }
}

/// A bias, then bounds.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, T> {
    /// What is added first.
    pub bias: Bias<'a, T>,
    /// Bounds of what it becomes.
    pub clamp: Clamp<T>,
}

impl<'a, T: Float> From<Bias<'a, T>> for Epilogue<'a, T> {
    fn from(bias: Bias<'a, T>) -> Self {
        Epilogue { bias, ..Epilogue::NONE }
    }
}

impl<'a, T: Float> Epilogue<'a, T> {
    /// C is the product.
    pub const NONE: Epilogue<'a, T> = Epilogue { bias: Bias::None, clamp: Clamp::NONE };

    pub(super) fn check(&self, op: &'static str, m: usize, n: usize) -> Result<(), LibraryError> {
        match self.bias {
            Bias::None => Ok(()),
            Bias::PerRow(bias) => expect_len(op, "the bias per row", bias.len(), m),
            Bias::PerColumn(bias) => expect_len(op, "the bias per column", bias.len(), n),
        }
    }

    /// That of some columns of C.
    pub(super) fn of_columns(self, cols: std::ops::Range<usize>) -> Self {
        match self.bias {
            Bias::PerColumn(bias) => Epilogue { bias: Bias::PerColumn(&bias[cols]), ..self },
            Bias::None | Bias::PerRow(_) => self,
        }
    }

    /// Changes every element of a tile that holds the product.
    pub(super) fn apply(&self, tile: &mut Tile<'_, T>) {
        let (row0, col0, clamp) = (tile.rows.start, tile.cols.start, self.clamp);
        match self.bias {
            Bias::None if clamp == Clamp::NONE => {}
            Bias::None => tile.for_each(|_, _, value| *value = clamp.apply(*value)),
            Bias::PerRow(bias) => tile.for_each(|row, _, value| *value = clamp.apply(*value + bias[row0 + row])),
            Bias::PerColumn(bias) => tile.for_each(|_, col, value| *value = clamp.apply(*value + bias[col0 + col])),
        }
    }
}

impl Epilogue<'_, f32> {
    /// What the kernels do to a tile's elements; the bias is as long as the tile.
    pub(super) fn finish(&self, tile: &Tile<'_, f32>) -> Option<Finish> {
        let Clamp { lower, zero, upper } = self.clamp;
        let (bias, along) = match self.bias {
            Bias::None if self.clamp == Clamp::NONE => return None,
            Bias::None => (std::ptr::null(), Along::Nothing),
            Bias::PerRow(bias) => (bias[tile.rows.clone()].as_ptr(), Along::Rows),
            Bias::PerColumn(bias) => (bias[tile.cols.clone()].as_ptr(), Along::Columns),
        };
        Some(Finish { bias, along, lower, zero, upper })
    }
}
