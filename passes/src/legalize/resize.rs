//! Resampling of images: Resize and Upsample.
//!
//! Interpolation is separable: along each axis the result is a constant matrix times the input, whose few weights a row
//! follow from the attributes. `nearest` has one weight a row, so it is a look-up.

use frit_ir::{DType, Dim, Op, Tensor, Value};

use super::context::{Ctx, Results};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[onnx("Resize", resize), onnx("Upsample", resize)];

/// Most elements that the matrix of one axis may have.
const MAX_WEIGHTS: usize = 1 << 22;

/// How one axis is resampled.
struct Axis {
    extent: usize,
    size: usize,
    scale: f64,
    /// Start and end of the region of interest, as fractions.
    roi: (f64, f64),
}

/// What the attributes say.
struct Options {
    mode: String,
    coordinates: String,
    nearest: String,
    antialias: bool,
    cubic_a: f64,
    exclude_outside: bool,
    extrapolation: f64,
}

fn options(c: &Ctx) -> Ruled<Options> {
    // Below opset 11 coordinates are asymmetric and nearest rounds down.
    let old = c.version < 11;
    Ok(Options {
        mode: c.text("mode", "nearest")?,
        coordinates: if old {
            "asymmetric".to_owned()
        } else {
            c.text("coordinate_transformation_mode", "half_pixel")?
        },
        nearest: if old { "floor".to_owned() } else { c.text("nearest_mode", "round_prefer_floor")? },
        antialias: c.flag("antialias", false)?,
        cubic_a: c.float("cubic_coeff_a")?.unwrap_or(-0.75),
        exclude_outside: c.flag("exclude_outside", false)?,
        extrapolation: c.float("extrapolation_value")?.unwrap_or(0.0),
    })
}

/// A list of floats from operand `i`, when it is there and not empty.
fn optional_floats(c: &mut Ctx, i: usize, what: &str) -> Ruled<Option<Vec<f64>>> {
    let Some(v) = c.opt(i) else { return Ok(None) };
    if c.ty(v)?.numel() == Dim::ZERO {
        return Ok(None);
    }
    c.const_floats(v, what).map(Some)
}

