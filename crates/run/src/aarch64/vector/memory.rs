//! Loads and stores of vectors.

use super::super::form::{AFTER, BEFORE, Decoded, INDEX, OFFSET, Op, ZERO, bit, bits, or_sp, signed, source};
use super::super::state::{Done, State};
use crate::cpu::Trouble;
use crate::lanes::{pick, width};
use crate::memory::Memory;

/// Bytes that LD4 loads at most.
const MOST: usize = 64;

/// C4.1.96, those with bit 26 set.
pub(in super::super) fn decode(word: u32, pc: u64) -> Option<Decoded> {
    match (bits(word, 28, 2), bits(word, 24, 2)) {
        (0, _) if !bit(word, 31) => {
            structures(word)?;
            Some(Decoded { n: or_sp(word, 5), ..Decoded::word(Op::VectorStructures, word) })
        }
        (1, 0) => {
            let a = bits(word, 30, 2) as u8;
            let address = pc.wrapping_add(signed(word, 5, 19) << 2);
            let new = Decoded { d: bits(word, 0, 5) as u8, n: ZERO, ..Decoded::new(Op::LoadVector) };
            (a < 3).then(|| Decoded { a: a.wrapping_add(2), k: OFFSET, immediate: address, ..new })
        }
        (2, _) => pair(word),
        (3, 0) if !bit(word, 21) => {
            let mode = match bits(word, 10, 2) {
                0 => OFFSET,
                1 => AFTER,
                3 => BEFORE,
                _ => return None,
            };
            one(word, mode, signed(word, 12, 9))
        }
        (3, 0) if bits(word, 10, 2) == 2 => {
            let (extension, shifts) = (bits(word, 13, 3), bit(word, 12));
            if extension & 2 == 0 {
                return None;
            }
            let amount = if shifts { scale(word)?.into() } else { 0 };
            one(word, INDEX, u64::from(extension | amount << 8))
        }
        (3, 1) => one(word, OFFSET, u64::from(bits(word, 10, 12)).wrapping_shl(scale(word)?.into())),
        _ => None,
    }
}

/// How many bytes a register has, as a power of two.
fn scale(word: u32) -> Option<u8> {
    let scale = bits(word, 30, 2) | bits(word, 23, 1) << 2;
    (scale <= 4).then_some(scale as u8)
}

/// One register.
fn one(word: u32, k: u8, immediate: u64) -> Option<Decoded> {
    let op = if bit(word, 22) { Op::LoadVector } else { Op::StoreVector };
    let (d, n, m) = (bits(word, 0, 5) as u8, or_sp(word, 5), source(word, 16));
    Some(Decoded { d, n, m, a: scale(word)?, k, immediate, ..Decoded::new(op) })
}

/// Two registers.
fn pair(word: u32) -> Option<Decoded> {
    let op = if bit(word, 22) { Op::LoadVectors } else { Op::StoreVectors };
    let k = match bits(word, 23, 2) {
        1 => AFTER,
        3 => BEFORE,
        _ => OFFSET,
    };
    let scale = bits(word, 30, 2).wrapping_add(2);
    let immediate = signed(word, 15, 7).wrapping_shl(scale);
    let (d, n, a) = (bits(word, 0, 5) as u8, or_sp(word, 5), bits(word, 10, 5) as u8);
    (scale < 5).then(|| Decoded { d, n, a, m: scale as u8, k, immediate, ..Decoded::new(op) })
}

/// Elements of registers that lie one after the other in memory.
struct Structures {
    /// Bytes of an element
    element: u8,
    /// Registers whose elements take turns
    turns: u8,
    /// How often as many registers follow
    rounds: u8,
    /// Elements of each register
    count: u32,
    /// The one element of each register, if not all
    index: Option<u32>,
    /// One element fills each register.
    fills: bool,
}

impl Structures {
    fn len(&self) -> usize {
        let all = u32::from(self.turns).wrapping_mul(self.rounds.into()).wrapping_mul(self.count);
        all.wrapping_mul(self.element.into()) as usize
    }
}

