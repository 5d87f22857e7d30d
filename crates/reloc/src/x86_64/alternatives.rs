//! `apply_alternatives`: code that is replaced where the CPU has a feature, or lacks it (FIN-20 to FIN-27).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use elf_layout::elf::{Rela, SHT_RELA};
use elf_layout::{Change, Finding, Severity};

use super::cpu::{self, ALWAYS};
use super::insn::{self, decode};
use super::nops::{self, Nops};
use super::text::{CALL, INT3, JMP32};
use elf_layout::Table;

use super::X86_64;
use crate::finalizer::Finalizer;
use crate::record::Step;

/// MAX_PATCH_LEN
const MAX_PATCH_LEN: u8 = 254;
/// NCAPINTS + NBUGINTS of 6.1 and 6.12, in bits; older kernels have fewer words, later ones more.
const FEATURES: u16 = 24 * 32;
/// ALT_FLAG_NOT in `flags`.
const FLAG_NOT: u16 = 1;
/// ALT_FLAG_DIRECT_CALL in `flags`.
const FLAG_DIRECT_CALL: u16 = 2;
/// ALTINSTR_FLAG_INV in `cpuid`.
const FLAG_INV: u16 = 1 << 15;
/// More entries of one site than this are not combined for [`crate::Record::choices`].
const COMBINED: usize = 6;

/// The form of `struct alt_instr` (FIN-27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Up to 5.12, 13 bytes: the length of the padding is the last one.
    Padded,
    /// From 5.13, 12 bytes: bit 15 of the feature inverts.
    Inverted,
    /// From 6.3, 14 bytes: flags have a field of their own.
    Flags,
}

impl Form {
    const fn size(self) -> u64 {
        match self {
            Form::Padded => 13,
            Form::Inverted => 12,
            Form::Flags => 14,
        }
    }

    /// From the kernel's own types; without them from the distance between records in the table's relocations, which a backport
    /// cannot change unseen; without any, by version.
    fn of(module: &Finalizer<'_, '_>, table: &Table) -> Form {
        let of_kernel = module.kernel.struct_size("alt_instr");
        // A table of one record is as large as it.
        let measured = match of_kernel.or_else(|| record_size(module, table.index)).unwrap_or(table.size) {
            13 => Some(Form::Padded),
            12 => Some(Form::Inverted),
            14 => Some(Form::Flags),
            _ => None,
        };
        measured.unwrap_or(if module.has(Change::AltInstrFlags) {
            Form::Flags
        } else if module.has(Change::AltInstrWithoutPadlen) {
            Form::Inverted
        } else {
            Form::Padded
        })
    }
}

/// FIN-27: relocations of a record table come in pairs four bytes apart; the distance of the first two pairs.
fn record_size(module: &Finalizer<'_, '_>, section: usize) -> Option<u64> {
    let rela = |s: &elf_layout::elf::Shdr| s.sh_type == SHT_RELA && s.sh_info as usize == section;
    let index = module.info.sechdrs.iter().position(rela)?;
    let mut offsets = module.info.file.relocations(index).iter().map(|r| Rela::from(r).r_offset);
    let first = offsets.next()?;
    let second_pair = offsets.find(|at| first.checked_add(4) != Some(*at))?;
    second_pair.checked_sub(first)
}

/// One entry.
#[derive(Clone, Copy, Debug)]
struct AltInstr {
    /// Where it stands.
    at: u64,
    /// Address of the original code.
    instr: u64,
    /// Address of the replacement.
    replacement: u64,
    /// The feature.
    cpuid: u16,
    /// Replaced where the feature is missing.
    not: bool,
    /// The replacement calls what the original calls through pv_ops.
    direct_call: bool,
    /// Bytes of the original.
    instrlen: u8,
    /// Bytes of the replacement.
    replacementlen: u8,
    /// Bytes of padding at the original's end, in the first form.
    padlen: u8,
}

