//! Golden values: networks that other programs computed, built natively, compiled and compared.
//!
//! In: every `.npz` below the folder that `FRIT_GOLDEN` names (default: `shared/golden` beside the workspace), one case
//! each. Out: a line for each that fails, is skipped or is excused by the rounding of f32, then `N passed, N failed, N skipped`; any failure fails the
//! test. Where there is no such folder, that is said and the test passes.
//!
//! `cargo test --release --test golden -- --nocapture` shows the lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod af_kan;
mod file;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// With what rounding excuses.
    Passed(Vec<String>),
    Failed(Vec<String>),
    Skipped(String),
}

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate");
    std::env::var_os("FRIT_GOLDEN").map_or_else(|| root.join("../shared/golden"), PathBuf::from)
}

/// Every `.npz` below a folder, in order.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder that can be read").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "npz") {
            found.push(path);
        }
    }
}

fn verdict(path: &Path) -> Verdict {
    let case = match file::read(path) {
        Ok(case) => case,
        Err(e) => return Verdict::Failed(vec![e]),
    };
    let Some(meta) = af_kan::meta(&case) else {
        return Verdict::Skipped("no meta of an AF-KAN".to_owned());
    };
    // A panic is a failure of its case, and no reason to leave out the rest.
    match catch_unwind(AssertUnwindSafe(|| af_kan::check(&case, &meta))) {
        Ok(found) if found.wrong.is_empty() => Verdict::Passed(found.rounded),
        Ok(found) => Verdict::Failed(found.wrong),
        Err(_) => Verdict::Failed(vec!["panicked".to_owned()]),
    }
}

#[test]
fn golden_values() {
    let folder = folder();
    if !folder.is_dir() {
        println!("skipped: no folder {}; name one with FRIT_GOLDEN", folder.display());
        return;
    }
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    let (mut passed, mut failed, mut skipped) = (0, 0, BTreeMap::<String, Vec<String>>::new());
    for path in &paths {
        let name = path.strip_prefix(&folder).unwrap_or(path).display().to_string();
        match verdict(path) {
            Verdict::Passed(rounded) => {
                passed += 1;
                if let Some(first) = rounded.first() {
                    println!("rounded {name}: {} results, as {first}", rounded.len());
                }
            }
            Verdict::Failed(reasons) => {
                failed += 1;
                println!("failed {name}: {}", reasons.join("; "));
            }
            Verdict::Skipped(reason) => skipped.entry(reason).or_default().push(name),
        }
    }
    for (reason, names) in &skipped {
        println!("skipped, {reason}: {}", names.join(", "));
    }
    println!("{passed} passed, {failed} failed, {} skipped", skipped.values().map(Vec::len).sum::<usize>());
    assert_eq!(failed, 0, "{failed} of {} golden cases failed", paths.len());
}
