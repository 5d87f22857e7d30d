//! A load told as a story: what each step of the kernel read, decided and changed, as [`Event`]s.
//!
//! Nothing here does a step again. An observer ([`crate::watch`]) keeps what later steps overwrite; what stays is read from the load when
//! it is over.

pub mod event;
mod facts;
pub mod lifecycle;
pub mod page;
mod recorder;
mod regions;
mod relocations;
pub mod steps;
mod story;
mod symbols;
mod values;
pub mod words;

pub use event::Event;
pub use story::{Asking, insmod};
