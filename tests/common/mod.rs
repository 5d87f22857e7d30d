//! What the tests of the whole share: fixtures, running the program, skipping by name.
#![allow(
    dead_code,
    unused_imports,
    clippy::needless_update,
    reason = "every test program uses its own part of this; a kernel may get more to describe it"
)]

pub mod elf;
pub mod library;
pub mod model;
pub mod trees;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use elf_layout::KernelConfig;
use kernel::Kernel;
use kmodld::kernel_source::KernelSource;
use kmodld::load::vermagic_release;
use serde_json::Value;

pub use elf::Elf;

/// The folders of fixtures.
pub const KERNELS: [&str; 4] = ["6.1-amd64", "6.12-amd64", "6.1-arm64", "6.12-arm64"];
/// Those of x86_64.
pub const AMD64: [&str; 2] = ["6.1-amd64", "6.12-amd64"];

/// What each fixture needs loaded before it.
pub fn dependencies(module: &str) -> &'static [&'static str] {
    match module {
        "importer" | "gpl_importer" | "proprietary" | "proprietary_gpl" => &["exporter"],
        "ns_importer" | "ns_forgot" => &["ns_exporter"],
        _ => &[],
    }
}

/// A file or folder of the fixtures.
pub fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A fixture module.
pub fn ko(kernel: &str, module: &str) -> PathBuf {
    fixtures(kernel).join(format!("{module}.ko"))
}

/// A file's bytes.
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A file's text.
pub fn text(path: &Path) -> String {
    String::from_utf8(read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The release of a fixture kernel.
pub fn release(kernel: &str) -> String {
    text(&fixtures(kernel).join("release")).trim().to_owned()
}

/// Names of all fixtures of a kernel, in order.
pub fn modules(kernel: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(fixtures(kernel)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut modules: Vec<String> = names.filter_map(|n| n.strip_suffix(".ko").map(String::from)).collect();
    modules.sort();
    assert!(modules.len() >= 19, "{kernel}: fixtures are missing");
    modules
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

/// Reports a test, or a part of one, that needs something that is not here.
pub fn skipped(name: &str, reason: &str) {
    use std::io::Write;
    // Past the capture of the test harness, so that it is seen in every run.
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Is this program there? If not, this says which test goes without.
pub fn has_tool(test: &str, tool: &str) -> bool {
    let mut command = Command::new(tool);
    let run = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if run.is_err() {
        skipped(test, &format!("there is no {tool} in PATH"));
    }
    run.is_ok()
}

/// A path from the environment; without it this says which test goes without.
pub fn from_environment(test: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|p| !p.is_empty()).map(PathBuf::from);
    if path.is_none() {
        skipped(test, &format!("{variable} is not set"));
    }
    path
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

/// A hex number of a JSON document.
#[track_caller]
pub fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("not a hex string: {value}"));
    u64::from_str_radix(text.strip_prefix("0x").expect("0x"), 16).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Does something for every item, on as many threads as there are processors.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    let result = work(item);
                    done.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Prints a line about a long test past the capture of the test harness.
pub fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The first few of many complaints.
pub fn first_of(complaints: &[String]) -> String {
    let shown = complaints.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
    format!("{} complaints:\n  {shown}", complaints.len())
}
