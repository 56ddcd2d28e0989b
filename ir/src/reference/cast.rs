//! Conversions between element types, ONNX Cast's meaning.
//!
//! To a float: rounds to nearest even; what is narrower than f32 goes through f32. To an integer from a float: the
//! fraction goes; with `saturate` the value is clamped to the type's range, without it is clamped to i64 (not negative
//! and to u64: to u64) and the low bits stay; NaN gives 0. Between integers: low bits, or clamped with `saturate`. To
//! bool: whether it is not 0 (NaN is not). The 8- and 4-bit floats: see [`crate::minifloat`].

use super::array::{Array, Data, float_bytes};
use super::number::int_limits;
use super::{Cx, Evaluated};
use crate::minifloat;
use crate::tensor::Tensor;
use crate::types::{Class, DType};

pub(super) fn cast(cx: &Cx<'_>, x: &Array, to: DType, saturate: bool) -> Evaluated {
    let shape = x.shape.clone();
    let rounding = cx.rounding(to);
    let narrow = |v: f64| match minifloat::encode(to, f64::from(v as f32), saturate) {
        Some(code) => minifloat::decode(to, code).unwrap_or(v),
        None => v,
    };
    match (&x.data, to.class()) {
        (Data::Float(v), Class::Float) => Ok(Array::floats(rounding, shape, v.iter().map(|&v| narrow(v)))),
        // Straight to f32, so that a large integer is rounded once.
        (Data::Int(v), Class::Float) if to != DType::F64 && !rounding.wide => {
            Ok(Array::floats(rounding, shape, v.iter().map(|&v| narrow(f64::from(v as f32)))))
        }
        (Data::Int(v), Class::Float) => Ok(Array::floats(rounding, shape, v.iter().map(|&v| narrow(v as f64)))),
        (Data::Float(v), Class::Bool) => Ok(Array::bools(shape, v.iter().map(|&v| v != 0.0))),
        (Data::Float(v), Class::Signed | Class::Unsigned) => {
            Ok(Array::ints(to, shape, v.iter().map(|&v| float_to_int(v, to, saturate))))
        }
        (Data::Int(v), Class::Signed | Class::Unsigned | Class::Bool) => {
            let (low, high) = int_limits(to);
            let clamp = saturate && to != DType::Bool;
            Ok(Array::ints(to, shape, v.iter().map(|&v| if clamp { v.clamp(low, high) } else { v })))
        }
        (Data::Text(_), _) | (_, Class::Text) => Err(cx.bad_operand(0, format!("is {}: no cast to {to}", x.dtype))),
    }
}

fn float_to_int(v: f64, to: DType, saturate: bool) -> i128 {
    // `as` clamps and sends NaN to 0; i128 is wider than any integer that a clamp below keeps.
    let whole = v as i128;
    let (low, high) = if saturate {
        int_limits(to)
    } else if to == DType::U64 && whole >= 0 {
        int_limits(DType::U64)
    } else {
        int_limits(DType::I64)
    };
    whole.clamp(low, high)
}

/// The bits of each element as another type of the same size.
pub(super) fn bitcast(cx: &Cx<'_>, x: &Array, to: DType) -> Evaluated {
    let bytes: Vec<u8> = match &x.data {
        Data::Float(values) => {
            let rounding = super::number::Rounding { dtype: x.dtype, wide: false };
            values.iter().flat_map(|&v| float_bytes(x.dtype, rounding.apply(v))).collect()
        }
        Data::Int(values) => values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(x.dtype.size())).collect(),
        Data::Text(_) => return Err(cx.bad_operand(0, "is text, which has no bits")),
    };
    // Elements narrower than a byte are sign- or zero-extended in it, as their type asks.
    let tensor = Tensor::from_bytes(to, &x.shape, &bytes).map_err(|e| cx.ill_typed(e.to_string()))?;
    let cast = Array::from_tensor(&tensor);
    Ok(match cast.data {
        Data::Int(values) => Array::ints(to, cast.shape, values),
        Data::Float(_) | Data::Text(_) => cast,
    })
}
