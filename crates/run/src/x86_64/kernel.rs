//! What a kernel needs of this architecture: frames, presets, and functions that are not executed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel_image::KernelImage;

use super::execute::IF;
use super::{Gpr, X86};
use super::{decode, flow};
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

/// The general registers in the order of `struct pt_regs`.
const FRAME_ORDER: [u8; 15] = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7];
/// The places of the arguments of a system call in it: rdi, rsi, rdx, r10, r8, r9.
const SYSCALL_ORDER: [usize; 6] = [14, 13, 12, 7, 9, 8];
/// __KERNEL_CS, __KERNEL_DS
const KERNEL_SELECTORS: (u64, u64) = (0x10, 0x18);
/// __USER_CS, __USER_DS
const USER_SELECTORS: (u64, u64) = (0x33, 0x2b);
/// X86_TRAP_GP and X86_TRAP_PF
const TRAPS: (u64, u64) = (13, 14);

/// __START_KERNEL_map: where the kernel's mapping of physical memory from 0 begins.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// Nothing ever lies from here up to the kernel's mapping (Documentation/arch/x86/x86_64/mm.rst).
const HOLE: u64 = 0xffff_ffff_0000_0000;
/// MODULES_VADDR and MODULES_END of a kernel with CONFIG_RANDOMIZE_BASE.
const MODULES: (u64, u64) = (0xffff_ffff_c000_0000, 0xffff_ffff_ff00_0000);
/// An address of programs, and how much memory they have.
const USER: (u64, u64) = (0x1000_0000, 64 << 20);
/// An address that nothing else has, in the hole below the fixed mappings.
const RETURNS: u64 = 0xffff_ffff_ff20_0000;
/// Capabilities that decide how code is patched, and that the code for it asks for by other code that is patched: words of 32 bits, and bits.
/// Mitigations have the words 11 and 21 since v5.19, X86_FEATURE_IBT is 18 * 32 + 20. None of them stands for an instruction that patched code
/// of the kernel comes to.
const PATCHING: [(u64, u32); 3] = [(11, u32::MAX), (21, u32::MAX), (18, 1 << 20)];
/// Bits of word 11: X86_FEATURE_RETHUNK; X86_FEATURE_CALL_DEPTH, X86_FEATURE_SRSO_ALIAS and X86_FEATURE_SRSO, whose return thunks are their own.
/// The others have that of retbleed.
const RETURNS_WORD: u64 = 11;
const RETHUNK: u32 = 1 << 14;
const RETURN_THUNKS: [(u32, &str); 4] = [
    (1 << 19, "call_depth_return_thunk"),
    (1 << 25, "srso_alias_return_thunk"),
    (1 << 24, "srso_return_thunk"),
    (RETHUNK, "retbleed_return_thunk"),
];
/// Masks of processors that are allocated early.
const MASKS: [&str; 5] = [
    "cpu_callin_mask",
    "cpu_callout_mask",
    "cpu_initialized_mask",
    "cpu_sibling_setup_mask",
    "node_to_cpumask_map",
];
/// IRQ_STACK_SIZE is half of it.
const IRQ_STACK: u64 = 0x8000;

impl Platform for X86 {
    fn space(image: &KernelImage<'_>, symbols: &Symbols, page_struct: u64) -> Option<Space> {
        let variable = |name| image.read_u64(symbols.address(name)?);
        let (start, end) = (symbols.address("_text")?, symbols.address("_end")?);
        Some(Space {
            image: (start, end, start.checked_sub(KERNEL_MAP)?),
            direct: variable("page_offset_base")?,
            pages: variable("vmemmap_base")?,
            page_struct,
            modules: MODULES,
            vmalloc: (variable("vmalloc_base")?, variable("vmemmap_base")?),
            unknown: [(variable("page_offset_base")?, HOLE), (0, 0)],
            user: (USER.0, USER.0.wrapping_add(USER.1)),
            returns: RETURNS,
        })
    }

    fn rows() -> Vec<Row<Self>> {
        rows()
    }

