//! SPEC files: all that is known of a kernel in one file. `docs/spec-file.md` describes the format; version 2 is
//!
//! - a first line, `kmodld kernel spec 2`,
//! - a line `NAME LENGTH STORED CRC` for each record, and a last one, `end CRC`,
//! - then the records, one after the other: as they are, or each as a zstd frame.
//!
//! So whoever maps a file whose records are as they are has them without a copy.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use bytes::Bytes;
use kernel::Records;

/// The first line, up to the version.
const MAGIC: &[u8] = b"kmodld kernel spec ";
/// The version written, and the only one read.
const VERSION: &str = "2";
/// The records of a file may not become larger than this when decompressed.
const PAYLOAD_MAX: u64 = 1 << 30;
/// zstd's default trades little size for much time.
const LEVEL: i32 = 12;
/// No line of the head is longer.
const LINE_MAX: usize = 256;

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

fn damaged(why: impl Into<String>) -> Error {
    Error::Damaged(why.into())
}

/// Does a file begin as a SPEC does?
pub fn is_spec(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// How the records of a file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each as a zstd frame, where that is smaller: the file is to travel.
    Small,
    /// As they are: the file is to be mapped.
    Plain,
}

/// Writes a SPEC file that is to travel.
pub fn write(records: &Records, file: &mut impl Write) -> io::Result<()> {
    write_as(Packing::Small, records, file)
}

/// Writes a SPEC file.
pub fn write_as(packing: Packing, records: &Records, file: &mut impl Write) -> io::Result<()> {
    let mut head = [MAGIC, VERSION.as_bytes(), b"\n"].concat();
    let mut stored = Vec::new();
    for (name, value) in records.iter() {
        let packed = match packing {
            Packing::Small => Some(zstd::bulk::compress(value, LEVEL)?).filter(|p| p.len() < value.len()),
            Packing::Plain => None,
        };
        let bytes = packed.map_or(Cow::Borrowed(value), Cow::Owned);
        writeln!(head, "{name} {} {} {:08x}", value.len(), bytes.len(), crc32fast::hash(&bytes))?;
        stored.push(bytes);
    }
    let crc = crc32fast::hash(&head);
    writeln!(head, "end {crc:08x}")?;
    file.write_all(&head)?;
    stored.iter().try_for_each(|bytes| file.write_all(bytes))?;
    file.flush()
}

/// Whether the checksums of records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Each is.
    Checked,
    /// They were right before, and the file is the same.
    Known,
}

/// Reads a SPEC file. Records that this version does not know are kept and ignored.
pub fn parse(bytes: &[u8]) -> Result<Records, Error> {
    parse_shared(&Bytes::copy_from_slice(bytes), Checksums::Checked)
}

/// Reads a SPEC file; records that it has as they are stay where they lie.
pub fn parse_shared(file: &Bytes, checksums: Checksums) -> Result<Records, Error> {
    let rest = file.strip_prefix(MAGIC).ok_or_else(|| damaged("its first line is missing"))?;
    let (version, mut rest) = line(rest).ok_or_else(|| damaged("its first line has no end"))?;
    if version != VERSION {
        return Err(Error::Version(version.chars().take(20).collect()));
    }
    let mut heads = Vec::new();
    loop {
        let before = file.len().saturating_sub(rest.len());
        let (text, tail) = line(rest).ok_or_else(|| damaged("its list of records has no end"))?;
        rest = tail;
        match Head::parse(text)
            .ok_or_else(|| damaged("a line of its list of records is not as it should be"))?
        {
            Head::End(crc) if file.get(..before).map(crc32fast::hash) == Some(crc) => break,
            Head::End(_) => return Err(damaged("its list of records is not what was written")),
            Head::Record { name, length, stored, crc } => heads.push((name, length, stored, crc)),
        }
    }
    let mut from = file.len().saturating_sub(rest.len());
    let mut left = PAYLOAD_MAX;
    let mut records = Records::default();
    for (name, length, stored, crc) in heads {
        left = left.checked_sub(length as u64).ok_or(Error::TooLarge)?;
        let to = from.checked_add(stored).filter(|to| *to <= file.len());
        let bytes = to.map(|to| file.slice(from..to)).ok_or_else(|| damaged("a record is cut off"))?;
        from = from.saturating_add(stored);
        if checksums == Checksums::Checked && crc32fast::hash(&bytes) != crc {
            return Err(damaged(format!("{name} is not what was written")));
        }
        let value = if stored == length { bytes } else { unpack(&bytes, length)? };
        records.set_shared(name, value);
    }
    if from != file.len() {
        return Err(damaged("something follows its end"));
    }
    Ok(records)
}

