//! Element types: every type that ONNX can put in a tensor.
//!
//! In memory each element takes [`DType::size`] bytes, little-endian. The 2- and 4-bit types take one byte an element
//! (sign- or zero-extended): they are packed in files only, so every index map works on all types alike. Complex
//! numbers are not here: they are a trailing dim of 2 over their real type.

use std::fmt;
use std::str::FromStr;

macro_rules! dtypes {
    ($($name:ident $text:literal $size:literal $class:ident $bits:literal;)*) => {
        /// The type of one tensor element.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl DType {
            /// Every element type, in the table's order.
            pub const ALL: &[DType] = &[$(DType::$name),*];

            /// The name used in .frit text and messages.
            pub fn name(self) -> &'static str {
                match self { $(DType::$name => $text,)* }
            }

            /// Bytes one element takes in memory; 0 for strings, which live on the host.
            pub fn size(self) -> usize {
                match self { $(DType::$name => $size,)* }
            }

            /// What kind of number it is.
            pub fn class(self) -> Class {
                match self { $(DType::$name => Class::$class,)* }
            }

            /// Bits that carry the value.
            pub fn bits(self) -> u32 {
                match self { $(DType::$name => $bits,)* }
            }
        }

        impl FromStr for DType {
            type Err = UnknownDType;
            fn from_str(text: &str) -> Result<Self, UnknownDType> {
                match text {
                    $($text => Ok(DType::$name),)*
                    _ => Err(UnknownDType(text.to_owned())),
                }
            }
        }
    };
}

dtypes! {
//  name           text          bytes class    bits
    F32            "f32"           4   Float    32;
    F64            "f64"           8   Float    64;
    F16            "f16"           2   Float    16;
    BF16           "bf16"          2   Float    16;
    I8             "i8"            1   Signed   8;
    I16            "i16"           2   Signed   16;
    I32            "i32"           4   Signed   32;
    I64            "i64"           8   Signed   64;
    U8             "u8"            1   Unsigned 8;
    U16            "u16"           2   Unsigned 16;
    U32            "u32"           4   Unsigned 32;
    U64            "u64"           8   Unsigned 64;
    Bool           "bool"          1   Bool     1;
    I4             "i4"            1   Signed   4;
    U4             "u4"            1   Unsigned 4;
    I2             "i2"            1   Signed   2;
    U2             "u2"            1   Unsigned 2;
    F8E4M3FN       "f8e4m3fn"      1   Float    8;
    F8E4M3FNUZ     "f8e4m3fnuz"    1   Float    8;
    F8E5M2         "f8e5m2"        1   Float    8;
    F8E5M2FNUZ     "f8e5m2fnuz"    1   Float    8;
    F8E8M0         "f8e8m0"        1   Float    8;
    F4E2M1         "f4e2m1"        1   Float    4;
    Str            "string"        0   Text     0;
}

/// The kind of number an element type holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Binary floating point.
    Float,
    /// Two's complement integer.
    Signed,
    /// Unsigned integer.
    Unsigned,
    /// 0 or 1 in one byte.
    Bool,
    /// UTF-8 text, host only.
    Text,
}

impl DType {
    /// Floating point of any width.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Signed or unsigned integer, not bool.
    pub fn is_int(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// Types that only store: arithmetic casts to f32 (floats) or i8/u8 (integers) first.
    pub fn is_storage_only(self) -> bool {
        matches!(self.bits(), 2 | 4) || (self.is_float() && self.bits() == 8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no element type")]
pub struct UnknownDType(pub String);
