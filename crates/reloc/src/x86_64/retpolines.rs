//! `apply_retpolines`: indirect branches through thunks become direct again where the CPU does not need the
//! thunk, or go to other thunks (FIN-70, FIN-71).

use alloc::vec::Vec;

use elf_layout::{Change, Finding, Severity};

use super::X86_64;
use super::cfi_mode::{Cfi, Mode as CfiMode};
use super::cpu::Feature;
use super::insn::{Insn, text_gen_insn};
use super::nops::Nops;
use super::text::{CALL, ENTRY, INT3, JMP32};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// The CS segment override, which does nothing.
const CS: u8 = 0x2e;
/// RETPOLINE_THUNK_SIZE
const THUNK: i64 = 32;

/// How this system branches indirectly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    /// Through the thunks that are compiled in: RETPOLINE without RETPOLINE_LFENCE.
    thunks: bool,
    /// LFENCE before the branch.
    lfence: bool,
    /// With call depth tracking: its two arrays of thunks, for calls and for jumps.
    tracking: Option<(u64, u64)>,
    /// With ITS: the array of thunks for branches in the lower half of a cache line.
    its: Option<u64>,
}

impl Mode {
    fn of(module: &mut Finalizer<'_, '_>) -> Option<Mode> {
        let retpoline = module.cpu_feature(Feature::Retpoline)?;
        let lfence = module.cpu_feature(Feature::RetpolineLfence)?;
        let thunks = retpoline && !lfence;
        let mut mode = Mode { thunks, lfence, tracking: None, its: None };
        if thunks && module.cpu_feature(Feature::CallDepth)? {
            let calls = module.kernel_symbol("__x86_indirect_call_thunk_array")?;
            mode.tracking = Some((calls, module.kernel_symbol("__x86_indirect_jump_thunk_array")?));
        }
        if !thunks && module.cpu_feature(Feature::IndirectThunkIts)? {
            mode.its = Some(module.kernel_symbol("__x86_indirect_its_thunk_array")?);
        }
        Some(mode)
    }
}

/// `apply_retpolines` for the module's list.
pub fn apply_retpolines(module: &mut Finalizer<'_, '_>, cfi: &Cfi) {
    let Some(table) = module.list_of_instructions(".retpoline_sites") else { return };
    let Some(array) = module.kernel_symbol("__x86_indirect_thunk_array") else { return };
    let mode = Mode::of(module);
    let Some(nops) = Nops::of(module) else { return };
    let forms = (nops, module.has(Change::RetpolinePrefixes));
    let tracking = tracking_arrays(module);
    let mut warned = false;
    for entry in table.records_begun(ENTRY) {
        let Some(address) = module.relative(entry) else { continue };
        if !module.touches(&X86_64, address, 1, "an entry of .retpoline_sites") {
            return;
        }
        let insn = module.insn(address);
        // Since v6.15 what is left of a caller that checks the hash itself begins with Jcc.
        let jcc = insn.is_some_and(|insn| matches!(insn.opcode[0], 0x70..=0x7f));
        if cfi.finished.contains(&address)
            || jcc && cfi.mode == Some(CfiMode::FineIbt) && module.has(Change::FineIbtChecked)
        {
            continue;
        }
        let site = insn.and_then(|insn| Some((insn, register(&insn, address, array)?)));
        let Some((insn, register)) = site else {
            if !core::mem::replace(&mut warned, true) {
                let why = "an entry of .retpoline_sites is no branch to a thunk: the kernel warns once and leaves the code";
                module.said.push(Finding::note("FIN-70", Severity::Warning, why));
            }
            continue;
        };
        if register == 4 {
            let why = "an entry of .retpoline_sites branches through rsp: the kernel crashes (BUG)";
            module.said.refuse(Finding::note("FIN-70", Severity::Oops, why));
            return;
        }
        let target = insn.target(address);
        module.may_be(address, insn.length, Step::Retpoline, target, |_| {
            let bytes = |mode| patch_retpoline(address, &insn, register, mode, forms);
            let plain = Mode { thunks: false, lfence: false, tracking: None, its: None };
            let modes = [plain, Mode { lfence: true, ..plain }, Mode { thunks: true, tracking, ..plain }];
            modes.into_iter().filter_map(|mode| bytes(mode).map(|(bytes, _)| bytes)).collect()
        });
        let Some((bytes, its)) = mode.and_then(|mode| patch_retpoline(address, &insn, register, mode, forms))
        else {
            continue;
        };
        module.write(address, &bytes, Step::Retpoline, target);
        if its {
            let distance = address.wrapping_add(insn.immediate.offset as u64);
            module.runtime(distance, 4, "distance to an ITS thunk of the module");
        }
    }
}

