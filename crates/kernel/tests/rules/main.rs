//! The rules of this crate, told by its public interface.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;
mod description;
mod exports;
mod facts;
mod image;
mod lifecycle;
mod list;
mod running;
mod space;
mod taints;
