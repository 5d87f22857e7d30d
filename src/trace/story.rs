//! One load, from what a [`Recorder`] has seen of it and what stays when it is over.

use std::borrow::Cow;
use std::collections::BTreeMap;

use elf_layout::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_RO_AFTER_INIT, SHF_WRITE, SHT_NULL, Shdr};
use elf_layout::params::params;
use elf_layout::{Findings, Layout, ModuleFile};
use finalize::parse_args::tokens::{next_arg, skip_spaces};
use kernel::{Init, Kernel, Taint};
use object::elf;

use crate::address::Explainer;
use crate::disassembly;
use crate::document::{FindingEntry, SCHEMA, text, unjudged};
use crate::image::Workspace;
use crate::load::{Args, Load, Opened};
use crate::loader::{Loader, Place};
use crate::watch::{Observer, Point, Watch};

use super::event::{
    Address, Begin, Bytes, Changed, Code, Event, Fact, Facts, Parameter, Patch, Protected, Runtime, Section,
    Sections, Slot, State, Step, Stop, Table, Unknown,
};
use super::lifecycle::{self, After};
use super::recorder::Recorder;
use super::regions::{memory, protected};
use super::steps::{STEPS, StepOf};
use super::{relocations, symbols};

/// Bytes of a table that are shown before and after.
const SHOWN_MAX: u64 = 64;

/// A load that is told.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The file as it was named.
    pub file: &'a str,
    /// How to load it; the parameters of it are set.
    pub args: Args<'a>,
    /// Where it goes.
    pub place: &'a Place,
    /// Address of its per-cpu area, if it is given.
    pub percpu: Option<u64>,
    /// How its init function ends.
    pub init: Init,
}

/// What is told of a load: its events, and what the rest of its life is told from.
pub type Told = (Vec<Event>, Option<lifecycle::Life>);

/// Loads a module into a kernel as [`Loader::insmod`] does, and tells of it. What the kernel would say of it comes too.
pub fn insmod(loader: &mut Loader, opened: &Opened<'_>, asking: &Asking<'_>) -> (Told, Findings) {
    let mut recorder = Recorder::default();
    let watch = Watch(Some(&mut recorder as &mut dyn Observer));
    let Asking { args, place, percpu, .. } = asking;
    let attempt = loader.load_watched(&mut Workspace::default(), opened, args, place, *percpu, watch);
    let (load, mut said) = attempt.whatever_it_says();
    let story = Story { kernel: &loader.kernel, opened, asking, recorder: &recorder, load: load.as_ref() };
    let mut events = story.events(&said);
    let life = load.as_ref().map(|load| lifecycle::Life::of(load));
    let kept = load.as_ref().map(|load| loader.keep(load));
    drop(load);
    if let Some((kept, life)) = kept.zip(life.as_ref()) {
        let refused = said.refused();
        let (history, before) = (loader.kernel.state.history.events.len(), said.kept());
        loader.insert(kept, asking.init, &mut said);
        let After { announced, undone, rest } =
            life.after_load(&loader.kernel, history, &said, before, refused);
        // The program keeps a module when its load is over; the kernel announces it before its parameters are set.
        let parameters = StepOf::Load(Point::Parameters).name();
        let is_next = |event: &Event| matches!(event, Event::Step(step) if step.name == parameters);
        let at = events.iter().position(is_next).unwrap_or(events.len());
        events.splice(at..at, announced);
        undo(&mut events, undone, life);
        events.extend(rest);
    } else {
        events.extend(lifecycle::not_reached(&loader.kernel));
    }
    ((events, life), said)
}

/// What a refused load gives back is told where it stops.
fn undo(events: &mut Vec<Event>, mut undone: Vec<Event>, life: &lifecycle::Life) {
    let stop = events.iter().position(|event| matches!(event, Event::Stop(_)));
    let step = |at: usize| match events.get(at) {
        Some(Event::Stop(stop)) => StepOf::of_name(stop.step),
        _ => None,
    };
    let Some((stop, step)) = stop.and_then(|at| Some((at, step(at)?))) else { return };
    // Nobody was told of a module that has not been COMING; but its memory was allocated.
    if undone.is_empty() && step > StepOf::Load(Point::Move) {
        undone.push(Event::Freed(life.freed_all()));
    }
    let behind = stop.saturating_add(1);
    events.splice(behind..behind, undone);
}

