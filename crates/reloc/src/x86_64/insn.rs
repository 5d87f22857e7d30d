//! Lengths and branches of machine code, as far as patching needs them (`insn_decode_kernel`): where an
//! instruction ends, where its displacement and immediate stand. What it does is not looked at.

/// MAX_INSN_SIZE
pub const MAX: usize = 15;

/// A number inside an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the instruction.
    pub offset: usize,
    /// Bytes; 0 if it has none.
    pub size: usize,
    /// Its value, sign-extended; 0 for those of more than 4 bytes, which no branch has.
    pub value: i32,
}

/// One instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insn {
    /// Bytes.
    pub length: usize,
    /// The opcode's first two bytes, after prefixes. Behind a VEX or EVEX prefix the first one is the opcode
    /// in its map, as the kernel's decoder has it.
    pub opcode: [u8; 2],
    /// The first legacy prefix is F3.
    pub rep: bool,
    /// Its operand is relative to the next instruction.
    pub rip_relative: bool,
    /// The displacement of its memory operand.
    pub displacement: Field,
    /// Its immediate, or the distance that it branches.
    pub immediate: Field,
}

/// What follows an opcode.
#[derive(Clone, Copy)]
enum Tail {
    /// Nothing.
    None,
    /// ModRM and what that brings.
    M,
    /// ModRM and that many bytes.
    Mi(usize),
    /// ModRM and 4 bytes, 2 with an operand size prefix.
    Mz,
    /// That many bytes.
    I(usize),
    /// 4 bytes, 2 with an operand size prefix.
    Iz,
    /// 4 bytes, 2 with an operand size prefix, 8 with REX.W.
    Iv,
    /// An address of 8 bytes, of 4 with an address size prefix.
    Moffs,
}

/// Opcodes of one byte, in 64-bit mode. Those that are invalid end with themselves.
const fn one_byte(op: u8) -> Tail {
    match op {
        0x00..=0x3f => match op & 7 {
            0..=3 => Tail::M,
            4 => Tail::I(1),
            5 => Tail::Iz,
            _ => Tail::None,
        },
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => Tail::M,
        0x69 | 0x81 | 0xc7 => Tail::Mz,
        0x6b | 0x80 | 0x82 | 0x83 | 0xc0 | 0xc1 | 0xc6 => Tail::Mi(1),
        0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => Tail::I(1),
        0x68 | 0xa9 => Tail::Iz,
        // Near branches have 4 bytes whatever the prefixes.
        0xe8 | 0xe9 => Tail::I(4),
        0xa0..=0xa3 => Tail::Moffs,
        0xb8..=0xbf => Tail::Iv,
        0xc2 | 0xca => Tail::I(2),
        0xc8 => Tail::I(3),
        _ => Tail::None,
    }
}

/// Opcodes after 0F.
const fn two_byte(op: u8) -> Tail {
    match op {
        0x05..=0x0c | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf => Tail::None,
        0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => Tail::Mi(1),
        0x80..=0x8f => Tail::I(4),
        _ => Tail::M,
    }
}

/// Reads one byte after the other.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at = self.at.checked_add(1)?;
        Some(byte)
    }

    fn field(&mut self, size: usize) -> Option<Field> {
        let (offset, end) = (self.at, self.at.checked_add(size)?);
        let bytes = self.bytes.get(offset..end)?;
        self.at = end;
        let value = match *bytes {
            [a] => i32::from(a.cast_signed()),
            [a, b] => i32::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
            _ => 0,
        };
        Some(Field { offset, size, value })
    }
}

