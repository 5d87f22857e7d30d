//! One module: linked where it lies, and compared with what lies there.

use std::collections::{BTreeMap, BTreeSet};

use elf_layout::elf::{Rela, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_RELA, SymFields};
use elf_layout::{Findings, Region, SectionPlace, Table};
use finalize::jump_label::{SiteNow, jump_label_now};
use finalize::struct_module;
use kernel::RunningKernel;
use reloc::{Finalizer, LoadFacts, Step};

use super::image::MemoryImage;
use super::modules::{InMemory, LIVE};
use super::report::{Alarm, Change, Kind, hex};
use super::sites::Changers;
use crate::address::Explainer;
#[cfg(feature = "disassemble")]
use crate::disassembly;
use crate::load::{Args, Load, Opened, Stage};
use crate::loader::{Kept, Loader, Place};

/// What comes of comparing a module.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Compared {
    /// Bytes that were compared.
    pub bytes: u64,
    /// Sites that may legally change, judged by what makes them change.
    pub sites: u64,
    /// Pointers to functions that were followed.
    pub pointers: u64,
    /// Legal changes.
    pub changes: Vec<Change>,
    /// Changes that nothing explains.
    pub alarms: Vec<Alarm>,
    /// Pointers that lead to other modules than those that the file names: judged once all modules are known.
    pub led_away: Vec<LedAway>,
    /// What could not be judged.
    pub open: Vec<String>,
    /// Bytes that the dump does not hold.
    pub holes: u64,
    /// The modules that it uses.
    pub depends: BTreeSet<Vec<u8>>,
}

/// A pointer to a function that leads elsewhere than where the file put it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LedAway {
    /// Where it leads.
    pub target: u64,
    /// The alarm that it is, unless something makes it legal.
    pub alarm: Alarm,
}

/// Changed bytes that lie no farther apart than this are one change.
const NEAR: u64 = 4;

/// INT3: the cache of code (execmem) is filled with it, other memory with zeros.
const TRAP: u8 = 0xcc;

/// What is known of the whole while a module is judged.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'s> {
    /// The memory.
    pub image: &'s MemoryImage,
    /// What changes code in legal ways.
    pub changers: &'s Changers,
    /// All modules on the list.
    pub modules: &'s [&'s InMemory],
    /// The kernel's text, start and end.
    pub text: (u64, u64),
    /// The kernel's symbols, by address.
    pub symbols: &'s [(u64, &'s [u8])],
}

impl Surroundings<'_> {
    /// Whose code is at an address? `None` if it is nobody's.
    pub fn code(&self, address: u64) -> Option<Owner<'_>> {
        if (self.text.0..self.text.1).contains(&address) {
            return Some(Owner::Kernel);
        }
        let module = self.modules.iter().find(|module| module.holds_code(address));
        module
            .map(|module| Owner::Module(&module.name))
            .or_else(|| self.changers.owner(address).map(Owner::Other))
    }

    /// What an address is, in words.
    pub fn words(&self, address: u64) -> String {
        match self.code(address) {
            Some(Owner::Kernel) => {
                let after = self.symbols.partition_point(|(at, _)| *at <= address);
                match after.checked_sub(1).and_then(|n| self.symbols.get(n)) {
                    Some((at, name)) => match address.wrapping_sub(*at) {
                        0 => String::from_utf8_lossy(name).into_owned(),
                        offset => format!("{}+{offset:#x}", String::from_utf8_lossy(name)),
                    },
                    None => "the kernel".into(),
                }
            }
            Some(Owner::Module(name)) => format!("code of the module {}", String::from_utf8_lossy(name)),
            Some(Owner::Other(what)) => what.into(),
            None if self.image.is_executable(address) == Some(true) => {
                "executable memory that is nobody's".into()
            }
            None => "no code".into(),
        }
    }
}

