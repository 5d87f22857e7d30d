//! From the bytes of a Linux kernel module to a validated view and a memory
//! plan, step by step as `load_module` does it.
//!
//! The stages, in the kernel's order (rule numbers are those of `docs/spec/`):
//!
//! 1. [`signature`]: the appended signature is cut off (SIG).
//! 2. [`validity::elf_validity`]: the ELF checks; the result is a [`ModuleFile`] (VAL).
//! 3. [`LoadInfo`]: the editable HDR view, the first rewrite and the flag edits (LAYOUT-1 to 8).
//! 4. [`layout::layout_sections`] and [`symtab::layout_symtab`]: the [`Layout`] (LAYOUT-10 to 37).
//! 5. [`place`]: region bases, default placement (LAYOUT-50 to 55).
//! 6. [`module::move_module`]: the second rewrite; the result is a [`Module`], the module in memory
//!    (LAYOUT-40 to 43).
//!
//! Readers for what a module says about itself stand beside them: [`modinfo`],
//! [`versions`], [`params`], [`ksymtab`]. What differs between kernels is a row of [`changes`].
//!
//! The crate does no I/O, prints nothing, keeps no state and treats every byte
//! of its input as hostile.
//!
//! What a module says of itself needs neither a kernel nor memory:
//!
//! ```no_run
//! use elf_layout::{KernelConfig, KernelVersion, ModuleFile};
//!
//! /// `machines` are those of the architectures that it can be for: `reloc::MACHINES` are such.
//! fn list(path: &str, machines: &[&'static elf_layout::Machine]) -> Result<(), Box<dyn std::error::Error>> {
//!     let (bytes, config) = (std::fs::read(path)?, KernelConfig::assumed(KernelVersion::new(6, 12, 0)));
//!     let file = ModuleFile::parse(&bytes, &config, machines).map_err(|said| format!("{said:?}"))?;
//!     for name in file.imports() {
//!         println!("{} takes {}", file.name_text(), String::from_utf8_lossy(name));
//!     }
//!     Ok(())
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod bytes;
pub mod changes;
pub mod config;
pub mod coverage;
pub mod elf;
pub mod finding;
pub mod keys;
pub mod ksymtab;
pub mod layout;
pub mod load_info;
pub mod lockdown;
pub mod machine;
pub mod modinfo;
pub mod module;
pub mod module_file;
pub mod params;
pub mod place;
pub mod plan;
pub mod pointers;
pub mod region;
pub mod setting;
pub mod signature;
pub mod symtab;
pub mod validity;
pub mod version;
pub mod versions;

pub use changes::{Change, Changes};
pub use config::KernelConfig;
pub use coverage::Coverage;
pub use finding::{Errno, Finding, Findings, Severity, Subject, Unjudged, needs};
pub use keys::{Crypto, KeyConfig, Presence};
pub use load_info::LoadInfo;
pub use lockdown::LockdownConfig;
pub use machine::{CpuCapabilities, Machine};
pub use module::{BlockMemory, HeapMemory, Module, Permissions, Segment, Table};
pub use module_file::ModuleFile;
pub use place::{Memory, Placement};
pub use plan::{Layout, SectionPlace};
pub use region::{Generation, PerRegion, Region};
pub use setting::Setting;
pub use version::KernelVersion;
