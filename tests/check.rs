//! `kmodld check`: the verdict on the fixtures, as the program gives it.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

#[path = "check/asked.rs"]
mod asked;
#[path = "check/boot.rs"]
mod boot;
#[path = "check/several.rs"]
mod several;

use std::path::Path;

use asked::*;
use common::{AMD64, KERNELS, fixtures, kmodld, ko};
use serde_json::{Value, json};

#[test]
fn every_fixture_gets_the_verdict_that_its_kernel_gave() {
    for kernel in KERNELS {
        if !common::architecture_is_known("every_fixture_gets_the_verdict_that_its_kernel_gave", kernel) {
            continue;
        }
        for module in common::modules(kernel) {
            let v = verdict(kernel, &module, common::dependencies(&module), &[]);
            let want = match module.as_str() {
                "proprietary_gpl" => json!("ENOENT"),
                "ns_forgot" => json!("EINVAL"),
                _ => Value::Null,
            };
            assert_eq!(v["errno"], want, "{kernel}/{module}: {v}");
            // What of these kernels only their memory tells.
            let keys = kernel.ends_with("amd64") && ["patching", "tracepoint"].contains(&module.as_str());
            assert_eq!(open(&v), if keys { vec!["FIN-60"] } else { vec![] }, "{kernel}/{module}");
            assert_eq!(v["verdict"] == "undecided", keys, "{kernel}/{module}");
            assert_eq!(v["file"], ko(kernel, &module).display().to_string());
            let name = if module == "hello_signed" { "hello" } else { &module };
            assert_eq!(v["module"], name, "{kernel}");
        }
    }
}

#[test]
fn an_unsigned_module_from_elsewhere_loads_with_two_taints() {
    for kernel in KERNELS {
        let v = verdict(kernel, "hello", &[], &[]);
        assert_eq!(v["verdict"], "loads", "{kernel}");
        assert_eq!(v["errno"], Value::Null, "{kernel}");
        assert_eq!(v["taints"], "OE", "{kernel}: LIC-2, SIG-12");
        assert_eq!(v["dmesg"], json!([out_of_tree("hello"), unsigned("hello")]), "{kernel}: LIC-2, SIG-12");
        assert_eq!(codes(&v), [("LIC-2", None), ("SIG-12", None)], "{kernel}");
    }
}

#[test]
fn lines_once_per_boot_are_said_once() {
    // A kernel that is tainted O says nothing of another O.
    let v = verdict(KERNEL, "hello", &[], &["--tainted", "4096"]);
    assert_eq!(v["dmesg"], json!([unsigned("hello")]), "LIC-2: the kernel is tainted O already");
    assert_eq!(v["taints"], "OE", "LIC-2: the module is tainted all the same");
    let v = verdict(KERNEL, "importer", &["exporter"], &[]);
    assert_eq!(v["dmesg"], json!([]), "LIC-2, SIG-12: exporter was the first");
    assert_eq!(v["taints"], "OE");
}

#[test]
fn a_proprietary_module_gets_no_gpl_symbols() {
    for kernel in KERNELS {
        let module = "proprietary_gpl";
        let v = verdict(kernel, module, &["exporter"], &[]);
        assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("ENOENT")));
        assert_eq!(v["taints"], "POE", "{kernel}");
        let mut want = vec![
            format!("{module}: module license 'Proprietary' taints kernel."),
            String::from("Disabling lock debugging due to kernel taint"),
        ];
        // 6.1 compares the taints after it has set this one: it never says this line.
        want.extend(kernel.starts_with("6.12").then(|| format!("{module}: module license taints kernel.")));
        let order = in_file_order(kernel, module, &["kmodld_gpl_multiply", "ktime_get"]);
        want.extend(order.iter().map(|s| unknown(module, s, -2)));
        assert_eq!(v["dmesg"], json!(want), "{kernel}: LIC-2, LIC-4, SYM-5");
        let why = finding(&v, "SYM-5")["explanation"].as_str().unwrap();
        assert!(why.contains("GPL-compatible modules only"), "{kernel}: SYM-5: {why}");
    }
    // The one that keeps to unrestricted symbols loads.
    let v = verdict(KERNEL, "proprietary", &["exporter"], &[]);
    assert_eq!((v["verdict"].as_str(), v["taints"].as_str()), (Some("loads"), Some("POE")));
}

