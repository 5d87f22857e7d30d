//! What findings about symbols say of the very case, and what they advise: the reasons behind SYM-5, VER-6 and
//! NS-2. The kernel's own words are tested elsewhere.

use elf_layout::{Finding, KernelConfig, KernelVersion};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{Export, ExportTable, Kernel, KernelDescriptionBuilder, LoadedModule};
use testkit::elf::{Builder, GLOBAL, UNDEF};

use symres::hints::{cause, is_of_other_headers};

use crate::common::{NONE, load};

const KALLSYMS: &str = "ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\n\
    ffffffff81000300 t inside\nffffffff81000400 D table\nffffffff81000500 r __ksymtab_plain\n\
    ffffffff81000600 T _renamed\nffffffffc0000000 t of_module\t[listed]\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\t_renamed\tvmlinux\tEXPORT_SYMBOL\t\n0x000000dd\taway\tdrivers/a-way\tEXPORT_SYMBOL\t\n\
    0x000000ee\taway_gpl\tdrivers/a-way\tEXPORT_SYMBOL_GPL\tFAR\n";

fn loaded(name: &str, symbol: &str, gpl_only: bool, namespace: &str, proprietary: bool) -> LoadedModule {
    let export = Export {
        name: symbol.as_bytes(),
        address: Some(0xffff_ffff_c100_0000),
        crc: Some(1),
        gpl_only,
        namespace: namespace.as_bytes(),
    };
    let exports = ExportTable::new([export].into_iter().collect());
    LoadedModule { exports, proprietary, ..LoadedModule::named(name.as_bytes()) }
}

fn kernel(minor: u16) -> Kernel {
    let config = KernelConfig::new(KernelVersion::new(6, minor, 0)).with(|c| c.module_sig = false);
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .release("test", &format!("6.{minor}.0"))
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
    Kernel::booted(kernel.build(reloc::MACHINES).unwrap())
}

/// The first finding of that code about a module with this modinfo that imports these names.
fn found(
    mut kernel: Kernel,
    others: Vec<LoadedModule>,
    modinfo: &[&str],
    imports: &[&str],
    code: &str,
) -> Finding {
    others.into_iter().for_each(|m| kernel.state.insert_module(m));
    let common =
        ["name=mini", "intree=Y", "retpoline=Y", "vermagic=6.1.0 SMP preempt mod_unload modversions "];
    let mut b = Builder::module(&[&common[..], modinfo].concat());
    let crcs = [("plain", 0xaa), ("gpl", 0xbb), ("shared", 1), ("spaced", 1)];
    b.versions(&crcs);
    imports.iter().for_each(|name| _ = b.symbol(name, GLOBAL, 0, UNDEF, 0));
    let (loaded, said) = load(&kernel, &b.build(), NONE);
    assert!(loaded.is_some(), "a load");
    let finding = said.iter().find(|f| f.code == code);
    finding.unwrap_or_else(|| panic!("no {code} for {imports:?}: {said:?}")).clone()
}

#[test]
fn sym_5_tells_its_reason() {
    const GPL: &str = "license=GPL";
    const OWN: &str = "license=Proprietary";
    let proprietary = || vec![loaded("owned", "shared", false, "", true)];
    type Case<'c> = (&'c str, Vec<LoadedModule>, &'c [&'c str], &'c [&'c str], &'c str, &'c str);
    let cases: [Case<'_>; 11] = [
        (
            "GPL-only",
            vec![],
            &[OWN],
            &["gpl"],
            "gpl is exported by vmlinux to GPL-compatible modules only",
            "MODULE_LICENSE(\"Proprietary\")",
        ),
        (
            "GPL-only, taint inherited",
            proprietary(),
            &[GPL],
            &["shared", "gpl"],
            "this module counts as proprietary",
            "it uses symbols of a proprietary module",
        ),
        (
            "of a proprietary module",
            proprietary(),
            &[GPL],
            &["gpl", "shared"],
            "exported by the proprietary module owned",
            "not both",
        ),
        (
            "GPL-only of a proprietary module",
            vec![loaded("owned", "shared", true, "", true)],
            &[GPL],
            &["shared"],
            "exported by the proprietary module owned",
            "not both",
        ),
        (
            "of a module that is not loaded",
            vec![],
            &[GPL],
            &["away"],
            "away is exported by module a_way, which is not loaded",
            "load a_way first",
        ),
        (
            "GPL-only and in a namespace, not loaded",
            vec![],
            &[OWN],
            &["away_gpl"],
            "exported by module a_way",
            "to GPL-compatible modules only; and add MODULE_IMPORT_NS(FAR) to mini",
        ),
        (
            "in a namespace that is imported, not loaded",
            vec![],
            &[GPL, "import_ns=FAR"],
            &["away_gpl"],
            "exported by module a_way",
            "load a_way first (--with)",
        ),
        (
            "not exported",
            vec![],
            &[GPL],
            &["inside"],
            "inside exists in this kernel but is not exported",
            "EXPORT_SYMBOL(inside)",
        ),
        (
            "of a module, not exported",
            vec![],
            &[GPL],
            &["of_module"],
            "of_module is a symbol of module listed, which does not export it",
            "--with",
        ),
        (
            "renamed",
            vec![],
            &[GPL],
            &["renamed"],
            "nothing in this kernel exports renamed",
            "this kernel exports _renamed: mini was built for 6.1.0: rebuild it against the headers of 6.12.0",
        ),
        (
            "known to modinfo only",
            vec![],
            &[GPL, "depends=gone,listed"],
            &["nowhere"],
            "nothing in this kernel exports nowhere",
            "it depends on gone: load that first",
        ),
    ];
    for (what, others, modinfo, imports, why, hint) in cases {
        let f = found(kernel(12), others, modinfo, imports, "SYM-5");
        let said = f.hint.clone().unwrap_or_default();
        assert!(f.explanation.contains(why), "SYM-5: {what}: {f:?}");
        assert!(said.contains(hint), "SYM-5: {what}: {f:?}");
        assert_eq!(said.contains("and add"), what.starts_with("GPL-only and in"), "SYM-5: {what}: {f:?}");
    }
    let f = found(kernel(12), vec![], &[GPL], &["nowhere_at_all"], "SYM-5");
    assert_eq!(f.hint, None, "SYM-5: nothing is invented: {f:?}");
}

