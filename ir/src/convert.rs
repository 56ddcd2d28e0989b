//! One element's bytes to and from f64 and i128: what scalars of every type mean.

use half::{bf16, f16};

use crate::tensor::Tensor;
use crate::types::{Class, DType};

/// A scalar tensor of a numeric type or bool; `None` for strings and the 8- and 4-bit floats.
pub fn scalar(dtype: DType, value: f64) -> Option<Tensor> {
    let bytes: Vec<u8> = match dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0.0)],
        _ if dtype.class() == Class::Signed => (value as i64).to_le_bytes()[..dtype.size()].to_vec(),
        _ if dtype.class() == Class::Unsigned => (value as u64).to_le_bytes()[..dtype.size()].to_vec(),
        _ => return None,
    };
    Tensor::from_bytes(dtype, &[], &bytes).ok()
}

/// Elements of a floating-point tensor as f64, each exactly; `None` for other types.
pub fn to_f64s(tensor: &Tensor) -> Option<Vec<f64>> {
    let dtype = tensor.dtype();
    let values = match dtype {
        DType::F32 => tensor.to_vec::<f32>().into_iter().map(f64::from).collect(),
        DType::F64 => tensor.to_vec::<f64>(),
        DType::F16 => tensor.to_vec::<u16>().into_iter().map(|bits| f16::from_bits(bits).to_f64()).collect(),
        DType::BF16 => tensor.to_vec::<u16>().into_iter().map(|bits| bf16::from_bits(bits).to_f64()).collect(),
        _ if dtype.is_float() => {
            tensor.bytes().iter().map(|code| crate::minifloat::decode(dtype, *code).unwrap_or(f64::NAN)).collect()
        }
        _ => return None,
    };
    Some(values)
}
