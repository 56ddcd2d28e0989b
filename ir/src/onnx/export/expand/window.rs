//! Views of sliding windows, and convolutions of integers.
//!
//! ONNX has no op for windows. Where each is reduced at once it is a pool ([`pooled`]); else every axis is gathered
//! through a table of positions, which copies. Integer convolutions are windows times weights.

use super::Expander;
use crate::builder::Built;
use crate::convert::to_f64s;
use crate::graph::{Function, NodeId, Value};
use crate::op::{BinaryOp, Op, ReduceKind};
use crate::tensor::Tensor;
use crate::types::{DType, Dim};

/// Tables of positions of at most this many entries are constants.
const TABLE: usize = 1 << 16;

/// What a window's users make of it, when all are pools of one kind: the kind.
fn pool_of(f: &Function, reduce: NodeId, window: NodeId) -> Option<ReduceKind> {
    let Op::Window { axes, sizes, low, high, .. } = &f.node(window).op else { return None };
    let Op::Reduce { axes: reduced, kind } = &f.node(reduce).op else { return None };
    let x = f.ty(*f.node(window).operands().first()?).tensor()?;
    let fill = match &f.node(f.node(window).operands().get(1)?.node).op {
        Op::Constant { value } => to_f64s(value)?.first().copied()?,
        _ => return None,
    };
    let rank = x.rank();
    let spatial = (3..=5).contains(&rank) && axes.iter().copied().eq(2..rank);
    let inside = low.iter().chain(high).zip(sizes.iter().chain(sizes)).all(|(pad, size)| pad < size);
    let whole = reduced.iter().copied().eq(rank..rank + axes.len());
    let fits = match kind {
        ReduceKind::Max => fill == f64::NEG_INFINITY && matches!(x.dtype, DType::F32 | DType::F64),
        ReduceKind::Sum => fill == 0.0 && x.dtype == DType::F32,
        ReduceKind::Prod | ReduceKind::Min | ReduceKind::ArgMin | ReduceKind::ArgMax => false,
    };
    (spatial && inside && whole && fits).then_some(*kind)
}

/// Whether every use of a `window` is a reduction that ONNX has a pool for.
pub(in super::super) fn pooled(f: &Function, window: NodeId) -> bool {
    let value = Value { node: window, result: 0 };
    let uses = f.uses(value);
    !uses.is_empty() && !f.is_output(value) && uses.iter().all(|&(user, _)| pool_of(f, user, window).is_some())
}

/// The pooled window that a `reduce` takes, and how it pools.
pub(in super::super) fn pool(f: &Function, reduce: NodeId) -> Option<(NodeId, ReduceKind)> {
    let window = f.node(reduce).operands().first()?.node;
    let kind = pool_of(f, reduce, window)?;
    pooled(f, window).then_some((window, kind))
}

