//! What a debugger is to a machine, and a machine to a debugger. Nothing here knows how the two talk to each other.

use alloc::string::String;
use alloc::vec::Vec;

use crate::memory::Fault;

/// Why a machine has stopped for its debugger. The instruction at its address was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The module has come. It is at its init function, or in `do_init_module` if it has none.
    Init,
    /// At a breakpoint.
    Breakpoint,
    /// One instruction was executed.
    Step,
    /// The debugger has asked for it.
    Interrupt,
    /// The run ends here: a fault, BUG(), an instruction that is not interpreted, or the budget.
    End,
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Up to a breakpoint.
    Continue,
    /// One instruction. A function that something stands in for counts as one.
    Step,
    /// Without the debugger.
    Leave,
    /// Not at all.
    Quit,
}

/// Who is told of each stop, and says how it goes on.
pub trait Debugger: core::fmt::Debug + Send {
    /// The machine has stopped.
    fn stopped(&mut self, machine: &mut dyn Debugged, why: Why) -> Then;
    /// Is the machine to stop now? Asked often; what it says is over with the next stop.
    fn interrupts(&self) -> bool;
}

/// A machine that has stopped.
pub trait Debugged {
    /// The description of the registers, as gdb reads it (`target.xml`).
    fn target(&self) -> &'static str;
    /// All registers in that order; `None` where the interpreter has no such register.
    fn registers(&self) -> Vec<Option<u8>>;
    /// Sets all registers in that order; false, and nothing done, if they are not all there. What the interpreter does not have is
    /// passed over.
    fn set_registers(&mut self, bytes: &[u8]) -> bool;
    /// The address of the next instruction.
    fn pc(&self) -> u64;
    /// Reads memory.
    ///
    /// # Errors
    ///
    /// [`Fault`], if there is none.
    fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Fault>;
    /// Writes memory, whatever its permissions.
    ///
    /// # Errors
    ///
    /// [`Fault`], if there is none.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault>;
    /// Stops before the instruction at an address from now on.
    fn set_breakpoint(&mut self, address: u64);
    /// No longer stops there. False if there was no breakpoint.
    fn clear_breakpoint(&mut self, address: u64) -> bool;
    /// An address by the symbol before it.
    fn text(&self, address: u64) -> String;
}

/// The registers of a processor as gdb has them.
pub trait Registers {
    /// As [`Debugged::target`].
    const TARGET: &'static str;
    /// As [`Debugged::registers`].
    fn all(&self) -> Vec<Option<u8>>;
    /// As [`Debugged::set_registers`].
    fn set_all(&mut self, bytes: &[u8]) -> bool;
}

/// Numbers as gdb takes them: the lowest byte first.
pub fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}
