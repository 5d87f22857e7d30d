//! `apply_alternatives_module`: code for the CPUs that the system has (FIN-27, FIN-31, FIN-32, FIN-36).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::{Aarch64, insn};
use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::{Change, Errno, Finding, Findings, Severity, needs};

use crate::finalizer::Finalizer;
use crate::record::Step;

/// Bytes of `struct alt_instr`, in every version (FIN-27).
const ENTRY: u64 = 12;
/// ARM64_CB_BIT: the alternative is a function of the kernel that writes it.
const CALLBACK: u16 = 1 << 15;
/// ARM64_ALWAYS_BOOT and ARM64_ALWAYS_SYSTEM are the first of all capabilities, where there are callbacks
/// that depend on one.
const ALWAYS: u16 = 2;
/// No kernel has so many capabilities (ARM64_NCAPS).
const CAPABILITIES_MAX: u16 = 512;
/// Bits behind the bitmap that are on the stack for sure: below it lie the frames of `load_module` and of the system call,
/// and the registers of the caller.
const ON_STACK: u16 = 512 * 8;
/// Bytes of an instruction.
const INSN: u64 = 4;

/// `struct alt_instr`, with absolute addresses.
#[derive(Clone, Copy, Debug)]
struct AltInstr {
    orig: u64,
    /// The replacement, or the callback.
    alt: u64,
    /// Number of the capability; `None`: applied to all.
    capability: Option<u16>,
    callback: bool,
    orig_len: u8,
    alt_len: u8,
}

