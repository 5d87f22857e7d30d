//! `kmodld inspect`: parameters, exports, imports and signatures of the fixtures, known from their sources.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::{KERNELS, PARAMETERS, kmodld, ko};
use serde_json::{Value, json};

fn inspect(kernel: &str, module: &str) -> Value {
    kmodld(["inspect", "--json", ko(kernel, module).to_str().unwrap()]).exits(0).json()
}

#[test]
fn param_1_every_parameter_with_its_type_mode_and_default() {
    for kernel in KERNELS {
        let document = inspect(kernel, "params");
        let found = document["parameters"].as_array().unwrap();
        for (name, kind, perm, default) in PARAMETERS {
            let mut matching = found.iter().filter(|p| p["name"] == name);
            let p = matching.next().unwrap_or_else(|| panic!("PARAM-1: {kernel}: no parameter {name}"));
            assert!(matching.next().is_none(), "PARAM-1: {kernel}: {name} twice");
            let what = format!("PARAM-1: {kernel}: {name}");
            assert_eq!(p["type"], kind, "{what}: type");
            assert_eq!(p["perm"], json!(perm), "{what}: mode");
            assert_eq!(p["default"], json!(default), "{what}: default");
            assert_eq!(p["unsafe"], name == "an_unsafe", "PARAM-18: {kernel}: {name}: unsafe");
            assert_eq!(p["hardware"], name == "an_ioport", "PARAM-18: {kernel}: {name}: hardware");
        }
        assert_eq!(found.len(), PARAMETERS.len(), "PARAM-1: {kernel}: parameters too many");
        let described = |name: &str| found.iter().find(|p| p["name"] == name).unwrap()["description"].clone();
        assert_eq!(described("a_byte"), "an unsigned 8-bit number");
        assert_eq!(described("outer_name"), Value::Null, "{kernel}: it has no description");
    }
}

#[test]
fn modules_without_parameters_have_none() {
    for kernel in KERNELS {
        assert_eq!(inspect(kernel, "hello")["parameters"], json!([]), "{kernel}");
    }
}

#[test]
fn sym_35_exports_with_licence_namespace_and_crc() {
    for kernel in KERNELS {
        for (module, wanted) in [
            (
                "exporter",
                &[
                    ("kmodld_shared", false, None),
                    ("kmodld_add", false, None),
                    ("kmodld_gpl_multiply", true, None),
                ][..],
            ),
            (
                "ns_exporter",
                &[
                    ("kmodld_ns_value", true, Some("KMODLD_FIXTURES")),
                    ("kmodld_ns_negate", true, Some("KMODLD_FIXTURES")),
                ],
            ),
            ("hello", &[]),
        ] {
            let document = inspect(kernel, module);
            let exports = document["exports"].as_array().unwrap();
            assert_eq!(exports.len(), wanted.len(), "SYM-37: {kernel}/{module}: {exports:?}");
            for (name, gpl_only, namespace) in wanted {
                let export = exports.iter().find(|e| e["name"] == *name);
                let export = export.unwrap_or_else(|| panic!("SYM-35: {kernel}/{module} exports no {name}"));
                assert_eq!(export["gpl_only"], *gpl_only, "LIC-6: {kernel}/{module}: {name}");
                assert_eq!(export["namespace"], json!(namespace), "NS-1: {kernel}/{module}: {name}");
                assert!(common::hex(&export["crc"]) != 0, "VER-8: {kernel}/{module}: {name}");
            }
        }
    }
}

