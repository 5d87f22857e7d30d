//! What explains the bytes at an address of a module: its section and symbol, the relocations that wrote them,
//! the steps that changed them afterwards, and whether only the running kernel knows them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use elf_layout::ModuleFile;
use elf_layout::bytes::printed;
use elf_layout::elf::{Rela, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHT_RELA, STT_SECTION, SymFields};
use finalize::struct_module;
use reloc::{Patch, RuntimeState, Step};

use crate::load::Load;

/// A symbol in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Symbol<'d> {
    address: u64,
    /// No label: of several at an address, the last is found.
    named: bool,
    name: &'d [u8],
}

/// A relocation that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relocation {
    /// Address of the first byte that it writes.
    pub address: u64,
    /// How many bytes it writes, or changes bits of.
    pub len: u64,
    /// R_*
    pub r_type: u32,
    /// Its symbol's number.
    pub symbol: u32,
    /// Its addend.
    pub addend: i64,
}

impl Relocation {
    /// The name of its symbol, or of the section that this stands for; `file` is the one that it is of.
    pub fn symbol_text<'d>(&self, file: &ModuleFile<'d>) -> Cow<'d, str> {
        let symbol = file.symbols().get(self.symbol as usize);
        symbol.map_or(Cow::Borrowed("?"), |symbol| printed(file.symbol_or_section_name(symbol)))
    }
}

/// All that is known of one address.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation<'e> {
    /// Index of its section; `None` between sections.
    pub section: Option<usize>,
    /// The symbol that it belongs to, and how far it is behind it.
    pub symbol: Option<String>,
    /// Relocations that wrote it, in the order of their tables.
    pub relocations: Vec<Relocation>,
    /// Steps that changed it, in order.
    pub patches: Vec<&'e Patch>,
    /// Why it is not predicted.
    pub runtime: Vec<&'e RuntimeState>,
}

/// Indices over a load, made once for any number of questions.
#[derive(Debug)]
pub struct Explainer<'l, 'd> {
    load: &'l Load<'d>,
    /// Start, end and index of the sections in memory, by address.
    sections: Vec<(u64, u64, usize)>,
    symbols: Vec<Symbol<'l>>,
    /// By address.
    relocations: Vec<Relocation>,
    /// Names of the kernel's addresses that patches tell of.
    of_kernel: BTreeMap<u64, String>,
}

impl<'d> Load<'d> {
    /// What explains an address of the module. For more than a few, make one [`Explainer`].
    pub fn explain(&self, address: u64) -> Explanation<'_> {
        let explainer = Explainer::new(self);
        let covers = |from: u64, len: u64| address.checked_sub(from).is_some_and(|at| at < len);
        let at = |place| self.module.placement.address(place);
        Explanation {
            section: explainer.section(address),
            symbol: explainer.symbol(address),
            relocations: explainer.relocations_at(address).copied().collect(),
            patches: self.record.patches.iter().filter(|p| covers(at(p.place), p.len)).collect(),
            runtime: self.record.runtime.iter().filter(|r| covers(at(r.place), r.len)).collect(),
        }
    }
}

impl<'l, 'd> Explainer<'l, 'd> {
    /// Indexes a load.
    pub fn new(load: &'l Load<'d>) -> Self {
        let info = &load.module.info;
        let mut sections: Vec<(u64, u64, usize)> = (0..info.sechdrs.len())
            .filter(|index| load.module.layout.place(*index).is_some())
            .filter_map(|index| Some((info.sechdrs.get(index)?, index)))
            .filter(|(s, _)| s.sh_size != 0)
            .map(|(s, index)| (s.sh_addr, s.sh_addr.saturating_add(s.sh_size), index))
            .collect();
        sections.sort_unstable();
        let kept = |shndx| !matches!(shndx, SHN_UNDEF | SHN_ABS) && shndx < SHN_LORESERVE;
        let mut symbols: Vec<Symbol<'l>> = info
            .file
            .symbols()
            .iter()
            .zip(&load.module.values)
            .filter(|(s, _)| kept(s.shndx()) && s.kind() != STT_SECTION)
            .filter(|(s, _)| load.module.layout.place(usize::from(s.shndx())).is_some())
            .map(|(s, address)| (info.file.symbol_name(s), *address))
            // Mapping symbols tell code from data and name nothing.
            .filter(|(name, _)| !name.is_empty() && !name.starts_with(b"$"))
            .map(|(name, address)| Symbol { address, named: !name.starts_with(b".L"), name })
            .collect();
        symbols.sort_unstable();
        let mut explainer =
            Explainer { load, sections, symbols, relocations: Vec::new(), of_kernel: BTreeMap::new() };
        explainer.index_relocations();
        explainer.name_kernel_addresses();
        explainer
    }