fn resize(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let rank = c.rank(x)?;
    let options = options(c)?;
    let axes = match c.ints("axes")? {
        Some(list) => list.iter().map(|&a| c.axis_of(a, rank)).collect::<Ruled<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let (roi, scales, sizes) = if c.op_type == "Upsample" && c.version < 9 {
        let stated = match c.attr("scales") {
            Some(frit_ir::AttrValue::List(list)) => list
                .iter()
                .filter_map(|v| match v {
                    frit_ir::AttrValue::Float(f) => Some(*f),
                    _ => None,
                })
                .collect(),
            _ => return invalid("attribute `scales` is missing"),
        };
        (None, Some(stated), None)
    } else if c.version < 11 {
        (None, optional_floats(c, 1, "scales")?, None)
    } else {
        let roi = if options.coordinates == "tf_crop_and_resize" { optional_floats(c, 1, "roi")? } else { None };
        let sizes = match c.opt(3) {
            Some(v) if c.ty(v)?.numel() != Dim::ZERO => Some(c.const_ints(v, "sizes")?),
            _ => None,
        };
        (roi, optional_floats(c, 2, "scales")?, sizes)
    };
    let plans = plans(c, x, &axes, (roi, scales, sizes))?;
    let dtype = c.dtype(x)?;
    let looked_up = options.mode == "nearest" && options.coordinates != "tf_crop_and_resize";
    let float = if dtype.is_float() { c.wide(dtype) } else { DType::F32 };
    let mut y = if looked_up { x } else { c.to(x, float)? };
    for (&axis, plan) in axes.iter().zip(&plans) {
        let Some(plan) = plan else { continue };
        y = if looked_up { nearest(c, y, axis, plan, &options)? } else { weighted(c, y, axis, plan, &options)? };
    }
    if !looked_up && dtype != float {
        y = c.op(Op::Cast { to: dtype, saturate: dtype.is_int() }, &[y])?;
    }
    Ok(vec![y])
}

type Stated = (Option<Vec<f64>>, Option<Vec<f64>>, Option<Vec<i64>>);

/// How each of `axes` is resampled; `None` where it stays as it is.
fn plans(c: &mut Ctx, x: Value, axes: &[usize], (roi, scales, sizes): Stated) -> Ruled<Vec<Option<Axis>>> {
    let n = axes.len();
    let policy = c.text("keep_aspect_ratio_policy", "stretch")?;
    if sizes.as_ref().map_or(n, Vec::len) != n || scales.as_ref().map_or(n, Vec::len) != n {
        return invalid(format!("scales or sizes don't fit {n} axes"));
    }
    if roi.as_ref().is_some_and(|r| r.len() != 2 * n) {
        return invalid(format!("roi doesn't fit {n} axes"));
    }
    let mut plans = Vec::with_capacity(n);
    let dims = c.shape(x)?;
    let common = match (&sizes, policy.as_str()) {
        (Some(sizes), "not_larger" | "not_smaller") => {
            let mut ratios = Vec::with_capacity(n);
            for (&axis, &size) in axes.iter().zip(sizes) {
                ratios.push(size as f64 / c.known_extent(x, axis)? as f64);
            }
            let pick = if policy == "not_larger" { f64::min } else { f64::max };
            ratios.into_iter().reduce(pick)
        }
        _ => None,
    };
    for (i, &axis) in axes.iter().enumerate() {
        let scale = scales.as_ref().and_then(|s| s.get(i).copied());
        let roi = roi.as_ref().and_then(|r| Some((*r.get(i)?, *r.get(i + n)?))).unwrap_or((0.0, 1.0));
        if scale == Some(1.0) && roi == (0.0, 1.0) {
            plans.push(None);
            continue;
        }
        if let (Some(Dim::Known(d)), Some(size)) = (dims.get(axis), sizes.as_ref().and_then(|s| s.get(i)))
            && d == size
            && common.is_none()
            && roi == (0.0, 1.0)
        {
            plans.push(None);
            continue;
        }
        let extent = c.known_extent(x, axis)?;
        let (size, scale) = match (sizes.as_ref().and_then(|s| s.get(i)), scale, common) {
            (Some(_), _, Some(scale)) => ((scale * extent as f64 + 0.5).floor(), scale),
            (Some(&size), _, None) => (size as f64, size as f64 / extent as f64),
            (None, Some(scale), _) => ((scale * extent as f64).floor(), scale),
            (None, None, _) => return invalid("neither scales nor sizes are given"),
        };
        if !(0.0..=1e9).contains(&size) || scale.is_nan() || scale <= 0.0 {
            return invalid(format!("axis {axis} of extent {extent} resized by {scale}"));
        }
        plans.push(Some(Axis { extent, size: size as usize, scale, roi }));
    }
    Ok(plans)
}

/// Where output position `i` lies in the input; `None`: outside, for `tf_crop_and_resize`.
fn source(a: &Axis, i: usize, coordinates: &str) -> Ruled<Option<f64>> {
    let (extent, size, i) = (a.extent as f64, a.scale * a.extent as f64, i as f64);
    Ok(Some(match coordinates {
        "align_corners" if size == 1.0 => 0.0,
        "align_corners" => i * (extent - 1.0) / (size - 1.0),
        "asymmetric" => i / a.scale,
        "half_pixel" => (i + 0.5) / a.scale - 0.5,
        "pytorch_half_pixel" if size == 1.0 => -0.5,
        "pytorch_half_pixel" => (i + 0.5) / a.scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = a.size as f64 / size;
            extent / 2.0 * (1.0 - adjustment) + (i + 0.5) / a.scale - 0.5
        }
        "tf_half_pixel_for_nn" => (i + 0.5) / a.scale,
        "tf_crop_and_resize" => {
            let (start, end) = a.roi;
            let inside = if size == 1.0 {
                (end - start) * (extent - 1.0) / 2.0
            } else {
                i * (end - start) * (extent - 1.0) / (size - 1.0)
            };
            let at = inside + start * (extent - 1.0);
            if !(0.0..=extent - 1.0).contains(&at) {
                return Ok(None);
            }
            at
        }
        other => return invalid(format!("no coordinate_transformation_mode `{other}`")),
    }))
}

/// The input index nearest to a position.
fn nearest_index(at: f64, extent: usize, mode: &str) -> Ruled<i64> {
    let index = match mode {
        "floor" => at.floor(),
        "ceil" => at.ceil(),
        "round_prefer_floor" => (at - 0.5).ceil(),
        "round_prefer_ceil" => (at + 0.5).floor(),
        other => return invalid(format!("no nearest_mode `{other}`")),
    };
    Ok(index.clamp(0.0, extent.saturating_sub(1) as f64) as i64)
}

