//! Type information of modules (spec 06 §6.8): whether it fits the kernel's, and what comes of it.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;

use common::elf::Builder;
use common::trees::{Tree, sampled, trees};
use elf_layout::{Findings, KernelConfig, KernelVersion};
use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use kmodld::{Args, Loader, Place};
use symres::btf::{BtfType, btf_parse_module};
use symres::{BaseBtf, Kernel, KernelParts};

/// Split BTF with one pointer: to type 1, its name at this offset (0 is right).
fn blob(name: u8) -> Vec<u8> {
    let header = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0];
    [&header[..], &[name, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0]].concat()
}

/// What a kernel says of modules with these BTFs, loaded one after the other.
fn said(config: &KernelConfig, btf: Option<BaseBtf>, blobs: &[Vec<u8>]) -> Vec<Findings> {
    let parts = KernelParts { btf, ..KernelParts::default() };
    let mut loader = Loader::new(Kernel::new(config.clone(), parts));
    let mut all = Vec::new();
    for (n, blob) in blobs.iter().enumerate() {
        let name = format!("name=mini{n}");
        let strings = [&*name, "license=GPL", "intree=Y", "retpoline=Y", "vermagic=6.12.0 SMP "];
        let mut b = Builder::module(&strings);
        b.section(".BTF", 0, 1).data(blob.clone());
        let bytes = b.build();
        let opened = kmodld::load::open(&bytes, &loader.kernel, Default::default());
        let mut said = opened.said.clone();
        let load = loader.load(&opened, &Args::default(), &Place::Kernel, None, &mut said);
        let kept = loader.keep(&load.unwrap());
        loader.insert(kept, symres::Init::Returns(0), &mut said);
        all.push(said);
    }
    all
}

fn config(minor: u16, modules: bool, allow: bool) -> KernelConfig {
    KernelConfig {
        module_sig: false,
        modversions: false,
        btf_modules: modules,
        allow_btf_mismatch: allow,
        ..KernelConfig::new(KernelVersion::new(6, minor, 0))
    }
}

#[test]
fn btf_1_and_3_what_the_kernel_makes_of_it() {
    let base = || Some(BaseBtf::new(b"\0int\0", [BtfType { kind: 1, size_or_type: 4 }]));
    let failed = |n: u32| format!("failed to validate module [mini{n}] BTF: -22");
    let once = "Kernel module BTF mismatch detected, BTF debug info may be unavailable for some modules";
    let name = "BPF: [2] Invalid name_offset:5";
    let (good, bad) = (blob(0), blob(5));
    let dmesg = |said: &Findings| -> Vec<String> {
        let of_btf = said.iter().filter(|f| f.code.starts_with("BTF-"));
        of_btf.flat_map(|f| f.dmesg.clone()).collect()
    };
    for (what, config, base, want) in [
        ("the kernel's BTF is not known", config(12, true, false), None, [vec![], vec![]]),
        ("CONFIG_DEBUG_INFO_BTF_MODULES=n", config(12, false, false), base(), [vec![], vec![]]),
        (
            "6.12, mismatches allowed",
            config(12, true, true),
            base(),
            [vec![name.to_owned(), once.to_owned()], vec![name.to_owned()]],
        ),
        (
            "6.1, mismatches allowed",
            config(1, true, true),
            base(),
            [vec![name.to_owned(), failed(0)], vec![name.to_owned(), failed(1)]],
        ),
        (
            "6.12, mismatches refused",
            config(12, true, false),
            base(),
            [vec![name.to_owned(), failed(0)], vec![name.to_owned(), failed(1)]],
        ),
    ] {
        let seen = said(&config, base.clone(), &[bad.clone(), bad.clone()]);
        let logs: Vec<Vec<String>> = seen.iter().map(&dmesg).collect();
        assert_eq!(logs, want, "BTF-3: {what}");
        let refused = base.is_some() && config.btf_modules && !config.allow_btf_mismatch;
        for said in &seen {
            assert_eq!(
                said.errno().map(|e| e.name()),
                refused.then_some("EINVAL"),
                "BTF-3: {what}: {said:?}"
            );
        }
        for said in said(&config, base, std::slice::from_ref(&good)) {
            assert!(said.iter().all(|f| !f.code.starts_with("BTF-")), "BTF-1: {what}: {said:?}");
        }
    }
}

fn kernel_of(tree: &Tree) -> Option<Kernel> {
    let image = tree.image.clone().filter(|p| p.is_file())?;
    let source = KernelSource { kernel: Some(image), config: tree.config.clone(), ..KernelSource::default() };
    Some(source.describe().unwrap().into_kernel(Some(tree.release.clone())).unwrap().0)
}

/// The `.BTF` of a module file; empty if it has none.
fn btf_of(path: &Path, kernel: &Kernel) -> Vec<u8> {
    let bytes = read_decompressed(path).unwrap();
    let opened = kmodld::load::open(&bytes, kernel, Default::default());
    let module = opened.module.unwrap();
    module.section_bytes(module.find_any_sec(".BTF")).to_vec()
}

/// The BTF of all modules of a distribution fits its own kernel, that of most does not fit another.
#[test]
fn btf_2_whole_distributions() {
    let test = "btf_2_whole_distributions";
    let trees = trees(test);
    let kernels: Vec<(&Tree, Kernel)> = trees.iter().filter_map(|t| Some((t, kernel_of(t)?))).collect();
    for (tree, kernel) in &kernels {
        let Some(base) = &kernel.btf else {
            common::skipped(&format!("{test} ({})", tree.release), "its image has no BTF");
            continue;
        };
        let refused = common::in_parallel(&sampled(tree), |path| {
            let btf = btf_of(path, kernel);
            let refusal = btf_parse_module(&btf, base, &kernel.config).err().filter(|_| !btf.is_empty());
            refusal.map(|r| format!("BTF-2: {}: {}", path.display(), r.why))
        });
        let refused: Vec<String> = refused.into_iter().flatten().collect();
        assert!(refused.is_empty(), "{}: {}", tree.release, common::first_of(&refused));
        for (other, wrong) in kernels.iter().filter(|(other, _)| other.release != tree.release) {
            let Some(wrong) = &wrong.btf else { continue };
            let taken = common::in_parallel(&sampled(tree), |path| {
                let btf = btf_of(path, kernel);
                (!btf.is_empty()).then(|| btf_parse_module(&btf, wrong, &kernel.config).is_ok())
            });
            let taken: Vec<bool> = taken.into_iter().flatten().collect();
            let by_chance = taken.iter().filter(|ok| **ok).count();
            // Numbers that by chance mean something are no mismatch, to the kernel neither.
            assert!(
                by_chance * 2 < taken.len(),
                "BTF-2: {by_chance} of {} modules of {} fit {}",
                taken.len(),
                tree.release,
                other.release
            );
        }
    }
}
