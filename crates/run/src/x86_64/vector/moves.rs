//! Moves, and what crosses the halves of a vector.

use super::super::execute::{Done, State};
use super::super::flags::mask;
use super::super::instruction::{Decoded, Operand};
use super::operation::V;
use super::registers::Halves;
use crate::cpu::Trouble;
use crate::lanes::signed;
use crate::memory::Memory;

/// `value` with its bits from `at` on replaced by an element of `bits`.
fn replaced(value: u128, at: u32, bits: u32, element: u64) -> u128 {
    let ones = u128::MAX.wrapping_shr(128u32.wrapping_sub(bits));
    let mask = ones.wrapping_shl(at);
    value & !mask | (u128::from(element) & ones).wrapping_shl(at)
}

/// The elements of a vector in their order, without the upper half if that does not count.
fn elements([low, high]: Halves, element: u8, size: u8) -> impl Iterator<Item = u64> {
    let bits = u32::from(element).wrapping_mul(8);
    let per_half = 128u32.checked_div(bits).unwrap_or(0);
    let halves = [low, high].into_iter().take(usize::from(size >> 4));
    halves.flat_map(move |half| {
        (0..per_half).map(move |n| half.wrapping_shr(n.wrapping_mul(bits)) as u64 & mask(element))
    })
}

/// A vector of elements.
fn collected(all: impl Iterator<Item = u64>, element: u8) -> Halves {
    let bits = u32::from(element).wrapping_mul(8);
    let per_half = 128usize.checked_div(bits as usize).unwrap_or(1);
    let mut out = [0; 2];
    for (number, value) in all.enumerate() {
        let place = (number.checked_rem(per_half).unwrap_or(0) as u32).wrapping_mul(bits);
        let half = out.get_mut(number.checked_div(per_half).unwrap_or(0));
        half.into_iter().for_each(|half| *half |= u128::from(value & mask(element)).wrapping_shl(place));
    }
    out
}

