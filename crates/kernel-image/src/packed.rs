//! Would the kernel's own decompressor read a module file (DEC-3 to DEC-6)? Told by headers alone.
//!
//! The tools that pack files can do more than lib/xz, lib/zlib_inflate and lib/zstd undo, and kernel/module/decompress.c
//! reads one stream only.

use alloc::format;
use alloc::string::String;

use crate::Compression;

/// A compressed module file, as the kernel sees it that is to decompress it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// How it is compressed.
    pub compression: Compression,
    /// What is against it; `None` if the headers show nothing.
    pub objection: Option<Objection>,
}

/// Why the kernel does not read a file, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Objection {
    /// The rule of `docs/spec/`.
    pub rule: &'static str,
    /// What is wrong, as it follows "the file".
    pub why: String,
    /// What the kernel logs, if it is known; it refuses the file with EINVAL then.
    pub line: Option<&'static str>,
    /// Options of the tool that packs the file so that the kernel reads it.
    pub fix: &'static str,
}

/// xz_ret: XZ_OPTIONS_ERROR
const XZ_OPTIONS: &str = "decompression failed with status 6";
/// How to pack for lib/xz.
const XZ_FIX: &str = "xz --check=crc32 --lzma2=dict=1MiB";
/// A dictionary that a kernel may not have the memory for: larger than any preset of xz asks for.
const DICTIONARY_LARGE: u64 = 64 << 20;
/// ZSTD_MAXWINDOWSIZE_DEFAULT
const ZSTD_WINDOW: u64 = (1 << 27) + 1;
const ZSTD_FIX: &str = "zstd -19 without --long";

impl Packed {
    /// Looks at a file; `None` if it is not compressed in a way that the kernel knows.
    pub fn of(file: &[u8]) -> Option<Packed> {
        let compression = Compression::of(file)?;
        let objection = match compression {
            Compression::Gzip => gzip(file),
            Compression::Xz => xz(file),
            Compression::Zstd => zstd(file),
            _ => return None,
        };
        Some(Packed { compression, objection })
    }
}

fn byte(file: &[u8], at: usize) -> Option<u8> {
    file.get(at).copied()
}

fn le32(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(4)?)?;
    Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
}

/// module_gzip_header_len: of the fields that a header may have, the name alone is skipped.
fn gzip(file: &[u8]) -> Option<Objection> {
    let flags = byte(file, 3)?;
    let fields = [(0x04, "extra field"), (0x10, "comment"), (0x02, "header checksum")];
    let (_, field) = fields.iter().find(|(flag, _)| flags & flag != 0)?;
    Some(Objection {
        rule: "DEC-5",
        why: format!("has a gzip header with {field}, which the kernel takes for compressed data"),
        line: Some("decompression failed with status -3"),
        fix: "gzip -n",
    })
}

/// xz_dec_run, lib/xz/xz_dec_stream.c
fn xz(file: &[u8]) -> Option<Objection> {
    let options = |rule, why| Objection { rule, why, line: Some(XZ_OPTIONS), fix: XZ_FIX };
    let check = byte(file, 7)?;
    // dec_stream_header
    let name = match check {
        0 | 1 => None,
        4 => Some(String::from("CRC64")),
        10 => Some(String::from("SHA256")),
        other => Some(format!("number {other}")),
    };
    if let Some(name) = name {
        let why = format!("has an integrity check of kind {name}: the kernel knows CRC32 and none");
        return Some(options("DEC-6", why));
    }
    xz_block(file).or_else(|| xz_streams(file))
}

/// dec_block_header: of the first block, which tells how the others are made.
fn xz_block(file: &[u8]) -> Option<Objection> {
    let options = |why| Some(Objection { rule: "DEC-4", why, line: Some(XZ_OPTIONS), fix: XZ_FIX });
    let size = byte(file, 12).filter(|size| *size != 0)?;
    let header = file.get(12..12usize.checked_add(usize::from(size).checked_mul(4)?)?)?;
    let flags = byte(header, 1)?;
    if flags & 0x3e != 0 {
        return options(format!(
            "chains {} filters: the kernel knows two at most",
            (flags & 3).saturating_add(1)
        ));
    }
    let mut at = 2usize;
    for flag in [0x40, 0x80] {
        if flags & flag != 0 {
            at = vli(header, at)?.1;
        }
    }
    if flags & 1 != 0 {
        let (id, properties) = (byte(header, at)?, byte(header, at.checked_add(1)?)?);
        // XZ_DEC_BCJ: which of them a kernel has is its configuration.
        if !(4..=11).contains(&id) || properties != 0 {
            return options(format!("begins with filter {id:#x}, which the kernel does not know"));
        }
        at = at.checked_add(2)?;
    }
    let (id, properties, dictionary) =
        (byte(header, at)?, byte(header, at.checked_add(1)?)?, byte(header, at.checked_add(2)?)?);
    if id != 0x21 || properties != 1 {
        return options(format!("ends with filter {id:#x}: the kernel wants LZMA2"));
    }
    // xz_dec_lzma2_reset
    if dictionary > 39 {
        return options(String::from("asks for a dictionary of 4 GiB: the kernel takes 3 GiB at most"));
    }
    let bits = u32::from(dictionary >> 1).checked_add(11)?;
    let size = u64::from(2 | (dictionary & 1)).checked_shl(bits)?;
    (size > DICTIONARY_LARGE).then(|| Objection {
        rule: "DEC-4",
        why: format!("asks for a dictionary of {} MiB, which the kernel must have free", size >> 20),
        line: Some("decompression failed with status 3"),
        fix: XZ_FIX,
    })
}

