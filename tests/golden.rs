//! What a person sees: stdout, stderr and exit code of whole runs, word for word, as tests/golden/*.txt hold
//! them. `UPDATE_GOLDEN=1 cargo test --test golden` writes them anew; read the difference before it is kept.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{fixtures, on_terminal, program, read, skipped, text};
use kernel::Records;
use kmodld::kernel_source::spec_file;

/// The texts that describe the kernel of 6.12 on amd64.
const TEXTS: &str = "--symtab fixtures/6.12-amd64/kallsyms --symvers fixtures/6.12-amd64/Module.symvers --config fixtures/6.12-amd64/config";
/// Module.symvers of a kernel that has the fixtures in its tree.
const TREE: &str =
    "--symtab fixtures/6.12-amd64/kallsyms --symvers SYMVERS --config fixtures/6.12-amd64/config";

/// Name and arguments of each run; a word in capitals stands for a file that is made for it, or for several words. Where a name
/// ends with a number, that is how many columns the run is told to have; one with `tty` before that has a terminal of so many.
const RUNS: &[(&str, &str, &str)] = &[
    ("dkms-for-another-kernel", "check fixtures/6.1-amd64/hello.ko", "--kernel SPEC"),
    ("another-kernel-by-texts", "check fixtures/6.1-amd64/importer.ko --no-deps", TEXTS),
    ("another-kernel-80", "check fixtures/6.1-amd64/importer.ko", "--kernel SPEC"),
    ("another-kernel-40", "check fixtures/6.1-amd64/importer.ko", "--kernel SPEC"),
    ("another-kernel-verbose-80", "check -v fixtures/6.1-amd64/importer.ko", "--kernel SPEC"),
    ("folder-80", "check fixtures/6.12-amd64", "--kernel SPEC"),
    ("folder-40", "check fixtures/6.12-amd64", "--kernel SPEC"),
    ("two-kernels-80", "check fixtures/6.12-amd64 --kernel OTHER", "--kernel SPEC"),
    ("link-refused-80", "link fixtures/6.12-amd64/proprietary_gpl.ko", "--kernel SPEC"),
    ("link-no-module", "link Cargo.toml", "--kernel SPEC"),
    ("another-release-forced", "check fixtures/6.1-amd64/hello.ko --force-modversion", "--kernel SPEC"),
    ("another-architecture", "check fixtures/6.12-arm64/hello.ko", "--kernel SPEC"),
    ("import-from-the-same-folder", "check fixtures/6.12-amd64/gpl_importer.ko", TEXTS),
    ("missing-import", "check fixtures/6.12-amd64/importer.ko --no-deps", TEXTS),
    ("missing-import-in-symvers", "check fixtures/6.12-amd64/importer.ko --no-deps", TREE),
    ("namespace-of-a-missing-import", "check fixtures/6.12-amd64/ns_forgot.ko --no-deps", TREE),
    (
        "gpl-only",
        "check fixtures/6.12-amd64/proprietary_gpl.ko --with fixtures/6.12-amd64/exporter.ko",
        TEXTS,
    ),
    ("namespace", "check fixtures/6.12-amd64/ns_forgot.ko --with fixtures/6.12-amd64/ns_exporter.ko", TEXTS),
    ("loaded-already", "check fixtures/6.12-amd64/hello.ko --with fixtures/6.12-amd64/hello.ko", TEXTS),
    ("blacklisted", "check fixtures/6.12-amd64/hello.ko --cmdline module_blacklist=hello", TEXTS),
    ("parameters", "check fixtures/6.12-amd64/params.ko --params PARAMS", TEXTS),
    ("unsigned", "check fixtures/6.12-amd64/hello.ko", "--kernel SPEC"),
    (
        "unsigned-enforced",
        "check fixtures/6.12-amd64/hello.ko --cmdline module.sig_enforce=1",
        "--kernel SPEC",
    ),
    ("unknown-key", "check fixtures/6.12-amd64/hello_signed.ko", "--kernel SPEC"),
    (
        "unknown-key-enforced",
        "check fixtures/6.12-amd64/hello_signed.ko --cmdline module.sig_enforce=1",
        "--kernel SPEC",
    ),
    (
        "known-key",
        "check fixtures/6.12-amd64/hello_signed.ko --keyring fixtures/signing/kmodld-fixtures.der",
        "--kernel SPEC",
    ),
    (
        "bad-signature",
        "check CHANGED --keyring fixtures/signing/kmodld-fixtures.der --keyring tests/golden/another-key.pem",
        "--kernel SPEC",
    ),
    ("help-80", "--help", ""),
    ("help-40", "--help", ""),
    ("help-check-80", "check --help", ""),
    ("help-check-40", "check --help", ""),
    ("help-link-80", "link -h", ""),
    ("help-link-40", "link -h", ""),
    ("help-simulate-80", "simulate -h", ""),
    ("help-simulate-40", "simulate -h", ""),
    ("explain-80", "explain", ""),
    ("explain-40", "explain", ""),
    ("explain-tty-80", "explain", ""),
    ("explain-tty-40", "explain", ""),
    ("explain-code-80", "explain VER-6", ""),
    ("explain-code-40", "explain VER-6", ""),
    ("explain-code-tty-80", "explain VER-6", ""),
    ("explain-code-tty-40", "explain VER-6", ""),
    ("explain-errno-80", "explain ENOEXEC", ""),
    ("explain-errno-40", "explain ENOEXEC", ""),
    ("explain-line-80", "explain LINE", ""),
    ("explain-line-40", "explain LINE", ""),
    ("inspect-80", "inspect fixtures/6.12-amd64/params.ko", ""),
    ("inspect-40", "inspect fixtures/6.12-amd64/params.ko", ""),
    ("inspect-tty-80", "inspect fixtures/6.12-amd64/params.ko", ""),
    ("inspect-tty-40", "inspect fixtures/6.12-amd64/params.ko", ""),
    ("simulate-80", "simulate INSMOD LSMOD INSMOD RMMOD", "--kernel SPEC"),
    ("simulate-40", "simulate INSMOD LSMOD INSMOD RMMOD", "--kernel SPEC"),
    ("simulate-tty-80", "simulate INSMOD LSMOD INSMOD RMMOD", "--kernel SPEC"),
    ("simulate-tty-40", "simulate INSMOD LSMOD INSMOD RMMOD", "--kernel SPEC"),
    ("link-80", "link fixtures/6.12-amd64/hello.ko", "--kernel SPEC"),
    ("link-40", "link fixtures/6.12-amd64/hello.ko", "--kernel SPEC"),
    ("merge-80", "merge VERDICTS", ""),
    ("merge-40", "merge VERDICTS", ""),
    ("usage-80", "check", ""),
    ("usage-40", "check", ""),
    ("link-refused-40", "link fixtures/6.12-amd64/proprietary_gpl.ko", "--kernel SPEC"),
    ("two-kernels-40", "check fixtures/6.12-amd64 --kernel OTHER", "--kernel SPEC"),
    ("another-kernel-tty-80", "check fixtures/6.1-amd64/importer.ko", "--kernel SPEC"),
    ("another-kernel-tty-40", "check fixtures/6.1-amd64/importer.ko", "--kernel SPEC"),
    ("parameters-40", "check fixtures/6.12-amd64/params.ko --params PARAMS", TEXTS),
    ("parameters-tty-80", "check fixtures/6.12-amd64/params.ko --params PARAMS", TEXTS),
    ("explain-family-80", "explain SYM", ""),
    ("explain-family-40", "explain SYM", ""),
    ("name-80", "check importer --root ROOT", "--kernel SPEC"),
    ("name-40", "check importer --root ROOT", "--kernel SPEC"),
    ("name-tty-80", "check importer --root ROOT", "--kernel SPEC"),
    ("name-tty-40", "check importer --root ROOT", "--kernel SPEC"),
    ("name-no-deps-80", "check importer --no-deps --root ROOT", "--kernel SPEC"),
    ("name-built-in-80", "check unix --root ROOT", "--kernel SPEC"),
    ("name-built-in-40", "check unix --root ROOT", "--kernel SPEC"),
    ("name-of-nothing-80", "check nothing --root ROOT", "--kernel SPEC"),
    ("name-of-nothing-40", "check nothing --root ROOT", "--kernel SPEC"),
    ("folder-tty-80", "check fixtures/6.12-amd64", "--kernel SPEC"),
    ("folder-tty-40", "check fixtures/6.12-amd64", "--kernel SPEC"),
    ("two-kernels-tty-80", "check fixtures/6.12-amd64 --kernel OTHER", "--kernel SPEC"),
    ("link-refused-tty-80", "link fixtures/6.12-amd64/proprietary_gpl.ko", "--kernel SPEC"),
    ("link-refused-tty-40", "link fixtures/6.12-amd64/proprietary_gpl.ko", "--kernel SPEC"),
];

