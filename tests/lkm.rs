//! What modules do on `kmodld run`, beside what they did on the booted kernel: `tests/oracle/lkm.py` has recorded that.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::fixtures;
use kmodld::run::{Action, Plan, boot, run};
use run::parameters::Told;
use run::watch::Wanted;
use serde_json::Value;

/// Fixtures, and how the releases begin that they are for.
const KERNELS: [(&str, &str); 4] =
    [("6.1-amd64", "6.1."), ("6.12-amd64", "6.12."), ("7.3-amd64", "7.3."), ("6.12-arm64", "6.12.")];
/// Instructions of one system call at most.
const BUDGET: u64 = 1_000_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lkm")
}

/// The image of the newest tree for fixtures, whose name begins so.
fn image(fixtures: &str, of: &str) -> Option<PathBuf> {
    let arch = fixtures.split_once('-')?.1;
    let folder = std::env::var_os("KMODLD_KERNELS")?;
    let trees = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut trees: Vec<PathBuf> = trees
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(of) && name.ends_with(&format!("-{arch}"))
        })
        .collect();
    trees.sort();
    let tree = trees.pop()?;
    let release = tree.file_name().unwrap().to_string_lossy().into_owned();
    let old = tree.join(format!("boot/vmlinuz-{release}"));
    Some(if old.exists() { old } else { tree.join(format!("lib/modules/{release}/vmlinuz")) })
}

/// The parameters and the actions of a script.
fn script(name: &str) -> (String, Vec<String>) {
    let text = fs::read_to_string(folder().join(format!("{name}.actions"))).unwrap();
    let parameters = text.lines().find_map(|line| line.strip_prefix("# parameters: "));
    let actions = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    (parameters.unwrap_or_default().to_owned(), actions.map(str::to_owned).collect())
}

/// A line without the numbers that are the machine's.
fn stable(line: &str, values: &[String]) -> String {
    let mut line = line.to_owned();
    for value in values {
        let parts: Vec<&str> = line.split(value.as_str()).collect();
        let rest = parts
            .iter()
            .skip(1)
            .map(|part| format!("{value}N{}", part.trim_start_matches(|c: char| c.is_ascii_digit())));
        line = parts.iter().take(1).map(ToString::to_string).chain(rest).collect();
    }
    line
}

/// Of the report of a warning: what happened and where, without registers, stack and hardware, which are the machine's.
fn without_registers(log: Vec<String>) -> Vec<String> {
    let (mut kept, mut inside) = (Vec::new(), false);
    for line in log {
        let text = line.get(3..).unwrap_or_default();
        inside = text.starts_with("WARNING: ") || inside && !text.contains("---[ end trace");
        if !inside || text.starts_with("WARNING: ") || text.starts_with("Modules linked in: ") {
            kept.push(line);
        }
    }
    kept
}

/// What differs between a recording and a run, a line each.
fn differences(recorded: &Value, document: &Value, values: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    let mut entries = vec![&document["init"]];
    entries.extend(document["actions"].as_array().unwrap());
    entries.extend(Some(&document["exit"]).filter(|exit| !exit.is_null()));
    let mut rows: Vec<&Value> = recorded["results"].as_array().unwrap().iter().collect();
    // The guest tries to remove what is gone already.
    if document["exit"].is_null() && rows.last().unwrap()["result"] == -2 {
        rows.pop();
    }
    if rows.len() != entries.len() {
        all.push(format!("{} results, here {}", rows.len(), entries.len()));
    }
    let shown = |value: &Value| stable(value.as_str().unwrap_or_default(), values);
    for (row, entry) in rows.iter().zip(&entries) {
        let action = row["action"].as_str().unwrap();
        if !entry["stopped"].is_null() {
            all.push(format!("{action}: {:#}", entry["stopped"]));
        } else if row["result"] != entry["result"] {
            all.push(format!("{action}: {}, here {}", row["result"], entry["result"]));
        } else if shown(&row["output"]) != shown(&entry["output"]) {
            all.push(format!("{action}: {}, here {}", row["output"], entry["output"]));
        }
    }
    let theirs: Vec<String> = recorded["dmesg"].as_array().unwrap().iter().map(shown).collect();
    let mut ours = Vec::new();
    for message in document["dmesg"].as_array().unwrap() {
        let lines = message["text"].as_str().unwrap().split('\n');
        ours.extend(lines.map(|line| stable(&format!("<{}>{line}", message["level"]), values)));
    }
    let ours = without_registers(ours);
    if let Some(at) = (0..theirs.len().max(ours.len())).find(|at| theirs.get(*at) != ours.get(*at)) {
        all.push(format!("log, line {at}: {:?}, here {:?}", theirs.get(at), ours.get(at)));
    }
    all
}

