//! Corners of the ELF checks: what is not looked at, what names appear in messages, what newer kernels look at.

use elf_layout::{Findings, KernelConfig, KernelVersion, LoadInfo};
use testkit::elf::{ALLOC, Builder, Elf, NOBITS, STRTAB, SYMTAB, Sh};
use testkit::fixtures::AMD64;

use crate::common::{check, codes, config, hello, open, stop, stops_at};

const HUGE: u64 = 1 << 40;
const THIS_MODULE: &str = ".gnu.linkonce.this_module";

#[test]
fn val_10_a_signature_that_leaves_too_little() {
    let info = [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 20];
    for kernel in AMD64 {
        let file = [&[0x7f; 63][..], &[0; 20], &info, b"~Module signature appended~\n"].concat();
        let elf = Elf::new(file);
        stops_at(&elf, &config(kernel), "VAL-10", "Invalid ELF header len 63", kernel);
    }
}

#[test]
fn val_13_what_of_the_header_is_not_looked_at() {
    for kernel in AMD64 {
        let config = config(kernel);
        // EI_CLASS, EI_DATA, e_version, e_flags, e_ehsize
        for (at, width) in [(4, 1), (5, 1), (20, 4), (48, 4), (52, 2)] {
            let mut elf = hello(kernel);
            elf.put(at, width, 0x55);
            assert!(!check(&elf.bytes, &config).refused(), "VAL-13: {kernel}: byte {at} is not checked");
        }
    }
}

#[test]
fn val_15_every_way_not_to_fit() {
    for kernel in AMD64 {
        let config = config(kernel);
        let good = hello(kernel);
        let len = good.bytes.len() as u64;
        for (at, width, value) in [(40, 8, len), (40, 8, u64::MAX), (40, 8, len - 64), (60, 2, 0xffff)] {
            let mut elf = good.clone();
            elf.put(at, width, value);
            stops_at(&elf, &config, "VAL-15", "Invalid ELF section header overflow", kernel);
        }
    }
}

#[test]
fn val_16_and_41_no_section_headers_at_all() {
    let mut elf = hello("6.1-amd64");
    elf.put(60, 2, 0);
    elf.put(62, 2, 0);
    let line = "Invalid ELF section name index: 0 || e_shstrndx (0) >= e_shnum (0)";
    stops_at(&elf, &config("6.1-amd64"), "VAL-16", line, "6.1");
    stops_at(&elf, &config("6.12-amd64"), "VAL-16", line, "6.12: VAL-41: header 0 is read all the same");
    let end = elf.bytes.len() as u64 - 63;
    elf.put(40, 8, end);
    let said = check(&elf.bytes, &config("6.12-amd64"));
    assert_eq!(
        stop(&said).map(|s| (s.0, s.1)),
        Some(("VAL-41", Some("ENOEXEC"))),
        "VAL-41: a header cut off"
    );
}

#[test]
fn val_20_each_part_of_section_0() {
    for kernel in AMD64 {
        for (field, value, kind) in [(Sh::Type, 0xffff_ffffu64, -1), (Sh::Size, 1, 0), (Sh::Addr, 1, 0)] {
            let mut elf = hello(kernel);
            elf.set(0, field, value);
            let line = format!("ELF Spec violation: section 0 type({kind})!=SH_NULL or non-zero len or addr");
            stops_at(&elf, &config(kernel), "VAL-20", &line, kernel);
        }
    }
}

#[test]
fn val_23_and_43_whose_names_are_looked_at() {
    // (section, does 6.1 look at its name: only ALLOC and not NOBITS)
    for (section, in_6_1) in [(".init.text", true), (".bss", false), (".comment", false), (".symtab", false)]
    {
        for (kernel, wanted) in [("6.1-amd64", in_6_1.then_some("VAL-23")), ("6.12-amd64", Some("VAL-43"))] {
            let mut elf = hello(kernel);
            let index = elf.section(section);
            let table = elf.get(elf.shstrndx(), Sh::Size);
            elf.set(index, Sh::Name, table);
            let said = check(&elf.bytes, &config(kernel));
            assert_eq!(stop(&said).map(|s| s.0), wanted, "{kernel}: name of {section}");
        }
    }
}

