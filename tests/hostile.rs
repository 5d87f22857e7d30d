//! Damaged modules: whatever the bytes, an answer in bounded time and never a panic. Here is what can be tried exhaustively;
//! damage by chance is what `fuzz/` does.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use common::elf::{Elf, Sh};
use common::library;
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

/// The same module with its section header table right after the ELF header, so that a truncated
/// copy still has it.
fn headers_first(good: &[u8]) -> Vec<u8> {
    let elf = Elf::new(good.to_vec());
    let (shoff, table) = (elf.shoff(), 64 * elf.shnum());
    let mut out = good[..64].to_vec();
    out.extend(&good[shoff..shoff + table]);
    out.extend(&good[64..]);
    let mut elf = Elf::new(out);
    elf.put(40, 8, 64);
    for section in 1..elf.shnum() {
        let moved = elf.get(section, Sh::Offset) + table as u64;
        elf.set(section, Sh::Offset, moved);
    }
    elf.bytes
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
    let elf = Elf::new(good.clone());
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
