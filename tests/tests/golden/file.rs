//! A golden file as named tensors.

use std::collections::BTreeMap;
use std::path::Path;

use frit_ir::convert::to_f64s;
use frit_ir::{DType, Tensor};
use frit_runtime::data::npz;

/// Tensors by name.
pub(crate) type Case = BTreeMap<String, Tensor>;

/// Reads every array of a file.
pub(crate) fn read(path: &Path) -> Result<Case, String> {
    let arrays = npz::read_file(path).map_err(|e| e.to_string())?;
    let tensors = arrays.into_iter().map(|(name, array)| Ok((name, Tensor::try_from(array)?)));
    tensors.collect::<Result<Case, frit_runtime::data::DataError>>().map_err(|e| e.to_string())
}

/// A float tensor as f32, whatever precision it is stored in.
pub(crate) fn single(tensor: &Tensor) -> Result<Tensor, String> {
    if tensor.dtype() == DType::F32 {
        return Ok(tensor.clone());
    }
    let values = to_f64s(tensor).ok_or_else(|| format!("a float tensor was expected, not {}", tensor.ty()))?;
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    Tensor::f32(tensor.shape(), &values).map_err(|e| e.to_string())
}

/// The largest magnitude; 0 of none.
pub(crate) fn largest(tensor: &Tensor) -> f64 {
    to_f64s(tensor).unwrap_or_default().into_iter().map(f64::abs).fold(0.0, f64::max)
}

/// Says where `found` is further from `expected` than `relative` of its largest element, or than `floor`.
pub(crate) fn differs(found: &Tensor, expected: &Tensor, relative: f64, floor: f64) -> Option<String> {
    if found.shape() != expected.shape() {
        return Some(format!("shape {:?}, expected {:?}", found.shape(), expected.shape()));
    }
    let (Some(f), Some(e)) = (to_f64s(found), to_f64s(expected)) else {
        return Some(format!("{} against {}", found.ty(), expected.ty()));
    };
    let limit = (relative * largest(expected)).max(floor);
    let off = |f: f64, e: f64| if f.is_nan() && e.is_nan() || f == e { 0.0 } else { (f - e).abs() };
    let worst = f.iter().zip(&e).enumerate().map(|(i, (&f, &e))| (i, f, e, off(f, e)));
    // What is no number is further than any.
    let rank = |d: f64| if d.is_nan() { f64::INFINITY } else { d };
    let (i, f, e, distance) = worst.max_by(|a, b| rank(a.3).total_cmp(&rank(b.3)))?;
    (distance.is_nan() || distance > limit)
        .then(|| format!("element {i} is {f}, expected {e}; {distance:.1e} apart, allowed {limit:.1e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_told() {
        let t = |values: &[f32]| Tensor::f32(&[values.len()], values).unwrap();
        assert_eq!(differs(&t(&[1.0, -100.0]), &t(&[1.009, -100.0]), 1e-4, 0.0), None);
        assert!(differs(&t(&[1.0, -100.0]), &t(&[1.011, -100.0]), 1e-4, 0.0).unwrap().starts_with("element 0"));
        assert!(differs(&t(&[1.0, f32::NAN]), &t(&[1.0, 2.0]), 1e-4, 0.0).unwrap().starts_with("element 1"));
        assert!(differs(&t(&[f32::INFINITY]), &t(&[2.0]), 1e-4, 0.0).is_some());
        assert_eq!(differs(&t(&[f32::NAN]), &t(&[f32::NAN]), 1e-4, 0.0), None);
        assert!(differs(&t(&[1.0]), &t(&[1.0, 1.0]), 1e-4, 0.0).is_some());
        assert_eq!(differs(&t(&[1e-8]), &t(&[0.0]), 1e-4, 1e-7), None);
    }
}