/// Does the index at the end cover the whole file? If not, it is that of a later stream.
fn xz_streams(file: &[u8]) -> Option<Objection> {
    let footer = file.len().checked_sub(12)?;
    if file.get(footer.checked_add(10)?..)? != b"YZ" {
        return more("DEC-6", "is longer than its first xz stream");
    }
    let index_size = le32(file, footer.checked_add(4)?)?.checked_add(1)?.checked_mul(4)?;
    let index = file.get(footer.checked_sub(usize::try_from(index_size).ok()?)?..footer)?;
    let (records, mut at) = vli(index, 1)?;
    let mut blocks = 0u64;
    // Each record takes bytes of the index, which ends the loop before a number that lies.
    for _ in 0..records {
        let (unpadded, next) = vli(index, at)?;
        blocks = blocks.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        at = vli(index, next)?.1;
    }
    let covered = blocks.checked_add(index_size)?.checked_add(24)?;
    if covered < file.len() as u64 { more("DEC-6", "has several xz streams") } else { None }
}

/// dec_vli: the value, and where it ends.
fn vli(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..63u32).step_by(7) {
        let next = byte(bytes, at)?;
        at = at.checked_add(1)?;
        value |= u64::from(next & 0x7f).checked_shl(shift)?;
        if next & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// What follows the first stream is not read.
fn more(rule: &'static str, what: &str) -> Option<Objection> {
    let why = format!("{what}: the kernel reads the first and leaves the rest");
    Some(Objection { rule, why, line: None, fix: "pack it in one piece" })
}

/// ZSTD_getFrameHeader, ZSTD_decompressStream: the window of the first frame, and whether there are more.
fn zstd(file: &[u8]) -> Option<Objection> {
    let descriptor = byte(file, 4)?;
    let single = descriptor & 0x20 != 0;
    let dictionary = [0usize, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let content = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let mut at = 5usize;
    let mut window = 0u64;
    if !single {
        let log = byte(file, at)?;
        let base = 1u64.checked_shl(u32::from(log >> 3).checked_add(10)?)?;
        window = base.checked_add((base >> 3).checked_mul(u64::from(log & 7))?)?;
        at = at.checked_add(1)?;
    }
    let refused = |why, line| Some(Objection { rule: "DEC-4", why, line: Some(line), fix: ZSTD_FIX });
    if file.get(at..at.checked_add(dictionary)?)?.iter().any(|b| *b != 0) {
        let why = String::from("was packed with a dictionary");
        return refused(why, "ZSTD-decompression failed with status 32");
    }
    at = at.checked_add(dictionary)?;
    if single {
        let bytes = file.get(at..at.checked_add(content)?)?;
        window = bytes.iter().rev().fold(0, |sum, b| (sum << 8) | u64::from(*b));
        window = window.saturating_add(if content == 2 { 256 } else { 0 });
    }
    at = at.checked_add(content)?;
    if window > ZSTD_WINDOW {
        let why = format!("asks for a window of {} MiB: the kernel takes 128 MiB at most", window >> 20);
        return refused(why, "ZSTD-decompression failed with status 16");
    }
    loop {
        let header = file.get(at..at.checked_add(3)?)?;
        let header = header.iter().rev().fold(0usize, |sum, b| (sum << 8) | usize::from(*b));
        let (size, is_rle) = (header >> 3, (header >> 1) & 3 == 1);
        at = at.checked_add(3)?.checked_add(if is_rle { 1 } else { size })?;
        if header & 1 != 0 {
            break;
        }
    }
    let end = at.checked_add(if descriptor & 4 != 0 { 4 } else { 0 })?;
    if end < file.len() { more("DEC-6", "has several zstd frames") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn rule(file: &[u8]) -> Option<&'static str> {
        Packed::of(file).expect("compressed").objection.map(|o| o.rule)
    }

    #[cfg(feature = "decompress")]
    fn packed_xz(check: liblzma::stream::Check, dictionary: u32, data: &[u8]) -> Vec<u8> {
        use liblzma::stream::{Filters, LzmaOptions, Stream};
        let mut options = LzmaOptions::new_preset(6).unwrap();
        options.dict_size(dictionary);
        let mut filters = Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, check).unwrap();
        let mut out = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new_stream(data, stream);
        std::io::Read::read_to_end(&mut encoder, &mut out).unwrap();
        out
    }

    #[test]
    #[cfg(feature = "decompress")]
    fn dec_6_the_check_of_an_xz_file() {
        use liblzma::stream::Check;
        for (check, want) in [
            (Check::None, None),
            (Check::Crc32, None),
            (Check::Crc64, Some("DEC-6")),
            (Check::Sha256, Some("DEC-6")),
        ] {
            assert_eq!(rule(&packed_xz(check, 1 << 20, b"a module")), want, "DEC-6");
        }
        let objection = Packed::of(&packed_xz(Check::Crc64, 1 << 20, b"")).unwrap().objection.unwrap();
        assert!(objection.why.contains("CRC64"), "DEC-6: {objection:?}");
        assert_eq!(objection.line, Some("decompression failed with status 6"), "DEC-4");
    }

    #[test]
    #[cfg(feature = "decompress")]
    fn dec_6_one_stream_only() {
        use liblzma::stream::Check;
        let one = packed_xz(Check::Crc32, 1 << 20, b"one");
        assert_eq!(rule(&[&one[..], &one].concat()), Some("DEC-6"));
        assert_eq!(
            rule(&[&one[..], b"rubbish"].concat()),
            Some("DEC-6"),
            "DEC-6: rubbish is left alone, too"
        );
        let zstd = zstd::stream::encode_all(&b"one"[..], 1).unwrap();
        assert_eq!(rule(&zstd), None);
        assert_eq!(rule(&[&zstd[..], &zstd].concat()), Some("DEC-6"));
        let large: Vec<u8> =
            (0..1u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        assert_eq!(rule(&zstd::stream::encode_all(&*large, 1).unwrap()), None, "DEC-6: many blocks");
        assert_eq!(rule(&packed_xz(Check::Crc32, 1 << 20, &large)), None, "DEC-6");
    }

    #[test]
    #[cfg(feature = "decompress")]
    fn dec_4_filters_and_dictionary_of_an_xz_file() {
        use liblzma::stream::Check;
        for (dictionary, want) in [(1 << 20, None), (64 << 20, None), (96 << 20, Some("DEC-4"))] {
            assert_eq!(rule(&packed_xz(Check::Crc32, dictionary, b"a module")), want, "DEC-4: {dictionary}");
        }
        let mut file = packed_xz(Check::Crc32, 1 << 20, b"a module");
        assert_eq!(file[12..16], [2, 0, 0x21, 1]);
        for (at, value, want) in
            [(13, 2, Some("DEC-4")), (14, 3, Some("DEC-4")), (16, 40, Some("DEC-4")), (16, 18, None)]
        {
            let before = core::mem::replace(&mut file[at], value);
            assert_eq!(rule(&file), want, "DEC-4: byte {at} is {value}");
            file[at] = before;
        }
    }

    #[test]
    fn dec_5_fields_of_a_gzip_header() {
        for (flags, want) in [
            (0u8, None),
            (0x08, None),
            (0x01, None),
            (0x04, Some("DEC-5")),
            (0x10, Some("DEC-5")),
            (0x02, Some("DEC-5")),
        ] {
            assert_eq!(rule(&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]), want, "DEC-5: flags {flags:#x}");
        }
    }

    #[test]
    fn dec_4_the_window_of_a_zstd_frame() {
        // One raw block of no bytes, the last.
        let frame = |descriptor: u8, more: &[u8]| {
            [&[0x28, 0xb5, 0x2f, 0xfd, descriptor][..], more, &[1, 0, 0]].concat()
        };
        for (what, file, want) in [
            ("128 MiB", frame(0, &[17 << 3]), None),
            ("144 MiB", frame(0, &[(17 << 3) | 1]), Some("DEC-4")),
            ("2 GiB", frame(0, &[21 << 3]), Some("DEC-4")),
            ("one piece of 1 MiB", frame(0xa0, &[0, 0, 0x10, 0]), None),
            ("one piece of 256 MiB", frame(0xa0, &[0, 0, 0, 0x10]), Some("DEC-4")),
            ("a dictionary", frame(1, &[0, 7]), Some("DEC-4")),
        ] {
            assert_eq!(rule(&file), want, "DEC-4: {what}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_matter() {
        for file in [&b"\xfd7zXZ\0\0\x01"[..], b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"\xfd7zXZ\0"] {
            for len in 0..=file.len() {
                let _ = Packed::of(&file[..len]);
            }
        }
        assert_eq!(Packed::of(b"\x7fELF"), None);
        assert_eq!(Packed::of(b""), None);
    }
}
