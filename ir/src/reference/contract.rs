//! Sums of products: dot_general, conv, conv_transpose. Floats sum in f64 and round once, integers are exact modulo
//! their width.

use super::array::{Array, Data, flat, for_each_index, offsets, strides};
use super::{Cx, EvalError, Evaluated};
use crate::types::{Class, DType};

/// What products are summed in.
trait Sum: Copy {
    const ZERO: Self;
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Sum for f64 {
    const ZERO: f64 = 0.0;
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Sum for i128 {
    const ZERO: i128 = 0;
    fn add_product(self, a: i128, b: i128) -> i128 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Sums brought to the result type.
enum Sums {
    Float(Vec<f64>),
    Int(Vec<i128>),
}

impl Sums {
    fn into_array(self, cx: &Cx<'_>, dtype: DType, shape: Vec<usize>) -> Evaluated {
        match (self, dtype.class()) {
            (Sums::Float(v), Class::Float) => Ok(Array::floats(cx.rounding(dtype), shape, v)),
            (Sums::Int(v), Class::Float) => {
                Ok(Array::floats(cx.rounding(dtype), shape, v.into_iter().map(|v| v as f64)))
            }
            (Sums::Int(v), Class::Signed | Class::Unsigned | Class::Bool) => Ok(Array::ints(dtype, shape, v)),
            (Sums::Float(v), _) => {
                super::cast::cast(cx, &Array { dtype: DType::F64, shape, data: Data::Float(v) }, dtype, false)
            }
            (Sums::Int(_), Class::Text) => Err(cx.ill_typed(format!("can't sum into {dtype}"))),
        }
    }
}

/// `work` on integers when both operands are, else on floats.
fn on_numbers(
    a: &Array,
    b: &Array,
    float: impl FnOnce(&[f64], &[f64]) -> Vec<f64>,
    int: impl FnOnce(&[i128], &[i128]) -> Vec<i128>,
) -> Sums {
    match (&a.data, &b.data) {
        (Data::Int(a), Data::Int(b)) => Sums::Int(int(a, b)),
        (Data::Float(_) | Data::Int(_) | Data::Text(_), _) => Sums::Float(float(&a.to_floats(), &b.to_floats())),
    }
}

/// One side of a dot: element numbers along its batch, free and contracted axes.
struct Side {
    batch: Vec<usize>,
    free: Vec<usize>,
    contract: Vec<usize>,
}

impl Side {
    fn new(x: &Array, batch: &[usize], contract: &[usize]) -> Side {
        let free: Vec<usize> = (0..x.shape.len()).filter(|a| !batch.contains(a) && !contract.contains(a)).collect();
        Side { batch: offsets(&x.shape, batch), free: offsets(&x.shape, &free), contract: offsets(&x.shape, contract) }
    }
}

fn dot<T: Sum>(a: &[T], b: &[T], lhs: &Side, rhs: &Side) -> Vec<T> {
    let mut sums = Vec::new();
    for (left, right) in lhs.batch.iter().zip(&rhs.batch) {
        for i in &lhs.free {
            for j in &rhs.free {
                let mut sum = T::ZERO;
                for (k, l) in lhs.contract.iter().zip(&rhs.contract) {
                    sum = sum.add_product(a[left + i + k], b[right + j + l]);
                }
                sums.push(sum);
            }
        }
    }
    sums
}

pub(super) fn dot_general(
    cx: &Cx<'_>,
    shape: Vec<usize>,
    (lhs_batch, lhs_contract): (&[usize], &[usize]),
    (rhs_batch, rhs_contract): (&[usize], &[usize]),
    accumulate: DType,
) -> Evaluated {
    let (a, b) = (cx.array(0)?, cx.array(1)?);
    let (lhs, rhs) = (Side::new(a, lhs_batch, lhs_contract), Side::new(b, rhs_batch, rhs_contract));
    let results: usize = shape.iter().product();
    cx.count((results as u64).saturating_mul(lhs.contract.len() as u64))?;
    let sums = on_numbers(a, b, |a, b| dot(a, b, &lhs, &rhs), |a, b| dot(a, b, &lhs, &rhs));
    sums.into_array(cx, accumulate, shape)
}

/// Geometry of a convolution: the smaller index space is the one walked with the kernel's.
struct Geometry<'a> {
    x: &'a [usize],
    w: &'a [usize],
    out: &'a [usize],
    strides: &'a [usize],
    dilations: &'a [usize],
    low: &'a [usize],
    groups: usize,
}

impl Geometry<'_> {
    /// Position of tap `k` of the window at `o`, in the padded tensor; `None` in the padding.
    fn position(&self, o: &[usize], k: &[usize], extents: &[usize]) -> Option<Vec<usize>> {
        let along = |i: usize| {
            let padded = o[i] * self.strides[i] + k[i] * self.dilations[i];
            padded.checked_sub(self.low[i]).filter(|p| *p < extents[i])
        };
        (0..o.len()).map(along).collect()
    }
}

fn conv_sums<T: Sum>(x: &[T], w: &[T], g: &Geometry<'_>) -> Vec<T> {
    let (x_steps, w_steps) = (strides(g.x), strides(g.w));
    let per_group = g.out[1] / g.groups;
    let mut sums = Vec::new();
    for_each_index(g.out, |index| {
        let (image, channel, o) = (index[0], index[1], &index[2..]);
        let first = channel / per_group * g.w[1];
        let mut sum = T::ZERO;
        for_each_index(&g.w[1..], |tap| {
            let (c, k) = (tap[0], &tap[1..]);
            if let Some(position) = g.position(o, k, &g.x[2..]) {
                let from = image * x_steps[0] + (first + c) * x_steps[1] + flat(&position, &x_steps[2..]);
                sum = sum.add_product(x[from], w[channel * w_steps[0] + flat(tap, &w_steps[1..])]);
            }
        });
        sums.push(sum);
    });
    sums
}

fn conv_transpose_sums<T: Sum>(x: &[T], w: &[T], g: &Geometry<'_>) -> Vec<T> {
    let (x_steps, w_steps, out_steps) = (strides(g.x), strides(g.w), strides(g.out));
    let per_group = g.x[1] / g.groups;
    let mut sums = vec![T::ZERO; g.out.iter().product()];
    for_each_index(g.x, |index| {
        let (image, channel, i) = (index[0], index[1], &index[2..]);
        let first = channel / per_group * g.w[1];
        for_each_index(&g.w[1..], |tap| {
            let (o, k) = (tap[0], &tap[1..]);
            if let Some(position) = g.position(i, k, &g.out[2..]) {
                let to = image * out_steps[0] + (first + o) * out_steps[1] + flat(&position, &out_steps[2..]);
                let weight = w[channel * w_steps[0] + flat(tap, &w_steps[1..])];
                sums[to] = sums[to].add_product(x[flat(index, &x_steps)], weight);
            }
        });
    });
    sums
}

/// Counts the taps of all windows; refuses bool and text.
fn check(cx: &Cx<'_>, x: &Array, w: &Array, windows: &[usize]) -> Result<(), EvalError> {
    if !x.dtype.is_float() && !x.dtype.is_int() {
        return Err(cx.bad_operand(0, format!("is {}, on which the op is not defined", x.dtype)));
    }
    let taps: u64 = w.shape[1..].iter().map(|&d| d as u64).product();
    cx.count(taps.saturating_mul(windows.iter().map(|&d| d as u64).product()))
}

pub(super) fn conv(
    cx: &Cx<'_>,
    shape: Vec<usize>,
    strides: &[usize],
    dilations: &[usize],
    low: &[usize],
    groups: usize,
) -> Evaluated {
    let (x, w) = (cx.array(0)?, cx.array(1)?);
    check(cx, x, w, &shape)?;
    let g = Geometry { x: &x.shape, w: &w.shape, out: &shape, strides, dilations, low, groups };
    let sums = on_numbers(x, w, |x, w| conv_sums(x, w, &g), |x, w| conv_sums(x, w, &g));
    sums.into_array(cx, x.dtype, shape)
}

pub(super) fn conv_transpose(
    cx: &Cx<'_>,
    shape: Vec<usize>,
    strides: &[usize],
    dilations: &[usize],
    low: &[usize],
    groups: usize,
) -> Evaluated {
    let (x, w) = (cx.array(0)?, cx.array(1)?);
    check(cx, x, w, &x.shape)?;
    let g = Geometry { x: &x.shape, w: &w.shape, out: &shape, strides, dilations, low, groups };
    let sums = on_numbers(x, w, |x, w| conv_transpose_sums(x, w, &g), |x, w| conv_transpose_sums(x, w, &g));
    sums.into_array(cx, x.dtype, shape)
}
