//! `kmodld link` on the fixtures: verdicts, and every byte of the memory recomputed.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeMap;

use common::model::{differences, read_regions};
use common::{AMD64, Elf, KERNELS, hex, ko, link, modules};
use serde_json::Value;

/// The fixtures that a kernel refuses: errno, and the lines that it logs in this order.
fn refusal(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    match module {
        "ns_forgot" => Some((
            "EINVAL",
            &[
                "ns_forgot: module uses symbol (kmodld_ns_negate) from namespace KMODLD_FIXTURES, but does not import it.",
                "ns_forgot: Unknown symbol kmodld_ns_negate (err -22)",
            ],
        )),
        "proprietary_gpl" => Some(("ENOENT", &["proprietary_gpl: Unknown symbol ktime_get (err -2)"])),
        _ => None,
    }
}

/// Debian's 6.1 for arm64 has CONFIG_KALLSYMS_ALL=n: its kallsyms does not tell where all data lies.
fn addresses_are_missing(kernel: &str, what: &str, ran: &common::Ran) -> bool {
    let missing = kernel == "6.1-arm64"
        && ran.code == 3
        && (ran.stderr.contains("no known address") || ran.stderr.contains("give it with --percpu"));
    if missing {
        common::skipped(what, "its kallsyms has no data symbols (CONFIG_KALLSYMS_ALL=n)");
    }
    missing
}

