//! f32 convolution and transposed convolution, any number of spatial axes, groups, dilations, pads.
//!
//! In: a [`Conv`] (checked once; cheap, no allocation), dense operands `X[N, C, spatial]`,
//! `W[M, C/groups, kernel]` (transposed: `W[C, M/groups, kernel]`), `bias[M]`, scratch memory of
//! [`Conv::scratch_len`]. Out: `Y[N, M, spatial]`.
//!
//! How: the image under the kernel is laid out as a matrix a tile of positions at a time (im2col),
//! in a worker's scratch, and multiplied by the weights; a 1x1 kernel multiplies the image as it
//! lies. Few output channels a group (depthwise) are computed directly, tap by tap over rows. The
//! transpose multiplies first and adds the columns into Y (col2im), each output channel in one tile.
//!
//! What holds: tiles follow from the shape alone, and no two add to the same element: the same bits
//! at any number of threads.

mod geometry;
#[cfg(test)]
mod tests;

pub use geometry::{MAX_SPATIAL, Window};

use super::gemm::{Bias, Epilogue, Layout, product};
use super::grid::{Batched, Extents, Grid, MatView, Slots, Tile, run_grid};
use super::simd::{Job, Simd, dispatch};
use super::{LibraryError, expect_len, volume};
use crate::pool::Pool;
use geometry::Geometry;

/// Elements of a worker's scratch matrix: 1 MiB, so that deep kernels still have wide tiles.
const SCRATCH: usize = 256 * 1024;
/// Positions of a tile are at least this many, also where the matrix gets larger than `SCRATCH`.
const MIN_POSITIONS: usize = 64;
/// Below this many output channels a group, the direct form is faster than a product.
const MIN_PRODUCT_ROWS: usize = 4;
/// Output channels are split only where there are fewer other tiles than this.
const FEW_TILES: usize = 16;
/// Output channels of a tile, where they are split.
const TILE_CHANNELS: usize = 128;
/// Output channels of a tile of the transpose.
const TRANSPOSE_CHANNELS: usize = 8;

/// A convolution or transposed convolution of known extents.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    op: &'static str,
    transposed: bool,
    geometry: Geometry,
    batch: usize,
    groups: usize,
    /// Input and output channels of one group.
    group_in: usize,
    group_out: usize,
    /// Elements of one channel of the image, positions of one channel, taps of the kernel.
    image: usize,
    positions: usize,
    taps: usize,
}

/// The channels of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Images in the batch.
    pub batch: usize,
    /// Channels of the input; a multiple of `groups`.
    pub input: usize,
    /// Channels of the output; a multiple of `groups`.
    pub output: usize,
    /// Groups that are convolved apart.
    pub groups: usize,
}

impl Conv {
    /// A convolution over an input with these spatial extents.
    ///
    /// # Errors
    /// Attributes of different ranks, zero strides, channels that groups do not divide.
    pub fn new(channels: Channels, input: &[usize], window: &Window<'_>) -> Result<Conv, LibraryError> {
        let geometry = Geometry::of_conv("Conv", input, window)?;
        Conv::build("Conv", false, channels, geometry)
    }

    /// A transposed convolution over an input with these spatial extents. `output_padding` lengthens
    /// the output at its end.
    ///
    /// # Errors
    /// As [`Conv::new`].
    pub fn transposed(
        channels: Channels,
        input: &[usize],
        window: &Window<'_>,
        output_padding: &[usize],
    ) -> Result<Conv, LibraryError> {
        let op = "ConvTranspose";
        let geometry = Geometry::of_transpose(op, input, window, output_padding)?;
        Conv::build(op, true, channels, geometry)
    }

