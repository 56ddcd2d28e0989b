//! Convolutions and pooling.
//!
//! Pooling is a window view and a reduction over it. Paddings that `auto_pad` and `ceil_mode` ask for are worked out
//! here, so the core ops see plain numbers.

use frit_ir::{BinaryOp, DType, Dim, Op, ReduceKind, Relation, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::contraction::centred;
use super::elementwise::along;
use super::error::{Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("AveragePool", average_pool),
    onnx("Conv", conv),
    onnx("ConvInteger", conv_integer),
    onnx("ConvTranspose", conv_transpose),
    onnx("GlobalAveragePool", |c| global(c, |c, x, axes| c.mean(x, axes, true))),
    onnx("GlobalLpPool", |c| {
        let p = c.int("p")?.unwrap_or(2) as f64;
        let x = c.x(0)?;
        let axes: Vec<usize> = (2..c.rank(x)?).collect();
        Ok(vec![lp_norm(c, x, &axes, p)?])
    }),
    onnx("GlobalMaxPool", |c| global(c, |c, x, axes| Ok(c.b.reduce(x, axes.to_vec(), ReduceKind::Max, true)?))),
    onnx("LpPool", lp_pool),
    onnx("MaxPool", max_pool),
];

/// Windows along the spatial axes of [n, c, spatial..].
pub(super) struct Geometry {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) low: Vec<usize>,
    pub(super) high: Vec<usize>,
    /// How much of `high` only `ceil_mode` asked for.
    pub(super) extra: Vec<usize>,
}

fn at(list: &[usize], i: usize) -> usize {
    list.get(i).copied().unwrap_or(0)
}

/// Elements that a window reaches over.
fn reach(kernel: usize, dilation: usize) -> usize {
    kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
}

/// Windows of a node over `x`, whose kernel extents are given.
pub(super) fn geometry(c: &mut Ctx, x: Value, kernel: Vec<usize>) -> Ruled<Geometry> {
    let n = kernel.len();
    let rank = c.rank(x)?;
    if rank != n + 2 {
        return invalid(format!("the input is {}, expected rank {}", c.ty(x)?, n + 2));
    }
    if kernel.contains(&0) {
        return invalid("a kernel extent of 0");
    }
    let strides = c.per_axis("strides", n, 1)?;
    let dilations = c.per_axis("dilations", n, 1)?;
    if strides.contains(&0) || dilations.contains(&0) {
        return invalid("a stride or dilation of 0");
    }
    let pads = c.per_axis("pads", 2 * n, 0)?;
    let (low, high) = pads.split_at(n.min(pads.len()));
    let mut g = Geometry { kernel, strides, dilations, low: low.to_vec(), high: high.to_vec(), extra: vec![0; n] };
    let auto = c.text("auto_pad", "NOTSET")?;
    match auto.as_str() {
        "NOTSET" => {}
        "VALID" => (g.low, g.high) = (vec![0; n], vec![0; n]),
        "SAME_UPPER" | "SAME_LOWER" => {
            for i in 0..n {
                let (stride, reach) = (at(&g.strides, i), reach(at(&g.kernel, i), at(&g.dilations, i)));
                let total = if stride == 1 {
                    reach - 1
                } else {
                    let extent = c.known_extent(x, i + 2)?;
                    let windows = extent.div_ceil(stride);
                    windows.saturating_sub(1).saturating_mul(stride).saturating_add(reach).saturating_sub(extent)
                };
                let less = total / 2;
                let (before, after) = if auto == "SAME_UPPER" { (less, total - less) } else { (total - less, less) };
                if let (Some(l), Some(h)) = (g.low.get_mut(i), g.high.get_mut(i)) {
                    (*l, *h) = (before, after);
                }
            }
        }
        other => return invalid(format!("no auto_pad `{other}`")),
    }
    let ceil_mode = c.flag("ceil_mode", false)?;
    fits(c, x, &g, ceil_mode)?;
    if ceil_mode {
        for i in 0..n {
            let (stride, reach) = (at(&g.strides, i), reach(at(&g.kernel, i), at(&g.dilations, i)));
            if stride == 1 {
                continue;
            }
            let extent = c.known_extent(x, i + 2)?;
            let padded = extent.saturating_add(at(&g.low, i)).saturating_add(at(&g.high, i));
            let room = padded.saturating_sub(reach);
            let mut windows = room.div_ceil(stride).saturating_add(1);
            // A window that would start in the padding after the input is left out.
            if (windows - 1).saturating_mul(stride) >= extent.saturating_add(at(&g.low, i)) {
                windows -= 1;
            }
            let extra = windows.saturating_sub(1).saturating_mul(stride).saturating_add(reach).saturating_sub(padded);
            if let (Some(h), Some(e)) = (g.high.get_mut(i), g.extra.get_mut(i)) {
                *h = h.saturating_add(extra);
                *e = extra;
            }
        }
    }
    Ok(g)
}

