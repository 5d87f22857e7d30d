//! Reading files, compressed ones by their magic (DEC-7).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::Error;

/// The kernel takes no module file larger than INT_MAX (VAL-4).
const FILE_MAX: u64 = i32::MAX as u64;

/// Reads a file whole. Mapping it instead would hand a SIGBUS to whoever truncates it meanwhile.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
    let too_large = || Error::unusable(path, "larger than 2 GiB, the kernel's limit for a module file");
    // What is no plain file tells its size only by being read.
    if file.metadata().is_ok_and(|m| m.is_file() && m.len() > FILE_MAX) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(FILE_MAX.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| Error::read(path, e))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Reads a file, and decompresses it if it begins as gzip, xz or zstd does.
pub fn read_decompressed(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(path)?;
    let (format, mut decoder): (_, Box<dyn Read + '_>) = match bytes.as_slice() {
        [0x1f, 0x8b, 8, ..] => ("gzip", Box::new(flate2::read::MultiGzDecoder::new(&*bytes))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", Box::new(liblzma::read::XzDecoder::new(&*bytes))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(&*bytes).map_err(|e| Error::read(path, e))?;
            ("zstd", Box::new(decoder))
        }
        _ => return Ok(bytes),
    };
    let bad = |why: String| Error::Decompress { path: path.into(), format, why };
    let mut out = Vec::new();
    let read = (&mut decoder).take(FILE_MAX.saturating_add(1)).read_to_end(&mut out);
    read.map_err(|e| bad(e.to_string()))?;
    if out.len() as u64 > FILE_MAX {
        return Err(bad(String::from("more than 2 GiB come out of it")));
    }
    drop(decoder);
    Ok(out)
}

/// Pairs of hexadecimal digits to bytes.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.strip_prefix("0x").unwrap_or(text).as_bytes().chunks(2);
    let digits = |pair: &&[u8]| pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(|pair| Some(pair).filter(digits).and_then(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn dec_7_compressed_by_magic_not_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("module.ko");
        let content = b"\x7fELF and more".repeat(99);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&content).unwrap();
        let zstd = zstd::stream::encode_all(&*content, 1).unwrap();
        for (format, packed) in
            [("gzip", gzip.finish().unwrap()), ("xz", xz.finish().unwrap()), ("zstd", zstd)]
        {
            std::fs::write(&path, &packed).unwrap();
            assert_eq!(read_decompressed(&path).unwrap(), content, "DEC-7: {format}");
            std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
            let error = read_decompressed(&path).unwrap_err().to_string();
            assert!(error.contains(format) && error.contains("module.ko"), "truncated {format}: {error}");
        }
        std::fs::write(&path, &content).unwrap();
        assert_eq!(read_decompressed(&path).unwrap(), content);
        assert!(read_decompressed(dir.path()).unwrap_err().to_string().contains("cannot read"));
    }
}
