//! `frit verify`: ONNX test cases, a line each, then how many passed.

use std::path::Path;

use frit_compiler::plan::OpCounts;
use frit_runtime::verify::{Record, Verdict, verify};
use serde_json::json;

use crate::args::VerifyArgs;
use crate::console::Console;
use crate::engine;
use crate::error::{CliError, Done, one_line};
use crate::progress::Progress;

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Done {
    for case in &args.cases {
        check_folder(case)?;
    }
    let mut console = Console::new(&args.json)?;
    engine::set_threads(args.flags.threads);
    let options = engine::options(&args.flags);
    let progress = Progress::new(args.cases.len());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in &args.cases {
        progress.begin(&case.display().to_string());
        let record = verify(case, &options);
        let name = one_line(&record.case);
        let line = match record.verdict {
            Verdict::Passed => {
                passed += 1;
                format!("PASS {name}")
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
    if failed > 0 {
        // The last line is the count; what failed is told above.
        return Err(CliError::told());
    }
    Ok(())
}

/// A case is a folder with a model in it.
fn check_folder(case: &Path) -> Done {
    let metadata = std::fs::metadata(case).map_err(|e| CliError::file(case, &e))?;
    let wrong = if !metadata.is_dir() {
        "not a folder"
    } else if !case.join("model.onnx").is_file() {
        "a folder without model.onnx"
    } else {
        return Ok(());
    };
    let help = "a test case is a folder with model.onnx and test_data_set_0/{input,output}_0.pb";
    Err(CliError::failed(format!("{}: {wrong}", case.display()), help))
}

fn as_json(case: &Path, record: &Record) -> serde_json::Value {
    let OpCounts { generated, library, host, view } = record.ops;
    json!({
        "case": record.case,
        "path": case.display().to_string(),
        "verdict": record.verdict.name(),
        "reason": record.reason,
        "generated": generated,
        "library": library,
        "host": host,
        "view": view,
        "milliseconds": record.milliseconds,
    })
}
