//! `callthunks_patch_module_calls`: with call depth tracking (retbleed=stuff), calls go to the accounting code
//! in the padding before the function that they call (FIN-77).

use alloc::vec::Vec;
use core::ops::Range;

use elf_layout::Change;
use elf_layout::Region;

use super::alternatives;
use super::cpu::Feature;
use super::insn::text_gen_insn;
use super::nops::Nops;
use super::text::{CALL, ENTRY};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// The template is 9 or 10 bytes; a kernel whose symbols say more than this is not believed.
const TEMPLATE_MAX: u64 = 32;
/// KEXEC_CONTROL_CODE_MAX_SIZE
const KEXEC_CODE: u64 = 2048;
/// CONFIG_FUNCTION_PADDING_BYTES, with GCC also CONFIG_FUNCTION_ALIGNMENT. A template fits once.
const PADDING: u64 = 16;
/// The step by which KASLR moves a kernel (CONFIG_PHYSICAL_ALIGN).
const SLIDE: u64 = 1 << 21;
/// Addresses from here on belong to modules (MODULES_VADDR).
const MODULES: u64 = 0xffff_ffff_a000_0000;

/// Functions that account for themselves (`skip_addr`).
const SKIPPED: [&str; 7] = [
    "error_entry",
    "paranoid_entry",
    "xen_error_entry",
    "__switch_to_asm",
    "ret_from_fork",
    "soft_restart_cpu",
    "__fentry__",
];

/// Call depth tracking as it is set up on this system.
#[derive(Debug)]
pub struct CallThunks {
    /// The accounting code, as it stands at `template_at`.
    template: Vec<u8>,
    template_at: u64,
    /// The kernel's text.
    kernel: Range<u64>,
    skipped: Vec<u64>,
    kexec: Range<u64>,
    /// Where the kernel's functions have padding, sorted: objtool names it `__pfx_FUNCTION`
    /// (CONFIG_PREFIX_SYMBOLS). `None` if it did not, or the symbols at hand leave that out.
    padding: Option<Vec<u64>>,
}

impl CallThunks {
    /// Inner `None`: no call depth tracking. Outer `None`: not known.
    pub fn of(module: &mut Finalizer<'_, '_>) -> Option<Option<CallThunks>> {
        if !module.cpu_feature(Feature::CallDepth)? {
            return Some(None);
        }
        let template_at = module.kernel_symbol("skl_call_thunk_template")?;
        let len = module.kernel_symbol("skl_call_thunk_tail")?.checked_sub(template_at)?;
        let mut template = alloc::vec![0; usize::try_from(len.min(TEMPLATE_MAX)).ok()?];
        if len > TEMPLATE_MAX || !module.kernel.read(template_at, &mut template) {
            module.record.not_known("skl_call_thunk_template");
            return None;
        }
        let kernel = module.kernel_symbol("_text")?..module.kernel_symbol("_etext")?;
        relocate_template(&mut template, template_at, module.kernel.symbol("pcpu_hot"));
        let kexec = module.kernel.symbol("relocate_kernel").unwrap_or(0);
        // A function that nearly all modules import: a table of symbols without it is not whole.
        let padding = module.kernel.symbol("__pfx__printk").map(|_| {
            let mut padding = module.kernel.symbols_with("__pfx_");
            padding.sort_unstable();
            padding
        });
        Some(Some(CallThunks {
            template,
            template_at,
            kernel,
            skipped: SKIPPED.into_iter().filter_map(|name| module.kernel.symbol(name)).collect(),
            kexec: kexec..kexec.saturating_add(KEXEC_CODE.min(kexec)),
            padding,
        }))
    }

    /// `skip_addr`
    fn skips(&self, target: u64) -> bool {
        self.skipped.contains(&target) || self.kexec.contains(&target)
    }

    /// `is_coretext`: the kernel's own code, or a module's that stays.
    fn is_coretext(&self, module: &Finalizer<'_, '_>, target: u64) -> bool {
        match module.place_of(target) {
            Some(place) => !place.region.is_init(),
            None => self.kernel.contains(&target) || target >= MODULES,
        }
    }

    /// The accounting code as it stands at `pad`.
    fn code_at(&self, module: &Finalizer<'_, '_>, pad: u64) -> Vec<u8> {
        let mut code = self.template.clone();
        let moved = self.template_at.wrapping_sub(pad);
        alternatives::apply_relocation(&mut code, moved, self.template.len() as u64);
        Nops::fixed(module.changes()).optimize(&mut code);
        code
    }

