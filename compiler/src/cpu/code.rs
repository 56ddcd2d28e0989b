//! The driver: kernel and schedule to linked machine code.
//!
//! A [`CodeGenerator`] keeps what compiling allocates, so that a model's kernels compile one after another without
//! starting over. Each phase and each leaf becomes a function; [`super::link`] joins them.

use std::fmt::Write as _;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::ir::{self, ExternalName, UserFuncName};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::abi::{KernelCode, PhaseCode};
use super::blocks::in_blocks;
use super::error::{CodeError, Refusal};
use super::function::{self, Function};
use super::link::{Call, Piece, link};
use super::strip::clif::ClifBackend;
use super::strip::x64::X64Backend;
use super::strip::{Leaves, StripBackend};
use super::target::{Effort, Target, VectorBits};
use crate::kernel::Kernel;
use crate::schedule::Schedule;

/// What code generation may be told.
#[derive(Clone, Debug)]
pub struct CodeOptions {
    /// The machine.
    pub target: Arc<Target>,
    /// How hard to try.
    pub effort: Effort,
    /// How the innermost loops run.
    pub vectors: Vectors,
}

/// How the innermost loops run as vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Vectors {
    /// The widest vectors that the machine has.
    #[default]
    Widest,
    /// Vectors of at most that many bits.
    AtMost(VectorBits),
    /// Through Cranelift, as on machines without wide vectors: groups of 4, 8 or 16 iterations on vectors of 128 bits.
    Groups(u32),
}

impl Vectors {
    /// The bits of a vector on a machine.
    pub fn bits(self, target: &Target) -> VectorBits {
        match self {
            Vectors::Widest => target.vector_bits(),
            Vectors::AtMost(bits) => bits.min(target.vector_bits()),
            Vectors::Groups(_) => VectorBits::B128,
        }
    }
}

impl CodeOptions {
    /// For this machine.
    pub fn host() -> Result<Self, CodeError> {
        Ok(CodeOptions { target: Arc::new(Target::host()?), effort: Effort::Auto, vectors: Vectors::Widest })
    }
}

/// What became of the loops that the schedule wants as vectors.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CodeReport {
    /// Loops that run as vectors: variable and iterations at once.
    pub vectorised: Vec<(String, u32)>,
    /// Loops that run one element at a time all the same.
    pub scalar: Vec<ScalarLoop>,
}

/// A loop that could not become a vector loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalarLoop {
    /// Its variable.
    pub var: String,
    /// Why.
    pub reason: String,
}

/// Texts of what was generated, when asked for.
#[derive(Default)]
pub(super) struct Texts {
    /// CLIF of every function.
    pub(super) clif: String,
    /// Its instructions.
    pub(super) asm: String,
}

/// Compiles kernels.
pub struct CodeGenerator {
    options: CodeOptions,
    context: Context,
    builder: FunctionBuilderContext,
    leaves: Leaves,
}

/// A kernel as code; see [`CodeGenerator::compile`].
pub fn compile(kernel: &Kernel, schedule: &Schedule, options: &CodeOptions) -> Result<KernelCode, CodeError> {
    CodeGenerator::new(options).compile(kernel, schedule).map(|(code, _)| code)
}

/// CLIF and instructions of a kernel, as text.
pub fn compile_text(
    kernel: &Kernel,
    schedule: &Schedule,
    options: &CodeOptions,
) -> Result<(String, String), CodeError> {
    CodeGenerator::new(options).compile_text(kernel, schedule)
}

/// Who makes leaves: the x86-64 back end where the machine has what it needs, Cranelift elsewhere.
fn backend(options: &CodeOptions) -> Box<dyn StripBackend> {
    let clif = ClifBackend::new(options);
    match (options.target.features.vectors, options.vectors) {
        (Some(encoding), Vectors::Widest | Vectors::AtMost(_)) => {
            Box::new(X64Backend::new(encoding, options.vectors.bits(&options.target), clif))
        }
        (None, _) | (_, Vectors::Groups(_)) => Box::new(clif),
    }
}

impl CodeGenerator {
    /// A generator for a machine.
    pub fn new(options: &CodeOptions) -> Self {
        CodeGenerator {
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
            leaves: Leaves::new(backend(options)),
            options: options.clone(),
        }
    }

    /// Machine code of an expanded kernel under a schedule, and what became of its vector loops. Fails when the kernel
    /// breaks the rules of the loop IR or needs what the machine lacks.
    pub fn compile(&mut self, kernel: &Kernel, schedule: &Schedule) -> Result<(KernelCode, CodeReport), CodeError> {
        let mut report = CodeReport::default();
        match self.generate(kernel, schedule, &mut report, None) {
            Ok(code) => Ok((code, report)),
            Err(refusal) => Err(self.failed(kernel, refusal)),
        }
    }

