//! A kernel image: memory that is linked to an address, and the ELF file around it.

use super::{ALLOC, Elf, PROGBITS, STRTAB, Sh};

/// Memory of a kernel under construction, its first byte at `base`.
#[derive(Clone, Debug)]
pub struct Flat {
    /// What was put down so far.
    pub bytes: Vec<u8>,
    /// Address of the first byte.
    pub base: u64,
    /// Place and value of every pointer so far, if pointers are left to RELA records and zero themselves.
    pub rela: Option<Vec<(u64, u64)>>,
}

impl Flat {
    /// A zeroed page at this address.
    pub fn new(base: u64) -> Self {
        Flat { bytes: vec![0; 0x1000], base, rela: None }
    }

    /// A zeroed page with the header of arm64's Image, for pages of 4 KiB.
    pub fn arm64(base: u64) -> Self {
        let mut flat = Flat::new(base);
        flat.set(0x38, b"ARMd");
        flat.bytes[0x18] = 1 << 1;
        flat
    }

    /// Address of the next byte.
    pub fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Puts zeros down up to a multiple of `to`; the offset of what comes next.
    pub fn align(&mut self, to: usize) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self.bytes.len()
    }

    /// Puts bytes down; their offset.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() - bytes.len()
    }

    /// Puts a word of 4 bytes down.
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Puts the distance from here to an address down, in 4 bytes.
    pub fn prel32(&mut self, to: u64) {
        self.u32(to.wrapping_sub(self.here()) as u32);
    }

    /// Puts a pointer down, aligned.
    pub fn pointer(&mut self, to: u64) {
        self.align(8);
        let here = self.here();
        let in_place = match &mut self.rela {
            Some(rela) => {
                rela.push((here, to));
                0
            }
            None => to,
        };
        self.put(&in_place.to_le_bytes());
    }

    /// Puts the RELA records of the pointers down: relative ones of arm64, and a record of zeros.
    pub fn put_rela(&mut self) {
        let Some(rela) = self.rela.take() else { return };
        self.align(8);
        for (at, addend) in rela {
            for word in [at, 0x403, addend] {
                self.put(&word.to_le_bytes());
            }
        }
        self.put(&[0; 64]);
    }

    /// Replaces bytes.
    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Wraps memory as a vmlinux of one segment. With `sections` (name, address, size; all of them in the memory) it has section
/// headers, too.
pub fn vmlinux(machine: u16, memory: &Flat, sections: Option<&[(&str, u64, u64)]>) -> Vec<u8> {
    const FILE_AT: u64 = 0x1000;
    let mut elf = Elf::new(vec![0; FILE_AT as usize]);
    elf.bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, width, value) in [
        (16, 2, 2),
        (18, 2, u64::from(machine)),
        (32, 8, 64),
        (54, 2, 56),
        (56, 2, 1),
        (58, 2, 64),
        // The program header: PT_LOAD, offset, address, size in the file.
        (64, 4, 1),
        (64 + 8, 8, FILE_AT),
        (64 + 16, 8, memory.base),
        (64 + 32, 8, memory.bytes.len() as u64),
    ] {
        elf.put(at, width, value);
    }
    elf.bytes.extend(&memory.bytes);
    let Some(sections) = sections else { return elf.bytes };
    let names_at = elf.bytes.len() as u64;
    let name_offsets: Vec<u64> = sections
        .iter()
        .map(|(name, ..)| {
            let offset = elf.bytes.len() as u64 - names_at;
            elf.bytes.extend(name.bytes().chain([0]));
            offset
        })
        .collect();
    let names_len = elf.bytes.len() as u64 - names_at;
    let shoff = elf.bytes.len().next_multiple_of(8);
    elf.bytes.resize(shoff + 64 * (sections.len() + 2), 0);
    elf.put(40, 8, shoff as u64);
    elf.put(60, 2, sections.len() as u64 + 2);
    elf.put(62, 2, sections.len() as u64 + 1);
    for (i, ((_, address, size), name)) in sections.iter().zip(name_offsets).enumerate() {
        elf.set(i + 1, Sh::Name, name)
            .set(i + 1, Sh::Type, u64::from(PROGBITS))
            .set(i + 1, Sh::Flags, ALLOC)
            .set(i + 1, Sh::Addr, *address)
            .set(i + 1, Sh::Offset, FILE_AT + address - memory.base)
            .set(i + 1, Sh::Size, *size);
    }
    elf.set(sections.len() + 1, Sh::Type, u64::from(STRTAB))
        .set(sections.len() + 1, Sh::Offset, names_at)
        .set(sections.len() + 1, Sh::Size, names_len);
    elf.bytes
}
