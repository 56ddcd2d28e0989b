//! The golden AF-KAN exports, end to end: import, passes, code, run, compare.
#![cfg(feature = "jit")]

use std::path::{Path, PathBuf};

use frit_runtime::CompileOptions;
use frit_runtime::verify::{Verdict, verify};

/// The folder of shared test files: `FRIT_SHARED`, else `shared` beside the workspace.
fn shared() -> Option<PathBuf> {
    let path = match std::env::var_os("FRIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    path.is_dir().then_some(path)
}

#[test]
fn golden_af_kans_pass() {
    let Some(shared) = shared() else {
        eprintln!("skipped: no folder of shared test files");
        return;
    };
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(shared.join("golden/afkan/cases")).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    let records: Vec<_> = folders.iter().map(|f| verify(f, &CompileOptions::default())).collect();
    for record in &records {
        eprintln!("{} {} {} ({})", record.verdict.name(), record.case, record.reason, record.ops);
    }
    assert!(records.len() >= 10 && records.iter().all(|r| r.verdict == Verdict::Passed));
}
