//! `kmodld run` on real images: those of the trees in `KMODLD_KERNELS`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{fixtures, program};
use serde_json::Value;

/// Fixtures, and how the releases begin that they are for.
const KERNELS: [(&str, &str); 3] = [("6.12-amd64", "6.12."), ("6.1-amd64", "6.1."), ("6.12-arm64", "6.12.")];

/// The trees that are there, with the fixtures for them.
fn trees() -> Vec<(PathBuf, PathBuf)> {
    let Some(folder) = std::env::var_os("KMODLD_KERNELS") else {
        eprintln!("skipped: KMODLD_KERNELS names no folder of kernels");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (of, release) in KERNELS {
        let arch = of.split_once('-').unwrap().1;
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut trees: Vec<PathBuf> = entries
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with(release) && name.ends_with(&format!("-{arch}"))
            })
            .collect();
        trees.sort();
        match trees.pop() {
            Some(tree) => found.push((tree, fixtures(of))),
            None => eprintln!("skipped: no kernel {release}* for {of} in {}", Path::new(&folder).display()),
        }
    }
    found
}

/// The document of a run, and its exit code.
fn run(tree: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = program()
        .arg("run")
        .args(arguments)
        .args(["--json", "--no-cache", "--kernel"])
        .arg(tree)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (document, output.status.code().unwrap())
}

fn dmesg(document: &Value) -> Vec<&str> {
    document["dmesg"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect()
}

#[test]
fn hello_says_what_it_says() {
    for (tree, fixtures) in trees() {
        let file = fixtures.join("hello.ko");
        let (document, code) = run(&tree, &[file.to_str().unwrap()]);
        assert_eq!(code, 0, "{document:#}");
        assert_eq!(document["boot"], serde_json::json!({}), "no function of the boot stops");
        assert_eq!(document["init"]["result"], 0);
        assert_eq!(document["exit"]["result"], 0);
        assert_eq!(
            dmesg(&document),
            [
                "hello: loading out-of-tree module taints kernel.",
                "hello: module verification failed: signature and/or required key missing - tainting kernel",
                "hello: init",
                "hello: exit",
            ]
        );
        assert_eq!(document["left_behind"]["devices"], serde_json::json!([]));
    }
}

#[test]
fn a_character_device_is_registered_served_and_removed() {
    for (tree, fixtures) in trees() {
        let file = fixtures.join("chardev.ko");
        let actions =
            ["open /dev/kmodld", "rmmod chardev", "close 0", "cat /dev/kmodld", "cat /no/such/file"];
        let mut arguments = vec![file.to_str().unwrap()];
        actions.iter().for_each(|action| arguments.extend(["-e", action]));
        let (document, code) = run(&tree, &arguments);
        assert_eq!(code, 0, "{document:#}");
        let device = &document["devices"][0];
        assert_eq!(device["name"], "kmodld");
        assert_eq!(device["fops"]["read"], "chardev_read [chardev]");
        let errno = |number: usize| document["actions"][number]["errno"].as_str();
        // Process 1 has no other files.
        assert_eq!(document["actions"][0]["result"], 0);
        // An open file holds the module.
        assert_eq!(errno(1), Some("EWOULDBLOCK"), "{document:#}");
        assert_eq!((errno(2), errno(3)), (None, None));
        assert_eq!(document["actions"][3]["output"], "kmodld\n");
        assert_eq!(errno(4), Some("ENOENT"));
        assert_eq!(document["exit"]["result"], 0);
        assert_eq!(document["left_behind"]["devices"], serde_json::json!([]));
        assert_eq!(document["left_behind"]["modules"], serde_json::json!([]));
    }
}

#[test]
fn a_module_of_another_kernel_is_refused_by_the_kernel_itself() {
    let trees = trees();
    let [(tree, _), (_, fixtures), ..] = trees.as_slice() else {
        eprintln!("skipped: that takes two kernels");
        return;
    };
    let file = fixtures.join("hello.ko");
    let (document, code) = run(tree, &["--load-only", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert_eq!(document["init"]["errno"], "ENOEXEC", "{document:#}");
    assert!(document["exit"].is_null());
}

/// Verdicts of `check`, by the module's name.
fn judged(tree: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = program()
        .args(["check", "--jsonl", "--no-cache", "--no-deps", "--each", "--cmdline", "nokaslr", "--kernel"])
        .arg(tree)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_kernels_own_code_says_what_the_rules_say() {
    for (tree, fixtures) in trees() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixtures.join("hello.ko")).unwrap();
        // The name in struct module; half a file; a file of which one byte is another.
        let name = [&b"hello"[..], &[0; 51]].concat();
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        let mut renamed = bytes.clone();
        renamed[at..at + 8].copy_from_slice(b"vmlinux\0");
        let broken = [("renamed", &renamed[..]), ("half", &bytes[..bytes.len() / 2]), ("none", b"no module")];
        let mut files = Vec::new();
        for (name, bytes) in broken {
            files.push(dir.path().join(format!("{name}.ko")));
            std::fs::write(files.last().unwrap(), bytes).unwrap();
        }
        files.extend(
            ["hello", "params", "sections", "importer"].map(|name| fixtures.join(format!("{name}.ko"))),
        );
        let mut arguments: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        arguments.extend(["--judge=both", "-j", "2"]);
        let both = judged(&tree, &arguments);
        assert_eq!(both.len(), files.len());
        for verdict in &both {
            let own = &verdict["by_kernel"];
            assert_eq!(own["differs"], serde_json::json!([]), "LIFE-58: {verdict:#}");
            assert_eq!(own["verdict"], verdict["verdict"], "{verdict:#}");
        }
        let errno: Vec<&Value> = both.iter().map(|verdict| &verdict["by_kernel"]["errno"]).collect();
        let want = ["EINVAL", "ENOEXEC", "ENOEXEC"].map(Value::from);
        assert_eq!(errno[..3], [&want[0], &want[1], &want[2]]);
        assert_eq!(both[6]["by_kernel"]["errno"], "ENOENT", "importer, of which nothing is loaded before");

        // After what it needs; and without a word of the rules.
        let exporter = fixtures.join("exporter.ko");
        let with = ["--with", exporter.to_str().unwrap(), "--judge=kernel", files[6].to_str().unwrap()];
        let alone = judged(&tree, &with);
        assert_eq!((&alone[0]["verdict"], &alone[0]["findings"]), (&"loads".into(), &serde_json::json!([])));
        assert_eq!(alone[0]["taints"], "OE");
        // What the machine is not told of.
        let signed = judged(&tree, &[files[3].to_str().unwrap(), "--judge=kernel", "--tainted", "1"]);
        assert_eq!(signed[0]["verdict"], "undecided");
    }
}