/// The root of a system whose modules depmod has seen. The paths in it are longer than any line.
fn root(dir: &Path) -> PathBuf {
    let root = dir.join("ROOT");
    let modules = root.join("lib/modules/6.12.117+deb12-amd64");
    let folder = modules.join("kernel/drivers/misc");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["importer.ko", "exporter.ko"] {
        std::fs::copy(fixtures("6.12-amd64").join(name), folder.join(name)).unwrap();
    }
    let dep = "kernel/drivers/misc/importer.ko: kernel/drivers/misc/exporter.ko\nkernel/drivers/misc/exporter.ko:\n";
    std::fs::write(modules.join("modules.dep"), dep).unwrap();
    std::fs::write(modules.join("modules.builtin"), "kernel/net/unix/unix.ko\n").unwrap();
    root
}

/// The files that words in capitals stand for.
fn made(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let kernel = fixtures("6.12-amd64");
    let file = |name: &str| read(&kernel.join(name));
    let mut spec = Records::default();
    spec.set("release", "6.12.117+deb12-amd64");
    for (record, value) in [("size", "1280"), ("init", "312"), ("exit", "1200")] {
        spec.set(&format!("struct-module-{record}"), value);
    }
    spec.set("vermagic", "6.12.117+deb12-amd64 SMP preempt mod_unload modversions ");
    for (record, name) in [("kallsyms", "kallsyms"), ("symvers", "Module.symvers"), ("config", "config")] {
        spec.set(record, file(name));
    }
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/another-key.pem");
    spec.set("certificate-0000", module_signature::keyring::parse(&read(&pem)).unwrap().remove(0));
    let mut bytes = Vec::new();
    spec_file::write(&spec, &mut bytes).unwrap();

    let mut symvers = text(&kernel.join("Module.symvers"));
    for (symbol, owner, namespace) in [
        ("kmodld_add", "drivers/misc/exporter", ""),
        ("kmodld_shared", "drivers/misc/exporter", ""),
        ("kmodld_ns_negate", "drivers/misc/ns-exporter", "KMODLD_FIXTURES"),
        ("kmodld_ns_value", "drivers/misc/ns-exporter", "KMODLD_FIXTURES"),
    ] {
        symvers.push_str(&format!("0x12345678\t{symbol}\t{owner}\tEXPORT_SYMBOL_GPL\t{namespace}\n"));
    }
    let mut changed = file("hello_signed.ko");
    // One bit of padding that no check looks at.
    changed[9] ^= 1;
    let mut other = Records::default();
    other.set("release", "6.1.0-56-amd64");
    for (record, name) in [("kallsyms", "kallsyms"), ("symvers", "Module.symvers"), ("config", "config")] {
        other.set(record, read(&fixtures("6.1-amd64").join(name)));
    }
    let mut of_other = Vec::new();
    spec_file::write(&other, &mut of_other).unwrap();
    let files = [
        ("OTHER", of_other),
        ("SPEC", bytes),
        ("SYMVERS", symvers.into_bytes()),
        ("CHANGED", changed),
        ("VERDICTS", VERDICTS.into()),
    ];
    let write = |(word, bytes): (&'static str, Vec<u8>)| {
        let path = dir.join(word);
        std::fs::write(&path, bytes).unwrap();
        (word, path)
    };
    files.into_iter().map(write).chain([("ROOT", root(dir))]).collect()
}

