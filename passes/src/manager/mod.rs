//! Runs passes over a module, in an order that is text, and tells what each did.
//!
//! ```text
//!  pipeline  "-O2" or "legalize,simplify,fuse(max-ops=40)" --> steps, checked against the table of passes
//!  options   what the caller chose      context  what a pass sees: options, fuel, counters
//!  report    times, op counts, rules fired, near misses, remarks      dump  the same as files, with every module
//! ```
//!
//! In: a module, a [`Pipeline`], [`Options`]. Out: the module rewritten, and a [`Report`]. After every pass the module
//! satisfies the verifier (unless [`Options::verify_each`] is off); a pass that breaks it is named in the error.
//!
//! Every rewrite that may be left out asks [`Context::take`] first, which counts it and spends fuel; when the fuel is
//! used up nothing more is rewritten, so a wrong result is narrowed to one rule by bisecting the number. Legalizing
//! and canonicalizing are not optional and spend none: without them there is another program, not a slower one. So every
//! amount of fuel gives a right program, and in strict mode the same bits.

mod adapt;
mod context;
mod dump;
mod options;
mod pipeline;
mod report;
mod table;
#[cfg(test)]
mod tests;

use std::time::Instant;

use frit_ir::op::infer::TypeError;
use frit_ir::verify::{VerifyError, verify};
use frit_ir::{Function, Module, NodeId, Numerics, Op};

use crate::grad::GradError;
use crate::legalize::LegalizeError;

use dump::Dump;

pub use context::Context;
pub use options::{Level, Math, Options, PassOptions};
pub use pipeline::{Pipeline, Step};
pub use report::{NearMiss, PassReport, Remark, Report};
pub use table::{OptionInfo, PASSES, PassInfo};

/// A rewrite of a whole module.
pub trait Pass {
    /// Changes the module; what it does goes through the context.
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError>;
}

/// Why a pipeline could not be read or run.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The pipeline's text is malformed.
    #[error("passes `{text}`: {message} at character {at}")]
    Syntax {
        /// The text.
        text: String,
        /// Where, from 1.
        at: usize,
        /// What is wrong.
        message: String,
    },
    /// No pass of that name.
    #[error("there is no pass `{name}`; passes are {known}")]
    UnknownPass {
        /// The name.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// The pass has no such option.
    #[error("pass `{pass}` has no option `{option}`; {known}")]
    UnknownOption {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: String,
        /// Those that it has.
        known: String,
    },
    /// An option's value is no number.
    #[error("pass `{pass}`, option `{option}`: `{value}` is not a whole number of at least 0")]
    OptionValue {
        /// The pass.
        pass: &'static str,
        /// The option.
        option: String,
        /// The value.
        value: String,
    },
    /// A rewrite built an op that does not type-check: an internal error.
    #[error("internal error in pass `{pass}`: rule `{rule}` at `{origin}`: {source}")]
    Rewrite {
        /// The pass.
        pass: &'static str,
        /// The rule.
        rule: &'static str,
        /// The op that it rewrote.
        origin: String,
        /// What does not fit.
        source: TypeError,
    },
    /// Any other broken promise of a pass: an internal error.
    #[error("internal error in pass `{pass}`: {message}")]
    Internal {
        /// The pass.
        pass: &'static str,
        /// What happened.
        message: String,
    },
    /// The model could not be brought to core ops.
    #[error(transparent)]
    Legalize(#[from] LegalizeError),
    /// A derivative that can't be taken.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// A dump could not be written.
    #[error("can't write `{path}`: {message}")]
    Dump {
        /// The file or folder.
        path: String,
        /// Why.
        message: String,
    },
    /// A pass left a module that breaks an invariant: an internal error.
    #[error("internal error: pass `{pass}` leaves a broken module: {source}")]
    Verify {
        /// The pass.
        pass: &'static str,
        /// What is broken.
        source: VerifyError,
    },
    /// A function has a cycle.
    #[error("function `{0}` has a cycle")]
    Cycle(String),
}

impl PassError {
    /// Whether it is a bug of frit, not of the model or the command.
    pub fn is_internal(&self) -> bool {
        match self {
            PassError::Grad(error) => error.is_internal(),
            other => {
                matches!(other, PassError::Rewrite { .. } | PassError::Internal { .. } | PassError::Verify { .. })
            }
        }
    }
}

/// Runs the steps of a pipeline in order.
pub fn run(module: &mut Module, pipeline: &Pipeline, options: &Options) -> Result<Report, PassError> {
    let start = Instant::now();
    let mut context = Context::new(options);
    let mut report = Report::default();
    if let Some(numerics) = options.math.numerics() {
        set_numerics(module, numerics);
    }
    let mut dump = options.dump_dir.as_deref().map(|dir| Dump::start(dir, module)).transpose()?;
    for step in &pipeline.steps {
        let begin = Instant::now();
        let ops_before = count_ops(module);
        context.begin(step);
        (step.pass.make)().run(module, &mut context)?;
        let seconds = begin.elapsed().as_secs_f64();
        if options.verify_each {
            verify(module).map_err(|e| PassError::Verify { pass: step.pass.name, source: e })?;
        }
        let pass = context.end(seconds, ops_before, count_ops(module));
        if let Some(dump) = &mut dump {
            dump.pass(step.pass.name, &pass, module)?;
        }
        report.passes.push(pass);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.rewrites = context.taken();
    report.fuel_left = context.fuel_left();
    if let Some(dump) = dump {
        dump.finish(&report)?;
    }
    Ok(report)
}

/// Gives every op that calculates the same numerics, regions included.
pub fn set_numerics(module: &mut Module, numerics: Numerics) {
    fn visit(f: &mut Function, numerics: Numerics) {
        for id in f.nodes() {
            if f.node(id).op.takes_numerics() {
                f.set_numerics(id, numerics);
            }
            for region in f.regions_mut(id) {
                visit(region, numerics);
            }
        }
    }
    for f in module.functions.values_mut() {
        visit(f, numerics);
    }
}

/// Ops of the module, regions included; inputs are not counted.
pub fn count_ops(module: &Module) -> usize {
    fn visit(f: &Function) -> usize {
        let regions = |id: &NodeId| f.node(*id).regions().iter().map(visit).sum::<usize>();
        f.nodes().iter().filter(|id| !matches!(f.node(**id).op, Op::Input { .. })).map(|id| 1 + regions(id)).sum()
    }
    module.functions.values().map(visit).sum()
}
