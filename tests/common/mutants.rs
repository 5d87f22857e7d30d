//! Structure-aware damage, the same for the same seed.

use super::elf::{Elf, Sh};

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 21] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0xff00,
    0xfff1,
    0xfff2,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
    u64::MAX - 15,
];

const EHDR: [(usize, usize); 8] = [(4, 1), (5, 1), (16, 2), (18, 2), (40, 8), (58, 2), (60, 2), (62, 2)];

const SHDR: [Sh; 10] = [
    Sh::Name,
    Sh::Type,
    Sh::Flags,
    Sh::Addr,
    Sh::Offset,
    Sh::Size,
    Sh::Link,
    Sh::Info,
    Sh::Align,
    Sh::Entsize,
];

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// One damaged copy of a good module.
pub fn mutant(seed: u64, good: &[u8]) -> Vec<u8> {
    let random = &mut Random(seed);
    let whole = Elf::new(good.to_vec());
    let (shoff, shnum) = (whole.shoff(), whole.shnum());
    let mut elf = whole;
    for _ in 0..random.of(&[1, 1, 1, 2, 3, 8]) {
        // What was cut off before can no longer be damaged.
        let headers = elf.bytes.len().saturating_sub(shoff) / 64;
        let shnum = shnum.min(headers);
        match random.below(9) {
            0 => {
                let (at, width) = random.of(&EHDR);
                let value = random.of(&EDGES);
                elf.put(at, width, value);
            }
            1 | 2 if shnum > 0 => {
                let section = random.below(shnum);
                let len = elf.bytes.len() as u64;
                let more = [len, len - 1, random.next() % len, random.next() % shnum as u64];
                let value = if random.below(3) == 0 { random.of(&more) } else { random.of(&EDGES) };
                let field = random.of(&SHDR);
                Field::of(shoff, section, field).set(&mut elf, value);
            }
            3..=6 if shnum > 0 => {
                let section = random.below(shnum);
                let at = Field::of(shoff, section, Sh::Offset).get(&elf) as usize;
                let size = Field::of(shoff, section, Sh::Size).get(&elf) as usize;
                let end = at.saturating_add(size);
                if size >= 8 && end <= elf.bytes.len() {
                    let place = at + random.below(size - 7);
                    let value = if random.below(5) < 3 { random.of(&EDGES) } else { random.next() };
                    elf.put(place, 8, value);
                }
            }
            7 => {
                let len = elf.bytes.len();
                let cut = if random.below(2) == 0 {
                    random.below(len)
                } else {
                    shoff.saturating_add(64 * random.below(shnum + 1)).min(len)
                };
                elf.bytes.truncate(cut.max(64));
            }
            _ => {
                for _ in 0..=random.below(63) {
                    let at = random.below(elf.bytes.len());
                    elf.bytes[at] = random.next() as u8;
                }
            }
        }
    }
    elf.bytes
}

/// A field at its place in the undamaged file, whatever the header says by now.
struct Field(usize, usize);

impl Field {
    fn of(shoff: usize, section: usize, field: Sh) -> Self {
        let (at, width) = field.place();
        Field(shoff + 64 * section + at, width)
    }

    fn get(&self, elf: &Elf) -> u64 {
        elf.number(self.0, self.1)
    }

    fn set(&self, elf: &mut Elf, value: u64) {
        elf.put(self.0, self.1, value);
    }
}

/// The same module with its section header table right after the ELF header, so that a truncated
/// copy still has it.
pub fn headers_first(good: &[u8]) -> Vec<u8> {
    let elf = Elf::new(good.to_vec());
    let (shoff, table) = (elf.shoff(), 64 * elf.shnum());
    let mut out = good[..64].to_vec();
    out.extend(&good[shoff..shoff + table]);
    out.extend(&good[64..]);
    let mut elf = Elf::new(out);
    elf.put(40, 8, 64);
    for section in 1..elf.shnum() {
        let moved = elf.get(section, Sh::Offset) + table as u64;
        elf.set(section, Sh::Offset, moved);
    }
    elf.bytes
}
