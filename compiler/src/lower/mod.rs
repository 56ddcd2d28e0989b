//! Core ops to loop IR: a fused body, or a single op, becomes one kernel.
//!
//! ```text
//!  body (ops, views, reductions)  --classify-->  map | rows | split rows | special
//!        '--- emit: one element as scalar code; views change indices ---'
//! ```
//!
//! * **map**: no large reduction. One loop over the elements of the outputs, as many trailing axes merged into the
//!   innermost loop as every access allows.
//! * **rows**: large reductions that share one row space X and one reduced space R (the contract of
//!   `frit_passes::fuse`). Each row runs its reductions, level by level, in registers; elementwise work between them is
//!   recomputed, so nothing of size R is stored but outputs.
//! * **split rows**: few long rows. Each level is a phase over tiles that leaves partials and a phase that combines
//!   them. The tiles depend on the shape alone, so the bits do not depend on the number of threads.
//! * **special**: cumulate, scatter.
//! * **append**: values written behind what memory holds already, which is larger than they are.
//!
//! Vector loops that divide their variable by a small number are then written out by that number (`period`).
//!
//! In: a function whose inputs are tensors. Out: a kernel, its schedule, and what each of its buffers is. The order of
//! sums is that of `frit_ir::order` in every form.

mod append;
mod columns;
mod combine;
mod contract;
mod emit;
mod index;
mod line;
mod map;
mod period;
mod rows;
mod special;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use frit_ir::{DType, Dim, Function, Numerics, Op, Symbol, Tensor, Value};

use crate::kernel::{BufferId, Kernel, Phase, Role, Stmt};
use crate::schedule::{Directive, Schedule};
pub use append::{Target, lower_append};
use emit::Emitter;

/// Why a body can't become a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// An op that has no element code.
    #[error("`{op}` ({origin}): {message}")]
    Unsupported {
        /// Its word.
        op: &'static str,
        /// Where it came from.
        origin: String,
        /// What is missing.
        message: String,
    },
    /// The ops can't share a kernel; each alone can.
    #[error("{origin}: {message}")]
    Unfusable {
        /// Where the op that does not fit came from.
        origin: String,
        /// Why.
        message: String,
    },
    /// A bug of the compiler.
    #[error("internal: {0}")]
    Internal(String),
}

/// What a buffer of a lowered kernel is.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Input `i` of the body.
    Input(usize),
    /// A tensor of the parameter store.
    Param(String),
    /// A table that the kernel reads.
    Table(Tensor),
    /// Output `i` of the body.
    Output(usize),
    /// Memory between phases: type and elements (over the module's symbols).
    Temp(DType, Dim),
}

/// A kernel and how to call it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// What it computes.
    pub kernel: Kernel,
    /// How its loops run.
    pub schedule: Schedule,
    /// What each argument buffer is, in order.
    pub arguments: Vec<Argument>,
    /// Innermost loops that divide their variable: they run one element at a time.
    pub divided: usize,
}

/// Lowers a body to kernels: one, unless its outputs follow such different orders that each is better computed alone.
/// With each kernel come the outputs that it computes.
pub fn lower_apart(body: &Function, name: &str, numerics: Numerics) -> Result<Vec<(Lowered, Vec<usize>)>, LowerError> {
    /// Outputs that are worth a kernel each: what they share is computed in all of them.
    const MOST: usize = 4;
    let whole = lower(body, name, numerics)?;
    let outputs = body.outputs().len();
    if whole.divided == 0 || !(2..=MOST).contains(&outputs) {
        return Ok(vec![(whole, (0..outputs).collect())]);
    }
    let alone = |i: usize| lower(&with_output(body, i), name, numerics).map(|lowered| (lowered, vec![i]));
    match (0..outputs).map(alone).collect::<Result<Vec<_>, LowerError>>() {
        Ok(parts) if parts.iter().map(|(part, _)| part.divided).sum::<usize>() < whole.divided => Ok(parts),
        Ok(_) | Err(_) => Ok(vec![(whole, (0..outputs).collect())]),
    }
}

/// Loops over some variables that divide them.
fn divided(stmts: &[Stmt], vars: &HashSet<&Symbol>) -> usize {
    let inside = |stmt: &Stmt| match stmt {
        Stmt::For { var, body, .. } | Stmt::Reduce { var, body, .. } => {
            let own = vars.contains(var) && map::divisors_in(body, var).is_some();
            usize::from(own) + divided(body, vars)
        }
        Stmt::If { then, otherwise, .. } => divided(then, vars) + divided(otherwise, vars),
        Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => 0,
    };
    stmts.iter().map(inside).sum()
}

/// A body with one of its outputs, and what that needs; the inputs stay.
fn with_output(body: &Function, index: usize) -> Function {
    let mut part = body.clone();
    let output = body.outputs().get(index).cloned();
    part.clear_outputs();
    if let Some(output) = output {
        part.add_output(&output.name, output.value);
    }
    let live = part.live();
    for id in part.toposort().unwrap_or_default().into_iter().rev() {
        if !live.contains(&id) && !matches!(part.node(id).op, Op::Input { .. }) {
            part.remove_op(id);
        }
    }
    part
}

