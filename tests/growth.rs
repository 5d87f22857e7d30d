//! Hostile modules of growing size: what they cost grows as their size does, not by its square.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::time::{Duration, Instant};

use common::elf::{ALLOC, Builder, GLOBAL, LOCAL, NOBITS, Rela, Sh, UNDEF, WRITE};
use common::{Elf, library};
use kmodld::Workspace;
use kmodld::inspect::inspect;
use kmodld::load::Args;
use kmodld::{Loader, Place};

const KERNEL: &str = "6.12-amd64";
const ABS64: u32 = 1;
const PC32: u32 = 2;
/// `STT_SECTION`
const SECTION: u8 = 3;

fn mini() -> Builder {
    Builder::mini("6.12.117+deb12-amd64")
}

/// So many sections whose names all end at the end of one long string.
fn section_names(n: usize) -> Vec<u8> {
    let mut module = mini();
    let first = module.sections.len() + 1;
    for name in std::iter::once(&*"s".repeat(64 * n)).chain((1..n).map(|_| "s")) {
        module.section(name, ALLOC, 1).zeros(1);
    }
    let mut elf = Elf::new(module.build());
    let name = elf.get(first, Sh::Name);
    for i in 1..n {
        elf.set(first + i, Sh::Name, name + i as u64);
    }
    elf.bytes
}

/// So many symbols that nobody exports, whose names all end at the end of one long string.
fn symbol_names(n: usize) -> Vec<u8> {
    let mut module = mini();
    let first = module.symbol(&"u".repeat(24 * n), GLOBAL, 0, UNDEF, 0) as usize;
    for _ in 1..n {
        module.symbol("", GLOBAL, 0, UNDEF, 0);
    }
    let mut elf = Elf::new(module.build());
    let name = elf.number(elf.symbol_at(first), 4);
    for i in 1..n {
        let at = elf.symbol_at(first + i);
        elf.put(at, 4, name + i as u64);
    }
    elf.bytes
}

/// So many exports, whose names and namespaces all end at the end of one long string.
fn exports(n: usize) -> Vec<u8> {
    let mut module = mini();
    module.section("__ksymtab_strings", ALLOC, 1).data("e".repeat(24 * n).into_bytes());
    module.section("__ksymtab", ALLOC, 4).zeros(12 * n as u64);
    let strings = module.index("__ksymtab_strings");
    let symbol = module.symbol("", LOCAL, SECTION, strings, 0);
    let field =
        |at: usize, addend: usize| Rela { offset: at as u64, kind: PC32, symbol, addend: addend as i64 };
    let records: Vec<Rela> =
        (0..n).flat_map(|i| [field(12 * i, 0), field(12 * i + 4, i), field(12 * i + 8, n + i)]).collect();
    module.relocations("__ksymtab", &records);
    module.build()
}

/// So many parameters of these names. All of them are one array of as many strings as are shown, and each of these is
/// one long text; there is a type and a long description for each.
fn parameters(n: usize, name: impl Fn(usize) -> String) -> Vec<u8> {
    let mut module = mini();
    let names: Vec<String> = (0..n).map(name).collect();
    let modinfo: String =
        names.iter().map(|name| format!("parm={name}:text\0parmtype={name}:int\0")).collect();
    let info = &mut module.sections[0];
    let data = [&info.data, modinfo.as_bytes(), b"parm=same:", "d".repeat(32 * n).as_bytes(), b"\0"].concat();
    info.data(data);
    module.section(".names", ALLOC, 1).data(names.iter().flat_map(|name| name.bytes().chain([0])).collect());
    module.section(".text.long", ALLOC, 1).data("t".repeat(32 * n).into_bytes());
    // struct kparam_array: max, elemsize, *num, *ops, *elem. Elements of no size are all the same one.
    module.section(".array", ALLOC, 8).data([&4096u64.to_le_bytes()[..], &[0; 24]].concat());
    module.section(".element", ALLOC | WRITE, 8).zeros(8);
    module.section("__param", ALLOC, 8).zeros(40 * n as u64);
    let [names_at, text, array, element] = [".names", ".text.long", ".array", ".element"].map(|name| {
        let index = module.index(name);
        module.symbol("", LOCAL, SECTION, index, 0)
    });
    let array_ops = module.symbol("param_array_ops", GLOBAL, 0, UNDEF, 0);
    let charp_ops = module.symbol("param_ops_charp", GLOBAL, 0, UNDEF, 0);
    let field = |offset: usize, symbol, addend: usize| Rela {
        offset: offset as u64,
        kind: ABS64,
        symbol,
        addend: addend as i64,
    };
    let mut at = 0;
    let mut records = Vec::new();
    for (i, name) in names.iter().enumerate() {
        records.extend([
            field(40 * i, names_at, at),
            field(40 * i + 16, array_ops, 0),
            field(40 * i + 32, array, 0),
        ]);
        at += name.len() + 1;
    }
    module.relocations("__param", &records);
    module.relocations(".array", &[field(16, charp_ops, 0), field(24, element, 0)]);
    module.relocations(".element", &[field(0, text, 0)]);
    module.build()
}

