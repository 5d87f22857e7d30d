//! What a module exports: `__ksymtab`, `__ksymtab_gpl` and their CRC tables
//! (SYM-35 to SYM-39, VER-8), read from the file through their relocations.

use alloc::vec::Vec;

use crate::bytes::{le32, name};
use crate::changes::{Change, Changes};
use crate::elf::{SHN_ABS, SymFields};
use crate::module_file::ModuleFile;
use crate::pointers::{Pointers, Target};

/// One exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleExport<'d> {
    /// Its name.
    pub name: &'d [u8],
    /// Index of the symbol whose value is exported.
    pub symbol: u32,
    /// Bytes added to that value.
    pub addend: i64,
    /// Its CRC; `None` without a CRC table.
    pub crc: Option<u32>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: &'d [u8],
}

impl<'d> ModuleFile<'d> {
    /// What it exports, as [`exports`].
    pub fn exports(&'d self, changes: Changes) -> Vec<ModuleExport<'d>> {
        exports(self, changes)
    }
}

/// All exports of a module in table order: `__ksymtab`, then `__ksymtab_gpl`.
/// `changes` are those of the kernel it was built for. Records without a name or
/// a value are left out.
pub fn exports<'d>(file: &'d ModuleFile<'d>, changes: Changes) -> Vec<ModuleExport<'d>> {
    let pointers = Pointers::new(file);
    let mut all = Vec::new();
    // Since v7.1 one table with a flag byte per record (SYM-39); before that two tables.
    let merged = changes.has(Change::OneExportTable);
    let flags = if merged { file.section_bytes(file.find_sec("__kflagstab")) } else { &[] };
    for (table, crcs, gpl) in [("__ksymtab", "__kcrctab", false), ("__ksymtab_gpl", "__kcrctab_gpl", true)] {
        let (table, crcs) = (file.find_sec(table), file.find_sec(crcs));
        if table == 0 || (gpl && merged) {
            continue;
        }
        let form = Form::of(&pointers, table, changes);
        // By the bytes in the file: a NOBITS table has no records, however large it says it is.
        let count = (file.section_bytes(table).len() as u64).checked_div(form.record).unwrap_or(0);
        for n in 0..count {
            let at = n.wrapping_mul(form.record);
            let Some((symbol, addend)) = pointers.symbol(table, at) else {
                continue;
            };
            let Some(name) = form.string(file, &pointers, table, at.wrapping_add(form.field)) else {
                continue;
            };
            let namespace = form
                .has_namespace()
                .then(|| form.string(file, &pointers, table, at.wrapping_add(form.field.wrapping_mul(2))))
                .flatten();
            let flag = usize::try_from(n).ok().and_then(|n| flags.get(n)).copied().unwrap_or(0);
            all.push(ModuleExport {
                name,
                symbol,
                addend,
                crc: crc(file, &pointers, crcs, n),
                gpl_only: gpl || flag & 1 != 0,
                namespace: namespace.unwrap_or(&[]),
            });
        }
    }
    all
}

/// The shape of a `struct kernel_symbol`.
#[derive(Clone, Copy)]
struct Form {
    /// Bytes of a field: 4 if place-relative (PREL32), 8 if absolute.
    field: u64,
    /// Bytes of a record.
    record: u64,
}

impl Form {
    /// Place-relative if the second relocation is 4 bytes in; with a namespace field from 5.4.
    fn of(pointers: &Pointers<'_>, table: usize, changes: Changes) -> Self {
        let field = if pointers.symbol(table, 4).is_some() { 4u64 } else { 8 };
        let fields = if changes.has(Change::SymbolNamespaces) { 3 } else { 2 };
        Form { field, record: field.wrapping_mul(fields) }
    }

    fn has_namespace(self) -> bool {
        self.record == self.field.wrapping_mul(3)
    }

    /// The string that a field points to. No relocation means no string (IMG-25).
    fn string<'d>(
        self,
        file: &'d ModuleFile<'d>,
        pointers: &Pointers<'d>,
        table: usize,
        at: u64,
    ) -> Option<&'d [u8]> {
        match pointers.target(table, at)? {
            Target::Section { section, offset } => name(file.section_bytes(section), offset),
            _ => None,
        }
    }
}

/// Since v5.19 a plain u32 (7b4537199a4a); before that a relocation against an absolute `__crc_` symbol.
fn crc(file: &ModuleFile<'_>, pointers: &Pointers<'_>, table: usize, n: u64) -> Option<u32> {
    if table == 0 {
        return None;
    }
    let at = n.wrapping_mul(4);
    if let Some((symbol, addend)) = pointers.symbol(table, at) {
        let symbol = file.symbols().get(symbol as usize).filter(|s| s.shndx() == SHN_ABS)?;
        return Some(symbol.value().wrapping_add_signed(addend) as u32);
    }
    le32(file.section_bytes(table), at)
}