/// Words of a command line that have blanks in them.
const PHRASES: [(&str, &str); 5] = [
    ("PARAMS", "an_int=x a_byte=256 a_bool no_such=1 an_uint"),
    ("LINE", "[   12.345678] hello: disagrees about version of symbol module_layout"),
    ("INSMOD", "insmod fixtures/6.12-amd64/params.ko --params \"an_int=7 a_bool\""),
    ("RMMOD", "rmmod params"),
    ("LSMOD", "lsmod"),
];

/// Lines of `check --jsonl`: one that loads, one that is refused, one that could not be read.
const VERDICTS: &str = r#"{"schema":2,"file":"a.ko","module":"a","kernel":"6.12.0","coverage":"exact","verdict":"loads","errno":null,"dmesg":[],"taints":"","unjudged":[],"findings":[]}
{"schema":2,"file":"b.ko","module":"b","kernel":"6.12.0","coverage":"exact","verdict":"refused","errno":"ENOENT","dmesg":["b: Unknown symbol x (err -2)"],"taints":"","unjudged":[],"findings":[]}
{"schema":2,"file":"c.ko","verdict":"unreadable","error":"c.ko: cannot read: permission denied"}
"#;

fn phrase(word: &str) -> Option<&'static str> {
    PHRASES.into_iter().find(|(name, _)| *name == word).map(|(_, text)| text)
}

