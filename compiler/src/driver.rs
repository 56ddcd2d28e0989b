//! One call from a module to a plan: passes, kernels, machine code.
//!
//! In: a module as imported or read, and [`Options`]. Out: [`Compiled`]: the plan, the module after all passes, every
//! kernel's source, what each stage took and what it could not do. Whoever embeds frit calls this through the runtime;
//! tests and the command call it directly.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use frit_ir::substitute::substitute;
use frit_ir::verify::{Invariant, VerifyError, verify};
use frit_ir::{Dim, Donation, Function, Module, Numerics, Op, Tensor, ValueType};
use frit_passes::manager::{self, Level, Math, PassError, Pipeline, Report};

use crate::cpu::abi::KernelCode;
use crate::cpu::{CodeError, CodeOptions, Vectors};
use crate::generate::{Generated, generate};
use crate::plan::Plan;
use crate::plan::build::{BuildError, Built, GenerateAll, KernelSource, build_all};

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much is done.
    pub level: Level,
    /// How far arithmetic may depart from what is written.
    pub math: Math,
    /// A pipeline as text instead of the level's.
    pub passes: Option<String>,
    /// Verify after every pass.
    pub verify_each: bool,
    /// Rewrites that may be made.
    pub fuel: Option<u64>,
    /// Where to write what every pass did.
    pub dump_dir: Option<PathBuf>,
    /// Extents of symbols, by name.
    pub dims: Vec<(String, usize)>,
    /// Values of inputs that the plan may rely on; a run checks them.
    pub fixed: HashMap<String, Tensor>,
    /// State of the entry function, beside what the module marks: an input and the output that follows it, by name.
    pub state: Vec<(String, String)>,
    /// How the innermost loops run as vectors.
    pub vectors: Vectors,
    /// Threads that generate code; `None`: as many as the machine has. What they make does not depend on it.
    pub threads: Option<usize>,
}

#[allow(clippy::derivable_impls, reason = "only in release builds: debug builds verify")]
impl Default for Options {
    fn default() -> Self {
        Options {
            level: Level::default(),
            math: Math::default(),
            passes: None,
            verify_each: cfg!(debug_assertions),
            fuel: None,
            dump_dir: None,
            dims: Vec::new(),
            fixed: HashMap::new(),
            state: Vec::new(),
            vectors: Vectors::default(),
            threads: None,
        }
    }
}

/// What stages took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// All passes.
    pub passes: Duration,
    /// Lowering to loop IR and laying out the plan.
    pub plan: Duration,
    /// Machine code.
    pub code: Duration,
}

impl Times {
    /// From the module to runnable code.
    pub fn total(&self) -> Duration {
        self.passes + self.plan + self.code
    }
}

/// A compiled module and how it came about.
#[derive(Debug)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// The module after all passes.
    pub module: Module,
    /// Every kernel's source.
    pub kernels: Vec<KernelSource>,
    /// What passes did.
    pub report: Report,
    /// What was not done, and why: fusions taken apart, loops that are not vectors.
    pub remarks: Vec<String>,
    /// What stages took.
    pub times: Times,
}

