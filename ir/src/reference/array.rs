//! Tensors as the evaluator works on them: f64, i128 or text elements under an element type and a shape.

use half::{bf16, f16};

use super::number::Rounding;
use crate::minifloat;
use crate::tensor::{Tensor, TensorError};
use crate::types::{Class, DType, TensorType};

/// Elements in row-major order. Floats of every type are exact in f64, integers and bools in i128.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f64>),
    Int(Vec<i128>),
    Text(Vec<String>),
}

/// A tensor at work. In wide mode the floats of an f32, f16 or bf16 array are not rounded to that type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

impl Array {
    pub(crate) fn ty(&self) -> TensorType {
        TensorType::known(self.dtype, &self.shape)
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Text(v) => v.len(),
        }
    }

    /// Floats that are brought to the type first.
    pub(crate) fn floats(rounding: Rounding, shape: Vec<usize>, values: impl IntoIterator<Item = f64>) -> Array {
        let data = Data::Float(values.into_iter().map(|v| rounding.apply(v)).collect());
        Array { dtype: rounding.dtype, shape, data }
    }

    /// Integers or bools that are wrapped to the type first.
    pub(crate) fn ints(dtype: DType, shape: Vec<usize>, values: impl IntoIterator<Item = i128>) -> Array {
        let data = Data::Int(values.into_iter().map(|v| super::number::wrap(dtype, v)).collect());
        Array { dtype, shape, data }
    }

    pub(crate) fn bools(shape: Vec<usize>, values: impl IntoIterator<Item = bool>) -> Array {
        Array::ints(DType::Bool, shape, values.into_iter().map(i128::from))
    }

    /// An i64 scalar.
    pub(crate) fn index(value: i64) -> Array {
        Array::ints(DType::I64, Vec::new(), [i128::from(value)])
    }

    /// Its integers or bools; empty for other types.
    pub(crate) fn as_ints(&self) -> &[i128] {
        match &self.data {
            Data::Int(v) => v,
            Data::Float(_) | Data::Text(_) => &[],
        }
    }

    /// Its numbers as floats.
    pub(crate) fn to_floats(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&i| i as f64).collect(),
            Data::Text(_) => Vec::new(),
        }
    }

    /// The first element as an integer; 0 where there is none.
    pub(crate) fn first_int(&self) -> i128 {
        self.as_ints().first().copied().unwrap_or(0)
    }

    /// The elements of both, one after the other, as one list.
    pub(crate) fn joined(arrays: &[&Array]) -> Array {
        let Some((first, rest)) = arrays.split_first() else {
            return Array { dtype: DType::Bool, shape: vec![0], data: Data::Int(Vec::new()) };
        };
        let mut data = first.data.clone();
        for array in rest {
            match (&mut data, &array.data) {
                (Data::Float(a), Data::Float(b)) => a.extend(b),
                (Data::Int(a), Data::Int(b)) => a.extend(b),
                (Data::Text(a), Data::Text(b)) => a.extend(b.iter().cloned()),
                // Kinds that differ are refused by the type rules.
                (Data::Float(_) | Data::Int(_) | Data::Text(_), _) => {}
            }
        }
        let mut all = Array { dtype: first.dtype, shape: Vec::new(), data };
        all.shape = vec![all.len()];
        all
    }

    /// The array of `shape` whose element at each index is this one's element number `source(index)`.
    pub(crate) fn pick(&self, shape: &[usize], mut source: impl FnMut(&[usize]) -> usize) -> Array {
        let mut from = Vec::new();
        for_each_index(shape, |index| from.push(source(index)));
        self.take(shape, &from)
    }

    /// The array of `shape` of the elements with these numbers.
    pub(crate) fn take(&self, shape: &[usize], from: &[usize]) -> Array {
        fn each<T: Clone + Default>(values: &[T], from: &[usize]) -> Vec<T> {
            from.iter().map(|&i| values.get(i).cloned().unwrap_or_default()).collect()
        }
        let data = match &self.data {
            Data::Float(v) => Data::Float(each(v, from)),
            Data::Int(v) => Data::Int(each(v, from)),
            Data::Text(v) => Data::Text(each(v, from)),
        };
        Array { dtype: self.dtype, shape: shape.to_vec(), data }
    }

    /// The same elements under another shape of as many.
    pub(crate) fn with_shape(&self, shape: Vec<usize>) -> Array {
        Array { shape, ..self.clone() }
    }

    pub(crate) fn from_tensor(t: &Tensor) -> Array {
        fn floats<T: bytemuck::AnyBitPattern>(t: &Tensor, value: impl Fn(T) -> f64) -> Data {
            Data::Float(t.to_vec::<T>().into_iter().map(value).collect())
        }
        fn ints<T: bytemuck::AnyBitPattern + Into<i128>>(t: &Tensor) -> Data {
            Data::Int(t.to_vec::<T>().into_iter().map(Into::into).collect())
        }
        let dtype = t.dtype();
        let data = match dtype {
            DType::F32 => floats(t, |v: f32| f64::from(v)),
            DType::F64 => floats(t, |v: f64| v),
            DType::F16 => floats(t, |v: u16| f64::from(f16::from_bits(v))),
            DType::BF16 => floats(t, |v: u16| f64::from(bf16::from_bits(v))),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                floats(t, |v: u8| minifloat::decode(dtype, v).unwrap_or(f64::NAN))
            }
            DType::I8 | DType::I4 | DType::I2 => ints::<i8>(t),
            DType::I16 => ints::<i16>(t),
            DType::I32 => ints::<i32>(t),
            DType::I64 => ints::<i64>(t),
            DType::U8 | DType::U4 | DType::U2 => ints::<u8>(t),
            DType::U16 => ints::<u16>(t),
            DType::U32 => ints::<u32>(t),
            DType::U64 => ints::<u64>(t),
            DType::Bool => Data::Int(t.to_vec::<u8>().into_iter().map(|v| i128::from(v != 0)).collect()),
            DType::Str => Data::Text(t.strings().unwrap_or(&[]).to_vec()),
        };
        Array { dtype, shape: t.shape().to_vec(), data }
    }

    /// The bytes of its elements; in wide mode f32, f16 and bf16 become f64.
    pub(crate) fn to_tensor(&self, wide: bool) -> Result<Tensor, TensorError> {
        let dtype = match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 if wide => DType::F64,
            other => other,
        };
        let bytes = match &self.data {
            Data::Text(v) => return Tensor::from_strings(&self.shape, v.clone()),
            Data::Float(v) => v.iter().flat_map(|&v| float_bytes(dtype, v)).collect::<Vec<u8>>(),
            // Two's complement: the low bytes are the narrow integer.
            Data::Int(v) => {
                let size = dtype.size();
                v.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect()
            }
        };
        Tensor::from_bytes(dtype, &self.shape, &bytes)
    }
}