impl Expander<'_> {
    /// `dims` are the result's.
    pub(super) fn window(&mut self, op: &Op, x: Value, fill: Value, dims: &[Dim]) -> Built {
        let Op::Window { axes, sizes, strides, dilations, low, high } = op else {
            return self.op(op.clone(), &[x, fill]);
        };
        let rank = self.tensor(x)?.rank();
        let mut padded = x;
        if low.iter().chain(high).any(|&p| p > 0) {
            let (mut before, mut after) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
            for (i, &axis) in axes.iter().enumerate() {
                (before[axis], after[axis]) = (Dim::from(low[i]), Dim::from(high[i]));
            }
            let op = Op::Pad { low: before, high: after };
            let wide = super::movable(&op, self.dtype(x)?);
            padded = self.through(wide, &[x, fill], |e, v| e.op(op, v))?;
        }
        // Later axes first, so that those before keep their place.
        let mut y = padded;
        for (i, &axis) in axes.iter().enumerate().rev() {
            let table = self.positions(&dims[axis], sizes[i], strides[i], dilations[i])?;
            let wide = super::movable(&Op::Gather { axis }, self.dtype(y)?);
            y = self.through(wide, &[y], |e, v| e.op(Op::Gather { axis }, &[v[0], table]))?;
            // The offset inside goes last: before the offsets of later axes, which are there already.
            let now = self.tensor(y)?.rank();
            let place = now - (axes.len() - i);
            let perm: Vec<usize> = (0..=axis).chain(axis + 2..=place).chain([axis + 1]).chain(place + 1..now).collect();
            y = self.b().transpose(y, perm)?;
        }
        self.b().reshape(y, dims.to_vec())
    }

    /// `[count, size]`: o stride + w dilation.
    fn positions(&mut self, count: &Dim, size: usize, stride: usize, dilation: usize) -> Built {
        if let Some(n) = count.known().and_then(|n| usize::try_from(n).ok())
            && n.checked_mul(size).is_some_and(|entries| entries <= TABLE)
        {
            let entry = |o: usize, w: usize| i64::try_from(o * stride + w * dilation).unwrap_or(i64::MAX);
            let entries: Vec<i64> = (0..n).flat_map(|o| (0..size).map(move |w| entry(o, w))).collect();
            let table = Tensor::i64(&[n, size], &entries).map_err(super::elementwise::internal)?;
            return self.b().constant(table);
        }
        let dims = vec![count.clone(), Dim::from(size)];
        let mut terms = Vec::with_capacity(2);
        for (axis, by) in [(0, stride), (1, dilation)] {
            let index = self.op(Op::Iota { dtype: DType::I64, dims: dims.clone(), axis }, &[])?;
            let by = self.scalar(DType::I64, by as f64)?;
            terms.push(self.b().binary(BinaryOp::Mul, index, by)?);
        }
        self.b().binary(BinaryOp::Add, terms[0], terms[1])
    }

    /// Floats in f32 or f64; integers as windows times weights.
    pub(super) fn convolution(&mut self, op: &Op, x: Value, w: Value, dims: &[Dim]) -> Built {
        let dtype = self.dtype(x)?;
        match op {
            _ if matches!(dtype, DType::F16 | DType::BF16) => {
                self.through(DType::F32, &[x, w], |e, v| e.op(op.clone(), v))
            }
            Op::Conv { strides, dilations, low, high, groups } if dtype.is_int() => {
                let taps = self.tensor(w)?.dims;
                let kernel: Vec<usize> =
                    taps[2..].iter().map(|d| d.known().and_then(|d| usize::try_from(d).ok()).unwrap_or(1)).collect();
                let rank = kernel.len();
                let input = self.tensor(x)?.dims;
                let mut shape: Vec<Dim> = [&input[..2], &dims[2..]].concat();
                shape.extend(taps[2..].iter().cloned());
                let view = Op::Window {
                    axes: (2..2 + rank).collect(),
                    sizes: kernel,
                    strides: strides.clone(),
                    dilations: dilations.clone(),
                    low: low.clone(),
                    high: high.clone(),
                };
                let fill = self.scalar(dtype, 0.0)?;
                let windows = self.window(&view, x, fill, &shape)?;
                self.grouped(windows, w, *groups, dims)
            }
            _ => self.op(op.clone(), &[x, w]),
        }
    }

    /// windows[n, c, o.., k..] and weights[m, c / g, k..] -> [n, m, o..].
    fn grouped(&mut self, windows: Value, w: Value, groups: usize, dims: &[Dim]) -> Built {
        let (wide, taps) = (self.tensor(windows)?.dims, self.tensor(w)?.dims);
        let rank = taps.len() - 2;
        let g = Dim::from(groups);
        let split = |d: &Dim| d.floordiv(&g);
        let mut left: Vec<Dim> = vec![wide[0].clone(), g.clone(), taps[1].clone()];
        left.extend(wide[2..].iter().cloned());
        let mut right: Vec<Dim> = vec![g.clone(), split(&taps[0])];
        right.extend(taps[1..].iter().cloned());
        let (left, right) = (self.b().reshape(windows, left)?, self.b().reshape(w, right)?);
        let accumulate = self.dtype(w)?;
        let op = Op::DotGeneral {
            lhs_batch: vec![1],
            rhs_batch: vec![0],
            lhs_contract: std::iter::once(2).chain(3 + rank..3 + 2 * rank).collect(),
            rhs_contract: (2..3 + rank).collect(),
            accumulate,
        };
        // [g, n, o.., m / g]
        let product = self.dot(&op, left, right)?;
        let perm: Vec<usize> = [1, 0, 2 + rank].into_iter().chain(2..2 + rank).collect();
        let ordered = self.b().transpose(product, perm)?;
        self.b().reshape(ordered, dims.to_vec())
    }
}