/// So many empty sections that are in memory.
fn sections(n: usize) -> Vec<u8> {
    let mut module = mini();
    for i in 0..n {
        module.section(&format!(".s{i}"), ALLOC | WRITE, 8).kind = NOBITS;
    }
    module.build()
}

/// How many bytes come out of what is done with a file: what it tells of itself, what the kernel says, the linked ELF.
fn all(loader: &Loader, file: &[u8]) -> usize {
    let told = inspect("hostile.ko", file).map_or(0, |told| serde_json::to_string(&told).unwrap().len());
    let opened = library::open_on(loader, file);
    let mut elf = Vec::new();
    let (load, said) = library::load(loader, &opened);
    if let Some(load) = load {
        kmodld::elf_output::write_to(&mut elf, &load, &kmodld::elf_output::Options::default()).unwrap();
    }
    let said: usize = said.iter().map(|f| format!("{f:?}").len()).sum();
    told + said + elf.len()
}

/// Bytes that come out, and the shortest of three times.
fn cost(loader: &Loader, file: &[u8]) -> (usize, Duration) {
    let runs = [(); 3].map(|()| {
        let start = Instant::now();
        let bytes = all(loader, file);
        (bytes, start.elapsed())
    });
    runs.into_iter().min_by_key(|(_, time)| *time).unwrap()
}

#[test]
fn four_times_the_size_costs_no_sixteen_times_as_much() {
    const SMALL: usize = 3000;
    /// Below this a time says nothing.
    const SHORT: Duration = Duration::from_millis(20);
    /// Bytes that may come out for one of the file, beside the same for all: names are cut at 4096 bytes and in texts
    /// at 960.
    const OUT: usize = 512;
    let loader = Loader::from(common::kernel(KERNEL));
    type Case = (&'static str, fn(usize) -> Vec<u8>);
    let cases: [Case; 6] = [
        ("section names", section_names),
        ("symbol names", symbol_names),
        ("exports", exports),
        ("parameters", |n| parameters(n, |i| format!("p{i}"))),
        ("parameters of one name", |n| parameters(n, |_| String::from("same"))),
        ("sections", sections),
    ];
    for (name, make) in cases {
        let [small, large] = [make(SMALL), make(4 * SMALL)];
        let ((_, before), (bytes, after)) = (cost(&loader, &small), cost(&loader, &large));
        eprintln!("{name}: {} bytes in {before:?}, {} in {after:?}, {bytes} out", small.len(), large.len());
        assert!(after < before.max(SHORT) * 10, "{name}: {before:?} became {after:?}");
        assert!(bytes < large.len() * OUT + (1 << 20), "{name}: {bytes} bytes of {}", large.len());
    }
}

/// What a file claims without having it is zero, and never touched: not for the first module, nor for the next.
#[cfg(target_os = "linux")]
#[test]
fn memory_for_what_a_file_does_not_have_is_not_written() {
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut module = mini();
    let bss = module.section(".bss", ALLOC | WRITE, 8);
    (bss.kind, bss.size) = (NOBITS, 768 << 20);
    let file = module.build();
    let loader = Loader::from(common::kernel(KERNEL));
    let opened = library::open_on(&loader, &file);
    let mut workspace = Workspace::default();
    let before = resident();
    for nth in ["first", "second", "third"] {
        let attempt = loader.load_in(&mut workspace, &opened, &Args::default(), &Place::Kernel, None);
        workspace.recycle(attempt.whatever_it_says().0.expect("LAYOUT-40: there is room for 768 MiB").module);
        let more = resident().saturating_sub(before);
        assert!(more < 256 << 20, "{more} bytes for the {nth} load");
    }
}
