//! The yardstick: what real kernels had in memory, byte for byte. KMODLD_TRUTH names the folder that holds
//! `truth/SET.tar.xz` and `kernels/RELEASE/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::elf::{SYMTAB, Sh};
use common::trees::{folder, packs, set_name, unpack};
use common::{Elf, hex};
use serde_json::Value;

const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// One boot of a kernel, unpacked.
struct Set {
    name: String,
    dir: PathBuf,
    facts: Value,
    kernel: Vec<String>,
    scratch: tempfile::TempDir,
}

impl Set {
    fn open(pack: &Path, top: &Path) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        unpack(pack, scratch.path(), &[]);
        let name = set_name(pack);
        let dir = scratch.path().join(&name);
        let facts = json(&dir.join("set.json"));
        let kernels = top.join("kernels").join(facts["kernel"].as_str().unwrap());
        // The image tells also what kallsyms does not hold (CONFIG_KALLSYMS_ALL=n).
        let image = ["vmlinuz", "vmlinuz.xz"].map(|n| kernels.join(n)).into_iter().find(|p| p.exists());
        let image = image.unwrap_or_else(|| panic!("no vmlinuz in {}", kernels.display()));
        let plain = scratch.path().join("vmlinuz");
        std::fs::write(&plain, kmodld::input::read_decompressed(&image).unwrap()).unwrap();
        // Read once, used for every module.
        let spec = scratch.path().join("spec").display().to_string();
        common::kmodld(["kernel", plain.to_str().unwrap(), "-o", &spec]).exits(0);
        let kernel = [
            ("--kernel", spec),
            ("--symtab", dir.join("kallsyms.txt").display().to_string()),
            ("--cmdline", facts["cmdline"].as_str().unwrap().to_owned()),
            ("--cpus", facts["smp"].to_string()),
        ];
        let kernel = kernel.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect();
        Set { name, dir, facts, kernel, scratch }
    }

    /// The modules of the set that a module needs, dependencies first: kallsyms may not tell where they have
    /// their data.
    fn dependencies(&self, module: &Path) -> Vec<PathBuf> {
        let mut order = Vec::new();
        self.needed(module, &mut order);
        order.retain(|m| m != module);
        order
    }

    fn needed(&self, module: &Path, order: &mut Vec<PathBuf>) {
        let file = module.join("module.ko");
        if order.iter().any(|m| m == module) || !file.exists() {
            return;
        }
        let inspection = kmodld::inspect::inspect("module.ko", &common::read(&file)).unwrap();
        for (_, names) in inspection.modinfo.iter().filter(|(tag, _)| tag == "depends") {
            for name in names.split(',').filter(|n| !n.is_empty()) {
                self.needed(&self.dir.join(name.replace('-', "_")), order);
            }
        }
        order.push(module.to_owned());
    }

    fn modules(&self) -> Vec<PathBuf> {
        folder(&self.dir).into_iter().filter(|p| p.join("meta.json").exists()).collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&common::read(path)).unwrap()
}

/// Address and length of what is run-time state before stage final: `struct module`, and the values of
/// symbols whose section was not moved, which point into the freed temporary copy.
fn masks(meta: &Value, elf: &Elf) -> Vec<(u64, u64)> {
    let sections = meta["sections"].as_array().unwrap();
    let mut masks: Vec<(u64, u64)> = sections
        .iter()
        .filter(|s| s["name"] == THIS_MODULE)
        .map(|s| (hex(&s["addr"]), s["size"].as_u64().unwrap()))
        .collect();
    let placed: BTreeSet<u64> = sections.iter().map(|s| s["index"].as_u64().unwrap()).collect();
    let table = elf.of_type(SYMTAB).unwrap();
    let Some(moved) = sections.iter().find(|s| s["index"] == table).map(|s| hex(&s["addr"])) else {
        return masks;
    };
    let percpu = elf.find(".data..percpu").unwrap_or(0) as u64;
    for (i, symbol) in elf.symbols().iter().enumerate() {
        let shndx = u64::from(symbol.shndx);
        if (1..0xff00).contains(&shndx) && !placed.contains(&shndx) && shndx != percpu {
            masks.push((moved + 24 * i as u64 + 8, 8));
        }
    }
    assert_eq!(elf.get(table, Sh::Entsize), 24);
    masks
}

/// What of the kernel's memory was captured: its CPUs, its tables, the keys that the module uses.
fn pieces(facts: &Value, meta: &Value) -> Vec<Value> {
    let state = facts["kernel_state"].as_object().into_iter().flat_map(|o| o.values());
    let state = state.filter(|v| v.is_object()).map(|v| (v["addr"].clone(), v["bytes"].clone()));
    let keys = ["jump_keys", "static_call_keys"].into_iter().filter_map(|k| meta[k].as_object());
    let keys = keys.flatten().map(|(addr, bytes)| (Value::from(addr.as_str()), bytes.clone()));
    let text = |addr: &Value| addr.as_u64().map_or(addr.clone(), |n| Value::from(format!("{n:#x}")));
    state
        .chain(keys)
        .map(|(addr, bytes)| serde_json::json!({ "addr": text(&addr), "bytes": bytes }))
        .collect()
}

