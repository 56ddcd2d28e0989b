//! The command line: every command, flag and its help text.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use frit_ir::model::{Activation, BasisFunction, Combination, Method, Norm};

mod train;

pub(crate) use train::{ExportArgs, NetworkFlags, StepData, StepFlags, TrainArgs};

/// A neural-network graph compiler: import a model, see what every pass does to it, run it as machine code.
#[derive(Debug, Parser)]
#[command(
    name = "frit",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "MODEL is an .onnx, .frit or .fritc file, or an ONNX test-case folder (model.onnx and test_data_set_0).\n\
                  Start with `frit demo`; then point `frit run MODEL` at a model of your own.\n\
                  Something slow or wrong? `frit inspect MODEL --kernels` and `frit run MODEL --dump-ir DIR` show why.\n\n\
                  Exit status: 0 done, 1 refused or failed, 2 wrong usage, 70 an internal error (always a bug)."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import, optimise, compile, run and check an embedded AF-KAN, then train one; needs no file and no network
    Demo(DemoArgs),
    /// Compile a model; tell what every stage did, write it as .fritc, or show a stage as text
    #[command(
        after_help = "Examples:\n  frit compile model.onnx -o model.fritc\n  frit compile model.onnx --emit loops\n  \
                            frit compile model.frit --emit onnx -o model.onnx\n  \
                            frit compile model.onnx --dump-ir dump && frit run dump/05-simplify.frit"
    )]
    Compile(CompileArgs),
    /// Run a model once, on given inputs or on seeded ones
    #[command(after_help = "Examples:\n  frit run model.onnx --input x=images.npy --output result.npz\n  \
                            frit run model.onnx --dim batch=64\n\nWithout --input, a test-case folder's first data set \
                            is used; else inputs are made from a seed and their shapes printed.")]
    Run(RunArgs),
    /// Check ONNX test-case folders: run each data set and compare with its outputs
    #[command(
        after_help = "With --trust-code, the code of a case's model.fritc is checked instead of its model.onnx.\n\n\
                            A case is passed, failed (wrong, error, crash) or skipped (refused as unsupported, with the \
                            reason).\nTolerance: the case's data.json, else rtol 1e-3, atol 1e-7; bfloat16 rtol at least 2^-6."
    )]
    Verify(VerifyArgs),
    /// Show ops, shapes, parameters, FLOPs, bytes, peak memory, kernels, and why things were not fused
    Inspect(InspectArgs),
    /// Time a model, or a step of its training: median and minimum over many runs
    #[command(after_help = train::BENCH_HELP)]
    Bench(BenchArgs),
    /// Write a new network with initial values as a .frit file
    #[command(after_help = "Examples:\n  frit new af-kan -o kan.frit\n  \
                            frit new mlp --layers 784,256,10 --activation gelu --seed 7 -o mlp.frit\n\n\
                            Parameters go to a .safetensors file of the same name beside it.\n\
                            `frit help new` and `frit new af-kan --help` list what can be chosen.")]
    New {
        /// Which network
        #[command(subcommand)]
        network: Network,
    },
    /// Train a network; a run that is stopped or killed goes on to the same bits
    #[command(after_help = train::TRAIN_HELP)]
    Train(Box<TrainArgs>),
    /// Write a trained network's best checkpoint, or any model, as ONNX
    #[command(after_help = train::EXPORT_HELP)]
    Export(ExportArgs),
    /// Print a shell's completion script
    #[command(after_help = "Example: frit completions bash > ~/.local/share/bash-completion/completions/frit")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print help on a command, or on a topic: `ops` (the core op set), `passes` (pipelines)
    Help {
        /// A command, `ops` or `passes`
        topic: Option<String>,
    },
}

/// How arithmetic may depart from what the model states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Math {
    /// The same bits at every level, vector width and thread count
    Strict,
    /// Sums reordered, products contracted, 4 ulp functions
    Fast,
}

