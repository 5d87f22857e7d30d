//! What explains an address: sections, symbols, relocations, patches, run-time state; and the map that says it
//! of all addresses.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::library::open_on;
use common::{KERNELS, hex, kernel, ko, link};
use kmodld::address::Explainer;
use kmodld::load::Args;
use kmodld::{Loader, Place, Stage};
use reloc::Step;

#[test]
fn every_relocation_and_patch_explains_its_bytes() {
    for folder in KERNELS {
        let mut loader = Loader::from(kernel(folder));
        loader.kernel.state.cpus = Some(1);
        let bytes = common::read(&ko(folder, "hello"));
        let opened = open_on(&loader, &bytes);
        let args = Args { stage: Stage::Final, ..Args::default() };
        let load = loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says().0.unwrap();
        let explainer = Explainer::new(&load);
        assert_eq!(explainer.relocations().len() as u64, load.relocations(), "{folder}");
        for relocation in explainer.relocations().iter().filter(|r| r.len != 0) {
            for address in [relocation.address, relocation.address + relocation.len - 1] {
                let explained = load.explain(address);
                assert!(explained.section.is_some(), "{folder}: {address:#x}");
                assert!(explained.relocations.contains(relocation), "{folder}: {address:#x}: {explained:?}");
            }
            let behind = load.explain(relocation.address + relocation.len);
            assert!(!behind.relocations.contains(relocation), "{folder}: {behind:?}");
        }
        for patch in &load.record.patches {
            let address = load.module.placement.address(patch.place) + patch.len - 1;
            let explained = load.explain(address);
            assert!(explained.patches.contains(&patch), "{folder}: {address:#x}: {explained:?}");
        }
        for state in &load.record.runtime {
            let address = load.module.placement.address(state.place);
            assert!(load.explain(address).runtime.contains(&state), "{folder}: {address:#x}");
        }
        let outside = load.explain(0x1000);
        assert!(outside.section.is_none() && outside.symbol.is_none() && outside.relocations.is_empty());
    }
}

#[test]
fn a_function_is_named_at_its_start_and_inside() {
    let loader = Loader::from(kernel("6.12-amd64"));
    let bytes = common::read(&ko("6.12-amd64", "hello"));
    let opened = open_on(&loader, &bytes);
    let load = loader.load(&opened, &Args::default(), &Place::Kernel, None).whatever_it_says().0.unwrap();
    let explainer = Explainer::new(&load);
    let symbols = load.module.info.file.symbols().iter().zip(&load.module.values);
    let (_, init) =
        symbols.into_iter().find(|(s, _)| load.module.info.file.symbol_name(s) == b"init_module").unwrap();
    // Another name of the same function may be found.
    let name = explainer.symbol(*init).unwrap();
    assert!(!name.contains('+'), "{name}");
    assert_eq!(explainer.symbol(init + 1), Some(format!("{name}+0x1")));
    assert_eq!(explainer.name(0x10), "0x10", "nothing is there");
}

#[test]
fn map_and_json_tell_of_relocations_and_patches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hello.map");
    for folder in KERNELS {
        let document = link(folder, "hello", &["--json", "--map", path.to_str().unwrap()]).exits(0).json();
        let map = common::text(&path);
        let part = |head: &str| {
            let lines = map.lines().skip_while(|l| *l != head).skip(1).take_while(|l| !l.is_empty());
            lines.map(String::from).collect::<Vec<_>>()
        };
        let relocations = part("relocations");
        assert!(relocations.iter().any(|l| l.contains("R_") && l.contains("_printk")), "{folder}: {map}");
        let addresses: Vec<&str> = relocations.iter().map(|l| l.split_whitespace().next().unwrap()).collect();
        assert!(addresses.is_sorted(), "{folder}: relocations by address");
        let patches = document["patches"].as_array().unwrap();
        assert_eq!(part("patches").len(), patches.len() + 1, "{folder}: a line each, below a heading");
        // On arm64 a pointer stands before a function, where no symbol is.
        let mut sites = patches.iter().filter(|p| p["step"] == Step::FtraceSite.name());
        let site = sites.find(|p| p["detail"] != "ftrace_nop_ops");
        let site = site.unwrap_or_else(|| panic!("{folder}: hello has a function: {patches:?}"));
        assert!(site["symbol"].is_string() && site["size"].as_u64().unwrap() != 0, "{folder}: {site}");
        let line = map
            .lines()
            .find(|l| l.contains(Step::FtraceSite.name()) && l.contains(site["addr"].as_str().unwrap()));
        assert!(
            line.is_some_and(|l| l.ends_with(&format!("({})", site["symbol"].as_str().unwrap()))),
            "{line:?}"
        );
        // No image, no BTF: struct module is not predicted, and that is said.
        let runtime = document["runtime"].as_array().unwrap();
        let this = document["sections"].as_array().unwrap().iter();
        let this = this.clone().find(|s| s["name"] == ".gnu.linkonce.this_module").unwrap();
        let listed =
            runtime.iter().any(|r| hex(&r["addr"]) == hex(&this["addr"]) && r["size"] == this["size"]);
        assert!(listed, "{folder}: {runtime:?}");
        let unknown = document["unknown"].as_array().unwrap();
        assert!(
            unknown.iter().any(|u| u.as_str().unwrap().contains("struct module")),
            "{folder}: {unknown:?}"
        );
    }
}
