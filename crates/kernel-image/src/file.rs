//! Whole files (DEC-7): modules and texts that lie compressed on a disk, as the tools of the same names read them.
//!
//! Unlike the payload of an image, a file may have several gzip members or zstd frames one after the other, and all of
//! them count; and its output goes into room that is used again for the next file.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::io::Read;

use crate::decompress::xz_into;
use crate::{Compression, DecompressError};

/// Room for decompressed bytes grows by at least this many.
const GROWTH: usize = 1 << 18;

/// Why a compressed file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{compression}: {why}")]
#[non_exhaustive]
pub struct FileError {
    /// How it is compressed.
    pub compression: Compression,
    /// What is wrong with it.
    pub why: String,
}

/// Decompresses a file that begins as gzip, xz or zstd does, into `out`, which is cleared first; `limit` bytes at most.
/// False if it begins as none of them, and then nothing is in `out`.
pub fn decompress_file(file: &[u8], out: &mut Vec<u8>, limit: u64) -> Result<bool, FileError> {
    out.clear();
    let Some(compression) = Compression::of(file) else { return Ok(false) };
    let result = match compression {
        Compression::Gzip => read_limited(flate2::read::MultiGzDecoder::new(file), out, limit),
        Compression::Xz => xz(file, out, limit),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(file);
            decoder.map_err(|e| e.to_string()).and_then(|decoder| read_limited(decoder, out, limit))
        }
        _ => return Ok(false),
    };
    let too_large = || format!("more than {limit} bytes come out of it");
    let result = result.and_then(|()| if out.len() as u64 > limit { Err(too_large()) } else { Ok(()) });
    result.map(|()| true).map_err(|why| FileError { compression, why })
}

/// Reads up to one byte more than the limit.
fn read_limited(decoder: impl Read, out: &mut Vec<u8>, limit: u64) -> Result<(), String> {
    decoder.take(limit.saturating_add(1)).read_to_end(out).map(drop).map_err(|e| e.to_string())
}

/// One stream; what is too large is left to the caller.
fn xz(file: &[u8], out: &mut Vec<u8>, limit: u64) -> Result<(), String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match xz_into(file, out, limit, GROWTH) {
        Ok(()) | Err(DecompressError::TooLarge { .. }) => Ok(()),
        Err(DecompressError::Truncated { .. }) => Err(String::from("the file ends too early")),
        Err(DecompressError::Damaged { message, .. }) => Err(message),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A header of a few bytes may not make the decoder allocate gigabytes.
    #[test]
    fn an_xz_dictionary_is_bounded() {
        let mut xz = liblzma::encode_all(&b"a module"[..], 6).unwrap();
        // Block header at 12: size, flags, then the filter LZMA2, one byte of properties: the dictionary's size.
        assert_eq!(xz[12..16], [2, 0, 0x21, 1]);
        for (dictionary, fits) in [(30, true), (31, true), (32, false), (40, false)] {
            xz[16] = dictionary;
            let mut crc = flate2::Crc::new();
            crc.update(&xz[12..20]);
            xz[20..24].copy_from_slice(&crc.sum().to_le_bytes());
            let read = decompress_file(&xz, &mut Vec::new(), 1 << 20);
            assert_eq!(read.is_ok(), fits, "dictionary {dictionary}: {read:?}");
        }
    }

    #[test]
    fn a_bomb_is_cut_off() {
        let zeros = vec![0; 1 << 20];
        let bombs = [zstd::stream::encode_all(&*zeros, 1).unwrap(), liblzma::encode_all(&*zeros, 1).unwrap()];
        for bomb in bombs {
            let mut out = Vec::new();
            assert_eq!((decompress_file(&bomb, &mut out, 1 << 20), out.len()), (Ok(true), 1 << 20));
            let error = decompress_file(&bomb, &mut Vec::new(), (1 << 20) - 1).unwrap_err();
            assert!(error.why.contains("more than 1048575 bytes"), "{error}");
        }
    }

    #[test]
    fn dec_7_all_members_and_frames_of_a_file_count() {
        let gzip = |data: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut encoder, data).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |data: &[u8]| zstd::stream::encode_all(data, 1).unwrap();
        let mut out = vec![7];
        for file in [[gzip(b"one "), gzip(b"two")].concat(), [zstd(b"one "), zstd(b"two")].concat()] {
            assert_eq!((decompress_file(&file, &mut out, 7), &*out), (Ok(true), &b"one two"[..]), "DEC-7");
        }
        // xz: what follows the first stream is left alone.
        let xz = liblzma::encode_all(&b"one"[..], 6).unwrap();
        let file = [&xz[..], b"rubbish"].concat();
        assert_eq!((decompress_file(&file, &mut out, 7), &*out), (Ok(true), &b"one"[..]), "DEC-7");
        let error = decompress_file(&xz[..xz.len() - 1], &mut out, 7).unwrap_err();
        assert_eq!((error.compression, &*error.why), (Compression::Xz, "the file ends too early"));
        for other in [&b"BZh9"[..], b"\x7fELF", b""] {
            assert_eq!((decompress_file(other, &mut out, 7), out.len()), (Ok(false), 0), "{other:?}");
        }
    }
}
