//! `kmodld kernel`: what an image, a SPEC or a tree tells of a kernel. KMODLD_TRUTH names the folder that holds
//! `kernels/RELEASE/` and `truth/SET.tar.xz`: without it only what needs no image is tested.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::captures::{Set, packs, set_name};
use common::trees::folder;
use common::{fixtures, kmodld, ko};
use serde_json::{Value, json};

/// One kernel of the truth, its image unpacked.
struct Truth {
    release: String,
    folder: PathBuf,
    image: String,
    spec: String,
    scratch: tempfile::TempDir,
}

impl Truth {
    fn open(folder: &Path) -> Self {
        let release = folder.file_name().unwrap().to_string_lossy().into_owned();
        let packed =
            ["vmlinuz", "vmlinuz.xz"].map(|n| folder.join(n)).into_iter().find(|p| p.exists()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("vmlinuz");
        std::fs::write(&image, kmodld::input::read_decompressed(&packed).unwrap()).unwrap();
        let (image, spec) = (image.display().to_string(), scratch.path().join("spec").display().to_string());
        Truth { release, folder: folder.to_owned(), image, spec, scratch }
    }

    /// With its SPEC.
    fn with_spec(folder: &Path) -> Self {
        let kernel = Truth::open(folder);
        kmodld(["kernel", &kernel.image, "-o", &kernel.spec]).exits(0);
        kernel
    }

    fn arch(&self) -> &'static str {
        if self.release.ends_with("arm64") { "arm64" } else { "amd64" }
    }

    /// The folder of fixtures for this kernel, if they are of this very release.
    fn fixtures(&self) -> Option<&'static str> {
        common::KERNELS.into_iter().find(|k| common::release(k) == self.release)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// kallsyms as it was read on a boot without KASLR.
    fn captured_kallsyms(&self, top: &Path) -> Option<String> {
        for pack in packs(&top.join("truth")) {
            let name = set_name(&pack);
            if !name.contains(self.arch()) || name.contains("-kaslr") || name.contains("mitoff") {
                continue;
            }
            let set = Set::open_with(&pack, |file| file == "kallsyms.txt");
            if set.kernel() == self.release {
                return Some(common::text(&set.kallsyms()));
            }
        }
        None
    }
}

/// The folder of the truth and those of its kernels; without any this says which test goes without.
fn truth(test: &str) -> Option<(PathBuf, Vec<PathBuf>)> {
    let top = common::from_environment(test, "KMODLD_TRUTH")?;
    let is_kernel = |path: &PathBuf| path.join("vmlinuz").exists() || path.join("vmlinuz.xz").exists();
    let kernels: Vec<PathBuf> = folder(&top.join("kernels")).into_iter().filter(is_kernel).collect();
    if kernels.is_empty() {
        common::skipped(test, &format!("no kernels/RELEASE/vmlinuz in {}", top.display()));
        return None;
    }
    Some((top, kernels))
}

/// Lines in order, and how many of one are not among the other.
#[track_caller]
fn same_lines(what: &str, mut want: Vec<String>, mut got: Vec<String>) {
    want.sort_unstable();
    got.sort_unstable();
    if want != got {
        let (w, g): (BTreeSet<_>, BTreeSet<_>) = (want.iter().collect(), got.iter().collect());
        let (missing, extra) = (w.difference(&g).collect::<Vec<_>>(), g.difference(&w).collect::<Vec<_>>());
        panic!(
            "{what}: {} of {} lines missing {:?}, {} extra {:?}",
            missing.len(),
            want.len(),
            missing.first(),
            extra.len(),
            extra.first()
        );
    }
}

