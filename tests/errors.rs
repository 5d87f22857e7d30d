//! Wrong usage and unusable input: exit codes 2 and 3, and messages that name the file and the reason.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{fixtures, kmodld, ko, link};

const KERNEL: &str = "6.12-amd64";

/// Files that are made for one test.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Self {
        Made(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// `link FILE` on the kernel, with one option's file replaced.
fn args_with(file: &Path, option: &str, value: &str) -> Vec<String> {
    let mut args = vec![String::from("link"), file.display().to_string()];
    args.extend(common::kernel_args(KERNEL));
    if let Some(at) = args.iter().position(|a| a == option) {
        args[at + 1] = value.to_owned();
    } else {
        args.extend([option.to_owned(), value.to_owned()]);
    }
    args
}

#[test]
fn modules_that_cannot_be_read_or_are_none() {
    let made = Made::new();
    let hello = common::read(&ko(KERNEL, "hello"));
    let cases = [
        (made.path("missing.ko"), "missing.ko: cannot read"),
        (made.0.path().display().to_string(), "cannot read"),
        (made.file("empty.ko", b""), "ENOEXEC"),
        (made.file("short.ko", &hello[..63]), "63 bytes are no ELF header"),
        (made.file("text.ko", &b"#!/bin/sh\n".repeat(20)), "Invalid ELF header magic: != "),
        (made.file("header.ko", &hello[..64]), "Invalid ELF section header overflow"),
        (made.file("bad.ko.xz", b"\xfd7zXZ\0 and then rubbish"), "bad.ko.xz: cannot decompress (xz)"),
        (made.file("bad.ko.gz", b"\x1f\x8b\x08 and then rubbish"), "bad.ko.gz: cannot decompress (gzip)"),
        (
            made.file("bad.ko.zst", b"\x28\xb5\x2f\xfd and then rubbish"),
            "bad.ko.zst: cannot decompress (zstd)",
        ),
    ];
    for (file, message) in cases {
        for command in ["link", "inspect"] {
            let mut args = vec![String::from(command), file.clone()];
            if command == "link" {
                args.extend(common::kernel_args(KERNEL));
            }
            let ran = kmodld(&args).exits(3);
            assert!(ran.stderr.contains(message), "{command} {file}: no {message:?} in\n{}", ran.stderr);
            assert!(!ran.stderr.contains('\x1b'), "colour without a terminal: {:?}", ran.stderr);
            assert_eq!(ran.stdout, "", "{command} {file}: stdout carries only results");
        }
    }
}

#[test]
fn descriptions_of_a_kernel_that_are_unusable() {
    let made = Made::new();
    let stub = b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
    let hidden = b"0000000000000000 T _text\n0000000000000000 T _stext\n";
    let good = "0x78d27962\tboot_cpu_data\tvmlinux\tEXPORT_SYMBOL\t\n";
    let cases = [
        ("--symtab", made.file("stub", stub), "stub"),
        ("--symtab", made.file("hidden", hidden), "kptr_restrict"),
        ("--symtab", made.file("rubbish", b"ffffffff81000000 T _text\nrubbish\n"), "line 2"),
        ("--symtab", made.file("nothing", b""), "no symbols"),
        ("--symtab", made.path("missing"), "cannot read"),
        ("--symvers", made.file("three", format!("{good}0x1\ta\tvmlinux\n").as_bytes()), "line 2"),
        (
            "--symvers",
            made.file("no_crc", format!("{good}{good}zz\ta\tvmlinux\tEXPORT_SYMBOL\t\n").as_bytes()),
            "line 3",
        ),
        ("--symvers", made.file("none", b"\n"), "none"),
        ("--symvers", made.path("missing"), "cannot read"),
        ("--config", made.path("missing"), "cannot read"),
        ("--with", made.path("missing.ko"), "missing.ko: cannot read"),
    ];
    for (option, file, message) in cases {
        let ran = kmodld(args_with(&ko(KERNEL, "hello"), option, &file)).exits(3);
        assert!(ran.stderr.contains(message), "{option} {file}: no {message:?} in\n{}", ran.stderr);
        assert!(ran.stderr.contains(&file), "{option}: the file is not named in\n{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let made = Made::new();
    let file = made.file("file", b"in the way");
    let below_file = format!("{file}/out");
    let no_folder = made.path("no/such/folder/out");
    for args in [
        &["-o", &below_file][..],
        &["-o", &no_folder],
        &["--format", "raw", "-o", &file],
        &["--format", "raw", "-o", &below_file],
        &["--map", &below_file],
        &["-o", made.0.path().to_str().unwrap()],
    ] {
        let ran = link(KERNEL, "hello", args).exits(3);
        assert!(ran.stderr.contains("cannot write"), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(common::read(&PathBuf::from(&file)), b"in the way");
    let left: Vec<_> = std::fs::read_dir(made.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["file"], "nothing half-written is left");
}

#[test]
fn wrong_usage() {
    let hello = ko(KERNEL, "hello").display().to_string();
    let kernel = common::kernel_args(KERNEL);
    let with = |more: &[&str]| {
        let mut args = vec![String::from("link"), hello.clone()];
        args.extend(kernel.iter().cloned().chain(more.iter().map(|s| String::from(*s))));
        args
    };
    let cases = [
        (vec![], "Usage"),
        (vec!["link".into()], "required"),
        (vec!["inspect".into()], "required"),
        (vec!["no-such-command".into()], "no-such-command"),
        (["link", &hello, "--kernel", "running", "--root", "/usr"].map(String::from).to_vec(), "--root"),
        (with(&["--no-such-option"]), "--no-such-option"),
        (with(&["--format", "coff"]), "coff"),
        (with(&["--stage", "never"]), "never"),
        (with(&["--base", "here"]), "number"),
        (with(&["--base", "0xffffffffc0000010"]), "page size"),
        (with(&["--region", "text"]), "NAME=ADDR"),
        (with(&["--region", "nowhere=0x1000"]), "no region nowhere"),
        (with(&["--region", "core=0xffffffffc0000000"]), "modules of this kernel have text, data"),
        (with(&["--region", "text=0xffffffffc0000001"]), "page size"),
        (
            with(&["--base", "0xffffffffc0000000", "--region", "text=0xffffffffc0000000"]),
            "cannot be used with",
        ),
        (with(&["--percpu", "x"]), "number"),
    ];
    for (args, message) in cases {
        let ran = kmodld(&args).exits(2);
        assert!(ran.stderr.contains(message), "{args:?}: no {message:?} in\n{}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn inputs_that_are_not_what_they_are_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let passwd = dir.path().join("passwd");
    std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    let file = |name| fixtures(KERNEL).join(name).display().to_string();
    let hello = ko(KERNEL, "hello").display().to_string();
    let symbols = ["--symtab".to_owned(), file("kallsyms"), "--symvers".to_owned(), file("Module.symvers")];
    let config = ["--config".to_owned(), passwd.display().to_string()];
    let args = [vec!["check".to_owned(), hello.clone()], symbols.to_vec(), config.to_vec()].concat();
    let ran = kmodld(args).exits(3);
    assert!(ran.stderr.contains("passwd: no kernel configuration (.config): line 1"), "{ran:?}");
    let out = dir.path().join("out").display().to_string();
    let link = |regions: &[&str]| {
        let mut args = vec!["link".to_owned(), hello.clone(), "-o".to_owned(), out.clone()];
        args.extend(common::kernel_args(KERNEL));
        args.extend(regions.iter().flat_map(|region| ["--region".to_owned(), (*region).to_owned()]));
        kmodld(args)
    };
    let ran = link(&["text=0xffffffffc0000000", "data=0xffffffffc0000000"]).exits(2);
    assert!(ran.stderr.contains("--region text: it overlaps with region data"), "{ran:?}");
    link(&["text=0xffffffffc0000000", "data=0xffffffffc0800000"]).exits(0);
}

#[test]
fn help_and_version() {
    let help = kmodld(["--help"]).exits(0);
    for word in ["inspect", "link", "Exit codes"] {
        assert!(help.stdout.contains(word), "{}", help.stdout);
    }
    assert!(kmodld(["--version"]).exits(0).stdout.starts_with("kmodld "));
    for option in
        ["--symtab", "--symvers", "--config", "--with", "--base", "--region", "--percpu", "--stage", "--map"]
    {
        assert!(kmodld(["link", "--help"]).exits(0).stdout.contains(option), "link --help: {option}");
    }
}

#[test]
fn inspect_goes_on_after_a_file_it_cannot_read() {
    let (hello, relocs) = (ko(KERNEL, "hello"), ko(KERNEL, "relocs"));
    let readme = fixtures("README.md");
    let files = [hello.as_path(), Path::new("/nonexistent/x.ko"), readme.as_path(), relocs.as_path()];
    let args = ["inspect", "--json"]
        .into_iter()
        .map(std::ffi::OsStr::new)
        .chain(files.iter().map(|p| p.as_os_str()));
    let ran = kmodld(args).exits(3);
    let modules: Vec<String> = ran
        .stdout
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["module"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(modules, ["hello", "relocs"]);
    assert!(ran.stderr.contains("/nonexistent/x.ko: cannot read"), "{}", ran.stderr);
    assert!(ran.stderr.contains("README.md"), "{}", ran.stderr);
}

#[test]
fn a_module_of_another_architecture_is_refused() {
    let arm64 = ko("6.12-arm64", "hello");
    let mut args = vec![String::from("link"), arm64.display().to_string()];
    args.extend(common::kernel_args(KERNEL));
    let ran = kmodld(&args);
    assert!(ran.code == 1 || ran.code == 3, "VAL-13: exit {}: {}", ran.code, ran.stderr);
    let line = "Invalid architecture in ELF header: 183";
    assert!(ran.stderr.contains(line), "VAL-13: no {line:?} in\n{}", ran.stderr);
}

/// What a hostile file calls itself does not get onto the terminal as control characters.
#[test]
fn names_of_a_hostile_file_do_not_drive_the_terminal() {
    let made = Made::new();
    let mut elf = common::Elf::new(common::read(&ko(KERNEL, "hello")));
    elf.replace(".modinfo", b"name=hello", b"name=\x1b[2Jo");
    let path = made.file("esc.ko", &elf.bytes);
    for args in [vec!["inspect", &path], vec!["inspect", "--json", &path]] {
        let ran = kmodld(&args);
        assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{args:?}: {:?}", ran.stdout);
    }
    let mut args = vec![String::from("link"), path];
    args.extend(common::kernel_args(KERNEL));
    let ran = kmodld(&args);
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{:?}", ran.stdout);
}

/// A name with line ends in it, of a file or in it, adds no line to what is said, and no name turns the text around.
#[test]
fn hostile_names_forge_no_lines() {
    const FORGED: &str = "forged.ko: loads";
    let made = Made::new();
    let mut elf = common::Elf::new(common::read(&ko(KERNEL, "hello")));
    elf.replace(".modinfo", b"name=hello\0", b"name=\nfor\n\0");
    let name = format!("a\u{202e}\n{FORGED}\n.ko");
    let path = made.file(&name, &elf.bytes);
    let kernel = common::kernel_args(KERNEL);
    let on_kernel = |command: &str, more: &[&str]| {
        let words = [command, &path].into_iter().chain(more.iter().copied()).map(String::from);
        words.chain(kernel.iter().cloned()).collect::<Vec<_>>()
    };
    let missing = format!("{path}{FORGED}");
    for args in [
        vec![String::from("inspect"), path.clone()],
        on_kernel("link", &[]),
        on_kernel("check", &[]),
        on_kernel("check", &[&missing]),
        on_kernel("check", &["--params", "x=\x1b[2J\nforged.ko: loads"]),
    ] {
        let ran = kmodld(&args);
        let lines = || ran.stdout.lines().chain(ran.stderr.lines());
        assert!(lines().any(|line| line.contains(r"a\u{202e}\nforged.ko: loads\n.ko")), "{args:?}: {ran:?}");
        assert!(!lines().any(|line| line.starts_with("for")), "{args:?}: {ran:?}");
        assert!(!lines().any(|line| line.contains(['\u{202e}', '\x1b'])), "{args:?}: {ran:?}");
    }
    // JSON tells the name as it is.
    let ran = kmodld(on_kernel("check", &["--jsonl"]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["file"], *path);
}
