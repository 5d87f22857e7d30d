//! What the bytes of a module depend on besides its file and its place: the kernel that runs.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

/// Where a member lies in a struct of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the struct.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The running kernel, as far as patching reads it. What it does not know is `None`; a step then leaves
/// the site as it was compiled and says so ([`crate::Record::unknown`]).
pub trait RunningKernel: Debug + Sync {
    /// Address of the kernel's own symbol of that name; `None` too if several have it.
    fn symbol(&self, name: &str) -> Option<u64>;

    /// Addresses of the kernel's own symbols whose names begin so, in any order; names may share one.
    fn symbols_with(&self, prefix: &str) -> Vec<u64>;

    /// Fills `out` with the kernel's memory at `address`; false if not every byte of it is known. Pointers
    /// that come from a kernel image are those before KASLR: read them with [`RunningKernel::pointer`].
    fn read(&self, address: u64, out: &mut [u8]) -> bool;

    /// The pointer at `address`.
    fn pointer(&self, address: u64) -> Option<u64>;

    /// Has the system the capability of that number? The architecture gives the number its meaning: a bit of
    /// `boot_cpu_data`, or a line of cpucaps.
    fn capability(&self, number: u32) -> Option<bool>;

    /// The errata of its CPUs that somebody named.
    fn errata(&self) -> &[String] {
        &[]
    }

    /// Number of CPUs found at boot.
    fn cpus(&self) -> Option<u32>;

    /// The kernel's command line.
    fn cmdline(&self) -> &str;

    /// A member of a struct by the kernel's BTF, dots between the names of `path`. Only what is
    /// listed can be asked for ([`crate::Architecture::kernel_types`]), so that it can be kept apart from the BTF.
    fn member(&self, of: &str, path: &str) -> Option<Member>;

    /// `sizeof` a struct by the kernel's BTF; it is listed likewise.
    fn struct_size(&self, of: &str) -> Option<u64>;
}

/// A kernel of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl RunningKernel for Unknown {
    fn symbol(&self, _: &str) -> Option<u64> {
        None
    }

    fn symbols_with(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }

    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn pointer(&self, _: u64) -> Option<u64> {
        None
    }

    fn capability(&self, _: u32) -> Option<bool> {
        None
    }

    fn cpus(&self) -> Option<u32> {
        None
    }

    fn cmdline(&self) -> &str {
        ""
    }

    fn member(&self, _: &str, _: &str) -> Option<Member> {
        None
    }

    fn struct_size(&self, _: &str) -> Option<u64> {
        None
    }
}

/// Kernel memory that a [`RunningKernel`] without a whole image has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From one symbol up to another.
    Between(&'static str, &'static str),
    /// What a symbol names, up to the next one.
    Object(&'static str),
    /// So many bytes at each symbol whose name begins so.
    Prefix(&'static str, u64),
    /// So many bytes at each export that is no function.
    ExportedData(u64),
}
