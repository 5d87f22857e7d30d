//! What stages before relocation have to know of a machine architecture.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
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
    /// Where its kernels keep the capabilities of their CPUs as a bitmap: the first of these that a kernel has.
    pub cpu_capabilities: &'static [CpuCapabilities],
    /// Symbols that only compilers call, by their beginnings, each with the option whose headers made the compiler do so, and
    /// what that is for (SYM-5). Those of every machine are in `symres`.
    pub toolchain_symbols: &'static [(&'static str, &'static str, &'static str)],
}

/// A bitmap of CPU capabilities in a kernel's memory: words of 32 bits, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCapabilities {
    /// The variable that holds it.
    pub symbol: &'static str,
    /// The struct that this variable is, and the bitmap in it; `None` if the variable is the bitmap.
    pub member: Option<(&'static str, &'static str)>,
}

impl Machine {
    /// A machine of which nothing more is to be told: pages of 4096 bytes, no word in vermagic, no bitmap of capabilities.
    pub const fn new(name: &'static str, e_machine: u16) -> Self {
        Machine {
            name,
            e_machine,
            source_arch: name,
            debian_arch: name,
            vermagic_word: "",
            text_addresses: 0..=u32::MAX,
            page_sizes: &[],
            inline_static_calls: false,
            asks_for_retpoline: false,
            cpu_capabilities: &[],
            toolchain_symbols: &[],
        }
    }

    /// The machine of an `e_machine` among those known.
    pub fn find(known: &[&'static Machine], e_machine: u16) -> Option<&'static Machine> {
        known.iter().copied().find(|machine| machine.e_machine == e_machine)
    }
}

/// Machines that Linux runs on, or that compilers write files for, by `e_machine` (include/uapi/linux/elf-em.h). Those
/// whose modules can be loaded here name themselves ([`Machine::name`]).
const NAMES: &[(u16, &str)] = &[
    (2, "SPARC"),
    (3, "i386"),
    (4, "Motorola 68000"),
    (8, "MIPS"),
    (15, "PA-RISC"),
    (18, "SPARC32PLUS"),
    (20, "32-bit PowerPC"),
    (21, "64-bit PowerPC"),
    (22, "s390"),
    (40, "32-bit ARM"),
    (42, "SuperH"),
    (43, "64-bit SPARC"),
    (50, "Itanium"),
    (92, "OpenRISC"),
    (93, "ARC"),
    (94, "Xtensa"),
    (113, "Nios II"),
    (164, "Hexagon"),
    (189, "MicroBlaze"),
    (190, "CUDA"),
    (195, "ARCv2"),
    (224, "AMD GPU"),
    (243, "RISC-V"),
    (247, "BPF"),
    (252, "C-SKY"),
    (258, "LoongArch"),
    (0x9026, "Alpha"),
];

/// What people call the machine of an `e_machine`: by the machines `known`, or by name; by its number only where it has
/// no name.
pub fn machine_name(e_machine: u16, known: &[&'static Machine]) -> String {
    if let Some(machine) = Machine::find(known, e_machine) {
        return machine.name.into();
    }
    let named = NAMES.iter().find(|(number, _)| *number == e_machine);
    named.map_or_else(
        || format!("machine {e_machine:#x} (no name is known for it)"),
        |(_, name)| (*name).into(),
    )
}

/// Names with commas and a last "and".
pub fn names_of(known: &[&'static Machine]) -> String {
    let names: Vec<&str> = known.iter().map(|machine| machine.name).collect();
    match names.as_slice() {
        [] => "no machine".into(),
        [one] => (*one).into(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
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
        cpu_capabilities: &[],
        toolchain_symbols: &[],
    };

    /// Two machines that releases and configurations name.
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
    fn machines_have_names() {
        static A: Machine = Machine { name: "toy", e_machine: 243, ..NOTHING };
        assert_eq!(machine_name(243, &[]), "RISC-V");
        assert_eq!(machine_name(243, &[&A]), "toy", "a machine that is known names itself");
        assert_eq!(machine_name(999, &[]), "machine 0x3e7 (no name is known for it)");
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(names_of(&[]), "no machine");
        assert_eq!(names_of(&[&A]), "toy");
        assert_eq!(names_of(&[&A, &A, &A]), "toy, toy and toy");
    }

    #[test]
    fn machines_are_found_by_number() {
        let found = |number| Machine::find(KNOWN, number).map(|machine| machine.debian_arch);
        assert_eq!([1, 2, 3].map(found), [Some("amd64"), Some("arm64"), None]);
    }
}
