//! What a description of a kernel tells, as `kernel --json` prints it.

use serde::Serialize;
use symres::Exports;

use crate::kernel_source::Description;

/// The facts. Fields are in the order of their names, as they are printed.
#[derive(Debug, Serialize)]
pub struct KernelFacts<'k> {
    /// `x86_64` or `aarch64`.
    pub arch: Option<&'static str>,
    /// `Linux version ...`
    pub banner: Option<&'k str>,
    /// How many certificates are built in.
    pub certificates: usize,
    /// Is its configuration known?
    pub config: bool,
    /// How many symbols it exports.
    pub exports: Option<usize>,
    /// What came from where.
    pub found: Vec<FoundEntry<'k>>,
    /// PAGE_SIZE in bytes.
    pub page_size: Option<u64>,
    /// `uname -r`
    pub release: Option<&'k str>,
    /// `struct module`, as far as it is known.
    pub struct_module: StructModuleEntry,
    /// How many symbols it has.
    pub symbols: Option<usize>,
    /// The string that vermagic is compared with.
    pub vermagic: Option<&'k str>,
}

/// One piece of the description.
#[derive(Debug, Serialize)]
pub struct FoundEntry<'k> {
    /// Where and how it was found.
    pub how: &'k str,
    /// What it is.
    pub what: &'static str,
}

/// `struct module`: numbers of bytes in hex.
#[derive(Debug, Serialize)]
pub struct StructModuleEntry {
    /// Offset of `exit`.
    pub exit: Option<String>,
    /// Offset of `init`.
    pub init: Option<String>,
    /// Its size.
    pub size: Option<String>,
}

impl<'k> KernelFacts<'k> {
    /// The facts of a description.
    pub fn of(kernel: &'k Description) -> Self {
        let hex = |value: u64| format!("{value:#x}");
        let (init, exit) = kernel.init_exit.unzip();
        KernelFacts {
            arch: kernel.machine.and_then(reloc::architecture).map(|arch| arch.name()),
            banner: kernel.banner.as_deref(),
            certificates: kernel.certificates.len(),
            config: kernel.config.is_some(),
            exports: kernel.exports.as_ref().map(Exports::len),
            found: kernel.found.iter().map(|f| FoundEntry { how: &f.how, what: f.what }).collect(),
            page_size: kernel.page_size,
            release: kernel.release.as_deref(),
            struct_module: StructModuleEntry {
                exit: exit.map(hex),
                init: init.map(hex),
                size: kernel.struct_module_size.map(hex),
            },
            symbols: kernel.symbols.as_ref().map(|s| s.len()),
            vermagic: kernel.vermagic.as_deref(),
        }
    }
}