/// Why a module can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A pass failed or refused.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// No plan.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No code generator for this machine.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// An extent that the model does not have.
    #[error("the model has no symbolic extent `{name}`; it has {known}")]
    UnknownDim {
        /// The name given.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// State by a name that the model does not have.
    #[error("the model has no {what} `{name}` to be state; it has {known}")]
    UnknownState {
        /// Input or output.
        what: &'static str,
        /// The name given.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// An input and an output that are no state.
    #[error("as state: {0}")]
    State(VerifyError),
}

impl CompileError {
    /// Whether it is a bug of frit, not of the model or the caller.
    pub fn is_internal(&self) -> bool {
        match self {
            CompileError::Pass(e) => e.is_internal(),
            CompileError::Build(e) => e.is_internal(),
            CompileError::Code(CodeError::Internal { .. } | CodeError::Invalid { .. }) => true,
            CompileError::Code(_)
            | CompileError::UnknownDim { .. }
            | CompileError::UnknownState { .. }
            | CompileError::State(_) => false,
        }
    }
}

/// The passes that `options` ask for, and `canonicalize` where their text leaves it out.
///
/// # Errors
/// A text that is no pipeline.
pub fn pipeline(options: &Options) -> Result<Pipeline, CompileError> {
    Ok(match &options.passes {
        Some(text) => Pipeline::parse(text)?.with_required(),
        None => Pipeline::of(options.level),
    })
}

/// Extents and state set, passes run: a module's way as far as it is independent of machines.
///
/// # Errors
/// What a pass refuses.
pub fn run_passes(module: &mut Module, pipeline: &Pipeline, options: &Options) -> Result<Report, CompileError> {
    set_dims(module, &options.dims)?;
    set_state(module, &options.state)?;
    let pass_options = manager::Options {
        math: options.math,
        fuel: options.fuel,
        verify_each: options.verify_each,
        dump_dir: options.dump_dir.clone(),
        fixed: options.fixed.clone(),
    };
    let report = manager::run(module, pipeline, &pass_options).map_err(|error| match error {
        PassError::Verify { source, .. } if mistaken_state(&source) && !options.state.is_empty() => {
            CompileError::State(source)
        }
        other => other.into(),
    })?;
    // Types are known only now.
    if let Err(error) = if options.state.is_empty() { Ok(()) } else { verify(module) }
        && mistaken_state(&error)
    {
        return Err(CompileError::State(error));
    }
    Ok(report)
}

/// Compiles a module.
pub fn compile(mut module: Module, options: &Options) -> Result<Compiled, CompileError> {
    let start = Instant::now();
    let report = run_passes(&mut module, &pipeline(options)?, options)?;
    let passes = start.elapsed();

    let start = Instant::now();
    let (mut code_time, mut loops, mut schedules) = (Duration::ZERO, Vec::new(), Vec::new());
    let mut code_options = CodeOptions::host()?;
    code_options.vectors = options.vectors;
    let mut compile_all = |kernels: &[KernelSource]| {
        let begin = Instant::now();
        let generated = generate(kernels, &code_options, options.threads);
        code_time = begin.elapsed();
        let mut keep = |generated: Generated| {
            loops.extend(generated.remarks);
            schedules.push(generated.schedule);
            generated.code
        };
        generated.into_iter().map(|g| g.map(&mut keep)).collect()
    };
    let mut built = build(&module, options, &mut compile_all)?;
    // Every kernel has code by now: its source shows the schedule that the code follows.
    for (kernel, schedule) in built.kernels.iter_mut().zip(schedules) {
        kernel.schedule = schedule;
    }
    let plan_time = start.elapsed().saturating_sub(code_time);
    let remarks = built.remarks.into_iter().chain(loops).collect();
    let times = Times { passes, plan: plan_time, code: code_time };
    Ok(Compiled { plan: built.plan, module, kernels: built.kernels, report, remarks, times })
}

/// The plan of a module without machine code: what is run, in which order, in how much memory. It can't be run.
///
/// # Errors
/// As [`compile`].
pub fn plan(mut module: Module, options: &Options) -> Result<Plan, CompileError> {
    run_passes(&mut module, &pipeline(options)?, options)?;
    let mut no_code = |kernels: &[KernelSource]| kernels.iter().map(|_| Ok(KernelCode::default())).collect();
    Ok(build(&module, options, &mut no_code)?.plan)
}

fn build(module: &Module, options: &Options, generate: &mut GenerateAll<'_>) -> Result<Built, CompileError> {
    let fixed: Vec<(String, Tensor)> = options.fixed.iter().map(|(n, t)| (n.clone(), t.clone())).collect();
    let numerics = options.math.numerics().unwrap_or_else(|| written(module));
    Ok(build_all(module, numerics, &fixed, generate)?)
}

/// What every op of the module allows.
fn written(module: &Module) -> Numerics {
    fn all(f: &Function, seen: &mut Option<Numerics>) {
        for id in f.nodes() {
            let node = f.node(id);
            node.regions().iter().for_each(|region| all(region, seen));
            if node.op.takes_numerics() {
                *seen = Some(seen.map_or(node.numerics, |seen| seen.meet(node.numerics)));
            }
        }
    }
    let mut seen = None;
    module.functions.values().for_each(|f| all(f, &mut seen));
    seen.unwrap_or(Numerics::STRICT)
}

/// Whether a module breaks no invariant but that of donations.
fn mistaken_state(error: &VerifyError) -> bool {
    error.more == 0 && error.findings.iter().all(|f| f.invariant == Invariant::V13)
}

/// Marks inputs and outputs of the entry function as state.
fn set_state(module: &mut Module, state: &[(String, String)]) -> Result<(), CompileError> {
    let Some(entry) = module.entry().filter(|_| !state.is_empty()) else { return Ok(()) };
    let input_name = |v| match entry.op(v) {
        Op::Input { name, .. } => name.clone(),
        _ => String::new(),
    };
    let inputs: Vec<String> = entry.input_values().map(input_name).collect();
    let outputs: Vec<String> = entry.outputs().iter().map(|o| o.name.clone()).collect();
    let find = |what: &'static str, names: &[String], name: &str| {
        names.iter().position(|n| n == name).ok_or_else(|| CompileError::UnknownState {
            what,
            name: name.to_owned(),
            known: names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
        })
    };
    let mut donations = Vec::new();
    for (from, to) in state {
        let (input, output) = (find("input", &inputs, from)?, find("output", &outputs, to)?);
        donations.push(Donation { input, output });
    }
    let name = entry.name.clone();
    if let Some(entry) = module.functions.get_mut(&name) {
        donations.retain(|d| !entry.donations.contains(d));
        entry.donations.extend(donations);
    }
    Ok(())
}

