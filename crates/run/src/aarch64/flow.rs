//! Which registers an instruction takes values from, and which ones it gives them to.

use super::form::bits;
use crate::machine::Flow;

/// A general register as a bit; the last number is that of zero, or of the stack pointer.
fn bit(word: u32, at: u32) -> u64 {
    match bits(word, at, 5) {
        31 => 0,
        number => 1u64.wrapping_shl(number),
    }
}

/// Of a word. Of vector registers nothing is said.
pub(super) fn flow(word: u32) -> Flow {
    let (d, n, m, a) = (bit(word, 0), bit(word, 5), bit(word, 16), bit(word, 10));
    let to_zero = bits(word, 0, 5) == 31;
    let mut flow = Flow::default();
    match bits(word, 25, 4) {
        // Immediates. Of ADR and MOVZ there is no source; MOVK changes its target.
        8 | 9 => {
            let group = bits(word, 23, 3);
            flow.reads = match group {
                0 | 1 => 0,
                5 => d,
                _ => n,
            };
            flow.writes = d;
            flow.compares =
                to_zero && bits(word, 29, 2) == 3 || to_zero && group == 2 && bits(word, 29, 1) == 1;
        }
        // Registers.
        5 | 13 => {
            flow.reads = n | m;
            flow.writes = d;
            let conditional = bits(word, 21, 8) == 0b1101_0010;
            // Three sources.
            if bits(word, 24, 5) == 0b11011 {
                flow.reads |= a;
            }
            flow.compares = to_zero && bits(word, 24, 5) != 0b11011 || conditional;
        }
        // Branches: CBZ, TBZ; BR, BLR.
        10 | 11 => {
            if bits(word, 26, 5) == 0b01101 {
                flow.uses = d;
            } else if bits(word, 25, 7) == 0b1101011 && bits(word, 21, 2) != 2 {
                flow.uses = n;
            }
        }
        // Those of vectors; what lies near the instruction has no base.
        6 | 14 if bits(word, 27, 3) != 0b011 || bits(word, 24, 1) != 0 => {
            flow.uses = n;
            if bits(word, 27, 3) == 0b111 && bits(word, 24, 1) == 0 && bits(word, 21, 1) == 1 {
                flow.uses |= m;
            }
        }
        // Loads and stores of general registers.
        4 | 12 => {
            flow.uses = n;
            let (pair, literal) =
                (bits(word, 27, 3) == 0b101, bits(word, 27, 3) == 0b011 && bits(word, 24, 2) == 0);
            if literal {
                flow.uses = 0;
            }
            if bits(word, 27, 3) == 0b111 && bits(word, 24, 1) == 0 && bits(word, 21, 1) == 1 {
                flow.uses |= m;
            }
            let loads = if pair || bits(word, 27, 3) == 0b001 {
                bits(word, 22, 1) == 1
            } else {
                bits(word, 22, 2) != 0
            };
            let both = if pair { d | a } else { d };
            if loads || literal {
                flow.writes = both;
            } else {
                flow.reads = both;
                flow.stores = true;
            }
        }
        _ => {}
    }
    flow.reads |= flow.uses;
    if flow.compares {
        flow.uses |= flow.reads;
    }
    flow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_they_go() {
        let of = |word| {
            let flow = flow(word);
            (flow.uses, flow.reads, flow.writes, flow.compares, flow.stores)
        };
        assert_eq!(of(0xf940_0020), (2, 2, 1, false, false), "ldr x0, [x1]");
        assert_eq!(of(0xf900_0020), (2, 3, 0, false, true), "str x0, [x1]");
        assert_eq!(of(0xa940_0820), (2, 2, 5, false, false), "ldp x0, x2, [x1]");
        assert_eq!(of(0xf862_6820), (6, 6, 1, false, false), "ldr x0, [x1, x2]");
        assert_eq!(of(0xf100_141f), (1, 1, 0, true, false), "cmp x0, #5");
        assert_eq!(of(0xeb01_001f), (3, 3, 0, true, false), "cmp x0, x1");
        assert_eq!(of(0x8b02_0020), (0, 6, 1, false, false), "add x0, x1, x2");
        assert_eq!(of(0xb400_0040), (1, 1, 0, false, false), "cbz x0, .+8");
        assert_eq!(of(0x9240_0000), (0, 1, 1, false, false), "and x0, x0, #1");
        assert_eq!(of(0xd61f_0020), (2, 2, 0, false, false), "br x1");
        assert_eq!(of(0x5400_0040), (0, 0, 0, false, false), "b.eq .+8");
    }
}
