//! Type information of the modules of whole distributions (spec 06 §6.8): whether it fits the kernel's.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;

use common::trees::{Tree, sampled, trees};
use kernel::Kernel;
use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use symres::btf::btf_parse_module;

fn kernel_of(tree: &Tree) -> Option<Kernel> {
    let image = tree.image.clone().filter(|p| p.is_file())?;
    let source = KernelSource { kernel: Some(image), config: tree.config.clone(), ..KernelSource::default() };
    Some(Kernel::booted(source.describe(|| None, "").unwrap()))
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
