//! What every module satisfies, checked.
//!
//! In: any module, however damaged. Out: nothing, or the invariants that it breaks, each with function, op and reason.
//! What verifies, compiles or is refused with an error: rooms that take a verified module rely on the list below and
//! check none of it again. The pass manager verifies after every pass.
//!
//! The list is [`Invariant`]; `tests/invalid/` has a text for each that breaks it and nothing else (those that no text
//! can break are broken in code by this room's tests).

mod function;
mod module;
mod symbols;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::graph::{Function, Node};
use crate::module::Module;

macro_rules! invariants {
    ($($name:ident $rule:literal)*) => {
        /// What always holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Invariant {
            $(#[doc = $rule] $name,)*
        }

        impl Invariant {
            /// Every invariant, in order.
            pub const ALL: &[Invariant] = &[$(Invariant::$name),*];

            /// Its number: `V1`, `V2`, ...
            pub fn name(self) -> &'static str {
                match self { $(Invariant::$name => stringify!($name)),* }
            }

            /// What it says.
            pub fn rule(self) -> &'static str {
                match self { $(Invariant::$name => $rule),* }
            }
        }
    };
}

invariants! {
    V1 "The graph's edges mirror the ops' operands, one edge an operand."
    V2 "Every operand and every output is an existing result of an op that is there."
    V3 "No op depends on itself."
    V4 "The list of inputs names each `input` op once, and nothing else."
    V5 "Inputs of a function have different names, and so have its outputs."
    V6 "Counts of operands and regions are what the op takes; result types are what inference gives; regions take what \
        their op hands them."
    V7 "Every op and every requirement has an origin."
    V8 "A `param` names a parameter of the store that has its type."
    V9 "A `call` names a function of the module; operand and result types fit it, its symbols bound alike throughout."
    V10 "No function calls itself, by itself or through others."
    V11 "Every symbol is the whole extent of some input's axis, or made by an op (`compact`, `loop`, a sequence, an \
         `onnx` op, a `call`)."
    V12 "Facts of a symbol can hold: 0 <= min <= max, multiple_of >= 0."
    V13 "A donation names an input and an output, each donated once, of one type; the output may be longer along one \
         axis (state that is appended to)."
    V14 "Numerics stand only on ops that calculate."
    V15 "Stored elements are values of their type: bools are 0 or 1, 2- and 4-bit integers are extended from their bits."
    V16 "A function is stored under its own name."
    V17 "Only `onnx` and `absent` ops, and inputs of regions, have a type that is not known; of a function's inputs, only \
         what is inside a sequence, optional or map."
    V18 "No known extent is negative, and no type's known extents make 2^63 bytes."
    V19 "Regions nest at most 64 deep."
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// The function, with the path to the region; empty for the module.
    pub function: String,
    /// The op's word and origin.
    pub op: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.invariant.name())?;
        if !self.function.is_empty() {
            write!(f, "function `{}`", self.function)?;
            match &self.op {
                Some(op) => write!(f, ", {op}: ")?,
                None => f.write_str(": ")?,
            }
        }
        f.write_str(&self.message)
    }
}

/// A module that breaks invariants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", text(.findings, *.more))]
pub struct VerifyError {
    /// What is broken, in the order of functions and ops: at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more: usize,
}

/// Findings that an error lists.
pub const MAX_FINDINGS: usize = 20;

fn text(findings: &[Finding], more: usize) -> String {
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// Checks every invariant.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    let mut report = Report::default();
    module::check(module, &mut report);
    report.finish()
}

/// Checks that no `onnx` or `absent` op is left: what legalize promises. Not an invariant of every module.
pub fn verify_core(module: &Module) -> Result<(), VerifyError> {
    let mut report = Report::default();
    for (name, f) in &module.functions {
        function::check_core(f, name, 0, &mut report);
    }
    report.finish()
}

/// Collects findings.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    more: usize,
}

impl Report {
    fn add(&mut self, invariant: Invariant, function: &str, node: Option<&Node>, message: impl Into<String>) {
        if self.findings.len() == MAX_FINDINGS {
            self.more += 1;
            return;
        }
        let op = node.map(|n| format!("`{}` at {}", n.op.name(), n.origin));
        self.findings.push(Finding { invariant, function: function.to_owned(), op, message: message.into() });
    }

    fn finish(self) -> Result<(), VerifyError> {
        if self.findings.is_empty() {
            return Ok(());
        }
        Err(VerifyError { findings: self.findings, more: self.more })
    }
}

/// Every op of a function and, before each op's own turn, of its regions; regions beyond the allowed depth are left out.
fn visit<'f>(f: &'f Function, depth: usize, each: &mut dyn FnMut(&'f Function, &'f Node, usize)) {
    for id in f.nodes() {
        let Some(node) = f.get(id) else { continue };
        if depth < MAX_DEPTH {
            node.regions().iter().for_each(|region| visit(region, depth + 1, each));
        }
        each(f, node, depth);
    }
}

/// How deep regions nest: as deep as the text goes.
const MAX_DEPTH: usize = 64;
