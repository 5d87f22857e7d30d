//! The ELF output is one that binutils and gdb take as it is: no warning, nothing left to relocate, symbols where
//! layout.json has them.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::captures::kallsyms;
use common::trees::{Tree, trees};
use common::{AMD64, hex};
use serde_json::Value;

/// A linked module: its ELF output and its document.
struct Linked {
    name: String,
    elf: PathBuf,
    document: Value,
}

fn link(args: &[String], name: &str, dir: &Path) -> Linked {
    let elf = dir.join(format!("{}.elf", name.replace('/', "-")));
    let mut args = args.to_vec();
    args.extend(["--json".into(), "-o".into(), elf.display().to_string()]);
    let document = common::kmodld(&args).exits(0).json();
    Linked { name: name.to_owned(), elf, document }
}

/// All fixtures that load, of both kernels.
fn fixtures(dir: &Path) -> Vec<Linked> {
    let refused = ["ns_forgot", "proprietary_gpl"];
    let all = AMD64.into_iter().flat_map(|k| common::modules(k).into_iter().map(move |m| (k, m)));
    all.filter(|(_, m)| !refused.contains(&m.as_str()))
        .map(|(k, m)| link(&common::link_args(k, &m), &format!("{k}/{m}"), dir))
        .collect()
}

/// Runs a tool that must say nothing but its result, and gives that.
fn quiet(tool: &str, args: &[&str], linked: &Linked) -> String {
    let output = Command::new(tool).args(args).arg(&linked.elf).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let what = format!("{}: {tool} {args:?}", linked.name);
    assert!(output.status.success(), "{what}: {}: {err}", output.status);
    assert_eq!(err, "", "{what} complains");
    let complaint =
        out.lines().find(|l| l.contains("Warning") || l.contains("arning: ") || l.starts_with("readelf: "));
    assert_eq!(complaint, None, "{what} complains");
    out.into_owned()
}

fn check_readelf(linked: &Linked) {
    let out = quiet("readelf", &["-aW"], linked);
    assert!(out.contains("There are no relocations in this file."), "{}: relocations are left", linked.name);
    // "[Nr] Name Type Address Off Size"
    let mut addresses: BTreeMap<String, u64> = BTreeMap::new();
    for line in out.lines() {
        let Some((_, rest)) = line.split_once("] ") else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        if let [name, _, address, ..] = fields.as_slice()
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            addresses.entry((*name).to_owned()).or_insert(address);
        }
    }
    for section in linked.document["sections"].as_array().unwrap().iter().filter(|s| !s["addr"].is_null()) {
        let name = section["name"].as_str().unwrap();
        // The moved symbol tables are the kernel's; readelf shows the file's own under these names.
        if [".symtab", ".strtab"].contains(&name) || !linked.only_one(name) {
            continue;
        }
        assert_eq!(addresses.get(name), Some(&hex(&section["addr"])), "{}: address of {name}", linked.name);
    }
}

impl Linked {
    /// Is there one section of that name?
    fn only_one(&self, name: &str) -> bool {
        self.document["sections"].as_array().unwrap().iter().filter(|s| s["name"] == name).count() == 1
    }

    /// Address of a section, if it was placed.
    fn section(&self, name: &str) -> Option<u64> {
        let all = self.document["sections"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name && !s["addr"].is_null()).map(|s| hex(&s["addr"]))
    }
}

/// Every call in the disassembly goes to something that has a name.
fn check_objdump(linked: &Linked) {
    let out = quiet("objdump", &["-dr", "--no-show-raw-insn"], linked);
    assert!(!out.contains("R_X86_64_"), "{}: relocations are left", linked.name);
    let calls = out.lines().filter(|l| l.contains("\tcall ") && l.contains("ffffffff")).count();
    let named =
        out.lines().filter(|l| l.contains("\tcall ") && l.contains("ffffffff") && l.contains('<')).count();
    assert_eq!(calls, named, "{}: calls to nowhere", linked.name);
}

fn check_gdb(linked: &Linked) {
    let script = ["-nx", "-batch", "-ex", "info address init_module", "-ex", "info files"];
    let output = Command::new("gdb").args(script).arg(&linked.elf).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let complaint = err.lines().find(|l| l.contains("arning") || l.contains("rror"));
    assert_eq!(complaint, None, "{}: gdb complains:\n{err}", linked.name);
    let wanted =
        format!("Symbol \"init_module\" is at {:#x} in a file compiled without debugging.", linked.entry());
    assert!(out.contains(&wanted), "{}: no {wanted:?} in\n{out}", linked.name);
}

