//! The rules of this crate, told by its public interface: on fixtures that are patched, and on modules assembled for the
//! purpose.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;
mod exports;
mod files;
mod layout;
mod memory;
mod symtab_layout;
mod validity;
mod validity_corners;
