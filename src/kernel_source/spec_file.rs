//! SPEC files: all that is known of a kernel in one compact file that loads at
//! once. `docs/spec-file.md` describes the format; version 1 is
//!
//! - a first line, `kmodld kernel spec 1`,
//! - then one zstd frame with a content checksum, in which each record is a line `NAME LENGTH`, that many
//!   bytes, and a newline. The records are the texts that a kernel is described by anyway.

use std::io::{self, Read, Write};

use kernel::Records;

/// The first line, up to the version.
const MAGIC: &[u8] = b"kmodld kernel spec ";
/// The version written, and the only one read.
const VERSION: &str = "1";
/// A file may not become larger than this when decompressed.
const PAYLOAD_MAX: u64 = 1 << 30;
/// zstd's default trades little size for much time.
const LEVEL: i32 = 12;

/// Why a SPEC file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another program wrote it.
    #[error("a SPEC of version {0}; this program reads version {VERSION}")]
    Version(String),
    /// Its bytes are not those that were written.
    #[error("a damaged SPEC: {0}")]
    Damaged(String),
    /// It is a bomb.
    #[error("a SPEC of more than 1 GiB")]
    TooLarge,
}

/// Does a file begin as a SPEC does?
pub fn is_spec(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Writes a SPEC file.
pub fn write(records: &Records, file: &mut impl Write) -> io::Result<()> {
    write_at(LEVEL, records, file)
}

/// Writes a SPEC file, compressed at another level than usual.
pub fn write_at(level: i32, records: &Records, file: &mut impl Write) -> io::Result<()> {
    file.write_all(MAGIC)?;
    writeln!(file, "{VERSION}")?;
    let mut zstd = zstd::stream::write::Encoder::new(file, level)?;
    zstd.include_checksum(true)?;
    for (name, value) in records.iter() {
        writeln!(zstd, "{name} {}", value.len())?;
        zstd.write_all(value)?;
        zstd.write_all(b"\n")?;
    }
    zstd.finish()?.flush()
}

/// Reads a SPEC file. Records that this version does not know are kept and ignored.
pub fn parse(bytes: &[u8]) -> Result<Records, Error> {
    let damaged = |why: &str| Error::Damaged(why.to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("its first line is missing"))?;
    let (version, packed) = line(rest).ok_or_else(|| damaged("its first line has no end"))?;
    if version != VERSION {
        return Err(Error::Version(version.chars().take(20).collect()));
    }
    let mut payload = Vec::new();
    let decoder =
        zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| Error::Damaged(e.to_string()))?;
    let mut decoder = decoder.single_frame();
    let read = (&mut decoder).take(PAYLOAD_MAX.saturating_add(1)).read_to_end(&mut payload);
    read.map_err(|e| Error::Damaged(e.to_string()))?;
    if payload.len() as u64 > PAYLOAD_MAX {
        return Err(Error::TooLarge);
    }
    if !decoder.finish().is_empty() {
        return Err(damaged("something follows its end"));
    }
    let mut records = Records::default();
    let mut rest = payload.as_slice();
    while !rest.is_empty() {
        let (head, tail) = line(rest).ok_or_else(|| damaged("a record has no header line"))?;
        let (name, len) = head.split_once(' ').ok_or_else(|| damaged("a record has no length"))?;
        let len: usize = len.parse().map_err(|_| damaged("the length of a record is not a number"))?;
        let (value, tail) = tail.split_at_checked(len).ok_or_else(|| damaged("a record is cut off"))?;
        rest = tail.strip_prefix(b"\n").ok_or_else(|| damaged("a record has no end"))?;
        records.set(name, value);
    }
    Ok(records)
}

/// A short first line as text, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(256).position(|b| *b == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(line).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> (Records, Vec<u8>) {
        let mut records = Records::default();
        records.set("release", "6.12.0");
        records.set("kallsyms", b"ffffffff81000000 T _text\n".repeat(50));
        records.set("empty", "");
        let mut file = Vec::new();
        write(&records, &mut file).unwrap();
        (records, file)
    }

    #[test]
    fn a_spec_reads_back() {
        let (records, file) = spec();
        assert!(is_spec(&file));
        assert_eq!(parse(&file).unwrap(), records);
    }

    #[test]
    fn a_damaged_spec_is_refused() {
        let (_, file) = spec();
        for len in 0..file.len() {
            assert!(parse(&file[..len]).is_err(), "cut at {len}");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut bytes = file.clone();
                bytes[at] ^= 1 << bit;
                // Some header bits of a zstd frame carry no meaning for its content.
                match parse(&bytes) {
                    Ok(records) => assert_eq!(records, spec().0, "bit {bit} of byte {at}"),
                    Err(Error::Version(_)) => assert!(at < MAGIC.len() + 2),
                    Err(_) => {}
                }
            }
        }
        let longer = [&file[..], b"x"].concat();
        assert!(matches!(parse(&longer), Err(Error::Damaged(_))));
    }
}
