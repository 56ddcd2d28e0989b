//! A path to something that runs: find the model, read it, compile it, make it ready.
//!
//! In: what the user typed. Out: a module ([`load`]), a model that can run ([`ready`]). A folder means the test case in
//! it; what a file is, its extension says. When shapes depend on the values of inputs, and those are given, the model is
//! compiled for these. Code of a .fritc runs only with `--trust-code`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frit_compiler::cpu::{Target, VectorBits, Vectors};
use frit_compiler::driver::check_dims;
use frit_ir::{HostValue, Module, Op, Tensor, ValueType};
use frit_passes::manager::{Level, Math};
use frit_runtime::compile::{CompileOptions, Compiled};
use frit_runtime::load::{load_module, load_to_train as module_to_train};
use frit_runtime::pool::Pool;
use frit_runtime::{CodeSource, LoadError, Model, Opened, open_artifact};

use crate::args::{self, CompileFlags, InputFlags, TrustFlag};
use crate::console::Console;
use crate::error::{CliError, Done};
use crate::inputs;

/// A model on disk.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The model file.
    pub(crate) file: PathBuf,
    /// The test-case folder that it was named by.
    pub(crate) case: Option<PathBuf>,
}

/// A model in memory.
pub(crate) struct Loaded {
    /// Where it lies.
    pub(crate) source: Source,
    /// What it says.
    pub(crate) module: Module,
    /// Inputs that a compiled file was made for.
    pub(crate) fixed: HashMap<String, Tensor>,
    /// Whether it is compiled for the first time.
    pub(crate) code: CodeSource,
    /// What reading took.
    pub(crate) time: Duration,
}

/// A model that can run.
pub(crate) struct Ready {
    /// Where it lies.
    pub(crate) source: Source,
    /// What runs.
    pub(crate) subject: Subject,
    /// Values of its inputs that are given.
    pub(crate) given: Given,
    /// Where its code came from.
    pub(crate) code: CodeSource,
    /// What reading took.
    pub(crate) load_time: Duration,
    /// What compiling took: nothing when the code was loaded.
    pub(crate) compile_time: Duration,
}

/// What runs.
pub(crate) enum Subject {
    /// Compiled from a module.
    Compiled(Box<Compiled>, Box<Module>),
    /// Code of a file.
    Loaded(Box<Model>),
}

impl Ready {
    /// The model.
    pub(crate) fn model(&self) -> &Model {
        match &self.subject {
            Subject::Compiled(compiled, _) => &compiled.model,
            Subject::Loaded(model) => model,
        }
    }

    /// What it was compiled from, unless its code was loaded.
    pub(crate) fn compiled(&self) -> Option<&Compiled> {
        match &self.subject {
            Subject::Compiled(compiled, _) => Some(compiled),
            Subject::Loaded(_) => None,
        }
    }

    /// A line about the code of a compiled file; of other models there is nothing to say.
    pub(crate) fn code_line(&self) -> Option<String> {
        match &self.code {
            CodeSource::Compiled => None,
            CodeSource::Loaded => Some("code   loaded as it is, nothing compiled".to_owned()),
            CodeSource::Recompiled(reason) => Some(format!("code   compiled again: {reason}")),
        }
    }

    /// Why the code of a compiled file was not used, for JSON.
    pub(crate) fn recompiled_because(&self) -> Option<&str> {
        match &self.code {
            CodeSource::Recompiled(reason) => Some(reason),
            CodeSource::Compiled | CodeSource::Loaded => None,
        }
    }

    /// Bits of the vectors in its code; `None`: code that was loaded does not say.
    pub(crate) fn vector_bits(&self, flags: &CompileFlags) -> Done<Option<u32>> {
        match self.subject {
            Subject::Compiled(..) => vector_bits(flags).map(Some),
            Subject::Loaded(_) => Ok(None),
        }
    }
}

/// Values of inputs by name, before the rest is made up.
pub(crate) type Given = Vec<(String, HostValue)>;

/// Finds the model that a path means.
pub(crate) fn locate(path: &Path) -> Done<Source> {
    let metadata = std::fs::metadata(path).map_err(|e| CliError::file(path, &e))?;
    if metadata.is_dir() {
        let file = path.join("model.onnx");
        if !file.is_file() {
            let message = format!("{}: a folder without model.onnx", path.display());
            return Err(CliError::failed(message, "name a model file, or an ONNX test-case folder"));
        }
        return Ok(Source { file, case: Some(path.to_owned()) });
    }
    if !matches!(path.extension().and_then(|e| e.to_str()), Some("onnx" | "frit" | "fritc")) {
        let message = format!("{}: neither .onnx, .frit nor .fritc", path.display());
        return Err(CliError::failed(
            message,
            "a model is an .onnx, .frit or .fritc file, or an ONNX test-case folder",
        ));
    }
    if metadata.len() == 0 {
        let message = format!("{}: the file is empty", path.display());
        return Err(CliError::failed(message, "write the model again: nothing was saved in it"));
    }
    Ok(Source { file: path.to_owned(), case: None })
}

