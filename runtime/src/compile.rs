//! Modules to models, and a runner that compiles for the inputs it meets.
//!
//! Most models compile once. Some compute shapes from the values of inputs; those are compiled with the values fixed,
//! and a guard of the plan refuses other values. An input that is declared without a shape gets that of its value. A [`Runner`] keeps a few such models and compiles another when none
//! fits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use frit_compiler::artifact;
use frit_compiler::driver::{self, CompileError, Times};
use frit_compiler::plan::build::KernelSource;
use frit_ir::{HostValue, Module, Op, Tensor, TensorType, Value, ValueType};
use frit_passes::legalize::LegalizeError;
use frit_passes::manager::{PassError, Report};

pub use frit_compiler::driver::Options as CompileOptions;

use crate::load::{LoadError, load_module};
use crate::session::{Model, RunError};

/// A model and how it came about.
#[derive(Debug)]
pub struct Compiled {
    /// Ready to run.
    pub model: Model,
    /// The module after all passes.
    pub module: Module,
    /// Every kernel's source.
    pub kernels: Vec<KernelSource>,
    /// What passes did.
    pub report: Report,
    /// What was not done, and why.
    pub remarks: Vec<String>,
    /// What stages took.
    pub times: Times,
    /// Inputs that must keep the values that it was compiled for.
    pub fixed: HashMap<String, Tensor>,
}

impl Model {
    /// Compiles a module.
    ///
    /// # Errors
    /// What a stage refuses; [`LoadError::NeedsValues`] when shapes depend on values of inputs.
    pub fn compile(module: Module, options: &CompileOptions) -> Result<Compiled, LoadError> {
        let compiled = driver::compile(module, options).map_err(refused)?;
        Ok(Compiled {
            model: Model::new(compiled.plan)?,
            module: compiled.module,
            kernels: compiled.kernels,
            report: compiled.report,
            remarks: compiled.remarks,
            times: compiled.times,
            fixed: options.fixed.clone(),
        })
    }

    /// Compiles a module for given inputs: those whose values shapes depend on are fixed.
    ///
    /// # Errors
    /// As [`Model::compile`]; [`LoadError::NeedsValues`] when a value that is needed is not given.
    pub fn compile_for(
        module: &Module,
        inputs: &[(&str, &HostValue)],
        options: &CompileOptions,
    ) -> Result<Compiled, LoadError> {
        let module = shaped(module, inputs);
        fixing(inputs, options, |options| Model::compile(module.as_ref().clone(), options))
            .map(|(compiled, _)| compiled)
    }

    /// Reads and compiles a file with default options. Code of a `.fritc` is not trusted; see
    /// [`Model::load_artifact`].
    ///
    /// # Errors
    /// As [`load_module`] and [`Model::compile`].
    pub fn load(path: impl AsRef<Path>) -> Result<Model, LoadError> {
        let path = path.as_ref();
        if path.extension().is_some_and(|e| e == "fritc") {
            return Model::load_artifact(path, false);
        }
        Ok(Model::compile(load_module(path)?, &CompileOptions::default())?.model)
    }
}

/// What the compiler refused, as the runtime says it.
pub(crate) fn refused(error: CompileError) -> LoadError {
    match error {
        CompileError::Pass(PassError::Legalize(LegalizeError::NeedsValues { inputs, node })) => {
            LoadError::NeedsValues { inputs, node }
        }
        other => LoadError::Compile(other),
    }
}

/// Inputs of a module's entry whose shape it leaves open.
fn shapeless(module: &Module) -> Vec<(Value, &str)> {
    let Some(f) = module.entry() else { return Vec::new() };
    let named = f.input_values().filter_map(|v| match f.op(v) {
        Op::Input { name, ty: ValueType::Unknown } => Some((v, name.as_str())),
        _ => None,
    });
    named.collect()
}

/// The module with the types of the given values for inputs that have no shape.
pub(crate) fn shaped<'m>(module: &'m Module, inputs: &[(&str, &HostValue)]) -> Cow<'m, Module> {
    let given = |(at, name): (Value, &str)| {
        let (_, value) = inputs.iter().find(|(given, _)| *given == name)?;
        Some((at, value.tensor()?.ty()))
    };
    let types: Vec<(Value, TensorType)> = shapeless(module).into_iter().filter_map(given).collect();
    let mut module = Cow::Borrowed(module);
    if !types.is_empty()
        && let Some(f) = module.to_mut().entry_mut()
    {
        types.into_iter().for_each(|(at, ty)| f.set_type(at, ty.into()));
    }
    module
}

