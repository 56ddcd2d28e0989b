//! Library calls: slots to slices, extents to shapes.
//!
//! The library checks lengths and strides against the slices it is given, so a plan that contradicts itself is an error,
//! never an access outside.

use frit_compiler::plan::{DimId, LibraryCall, SlotId};
use frit_ir::DType;

use super::memory::{Element, Region, Views};
use super::packed::PackedKey;
use super::{At, Run, overlap, reserve};
use crate::library::LibraryError;
use crate::library::conv::{Channels, Conv, MAX_SPATIAL, Window};
use crate::library::gemm::{Bias, Clamp, Epilogue, Float, GemmShape, Layout, Operand, gemm};
use crate::library::sort::{Direction, Lines, SortKey, sort};
use crate::session::RunError;

/// The most dims of a tensor that a call looks at: batch, channels and [`MAX_SPATIAL`] spatial ones.
const MAX_RANK: usize = MAX_SPATIAL + 2;

/// Extents without memory of their own.
#[derive(Clone, Copy)]
struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    fn of(at: &At<'_>, slot: SlotId) -> Result<Shape, RunError> {
        let dims = &at.program.slots[slot.index()].dims;
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() };
        if dims.len() > MAX_RANK {
            return Err(RunError::Internal(format!("a library call with a tensor of {} dims", dims.len())));
        }
        for (place, dim) in shape.dims.iter_mut().zip(dims) {
            *place = at.frame.extent(at.program, *dim)?;
        }
        Ok(shape)
    }

    /// Batch, channels, spatial extents.
    fn image(&self) -> Option<(usize, usize, &[usize])> {
        match self.dims.get(..self.rank)? {
            [batch, channels, spatial @ ..] => Some((*batch, *channels, spatial)),
            _ => None,
        }
    }
}

fn mistyped(origin: &str) -> RunError {
    RunError::Internal(format!("`{origin}`: an operand does not suit the library call"))
}