fn is_compiled(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "fritc")
}

/// What a file gives.
enum Read {
    Module(Loaded),
    Code { source: Source, model: Box<Model>, fixed: HashMap<String, Tensor>, time: Duration },
}

fn read(source: Source, trust: bool) -> Done<Read> {
    let start = Instant::now();
    let failed = |e: LoadError| CliError::from(e).in_file(&source.file);
    let (module, fixed, code) = if !is_compiled(&source.file) {
        (load_module(&source.file).map_err(failed)?, HashMap::new(), CodeSource::Compiled)
    } else {
        match open_artifact(&source.file, trust).map_err(failed)? {
            Opened::Module { module, fixed, reason } => {
                let hint = if trust { "" } else { " (--trust-code runs it)" };
                (module, fixed, CodeSource::Recompiled(format!("{reason}{hint}")))
            }
            Opened::Code { model, fixed } => {
                let model = Box::new(model);
                return Ok(Read::Code { source, model, fixed, time: start.elapsed() });
            }
        }
    };
    Ok(Read::Module(Loaded { source, module, fixed, code, time: start.elapsed() }))
}

/// Reads a model, to be compiled: code of a compiled file is not used.
pub(crate) fn load(path: &Path) -> Done<Loaded> {
    match read(locate(path)?, false)? {
        Read::Module(loaded) => Ok(loaded),
        Read::Code { .. } => Err(CliError::internal("code was used that nobody trusts")),
    }
}

/// Reads a model, to be trained: weights of an ONNX model are parameters.
pub(crate) fn load_to_train(path: &Path) -> Done<Module> {
    let source = locate(path)?;
    module_to_train(&source.file).map_err(|e| CliError::from(e).in_file(&source.file))
}

/// Options to compile a model that was read: what flags say, and what the file does.
pub(crate) fn options_of(loaded: &Loaded, flags: &CompileFlags) -> CompileOptions {
    let mut options = CompileOptions { fixed: loaded.fixed.clone(), ..options(flags) };
    if flags.math.is_none() && loaded.code != CodeSource::Compiled {
        options.math = Math::AsWritten;
    }
    options
}

/// Compiles what was read; `given` are values that shapes may depend on.
pub(crate) fn compile_loaded(loaded: &Loaded, flags: &CompileFlags, given: &Given) -> Done<Compiled> {
    compile(&loaded.module, &options_of(loaded, flags), given).map_err(|e| e.in_file(&loaded.source.file))
}

/// A model that can run: read, and compiled unless its code may be used.
pub(crate) fn ready(path: &Path, trust: TrustFlag, flags: &CompileFlags, inputs: &InputFlags) -> Done<Ready> {
    let source = locate(path)?;
    check_trust(trust, flags)?;
    if trust.trust_code && !is_compiled(&source.file) {
        let message = format!("--trust-code: {} holds no machine code", source.file.display());
        return Err(CliError::usage(message, "it is for .fritc files, as `frit compile MODEL -o MODEL.fritc` writes"));
    }
    match read(source, trust.trust_code)? {
        Read::Module(loaded) => {
            let mut given = inputs::given(&inputs_of(&loaded.module), inputs, loaded.source.case.as_deref())?;
            let start = Instant::now();
            let compiled = compile_loaded(&loaded, flags, &given)?;
            let compile_time = start.elapsed();
            add_fixed(&mut given, &loaded.fixed);
            let Loaded { source, module, code, time: load_time, .. } = loaded;
            let subject = Subject::Compiled(Box::new(compiled), Box::new(module));
            Ok(Ready { source, subject, given, code, load_time, compile_time })
        }
        Read::Code { source, model, fixed, time: load_time } => {
            let ports = ports_of(&model);
            // Code that was loaded is not compiled, which would check this.
            check_dims(ports.iter().map(|(_, ty)| ty), &flags.dims)?;
            let mut given = inputs::given(&ports, inputs, source.case.as_deref())?;
            add_fixed(&mut given, &fixed);
            let (subject, code) = (Subject::Loaded(model), CodeSource::Loaded);
            Ok(Ready { source, subject, given, code, load_time, compile_time: Duration::ZERO })
        }
    }
}

