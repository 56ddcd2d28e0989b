//! A module with inputs, and every way to run it.
//!
//! In: a random seed, or a module. Out: values of a compiled run under given options, and the reference's values with a
//! bound of each element's error. A test says which runs it wants; errors come back as text, to be printed beside the
//! module.

use std::collections::BTreeMap;
use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_compiler::driver::{Options, compile};
use frit_ir::convert::to_f64s;
use frit_ir::reference::{Bounded, error_bound};
use frit_ir::testing::{self, Rng};
use frit_ir::{DType, Function, HostValue, Module, Op, Symbol, Tensor, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_runtime::{InputRef, Model};

/// Bytes that one buffer of a tested run may take.
const MEMORY_LIMIT: usize = 1 << 28;

/// A graph and what it is run on.
#[derive(Clone, Debug)]
pub struct Case {
    /// The graph.
    pub module: Module,
    /// One value an input, in order.
    pub inputs: Vec<HostValue>,
}

impl Case {
    /// The random module of a seed and size, on random inputs.
    ///
    /// # Errors
    /// The generator built what does not type-check: its bug.
    pub fn random(seed: u64, size: usize) -> Result<Case, String> {
        let module = testing::module(seed, size).map_err(|e| e.to_string())?;
        Case::fed(module, seed).ok_or_else(|| "an input that can't be fed".to_owned())
    }

    /// A module on random inputs; `None` when an input has no random data (see [`testing::inputs`]).
    pub fn fed(module: Module, seed: u64) -> Option<Case> {
        let mut rng = Rng::new(seed);
        let function = module.entry()?;
        let mut extents: BTreeMap<Symbol, i64> = testing::extents(&mut rng, function);
        // What no fact names.
        for value in function.input_values() {
            for dim in function.ty(value).tensor().iter().flat_map(|t| &t.dims) {
                dim.visit_symbols(&mut |s| _ = extents.entry(s.clone()).or_insert(3));
            }
        }
        let inputs = testing::inputs(&mut rng, function, &extents)?;
        Some(Case { inputs: inputs.into_iter().map(HostValue::Tensor).collect(), module })
    }

    /// A text that reads back as the module.
    pub fn text(&self) -> String {
        text::to_inline_text(&self.module)
    }

    /// The module compiled.
    ///
    /// # Errors
    /// What a stage refuses.
    pub fn compile(&self, level: Level, math: Math, vectors: Vectors) -> Result<Model, String> {
        let options = Options { level, math, vectors, ..Options::default() };
        let compiled = compile(self.module.clone(), &options).map_err(|e| format!("{level:?} {math:?}: {e}"))?;
        Model::new(compiled.plan).map_err(|e| e.to_string())
    }

    /// Compiles and runs.
    ///
    /// # Errors
    /// What a stage refuses, or the run meets.
    pub fn run(&self, level: Level, math: Math, vectors: Vectors, pool: &Arc<Pool>) -> Result<Vec<HostValue>, String> {
        self.run_on(&self.compile(level, math, vectors)?.with_pool(pool.clone()))
            .map_err(|e| format!("{level:?} {math:?} {vectors:?}: {e}"))
    }

    /// Runs a model of this module, or of what was made of it.
    ///
    /// # Errors
    /// What the run meets.
    pub fn run_on(&self, model: &Model) -> Result<Vec<HostValue>, String> {
        let mut context = model.context();
        context.set_memory_limit(MEMORY_LIMIT);
        let inputs: Vec<InputRef<'_>> = self.inputs.iter().map(InputRef::from).collect();
        context.run(&inputs).map_err(|e| e.to_string())?;
        (0..model.outputs().len())
            .map(|i| context.output(i).and_then(|o| o.to_host()).map_err(|e| e.to_string()))
            .collect()
    }

    /// The reference's values, each element with the most that compiled code may be off.
    ///
    /// # Errors
    /// The reference refuses the module or the inputs.
    pub fn bounds(&self, elementary_ulp: f64) -> Result<Vec<Bounded>, String> {
        let function = self.entry()?;
        error_bound(&self.module, function, &self.inputs, elementary_ulp).map_err(|e| format!("reference: {e}"))
    }

    fn entry(&self) -> Result<&Function, String> {
        self.module.entry().ok_or_else(|| "the module has no function".to_owned())
    }

    /// Names of the inputs.
    pub fn input_names(&self) -> Vec<String> {
        let Some(function) = self.module.entry() else { return Vec::new() };
        let name = |v| if let Op::Input { name, .. } = function.op(v) { name.clone() } else { String::new() };
        function.input_values().map(name).collect()
    }
}

/// Checks values against the reference: |found - expected| <= factor bound. Gives how many elements had a bound.
///
/// # Errors
/// The first element outside, with what was found and expected.
pub fn within(found: &[HostValue], expected: &[Bounded], factor: f64) -> Result<usize, String> {
    if found.len() != expected.len() {
        return Err(format!("{} outputs, expected {}", found.len(), expected.len()));
    }
    let mut checked = 0;
    for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (Some(f), Some(e)) = (found.tensor(), expected.value.tensor()) else {
            if found != &expected.value {
                return Err(format!("output {output}: {found:?}, expected {:?}", expected.value));
            }
            continue;
        };
        if f.shape() != e.shape() {
            return Err(format!("output {output}: shape {:?}, expected {:?}", f.shape(), e.shape()));
        }
        let wide = matches!(f.dtype(), DType::F32 | DType::F16 | DType::BF16) && e.dtype() == DType::F64;
        if f.dtype() != e.dtype() && !wide {
            return Err(format!("output {output}: type {}, expected {}", f.dtype(), e.dtype()));
        }
        let (Some(fs), Some(es)) = (numbers(f), numbers(e)) else {
            if f != e {
                return Err(format!("output {output}: values differ"));
            }
            continue;
        };
        for (i, ((found, wanted), bound)) in fs.iter().zip(&es).zip(&expected.error).enumerate() {
            if bound.is_infinite() {
                continue;
            }
            checked += 1;
            let same = found == wanted || (found.is_nan() && wanted.is_nan());
            let near = (found - wanted).abs() <= factor * bound;
            if !same && !near {
                return Err(format!(
                    "output {output}, element {i}: {found:e}, expected {wanted:e} within {:e} (off by {:e})",
                    factor * bound,
                    (found - wanted).abs()
                ));
            }
        }
    }
    Ok(checked)
}

/// The first output whose bits differ.
pub fn differing(a: &[HostValue], b: &[HostValue]) -> Option<usize> {
    (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))
}

/// Elements as f64: exact for the floats and for integers up to 2^53.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    if tensor.dtype().is_float() {
        return to_f64s(tensor);
    }
    if tensor.dtype() == DType::Bool {
        return Some(tensor.bytes().iter().map(|&b| f64::from(b)).collect());
    }
    Some(tensor.to_i64s()?.into_iter().map(|v| v as f64).collect())
}
