//! `apply_paravirt`: indirect calls through pv_ops become direct (FIN-73). Since v6.8 (f7af6977621a) they are
//! alternatives.

use alloc::vec::Vec;

use elf_layout::{Change, Finding, Severity};

use super::X86_64;
use super::insn::text_gen_insn;
use super::nops::Nops;
use super::text::{CALL, JMP32};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// Bytes of `struct paravirt_patch_site`: u64 instr, u8 type, u8 len, and padding.
const SITE: u64 = 16;
/// MAX_PATCH_LEN
const MAX_PATCH_LEN: u8 = 254;

/// Members of `struct paravirt_patch_template`, which `pv_ops` is, by which operations are told apart before v5.13.
pub const OPERATIONS: &[&str] = &[
    "init.patch",
    "irq.restore_fl",
    "irq.save_fl",
    "irq.irq_enable",
    "irq.irq_disable",
    "mmu.read_cr2",
    "mmu.read_cr3",
    "mmu.write_cr3",
    "cpu.usergs_sysret64",
    "cpu.wbinvd",
    "cpu.iret",
    "lock.queued_spin_unlock",
    "lock.vcpu_is_preempted",
];

/// Code that `native_patch` has for operations, before v5.13: the member, the function that it must hold if not any will do.
const NATIVE: &[(&str, Option<&str>, &[u8])] = &[
    ("irq.restore_fl", None, &[0x57, 0x9d]),
    ("irq.save_fl", None, &[0x9c, 0x58]),
    ("irq.irq_enable", None, &[0xfb]),
    ("irq.irq_disable", None, &[0xfa]),
    ("mmu.read_cr2", None, &[0x0f, 0x20, 0xd0]),
    ("mmu.read_cr3", None, &[0x0f, 0x20, 0xd8]),
    ("mmu.write_cr3", None, &[0x0f, 0x22, 0xdf]),
    ("cpu.usergs_sysret64", None, &[0x0f, 0x01, 0xf8, 0x48, 0x0f, 0x07]),
    ("cpu.wbinvd", None, &[0x0f, 0x09]),
    ("lock.queued_spin_unlock", Some("__raw_callee_save___native_queued_spin_unlock"), &[0xc6, 0x07, 0x00]),
    ("lock.vcpu_is_preempted", Some("__raw_callee_save___native_vcpu_is_preempted"), &[0x31, 0xc0]),
];
/// `ud2`, in place of an operation that is not there, before v5.13.
const UD2: &[u8] = &[0x0f, 0x0b];
/// `mov %rdi, %rax`, in place of `_paravirt_ident_64`, before v5.13.
const MOV64: &[u8] = &[0x48, 0x89, 0xf8];

/// What takes the place of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// A call of that function.
    Call(u64),
    /// A jump to it.
    Jump(u64),
    /// These bytes.
    Bytes(&'static [u8]),
}

/// `Code` that is nothing at all.
const NOTHING: Code = Code::Bytes(&[]);

/// What is known of the kernel's operations.
struct Operations {
    pv_ops: Option<u64>,
    nop: Option<u64>,
    bug: Option<u64>,
    /// Before v5.13: code by the number of the operation; `None` if there is none of that kind.
    native: Vec<(u8, Option<u64>, &'static [u8])>,
    /// Before v5.13: numbers of operations that are jumped to.
    jumped: Vec<u8>,
    ident: Option<u64>,
    calls_only: bool,
}

impl Operations {
    /// `None` if the kernel patches in a way that is not known.
    fn of(module: &mut Finalizer<'_, '_>) -> Option<Self> {
        let calls_only = module.has(Change::ParavirtCallsOnly);
        let pv_ops = module.kernel_symbol("pv_ops");
        let mut ops = Operations {
            pv_ops,
            nop: module.kernel_symbol("_paravirt_nop"),
            bug: if calls_only { module.kernel_symbol("paravirt_BUG") } else { None },
            native: Vec::new(),
            jumped: Vec::new(),
            ident: module.kernel.symbol("_paravirt_ident_64"),
            calls_only,
        };
        if calls_only {
            return Some(ops);
        }
        let number = |path| {
            let offset = module.kernel.member("paravirt_patch_template", path)?.offset;
            u8::try_from(offset / 8).ok()
        };
        let symbol = |name| module.kernel.symbol(name);
        let patch = number("init.patch").and_then(|n| module.kernel.pointer(slot(pv_ops?, n)));
        if patch.is_some() && patch == symbol("native_patch") {
            for (path, function, code) in NATIVE {
                ops.native.extend(number(path).map(|n| (n, function.and_then(symbol), *code)));
            }
        } else if patch.is_none() || patch != symbol("paravirt_patch_default") {
            module.record.not_known("pv_ops.init.patch, which patches paravirt calls before 5.13");
            return None;
        }
        ops.jumped.extend(["cpu.iret", "cpu.usergs_sysret64"].into_iter().filter_map(number));
        Some(ops)
    }

    /// The function of an operation.
    fn function(&self, module: &Finalizer<'_, '_>, number: u8) -> Option<u64> {
        module.kernel.pointer(slot(self.pv_ops?, number))
    }

