//! What the program does when reading or writing fails: exit code 3 and a message that names the file, no panic, and
//! nothing half-written under the name that was asked for.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ran, kernel_args, ko, link, link_args};

const KERNEL: &str = "6.12-amd64";

fn ran(output: &std::process::Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every command that prints, each with the exit code that it has when all is well.
fn printing() -> Vec<(Vec<String>, i32)> {
    let hello = ko(KERNEL, "hello").display().to_string();
    let refused = ko(KERNEL, "proprietary_gpl").display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect::<Vec<_>>();
    let on_kernel = |args: &[&str]| [words(args), kernel_args(KERNEL)].concat();
    let insmod = format!("insmod {hello}");
    vec![
        (words(&["inspect", &hello]), 0),
        (words(&["inspect", "--json", &hello]), 0),
        (on_kernel(&["link", &hello]), 0),
        (on_kernel(&["link", "--json", &hello]), 0),
        (on_kernel(&["link", "--json", &refused]), 1),
        (on_kernel(&["check", &hello]), 0),
        (on_kernel(&["check", &refused, &hello]), 1),
        (on_kernel(&["check", "--json", &refused]), 1),
        (on_kernel(&["check", "--jsonl", &hello, &refused]), 1),
        (on_kernel(&["simulate", &insmod, "lsmod"]), 0),
    ]
}

#[test]
fn a_full_disk_behind_stdout() {
    for (args, _) in printing() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = common::program().args(&args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let ran = ran(&output).exits(3);
        assert!(ran.stderr.contains("stdout: cannot write: No space left"), "{args:?}: {}", ran.stderr);
    }
}

/// The exit code is what it would be: nobody is told that a refused module loads because of `| head`.
#[test]
fn nobody_reads_stdout() {
    for (args, code) in printing() {
        let mut child =
            common::program().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = ran(&child.wait_with_output().unwrap()).exits(code);
        assert!(!ran.stderr.contains("stdout"), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn no_standard_streams_at_all() {
    for (args, code) in printing() {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("exec \"$0\" \"$@\" <&- >&- 2>&-").arg(env!("CARGO_BIN_EXE_kmodld")).args(&args);
        assert_eq!(shell.status().unwrap().code(), Some(code), "{args:?}");
    }
}

/// Files that are none, or that nobody can open.
#[test]
fn inputs_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    symlink("nowhere", path("dangling")).unwrap();
    symlink("loop", path("loop")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("file"), b"").unwrap();
    let long = "x".repeat(300);
    let cases = [
        (path("missing"), "No such file"),
        (path("dangling"), "No such file"),
        (path("loop"), "symbolic links"),
        (path("folder"), "Is a directory"),
        (path("file/below"), "Not a directory"),
        (path(&long), "name too long"),
        (Path::new("/proc/self/mem").to_owned(), "cannot read"),
    ];
    for (path, why) in &cases {
        for option in
            [None, Some("--symtab"), Some("--symvers"), Some("--config"), Some("--memory"), Some("--kernel")]
        {
            // A folder may be a kernel tree.
            if option == Some("--kernel") && path.is_dir() {
                continue;
            }
            let mut args = link_args(KERNEL, "hello");
            match option {
                None => args[1] = text(path).to_owned(),
                Some(option) => match args.iter().position(|arg| arg == option) {
                    Some(at) => args[at + 1] = text(path).to_owned(),
                    None => args.extend([option.to_owned(), text(path).to_owned()]),
                },
            }
            let ran = common::kmodld(&args).exits(3);
            let named = ran.stderr.contains(&format!("{}: cannot read", path.display()));
            assert!(named && ran.stderr.contains(why), "{option:?} {}: {}", path.display(), ran.stderr);
            assert_eq!(ran.stdout, "");
        }
    }
}

/// Permission bits do not bind root: another user reads and writes.
#[test]
fn without_permission() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let module = dir.path().join("secret.ko");
    fs::copy(ko(KERNEL, "hello"), &module).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o000)).unwrap();
    // What the other user must be able to reach: the program and the fixtures.
    let program = dir.path().join("kmodld");
    fs::copy(env!("CARGO_BIN_EXE_kmodld"), &program).unwrap();
    let hello = dir.path().join("hello.ko");
    fs::copy(ko(KERNEL, "hello"), &hello).unwrap();
    let mut kernel = Vec::new();
    for (option, name) in [("--symtab", "kallsyms"), ("--symvers", "Module.symvers"), ("--config", "config")]
    {
        let to = dir.path().join(name);
        fs::copy(common::fixtures(KERNEL).join(name), &to).unwrap();
        kernel.extend([String::from(option), to.display().to_string()]);
    }
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(args);
        command.args(&kernel).stdin(Stdio::null()).output()
    };
    match as_nobody(&["link", text(&hello)]) {
        Ok(output) if output.status.code() == Some(0) => {}
        other => {
            return common::skipped("without_permission", &format!("cannot become another user: {other:?}"));
        }
    }
    let read = ran(&as_nobody(&["link", text(&module)]).unwrap()).exits(3);
    assert!(read.stderr.contains("secret.ko: cannot read: Permission denied"), "{}", read.stderr);
    let before = names(dir.path());
    let out = dir.path().join("out");
    for args in [
        &["link", text(&hello), "-o", text(&out)][..],
        &["link", text(&hello), "--map", text(&out)],
        &["link", text(&hello), "--format", "raw", "-o", text(&out)],
    ] {
        let write = ran(&as_nobody(args).unwrap()).exits(3);
        assert!(write.stderr.contains("out: cannot write: Permission denied"), "{}", write.stderr);
    }
    assert_eq!(names(dir.path()), before, "nothing is left behind");
}

