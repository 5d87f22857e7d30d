//! A kernel in memory, a processor on it, and what stands in for the parts of it that are not executed.

mod debugged;
mod deeds;
mod handlers;
mod kept;
mod platform;
mod sanitized;
mod ticks;
mod watched;

pub use platform::{Flow, Place, Platform, Preset, Row, Space, Stub};
pub(crate) use ticks::TICK;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::cpu::{Call, Cpu, Stop};
use crate::memory::{Fault, Memory, PAGE, Protection};
use crate::symbols::Symbols;
use crate::watch::Watch;
use crate::world::World;

/// Calls within stubs within calls at most.
const DEPTH_MAX: u64 = 12;
/// Return addresses that are told at most.
const STACK_MAX: usize = 12;
/// Between a stack in use and the frame of a call on it: interrupted functions may use some bytes below their stack pointer.
const BELOW: u64 = 0x100;

/// Why the machine stopped before it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at {symbol} ({address:#x})")]
#[non_exhaustive]
pub struct Stopped {
    /// In a sentence.
    pub reason: String,
    /// The address of the instruction that was not executed.
    pub address: u64,
    /// That address as the kernel prints it.
    pub symbol: String,
    /// Return addresses that lie on the stack, as the kernel prints them, nearest first. Some may be left from earlier calls.
    pub stack: Vec<String>,
    /// What it is due to.
    pub cause: Cause,
}

/// What a stop is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel would stop there as well: a fault that no exception table lists, BUG(), panic().
    Kernel,
    /// The machine: something that it does not have, or does not know.
    Machine,
    /// As many instructions as it was allowed were executed.
    Budget,
}

/// What a stub did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The function returns this.
    Value(u64),
    /// The function itself goes on.
    Pass,
    /// The outermost call ends here, in the middle of the kernel.
    Leave,
}

/// What a stub may fail with.
#[derive(Clone, Debug)]
pub enum Failed {
    /// Memory that is not there.
    Fault(Fault),
    /// In a sentence.
    Because(String),
    /// The kernel would stop as well; why, in a sentence.
    Crash(String),
    /// A function that the stub called has stopped.
    Stopped(Stopped),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed::Fault(fault)
    }
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Failed::Stopped(stopped)
    }
}

/// Offsets in structs, from the image's BTF.
pub type Offsets = HashMap<String, u64, FixedState>;

/// A machine.
#[derive(Debug)]
pub struct Machine<C: Cpu> {
    /// The processor.
    pub cpu: C,
    /// Its memory.
    pub memory: Memory,
    /// The symbols of the image.
    pub symbols: Arc<Symbols>,
    /// Where things are.
    pub space: Space,
    /// Offsets in structs, by `struct.member`.
    pub offsets: Arc<Offsets>,
    /// What the stubs keep.
    pub world: World,
    /// Instructions that may still be executed.
    pub budget: u64,
    /// What is noted of modules' code; no part of snapshots.
    pub watch: Option<Box<Watch>>,
    stubs: HashMap<u64, (&'static str, Stub<C>), FixedState>,
    depth: u64,
    debug: Option<Box<debugged::Attached>>,
}

/// A state of a machine to go back to; its memory keeps the rest.
#[derive(Clone, Debug)]
pub struct Snapshot<R> {
    registers: R,
    world: World,
    heap: crate::heap::Mark,
}

impl<C: Platform> Machine<C> {
    /// A machine that has nothing in its memory yet but the page that calls return to. Returns `None` if that has no room.
    pub fn new(
        mut memory: Memory,
        symbols: Symbols,
        space: Space,
        offsets: Offsets,
        world: World,
    ) -> Option<Self> {
        let page = memory.size().checked_sub(PAGE)?;
        if !memory.map(space.returns, PAGE, page, Protection::CODE) {
            return None;
        }
        Some(Machine::of(memory, Arc::new(symbols), space, Arc::new(offsets), world))
    }

    /// A machine that has all this, and no stubs.
    fn of(memory: Memory, symbols: Arc<Symbols>, space: Space, offsets: Arc<Offsets>, world: World) -> Self {
        let mut cpu = C::default();
        for depth in 0..=DEPTH_MAX {
            cpu.break_at(space.returns.wrapping_add(depth.wrapping_mul(16)));
        }
        let stubs = HashMap::default();
        let (watch, debug) = (None, None);
        Machine { cpu, memory, symbols, space, offsets, world, budget: 0, watch, stubs, depth: 0, debug }
    }

