//! `struct module` of a kernel whose image does not tell it, by the modules of its tree (VAL-48, RELOC-GEN-15).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::elf::{Elf, Sh};
use common::{fixtures, ko, read};
use kernel::{Fact, KernelDescription, Known};
use kmodld::Loader;
use kmodld::kernel_source::KernelSource;

const KERNEL: &str = "6.12-amd64";

/// A tree of the texts of a fixture kernel with these modules: where each is below its folder, and its bytes.
fn tree(dir: &Path, modules: &[(&str, &[u8])]) -> PathBuf {
    let release = common::release(KERNEL);
    let put = |path: String, bytes: &[u8]| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put(format!("boot/System.map-{release}"), &read(&fixtures(KERNEL).join("kallsyms")));
    put(format!("boot/config-{release}"), &read(&fixtures(KERNEL).join("config")));
    put(
        format!("usr/src/linux-headers-{release}/Module.symvers"),
        &read(&fixtures(KERNEL).join("Module.symvers")),
    );
    std::fs::create_dir_all(dir.join(format!("lib/modules/{release}"))).unwrap();
    modules.iter().for_each(|(name, bytes)| put(format!("lib/modules/{release}/{name}"), bytes));
    dir.to_owned()
}

fn described(modules: &[(&str, &[u8])]) -> KernelDescription {
    let dir = tempfile::tempdir().unwrap();
    let source = KernelSource { kernel: Some(tree(dir.path(), modules)), ..KernelSource::default() };
    source.describe(|| None, "").unwrap()
}

/// Size of `struct module`, and where init and exit are.
fn known(kernel: &KernelDescription) -> Option<(u64, (u64, u64))> {
    kernel.config.struct_module_size.zip(kernel.config.struct_module_init_exit)
}

/// A fixture whose bytes are changed.
fn changed(name: &str, edit: impl FnOnce(&mut Elf)) -> Vec<u8> {
    let mut elf = Elf::new(read(&ko(KERNEL, name)));
    edit(&mut elf);
    elf.bytes
}

/// A larger struct module, which begins where it did.
fn larger(elf: &mut Elf) {
    let this = elf.section(".gnu.linkonce.this_module");
    let bytes = [elf.data(this).to_vec(), vec![0; 64]].concat();
    let at = elf.bytes.len().next_multiple_of(64);
    elf.bytes.resize(at, 0);
    elf.bytes.extend(&bytes);
    elf.set(this, Sh::Offset, at as u64).set(this, Sh::Size, bytes.len() as u64);
}

/// Replaces a text by one of the same length.
fn other_text(elf: &mut Elf, text: &[u8], by: &[u8]) {
    let at = elf.bytes.windows(text.len()).position(|window| window == text).unwrap();
    elf.bytes[at..at + by.len()].copy_from_slice(by);
}

#[test]
fn val_48_modules_of_the_tree_tell() {
    let [hello, exporter, params] = ["hello", "exporter", "params"].map(|name| read(&ko(KERNEL, name)));
    let want = known(&common::kernel(KERNEL));
    assert!(want.is_some());
    let kernel = described(&[
        ("kernel/fs/hello.ko", &hello),
        ("kernel/exporter.ko", &exporter),
        ("kernel/params.ko", &params),
    ]);
    assert_eq!(known(&kernel), want, "VAL-48");
    let by = kernel.known(Fact::StructModule);
    assert!(
        matches!(by, Some(Known::Given(file)) if file.ends_with("/kernel/exporter.ko")),
        "VAL-48: {by:?}"
    );
    let how = kernel.found.iter().find(|found| found.what == "struct module").expect("it is said");
    assert!(how.how.starts_with("as 3 of its own modules have it"), "VAL-48: {}", how.how);

    // It is used: another size is refused, by the same kernel without modules that is not judged.
    let loader = Loader::booted(kernel);
    let said = common::library::say(&loader, &changed("hello", larger));
    assert!(said.iter().any(|f| f.code == "VAL-48" && f.severity.refuses()), "VAL-48: {said:?}");
    let said = common::library::say(&loader, &hello);
    let open: Vec<_> = said.open_rules().iter().map(|rule| rule.code).collect();
    assert!(!open.contains(&"VAL-48") && !open.contains(&"RELOC-GEN-15"), "VAL-48: {open:?}");
    let without = Loader::booted(described(&[]));
    let said = common::library::say(&without, &hello);
    assert!(said.open_rules().iter().any(|rule| rule.code == "VAL-48"), "VAL-48: without modules");
}

#[test]
fn val_48_only_modules_of_this_very_kernel_count() {
    let hello = read(&ko(KERNEL, "hello"));
    let release = common::release(KERNEL);
    let vermagic = format!("vermagic={release}");
    let other = format!("vermagic=9{}", &release[1..]);
    let of_other = changed("hello", |elf| other_text(elf, vermagic.as_bytes(), other.as_bytes()));
    let other_crc = changed("hello", |elf| {
        let versions = elf.section("__versions");
        let at = elf.get(versions, Sh::Offset) as usize;
        let layout = elf.bytes[at..].windows(13).position(|name| name == b"module_layout").unwrap();
        elf.bytes[at + layout - 8] ^= 1;
    });
    let larger = changed("exporter", larger);
    for (what, modules) in [
        ("another release", vec![("kernel/hello.ko", &*of_other)]),
        ("another module_layout", vec![("kernel/hello.ko", &*other_crc)]),
        ("not of the kernel's build", vec![("updates/dkms/hello.ko", &*hello)]),
        ("two that differ", vec![("kernel/a/hello.ko", &*hello), ("kernel/exporter.ko", &*larger)]),
        ("no module", vec![("kernel/hello.ko", &b"no module"[..])]),
    ] {
        assert_eq!(known(&described(&modules)), None, "VAL-48: {what}");
    }
    assert_eq!(
        known(&described(&[("kernel/hello.ko", &hello), ("kernel/a.ko", &of_other)])),
        known(&common::kernel(KERNEL)),
        "VAL-48: one is enough"
    );
}