/// Runs `link hello` with more arguments in a shell that has done `setup`.
fn in_shell(setup: &str, more: &[&str]) -> Ran {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{setup}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_kmodld"));
    ran(&shell.args(link_args(KERNEL, "hello")).args(more).output().unwrap())
}

/// A disk that is full after 4 KiB, with the signal for that ignored or not.
#[test]
fn a_full_disk_behind_files() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    fs::write(&old, b"what was there before").unwrap();
    let out = dir.path().join("out");
    let raw = dir.path().join("raw");
    // Units of 512 bytes.
    let limit = "trap '' XFSZ; ulimit -f 8";
    for more in [&["-o", text(&out)][..], &["-o", text(&old)], &["--format", "raw", "-o", text(&raw)]] {
        let ran = in_shell(limit, more).exits(3);
        assert!(ran.stderr.contains("cannot write: File too large"), "{more:?}: {}", ran.stderr);
    }
    assert_eq!(names(dir.path()), ["old", "raw"], "no half-written file");
    // Regions that fit are there whole, layout.json that would vouch for them is not.
    assert!(names(&raw).iter().all(|name| name.ends_with(".bin")), "{:?}", names(&raw));
    assert_eq!(common::read(&old), b"what was there before");
    // Killed in the middle of it: what is left has a name of its own.
    let ran = in_shell("ulimit -c 0; ulimit -f 8", &["-o", text(&out)]);
    assert_eq!(ran.code, -1, "killed by SIGXFSZ: {}", ran.stderr);
    assert!(!out.exists() && names(dir.path()).iter().all(|name| name != "out"), "{:?}", names(dir.path()));
}

#[test]
fn a_device_or_a_pipe_is_written_to_and_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    // A link to the device: were it replaced, the link would be gone, not the device.
    for (device, code) in [("/dev/null", 0), ("/dev/full", 3)] {
        let link_to = dir.path().join("device");
        symlink(device, &link_to).unwrap();
        for option in ["-o", "--map"] {
            let ran = link(KERNEL, "hello", &[option, text(&link_to)]).exits(code);
            assert_eq!(code == 3, ran.stderr.contains("No space left"), "{option} {device}: {}", ran.stderr);
            assert!(fs::metadata(&link_to).unwrap().file_type().is_char_device(), "{device} was replaced");
        }
        fs::remove_file(&link_to).unwrap();
    }
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("exec \"$0\" \"$@\" -o /dev/stdout | head -c 4").arg(env!("CARGO_BIN_EXE_kmodld"));
    let output = shell.args(link_args(KERNEL, "hello")).output().unwrap();
    assert_eq!(output.stdout, b"\x7fELF", "-o /dev/stdout: {}", String::from_utf8_lossy(&output.stderr));
}