    fn build(op: &'static str, transposed: bool, channels: Channels, geometry: Geometry) -> Result<Conv, LibraryError> {
        let Channels { batch, input, output, groups } = channels;
        if groups == 0 || !input.is_multiple_of(groups) || !output.is_multiple_of(groups) {
            let reason = format!("{groups} groups do not divide {input} input and {output} output channels");
            return Err(LibraryError::Invalid { op, reason });
        }
        let (image, positions) = (geometry.image_len(op)?, geometry.position_count(op)?);
        let taps = geometry.taps(op)?;
        let (group_in, group_out) = (input / groups, output / groups);
        let conv = Conv { op, transposed, geometry, batch, groups, group_in, group_out, image, positions, taps };
        // Every length used below, so that nothing there can overflow.
        volume(op, &[batch, input, image.max(positions)])?;
        volume(op, &[batch, output, image.max(positions)])?;
        volume(op, &[group_in, output, taps])?;
        volume(op, &[group_in, taps, MIN_POSITIONS])?;
        volume(op, &[TRANSPOSE_CHANNELS, taps, MIN_POSITIONS])?;
        Ok(conv)
    }

    /// Spatial extents of the output.
    pub fn output(&self) -> impl Iterator<Item = usize> + '_ {
        let image = self.transposed.then(|| self.geometry.image()).into_iter().flatten();
        let positions = (!self.transposed).then(|| self.geometry.positions()).into_iter().flatten();
        image.chain(positions)
    }

    /// Elements of scratch memory that a run on `threads` threads needs.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.worker_scratch().saturating_mul(threads)
    }

    fn worker_scratch(&self) -> usize {
        if self.transposed {
            self.channels_a_tile() * self.taps * self.positions_a_tile()
        } else if self.is_direct() || self.geometry.is_pointwise() {
            0
        } else {
            self.group_in * self.taps * self.positions_a_tile()
        }
    }

    fn is_direct(&self) -> bool {
        self.group_out < MIN_PRODUCT_ROWS
    }

    fn channels_a_tile(&self) -> usize {
        TRANSPOSE_CHANNELS.min(self.group_out).max(1)
    }

    fn positions_a_tile(&self) -> usize {
        let rows = self.taps * if self.transposed { self.channels_a_tile() } else { self.group_in };
        let fit = (SCRATCH / rows.max(1)).max(MIN_POSITIONS);
        // Whole vectors, unless that is all there is.
        (fit / MIN_POSITIONS * MIN_POSITIONS).min(self.positions.max(1))
    }

    /// Runs it. `x` and `w` are dense and row-major, as is `y`, which is written and never read.
    ///
    /// # Errors
    /// Slices of other lengths than the shapes ask for, or scratch that is too short.
    pub fn run(
        &self,
        pool: &Pool,
        x: &[f32],
        w: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), LibraryError> {
        let op = self.op;
        let (channels_in, channels_out) = (self.groups * self.group_in, self.groups * self.group_out);
        let (in_len, out_len) =
            if self.transposed { (self.positions, self.image) } else { (self.image, self.positions) };
        expect_len(op, "X", x.len(), self.batch * channels_in * in_len)?;
        expect_len(op, "W", w.len(), self.group_in * channels_out * self.taps)?;
        expect_len(op, "Y", y.len(), self.batch * channels_out * out_len)?;
        if let Some(bias) = bias {
            expect_len(op, "the bias", bias.len(), channels_out)?;
        }
        let wanted = self.scratch_len(pool.threads());
        if scratch.len() < wanted {
            return Err(LibraryError::Mismatch { op, operand: "scratch", found: scratch.len(), expected: wanted });
        }
        let batch = [self.batch, self.groups];
        let input = Extents { batch: &batch, rows: self.group_in, cols: in_len };
        let input_strides = [(channels_in * in_len) as isize, (self.group_in * in_len) as isize];
        let x = Batched::new(x, dense(&input_strides, in_len), input, op, "X")?;
        let output = Extents { batch: &batch, rows: self.group_out, cols: out_len };
        let output_strides = [(channels_out * out_len) as isize, (self.group_out * out_len) as isize];
        let slots = Slots::new(scratch, self.worker_scratch());
        let layout = dense(&output_strides, out_len);
        let work = Work { conv: self, x: &x, w, bias };
        run_grid(pool, y, &layout, &output, self.grid(), op, &|mut tile, worker| {
            slots.with(worker, |scratch| work.tile(&mut tile, scratch));
        })
    }

    fn grid(&self) -> Grid {
        let matrices = self.batch.saturating_mul(self.groups);
        let everything = |rows, cols| Grid { batch: matrices, rows, cols, unit: 1 };
        if self.transposed {
            return everything(self.group_out.div_ceil(self.channels_a_tile()), 1);
        }
        if self.is_direct() {
            // Small planes are put together: some 10,000 multiply-adds a tile.
            let work = (self.group_out * self.positions).saturating_mul(self.group_in * self.taps).max(1);
            let planes = (10_000 / work).max(1);
            return Grid { batch: matrices.div_ceil(planes), rows: 1, cols: 1, unit: 1 };
        }
        let positions = if self.geometry.is_pointwise() { 512 } else { self.positions_a_tile() };
        let cols = self.positions.div_ceil(positions);
        let few = matrices.saturating_mul(cols) < FEW_TILES;
        let rows = if few { self.group_out.div_ceil(TILE_CHANNELS) } else { 1 };
        everything(rows, cols)
    }
}

