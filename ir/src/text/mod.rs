//! The native format `.frit`: a module as text, printed and read back without loss.
//!
//! ```text
//! frit 1
//! source "mlp.onnx"                               ; where the module came from
//! constants "mlp.safetensors"                     ; the file beside it that holds large tensors
//! param "w" trainable = f32[784, 10] file("w")    ; the store: name, type, where its value is
//!
//! func @infer(%0 "x": f32[B, 784]) {              ; inputs: value, name, type
//!   symbol B {min = 1, max = 128}                 ; what is known of a symbol
//!   donate 0 -> 0                                 ; input 0's buffer may become output 0's
//!   require equal(B, C) "what" at "add"           ; extents must agree (or: at_most, one_or)
//!   %1 = param {name = "w"} : f32[784, 10] at "w"
//!   %2 = dot_general(%0, %1) {lhs_batch = [], ..} : f32[B, 10] math(contract) at "fc" from "mlp.py:12"
//!   %3 = if(%4, %2) : f32[B, 10] at "node_if"     ; regions follow their op; each sees only its inputs
//!     region(%0 "a": f32[B, 10]) {
//!       return "r" = %0
//!     }
//!     ...
//!   return "logits" = %2                          ; outputs: name, value
//! }
//! ```
//!
//! An op is `results = word(operands) {attributes} : types math(flags) at "origin" from "source"` and then its regions.
//! Which attributes an op has is the op table's business: printer and parser know kinds of values ([`AttrValue`])
//! only. Texts written by hand may leave out types (they are inferred) and origins (`line 12` then), and may name
//! values (`%hidden`). `;` starts a comment.
//!
//! Holds: for every module of at most 64 nested regions, reading what was printed gives the same module, and printing
//! that gives the same text. Any text is read or refused with its place ([`TextError`]): nothing panics, nesting is
//! limited, and memory stays in proportion to the text.
//!
//! [`AttrValue`]: crate::op::AttrValue

mod attrs;
mod constants;
mod dot;
mod error;
mod lex;
mod literal;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;

pub use crate::map::map_file;
pub use constants::{ConstantPool, ConstantSource, FolderConstants, NoConstants};
pub use dot::dot;
pub use error::TextError;
pub use print::{PrintOptions, print, print_function};

use crate::module::Module;

/// A module as text, and the tensors that the text names.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The text.
    pub text: String,
    /// Tensors by the names that the text gives them: all parameters, and constants of more than 64 elements.
    pub constants: ConstantPool,
}

/// A module as text with large tensors apart.
pub fn to_text(module: &Module) -> Printed {
    let mut constants = ConstantPool::default();
    let text = print(module, &PrintOptions::default(), &mut constants);
    Printed { text, constants }
}

/// A module as one text that holds every tensor: to paste and to compare. For small modules.
pub fn to_inline_text(module: &Module) -> String {
    print(module, &PrintOptions::inline(), &mut ConstantPool::default())
}

/// Reads a module whose types are checked. Tensors that it names are asked of `constants` ([`NoConstants`] for a text
/// that holds everything).
pub fn from_text(text: &str, constants: &dyn ConstantSource) -> Result<Module, TextError> {
    parse::module("text", text, constants, true)
}

/// [`from_text`] of a text that is called `name` in messages; `checked` false believes every type that the text
/// states, for what [`crate::verify`] is to refuse.
pub fn parse(name: &str, text: &str, constants: &dyn ConstantSource, checked: bool) -> Result<Module, TextError> {
    parse::module(name, text, constants, checked)
}

/// Writes `path` and, when the module has tensors that don't stand in the text, a safetensors file of the same stem
/// beside it. Files that are there are replaced.
pub fn write_file(module: &Module, path: &Path) -> Result<(), TextError> {
    write_file_with(module, path, &PrintOptions::default())
}

/// [`write_file`], printed as `options` say; the constants file's name is chosen here.
pub fn write_file_with(module: &Module, path: &Path, options: &PrintOptions) -> Result<(), TextError> {
    let file = path.with_extension("safetensors");
    let name = file.file_name().and_then(|n| n.to_str()).map(str::to_owned);
    let Some(name) = name else {
        return Err(TextError::file(path, "the file's name must be UTF-8 text"));
    };
    let mut pool = ConstantPool::default();
    let mut options = PrintOptions { constants_file: Some(name), ..options.clone() };
    let mut text = print(module, &options, &mut pool);
    if pool.is_empty() {
        options.constants_file = None;
        text = print(module, &options, &mut pool);
    } else {
        pool.write(&file)?;
    }
    std::fs::write(path, text).map_err(|e| TextError::file(path, e))
}

/// Reads a `.frit` file. Tensors of the safetensors file that its header names are views of the mapped file.
pub fn read_file(path: &Path) -> Result<Module, TextError> {
    let text = std::fs::read_to_string(path).map_err(|e| TextError::file(path, e))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse::module(&path.display().to_string(), &text, &FolderConstants::new(folder), true)
}
