//! What a person sees: stdout, stderr and exit code of whole runs, word for word, as tests/golden/*.txt hold
//! them. `UPDATE_GOLDEN=1 cargo test --test golden` writes them anew; read the difference before it is kept.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{fixtures, program, read, text};
use kernel::Records;
use kmodld::kernel_source::spec_file;

/// The texts that describe the kernel of 6.12 on amd64.
const TEXTS: &str = "--symtab fixtures/6.12-amd64/kallsyms --symvers fixtures/6.12-amd64/Module.symvers --config fixtures/6.12-amd64/config";
/// Module.symvers of a kernel that has the fixtures in its tree.
const TREE: &str =
    "--symtab fixtures/6.12-amd64/kallsyms --symvers SYMVERS --config fixtures/6.12-amd64/config";

/// Name and arguments of each run; a word in capitals stands for a file that is made for it. Where a name ends with a
/// number, that is how many columns the run is told to have.
const RUNS: [(&str, &str, &str); 27] = [
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
];

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
    let files =
        [("OTHER", of_other), ("SPEC", bytes), ("SYMVERS", symvers.into_bytes()), ("CHANGED", changed)];
    let write = |(word, bytes): (&'static str, Vec<u8>)| {
        let path = dir.join(word);
        std::fs::write(&path, bytes).unwrap();
        (word, path)
    };
    files.into_iter().map(write).collect()
}

const PARAMS: &str = "an_int=x a_byte=256 a_bool no_such=1 an_uint";

#[test]
fn what_a_person_sees() {
    let dir = tempfile::tempdir().unwrap();
    let files = made(dir.path());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut complaints = Vec::new();
    for (name, args, kernel) in RUNS {
        let words = args.split(' ').chain(kernel.split(' '));
        let real = words.map(|word| match files.iter().find(|(made, _)| *made == word) {
            Some((_, path)) => path.display().to_string(),
            None if word == "PARAMS" => String::from(PARAMS),
            None => String::from(word),
        });
        let output = {
            let mut program = program();
            if let Some(columns) = name.rsplit('-').next().filter(|end| end.parse::<u16>().is_ok()) {
                program.env("COLUMNS", columns);
            }
            program.args(real).current_dir(root).env_remove("NO_COLOR").output().unwrap()
        };
        let mut seen = format!("$ kmodld {args} {kernel}\n").replace("PARAMS", &format!("{PARAMS:?}"));
        for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            seen.push_str(&format!("--- {stream}\n{}", String::from_utf8_lossy(bytes)));
        }
        seen.push_str(&format!("--- exit code {}\n", output.status.code().unwrap()));
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
