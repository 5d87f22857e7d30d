//! A page out of a kdump-compressed file.

use alloc::vec::Vec;

use crate::snappy;

/// DUMP_DH_COMPRESSED_*
const ZLIB: u32 = 1;
const LZO: u32 = 2;
const SNAPPY: u32 = 4;
const ZSTD: u32 = 0x20;

/// A page as its descriptor says that it is packed; `None` if it does not unpack to a whole page.
pub fn unpack(packed: Vec<u8>, flags: u32, page: usize) -> Option<Vec<u8>> {
    let out = match flags & (ZLIB | LZO | SNAPPY | ZSTD) {
        0 => packed,
        ZLIB => miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, page).ok()?,
        LZO => {
            let mut out = alloc::vec![0; page];
            let len = lzokay::decompress::decompress(&packed, &mut out).ok()?;
            out.truncate(len);
            out
        }
        SNAPPY => snappy::unpack(&packed, page)?,
        ZSTD => zstd(&packed, page)?,
        _ => return None,
    };
    (out.len() == page).then_some(out)
}

fn zstd(packed: &[u8], page: usize) -> Option<Vec<u8>> {
    use ruzstd::io::Read;
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
    let mut out = alloc::vec![0; page];
    decoder.read_exact(&mut out).ok()?;
    Some(out)
}
