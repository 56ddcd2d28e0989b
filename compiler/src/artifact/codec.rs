//! Values to bytes and back: little-endian numbers, lengths before lists, a tag before each variant.
//!
//! Reading trusts nothing: a list grows as its items are read, never to the length that the file claims, and nesting is
//! limited.

use super::ArtifactError;

/// Levels that values may be nested: a dim inside a dim, a type inside a type.
const MAX_DEPTH: u32 = 64;

/// Bytes not read yet.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, depth: 0 }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], ArtifactError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| damaged("ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads something that may hold its own kind.
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ArtifactError>,
    ) -> Result<T, ArtifactError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(damaged("is nested too deeply"));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }
}

/// A damaged section.
pub(super) fn damaged(what: &str) -> ArtifactError {
    ArtifactError::Damaged(format!("the plan {what}"))
}

/// A value that has a form in bytes; reading what was written gives the same value.
pub(super) trait Codec: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError>;
}

macro_rules! numbers {
    ($($ty:ty)*) => {$(
        impl Codec for $ty {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
                let bytes = r.take(size_of::<$ty>())?;
                Ok(<$ty>::from_le_bytes(bytes.try_into().map_err(|_| damaged("ends too early"))?))
            }
        }
    )*};
}

numbers!(u8 u32 u64 i64 f64);

impl Codec for usize {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u64).write(out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        usize::try_from(u64::read(r)?).map_err(|_| damaged("has a number that is too large"))
    }
}

impl Codec for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        match u8::read(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(damaged("has a flag that is neither 0 nor 1")),
        }
    }
}

impl Codec for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.len().write(out);
        out.extend(self.as_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let len = usize::read(r)?;
        let text = std::str::from_utf8(r.take(len)?).map_err(|_| damaged("has a name that is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.len().write(out);
        self.iter().for_each(|item| item.write(out));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let len = usize::read(r)?;
        let mut items = Vec::new();
        for _ in 0..len {
            // Every item takes a byte at least, so a claimed length ends with the bytes.
            items.push(T::read(r)?);
        }
        Ok(items)
    }
}

impl<T: Codec> Codec for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|item| item.write(out));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        if bool::read(r)? { T::read(r).map(Some) } else { Ok(None) }
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        Ok((A::read(r)?, B::read(r)?))
    }
}

/// A struct as its fields in order.
macro_rules! record {
    ($($ty:ident { $($field:ident),* })*) => {$(
        impl Codec for $ty {
            fn write(&self, out: &mut Vec<u8>) {
                $( self.$field.write(out); )*
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
                Ok($ty { $( $field: Codec::read(r)? ),* })
            }
        }
    )*};
}

/// An enum as a tag and the fields of the variant. Every variant has a row: a new one compiles only with it.
macro_rules! variants {
    ($($ty:ident { $($tag:literal $name:ident $({ $($field:ident),* })? $(( $($item:ident),* ))? ;)* })*) => {$(
        impl Codec for $ty {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $( $ty::$name $({ $($field),* })? $(( $($item),* ))? => {
                        out.push($tag);
                        $( $( $field.write(out); )* )?
                        $( $( $item.write(out); )* )?
                    } )*
                }
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
                r.nested(|r| match u8::read(r)? {
                    $( $tag => {
                        $( $( let $field = Codec::read(r)?; )* )?
                        $( $( let $item = Codec::read(r)?; )* )?
                        Ok($ty::$name $({ $($field),* })? $(( $($item),* ))?)
                    } )*
                    _ => Err(damaged(concat!("has an unknown ", stringify!($ty)))),
                })
            }
        }
    )*};
}

pub(super) use {record, variants};
