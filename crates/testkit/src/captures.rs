//! What real kernels had in memory. `SET.tar.xz` holds one boot of a kernel: `set.json` tells of the kernel, and a folder for
//! each module has its `meta.json` and its memory at some stages of `load_module`. `tests/oracle/README.md` describes the files.

mod archive;
mod kallsyms;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fixtures::read;
use crate::trees::folder;

pub use archive::unpack;
pub use kallsyms::kallsyms;

/// The packs in a folder: `SET.tar.xz`.
pub fn packs(of: &Path) -> Vec<PathBuf> {
    folder(of).into_iter().filter(|p| p.to_string_lossy().ends_with(".tar.xz")).collect()
}

/// `SET` of `.../SET.tar.xz`.
pub fn set_name(pack: &Path) -> String {
    pack.file_name().unwrap().to_string_lossy().trim_end_matches(".tar.xz").to_owned()
}

/// A JSON document.
pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A hex number of a JSON document.
#[track_caller]
pub fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("not a hex string: {value}"));
    u64::from_str_radix(text.strip_prefix("0x").expect("0x"), 16).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// One boot of a kernel, unpacked.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The folder of its files.
    pub dir: PathBuf,
    /// `set.json`
    pub facts: Value,
    scratch: tempfile::TempDir,
}

impl Set {
    /// The whole set.
    pub fn open(pack: &Path) -> Self {
        Set::open_with(pack, |_| true)
    }

    /// A set of which only `set.json` is needed, and the files whose path in the set is `wanted`.
    pub fn open_with(pack: &Path, wanted: impl Fn(&str) -> bool) -> Self {
        let name = set_name(pack);
        let scratch = tempfile::tempdir().unwrap();
        unpack(pack, scratch.path(), |path| {
            let inside = path.strip_prefix(&name).and_then(|p| p.strip_prefix('/'));
            inside.is_some_and(|inside| inside == "set.json" || wanted(inside))
        });
        let dir = scratch.path().join(&name);
        let facts = read_json(&dir.join("set.json"));
        Set { name, dir, facts, scratch }
    }

    /// A folder for what is made while comparing. It is removed with the set.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The release of its kernel.
    pub fn kernel(&self) -> &str {
        self.facts["kernel"].as_str().unwrap()
    }

    /// The command line of its kernel.
    pub fn cmdline(&self) -> &str {
        self.facts["cmdline"].as_str().unwrap()
    }

    /// `/proc/kallsyms` at the end of the boot.
    pub fn kallsyms(&self) -> PathBuf {
        self.dir.join("kallsyms.txt")
    }

    /// Options of `kmodld link` that tell what is known of the kernel as it ran.
    pub fn options(&self) -> Vec<String> {
        let symtab = self.kallsyms().display().to_string();
        let cpus = self.facts["smp"].to_string();
        [("--symtab", symtab.as_str()), ("--cmdline", self.cmdline()), ("--cpus", &cpus)]
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value.to_owned()])
            .collect()
    }

    /// The captured modules, by name.
    pub fn modules(&self) -> Vec<Capture> {
        let folders = folder(&self.dir).into_iter().filter(|p| p.join("meta.json").exists());
        folders.map(Capture::read).collect()
    }

    /// What of the kernel's memory was captured, as `--memory` reads it: its state and the keys that the module uses.
    pub fn memory(&self, module: &Capture) -> Value {
        let state = self.facts["kernel_state"].as_object().into_iter().flat_map(|o| o.values());
        let state = state.filter(|v| v.is_object()).map(|v| (v["addr"].clone(), v["bytes"].clone()));
        let keys = ["jump_keys", "static_call_keys"].into_iter().filter_map(|k| module.meta[k].as_object());
        let keys = keys.flatten().map(|(addr, bytes)| (Value::from(addr.as_str()), bytes.clone()));
        let text = |addr: &Value| addr.as_u64().map_or(addr.clone(), |n| Value::from(format!("{n:#x}")));
        state.chain(keys).map(|(addr, bytes)| json!({ "addr": text(&addr), "bytes": bytes })).collect()
    }
}

/// One module of a set.
#[derive(Debug)]
pub struct Capture {
    /// The name of the module.
    pub name: String,
    /// The folder of its files.
    pub dir: PathBuf,
    /// `meta.json`
    pub meta: Value,
}