/// Little-endian bytes of a value that its type holds exactly.
pub(super) fn float_bytes(dtype: DType, v: f64) -> Vec<u8> {
    match (dtype, minifloat::encode(dtype, v, false)) {
        (_, Some(code)) => vec![code],
        (DType::F32, None) => (v as f32).to_le_bytes().to_vec(),
        (DType::F16, None) => f16::from_f32(v as f32).to_le_bytes().to_vec(),
        (DType::BF16, None) => bf16::from_f32(v as f32).to_le_bytes().to_vec(),
        (_, None) => v.to_le_bytes().to_vec(),
    }
}

/// An array of `like`'s kind without elements.
pub(super) fn empty(dtype: DType, shape: Vec<usize>) -> Array {
    let data = match dtype.class() {
        Class::Float => Data::Float(Vec::new()),
        Class::Signed | Class::Unsigned | Class::Bool => Data::Int(Vec::new()),
        Class::Text => Data::Text(Vec::new()),
    };
    Array { dtype, shape, data }
}

/// Elements between neighbours along each axis of a dense row-major array.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// The number of an element.
pub(crate) fn flat(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// Calls `visit` with every index of a shape, in row-major order.
pub(crate) fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        visit(&index);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Element numbers relative to the first, over all indices along `axes` in row-major order of `axes`.
pub(crate) fn offsets(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let all = strides(shape);
    let extents: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
    let steps: Vec<usize> = axes.iter().map(|&a| all[a]).collect();
    let mut result = Vec::new();
    for_each_index(&extents, |index| result.push(flat(index, &steps)));
    result
}
