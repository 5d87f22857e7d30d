//! The kernel's BTF, as far as that of modules refers to it (spec 06 §6.8).

use alloc::vec::Vec;

/// What split BTF needs of its base: names, and where modifiers lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseBtf {
    /// The string section.
    pub strings: Vec<u8>,
    /// By type number: what a modifier refers to. Number 0 is void.
    pub types: Vec<BtfType>,
}

/// As much of a type as chains of modifiers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BtfType {
    /// BTF_KIND_*
    pub kind: u8,
    /// The type that it refers to; its size, where it refers to none.
    pub size_or_type: u32,
}

impl BtfType {
    /// Type number 0.
    pub const VOID: BtfType = BtfType { kind: 0, size_or_type: 0 };
}

impl BaseBtf {
    /// A base of this string section and these types, from number 1 on.
    pub fn new(strings: &[u8], types: impl IntoIterator<Item = BtfType>) -> Self {
        let types = core::iter::once(BtfType::VOID).chain(types).collect();
        BaseBtf { strings: strings.to_vec(), types }
    }

    /// What of a kernel's BTF that of modules refers to.
    pub fn of(btf: &kernel_image::Btf<'_>) -> Self {
        let types = btf.types().map(|(kind, size_or_type)| BtfType { kind, size_or_type });
        BaseBtf::new(btf.strings(), types)
    }
}
