//! What each instruction does.

use super::flags::{DF, Flags, mask, sign_extended};
use super::instruction::{Address, Decoded, KIND_FS, KIND_GS, KIND_NARROW, Op, Operand};
use super::vector::registers::Vectors;
use crate::cpu::{Exception, Registers, Trouble};
use crate::kept::kept;
use crate::memory::Memory;

pub const RAX: u8 = 0;
pub const RCX: u8 = 1;
pub const RDX: u8 = 2;
pub const RBX: u8 = 3;
pub const RSP: u8 = 4;
pub const RBP: u8 = 5;
pub const RSI: u8 = 6;
pub const RDI: u8 = 7;

/// Interrupts are enabled.
pub(super) const IF: u64 = 1 << 9;
/// Always set.
pub(super) const FIXED: u64 = 1 << 1;
/// CR0_STATE: what CR0 is in a running kernel.
const BOOTED: u64 = 0x8005_0033;
/// X86_CR0_WP: the kernel obeys read-only pages.
const WRITE_PROTECT: u64 = 1 << 16;
/// Selectors of no segment, __KERNEL_DS and __USER_DS: their base is 0.
const FLAT: [u16; 6] = [0, 1, 2, 3, 0x18, 0x2b];
/// Bits of RFLAGS beside those of [`Flags`] that POPF sets.
const OTHERS: u64 = IF | DF | 1 << 8 | 1 << 18 | 1 << 21;

/// The registers.
#[derive(Clone, Debug)]
pub struct State {
    /// General registers, and zero behind them.
    pub(super) general: [u64; 32],
    /// The next instruction.
    pub rip: u64,
    pub flags: Flags,
    /// RFLAGS without what `flags` has.
    pub others: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) segments: [u16; 8],
    pub(super) system: [u64; 32],
    /// What RDTSC reads next.
    pub tsc: u64,
    pub(super) vectors: Vectors,
}

impl Registers for State {}

kept!(State {
    general,
    rip,
    flags,
    others,
    fs_base,
    gs_base,
    kernel_gs_base,
    segments,
    system,
    tsc,
    vectors
});

impl Default for State {
    fn default() -> Self {
        let mut segments = [0; 8];
        // __KERNEL_CS, __KERNEL_DS
        segments.iter_mut().zip([0, 0x10, 0x18]).for_each(|(segment, selector)| *segment = selector);
        let mut system = [0; 32];
        let [cr0, ..] = &mut system;
        *cr0 = BOOTED;
        State {
            general: [0; 32],
            rip: 0,
            flags: Flags::default(),
            others: FIXED,
            fs_base: 0,
            gs_base: 0,
            kernel_gs_base: 0,
            segments,
            system,
            tsc: 0,
            vectors: Vectors::default(),
        }
    }
}

/// As the processor tells it: an address that is none is a protection fault.
pub fn told(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Fault(fault) if !is_canonical(fault.address) => Trouble::Exception(Exception::Protection),
        trouble => trouble,
    }
}

fn is_canonical(address: u64) -> bool {
    let top = address >> 47;
    top == 0 || top == u64::MAX >> 47
}

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Behind the instruction.
    Next,
    /// At `rip`, which is set.
    Jumped,
    /// At the same instruction: rounds are left that the budget does not cover.
    Again,
}

pub(super) type Done<T> = Result<T, Trouble>;

impl State {
    #[inline(always)]
    pub fn register(&self, number: u8) -> u64 {
        self.general.get(usize::from(number & 31)).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub fn set_register(&mut self, number: u8, value: u64) {
        if let Some(register) = self.general.get_mut(usize::from(number & 15)) {
            *register = value;
        }
    }

    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.flags.bits() | self.others | FIXED
    }

    pub fn set_rflags(&mut self, bits: u64) {
        self.flags = Flags::of_bits(bits);
        self.others = bits & OTHERS | FIXED;
    }

    #[inline(always)]
    pub(super) fn address(&self, address: &Address) -> u64 {
        let index = self.register(address.index).wrapping_shl(u32::from(address.scale));
        let plain = self.register(address.base).wrapping_add(index).wrapping_add(address.displacement);
        match address.kind {
            0 => plain,
            KIND_GS => plain.wrapping_add(self.gs_base),
            KIND_FS => plain.wrapping_add(self.fs_base),
            kind => {
                let plain = plain & 0xffff_ffff;
                let base = match kind & !KIND_NARROW {
                    KIND_FS => self.fs_base,
                    KIND_GS => self.gs_base,
                    _ => 0,
                };
                plain.wrapping_add(base)
            }
        }
    }

    /// The address itself, without the base of a segment: LEA.
    pub(super) fn effective(&self, address: &Address) -> u64 {
        self.address(&Address { kind: address.kind & KIND_NARROW, ..*address })
    }

