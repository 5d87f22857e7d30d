//! Files and their ELF checks: the largest file, the order of checks, what is found by name (specs 00 and 01).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, Elf, SYMTAB, Sh, UNDEF, WEAK, WRITE};
use common::library;
use elf_layout::{Findings, KernelConfig, KernelVersion, LoadInfo};
use kmodld::Loader;
use symres::{Kernel, KernelParts, LoadFlags};

const WA: u64 = ALLOC | WRITE;
const EXTENDED: &str = "extended version crc+name presence does not match";

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig {
        module_sig: false,
        modversions: false,
        kallsyms_all: Some(true),
        ..KernelConfig::new(version)
    }
}

fn hello(kernel: &str) -> Elf {
    Elf::new(common::read(&common::ko(kernel, "hello")))
}

#[test]
fn val_40_header_checks_in_order() {
    for kernel in common::KERNELS {
        let (mut elf, good) = (hello(kernel), hello(kernel));
        elf.bytes[0] = 0;
        elf.put(16, 2, 2);
        elf.put(18, 2, 0x7777);
        elf.put(58, 2, 63);
        let cut = Elf::new(elf.bytes[..63].to_vec());
        let code = |elf: &Elf| library::codes(&library::check(&elf.bytes, &common::config(kernel)))[0];
        assert_eq!(code(&cut), "VAL-2", "VAL-40: {kernel}, hello: too short for anything");
        // Every repair uncovers the next one.
        for (code_then, at, width) in
            [("VAL-11", 0, 1), ("VAL-12", 16, 2), ("VAL-13", 18, 2), ("VAL-14", 58, 2)]
        {
            let said = library::check(&elf.bytes, &common::config(kernel));
            let stop = library::stop(&said).map(|s| (s.0, s.1));
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
            let said = library::check(&elf.bytes, &common::config(kernel));
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
    let open = |elf: &Elf, minor, flags| {
        let kernel = Kernel::new(config(minor), KernelParts::default());
        let said = kmodld::load::open(&elf.bytes, &kernel, flags).said;
        library::stop(&said).map(|(code, errno, log)| (code, errno, log.join("\n")))
    };
    let all = LoadFlags::default();
    let refused = Some(("VER-30", Some("ENOEXEC"), EXTENDED.to_owned()));
    assert_eq!(open(&good, 14, all), refused, "VAL-53: mini on 6.14");
    assert_eq!(open(&good, 13, all), None, "VAL-53: mini on 6.13");
    let ignored = LoadFlags { ignore_modversions: true, ..all };
    assert_eq!(open(&good, 14, ignored), None, "VAL-53: mini on 6.14, IGNORE_MODVERSIONS");
    let mut elf = good.clone();
    elf.data_mut(strings)[0] = b'x';
    assert_eq!(open(&elf, 14, all), refused, "VAL-53: mini on 6.14: before VAL-52");
    assert_eq!(open(&elf, 14, ignored).map(|s| s.0), Some("VAL-52"), "VAL-53: mini on 6.14");
    elf.set(good.of_type(SYMTAB).unwrap(), Sh::Link, 0);
    assert_eq!(open(&elf, 14, all).map(|s| s.0), Some("VAL-21"), "VAL-53: mini on 6.14: behind VAL-50");
}

#[test]
fn val_4_no_file_is_larger_than_int_max() {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    if kib.is_none_or(|kib: u64| kib < 8 << 20) {
        return common::skipped(
            "val_4_no_file_is_larger_than_int_max",
            "it may take more memory than there is",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.ko");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 31).unwrap();
    let error = kmodld::input::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("huge.ko") && error.contains("2 GiB"),
        "VAL-4: huge.ko, INT_MAX + 1 bytes: {error}"
    );
}

#[test]
fn ov_3_section_0_is_never_found() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".strange", WA, 1).zeros(8);
    let strange = builder.index(".strange");
    builder.symbol("undefined", WEAK, 0, UNDEF, 0x40);
    for minor in [1, 12] {
        for name in [".data..percpu", "__versions"] {
            let mut builder = builder.clone();
            builder.sections.last_mut().unwrap().name = name.to_owned();
            let mut elf = Elf::new(builder.build());
            let index = |elf: &Elf| {
                let opened = library::open(&elf.bytes, &config(minor));
                assert!(!opened.said.refused(), "OV-3: mini on 6.{minor}: {:?}", opened.said);
                let index = *opened.module.unwrap().index();
                index.pcpu + index.vers
            };
            assert_eq!(index(&elf), usize::from(strange), "OV-3: mini on 6.{minor}, {name} is found");
            let st_name = elf.get(usize::from(strange), Sh::Name);
            elf.set(usize::from(strange), Sh::Name, 0).set(0, Sh::Name, st_name).set(0, Sh::Flags, WA);
            assert_eq!(elf.name(0), name);
            assert_eq!(index(&elf), 0, "OV-3: mini on 6.{minor}, section 0, {name}: absent");
            // An undefined symbol is in no section, whatever section 0 is called.
            let loader = Loader::new(Kernel::new(config(minor), KernelParts::default()));
            let opened = library::open_on(&loader, &elf.bytes);
            let value = library::load(&loader, &opened, &mut Findings::new()).unwrap().resolution.values[1];
            assert_eq!(value, 0x40, "OV-3: mini on 6.{minor}, section 0, {name}: an undefined symbol");
        }
    }
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
        let module = library::open(&file, &config).module.unwrap();
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
