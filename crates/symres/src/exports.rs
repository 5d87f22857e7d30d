//! The symbols that the kernel or a module exports.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::names::NameIndex;

/// One `struct kernel_symbol` and what stands beside it in other tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its address; `None` if the description of the kernel does not tell it.
    pub address: Option<u64>,
    /// Its CRC; `None` if the exporter has no CRC table, or it is not known (VER-2).
    pub crc: Option<u32>,
    /// In `__ksymtab_gpl`: for GPL-compatible modules only, whatever the exporter's own licence (LIC-6).
    pub gpl_only: bool,
    /// Its namespace, empty if none (NS-1).
    pub namespace: Box<[u8]>,
}

/// The exports of one owner, found by name.
#[derive(Clone, Debug, Default)]
pub struct ExportTable {
    exports: Vec<Export>,
    index: NameIndex,
}

impl ExportTable {
    /// Indexes these exports.
    pub fn new(exports: Vec<Export>) -> Self {
        let index = NameIndex::new(exports.len(), |p| name_at(&exports, p));
        ExportTable { exports, index }
    }

    /// All exports.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.exports.iter()
    }

    /// Looks `name` up in `__ksymtab`, then, for GPL-compatible modules, in
    /// `__ksymtab_gpl` (SYM-30, SYM-31).
    pub fn find(&self, name: &[u8], gplok: bool) -> Option<&Export> {
        let found = self.index.find(name, |p| name_at(&self.exports, p));
        let usable = found.filter_map(|p| self.exports.get(p as usize)).filter(|e| gplok || !e.gpl_only);
        usable.min_by_key(|e| e.gpl_only)
    }
}

fn name_at(exports: &[Export], position: u32) -> &[u8] {
    exports.get(position as usize).map_or(&[], |e| &e.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn sym_30_and_31_plain_before_gpl() {
        let export = |name: &[u8], gpl_only, address| Export {
            name: name.into(),
            address: Some(address),
            crc: None,
            gpl_only,
            namespace: Box::from(&b""[..]),
        };
        let table =
            ExportTable::new(vec![export(b"a", true, 1), export(b"a", false, 2), export(b"g", true, 3)]);
        let address = |name: &[u8], gplok| table.find(name, gplok).and_then(|e| e.address);
        assert_eq!(address(b"a", true), Some(2), "SYM-30: __ksymtab before __ksymtab_gpl");
        assert_eq!(address(b"g", true), Some(3));
        assert_eq!(address(b"g", false), None, "SYM-31: GPL-only tables are invisible");
        assert_eq!(address(b"nothing at all", true), None);
    }
}