#[test]
fn images_tell_what_the_booted_kernel_told() {
    let test = "images_tell_what_the_booted_kernel_told";
    let Some((top, kernels)) = truth(test) else { return };
    for kernel in kernels.iter().map(|k| Truth::open(k)) {
        let release = &kernel.release;
        let lines = |option| {
            let ran = kmodld(["kernel", &kernel.image, option]).exits(0);
            ran.stdout.lines().map(|l| l.trim_end_matches('\t').to_owned()).collect::<Vec<_>>()
        };
        let exports = lines("--exports");
        let symvers = kmodld::input::read_decompressed(&kernel.folder.join("Module.symvers.xz")).unwrap();
        let want: Vec<String> = String::from_utf8_lossy(&symvers)
            .lines()
            .filter(|l| l.split('\t').nth(2) == Some("vmlinux"))
            .map(|l| l.trim_end_matches('\t').to_owned())
            .collect();
        let count = exports.len();
        same_lines(&format!("IMG-27: exports of {release}"), want, exports);
        let Some(kallsyms) = kernel.captured_kallsyms(&top) else {
            common::skipped(&format!("{test} ({release})"), "no captured kallsyms of a boot without KASLR");
            continue;
        };
        let want: Vec<String> = kallsyms.lines().filter(|l| !l.contains('[')).map(String::from).collect();
        let symbols = lines("--kallsyms");
        common::tell(&format!("{release}: {count} exports, {} symbols", symbols.len()));
        same_lines(&format!("link addresses of {release}"), want, symbols);
    }
}

#[test]
fn images_tell_how_struct_module_looks() {
    let Some((_, kernels)) = truth("images_tell_how_struct_module_looks") else { return };
    for kernel in kernels.iter().map(|k| Truth::open(k)) {
        let release = kernel.release.as_str();
        let facts = kmodld(["kernel", &kernel.image, "--json"]).exits(0).json();
        assert_eq!(facts["release"], release, "the image");
        let arch = if kernel.arch() == "arm64" { "aarch64" } else { "x86_64" };
        assert_eq!(facts["arch"], arch, "the image: {release}");
        assert_eq!(facts["page_size"], 4096, "the image: {release}");
        let banner = facts["banner"].as_str().unwrap();
        assert!(banner.starts_with(&format!("Linux version {release} ")), "the image: {banner}");
        assert!(
            facts["vermagic"].as_str().unwrap().starts_with(&format!("{release} SMP ")),
            "VER-20: {facts}"
        );
        assert!(facts["certificates"].as_u64().unwrap() >= 1, "the image: Debian signs its modules: {facts}");
        let want = match (release.starts_with("6.1."), release.starts_with("6.12."), kernel.arch()) {
            (true, _, "amd64") => ("0x380", "0x350"),
            (true, _, _) => ("0x380", "0x340"),
            (_, true, "amd64") => ("0x500", "0x4b0"),
            (_, true, _) => ("0x500", "0x4a8"),
            _ => continue,
        };
        let (size, exit) = want;
        let want = json!({ "size": size, "init": "0x138", "exit": exit });
        assert_eq!(facts["struct_module"], want, "the image: {release}");
    }
}

#[test]
fn a_spec_stands_for_its_image() {
    let Some((_, kernels)) = truth("a_spec_stands_for_its_image") else { return };
    for kernel in kernels.iter().map(|k| Truth::with_spec(k)) {
        let release = &kernel.release;
        let size = std::fs::metadata(&kernel.spec).unwrap().len();
        assert!(size < 4 << 20, "{release}: a SPEC of {size} bytes");
        for option in ["--kallsyms", "--exports"] {
            let of = |path: &str| kmodld(["kernel", path, option]).exits(0).stdout;
            let (image, spec) = (of(&kernel.image), of(&kernel.spec));
            assert!(!image.is_empty(), "{release}: {option}");
            // Not assert_eq: both are megabytes.
            assert!(image == spec, "{release}: {option} of the SPEC is not that of the image");
        }
        let facts = |path: &str| {
            let mut facts = kmodld(["kernel", path, "--json"]).exits(0).json();
            // How it was found is another thing.
            facts.as_object_mut().unwrap().remove("found");
            facts
        };
        assert_eq!(facts(&kernel.image), facts(&kernel.spec), "{release}");
        // A SPEC of a SPEC is the same file.
        let again = kernel.path("again").display().to_string();
        kmodld(["kernel", &kernel.spec, "-o", &again]).exits(0);
        assert!(common::read(Path::new(&again)) == common::read(Path::new(&kernel.spec)), "{release}");
        let Some(folder) = kernel.fixtures() else { continue };
        for module in ["hello", "hello_signed", "proprietary_gpl", "relocs"] {
            let file = ko(folder, module).display().to_string();
            let of = |path: &str| kmodld(["check", "--jsonl", &file, "--kernel", path]);
            let (image, spec) = (of(&kernel.image), of(&kernel.spec));
            assert_eq!((image.code, &image.stdout), (spec.code, &spec.stdout), "{release}: {module}");
        }
    }
}

