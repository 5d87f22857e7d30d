//! The CRCs that a module expects of its imports: `__versions` (VER-4), and the
//! extended tables `__version_ext_crcs` and `__version_ext_names` (VER-30).

use crate::bytes::{cstr, le32, le64, slice};
use crate::module_file::ModuleFile;

/// Bytes of `struct modversion_info`: a u64 CRC and 56 bytes of name.
pub const MODVERSION_INFO_SIZE: u64 = 64;

/// One expected CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modversion<'d> {
    /// Symbol name.
    pub name: &'d [u8],
    /// CRC. Eight bytes on disk of which a good module uses four; the kernel
    /// compares all eight (VER-5).
    pub crc: u64,
}

impl<'d> ModuleFile<'d> {
    /// The CRCs that it expects of what it imports, in order: those of the extended tables alone, if it has these.
    pub fn versions(&self) -> impl Iterator<Item = Modversion<'d>> {
        let index = self.index();
        let bytes = |section| if section == 0 { &[][..] } else { self.copied_bytes(section) };
        let plain = if index.vers_ext_crc == 0 { index.vers } else { 0 };
        let extended = modversions_ext(bytes(index.vers_ext_crc), bytes(index.vers_ext_name));
        modversions(bytes(plain)).chain(extended)
    }
}

/// The records of `__versions`, in order.
pub fn modversions(section: &[u8]) -> impl Iterator<Item = Modversion<'_>> {
    section.chunks_exact(MODVERSION_INFO_SIZE as usize).filter_map(|record| {
        // VER-4: the name need not be terminated within its 56 bytes.
        Some(Modversion { crc: le64(record, 0)?, name: cstr(slice(record, 8, 56)?, 0)? })
    })
}

/// The records of the extended tables, paired in order; surplus names are ignored (VER-30).
pub fn modversions_ext<'d>(crcs: &'d [u8], names: &'d [u8]) -> impl Iterator<Item = Modversion<'d>> {
    let mut rest = names;
    crcs.chunks_exact(4).map_while(move |crc| {
        if rest.is_empty() {
            return None;
        }
        let name = cstr(rest, 0)?;
        rest = rest.get(name.len().checked_add(1)?..).unwrap_or(&[]);
        Some(Modversion { name, crc: u64::from(le32(crc, 0)?) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn ver_4_and_5_records() {
        let mut section = Vec::new();
        section.extend_from_slice(&0x1_0000_0001u64.to_le_bytes());
        section.extend_from_slice(&[b'n'; 56]);
        section.extend_from_slice(&2u64.to_le_bytes());
        section.extend_from_slice(b"printk");
        section.resize(128, 0);
        section.extend_from_slice(b"remainder");
        let got: Vec<_> = modversions(&section).collect();
        assert_eq!(got.len(), 2);
        assert_eq!(
            (got[0].crc, got[0].name.len()),
            (0x1_0000_0001, 56),
            "VER-4, VER-5: unterminated, high half kept"
        );
        assert_eq!((got[1].crc, got[1].name), (2, &b"printk"[..]));
    }

    #[test]
    fn ver_30_pairs() {
        let crcs: Vec<u8> = [7u32, 8, 9].iter().flat_map(|c| c.to_le_bytes()).collect();
        let got: Vec<_> = modversions_ext(&crcs, b"a\0bb\0").collect();
        assert_eq!(got, [Modversion { name: b"a", crc: 7 }, Modversion { name: b"bb", crc: 8 }]);
    }
}
