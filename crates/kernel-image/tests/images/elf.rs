//! A vmlinux: for arm64, and with `.symtab` for want of kallsyms.

use super::{ARM64_BASE, Plan, X86_BASE, build, open};
use kernel_image::{Error, ExportSource, Format, KallsymsLayout};

#[test]
fn img_7_vmlinux_of_arm64() {
    let flat = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    for sections in [false, true] {
        let built = build(&Plan { elf: true, sections, ..Plan::new(true, KallsymsLayout::NamesFirst) });
        let image = built.open();
        assert_eq!((image.machine(), image.format()), (&reloc::aarch64::MACHINE, Format::Elf));
        assert_eq!((image.page_size(), image.base()), (Some(4096), Some(ARM64_BASE)));
        assert_eq!(image.relocated_pointers(), 1, "KSYM-12");
        let (got, want) = (image.kallsyms().unwrap(), flat.open());
        assert!(got.iter().eq(want.kallsyms().unwrap().iter()));
        let exports = image.exports().unwrap();
        assert_eq!(exports.source(), if sections { ExportSource::Sections } else { ExportSource::Scan });
        assert!(exports.iter().eq(want.exports().unwrap().iter()));
    }
}

/// An ELF with one section of each kind, and the symbols `(name, info, section, value)`.
fn with_symtab(symbols: &[(&str, u8, u16, u64)]) -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut symtab = vec![0u8; 24];
    for (name, info, section, value) in symbols {
        symtab.extend_from_slice(&(strings.len() as u32).to_le_bytes());
        symtab.extend_from_slice(&[*info, 0]);
        symtab.extend_from_slice(&section.to_le_bytes());
        symtab.extend_from_slice(&value.to_le_bytes());
        symtab.extend_from_slice(&[0; 8]);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    // type, flags, address, offset, size, link; section 1 is .text, then .rodata, .data, .bss, .symtab, .strtab
    let strings_at = (0x1000 + symtab.len()) as u64;
    let sections = [
        (0, 0, 0, 0, 0, 0),
        (1, 6, X86_BASE, 0x800, 0x100, 0),
        (1, 2, X86_BASE + 0x100, 0x900, 0x100, 0),
        (1, 3, X86_BASE + 0x200, 0xa00, 0x100, 0),
        (8, 3, X86_BASE + 0x300, 0xb00, 0x10_0000, 0),
        (2, 0, 0, 0x1000, symtab.len() as u64, 6),
        (3, 0, 0, strings_at, strings.len() as u64, 0),
    ];
    let mut file = vec![0u8; 0x1000];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[0x10] = 2;
    file[0x12] = 62;
    file[0x28..0x30].copy_from_slice(&0x100u64.to_le_bytes());
    file[0x3a] = 64;
    file[0x3c] = sections.len() as u8;
    file[0x3e] = 6;
    for (i, (kind, flags, address, offset, size, link)) in sections.into_iter().enumerate() {
        let header = &mut file[0x100 + 64 * i..][..64];
        header[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
        for (at, word) in [(8, flags), (16, address), (24, offset), (32, size)] {
            header[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
        }
        header[40..44].copy_from_slice(&(link as u32).to_le_bytes());
    }
    file.extend_from_slice(&symtab);
    file.extend_from_slice(&strings);
    file
}

#[test]
fn img_7_symtab_for_want_of_kallsyms() {
    const GLOBAL: u8 = 0x10;
    const WEAK: u8 = 0x20;
    let (function, object, file, section) = (2, 1, 4, 3);
    let bytes = with_symtab(&[
        ("bss", object, 4, X86_BASE + 0x300),
        ("made.c", file, 0xfff1, 0),
        ("", section, 1, X86_BASE),
        (".L42", 0, 1, X86_BASE),
        ("__kstrtab_main", 0, 2, X86_BASE + 0x110),
        ("undefined", GLOBAL, 0, 0),
        ("data", GLOBAL | object, 3, X86_BASE + 0x200),
        ("text", function, 1, X86_BASE + 8),
        ("main", GLOBAL | function, 1, X86_BASE + 4),
        ("weak", WEAK | function, 1, X86_BASE + 12),
        ("weak_data", WEAK | object, 3, X86_BASE + 0x208),
        ("rodata", object, 2, X86_BASE + 0x108),
        ("absolute", GLOBAL, 0xfff1, 42),
    ]);
    let image = open(&bytes, 0).unwrap();
    let kallsyms = image.kallsyms().unwrap();
    assert_eq!(kallsyms.layout(), KallsymsLayout::Symtab);
    let got: Vec<_> = kallsyms.iter().map(|s| (s.name, char::from(s.kind))).collect();
    let want: [(&[u8], char); 8] = [
        (b"absolute", 'A'),
        (b"main", 'T'),
        (b"text", 't'),
        (b"weak", 'W'),
        (b"rodata", 'r'),
        (b"data", 'D'),
        (b"weak_data", 'V'),
        (b"bss", 'b'),
    ];
    assert_eq!(got, want, "KSYM-1");
    assert!(image.read(X86_BASE + 0x2fc, 4).is_some(), "sections stand in for segments");
    assert_eq!(image.read(X86_BASE + 0x300, 4), None, ".bss is not in the file");

    let mut stripped = bytes.clone();
    stripped[0x100 + 64 * 5 + 4] = 0;
    let image = open(&stripped, 0).unwrap();
    assert!(matches!(image.kallsyms(), Err(Error::NoKallsyms(_))), "no tables and no .symtab");
    assert!(matches!(open(&bytes[..0x1000], 0), Err(Error::Elf(_))), "not even sections");
}
