//! Module.symvers: the exports of a kernel build with their CRCs (spec 09 §9.1).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::exports::{Export, Exports};
use crate::parts::{number, parts, record_of, u32_at};

/// No line has more.
const FIELDS_MAX: usize = 5;
const WRONG_COUNT: &str = "not 4 or 5 fields";

/// A Module.symvers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symvers {
    exports: Exports,
    /// Their exporters: the path of each, and where in `exports` its part ends.
    owners: Vec<(Box<[u8]>, usize)>,
}

/// Neighbouring lines of Module.symvers that name one owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exporter<'s> {
    /// Path of the module without `.ko`, or `vmlinux`.
    pub path: &'s [u8],
    /// Positions of its exports in [`Symvers::exports`].
    pub positions: Range<usize>,
}

impl Exporter<'_> {
    /// The module's name as the kernel knows it (`-` becomes `_`); `None` for the kernel itself.
    pub fn module(&self) -> Option<Vec<u8>> {
        let name = self.path.rsplit(|b| *b == b'/').next().unwrap_or(&[]);
        (*name != *b"vmlinux").then(|| name.iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect())
    }
}

impl Symvers {
    /// Reads a Module.symvers. The namespace is the last field (from 5.6) or the
    /// third (5.4 and 5.5), or absent (before); the field that begins with
    /// `EXPORT_` tells which.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        // No line that counts has fewer than 16 bytes.
        let lines = memchr::memchr_iter(b'\n', text).count().min(text.len() / 16).saturating_add(1);
        let mut exports = Exports::with_capacity(lines, text.len() / 3);
        let mut owners: Vec<(Box<[u8]>, usize)> = Vec::new();
        let (mut line, mut from) = (0usize, 0usize);
        let (mut fields, mut count) = ([&b""[..]; FIELDS_MAX], 0usize);
        // One search for all separators: fields are too short for one each.
        for at in memchr::memchr2_iter(b'\t', b'\n', text).chain([text.len()]) {
            let field = text.get(from..at).unwrap_or(&[]);
            from = at.saturating_add(1);
            let ends_line = text.get(at) != Some(&b'\t');
            if let Some(slot) = fields.get_mut(count) {
                *slot = if ends_line { field.strip_suffix(b"\r").unwrap_or(field) } else { field };
            }
            count = count.saturating_add(1);
            if !ends_line {
                continue;
            }
            let fields = fields.get(..core::mem::take(&mut count));
            line = line.saturating_add(1);
            if fields == Some(&[b""]) {
                continue;
            }
            let parsed = fields.ok_or(WRONG_COUNT).and_then(parse_line);
            let (owner, export) = parsed.map_err(|what| Error::SymversLine { line, what })?;
            exports.push(export);
            // modpost writes what one module exports line after line.
            match owners.last_mut().filter(|(last, _)| **last == *owner) {
                Some((_, end)) => *end = exports.len(),
                None => owners.push((owner.into(), exports.len())),
            }
        }
        if exports.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Symvers { exports, owners })
    }

    /// The record of a SPEC that [`Symvers::of_record`] reads: the exports, then for each exporter where its part ends and
    /// the length of its path, four bytes each, then the paths.
    pub fn to_record(&self) -> Vec<u8> {
        let words = self.owners.iter().flat_map(|(path, end)| [number(*end), number(path.len())]);
        let owners: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let paths: Vec<u8> = self.owners.iter().flat_map(|(path, _)| path.iter().copied()).collect();
        record_of(&[&self.exports.to_record(), &owners, &paths])
    }

    /// Reads such a record; `None` if it is none.
    pub fn of_record(record: &Bytes) -> Option<Self> {
        let [exports, owners, paths] = parts(record)?;
        let exports = Exports::of_record(&exports).filter(|exports| !exports.is_empty())?;
        let (owners, []) = owners.as_chunks::<8>() else { return None };
        let (mut paths, mut from) = (&*paths, 0usize);
        let owner = |bytes: &[u8; 8]| {
            let word = |at| u32_at(bytes, at).map(|word| word as usize);
            let (end, path) = (word(0)?, paths.split_off(..word(4)?)?);
            let is_next = end > from && end <= exports.len();
            from = end;
            is_next.then(|| (Box::from(path), end))
        };
        let owners: Vec<(Box<[u8]>, usize)> = owners.iter().map(owner).collect::<Option<_>>()?;
        let is_whole = owners.last().is_some_and(|(_, end)| *end == exports.len()) && paths.is_empty();
        is_whole.then_some(Symvers { exports, owners })
    }

    /// All lines, in their order.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// All lines, without their exporters.
    pub fn into_exports(self) -> Exports {
        self.exports
    }

    /// The exporters, in their order.
    pub fn exporters(&self) -> impl Iterator<Item = Exporter<'_>> {
        let mut from = 0usize;
        self.owners.iter().map(move |(path, end)| {
            let positions = from..*end;
            from = *end;
            Exporter { path, positions }
        })
    }
}

