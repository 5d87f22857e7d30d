//! What the function tracer finds in a module of arm64 (FIN-33, FIN-40, FIN-43, FIN-44).

use alloc::format;

use elf_layout::bytes::le32;
use elf_layout::{Change, Errno, Finding, Findings, KernelConfig, LoadInfo, Severity};

use super::Aarch64;
use super::insn::{MOV_X9_LR, NOP, is_bti};
use super::plts::{PLT_ENTRY_SIZE, get_plt_entry};
use crate::FtraceBug;
use crate::finalizer::Finalizer;
use crate::reach::{Reach, in_image, reach};
use crate::record::Step;

/// Are functions compiled with nops at their entry? Else they call `_mcount`, as all did before v5.5
/// (3b23e4991fb6).
fn patchable(config: &KernelConfig) -> bool {
    config.dynamic_ftrace_with_regs || config.dynamic_ftrace_with_args
}

/// FTRACE_CALLSITE_SECTION (FIN-40)
pub fn callsites(config: &KernelConfig) -> &'static str {
    if patchable(config) { "__patchable_function_entries" } else { "__mcount_loc" }
}

/// `module_init_ftrace_plt` (FIN-33): the ways to the tracer. A module without the section is refused
/// before ([`refuse_without_ftrace_plt`]).
pub fn module_init_ftrace_plt(module: &mut Finalizer<'_, '_>) {
    let config = module.info.config;
    // Since v5.5 (f1a54ae9af0d); before that the slot is filled when tracing starts.
    if !config.dynamic_ftrace || !config.has(Change::FtracePltAtLoad) {
        return;
    }
    init_plt(module, ".text.ftrace_trampoline", 0, "ftrace_caller");
    // Up to v6.2 (26299b3f6ba2).
    if config.dynamic_ftrace_with_regs && !config.has(Change::FtraceWithArgs) {
        init_plt(module, ".text.ftrace_trampoline", 1, "ftrace_regs_caller");
    }
    // a7ed7b9d0ebb; modules for kernels without it have no such section (PLT-13).
    if config.has(Change::InitFtracePlt) {
        init_plt(module, ".init.text.ftrace_trampoline", 0, "ftrace_caller");
    }
}

/// `__init_plt`
fn init_plt(module: &mut Finalizer<'_, '_>, section: &str, slot: u64, target: &str) {
    if module.info.file.is_named(0, section) {
        let why = format!("section 0 has the name {section}: the kernel writes to address 0, and crashes");
        let finding = Finding::note("FIN-33", Severity::Oops, why);
        module.said.refuse(finding.about(module.info.file.section_subject(0)));
        return;
    }
    let Some(table) = module.first_section(section) else { return };
    match module.kernel.symbol(target) {
        Some(target) => {
            let at = table.address.wrapping_add(slot.wrapping_mul(PLT_ENTRY_SIZE));
            module.write(at, &get_plt_entry(target, at), Step::FtracePlt, target);
        }
        None => module.record.not_known(target),
    }
}

/// `ftrace_call_adjust` and `ftrace_init_nop` for one site.
pub fn ftrace_init_nop(module: &mut Finalizer<'_, '_>, site: u64) -> Result<(), FtraceBug> {
    let config = module.info.config;
    if !patchable(config) {
        // A call of _mcount, whatever it goes through.
        let written = module.write(site, &NOP.to_le_bytes(), Step::FtraceSite, 0);
        return if written { Ok(()) } else { Err(FtraceBug::Faulted(site)) };
    }
    if !config.dynamic_ftrace_with_call_ops {
        return save_lr(module, site);
    }
    // FIN-44: two nops before the function make room for a pointer.
    if !site.is_multiple_of(8) {
        return Err(FtraceBug::Crash("does not lie at a multiple of 8 bytes, and counts as address 0"));
    }
    if site < LINEAR_ALIAS {
        return Err(FtraceBug::Faulted(site.wrapping_add(12)));
    }
    // The kernel's own code can be written through patch_map; what stands there is not what the compiler puts before a function.
    if in_image(module.kernel, site) == Some(Reach::Image) {
        return Err(FtraceBug::Unexpected { at: site.wrapping_add(12), shown: 4, expected: None });
    }
    let this = module.table(module.info.file.index().module);
    if this.is_some_and(|this| {
        this.address < site.wrapping_add(8) && site < this.address.wrapping_add(this.size)
    }) {
        let needs =
            "what becomes of struct module, in which the pointer of a site of the function tracer is written";
        module.said.may_crash("FIN-44", needs);
    }
    if module.place_of(site).is_none() && reach(module, module.kernel, &Aarch64, site) != Reach::Nothing {
        let needs =
            "what lies at a site of the function tracer outside of the module, where its pointer is written";
        module.said.may_crash("FIN-44", needs);
        return Err(FtraceBug::Unexpected { at: site.wrapping_add(12), shown: 4, expected: None });
    }
    if !set_nop_ops(module, site) {
        return Err(FtraceBug::Crash(
            "is no memory of the module, where its pointer is to be written (patch_map)",
        ));
    }
    let func = site.wrapping_add(8);
    // Only kernels with CONFIG_ARM64_BTI_KERNEL have it in their modules, and skip it.
    let bti = module.u32(func).is_some_and(is_bti);
    save_lr(module, if bti { func.wrapping_add(4) } else { func })
}

