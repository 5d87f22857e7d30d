//! Damaged modules: whatever the bytes, an answer in bounded time and never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use common::library;
use common::mutants::{Random, headers_first, mutant};
use kmodld::Loader;
use kmodld::inspect::inspect;

/// No single file may take longer, on a busy machine and without optimisation.
const LIMIT: Duration = Duration::from_secs(5);
const KERNEL: &str = "6.12-amd64";

fn loader(kernel: &str) -> Loader {
    let (a, b) = (common::ko(kernel, "exporter"), common::ko(kernel, "ns_exporter"));
    library::loader_with(common::kernel(kernel), &[&a, &b])
}

/// Inspects and links a file; the test fails by name if that panics or takes too long.
fn answer(loader: &Loader, file: &[u8], name: &dyn Fn() -> String) {
    let start = Instant::now();
    let run = catch_unwind(AssertUnwindSafe(|| {
        let _ = inspect("damaged.ko", file);
        library::say(loader, file);
    }));
    assert!(run.is_ok(), "{} panicked", name());
    assert!(start.elapsed() < LIMIT, "{} took {:?}", name(), start.elapsed());
}

#[test]
fn every_fixture_truncated_at_every_byte() {
    let loader = loader(KERNEL);
    for module in common::modules(KERNEL) {
        let good = common::read(&common::ko(KERNEL, &module));
        for len in 0..good.len() {
            answer(&loader, &good[..len], &|| format!("{module}.ko cut to {len} bytes"));
        }
    }
}

/// With the section headers in front a cut file gets past the checks of the header table.
#[test]
fn truncated_behind_the_section_headers() {
    for kernel in common::AMD64 {
        let loader = loader(kernel);
        for module in ["hello", "importer", "percpu"] {
            let good = headers_first(&common::read(&common::ko(kernel, module)));
            assert!(!library::say(&loader, &good).refused(), "{kernel}/{module} with its headers in front");
            for len in 0..good.len() {
                let name = || format!("{kernel}/{module}.ko, headers in front, cut to {len} bytes");
                answer(&loader, &good[..len], &name);
            }
        }
    }
}

#[test]
fn every_bit_of_the_elf_header_and_of_the_section_headers_flipped() {
    let loader = loader(KERNEL);
    let good = common::read(&common::ko(KERNEL, "percpu"));
    let elf = common::Elf::new(good.clone());
    let table = elf.shoff()..elf.shoff() + 64 * elf.shnum();
    let mut file = good;
    for at in (0..64).chain(table) {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            answer(&loader, &file, &|| format!("percpu.ko with bit {bit} of byte {at:#x} flipped"));
            file[at] ^= 1 << bit;
        }
    }
}

#[test]
fn structure_aware_mutants() {
    let count = if cfg!(debug_assertions) { 6_000 } else { 60_000 };
    for kernel in common::KERNELS {
        if !common::architecture_is_known("structure_aware_mutants", kernel) {
            continue;
        }
        let loader = if kernel == "6.1-arm64" { Loader::new(common::kernel(kernel)) } else { loader(kernel) };
        let good: Vec<(String, Vec<u8>)> = common::modules(kernel)
            .into_iter()
            .map(|m| (m.clone(), common::read(&common::ko(kernel, &m))))
            .collect();
        for seed in 0..count {
            let (module, good) = &good[Random(seed).below(good.len())];
            let file = mutant(seed, good);
            answer(&loader, &file, &|| format!("mutant {seed} of {kernel}/{module}.ko"));
        }
    }
}

/// What a kernel would take although it is damaged can also be written in every format.
#[test]
fn mutants_that_load_can_be_written() {
    let loader = loader(KERNEL);
    let modules = common::modules(KERNEL);
    let dir = tempfile::tempdir().unwrap();
    let mut written = 0;
    for seed in 1_000_000..1_001_000 {
        let module = &modules[Random(seed).below(modules.len())];
        let file = mutant(seed, &common::read(&common::ko(KERNEL, module)));
        let opened = library::open_on(&loader, &file);
        let mut said = opened.said.clone();
        let Some(load) = library::load(&loader, &opened, &mut said) else { continue };
        let run = catch_unwind(AssertUnwindSafe(|| {
            kmodld::elf_output::write(&dir.path().join("elf"), &load).unwrap();
            let document = kmodld::document::Document::new(&load, "x", &said);
            let small = load.layout.regions().all(|r| load.layout.allocated(r) < 1 << 24);
            if small {
                kmodld::raw_output::write(&dir.path().join("raw"), &load, &document).unwrap();
            }
            kmodld::load_map::load_map(&load, "x")
        }));
        assert!(run.is_ok(), "mutant {seed} of {module}.ko panicked when written");
        written += 1;
    }
    assert!(written > 300, "only {written} mutants were written");
}

/// Texts that describe a kernel are input too.
#[test]
fn damaged_descriptions_of_a_kernel() {
    let kallsyms = common::read(&common::fixtures(KERNEL).join("kallsyms"));
    let symvers = common::read(&common::fixtures(KERNEL).join("Module.symvers"));
    let config = common::read(&common::fixtures(KERNEL).join("config"));
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut damage = |text: &[u8]| {
            let mut text = text.to_vec();
            for _ in 0..=random.below(16) {
                let at = random.below(text.len());
                match random.below(4) {
                    0 => text[at] = random.next() as u8,
                    1 => text[at] = [b'\n', b'\t', b' ', 0, b'['][random.below(5)],
                    2 => drop(text.remove(at)),
                    _ => text.insert(at, random.next() as u8),
                }
            }
            text
        };
        let (a, b, c) = (damage(&kallsyms), damage(&symvers), damage(&config));
        let run = catch_unwind(AssertUnwindSafe(|| {
            let _ = symres::KernelSymbols::parse(&a);
            let _ = symres::symvers::parse_symvers(&b);
            common::config(KERNEL).clone().apply(&c);
        }));
        assert!(run.is_ok(), "description {seed} panicked");
    }
}
