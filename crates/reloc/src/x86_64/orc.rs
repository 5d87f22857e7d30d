//! `unwind_module_init`: the two ORC tables, sorted together by address (FIN-76).

use alloc::vec::Vec;
use core::cmp::Ordering;

use elf_layout::bytes::{le16, le32, slice, slice_mut};
use elf_layout::elf::SHF_EXECINSTR;
use elf_layout::module::Table;
use elf_layout::{Change, Changes, Finding, Severity};

use crate::finalizer::Finalizer;
use crate::record::Step;
use crate::sort::{self, sort};

/// Bytes of `struct orc_entry`.
const ORC: usize = 6;
/// Low bits of a key: the number of the entry, and whether it is no terminator.
const NUMBER_BITS: u32 = 29;
const ADDRESS_SHIFT: u32 = NUMBER_BITS + 1;

/// Is the entry with these flags the terminator of a gap, which goes first among equals?
fn is_undefined(flags: u16, changes: Changes) -> bool {
    // Since v6.4 (fb799447ae29) a type of its own; before that no stack register and not the end of the stack.
    if changes.has(Change::OrcUndefinedType) {
        flags >> 8 & 7 == 0
    } else if changes.has(Change::OrcSignalBeforeEnd) {
        // v6.3 (ffb1b4a41016) put the signal bit before the end bit.
        flags & 0xf == 0 && flags >> 11 & 1 == 0
    } else {
        flags & 0xf == 0 && flags >> 10 & 1 == 0
    }
}

/// An entry in one number: address relative to the table, then whether it is no terminator, then its place.
/// The order of numbers is the order of the kernel's, where that has one.
fn key(address: i64, undefined: bool, number: usize) -> u64 {
    let biased = address.wrapping_add(1 << 33).cast_unsigned();
    biased << ADDRESS_SHIFT | u64::from(!undefined) << NUMBER_BITS | number as u64
}

fn number(key: u64) -> usize {
    (key & ((1 << NUMBER_BITS) - 1)) as usize
}

/// The kernel's comparison, which never finds two entries equal.
struct Orc<'k>(&'k mut [u64]);

impl sort::Table for Orc<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let (Some(a), Some(b)) = (self.0.get(a), self.0.get(b)) else { return Ordering::Equal };
        let undefined_first = if a >> NUMBER_BITS & 1 == 0 { Ordering::Less } else { Ordering::Greater };
        (a >> ADDRESS_SHIFT).cmp(&(b >> ADDRESS_SHIFT)).then(undefined_first)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.0.swap(a, b);
    }
}

/// Sorts `.orc_unwind_ip` and `.orc_unwind`.
pub fn unwind_module_init(module: &mut Finalizer<'_, '_>) {
    let tables = module.last_section(".orc_unwind_ip").zip(module.last_section(".orc_unwind"));
    let Some((ip_table, orc_table)) = tables else { return };
    let changes = module.changes();
    let (Some(ips), Some(orcs)) =
        (module.read(ip_table.address, ip_table.size), module.read(orc_table.address, orc_table.size))
    else {
        return;
    };
    let count = ips.len() / 4;
    if !ips.len().is_multiple_of(4) || !orcs.len().is_multiple_of(ORC) || count != orcs.len() / ORC {
        let why = "the sizes of .orc_unwind_ip and .orc_unwind do not agree: the kernel warns once";
        module.said.push(Finding::note("FIN-76", Severity::Warning, why));
        sort_as_far_as_addresses_go(module, &ip_table, &orc_table, count as u64);
        return;
    }
    // What later steps judge is code.
    let is_code = |table: &Table| {
        module.info.sechdrs.get(table.index).is_some_and(|section| section.sh_flags & SHF_EXECINSTR != 0)
    };
    if module.verdict_only && !is_code(&ip_table) && !is_code(&orc_table) {
        return;
    }
    let Some(sorted) = sorted(ips, orcs, changes) else { return };
    let (mut new_ips, mut new_orcs) = (Vec::new(), Vec::new());
    if new_ips.try_reserve_exact(ips.len()).is_err() || new_orcs.try_reserve_exact(orcs.len()).is_err() {
        return;
    }
    for (place, key) in sorted.iter().enumerate() {
        let from = number(*key) as u64;
        // Addresses stay, so that what is relative to the entry changes by the distance that it moves.
        let ip = le32(ips, from.wrapping_mul(4)).unwrap_or(0);
        let moved = from.wrapping_sub(place as u64).wrapping_mul(4) as u32;
        new_ips.extend(ip.wrapping_add(moved).to_le_bytes());
        new_orcs.extend(slice(orcs, from.wrapping_mul(ORC as u64), ORC as u64).unwrap_or(&[0; ORC]));
    }
    for (table, bytes) in [(ip_table, new_ips), (orc_table, new_orcs)] {
        if let Some(target) = module.table_mut(&table)
            && target.len() == bytes.len()
        {
            target.copy_from_slice(&bytes);
            module.changed(&table, Step::SortOrc);
        }
    }
}