fn structures(word: u32) -> Option<Structures> {
    let wide = bits(word, 30, 1);
    // Without an index after it no register is named.
    if !bit(word, 23) && bits(word, 16, if bit(word, 24) { 5 } else { 6 }) != 0 || bit(word, 29) {
        return None;
    }
    if bit(word, 24) {
        return single(word, wide);
    }
    if bit(word, 21) {
        return None;
    }
    let (turns, rounds) = match bits(word, 12, 4) {
        0b0000 => (4, 1),
        0b0010 => (1, 4),
        0b0100 => (3, 1),
        0b0110 => (1, 3),
        0b0111 => (1, 1),
        0b1000 => (2, 1),
        0b1010 => (1, 2),
        _ => return None,
    };
    let size = bits(word, 10, 2);
    if size == 3 && wide == 0 && turns != 1 {
        return None;
    }
    let count = 8u32.wrapping_shl(wide).wrapping_shr(size);
    let element = 1u8.wrapping_shl(size);
    Some(Structures { element, turns, rounds, count, index: None, fills: false })
}

/// LD1 to LD4 of one element, and LD1R to LD4R.
fn single(word: u32, wide: u32) -> Option<Structures> {
    let (size, s) = (bits(word, 10, 2), bits(word, 12, 1));
    let turns = (bits(word, 13, 1) << 1 | bits(word, 21, 1)).wrapping_add(1) as u8;
    let all = wide << 3 | s << 2 | size;
    let new = |scale: u32, index| {
        let element = 1u8.wrapping_shl(scale);
        Some(Structures { element, turns, rounds: 1, count: 1, index: Some(index), fills: false })
    };
    match (bits(word, 14, 2), size) {
        (0, _) => new(0, all),
        (1, 0 | 2) => new(1, all >> 1),
        (2, 0) => new(2, all >> 2),
        (2, 1) if s == 0 => new(3, wide),
        (3, _) if bit(word, 22) && s == 0 => new(size, 0).map(|of| Structures { fills: true, ..of }),
        _ => None,
    }
}

impl State {
    /// An instruction for vectors that has an operand in memory.
    pub(in super::super) fn vector_in_memory(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        if at.op == Op::VectorStructures {
            return self.structures(memory, at);
        }
        let (address, base) = self.address(at);
        match at.op {
            Op::LoadVector => {
                let value = self.get_vector(memory, address, at.a)?;
                self.vectors.set(at.d, value);
            }
            Op::StoreVector => self.put_vector(memory, address, at.a, self.vectors.get(at.d))?,
            Op::LoadVectors | Op::StoreVectors => {
                let bits = 8u32.wrapping_shl(at.m.into());
                let (first, second) = (self.vectors.get(at.d), self.vectors.get(at.a));
                if at.op == Op::StoreVectors && at.m == 4 {
                    let mut both = [0; 32];
                    let bytes = first.to_le_bytes().into_iter().chain(second.to_le_bytes());
                    both.iter_mut().zip(bytes).for_each(|(byte, new)| *byte = new);
                    self.store(memory, address, both)?;
                } else if at.op == Op::StoreVectors {
                    let low = first & u128::MAX.wrapping_shr(128u32.wrapping_sub(bits));
                    self.put_vector(memory, address, at.m.wrapping_add(1), second << bits | low)?;
                } else {
                    let step = u64::from(bits >> 3);
                    let first = self.get_vector(memory, address, at.m)?;
                    let second = self.get_vector(memory, address.wrapping_add(step), at.m)?;
                    self.vectors.set(at.d, first);
                    self.vectors.set(at.a, second);
                }
            }
            _ => return Err(Trouble::Unknown),
        }
        if let Some(base) = base {
            self.set(at.n, base);
        }
        Ok(())
    }

    /// Reads 1 << size bytes.
    fn get_vector(&self, memory: &mut Memory, address: u64, size: u8) -> Done<u128> {
        match size {
            4 => Ok(u128::from_le_bytes(self.load(memory, address)?)),
            _ => self.get(memory, address, size).map(u128::from),
        }
    }

