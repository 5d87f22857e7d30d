//! x86_64: an interpreter of its instructions, except arithmetic on floating-point numbers.
//!
//! Blocks are decoded once and linked to those that follow them; flags are computed when they are read. It is one processor without
//! interrupts and without paging: addresses are those of [`Memory`]. What CPUID tells of it is in `cpuid.rs`.

mod cpuid;
mod debugger;
mod decode;
mod execute;
mod flags;
mod flow;
mod instruction;
mod kernel;
mod newer;
mod rarely;
#[cfg(test)]
mod tests;
mod vector;

pub use kernel::Boots;

use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cpu::{Call, Cpu, Stop};
use crate::memory::{Fault, Memory};
use decode::{BLOCK_BYTES, Block};
use execute::{Flow, RAX, RCX, RDI, RDX, RSI, RSP, State};

/// The registers of arguments, in their order.
const ARGUMENTS: [u8; 6] = [RDI, RSI, RDX, RCX, 8, 9];
/// Decoded blocks at most; then all are decoded again.
const BLOCKS_MAX: usize = 1 << 18;
/// Entries of the table of blocks that were jumped to last.
const JUMPS: usize = 4096;
/// No block.
const NONE: u32 = u32::MAX;

/// The processor.
#[derive(Debug)]
pub struct X86 {
    state: State,
    blocks: Vec<Block>,
    by_address: HashMap<u64, u32, FixedState>,
    jumps: Vec<(u64, u32)>,
    breakpoints: HashSet<u64, FixedState>,
    /// Ranges of code before which it stops.
    fence: Vec<(u64, u64)>,
    /// Instructions executed so far.
    executed: u64,
}

impl Default for X86 {
    fn default() -> Self {
        X86 {
            state: State::default(),
            blocks: Vec::new(),
            by_address: HashMap::default(),
            jumps: alloc::vec![(0, NONE); JUMPS],
            breakpoints: HashSet::default(),
            fence: Vec::new(),
            executed: 0,
        }
    }
}

/// A general register of [`X86`], by its number in the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpr(pub u8);

impl X86 {
    /// The same registers and breakpoints, with nothing decoded.
    #[must_use]
    pub fn fork(&self) -> Self {
        X86 { state: self.state.clone(), breakpoints: self.breakpoints.clone(), ..X86::default() }
    }

    /// A general register.
    pub fn gpr(&self, register: Gpr) -> u64 {
        self.state.register(register.0)
    }

    /// Sets a general register.
    pub fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.state.set_register(register.0, value);
    }

    /// A vector register: its lower and upper half.
    pub fn vector(&self, number: u8) -> [u128; 2] {
        self.state.vectors.get(number)
    }

    /// Sets a vector register.
    pub fn set_vector(&mut self, number: u8, halves: [u128; 2]) {
        self.state.vectors.set(number, halves);
    }

    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.state.rflags()
    }

    /// Sets RFLAGS.
    pub fn set_rflags(&mut self, bits: u64) {
        self.state.set_rflags(bits);
    }

    /// The base of the segment GS: where per-cpu data lies.
    pub fn gs_base(&self) -> u64 {
        self.state.gs_base
    }

    /// Sets the base of the segment GS.
    pub fn set_gs_base(&mut self, address: u64) {
        self.state.gs_base = address;
    }

    /// Instructions executed so far.
    pub fn executed(&self) -> u64 {
        self.executed
    }

    fn forget_blocks(&mut self, memory: &mut Memory) {
        self.blocks.clear();
        self.by_address.clear();
        self.jumps.fill((0, NONE));
        memory.forget_code();
    }

    /// The number of the block at an address.
    #[inline(always)]
    fn block(&mut self, memory: &mut Memory, address: u64) -> Result<u32, Fault> {
        let slot = (address ^ address >> 12) as usize & (JUMPS - 1);
        match self.jumps.get(slot) {
            Some((at, number)) if *at == address && *number != NONE => Ok(*number),
            _ => self.block_slowly(memory, address, slot),
        }
    }

    #[cold]
    fn block_slowly(&mut self, memory: &mut Memory, address: u64, slot: usize) -> Result<u32, Fault> {
        let number = match self.by_address.get(&address) {
            Some(number) => *number,
            None => {
                if self.blocks.len() >= BLOCKS_MAX {
                    self.forget_blocks(memory);
                }
                let mut code = [0; BLOCK_BYTES];
                let read = memory.fetch(address, &mut code)?;
                let code = code.get(..read).unwrap_or_default();
                let block = decode::block(code, address, |at| self.breakpoints.contains(&at));
                let number = u32::try_from(self.blocks.len()).unwrap_or(NONE);
                self.blocks.push(block);
                self.by_address.insert(address, number);
                number
            }
        };
        if let Some(jump) = self.jumps.get_mut(slot) {
            *jump = (address, number);
        }
        Ok(number)
    }

    /// The name of the instruction at an address.
    fn name(memory: &mut Memory, address: u64) -> String {
        let mut code = [0; 15];
        let read = memory.fetch(address, &mut code).unwrap_or(0);
        decode::name(code.get(..read).unwrap_or_default(), address)
    }
}

impl Cpu for X86 {
    type Registers = State;