#[test]
fn a_namespace_has_to_be_imported() {
    for kernel in KERNELS {
        let v = verdict(kernel, "ns_forgot", &["ns_exporter"], &[]);
        assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("EINVAL")));
        let mut want = Vec::new();
        for symbol in in_file_order(kernel, "ns_forgot", &["kmodld_ns_negate", "kmodld_ns_value"]) {
            want.push(format!(
                "ns_forgot: module uses symbol ({symbol}) from namespace KMODLD_FIXTURES, but does not import it."
            ));
            want.push(unknown("ns_forgot", &symbol, -22));
        }
        assert_eq!(v["dmesg"], json!(want), "{kernel}: NS-2, SYM-5b");
        let hint = finding(&v, "NS-2")["hint"].as_str().unwrap();
        assert!(hint.contains("MODULE_IMPORT_NS(KMODLD_FIXTURES)"), "{kernel}: NS-2: {hint}");
        assert_eq!(verdict(kernel, "ns_importer", &["ns_exporter"], &[])["verdict"], "loads", "{kernel}");
    }
}

#[test]
fn a_module_without_the_one_it_depends_on() {
    let order = in_file_order(KERNEL, "importer", &["kmodld_add", "kmodld_shared"]);
    let mut want = vec![out_of_tree("importer"), unsigned("importer")];
    want.extend(order.iter().map(|s| unknown("importer", s, -2)));
    // Module.symvers of this kernel does not know the fixtures: only the module itself tells whom to load.
    let v = verdict(KERNEL, "importer", &[], &[]);
    assert_eq!(v["errno"], "ENOENT");
    assert_eq!(v["dmesg"], json!(want), "SYM-5");
    let hint = finding(&v, "SYM-5")["hint"].as_str().unwrap();
    assert!(hint.contains("depends on exporter"), "DEP-4: modinfo is good for a hint: {hint}");
    // One that does know them leads to a hint.
    let dir = tempfile::tempdir().unwrap();
    let symvers = dir.path().join("Module.symvers");
    let mut text = common::text(&fixtures(KERNEL).join("Module.symvers"));
    for symbol in &order {
        text.push_str(&format!("0x12345678\t{symbol}\tdrivers/misc/exporter\tEXPORT_SYMBOL\t\n"));
    }
    std::fs::write(&symvers, text).unwrap();
    let file = |name: &str| fixtures(KERNEL).join(name).display().to_string();
    let (module, symtab, config) =
        (ko(KERNEL, "importer").display().to_string(), file("kallsyms"), file("config"));
    let symvers = symvers.display().to_string();
    let v = parsed(kmodld([
        "check",
        "--jsonl",
        "--no-deps",
        &module,
        "--symtab",
        &symtab,
        "--config",
        &config,
        "--symvers",
        &symvers,
    ]));
    assert_eq!(v["dmesg"], json!(want), "SYM-5: the log is the same");
    for f in v["findings"].as_array().unwrap().iter().filter(|f| f["code"] == "SYM-5") {
        let hint = f["hint"].as_str().unwrap_or_else(|| panic!("SYM-5: no hint in {f}"));
        assert!(hint.contains("exporter"), "SYM-5: {hint}");
    }
}

#[test]
fn a_module_of_another_release() {
    let file = ko("6.1-amd64", "hello");
    let v = parsed(check(KERNEL, &file, &["--jsonl"]));
    assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("ENOEXEC")));
    let size = "module hello: .gnu.linkonce.this_module section size must match the kernel's built struct module size at run time";
    assert_eq!(v["dmesg"], json!([size]), "VAL-48 comes before VER-10");
    let want = [
        ("VAL-48", Some("ENOEXEC")),
        ("VER-6", Some("ENOEXEC")),
        ("LIC-2", None),
        ("SIG-12", None),
        ("VER-6", Some("EINVAL")),
        ("SYM-5b", Some("EINVAL")),
        ("RELOC-GEN-15", None),
    ];
    assert_eq!(codes(&v), want, "what lies behind the stop is found too");
    assert_eq!(v["findings"][0]["stops_here"], true, "VAL-48: {v}");
    assert_eq!(v["findings"][4]["dmesg"], "hello: disagrees about version of symbol _printk");
    // Both CRCs, in the explanation and independently in the files.
    let explanation = v["findings"][1]["explanation"].as_str().unwrap();
    for kernel in AMD64 {
        let symvers = common::text(&fixtures(kernel).join("Module.symvers"));
        let line = symvers.lines().find(|l| l.split('\t').nth(1) == Some("module_layout")).unwrap();
        let crc = line.split('\t').next().unwrap();
        assert!(explanation.contains(crc), "VER-6: {crc} of {kernel} is not in {explanation:?}");
    }
    // --force-modversion: no versions, no check; the taint says so (as the kernel does).
    let forced = parsed(check(KERNEL, &ko(KERNEL, "hello"), &["--jsonl", "--force-modversion"]));
    assert_eq!(forced["verdict"], "loads", "{forced}");
    assert_eq!(forced["taints"], "FOE", "VER-40");
    let first = "hello: module_layout: kernel tainted.";
    assert!(forced["dmesg"].to_string().contains(first), "VER-40: {}", forced["dmesg"]);
}