/// What the story of one load is read from.
pub(super) struct Story<'s, 'd> {
    pub(super) kernel: &'s Kernel,
    pub(super) opened: &'s Opened<'d>,
    asking: &'s Asking<'s>,
    pub(super) recorder: &'s Recorder,
    pub(super) load: Option<&'s Load<'s>>,
}

/// A fact.
pub(super) fn fact(name: &'static str, value: impl Into<String>) -> Fact {
    Fact { name, value: value.into() }
}

impl Story<'_, '_> {
    pub(super) fn file(&self) -> Option<&ModuleFile<'_>> {
        self.opened.module.as_ref()
    }

    /// The events up to the call of init.
    fn events(&self, said: &Findings) -> Vec<Event> {
        let mut events = vec![Event::Begin(self.begin())];
        let ranges = self.ranges(said);
        let stop = said.iter().position(|finding| finding.stops_here);
        let explainer = self.load.map(Explainer::new);
        let mut stopped = false;
        for step in STEPS {
            let StepOf::Load(point) = step else { continue };
            let (from, to) = ranges.iter().find(|(of, ..)| *of == point).map_or((0, 0), |(_, a, b)| (*a, *b));
            let was_reached = to != 0 || ranges.iter().any(|(of, ..)| *of == point);
            let config = &self.kernel.config;
            events.push(Event::Step(Step {
                name: step.name(),
                functions: step.functions(config),
                reached: !stopped,
            }));
            if was_reached || point == Point::Sysfs {
                self.tell(point, explainer.as_ref(), &mut events);
            }
            let here = said.iter().enumerate().filter(|(at, f)| is_of(point, *at, f.code, from, to));
            let mut stops = false;
            for (at, finding) in here {
                stops |= stop == Some(at);
                events.push(Event::Finding(FindingEntry::from(finding)));
            }
            if stops {
                stopped = true;
                events.push(Event::Stop(Stop {
                    step: step.name(),
                    errno: said.errno().map(|errno| errno.name()),
                    dmesg: said.dmesg().map(str::to_owned).collect(),
                }));
            }
        }
        let open = unjudged(said).into_iter().map(Event::Unjudged);
        events.extend(open);
        events
    }

    /// The findings of each point: from and to. What the program comes to in another order than the kernel has its own range.
    fn ranges(&self, said: &Findings) -> Vec<(Point, usize, usize)> {
        let before_elf = self.opened.before_elf;
        let opened = self.opened.said.kept();
        let mut ranges = vec![(Point::Signature, 0, before_elf), (Point::Elf, before_elf, opened)];
        let mut from = opened;
        for (point, to) in &self.recorder.points {
            ranges.push((*point, from, *to));
            from = *to;
        }
        // Said where a step did not come to its end.
        let next = STEPS.into_iter().filter_map(|step| match step {
            StepOf::Load(point) => Some(point),
            _ => None,
        });
        let reached: Vec<Point> = ranges.iter().map(|(point, ..)| *point).collect();
        if from < said.kept()
            && let Some(point) = next.into_iter().find(|point| !reached.contains(point))
        {
            ranges.push((point, from, said.kept()));
        }
        ranges
    }

    fn begin(&self) -> Begin {
        let config = &self.kernel.config;
        Begin {
            schema: SCHEMA,
            file: self.asking.file.to_owned(),
            size: self.opened.signature.module.len() as u64,
            module: self.file().map(|file| file.name_text().into_owned()),
            arch: self.file().and_then(ModuleFile::machine).map(|machine| machine.name),
            kernel: self.kernel.release.clone(),
            coverage: self.kernel.coverage().word(),
            page_size: config.page_size,
            params: text(self.asking.args.params.unwrap_or_default()),
            loaded: self.kernel.modules().map(|module| text(&module.name)).collect(),
        }
    }

    /// What a step did.
    fn tell(&self, point: Point, explainer: Option<&Explainer<'_, '_>>, events: &mut Vec<Event>) {
        match point {
            Point::Signature => events.push(Event::Facts(Facts { facts: self.signature() })),
            Point::Elf => {
                events.push(Event::Facts(Facts { facts: self.elf() }));
                events.extend(self.sections(None, None, Rewritten::No).map(Event::Sections));
            }
            Point::Blacklist => events.push(Event::Facts(Facts { facts: self.blacklist() })),
            Point::Versions => events.push(Event::Facts(Facts { facts: self.versions() })),
            Point::Rewrite | Point::Flags => {
                events.extend(self.sections(Some(point), None, Rewritten::Copy).map(Event::Sections));
            }
            Point::Frob => {
                events.push(Event::Facts(Facts { facts: self.frob() }));
                events.extend(self.sections(Some(point), None, Rewritten::Copy).map(Event::Sections));
            }
            Point::Layout => {
                let layout = self.recorder.layout.as_ref();
                events.extend(self.sections(Some(point), layout, Rewritten::Copy).map(Event::Sections));
                events.extend(layout.map(|layout| Event::Memory(memory(layout, None))));
            }
            Point::Move => {
                let module = self.load.map(|load| &load.module);
                let layout = module.map(|module| &module.layout);
                events.extend(self.sections(Some(point), layout, Rewritten::Final).map(Event::Sections));
                events.extend(
                    module.map(|module| Event::Memory(memory(&module.layout, Some(&module.placement)))),
                );
            }
            Point::Unformed => {
                events.push(Event::Facts(Facts { facts: self.unformed() }));
                events.push(self.state("UNFORMED"));
            }
            Point::Tables => events.extend(self.tables()),
            Point::Symbols => events.extend(self.symbols()),
            Point::Relocations => {
                if let Some(load) = self.load {
                    relocations::events(load, &self.recorder.relocated, events);
                    let slots = load.plts().flat_map(|table| {
                        let section = text(load.module.info.file.section_name(table.plt_shndx));
                        table.slots.iter().map(move |slot| (section.clone(), slot))
                    });
                    events.extend(slots.map(|(section, slot)| {
                        Event::Slot(Slot {
                            section,
                            addr: Address(slot.address),
                            target: Address(slot.target),
                        })
                    }));
                }
            }
            Point::PostRelocation => events.extend(self.post_relocation(explainer)),
            Point::Finalize | Point::Coming => self.patches(point, explainer, events),
            Point::Formation => {
                self.patches(point, explainer, events);
                let parts = self.load.map(|load| protected(&load.module, false)).unwrap_or_default();
                events.extend((!parts.is_empty()).then_some(Event::Protected(Protected { parts })));
                events.push(self.state("COMING"));
            }
            Point::Sysfs => {
                self.patches(point, explainer, events);
                events.extend(self.not_predicted());
            }
            Point::Parameters => {
                events.extend(self.parameters());
                self.patches(point, explainer, events);
            }
        }
    }

    fn state(&self, state: &'static str) -> Event {
        let module = self.file().map(|file| file.name_text().into_owned()).unwrap_or_default();
        Event::State(State { module, state })
    }

    /// What nobody but the running kernel knows.
    fn not_predicted(&self) -> Vec<Event> {
        let Some(load) = self.load else { return Vec::new() };
        let runtime = load.record.runtime.iter().map(|state| {
            Event::Runtime(Runtime {
                addr: Address(load.module.placement.address(state.place)),
                size: state.len,
                what: state.what.clone().into_owned(),
            })
        });
        runtime.collect()
    }

    /// The tables that `find_module_sections` looks for, where the module has them.
    fn tables(&self) -> Vec<Event> {
        const NAMES: [&str; 23] = [
            "__param",
            "__ksymtab",
            "__kcrctab",
            "__ksymtab_gpl",
            "__kcrctab_gpl",
            "__kflagstab",
            ".ctors",
            ".init_array",
            ".noinstr.text",
            "__tracepoints_ptrs",
            ".srcu_struct_ptrs",
            "__bpf_raw_tp_map",
            ".BTF",
            "__jump_table",
            "__trace_printk_fmt",
            "_ftrace_events",
            "_ftrace_eval_map",
            "__mcount_loc",
            "__patchable_function_entries",
            "_kprobe_blacklist",
            ".static_call_sites",
            "__ex_table",
            "__bug_table",
        ];
        let Some(load) = self.load else { return Vec::new() };
        let found = NAMES.iter().filter_map(|name| load.module.section(name).map(|table| (*name, table)));
        found
            .map(|(name, table)| {
                Event::Table(Table { name: name.into(), addr: Address(table.address), size: table.size })
            })
            .collect()
    }

    fn symbols(&self) -> Vec<Event> {
        let taints = self.recorder.taints.get(&Point::Tables);
        let gplok = !taints.is_some_and(|taints| taints.module_has(Taint::ProprietaryModule));
        self.load.map_or_else(Vec::new, |load| symbols::events(load, gplok))
    }

    fn post_relocation(&self, explainer: Option<&Explainer<'_, '_>>) -> Vec<Event> {
        let (Some(load), Some(explainer)) = (self.load, explainer) else { return Vec::new() };
        let file = load.module.info.file;
        let mut changed: Vec<Changed> = Vec::new();
        for run in &self.recorder.post_relocation {
            let address = load.module.placement.bases.get(run.region).wrapping_add(run.offset);
            let section = explainer.section(address).map(|index| text(file.section_name(index)));
            let count = run.after.len() as u64;
            match changed.last_mut().filter(|last| last.section == section) {
                Some(last) => last.count = last.count.saturating_add(count),
                None => changed.push(Changed {
                    function: if section.as_deref() == Some("__ex_table") {
                        "sort_extable"
                    } else {
                        "add_kallsyms"
                    },
                    section,
                    addr: Address(address),
                    count,
                    before: first_of(&run.before),
                    after: first_of(&run.after),
                }),
            }
        }
        let mut events: Vec<Event> = changed.into_iter().map(Event::Changed).collect();
        if let Some(plan) = &load.module.layout.symtab {
            let facts = vec![
                fact("kallsyms_symbols", file.symbols().len().to_string()),
                fact("kallsyms_core", plan.core_symbols.len().to_string()),
            ];
            events.insert(0, Event::Facts(Facts { facts }));
        }
        events
    }

    /// The patches of a step.
    fn patches(&self, point: Point, explainer: Option<&Explainer<'_, '_>>, events: &mut Vec<Event>) {
        let (Some(load), Some(explainer)) = (self.load, explainer) else { return };
        let Some(journal) = &load.record.journal else { return };
        let new = |counts: &BTreeMap<Point, usize>| {
            let before = counts.range(..point).next_back().map_or(0, |(_, count)| *count);
            (before, counts.get(&point).copied().unwrap_or(0))
        };
        let (before, to) = new(&self.recorder.patches);
        let all = load.record.patches.iter().zip(&journal.bytes);
        for (patch, bytes) in all.take(to).skip(before) {
            let address = load.module.placement.address(patch.place);
            let section = explainer.section(address);
            let is_code = section.and_then(|index| load.module.info.sechdrs.get(index));
            let is_code = is_code.is_some_and(|s| s.sh_flags & SHF_EXECINSTR != 0);
            let texts = (is_code && patch.len <= SHOWN_MAX).then(|| {
                [&bytes.before, &bytes.after].map(|bytes| disassembly::text(load.arch, bytes, address))
            });
            // An address in code is no instruction.
            let texts = texts.filter(|both| !both.iter().any(|text| text.contains(disassembly::BAD)));
            let shown = shown(&bytes.before, &bytes.after);
            let part = |bytes: &[u8]| first_of(bytes.get(shown.unwrap_or(0)..).unwrap_or_default());
            events.push(Event::Patch(Patch {
                what: patch.step.name(),
                reason: match patch.step {
                    reloc::Step::Parameter => self.parameter_name(patch.detail),
                    _ => explainer.detail(patch),
                },
                addr: Address(address),
                size: patch.len,
                section: section.map(|index| text(load.module.info.file.section_name(index))),
                symbol: explainer.symbol(address),
                shown: shown.map(|at| Address(address.wrapping_add(at as u64))),
                before: part(&bytes.before),
                after: part(&bytes.after),
                code: texts.map(|[before, after]| Code {
                    addr: Address(address),
                    size: patch.len,
                    before,
                    after,
                }),
            }));
        }
        let (before, to) = new(&self.recorder.unknown);
        let unknown = load.record.unknown.iter().take(to).skip(before);
        events.extend(unknown.map(|what| Event::Unknown(Unknown { what: what.clone() })));
    }

    fn parameter_name(&self, record: u64) -> Option<String> {
        let file = self.file()?;
        params(file).get(usize::try_from(record).ok()?).map(|param| text(param.name))
    }

    /// The parameters, token by token as `parse_args` takes them.
    fn parameters(&self) -> Vec<Event> {
        let Some(file) = self.file() else { return Vec::new() };
        let known = params(file);
        let args = self.asking.args.params.unwrap_or_default();
        let mut rest = skip_spaces(args);
        let names: Vec<String> = known.iter().map(|param| text(param.name)).collect();
        let facts = vec![fact("parameters", names.join(", ")), fact("args", text(args))];
        let mut events = vec![Event::Facts(Facts { facts })];
        while !rest.is_empty() {
            let (token, next) = next_arg(rest);
            rest = next;
            // PARAM-13: - equals _.
            let fold = |name: &[u8]| -> Vec<u8> {
                name.iter().map(|c| if *c == b'-' { b'_' } else { *c }).collect()
            };
            let param = known.iter().find(|param| fold(param.name) == fold(token.param));
            events.push(Event::Parameter(Parameter {
                name: text(token.param),
                value: token.val.map(text),
                kind: param.map(|param| param.kind.clone()),
            }));
        }
        events
    }

    /// The section headers at a point.
    fn sections(&self, at: Option<Point>, layout: Option<&Layout>, rewritten: Rewritten) -> Option<Sections> {
        let file = self.file()?;
        let headers = match at {
            Some(point) => self.recorder.headers.get(&point)?,
            None => file.sections(),
        };
        let rows = headers.iter().enumerate().skip(1).filter(|(_, s)| s.sh_type != SHT_NULL);
        let row = |(index, s): (usize, &Shdr)| {
            let place = layout.and_then(|layout| layout.place(index));
            let addr = match rewritten {
                Rewritten::No => format!("{:#x}", s.sh_addr),
                Rewritten::Final if place.is_some() => format!("{:#018x}", s.sh_addr),
                _ => format!("hdr+{:#x}", s.sh_offset),
            };
            Section {
                index,
                name: text(file.section_name(index)),
                kind: type_name(file, s.sh_type),
                flags: flags(s.sh_flags),
                offset: s.sh_offset,
                size: s.sh_size,
                align: s.sh_addralign,
                addr,
                region: place.map(|place| place.region.name()),
                region_offset: place.map(|place| place.offset),
            }
        };
        Some(Sections { sections: rows.map(row).collect() })
    }
}

