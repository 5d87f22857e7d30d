//! `static_call_add_module`: sites of static calls are sorted by their key and call what it says (FIN-60 to
//! FIN-63).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

use elf_layout::Region;
use elf_layout::bytes::printed;
use elf_layout::{Change, Errno, Finding, Severity, needs};

use super::callthunks::CallThunks;
use super::insn::text_gen_insn;
use super::nops::{NOP5, Nops};
use super::returns::{self, Returns};
use super::text::{CALL, JMP32, RET};
use elf_layout::Table;

use super::X86_64;
use crate::finalizer::Finalizer;
use crate::reach::{Reach, reach};
use crate::record::Step;
use crate::sort::{self, sort};

/// Bytes of `struct static_call_site`: s32 addr, s32 key.
const SITE: u64 = 8;
/// STATIC_CALL_SITE_TAIL
const TAIL: u64 = 1;
/// STATIC_CALL_SITE_INIT
const INIT: u64 = 2;
/// STATIC_CALL_SITE_FLAGS
const FLAGS: u64 = 3;
/// `cs cs cs xor %eax, %eax`: a call of `__static_call_return0`.
const XOR5RAX: [u8; 5] = [0x2e, 0x2e, 0x2e, 0x31, 0xc0];
/// `ud1 (%edx), %rdi`: a call of `__WARN_trap`, the trap itself in place of the call.
const WARNINSN: [u8; 5] = [0x67, 0x48, 0x0f, 0xb9, 0x3a];
/// More trampolines than this has no kernel.
const TRAMPOLINES_MAX: u64 = 1 << 16;

/// A site with absolute addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Site {
    /// Of the code.
    address: u64,
    /// Of the key, with the flags in the low bits.
    key: u64,
    /// Is the key one whose address is known?
    known: bool,
}

struct Sites(Vec<Site>);

impl sort::Table for Sites {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let key = |n: usize| self.0.get(n).map(|site| site.key & !FLAGS);
        key(a).cmp(&key(b))
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.0.swap(a, b);
    }
}

/// What a static call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Callee {
    /// The key's function; 0 for none.
    func: u64,
    /// Where a call goes: the function, or the accounting code before it.
    call: u64,
}

/// What all sites need of the kernel.
struct Kernel {
    nops: Option<Nops>,
    returns: Option<Returns>,
    thunks: Option<Option<CallThunks>>,
    return0: Option<u64>,
    /// `__WARN_trap`, which kernels have whose WARN() takes a format in the bug table.
    warn_trap: Option<u64>,
    /// Where a conditional jump to nothing goes.
    conditional_return: Option<u64>,
}

/// `static_call_module_notify`, when a module is coming.
pub fn static_call_add_module(module: &mut Finalizer<'_, '_>) {
    // Before v5.10 there are no static calls.
    if !module.has(Change::StaticCalls) {
        return;
    }
    let Some(table) = module.section(".static_call_sites").filter(|t| t.size >= SITE) else { return };
    let Some(mut sites) = read_sites(module, &table) else { return };
    let fixed = fixup_keys(module, &mut sites.0);
    if !fixed {
        return;
    }
    // 32 bits of an address of the temporary copy lead from the table to anywhere.
    if !module.in_temporary_copy(table.index).is_empty() {
        let needs = "the address of the kernel's temporary copy of the file, to which entries of .static_call_sites lead";
        module.said.may_crash("FIN-61", needs);
    }
    let changes = module.changes();
    let several = sites.0.len() > 1;
    if several && !module.writes_place(table.place, "the table .static_call_sites") {
        return;
    }
    sort(&mut sites, changes);
    for site in &mut sites.0 {
        if module.within_module_init(site.address) {
            site.key |= INIT;
        }
    }
    write_sites(module, &table, &sites.0);
    let kernel = Kernel::of(module);
    let mut last: Option<(u64, Option<u64>)> = None;
    for site in sites.0.into_iter().filter(|site| site.known) {
        let key = site.key & !FLAGS;
        let func = match last {
            Some((of, func)) if of == key => func,
            _ => {
                let list = key.wrapping_add(8);
                if !module.writes_data(&X86_64, list, 8, "the key of an entry of .static_call_sites") {
                    return;
                }
                note_key(module, key);
                key_func(module, key)
            }
        };
        last = Some((key, func));
        let code = "the code of an entry of .static_call_sites";
        if !module.touches(&X86_64, site.address, 5, code) || !validate(module, site) {
            return;
        }
        transform(module, &kernel, site, func);
    }
}