#[test]
fn val_26_names_that_nobody_checked() {
    for (kernel, name, crashes) in
        [("6.1-amd64", 0x10, false), ("6.1-amd64", 0x7fff_ffff, true), ("6.12-amd64", 0x7fff_ffff, false)]
    {
        let rela = hello(kernel).of_type(4).unwrap();
        // Nobody checks the name of section 0.
        for (section, crashes) in [(rela, crashes), (0, name == 0x7fff_ffff)] {
            let mut elf = hello(kernel);
            elf.set(section, Sh::Name, name);
            let config = config(kernel);
            let opened = open(&elf.bytes, &config);
            let file = opened.module.expect("a section table");
            // Where the kernel looks for .BTF, which these do not have, it has read all names but the first before.
            for (has_btf, name_read_before) in [(false, false), (true, crashes && section != 0)] {
                let config = config.clone().with(|c| c.btf_modules = has_btf);
                let info = LoadInfo::rewrite_section_headers(&file, &config);
                let (mut before, mut late) = (Findings::new(), Findings::new());
                info.section_names_up_to_btf(&mut before);
                info.section_names_in_reach(&mut late);
                let want = |is: bool| if is { &["VAL-26"][..] } else { &[] };
                let (said, late) = (codes(&before), codes(&late));
                let (early, later) = (want(name_read_before), want(crashes && !name_read_before));
                assert_eq!(
                    (&said[..], &late[..]),
                    (early, later),
                    "VAL-26: {kernel} {name:#x} of section {section}, BTF {has_btf}"
                );
            }
        }
    }
}

#[test]
fn val_22_sections_that_take_no_bytes_are_not_looked_at() {
    for kernel in AMD64 {
        let mut elf = hello(kernel);
        let bss = elf.section(".bss");
        assert_eq!(elf.get(bss, Sh::Type), u64::from(NOBITS));
        elf.set(bss, Sh::Offset, HUGE);
        assert!(!check(&elf.bytes, &config(kernel)).refused(), "VAL-22: {kernel}: NOBITS");
        let mut elf = hello(kernel);
        let size = elf.bytes.len() as u64;
        let comment = elf.section(".comment");
        elf.set(comment, Sh::Offset, u64::MAX).set(comment, Sh::Size, 2);
        let line = format!("Invalid ELF section in module (section {comment} type 1)");
        stops_at(&elf, &config(kernel), "VAL-22", &line, "offset + size wraps");
        elf.set(comment, Sh::Offset, size).set(comment, Sh::Size, 0);
        assert!(!check(&elf.bytes, &config(kernel)).refused(), "VAL-22: {kernel}: nothing at the end");
    }
}

#[test]
fn val_24_several_symbol_tables() {
    for (kernel, wanted) in [("6.1-amd64", None), ("6.12-amd64", Some("VAL-24"))] {
        let mut elf = hello(kernel);
        let strings = elf.get(elf.of_type(SYMTAB).unwrap(), Sh::Link);
        // After the true one, which 6.1 then uses.
        let last = elf.shnum() - 1;
        let spare =
            (elf.of_type(SYMTAB).unwrap() + 1..=last).find(|i| *i as u64 != strings && *i != elf.shstrndx());
        let Some(spare) = spare else {
            // No section follows: the one before becomes the first, with a good sh_link.
            let comment = elf.section(".comment");
            elf.set(comment, Sh::Type, u64::from(SYMTAB)).set(comment, Sh::Link, strings);
            let said = check(&elf.bytes, &config(kernel));
            assert_eq!(stop(&said).map(|s| s.0), wanted, "VAL-24: {kernel}: two symbol tables");
            continue;
        };
        elf.set(spare, Sh::Type, u64::from(SYMTAB)).set(spare, Sh::Link, strings);
        let said = check(&elf.bytes, &config(kernel));
        assert_eq!(stop(&said).map(|s| s.0), wanted, "VAL-24: {kernel}: two symbol tables");
    }
}

#[test]
fn val_25_45_and_51_the_name_in_messages() {
    let unnamed = "(missing .modinfo section or name field)";
    for (kernel, code, line) in [
        ("6.1-amd64", "VAL-25", format!("{unnamed}: No module found in object")),
        ("6.12-amd64", "VAL-45", format!("module {unnamed}: Exactly one {THIS_MODULE} section must exist.")),
    ] {
        let mut elf = hello(kernel);
        elf.replace(".modinfo", b"name=hello", b"nome=hello");
        let opened = open(&elf.bytes, &config(kernel));
        let name = opened.module.map(|m| m.name_text().into_owned());
        assert_eq!(name.as_deref(), Some("hello"), "VAL-51: {kernel}: the name in struct module");
        let this = elf.section(THIS_MODULE);
        let other = elf.get(elf.section(".comment"), Sh::Name);
        elf.set(this, Sh::Name, other);
        stops_at(&elf, &config(kernel), code, &line, kernel);
    }
}

#[test]
fn val_54_the_name_in_struct_module() {
    for kernel in ["6.1-amd64", "6.12-amd64"] {
        let mut elf = hello(kernel);
        let array = elf.range(elf.section(THIS_MODULE)).start + 0x18;
        elf.put(array, 1, u64::from(b'j'));
        let names = |elf: &Elf| {
            let opened = open(&elf.bytes, &config(kernel));
            opened.module.map(|m| (m.name_text().into_owned(), m.info_name_text().into_owned()))
        };
        let (own, info) = names(&elf).expect("a module");
        assert_eq!((&*own, &*info), ("jello", "hello"), "VAL-54, VAL-51: {kernel}");
        elf.bytes[array..array + 60].fill(b'x');
        assert_eq!(names(&elf).map(|n| n.0.len()), Some(60), "VAL-54: {kernel}: it ends at the next NUL");
    }
}

