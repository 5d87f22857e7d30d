//! The ELF checks one by one: a good fixture is patched so that exactly one of them fails, and two at once to see which
//! the kernel meets first.

use testkit::elf::{Elf, NOBITS, PROGBITS, SYMTAB, Sh};
use testkit::report::first_of;

use crate::common::{check, config, hello, stop, stops_at};

/// One defect: the rule, what the kernel says, and the part of the file that it changes.
struct Defect {
    code: &'static str,
    line: String,
    part: &'static str,
    patch: Box<dyn Fn(&mut Elf)>,
}

fn defect(
    code: &'static str,
    part: &'static str,
    line: impl Into<String>,
    patch: impl Fn(&mut Elf) + 'static,
) -> Defect {
    Defect { code, line: line.into(), part, patch: Box::new(patch) }
}

/// Gives the second section the name of the first.
fn same_name(elf: &mut Elf, first: &str, second: &str) {
    let name = elf.get(elf.section(first), Sh::Name);
    elf.set(elf.section(second), Sh::Name, name);
}

const HUGE: u64 = 1 << 40;
const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// The checks of the ELF header, which both kernels do first and in this order.
fn header_defects(good: &Elf) -> Vec<Defect> {
    let len = good.bytes.len() as u64;
    let shnum = good.shnum();
    vec![
        defect("VAL-11", "magic", "Invalid ELF header magic: != \x7fELF", |e| e.put(0, 1, 0x7e)),
        defect("VAL-12", "e_type", "Invalid ELF header type: 2 != 1", |e| e.put(16, 2, 2)),
        defect("VAL-13", "e_machine", "Invalid architecture in ELF header: 3", |e| e.put(18, 2, 3)),
        defect("VAL-14", "e_shentsize", "Invalid ELF section header size", |e| e.put(58, 2, 63)),
        defect("VAL-15", "e_shoff", "Invalid ELF section header overflow", move |e| e.put(40, 8, len)),
        defect(
            "VAL-16",
            "e_shstrndx",
            format!("Invalid ELF section name index: {shnum} || e_shstrndx ({shnum}) >= e_shnum ({shnum})"),
            move |e| e.put(62, 2, shnum as u64),
        ),
    ]
}

fn section_0() -> Defect {
    let line = "ELF Spec violation: section 0 type(1)!=SH_NULL or non-zero len or addr";
    defect("VAL-20", "section 0", line, |e| {
        e.set(0, Sh::Type, 1);
    })
}

fn link_out_of_range(good: &Elf) -> Defect {
    let shnum = good.shnum();
    let line =
        format!("Invalid ELF sh_link!=SHN_UNDEF({shnum}) or (sh_link({shnum}) >= hdr->e_shnum({shnum})");
    defect("VAL-21", "symtab", line, move |e| {
        e.set(e.of_type(SYMTAB).unwrap(), Sh::Link, shnum as u64);
    })
}

/// All checks of 6.1 in its order (spec 01 §1.4).
fn defects_6_1(good: &Elf) -> Vec<Defect> {
    let (text, note) = (good.section(".init.text"), good.section(".note.Linux"));
    let mut all = header_defects(good);
    all.extend([
        defect("VAL-17", "shstrtab place", "Invalid ELF section hdr(type 3)", |e| {
            e.set(e.shstrndx(), Sh::Offset, HUGE);
        }),
        defect("VAL-18", "shstrtab bytes", "empty section name table", |e| {
            e.set(e.shstrndx(), Sh::Size, 0);
        }),
        defect(
            "VAL-19",
            "shstrtab bytes",
            "ELF Spec violation: section name table isn't null terminated",
            |e| {
                *e.data_mut(e.shstrndx()).last_mut().unwrap() = b'x';
            },
        ),
        section_0(),
        // One section after the other: .note.Linux stands before .init.text.
        defect(
            "VAL-23",
            "a name",
            format!("Invalid ELF section name in module (section {note} type 7)"),
            move |e| {
                e.set(note, Sh::Name, 1 << 20);
            },
        ),
        defect(
            "VAL-22",
            ".init.text",
            format!("Invalid ELF section in module (section {text} type 1)"),
            move |e| {
                e.set(text, Sh::Size, HUGE);
            },
        ),
        link_out_of_range(good),
        defect("VAL-24", "symtab", "hello: module has no symbols (stripped?)", |e| {
            e.set(e.of_type(SYMTAB).unwrap(), Sh::Type, u64::from(PROGBITS));
        }),
        defect("VAL-25", THIS_MODULE, "hello: No module found in object", |e| {
            let this = e.section(THIS_MODULE);
            e.set(this, Sh::Flags, 1);
        }),
    ]);
    all
}

