//! The rules of this crate, told by its public interface on modules that are assembled for the purpose.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod btf;
mod common;
mod early;
mod hints;
mod resolve;
mod symbols;
mod versions;
