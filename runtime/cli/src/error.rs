//! What a command fails with: one line that says what and where, one that says what to do, and the exit status. Where
//! all that a model lacks is told, each finding has a line of its own in between.
//!
//! In: errors of every room, and the file at work. Out: a [`CliError`]. Messages are made one line here, whatever names
//! and texts they quote: control characters of a model never reach a terminal.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use frit_compiler::artifact::ArtifactError;
use frit_compiler::cpu::CodeError;
use frit_compiler::driver::CompileError;
use frit_compiler::plan::build::BuildError;
use frit_ir::model::ModelError as NetworkError;
use frit_ir::onnx::{ExportError, OnnxError, RewriteError};
use frit_ir::text::TextError;
use frit_passes::legalize::LegalizeError;
use frit_passes::manager::PassError;
use frit_runtime::data::DataError;
use frit_runtime::data::dataset::DatasetError;
use frit_runtime::load::LoadError;
use frit_runtime::machine::MeasureError;
use frit_runtime::train::{CheckpointError, ConfigError, StepperError, TrainError};
use frit_runtime::{ModelError, RunError};

/// Exit statuses of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nobody reads the output any more; nothing to say.
    Closed = 0,
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
    /// Findings, a line each, when there are several.
    pub(crate) findings: Vec<String>,
    /// What to do next.
    pub(crate) help: String,
    /// How to exit.
    pub(crate) status: Status,
}

/// Result of a command.
pub(crate) type Done<T = ()> = Result<T, CliError>;

/// What to do about a bug.
const REPORT: &str = "this is a bug in frit: please report it with the command and the model";

impl CliError {
    /// Refused or failed.
    pub(crate) fn failed(message: impl Display, help: impl Into<String>) -> Self {
        CliError { message: message.to_string(), findings: Vec::new(), help: help.into(), status: Status::Failed }
    }

    /// All is said already.
    pub(crate) fn told(status: Status) -> Self {
        CliError { message: String::new(), findings: Vec::new(), help: String::new(), status }
    }

    /// Wrong usage that the parser can't see.
    pub(crate) fn usage(message: impl Display, help: impl Into<String>) -> Self {
        CliError { message: message.to_string(), findings: Vec::new(), help: help.into(), status: Status::Usage }
    }

    /// A bug.
    pub(crate) fn internal(message: impl Display) -> Self {
        CliError {
            message: message.to_string(),
            findings: Vec::new(),
            help: REPORT.to_owned(),
            status: Status::Internal,
        }
    }

    /// A file or folder that can't be read or written.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
            _ => "check the path, and that the disk has room",
        };
        CliError::failed(format!("{}: {error}", path.display()), help)
    }

    /// Refuses to begin work whose result can't be written: a folder that is not there, a file's name that is a folder's.
    pub(crate) fn check_output(path: &Path) -> Done {
        if path.is_dir() {
            return Err(CliError::failed(format!("{}: is a folder", path.display()), "name a file in it"));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if folder.is_dir() {
            return Ok(());
        }
        Err(CliError::failed(
            format!("{}: its folder does not exist", path.display()),
            "make the folder, or check the path",
        ))
    }

    /// Output that can't be written; a closed pipe is the reader's choice.
    pub(crate) fn output(error: &io::Error) -> Self {
        let mut failed = CliError::failed(format!("standard output: {error}"), "write to a file instead");
        if error.kind() == io::ErrorKind::BrokenPipe {
            failed.status = Status::Closed;
        }
        failed
    }

    /// Many findings of one kind: a line each, unless there is one only.
    fn unsupported(all: impl Display, findings: Vec<String>, help: &str) -> Self {
        if findings.len() < 2 {
            return CliError::failed(all, help);
        }
        let message = format!("not supported: {} things", findings.len());
        CliError { findings, ..CliError::failed(message, help) }
    }

    /// The same, in a file.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        let file = path.display().to_string();
        if !self.message.contains(&file) {
            self.message = format!("{file}: {}", self.message);
        }
        self
    }

    /// The same, about an output.
    pub(crate) fn in_output(mut self, name: &str) -> Self {
        self.message = format!("output `{name}`: {}", self.message);
        self
    }

    /// What the argument parser refused: the first paragraph says what, the tip or usage what to do.
    pub(crate) fn arguments(refused: &clap::Error) -> Self {
        let text = refused.to_string();
        let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
        let message = paragraphs.next().unwrap_or_default();
        let rest: Vec<String> = paragraphs.filter(|p| !p.is_empty() && !p.starts_with("For more")).collect();
        let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
        CliError::usage(message, format!("{}; `frit help COMMAND` explains", rest.join("; ")).trim_start_matches("; "))
    }

    /// Prints the two lines and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if self.status != Status::Closed && !self.message.is_empty() {
            // Where nobody reads errors either, the status alone tells.
            let (message, help) = (one_line(&self.message), one_line(&self.help));
            let findings: String = self.findings.iter().map(|f| format!("       {}\n", one_line(f))).collect();
            let _ = write!(io::stderr().lock(), "error: {message}\n{findings} help: {help}\n");
        }
        ExitCode::from(self.status as u8)
    }
}