#[test]
fn a_module_of_another_architecture() {
    let v = parsed(check(KERNEL, &ko("6.12-arm64", "hello"), &["--jsonl"]));
    assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("ENOEXEC")));
    assert_eq!(v["dmesg"], json!(["Invalid architecture in ELF header: 183"]), "VAL-13");
    assert_eq!(codes(&v), [("VAL-13", Some("ENOEXEC"))], "nothing is judged by another architecture's rules");
    let why = &v["findings"][0]["explanation"];
    assert_eq!(why, "the module is for aarch64, this kernel takes x86_64", "VAL-13: names, not numbers");
}

#[test]
fn val_13_machines_that_are_not_known_have_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign.ko");
    for (machine, class, name) in
        [(243u16, 2, "RISC-V"), (258, 2, "LoongArch"), (40, 1, "32-bit ARM (a 32-bit file)"), (3, 1, "i386")]
    {
        let mut file = common::read(&ko(KERNEL, "hello"));
        file[4] = class;
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        std::fs::write(&path, &file).unwrap();
        let v = parsed(check(KERNEL, &path, &["--jsonl"]));
        assert_eq!(codes(&v), [("VAL-13", Some("ENOEXEC"))], "VAL-13: {name}");
        let why = v["findings"][0]["explanation"].as_str().unwrap();
        assert!(why.contains(name) && why.ends_with("this kernel takes x86_64"), "VAL-13: {why}");
        let ran = kmodld([String::from("inspect"), path.display().to_string()]);
        assert_eq!(ran.code, 3, "VAL-13: {ran:?}");
        assert!(ran.stderr.contains(name), "VAL-13: {ran:?}");
        assert!(ran.stderr.contains("kmodld knows x86_64 and aarch64"), "VAL-13: {ran:?}");
    }
}

#[test]
fn nothing_is_shown_as_logged_behind_the_stop() {
    let ran = check(KERNEL, &ko(KERNEL, "hello"), &["--cmdline", "module.sig_enforce=1"]);
    assert!(ran.stderr.contains("kernel: Loading of unsigned module is rejected"), "{ran:?}");
    assert!(ran.stderr.contains("with -v also LIC-2, SIG-12"), "{ran:?}");
    let ran = check(KERNEL, &ko(KERNEL, "hello"), &["--cmdline", "module.sig_enforce=1", "-v"]);
    assert!(ran.stderr.contains("warning[SIG-12]"), "all reasons are there: {ran:?}");
    assert!(!ran.stderr.contains("kernel: hello:"), "SIG-12 is not logged: {ran:?}");
}

#[test]
fn words_that_look_as_if_they_mattered_are_told() {
    let ran = check(KERNEL, &ko(KERNEL, "hello"), &["--cmdline", "lockdwon=integrity"]);
    assert!(ran.stderr.contains("is lockdown meant?"), "{ran:?}");
    assert_eq!(ran.code, 0);
}

/// The taints of a module are those it has when the kernel stops: a blacklisted one never gets so far.
#[test]
fn taints_end_where_the_kernel_stops() {
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "module_blacklist=hello"]);
    assert_eq!(v["taints"], "", "VAL-70 comes before LIC-2 and SIG-12");
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "module.sig_enforce=1"]);
    assert_eq!(v["taints"], "", "SIG-11 comes before LIC-2 and SIG-12");
}

