//! The rules by which a kernel takes a module: which address a name gets, versions, licences,
//! namespaces, type information (spec 03, 06 §6.8). The kernel itself is the crate `kernel`'s.
//!
//! - [`early`] has the checks that come before and around the layout.
//! - [`simplify::simplify_symbols`] gives every symbol of a module its value; [`simplify_symbols_from`] does so for operating
//!   systems that are not Linux;
//!   [`resolve`] holds the rules for one undefined symbol.
//! - [`btf`] compares the module's type information with the kernel's.
//! - [`hints`] has the words for why something did not fit, and what to do about it.
//!
//! A [`SymbolSource`] is anything that gives names addresses, such as a function:
//!
//! ```
//! use symres::SymbolSource;
//!
//! let stub = |name: &[u8]| (name == b"_printk").then_some(0xffff_ffff_c000_0000_u64);
//! let symbols: &dyn SymbolSource = &stub;
//! assert_eq!(symbols.address(b"_printk"), Some(0xffff_ffff_c000_0000));
//! assert_eq!(symbols.address(b"kfree"), None);
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod btf;
pub mod early;
pub mod hints;
pub mod license;
pub mod resolve;
pub mod simplify;

pub use early::LoadFlags;
pub use simplify::{Import, Resolution, SymbolSource, simplify_symbols_from};