    fn index_relocations(&mut self) {
        let info = &self.load.module.info;
        for (index, section) in info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
            let target = section.sh_info as usize;
            if self.load.module.layout.place(target).is_none() {
                continue;
            }
            let start = info.sechdrs.get(target).map_or(0, |s| s.sh_addr);
            let of = |rela: &Rela| Relocation {
                address: start.wrapping_add(rela.r_offset),
                len: self.load.arch.relocation_width(rela.r_type()),
                r_type: rela.r_type(),
                symbol: rela.r_sym(),
                addend: rela.r_addend,
            };
            match info.reordered(index) {
                Some(table) => self.relocations.extend(table.iter().map(of)),
                None => {
                    let table = info.file.relocations(index).iter();
                    self.relocations.extend(table.map(|rela| of(&Rela::from(rela))));
                }
            }
        }
        self.relocations.sort_by_key(|r| r.address);
    }

    /// One look at each of the kernel's symbols, whatever the number of patches.
    fn name_kernel_addresses(&mut self) {
        let record = &self.load.record;
        let wanted = record.patches.iter().filter(|p| tells_an_address(p.step) && p.detail != 0);
        let mut names: BTreeMap<u64, Option<String>> = wanted.map(|p| (p.detail, None)).collect();
        names.retain(|address, _| self.section(*address).is_none());
        if names.is_empty() {
            return;
        }
        for symbol in self.load.kernel.symbols.iter() {
            if let Some(name @ None) = names.get_mut(&symbol.address) {
                *name = Some(printed(symbol.name).into_owned());
            }
        }
        self.of_kernel = names.into_iter().filter_map(|(address, name)| Some((address, name?))).collect();
    }

    /// The section at an address.
    pub fn section(&self, address: u64) -> Option<usize> {
        let after = self.sections.partition_point(|(start, ..)| *start <= address);
        let (_, end, index) = self.sections.get(after.checked_sub(1)?)?;
        (address < *end).then_some(*index)
    }

    /// The symbol at or before an address of the same section, with the distance to it: `fat_get_entry+0x4`.
    pub fn symbol(&self, address: u64) -> Option<String> {
        let section = self.section(address)?;
        let start = self.load.module.info.sechdrs.get(section)?.sh_addr;
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols.get(after.checked_sub(1)?).filter(|symbol| symbol.address >= start)?;
        let name = printed(symbol.name);
        Some(match address.wrapping_sub(symbol.address) {
            0 => name.into_owned(),
            offset => format!("{name}+{offset:#x}"),
        })
    }

    /// Where the symbol at or before an address of the same section begins.
    pub fn symbol_start(&self, address: u64) -> Option<u64> {
        let start = self.load.module.info.sechdrs.get(self.section(address)?)?.sh_addr;
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols.get(after.checked_sub(1)?)?;
        (symbol.address >= start).then_some(symbol.address)
    }

    /// The name of an address, here or in the kernel; the number if nothing has it.
    pub fn name(&self, address: u64) -> String {
        let in_kernel = || self.of_kernel.get(&address).cloned();
        self.symbol(address).or_else(in_kernel).unwrap_or_else(|| format!("{address:#x}"))
    }

    /// All relocations by address.
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// The relocations that write an address.
    fn relocations_at(&self, address: u64) -> impl Iterator<Item = &Relocation> {
        /// None writes more.
        const LONGEST: u64 = 8;
        let first = address.saturating_sub(LONGEST);
        let from = self.relocations.partition_point(|r| r.address <= first);
        let from_here = self.relocations.get(from..).unwrap_or(&[]).iter();
        from_here
            .take_while(move |r| r.address <= address)
            .filter(move |r| address.wrapping_sub(r.address) < r.len)
    }

    /// `R_X86_64_PLT32 printk-0x4`
    pub fn relocation_text(&self, relocation: &Relocation) -> String {
        let file = self.load.module.info.file;
        let type_ = reloc::type_text(file.e_machine(), relocation.r_type);
        let name = relocation.symbol_text(file);
        match relocation.addend {
            0 => format!("{type_} {name}"),
            addend if addend < 0 => format!("{type_} {name}-{:#x}", addend.unsigned_abs()),
            addend => format!("{type_} {name}+{addend:#x}"),
        }
    }

    /// What distinguishes a patch from others of its step ([`Patch::detail`]), in words.
    pub fn detail(&self, patch: &Patch) -> Option<String> {
        let detail = patch.detail;
        match patch.step {
            Step::StructModule => {
                let member = struct_module::MEMBERS.get(usize::try_from(detail).ok()?)?;
                Some((*member).to_owned())
            }
            Step::Alternative => Some(self.load.arch.capability_text(detail)),
            step if tells_an_address(step) && detail != 0 => Some(self.name(detail)),
            _ => None,
        }
    }
}

/// Is the detail of its patches an address?
pub(crate) fn tells_an_address(step: Step) -> bool {
    !matches!(step, Step::StructModule | Step::Alternative | Step::Parameter)
}