#[test]
fn val_56_a_piece_of_struct_module_has_no_name() {
    for (kernel, size, name) in [("6.1-amd64", 8, ""), ("6.1-amd64", 0x18, ""), ("6.1-amd64", 0x380, "hello")]
    {
        let mut elf = hello(kernel);
        let this = elf.section(THIS_MODULE);
        elf.set(this, Sh::Size, size);
        let opened = open(&elf.bytes, &config(kernel));
        let found = opened.module.map(|m| m.name_text().into_owned());
        assert_eq!(found.as_deref(), Some(name), "VAL-56: {kernel}: {size:#x} bytes");
    }
}

#[test]
fn val_48_size_of_struct_module() {
    let good = hello("6.12-amd64");
    let mut known = config("6.12-amd64");
    known.struct_module_size = Some(0x500);
    assert!(!check(&good.bytes, &known).refused(), "VAL-48: 0x500 is right");
    known.struct_module_size = Some(0x540);
    let line = format!(
        "module hello: {THIS_MODULE} section size must match the kernel's built struct module size at run time"
    );
    stops_at(&good, &known, "VAL-48", &line, "6.12");
    let mut old = config("6.1-amd64");
    old.struct_module_size = Some(0x540);
    assert!(!check(&hello("6.1-amd64").bytes, &old).refused(), "VAL-48: 6.1 does not look at it");
}

fn newer(minor: u16) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(6, minor, 0))
}

#[test]
fn val_52_symbol_strings_since_6_13() {
    let good = hello("6.12-amd64");
    let strings = good.get(good.of_type(SYMTAB).unwrap(), Sh::Link) as usize;
    type Patch = Box<dyn Fn(&mut Elf)>;
    let cases: [(&str, Patch); 4] = [
        (
            "empty symbol string table",
            Box::new(move |e| {
                e.set(strings, Sh::Size, 0);
            }),
        ),
        ("symbol string table missing leading NUL", Box::new(move |e| e.data_mut(strings)[0] = b'x')),
        (
            "symbol string table isn't NUL terminated",
            Box::new(move |e| *e.data_mut(strings).last_mut().unwrap() = b'x'),
        ),
        (
            "symbol name out of bounds in string table",
            Box::new(move |e| {
                let (at, size) = (e.symbol_at(0), e.get(strings, Sh::Size));
                e.put(at, 4, size);
            }),
        ),
    ];
    for (line, patch) in cases {
        let mut elf = good.clone();
        patch(&mut elf);
        stops_at(&elf, &newer(13), "VAL-52", line, "6.13");
        assert!(!check(&elf.bytes, &newer(12)).refused(), "VAL-52: 6.12 does not look: {line}");
    }
    assert_eq!(good.get(strings, Sh::Type), u64::from(STRTAB));
}

#[test]
fn ver_30_extended_versions_since_6_14() {
    let mut builder = Builder::mini("6.14.0");
    builder.section("__version_ext_crcs", ALLOC, 4).zeros(8);
    let said = |b: &Builder, minor| check(&b.build(), &newer(minor));
    let found = stop(&said(&builder, 14)).unwrap();
    assert_eq!((found.0, found.1), ("VER-30", Some("ENOEXEC")));
    assert_eq!(found.2, ["extended version crc+name presence does not match"], "VER-30: only one of the two");
    assert!(!said(&builder, 13).refused(), "VER-30: 6.13 knows no extended versions");
    builder.section("__version_ext_names", ALLOC, 1).data(b"only_one\0".to_vec());
    let found = stop(&said(&builder, 14)).unwrap();
    assert_eq!(found.2, ["more extended version crcs than names"], "VER-30");
    builder.sections.last_mut().unwrap().data(b"one\0two\0and three\0".to_vec());
    assert!(!said(&builder, 14).refused(), "VER-30: surplus names are ignored");
}

/// Before VAL-42 a section name table that claims no bytes is looked at by no check of bounds.
#[test]
fn val_41_a_name_table_that_nobody_checked() {
    for ((major, minor), crashes) in [((6, 4), true), ((6, 11), true), ((6, 13), true), ((6, 12), false)] {
        let config = KernelConfig::new(KernelVersion::new(major, minor, 0));
        let mut elf = hello("6.12-amd64");
        let names = elf.shstrndx();
        elf.set(names, Sh::Type, u64::from(NOBITS));
        let inside = check(&elf.bytes, &config);
        assert_eq!(inside.refused(), !crashes, "VAL-41: {major}.{minor}: it lies in the file: {inside:?}");
        elf.set(names, Sh::Offset, HUGE);
        let stop = stop(&check(&elf.bytes, &config)).map(|(code, errno, _)| (code, errno));
        let want = if crashes { ("VAL-41", None) } else { ("VAL-42", Some("ENOEXEC")) };
        assert_eq!(stop, Some(want), "VAL-41: {major}.{minor}");
    }
}
