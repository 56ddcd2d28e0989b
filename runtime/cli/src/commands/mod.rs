//! A file a command. Each takes its parsed arguments, prints through a console and returns what went wrong.

pub(crate) mod bench;
pub(crate) mod compile;
pub(crate) mod demo;
pub(crate) mod export;
pub(crate) mod help;
pub(crate) mod inspect;
pub(crate) mod kernels;
pub(crate) mod new;
pub(crate) mod onnx;
pub(crate) mod run;
pub(crate) mod train;
pub(crate) mod verify;
