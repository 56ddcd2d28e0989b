//! Values against what is expected: the rule of NumPy's `allclose`, per element type.
//!
//! |found - expected| <= atol + rtol |expected| for floats, NaN equal to NaN, infinities to themselves; integers,
//! bools and strings exactly; types and shapes always.

use std::path::Path;

use frit_ir::convert::to_f64s;
use frit_ir::{DType, HostValue, Tensor};

/// How far floats may be from what is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative to the expected value.
    pub rtol: f64,
    /// In all cases.
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-7 }
    }
}

impl Tolerance {
    /// That of a case: its `data.json`, where it has one.
    ///
    /// # Errors
    /// A file that is no JSON object of numbers, in words.
    pub fn of_case(folder: &Path) -> Result<Tolerance, String> {
        let path = folder.join("data.json");
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Tolerance::default()) };
        let bad = || format!("{}: expected an object with numbers rtol and atol", path.display());
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|_| bad())?;
        let number = |key: &str, default: f64| match value.get(key) {
            None => Ok(default),
            Some(v) => v.as_f64().filter(|v| *v >= 0.0).ok_or_else(bad),
        };
        let Tolerance { rtol, atol } = Tolerance::default();
        Ok(Tolerance { rtol: number("rtol", rtol)?, atol: number("atol", atol)? })
    }

    fn of(self, dtype: DType) -> Tolerance {
        match dtype {
            DType::BF16 => Tolerance { rtol: self.rtol.max(2f64.powi(-6)), ..self },
            _ => self,
        }
    }
}

/// Compares a value with what is expected; the text says where they differ first.
///
/// # Errors
/// A description of the difference.
pub fn compare(found: &HostValue, expected: &HostValue, tolerance: &Tolerance) -> Result<(), String> {
    match (found, expected) {
        (HostValue::Tensor(found), HostValue::Tensor(expected)) => compare_tensors(found, expected, tolerance),
        (HostValue::Sequence(found), HostValue::Sequence(expected)) => {
            if found.len() != expected.len() {
                return Err(format!("a sequence of {}, expected {}", found.len(), expected.len()));
            }
            let mut pairs = found.iter().zip(expected).enumerate();
            pairs.try_for_each(|(i, (f, e))| compare(f, e, tolerance).map_err(|m| format!("element {i}: {m}")))
        }
        (HostValue::Optional(Some(found)), HostValue::Optional(Some(expected))) => compare(found, expected, tolerance),
        (HostValue::Optional(None), HostValue::Optional(None)) => Ok(()),
        (HostValue::Map(found), HostValue::Map(expected)) => {
            if !found.keys().eq(expected.keys()) {
                return Err("other keys".to_owned());
            }
            let mut pairs = found.values().zip(expected.iter());
            pairs.try_for_each(|(f, (key, e))| compare(f, e, tolerance).map_err(|m| format!("key {key:?}: {m}")))
        }
        (found, expected) => Err(format!("{}, expected {}", found.kind(), expected.kind())),
    }
}

fn compare_tensors(found: &Tensor, expected: &Tensor, tolerance: &Tolerance) -> Result<(), String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Err(format!(
            "{}{:?}, expected {}{:?}",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    if found == expected {
        return Ok(());
    }
    if !found.dtype().is_float() {
        return Err(format!("{} values differ", found.dtype()));
    }
    let Tolerance { rtol, atol } = tolerance.of(found.dtype());
    let (Some(found), Some(expected)) = (to_f64s(found), to_f64s(expected)) else {
        return Err(format!("{} values differ", found.dtype()));
    };
    let close = |f: f64, e: f64| {
        // An infinite bound would admit anything.
        f == e || (f.is_nan() && e.is_nan()) || (e.is_finite() && (f - e).abs() <= atol + rtol * e.abs())
    };
    let wrong: Vec<usize> =
        found.iter().zip(&expected).enumerate().filter(|(_, (f, e))| !close(**f, **e)).map(|(i, _)| i).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&first) => Err(format!(
            "{} of {} elements differ, the first at {first}: {} instead of {}",
            wrong.len(),
            found.len(),
            found[first],
            expected[first]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> HostValue {
        Tensor::f32(&[values.len()], values).unwrap().into()
    }

    #[test]
    fn floats_are_close_and_nan_is_nan() {
        let tolerance = Tolerance::default();
        let expected = f32s(&[1.0, f32::NAN, f32::INFINITY]);
        assert!(compare(&f32s(&[1.0005, f32::NAN, f32::INFINITY]), &expected, &tolerance).is_ok());
        for wrong in [[1.002, f32::NAN, f32::INFINITY], [1.0, 0.0, f32::INFINITY], [1.0, f32::NAN, f32::MAX]] {
            assert!(compare(&f32s(&wrong), &expected, &tolerance).is_err(), "{wrong:?}");
        }
        assert!(compare(&f32s(&[f32::NAN]), &f32s(&[1.0]), &tolerance).is_err());
    }

    #[test]
    fn types_shapes_and_integers_are_exact() {
        let tolerance = Tolerance::default();
        let ints = |v: &[i64]| HostValue::Tensor(Tensor::i64(&[v.len()], v).unwrap());
        assert!(compare(&ints(&[100_000]), &ints(&[100_000]), &tolerance).is_ok());
        assert!(compare(&ints(&[100_001]), &ints(&[100_000]), &tolerance).is_err());
        assert!(compare(&ints(&[1]), &f32s(&[1.0]), &tolerance).is_err());
        assert!(compare(&f32s(&[1.0, 1.0]), &f32s(&[1.0]), &tolerance).is_err());
        let list = HostValue::Sequence(vec![f32s(&[1.0])]);
        assert!(compare(&list, &list, &tolerance).is_ok());
        assert!(compare(&list, &HostValue::Sequence(vec![]), &tolerance).is_err());
    }
}