/// What is read, or written as well, would be lost: such an output is refused before anything is done.
#[test]
fn outputs_take_no_place_of_an_input_or_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, from: &Path| {
        fs::copy(from, dir.path().join(name)).unwrap();
        text(&dir.path().join(name)).to_owned()
    };
    let kernel = common::fixtures(KERNEL);
    let module = put("hello.ko", &ko(KERNEL, "hello"));
    let (symtab, symvers) =
        (put("kallsyms", &kernel.join("kallsyms")), put("symvers", &kernel.join("Module.symvers")));
    let before = put("exporter.ko", &ko(KERNEL, "exporter"));
    let linked = text(&dir.path().join("linked.ko")).to_owned();
    symlink("hello.ko", &linked).unwrap();
    let (elf, raw) = (text(&dir.path().join("out")).to_owned(), text(&dir.path().join("raw")).to_owned());
    let [layout, memory] = ["layout.json", "text.bin"].map(|name| format!("{raw}/{name}"));
    let roundabout =
        format!("{}/../{}/hello.ko", text(dir.path()), text(Path::new(dir.path().file_name().unwrap())));
    let was = names(dir.path());
    for (outputs, about) in [
        (&["-o", &module][..], "hello.ko"),
        (&["-o", &roundabout], "hello.ko"),
        (&["--map", &module], "hello.ko"),
        (&["-o", &symtab], "kallsyms"),
        (&["-o", &symvers], "symvers"),
        (&["--map", &before], "exporter.ko"),
        (&["-o", &elf, "--map", &elf], "out"),
        (&["-o", &raw, "--format", "raw", "--map", &layout], "layout.json"),
        (&["-o", &raw, "--format", "raw", "--map", &memory], "text.bin"),
    ] {
        let inputs = ["link", &linked, "--symtab", &symtab, "--symvers", &symvers, "--with", &before];
        let ran = common::kmodld([&inputs[..], outputs].concat()).exits(2);
        assert!(ran.stderr.contains(about) && ran.stderr.contains("lost"), "{outputs:?}: {}", ran.stderr);
        assert_eq!(names(dir.path()), was, "{outputs:?}");
    }
    let ran = common::kmodld(["kernel", &symtab, "-o", &symtab]).exits(2);
    assert!(ran.stderr.contains("kallsyms"), "{}", ran.stderr);
    assert_eq!(fs::read(&module).unwrap(), fs::read(ko(KERNEL, "hello")).unwrap());
    // A link is replaced, not followed; and a device keeps nothing.
    link(KERNEL, "hello", &["-o", "/dev/null", "--map", "/dev/null"]).exits(0);
}

/// Who may write beside the output cannot make the program write elsewhere: it takes no name that exists.
#[test]
fn temporary_files_follow_no_links() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let out = dir.path().join("out");
    let mut shell = Command::new("sh");
    // exec keeps the number of the process, so that the names it would take are known.
    let script = "for n in 0 1 2; do ln -s victim \"$1/.out.$$.$n.tmp\"; done; shift; exec \"$0\" \"$@\"";
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_kmodld")).arg(dir.path());
    shell.args(link_args(KERNEL, "hello")).args(["-o", text(&out)]);
    ran(&shell.output().unwrap()).exits(0);
    assert_eq!(common::read(&victim), b"precious");
    assert!(!out.is_symlink() && goblin::elf::Elf::parse(&common::read(&out)).is_ok());
}

/// Several processes write one file: whoever comes last, it is one whole output.
#[test]
fn two_writers_of_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let alone = |module: &str| {
        let out = dir.path().join(module);
        link(KERNEL, module, &["-o", text(&out)]).exits(0);
        common::read(&out)
    };
    let wholes = [alone("hello"), alone("params")];
    let both = dir.path().join("both");
    for _ in 0..10 {
        let start = |module: &str| {
            let mut args = link_args(KERNEL, module);
            args.extend([String::from("-o"), both.display().to_string()]);
            common::program().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut writers = [start("hello"), start("params"), start("hello"), start("params")];
        // Nobody ever sees anything else, either.
        while writers.iter_mut().any(|w| w.try_wait().unwrap().is_none()) {
            if let Ok(seen) = fs::read(&both) {
                assert!(wholes.contains(&seen), "a mixture of {} bytes", seen.len());
            }
        }
        assert!(writers.iter_mut().all(|w| w.wait().unwrap().success()));
        assert!(wholes.contains(&common::read(&both)));
    }
    assert_eq!(names(dir.path()), ["both", "hello", "params"], "no temporary file is left");
}

