//! Flags of `frit train`, `frit bench --train` and `frit export`. A flag that is not given says nothing: the settings' file or their default
//! counts then.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use frit_runtime::train::Schedule;

use super::{CompileFlags, JsonFlag, name_value};

/// What stands under the help of `frit train`.
pub(super) const TRAIN_HELP: &str = "Examples:\n  \
    frit train af-kan --data fashion-mnist --out runs/first\n  \
    frit train mlp --layers 4,16,3 --data iris.csv --label species --epochs 50 --shuffle\n  \
    frit train model.onnx --data arrays.npz --loss mse --schedule one-cycle\n  \
    frit train resnet.onnx --data fashion-mnist --target logits --freeze 'layer1.*' --lr 1e-4 --epochs 3\n  \
    frit train --resume runs/first\n\n\
    MODEL is af-kan, mlp or a model's file. Settings: defaults, then --config, then flags; the run's config.toml has them \
    all.\nThe run's folder: config.toml, metrics.csv, metrics.jsonl, curves.svg, report.html, best.safetensors, \
    last.safetensors.\nData comes in its own order unless --shuffle is given. The first Ctrl-C stops after the step at \
    work, saves and ends with status 1, the second ends at once; --resume goes on.\nThe peak of memory is planned and said \
    before the first step: growth of the process, from before the model is loaded. A loss or gradient\nthat is not finite \
    ends the run; the op that began it is looked for from the last checkpoint, or with --detect-anomaly from\nthe step \
    before. A run's folder is for one process at a time.\n\n\
    Of an ONNX model, float initializers are trained that look like weights (the run tells which; settings, masks and \
    Constant nodes are not), --freeze takes out more. The loss looks at the output that --target names, as it is. Batch \
    norms train on the batch and renew their running statistics; a Dropout exported for inference does nothing. Samples are \
    reshaped to the input where they have as many numbers (784 to 1x28x28). A model with a fixed batch takes data that comes \
    in such batches. `frit export RUN -o X.onnx` writes the model again, node for node, with the trained weights.";

/// What stands under the help of `frit export`.
pub(super) const EXPORT_HELP: &str = "Examples:\n  \
    frit export runs/af-kan-fashion-mnist -o best.onnx\n  \
    frit export runs/af-kan-fashion-mnist -o single.onnx --calibrate\n  \
    frit export model.frit -o model.onnx\n\n\
    An AF-KAN maps the bases of a layer to 0 to 1 by the least and the largest of the whole batch, so that what a record \
    gives\ndepends on the others in its batch. With --calibrate these are constants of the model: the extremes over \
    training records, layer by\nlayer. A record then gives the same in any batch, and alone. --calibrate=N measures on N \
    records, drawn by the run's seed; the\ndata has to be where the run's config.toml says.";

/// What stands under the help of `frit bench`.
pub(super) const BENCH_HELP: &str = "Examples:\n  \
    frit bench model.onnx --threads 1\n  \
    frit bench af-kan --train --batch 64 --data pixels\n\n\
    With --train a run is a whole training step on one batch of made inputs and labels: forward, cross-entropy, \
    backward, AdamW\n(learning rate 0.001, weight decay 0.0001). MODEL is then af-kan, mlp or a model's file.";

/// `frit train`
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    /// What to train: af-kan, mlp, or a model's file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: Option<String>,
    /// Epochs: passes over the data; default: 25 for mnist, else 35
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epochs: Option<u32>,
    /// Records a step (64)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// Seed of initial values, shuffling, and records kept for validation (0)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End after N epochs without a better validation result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) patience: Option<u32>,
    /// Where the run goes; default: a new folder in runs/
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "resume")]
    pub(crate) out: Option<PathBuf>,
    /// Settings to begin with, as a run's config.toml
    #[arg(long, value_name = "FILE.toml", value_hint = ValueHint::FilePath, conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) resume: Option<PathBuf>,
    /// Save every N steps as well, not only after each epoch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_steps: Option<u64>,
    /// Tell of every Nth step: a line, and one in the run's steps.jsonl
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) log_every: Option<u64>,
    /// Memory by which the process may grow, as 512M or 2G: held by computing more of the forward again, or refused
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<u64>,
    /// Keep the state from before each step, so that the op which first gave NaN or infinity is named at once
    #[arg(long)]
    pub(crate) detect_anomaly: bool,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    #[command(flatten)]
    pub(crate) recipe: RecipeFlags,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// A built-in network.
#[derive(Args, Debug)]
#[command(next_help_heading = "Network (af-kan, mlp)")]
pub(crate) struct NetworkFlags {
    /// Extents of input, hidden layers and output (784,64,10)
    #[arg(long, value_name = "N,N,..", value_delimiter = ',')]
    pub(crate) layers: Option<Vec<usize>>,
    /// Grid size of AF-KAN (3)
    #[arg(long, value_name = "N")]
    pub(crate) grid: Option<usize>,
    /// Order of AF-KAN (3)
    #[arg(long, value_name = "N")]
    pub(crate) order: Option<usize>,
    /// The MLP's layers as act(norm(x)) W^T, the paper's formula; default: act(norm(x) W^T), as its authors' code
    #[arg(long)]
    pub(crate) activation_first: bool,
}