/// A stage of the compilation, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The module after all passes
    Frit,
    /// The module after all passes but fusion, as an ONNX model
    Onnx,
    /// Loop IR and schedules of all kernels
    Loops,
    /// Cranelift IR
    Clif,
    /// Machine code as text
    Asm,
    /// CUDA C++ of all kernels
    Cuda,
}

/// Flags of every command that compiles.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Compilation")]
pub(crate) struct CompileFlags {
    /// Optimisation level: 0 compiles each op alone, 3 does everything
    #[arg(short = 'O', value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) level: u8,
    /// How far arithmetic may depart from what is written; default: fast, and as it was compiled for a .fritc
    #[arg(long, value_enum)]
    pub(crate) math: Option<Math>,
    /// A pipeline of your own, as `legalize,shape,simplify,fuse(max-ops=40)`
    #[arg(long, value_name = "TEXT")]
    pub(crate) passes: Option<String>,
    /// Verify the module after every pass
    #[arg(long)]
    pub(crate) verify_each: bool,
    /// Stop rewriting after N rule applications (to find the one that breaks a model)
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
    /// Threads to generate code on, and to run on; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Hold vectors of generated loops to this width; default: the widest that the machine has
    #[arg(long, value_name = "BITS", value_parser = ["128", "256", "512"])]
    pub(crate) vector_bits: Option<String>,
    /// Extent of a symbolic dim that no input fixes (1 unless given)
    #[arg(long = "dim", value_name = "NAME=N", value_parser = name_value::<usize>)]
    pub(crate) dims: Vec<(String, usize)>,
    /// An input that is state and the output that follows it: updated in place where that is safe
    #[arg(long = "state", value_name = "INPUT=OUTPUT", value_parser = name_value::<String>)]
    pub(crate) states: Vec<(String, String)>,
    /// Write what every pass did to a folder: numbered .frit files, rules fired, near misses, drawings
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dump_ir: Option<PathBuf>,
}

/// Whether code of a file may run.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Compilation")]
pub(crate) struct TrustFlag {
    /// Run the machine code of a .fritc, which must come from a source that you trust; else its module is compiled again
    #[arg(long)]
    pub(crate) trust_code: bool,
}

impl CompileFlags {
    /// The first flag given that asks for other code than a compiled file holds.
    pub(crate) fn asks_for_other_code(&self) -> Option<&'static str> {
        let CompileFlags { level, math, passes, verify_each, fuel, vector_bits, dump_ir, states, threads: _, dims: _ } =
            self;
        let given = [
            (*level != 3, "-O"),
            (math.is_some(), "--math"),
            (passes.is_some(), "--passes"),
            (*verify_each, "--verify-each"),
            (fuel.is_some(), "--fuel"),
            (vector_bits.is_some(), "--vector-bits"),
            (dump_ir.is_some(), "--dump-ir"),
            (!states.is_empty(), "--state"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// Where inputs come from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct InputFlags {
    /// An input's value: .npy, .pb (TensorProto), or an .npz that holds it under its name
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = name_value::<PathBuf>)]
    pub(crate) inputs: Vec<(String, PathBuf)>,
    /// Seed of inputs that are not given
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Output as data.
#[derive(Args, Clone, Debug)]
pub(crate) struct JsonFlag {
    /// Print only JSON to stdout, or write it to a file; progress goes to stderr
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
}

/// `frit demo`
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) json: JsonFlag,
    /// Threads to run on; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
}

