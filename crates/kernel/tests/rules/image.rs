//! A vmlinux made by hand, and what a description takes from it.

use kernel::{BtfType, Fact, Kernel, KernelDescriptionBuilder, Known, Member, Needs, Part, RunningKernel};
use kernel_image::{ImageArch, KernelImage};
use testkit::elf::{ALLOC, Builder, EM_X86_64, ET_EXEC, EXEC, GLOBAL, WRITE};

use crate::common::symbols;

pub const BASE: u64 = 0xffff_ffff_8100_0000;
const RODATA: u64 = BASE + 0x1000;
const KSYMTAB: u64 = BASE + 0x2000;
const KSYMTAB_GPL: u64 = KSYMTAB + 24;
const KCRCTAB: u64 = BASE + 0x3000;
const STRINGS: u64 = BASE + 0x4000;
const DATA: u64 = BASE + 0x5000;
pub const FUNCTION: u64 = BASE + 0x10;
pub const CRC: u32 = 0x9e37_79b9;

/// Later stages need of it: what is taken out of BTF and memory.
pub fn needs() -> Needs {
    Needs { types: vec![("module", &["init", "exit"][..])], memory: vec![Part::Object("table")] }
}

/// BTF with `int` and a `struct module` of 0x500 bytes, `init` and `exit` in it.
fn btf() -> Vec<u8> {
    let strings = b"\0int\0module\0init\0exit\0";
    let types: [u32; 13] =
        [1, 1 << 24, 4, 1 << 24 | 32, 5, 4 << 24 | 2, 0x500, 12, 1, 0x138 * 8, 17, 1, 0x4b0 * 8];
    let header = [24, 0, 4 * types.len() as u32, 4 * types.len() as u32, strings.len() as u32];
    let words = header.into_iter().chain(types).flat_map(u32::to_le_bytes);
    [0x9f, 0xeb, 1, 0].into_iter().chain(words).chain(*strings).collect()
}

/// A vmlinux of x86_64 that exports `data`, `function` and, to GPL modules, `gpl`. With CRCs or without.
pub fn vmlinux(crcs: bool) -> Vec<u8> {
    let mut b = Builder::new(ET_EXEC, EM_X86_64);
    b.section(".text", ALLOC | EXEC, 16).zeros(0x100).at(BASE);
    let strings = "Linux version 6.1.2-made-up (me@here) (cc) #1 SMP\n\0\
        6.1.2-made-up SMP preempt mod_unload modversions \0";
    b.section(".rodata", ALLOC, 16).data(strings.into()).at(RODATA);
    let names = b"data\0function\0gpl\0SPACE\0\0";
    // Value, offset of the name, that of the namespace.
    let record = |at: u64, value: u64, name: u64, namespace: Option<u64>| {
        let namespace = namespace.map_or(0, |namespace| (STRINGS + namespace).wrapping_sub(at + 8) as u32);
        let fields = [value.wrapping_sub(at) as u32, (STRINGS + name).wrapping_sub(at + 4) as u32, namespace];
        fields.map(u32::to_le_bytes).concat()
    };
    let plain = [record(KSYMTAB, DATA, 0, Some(24)), record(KSYMTAB + 12, FUNCTION, 5, None)].concat();
    b.section("__ksymtab", ALLOC, 4).data(plain).at(KSYMTAB);
    b.section("__ksymtab_gpl", ALLOC, 4)
        .data(record(KSYMTAB_GPL, FUNCTION + 8, 14, Some(18)))
        .at(KSYMTAB_GPL);
    if crcs {
        let values = [CRC, CRC + 1].map(u32::to_le_bytes).concat();
        b.section("__kcrctab", ALLOC, 4).data(values).at(KCRCTAB);
        b.section("__kcrctab_gpl", ALLOC, 4).data((CRC + 2).to_le_bytes().into()).at(KCRCTAB + 8);
    }
    b.section("__ksymtab_strings", ALLOC, 1).data(names.to_vec()).at(STRINGS);
    b.section(".BTF", ALLOC, 1).data(btf()).at(BASE + 0x6000);
    b.section(".data", ALLOC | WRITE, 16).data([FUNCTION, 7].map(u64::to_le_bytes).concat()).at(DATA);
    for (name, section, kind, value) in [
        ("_text", ".text", 2, BASE),
        ("function", ".text", 2, FUNCTION),
        ("gpl", ".text", 2, FUNCTION + 8),
        ("data", ".data", 1, DATA),
        ("table", ".data", 1, DATA),
        ("_end", ".data", 1, DATA + 16),
    ] {
        let section = b.index(section);
        b.symbol(name, GLOBAL, kind, section, value);
    }
    b.build()
}

