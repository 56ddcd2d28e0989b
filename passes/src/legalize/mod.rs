//! ONNX to core: every `onnx` op replaced by core ops.
//!
//! In: a module as imported, whose functions hold `onnx` ops with declared or unknown result types. Out: the same
//! functions made of core ops only, every type known up to symbols: types follow from the ops as they are built. A
//! declared element type that contradicts them is an error; declared extents that do are overruled and counted, because
//! exporters write wrong ones.
//!
//! ```text
//!  driver   walks a function in topological order, binds operands, looks up the rule, checks results, collects reports
//!  table    (domain, op type, versions) -> rule
//!  context  what a rule works with
//!  the rest one file a family of operators, one function an operator (or several that differ by a constant)
//! ```
//!
//! Many operators take shapes and axes as tensors. Rules ask [`crate::shape::Values`] for them, which evaluates small
//! integer tensors as extents; where the answer depends on an input's value, the caller is asked for it
//! ([`LegalizeError::NeedsValues`]) and tries again with [`LegalizeOptions::fixed`].

mod activation;
mod attention;
mod context;
mod contraction;
mod control;
mod conv;
mod driver;
mod elementwise;
mod error;
mod gather;
mod loss;
mod movement;
mod norm;
mod quantize;
mod recurrent;
mod reduction;
mod resize;
mod sequence;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use frit_ir::{Module, Numerics, Tensor};

pub use error::{LegalizeError, Missing, Report};

/// How to legalize.
#[derive(Clone, Debug, Default)]
pub struct LegalizeOptions {
    /// Numerics of every op.
    pub numerics: Numerics,
    /// Values of inputs, by name, that compilation may rely on: whoever runs the result checks that they still hold.
    pub fixed: HashMap<String, Tensor>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegalizeStats {
    /// ONNX ops replaced.
    pub replaced: usize,
    /// Results whose declared extents contradict what their operator gives.
    pub overruled: usize,
}

/// Replaces every `onnx` op of the module. On an error the module is unchanged.
pub fn legalize(module: &mut Module, options: &LegalizeOptions) -> Result<LegalizeStats, LegalizeError> {
    driver::run(module, options)
}

/// What a module that import could not finish lacks besides: its operators, and what they ask for, as far as values
/// that are there lead. What is wrong in such a module may follow from what is missing, and is not told.
pub fn missing(module: &Module) -> Report {
    driver::missing(module)
}

/// Whether some rule takes this operator.
pub fn is_supported(domain: &str, op_type: &str, since_version: i64) -> bool {
    table::find(domain, op_type, since_version).is_some()
}
