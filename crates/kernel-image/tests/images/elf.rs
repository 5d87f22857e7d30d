//! A vmlinux: for arm64, and with `.symtab` for want of kallsyms.

use testkit::elf::{ALLOC, Builder, EM_X86_64, ET_EXEC, EXEC, Elf, Sh, WRITE};

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

/// An ELF with one section of each kind, 1 to 4, and these symbols: name, info, section, value.
fn with_symtab(symbols: &[(&str, u8, u16, u64)]) -> Vec<u8> {
    let mut builder = Builder::new(ET_EXEC, EM_X86_64);
    builder.section(".text", ALLOC | EXEC, 16).zeros(0x100).at(X86_BASE);
    builder.section(".rodata", ALLOC, 16).zeros(0x100).at(X86_BASE + 0x100);
    builder.section(".data", ALLOC | WRITE, 16).zeros(0x100).at(X86_BASE + 0x200);
    builder.section(".bss", ALLOC | WRITE, 16).nobits(0x10_0000).at(X86_BASE + 0x300);
    for (name, info, section, value) in symbols {
        builder.symbol(name, info >> 4, info & 15, *section, *value);
    }
    builder.build()
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

    let mut stripped = Elf::new(bytes.clone());
    let symtab = stripped.section(".symtab");
    stripped.set(symtab, Sh::Type, 0);
    let image = open(&stripped.bytes, 0).unwrap();
    assert!(matches!(image.kallsyms(), Err(Error::NoKallsyms(_))), "no tables and no .symtab");
    assert!(matches!(open(&bytes[..stripped.shoff()], 0), Err(Error::Elf(_))), "not even sections");
}
