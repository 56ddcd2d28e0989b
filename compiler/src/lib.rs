//! From a module to an executable plan.
//!
//! ```text
//!  Module --passes--> Module --[lower]--> Kernel + Schedule --[cpu]--> machine code
//!                        |                (loop IR, [kernel])    [cuda]   CUDA C++
//!                        '------[plan]--> Plan: programs of steps over slots, code and constants beside
//! ```
//!
//! `driver` is the one call that does it all. Rooms: [`kernel`] (the loop IR: types, text, verifier, interpreter,
//! scalar maths), [`schedule`] (how loops run, as data), [`lower`] (core ops to loop IR), [`cpu`] (loop IR to machine
//! code), [`cuda`] (loop IR to CUDA C++), [`cost`] (what kernels should take), [`plan`] (what the runtime runs), [`artifact`] (plans in files), [`text`]
//! (reading kernels and schedules).
//!
//! `docs/af-kan-layer.md` beside this folder's manifest follows one layer through all of it, from its ops to its inner
//! loop, with what it reaches.
//!
//! What never happens here: the compiler sees no ONNX, calls no library and starts threads only while it
//! compiles; a plan is data.

pub mod artifact;
pub mod cost;
pub mod cpu;
pub mod cuda;
#[cfg(feature = "jit")]
pub mod driver;
#[cfg(feature = "jit")]
mod generate;
pub mod kernel;
pub mod lower;
pub mod plan;
pub mod schedule;
pub mod text;
