//! lzop's file format around LZO1X blocks, as the kernel's `unlzo` reads it.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::DecompressError as Error;
use crate::bytes::{array, slice};

/// `\x89LZO\0\r\n\x1a\n`.
const MAGIC_LEN: usize = 9;
/// Largest block lzop writes.
const BLOCK: usize = 64 << 20;

const ADLER32_D: u32 = 1;
const ADLER32_C: u32 = 2;
const CRC32_D: u32 = 0x100;
const CRC32_C: u32 = 0x200;
const FILTER: u32 = 0x800;

/// A reading position.
struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
}

impl<'d> Cursor<'d> {
    fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = array(self.data, self.at)?;
        self.skip(N);
        Some(bytes)
    }

    fn be32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn bytes(&mut self, len: usize) -> Option<&'d [u8]> {
        let bytes = slice(self.data, self.at, len)?;
        self.skip(len);
        Some(bytes)
    }
}

pub(crate) fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut input = Cursor { data: packed, at: MAGIC_LEN };
    let truncated = |unpacked| Error::Truncated { have: packed.len(), unpacked };
    let flags = header(&mut input).ok_or(truncated(0))?;
    loop {
        let done = out.len();
        let len = input.be32().ok_or(truncated(done))?;
        if len == 0 {
            return Ok(out);
        }
        let packed_len = input.be32().ok_or(truncated(done))?;
        let sums = |each: [u32; 2]| each.iter().filter(|f| flags & **f != 0).count();
        input.skip(sums([ADLER32_D, CRC32_D]).saturating_mul(4));
        if packed_len < len {
            input.skip(sums([ADLER32_C, CRC32_C]).saturating_mul(4));
        }
        let (Ok(len), Ok(packed_len)) = (usize::try_from(len), usize::try_from(packed_len)) else {
            return Err(Error::damaged(done, "block size"));
        };
        if len > BLOCK || packed_len > len {
            return Err(Error::damaged(done, "block size"));
        }
        let end = done.saturating_add(len);
        if end > limit {
            return Err(Error::TooLarge { limit });
        }
        let block = input.bytes(packed_len).ok_or(truncated(done))?;
        if packed_len == len {
            out.extend_from_slice(block);
            continue;
        }
        out.resize(end, 0);
        let room = out.get_mut(done..).unwrap_or(&mut []);
        match lzokay::decompress::decompress(block, room) {
            Ok(n) if n == len => {}
            Ok(_) => return Err(Error::damaged(done, "a block is shorter than it says")),
            Err(e) => return Err(Error::damaged(done, e.to_string())),
        }
    }
}

/// Reads the header behind the magic and gives its flags.
fn header(input: &mut Cursor<'_>) -> Option<u32> {
    let version = u16::from_be_bytes(input.take()?);
    let with_level = version >= 0x0940;
    input.skip(if with_level { 6 } else { 3 }); // library version, version needed, method, level
    let flags = input.be32()?;
    input.skip(if flags & FILTER != 0 { 4 } else { 0 });
    input.skip(if with_level { 12 } else { 8 }); // mode, time
    let [name_len] = input.take()?;
    input.skip(usize::from(name_len).saturating_add(4)); // name, checksum
    Some(flags)
}
