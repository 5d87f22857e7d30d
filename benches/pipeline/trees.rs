//! Real modules: large ones, and every module of a distribution.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use elf_layout::Findings;
use elf_layout::elf::{SHF_ALLOC, SHT_RELA};
use kmodld::load::Args;
use kmodld::{Loader, Place, Stage};
use reloc::{ModArch, Records, RelaSection, Target};
use testkit::trees::{Tree, trees};

use crate::inputs::{Module, kernel_of_tree, module_of_tree, must_load};

/// Some of the largest modules of Debian's kernels.
const LARGE: [&str; 4] = ["amdgpu", "ext4", "i915", "nouveau"];

/// Trees whose modules can be linked here, each with its loader.
fn linkable() -> impl Iterator<Item = (Tree, Loader)> {
    trees("large modules and whole trees").into_iter().filter_map(|tree| {
        let Some(kernel) = kernel_of_tree(&tree) else {
            eprintln!("{}: no Module.symvers or no config: not measured", tree.release);
            return None;
        };
        let loader = Loader::from(kernel);
        let first = Module::read(tree.modules.first()?);
        if link(&loader, &first).is_none() {
            eprintln!("{}: modules of this architecture are not linked: not measured", tree.release);
            return None;
        }
        Some((tree, loader))
    })
}

/// Up to the stage at which nothing is left to relocate.
fn args() -> Args<'static> {
    Args { stage: Stage::Relocated, ..Args::default() }
}

/// From bytes to memory. Returns the relocations of the module.
fn link(loader: &Loader, module: &Module) -> Option<u64> {
    let opened = module.open(&loader.kernel);
    let (load, said) = loader.load(&opened, &args(), &Place::Kernel, None).whatever_it_says();
    must_load(&module.name, &said);
    let load = load?;
    black_box(&load.module.memory);
    Some(load.relocations())
}

/// One module after the other: `open` and `Loader::load`, up to stage `relocated`.
pub fn large_modules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("large");
    group.sample_size(10);
    for (tree, loader) in linkable() {
        for module in LARGE.iter().filter_map(|name| module_of_tree(&tree, name)) {
            group.throughput(Throughput::Elements(link(&loader, &module).unwrap()));
            group.bench_function(BenchmarkId::new(&tree.release, &module.name), |b| {
                b.iter(|| link(&loader, black_box(&module)));
            });
        }
    }
}

/// Every kind of relocation section of one large module: `apply_relocate_add`.
pub fn sections_of_a_large_module(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply_section");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    for (tree, loader) in linkable() {
        let Some(module) = LARGE.iter().find_map(|name| module_of_tree(&tree, name)) else { continue };
        let opened = module.open(&loader.kernel);
        let load = loader.load(&opened, &args(), &Place::Kernel, None).whatever_it_says().0.unwrap();
        let file = load.module.info.file;
        let sections = load.module.info.sechdrs.iter().enumerate();
        for (index, section) in sections.filter(|(_, s)| s.sh_type == SHT_RELA && s.sh_size > 24 * 1000) {
            let target = section.sh_info as usize;
            let patched = &load.module.info.sechdrs[target];
            if patched.sh_flags & SHF_ALLOC == 0 {
                continue;
            }
            let records = file.relocations(index);
            let name = String::from_utf8_lossy(file.section_name(target)).into_owned();
            group.throughput(Throughput::Elements(records.len() as u64));
            group.bench_function(BenchmarkId::new(format!("{} {}", tree.release, module.name), name), |b| {
                let routine = |memory: &mut Vec<u8>| {
                    let mut section = RelaSection {
                        file,
                        config: &loader.kernel.config,
                        index,
                        target,
                        in_init: load.module.info.is_init_section(target),
                        memory: Target::alone(memory),
                        address: patched.sh_addr,
                        values: &load.module.values,
                        unknown: &load.module.unknown,
                        symtab: 0,
                        sechdrs: &load.module.info.sechdrs,
                    };
                    let records = Records::File(black_box(records));
                    let (mut arch, mut said) = (ModArch::default(), Findings::new());
                    load.arch.apply_relocate_add(&mut section, records, &mut arch, &mut said);
                };
                b.iter_batched_ref(|| file.section_bytes(target).to_vec(), routine, BatchSize::LargeInput);
            });
        }
    }
}

/// Every module of a tree, from memory, on one thread.
pub fn whole_trees(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(10));
    for (tree, loader) in linkable() {
        let modules: Vec<Module> = tree.modules.iter().map(|p| Module::read(p)).collect();
        let relocations: u64 = modules.iter().filter_map(|m| link(&loader, m)).sum();
        eprintln!("{}: {} modules, {relocations} relocations", tree.release, modules.len());
        group.throughput(Throughput::Elements(relocations));
        group.bench_function(BenchmarkId::from_parameter(&tree.release), |b| {
            b.iter(|| modules.iter().filter_map(|m| link(&loader, m)).sum::<u64>());
        });
    }
}
