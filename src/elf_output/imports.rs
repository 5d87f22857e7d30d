//! What a module imports, as debuggers find it: they name an address only where a section lies over it, so each range of
//! imported addresses gets one without bytes (SHT_NOBITS), and in no segment: nothing is said of what is there.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use elf_layout::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, STT_FUNC, STT_OBJECT};
use kernel::{Kernel, Owner};
use object::elf;
use symres::Import;

use super::{Content, NAME_MAX, Section, plain};
use crate::address::tells_an_address;
use crate::load::Load;

/// No kernel image reaches further than that: what lies further apart is in two ranges.
const IMAGE_MAX: u64 = 1 << 30;

/// What a symbol of the kernel or of a module stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Code,
    Data,
}

/// One imported symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Imported {
    kind: Option<Kind>,
    /// Index of the section over its address.
    pub(super) section: Option<u32>,
}

impl Imported {
    /// STT_FUNC or STT_OBJECT; `None` if nothing tells.
    pub(super) fn symbol_type(&self) -> Option<u8> {
        self.kind.map(|kind| match kind {
            Kind::Code => STT_FUNC,
            Kind::Data => STT_OBJECT,
        })
    }
}

/// A symbol of the kernel that the module does not import, but that a step after relocation has made it use: what a static call
/// leads to, or a return thunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached<'d> {
    pub(super) name: &'d [u8],
    pub(super) address: u64,
    pub(super) is: Imported,
}

/// Addresses of one owner and of one kind, from the first to the last.
#[derive(Clone, Copy, Debug)]
struct Range<'d> {
    owner: &'d [u8],
    kind: Kind,
    first: u64,
    last: u64,
}

/// All that a module imports.
#[derive(Debug)]
pub(super) struct Imports<'d> {
    by_symbol: HashMap<u32, Imported>,
    reached: Vec<Reached<'d>>,
    /// By address.
    ranges: Vec<Range<'d>>,
}

/// What lies at an address outside of the module.
#[derive(Clone, Copy, Debug)]
struct Outside<'d> {
    address: u64,
    kind: Kind,
    owner: &'d [u8],
}

impl<'d> Imports<'d> {
    /// The first of their sections gets the index `first`.
    pub(super) fn new(load: &'d Load<'_>, first: u32) -> Self {
        let kernel = load.kernel;
        let imports = load.resolution.imports.iter();
        let imports = imports.map(|import| {
            let kind = import.address.and_then(|address| kind(kernel, import, address));
            (import.symbol, kind, import.address, import.owner)
        });
        let imports: Vec<_> = imports.collect();
        let mut reached = reached(load);
        let outside = |kind: Option<Kind>, address: Option<u64>, owner: &'d [u8]| {
            // What lies in the module itself needs no section.
            let address = address.filter(|address| !load.module.within_module(*address))?;
            Some(Outside { address, kind: kind?, owner })
        };
        let of_imports =
            imports.iter().filter_map(|(_, kind, address, owner)| outside(*kind, *address, owner));
        let of_kernel = |r: &Reached<'d>| outside(r.is.kind, Some(r.address), Owner::Vmlinux.name());
        let all = of_imports.chain(reached.iter().filter_map(of_kernel)).collect();
        let ranges = ranges(load, all);
        let section = |address: u64| {
            let after = ranges.partition_point(|range| range.first <= address);
            let at = after.checked_sub(1)?;
            ranges.get(at).filter(|range| address <= range.last)?;
            u32::try_from(at).ok().map(|at| at.saturating_add(first))
        };
        let by_symbol = imports.iter().map(|(symbol, kind, address, _)| {
            (*symbol, Imported { kind: *kind, section: kind.and(*address).and_then(section) })
        });
        let by_symbol = by_symbol.collect();
        reached.iter_mut().for_each(|r| r.is.section = section(r.address));
        Imports { by_symbol, reached, ranges }
    }

    /// The symbols that the module uses without importing them, by address.
    pub(super) fn reached(&self) -> &[Reached<'d>] {
        &self.reached
    }

    /// The imported symbol of this number.
    pub(super) fn get(&self, symbol: u32) -> Option<&Imported> {
        self.by_symbol.get(&symbol)
    }

    /// `.import.vmlinux.text` and others, by address.
    pub(super) fn sections(&self) -> Vec<Section<'static>> {
        let section = |range: &Range<'_>| {
            let (word, flags) = match range.kind {
                Kind::Code => (&b".text"[..], SHF_ALLOC | SHF_EXECINSTR),
                Kind::Data => (&b".data"[..], SHF_ALLOC | SHF_WRITE),
            };
            let owner = range.owner.get(..NAME_MAX).unwrap_or(range.owner);
            Section {
                flags,
                addr: range.first,
                size: range.last.saturating_sub(range.first).saturating_add(1),
                content: Content::None,
                ..plain(Cow::Owned([b".import.", owner, word].concat()), elf::SHT_NOBITS, Vec::new())
            }
        };
        self.ranges.iter().map(section).collect()
    }
}

