//! What real kernels had in memory for the fixture modules, byte for byte, at every stage that the program offers.
//! `fixtures/captures/README.md` says what is captured and how; `tests/truth.rs` is the same for large sets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{hex, ko};
use serde_json::{Value, json};

/// The stages at which memory was captured, and that this program knows.
fn stages() -> Vec<&'static str> {
    let help = common::kmodld(["link", "--help"]).exits(0).stdout;
    let offered = |stage: &&str| help.contains(&format!("- {stage}:"));
    let stages: Vec<_> = ["relocated", "kallsyms", "final"].into_iter().filter(offered).collect();
    assert!(!stages.is_empty(), "no stage is offered: {help}");
    stages
}

/// The chapter of docs/spec that a byte of a section is the business of.
fn rules(stage: &str, section: &str) -> &'static str {
    match (stage, section) {
        (_, ".symtab" | ".strtab") => "symbols: LAYOUT-30, SYM-1, FIN-3",
        ("relocated", _) => "relocation: spec 04, 05",
        (_, "__ex_table") => "sort_extable: FIN-1",
        ("kallsyms", "no section") => "kallsyms tables: FIN-3 to FIN-5",
        ("kallsyms", _) => "relocation: spec 04, 05",
        (_, "__jump_table") => "jump labels: FIN-50 to FIN-54",
        (_, ".static_call_sites") => "static calls: FIN-60, FIN-61",
        (_, "__mcount_loc" | "__patchable_function_entries") => "ftrace: FIN-40, FIN-41",
        (_, ".text.ftrace_trampoline" | ".init.text.ftrace_trampoline") => "ftrace PLT: FIN-30, spec 06 6.3",
        (_, ".orc_unwind" | ".orc_unwind_ip") => "ORC: spec 06 6.2",
        (_, ".gnu.linkonce.this_module") => "struct module: spec 06, 08",
        (_, ".altinstructions") => "alternatives: FIN-20",
        (_, text) if text.contains("text") => "patched code: spec 06 6.2 to 6.6",
        _ => "spec 06, 07",
    }
}

/// One boot of a kernel, unpacked.
struct Set {
    name: String,
    dir: PathBuf,
    facts: Value,
    /// The fixture folder of its kernel.
    kernel: String,
    scratch: tempfile::TempDir,
}

impl Set {
    fn open(pack: &Path) -> Self {
        let name = common::trees::set_name(pack);
        let scratch = tempfile::tempdir().unwrap();
        untar(&kmodld::input::read_decompressed(pack).unwrap(), scratch.path());
        let dir = scratch.path().join(&name);
        let facts = read_json(&dir.join("set.json"));
        let kernel = name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        assert_eq!(facts["kernel"], common::release(&kernel), "{name}: captured on another kernel");
        Set { name, dir, facts, kernel, scratch }
    }

