//! A module whose `struct module` and modinfo give it different names: each is used where booted 6.1 and 6.12 used it
//! (VAL-51).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::sync::Arc;

use common::{Elf, kernel_args, kmodld, ko, library};
use serde_json::Value;

/// `module` with these names in modinfo (as long as the old one) and in `struct module`.
fn named(kernel: &str, module: &str, info: &str, own: &str) -> Elf {
    let mut elf = Elf::new(common::read(&ko(kernel, module)));
    assert_eq!(info.len(), module.len());
    elf.replace(".modinfo", format!("\0name={module}\0").as_bytes(), format!("\0name={info}\0").as_bytes());
    let at = elf.range(elf.section(".gnu.linkonce.this_module")).start + 0x18;
    elf.bytes[at..at + 56].fill(0);
    elf.bytes[at..at + own.len()].copy_from_slice(own.as_bytes());
    elf
}

fn check(kernel: &str, elf: &Elf, more: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.ko");
    std::fs::write(&path, &elf.bytes).unwrap();
    let mut args = vec![String::from("check"), String::from("--jsonl"), path.display().to_string()];
    args.extend(kernel_args(kernel));
    args.extend(more.iter().map(|s| String::from(*s)));
    kmodld(args).json()
}

fn log(v: &Value) -> Vec<&str> {
    v["dmesg"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn val_51_each_name_where_the_kernel_uses_it() {
    for kernel in common::KERNELS {
        let elf = named(kernel, "hello", "other", "hello");
        let v = check(kernel, &elf, &["--cmdline", "module_blacklist=hello"]);
        assert_eq!(v["verdict"], "loads", "VAL-70: {kernel}: the blacklist has modinfo's name: {v}");
        assert_eq!(log(&v)[0], "hello: loading out-of-tree module taints kernel.", "VAL-51: {kernel}");
        let v = check(kernel, &elf, &["--cmdline", "module_blacklist=other"]);
        assert_eq!(
            (&v["errno"], log(&v)),
            (&"EPERM".into(), vec!["Module other is blacklisted"]),
            "VAL-70: {kernel}"
        );

        let v = check(kernel, &named(kernel, "importer", "importex", "abc"), &[]);
        let lines = log(&v);
        assert!(
            v["errno"] == "ENOENT" && lines.contains(&"abc: Unknown symbol kmodld_add (err -2)"),
            "SYM-5: {kernel}: {v}"
        );
    }
}

#[test]
fn val_51_vermagic_and_versions_go_by_modinfo() {
    for kernel in common::KERNELS {
        let elf = named(kernel, "hello", "other", "abc");
        let mut on = common::kernel(kernel);
        Arc::make_mut(&mut on.description).vermagic = Some(b"6.0.0 SMP ".to_vec());
        let said = library::say(&library::loader_with(on, &[]), &elf.bytes);
        let line = said.dmesg().next().unwrap();
        assert!(line.starts_with("other: version magic '"), "VER-23: {kernel}: {line}");

        let mut elf = elf;
        // The CRC of module_layout is in the first record.
        let at = elf.range(elf.section("__versions")).start;
        elf.bytes[at] ^= 1;
        let symbol = elf.data(elf.section("__versions"))[8..].split(|b| *b == 0).next().unwrap().to_vec();
        let said = library::say(&library::loader_with(common::kernel(kernel), &[]), &elf.bytes);
        let line = format!("other: disagrees about version of symbol {}", String::from_utf8(symbol).unwrap());
        assert!(said.dmesg().any(|l| l == line), "VER-6: {kernel}: {line}: {said:?}");
    }
}

#[test]
fn val_51_a_module_is_there_under_its_own_name() {
    let kernel = "6.12-amd64";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("first.ko");
    std::fs::write(&path, &named(kernel, "hello", "other", "hello").bytes).unwrap();
    let with = path.display().to_string();
    for (own, errno) in [("hello", "EEXIST"), ("other", "loads")] {
        let v = check(kernel, &named(kernel, "hello", "other", own), &["--with", &with]);
        assert_eq!(v["errno"].as_str().unwrap_or("loads"), errno, "LIFE-3: {own}: {v}");
    }
}

/// A name that fills the array has no end there.
#[test]
fn val_51_a_name_of_56_bytes() {
    let v = check("6.12-amd64", &named("6.12-amd64", "hello", "other", &"x".repeat(56)), &[]);
    assert_eq!(v["module"], "x".repeat(56), "VAL-51: {v}");
}
