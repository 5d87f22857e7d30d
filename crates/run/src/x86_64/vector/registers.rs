//! The registers of the vector and floating-point units.

use crate::kept::kept;

/// A vector: its lower and upper half.
pub type Halves = [u128; 2];

/// MXCSR after a reset: all exceptions are masked.
const CONTROL: u32 = 0x1f80;
/// The control word of the floating-point unit after FNINIT.
const FLOAT_CONTROL: u16 = 0x37f;
/// Bytes of the floating-point unit's part of what FXSAVE writes.
pub(super) const FLOAT: usize = 160;
/// Where in it MXCSR and its mask lie.
pub(super) const CONTROLS: usize = 24;
/// Registers.
pub(super) const COUNT: usize = 16;

/// Their contents.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// XMM0 to XMM15.
    pub(super) low: [u128; COUNT],
    /// The upper halves of YMM0 to YMM15.
    pub(super) high: [u128; COUNT],
    /// MXCSR
    pub(in super::super) control: u32,
    /// XCR0: the state components that are in use.
    pub(in super::super) components: u64,
    /// What FXSAVE writes of the floating-point unit.
    pub(super) float: [u8; FLOAT],
}

kept!(Vectors { low, high, control, components, float });

impl Default for Vectors {
    fn default() -> Self {
        let mut all =
            Vectors { low: [0; COUNT], high: [0; COUNT], control: CONTROL, components: 1, float: [0; FLOAT] };
        all.reset_float();
        all
    }
}

impl Vectors {
    /// A register.
    pub fn get(&self, number: u8) -> Halves {
        let half = |of: &[u128; COUNT]| of.get(usize::from(number & 15)).copied().unwrap_or(0);
        [half(&self.low), half(&self.high)]
    }

    /// Sets a register.
    pub fn set(&mut self, number: u8, [low, high]: Halves) {
        self.set_low(number, low);
        if let Some(half) = self.high.get_mut(usize::from(number & 15)) {
            *half = high;
        }
    }

    /// Sets the lower half of a register.
    pub(super) fn set_low(&mut self, number: u8, value: u128) {
        if let Some(half) = self.low.get_mut(usize::from(number & 15)) {
            *half = value;
        }
    }

    /// VZEROUPPER
    pub(super) fn clear_upper(&mut self) {
        self.high = [0; COUNT];
    }

    /// VZEROALL
    pub(super) fn clear(&mut self) {
        (self.low, self.high) = ([0; COUNT], [0; COUNT]);
    }

    /// FNINIT: its registers stay, but count as empty.
    pub(in super::super) fn reset_float(&mut self) {
        let words = FLOAT_CONTROL.to_le_bytes().into_iter().chain([0; CONTROLS - 2]);
        self.float.iter_mut().zip(words).for_each(|(byte, new)| *byte = new);
    }
}
