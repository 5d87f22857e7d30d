//! The addresses of the symbols: which of the four layouts it is, by trying
//! which gives addresses in order (spec 09 §9.3, step 5).

use alloc::vec::Vec;

use super::KallsymsLayout;
use super::find::Tables;
use crate::Error;
use crate::bytes::{align_up, le32, le64, prel32, slice};
use crate::memory::{KERNEL_HALF, Memory};

/// Addresses of all symbols.
pub(crate) struct Addresses {
    pub(crate) layout: KallsymsLayout,
    pub(crate) relative_base: Option<u64>,
    pub(crate) values: Vec<u64>,
}

/// Finds the addresses of the symbols of `tables`.
pub(crate) fn find(data: &[u8], memory: &Memory, tables: &Tables) -> Result<Addresses, Error> {
    names_first(data, memory, tables)
        .or_else(|| old(data, memory, tables))
        .or_else(|| place_relative(data, memory, tables))
        .or_else(|| old_absolute(data, memory, tables))
        .ok_or(Error::DamagedKallsyms {
            what: "names, but no table of addresses in ascending order where any kernel has one",
            at: tables.count_at as u64,
        })
}

/// 6.4 to 6.19: offsets behind the token index, then the base.
fn names_first(data: &[u8], memory: &Memory, tables: &Tables) -> Option<Addresses> {
    let offsets_at = align_up(tables.end(), 8);
    let base_at = align_up(offsets_at.checked_add(tables.count.checked_mul(4)?)?, 8);
    relative(data, memory, tables, KallsymsLayout::NamesFirst, offsets_at, base_at)
}

/// Up to 6.3: offsets and base before the count.
fn old(data: &[u8], memory: &Memory, tables: &Tables) -> Option<Addresses> {
    let base_at = tables.count_at.checked_sub(8)?;
    let offsets_at = base_at.checked_sub(align_up(tables.count.checked_mul(4)?, 8))?;
    relative(data, memory, tables, KallsymsLayout::Old, offsets_at, base_at)
}

fn relative(
    data: &[u8],
    memory: &Memory,
    tables: &Tables,
    layout: KallsymsLayout,
    offsets_at: usize,
    base_at: usize,
) -> Option<Addresses> {
    let offsets = slice(data, offsets_at, tables.count.checked_mul(4)?)?;
    let base = match memory.address_of(base_at).and_then(|address| memory.rela.addend(data, address)) {
        Some(addend) => addend, // KSYM-12
        None => le64(data, base_at)?,
    };
    if base < KERNEL_HALF && memory.locate(base).is_none() {
        return None;
    }
    let offset = |word: &[u8]| le32(word, 0).unwrap_or(0);
    // With KALLSYMS_ABSOLUTE_PERCPU (up to 6.14) all but per-cpu and absolute symbols are negative.
    let absolute_percpu = offsets.chunks_exact(4).any(|word| offset(word).cast_signed() < 0);
    let value = |offset: u32| match u64::try_from(offset.cast_signed()) {
        Ok(value) if absolute_percpu => value,
        Err(_) if absolute_percpu => {
            base.wrapping_sub(1).wrapping_add_signed(i64::from(offset.cast_signed()).wrapping_neg())
        }
        _ => base.wrapping_add(u64::from(offset)),
    };
    let values = ascending(offsets.chunks_exact(4).map(|word| value(offset(word))), tables.count)?;
    Some(Addresses { layout, relative_base: Some(base), values })
}

/// 7.0 and later: offsets from their own places (KSYM-14), then the seqs, three
/// bytes of symbol number each, which tell this table from any other ascending one.
fn place_relative(data: &[u8], memory: &Memory, tables: &Tables) -> Option<Addresses> {
    let offsets_at = align_up(tables.end(), 4);
    let len = tables.count.checked_mul(4)?;
    let offsets = slice(data, offsets_at, len)?;
    let seqs = slice(data, offsets_at.checked_add(len)?, tables.count.checked_mul(3)?)?;
    let number = |seq: &[u8]| seq.iter().fold(0usize, |n, b| n.wrapping_shl(8) | usize::from(*b));
    if !seqs.chunks_exact(3).all(|seq| number(seq) < tables.count) {
        return None;
    }
    let first = memory.address_of(offsets_at)?;
    let places = (0u64..).map(|i| first.wrapping_add(i.wrapping_mul(4)));
    let values = offsets.chunks_exact(4).zip(places).map(|(word, at)| prel32(at, le32(word, 0).unwrap_or(0)));
    let values = ascending(values, tables.count)?;
    Some(Addresses { layout: KallsymsLayout::PlaceRelative, relative_base: None, values })
}

/// Up to 6.3 without CONFIG_KALLSYMS_BASE_RELATIVE: addresses before the count.
fn old_absolute(data: &[u8], memory: &Memory, tables: &Tables) -> Option<Addresses> {
    let len = tables.count.checked_mul(8)?;
    let at = tables.count_at.checked_sub(len)?;
    let words = slice(data, at, len)?.chunks_exact(8);
    let first = memory.address_of(at)?;
    let places = (0u64..).map(|i| first.wrapping_add(i.wrapping_mul(8)));
    let value = |(word, place): (&[u8], u64)| match memory.rela.addend(data, place) {
        Some(addend) => addend,
        None => le64(word, 0).unwrap_or(0),
    };
    let values = ascending(words.zip(places).map(value), tables.count)?;
    (*values.last()? >= KERNEL_HALF).then_some(())?;
    Some(Addresses { layout: KallsymsLayout::OldAbsolute, relative_base: None, values })
}

/// The values, if none is below the one before it; a table of nothing but
/// zeros, as relocated pointers leave it, is none.
fn ascending(values: impl Iterator<Item = u64>, count: usize) -> Option<Vec<u64>> {
    let mut last = 0;
    let mut all = Vec::new();
    for value in values {
        if value < last {
            return None;
        }
        if all.is_empty() {
            all.reserve_exact(count);
        }
        last = value;
        all.push(value);
    }
    (all.first() != all.last()).then_some(all)
}