/// How far `sh_addr` is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewritten {
    /// As in the file.
    No,
    /// It points into the temporary copy.
    Copy,
    /// It is final for what is moved.
    Final,
}

/// Is a finding of this point? What a compressed file makes the kernel say is said by the ELF checks, and is of the system call.
fn is_of(point: Point, at: usize, code: &str, from: usize, to: usize) -> bool {
    let is_of_packing = code.starts_with("DEC-");
    match point {
        Point::Signature if is_of_packing => true,
        _ => !is_of_packing && (from..to).contains(&at),
    }
}

/// Which byte of a patch is the first one to be shown: of few the first, of many the first that differs. `None` if none
/// differs.
fn shown(before: &[u8], after: &[u8]) -> Option<usize> {
    /// So many are shown in a line.
    const FEW: usize = 16;
    let first = before.iter().zip(after).position(|(before, after)| before != after)?;
    Some(if before.len() <= FEW { 0 } else { first })
}

/// The first bytes of many.
fn first_of(bytes: &[u8]) -> Bytes {
    Bytes(bytes.iter().copied().take(SHOWN_MAX as usize).collect())
}

/// The name of a section type without its `SHT_`, or its number.
fn type_name(file: &ModuleFile<'_>, sh_type: u32) -> Cow<'static, str> {
    let names = elf::machine_names(elf::Machine(file.e_machine())).sht;
    match names.name(elf::SectionType(sh_type)) {
        Some(name) => Cow::Borrowed(name.strip_prefix("SHT_").unwrap_or(name)),
        None => Cow::Owned(format!("{sh_type:#x}")),
    }
}

/// Flags as `readelf` shows them, and R for what is read-only after init.
fn flags(sh_flags: u64) -> String {
    let letters = [
        (SHF_WRITE, 'W'),
        (SHF_ALLOC, 'A'),
        (SHF_EXECINSTR, 'X'),
        (0x10, 'M'),
        (0x20, 'S'),
        (0x40, 'I'),
        (0x80, 'L'),
        (0x200, 'G'),
        (0x400, 'T'),
        (SHF_RO_AFTER_INIT, 'R'),
    ];
    letters.into_iter().filter(|(bit, _)| sh_flags & bit != 0).map(|(_, letter)| letter).collect()
}