    #[inline(always)]
    pub(super) fn load(memory: &mut Memory, address: u64, size: u8) -> Done<u64> {
        Ok(match size {
            8 => u64::from_le_bytes(memory.load(address)?),
            4 => u64::from(u32::from_le_bytes(memory.load(address)?)),
            1 => u64::from(u8::from_le_bytes(memory.load(address)?)),
            2 => u64::from(u16::from_le_bytes(memory.load(address)?)),
            _ => return Err(Trouble::Unknown),
        })
    }

    #[inline(always)]
    pub(super) fn store(memory: &mut Memory, address: u64, value: u64, size: u8) -> Done<()> {
        match size {
            8 => memory.store(address, value.to_le_bytes())?,
            4 => memory.store(address, (value as u32).to_le_bytes())?,
            1 => memory.store(address, (value as u8).to_le_bytes())?,
            2 => memory.store(address, (value as u16).to_le_bytes())?,
            _ => return Err(Trouble::Unknown),
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn get(&self, memory: &mut Memory, operand: &Operand, size: u8) -> Done<u64> {
        Ok(match operand {
            Operand::Register(number) => self.register(*number) & mask(size),
            Operand::Immediate(value) => *value & mask(size),
            Operand::Memory(address) => Self::load(memory, self.address(address), size)?,
            other => self.get_special(other) & mask(size),
        })
    }

    #[cold]
    fn get_special(&self, operand: &Operand) -> u64 {
        match operand {
            Operand::High(number) => self.register(*number) >> 8 & 0xff,
            Operand::System(number) => self.system.get(usize::from(number & 31)).copied().unwrap_or(0),
            Operand::Segment(number) => {
                self.segments.get(usize::from(number & 7)).copied().unwrap_or(0).into()
            }
            _ => 0,
        }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, memory: &mut Memory, operand: &Operand, value: u64, size: u8) -> Done<()> {
        match operand {
            Operand::Register(number) => self.set_sized(*number, value, size),
            Operand::Memory(address) => Self::store(memory, self.address(address), value, size)?,
            other => self.set_special(memory, other, value)?,
        }
        Ok(())
    }

    #[cold]
    fn set_special(&mut self, memory: &mut Memory, operand: &Operand, value: u64) -> Done<()> {
        match operand {
            Operand::High(number) => {
                let old = self.register(*number);
                self.set_register(*number, old & !0xff00 | (value & 0xff) << 8);
            }
            Operand::System(number) => {
                if let Some(register) = self.system.get_mut(usize::from(number & 31)) {
                    *register = value;
                }
                if *number == 0 {
                    memory.ignore_protection(value & WRITE_PROTECT == 0);
                }
            }
            // Another selector of FS or GS would load a base from a table.
            Operand::Segment(4 | 5) if !FLAT.contains(&(value as u16)) => return Err(Trouble::Unknown),
            Operand::Segment(number) => {
                match number {
                    4 => self.fs_base = 0,
                    5 => self.gs_base = 0,
                    _ => {}
                }
                if let Some(segment) = self.segments.get_mut(usize::from(number & 7)) {
                    *segment = value as u16;
                }
            }
            _ => return Err(Trouble::Unknown),
        }
        Ok(())
    }

    /// Writes a register: 4 bytes clear the upper half, fewer leave the rest.
    #[inline(always)]
    pub(super) fn set_sized(&mut self, number: u8, value: u64, size: u8) {
        let value = match size {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => self.register(number) & !mask(size) | value & mask(size),
        };
        self.set_register(number, value);
    }

    pub(super) fn low(&self, number: u8, size: u8) -> u64 {
        self.register(number) & mask(size)
    }

    #[inline(always)]
    pub fn push(&mut self, memory: &mut Memory, value: u64) -> Done<()> {
        let sp = self.register(RSP).wrapping_sub(8);
        memory.store(sp, value.to_le_bytes())?;
        self.set_register(RSP, sp);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn pop(&mut self, memory: &mut Memory) -> Done<u64> {
        let sp = self.register(RSP);
        let value = u64::from_le_bytes(memory.load(sp)?);
        self.set_register(RSP, sp.wrapping_add(8));
        Ok(value)
    }

    /// First and second operand.
    #[inline(always)]
    pub(super) fn both(&self, memory: &mut Memory, at: &Decoded) -> Done<(u64, u64)> {
        Ok((self.get(memory, &at.first, at.size)?, self.get(memory, &at.second, at.size)?))
    }

    /// Writes the result first: if that faults, no flag has changed.
    #[inline(always)]
    pub(super) fn finish(&mut self, memory: &mut Memory, at: &Decoded, value: u64, flags: Flags) -> Done<()> {
        self.set(memory, &at.first, value, at.size)?;
        self.flags = flags;
        Ok(())
    }

    /// Executes one instruction. `spare` is how many rounds of a repeated one may follow the first; those made are taken off.
    #[inline(always)]
    pub fn step(&mut self, memory: &mut Memory, at: &Decoded, spare: &mut u64) -> Done<Flow> {
        let size = at.size;
        match at.op {
            Op::MoveRegister => {
                if let (Operand::Register(to), Operand::Register(from)) = (at.first, at.second) {
                    self.set_register(to, self.register(from));
                }
            }
            Op::Load => {
                if let (Operand::Register(to), Operand::Memory(from)) = (at.first, &at.second) {
                    let value = u64::from_le_bytes(memory.load(self.address(from))?);
                    self.set_register(to, value);
                }
            }
            Op::Store => {
                if let (Operand::Memory(to), Operand::Register(from)) = (&at.first, at.second) {
                    memory.store(self.address(to), self.register(from).to_le_bytes())?;
                }
            }
            Op::Mov => {
                let value = self.get(memory, &at.second, size)?;
                self.set(memory, &at.first, value, size)?;
            }
            Op::Lea => {
                if let Operand::Memory(address) = &at.second {
                    let value = self.effective(address);
                    self.set(memory, &at.first, value, size)?;
                }
            }
            Op::Movzx => {
                let value = self.get(memory, &at.second, at.source_size)?;
                self.set(memory, &at.first, value, size)?;
            }
            Op::Movsx => {
                let value = self.get(memory, &at.second, at.source_size)?;
                self.set(memory, &at.first, sign_extended(value, at.source_size), size)?;
            }
            Op::Add => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                let value = flags.add(a, b, false, size);
                self.finish(memory, at, value, flags)?;
            }
            Op::Adc => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                let value = flags.add(a, b, self.flags.carry(), size);
                self.finish(memory, at, value, flags)?;
            }
            Op::Sub => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                let value = flags.sub(a, b, false, size);
                self.finish(memory, at, value, flags)?;
            }
            Op::Sbb => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                let value = flags.sub(a, b, self.flags.carry(), size);
                self.finish(memory, at, value, flags)?;
            }
            Op::Cmp => {
                let (a, b) = self.both(memory, at)?;
                self.flags.sub(a, b, false, size);
            }
            Op::Test => {
                let (a, b) = self.both(memory, at)?;
                self.flags.logic(a & b, size);
            }
            Op::And => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                flags.logic(a & b, size);
                self.finish(memory, at, a & b, flags)?;
            }
            Op::Or => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                flags.logic(a | b, size);
                self.finish(memory, at, a | b, flags)?;
            }
            Op::Xor => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                flags.logic(a ^ b, size);
                self.finish(memory, at, a ^ b, flags)?;
            }
            Op::Push => {
                let value = match at.first {
                    Operand::Immediate(value) => value,
                    operand => self.get(memory, &operand, 8)?,
                };
                self.push(memory, value)?;
            }
            Op::Pop => {
                let sp = self.register(RSP);
                let value = self.pop(memory)?;
                // An address with RSP in it is that after the pop; if the write faults, RSP is as before.
                if let Err(trouble) = self.set(memory, &at.first, value, 8) {
                    self.set_register(RSP, sp);
                    return Err(trouble);
                }
            }
            Op::Call => {
                let target = self.get(memory, &at.first, 8)?;
                self.push(memory, at.next)?;
                self.rip = target;
                return Ok(Flow::Jumped);
            }
            Op::Jmp => {
                self.rip = self.get(memory, &at.first, 8)?;
                return Ok(Flow::Jumped);
            }
            Op::Ret => {
                self.rip = self.pop(memory)?;
                if let Operand::Immediate(bytes) = at.first {
                    self.set_register(RSP, self.register(RSP).wrapping_add(bytes));
                }
                return Ok(Flow::Jumped);
            }
            Op::Jcc => {
                if self.flags.holds(at.condition)
                    && let Operand::Immediate(target) = at.first
                {
                    self.rip = target;
                    return Ok(Flow::Jumped);
                }
            }
            Op::Setcc => {
                let value = self.flags.holds(at.condition).into();
                self.set(memory, &at.first, value, 1)?;
            }
            Op::Cmovcc => {
                // The source is read either way, and 4 bytes clear the upper half either way.
                let (old, new) = self.both(memory, at)?;
                let value = if self.flags.holds(at.condition) { new } else { old };
                self.set(memory, &at.first, value, size)?;
            }
            Op::Not => {
                let value = !self.get(memory, &at.first, size)?;
                self.set(memory, &at.first, value, size)?;
            }
            Op::Neg => {
                let (a, mut flags) = (self.get(memory, &at.first, size)?, self.flags);
                let value = flags.sub(0, a, false, size);
                self.finish(memory, at, value, flags)?;
            }
            Op::Inc | Op::Dec => {
                let (a, mut flags) = (self.get(memory, &at.first, size)?, self.flags);
                let value = if at.op == Op::Inc {
                    flags.add(a, 1, false, size)
                } else {
                    flags.sub(a, 1, false, size)
                };
                flags.set_carry(self.flags.carry());
                self.finish(memory, at, value, flags)?;
            }
            Op::Shl | Op::Shr | Op::Sar => self.shift(memory, at)?,
            _ => return self.step_rarely(memory, at, spare),
        }
        Ok(Flow::Next)
    }
}