/// A description of nothing but that image, with this configuration in it.
pub fn describe(crcs: bool, config: Option<&str>) -> KernelDescriptionBuilder {
    let known: Vec<_> = reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let file = vmlinux(crcs);
    let image = KernelImage::open_with(&file, 1 << 20, &known, &mut |_, _, _| unreachable!()).unwrap();
    let config = config.map(|text| Ok(text.as_bytes().to_vec()));
    KernelDescriptionBuilder::new().image("vmlinux", image, config, &needs()).unwrap()
}

#[test]
fn ver_2_and_ns_1_what_an_image_tells() {
    for crcs in [true, false] {
        let builder = describe(crcs, Some("CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n"));
        assert_eq!(builder.struct_module(), (Some(0x500), Some((0x138, 0x4b0))));
        let kernel = builder.build(reloc::MACHINES).unwrap();
        assert_eq!((&*kernel.release, kernel.machine.map(|m| m.name)), ("6.1.2-made-up", Some("x86_64")));
        let vermagic = kernel.vermagic.as_deref();
        assert_eq!(vermagic, Some(&b"6.1.2-made-up SMP preempt mod_unload modversions "[..]), "VER-20");
        assert_eq!(kernel.banner.as_deref(), Some("Linux version 6.1.2-made-up (me@here) (cc) #1 SMP"));
        assert_eq!(kernel.config.struct_module_size, Some(0x500));
        assert_eq!(kernel.types.member("module", "exit"), Some(Member { offset: 0x4b0, size: 4 }));
        let btf = kernel.btf.as_ref().unwrap();
        let types: Vec<_> = (1..btf.len()).map(|number| btf.get(number).unwrap()).collect();
        assert_eq!(types, [BtfType { kind: 1, size_or_type: 4 }, BtfType { kind: 4, size_or_type: 0x500 }]);
        let all: Vec<_> = kernel.exports().iter().collect();
        let found: Vec<_> = all.iter().map(|e| (e.name, e.address, e.gpl_only, e.namespace)).collect();
        let want = [
            (&b"data"[..], Some(DATA), false, &b""[..]),
            (b"function", Some(FUNCTION), false, b""),
            (b"gpl", Some(FUNCTION + 8), true, b"SPACE"),
        ];
        assert_eq!(found, want, "NS-1, LIC-6: an empty namespace is none, one table is for GPL modules");
        let want = [CRC, CRC + 1, CRC + 2].map(|crc| crcs.then_some(crc));
        assert_eq!(
            all.iter().map(|e| e.crc).collect::<Vec<_>>(),
            want,
            "VER-2: with a table of CRCs: {crcs}"
        );
        let kernel = Kernel::booted(kernel);
        assert_eq!((kernel.pointer(DATA), kernel.pointer(DATA + 8)), (Some(FUNCTION), Some(7)));
        assert_eq!(kernel.pointer(DATA + 9), None, "beyond what the file holds");
    }
}