impl Run<'_> {
    pub(super) fn library(
        &mut self,
        at: &mut At<'_>,
        call: &LibraryCall,
        operands: &[SlotId],
        results: &[SlotId],
        origin: &str,
    ) -> Result<(), RunError> {
        if let LibraryCall::Concat { axis } = call {
            return self.concat(at, *axis, operands, results, origin);
        }
        let mut reads = [Region::default(); 3];
        for (region, slot) in reads.iter_mut().zip(operands) {
            *region = at.region(*slot, self.limit)?;
        }
        // The last place is for scratch memory.
        let mut writes = [Region::default(); 3];
        for (region, slot) in writes.iter_mut().zip(results) {
            *region = at.region(*slot, self.limit)?;
        }
        let reads = reads.get(..operands.len()).unwrap_or(&[]);
        let refused = |source: LibraryError| RunError::Library { origin: origin.to_owned(), source };
        match call {
            LibraryCall::MatMul { dtype, accumulate, .. } => {
                let views = Views::new(reads, &writes[..1]).ok_or_else(overlap)?;
                match (dtype, accumulate) {
                    (DType::F32, DType::F32) => self.matmul::<f32>(at, call, views, origin),
                    (DType::F64, DType::F64) => self.matmul::<f64>(at, call, views, origin),
                    _ => Err(RunError::Internal(format!("`{origin}`: a product of {dtype} into {accumulate}"))),
                }
            }
            LibraryCall::Conv { .. } | LibraryCall::ConvTranspose { .. } => {
                let conv = convolution(at, call, operands, results, origin)?;
                writes[1] = self.scratch(conv.scratch_len(self.pool.threads()), origin)?;
                let mut views = Views::new(reads, &writes[..2]).ok_or_else(overlap)?;
                let (x, w) = (views.read(0), views.read(1));
                let (y, scratch) = (views.write(0), views.write(1));
                let (Some(x), Some(w), Some(y), Some(scratch)) = (x, w, y, scratch) else {
                    return Err(mistyped(origin));
                };
                conv.run(self.pool, x, w, None, y, scratch).map_err(refused)
            }
            LibraryCall::Sort { axis, descending } => {
                let Some(slot) = operands.first() else { return Err(mistyped(origin)) };
                let shape = SortShape::of(at, *slot, *axis)?;
                let lines = Lines::new(&shape.0, 1).map_err(refused)?;
                writes[2] = self.scratch(lines.scratch_len(self.pool.threads()), origin)?;
                let views = Views::new(reads, &writes).ok_or_else(overlap)?;
                let direction = if *descending { Direction::Descending } else { Direction::Ascending };
                let dtype = at.program.slots[slot.index()].ty.tensor().map_or(DType::Str, |t| t.dtype);
                let call = SortCall { lines, direction, origin };
                match dtype {
                    DType::F32 => self.sort::<f32>(call, views),
                    DType::F64 => self.sort::<f64>(call, views),
                    DType::F16 => self.sort::<half::f16>(call, views),
                    DType::BF16 => self.sort::<half::bf16>(call, views),
                    DType::I8 | DType::I4 | DType::I2 => self.sort::<i8>(call, views),
                    DType::I16 => self.sort::<i16>(call, views),
                    DType::I32 => self.sort::<i32>(call, views),
                    DType::I64 => self.sort::<i64>(call, views),
                    DType::U8 | DType::U4 | DType::U2 | DType::Bool => self.sort::<u8>(call, views),
                    DType::U16 => self.sort::<u16>(call, views),
                    DType::U32 => self.sort::<u32>(call, views),
                    DType::U64 => self.sort::<u64>(call, views),
                    DType::F8E4M3FN
                    | DType::F8E4M3FNUZ
                    | DType::F8E5M2
                    | DType::F8E5M2FNUZ
                    | DType::F8E8M0
                    | DType::F4E2M1
                    | DType::Str => Err(RunError::Internal(format!("`{origin}`: a sort of {dtype}"))),
                }
            }
            LibraryCall::Concat { .. } => Err(mistyped(origin)),
        }
    }

    /// Each operand is a run of bytes in every line of the result; a line is what the axes from `axis` on make up.
    fn concat(
        &self,
        at: &mut At<'_>,
        axis: usize,
        operands: &[SlotId],
        results: &[SlotId],
        origin: &str,
    ) -> Result<(), RunError> {
        let [result] = results else { return Err(mistyped(origin)) };
        let target = at.region(*result, self.limit)?;
        let mut lines = 1usize;
        for dim in at.program.slots[result.index()].dims.iter().take(axis) {
            lines = lines.saturating_mul(at.frame.extent(at.program, *dim)?);
        }
        if target.len() == 0 || lines == 0 {
            return Ok(());
        }
        let (line, mut start) = (target.len() / lines, 0usize);
        for operand in operands {
            let source = at.region(*operand, self.limit)?;
            let run = source.len() / lines;
            for i in 0..lines {
                let copied = source.part(i * run, run).zip(target.part(i * line + start, run));
                if !copied.is_some_and(|(from, to)| to.copy_from(from)) {
                    return Err(mistyped(origin));
                }
            }
            start += run;
        }
        Ok(())
    }

    /// Scratch memory for elements of four bytes.
    fn scratch(&mut self, elements: usize, origin: &str) -> Result<Region, RunError> {
        let bytes = elements.saturating_mul(4);
        reserve(self.scratch, bytes, self.limit, || format!("scratch memory of {origin}"))?;
        Ok(self.scratch.region(0, bytes).unwrap_or_default())
    }

    fn matmul<T: Float + Element>(
        &self,
        at: &At<'_>,
        call: &LibraryCall,
        mut views: Views<'_>,
        origin: &str,
    ) -> Result<(), RunError> {
        let LibraryCall::MatMul {
            batch, m, n, k, lhs_transposed, rhs_transposed, lhs_pitch, rhs_pitch, epilogue, ..
        } = call
        else {
            return Err(mistyped(origin));
        };
        let extent = |dim: &DimId| at.frame.extent(at.program, *dim);
        let (m, n, k) = (extent(m)?, extent(n)?, extent(k)?);
        // Matrices lie at equal distances, so all batch dims are one.
        let mut matrices = 1usize;
        for dim in batch {
            matrices = matrices.saturating_mul(extent(dim)?);
        }
        let batch = [matrices];
        let stride = |rows: usize, cols: usize| [isize::try_from(rows.saturating_mul(cols)).unwrap_or(isize::MAX)];
        let apart = |pitch: &Option<DimId>, rows: usize, cols: usize| match pitch {
            Some(pitch) => extent(pitch).map(|p| [isize::try_from(p).unwrap_or(isize::MAX)]),
            None => Ok(stride(rows, cols)),
        };
        let (a_batch, b_batch, c_batch) = (apart(lhs_pitch, m, k)?, apart(rhs_pitch, k, n)?, stride(m, n));
        let c_layout = Layout { batch: &c_batch, ..Layout::row_major(n) };
        let (Some(a), Some(b), Some(c)) = (views.read::<T>(0), views.read::<T>(1), views.write::<T>(0)) else {
            return Err(mistyped(origin));
        };
        let bias = match epilogue.bias {
            true => Bias::PerColumn(views.read::<T>(2).ok_or_else(|| mistyped(origin))?),
            false => Bias::None,
        };
        let clamp = Clamp::new(epilogue.lower.map(T::of), epilogue.upper.map(T::of)).ok_or_else(|| mistyped(origin))?;
        let after = Epilogue { bias, clamp };
        let (shape, pool) = (GemmShape { batch: &batch, m, n, k }, self.pool);
        let refused = |source| RunError::Library { origin: origin.to_owned(), source };
        let a = Operand { data: a, layout: Layout { batch: &a_batch, ..Layout::matrix(m, k, *lhs_transposed) } };
        // Panels are f32: the views of another type give no such slices.
        let key = PackedKey { address: b.as_ptr().addr(), transposed: *rhs_transposed, matrices, k, n };
        if let Some(panels) = self.model.packed.find(&key)
            && let Some(done) = T::packed(pool, &shape, a, panels, after, c, c_layout)
        {
            return done.map_err(refused);
        }
        let b = Operand { data: b, layout: Layout { batch: &b_batch, ..Layout::matrix(k, n, *rhs_transposed) } };
        gemm(pool, &shape, a, b, after, c, c_layout).map_err(refused)
    }

    fn sort<T: SortKey + Element>(&self, call: SortCall<'_>, mut views: Views<'_>) -> Result<(), RunError> {
        let input = views.read::<T>(0);
        let (values, indices, scratch) = (views.write::<T>(0), views.write(1), views.write(2));
        let (Some(input), Some(values), Some(indices), Some(scratch)) = (input, values, indices, scratch) else {
            return Err(mistyped(call.origin));
        };
        sort(self.pool, call.lines, call.direction, input, values, indices, scratch)
            .map_err(|source| RunError::Library { origin: call.origin.to_owned(), source })
    }
}