fn read_sites(module: &Finalizer<'_, '_>, table: &Table) -> Option<Sites> {
    let mut sites = Vec::new();
    sites.try_reserve_exact(usize::try_from(table.size.checked_div(SITE)?).ok()?).ok()?;
    let left_out = module.left_out(table.index);
    for at in table.records(SITE) {
        let key_at = at.wrapping_add(4);
        let (address, key) = (module.relative(at)?, module.relative(key_at)?);
        let known = ![at, key_at].iter().any(|at| left_out.binary_search(at).is_ok());
        sites.push(Site { address, key, known });
    }
    Some(Sites(sites))
}

fn write_sites(module: &mut Finalizer<'_, '_>, table: &Table, sites: &[Site]) {
    let Some(bytes) = module.table_mut(table) else { return };
    let mut changed = false;
    for (slot, (at, site)) in bytes.chunks_exact_mut(8).zip((table.address..).step_by(8).zip(sites)) {
        let address = (site.address.wrapping_sub(at) as u32).to_le_bytes();
        let key = (site.key.wrapping_sub(at.wrapping_add(4)) as u32).to_le_bytes();
        let new = [address, key];
        changed |= slot != new.as_flattened();
        slot.copy_from_slice(new.as_flattened());
    }
    if changed {
        module.changed(table, Step::SortStaticCalls);
    }
}

/// FIN-60: an address in the kernel's text is a trampoline, whose key is not exported. False if the kernel
/// refuses the module.
fn fixup_keys(module: &mut Finalizer<'_, '_>, sites: &mut [Site]) -> bool {
    let range = |from, to| Some(module.kernel.symbol(from)?..module.kernel.symbol(to)?);
    let text: Option<Range<u64>> = range("_stext", "_etext");
    let Some(text) = text else {
        module.record.not_known("_stext");
        module.said.unjudged("FIN-60", needs::SYMBOLS);
        return false;
    };
    let keys = tramp_keys(module);
    for index in 0..sites.len() {
        let Some(site) = sites.get_mut(index).filter(|site| site.known) else { continue };
        let address = site.key & !FLAGS;
        if !text.contains(&address) && !within_module_text(module, address) {
            continue;
        }
        let Some(keys) = &keys else {
            module.record.not_known("__start_static_call_tramp_key");
            module.said.unjudged("FIN-60", needs::IMAGE);
            return false;
        };
        let Some(key) = keys.get(&address) else {
            let at = site.address;
            let line = format!(
                "Failed to fixup __raw_static_call() usage at: {}",
                symbol_at(module, at).unwrap_or_else(|| format!("{at:#x}"))
            );
            let why = format!(
                "the static call at {at:#x} names a trampoline at {address:#x}, which is none of the kernel's with a key"
            );
            let finding = match static_call_del_module(module, sites, keys) {
                Some(Some(key)) => {
                    let why = format!(
                        "{why}; on the way back it follows the list of a key at {key:#x}, which is none: it crashes"
                    );
                    Finding::note("FIN-60", Severity::Oops, why)
                }
                Some(None) => Finding::error("FIN-60", Errno::EINVAL, why),
                None => {
                    let needs = "what the kernel's memory holds where entries of .static_call_sites lead: it follows them after an error";
                    module.said.may_crash("FIN-60", needs);
                    Finding::error("FIN-60", Errno::EINVAL, why)
                }
            };
            module.said.refuse(finding.says(line).says("Failed to allocate memory for static calls"));
            return false;
        };
        site.key = key | site.key & FLAGS;
    }
    true
}

/// `static_call_del_module` after an error: it follows the list of modules of each key. The key at which it crashes, if there is one;
/// `None` if that is not known.
fn static_call_del_module(
    module: &Finalizer<'_, '_>,
    sites: &[Site],
    keys: &BTreeMap<u64, u64>,
) -> Option<Option<u64>> {
    let is_key = |key: u64| keys.values().any(|known| *known == key) || module.values.contains(&key);
    let found = |address| reach(module, module.kernel, &X86_64, address);
    let mut is_known = true;
    for key in sites.iter().map(|site| site.key & !FLAGS).filter(|key| !is_key(*key)) {
        let list = key.wrapping_add(8);
        // Code is patched by then, and struct module written; a verdict does without the first.
        if within_module_text(module, list) || module.is_struct_module(list) {
            is_known = false;
            continue;
        }
        let mut bytes = [0; 8];
        let word = module
            .u64(list)
            .or_else(|| module.kernel.read(list, &mut bytes).then(|| u64::from_le_bytes(bytes)));
        let at = match word {
            // No module, or the kernel's own sites (`static_call_key_has_mods`).
            Some(word) if word == 0 || word & 1 != 0 => continue,
            Some(word) => word,
            None => list,
        };
        match found(at) {
            Reach::Nothing => return Some(Some(key)),
            _ => is_known = false,
        }
    }
    is_known.then_some(None)
}

