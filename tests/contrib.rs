//! The files of contrib/, each run as its system runs it (docs/fleet.md), on the fixtures' kernels.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{fixtures, kmodld, ko, read, release, skipped};
use kernel::Records;
use kmodld::kernel_source::spec_file;

const OLD: &str = "6.1-amd64";
const NEW: &str = "6.12-amd64";

/// A machine's files: `boot/vmlinuz-RELEASE` of two kernels, and modules for the older one.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Machine(tempfile::tempdir().unwrap());
        for kernel in [OLD, NEW] {
            // A SPEC is a kernel wherever an image is.
            machine.put(&format!("boot/vmlinuz-{}", release(kernel)), &describe(kernel));
        }
        machine.put("updates/hello.ko", &read(&ko(OLD, "hello")));
        machine.put("updates/params.ko", &read(&ko(NEW, "params")));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn image(&self, kernel: &str) -> String {
        self.path(&format!("boot/vmlinuz-{}", release(kernel))).display().to_string()
    }

    /// A program in this folder, with kmodld in its PATH.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_kmodld")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("PATH", format!("{}:{path}", bin.display()));
        command.env("KMODLD_ROOT", self.0.path()).env_remove("COLUMNS").stdin(Stdio::null());
        command
    }
}

fn describe(kernel: &str) -> Vec<u8> {
    let mut records = Records::default();
    let facts = spec_file::parse(&read(&common::facts(kernel))).unwrap();
    facts.iter().for_each(|(name, value)| records.set(name, value));
    for (record, name) in [("kallsyms", "kallsyms"), ("symvers", "Module.symvers"), ("config", "config")] {
        records.set(record, read(&fixtures(kernel).join(name)));
    }
    let mut bytes = Vec::new();
    spec_file::write(&records, &mut bytes).unwrap();
    bytes
}

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// What one run says of all on both kernels.
fn whole(machine: &Machine) -> String {
    let (old, new) = (machine.image(OLD), machine.image(NEW));
    let modules = machine.path("updates").display().to_string();
    kmodld(["check", &modules, "--kernel", &old, "--kernel", &new, "--jsonl"]).exits(1).stdout
}

fn joined(machine: &Machine, out: &str, parts: usize) -> String {
    (0..parts).map(|n| fs::read_to_string(machine.path(&format!("{out}/{n}.jsonl"))).unwrap()).collect()
}

