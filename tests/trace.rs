//! Stories of loads: whole stories of every fixture, word for word, as tests/golden/trace holds them; and their numbers, derived again
//! from `readelf` and from the captured memory of booted kernels. `UPDATE_GOLDEN=1 cargo test --test trace` writes the stories anew.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;
#[path = "trace/numbers.rs"]
mod numbers;
#[path = "trace/refused.rs"]
mod refused;
#[path = "trace/texts.rs"]
mod texts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::captures::{Capture, Set, packs, set_name};
use common::{ALL_KERNELS, Ran, hex, kernel_args, ko, modules};
use serde_json::Value;

/// Modules that the kernel refuses.
const REFUSED: [&str; 2] = ["ns_forgot", "proprietary_gpl"];

/// `trace MODULE` on its own kernel, after the modules that it depends on.
fn trace(kernel: &str, module: &str, more: &[&str]) -> Ran {
    let mut args = vec![String::from("trace"), ko(kernel, module).display().to_string()];
    args.extend(kernel_args(kernel));
    for dependency in common::dependencies(module) {
        args.extend([String::from("--with"), ko(kernel, dependency).display().to_string()]);
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    common::kmodld(args)
}

/// The events of a run.
fn events(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The events of a step.
fn in_step<'e>(events: &'e [Value], step: &str) -> &'e [Value] {
    let is_step = |event: &Value| event["event"] == "step";
    let from = events.iter().position(|e| is_step(e) && e["name"] == step).unwrap();
    let len = events[from + 1..].iter().position(is_step).unwrap_or(events.len() - from - 1);
    &events[from..from + 1 + len]
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn stories_word_for_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for kernel in ALL_KERNELS {
        let folder = root.join("tests/golden/trace").join(kernel);
        std::fs::create_dir_all(&folder).unwrap();
        let results = common::in_parallel(&modules(kernel), |module| {
            let output = {
                let mut program = common::program();
                let mut args = vec![String::from("trace"), format!("fixtures/{kernel}/{module}.ko")];
                args.extend(kernel_args(kernel));
                for dependency in common::dependencies(module) {
                    args.extend([String::from("--with"), ko(kernel, dependency).display().to_string()]);
                }
                args.push(String::from("--unload"));
                program.args(args).current_dir(root).env("COLUMNS", "80").output().unwrap()
            };
            let text = String::from_utf8(output.stdout).unwrap();
            let refused = REFUSED.contains(&module.as_str());
            (text, output.status.code(), refused)
        });
        for (module, (text, code, refused)) in modules(kernel).iter().zip(results) {
            let path = folder.join(module).with_extension("txt");
            let what = path.display();
            if refused != (code == Some(1)) && module != "bss_only_init" {
                wrong.push(format!("{what}: exit code {code:?}"));
            }
            let long = text.lines().find(|line| line.chars().count() > 80 && line.trim().contains(' '));
            if let Some(line) = long {
                wrong.push(format!("{what}: wider than 80 columns: {line}"));
            }
            if refused != text.contains("=> the kernel stops here") && module != "bss_only_init" {
                wrong.push(format!("{what}: where does the kernel stop?"));
            }
            if refused && !text.contains("not reached: what follows would have come") {
                wrong.push(format!("{what}: what would have come?"));
            }
            if update {
                std::fs::write(&path, &text).unwrap();
            } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
                wrong.push(format!("{what} differs"));
            }
        }
        let known = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(known, modules(kernel).len(), "a story in {} is of no fixture", folder.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a line says beside its words: numbers, names and bytes.
fn numbers(line: &str) -> Vec<&str> {
    let is_number = |word: &&str| word.starts_with("0x") || word.starts_with(|c: char| c.is_ascii_digit());
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_number).collect()
}

/// The same story in every language: the same numbers in the same lines, and all of its words from a table.
#[test]
fn stories_in_chinese() {
    for (kernel, module) in
        [("6.12-amd64", "patching"), ("7.3-arm64", "relocs"), ("6.1-amd64", "proprietary_gpl")]
    {
        let told = |lang: &str| trace(kernel, module, &["--lang", lang, "--unload"]).stdout;
        let (english, chinese) = (told("en"), told("zh"));
        assert_eq!(english, trace(kernel, module, &["--unload"]).stdout);
        let is_chinese = |line: &str| line.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        assert!(!english.lines().any(is_chinese));
        let lines = (english.lines().count(), chinese.lines().count());
        assert_eq!(lines.0, lines.1, "{kernel}/{module}");
        let mut both = 0;
        for (one, other) in english.lines().zip(chinese.lines()) {
            let (mut one_has, mut other_has) = (numbers(one), numbers(other));
            // "the first at", "record 1 of": another language may have another order.
            one_has.sort_unstable();
            other_has.sort_unstable();
            assert_eq!(one_has, other_has, "{kernel}/{module}:\n{one}\n{other}");
            both += usize::from(one != other);
            assert!(one == other || is_chinese(other), "{kernel}/{module}: {other}");
        }
        assert!(both > 100, "{kernel}/{module}: {both} lines differ");
        // In 80 columns, each character of which takes two.
        let mut program = common::program();
        program
            .args(["trace", &ko(kernel, module).display().to_string(), "--lang", "zh"])
            .args(kernel_args(kernel));
        let narrow = String::from_utf8(program.env("COLUMNS", "80").output().unwrap().stdout).unwrap();
        let width = |line: &str| line.chars().map(|c| if c >= '\u{2e80}' { 2 } else { 1 }).sum::<usize>();
        let long = narrow.lines().find(|line| width(line) > 80 && line.trim().contains(' '));
        assert_eq!(long, None, "{kernel}/{module}");
    }
}

/// One captured load, told again.
fn captured(set: &Set, kernel: &str, module: &Capture) -> Vec<Value> {
    let memory = set.scratch().join(format!("{}-trace.json", module.name));
    std::fs::write(&memory, set.memory(module).to_string()).unwrap();
    let text = |path: PathBuf| path.display().to_string();
    let mut args = vec!["trace".to_owned(), text(ko(kernel, &module.name)), "--json".to_owned()];
    args.extend(module.params().map(String::from));
    for dependency in common::dependencies(&module.name) {
        args.extend(["--with".to_owned(), text(ko(kernel, dependency))]);
    }
    for (option, value) in [
        ("--kernel", text(set.dir.join("kernel.spec"))),
        ("--config", text(common::fixtures(kernel).join("config"))),
        ("--memory", text(memory)),
    ] {
        args.extend([option.to_owned(), value]);
    }
    args.extend(set.options());
    args.extend(module.options());
    let ran = common::kmodld(&args);
    // Undecided, for want of what the captures of some kernels do not hold.
    assert!(ran.code == 0 || ran.code == 4, "{ran:?}");
    events(&ran)
}

/// The memory of a capture at a stage.
struct Captured {
    regions: Vec<(u64, Vec<u8>)>,
    but_for: Vec<(u64, u64)>,
}

impl Captured {
    fn of(module: &Capture, stage: &str) -> Self {
        let read = |(name, base): (&str, u64)| {
            (base, common::read(&module.dir.join(stage).join(format!("{name}.bin"))))
        };
        Captured {
            regions: module.regions().into_iter().map(read).collect(),
            but_for: module.not_compared(stage),
        }
    }

    /// The bytes at an address; `None` if some of them are run-time state.
    fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        let end = address + len as u64;
        if self.but_for.iter().any(|(start, size)| *start < end && address < start + size) {
            return None;
        }
        let (base, bytes) =
            self.regions.iter().find(|(base, bytes)| *base <= address && end <= base + bytes.len() as u64)?;
        let from = (address - base) as usize;
        Some(&bytes[from..from + len])
    }
}

