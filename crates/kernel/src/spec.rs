//! The records of a SPEC (`docs/spec-file.md`), and the texts that they hold.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;

use crate::exports::{Export, Exports};
use crate::kallsyms::KernelSymbols;

/// The record that holds a Module.symvers as [`crate::Symvers::to_record`] makes it.
pub const SYMVERS: &str = "symvers-table";

/// The records of a SPEC by name. Copies share the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<String, Bytes>);

impl Records {
    /// Adds a record. The name is a word.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.set_shared(name, value.into().into());
    }

    /// Adds a record whose bytes others have as well.
    pub fn set_shared(&mut self, name: &str, value: Bytes) {
        self.0.insert(name.to_owned(), value);
    }

    /// A record.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.shared(name).map(|bytes| &**bytes)
    }

    /// A record whose bytes may be shared.
    pub fn shared(&self, name: &str) -> Option<&Bytes> {
        self.0.get(name)
    }

    /// All records with their names, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The records whose names begin so, in order.
    pub fn all<'r>(&'r self, prefix: &'r str) -> impl Iterator<Item = &'r [u8]> + 'r {
        self.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(_, value)| value)
    }

    /// A record as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A record as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// `/proc/kallsyms` text of the kernel's own symbols.
pub fn kallsyms_text(symbols: &KernelSymbols) -> Vec<u8> {
    let mut out = Vec::with_capacity(symbols.len().saturating_mul(48));
    let mut head = String::new();
    for symbol in symbols.iter().filter(|s| s.module.is_none()) {
        head.clear();
        // Writing to a String does not fail.
        let _ = write!(head, "{:016x} {} ", symbol.address, char::from(symbol.kind));
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(symbol.name);
        out.push(b'\n');
    }
    out
}

/// Lines of Module.symvers for the kernel's own exports.
pub fn exports_as_symvers(exports: &Exports) -> Vec<u8> {
    let mut out = Vec::new();
    for export in exports.iter() {
        symvers_line(&mut out, &export, b"vmlinux");
    }
    out
}

/// A line of Module.symvers.
fn symvers_line(out: &mut Vec<u8>, export: &Export<'_>, owner: &[u8]) {
    out.extend_from_slice(format!("{:#010x}", export.crc.unwrap_or(0)).as_bytes());
    for field in [export.name, owner, kind(export.gpl_only), export.namespace] {
        out.push(b'\t');
        out.extend_from_slice(field);
    }
    out.push(b'\n');
}

fn kind(gpl_only: bool) -> &'static [u8] {
    if gpl_only { b"EXPORT_SYMBOL_GPL" } else { b"EXPORT_SYMBOL" }
}

/// Reads the record `exports`: a line of Module.symvers each, after address and a tab; `-` for no CRC.
pub(crate) fn parse_exports(text: &[u8]) -> Option<Exports> {
    let hex =
        |field: &[u8]| u64::from_str_radix(core::str::from_utf8(field).ok()?.strip_prefix("0x")?, 16).ok();
    let mut exports = Exports::default();
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let [address, crc, name, export, namespace] = fields.as_slice() else { return None };
        exports.push(Export {
            name,
            address: Some(hex(address)?),
            crc: if *crc == b"-" { None } else { Some(u32::try_from(hex(crc)?).ok()?) },
            gpl_only: *export == kind(true),
            namespace,
        });
    }
    Some(exports)
}

/// The record `memory`: a line for each piece, its address and its bytes, all in hex.
pub(crate) fn memory_text(pieces: &BTreeMap<u64, Vec<u8>>) -> String {
    let mut out = String::new();
    for (address, bytes) in pieces {
        // Writing to a String does not fail.
        let _ = write!(out, "{address:#x} ");
        bytes.iter().for_each(|byte| {
            let _ = write!(out, "{byte:02x}");
        });
        out.push('\n');
    }
    out
}

/// Reads the record `memory`.
pub(crate) fn parse_memory(text: &str) -> Option<BTreeMap<u64, Vec<u8>>> {
    let line = |line: &str| {
        let (address, bytes) = line.strip_prefix("0x")?.split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, hex_bytes(bytes)?))
    };
    text.lines().map(line).collect()
}

/// Pairs of hexadecimal digits to bytes, after `0x` or not.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.strip_prefix("0x").unwrap_or(text).as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut is_hex = true;
    let mut digit = |byte: u8| match byte {
        b'0'..=b'9' => byte.wrapping_sub(b'0'),
        b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
        b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
        _ => {
            is_hex = false;
            0
        }
    };
    let bytes = pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect();
    is_hex.then_some(bytes)
}