fn nearest(c: &mut Ctx, x: Value, axis: usize, plan: &Axis, options: &Options) -> Ruled<Value> {
    if plan.size > MAX_WEIGHTS {
        return unsupported(format!("an axis resized to {}", plan.size));
    }
    let mut indices = Vec::with_capacity(plan.size);
    for i in 0..plan.size {
        let at = source(plan, i, &options.coordinates)?.unwrap_or(0.0);
        indices.push(nearest_index(at, plan.extent, &options.nearest)?);
    }
    let indices = c.i64s(&[indices.len()], &indices)?;
    Ok(c.op(Op::Gather { axis }, &[x, indices])?)
}

/// Weights of the neighbours of a position, from index `first` on.
fn weights(at: f64, scale: f64, options: &Options) -> Ruled<(i64, Vec<f64>)> {
    // A smaller image averages over as much more of the larger one.
    let shrink = if options.antialias { scale.min(1.0) } else { 1.0 };
    let a = options.cubic_a;
    let (reach, kernel): (f64, Box<dyn Fn(f64) -> f64>) = match options.mode.as_str() {
        "linear" => (1.0, Box::new(|d| (1.0 - d).max(0.0))),
        "cubic" => (
            2.0,
            Box::new(move |d| match d {
                d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            }),
        ),
        other => return invalid(format!("no mode `{other}`")),
    };
    let first = (at - reach / shrink).floor() as i64;
    let last = (at + reach / shrink).ceil() as i64;
    let list: Vec<f64> = (first..=last).map(|i| kernel((i as f64 - at).abs() * shrink)).collect();
    Ok((first, list))
}

/// Row i of the matrix: what each input element contributes to output i.
fn row(plan: &Axis, at: f64, options: &Options) -> Ruled<Vec<f64>> {
    let mut row = vec![0.0; plan.extent];
    if options.mode == "nearest" {
        let index = nearest_index(at, plan.extent, &options.nearest)?;
        if let Some(slot) = usize::try_from(index).ok().and_then(|i| row.get_mut(i)) {
            *slot = 1.0;
        }
        return Ok(row);
    }
    let (first, list) = weights(at, plan.scale, options)?;
    let last = i64::try_from(plan.extent).unwrap_or(i64::MAX) - 1;
    let mut total = 0.0;
    for (index, weight) in (first..).zip(list) {
        if options.exclude_outside && !(0..=last).contains(&index) {
            continue;
        }
        total += weight;
        if let Some(slot) = usize::try_from(index.clamp(0, last)).ok().and_then(|i| row.get_mut(i)) {
            *slot += weight;
        }
    }
    if total != 0.0 {
        row.iter_mut().for_each(|w| *w /= total);
    }
    Ok(row)
}

fn weighted(c: &mut Ctx, x: Value, axis: usize, plan: &Axis, options: &Options) -> Ruled<Value> {
    if plan.extent == 0 || plan.size.checked_mul(plan.extent).is_none_or(|n| n > MAX_WEIGHTS) {
        return unsupported(format!("an axis of {} resized to {}", plan.extent, plan.size));
    }
    let mut matrix = Vec::with_capacity(plan.size * plan.extent);
    let mut outside = Vec::with_capacity(plan.size);
    for i in 0..plan.size {
        let at = source(plan, i, &options.coordinates)?;
        outside.push(u8::from(at.is_none()));
        match at {
            Some(at) => matrix.extend(row(plan, at, options)?),
            None => matrix.extend(std::iter::repeat_n(0.0, plan.extent)),
        }
    }
    let dtype = c.dtype(x)?;
    let shape = [plan.size, plan.extent];
    let tensor = match dtype {
        DType::F64 => Tensor::from_slice(DType::F64, &shape, &matrix),
        _ => Tensor::f32(&shape, &matrix.iter().map(|w| *w as f32).collect::<Vec<_>>()),
    };
    let tensor = tensor.map_err(|e| Fail::Invalid(e.to_string()))?;
    let matrix = c.constant(tensor)?;
    // The product puts the new axis last; it belongs where the old one was.
    let rank = c.rank(x)?;
    let y = super::contraction::product(c, (x, matrix), [vec![], vec![]], [vec![axis], vec![1]])?;
    let perm = (0..rank)
        .map(|a| {
            if a < axis {
                a
            } else if a == axis {
                rank - 1
            } else {
                a - 1
            }
        })
        .collect();
    let y = c.b.transpose(y, perm)?;
    if outside.iter().all(|&o| o == 0) {
        return Ok(y);
    }
    let mask = Tensor::from_bytes(DType::Bool, &[plan.size], &outside).map_err(|e| Fail::Invalid(e.to_string()))?;
    let mask = c.constant(mask)?;
    let mask = c.spread(mask, &[axis], rank)?;
    let fill = c.like(y, options.extrapolation)?;
    c.pick(mask, fill, y)
}