/// `is_module_text_address`, for this module.
fn within_module_text(module: &Finalizer<'_, '_>, address: u64) -> bool {
    let Some(place) = module.place_of(address) else { return false };
    let [core, init] = module.layout.marks;
    // Since v6.4 code has regions of its own, before that it is what an area begins with.
    match place.region {
        Region::Text | Region::InitText => true,
        Region::Core => place.offset < core.text_size,
        Region::Init => place.offset < init.text_size,
        _ => false,
    }
}

/// `__start_static_call_tramp_key`: the keys of trampolines; of two entries for one the first counts.
fn tramp_keys(module: &Finalizer<'_, '_>) -> Option<BTreeMap<u64, u64>> {
    let start = module.kernel.symbol("__start_static_call_tramp_key")?;
    let size = module.kernel.symbol("__stop_static_call_tramp_key")?.checked_sub(start)?;
    let count = size.checked_div(SITE).filter(|count| *count <= TRAMPOLINES_MAX)?;
    let mut bytes = alloc::vec![0; usize::try_from(count.checked_mul(SITE)?).ok()?];
    if !module.kernel.read(start, &mut bytes) {
        return None;
    }
    let mut keys = BTreeMap::new();
    for (record, at) in bytes.chunks_exact(8).zip((start..).step_by(8)) {
        let [a, b, c, d, e, f, g, h] = *record.first_chunk::<8>()?;
        let relative = |bytes, at: u64| at.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes)));
        let key = relative([e, f, g, h], at.wrapping_add(4));
        keys.entry(relative([a, b, c, d], at)).or_insert(key);
    }
    Some(keys)
}

/// `%ps`
fn symbol_at(module: &Finalizer<'_, '_>, address: u64) -> Option<alloc::string::String> {
    let name = module.symbol_at(address)?;
    Some(format!("{} [{}]", printed(name), module.info.file.name_text()))
}

/// `key->func`
fn key_func(module: &mut Finalizer<'_, '_>, key: u64) -> Option<u64> {
    let func = if module.within_module(key) { module.u64(key) } else { module.kernel.pointer(key) };
    if func.is_none() {
        module.record.not_known("functions of static call keys");
    }
    func
}

/// A key of the module gets the list of modules with sites of it, which is allocated (`key->mods`).
fn note_key(module: &mut Finalizer<'_, '_>, key: u64) {
    module.runtime(key.wrapping_add(8), 8, "static_call_key.mods");
}

impl Kernel {
    fn of(module: &mut Finalizer<'_, '_>) -> Kernel {
        let returns = Returns::of(module);
        // Since v6.2 (770ae1b70952) what x86_return_thunk points to, before that the thunk itself.
        let conditional_return = match returns {
            Some(Returns::Plain) => module.kernel.symbol("__static_call_return"),
            Some(Returns::Thunk { thunk, .. }) if module.has(Change::ReturnThunkPerMitigation) => Some(thunk),
            Some(Returns::Thunk { .. }) => module.kernel.symbol("__x86_return_thunk"),
            None => None,
        };
        Kernel {
            nops: Nops::of(module),
            returns,
            conditional_return,
            thunks: CallThunks::of(module),
            return0: module.kernel.symbol("__static_call_return0"),
            warn_trap: module.kernel.symbol("__WARN_trap"),
        }
    }
}

/// The six bytes at a site, or five and a zero at the end of its region.
fn code_of(module: &Finalizer<'_, '_>, site: Site) -> Option<[u8; 6]> {
    module.bytes::<6>(site.address).or_else(|| {
        let [a, b, c, d, e] = module.bytes::<5>(site.address)?;
        Some([a, b, c, d, e, 0])
    })
}

/// The condition of a conditional jump.
fn jcc(code: [u8; 6]) -> Option<u8> {
    match code {
        [0x0f, condition @ 0x80..=0x8f, ..] => Some(condition),
        _ => None,
    }
}

/// `__static_call_validate`: false where the kernel crashes.
fn validate(module: &mut Finalizer<'_, '_>, site: Site) -> bool {
    let Some(code) = code_of(module, site) else {
        let needs = format!(
            "what the running kernel has in its memory at {:#x}, a site of a static call",
            site.address
        );
        module.said.may_crash("FIN-61", needs);
        return true;
    };
    let [five @ .., _] = code;
    let valid = if site.key & TAIL != 0 {
        matches!(code[0], JMP32 | RET) || jcc(code).is_some()
    } else {
        code[0] == CALL || matches!(five, NOP5 | XOR5RAX | WARNINSN)
    };
    if !valid {
        let what = format!("unexpected static_call insn opcode {:#x} at", code[0]);
        let why = format!("{what} {:#x}: no call and no jump, the kernel crashes (BUG)", site.address);
        let line = format!("{what} {}", module.symbol_text(site.address));
        module.said.refuse(Finding::note("FIN-61", Severity::Oops, why).says(line));
    }
    valid
}

