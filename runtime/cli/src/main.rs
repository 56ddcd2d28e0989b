//! The `frit` command.
//!
//! ```text
//!  args --> commands/* --> engine (find, read, compile)   inputs (files, seeds)
//!              |
//!              '--> console (lines, JSON)   table, progress, numbers
//! ```
//!
//! Nothing a command does may end in a backtrace: errors are two lines ([`error`]), a panic is caught here and told as
//! the bug that it is. Work runs on a thread with a large stack, so that deep models end in errors, not in overflows.

mod args;
mod commands;
mod console;
mod cost;
mod engine;
mod error;
mod inputs;
mod numbers;
mod progress;
mod summary;
mod table;
mod watch;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use console::Console;
use error::{CliError, Done};

/// Stack of the thread that works, in bytes; it is reserved, not used, until something nests deeply.
const STACK: usize = 256 << 20;

/// What the first panic said, and where.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and versions come this way too; a reader that is gone is no reason to fail.
        Err(asked) if !asked.use_stderr() || asked.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = asked.print();
            return ExitCode::from(u8::try_from(asked.exit_code()).unwrap_or(2));
        }
        Err(refused) => return CliError::arguments(&refused).report(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        PANIC.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{text}{place}"));
    }));
    let worker = std::thread::Builder::new().name("frit".to_owned()).stack_size(STACK).spawn(|| dispatch(cli));
    let done = match worker.map(|thread| thread.join()) {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => {
            let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
            Err(CliError::internal(format!("internal error: {said}")))
        }
        Err(e) => Err(CliError::failed(format!("no thread to work on: {e}"), "raise the limits of the process")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn dispatch(cli: Cli) -> Done {
    match cli.command {
        Command::Demo(args) => commands::demo::run(&args),
        Command::Compile(args) => commands::compile::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::New { network } => commands::new::run(&network),
        Command::Train(args) => commands::train::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Completions { shell } => commands::help::completions(shell, &Console::plain()),
        Command::Help { topic } => commands::help::run(topic.as_deref(), &Console::plain()),
    }
}
