//! The stages of one load, and the whole of it, on the fixtures.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use elf_layout::Findings;
use elf_layout::module::move_module;
use elf_layout::place::Placement;
use kmodld::image::Image;
use kmodld::load::{Args, LaidOut, lay_out};
use kmodld::{Loader, Place, Stage};
use reloc::Cpu;
use symres::simplify::simplify_symbols;

use crate::inputs::{Fixtures, must_load};

/// Signature tail and ELF checks: `open`.
pub fn parse(criterion: &mut Criterion) {
    let fixtures = Fixtures::read();
    let mut group = criterion.benchmark_group("parse");
    for module in &fixtures.modules {
        group.throughput(Throughput::Bytes(module.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&module.name), |b| {
            b.iter(|| black_box(module).open(&fixtures.kernel));
        });
    }
}

/// From the first rewrite to the memory plan: `lay_out`.
pub fn layout(criterion: &mut Criterion) {
    let fixtures = Fixtures::read();
    let mut group = criterion.benchmark_group("layout");
    for module in &fixtures.modules {
        let file = module.open(&fixtures.kernel).module.unwrap();
        let arch = reloc::architecture(file.e_machine()).unwrap();
        group.throughput(Throughput::Elements(file.sections().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&module.name), |b| {
            b.iter(|| {
                lay_out(&fixtures.kernel.config, black_box(&file), arch, Cpu::default(), &mut Findings::new())
            });
        });
    }
}

/// Values of all symbols: `simplify_symbols`, with CRC, licence and namespace checks.
pub fn resolve(criterion: &mut Criterion) {
    let fixtures = Fixtures::read();
    let mut group = criterion.benchmark_group("resolve");
    for module in &fixtures.modules {
        let file = module.open(&fixtures.kernel).module.unwrap();
        let config = &fixtures.kernel.config;
        let arch = reloc::architecture(file.e_machine()).unwrap();
        let laid_out = lay_out(config, &file, arch, Cpu::default(), &mut Findings::new());
        let LaidOut { info, layout, .. } = laid_out.unwrap();
        let placement = Placement::consecutive(&layout, 0xffff_ffff_c020_1000);
        let image = Image::new(&layout).unwrap();
        let mut module_in_memory = move_module(info, layout, placement, Box::new(image));
        group.throughput(Throughput::Elements(file.symbols().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&module.name), |b| {
            b.iter(|| {
                let mut said = Findings::new();
                let ignores = |name: &[u8]| arch.ignores_undefined(name);
                let (kernel, taints) = (&fixtures.kernel, fixtures.kernel.state.taints);
                simplify_symbols(black_box(&mut module_in_memory), kernel, taints, ignores, &mut said)
            });
        });
    }
}

/// What follows relocation: loads to the last stage, beside loads to the stage before it.
pub fn finalize(criterion: &mut Criterion) {
    let Fixtures { kernel, modules } = Fixtures::read();
    let loader = Loader::from(kernel);
    let mut group = criterion.benchmark_group("finalize");
    for module in &modules {
        let opened = module.open(&loader.kernel);
        for stage in [Stage::Kallsyms, Stage::Final] {
            let args = Args { stage, ..Args::default() };
            group.bench_function(BenchmarkId::new(stage.name(), &module.name), |b| {
                b.iter(|| loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says().0.unwrap());
            });
        }
    }
}

/// Everything, from the bytes of the file to its memory: `open` and `Loader::load`.
pub fn link(criterion: &mut Criterion) {
    let Fixtures { kernel, modules } = Fixtures::read();
    let loader = Loader::from(kernel);
    let mut group = criterion.benchmark_group("link");
    for module in &modules {
        group.throughput(Throughput::Bytes(module.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(&module.name), |b| {
            b.iter(|| {
                let opened = black_box(module).open(&loader.kernel);
                let attempt = loader.load(&opened, &Args::default(), &Place::Kernel, None);
                let (load, said) = attempt.whatever_it_says();
                must_load(&module.name, &said);
                black_box(load.unwrap().module);
            });
        });
    }
}
