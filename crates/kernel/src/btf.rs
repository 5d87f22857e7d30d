//! The kernel's BTF, as far as that of modules refers to it (spec 06 §6.8).

use alloc::vec::Vec;

use bytes::Bytes;

use crate::parts::{parts, record_of, u32_at};

/// Bytes of a type in a table: its kind, then its size or type.
const TYPE: usize = 5;

/// What split BTF needs of its base: names, and where modifiers lead. Copies share what is large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseBtf {
    /// The string section.
    strings: Bytes,
    /// By type number, [`TYPE`] bytes each.
    types: Bytes,
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
        let types = core::iter::once(BtfType::VOID).chain(types);
        let table: Vec<u8> = types
            .flat_map(|t| {
                let [a, b, c, d] = t.size_or_type.to_le_bytes();
                [t.kind, a, b, c, d]
            })
            .collect();
        BaseBtf { strings: Bytes::copy_from_slice(strings), types: table.into() }
    }

    /// What of a kernel's BTF that of modules refers to.
    pub fn of(btf: &kernel_image::Btf<'_>) -> Self {
        let types = btf.types().map(|(kind, size_or_type)| BtfType { kind, size_or_type });
        BaseBtf::new(btf.strings(), types)
    }

    /// The string section.
    pub fn strings(&self) -> &[u8] {
        &self.strings
    }

    /// How many types there are, with number 0, which is void.
    pub fn len(&self) -> usize {
        self.types.len() / TYPE
    }

    /// Not even void?
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// A type by its number: what a modifier refers to.
    pub fn get(&self, number: usize) -> Option<BtfType> {
        let bytes = self.types.as_chunks::<TYPE>().0.get(number)?;
        let [kind, ..] = *bytes;
        Some(BtfType { kind, size_or_type: u32_at(bytes, 1)? })
    }

    /// The record of a SPEC that [`BaseBtf::of_record`] reads.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        record_of(&[&self.types, &self.strings])
    }

    /// The BTF of such a record, where it lies; `None` if it is none.
    pub(crate) fn of_record(record: &Bytes) -> Option<Self> {
        let [types, strings] = parts(record)?;
        types.len().is_multiple_of(TYPE).then_some(BaseBtf { strings, types })
    }
}