#[test]
fn a_module_is_loaded_once() {
    for kernel in KERNELS {
        let v = verdict(kernel, "hello", &["hello"], &[]);
        assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("EEXIST")));
        assert_eq!(finding(&v, "LIFE-2")["stops_here"], true, "{kernel}: {v}");
        // 6.1 taints the kernel O before it looks for the name, but the first hello has done that already.
        assert_eq!(v["dmesg"], json!([]), "{kernel}: LIFE-2 is silent");
    }
    // The signed one has the same name.
    assert_eq!(verdict(KERNEL, "hello_signed", &["hello"], &[])["errno"], "EEXIST", "LIFE-2");
}

/// Parameters, the errno, and (value, parameter) of each complaint.
type Bad = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

#[test]
fn parameters() {
    let loads: [&str; 8] = [
        "",
        "an_int=5",
        "an_int=-0x10 a_byte=255 a_bool=n",
        "a_bool",
        "a_charp=\"two words\"",
        "a_uint=010",
        "an-int=5",
        "a_short=-32768",
    ];
    for kernel in KERNELS {
        let first = [out_of_tree("params"), unsigned("params")];
        for params in loads {
            let v = verdict(kernel, "params", &[], &["--params", params]);
            assert_eq!(v["verdict"], "loads", "{kernel}: {params:?}: {v}");
            assert_eq!(v["dmesg"], json!(first), "{kernel}: {params:?}");
        }
        let bad: [Bad; 8] = [
            ("an_int=x", "EINVAL", &[("x", "an_int")]),
            ("an_int=", "EINVAL", &[("", "an_int")]),
            ("an_int", "EINVAL", &[("", "an_int")]),
            ("a_byte=256", "ERANGE", &[("256", "a_byte")]),
            ("a_short=32768", "ERANGE", &[("32768", "a_short")]),
            ("a_bool=maybe", "EINVAL", &[("maybe", "a_bool")]),
            ("an_int=x a_byte=256", "ERANGE", &[("x", "an_int"), ("256", "a_byte")]),
            ("a_byte=256 an_int=x a_bool=y", "EINVAL", &[("256", "a_byte"), ("x", "an_int")]),
        ];
        for (params, errno, complaints) in bad {
            let v = verdict(kernel, "params", &[], &["--params", params]);
            assert_eq!(v["errno"], errno, "{kernel}: {params:?}: PARAM-20, the last error wins");
            let mut want = first.to_vec();
            let lines = complaints.iter();
            want.extend(
                lines.map(|(value, name)| format!("params: `{value}' invalid for parameter `{name}'")),
            );
            assert_eq!(v["dmesg"], json!(want), "{kernel}: {params:?}: PARAM-20");
        }
        let v = verdict(kernel, "params", &[], &["--params", "nothing=1 an_int=3"]);
        assert_eq!(v["verdict"], "loads", "{kernel}: PARAM-32");
        let mut want = first.to_vec();
        want.push(String::from("params: unknown parameter 'nothing' ignored"));
        assert_eq!(v["dmesg"], json!(want), "{kernel}: PARAM-32");
    }
}

/// What nobody can know leaves the verdict open, and is told.
#[test]
fn layout_1_what_nobody_can_know() {
    use common::elf::{Elf, Sh};
    let dir = tempfile::tempdir().unwrap();
    let hello = Elf::new(common::read(&ko(KERNEL, "hello")));
    let mut over_headers = hello.clone();
    let note = over_headers.section(".note.Linux");
    let table = over_headers.shoff() as u64;
    over_headers.set(note, Sh::Offset, table);
    let mut relocations = hello.clone();
    let of_init = relocations.section(".rela.init.text");
    relocations.set(of_init, Sh::Offset, table);
    // A record that is refused before those that lie in headers decides.
    let mut refused = hello.clone();
    let size = table + 64 - refused.get(of_init, Sh::Offset);
    refused.set(of_init, Sh::Size, size / 24 * 24);
    let first = refused.range(of_init).start;
    refused.put(first + 8, 4, 99);
    let ran = dir.path().join("refused.ko");
    std::fs::write(&ran, &refused.bytes).unwrap();
    let v = parsed(check(KERNEL, &ran, &["--jsonl"]));
    assert_eq!((&v["verdict"], &v["errno"]), (&json!("refused"), &json!("ENOEXEC")), "LAYOUT-1: {v}");
    for (file, codes) in
        [(&hello, vec![]), (&over_headers, vec!["LAYOUT-1"]), (&relocations, vec!["LAYOUT-1"])]
    {
        let path = dir.path().join("hello.ko");
        std::fs::write(&path, &file.bytes).unwrap();
        let v = parsed(check(KERNEL, &path, &["--jsonl"]));
        assert_eq!(open(&v), codes, "LAYOUT-1: {v}");
        assert_eq!(v["verdict"] == "undecided", !codes.is_empty(), "LAYOUT-1: {v}");
    }
    // Sizes of regions may be such addresses: with what errno a module is refused then is open as well.
    let mut lacks = Elf::new(common::read(&ko(KERNEL, "importer")));
    let (this, table) = (lacks.section(".gnu.linkonce.this_module"), lacks.shoff() as u64);
    for (offset, verdict) in [(lacks.get(this, Sh::Offset), "refused"), (table, "undecided")] {
        lacks.set(this, Sh::Offset, offset);
        let path = dir.path().join("importer.ko");
        std::fs::write(&path, &lacks.bytes).unwrap();
        let v = parsed(check(KERNEL, &path, &["--jsonl"]));
        assert_eq!(v["verdict"], verdict, "LAYOUT-1, LAYOUT-23: {v}");
    }
}

