//! Small dumps of memory: physical memory with page tables in it, and the files that it is written to.

/// Physical memory from address 0, with page tables that take pages from its end.
#[derive(Clone, Debug)]
pub struct Physical {
    /// The bytes.
    pub bytes: Vec<u8>,
    next_table: u64,
}

/// How entries of page tables are made, and how tables divide an address.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Bits of an offset in a page.
    pub page_bits: u32,
    /// Bits of each index, from the topmost table on.
    pub index_bits: &'static [u32],
    /// What an entry has beside the address of a table.
    pub table: u64,
    /// What one has beside the address of a page.
    pub page: u64,
}

impl Physical {
    /// So many bytes, all zero.
    pub fn new(size: usize) -> Self {
        Physical { bytes: vec![0; size], next_table: size as u64 }
    }

    /// So many bytes, each page another, and the sixth a hole of zeros, which kdump leaves out.
    pub fn patterned(size: usize) -> Self {
        let mut memory = Physical::new(size);
        for (n, byte) in memory.bytes.iter_mut().enumerate() {
            *byte = if n / 4096 == 5 { 0 } else { (n / 4096 + n % 251) as u8 };
        }
        memory
    }

    /// Puts bytes at an address.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes[at as usize..][..8].try_into().unwrap())
    }

    /// Maps one page, by tables that begin at `root`; those between are made. `more` is what the entry has beside the rest.
    pub fn map(&mut self, tables: Tables, root: u64, address: u64, physical: u64, more: u64) {
        let mut shift = tables.page_bits + tables.index_bits.iter().sum::<u32>();
        let mut table = root;
        for (level, bits) in tables.index_bits.iter().enumerate() {
            shift -= bits;
            let at = table + (address >> shift & ((1 << bits) - 1)) * 8;
            if level + 1 == tables.index_bits.len() {
                self.put(at, &(physical | tables.page | more).to_le_bytes());
            } else if self.u64(at) == 0 {
                self.next_table -= 1 << tables.page_bits;
                table = self.next_table;
                self.put(at, &(table | tables.table).to_le_bytes());
            } else {
                table = self.u64(at) & !((1 << tables.page_bits) - 1) & ((1 << 48) - 1);
            }
        }
    }

    /// As LiME, in ranges of these sizes.
    pub fn lime(&self, ranges: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for size in ranges {
            out.extend(0x4c69_4d45_u32.to_le_bytes());
            out.extend(1u32.to_le_bytes());
            out.extend((at as u64).to_le_bytes());
            out.extend(((at + size - 1) as u64).to_le_bytes());
            out.extend([0; 8]);
            out.extend(&self.bytes[at..at + size]);
            at += size;
        }
        out
    }

    /// As AVML of version 2: chunks of snappy's framing, packed as one literal, or not at all.
    pub fn avml(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(0x4c4d_5641_u32.to_le_bytes());
        out.extend(2u32.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.extend((self.bytes.len() as u64 - 1).to_le_bytes());
        out.extend([0; 8]);
        let start = out.len();
        out.extend(b"\xff\x06\0\0sNaPpY");
        for (n, chunk) in self.bytes.chunks(1 << 16).enumerate() {
            let packed = if n % 2 == 0 { literal(chunk) } else { chunk.to_vec() };
            out.push((n % 2) as u8);
            out.extend(&(packed.len() as u32 + 4).to_le_bytes()[..3]);
            out.extend([0; 4]);
            out.extend(packed);
        }
        let len = (out.len() - start) as u64;
        out.extend(len.to_le_bytes());
        out
    }

    /// As an ELF core: segments of `(virtual address, physical address, bytes)`, and the text of VMCOREINFO.
    pub fn elf(&self, machine: u16, segments: &[(u64, u64, u64)], vmcoreinfo: &str) -> Vec<u8> {
        let mut note = Vec::new();
        if !vmcoreinfo.is_empty() {
            note.extend(11u32.to_le_bytes());
            note.extend((vmcoreinfo.len() as u32).to_le_bytes());
            note.extend(0u32.to_le_bytes());
            note.extend(b"VMCOREINFO\0\0");
            note.extend(vmcoreinfo.as_bytes());
            note.resize(note.len().next_multiple_of(4), 0);
        }
        let mut out = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0");
        out.extend(machine.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for field in [0u64, 64, 0] {
            out.extend(field.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for half in [64u16, 56, segments.len() as u16 + 1, 0, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        let mut at = 64 + 56 * (segments.len() as u64 + 1);
        let mut header = |kind: u32, at: u64, virt: u64, phys: u64, size: u64| {
            out.extend(kind.to_le_bytes());
            out.extend(7u32.to_le_bytes());
            for field in [at, virt, phys, size, size, 0] {
                out.extend(field.to_le_bytes());
            }
        };
        header(4, at, 0, 0, note.len() as u64);
        at += note.len() as u64;
        for (virt, phys, size) in segments {
            header(1, at, *virt, *phys, *size);
            at += size;
        }
        out.extend(note);
        for (_, phys, size) in segments {
            out.extend(&self.bytes[*phys as usize..][..*size as usize]);
        }
        out
    }

    /// As kdump-compressed (version 6) with pages of 4 KiB. `pack` packs a page and gives the flags for it; pages of zeros are
    /// left out.
    pub fn kdump(&self, pack: impl Fn(usize, &[u8]) -> (Vec<u8>, u32)) -> Vec<u8> {
        const PAGE: usize = 4096;
        let pages = self.bytes.len() / PAGE;
        let mut out = vec![0; 2 * PAGE];
        out[..8].copy_from_slice(b"KDUMP   ");
        let mut word = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        word(8, 6);
        word(428, PAGE as u32);
        word(432, 1);
        word(436, 2);
        word(440, pages as u32);
        let mut bitmap = vec![0u8; PAGE];
        let kept: Vec<usize> =
            (0..pages).filter(|n| self.bytes[n * PAGE..][..PAGE].iter().any(|b| *b != 0)).collect();
        kept.iter().for_each(|n| bitmap[n / 8] |= 1 << (n % 8));
        out.extend(&bitmap);
        out.extend(&bitmap);
        let mut data = Vec::new();
        let start = out.len() + kept.len() * 24;
        for n in kept {
            let (packed, flags) = pack(n, &self.bytes[n * PAGE..][..PAGE]);
            out.extend(((start + data.len()) as u64).to_le_bytes());
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend(flags.to_le_bytes());
            out.extend(0u64.to_le_bytes());
            data.extend(packed);
        }
        out.extend(data);
        out
    }
}

/// Any file in makedumpfile's flattened format, in pieces of this size.
pub fn flattened(file: &[u8], piece: usize) -> Vec<u8> {
    let mut out = b"makedumpfile\0\0\0\0".to_vec();
    out.extend(1u64.to_be_bytes());
    out.extend(1u64.to_be_bytes());
    out.resize(4096, 0);
    for (n, bytes) in file.chunks(piece).enumerate() {
        out.extend(((n * piece) as u64).to_be_bytes());
        out.extend((bytes.len() as u64).to_be_bytes());
        out.extend(bytes);
    }
    out.extend([0xff; 16]);
    out
}

/// A zstd frame of one raw block, for a page.
pub fn zstd(page: &[u8]) -> Vec<u8> {
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60];
    out.extend((page.len() as u16 - 256).to_le_bytes());
    out.extend(&((page.len() as u32) << 3 | 1).to_le_bytes()[..3]);
    out.extend(page);
    out
}

/// Snappy's block of one literal for so many bytes, at most 64 KiB.
pub fn literal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut size = bytes.len();
    while size >= 0x80 {
        out.push(size as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
    out.push(61 << 2);
    out.extend(&((bytes.len() - 1) as u16).to_le_bytes());
    out.extend(bytes);
    out
}
