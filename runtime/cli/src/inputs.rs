//! Values of a model's inputs: from files, from a test case's first data set, or made from a seed.
//!
//! In: the model's inputs (names and types), flags, the case's folder. Out: one value for each input, in order, and for
//! each whether it was made up. Symbolic extents are those of the values given; what no value fixes is 1.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use frit_ir::testing::Rng;
use frit_ir::{DType, HostValue, Symbol, Tensor, ValueType, onnx};
use frit_runtime::data::{npy, npz};

use crate::args::InputFlags;
use crate::engine::Given;
use crate::error::{CliError, Done};
use crate::numbers::from_f64s;

/// Elements that a made-up input may have.
pub(crate) const MADE_LIMIT: usize = 1 << 30;

/// Name and type of each input.
pub(crate) type Ports = [(String, ValueType)];

/// An input's value and where it came from.
pub(crate) struct Bound {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: HostValue,
    /// Made from the seed.
    pub(crate) made: bool,
}

/// Values that files hold: those of `--input`, else of the case's first data set.
pub(crate) fn given(ports: &Ports, flags: &InputFlags, case: Option<&Path>) -> Done<Given> {
    if flags.inputs.is_empty() {
        return match case {
            Some(folder) => data_set(&folder.join("test_data_set_0"), ports),
            None => Ok(Given::new()),
        };
    }
    let mut values = Given::new();
    for (name, file) in &flags.inputs {
        let Some((_, ty)) = ports.iter().find(|(n, _)| n == name) else {
            let known: Vec<String> = ports.iter().map(|(n, _)| format!("`{n}`")).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            let message = format!("--input {name}={}: the model has no input `{name}`", file.display());
            return Err(CliError::usage(message, format!("inputs: {known}")));
        };
        if values.iter().any(|(n, _)| n == name) {
            return Err(CliError::usage(format!("--input {name} is given twice"), "give each input once"));
        }
        values.push((name.clone(), read(name, ty, file)?));
    }
    Ok(values)
}

/// Inputs of a data set: `input_0.pb` and so on, in the order of the model's inputs.
fn data_set(folder: &Path, ports: &Ports) -> Done<Given> {
    let mut values = Given::new();
    for (index, (name, ty)) in ports.iter().enumerate() {
        let file = folder.join(format!("input_{index}.pb"));
        if file.is_file() {
            values.push((name.clone(), read(name, ty, &file)?));
        }
    }
    Ok(values)
}

fn read(name: &str, ty: &ValueType, file: &Path) -> Done<HostValue> {
    let tensor = |array: npy::Array| Tensor::try_from(array).map(HostValue::Tensor).map_err(CliError::from);
    let value = match file.extension().and_then(|e| e.to_str()) {
        Some("npy") => tensor(npy::read_file(file)?),
        Some("npz") => {
            let mut arrays = npz::read_file(file)?;
            let names: Vec<String> = arrays.iter().map(|(n, _)| format!("`{n}`")).collect();
            match arrays.iter().position(|(n, _)| n == name) {
                Some(at) => tensor(arrays.swap_remove(at).1),
                None => {
                    let message = format!("{}: holds no array `{name}`", file.display());
                    return Err(CliError::failed(message, format!("it holds {}", names.join(", "))));
                }
            }
        }
        Some("pb") => {
            let bytes = std::fs::read(file).map_err(|e| CliError::file(file, &e))?;
            onnx::read_value(&bytes, ty).map_err(CliError::from)
        }
        _ => {
            let message = format!("input `{name}`: {} is neither .npy, .npz nor .pb", file.display());
            return Err(CliError::failed(message, "save it with numpy.save, numpy.savez or as an ONNX TensorProto"));
        }
    };
    value.map_err(|e| e.in_file(file))
}

/// Given values, and seeded ones for all other inputs; `dims` are extents of symbols that the model still has.
pub(crate) fn complete(ports: &Ports, given: Given, dims: &[(String, usize)], seed: u64) -> Done<Vec<Bound>> {
    let symbols = symbols_of(ports, &given, dims)?;
    let mut given: HashMap<String, HostValue> = given.into_iter().collect();
    let mut rng = Rng::new(seed);
    let mut bound = Vec::with_capacity(ports.len());
    for (name, ty) in ports {
        let (value, made) = match given.remove(name) {
            Some(value) => (value, false),
            None => (make(name, ty, &symbols, &mut rng)?, true),
        };
        bound.push(Bound { name: name.clone(), value, made });
    }
    Ok(bound)
}