#[test]
fn damaged_specs_are_refused() {
    let Some((_, kernels)) = truth("damaged_specs_are_refused") else { return };
    let kernel = Truth::with_spec(&kernels[0]);
    let good = common::read(Path::new(&kernel.spec));
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let end = good.iter().position(|b| *b == b'\n').unwrap();
    assert_eq!(good[..end], *b"kmodld kernel spec 2", "docs/spec-file.md");
    let mut newer = good.clone();
    newer[end - 1] = b'3';
    let cases = [
        ("half", good[..good.len() / 2].to_vec(), "damaged SPEC"),
        ("last-byte-missing", good[..good.len() - 1].to_vec(), "damaged SPEC"),
        ("first-line-only", good[..=end].to_vec(), "damaged SPEC"),
        ("first-line-cut", good[..end].to_vec(), "damaged SPEC"),
        ("flipped-in-the-middle", flipped(good.len() / 2), "damaged SPEC"),
        ("flipped-checksum", flipped(good.len() - 1), "damaged SPEC"),
        ("longer", [&good[..], b"x"].concat(), "damaged SPEC"),
        ("newer", newer, "a SPEC of version 3; this program reads version 2"),
        ("no-spec-any-more", flipped(0), "not a kernel image"),
    ];
    let hello = ko("6.12-amd64", "hello").display().to_string();
    for (name, bytes, message) in cases {
        let path = kernel.path(name);
        std::fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        for args in [vec!["kernel", &path, "--json"], vec!["check", &hello, "--kernel", &path, "--jsonl"]] {
            let ran = kmodld(&args).exits(3);
            assert!(ran.stderr.contains(&path), "the file is not named: {}", ran.stderr);
            assert!(ran.stderr.contains(message), "{name}: no {message:?} in {}", ran.stderr);
            assert_eq!(ran.stdout, "", "{name}");
        }
    }
}

/// kallsyms with the upper half moved, as KASLR does.
fn moved(kallsyms: &str, by: u64) -> String {
    let line = |line: &str| {
        let (address, rest) = line.split_once(' ').unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let address = if address >> 63 == 1 { address + by } else { address };
        format!("{address:016x} {rest}\n")
    };
    kallsyms.lines().map(line).collect()
}