/// There is a window along every axis: the kernel is at most as large as the image with its padding. Where `ceil_mode`
/// rounds up, less than a stride of it may hang over the end.
fn fits(c: &mut Ctx, x: Value, g: &Geometry, ceil_mode: bool) -> Ruled<()> {
    let dims = c.shape(x)?;
    for (i, extent) in dims.iter().skip(2).enumerate() {
        let (kernel, dilation) = (at(&g.kernel, i), at(&g.dilations, i));
        let (axis, reach) = (i + 2, reach(kernel, dilation));
        let padding = at(&g.low, i).saturating_add(at(&g.high, i));
        let hanging = if ceil_mode { at(&g.strides, i).saturating_sub(1) } else { 0 };
        let dilated = if dilation > 1 { format!(" and dilation {dilation}") } else { String::new() };
        let image = extent + &Dim::from(padding);
        if image.known().is_some_and(|image| reach as i64 > image.saturating_add(hanging as i64)) {
            return invalid(format!(
                "axis {axis}: a kernel of extent {kernel}{dilated} reaches over {reach} elements, the image has {extent} \
                 and {padding} of padding"
            ));
        }
        let what = format!("a kernel of extent {kernel}{dilated} and the padded image along axis {axis}");
        c.require(Relation::AtMost, &Dim::from(reach), &(&image + &Dim::from(hanging)), what)?;
    }
    Ok(())
}

fn kernel_shape(c: &mut Ctx) -> Ruled<Vec<usize>> {
    match c.ints("kernel_shape")? {
        Some(list) => c.per_axis("kernel_shape", list.len(), 1),
        None => invalid("attribute `kernel_shape` is missing"),
    }
}

fn groups(c: &Ctx) -> Ruled<usize> {
    match usize::try_from(c.int("group")?.unwrap_or(1)) {
        Ok(g) if g >= 1 => Ok(g),
        _ => invalid("attribute `group` must be at least 1"),
    }
}

/// Cross-correlation of x with w, given as values of one type.
fn convolved(c: &mut Ctx, x: Value, w: Value) -> Ruled<Value> {
    let rank = c.rank(x)?;
    if rank < 3 {
        return invalid(format!("the input is {}, expected [n, c, spatial..]", c.ty(x)?));
    }
    let kernel = (2..c.rank(w)?).map(|a| c.known_extent(w, a)).collect::<Ruled<Vec<_>>>()?;
    if let Some(stated) = c.ints("kernel_shape")?
        && !stated.iter().map(|&v| usize::try_from(v).unwrap_or(0)).eq(kernel.iter().copied())
    {
        return invalid(format!("attribute `kernel_shape` is {stated:?}, the weights are {}", c.ty(w)?));
    }
    let g = geometry(c, x, kernel)?;
    let groups = groups(c)?;
    let op = Op::Conv { strides: g.strides, dilations: g.dilations, low: g.low, high: g.high, groups };
    Ok(c.op(op, &[x, w])?)
}

