//! Text in, text out: files that hold an input and what the compiler makes of it.
//!
//! ```text
//! ; math strict                           an option: it holds for the tests below it
//! ; test simplify                         a test; a file may have several
//!
//! ; x + 0 must stay: -0 + 0 is 0.         prose, after a blank line
//! frit 1
//! func @infer(...) { ... }                the input: a module (.frit), or a kernel (.loops)
//!
//! ; --- test simplify, math strict        what each test gave, in order, as comments: `FRIT_BLESS=1` writes this part
//! ; simplify: nothing to do
//! ; func @infer(...) { ... }
//! ```
//!
//! Tests of a module: a pass or `passes "TEXT"` (what fired, what nearly did, the module afterwards), `loops`, `clif
//! LEVEL`, `asm LEVEL` and `cuda` (of every kernel), `error` (the text or the module is refused), `error "TEXT"` (a
//! pipeline refuses it). Tests of a kernel: `expand`, `clif LEVEL`, `asm LEVEL`, `cuda`, `error`. Options: `math
//! strict|fast` (else as the ops say), `schedule TEXT` (of a kernel), `pipeline "TEXT"` (else `-O3`, of tests that need
//! kernels). LEVEL is one of x86-64, as `x86-64-v3`; `clif` is everything by Cranelift, `asm` the strips by the back end
//! that the machine would use.
//!
//! What a test gives depends on the file alone: machine code is for a named machine, and kernels are generated on one
//! and on two threads, which must agree.

use std::fmt::Write as _;
use std::sync::Arc;

use frit_compiler::cpu::{CodeOptions, Effort, Target, Vectors, compile_text};
use frit_compiler::cuda;
use frit_compiler::driver::{self, Compiled};
use frit_compiler::kernel::expand::expand;
use frit_compiler::kernel::{self, Kernel};
use frit_compiler::schedule::Schedule;
use frit_ir::text::{ConstantPool, NoConstants, PrintOptions, from_text, parse, print};
use frit_ir::{Module, verify};
use frit_passes::manager::{self, Math, PASSES, Pipeline, Report};

use crate::diff::unified;

/// How a section of expected text begins.
const SECTION: &str = "; --- ";

/// What a file's input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A module of `.frit` text.
    Module,
    /// A kernel of loop IR.
    Kernel,
}

/// What options say.
#[derive(Clone, Debug, Default)]
struct Options {
    math: Option<Math>,
    schedule: Schedule,
    pipeline: Option<String>,
    /// As written, for titles.
    texts: Vec<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Passes(Pipeline),
    Loops,
    Expand,
    Clif(String),
    Asm(String),
    Cuda,
    Error(Option<Pipeline>),
}

#[derive(Clone, Debug)]
struct Test {
    title: String,
    kind: Kind,
    options: Options,
}

/// A file as read: what to do with which input, and what is expected.
struct File<'t> {
    input: &'t str,
    tests: Vec<Test>,
    /// Title and text.
    expected: Vec<(String, String)>,
}

/// What a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// The file with what its tests gave now; it was asked for, and differs.
    Blessed(String),
    /// This machine can't tell, and why.
    Skipped(String),
}

/// Runs the tests of a file's text.
///
/// # Errors
/// What is wrong with the file, what fails, or how what its tests give differs from what it expects.
pub fn check(text: &str, input: Input, bless: bool) -> Result<Outcome, String> {
    let file = read(text, input)?;
    let mut found = Vec::new();
    for test in &file.tests {
        if matches!(test.kind, Kind::Clif(_) | Kind::Asm(_)) && !cfg!(target_arch = "x86_64") {
            return Ok(Outcome::Skipped("no code generator for x86-64 in this build".to_owned()));
        }
        let body = run(test, file.input, input).map_err(|e| format!("{}: {e}", test.title))?;
        if body.trim().is_empty() {
            return Err(format!("{}: gives nothing, so it tests nothing", test.title));
        }
        found.push((test.title.clone(), body));
    }
    if bless {
        let new = format!("{}\n{}", file.input.trim_end(), sections(&found));
        return Ok(if new == text { Outcome::Passed } else { Outcome::Blessed(new) });
    }
    if let Some((title, _)) = file.expected.iter().find(|(_, body)| body.trim().is_empty()) {
        return Err(format!("{title}: the expected text is empty"));
    }
    let (old, new) = (sections(&file.expected), sections(&found));
    let missing = if file.expected.is_empty() { "the file expects nothing yet\n" } else { "" };
    if old == new { Ok(Outcome::Passed) } else { Err(format!("{missing}{}", unified(&old, &new))) }
}