/// The kernel sorts as many entries as there are addresses, whatever lies behind `.orc_unwind` then: the heapsort touches
/// each of them.
fn sort_as_far_as_addresses_go(module: &mut Finalizer<'_, '_>, ip: &Table, orc: &Table, count: u64) {
    let size = count.saturating_mul(ORC as u64);
    let end = module.layout.allocated(orc.place.region).saturating_sub(orc.place.offset);
    // One entry is not compared with any.
    if count < 2 {
        return;
    }
    let first_outside = orc.address.saturating_add(size.saturating_sub(1).min(end));
    if !module.touches(&super::X86_64, first_outside, 1, "the table .orc_unwind, as long as .orc_unwind_ip,")
    {
        return;
    }
    if size > end || ip.place.region != orc.place.region {
        let needs =
            "what lies behind .orc_unwind, which the kernel sorts as far as .orc_unwind_ip has addresses";
        module.said.may_crash("FIN-76", needs);
        return;
    }
    let changes = module.changes();
    let orc = Table { size, ..*orc };
    let bytes = module.module.memory.region_mut(orc.place.region);
    let mut entries = InMemory { bytes, ip: ip.place.offset, orc: orc.place.offset, count, changes };
    sort(&mut entries, changes);
    for table in [ip, &orc] {
        module.changed(table, Step::SortOrc);
    }
}

/// Both tables where they lie in one region, at these offsets. They may overlap.
struct InMemory<'m> {
    bytes: &'m mut [u8],
    ip: u64,
    orc: u64,
    count: u64,
    changes: Changes,
}

impl InMemory<'_> {
    fn ip_at(&self, n: usize) -> u64 {
        self.ip.wrapping_add((n as u64).wrapping_mul(4))
    }

    fn orc_at(&self, n: usize) -> u64 {
        self.orc.wrapping_add((n as u64).wrapping_mul(ORC as u64))
    }

    /// `orc_ip`, relative to the region.
    fn address(&self, n: usize) -> i64 {
        let at = self.ip_at(n);
        let relative = le32(self.bytes, at).unwrap_or(0).cast_signed();
        at.cast_signed().wrapping_add(i64::from(relative))
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        if let Some(target) = slice_mut(self.bytes, at, bytes.len() as u64) {
            target.copy_from_slice(bytes);
        }
    }
}

impl sort::Table for InMemory<'_> {
    fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let flags = le16(self.bytes, self.orc_at(a).wrapping_add(4)).unwrap_or(0);
        let among_equals = if is_undefined(flags, self.changes) { Ordering::Less } else { Ordering::Greater };
        self.address(a).cmp(&self.address(b)).then(among_equals)
    }

    /// `orc_sort_swap`: addresses first.
    fn swap(&mut self, a: usize, b: usize) {
        let delta = self.ip_at(b).wrapping_sub(self.ip_at(a)) as u32;
        let [ip_a, ip_b] = [a, b].map(|n| le32(self.bytes, self.ip_at(n)).unwrap_or(0));
        self.put(self.ip_at(a), &ip_b.wrapping_add(delta).to_le_bytes());
        self.put(self.ip_at(b), &ip_a.wrapping_sub(delta).to_le_bytes());
        let entry = |n| slice(self.bytes, self.orc_at(n), ORC as u64)?.first_chunk::<ORC>().copied();
        if let (Some(orc_a), Some(orc_b)) = (entry(a), entry(b)) {
            self.put(self.orc_at(a), &orc_b);
            self.put(self.orc_at(b), &orc_a);
        }
    }
}

/// The entries' keys in the order that the kernel's sort gives them; `None` if they are in it already, or too
/// many.
fn sorted(ips: &[u8], orcs: &[u8], changes: Changes) -> Option<Vec<u64>> {
    let count = ips.len() / 4;
    let keys = || {
        ips.chunks_exact(4).zip(orcs.chunks_exact(ORC)).enumerate().map(|(n, (ip, orc))| {
            let ip = i64::from(le32(ip, 0).unwrap_or(0).cast_signed());
            let flags = le16(orc, 4).unwrap_or(0);
            key(ip.wrapping_add((n as i64).wrapping_mul(4)), is_undefined(flags, changes), n)
        })
    };
    if count >= 1 << NUMBER_BITS {
        return None;
    }
    if keys().is_sorted_by(|a, b| a >> NUMBER_BITS < b >> NUMBER_BITS) {
        return None;
    }
    let mut table = Vec::new();
    table.try_reserve_exact(count).ok()?;
    table.extend(keys());
    table.sort_unstable();
    // What a heapsort does with entries that its comparison cannot order shows only if they differ.
    let entry = |key: u64| slice(orcs, (number(key) as u64).wrapping_mul(ORC as u64), ORC as u64);
    let ambiguous = table.windows(2).any(|pair| match *pair {
        [a, b] => a >> NUMBER_BITS == b >> NUMBER_BITS && entry(a) != entry(b),
        _ => false,
    });
    if ambiguous {
        table.clear();
        table.extend(keys());
        sort(&mut Orc(&mut table), changes);
    }
    Some(table)
}

