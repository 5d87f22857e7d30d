//! Images of kernels, as far as only the public interface shows them (spec 09).
#![cfg(feature = "bzip2-lz4-lzo")]
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

use kernel_image::{Compression, Container, ExportSource, Format, ImageArch, KallsymsLayout, KernelImage};
use testkit::elf::{self, EM_X86_64, Flat};

const LIMIT: usize = 1 << 24;
const ARM64_BASE: u64 = 0xffff_8000_8000_0000;
const X86_BASE: u64 = 0xffff_ffff_8100_0000;
/// What nothing else in these images looks like: a compressed payload that is not compressed.
const MAGIC: &[u8] = b"\x1f\x8b\x08";

/// The architectures of the project.
fn known() -> Vec<&'static dyn ImageArch> {
    reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect()
}

fn open(file: &[u8]) -> KernelImage<'_> {
    KernelImage::open(file, LIMIT, &known()).unwrap()
}

/// arm64's flat Image, with words of pointers that nothing has relocated.
fn arm64() -> Flat {
    let mut out = Flat::arm64(ARM64_BASE);
    for n in 0..100u64 {
        out.put(&(ARM64_BASE + 8 * n).to_le_bytes());
    }
    out
}

/// Name, address, CRC, GPL-only.
type Export = (String, u64, Option<u32>, bool);

/// Puts export tables down: 150 plain symbols, 50 GPL-only ones, CRCs if wanted, names. Gives them and
/// the addresses where each table begins and the last one ends.
fn put_exports(out: &mut Flat, crcs: bool) -> (Vec<Export>, Vec<u64>) {
    let base = out.base;
    let mut exports: Vec<Export> = (0..200u32)
        .map(|n| {
            (
                format!("export_{n:03}"),
                base + 0x10 * u64::from(n),
                crcs.then_some(0x0101_0101 * n),
                n % 4 == 0,
            )
        })
        .collect();
    exports.push((String::from("module_layout"), base + 0x808, crcs.then_some(7), false));
    exports.sort_by_key(|e| e.3);
    let plain = exports.iter().filter(|e| !e.3).count() as u64;
    let (count, start) = (exports.len() as u64, out.base + out.align(8) as u64);
    let crcs_at = start + 12 * count;
    let end = crcs_at + if crcs { 4 * count } else { 0 };
    let mut name_at = end;
    for (name, address, ..) in &exports {
        out.prel32(*address);
        out.prel32(name_at);
        out.u32(0);
        name_at += name.len() as u64 + 1;
    }
    exports.iter().filter_map(|e| e.2).for_each(|crc| out.u32(crc));
    exports.iter().for_each(|e| out.bytes.extend(e.0.bytes().chain([0])));
    (exports, vec![start, start + 12 * plain, crcs_at, crcs_at + 4 * plain, end])
}

#[track_caller]
fn same_exports(image: &KernelImage<'_>, source: ExportSource, want: &[Export], what: &str) {
    let found = image.exports().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(found.source(), source, "{what}");
    let found: Vec<Export> = found
        .iter()
        .map(|e| (String::from_utf8_lossy(e.name).into_owned(), e.address, e.crc, e.gpl_only))
        .collect();
    assert_eq!(found, want, "{what}");
}

#[test]
fn img_21_and_30_records_of_a_flat_image() {
    for crcs in [true, false] {
        let what = format!("IMG-21, IMG-30: arm64 Image, with CRCs: {crcs}");
        let mut out = arm64();
        let (want, _) = put_exports(&mut out, crcs);
        let image = open(&out.bytes);
        assert_eq!((image.format(), image.relocated_pointers()), (Format::Flat, 0), "{what}");
        assert_eq!((image.base(), image.base_is_a_guess()), (Some(ARM64_BASE), false), "{what}");
        same_exports(&image, ExportSource::Scan, &want, &what);
        // The same bytes at another place, with the same distances: every address moves along.
        let moved = 0x4000_0000;
        for n in 0..100 {
            out.set(0x1000 + 8 * n, &(ARM64_BASE + moved + 8 * n as u64).to_le_bytes());
        }
        let want: Vec<Export> = want.into_iter().map(|e| (e.0, e.1 + moved, e.2, e.3)).collect();
        let image = open(&out.bytes);
        same_exports(&image, ExportSource::Scan, &want, &format!("{what}, linked elsewhere"));
    }
}

