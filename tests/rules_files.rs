//! Files before their ELF checks: too short and too large ones (spec 01). The checks themselves: `crates/elf-layout`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, Elf, Sh, UNDEF, WEAK, WRITE};
use common::library;
use elf_layout::{KernelConfig, KernelVersion};
use kernel::Kernel;
use kmodld::Loader;

const WA: u64 = ALLOC | WRITE;

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig::new(version).with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.kallsyms_all = Some(true);
    })
}

fn hello(kernel: &str) -> Elf {
    Elf::new(common::read(&common::ko(kernel, "hello")))
}

#[test]
fn val_2_files_without_room_for_a_header() {
    let good = hello("6.12-amd64");
    for kernel in common::AMD64 {
        for len in [0, 1, 4, 63] {
            let said = library::check(&good.bytes[..len], &common::config(kernel));
            let stop = library::stop(&said);
            assert_eq!(
                stop,
                Some(("VAL-2", Some("ENOEXEC"), vec![])),
                "VAL-2: {kernel}: {len} bytes, silently"
            );
        }
    }
    // Whatever else is wrong with it.
    let mut elf = good.clone();
    elf.bytes[0] = 0;
    for kernel in common::KERNELS {
        let said = library::check(&elf.bytes[..63], &common::config(kernel));
        assert_eq!(library::codes(&said)[0], "VAL-2", "VAL-40: {kernel}, hello: too short for anything");
    }
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

/// An undefined symbol is in no section, whatever section 0 is called.
#[test]
fn ov_3_undefined_symbols_are_not_in_section_0() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".data..percpu", WA, 1).zeros(8);
    let percpu = usize::from(builder.index(".data..percpu"));
    builder.symbol("undefined", WEAK, 0, UNDEF, 0x40);
    for minor in [1, 12] {
        let mut elf = Elf::new(builder.build());
        let st_name = elf.get(percpu, Sh::Name);
        elf.set(percpu, Sh::Name, 0).set(0, Sh::Name, st_name).set(0, Sh::Flags, WA);
        let loader = Loader::from(Kernel::unknown(config(minor)));
        let opened = library::open_on(&loader, &elf.bytes);
        let value = library::load(&loader, &opened).0.unwrap().module.values[1];
        assert_eq!(value, 0x40, "OV-3: mini on 6.{minor}, section 0, .data..percpu: an undefined symbol");
    }
}
