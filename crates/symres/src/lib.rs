//! The kernel's side of module loading: its symbols and exports, the modules
//! loaded so far, and by which rule a name gets its address (spec 03, 09 §9.1).
//!
//! - [`kallsyms`] and [`symvers`] read the texts that describe a kernel.
//! - [`Kernel`] is the immutable index that they are joined into.
//! - [`lifecycle`] is what happens to the module list as modules come and go.
//! - [`simplify::simplify_symbols`] gives every symbol of a module its value;
//!   [`resolve`] holds the rules for one undefined symbol.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod btf;
pub mod early;
pub mod exports;
pub mod hints;
pub mod kallsyms;
pub mod kernel;
pub mod license;
pub mod lifecycle;
pub mod names;
pub mod resolve;
pub mod simplify;
pub mod symvers;
pub mod taint;

pub use btf::BaseBtf;
pub use early::{BootParams, LoadFlags};
pub use exports::{Export, ExportTable, Exports};
pub use kallsyms::KernelSymbols;
pub use kernel::{Kernel, KernelParts, LoadedModule, NotLoaded, Owner};
pub use lifecycle::{Exit, Init, ModuleState};
pub use simplify::{Import, Resolution};
pub use taint::{Taint, Taints};

/// Why a description of a kernel cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A line of a kallsyms or System.map text is not `ADDRESS TYPE NAME`.
    #[error("line {0}: not an \"ADDRESS TYPE NAME\" line of kallsyms or System.map")]
    SymbolLine(usize),
    /// Debian's System.map is one line that points to another package.
    #[error("this System.map is a stub without symbols (it says the real one is in the -dbg package)")]
    Stub,
    /// kptr_restrict hides the addresses.
    #[error("all addresses are zero: they are hidden (kernel.kptr_restrict); read /proc/kallsyms as root")]
    Hidden,
    /// There is no line at all.
    #[error("no symbols in it")]
    Empty,
    /// The text is larger than any kernel's.
    #[error("larger than 4 GiB")]
    TooLarge,
    /// A line of Module.symvers is malformed.
    #[error(
        "line {line}: {what} (Module.symvers has CRC, name, module, EXPORT_SYMBOL..., namespace, separated by tabs)"
    )]
    SymversLine {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}
