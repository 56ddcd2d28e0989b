//! Legalize as a pass.

use frit_ir::{Module, Numerics};

use super::{Context, Pass, PassError};
use crate::legalize::{LegalizeOptions, legalize};

/// ONNX to core, with the numerics and fixed inputs of the run.
pub(super) struct Legalize;

impl Pass for Legalize {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        let options = LegalizeOptions {
            // As written: ONNX says nothing of numerics, so strict.
            numerics: context.options().math.numerics().unwrap_or(Numerics::STRICT),
            fixed: context.options().fixed.clone(),
        };
        let stats = legalize(module, &options)?;
        context.count("legalize", stats.replaced as u64);
        Ok(())
    }
}