/// A vmlinux without symbols, with section headers if wanted, and with something behind them.
fn vmlinux(crcs: bool, sections: bool) -> (Vec<u8>, Vec<Export>) {
    let mut out = Flat::new(X86_BASE);
    let (want, at) = put_exports(&mut out, crcs);
    let names = ["__ksymtab", "__ksymtab_gpl", "__kcrctab", "__kcrctab_gpl"];
    let table = |(name, at): (&'static str, &[u64])| (name, at[0], at[1] - at[0]);
    let count = if crcs { 4 } else { 2 };
    let tables: Vec<_> = names.into_iter().zip(at.windows(2)).take(count).map(table).collect();
    let mut file = elf::vmlinux(EM_X86_64, &out, sections.then_some(&tables[..]));
    // The list of what KASLR relocates.
    file.extend((0..64u32).flat_map(|n| (0x8100_0000 + 4 * n).to_le_bytes()));
    (file, want)
}

/// A bzImage around it.
fn bzimage(vmlinux: &[u8]) -> Vec<u8> {
    let payload = [MAGIC, vmlinux].concat();
    let mut out = vec![0; 0x400];
    out[0x1f1] = 1;
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    out[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    out.extend(payload);
    out.extend((vmlinux.len() as u32).to_le_bytes());
    out
}

#[test]
fn img_3_a_vmlinux_without_symbols_in_a_bzimage() {
    for (crcs, sections) in [(true, true), (false, true), (true, false), (false, false)] {
        let what = format!("IMG-3: bzImage, with CRCs: {crcs}, with section headers: {sections}");
        let (elf, want) = vmlinux(crcs, sections);
        let file = bzimage(&elf);
        let unpack = &mut |compression, bytes: &[u8], _| {
            assert_eq!(compression, Compression::Gzip, "{what}");
            Ok(bytes[MAGIC.len()..bytes.len() - 4].to_vec())
        };
        let image = KernelImage::open_with(&file, LIMIT, &known(), unpack).unwrap();
        let shells = [Container::BzImage, Container::Compressed(Compression::Gzip)];
        assert_eq!(image.containers(), shells, "{what}");
        assert_eq!((image.format(), image.machine()), (Format::Elf, &reloc::x86_64::MACHINE), "{what}");
        assert_eq!((image.bytes(), image.base()), (&elf[..], Some(X86_BASE)), "{what}");
        assert!(image.kallsyms().is_err(), "{what}: no symbols");
        let source = if sections { ExportSource::Sections } else { ExportSource::Scan };
        same_exports(&image, source, &want, &what);
    }
}

/// Puts the kallsyms of 7.0 down: every symbol is a code for its letter and one for each character.
fn put_kallsyms(out: &mut Flat, symbols: &[(u64, u8, String)]) {
    let token = |code: u8| match code {
        0x21..=0x7e => vec![code],
        _ => b"unused".to_vec(),
    };
    out.align(4);
    out.u32(symbols.len() as u32);
    let (names, mut markers) = (out.bytes.len(), Vec::new());
    for (n, (_, kind, name)) in symbols.iter().enumerate() {
        if n % 256 == 0 {
            markers.push((out.bytes.len() - names) as u32);
        }
        out.bytes.extend([name.len() as u8 + 1, *kind]);
        out.bytes.extend(name.bytes());
    }
    out.align(4);
    markers.into_iter().for_each(|m| out.u32(m));
    let (table, mut index) = (out.bytes.len(), Vec::new());
    for code in 0..=255 {
        index.push((out.bytes.len() - table) as u16);
        out.bytes.extend(token(code).into_iter().chain([0]));
    }
    out.align(4);
    index.into_iter().for_each(|offset| out.bytes.extend(offset.to_le_bytes()));
    symbols.iter().for_each(|(address, ..)| out.prel32(*address));
    (0..symbols.len() as u32).for_each(|n| out.bytes.extend(&n.to_be_bytes()[1..]));
    out.align(8);
}

#[test]
fn ksym_14_offsets_from_their_own_places() {
    let symbol = |n: u64| (ARM64_BASE + 0x20 * (n / 2), b"TtDr"[n as usize % 4], format!("symbol_{n}"));
    let mut symbols: Vec<(u64, u8, String)> = (0..600).map(symbol).collect();
    symbols[0].2 = String::from("_text");
    // Behind the tables, where offsets are positive.
    symbols.extend((0..10).map(|n| (ARM64_BASE + 0x400_0000 + n, b'B', format!("far_{n}"))));
    let mut out = arm64();
    put_kallsyms(&mut out, &symbols);
    let image = open(&out.bytes);
    let kallsyms = image.kallsyms().unwrap();
    assert_eq!(kallsyms.layout(), KallsymsLayout::PlaceRelative, "KSYM-14: arm64 Image");
    assert_eq!(kallsyms.relative_base(), None, "KSYM-14: arm64 Image: there is no base");
    let found: Vec<(u64, u8, String)> =
        kallsyms.iter().map(|s| (s.address, s.kind, String::from_utf8_lossy(s.name).into_owned())).collect();
    assert_eq!(found, symbols, "KSYM-14: arm64 Image");

    // Out of order they are no kallsyms, whatever the offsets themselves look like.
    symbols.swap(100, 300);
    let mut out = arm64();
    put_kallsyms(&mut out, &symbols);
    let image = open(&out.bytes);
    assert!(image.kallsyms().is_err(), "KSYM-14: arm64 Image: addresses must ascend");
}