/// Whose code something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'o> {
    /// The kernel's.
    Kernel,
    /// A module's.
    Module(&'o [u8]),
    /// The tracer's, that of kprobes, of BPF.
    Other(&'static str),
}

/// Links a module where it lies. Where its init memory was is found by what still points there.
pub fn compare(
    loader: &Loader,
    opened: &Opened<'_>,
    module: &InMemory,
    around: &Surroundings<'_>,
) -> (Compared, Option<Kept>) {
    let args = Args { stage: Stage::Final, choices: true, params: None, ..Args::default() };
    let mut given: Vec<(Region, u64)> =
        module.regions.iter().map(|(region, base, _)| (*region, *base)).collect();
    let first = loader.load(opened, &args, &Place::Regions(given.clone()), module.percpu);
    let (Some(load), _) = first.whatever_it_says() else {
        return (Compared::open("its file cannot be laid out in memory"), None);
    };
    for (region, base) in init_bases(&load, module, around.image) {
        if module.base(region).is_none() {
            given.push((region, base));
        }
    }
    drop(load);
    let (load, said) = loader.load(opened, &args, &Place::Regions(given), module.percpu).whatever_it_says();
    let Some(mut load) = load else { return (Compared::open("its file cannot be laid out in memory"), None) };
    let mut out = Compared::default();
    if said.refused() {
        let why: Vec<String> = said.iter().filter(|f| f.stops_here).map(|f| f.code.to_string()).collect();
        out.open.push(format!(
            "this kernel would refuse its file ({}): it is not what was loaded",
            why.join(", ")
        ));
        return (out, None);
    }
    let missing: Vec<String> = load.record.unknown.clone();
    out.open.extend(missing.into_iter().filter(|what| !is_data_only(what)));
    out.depends = load.resolution.depends.iter().map(|name| name.to_vec()).collect();
    let fits = load.module.segments().filter(|s| !s.region.is_init()).all(|segment| {
        let there = module.regions.iter().find(|(region, ..)| *region == segment.region);
        there.is_some_and(|(_, _, size)| *size >= load.module.layout.sizes.get(segment.region))
    });
    if !fits {
        out.open.push("its regions in memory are smaller than its file needs: this is not its file".into());
        return (out, None);
    }
    let kept = loader.keep(&load);
    Judge { load: &mut load, memory: module, around, out: &mut out, raw: Vec::new() }.judge();
    (out, Some(kept))
}

/// Steps that only fill data that is not compared.
fn is_data_only(what: &str) -> bool {
    what.starts_with("what a parameter") || what.starts_with("state of the static key")
}

impl Compared {
    fn open(why: &str) -> Self {
        Compared { open: vec![why.into()], ..Compared::default() }
    }
}

/// Tables that are sorted: what a relocation wrote is elsewhere by now.
const SORTED: [&[u8]; 6] = [
    b"__ex_table",
    b"__mcount_loc",
    b"__patchable_function_entries",
    b"__jump_table",
    b".static_call_sites",
    b".orc_unwind_ip",
];

/// Where init memory was, by what in the memory that stays still leads there.
fn init_bases(load: &Load<'_>, memory: &InMemory, image: &MemoryImage) -> Vec<(Region, u64)> {
    let module = &load.module;
    let mut found = Vec::new();
    let by_init = module.init().filter(|_| memory.init != 0).and_then(|init| {
        let place = module.place_of(init)?;
        place.region.is_init().then(|| (place.region, memory.init.wrapping_sub(place.offset)))
    });
    found.extend(by_init);
    let mut votes: BTreeMap<(Region, u64), usize> = BTreeMap::new();
    let info = &module.info;
    for (index, section) in info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
        let target = section.sh_info as usize;
        let (Some(place), Some(header)) = (module.layout.place(target), info.sechdrs.get(target)) else {
            continue;
        };
        let name = info.file.section_name(target);
        if place.region.is_init() || header.sh_flags & SHF_EXECINSTR != 0 || SORTED.contains(&name) {
            continue;
        }
        for rela in info.file.relocations(index).iter().map(Rela::from) {
            let symbol = info.file.symbols().get(rela.r_sym() as usize);
            let of = symbol.and_then(|s| module.layout.place(usize::from(s.shndx())));
            let Some(of) = of.filter(|of| of.region.is_init()) else { continue };
            let at = header.sh_addr.wrapping_add(rela.r_offset);
            let width = load.arch.relocation_width(rela.r_type());
            let predicted = match width {
                4 => module.u32(at).map(u64::from),
                8 => module.u64(at),
                _ => continue,
            };
            let Some((predicted, there)) = predicted.zip(image.number(at, width)) else { continue };
            let distance = there.wrapping_sub(predicted);
            let distance = if width == 4 { i64::from(distance as u32 as i32) as u64 } else { distance };
            let base = load.bases().get(of.region).wrapping_add(distance);
            if base.is_multiple_of(module.layout.page_size) {
                let count = votes.entry((of.region, base)).or_insert(0);
                *count = count.saturating_add(1);
            }
        }
    }
    for region in module.layout.regions().filter(|region| region.is_init()) {
        if found.iter().any(|(known, _)| *known == region) {
            continue;
        }
        let of_region = votes.iter().filter(|((of, _), _)| *of == region);
        if let Some(((_, base), _)) = of_region.max_by_key(|(_, count)| **count) {
            found.push((region, *base));
        }
    }
    found
}

/// A region as memory has it.
struct Live {
    bytes: Vec<u8>,
    /// Offsets from and to between which the dump has nothing.
    holes: Vec<(u64, u64)>,
}

impl Live {
    fn read(image: &MemoryImage, base: u64, size: u64, page: u64) -> Live {
        if let Some(bytes) = image.bytes(base, size) {
            return Live { bytes, holes: Vec::new() };
        }
        let mut live = Live { bytes: Vec::new(), holes: Vec::new() };
        let mut at = 0u64;
        while at < size {
            let len = page.min(size.saturating_sub(at));
            match image.bytes(base.wrapping_add(at), len) {
                Some(bytes) => live.bytes.extend(bytes),
                None => {
                    live.bytes.resize(live.bytes.len().saturating_add(len as usize), 0);
                    live.holes.push((at, at.saturating_add(len)));
                }
            }
            at = at.saturating_add(len);
        }
        live
    }

