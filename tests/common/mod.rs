//! What the tests of the whole share: running the program, loading through the library. What needs neither is in
//! `crates/testkit`.
#![allow(dead_code, unused_imports, reason = "every test program uses its own part of this")]

pub mod library;
pub mod model;

use std::process::{Command, Stdio};

use elf_layout::KernelConfig;
use kernel::Kernel;
use kmodld::kernel_source::KernelSource;
use kmodld::load::vermagic_release;
use serde_json::Value;

pub use testkit::captures::{self, hex};
pub use testkit::elf::{self, Elf};
pub use testkit::fixtures::*;
pub use testkit::report::*;
pub use testkit::trees;

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
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
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

/// `--symtab`, `--symvers` and `--config` of a fixture kernel.
pub fn kernel_args(kernel: &str) -> Vec<String> {
    let file = |name| fixtures(kernel).join(name).display().to_string();
    [("--symtab", "kallsyms"), ("--symvers", "Module.symvers"), ("--config", "config")]
        .into_iter()
        .flat_map(|(option, name)| [option.to_owned(), file(name)])
        .collect()
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
        symtab: file("kallsyms"),
        symvers: file("Module.symvers"),
        config: file("config"),
        ..KernelSource::default()
    };
    let release = || vermagic_release(&read(&ko(folder, "hello")));
    Kernel::booted(source.describe(release, "").unwrap())
}

/// The configuration of a fixture kernel.
pub fn config(folder: &str) -> KernelConfig {
    kernel(folder).config.clone()
}