/// Decodes the first instruction of `bytes`; `None` if they end before it does.
pub fn decode(bytes: &[u8]) -> Option<Insn> {
    let mut insn = Insn::default();
    let mut read = Reader { bytes: bytes.get(..MAX).unwrap_or(bytes), at: 0 };
    let (mut opsize, mut addrsize) = (false, false);
    // Legacy prefixes in any order.
    loop {
        match read.peek()? {
            0x66 => opsize = true,
            0x67 => addrsize = true,
            0xf3 if read.at == 0 => insn.rep = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => {}
            _ => break,
        }
        read.next()?;
    }
    let mut wide = false;
    if let rex @ 0x40..=0x4f = read.peek()? {
        wide = rex & 8 != 0;
        read.next()?;
    }
    let op = read.next()?;
    let tail = match op {
        0xc4 | 0xc5 | 0x62 => {
            let map = match op {
                0xc5 => {
                    read.next()?;
                    1
                }
                0xc4 => {
                    let map = read.next()? & 0x1f;
                    read.next()?;
                    map
                }
                _ => {
                    let map = read.next()? & 7;
                    read.next()?;
                    read.next()?;
                    map
                }
            };
            let op = read.next()?;
            insn.opcode = [op, 0];
            match map {
                1 => match two_byte(op) {
                    // No branches there.
                    Tail::I(_) => Tail::M,
                    tail => tail,
                },
                3 => Tail::Mi(1),
                _ => Tail::M,
            }
        }
        0x0f => {
            let second = read.next()?;
            insn.opcode = [op, second];
            match second {
                0x38 => {
                    read.next()?;
                    Tail::M
                }
                0x3a => {
                    read.next()?;
                    Tail::Mi(1)
                }
                _ => two_byte(second),
            }
        }
        _ => {
            insn.opcode = [op, 0];
            // TEST has an immediate, the others of its group have none.
            let test = || read.peek().is_some_and(|modrm| modrm & 0x38 <= 0x08);
            match op {
                0xf6 if test() => Tail::Mi(1),
                0xf7 if test() => Tail::Mz,
                0xf6 | 0xf7 => Tail::M,
                _ => one_byte(op),
            }
        }
    };
    if matches!(tail, Tail::M | Tail::Mi(_) | Tail::Mz) {
        let modrm = read.next()?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let base = if mode != 3 && rm == 4 { read.next()? & 7 } else { rm };
        insn.rip_relative = mode == 0 && rm == 5;
        let size = match mode {
            0 if base == 5 => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        insn.displacement = read.field(size)?;
    }
    let z = if opsize && !wide { 2 } else { 4 };
    let size = match tail {
        Tail::None | Tail::M => 0,
        Tail::Mi(size) | Tail::I(size) => size,
        Tail::Mz | Tail::Iz => z,
        Tail::Iv => {
            if wide {
                8
            } else {
                z
            }
        }
        Tail::Moffs => {
            if addrsize {
                4
            } else {
                8
            }
        }
    };
    insn.immediate = read.field(size)?;
    insn.length = read.at;
    Some(insn)
}

impl Insn {
    /// `is_jcc32`: a conditional jump with 4 bytes of distance.
    pub fn is_jcc32(&self) -> bool {
        matches!(self.opcode, [0x0f, 0x80..=0x8f])
    }

    /// `insn_is_nop`: NOP or NOPL, none of the other ways to do nothing.
    pub fn is_nop(&self) -> bool {
        (self.opcode[0] == 0x90 && !self.rep) || self.opcode == [0x0f, 0x1f]
    }

    /// Where a branch at `address` goes.
    pub fn target(&self, address: u64) -> u64 {
        address.wrapping_add(self.length as u64).wrapping_add_signed(i64::from(self.immediate.value))
    }
}

/// `text_gen_insn`: a call (E8) or jump (E9) of 5 bytes from `address` to `target`. A distance that does not
/// fit is cut, as the kernel cuts it.
pub fn text_gen_insn(opcode: u8, address: u64, target: u64) -> [u8; 5] {
    let distance = target.wrapping_sub(address.wrapping_add(5)) as u32;
    let [a, b, c, d] = distance.to_le_bytes();
    [opcode, a, b, c, d]
}

/// Where an instruction of five bytes with this opcode leads: a distance follows it.
pub fn target(code: &[u8], address: u64, opcode: u8) -> Option<u64> {
    let [first, distance @ ..] = code.first_chunk::<5>()?;
    let distance = i64::from(i32::from_le_bytes(*distance));
    (*first == opcode).then(|| address.wrapping_add(5).wrapping_add_signed(distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fin_23_lengths() {
        // Bytes and the length that objdump -d gives them.
        let cases: &[(&[u8], usize)] = &[
            (&[0x90], 1),
            (&[0x66, 0x90], 2),
            (&[0xf3, 0x90], 2),
            (&[0x0f, 0x1f, 0x00], 3),
            (&[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 11),
            (&[0xe8, 1, 2, 3, 4], 5),
            (&[0x2e, 0xe8, 1, 2, 3, 4], 6),
            (&[0x66, 0xe9, 1, 2, 3, 4], 6),
            (&[0xeb, 5], 2),
            (&[0x74, 5], 2),
            (&[0x0f, 0x84, 1, 2, 3, 4], 6),
            (&[0xff, 0x15, 1, 2, 3, 4], 6),
            (&[0x41, 0xff, 0xd3], 3),
            (&[0x0f, 0xae, 0xe8], 3),
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0xb8, 1, 2, 3, 4], 5),
            (&[0x66, 0xb8, 1, 2], 4),
            (&[0xf6, 0x04, 0x25, 1, 2, 3, 4, 5], 8),
            (&[0xf7, 0xd8], 2),
            (&[0x65, 0x48, 0xc1, 0x3d, 1, 2, 3, 4, 5], 9),
            (&[0x48, 0x8b, 0x44, 0x24, 8], 5),
            (&[0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0xc5, 0xf8, 0x77], 3),
            (&[0xc4, 0xe3, 0x7d, 0x39, 0xc1, 1], 6),
            (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x40, 1], 7),
            (&[0x0f, 0x38, 0xf0, 0x00], 4),
            (&[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 8], 6),
            (&[0x0f, 0xc7, 0x0f], 3),
            (&[0xf0, 0x48, 0x0f, 0xb1, 0x0a], 5),
            (&[0x0f, 0x01, 0xcb], 3),
            (&[0xf3, 0x0f, 0x1e, 0xfa], 4),
            (&[0xc8, 1, 2, 3], 4),
            (&[0xc2, 1, 2], 3),
            (&[0xc3], 1),
            (&[0xcc], 1),
            (&[0xf3, 0xa4], 2),
        ];
        for (bytes, length) in cases {
            let mut padded = bytes.to_vec();
            padded.extend([0; MAX]);
            assert_eq!(decode(&padded).unwrap().length, *length, "FIN-23: {bytes:02x?}");
            for cut in 0..*length {
                assert_eq!(decode(&bytes[..cut]), None, "FIN-23: {bytes:02x?} cut to {cut}");
            }
        }
    }

    #[test]
    fn fin_23_fields() {
        let insn = decode(&[0x48, 0x81, 0x3d, 1, 0, 0, 0x80, 2, 0, 0, 0]).unwrap();
        assert!(insn.rip_relative);
        assert_eq!(insn.displacement, Field { offset: 3, size: 4, value: -0x7fff_ffff });
        assert_eq!(insn.immediate, Field { offset: 7, size: 4, value: 2 });
        let jump = decode(&[0xeb, 0xfe]).unwrap();
        assert_eq!(jump.target(0x1000), 0x1000);
        assert_eq!(text_gen_insn(0xe8, 0x1000, 0x1000), [0xe8, 0xfb, 0xff, 0xff, 0xff]);
        // Prefixes without end are no instruction.
        assert_eq!(decode(&[0x66; 40]), None);
    }
}