/// Final addresses, what relocation leaves, and what the patches make of it are what a booted kernel had in memory.
fn compare_with_capture(what: &str, module: &Capture, events: &[Value]) -> [usize; 4] {
    let mut counts = [0; 4];
    let moved = in_step(events, "move").iter().find(|e| e["event"] == "sections").unwrap();
    for section in module.sections() {
        let ours = moved["sections"].as_array().unwrap().iter().find(|s| s["index"] == section["index"]);
        assert_eq!(hex(&ours.unwrap()["addr"]), hex(&section["addr"]), "{what}: {section}");
        counts[0] += 1;
    }
    let memory = in_step(events, "move").iter().find(|e| e["event"] == "memory").unwrap();
    let regions = memory["regions"].as_array().unwrap();
    let bases: BTreeMap<u64, u64> =
        regions.iter().map(|r| (hex(&r["base"]), r["allocated"].as_u64().unwrap())).collect();
    for (base, bytes) in &Captured::of(module, "final").regions {
        assert!(bases[base] >= bytes.len() as u64, "{what}: {base:#x}, {} bytes", bytes.len());
    }
    // Where memory was read right after relocation.
    if module.has_stage("relocated") {
        let captured = Captured::of(module, "relocated");
        for record in of(events, "relocations").into_iter().flat_map(|t| t["records"].as_array().unwrap()) {
            let after = bytes(&record["after"]);
            if let Some(theirs) = captured.at(hex(&record["p"]), after.len()) {
                assert_eq!(theirs, after, "{what}: {record}");
                counts[1] += 1;
            }
        }
    }
    if module.has_stage("relocated") && module.has_stage("kallsyms") {
        let (relocated, kallsyms) = (Captured::of(module, "relocated"), Captured::of(module, "kallsyms"));
        for changed in of(events, "changed") {
            for (bytes_of, captured) in [("before", &relocated), ("after", &kallsyms)] {
                let ours = bytes(&changed[bytes_of]);
                if let Some(theirs) = captured.at(hex(&changed["addr"]), ours.len()) {
                    assert_eq!(theirs, ours, "{what}: {changed}");
                    counts[3] += 1;
                }
            }
        }
    }
    if module.has_stage("final") && module.has_stage("kallsyms") {
        let (kallsyms, last) = (Captured::of(module, "kallsyms"), Captured::of(module, "final"));
        let patches = of(events, "patch");
        // By byte: what the last patch of it leaves, and what the first one finds.
        let mut left: BTreeMap<u64, u8> = BTreeMap::new();
        let mut found: BTreeMap<u64, u8> = BTreeMap::new();
        for patch in &patches {
            let start = hex(&patch["addr"]);
            let at = if patch["shown"].is_null() { start } else { hex(&patch["shown"]) };
            let (before, after) = (bytes(&patch["before"]), bytes(&patch["after"]));
            assert_eq!(before.len(), after.len(), "{what}: {patch}");
            for (n, (before, after)) in before.iter().zip(&after).enumerate() {
                let at = at + n as u64;
                if let Some(left) = left.get(&at) {
                    assert_eq!(left, before, "{what}: one patch after the other at {at:#x}: {patch}");
                }
                found.entry(at).or_insert(*before);
                left.insert(at, *after);
            }
            // Bytes of long tables are not shown.
            for at in at + after.len() as u64..start + patch["size"].as_u64().unwrap() {
                left.remove(&at);
            }
        }
        for (at, byte) in &found {
            if let Some(theirs) = kallsyms.at(*at, 1) {
                assert_eq!(theirs, [*byte], "{what}: before the patches at {at:#x}");
            }
        }
        for (at, byte) in &left {
            if let Some(theirs) = last.at(*at, 1) {
                assert_eq!(theirs, [*byte], "{what}: after the patches at {at:#x}");
                counts[2] += 1;
            }
        }
    }
    counts
}

