//! The facts of a kernel's description, as `kernel --json` prints them.

use elf_layout::Machine;
use kernel::{Exports, KernelDescriptionBuilder, KernelSymbols};
use serde::Serialize;

use crate::document::SCHEMA;

/// The facts. Fields are in the order of their names, as they are printed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelFacts<'k> {
    /// Its architecture, as `uname -m` calls it.
    pub arch: Option<&'static str>,
    /// `Linux version ...`
    pub banner: Option<&'k str>,
    /// How many certificates are built in.
    pub certificates: usize,
    /// Is its configuration known?
    pub config: bool,
    /// How far what kmodld says of this kernel is known to be right: `exact`, `rules` or `unknown`.
    pub coverage: &'static str,
    /// How many symbols it exports.
    pub exports: Option<usize>,
    /// What came from where.
    pub found: Vec<FoundEntry<'k>>,
    /// PAGE_SIZE in bytes.
    pub page_size: Option<u64>,
    /// `uname -r`
    pub release: Option<&'k str>,
    /// The version of this document: 2.
    pub schema: u32,
    /// `struct module`, as far as it is known.
    pub struct_module: StructModuleEntry,
    /// How many symbols it has.
    pub symbols: Option<usize>,
    /// The string that vermagic is compared with.
    pub vermagic: Option<&'k str>,
}

/// One piece of the description.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundEntry<'k> {
    /// Where and how it was found.
    pub how: &'k str,
    /// What it is.
    pub what: &'static str,
}

/// `struct module`: numbers of bytes in hex.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StructModuleEntry {
    /// Offset of `exit`.
    pub exit: Option<String>,
    /// Offset of `init`.
    pub init: Option<String>,
    /// Its size.
    pub size: Option<String>,
}

impl<'k> KernelFacts<'k> {
    /// What a builder was told, and the machine that it is for.
    pub fn of(kernel: &'k KernelDescriptionBuilder, machine: Option<&'static Machine>) -> Self {
        let hex = |value: u64| format!("{value:#x}");
        let (size, init_exit) = kernel.struct_module();
        let (init, exit) = init_exit.unzip();
        KernelFacts {
            arch: machine.map(|machine| machine.name),
            banner: kernel.banner(),
            certificates: kernel.certificates().len(),
            config: kernel.has_config_text(),
            coverage: kernel.coverage(reloc::MACHINES).word(),
            exports: kernel.own_exports().map(Exports::len),
            found: kernel.found().iter().map(|f| FoundEntry { how: &f.how, what: f.what }).collect(),
            page_size: kernel.page_size(),
            release: kernel.own_release(),
            schema: SCHEMA,
            struct_module: StructModuleEntry {
                exit: exit.map(hex),
                init: init.map(hex),
                size: size.map(hex),
            },
            symbols: kernel.link_symbols().map(KernelSymbols::len),
            vermagic: kernel.own_vermagic(),
        }
    }
}
