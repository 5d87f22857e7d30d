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
        let frame = self.cpu.frame();
        let at = self.cpu.sp().wrapping_sub(0x400) & !15;
        self.memory.write(at, &frame)?;
        let before = self.cpu.registers();
        self.cpu.set_sp(at);
        let [a, b, c] = arguments;
        let found = self.call_at(function, &[at, a, b, c]);
        self.cpu.set_registers(&before);
        if found? & 0xffff_ffff == 0 {
            return Ok(false);
        }
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
        let frame = self.cpu.frame();
        let at = self.cpu.sp().wrapping_sub(0x400) & !15;
        self.memory.write(at, &frame)?;
        self.cpu.set_sp(at);
        let handled = self.call_at(handler, &[at]);
        self.cpu.set_registers(&before);
        if handled? & 0xff == 0 {
            return Ok(false);
        }
        let frame = self.memory.bytes(at, C::FRAME)?;
        self.cpu.take_frame(&frame);
        Ok(true)
    }

    /// The kernel's own handler of WARN() and BUG(), which prints what it prints: after a warning the code goes on.
    fn warns(&mut self) -> Result<bool, Failed> {
        /// BUG_TRAP_TYPE_WARN
        const WARN: u64 = 1;
        let (pc, told) = (self.cpu.pc(), self.world.log.len());
        let frame = self.cpu.frame();
        let at = self.cpu.sp().wrapping_sub(0x400) & !15;
        self.memory.write(at, &frame)?;
        let before = self.cpu.registers();
        self.cpu.set_sp(at);
        // The architecture's handler knows more than the general one, but not every kernel has it as a function of its own.
        let own = C::BUG_HANDLER.and_then(|name| self.symbols.address(name));
        let handled = match own {
            Some(handler) => self.call_at(handler, &[at]).map(|handled| handled & 0xff != 0),
            None => self
                .symbol("report_bug")
                .map(|report| self.call_at(report, &[pc, at]))?
                .map(|kind| kind & 0xffff_ffff == WARN),
        };
        self.cpu.set_registers(&before);
        if !handled? {
            return Ok(false);
        }
        if own.is_some() {
            let frame = self.memory.bytes(at, C::FRAME)?;
            self.cpu.take_frame(&frame);
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
