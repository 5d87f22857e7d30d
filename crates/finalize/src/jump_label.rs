//! `jump_label_module_notify`, when a module is coming (FIN-50 to FIN-54).

use alloc::format;
use alloc::vec::Vec;
use core::cmp::Ordering;

use elf_layout::bytes::{le32, le64};

use crate::arch::FinalizeArch;
use crate::finalizer::{Finalizer, Table};
use crate::record::Step;
use crate::sort::{self, sort};

/// Bytes of `struct jump_entry`: code and target (s32) and key (s64), each relative to itself.
const ENTRY: usize = 16;
/// Bits of the key that are flags.
const FLAGS: u64 = 3;
/// Flag: the code is in init memory.
const IN_INIT: u64 = 2;
/// `struct static_key`: `enabled` (s32) at 0; at 8 a pointer to entries whose low bits are JUMP_TYPE_*.
const KEY_TYPE: u64 = 8;
/// The low bits of that pointer.
const JUMP_TYPE_MASK: u64 = 3;
/// The lowest one: the key is true at first.
const JUMP_TYPE_TRUE: u64 = 1;

/// One entry, with absolute addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Its own address.
    at: u64,
    /// The site.
    code: u64,
    /// Where it jumps to.
    target: u64,
    /// Its key.
    key: u64,
    /// The site jumps as long as the key is false.
    branch: bool,
}

/// `jump_label_add_module`
pub fn jump_label_add_module(module: &mut Finalizer<'_, '_>, arch: &dyn FinalizeArch) {
    let Some(table) = module.section("__jump_table") else { return };
    let entries = jump_label_sort_entries(module, &table);
    for run in entries.chunk_by(|a, b| a.key == b.key) {
        // Before the first run the kernel's last key is NULL.
        let Some(first) = run.first().filter(|first| first.key != 0) else { continue };
        if module.within_module(first.key) {
            static_key_set_entries(module, first);
        } else {
            update_of_foreign_key(module, arch, first.key, run);
        }
    }
}

/// Sorts the table by key and code (FIN-50), sets the flag of each entry and gives them all.
fn jump_label_sort_entries(module: &mut Finalizer<'_, '_>, table: &Table) -> Vec<Entry> {
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let mut bytes = bytes.to_vec();
    sort(&mut JumpTable { bytes: &mut bytes, address: table.address }, module.version());
    let mut entries = Vec::new();
    for (raw, at) in bytes.as_chunks_mut::<ENTRY>().0.iter_mut().zip(table.records(ENTRY as u64)) {
        let entry = Entry::of(raw, at);
        let init = if module.within_module_init(entry.code) { IN_INIT } else { 0 };
        if let Some(key) = raw.last_chunk_mut::<8>() {
            *key = (u64::from_le_bytes(*key) & !IN_INIT | init).to_le_bytes();
        }
        entries.push(entry);
    }
    module.write(table.address, &bytes, Step::SortJumpTable, 0);
    entries
}

/// A key of the module points at the first entry of its run, and keeps its type bits (FIN-51). It is still
/// as it was compiled, so its sites are right.
fn static_key_set_entries(module: &mut Finalizer<'_, '_>, first: &Entry) {
    let at = first.key.wrapping_add(KEY_TYPE);
    let Some(key_type) = module.u64(at) else { return };
    let entries = first.at | key_type & JUMP_TYPE_MASK;
    module.write(at, &entries.to_le_bytes(), Step::JumpKey, first.key);
}

/// Sites of a key of the kernel or of another module: patched only if the key has left its initial state
/// (FIN-52). What links them to the key is the kernel's memory.
fn update_of_foreign_key(module: &mut Finalizer<'_, '_>, arch: &dyn FinalizeArch, key: u64, run: &[Entry]) {
    let state = key_state(module, key);
    if state.is_none() && module.record.has_room() {
        let name = module.name_of(key).unwrap_or_else(|| format!("at {key:#x}"));
        module.record.not_known(&format!("state of the static key {name}"));
    }
    for entry in run {
        let form = |jump| arch.jump_label_insn(module, entry.code, entry.target, jump);
        let Some((nop, jump)) = form(false).zip(form(true)) else { continue };
        module.choice(entry.code, [nop.clone(), jump.clone()], Step::JumpLabel, key);
        if let Some((enabled, _)) = state.filter(|(enabled, at_first)| enabled != at_first) {
            let form = if enabled ^ entry.branch { jump } else { nop };
            module.write(entry.code, &form, Step::JumpLabel, key);
        }
    }
}

/// Is a key of the running kernel true, and was it at first? Any count but 0 is true, -1 too.
fn key_state(module: &Finalizer<'_, '_>, key: u64) -> Option<(bool, bool)> {
    let bytes: [u8; 16] = module.of_kernel(key)?;
    let (count, key_type) = le32(&bytes, 0).zip(le64(&bytes, KEY_TYPE))?;
    Some((count != 0, key_type & JUMP_TYPE_TRUE != 0))
}

impl Entry {
    fn of(raw: &[u8; ENTRY], at: u64) -> Self {
        let field = |offset| i64::from(le32(raw, offset).unwrap_or(0).cast_signed());
        let key = le64(raw, 8).unwrap_or(0);
        Entry {
            at,
            code: at.wrapping_add_signed(field(0)),
            target: at.wrapping_add(4).wrapping_add_signed(field(4)),
            key: at.wrapping_add(8).wrapping_add(key & !FLAGS),
            branch: key & 1 != 0,
        }
    }
}

/// The table while it is sorted.
struct JumpTable<'m> {
    bytes: &'m mut [u8],
    address: u64,
}

impl JumpTable<'_> {
    fn entry(&self, n: usize) -> Option<Entry> {
        let raw = self.bytes.as_chunks::<ENTRY>().0.get(n)?;
        let offset = (n as u64).wrapping_mul(ENTRY as u64);
        Some(Entry::of(raw, self.address.wrapping_add(offset)))
    }
}

impl sort::Table for JumpTable<'_> {
    fn len(&self) -> usize {
        self.bytes.len() / ENTRY
    }

    /// `jump_label_cmp`
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let order = |n| self.entry(n).map(|entry| (entry.key, entry.code));
        order(a).cmp(&order(b))
    }

    /// `jump_label_swap`: what moves stays relative to itself.
    fn swap(&mut self, a: usize, b: usize) {
        let delta = (b as u64).wrapping_sub(a as u64).wrapping_mul(ENTRY as u64);
        let (entries, _) = self.bytes.as_chunks_mut::<ENTRY>();
        if a < entries.len() && b < entries.len() {
            entries.swap(a, b);
        }
        if let Some(raw) = entries.get_mut(a) {
            shift(raw, delta);
        }
        if let Some(raw) = entries.get_mut(b) {
            shift(raw, delta.wrapping_neg());
        }
    }
}

/// Adds `delta` to all fields of an entry that moved down by that much.
fn shift(raw: &mut [u8; ENTRY], delta: u64) {
    let (half, key) = raw.split_at_mut(8);
    for field in half.as_chunks_mut::<4>().0 {
        *field = u32::from_le_bytes(*field).wrapping_add(delta as u32).to_le_bytes();
    }
    for field in key.as_chunks_mut::<8>().0 {
        *field = u64::from_le_bytes(*field).wrapping_add(delta).to_le_bytes();
    }
}