impl AltInstr {
    fn read(module: &Finalizer<'_, '_>, form: Form, at: u64) -> Option<Self> {
        let bytes = module.read(at, form.size())?;
        let (instr, replacement) = (module.relative(at)?, module.relative(at.wrapping_add(4))?);
        let [cpuid_low, cpuid_high, rest @ ..] = bytes.get(8..)? else { return None };
        let cpuid = u16::from_le_bytes([*cpuid_low, *cpuid_high]);
        let mut entry = AltInstr {
            at,
            instr,
            replacement,
            cpuid,
            not: false,
            direct_call: false,
            instrlen: 0,
            replacementlen: 0,
            padlen: 0,
        };
        match (form, rest) {
            (Form::Padded, [len, repl, pad]) => {
                (entry.instrlen, entry.replacementlen, entry.padlen) = (*len, *repl, *pad);
            }
            (Form::Inverted, [len, repl]) => {
                (entry.instrlen, entry.replacementlen) = (*len, *repl);
                entry.cpuid = cpuid & !FLAG_INV;
                entry.not = cpuid & FLAG_INV != 0;
            }
            (Form::Flags, [low, high, len, repl]) => {
                let flags = u16::from_le_bytes([*low, *high]);
                (entry.instrlen, entry.replacementlen) = (*len, *repl);
                entry.not = flags & FLAG_NOT != 0;
                entry.direct_call = flags & FLAG_DIRECT_CALL != 0;
            }
            _ => return None,
        }
        Some(entry)
    }

    /// Where its length stands.
    fn instrlen_at(&self, form: Form) -> u64 {
        self.at.wrapping_add(match form {
            Form::Padded | Form::Inverted => 10,
            Form::Flags => 12,
        })
    }

    fn feature(&self) -> alloc::string::String {
        format!("CPU feature {}*32+{}", self.cpuid / 32, self.cpuid % 32)
    }
}

/// The entries of a table with the lengths that count (FIN-20).
struct Entries {
    form: Form,
    /// The lengths of originals by record, where another entry of the same place has a longer one.
    longest: BTreeMap<u64, u8>,
}

impl Entries {
    fn read(&self, module: &Finalizer<'_, '_>, at: u64) -> Option<AltInstr> {
        let mut entry = AltInstr::read(module, self.form, at)?;
        entry.instrlen = self.longest.get(&at).copied().unwrap_or(entry.instrlen);
        Some(entry)
    }
}

/// What is not known of a site as long as no later entry settles it.
struct Pending {
    instr: u64,
    what: alloc::string::String,
}

/// `apply_alternatives` for the module's table.
pub fn apply_alternatives(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_sites(".altinstructions", false) else { return };
    let form = Form::of(module, &table);
    let entries = equalise_lengths(module, &table, form);
    let nops = Nops::of(module);
    let mut pending: Option<Pending> = None;
    let mut site_of_choices = None;
    for at in table.records_begun(form.size()) {
        let Some(entry) = entries.read(module, at) else { continue };
        if entry.instrlen > MAX_PATCH_LEN || entry.cpuid >= FEATURES && !module.has(Change::MoreFeatureWords)
        {
            bug(module, &entry);
            return;
        }
        if pending.as_ref().is_some_and(|p| p.instr != entry.instr) {
            pending.take().into_iter().for_each(|p| module.record.not_known(&p.what));
        }
        if module.choices && site_of_choices != Some(entry.instr) {
            site_of_choices = Some(entry.instr);
            note_choices(module, &entries, nops, &table, &entry);
        }
        let has = cpu::boot_cpu_has(module.kernel, module.changes(), entry.cpuid);
        if !touches(module, &entry, has) {
            return;
        }
        let made = match has {
            None => Err(entry.feature()),
            Some(has) if has == entry.not => leave(module, form, nops, &entry),
            Some(_) => replace(module, form, nops, &entry, None),
        };
        match made {
            Ok(Some(bytes)) => {
                module.write(entry.instr, &bytes, Step::Alternative, u64::from(entry.cpuid));
                if has.is_some_and(|has| has != entry.not) {
                    pending = None;
                }
            }
            // The memory is there, so it is the form.
            Ok(None) if has.is_some() => {
                unrecognized(module, &entry);
                return;
            }
            Ok(None) => {}
            Err(what) => pending = Some(Pending { instr: entry.instr, what }),
        }
    }
    pending.into_iter().for_each(|p| module.record.not_known(&p.what));
}

/// Where the table's entries have their original code.
pub fn sites(module: &Finalizer<'_, '_>) -> Vec<u64> {
    let table = module.last_section(".altinstructions");
    let form = table.map(|table| Form::of(module, &table));
    let entries = table.zip(form).into_iter().flat_map(|(table, form)| table.records_begun(form.size()));
    entries.filter_map(|at| module.relative(at)).collect()
}