    fn at(&self, place: SectionPlace, len: u64) -> Option<&[u8]> {
        elf_layout::bytes::slice(&self.bytes, place.offset, len)
    }

    fn is_hole(&self, offset: u64) -> bool {
        self.holes.iter().any(|(from, to)| (*from..*to).contains(&offset))
    }
}

/// How a section is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Code, byte for byte and by its sites.
    Code,
    /// Read-only data, byte for byte.
    Rodata,
    /// Variables: only pointers to functions are followed.
    Data,
}

struct Judge<'j, 'l, 'd> {
    load: &'j mut Load<'d>,
    memory: &'l InMemory,
    around: &'j Surroundings<'l>,
    out: &'j mut Compared,
    /// Alarms that have no words yet.
    raw: Vec<Raw>,
}

/// An alarm without its words.
struct Raw {
    kind: Kind,
    address: u64,
    want: Vec<u8>,
    found: Vec<u8>,
    legal: Vec<String>,
    message: Option<String>,
    /// A pointer to another module, and where it leads.
    away: Option<u64>,
}

/// Sites of a module's code, by address.
#[derive(Default)]
struct Sites {
    /// Address of the call: bytes, and the address that the tracer's record has.
    traced: BTreeMap<u64, (u64, u64)>,
    /// Pointers to the tracer's operations in code.
    ops: BTreeSet<u64>,
    jumps: BTreeMap<u64, SiteNow>,
    /// Other sites with more than one legal state: bytes that may stand there.
    others: BTreeMap<u64, (Step, Vec<Vec<u8>>)>,
    static_calls: BTreeMap<u64, u64>,
}

