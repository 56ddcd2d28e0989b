//! Why a kernel could not become machine code.

/// What went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The kernel asks for something that this generator or CPU does not have.
    #[error("kernel `{kernel}`: {what} can't be compiled for {target}")]
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What it asks for.
        what: String,
        /// The machine.
        target: String,
    },
    /// The kernel breaks a rule of the loop IR; `kernel::verify` names it.
    #[error("kernel `{kernel}` is not valid: {what}")]
    Invalid {
        /// The kernel.
        kernel: String,
        /// The rule that it breaks.
        what: String,
    },
    /// This machine is none that code can be generated for.
    #[error("no code can be generated for this machine: {0}")]
    Target(String),
    /// The code generator contradicts itself: a bug.
    #[error("internal error in code generation for kernel `{kernel}`: {what}")]
    Internal {
        /// The kernel.
        kernel: String,
        /// What happened.
        what: String,
    },
}

/// An error before the kernel's name is known: what the rooms below [`super::code`] return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not available.
    Unsupported(String),
    /// Not allowed.
    Invalid(String),
    /// A bug.
    Internal(String),
}

impl Refusal {
    /// The public error.
    pub(super) fn of(self, kernel: &str, target: &str) -> CodeError {
        let kernel = kernel.to_owned();
        match self {
            Refusal::Unsupported(what) => CodeError::Unsupported { kernel, what, target: target.to_owned() },
            Refusal::Invalid(what) => CodeError::Invalid { kernel, what },
            Refusal::Internal(what) => CodeError::Internal { kernel, what },
        }
    }
}