/// All checks of 6.12 in its order (spec 01 §1.5).
fn defects_6_12(good: &Elf) -> Vec<Defect> {
    let (text, note) = (good.section(".init.text"), good.section(".note.Linux"));
    let mut all = header_defects(good);
    let names_index = all.pop().unwrap();
    let this = |what: &str| format!("module hello: {THIS_MODULE} {what}");
    all.extend([
        section_0(),
        defect(
            "VAL-22",
            ".init.text",
            format!("Invalid ELF section in module (section {text} type 1)"),
            move |e| {
                e.set(text, Sh::Size, HUGE);
            },
        ),
        names_index,
        defect("VAL-42", "shstrtab type", "Invalid ELF section name table type: 1", |e| {
            e.set(e.shstrndx(), Sh::Type, u64::from(PROGBITS));
        }),
        defect("VAL-18", "shstrtab bytes", "empty section name table", |e| {
            e.set(e.shstrndx(), Sh::Size, 0);
        }),
        defect(
            "VAL-19",
            "shstrtab bytes",
            "ELF Spec violation: section name table isn't null terminated",
            |e| {
                *e.data_mut(e.shstrndx()).last_mut().unwrap() = b'x';
            },
        ),
        defect(
            "VAL-43",
            "a name",
            format!("Invalid ELF section name in module (section {note} type 7)"),
            move |e| {
                e.set(note, Sh::Name, 1 << 20);
            },
        ),
        defect("VAL-44", ".orc_header", "Only one .modinfo section must exist.", |e| {
            same_name(e, ".modinfo", ".orc_header");
        }),
        defect(
            "VAL-45",
            ".data",
            format!("module hello: Exactly one {THIS_MODULE} section must exist."),
            |e| {
                same_name(e, THIS_MODULE, ".note.gnu.build-id");
            },
        ),
        defect("VAL-46", "struct module type", this("section must have a size set"), |e| {
            e.set(e.section(THIS_MODULE), Sh::Type, u64::from(NOBITS));
        }),
        defect("VAL-47", "struct module flags", this("must occupy memory during process execution"), |e| {
            e.set(e.section(THIS_MODULE), Sh::Flags, 1);
        }),
        defect("VAL-24", "symtab", "hello: module has no symbols (stripped?)", |e| {
            e.set(e.of_type(SYMTAB).unwrap(), Sh::Type, u64::from(PROGBITS));
        }),
        link_out_of_range(good),
        defect("VAL-50", "symtab strings", "Invalid ELF symbol string table type: 1", |e| {
            let strings = e.get(e.of_type(SYMTAB).unwrap(), Sh::Link) as usize;
            e.set(strings, Sh::Type, u64::from(PROGBITS));
        }),
    ]);
    all
}

#[test]
fn every_check_fails_alone_and_says_what_the_kernel_says() {
    for (kernel, defects) in
        [("6.1-amd64", defects_6_1 as fn(&Elf) -> Vec<Defect>), ("6.12-amd64", defects_6_12)]
    {
        let (good, config) = (hello(kernel), config(kernel));
        assert!(!check(&good.bytes, &config).refused(), "{kernel}: the fixture is good");
        for d in defects(&good) {
            let mut elf = good.clone();
            (d.patch)(&mut elf);
            stops_at(&elf, &config, d.code, &d.line, kernel);
        }
    }
}

#[test]
fn of_two_defects_the_kernel_meets_the_earlier_one() {
    for (kernel, defects) in
        [("6.1-amd64", defects_6_1 as fn(&Elf) -> Vec<Defect>), ("6.12-amd64", defects_6_12)]
    {
        let (good, config) = (hello(kernel), config(kernel));
        let defects = defects(&good);
        let mut complaints = Vec::new();
        for (i, first) in defects.iter().enumerate() {
            for second in defects[i + 1..].iter().filter(|d| d.part != first.part) {
                let mut elf = good.clone();
                // What is checked later lies deeper in the file: patch it while its headers are still right.
                (second.patch)(&mut elf);
                (first.patch)(&mut elf);
                let stop = stop(&check(&elf.bytes, &config));
                if stop.as_ref().is_none_or(|(code, _, lines)| {
                    (*code, lines.as_slice()) != (first.code, std::slice::from_ref(&first.line))
                }) {
                    complaints.push(format!(
                        "{kernel}: {} comes before {}, but: {stop:?}",
                        first.code, second.code
                    ));
                }
            }
        }
        assert!(complaints.is_empty(), "{}", first_of(&complaints));
    }
}

/// 6.1 looks at one section after the other, each with all its checks.
#[test]
fn val_21_to_23_of_6_1_go_by_section() {
    let (good, config) = (hello("6.1-amd64"), config("6.1-amd64"));
    let (one, other) = (good.section(".init.text"), good.section(".note.Linux"));
    let (low, high) = (one.min(other), one.max(other));
    let symtab = good.of_type(SYMTAB).unwrap();
    assert!(high < symtab);
    let line = |what: &str, section| {
        format!(
            "Invalid ELF section{what} in module (section {section} type {})",
            good.get(section, Sh::Type)
        )
    };
    let mut elf = good.clone();
    elf.set(high, Sh::Size, HUGE).set(low, Sh::Name, 1 << 20);
    stops_at(&elf, &config, "VAL-23", &line(" name", low), "name of a lower section, place of a higher one");
    let mut elf = good.clone();
    elf.set(symtab, Sh::Link, 0).set(high, Sh::Size, HUGE);
    stops_at(&elf, &config, "VAL-22", &line("", high), "place of a lower section, sh_link of a higher one");
}
