//! Why a description of a kernel cannot be used.

use alloc::string::String;

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
    /// Something of a kernel image cannot be read.
    #[error(transparent)]
    Image(#[from] kernel_image::Error),
    /// A line of `/proc/modules`.
    #[error("line {0} is not one of /proc/modules: NAME SIZE COUNT USERS STATE ADDRESS")]
    ModulesLine(usize),
    /// A record of a SPEC is malformed.
    #[error("a damaged record \"{0}\"")]
    Record(
        /// Its name.
        &'static str,
    ),
    /// The kernel is for an unknown machine.
    #[error("{what} for {machine}: kmodld knows {known}")]
    UnknownMachine {
        /// The input that names the machine.
        what: &'static str,
        /// Its name or number.
        machine: String,
        /// The names of those that are known.
        known: String,
    },
    /// Two pieces of the description do not belong together.
    #[error("{0}: they are two kernels")]
    TwoKernels(
        /// Which, and what differs.
        String,
    ),
}
