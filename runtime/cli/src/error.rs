//! What a command fails with: one line that says what and where, one that says what to do, and the exit status.

use std::fmt::Display;
use std::process::ExitCode;

/// Exit statuses of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Refused or failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// A bug.
    Internal = 70,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct CliError {
    /// What went wrong, with file, node and op.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) help: String,
    /// How to exit.
    pub(crate) status: Status,
}

impl CliError {
    /// Refused or failed.
    pub(crate) fn failed(message: impl Display, help: impl Into<String>) -> Self {
        CliError { message: message.to_string(), help: help.into(), status: Status::Failed }
    }

    /// Wrong usage that the parser can't see.
    pub(crate) fn usage(message: impl Display, help: impl Into<String>) -> Self {
        CliError { message: message.to_string(), help: help.into(), status: Status::Usage }
    }

    /// Prints the two lines and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if !self.help.is_empty() {
            eprintln!(" help: {}", self.help);
        }
        ExitCode::from(self.status as u8)
    }
}

/// Result of a command.
pub(crate) type Done<T = ()> = Result<T, CliError>;
