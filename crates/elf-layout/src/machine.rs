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
    /// Where its kernels keep the capabilities of their CPUs as a bitmap, `None` if nowhere.
    pub cpu_capabilities: Option<CpuCapabilities>,
}

/// A bitmap of CPU capabilities in a kernel's memory: words of 32 bits, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCapabilities {
    /// The variable that holds it.
    pub symbol: &'static str,
    /// The struct that this variable is.
    pub of: &'static str,
    /// The bitmap in it.
    pub member: &'static str,
}

impl Machine {
    /// The machine of an `e_machine` among those known.
    pub fn find(known: &[&'static Machine], e_machine: u16) -> Option<&'static Machine> {
        known.iter().copied().find(|machine| machine.e_machine == e_machine)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const NOTHING: Machine = Machine {
        name: "",
        e_machine: 0,
        source_arch: "",
        debian_arch: "",
        vermagic_word: "",
        text_addresses: 0..=0,
        page_sizes: &[],
        inline_static_calls: false,
        asks_for_retpoline: false,
        cpu_capabilities: None,
    };

    /// Two machines of which releases and configurations tell.
    pub(crate) const KNOWN: &[&Machine] = &[
        &Machine { e_machine: 1, debian_arch: "amd64", ..NOTHING },
        &Machine {
            e_machine: 2,
            debian_arch: "arm64",
            page_sizes: &[
                ("CONFIG_ARM64_64K_PAGES", 0x1_0000),
                ("CONFIG_ARM64_16K_PAGES", 0x4000),
                ("CONFIG_PAGE_SIZE_16KB", 0x4000),
            ],
            ..NOTHING
        },
    ];

    #[test]
    fn machines_are_found_by_number() {
        let found = |number| Machine::find(KNOWN, number).map(|machine| machine.debian_arch);
        assert_eq!([1, 2, 3].map(found), [Some("amd64"), Some("arm64"), None]);
    }
}
