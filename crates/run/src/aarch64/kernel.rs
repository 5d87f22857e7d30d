//! What a kernel needs of this architecture: frames, presets, and functions that are not executed.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use kernel_image::KernelImage;

use super::A64;
use crate::boot::{Error, Report};
use crate::cpu::{Cpu, Exception, Stop};
use crate::kept::Reader;
use crate::machine::{Answer, Failed, Flow, Machine, Platform, Preset, Row, Space};
use crate::memory::{Access, Memory};
use crate::parameters::Told;
use crate::processor::{self, Processor};
use crate::stubs;
use crate::symbols::Symbols;
use crate::system::Running;

/// Where all of physical memory is shown: PAGE_OFFSET of kernels with 48 bits of virtual addresses, and of those with more on a processor
/// that has no more.
const DIRECT: u64 = 0xffff_0000_0000_0000;
/// PAGE_OFFSET of a kernel with 52 bits.
const PAGE_OFFSET_52: u64 = 0xfff0_0000_0000_0000;
/// FIXADDR_TOP: nothing ever lies from here on.
const TOP: u64 = 0xffff_ffff_ff80_0000;
/// vmemmap up to v6.8, and since, where it shows the direct mapping.
const PAGES: (u64, u64) = (0xffff_fc00_0000_0000, 0xffff_fdff_c000_0000);
/// Where the image begins in physical memory.
const PHYSICAL: u64 = 2 << 20;
/// The window of modules: so far may they call the kernel.
const MODULES: u64 = 128 << 20;
/// An address of programs, and how much memory they have.
const USER: (u64, u64) = (0x1000_0000, 64 << 20);
/// An address that nothing else has.
const RETURNS: u64 = 0xffff_ffff_ffc0_0000;
/// IRQ_STACK_SIZE is half of it.
const IRQ_STACK: u64 = 0x8000;
/// BOOT_CPU_MODE_EL1
const MODE_EL1: u64 = 0xe11;
/// BUG_BRK_IMM
const BUG: u16 = 0x800;
/// PSR_MODE_EL1h
const EL1: u64 = 5;
/// The general registers of `struct pt_regs`; then sp, pc, pstate.
const GENERAL: u8 = 31;

/// Why ports are no memory.
const NO_PORTS: &str = "nobody answers at a port: reads find ones";
/// The number of the first word behind `struct user_pt_regs`.
const BEHIND_USER: usize = 34;

impl Platform for A64 {
    fn space(image: &KernelImage<'_>, symbols: &Symbols, page_struct: u64) -> Option<Space> {
        let (start, end) = (symbols.address("_text")?, symbols.address("_end")?);
        // Kernels with larger pages have other address spaces.
        if image.page_size()? != 4096 {
            return None;
        }
        let newer = symbols.address("__pi_early_map_kernel").is_some();
        let pages = if newer { PAGES.1 } else { PAGES.0 };
        let modules = first_of_modules(symbols)?;
        Some(Space {
            image: (start, end, PHYSICAL),
            direct: DIRECT,
            pages,
            page_struct,
            modules: (modules, start),
            vmalloc: (end.checked_next_multiple_of(1 << 30)?, pages),
            unknown: [(DIRECT, modules), (end, TOP)],
            user: (USER.0, USER.0.wrapping_add(USER.1)),
            returns: RETURNS,
        })
    }

    fn rows() -> Vec<Row<Self>> {
        rows()
    }