/// What is wrong with the verdict on a fixture.
fn verdict(kernel: &str, module: &str) -> Result<(), String> {
    let ran = link(kernel, module, &["--json"]);
    if refusal(module).is_none() {
        if addresses_are_missing(kernel, &format!("verdict on {kernel}/{module}"), &ran) {
            return Ok(());
        }
        if ran.code != 0 {
            return Err(format!("exit {}, but it loads: {}", ran.code, ran.stderr));
        }
    }
    let document = ran.json();
    let findings = document["findings"].as_array().unwrap();
    let stops = findings.iter().filter(|f| f["stops_here"] == true).count();
    let Some((errno, lines)) = refusal(module) else {
        let depends: Vec<&str> =
            document["depends"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
        if depends != common::dependencies(module) {
            return Err(format!("DEP-1: depends on {depends:?}"));
        }
        return if stops == 0 { Ok(()) } else { Err(format!("it loads, but {findings:#?}")) };
    };
    if (ran.code, stops, &document["errno"]) != (1, 1, &Value::from(errno)) {
        return Err(format!("exit {}, {stops} stops, errno {}: {findings:#?}", ran.code, document["errno"]));
    }
    let dmesg: Vec<&str> = findings.iter().filter_map(|f| f["dmesg"].as_str()).collect();
    match lines.iter().find(|line| !dmesg.contains(line)) {
        Some(line) => Err(format!("no line {line:?} in {dmesg:#?}")),
        None => Ok(()),
    }
}

#[test]
fn every_fixture_loads_or_is_refused_as_its_kernel_did() {
    let mut complaints = Vec::new();
    for kernel in KERNELS {
        if !common::architecture_is_known("every_fixture_loads_or_is_refused_as_its_kernel_did", kernel) {
            continue;
        }
        for module in modules(kernel) {
            complaints.extend(verdict(kernel, &module).err().map(|why| format!("{kernel}/{module}: {why}")));
        }
    }
    assert!(complaints.is_empty(), "{}", common::first_of(&complaints));
}

#[test]
fn sym_5_without_its_dependency_a_module_is_refused_and_told_what_to_load() {
    for (kernel, module, symbol) in AMD64
        .into_iter()
        .flat_map(|k| [(k, "importer", "kmodld_add"), (k, "gpl_importer", "kmodld_gpl_multiply")])
    {
        let args = common::link_args(kernel, module);
        let alone = args.iter().map(String::as_str).take_while(|a| *a != "--with");
        let ran = common::kmodld(alone.chain(["--no-deps"])).exits(1);
        let line = format!("kernel: {module}: Unknown symbol {symbol} (err -2)");
        assert!(ran.stderr.contains(&line), "SYM-5: {kernel}: {line} is not in\n{}", ran.stderr);
        assert!(ran.stderr.contains("with ENOENT"), "SYM-5: {kernel}: {}", ran.stderr);
    }
}

#[test]
fn a_refused_dependency_is_named() {
    let kernel = "6.12-amd64";
    let refused = ko(kernel, "proprietary_gpl").display().to_string();
    let exporter = ko(kernel, "exporter").display().to_string();
    let ran = link(kernel, "hello", &["--with", &exporter, "--with", &refused]).exits(1);
    assert!(ran.stderr.contains("proprietary_gpl.ko: the kernel would refuse this module"), "{}", ran.stderr);
}

/// The symbol table lists one region of a module, which is longer than the page of that symbol: others stay away from all of it.
#[test]
fn layout_50_what_is_listed_is_not_covered() {
    let dir = tempfile::tempdir().unwrap();
    for kernel in ["6.1-amd64", "6.1-arm64"] {
        let plain = link(kernel, "sections", &["--json"]).exits(0).json();
        let (sections, regions) =
            (plain["sections"].as_array().unwrap(), plain["regions"].as_array().unwrap());
        let last = regions.last().unwrap();
        let elf = Elf::new(common::read(&ko(kernel, "sections")));
        let of_last = |index: u16| {
            sections.iter().find(|s| s["index"] == index && s["region"] == last["name"])?["offset"].as_u64()
        };
        let once =
            |name: &str| !name.is_empty() && elf.symbols().iter().filter(|s| s.name == name).count() == 1;
        let symbols = elf.symbols();
        let placed = symbols.iter().filter(|s| once(&s.name)).filter_map(|s| Some((s, of_last(s.shndx)?)));
        let lowest = placed.min_by_key(|(symbol, offset)| offset + symbol.value);
        let (symbol, offset) = lowest.unwrap_or_else(|| panic!("{kernel}: no symbol in {last}"));
        let address = hex(&last["base"]) + offset + symbol.value;
        let mut args = common::link_args(kernel, "sections");
        let symtab = args.iter().position(|arg| arg == "--symtab").unwrap() + 1;
        let text = common::text(std::path::Path::new(&args[symtab]));
        let path = dir.path().join(kernel);
        std::fs::write(&path, format!("{text}{address:016x} t {}\t[sections]\n", symbol.name)).unwrap();
        args[symtab] = path.display().to_string();
        args.push(String::from("--json"));
        let listed = common::kmodld(&args).exits(0).json();
        let range = |r: &Value| hex(&r["base"])..hex(&r["base"]) + r["size"].as_u64().unwrap();
        let mut ranges: Vec<_> = listed["regions"].as_array().unwrap().iter().map(range).collect();
        assert_eq!(
            ranges.last().unwrap().start,
            hex(&last["base"]),
            "LAYOUT-50: {kernel}: where it is listed"
        );
        ranges.sort_by_key(|range| range.start);
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        assert!(apart, "LAYOUT-50: {kernel}: regions lie over each other: {ranges:x?}");
    }
}

/// Addresses of the kernel's own symbols in a kallsyms, a global one before local ones.
fn kallsyms(kernel: &str) -> BTreeMap<String, u64> {
    let mut out: BTreeMap<String, (bool, u64)> = BTreeMap::new();
    for line in common::text(&common::fixtures(kernel).join("kallsyms")).lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let global = fields[1].chars().all(|c| c.is_ascii_uppercase());
        let address = u64::from_str_radix(fields[0], 16).unwrap();
        let entry = out.entry(fields[2].to_owned()).or_insert((global, address));
        if global && !entry.0 {
            *entry = (global, address);
        }
    }
    out.into_iter().map(|(name, (_, address))| (name, address)).collect()
}

