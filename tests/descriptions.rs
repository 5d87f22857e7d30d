//! Every way to describe a kernel gives the true verdict or `undecided`, never another (OV-5 and all rules that ask for facts
//! of the kernel): a good module and seven bad ones of a real kernel, judged by each subset of what can describe it.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::elf::{Elf, Sh, UNDEF};
use common::kmodld;
use common::trees::{Tree, trees};
use kmodld::input::read_decompressed;
use serde_json::Value;

/// What describes a kernel, in the order of the options.
const SOURCES: [&str; 6] = ["image", "tree", "symtab", "symvers", "config", "release"];
const SIGNATURE: &[u8] = b"~Module signature appended~\n";

/// The exports of the kernel itself that only GPL-compatible modules see, and all others.
fn exports(symvers: &str) -> BTreeMap<&str, bool> {
    symvers
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&"vmlinux"))
        .map(|fields| (fields[1], fields[3].ends_with("_GPL")))
        .collect()
}

/// A small signed module that takes all from the kernel itself, some of it GPL-only, and exports nothing.
fn good(tree: &Tree, symvers: &str) -> Vec<u8> {
    let exports = exports(symvers);
    let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let mut files: Vec<&PathBuf> = tree.modules.iter().collect();
    files.sort_by_key(|path| size(path));
    for path in files {
        let bytes = read_decompressed(path).unwrap().to_vec();
        let elf = Elf::new(bytes.clone());
        let symbols = elf.symbols();
        let imports: Vec<&str> =
            symbols.iter().filter(|s| s.shndx == UNDEF && !s.name.is_empty()).map(|s| &*s.name).collect();
        let fits = bytes.ends_with(SIGNATURE)
            && elf.find("__ksymtab").or(elf.find("__ksymtab_gpl")).is_none()
            && imports.iter().all(|name| exports.contains_key(name) && name.len() > 3)
            && imports.iter().any(|name| exports[name]);
        if fits {
            return bytes;
        }
    }
    panic!("{}: no module takes all from the kernel", tree.release);
}

/// The file without its signature.
fn unsigned(signed: &[u8]) -> Vec<u8> {
    let info = signed.len() - SIGNATURE.len() - 12;
    let len = u32::from_be_bytes(signed[info + 8..info + 12].try_into().unwrap()) as usize;
    signed[..info - len].to_vec()
}

/// The modules by name: one that loads, and some with one thing wrong each.
fn modules(signed: &[u8], gpl: &str) -> Vec<(&'static str, Vec<u8>)> {
    let plain = unsigned(signed);
    let change = |edit: &dyn Fn(&mut Elf)| {
        let mut elf = Elf::new(plain.clone());
        edit(&mut elf);
        assert_ne!(elf.bytes, plain);
        elf.bytes
    };
    let mut tampered = signed.to_vec();
    // A byte of padding of the ELF header, which no other check looks at.
    tampered[9] ^= 1;
    vec![
        ("good", plain.clone()),
        (
            "vermagic",
            change(&|elf| {
                elf.replace(".modinfo", b" mod_unload ", b" mod_unlaod ");
            }),
        ),
        (
            "crc",
            change(&|elf| {
                let at = elf.section("__versions");
                let record =
                    elf.data(at).chunks(64).position(|r| r[8..].starts_with(gpl.as_bytes())).unwrap();
                elf.data_mut(at)[record * 64] ^= 1;
            }),
        ),
        (
            "import",
            change(&|elf| {
                let (from, to) = (format!("\0{gpl}\0"), format!("\0zz{}\0", &gpl[2..]));
                elf.replace(".strtab", from.as_bytes(), to.as_bytes());
            }),
        ),
        (
            "licence",
            change(&|elf| {
                elf.replace(".modinfo", b"license=GPL", b"license=LPG");
            }),
        ),
        ("machine", change(&|elf| elf.put(18, 2, 243))),
        (
            "struct_module",
            change(&|elf| {
                let this = elf.section(".gnu.linkonce.this_module");
                let size = elf.get(this, Sh::Size);
                elf.set(this, Sh::Size, size - 64);
            }),
        ),
        ("tampered", tampered),
    ]
}

/// The options of a subset of what describes the kernel.
fn options(tree: &Tree, dir: &Path, subset: u32) -> Vec<String> {
    let has = |source: &str| subset >> SOURCES.iter().position(|s| *s == source).unwrap() & 1 != 0;
    let text = |path: &Path| path.display().to_string();
    let mut args = Vec::new();
    let mut give = |option: &str, value: String| args.extend([option.to_owned(), value]);
    // A tree has its image with it.
    if has("tree") {
        give("--kernel", text(&dir.join("tree.spec")));
    } else if has("image") {
        give("--kernel", text(&dir.join("image.spec")));
    }
    if has("symtab") {
        give("--symtab", text(&dir.join("kallsyms")));
    }
    if has("symvers") {
        give("--symvers", text(tree.symvers.as_ref().unwrap()));
    }
    if has("config") {
        give("--config", text(tree.config.as_ref().unwrap()));
    }
    if has("release") {
        give("--release", tree.release.clone());
    }
    args
}

