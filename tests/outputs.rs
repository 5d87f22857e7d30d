//! What `kmodld link` writes, where it puts modules, and how it ends.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{AMD64, KERNELS, fixtures, hex, kmodld, ko, link, link_args};
use serde_json::Value;

const KERNEL: &str = "6.12-amd64";

fn array<'v>(document: &'v Value, key: &str) -> &'v Vec<Value> {
    document[key].as_array().unwrap_or_else(|| panic!("{key} is no array"))
}

/// Base and size of every region in order.
fn regions(document: &Value) -> Vec<(String, u64, u64)> {
    let region =
        |r: &Value| (r["name"].as_str().unwrap().to_owned(), hex(&r["base"]), r["size"].as_u64().unwrap());
    array(document, "regions").iter().map(region).collect()
}

/// Keys of an object, in order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn layout_json_is_the_contract_and_the_same_as_json_on_stdout() {
    for kernel in AMD64 {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("raw");
        let printed = link(kernel, "exporter", &["--format", "raw", "-o", out.to_str().unwrap(), "--json"])
            .exits(0)
            .json();
        let written: Value = serde_json::from_slice(&common::read(&out.join("layout.json"))).unwrap();
        assert_eq!(printed, written, "{kernel}");
        for key in [
            "module", "arch", "release", "regions", "sections", "imports", "exports", "depends", "percpu",
            "findings",
        ] {
            assert!(!written[key].is_null(), "{kernel}: layout.json has no {key}");
        }
        assert_eq!(written["module"], "exporter");
        assert_eq!(written["arch"], "x86_64");
        assert_eq!(written["release"], common::release(kernel));
        for region in array(&written, "regions") {
            for key in ["name", "base", "size", "file"] {
                assert!(keys(region).contains(&key), "{kernel}: a region has no {key}");
            }
            let file = out.join(region["file"].as_str().unwrap());
            assert_eq!(
                file.metadata().unwrap().len(),
                region["size"].as_u64().unwrap(),
                "{}",
                file.display()
            );
            assert_eq!(region["size"].as_u64().unwrap() % 4096, 0, "LAYOUT-40: {kernel}: {region}");
        }
        for section in array(&written, "sections") {
            for key in ["index", "name", "region", "addr", "offset", "size"] {
                assert!(keys(section).contains(&key), "{kernel}: a section has no {key}");
            }
            let Some(region) = section["region"].as_str() else { continue };
            let found = regions(&written).into_iter().find(|r| r.0 == region);
            let Some((_, base, size)) = found else {
                assert_eq!(section["size"], 0, "LAYOUT-40: only an empty section lies in no region");
                continue;
            };
            let offset = section["offset"].as_u64().unwrap();
            assert_eq!(hex(&section["addr"]), base + offset, "{kernel}: {section}");
            assert!(offset + section["size"].as_u64().unwrap() <= size, "{kernel}: {section}");
        }
        for export in array(&written, "exports") {
            assert!(hex(&export["addr"]) > 0xffff_ffff_c000_0000 && hex(&export["crc"]) != 0, "{export}");
        }
        for import in array(&written, "imports") {
            assert_eq!(import["owner"], "vmlinux", "{import}");
            assert!(hex(&import["crc"]) <= u64::from(u32::MAX) && hex(&import["addr"]) != 0, "{import}");
        }
    }
}

#[test]
fn findings_of_layout_json_have_the_fields_of_the_contract() {
    let document = link(KERNEL, "ns_forgot", &["--json"]).exits(1).json();
    for finding in array(&document, "findings") {
        for key in ["code", "errno", "dmesg", "severity", "stops_here"] {
            assert!(keys(finding).contains(&key), "a finding has no {key}: {finding}");
        }
    }
    let stop = array(&document, "findings").iter().find(|f| f["stops_here"] == true).unwrap();
    assert_eq!((&stop["errno"], &stop["severity"]), (&Value::from("EINVAL"), &Value::from("error")));
}

#[test]
fn layout_50_and_51_the_first_module_of_a_boot() {
    for (kernel, names) in [
        ("6.1-amd64", &["core", "init"][..]),
        ("6.12-amd64", &["text", "data", "rodata", "ro_after_init", "init_text", "init_data", "init_rodata"]),
    ] {
        let document = link(kernel, "sections", &["--json"]).exits(0).json();
        let regions = regions(&document);
        let found: Vec<&str> = regions.iter().map(|r| r.0.as_str()).collect();
        assert_eq!(found, names, "LAYOUT-40: {kernel}: the module has a section for every region");
        let mut at = 0xffff_ffff_c020_1000;
        for (name, base, size) in regions {
            assert_eq!(base, at, "LAYOUT-50, LAYOUT-51: {kernel}: {name}");
            at += size + 0x1000;
        }
    }
}

