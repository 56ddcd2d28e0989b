//! Elements of any type as f64: for summaries, comparisons and made-up inputs.

use frit_ir::types::Class;
use frit_ir::{DType, Tensor, convert, minifloat};

/// The elements as f64, exact but for 64-bit integers beyond 2^53; `None` for strings.
pub(crate) fn to_f64s(tensor: &Tensor) -> Option<Vec<f64>> {
    let dtype = tensor.dtype();
    match dtype.class() {
        Class::Text => None,
        Class::Signed | Class::Unsigned | Class::Bool => match dtype {
            DType::U64 => Some(tensor.to_vec::<u64>().into_iter().map(|v| v as f64).collect()),
            _ => tensor.to_i64s().map(|all| all.into_iter().map(|v| v as f64).collect()),
        },
        Class::Float => convert::to_f64s(tensor),
    }
}

/// A tensor of numbers that are rounded to its type; `None` for strings or when the count is not the shape's.
pub(crate) fn from_f64s(dtype: DType, shape: &[usize], values: impl Iterator<Item = f64>) -> Option<Tensor> {
    let mut bytes = Vec::new();
    for value in values {
        match (dtype, minifloat::encode(dtype, value, true)) {
            (DType::F32, _) => bytes.extend_from_slice(&(value as f32).to_le_bytes()),
            (_, Some(code)) => bytes.push(code),
            (_, None) => bytes.extend_from_slice(convert::scalar(dtype, value)?.bytes()),
        }
    }
    Tensor::from_bytes(dtype, shape, &bytes).ok()
}

/// How far two tensors are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// Largest |a - b|.
    pub(crate) absolute: f64,
    /// Largest |a - b| / |b|; a |b| below a hundredth of the largest counts as that, for nothing is relative to 0.
    pub(crate) relative: f64,
    /// Elements beyond `atol + rtol |b|`, or NaN on one side only.
    pub(crate) outside: usize,
}

/// Compares with a reference; `None` when types or shapes differ.
pub(crate) fn difference(found: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Option<Difference> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return None;
    }
    let mut all = Difference::default();
    let expected = to_f64s(expected)?;
    let floor = expected.iter().map(|b| b.abs()).filter(|b| b.is_finite()).fold(0.0, f64::max) / 100.0;
    for (a, b) in to_f64s(found)?.into_iter().zip(expected) {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let apart = (a - b).abs();
        // NaN and infinity are beyond every tolerance.
        let inside = apart <= atol + rtol * b.abs();
        if !inside {
            all.outside += 1;
        }
        all.absolute = all.absolute.max(if apart.is_nan() { f64::INFINITY } else { apart });
        let scale = b.abs().max(floor);
        if scale > 0.0 {
            all.relative = all.relative.max(apart / scale);
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_numeric_type_round_trips() {
        for dtype in DType::ALL.iter().copied().filter(|d| *d != DType::Str && *d != DType::F8E8M0) {
            let tensor = from_f64s(dtype, &[3], [0.0, 1.0, 1.0].into_iter()).unwrap();
            assert_eq!(to_f64s(&tensor).unwrap(), [0.0, 1.0, 1.0], "{dtype}");
        }
        assert!(from_f64s(DType::F32, &[2], [0.0].into_iter()).is_none());
    }

    #[test]
    fn differences_count_what_is_outside() {
        let of = |values: &[f32]| Tensor::f32(&[values.len()], values).unwrap();
        let apart = difference(&of(&[1.0, 2.5, f32::NAN]), &of(&[1.0, 2.0, 1.0]), 1e-3, 1e-7).unwrap();
        assert_eq!((apart.outside, apart.relative), (2, 0.25));
        assert_eq!(difference(&of(&[f32::NAN]), &of(&[f32::NAN]), 0.0, 0.0).unwrap(), Difference::default());
        assert!(difference(&of(&[1.0]), &of(&[1.0, 2.0]), 0.0, 0.0).is_none());
    }
}