impl Linked {
    /// Address of init_module, from the module file and the address of its section.
    fn entry(&self) -> u64 {
        let elf = common::read(&self.elf);
        let parsed = goblin::elf::Elf::parse(&elf).unwrap();
        parsed.entry
    }
}

#[test]
fn readelf_takes_every_fixture() {
    if common::has_tool("readelf_takes_every_fixture", "readelf") {
        let dir = tempfile::tempdir().unwrap();
        fixtures(dir.path()).iter().for_each(check_readelf);
    }
}

#[test]
fn objdump_takes_every_fixture() {
    if common::has_tool("objdump_takes_every_fixture", "objdump") {
        let dir = tempfile::tempdir().unwrap();
        fixtures(dir.path()).iter().for_each(check_objdump);
    }
}

#[test]
fn gdb_takes_some_fixtures_and_finds_init_module() {
    if common::has_tool("gdb_takes_some_fixtures_and_finds_init_module", "gdb") {
        let dir = tempfile::tempdir().unwrap();
        let some = ["6.1-amd64/hello", "6.12-amd64/hello", "6.12-amd64/sections", "6.1-amd64/percpu"];
        for linked in fixtures(dir.path()).iter().filter(|l| some.contains(&l.name.as_str())) {
            check_gdb(linked);
        }
    }
}

#[test]
fn the_entry_is_init_module_in_init_text() {
    let dir = tempfile::tempdir().unwrap();
    for linked in fixtures(dir.path()) {
        let Some(init_text) = linked.section(".init.text") else { continue };
        let entry = linked.entry();
        let end = init_text + 0x10000;
        assert!(
            (init_text..end).contains(&entry),
            "{}: entry {entry:#x}, .init.text {init_text:#x}",
            linked.name
        );
    }
}

/// `link` for a module of a tree, after the modules it needs.
fn tree_args(tree: &Tree, module: &str, dir: &Path) -> Option<Vec<String>> {
    let files = tree.by_name();
    let path = files.get(module)?;
    let symvers = tree.symvers.as_ref()?;
    let symtab = dir.join(format!("kallsyms-{}", tree.release));
    if !symtab.exists() {
        let text = kallsyms(&common::read(symvers), tree.machine(), &tree.release).1;
        std::fs::write(&symtab, text).unwrap();
    }
    let mut args = vec!["link".into(), path.display().to_string()];
    for (option, path) in
        [("--symvers", Some(symvers)), ("--config", tree.config.as_ref()), ("--symtab", Some(&symtab))]
    {
        if let Some(path) = path {
            args.extend([option.to_owned(), path.display().to_string()]);
        }
    }
    let mut order = Vec::new();
    needed(&files, module, &mut order);
    for dependency in order.iter().filter(|d| *d != module) {
        args.extend(["--with".to_owned(), files[dependency].display().to_string()]);
    }
    Some(args)
}

/// A module and what it depends on, dependencies first.
fn needed(files: &std::collections::HashMap<String, &Path>, module: &str, order: &mut Vec<String>) {
    if order.iter().any(|m| m == module) {
        return;
    }
    let bytes = kmodld::input::read_decompressed(files[module]).unwrap();
    let inspection = kmodld::inspect::inspect(module, &bytes).unwrap();
    let depends = inspection.modinfo.iter().find(|(tag, _)| tag == "depends").map(|(_, v)| v.clone());
    for dependency in depends.unwrap_or_default().split(',').filter(|d| !d.is_empty()) {
        needed(files, &dependency.replace('-', "_"), order);
    }
    order.push(module.to_owned());
}

#[test]
fn large_modules_of_a_distribution() {
    let test = "large_modules_of_a_distribution";
    let dir = tempfile::tempdir().unwrap();
    for tree in trees(test).iter().filter(|t| t.machine() == 62) {
        for module in ["fat", "ext4", "amdgpu"] {
            let Some(args) = tree_args(tree, module, dir.path()) else {
                common::skipped(
                    &format!("{test} ({} {module})", tree.release),
                    "the tree has no such module or no Module.symvers",
                );
                continue;
            };
            let linked = link(&args, &format!("{}-{module}", tree.release), dir.path());
            for (tool, check) in
                [("readelf", check_readelf as fn(&Linked)), ("objdump", check_objdump), ("gdb", check_gdb)]
            {
                if common::has_tool(&format!("{test} ({tool})"), tool) {
                    check(&linked);
                }
            }
            std::fs::remove_file(&linked.elf).unwrap();
        }
    }
}
