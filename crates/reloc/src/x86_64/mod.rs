//! x86_64: relocation (spec 04 §4.2) and what is patched after it (spec 06, 6.2).

mod addresses;
mod alternatives;
mod callthunks;
mod cpu;
#[cfg(feature = "disassemble")]
mod disassemble;
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
use crate::{Architecture, FtraceBug, ModArch, Records, RelaSection};
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
    cpu_capabilities: Some(CpuCapabilities {
        symbol: "boot_cpu_data",
        of: "cpuinfo_x86",
        member: "x86_capability",
    }),
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
/// Where the first module of a boot starts in the module area: the kernel's own allocations lie below (LAYOUT-51).
const FIRST_MODULE: u64 = 0x20_1000;
/// PMD_SIZE: what the cache of code grows by (LAYOUT-55).
const PMD_SIZE: u64 = 2 << 20;

impl Architecture for X86_64 {
    fn module_area(&self, config: &KernelConfig, _symbol: &dyn Fn(&str) -> Option<u64>) -> Windows {
        let image_size = if config.randomize_base { KERNEL_IMAGE_SIZE.0 } else { KERNEL_IMAGE_SIZE.1 };
        let first = START_KERNEL_MAP.wrapping_add(image_size).wrapping_add(FIRST_MODULE);
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

    fn relocates_only_zeros(&self) -> bool {
        true
    }

    fn relocation_width(&self, r_type: u32) -> u64 {
        relocate::width(r_type)
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
        ]
    }

    fn kernel_types(&self) -> &'static StructPaths {
        &[("cpuinfo_x86", &["x86_capability"])]
    }
}