/// What is left when the bar that shows how far a run is has gone: how often it is drawn depends on time.
fn without_progress(text: &str) -> String {
    const CLEAR: &str = "\x1b[K";
    let mut out = String::new();
    for (at, part) in text.replace('\r', "").split(CLEAR).enumerate() {
        let is_bar = at > 0
            && part
                .strip_prefix('[')
                .is_some_and(|rest| rest.trim_start_matches(['#', '.']).starts_with("] "));
        if !is_bar {
            out.push_str(part);
        }
    }
    out
}

#[test]
fn what_a_person_sees() {
    let dir = tempfile::tempdir().unwrap();
    let files = made(dir.path());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut complaints = Vec::new();
    for (name, args, kernel) in RUNS {
        let words = args.split(' ').chain(kernel.split(' ')).filter(|word| !word.is_empty());
        let real: Vec<String> = words
            .map(|word| match (files.iter().find(|(made, _)| *made == word), phrase(word)) {
                (Some((_, path)), _) => path.display().to_string(),
                (None, Some(phrase)) => String::from(phrase),
                (None, None) => String::from(word),
            })
            .collect();
        let shown =
            args.split(' ').map(|word| phrase(word).map_or(word.to_owned(), |text| format!("{text:?}")));
        let shown: Vec<String> = shown.chain([(*kernel).to_owned()]).collect();
        let mut seen = format!("$ kmodld {}\n", shown.join(" ").trim_end());
        let columns: Option<usize> = name.rsplit('-').next().and_then(|end| end.parse().ok());
        if let Some(columns) = columns.filter(|_| name.contains("-tty-")) {
            let Some((text, code)) = on_terminal(columns, &real) else {
                skipped(&format!("golden {name}"), "script (util-linux) is not here");
                continue;
            };
            seen.push_str(&format!("--- terminal\n{}", without_progress(&text).replace('\x1b', "\u{241b}")));
            seen.push_str(&format!("--- exit code {}\n", code.unwrap()));
        } else {
            let mut program = program();
            program.envs(columns.map(|columns| ("COLUMNS", columns.to_string())));
            let output = program.args(real).current_dir(root).env_remove("NO_COLOR").output().unwrap();
            for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                seen.push_str(&format!("--- {stream}\n{}", String::from_utf8_lossy(bytes)));
            }
            seen.push_str(&format!("--- exit code {}\n", output.status.code().unwrap()));
        }
        for (word, path) in &files {
            seen = seen.replace(&path.display().to_string(), word);
        }
        let path = root.join("tests/golden").join(name).with_extension("txt");
        if update {
            std::fs::write(&path, &seen).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != seen {
            complaints.push(format!("{} differs; now it is:\n{seen}", path.display()));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let known = std::fs::read_dir(root.join("tests/golden")).unwrap().map(|e| e.unwrap().path());
    let texts = known.filter(|p| p.extension().is_some_and(|e| e == "txt")).count();
    assert_eq!(texts, RUNS.len(), "a text in tests/golden is of no run");
}
