//! What a caller chooses: level, numerics, fuel, checks, dumps.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use frit_ir::{Numerics, Tensor};

/// How much is done: `-O0` to `-O3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Only what the compiler needs.
    O0,
    /// Quick: one round of rewrites, small kernels.
    O1,
    /// The default.
    #[default]
    O2,
    /// More rounds, larger kernels.
    O3,
}

impl Level {
    /// The level of a digit.
    pub fn from_digit(digit: u8) -> Option<Level> {
        [Level::O0, Level::O1, Level::O2, Level::O3].get(usize::from(digit)).copied()
    }

    /// Its pipeline as text.
    pub fn pipeline_text(self) -> &'static str {
        match self {
            Level::O0 => "legalize,shape,canonicalize,grad",
            Level::O1 => "legalize,shape,canonicalize,grad,simplify(rounds=1),strength,fuse(max-ops=64)",
            Level::O2 => "legalize,shape,canonicalize,grad,simplify,strength,cse,fuse",
            Level::O3 => "legalize,shape,canonicalize,grad,simplify(rounds=16),strength,cse,fuse(max-ops=1536)",
        }
    }
}

/// How far arithmetic may depart from what the model states: `--math`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Math {
    /// Not at all: the same bits at every level, width and thread count.
    Strict,
    /// Contraction, other orders of sums, cheaper elementary functions.
    #[default]
    Fast,
    /// The flags of each op as they stand in the module.
    AsWritten,
}

impl Math {
    /// Flags for every op; `None`: leave them.
    pub fn numerics(self) -> Option<Numerics> {
        match self {
            Math::Strict => Some(Numerics::STRICT),
            Math::Fast => Some(Numerics::FAST),
            Math::AsWritten => None,
        }
    }
}

/// What a caller chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numerics given to every op.
    pub math: Math,
    /// Rewrites that may be made; `None`: any number.
    pub fuel: Option<u64>,
    /// Verify after every pass.
    pub verify_each: bool,
    /// Where to write a module after each pass that changed it; `None`: nowhere.
    pub dump_dir: Option<PathBuf>,
    /// Values of inputs that compilation may rely on, by name.
    pub fixed: HashMap<String, Tensor>,
}

impl Default for Options {
    fn default() -> Self {
        Options { math: Math::default(), fuel: None, verify_each: true, dump_dir: None, fixed: HashMap::new() }
    }
}

/// Options of one step, as its text gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassOptions(pub BTreeMap<&'static str, u64>);

impl PassOptions {
    /// An option's value, else the default.
    pub fn get(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).copied().unwrap_or(default)
    }
}
