//! aarch64: an interpreter of its instructions, except those that compute with floating-point numbers.
//!
//! Words are decoded once for each page; it is one processor at EL1 without interrupts and without paging: addresses are those of
//! [`Memory`]. Its identification registers tell of what is interpreted (`system.rs`); instructions of pointer authentication leave
//! pointers as they are, as with disabled keys.

mod access;
mod compute;
mod debugger;
mod decode;
mod execute;
mod flow;
mod form;
mod kernel;
mod memory_forms;
mod register_forms;
mod state;
mod system;
#[cfg(test)]
mod tests;
mod vector;

pub use kernel::Boots;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cpu::{Call, Cpu, Stop};
use crate::memory::{Fault, Memory, PAGE};
use form::{Decoded, Op, SP, ZERO};
use state::State;

/// Registers of arguments.
const ARGUMENTS: u8 = 8;
/// The register of return addresses.
const LINK: u8 = 30;
/// Words of a page.
const WORDS: usize = PAGE as usize / 4;
/// Decoded pages at most; then all are decoded again.
const PAGES_MAX: usize = 1 << 13;
/// Entries of the table of pages that were executed last.
const JUMPS: usize = 512;
/// No page.
const NONE: u32 = u32::MAX;

type Page = [Decoded; WORDS];

/// The processor.
#[derive(Debug)]
pub struct A64 {
    state: State,
    pages: Vec<Box<Page>>,
    by_number: HashMap<u64, u32, FixedState>,
    jumps: Vec<(u64, u32)>,
    breakpoints: HashSet<u64, FixedState>,
    /// Ranges of code before which it stops.
    fence: Vec<(u64, u64)>,
    /// Instructions executed so far.
    executed: u64,
}

impl Default for A64 {
    fn default() -> Self {
        A64 {
            state: State::default(),
            pages: Vec::new(),
            by_number: HashMap::default(),
            jumps: alloc::vec![(0, NONE); JUMPS],
            breakpoints: HashSet::default(),
            fence: Vec::new(),
            executed: 0,
        }
    }
}

impl A64 {
    /// The same registers and breakpoints, with nothing decoded.
    #[must_use]
    pub fn fork(&self) -> Self {
        A64 { state: self.state.clone(), breakpoints: self.breakpoints.clone(), ..A64::default() }
    }

    /// A general register from 0 to 30.
    pub fn x(&self, number: u8) -> u64 {
        self.state.x(number.min(ZERO))
    }

    /// Sets a general register from 0 to 30.
    pub fn set_x(&mut self, number: u8, value: u64) {
        if number < ZERO {
            self.state.set(number, value);
        }
    }

    /// N, Z, C and V, as bits 3 to 0.
    pub fn flags(&self) -> u8 {
        self.state.flags
    }

    /// Sets N, Z, C and V.
    pub fn set_flags(&mut self, flags: u8) {
        self.state.flags = flags & 15;
    }

    /// A vector register from 0 to 31.
    pub fn vector(&self, number: u8) -> u128 {
        self.state.vectors.get(number)
    }

    /// Sets a vector register from 0 to 31.
    pub fn set_vector(&mut self, number: u8, value: u128) {
        self.state.vectors.set(number, value);
    }

    /// SP_EL0: `current`, in the kernel.
    pub fn sp_el0(&self) -> u64 {
        self.state.system.get(system::SP_EL0).copied().unwrap_or(0)
    }

    /// Sets SP_EL0.
    pub fn set_sp_el0(&mut self, value: u64) {
        if let Some(slot) = self.state.system.get_mut(system::SP_EL0) {
            *slot = value;
        }
    }

    /// TPIDR_EL1: where per-cpu data lies.
    pub fn tpidr_el1(&self) -> u64 {
        self.state.system.get(system::TPIDR_EL1).copied().unwrap_or(0)
    }

    /// Sets TPIDR_EL1.
    pub fn set_tpidr_el1(&mut self, value: u64) {
        if let Some(slot) = self.state.system.get_mut(system::TPIDR_EL1) {
            *slot = value;
        }
    }