/// FIN-20: entries of one site have the longest one's length, since v6.11 (d2a793dae4fe). It was written into their
/// records until v7.0 (a4233c21e773, FIN-26).
fn equalise_lengths(module: &mut Finalizer<'_, '_>, table: &Table, form: Form) -> Entries {
    let mut entries = Entries { form, longest: BTreeMap::new() };
    if !module.has(Change::AltLengthsEqualised) {
        return entries;
    }
    // The kernel compares each entry with all that follow it. Two passes over a run give the same: forth,
    // then back.
    let mut last: Option<(u64, u8)> = None;
    let mut pass = |entries: &mut Entries, at: u64| {
        let Some(entry) = entries.read(module, at) else { return };
        let longest = last.filter(|(instr, _)| *instr == entry.instr).map_or(0, |(_, len)| len);
        let len = entry.instrlen.max(longest);
        if len != entry.instrlen {
            entries.longest.insert(at, len);
        }
        last = Some((entry.instr, len));
    };
    for at in table.records_begun(form.size()) {
        pass(&mut entries, at);
    }
    let (first, count) = (table.address, table.size.checked_div(form.size()).unwrap_or(0));
    for n in (0..count).rev() {
        pass(&mut entries, first.wrapping_add(n.wrapping_mul(form.size())));
    }
    if !module.has(Change::AltPlaceWrittenOnce) {
        for (at, len) in &entries.longest {
            let Some(entry) = AltInstr::read(module, form, *at) else { continue };
            module.write(entry.instrlen_at(form), &[*len], Step::Alternative, u64::from(entry.cpuid));
        }
    }
    entries
}

/// Code of the module that an entry names: no byte of it is wherever it leads.
fn code_at<'m>(module: &'m Finalizer<'_, '_>, at: u64, len: u8) -> Option<&'m [u8]> {
    if len == 0 { Some(&[]) } else { module.read(at, len.into()) }
}

/// FIN-22: what an entry that is not applied makes of the code: its nops are made few.
fn leave(
    module: &Finalizer<'_, '_>,
    form: Form,
    nops: Option<Nops>,
    entry: &AltInstr,
) -> Result<Option<Vec<u8>>, alloc::string::String> {
    let nops = nops.ok_or(nops::NOT_KNOWN)?;
    let Some(code) = code_at(module, entry.instr, entry.instrlen) else { return Ok(None) };
    let mut code = code.to_vec();
    tidy(&mut code, form, entry.padlen, nops);
    Ok(Some(code))
}

/// `optimize_nops` of the form's time.
fn tidy(code: &mut [u8], form: Form, padlen: u8, nops: Nops) {
    if form != Form::Padded {
        nops.optimize(code);
        return;
    }
    let pad = usize::from(padlen);
    // Up to v5.12 the padding alone is looked at, and found by the first bytes of the site.
    if pad > 1 && code.iter().take(pad).all(|b| *b == 0x90) {
        let from = code.len().saturating_sub(pad);
        code.get_mut(from..).into_iter().for_each(|pad| nops.add_nops(pad));
    }
}