    fn modules(&self) -> Vec<String> {
        let names = common::trees::folder(&self.dir).into_iter().filter(|p| p.join("meta.json").exists());
        names.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// `--memory`: the kernel's state and the keys that the module uses.
    fn memory(&self, meta: &Value, file: &Path) {
        let mut pieces = Vec::new();
        for state in self.facts["kernel_state"].as_object().into_iter().flat_map(|s| s.values()) {
            if let (Some(addr), Some(bytes)) = (state["addr"].as_u64(), state["bytes"].as_str()) {
                pieces.push(json!({"addr": format!("{addr:#x}"), "bytes": bytes}));
            }
        }
        for keys in ["jump_keys", "static_call_keys"] {
            let keys = meta[keys].as_object().unwrap().iter();
            pieces.extend(keys.map(|(addr, bytes)| json!({"addr": addr, "bytes": bytes})));
        }
        std::fs::write(file, Value::from(pieces).to_string()).unwrap();
    }

    /// Repeats one load; the folder with its regions.
    fn link(&self, module: &str, meta: &Value, stage: &str) -> Result<PathBuf, String> {
        let path = |name: String| self.scratch.path().join(name);
        let out = path(format!("{module}-{stage}"));
        let memory = path(format!("{module}-{stage}.json"));
        self.memory(meta, &memory);
        let text = |path: &Path| path.display().to_string();
        let mut args = vec!["link".to_owned(), text(&ko(&self.kernel, module))];
        args.extend(meta["params"].as_str().unwrap().split_whitespace().map(String::from));
        for dependency in common::dependencies(module) {
            args.extend(["--with".to_owned(), text(&ko(&self.kernel, dependency))]);
        }
        for (option, value) in [
            ("--kernel", text(&self.dir.join("kernel.spec"))),
            ("--symtab", text(&self.dir.join("kallsyms.txt"))),
            ("--config", text(&common::fixtures(&self.kernel).join("config"))),
            ("--memory", text(&memory)),
            ("--cmdline", self.facts["cmdline"].as_str().unwrap().to_owned()),
            ("--cpus", self.facts["smp"].to_string()),
            ("--percpu", meta["percpu"]["addr"].as_str().unwrap().to_owned()),
            ("--stage", stage.to_owned()),
            ("--format", "raw".to_owned()),
            ("-o", text(&out)),
        ] {
            args.extend([option.to_owned(), value]);
        }
        if let Some(caps) = meta["cpucaps"].as_str() {
            args.extend(["--cpu-caps".to_owned(), caps.to_owned()]);
        }
        for region in meta["regions"].as_array().unwrap() {
            let (name, base) = (region["name"].as_str().unwrap(), region["base"].as_str().unwrap());
            args.extend(["--region".to_owned(), format!("{name}={base}")]);
        }
        let ran = common::kmodld(&args);
        if ran.code == 0 { Ok(out) } else { Err(format!("exit {}: {}", ran.code, ran.stderr.trim())) }
    }

    /// Compares one module at one stage: bytes compared, and what is wrong.
    fn compare(&self, module: &str, stage: &str) -> (u64, Vec<String>) {
        let meta = read_json(&self.dir.join(module).join("meta.json"));
        if !meta["stages"].as_array().unwrap().iter().any(|s| s == stage) {
            return (0, Vec::new());
        }
        let out = match self.link(module, &meta, stage) {
            Ok(out) => out,
            Err(why) => return (0, vec![why]),
        };
        let mut wrong = Vec::new();
        let ours = read_json(&out.join("layout.json"));
        let ours = ours["sections"].as_array().unwrap();
        for section in meta["sections"].as_array().unwrap() {
            let same = ours
                .iter()
                .filter(|o| o["index"] == section["index"] && !o["addr"].is_null())
                .any(|o| hex(&o["addr"]) == hex(&section["addr"]) && o["size"] == section["size"]);
            if !same {
                wrong.push(format!("{} is not at {} (layout: spec 02)", section["name"], section["addr"]));
            }
        }
        let mut bytes = 0;
        for region in meta["regions"].as_array().unwrap() {
            let file = format!("{}.bin", region["name"].as_str().unwrap());
            let want = common::read(&self.dir.join(module).join(stage).join(&file));
            let have = common::read(&out.join(&file));
            bytes += want.len() as u64;
            wrong.extend(differences(stage, &meta, region, want, have));
        }
        (bytes, wrong)
    }
}

/// Differing bytes of a region, a line for each section.
fn differences(
    stage: &str,
    meta: &Value,
    region: &Value,
    mut want: Vec<u8>,
    mut have: Vec<u8>,
) -> Vec<String> {
    let name = region["name"].as_str().unwrap();
    if want.len() != have.len() {
        return vec![format!("region {name} has {} bytes, not {} (layout: spec 02)", have.len(), want.len())];
    }
    let base = hex(&region["base"]);
    for hole in meta["not_compared"][stage].as_array().unwrap() {
        let (start, size) = (hole[0].as_u64().unwrap(), hole[1].as_u64().unwrap());
        if let Some(at) = start.checked_sub(base).filter(|at| *at < want.len() as u64) {
            let range = at as usize..(at + size) as usize;
            want[range.clone()].fill(0);
            have[range].fill(0);
        }
    }
    let sections = meta["sections"].as_array().unwrap();
    let owner = |address: u64| {
        let mut holding = sections.iter().filter(|s| {
            address.checked_sub(hex(&s["addr"])).is_some_and(|at| at < s["size"].as_u64().unwrap())
        });
        holding.next().map_or("no section", |s| s["name"].as_str().unwrap())
    };
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for at in (0..want.len()).filter(|at| want[*at] != have[*at]) {
        found.entry(owner(base + at as u64)).or_default().push(at);
    }
    let line = |(section, places): (&str, Vec<usize>)| {
        let at = places[0];
        let start = sections.iter().find(|s| s["name"] == section).map_or(base, |s| hex(&s["addr"]));
        let end = want.len().min(at + 8);
        format!(
            "{section} ({name}): {} bytes differ, first at offset {:#x}: the kernel has {:02x?}, we {:02x?} ({})",
            places.len(),
            base + at as u64 - start,
            &want[at..end],
            &have[at..end],
            rules(stage, section)
        )
    };
    found.into_iter().map(line).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&common::read(path)).unwrap()
}

/// Writes the files of a ustar archive below a folder.
fn untar(archive: &[u8], into: &Path) {
    let word = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    let mut rest = archive;
    while rest.len() > 512 && rest[0] != 0 {
        let (head, data) = rest.split_at(512);
        let size = usize::from_str_radix(word(&head[124..136]).trim(), 8).unwrap();
        let path = into.join(word(&head[345..500])).join(word(&head[..100]));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &data[..size]).unwrap();
        rest = &data[size.next_multiple_of(512)..];
    }
}

/// All captured sets of an architecture, at all stages.
fn check(arch: &str) {
    let packs = common::trees::folder(&common::fixtures("captures")).into_iter();
    let packs = packs.filter(|p| p.to_string_lossy().ends_with(".tar.xz"));
    let packs: Vec<_> = packs.filter(|p| common::trees::set_name(p).contains(arch)).collect();
    assert!(packs.len() >= 2, "no captures of {arch}");
    let mut wrong = Vec::new();
    for set in packs.iter().map(|p| Set::open(p)) {
        let modules = set.modules();
        assert!(modules.len() >= 16, "{}: captures are missing: {modules:?}", set.name);
        for stage in stages() {
            let results = common::in_parallel(&modules, |module| set.compare(module, stage));
            let bytes: u64 = results.iter().map(|(bytes, _)| bytes).sum();
            assert!(bytes > 0, "{}: nothing was captured at stage {stage}", set.name);
            for (module, (_, lines)) in modules.iter().zip(results) {
                wrong
                    .extend(lines.iter().map(|line| format!("{} {module}, stage {stage}: {line}", set.name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", common::first_of(&wrong));
}

#[test]
fn amd64_fixtures_in_memory() {
    check("amd64");
}

#[test]
fn arm64_fixtures_in_memory() {
    check("arm64");
}
