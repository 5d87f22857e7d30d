//! `apply_seal_endbr` (`apply_ibt_endbr` before 6.5): functions without indirect calls lose their
//! landing pad (FIN-74), and with FineIBT their hash (FIN-93).

use elf_layout::{Change, Finding, Severity};

use super::cfi_mode::{Cfi, Mode};
use super::cpu::lacks;
use super::fineibt::{PREAMBLE, writes};
use super::text::{ENTRY, is_endbr, poison};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// `apply_seal_endbr` for the module's list.
pub fn apply_seal_endbr(module: &mut Finalizer<'_, '_>, cfi: &mut Cfi) {
    let Some(table) = module.list_of_instructions(".ibt_endbr_seal") else { return };
    // Without CONFIG_X86_KERNEL_IBT the function is empty; its self-test exists with it alone.
    if lacks(module.kernel, "ibt_selftest") {
        return;
    }
    let poison = poison(module.changes());
    let mut warned = false;
    for entry in table.records_begun(ENTRY) {
        let Some(address) = module.relative(entry) else { continue };
        if module.bytes(address).is_some_and(|bytes| is_endbr(bytes, poison)) {
            module.write(address, &poison, Step::SealEndbr, 0);
        } else if !core::mem::replace(&mut warned, true) {
            let why = "an entry of .ibt_endbr_seal is no ENDBR: the kernel warns once and leaves the code";
            module.said.push(Finding::note("FIN-74", Severity::Warning, why));
        }
        if cfi.built && poison_cfi(module, address.wrapping_sub(PREAMBLE), poison, cfi).is_none() {
            return;
        }
    }
}

/// `poison_cfi`: FIN-93, the preamble of a sealed function. `None` if the kernel crashes.
fn poison_cfi(module: &mut Finalizer<'_, '_>, address: u64, poison: [u8; 4], cfi: &mut Cfi) -> Option<()> {
    /// Offset of the hash.
    const KCFI_HASH: u64 = 1;
    let pad = module.bytes(address).is_some_and(|bytes| is_endbr(bytes, poison));
    // Since v6.15 only what is a preamble, since v6.5 (9831c6253ace) whatever stands there; before that only the landing pad.
    let (sealed, checked) = (module.has(Change::CfiSealed), module.has(Change::FineIbtChecked));
    let hash = match cfi.mode {
        Some(Mode::FineIbt) => {
            if pad {
                module.write(address, &poison, Step::Cfi, 0);
            }
            (sealed && (pad || !checked)).then_some(cfi.fineibt_hash)
        }
        Some(Mode::Kcfi) => {
            let mov = module.bytes::<5>(address).is_some_and(|[op, hash @ ..]| {
                (0xb8..0xc0).contains(&op)
                    && (hash != [0; 4] || cfi.unknown.contains_key(&address.wrapping_add(1)))
            });
            (sealed && (mov || !checked)).then_some(KCFI_HASH)
        }
        Some(Mode::Off) => None,
        None => {
            let longest = cfi.unknown.entry(address).or_default();
            *longest = (*longest).max(PREAMBLE);
            None
        }
    };
    let Some(hash) = hash.map(|offset| address.wrapping_add(offset)) else { return Some(()) };
    if writes(module, hash, 4, "an entry of .ibt_endbr_seal")? {
        module.write(hash, &[0; 4], Step::Cfi, 0);
        cfi.unknown.remove(&hash);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use elf_layout::{Changes, KernelVersion};

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
