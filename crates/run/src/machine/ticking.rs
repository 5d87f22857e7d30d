//! Time that passes while code computes: an instruction takes a nanosecond, and a tick interrupts it. So loops that wait for the time end.

use super::{Failed, Machine, Platform, Stopped};
use crate::stubs::TICK;

impl<C: Platform> Machine<C> {
    /// Instructions until the next tick.
    pub(super) fn until_tick(&self) -> u64 {
        if !self.world.is_up {
            return u64::MAX;
        }
        // Where no interrupt may come, a tick waits; that is looked at now and then.
        match TICK.saturating_sub(self.world.computed) {
            0 => TICK >> 8,
            left => left,
        }
    }

    /// Does a tick interrupt the code here?
    pub(super) fn is_tick_due(&self) -> bool {
        self.world.computed >= TICK && self.world.is_up && self.cpu.is_interruptible()
    }

    /// The kernel is told of the ticks that are over, as far as time goes: timers ring when it is idle.
    pub(super) fn ticks(&mut self) -> Result<(), Stopped> {
        while self.is_tick_due() {
            self.world.computed = self.world.computed.saturating_sub(TICK);
            self.world.time = self.world.time.wrapping_add(TICK);
            let before = self.cpu.registers();
            let told = self.call("do_timer", &[1]).and_then(|_| self.call("update_wall_time", &[]));
            self.cpu.set_registers(&before);
            match told {
                Ok(_) => {}
                Err(Failed::Stopped(stopped)) => return Err(stopped),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}
