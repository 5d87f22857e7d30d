//! How a debugger has a machine stop, step and go on.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::{Cause, Machine, Platform, Stopped};
use crate::cpu::Stop;
use crate::debugger::{Debugged, Debugger, Then, Why};
use crate::memory::Fault;

/// Instructions between two questions whether the debugger interrupts.
const SLICE: u64 = 1 << 20;

/// A debugger, and what it waits for.
#[derive(Debug)]
pub(super) struct Attached {
    debugger: Box<dyn Debugger>,
    /// The processor may stop at more addresses than these.
    breakpoints: HashSet<u64, FixedState>,
    /// The init function of the module, until it is called.
    init: Option<u64>,
    /// It stops before the next instruction, unless that is in a call within this many others.
    step: Option<u64>,
}

impl Attached {
    /// Why it stops at an address, if it does.
    fn why(&self, pc: u64, depth: u64) -> Option<Why> {
        if self.init == Some(pc) {
            return Some(Why::Init);
        }
        if self.breakpoints.contains(&pc) {
            return Some(Why::Breakpoint);
        }
        if self.step.is_some_and(|most| depth <= most) {
            return Some(Why::Step);
        }
        self.debugger.interrupts().then_some(Why::Interrupt)
    }
}

struct View<'m, C: Platform> {
    machine: &'m mut Machine<C>,
    breakpoints: &'m mut HashSet<u64, FixedState>,
}

impl<C: Platform> Debugged for View<'_, C> {
    fn target(&self) -> &'static str {
        C::TARGET
    }

    fn registers(&self) -> Vec<Option<u8>> {
        self.machine.cpu.all()
    }

    fn set_registers(&mut self, bytes: &[u8]) -> bool {
        self.machine.cpu.set_all(bytes)
    }

    fn pc(&self) -> u64 {
        self.machine.cpu.pc()
    }

    fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.machine.memory.read(address, out)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.machine.memory.poke(address, bytes)
    }

    fn set_breakpoint(&mut self, address: u64) {
        self.machine.cpu.break_at(address);
        self.breakpoints.insert(address);
    }

    fn clear_breakpoint(&mut self, address: u64) -> bool {
        self.breakpoints.remove(&address)
    }

    fn text(&self, address: u64) -> String {
        self.machine.text(address)
    }
}

impl<C: Platform> Machine<C> {
    /// From now on a debugger is told where the next module comes that is watched, and says how it goes on; `None` ends it.
    pub fn set_debugger(&mut self, debugger: Option<Box<dyn Debugger>>) {
        let attach =
            |debugger| Attached { debugger, breakpoints: HashSet::default(), init: None, step: None };
        self.debug = debugger.map(|debugger| Box::new(attach(debugger)));
    }

    /// The module comes that the debugger waits for.
    pub(super) fn debugs_init(&mut self, module: u64) {
        let Some(mut attached) = self.debug.take() else { return };
        let init = self.offset("module.init").and_then(|at| Ok(self.memory.u64(module.wrapping_add(at))?));
        match init {
            Ok(init) if init != 0 => {
                self.cpu.break_at(init);
                attached.init = Some(init);
            }
            // Behind the first instruction of do_init_module.
            _ => attached.step = Some(u64::MAX),
        }
        self.debug = Some(attached);
    }

    /// Does the debugger stop here?
    pub(super) fn is_debugged_here(&self) -> bool {
        self.debug.as_ref().is_some_and(|attached| attached.why(self.cpu.pc(), self.depth).is_some())
    }

    /// An instruction is about to be executed: the debugger stops here, or does not.
    pub(super) fn debugs(&mut self) -> Result<(), Stopped> {
        let why = self.debug.as_ref().and_then(|attached| attached.why(self.cpu.pc(), self.depth));
        let Some(why) = why else { return Ok(()) };
        if self.tells(why) == Then::Quit {
            return Err(self.stopped("the debugger has ended the run".into(), Cause::Machine));
        }
        Ok(())
    }

    /// The run ends, and the debugger may look at what there is.
    pub(super) fn debugs_end(&mut self) {
        self.tells(Why::End);
    }

    fn tells(&mut self, why: Why) -> Then {
        let Some(mut attached) = self.debug.take() else { return Then::Leave };
        attached.step = None;
        if why == Why::Init {
            attached.init = None;
        }
        let Attached { debugger, breakpoints, .. } = &mut *attached;
        let then = debugger.stopped(&mut View { machine: self, breakpoints }, why);
        if then == Then::Step {
            attached.step = Some(self.depth);
        }
        if matches!(then, Then::Continue | Then::Step) {
            self.debug = Some(attached);
        }
        then
    }

    /// Executes code that is not watched, until something stops it. With a debugger it stops more often, as it does for a tick, and says that it is at a
    /// breakpoint: who goes on looks where it is.
    pub(super) fn runs(&mut self) -> Stop {
        // One instruction only may do what it should not.
        if self.memory.passes() {
            let stop = self.step();
            return if stop == Stop::Budget && self.budget != 0 { Stop::Breakpoint } else { stop };
        }
        let slice = match &self.debug {
            Some(attached) if attached.step.is_some_and(|most| self.depth <= most) => 1,
            Some(_) => SLICE,
            None => u64::MAX,
        };
        let given = self.budget.min(slice).min(self.until_tick());
        let mut left = given;
        let stop = self.cpu.run(&mut self.memory, &mut left);
        let done = given.saturating_sub(left);
        self.budget = self.budget.saturating_sub(done);
        self.world.computed = self.world.computed.saturating_add(done);
        if stop == Stop::Budget && self.budget != 0 { Stop::Breakpoint } else { stop }
    }
}
