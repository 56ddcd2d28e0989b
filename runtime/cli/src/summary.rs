//! What a tensor holds, in a few numbers, as NumPy would print them.
//!
//! In: a tensor. Out: smallest, mean and largest element, the first few, each a [`Number`] that knows its type. A float
//! has the fewest digits that tell it from its neighbours in that type, at most [`DIGITS`], and an exponent where it is
//! very large or small; integers are written out. A NaN anywhere makes all three NaN; an empty tensor has none of them.

use std::fmt;

use frit_ir::types::Class;
use frit_ir::{DType, Tensor};

use crate::numbers::{from_f64s, to_f64s};

/// Significant digits that are shown of a float.
const DIGITS: usize = 8;
/// Floats from here on have an exponent.
const LARGE: f64 = 1e8;
/// Floats below this, too.
const SMALL: f64 = 1e-4;

/// An element, or the mean of some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// An integer of up to 64 bits.
    Int(i128),
    /// A truth value.
    Bool(bool),
    /// A float of this type.
    Float(f64, DType),
}

/// A tensor in few numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Smallest, mean and largest; `None` when there is no element.
    pub(crate) extremes: Option<(Number, Number, Number)>,
    /// The first elements.
    pub(crate) first: Vec<Number>,
}

impl Summary {
    /// Of all elements, `shown` of them in `first`; `None` for strings.
    pub(crate) fn of(tensor: &Tensor, shown: usize) -> Option<Summary> {
        let dtype = tensor.dtype();
        let ints: Vec<i128> = match dtype.class() {
            Class::Text => return None,
            Class::Float => return Some(Summary::of_floats(&to_f64s(tensor)?, dtype, shown)),
            Class::Unsigned if dtype == DType::U64 => tensor.to_vec::<u64>().into_iter().map(i128::from).collect(),
            Class::Unsigned | Class::Signed | Class::Bool => tensor.to_i64s()?.into_iter().map(i128::from).collect(),
        };
        let number = |v: i128| if dtype == DType::Bool { Number::Bool(v != 0) } else { Number::Int(v) };
        let mean = ints.iter().map(|v| *v as f64).sum::<f64>() / ints.len() as f64;
        let extremes = ints.iter().min().zip(ints.iter().max());
        let extremes = extremes.map(|(low, high)| (number(*low), Number::Float(mean, DType::F64), number(*high)));
        Some(Summary { extremes, first: ints.into_iter().take(shown).map(number).collect() })
    }

    fn of_floats(values: &[f64], dtype: DType, shown: usize) -> Summary {
        let number = |v: f64| Number::Float(v, dtype);
        // f64::min and f64::max pass over NaN; NumPy does not.
        let fold = |pick: fn(f64, f64) -> f64| {
            values.iter().copied().reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) })
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let extremes = fold(f64::min).zip(fold(f64::max));
        Summary {
            extremes: extremes.map(|(low, high)| (number(low), number(mean), number(high))),
            first: values.iter().copied().take(shown).map(number).collect(),
        }
    }
}

impl Number {
    /// As JSON takes it: exact up to 2^53.
    pub(crate) fn value(self) -> f64 {
        match self {
            Number::Int(v) => v as f64,
            Number::Bool(v) => f64::from(u8::from(v)),
            Number::Float(v, _) => v,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(v) => write!(f, "{v}"),
            Number::Bool(v) => f.write_str(if *v { "True" } else { "False" }),
            Number::Float(v, dtype) => f.write_str(&float(*v, *dtype)),
        }
    }
}

fn float(v: f64, dtype: DType) -> String {
    if v.is_nan() {
        return "nan".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = shortest(v, dtype);
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    // As it reads: an f32 that is called 0.0001 lies below it.
    let v = text.parse::<f64>().unwrap_or(v);
    if v == 0.0 || (SMALL..LARGE).contains(&v.abs()) {
        let places = digits.split_once('.').map_or(0, |(_, after)| after.len());
        let places = i32::try_from(places).unwrap_or(0) - exponent.parse::<i32>().unwrap_or(0);
        let text = format!("{:.*}", usize::try_from(places).unwrap_or(0), v);
        return if text.contains('.') { text } else { text + "." };
    }
    let digits = if digits.contains('.') { digits.to_owned() } else { format!("{digits}.") };
    match exponent.strip_prefix('-') {
        Some(below) => format!("{digits}e-{below:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

/// With an exponent, and as few digits as tell it from its neighbours of the type.
fn shortest(v: f64, dtype: DType) -> String {
    let typed = |v: f64| from_f64s(dtype, &[], std::iter::once(v));
    let wanted = typed(v);
    let same = |text: &String| text.parse().is_ok_and(|read| typed(read) == wanted);
    let mut tries = (0..DIGITS).map(|places| format!("{v:.places$e}"));
    tries.find(same).unwrap_or_else(|| format!("{v:.*e}", DIGITS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tensor: &Tensor) -> String {
        let s = Summary::of(tensor, 6).unwrap();
        let extremes = s.extremes.map_or(String::new(), |(a, b, c)| format!("{a} {b} {c}"));
        format!("{extremes}; {}", s.first.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn floats_read_as_in_numpy() {
        let cases = [
            (0.0, "0."),
            (-0.0, "-0."),
            (1.0, "1."),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.33333334"),
            (123_456.79, "123456.79"),
            (1e7, "10000000."),
            (1e8, "1.e+08"),
            (1e35, "1.e+35"),
            (-1.5e-7, "-1.5e-07"),
            (1e-4, "0.0001"),
            (f32::MAX, "3.4028235e+38"),
            (1e-45, "1.e-45"),
            (f32::NAN, "nan"),
            (f32::NEG_INFINITY, "-inf"),
        ];
        for (value, text) in cases {
            assert_eq!(Number::Float(f64::from(value), DType::F32).to_string(), text);
        }
        assert_eq!(Number::Float(0.099_975_585_937_5, DType::F16).to_string(), "0.1");
        assert_eq!(Number::Float(1.0 / 3.0, DType::F64).to_string(), "0.33333333");
        assert_eq!(Number::Float(1e300, DType::F64).to_string(), "1.e+300");
    }

    #[test]
    fn tensors_are_told_whole() {
        assert_eq!(shown(&Tensor::f32(&[0, 3], &[]).unwrap()), "; ");
        assert_eq!(shown(&Tensor::f32(&[3], &[1.0, f32::NAN, 2.0]).unwrap()), "nan nan nan; 1. nan 2.");
        assert_eq!(shown(&Tensor::f32(&[2], &[1e35, 3e35]).unwrap()), "1.e+35 2.e+35 3.e+35; 1.e+35 3.e+35");
        assert_eq!(shown(&Tensor::i64(&[2], &[i64::MIN, 4]).unwrap()).split(' ').next(), Some("-9223372036854775808"));
        let bools = Tensor::from_bytes(DType::Bool, &[2], &[0, 1]).unwrap();
        assert_eq!(shown(&bools), "False 0.5 True; False True");
        assert!(Summary::of(&Tensor::from_strings(&[1], vec!["a".into()]).unwrap(), 6).is_none());
    }
}
