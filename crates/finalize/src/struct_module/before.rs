//! A `struct module` of another layout: what the module's relocations show of it, and what they meet in the kernel's.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use elf_layout::bytes::printed;
use elf_layout::elf::{RawRela, Rela, SHF_ALLOC, SHT_RELA};
use elf_layout::{Finding, Module, Severity, Subject, Table, needs};
use reloc::{Architecture, Finalizer};

use crate::extable::exception_table_entry;

use super::{ANY_OBJS, MEMBERS, OBJS, POINTER, This};

/// `MODULE_STATE_UNFORMED`
const UNFORMED: u64 = 3;
/// `struct latch_tree_node`: two `struct rb_node`, which begin with the parent and the colour.
const LATCH_TREE_NODE: u64 = 48;
const RB_NODE: u64 = 24;
/// What `find_module_sections` looks up in any section; the rest of [`ANY_OBJS`] is set after relocation.
const FOUND_EARLY: &[&str] = &["btf_data", "btf_base_data"];

/// What of a module's `struct module` was changed for its relocation: [`Before::take_back`] ends that.
#[derive(Debug)]
pub struct Before {
    file: Vec<u8>,
    written: Vec<u8>,
    /// Links in the kernel's tree of module addresses that lead to other modules, if there are such; by address.
    links: Vec<Range<u64>>,
}

/// A relocation that goes elsewhere in `struct module` than to the kernel's `init` and `exit`.
struct Elsewhere {
    section: u32,
    entry: u32,
    /// Where in `struct module`, and how many bytes.
    offset: u64,
    width: u64,
    symbol: String,
    /// The section that it is one of, and where it should go there: another one than that of `struct module` if it goes beyond
    /// its end.
    of: (usize, u64),
}

/// RELOC-GEN-15: `struct module` as the module has it is not the kernel's. What comes of it is told; and where relocation
/// wants zeros, all is written that the kernel has written by then. Without the kernel's layout this is not judged. What comes back with it are
/// the crashes behind the relocation, if that is not refused.
pub fn struct_module_layout(
    module: &mut Finalizer<'_, '_>,
    arch: &dyn Architecture,
) -> (Option<Before>, Vec<Finding>) {
    let mut crashes = Vec::new();
    let before = changed_layout(module, arch, &mut crashes);
    (before, crashes)
}

fn changed_layout(
    module: &mut Finalizer<'_, '_>,
    arch: &dyn Architecture,
    crashes: &mut Vec<Finding>,
) -> Option<Before> {
    let index = module.info.file.index().module;
    if lies_under_another(module, index) {
        let needs = "what the kernel writes to struct module while sections of the module lie over it: their alignment puts them there";
        module.said.may_crash("RELOC-GEN-15", needs);
    }
    let info = &module.info;
    let Some((init, exit)) = info.config.struct_module_init_exit else {
        module.said.unjudged("RELOC-GEN-15", needs::STRUCT_MODULE);
        return None;
    };
    let table = module.table(index)?;
    let elsewhere = elsewhere(module, arch, (index, table), (init, exit));
    // Since v6.4 another size is refused at once, by the checks of the file.
    let own = info.sechdrs.get(index).map_or(0, |s| s.sh_size);
    let size = info.config.struct_module_size.filter(|size| *size != own);
    let zeros = arch.relocates_only_zeros();
    let outside = reaches_outside(module, arch);
    let from_others = if outside { from_others(module, arch, index, table) } else { Vec::new() };
    if elsewhere.is_empty() && from_others.is_empty() && zeros && outside {
        return Some(written_before(module, arch, table));
    }
    if elsewhere.is_empty() && from_others.is_empty() {
        if let Some(size) = size {
            let why =
                format!("its struct module has {own:#x} bytes, that of this kernel {size:#x}{BUILT_AGAINST}");
            module.said.push(told(why).about(info.file.section_subject(index)));
        }
        return None;
    }
    let before = zeros.then(|| written_before(module, arch, table));
    for at in elsewhere.iter().chain(&from_others) {
        let place = table.address.wrapping_add(at.offset);
        let width = at.width.min(table.size.saturating_sub(at.offset));
        let holds = before.is_some() && module.read(place, width).is_some_and(|b| b.iter().any(|b| *b != 0));
        if at.of.0 == index {
            let why = format!("{}{BUILT_AGAINST}", at.why(module, (init, exit), holds));
            module.said.push(told(why).about(at.subject(module)));
        }
        let end = place.saturating_add(width);
        if before.as_ref().is_some_and(|b| b.links.iter().any(|link| link.start < end && place < link.end)) {
            let needs = "the kernel's tree of module addresses: a relocation of struct module goes to a link in it, which may be zero or not";
            module.said.unjudged("RELOC-GEN-15", needs);
        }
        if !(zeros && holds) {
            over_links(module, at, crashes);
        }
        // A place that must be zero and is not is refused by itself.
        match walked(module, arch, at).filter(|_| !(zeros && holds)) {
            None => {}
            Some("extable") if one_exception(module, arch) => {}
            Some("extable") => {
                let needs = "what the kernel sorts as exception table: a relocation of struct module goes over the pointer to it";
                module.said.may_crash("RELOC-GEN-16", needs);
            }
            Some(table) => {
                let why = format!(
                    "a pointer to {} takes the place of {table} in struct module, by which the kernel then walks a table: it crashes",
                    at.symbol
                );
                let finding = Finding::note("RELOC-GEN-16", Severity::Oops, why);
                crashes.push(finding.about(at.subject(module)));
            }
        }
    }
    before
}