#[test]
fn each_fact_of_an_image_is_known_by_it() {
    let kernel = describe(true, Some("CONFIG_MODULES=y\n")).build(reloc::MACHINES).unwrap();
    for fact in [
        Fact::Release,
        Fact::Vermagic,
        Fact::Banner,
        Fact::Config,
        Fact::Machine,
        Fact::PageSize,
        Fact::StructModule,
        Fact::Symbols,
        Fact::Exports,
        Fact::Certificates,
        Fact::Btf,
        Fact::Types,
        Fact::Memory,
    ] {
        assert_eq!(kernel.known(fact), Some(&Known::Image), "{fact:?}");
    }
    for (fact, want) in [
        (Fact::NotLoaded, None),
        (Fact::Keyring, None),
        (Fact::Slide, Some(Known::Assumed)),
        (Fact::Cmdline, Some(Known::Assumed)),
    ] {
        assert_eq!(kernel.known(fact).cloned(), want, "{fact:?}");
    }
    let kernel = describe(true, None).build(reloc::MACHINES).unwrap();
    assert_eq!(kernel.known(Fact::Config), Some(&Known::Assumed), "no configuration is built in");
}

#[test]
fn ksym_30_exports_and_memory_of_an_image_move_with_the_kernel() {
    let live = symbols("ffffffff9a000000 T _text\nffffffff9a000010 T function\nffffffff9a005000 D data\n");
    let slide = 0x1900_0000;
    let kernel = describe(true, None).live_symbols("kallsyms", live).build(reloc::MACHINES).unwrap();
    let by = Known::given("kallsyms");
    assert_eq!((kernel.known(Fact::Symbols), kernel.known(Fact::Slide)), (Some(&by), Some(&by)));
    assert_eq!(kernel.known(Fact::Exports), Some(&Known::Image));
    let kernel = Kernel::booted(kernel);
    let address = |name: &[u8]| kernel.find_symbol(name, true, b"").and_then(|(_, export)| export.address);
    assert_eq!(address(b"function"), Some(FUNCTION + slide), "KSYM-30");
    assert_eq!(address(b"gpl"), Some(FUNCTION + 8 + slide), "KSYM-30: kallsyms need not list it");
    assert_eq!(kernel.pointer(DATA + slide), Some(FUNCTION + slide), "KSYM-30");
}

#[test]
fn an_image_survives_its_spec() {
    let image = describe(true, Some("CONFIG_MODULES=y\n"));
    let records = image.to_records(&needs());
    let spec = KernelDescriptionBuilder::new().records("SPEC", &records).unwrap();
    let [image, spec] = [image, spec].map(|b| Kernel::booted(b.build(reloc::MACHINES).unwrap()));
    assert!(image.exports().iter().eq(spec.exports().iter()));
    assert_eq!((&image.btf, &image.types, &image.config), (&spec.btf, &spec.types, &spec.config));
    assert_eq!(
        (image.pointer(DATA), spec.pointer(DATA)),
        (Some(FUNCTION), Some(FUNCTION)),
        "a part that is needed"
    );
    assert_eq!((image.pointer(RODATA).is_some(), spec.pointer(RODATA)), (true, None), "one that is not");
    for fact in [Fact::Symbols, Fact::Exports, Fact::Types, Fact::Memory, Fact::Machine, Fact::Config] {
        assert_eq!(spec.known(fact), Some(&Known::given("SPEC")), "{fact:?}");
    }
}

#[test]
fn an_image_without_exports_has_its_symbols() {
    let mut b = Builder::new(ET_EXEC, EM_X86_64);
    b.section(".text", ALLOC | EXEC, 16).zeros(0x100).at(BASE);
    b.symbol("_text", GLOBAL, 2, 1, BASE);
    let known: Vec<_> = reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let file = b.build();
    let image = KernelImage::open_with(&file, 1 << 20, &known, &mut |_, _, _| unreachable!()).unwrap();
    let kernel = KernelDescriptionBuilder::new().image("vmlinux", image, None, &needs()).unwrap();
    let found = |what: &str| kernel.found().iter().find(|found| found.what == what).unwrap().how.clone();
    assert_eq!(found("symbols"), "1 in the ELF symbol table");
    assert!(found("exports").starts_with("none"), "{}", found("exports"));
}