impl NetworkFlags {
    /// The first flag given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.layers.is_some(), "--layers"),
            (self.grid.is_some(), "--grid"),
            (self.order.is_some(), "--order"),
            (self.activation_first, "--activation-first"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// Inputs that a step is timed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepData {
    /// The standard normal distribution
    #[default]
    Normal,
    /// As images of MNIST: half of the numbers are -1, the others of 256 shades up to 1
    Pixels,
}

/// A training step to time.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training step")]
pub(crate) struct StepFlags {
    /// Time a training step: forward, backward, update
    #[arg(long, conflicts_with_all = ["inputs", "trust_code", "states"])]
    pub(crate) train: bool,
    /// Records a step; default: as many as the model fixes, else 64
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// Numbers of the inputs (normal)
    #[arg(long, value_enum, value_name = "KIND", requires = "train")]
    pub(crate) data: Option<StepData>,
}

/// The data.
#[derive(Args, Debug)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataFlags {
    /// fashion-mnist, mnist, or a .csv, .tsv, .npy or .npz file
    #[arg(long = "data", value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) source: Option<String>,
    /// Where the files of fashion-mnist or mnist are
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The target: a column's name or number (from 1), or an array's name; several columns for --loss mse or bce
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub(crate) label: Option<Vec<String>>,
    /// The array of an .npz that holds the inputs (x)
    #[arg(long, value_name = "NAME")]
    pub(crate) inputs: Option<String>,
    /// A file to be judged by
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) validation: Option<PathBuf>,
    /// Share of the records that is kept to be judged by, where there is no other (0.2)
    #[arg(long, value_name = "SHARE")]
    pub(crate) validation_share: Option<f64>,
    /// An order of its own for each epoch
    #[arg(long)]
    pub(crate) shuffle: bool,
}

/// Loss, optimiser, schedule.
#[derive(Args, Debug)]
#[command(next_help_heading = "Recipe")]
pub(crate) struct RecipeFlags {
    /// What is minimised (cross-entropy)
    #[arg(long, value_name = "LOSS", value_parser = ["cross-entropy", "mse", "bce"])]
    pub(crate) loss: Option<String>,
    /// The output that the loss looks at; default: the first
    #[arg(long, value_name = "OUTPUT")]
    pub(crate) target: Option<String>,
    /// Share of a target's weight spread over all classes (0)
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f64>,
    /// The rule that updates parameters (adamw)
    #[arg(long, value_name = "NAME", value_parser = ["sgd", "adam", "adamw"])]
    pub(crate) optimizer: Option<String>,
    /// Learning rate (0.001)
    #[arg(long = "lr", value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// Weight decay (0.0001)
    #[arg(long, value_name = "DECAY")]
    pub(crate) weight_decay: Option<f64>,
    /// Weight decay of the parameters that a pattern names, as *.bias=0
    #[arg(long = "decay", value_name = "PATTERN=DECAY", value_parser = name_value::<f64>)]
    pub(crate) groups: Vec<(String, f64)>,
    /// SGD's momentum (0.9)
    #[arg(long, value_name = "MOMENTUM")]
    pub(crate) momentum: Option<f64>,
    /// SGD looks ahead along its momentum
    #[arg(long)]
    pub(crate) nesterov: bool,
    /// Scale gradients down to this norm
    #[arg(long, value_name = "NORM")]
    pub(crate) clip_norm: Option<f64>,
    /// How the learning rate changes (exponential); its numbers are set in --config
    #[arg(long, value_name = "NAME", value_parser = Schedule::NAMES)]
    pub(crate) schedule: Option<String>,
    /// Do not train the parameters that a pattern names, as layers.0.*; nor renew a batch norm's statistics that it names
    #[arg(long, value_name = "PATTERN")]
    pub(crate) freeze: Vec<String>,
    /// Batch norms normalise by their running statistics, which stay as they are
    #[arg(long)]
    pub(crate) freeze_statistics: bool,
}

/// `frit export`
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The folder of a run, or a model
    #[arg(value_name = "RUN|MODEL", value_hint = ValueHint::AnyPath)]
    pub(crate) source: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "FILE.onnx", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// Scale an AF-KAN's bases by constants, measured on N training records or all: what a record gives depends on it alone
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calibrate: Option<Option<u64>>,
    #[command(flatten)]
    pub(crate) flags: CompileFlags,
    #[command(flatten)]
    pub(crate) json: JsonFlag,
}

/// Parses a number of bytes: 1000, 64K, 512M, 2G, 1.5GiB. K is 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1_048_576.0,
        "g" | "gb" | "gib" => 1_073_741_824.0,
        "t" | "tb" | "tib" => 1_099_511_627_776.0,
        other => return Err(format!("`{other}` is no unit of memory; K, M, G and T are")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
    let bytes = number * unit;
    // Beyond 2^53 no machine has so much.
    if !(1.0..9_007_199_254_740_992.0).contains(&bytes) {
        return Err("not an amount of memory that a machine has".to_owned());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [("1000", 1000), ("64K", 65_536), ("512MiB", 512 << 20), ("1.5g", 3 << 29), ("2T", 2 << 40)];
        cases.iter().for_each(|(text, bytes)| assert_eq!(size(text), Ok(*bytes), "{text}"));
        ["", "G", "-1G", "0", "nanM", "5X", "1e300G"].iter().for_each(|text| assert!(size(text).is_err(), "{text}"));
    }
}
