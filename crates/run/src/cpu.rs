//! What a processor is to the machine around it.

use alloc::string::String;
use core::fmt;

use crate::kept::Kept;
use crate::memory::{Access, Fault, Memory};

/// Why a processor stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As many instructions as it was allowed were executed.
    Budget,
    /// It is about to execute the instruction at a breakpoint.
    Breakpoint,
    /// An access to memory that is not allowed. The instruction has had no effect, or, if it repeats, that of the rounds before.
    Fault(Fault),
    /// An instruction that the interpreter does not know; its name, or its bytes if it is none.
    Unknown(String),
    /// An exception other than a fault in memory.
    Exception(Exception),
}

/// What an instruction raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// A division by zero, or one whose quotient is too large.
    Divide,
    /// An instruction that is undefined on purpose, as BUG() and WARN() use it.
    Undefined,
    /// A breakpoint instruction.
    Breakpoint,
    /// The processor halts until there is an interrupt; none comes.
    Halt,
    /// A protection fault, such as an address that is none.
    Protection,
    /// A breakpoint instruction with a number.
    Trap(u16),
    /// An address that is not a multiple of what it has to be.
    Alignment,
}

/// What keeps an instruction from being executed.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// An access that is not allowed.
    Fault(Fault),
    /// What it raises.
    Exception(Exception),
    /// The interpreter does not know it.
    Unknown,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

impl Trouble {
    /// Why the processor stops; `name` is that of the instruction.
    pub fn stop(self, name: impl FnOnce() -> String) -> Stop {
        match self {
            Trouble::Fault(fault) => Stop::Fault(fault),
            Trouble::Exception(exception) => Stop::Exception(exception),
            Trouble::Unknown => Stop::Unknown(name()),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Budget => f.write_str("the instruction budget is used up"),
            Stop::Breakpoint => f.write_str("breakpoint"),
            Stop::Fault(Fault { address, access, mapped }) => {
                let access = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::Execute => "fetch",
                };
                let why = if *mapped { "is not allowed" } else { "finds no memory" };
                write!(f, "{access} at {address:#x} {why}")
            }
            Stop::Unknown(what) => write!(f, "instruction that is not interpreted: {what}"),
            Stop::Exception(Exception::Trap(number)) => write!(f, "breakpoint instruction {number:#x}"),
            Stop::Exception(what) => f.write_str(match what {
                Exception::Divide => "divide error",
                Exception::Undefined => "undefined instruction",
                Exception::Breakpoint | Exception::Trap(_) => "breakpoint instruction",
                Exception::Halt => "halt",
                Exception::Protection => "general protection fault",
                Exception::Alignment => "alignment fault",
            }),
        }
    }
}

/// The registers that a call leaves behind, for whoever interrupts code to call something else.
pub trait Registers: Clone + fmt::Debug + Kept {}

/// A processor that executes instructions of a [`Memory`], deterministically.
pub trait Cpu {
    /// All registers.
    type Registers: Registers;

    /// Executes instructions until something stops it; at most `budget`, from which those that were executed are taken off. Never
    /// stops at a breakpoint on its first instruction, so that a run can go on from one.
    fn run(&mut self, memory: &mut Memory, budget: &mut u64) -> Stop;

    /// Stops before the instruction at this address from now on.
    fn break_at(&mut self, address: u64);

    /// Stops before the first instruction in one of these ranges (from and up to), wherever control comes from; as at a breakpoint, a run
    /// that begins there goes on. Takes the place of the ranges before. False, and nothing done, if the processor cannot.
    fn fence(&mut self, ranges: &[(u64, u64)]) -> bool {
        let _ = ranges;
        false
    }

    /// The address of the next instruction.
    fn pc(&self) -> u64;
    /// Goes on elsewhere.
    fn set_pc(&mut self, address: u64);
    /// The stack pointer.
    fn sp(&self) -> u64;
    /// Sets the stack pointer.
    fn set_sp(&mut self, address: u64);

    /// On entry to a function: its argument of this number, counted from 0.
    fn argument(&self, memory: &Memory, number: usize) -> Result<u64, Fault>;
    /// On entry to a function: where it returns to.
    fn return_address(&self, memory: &Memory) -> Result<u64, Fault>;
    /// On entry to a function: returns from it with a value.
    fn return_with(&mut self, memory: &mut Memory, value: u64) -> Result<(), Fault>;
    /// What the function that has just returned has returned.
    fn returned(&self) -> u64;
    /// Enters a function as if it was called: its arguments, the stack that it may use below `sp`, and where it returns to. Returns the
    /// stack pointer that it has after it has returned.
    fn enter(&mut self, memory: &mut Memory, call: &Call<'_>) -> Result<u64, Fault>;

    /// After a call that [`Cpu::enter`] has made: what keeps the stack and the way back is as in `before`, other registers are as the
    /// function has left them.
    fn leave(&mut self, before: &Self::Registers);

    /// All registers, to be put back by [`Cpu::set_registers`].
    fn registers(&self) -> Self::Registers;
    /// Puts registers back.
    fn set_registers(&mut self, registers: &Self::Registers);
}

/// A call of a function from outside of the machine.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The function.
    pub function: u64,
    /// Its arguments.
    pub arguments: &'a [u64],
    /// The stack below this address is free.
    pub sp: u64,
    /// Where it returns to.
    pub returns_to: u64,
}
