//! How the registers of the vector and floating-point units are saved.

use super::super::cpuid::{FEATURES, HALVES_AT};
use super::super::execute::{Done, RAX, RCX, RDX, State};
use super::super::instruction::{Decoded, Op, Operand};
use super::registers::{CONTROLS, COUNT, FLOAT, Vectors};
use crate::cpu::{Exception, Trouble};
use crate::memory::Memory;

/// Bits of MXCSR that can be set.
const CONTROL_MASK: u32 = 0xffff;
const CONTROLS_END: u64 = 32;
/// Bytes of what FXSAVE writes; behind it XSAVE has its header.
const HEADER_AT: u64 = 512;
/// State components: floating point, XMM registers, upper halves of YMM registers.
const COMPONENTS: [u64; 3] = [1, 2, 4];
/// CR4.OSXSAVE
const OSXSAVE: u64 = 1 << 18;

impl State {
    /// Instructions for the state as a whole.
    pub(in super::super) fn whole_state(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        match at.op {
            Op::SaveState => {
                let place = aligned(self.place(at)?, 16)?;
                self.save_float(memory, place)?;
                self.save_control(memory, place)?;
                save(memory, place.wrapping_add(FLOAT as u64), &self.vectors.low)
            }
            Op::RestoreState => {
                let place = aligned(self.place(at)?, 16)?;
                let control = u32::from_le_bytes(memory.load(place.wrapping_add(CONTROLS as u64))?);
                let float = load_float(memory, place)?;
                let low = load(memory, place.wrapping_add(FLOAT as u64))?;
                self.set_control(control)?;
                (self.vectors.float, self.vectors.low) = (float, low);
                Ok(())
            }
            Op::SaveComponents => self.save_components(memory, at),
            Op::RestoreComponents => self.restore_components(memory, at),
            Op::ResetFloat => {
                self.vectors.reset_float();
                Ok(())
            }
            Op::SaveControl => Self::store(memory, self.place(at)?, self.vectors.control.into(), 4),
            Op::LoadControl => {
                let control = Self::load(memory, self.place(at)?, 4)? as u32;
                self.set_control(control)
            }
            Op::GetComponents => {
                self.is_enabled()?;
                if self.register(RCX) as u32 != 0 {
                    return Err(Trouble::Exception(Exception::Protection));
                }
                self.set_register(RAX, self.vectors.components);
                self.set_register(RDX, 0);
                Ok(())
            }
            Op::SetComponents => {
                self.is_enabled()?;
                let value = self.register(RDX) << 32 | self.register(RAX) & 0xffff_ffff;
                let [float, low, high] = COMPONENTS;
                let known = value & !FEATURES == 0 && value & float != 0;
                if self.register(RCX) as u32 != 0 || !known || value & high != 0 && value & low == 0 {
                    return Err(Trouble::Exception(Exception::Protection));
                }
                self.vectors.components = value;
                Ok(())
            }
            _ => Err(Trouble::Unknown),
        }
    }

    /// The state components in use, once the kernel has set CR4.OSXSAVE.
    pub(in super::super) fn in_use(&self) -> Option<u64> {
        let control = self.system.get(4).copied().unwrap_or(0);
        (control & OSXSAVE != 0).then_some(self.vectors.components)
    }

    /// The instructions of XSAVE are undefined until then.
    fn is_enabled(&self) -> Done<()> {
        if self.in_use().is_none() {
            return Err(Trouble::Exception(Exception::Undefined));
        }
        Ok(())
    }

    /// Which components an instruction asks for that are in use.
    fn asked_for(&self) -> u64 {
        (self.register(RDX) << 32 | self.register(RAX) & 0xffff_ffff) & self.vectors.components
    }

    /// XSAVE in its standard form. XSAVEOPT may leave out what has not changed, and does not here.
    fn save_components(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        self.is_enabled()?;
        let (place, asked) = (aligned(self.place(at)?, 64)?, self.asked_for());
        let [float, low, high] = COMPONENTS;
        let header = place.wrapping_add(HEADER_AT);
        let before = u64::from_le_bytes(memory.load(header)?);
        if asked & float != 0 {
            self.save_float(memory, place)?;
        }
        if asked & (low | high) != 0 {
            self.save_control(memory, place)?;
        }
        if asked & low != 0 {
            save(memory, place.wrapping_add(FLOAT as u64), &self.vectors.low)?;
        }
        if asked & high != 0 {
            save(memory, place.wrapping_add(HALVES_AT), &self.vectors.high)?;
        }
        // Nothing is told to be as after a reset: that may be said of what is, and need not.
        memory.store(header, (before & !asked | asked).to_le_bytes())?;
        Ok(())
    }