/// `arch_static_call_transform`
fn transform(module: &mut Finalizer<'_, '_>, kernel: &Kernel, site: Site, func: Option<u64>) {
    let tail = site.key & TAIL != 0;
    let Some(code) = code_of(module, site) else { return };
    let condition = jcc(code).filter(|_| tail);
    let len = if condition.is_some() { 6 } else { 5 };
    let at = site.address;
    let own_key = module.within_module(site.key & !FLAGS);
    module.may_be(at, len, Step::StaticCall, site.key & !FLAGS, |module| {
        let other = if own_key { None } else { func.filter(|f| *f != 0) };
        may_hold(module, kernel, at, condition, tail, other)
    });
    let Some(func) = func else { return };
    let call = match &kernel.thunks {
        Some(Some(thunks)) if !tail && func != 0 => thunks.translate(module, func),
        _ => func,
    };
    if let Some(bytes) = generated(kernel, at, condition, tail, Callee { func, call }) {
        let bytes = bytes.get(..len).unwrap_or_default();
        module.write(at, bytes, Step::StaticCall, func);
    } else {
        module.record.not_known("x86_return_thunk");
    }
}

/// `__static_call_transform`: the code of a site; of six bytes if it jumps on a condition, else of five.
fn generated(kernel: &Kernel, at: u64, condition: Option<u8>, tail: bool, callee: Callee) -> Option<[u8; 6]> {
    let long = |[a, b, c, d, e]: [u8; 5]| [a, b, c, d, e, 0];
    Some(match (tail, condition, callee.func) {
        (true, Some(condition), func) => {
            let target = if func == 0 { kernel.conditional_return? } else { func };
            let [a, b, c, d, e] = text_gen_insn(condition, at.wrapping_add(1), target);
            [0x0f, a, b, c, d, e]
        }
        (true, None, 0) => long(kernel.returns?.bytes_at(at)),
        (true, None, func) => long(text_gen_insn(JMP32, at, func)),
        (false, _, 0) => long(kernel.nops?.five()),
        // Compared after the translation: with call depth tracking it is called.
        (false, ..) if Some(callee.call) == kernel.return0 => long(XOR5RAX),
        (false, ..) if Some(callee.call) == kernel.warn_trap => long(WARNINSN),
        (false, ..) => long(text_gen_insn(CALL, at, callee.call)),
    })
}

/// The trampolines of the module's own keys (`__SCT__NAME` of `__SCK__NAME`), as `__static_call_update` leaves them.
pub fn trampolines(module: &mut Finalizer<'_, '_>) {
    if !module.has(Change::StaticCalls) {
        return;
    }
    let file = module.info.file;
    let mut keys = BTreeMap::new();
    let mut found = Vec::new();
    for (symbol, value) in file.symbols().iter().zip(&module.values).skip(1) {
        let name = file.symbol_name(symbol);
        if let Some(of) = name.strip_prefix(b"__SCK__") {
            keys.insert(of, *value);
        } else if let Some(of) = name.strip_prefix(b"__SCT__") {
            found.push((of, *value));
        }
    }
    let inside = |at: u64| module.within_module(at) && !module.within_module_init(at);
    let pairs = found.into_iter().filter_map(|(of, at)| Some((at, *keys.get(of)?)));
    let pairs: Vec<(u64, u64)> =
        pairs.filter(|(at, key)| inside(*at) && module.within_module(*key)).collect();
    if pairs.is_empty() {
        return;
    }
    let kernel = Kernel::of(module);
    for (at, key) in pairs {
        let (Some(func), Some(now)) = (module.u64(key), module.bytes::<5>(at)) else { continue };
        let made = generated(&kernel, at, None, true, Callee { func, call: func });
        let Some(made) = made.and_then(|bytes| bytes.first_chunk::<5>().copied()) else { continue };
        // Compiled for no function, it returns, with other bytes behind that.
        if func == 0 && now != made && now.first() != Some(&JMP32) {
            module.choice(at, [made.to_vec()], Step::StaticCall, 0);
        } else {
            module.write(at, &made, Step::StaticCall, func);
        }
    }
}

