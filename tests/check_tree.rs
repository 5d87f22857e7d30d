//! `kmodld check` on whole distributions: every module loads on its own kernel, however that is described; on another
//! version's kernel it is refused, for the symbols that depmod names as well. KMODLD_KERNELS names the folder of the
//! trees, KMODLD_TREE_SAMPLE=k takes a k-th of each tree.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::trees::{Tree, trees};
use common::{has_tool, kmodld, skipped, tell};
use serde_json::Value;

/// A block of about a k-th of a tree, from its middle, with KMODLD_TREE_SAMPLE=k.
fn sample() -> Option<String> {
    let k: usize = std::env::var("KMODLD_TREE_SAMPLE").ok().filter(|k| !k.is_empty())?.parse().unwrap();
    Some(format!("{}/{}", k.max(1).div_ceil(2), k.max(1)))
}

/// `lib/modules/RELEASE` of a tree.
fn modules(tree: &Tree) -> PathBuf {
    let under = tree.modules.first().expect("a module").ancestors();
    let found = under.into_iter().find(|p| p.ends_with(Path::new("lib/modules").join(&tree.release)));
    found.expect("lib/modules/RELEASE").to_owned()
}

/// The verdicts on a tree, and how the run ended.
fn check(tree: &Tree, kernel: &[(&str, &PathBuf)]) -> (Vec<Value>, i32) {
    let mut args = vec![String::from("check"), modules(tree).display().to_string(), "--jsonl".into()];
    for (option, path) in kernel {
        args.extend([(*option).to_owned(), path.display().to_string()]);
    }
    args.extend(sample().into_iter().flat_map(|part| [String::from("--shard"), part]));
    let ran = kmodld(args);
    assert!([0, 1, 4].contains(&ran.code), "{}: {}", tree.release, ran.stderr);
    (ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect(), ran.code)
}

/// The findings that do not depend on how much of the kernel is known: not whether its keys are (SIG-8).
fn findings(verdict: &Value) -> Vec<&Value> {
    verdict["findings"].as_array().unwrap().iter().filter(|f| f["code"] != "SIG-8").collect()
}

#[test]
fn every_tree_loads_on_its_own_kernel() {
    let test = "every_tree_loads_on_its_own_kernel";
    for tree in trees(test) {
        let (Some(symvers), Some(image)) = (&tree.symvers, &tree.image) else {
            skipped(&format!("{test} ({})", tree.release), "no usr/src/*/Module.symvers or no boot/vmlinuz");
            continue;
        };
        let (told, code) = check(&tree, &[("--symvers", symvers)]);
        let others = |all: &[Value], word: &str| -> Vec<String> {
            all.iter().filter(|v| v["verdict"] != word).map(ToString::to_string).collect()
        };
        // That alone refuses none, and is not enough for a yes.
        let others_told = others(&told, "undecided");
        assert_eq!(code, 4, "{}: by Module.symvers: {}", tree.release, common::first_of(&others_told));
        assert!(others_told.is_empty(), "{}: by Module.symvers", tree.release);
        let (bare, code) = check(&tree, &[("--kernel", image)]);
        assert_eq!(code, 0, "{}: by its image: {}", tree.release, common::first_of(&others(&bare, "loads")));
        assert_eq!(told.len(), bare.len());
        for (a, b) in told.iter().zip(&bare) {
            assert_eq!(a["file"], b["file"]);
            assert_eq!(findings(a), findings(b), "{}: {}", tree.release, a["file"]);
            assert_eq!(a["taints"], b["taints"], "{}: {}", tree.release, a["file"]);
        }
        tell(&format!("{}: {} modules load, with the same findings both ways", tree.release, told.len()));
    }
}

/// What depmod has against modules: (file, symbol) that it does not find, and whose CRC differs.
type Complaints = BTreeSet<(String, String)>;

fn depmod(tree: &Tree, symvers: &Path) -> (Complaints, Complaints) {
    let root = modules(tree).ancestors().nth(3).unwrap().to_owned();
    let mut command = Command::new("depmod");
    command.args(["-n", "-e", "-E"]).arg(symvers).arg("-b").arg(root).arg(&tree.release);
    let output = command.output().unwrap();
    let (mut unknown, mut differs) = (Complaints::new(), Complaints::new());
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let line = line.strip_prefix("depmod: WARNING: ").unwrap_or_else(|| panic!("{line}"));
        for (words, into) in
            [(" needs unknown symbol ", &mut unknown), (" disagrees about version of symbol ", &mut differs)]
        {
            if let Some((file, symbol)) = line.split_once(words) {
                into.insert((file.to_owned(), symbol.to_owned()));
            }
        }
    }
    (unknown, differs)
}