/// What is wrong with the memory of one module at one stage; `None` if nothing was captured then.
fn compare(set: &Set, module: &Path, stage: &str) -> Option<Result<u64, String>> {
    let meta = json(&module.join("meta.json"));
    if !meta["stages"].as_array()?.iter().any(|s| s == stage) {
        return None;
    }
    let out = set.scratch.path().join(format!("out-{stage}-{}", module.file_name()?.to_string_lossy()));
    let mut args = vec![String::from("link"), module.join("module.ko").display().to_string()];
    args.extend(meta["params"].as_str()?.split_whitespace().map(String::from));
    args.extend(set.kernel.iter().cloned());
    for (option, value) in [
        ("--stage", stage),
        ("--format", "raw"),
        ("-o", out.to_str()?),
        ("--percpu", meta["percpu"]["addr"].as_str()?),
    ] {
        args.extend([option.to_owned(), value.to_owned()]);
    }
    let memory = set.scratch.path().join(format!("memory-{stage}-{}", module.file_name()?.to_string_lossy()));
    std::fs::write(&memory, serde_json::to_vec(&pieces(&set.facts, &meta)).unwrap()).unwrap();
    args.extend(["--memory".to_owned(), memory.display().to_string()]);
    if let Some(caps) = meta["cpucaps"].as_str() {
        args.extend(["--cpu-caps".to_owned(), caps.to_owned()]);
    }
    for dependency in set.dependencies(module) {
        args.extend(["--with".to_owned(), dependency.join("module.ko").display().to_string()]);
    }
    for region in meta["regions"].as_array()? {
        let place = format!("{}={}", region["name"].as_str()?, region["base"].as_str()?);
        args.extend(["--region".to_owned(), place]);
    }
    let ran = common::kmodld(&args);
    if ran.code != 0 {
        return Some(Err(format!("exit {}: {}", ran.code, ran.stderr.trim())));
    }
    let result = differences(&meta, module, stage, &out);
    std::fs::remove_file(&memory).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    Some(result)
}

/// Address and length of the bytes that the program lists as run-time state.
fn runtime(layout: &Value) -> Result<Vec<(u64, u64)>, String> {
    let code: Vec<(u64, u64)> = layout["sections"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["name"].as_str().unwrap().ends_with("text") && !s["addr"].is_null())
        .map(|s| (hex(&s["addr"]), s["size"].as_u64().unwrap()))
        .collect();
    let ranges = layout["runtime"].as_array().unwrap().iter();
    let ranges: Vec<(u64, u64)> = ranges.map(|r| (hex(&r["addr"]), r["size"].as_u64().unwrap())).collect();
    match ranges.iter().find(|(at, _)| code.iter().any(|(start, size)| (*start..start + size).contains(at))) {
        Some((at, _)) => Err(format!("code at {at:#x} is listed as run-time state")),
        None => Ok(ranges),
    }
}

fn differences(meta: &Value, module: &Path, stage: &str, out: &Path) -> Result<u64, String> {
    let layout = json(&out.join("layout.json"));
    let ours = layout["sections"].as_array().unwrap();
    for s in meta["sections"].as_array().unwrap() {
        let found = ours.iter().find(|o| o["index"] == s["index"]);
        let same = found.is_some_and(|o| {
            !o["addr"].is_null() && hex(&o["addr"]) == hex(&s["addr"]) && o["size"] == s["size"]
        });
        if !same {
            return Err(format!("layout: section {} is {found:?}, not {s}", s["name"]));
        }
    }
    // At stage final the program itself says what it does not predict; that must never be code.
    let masks = match stage {
        "final" => runtime(&layout)?,
        _ => masks(meta, &Elf::new(common::read(&module.join("module.ko")))),
    };
    let mut bytes = 0;
    for region in meta["regions"].as_array().unwrap() {
        let (name, base) = (region["name"].as_str().unwrap(), hex(&region["base"]));
        let mut want = common::read(&module.join(stage).join(format!("{name}.bin")));
        let mut have = common::read(&out.join(format!("{name}.bin")));
        if want.len() != have.len() {
            return Err(format!("region {name} has {} bytes, not {}", have.len(), want.len()));
        }
        for (at, len) in &masks {
            if let Some(at) = at.checked_sub(base).filter(|at| *at < want.len() as u64) {
                let range = at as usize..(at + len) as usize;
                want[range.clone()].fill(0);
                have[range].fill(0);
            }
        }
        if let Some(at) = (0..want.len()).find(|i| want[*i] != have[*i]) {
            let address = base + at as u64;
            let count = (0..want.len()).filter(|i| want[*i] != have[*i]).count();
            return Err(format!(
                "region {name}: {count} bytes differ, first at {address:#x}, {}: {:#04x}, not {:#04x}",
                owner(ours, name, address),
                have[at],
                want[at]
            ));
        }
        bytes += want.len() as u64;
    }
    Ok(bytes)
}