/// Refuses flags that ask for other code than that which is trusted.
pub(crate) fn check_trust(trust: TrustFlag, flags: &CompileFlags) -> Done {
    match flags.asks_for_other_code().filter(|_| trust.trust_code) {
        Some(flag) => {
            let message = format!("--trust-code runs code as it is, {flag} asks for other code");
            Err(CliError::usage(
                message,
                format!("leave out {flag}; without --trust-code the module is compiled again, and {flag} counts"),
            ))
        }
        None => Ok(()),
    }
}

/// Inputs that must have one value get it, unless another is given (which the run then refuses).
fn add_fixed(given: &mut Given, fixed: &HashMap<String, Tensor>) {
    let mut missing: Vec<(&String, &Tensor)> =
        fixed.iter().filter(|(n, _)| !given.iter().any(|(g, _)| g == *n)).collect();
    missing.sort_by_key(|(name, _)| *name);
    given.extend(missing.into_iter().map(|(name, value)| (name.clone(), HostValue::Tensor(value.clone()))));
}

/// Inputs of a module's entry: name and type.
pub(crate) fn inputs_of(module: &Module) -> Vec<(String, ValueType)> {
    let Some(entry) = module.entry() else { return Vec::new() };
    let named = entry.input_values().map(|v| match entry.op(v) {
        Op::Input { name, .. } => (name.clone(), entry.ty(v).clone()),
        other => (other.name().to_owned(), entry.ty(v).clone()),
    });
    named.collect()
}

/// Flags as the compiler's options.
pub(crate) fn options(flags: &CompileFlags) -> CompileOptions {
    CompileOptions {
        level: Level::from_digit(flags.level).unwrap_or_default(),
        math: match flags.math {
            Some(args::Math::Strict) => Math::Strict,
            Some(args::Math::Fast) | None => Math::Fast,
        },
        passes: flags.passes.clone(),
        verify_each: flags.verify_each,
        fuel: flags.fuel,
        dump_dir: flags.dump_ir.clone(),
        dims: flags.dims.clone(),
        fixed: HashMap::new(),
        state: flags.states.clone(),
        vectors: vectors(flags),
        threads: flags.threads.map(usize::from),
    }
}

/// How wide the user wants vectors.
pub(crate) fn vectors(flags: &CompileFlags) -> Vectors {
    asked_bits(flags).map_or(Vectors::Widest, Vectors::AtMost)
}

fn asked_bits(flags: &CompileFlags) -> Option<VectorBits> {
    let wanted = flags.vector_bits.as_deref().and_then(|bits| bits.parse::<u32>().ok());
    wanted.and_then(|wanted| VectorBits::ALL.into_iter().find(|b| b.bits() == wanted))
}

/// Bits of the vectors that code for this machine uses.
pub(crate) fn vector_bits(flags: &CompileFlags) -> Done<u32> {
    Ok(vectors(flags).bits(&Target::host()?).bits())
}

/// Refuses an extent that is given twice, and says what of the flags can't be kept to the letter.
pub(crate) fn check_flags(flags: &CompileFlags, console: &Console) -> Done {
    let mut names = flags.dims.iter().map(|(name, _)| name).enumerate();
    if let Some((_, name)) = names.find(|(i, name)| flags.dims.iter().take(*i).any(|(other, _)| other == *name)) {
        return Err(CliError::usage(format!("--dim {name} is given twice"), "give each extent once"));
    }
    if let Some(bits) = asked_bits(flags).map(VectorBits::bits) {
        let found = vector_bits(flags)?;
        if bits > found {
            let said =
                format!("--vector-bits {bits}: this machine has vectors of {found} bits, which are used instead");
            console.note(said);
        }
    }
    Ok(())
}

/// Holds the process to a number of threads; call it before anything runs.
pub(crate) fn set_threads(threads: Option<u16>) {
    if let Some(threads) = threads {
        // A pool that is there already was made by this call's twin, with the same number.
        let _ = Pool::set_global(Pool::new(usize::from(threads)));
    }
}

/// Compiles a module; `given` are values that shapes may depend on.
pub(crate) fn compile(module: &Module, options: &CompileOptions, given: &Given) -> Done<Compiled> {
    let named: Vec<(&str, &HostValue)> = given.iter().map(|(name, value)| (name.as_str(), value)).collect();
    Ok(Model::compile_for(module, &named, options)?)
}

/// Inputs of a compiled model: name and type.
pub(crate) fn ports_of(model: &Model) -> Vec<(String, ValueType)> {
    model.inputs().iter().map(|port| (port.name.clone(), port.ty.clone())).collect()
}
