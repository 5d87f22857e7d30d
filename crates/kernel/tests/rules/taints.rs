//! Taints, and what a kernel says once in a boot (spec 03, 06).

use elf_layout::Severity;
use kernel::{Taint, Taints};

#[test]
fn lic_5_an_inherited_taint_is_the_modules_alone() {
    let mut taints = Taints::of_kernel(0);
    taints.inherit();
    assert!(taints.module_has(Taint::ProprietaryModule), "LIC-5: the module becomes P");
    assert_eq!((taints.module_letters().as_str(), taints.kernel_mask()), ("P", 0), "LIC-5: no kernel taint");
    let later = taints.force_load("m", "bad vermagic", String::new());
    let lock_debugging = "Disabling lock debugging due to kernel taint";
    assert_eq!(later.dmesg.last().map(String::as_str), Some(lock_debugging), "LIC-5: not said by the heir");
    assert_eq!(taints.after().module_mask(), 0, "LIC-5: the next module does not inherit it");
}

#[test]
fn ver_7_and_31_and_btf_3_once_in_a_boot() {
    let mut taints = Taints::of_kernel(0);
    assert!(taints.first_without_version(false), "VER-7: said for the first symbol");
    assert!(!taints.first_without_version(false), "VER-7: once");
    assert!(taints.first_without_version(true), "VER-31: a warning of its own");
    assert!(!taints.first_without_version(true), "VER-31: once");
    assert!(taints.first_btf_mismatch(), "BTF-3: said for the first module");
    assert!(!taints.first_btf_mismatch(), "BTF-3: once");
    let mut next = taints.after();
    let said =
        [next.first_without_version(false), next.first_without_version(true), next.first_btf_mismatch()];
    assert_eq!(said, [false; 3], "VER-7, VER-31, BTF-3: not for each module");
    // No bit of the mask tells that they were said: a kernel with every taint says them again.
    let mut other = Taints::of_kernel(u64::MAX);
    let said =
        [other.first_without_version(false), other.first_without_version(true), other.first_btf_mismatch()];
    assert_eq!(said, [true; 3], "VER-7, VER-31, BTF-3: whatever its taints");
    assert_eq!(
        (taints.module_mask(), taints.kernel_mask()),
        (0, 0),
        "VER-7, BTF-3: a warning taints nothing"
    );
}

#[test]
fn layout_31_a_livepatch_module_taints() {
    let line = "m: tainting kernel with TAINT_LIVEPATCH";
    for (mask, lines) in [(0, vec![line]), (1 << 15, vec![])] {
        let mut taints = Taints::of_kernel(mask);
        let finding = taints.livepatch("m");
        assert_eq!(
            (finding.code, finding.severity, finding.errno),
            ("LAYOUT-31", Severity::Warning, None),
            "LAYOUT-31: it loads"
        );
        assert_eq!(finding.dmesg, lines, "LAYOUT-31: kernel with taints {mask:#x}");
        assert!(taints.module_has(Taint::Livepatch) && taints.kernel_has(Taint::Livepatch), "LAYOUT-31");
        assert_eq!(taints.module_letters(), "K", "LAYOUT-31");
        let again = taints.after().livepatch("n");
        assert!(again.dmesg.is_empty(), "LAYOUT-31: said once in a boot");
    }
}
