//! kmodld on a machine: modules by name, what modprobe loads before them, and what a running kernel shows. All of it on
//! roots that are made up of the fixtures.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs;
use std::path::Path;

use common::{fixtures, kmodld, ko, release, text};
use kernel::{KernelDescriptionBuilder, KernelSymbols, Keyring, Piece, Types};
use kmodld::kernel_source::KernelSource;
use kmodld::kernel_source::running::Running;
use kmodld::modprobe::providers::Home;
use kmodld::modprobe::{Chosen, Meant};
use kmodld::root::Root;
use kmodld::setup::{Prepared, RunningFacts, prepare};
use kmodld::{Loader, Place};
use serde_json::Value;
use tempfile::TempDir;

const KERNEL: &str = "6.12-amd64";

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path.replace("{m}", &format!("lib/modules/{}", release(KERNEL))));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A root with modules of the fixture kernel and the tables that depmod makes of them.
fn root() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for module in ["exporter", "importer", "gpl_importer", "hello", "params"] {
        write(root, &format!("{{m}}/kernel/{module}.ko"), common::read(&ko(KERNEL, module)));
    }
    for (from, to) in [
        ("Module.symvers", "{m}/build/Module.symvers"),
        ("config", "{m}/config"),
        ("kallsyms", "{m}/System.map"),
    ] {
        write(root, to, common::read(&fixtures(KERNEL).join(from)));
    }
    write(
        root,
        "{m}/modules.dep",
        "kernel/importer.ko: kernel/exporter.ko\nkernel/gpl_importer.ko: kernel/exporter.ko\n\
        kernel/exporter.ko:\nkernel/hello.ko:\nkernel/params.ko:\n",
    );
    write(root, "{m}/modules.alias", "alias fixture-* importer\n");
    write(root, "{m}/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
    dir
}

