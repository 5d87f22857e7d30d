//! `apply_seal_endbr` (`apply_ibt_endbr` before 6.3): functions without indirect calls lose their
//! landing pad (FIN-74).

use elf_layout::{Change, Changes, Finding, Severity};

use super::cpu::lacks;
use super::text::ENTRY;
use crate::finalizer::Finalizer;
use crate::record::Step;

/// ENDBR64
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// ENDBR32
const ENDBR32: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfb];

/// `gen_endbr_poison`: a nop of four bytes that nothing else is made of.
const fn poison(changes: Changes) -> [u8; 4] {
    // Since v6.18 (85a2d4a890dc) NOPL (-42(%rax)).
    if changes.has(Change::EndbrPoisonNopl) { [0x0f, 0x1f, 0x40, 0xd6] } else { [0x66, 0x0f, 0x1f, 0x00] }
}

/// `apply_seal_endbr` for the module's list.
pub fn apply_seal_endbr(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_sites(".ibt_endbr_seal", false) else { return };
    // Without CONFIG_X86_KERNEL_IBT the function is empty; its self-test exists with it alone.
    if lacks(module.kernel, "ibt_selftest") {
        return;
    }
    let poison = poison(module.changes());
    let mut warned = false;
    for entry in table.records_begun(ENTRY) {
        let Some(address) = module.relative(entry) else { continue };
        let is_endbr = module.bytes(address).is_some_and(|b| [ENDBR64, ENDBR32, poison].contains(&b));
        if is_endbr {
            module.write(address, &poison, Step::SealEndbr, 0);
        } else if !core::mem::replace(&mut warned, true) {
            let why = "an entry of .ibt_endbr_seal is no ENDBR: the kernel warns once and leaves the code";
            module.said.push(Finding::note("FIN-74", Severity::Warning, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use elf_layout::KernelVersion;

    use super::super::insn::decode;
    use super::*;

    #[test]
    fn fin_74_the_poison_is_a_nop_of_four_bytes() {
        for (version, want) in [
            (KernelVersion::new(6, 1, 0), [0x66, 0x0f, 0x1f, 0x00]),
            (KernelVersion::new(6, 17, 0), [0x66, 0x0f, 0x1f, 0x00]),
            (KernelVersion::new(6, 18, 0), [0x0f, 0x1f, 0x40, 0xd6]),
        ] {
            assert_eq!(poison(Changes::of(version)), want, "FIN-74: {version:?}");
            assert!(decode(&want).is_some_and(|insn| insn.length == 4 && insn.is_nop()));
        }
    }
}
