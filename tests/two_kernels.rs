//! Descriptions that are not of one kernel are an error, through the program.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::{fixtures, kmodld, ko};

/// `check hello` of 6.12 with these files, of the fixtures named.
fn check(symtab: &str, symvers: &str, config: &str) -> common::Ran {
    let file = |kernel: &str, name: &str| fixtures(kernel).join(name).display().to_string();
    kmodld([
        String::from("check"),
        ko("6.12-amd64", "hello").display().to_string(),
        String::from("--symtab"),
        file(symtab, "kallsyms"),
        String::from("--symvers"),
        file(symvers, "Module.symvers"),
        String::from("--config"),
        file(config, "config"),
    ])
}

#[test]
fn every_piece_must_be_of_one_kernel() {
    let (old, new) = ("6.1-amd64", "6.12-amd64");
    check(new, new, new).exits(4);
    let ran = check(new, old, new).exits(3);
    assert!(ran.stderr.contains("exports of Module.symvers are not in the symbol table"), "{}", ran.stderr);
    let ran = check(old, new, new).exits(3);
    assert!(ran.stderr.contains("they are two kernels"), "{}", ran.stderr);
}

#[test]
fn a_tree_and_a_configuration_of_another_release() {
    let release = common::release("6.12-amd64");
    let dir = tempfile::tempdir().unwrap();
    let build = dir.path().join("lib/modules").join(&release).join("build");
    std::fs::create_dir_all(&build).unwrap();
    std::fs::copy(fixtures("6.12-amd64/Module.symvers"), build.join("Module.symvers")).unwrap();
    let root = dir.path().display().to_string();
    for (kernel, code) in [("6.12-amd64", 4), ("6.1-amd64", 3)] {
        let config = fixtures(kernel).join("config").display().to_string();
        let hello = ko("6.12-amd64", "hello").display().to_string();
        let ran = kmodld(["check", &hello, "--kernel", &root, "--config", &config]).exits(code);
        assert_eq!(ran.stderr.contains("the configuration is of 6.1.192"), code == 3, "{}", ran.stderr);
    }
}