impl Judge<'_, '_, '_> {
    fn judge(mut self) {
        let live = self.read_live();
        let before = self.data_before();
        self.overlay(&live);
        let sites = self.sites();
        self.out.sites = self
            .out
            .sites
            .saturating_add(sites.traced.len() as u64)
            .saturating_add(sites.jumps.len() as u64)
            .saturating_add(sites.static_calls.len() as u64)
            .saturating_add(sites.others.len() as u64);
        for index in 1..self.load.module.info.sechdrs.len() {
            let Some(class) = self.class(index) else { continue };
            let Some(table) = self.load.module.table(index).filter(|table| table.size != 0) else { continue };
            match class {
                Class::Code | Class::Rodata => self.exact(&table, class, &live, &sites),
                Class::Data => {}
            }
        }
        self.padding(&live);
        self.pointers(&before, &live);
        self.struct_module(&before, &live);
        self.static_targets(&sites);
        self.tell();
    }

    /// Finds words for the alarms.
    fn tell(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        if raw.is_empty() {
            return;
        }
        let explainer = Explainer::new(self.load);
        for raw in raw {
            let away = raw.away;
            let alarm = self.worded(&explainer, raw);
            match away {
                Some(target) => self.out.led_away.push(LedAway { target, alarm }),
                None => self.out.alarms.push(alarm),
            }
        }
    }

    fn read_live(&mut self) -> BTreeMap<Region, Live> {
        let page = self.load.module.layout.page_size;
        let mut all = BTreeMap::new();
        let segments: Vec<_> = self.load.module.segments().filter(|s| !s.region.is_init()).collect();
        for segment in segments {
            let live = Live::read(self.around.image, segment.base, segment.size, page);
            let lost: u64 = live.holes.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
            self.out.holes = self.out.holes.saturating_add(lost);
            all.insert(segment.region, live);
        }
        all
    }

    /// What a section is; `None` if it is not in memory that stays.
    fn class(&self, index: usize) -> Option<Class> {
        let module = &self.load.module;
        let (section, place) = (module.info.sechdrs.get(index)?, module.layout.place(index)?);
        if section.sh_flags & SHF_ALLOC == 0
            || place.region.is_init()
            || index == module.info.file.index().pcpu
        {
            return None;
        }
        if section.sh_flags & SHF_EXECINSTR != 0 {
            return Some(Class::Code);
        }
        let table = |name: &[u8]| name == b"__jump_table" || name == b".static_call_sites";
        // Symbol tables are kept beside variables, and `struct module` is judged member by member.
        let tables = [module.info.file.index().sym, module.info.file.index().str];
        if tables.contains(&index) {
            return Some(Class::Data);
        }
        let fixed = section.sh_flags & SHF_WRITE == 0 || table(module.info.file.section_name(index));
        Some(if fixed { Class::Rodata } else { Class::Data })
    }

    /// Variables as the load left them.
    fn data_before(&self) -> BTreeMap<Region, Vec<u8>> {
        let module = &self.load.module;
        let kept = module.layout.regions().filter(|region| !region.is_init());
        kept.map(|region| (region, module.memory.region(region).to_vec())).collect()
    }

    /// Variables as they are now: keys of jump labels and static calls tell by them what their sites have to be.
    fn overlay(&mut self, live: &BTreeMap<Region, Live>) {
        for index in 1..self.load.module.info.sechdrs.len() {
            if self.class(index) != Some(Class::Data) {
                continue;
            }
            let Some(table) = self.load.module.table(index) else { continue };
            let now = live.get(&table.place.region).and_then(|live| live.at(table.place, table.size));
            if let (Some(target), Some(now)) = (self.load.module.table_mut(&table), now) {
                target.copy_from_slice(now);
            }
        }
    }

    /// Brings every site to the state that its key has now, and lists what may change.
    fn sites(&mut self) -> Sites {
        let mut said = Findings::new();
        let load = &mut *self.load;
        let arch = load.arch;
        let patches_before = load.record.patches.len();
        let facts = LoadFacts {
            mod_arch: &load.mod_arch,
            taints: load.resolution.taints.module_mask(),
            using_gplonly_symbols: load.resolution.using_gplonly_symbols,
            sig_ok: true,
        };
        let mut now = Finalizer {
            module: &mut load.module,
            load: facts,
            kernel: load.kernel,
            record: &mut load.record,
            said: &mut said,
            choices: true,
            verdict_only: false,
        };
        let jumps = jump_label_now(&mut now, arch);
        let table = now.section(".static_call_sites");
        let entries = table.and_then(|table| now.read(table.address, table.size).map(<[u8]>::to_vec));
        arch.static_calls(&mut now);
        arch.static_call_trampolines(&mut now);
        if let Some((table, entries)) = table.zip(entries)
            && let Some(bytes) = now.table_mut(&table)
        {
            bytes.copy_from_slice(&entries);
        }
        let config = now.info.config;
        let mut sites = Sites::default();
        if config.dynamic_ftrace {
            let listed = now.section(arch.ftrace_callsites(config));
            let records = listed.iter().flat_map(|table| table.records(8));
            let listed: Vec<u64> = records.filter_map(|at| now.u64(at)).filter(|site| *site != 0).collect();
            for site in
                listed.into_iter().filter(|site| now.within_module(*site) && !now.within_module_init(*site))
            {
                if let Some((call, len)) = arch.ftrace_call_site(&now, site) {
                    // The tracer's records have the address that is patched, or that of the listed site.
                    sites.traced.insert(call, (len, site));
                }
                sites.ops.extend(arch.ftrace_ops_pointer(config, site));
            }
        }
        sites.jumps = jumps.into_iter().map(|site| (site.code, site)).collect();
        let module = &self.load.module;
        let address = |place| module.placement.address(place);
        let stays = |place: &SectionPlace| !place.region.is_init();
        for choice in self.load.record.choices.iter().filter(|choice| stays(&choice.place)) {
            let at = address(choice.place);
            match choice.step {
                Step::StaticCall if choice.detail == 0 => {
                    sites.others.insert(at, (choice.step, choice.may.clone()));
                }
                Step::StaticCall => drop(sites.static_calls.insert(at, choice.detail)),
                Step::JumpLabel => {
                    if sites.jumps.get(&at).is_some_and(|site| site.either) {
                        sites.others.insert(at, (choice.step, choice.may.clone()));
                    }
                }
                // How many CPUs there are changes these; all others follow from what the machine was at boot.
                Step::SmpLock => drop(sites.others.insert(at, (choice.step, choice.may.clone()))),
                step => {
                    if !self.out.open.is_empty() {
                        sites.others.insert(at, (step, choice.may.clone()));
                    }
                }
            }
        }
        let mut changed = Vec::new();
        for patch in self.load.record.patches.iter().skip(patches_before).filter(|patch| stays(&patch.place))
        {
            if matches!(patch.step, Step::JumpLabel | Step::StaticCall) {
                let kind = if patch.step == Step::JumpLabel { "jump label" } else { "static call" };
                changed.push((address(patch.place), patch.len, kind, patch.detail));
            }
        }
        for (at, size, what, detail) in changed {
            let why = if what == "jump label" {
                format!("its key at {detail:#x} has changed")
            } else {
                format!("its key calls {}", self.around.words(detail))
            };
            self.change(at, size, what, why);
        }
        sites
    }

    fn change(&mut self, address: u64, size: u64, what: &'static str, why: String) {
        self.out.changes.push(Change { address, size, what, why });
    }

    /// Bytes of a section that are not predicted, as offsets in its region; `left_out` are addresses whose relocations are not
    /// known.
    fn not_predicted(&self, table: &Table, left_out: &[u64]) -> Vec<(u64, u64)> {
        let inside = |place: SectionPlace| {
            place.region == table.place.region && place.offset.wrapping_sub(table.place.offset) < table.size
        };
        let runtime = self.load.record.runtime.iter().filter(|r| inside(r.place));
        let mut all: Vec<(u64, u64)> =
            runtime.map(|r| (r.place.offset, r.place.offset.saturating_add(r.len))).collect();
        let base = self.load.bases().get(table.place.region);
        all.extend(left_out.iter().map(|at| {
            let offset = at.wrapping_sub(base);
            (offset, offset.saturating_add(8))
        }));
        all
    }

    /// Compares a section byte for byte, but for sites in a legal state.
    fn exact(&mut self, table: &Table, class: Class, live: &BTreeMap<Region, Live>, sites: &Sites) {
        let Some(live) = live.get(&table.place.region) else { return };
        let Some(found) = live.at(table.place, table.size) else { return };
        let Some(want) = self.load.module.read(table.address, table.size) else { return };
        let is_as_predicted = want == found;
        let left_out = self.load.module.left_out(table.index);
        if !left_out.is_empty() {
            self.out.open.push(format!(
                "relocations in {}, whose symbols are not known",
                String::from_utf8_lossy(self.load.module.info.file.section_name(table.index))
            ));
        }
        self.out.bytes = self.out.bytes.saturating_add(table.size);
        if is_as_predicted {
            return;
        }
        let (want, found) = (want.to_vec(), found.to_vec());
        let skipped = self.not_predicted(table, &left_out);
        let mut differs = Vec::new();
        for (n, (a, b)) in (0u64..).zip(want.iter().zip(&found)) {
            if a != b {
                let offset = table.place.offset.wrapping_add(n);
                let skip =
                    skipped.iter().any(|(from, to)| (*from..*to).contains(&offset)) || live.is_hole(offset);
                if !skip {
                    differs.push(table.address.wrapping_add(n));
                }
            }
        }
        let whole = |from: u64, len: u64, of: &[u8]| -> Option<Vec<u8>> {
            elf_layout::bytes::slice(of, from.checked_sub(table.address)?, len).map(<[u8]>::to_vec)
        };
        let mut at = 0usize;
        while let Some(&address) = differs.get(at) {
            let judged = if class == Class::Code {
                self.site(
                    address,
                    &|from, len| Some((whole(from, len, &want)?, whole(from, len, &found)?)),
                    sites,
                )
            } else {
                None
            };
            let (from, len, verdict) = judged.unwrap_or_else(|| {
                let rest = differs.get(at..).unwrap_or_default();
                let mut end = address;
                for next in rest {
                    let is_site = class == Class::Code && self.covering(*next, sites).is_some();
                    if next.wrapping_sub(end) > NEAR || is_site {
                        break;
                    }
                    end = *next;
                }
                let kind = if class == Class::Code { Kind::Code } else { Kind::Rodata };
                (address, end.wrapping_sub(address).wrapping_add(1), Verdict::Alarm(kind, Vec::new()))
            });
            let end = from.wrapping_add(len.max(1));
            match verdict {
                Verdict::Legal(what, why) => self.change(from, len, what, why),
                Verdict::Alarm(kind, legal) => {
                    let (want, found) = (whole(from, len, &want), whole(from, len, &found));
                    let (want, found) = (want.unwrap_or_default(), found.unwrap_or_default());
                    self.alarm(kind, from, want, found, legal);
                }
            }
            while differs.get(at).is_some_and(|next| *next < end) {
                at = at.saturating_add(1);
            }
        }
    }

    /// The site that an address is in: its start and length.
    fn covering(&self, address: u64, sites: &Sites) -> Option<(u64, u64)> {
        fn covers<T>(map: &BTreeMap<u64, T>, address: u64, len: impl Fn(&T) -> u64) -> Option<(u64, u64)> {
            let (start, what) = map.range(..=address).next_back()?;
            let len = len(what);
            (address.wrapping_sub(*start) < len).then_some((*start, len))
        }
        covers(&sites.traced, address, |site| site.0)
            .or_else(|| covers(&sites.jumps, address, |site| site.len))
            .or_else(|| covers(&sites.others, address, |(_, may)| may.first().map_or(0, Vec::len) as u64))
            .or_else(|| covers(&sites.static_calls, address, |_| 5))
            .or_else(|| {
                let ops = sites.ops.range(..=address).next_back()?;
                (address.wrapping_sub(*ops) < 8).then_some((*ops, 8))
            })
            .or_else(|| {
                let (start, probe) = self.around.changers.kprobes.range(..=address).next_back()?;
                let len = if probe.jumps_to.is_some() { 5 } else { self.load.arch.breakpoint().len() as u64 };
                (address.wrapping_sub(*start) < len).then_some((*start, len))
            })
    }

    /// Judges the site that an address lies in; `None` if it lies in none.
    #[allow(clippy::type_complexity)]
    fn site(
        &self,
        address: u64,
        bytes: &dyn Fn(u64, u64) -> Option<(Vec<u8>, Vec<u8>)>,
        sites: &Sites,
    ) -> Option<(u64, u64, Verdict)> {
        let arch = self.load.arch;
        let changers = self.around.changers;
        // A kprobe lies over whatever is there.
        let probe = changers.kprobes.range(..=address).next_back();
        if let Some((start, probe)) = probe {
            let breakpoint = arch.breakpoint();
            let len = breakpoint.len() as u64;
            if address.wrapping_sub(*start) < len {
                let (want, found) = bytes(*start, len)?;
                if found == breakpoint {
                    let saved = probe.opcode.get(..want.len()) == Some(&want[..]);
                    let verdict = if saved {
                        Verdict::Legal("kprobe", "a kprobe is on".into())
                    } else {
                        Verdict::Alarm(Kind::Kprobe, vec![hex(&want)])
                    };
                    return Some((*start, len, verdict));
                }
            }
            if let Some(target) = probe.jumps_to.filter(|_| address.wrapping_sub(*start) < 5) {
                let (_, found) = bytes(*start, 5)?;
                if arch.jump_target(&found, *start) == Some(target) {
                    return Some((*start, 5, Verdict::Legal("kprobe", "an optimised kprobe is on".into())));
                }
            }
        }
        let (start, len) = self.covering(address, sites)?;
        let (want, found) = bytes(start, len)?;
        if let Some((_, listed)) = sites.traced.get(&start) {
            let on = |at: &u64| changers.is_traced(*at);
            let site = [start, *listed].into_iter().find(on).unwrap_or(start);
            let through_plt = |target: u64| self.plt_of_tracer(target);
            let legal = arch.call_target(&found, start).is_some_and(|target| {
                changers.explains_call(site, target) || (changers.is_traced(site) && through_plt(target))
            });
            if legal {
                let target = arch.call_target(&found, start).unwrap_or(0);
                let whom = changers.owner(target).unwrap_or("the function tracer");
                return Some((start, len, Verdict::Legal("ftrace", format!("it is traced: calls {whom}"))));
            }
            let mut may = vec![hex(&want)];
            if changers.is_traced(site) {
                may.push("a call of the function tracer".into());
            }
            return Some((start, len, Verdict::Alarm(Kind::Ftrace, may)));
        }
        if sites.ops.contains(&start) {
            let ops = <[u8; 8]>::try_from(&found[..]).map(u64::from_le_bytes).unwrap_or(0);
            let known = changers.ops.iter().any(|known| known.address == ops)
                || self.load.kernel.symbol("ftrace_list_ops") == Some(ops);
            let verdict = if known {
                Verdict::Legal("ftrace", "it names the operations that trace it".into())
            } else {
                Verdict::Alarm(Kind::Ftrace, vec![hex(&want)])
            };
            return Some((start, len, verdict));
        }
        if let Some((step, may)) = sites.others.get(&start) {
            let verdict = if may.contains(&found) {
                Verdict::Legal(step.name(), "one of its legal states".into())
            } else {
                let kind = if *step == Step::SmpLock { Kind::SmpLock } else { Kind::Code };
                Verdict::Alarm(kind, may.iter().map(|bytes| hex(bytes)).collect())
            };
            return Some((start, len, verdict));
        }
        if sites.jumps.contains_key(&start) {
            return Some((start, len, Verdict::Alarm(Kind::JumpLabel, vec![hex(&want)])));
        }
        if sites.static_calls.contains_key(&start) {
            return Some((start, len, Verdict::Alarm(Kind::StaticCall, vec![hex(&want)])));
        }
        None
    }

    /// Is it a slot of the module through which the tracer is called? What is in the slot is compared byte for byte.
    fn plt_of_tracer(&self, target: u64) -> bool {
        let tables = [".text.ftrace_trampoline", ".init.text.ftrace_trampoline"];
        let slots = tables.iter().filter_map(|name| self.load.module.first_section(name));
        slots.into_iter().any(|table| target.wrapping_sub(table.address) < table.size)
    }

    /// What lies between sections of code and read-only data, and behind the last: it has to be all zeros, or all of what the
    /// kernel fills free code with.
    fn padding(&mut self, live: &BTreeMap<Region, Live>) {
        let module = &self.load.module;
        let mut alarms = Vec::new();
        // Up to 6.3 one region holds code, read-only data and variables: what follows variables may change.
        let looked_at = |region| matches!(region, Region::Text | Region::Rodata | Region::Core);
        for segment in module.segments().filter(|s| looked_at(s.region)) {
            let Some(live) = live.get(&segment.region) else { continue };
            let mut taken: Vec<(u64, u64, bool)> = (1..module.info.sechdrs.len())
                .filter_map(|index| module.table(index))
                .filter(|table| table.place.region == segment.region)
                .map(|table| {
                    let stays = matches!(self.class(table.index), Some(Class::Code | Class::Rodata));
                    (table.place.offset, table.place.offset.saturating_add(table.size), stays)
                })
                .collect();
            taken.sort_unstable();
            let (mut at, mut follows_fixed) = (0u64, true);
            for (from, to, stays) in taken.into_iter().chain([(segment.size, segment.size, false)]) {
                if let Some(gap) = from.checked_sub(at).filter(|gap| *gap != 0 && follows_fixed) {
                    let place = SectionPlace { region: segment.region, offset: at };
                    let bytes = live.at(place, gap).unwrap_or_default();
                    let filled = |with: u8| bytes.iter().filter(|byte| **byte == with).count();
                    let fill = if filled(TRAP) > filled(0) { TRAP } else { 0 };
                    self.out.bytes = self.out.bytes.saturating_add(gap);
                    let mut differs =
                        (at..).zip(bytes).filter(|(offset, byte)| **byte != fill && !live.is_hole(*offset));
                    let mut next = differs.next();
                    while let Some((start, _)) = next {
                        let mut end = start;
                        next = differs.find(|(offset, _)| {
                            let apart = offset.wrapping_sub(end) > NEAR;
                            end = if apart { end } else { *offset };
                            apart
                        });
                        let len = end.wrapping_sub(start).wrapping_add(1);
                        let found = elf_layout::bytes::slice(bytes, start.wrapping_sub(at), len);
                        let found = found.unwrap_or_default().to_vec();
                        alarms.push((segment.base.wrapping_add(start), vec![fill; found.len()], found));
                    }
                }
                at = at.max(to);
                follows_fixed = stays;
            }
        }
        for (address, want, found) in alarms {
            self.alarm(Kind::Padding, address, want, found, Vec::new());
        }
    }

    /// Pointers to functions that the file puts into variables: where do they lead now?
    fn pointers(&mut self, before: &BTreeMap<Region, Vec<u8>>, live: &BTreeMap<Region, Live>) {
        let mut led = Vec::new();
        let mut followed = 0u64;
        {
            let module = &self.load.module;
            let info = &module.info;
            for (index, section) in info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
                let target = section.sh_info as usize;
                if self.class(target) != Some(Class::Data) {
                    continue;
                }
                let Some(table) = module.table(target) else { continue };
                let region = table.place.region;
                let (Some(before), Some(live)) = (before.get(&region), live.get(&region)) else { continue };
                for rela in info.file.relocations(index).iter().map(Rela::from) {
                    if self.load.arch.relocation_width(rela.r_type()) != 8 {
                        continue;
                    }
                    let Some(offset) = table.place.offset.checked_add(rela.r_offset) else { continue };
                    let was = elf_layout::bytes::le64(before, offset);
                    let now = elf_layout::bytes::le64(&live.bytes, offset);
                    let Some((was, now)) = was.zip(now).filter(|_| !live.is_hole(offset)) else { continue };
                    if self.around.code(was).is_none() {
                        continue;
                    }
                    followed = followed.saturating_add(1);
                    if now != was && now != 0 {
                        led.push((table.address.wrapping_add(rela.r_offset), was, now));
                    }
                }
            }
        }
        self.out.pointers = followed;
        let own = self.memory.name.clone();
        for (address, was, now) in led {
            let words = self.around.words(now);
            let (legal, away) = match self.around.code(now) {
                Some(Owner::Kernel | Owner::Other(_)) => (true, false),
                Some(Owner::Module(name)) => (name == own, true),
                None => (self.around.image.is_executable(now) != Some(true), false),
            };
            if legal {
                self.change(address, 8, "function pointer", format!("it leads to {words}"));
                continue;
            }
            self.raw.push(Raw {
                kind: Kind::FunctionPointer,
                address,
                want: was.to_le_bytes().to_vec(),
                found: now.to_le_bytes().to_vec(),
                legal: Vec::new(),
                message: None,
                away: away.then_some(now),
            });
        }
    }

    /// The functions that static calls lead to have to be functions.
    fn static_targets(&mut self, sites: &Sites) {
        let mut bad = Vec::new();
        for at in sites.static_calls.keys() {
            let code = self.load.module.read(*at, 5);
            let arch = self.load.arch;
            let target =
                code.and_then(|code| arch.call_target(code, *at).or_else(|| arch.jump_target(code, *at)));
            if let Some(target) = target.filter(|target| self.around.code(*target).is_none()) {
                bad.push((*at, target));
            }
        }
        for (at, target) in bad {
            let found = self.around.image.bytes(at, 5).unwrap_or_default();
            let message = Some(format!("its key calls {target:#x}, which is nobody's function"));
            let want = found.clone();
            self.raw.push(Raw {
                kind: Kind::StaticCall,
                address: at,
                want,
                found,
                legal: Vec::new(),
                message,
                away: None,
            });
        }
    }

    /// Members of `struct module` that do not change after init.
    fn struct_module(&mut self, before: &BTreeMap<Region, Vec<u8>>, live: &BTreeMap<Region, Live>) {
        if self.memory.state != LIVE {
            return;
        }
        let fixed = |path: &str| {
            !matches!(
                path,
                "state"
                    | "list"
                    | "mkobj"
                    | "mem"
                    | "core_layout"
                    | "init_layout"
                    | "kallsyms"
                    | "extable"
                    | "num_exentries"
                    | "taints"
                    | "refcnt"
                    | "async_probe_requested"
                    | "source_list"
                    | "target_list"
                    | "sig_ok"
                    | "using_gplonly_symbols"
                    | "klp"
                    | "klp_alive"
                    | "klp_info"
                    | "args"
                    | "kprobes_text_start"
            ) && !path.starts_with("btf_")
                && !path.contains("init")
                && !path.starts_with("param_lock")
                && !path.starts_with("kunit")
                && !path.starts_with("its_")
                && !path.ends_with("_attrs")
                && !path.starts_with("trace_")
                && !path.starts_with("num_trace")
                && !path.starts_with("dyndbg")
        };
        let module = &self.load.module;
        let mut wrong = Vec::new();
        for patch in self.load.record.patches.iter().filter(|patch| patch.step == Step::StructModule) {
            let path = usize::try_from(patch.detail).ok().and_then(|n| struct_module::MEMBERS.get(n));
            let Some(path) = path.filter(|path| fixed(path)) else { continue };
            let found = live.get(&patch.place.region).and_then(|live| live.at(patch.place, patch.len));
            let address = module.placement.address(patch.place);
            let want = before
                .get(&patch.place.region)
                .and_then(|bytes| elf_layout::bytes::slice(bytes, patch.place.offset, patch.len));
            let (Some(found), Some(want)) = (found.map(<[u8]>::to_vec), want.map(<[u8]>::to_vec)) else {
                continue;
            };
            if found != want {
                wrong.push((address, want, found, (*path).to_owned()));
            }
        }
        for (address, want, found, path) in wrong {
            let message = Some(format!("struct module: {path} is not what the file makes it"));
            self.raw.push(Raw {
                kind: Kind::StructModule,
                address,
                want,
                found,
                legal: Vec::new(),
                message,
                away: None,
            });
        }
    }

    fn alarm(&mut self, kind: Kind, address: u64, want: Vec<u8>, found: Vec<u8>, legal: Vec<String>) {
        self.raw.push(Raw { kind, address, want, found, legal, message: None, away: None });
    }

    fn worded(&self, explainer: &Explainer<'_, '_>, raw: Raw) -> Alarm {
        let Raw { kind, address, want, found, legal, message, .. } = raw;
        let section = explainer.section(address);
        let file = self.load.module.info.file;
        let arch = self.load.arch;
        let target = match kind {
            Kind::FunctionPointer => <[u8; 8]>::try_from(&found[..]).ok().map(u64::from_le_bytes),
            _ => {
                // The instruction may have begun before the byte that differs.
                let code = |at: u64| {
                    let code = self.around.image.bytes(at, 5)?;
                    arch.call_target(&code, at).or_else(|| arch.jump_target(&code, at))
                };
                (kind.is_code()).then(|| code(address)).flatten()
            }
        };
        let (expected_code, found_code) = match kind.is_code() {
            true => self.disassembled(explainer, address, want.len() as u64),
            false => (None, None),
        };
        Alarm {
            kind,
            module: Some(file.name_text().into_owned()),
            address,
            size: found.len() as u64,
            symbol: explainer.symbol(address),
            section: section.map(|index| String::from_utf8_lossy(file.section_name(index)).into_owned()),
            expected: want,
            found,
            expected_code,
            found_code,
            leads_to: target.map(|target| (target, self.around.words(target))),
            legal,
            message: message.unwrap_or_else(|| kind.message().into()),
        }
    }

    #[cfg(not(feature = "disassemble"))]
    fn disassembled(&self, _: &Explainer<'_, '_>, _: u64, _: u64) -> (Option<String>, Option<String>) {
        (None, None)
    }

    /// The instructions that lie over a range, as they are predicted and as they are.
    #[cfg(feature = "disassemble")]
    fn disassembled(
        &self,
        explainer: &Explainer<'_, '_>,
        address: u64,
        len: u64,
    ) -> (Option<String>, Option<String>) {
        /// Functions are decoded from their start, if it is not farther away.
        const FAR: u64 = 1 << 16;
        let start = explainer.symbol_start(address).filter(|start| address.wrapping_sub(*start) < FAR);
        let start = start.unwrap_or(address);
        let all = address.wrapping_sub(start).saturating_add(len).saturating_add(16);
        let want = self.load.module.place_of(start).and_then(|place| {
            let left = self.load.module.memory.region(place.region).len() as u64;
            let len = all.min(left.saturating_sub(place.offset));
            self.load.module.read(start, len).map(<[u8]>::to_vec)
        });
        let Some(want) = want else { return (None, None) };
        let found = self.around.image.bytes(start, want.len() as u64);
        let arch = self.load.arch;
        // Where instructions begin is told by the code that is expected.
        let at = disassembly::holding(arch, &want, start, address).map_or(address, |place| place.address);
        let end = address.wrapping_add(len);
        let words = |bytes: &[u8]| {
            let code = bytes.get(usize::try_from(at.wrapping_sub(start)).ok()?..)?;
            let instructions = disassembly::instructions(arch, code, at);
            let texts: Vec<String> =
                instructions.take_while(|(here, _)| *here < end).take(8).map(|(_, text)| text).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        };
        (words(&want), found.and_then(|found| words(&found)))
    }
}

/// How a site was judged.
enum Verdict {
    /// A legal change: what, and why.
    Legal(&'static str, String),
    /// None, with what would be legal.
    Alarm(Kind, Vec<String>),
}
