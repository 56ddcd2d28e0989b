//! The machine that code is for.

use cranelift_codegen::isa::{Builder, CallConv, OwnedTargetIsa, lookup_by_name};
use cranelift_codegen::settings::{self, Configurable};

use super::error::CodeError;

/// How hard the code generator tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Effort {
    /// By the size of a function: optimising a large straight-line body makes it slower (values live longer and spill).
    #[default]
    Auto,
    /// Always optimise.
    Speed,
    /// Never.
    None,
}

/// How wide the vectors of strips are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VectorBits {
    /// 128 bits: every machine.
    B128,
    /// 256 bits: x86-64 with AVX2 and FMA.
    B256,
    /// 512 bits: x86-64 with AVX-512 (F, DQ, BW, VL).
    B512,
}

impl VectorBits {
    /// All, the narrowest first.
    pub const ALL: [VectorBits; 3] = [VectorBits::B128, VectorBits::B256, VectorBits::B512];

    /// The number of bits.
    pub fn bits(self) -> u32 {
        match self {
            VectorBits::B128 => 128,
            VectorBits::B256 => 256,
            VectorBits::B512 => 512,
        }
    }
}

/// How vector instructions are encoded, and so what there is of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// AVX2, FMA and BMI2: 16 registers of up to 256 bits.
    Vex,
    /// AVX-512 (F, DQ, BW, VL) as well: 32 registers of up to 512 bits, and mask registers at every width.
    Evex,
}

impl Encoding {
    /// The widest vectors that it has.
    pub(super) fn widest(self) -> VectorBits {
        match self {
            Encoding::Vex => VectorBits::B256,
            Encoding::Evex => VectorBits::B512,
        }
    }
}

/// Operations beyond which [`Effort::Auto`] leaves a function as it was written.
const LARGE: usize = 400;

/// A machine: instruction set, extensions, calling convention. Making one takes a while; keep it.
pub struct Target {
    speed: OwnedTargetIsa,
    none: OwnedTargetIsa,
    /// What it can do.
    pub(super) features: Features,
}

/// What decides between instruction sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// a b + c in one instruction.
    pub(super) fma: bool,
    /// Rounding to integers in one instruction.
    pub(super) round: bool,
    /// A blend by sign bits.
    pub(super) blend: bool,
    /// What leaves are written with by the x86-64 back end, which needs one of these.
    pub(super) vectors: Option<Encoding>,
}

impl Target {
    /// This machine, with all that it has.
    pub fn host() -> Result<Self, CodeError> {
        Target::of(has_avx512(), &|| cranelift_native::builder().map_err(str::to_owned))
    }

    /// The x86-64 machines of a level (`x86-64-v3` has AVX2 and FMA), with the System V calling convention: code for it
    /// is the same wherever it is compiled. Refused where the build has no code generator for x86-64.
    pub fn x86_64(level: &str) -> Result<Self, CodeError> {
        Target::of(level == "x86-64-v4", &|| {
            let mut builder = lookup_by_name("x86_64-unknown-linux-gnu").map_err(|e| e.to_string())?;
            let refused = |e| format!("`{level}`: {e}");
            builder.enable(level).map_err(refused)?;
            // The code generator's own levels forget AVX, without which it has no use for AVX2 and FMA.
            if matches!(level, "x86-64-v3" | "x86-64-v4") {
                builder.enable("has_avx").map_err(refused)?;
            }
            Ok(builder)
        })
    }

    /// `avx512`: the machine has F, DQ, BW and VL of it, which the code generator's flags do not tell.
    fn of(avx512: bool, builder: &dyn Fn() -> Result<Builder, String>) -> Result<Self, CodeError> {
        let refused = |e: String| CodeError::Target(e);
        let make = |level: &str| -> Result<OwnedTargetIsa, CodeError> {
            let mut flags = settings::builder();
            for (name, value) in [
                ("opt_level", level),
                ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
                ("is_pic", "true"),
                ("enable_probestack", "false"),
            ] {
                flags.set(name, value).map_err(|e| refused(e.to_string()))?;
            }
            let builder = builder().map_err(refused)?;
            builder.finish(settings::Flags::new(flags)).map_err(|e| refused(e.to_string()))
        };
        let speed = make("speed")?;
        let flags = speed.isa_flags();
        let has = |name: &str| flags.iter().any(|v| v.name == name && v.as_bool() == Some(true));
        let x86 = speed.name() == "x64";
        // The code generator takes an fma for one instruction only when both are there.
        let fma = !x86 || (has("has_fma") && has("has_avx"));
        let vectors = match (fma && has("has_avx2") && has("has_bmi2"), speed.default_call_conv()) {
            (true, CallConv::SystemV) if x86 => Some(if avx512 { Encoding::Evex } else { Encoding::Vex }),
            _ => None,
        };
        let features = Features { fma, round: !x86 || has("has_sse41"), blend: x86 && has("has_sse41"), vectors };
        Ok(Target { none: make("none")?, speed, features })
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        self.speed.triple().to_string()
    }

    /// The widest vectors that this machine has for strips.
    pub fn vector_bits(&self) -> VectorBits {
        self.features.vectors.map_or(VectorBits::B128, Encoding::widest)
    }

    /// How functions are called.
    pub(super) fn convention(&self) -> CallConv {
        self.speed.default_call_conv()
    }

    /// The compiler for a function of some size.
    pub(super) fn isa(&self, effort: Effort, operations: usize) -> &OwnedTargetIsa {
        match effort {
            Effort::Speed => &self.speed,
            Effort::None => &self.none,
            Effort::Auto => {
                if operations > LARGE {
                    &self.none
                } else {
                    &self.speed
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, {:?})", self.name(), self.features)
    }
}