/// The owner that a line names, and what it exports.
fn parse_line<'t>(fields: &[&'t [u8]]) -> Result<(&'t [u8], Export<'t>), &'static str> {
    let (crc, name, owner, export, namespace) = match *fields {
        [crc, name, owner, export] => (crc, name, owner, export, &b""[..]),
        [crc, name, owner, export, namespace] if export.starts_with(b"EXPORT_") => {
            (crc, name, owner, export, namespace)
        }
        [crc, name, namespace, owner, export] => (crc, name, owner, export, namespace),
        _ => return Err(WRONG_COUNT),
    };
    if name.is_empty() {
        return Err("no symbol name");
    }
    if !export.starts_with(b"EXPORT_") {
        return Err("no EXPORT_SYMBOL field");
    }
    let crc = crc.strip_prefix(b"0x").and_then(hex_u32).ok_or("no CRC")?;
    let is_gpl = || memchr::memmem::find(export, b"_GPL").is_some();
    let gpl_only = export == b"EXPORT_SYMBOL_GPL" || (export != b"EXPORT_SYMBOL" && is_gpl());
    Ok((owner, Export { name, address: None, crc: Some(crc), gpl_only, namespace }))
}

/// One to eight hexadecimal digits.
fn hex_u32(digits: &[u8]) -> Option<u32> {
    let push = |value, digit: &u8| Some(value << 4 | char::from(*digit).to_digit(16)?);
    Some(digits).filter(|digits| (1..=8).contains(&digits.len()))?.iter().try_fold(0u32, push)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_all_ages() {
        let text = b"0x0000000a\tnew\tvmlinux\tEXPORT_SYMBOL_GPL\tNS\n0x0000000b\tplain\tdrivers/net/8139-cp\tEXPORT_SYMBOL\t\n\
            0x0000000c\tmiddle\tNS\tvmlinux\tEXPORT_SYMBOL\n0x0000000d\told\tvmlinux\tEXPORT_SYMBOL\n";
        let got = Symvers::parse(text).unwrap();
        let exports: Vec<Export<'_>> = got.exports().iter().collect();
        let ns: Vec<&[u8]> = exports.iter().map(|e| e.namespace).collect();
        assert_eq!(ns, [&b"NS"[..], b"", b"NS", b""], "namespace last, third or absent");
        assert!(exports[0].gpl_only && !exports[1].gpl_only);
        assert_eq!((exports[2].name, exports[2].crc), (&b"middle"[..], Some(12)));
        let exporters: Vec<_> = got.exporters().map(|e| (e.module(), e.positions)).collect();
        assert_eq!(exporters, [(None, 0..1), (Some(b"8139_cp".to_vec()), 1..2), (None, 2..4)]);
        let record = Bytes::from(got.to_record());
        assert_eq!(Symvers::of_record(&record), Some(got));
        for len in 0..record.len() {
            assert_eq!(Symvers::of_record(&record.slice(..len)), None, "cut at {len}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [
            (&b"0x1\ta\tvmlinux\tEXPORT_SYMBOL\t\nrubbish\n"[..], 2),
            (b"12\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0x100000000\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0x\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0x+1\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0xffffffff\ta\tvmlinux\tEXPORT_SYMBOL\t\n0x0000000g\tb\tvmlinux\tEXPORT_SYMBOL\t\n", 2),
            (b"0x1\ta\tvmlinux\tSYMBOL\n", 1),
        ] {
            match Symvers::parse(text) {
                Err(Error::SymversLine { line: at, .. }) => assert_eq!(at, line),
                other => panic!("{other:?}"),
            }
        }
    }
}
