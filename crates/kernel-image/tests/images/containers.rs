//! Every container and compression (IMG-1 to 7), and how a broken one is reported.

use std::io::Write;

use super::{Plan, build, known, open};
use kernel_image::{Compression, Container, DecompressError, Error, Format, KallsymsLayout, KernelImage};

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lzop(data: &[u8]) -> Vec<u8> {
    let mut out = b"\x89LZO\0\r\n\x1a\n".to_vec();
    out.extend_from_slice(&[0x10, 0x30, 0x20, 0xa0, 0x09, 0x40, 3, 5]); // versions, method, level
    out.extend_from_slice(&3u32.to_be_bytes()); // both Adler-32 sums
    out.extend_from_slice(&[0; 12]); // mode, time
    out.extend_from_slice(b"\x05Image\0\0\0\0");
    for block in data.chunks(1 << 18) {
        let packed = lzokay::compress::compress(block).unwrap();
        let packed = if packed.len() < block.len() { packed } else { block.to_vec() };
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        if packed.len() < block.len() {
            out.extend_from_slice(&[0; 4]);
        }
        out.extend_from_slice(&packed);
    }
    out.extend_from_slice(&[0; 4]);
    out
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let mut out = b"\x02!L\x18".to_vec();
    for block in data.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(block);
        out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn pack(compression: Compression, data: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => gzip(data),
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => liblzma::encode_all(data, 1).unwrap(),
        Compression::Lzma => {
            let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(data, 3).unwrap(),
        Compression::Lz4 => lz4(data),
        Compression::Lz4Frame => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lzo => lzop(data),
        other => panic!("nothing packs {other:?}"),
    }
}

const ALL: [Compression; 8] = [
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Lzma,
    Compression::Xz,
    Compression::Lzo,
    Compression::Lz4,
    Compression::Lz4Frame,
    Compression::Zstd,
];

/// IMG-1: with a payload of any kind, and the size that the build appends (IMG-2).
pub(super) fn bzimage(payload: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![0; 5 * 512 + 16];
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    out[0x1f1] = 4;
    out[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    out[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&(size as u32).to_le_bytes());
    out.extend_from_slice(b"what follows");
    out
}

fn zboot(payload: &[u8]) -> Vec<u8> {
    let mut out = b"MZ\0\0zimg".to_vec();
    out.extend_from_slice(&64u32.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.resize(64, 0);
    out.extend_from_slice(payload);
    out
}

/// The same bytes in containers of every kind.
pub(super) fn of_every_kind(data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> =
        ALL.iter().map(|kind| (format!("{kind:?}").to_lowercase(), pack(*kind, data))).collect();
    all.push((String::from("bzimage"), bzimage(&pack(Compression::Xz, data), data.len())));
    all.push((String::from("zboot"), zboot(&gzip(data))));
    all
}

#[test]
fn img_6_compressed_files() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    for compression in ALL {
        let packed = pack(compression, &built.bytes);
        assert_eq!(Compression::of(&packed), Some(compression), "IMG-2");
        let image = open(&packed, built.bytes.len()).unwrap();
        assert_eq!(image.bytes(), built.bytes, "{compression:?}");
        assert_eq!(image.containers(), [Container::Compressed(compression)]);
        assert_eq!((image.format(), image.format_name()), (Format::Flat, "arm64 Image"));
        assert!(image.kallsyms().is_ok());
    }
}

#[test]
fn img_1_bzimage() {
    let built = build(&Plan::new(false, KallsymsLayout::Old));
    for compression in ALL {
        let file = bzimage(&pack(compression, &built.bytes), built.bytes.len());
        let image = open(&file, 1 << 24).unwrap();
        assert_eq!(image.bytes(), built.bytes, "{compression:?}");
        assert_eq!(image.containers(), [Container::BzImage, Container::Compressed(compression)]);
        assert_eq!((image.format(), image.format_name()), (Format::Elf, "ELF"));
    }
    let mut file = bzimage(&built.bytes, built.bytes.len());
    file[0x1f1] = 0;
    let image = open(&file, 1 << 24).unwrap();
    assert_eq!(image.containers(), [Container::BzImage], "not compressed, and 0 sectors mean 4");
}

#[test]
fn img_5_zboot() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    for compression in ALL {
        let file = zboot(&pack(compression, &built.bytes));
        let image = open(&file, 1 << 24).unwrap();
        assert_eq!(image.containers(), [Container::Zboot, Container::Compressed(compression)]);
        assert!(image.exports().is_ok());
    }
}

#[test]
fn nested_as_deep_as_anyone_does_it() {
    let built = build(&Plan::new(false, KallsymsLayout::Old));
    let mut file = gzip(&bzimage(&pack(Compression::Zstd, &built.bytes), built.bytes.len()));
    assert_eq!(open(&file, 1 << 24).unwrap().containers().len(), 3);
    for _ in 0..3 {
        file = gzip(&file);
    }
    assert_eq!(open(&file, 1 << 24).unwrap_err(), Error::TooDeep(4));
}

#[test]
fn the_limit_holds() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    for compression in ALL {
        let packed = pack(compression, &built.bytes);
        let limit = built.bytes.len() - 1;
        let want = Error::Decompress { compression, reason: DecompressError::TooLarge { limit } };
        assert_eq!(open(&packed, limit).unwrap_err(), want);
        let bomb = pack(compression, &vec![0; 32 << 20]);
        let error = open(&bomb, 1 << 20).unwrap_err();
        assert_eq!(
            error,
            Error::Decompress { compression, reason: DecompressError::TooLarge { limit: 1 << 20 } }
        );
    }
}

