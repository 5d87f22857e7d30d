//! What the tests of the whole share: running the program, loading through the library. What needs neither is in
//! `crates/testkit`.
#![allow(dead_code, unused_imports, reason = "every test program uses its own part of this")]

pub mod library;
pub mod model;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elf_layout::KernelConfig;
use kernel::{Kernel, Records};
use kmodld::kernel_source::{KernelSource, spec_file};
use serde_json::Value;

pub use testkit::captures::{self, hex};
pub use testkit::elf::{self, Elf};
pub use testkit::fixtures::*;
pub use testkit::report::*;
pub use testkit::trees;

/// Words of a shell's line: double quotes keep blanks.
pub fn words(line: &str) -> Vec<String> {
    let mut quoted = false;
    let mut words = vec![String::new()];
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Does the loader know the architecture of these fixtures yet? If not, this says so.
pub fn architecture_is_known(test: &str, kernel: &str) -> bool {
    let machine = if kernel.ends_with("amd64") { 62 } else { 183 };
    let known = reloc::architecture(machine).is_some();
    if !known {
        skipped(&format!("{test} ({kernel})"), "the architecture is unknown to the loader");
    }
    known
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// stdout as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}: {self:?}"))
    }

    /// With this exit code, or the test fails and shows the run.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "a panic:\n{}", self.stderr);
        self
    }
}

/// The program itself.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmodld"));
    command
        .env_remove("RUST_BACKTRACE")
        .env_remove("COLUMNS")
        .env("XDG_CACHE_HOME", no_cache())
        .stdin(Stdio::null());
    command
}

/// Where no cache can be: what tests say does not depend on what was read before.
fn no_cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-cache-here");
    std::fs::write(&cache, "a file where a folder is meant").unwrap();
    cache
}

/// Runs the program.
pub fn kmodld<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let output = program().args(args).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `--kernel`, `--symtab`, `--symvers` and `--config` of a fixture kernel.
pub fn kernel_args(kernel: &str) -> Vec<String> {
    let texts = [("--symtab", "kallsyms"), ("--symvers", "Module.symvers"), ("--config", "config")];
    let texts = texts.map(|(option, name)| (option, fixtures(kernel).join(name)));
    [("--kernel", facts(kernel))]
        .into_iter()
        .chain(texts)
        .flat_map(|(option, path)| [option.to_owned(), path.display().to_string()])
        .collect()
}

/// The program on a terminal of its own, in the folder of the project: `script` of util-linux makes one. What it writes there, and its
/// exit code; `None` if `script` is not there.
pub fn on_terminal<S: AsRef<str>>(columns: usize, args: &[S]) -> Option<(String, Option<i32>)> {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let words = [env!("CARGO_BIN_EXE_kmodld")].into_iter().chain(args.iter().map(AsRef::as_ref));
    let line: Vec<String> = words.map(quoted).collect();
    let command = format!("stty cols {columns} rows 50; {}", line.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").env_remove("COLUMNS");
    script.current_dir(env!("CARGO_MANIFEST_DIR")).env("TERM", "xterm").stdin(Stdio::null());
    script.env("XDG_CACHE_HOME", no_cache());
    let output = script.output().ok()?;
    Some((String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n"), output.status.code()))
}

/// A SPEC of these records.
pub fn spec<'r>(facts: impl IntoIterator<Item = (&'r str, &'r str)>) -> Vec<u8> {
    let mut records = Records::default();
    facts.into_iter().for_each(|(name, value)| records.set(name, value));
    let mut bytes = Vec::new();
    spec_file::write(&records, &mut bytes).unwrap();
    bytes
}

/// A SPEC with what the texts of a fixture kernel do not tell: its release, its `struct module`, which all modules that were
/// built for it show, and that no certificate is built into it.
pub fn facts(kernel: &str) -> PathBuf {
    let hello = Elf::new(read(&ko(kernel, "hello")));
    let this_module = hello.section(".gnu.linkonce.this_module");
    let of_this = hello.section(".rela.gnu.linkonce.this_module");
    let symbols = hello.symbols();
    let place = |symbol: &str| {
        let relocations = hello.relocations(of_this);
        relocations.iter().find(|r| symbols[r.symbol as usize].name == symbol).unwrap().offset.to_string()
    };
    let size = hello.data(this_module).len().to_string();
    let (init, exit) = (place("init_module"), place("cleanup_module"));
    let bytes = spec([
        ("release", &*release(kernel)),
        ("struct-module-size", &size),
        ("struct-module-init", &init),
        ("struct-module-exit", &exit),
        ("certificates", "0"),
    ]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kernel}.spec"));
    // Other tests may read it meanwhile.
    let scratch = path.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::write(&scratch, bytes).unwrap();
    std::fs::rename(&scratch, &path).unwrap();
    path
}

/// `link MODULE` on its own kernel, after the modules it depends on.
pub fn link_args(kernel: &str, module: &str) -> Vec<String> {
    let mut args = vec![String::from("link"), ko(kernel, module).display().to_string()];
    args.extend(kernel_args(kernel));
    for dependency in dependencies(module) {
        args.extend([String::from("--with"), ko(kernel, dependency).display().to_string()]);
    }
    args
}

/// Runs `link MODULE` on its own kernel with more arguments.
pub fn link(kernel: &str, module: &str, more: &[&str]) -> Ran {
    kmodld(link_args(kernel, module).iter().map(String::as_str).chain(more.iter().copied()))
}

/// A fixture kernel for use through the library.
pub fn kernel(folder: &str) -> Kernel {
    let file = |name| Some(fixtures(folder).join(name));
    let source = KernelSource {
        kernel: Some(facts(folder)),
        symtab: file("kallsyms"),
        symvers: file("Module.symvers"),
        config: file("config"),
        ..KernelSource::default()
    };
    Kernel::booted(source.describe(|| None, "").unwrap())
}

/// The configuration of a fixture kernel.
pub fn config(folder: &str) -> KernelConfig {
    kernel(folder).config.clone()
}
