//! Where the taps of a kernel fall: index arithmetic shared by convolution and its transpose.
//!
//! In: extents, kernel, strides, dilations, pads, an entry a spatial axis. Out: for a tap and a run
//! of *positions*, the stretches of the *image* that lie under it. Convolution reads the image (its
//! input) and has a position for each output element; the transpose has a position for each input
//! element and adds to the image (its output). Along each axis
//!
//! `image = position * stride + tap * dilation - pad`
//!
//! Nothing is allocated: ranks are at most [`MAX_SPATIAL`].

use crate::library::{LibraryError, expect_len, volume};
use std::ops::Range;

/// The most spatial axes.
pub const MAX_SPATIAL: usize = 6;
/// No extent or attribute may be larger, so that 64-bit arithmetic on them cannot overflow.
const MAX_VALUE: u64 = 1 << 30;

/// The window of a convolution; an entry for each spatial axis.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Extents of the kernel.
    pub kernel: &'a [usize],
    /// Steps between positions.
    pub strides: &'a [usize],
    /// Steps between taps.
    pub dilations: &'a [usize],
    /// Padding before the image; negative cuts it.
    pub pads_begin: &'a [isize],
    /// Padding after the image; negative cuts it.
    pub pads_end: &'a [isize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Axis {
    image: i64,
    positions: i64,
    kernel: i64,
    stride: i64,
    dilation: i64,
    pad: i64,
}

impl Axis {
    /// How far the last tap is from the first, plus one.
    fn reach(&self) -> i64 {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Where in the image a tap falls, maybe outside.
    fn place(&self, position: i64, tap: i64) -> i64 {
        position * self.stride + tap * self.dilation - self.pad
    }

    /// The positions whose tap falls inside the image.
    fn valid(&self, tap: i64) -> Range<usize> {
        let first = self.place(0, tap);
        let begin = if first >= 0 { 0 } else { (-first).div_euclid(self.stride) + i64::from(first % self.stride != 0) };
        let end = (self.image - 1 - first).div_euclid(self.stride) + 1;
        let end = end.clamp(0, self.positions);
        begin.min(end) as usize..end as usize
    }
}

/// The checked geometry of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    axes: [Axis; MAX_SPATIAL],
    rank: usize,
}

/// A stretch of neighbouring positions in a row, and the image elements under them.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    /// The positions, counted from the start of the run.
    pub(super) positions: Range<usize>,
    /// Those of them, counted likewise, that lie over the image.
    pub(super) over: Range<usize>,
    /// The image element under the first of `over`.
    pub(super) image: usize,
    /// From one position's image element to the next one's.
    pub(super) step: usize,
}

impl Geometry {
    /// For a convolution that reads an image of these extents.
    pub(super) fn of_conv(op: &'static str, image: &[usize], window: &Window<'_>) -> Result<Self, LibraryError> {
        let mut geometry = Geometry::new(op, image, window)?;
        for (axis, pad_end) in geometry.axes.iter_mut().zip(window.pads_end) {
            axis.image = axis.positions;
            let padded = axis.image + axis.pad + *pad_end as i64;
            axis.positions = ((padded - axis.reach()).div_euclid(axis.stride) + 1).max(0);
        }
        Ok(geometry)
    }

    /// For a transposed convolution whose input has these extents.
    pub(super) fn of_transpose(
        op: &'static str,
        positions: &[usize],
        window: &Window<'_>,
        output_padding: &[usize],
    ) -> Result<Self, LibraryError> {
        let mut geometry = Geometry::new(op, positions, window)?;
        expect_len(op, "output_padding", output_padding.len(), positions.len())?;
        check_values(op, output_padding.iter().map(|value| *value as u64))?;
        let after = window.pads_end.iter().zip(output_padding);
        for (axis, (pad_end, extra)) in geometry.axes.iter_mut().zip(after) {
            let padded = (axis.positions - 1) * axis.stride + *extra as i64 + axis.reach();
            axis.image = (padded - axis.pad - *pad_end as i64).max(0);
        }
        Ok(geometry)
    }