#[test]
fn truncated_streams() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    for compression in ALL {
        let packed = pack(compression, &built.bytes);
        for keep in [packed.len() / 2, packed.len() / 3, 12] {
            match open(&packed[..keep], 1 << 24).unwrap_err() {
                Error::Decompress { compression: said, .. } => assert_eq!(said, compression),
                other => panic!("{compression:?} cut to {keep}: {other}"),
            }
        }
    }
}

#[test]
fn broken_containers_are_named() {
    let built = build(&Plan::new(false, KallsymsLayout::Old));
    let whole = bzimage(&gzip(&built.bytes), built.bytes.len());
    let open = |file: &[u8]| open(file, 1 << 24).unwrap_err();
    let need = (whole.len() - b"what follows".len()) as u64;
    let have = need - 10;
    assert_eq!(open(&whole[..have as usize]), Error::Truncated { what: "bzImage", need, have });
    let mut file = whole.clone();
    file[0x206] = 7;
    assert_eq!(open(&file), Error::OldBootProtocol(0x0207));
    let mut file = whole.clone();
    file[5 * 512 + 16] = b'?';
    let what = "bzImage";
    assert!(
        matches!(open(&file), Error::UnknownPayload { what: w, at: 2576, magic: [b'?', 0x8b, ..] } if w == what)
    );
    let file = zboot(&gzip(&built.bytes));
    assert!(matches!(open(&file[..100]), Error::Truncated { what: "EFI zboot", .. }));
    let unrecognised = |start| Error::Unrecognised { start, flat: vec!["arm64 Image"] };
    assert_eq!(open(b"hello"), unrecognised(*b"hello\0\0\0"));
    assert_eq!(open(b""), unrecognised([0; 8]));
    assert_eq!(
        open(b"hello").to_string(),
        "not a kernel image: it starts with [68, 65, 6c, 6c, 6f, 00, 00, 00], \
         which is no bzImage, ELF, arm64 Image, EFI zboot or known compression"
    );
    let mut file = built.bytes.clone();
    file[0x12] = 3;
    assert!(matches!(open(&file), Error::Machine { number: 3, .. }));
    let message = open(&file).to_string();
    assert_eq!(message, "a kernel for i386: only x86_64 and aarch64 are read");
    file[4] = 1;
    assert_eq!(open(&file), Error::Elf("not 64-bit"));
    assert!(matches!(open(&built.bytes[..5000]), Error::Truncated { what: "ELF segment", .. }));
    let message = format!("{}", open(&built.bytes[..5000]));
    assert!(message.starts_with("truncated ELF segment: it needs "), "{message}");
}

#[test]
fn without_a_decompressor() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    let mut none = |_: Compression, _: &[u8], _: usize| Err(DecompressError::Unsupported);
    assert!(
        KernelImage::open_with(&built.bytes, 0, &known(), &mut none).is_ok(),
        "no container, no decompressor"
    );
    let error = KernelImage::open_with(&gzip(&built.bytes), 1 << 24, &known(), &mut none).unwrap_err();
    let compression = Compression::Gzip;
    assert_eq!(error, Error::Decompress { compression, reason: DecompressError::Unsupported });
}