/// RELOC-GEN-18: what a relocation that is not refused does to what the kernel follows before init runs: the places of the
/// regions, with their links in the tree of addresses, and lists.
fn over_links(module: &mut Finalizer<'_, '_>, at: &Elsewhere, crashes: &mut Vec<Finding>) {
    let over = |start: u64, size| overlaps((at.offset, at.width), start, size);
    // `struct list_head`: next, by which lists are walked, and prev.
    let next = |path| module.kernel.member("module", path).is_some_and(|list| over(list.offset, POINTER));
    let places = super::areas(module.kernel, module.layout.generation)
        .iter()
        .any(|(_, area)| over(area.offset, area.size));
    let (list, target_list) = (next("list"), next("target_list"));
    let exports = ["__ksymtab", "__ksymtab_gpl"].iter().any(|name| module.info.find_sec(name) != 0);
    if places {
        let needs = "what lies where the kernel then takes the module to be: a relocation of struct module goes over the places of its regions, or over their links in the tree of module addresses";
        module.said.may_crash("RELOC-GEN-18", needs);
    }
    // verify_exported_symbols goes through the list of modules for each export.
    if list && exports {
        let needs = "what the kernel takes for the next module in its list: a relocation of struct module goes over the link to it";
        module.said.may_crash("RELOC-GEN-18", needs);
    }
    // verify_exported_symbols leaves out modules whose state is MODULE_STATE_UNFORMED, as that of this one is.
    if module.kernel.member("module", "state").is_some_and(|state| over(state.offset, state.size)) && exports
    {
        let needs = "what the kernel takes for the state of the module: with another than it had, its own exports are those of another module";
        module.said.unjudged("RELOC-GEN-18", needs);
    }
    let btf = ["btf_data", "btf_data_size", "btf_base_data_size"];
    let mut btf = btf.iter().filter_map(|path| module.kernel.member("module", path));
    if btf.any(|member| over(member.offset, member.size)) {
        let needs = "what the kernel takes for the module's BTF: a relocation of struct module goes over the place of that or its size";
        module.said.may_crash("RELOC-GEN-18", needs);
    }
    if target_list {
        let why = format!(
            "a pointer to {} takes the place of target_list in struct module, the list of modules that it uses: the kernel walks it (add_usage_links) and crashes",
            at.symbol
        );
        let finding = Finding::note("RELOC-GEN-18", Severity::Oops, why);
        crashes.push(finding.about(at.subject(module)));
    }
}

/// Do `width` bytes at an offset, 8 at most, overlap `size` bytes at another? The first may begin before offset 0, which is a
/// large number then.
fn overlaps((offset, width): (u64, u64), start: u64, size: u64) -> bool {
    // As if both began 8 bytes further.
    let (from, start) = (offset.wrapping_add(8), start.saturating_add(8));
    start < from.saturating_add(width) && from < start.saturating_add(size)
}