    /// `extents` is taken as that of the positions.
    fn new(op: &'static str, extents: &[usize], window: &Window<'_>) -> Result<Self, LibraryError> {
        let rank = extents.len();
        if rank == 0 || rank > MAX_SPATIAL {
            let reason = format!("{rank} spatial axes; 1 to {MAX_SPATIAL} are supported");
            return Err(LibraryError::Invalid { op, reason });
        }
        let attributes = [
            ("kernel_shape", window.kernel.len()),
            ("strides", window.strides.len()),
            ("dilations", window.dilations.len()),
            ("the pads before", window.pads_begin.len()),
            ("the pads after", window.pads_end.len()),
        ];
        for (name, len) in attributes {
            expect_len(op, name, len, rank)?;
        }
        let plain = [extents, window.kernel, window.strides, window.dilations];
        check_values(op, plain.into_iter().flatten().map(|value| *value as u64))?;
        let pads = window.pads_begin.iter().chain(window.pads_end);
        check_values(op, pads.map(|value| value.unsigned_abs() as u64))?;
        if [window.kernel, window.strides, window.dilations].into_iter().flatten().any(|value| *value == 0) {
            let reason = "a kernel extent, stride or dilation of 0; each must be at least 1".to_owned();
            return Err(LibraryError::Invalid { op, reason });
        }
        let mut axes = [Axis::default(); MAX_SPATIAL];
        for (index, axis) in axes.iter_mut().enumerate().take(rank) {
            *axis = Axis {
                image: 0,
                positions: extents[index] as i64,
                kernel: window.kernel[index] as i64,
                stride: window.strides[index] as i64,
                dilation: window.dilations[index] as i64,
                pad: window.pads_begin[index] as i64,
            };
        }
        Ok(Geometry { axes, rank })
    }

    fn axes(&self) -> &[Axis] {
        self.axes.get(..self.rank).unwrap_or_default()
    }

    fn product(&self, op: &'static str, extent: impl Fn(&Axis) -> i64) -> Result<usize, LibraryError> {
        let mut extents = [1; MAX_SPATIAL];
        for (place, axis) in extents.iter_mut().zip(self.axes()) {
            *place = extent(axis) as usize;
        }
        volume(op, &extents)
    }

    /// Elements of the image.
    pub(super) fn image_len(&self, op: &'static str) -> Result<usize, LibraryError> {
        self.product(op, |axis| axis.image)
    }

    /// How many positions there are.
    pub(super) fn position_count(&self, op: &'static str) -> Result<usize, LibraryError> {
        self.product(op, |axis| axis.positions)
    }

    /// Taps of the kernel.
    pub(super) fn taps(&self, op: &'static str) -> Result<usize, LibraryError> {
        self.product(op, |axis| axis.kernel)
    }

    /// Extents of the positions.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.axes().iter().map(|axis| axis.positions as usize)
    }

    /// Extents of the image.
    pub(super) fn image(&self) -> impl Iterator<Item = usize> + '_ {
        self.axes().iter().map(|axis| axis.image as usize)
    }

    /// Whether positions and image are the same, element for element.
    pub(super) fn is_pointwise(&self) -> bool {
        let same = |axis: &Axis| axis.stride == 1 && axis.pad == 0 && axis.image == axis.positions;
        self.axes().iter().all(|axis| axis.kernel == 1 && same(axis))
    }

    /// Calls `visit` for each stretch of the positions in `run`, under tap number `tap`.
    #[inline(always)]
    pub(super) fn stretches(&self, run: Range<usize>, tap: usize, mut visit: impl FnMut(Stretch)) {
        let Some((last, outer)) = self.axes().split_last() else {
            return;
        };
        let width = last.positions as usize;
        let (outer_tap, last_tap) = (tap / last.kernel as usize, (tap % last.kernel as usize) as i64);
        let valid = last.valid(last_tap);
        let mut at = run.start;
        while at < run.end && width > 0 {
            let (row, column) = (at / width, at % width);
            let end = width.min(column + run.end - at);
            let base = at - run.start;
            let positions = base..base + end - column;
            let begin = valid.start.clamp(column, end);
            let over = begin..valid.end.clamp(begin, end);
            match outer_place(outer, row, outer_tap) {
                Some(place) if !over.is_empty() => {
                    let inner = last.place(over.start as i64, last_tap);
                    visit(Stretch {
                        positions,
                        over: base + over.start - column..base + over.end - column,
                        image: place * last.image as usize + inner as usize,
                        step: last.stride as usize,
                    });
                }
                _ => visit(Stretch { over: base..base, positions, image: 0, step: 1 }),
            }
            at += end - column;
        }
    }
}

/// Which row of the image a tap falls on; `None` in the padding.
#[inline(always)]
fn outer_place(axes: &[Axis], mut row: usize, mut tap: usize) -> Option<usize> {
    let (mut place, mut step) = (0, 1);
    for axis in axes.iter().rev() {
        let (positions, kernel) = (axis.positions as usize, axis.kernel as usize);
        let at = axis.place((row % positions) as i64, (tap % kernel) as i64);
        if at < 0 || at >= axis.image {
            return None;
        }
        place += at as usize * step;
        step *= axis.image as usize;
        row /= positions;
        tap /= kernel;
    }
    Some(place)
}

fn check_values(op: &'static str, values: impl Iterator<Item = u64>) -> Result<(), LibraryError> {
    for value in values {
        if value > MAX_VALUE {
            let reason = format!("{value} as an extent, stride, dilation or pad; at most {MAX_VALUE} is supported");
            return Err(LibraryError::Invalid { op, reason });
        }
    }
    Ok(())
}