/// `frit compile`
#[derive(Args, Debug)]
pub(crate) struct CompileArgs {
    /// The model
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: PathBuf,
    /// Where to write: the .fritc, or what --emit asks for (stdout unless given)
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Show a stage of the compilation
    #[arg(long, value_enum, conflicts_with = "json")]
    pub(crate) emit: Option<Emit>,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// `frit run`
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The model
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) inputs: InputFlags,
    /// Where to write the outputs, under their names
    #[arg(long, value_name = "FILE.npz", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Where to write the time of every step, as JSON
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub(crate) profile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustFlag,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// `frit verify`
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Test-case folders
    #[arg(required = true, value_hint = ValueHint::DirPath)]
    pub(crate) cases: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustFlag,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// `frit inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The model
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: PathBuf,
    /// Every kernel: its ops, ONNX nodes, bytes, FLOPs, time (the model is run) and limit, and why kernels are not fused
    #[arg(long)]
    pub(crate) kernels: bool,
    #[command(flatten)]
    pub(crate) inputs: InputFlags,
    #[command(flatten)]
    pub(crate) trust: TrustFlag,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// `frit bench`
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The model; with --train also af-kan or mlp
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) inputs: InputFlags,
    /// Timed runs
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Time when asked: for each line of stdin, milliseconds to run for, answer fastest and median nanoseconds, and runs
    #[arg(long, conflicts_with_all = ["runs", "json"])]
    pub(crate) serve: bool,
    #[command(flatten)]
    pub(crate) step: StepFlags,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) trust: TrustFlag,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// The networks of `frit new`.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// AF-KAN (arXiv 2503.06112): activations of shifted inputs in pairs, reduced by attention; the defaults are the
    /// paper's best settings
    AfKan(AfKanArgs),
    /// A multilayer perceptron: y = act(norm(x)) W^T a layer; with --activation-last act(norm(x) W^T)
    Mlp(MlpArgs),
}

/// Flags of every new network.
#[derive(Args, Clone, Debug)]
pub(crate) struct NewFlags {
    /// Extents of input, hidden layers and output
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_value = "784,64,10")]
    pub(crate) layers: Vec<usize>,
    /// silu, relu, gelu, selu, elu, leaky_relu, softplus, sigmoid or tanh
    #[arg(long, value_name = "NAME", default_value_t = Activation::Silu)]
    pub(crate) activation: Activation,
    /// What is normalised before a layer's activation: layer (each sample), batch, or none
    #[arg(long, value_name = "NAME", default_value_t = Norm::Layer)]
    pub(crate) norm: Norm,
    /// Seed of the initial values
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where to write
    #[arg(short, long, value_name = "FILE.frit", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// `frit new af-kan`
#[derive(Args, Debug)]
pub(crate) struct AfKanArgs {
    #[command(flatten)]
    pub(crate) new: NewFlags,
    /// Grid size: an input has grid + order bases
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) grid: usize,
    /// Order: how many grid steps a basis is wide, less one
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) order: usize,
    /// How a basis combines its two activations: quad1, quad2, sum, prod, sum_prod, cubic1 or cubic2
    #[arg(long, value_name = "NAME", default_value_t = BasisFunction::Quad1)]
    pub(crate) function: BasisFunction,
    /// How bases are reduced: global_attn, multistep, spatial_attn, local_attn, multihead_attn; several run side by side
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "global_attn")]
    pub(crate) method: Vec<Method>,
    /// How the outputs of several methods combine: sum, product, sum_product or quadratic
    #[arg(long, value_name = "NAME", default_value_t = Combination::Sum)]
    pub(crate) combine: Combination,
    /// Leave out the normalisation of bases over the whole batch
    #[arg(long)]
    pub(crate) no_func_norm: bool,
}

/// `frit new mlp`
#[derive(Args, Debug)]
pub(crate) struct MlpArgs {
    #[command(flatten)]
    pub(crate) new: NewFlags,
    /// Activate a layer's output, as the code of AF-KAN's authors does, not its input, as their formula says
    #[arg(long)]
    pub(crate) activation_last: bool,
}

/// Parses `NAME=VALUE`.
fn name_value<T: std::str::FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if name.is_empty() || value.is_empty() {
        let (what, place) = if name.is_empty() { ("name", "before") } else { ("value", "after") };
        return Err(format!("`{text}` has no {what} {place} `=`"));
    }
    Ok((name.to_owned(), value.parse().map_err(|e| format!("`{value}`: {e}"))?))
}
