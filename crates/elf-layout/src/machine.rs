//! What stages before relocation have to know of a machine architecture.

use core::ops::RangeInclusive;

/// A machine architecture as a table of facts. Each one known is a static in the directory of its
/// architecture (`reloc::Architecture::machine`); nothing here names one.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name in JSON and in messages: `uname -m`.
    pub name: &'static str,
    /// `e_machine` of its modules and kernels.
    pub e_machine: u16,
    /// Its folder under `arch/`, which the head of a `.config` names (`# Linux/x86 ...`).
    pub source_arch: &'static str,
    /// Debian's name for it, with which releases of Debian's kernels end (OV-DEB).
    pub debian_arch: &'static str,
    /// MODULE_ARCH_VERMAGIC: the word that it adds to vermagic, empty if none (VER-20).
    pub vermagic_word: &'static str,
    /// The upper halves of the addresses that the text of its kernels has. Those of different machines do not overlap.
    pub text_addresses: RangeInclusive<u32>,
    /// Kconfig options that set PAGE_SIZE, with its bytes; 4096 where none of them is set.
    pub page_sizes: &'static [(&'static str, u64)],
    /// CONFIG_HAVE_STATIC_CALL_INLINE: modules have `.static_call_sites` that a notifier patches (LAYOUT-5, LIFE-46).
    pub inline_static_calls: bool,
    /// `check_modinfo_retpoline` asks its modules for the tag `retpoline` (LIC-2).
    pub asks_for_retpoline: bool,
}

impl Machine {
    /// The machine of an `e_machine` among those known.
    pub fn find(known: &[&'static Machine], e_machine: u16) -> Option<&'static Machine> {
        known.iter().copied().find(|machine| machine.e_machine == e_machine)
    }
}
