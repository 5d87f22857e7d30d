//! What a machine needs of an architecture, and of an image.

use alloc::vec::Vec;

use kernel_image::KernelImage;

use super::{Answer, Failed, Machine};
use crate::cpu::{Cpu, Stop};
use crate::kept::kept;
use crate::memory::Memory;
use crate::symbols::Symbols;

/// What stands in for a function.
pub type Stub<C> = fn(&mut Machine<C>) -> Result<Answer, Failed>;

/// Functions of the kernel that are not executed, what is done instead, and why.
#[derive(Debug)]
pub struct Row<C: Cpu> {
    /// Their names. Not every kernel has all of them.
    pub names: &'static [&'static str],
    /// What is done instead.
    pub stub: Stub<C>,
    /// Why.
    pub why: &'static str,
}

/// What an instruction does with the values of registers, each of which is a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Registers on whose values it depends what happens: of addresses, comparisons, and jumps.
    pub uses: u64,
    /// Registers whose values it reads, those among them.
    pub reads: u64,
    /// Registers that it writes.
    pub writes: u64,
    /// Does what happens depend on the memory that it reads?
    pub compares: bool,
    /// Does it write memory, and no register?
    pub stores: bool,
}

/// What a processor does for the kernel that runs on it.
pub trait Platform: Cpu + Default + crate::debugger::Registers {
    /// Where things are. `None` if the image does not say.
    fn space(image: &KernelImage<'_>, symbols: &Symbols, page_struct: u64) -> Option<Space>;
    /// Functions of this architecture that are not executed.
    fn rows() -> Vec<Row<Self>>;
    /// Variables that code sets which is not executed.
    fn presets(machine: &mut Machine<Self>) -> Result<Vec<Preset>, Failed>;
    /// Where per-cpu data lies, from the addresses that its symbols have.
    fn set_percpu_offset(&mut self, offset: u64);
    /// `current`
    fn current(machine: &Machine<Self>) -> Result<u64, Failed>;
    /// Is `current` to give way to others?
    fn needs_resched(machine: &Machine<Self>) -> Result<bool, Failed>;

    /// `e_machine` of what it executes.
    const MACHINE: u16;
    /// Of system calls: the beginning of the names of their functions.
    const SYSCALL: &'static str;
    /// Bytes of `struct pt_regs`.
    const FRAME: usize;
    /// The function that handles the instruction of BUG() and WARN(): `bool (struct pt_regs *)`, if it does more than `report_bug`.
    const BUG_HANDLER: Option<&'static str>;
    /// Functions of the boot's first processor that are called before those of `start_kernel`.
    const FIRST: &'static [&'static str];
    /// Functions that process 1 calls once all processors are there.
    const PROCESSORS: &'static [&'static str];
    /// Kinds of memory for code (`enum execmem_type`) that lie in the vmalloc area, and not in that of modules.
    const EXECMEM_IN_VMALLOC: &'static [u64] = &[];
    /// Initcalls of this architecture that are not called, and why.
    const SKIPPED: &'static [(&'static str, &'static str)];
    /// Members of structs of this architecture whose offsets are needed.
    const OFFSETS: &'static [(&'static str, &'static str)];

    /// Is that the instruction of BUG() and WARN()?
    fn is_bug(stop: &Stop) -> bool;
    /// `struct pt_regs` of the interrupted code.
    fn frame(&self) -> Vec<u8>;
    /// Takes the registers from such a frame.
    fn take_frame(&mut self, frame: &[u8]);
    /// Such a frame of a program that makes a system call.
    fn syscall_frame(arguments: &[u64]) -> Vec<u8>;
    /// The function that looks for a fault in the exception table, and its arguments behind the frame. It returns whether it has found
    /// it, and has changed the frame then.
    fn fixup(stop: &Stop) -> Option<(&'static str, [u64; 3])>;
    /// Goes on behind the instruction that has raised an exception.
    fn skip(&mut self, memory: &mut Memory);
    /// Where per-cpu data lies, from the addresses that its symbols have.
    fn percpu_offset(&self) -> u64;
    /// Is the code before this address a call, so that the address may be one to return to?
    fn is_behind_call(memory: &Memory, address: u64) -> bool;
    /// Bytes of the instruction at an address, and whether another than the next one may follow it.
    fn extent(memory: &mut Memory, address: u64) -> (u64, bool) {
        let _ = (memory, address);
        (4, true)
    }
    /// What the instruction at an address does with the values of registers. Without it no use of what nobody has written is known.
    fn flow(memory: &Memory, address: u64) -> Flow {
        let _ = (memory, address);
        Flow::default()
    }
    /// May an interrupt come before the next instruction?
    fn is_interruptible(&self) -> bool;
    /// The registers of arguments.
    const ARGUMENTS: u64;
    /// Is a function of this name a jump to another, which the caller has written, or the way back?
    fn is_thunk(name: &str) -> bool {
        let _ = name;
        false
    }
    /// How it is that read-only memory can be written, in a sentence.
    const UNPROTECTED: &'static str = "read-only memory can be written from here on";
    /// The same registers, with nothing decoded.
    fn fork(&self) -> Self;
    /// Instructions executed so far.
    fn executed(&self) -> u64;
}

/// Where things are in the address space.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// The first address of the image, the first one behind it, and where it begins in physical memory.
    pub image: (u64, u64, u64),
    /// Where all of physical memory is shown.
    pub direct: u64,
    /// `struct page` of each page.
    pub pages: u64,
    /// Bytes of `struct page`.
    pub page_struct: u64,
    /// Where modules lie, from and up to.
    pub modules: (u64, u64),
    /// Where vmalloc memory lies, from and up to.
    pub vmalloc: (u64, u64),
    /// Where a real machine may have memory that this one does not have, each from and up to: a fault there says nothing.
    pub unknown: [(u64, u64); 2],
    /// Memory of programs, from and up to.
    pub user: (u64, u64),
    /// A page of which each address is one that the machine returns to.
    pub returns: u64,
}

kept!(Space { image, direct, pages, page_struct, modules, vmalloc, unknown, user, returns });

/// A variable that is set before the kernel's code runs.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name, and how far behind it the value lies; or an address.
    pub place: Place,
    /// The value.
    pub value: u64,
    /// Its bytes.
    pub size: u8,
    /// Which code would set it.
    pub why: &'static str,
}

/// Where a preset is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Behind a symbol. Not every kernel has all of them.
    Symbol(&'static str, u64),
    /// At an address.
    Address(u64),
}

impl Preset {
    /// A value behind a symbol.
    pub fn of(symbol: &'static str, offset: u64, value: u64, size: u8, why: &'static str) -> Self {
        Preset { place: Place::Symbol(symbol, offset), value, size, why }
    }

    /// A value at an address.
    pub fn at(address: u64, value: u64, size: u8, why: &'static str) -> Self {
        Preset { place: Place::Address(address), value, size, why }
    }
}