/// The same of the verdicts, and names that modules export and the kernel does too.
fn complaints(all: &[Value]) -> (Complaints, Complaints, BTreeSet<String>) {
    let (mut unknown, mut differs, mut duplicates) = (Complaints::new(), Complaints::new(), BTreeSet::new());
    for verdict in all {
        let file = verdict["file"].as_str().unwrap();
        for finding in findings(verdict) {
            let line = finding["dmesg"].as_str().unwrap_or_default();
            let after = |words: &str| line.split_once(words).map(|(_, rest)| rest.split(' ').next().unwrap());
            match finding["code"].as_str().unwrap() {
                "SYM-5" => drop(unknown.insert((file.into(), after("Unknown symbol ").unwrap().into()))),
                "VER-6" => drop(differs.insert((file.into(), after("version of symbol ").unwrap().into()))),
                "DUP-1" => drop(duplicates.insert(after("duplicate symbol ").unwrap().to_owned())),
                _ => {}
            }
        }
    }
    (unknown, differs, duplicates)
}

/// Both look at the same symbols. One difference is by rule: a name that this kernel exports itself and a module of the
/// tree exports as well. The kernel takes its own (SYM-30), and refuses that module (DUP-1); depmod takes the module's,
/// whose CRC is the one that the other modules of the tree expect.
#[test]
fn another_versions_kernel_refuses_for_what_depmod_names() {
    let test = "another_versions_kernel_refuses_for_what_depmod_names";
    if !has_tool(test, "depmod") {
        return;
    }
    let all = trees(test);
    for tree in &all {
        let others = all.iter().filter(|o| o.machine() == tree.machine() && o.release != tree.release);
        for other in others {
            let what = format!("{} on {}", tree.release, other.release);
            let (Some(symvers), Some(image)) = (&other.symvers, &other.image) else {
                skipped(&format!("{test} ({what})"), "no usr/src/*/Module.symvers or no boot/vmlinuz");
                continue;
            };
            let (depmod_unknown, depmod_differs) = depmod(tree, symvers);
            for kernel in [("--symvers", symvers), ("--kernel", image)] {
                let (verdicts, _) = check(tree, &[kernel]);
                let mut stops: BTreeMap<String, usize> = BTreeMap::new();
                for verdict in &verdicts {
                    assert_eq!(verdict["errno"], "ENOEXEC", "{what}: {verdict}");
                    let stop = findings(verdict).into_iter().find(|f| f["stops_here"] == true).unwrap();
                    *stops.entry(stop["code"].as_str().unwrap().to_owned()).or_default() += 1;
                    let layout = findings(verdict).into_iter().any(|f| {
                        f["code"] == "VER-6" && f["dmesg"].as_str().unwrap().ends_with(" module_layout")
                    });
                    assert!(layout, "VER-10: {what}: {verdict}");
                }
                let files: BTreeSet<&str> = verdicts.iter().map(|v| v["file"].as_str().unwrap()).collect();
                let of_sample = |all: &Complaints| -> Complaints {
                    all.iter().filter(|(file, _)| files.contains(&**file)).cloned().collect()
                };
                let (unknown, differs, duplicates) = complaints(&verdicts);
                assert_eq!(unknown, of_sample(&depmod_unknown), "SYM-5: {what} {kernel:?}");
                let theirs = of_sample(&depmod_differs);
                let missed: Vec<_> = theirs.difference(&differs).collect();
                assert!(missed.is_empty(), "VER-6: {what} {kernel:?}: {missed:?}");
                let own: BTreeSet<&str> = differs.difference(&theirs).map(|(_, symbol)| &**symbol).collect();
                // A part of a tree does not hold all exporters.
                if sample().is_none() {
                    let odd: Vec<_> = own.iter().filter(|s| !duplicates.contains(**s)).collect();
                    assert!(odd.is_empty(), "SYM-30: {what} {kernel:?}: {odd:?}");
                }
                tell(&format!(
                    "{what} ({}): {} modules refused at {stops:?}; {} unknown symbols, {} other CRCs, {} of them the kernel's own now",
                    kernel.0,
                    verdicts.len(),
                    unknown.len(),
                    differs.len(),
                    differs.len() - theirs.len()
                ));
            }
        }
    }
}