/// Does a section with bytes lie over another one? Only alignments that are none do that (LAYOUT-14).
fn lies_under_another(module: &Module<'_>, index: usize) -> bool {
    let range = |index: usize| {
        let (place, section) = (module.layout.place(index)?, module.info.sechdrs.get(index)?);
        Some((place.region, place.offset, place.offset.saturating_add(section.sh_size)))
    };
    let Some((region, start, end)) = range(index) else { return false };
    let others = (1..module.info.sechdrs.len()).filter(|other| *other != index);
    others.filter_map(range).any(|(of, from, to)| of == region && from < end && start < to)
}

/// Tables of a module that the kernel walks and follows before init runs.
const WALKED: &[&str] = &[
    "syms",
    "gpl_syms",
    "kp",
    "extable",
    "jump_entries",
    "trace_events",
    "trace_evals",
    "srcu_struct_ptrs",
    "static_call_sites",
];

/// RELOC-GEN-16: the member of `struct module` that a relocation overlaps, if it is where such a table is, or how many
/// records it has. A pointer alone does no harm where the module has no such table.
fn walked(module: &Finalizer<'_, '_>, arch: &dyn Architecture, at: &Elsewhere) -> Option<&'static str> {
    let overlaps = |path: &str| {
        let member = module.kernel.member("module", path);
        member.is_some_and(|m| overlaps((at.offset, at.width), m.offset, m.size))
    };
    let traced = arch.ftrace_callsites(module.info.config);
    let tables = OBJS.iter().filter(|objs| WALKED.contains(&objs.0));
    let tables = tables.map(|(pointer, count, names, _)| (*pointer, *count, names.to_vec()));
    let sites = ("ftrace_callsites", Some("num_ftrace_callsites"), Vec::from([traced]));
    tables.chain([sites]).find_map(|(pointer, count, names)| {
        let exists = names.iter().any(|name| module.info.find_sec(name) != 0);
        count.filter(|count| overlaps(count)).or(Some(pointer).filter(|pointer| exists && overlaps(pointer)))
    })
}

/// A table of one exception is not walked before something faults: `sort_extable` has nothing to swap.
fn one_exception(module: &Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let record = exception_table_entry(module.kernel, arch.extable(module.info.config)).size as u64;
    module.section("__ex_table").is_some_and(|table| table.size < record.saturating_mul(2))
}

/// Writes what the kernel has written by then.
fn written_before(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, table: Table) -> Before {
    let file = module.read(table.address, table.size).unwrap_or_default().to_vec();
    let links = This { module, base: table.address }.before_relocation(arch);
    let written = module.read(table.address, table.size).unwrap_or_default().to_vec();
    Before { file, written, links }
}

/// Does a relocation go beyond its section, and so perhaps into `struct module`?
fn reaches_outside(module: &Module<'_>, arch: &dyn Architecture) -> bool {
    let (file, sechdrs) = (module.info.file, &module.info.sechdrs);
    let tables = sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA);
    let mut tables = tables.filter_map(|(index, s)| Some((index, sechdrs.get(s.sh_info as usize)?)));
    tables.any(|(index, target)| {
        // As few bytes as a relocation may write.
        let last = target.sh_size.checked_sub(4);
        let outside = |rela: Rela| {
            let width = arch.relocation_width(rela.r_type());
            width != 0 && rela.r_offset.checked_add(width).is_none_or(|end| end > target.sh_size)
        };
        let is_moved = target.sh_flags & SHF_ALLOC != 0;
        let offset = |rela: &RawRela| Rela::from(rela).r_offset;
        let records = || file.relocations(index).iter();
        // Nearly all records are well inside: they are not looked at further.
        is_moved
            && records().any(|rela| last.is_none_or(|last| offset(rela) > last.saturating_sub(4)))
            && records().any(|rela| outside(Rela::from(rela)))
    })
}

const BUILT_AGAINST: &str = ": it was built against headers that are not this kernel's";

fn told(why: String) -> Finding {
    let finding = Finding::note("RELOC-GEN-15", Severity::Warning, why);
    finding
        .hint("build it against exactly the headers of this kernel, with its configuration and its compiler")
}

