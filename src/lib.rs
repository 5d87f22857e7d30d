//! Linux's `load_module` in user space.
//!
//! [`Loader`] is the way in: it takes a kernel (what is known of its
//! symbols and exports), places modules in its address space as it would, and
//! runs the pipeline of [`load::load_module`], whose stages live in the crates
//! `module-signature`, `elf-layout`, `symres`, `reloc` and `finalize`. The result is a [`load::Load`]: the
//! module's memory at its final addresses, and [`elf_layout::Findings`] with
//! everything the kernel would say.
//!
//! The program of the same name is built on this library alone.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod address;
pub mod check;
pub mod document;
pub mod elf_output;
pub mod error;
pub mod explain;
pub mod image;
pub mod input;
pub mod inspect;
pub mod kernel_facts;
pub mod kernel_source;
pub mod keyring;
pub mod load;
pub mod load_map;
pub mod loader;
mod mapped;
pub mod outputs;
pub mod raw_output;
pub mod running;
pub mod sarif;
pub mod setup;
pub mod simulate;
pub mod threads;

pub use error::Error;
pub use load::{Args, Load, Stage, load_module};
pub use loader::{Loader, Place, Workspace};
