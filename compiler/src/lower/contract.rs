//! Contractions element by element: the terms that one result element sums.
//!
//! A product or convolution that no library takes is a reduction like any other: this gives the extents of its reduced
//! index space and the code of one term. Terms outside the input of a convolution are 0.

use frit_ir::{BinaryOp, DType, Dim, Op, Value};

use super::LowerError;
use super::emit::{Emitter, arithmetic};
use crate::kernel::{Reg, Scalar};

/// The reduced index space of a contraction.
pub(crate) struct Terms {
    /// Its extents, in the order that sums follow.
    pub(crate) extents: Vec<Dim>,
    /// Element type of terms and result.
    pub(crate) dtype: DType,
}

/// The terms that an element of `value` sums.
pub(crate) fn terms(e: &mut Emitter<'_>, value: Value) -> Result<Terms, LowerError> {
    let node = e.body.node(value.node);
    let dtype = e.tensor(value)?.dtype;
    let extents = match &node.op {
        Op::DotGeneral { lhs_contract, .. } => {
            let lhs = e.dims(node.operands()[0])?;
            lhs_contract.iter().map(|&axis| lhs[axis].clone()).collect()
        }
        Op::Conv { .. } => e.dims(node.operands()[1])?[1..].to_vec(),
        Op::ConvTranspose { groups, .. } => {
            let w = e.dims(node.operands()[1])?;
            let mut extents = vec![w[0].floordiv(&Dim::from(*groups))];
            extents.extend(w[2..].iter().cloned());
            extents
        }
        other => return Err(LowerError::Internal(format!("`{}` is no contraction", other.name()))),
    };
    Ok(Terms { extents, dtype })
}

/// Term `at` of element `index`.
pub(crate) fn term(e: &mut Emitter<'_>, value: Value, index: &[Dim], at: &[Dim]) -> Result<Reg, LowerError> {
    let node = e.body.node(value.node);
    let (left, right) = (node.operands()[0], node.operands()[1]);
    let dtype = e.tensor(value)?.dtype;
    match &node.op {
        Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, .. } => {
            let (lhs_rank, rhs_rank) = (e.tensor(left)?.rank(), e.tensor(right)?.rank());
            let mut next = lhs_batch.len();
            let mut place = |rank: usize, batch: &[usize], contract: &[usize]| -> Vec<Dim> {
                (0..rank)
                    .map(|axis| {
                        if let Some(i) = batch.iter().position(|&a| a == axis) {
                            index[i].clone()
                        } else if let Some(i) = contract.iter().position(|&a| a == axis) {
                            at[i].clone()
                        } else {
                            next += 1;
                            index[next - 1].clone()
                        }
                    })
                    .collect()
            };
            let lhs = place(lhs_rank, lhs_batch, lhs_contract);
            let rhs = place(rhs_rank, rhs_batch, rhs_contract);
            let (a, b) = (e.emit(left, &lhs)?, e.emit(right, &rhs)?);
            Ok(product(e, a, b, dtype))
        }
        Op::Conv { strides, dilations, low, groups, .. } => {
            let (x_dims, w_dims) = (e.dims(left)?, e.dims(right)?);
            let per_group = w_dims[0].floordiv(&Dim::from(*groups));
            let group = e.ranges.simplify(&index[1].floordiv(&per_group));
            let channel = &(&group * &w_dims[1]) + &at[0];
            let mut source = vec![index[0].clone(), e.ranges.simplify(&channel)];
            for i in 0..strides.len() {
                let start = &index[i + 2] * &Dim::from(strides[i]);
                let reach = &at[i + 1] * &Dim::from(dilations[i]);
                source.push(&(&start + &reach) - &Dim::from(low[i]));
            }
            let mut weight = vec![index[1].clone()];
            weight.extend(at.iter().cloned());
            guarded(e, (left, &source, &x_dims), (right, &weight), None, dtype)
        }
        Op::ConvTranspose { strides, dilations, low, groups, .. } => {
            let (x_dims, w_dims) = (e.dims(left)?, e.dims(right)?);
            let per_group = &w_dims[1];
            let group = e.ranges.simplify(&index[1].floordiv(per_group));
            let channels = w_dims[0].floordiv(&Dim::from(*groups));
            let channel = e.ranges.simplify(&(&(&group * &channels) + &at[0]));
            let mut source = vec![index[0].clone(), channel.clone()];
            let mut weight = vec![channel, e.ranges.simplify(&index[1].modulo(per_group))];
            let mut divides = None;
            for i in 0..strides.len() {
                let stride = Dim::from(strides[i]);
                let reach = &at[i + 1] * &Dim::from(dilations[i]);
                let position = &(&index[i + 2] + &Dim::from(low[i])) - &reach;
                if strides[i] > 1 {
                    let rest = e.index_value(position.modulo(&stride));
                    let zero = e.kb.constant(Scalar::i64(0));
                    let exact = e.kb.binary(BinaryOp::Eq, rest, zero);
                    divides = Some(match divides {
                        Some(before) => e.kb.binary(BinaryOp::And, before, exact),
                        None => exact,
                    });
                }
                source.push(position.floordiv(&stride));
                weight.push(at[i + 1].clone());
            }
            guarded(e, (left, &source, &x_dims), (right, &weight), divides, dtype)
        }
        other => Err(LowerError::Internal(format!("`{}` is no contraction", other.name()))),
    }
}

/// x[source] w[weight], or 0 where the source is outside or `also` is false.
fn guarded(
    e: &mut Emitter<'_>,
    (x, source, dims): (Value, &[Dim], &[Dim]),
    (w, weight): (Value, &[Dim]),
    also: Option<Reg>,
    dtype: DType,
) -> Result<Reg, LowerError> {
    let (inside, clamped) = e.inside(source, dims);
    let (a, b) = (e.emit_moved(x, &clamped, source, dims)?, e.emit(w, weight)?);
    let term = product(e, a, b, dtype);
    let condition = match (inside, also) {
        (Some(a), Some(b)) => Some(e.kb.binary(BinaryOp::And, a, b)),
        (a, b) => a.or(b),
    };
    let Some(condition) = condition else { return Ok(term) };
    let zero = Scalar { dtype: e.kb.reg_type(term), bits: 0 };
    let zero = e.kb.constant(zero);
    Ok(e.kb.select(condition, term, zero))
}

fn product(e: &mut Emitter<'_>, a: Reg, b: Reg, dtype: DType) -> Reg {
    let work = arithmetic(dtype);
    let (a, b) = (e.cast(a, work, false), e.cast(b, work, false));
    e.kb.binary(BinaryOp::Mul, a, b)
}