    /// Writes 1 << size bytes.
    fn put_vector(&self, memory: &mut Memory, address: u64, size: u8, value: u128) -> Done<()> {
        match size {
            4 => self.store(memory, address, value.to_le_bytes()),
            _ => self.put(memory, address, size, value as u64),
        }
    }

    /// LD1 to LD4, ST1 to ST4.
    fn structures(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let word = at.immediate as u32;
        let of = structures(word).ok_or(Trouble::Unknown)?;
        let (address, len) = (self.x(at.n), of.len());
        let mut bytes = [0; MOST];
        let bytes = bytes.get_mut(..len).ok_or(Trouble::Unknown)?;
        if bit(word, 22) {
            self.load_bytes(memory, address, bytes)?;
            self.give(&of, word, bytes);
        } else {
            self.take(&of, word, bytes);
            self.store_bytes(memory, address, bytes)?;
        }
        if bit(word, 23) {
            let by = match source(word, 16) {
                ZERO => len as u64,
                register => self.x(register),
            };
            self.set(at.n, address.wrapping_add(by));
        }
        Ok(())
    }

    /// The registers of structures, with the number of an element in each, in the order of memory.
    fn places(of: &Structures, word: u32) -> impl Iterator<Item = (u8, u32)> + use<> {
        let (first, turns, count, index) = (bits(word, 0, 5) as u8, of.turns, of.count, of.index);
        (0..of.rounds).flat_map(move |round| {
            (0..count).flat_map(move |number| {
                (0..turns).map(move |turn| {
                    let register = first.wrapping_add(round).wrapping_add(turn) & 31;
                    (register, index.unwrap_or(number))
                })
            })
        })
    }

    fn give(&mut self, of: &Structures, word: u32, bytes: &[u8]) {
        let elements = bytes.chunks(of.element.into());
        for ((register, number), bytes) in Self::places(of, word).zip(elements) {
            let value = bytes.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte));
            let shift = width(of.element).wrapping_mul(number);
            let ones = u128::MAX.wrapping_shr(128u32.wrapping_sub(width(of.element)));
            let before = match of.index {
                // The first element of a whole register clears what it has.
                None if number == 0 => 0,
                _ => self.vectors.get(register),
            };
            let new = before & !ones.wrapping_shl(shift) | value.wrapping_shl(shift);
            let new = if of.fills { filled(of.element, value, bit(word, 30)) } else { new };
            self.vectors.set(register, new);
        }
    }

    fn take(&self, of: &Structures, word: u32, bytes: &mut [u8]) {
        let elements = bytes.chunks_mut(of.element.into());
        for ((register, number), bytes) in Self::places(of, word).zip(elements) {
            let value = pick(of.element, self.vectors.get(register), number).to_le_bytes();
            bytes.iter_mut().zip(value).for_each(|(byte, new)| *byte = new);
        }
    }

    fn load_bytes(&self, memory: &mut Memory, address: u64, bytes: &mut [u8]) -> Done<()> {
        macro_rules! by_len {
            ($($len:literal),*) => {
                match bytes.len() {
                    $($len => bytes.copy_from_slice(&self.load::<$len>(memory, address)?),)*
                    _ => return Err(Trouble::Unknown),
                }
            };
        }
        by_len!(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64);
        Ok(())
    }

    fn store_bytes(&self, memory: &mut Memory, address: u64, bytes: &[u8]) -> Done<()> {
        macro_rules! by_len {
            ($($len:literal),*) => {
                match bytes.len() {
                    $($len => {
                        let all: [u8; $len] = *bytes.first_chunk().ok_or(Trouble::Unknown)?;
                        self.store(memory, address, all)
                    })*
                    _ => Err(Trouble::Unknown),
                }
            };
        }
        by_len!(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    }
}

/// One element in all places.
fn filled(element: u8, value: u128, wide: bool) -> u128 {
    let all = crate::lanes::gather(element, |_| value as u64);
    if wide { all } else { all & u128::from(u64::MAX) }
}
