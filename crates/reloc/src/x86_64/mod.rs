//! x86_64: relocation (spec 04 §4.2) and what is patched after it (spec 06, 6.2).

mod addresses;
mod alternatives;
mod callthunks;
mod cfi_mode;
mod cpu;
#[cfg(feature = "disassemble")]
mod disassemble;
mod fineibt;
#[cfg(test)]
mod fineibt_tests;
mod ibt;
mod image;
mod insn;
mod module_finalize;
mod nops;
mod orc;
mod paging;
mod paravirt;
#[cfg(test)]
mod patch_tests;
mod relocate;
mod retpolines;
mod returns;
mod sites;
mod smp_locks;
mod static_calls;
mod text;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::place::Windows;
use elf_layout::{Change, CpuCapabilities, Findings, KernelConfig, Machine};

use crate::finalizer::Finalizer;
use crate::reach::Reach;
use crate::{Architecture, ExtableEntry, FtraceBug, Howto, ModArch, Records, RelaSection};
use kernel::types::StructPaths;
use kernel::{Part, RunningKernel};

/// The x86_64 architecture.
#[derive(Debug)]
pub struct X86_64;

/// Its facts.
pub static MACHINE: Machine = Machine {
    name: "x86_64",
    e_machine: object::elf::EM_X86_64.0,
    source_arch: "x86",
    debian_arch: "amd64",
    vermagic_word: "",
    text_addresses: 0xffff_ffff..=0xffff_ffff,
    page_sizes: &[],
    inline_static_calls: true,
    asks_for_retpoline: true,
    cpu_capabilities: &[CpuCapabilities {
        symbol: "boot_cpu_data",
        member: Some(("cpuinfo_x86", "x86_capability")),
    }],
    toolchain_symbols: &[
        ("__x86_indirect_thunk_", "CONFIG_RETPOLINE (CONFIG_MITIGATION_RETPOLINE)", "retpolines"),
        ("__x86_indirect_call_thunk_", "CONFIG_CALL_DEPTH_TRACKING", "call depth tracking"),
        ("__x86_indirect_jump_thunk_", "CONFIG_CALL_DEPTH_TRACKING", "call depth tracking"),
        ("__x86_return_thunk", "CONFIG_RETHUNK (CONFIG_MITIGATION_RETHUNK)", "return thunks"),
    ],
};

/// Base of the kernel mapping (`__START_KERNEL_map`).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE, and without.
const KERNEL_IMAGE_SIZE: (u64, u64) = (1 << 30, 512 << 20);
/// MODULES_END.
const MODULES_END: u64 = 0xffff_ffff_ff00_0000;
/// PMD_SIZE: what the cache of code grows by (LAYOUT-55), and the size of a pack of BPF programs (LAYOUT-51).
const PMD_SIZE: u64 = 2 << 20;
/// PAGE_SIZE
const PAGE_SIZE: u64 = 4096;

/// What the kernel itself takes of the module area before the first module of a boot comes, guard page included
/// (LAYOUT-51): the BPF program that `ptp_classifier_init` has compiled.
fn taken_at_boot(config: &KernelConfig, symbol: &dyn Fn(&str) -> Option<u64>) -> u64 {
    // A function that every kernel with modules has: a table of symbols without it is not whole.
    let symbols_known = symbol("load_module").is_some();
    let compiles = symbol("ptp_classifier_init").is_some() && symbol("bpf_jit_binary_alloc").is_some();
    if symbols_known && !compiles {
        return 0;
    }
    // Since v5.18 (57631054fae6) programs share packs; before that each has pages of its own.
    let packs =
        if symbols_known { symbol("bpf_prog_pack_alloc").is_some() } else { config.has(Change::BpfProgPack) };
    PAGE_SIZE.saturating_add(if packs { PMD_SIZE } else { PAGE_SIZE })
}

impl Architecture for X86_64 {
    fn module_area(&self, config: &KernelConfig, symbol: &dyn Fn(&str) -> Option<u64>) -> Windows {
        let image_size = if config.randomize_base { KERNEL_IMAGE_SIZE.0 } else { KERNEL_IMAGE_SIZE.1 };
        let first = START_KERNEL_MAP.wrapping_add(image_size).wrapping_add(taken_at_boot(config, symbol));
        let code_block = config.has(Change::CodeFromCache).then_some(PMD_SIZE);
        Windows { direct: (first, MODULES_END), fallback: None, code_block }
    }

