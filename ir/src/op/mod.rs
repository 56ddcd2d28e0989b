//! The core op set: one table, one row an op.
//!
//! A row gives the op's Rust name, its word in .frit text, how many operands it takes, how many regions it holds, its
//! class, its attributes and its meaning. From the table come the enum, the printer's and parser's view of attributes,
//! arity checks and help pages. Type rules are in [`infer`], meanings as code in [`crate::reference`].
//!
//! Core ops broadcast nothing by themselves: operands of an elementwise op have equal shapes, and `broadcast` says
//! where one grows. No match over ops has a `_` arm, so a new row compiles only when every room knows it.

#![allow(rustdoc::broken_intra_doc_links, reason = "formulas of the table index with [i]; no link is meant")]

pub mod attr;
pub mod infer;
pub mod needs;

use std::collections::BTreeMap;

use attr::word_enum;
pub use attr::{Attr, AttrValue, Flag};

use crate::tensor::Tensor;
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};

word_enum! {
    /// Elementwise ops of one operand; the result has its shape and type (predicates: bool).
    UnaryOp {
        /// -x
        Neg "neg",
        /// |x|
        Abs "abs",
        /// -1 or 1; zeros and NaN stay
        Sign "sign",
        /// Largest integer not above x
        Floor "floor",
        /// Smallest integer not below x
        Ceil "ceil",
        /// x without its fraction
        Trunc "trunc",
        /// Nearest integer, ties to even
        RoundEven "round_even",
        /// Square root
        Sqrt "sqrt",
        /// e^x
        Exp "exp",
        /// e^x - 1
        Expm1 "expm1",
        /// Natural logarithm
        Log "log",
        /// ln(1 + x)
        Log1p "log1p",
        /// Sine, radians
        Sin "sin",
        /// Cosine, radians
        Cos "cos",
        /// Tangent, radians
        Tan "tan",
        /// Inverse sine
        Asin "asin",
        /// Inverse cosine
        Acos "acos",
        /// Inverse tangent
        Atan "atan",
        /// Hyperbolic tangent
        Tanh "tanh",
        /// Gauss error function
        Erf "erf",
        /// Bitwise complement; logical on bool
        Not "not",
    }
}

word_enum! {
    /// Elementwise ops of two operands of one shape and type; comparisons give bool.
    BinaryOp {
        /// a + b, integers wrap
        Add "add",
        /// a - b, integers wrap
        Sub "sub",
        /// a b, integers wrap
        Mul "mul",
        /// a / b; integers truncate, division by 0 gives 0
        Div "div",
        /// Remainder with the sign of a (C fmod); integers by 0 give 0
        Rem "rem",
        /// a^b; of integers by repeated multiplication, a negative exponent gives 0 (1 and -1 excepted)
        Pow "pow",
        /// Angle of the point (b, a): atan2 of y = a, x = b
        Atan2 "atan2",
        /// The smaller; NaN when either is; -0 is below +0
        Min "min",
        /// The larger; NaN when either is; -0 is below +0
        Max "max",
        /// Bitwise and; logical on bool
        And "and",
        /// Bitwise or
        Or "or",
        /// Bitwise exclusive or
        Xor "xor",
        /// a shifted left by b bits; 0 when b is outside 0..width
        Shl "shl",
        /// a shifted right by b bits (arithmetic for signed types); only sign bits when b is outside 0..width
        Shr "shr",
        /// a = b
        Eq "eq",
        /// a < b
        Lt "lt",
        /// a <= b
        Le "le",
    }
}

impl UnaryOp {
    /// Whether it is a function that machines approximate, not compute exactly or with one rounding.
    pub fn is_elementary(self) -> bool {
        use UnaryOp::{Abs, Ceil, Floor, Neg, Not, RoundEven, Sign, Sqrt, Trunc};
        use UnaryOp::{Acos, Asin, Atan, Cos, Erf, Exp, Expm1, Log, Log1p, Sin, Tan, Tanh};
        match self {
            Neg | Abs | Sign | Floor | Ceil | Trunc | RoundEven | Sqrt | Not => false,
            Exp | Expm1 | Log | Log1p | Sin | Cos | Tan | Asin | Acos | Atan | Tanh | Erf => true,
        }
    }
}

