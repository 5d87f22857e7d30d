//! The kernel that modules are loaded into: what is known of it, and what loading changes of it (spec 08, 09).
//! By which rule a module is taken is left to `symres`, `reloc` and `finalize`.
//!
//! - [`KernelDescriptionBuilder`] joins the sources that describe a kernel: an image, a SPEC, or the texts that [`kallsyms`]
//!   and [`symvers`] read, into a [`KernelDescription`]: facts that do not change, and how each is [`Known`].
//! - [`KernelState`] is what does change: modules, their addresses, taints, history, live memory.
//! - [`Kernel`] is both: what a module is loaded into. [`lifecycle`] is what happens to its module list as
//!   modules come and go.
//!
//! ```
//! use kernel::{KernelSymbols, Symvers};
//!
//! # fn main() -> Result<(), kernel::Error> {
//! let symbols = KernelSymbols::parse(b"ffffffff81000000 T _text\nffffffff81122340 T _printk\n")?;
//! assert_eq!(symbols.address("_printk"), Some(0xffff_ffff_8112_2340));
//!
//! let symvers = Symvers::parse(b"0x92997ed8\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n")?;
//! let export = symvers.exports().find(b"_printk").expect("it is in the text");
//! assert_eq!((export.crc, export.gpl_only), (Some(0x9299_7ed8), false));
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod boot;
pub mod btf;
pub mod builder;
pub mod built_in;
pub mod description;
pub mod error;
pub mod exports;
pub mod history;
pub mod kallsyms;
mod kernel;
pub mod keyring;
pub mod known;
pub mod lifecycle;
pub mod lockdown;
pub mod memory;
pub mod module;
pub mod names;
mod parts;
mod proc_modules;
pub mod running;
pub mod space;
pub mod spec;
pub mod state;
pub mod symvers;
mod tables;
pub mod taint;
pub mod types;

pub use boot::{BootParams, Shown};
pub use btf::{BaseBtf, BtfType};
pub use builder::{KernelDescriptionBuilder, Needs};
pub use built_in::{BuiltIn, Folder};
pub use description::{KernelDescription, NotLoaded, newest};
pub use error::Error;
pub use exports::{Export, ExportTable, Exports, Told};
pub use history::{Event, Exit, Happening, Init};
pub use kallsyms::{KernelSymbol, KernelSymbols};
pub use kernel::{Kernel, Owner};
pub use keyring::Keyring;
pub use known::{Fact, Found, Known};
pub use lifecycle::Notifier;
pub use memory::{LinkMemory, LiveMemory, Part, Piece};
pub use module::{LoadedModule, ModuleState};
pub use proc_modules::parse_proc_modules;
pub use running::RunningKernel;
pub use spec::Records;
pub use state::KernelState;
pub use symvers::Symvers;
pub use taint::{Taint, Taints};
pub use types::{Member, Types};
