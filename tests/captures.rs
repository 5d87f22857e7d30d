//! What real kernels had in memory for the fixture modules, byte for byte, at every stage that the program offers.
//! `fixtures/captures/README.md` says what is captured and how; `tests/truth.rs` is the same for large sets.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::captures::{Capture, Set, packs, read_json, set_name};
use common::ko;

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
        args.extend(self.set.options());
        args.extend(module.options());
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
