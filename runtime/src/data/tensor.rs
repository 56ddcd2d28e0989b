//! Arrays of files to tensors of programs and back.
//!
//! In and out: [`Array`], [`Tensor`]. Both are dense, row-major and little-endian, so most types only
//! change their name. NumPy has complex numbers where a tensor has a trailing dim of 2; it lacks
//! bfloat16, which is written as float32 (every value is kept exactly), and 4- and 2-bit integers,
//! which are written as bytes, as they lie in memory.

use super::{Array, DataError, NpyDtype};
use frit_ir::{DType, Tensor};

impl TryFrom<Array> for Tensor {
    type Error = DataError;

    fn try_from(array: Array) -> Result<Tensor, DataError> {
        let (dtype, mut shape, data) = array.into_parts();
        let (dtype, complex) = match dtype {
            NpyDtype::Bool => (DType::Bool, false),
            NpyDtype::I8 => (DType::I8, false),
            NpyDtype::I16 => (DType::I16, false),
            NpyDtype::I32 => (DType::I32, false),
            NpyDtype::I64 => (DType::I64, false),
            NpyDtype::U8 => (DType::U8, false),
            NpyDtype::U16 => (DType::U16, false),
            NpyDtype::U32 => (DType::U32, false),
            NpyDtype::U64 => (DType::U64, false),
            NpyDtype::F16 => (DType::F16, false),
            NpyDtype::F32 => (DType::F32, false),
            NpyDtype::F64 => (DType::F64, false),
            NpyDtype::C64 => (DType::F32, true),
            NpyDtype::C128 => (DType::F64, true),
        };
        if complex {
            shape.push(2);
        }
        Tensor::from_bytes(dtype, &shape, &data).map_err(|error| DataError::Invalid(error.to_string()))
    }
}

impl TryFrom<&Tensor> for Array {
    type Error = DataError;

    fn try_from(tensor: &Tensor) -> Result<Array, DataError> {
        let dtype = match tensor.dtype() {
            DType::Bool => NpyDtype::Bool,
            DType::I8 | DType::I4 | DType::I2 => NpyDtype::I8,
            DType::I16 => NpyDtype::I16,
            DType::I32 => NpyDtype::I32,
            DType::I64 => NpyDtype::I64,
            DType::U8 | DType::U4 | DType::U2 => NpyDtype::U8,
            DType::U16 => NpyDtype::U16,
            DType::U32 => NpyDtype::U32,
            DType::U64 => NpyDtype::U64,
            DType::F16 => NpyDtype::F16,
            DType::F32 | DType::BF16 => NpyDtype::F32,
            DType::F64 => NpyDtype::F64,
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::Str => {
                let reason =
                    format!("NumPy has no {}; cast it to f32 in the model before it is written", tensor.dtype());
                return Err(DataError::unsupported(reason));
            }
        };
        let data = match tensor.dtype() {
            // A bfloat16 is the upper half of the float32 of the same value.
            DType::BF16 => tensor.bytes().chunks_exact(2).flat_map(|half| [0, 0, half[0], half[1]]).collect(),
            _ => tensor.bytes().to_vec(),
        };
        Array::new(dtype, tensor.shape().to_vec(), data)
    }
}

#[cfg(test)]
mod tests {
    //! Each element type, there and back.
    use super::*;

    #[test]
    fn numpy_types_round_trip() {
        for dtype in NpyDtype::ALL.iter().copied() {
            let data: Vec<u8> = (0..6 * dtype.size()).map(|at| (at % 2) as u8).collect();
            let array = Array::new(dtype, vec![2, 3], data).unwrap();
            let tensor = Tensor::try_from(array.clone()).unwrap();
            let complex = matches!(dtype, NpyDtype::C64 | NpyDtype::C128);
            assert_eq!(tensor.shape(), if complex { &[2, 3, 2][..] } else { &[2, 3] });
            assert_eq!(tensor.bytes(), array.data());
            if !complex {
                assert_eq!(Array::try_from(&tensor).unwrap(), array);
            }
        }
    }

    #[test]
    fn every_tensor_is_written_or_refused() {
        for dtype in DType::ALL.iter().copied().filter(|dtype| *dtype != DType::Str) {
            let tensor = Tensor::from_bytes(dtype, &[1], &vec![1; dtype.size()]).unwrap();
            match Array::try_from(&tensor) {
                Ok(array) => assert_eq!(array.shape(), [1]),
                Err(error) => assert!(error.to_string().contains(dtype.name()), "{error}"),
            }
        }
        let half = half::bf16::from_f32(-1.5);
        let tensor = Tensor::from_bytes(DType::BF16, &[1], &half.to_le_bytes()).unwrap();
        assert_eq!(Array::try_from(&tensor).unwrap().data(), (-1.5_f32).to_le_bytes());
        assert!(Array::try_from(&Tensor::from_strings(&[], vec!["text".into()]).unwrap()).is_err());
    }
}