impl BinaryOp {
    /// Whether the result is bool.
    pub fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Eq | BinaryOp::Lt | BinaryOp::Le)
    }

    /// Whether op(a, b) = op(b, a), bits included (NaN payloads aside).
    pub fn is_commutative(self) -> bool {
        use BinaryOp::{Add, And, Eq, Max, Min, Mul, Or, Xor};
        matches!(self, Add | Mul | Min | Max | And | Or | Xor | Eq)
    }
}

word_enum! {
    /// How a reduction combines.
    ReduceKind {
        /// Sum; from 0
        Sum "sum",
        /// Product; from 1
        Prod "prod",
        /// Smallest; NaN wins, -0 is below +0; from the type's largest (floats: infinity)
        Min "min",
        /// Largest; NaN wins, -0 is below +0; from the type's smallest (floats: -infinity)
        Max "max",
        /// Index (i64) of the first smallest, the first NaN when there is one; one axis
        ArgMin "argmin",
        /// Index (i64) of the first largest, the first NaN when there is one; one axis
        ArgMax "argmax",
    }
}

word_enum! {
    /// How scatter combines an update with what is there.
    ScatterKind {
        /// The last update wins
        Assign "assign",
        /// Sum
        Add "add",
        /// Product
        Mul "mul",
        /// Smaller
        Min "min",
        /// Larger
        Max "max",
    }
}

/// What kind of work an op is; fusion and verdict counts go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpClass {
    /// Inputs, constants, parameters.
    Source,
    /// One element out for one in.
    Elementwise,
    /// Elements move, none changes.
    Movement,
    /// Elements combine along axes.
    Reduction,
    /// Products summed.
    Contraction,
    /// Regions, calls, assertions.
    Control,
    /// Host values.
    Host,
    /// Not core: an ONNX op before legalize.
    Foreign,
}

/// Operand or region counts that an op takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub min: usize,
    /// At most; `None`: any number.
    pub max: Option<usize>,
}

impl Count {
    /// Whether `n` is allowed.
    pub fn allows(self, n: usize) -> bool {
        n >= self.min && self.max.is_none_or(|max| n <= max)
    }
}

macro_rules! count {
    (any) => {
        Count { min: 0, max: None }
    };
    ($min:literal +) => {
        Count { min: $min, max: None }
    };
    ($n:literal) => {
        Count { min: $n, max: Some($n) }
    };
}

