//! The story of a refused module goes to where the kernel stops, and says what would have come: a module of each family of findings
//! that can refuse one.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::common::elf::{EXEC, Sh, WRITE};
use crate::common::{Elf, kernel_args, kmodld, ko, read};
use crate::{events, of};

const KERNEL: &str = "6.12-amd64";

/// Where a story stops.
#[derive(Debug, PartialEq)]
struct Stop {
    step: String,
    errno: Value,
    /// The families of what is against the module.
    families: BTreeSet<String>,
    missed: Vec<String>,
}

fn stop(file: &Path, kernel: &str, more: &[&str]) -> Stop {
    let mut args = vec![String::from("trace"), file.display().to_string(), String::from("--json")];
    args.extend(kernel_args(kernel));
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let ran = kmodld(args);
    assert!(ran.code == 1 || ran.code == 3, "{ran:?}");
    let events = events(&ran);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let stop = of(&events, "stop")[0];
    let findings = of(&events, "finding");
    assert!(findings.iter().any(|finding| finding["stops_here"] == true), "{findings:?}");
    let against = findings.iter().filter(|f| f["severity"] == "error" || f["severity"] == "oops");
    let family = |finding: &&Value| text(&finding["code"]).rsplit_once('-').unwrap().0.to_owned();
    let families = against.map(family).collect();
    let missed = of(&events, "step").into_iter().filter(|step| step["reached"] == false);
    Stop {
        step: text(&stop["step"]),
        errno: stop["errno"].clone(),
        families,
        missed: missed.map(|step| text(&step["name"])).collect(),
    }
}

/// A fixture that was changed.
fn changed(kernel: &str, module: &str, change: impl FnOnce(&mut Elf)) -> Vec<u8> {
    let mut elf = Elf::new(read(&ko(kernel, module)));
    change(&mut elf);
    elf.bytes
}

/// The type of a relocation of a section: RELA's r_info has it in its lower half.
fn set_type(elf: &mut Elf, section: &str, record: usize, kind: u64) {
    let at = elf.range(elf.section(section)).start + record * 24 + 8;
    elf.put(at, 4, kind);
}

