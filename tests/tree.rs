//! Whole distributions: every module of every release links, after the modules it needs. KMODLD_KERNELS names the
//! folder of the trees, KMODLD_TREE_SAMPLE=k takes every k-th module only, KMODLD_TRUTH gives real addresses.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::captures::kallsyms;
use common::library;
use common::trees::{Tree, module_name, sampled, trees};
use elf_layout::KernelConfig;
use kmodld::Loader;
use kmodld::input::read_decompressed;
use symres::kallsyms::KernelSymbols;
use symres::symvers::Symvers;
use symres::{Kernel, KernelParts};

/// No branch from here reaches an arm64 kernel (LAYOUT-52), and every ADRP does.
const FAR_FROM_THE_KERNEL: u64 = 0xffff_8000_4000_0000;

/// Links modules on one kernel, each after what its `depends=` names.
struct Chain<'t> {
    loader: Loader,
    arm64: bool,
    files: HashMap<String, &'t Path>,
    begun: HashSet<String>,
    /// Relocations of every module that linked.
    linked: BTreeMap<String, u64>,
    /// On arm64: slots of linkage tables that modules use out of reach of the kernel.
    far_slots: u64,
    failed: Vec<String>,
}

impl Chain<'_> {
    fn link(&mut self, name: &str) {
        if !self.begun.insert(name.to_owned()) {
            return;
        }
        let Some(path) = self.files.get(name).copied() else {
            return self.failed.push(format!("{name}: there is no such module"));
        };
        let bytes = match read_decompressed(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.failed.push(error.to_string()),
        };
        for dependency in depends(&bytes, &self.loader.kernel.config) {
            self.link(&dependency);
        }
        if self.arm64 {
            match library::slots_at(&self.loader, &bytes, FAR_FROM_THE_KERNEL) {
                Ok(slots) => self.far_slots += slots,
                Err(why) => self.failed.push(format!("{}: far from the kernel: {why}", path.display())),
            }
        }
        match library::keep(&mut self.loader, &bytes) {
            Ok(relocations) => drop(self.linked.insert(name.to_owned(), relocations)),
            Err(why) => self.failed.push(format!("{}: {why}", path.display())),
        }
    }
}

/// The modules that modinfo names as dependencies.
fn depends(bytes: &[u8], config: &KernelConfig) -> Vec<String> {
    let opened = library::open(bytes, config);
    let Some(module) = opened.module else { return Vec::new() };
    let depends = String::from_utf8_lossy(module.modinfo().get("depends").unwrap_or_default()).into_owned();
    depends.split(',').filter(|d| !d.is_empty()).map(|d| d.replace('-', "_")).collect()
}

fn kernel(tree: &Tree) -> (Kernel, String) {
    let symvers = read_decompressed(tree.symvers.as_ref().expect("a Module.symvers in usr/src")).unwrap();
    let mut config = KernelConfig::of_release(&tree.release, reloc::MACHINES).expect("a release");
    if let Some(path) = &tree.config {
        config.apply(&common::read(path), reloc::MACHINES);
    }
    let (source, text) = kallsyms(&symvers, tree.machine(), &tree.release);
    let parts = KernelParts {
        release: tree.release.clone(),
        symbols: Some(KernelSymbols::parse(&text).unwrap()),
        symvers: Some(Symvers::parse(&symvers).unwrap()),
        ..KernelParts::default()
    };
    (Kernel::new(config, parts), source)
}

fn run<'t>(tree: &'t Tree, kernel: Kernel, wanted: &[PathBuf]) -> Chain<'t> {
    let mut chain = Chain {
        loader: Loader::new(kernel),
        arm64: tree.machine() == 183,
        files: tree.by_name(),
        begun: HashSet::new(),
        linked: BTreeMap::new(),
        far_slots: 0,
        failed: Vec::new(),
    };
    for path in wanted {
        chain.link(&module_name(path));
    }
    chain
}

#[test]
fn every_module_of_every_release_links() {
    let test = "every_module_of_every_release_links";
    let mut failed = Vec::new();
    for tree in trees(test) {
        if reloc::architecture(tree.machine()).is_none() {
            common::skipped(
                &format!("{test} ({})", tree.release),
                "the architecture is unknown to the loader",
            );
            continue;
        }
        if tree.symvers.is_none() {
            common::skipped(&format!("{test} ({})", tree.release), "no usr/src/*/Module.symvers");
            continue;
        }
        let start = Instant::now();
        let (kernel, source) = kernel(&tree);
        let wanted = sampled(&tree);
        // Each worker has a kernel of its own, and links anew what both halves need.
        let halves: Vec<(&[PathBuf], Kernel)> =
            wanted.chunks(wanted.len().div_ceil(2).max(1)).map(|half| (half, kernel.clone())).collect();
        let chains = common::in_parallel(&halves, |(half, kernel)| run(&tree, kernel.clone(), half));
        let mut linked: BTreeMap<String, u64> = BTreeMap::new();
        let mut complaints: Vec<String> = Vec::new();
        let far: u64 = chains.iter().map(|c| c.far_slots).sum();
        if far != 0 {
            common::tell(&format!("{}: far from the kernel modules use {far} PLT slots", tree.release));
        }
        for chain in chains {
            linked.extend(chain.linked);
            complaints.extend(chain.failed);
        }
        complaints.sort();
        complaints.dedup();
        common::tell(&format!(
            "{}: {}/{} modules linked, {} relocations, {:.1} seconds ({source})",
            tree.release,
            linked.len(),
            linked.len() + complaints.len(),
            linked.values().sum::<u64>(),
            start.elapsed().as_secs_f64()
        ));
        failed.extend(complaints.into_iter().map(|c| format!("{}: {c}", tree.release)));
    }
    assert!(failed.is_empty(), "{}", common::first_of(&failed));
}
