//! Modules on their way out: passed through the pipeline as far as that is independent of machines.
//!
//! In: a module, options of a compilation, and values that shapes may depend on. Out: the module after all passes but
//! fusion, which is about kernels and may repeat work. An input whose value shapes depend on is a constant of the
//! result, and an input no longer: for other values the model would be wrong.

use std::collections::BTreeSet;

use frit_compiler::driver::{self, CompileError};
use frit_ir::{HostValue, Module, Op, Origin, Value};
use frit_passes::manager::PassError;

use crate::compile::{CompileOptions, fixing, refused, shaped};
use crate::load::LoadError;

/// Passes about kernels.
const FUSE: &str = "fuse";

/// A module to be written for others.
#[derive(Debug)]
pub struct Portable {
    /// The module.
    pub module: Module,
    /// Inputs that became constants.
    pub fixed: BTreeSet<String>,
}

/// Runs the passes, with as many of the given inputs fixed as it takes.
///
/// # Errors
/// What a pass refuses; [`LoadError::NeedsValues`] when a value that is needed is not given.
pub fn portable(
    module: &Module,
    inputs: &[(&str, &HostValue)],
    options: &CompileOptions,
) -> Result<Portable, LoadError> {
    let mut pipeline = driver::pipeline(options).map_err(LoadError::Compile)?;
    pipeline.steps.retain(|step| step.pass.name != FUSE);
    let module = shaped(module, inputs);
    let (mut module, options) = fixing(inputs, options, |options| {
        let mut run = module.as_ref().clone();
        driver::run_passes(&mut run, &pipeline, options).map_err(refused)?;
        Ok(run)
    })?;
    drop_fixed(&mut module, &options)?;
    Ok(Portable { module, fixed: options.fixed.into_keys().collect() })
}

fn drop_fixed(module: &mut Module, options: &CompileOptions) -> Result<(), LoadError> {
    let Some(f) = module.entry_mut() else { return Ok(()) };
    for index in (0..f.inputs().len()).rev() {
        let Some(&node) = f.inputs().get(index) else { continue };
        let Op::Input { name, .. } = &f.node(node).op else { continue };
        let Some(value) = options.fixed.get(name).cloned() else { continue };
        let origin = Origin::named(name);
        let constant = f.add_op(Op::Constant { value }, &[], Vec::new(), &origin).map_err(|e| {
            LoadError::Compile(CompileError::Pass(PassError::Internal { pass: "export", message: e.to_string() }))
        })?;
        f.replace_uses(Value { node, result: 0 }, Value { node: constant, result: 0 });
        f.remove_input(index);
    }
    Ok(())
}
