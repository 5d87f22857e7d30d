//! Relocation of Linux kernel modules: the types that the kernel's loader
//! knows, with its checks, their order and its texts (spec 04 and 05).
//!
//! [`apply::apply_relocations`] is the driver that all architectures share; an
//! architecture is one module behind [`Architecture`], registered in
//! [`ARCHITECTURES`].
//!
//! A module in memory of one's own, with symbols of one's own:
//!
//! ```no_run
//! use elf_layout::{KernelConfig, KernelVersion, ModuleFile};
//! use reloc::{MACHINES, OwnError, load_into};
//! use symres::simplify_symbols_from;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = std::fs::read("hello.ko")?;
//! let config = KernelConfig::assumed(KernelVersion::new(6, 12, 0));
//! let file = ModuleFile::parse(&bytes, &config, MACHINES).map_err(OwnError::Refused)?;
//! let symbols = |name: &[u8]| (name == b"_printk").then_some(0xffff_ffff_c000_0000_u64);
//! let memory = (vec![0; 1 << 20], 0xffff_ffff_c100_0000);
//! let module = load_into(&file, &config, memory, |module, arch, said| {
//!     simplify_symbols_from(module, &symbols, |name| arch.ignores_undefined(name), said);
//! })?;
//! println!("init at {:#x?}", module.init());
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod aarch64;
pub mod apply;
pub mod arch;
pub mod finalizer;
pub mod livepatch;
pub mod mod_arch;
mod numbers;
pub mod own;
pub mod reach;
pub mod record;
pub mod sort;
pub mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod x86_64;

use alloc::borrow::Cow;

use elf_layout::ModuleFile;
use elf_layout::elf::{RawRela, Rela, Shdr};

pub use apply::apply_relocations;
pub use arch::{Architecture, ExtableEntry, FtraceBug};
pub use finalizer::{Finalizer, LoadFacts};
pub use mod_arch::{Cpu, ModArch, ModPltSec, Slot};
pub use numbers::{Formula, Howto, ResultBits};
pub use own::{OwnError, load_into};
pub use record::{Choice, Journal, Patch, PatchBytes, Record, RuntimeState, Step};
pub use target::Target;
/// What else an architecture from outside is made of.
pub use {
    elf_layout::KernelConfig, elf_layout::Machine, elf_layout::place::Windows, kernel_image::ImageArch,
};

/// The records of a RELA section.
#[derive(Clone, Copy, Debug)]
pub enum Records<'a> {
    /// As they stand in the file.
    File(&'a [RawRela]),
    /// As the architecture has reordered them (PLT-14).
    Reordered(&'a [Rela]),
}

impl Records<'_> {
    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Rela> {
        let (file, reordered) = match *self {
            Records::File(records) => (records, &[][..]),
            Records::Reordered(records) => (&[][..], records),
        };
        file.iter().map(Rela::from).chain(reordered.iter().copied())
    }
}

/// One RELA section about to be applied.
#[derive(Debug)]
pub struct RelaSection<'a> {
    /// The module.
    pub file: &'a ModuleFile<'a>,
    /// The kernel's version and configuration.
    pub config: &'a KernelConfig,
    /// Index of the RELA section.
    pub index: usize,
    /// Index of the section it patches (`sh_info`).
    pub target: usize,
    /// That section goes after init.
    pub in_init: bool,
    /// Its memory, and what else of the module relocations reach.
    pub memory: Target<'a>,
    /// Its final address.
    pub address: u64,
    /// `st_value` of every symbol.
    pub values: &'a [u64],
    /// By index: is the value of this symbol not known? Its relocations are left out then.
    pub unknown: &'a [bool],
    /// Address of the symbol table.
    pub symtab: u64,
    /// The headers of all sections, where one that is not in memory tells that its symbols are not, either.
    pub sechdrs: &'a [Shdr],
}

/// All architectures.
pub static ARCHITECTURES: &[&dyn Architecture] = &[&x86_64::X86_64, &aarch64::Aarch64];

/// Their machines, in the same order.
pub static MACHINES: &[&Machine] = &[&x86_64::MACHINE, &aarch64::MACHINE];

/// The architecture of an EM_* value.
pub fn architecture(e_machine: u16) -> Option<&'static dyn Architecture> {
    ARCHITECTURES.iter().copied().find(|a| a.e_machine() == e_machine)
}

/// The psABI's name of a relocation type, for messages.
pub fn type_text(e_machine: u16, r_type: u32) -> Cow<'static, str> {
    let names = object::elf::machine_names(object::elf::Machine(e_machine)).r;
    match names.name(object::elf::RelocationType(r_type)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(alloc::format!("type {r_type}")),
    }
}
