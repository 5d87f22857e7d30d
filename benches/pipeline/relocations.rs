//! Relocations by type, in runs of one type as real sections have them.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use elf_layout::Findings;
use elf_layout::elf::Rela;
use reloc::{ModArch, Records, RelaSection, Target, architecture};

use crate::inputs::{Fixtures, must_load};

/// Records per run: those of a large section.
const RECORDS: u64 = 10_000;
/// Bytes from one place to the next: that of `.orc_unwind_ip` and of tables of pointers.
const STRIDE: u64 = 8;
const ADDRESS: u64 = 0xffff_ffff_c020_1000;
/// Type, name, and what makes it common in Debian's modules.
const TYPES: [(u32, &str); 6] = [
    (2, "PC32"),  // .orc_unwind_ip, .return_sites, addresses in code
    (4, "PLT32"), // calls
    (1, "64"),    // pointers in data
    (11, "32S"),  // addresses of data in code
    (10, "32"),
    (24, "PC64"), // __jump_table
];

/// `apply_relocate_add` alone: symbols have values, memory is in place.
pub fn apply(criterion: &mut Criterion) {
    let fixtures = Fixtures::read();
    let file = fixtures.module("hello").open(&fixtures.kernel).module.unwrap();
    let arch = architecture(file.e_machine()).unwrap();
    // A value for each way of using it: in reach of the module, and below 4 GiB for type 32.
    let near: Vec<u64> = (0..1000).map(|n| ADDRESS + 64 * n).collect();
    let low: Vec<u64> = (0..1000).map(|n| 0x100_0000 + 64 * n).collect();
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(RECORDS));
    for (r_type, name) in TYPES {
        let values = if name == "32" { &low } else { &near };
        let record = |n: u64| Rela {
            r_offset: n * STRIDE,
            r_info: ((n * 7 % 1000) << 32) | u64::from(r_type),
            r_addend: (n % 64) as i64 + 1,
        };
        let records: Vec<Rela> = (0..RECORDS).map(record).collect();
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let memory = || vec![0u8; (RECORDS * STRIDE) as usize];
            let routine = |memory: &mut Vec<u8>| {
                let mut said = Findings::new();
                let mut section = RelaSection {
                    file: &file,
                    config: &fixtures.kernel.config,
                    index: 2,
                    target: 1,
                    in_init: false,
                    memory: Target::alone(memory),
                    address: ADDRESS,
                    values,
                    unknown: &[],
                    symtab: 0,
                    sechdrs: &[],
                };
                let records = Records::Reordered(black_box(&records));
                arch.apply_relocate_add(&mut section, records, &mut ModArch::default(), &mut said);
                must_load(name, &said);
            };
            b.iter_batched_ref(memory, routine, BatchSize::LargeInput);
        });
    }
}