#[test]
fn layout_50_the_next_module_takes_the_holes_that_init_left() {
    let first = regions(&link(KERNEL, "exporter", &["--json"]).exits(0).json());
    let second = regions(&link(KERNEL, "importer", &["--json"]).exits(0).json());
    // The test's own first fit, over the regions of the first module that stay.
    let mut taken: Vec<(u64, u64)> = first
        .iter()
        .filter(|r| !r.0.starts_with("init"))
        .map(|(_, base, size)| (*base, base + size + 0x1000))
        .collect();
    for (name, base, size) in second {
        let mut at = 0xffff_ffff_c020_1000u64;
        while let Some(other) = taken.iter().find(|(s, e)| at < *e && *s < at + size + 0x1000) {
            at = other.1;
        }
        assert_eq!(base, at, "LAYOUT-50: {name}");
        taken.push((at, at + size + 0x1000));
    }
}

#[test]
fn layout_56_base_is_that_of_the_first_region() {
    for kernel in KERNELS {
        let base = if kernel.ends_with("arm64") { 0xffff_8000_7123_0000 } else { 0xffff_ffff_c123_0000u64 };
        let document = link(kernel, "hello", &["--json", "--base", &format!("{base:#x}")]).exits(0).json();
        let mut at = base;
        for (name, base, size) in regions(&document) {
            assert_eq!(base, at, "LAYOUT-56: {kernel}: {name}");
            // Its pages, and a guard page.
            at += size.next_multiple_of(0x1000) + 0x1000;
        }
    }
    // Decimal too.
    let document = link(KERNEL, "hello", &["--json", "--base", "18446744072652718080"]).exits(0).json();
    assert_eq!(regions(&document)[0].1, 18_446_744_072_652_718_080);
    // What others hold is not taken; where the first would lie in any case, the others do so too.
    let other = ko(KERNEL, "exporter").display().to_string();
    let with = |more: &[&str]| {
        regions(&link(KERNEL, "hello", &[&["--json", "--with", &other], more].concat()).exits(0).json())
    };
    let own = with(&[]);
    assert_eq!(with(&["--base", &format!("{:#x}", own[0].1)]), own, "LAYOUT-56");
    let behind = with(&["--base", &format!("{:#x}", own[0].1 + 0x10_0000)]);
    assert!(behind.iter().all(|(_, base, _)| *base >= behind[0].1), "LAYOUT-56: {behind:x?}");
}

#[test]
fn region_puts_one_region_elsewhere_and_leaves_the_others() {
    let without = regions(&link(KERNEL, "hello", &["--json"]).exits(0).json());
    let document = link(KERNEL, "hello", &["--json", "--region", "data=0xffffffffd0000000"]).exits(0).json();
    for ((name, base, _), (_, old, _)) in regions(&document).into_iter().zip(without) {
        let want = if name == "data" { 0xffff_ffff_d000_0000 } else { old };
        assert_eq!(base, want, "{name}");
    }
}

#[test]
fn layout_54_and_61_the_percpu_area() {
    for kernel in AMD64 {
        let document = link(kernel, "percpu", &["--json"]).exits(0).json();
        let end = common::text(&fixtures(kernel).join("kallsyms"))
            .lines()
            .find_map(|l| l.strip_suffix(" A __per_cpu_end").map(|a| u64::from_str_radix(a, 16).unwrap()))
            .unwrap();
        let elf = common::Elf::new(common::read(&ko(kernel, "percpu")));
        let section = elf.section(".data..percpu");
        let align = elf.get(section, common::elf::Sh::Align);
        let at = hex(&document["percpu"]["addr"]);
        assert_eq!(at, end.next_multiple_of(align), "LAYOUT-54: {kernel}");
        assert_eq!(document["percpu"]["size"], elf.get(section, common::elf::Sh::Size), "{kernel}");
        let moved = link(kernel, "percpu", &["--json", "--percpu", "0x40000"]).exits(0).json();
        assert_eq!(hex(&moved["percpu"]["addr"]), 0x40000, "{kernel}");
        for (export, moved) in array(&document, "exports").iter().zip(array(&moved, "exports")) {
            let distance = hex(&moved["addr"]) - 0x40000;
            assert_eq!(hex(&export["addr"]) - at, distance, "LAYOUT-61: {kernel}: {}", export["name"]);
        }
    }
}