/// FIN-23: the code of an entry that is applied. `code` is what stands at the site, if not what the module has
/// there. `None` if the entry is broken, an error if what it needs is not known.
fn replace(
    module: &Finalizer<'_, '_>,
    form: Form,
    nops: Option<Nops>,
    entry: &AltInstr,
    code: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, alloc::string::String> {
    let nops = nops.ok_or(nops::NOT_KNOWN)?;
    let Some(replacement) = code_at(module, entry.replacement, entry.replacementlen) else {
        return Ok(None);
    };
    let mut buf = replacement.to_vec();
    if entry.direct_call {
        let Some(code) = code.or_else(|| module.read(entry.instr, 6)) else { return Ok(None) };
        match direct_call(module, entry, code, &buf)? {
            Some(call) => buf = call,
            None => return Ok(None),
        }
    }
    let long = usize::from(entry.instrlen).max(buf.len());
    let moved = entry.replacement.wrapping_sub(entry.instr);
    if module.has(Change::AlternativesRelocated) {
        // Since v6.5 (270a69c4485d) all branches and RIP-relative operands move along.
        buf.resize(long, 0x90);
        apply_relocation(&mut buf, moved, u64::from(entry.replacementlen));
        nops.optimize(&mut buf);
        return Ok(Some(buf));
    }
    if let [CALL, a, b, c, d] = buf[..] {
        let distance = u32::from_le_bytes([a, b, c, d]).wrapping_add(moved as u32).to_le_bytes();
        buf.splice(1.., distance);
    } else if let [JMP32 | 0xeb, a, b, c, d] = buf[..] {
        buf = recompute_jump(i32::from_le_bytes([a, b, c, d]), moved, nops).to_vec();
    }
    let used = buf.len();
    buf.resize(long, 0x90);
    if form == Form::Padded {
        buf.get_mut(used..).into_iter().for_each(|pad| nops.add_nops(pad));
    } else {
        let site = usize::from(entry.instrlen);
        buf.get_mut(..site).into_iter().for_each(|site| nops.optimize(site));
    }
    Ok(Some(buf))
}

/// `recompute_jump` up to 6.4: a jump of two bytes if it reaches, with the old test for backward ones,
/// which none passes.
fn recompute_jump(distance: i32, moved: u64, nops: Nops) -> [u8; 5] {
    // From the start of the site to the target.
    let far = i64::from(distance).wrapping_add(5).wrapping_add(moved.cast_signed());
    let from_site = far as i32;
    let short = from_site.wrapping_sub(2);
    let reaches = if far >= 0 { short <= 127 } else { short & 0xff == short };
    if reaches {
        let mut jump = [0xeb, short as u8, 0, 0, 0];
        jump.get_mut(2..).into_iter().for_each(|rest| nops.add_nops(rest));
        return jump;
    }
    let [a, b, c, d] = from_site.wrapping_sub(5).to_le_bytes();
    [JMP32, a, b, c, d]
}

/// `__apply_relocation`: code that is moved by `moved` bytes down still branches to the same places.
pub fn apply_relocation(buf: &mut [u8], moved: u64, source_len: u64) {
    let mut at = 0usize;
    while let Some(insn) = buf.get(at..).and_then(decode) {
        let next = at.saturating_add(insn.length);
        // Inside of the block itself nothing changes; its end still belongs to it.
        let leaves = |value: i32| {
            let target = i64::try_from(next).unwrap_or(i64::MAX).wrapping_add(i64::from(value));
            target < 0 || target.cast_unsigned() > source_len
        };
        let branch = insn.is_jcc32() || matches!(insn.opcode[0], 0x70..=0x7f | 0xeb | JMP32 | CALL);
        if branch {
            if leaves(insn.immediate.value) {
                shift(buf, at, insn.immediate, moved);
            }
            // A long jump becomes a short one where that reaches.
            let short = insn.immediate.value.wrapping_add(moved as i32).wrapping_add(3);
            if insn.opcode[0] == JMP32
                && let Ok(short) = i8::try_from(short)
                && let Some([op, distance, rest @ ..]) = buf.get_mut(at..next)
            {
                (*op, *distance) = (0xeb, short.cast_unsigned());
                rest.fill(INT3);
            }
        }
        if insn.rip_relative && leaves(insn.displacement.value) {
            shift(buf, at, insn.displacement, moved);
        }
        at = next;
    }
}

/// Adds to a number inside of an instruction; one that does not fit is cut (the kernel: BUG).
fn shift(buf: &mut [u8], at: usize, field: insn::Field, by: u64) {
    let value = field.value.wrapping_add(by as i32).to_le_bytes();
    let from = at.saturating_add(field.offset);
    let bytes = buf.get_mut(from..from.saturating_add(field.size)).into_iter().flatten();
    for (to, from) in bytes.zip(value) {
        *to = from;
    }
}

/// `alt_replace_call` (FIN-25): the call of BUG_func becomes one of what the original calls through pv_ops.
/// Empty if that does nothing; `None` for another form of code (the kernel: BUG).
fn direct_call(
    module: &Finalizer<'_, '_>,
    entry: &AltInstr,
    code: &[u8],
    replacement: &[u8],
) -> Result<Option<Vec<u8>>, alloc::string::String> {
    let ([CALL, a, b, c, d], 6, [0xff, 0x15, w, x, y, z, ..]) = (replacement, entry.instrlen, code) else {
        return Ok(None);
    };
    let next = entry.instr.wrapping_add(6);
    let slot = next.wrapping_add_signed(i64::from(i32::from_le_bytes([*w, *x, *y, *z])));
    let target = if module.within_module(slot) { module.u64(slot) } else { module.kernel.pointer(slot) };
    let known = target.zip(module.kernel.symbol("BUG_func"));
    let (target, bug) = known.ok_or("pv_ops")?;
    if Some(target) == module.kernel.symbol("nop_func") {
        return Ok(Some(Vec::new()));
    }
    let target = if target == 0 { bug } else { target };
    let distance = u32::from_le_bytes([*a, *b, *c, *d]).wrapping_add(target.wrapping_sub(bug) as u32);
    let [a, b, c, d] = distance.to_le_bytes();
    Ok(Some(alloc::vec![CALL, a, b, c, d]))
}

/// All that the site of `first` may hold: each combination of features that its entries name.
fn note_choices(
    module: &mut Finalizer<'_, '_>,
    all: &Entries,
    nops: Option<Nops>,
    table: &Table,
    first: &AltInstr,
) {
    let Some(nops) = nops else { return };
    let form = all.form;
    let end = table.address.wrapping_add(table.size);
    let following = (first.at..end).step_by(usize::try_from(form.size()).unwrap_or(usize::MAX));
    let entries: Vec<AltInstr> = following
        .map_while(|at| all.read(module, at).filter(|e| e.instr == first.instr))
        .take(COMBINED)
        .collect();
    let mut features: Vec<u16> = entries.iter().map(|e| e.cpuid).filter(|f| *f != ALWAYS).collect();
    features.sort_unstable();
    features.dedup();
    let len = entries.iter().map(|e| e.instrlen).max().unwrap_or(0);
    module.may_be(first.instr, usize::from(len), Step::Alternative, u64::from(first.cpuid), |module| {
        let Some(start) = module.read(first.instr, u64::from(len)).map(<[u8]>::to_vec) else {
            return Vec::new();
        };
        let combinations = 0u32..1 << features.len();
        combinations
            .map(|set| combined(module, (form, nops), &entries, &features, set, start.clone()))
            .collect()
    });
}

/// The site after all `entries`, on a CPU with those of `features` that `set` has bits of.
fn combined(
    module: &Finalizer<'_, '_>,
    (form, nops): (Form, Nops),
    entries: &[AltInstr],
    features: &[u16],
    set: u32,
    mut code: Vec<u8>,
) -> Vec<u8> {
    for entry in entries {
        let number = features.iter().position(|f| *f == entry.cpuid);
        let has = number.is_none_or(|n| set >> n & 1 != 0);
        let site = usize::from(entry.instrlen);
        if has == entry.not {
            code.get_mut(..site).into_iter().for_each(|code| tidy(code, form, entry.padlen, nops));
        } else if let Ok(Some(bytes)) = replace(module, form, Some(nops), entry, Some(&code)) {
            for (to, from) in code.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
    code
}

/// FIN-78: the code that an entry names, its own and the replacement. False if the kernel crashes there. Code of the kernel
/// can be read but not written.
fn touches(module: &mut Finalizer<'_, '_>, entry: &AltInstr, has: Option<bool>) -> bool {
    let applied = has.map(|has| has != entry.not);
    let (instr, replacement) =
        ("the code of an entry of .altinstructions", "the replacement of an entry of .altinstructions");
    let both = entry.instrlen.max(entry.replacementlen);
    // What is written in any case, and what if it is applied.
    let (written, perhaps) = match applied {
        Some(true) => (both, both),
        Some(false) => (entry.instrlen, entry.instrlen),
        None => (entry.instrlen, both),
    };
    if applied == Some(true)
        && !module.touches(&X86_64, entry.replacement, entry.replacementlen.into(), replacement)
    {
        return false;
    }
    let lacks_replacement = code_at(module, entry.replacement, entry.replacementlen).is_none();
    let lacks_code = code_at(module, entry.instr, perhaps).is_none();
    let mut hangs_on_feature = |what: &str, at: u64| {
        let needs = format!("whether the CPU has {} (--cpu-caps): {what} leads to {at:#x}", entry.feature());
        module.said.may_crash("FIN-78", needs);
    };
    if applied.is_none() && lacks_replacement {
        hangs_on_feature(replacement, entry.replacement);
    }
    if perhaps > written && lacks_code {
        hangs_on_feature(instr, entry.instr);
    }
    if !module.touches(&X86_64, entry.instr, written.into(), instr) {
        return false;
    }
    let constant = module.kernel.symbol("_text").zip(module.kernel.symbol("__end_rodata"));
    if written != 0 && constant.is_some_and(|(start, end)| (start..end).contains(&entry.instr)) {
        let why = format!(
            "{instr} is the kernel's, at {:#x}: it cannot be written, the kernel crashes",
            entry.instr
        );
        module.said.refuse(Finding::note("FIN-78", Severity::Oops, why));
        return false;
    }
    true
}

/// FIN-21: an entry of a call through pv_ops that is none.
fn unrecognized(module: &mut Finalizer<'_, '_>, entry: &AltInstr) {
    let why = format!(
        "an alternative at {:#x} is to replace a call through pv_ops by a direct one, and one of them is no such call: the kernel crashes (BUG)",
        entry.instr
    );
    let line = if entry.replacementlen == 5 && module.read(entry.replacement, 1) == Some(&[CALL]) {
        "SMP alternatives: ALT_FLAG_DIRECT_CALL set for unrecognized indirect call"
    } else {
        "SMP alternatives: ALT_FLAG_DIRECT_CALL set for a non-call replacement instruction"
    };
    module.said.refuse(Finding::note("FIN-21", Severity::Oops, why).says(line));
}

/// FIN-21
fn bug(module: &mut Finalizer<'_, '_>, entry: &AltInstr) {
    let why = format!(
        "an alternative for {} replaces {} bytes: the kernel takes at most {MAX_PATCH_LEN} bytes and features below {FEATURES}, and crashes (BUG) on others",
        entry.feature(),
        entry.instrlen
    );
    module.said.refuse(Finding::note("FIN-21", Severity::Oops, why));
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use kernel::Member;

    use crate::testing::{CODE, RODATA, TestKernel, TestModule, address, put};

    /// An entry of 14 bytes to code that is nowhere, for a feature that is perhaps there.
    fn entry(at: u64, lens: [u8; 2]) -> Vec<u8> {
        let nowhere = 0xffff_ffff_c100_0000u64;
        let [instr, replacement] = [nowhere.wrapping_sub(at), nowhere.wrapping_sub(at + 4)];
        let mut raw = [(instr as u32).to_le_bytes(), (replacement as u32).to_le_bytes()].concat();
        raw.extend([1, 1, 1, 0]);
        raw.extend(lens);
        raw
    }

    #[test]
    fn fin_78_code_that_is_touched_with_a_feature_alone() {
        for (has, lens, crashes, open) in [
            (None, [0, 0], false, false),
            (None, [0, 5], false, true),
            (None, [5, 0], true, false),
            (Some(true), [0, 0], false, false),
            (Some(false), [0, 0], false, false),
            (Some(true), [0, 5], false, false),
            (Some(false), [0, 5], true, false),
        ] {
            // Of a feature in the ninth word; the entry is for a processor without it.
            let capabilities = has.into_iter().map(|has| (0x101, has)).collect();
            let kernel = TestKernel { capabilities, ..TestKernel::default() };
            let sections = [(".text", CODE, 64), (".altinstructions", RODATA, 14)];
            TestModule::x86("6.12.0", &sections).run(&kernel, |m| {
                let at = address(m, ".altinstructions");
                put(m, at, &entry(at, lens));
                super::apply_alternatives(m);
                assert_eq!(m.said.refused(), crashes, "FIN-78: {has:?} {lens:?}: {:?}", m.said);
                let open_now = !m.said.open_rules().is_empty();
                assert_eq!(open_now, open, "FIN-78: {has:?} {lens:?}: {:?}", m.said);
            });
        }
    }

    /// A table of 12 bytes is a whole record of 6.1, and the first part of one of 6.12.
    #[test]
    fn fin_27_the_kernel_knows_the_size_of_a_record() {
        for (size, crashes) in [(None, true), (Some(12), true), (Some(14), false)] {
            let mut kernel = TestKernel::default();
            kernel.types.extend(size.map(|size| ("alt_instr".into(), Member { offset: 0, size })));
            TestModule::x86("6.12.0", &[(".text", CODE, 64), (".altinstructions", RODATA, 12)]).run(
                &kernel,
                |m| {
                    let at = address(m, ".altinstructions");
                    // Its last two bytes are the lengths of a record of 12.
                    let mut bytes = entry(at, [0, 0]);
                    bytes[10..12].copy_from_slice(&[5, 5]);
                    put(m, at, &bytes[..12]);
                    super::apply_alternatives(m);
                    assert_eq!(m.said.refused(), crashes, "FIN-27: {size:?}: {:?}", m.said);
                },
            );
        }
    }
}