/// What takes the place of a site.
enum Replacement {
    /// These instructions.
    Code(Vec<u8>),
    /// What a callback writes that is not known here.
    Callback,
    /// The kernel stops with a BUG.
    Bug(&'static str),
    /// Code outside of the module.
    Nowhere,
}

/// `apply_alternatives_module`: entry by entry in the order of the table. Later ones see what earlier ones did.
pub fn apply_alternatives_module(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_sites(".altinstructions", true) else { return };
    let patch_nops = alt_cb_patch_nops(module);
    let left_out = module.left_out(table.index);
    let mut unknown = BTreeSet::new();
    for at in table.records_begun(ENTRY) {
        let Some(alt) = alt_instr(module, at) else { continue };
        // FIN-35: since 6.1 none is had by number; what is read before that is checked may lie behind the stack.
        let unbounded = if has_cb_bit(module) { ON_STACK } else { CAPABILITIES_MAX };
        if alt.capability.is_some_and(|number| number >= unbounded) {
            let needs = format!(
                "what lies on the kernel's stack: an entry of .altinstructions is for capability {}, and the kernel looks for its bit behind those that it has",
                alt.capability.unwrap_or(0)
            );
            module.said.may_crash("FIN-35", needs);
        }
        let applied = match alt.capability {
            None => Some(true),
            Some(number) => cpus_have_cap(module, number),
        };
        let detail = u64::from(alt.capability.unwrap_or(0));
        let callback_is_known = left_out.binary_search(&at.wrapping_add(4)).is_err();
        match applied {
            Some(true) if !is_taken(module, &alt, callback_is_known, patch_nops) => return,
            None => {
                // What comes of it if the CPUs have the capability.
                let mut said = Findings::new();
                let mut with =
                    Finalizer { said: &mut said, module: module.module, record: module.record, ..*module };
                is_taken(&mut with, &alt, callback_is_known, patch_nops);
                if said.refused() || !said.open_rules().is_empty() {
                    module.said.unjudged(
                        "FIN-31",
                        format!("whether the CPUs have capability {detail} (--cpu-caps)"),
                    );
                }
            }
            _ => {}
        }
        match replacement(module, &alt, patch_nops) {
            Replacement::Code(code) => {
                if alt.capability.is_some() {
                    module.choice(alt.orig, [code.clone()], Step::Alternative, detail);
                }
                if applied == Some(true) {
                    module.write(alt.orig, &code, Step::Alternative, detail);
                }
            }
            Replacement::Callback
                if applied != Some(false) && module.record.has_room() && unknown.insert(alt.alt) =>
            {
                let name = module.name_of(alt.alt).unwrap_or_else(|| format!("at {:#x}", alt.alt));
                module.record.not_known(&format!("what the callback {name} makes of its sites"));
            }
            Replacement::Bug(_) if applied.is_none() => {
                module
                    .said
                    .unjudged("FIN-32", format!("whether the CPUs have capability {detail} (--cpu-caps)"));
            }
            Replacement::Bug(what) if applied == Some(true) => {
                let place = module.name_of(alt.orig).unwrap_or_else(|| format!("{:#x}", alt.orig));
                let why = format!("alternative for {place}: {what}; the kernel stops with a BUG");
                module.said.push(Finding::note("FIN-32", Severity::Oops, why));
                return;
            }
            _ => {}
        }
    }
}

/// What is looked at of an entry that is applied, before anything is written. False if the kernel goes no further.
fn is_taken(
    module: &mut Finalizer<'_, '_>,
    alt: &AltInstr,
    callback_is_known: bool,
    patch_nops: Option<u64>,
) -> bool {
    (!callback_is_known || can_be_called(module, alt, patch_nops)) && touches(module, alt)
}

/// FIN-36: a callback of a module has to be code of the kernel. False if the kernel refuses it, or crashes: what a module brings
/// cannot be executed yet.
fn can_be_called(module: &mut Finalizer<'_, '_>, alt: &AltInstr, patch_nops: Option<u64>) -> bool {
    if !alt.callback || alt.alt_len != 0 || Some(alt.alt) == patch_nops {
        return true;
    }
    let bound = |name| module.kernel.symbol(name);
    let of_kernel = match bound("_stext").zip(bound("_etext")) {
        Some((start, end)) => (start..end).contains(&alt.alt),
        None if module.place_of(alt.alt).is_some() => false,
        None => {
            module.said.unjudged("FIN-36", needs::SYMBOLS);
            return true;
        }
    };
    let called = module.name_of(alt.alt).unwrap_or_else(|| format!("{:#x}", alt.alt));
    if of_kernel {
        let needs =
            format!("what the kernel's code at {called}, a callback of .altinstructions, makes of its site");
        module.said.may_crash("FIN-36", needs);
        return true;
    }
    let why =
        format!("an entry of .altinstructions has the callback {called}, which is no code of the kernel");
    let finding = if module.has(Change::AltCallbackChecked) {
        let me = module.info.file.name_text();
        let prefix = if module.has(Change::ModulesLogPrefix) { "Modules: " } else { "" };
        Finding::error("FIN-36", Errno::ENOEXEC, why)
            .says(format!("{prefix}module {me}: error occurred when applying alternatives"))
    } else {
        Finding::note(
            "FIN-36",
            Severity::Oops,
            format!("{why}: the kernel crashes, as it cannot be executed yet"),
        )
    };
    module.said.refuse(finding);
    false
}

/// FIN-78: the code that an applied entry names. False if the kernel crashes there.
fn touches(module: &mut Finalizer<'_, '_>, alt: &AltInstr) -> bool {
    let len = alt.orig_len.into();
    (alt.callback
        || module.touches(&Aarch64, alt.alt, len, "the replacement of an entry of .altinstructions"))
        && module.touches(&Aarch64, alt.orig, len, "the code of an entry of .altinstructions")
}

/// `cpus_have_cap`; `None`, and a note, if it is not known.
fn cpus_have_cap(module: &mut Finalizer<'_, '_>, number: u16) -> Option<bool> {
    if number >= CAPABILITIES_MAX && has_cb_bit(module) {
        return Some(false);
    }
    let always = number < ALWAYS && has_cb_bit(module);
    let has = module.kernel.capability(number.into()).or(always.then_some(true));
    if has.is_none() {
        module.record.not_known(&format!("whether the CPUs have capability {number} of cpucaps"));
    }
    has
}

/// Since v6.1 (4c0bd995d73e) callbacks have a capability and a bit that tells them; before, they are entries
/// without a replacement, and always called.
fn has_cb_bit(module: &Finalizer<'_, '_>) -> bool {
    module.has(Change::AltCallbackBit)
}

fn alt_instr(module: &Finalizer<'_, '_>, at: u64) -> Option<AltInstr> {
    let orig = module.relative(at)?;
    let alt = module.relative(at.wrapping_add(4))?;
    let word = module.u16(at.wrapping_add(8))?;
    let [orig_len, alt_len] = module.u16(at.wrapping_add(10))?.to_le_bytes();
    let (capability, callback) = if has_cb_bit(module) {
        (Some(word & !CALLBACK), word & CALLBACK != 0)
    } else {
        (Some(word).filter(|_| alt_len != 0), alt_len == 0)
    };
    Some(AltInstr { orig, alt, capability, callback, orig_len, alt_len })
}

/// Address of the callback that writes nops, the only one that modules can import.
fn alt_cb_patch_nops(module: &Finalizer<'_, '_>) -> Option<u64> {
    let file = module.info.file;
    let mut symbols = file.symbols().iter().zip(&module.values).skip(1);
    let import = symbols.find(|(s, _)| s.shndx() == SHN_UNDEF && file.symbol_name(s) == b"alt_cb_patch_nops");
    import.map(|(_, value)| *value)
}

fn replacement(module: &Finalizer<'_, '_>, alt: &AltInstr, patch_nops: Option<u64>) -> Replacement {
    let count = u64::from(alt.orig_len) / INSN;
    match (alt.callback, alt.orig_len == alt.alt_len, alt.alt_len) {
        (true, _, 1..) => Replacement::Bug("a callback has no replacement of its own"),
        (true, ..) if Some(alt.alt) == patch_nops => {
            Replacement::Code((0..count).flat_map(|_| insn::NOP.to_le_bytes()).collect())
        }
        (true, ..) => Replacement::Callback,
        (false, false, _) => Replacement::Bug("site and replacement differ in length"),
        (false, true, _) => {
            let mut code = Vec::new();
            for offset in (0..count).map(|n| n.wrapping_mul(INSN)) {
                let from = alt.alt.wrapping_add(offset);
                let Some(insn) = module.u32(from) else { return Replacement::Nowhere };
                match get_alt_insn(alt, insn, from, alt.orig.wrapping_add(offset)) {
                    Some(insn) => code.extend(insn.to_le_bytes()),
                    None => return Replacement::Bug("it reads a literal relative to its place"),
                }
            }
            Replacement::Code(code)
        }
    }
}

/// `get_alt_insn`: the instruction at `from`, to do the same at `to`. `None` where that cannot be (FIN-32).
fn get_alt_insn(alt: &AltInstr, insn: u32, from: u64, to: u64) -> Option<u32> {
    if let Some(offset) = insn::get_branch_offset(insn) {
        let target = from.wrapping_add_signed(offset);
        // The end counts as inside.
        let inside = target.checked_sub(alt.alt).is_some_and(|at| at <= u64::from(alt.alt_len));
        let offset = target.wrapping_sub(to) as i32;
        return Some(if inside { insn } else { insn::set_branch_offset(insn, offset) });
    }
    if let Some(offset) = insn::adrp_get_offset(insn) {
        let target = insn::page(from).wrapping_add_signed(offset);
        return Some(insn::adrp_set_offset(insn, target.wrapping_sub(insn::page(to)) as i32));
    }
    (!insn::uses_literal(insn)).then_some(insn)
}
