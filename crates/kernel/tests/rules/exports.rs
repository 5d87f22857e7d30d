//! What is known of an export: CRC, licence, namespace (spec 03).

use kernel::{Export, ExportTable, Kernel, LoadedModule, Owner};

use crate::common::{booted, builder, records, symbols, symvers};

const SYMTAB: &str = "ffff800000010000 T _text\nffff800000010100 T a\nffff800000010200 T b\n\
    ffff800000010300 r __ksymtab_a\nffff800000010308 r __ksymtab_b\n";

#[test]
fn ver_2_a_crc_that_is_not_known() {
    let text = "0x000000aa\ta\tvmlinux\tEXPORT_SYMBOL\t\n0x00000000\tb\tvmlinux\tEXPORT_SYMBOL\t\n";
    let spec =
        records(&[("exports", "0x1000\t0x000000aa\ta\tEXPORT_SYMBOL\t\n0x2000\t-\tb\tEXPORT_SYMBOL\t\n")]);
    for (source, from, want) in [
        ("Module.symvers", builder().symvers("test", symvers(text)), [Some(0xaa), Some(0)]),
        ("labels of kallsyms", builder().symbols("test", symbols(SYMTAB)), [None, None]),
        ("a SPEC", builder().records("test", &spec).unwrap(), [Some(0xaa), None]),
    ] {
        let kernel = booted(from);
        let crc = |name: &[u8]| kernel.find_symbol(name, true, b"").unwrap().1.crc;
        assert_eq!([crc(b"a"), crc(b"b")], want, "VER-2, VER-8: {source}");
    }
}

/// Everything that a symbol lookup tells of a name: found by any module, found by a GPL-compatible one.
fn found(kernel: &Kernel, name: &[u8]) -> (bool, bool) {
    let by = |gplok| kernel.find_symbol(name, gplok, b"me").is_some();
    (by(false), by(true))
}

#[test]
fn lic_6_the_exporters_licence_does_not_count() {
    let export = |name, gpl_only| Export { name, address: Some(1), crc: None, gpl_only, namespace: b"" };
    for proprietary in [false, true] {
        let mut kernel = booted(builder());
        let exports = [export(&b"plain"[..], false), export(b"gpl", true)];
        kernel.insert_module(LoadedModule {
            exports: ExportTable::new(exports.into_iter().collect()),
            proprietary,
            ..LoadedModule::named(b"exporter")
        });
        assert_eq!(found(&kernel, b"plain"), (true, true), "LIC-6: exporter is P: {proprietary}");
        assert_eq!(
            found(&kernel, b"gpl"),
            (false, true),
            "LIC-6: only EXPORT_SYMBOL_GPL counts: {proprietary}"
        );
        let (owner, _) = kernel.find_symbol(b"plain", true, b"me").unwrap();
        assert_eq!(owner, Owner::Module(b"exporter"));
        assert_eq!(
            kernel.module(b"exporter").unwrap().proprietary,
            proprietary,
            "LIC-5: its users ask for it"
        );
    }
}

#[test]
fn lic_6_and_ns_1_lines_of_module_symvers() {
    let text = "0x1\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\tSPACE\n\
        0x3\told\tvmlinux\tEXPORT_SYMBOL\n0x4\tfuture\td/m\tEXPORT_UNUSED_SYMBOL_GPL\tmodule:x\n";
    let kernel = booted(builder().symvers("test", symvers(text)));
    let of = |name: &[u8]| {
        let (_, export) = kernel.find_symbol(name, true, b"").unwrap();
        (export.gpl_only, String::from_utf8_lossy(export.namespace).into_owned())
    };
    assert_eq!(of(b"plain"), (false, String::new()), "NS-1: an empty field is no namespace");
    assert_eq!(of(b"old"), (false, String::new()), "NS-1: nor is none");
    assert_eq!(of(b"gpl"), (true, "SPACE".into()), "LIC-6");
    let told = kernel.exporter_not_loaded(b"future").unwrap();
    assert_eq!((told.module, told.gpl_only, told.namespace), (&b"m"[..], true, &b"module:x"[..]), "LIC-6");
}

/// Owners share one index where no name is there twice and each has its lines together, as modpost writes them; else
/// each has its own. What is found is the same.
#[test]
fn owners_of_module_symvers_in_any_order() {
    // Owner (a module is in a folder) and name, line by line.
    let cases: [&[(&str, &str)]; 5] = [
        &[("vmlinux", "k"), ("d/a", "x"), ("d/a", "y"), ("d/b-b", "z")],
        &[("d/b-b", "z"), ("vmlinux", "k"), ("d/a", "x"), ("d/a", "y")],
        &[("d/a", "x"), ("d/b-b", "z"), ("vmlinux", "k"), ("d/a", "y")],
        &[("d/c", "x"), ("d/c", "y"), ("d/a", "x"), ("vmlinux", "k"), ("d/b-b", "y")],
        &[("vmlinux", "x"), ("d/a", "x"), ("d/a", "x"), ("d/b-b", "k")],
    ];
    for lines in cases {
        let line = |(owner, name): &(&str, &str)| format!("0x0000000a\t{name}\t{owner}\tEXPORT_SYMBOL\t\n");
        let text: String = lines.iter().map(line).collect();
        let kernel = booted(builder().symvers("test", symvers(&text)));
        let module = |owner: &str| owner.strip_prefix("d/").map(|name| name.replace('-', "_"));
        for name in ["k", "x", "y", "z", "none"] {
            let owners: Vec<Option<String>> =
                lines.iter().filter(|line| line.1 == name).map(|line| module(line.0)).collect();
            let of_kernel = kernel.find_symbol(name.as_bytes(), true, b"").is_some();
            assert_eq!(of_kernel, owners.contains(&None), "KSYM-2: {name} in\n{text}");
            for unloaded in kernel.modules_not_loaded() {
                let has = unloaded.exports.find(name.as_bytes(), true).is_some();
                let owner = Some(String::from_utf8_lossy(&unloaded.name).into_owned());
                assert_eq!(has, owners.contains(&owner), "{name} of {owner:?} in\n{text}");
            }
            let told = kernel.exporter_not_loaded(name.as_bytes());
            let told = told.map(|told| String::from_utf8_lossy(told.module).into_owned());
            assert_eq!(told, owners.into_iter().flatten().max(), "{name} in\n{text}");
        }
    }
}
