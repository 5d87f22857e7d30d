//! Every command of README.md and docs/fleet.md: what begins with `$ kmodld` is run, and prints what stands below it. What
//! else these documents have a reader type is known here, with who runs it. `UPDATE_GOLDEN=1` writes the outputs anew.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{fixtures, ko, program, read, release, words};
use kernel::Records;
use kmodld::kernel_source::spec_file;

/// Other commands, and where they are run.
const ELSEWHERE: [(&str, &str); 5] = [
    ("cargo install --path .", "with and without features by .ci/run"),
    ("scripts/deb.sh", "by .ci/run"),
    ("scripts/static.sh", "by .ci/run"),
    ("KMODLD_KERNELS=$HOME/kernels scripts/fetch-kernels.sh", "by .ci/run"),
    ("KMODLD_KERNELS=$HOME/kernels cargo test --release --test tree -- --nocapture", "by .ci/run"),
];

/// A machine as the documents tell of it: modules in the folder, kernels in /boot.
struct Machine {
    dir: tempfile::TempDir,
    /// What stands for a path of the documents.
    paths: HashMap<String, PathBuf>,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copy = |kernel: &str, module: &str, to: &str| {
            let to = dir.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(ko(kernel, module), to).unwrap();
        };
        // What was built before an upgrade.
        copy("6.1-amd64", "hello", "hello.ko");
        copy("6.1-amd64", "hello", "updates/hello.ko");
        copy("6.12-amd64", "params", "updates/params.ko");
        copy("6.12-amd64", "params", "params.ko");
        copy("6.12-amd64", "chardev", "chardev.ko");
        let mut paths = HashMap::new();
        for kernel in ["6.1-amd64", "6.12-amd64"] {
            let release = release(kernel);
            let spec = dir.path().join(kernel);
            fs::write(&spec, describe(kernel)).unwrap();
            paths.insert(format!("/boot/vmlinuz-{release}"), spec);
        }
        Machine { dir, paths }
    }

    /// What a command prints, as a reader sees it: at 80 columns, what is said of it behind the result.
    fn run(&self, command: &str) -> String {
        let (command, head) = match command.split_once(" | head -") {
            Some((command, lines)) => (command, lines.parse().unwrap()),
            None => (command, usize::MAX),
        };
        let real = |word: String| self.paths.get(&word).map_or(word, |path| path.display().to_string());
        let args: Vec<String> = words(command).into_iter().skip(1).map(real).collect();
        let mut program = program();
        program.args(&args).current_dir(self.dir.path()).env("COLUMNS", "80").env_remove("NO_COLOR");
        let output = program.output().unwrap();
        let mut text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        for (path, real) in &self.paths {
            text = text.replace(&real.display().to_string(), path);
        }
        assert!(!text.contains("Usage:") && !text.is_empty(), "{command}: {text}");
        text.lines().take(head).map(|line| format!("{line}\n")).collect()
    }
}

/// A SPEC that has what the image of this kernel tells, as far as the fixtures have it.
fn describe(kernel: &str) -> Vec<u8> {
    let mut records = Records::default();
    spec_file::parse(&read(&common::facts(kernel)))
        .unwrap()
        .iter()
        .for_each(|(name, value)| records.set(name, value));
    for (record, name) in [("kallsyms", "kallsyms"), ("symvers", "Module.symvers"), ("config", "config")] {
        records.set(record, read(&fixtures(kernel).join(name)));
    }
    let mut bytes = Vec::new();
    spec_file::write(&records, &mut bytes).unwrap();
    bytes
}

/// The document with the outputs that its commands have now.
fn with_outputs(text: &str, machine: &Machine, unknown: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    let mut in_block = None;
    while let Some(line) = lines.next() {
        out.push_str(&format!("{line}\n"));
        if let Some(kind) = line.strip_prefix("```") {
            in_block = in_block.is_none().then_some(kind);
        } else if let (Some(_), Some(command)) = (in_block, line.strip_prefix("$ ")) {
            out.push_str(&machine.run(command));
            // What stood there before.
            while lines.next_if(|line| !line.starts_with("$ ") && !line.starts_with("```")).is_some() {}
        } else if in_block == Some("sh") {
            let typed = line.split("  #").next().unwrap().trim();
            let is_known = |(command, _): &(&str, &str)| *command == typed;
            if !typed.starts_with('#') && !typed.is_empty() && !ELSEWHERE.iter().any(is_known) {
                unknown.push(line.to_owned());
            }
        }
    }
    out
}

#[test]
fn commands_print_what_documents_say() {
    let machine = Machine::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut unknown = Vec::new();
    let now = with_outputs(&text, &machine, &mut unknown);
    assert!(unknown.is_empty(), "nobody runs {unknown:?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    } else {
        assert!(text == now, "README.md differs from what commands print now:\n{now}");
    }
    assert!(now.matches("\n$ kmodld ").count() >= 7);
}