impl Capture {
    fn read(dir: PathBuf) -> Self {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        Capture { name, meta: read_json(&dir.join("meta.json")), dir }
    }

    /// The module's file, if the set has it.
    pub fn file(&self) -> PathBuf {
        self.dir.join("module.ko")
    }

    /// Was its memory captured at this stage?
    pub fn has_stage(&self, stage: &str) -> bool {
        self.meta["stages"].as_array().unwrap().iter().any(|s| s == stage)
    }

    /// The parameters that it was loaded with.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.meta["params"].as_str().unwrap().split_whitespace()
    }

    /// The modules that were loaded before it, in order.
    pub fn loaded_before(&self) -> Vec<&str> {
        self.meta["loaded_before"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// Name and base of its regions.
    pub fn regions(&self) -> Vec<(&str, u64)> {
        let regions = self.meta["regions"].as_array().unwrap().iter();
        regions.map(|r| (r["name"].as_str().unwrap(), hex(&r["base"]))).collect()
    }

    /// Address of its per-cpu area; 0 without one.
    pub fn percpu(&self) -> u64 {
        hex(&self.meta["percpu"]["addr"])
    }

    /// The sections that were placed.
    pub fn sections(&self) -> &[Value] {
        self.meta["sections"].as_array().unwrap()
    }

    /// Options of `kmodld link` that put the module where it was.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec!["--percpu".to_owned(), format!("{:#x}", self.percpu())];
        if let Some(caps) = self.meta["cpucaps"].as_str() {
            options.extend(["--cpu-caps".to_owned(), caps.to_owned()]);
        }
        for (name, base) in self.regions() {
            options.extend(["--region".to_owned(), format!("{name}={base:#x}")]);
        }
        options
    }

    /// Address and size of what the set itself says is run-time state at this stage.
    pub fn not_compared(&self, stage: &str) -> Vec<(u64, u64)> {
        let ranges = self.meta["not_compared"][stage].as_array().unwrap().iter();
        ranges.map(|range| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap())).collect()
    }

    /// Sections that `layout.json` has at another place or with another size.
    pub fn misplaced(&self, layout: &Value) -> Vec<String> {
        let ours = layout["sections"].as_array().unwrap();
        let found = |section: &&Value| ours.iter().find(|o| o["index"] == section["index"]);
        let same = |section: &&Value| {
            found(section).is_some_and(|o| {
                !o["addr"].is_null()
                    && hex(&o["addr"]) == hex(&section["addr"])
                    && o["size"] == section["size"]
            })
        };
        let wrong = self.sections().iter().filter(|section| !same(section));
        wrong
            .map(|s| format!("layout (spec 02): section {} is {:?}, not {s}", s["name"], found(&s)))
            .collect()
    }

    /// Compares the regions with those in a folder, but for these ranges. Gives the number of bytes, or what differs: a
    /// line for each section.
    pub fn compare(&self, stage: &str, ours: &Path, but_for: &[(u64, u64)]) -> Result<u64, Vec<String>> {
        let (mut bytes, mut wrong) = (0, Vec::new());
        for (name, base) in self.regions() {
            let file = format!("{name}.bin");
            let mut want = read(&self.dir.join(stage).join(&file));
            let mut have = read(&ours.join(&file));
            bytes += want.len() as u64;
            if want.len() != have.len() {
                wrong.push(format!(
                    "region {name} has {} bytes, not {} (layout: spec 02)",
                    have.len(),
                    want.len()
                ));
                continue;
            }
            for (start, size) in but_for {
                if let Some(at) = start.checked_sub(base).filter(|at| *at < want.len() as u64) {
                    let range = at as usize..(at + size) as usize;
                    want[range.clone()].fill(0);
                    have[range].fill(0);
                }
            }
            wrong.extend(self.differences(stage, (name, base), &want, &have));
        }
        if wrong.is_empty() { Ok(bytes) } else { Err(wrong) }
    }

    /// Differing bytes of a region, a line for each section.
    fn differences(&self, stage: &str, (name, base): (&str, u64), want: &[u8], have: &[u8]) -> Vec<String> {
        let owner = |address: u64| {
            let mut holding = self.sections().iter().filter(|s| {
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
            let start =
                self.sections().iter().find(|s| s["name"] == section).map_or(base, |s| hex(&s["addr"]));
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