fn with_bias(c: &mut Ctx, y: Value, bias: Option<Value>) -> Ruled<Value> {
    let Some(bias) = bias else { return Ok(y) };
    let rank = c.rank(y)?;
    let dtype = c.dtype(y)?;
    let bias = c.to(bias, dtype)?;
    let bias = along(c, bias, 1, rank)?;
    c.add(y, bias)
}

fn conv(c: &mut Ctx) -> Results {
    let (x, w) = (c.x(0)?, c.x(1)?);
    let dtype = c.dtype(x)?;
    let wide = c.wide(dtype);
    let (x, w) = (c.to(x, wide)?, c.to(w, wide)?);
    let y = convolved(c, x, w)?;
    let bias = c.opt(2);
    let y = with_bias(c, y, bias)?;
    Ok(vec![c.to(y, dtype)?])
}

/// The padding of a quantised input is its zero point, which is 0 once that is subtracted.
pub(super) fn conv_centred(c: &mut Ctx, x: Value, w: Value, zeros: (Option<Value>, Option<Value>)) -> Ruled<Value> {
    let x = centred(c, x, zeros.0, usize::MAX)?;
    let from_end = c.rank(w)?;
    let w = centred(c, w, zeros.1, from_end)?;
    convolved(c, x, w)
}

fn conv_integer(c: &mut Ctx) -> Results {
    let (x, w) = (c.x(0)?, c.x(1)?);
    let zeros = (c.opt(2), c.opt(3));
    Ok(vec![conv_centred(c, x, w, zeros)?])
}

fn conv_transpose(c: &mut Ctx) -> Results {
    let (x, w) = (c.x(0)?, c.x(1)?);
    let dtype = c.dtype(x)?;
    let wide = c.wide(dtype);
    let (x, w) = (c.to(x, wide)?, c.to(w, wide)?);
    let kernel = (2..c.rank(w)?).map(|a| c.known_extent(w, a)).collect::<Ruled<Vec<_>>>()?;
    let n = kernel.len();
    if c.rank(x)? != n + 2 {
        return invalid(format!("the input is {}, the weights are {}", c.ty(x)?, c.ty(w)?));
    }
    let strides = c.per_axis("strides", n, 1)?;
    let dilations = c.per_axis("dilations", n, 1)?;
    let mut output_padding = c.per_axis("output_padding", n, 0)?;
    let pads = c.per_axis("pads", 2 * n, 0)?;
    let (low, high) = pads.split_at(n.min(pads.len()));
    let (mut low, mut high) = (low.to_vec(), high.to_vec());
    let auto = c.text("auto_pad", "NOTSET")?;
    let wanted = c.ints("output_shape")?;
    if auto == "VALID" {
        (low, high) = (vec![0; n], vec![0; n]);
    } else if auto != "NOTSET" || wanted.is_some() {
        for i in 0..n {
            let extent = i64::try_from(c.known_extent(x, i + 2)?).unwrap_or(i64::MAX);
            let stride = i64::try_from(at(&strides, i)).unwrap_or(i64::MAX);
            let reach = i64::try_from(reach(at(&kernel, i), at(&dilations, i))).unwrap_or(i64::MAX);
            let target = match &wanted {
                Some(list) => match list.get(list.len().saturating_sub(n) + i) {
                    Some(&v) => v,
                    None => return invalid("attribute `output_shape` has too few entries"),
                },
                None => extent.saturating_mul(stride),
            };
            let added = i64::try_from(at(&output_padding, i)).unwrap_or(i64::MAX);
            let full = extent.saturating_sub(1).saturating_mul(stride).saturating_add(added).saturating_add(reach);
            let total = full.saturating_sub(target);
            if let (Some(l), Some(h), Some(p)) = (low.get_mut(i), high.get_mut(i), output_padding.get_mut(i)) {
                let crop = usize::try_from(total.max(0)).unwrap_or(0);
                let less = crop / 2;
                (*l, *h) = if auto == "SAME_UPPER" { (less, crop - less) } else { (crop - less, less) };
                *p = p.saturating_add(usize::try_from(total.saturating_neg().max(0)).unwrap_or(0));
            }
        }
    }
    let groups = groups(c)?;
    let y = c.op(Op::ConvTranspose { strides, dilations, low, high, output_padding, groups }, &[x, w])?;
    let bias = c.opt(2);
    let y = with_bias(c, y, bias)?;
    Ok(vec![c.to(y, dtype)?])
}

