//! What a strip computes: the definition that back ends are tested against.
//!
//! Element by element, op by op, each op as [`crate::kernel::primitive`] defines it. Elements see each other only
//! through accumulators.

use frit_ir::{DType, UnaryOp};

use super::{Op, Strip, Val};
use crate::kernel::{Combine, Scalar, maths, primitive};

/// Memory of a stream: bytes, and the distance of its elements.
pub(super) struct StreamMemory {
    pub(super) bytes: Vec<u8>,
    pub(super) step: usize,
}

/// An element of memory.
pub(super) fn read(dtype: DType, bytes: &[u8]) -> Option<Scalar> {
    let mut word = [0u8; 8];
    word.get_mut(..dtype.size())?.copy_from_slice(bytes.get(..dtype.size())?);
    let bits = u64::from_le_bytes(word);
    Some(Scalar { dtype, bits: if dtype == DType::Bool { u64::from(bits != 0) } else { bits } })
}

/// Runs n elements; lanes of accumulator j are `accs[j]`. `None`: the strip is not well formed or uses an operation
/// that is no primitive.
pub(super) fn evaluate(
    strip: &Strip,
    streams: &mut [StreamMemory],
    params: &[Scalar],
    accs: &mut [[Scalar; 16]],
    n: usize,
) -> Option<()> {
    let mut values: Vec<Scalar> = Vec::with_capacity(strip.ops.len());
    for k in 0..n {
        values.clear();
        for typed in &strip.ops {
            let value = |v: Val| values.get(v as usize).copied();
            let result = match typed.op {
                Op::Const(value) => value,
                Op::Param(p) => *params.get(p as usize)?,
                Op::Load(s) => {
                    let stream = streams.get(s as usize)?;
                    read(typed.dtype, stream.bytes.get(k * stream.step..)?)?
                }
                Op::Store(s, v) => {
                    let (stream, v) = (streams.get_mut(s as usize)?, value(v)?);
                    let place = stream.bytes.get_mut(k * stream.step..)?.get_mut(..v.dtype.size())?;
                    place.copy_from_slice(v.bits.to_le_bytes().get(..v.dtype.size())?);
                    v
                }
                Op::Unary(op, x) => primitive::unary(op, value(x)?)?,
                Op::Binary(op, a, b) => primitive::binary(op, value(a)?, value(b)?)?,
                Op::Select(c, a, b) => {
                    if value(c)?.is_true() {
                        value(a)?
                    } else {
                        value(b)?
                    }
                }
                Op::Fma(a, b, c) => primitive::fma(value(a)?, value(b)?, value(c)?)?,
                Op::Cast { value: x, saturate } => primitive::cast(value(x)?, typed.dtype, saturate)?,
                Op::Bitcast(x) => primitive::bitcast(value(x)?, typed.dtype)?,
                Op::Rescue { ok, value: v, op, x } => {
                    if value(ok)?.is_true() {
                        value(v)?
                    } else {
                        maths::rescued(op, value(x)?)?
                    }
                }
            };
            values.push(result);
        }
        for (acc, lanes) in strip.accs.iter().zip(accs.iter_mut()) {
            let lane = lanes.get_mut(k % 16)?;
            let value = *values.get(acc.value as usize)?;
            *lane = match acc.factor {
                Some(factor) => primitive::fma(value, *values.get(factor as usize)?, *lane)?,
                None => combine(acc.combine, *lane, value)?,
            };
        }
    }
    Some(())
}

/// Lanes as one: i with i + 8, i + 4, i + 2, i + 1.
pub(super) fn folded(how: Combine, lanes: &[Scalar; 16]) -> Scalar {
    let mut lanes = lanes.to_vec();
    while lanes.len() > 1 {
        let high = lanes.split_off(lanes.len() / 2);
        lanes = lanes.iter().zip(&high).map(|(a, b)| combine(how, *a, *b).unwrap()).collect();
    }
    lanes[0]
}

/// One step of a reduction.
fn combine(how: Combine, a: Scalar, b: Scalar) -> Option<Scalar> {
    match how {
        Combine::ArgMin(_) | Combine::ArgMax(_) | Combine::Dot(_) => None,
        Combine::Sum | Combine::Prod | Combine::Min | Combine::Max => maths::evaluate_binary(how.op(), a, b),
    }
}

/// Whether an op of one operand has a definition here.
pub(super) fn is_defined(op: UnaryOp, dtype: DType) -> bool {
    primitive::is_unary(op, dtype)
}
