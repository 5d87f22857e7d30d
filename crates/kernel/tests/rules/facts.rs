//! How each fact of a kernel is known.

use elf_layout::KernelVersion;
use kernel::{BaseBtf, Fact, KernelDescription, KernelDescriptionBuilder, Keyring, Known, Types, newest};

use crate::common::{builder, describe, records, symbols, symvers};
use crate::image;

const ALL: [Fact; 17] = [
    Fact::Release,
    Fact::Vermagic,
    Fact::Banner,
    Fact::Config,
    Fact::Machine,
    Fact::PageSize,
    Fact::StructModule,
    Fact::Symbols,
    Fact::Exports,
    Fact::NotLoaded,
    Fact::Certificates,
    Fact::Keyring,
    Fact::Btf,
    Fact::Types,
    Fact::Memory,
    Fact::Slide,
    Fact::Cmdline,
];
/// What most kernels have, where nothing tells.
const ASSUMED: [Fact; 4] = [Fact::Config, Fact::PageSize, Fact::Slide, Fact::Cmdline];

const TEXT: &str = "ffff800000010000 T _text\nffff800000010100 T a\n";
const LIVE: &str = "ffff800000020000 T _text\nffff800000020100 T a\n";
const SYMVERS: &str = "0x00000001\ta\tvmlinux\tEXPORT_SYMBOL\t\n";

/// These facts are given by `by`, the others that can be are assumed, nothing else is known.
#[track_caller]
fn given(kernel: &KernelDescription, by: &str, facts: &[Fact]) {
    for fact in ALL {
        let want = match facts.contains(&fact) {
            true => Some(Known::given(by)),
            false => ASSUMED.contains(&fact).then_some(Known::Assumed),
        };
        assert_eq!(kernel.known(fact).cloned(), want, "{fact:?} by {by}");
    }
}

#[test]
fn each_source_tells_its_own_facts() {
    let new = KernelDescriptionBuilder::new;
    let config = || b"# Linux/toys 6.1.176 Kernel Configuration\n".to_vec();
    for (builder, facts) in [
        (new(), &[][..]),
        (new().release("x", "6.12.0"), &[Fact::Release]),
        (new().vermagic("x", "6.12.0 SMP "), &[Fact::Vermagic]),
        (new().e_machine("x", 0x1234), &[Fact::Machine]),
        (new().config("x", newest()), &[Fact::Config, Fact::PageSize]),
        (new().config_text("x", config()), &[Fact::Config, Fact::PageSize, Fact::Machine]),
        (new().config_text("x", b"CONFIG_SMP=y\n".to_vec()), &[Fact::Config, Fact::PageSize]),
        (new().symbols("x", symbols(TEXT)), &[Fact::Symbols, Fact::Machine]),
        (new().live_symbols("x", symbols(TEXT)), &[Fact::Symbols, Fact::Machine]),
        (new().symbols("x", symbols("1000 T f\n")), &[Fact::Symbols]),
        (new().symvers("x", symvers(SYMVERS)), &[Fact::Exports, Fact::NotLoaded]),
        (new().keyring("x", Keyring::Unnamed, [Vec::new()]), &[Fact::Keyring]),
        (new().types("x", Types::default()), &[Fact::Types]),
        (new().base_btf("x", BaseBtf::default()), &[Fact::Btf]),
        (new().cmdline("x", ""), &[Fact::Cmdline]),
        // What is not there tells nothing.
        (new().symbols("x", None).live_symbols("x", None).symvers("x", None).base_btf("x", None), &[]),
        (new().found_nothing("image", "x", "no file"), &[]),
    ] {
        given(&describe(builder), "x", facts);
    }
    let version = KernelVersion::new(6, 1, 0);
    let assumed = describe(new().assume_version(Some(version)));
    assert_eq!(
        (&*assumed.release, assumed.known(Fact::Release)),
        ("", None),
        "OV-5: that of the module is not the kernel's"
    );
    assert_eq!((assumed.config.version(), assumed.config.is_version_known()), (version, false));
    let told = describe(new().assume_version(Some(version)).release("tree", "6.12.0"));
    assert_eq!(told.known(Fact::Release), Some(&Known::given("tree")));
    assert!(told.config.is_version_known(), "OV-5");
    let unknown = KernelDescription::unknown(newest());
    let known: Vec<Fact> = ALL.into_iter().filter(|fact| unknown.known(*fact).is_some()).collect();
    assert_eq!(known, [Fact::Config], "nothing but its configuration, which is assumed");
}

