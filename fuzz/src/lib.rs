//! Hostile input for everything of kmodld that reads input.
//!
//! A [`Target`] is a parser with what must hold for every input, whatever its bytes: its body panics
//! otherwise. The same bodies run under the driver of this package (`cargo run -p kmodld-fuzz`), under
//! libFuzzer (`fuzz/libfuzzer`) and in plain `cargo test`. `docs/robustness.md` tells what that shows.
#![forbid(unsafe_code)]
#![allow(
    clippy::restriction,
    reason = "a target fails by panicking, and the numbers here are those of small files"
)]

pub mod bodies;
pub mod dumps;
pub mod invariants;
pub mod mutate;
pub mod run;
pub mod seeds;
pub mod words;

use fastrand::Rng;

/// How inputs of a target are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel module: by its ELF structure.
    Module,
    /// Lines of words.
    Text,
    /// Bytes of an unknown structure.
    Blob,
}

/// One parser, and what must hold for whatever it is given.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it covers, in a few words.
    pub covers: &'static str,
    /// Gives it an input; panics if something does not hold.
    pub body: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How they are changed.
    pub kind: Kind,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "module",
        covers: "inspect: ELF checks, layout, modinfo, parameters, exports, versions; rules of 5.10 to 7.3",
        body: bodies::module::module,
        seeds: seeds::modules,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "link-x86_64",
        covers: "link to the final stage on a 6.12 kernel, all outputs",
        body: bodies::module::link_x86_64,
        seeds: seeds::modules_6_12_amd64,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "link-aarch64",
        covers: "the same for AArch64",
        body: bodies::module::link_aarch64,
        seeds: seeds::modules_6_12_arm64,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "link-old",
        covers: "the same on 6.1 kernels of both architectures",
        body: bodies::module::link_old,
        seeds: seeds::modules_6_1,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "check",
        covers: "check: verdict, errno, kernel log, taints; by force too",
        body: bodies::module::check,
        seeds: seeds::modules,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "lifecycle",
        covers: "insmod, insmod again, rmmod, list: the kernel's module list and address space",
        body: bodies::module::lifecycle,
        seeds: seeds::modules,
        kind: Kind::Module,
        words: words::MODINFO,
    },
    Target {
        name: "parameters",
        covers: "parse_args with any string, on a module with every type of parameter",
        body: bodies::module::parameters,
        seeds: seeds::parameters,
        kind: Kind::Text,
        words: words::PARAMETERS,
    },
    Target {
        name: "signature",
        covers: "the appended signature: its tail, PKCS#7, certificates",
        body: bodies::module::signature,
        seeds: seeds::signatures,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "keyring",
        covers: "--keyring: certificates as DER and PEM, and a signature verified with them",
        body: bodies::module::keyring,
        seeds: seeds::keyrings,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "compressed",
        covers: "modules packed as gzip, xz, zstd",
        body: bodies::kernel::compressed,
        seeds: seeds::compressed,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "kallsyms",
        covers: "/proc/kallsyms",
        body: bodies::kernel::kallsyms,
        seeds: seeds::kallsyms,
        kind: Kind::Text,
        words: words::SYMBOLS,
    },
    Target {
        name: "system-map",
        covers: "System.map, and a running kernel's symbols beside it (KASLR)",
        body: bodies::kernel::system_map,
        seeds: seeds::system_map,
        kind: Kind::Text,
        words: words::SYMBOLS,
    },
    Target {
        name: "symvers",
        covers: "Module.symvers, and a module resolved against it",
        body: bodies::kernel::symvers,
        seeds: seeds::symvers,
        kind: Kind::Text,
        words: words::SYMVERS,
    },
    Target {
        name: "config",
        covers: ".config, vermagic, kernel command line",
        body: bodies::kernel::config,
        seeds: seeds::config,
        kind: Kind::Text,
        words: words::CONFIG,
    },
    Target {
        name: "memory",
        covers: "--memory (JSON), and a module linked on that memory",
        body: bodies::kernel::memory,
        seeds: seeds::memory,
        kind: Kind::Text,
        words: words::JSON,
    },
    Target {
        name: "spec",
        covers: "SPEC files, packed and not, and a module linked on that kernel",
        body: bodies::kernel::spec,
        seeds: seeds::specs,
        kind: Kind::Text,
        words: words::SPEC,
    },
    Target {
        name: "image",
        covers: "kernel images: containers and decompressors",
        body: bodies::kernel::image,
        seeds: seeds::containers,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "kernel",
        covers: "unpacked kernel images: kallsyms, exports, BTF, certificates, facts",
        body: bodies::kernel::image,
        seeds: seeds::images,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "btf",
        covers: "BTF",
        body: bodies::kernel::btf,
        seeds: seeds::btf,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "dump-elf",
        covers: "dumps that are ELF cores, with addresses of either kind; flattened ones",
        body: bodies::dump::dump,
        seeds: dumps::elf,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "dump-lime",
        covers: "LiME and AVML",
        body: bodies::dump::dump,
        seeds: dumps::lime,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "dump-kdump",
        covers: "kdump-compressed, and flattened: zlib, lzo, snappy, zstd",
        body: bodies::dump::dump,
        seeds: dumps::kdump,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "page-tables",
        covers: "page tables of every form in raw physical memory",
        body: bodies::dump::page_tables,
        seeds: dumps::page_tables,
        kind: Kind::Blob,
        words: &[],
    },
    Target {
        name: "merge",
        covers: "merge: lines of check --jsonl, to a summary and SARIF",
        body: bodies::texts::merge,
        seeds: seeds::verdicts,
        kind: Kind::Text,
        words: words::VERDICTS,
    },
    Target {
        name: "explain",
        covers: "explain: codes, families, errnos, rules, lines of dmesg",
        body: bodies::texts::explain,
        seeds: seeds::questions,
        kind: Kind::Text,
        words: words::QUESTIONS,
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// The mutant of that number: the same for the same seed and number.
    pub fn mutant(&self, seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
        // Neighbouring numbers make no neighbouring generators.
        let mut random = Rng::with_seed(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd134_2543_de82_ef95),
        );
        let good = &seeds[random.usize(..seeds.len())];
        let other = &seeds[random.usize(..seeds.len())];
        self.mutate(&mut random, good, other)
    }

    /// A changed copy of a good input; parts may come from another one.
    pub fn mutate(&self, random: &mut Rng, good: &[u8], other: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Module => mutate::module(random, good, other),
            Kind::Text => mutate::text(random, good, other, self.words),
            Kind::Blob => mutate::blob(random, good, other),
        }
    }
}