    fn presets(m: &mut Machine<Self>) -> Result<Vec<Preset>, Failed> {
        let stack = m.allocate(IRQ_STACK, IRQ_STACK >> 1)?;
        let node = m.allocate(300_000, 64)?;
        let dummy = m.symbols.address("dummy_con").unwrap_or(0);
        let task = m.symbol("init_task")?;
        m.cpu.set_sp_el0(task);
        // With five levels of page tables there are 52 bits.
        let has_52 = m.symbols.address("__p4d_alloc").is_some();
        let memory = if has_52 { PAGE_OFFSET_52.wrapping_sub(DIRECT) } else { 0 };
        let (image, _, physical) = m.space.image;
        let mut all = alloc::vec![
            Preset::of("node_data", 0, node, 8, "alloc_node_data makes the only memory node"),
            Preset::of("conswitchp", 0, dummy, 8, "setup_arch takes the dummy console"),
            Preset::of("memstart_addr", 0, memory, 8, "arm64_memblock_init finds where memory begins"),
            Preset::of(
                "kimage_voffset",
                0,
                image.wrapping_sub(physical),
                8,
                "the first code of the kernel keeps where it lies"
            ),
            Preset::of("vabits_actual", 0, 48, 8, "the first code of the kernel asks the processor"),
            Preset::of("__boot_cpu_mode", 0, MODE_EL1, 4, "the first code of the kernel keeps its level"),
            Preset::of("__cpu_logical_map", 0, 0, 8, "smp_setup_processor_id knows the first processor"),
        ];
        if let Some(pointer) = m.symbols.address("irq_stack_ptr") {
            let why = "init_irq_stacks gives the processor its stack for interrupts";
            all.push(Preset::at(m.percpu(pointer), stack, 8, why));
        }
        Ok(all)
    }

    fn set_percpu_offset(&mut self, offset: u64) {
        self.set_tpidr_el1(offset);
    }

    fn current(m: &Machine<Self>) -> Result<u64, Failed> {
        Ok(m.cpu.sp_el0())
    }

    fn needs_resched(m: &Machine<Self>) -> Result<bool, Failed> {
        // thread_info is the first member of task_struct. Its count of preemption has, in the upper half, 0 if there is need.
        let at = Self::current(m)?.wrapping_add(m.offset("thread_info.preempt_count")?);
        Ok(m.memory.u64(at)? >> 32 == 0)
    }