/// Modules that do to the kernel what is told, and the kinds of that.
const DEEDS: [(&str, &[&str]); 1] = [("call_table", &["probe", "protection", "table"])];

/// What is told of a module and should not be, or the other way round.
fn deeds(kernel: &str, name: &str, document: &Value) -> Vec<String> {
    // Not every processor lets code be watched.
    if document["watched"] != true {
        return Vec::new();
    }
    let events = document["events"].as_array().unwrap();
    let mut wanted = DEEDS.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, kinds)| *kinds);
    // There it cannot make the table of system calls writable.
    if kernel.ends_with("-arm64") {
        wanted = wanted.get(..1).unwrap_or_default();
    }
    // A warning is in the log as well.
    let is_other =
        |event: &&Value| event["kind"] != "warning" && !wanted.iter().any(|kind| event["kind"] == *kind);
    let others = events.iter().filter(is_other).map(|event| format!("event: {event}"));
    let is_missing = |kind: &&&str| !events.iter().any(|event| event["kind"] == **kind);
    let missing = wanted.iter().filter(is_missing).map(|kind| format!("no event of {kind}: {events:?}"));
    let mut all: Vec<String> = others.chain(missing).collect();
    let left = &document["left_behind"];
    for kind in ["allocations", "files", "strays", "queues", "unknown", "devices"] {
        // Pools of workers of 7.3 are not understood.
        let known =
            kernel.starts_with("7.3-") && kind == "unknown" && left[kind] == serde_json::json!(["work"]);
        if !left.is_null() && left[kind] != serde_json::json!([]) && !known {
            all.push(format!("left behind: {kind}: {}", left[kind]));
        }
    }
    all
}

/// The results of the actions.
fn actions_of(document: &Value) -> Vec<Option<i64>> {
    document["actions"].as_array().unwrap().iter().map(|action| action["result"].as_i64()).collect()
}

#[test]
fn modules_do_what_they_did_on_the_booted_kernel() {
    let values = fs::read_to_string(folder().join("machine-values")).unwrap();
    let values: Vec<String> = values
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    let only = std::env::var("KMODLD_LKM").unwrap_or_default();
    let mut wrong = Vec::new();
    for (of, release) in KERNELS {
        let Some(image) = image(of, release) else {
            eprintln!("skipped: KMODLD_KERNELS has no kernel {release}* for {of}");
            continue;
        };
        let Ok(recording) = fs::read(folder().join(format!("{of}.json"))) else {
            continue;
        };
        let recording: Value = serde_json::from_slice(&recording).unwrap();
        let (mut kernel, report) = boot(&image, &Told::default(), BUDGET, None).unwrap();
        kernel.snapshot();
        for (name, recorded) in recording["modules"].as_object().unwrap() {
            if !name.contains(&only) {
                continue;
            }
            kernel.restore();
            let (parameters, actions) = script(name);
            let modules = fixtures("lkm").join(of);
            let here = |text: String| text.replace("insmod ", &format!("insmod {}/", modules.display()));
            let plan = Plan {
                before: Vec::new(),
                file: modules.join(format!("{name}.ko")),
                name: name.clone(),
                parameters,
                actions: actions
                    .into_iter()
                    .map(|text| (text.clone(), Action::parse(&here(text)).unwrap()))
                    .collect(),
                load_only: false,
                ..Plan::default()
            };
            let document = run(&mut *kernel, &report, &plan, &mut |_| Ok(())).unwrap();
            let document = serde_json::to_value(&document).unwrap();
            // None of them misuses memory.
            kernel.restore();
            let wanted = Wanted { sanitize: true, ..Wanted::default() };
            let looked = run(&mut *kernel, &report, &Plan { wanted, ..plan }, &mut |_| Ok(())).unwrap();
            let misuses = looked.events.iter().filter(|event| event.memory.is_some());
            wrong.extend(misuses.map(|event| format!("{of}: {name}: {event:?}")));
            let sanitized: Vec<_> = looked.actions.iter().map(|action| action.result).collect();
            if sanitized != actions_of(&document) {
                wrong.push(format!(
                    "{of}: {name}: results differ while misuses are looked for: {sanitized:?}"
                ));
            }
            let differences = differences(recorded, &document, &values);
            let differences = differences.into_iter().chain(deeds(of, name, &document)).collect::<Vec<_>>();
            wrong.extend(differences.iter().map(|difference| format!("{of}: {name}: {difference}")));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