#[test]
fn an_image_and_the_symbols_of_its_boot() {
    let Some((_, kernels)) = truth("an_image_and_the_symbols_of_its_boot") else { return };
    for kernel in kernels.iter().map(|k| Truth::with_spec(k)) {
        let Some(folder) = kernel.fixtures() else { continue };
        let release = &kernel.release;
        let hello = ko(folder, "hello").display().to_string();
        let out = kernel.path("out").display().to_string();
        let map = kernel.path("kallsyms");
        let imports = |symtab: Option<&str>| {
            let mut args = vec!["link", &hello, "--kernel", &kernel.spec, "-o", &out, "--json"];
            symtab.iter().for_each(|s| args.extend(["--symtab", s]));
            kmodld(&args).exits(0).json()["imports"].clone()
        };
        let at_link = imports(None);
        let text = common::text(&fixtures(folder).join("kallsyms"));
        for slide in [0u64, 0x1e0_0000] {
            std::fs::write(&map, moved(&text, slide)).unwrap();
            let live = imports(Some(map.to_str().unwrap()));
            for (a, b) in at_link.as_array().unwrap().iter().zip(live.as_array().unwrap()) {
                assert_eq!(
                    common::hex(&b["addr"]),
                    common::hex(&a["addr"]) + slide,
                    "KSYM-30: {release}: {b}"
                );
            }
        }
        // Another kernel's symbols, of the same architecture.
        let other = common::KERNELS.into_iter().find(|k| *k != folder && k.ends_with(kernel.arch())).unwrap();
        let other = fixtures(other).join("kallsyms").display().to_string();
        for described in [&kernel.image, &kernel.spec] {
            let ran = kmodld(["check", &hello, "--kernel", described, "--symtab", &other]).exits(3);
            assert!(ran.stderr.contains("they are two kernels"), "KSYM-30: {release}: {}", ran.stderr);
            assert!(ran.stderr.contains(&other), "KSYM-30: the file is not named: {}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
        // One function elsewhere is enough.
        let line = text.lines().rfind(|l| l.contains(" T ") && !l.contains("_text")).unwrap();
        let elsewhere = text.replacen(line, moved(line, 0x10).trim_end(), 1);
        std::fs::write(&map, elsewhere).unwrap();
        let ran = kmodld(["check", &hello, "--kernel", &kernel.spec, "--symtab", map.to_str().unwrap()]);
        assert!(ran.exits(3).stderr.contains("two kernels"), "KSYM-30: {release}: {line}");
    }
}

/// What only an image tells: the size of struct module, vermagic, and the keys.
#[test]
fn verdicts_that_need_an_image() {
    let Some((_, kernels)) = truth("verdicts_that_need_an_image") else { return };
    for kernel in kernels.iter().map(|k| Truth::with_spec(k)) {
        let Some(folder) = kernel.fixtures() else { continue };
        let release = &kernel.release;
        let check = |file: &Path, more: &[&str]| {
            let file = file.display().to_string();
            let args = ["check", "--jsonl", &file, "--kernel", &kernel.spec];
            kmodld(args.iter().chain(more)).json()
        };
        // Nobody's kernel has the key of the fixtures.
        let signed = check(&ko(folder, "hello_signed"), &[]);
        assert_eq!(
            (&signed["verdict"], &signed["taints"]),
            (&json!("loads"), &json!("OE")),
            "SIG-12: {release}"
        );
        let enforced = check(&ko(folder, "hello_signed"), &["--cmdline", "module.sig_enforce=1"]);
        assert_eq!(enforced["errno"], "EKEYREJECTED", "SIG-11: {release}");
        let line = "Loading of module with unavailable key is rejected";
        assert_eq!(enforced["dmesg"], json!([line]), "SIG-11: {release}");
        // A module of the other release, everything named.
        let other = common::KERNELS.into_iter().find(|k| *k != folder && k.ends_with(kernel.arch())).unwrap();
        let v = check(&ko(other, "hello"), &[]);
        assert_eq!(v["errno"], "ENOEXEC", "{release}: {v}");
        let codes: Vec<&str> =
            v["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
        // 6.1 does not compare the size of struct module.
        let size = release.starts_with("6.12").then_some("VAL-48");
        for code in ["VER-6", "LIC-2", "SIG-12", "SYM-5b"].into_iter().chain(size) {
            assert!(codes.contains(&code), "{release}: no {code} in {codes:?}");
        }
        assert_eq!(v["findings"][0]["stops_here"], true, "{release}: {v}");
        // Another vermagic.
        let mut elf = common::Elf::new(common::read(&ko(folder, "hello")));
        elf.replace(".modinfo", b" mod_unload ", b" mod_unloax ");
        let file = kernel.path("vermagic.ko");
        std::fs::write(&file, &elf.bytes).unwrap();
        let facts = kmodld(["kernel", &kernel.spec, "--json"]).exits(0).json();
        let wanted = facts["vermagic"].as_str().unwrap();
        let had = wanted.replace(" mod_unload ", " mod_unloax ");
        let v = check(&file, &[]);
        assert_eq!(v["errno"], "ENOEXEC", "VER-23: {release}: {v}");
        let line = format!("hello: version magic '{had}' should be '{wanted}'");
        assert_eq!(v["dmesg"], json!([line]), "VER-23: {release}");
        let v = check(&file, &["--force-vermagic"]);
        assert_eq!((&v["verdict"], &v["taints"]), (&json!("loads"), &json!("FOE")), "VER-40: {release}");
    }
}

#[test]
fn files_that_are_no_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    // Fixed bytes that begin as nothing known does.
    let mut random = Vec::new();
    let mut x = 0x2545_f491_4f6c_dd1du64;
    while random.len() < 100_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        random.extend(x.to_le_bytes());
    }
    let hello = ko("6.12-amd64", "hello").display().to_string();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let gzip = [b"\x1f\x8b\x08\0", &random[..5000]].concat();
    let cases = [
        (hello.clone(), "not a linked kernel"),
        (make("empty", b""), "not a kernel image"),
        (make("random", &random), "not a kernel image"),
        (make("text", b"#!/bin/sh\nexit 0\n"), "not a kernel image"),
        (make("zeros", &[0; 65536]), "not a kernel image"),
        (make("gzip", &gzip), "gzip"),
        (make("elf", &common::read(Path::new(&hello))[..64]), "ELF"),
        (dir.path().join("missing").display().to_string(), "cannot read"),
        (folder.display().to_string(), "not a kernel tree"),
    ];
    for (path, message) in cases {
        for args in [vec!["kernel", &path], vec!["check", &hello, "--kernel", &path]] {
            let ran = kmodld(&args).exits(3);
            assert!(ran.stderr.contains(&path), "the file is not named: {}", ran.stderr);
            assert!(ran.stderr.contains(message), "IMG-2: {path}: no {message:?} in {}", ran.stderr);
            assert_eq!(ran.stdout, "", "{path}");
        }
    }
}

/// A folder with `lib/modules/RELEASE` for each release.
fn tree(releases: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for release in releases {
        std::fs::create_dir_all(dir.path().join("lib/modules").join(release).join("build")).unwrap();
    }
    dir
}

#[test]
fn a_tree_of_several_kernels_has_to_be_named() {
    let dir = tree(&["6.1.0-56-amd64", "6.12.117+deb12-amd64"]);
    let root = dir.path().display().to_string();
    let ran = kmodld(["kernel", &root]).exits(3);
    for word in [&root, "several kernels", "6.1.0-56-amd64", "6.12.117+deb12-amd64"] {
        assert!(ran.stderr.contains(word), "no {word:?} in {}", ran.stderr);
    }
    // Naming one is enough, if there is anything in it.
    let modules = dir.path().join("lib/modules/6.12.117+deb12-amd64");
    let named = modules.display().to_string();
    let ran = kmodld(["kernel", &named]).exits(3);
    let what = "nothing under it describes kernel 6.12.117+deb12-amd64";
    assert!(ran.stderr.contains(what), "no {what:?} in {}", ran.stderr);
    std::fs::copy(fixtures("6.12-amd64/Module.symvers"), modules.join("build/Module.symvers")).unwrap();
    let facts = kmodld(["kernel", &named, "--json"]).exits(0).json();
    assert_eq!(facts["release"], "6.12.117+deb12-amd64");
    kmodld(["kernel", &root]).exits(3);
}

#[test]
fn a_kernel_of_a_machine_that_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let symvers = fixtures("6.12-amd64").join("Module.symvers");
    let mut records = kernel::Records::default();
    records.set("machine", "243");
    records.set("symvers", common::read(&symvers));
    let mut spec = Vec::new();
    kmodld::kernel_source::spec_file::write(&records, &mut spec).unwrap();
    std::fs::write(path("spec"), spec).unwrap();
    std::fs::write(path("config"), "#\n# Linux/riscv 6.12.0 Kernel Configuration\n#\nCONFIG_SMP=y\n")
        .unwrap();
    let (spec, config, symvers) = (path("spec"), path("config"), symvers.display().to_string());
    let hello = ko("6.12-amd64", "hello").display().to_string();
    let number = "a kernel for RISC-V: kmodld knows x86_64, aarch64";
    for (args, message) in [
        (vec!["kernel", &spec], number),
        (vec!["check", &hello, "--kernel", &spec], number),
        (
            vec!["check", &hello, "--symvers", &symvers, "--config", &config],
            "a configuration for riscv: kmodld knows x86_64, aarch64",
        ),
    ] {
        let ran = kmodld(&args).exits(3);
        assert!(ran.stderr.contains(message), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn a_tree_with_nothing_but_module_symvers() {
    for kernel in common::KERNELS {
        let release = common::release(kernel);
        let dir = tree(&[&release]);
        let root = dir.path().display().to_string();
        let modules = dir.path().join("lib/modules").join(&release);
        std::fs::copy(fixtures(kernel).join("Module.symvers"), modules.join("build/Module.symvers")).unwrap();
        let hello = ko(kernel, "hello").display().to_string();
        let wrong = ko(kernel, "importer").display().to_string();
        let spec = dir.path().join("spec").display().to_string();
        kmodld(["kernel", &root, "-o", &spec]).exits(0);
        for described in [root.as_str(), modules.to_str().unwrap(), &spec] {
            let v = kmodld(["check", "--jsonl", &hello, "--kernel", described]).exits(4).json();
            assert_eq!((&v["verdict"], &v["taints"]), (&json!("undecided"), &json!("OE")), "{kernel}: {v}");
            let v = kmodld(["check", "--jsonl", "--no-deps", &wrong, "--kernel", described]).exits(1).json();
            assert_eq!(v["errno"], "ENOENT", "{kernel}: SYM-5: {v}");
            for option in ["--exports", "--kallsyms"] {
                let ran = kmodld(["kernel", described, option]).exits(3);
                assert!(ran.stderr.contains(described), "{option}: {}", ran.stderr);
            }
        }
        let ran = kmodld(["link", &hello, "--kernel", &root, "-o", &spec]).exits(3);
        assert!(ran.stderr.contains("no known address"), "link needs addresses: {}", ran.stderr);
    }
}

#[test]
fn a_stub_system_map_is_named_and_not_used() {
    let release = common::release("6.12-amd64");
    let dir = tree(&[&release]);
    let boot = dir.path().join("boot");
    std::fs::create_dir(&boot).unwrap();
    let stub = b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
    let map = boot.join(format!("System.map-{release}"));
    std::fs::write(&map, stub).unwrap();
    let root = dir.path().display().to_string();
    // Nothing else there: it does not describe a kernel.
    kmodld(["kernel", &root]).exits(3);
    let build = dir.path().join("lib/modules").join(&release).join("build");
    std::fs::copy(fixtures("6.12-amd64/Module.symvers"), build.join("Module.symvers")).unwrap();
    let facts = kmodld(["kernel", &root, "--json"]).exits(0).json();
    assert_eq!(facts["symbols"], Value::Null, "{facts}");
    let found = facts["found"].as_array().unwrap();
    let how = found.iter().find(|f| f["what"] == "no symbols").unwrap_or_else(|| panic!("{facts}"));
    let how = how["how"].as_str().unwrap();
    assert!(how.contains("stub") && how.contains(map.to_str().unwrap()), "{how}");
    assert!(kmodld(["kernel", &root]).exits(0).stdout.contains("stub"));
    let hello = ko("6.12-amd64", "hello").display().to_string();
    kmodld(["check", &hello, "--kernel", &root]).exits(4);
    // A real one in its place is used.
    std::fs::copy(fixtures("6.12-amd64/kallsyms"), &map).unwrap();
    let facts = kmodld(["kernel", &root, "--json"]).exits(0).json();
    assert!(facts["symbols"].as_u64().unwrap() > 100, "{facts}");
    let out = dir.path().join("out").display().to_string();
    kmodld(["link", &hello, "--kernel", &root, "-o", &out]).exits(0);
}

#[test]
fn usage() {
    let tree = tree(&["6.12.0"]);
    let path = tree.path().display().to_string();
    assert!(kmodld(["kernel", "6.12.0", &path]).exits(2).stderr.contains("Usage"));
    assert!(kmodld(["kernel", &path, "--json", "--exports"]).exits(2).stderr.contains("--exports"));
    assert!(kmodld(["kernel", &path, "--no-such-option"]).exits(2).stderr.contains("--no-such-option"));
    let help = kmodld(["kernel", "--help"]).exits(0).stdout;
    for option in ["--kallsyms", "--exports", "--json", "--output"] {
        assert!(help.contains(option), "no {option} in {help}");
    }
}

/// A tree is of a release, even where nothing in it holds the kernel's vermagic.
#[test]
fn a_tree_tells_its_release() {
    let dir = tree(&["6.12.117+deb12-amd64"]);
    let build = dir.path().join("lib/modules/6.12.117+deb12-amd64/build");
    std::fs::copy(fixtures("6.12-amd64/Module.symvers"), build.join("Module.symvers")).unwrap();
    let root = dir.path().display().to_string();
    for (release, matches) in [("6.12.117+deb12-amd64", true), ("6.12.118+deb12-amd64", false)] {
        // Without __versions the whole of both vermagics is compared.
        let file = dir.path().join("mini.ko");
        std::fs::write(&file, common::elf::Builder::mini(release).build()).unwrap();
        let v: Value = kmodld(["check", "--jsonl", file.to_str().unwrap(), "--kernel", &root]).json();
        let found = v["findings"].as_array().unwrap().iter().any(|f| f["code"] == "VER-23");
        assert_eq!(found, !matches, "VER-22, VER-23: a module of {release} on {root}: {v}");
    }
}

/// Debian keeps image and configuration beside the modules since 7.2, and in boot/ before.
#[test]
fn an_image_and_a_configuration_lie_in_either_place() {
    let release = common::release("6.12-amd64");
    for (image, config) in [("boot/vmlinuz-{r}", "boot/config-{r}"), ("{m}/vmlinuz", "{m}/config")] {
        let dir = tree(&[&release]);
        let root = dir.path().display().to_string();
        let at = |p: &str| dir.path().join(p.replace("{m}", "lib/modules/{r}").replace("{r}", &release));
        std::fs::create_dir(dir.path().join("boot")).unwrap();
        let symvers = at("{m}/build/Module.symvers");
        std::fs::copy(fixtures("6.12-amd64/Module.symvers"), symvers).unwrap();
        let head = format!("#\n# Linux/x86 {release} Kernel Configuration\n#\nCONFIG_MODULES=y\n");
        std::fs::write(at(config), head).unwrap();
        let facts = kmodld(["kernel", &root, "--json"]).exits(0).json();
        let found = facts["found"].as_array().unwrap();
        let path = at(config).display().to_string();
        assert!(found.iter().any(|f| f["how"].as_str().unwrap().contains(&path)), "{config}: {facts}");
        // What stands where an image is expected is read as one.
        std::fs::write(at(image), "no image").unwrap();
        let ran = kmodld(["kernel", &root]).exits(3);
        let path = at(image).display().to_string();
        assert!(ran.stderr.contains(&path), "{image}: {}", ran.stderr);
    }
}
