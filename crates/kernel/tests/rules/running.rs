//! What patching reads of a running kernel: memory, capabilities, errata, types.

use std::sync::Arc;

use kernel::running::Unknown;
use kernel::{Kernel, KernelDescriptionBuilder, LoadedModule, Member, Piece, RunningKernel, Types};

use crate::common::{PLAIN, TOY, booted, builder, records, symbols};

const LINK: &str = "0000000000000040 A per_cpu\nffff800000010000 T _text\nffff800000010100 D table\n\
    ffff800000010200 B __bss_start\nffff800000010240 B __bss_stop\n";
const SLIDE: u64 = 0x0000_0001_2340_0000;
const TABLE: u64 = 0xffff_8000_0001_0100;
const BSS: u64 = 0xffff_8000_0001_0200;
/// A pointer to `_text`, a constant, eight more bytes.
const MEMORY: &str = "0xffff800000010100 000001000080ffff2a000000000000000102030405060708\n";

/// The same symbols where the kernel runs.
fn live() -> String {
    let moved = |line: &str| match line.split_once(' ') {
        Some((address, rest)) => {
            let address = u64::from_str_radix(address, 16).unwrap();
            let slide = if address >> 63 == 1 { SLIDE } else { 0 };
            format!("{:016x} {rest}\n", address + slide)
        }
        None => unreachable!(),
    };
    LINK.lines().map(moved).collect::<String>() + "ffff900000000000 t of_module\t[m]\n"
}

fn with_memory() -> KernelDescriptionBuilder {
    builder().records("SPEC", &records(&[("kallsyms", LINK), ("memory", MEMORY)])).unwrap()
}

fn read<const N: usize>(kernel: &Kernel, address: u64) -> Option<[u8; N]> {
    let mut out = [0xee; N];
    kernel.read(address, &mut out).then_some(out)
}