    /// The same machine, independent of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Machine {
            cpu: self.cpu.fork(),
            memory: self.memory.fork(),
            symbols: self.symbols.clone(),
            space: self.space,
            offsets: self.offsets.clone(),
            world: self.world.clone(),
            budget: self.budget,
            watch: None,
            stubs: self.stubs.clone(),
            depth: self.depth,
            debug: None,
        }
    }

    /// Remembers everything as it is.
    pub fn snapshot(&mut self) -> Snapshot<C::Registers> {
        self.memory.snapshot();
        let heap = self.world.heap.mark();
        // The heap itself goes back by its mark.
        let whole = core::mem::take(&mut self.world.heap);
        let world = self.world.clone();
        self.world.heap = whole;
        Snapshot { registers: self.cpu.registers(), world, heap }
    }

    /// Goes back to the last snapshot, which stays.
    pub fn restore(&mut self, snapshot: &Snapshot<C::Registers>) {
        self.memory.restore();
        self.cpu.set_registers(&snapshot.registers);
        let mut heap = core::mem::take(&mut self.world.heap);
        heap.back_to(snapshot.heap);
        self.world = snapshot.world.clone();
        self.world.heap = heap;
        self.depth = 0;
    }

    /// Gives up the last snapshot: what happened since stays.
    pub fn commit(&mut self) {
        self.memory.commit();
    }

    /// Stands in for functions, as far as the kernel has them.
    pub fn add_stubs(&mut self, rows: &[Row<C>]) {
        for row in rows {
            for name in row.names {
                self.add_stub(name, row.stub);
            }
        }
    }

    /// Stands in for a function, if the kernel has it.
    pub fn add_stub(&mut self, name: &'static str, stub: Stub<C>) {
        if let Some(address) = self.symbols.address(name) {
            self.cpu.break_at(address);
            self.stubs.insert(address, (name, stub));
        }
    }

    /// The address of a symbol that has to be there.
    pub fn symbol(&self, name: &str) -> Result<u64, Failed> {
        self.symbols.address(name).ok_or_else(|| Failed::Because(format!("the kernel has no symbol {name}")))
    }

    /// The offset of a member, as `struct.member`, that has to be there.
    pub fn offset(&self, member: &str) -> Result<u64, Failed> {
        let found = self.offsets.get(member).copied();
        found.ok_or_else(|| Failed::Because(format!("the kernel's types have no {member}")))
    }

    /// On entry to a function: its argument of this number.
    pub fn argument(&self, number: usize) -> Result<u64, Failed> {
        Ok(self.cpu.argument(&self.memory, number)?)
    }

    /// An address by the symbol before it, of the image or of a module that is watched.
    pub fn text(&self, address: u64) -> String {
        let of_module = self.watch.as_ref().and_then(|watch| watch.text(address));
        of_module.unwrap_or_else(|| self.symbols.text(address))
    }

    /// Sets a variable. False if the kernel does not have it.
    pub fn set(&mut self, preset: &Preset) -> Result<bool, Failed> {
        let at = match preset.place {
            Place::Address(address) => address,
            Place::Symbol(name, offset) => match self.symbols.address(name) {
                Some(address) => address.wrapping_add(offset),
                None => return Ok(false),
            },
        };
        let bytes = preset.value.to_le_bytes();
        self.memory.poke(at, bytes.get(..usize::from(preset.size)).unwrap_or(&bytes))?;
        Ok(true)
    }

    /// Calls a function of the kernel by its name.
    pub fn call(&mut self, name: &str, arguments: &[u64]) -> Result<u64, Failed> {
        let function = self.symbol(name)?;
        Ok(self.call_at(function, arguments)?)
    }

    /// Calls a function. If that stops, the registers are as before the call, and memory as the function left it.
    pub fn call_at(&mut self, function: u64, arguments: &[u64]) -> Result<u64, Stopped> {
        let depth = self.depth;
        if depth > DEPTH_MAX {
            return Err(self.stopped("calls within stubs are too deep".into(), Cause::Machine));
        }
        let before = self.cpu.registers();
        self.depth = depth.saturating_add(1);
        let result = self.call_within(function, arguments, depth, &before);
        self.depth = depth;
        if result.is_err() {
            self.cpu.set_registers(&before);
        }
        result
    }

    /// If a stub leaves the call, the registers stay those of the kernel's code there.
    fn call_within(
        &mut self,
        function: u64,
        arguments: &[u64],
        depth: u64,
        before: &C::Registers,
    ) -> Result<u64, Stopped> {
        let sp = self.cpu.sp();
        let returns_to = self.space.returns.wrapping_add(depth.wrapping_mul(16));
        let call = Call { function, arguments, sp: sp.wrapping_sub(BELOW), returns_to };
        let after = match self.cpu.enter(&mut self.memory, &call) {
            Ok(after) => after,
            Err(fault) => return Err(self.stopped(format!("{}", Stop::Fault(fault)), Cause::Machine)),
        };
        loop {
            let pc = self.cpu.pc();
            if pc == returns_to && self.cpu.sp() == after {
                let returned = self.cpu.returned();
                self.cpu.leave(before);
                return Ok(returned);
            }
            self.debugs()?;
            if let Some((name, stub)) = self.stubs.get(&self.cpu.pc()).copied() {
                match self.answer(name, stub)? {
                    Answer::Value(value) => {
                        if let Err(fault) = self.cpu.return_with(&mut self.memory, value) {
                            return Err(self.stopped(format!("{}", Stop::Fault(fault)), Cause::Machine));
                        }
                        continue;
                    }
                    // A run never stops at once.
                    Answer::Pass => {}
                    Answer::Leave => return Ok(0),
                }
            }
            match self.goes_to_tick() {
                Stop::Breakpoint => {}
                Stop::Budget if self.budget != 0 => self.ticks()?,
                Stop::Budget => {
                    self.debugs_end();
                    return Err(self.stopped(format!("{}", Stop::Budget), Cause::Budget));
                }
                stop => self.handle(&stop).inspect_err(|_| self.debugs_end())?,
            }
        }
    }

    fn answer(&mut self, name: &'static str, stub: Stub<C>) -> Result<Answer, Stopped> {
        self.world.stub_calls = self.world.stub_calls.wrapping_add(1);
        stub(self).map_err(|failed| match failed {
            Failed::Stopped(stopped) => stopped,
            Failed::Fault(fault) => {
                self.stopped(format!("{} in the stub of {name}", Stop::Fault(fault)), Cause::Machine)
            }
            Failed::Because(reason) => self.stopped(format!("{reason} (stub of {name})"), Cause::Machine),
            Failed::Crash(reason) => self.stopped(reason, Cause::Kernel),
        })
    }

    /// That the machine stops here.
    pub fn stopped(&self, reason: String, cause: Cause) -> Stopped {
        let address = self.cpu.pc();
        let stack = self.return_addresses(STACK_MAX).into_iter().map(|address| self.text(address)).collect();
        Stopped { reason, address, symbol: self.text(address), stack, cause }
    }

    /// What lies on the stack and may be a return address, at most `max`.
    fn return_addresses(&self, max: usize) -> Vec<u64> {
        let (mut sp, mut found) = (self.cpu.sp(), Vec::new());
        for _ in 0..512 {
            let Ok(word) = self.memory.u64(sp) else { break };
            let code = self.memory.protection(word).is_some_and(|p| p.execute);
            if code && C::is_behind_call(&self.memory, word) {
                found.push(word);
                if found.len() == max {
                    break;
                }
            }
            sp = sp.wrapping_add(8);
        }
        found
    }

    /// `size` bytes of zeroed memory of the kernel.
    pub fn allocate(&mut self, size: u64, align: u64) -> Result<u64, Failed> {
        let room = self.world.heap.take(size, align.max(1));
        room.ok_or_else(|| Failed::Because("the memory of the machine is used up".into()))
    }

    /// A string in memory of the kernel.
    pub fn string(&mut self, text: &[u8]) -> Result<u64, Failed> {
        let at = self.allocate((text.len() as u64).saturating_add(1), 16)?;
        self.memory.write(at, text)?;
        Ok(at)
    }

    /// Where a per-cpu variable of the processor lies.
    pub fn percpu(&self, pointer: u64) -> u64 {
        pointer.wrapping_add(self.cpu.percpu_offset())
    }
}
