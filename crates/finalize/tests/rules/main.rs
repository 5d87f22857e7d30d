//! The rules of this crate, told by its public interface: on modules assembled for the purpose.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod kallsyms;
mod struct_module;
