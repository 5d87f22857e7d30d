//! Loads and stores.

use super::form::{AFTER, BEFORE, Decoded, OFFSET, Op};
use super::state::{Done, State, extended, mask, sign_extended};
use crate::cpu::{Exception, Trouble};
use crate::memory::{Access, Fault, Memory};

/// The address that a data access means: bits 56 to 63 are ignored, bit 55 stands for them.
fn untagged(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

fn misaligned<T>() -> Done<T> {
    Err(Trouble::Exception(Exception::Alignment))
}

impl State {
    #[inline(always)]
    pub(super) fn load<const S: usize>(&self, memory: &mut Memory, address: u64) -> Done<[u8; S]> {
        match memory.load::<S>(address) {
            Ok(bytes) => Ok(bytes),
            Err(fault) => untagged_load(memory, address, fault),
        }
    }

    #[inline(always)]
    pub(super) fn store<const S: usize>(
        &self,
        memory: &mut Memory,
        address: u64,
        bytes: [u8; S],
    ) -> Done<()> {
        match memory.store(address, bytes) {
            Ok(()) => Ok(()),
            Err(fault) => untagged_store(memory, address, bytes, fault),
        }
    }

    /// Reads 1 << size bytes.
    pub(super) fn get(&self, memory: &mut Memory, address: u64, size: u8) -> Done<u64> {
        Ok(match size & 3 {
            0 => u64::from(u8::from_le_bytes(self.load(memory, address)?)),
            1 => u64::from(u16::from_le_bytes(self.load(memory, address)?)),
            2 => u64::from(u32::from_le_bytes(self.load(memory, address)?)),
            _ => u64::from_le_bytes(self.load(memory, address)?),
        })
    }

    /// Writes 1 << size bytes.
    pub(super) fn put(&self, memory: &mut Memory, address: u64, size: u8, value: u64) -> Done<()> {
        match size & 3 {
            0 => self.store(memory, address, (value as u8).to_le_bytes()),
            1 => self.store(memory, address, (value as u16).to_le_bytes()),
            2 => self.store(memory, address, (value as u32).to_le_bytes()),
            _ => self.store(memory, address, value.to_le_bytes()),
        }
    }

    /// The address of a mode, and what the base becomes.
    #[inline(always)]
    pub(super) fn address(&self, at: &Decoded) -> (u64, Option<u64>) {
        let base = self.x(at.n);
        let next = base.wrapping_add(at.immediate);
        match at.k {
            OFFSET => (next, None),
            BEFORE => (next, Some(next)),
            AFTER => (base, Some(next)),
            _ => {
                let index = extended(self.x(at.m), (at.immediate & 7) as u8);
                (base.wrapping_add(index.wrapping_shl((at.immediate >> 8) as u32)), None)
            }
        }
    }

    fn write_back(&mut self, at: &Decoded, base: Option<u64>) {
        if let Some(base) = base {
            self.set(at.n, base);
        }
    }

    pub(super) fn load_moded(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, base) = self.address(at);
        let mut value = self.get(memory, address, at.a)?;
        if at.a & 4 != 0 {
            value = sign_extended(value, at.a & 3) & mask(at.wide);
        }
        self.write_back(at, base);
        self.set(at.d, value);
        Ok(())
    }

    pub(super) fn store_moded(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, base) = self.address(at);
        self.put(memory, address, at.a, self.x(at.d))?;
        self.write_back(at, base);
        Ok(())
    }

    /// Programs have no part of the upper half.
    pub(super) fn of_programs(&self, memory: &Memory, at: &Decoded, access: Access) -> Done<()> {
        let address = self.x(at.n).wrapping_add(at.immediate);
        if address >> 55 & 1 != 0 {
            let mapped = memory.protection(untagged(address)).is_some();
            return Err(Fault { address, access, mapped }.into());
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn load_pair(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, base) = self.address(at);
        let (first, second) = match at.op {
            Op::LdpX64 => {
                let both = u128::from_le_bytes(self.load(memory, address)?);
                (both as u64, (both >> 64) as u64)
            }
            Op::LdpX32 => {
                let both = u64::from_le_bytes(self.load(memory, address)?);
                (both & 0xffff_ffff, both >> 32)
            }
            _ => {
                let both = u64::from_le_bytes(self.load(memory, address)?);
                (sign_extended(both, 2), sign_extended(both >> 32, 2))
            }
        };
        self.write_back(at, base);
        self.set(at.d, first);
        self.set(at.a, second);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn store_pair(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, base) = self.address(at);
        let (first, second) = (self.x(at.d), self.x(at.a));
        if at.op == Op::StpX64 {
            self.store(memory, address, (u128::from(second) << 64 | u128::from(first)).to_le_bytes())?;
        } else {
            self.store(memory, address, (second << 32 | first & 0xffff_ffff).to_le_bytes())?;
        }
        self.write_back(at, base);
        Ok(())
    }

    pub(super) fn exclusive_load(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let address = self.x(at.n);
        let one = 1u64.wrapping_shl(at.k.into());
        if at.op == Op::LoadExclusive {
            aligned(address, one)?;
            let value = self.get(memory, address, at.k)?;
            self.set(at.d, value);
            self.monitor = Some((address, one));
            return Ok(());
        }
        let size = one << 1;
        aligned(address, size)?;
        let pair = if at.k == 2 { Op::LdpX32 } else { Op::LdpX64 };
        self.load_pair(memory, &Decoded { op: pair, k: OFFSET, immediate: 0, ..*at })?;
        self.monitor = Some((address, size));
        Ok(())
    }

    pub(super) fn exclusive_store(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let address = self.x(at.n);
        let pair = at.op == Op::StoreExclusivePair;
        let size = 1u64.wrapping_shl(u32::from(at.k).wrapping_add(pair.into()));
        aligned(address, size)?;
        let mine = self.monitor == Some((address, size));
        if mine {
            if pair {
                let op = if at.k == 2 { Op::StpX32 } else { Op::StpX64 };
                self.store_pair(memory, &Decoded { op, k: OFFSET, immediate: 0, ..*at })?;
            } else {
                self.put(memory, address, at.k, self.x(at.d))?;
            }
        }
        self.monitor = None;
        self.set(at.m, u64::from(!mine));
        Ok(())
    }

    /// Compare and swap, also of pairs.
    pub(super) fn compare_and_swap(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, size) = (self.x(at.n), at.k);
        aligned(address, 1u64.wrapping_shl(size.into()).wrapping_shl((at.op == Op::CasPair).into()))?;
        let width = mask(size == 3);
        if at.op == Op::Cas {
            let old = self.get(memory, address, size)?;
            let part = u64::MAX.wrapping_shr(64u32.wrapping_sub(8u32.wrapping_shl(size.into())));
            // The page has to be writable in either case.
            let same = old == self.x(at.m) & part;
            self.put(memory, address, size, if same { self.x(at.d) } else { old })?;
            self.set_source(at.m, old);
            return Ok(());
        }
        let other = |register: u8| register.wrapping_add(1);
        let step = 1u64.wrapping_shl(size.into());
        let old = (self.get(memory, address, size)?, self.get(memory, address.wrapping_add(step), size)?);
        let wanted = (self.x(at.m) & width, self.x(other(at.m)) & width);
        let new = if old == wanted { (self.x(at.d) & width, self.x(other(at.d)) & width) } else { old };
        if size == 3 {
            self.store(memory, address, (u128::from(new.1) << 64 | u128::from(new.0)).to_le_bytes())?;
        } else {
            self.store(memory, address, (new.1 << 32 | new.0).to_le_bytes())?;
        }
        self.set_source(at.m, old.0);
        self.set_source(other(at.m), old.1);
        Ok(())
    }

    pub(super) fn atomic(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (address, operand) = (self.x(at.n), self.x(at.m));
        aligned(address, 1u64.wrapping_shl(at.k.into()))?;
        let old = self.get(memory, address, at.k)?;
        let as_signed = |value| sign_extended(value, at.k) as i64;
        let part = u64::MAX.wrapping_shr(64u32.wrapping_sub(8u32.wrapping_shl(at.k.into())));
        let new = match at.op {
            Op::Swap => operand,
            Op::AtomicAdd => old.wrapping_add(operand),
            Op::AtomicClear => old & !operand,
            Op::AtomicXor => old ^ operand,
            Op::AtomicSet => old | operand,
            Op::AtomicSignedMax => as_signed(old).max(as_signed(operand)) as u64,
            Op::AtomicSignedMin => as_signed(old).min(as_signed(operand)) as u64,
            Op::AtomicMax => old.max(operand & part),
            _ => old.min(operand & part),
        };
        self.put(memory, address, at.k, new)?;
        self.set(at.d, old);
        Ok(())
    }
}

pub(super) fn aligned(address: u64, size: u64) -> Done<()> {
    if address & size.wrapping_sub(1) == 0 { Ok(()) } else { misaligned() }
}

/// A load whose address may have a top byte that is ignored.
#[cold]
fn untagged_load<const S: usize>(memory: &mut Memory, address: u64, fault: Fault) -> Done<[u8; S]> {
    match untagged(address) {
        same if same == address => Err(fault.into()),
        other => memory.load(other).map_err(Trouble::from),
    }
}

#[cold]
fn untagged_store<const S: usize>(
    memory: &mut Memory,
    address: u64,
    bytes: [u8; S],
    fault: Fault,
) -> Done<()> {
    match untagged(address) {
        same if same == address => Err(fault.into()),
        other => memory.store(other, bytes).map_err(Trouble::from),
    }
}