/// What the site may hold: nothing, and the function that is known.
fn may_hold(
    module: &Finalizer<'_, '_>,
    kernel: &Kernel,
    at: u64,
    condition: Option<u8>,
    tail: bool,
    func: Option<u64>,
) -> Vec<Vec<u8>> {
    if tail && condition.is_none() {
        let jumps = func.map(|func| text_gen_insn(JMP32, at, func).to_vec());
        return jumps.into_iter().chain(returns::forms(module, at)).collect();
    }
    let len = if condition.is_some() { 6 } else { 5 };
    let functions = [Some(0), kernel.return0.filter(|_| !tail), func];
    let made = functions.into_iter().flatten().filter_map(|func| {
        let bytes = generated(kernel, at, condition, tail, Callee { func, call: func })?;
        bytes.get(..len).map(<[u8]>::to_vec)
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_ffff_c020_1000;
    const FUNC: u64 = 0xffff_ffff_8100_0000;
    const RETURN0: u64 = 0xffff_ffff_8100_1000;
    const WARN_TRAP: u64 = 0xffff_ffff_8100_2000;
    const THUNK: u64 = 0xffff_ffff_8200_0000;

    fn kernel(returns: Returns) -> Kernel {
        Kernel {
            nops: Some(Nops::fixed(elf_layout::Changes::of(elf_layout::KernelVersion::new(6, 12, 0)))),
            returns: Some(returns),
            thunks: Some(None),
            return0: Some(RETURN0),
            warn_trap: Some(WARN_TRAP),
            conditional_return: Some(THUNK),
        }
    }

    #[test]
    fn fin_61_forms() {
        let plain = kernel(Returns::Plain);
        let long = |bytes: [u8; 5]| [&bytes[..], &[0]].concat();
        type Case = (Option<u8>, bool, u64, Vec<u8>);
        let cases: [Case; 9] = [
            (None, false, FUNC, long(text_gen_insn(CALL, AT, FUNC))),
            (None, false, 0, long(NOP5)),
            (None, false, RETURN0, long(XOR5RAX)),
            (None, false, WARN_TRAP, long(WARNINSN)),
            (None, true, WARN_TRAP, long(text_gen_insn(JMP32, AT, WARN_TRAP))),
            (None, true, FUNC, long(text_gen_insn(JMP32, AT, FUNC))),
            (None, true, 0, long([0xc3, 0xcc, 0xcc, 0xcc, 0xcc])),
            (Some(0x84), true, FUNC, [&[0x0f][..], &text_gen_insn(0x84, AT + 1, FUNC)].concat()),
            (Some(0x85), true, 0, [&[0x0f][..], &text_gen_insn(0x85, AT + 1, THUNK)].concat()),
        ];
        for (condition, tail, func, want) in cases {
            let got = generated(&plain, AT, condition, tail, Callee { func, call: func }).unwrap();
            assert_eq!(got[..], want[..], "FIN-61: tail {tail} {condition:?} {func:#x}");
        }
        let thunk = kernel(Returns::Thunk { thunk: THUNK, its: false });
        let null = Callee { func: 0, call: 0 };
        assert_eq!(
            generated(&thunk, AT, None, true, null).unwrap()[..5],
            text_gen_insn(JMP32, AT, THUNK),
            "FIN-61: nothing, with a return thunk"
        );
        let counted = Callee { func: RETURN0, call: RETURN0 - 10 };
        assert_eq!(
            generated(&plain, AT, None, false, counted).unwrap()[..5],
            text_gen_insn(CALL, AT, RETURN0 - 10),
            "FIN-61: with call depth tracking even __static_call_return0 is called"
        );
        let older = Kernel { warn_trap: None, ..kernel(Returns::Plain) };
        let callee = Callee { func: WARN_TRAP, call: WARN_TRAP };
        assert_eq!(
            generated(&older, AT, None, false, callee).unwrap()[..5],
            text_gen_insn(CALL, AT, WARN_TRAP),
            "FIN-61: a kernel without __WARN_trap calls whatever a key names"
        );
    }

    #[test]
    fn fin_60_sorted_by_key_without_flags() {
        let site = |address, key| Site { address, key, known: true };
        let mut sites = Sites(alloc::vec![site(1, 0x103), site(2, 0x21), site(3, 0x22), site(4, 0x20)]);
        sort(&mut sites, elf_layout::Changes::of(elf_layout::KernelVersion::new(6, 12, 0)));
        assert_eq!(sites.0[3], site(1, 0x103), "FIN-61");
        assert!(sites.0[..3].iter().all(|s| s.key & !FLAGS == 0x20), "FIN-61: flags do not order");
    }
}