#[test]
fn each_record_of_a_spec_tells_its_own_fact() {
    for (record, value, facts) in [
        ("release", "6.1.0", &[Fact::Release][..]),
        ("vermagic", "6.1.0 SMP ", &[Fact::Vermagic]),
        ("banner", "Linux version 6.1.0 (me) #1", &[Fact::Banner]),
        ("machine", "4660", &[Fact::Machine]),
        ("page-size", "16384", &[Fact::PageSize]),
        ("page-size", "5000", &[]),
        ("struct-module-size", "1280", &[Fact::StructModule]),
        ("config", "CONFIG_SMP=y\n", &[Fact::Config, Fact::PageSize]),
        ("kallsyms", TEXT, &[Fact::Symbols, Fact::Machine]),
        ("exports", "0x1000\t-\ta\tEXPORT_SYMBOL\t\n", &[Fact::Exports]),
        ("symvers", SYMVERS, &[Fact::Exports, Fact::NotLoaded]),
        // Two parts of no bytes.
        ("btf-table", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &[Fact::Btf]),
        ("types", "module 0 1280\n", &[Fact::Types]),
        ("memory", "0xffff800000010000 00\n", &[Fact::Memory]),
        ("certificate-0000", "der", &[Fact::Certificates]),
        ("nonsense", "1", &[]),
    ] {
        let builder = KernelDescriptionBuilder::new().records("SPEC", &records(&[(record, value)])).unwrap();
        given(&describe(builder), "SPEC", facts);
    }
}

/// SYM-34: of two records of one name the search of the kernel's own table finds one, by how many there are before it.
#[test]
fn sym_34_two_exports_of_one_name() {
    let found = |before: &[&str], plain: bool| {
        let kind = if plain { "EXPORT_SYMBOL" } else { "EXPORT_SYMBOL_GPL" };
        let other: String = before.iter().map(|name| format!("0x1\t-\t{name}\t{kind}\t\n")).collect();
        let twice = format!("{other}0x1000\t-\tm\t{kind}\t\n0x2000\t-\tm\t{kind}\t\n");
        let records = records(&[("exports", &twice)]);
        let kernel = describe(KernelDescriptionBuilder::new().records("SPEC", &records).unwrap());
        kernel.exports().find(b"m", true).unwrap().address
    };
    for plain in [true, false] {
        assert_eq!(found(&[], plain), Some(0x2000), "SYM-34: of two the probe is the second");
        assert_eq!(found(&["a"], plain), Some(0x1000), "SYM-34: of three it is the second");
        assert_eq!(found(&["a", "b"], plain), Some(0x1000), "SYM-34: of four it is the third");
        assert_eq!(
            found(&["a", "b", "c"], plain),
            Some(0x2000),
            "SYM-34: of five it is the last of the right half"
        );
    }
}

#[test]
fn the_last_source_counts() {
    let image = || image::describe(true, Some("CONFIG_MODULES=y\n"));
    let text = "0x00000001\tother\td/m\tEXPORT_SYMBOL\t\n";
    let kernel = image()
        .release("--release", "6.12.0")
        .config_text("--config", b"CONFIG_SMP=y\n".to_vec())
        .symvers("Module.symvers", symvers(text))
        .keyring("--keyring", Keyring::Unnamed, [Vec::new()])
        .build(reloc::MACHINES)
        .unwrap();
    assert_eq!(kernel.release, "6.12.0");
    for (fact, want) in [
        (Fact::Release, Known::given("--release")),
        (Fact::Config, Known::given("--config")),
        (Fact::PageSize, Known::Image),
        (Fact::NotLoaded, Known::given("Module.symvers")),
        (Fact::Keyring, Known::given("--keyring")),
        (Fact::Exports, Known::Image),
        (Fact::Certificates, Known::Image),
        (Fact::Vermagic, Known::Image),
        (Fact::Machine, Known::Image),
    ] {
        assert_eq!(kernel.known(fact), Some(&want), "{fact:?}");
    }
    let moved = builder().symbols("System.map", symbols(TEXT)).live_symbols("kallsyms", symbols(LIVE));
    let moved = describe(moved);
    assert_eq!(moved.known(Fact::Symbols), Some(&Known::given("kallsyms")));
    assert_eq!(
        moved.known(Fact::Slide),
        Some(&Known::given("kallsyms")),
        "by the symbols of the running kernel"
    );
    assert_eq!(moved.known(Fact::Machine), Some(&Known::given("kallsyms")));
}

/// `found` tells the same in words, in the order in which it was given.
#[test]
fn what_came_from_where_in_words() {
    let builder =
        builder().found_nothing("image", "/boot", "none there").symbols("System.map", symbols(TEXT));
    let builder = builder.symvers("Module.symvers", symvers(SYMVERS));
    let found: Vec<_> = builder.found().iter().map(|found| (found.what, found.how.as_str())).collect();
    let want = [
        ("image", "none there (/boot)"),
        ("symbols", "System.map (System.map)"),
        ("Module.symvers", "read as text (Module.symvers)"),
    ];
    assert_eq!(found, want);
    assert!(!builder.is_empty() && KernelDescriptionBuilder::new().is_empty());
    assert_eq!(describe(builder).found.len(), 3);
}