    /// EM_AARCH64
    const MACHINE: u16 = 183;
    const SYSCALL: &'static str = "__arm64_sys_";
    const FRAME: usize = 0x160;
    // bug_handler calls report_bug, and goes on.
    const BUG_HANDLER: Option<&'static str> = None;
    const OFFSETS: &'static [(&'static str, &'static str)] = &[("thread_info", "preempt_count")];
    const FIRST: &'static [&'static str] = &["jump_label_init", "parse_early_param", "smp_prepare_boot_cpu"];
    const PROCESSORS: &'static [&'static str] = &["smp_cpus_done"];
    // EXECMEM_KPROBES and EXECMEM_BPF
    const EXECMEM_IN_VMALLOC: &'static [u64] = &[1, 3];
    const SKIPPED: &'static [(&'static str, &'static str)] = &[];

    fn is_bug(stop: &Stop) -> bool {
        *stop == Stop::Exception(Exception::Trap(BUG))
    }

    fn frame(&self) -> Vec<u8> {
        let state = u64::from(self.flags()) << 28 | self.daif() | EL1;
        let mut words: Vec<u64> = (0..GENERAL).map(|number| self.x(number)).collect();
        // orig_x0, and the number of no system call
        words.extend([self.sp(), self.pc(), state, u64::MAX, 0xffff_ffff]);
        words.resize(Self::FRAME / 8, 0);
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn take_frame(&mut self, frame: &[u8]) {
        let words: Vec<u64> =
            frame.chunks(8).filter_map(|word| Some(u64::from_le_bytes(*word.first_chunk()?))).collect();
        for (number, value) in (0..GENERAL).zip(&words) {
            self.set_x(number, *value);
        }
        if let Some([sp, pc, state, ..]) = words.get(usize::from(GENERAL)..) {
            self.set_sp(*sp);
            self.set_pc(*pc);
            self.set_flags((*state >> 28 & 15) as u8);
        }
    }

    fn syscall_frame(arguments: &[u64]) -> Vec<u8> {
        let mut words = [0u64; Self::FRAME / 8];
        for (word, value) in words.iter_mut().zip(arguments.iter().take(6)) {
            *word = *value;
        }
        if let (Some(first), Some(word)) = (arguments.first(), words.get_mut(BEHIND_USER)) {
            *word = *first;
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn fixup(stop: &Stop) -> Option<(&'static str, [u64; 3])> {
        // ESR_EL1: a data abort at the same level, whether by a write, and a translation or permission fault of the last level.
        match stop {
            Stop::Fault(fault) if fault.access != Access::Execute => {
                let write = if fault.access == Access::Write { 1 << 6 } else { 0 };
                let status = if fault.mapped { 0xf } else { 7 };
                Some(("fixup_exception", [0x25 << 26 | 1 << 25 | write | status, 0, 0]))
            }
            _ => None,
        }
    }

    fn skip(&mut self, _memory: &mut Memory) {
        self.set_pc(self.pc().wrapping_add(4));
    }

    fn extent(memory: &mut Memory, address: u64) -> (u64, bool) {
        (4, memory.u32(address).map_or(true, super::ends))
    }

    fn mask_interrupts(&mut self) -> bool {
        A64::mask_interrupts(self)
    }

    fn flow(memory: &Memory, address: u64) -> Flow {
        memory.u32(address).map(super::flow::flow).unwrap_or_default()
    }

    /// x0 to x7
    const ARGUMENTS: u64 = 0xff;

    fn percpu_offset(&self) -> u64 {
        self.tpidr_el1()
    }

    fn is_behind_call(memory: &Memory, address: u64) -> bool {
        let Ok(word) = memory.u32(address.wrapping_sub(4)) else { return false };
        // BL; BLR, BLRAA and the like
        address & 3 == 0 && (word >> 26 == 0x25 || word & 0xfeff_f000 == 0xd63f_0000)
    }

    fn fork(&self) -> Self {
        A64::fork(self)
    }

    fn executed(&self) -> u64 {
        A64::executed(self)
    }
}

/// LAYOUT-52: where the window of modules begins, without KASLR.
fn first_of_modules(symbols: &Symbols) -> Option<u64> {
    // Since v6.5 it ends with the kernel (module_init_limits, from v6.10 on part of execmem_arch_setup), before with its code.
    let whole =
        ["module_init_limits", "execmem_arch_setup"].iter().any(|name| symbols.address(name).is_some());
    let last = symbols.address(if whole { "_end" } else { "_etext" })?;
    last.checked_sub(MODULES)?.checked_next_multiple_of(4096)
}

/// Writes code. `patch_map` looks for the page in the page tables, and where there can be none, it is BUG().
fn poke(m: &mut Machine<A64>, at: u64, bytes: &[u8]) -> Result<(), Failed> {
    m.memory.poke(at, bytes).map_err(|fault| {
        let (start, end) = m.space.modules;
        let never = fault.address >= TOP || (start..end).contains(&fault.address);
        if never || m.world.is_guard(fault.address) {
            return Failed::Crash(format!(
                "kernel BUG: code is written at {:#x}, where no page is",
                fault.address
            ));
        }
        fault.into()
    })
}

/// Writes an instruction.
fn patch(m: &mut Machine<A64>) -> Result<Answer, Failed> {
    let (at, word) = (m.argument(0)?, m.argument(1)? as u32);
    poke(m, at, &word.to_le_bytes())?;
    Ok(Answer::Value(0))
}

/// `(void *addrs[], u32 insns[], int count)`
fn patch_all(m: &mut Machine<A64>) -> Result<Answer, Failed> {
    let (places, words, count) = (m.argument(0)?, m.argument(1)?, m.argument(2)? & 0xffff);
    for number in 0..count {
        let at = m.memory.u64(places.wrapping_add(number.wrapping_mul(8)))?;
        let word = m.memory.u32(words.wrapping_add(number.wrapping_mul(4)))?;
        poke(m, at, &word.to_le_bytes())?;
    }
    Ok(Answer::Value(0))
}

/// `(to, from, bytes)`
fn copy(m: &mut Machine<A64>) -> Result<Answer, Failed> {
    let (to, from, len) = (m.argument(0)?, m.argument(1)?, m.argument(2)?);
    let bytes = m.memory.bytes(from, usize::try_from(len.min(1 << 26)).unwrap_or(0))?;
    poke(m, to, &bytes)?;
    Ok(Answer::Value(to))
}

/// `(to, instruction, bytes)`
fn fill(m: &mut Machine<A64>) -> Result<Answer, Failed> {
    let (to, word, len) = (m.argument(0)?, m.argument(1)? as u32, m.argument(2)?.min(1 << 26));
    for number in 0..len >> 2 {
        poke(m, to.wrapping_add(number << 2), &word.to_le_bytes())?;
    }
    Ok(Answer::Value(to))
}

fn nothing(_: &mut Machine<A64>) -> Result<Answer, Failed> {
    Ok(Answer::Value(0))
}

/// Functions of this architecture that are not executed.
fn rows() -> Vec<Row<A64>> {
    let rows: [Row<A64>; 12] = [
        Row {
            names: &["aarch64_insn_patch_text_nosync", "aarch64_insn_write", "__aarch64_insn_write"],
            stub: patch,
            why: "code is written through a fixed mapping, for which there are no page tables",
        },
        Row {
            names: &["aarch64_insn_patch_text"],
            stub: patch_all,
            why: "code is written through a fixed mapping, while other processors wait",
        },
        Row {
            names: &["aarch64_insn_write_literal_u64"],
            stub: |m| {
                let (at, value) = (m.argument(0)?, m.argument(1)?);
                poke(m, at, &value.to_le_bytes())?;
                Ok(Answer::Value(0))
            },
            why: "code is written through a fixed mapping",
        },
        Row { names: &["aarch64_insn_copy"], stub: copy, why: "code is written through a fixed mapping" },
        Row { names: &["aarch64_insn_set"], stub: fill, why: "code is written through a fixed mapping" },
        Row {
            names: &[
                "caches_clean_inval_pou",
                "caches_clean_inval_user_pou",
                "dcache_clean_pou",
                "dcache_clean_poc",
                "dcache_clean_pop",
                "dcache_clean_inval_poc",
                "dcache_inval_poc",
                "icache_inval_pou",
                "icache_inval_all_pou",
                "sync_icache_aliases",
                "__sync_icache_dcache",
                "kick_all_cpus_sync",
            ],
            stub: nothing,
            why: "there are no caches, and no other processors",
        },
        Row {
            names: &["arch_cpu_idle", "cpu_do_idle"],
            stub: stubs::idle,
            why: "nothing interrupts the processor: the next tick comes at once",
        },
        Row { names: &["logic_inb"], stub: |_| Ok(Answer::Value(0xff)), why: NO_PORTS },
        Row { names: &["logic_inw"], stub: |_| Ok(Answer::Value(0xffff)), why: NO_PORTS },
        Row { names: &["logic_inl"], stub: |_| Ok(Answer::Value(0xffff_ffff)), why: NO_PORTS },
        Row { names: &["logic_outb", "logic_outw", "logic_outl"], stub: nothing, why: NO_PORTS },
        Row {
            names: &["mark_linear_text_alias_ro", "update_mapping_prot", "change_memory_common"],
            stub: nothing,
            why: "there are no page tables",
        },
    ];
    rows.into()
}

/// Boots kernels of this architecture.
#[derive(Debug)]
pub struct Boots;

impl Processor for Boots {
    fn machine(&self) -> u16 {
        A64::MACHINE
    }

    fn boot(
        &self,
        image: &KernelImage<'_>,
        told: &Told,
        budget: u64,
    ) -> Result<(Box<dyn Running>, Report), Error> {
        processor::boot::<A64>(image, told, budget)
    }

    fn take_up(&self, from: Reader, budget: u64) -> Option<(Box<dyn Running>, Report)> {
        processor::taken_up::<A64>(from, budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_52_where_modules_begin() {
        let first = |more: &[(u64, &'static [u8])]| {
            let ends = [(0xffff_8000_08d0_0000, &b"_etext"[..]), (0xffff_8000_82b2_fff0, b"_end")];
            first_of_modules(&Symbols::new(ends.iter().chain(more).copied()))
        };
        // Debian's 6.1, and its 6.12.
        assert_eq!(first(&[]), Some(0xffff_8000_00d0_0000), "LAYOUT-52");
        for name in [&b"module_init_limits"[..], b"execmem_arch_setup"] {
            assert_eq!(first(&[(1, name)]), Some(0xffff_8000_7ab3_0000), "LAYOUT-52");
        }
    }
}
