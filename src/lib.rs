//! Linux's `load_module` in user space.
//!
//! [`Kernel`] is the way in: it is made of whatever describes a kernel, and loads modules into it. What comes of that is a
//! [`LinkedModule`], the module in memory at its final addresses, or a [`Failure`] that says why there is none.
//!
//! ```no_run
//! use kmodld::{Kernel, Placement, Stage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = Kernel::builder().image("/boot/vmlinuz-6.12.0")?.build()?;
//! let module = kernel.load(&*std::fs::read("fat.ko")?).at(Placement::Kernel).stage(Stage::Final).run()?;
//! for import in module.imports() {
//!     println!("{} of {} at {:#x?}", import.name, import.owner, import.address);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One level below, [`Loader`] takes a kernel (`kernel::KernelDescription` and `kernel::KernelState`, made from the files that
//! [`kernel_source`] reads or by `kernel::KernelDescriptionBuilder`), places modules in its address space as it would, and runs the
//! pipeline of the module [`load`], whose stages live in the crates `elf-layout`, `symres`, `reloc` and `finalize`. What comes of it is an
//! [`Attempt`]: a [`load::Load`], the module in memory ([`elf_layout::Module`]) at its final addresses with what it takes from others and
//! what was patched, and [`elf_layout::Findings`] with everything the kernel would say. The crates are re-exported, so that a program
//! needs no other dependency.
//!
//! The program of the same name is built on this library alone, behind the feature `cli`.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod addr;
pub mod address;
mod api;
pub mod attempt;
pub mod check;
pub mod decompression;
pub mod digest;
#[cfg(feature = "disassemble")]
pub mod disassembly;
pub mod document;
#[cfg(feature = "verify")]
pub mod dump_file;
pub mod elf_output;
pub mod error;
pub mod explain;
pub mod image;
pub mod input;
pub mod inspect;
#[cfg(feature = "run")]
pub mod judge;
pub mod kernel_facts;
pub mod kernel_source;
pub mod keyring;
pub mod linked;
pub mod load;
pub mod load_map;
pub mod loader;
mod mapped;
pub mod memory_file;
pub mod modinfo;
pub mod modprobe;
pub mod outputs;
mod percpu;
pub mod raw_output;
pub mod root;
#[cfg(feature = "run")]
pub mod run;
pub mod sarif;
#[cfg(feature = "schema")]
pub mod schema;
pub mod setup;
pub mod simulate;
pub mod threads;
#[cfg(feature = "trace")]
pub mod trace;
#[cfg(feature = "verify")]
pub mod verify;
pub mod watch;

pub use api::{Kernel, KernelBuilder, Loading};
pub use attempt::{Attempt, Failure};
pub use error::Error;
pub use image::Workspace;
pub use linked::LinkedModule;
pub use load::{Args, Load, Stage};
/// Where a module is to go.
pub use loader::Place as Placement;
pub use loader::{Loader, Place};

pub use {elf_layout, finalize, kernel, kernel_image, module_signature, reloc, symres};
