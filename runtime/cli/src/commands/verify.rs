//! `frit verify`: ONNX test cases, a line each, then how many passed.

use std::path::Path;

use frit_compiler::plan::OpCounts;
use frit_runtime::CodeSource;
use frit_runtime::verify::{Record, Verdict, verify, verify_compiled};
use serde_json::json;

use crate::args::VerifyArgs;
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done, Status, one_line};
use crate::progress::Progress;

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Done {
    let model = if args.trust.trust_code { "model.fritc" } else { "model.onnx" };
    engine::check_trust(args.trust, &args.flags)?;
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    engine::check_flags(&args.flags, &console)?;
    let options = engine::options(&args.flags);
    let progress = Progress::new(args.cases.len());
    let (mut passed, mut failed, mut skipped, mut internal) = (0, 0_usize, 0, false);
    for case in &args.cases {
        progress.begin(&case.display().to_string());
        let record = match (no_case(case, model), args.trust.trust_code) {
            (Some(reason), _) => unreadable(case, reason),
            (None, true) => verify_compiled(case, &case.join(model), &options),
            (None, false) => verify(case, &options),
        };
        internal |= record.internal;
        let name = one_line(&record.case);
        let line = match record.verdict {
            Verdict::Passed => {
                passed += 1;
                match &record.code {
                    Some(CodeSource::Recompiled(why)) => format!("PASS {name} (compiled again: {})", one_line(why)),
                    Some(CodeSource::Compiled | CodeSource::Loaded) | None => format!("PASS {name}"),
                }
            }
            Verdict::Failed => {
                failed += 1;
                format!("FAIL {name}: {}", one_line(&record.reason))
            }
            Verdict::Skipped => {
                skipped += 1;
                format!("skip {name}: {}", one_line(&record.reason))
            }
        };
        progress.done(|| console.line(line))?;
        console.json(&as_json(case, &record))?;
    }
    drop(progress);
    console.json(&json!({ "passed": passed, "failed": failed, "skipped": skipped }))?;
    console.line(format!("{passed} passed, {failed} failed, {skipped} skipped"))?;
    end(failed, internal)
}

/// The last line is the count, and what failed is told above it. A bug that was caught is still a bug.
fn end(failed: usize, internal: bool) -> Done {
    match (internal, failed) {
        (true, _) => Err(CliError::told(Status::Internal)),
        (false, 1..) => Err(CliError::told(Status::Failed)),
        (false, 0) => Ok(()),
    }
}

/// Why a path is no case; `None` when it is one: a folder with a model in it.
fn no_case(case: &Path, model: &str) -> Option<String> {
    let help = format!("a test case is a folder with {model} and test_data_set_0/{{input,output}}_0.pb");
    match std::fs::metadata(case) {
        Err(e) => Some(e.to_string()),
        Ok(metadata) if !metadata.is_dir() => Some(format!("not a folder; {help}")),
        Ok(_) if !case.join(model).is_file() => Some(format!("a folder without {model}; {help}")),
        Ok(_) => None,
    }
}

/// What is no case has failed, and the others go on.
fn unreadable(case: &Path, reason: String) -> Record {
    Record {
        case: case.file_name().unwrap_or(case.as_os_str()).to_string_lossy().into_owned(),
        verdict: Verdict::Failed,
        reason,
        internal: false,
        code: None,
        ops: OpCounts::default(),
        milliseconds: 0.0,
    }
}

fn as_json(case: &Path, record: &Record) -> serde_json::Value {
    let OpCounts { generated, library, host, view } = record.ops;
    json!({
        "case": record.case,
        "path": case.display().to_string(),
        "verdict": record.verdict.name(),
        "reason": record.reason,
        "internal": record.internal,
        "code": record.code.as_ref().map(CodeSource::name),
        "recompiled_because": match &record.code {
            Some(CodeSource::Recompiled(why)) => Some(why),
            Some(CodeSource::Compiled | CodeSource::Loaded) | None => None,
        },
        "generated": generated,
        "library": library,
        "host": host,
        "view": view,
        "milliseconds": record.milliseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_ends_with_its_own_status() {
        let status = |failed, internal| end(failed, internal).err().map(|e| e.status);
        assert_eq!(status(0, false), None);
        assert_eq!(status(2, false), Some(Status::Failed));
        assert_eq!(status(1, true), Some(Status::Internal));
    }
}