    fn ignores_undefined(&self, name: &[u8]) -> bool {
        name == b"_GLOBAL_OFFSET_TABLE_"
    }

    fn apply_relocate_add(
        &self,
        section: &mut RelaSection<'_>,
        records: Records<'_>,
        _arch: &mut ModArch,
        said: &mut Findings,
    ) {
        relocate::apply_relocate_add(section, records, said);
    }

    fn extable(&self, config: &KernelConfig) -> ExtableEntry {
        // Up to v5.15 the address of a handler, since then (46d28947d987) type and data.
        let addresses = if config.has(Change::ExtableTypes) { 2 } else { 3 };
        ExtableEntry { size: 12, addresses }
    }

    fn relocates_only_zeros(&self) -> bool {
        true
    }

    fn howto(&self, r_type: u32) -> Option<Howto> {
        relocate::howto(r_type)
    }

    fn reaches_every_symbol(&self, r_type: u32) -> bool {
        relocate::reaches_every_symbol(r_type)
    }

    fn module_finalize(&self, module: &mut Finalizer<'_, '_>) {
        module_finalize::module_finalize(module);
    }

    fn reach(&self, config: &KernelConfig, kernel: &dyn RunningKernel, address: u64) -> Reach {
        addresses::reach(config, kernel, address)
    }

    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> Result<(), FtraceBug> {
        sites::ftrace_init_nop(module, site)
    }

    fn ftrace_looks_up_sites(&self, config: &KernelConfig) -> bool {
        config.has(Change::FtraceWeakChecked)
    }

    fn jump_label_looks_at_code(&self) -> bool {
        true
    }

    fn jump_label_insn(
        &self,
        module: &Finalizer<'_, '_>,
        code: u64,
        target: u64,
        jump: bool,
    ) -> Option<Vec<u8>> {
        sites::jump_label_insn(module, code, target, jump)
    }

    fn static_calls(&self, module: &mut Finalizer<'_, '_>) {
        static_calls::static_call_add_module(module);
    }

    fn static_call_trampolines(&self, module: &mut Finalizer<'_, '_>) {
        static_calls::trampolines(module);
    }

    fn ftrace_call_site(&self, _module: &Finalizer<'_, '_>, site: u64) -> Option<(u64, u64)> {
        Some((site, 5))
    }

    fn call_target(&self, code: &[u8], address: u64) -> Option<u64> {
        insn::target(code, address, text::CALL)
    }

    fn jump_target(&self, code: &[u8], address: u64) -> Option<u64> {
        insn::target(code, address, text::JMP32)
    }

    /// INT3
    fn breakpoint(&self) -> &'static [u8] {
        &[0xcc]
    }

    #[cfg(feature = "disassemble")]
    fn disassemble(&self, code: &[u8], address: u64) -> Option<(String, usize)> {
        disassemble::disassemble(code, address)
    }

    #[cfg(feature = "disassemble")]
    fn instruction_len(&self, code: &[u8]) -> Option<usize> {
        disassemble::instruction_len(code)
    }

    fn mod_arch_specific(&self, module: &Finalizer<'_, '_>) -> Vec<(&'static str, u64)> {
        orc::mod_arch_specific(module)
    }

    fn capability_text(&self, number: u64) -> String {
        format!("capability {}*32+{}", number / 32, number % 32)
    }

    fn kernel_memory(&self) -> &'static [Part] {
        &[
            // apply_paravirt, and alternatives with ALT_FLAG_DIRECT_CALL (FIN-25).
            Part::Object("pv_ops"),
            // apply_returns
            Part::Object("x86_return_thunk"),
            // callthunks_patch_module_calls (FIN-77)
            Part::Between("skl_call_thunk_template", "skl_call_thunk_tail"),
            // apply_fineibt (FIN-90, FIN-92)
            Part::Object("cfi_mode"),
            Part::Between("fineibt_preamble_start", "fineibt_preamble_end"),
            Part::Between("fineibt_caller_start", "fineibt_caller_end"),
            Part::Between("fineibt_paranoid_start", "fineibt_paranoid_end"),
        ]
    }

    fn kernel_types(&self) -> &'static StructPaths {
        &[
            ("alt_instr", &[]),
            ("cpuinfo_x86", &["x86_capability", "x86", "x86_vendor", "x86_model"]),
            ("paravirt_patch_template", paravirt::OPERATIONS),
        ]
    }
}
