//! House rules that no compiler checks: file length, a page at the top of each file, places of `unsafe`, import
//! direction, what the top level holds.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file that a newcomer can take in.
const LONGEST: usize = 800;

/// The only files that may hold `unsafe`: machine code calls, vector intrinsics, raw buffers, file maps, the
/// tests that call code or count allocations, and the benchmark whose opponent is written in intrinsics.
const UNSAFE: &[&str] = &[
    "compiler/src/cpu/exec.rs",
    "compiler/src/cpu/strip/tests.rs",
    "compiler/src/cpu/tests/harness.rs",
    "ir/src/map.rs",
    "runtime/benches/basis.rs",
    "runtime/src/executor/memory.rs",
    "runtime/src/library/gemm/backend.rs",
    "runtime/src/library/gemm/blocks.rs",
    "runtime/src/library/gemm/exact.rs",
    "runtime/src/library/gemm/isa.rs",
    "runtime/src/library/gemm/kernels.rs",
    "runtime/src/library/gemm/panels.rs",
    "runtime/src/library/gemm/x86.rs",
    "runtime/src/library/grid.rs",
    "runtime/src/library/simd.rs",
    "runtime/src/pool/own.rs",
    "runtime/tests/allocations.rs",
];

/// Crates from the bottom up: each may import those before it.
const FLOORS: &[(&str, &str)] = &[
    ("ir/", "frit_ir"),
    ("passes/", "frit_passes"),
    ("compiler/", "frit_compiler"),
    ("runtime/src/", "frit_runtime"),
    ("runtime/cli/", "frit_cli"),
];

/// What the top level holds besides dot-files.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "compiler",
    "ir",
    "passes",
    "runtime",
    "rustfmt.toml",
    "target",
    "tests",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file of the project: its path from the root and its text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    for dir in ["ir", "passes", "compiler", "runtime", "tests"] {
        sources(&root.join(dir), &mut paths);
    }
    let mut files: Vec<(String, String)> = paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("a text file"))
        })
        .collect();
    files.sort();
    assert!(files.len() > 50, "only {} files were found: the walk is broken", files.len());
    files
}

fn report(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn files_are_short_enough_to_take_in() {
    let long = files().into_iter().map(|(name, text)| (name, text.lines().count())).filter(|(_, n)| *n > LONGEST);
    report("longer than 800 lines", long.map(|(name, n)| format!("{name}: {n}")).collect());
}

#[test]
fn every_file_opens_with_its_page() {
    let bare = files().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    report("no `//!` page at the top", bare.map(|(name, _)| name).collect());
}

#[test]
fn unsafe_is_in_few_places() {
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| code.contains(w))
    };
    let offenders = files()
        .into_iter()
        .filter(|(name, _)| !UNSAFE.contains(&name.as_str()) && !name.ends_with("suite/tidy.rs"))
        .filter(|(_, text)| text.lines().any(is_unsafe));
    report("`unsafe` outside the list in this test", offenders.map(|(name, _)| name).collect());
}

#[test]
fn imports_run_one_way() {
    let mut offenders = Vec::new();
    for (name, text) in files() {
        let Some(floor) = FLOORS.iter().position(|(dir, _)| name.starts_with(dir)) else { continue };
        for (_, above) in &FLOORS[floor + 1..] {
            if text.contains(&format!("{above}::")) {
                offenders.push(format!("{name} imports {above}"));
            }
        }
    }
    report("an import that runs upwards", offenders);
}

#[test]
fn the_top_level_holds_what_the_house_has() {
    let strange: Vec<String> = fs::read_dir(root())
        .expect("the root")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with('.') && !TOP.contains(&n.as_str()))
        .collect();
    report("not part of the house", strange);
}
