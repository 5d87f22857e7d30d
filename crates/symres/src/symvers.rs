//! Module.symvers: the exports of a kernel build with their CRCs (spec 09 §9.1).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Error;

/// One line of Module.symvers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymversEntry {
    /// Symbol name.
    pub name: Box<[u8]>,
    /// CRC, 0 where the build has none.
    pub crc: u32,
    /// Path of the owning module without `.ko`, or `vmlinux`.
    pub owner: Arc<[u8]>,
    /// Exported to GPL-compatible modules only.
    pub gpl_only: bool,
    /// Namespace, empty if none.
    pub namespace: Box<[u8]>,
}

impl SymversEntry {
    /// The module's name as the kernel knows it (`-` becomes `_`); `None` for the kernel itself.
    pub fn module(&self) -> Option<Vec<u8>> {
        let name = self.owner.rsplit(|b| *b == b'/').next().unwrap_or(&[]);
        (*name != *b"vmlinux").then(|| name.iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect())
    }
}

/// The parts of a text between separators, as [`slice::split`] gives them.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut from = 0usize;
    memchr::memchr_iter(separator, text).chain([text.len()]).map(move |end| {
        let part = text.get(from..end).unwrap_or(&[]);
        from = end.saturating_add(1);
        part
    })
}

/// Reads a Module.symvers. The namespace is the last field (from 5.6) or the
/// third (5.4 and 5.5), or absent (before); the field that begins with
/// `EXPORT_` tells which.
pub fn parse_symvers(text: &[u8]) -> Result<Vec<SymversEntry>, Error> {
    // No line that counts has fewer than 16 bytes.
    let lines = memchr::memchr_iter(b'\n', text).count().min(text.len() / 16).saturating_add(1);
    let mut entries: Vec<SymversEntry> = Vec::with_capacity(lines);
    for (line, text) in (1usize..).zip(split(text, b'\n')) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        let bad = |what| Error::SymversLine { line, what };
        let mut fields = split(text, b'\t').fuse();
        let fields = [(); 6].map(|()| fields.next());
        let (crc, name, owner, export, namespace) = match fields {
            [Some(crc), Some(name), Some(owner), Some(export), None, _] => {
                (crc, name, owner, export, &b""[..])
            }
            [Some(crc), Some(name), Some(third), Some(fourth), Some(fifth), None] => {
                let is_last = fourth.starts_with(b"EXPORT_");
                let (owner, export, namespace) =
                    if is_last { (third, fourth, fifth) } else { (fourth, fifth, third) };
                (crc, name, owner, export, namespace)
            }
            _ => return Err(bad("not 4 or 5 fields")),
        };
        if name.is_empty() {
            return Err(bad("no symbol name"));
        }
        if !export.starts_with(b"EXPORT_") {
            return Err(bad("no EXPORT_SYMBOL field"));
        }
        let crc = crc.strip_prefix(b"0x").and_then(|hex| core::str::from_utf8(hex).ok());
        let crc = crc.and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or(bad("no CRC"))?;
        // modpost writes what one module exports line after line.
        let same = entries.last().filter(|last| *last.owner == *owner);
        let owner = same.map_or_else(|| Arc::from(owner), |last| Arc::clone(&last.owner));
        entries.push(SymversEntry {
            name: Box::from(name),
            crc,
            owner,
            gpl_only: memchr::memmem::find(export, b"_GPL").is_some(),
            namespace: Box::from(namespace),
        });
    }
    if entries.is_empty() {
        return Err(Error::Empty);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_all_ages() {
        let text = b"0x0000000a\tnew\tvmlinux\tEXPORT_SYMBOL_GPL\tNS\n0x0000000b\tplain\tdrivers/net/8139-cp\tEXPORT_SYMBOL\t\n\
            0x0000000c\tmiddle\tNS\tvmlinux\tEXPORT_SYMBOL\n0x0000000d\told\tvmlinux\tEXPORT_SYMBOL\n";
        let got = parse_symvers(text).unwrap();
        let ns: Vec<&[u8]> = got.iter().map(|e| &*e.namespace).collect();
        assert_eq!(ns, [&b"NS"[..], b"", b"NS", b""], "namespace last, third or absent");
        assert!(got[0].gpl_only && !got[1].gpl_only);
        assert_eq!(got[1].module().as_deref(), Some(&b"8139_cp"[..]));
        assert_eq!((got[2].crc, got[2].module()), (12, None));
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [
            (&b"0x1\ta\tvmlinux\tEXPORT_SYMBOL\t\nrubbish\n"[..], 2),
            (b"12\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0x100000000\ta\tvmlinux\tEXPORT_SYMBOL\t\n", 1),
            (b"0x1\ta\tvmlinux\tSYMBOL\n", 1),
        ] {
            match parse_symvers(text) {
                Err(Error::SymversLine { line: at, .. }) => assert_eq!(at, line),
                other => panic!("{other:?}"),
            }
        }
    }
}