    /// XRSTOR of the standard form. Components whose bit in the header is clear become as after a reset.
    fn restore_components(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        self.is_enabled()?;
        let (place, asked) = (aligned(self.place(at)?, 64)?, self.asked_for());
        let [float, low, high] = COMPONENTS;
        let header = place.wrapping_add(HEADER_AT);
        let there = u64::from_le_bytes(memory.load(header)?);
        let mut rest = [0; 16];
        for (word, bytes) in (1u64..).zip(rest.chunks_mut(8)) {
            let from: [u8; 8] = memory.load(header.wrapping_add(word.wrapping_mul(8)))?;
            bytes.iter_mut().zip(from).for_each(|(byte, new)| *byte = new);
        }
        // A compacted form, or bits of components that there are not.
        if there & !self.vectors.components != 0 || rest != [0; 16] {
            return Err(Trouble::Exception(Exception::Protection));
        }
        let mut new = Vectors::default();
        if there & float != 0 {
            new.float = load_float(memory, place)?;
        }
        if there & low != 0 {
            new.low = load(memory, place.wrapping_add(FLOAT as u64))?;
        }
        if there & high != 0 {
            new.high = load(memory, place.wrapping_add(HALVES_AT))?;
        }
        if asked & (low | high) != 0 {
            self.set_control(u32::from_le_bytes(memory.load(place.wrapping_add(CONTROLS as u64))?))?;
        }
        let now = &mut self.vectors;
        if asked & float != 0 {
            now.float = new.float;
        }
        if asked & low != 0 {
            now.low = new.low;
        }
        if asked & high != 0 {
            now.high = new.high;
        }
        Ok(())
    }

    /// The address of the operand in memory.
    fn place(&self, at: &Decoded) -> Done<u64> {
        match &at.first {
            Operand::Memory(address) => Ok(self.address(address)),
            _ => Err(Trouble::Unknown),
        }
    }

    /// MXCSR: a protection fault where bits are set that there are not.
    fn set_control(&mut self, control: u32) -> Done<()> {
        if control & !CONTROL_MASK != 0 {
            return Err(Trouble::Exception(Exception::Protection));
        }
        self.vectors.control = control;
        Ok(())
    }

    fn save_float(&self, memory: &mut Memory, place: u64) -> Done<()> {
        for (at, byte) in (0u64..).zip(&self.vectors.float) {
            if !(CONTROLS as u64..CONTROLS_END).contains(&at) {
                memory.store(place.wrapping_add(at), [*byte])?;
            }
        }
        Ok(())
    }

    /// MXCSR and its mask.
    fn save_control(&self, memory: &mut Memory, place: u64) -> Done<()> {
        let both = u64::from(self.vectors.control) | u64::from(CONTROL_MASK) << 32;
        memory.store(place.wrapping_add(CONTROLS as u64), both.to_le_bytes())?;
        Ok(())
    }
}

fn load_float(memory: &mut Memory, place: u64) -> Done<[u8; FLOAT]> {
    let mut float = [0; FLOAT];
    for (at, byte) in (0u64..).zip(&mut float) {
        [*byte] = memory.load(place.wrapping_add(at))?;
    }
    Ok(float)
}

fn save(memory: &mut Memory, place: u64, registers: &[u128; COUNT]) -> Done<()> {
    for (number, register) in (0u64..).zip(registers) {
        memory.store(place.wrapping_add(number.wrapping_mul(16)), register.to_le_bytes())?;
    }
    Ok(())
}

fn load(memory: &mut Memory, place: u64) -> Done<[u128; COUNT]> {
    let mut registers = [0; COUNT];
    for (number, register) in (0u64..).zip(&mut registers) {
        *register = u128::from_le_bytes(memory.load(place.wrapping_add(number.wrapping_mul(16)))?);
    }
    Ok(registers)
}

/// An address that has to be a multiple of that.
fn aligned(address: u64, of: u64) -> Done<u64> {
    if address & of.wrapping_sub(1) != 0 {
        return Err(Trouble::Exception(Exception::Protection));
    }
    Ok(address)
}
