//! `apply_paravirt`: indirect calls through pv_ops become direct (FIN-73). Since v6.8 (f7af6977621a) they are
//! alternatives.

use alloc::vec::Vec;

use elf_layout::{Finding, Severity};

use super::X86_64;
use super::insn::text_gen_insn;
use super::nops::add_nops;
use super::text::CALL;
use crate::finalizer::Finalizer;
use crate::record::Step;

/// Bytes of `struct paravirt_patch_site`: u64 instr, u8 type, u8 len, and padding.
const SITE: u64 = 16;
/// MAX_PATCH_LEN
const MAX_PATCH_LEN: u8 = 254;

/// `apply_paravirt` for the module's list.
pub fn apply_paravirt(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_sites(".parainstructions", false) else { return };
    let pv_ops = module.kernel_symbol("pv_ops");
    let (nop, bug) = (module.kernel_symbol("_paravirt_nop"), module.kernel_symbol("paravirt_BUG"));
    for at in table.records_begun(SITE) {
        let site = module.u64(at).zip(module.bytes::<2>(at.wrapping_add(8)));
        let Some((instr, [number, len])) = site else { continue };
        let code = usize::from(len);
        let slot = pv_ops.map(|ops| ops.wrapping_add(u64::from(number).wrapping_mul(8)));
        let op = slot.and_then(|slot| module.kernel.pointer(slot));
        // With nop operations nothing is called, else five bytes are needed (BUG).
        let calls = op.zip(nop).is_some_and(|(op, nop)| op != nop);
        if len > MAX_PATCH_LEN || (len < 5 && (calls || len != 0)) {
            let why = "an entry of .parainstructions has a length that the kernel crashes on (BUG)";
            module.said.refuse(Finding::note("FIN-73", Severity::Oops, why));
            return;
        }
        if !module.touches(&X86_64, instr, len.into(), "an entry of .parainstructions") {
            return;
        }
        let target = match op {
            Some(0) => bug,
            other => other,
        };
        module.may_be(instr, code, Step::Paravirt, u64::from(number), |_| {
            let calls = target.map(|target| patched(instr, Some(target), code));
            [Some(patched(instr, None, code)), calls].into_iter().flatten().collect()
        });
        let (Some(target), Some(nop)) = (target, nop) else {
            module.record.not_known("pv_ops");
            continue;
        };
        let bytes = patched(instr, (op != Some(nop)).then_some(target), code);
        module.write(instr, &bytes, Step::Paravirt, target);
    }
}

/// Where the list's entries have their code.
pub fn sites(module: &Finalizer<'_, '_>) -> Vec<u64> {
    let table = module.last_section(".parainstructions");
    let entries = table.into_iter().flat_map(|table| table.records_begun(SITE));
    entries.filter_map(|at| module.u64(at)).collect()
}

/// The site of `len` bytes with a call, or with nothing but nops.
fn patched(address: u64, target: Option<u64>, len: usize) -> Vec<u8> {
    let mut bytes = target.map_or(Vec::new(), |target| text_gen_insn(CALL, address, target).to_vec());
    let used = bytes.len();
    bytes.resize(len.max(used), 0x90);
    bytes.get_mut(used..).into_iter().for_each(add_nops);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fin_73_call_or_nops() {
        let (at, target) = (0xffff_ffff_c020_1000, 0xffff_ffff_8100_0000);
        let call = text_gen_insn(CALL, at, target);
        assert_eq!(patched(at, Some(target), 7), [&call[..], &[0x66, 0x90]].concat(), "FIN-73");
        assert_eq!(patched(at, Some(target), 5), call);
        assert_eq!(
            patched(at, None, 11),
            [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0],
            "FIN-73: at most 8 bytes each"
        );
    }
}