/// As [`ftrace_init_nop`], for a site in the temporary copy: patch_map writes there as well, and its bytes are those of the file.
pub fn site_in_copy(module: &Finalizer<'_, '_>, index: usize, at: u64) -> bool {
    /// R_AARCH64_ABS64
    const ABS64: u32 = 257;
    let Some(site) = module.copied_from(index, at, ABS64) else { return false };
    let word = |offset| le32(module.info.file.bytes(), offset);
    let config = module.info.config;
    let save = match (patchable(config), config.dynamic_ftrace_with_call_ops) {
        (false, _) => return word(site).is_some(),
        (true, false) => site,
        (true, true) => {
            let func = site.wrapping_add(8);
            if word(func).is_some_and(is_bti) { func.wrapping_add(4) } else { func }
        }
    };
    let aligned = !config.dynamic_ftrace_with_call_ops || site.is_multiple_of(8);
    aligned && word(save) == Some(NOP)
}

/// Where the call of the tracer goes: behind the instruction that saves the link register.
pub fn call_site(module: &Finalizer<'_, '_>, site: u64) -> Option<(u64, u64)> {
    let config = module.info.config;
    let save = match (patchable(config), config.dynamic_ftrace_with_call_ops) {
        (false, _) => return Some((site, 4)),
        (true, false) => site,
        (true, true) => {
            let func = site.wrapping_add(8);
            let bti = module.u32(func).is_some_and(is_bti);
            if bti { func.wrapping_add(4) } else { func }
        }
    };
    (module.u32(save) == Some(MOV_X9_LR)).then(|| (save.wrapping_add(4), 4))
}

/// Below it an address of user space: vmalloc_to_page takes it for one of the same place in the kernel's linear mapping, where
/// every system has memory; reading it as it is then fails.
const LINEAR_ALIAS: u64 = 64 << 20;

/// `ftrace_rec_set_nop_ops` (FIN-46). False if the place is not in the module.
fn set_nop_ops(module: &mut Finalizer<'_, '_>, literal: u64) -> bool {
    const NOP_OPS: &str = "ftrace_nop_ops";
    match module.kernel.symbol(NOP_OPS) {
        Some(ops) => module.write(literal, &ops.to_le_bytes(), Step::FtraceSite, ops),
        None => {
            module.record.not_known(NOP_OPS);
            module.read(literal, 8).is_some()
        }
    }
}

/// `mov x9, x30` over the first of two nops (FIN-43). What the kernel tells is the address of the second one.
fn save_lr(module: &mut Finalizer<'_, '_>, at: u64) -> Result<(), FtraceBug> {
    let told = at.wrapping_add(4);
    match module.u32(at) {
        None => Err(FtraceBug::Faulted(told)),
        Some(NOP) if module.write(at, &MOV_X9_LR.to_le_bytes(), Step::FtraceSite, 0) => Ok(()),
        Some(_) => Err(FtraceBug::Unexpected { at: told, shown: 4, expected: None }),
    }
}

/// arm64's `module_init_ftrace_plt` wants sections to put the ways to the tracer into (FIN-30).
pub fn refuse_without_ftrace_plt(info: &LoadInfo<'_>, said: &mut Findings) {
    let config = info.config;
    said.stage_at_first(|said| {
        // Since v5.5 (bd8b21d3dd66). The second one since v6.17 (a7ed7b9d0ebb); which stable kernel before has that
        // change does not show.
        for (section, change) in [
            (".text.ftrace_trampoline", Change::FtracePltRequired),
            (".init.text.ftrace_trampoline", Change::InitFtracePltRequired),
        ] {
            let wants = config.dynamic_ftrace && config.has(change);
            if wants && info.file.find_any_sec(section) == 0 && !info.file.is_named(0, section) {
                let why = format!(
                    "the module has no section {section}, which a kernel with CONFIG_DYNAMIC_FTRACE needs"
                );
                let finding = Finding::error("FIN-30", Errno::ENOEXEC, why);
                said.push(finding.hint("link the module with the kernel's module.lds, as kbuild does"));
            }
        }
    });
}

/// The trampolines in `struct mod_arch_specific` (FIN-86).
pub fn mod_arch_specific(module: &Finalizer<'_, '_>) -> impl Iterator<Item = (&'static str, u64)> {
    let members = [
        ("arch.ftrace_trampolines", ".text.ftrace_trampoline"),
        ("arch.init_ftrace_trampolines", ".init.text.ftrace_trampoline"),
    ];
    let table = |section| module.table(module.info.file.find_any_sec(section));
    members.into_iter().filter_map(move |(path, section)| Some((path, table(section)?.address)))
}