    /// Sets the mask of interrupts in DAIF. False if it was set.
    pub fn mask_interrupts(&mut self) -> bool {
        /// PSTATE.I
        const MASK: u64 = 1 << 7;
        let was_clear = self.daif() & MASK == 0;
        if let Some(daif) = self.state.system.get_mut(system::DAIF) {
            *daif |= MASK;
        }
        was_clear
    }

    /// DAIF, as `MRS` reads it.
    pub fn daif(&self) -> u64 {
        self.state.system.get(system::DAIF).copied().unwrap_or(0)
    }

    /// Instructions executed so far.
    pub fn executed(&self) -> u64 {
        self.executed
    }

    fn forget_pages(&mut self, memory: &mut Memory) {
        self.pages.clear();
        self.by_number.clear();
        self.jumps.fill((0, NONE));
        memory.forget_code();
    }

    /// The number of the page with an address.
    #[inline(always)]
    fn page(&mut self, memory: &mut Memory, address: u64) -> Result<u32, Fault> {
        let page = address >> 12;
        let slot = page as usize & (JUMPS - 1);
        match self.jumps.get(slot) {
            Some((at, number)) if *at == page && *number != NONE => Ok(*number),
            _ => self.page_slowly(memory, address, slot),
        }
    }

    #[cold]
    fn page_slowly(&mut self, memory: &mut Memory, address: u64, slot: usize) -> Result<u32, Fault> {
        let page = address >> 12;
        let number = match self.by_number.get(&page) {
            Some(number) => *number,
            None => {
                if self.pages.len() >= PAGES_MAX {
                    self.forget_pages(memory);
                }
                let mut code = [0; PAGE as usize];
                // Of a page all or nothing can be executed.
                memory.fetch(page << 12, &mut code).map_err(|fault| Fault { address, ..fault })?;
                let mut words: Box<Page> = Box::new([Decoded::new(Op::Raw); WORDS]);
                for (word, bytes) in words.iter_mut().zip(code.as_chunks().0) {
                    word.immediate = u32::from_le_bytes(*bytes).into();
                }
                let number = u32::try_from(self.pages.len()).unwrap_or(NONE);
                self.pages.push(words);
                self.by_number.insert(page, number);
                number
            }
        };
        if let Some(jump) = self.jumps.get_mut(slot) {
            *jump = (page, number);
        }
        Ok(number)
    }

    /// Decodes a word of a page.
    #[cold]
    fn decode(&mut self, number: u32, address: u64) {
        let stops = self.breakpoints.contains(&address);
        let word = self.pages.get_mut(number as usize).and_then(|page| page.get_mut(index(address)));
        if let Some(word) = word {
            *word = match stops {
                true => Decoded { op: Op::Stops, ..*word },
                false => decode::decode(word.immediate as u32, address),
            };
        }
    }

    /// The name of the instruction at an address.
    fn name(memory: &Memory, address: u64) -> String {
        match memory.u32(address) {
            Ok(word) => format!("{word:08x}, {}", decode::group(word)),
            Err(_) => "none".into(),
        }
    }
}

/// May another instruction than the next one follow this word?
fn ends(word: u32) -> bool {
    decode::decode(word, 0).op.ends()
}

/// The place of an address among the words of its page.
fn index(address: u64) -> usize {
    (address >> 2) as usize & (WORDS - 1)
}

impl Cpu for A64 {
    type Registers = State;

