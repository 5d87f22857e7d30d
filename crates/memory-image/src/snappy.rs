//! Snappy's block format (google/snappy, format_description.txt). The crate for it needs std; a block of a dump is small.

use alloc::vec::Vec;

/// The length that a block says it unpacks to, and how many bytes say so.
pub fn length(block: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (n, byte) in block.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7u32.checked_mul(u32::try_from(n).ok()?)?)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, n.checked_add(1)?));
        }
    }
    None
}

/// Unpacks a block of at most `limit` bytes.
pub fn unpack(block: &[u8], limit: usize) -> Option<Vec<u8>> {
    let (size, head) = length(block)?;
    if size > limit {
        return None;
    }
    let mut input = block.get(head..)?;
    let mut out = Vec::with_capacity(size);
    while let Some((&tag, rest)) = input.split_first() {
        input = rest;
        if tag & 3 == 0 {
            let short = usize::from(tag >> 2);
            let more = short.saturating_sub(59);
            let len = if more == 0 { short } else { number(&mut input, more)? }.checked_add(1)?;
            let (literal, rest) = input.split_at_checked(len)?;
            if out.len().checked_add(len)? > size {
                return None;
            }
            out.extend_from_slice(literal);
            input = rest;
        } else {
            let (len, offset) = match tag & 3 {
                1 => {
                    let low = number(&mut input, 1)?;
                    (usize::from(tag >> 2 & 7).checked_add(4)?, usize::from(tag >> 5) << 8 | low)
                }
                2 => (usize::from(tag >> 2).checked_add(1)?, number(&mut input, 2)?),
                _ => (usize::from(tag >> 2).checked_add(1)?, number(&mut input, 4)?),
            };
            let from = out.len().checked_sub(offset).filter(|_| offset != 0)?;
            if out.len().checked_add(len)? > size {
                return None;
            }
            // A copy may reach into what it writes itself.
            for at in (from..).take(len) {
                let byte = *out.get(at)?;
                out.push(byte);
            }
        }
    }
    (out.len() == size).then_some(out)
}

/// So many little-endian bytes.
fn number(input: &mut &[u8], bytes: usize) -> Option<usize> {
    let (head, rest) = input.split_at_checked(bytes)?;
    *input = rest;
    let value = head.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_unpacked() {
        // "abcd", then 8 bytes from 4 before, then a literal.
        let block = [14, 3 << 2, b'a', b'b', b'c', b'd', 1 | 4 << 2, 4, 1 << 2, b'x', b'y'];
        assert_eq!(unpack(&block, 64).as_deref(), Some(&b"abcdabcdabcdxy"[..]));
        assert_eq!(unpack(&block, 13), None, "larger than it may be");
        for cut in 0..block.len() {
            assert_eq!(unpack(&block[..cut], 64), None, "cut at {cut}");
        }
        let far = [8, 3 << 2, b'a', b'b', b'c', b'd', 2 | 3 << 2, 5, 0];
        assert_eq!(unpack(&far, 64), None, "from before the beginning");
        let long = [2 + 61, 60 << 2, 61, 0];
        assert_eq!(unpack(&long, 64), None);
    }
}
