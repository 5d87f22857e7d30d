//! `alternatives_smp_module_add`: with one CPU, lock prefixes become segment prefixes (FIN-75).

use elf_layout::Change;

use super::cpu::uniproc_patched;
use super::text::ENTRY;
use crate::finalizer::Finalizer;
use crate::record::Step;

/// LOCK
const LOCK: u8 = 0xf0;
/// The DS segment override, which does nothing.
const DS: u8 = 0x3e;

/// `alternatives_smp_unlock` for the module's list.
pub fn alternatives_smp_module_add(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.last_section(".smp_locks") else { return };
    // Since v6.4 (ac3b43283923) the whole of MOD_TEXT, before that the section .text.
    let text = if module.has(Change::ModMemType) {
        module.text_range()
    } else {
        module.last_section(".text").map(|text| text.address..text.address.wrapping_add(text.size))
    };
    let Some(text) = text else { return };
    let patched = uniproc_patched(module.kernel);
    if patched.is_none() {
        module.record.not_known("uniproc_patched");
    }
    if patched != Some(true) && !module.choices {
        return;
    }
    for entry in table.records_begun(ENTRY) {
        if module.u32(entry).is_none_or(|offset| offset == 0) {
            continue;
        }
        let lock = |address: &u64| text.contains(address) && module.bytes(*address) == Some([LOCK]);
        let Some(address) = module.relative(entry).filter(lock) else { continue };
        module.may_be(address, 1, Step::SmpLock, 0, |_| alloc::vec![alloc::vec![DS]]);
        if patched == Some(true) {
            module.write(address, &[DS], Step::SmpLock, 0);
        }
    }
}
