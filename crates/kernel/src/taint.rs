//! Taints: what a kernel and a module are marked with, and what is said once (spec 03 §3.3).

use alloc::format;
use alloc::string::String;

use elf_layout::{Finding, Severity};

/// A taint that a module can bring, by its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Taint {
    /// P
    ProprietaryModule = 0,
    /// F
    ForcedModule = 1,
    /// R: only of the kernel
    ForcedRmmod = 3,
    /// C: staging
    Crap = 10,
    /// O
    OutOfTreeModule = 12,
    /// E
    UnsignedModule = 13,
    /// K
    Livepatch = 15,
    /// N
    Test = 18,
}

/// Letters in bit order, blank for those that modules never carry.
const LETTERS: [(u8, char); 9] =
    [(0, 'P'), (1, 'F'), (10, 'C'), (12, 'O'), (13, 'E'), (15, 'K'), (16, 'X'), (17, 'T'), (18, 'N')];

/// `kernel/module/main.c: module_flags_taint`: the letters of a module's taints in bit order.
pub fn letters(mask: u64) -> String {
    LETTERS.iter().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, letter)| letter).collect()
}

/// The mask of these letters; those of no taint that a module can carry are left out.
pub(crate) fn mask_of(letters: &str) -> u64 {
    let bit =
        |letter: char| LETTERS.iter().find(|(_, known)| *known == letter).map_or(0, |(bit, _)| 1 << bit);
    letters.chars().fold(0, |mask, letter| mask | bit(letter))
}

impl Taint {
    const fn mask(self) -> u64 {
        1 << self as u8
    }

    /// Does the kernel stop trusting its lock debugging (LOCKDEP_NOW_UNRELIABLE)?
    const fn ends_lock_debugging(self) -> bool {
        matches!(self, Taint::ProprietaryModule | Taint::ForcedModule | Taint::ForcedRmmod)
    }
}

/// The taints of a kernel, and those of the module being loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taints {
    kernel: u64,
    module: u64,
    lock_debugging_off: bool,
    said_unsigned: bool,
    said_livepatch: bool,
    said_no_version: bool,
    said_no_extended_version: bool,
    said_btf_mismatch: bool,
}

impl Taints {
    /// A kernel with this mask (`/proc/sys/kernel/tainted`), before a module is loaded. What a
    /// taint makes the kernel say once counts as said.
    pub fn of_kernel(mask: u64) -> Self {
        let has = |taint: Taint| mask & taint.mask() != 0;
        Taints {
            kernel: mask,
            module: 0,
            lock_debugging_off: [Taint::ProprietaryModule, Taint::ForcedModule, Taint::ForcedRmmod]
                .into_iter()
                .any(has),
            said_unsigned: has(Taint::UnsignedModule),
            said_livepatch: has(Taint::Livepatch),
            ..Taints::default()
        }
    }

    /// The kernel after this load, for the next one.
    pub fn after(self) -> Self {
        Taints { module: 0, ..self }
    }

    /// The same for a module whose `struct module` has this mask in the file (LIC-7).
    #[must_use]
    pub fn with_module(self, mask: u64) -> Self {
        Taints { module: mask, ..self }
    }

    /// Is the kernel tainted so?
    pub fn kernel_has(&self, taint: Taint) -> bool {
        self.kernel & taint.mask() != 0
    }

    /// Is the module tainted so?
    pub fn module_has(&self, taint: Taint) -> bool {
        self.module & taint.mask() != 0
    }

    /// The kernel's mask.
    pub fn kernel_mask(&self) -> u64 {
        self.kernel
    }

    /// The module's letters in bit order, as `/proc/modules` shows them.
    pub fn module_letters(&self) -> String {
        letters(self.module)
    }

    /// The module's mask.
    pub fn module_mask(&self) -> u64 {
        self.module
    }

    /// `kernel/module/main.c: add_taint_module`: marks both. What the kernel says about its lock debugging
    /// then goes to the end of `finding`, which is about to be said.
    #[must_use]
    pub fn add_taint_module(&mut self, taint: Taint, finding: Finding) -> Finding {
        self.module |= taint.mask();
        self.add_taint(taint, finding)
    }