/// arm64's find_section begins with section 0, whose address is 0.
#[test]
fn fin_33_section_0_as_the_way_to_the_tracer() {
    use common::elf::{Elf, Sh};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hello.ko");
    for (of, verdict) in [(None, "loads"), (Some(".text.ftrace_trampoline"), "oops"), (Some(".plt"), "loads")]
    {
        let mut hello = Elf::new(common::read(&ko("6.12-arm64", "hello")));
        let name = of.map_or(0, |of| hello.get(hello.section(of), Sh::Name));
        hello.set(0, Sh::Name, name);
        std::fs::write(&path, &hello.bytes).unwrap();
        let v = parsed(check("6.12-arm64", &path, &["--jsonl"]));
        assert_eq!(v["verdict"], verdict, "FIN-33: section 0 is {of:?}: {v}");
    }
}

/// Module.symvers has no addresses, and for most modules none are needed. Alone it refuses what has no export; a yes needs
/// more, and what that is is told.
#[test]
fn no_addresses_are_needed() {
    for kernel in KERNELS {
        let symvers = fixtures(kernel).join("Module.symvers").display().to_string();
        let (facts, config) = (common::facts(kernel), fixtures(kernel).join("config"));
        let (facts, config) = (facts.display().to_string(), config.display().to_string());
        for module in ["hello", "params"] {
            let file = ko(kernel, module).display().to_string();
            let v = parsed(kmodld(["check", "--jsonl", &file, "--symvers", &symvers]));
            assert_eq!(v["verdict"], "undecided", "{kernel}/{module}: {v}");
            let want = ["OV-5", "VAL-13", "SIG-11", "VAL-48", "VER-23"];
            assert!(want.iter().all(|code| open(&v).contains(code)), "{kernel}/{module}: {:?}", open(&v));
            let more = ["--kernel", &facts, "--config", &config];
            let v = parsed(kmodld([&["check", "--jsonl", &file, "--symvers", &symvers], &more[..]].concat()));
            assert_eq!(v["verdict"], "loads", "{kernel}/{module}: {v}");
            assert_eq!(codes(&v), [("LIC-2", None), ("SIG-12", None)], "{kernel}/{module}");
        }
        let file = ko(kernel, "importer").display().to_string();
        let v = parsed(kmodld(["check", "--jsonl", "--no-deps", &file, "--symvers", &symvers]));
        assert_eq!(v["errno"], "ENOENT", "{kernel}: SYM-5");
    }
}

#[test]
fn usage() {
    let hello = ko(KERNEL, "hello").display().to_string();
    let empty = tempfile::tempdir().unwrap();
    let ran = kmodld(["check", &hello, "--root", empty.path().to_str().unwrap()]).exits(3);
    assert!(ran.stderr.contains("lib/modules/RELEASE"), "{}", ran.stderr);
    kmodld(["check"]).exits(2);
    check(KERNEL, Path::new(&hello), &["--no-such-option"]).exits(2);
    let ran = check(KERNEL, Path::new("/nonexistent/x.ko"), &[]).exits(3);
    assert_eq!(ran.stdout, "");
    let help = kmodld(["check", "--help"]).exits(0).stdout;
    for option in ["--kernel", "--with", "--params", "--cmdline", "--jsonl", "--force-vermagic"] {
        assert!(help.contains(option), "no {option} in {help}");
    }
}