/// Extents that `dims` and the given values fix.
fn symbols_of(ports: &Ports, given: &Given, dims: &[(String, usize)]) -> Done<HashMap<Symbol, i64>> {
    let named = |s: &Symbol| dims.iter().find(|(name, _)| name == s.name()).and_then(|(_, n)| i64::try_from(*n).ok());
    let mut symbols = HashMap::new();
    for dim in ports.iter().filter_map(|(_, ty)| ty.tensor()).flat_map(|ty| &ty.dims) {
        dim.visit_symbols(&mut |s| symbols.extend(named(s).map(|n| (s.clone(), n))));
    }
    for (name, value) in given {
        let ty = ports.iter().find(|(n, _)| n == name).and_then(|(_, ty)| ty.tensor());
        let (Some(ty), Some(tensor)) = (ty, value.tensor()) else { continue };
        for (dim, extent) in ty.dims.iter().zip(tensor.shape()) {
            if let (Some(symbol), Ok(extent)) = (dim.as_symbol(), i64::try_from(*extent)) {
                if let Some(said) = named(symbol).filter(|said| *said != extent) {
                    let message = format!("input `{name}` has {symbol} = {extent}, --dim says {said}");
                    return Err(CliError::failed(message, "give one of them, or both alike"));
                }
                symbols.entry(symbol.clone()).or_insert(extent);
            }
        }
    }
    Ok(symbols)
}

/// A value of a type: floats uniform in [-1, 1), integers 0 or 1 (they may be positions or lengths), strings `a` or `b`.
fn make(name: &str, ty: &ValueType, symbols: &HashMap<Symbol, i64>, rng: &mut Rng) -> Done<HostValue> {
    let ty = match ty {
        ValueType::Tensor(ty) => ty,
        ValueType::Optional(_) => return Ok(HostValue::Optional(None)),
        ValueType::Sequence(_) | ValueType::Map(..) | ValueType::Unknown => {
            let message = format!("input `{name}` is {ty}: no value can be made up for it");
            return Err(CliError::failed(message, format!("give one with --input {name}=FILE.pb")));
        }
    };
    let lookup = |s: &Symbol| Some(symbols.get(s).copied().unwrap_or(1));
    let shape: Option<Vec<usize>> = ty.dims.iter().map(|d| usize::try_from(d.eval(&lookup)?).ok()).collect();
    let shape = shape.ok_or_else(|| {
        let message = format!("input `{name}` ({ty}): its shape can't be chosen");
        CliError::failed(message, format!("give a value with --input {name}=FILE.npy"))
    })?;
    let count = frit_ir::tensor::checked_numel(&shape).filter(|n| *n <= MADE_LIMIT).ok_or_else(|| {
        let message = format!("input `{name}`: a value of shape {shape:?} is too large to make up");
        CliError::failed(message, "choose smaller extents with --dim NAME=N, or give a value with --input")
    })?;
    let made = match ty.dtype {
        DType::Str => {
            let texts = (0..count).map(|_| if rng.below(2) == 0 { "a" } else { "b" }.to_owned()).collect();
            Tensor::from_strings(&shape, texts).ok()
        }
        float if float.is_float() => from_f64s(float, &shape, (0..count).map(|_| rng.signed_unit())),
        other => from_f64s(other, &shape, (0..count).map(|_| rng.below(2) as f64)),
    };
    let made = made.ok_or_else(|| CliError::internal(format!("input `{name}` ({ty}) can't be made up")))?;
    Ok(HostValue::Tensor(made))
}

/// A line for each input: name, type, shape, where it came from.
pub(crate) fn describe(bound: &[Bound], seed: u64) -> Vec<String> {
    let line = |b: &Bound| {
        let from = if b.made { format!("made from seed {seed}") } else { "given".to_owned() };
        match b.value.tensor() {
            Some(t) => format!("input  {}: {} {:?}, {from}", b.name, t.dtype(), t.shape()),
            None => format!("input  {}: {}, {from}", b.name, b.value.kind()),
        }
    };
    bound.iter().map(line).collect()
}

/// What goes wrong before any input is read: kept apart so that commands fail before they compile.
pub(crate) fn check_files(flags: &InputFlags) -> Done {
    let missing = |(_, file): &&(String, PathBuf)| !file.is_file();
    match flags.inputs.iter().find(missing) {
        Some((name, file)) => {
            let what = if file.is_dir() { "is a folder" } else { "no such file" };
            Err(CliError::failed(format!("input `{name}`: {}: {what}", file.display()), "check the path of --input"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use frit_ir::{Dim, TensorType};

    use super::*;

    fn port(name: &str, dtype: DType, dims: &[Dim]) -> (String, ValueType) {
        (name.to_owned(), TensorType::new(dtype, dims).into())
    }

    #[test]
    fn given_values_fix_symbols_and_the_rest_is_one() {
        let ports = [
            port("x", DType::F32, &[Dim::symbol("n"), Dim::from(3_usize)]),
            port("y", DType::I64, &[Dim::symbol("n")]),
            port("z", DType::F16, &[Dim::symbol("m")]),
        ];
        let x = Tensor::f32(&[4, 3], &[0.5; 12]).unwrap();
        let bound = complete(&ports, vec![("x".to_owned(), x.into())], &[], 7).unwrap();
        let shapes: Vec<_> = bound.iter().map(|b| (b.made, b.value.tensor().unwrap().shape().to_vec())).collect();
        assert_eq!(shapes, [(false, vec![4, 3]), (true, vec![4]), (true, vec![1])]);
    }

    #[test]
    fn a_seed_gives_the_same_values_again() {
        let ports = [port("x", DType::F32, &[Dim::from(5_usize)])];
        let made = |seed| complete(&ports, Given::new(), &[], seed).unwrap()[0].value.clone();
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }
}
