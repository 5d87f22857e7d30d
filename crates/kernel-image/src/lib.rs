//! Linux kernel images, as they lie in `/boot`: opened in whatever container,
//! and read for what a module loader must know about a kernel.
//!
//! [`KernelImage::open`] takes bzImage, EFI zboot, an architecture's flat image,
//! a vmlinux with or without symbols and section headers, and any of these
//! compressed, told by magic ([`Container`]). The architectures that it knows
//! are the caller's ([`ImageArch`]). What it finds, rule numbers being those of
//! `docs/spec/`:
//!
//! - [`Kallsyms`]: all symbols with address and type letter, from any layout
//!   since 5.4 (KSYM-10 to 14), or from an ELF's `.symtab`;
//! - [`Exports`]: name, address, CRC, licence and namespace of every export
//!   (IMG-20 to 31);
//! - [`Btf`]: sizes and member offsets of the kernel's structs;
//! - release, vermagic, page size, built-in configuration, certificates;
//! - [`BuiltIn`]: the modules that have a folder in /sys/module (LIFE-41);
//! - the kernel's memory at link addresses, with the pointers that an image may
//!   leave to relocation ([`KernelImage::read_u64`]).
//!
//! Every byte of an image counts as hostile: no panic, no allocation by a
//! claimed size, and searches with a bounded number of steps.
//!
//! The crate is `no_std`. The feature `decompress`, on by default, brings
//! decompressors, and these need std; without it, [`KernelImage::open_with`]
//! takes the caller's own. Those for bzip2, lz4 and lzo have a feature of their
//! own, `bzip2-lz4-lzo`, on by default too.
//!
//! ```no_run
//! use kernel_image::{ImageArch, KernelImage};
//!
//! # #[cfg(feature = "decompress")]
//! # fn sample(known: &[&'static dyn ImageArch]) -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::fs::read("/boot/vmlinuz-6.12.0")?;
//! // `known` are the architectures that it can be of: `reloc::ARCHITECTURES` are such.
//! let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, known)?;
//! for symbol in image.kallsyms().map_err(Clone::clone)?.iter() {
//!     println!("{:016x} {}", symbol.address, String::from_utf8_lossy(symbol.name));
//! }
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "decompress")]
extern crate std;

mod arch;
mod btf;
mod bytes;
mod certificates;
mod compression;
mod container;
#[cfg(feature = "decompress")]
mod decompress;
mod drivers;
mod elf;
mod error;
mod exports;
mod facts;
#[cfg(feature = "decompress")]
mod file;
mod folders;
mod image;
mod kallsyms;
#[cfg(feature = "bzip2-lz4-lzo")]
mod lz4;
#[cfg(feature = "bzip2-lz4-lzo")]
mod lzop;
mod memory;
mod packed;
mod paging;

pub use arch::{FlatFormat, FlatHeader, ImageArch};
pub use btf::{Btf, Member, Prototype, Sort, TypeId};
pub use certificates::{CertificateSource, Certificates, split_certificates};
pub use compression::Compression;
pub use container::{Container, Decompressor};
#[cfg(feature = "decompress")]
pub use decompress::decompress;
pub use drivers::module_of_initcall;
pub use error::{DecompressError, Error};
pub use exports::{Export, ExportSource, Exports};
#[cfg(feature = "decompress")]
pub use file::{FileError, decompress_file};
pub use folders::BuiltIn;
pub use image::{Format, KernelImage};
pub use kallsyms::{Kallsyms, KallsymsLayout, KernelSymbol};
pub use packed::{Objection, Packed};
pub use paging::{PageEntry, PageTables};