#[test]
fn every_description_tells_the_truth_or_nothing() {
    let test = "every_description_tells_the_truth_or_nothing";
    for tree in trees(test) {
        let (Some(image), Some(symvers), Some(_)) = (&tree.image, &tree.symvers, &tree.config) else {
            common::skipped(
                test,
                &format!("{}: image, Module.symvers or configuration is missing", tree.release),
            );
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let image = image.display().to_string();
        kmodld(["kernel", &image, "-o", &file("image.spec")]).exits(0);
        kmodld(["kernel", &tree.root.display().to_string(), "-o", &file("tree.spec")]).exits(0);
        let kallsyms = kmodld(["kernel", &image, "--kallsyms"]).exits(0).stdout;
        std::fs::write(file("kallsyms"), kallsyms).unwrap();
        let symvers = common::text(symvers);
        let signed = good(&tree, &symvers);
        let of_kernel = exports(&symvers);
        let symbols = Elf::new(signed.clone()).symbols();
        let gpl =
            symbols.iter().find(|s| s.shndx == UNDEF && of_kernel.get(&*s.name) == Some(&true)).unwrap();
        let files: Vec<(&str, String)> = modules(&signed, &gpl.name)
            .into_iter()
            .map(|(name, bytes)| {
                let path = file(&format!("{name}.ko"));
                std::fs::write(&path, bytes).unwrap();
                (name, path)
            })
            .collect();
        let judge = |subset: u32, path: &str| -> Value {
            let args = options(&tree, dir.path(), subset);
            let args = ["check", "--jsonl", path].into_iter().map(String::from).chain(args);
            let ran = kmodld(args);
            let verdict = ran.json();
            let code = match verdict["verdict"].as_str().unwrap() {
                "loads" => 0,
                "undecided" => 4,
                _ => 1,
            };
            assert_eq!(ran.code, code, "{}: {path}: {verdict}", tree.release);
            verdict
        };
        let mut wrong = Vec::new();
        let mut decided: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        // The whole: a tree with all beside it.
        let all = (1u32 << SOURCES.len()) - 1;
        let truth: Vec<Value> = files.iter().map(|(_, path)| judge(all, path)).collect();
        for ((name, _), truth) in files.iter().zip(&truth) {
            let want = if *name == "good" { "loads" } else { "refused" };
            assert_eq!(truth["verdict"], want, "{}: {name}: {truth}", tree.release);
        }
        let subsets: Vec<u32> = (1..all).collect();
        let results = common::in_parallel(&subsets, |subset| {
            files.iter().map(|(_, path)| judge(*subset, path)).collect::<Vec<Value>>()
        });
        for (subset, verdicts) in subsets.iter().zip(results) {
            let sources: Vec<&str> =
                SOURCES.iter().enumerate().filter(|(n, _)| subset >> n & 1 != 0).map(|(_, s)| *s).collect();
            for (((name, _), truth), verdict) in files.iter().zip(&truth).zip(verdicts) {
                if verdict["verdict"] == "undecided" {
                    let needs = verdict["unjudged"].as_array().unwrap();
                    assert!(!needs.is_empty(), "{}: {name} by {sources:?}: {verdict}", tree.release);
                    continue;
                }
                decided.entry(*name).or_default().insert(*subset);
                if (&verdict["verdict"], &verdict["errno"]) != (&truth["verdict"], &truth["errno"]) {
                    wrong.push(format!(
                        "{}: {name} by {sources:?}: {verdict} instead of {truth}",
                        tree.release
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", common::first_of(&wrong));
        // An image or a tree is enough for all of them; and what needs little is told by little.
        for (name, _) in &files {
            for subset in [1, 2] {
                assert!(
                    decided[name].contains(&subset),
                    "{}: {name} by {}",
                    tree.release,
                    SOURCES[subset as usize - 1]
                );
            }
        }
        let only = |source: &str| 1 << SOURCES.iter().position(|s| *s == source).unwrap();
        assert!(decided["import"].contains(&only("symvers")), "SYM-5: Module.symvers names all exports");
        assert!(decided["vermagic"].contains(&only("config")), "VER-23: a configuration tells the words");
        assert!(decided["machine"].contains(&only("symtab")), "VAL-13: addresses tell the machine");
        assert!(
            !decided["good"].contains(&(only("symtab") | only("symvers") | only("config") | only("release"))),
            "VAL-48"
        );
    }
}
