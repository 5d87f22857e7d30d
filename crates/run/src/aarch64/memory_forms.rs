//! Decoding of loads and stores.

use super::form::{AFTER, BEFORE, Decoded, INDEX, OFFSET, Op, bit, bits, or_sp, signed, source, target};
use super::vector;

/// C4.1.96
pub(super) fn decode(word: u32, pc: u64) -> Option<Decoded> {
    if bit(word, 26) {
        return vector::memory::decode(word, pc);
    }
    match (bits(word, 28, 2), bits(word, 24, 2)) {
        (0, 0) => exclusive(word),
        (1, 0) => literal(word, pc),
        // LDAPUR and STLUR; what has bits 11 and 10 set is of memory tags.
        (1, 1) if !bit(word, 21) && bits(word, 10, 2) == 0 => ordered(word, signed(word, 12, 9)),
        (2, 0 | 1) => pair(word),
        (3, 0) if !bit(word, 21) => match bits(word, 10, 2) {
            0 => unscaled(word, signed(word, 12, 9)),
            1 => indexed(word, AFTER),
            2 => unprivileged(word),
            _ => indexed(word, BEFORE),
        },
        (3, 0) => match bits(word, 10, 2) {
            0 => atomic(word),
            2 => register(word),
            _ => None,
        },
        (3, 1) => {
            let offset = u64::from(bits(word, 10, 12)).wrapping_shl(bits(word, 30, 2));
            unscaled(word, offset)
        }
        _ => None,
    }
}

/// What a load or store of one register does: size (log2), and is it a load, with its sign, to 64 bits? `None` for none, [`Kind::Hint`]
/// for a prefetch.
enum Kind {
    Hint,
    Store(u8),
    Load(u8),
    Signed { size: u8, wide: bool },
}

fn kind(word: u32) -> Option<Kind> {
    let size = bits(word, 30, 2) as u8;
    Some(match (bits(word, 22, 2), size) {
        (0, _) => Kind::Store(size),
        (1, _) => Kind::Load(size),
        (2, 3) => Kind::Hint,
        (2, _) => Kind::Signed { size, wide: true },
        (_, 0 | 1) => Kind::Signed { size, wide: false },
        _ => return None,
    })
}

/// At a base and an offset.
fn unscaled(word: u32, offset: u64) -> Option<Decoded> {
    let new = |op, d| Decoded { d, n: or_sp(word, 5), immediate: offset, ..Decoded::new(op) };
    Some(match kind(word)? {
        Kind::Hint => Decoded::new(Op::Nop),
        Kind::Store(size) => {
            let op = [Op::Str8, Op::Str16, Op::Str32, Op::Str64];
            new(*op.get(usize::from(size))?, source(word, 0))
        }
        Kind::Load(size) => {
            let op = [Op::Ldr8, Op::Ldr16, Op::Ldr32, Op::Ldr64];
            new(*op.get(usize::from(size))?, target(word, 0))
        }
        Kind::Signed { size, wide } => Decoded { a: size, wide, ..new(Op::LdrSigned, target(word, 0)) },
    })
}

/// In another mode.
fn moded(word: u32, load: Op, store: Op, k: u8, immediate: u64) -> Option<Decoded> {
    let new = |op, d, a, wide| {
        let n = or_sp(word, 5);
        Decoded { d, n, m: source(word, 16), a, k, wide, immediate, ..Decoded::new(op) }
    };
    Some(match kind(word)? {
        Kind::Hint if k == INDEX || k == OFFSET => Decoded::new(Op::Nop),
        Kind::Hint => return None,
        Kind::Store(size) => new(store, source(word, 0), size, true),
        Kind::Load(size) => new(load, target(word, 0), size, true),
        Kind::Signed { size, wide } => new(load, target(word, 0), size | 4, wide),
    })
}

fn indexed(word: u32, mode: u8) -> Option<Decoded> {
    moded(word, Op::LoadX, Op::StoreX, mode, signed(word, 12, 9))
}

fn ordered(word: u32, offset: u64) -> Option<Decoded> {
    // There is no prefetch among them.
    if matches!(kind(word)?, Kind::Hint) {
        return None;
    }
    moded(word, Op::LoadOrdered, Op::StoreOrdered, OFFSET, offset)
}

fn unprivileged(word: u32) -> Option<Decoded> {
    // There is no prefetch among them.
    if matches!(kind(word)?, Kind::Hint) {
        return None;
    }
    moded(word, Op::LoadUser, Op::StoreUser, OFFSET, signed(word, 12, 9))
}

/// At a base and a register.
fn register(word: u32) -> Option<Decoded> {
    let (extension, shifts) = (bits(word, 13, 3), bit(word, 12));
    if extension & 2 == 0 {
        return None;
    }
    let amount = if shifts { bits(word, 30, 2) } else { 0 };
    moded(word, Op::LoadX, Op::StoreX, INDEX, u64::from(extension | amount << 8))
}