#[test]
fn a_module_of_each_family() {
    let dir = tempfile::tempdir().unwrap();
    let hello = read(&ko(KERNEL, "hello"));
    let own = |name: &str| read(&ko(KERNEL, name));
    let [exporter, ns_exporter, hello_ko] =
        ["exporter", "ns_exporter", "hello"].map(|name| ko(KERNEL, name).display().to_string());
    // Where there are CRCs the release in vermagic does not count, but the options behind it do.
    let mut of_other_options = hello.clone();
    let at = hello.windows(5).position(|w| w == b" SMP ").unwrap();
    of_other_options[at + 1] = b'X';
    let other_crc = changed(KERNEL, "hello", |elf| {
        // Records of a CRC and a name, in 64 bytes.
        let versions = elf.section("__versions");
        let records = elf.data_mut(versions).chunks_mut(64);
        let of_layout = records.into_iter().find(|record| record[8..].starts_with(b"module_layout\0"));
        of_layout.unwrap()[0] ^= 1;
    });
    let writable_code = changed(KERNEL, "hello", |elf| {
        let init = elf.section(".init.text");
        let flags = elf.get(init, Sh::Flags);
        elf.set(init, Sh::Flags, flags | WRITE | EXEC);
    });
    let of_another_name = changed(KERNEL, "exporter", |elf| {
        elf.replace(".gnu.linkonce.this_module", b"exporter\0", b"exportex\0");
    });
    let unknown_type = changed(KERNEL, "hello", |elf| set_type(elf, ".rela.init.text", 0, 0xfe));
    let not_empty = changed(KERNEL, "hello", |elf| {
        let place = elf.relocations(elf.section(".rela.init.text"))[0].offset as usize;
        let init = elf.section(".init.text");
        elf.data_mut(init)[place] = 1;
    });
    let without_addends = changed(KERNEL, "hello", |elf| {
        let table = elf.section(".rela.init.text");
        elf.set(table, Sh::Type, 9);
    });
    let unknown_on_arm = changed("6.12-arm64", "hello", |elf| set_type(elf, ".rela.init.text", 0, 0xfff));
    let livepatch = changed("6.12-arm64", "hello", |elf| {
        elf.replace(".modinfo", b"version=1.2.3", b"livepatch=Y\0\0");
    });
    // The number of a capability that no CPU has: BUG_ON() in apply_alternatives.
    let of_no_capability = changed(KERNEL, "patching", |elf| {
        let table = elf.range(elf.section(".altinstructions")).start;
        elf.put(table + 8, 2, 0x7fff);
    });
    let [with_exporter, with_ns_exporter, with_hello] =
        [&exporter, &ns_exporter, &hello_ko].map(|file| ["--with", file.as_str()]);
    // Its name, the file, the kernel, more options, the step that stops, errno, and the family of the finding.
    type Story<'s> = (&'s str, Vec<u8>, &'s str, &'s [&'s str], &'s str, Option<&'s str>, &'s str);
    let stories: Vec<Story<'_>> = vec![
        (
            "damaged",
            [&hello[..0x3c], &[0, 0], &hello[0x3e..]].concat(),
            KERNEL,
            &[],
            "elf",
            Some("ENOEXEC"),
            "VAL",
        ),
        ("of-another-arch", read(&ko("6.12-arm64", "hello")), KERNEL, &[], "elf", Some("ENOEXEC"), "VAL"),
        // Its struct module has another size.
        ("of-another-kernel", read(&ko("6.1-amd64", "hello")), KERNEL, &[], "elf", Some("ENOEXEC"), "VAL"),
        (
            "on-the-blacklist",
            hello.clone(),
            KERNEL,
            &["--cmdline", "module_blacklist=hello"],
            "blacklist",
            Some("EPERM"),
            "VAL",
        ),
        (
            "unsigned",
            hello.clone(),
            KERNEL,
            &["--cmdline", "module.sig_enforce=1"],
            "signature",
            Some("EKEYREJECTED"),
            "SIG",
        ),
        ("of-other-options", of_other_options, KERNEL, &[], "versions", Some("ENOEXEC"), "VER"),
        ("of-another-crc", other_crc, KERNEL, &[], "versions", Some("ENOEXEC"), "VER"),
        ("a-livepatch", livepatch, "6.12-arm64", &[], "versions", Some("ENOEXEC"), "LIC"),
        ("there-already", hello.clone(), KERNEL, &with_hello, "versions", Some("EEXIST"), "LIFE"),
        ("writable-code", writable_code, KERNEL, &[], "flags", Some("ENOEXEC"), "LAYOUT"),
        ("without-its-import", own("importer"), KERNEL, &["--no-deps"], "symbols", Some("ENOENT"), "SYM"),
        ("proprietary_gpl", own("proprietary_gpl"), KERNEL, &with_exporter, "symbols", Some("ENOENT"), "SYM"),
        ("ns_forgot", own("ns_forgot"), KERNEL, &with_ns_exporter, "symbols", Some("EINVAL"), "NS"),
        ("of-unknown-type", unknown_type, KERNEL, &[], "relocations", Some("ENOEXEC"), "X86REL"),
        ("not-empty", not_empty, KERNEL, &[], "relocations", Some("ENOEXEC"), "X86REL"),
        ("without-addends", without_addends, KERNEL, &[], "relocations", Some("ENOEXEC"), "RELOC-GEN"),
        (
            "of-unknown-type-arm64",
            unknown_on_arm,
            "6.12-arm64",
            &[],
            "relocations",
            Some("ENOEXEC"),
            "A64REL",
        ),
        ("of-no-capability", of_no_capability, KERNEL, &[], "finalize", None, "FIN"),
        ("exports-again", of_another_name, KERNEL, &with_exporter, "formation", Some("ENOEXEC"), "DUP"),
        ("with-a-wrong-value", own("params"), KERNEL, &["an_int=x"], "parameters", Some("EINVAL"), "PARAM"),
        ("init-fails", hello.clone(), KERNEL, &["--init=-ENODEV"], "init", Some("ENODEV"), "LIFE"),
    ];
    let mut families = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, bytes, kernel, more, step, errno, family) in stories {
        let file = dir.path().join(name).with_extension("ko");
        std::fs::write(&file, bytes).unwrap();
        let at = stop(&file, kernel, more);
        let is_right = (&*at.step, &at.errno) == (step, &Value::from(errno)) && at.families.contains(family);
        if !is_right {
            wrong.push(format!("{name}: {at:?}, not {step} {errno:?} {family}"));
        }
        if step != "init" && (!at.missed.contains(&String::from("init")) || at.missed.contains(&at.step)) {
            wrong.push(format!("{name}: {:?}", at.missed));
        }
        families.insert(family);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(families.len(), 14);
}