/// A module that shrinks while it is read is a damaged module, not a crash. Nor is a large one, which is mapped only while
/// nobody writes to it.
#[test]
fn a_module_that_changes_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("changing.ko");
    for len in [0, LARGE] {
        let mut good = common::read(&ko(KERNEL, "params"));
        good.resize(good.len().max(len), 0);
        fs::write(&module, &good).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let file = File::options().write(true).open(&module).unwrap();
                    for len in [0, 100, good.len() as u64 / 2] {
                        file.set_len(len).unwrap();
                    }
                    fs::write(&module, &good).unwrap();
                }
            });
            for _ in 0..40 {
                let ran = common::kmodld(["inspect", text(&module)]);
                assert!([0, 3].contains(&ran.code) && !ran.stderr.contains("panicked"), "{ran:?}");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

/// Files of this size are mapped.
const LARGE: usize = 3 << 20;

/// Who wants to write to a large module while it is mapped waits, and what tells kmodld so does not kill it.
#[test]
#[cfg(target_os = "linux")]
fn a_large_module_is_as_it_was_while_others_wait_to_write() {
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::Duration;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut large = common::read(&ko(KERNEL, "hello"));
    large.resize(LARGE, 0);
    fs::write(path("large.ko"), &large).unwrap();
    let link_to = |out: &str, symvers: &Path| {
        let fixture = |name: &str| common::fixtures(KERNEL).join(name);
        let mut program = common::program();
        program.arg("link").arg(path("large.ko")).arg("-o").arg(path(out));
        program.arg("--symtab").arg(fixture("kallsyms")).arg("--config").arg(fixture("config"));
        program.arg("--symvers").arg(symvers).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let symvers = common::fixtures(KERNEL).join("Module.symvers");
    ran(&link_to("alone", &symvers).wait_with_output().unwrap()).exits(0);
    // This one has the module, and waits for what its kernel exports.
    assert!(Command::new("mkfifo").arg(path("symvers")).status().unwrap().success());
    let child = link_to("out", &path("symvers"));
    let pid = child.id().to_string();
    let has_lease = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|lock| lock.contains("LEASE") && lock.split_whitespace().any(|word| word == pid))
    };
    let is_leased = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        has_lease()
    });
    if !is_leased {
        let system = Command::new("stat").args(["-f", "-c", "%T"]).arg(dir.path()).output().unwrap();
        let system = String::from_utf8_lossy(&system.stdout).trim().to_owned();
        assert!(!["ext2/ext3", "xfs", "btrfs", "tmpfs"].contains(&&*system), "no lease on {system}");
        eprintln!("skipped: a_large_module_is_as_it_was_while_others_wait_to_write: {system} has no leases");
    } else {
        let now = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path("large.ko"));
        assert_eq!(now.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    let module = path("large.ko");
    let truncates = std::thread::spawn(move || File::create(module));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(truncates.is_finished(), !is_leased, "truncated while it is mapped");
    fs::write(path("symvers"), common::read(&symvers)).unwrap();
    ran(&child.wait_with_output().unwrap()).exits(0);
    assert_eq!(common::read(&path("out")), common::read(&path("alone")));
    assert!(truncates.join().unwrap().is_ok());
}

/// A pipe is a file like any other, and so is what never ends but for the limit.
#[test]
fn a_module_out_of_a_pipe() {
    let mut shell = Command::new("sh");
    let script = "cat \"$1\" | \"$0\" inspect /dev/stdin";
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_kmodld")).arg(ko(KERNEL, "hello"));
    let ran = ran(&shell.output().unwrap()).exits(0);
    assert!(ran.stdout.contains("module hello"), "{}", ran.stdout);
}

/// Little memory is an error of this program or the kernel's ENOMEM, never a wrong image.
#[test]
fn little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut elf = common::Elf::new(common::read(&ko(KERNEL, "hello")));
    let bss = elf.of_type(common::elf::NOBITS).unwrap();
    elf.set(bss, common::elf::Sh::Size, 1 << 30).set(bss, common::elf::Sh::Flags, 3);
    let module = dir.path().join("huge.ko");
    fs::write(&module, &elf.bytes).unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -v 600000; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_kmodld"));
    shell.args(["check", text(&module)]).args(kernel_args(KERNEL));
    let ran = ran(&shell.output().unwrap()).exits(1);
    assert!(ran.stdout.contains("refused with ENOMEM"), "{}{}", ran.stdout, ran.stderr);
}