    fn presets(m: &mut Machine<Self>) -> Result<Vec<Preset>, Failed> {
        let stack = m.allocate(IRQ_STACK, IRQ_STACK >> 1)?.wrapping_add(IRQ_STACK).wrapping_sub(16);
        let node = m.allocate(300_000, 64)?;
        let stack_pointer = percpu(m, "hardirq_stack_ptr", "pcpu_hot.hardirq_stack_ptr")?;
        let dummy = m.symbols.address("dummy_con").unwrap_or(0);
        let mut all = alloc::vec![
            Preset::at(
                stack_pointer,
                stack,
                8,
                "irq_init_percpu_irqstack gives the processor its stack for interrupts"
            ),
            Preset::of("node_data", 0, node, 8, "alloc_node_data makes the only memory node"),
            Preset::of("conswitchp", 0, dummy, 8, "setup_arch takes the dummy console"),
            Preset::of("acpi_disabled", 0, 1, 4, "acpi_boot_table_init finds no tables"),
            Preset::of("acpi_pci_disabled", 0, 1, 4, "acpi_boot_table_init finds no tables"),
            Preset::of("acpi_noirq", 0, 1, 4, "acpi_boot_table_init finds no tables"),
        ];
        // Masks of processors that are not part of what holds them (CONFIG_CPUMASK_OFFSTACK).
        if m.symbols.address("alloc_cpumask_var_node").is_some() {
            for name in MASKS {
                let mask = m.allocate(64, 64)?;
                all.push(Preset::of(name, 0, mask, 8, "setup_per_cpu_areas allocates it"));
            }
        }
        Ok(all)
    }

    fn set_percpu_offset(&mut self, offset: u64) {
        self.set_gs_base(offset);
    }

    fn current(m: &Machine<Self>) -> Result<u64, Failed> {
        let at = percpu(m, "current_task", "pcpu_hot.current_task")?;
        Ok(m.memory.u64(at)?)
    }

    fn needs_resched(m: &Machine<Self>) -> Result<bool, Failed> {
        // thread_info is the first member of task_struct, and its flags are the first of it. _TIF_NEED_RESCHED
        Ok(m.memory.u64(Self::current(m)?)? & 1 << 3 != 0)
    }