macro_rules! ops {
    ($( $(#[doc = $doc:literal])* $name:ident $text:literal ($($operands:tt)*) [$($regions:tt)*] $class:ident
        { $($(#[doc = $attr_doc:literal])* $attr:ident : $ty:ty),* $(,)? } )*) => {
        /// An op of the core set, with its attributes. Operands and regions belong to the node that holds it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            /// An elementwise op of one operand
            Unary(UnaryOp),
            /// An elementwise op of two operands
            Binary(BinaryOp),
            $( $(#[doc = $doc])* $name { $($(#[doc = $attr_doc])* $attr: $ty),* }, )*
        }

        impl Op {
            /// Its word in .frit text.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Unary(u) => u.name(),
                    Op::Binary(b) => b.name(),
                    $( Op::$name { .. } => $text, )*
                }
            }

            /// What kind of work it is.
            pub fn class(&self) -> OpClass {
                match self {
                    Op::Unary(_) | Op::Binary(_) => OpClass::Elementwise,
                    $( Op::$name { .. } => OpClass::$class, )*
                }
            }

            /// How many operands it takes.
            pub fn operand_count(&self) -> Count {
                match self {
                    Op::Unary(_) => count!(1),
                    Op::Binary(_) => count!(2),
                    $( Op::$name { .. } => count!($($operands)*), )*
                }
            }

            /// How many regions it holds.
            pub fn region_count(&self) -> Count {
                match self {
                    Op::Unary(_) | Op::Binary(_) => count!(0),
                    $( Op::$name { .. } => count!($($regions)*), )*
                }
            }

            /// Its attributes by name, in the table's order.
            pub fn attributes(&self) -> Vec<(&'static str, AttrValue)> {
                match self {
                    Op::Unary(_) | Op::Binary(_) => Vec::new(),
                    $( Op::$name { $($attr),* } => {
                        let all: Vec<Option<(&'static str, AttrValue)>> = vec![
                            $((!Attr::is_absent($attr)).then(|| (stringify!($attr), Attr::to_value($attr)))),*
                        ];
                        all.into_iter().flatten().collect()
                    } )*
                }
            }

            /// The op for a word and its attributes; the error says what is unknown, missing or of the wrong kind.
            pub fn from_parts(name: &str, attributes: &BTreeMap<String, AttrValue>) -> Result<Op, String> {
                let mut known: Vec<&str> = Vec::new();
                let op = match name {
                    $( $text => {
                        let names: &[&str] = &[$(stringify!($attr)),*];
                        known.extend(names);
                        Op::$name { $($attr: {
                            let name = stringify!($attr);
                            match (attributes.get(name), <$ty as Attr>::absent()) {
                                (Some(value), _) => {
                                    <$ty as Attr>::from_value(value).map_err(|e| format!("attribute `{name}`: {e}"))?
                                }
                                (None, Some(absent)) => absent,
                                (None, None) => return Err(format!("attribute `{name}` is missing")),
                            }
                        }),* }
                    } )*
                    word => match (UnaryOp::from_name(word), BinaryOp::from_name(word)) {
                        (Some(u), _) => Op::Unary(u),
                        (_, Some(b)) => Op::Binary(b),
                        (None, None) => return Err(format!("`{word}` is no op")),
                    },
                };
                match attributes.keys().find(|k| !known.contains(&k.as_str())) {
                    Some(extra) => Err(format!("`{name}` has no attribute `{extra}`")),
                    None => Ok(op),
                }
            }

            /// Name, class and meaning of every op that is not in [`UnaryOp`] or [`BinaryOp`].
            pub const DOCS: &[(&'static str, OpClass, &'static str)] =
                &[$( ($text, OpClass::$class, concat!($($doc, "\n"),*)) ),*];
        }
    };
}

ops! {
    /// An input of the function; only functions create it.
    Input "input" (0) [0] Source {
        /// Its name.
        name: String,
        /// Its type.
        ty: ValueType,
    }
    /// A small constant, printed in the text.
    Constant "constant" (0) [0] Source {
        /// Its value.
        value: Tensor,
    }
    /// A tensor of the module's parameter store.
    Param "param" (0) [0] Source {
        /// Its name in the store.
        name: String,
        /// Its type there.
        ty: TensorType,
    }
    /// Index along `axis`: result[i0, ..] = i_axis.
    Iota "iota" (0) [0] Movement {
        /// Integer or float type of the result.
        dtype: DType,
        /// Result shape.
        dims: Vec<Dim>,
        /// The axis counted.
        axis: usize,
    }
    /// The value of an extent, as an i64 scalar.
    DimValue "dim" (0) [0] Movement {
        /// The extent.
        value: Dim,
    }
    /// select(c, a, b) = c ? a : b; c is bool, all of one shape.
    Select "select" (3) [0] Elementwise {
        /// c holds almost everywhere: b is best computed where it does not hold only.
        likely: Flag,
    }
    /// Conversion. Float to int truncates (out of range: clamped to i64, from above to u64 for u64, and the low bits
    /// stay; NaN gives 0), to bool is x != 0; float to float rounds to nearest even, below f32 through f32 (f8e8m0: up
    /// to a power of two); integers keep low bits. `saturate` clamps 8-bit floats and integers to their range.
    Cast "cast" (1) [0] Elementwise {
        /// Result element type.
        to: DType,
        /// Clamp instead of overflow.
        saturate: bool,
    }
    /// The same bits as another type of the same size.
    Bitcast "bitcast" (1) [0] Elementwise {
        /// Result element type.
        to: DType,
    }
    /// Repeats along dims: operand axis i becomes result axis `axes[i]` (ascending); an operand extent is the result's
    /// or 1 (decided at run time when not known).
    Broadcast "broadcast" (1) [0] Movement {
        /// Result shape.
        dims: Vec<Dim>,
        /// Result axis of each operand axis.
        axes: Vec<usize>,
    }
    /// The same elements in row-major order under other extents.
    Reshape "reshape" (1) [0] Movement {
        /// Result shape.
        dims: Vec<Dim>,
    }
    /// result axis i is operand axis `perm[i]`.
    Transpose "transpose" (1) [0] Movement {
        /// A permutation of the axes.
        perm: Vec<usize>,
    }
    /// result[i] = x[starts + i * steps], `sizes` elements along each axis; every index it reads is inside x.
    Slice "slice" (1) [0] Movement {
        /// First index along each axis.
        starts: Vec<Dim>,
        /// Result extents.
        sizes: Vec<Dim>,
        /// Step along each axis, not 0.
        steps: Vec<i64>,
    }
    /// A slice whose starts are operands: (x, start_0, .., start_r-1), i64 scalars, clamped so that it stays inside.
    DynamicSlice "dynamic_slice" (1 +) [0] Movement {
        /// Result extents.
        sizes: Vec<Dim>,
    }
    /// (x, update, start_0, .., start_r-1): x with `update` written at the starts (clamped so that it stays inside).
    UpdateSlice "update_slice" (2 +) [0] Movement {}
    /// (x, value): x with `low` and `high` elements of the scalar `value` before and after along each axis.
    Pad "pad" (2) [0] Movement {
        /// Elements before, at least 0.
        low: Vec<Dim>,
        /// Elements after, at least 0.
        high: Vec<Dim>,
    }
    /// Operands one after another along `axis`.
    Concat "concat" (1 +) [0] Movement {
        /// The axis joined.
        axis: usize,
    }
    /// (x, indices): x's `axis` replaced by the dims of `indices` (integers in 0..extent; outside is a run-time error).
    Gather "gather" (2) [0] Movement {
        /// The axis looked up.
        axis: usize,
    }
    /// (x, indices[k], updates): x, with updates[.., j, ..] combined into x[.., indices[j], ..] for j = 0..k in order;
    /// an index outside is a run-time error.
    Scatter "scatter" (3) [0] Movement {
        /// The axis looked up.
        axis: usize,
        /// How an update combines.
        kind: ScatterKind,
    }
    /// (x, value): sliding windows. Axis `axes[i]` becomes its window positions, and a new last axis (in order of
    /// `axes`) the offset inside: result[.., o, .., w] = x[.., o * stride + w * dilation - low, ..], `value` outside.
    Window "window" (2) [0] Movement {
        /// Axes that slide, ascending.
        axes: Vec<usize>,
        /// Window extents.
        sizes: Vec<usize>,
        /// Steps between windows, at least 1.
        strides: Vec<usize>,
        /// Steps inside a window, at least 1.
        dilations: Vec<usize>,
        /// Padding before.
        low: Vec<usize>,
        /// Padding after.
        high: Vec<usize>,
    }
    /// Combines along `axes`, which leave the shape. Sums and products follow the order of [`crate::reference`].
    Reduce "reduce" (1) [0] Reduction {
        /// Axes, ascending; empty: the operand itself.
        axes: Vec<usize>,
        /// How.
        kind: ReduceKind,
    }
    /// Running combination along `axis`, in order.
    Cumulate "cumulate" (1) [0] Reduction {
        /// The axis.
        axis: usize,
        /// Sum, prod, min or max.
        kind: ReduceKind,
        /// Element i combines those before i only.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    }
    /// Stable sort of all operands along `axis` by the first; NaN sorts as the largest.
    Sort "sort" (1 +) [0] Reduction {
        /// The axis.
        axis: usize,
        /// Largest first.
        descending: bool,
    }
    /// Products summed over contracted axes; result dims: batch, then lhs free, then rhs free.
    DotGeneral "dot_general" (2) [0] Contraction {
        /// Batch axes of the left operand.
        lhs_batch: Vec<usize>,
        /// Batch axes of the right operand, in the same order.
        rhs_batch: Vec<usize>,
        /// Contracted axes of the left operand.
        lhs_contract: Vec<usize>,
        /// Contracted axes of the right operand, in the same order.
        rhs_contract: Vec<usize>,
        /// Element type of sums and result.
        accumulate: DType,
    }
    /// (x[n, c, ..], w[o, c / groups, ..]) -> [n, o, ..]: cross-correlation over the spatial axes.
    Conv "conv" (2) [0] Contraction {
        /// Step of each spatial axis.
        strides: Vec<usize>,
        /// Step inside the kernel.
        dilations: Vec<usize>,
        /// Padding before.
        low: Vec<usize>,
        /// Padding after.
        high: Vec<usize>,
        /// Groups of channels.
        groups: usize,
    }
    /// (x[n, c, ..], w[c, o / groups, ..]) -> [n, o, ..]: the transpose of `conv`; extent
    /// stride (in - 1) + dilation (k - 1) + 1 + output_padding - low - high.
    ConvTranspose "conv_transpose" (2) [0] Contraction {
        /// Step of each spatial axis.
        strides: Vec<usize>,
        /// Step inside the kernel.
        dilations: Vec<usize>,
        /// Cropped before.
        low: Vec<usize>,
        /// Cropped after.
        high: Vec<usize>,
        /// Added after.
        output_padding: Vec<usize>,
        /// Groups of channels.
        groups: usize,
    }
    /// mask[n] bool -> ascending indices (i64) of its true elements; their number is a fresh extent.
    Compact "compact" (1) [0] Host {
        /// The fresh extent.
        count: Symbol,
    }
    /// (condition, captured..): the results of the first region when true, else of the second; both take the captured.
    If "if" (1 +) [2] Control {}
    /// (trip i64, condition bool, carried.., captured..): the region takes (i, condition, carried.., captured..) and
    /// gives (condition, carried.., stacked..); results: the carried, then each stacked along a new axis 0. It runs
    /// while i < trip and the condition holds.
    Loop "loop" (2 +) [1] Control {
        /// How many operands are carried.
        carried: usize,
        /// The extent of stacked results: trips that ran (a fresh symbol unless known).
        trips: Dim,
    }
    /// The results of another function of the module.
    Call "call" (any) [0] Control {
        /// Its name.
        function: String,
    }
    /// A named group: the region is its meaning, the name what a backend may claim.
    Composite "composite" (any) [1] Control {
        /// What it is.
        name: String,
        /// Its attributes.
        attributes: BTreeMap<String, AttrValue>,
    }
    /// A group that becomes one kernel; the region is its meaning.
    Fusion "fusion" (any) [1] Control {}
    /// (inputs.., cotangents..): the region's outputs, then, for each input listed in `wrt`, the derivative by it of the
    /// sum of the first `of` outputs, each times its cotangent (a vector-Jacobian product). `grad` replaces it.
    Vjp "vjp" (any) [1] Foreign {
        /// How many of the outputs have a cotangent.
        of: usize,
        /// The inputs to differentiate by; floats.
        wrt: Vec<usize>,
    }
    /// Passes x on; a false element of the condition is a run-time error with the message: (x, condition).
    Assert "assert" (2) [0] Control {
        /// What went wrong.
        message: String,
    }
    /// A list of its operands, all of type `element`.
    SequenceConstruct "sequence_construct" (any) [0] Host {
        /// Type of its elements.
        element: ValueType,
    }
    /// (sequence, position): an element; a negative position counts from the end. Outside is a run-time error.
    SequenceAt "sequence_at" (2) [0] Host {}
    /// (sequence, value, position): with the value inserted before the position.
    SequenceInsert "sequence_insert" (3) [0] Host {}
    /// (sequence, position): without that element.
    SequenceErase "sequence_erase" (2) [0] Host {}
    /// The number of elements, as an i64 scalar.
    SequenceLength "sequence_length" (1) [0] Host {}
    /// Stands for an optional input that the model leaves out; only `onnx` ops take it.
    Absent "absent" (0) [0] Foreign {}
    /// An ONNX op, until legalize. An optional input that is left out is an `absent` operand.
    Onnx "onnx" (any) [any] Foreign {
        /// Operator domain; empty: ai.onnx.
        domain: String,
        /// Operator type.
        op_type: String,
        /// The version of the operator that the model's opset means.
        since_version: i64,
        /// Its attributes; graphs are regions, in the order of the names listed under `__regions`.
        attributes: BTreeMap<String, AttrValue>,
    }
}

impl Op {
    /// Whether numerics mean something on it: it calculates, or holds or stands for ops that do.
    pub fn takes_numerics(&self) -> bool {
        match self.class() {
            OpClass::Elementwise | OpClass::Reduction | OpClass::Contraction | OpClass::Control | OpClass::Foreign => {
                true
            }
            OpClass::Source | OpClass::Host => false,
            OpClass::Movement => matches!(self, Op::Scatter { .. }),
        }
    }
}

/// How far arithmetic may depart from the order and rounding that the graph states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Numerics {
    /// a b + c may be rounded once.
    pub contract: bool,
    /// Sums may be reordered.
    pub reassociate: bool,
    /// 4 ulp instead of 2 for elementary functions.
    pub approximate: bool,
}

impl Numerics {
    /// Nothing is allowed: the same bits at every level, width and thread count.
    pub const STRICT: Numerics = Numerics { contract: false, reassociate: false, approximate: false };
    /// Everything is allowed.
    pub const FAST: Numerics = Numerics { contract: true, reassociate: true, approximate: true };

    /// What both allow.
    #[must_use]
    pub fn meet(self, other: Numerics) -> Numerics {
        Numerics {
            contract: self.contract && other.contract,
            reassociate: self.reassociate && other.reassociate,
            approximate: self.approximate && other.approximate,
        }
    }
}