/// The relocations of `struct module` that the kernel's layout does not have.
fn elsewhere(
    module: &Module<'_>,
    arch: &dyn Architecture,
    (index, this): (usize, Table),
    (init, exit): (u64, u64),
) -> Vec<Elsewhere> {
    /// So many are told.
    const MAX: usize = 16;
    let file = module.info.file;
    let tables = module.info.sechdrs.iter().enumerate();
    let tables = tables.filter(|(_, s)| s.sh_type == SHT_RELA && s.sh_info as usize == index);
    let mut found = Vec::new();
    for (section, _) in tables {
        for (entry, rela) in file.relocations(section).iter().enumerate() {
            let rela = Rela::from(rela);
            let symbol = file.symbols().get(rela.r_sym() as usize).map_or(&[][..], |s| file.symbol_name(s));
            let right = match symbol {
                b"init_module" => rela.r_offset == init,
                b"cleanup_module" => rela.r_offset == exit,
                _ => [init, exit].contains(&rela.r_offset),
            };
            if !right && found.len() < MAX {
                found.push(Elsewhere {
                    section: u32::try_from(section).unwrap_or(u32::MAX),
                    entry: u32::try_from(entry).unwrap_or(u32::MAX),
                    offset: offset_in(module, arch, this, this.address.wrapping_add(rela.r_offset)),
                    width: arch.relocation_width(rela.r_type()),
                    symbol: printed(symbol).into_owned(),
                    of: (index, rela.r_offset),
                });
            }
        }
    }
    found
}

/// Where in `struct module` a place lies, for a processor that may ignore a part of addresses (RELOC-GEN-11).
fn offset_in(module: &Module<'_>, arch: &dyn Architecture, this: Table, place: u64) -> u64 {
    let ignored = arch.ignored_of_addresses(module.info.config);
    (place & !ignored | this.address & ignored).wrapping_sub(this.address)
}

/// RELOC-GEN-18: the relocations of other sections that go into `struct module`, at `this`.
fn from_others(module: &Module<'_>, arch: &dyn Architecture, index: usize, this: Table) -> Vec<Elsewhere> {
    /// So many are looked at.
    const MAX: usize = 64;
    let (file, sechdrs) = (module.info.file, &module.info.sechdrs);
    let tables = sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA);
    let mut found = Vec::new();
    for (section, header) in tables {
        let of = header.sh_info as usize;
        let Some(target) = module.table(of).filter(|_| of != index) else { continue };
        for (entry, rela) in file.relocations(section).iter().enumerate() {
            let rela = Rela::from(rela);
            let width = arch.relocation_width(rela.r_type());
            let offset = offset_in(module, arch, this, target.address.wrapping_add(rela.r_offset));
            let overlaps = offset < this.size || offset.wrapping_add(width).wrapping_sub(1) < width;
            if width != 0 && overlaps && found.len() < MAX {
                let symbol =
                    file.symbols().get(rela.r_sym() as usize).map_or(&[][..], |s| file.symbol_name(s));
                found.push(Elsewhere {
                    section: u32::try_from(section).unwrap_or(u32::MAX),
                    entry: u32::try_from(entry).unwrap_or(u32::MAX),
                    offset,
                    width,
                    symbol: printed(symbol).into_owned(),
                    of: (of, rela.r_offset),
                });
            }
        }
    }
    found
}

impl Elsewhere {
    fn subject(&self, module: &Module<'_>) -> Subject {
        Subject::Relocation {
            section: self.section,
            entry: self.entry,
            target: printed(module.info.file.section_name(self.of.0)).into_owned(),
            offset: self.of.1,
        }
    }

    /// What is wrong, and what comes of it.
    fn why(&self, module: &Finalizer<'_, '_>, (init, exit): (u64, u64), holds: bool) -> String {
        let there = match self.offset {
            offset if offset == init => Cow::from("init"),
            offset if offset == exit => Cow::from("exit"),
            offset => member_at(module, offset),
        };
        let (member, own, then) = match &*self.symbol {
            "init_module" => ("init", init, "the kernel finds no init function and calls none"),
            "cleanup_module" => (
                "exit",
                exit,
                "the kernel finds no exit function, and a module with init and no exit stays: rmmod says EBUSY",
            ),
            _ => ("another member", init, "the kernel takes that for its own"),
        };
        let then =
            if holds { "the kernel has written there by then, and relocates only zeros" } else { then };
        let offset = self.offset;
        match member {
            "another member" => {
                format!("a pointer to {} goes to {offset:#x} in struct module, {there}; {then}", self.symbol)
            }
            _ => format!(
                "{member} is at {offset:#x} in its struct module, where this kernel has {there}, and {member} at {own:#x}; {then}"
            ),
        }
    }
}