/// Whether inputs of these types have all the symbols that `dims` gives extents.
///
/// # Errors
/// The first symbol that they don't have.
pub fn check_dims<'t>(
    inputs: impl IntoIterator<Item = &'t ValueType>,
    dims: &[(String, usize)],
) -> Result<(), CompileError> {
    let mut known: Vec<String> = Vec::new();
    for dim in inputs.into_iter().filter_map(ValueType::tensor).flat_map(|ty| &ty.dims) {
        dim.visit_symbols(&mut |s| {
            if !known.iter().any(|k| k == s.name()) {
                known.push(s.name().to_owned());
            }
        });
    }
    match dims.iter().find(|(name, _)| !known.contains(name)) {
        Some((name, _)) => {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(CompileError::UnknownDim { name: name.clone(), known })
        }
        None => Ok(()),
    }
}

/// Gives symbols their extents, everywhere a type names them.
fn set_dims(module: &mut Module, dims: &[(String, usize)]) -> Result<(), CompileError> {
    if dims.is_empty() {
        return Ok(());
    }
    let inputs = module.functions.values().flat_map(|f| f.input_values().map(|value| f.ty(value)));
    check_dims(inputs, dims)?;
    for function in module.functions.values_mut() {
        substitute(function, &|s| dims.iter().find(|(n, _)| n == s.name()).map(|(_, v)| Dim::from(*v)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use frit_ir::text::{NoConstants, from_text};

    use super::*;
    use crate::schedule::Directive;

    #[test]
    fn kernels_of_a_module_as_written_are_fast_only_when_all_ops_may_be() {
        let text = |first: &str| {
            format!(
                "frit 1\nfunc @infer(%x \"x\": f32[64]) {{\n  %y = exp(%x){first}\n  \
                 %z = tanh(%y) math(contract, reassociate, approximate)\n  return \"z\" = %z\n}}\n"
            )
        };
        for (first, fast) in [(" math(approximate)", true), ("", false)] {
            let options = Options { math: Math::AsWritten, ..Options::default() };
            let compiled = compile(from_text(&text(first), &NoConstants).unwrap(), &options).unwrap();
            assert!(compiled.kernels.iter().all(|k| k.kernel.fast == fast), "{first}");
        }
    }

    #[test]
    fn state_is_named_or_refused() {
        let text =
            "frit 1\nfunc @infer(%s \"s\": f32[N], %t \"t\": i64[N]) {\n  %y = exp(%s)\n  return \"y\" = %y\n}\n";
        let module = from_text(text, &NoConstants).unwrap();
        let with = |from: &str, to: &str, verify_each| {
            let state = vec![(from.to_owned(), to.to_owned())];
            compile(module.clone(), &Options { state, verify_each, ..Options::default() })
        };
        for verify_each in [true, false] {
            let plan = with("s", "y", verify_each).unwrap().plan;
            assert!(matches!(plan.programs[0].states[0].form, crate::plan::StateForm::InPlace { .. }));
            let error = with("t", "y", verify_each).unwrap_err().to_string();
            assert!(error.contains("V13") && error.contains("input 1 is i64[N], output 0 is f32[N]"), "{error}");
            let error = with("s", "z", verify_each).unwrap_err().to_string();
            assert_eq!(error, "the model has no output `z` to be state; it has `y`");
        }
    }

    #[test]
    fn a_kernels_source_shows_the_schedule_that_its_code_follows() {
        let text = "frit 1\nfunc @infer(%x \"x\": f32[64]) {\n  %y = exp(%x)\n  return \"y\" = %y\n}\n";
        let module = from_text(text, &NoConstants).unwrap();
        let options = Options { vectors: Vectors::Groups(4), ..Options::default() };
        let compiled = compile(module, &options).unwrap();
        let lanes = |d: &Directive| match d {
            Directive::Vector { lanes, .. } => Some(*lanes),
            Directive::Unroll { .. } | Directive::Block { .. } | Directive::Threads { .. } => None,
        };
        let vectors: Vec<u32> =
            compiled.kernels.iter().flat_map(|k| k.schedule.directives.iter().filter_map(lanes)).collect();
        assert_eq!(vectors, [4]);
    }
}
