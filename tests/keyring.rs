//! `--keyring`: a module signed by a key of one's own (SIG-8 to SIG-12), through the program.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;

use common::{KERNELS, Ran, fixtures, kernel_args, kmodld, ko};
use serde_json::Value;

fn ours() -> String {
    fixtures("signing/kmodld-fixtures.der").display().to_string()
}

fn others() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/another-key.pem").display().to_string()
}

fn run(kernel: &str, file: &Path, more: &[&str]) -> Ran {
    let mut args = vec![String::from("check"), String::from("--jsonl"), file.display().to_string()];
    args.extend(kernel_args(kernel));
    args.extend(more.iter().map(|s| String::from(*s)));
    kmodld(args)
}

fn finding<'v>(verdict: &'v Value, code: &str) -> &'v Value {
    let found = verdict["findings"].as_array().unwrap().iter().find(|f| f["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {verdict}"))
}

#[test]
fn sig_8_to_12_three_answers() {
    for kernel in KERNELS {
        let file = ko(kernel, "hello_signed");
        let v = run(kernel, &file, &["--keyring", &ours()]).exits(0).json();
        assert_eq!(v["taints"], "O", "SIG-8: {kernel}: a key of --keyring is trusted: {v}");
        let both = ["--keyring", &others(), "--keyring", &ours()];
        assert_eq!(run(kernel, &file, &both).exits(0).json()["taints"], "O", "SIG-8: {kernel}: repeatable");

        let v = run(kernel, &file, &["--keyring", &others()]).exits(0).json();
        assert_eq!(v["taints"], "OE", "SIG-12: {kernel}: an unknown key only taints");
        let unknown = finding(&v, "SIG-12");
        let why = unknown["explanation"].as_str().unwrap();
        for part in ["unknown key", ", key ", "sha256", "1 of --keyring"] {
            let found = why.contains(part);
            assert!(found, "SIG-12: {kernel}: {part:?} is not in {why:?}");
        }
        assert!(unknown["hint"].as_str().unwrap().contains("mokutil --import"), "{unknown}");
        let enforced = ["--keyring", &others(), "--cmdline", "module.sig_enforce=1"];
        let v = run(kernel, &file, &enforced).exits(1).json();
        assert_eq!(v["dmesg"][0], "Loading of module with unavailable key is rejected", "SIG-11: {kernel}");
        assert!(finding(&v, "SIG-11")["explanation"].as_str().unwrap().contains("unknown key"), "{v}");

        let v = run(kernel, &ko(kernel, "hello"), &["--keyring", &ours()]).exits(0).json();
        assert_eq!(v["taints"], "OE", "SIG-12: {kernel}: not signed");
        assert!(finding(&v, "SIG-12")["explanation"].as_str().unwrap().contains("is not signed"), "{v}");

        let dir = tempfile::tempdir().unwrap();
        let changed = dir.path().join("changed.ko");
        let mut bytes = common::read(&file);
        bytes[9] ^= 1;
        std::fs::write(&changed, bytes).unwrap();
        let v = run(kernel, &changed, &["--keyring", &ours()]).exits(1).json();
        assert_eq!(v["errno"], "EKEYREJECTED", "SIG-10: {kernel}: {v}");
        let why = finding(&v, "SIG-10")["explanation"].as_str().unwrap();
        assert!(why.starts_with("bad signature") && why.contains("sha256"), "SIG-10: {kernel}: {why}");
    }
}

#[test]
fn sig_8_files_that_are_no_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nonsense.der");
    for bytes in [&b""[..], b"nonsense", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"] {
        std::fs::write(&path, bytes).unwrap();
        let keyring = path.display().to_string();
        let ran = run("6.12-amd64", &ko("6.12-amd64", "hello"), &["--keyring", &keyring]).exits(3);
        assert!(ran.stderr.contains("nonsense.der"), "{}", ran.stderr);
    }
}