/// A view of the windows: spatial axes become positions, offsets are new last axes.
fn windows(c: &mut Ctx, x: Value, fill: Value, g: &Geometry) -> Ruled<Value> {
    let rank = c.rank(x)?;
    let first = rank.saturating_sub(g.kernel.len());
    let op = Op::Window {
        axes: (first..rank).collect(),
        sizes: g.kernel.clone(),
        strides: g.strides.clone(),
        dilations: g.dilations.clone(),
        low: g.low.clone(),
        high: g.high.clone(),
    };
    Ok(c.op(op, &[x, fill])?)
}

fn offsets(g: &Geometry, rank: usize) -> Vec<usize> {
    (rank..rank + g.kernel.len()).collect()
}

/// The smallest value of a type, as f64.
fn lowest(dtype: DType) -> f64 {
    match dtype.class() {
        frit_ir::types::Class::Float => f64::NEG_INFINITY,
        frit_ir::types::Class::Signed => -(2f64.powi(i32::try_from(dtype.bits()).unwrap_or(64) - 1)),
        _ => 0.0,
    }
}

fn max_pool(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dims) = (c.rank(x)?, c.shape(x)?);
    let kernel = kernel_shape(c)?;
    let g = geometry(c, x, kernel)?;
    let fill = lowest(c.dtype(x)?);
    let fill = c.like(x, fill)?;
    let view = windows(c, x, fill, &g)?;
    let top = c.b.reduce(view, offsets(&g, rank), ReduceKind::Max, false)?;
    if c.declared.len() < 2 {
        return Ok(vec![top]);
    }
    // The position of the first element that is the maximum: the smallest position among those that equal it.
    let column_major = c.flag("storage_order", false)?;
    let mut position = c.i64s(&[], &[0])?;
    let mut stride = Dim::ONE;
    let spatial: Vec<usize> = if column_major { (2..rank).collect() } else { (2..rank).rev().collect() };
    for axis in spatial.into_iter().chain([1, 0]) {
        let at = c.iota(DType::I64, dims.clone(), axis)?;
        let by = c.dim(stride.clone())?;
        let term = c.mul(at, by)?;
        position = c.add(position, term)?;
        stride = &stride * dims.get(axis).unwrap_or(&Dim::ONE);
    }
    let far = c.i64s(&[], &[i64::MAX])?;
    let positions = windows(c, position, far, &g)?;
    let mut shape = c.shape(top)?;
    let top_dims = shape.clone();
    shape.extend(g.kernel.iter().map(|_| Dim::ONE));
    let spread = c.b.reshape(top, shape)?;
    let hit = c.bin(BinaryOp::Eq, view, spread)?;
    let candidates = c.pick(hit, positions, far)?;
    let indices = c.b.reduce(candidates, offsets(&g, rank), ReduceKind::Min, false)?;
    debug_assert_eq!(c.shape(indices).ok(), Some(top_dims));
    Ok(vec![top, indices])
}