    fn run(&mut self, memory: &mut Memory, budget: &mut u64) -> Stop {
        // The instruction that the run begins with is executed, breakpoint or not.
        let mut begins = true;
        loop {
            if *budget == 0 {
                return Stop::Budget;
            }
            if memory.code_written() {
                self.forget_pages(memory);
            }
            let mut pc = self.state.pc;
            if pc & 3 != 0 {
                return Stop::Exception(crate::cpu::Exception::Alignment);
            }
            // Who comes to a page from another one comes by here.
            if !begins && self.fence.iter().any(|(start, end)| (*start..*end).contains(&pc)) {
                return Stop::Breakpoint;
            }
            let number = match self.page(memory, pc) {
                Ok(number) => number,
                Err(fault) => return Stop::Fault(fault),
            };
            let Some(page) = self.pages.get(number as usize) else { return Stop::Budget };
            let (here, mut left) = (pc >> 12, *budget);
            let mut stopped = None;
            let mut first = None;
            loop {
                let at = match first.take() {
                    Some(decoded) => decoded,
                    None => page.get(index(pc)).copied().unwrap_or(Decoded::new(Op::Raw)),
                };
                // What is not to be executed as it is comes first in the order.
                if at.op as u8 <= Op::Stops as u8 {
                    if at.op == Op::Stops {
                        if begins {
                            first = Some(decode::decode(at.immediate as u32, pc));
                            begins = false;
                            continue;
                        }
                        stopped = Some(Stop::Breakpoint);
                    }
                    break;
                }
                begins = false;
                let Some(rest) = left.checked_sub(1) else { break };
                left = rest;
                let next = match self.state.step(memory, &at, pc) {
                    Ok(next) => next,
                    Err(trouble) => {
                        stopped = Some(trouble.stop(|| Self::name(memory, pc)));
                        break;
                    }
                };
                let straight = pc.wrapping_add(4);
                pc = next;
                if next >> 12 != here || next != straight && (memory.code_written() || next & 3 != 0) {
                    break;
                }
            }
            self.state.pc = pc;
            self.executed = self.executed.wrapping_add(budget.wrapping_sub(left));
            *budget = left;
            if let Some(stop) = stopped {
                return stop;
            }
            let raw = self.pages.get(number as usize).and_then(|page| page.get(index(pc)));
            if pc >> 12 == here && raw.is_some_and(|word| word.op == Op::Raw) {
                self.decode(number, pc);
            }
        }
    }

    fn break_at(&mut self, address: u64) {
        if self.breakpoints.insert(address) && !self.pages.is_empty() {
            // It may be decoded already.
            self.pages.clear();
            self.by_number.clear();
            self.jumps.fill((0, NONE));
        }
    }

    fn fence(&mut self, ranges: &[(u64, u64)]) -> bool {
        // What a module has lies on pages of its own, so that nothing behind a fence is on the page of who comes.
        self.fence = ranges.into();
        true
    }

    fn pc(&self) -> u64 {
        self.state.pc
    }

    fn set_pc(&mut self, address: u64) {
        self.state.pc = address;
    }

    fn sp(&self) -> u64 {
        self.state.x(SP)
    }

    fn set_sp(&mut self, address: u64) {
        self.state.set(SP, address);
    }

    fn argument(&self, memory: &Memory, number: usize) -> Result<u64, Fault> {
        match u8::try_from(number) {
            Ok(register) if register < ARGUMENTS => Ok(self.state.x(register)),
            _ => {
                let above = number.saturating_sub(ARGUMENTS.into()) as u64;
                memory.u64(self.sp().wrapping_add(above.wrapping_mul(8)))
            }
        }
    }

    fn return_address(&self, _memory: &Memory) -> Result<u64, Fault> {
        Ok(self.state.x(LINK))
    }

    fn return_with(&mut self, _memory: &mut Memory, value: u64) -> Result<(), Fault> {
        self.state.pc = self.state.x(LINK);
        self.state.set(0, value);
        Ok(())
    }

    fn returned(&self) -> u64 {
        self.state.x(0)
    }

    fn enter(&mut self, memory: &mut Memory, call: &Call<'_>) -> Result<u64, Fault> {
        let on_stack = call.arguments.get(usize::from(ARGUMENTS)..).unwrap_or_default();
        let bytes = (on_stack.len() as u64).wrapping_mul(8);
        let top = call.sp.wrapping_sub(bytes) & !15;
        for (number, value) in (0u64..).zip(on_stack) {
            memory.write(top.wrapping_add(number.wrapping_mul(8)), &value.to_le_bytes())?;
        }
        for (register, value) in (0..ARGUMENTS).zip(call.arguments) {
            self.state.set(register, *value);
        }
        self.state.set(LINK, call.returns_to);
        self.set_sp(top);
        self.state.pc = call.function;
        // Whoever is interrupted has lost its exclusive access.
        self.state.monitor = None;
        Ok(top)
    }

    fn leave(&mut self, before: &State) {
        self.state.set(SP, before.x(SP));
        self.state.set(LINK, before.x(LINK));
    }

    fn registers(&self) -> State {
        self.state.clone()
    }

    fn set_registers(&mut self, registers: &State) {
        self.state = registers.clone();
    }
}