#[test]
fn memory_of_a_kernel_that_does_not_move() {
    let kernel = booted(with_memory());
    assert_eq!(read(&kernel, TABLE + 16), Some([1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(read::<9>(&kernel, TABLE + 16), None, "beyond the end");
    assert_eq!(read::<1>(&kernel, TABLE - 1), None, "before the start");
    assert_eq!(kernel.pointer(TABLE), Some(0xffff_8000_0001_0000));
    assert_eq!(kernel.pointer(TABLE + 17), None);
}

#[test]
fn ksym_30_and_31_memory_of_a_kernel_that_moved() {
    let kernel = booted(with_memory().live_symbols("kallsyms", symbols(&live())));
    assert_eq!(kernel.slide, SLIDE, "KSYM-30");
    assert_eq!(kernel.symbol("table"), Some(TABLE + SLIDE), "KSYM-30: symbols are where the kernel runs");
    assert_eq!(kernel.symbol("per_cpu"), Some(0x40), "KSYM-31: what is no address stays");
    assert_eq!(read(&kernel, TABLE + SLIDE + 16), Some([1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(read::<8>(&kernel, TABLE), None, "KSYM-30: nothing is at the link address");
    let text = kernel.symbol("_text");
    assert_eq!(kernel.pointer(TABLE + SLIDE), text, "KSYM-30: a pointer moves with what it points to");
    let raw = read(&kernel, TABLE + SLIDE).map(u64::from_le_bytes);
    assert_eq!(raw, text.map(|a| a - SLIDE), "bytes are those before KASLR");
    assert_eq!(kernel.pointer(TABLE + SLIDE + 8), Some(0x2a), "KSYM-31: a constant does not");
}

#[test]
fn live_memory_comes_first() {
    let mut kernel = booted(with_memory().live_symbols("kallsyms", symbols(&live())));
    let at = TABLE + SLIDE;
    let piece = |address, bytes: &[u8]| Piece { address, bytes: bytes.to_vec() };
    let pointer = 0xffff_8000_0001_0000u64.to_le_bytes();
    kernel.state.live = Arc::new(vec![piece(at, &pointer), piece(0x1000, b"elsewhere")]);
    let as_it_is = Some(0xffff_8000_0001_0000);
    assert_eq!(kernel.pointer(at), as_it_is, "what a running kernel holds has moved already");
    assert_eq!(read(&kernel, 0x1004), Some(*b"where"));
    assert_eq!(read::<10>(&kernel, 0x1000), None, "a piece does not hold all of it");
    assert_eq!(kernel.pointer(at + 8), Some(0x2a), "what no piece holds is that of the image");
    kernel.state.live = Arc::new(vec![piece(at + 16, &[9; 4])]);
    assert_eq!(read(&kernel, at + 16), Some([9; 4]));
    assert_eq!(read(&kernel, at + 16), Some([1, 2, 3, 4, 5, 6, 7, 8]), "half a piece is none");
}

#[test]
fn bss_is_zero_if_there_is_an_image() {
    let kernel = booted(with_memory());
    assert_eq!(read(&kernel, BSS), Some([0; 0x40]));
    assert_eq!(kernel.pointer(BSS + 8), Some(0));
    assert_eq!(read::<2>(&kernel, BSS + 0x3f), None, "beyond __bss_stop");
    assert_eq!(read::<2>(&kernel, BSS - 1), None, "before __bss_start");
    assert_eq!(read::<2>(&kernel, u64::MAX), None);
    let moved = booted(with_memory().live_symbols("kallsyms", symbols(&live())));
    assert_eq!((read(&moved, BSS + SLIDE), read::<1>(&moved, BSS)), (Some([0; 8]), None));
    let without = booted(builder().symbols("System.map", symbols(LINK)));
    assert_eq!((read::<1>(&without, BSS), without.pointer(BSS)), (None, None), "no image, nothing is known");
}

/// A kernel of that machine whose BTF tells where its capabilities are: two words, 8 bytes into `caps`.
fn with_capabilities(e_machine: u16, types: &str) -> Kernel {
    let text = "ffff800000010000 T _text\nffff800000010100 D boot_caps\n";
    let builder = builder().e_machine("test", e_machine).symbols("System.map", symbols(text));
    booted(builder.types("BTF", Types::parse(types)))
}

const TYPES: &str = "caps 0 32\ncaps.bits 8 8\n";

#[test]
fn capabilities_of_live_memory_where_the_machine_keeps_them() {
    let mut kernel = with_capabilities(TOY.e_machine, TYPES);
    assert_eq!(kernel.capability(1), None, "only a running kernel fills the bitmap");
    let words = [0x0000_0002u32, 0x8000_0001, u32::MAX].map(u32::to_le_bytes).concat();
    kernel.state.live = Arc::new(vec![Piece { address: TABLE + 8, bytes: words.clone() }]);
    let found = [0, 1, 31, 32, 62, 63].map(|number| kernel.capability(number));
    assert_eq!(found, [false, true, false, true, false, true].map(Some));
    assert_eq!(kernel.capability(64), None, "memory behind the bitmap is none of it");
    kernel.state.live = Arc::new(vec![Piece { address: TABLE + 8, bytes: words[..4].to_vec() }]);
    assert_eq!(
        [1, 32].map(|number| kernel.capability(number)),
        [Some(true), None],
        "a word that nobody read"
    );
    // What somebody named counts, low word first; what is not in it is not set.
    kernel.state.cpu_caps = Some(vec![1 << 40, 1]);
    let found = [1, 40, 64, 65, 128, u32::MAX].map(|number| kernel.capability(number));
    assert_eq!(found, [false, true, true, false, false, false].map(Some));

    let live = Arc::new(vec![Piece { address: TABLE, bytes: vec![0xff; 64] }]);
    for (what, e_machine, types) in [
        ("a machine that keeps them elsewhere", PLAIN.e_machine, TYPES),
        ("a BTF without the struct", TOY.e_machine, "other 0 32\nother.bits 8 8\n"),
        ("no BTF", TOY.e_machine, ""),
    ] {
        let mut kernel = with_capabilities(e_machine, types);
        kernel.state.live = Arc::clone(&live);
        assert_eq!(kernel.capability(1), None, "{what}");
    }
    let text = symbols("ffff800000010000 T _text\n");
    let mut kernel = booted(builder().symbols("System.map", text).types("BTF", Types::parse(TYPES)));
    kernel.state.live = live;
    assert_eq!(kernel.capability(1), None, "no such variable");
}

#[test]
fn capabilities_of_a_variable_that_is_the_bitmap() {
    let text = "ffff900000010000 T _text\nffff900000010100 D plain_caps\n";
    let mut kernel = booted(builder().symbols("System.map", symbols(text)));
    assert_eq!(kernel.machine.map(|m| m.name), Some("plain"));
    assert_eq!(kernel.capability(1), None, "only a running kernel fills the bitmap");
    let bytes = [0x0000_0002u32, 0x8000_0000].map(u32::to_le_bytes).concat();
    kernel.state.live = Arc::new(vec![Piece { address: 0xffff_9000_0001_0100, bytes }]);
    let found = [0, 1, 62, 63, 64, 512, u32::MAX].map(|number| kernel.capability(number));
    let known = [Some(false), Some(true), Some(false), Some(true), None, None, None];
    assert_eq!(found, known, "the first of its names that the kernel has");
}

#[test]
fn capabilities_move_with_the_kernel() {
    let link = symbols("ffff800000010000 T _text\nffff800000010100 D boot_caps\n");
    let live = symbols("ffff800000020000 T _text\nffff800000020100 D boot_caps\n");
    let builder = builder().symbols("System.map", link).live_symbols("kallsyms", live);
    let mut kernel = booted(builder.types("BTF", Types::parse(TYPES)));
    assert_eq!(kernel.machine.map(|m| m.name), Some("toy"));
    kernel.state.live = Arc::new(vec![Piece { address: 0xffff_8000_0002_0108, bytes: vec![2, 0, 0, 0] }]);
    assert_eq!([0, 1].map(|number| kernel.capability(number)), [false, true].map(Some), "KSYM-30");
}

#[test]
fn what_the_state_and_the_description_tell() {
    let text = "ffff800000010000 T _text\nffff800000010100 t __x_a\nffff800000010200 T __x_b\n\
        ffff900000000000 t __x_c\t[m]\n";
    let builder = builder().live_symbols("kallsyms", symbols(text)).cmdline("test", "quiet");
    let mut kernel = booted(builder.types("BTF", Types::parse(TYPES)));
    kernel.state.errata = vec!["843419".into(), "1742098".into()];
    kernel.state.cpus = Some(4);
    assert_eq!(kernel.errata(), ["843419", "1742098"]);
    assert_eq!((kernel.cpus(), RunningKernel::cmdline(&kernel)), (Some(4), "quiet"));
    assert_eq!(kernel.symbols_with("__x_"), [0xffff_8000_0001_0100, 0xffff_8000_0001_0200], "its own ones");
    assert_eq!((kernel.symbol("__x_c"), kernel.symbol("absent")), (None, None), "a module's is not its own");
    assert_eq!(kernel.struct_size("caps"), Some(32));
    assert_eq!(kernel.member("caps", "bits"), Some(Member { offset: 8, size: 8 }));
    assert_eq!((kernel.struct_size("other"), kernel.member("caps", "other")), (None, None));
}

#[test]
fn a_kernel_of_which_nothing_is_known() {
    let kernel = Kernel::unknown(kernel::newest());
    for of in [&Unknown as &dyn RunningKernel, &kernel] {
        assert_eq!((of.symbol("_text"), of.symbols_with("_").len()), (None, 0));
        assert_eq!((of.pointer(0), of.read(0, &mut [0])), (None, false));
        assert_eq!((of.capability(0), of.cpus(), of.errata().len(), of.cmdline()), (None, None, 0, ""));
        assert_eq!((of.member("module", "init"), of.struct_size("module")), (None, None));
    }
}

#[test]
fn fin_87_code_and_constants_of_modules() {
    const TEXT: u64 = 0xffff_ffff_c020_0000;
    let mut kernel = booted(builder());
    let lies = |kernel: &Kernel, address| kernel.in_constants_of_modules(address);
    assert!(!lies(&kernel, TEXT), "FIN-87: no module is loaded");
    let read_only = vec![TEXT..TEXT + 0x1000, TEXT + 0x3000..TEXT + 0x4000];
    kernel.insert_module(LoadedModule { read_only, ..LoadedModule::named(b"exporter") });
    for (at, want) in
        [(0, true), (0xfff, true), (0x1000, false), (0x2fff, false), (0x3000, true), (0x4000, false)]
    {
        assert_eq!(lies(&kernel, TEXT + at), want, "FIN-87: {at:#x} behind the code");
    }
}