    /// CLIF and instructions of a kernel, as text.
    pub fn compile_text(&mut self, kernel: &Kernel, schedule: &Schedule) -> Result<(String, String), CodeError> {
        let mut texts = Texts::default();
        match self.generate(kernel, schedule, &mut CodeReport::default(), Some(&mut texts)) {
            Ok(_) => Ok((texts.clif, texts.asm)),
            Err(refusal) => Err(self.failed(kernel, refusal)),
        }
    }

    fn failed(&mut self, kernel: &Kernel, refusal: Refusal) -> CodeError {
        // A function that was left half way stays in the builder's memory: start afresh.
        self.builder = FunctionBuilderContext::new();
        refusal.of(&kernel.name, &self.options.target.name())
    }

    fn generate(
        &mut self,
        kernel: &Kernel,
        schedule: &Schedule,
        report: &mut CodeReport,
        mut texts: Option<&mut Texts>,
    ) -> Result<KernelCode, Refusal> {
        let target = &self.options.target;
        let convention = target.convention();
        let changed = in_blocks(kernel, schedule);
        let kernel = changed.as_ref().map_or(kernel, |(kernel, _)| kernel);
        let rows = |i: usize| changed.as_ref().and_then(|(_, rows)| rows.get(i).copied()).unwrap_or(1);
        self.leaves.begin(kernel.phases.len(), texts.is_some());
        let mut pieces = Vec::with_capacity(kernel.phases.len());
        let mut scratch = Vec::with_capacity(kernel.phases.len());
        for (i, phase) in kernel.phases.iter().enumerate() {
            self.context.clear();
            self.context.func =
                ir::Function::with_name_signature(UserFuncName::user(0, i as u32), function::signature(convention));
            let mut f = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
            let mut writer = Function::new(&mut f, kernel, schedule, target.features, &mut self.leaves, report);
            scratch.push(writer.phase(phase, rows(i))?);
            f.seal_all_blocks();
            let size = f.func.dfg.num_insts();
            let isa = target.isa(self.options.effort, size);
            f.finalize(isa.frontend_config());
            let title = format!("{}, phase {i}", kernel.name);
            pieces.push(finish(&mut self.context, isa.as_ref(), &title, texts.as_deref_mut())?);
        }
        let (leaf_pieces, leaf_texts) = self.leaves.take();
        if let Some(texts) = texts {
            texts.clif.push_str(&leaf_texts.clif);
            texts.asm.push_str(&leaf_texts.asm);
        }
        pieces.extend(leaf_pieces);
        let (bytes, starts) = link(&pieces)?;
        let phases = kernel.phases.iter().zip(starts).zip(scratch).map(|((phase, entry), scratch)| PhaseCode {
            entry,
            scratch,
            grain: schedule.grain(&phase.outer).unwrap_or(1),
        });
        Ok(KernelCode { phases: phases.collect(), bytes })
    }
}

/// Compiles the function of a context.
pub(super) fn finish(
    context: &mut Context,
    isa: &dyn cranelift_codegen::isa::TargetIsa,
    title: &str,
    texts: Option<&mut Texts>,
) -> Result<Piece, Refusal> {
    context.set_disasm(texts.is_some());
    let written = texts.as_ref().map(|_| context.func.display().to_string());
    if let Err(e) = context.compile(isa, &mut Default::default()) {
        return Err(Refusal::Internal(format!("{title}: {:?}", e.inner)));
    }
    let code = context.take_compiled_code().ok_or_else(|| Refusal::Internal(format!("{title}: no code")))?;
    if let (Some(texts), Some(clif)) = (texts, written) {
        // Writing to a string does not fail.
        let _ = writeln!(texts.clif, "; {title}\n{clif}");
        let _ = writeln!(texts.asm, "; {title}\n{}", code.vcode.as_deref().unwrap_or_default());
    }
    let mut calls = Vec::new();
    for reloc in code.buffer.relocs() {
        let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = &reloc.target else {
            return Err(Refusal::Internal(format!("{title} refers to {:?}", reloc.target)));
        };
        let name = context.func.params.user_named_funcs().get(*name);
        let name = name.ok_or_else(|| Refusal::Internal(format!("{title} calls a function without a name")))?;
        calls.push(Call {
            offset: reloc.offset as usize,
            kind: reloc.kind,
            target: name.index as usize,
            addend: reloc.addend,
        });
    }
    Ok(Piece { bytes: code.code_buffer().to_vec(), calls })
}
