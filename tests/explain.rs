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
fn without_a_code_families_are_listed_and_with_one_its_codes() {
    let list = kmodld(["explain"]).exits(0).stdout;
    let mut codes = 0;
    for family in kmodld::explain::families() {
        let line = list.lines().find(|l| l.trim_start().split(' ').next() == Some(family.name));
        assert!(line.is_some_and(|l| l.contains(family.title)), "{}: {list}", family.name);
        let of_family = kmodld(["explain", &family.name.to_lowercase()]).exits(0).stdout;
        let listed: Vec<&str> =
            of_family.lines().skip(2).map(|l| l.trim_start().split(' ').next().unwrap()).collect();
        assert_eq!(listed.len(), family.codes, "{of_family}");
        codes += listed.len();
        for code in listed {
            let one = kmodld(["explain", code]).exits(0).stdout;
            assert!(one.starts_with(&format!("{code}: ")), "{code}: {one}");
            for item in ["- Kernel: ", "- Example: ", "- Mended: ", "- Fix: ", "- See also: "] {
                assert!(one.contains(&format!("\n{item}")), "{code} has no {item}: {one}");
            }
        }
    }
    assert_eq!(codes, kmodld::explain::all().count());
}

/// Every rule that the project's documents name is explained, whether it is a finding or not.
#[test]
fn rules_that_documents_cite_are_explained() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let families: BTreeSet<&str> = kmodld::explain::families().map(|f| f.name).collect();
    let mut cited = BTreeSet::new();
    for folder in [root.to_owned(), root.join("docs"), root.join("docs/findings")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "md") {
                let text = std::fs::read_to_string(path).unwrap();
                for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
                    let is_rule = |(family, number): (&str, &str)| {
                        families.contains(family) && number.starts_with(|c: char| c.is_ascii_digit())
                    };
                    if word.rsplit_once('-').is_some_and(is_rule) {
                        cited.insert(word.to_owned());
                    }
                }
            }
        }
    }
    assert!(cited.contains("FIN-9") && cited.len() > 100, "{cited:?}");
    // One that does not exist is the example of a test.
    for rule in cited {
        let found = kmodld::explain::explain(&rule).is_some() || kmodld::explain::spec::rule(&rule).is_some();
        assert!(found, "{rule} is cited and not explained");
    }
    let fin_9 = kmodld(["explain", "FIN-9"]).exits(0).stdout;
    assert!(fin_9.contains("heapsort") && fin_9.contains("docs/spec/06-finalize.md"), "{fin_9}");
}

#[test]
fn an_errno_or_a_line_of_the_log_leads_to_codes() {
    let of_errno = kmodld(["explain", "enoexec"]).exits(0).stdout;
    assert!(of_errno.contains("  VAL-13 ") && !of_errno.contains("  SYM-5 "), "{of_errno}");
    assert_eq!(kmodld(["explain", "-8"]).exits(0).stdout, of_errno);
    let line = "[   12.345678] foo: disagrees about version of symbol bar";
    let page = kmodld(["explain", line]).exits(0).stdout;
    assert!(page.starts_with("VER-6: "), "{page}");
    let unquoted: Vec<&str> = ["explain"].into_iter().chain(line.split_whitespace()).collect();
    assert_eq!(kmodld(unquoted).exits(0).stdout, page);
    let ran = kmodld(["explain", "the weather is fine"]).exits(2);
    assert!(ran.stderr.contains("looks like this: the weather is fine"), "{}", ran.stderr);
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
    let found = kmodld(["explain", "Namespace"]).exits(0).stdout;
    assert!(found.starts_with("pages that speak of Namespace\n") && found.contains("  NS-2 "), "{found}");
    let ran = kmodld(["explain", "nonsense"]).exits(2);
    assert!(ran.stderr.contains("`kmodld explain` lists the families"), "{}", ran.stderr);
}
