//! The decompressors (feature `decompress`): one stream in, at most `limit` bytes out.
//!
//! Output grows with what really comes out, never by a size that the input
//! claims, and what follows the end of the stream is ignored.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use liblzma::stream::{Action, Status, Stream};

use crate::Compression;
use crate::DecompressError as Error;
use crate::bytes::size32;
#[cfg(feature = "bzip2-lz4-lzo")]
use crate::{lz4, lzop};

/// The least a growing output grows.
const STEP: usize = 1 << 20;
/// What a decoder may need beyond its output: an xz or zstd dictionary.
const DICTIONARY: u64 = 256 << 20;

/// Unpacks `packed`; refuses to give more than `limit` bytes.
pub fn decompress(compression: Compression, packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    match compression {
        Compression::Gzip => inflate(flate2::Decompress::new_gzip(15), packed, limit),
        Compression::Zlib => inflate(flate2::Decompress::new(true), packed, limit),
        Compression::Xz | Compression::Lzma => lzma(compression, packed, limit),
        Compression::Zstd => zstd(packed, limit),
        #[cfg(feature = "bzip2-lz4-lzo")]
        Compression::Bzip2 => bzip2(packed, limit),
        #[cfg(feature = "bzip2-lz4-lzo")]
        Compression::Lz4 => lz4::legacy(packed, limit),
        #[cfg(feature = "bzip2-lz4-lzo")]
        Compression::Lz4Frame => lz4::frame(packed, limit),
        #[cfg(feature = "bzip2-lz4-lzo")]
        Compression::Lzo => lzop::decompress(packed, limit),
        #[cfg(not(feature = "bzip2-lz4-lzo"))]
        _ => Err(Error::Unsupported),
    }
}

/// What one step of a decoder did.
struct Step {
    /// Bytes of the input that it took.
    taken: usize,
    /// Is the stream over?
    end: bool,
}

/// Steps until the stream is over, into room of its own.
fn run<E: ToString>(
    packed: &[u8],
    limit: usize,
    step: impl FnMut(&[u8], &mut Vec<u8>) -> Result<Step, E>,
) -> Result<Vec<u8>, Error> {
    let most = limit.saturating_add(1);
    let mut out = Vec::with_capacity(packed.len().saturating_mul(6).min(most));
    run_into(packed, &mut out, limit, STEP, step)?;
    Ok(out)
}

/// Steps until the stream is over. Each step gets the rest of the input and an output with room, which grows by
/// `least` bytes or more, and appends to it.
fn run_into<E: ToString>(
    packed: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
    least: usize,
    mut step: impl FnMut(&[u8], &mut Vec<u8>) -> Result<Step, E>,
) -> Result<(), Error> {
    let most = limit.saturating_add(1);
    let mut rest = packed;
    loop {
        let before = out.len();
        if before > limit {
            return Err(Error::TooLarge { limit });
        }
        if before == out.capacity() {
            let more = before.max(least).min(most.saturating_sub(before));
            out.try_reserve_exact(more).map_err(|e| Error::damaged(before, e.to_string()))?;
        }
        let did = step(rest, out).map_err(|e| Error::damaged(before, e.to_string()))?;
        if did.end && out.len() <= limit {
            return Ok(());
        }
        if did.taken == 0 && out.len() == before {
            return Err(match rest.len() {
                0 => Error::Truncated { have: packed.len(), unpacked: before },
                _ => Error::damaged(before, String::from("the decoder is stuck")),
            });
        }
        rest = rest.get(did.taken..).unwrap_or(&[]);
    }
}

fn taken(now: u64, before: u64) -> usize {
    usize::try_from(now.wrapping_sub(before)).unwrap_or(0)
}

fn inflate(mut decoder: flate2::Decompress, packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    run(packed, limit, |rest, out| {
        let before = decoder.total_in();
        let status = decoder.decompress_vec(rest, out, flate2::FlushDecompress::None)?;
        let end = status == flate2::Status::StreamEnd;
        Ok::<_, flate2::DecompressError>(Step { taken: taken(decoder.total_in(), before), end })
    })
}

#[cfg(feature = "bzip2-lz4-lzo")]
fn bzip2(packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut decoder = bzip2::Decompress::new(false);
    run(packed, limit, |rest, out| {
        let before = decoder.total_in();
        let status = decoder.decompress_vec(rest, out)?;
        let end = status == bzip2::Status::StreamEnd;
        Ok::<_, bzip2::Error>(Step { taken: taken(decoder.total_in(), before), end })
    })
}

fn lzma(compression: Compression, packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let memory = DICTIONARY.max(limit as u64);
    let decoder = match compression {
        Compression::Lzma => Stream::new_lzma_decoder(memory),
        _ => Stream::new_stream_decoder(memory, 0),
    };
    let mut decoder = decoder.map_err(|e| Error::damaged(0, e.to_string()))?;
    run(packed, limit, |rest, out| lzma_step(&mut decoder, rest, out))
}

/// One xz stream into `out`, whose room grows by `least` bytes or more; a dictionary of at most [`DICTIONARY`].
pub(crate) fn xz_into(packed: &[u8], out: &mut Vec<u8>, limit: usize, least: usize) -> Result<(), Error> {
    let decoder = Stream::new_stream_decoder(DICTIONARY, 0);
    let mut decoder = decoder.map_err(|e| Error::damaged(0, e.to_string()))?;
    run_into(packed, out, limit, least, |rest, out| lzma_step(&mut decoder, rest, out))
}

fn lzma_step(decoder: &mut Stream, rest: &[u8], out: &mut Vec<u8>) -> Result<Step, liblzma::stream::Error> {
    let before = decoder.total_in();
    let status = decoder.process_vec(rest, out, Action::Run)?;
    Ok(Step { taken: taken(decoder.total_in(), before), end: status == Status::StreamEnd })
}

fn zstd(packed: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
    if let Some(out) = zstd_at_once(packed, limit) {
        return Ok(out);
    }
    let mut decoder = Decoder::new().map_err(|e| Error::damaged(0, e.to_string()))?;
    run(packed, limit, |rest, out| {
        let mut input = InBuffer::around(rest);
        let at = out.len();
        let left = decoder.run(&mut input, &mut OutBuffer::around_pos(out, at))?;
        Ok::<_, std::io::Error>(Step { taken: input.pos(), end: left == 0 })
    })
}

/// A whole frame straight into its output, which saves the way through zstd's
/// own window, if the size appended to it (IMG-2) is one that the input bears out.
fn zstd_at_once(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    const USUAL_RATIO: usize = 8;
    let len = zstd::zstd_safe::find_frame_compressed_size(packed).ok()?;
    let claimed = size32(packed, len)?;
    if claimed > limit || claimed > len.saturating_mul(USUAL_RATIO) {
        return None;
    }
    let mut out = Vec::with_capacity(claimed);
    zstd::bulk::Decompressor::new().ok()?.decompress_to_buffer(packed.get(..len)?, &mut out).ok()?;
    Some(out)
}
