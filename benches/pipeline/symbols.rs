//! The kernel's side: from kallsyms and Module.symvers to the index.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{Kernel, KernelDescriptionBuilder};
use kmodld::kernel_source::{needs, of_file, spec_file};
use testkit::trees::trees;

use crate::inputs::large_kernel_texts;

/// As many symbols as Debian's kernels have in kallsyms (94,266 and 163,205 on x86_64).
const SYMBOLS: u64 = 100_000;

/// Reading the texts, and joining them: `KernelSymbols::parse`, `parse_symvers`, `KernelDescriptionBuilder::build`.
pub fn index(criterion: &mut Criterion) {
    let (kallsyms, symvers) = large_kernel_texts(SYMBOLS);
    let mut group = criterion.benchmark_group("symbol_index");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(kallsyms.len() as u64));
    group.bench_function("kallsyms", |b| {
        b.iter(|| KernelSymbols::parse(black_box(kallsyms.as_bytes())).unwrap());
    });
    group.throughput(Throughput::Bytes(symvers.len() as u64));
    group.bench_function("symvers", |b| b.iter(|| Symvers::parse(black_box(symvers.as_bytes())).unwrap()));

    let parts = KernelDescriptionBuilder::new()
        .release("bench", "6.12.0")
        .config("bench", kernel::newest())
        .symbols("bench", KernelSymbols::parse(kallsyms.as_bytes()).unwrap())
        .symvers("bench", Symvers::parse(symvers.as_bytes()).unwrap());
    group.throughput(Throughput::Elements(SYMBOLS));
    group.bench_function("kernel", |b| {
        b.iter_batched(
            || parts.clone(),
            |parts| Kernel::booted(parts.build(reloc::MACHINES).unwrap()),
            BatchSize::LargeInput,
        );
    });

    let kernel = Kernel::booted(parts.build(reloc::MACHINES).unwrap());
    let names: Vec<String> =
        (0..SYMBOLS).step_by(40).map(|n| format!("subsystem_{}_do_{n}", n % 97)).collect();
    group.throughput(Throughput::Elements(names.len() as u64));
    group.bench_function("find_symbol", |b| {
        b.iter(|| names.iter().filter(|n| kernel.find_symbol(n.as_bytes(), true, b"me").is_some()).count());
    });
}

/// All that is read out of the kernel images of trees, and out of the SPECs made of them.
pub fn kernel_image(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernel_image");
    group.sample_size(10);
    for tree in trees("kernel images") {
        let path = tree.root.join(format!("boot/vmlinuz-{}", tree.release));
        let Ok(image) = std::fs::read(&path) else { continue };
        let mut spec = Vec::new();
        spec_file::write(&of_file(&path, &image).unwrap().to_records(&needs()), &mut spec).unwrap();
        for (what, bytes) in [("image", image), ("spec", spec)] {
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(BenchmarkId::new(what, &tree.release), |b| {
                b.iter(|| of_file(&path, black_box(&bytes)).unwrap());
            });
        }
    }
}