fn dense(batch: &[isize], cols: usize) -> Layout<'_> {
    Layout { batch, ..Layout::row_major(cols) }
}

/// What all tiles of a run share.
struct Work<'a> {
    conv: &'a Conv,
    x: &'a Batched<'a, f32>,
    w: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl Work<'_> {
    /// Computes one tile: some output channels of a group, at some positions.
    fn tile(&self, tile: &mut Tile<'_, f32>, scratch: &mut [f32]) {
        let conv = self.conv;
        let group = tile.matrix % conv.groups;
        let bias = self.bias.and_then(|bias| bias.chunks_exact(conv.group_out.max(1)).nth(group));
        let x = self.x.matrix(tile.matrix);
        let weights = conv.group_in * conv.group_out * conv.taps;
        let w = self.w.get(group * weights..(group + 1) * weights).unwrap_or_default();
        if conv.transposed {
            self.transposed(tile, &x, w, bias, scratch);
        } else if conv.is_direct() {
            dispatch(Direct { conv, x: &x, w, bias, tile });
        } else {
            self.product(tile, &x, w, bias, scratch);
        }
    }

    fn product(
        &self,
        tile: &mut Tile<'_, f32>,
        x: &MatView<'_, f32>,
        w: &[f32],
        bias: Option<&[f32]>,
        scratch: &mut [f32],
    ) {
        let conv = self.conv;
        let depth = conv.group_in * conv.taps;
        let after = Epilogue::from(bias.map_or(Bias::None, Bias::PerRow));
        let Some(w) = MatView::row_major(w, conv.group_out, depth, depth) else {
            return;
        };
        let w = w.row_range(tile.rows.clone());
        if conv.geometry.is_pointwise() {
            return product(&w, &x.col_range(tile.cols.clone()), &after, tile);
        }
        let columns = tile.cols.len();
        let rows = (0..conv.group_in).flat_map(|channel| (0..conv.taps).map(move |tap| (channel, tap)));
        for ((channel, tap), line) in rows.zip(scratch.chunks_exact_mut(columns)) {
            if let Some(image) = x.row(channel) {
                conv.gather(image, tap, tile.cols.clone(), line);
            }
        }
        if let Some(matrix) = MatView::row_major(scratch, depth, columns, columns) {
            product(&w, &matrix, &after, tile);
        }
    }

    fn transposed(
        &self,
        tile: &mut Tile<'_, f32>,
        x: &MatView<'_, f32>,
        w: &[f32],
        bias: Option<&[f32]>,
        scratch: &mut [f32],
    ) {
        let conv = self.conv;
        let channels = tile.rows.clone();
        tile.for_each(|row, _, value| *value = bias.map_or(0.0, |bias| bias[channels.start + row]));
        let width = conv.group_out * conv.taps;
        let Some(w) = MatView::row_major(w, conv.group_in, width, width) else {
            return;
        };
        let w = w.col_range(channels.start * conv.taps..channels.end * conv.taps).transposed();
        let mut begin = 0;
        while begin < conv.positions && conv.group_in > 0 {
            let run = begin..conv.positions.min(begin + conv.positions_a_tile());
            let Some(mut columns) = Tile::over(scratch, channels.len() * conv.taps, run.len()) else {
                return;
            };
            product(&w, &x.col_range(run.clone()), &Epilogue::NONE, &mut columns);
            for (index, line) in scratch.chunks_exact(run.len()).take(channels.len() * conv.taps).enumerate() {
                if let Some(image) = tile.row(index / conv.taps) {
                    conv.scatter(line, index % conv.taps, run.clone(), image);
                }
            }
            begin = run.end;
        }
    }
}