fn check(root: &Path, args: &[&str]) -> Vec<Value> {
    let ran = kmodld([&["check", "--jsonl", "--root", root.to_str().unwrap()], args].concat());
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with(v: &Value) -> Vec<&str> {
    v["with"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn modules_have_names_and_bring_what_they_need() {
    let dir = root();
    let release = release(KERNEL);
    // What the texts do not tell of struct module leaves it undecided; nothing is refused.
    for args in [&["importer"][..], &["importer", "--kernel", &release], &["fixture-x"]] {
        let [v] = check(dir.path(), args).try_into().unwrap();
        assert_eq!(
            (v["module"].as_str(), v["errno"].as_str(), with(&v)),
            (Some("importer"), None, vec!["exporter"]),
            "SET-8"
        );
    }
    let [v] = check(dir.path(), &["importer", "--no-deps"]).try_into().unwrap();
    assert_eq!((v["errno"].as_str(), with(&v)), (Some("ENOENT"), vec![]), "SYM-5: insmod");
    let root = dir.path().to_str().unwrap();
    let ran = kmodld(["check", "ext4", "--root", root]).exits(0);
    assert_eq!(ran.stdout, format!("ext4 is built into {release}: there is nothing to load\n"));
    let ran = kmodld(["check", "hello", "nothing", "--root", root]).exits(3);
    assert!(ran.stderr.contains("nothing: no such file, and no such module under"), "{}", ran.stderr);
    assert!(ran.stdout.contains("hello.ko: loads"), "the others are judged: {}", ran.stdout);
    let ran = kmodld(["inspect", "fixture-y", "--root", root, "--json"]).exits(0);
    assert_eq!(ran.json()["module"], "importer");
    let ran = kmodld([
        "link",
        "importer",
        "--root",
        root,
        "--base",
        "0xffffffffc0000000",
        "--percpu",
        "0x1000",
        "--json",
    ]);
    let linked = ran.exits(0);
    assert!(linked.stderr.contains("loaded before: exporter"), "{}", linked.stderr);
    assert_eq!(linked.json()["depends"][0], "exporter");
}

/// Where the parts of a kernel lie does not matter: links lead to them, of files, of folders, of a whole release.
#[cfg(unix)]
#[test]
fn a_tree_may_be_put_together_of_links() {
    use std::os::unix::fs::symlink;
    let whole = root();
    let release = release(KERNEL);
    let modules = whole.path().join("lib/modules").join(&release);
    let top = tempfile::tempdir().unwrap();
    let [files, folders, one] = ["files", "folders", "one"].map(|name| top.path().join(name));
    let to = files.join("lib/modules").join(&release);
    fs::create_dir_all(to.join("build")).unwrap();
    for entry in fs::read_dir(&modules).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name() != "build" {
            symlink(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    symlink(modules.join("build/Module.symvers"), to.join("build/Module.symvers")).unwrap();
    fs::create_dir_all(&folders).unwrap();
    symlink(whole.path().join("lib"), folders.join("lib")).unwrap();
    fs::create_dir_all(one.join("lib/modules")).unwrap();
    symlink(&modules, one.join("lib/modules").join(&release)).unwrap();
    for has_tables in [true, false] {
        for tree in [&files, &folders, &one] {
            let path = tree.to_str().unwrap();
            let [v] = kmodld(["check", "importer", "--jsonl", "--kernel", path])
                .stdout
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_else(|_| panic!("{path}, depmod {has_tables}"));
            assert_eq!(
                (v["errno"].as_str(), with(&v)),
                (None, vec!["exporter"]),
                "{path}, depmod {has_tables}"
            );
        }
        // Out of the root of an image no link leads.
        for root in [&files, &folders, &one] {
            kmodld(["check", "importer", "--root", root.to_str().unwrap()]).exits(3);
        }
        fs::remove_file(modules.join("modules.dep")).unwrap_or_default();
        fs::remove_file(to.join("modules.dep")).unwrap_or_default();
    }
}

#[test]
fn a_path_is_a_path_and_a_name_is_a_name() {
    let dir = root();
    // A file of the name of a module, and a folder: the module wins, unless the argument is a path.
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("hello"), "no module").unwrap();
    let run = |argument: &str| {
        let mut program = common::program();
        program.current_dir(here.path()).args([
            "check",
            argument,
            "--jsonl",
            "--root",
            dir.path().to_str().unwrap(),
        ]);
        let out = program.output().unwrap();
        serde_json::from_slice::<Value>(&out.stdout).unwrap()
    };
    assert!(run("hello")["file"].as_str().unwrap().ends_with("kernel/hello.ko"));
    assert_eq!(run("./hello")["errno"], "ENOEXEC");
    fs::rename(here.path().join("hello"), here.path().join("other")).unwrap();
    assert_eq!(
        (run("other")["errno"].as_str(), run("other")["file"].as_str()),
        (Some("ENOEXEC"), Some("other"))
    );
}

#[test]
fn set_8_a_module_that_was_just_built_takes_the_trees_and_its_neighbours() {
    let dir = root();
    let built = tempfile::tempdir().unwrap();
    let file = built.path().join("importer.ko");
    fs::copy(ko(KERNEL, "importer"), &file).unwrap();
    let file = file.to_str().unwrap();
    let [v] = check(dir.path(), &[file]).try_into().unwrap();
    assert_eq!((v["errno"].as_str(), with(&v)), (None, vec!["exporter"]), "SET-8: of the tree, by depends=");
    // By the table of depmod, where the module does not name it.
    let nameless = common::read(&ko(KERNEL, "importer"));
    let at = nameless.windows(16).position(|w| w == b"depends=exporter").unwrap();
    let nameless = [&nameless[..at], b"dependx=exporter", &nameless[at + 16..]].concat();
    fs::write(file, nameless).unwrap();
    let symbols = "alias symbol:kmodld_add exporter\nalias symbol:kmodld_shared exporter\n";
    write(dir.path(), "{m}/modules.symbols", symbols);
    let [v] = check(dir.path(), &[file]).try_into().unwrap();
    assert_eq!(
        (v["errno"].as_str(), with(&v)),
        (None, vec!["exporter"]),
        "SET-8: of the tree, by modules.symbols"
    );
    // A neighbour comes before the tree.
    fs::copy(ko(KERNEL, "exporter"), built.path().join("exporter.ko")).unwrap();
    fs::remove_file(dir.path().join(format!("lib/modules/{}/kernel/exporter.ko", release(KERNEL)))).unwrap();
    let [v] = check(dir.path(), &[file]).try_into().unwrap();
    assert_eq!((v["errno"].as_str(), with(&v)), (None, vec!["exporter"]), "SET-8: of its folder");
}

#[test]
fn set_9_what_does_not_load_keeps_the_others_out() {
    let dir = root();
    write(dir.path(), "{m}/kernel/exporter.ko", common::read(&ko("6.1-amd64", "exporter")));
    let [v] = check(dir.path(), &["importer", "--force-modversion"]).try_into().unwrap();
    let codes: Vec<&str> =
        v["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"SET-9"), "SET-9: {v}");
    assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("ENOEXEC")), "SET-9");
    // A softdep may fail.
    write(dir.path(), "{m}/modules.softdep", "softdep hello pre: exporter\n");
    let [v] = check(dir.path(), &["hello"]).try_into().unwrap();
    assert_eq!((v["errno"].as_str(), with(&v)), (None, vec!["exporter"]), "SET-9: not required");
}

#[test]
fn settings_of_modprobe_count() {
    let dir = root();
    let root = dir.path().to_str().unwrap();
    write(
        dir.path(),
        "etc/modprobe.d/x.conf",
        "options params an_int=x\nblacklist importer\ninstall exporter /bin/false\n",
    );
    let [v] = check(dir.path(), &["params"]).try_into().unwrap();
    assert_eq!(v["errno"], "EINVAL", "PARAM: options of modprobe.d");
    let [v] = check(dir.path(), &["params", "--no-deps"]).try_into().unwrap();
    assert_eq!(v["errno"], Value::Null);
    let ran = kmodld(["check", "fixture-x", "--root", root]).exits(0);
    assert!(
        ran.stdout.contains("modprobe does not load by an alias: blacklist importer")
            && ran.stdout.contains("line 2"),
        "{}",
        ran.stdout
    );
    let ran = kmodld(["check", "importer", "--root", root]).exits(1);
    assert!(
        ran.stderr.contains("exporter is not loaded: modprobe runs `/bin/false' instead"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("refused with ENOENT"), "{}", ran.stdout);
}

/// The root, with what a running kernel shows.
fn machine() -> TempDir {
    let dir = root();
    let root = dir.path();
    write(root, "proc/version", "Linux version 6.12.117 (x) #1\n");
    write(root, "proc/cmdline", "root=/dev/sda1 module_blacklist=hello params.an_int=7 quiet\n");
    write(root, "proc/sys/kernel/tainted", "4096\n");
    write(root, "proc/sys/kernel/kptr_restrict", "0\n");
    write(root, "proc/kallsyms", text(&fixtures(KERNEL).join("kallsyms")));
    write(root, "proc/modules", "exporter 16384 0 - Live 0xffffffffc0201000 (OE)\n");
    write(
        root,
        "proc/vmallocinfo",
        "0xffffffffc0201000-0xffffffffc0206000   20480 load_module+0x1/0x2 pages=4 vmalloc\n\
        0xffffc90000000000-0xffffc90000005000   20480 x+0x1/0x2\n",
    );
    write(root, "sys/devices/system/cpu/present", "0-3\n");
    write(root, "sys/module/module/parameters/sig_enforce", "N\n");
    write(root, "sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
    write(root, "sys/firmware/none", "");
    dir
}

fn running(root: &Path) -> KernelSource {
    let running = Running { root: Root::new(root).unwrap(), release: release(KERNEL) };
    KernelSource { running: Some(running), ..KernelSource::default() }
}

fn prepared(source: &KernelSource) -> (Loader, Vec<String>) {
    match prepare(source, &RunningFacts::default(), &[], || None).unwrap() {
        Prepared::Ready { loader, unread, .. } => {
            let unread = unread.iter().map(|u| format!("{}: {}: {}", u.what, u.why, u.way)).collect();
            (*loader, unread)
        }
        Prepared::Refused { said, .. } => panic!("{said:?}"),
    }
}

#[test]
fn a_running_kernel_shows_what_it_is() {
    let dir = machine();
    let (loader, unread) = prepared(&running(dir.path()));
    let kernel = &loader.kernel;
    assert_eq!((&*kernel.release, kernel.state.cpus), (&*release(KERNEL), Some(4)));
    assert_eq!(kernel.boot.module_blacklist, [b"hello".to_vec()]);
    assert_eq!(kernel.boot.shown.sig_enforced, Some(false));
    assert_eq!(kernel.boot.shown.locked_down, Some(false));
    assert!(kernel.state.taints.kernel_has(kernel::Taint::OutOfTreeModule));
    assert_eq!(
        kernel.modules().map(|m| (&*m.name, m.base)).collect::<Vec<_>>(),
        [(&b"exporter"[..], 0xffff_ffff_c020_1000)]
    );
    // There is no image; everything else is there.
    assert_eq!(unread.len(), 1, "{unread:?}");
    assert!(unread[0].starts_with("kernel image: there is no such file"), "{unread:?}");
}

#[test]
fn what_is_not_shown_is_told_with_the_way() {
    let dir = machine();
    let hidden: String = text(&fixtures(KERNEL).join("kallsyms"))
        .lines()
        .map(|line| format!("0000000000000000{}\n", line.get(16..).unwrap()))
        .collect();
    write(dir.path(), "proc/kallsyms", hidden);
    for path in ["proc/modules", "proc/cmdline", "sys/kernel/security/lockdown"] {
        fs::remove_file(dir.path().join(path)).unwrap();
    }
    let (loader, unread) = prepared(&running(dir.path()));
    for want in [
        "kernel image: there is no such file: install its package",
        "addresses of symbols: all addresses are zero: run kmodld with sudo",
        "kernel command line: there is no such file",
        "lockdown: there is no such file: mount -t securityfs",
        "loaded modules: there is no such file",
    ] {
        assert_eq!(unread.iter().filter(|told| told.starts_with(want)).count(), 1, "{want}: {unread:?}");
    }
    assert_eq!(loader.kernel.boot.shown.locked_down, None);
    write(dir.path(), "proc/sys/kernel/kptr_restrict", "2\n");
    let (_, unread) = prepared(&running(dir.path()));
    assert!(unread.iter().any(|told| told.contains("sysctl kernel.kptr_restrict=1")), "{unread:?}");
    // An image of another build is not this kernel's.
    let v = fs::read(dir.path().join("proc/version")).unwrap();
    assert!(v.starts_with(b"Linux version"));
}

#[test]
fn damaged_sources_are_told_and_do_no_harm() {
    let dir = machine();
    for path in ["proc/modules", "proc/kallsyms", "proc/sys/kernel/tainted", "sys/devices/system/cpu/present"]
    {
        write(dir.path(), path, b"\xff\x00rubbish\n\n-\n0x1-\n");
    }
    let (_, unread) = prepared(&running(dir.path()));
    for want in ["loaded modules: line 1 is not", "addresses of symbols:", "taints:"] {
        assert!(unread.iter().any(|told| told.starts_with(want)), "{want}: {unread:?}");
    }
}

#[test]
fn set_8_what_is_loaded_is_not_loaded_again() {
    let dir = machine();
    let source = running(dir.path());
    let (mut loader, _) = prepared(&source);
    let mut home = Home::new(&source, &loader.kernel).unwrap();
    let Meant::Modules(all) = home.lookup("importer").unwrap() else { panic!() };
    let [importer]: [Chosen; 1] = all.try_into().unwrap();
    let way = home.way_of(&importer, None, &mut loader).unwrap();
    assert_eq!((way.before.len(), way.is_loaded), (0, false), "SET-8");
    // What proves that the file is what was loaded is missing: what it exports is not known.
    let exports = |loader: &Loader| loader.kernel.module(b"exporter").unwrap().exports.len();
    assert_eq!(exports(&loader), 0);
    let elf = common::Elf::new(common::read(&ko(KERNEL, "exporter")));
    let note = elf.data(elf.section(".note.gnu.build-id")).to_vec();
    let other: Vec<u8> = note.iter().map(|byte| byte ^ 1).collect();
    for (note, count) in [(other, 0), (note, 3)] {
        write(dir.path(), "sys/module/exporter/notes/.note.gnu.build-id", note);
        let (mut loader, _) = prepared(&source);
        let mut home = Home::new(&source, &loader.kernel).unwrap();
        home.way_of(&importer, None, &mut loader).unwrap();
        assert_eq!(exports(&loader), count, "SET-8: exports are those of the file if it is what was loaded");
    }
    // The parameters of the command line are modprobe's.
    let Meant::Modules(params) = home.lookup("params").unwrap() else { panic!() };
    assert_eq!(home.way_of(&params[0], None, &mut loader).unwrap().options, "an_int=7");
    let Meant::Modules(exporter) = home.lookup("exporter").unwrap() else { panic!() };
    assert!(home.way_of(&exporter[0], None, &mut loader).unwrap().is_loaded);
}

/// Where `hello` would be placed next, and what was not shown.
fn next_place(dir: &TempDir) -> (u64, Vec<String>) {
    let source = running(dir.path());
    let (mut loader, _) = prepared(&source);
    let mut unread = Vec::new();
    Home::new(&source, &loader.kernel).unwrap().hold_places(&mut loader, &mut unread).unwrap();
    let bytes = common::read(&ko(KERNEL, "hello"));
    let opened = loader.open(&bytes, symres::LoadFlags::default());
    let args = kmodld::Args::verdict(symres::LoadFlags::default(), b"");
    let load = loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says().0.unwrap();
    (load.bases().get(elf_layout::Region::Text), unread.iter().map(|told| told.why.clone()).collect())
}

#[test]
fn layout_50_the_next_module_goes_where_nothing_is() {
    let dir = machine();
    let behind = (0xffff_ffff_c020_6000, Vec::new());
    assert_eq!(next_place(&dir), behind, "LAYOUT-50: behind what vmallocinfo lists");
    // Hashes instead of addresses, and nothing else that shows where the module lies: that is said.
    write(
        dir.path(),
        "proc/vmallocinfo",
        "0x00000000c0201000-0x00000000c0206000   20480 x+0x1/0x2 pages=4 vmalloc\n",
    );
    let (_, told) = next_place(&dir);
    assert_eq!(told, ["it shows no addresses"]);
}

/// The list of the machine's owner counts where the kernel looks at it: with Secure Boot on.
#[test]
fn sig_8_keys_of_the_machines_owner() {
    const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";
    let dir = machine();
    let der = common::read(&fixtures("signing/kmodld-fixtures.der"));
    let variable = |name: &str, value: &[u8]| {
        write(dir.path(), &format!("sys/firmware/efi/efivars/{name}"), [&[6, 0, 0, 0], value].concat());
    };
    let size = |more: usize| u32::try_from(der.len() + more).unwrap().to_le_bytes();
    let x509 =
        [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
    let list = [&x509[..], &size(44), &[0; 4], &size(16), &[0; 16], &der].concat();
    variable(SECURE_BOOT, &[0]);
    variable(&format!("MokListRT-{SHIM}"), &list);
    let config = text(&fixtures(KERNEL).join("config"));
    let keyring = |machine: &str| {
        let own = config.replace("MACHINE_KEYRING=y", &format!("MACHINE_KEYRING={machine}"));
        write(dir.path(), "{m}/config", own);
        prepared(&running(dir.path())).0.kernel.keyring.clone()
    };
    assert_eq!(keyring("y"), [], "SIG-8: no Secure Boot");
    variable(SECURE_BOOT, &[1]);
    assert_eq!(keyring("y"), [(Keyring::Platform, der.clone())], "SIG-8: not trusted by the owner");
    variable(&format!("MokListTrustedRT-{SHIM}"), &[1]);
    assert_eq!(keyring("y"), [(Keyring::Machine, der.clone())], "SIG-8: trusted");
    assert_eq!(keyring("n"), [(Keyring::Platform, der.clone())], "SIG-8: the kernel has no such keyring");
    // The table that shim leaves in memory has all of them, and no attributes before it.
    write(dir.path(), "sys/firmware/efi/mok-variables/MokListRT", [&list[..], &list].concat());
    assert_eq!(keyring("y").len(), 2, "SIG-8");
    write(dir.path(), "sys/firmware/efi/mok-variables/MokListRT", &list[..99]);
    let (loader, unread) = prepared(&running(dir.path()));
    assert_eq!(loader.kernel.keyring, []);
    let told = unread.iter().filter(|told| told.starts_with("keys of the machine's owner: it is no list"));
    assert_eq!(told.count(), 1, "{unread:?}");
}

/// What CPUs can do is read where the running kernel keeps it, if the addresses are its own.
#[test]
fn capabilities_are_those_in_the_kernels_memory() {
    let dir = machine();
    let runs = running(dir.path()).running.unwrap();
    let bitmap = reloc::MACHINES.iter().find(|m| m.name == "x86_64").unwrap().cpu_capabilities[0];
    let describe = |from: &str| {
        let symbols = format!("ffffffff81000000 T _text\nffffffff82000000 D {}\n", bitmap.symbol);
        let (of, member) = bitmap.member.unwrap();
        let types = Types::parse(&format!("{of}.{member} 16 8\n"));
        let kernel = KernelDescriptionBuilder::new().e_machine("x", 62).types("x", types);
        let symbols = KernelSymbols::parse(symbols.as_bytes()).unwrap();
        kernel.live_symbols(from, symbols).build(reloc::MACHINES).unwrap()
    };
    let caps = |from: &str| {
        let mut unread = Vec::new();
        let found = runs.cpu_caps(&describe(from), &mut unread);
        (found, unread.iter().map(|u| format!("{}: {}", u.why, u.way)).collect::<Vec<_>>())
    };
    let own = runs.root.at("proc/kallsyms").display().to_string();
    let way = "give them with --cpu-caps";
    assert_eq!(caps(&own), (None, vec![format!("there is no such file: {way}")]));
    assert_eq!(caps("System.map"), (None, vec![]), "these addresses are not those of its memory");
    // One segment of 24 bytes.
    let mut core = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    core.resize(32, 0);
    core.extend(64u64.to_le_bytes());
    core.resize(54, 0);
    [56u16, 1].iter().for_each(|half| core.extend(half.to_le_bytes()));
    core.resize(64, 0);
    core.extend([1u32, 7].iter().flat_map(|word| word.to_le_bytes()));
    core.extend([120, 0xffff_ffff_8200_0000u64, 0, 24, 24, 0].iter().flat_map(|word| word.to_le_bytes()));
    core.extend(0..24u8);
    write(dir.path(), "proc/kcore", &core);
    let bytes = (16..24).collect();
    assert_eq!(caps(&own), (Some(Piece { address: 0xffff_ffff_8200_0010, bytes }), vec![]));
    write(dir.path(), "proc/kcore", &core[..140]);
    assert_eq!(caps(&own).0, None);
    core[64 + 16] = 0x11;
    write(dir.path(), "proc/kcore", &core);
    assert_eq!(caps(&own), (None, vec![format!("it does not have this memory: {way}")]));
}