/// An importer's CRCs are those that the exporter has; those of the kernel stand in Module.symvers.
#[test]
fn ver_4_the_crcs_of_imports() {
    for kernel in KERNELS {
        let mut crcs: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        for line in common::text(&common::fixtures(kernel).join("Module.symvers")).lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            crcs.insert(fields[1].into(), u64::from_str_radix(&fields[0][2..], 16).unwrap());
        }
        for exporter in ["exporter", "ns_exporter"] {
            for export in inspect(kernel, exporter)["exports"].as_array().unwrap() {
                crcs.insert(export["name"].as_str().unwrap().into(), common::hex(&export["crc"]));
            }
        }
        for module in common::modules(kernel) {
            let document = inspect(kernel, &module);
            let weak_missing = |i: &Value| i["weak"] == true && i["crc"].is_null();
            for import in document["imports"].as_array().unwrap().iter().filter(|i| !weak_missing(i)) {
                let name = import["name"].as_str().unwrap();
                // Found by the loader through kallsyms alone: Module.symvers here is an excerpt, but has all imports.
                let crc = crcs.get(name).unwrap_or_else(|| panic!("{kernel}/{module}: no CRC of {name}"));
                assert_eq!(common::hex(&import["crc"]), *crc, "VER-4: {kernel}/{module}: {name}");
            }
        }
    }
}

#[test]
fn weak_imports_are_marked() {
    for kernel in KERNELS {
        let document = inspect(kernel, "weak_undef");
        let imports = document["imports"].as_array().unwrap();
        let weak = imports.iter().filter(|i| i["weak"] == true).count();
        let elf = common::Elf::new(common::read(&ko(kernel, "weak_undef")));
        let wanted = elf.symbols().iter().skip(1).filter(|s| s.shndx == 0 && s.is_weak()).count();
        assert_eq!((weak, wanted), (4, 4), "{kernel}: {imports:?}");
    }
}

#[test]
fn sig_7_facts_of_a_signature() {
    for kernel in KERNELS {
        let document = inspect(kernel, "hello_signed");
        let signature = &document["signature"];
        assert_eq!(signature["sig_id"], "PKCS#7", "{kernel}");
        assert_eq!(signature["signer"], "kmodld fixtures", "{kernel}");
        assert_eq!(signature["sig_hashalgo"], "sha256", "{kernel}");
        let serial = certificate_serial(&common::read(&common::fixtures("signing/kmodld-fixtures.der")));
        assert_eq!(signature["sig_key"], serial, "{kernel}: the certificate's serial number");
        let value = signature["signature"].as_str().unwrap();
        assert_eq!(value.split(':').count(), 256, "{kernel}: RSA 2048");
        // The signature is no part of the module.
        let unsigned = common::read(&ko(kernel, "hello")).len();
        assert_eq!(document["size"], unsigned, "SIG-7: {kernel}");
        assert_eq!(inspect(kernel, "hello")["signature"], Value::Null, "{kernel}");
    }
}

/// The serial number of an X.509 certificate as hex pairs: the first INTEGER after the version.
fn certificate_serial(der: &[u8]) -> String {
    let version = der.windows(5).position(|w| w == [0xa0, 3, 2, 1, 2]).expect("version 3");
    let serial = &der[version + 5..];
    assert_eq!(serial[0], 2, "INTEGER");
    let bytes = &serial[2..2 + usize::from(serial[1])];
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

/// A log line cuts its arguments; data is not a log line.
#[test]
fn val_60_long_values_are_not_cut() {
    let description = format!("description={}.", "long ".repeat(500));
    let modinfo = ["name=mini", "license=GPL", "vermagic=6.12.117+deb12-amd64 SMP ", &description];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mini.ko");
    std::fs::write(&path, common::elf::Builder::module(&modinfo).build()).unwrap();
    let document = kmodld(["inspect", "--json", path.to_str().unwrap()]).exits(0).json();
    let value = document["modinfo"][3][1].as_str().unwrap();
    assert_eq!(value.len(), description.len() - "description=".len(), "VAL-60: a description of 2501 bytes");
}

#[test]
fn the_tables_show_what_the_document_holds() {
    for kernel in KERNELS {
        for module in common::modules(kernel) {
            let path = ko(kernel, &module);
            let shown = kmodld(["inspect", path.to_str().unwrap()]).exits(0).stdout;
            let document = inspect(kernel, &module);
            for key in ["parameters", "imports", "exports", "sections"] {
                for entry in document[key].as_array().unwrap() {
                    let name = entry["name"].as_str().unwrap();
                    assert!(shown.contains(name), "{kernel}/{module}: {key}: {name} is not shown");
                }
            }
        }
    }
}
