//! How a fact about a kernel is known.

use alloc::string::String;

/// How a fact is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Read from the kernel's image.
    Image,
    /// Given by a file or an option, which is named.
    Given(String),
    /// Neither: taken from the module that is to be loaded, or what most kernels have.
    Assumed,
}

impl Known {
    /// Given by the file or the option of that name.
    pub fn given(by: impl Into<String>) -> Self {
        Known::Given(by.into())
    }
}

/// What can be known of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fact {
    /// Its release (`uname -r`).
    Release,
    /// The string that vermagic is compared with.
    Vermagic,
    /// `Linux version ...`
    Banner,
    /// Its configuration.
    Config,
    /// Its machine architecture.
    Machine,
    /// PAGE_SIZE.
    PageSize,
    /// `sizeof(struct module)` and where `init` and `exit` are in it.
    StructModule,
    /// Its symbols.
    Symbols,
    /// Its exports.
    Exports,
    /// The exports of modules that are not loaded.
    NotLoaded,
    /// The certificates that are built into it.
    Certificates,
    /// Those of its other keyrings.
    Keyring,
    /// Its BTF.
    Btf,
    /// The layout of its types.
    Types,
    /// Its memory at link addresses.
    Memory,
    /// How far it runs from its link addresses.
    Slide,
    /// Its command line.
    Cmdline,
}

/// One piece of a description and where it comes from, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// What was found.
    pub what: &'static str,
    /// Where and how.
    pub how: String,
}
