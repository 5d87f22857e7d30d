//! What real kernels had in memory for the fixture modules, byte for byte, at every stage that the program offers.
//! `fixtures/captures/README.md` says what is captured and how; `tests/truth.rs` is the same for large sets.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::captures::{Capture, Set, packs, read_json, set_name};
use common::{hex, ko};

/// The stages at which memory was captured, and that this program knows.
fn stages() -> Vec<&'static str> {
    let help = common::kmodld(["link", "--help"]).exits(0).stdout;
    let offered = |stage: &&str| help.contains(&format!("- {stage}:"));
    let stages: Vec<_> = ["relocated", "kallsyms", "final"].into_iter().filter(offered).collect();
    assert!(!stages.is_empty(), "no stage is offered: {help}");
    stages
}

/// One boot of a kernel of the fixtures.
struct Boot {
    set: Set,
    /// The fixture folder of its kernel.
    kernel: String,
}

impl Boot {
    fn open(pack: &Path) -> Self {
        let set = Set::open(pack);
        let kernel = set.name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        assert_eq!(set.kernel(), common::release(&kernel), "{}: captured on another kernel", set.name);
        Boot { set, kernel }
    }

    /// Repeats one load; the folder with its regions.
    fn link(&self, module: &Capture, stage: &str) -> Result<PathBuf, String> {
        self.link_with(module, stage, self.set.options().into_iter().chain(module.options()))
    }

    /// The same with these options for the running system and for where the module goes.
    fn link_with(
        &self,
        module: &Capture,
        stage: &str,
        options: impl IntoIterator<Item = String>,
    ) -> Result<PathBuf, String> {
        let path = |name: String| self.set.scratch().join(name);
        let out = path(format!("{}-{stage}", module.name));
        let memory = path(format!("{}-{stage}.json", module.name));
        std::fs::write(&memory, self.set.memory(module).to_string()).unwrap();
        let text = |path: &Path| path.display().to_string();
        let mut args = vec!["link".to_owned(), text(&ko(&self.kernel, &module.name))];
        args.extend(module.params().map(String::from));
        for dependency in common::dependencies(&module.name) {
            args.extend(["--with".to_owned(), text(&ko(&self.kernel, dependency))]);
        }
        for (option, value) in [
            ("--kernel", text(&self.set.dir.join("kernel.spec"))),
            ("--config", text(&common::fixtures(&self.kernel).join("config"))),
            ("--memory", text(&memory)),
            ("--stage", stage.to_owned()),
            ("--format", "raw".to_owned()),
            ("-o", text(&out)),
        ] {
            args.extend([option.to_owned(), value]);
        }
        args.extend(options);
        let ran = common::kmodld(&args);
        if ran.code == 0 { Ok(out) } else { Err(format!("exit {}: {}", ran.code, ran.stderr.trim())) }
    }

    /// Compares one module at one stage: bytes compared, and what is wrong.
    fn compare(&self, module: &Capture, stage: &str) -> (u64, Vec<String>) {
        if !module.has_stage(stage) {
            return (0, Vec::new());
        }
        let out = match self.link(module, stage) {
            Ok(out) => out,
            Err(why) => return (0, vec![why]),
        };
        let mut wrong = module.misplaced(&read_json(&out.join("layout.json")));
        match module.compare(stage, &out, &module.not_compared(stage)) {
            Ok(bytes) => (bytes, wrong),
            Err(differences) => {
                wrong.extend(differences);
                (0, wrong)
            }
        }
    }
}

/// All captured sets of an architecture, at all stages.
fn check(arch: &str) {
    let mut packs = packs(&common::fixtures("captures"));
    packs.retain(|pack| set_name(pack).contains(arch));
    assert!(packs.len() >= 2, "no captures of {arch}");
    let mut wrong = Vec::new();
    for boot in packs.iter().map(|p| Boot::open(p)) {
        let (name, modules) = (&boot.set.name, boot.set.modules());
        assert!(modules.len() >= 16, "{name}: captures are missing: {modules:?}");
        for stage in stages() {
            let results = common::in_parallel(&modules, |module| boot.compare(module, stage));
            for (module, (_, lines)) in modules.iter().zip(&results) {
                let what = format!("{name} {}, stage {stage}", module.name);
                wrong.extend(lines.iter().map(|line| format!("{what}: {line}")));
            }
            let compared = results.iter().any(|(bytes, lines)| *bytes > 0 || !lines.is_empty());
            assert!(compared, "{name}: nothing was captured at stage {stage}");
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

/// Of a first region --base makes where the kernel had the others. Where this knew of others' memory behind it or of a hole below, the
/// first one that differs is there.
#[test]
fn layout_56_regions_behind_a_captured_first_one() {
    let (mut exact, mut elsewhere, mut wrong) = (0, 0, Vec::new());
    // A kernel that KASLR has moved is elsewhere than its image says. On 7.3 most modules have a region in a hole that this does not
    // know of, so there is little to compare.
    let packs = packs(&common::fixtures("captures"));
    let is_compared = |pack: &&PathBuf| !["kaslr", "7.3-"].iter().any(|what| set_name(pack).contains(what));
    for boot in packs.iter().filter(is_compared).map(|pack| Boot::open(pack)) {
        for module in boot.set.modules() {
            let real: Vec<u64> = module.regions().iter().map(|(_, base)| *base).collect();
            let (base, percpu) = (format!("{:#x}", real[0]), format!("{:#x}", module.percpu()));
            let options = ["--base", &base, "--percpu", &percpu].map(String::from);
            let out = boot.link_with(&module, "relocated", options).unwrap();
            let layout = read_json(&out.join("layout.json"));
            let ours: Vec<u64> =
                layout["regions"].as_array().unwrap().iter().map(|r| hex(&r["base"])).collect();
            assert_eq!(ours.len(), real.len(), "{}", module.name);
            match ours.iter().zip(&real).find(|(ours, real)| ours != real) {
                None => exact += 1,
                Some((ours, other)) if *other < real[0] || other > ours => elsewhere += 1,
                Some(_) => {
                    wrong.push(format!("{} {}: {ours:x?}, really {real:x?}", boot.set.name, module.name))
                }
            }
        }
    }
    assert!(wrong.is_empty(), "LAYOUT-56: {}", common::first_of(&wrong));
    assert!(exact > 4 * elsewhere && elsewhere > 0, "LAYOUT-56: {exact} exact, {elsewhere} elsewhere");
}
