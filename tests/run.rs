//! `kmodld run` on real images: those of the trees in `KMODLD_KERNELS`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{fixtures, program};
use serde_json::Value;

/// Fixtures, and how the releases begin that they are for.
const KERNELS: [(&str, &str); 2] = [("6.12-amd64", "6.12."), ("6.1-amd64", "6.1.")];

/// The trees that are there, with the fixtures for them.
fn trees() -> Vec<(PathBuf, PathBuf)> {
    let Some(folder) = std::env::var_os("KMODLD_KERNELS") else {
        eprintln!("skipped: KMODLD_KERNELS names no folder of kernels");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (of, release) in KERNELS {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut trees: Vec<PathBuf> = entries
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with(release) && name.ends_with("-amd64")
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
    let [(tree, _), (_, fixtures)] = trees.as_slice() else {
        eprintln!("skipped: that takes two kernels");
        return;
    };
    let file = fixtures.join("hello.ko");
    let (document, code) = run(tree, &["--load-only", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert_eq!(document["init"]["errno"], "ENOEXEC", "{document:#}");
    assert!(document["exit"].is_null());
}