/// Lowers a body to one kernel.
pub fn lower(body: &Function, name: &str, numerics: Numerics) -> Result<Lowered, LowerError> {
    let mut lowering = Lowering::new(body, name, numerics)?;
    let special = body.outputs().iter().any(|o| matches!(body.op(o.value), Op::Cumulate { .. } | Op::Scatter { .. }));
    if special {
        special::lower(&mut lowering)?;
    } else {
        match rows::find(&mut lowering)? {
            Some(rows) => rows::lower(&mut lowering, &rows)?,
            None => map::lower(&mut lowering)?,
        }
    }
    Ok(lowering.finish())
}

/// A kernel in the making.
pub(crate) struct Lowering<'a> {
    pub(crate) body: &'a Function,
    pub(crate) e: Emitter<'a>,
    pub(crate) schedule: Schedule,
    arguments: Vec<Argument>,
    /// Buffer of each output.
    pub(crate) outputs: Vec<(Value, BufferId)>,
}

impl<'a> Lowering<'a> {
    fn new(body: &'a Function, name: &str, numerics: Numerics) -> Result<Self, LowerError> {
        let mut this = Lowering::without_outputs(body, name, numerics)?;
        for (i, output) in body.outputs().iter().enumerate() {
            let ty = this.e.tensor(output.value)?;
            let len = this.e.kb.dim(&ty.numel());
            let id = this.e.kb.buffer(&format!("out{i}"), ty.dtype, len, Role::Output);
            this.arguments.push(Argument::Output(i));
            this.outputs.push((output.value, id));
        }
        Ok(this)
    }

    fn without_outputs(body: &'a Function, name: &str, numerics: Numerics) -> Result<Self, LowerError> {
        let fast = numerics.approximate;
        let mut this = Lowering {
            body,
            e: Emitter::new(body, name, fast),
            schedule: Schedule::default(),
            arguments: Vec::new(),
            outputs: Vec::new(),
        };
        for (i, value) in body.input_values().enumerate() {
            this.bind(value, &format!("in{i}"), Argument::Input(i), Role::Input)?;
        }
        for id in body.nodes() {
            let value = Value { node: id, result: 0 };
            match &body.node(id).op {
                Op::Param { name, .. } => this.bind(value, name, Argument::Param(name.clone()), Role::Input)?,
                // A single element is written into the code; a table is read.
                Op::Constant { value: tensor } if tensor.numel() != 1 => {
                    this.bind(value, "table", Argument::Table(tensor.clone()), Role::Input)?;
                }
                _ => {}
            }
        }
        Ok(this)
    }

    fn bind(&mut self, value: Value, name: &str, argument: Argument, role: Role) -> Result<(), LowerError> {
        let ty = self.e.tensor(value)?;
        if ty.dtype == DType::Str {
            return Err(self.e.unsupported(value, "strings stay on the host".to_owned()));
        }
        let len = self.e.kb.dim(&ty.numel());
        let id = self.e.kb.buffer(name, ty.dtype, len, role);
        self.arguments.push(argument);
        self.e.memory.insert(value, id);
        Ok(())
    }

    /// Memory between phases; `len` is over the module's symbols.
    pub(crate) fn temp(&mut self, name: &str, dtype: DType, len: &Dim) -> BufferId {
        let kernel_len = self.e.kb.dim(len);
        let id = self.e.kb.buffer(name, dtype, kernel_len, Role::Output);
        self.arguments.push(Argument::Temp(dtype, len.clone()));
        id
    }

    fn finish(self) -> Lowered {
        let (mut kernel, mut schedule) = (self.e.kb.finish(), self.schedule);
        join_single(&mut kernel, &mut schedule);
        let vectors: HashSet<&Symbol> = schedule
            .directives
            .iter()
            .filter_map(|d| match d {
                Directive::Vector { var, .. } => Some(var),
                Directive::Unroll { .. } | Directive::Block { .. } | Directive::Threads { .. } => None,
            })
            .collect();
        period::write_out(&mut kernel, &vectors);
        let divided = kernel.phases.iter().map(|phase| divided(&phase.body, &vectors)).sum();
        Lowered { kernel, schedule, arguments: self.arguments, divided }
    }
}

/// Makes one phase of neighbours that each run once: a phase is a function, and a call of it costs more than what most of
/// them do.
fn join_single(kernel: &mut Kernel, schedule: &mut Schedule) {
    let mut phases: Vec<Phase> = Vec::with_capacity(kernel.phases.len());
    for phase in std::mem::take(&mut kernel.phases) {
        match phases.last_mut() {
            Some(before) if before.extent == Dim::ONE && phase.extent == Dim::ONE => {
                schedule.directives.retain(|d| !matches!(d, Directive::Threads { var, .. } if *var == phase.outer));
                before.body.push(Stmt::For { var: phase.outer, extent: Dim::ONE, body: phase.body });
            }
            _ => phases.push(phase),
        }
    }
    kernel.phases = phases;
}
