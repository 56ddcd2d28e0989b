//! The vector instructions that strips need, one row each.
//!
//! Opcodes are the same under VEX (AVX2, FMA) and EVEX (AVX-512) unless a row says which; all operate on 32-bit
//! elements, in vectors of any width. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.

/// The mandatory prefix, as both encodings number it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prefix {
    No = 0,
    P66 = 1,
    F3 = 2,
    F2 = 3,
}

/// How much memory an operand touches: the unit of EVEX's 8-bit displacements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tuple {
    /// A whole vector, or one element repeated.
    Full,
    /// A whole vector.
    Whole,
    /// Two bytes an element.
    Half,
    /// One byte an element.
    Quarter,
    /// One element.
    One,
}

/// What the fields of an instruction hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `reg = op(vvvv, rm)`, or `reg = op(rm)` without a first source.
    Plain,
    /// `rm = reg`: memory is written.
    Store,
    /// `vvvv = op(rm, immediate)`; the reg field extends the opcode.
    Digit(u8),
}

/// An instruction.
#[derive(Debug)]
pub(super) struct Ins {
    pub(super) name: &'static str,
    pub(super) prefix: Prefix,
    /// Opcode map: 1 is 0F, 2 is 0F38, 3 is 0F3A.
    pub(super) map: u8,
    pub(super) opcode: u8,
    pub(super) wide: bool,
    pub(super) form: Form,
    pub(super) tuple: Tuple,
    /// 128 bits whatever the width of the rest.
    pub(super) low: bool,
}