#[test]
fn numbers_are_those_of_booted_kernels() {
    let mut totals = [0; 4];
    for pack in packs(&common::fixtures("captures")) {
        let set = Set::open(&pack);
        let kernel = set_name(&pack).splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        let modules = set.modules();
        let counts = common::in_parallel(&modules, |module| {
            let what = format!("{} {}", set.name, module.name);
            let events = captured(&set, &kernel, module);
            numbers::compute_again(&what, &events);
            compare_with_capture(&what, module, &events)
        });
        for count in counts {
            totals.iter_mut().zip(count).for_each(|(total, count)| *total += count);
        }
    }
    let [sections, relocations, bytes, changed] = totals;
    println!(
        "{sections} sections, {relocations} relocations, {bytes} patched bytes, {changed} runs as booted kernels had them"
    );
    assert!(sections > 1000 && relocations > 1000 && bytes > 10_000 && changed > 100, "{totals:?}");
}

#[test]
fn one_step_and_sequences() {
    let ran = trace("6.12-amd64", "hello", &["--step", "layout"]).exits(0);
    assert!(ran.stdout.contains("layout_sections") && !ran.stdout.contains("apply_relocations"), "{ran:?}");
    // It tells of that step what the whole story tells.
    let whole = trace("6.12-amd64", "hello", &[]).exits(0).stdout;
    for step in ["rewrite", "flags", "layout", "relocations"] {
        let one = trace("6.12-amd64", "hello", &["--step", step]).exits(0).stdout;
        let from = one.find(&format!(" {step}: ")).unwrap();
        assert!(whole.contains(one[from..].trim_end()), "{step}: {one}");
    }
    let wrong = trace("6.12-amd64", "hello", &["--step", "nonsense"]).exits(2);
    assert!(wrong.stderr.contains("layout, move"), "{wrong:?}");
    let params = ko("6.12-amd64", "params").display().to_string();
    let insmod = format!("insmod {params} an_int=7");
    let then = ["--then", &insmod, "--then", "rmmod hello", "--then", "lsmod", "--json"];
    let events = events(&trace("6.12-amd64", "hello", &then).exits(0));
    assert_eq!(of(&events, "begin").len(), 2);
    let states: Vec<String> = of(&events, "state")
        .into_iter()
        .map(|e| format!("{} {}", e["module"].as_str().unwrap(), e["state"].as_str().unwrap()))
        .collect();
    let life = |module: &str| ["UNFORMED", "COMING", "LIVE"].map(|state| format!("{module} {state}"));
    let want = [&life("hello")[..], &life("params"), &[String::from("hello GOING")]].concat();
    assert_eq!(states, want);
    let told: Vec<&str> = of(&events, "notified").iter().map(|e| e["state"].as_str().unwrap()).collect();
    assert_eq!(told, ["COMING", "LIVE", "COMING", "LIVE", "GOING"]);
    let last = of(&events, "asked").last().unwrap()["output"].as_str().unwrap().to_owned();
    assert!(last.starts_with("params ") && !last.contains("hello"), "{last}");
    let patch = of(&events, "patch").into_iter().find(|p| p["what"] == "parameter").unwrap();
    assert_eq!((&patch["reason"], bytes(&patch["after"])), (&Value::from("an_int"), vec![7, 0, 0, 0]));
}

