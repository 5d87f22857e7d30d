//! Signatures of Linux kernel modules: who made one, whether it is good, and
//! what a kernel makes of it (spec 01 §1.3).
//!
//! [`module_signature`] is the kernel's `module_sig_check` (kernel/module/signing.c):
//! it cuts the signature off, verifies it against the certificates that a kernel
//! trusts, and tells whether the module counts as signed.
//!
//! The cryptography is behind the feature `verify`, on by default. Without it
//! signatures are cut off and their tails are checked; whether a well-formed one is good is
//! left open, as it is where the kernel's keys are not known (`Findings::unjudged`).
//!
//! The crate is `no_std`, does no I/O and keeps no state.
//!
//! ```
//! use elf_layout::Findings;
//! use module_signature::module_signature;
//!
//! /// The module without its signature, and why it counts as unsigned.
//! fn cut_off<'d>(file: &'d [u8], kernel: &kernel::Kernel) -> (&'d [u8], Option<&'static str>) {
//!     let mut said = Findings::new();
//!     let (tail, unsigned) = module_signature(file, kernel, symres::LoadFlags::default(), &mut said);
//!     (tail.module, unsigned.map(|unsigned| unsigned.reason))
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

#[cfg(feature = "verify")]
mod decode;
pub mod efi;
#[cfg(feature = "verify")]
mod hash;
#[cfg(feature = "verify")]
pub mod keyring;
#[cfg(feature = "verify")]
pub mod signer;
mod signing;
mod verdict;
#[cfg(feature = "verify")]
mod verify;
#[cfg(feature = "verify")]
mod x509;

#[cfg(feature = "verify")]
pub use hash::Hash;
pub use signing::{Unsigned, module_signature};
pub use verdict::{Verdict, Verified};
#[cfg(feature = "verify")]
pub use verify::{Trust, verify_pkcs7_signature};