/// The arrays of call depth tracking, if the kernel has them.
fn tracking_arrays(module: &Finalizer<'_, '_>) -> Option<(u64, u64)> {
    let array = |name| module.kernel.symbol(name);
    array("__x86_indirect_call_thunk_array").zip(array("__x86_indirect_jump_thunk_array"))
}

/// The register whose thunk an instruction branches to, by its number.
fn register(insn: &Insn, address: u64, array: u64) -> Option<u8> {
    if !insn.is_jcc32() && !matches!(insn.opcode[0], CALL | JMP32) {
        return None;
    }
    let distance = insn.target(address).wrapping_sub(array).cast_signed();
    let number = distance.checked_div(THUNK)?;
    (0..16).contains(&number).then_some(number as u8)
}

/// `patch_retpoline`: the site's new bytes, and whether they branch to an ITS thunk, whose address is not
/// predicted; `None` if it is left alone.
fn patch_retpoline(
    address: u64,
    insn: &Insn,
    register: u8,
    mode: Mode,
    (nops, prefixes): (Nops, bool),
) -> Option<(Vec<u8>, bool)> {
    let thunk_of = |array: u64| array.wrapping_add(u64::from(register).wrapping_mul(THUNK.cast_unsigned()));
    if mode.thunks {
        let (calls, jumps) = mode.tracking?;
        return Some((emit_trampoline(address, insn, thunk_of(calls), thunk_of(jumps))?, false));
    }
    let mut bytes = Vec::with_capacity(16);
    let mut jump = insn.opcode[0] == JMP32;
    if insn.is_jcc32() {
        // The opposite condition jumps over what follows.
        bytes.extend([0x70 | (insn.opcode[1] & 0xf ^ 1), insn.length.checked_sub(2)? as u8]);
        jump = true;
    }
    if mode.lfence {
        bytes.extend([0x0f, 0xae, 0xe8]);
    }
    if let Some(array) = mode.its {
        let (from, high) = (address.wrapping_add(bytes.len() as u64), u64::from(register / 8));
        // Its last byte in the lower half of a cache line?
        if from.wrapping_add(1).wrapping_add(high) & 0x20 == 0 {
            return Some((emit_trampoline(address, insn, thunk_of(array), thunk_of(array))?, true));
        }
    }
    emit_indirect(&mut bytes, jump, register, insn.length, prefixes);
    // What is longer than the site is not written.
    if bytes.len() > insn.length {
        return None;
    }
    bytes.resize(insn.length, 0x90);
    nops.optimize(&mut bytes);
    Some((bytes, false))
}

/// `emit_indirect`: a branch through a register behind what there is of a site of `length` bytes.
pub fn emit_indirect(bytes: &mut Vec<u8>, jump: bool, register: u8, length: usize, prefixes: bool) {
    /// More prefixes than this are slower to decode than a nop.
    const MOST: usize = 3;
    let branch: &[u8] = if register >= 8 { &[0x41, 0xff] } else { &[0xff] };
    let excess = length.saturating_sub(bytes.len()).saturating_sub(branch.len()).saturating_sub(1);
    // Since v6.18 (4a1e02b15ac1) prefixes fill the site of a call.
    if prefixes && !jump && excess <= MOST {
        bytes.resize(bytes.len().saturating_add(excess), CS);
    }
    bytes.extend_from_slice(branch);
    bytes.push(if jump { 0xe0 } else { 0xd0 } | register & 7);
    // And INT3 all that is left of a jump's, before that one byte.
    let stops = if prefixes { excess } else { excess.min(1) };
    if jump {
        bytes.resize(bytes.len().saturating_add(stops), INT3);
    }
}

