//! Gradients of products and convolutions: products and convolutions again.

use frit_ir::types::Dim;
use frit_ir::{DType, Op, Value};

use super::movement::{inverse, placed};
use super::site::{Fail, Ruled, Site, refuse};

/// Batch and contracted axes of an operand.
type Axes<'a> = (&'a [usize], &'a [usize]);

pub(super) fn dot_general(s: &mut Site<'_>, lhs: Axes<'_>, rhs: Axes<'_>, accumulate: DType) -> Ruled {
    for (i, own, other) in [(0, lhs, rhs), (1, rhs, lhs)] {
        if s.wants(i) {
            let gradient = dot_side(s, i, own, other, accumulate)?;
            s.give(i, gradient);
        }
    }
    Ok(())
}

/// The cotangent of one operand of a product: that of the result, multiplied by the other operand over its free axes.
fn dot_side(s: &mut Site<'_>, side: usize, own: Axes<'_>, other: Axes<'_>, accumulate: DType) -> Ruled<Value> {
    let (x, o, g) = (s.x(side)?, s.x(1 - side)?, s.g()?);
    let (own_rank, other_rank) = (s.dims(x)?.len(), s.dims(o)?.len());
    let batch = own.0.len();
    let free = |rank: usize, axes: Axes<'_>| -> Vec<usize> {
        (0..rank).filter(|a| !axes.0.contains(a) && !axes.1.contains(a)).collect()
    };
    let (own_free, other_free) = (free(own_rank, own), free(other_rank, other));
    // The result is [batch.., lhs free.., rhs free..].
    let others_at = if side == 0 { batch + own_free.len() } else { batch };
    let contracted: Vec<usize> = (others_at..others_at + other_free.len()).collect();
    let o = s.b.cast(o, accumulate)?;
    let batch_axes: Vec<usize> = (0..batch).collect();
    // The free axes of the other operand are its contracted ones by now, in ascending order.
    let partner = |axis: usize| other.1.iter().position(|&a| a == axis).and_then(|i| own.1.get(i).copied());
    let lost = || Fail::Refused("its contracted axes don't pair up".to_owned());
    let paired = sorted(other.1).into_iter().map(|a| partner(a).ok_or_else(lost)).collect::<Ruled<Vec<_>>>()?;
    // Which axis of the operand each axis of the product is, in either order of the factors.
    let first: Vec<usize> = own.0.iter().chain(&own_free).chain(&paired).copied().collect();
    let second: Vec<usize> = own.0.iter().chain(&paired).chain(&own_free).copied().collect();
    // What needs no transpose; else each keeps its side.
    let cotangent_first = match (first.is_sorted(), second.is_sorted()) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => side == 0,
    };
    let (op, operands, order) = if cotangent_first {
        (dot(batch_axes, other.0.to_vec(), contracted, other_free, accumulate), [g, o], first)
    } else {
        (dot(other.0.to_vec(), batch_axes, other_free, contracted, accumulate), [o, g], second)
    };
    let product = s.op(op, &operands)?;
    let gradient = s.b.transpose(product, inverse(&order))?;
    Ok(s.b.cast(gradient, s.b.tensor(x)?.dtype)?)
}

fn sorted(axes: &[usize]) -> Vec<usize> {
    let mut axes = axes.to_vec();
    axes.sort_unstable();
    axes
}

fn dot(
    lhs_batch: Vec<usize>,
    rhs_batch: Vec<usize>,
    lhs_contract: Vec<usize>,
    rhs_contract: Vec<usize>,
    accumulate: DType,
) -> Op {
    Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate }
}

/// Attributes of a convolution.
pub(super) struct Geometry<'a> {
    pub strides: &'a [usize],
    pub dilations: &'a [usize],
    pub low: &'a [usize],
    pub high: &'a [usize],
    pub groups: usize,
}

fn known(dim: &Dim, what: &str) -> Ruled<usize> {
    match dim.known().and_then(|d| usize::try_from(d).ok()) {
        Some(extent) => Ok(extent),
        None => refuse(format!("{what} {dim} must be known")),
    }
}

