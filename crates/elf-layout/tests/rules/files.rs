//! The order of the ELF checks, and what is found by name (specs 00 and 01).

use elf_layout::{KernelConfig, KernelVersion, LoadInfo};
use testkit::elf::{ALLOC, Builder, Elf, Rela, SYMTAB, Sh, WRITE};
use testkit::fixtures::KERNELS;

use crate::common::{self, check, hello, open, open_with, stop};

const WA: u64 = ALLOC | WRITE;
const EXTENDED: &str = "extended version crc+name presence does not match";

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig::new(version).with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.kallsyms_all = Some(true);
    })
}

#[test]
fn val_40_header_checks_in_order() {
    for kernel in KERNELS {
        let (mut elf, good) = (hello(kernel), hello(kernel));
        elf.bytes[0] = 0;
        elf.put(16, 2, 2);
        elf.put(18, 2, 0x7777);
        elf.put(58, 2, 63);
        // Every repair uncovers the next one.
        for (code_then, at, width) in
            [("VAL-11", 0, 1), ("VAL-12", 16, 2), ("VAL-13", 18, 2), ("VAL-14", 58, 2)]
        {
            let said = check(&elf.bytes, &common::config(kernel));
            let stop = stop(&said).map(|s| (s.0, s.1));
            assert_eq!(stop, Some((code_then, Some("ENOEXEC"))), "VAL-40: {kernel}, hello: byte {at}");
            assert_eq!(said.dmesg().count(), 1, "VAL-40: {kernel}, hello: only {code_then} is logged");
            elf.put(at, width, good.number(at, width));
        }
        assert_eq!(elf.bytes, good.bytes, "VAL-40: {kernel}: all is repaired");
    }
}

#[test]
fn val_49_one_symbol_table_since_6_4() {
    let line = "hello: module has no symbols (stripped?)";
    for (kernel, two) in
        [("6.1-amd64", true), ("6.12-amd64", false), ("6.1-arm64", true), ("6.12-arm64", false)]
    {
        let good = hello(kernel);
        let (table, other) = (good.of_type(SYMTAB).unwrap(), good.section(".comment"));
        for (what, section, kind, loads) in [("none", table, 1, false), ("two", other, SYMTAB, two)] {
            let mut elf = good.clone();
            let link = good.get(table, Sh::Link);
            elf.set(section, Sh::Type, u64::from(kind)).set(section, Sh::Link, link);
            let said = check(&elf.bytes, &common::config(kernel));
            let want = if loads { vec![] } else { vec![line] };
            assert_eq!(
                said.dmesg().collect::<Vec<_>>(),
                want,
                "VAL-49: {kernel}, hello: {what} of type SYMTAB"
            );
            assert_eq!(said.errno().is_none(), loads, "VAL-49: {kernel}, hello: {what} of type SYMTAB");
        }
    }
}

#[test]
fn val_53_extended_versions_in_the_order_of_the_checks() {
    let mut builder = Builder::mini("6.14.0");
    builder.section("__version_ext_crcs", ALLOC, 4).zeros(8);
    let good = Elf::new(builder.build());
    let strings = good.section(".strtab");
    let open = |elf: &Elf, minor, ignore_modversions| {
        let said = open_with(&elf.bytes, &config(minor), ignore_modversions).said;
        stop(&said).map(|(code, errno, log)| (code, errno, log.join("\n")))
    };
    let all = false;
    let refused = Some(("VER-30", Some("ENOEXEC"), EXTENDED.to_owned()));
    assert_eq!(open(&good, 14, all), refused, "VAL-53: mini on 6.14");
    assert_eq!(open(&good, 13, all), None, "VAL-53: mini on 6.13");
    let ignored = true;
    assert_eq!(open(&good, 14, ignored), None, "VAL-53, VER-33: mini on 6.14, IGNORE_MODVERSIONS");
    let mut elf = good.clone();
    elf.data_mut(strings)[0] = b'x';
    assert_eq!(open(&elf, 14, all), refused, "VAL-53: mini on 6.14: before VAL-52");
    assert_eq!(open(&elf, 14, ignored).map(|s| s.0), Some("VAL-52"), "VAL-53: mini on 6.14");
    elf.set(good.of_type(SYMTAB).unwrap(), Sh::Link, 0);
    assert_eq!(open(&elf, 14, all).map(|s| s.0), Some("VAL-21"), "VAL-53: mini on 6.14: behind VAL-50");
}

#[test]
fn ov_4_find_sec_sees_what_is_alloc_at_the_time() {
    let mut builder = Builder::mini("6.12.0");
    builder.section("__versions", 0, 1).zeros(64);
    builder.section("__versions", ALLOC, 1).zeros(64);
    builder.section(".data..percpu", WA, 1).zeros(8);
    let versions = usize::from(builder.index("__versions"));
    for minor in [1, 12] {
        let (file, config) = (builder.build(), config(minor));
        let module = open(&file, &config).module.unwrap();
        let what = format!("mini on 6.{minor}");
        assert_eq!(module.index().vers, versions + 1, "OV-4: {what}, __versions: the first that is ALLOC");
        assert_eq!(module.find_any_sec("__versions"), versions, "OV-4: {what}, __versions: the first of all");
        let mut info = LoadInfo::rewrite_section_headers(&module, &config);
        let percpu = versions + 2;
        let found = [".modinfo", "__versions", ".data..percpu"].map(|name| info.find_sec(name));
        assert_eq!(found, [0, 0, percpu], "OV-4: {what}: invisible after the first rewrite");
        info.edit_flags();
        assert_eq!(info.find_sec(".data..percpu"), 0, "OV-4: {what}: invisible after the flag edits");
        let found = [".modinfo", "__versions", ".data..percpu"].map(|name| module.find_any_sec(name));
        assert_eq!(found, [1, versions, percpu], "OV-4: {what}: find_any_sec sees them all the same");
    }
}

#[test]
fn ov_3_section_0_is_never_found() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".strange", WA, 1).zeros(8);
    let strange = builder.index(".strange");
    for minor in [1, 12] {
        for name in [".data..percpu", "__versions"] {
            let mut builder = builder.clone();
            builder.sections.last_mut().unwrap().name = name.to_owned();
            let mut elf = Elf::new(builder.build());
            let index = |elf: &Elf| {
                let opened = open(&elf.bytes, &config(minor));
                assert!(!opened.said.refused(), "OV-3: mini on 6.{minor}: {:?}", opened.said);
                let index = *opened.module.unwrap().index();
                index.pcpu + index.vers
            };
            assert_eq!(index(&elf), usize::from(strange), "OV-3: mini on 6.{minor}, {name} is found");
            let st_name = elf.get(usize::from(strange), Sh::Name);
            elf.set(usize::from(strange), Sh::Name, 0).set(0, Sh::Name, st_name).set(0, Sh::Flags, WA);
            assert_eq!(elf.name(0), name);
            assert_eq!(index(&elf), 0, "OV-3: mini on 6.{minor}, section 0, {name}: absent");
        }
    }
}

#[test]
fn reloc_gen_10_a_table_is_as_many_records_as_fit() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".data", WA, 8).zeros(16);
    let record = Rela { offset: 8, kind: 1, symbol: 0, addend: 5 };
    builder.relocations(".data", &[record, record]).data.extend([0x55; 23]);
    builder.sections.last_mut().unwrap().size += 23;
    let table = usize::from(builder.index(".rela.data"));
    let (file, config) = (builder.build(), config(12));
    let module = open(&file, &config).module.unwrap();
    assert_eq!(module.relocations(table).len(), 2, "RELOC-GEN-10: 23 bytes are no record");
}
