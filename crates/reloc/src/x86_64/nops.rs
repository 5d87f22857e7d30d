//! Instructions that do nothing (spec 06, 6.2: `x86_nops`), and how runs of them are made few (FIN-24).

use super::insn::{Insn, decode};
use elf_layout::{Change, Changes};

/// ASM_NOP_MAX since v6.5.
const MAX: usize = 11;
/// ASM_NOP_MAX before.
const MAX_OLD: usize = 8;
const INT3: u8 = 0xcc;

/// The nop of one instruction with as many bytes as `nop` has, which are at most [`MAX`]; longer ones get the
/// longest there is.
const fn nop_of(len: usize) -> &'static [u8] {
    match len {
        0 => &[],
        1 => &[0x90],
        2 => &[0x66, 0x90],
        3 => &[0x0f, 0x1f, 0x00],
        4 => &[0x0f, 0x1f, 0x40, 0x00],
        5 => &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        6 => &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
        7 => &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
        8 => &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        9 => &[0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        10 => &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        _ => &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    }
}

/// `x86_nops[5]`
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// `x86_nops[2]`
pub const NOP2: [u8; 2] = [0x66, 0x90];

/// `add_nops` up to 6.4: as many nops as it takes, the longest first.
pub fn add_nops(buf: &mut [u8]) {
    for chunk in buf.chunks_mut(MAX_OLD) {
        chunk.copy_from_slice(nop_of(chunk.len()));
    }
}

/// `add_nop` since 6.5: one nop, or a jump over what one cannot fill.
fn add_nop(buf: &mut [u8]) {
    if buf.len() <= MAX {
        buf.copy_from_slice(nop_of(buf.len()));
        return;
    }
    let mut jump = [INT3; 5];
    let used = if buf.len() < 128 {
        jump = [0xeb, buf.len().saturating_sub(2) as u8, INT3, INT3, INT3];
        2
    } else {
        let distance = buf.len().saturating_sub(5) as u32;
        jump[0] = 0xe9;
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        5
    };
    buf.fill(INT3);
    for (to, from) in buf.iter_mut().zip(jump).take(used) {
        *to = from;
    }
}

/// `optimize_nops`. `buf` is what is patched; decoding goes on behind it in `rest`, as the old one does.
pub fn optimize_nops(buf: &mut [u8], changes: Changes) {
    // Since v6.5 (6c480f222128) runs of nops of any length become one; before that runs of single bytes.
    if changes.has(Change::NopsOfAnyLength) { optimize_any(buf) } else { optimize_single_bytes(buf) }
}

fn insn_at(buf: &[u8], at: usize) -> Option<Insn> {
    decode(buf.get(at..)?)
}

fn optimize_single_bytes(buf: &mut [u8]) {
    let mut at = 0usize;
    while let Some(insn) = insn_at(buf, at) {
        let mut next = at.saturating_add(insn.length);
        if insn.length == 1 && insn.opcode[0] == 0x90 {
            let run = buf.get(at..).map_or(0, |b| b.iter().take_while(|b| **b == 0x90).count());
            next = at.saturating_add(run);
            if let Some(run) = buf.get_mut(at..next).filter(|run| run.len() > 1) {
                add_nops(run);
            }
        }
        at = next;
    }
}

fn optimize_any(buf: &mut [u8]) {
    let mut at = 0usize;
    while let Some(insn) = insn_at(buf, at) {
        let mut next = at.saturating_add(insn.length);
        if insn.is_nop() {
            // One that ends the site is as good as it can be.
            if next == buf.len() {
                return;
            }
            while let Some(nop) = insn_at(buf, next).filter(Insn::is_nop) {
                next = next.saturating_add(nop.length);
            }
            if let Some(run) = buf.get_mut(at..next) {
                add_nop(run);
            }
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use elf_layout::KernelVersion;

    const OLD: KernelVersion = KernelVersion::new(6, 1, 0);
    const NEW: KernelVersion = KernelVersion::new(6, 12, 0);

    fn optimized(bytes: &[u8], version: KernelVersion) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        optimize_nops(&mut bytes, Changes::of(version));
        bytes
    }

    #[test]
    fn fin_24_every_nop_is_one_instruction() {
        for len in 1..=MAX {
            let nop = nop_of(len);
            let insn = decode(nop).unwrap();
            assert!(nop.len() == len && insn.length == len && insn.is_nop(), "FIN-24: {len}");
        }
        assert_eq!(nop_of(5), NOP5);
        assert_eq!(nop_of(2), NOP2);
    }

    #[test]
    fn fin_24_old_runs_of_single_bytes() {
        let long: Vec<u8> = [nop_of(8), nop_of(8), nop_of(3)].concat();
        let cases: &[(&[u8], &[u8])] = &[
            (&[0x90], &[0x90]),
            (&[0xc3, 0x90, 0x90], &[0xc3, 0x66, 0x90]),
            (&[0x90; 19], &long),
            // Longer nops and a single one are left alone.
            (&[0x66, 0x90, 0x90, 0xc3], &[0x66, 0x90, 0x90, 0xc3]),
            // 90 inside of an instruction is none.
            (&[0xb0, 0x90, 0x90, 0x90], &[0xb0, 0x90, 0x66, 0x90]),
            (&[], &[]),
        ];
        for (from, to) in cases {
            assert_eq!(optimized(from, OLD), *to, "FIN-24: {from:02x?}");
        }
    }

    #[test]
    fn fin_24_new_one_nop_or_a_jump() {
        let mut short = [INT3; 12].to_vec();
        short[..2].copy_from_slice(&[0xeb, 10]);
        let mut long = [INT3; 130].to_vec();
        long[..5].copy_from_slice(&[0xe9, 125, 0, 0, 0]);
        let mut longest_short = [INT3; 127].to_vec();
        longest_short[..2].copy_from_slice(&[0xeb, 125]);
        let cases: &[(&[u8], &[u8])] = &[
            (&[0x90; 11], nop_of(11)),
            (&[0x90; 12], &short),
            (&[0x90; 127], &longest_short),
            (&[0x90; 130], &long),
            (&[0x66, 0x90, 0x90, 0xc3], &[0x0f, 0x1f, 0x00, 0xc3]),
            // A pause is no nop, and a nop that ends the site stays as it is.
            (&[0xf3, 0x90, 0x90, 0x90], &[0xf3, 0x90, 0x66, 0x90]),
            (&[0xc3, 0x3e, 0x3e, 0x90], &[0xc3, 0x3e, 0x3e, 0x90]),
        ];
        for (from, to) in cases {
            assert_eq!(optimized(from, NEW), *to, "FIN-24: {from:02x?}");
        }
    }
}
