//! LZ4 (IMG-2): the legacy frame, which kernel builds use, and the current one.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::DecompressError as Error;
use crate::bytes::{size32, slice};

/// Largest block of the legacy frame.
const BLOCK: usize = 8 << 20;

/// The legacy frame: after the magic, blocks behind their compressed sizes,
/// each unpacking to 8 MiB but the last, until the file ends, or four bytes
/// before that: the appended uncompressed size (IMG-2).
pub(crate) fn legacy(packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut block = Vec::new();
    let mut at = 4usize;
    while let Some(len) = size32(packed, at) {
        let start = at.saturating_add(4);
        if start == packed.len() {
            break;
        }
        if len == 0x184c_2102 {
            at = start;
            continue;
        }
        let truncated = Error::Truncated { have: packed.len(), unpacked: out.len() };
        let data = slice(packed, start, len).ok_or(truncated)?;
        // An lz4 sequence gives at most some 255 bytes per byte.
        let room = len.saturating_mul(256).saturating_add(64).min(BLOCK);
        block.resize(room.max(block.len()), 0);
        let unpacked = lz4_flex::block::decompress_into(data, &mut block)
            .map_err(|e| Error::damaged(out.len(), e.to_string()))?;
        out.extend_from_slice(block.get(..unpacked).unwrap_or(&[]));
        if out.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        at = start.saturating_add(len);
    }
    if out.is_empty() {
        return Err(Error::Truncated { have: packed.len(), unpacked: 0 });
    }
    Ok(out)
}

/// The current frame, as `lz4` writes it.
pub(crate) fn frame(packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    use std::io::{ErrorKind, Read};
    let mut out = Vec::new();
    let decoder = lz4_flex::frame::FrameDecoder::new(packed);
    let read = decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut out);
    match read {
        _ if out.len() > limit => Err(Error::TooLarge { limit }),
        Ok(_) => Ok(out),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            Err(Error::Truncated { have: packed.len(), unpacked: out.len() })
        }
        Err(e) => Err(Error::damaged(out.len(), e.to_string())),
    }
}