    /// EM_X86_64
    const MACHINE: u16 = 62;
    const SYSCALL: &'static str = "__x64_sys_";
    const FRAME: usize = 21 * 8;
    const BUG_HANDLER: Option<&'static str> = Some("handle_bug");
    const BREAKPOINT_HANDLER: Option<&'static str> = Some("do_int3");
    // As setup_arch does.
    const FIRST: &'static [&'static str] =
        &["early_cpu_init", "jump_label_init", "static_call_init", "parse_early_param"];
    const PROCESSORS: &'static [&'static str] = &["smp_prepare_cpus_common"];
    const SKIPPED: &'static [(&'static str, &'static str)] =
        &[("do_init_real_mode", "there is no memory below 1 MiB for a trampoline")];
    const OFFSETS: &'static [(&'static str, &'static str)] = &[];

    fn is_bug(stop: &Stop) -> bool {
        *stop == Stop::Exception(Exception::Undefined)
    }

    fn frame(&self) -> Vec<u8> {
        let general = FRAME_ORDER.iter().map(|register| self.gpr(Gpr(*register)));
        let (cs, ss) = KERNEL_SELECTORS;
        let rest = [u64::MAX, self.pc(), cs, self.rflags(), self.sp(), ss];
        general.chain(rest).flat_map(u64::to_le_bytes).collect()
    }

    fn take_frame(&mut self, frame: &[u8]) {
        let words: Vec<u64> =
            frame.chunks(8).filter_map(|word| Some(u64::from_le_bytes(*word.first_chunk()?))).collect();
        for (register, value) in FRAME_ORDER.iter().zip(&words) {
            self.set_gpr(Gpr(*register), *value);
        }
        if let Some([_, ip, _, flags, sp, _]) = words.get(FRAME_ORDER.len()..) {
            self.set_pc(*ip);
            self.set_rflags(*flags);
            self.set_sp(*sp);
        }
    }

    fn syscall_frame(arguments: &[u64]) -> Vec<u8> {
        let mut words = [0u64; 21];
        for (place, value) in SYSCALL_ORDER.iter().zip(arguments) {
            if let Some(word) = words.get_mut(*place) {
                *word = *value;
            }
        }
        let (cs, ss) = USER_SELECTORS;
        for (place, value) in [(17, cs), (20, ss)] {
            if let Some(word) = words.get_mut(place) {
                *word = value;
            }
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn fixup(stop: &Stop) -> Option<(&'static str, [u64; 3])> {
        // Bits of the error code of a page fault.
        let arguments = match stop {
            Stop::Fault(fault) => {
                let write = if fault.access == Access::Write { 2 } else { 0 };
                [TRAPS.1, write | u64::from(fault.mapped), fault.address]
            }
            Stop::Exception(Exception::Protection) => [TRAPS.0, 0, 0],
            _ => return None,
        };
        Some(("fixup_exception", arguments))
    }

    fn skip(&mut self, memory: &mut Memory) {
        let mut code = [0; 15];
        let read = memory.fetch(self.pc(), &mut code).unwrap_or(0);
        let block = decode::block(code.get(..read).unwrap_or_default(), self.pc(), |_| true);
        if let Some(first) = block.instructions.first() {
            self.set_pc(first.next);
        }
    }

    fn percpu_offset(&self) -> u64 {
        self.gs_base()
    }

    fn is_behind_call(memory: &Memory, address: u64) -> bool {
        let Ok(before) = memory.bytes(address.wrapping_sub(6), 6) else { return false };
        // call rel32; call r/m64, of two to six bytes
        matches!(before.as_slice(), [_, 0xe8, ..])
            || (0..5).any(|at| {
                let is_call = |modrm: &u8| modrm & 0x38 == 0x10;
                before.get(at) == Some(&0xff) && before.get(at.wrapping_add(1)).is_some_and(is_call)
            })
    }

    fn extent(memory: &mut Memory, address: u64) -> (u64, bool) {
        let mut code = [0; 15];
        let read = memory.fetch(address, &mut code).unwrap_or(0);
        decode::extent(code.get(..read).unwrap_or_default(), address)
    }

    fn mask_interrupts(&mut self) -> bool {
        let is_enabled = self.state.others & IF != 0;
        self.state.others &= !IF;
        is_enabled
    }

    fn flow(memory: &Memory, address: u64) -> Flow {
        // Behind the page there may be nothing.
        let code = (1..=15).rev().find_map(|len| memory.bytes(address, len).ok());
        flow::flow(&code.unwrap_or_default())
    }

    /// rdi, rsi, rdx, rcx, r8, r9
    const ARGUMENTS: u64 = 0b11_1100_0110;

    fn is_thunk(name: &str) -> bool {
        let beginnings = ["__x86_indirect_", "__x86_return_thunk", "__SCT__"];
        beginnings.iter().any(|begin| name.starts_with(begin)) || name.ends_with("_return_thunk")
    }

    const UNPROTECTED: &'static str = "CR0.WP is cleared: read-only memory can be written from here on";

    fn fork(&self) -> Self {
        X86::fork(self)
    }

    fn executed(&self) -> u64 {
        X86::executed(self)
    }
}

/// The address of a per-cpu variable, which may be a member of `pcpu_hot` (v6.2 to v6.14).
fn percpu(m: &Machine<X86>, name: &str, member: &'static str) -> Result<u64, Failed> {
    let pointer = match m.symbols.address(name) {
        Some(pointer) => pointer,
        None => m.symbol("pcpu_hot")?.wrapping_add(m.offset(member)?),
    };
    Ok(m.percpu(pointer))
}

/// Functions of this architecture that are not executed.
fn rows() -> Vec<Row<X86>> {
    let rows: [Row<X86>; 10] = [
        Row {
            names: &[
                "text_poke_early",
                "text_poke_bp",
                "text_poke_queue",
                "text_poke",
                "smp_text_poke_single",
                "smp_text_poke_batch_add",
                "text_poke_kgdb",
            ],
            stub: |m| {
                let (to, from, len) = (m.argument(0)?, m.argument(1)?, m.argument(2)?);
                poke(m, to, from, len)?;
                Ok(Answer::Value(to))
            },
            why: "code is written through a second mapping, for which there are no page tables",
        },
        Row {
            names: &["text_poke_copy", "text_poke_copy_locked"],
            stub: |m| {
                let (to, from, len) = (m.argument(0)?, m.argument(1)?, m.argument(2)?);
                poke(m, to, from, len)?;
                Ok(Answer::Value(to))
            },
            why: "code is written through a second mapping",
        },
        Row {
            names: &["__text_poke"],
            stub: poke_by,
            why: "code is written through a second mapping, for which there are no page tables",
        },
        Row {
            names: &["text_poke_set"],
            stub: |m| {
                let (to, byte, len) = (m.argument(0)?, m.argument(1)? as u8, m.argument(2)?);
                let len = usize::try_from(len.min(1 << 26)).unwrap_or(0);
                m.memory.poke(to, &alloc::vec![byte; len])?;
                Ok(Answer::Value(to))
            },
            why: "code is written through a second mapping",
        },
        Row {
            names: &[
                "text_poke_finish",
                "smp_text_poke_batch_finish",
                "text_poke_sync",
                "smp_text_poke_sync_each_cpu",
                "do_sync_core",
            ],
            stub: |_| Ok(Answer::Value(0)),
            why: "code is decoded again when it is written",
        },
        Row {
            names: &["arch_cpu_idle", "default_idle"],
            stub: stubs::idle,
            why: "nothing interrupts the processor: the next tick comes at once",
        },
        Row {
            names: &["alternative_instructions"],
            stub: take_patching,
            why: "capabilities that the machine is told decide how code is patched",
        },
        Row {
            names: &["native_apic_mem_read"],
            stub: |_| Ok(Answer::Value(0)),
            why: "there is no interrupt controller",
        },
        Row {
            names: &["change_page_attr_set_clr"],
            stub: |_| Ok(Answer::Value(0)),
            why: "there are no page tables",
        },
        Row {
            names: &["flush_tlb_kernel_range", "flush_tlb_all", "flush_tlb_mm_range", "__flush_tlb_all"],
            stub: |_| Ok(Answer::Value(0)),
            why: "there are no page tables",
        },
    ];
    rows.into()
}

/// The return thunk that the mitigations of these capabilities set. That of the image is for no kernel that runs.
fn take_return_thunk(m: &mut Machine<X86>, bits: u32) -> Result<(), Failed> {
    let own = RETURN_THUNKS.iter().filter(|(bit, _)| bits & bit != 0);
    let thunk = own.filter_map(|(_, name)| m.symbols.address(name)).next();
    if let (Some(pointer), Some(thunk)) = (m.symbols.address("x86_return_thunk"), thunk) {
        m.memory.write(pointer, &thunk.to_le_bytes())?;
    }
    Ok(())
}

/// Takes those of the capabilities that were told that decide how code is patched.
fn take_patching(m: &mut Machine<X86>) -> Result<Answer, Failed> {
    if let Some((place, told)) = m.world.capabilities.clone() {
        for (number, mask) in PATCHING {
            let word = |at: u64| told.get(usize::try_from(at).ok()?..)?.first_chunk().copied();
            // A kernel without that word does not ask for it.
            let at = number.wrapping_mul(4);
            let Some(new) = word(at).map(u32::from_le_bytes) else { continue };
            let place = place.wrapping_add(at);
            let mixed = m.memory.u32(place)? & !mask | new & mask;
            m.memory.write(place, &mixed.to_le_bytes())?;
            if number == RETURNS_WORD && new & RETHUNK != 0 {
                take_return_thunk(m, new)?;
            }
        }
    }
    Ok(Answer::Pass)
}

/// `(function, to, source, len)`; up to v5.18 `(to, from, len)`
fn poke_by(m: &mut Machine<X86>) -> Result<Answer, Failed> {
    let first = m.argument(0)?;
    let copies = m.symbols.address("text_poke_memcpy");
    if copies.is_none_or(|function| function == first) {
        let behind = usize::from(copies.is_some());
        let arguments = [m.argument(behind)?, m.argument(behind.wrapping_add(1))?];
        let len = m.argument(behind.wrapping_add(2))?;
        let [to, from] = arguments;
        poke(m, to, from, len)?;
        return Ok(Answer::Value(to));
    }
    // text_poke_memset: the source is an int.
    let (to, from, len) = (m.argument(1)?, m.argument(2)?, m.argument(3)?);
    let byte = m.memory.bytes(from, 1)?.first().copied().unwrap_or(0);
    m.memory.poke(to, &alloc::vec![byte; usize::try_from(len.min(1 << 26)).unwrap_or(0)])?;
    Ok(Answer::Value(to))
}

fn poke(m: &mut Machine<X86>, to: u64, from: u64, len: u64) -> Result<(), Failed> {
    let bytes = m.memory.bytes(from, usize::try_from(len.min(1 << 26)).unwrap_or(0))?;
    m.memory.poke(to, &bytes)?;
    Ok(())
}

/// Boots kernels of this architecture.
#[derive(Debug)]
pub struct Boots;

impl Processor for Boots {
    fn machine(&self) -> u16 {
        X86::MACHINE
    }

    fn boot(
        &self,
        image: &KernelImage<'_>,
        told: &Told,
        budget: u64,
    ) -> Result<(Box<dyn Running>, Report), Error> {
        processor::boot::<X86>(image, told, budget)
    }

    fn take_up(&self, from: Reader, budget: u64) -> Option<(Box<dyn Running>, Report)> {
        processor::taken_up::<X86>(from, budget)
    }
}
