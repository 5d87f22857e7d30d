//! Time that passes while code computes: the tick of the only timer there is.

use super::{Machine, Platform, Stopped};
use crate::cpu::Stop;

/// Nanoseconds between two ticks: HZ is 250.
pub(crate) const TICK: u64 = 4_000_000;
/// Instructions between two ticks: a processor that executes 250 million of them in a second.
const INSTRUCTIONS: u64 = 1_000_000;
/// Instructions until the next try, where interrupts are masked.
const RETRY: u64 = 1000;

impl<C: Platform> Machine<C> {
    /// Executes until something stops it, or the next tick is due: then [`Stop::Budget`], with a budget that is left.
    pub(super) fn goes_to_tick(&mut self) -> Stop {
        let whole = self.budget;
        let given = whole.min(self.world.until_tick);
        self.budget = given;
        let stop = self.go();
        let done = given.saturating_sub(self.budget);
        self.budget = whole.saturating_sub(done);
        self.world.until_tick = self.world.until_tick.saturating_sub(done);
        stop
    }

    /// What the timer's interrupt does, on the stack of the code that it interrupts.
    pub(super) fn ticks(&mut self) -> Result<(), Stopped> {
        let before = self.cpu.registers();
        // Within the boot there are initcalls that do not expect a tick.
        let is_ready = self.world.is_up && self.cpu.mask_interrupts();
        self.world.until_tick = if is_ready || !self.world.is_up { INSTRUCTIONS } else { RETRY };
        if is_ready {
            self.world.time = self.world.time.wrapping_add(TICK);
            for (name, arguments) in
                [("do_timer", &[1][..]), ("update_wall_time", &[]), ("update_process_times", &[0])]
            {
                if let Some(function) = self.symbols.address(name) {
                    self.call_at(function, arguments)?;
                }
            }
            self.cpu.set_registers(&before);
        }
        Ok(())
    }
}