/// The ranges that these addresses are in.
fn ranges<'d>(load: &Load<'_>, mut all: Vec<Outside<'d>>) -> Vec<Range<'d>> {
    all.sort_unstable_by_key(|outside| (outside.address, outside.kind, outside.owner));
    let mut own: Vec<u64> = load.module.segments().map(|segment| segment.base).collect();
    own.sort_unstable();
    // Does the module itself lie between two addresses?
    let lies_between = |from: u64, to: u64| {
        let after = own.partition_point(|base| *base <= from);
        own.get(after).is_some_and(|base| *base < to)
    };
    let mut ranges = Vec::<Range<'d>>::new();
    for Outside { address, kind, owner } in all {
        match ranges.last_mut() {
            // One address has one section, whatever is said to be there.
            Some(range) if range.last == address => {}
            Some(range)
                if range.owner == owner
                    && range.kind == kind
                    && address.saturating_sub(range.last) < IMAGE_MAX
                    && !lies_between(range.last, address) =>
            {
                range.last = address;
            }
            _ => ranges.push(Range { owner, kind, first: address, last: address }),
        }
    }
    ranges
}

/// The kernel's symbols that patches tell of, other than imported ones: one for each address.
fn reached<'d>(load: &'d Load<'_>) -> Vec<Reached<'d>> {
    let imported: HashSet<u64> = load.resolution.imports.iter().filter_map(|i| i.address).collect();
    let patches = load.record.patches.iter().filter(|patch| tells_an_address(patch.step));
    let wanted = patches.map(|patch| patch.detail).filter(|address| {
        *address != 0 && !imported.contains(address) && !load.module.within_module(*address)
    });
    let mut found: BTreeMap<u64, Option<Reached<'d>>> = wanted.map(|address| (address, None)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    for symbol in load.kernel.symbols.iter().filter(|symbol| symbol.module.is_none()) {
        if let Some(slot @ None) = found.get_mut(&symbol.address) {
            let is = Imported { kind: Some(of_letter(symbol.kind)), section: None };
            *slot = Some(Reached { name: symbol.name, address: symbol.address, is });
        }
    }
    found.into_values().flatten().collect()
}

/// What nm's letter says.
fn of_letter(letter: u8) -> Kind {
    match letter.to_ascii_lowercase() {
        // V is a weak object, W anything else that is weak.
        b't' | b'w' | b'i' => Kind::Code,
        _ => Kind::Data,
    }
}

/// By the letter of its symbol (KSYM-1), by the region of a module that was loaded here, or by where the kernel's code ends.
fn kind(kernel: &Kernel, import: &Import<'_>, address: u64) -> Option<Kind> {
    let owner = Some(import.owner).filter(|owner| *owner != Owner::Vmlinux.name());
    let mut named = kernel.symbols.named(import.name);
    if let Some(symbol) = named.find(|s| s.module == owner && s.address == address) {
        return Some(of_letter(symbol.kind));
    }
    let of = |is_code: bool| if is_code { Kind::Code } else { Kind::Data };
    match owner {
        Some(module) => kernel.state.space.is_code(module, address).map(of),
        None => {
            let (start, end) = kernel.symbols.address("_stext").zip(kernel.symbols.address("_etext"))?;
            Some(of((start..end).contains(&address)))
        }
    }
}