#[test]
fn slurm_array() {
    let machine = Machine::new();
    for task in 0..3 {
        let mut sh = machine.command("sh");
        sh.arg(contrib("slurm-array.sh")).env("MODULES", machine.path("updates"));
        sh.env("KERNELS", format!("{} {}", machine.image(OLD), machine.image(NEW)));
        sh.env("SLURM_ARRAY_TASK_ID", task.to_string()).env("SLURM_ARRAY_TASK_COUNT", "3");
        let output = sh.env("SLURM_CPUS_PER_TASK", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    assert_eq!(joined(&machine, "out", 3), whole(&machine));
    let mut sh = machine.command("sh");
    sh.arg(contrib("slurm-array.sh")).env("MODULES", "/nonexistent").env("KERNELS", machine.image(OLD));
    sh.env("SLURM_ARRAY_TASK_ID", "0").env("SLURM_ARRAY_TASK_COUNT", "1");
    assert_eq!(sh.output().unwrap().status.code(), Some(1), "what cannot be read fails the task");
}

#[test]
fn kubernetes_job() {
    let machine = Machine::new();
    let yaml = fs::read_to_string(contrib("kubernetes-job.yaml")).unwrap();
    // The block of `args`, which is what sh -c gets.
    let block = yaml.split("            - |\n").nth(1).unwrap();
    let indent = " ".repeat(14);
    let script: String =
        block.lines().map_while(|line| line.strip_prefix(&indent)).map(|line| format!("{line}\n")).collect();
    assert!(script.contains("$JOB_COMPLETION_INDEX") && script.ends_with("esac\n"), "{script}");
    let shards: usize = yaml.split("completions: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(yaml.contains(&format!("value: \"{shards}\"")), "SHARDS is the number of completions");
    // The volumes.
    let script = script
        .replace("/modules", machine.path("updates").to_str().unwrap())
        .replace("/kernels/", &format!("{}/", machine.path("boot").display()))
        .replace("/out/", &format!("{}/", machine.path("pods").display()));
    fs::create_dir(machine.path("pods")).unwrap();
    for pod in 0..shards {
        let mut sh = machine.command("/bin/sh");
        sh.args(["-c", &script])
            .env("JOB_COMPLETION_INDEX", pod.to_string())
            .env("SHARDS", shards.to_string());
        let output = sh.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    assert_eq!(joined(&machine, "pods", shards), whole(&machine));
}

#[test]
fn gnu_parallel() {
    let machine = Machine::new();
    fs::create_dir(machine.path("out")).unwrap();
    let line = format!(
        "kmodld check updates --kernel {} --kernel {} --jsonl --shard-index {{}} --shard-count 4 >out/{{}}.jsonl",
        machine.image(OLD),
        machine.image(NEW)
    );
    let Ok(mut parallel) = machine.command("parallel").arg(&line).stdin(Stdio::piped()).spawn() else {
        return skipped("gnu_parallel", "GNU parallel is not here");
    };
    parallel.stdin.take().unwrap().write_all(b"0\n1\n2\n3\n").unwrap();
    parallel.wait().unwrap();
    let relative = whole(&machine).replace(&format!("{}/", machine.0.path().display()), "");
    assert_eq!(joined(&machine, "out", 4), relative);
}

#[test]
fn dkms_post_build() {
    let machine = Machine::new();
    let build = |module: &Path| {
        fs::remove_dir_all(machine.path("build")).ok();
        machine.put("build/module.ko", &read(module));
        let mut command = machine.command(contrib("dkms-post-build"));
        command.arg(release(NEW)).current_dir(machine.path("build")).output().unwrap()
    };
    assert_eq!(build(&ko(NEW, "hello")).status.code(), Some(0));
    let refused = build(&ko(OLD, "hello"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("was built for"), "{}", text(&refused));
}

#[test]
fn initramfs_hook() {
    let machine = Machine::new();
    let hook = |args: &[&str]| {
        let mut command = machine.command(contrib("initramfs-hook"));
        command.args(args).env("DESTDIR", machine.path("initramfs")).env("version", release(NEW));
        command.output().unwrap()
    };
    assert_eq!(text(&hook(&["prereqs"])), "\n");
    assert_eq!(text(&hook(&[])), "", "an initramfs without modules");
    let modules = format!("initramfs/lib/modules/{}/kernel", release(NEW));
    machine.put(&format!("{modules}/good.ko"), &read(&ko(NEW, "hello")));
    assert_eq!(text(&hook(&[])), "");
    machine.put(&format!("{modules}/other.ko"), &read(&ko(OLD, "hello")));
    let warned = hook(&[]);
    assert_eq!(warned.status.code(), Some(0), "it only tells");
    assert!(
        text(&warned).starts_with("W: kmodld: ") && text(&warned).contains("other.ko"),
        "{}",
        text(&warned)
    );
}

#[test]
fn kernel_install() {
    let machine = Machine::new();
    let plugin = |command: &str| {
        let mut plugin = machine.command(contrib("kernel-install"));
        plugin.args([command, &release(NEW), "/boot/entry", &machine.image(NEW)]);
        plugin.env("KMODLD_MODULES", machine.path("updates")).output().unwrap()
    };
    let told = plugin("add");
    assert_eq!(told.status.code(), Some(0));
    assert!(text(&told).contains("hello.ko: refused with ENOEXEC"), "{}", text(&told));
    assert_eq!(text(&plugin("remove")), "");
}

#[test]
fn apt_pre_install() {
    let machine = Machine::new();
    let package = machine.path("linux-image-6.12.deb");
    machine.put("package/DEBIAN/control", b"Package: linux-image-6.12\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: none\n");
    machine.put(&format!("package/boot/vmlinuz-{}", release(NEW)), &describe(NEW));
    let built = machine.command("dpkg-deb").args(["--build", "package"]).arg(&package).output();
    let Some(built) = built.ok().filter(|output| output.status.success()) else {
        return skipped("apt_pre_install", "dpkg-deb is not here");
    };
    drop(built);
    let run = |strict: &str| {
        let mut script = machine.command(contrib("apt-pre-install"));
        script.env("KMODLD_MODULES", machine.path("updates")).env("KMODLD_STRICT", strict);
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let list = format!("/var/cache/other_1_all.deb\n{}\n", package.display());
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let told = run("0");
    assert_eq!(told.status.code(), Some(0), "{}", text(&told));
    assert!(text(&told).contains("hello.ko: refused with ENOEXEC"), "{}", text(&told));
    assert_eq!(run("1").status.code(), Some(1), "it stops where that is wanted");
}

/// The matrix names no kernel that it has no description of, and its command is one.
#[test]
fn ci_matrix() {
    let yaml = fs::read_to_string(contrib("ci-matrix.yml")).unwrap();
    let line = yaml.lines().find_map(|line| line.trim().strip_prefix("run: kmodld ")).unwrap();
    let machine = Machine::new();
    machine.put("build/hello.ko", &read(&ko(NEW, "hello")));
    machine.put("specs/KERNEL.spec", &describe(NEW));
    let line = format!("kmodld {}", line.replace("${{ matrix.kernel }}", "KERNEL"));
    let output = machine.command("sh").args(["-ec", &line]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output));
    let sarif: serde_json::Value = serde_json::from_slice(&read(&machine.path("kmodld.sarif"))).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
}
