//! What a module says about itself: its exports and its parameters (specs 03 and 07).

use elf_layout::KernelVersion;
use elf_layout::elf::SymFields;
use elf_layout::ksymtab;
use elf_layout::params::params;
use testkit::elf::{ALLOC, Builder, EXEC, GLOBAL, LOCAL, Rela, WRITE};
use testkit::fixtures::{KERNELS, PARAMETERS, ko, read};

use crate::common::{config, open};

/// A module that exports `function`, its byte 8, and a per-cpu variable, and, in `__ksymtab_gpl`, `function` again as
/// `relic`. The last bytes of `__ksymtab` are no whole record.
fn exporter(flags: Option<&[u8]>) -> Builder {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data..percpu", ALLOC | WRITE, 64).zeros(64);
    b.section("__ksymtab_strings", ALLOC, 1).data(b"function\0middle\0variable\0relic\0SPACE\0".to_vec());
    b.section("__ksymtab", ALLOC, 4).zeros(36 + 11);
    b.section("__kcrctab", ALLOC, 4).data((1u32..4).flat_map(|c| (0x10 * c).to_le_bytes()).collect());
    b.section("__ksymtab_gpl", ALLOC, 4).zeros(12);
    b.section("__kcrctab_gpl", ALLOC, 4).data(0u32.to_le_bytes().to_vec());
    if let Some(flags) = flags {
        b.section("__kflagstab", ALLOC, 1).data(flags.to_vec());
    }
    let (text, percpu, strings) = (b.index(".text"), b.index(".data..percpu"), b.index("__ksymtab_strings"));
    let function = b.symbol("function", GLOBAL, 2, text, 0x10);
    let variable = b.symbol("variable", GLOBAL, 1, percpu, 0x20);
    let names = b.symbol("", LOCAL, 3, strings, 0);
    let record = |n: u64, symbol, addend, name| {
        let rela = |offset, symbol, addend| Rela { offset: 12 * n + offset, kind: 2, symbol, addend };
        [rela(0, symbol, addend), rela(4, names, name)]
    };
    let mut plain =
        [record(0, function, 0, 0), record(1, function, 8, 9), record(2, variable, 0, 16)].concat();
    plain.push(Rela { offset: 12 + 8, kind: 2, symbol: names, addend: 31 });
    plain.extend(record(3, function, 0, 0));
    b.relocations("__ksymtab", &plain);
    b.relocations("__ksymtab_gpl", &record(0, function, 0, 25));
    b
}

/// Name, value in its section, CRC, GPL-only, namespace.
type Export = (String, u64, Option<u32>, bool, String);

fn exports(b: &Builder, version: (u16, u16)) -> Vec<Export> {
    let (file, config) = (
        b.build(),
        config("6.12-amd64").with(|c| c.set_version(KernelVersion::new(version.0, version.1, 0))),
    );
    let module = open(&file, &config).module.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = ksymtab::exports(&module, config.changes());
    all.iter()
        .map(|e| {
            let value = module.symbols()[e.symbol as usize].value().wrapping_add_signed(e.addend);
            (text(e.name), value, e.crc, e.gpl_only, text(e.namespace))
        })
        .collect()
}

#[test]
fn sym_35_to_38_what_records_stand_for() {
    let want = [
        ("function", 0x10, 0x10, false, ""),
        ("middle", 0x18, 0x20, false, "SPACE"),
        ("variable", 0x20, 0x30, false, ""),
        ("relic", 0x10, 0, true, ""),
    ];
    let want: Vec<Export> =
        want.map(|(n, at, crc, gpl, space)| (n.to_owned(), at, Some(crc), gpl, space.to_owned())).into();
    for minor in [1, 12] {
        let what = "SYM-35 to SYM-38: records, also of a per-cpu variable; the rest of the table is none";
        assert_eq!(
            exports(&exporter(None), (6, minor)),
            want,
            "{what}; VER-8: CRCs by index, also 0; IMG-25"
        );
    }
}

#[test]
fn sym_39_one_table_with_flags_since_7_1() {
    let gpl = |flags, version| -> Vec<(String, bool)> {
        exports(&exporter(Some(flags)), version).into_iter().map(|(name, _, _, gpl, _)| (name, gpl)).collect()
    };
    let want = |gpl: &[(&str, bool)]| gpl.iter().map(|(n, g)| ((*n).to_owned(), *g)).collect::<Vec<_>>();
    let by_flag = want(&[("function", false), ("middle", true), ("variable", false)]);
    assert_eq!(gpl(&[0, 1, 0xfe], (7, 1)), by_flag, "SYM-39: by bit 0 of __kflagstab, without __ksymtab_gpl");
    let by_table = want(&[("function", false), ("middle", false), ("variable", false), ("relic", true)]);
    assert_eq!(gpl(&[1, 1, 1], (7, 0)), by_table, "SYM-39: 7.0 goes by table, __kflagstab is unknown");
}

#[test]
fn param_1_every_parameter_with_its_type_mode_and_default() {
    for kernel in KERNELS {
        let (file, config) = (read(&ko(kernel, "params")), config(kernel));
        let module = open(&file, &config).module.unwrap();
        let found = params(&module);
        for (name, kind, perm, default) in PARAMETERS {
            let mut matching = found.iter().filter(|p| p.name == name.as_bytes());
            let p = matching.next().unwrap_or_else(|| panic!("PARAM-1: {kernel}: no parameter {name}"));
            assert!(matching.next().is_none(), "PARAM-1: {kernel}: {name} twice");
            let what = format!("PARAM-1: {kernel}: {name}");
            assert_eq!(p.kind, kind, "{what}: type");
            assert_eq!((p.perm != 0).then(|| format!("{:04o}", p.perm)).as_deref(), perm, "{what}: mode");
            assert_eq!(p.default.as_deref(), default, "{what}: default");
            let flags = u8::from(name == "an_unsafe") | u8::from(name == "an_ioport") << 1;
            assert_eq!(p.flags, flags, "PARAM-18: {kernel}: {name}: unsafe, hardware");
        }
        assert_eq!(found.len(), PARAMETERS.len(), "PARAM-1: {kernel}: parameters too many");
    }
}