/// Words for a place in the kernel's `struct module`.
fn member_at(module: &Finalizer<'_, '_>, offset: u64) -> Cow<'static, str> {
    let covers = |path: &&&str| {
        let member = module.kernel.member("module", path);
        member.is_some_and(|m| offset.checked_sub(m.offset).is_some_and(|at| at < m.size))
    };
    MEMBERS.iter().find(covers).map_or(Cow::from("something else"), |path| Cow::from(*path))
}

impl This<'_, '_, '_> {
    /// All that is not zero when `apply_relocations` begins: by `layout_and_allocate`, `add_unformed_module`,
    /// `percpu_modalloc`, `module_unload_init`, `init_param_lock`, `find_module_sections`, `setup_modinfo` and what
    /// taints. Pointers that nobody can know are set to all ones, as no byte of them is sure to be zero. What comes back are
    /// the links that may be missing.
    fn before_relocation(&mut self, arch: &dyn Architecture) -> Vec<Range<u64>> {
        let early: Vec<_> = ANY_OBJS.iter().filter(|objs| FOUND_EARLY.contains(&objs.0)).collect();
        self.module_sections(&early, arch);
        self.memory(arch);
        self.load_so_far();
        self.put("state", UNFORMED);
        for path in ["list", "source_list", "target_list"] {
            self.runtime(path, "a list");
        }
        let unknown: Vec<_> = self.module.record.runtime.drain(..).collect();
        let mut links = Vec::new();
        for state in unknown {
            // Parent, colour and children: only the root has no parent, and it is black, so the first byte is never zero. All
            // others may be.
            let is_node = state.len == LATCH_TREE_NODE;
            let (starts, len): (&[u64], u64) = if is_node { (&[0, RB_NODE], 1) } else { (&[0], state.len) };
            if is_node {
                let node = self.module.placement.address(state.place);
                let at = |offset: u64| node.saturating_add(offset);
                let link = |start: &u64| at(start.saturating_add(len))..at(start.saturating_add(RB_NODE));
                links.extend(starts.iter().map(link));
            }
            for start in starts {
                let mut place = state.place;
                place.offset = place.offset.saturating_add(*start);
                if let Some(bytes) = self.module.module.memory.at_mut(place, len) {
                    bytes.fill(0xff);
                }
            }
        }
        links
    }
}

impl Before {
    /// Leaves of `struct module` what relocation has written; the rest is as in the file again.
    pub fn take_back(&self, module: &mut Module<'_>) {
        let index = module.info.file.index().module;
        let Some(table) = module.table(index) else { return };
        let Some(bytes) = module.table_mut(&table) else { return };
        for ((byte, file), written) in bytes.iter_mut().zip(&self.file).zip(&self.written) {
            if byte == written {
                *byte = *file;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reloc::testing::{DATA, TestKernel, TestModule};

    #[test]
    fn reloc_gen_18_a_relocation_may_begin_before_struct_module() {
        let before = |bytes: u64| 0u64.wrapping_sub(bytes);
        for (offset, start, size, is) in [
            (before(3), 0, 4, true),
            (before(3), 4, 4, true),
            (before(3), 5, 4, false),
            (before(7), 0, 4, true),
            (before(8), 0, 4, false),
            (0, 0, 4, true),
            (4, 0, 4, false),
            (16, 23, 8, true),
            (16, 24, 8, false),
            (u64::MAX >> 1, 0, 8, false),
        ] {
            assert_eq!(overlaps((offset, 8), start, size), is, "RELOC-GEN-18: {offset:#x}, {start} + {size}");
        }
    }

    #[test]
    fn layout_14_and_reloc_gen_15_a_struct_module_under_another_section() {
        const THIS: &str = ".gnu.linkonce.this_module";
        TestModule::x86("6.12.0", &[(THIS, DATA, 64), (".data", DATA, 64)]).run(
            &TestKernel::default(),
            |m| {
                let index = m.info.file.index().module;
                for (size, lies) in [(64, false), (65, true)] {
                    m.module.info.sechdrs[index].sh_size = size;
                    assert_eq!(lies_under_another(m, index), lies, "LAYOUT-14, RELOC-GEN-15: {size} bytes");
                }
            },
        );
    }
}