pub(super) fn conv(s: &mut Site<'_>, at: &Geometry<'_>) -> Ruled {
    let (g, x, w) = (s.g()?, s.x(0)?, s.x(1)?);
    if s.wants(0) {
        let (xs, ws, ys) = (s.dims(x)?, s.dims(w)?, s.dims(g)?);
        let mut output_padding = Vec::new();
        for i in 0..at.strides.len() {
            let (input, kernel) = (known(&xs[i + 2], "extent")?, known(&ws[i + 2], "extent")?);
            let output = known(&ys[i + 2], "extent")?;
            // What the strides leave unread at the end.
            let reached = at.strides[i] * output.saturating_sub(1) + at.dilations[i] * kernel.saturating_sub(1) + 1;
            let all = input + at.low[i] + at.high[i];
            output_padding.push(all.checked_sub(reached).ok_or_else(|| Fail::Refused("an empty result".to_owned()))?);
        }
        let op = Op::ConvTranspose {
            strides: at.strides.to_vec(),
            dilations: at.dilations.to_vec(),
            low: at.low.to_vec(),
            high: at.high.to_vec(),
            output_padding,
            groups: at.groups,
        };
        let gradient = s.op(op, &[g, w])?;
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = weights(s, x, g, w, at)?;
        s.give(1, gradient);
    }
    Ok(())
}

pub(super) fn conv_transpose(s: &mut Site<'_>, at: &Geometry<'_>) -> Ruled {
    let (g, x, w) = (s.g()?, s.x(0)?, s.x(1)?);
    if s.wants(0) {
        let op = Op::Conv {
            strides: at.strides.to_vec(),
            dilations: at.dilations.to_vec(),
            low: at.low.to_vec(),
            high: at.high.to_vec(),
            groups: at.groups,
        };
        let wide = s.op(op, &[g, w])?;
        // Padding of the output may reach one position more.
        let gradient = cropped(s, wide, x)?;
        s.give(0, gradient);
    }
    if s.wants(1) {
        let gradient = weights(s, g, x, w, at)?;
        s.give(1, gradient);
    }
    Ok(())
}

/// The first elements of each spatial axis, as many as `like` has.
fn cropped(s: &mut Site<'_>, x: Value, like: Value) -> Ruled<Value> {
    let (dims, mut sizes) = (s.dims(x)?, s.dims(like)?);
    sizes[..2].clone_from_slice(&dims[..2]);
    if dims == sizes {
        return Ok(x);
    }
    let (starts, steps) = (vec![Dim::ZERO; dims.len()], vec![1; dims.len()]);
    s.op(Op::Slice { starts, sizes, steps }, &[x])
}

/// The cotangent of weights: `wide` [n, c, ..] is what the kernel slides over, `narrow` [n, o, ..] what it is multiplied
/// into. A convolution over the batch: where this one has strides it has dilations, and the other way round.
fn weights(s: &mut Site<'_>, wide: Value, narrow: Value, w: Value, at: &Geometry<'_>) -> Ruled<Value> {
    let (wides, ws) = (s.dims(wide)?, s.dims(w)?);
    let spatial = at.strides.len();
    for dim in &s.dims(narrow)?[2..] {
        known(dim, "extent")?;
    }
    let channels = known(&wides[1], "the number of channels")?;
    let (groups, each) = (at.groups, channels / at.groups.max(1));
    // [n, g, c / g, ..] to [c / g, g, n, ..]: the batch takes the place of channels.
    let mut apart = vec![wides[0].clone(), Dim::from(groups), Dim::from(each)];
    apart.extend_from_slice(&wides[2..]);
    let apart = s.b.reshape(wide, apart)?;
    let mut perm = vec![2, 1, 0];
    perm.extend(3..3 + spatial);
    let turned = s.b.transpose(apart, perm)?;
    let mut joined = vec![Dim::from(each), &wides[0] * &Dim::from(groups)];
    joined.extend_from_slice(&wides[2..]);
    let images = s.b.reshape(turned, joined)?;
    let mut perm = vec![1, 0];
    perm.extend(2..2 + spatial);
    let kernels = s.b.transpose(narrow, perm.clone())?;
    let op = Op::Conv {
        strides: at.dilations.to_vec(),
        dilations: at.strides.to_vec(),
        low: at.low.to_vec(),
        high: at.high.to_vec(),
        groups,
    };
    let found = s.op(op, &[images, kernels])?;
    // [c / g, o, ..]: at least the kernel's extents; more where the strides left elements unread.
    let gradient = s.b.transpose(found, perm)?;
    let dims = s.dims(gradient)?;
    let zeros = vec![Dim::ZERO; dims.len()];
    let after: Vec<Dim> = dims.iter().zip(&ws).map(|(have, want)| want - have).collect();
    placed(s, gradient, &zeros, &after)
}
