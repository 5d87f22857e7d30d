//! Exceptions: the kernel's own handlers have them.

use alloc::format;

use super::{Cause, Failed, Machine, Platform, Stopped};
use crate::cpu::{Exception, Stop};
use crate::world::{Event, Kind};

impl<C: Platform> Machine<C> {
    /// What the kernel's own exception handlers make of it: the exception table, warnings.
    pub(super) fn handle(&mut self, stop: &Stop) -> Result<(), Stopped> {
        if self.misuses(stop) {
            return Ok(());
        }
        let why = format!("{stop}");
        let handled = match stop {
            stop if C::is_bug(stop) => self.warns(),
            Stop::Exception(Exception::Breakpoint) => self.breaks(),
            other => self.fixes(other),
        };
        match handled {
            Ok(true) => Ok(()),
            Ok(false) => {
                let cause = if self.is_kernels(stop) { Cause::Kernel } else { Cause::Machine };
                Err(self.stopped(why, cause))
            }
            Err(Failed::Stopped(inner)) if inner.cause == Cause::Budget => Err(inner),
            // What the kernel's handler cannot bear, the kernel cannot.
            Err(Failed::Stopped(inner)) => {
                Err(self.stopped(format!("{why}; its handler: {}", inner.reason), inner.cause))
            }
            Err(_) => Err(self.stopped(format!("{why}; its handler failed"), Cause::Machine)),
        }
    }

    /// Would a real machine raise the same exception? Not so for memory that only others have, and for instructions that are not
    /// interpreted.
    fn is_kernels(&self, stop: &Stop) -> bool {
        match stop {
            Stop::Fault(fault) => {
                let elsewhere =
                    self.space.unknown.iter().any(|(start, end)| (*start..*end).contains(&fault.address));
                fault.mapped || !elsewhere || self.world.is_guard(fault.address)
            }
            Stop::Exception(Exception::Halt) => false,
            Stop::Exception(_) => true,
            Stop::Budget | Stop::Breakpoint | Stop::Unknown(_) => false,
        }
    }

    /// `fixup_exception`: the kernel's own code looks for the instruction in its exception tables.
    fn fixes(&mut self, stop: &Stop) -> Result<bool, Failed> {
        let Some((function, arguments)) = C::fixup(stop) else { return Ok(false) };
        let function = self.symbol(function)?;
        let [a, b, c] = arguments;
        let (found, at) = self.on_frame(|m, at| Ok(m.call_at(function, &[at, a, b, c])?))?;
        if found & 0xffff_ffff == 0 {
            return Ok(false);
        }
        self.takes_frame(at)
    }

    /// Puts a frame of the registers on the stack, and gives its address to a call of the kernel. What that returns, and the address;
    /// the registers are as before.
    fn on_frame(
        &mut self,
        call: impl FnOnce(&mut Self, u64) -> Result<u64, Failed>,
    ) -> Result<(u64, u64), Failed> {
        let frame = self.cpu.frame();
        let at = self.cpu.sp().wrapping_sub(0x400) & !15;
        self.memory.write(at, &frame)?;
        let before = self.cpu.registers();
        self.cpu.set_sp(at);
        let returned = call(self, at);
        self.cpu.set_registers(&before);
        Ok((returned?, at))
    }

    /// Goes on with the registers of a frame, which the kernel may have changed.
    fn takes_frame(&mut self, at: u64) -> Result<bool, Failed> {
        let frame = self.memory.bytes(at, C::FRAME)?;
        self.cpu.take_frame(&frame);
        Ok(true)
    }

    /// The kernel's own handler of breakpoint instructions.
    fn breaks(&mut self) -> Result<bool, Failed> {
        let handler = C::BREAKPOINT_HANDLER.and_then(|name| self.symbols.address(name));
        let Some(handler) = handler else { return Ok(false) };
        let before = self.cpu.registers();
        self.cpu.skip(&mut self.memory);
        let handled = self.on_frame(|m, at| Ok(m.call_at(handler, &[at])?));
        self.cpu.set_registers(&before);
        let (handled, at) = handled?;
        if handled & 0xff == 0 {
            return Ok(false);
        }
        self.takes_frame(at)
    }

    /// The kernel's own handler of WARN() and BUG(), which prints what it prints: after a warning the code goes on.
    fn warns(&mut self) -> Result<bool, Failed> {
        /// BUG_TRAP_TYPE_WARN
        const WARN: u64 = 1;
        let (pc, told) = (self.cpu.pc(), self.world.log.len());
        // The architecture's handler knows more than the general one, but not every kernel has it as a function of its own.
        let own = C::BUG_HANDLER.and_then(|name| self.symbols.address(name));
        let (returned, at) = self.on_frame(|m, at| match own {
            Some(handler) => Ok(m.call_at(handler, &[at])?),
            None => {
                let report = m.symbol("report_bug")?;
                Ok(m.call_at(report, &[pc, at])?)
            }
        })?;
        let handled = if own.is_some() { returned & 0xff != 0 } else { returned & 0xffff_ffff == WARN };
        if !handled {
            return Ok(false);
        }
        if own.is_some() {
            self.takes_frame(at)?;
        } else {
            self.cpu.skip(&mut self.memory);
        }
        // Those that warn once are silent from then on.
        if self.world.log.len() != told {
            let by = self.text(pc);
            self.world.event(|| Event {
                kind: Kind::Warning,
                instruction: pc,
                by,
                address: None,
                symbol: None,
                memory: None,
                what: "WARNING, which the log reports".into(),
            });
        }
        Ok(true)
    }
}
