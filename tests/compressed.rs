//! Compressed modules: what kmod 31 and later leaves to a kernel that does not read it (DEC-1 to DEC-7).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;

use common::{Ran, kernel_args, kmodld, ko};
use liblzma::stream::{Check, Stream};
use serde_json::Value;

const KERNEL: &str = "6.12-amd64";

/// Compresses a fixture to `path`.
fn pack(module: &str, path: &Path, check: Check) {
    let file = common::read(&ko(KERNEL, module));
    let stream = Stream::new_easy_encoder(1, check).unwrap();
    let mut packed = Vec::new();
    let mut encoder = liblzma::read::XzEncoder::new_stream(&*file, stream);
    std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
    std::fs::write(path, packed).unwrap();
}

/// Runs a command on a fixture kernel.
fn run(kernel: &str, command: &str, args: &[&str]) -> Ran {
    let own = kernel_args(kernel);
    kmodld([command].into_iter().chain(own.iter().map(String::as_str)).chain(args.iter().copied()))
}

/// Is DEC-6 among these findings?
fn told(findings: &Value) -> bool {
    findings.as_array().unwrap().iter().any(|f| f["code"] == "DEC-6" && f["errno"].is_null())
}

#[test]
fn dec_6_an_xz_file_with_another_check() {
    let dir = tempfile::tempdir().unwrap();
    for (check, want) in [(Check::Crc32, false), (Check::Crc64, true), (Check::Sha256, true)] {
        let (path, needed) = (dir.path().join("importer.ko.xz"), dir.path().join("exporter.ko.xz"));
        pack("importer", &path, check);
        pack("exporter", &needed, check);
        let exporter = ko(KERNEL, "exporter").display().to_string();
        let (path, needed) = (path.display().to_string(), needed.display().to_string());

        let ran = run(KERNEL, "check", &[&path, "--with", &exporter, "--jsonl"]).exits(0);
        let v = ran.json();
        assert_eq!(v["verdict"], "loads", "DEC-7: kmod before 31: {v}");
        assert_eq!(told(&v["findings"]), want, "DEC-6: check: {v}");
        let text = run(KERNEL, "check", &[&path, "--with", &exporter]).exits(0);
        assert_eq!(text.stdout.contains("with kmod 31 and later see DEC-6"), want, "DEC-6: check: {text:?}");
        // This kernel does not decompress.
        let own = run("6.1-amd64", "check", &[&path, "--jsonl"]);
        assert!(!own.stdout.contains("DEC-"), "DEC-1: {own:?}");

        let link = run(KERNEL, "link", &[&path, "--with", &exporter, "--json"]).exits(0);
        assert_eq!(told(&link.json()["findings"]), want, "DEC-6: link: {link:?}");

        let steps = [format!("insmod {exporter}"), format!("insmod {path}")];
        let simulated = run(KERNEL, "simulate", &["--json", &steps[0], &steps[1]]).exits(0);
        let document = simulated.json();
        assert_eq!(document["steps"][1]["result"], "done", "DEC-7: {document}");
        assert_eq!(told(&document["steps"][1]["findings"]), want, "DEC-6: simulate: {document}");
        assert!(!told(&document["steps"][0]["findings"]), "DEC-6: simulate: no such file: {document}");

        for command in ["check", "link"] {
            let with = run(KERNEL, command, &[&path, "--with", &needed]).exits(0);
            let of_needed = with.stderr.lines().any(|line| line.contains("DEC-6") && line.contains(&needed));
            assert_eq!(of_needed, want, "DEC-6: --with of {command}: {with:?}");
        }
    }
}