    /// `patch_dest`: the accounting code before `target`, which is put there if it is not yet.
    fn patch_dest(&self, module: &mut Finalizer<'_, '_>, target: u64) -> Option<u64> {
        let len = self.template.len() as u64;
        let pad = target.wrapping_sub(len);
        let code = self.code_at(module, pad);
        let is_free = |bytes: &[u8]| bytes.iter().all(|b| *b == 0x90);
        if module.within_module(target) {
            let now = module.read(pad, len)?;
            if now != code && !is_free(now) {
                return None;
            }
            module.write(pad, &code, Step::CallThunk, target);
            return Some(pad);
        }
        let mut now = code.clone();
        if module.kernel.read(pad, &mut now) {
            // In an image it is still free, in a running kernel it may be patched.
            return (now == code || is_free(&now)).then_some(pad);
        }
        if let Some(padding) = self.padding.as_ref().filter(|_| self.kernel.contains(&target)) {
            return padding.binary_search(&target.wrapping_sub(PADDING)).is_ok().then_some(pad);
        }
        // What compilers make for such a kernel has padding before its first byte; a call that goes into the
        // padding itself, since it was patched before, finds no more of it.
        if !target.is_multiple_of(PADDING) {
            return None;
        }
        module.record.not_known("padding before functions that are called with call depth tracking");
        Some(pad)
    }

    /// `callthunks_translate_call_dest`: where a call of `target` really goes.
    pub fn translate(&self, module: &mut Finalizer<'_, '_>, target: u64) -> u64 {
        if self.skips(target) || !self.is_coretext(module, target) {
            return target;
        }
        self.patch_dest(module, target).unwrap_or(target)
    }

    /// `patch_call`: one site in the module's own text.
    fn patch_call(&self, module: &mut Finalizer<'_, '_>, text: &Range<u64>, site: u64) {
        if !text.contains(&site) {
            return;
        }
        let Some(insn) = module.insn(site).filter(|insn| insn.opcode[0] == CALL) else { return };
        let target = insn.target(site);
        if self.skips(target) || !self.is_coretext(module, target) {
            return;
        }
        if let Some(pad) = self.patch_dest(module, target) {
            let call = text_gen_insn(CALL, site, pad);
            module.may_be(site, 5, Step::CallThunk, target, |_| alloc::vec![call.to_vec()]);
            module.write(site, &call, Step::CallThunk, target);
        }
    }
}

/// Out of an image the template is as linked. Its operand is a per-cpu address, which KASLR does not move
/// while the code does, so that the distance between them has changed by a whole number of steps.
fn relocate_template(template: &mut [u8], at: u64, pcpu_hot: Option<u64>) {
    let Some(insn) = super::insn::decode(template).filter(|insn| insn.rip_relative) else { return };
    let Some(pcpu_hot) = pcpu_hot else { return };
    let next = at.wrapping_add(insn.length as u64);
    let linked = next.wrapping_add_signed(i64::from(insn.displacement.value));
    let member = linked.wrapping_sub(pcpu_hot) % SLIDE;
    let distance = pcpu_hot.wrapping_add(member).wrapping_sub(next) as u32;
    let bytes = template.iter_mut().skip(insn.displacement.offset).take(insn.displacement.size);
    for (to, from) in bytes.zip(distance.to_le_bytes()) {
        *to = from;
    }
}

/// `callthunks_patch_module_calls`. `others` are calls besides those in the list: the sites of alternatives or
/// of paravirt operations.
pub fn callthunks_patch_module_calls(module: &mut Finalizer<'_, '_>, others: impl Iterator<Item = u64>) {
    let calls = module.last_section(".call_sites");
    let mut others = others.peekable();
    if calls.is_none() && others.peek().is_none() {
        return;
    }
    let Some(Some(thunks)) = CallThunks::of(module) else { return };
    let Some(text) = module.text_range() else { return };
    for entry in calls.into_iter().flat_map(|table| table.records_begun(ENTRY)) {
        if let Some(site) = module.relative(entry) {
            thunks.patch_call(module, &text, site);
        }
    }
    for site in others {
        thunks.patch_call(module, &text, site);
    }
}

impl Finalizer<'_, '_> {
    /// The code that stays: MOD_TEXT since 6.4, before that the text of `core_layout`.
    pub(super) fn text_range(&self) -> Option<Range<u64>> {
        let split = self.has(Change::ModMemType);
        let region = if split { Region::Text } else { Region::Core };
        let base = self.placement.bases.get(region);
        let size = if split { self.layout.allocated(region) } else { self.layout.marks[0].text_size };
        (size != 0).then(|| base..base.wrapping_add(size))
    }
}
