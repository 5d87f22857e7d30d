//! What becomes of a signature.

use alloc::vec::Vec;

use elf_layout::{Crypto, Errno};

/// What the kernel makes of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A key that is trusted made it for these bytes; or which keys are trusted is not known.
    Good,
    /// None of the keys is the signer's (ENOKEY).
    UnknownKey,
    /// An algorithm that the kernel does not have (ENOPKG).
    Unsupported,
    /// Refused, whether signatures are enforced or not.
    Refused(Errno),
}

/// A verdict with what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What the kernel makes of it.
    pub verdict: Verdict,
    /// The lines of its log.
    pub log: Vec<&'static str>,
    /// Why it is refused, as it follows `bad signature: `.
    pub why: &'static str,
    /// Algorithms that were needed and are not there.
    pub lacks: Vec<Crypto>,
    /// Algorithms that were needed and are taken to be there: modules, or not known.
    pub assumed: Vec<Crypto>,
    /// Something was not computed here, and taken to be right.
    pub not_computed: bool,
}