/// The section of an address and the offset in it.
fn owner(sections: &[Value], region: &str, address: u64) -> String {
    let before = sections
        .iter()
        .filter(|s| !s["addr"].is_null() && s["region"] == region && hex(&s["addr"]) <= address)
        .max_by_key(|s| hex(&s["addr"]));
    before.map_or(String::from("in no section"), |s| {
        format!("{}+{:#x}", s["name"].as_str().unwrap(), address - hex(&s["addr"]))
    })
}

/// All sets whose name matches, at one stage.
fn check(test: &str, stage: &str, arch: &str) {
    let Some(top) = common::from_environment(test, "KMODLD_TRUTH") else { return };
    let machine = if arch == "amd64" { 62 } else { 183 };
    if reloc::architecture(machine).is_none() {
        return common::skipped(test, "the architecture is unknown to the loader");
    }
    if common::kmodld(["link", "x", "--symtab", "x", "--stage", stage]).code == 2 {
        return common::skipped(test, &format!("the program has no stage {stage} yet"));
    }
    let packs: Vec<PathBuf> = packs(&top).into_iter().filter(|p| set_name(p).contains(arch)).collect();
    if packs.is_empty() {
        return common::skipped(test, &format!("no {arch} pack in {}", top.join("truth").display()));
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    for pack in packs {
        let set = Set::open(&pack, &top);
        let modules = set.modules();
        let results = common::in_parallel(&modules, |m| compare(&set, m, stage));
        let (mut exact, mut total, mut bytes) = (0, 0, 0);
        for (module, result) in modules.iter().zip(results) {
            match result {
                None => continue,
                Some(Ok(n)) => (exact, bytes) = (exact + 1, bytes + n),
                Some(Err(why)) => {
                    wrong.push(format!(
                        "{}/{}: {why}",
                        set.name,
                        module.file_name().unwrap().to_string_lossy()
                    ));
                }
            }
            total += 1;
        }
        let release = set.facts["kernel"].as_str().unwrap();
        if total > 0 {
            common::tell(&format!(
                "{} ({release}): stage {stage}: {exact}/{total} modules exact, {bytes} bytes",
                set.name
            ));
        }
        compared += total;
    }
    if compared == 0 {
        return common::skipped(test, &format!("no pack was captured at stage {stage}"));
    }
    assert!(wrong.is_empty(), "stage {stage}: {}", common::first_of(&wrong));
}

#[test]
fn amd64_memory_after_apply_relocations() {
    check("amd64_memory_after_apply_relocations", "relocated", "amd64");
}

#[test]
fn amd64_memory_before_module_finalize() {
    check("amd64_memory_before_module_finalize", "kallsyms", "amd64");
}

#[test]
fn arm64_memory_before_module_finalize() {
    check("arm64_memory_before_module_finalize", "kallsyms", "arm64");
}

#[test]
fn amd64_memory_before_init() {
    check("amd64_memory_before_init", "final", "amd64");
}

#[test]
fn arm64_memory_before_init() {
    check("arm64_memory_before_init", "final", "arm64");
}

/// A SPEC keeps what stage final reads of an image: the types and the memory.
#[test]
fn a_spec_gives_the_bytes_of_its_image() {
    let test = "a_spec_gives_the_bytes_of_its_image";
    let Some(top) = common::from_environment(test, "KMODLD_TRUTH") else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for pack in packs(&top) {
        let set = Set::open(&pack, &top);
        let mut modules = set.modules();
        // The largest ones have the most to patch.
        modules.sort_by_key(|m| std::cmp::Reverse(std::fs::metadata(m.join("module.ko")).unwrap().len()));
        modules.truncate(3);
        let image = set.scratch.path().join("vmlinuz").display().to_string();
        for module in modules {
            let documents = [&set.kernel[1], &image].map(|kernel| {
                let mut args = vec![String::from("link"), module.join("module.ko").display().to_string()];
                args.extend(["--kernel", kernel, "--json"].map(String::from));
                args.extend(set.kernel[2..].iter().cloned());
                for dependency in set.dependencies(&module) {
                    args.extend(["--with".to_owned(), dependency.join("module.ko").display().to_string()]);
                }
                let out = set.scratch.path().join("bytes");
                args.extend(["--format", "raw", "-o", out.to_str().unwrap()].map(String::from));
                let ran = common::kmodld(&args);
                let files: Vec<Vec<u8>> = folder(&out).iter().map(|f| common::read(f)).collect();
                let _ = std::fs::remove_dir_all(&out);
                (ran.code, ran.stdout, files)
            });
            if documents[0] != documents[1] {
                wrong.push(format!("{}: {}", set.name, module.display()));
            }
            // Where kallsyms lists modules without their data, some refuse to load after them.
            compared += usize::from(documents[0].0 == 0);
        }
    }
    assert!(compared > 0, "modules in {}", top.display());
    assert!(wrong.is_empty(), "a SPEC and its image give other bytes: {}", common::first_of(&wrong));
}