impl Conv {
    /// im2col of one channel and tap: `line[position] = image under the tap`, 0 in the padding.
    fn gather(&self, image: &[f32], tap: usize, run: std::ops::Range<usize>, line: &mut [f32]) {
        self.geometry.stretches(run, tap, |stretch| {
            line[stretch.positions.start..stretch.over.start].fill(0.0);
            line[stretch.over.end..stretch.positions.end].fill(0.0);
            let over = &mut line[stretch.over];
            match stretch.step {
                _ if over.is_empty() => {}
                1 => over.copy_from_slice(&image[stretch.image..stretch.image + over.len()]),
                step => {
                    let from = image[stretch.image..].iter().step_by(step);
                    over.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        });
    }

    /// col2im of one channel and tap: `image under the tap += line[position]`.
    fn scatter(&self, line: &[f32], tap: usize, run: std::ops::Range<usize>, image: &mut [f32]) {
        self.geometry.stretches(run, tap, |stretch| {
            let over = &line[stretch.over];
            if over.is_empty() {
                return;
            }
            let to = image[stretch.image..].iter_mut().step_by(stretch.step);
            to.zip(over).for_each(|(to, from)| *to += *from);
        });
    }
}

/// Direct convolution of the output channels of one group: tap by tap, a row of positions at a time.
struct Direct<'r, 'v, 't> {
    conv: &'r Conv,
    x: &'r MatView<'v, f32>,
    w: &'r [f32],
    bias: Option<&'r [f32]>,
    tile: &'r mut Tile<'t, f32>,
}

impl Job for Direct<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Direct { conv, x, w, bias, tile } = self;
        let positions = tile.cols.clone();
        let depth = conv.group_in * conv.taps;
        for (row, channel) in tile.rows.clone().enumerate() {
            let Some(y) = tile.row(row) else {
                return;
            };
            y.fill(bias.map_or(0.0, |bias| bias[channel]));
            let w = &w[channel * depth..(channel + 1) * depth];
            for (index, weight) in w.iter().enumerate() {
                let Some(image) = x.row(index / conv.taps) else {
                    return;
                };
                conv.geometry.stretches(positions.clone(), index % conv.taps, |stretch| {
                    let y = &mut y[stretch.over];
                    if y.is_empty() {
                        return;
                    }
                    let image = &image[stretch.image..];
                    if stretch.step == 1 {
                        for (y, x) in y.iter_mut().zip(image) {
                            *y = simd.mul_add(*weight, *x, *y);
                        }
                    } else {
                        for (y, x) in y.iter_mut().zip(image.iter().step_by(stretch.step)) {
                            *y = simd.mul_add(*weight, *x, *y);
                        }
                    }
                });
            }
        }
    }
}
