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
    for case in &args.cases {
        check_folder(case, model)?;
    }
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    engine::check_flags(&args.flags, &console)?;
    let options = engine::options(&args.flags);
    let progress = Progress::new(args.cases.len());
    let (mut passed, mut failed, mut skipped, mut internal) = (0, 0_usize, 0, false);
    for case in &args.cases {
        progress.begin(&case.display().to_string());
        let record = match args.trust.trust_code {
            true => verify_compiled(case, &case.join(model), &options),
            false => verify(case, &options),
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

/// A case is a folder with a model in it.
fn check_folder(case: &Path, model: &str) -> Done {
    let metadata = std::fs::metadata(case).map_err(|e| CliError::file(case, &e))?;
    let wrong = if !metadata.is_dir() {
        "not a folder".to_owned()
    } else if !case.join(model).is_file() {
        format!("a folder without {model}")
    } else {
        return Ok(());
    };
    let help = format!("a test case is a folder with {model} and test_data_set_0/{{input,output}}_0.pb");
    Err(CliError::failed(format!("{}: {wrong}", case.display()), help))
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