/// Near the instruction.
fn literal(word: u32, pc: u64) -> Option<Decoded> {
    let address = pc.wrapping_add(signed(word, 5, 19) << 2);
    let new = |op| Decoded { d: target(word, 0), immediate: address, ..Decoded::new(op) };
    Some(match bits(word, 30, 2) {
        0 => new(Op::Ldr32),
        1 => new(Op::Ldr64),
        2 => Decoded { a: 2, ..new(Op::LdrSigned) },
        _ => Decoded::new(Op::Nop),
    })
}

fn pair(word: u32) -> Option<Decoded> {
    let loads = bit(word, 22);
    let k = match bits(word, 23, 2) {
        1 => AFTER,
        3 => BEFORE,
        _ => OFFSET,
    };
    let scale = if bits(word, 30, 2) == 2 { 3 } else { 2 };
    let op = match (bits(word, 30, 2), loads) {
        (0, false) => Op::StpX32,
        (0, true) => Op::LdpX32,
        // LDPSW; STGP is of memory tags.
        (1, true) if k != OFFSET || bits(word, 23, 2) == 2 => Op::LdpSigned,
        (2, false) => Op::StpX64,
        (2, true) => Op::LdpX64,
        _ => return None,
    };
    let register = if loads { target } else { source };
    let immediate = signed(word, 15, 7).wrapping_shl(scale);
    Some(Decoded {
        d: register(word, 0),
        n: or_sp(word, 5),
        a: register(word, 10),
        k,
        immediate,
        ..Decoded::new(op)
    })
}

/// LDXR to CASAL.
fn exclusive(word: u32) -> Option<Decoded> {
    let size = bits(word, 30, 2) as u8;
    let (second, first, loads, orders) = (bits(word, 10, 5), bit(word, 23), bit(word, 22), bit(word, 21));
    let new = |op, d| Decoded { d, n: or_sp(word, 5), k: size, ..Decoded::new(op) };
    Some(match (first, orders) {
        // LDXR, STXR, LDAXR, STLXR
        (false, false) if loads => new(Op::LoadExclusive, target(word, 0)),
        (false, false) => Decoded { m: target(word, 16), ..new(Op::StoreExclusive, source(word, 0)) },
        // LDXP, STXP
        (false, true) if size >= 2 => match loads {
            true => Decoded { a: target(word, 10), ..new(Op::LoadExclusivePair, target(word, 0)) },
            false => Decoded {
                a: source(word, 10),
                m: target(word, 16),
                ..new(Op::StoreExclusivePair, source(word, 0))
            },
        },
        // CASP: pairs of even registers
        (false, true) => {
            let even = bits(word, 0, 1) == 0 && bits(word, 16, 1) == 0;
            if second != 31 || !even {
                return None;
            }
            let k = size.wrapping_add(2);
            Decoded { m: source(word, 16), k, ..new(Op::CasPair, source(word, 0)) }
        }
        // LDAR, STLR, LDLAR, STLLR
        (true, false) => match loads {
            true => Decoded { a: size, k: OFFSET, ..new(Op::LoadOrdered, target(word, 0)) },
            false => Decoded { a: size, k: OFFSET, ..new(Op::StoreOrdered, source(word, 0)) },
        },
        // CAS
        (true, true) if second == 31 => Decoded { m: source(word, 16), ..new(Op::Cas, source(word, 0)) },
        _ => return None,
    })
}

/// LDADD to SWP, and LDAPR.
fn atomic(word: u32) -> Option<Decoded> {
    let size = bits(word, 30, 2) as u8;
    let (swaps, kind) = (bit(word, 15), bits(word, 12, 3));
    if swaps && kind == 4 && bits(word, 16, 5) == 31 && bit(word, 23) && !bit(word, 22) {
        let new = Decoded::new(Op::LoadOrdered);
        return Some(Decoded { d: target(word, 0), n: or_sp(word, 5), a: size, k: OFFSET, ..new });
    }
    let op = match (swaps, kind) {
        (true, 0) => Op::Swap,
        (true, _) => return None,
        (_, 0) => Op::AtomicAdd,
        (_, 1) => Op::AtomicClear,
        (_, 2) => Op::AtomicXor,
        (_, 3) => Op::AtomicSet,
        (_, 4) => Op::AtomicSignedMax,
        (_, 5) => Op::AtomicSignedMin,
        (_, 6) => Op::AtomicMax,
        _ => Op::AtomicMin,
    };
    Some(Decoded { d: target(word, 0), n: or_sp(word, 5), m: source(word, 16), k: size, ..Decoded::new(op) })
}
