//! `kmodld explain`, through the program.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeSet;

use common::kmodld;

#[test]
fn a_code_is_explained_however_it_is_written() {
    let shown = kmodld(["explain", "VER-6"]).exits(0);
    assert!(shown.stdout.starts_with("VER-6: "), "{}", shown.stdout);
    for part in ["check_version", "kernel/module/version.c", "disagrees about version", "- Fix: "] {
        assert!(shown.stdout.contains(part), "{part} is not in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("VER-7"), "one section only: {}", shown.stdout);
    assert_eq!(shown.stderr, "");
    for written in ["ver-6", "Ver6"] {
        assert_eq!(kmodld(["explain", written]).exits(0).stdout, shown.stdout, "{written}");
    }
}

#[test]
fn without_a_code_all_are_listed() {
    let list = kmodld(["explain"]).exits(0).stdout;
    let codes: Vec<&str> = list.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(codes.len(), kmodld::explain::all().count());
    for code in codes {
        let one = kmodld(["explain", code]).exits(0).stdout;
        assert!(one.starts_with(&format!("{code}: ")), "{code}: {one}");
    }
}

/// No file of texts is left out, and no family stands in another's file.
#[test]
fn every_family_has_its_file_and_is_listed() {
    let listed: BTreeSet<String> =
        kmodld::explain::all().map(|e| e.code.rsplit_once('-').unwrap().0.to_owned()).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings");
    let mut files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".md", ""))
        .collect();
    assert!(files.remove("README"));
    assert_eq!(listed, files);
}

#[test]
fn an_unknown_code_leads_to_similar_ones() {
    let ran = kmodld(["explain", "ver-66"]).exits(2);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("ver-66") && ran.stderr.contains("VER-6"), "{}", ran.stderr);
    let ran = kmodld(["explain", "nonsense"]).exits(2);
    assert!(ran.stderr.contains("`kmodld explain` lists all codes"), "{}", ran.stderr);
}
