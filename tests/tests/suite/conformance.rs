//! Official and golden cases: none may fail.
//!
//! `FRIT_ONNX_CASES` names the folder of official ONNX node cases; the golden AF-KANs lie in `FRIT_SHARED`, or beside
//! the workspace. Where a folder is absent, its test says so and checks nothing.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use frit_passes::manager::{Level, Math};
use frit_runtime::CompileOptions;
use frit_runtime::verify::{Record, Verdict, verify};

/// Official node cases that pass, of 1,765; the others need what is not supported yet.
const OFFICIAL_PASSES: usize = 1600;

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.join("model.onnx").is_file()).collect();
    found.sort();
    found
}

/// Every case under every option, on as many threads as there are cores.
fn verify_all(cases: &[PathBuf], level: Level, math: Math) -> Vec<Record> {
    let options = CompileOptions { level, math, ..CompileOptions::default() };
    let (next, records) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let record = verify(case, &options);
                    records.lock().expect("no panic inside").push(record);
                }
            });
        }
    });
    records.into_inner().expect("no panic inside")
}

fn count(records: &[Record], verdict: Verdict) -> usize {
    records.iter().filter(|r| r.verdict == verdict).count()
}

fn failures(records: &[Record]) -> String {
    let failed = records.iter().filter(|r| r.verdict == Verdict::Failed);
    failed.map(|r| format!("\n  {}: {}", r.case, r.reason)).collect()
}

#[test]
fn official_node_cases() {
    let Some(folder) = std::env::var_os("FRIT_ONNX_CASES") else {
        println!("skipped: FRIT_ONNX_CASES names no folder of ONNX node cases");
        return;
    };
    let cases = folders(Path::new(&folder));
    assert!(!cases.is_empty(), "FRIT_ONNX_CASES holds no case");
    for level in [Level::O0, Level::O3] {
        let records = verify_all(&cases, level, Math::Fast);
        let (passed, failed) = (count(&records, Verdict::Passed), count(&records, Verdict::Failed));
        println!("{level:?}: {passed} passed, {failed} failed, {} skipped", count(&records, Verdict::Skipped));
        assert_eq!(failed, 0, "{level:?}:{}", failures(&records));
        assert!(passed >= OFFICIAL_PASSES.min(cases.len()), "{level:?}: only {passed} of {} pass", cases.len());
    }
}

#[test]
fn golden_af_kans() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("FRIT_SHARED").map_or_else(beside, PathBuf::from);
    let cases = folders(&shared.join("golden/afkan/cases"));
    if cases.is_empty() {
        println!("skipped: no golden AF-KANs in FRIT_SHARED or beside the workspace");
        return;
    }
    for (level, math) in
        [(Level::O0, Math::Strict), (Level::O0, Math::Fast), (Level::O3, Math::Strict), (Level::O3, Math::Fast)]
    {
        let records = verify_all(&cases, level, math);
        assert_eq!(count(&records, Verdict::Passed), cases.len(), "{level:?} {math:?}:{}", failures(&records));
    }
}
