//! `jump_label_module_notify`, when a module is coming (FIN-50 to FIN-54).

use alloc::format;
use alloc::vec::Vec;
use core::cmp::Ordering;

use elf_layout::bytes::{le32, le64};
use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::{Finding, Severity, Table};
use reloc::Architecture;
use reloc::Finalizer;
use reloc::Step;
use reloc::reach::{Reach, in_constants, reach};
use reloc::sort::{self, sort};

/// Bytes of `struct jump_entry`: code and target (s32) and key (s64), each relative to itself.
const ENTRY: usize = 16;
/// Bits of the key that are flags.
const FLAGS: u64 = 3;
/// Bytes of a pointer.
const POINTER: u64 = 8;
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
pub fn jump_label_add_module(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let Some(table) = module.section("__jump_table").filter(|table| table.size >= ENTRY as u64) else {
        return;
    };
    if !module.writes_place(table.place, "the table __jump_table") {
        return;
    }
    // A key whose relocation was left out for want of a value still leads to its own place in the table.
    let left_out = !module.left_out(table.index).is_empty();
    let in_table = table.address..table.address.saturating_add(table.size);
    let entries = jump_label_sort_entries(module, &table);
    let mut known = None;
    for run in entries.chunk_by(|a, b| a.key == b.key) {
        // Before the first run the kernel's last key is NULL.
        let Some(first) = run.first().filter(|first| first.key != 0) else { continue };
        if left_out && in_table.contains(&first.key) {
            module.record.not_known("keys of jump labels");
            continue;
        }
        // A key of the kernel may be one that is no longer written to.
        let of_kernel = reach(module, module.kernel, arch, first.key) == Reach::Image;
        if of_kernel && in_constants(module.kernel, first.key) && !module.values.contains(&first.key) {
            let needs = "whether the kernel writes to a key of __jump_table that lies in its constants: no symbol begins there, so it may be none";
            module.said.may_crash("FIN-87", needs);
        }
        let key_type = first.key.wrapping_add(KEY_TYPE);
        if !of_kernel && !module.writes_data(arch, key_type, 8, "the key of an entry of __jump_table") {
            return;
        }
        if module.within_module(first.key) {
            static_key_set_entries(module, first);
        } else {
            if arch.jump_label_looks_at_code()
                && !may_be_key(known.get_or_insert_with(|| imports(module)), first.key)
            {
                no_key(module, arch, first.key, run);
            }
            update_of_foreign_key(module, arch, first.key, run);
        }
    }
}

/// What the module takes from elsewhere: addresses, in order, and whether that is a tracepoint.
fn imports(module: &Finalizer<'_, '_>) -> Vec<(u64, bool)> {
    let file = module.info.file;
    let symbols = file.symbols().iter().zip(&module.values).skip(1);
    let imports = symbols.filter(|(symbol, value)| symbol.shndx() == SHN_UNDEF && **value != 0);
    let is_tracepoint = |symbol| file.symbol_name(symbol).starts_with(b"__tracepoint_");
    let mut found: Vec<_> = imports.map(|(symbol, value)| (*value, is_tracepoint(symbol))).collect();
    found.sort_unstable();
    found
}

/// Does a key of another owner lie where an import has one: at its address, in a tracepoint behind its name, or somewhere in
/// what is no tracepoint?
fn may_be_key(imports: &[(u64, bool)], key: u64) -> bool {
    /// `struct tracepoint`: where `key` is.
    const TRACEPOINT_KEY: u64 = 8;
    /// Larger objects with a key in them are not known.
    const NEAR: u64 = 4096;
    let below = imports.partition_point(|(address, _)| *address <= key);
    let owner = below.checked_sub(1).and_then(|index| imports.get(index));
    owner.is_some_and(|(address, is_tracepoint)| match key.wrapping_sub(*address) {
        0 => true,
        offset if *is_tracepoint => offset == TRACEPOINT_KEY,
        offset => offset < NEAR && offset.is_multiple_of(POINTER),
    })
}