struct SortCall<'a> {
    lines: Lines,
    direction: Direction,
    origin: &'a str,
}

/// Extents before, along and after an axis.
struct SortShape([usize; 3]);

impl SortShape {
    fn of(at: &At<'_>, slot: SlotId, axis: usize) -> Result<SortShape, RunError> {
        let mut shape = [1usize, 1, 1];
        for (i, dim) in at.program.slots[slot.index()].dims.iter().enumerate() {
            let part = match i.cmp(&axis) {
                std::cmp::Ordering::Less => &mut shape[0],
                std::cmp::Ordering::Equal => &mut shape[1],
                std::cmp::Ordering::Greater => &mut shape[2],
            };
            *part = part.saturating_mul(at.frame.extent(at.program, *dim)?);
        }
        Ok(SortShape(shape))
    }
}

/// The convolution that a call means for the operands' extents.
pub(super) fn convolution(
    at: &At<'_>,
    call: &LibraryCall,
    operands: &[SlotId],
    results: &[SlotId],
    origin: &str,
) -> Result<Conv, RunError> {
    let ([x, w], [y]) = (operands, results) else { return Err(mistyped(origin)) };
    let (x, w, y) = (Shape::of(at, *x)?, Shape::of(at, *w)?, Shape::of(at, *y)?);
    let (Some((batch, input, image)), Some((_, _, kernel)), Some((_, output, spatial))) =
        (x.image(), w.image(), y.image())
    else {
        return Err(mistyped(origin));
    };
    let (strides, dilations, low, high, groups, padding) = match call {
        LibraryCall::Conv { strides, dilations, low, high, groups } => (strides, dilations, low, high, *groups, None),
        LibraryCall::ConvTranspose { strides, dilations, low, high, output_padding, groups } => {
            (strides, dilations, low, high, *groups, Some(output_padding))
        }
        LibraryCall::MatMul { .. } | LibraryCall::Sort { .. } | LibraryCall::Concat { .. } => {
            return Err(mistyped(origin));
        }
    };
    let (mut pads_begin, mut pads_end) = ([0isize; MAX_SPATIAL], [0isize; MAX_SPATIAL]);
    for (pads, given) in [(&mut pads_begin, low), (&mut pads_end, high)] {
        for (pad, value) in pads.iter_mut().zip(given) {
            *pad = isize::try_from(*value).unwrap_or(isize::MAX);
        }
    }
    let window = Window {
        kernel,
        strides,
        dilations,
        pads_begin: pads_begin.get(..low.len()).unwrap_or(&pads_begin),
        pads_end: pads_end.get(..high.len()).unwrap_or(&pads_end),
    };
    let channels = Channels { batch, input, output, groups };
    let conv = match padding {
        None => Conv::new(channels, image, &window),
        Some(padding) => Conv::transposed(channels, image, &window, padding),
    };
    let conv = conv.map_err(|source| RunError::Library { origin: origin.to_owned(), source })?;
    if !conv.output().eq(spatial.iter().copied()) {
        return Err(RunError::Internal(format!("`{origin}`: the library computes another shape")));
    }
    Ok(conv)
}