/// A text without line breaks and other control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(if line.ends_with([':', ';', ',']) { " " } else { "; " });
        }
        for c in part.chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
    }
    line
}

impl From<OnnxError> for CliError {
    fn from(error: OnnxError) -> Self {
        match &error {
            OnnxError::Unsupported(report) => {
                CliError::unsupported(&error, report.missing().map(|m| m.to_string()).collect(), error.help())
            }
            OnnxError::Invalid { .. } | OnnxError::Limit { .. } | OnnxError::Io { .. } => {
                CliError::failed(&error, error.help())
            }
        }
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        if error.is_internal() {
            return CliError::internal(error);
        }
        CliError::failed(&error, error.help())
    }
}

impl From<RewriteError> for CliError {
    fn from(error: RewriteError) -> Self {
        match error {
            RewriteError::Read(e) => e.into(),
            RewriteError::Write(e) => e.into(),
            e @ (RewriteError::Missing { .. } | RewriteError::Type { .. }) => {
                CliError::failed(e, "the file is another than the one that was trained: put that back in its place")
            }
        }
    }
}

impl From<TextError> for CliError {
    fn from(error: TextError) -> Self {
        let help = match &error {
            TextError::At { line, excerpt, .. } => {
                let text = excerpt.lines().next().and_then(|l| l.split_once(" | ")).map_or("", |(_, text)| text.trim());
                format!("line {line} reads `{text}`; `frit help ops` lists what ops are called")
            }
            TextError::File { .. } => {
                "check the path; a constants file lies in the folder of its .frit file".to_owned()
            }
        };
        CliError::failed(&error, help)
    }
}

impl From<DataError> for CliError {
    fn from(error: DataError) -> Self {
        let help = match &error {
            DataError::Io { .. } => "check the path and its permissions",
            DataError::Damaged { .. } => "write the file again; numpy.save and numpy.savez make what is read here",
            DataError::Unsupported { .. } | DataError::Invalid(_) => {
                "save plain arrays with numpy.save or numpy.savez: no objects, no structures"
            }
        };
        CliError::failed(&error, help)
    }
}

impl From<DatasetError> for CliError {
    fn from(error: DatasetError) -> Self {
        CliError::failed(&error, error.help())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Value { .. } => CliError::usage(&error, error.help()),
            ConfigError::Write(_) => CliError::internal(error),
            ConfigError::Io { .. } | ConfigError::Syntax { .. } | ConfigError::Pattern { .. } => {
                CliError::failed(&error, error.help())
            }
        }
    }
}

impl From<CheckpointError> for CliError {
    fn from(error: CheckpointError) -> Self {
        CliError::failed(&error, error.help())
    }
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Config(e) => e.into(),
            TrainError::Data(e) => e.into(),
            TrainError::Checkpoint(e) => e.into(),
            e if e.is_internal() => CliError::internal(e),
            e => CliError::failed(&e, e.help()),
        }
    }
}

impl From<StepperError> for CliError {
    fn from(error: StepperError) -> Self {
        let help = match &error {
            StepperError::Config(_) | StepperError::Load(_) | StepperError::Run(_) => "",
            StepperError::Graph(_) => "name another output with --target, another loss with --loss, or freeze less",
            StepperError::Sample { .. } | StepperError::Inputs { .. } => {
                "train a network with one float input, the first axis of it the batch"
            }
            StepperError::Batch { fixed, .. } => {
                return CliError::failed(&error, format!("--batch {fixed}; or export the model with a symbolic batch"));
            }
            StepperError::LastBatch { .. } => {
                "leave the last records out of the data, or export the model with a symbolic batch (dynamic axes)"
            }
            StepperError::Memory { .. } => {
                "train on fewer records a step (--batch), on less data, or raise --memory-limit"
            }
            StepperError::State { .. } => return CliError::internal(error),
        };
        match error {
            StepperError::Config(e) => e.into(),
            StepperError::Load(e) => (*e).into(),
            StepperError::Run(e) => e.into(),
            e => CliError::failed(e, help),
        }
    }
}

impl From<PassError> for CliError {
    fn from(error: PassError) -> Self {
        if error.is_internal() {
            return CliError::internal(error);
        }
        let help = match &error {
            PassError::Syntax { .. } | PassError::UnknownOption { .. } | PassError::OptionValue { .. } => {
                return CliError::usage(&error, "`frit help passes` lists passes and their options");
            }
            PassError::UnknownPass { .. } => return CliError::usage(&error, "`frit help passes` says what each does"),
            PassError::Legalize(e @ LegalizeError::Unsupported(report)) => {
                let findings = report.entries.iter().map(ToString::to_string).collect();
                return CliError::unsupported(&error, findings, legalize_help(e));
            }
            PassError::Legalize(e) => legalize_help(e),
            PassError::Dump { .. } => "check the folder of --dump-ir",
            PassError::Cycle(_) => "the model is damaged: export it again",
            _ => "",
        };
        CliError::failed(&error, help)
    }
}

