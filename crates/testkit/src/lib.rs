//! What the tests and benchmarks of all crates share. Nothing of the product depends on it.
//!
//! - [`elf`]: builds, reads and patches ELF64 files. It shares no code with the loader.
//! - [`fixtures`]: the modules and kernels of `fixtures/`.
//! - [`trees`]: unpacked kernels of distributions, if `KMODLD_KERNELS` names them.
//! - `captures`: memory of real kernels, read once and kept (feature `captures`).
//! - [`report`]: what a test tells beside passing or failing.
//!
//! It depends on no crate of this workspace and deals in plain bytes: a crate's own unit tests could not use types of that crate
//! from here, for they would be those of a second copy.
#![forbid(unsafe_code)]
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[cfg(feature = "captures")]
pub mod captures;
pub mod dump;
pub mod elf;
pub mod fixtures;
pub mod report;
pub mod trees;