/// A line of the list of records.
enum Head<'l> {
    Record { name: &'l str, length: usize, stored: usize, crc: u32 },
    End(u32),
}

impl<'l> Head<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let crc = |text: &str| u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8);
        match words.as_slice() {
            ["end", sum] => Some(Head::End(crc(sum)?)),
            [name, length, stored, sum] => {
                let (length, stored) = (length.parse().ok()?, stored.parse().ok()?);
                Some(Head::Record { name, length, stored, crc: crc(sum)? }).filter(|_| stored <= length)
            }
            _ => None,
        }
    }
}

/// What comes out of one zstd frame, which is so many bytes.
fn unpack(packed: &[u8], length: usize) -> Result<Bytes, Error> {
    let mut value = Vec::new();
    let failed = |e: io::Error| damaged(e.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?.single_frame();
    let limit = (length as u64).saturating_add(1);
    (&mut decoder).take(limit).read_to_end(&mut value).map_err(failed)?;
    if value.len() != length || !decoder.finish().is_empty() {
        return Err(damaged("a record does not have its length"));
    }
    Ok(value.into())
}

/// A short first line as text, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(LINE_MAX).position(|b| *b == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(line).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Records {
        let mut records = Records::default();
        records.set("release", "6.12.0");
        records.set("kallsyms", b"ffffffff81000000 T _text\n".repeat(50));
        records.set("empty", "");
        records
    }

    fn spec(packing: Packing) -> Vec<u8> {
        let mut file = Vec::new();
        write_as(packing, &records(), &mut file).unwrap();
        file
    }

    #[test]
    fn a_spec_reads_back() {
        let [small, plain] = [Packing::Small, Packing::Plain].map(spec);
        assert!(small.len() < 300 && plain.len() > 1250, "{} and {}", small.len(), plain.len());
        for file in [small, plain] {
            assert!(is_spec(&file));
            assert_eq!(parse(&file).unwrap(), records());
        }
    }

    #[test]
    fn plain_records_stay_where_they_lie() {
        let file = Bytes::from(spec(Packing::Plain));
        let records = parse_shared(&file, Checksums::Known).unwrap();
        let place = records.get("kallsyms").unwrap().as_ptr_range();
        let all = file.as_ptr_range();
        assert!(all.start < place.start && place.end <= all.end);
    }

    #[test]
    fn a_damaged_spec_is_refused() {
        for packing in [Packing::Small, Packing::Plain] {
            let file = spec(packing);
            for len in 0..file.len() {
                assert!(parse(&file[..len]).is_err(), "cut at {len}");
            }
            for at in 0..file.len() {
                for bit in 0..8 {
                    let mut bytes = file.clone();
                    bytes[at] ^= 1 << bit;
                    match parse(&bytes) {
                        // The case of a hexadecimal digit of the last line.
                        Ok(read) => assert_eq!((read, bit), (records(), 5), "bit {bit} of byte {at}"),
                        Err(Error::Version(_)) => assert!(at < MAGIC.len() + 2),
                        Err(_) => {}
                    }
                }
            }
            let longer = [&file[..], b"x"].concat();
            assert!(matches!(parse(&longer), Err(Error::Damaged(_))));
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let of = |length: u64, packed: &[u8]| {
            let mut head = String::from("kmodld kernel spec 2\n");
            head += &format!("x {length} {} {:08x}\n", packed.len(), crc32fast::hash(packed));
            let end = format!("end {:08x}\n", crc32fast::hash(head.as_bytes()));
            [head.as_bytes(), end.as_bytes(), packed].concat()
        };
        let packed = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        assert!(parse(&of(1 << 20, &packed)).is_ok());
        for length in [(1 << 20) - 1, (1 << 20) + 1, 1 << 30] {
            assert!(matches!(parse(&of(length, &packed)), Err(Error::Damaged(_))), "{length}");
        }
        assert!(matches!(parse(&of((1 << 30) + 1, &packed)), Err(Error::TooLarge)));
    }
}