/// Runs `attempt` with as many of the given inputs fixed as it takes; gives the options that it took too.
pub(crate) fn fixing<T>(
    inputs: &[(&str, &HostValue)],
    options: &CompileOptions,
    attempt: impl Fn(&CompileOptions) -> Result<T, LoadError>,
) -> Result<(T, CompileOptions), LoadError> {
    let mut options = options.clone();
    loop {
        let (needed, node) = match attempt(&options) {
            Ok(done) => return Ok((done, options)),
            Err(LoadError::NeedsValues { inputs, node }) => (inputs, node),
            Err(other) => return Err(other),
        };
        let before = options.fixed.len();
        for name in &needed {
            if let Some((_, HostValue::Tensor(value))) = inputs.iter().find(|(given, _)| given == name) {
                options.fixed.insert(name.clone(), value.clone());
            }
        }
        // Every round fixes another input, so this ends.
        if options.fixed.len() == before {
            return Err(LoadError::NeedsValues { inputs: needed, node });
        }
    }
}

impl Compiled {
    /// Writes plan, code, weights and module as one `.fritc` file.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write_artifact(&self, path: &Path) -> Result<(), LoadError> {
        artifact::write_file(self.model.plan(), &self.module, path)
            .map_err(|source| LoadError::Artifact { path: path.to_owned(), source })
    }
}

/// Models that a runner keeps.
const KEPT: usize = 4;

/// Runs a module with whatever inputs come, compiling as often as their values demand.
#[derive(Debug)]
pub struct Runner {
    module: Module,
    options: CompileOptions,
    /// Latest first.
    compiled: Vec<Compiled>,
}

impl Runner {
    /// A runner that has compiled nothing yet.
    pub fn new(module: Module, options: CompileOptions) -> Runner {
        Runner { module, options, compiled: Vec::new() }
    }

    /// Names of the inputs of the function that it runs.
    pub fn input_names(&self) -> Vec<String> {
        let Some(function) = self.module.entry() else { return Vec::new() };
        let name = |v| match function.op(v) {
            Op::Input { name, .. } => name.clone(),
            _ => String::new(),
        };
        function.input_values().map(name).collect()
    }

    /// The model for these inputs: one that is there, or a new one.
    ///
    /// # Errors
    /// As [`Model::compile_for`].
    pub fn model(&mut self, inputs: &[(&str, &HostValue)]) -> Result<&Compiled, LoadError> {
        let value = |name: &str| inputs.iter().find(|(given, _)| *given == name).and_then(|(_, v)| v.tensor());
        let shapeless: Vec<&str> = shapeless(&self.module).into_iter().map(|(_, name)| name).collect();
        let same_shapes = |c: &Compiled| {
            let ports = c.model.inputs().iter().filter(|port| shapeless.contains(&port.name.as_str()));
            ports.into_iter().all(|port| value(&port.name).is_none_or(|v| ValueType::from(v.ty()) == port.ty))
        };
        let fits = |c: &Compiled| {
            same_shapes(c)
                && c.fixed.iter().all(|(name, value)| {
                    inputs.iter().any(|(given, v)| given == name && v.tensor().is_some_and(|t| t == value))
                })
        };
        match self.compiled.iter().position(fits) {
            Some(at) => {
                let found = self.compiled.remove(at);
                self.compiled.insert(0, found);
            }
            None => {
                let new = Model::compile_for(&self.module, inputs, &self.options)?;
                self.compiled.truncate(KEPT - 1);
                self.compiled.insert(0, new);
            }
        }
        self.compiled.first().ok_or_else(|| RunError::Internal("no model".to_owned()).into())
    }

    /// Runs once, named values in, named values out.
    ///
    /// # Errors
    /// As [`Runner::model`] and [`crate::Context::run`].
    pub fn run(&mut self, inputs: &[(&str, &HostValue)]) -> Result<Vec<(String, HostValue)>, LoadError> {
        Ok(self.model(inputs)?.model.run_values(inputs)?)
    }
}