fn legalize_help(error: &LegalizeError) -> &'static str {
    match error {
        LegalizeError::Invalid { .. } => {
            "the model contradicts itself there: fix it at the source, or check it with onnx.checker"
        }
        LegalizeError::Unsupported(_) => "export with another opset, or rewrite these parts of the model",
        LegalizeError::NeedsValues { .. } => "give the values with --input NAME=FILE: shapes depend on them",
        LegalizeError::Shapeless { .. } => {
            "give its value with --input NAME=FILE, whose shape is compiled for; or export the model with shapes"
        }
        LegalizeError::Fixed { .. } => "give a value of the declared type",
        LegalizeError::Cycle(_) => "the model is damaged: export it again",
    }
}

impl From<CompileError> for CliError {
    fn from(error: CompileError) -> Self {
        if error.is_internal() {
            return CliError::internal(error);
        }
        match error {
            CompileError::Pass(e) => e.into(),
            CompileError::Build(e @ BuildError::Unbound { .. }) => CliError::failed(e, "give the extent with --dim"),
            CompileError::Build(e) => {
                CliError::failed(e, "rewrite that part of the model; --dump-ir DIR shows what it became")
            }
            CompileError::Code(e) => e.into(),
            e @ CompileError::UnknownDim { .. } => {
                CliError::usage(e, "`frit inspect MODEL` shows the shapes of inputs")
            }
            e @ (CompileError::UnknownState { .. } | CompileError::State(_)) => CliError::usage(
                e,
                "--state takes INPUT=OUTPUT of one type, or where the output is longer along one axis",
            ),
        }
    }
}

impl From<NetworkError> for CliError {
    fn from(error: NetworkError) -> Self {
        if error.is_internal() {
            return CliError::internal(error);
        }
        CliError::usage(error, "`frit help new` and `frit new NETWORK --help` say what can be chosen")
    }
}

impl From<CodeError> for CliError {
    fn from(error: CodeError) -> Self {
        CliError::failed(error, "machine code is made for x86-64 and aarch64")
    }
}

impl From<MeasureError> for CliError {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Code(e) => e.into(),
            MeasureError::Run(e) => e.into(),
            MeasureError::Probe(_) | MeasureError::Load(_) | MeasureError::Model(_) | MeasureError::Tensor(_) => {
                CliError::internal(error)
            }
        }
    }
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Onnx { path, source } => CliError::from(source).in_file(&path),
            LoadError::Text(e) => e.into(),
            LoadError::Unknown { .. } => CliError::failed(error, "a model is an .onnx or .frit file"),
            LoadError::Compile(e) => e.into(),
            LoadError::NeedsValues { .. } => {
                CliError::failed(error, "give the values with --input NAME=FILE: shapes depend on them")
            }
            LoadError::Artifact { path, source } => CliError::from(source).in_file(&path),
            LoadError::Code { .. } => CliError::failed(error, "compile the model on this machine"),
            LoadError::Model(e) => e.into(),
            LoadError::Run(e) => e.into(),
        }
    }
}

impl From<ArtifactError> for CliError {
    fn from(error: ArtifactError) -> Self {
        if let ArtifactError::Io { path, source } = &error {
            return CliError::file(path, source);
        }
        CliError::failed(error, "write it again with `frit compile MODEL -o FILE.fritc`")
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        let help = match &error {
            ModelError::Code { .. } => "allow the process executable memory (W^X policies, ulimit -v)",
            _ => "compile the model again",
        };
        CliError::failed(error, help)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        if error.is_internal() {
            return CliError::internal(error);
        }
        let help = match &error {
            RunError::UnknownInput { .. } | RunError::MissingInput { .. } | RunError::ExtraInput(_) => {
                "`frit inspect MODEL` lists inputs"
            }
            RunError::Kind { .. } | RunError::Dtype { .. } | RunError::Size { .. } => {
                "convert the data to the input's type first (numpy: x.astype)"
            }
            RunError::Rank { .. } | RunError::Extent { .. } | RunError::Shape { .. } => {
                "`frit inspect MODEL` shows the shapes that inputs must have; --dim NAME=N sets a symbolic one"
            }
            RunError::Limit { .. } | RunError::Memory { .. } => "use smaller inputs",
            _ => "the values given make that op fail: check the inputs",
        };
        CliError::failed(error, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_whatever_they_quote() {
        assert_eq!(one_line("node `a\nb`\u{1b}[31m\n"), "node `a; b`\\u{1b}[31m");
        assert_eq!(
            one_line("not supported yet:\n  Op, node `a`\r\n\n  Op, node `b`\n"),
            "not supported yet: Op, node `a`; Op, node `b`"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(CliError::output(&io::ErrorKind::BrokenPipe.into()).status, Status::Closed);
        assert_eq!(CliError::output(&io::ErrorKind::StorageFull.into()).status, Status::Failed);
    }

    #[test]
    fn a_text_error_shows_its_line() {
        let text = "frit 1\nfoo bar\n";
        let error = frit_ir::text::from_text(text, &frit_ir::text::NoConstants).unwrap_err();
        let shown = CliError::from(error);
        assert!(shown.help.contains("reads `"), "{}", shown.help);
    }
}
