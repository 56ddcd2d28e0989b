//! `--dump-ir DIR`: the module after every pass that changed it, as files that run again.
//!
//! ```text
//!  DIR/00-import.frit   01-legalize.frit  ..   one a pass that changed something, under a header of comments
//!  DIR/00-import.dot    ..                     the same as drawings, one a function
//!  DIR/constants.safetensors                   large tensors of all texts, each once
//!  DIR/summary.md                              one page: times, op counts, rules, near misses, remarks
//! ```
//!
//! Numbers count passes, so that a gap is a pass that changed nothing. Files of an earlier run with the same names are
//! replaced, others stay. Parameters that nothing reads any more are left out, and of source files only the end of the
//! path is told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use frit_ir::Module;
use frit_ir::text::{ConstantPool, PrintOptions, dot, print};

use super::report::{PassReport, Report};
use super::{PassError, count_ops};

const CONSTANTS: &str = "constants.safetensors";
/// Near misses and remarks shown in a header or the summary.
const SHOWN: usize = 40;

/// A dump being written.
pub(super) struct Dump {
    dir: PathBuf,
    pool: ConstantPool,
    next: usize,
    /// Names of the files of each pass; `None`: it changed nothing.
    files: Vec<Option<String>>,
}

fn failed(path: &Path, message: impl ToString) -> PassError {
    PassError::Dump { path: path.display().to_string(), message: message.to_string() }
}

fn write(path: &Path, text: &str) -> Result<(), PassError> {
    std::fs::write(path, text).map_err(|e| failed(path, e))
}

impl Dump {
    /// Makes the folder and writes the module as it came.
    pub(super) fn start(dir: &Path, module: &Module) -> Result<Dump, PassError> {
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        let mut dump = Dump { dir: dir.to_owned(), pool: ConstantPool::default(), next: 1, files: Vec::new() };
        dump.module("00-import", &format!("; as imported: {} ops\n", count_ops(module)), module)?;
        Ok(dump)
    }

    fn module(&mut self, stem: &str, header: &str, module: &Module) -> Result<(), PassError> {
        let options = PrintOptions {
            constants_file: Some(CONSTANTS.to_owned()),
            short_sources: true,
            used_params: true,
            ..PrintOptions::default()
        };
        let text = print(module, &options, &mut self.pool);
        write(&self.dir.join(format!("{stem}.frit")), &format!("{header}{text}"))?;
        let drawings: Vec<String> = module.functions.values().map(dot).collect();
        write(&self.dir.join(format!("{stem}.dot")), &drawings.join("\n"))
    }

    /// Writes what a pass left, when it changed something.
    pub(super) fn pass(&mut self, name: &str, report: &PassReport, module: &Module) -> Result<(), PassError> {
        let stem = format!("{:02}-{name}", self.next);
        self.next += 1;
        if !report.changed() {
            self.files.push(None);
            return Ok(());
        }
        self.module(&stem, &header(report), module)?;
        self.files.push(Some(stem));
        Ok(())
    }

    /// Writes the constants and the summary.
    pub(super) fn finish(self, report: &Report) -> Result<(), PassError> {
        let constants = self.dir.join(CONSTANTS);
        self.pool.write(&constants).map_err(|e| failed(&constants, e))?;
        write(&self.dir.join("summary.md"), &summary(report, &self.files))
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}

fn rules(report: &PassReport) -> String {
    let rules: Vec<String> = report.fired.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
    rules.join(", ")
}

/// Near misses and remarks as lines.
fn refusals(report: &PassReport) -> Vec<String> {
    let mut lines: Vec<String> = report
        .near_misses
        .iter()
        .take(SHOWN)
        .map(|miss| format!("near miss: {} at {}: {}", miss.rule, miss.origin, miss.reason))
        .collect();
    let hidden = report.near_miss_count.saturating_sub(lines.len() as u64);
    if hidden > 0 {
        lines.push(format!("near misses not shown: {hidden}"));
    }
    lines.extend(report.remarks.iter().take(SHOWN).map(|remark| {
        format!("not fused: {} into {} ({}): {}", remark.producer, remark.consumer, remark.function, remark.reason)
    }));
    if report.remarks.len() > SHOWN {
        lines.push(format!("remarks not shown: {}", report.remarks.len() - SHOWN));
    }
    lines
}

fn header(report: &PassReport) -> String {
    let mut out = String::new();
    let time = milliseconds(report.seconds);
    let _ = writeln!(out, "; {}: {} ops to {}, {time}", report.step, report.ops_before, report.ops_after);
    let _ = writeln!(out, "; rules: {}", rules(report));
    for line in refusals(report) {
        // An origin may hold anything; a comment ends with its line.
        let _ = writeln!(out, "; {}", line.replace(['\n', '\r'], " "));
    }
    out
}

fn summary(report: &Report, files: &[Option<String>]) -> String {
    let mut out = String::from("# Passes\n\n");
    let fuel = report.fuel_left.map_or(String::new(), |left| format!(", {left} fuel left"));
    let time = milliseconds(report.seconds);
    let _ = writeln!(out, "{} rewrites in {time}{fuel}; tensors in `{CONSTANTS}`.\n", report.rewrites);
    out.push_str("| pass | file | time | ops before | after | rules |\n|---|---|---|---|---|---|\n");
    for (i, pass) in report.passes.iter().enumerate() {
        let file = files.get(i).and_then(Option::as_ref).map_or("unchanged".to_owned(), |f| format!("`{f}.frit`"));
        let (step, time) = (&pass.step, milliseconds(pass.seconds));
        let _ =
            writeln!(out, "| {step} | {file} | {time} | {} | {} | {} |", pass.ops_before, pass.ops_after, rules(pass));
    }
    for pass in &report.passes {
        let lines = refusals(pass);
        if !lines.is_empty() {
            let _ = writeln!(out, "\n## {}\n", pass.step);
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "- {line}");
            });
        }
    }
    out
}
