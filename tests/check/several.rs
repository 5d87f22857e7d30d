//! Several files in one run, and files that are no modules.

use serde_json::{Value, json};

use crate::asked::*;
use crate::common::{self, *};

#[test]
fn one_document_or_one_a_line() {
    let (hello, refused) = (ko(KERNEL, "hello"), ko(KERNEL, "proprietary_gpl"));
    let refused = refused.display().to_string();
    let array = check(KERNEL, &hello, &[&refused, "--json", "--no-deps"]).exits(1);
    let lines = check(KERNEL, &hello, &[&refused, "--jsonl", "--no-deps"]).exits(1);
    let lines: Vec<Value> = lines.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(array.json(), json!(lines), "--json is an array of what --jsonl prints");
    assert_eq!(array.stderr, "", "the findings are in the document");
    let text = check(KERNEL, &hello, &[&refused, "--no-deps"]).exits(1);
    let want = format!(
        "{}: loads; init not run, taints OE\n{refused}: refused with ENOENT, taints POE\n\
        2 modules on {}: 1 loads, 1 refused\n",
        hello.display(),
        common::release(KERNEL)
    );
    assert!(text.stdout.starts_with(&want), "stdout has the verdicts and the summary: {}", text.stdout);
    for words in
        ["warning[LIC-2]", "error[SYM-5]", "kernel: proprietary_gpl: Unknown symbol ktime_get (err -2)"]
    {
        assert!(text.stderr.contains(words), "no {words:?} in\n{}", text.stderr);
    }
    assert_eq!(text.stderr.matches("the kernel stops here").count(), 1);
    assert!(check(KERNEL, &hello, &["--json", "--jsonl"]).exits(2).stderr.contains("--jsonl"));
}

/// All files are one set, in which the importer finds what the exporter has; they do not taint the kernel for each
/// other.
#[test]
fn several_files() {
    let files = ["exporter", "importer", "hello"].map(|m| ko(KERNEL, m).display().to_string());
    let missing = String::from("/nonexistent/x.ko");
    let more: Vec<&str> = [&missing, &files[1], &files[2]].into_iter().map(String::as_str).collect();
    let ran = check(KERNEL, &ko(KERNEL, "exporter"), &[&more[..], &["--jsonl"]].concat()).exits(3);
    assert!(ran.stderr.contains("/nonexistent/x.ko: cannot read"), "{}", ran.stderr);
    let got: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (unreadable, got): (Vec<Value>, Vec<Value>) =
        got.into_iter().partition(|v| v["verdict"] == "unreadable");
    assert_eq!(unreadable.iter().map(|v| v["file"].clone()).collect::<Vec<_>>(), [json!(missing)]);
    let of = |v: &Value| (v["module"].clone(), v["errno"].clone(), v["dmesg"].clone());
    let want = ["exporter", "importer", "hello"]
        .map(|m| (json!(m), Value::Null, json!([out_of_tree(m), unsigned(m)])));
    assert_eq!(got.iter().map(of).collect::<Vec<_>>(), want, "SET-1, SET-6");
    assert_eq!(verdict(KERNEL, "importer", &[], &[])["errno"], "ENOENT", "SYM-5: alone");
    let tainted = format!("{}", 1 << 12 | 1 << 13);
    let ran = check(KERNEL, &ko(KERNEL, "importer"), &[&files[0], "--jsonl", "--tainted", &tainted]).exits(0);
    assert!(!ran.stdout.contains("taints kernel"), "SET-6: said before: {}", ran.stdout);
}

#[test]
fn files_that_are_no_modules_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hello = common::read(&ko(KERNEL, "hello"));
    let cases: [(&str, &[u8], &[&str]); 3] = [
        ("empty.ko", b"", &[]),
        ("short.ko", &hello[..63], &[]),
        ("header.ko", &hello[..64], &["Invalid ELF section header overflow"]),
    ];
    for (name, bytes, lines) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let v = parsed(check(KERNEL, &path, &["--jsonl"]));
        assert_eq!((&v["verdict"], &v["errno"]), (&json!("refused"), &json!("ENOEXEC")), "{name}: {v}");
        assert_eq!(v["dmesg"], json!(lines), "{name}: {v}");
        assert_eq!((&v["module"], &v["taints"]), (&Value::Null, &json!("")), "{name}");
    }
}

#[test]
fn a_module_of_with_that_would_be_refused() {
    let with = ko(KERNEL, "importer").display().to_string();
    let ran = check(KERNEL, &ko(KERNEL, "hello"), &["--with", &with]).exits(1);
    assert!(ran.stderr.contains("importer: Unknown symbol kmodld_add (err -2)"), "SYM-5: {}", ran.stderr);
    assert!(ran.stderr.contains(&format!("{with}: the kernel would refuse this module with ENOENT")));
    let ran = check(KERNEL, &ko(KERNEL, "hello"), &["--with", "/nonexistent/x.ko"]).exits(3);
    assert!(ran.stderr.contains("/nonexistent/x.ko: cannot read"), "{}", ran.stderr);
}