/// Recomputes the memory of a fixture; how many relocations that took, or what differs.
fn recompute(kernel: &str, module: &str, symbols: &BTreeMap<String, u64>) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut args = vec!["--stage", "relocated", "--format", "raw", "-o", out.to_str().unwrap()];
    if kernel == "6.1-arm64" {
        // Its kallsyms does not tell where per-cpu areas begin.
        args.extend(["--percpu", "0xffff800009800000"]);
    }
    let ran = link(kernel, module, &args);
    if addresses_are_missing(kernel, &format!("memory of {kernel}/{module}"), &ran) {
        return Ok(0);
    }
    if ran.code != 0 {
        return Err(format!("exit {}: {}", ran.code, ran.stderr));
    }
    let layout: Value = serde_json::from_slice(&common::read(&out.join("layout.json"))).unwrap();
    let elf = Elf::new(common::read(&ko(kernel, module)));
    let mut exports = BTreeMap::new();
    for dependency in common::dependencies(module) {
        let document = link(kernel, dependency, &["--json"]).exits(0).json();
        for export in document["exports"].as_array().unwrap() {
            exports.insert(export["name"].as_str().unwrap().to_owned(), hex(&export["addr"]));
        }
    }
    let imported = layout["imports"].as_array().unwrap();
    let import = |name: &str| {
        // Only what is exported resolves; where it lies comes from the tests' own sources.
        imported.iter().find(|i| i["name"] == name)?;
        exports.get(name).or_else(|| symbols.get(name)).copied()
    };
    if let Some(i) = imported.iter().find(|i| import(i["name"].as_str().unwrap()) != Some(hex(&i["addr"]))) {
        return Err(format!("SYM-4: import {i}"));
    }
    let regions = read_regions(&out, &layout);
    match differences(&elf, &layout, &regions, &import) {
        (differences, relocations) if differences.is_empty() => Ok(relocations),
        (differences, _) => Err(differences.join("; ")),
    }
}

/// Every fixture that loads, on every kernel: all bytes of all regions recomputed by the tests' own model.
#[test]
fn every_byte_of_every_fixture_recomputed() {
    let mut complaints = Vec::new();
    for kernel in KERNELS {
        if !common::architecture_is_known("every_byte_of_every_fixture_recomputed", kernel) {
            continue;
        }
        let symbols = kallsyms(kernel);
        let mut total = 0;
        for module in modules(kernel).into_iter().filter(|m| refusal(m).is_none()) {
            match recompute(kernel, &module, &symbols) {
                Ok(relocations) => total += relocations,
                Err(why) => complaints.push(format!("{kernel}/{module}: {why}")),
            }
        }
        assert!(total > 250, "{kernel}: only {total} relocations recomputed");
    }
    assert!(complaints.is_empty(), "{}", common::first_of(&complaints));
}

/// The model is no copy of the loader: it notices a single wrong bit.
#[test]
fn the_model_notices_a_wrong_bit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    link("6.12-amd64", "hello", &["--stage", "relocated", "--format", "raw", "-o", out.to_str().unwrap()])
        .exits(0);
    let layout: Value = serde_json::from_slice(&common::read(&out.join("layout.json"))).unwrap();
    let elf = Elf::new(common::read(&ko("6.12-amd64", "hello")));
    let symbols = kallsyms("6.12-amd64");
    let import = |name: &str| symbols.get(name).copied();
    let mut regions = read_regions(&out, &layout);
    assert_eq!(differences(&elf, &layout, &regions, &import).0, Vec::<String>::new());
    regions.get_mut("data").unwrap().1[0x18] ^= 1;
    let said = differences(&elf, &layout, &regions, &import).0;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("region data: 1 bytes differ"), "{said:?}");
}

#[test]
fn weak_symbols_that_nothing_exports_stay_zero() {
    for kernel in AMD64 {
        let document = link(kernel, "weak_undef", &["--json"]).exits(0).json();
        let imported: Vec<&str> =
            document["imports"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
        let weak: Vec<String> = Elf::new(common::read(&ko(kernel, "weak_undef")))
            .symbols()
            .into_iter()
            .filter(|s| s.shndx == 0 && s.is_weak())
            .map(|s| s.name)
            .collect();
        let (there, missing): (Vec<&String>, Vec<&String>) =
            weak.iter().partition(|w| imported.contains(&w.as_str()));
        assert_eq!(
            (there.len(), missing.len()),
            (2, 2),
            "SYM-5: {kernel}: weak symbols {weak:?}, imported {imported:?}"
        );
    }
}
