//! The registers of the vector and floating-point units, and how they are saved.

use super::decode::{Decoded, Operand};
use super::execute::{Done, State};
use crate::cpu::{Exception, Trouble};
use crate::memory::Memory;

/// MXCSR after a reset: all exceptions are masked.
const CONTROL: u32 = 0x1f80;
/// Bits of MXCSR that can be set.
const CONTROL_MASK: u32 = 0xffff;
/// The control word of the floating-point unit after FNINIT.
const FLOAT_CONTROL: u16 = 0x37f;
/// Bytes of the floating-point unit's part of what FXSAVE writes.
const FLOAT: usize = 160;
/// Where in it MXCSR and its mask lie.
const CONTROLS: usize = 24;

/// Their contents.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// XMM0 to XMM15.
    pub(super) registers: [u128; 16],
    /// MXCSR
    pub(super) control: u32,
    /// What FXSAVE writes of the floating-point unit.
    float: [u8; FLOAT],
}

impl Default for Vectors {
    fn default() -> Self {
        let mut all = Vectors { registers: [0; 16], control: CONTROL, float: [0; FLOAT] };
        all.reset_float();
        all
    }
}

impl Vectors {
    /// FNINIT: its registers stay, but count as empty.
    pub(super) fn reset_float(&mut self) {
        let words = FLOAT_CONTROL.to_le_bytes().into_iter().chain([0; CONTROLS - 2]);
        self.float.iter_mut().zip(words).for_each(|(byte, new)| *byte = new);
    }
}

impl State {
    /// The address of the operand in memory.
    pub(super) fn place(&self, at: &Decoded) -> Done<u64> {
        match &at.first {
            Operand::Memory(address) => Ok(self.address(address)),
            _ => Err(Trouble::Unknown),
        }
    }

    /// MXCSR: a protection fault where bits are set that there are not.
    pub(super) fn set_control(&mut self, control: u32) -> Done<()> {
        if control & !CONTROL_MASK != 0 {
            return Err(Trouble::Exception(Exception::Protection));
        }
        self.vectors.control = control;
        Ok(())
    }

    /// FXSAVE
    pub(super) fn save_state(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let place = aligned(self.place(at)?)?;
        let mut float = self.vectors.float;
        let controls = self.vectors.control.to_le_bytes().into_iter().chain(CONTROL_MASK.to_le_bytes());
        float.iter_mut().skip(CONTROLS).zip(controls).for_each(|(byte, new)| *byte = new);
        let all = float.into_iter().chain(self.vectors.registers.into_iter().flat_map(u128::to_le_bytes));
        for (at, byte) in (0u64..).zip(all) {
            memory.store(place.wrapping_add(at), [byte])?;
        }
        Ok(())
    }

    /// FXRSTOR
    pub(super) fn restore_state(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let place = aligned(self.place(at)?)?;
        let mut float = [0; FLOAT];
        for (at, byte) in (0u64..).zip(&mut float) {
            [*byte] = memory.load(place.wrapping_add(at))?;
        }
        let control = u32::from_le_bytes(memory.load(place.wrapping_add(CONTROLS as u64))?);
        let mut registers = self.vectors.registers;
        let behind = place.wrapping_add(FLOAT as u64);
        for (number, register) in (0u64..).zip(&mut registers) {
            let at = behind.wrapping_add(number.wrapping_mul(16));
            *register = u128::from_le_bytes(memory.load(at)?);
        }
        self.set_control(control)?;
        (self.vectors.float, self.vectors.registers) = (float, registers);
        Ok(())
    }
}

/// An address that has to be a multiple of 16.
fn aligned(address: u64) -> Done<u64> {
    if address & 15 != 0 {
        return Err(Trouble::Exception(Exception::Protection));
    }
    Ok(address)
}