#[test]
fn map_lists_regions_sections_symbols_and_imports() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hello.map");
    let document = link(KERNEL, "hello", &["--json", "--map", path.to_str().unwrap()]).exits(0).json();
    let map = common::text(&path);
    for (name, base, _) in regions(&document) {
        assert!(
            map.lines().any(|l| l.contains(&format!("{base:#018x}")) && l.ends_with(&name)),
            "{name}:\n{map}"
        );
    }
    for section in array(&document, "sections").iter().filter(|s| !s["addr"].is_null()) {
        let (name, addr) = (section["name"].as_str().unwrap(), section["addr"].as_str().unwrap());
        assert!(map.lines().any(|l| l.contains(addr) && l.ends_with(name)), "{name}:\n{map}");
    }
    for import in array(&document, "imports") {
        let line = format!(
            "  {}  {}  (vmlinux)",
            import["addr"].as_str().unwrap(),
            import["name"].as_str().unwrap()
        );
        assert!(map.lines().any(|l| l == line), "{line}:\n{map}");
    }
    assert!(map.contains("  init_module  ("), "{map}");
}

#[test]
fn the_elf_output_is_at_final_addresses_with_nothing_left_to_relocate() {
    for kernel in AMD64 {
        for module in ["hello", "sections", "percpu", "patching", "params"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.elf");
            let document = link(kernel, module, &["--json", "-o", path.to_str().unwrap()]).exits(0).json();
            let bytes = common::read(&path);
            let elf = goblin::elf::Elf::parse(&bytes).unwrap_or_else(|e| panic!("{kernel}/{module}: {e}"));
            assert!(elf.shdr_relocs.is_empty(), "{kernel}/{module}: relocations are left");
            let name =
                |s: &goblin::elf::SectionHeader| elf.shdr_strtab.get_at(s.sh_name).unwrap_or("").to_owned();
            let at: BTreeMap<String, u64> =
                elf.section_headers.iter().map(|s| (name(s), s.sh_addr)).collect();
            for section in array(&document, "sections").iter().filter(|s| !s["addr"].is_null()) {
                let name = section["name"].as_str().unwrap();
                // The moved symbol tables are the kernel's, not the file's own.
                if ![".symtab", ".strtab"].contains(&name) {
                    assert_eq!(at.get(name), Some(&hex(&section["addr"])), "{kernel}/{module}: {name}");
                }
            }
            let symbol = |wanted: &str| {
                elf.syms.iter().find(|s| elf.strtab.get_at(s.st_name) == Some(wanted)).map(|s| s.st_value)
            };
            for import in array(&document, "imports") {
                let name = import["name"].as_str().unwrap();
                assert_eq!(symbol(name), Some(hex(&import["addr"])), "{kernel}/{module}: {name}");
            }
            assert_eq!(symbol("init_module"), Some(elf.entry), "{kernel}/{module}: entry");
        }
    }
}

#[test]
fn dec_7_compressed_modules_and_descriptions_link_the_same() {
    let plain = common::read(&ko(KERNEL, "hello"));
    let wanted = link(KERNEL, "hello", &["--json"]).exits(0).json();
    let dir = tempfile::tempdir().unwrap();
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let xz = |bytes: &[u8]| {
        // The kernel's own xz knows no other check (DEC-6).
        let stream = liblzma::stream::Stream::new_easy_encoder(6, liblzma::stream::Check::Crc32).unwrap();
        let mut out = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    // The name says nothing, the magic does.
    for (name, packed) in [
        ("hello.ko.gz", gzip(&plain)),
        ("hello.ko.xz", xz(&plain)),
        ("hello.ko.zst", zstd::stream::encode_all(&*plain, 3).unwrap()),
        ("hello.ko", xz(&plain)),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, packed).unwrap();
        let mut args = link_args(KERNEL, "hello");
        args[1] = path.display().to_string();
        args.push("--json".into());
        assert_eq!(kmodld(&args).exits(0).json(), wanted, "DEC-7: {name}");
    }
    let mut args = link_args(KERNEL, "hello");
    for arg in &mut args[2..] {
        // A SPEC is packed already.
        if Path::new(arg.as_str()).is_file() && !arg.ends_with(".spec") {
            let packed = dir.path().join(Path::new(arg.as_str()).file_name().unwrap());
            std::fs::write(&packed, gzip(&common::read(Path::new(arg.as_str())))).unwrap();
            *arg = packed.display().to_string();
        }
    }
    args.push("--json".into());
    assert_eq!(kmodld(&args).exits(0).json(), wanted, "compressed kallsyms, Module.symvers and .config");
}

#[test]
fn a_refused_module_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["elf", "raw"] {
        let out = dir.path().join(format);
        let map = dir.path().join("map");
        let args = ["--format", format, "-o", out.to_str().unwrap(), "--map", map.to_str().unwrap()];
        link(KERNEL, "proprietary_gpl", &args).exits(1);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_output_replaces_the_old_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.elf");
    std::fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
    link(KERNEL, "hello", &["-o", path.to_str().unwrap()]).exits(0);
    assert!(goblin::elf::Elf::parse(&common::read(&path)).is_ok());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn nobody_reading_stdout_is_no_error() {
    let mut args = link_args(KERNEL, "hello");
    args.push("--json".into());
    let mut child =
        common::program().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("stdout") && !stderr.contains("panicked"), "{stderr}");
}