#[test]
fn ver_6_and_ns_2_tell_who_exports() {
    let gpl = ["license=GPL"];
    let mut other = loaded("other", "shared", false, "", false);
    let f = found(kernel(12), vec![other.clone()], &gpl, &["shared", "gone"], "SYM-5");
    assert!(f.explanation.contains("gone"), "the CRC is right: {f:?}");
    let exports = other.exports.iter().map(|export| Export { crc: Some(2), ..export });
    other.exports = ExportTable::new(exports.collect());
    let f = found(kernel(12), vec![other], &gpl, &["shared"], "VER-6");
    assert!(
        f.explanation.ends_with("CRC 0x00000001; module other exports it with 0x00000002"),
        "VER-6: {f:?}"
    );
    assert!(f.hint.unwrap().contains("Module.symvers of this other"), "VER-6: rebuild against the module");

    let spaced = |ns: &str| vec![loaded("other", "spaced", false, ns, false)];
    for (minor, namespace, hint) in [
        (12, "SPACE", "add MODULE_IMPORT_NS(SPACE) to the source of mini"),
        (13, "SPACE", "add MODULE_IMPORT_NS(\"SPACE\") to the source of mini"),
        (16, "module:kvm,xen*", "only these modules may use it, and no import helps: kvm,xen*"),
    ] {
        let f = found(kernel(minor), spaced(namespace), &gpl, &["spaced"], "NS-2");
        let said = f.hint.clone().unwrap();
        assert!(said.starts_with(hint), "NS-2, NS-3, NS-6: 6.{minor}: {f:?}");
    }
}

/// VER-6, VER-23, VAL-48: one cause stands behind all that comes of other headers, and RELOC-GEN-15 is explained by it too.
#[test]
fn one_cause_stands_behind_what_comes_of_other_headers() {
    use elf_layout::validity::{Expected, elf_validity};
    use elf_layout::{Errno, Findings};
    let of = |vermagic: &str, findings: Vec<Finding>| {
        let bytes = Builder::module(&["name=mini", "license=GPL", vermagic]).build();
        let (kernel, mut said) = (kernel(12), Findings::new());
        let expected = Expected {
            config: &kernel.config,
            machine: kernel.machine,
            known: reloc::MACHINES,
            ignore_modversions: false,
        };
        let file = elf_validity(&bytes, &expected, &mut Findings::new()).unwrap();
        findings.into_iter().for_each(|finding| said.push(finding));
        cause(&kernel, &file, &said)
    };
    let size = || Finding::error("VAL-48", Errno::ENOEXEC, "another size");
    let crc = |exporter: &str| Finding::error("VER-6", Errno::EINVAL, "another CRC").exported_by(exporter);
    let found = of("vermagic=6.1.0 SMP ", vec![size(), crc("vmlinux")]).unwrap();
    assert_eq!(found.text, "mini was built for 6.1.0, this kernel is 6.12.0", "VAL-48");
    assert_eq!(found.built_for.as_deref(), Some("6.1.0"));
    assert!(found.hint.contains("make -C /lib/modules/6.12.0/build"), "{found:?}");
    let same = of("vermagic=6.12.0 SMP ", vec![crc("vmlinux")]).unwrap();
    assert_eq!(
        (same.built_for, &*same.text),
        (None, "mini was built against headers that are not those of this kernel")
    );
    // A module that exports another CRC is not the kernel, and what only warns is no reason.
    assert_eq!(of("vermagic=6.1.0 SMP ", vec![crc("other")]), None, "VER-6");
    let warning = Finding::note("RELOC-GEN-15", elf_layout::Severity::Warning, "another layout");
    assert_eq!(of("vermagic=6.1.0 SMP ", vec![warning]), None, "RELOC-GEN-15");
    assert!(is_of_other_headers("RELOC-GEN-15", None) && !is_of_other_headers("SYM-5", None), "RELOC-GEN-15");
    assert_eq!(
        of("vermagic=6.12.0 preempt ", vec![Finding::error("VER-23", Errno::ENOEXEC, "words")]),
        None,
        "VER-23"
    );
}