fn average_pool(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dtype, dims) = (c.rank(x)?, c.dtype(x)?, c.shape(x)?);
    let kernel = kernel_shape(c)?;
    let g = geometry(c, x, kernel)?;
    let wide = c.wide(dtype);
    let x = c.to(x, wide)?;
    let zero = c.like(x, 0.0)?;
    let view = windows(c, x, zero, &g)?;
    let sum = c.sum(view, &offsets(&g, rank), false)?;
    let include = c.flag("count_include_pad", false)?;
    let padded = g.low.iter().chain(&g.high).any(|&p| p > 0);
    let only_extra = g.extra.iter().any(|&e| e > 0);
    let count = if !padded || (include && !only_extra) {
        c.like(x, g.kernel.iter().map(|&k| k as f64).product::<f64>())?
    } else {
        let n = g.kernel.len();
        let one = c.like(x, 1.0)?;
        let ones = c.full(one, dims.iter().skip(rank - n).cloned().collect())?;
        let (ones, counted) = if include {
            // What was padded counts, what `ceil_mode` added does not.
            let high: Vec<usize> = g.high.iter().zip(&g.extra).map(|(h, e)| h.saturating_sub(*e)).collect();
            let as_dims = |list: &[usize]| list.iter().map(|&p| Dim::from(p)).collect::<Vec<_>>();
            let op = Op::Pad { low: as_dims(&g.low), high: as_dims(&high) };
            let ones = c.op(op, &[ones, one])?;
            (ones, Geometry { low: vec![0; n], high: g.extra.clone(), ..copy(&g) })
        } else {
            (ones, copy(&g))
        };
        let view = windows(c, ones, zero, &counted)?;
        c.sum(view, &offsets(&counted, n), false)?
    };
    let mean = c.div(sum, count)?;
    Ok(vec![c.to(mean, dtype)?])
}

fn copy(g: &Geometry) -> Geometry {
    Geometry {
        kernel: g.kernel.clone(),
        strides: g.strides.clone(),
        dilations: g.dilations.clone(),
        low: g.low.clone(),
        high: g.high.clone(),
        extra: g.extra.clone(),
    }
}

/// (sum |x|^p)^(1/p) over axes that stay with extent 1.
pub(super) fn lp_norm(c: &mut Ctx, x: Value, axes: &[usize], p: f64) -> Ruled<Value> {
    let a = c.un(UnaryOp::Abs, x)?;
    let powered = powered(c, a, p)?;
    let sum = c.sum(powered, axes, true)?;
    rooted(c, sum, p)
}

fn powered(c: &mut Ctx, a: Value, p: f64) -> Ruled<Value> {
    match p {
        1.0 => Ok(a),
        2.0 => c.mul(a, a),
        _ => c.bin_s(BinaryOp::Pow, a, p),
    }
}

fn rooted(c: &mut Ctx, sum: Value, p: f64) -> Ruled<Value> {
    match p {
        1.0 => Ok(sum),
        2.0 => c.un(UnaryOp::Sqrt, sum),
        _ => c.bin_s(BinaryOp::Pow, sum, 1.0 / p),
    }
}

fn lp_pool(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let rank = c.rank(x)?;
    let p = c.int("p")?.unwrap_or(2) as f64;
    let kernel = kernel_shape(c)?;
    let g = geometry(c, x, kernel)?;
    let zero = c.like(x, 0.0)?;
    let view = windows(c, x, zero, &g)?;
    let a = c.un(UnaryOp::Abs, view)?;
    let powered = powered(c, a, p)?;
    let sum = c.sum(powered, &offsets(&g, rank), false)?;
    Ok(vec![rooted(c, sum, p)?])
}

/// A reduction over all spatial axes, which stay with extent 1.
fn global(c: &mut Ctx, f: fn(&mut Ctx, Value, &[usize]) -> Ruled<Value>) -> Results {
    let x = c.x(0)?;
    let rank = c.rank(x)?;
    if rank < 3 {
        return unsupported(format!("the input is {}, expected [n, c, spatial..]", c.ty(x)?));
    }
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let axes: Vec<usize> = (2..rank).collect();
    let y = f(c, x, &axes)?;
    Ok(vec![c.to(y, dtype)?])
}