    /// LIC-5: a module that uses a proprietary one's symbols is marked, the kernel was before.
    pub fn inherit(&mut self) {
        self.module |= Taint::ProprietaryModule.mask();
    }

    /// Is this the first symbol without a version of this boot (VER-7, VER-31: `pr_warn_once`)?
    pub fn first_without_version(&mut self, extended: bool) -> bool {
        let said = if extended { &mut self.said_no_extended_version } else { &mut self.said_no_version };
        !core::mem::replace(said, true)
    }

    /// Is this the first BTF that does not fit of this boot (BTF-3: `pr_warn_once`)?
    pub fn first_btf_mismatch(&mut self) -> bool {
        !core::mem::replace(&mut self.said_btf_mismatch, true)
    }

    /// `kernel/panic.c: add_taint`: marks the kernel.
    #[must_use]
    pub fn add_taint(&mut self, taint: Taint, finding: Finding) -> Finding {
        self.kernel |= taint.mask();
        if taint.ends_lock_debugging() && !self.lock_debugging_off {
            self.lock_debugging_off = true;
            return finding.says("Disabling lock debugging due to kernel taint");
        }
        finding
    }

    /// `kernel/module/main.c: try_to_force_load` (VER-40): taint F, said once per kernel.
    pub fn force_load(&mut self, module: &str, reason: &str, why: String) -> Finding {
        let mut finding = Finding::note("VER-40", Severity::Warning, why);
        if !self.kernel_has(Taint::ForcedModule) {
            finding = finding.says(format!("{module}: {reason}: kernel tainted."));
        }
        self.add_taint_module(Taint::ForcedModule, finding)
    }

    /// SIG-12: taint E, said once per boot.
    pub fn unsigned(&mut self, module: &str, why: String) -> Finding {
        let mut finding = Finding::note("SIG-12", Severity::Warning, why);
        if !self.said_unsigned {
            self.said_unsigned = true;
            finding = finding.says(format!(
                "{module}: module verification failed: signature and/or required key missing - tainting kernel"
            ));
        }
        self.add_taint_module(Taint::UnsignedModule, finding)
    }

    /// Taint K, said once per boot.
    pub fn livepatch(&mut self, module: &str) -> Finding {
        let mut finding = Finding::note("LAYOUT-31", Severity::Warning, "a livepatch module: taint K");
        if !self.said_livepatch {
            self.said_livepatch = true;
            finding = finding.says(format!("{module}: tainting kernel with TAINT_LIVEPATCH"));
        }
        self.add_taint_module(Taint::Livepatch, finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ver_40_and_sig_12_are_said_once() {
        let mut taints = Taints::of_kernel(0);
        let first = taints.force_load("m", "bad vermagic", String::new());
        assert_eq!(
            first.dmesg,
            ["m: bad vermagic: kernel tainted.", "Disabling lock debugging due to kernel taint"],
            "VER-40"
        );
        assert!(taints.force_load("m", "bad vermagic", String::new()).dmesg.is_empty(), "VER-40: once");
        assert_eq!(taints.unsigned("m", String::new()).dmesg.len(), 1, "SIG-12");
        assert!(taints.unsigned("m", String::new()).dmesg.is_empty(), "SIG-12: once per boot");
        assert_eq!(taints.module_letters(), "FE");
        assert_eq!(taints.kernel_mask(), 8194);
        let mut later = taints.after();
        assert_eq!(later.module_letters(), "");
        assert!(later.unsigned("n", String::new()).dmesg.is_empty(), "SIG-12: once per boot, over modules");
    }

    #[test]
    fn lic_7_a_module_may_bring_taints() {
        let taints = Taints::of_kernel(2).with_module(1);
        assert!(taints.module_has(Taint::ProprietaryModule), "LIC-7");
        assert_eq!((taints.module_mask(), taints.kernel_mask()), (1, 2), "LIC-7: the kernel's own stay");
    }
}
