//! The yardstick: what real kernels had in memory, byte for byte. KMODLD_TRUTH names the folder that holds
//! `truth/SET.tar.xz` and `kernels/RELEASE/`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::captures::{Capture, Set, hex, packs, read_json, set_name};
use common::elf::{Elf, SYMTAB, Sh};
use common::trees::folder;
use serde_json::Value;

const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// One boot of a kernel, and its image.
struct Boot {
    set: Set,
    /// `--kernel` and what else is known of the kernel.
    kernel: Vec<String>,
}

impl Boot {
    fn open(pack: &Path, top: &Path) -> Self {
        let set = Set::open(pack);
        let kernels = top.join("kernels").join(set.kernel());
        // The image tells also what kallsyms does not hold (CONFIG_KALLSYMS_ALL=n).
        let image = ["vmlinuz", "vmlinuz.xz"].map(|n| kernels.join(n)).into_iter().find(|p| p.exists());
        let image = image.unwrap_or_else(|| panic!("no vmlinuz in {}", kernels.display()));
        let plain = set.scratch().join("vmlinuz");
        std::fs::write(&plain, kmodld::input::read_decompressed(&image).unwrap()).unwrap();
        // Read once, used for every module.
        let spec = set.scratch().join("spec").display().to_string();
        common::kmodld(["kernel", plain.to_str().unwrap(), "-o", &spec]).exits(0);
        let mut kernel = vec![String::from("--kernel"), spec];
        kernel.extend(set.options());
        Boot { set, kernel }
    }

    /// The modules of the set that a module needs, dependencies first: kallsyms may not tell where they have
    /// their data.
    fn dependencies(&self, module: &Capture) -> Vec<PathBuf> {
        let mut order = Vec::new();
        self.needed(&module.dir, &mut order);
        order.retain(|m| *m != module.dir);
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
                self.needed(&self.set.dir.join(name.replace('-', "_")), order);
            }
        }
        order.push(module.to_owned());
    }
}

/// Address and length of what is run-time state before stage final: `struct module`, and the values of
/// symbols whose section was not moved, which point into the freed temporary copy.
fn masks(module: &Capture) -> Vec<(u64, u64)> {
    let (sections, elf) = (module.sections(), Elf::new(common::read(&module.file())));
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

/// What is wrong with the memory of one module at one stage; `None` if nothing was captured then.
fn compare(boot: &Boot, module: &Capture, stage: &str) -> Option<Result<u64, String>> {
    if !module.has_stage(stage) {
        return None;
    }
    let out = boot.set.scratch().join(format!("out-{stage}-{}", module.name));
    let memory = boot.set.scratch().join(format!("memory-{stage}-{}", module.name));
    std::fs::write(&memory, boot.set.memory(module).to_string()).unwrap();
    let mut args = vec![String::from("link"), module.file().display().to_string()];
    args.extend(module.params().map(String::from));
    args.extend(boot.kernel.iter().cloned());
    args.extend(module.options());
    args.extend(["--stage", stage, "--format", "raw", "-o", out.to_str()?].map(String::from));
    args.extend(["--memory".to_owned(), memory.display().to_string()]);
    for dependency in boot.dependencies(module) {
        args.extend(["--with".to_owned(), dependency.join("module.ko").display().to_string()]);
    }
    let ran = common::kmodld(&args);
    if ran.code != 0 {
        return Some(Err(format!("exit {}: {}", ran.code, ran.stderr.trim())));
    }
    let result = differences(module, stage, &out);
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

fn differences(module: &Capture, stage: &str, out: &Path) -> Result<u64, String> {
    let layout = read_json(&out.join("layout.json"));
    let misplaced = module.misplaced(&layout);
    if !misplaced.is_empty() {
        return Err(misplaced.join("; "));
    }
    // At stage final the program itself says what it does not predict; that must never be code.
    let but_for = match stage {
        "final" => runtime(&layout)?,
        _ => masks(module),
    };
    module.compare(stage, out, &but_for).map_err(|lines| lines.join("; "))
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
    let mut packs = packs(&top.join("truth"));
    packs.retain(|pack| set_name(pack).contains(arch));
    if packs.is_empty() {
        return common::skipped(test, &format!("no {arch} pack in {}", top.join("truth").display()));
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    for pack in packs {
        let boot = Boot::open(&pack, &top);
        let (name, modules) = (&boot.set.name, boot.set.modules());
        let results = common::in_parallel(&modules, |m| compare(&boot, m, stage));
        let (mut exact, mut total, mut bytes) = (0, 0, 0);
        for (module, result) in modules.iter().zip(results) {
            match result {
                None => continue,
                Some(Ok(n)) => (exact, bytes) = (exact + 1, bytes + n),
                Some(Err(why)) => {
                    wrong.push(format!("{name}/{}: {why}", module.name));
                }
            }
            total += 1;
        }
        let release = boot.set.kernel();
        if total > 0 {
            common::tell(&format!(
                "{name} ({release}): stage {stage}: {exact}/{total} modules exact, {bytes} bytes"
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
    for pack in packs(&top.join("truth")) {
        let boot = Boot::open(&pack, &top);
        let mut modules = boot.set.modules();
        // The largest ones have the most to patch.
        modules.sort_by_key(|m| std::cmp::Reverse(std::fs::metadata(m.file()).unwrap().len()));
        modules.truncate(3);
        let image = boot.set.scratch().join("vmlinuz").display().to_string();
        for module in modules {
            let documents = [&boot.kernel[1], &image].map(|kernel| {
                let mut args = vec![String::from("link"), module.file().display().to_string()];
                args.extend(["--kernel", kernel, "--json"].map(String::from));
                args.extend(boot.kernel[2..].iter().cloned());
                for dependency in boot.dependencies(&module) {
                    args.extend(["--with".to_owned(), dependency.join("module.ko").display().to_string()]);
                }
                let out = boot.set.scratch().join("bytes");
                args.extend(["--format", "raw", "-o", out.to_str().unwrap()].map(String::from));
                let ran = common::kmodld(&args);
                let files: Vec<Vec<u8>> = folder(&out).iter().map(|f| common::read(f)).collect();
                let _ = std::fs::remove_dir_all(&out);
                (ran.code, ran.stdout, files)
            });
            if documents[0] != documents[1] {
                wrong.push(format!("{}: {}", boot.set.name, module.name));
            }
            // Where kallsyms lists modules without their data, some refuse to load after them.
            compared += usize::from(documents[0].0 == 0);
        }
    }
    assert!(compared > 0, "modules in {}", top.display());
    assert!(wrong.is_empty(), "a SPEC and its image give other bytes: {}", common::first_of(&wrong));
}
