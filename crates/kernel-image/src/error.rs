//! What can be wrong with a kernel image, said so that one sees what and where.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::Machine;
use elf_layout::machine::{machine_name, names_of};

use crate::{Compression, ImageArch};

/// Why an image, or something in it, could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container, no ELF, no flat image of a known architecture.
    #[error(
        "not a kernel image: it starts with {start:02x?}, which is no bzImage, ELF, {}EFI zboot or known compression",
        each_and_comma(flat)
    )]
    Unrecognised {
        /// The first bytes of the input.
        start: [u8; 8],
        /// The flat images of the known architectures.
        flat: Vec<&'static str>,
    },
    /// The file ends before what its headers promise.
    #[error("truncated {what}: it needs {need} bytes, there are {have}")]
    Truncated {
        /// The thing that is cut off.
        what: &'static str,
        /// Bytes that it needs, counted from its start.
        need: u64,
        /// Bytes that there are.
        have: u64,
    },
    /// A bzImage or zboot payload with an unknown magic.
    #[error("the payload of the {what} at {at:#x} starts with {magic:02x?}, which is no known compression")]
    UnknownPayload {
        /// The container.
        what: &'static str,
        /// Byte offset of the payload in it.
        at: u64,
        /// First bytes of the payload.
        magic: [u8; 8],
    },
    /// The payload cannot be decompressed.
    #[error("{compression} payload: {reason}")]
    Decompress {
        /// How it is compressed.
        compression: Compression,
        /// What the decompressor says.
        reason: DecompressError,
    },
    /// Containers in containers in containers.
    #[error("more than {0} containers in each other")]
    TooDeep(
        /// The most that are opened.
        usize,
    ),
    /// The bzImage is too old to say where its payload is.
    #[error("bzImage with boot protocol {0:#06x}: only 0x0208 and later say where the payload is")]
    OldBootProtocol(
        /// Its protocol version.
        u16,
    ),
    /// The ELF is none that a kernel could be.
    #[error("unusable ELF: {0}")]
    Elf(
        /// What is wrong.
        &'static str,
    ),
    /// An ELF for a machine that is none of the known ones.
    #[error("a kernel for {}: {}", machine_name(*number, &[]), which_are_read(known))]
    Machine {
        /// `e_machine`.
        number: u16,
        /// The known machines.
        known: Vec<&'static Machine>,
    },
    /// A big-endian kernel.
    #[error("a big-endian kernel: only little-endian ones are read")]
    BigEndian,
    /// The kallsyms tables are not there or cannot be told.
    #[error("no kallsyms found: {0}")]
    NoKallsyms(
        /// Which step of the search failed.
        &'static str,
    ),
    /// The kallsyms tables were found and are damaged.
    #[error("damaged kallsyms tables: {what} (offset {at:#x} of the unpacked image)")]
    DamagedKallsyms {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The export tables are not there or cannot be told.
    #[error("no export table found: {0}")]
    NoExports(
        /// Which step of the search failed.
        &'static str,
    ),
    /// The kernel is built without CONFIG_MODULES.
    #[error(
        "this kernel loads no modules: built without CONFIG_MODULES (neither export tables nor a vermagic in it)"
    )]
    NoModules,
    /// An export table was found and is damaged.
    #[error("damaged export table: {what} (record {index} of the table at {address:#x})")]
    DamagedExports {
        /// What is wrong.
        what: &'static str,
        /// Link address of the table.
        address: u64,
        /// Index of the record.
        index: u64,
    },
    /// No BTF blob in the image.
    #[error("no BTF in the image")]
    NoBtf,
    /// A BTF blob that contradicts itself.
    #[error("damaged BTF: {what} (offset {at:#x} of the blob)")]
    DamagedBtf {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
}

impl Error {
    /// [`Error::Machine`], when the architectures in `known` are all.
    pub(crate) fn unknown_machine(number: u16, known: &[&'static dyn ImageArch]) -> Error {
        Error::Machine { number, known: known.iter().map(|arch| arch.machine()).collect() }
    }
}

/// `A, B, `: parts of an enumeration that goes on.
fn each_and_comma(names: &[&str]) -> String {
    names.iter().flat_map(|name| [*name, ", "]).collect()
}

/// `only A (1), B (2) and C (3) are read`.
fn which_are_read(known: &[&'static Machine]) -> String {
    match known {
        [] => String::from("no machine is known"),
        [one] => format!("only {} is read", one.name),
        _ => format!("only {} are read", names_of(known)),
    }
}

/// Why a decompressor gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// The output would be larger than the caller allows.
    #[error("unpacks to more than {limit} bytes")]
    TooLarge {
        /// The most that is allowed.
        limit: usize,
    },
    /// The input ends in the middle.
    #[error("truncated: the stream ends after {have} of its bytes, {unpacked} unpacked")]
    Truncated {
        /// Compressed bytes that there are.
        have: usize,
        /// Bytes unpacked so far.
        unpacked: usize,
    },
    /// Anything else a decompressor finds wrong.
    #[error("damaged after {unpacked} unpacked bytes: {message}")]
    Damaged {
        /// Bytes unpacked so far.
        unpacked: usize,
        /// What the decompressor says.
        message: String,
    },
    /// There is no decompressor for it.
    #[error("this build has no decompressor for it")]
    Unsupported,
}

#[cfg(feature = "decompress")]
impl DecompressError {
    /// What a decompressor finds wrong after so many unpacked bytes.
    pub(crate) fn damaged(unpacked: usize, message: impl Into<String>) -> Self {
        DecompressError::Damaged { unpacked, message: message.into() }
    }
}
