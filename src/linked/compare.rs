//! Memory compared with what should be there: which bytes differ, and why each may.

use std::ops::Range;

use elf_layout::SectionPlace;
use reloc::Step;

use crate::address::Explainer;
use crate::load::Load;

/// Why bytes may differ from what was predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Only the running kernel has their values: what they are.
    Runtime(String),
    /// The site depends on the running system, and holds another of the values that it may hold. Told only of loads that keep
    /// these ([`crate::Loading::choices`]).
    Choice(Step),
    /// A step after relocation wrote something else there, and nothing that is known allows what is there now.
    Patch {
        /// The step.
        step: Step,
        /// What it wrote for: a target, a key, a capability.
        detail: Option<String>,
    },
    /// A relocation wrote something else there: `R_X86_64_PLT32 _printk-0x4`.
    Relocation(String),
    /// The bytes are those of the file, and nothing writes there.
    Unexplained,
}

impl Cause {
    /// Is it what a sound kernel does? Anything else was changed by somebody, or the kernel is not the one that was described.
    pub fn is_sound(&self) -> bool {
        matches!(self, Cause::Runtime(_) | Cause::Choice(_))
    }
}

/// A range of bytes that differ, all with one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Address of the first one.
    pub address: u64,
    /// What should be there.
    pub expected: Vec<u8>,
    /// What is there.
    pub found: Vec<u8>,
    /// Why they may differ.
    pub cause: Cause,
    /// Where it is: `fat_get_entry+0x4`.
    pub symbol: Option<String>,
}

/// What wrote a byte, by its position in the tables of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    File,
    Relocation(usize),
    Patch(usize),
    Choice(usize),
    Runtime(usize),
}

/// The differences; `None` if not all of the bytes are in one region.
pub(super) fn compare(load: &Load<'_>, address: u64, found: &[u8]) -> Option<Vec<Difference>> {
    let len = found.len() as u64;
    let expected = load.module.read(address, len)?;
    if expected == found {
        return Some(Vec::new());
    }
    let start = load.module.place_of(address)?;
    let explainer = Explainer::new(load);
    let writers = writers(load, &explainer, start, address, found);
    let mut differences: Vec<Difference> = Vec::new();
    let mut last: Option<(usize, Writer)> = None;
    for (at, ((is, should), writer)) in found.iter().zip(expected).zip(&writers).enumerate() {
        if is == should {
            continue;
        }
        let goes_on = last.is_some_and(|(before, of)| before.saturating_add(1) == at && of == *writer);
        last = Some((at, *writer));
        match differences.last_mut().filter(|_| goes_on) {
            Some(difference) => {
                difference.expected.push(*should);
                difference.found.push(*is);
            }
            None => {
                let address = address.wrapping_add(at as u64);
                differences.push(Difference {
                    address,
                    expected: vec![*should],
                    found: vec![*is],
                    cause: cause(load, &explainer, *writer),
                    symbol: explainer.symbol(address),
                });
            }
        }
    }
    Some(differences)
}

/// For each of the bytes what wrote it last.
fn writers(
    load: &Load<'_>,
    explainer: &Explainer<'_, '_>,
    start: SectionPlace,
    address: u64,
    found: &[u8],
) -> Vec<Writer> {
    let mut writers = vec![Writer::File; found.len()];
    // The part of the bytes that a range of the region covers.
    let part = |from: u64, len: u64| -> Option<Range<usize>> {
        let end = from.saturating_add(len).saturating_sub(start.offset).min(found.len() as u64);
        let from = from.saturating_sub(start.offset);
        (from < end).then_some(from as usize..end as usize)
    };
    let mut paint = |range: Option<Range<usize>>, writer| {
        let bytes = range.and_then(|range| writers.get_mut(range));
        bytes.into_iter().for_each(|bytes| bytes.fill(writer));
    };
    for (index, relocation) in explainer.relocations().iter().enumerate() {
        // By address: what lies before the bytes, or behind them, is in none of them.
        let at = relocation.address.wrapping_sub(address).wrapping_add(start.offset);
        if load.module.place_of(relocation.address).is_some_and(|place| place.region == start.region) {
            paint(part(at, relocation.len), Writer::Relocation(index));
        }
    }
    let here = |place: SectionPlace| place.region == start.region;
    for (index, patch) in load.record.patches.iter().enumerate().filter(|(_, patch)| here(patch.place)) {
        paint(part(patch.place.offset, patch.len), Writer::Patch(index));
    }
    for (index, choice) in load.record.choices.iter().enumerate().filter(|(_, choice)| here(choice.place)) {
        let len = choice.may.first().map_or(0, Vec::len);
        let range = part(choice.place.offset, len as u64).filter(|range| range.len() == len);
        let is = range.clone().and_then(|range| found.get(range));
        if choice.may.iter().any(|may| Some(may.as_slice()) == is) {
            paint(range, Writer::Choice(index));
        }
    }
    for (index, state) in load.record.runtime.iter().enumerate().filter(|(_, state)| here(state.place)) {
        paint(part(state.place.offset, state.len), Writer::Runtime(index));
    }
    writers
}

fn cause(load: &Load<'_>, explainer: &Explainer<'_, '_>, writer: Writer) -> Cause {
    let record = &load.record;
    let cause = match writer {
        Writer::File => None,
        Writer::Relocation(index) => {
            let relocation = explainer.relocations().get(index);
            relocation.map(|relocation| Cause::Relocation(explainer.relocation_text(relocation)))
        }
        Writer::Patch(index) => {
            let patch = record.patches.get(index);
            patch.map(|patch| Cause::Patch { step: patch.step, detail: explainer.detail(patch) })
        }
        Writer::Choice(index) => record.choices.get(index).map(|choice| Cause::Choice(choice.step)),
        Writer::Runtime(index) => {
            record.runtime.get(index).map(|state| Cause::Runtime(state.what.clone().into_owned()))
        }
    };
    cause.unwrap_or(Cause::Unexplained)
}
