//! What memory a run will take, said before it does.
//!
//! In: a plan, one of its programs, shapes of inputs. Out: a [`Footprint`]. Sizes come from the plan's lives and extents,
//! the same that a run packs; nothing is allocated and no code is needed. Not in it: memory of programs that are called
//! (branches, loop bodies), and values whose extents only a run finds.

use frit_compiler::plan::memory::ALIGN;
use frit_compiler::plan::{LibraryCall, Plan, ProgramId, Step};
use frit_ir::DType;

use super::At;
use super::frame::{Facts, Frame};
use super::library::convolution;
use crate::library::gemm;
use crate::session::RunError;

/// Bytes of memory of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Values between steps.
    pub arena: usize,
    /// What kernels and library calls write besides their results.
    pub scratch: usize,
}

impl Footprint {
    /// All of it.
    pub fn total(&self) -> usize {
        self.arena.saturating_add(self.scratch)
    }

    /// Of two runs that take turns in the same memory.
    #[must_use]
    pub fn or(self, other: Footprint) -> Footprint {
        Footprint { arena: self.arena.max(other.arena), scratch: self.scratch.max(other.scratch) }
    }
}

/// The footprint of a program for inputs of these shapes, on so many threads.
pub(crate) fn footprint(
    plan: &Plan,
    id: ProgramId,
    shapes: &[Vec<i64>],
    threads: usize,
) -> Result<Footprint, RunError> {
    let program = &plan.programs[id.index()];
    let facts = Facts::of(program);
    let mut frame = Frame::default();
    let arena = frame.arena_for(program, &facts, shapes, usize::MAX)?;
    let at = At { program, facts: &facts, frame: &mut frame };
    let (mut shared, mut copies) = (0usize, 0usize);
    for step in &program.steps {
        match step {
            Step::Kernel { kernel, .. } => {
                let phases = plan.kernels.get(kernel.index()).map_or(&[][..], |k| &k.phases);
                let most = phases.iter().map(|phase| phase.scratch.next_multiple_of(ALIGN)).max().unwrap_or(0);
                shared = shared.max(most.saturating_mul(threads));
            }
            Step::Library { call, operands, results, origin } => match call {
                LibraryCall::MatMul { m, n, k, lhs_transposed, dtype: DType::F32, .. } => {
                    let extent = |dim| at.frame.extent(program, dim);
                    let kept = gemm::kept_bytes(extent(*m)?, extent(*n)?, extent(*k)?, *lhs_transposed, threads);
                    copies = copies.max(kept);
                }
                LibraryCall::Conv { .. } | LibraryCall::ConvTranspose { .. } => {
                    let conv = convolution(&at, call, operands, results, origin)?;
                    shared = shared.max(conv.scratch_len(threads).saturating_mul(size_of::<f32>()));
                }
                LibraryCall::MatMul { .. } | LibraryCall::Sort { .. } | LibraryCall::Concat { .. } => {}
            },
            Step::Compact { .. }
            | Step::If { .. }
            | Step::Loop { .. }
            | Step::Call { .. }
            | Step::Assert { .. }
            | Step::Sequence { .. }
            | Step::Copy { .. } => {}
        }
    }
    Ok(Footprint { arena, scratch: shared.saturating_add(copies) })
}