/// Every change of memory after relocation is a patch that the story tells of, but for the run-time fields that nobody knows.
#[test]
fn the_journal_misses_nothing() {
    use kmodld::load::{Args, open};
    use kmodld::watch::{Observer, Point, Scene, Watch};
    use kmodld::{Loader, Place, Workspace};
    use symres::LoadFlags;

    struct Nothing;
    impl Observer for Nothing {
        fn reached(&mut self, _: Point, _: &Scene<'_, '_>, _: &elf_layout::Findings) {}
    }
    let mut patches = 0;
    for kernel in ALL_KERNELS {
        for module in modules(kernel).iter().filter(|m| !REFUSED.contains(&m.as_str())) {
            let before: Vec<PathBuf> = common::dependencies(module).iter().map(|d| ko(kernel, d)).collect();
            let before: Vec<&Path> = before.iter().map(PathBuf::as_path).collect();
            let loader: Loader = common::library::loader_with(common::kernel(kernel), &before);
            let bytes = common::read(&ko(kernel, module));
            let opened = open(&bytes, &loader.kernel, LoadFlags::default());
            let args = Args { params: Some(b""), ..Args::default() };
            let watch = Watch(Some(&mut Nothing));
            let attempt =
                loader.load_watched(&mut Workspace::default(), &opened, &args, &Place::Kernel, None, watch);
            let (load, said) = attempt.whatever_it_says();
            let load = load.unwrap_or_else(|| panic!("{kernel}/{module}: {said:?}"));
            let journal = load.record.journal.as_ref().unwrap();
            assert_eq!(journal.bytes.len(), load.record.patches.len(), "{kernel}/{module}");
            let missed = journal.missed(&*load.module.memory);
            assert!(missed.is_empty(), "{kernel}/{module}: {missed:x?}");
            assert!(journal.is_whole(&*load.module.memory), "{kernel}/{module}");
            patches += journal.bytes.len();
        }
    }
    assert!(patches > 200, "{patches}");
}

/// Pages are small, whole, and the same each time.
#[test]
fn pages_need_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (kernel, module, lang) in [("6.12-amd64", "patching", "en"), ("6.1-arm64", "relocs", "zh")] {
        let page = |n: usize| {
            let path = dir.path().join(format!("{module}-{n}.html"));
            let html = path.display().to_string();
            let ran = trace(kernel, module, &["--html", &html, "--lang", lang]);
            assert!(ran.code == 0 || ran.code == 4, "{ran:?}");
            common::text(&path)
        };
        let (one, two) = (page(1), page(2));
        assert!(one == two, "{kernel}/{module}: two pages of one story");
        assert!(one.len() < 2_000_000, "{}", one.len());
        assert!(one.contains(&format!("<html lang=\"{lang}\">")));
        for outside in ["http://", "https://", "src=", "url(", "@import"] {
            let found = one.match_indices(outside).map(|(at, _)| &one[at..at + 40]);
            let found: Vec<&str> = found.filter(|text| !text.contains("www.w3.org/2000/svg")).collect();
            assert!(found.is_empty(), "{found:?}");
        }
        assert!(!one.contains("@@"), "something is not filled in");
    }
    let html = dir.path().join("x.html").display().to_string();
    trace("6.12-amd64", "hello", &["--html", &html, "--json"]).exits(2);
    trace("6.12-amd64", "hello", &["--lang", "zh", "--json"]).exits(2);
}