/// Sections as they stand in a file.
fn sections(all: &[(String, String)]) -> String {
    let mut out = String::new();
    for (title, body) in all {
        let _ = writeln!(out, "\n{SECTION}{title}");
        for line in body.trim_end().lines() {
            let line = line.trim_end();
            out.push_str(if line.is_empty() { ";" } else { "; " });
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn read(text: &str, input: Input) -> Result<File<'_>, String> {
    let (mut tests, mut options) = (Vec::new(), Options::default());
    for (i, line) in text.lines().enumerate().take_while(|(_, line)| line.starts_with(';')) {
        let said = line.trim_start_matches(';').trim();
        directive(said, input, &mut options, &mut tests).map_err(|e| format!("line {}: {e}", i + 1))?;
    }
    if tests.is_empty() {
        return Err("the file begins with no `; test ...`".to_owned());
    }
    let mut offset = 0;
    let place = |line: &&str| {
        offset += line.len();
        line.starts_with(SECTION)
    };
    let end = match text.split_inclusive('\n').find(place) {
        Some(line) => offset - line.len(),
        None => text.len(),
    };
    let (input, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let mut expected: Vec<(String, String)> = Vec::new();
    for line in rest.lines() {
        if let Some(title) = line.strip_prefix(SECTION) {
            expected.push((title.to_owned(), String::new()));
        } else if let (Some(line), Some((_, body))) = (line.strip_prefix(';'), expected.last_mut()) {
            body.push_str(line.strip_prefix(' ').unwrap_or(line));
            body.push('\n');
        } else if !line.trim().is_empty() {
            return Err(format!("`{line}` stands among what is expected, where every line begins with `;`"));
        }
    }
    Ok(File { input, tests, expected })
}

fn directive(text: &str, input: Input, options: &mut Options, tests: &mut Vec<Test>) -> Result<(), String> {
    let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
    match word {
        "test" => {
            let title = [vec![text.to_owned()], options.texts.clone()].concat().join(", ");
            tests.push(Test { title, kind: kind(rest, input)?, options: options.clone() });
            return Ok(());
        }
        "math" => {
            options.math = Some(match rest {
                "strict" => Math::Strict,
                "fast" => Math::Fast,
                other => return Err(format!("math is strict or fast, not `{other}`")),
            });
        }
        "schedule" if input == Input::Kernel => options.schedule = rest.parse().map_err(|e| format!("{e}"))?,
        "pipeline" if input == Input::Module => {
            pipeline(rest)?;
            options.pipeline = Some(unquoted(rest).to_owned());
        }
        other => {
            return Err(format!("there is no directive `{other}` for a {input:?}; prose comes after a blank line"));
        }
    }
    // A later value of the same option replaces the earlier.
    options.texts.retain(|t| t.split(' ').next() != Some(word));
    options.texts.push(text.to_owned());
    Ok(())
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

fn pipeline(text: &str) -> Result<Pipeline, String> {
    Pipeline::parse(unquoted(text)).map_err(|e| e.to_string())
}

fn kind(text: &str, input: Input) -> Result<Kind, String> {
    let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
    let needs_nothing = matches!(word, "loops" | "expand" | "cuda");
    if needs_nothing && !rest.is_empty() {
        return Err(format!("test {word} takes nothing, not `{rest}`"));
    }
    match (word, input) {
        ("cuda", _) => Ok(Kind::Cuda),
        ("clif", _) if rest.starts_with("x86-64") => Ok(Kind::Clif(rest.to_owned())),
        ("asm", _) if rest.starts_with("x86-64") => Ok(Kind::Asm(rest.to_owned())),
        ("clif" | "asm", _) => Err(format!("test {word} needs a level of x86-64, as `x86-64-v3`, not `{rest}`")),
        ("error", _) if rest.is_empty() => Ok(Kind::Error(None)),
        ("error", Input::Module) => Ok(Kind::Error(Some(pipeline(rest)?))),
        ("loops", Input::Module) => Ok(Kind::Loops),
        ("expand", Input::Kernel) => Ok(Kind::Expand),
        ("passes", Input::Module) if !rest.is_empty() => Ok(Kind::Passes(pipeline(rest)?)),
        (pass, Input::Module) if rest.is_empty() && PASSES.iter().any(|p| p.name == pass) => {
            Ok(Kind::Passes(pipeline(pass)?))
        }
        _ => Err(format!("there is no test `{text}` of a {input:?}")),
    }
}

/// What a test gives.
fn run(test: &Test, text: &str, input: Input) -> Result<String, String> {
    if let Kind::Error(pipeline) = &test.kind {
        return refusal(text, input, pipeline.as_ref(), &test.options);
    }
    match input {
        Input::Kernel => of_kernel(test, text),
        Input::Module => {
            let module = from_text(text, &NoConstants).map_err(|e| e.to_string())?;
            of_module(test, module)
        }
    }
}

fn of_module(test: &Test, mut module: Module) -> Result<String, String> {
    match &test.kind {
        Kind::Passes(pipeline) => {
            let report = passes(&mut module, pipeline, &test.options)?;
            let options = PrintOptions { origins: false, ..PrintOptions::inline() };
            let printed = print(&module, &options, &mut ConstantPool::default());
            Ok(said(&report) + printed.split_once('\n').map_or("", |(_, rest)| rest))
        }
        Kind::Loops => {
            let mut out = String::new();
            let compiled = compiled(&module, &test.options)?;
            for source in &compiled.kernels {
                let schedule = &source.schedule;
                let _ = writeln!(out, "{}schedule: {schedule}\n", source.kernel);
            }
            compiled.remarks.iter().for_each(|remark| _ = writeln!(out, "{remark}"));
            Ok(out)
        }
        Kind::Clif(_) | Kind::Asm(_) | Kind::Cuda => {
            let mut out = String::new();
            for source in compiled(&module, &test.options)?.kernels {
                out += &machine_text(&test.kind, &source.kernel, &source.schedule)?;
            }
            Ok(out)
        }
        Kind::Expand | Kind::Error(_) => Err("no test of a module".to_owned()),
    }
}

fn of_kernel(test: &Test, text: &str) -> Result<String, String> {
    let mut kernel: Kernel = text.parse().map_err(|e| format!("{e}"))?;
    kernel::verify(&kernel).map_err(|e| e.to_string())?;
    match &test.kind {
        Kind::Expand => {
            expand(&mut kernel).map_err(|e| e.to_string())?;
            Ok(kernel.to_string())
        }
        kind => machine_text(kind, &kernel, &test.options.schedule),
    }
}

/// A kernel for one machine or language.
fn machine_text(kind: &Kind, kernel: &Kernel, schedule: &Schedule) -> Result<String, String> {
    let mut kernel = kernel.clone();
    expand(&mut kernel).map_err(|e| e.to_string())?;
    match kind {
        Kind::Clif(level) => {
            let target = Arc::new(Target::x86_64(level).map_err(|e| e.to_string())?);
            // Groups: strips come from Cranelift, too.
            let options = CodeOptions { target, effort: Effort::Auto, vectors: Vectors::Groups(4) };
            Ok(compile_text(&kernel, schedule, &options).map_err(|e| e.to_string())?.0)
        }
        Kind::Asm(level) => {
            let target = Arc::new(Target::x86_64(level).map_err(|e| e.to_string())?);
            let options = CodeOptions { target, effort: Effort::Auto, vectors: Vectors::Widest };
            Ok(strips(&compile_text(&kernel, schedule, &options).map_err(|e| e.to_string())?.1))
        }
        Kind::Cuda => cuda::emit(&kernel).map_err(|e| e.to_string()),
        Kind::Passes(_) | Kind::Loops | Kind::Expand | Kind::Error(_) => Err("no text of a machine".to_owned()),
    }
}

/// The strips of a listing; what calls them is told by `clif`.
fn strips(asm: &str) -> String {
    let mut inside = false;
    let kept = asm.lines().filter(|line| {
        if line.starts_with("; ") {
            inside = line.starts_with("; strip");
        }
        inside
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn passes(module: &mut Module, pipeline: &Pipeline, options: &Options) -> Result<Report, String> {
    let options = manager::Options { math: options.math.unwrap_or(Math::AsWritten), ..manager::Options::default() };
    manager::run(module, pipeline, &options).map_err(|e| e.to_string())
}

/// What passes say they did: a line a pass, then its near misses and remarks.
fn said(report: &Report) -> String {
    let mut out = String::new();
    for pass in &report.passes {
        let rules: Vec<String> = pass.fired.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
        let rules = if rules.is_empty() { "nothing to do".to_owned() } else { rules.join(", ") };
        let _ = writeln!(out, "{}: {rules}", pass.step);
        for miss in &pass.near_misses {
            let _ = writeln!(out, "near miss: {} at {}: {}", miss.rule, miss.origin, miss.reason);
        }
        for remark in &pass.remarks {
            let _ = writeln!(out, "not fused: {} and {}: {}", remark.producer, remark.consumer, remark.reason);
        }
    }
    out
}

/// The kernels of a module, generated on one thread and on two.
fn compiled(module: &Module, options: &Options) -> Result<Compiled, String> {
    let compile = |threads| {
        let options = driver::Options {
            math: options.math.unwrap_or(Math::AsWritten),
            level: manager::Level::O3,
            passes: options.pipeline.clone(),
            threads: Some(threads),
            ..driver::Options::default()
        };
        driver::compile(module.clone(), &options).map_err(|e| e.to_string())
    };
    let (one, two) = (compile(1)?, compile(2)?);
    let same = one.plan.code == two.plan.code
        && one.remarks == two.remarks
        && one.kernels.iter().zip(&two.kernels).all(|(a, b)| a.kernel == b.kernel && a.schedule == b.schedule);
    if same { Ok(one) } else { Err("two threads generate other code than one".to_owned()) }
}

/// Why an input is refused.
fn refusal(text: &str, input: Input, pipeline: Option<&Pipeline>, options: &Options) -> Result<String, String> {
    if input == Input::Kernel {
        let refused = match text.parse::<Kernel>() {
            Ok(kernel) => kernel::verify(&kernel).err().map(|e| e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        return refused.ok_or_else(|| "the kernel is accepted".to_owned());
    }
    let mut module = match (from_text(text, &NoConstants), pipeline) {
        (Ok(module), _) => module,
        (Err(e), Some(_)) => return Err(e.to_string()),
        // What only the verifier finds has a text whose types are not believed to be wrong.
        (Err(e), None) => {
            let unchecked = parse("text", text, &NoConstants, false).ok();
            let found = unchecked.and_then(|module| verify::verify(&module).err());
            return Ok(found.map_or_else(|| e.to_string(), |found| found.to_string()));
        }
    };
    let refused = match pipeline {
        Some(pipeline) => passes(&mut module, pipeline, options).err(),
        None => verify::verify(&module).err().map(|e| e.to_string()),
    };
    refused.ok_or_else(|| "nothing is refused".to_owned())
}