    /// What takes its place; `None` if that is not known.
    fn code(&self, number: u8, function: Option<u64>) -> Option<Code> {
        let native = self
            .native
            .iter()
            .find(|(of, wanted, _)| *of == number && (wanted.is_none() || *wanted == function));
        if let Some((.., code)) = native {
            return Some(Code::Bytes(code));
        }
        let (function, nop) = (function?, self.nop?);
        Some(if function == 0 && self.calls_only {
            Code::Call(self.bug?)
        } else if function == 0 {
            Code::Bytes(UD2)
        } else if function == nop {
            NOTHING
        } else if !self.calls_only && Some(function) == self.ident {
            Code::Bytes(MOV64)
        } else if self.jumped.contains(&number) {
            Code::Jump(function)
        } else {
            Code::Call(function)
        })
    }
}

/// Where an operation has its function.
fn slot(pv_ops: u64, number: u8) -> u64 {
    pv_ops.wrapping_add(u64::from(number).wrapping_mul(8))
}

/// `apply_paravirt` for the module's list.
pub fn apply_paravirt(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_sites(".parainstructions", false) else { return };
    let (Some(ops), Some(nops)) = (Operations::of(module), Nops::of(module)) else { return };
    for at in table.records_begun(SITE) {
        let site = module.u64(at).zip(module.bytes::<2>(at.wrapping_add(8)));
        let Some((instr, [number, len])) = site else { continue };
        let room = usize::from(len);
        let function = ops.function(module, number);
        let code = ops.code(number, function);
        // What is longer than the site, and a call where there is no room for one: BUG. Without its operation a site has room
        // for a call or none at all.
        let needed = match code {
            Some(Code::Bytes(bytes)) => bytes.len(),
            Some(_) => 5,
            None if ops.calls_only && len != 0 => 5,
            None => 0,
        };
        if len > MAX_PATCH_LEN || room < needed {
            let why = "an entry of .parainstructions has a length that the kernel crashes on (BUG)";
            module.said.refuse(Finding::note("FIN-73", Severity::Oops, why));
            return;
        }
        if !module.touches(&X86_64, instr, len.into(), "an entry of .parainstructions") {
            return;
        }
        module.may_be(instr, room, Step::Paravirt, u64::from(number), |_| {
            let codes = [Some(NOTHING), code];
            codes.into_iter().flatten().map(|code| patched(instr, code, room, nops)).collect()
        });
        let Some(code) = code else {
            module.record.not_known("pv_ops");
            continue;
        };
        module.write(instr, &patched(instr, code, room, nops), Step::Paravirt, function.unwrap_or(0));
    }
}

/// Where the list's entries have their code.
pub fn sites(module: &Finalizer<'_, '_>) -> Vec<u64> {
    let table = module.last_section(".parainstructions");
    let entries = table.into_iter().flat_map(|table| table.records_begun(SITE));
    entries.filter_map(|at| module.u64(at)).collect()
}

/// The site of `len` bytes with what takes the place of its operation.
fn patched(address: u64, code: Code, len: usize, nops: Nops) -> Vec<u8> {
    let mut bytes = match code {
        Code::Call(target) => text_gen_insn(CALL, address, target).to_vec(),
        Code::Jump(target) => text_gen_insn(JMP32, address, target).to_vec(),
        Code::Bytes(bytes) => bytes.to_vec(),
    };
    let used = bytes.len();
    bytes.resize(len.max(used), 0x90);
    bytes.get_mut(used..).into_iter().for_each(|rest| nops.add_nops(rest));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf_layout::{Changes, KernelVersion};

    #[test]
    fn fin_73_call_or_nops() {
        let (at, target) = (0xffff_ffff_c020_1000, 0xffff_ffff_8100_0000);
        let call = text_gen_insn(CALL, at, target);
        let nops = Nops::fixed(Changes::of(KernelVersion::new(6, 1, 0)));
        let patched = |code, len| patched(at, code, len, nops);
        assert_eq!(patched(Code::Call(target), 7), [&call[..], &[0x66, 0x90]].concat(), "FIN-73");
        assert_eq!(patched(Code::Call(target), 5), call);
        assert_eq!(patched(Code::Bytes(&[0xfa]), 3), [0xfa, 0x66, 0x90], "FIN-73: up to 5.12");
        assert_eq!(patched(Code::Jump(target), 5), text_gen_insn(JMP32, at, target));
        assert_eq!(
            patched(NOTHING, 11),
            [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0],
            "FIN-73: at most 8 bytes each"
        );
    }

    #[test]
    fn fin_73_operations_with_code_of_their_own() {
        const NATIVE_UNLOCK: u64 = 0x5000;
        let mut ops = Operations {
            pv_ops: Some(0x1000),
            nop: Some(0x2000),
            bug: None,
            native: Vec::from([(7, None, &[0xfa][..]), (9, Some(NATIVE_UNLOCK), &[0xc6, 7, 0][..])]),
            jumped: Vec::from([11]),
            ident: Some(0x3000),
            calls_only: false,
        };
        for (number, function, want) in [
            (7, None, Some(Code::Bytes(&[0xfa]))),
            (7, Some(0x2000), Some(Code::Bytes(&[0xfa]))),
            (9, Some(NATIVE_UNLOCK), Some(Code::Bytes(&[0xc6, 7, 0]))),
            (9, Some(0x6000), Some(Code::Call(0x6000))),
            (8, Some(0), Some(Code::Bytes(UD2))),
            (8, Some(0x2000), Some(NOTHING)),
            (8, Some(0x3000), Some(Code::Bytes(MOV64))),
            (11, Some(0x7000), Some(Code::Jump(0x7000))),
            (8, None, None),
        ] {
            assert_eq!(ops.code(number, function), want, "FIN-73: {number} {function:x?}");
        }
        ops =
            Operations { native: Vec::new(), jumped: Vec::new(), bug: Some(0x8000), calls_only: true, ..ops };
        assert_eq!(ops.code(8, Some(0)), Some(Code::Call(0x8000)), "FIN-73: since 5.13 paravirt_BUG");
        assert_eq!(ops.code(8, Some(0x3000)), Some(Code::Call(0x3000)), "FIN-73: since 5.13 calls alone");
    }
}
