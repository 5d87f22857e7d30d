//! aarch64: linkage tables (spec 02 §2.5), relocation (spec 05) and what is patched after it (spec 06, 6.3).

mod addresses;
mod alternative;
mod area;
mod cpu;
#[cfg(feature = "disassemble")]
mod disassemble;
mod ftrace;
mod howto;
mod image;
pub mod insn;
mod module_finalize;
mod paging;
#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod plt_tests;
mod plts;
mod relocate;

use alloc::vec::Vec;

use elf_layout::place::Windows;
use elf_layout::{Change, CpuCapabilities, Findings, KernelConfig, LoadInfo, Machine};

use crate::finalizer::Finalizer;
use crate::reach::Reach;
use crate::{Architecture, Cpu, ExtableEntry, FtraceBug, Howto, ModArch, Records, RelaSection};
use kernel::types::StructPaths;
use kernel::{Part, RunningKernel};

/// The aarch64 architecture.
#[derive(Debug)]
pub struct Aarch64;

/// Its facts.
pub static MACHINE: Machine = Machine {
    name: "aarch64",
    e_machine: object::elf::EM_AARCH64.0,
    source_arch: "arm64",
    debian_arch: "arm64",
    vermagic_word: "aarch64",
    text_addresses: 0xffff_0000..=0xffff_fffe,
    page_sizes: &[
        // Generic names since v6.9; the architecture's own before, and still.
        ("CONFIG_ARM64_64K_PAGES", 0x1_0000),
        ("CONFIG_PAGE_SIZE_64KB", 0x1_0000),
        ("CONFIG_ARM64_16K_PAGES", 0x4000),
        ("CONFIG_PAGE_SIZE_16KB", 0x4000),
    ],
    inline_static_calls: false,
    asks_for_retpoline: false,
    cpu_capabilities: &[
        CpuCapabilities { symbol: "system_cpucaps", member: None },
        // Its name before v6.4 (7f242982e46a).
        CpuCapabilities { symbol: "cpu_hwcaps", member: None },
    ],
    toolchain_symbols: &[],
};

/// Bit of [`Cpu`]: the capability ARM64_WORKAROUND_843419 is set (early Cortex-A53). Its name among the errata of a running
/// kernel is "843419".
pub const ERRATUM_843419: Cpu = Cpu(1);

impl Architecture for Aarch64 {
    fn module_area(&self, config: &KernelConfig, symbol: &dyn Fn(&str) -> Option<u64>) -> Windows {
        area::module_area(config.changes(), symbol)
    }

    fn cpu(&self, config: &KernelConfig, kernel: &dyn RunningKernel) -> Cpu {
        let given = kernel.errata().iter().any(|erratum| erratum == "843419");
        let number = || cpu::workaround_843419(config.changes(), kernel);
        let has = given || number().and_then(|number| kernel.capability(number)) == Some(true);
        if has { ERRATUM_843419 } else { Cpu::default() }
    }

    fn extable(&self, config: &KernelConfig) -> ExtableEntry {
        // Type and data since v5.16 (d6e2cc564775).
        ExtableEntry { size: if config.has(Change::ExtableTypes) { 12 } else { 8 }, addresses: 2 }
    }

    fn module_frob_arch_sections(&self, info: &mut LoadInfo<'_>, cpu: Cpu, said: &mut Findings) -> ModArch {
        plts::module_frob_arch_sections(info, cpu, said)
    }

    fn apply_relocate_add(
        &self,
        section: &mut RelaSection<'_>,
        records: Records<'_>,
        arch: &mut ModArch,
        said: &mut Findings,
    ) {
        relocate::apply_relocate_add(section, records, arch, said);
    }

    fn howto(&self, r_type: u32) -> Option<Howto> {
        relocate::howto_of(r_type)
    }

    fn reaches_every_symbol(&self, r_type: u32) -> bool {
        relocate::reaches_every_symbol(r_type)
    }

    fn reaches_temporary_copy(&self) -> bool {
        true
    }

    fn module_finalize(&self, module: &mut Finalizer<'_, '_>) {
        module_finalize::module_finalize(module);
    }

    fn reach(&self, config: &KernelConfig, kernel: &dyn RunningKernel, address: u64) -> Reach {
        let Windows { direct, fallback, .. } =
            area::module_area(config.changes(), &|name| kernel.symbol(name));
        addresses::reach(kernel, [direct, fallback.unwrap_or_default()], address)
    }

    fn refuse_in_module_finalize(&self, info: &LoadInfo<'_>, said: &mut Findings) {
        ftrace::refuse_without_ftrace_plt(info, said);
    }

    fn ftrace_callsites(&self, config: &KernelConfig) -> &'static str {
        ftrace::callsites(config)
    }

    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> Result<(), FtraceBug> {
        ftrace::ftrace_init_nop(module, site)
    }

    fn ignored_of_addresses(&self, config: &KernelConfig) -> u64 {
        if config.ignores_top_byte() == Some(false) { 0 } else { relocate::TOP_BYTE }
    }

    fn ftrace_site_in_copy(&self, module: &Finalizer<'_, '_>, index: usize, at: u64) -> bool {
        ftrace::site_in_copy(module, index, at)
    }

    fn jump_label_insn(
        &self,
        module: &Finalizer<'_, '_>,
        code: u64,
        target: u64,
        jump: bool,
    ) -> Option<Vec<u8>> {
        module.u32(code)?;
        let insn = if jump { insn::branch(code, target) } else { insn::NOP };
        Some(insn.to_le_bytes().to_vec())
    }

    fn ftrace_call_site(&self, module: &Finalizer<'_, '_>, site: u64) -> Option<(u64, u64)> {
        ftrace::call_site(module, site)
    }

    fn ftrace_ops_pointer(&self, config: &KernelConfig, site: u64) -> Option<u64> {
        config.dynamic_ftrace_with_call_ops.then_some(site)
    }

    fn call_target(&self, code: &[u8], address: u64) -> Option<u64> {
        insn::branch_target(code, address, true)
    }

    fn jump_target(&self, code: &[u8], address: u64) -> Option<u64> {
        insn::branch_target(code, address, false)
    }

    /// BRK64_OPCODE_KPROBES
    fn breakpoint(&self) -> &'static [u8] {
        &[0x80, 0x00, 0x20, 0xd4]
    }

    #[cfg(feature = "disassemble")]
    fn disassemble(&self, code: &[u8], address: u64) -> Option<(alloc::string::String, usize)> {
        disassemble::disassemble(code, address)
    }

    #[cfg(feature = "disassemble")]
    fn instruction_len(&self, code: &[u8]) -> Option<usize> {
        (code.len() >= disassemble::SIZE).then_some(disassemble::SIZE)
    }

    fn kernel_memory(&self) -> &'static [Part] {
        cpu::MEMORY
    }

    fn kernel_types(&self) -> &'static StructPaths {
        cpu::TYPES
    }

    fn mod_arch_specific(&self, module: &Finalizer<'_, '_>) -> Vec<(&'static str, u64)> {
        let mut members = plts::mod_arch_specific(module.load.mod_arch);
        members.extend(ftrace::mod_arch_specific(module));
        members
    }
}