macro_rules! table {
    ($($(#[$doc:meta])* $id:ident $name:literal $prefix:ident $map:literal $opcode:literal $form:expr, $tuple:ident $($flag:ident)*;)*) => {
        $($(#[$doc])* pub(super) static $id: Ins = Ins {
            name: $name, prefix: Prefix::$prefix, map: $map, opcode: $opcode, form: $form, tuple: Tuple::$tuple,
            wide: table!(@has wide $($flag)*), low: table!(@has low $($flag)*),
        };)*
    };
    (@has wide) => { false };
    (@has low) => { false };
    (@has wide wide) => { true };
    (@has low low) => { true };
    (@has wide low) => { false };
    (@has low wide) => { false };
}

use Form::{Digit, Plain, Store};

table! {
    // name                         prefix map opcode form tuple
    ADDPS       "vaddps"            No  1 0x58 Plain, Full;
    MULPS       "vmulps"            No  1 0x59 Plain, Full;
    SUBPS       "vsubps"            No  1 0x5c Plain, Full;
    MINPS       "vminps"            No  1 0x5d Plain, Full;
    DIVPS       "vdivps"            No  1 0x5e Plain, Full;
    MAXPS       "vmaxps"            No  1 0x5f Plain, Full;
    SQRTPS      "vsqrtps"           No  1 0x51 Plain, Full;
    ANDPS       "vandps"            No  1 0x54 Plain, Full;
    ORPS        "vorps"             No  1 0x56 Plain, Full;
    XORPS       "vxorps"            No  1 0x57 Plain, Full;
    CMPPS       "vcmpps"            No  1 0xc2 Plain, Full;
    CVTDQ2PS    "vcvtdq2ps"         No  1 0x5b Plain, Full;
    CVTTPS2DQ   "vcvttps2dq"        F3  1 0x5b Plain, Full;
    LOAD        "vmovups"           No  1 0x10 Plain, Whole;
    STORE       "vmovups"           No  1 0x11 Store, Whole;
    MOVE        "vmovaps"           No  1 0x28 Plain, Whole;
    SPLAT       "vbroadcastss"      P66 2 0x18 Plain, One;
    FMA132      "vfmadd132ps"       P66 2 0x98 Plain, Full;
    FMA213      "vfmadd213ps"       P66 2 0xa8 Plain, Full;
    FMA231      "vfmadd231ps"       P66 2 0xb8 Plain, Full;
    FNMA132     "vfnmadd132ps"      P66 2 0x9c Plain, Full;
    FNMA213     "vfnmadd213ps"      P66 2 0xac Plain, Full;
    FNMA231     "vfnmadd231ps"      P66 2 0xbc Plain, Full;
    FMS132      "vfmsub132ps"       P66 2 0x9a Plain, Full;
    FMS213      "vfmsub213ps"       P66 2 0xaa Plain, Full;
    FMS231      "vfmsub231ps"       P66 2 0xba Plain, Full;
    PADDD       "vpaddd"            P66 1 0xfe Plain, Full;
    PSUBD       "vpsubd"            P66 1 0xfa Plain, Full;
    PMULLD      "vpmulld"           P66 2 0x40 Plain, Full;
    PMINSD      "vpminsd"           P66 2 0x39 Plain, Full;
    PMINUD      "vpminud"           P66 2 0x3b Plain, Full;
    PMAXSD      "vpmaxsd"           P66 2 0x3d Plain, Full;
    PMAXUD      "vpmaxud"           P66 2 0x3f Plain, Full;
    PSLLI       "vpslld"            P66 1 0x72 Digit(6), Full;
    PSRLI       "vpsrld"            P66 1 0x72 Digit(2), Full;
    PSRAI       "vpsrad"            P66 1 0x72 Digit(4), Full;
    PSLLV       "vpsllvd"           P66 2 0x47 Plain, Full;
    PSRLV       "vpsrlvd"           P66 2 0x45 Plain, Full;
    PSRAV       "vpsravd"           P66 2 0x46 Plain, Full;
    PMOVZXBD    "vpmovzxbd"         P66 2 0x31 Plain, Quarter;
    PMOVSXBD    "vpmovsxbd"         P66 2 0x21 Plain, Quarter;
    PMOVZXWD    "vpmovzxwd"         P66 2 0x33 Plain, Half;
    PMOVSXWD    "vpmovsxwd"         P66 2 0x23 Plain, Half;

    PERMILPS    "vpermilps"         P66 3 0x04 Plain, Full;

    // VEX only
    ROUNDPS     "vroundps"          P66 3 0x08 Plain, Full;
    PCMPEQD     "vpcmpeqd"          P66 1 0x76 Plain, Full;
    PCMPGTD     "vpcmpgtd"          P66 1 0x66 Plain, Full;
    MASKLOAD    "vmaskmovps"        P66 2 0x2c Plain, Whole;
    MASKSTORE   "vmaskmovps"        P66 2 0x2e Store, Whole;
    /// Takes the second source where the sign of the register in the immediate is set.
    BLENDV      "vblendvps"         P66 3 0x4a Plain, Whole;
    PSHUFB      "vpshufb"           P66 2 0x00 Plain, Whole;
    PERMD       "vpermd"            P66 2 0x36 Plain, Whole;
    MOVMSK      "vmovmskps"         No  1 0x50 Plain, Whole;
    MOVD        "vmovd"             P66 1 0x6e Plain, One low;
    STORE16     "vmovups"           No  1 0x11 Store, Whole low;
    STORE8      "vmovq"             P66 1 0xd6 Store, Whole low;
    STORE4      "vmovd"             P66 1 0x7e Store, Whole low;

    // One element, around calls of functions.
    CVTSS2SD    "vcvtss2sd"         F3  1 0x5a Plain, One low;
    CVTSD2SS    "vcvtsd2ss"         F2  1 0x5a Plain, One low;
    STORESS     "vmovss"            F3  1 0x11 Store, One low;

    // EVEX only
    RNDSCALEPS  "vrndscaleps"       P66 3 0x08 Plain, Full;
    RANGEPS     "vrangeps"          P66 3 0x50 Plain, Full;
    PCMPD       "vpcmpd"            P66 3 0x1f Plain, Full;
    PCMPUD      "vpcmpud"           P66 3 0x1e Plain, Full;
    PTESTMD     "vptestmd"          P66 2 0x27 Plain, Full;
    /// Takes the second source where the mask is set.
    BLENDM      "vblendmps"         P66 2 0x65 Plain, Full;
    PMOVDB      "vpmovdb"           F3  2 0x31 Store, Quarter;
    PMOVDW      "vpmovdw"           F3  2 0x33 Store, Half;

    // On mask registers.
    KAND        "kandw"             No  1 0x41 Plain, Whole;
    KANDN       "kandnw"            No  1 0x42 Plain, Whole;
    KNOT        "knotw"             No  1 0x44 Plain, Whole;
    KOR         "korw"              No  1 0x45 Plain, Whole;
    KXNOR       "kxnorw"            No  1 0x46 Plain, Whole;
    KXOR        "kxorw"             No  1 0x47 Plain, Whole;
    KSHIFTR     "kshiftrw"          P66 3 0x30 Plain, Whole wide;
    KMOVE       "kmovw"             No  1 0x90 Plain, Whole;
    KSTORE      "kmovw"             No  1 0x91 Store, Whole;
}
