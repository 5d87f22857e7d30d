//! Kernels as texts describe them, and machines that no architecture of the project is.

use elf_layout::{CpuCapabilities, KernelConfig, KernelVersion, Machine};
use kernel::{Kernel, KernelDescription, KernelDescriptionBuilder, KernelSymbols, Records, Symvers};

/// A machine that keeps the capabilities of its CPUs in `caps.bits`.
pub static TOY: Machine = Machine {
    name: "toy",
    e_machine: 0x1234,
    source_arch: "toys",
    debian_arch: "toy",
    vermagic_word: "",
    text_addresses: 0xffff_8000..=0xffff_8fff,
    page_sizes: &[],
    inline_static_calls: false,
    asks_for_retpoline: false,
    cpu_capabilities: &[CpuCapabilities { symbol: "boot_caps", member: Some(("caps", "bits")) }],
    toolchain_symbols: &[],
};
/// A machine whose bitmap is a variable of its own, which had another name once.
pub static PLAIN: Machine = Machine {
    name: "plain",
    e_machine: 0x1235,
    source_arch: "plains",
    debian_arch: "plain",
    vermagic_word: "",
    text_addresses: 0xffff_9000..=0xffff_9fff,
    page_sizes: &[],
    inline_static_calls: false,
    asks_for_retpoline: false,
    cpu_capabilities: &[
        CpuCapabilities { symbol: "new_plain_caps", member: None },
        CpuCapabilities { symbol: "plain_caps", member: None },
    ],
    toolchain_symbols: &[],
};
/// Both.
pub const KNOWN: &[&Machine] = &[&TOY, &PLAIN];

/// Nothing but a version.
pub fn builder() -> KernelDescriptionBuilder {
    KernelDescriptionBuilder::new().config("test", KernelConfig::new(KernelVersion::new(6, 12, 0)))
}

#[track_caller]
pub fn symbols(text: &str) -> KernelSymbols {
    KernelSymbols::parse(text.as_bytes()).unwrap()
}

#[track_caller]
pub fn symvers(text: &str) -> Symvers {
    Symvers::parse(text.as_bytes()).unwrap()
}

pub fn records(all: &[(&str, &str)]) -> Records {
    let mut records = Records::default();
    all.iter().for_each(|(name, value)| records.set(name, *value));
    records
}

#[track_caller]
pub fn describe(builder: KernelDescriptionBuilder) -> KernelDescription {
    builder.build(KNOWN).unwrap()
}

#[track_caller]
pub fn booted(builder: KernelDescriptionBuilder) -> Kernel {
    Kernel::booted(describe(builder))
}