/// `__emit_trampoline`: the same branch to another thunk.
fn emit_trampoline(address: u64, insn: &Insn, call: u64, jump: u64) -> Option<Vec<u8>> {
    let prefix: &[u8] = if insn.is_jcc32() {
        &[0x0f]
    } else if insn.length == 6 {
        &[0x2e]
    } else {
        &[]
    };
    let op = if insn.is_jcc32() { insn.opcode[1] } else { insn.opcode[0] };
    let from = address.wrapping_add(prefix.len() as u64);
    let branch = text_gen_insn(op, from, if op == CALL { call } else { jump });
    let bytes = [prefix, &branch].concat();
    (bytes.len() == insn.length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::insn::decode;
    use elf_layout::{Changes, KernelVersion};

    use super::*;

    const AT: u64 = 0xffff_ffff_c020_1000;
    const ARRAY: u64 = 0xffff_ffff_8200_0000;
    const PLAIN: Mode = Mode { thunks: false, lfence: false, tracking: None, its: None };

    /// A branch of `op` to the thunk of `register` at `address`.
    fn site(prefix: &[u8], op: u8, register: u8, address: u64) -> Insn {
        let thunk = ARRAY + 32 * u64::from(register);
        let branch = text_gen_insn(op, address + prefix.len() as u64, thunk);
        decode(&[prefix, &branch].concat()).unwrap()
    }

    #[test]
    fn fin_70_registers() {
        for number in 0..16 {
            assert_eq!(register(&site(&[], CALL, number, AT), AT, ARRAY), Some(number), "FIN-70");
        }
        assert_eq!(register(&site(&[], CALL, 16, AT), AT, ARRAY), None, "FIN-70: behind the array");
        assert_eq!(register(&site(&[], 0xa9, 0, AT), AT, ARRAY), None, "FIN-70: no branch");
    }

    #[test]
    fn fin_70_bytes() {
        let of = |version| (Nops::fixed(Changes::of(version)), false);
        let (old, new) = (of(KernelVersion::new(6, 1, 0)), of(KernelVersion::new(6, 12, 0)));
        let lfence = Mode { lfence: true, ..PLAIN };
        type Case<'a> = (&'a [u8], u8, u8, Mode, Option<&'a [u8]>);
        let cases: &[Case<'_>] = &[
            (&[], CALL, 0, PLAIN, Some(&[0xff, 0xd0, 0x0f, 0x1f, 0x00])),
            (&[], CALL, 11, PLAIN, Some(&[0x41, 0xff, 0xd3, 0x66, 0x90])),
            (&[0x2e], CALL, 0, PLAIN, Some(&[0xff, 0xd0, 0x0f, 0x1f, 0x40, 0x00])),
            (&[], JMP32, 1, PLAIN, Some(&[0xff, 0xe1, 0xcc, 0x66, 0x90])),
            (&[], JMP32, 8, PLAIN, Some(&[0x41, 0xff, 0xe0, 0xcc, 0x90])),
            (&[0x0f], 0x84, 11, PLAIN, Some(&[0x75, 0x04, 0x41, 0xff, 0xe3, 0xcc])),
            (&[], CALL, 3, lfence, Some(&[0x0f, 0xae, 0xe8, 0xff, 0xd3])),
            (&[], CALL, 9, lfence, None),
            (&[0x2e], CALL, 9, lfence, Some(&[0x0f, 0xae, 0xe8, 0x41, 0xff, 0xd1])),
            (&[0x0f], 0x84, 11, lfence, None),
            (&[], CALL, 3, Mode { thunks: true, ..PLAIN }, None),
        ];
        for (prefix, op, register, mode, want) in cases {
            for nops in [old, new] {
                let insn = site(prefix, *op, *register, AT);
                let got = patch_retpoline(AT, &insn, *register, *mode, nops).map(|(bytes, _)| bytes);
                assert_eq!(got.as_deref(), *want, "FIN-70: {prefix:02x?} {op:#x} r{register} {mode:?}");
            }
        }
    }

    #[test]
    fn fin_70_prefixes_since_6_18() {
        let forms = (Nops::fixed(Changes::of(KernelVersion::new(6, 18, 0))), true);
        let lfence = Mode { lfence: true, ..PLAIN };
        type Case<'a> = (&'a [u8], u8, u8, Mode, Option<&'a [u8]>);
        let cases: &[Case<'_>] = &[
            (&[], CALL, 0, PLAIN, Some(&[0x2e, 0x2e, 0x2e, 0xff, 0xd0])),
            (&[], CALL, 11, PLAIN, Some(&[0x2e, 0x2e, 0x41, 0xff, 0xd3])),
            (&[0x2e], CALL, 11, PLAIN, Some(&[0x2e, 0x2e, 0x2e, 0x41, 0xff, 0xd3])),
            (&[0x2e], CALL, 0, PLAIN, Some(&[0xff, 0xd0, 0x0f, 0x1f, 0x40, 0x00])),
            (&[], JMP32, 1, PLAIN, Some(&[0xff, 0xe1, 0xcc, 0xcc, 0xcc])),
            (&[0x2e], JMP32, 8, PLAIN, Some(&[0x41, 0xff, 0xe0, 0xcc, 0xcc, 0xcc])),
            (&[0x0f], 0x84, 11, PLAIN, Some(&[0x75, 0x04, 0x41, 0xff, 0xe3, 0xcc])),
            (&[], CALL, 3, lfence, Some(&[0x0f, 0xae, 0xe8, 0xff, 0xd3])),
            (&[], CALL, 9, lfence, None),
        ];
        for (prefix, op, register, mode, want) in cases {
            let insn = site(prefix, *op, *register, AT);
            let got = patch_retpoline(AT, &insn, *register, *mode, forms).map(|(bytes, _)| bytes);
            assert_eq!(got.as_deref(), *want, "FIN-70: {prefix:02x?} {op:#x} r{register} {mode:?}");
        }
    }

    #[test]
    fn fin_71_other_thunks() {
        let nops = (Nops::fixed(Changes::of(KernelVersion::new(6, 12, 0))), false);
        let (calls, jumps, its) = (ARRAY + 0x1000, ARRAY + 0x2000, ARRAY + 0x3000);
        let tracking = Mode { thunks: true, tracking: Some((calls, jumps)), ..PLAIN };
        let tracked =
            |prefix: &[u8], op| patch_retpoline(AT, &site(prefix, op, 2, AT), 2, tracking, nops).unwrap();
        assert_eq!(tracked(&[], CALL), (text_gen_insn(CALL, AT, calls + 64).to_vec(), false), "FIN-71");
        assert_eq!(tracked(&[], JMP32), (text_gen_insn(JMP32, AT, jumps + 64).to_vec(), false));
        let jcc = [&[0x0f][..], &text_gen_insn(0x85, AT + 1, jumps + 64)].concat();
        assert_eq!(tracked(&[0x0f], 0x85).0, jcc, "FIN-71: Jcc keeps its condition");
        // Only where the branch's last byte is in the lower half of a cache line.
        let with_its = Mode { its: Some(its), ..PLAIN };
        for (offset, register, thunk) in
            [(0, 0, true), (30, 0, true), (31, 0, false), (30, 8, false), (62, 0, false), (63, 0, true)]
        {
            let at = AT + offset;
            let insn = site(&[], CALL, register, at);
            let (bytes, is_its) = patch_retpoline(at, &insn, register, with_its, nops).unwrap();
            assert_eq!(is_its, thunk, "FIN-71: at {offset:#x}");
            let want = text_gen_insn(CALL, at, its + 32 * u64::from(register)).to_vec();
            assert_eq!(bytes == want, thunk, "FIN-71: at {offset:#x}");
        }
    }
}