/// The tables in `struct mod_arch_specific` (FIN-86).
pub fn mod_arch_specific(module: &Finalizer<'_, '_>) -> Vec<(&'static str, u64)> {
    let tables = module.last_section(".orc_unwind_ip").zip(module.last_section(".orc_unwind"));
    let members = tables.map(|(ip, orc)| {
        [("arch.num_orcs", ip.size / 4), ("arch.orc_unwind_ip", ip.address), ("arch.orc_unwind", orc.address)]
    });
    members.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use elf_layout::KernelVersion;

    use super::*;
    use crate::testing::*;

    const OLD: KernelVersion = KernelVersion::new(6, 1, 0);
    const NEW: KernelVersion = KernelVersion::new(6, 12, 0);

    #[test]
    fn fin_76_terminators() {
        // 6.1: sp_reg in bits 0-3, type 8-9, end 10. 6.12: type in bits 8-10.
        let cases = [
            (OLD, 0x0000, true),
            (OLD, 0x0400, false),
            (OLD, 0x0005, false),
            (OLD, 0x0100, true),
            (KernelVersion::new(6, 3, 0), 0x0400, true),
            (KernelVersion::new(6, 3, 0), 0x0800, false),
            (NEW, 0x0005, true),
            (NEW, 0x0100, false),
            (NEW, 0x0700, false),
            (NEW, 0x0800, true),
        ];
        for (version, flags, want) in cases {
            assert_eq!(is_undefined(flags, Changes::of(version)), want, "FIN-76: {version:?} {flags:#x}");
        }
    }

    /// Tables of (address relative to the table, sp_off, flags).
    fn tables(entries: &[(i32, i16, u16)]) -> (Vec<u8>, Vec<u8>) {
        let (mut ips, mut orcs) = (Vec::new(), Vec::new());
        for (n, (address, sp, flags)) in entries.iter().enumerate() {
            ips.extend((address - 4 * n as i32).to_le_bytes());
            orcs.extend(sp.to_le_bytes());
            orcs.extend([0, 0]);
            orcs.extend(flags.to_le_bytes());
        }
        (ips, orcs)
    }

    #[test]
    fn fin_76_the_kernel_sorts_what_lies_behind() {
        // One entry of three: the other two are what follows in memory, and all of it is sorted by address.
        let (ips, mut orcs) = tables(&[(9, 1, 0x105), (-7, 2, 0x105), (1, 3, 0x105)]);
        orcs.extend(&ips);
        let (orc, ip) = (0, 3 * ORC as u64);
        for version in [OLD, NEW] {
            let mut bytes = orcs.clone();
            let changes = Changes::of(version);
            let mut entries = InMemory { bytes: &mut bytes, ip, orc, count: 3, changes };
            sort(&mut entries, changes);
            let addresses: Vec<i64> = (0..3).map(|n| entries.address(n) - ip as i64).collect();
            assert_eq!(addresses, [-7, 1, 9], "FIN-76: {version:?}");
            let found: Vec<i16> = (0..3).map(|n| le16(&bytes, n * ORC as u64).unwrap() as i16).collect();
            assert_eq!(found, [2, 3, 1], "FIN-76: {version:?}");
        }
        // The region ends with its page.
        for (ips, code) in [(8, None), (0x1000 / 6 * 4, None), (0x1000 / 6 * 4 + 4, Some("FIN-78"))] {
            let sections = [(".orc_unwind", RODATA, 6), (".orc_unwind_ip", DATA, ips)];
            TestModule::x86("6.12.0", &sections).run(&TestKernel::default(), |m| {
                unwind_module_init(m);
                let stops: Vec<&str> = m.said.iter().filter(|f| f.stops_here).map(|f| f.code).collect();
                assert_eq!(stops, Vec::from_iter(code), "FIN-76: {ips} bytes of addresses");
                let open = m.said.open_rules().iter().any(|rule| rule.code == "FIN-76");
                assert_eq!(open, code.is_none(), "FIN-76: another region is not sorted: {ips} bytes");
            });
        }
    }

    #[test]
    fn fin_76_order() {
        let plain = 0x0105;
        let in_order = tables(&[(-40, 1, plain), (-30, 2, 0), (-30, 3, plain), (0, 4, plain)]);
        for version in [OLD, NEW] {
            assert_eq!(sorted(&in_order.0, &in_order.1, Changes::of(version)), None, "FIN-76: nothing to do");
        }
        let order = |entries: &[(i32, i16, u16)], version| -> Vec<i16> {
            let (ips, orcs) = tables(entries);
            let keys = sorted(&ips, &orcs, Changes::of(version)).unwrap();
            keys.iter().map(|key| entries[number(*key)].1).collect()
        };
        for version in [OLD, NEW] {
            let entries = [(7, 1, plain), (-9, 2, plain), (7, 3, 0), (-1_000_000, 4, plain)];
            assert_eq!(order(&entries, version), [4, 2, 3, 1], "FIN-76: the terminator first, {version:?}");
        }
        // Entries that nothing orders come as the heapsort of the version leaves them (FIN-9).
        let same: Vec<(i32, i16, u16)> = (0..5).map(|n| (16, n, plain)).collect();
        assert_ne!(order(&same, OLD), order(&same, NEW), "FIN-9, FIN-76");
    }
}