/// FIN-52: what is no key counts as true if the word there is not zero. Its sites are patched then if the next word says that it
/// was false at first, and the kernel crashes if one holds something else than it had at first.
fn no_key(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, key: u64, run: &[Entry]) {
    let holds = |entry: &Entry, jump| {
        let form = arch.jump_label_insn(module, entry.code, entry.target, jump)?;
        Some(module.read(entry.code, form.len() as u64)? == form)
    };
    let crashes = match key_state(module, key) {
        Some((enabled, at_first)) if enabled == at_first => false,
        Some((_, at_first)) => run.iter().any(|entry| holds(entry, at_first ^ entry.branch) == Some(false)),
        None => {
            let needs = format!(
                "what the running kernel has in its memory at {key:#x}, where the key of an entry of __jump_table leads: no symbol has a key there"
            );
            module.said.may_crash("FIN-52", needs);
            return;
        }
    };
    if crashes {
        let why = format!(
            "the key of an entry of __jump_table leads to {key:#x}, where the kernel has no key, and the words there make it patch code that holds something else: it crashes (BUG)"
        );
        module.said.refuse(Finding::note("FIN-52", Severity::Oops, why));
    }
}

/// Sorts the table by key and code (FIN-50), sets the flag of each entry and gives them all.
fn jump_label_sort_entries(module: &mut Finalizer<'_, '_>, table: &Table) -> Vec<Entry> {
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let mut bytes = bytes.to_vec();
    sort(&mut JumpTable { bytes: &mut bytes, address: table.address }, module.changes());
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
fn update_of_foreign_key(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, key: u64, run: &[Entry]) {
    let state = key_state(module, key);
    if state.is_none() && !module.verdict_only && module.record.has_room() {
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

/// A site of a static key, as it has to be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteNow {
    /// Its address.
    pub code: u64,
    /// How many bytes it has.
    pub len: u64,
    /// Its key.
    pub key: u64,
    /// Is the key between its states (`enabled` is -1 while the first user waits for its sites), or not known? Both forms are
    /// right then.
    pub either: bool,
}

/// `jump_label_update` of every key with sites that stay, once the module has run: by the state of the key now, its own keys
/// too (FIN-53). The table is as it was left when the module came. Gives the sites.
pub fn jump_label_now(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> Vec<SiteNow> {
    let Some(table) = module.section("__jump_table") else { return Vec::new() };
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let entries = bytes.as_chunks::<ENTRY>().0.iter().zip(table.records(ENTRY as u64));
    let entries: Vec<Entry> = entries.map(|(raw, at)| Entry::of(raw, at)).collect();
    let mut sites = Vec::new();
    for entry in entries {
        let inside = module.within_module(entry.code) && !module.within_module_init(entry.code);
        let form = |jump| arch.jump_label_insn(module, entry.code, entry.target, jump);
        let (true, Some((nop, jump))) = (inside, form(false).zip(form(true))) else { continue };
        let count = if module.within_module(entry.key) {
            module.u32(entry.key)
        } else {
            module.of_kernel(entry.key).map(u32::from_le_bytes)
        };
        let count = count.map(u32::cast_signed);
        if count.is_none() {
            module.record.not_known("states of static keys");
        }
        let enabled = count.unwrap_or(0) != 0;
        let form = if enabled ^ entry.branch { &jump } else { &nop };
        module.write(entry.code, form, Step::JumpLabel, entry.key);
        let either = count.is_none_or(|count| count < 0);
        if either {
            module.choice(entry.code, [nop.clone(), jump.clone()], Step::JumpLabel, entry.key);
        }
        sites.push(SiteNow { code: entry.code, len: nop.len() as u64, key: entry.key, either });
    }
    sites
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use elf_layout::{Changes, KernelVersion};
    use reloc::aarch64::Aarch64;
    use reloc::aarch64::insn::{NOP, branch};
    use reloc::testing::*;

    /// Entries as relocation leaves them: code, target, key, branch.
    fn put_table(m: &mut Finalizer<'_, '_>, at: u64, entries: &[(u64, u64, u64, bool)]) {
        for (n, (code, target, key, branch)) in entries.iter().enumerate() {
            let at = at + 16 * n as u64;
            let mut raw = Vec::new();
            raw.extend((code.wrapping_sub(at) as u32).to_le_bytes());
            raw.extend((target.wrapping_sub(at + 4) as u32).to_le_bytes());
            raw.extend((key.wrapping_sub(at + 8) | u64::from(*branch)).to_le_bytes());
            put(m, at, &raw);
        }
    }

    fn table(m: &Finalizer<'_, '_>, at: u64, count: u64) -> Vec<(Entry, bool)> {
        let raw = |at| m.read(at, 16).unwrap().first_chunk().unwrap();
        (0..count).map(|n| at + 16 * n).map(|at| (Entry::of(raw(at), at), raw(at)[8] & 2 != 0)).collect()
    }

    fn static_key(enabled: i32, key_type: u64) -> Vec<u8> {
        let mut key = enabled.to_le_bytes().to_vec();
        key.extend([0; 4]);
        key.extend(key_type.to_le_bytes());
        key
    }

    const SECTIONS: [(&str, u64, usize); 4] =
        [(".text", CODE, 64), (".init.text", CODE, 64), (".data", DATA, 64), ("__jump_table", DATA, 16 * 5)];

    #[test]
    fn fin_50_and_51_sorted_flagged_and_own_keys_linked() {
        for release in ["6.1.0", "6.12.0"] {
            TestModule::arm64(release, &SECTIONS).run(&TestKernel::default(), |m| {
                let [text, init, data, at] =
                    [".text", ".init.text", ".data", "__jump_table"].map(|name| address(m, name));
                put(m, data, &static_key(1, 1));
                put(m, data + 16, &static_key(0, 0));
                let given = [
                    (text + 8, text, data + 16, true),
                    (init, init + 4, data, false),
                    (text + 4, text, data, true),
                    (text, text, data + 16, false),
                    (init + 8, init, data + 16, false),
                ];
                put_table(m, at, &given);
                jump_label_add_module(m, &Aarch64);
                let got = table(m, at, 5);
                let mut want = given;
                want.sort_by_key(|entry| (entry.2, entry.0));
                let fields = |e: &Entry| (e.code, e.target, e.key, e.branch);
                assert_eq!(got.iter().map(|(e, _)| fields(e)).collect::<Vec<_>>(), want, "FIN-50: {release}");
                for (entry, in_init) in &got {
                    assert_eq!(*in_init, m.within_module_init(entry.code), "FIN-50: {release} {entry:x?}");
                }
                assert_eq!(m.u64(data + 8), Some(at | 1), "FIN-51: first entry and type of the key");
                assert_eq!(m.u64(data + 24), Some(at + 2 * 16), "FIN-51");
                assert_eq!(steps(m), [Step::SortJumpTable, Step::JumpKey, Step::JumpKey]);
                assert!(m.record.choices.is_empty() && m.record.unknown.is_empty(), "FIN-52: own keys");
            });
        }
    }

    #[test]
    fn fin_52_foreign_keys() {
        const KEY: u64 = 0xffff_8000_8123_4560;
        // (key as the kernel has it, does its site at first a jump become a nop and the other way round?)
        let cases = [
            (Some(static_key(0, 0)), false),
            (Some(static_key(1, 1)), false),
            (Some(static_key(1, 0)), true),
            (Some(static_key(-1, 0)), true),
            (Some(static_key(0, 1)), true),
            // Linked to other modules, as the second bit says.
            (Some(static_key(5, 0xffff_0000_1234_5673)), false),
            (Some(static_key(5, 0xffff_0000_1234_5672)), true),
            (None, false),
        ];
        for (key, changes) in cases {
            let known = key.is_some();
            let kernel = TestKernel {
                memory: key.clone().map(|k| (KEY, k)).into_iter().collect(),
                ..TestKernel::default()
            };
            let at_first = key.as_ref().is_some_and(|k| k[8] & 1 != 0);
            let mut module = TestModule::arm64("6.12.0", &SECTIONS);
            module.imports = vec![("other", KEY - 0x2000), ("some_key", KEY - 8)];
            module.sections[3].2 = 32;
            module.run(&kernel, |m| {
                let (text, at) = (address(m, ".text"), address(m, "__jump_table"));
                let forms = [branch(text, text + 32), NOP];
                // static_branch_likely at .text, static_branch_unlikely behind it.
                put_table(m, at, &[(text, text + 32, KEY, true), (text + 4, text + 32, KEY, false)]);
                let compiled = if at_first { [NOP, branch(text + 4, text + 32)] } else { [forms[0], NOP] };
                put_words(m, text, &compiled);
                jump_label_add_module(m, &Aarch64);
                let now = words(m, text, 2);
                let want = match (changes, at_first) {
                    (false, _) => compiled,
                    (true, false) => [NOP, branch(text + 4, text + 32)],
                    (true, true) => [forms[0], NOP],
                };
                assert_eq!(now, want, "FIN-52, FIN-53: {key:x?}");
                let unknown: Vec<String> =
                    if known { vec![] } else { vec!["state of the static key some_key+0x8".into()] };
                assert_eq!(m.record.unknown, unknown, "FIN-52: {key:x?}");
                assert_eq!(m.record.choices.len(), 2, "FIN-53: both sites may be either");
                let may = &m.record.choices[0].may;
                assert_eq!(may[0], compiled[0].to_le_bytes(), "as it was first");
                let mut may = may.clone();
                may.sort();
                let mut both = forms.map(|w| w.to_le_bytes().to_vec());
                both.sort();
                assert_eq!(may, both, "FIN-53: {key:x?}");
            });
        }
    }

    #[test]
    fn fin_52_a_place_that_is_no_key() {
        const KERNEL: u64 = 0xffff_ffff_8100_0000;
        let words = |enabled, key_type| Some(static_key(enabled, key_type));
        // What is imported, how far behind it the key is, what is there; does the kernel crash, and is that open?
        for (import, offset, memory, crashes, open) in [
            ("some_key", 0, None, false, false),
            ("object", 0x40, None, false, false),
            ("object", 0x41 * 4, None, false, true),
            ("object", 0x10_0000, None, false, true),
            ("__tracepoint_x", 8, None, false, false),
            ("__tracepoint_x", 0, None, false, false),
            ("__tracepoint_x", 0x18, None, false, true),
            ("__tracepoint_x", 0x18, words(0, 0), false, false),
            ("__tracepoint_x", 0x18, words(7, 1), false, false),
            // The site is a nop: right for a key that was false at first.
            ("__tracepoint_x", 0x18, words(7, 0), false, false),
            ("__tracepoint_x", 0x18, words(0, 1), true, false),
        ] {
            let symbols = [("_text", KERNEL), ("_end", KERNEL + 0x100_0000)];
            let symbols = symbols.into_iter().chain([("__init_begin", KERNEL), ("__init_end", KERNEL)]);
            let key = KERNEL + 0x2000 + offset;
            let kernel = TestKernel {
                symbols: symbols.collect(),
                memory: memory.clone().map(|words| (key, words)).into_iter().collect(),
                ..TestKernel::default()
            };
            let mut module = TestModule::x86("6.12.0", &SECTIONS);
            module.imports = vec![("before", KERNEL), (import, KERNEL + 0x2000)];
            module.run(&kernel, |m| {
                let [text, at] = [".text", "__jump_table"].map(|name| address(m, name));
                reloc::testing::put(m, text, &[0x0f, 0x1f, 0x44, 0, 0]);
                put_table(m, at, &[(text, text + 32, key, false)]);
                jump_label_add_module(m, &reloc::x86_64::X86_64);
                let what = format!("FIN-52: {import}+{offset:#x}, {memory:x?}: {:?}", m.said);
                let codes: Vec<_> = m.said.iter().map(|f| f.code).collect();
                assert_eq!(codes, if crashes { vec!["FIN-52"] } else { vec![] }, "{what}");
                assert_eq!(m.said.is_undecided(), open, "{what}");
            });
        }
    }

    #[test]
    fn fin_51_a_key_that_is_not_known() {
        let mut module = TestModule::x86("6.12.0", &SECTIONS);
        module.sections[3].2 = 32;
        module.imports = vec![("key", 0)];
        module.relocations = vec![("__jump_table", 8, 24, 1)];
        module.run(&TestKernel::default(), |m| {
            m.module.unknown = vec![false, true];
            let [text, data, at] = [".text", ".data", "__jump_table"].map(|name| address(m, name));
            // Of the first entry nothing but the code is known; behind the second is nothing of it.
            put_table(m, at, &[(text, text, at + 8, false), (text + 8, text, data, false)]);
            let before = m.read(at + 32, 16).map(<[u8]>::to_vec);
            jump_label_add_module(m, &reloc::x86_64::X86_64);
            assert!(m.said.iter().next().is_none(), "FIN-51: {:?}", m.said);
            assert_eq!(m.read(at + 32, 16).map(<[u8]>::to_vec), before, "FIN-51: nothing is written to");
            let own = m.u64(data + 8).unwrap();
            assert!((at..at + 32).contains(&own), "FIN-51: the other key has its entries: {own:#x}");
        });
    }

    #[test]
    fn fin_78_and_87_keys_that_cannot_be_written() {
        for (key, code) in [(0x1000, "FIN-78"), (0, "FIN-87"), (8, "FIN-87")] {
            TestModule::x86("6.12.0", &SECTIONS).run(&TestKernel::default(), |m| {
                let [text, at] = [".text", "__jump_table"].map(|name| address(m, name));
                // Far away, or in the module's code.
                let key = if code == "FIN-78" { key } else { text + key };
                put_table(m, at, &[(text, text, key, false)]);
                jump_label_add_module(m, &reloc::x86_64::X86_64);
                let found: Vec<_> = m.said.iter().map(|f| f.code).collect();
                assert_eq!(found, [code], "{code}: key {key:#x}");
            });
        }
        let mut sections = SECTIONS;
        sections[3].1 = RODATA;
        TestModule::x86("6.12.0", &sections).run(&TestKernel::default(), |m| {
            jump_label_add_module(m, &reloc::x86_64::X86_64);
            assert_eq!(m.said.iter().map(|f| f.code).collect::<Vec<_>>(), ["FIN-87"], "FIN-87: the table");
        });
    }

    #[test]
    fn fin_50_swap_keeps_what_is_pointed_at() {
        // Distances that do not fit, as in a hostile table, wrap like the kernel's.
        let at = 0xffff_8000_0000_0000;
        let raw: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(151)).collect();
        let mut bytes = raw.clone();
        let mut table = JumpTable { bytes: &mut bytes, address: at };
        let before = [table.entry(0), table.entry(3)].map(Option::unwrap);
        sort::Table::swap(&mut table, 0, 3);
        let after = [table.entry(3), table.entry(0)].map(Option::unwrap);
        for (was, is) in before.into_iter().zip(after) {
            assert_eq!((was.key, was.branch), (is.key, is.branch), "FIN-50");
            assert_eq!(was.code as u32, is.code as u32, "FIN-50");
            assert_eq!(was.target as u32, is.target as u32, "FIN-50");
        }
        sort::Table::swap(&mut table, 3, 0);
        assert_eq!(bytes, raw, "FIN-50: and back");
        sort(&mut JumpTable { bytes: &mut bytes, address: at }, Changes::of(KernelVersion::new(6, 12, 0)));
    }
}