impl State {
    pub(super) fn vector_move(&mut self, memory: &mut Memory, at: &Decoded, v: V) -> Done<()> {
        let (element, immediate) = (at.element, at.condition);
        let bits = u32::from(element).wrapping_mul(8);
        match v {
            V::ZeroUpper => {
                self.vectors.clear_upper();
                return Ok(());
            }
            V::ZeroAll => {
                self.vectors.clear();
                return Ok(());
            }
            V::LoadMasked => return self.masked(memory, at),
            _ => {}
        }
        let source = self.source(memory, &at.third, at, false)?;
        let [value, upper] = source;
        let to_vector = matches!(at.first, Operand::Vector(_));
        // Where only a part changes, the rest is that of the second operand, or of the destination.
        let rest = match (&at.second, &at.first) {
            (Operand::Vector(number), _) | (Operand::None, Operand::Vector(number)) => {
                let [low, high] = self.vectors.get(*number);
                [low, if at.size == 32 { high } else { 0 }]
            }
            _ => [0; 2],
        };
        let [low, high] = rest;
        let all = match v {
            V::MoveLow if to_vector => [value & u128::from(mask(element)), 0],
            V::MoveLow | V::Extract => {
                let count = 128u32.checked_div(bits).unwrap_or(1).wrapping_sub(1);
                let number = if v == V::Extract { u32::from(immediate) & count } else { 0 };
                let value = value.wrapping_shr(number.wrapping_mul(bits)) as u64 & mask(element);
                // A register is cleared above.
                let size = if matches!(at.first, Operand::Register(_)) { 8 } else { element };
                return self.set(memory, &at.first, value, size);
            }
            V::MoveScalar if to_vector => match at.third {
                Operand::Memory(_) => [value & u128::from(mask(element)), 0],
                _ => [replaced(low, 0, bits, value as u64), 0],
            },
            V::MoveToLow if to_vector => [replaced(low, 0, 64, value as u64), 0],
            V::MoveToHigh if to_vector => [replaced(low, 64, 64, value as u64), 0],
            V::MoveScalar | V::MoveToLow => return self.set(memory, &at.first, value as u64, element),
            V::MoveToHigh => return self.set(memory, &at.first, (value >> 64) as u64, 8),
            V::MoveHighToLow => [replaced(low, 0, 64, (value >> 64) as u64), 0],
            V::MoveLowToHigh => [replaced(low, 64, 64, value as u64), 0],
            V::Insert => {
                let count = 128u32.checked_div(bits).unwrap_or(1).wrapping_sub(1);
                let place = (u32::from(immediate) & count).wrapping_mul(bits);
                [replaced(low, place, bits, value as u64), 0]
            }
            V::InsertHalf if immediate & 1 != 0 => [low, value],
            V::InsertHalf => [value, high],
            V::ExtractHalf => {
                let half = if immediate & 1 != 0 { upper } else { value };
                // What is stored are 16 bytes, and a register is cleared above.
                return self.put(memory, &Decoded { size: 16, ..*at }, [half, 0], false);
            }
            V::PermuteHalves => {
                let half = |bits: u8| match bits & 0xb {
                    0 => low,
                    1 => high,
                    2 => value,
                    3 => upper,
                    _ => 0,
                };
                [half(immediate), half(immediate >> 4)]
            }
            V::Permute64 => {
                let from: [u64; 4] = [value as u64, (value >> 64) as u64, upper as u64, (upper >> 64) as u64];
                let chosen = (0..4u32).map(|number| {
                    let which = u32::from(immediate).wrapping_shr(number.wrapping_mul(2)) & 3;
                    from.get(which as usize).copied().unwrap_or(0)
                });
                collected(chosen, 8)
            }
            V::Permute32 => {
                let chosen = elements(rest, 4, 32)
                    .map(|which| elements(source, 4, 32).nth((which & 7) as usize).unwrap_or(0));
                collected(chosen, 4)
            }
            V::Broadcast if element == 16 => [value; 2],
            V::Broadcast => {
                let count = u32::from(at.size).checked_div(element.into()).unwrap_or(0);
                collected((0..count).map(|_| value as u64), element)
            }
            V::ExtendZero | V::ExtendSign => {
                let (from, to) = (element & 15, element >> 4);
                let count = at.size.checked_div(to).unwrap_or(0);
                let narrow = elements(source, from, 16).take(count.into());
                let wide = narrow.map(|value| match v {
                    V::ExtendSign => signed(from, value) as u64,
                    _ => value,
                });
                collected(wide, to)
            }
            V::Mask => {
                let top = |value: u64| value.wrapping_shr(bits.wrapping_sub(1)) & 1;
                let found = (0u32..).zip(elements(source, element, at.size));
                let mask = found.fold(0, |all, (number, value)| all | top(value).wrapping_shl(number));
                return self.set(memory, &at.first, mask, 8);
            }
            _ => return Err(Trouble::Unknown),
        };
        self.put(memory, at, all, false)
    }

    /// Elements whose mask has its highest bit set are loaded or stored; the others are not touched.
    fn masked(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let Operand::Vector(number) = at.second else { return Err(Trouble::Unknown) };
        let (element, bits) = (at.element, u32::from(at.element).wrapping_mul(8));
        let marks = elements(self.vectors.get(number), element, at.size);
        let marks = marks.map(|mark| mark.wrapping_shr(bits.wrapping_sub(1)) & 1 != 0);
        let place = |address: u64, number: u64| address.wrapping_add(number.wrapping_mul(element.into()));
        match (&at.first, &at.third) {
            (Operand::Vector(_), Operand::Memory(address)) => {
                let address = self.address(address);
                let mut loaded = [0u64; 8];
                for ((number, marked), value) in (0..).zip(marks).zip(&mut loaded) {
                    if marked {
                        *value = Self::load(memory, place(address, number), element)?;
                    }
                }
                let count = usize::from(at.size.checked_div(element).unwrap_or(0));
                self.put(memory, at, collected(loaded.into_iter().take(count), element), false)
            }
            (Operand::Memory(address), Operand::Vector(from)) => {
                let address = self.address(address);
                let values = elements(self.vectors.get(*from), element, at.size);
                for ((number, marked), value) in (0..).zip(marks).zip(values) {
                    if marked {
                        Self::store(memory, place(address, number), value, element)?;
                    }
                }
                Ok(())
            }
            _ => Err(Trouble::Unknown),
        }
    }
}