    fn run(&mut self, memory: &mut Memory, budget: &mut u64) -> Stop {
        let mut goes_on = true;
        // The block before, and which of its two followers is next.
        let mut before: Option<(u32, usize)> = None;
        loop {
            if *budget == 0 {
                return Stop::Budget;
            }
            if memory.code_written() {
                self.forget_blocks(memory);
                before = None;
            }
            let address = self.state.rip;
            let linked = before.and_then(|(number, side)| {
                let next = self.blocks.get(number as usize)?.next.get(side)?;
                (next.0 == address && next.1 != NONE).then_some(next.1)
            });
            let number = match linked {
                Some(number) => number,
                None => {
                    // Blocks that begin with a breakpoint are never linked to.
                    let breaks = self.breakpoints.contains(&address)
                        || self.fence.iter().any(|(start, end)| (*start..*end).contains(&address));
                    if breaks && !goes_on {
                        return Stop::Breakpoint;
                    }
                    let known = self.blocks.len();
                    let number = match self.block(memory, address) {
                        Ok(number) => number,
                        Err(fault) => return execute::told(fault.into()).stop(String::new),
                    };
                    // If all were forgotten, so was the one before.
                    let link = before
                        .filter(|_| !breaks && self.blocks.len() >= known)
                        .and_then(|(number, side)| self.blocks.get_mut(number as usize)?.next.get_mut(side));
                    if let Some(link) = link {
                        *link = (address, number);
                    }
                    number
                }
            };
            goes_on = false;
            let Some(block) = self.blocks.get(number as usize) else { return Stop::Budget };
            let mut left = *budget;
            let mut behind = 0;
            let mut stopped = None;
            for instruction in &block.instructions {
                let Some(rest) = left.checked_sub(1) else { break };
                left = rest;
                behind = instruction.next;
                match self.state.step(memory, instruction, &mut left) {
                    Ok(Flow::Next) => self.state.rip = instruction.next,
                    Ok(Flow::Jumped) => {}
                    Ok(Flow::Again) => {
                        self.state.rip = instruction.address();
                        break;
                    }
                    Err(trouble) => {
                        self.state.rip = instruction.address();
                        stopped = Some(trouble);
                        break;
                    }
                }
            }
            self.executed = self.executed.wrapping_add(budget.wrapping_sub(left));
            *budget = left;
            if let Some(trouble) = stopped {
                let address = self.state.rip;
                return execute::told(trouble).stop(|| Self::name(memory, address));
            }
            before = Some((number, usize::from(self.state.rip != behind)));
        }
    }

    fn break_at(&mut self, address: u64) {
        if self.breakpoints.insert(address) && !self.blocks.is_empty() {
            // Blocks may run across it.
            self.blocks.clear();
            self.by_address.clear();
            self.jumps.fill((0, NONE));
        }
    }

    fn fence(&mut self, ranges: &[(u64, u64)]) -> bool {
        if self.fence != ranges {
            self.fence = ranges.into();
            // Blocks may be linked to code behind it.
            self.blocks.clear();
            self.by_address.clear();
            self.jumps.fill((0, NONE));
        }
        true
    }

    fn pc(&self) -> u64 {
        self.state.rip
    }

    fn set_pc(&mut self, address: u64) {
        self.state.rip = address;
    }

    fn sp(&self) -> u64 {
        self.state.register(RSP)
    }

    fn set_sp(&mut self, address: u64) {
        self.state.set_register(RSP, address);
    }

    fn argument(&self, memory: &Memory, number: usize) -> Result<u64, Fault> {
        match ARGUMENTS.get(number) {
            Some(register) => Ok(self.state.register(*register)),
            None => {
                let above = number.saturating_sub(ARGUMENTS.len()).saturating_add(1) as u64;
                memory.u64(self.sp().wrapping_add(above.wrapping_mul(8)))
            }
        }
    }

    fn return_address(&self, memory: &Memory) -> Result<u64, Fault> {
        memory.u64(self.sp())
    }

    fn return_with(&mut self, memory: &mut Memory, value: u64) -> Result<(), Fault> {
        self.state.rip = memory.u64(self.sp())?;
        self.set_sp(self.sp().wrapping_add(8));
        self.state.set_register(RAX, value);
        Ok(())
    }

    fn returned(&self) -> u64 {
        self.state.register(RAX)
    }

    fn enter(&mut self, memory: &mut Memory, call: &Call<'_>) -> Result<u64, Fault> {
        let on_stack = call.arguments.get(ARGUMENTS.len()..).unwrap_or_default();
        let bytes = (on_stack.len() as u64).wrapping_mul(8);
        let top = call.sp.wrapping_sub(bytes) & !15;
        for (number, value) in (0u64..).zip(on_stack) {
            memory.write(top.wrapping_add(number.wrapping_mul(8)), &value.to_le_bytes())?;
        }
        for (register, value) in ARGUMENTS.iter().zip(call.arguments) {
            self.state.set_register(*register, *value);
        }
        let sp = top.wrapping_sub(8);
        memory.write(sp, &call.returns_to.to_le_bytes())?;
        self.set_sp(sp);
        self.state.rip = call.function;
        Ok(top)
    }

    fn leave(&mut self, before: &State) {
        self.set_sp(before.register(RSP));
    }

    fn registers(&self) -> State {
        self.state.clone()
    }

    fn set_registers(&mut self, registers: &State) {
        self.state = registers.clone();
    }
}
