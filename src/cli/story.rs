//! The story of a load as text. It is made from events and from nothing else.

use std::collections::BTreeMap;

use kmodld::document::FindingEntry;
use kmodld::trace::event::{
    Begin, Call, Changed, Code, Event, Facts, Freed, Import, Memory, Patch, Region, Relocation, Section,
    Sections, State, Step, Stop,
};
use kmodld::trace::steps::{STEPS, StepOf};
use kmodld::trace::words::Table;

use super::report::{Line, one_line};
use super::terminal::wrap;

/// Of many alike, so many are shown unless all are asked for.
const SHOWN: usize = 3;
/// The same of imports, each of which has its own reasons.
const IMPORTS_SHOWN: usize = 12;
/// Columns of the bar of a region.
const BAR: u64 = 32;
/// What belongs to a step stands this far in.
const INDENT: &str = "   ";

/// How a story is told.
#[derive(Debug)]
pub struct Teller<'t> {
    words: &'t Table,
    /// Everything, not the first of many.
    verbose: bool,
    /// Columns, if lines are to be broken.
    width: Option<usize>,
    /// The only step to tell.
    only: Option<StepOf>,
    /// What comes is read, and not told.
    muted: bool,
    lines: Vec<Line>,
    /// The section headers as the last step left them.
    sections: Vec<Section>,
    /// In which step.
    step: &'static str,
    /// Events of one kind that are told together, when something else comes.
    imports: Vec<String>,
    imports_hidden: usize,
    patches: Vec<(&'static str, Vec<String>, u64)>,
    by_type: BTreeMap<String, (u64, Vec<String>)>,
    slots: Vec<String>,
}

impl<'t> Teller<'t> {
    /// Nothing told yet.
    pub fn new(words: &'t Table, verbose: bool, width: Option<usize>, only: Option<StepOf>) -> Self {
        Teller {
            words,
            verbose,
            width,
            only,
            muted: false,
            lines: Vec::new(),
            sections: Vec::new(),
            step: "",
            imports: Vec::new(),
            imports_hidden: 0,
            patches: Vec::new(),
            by_type: BTreeMap::new(),
            slots: Vec::new(),
        }
    }

    /// The whole story.
    pub fn tell(mut self, events: &[Event]) -> Vec<Line> {
        for event in events {
            self.event(event);
        }
        self.gathered();
        self.lines
    }

    fn push(&mut self, title: bool, text: impl Into<String>) {
        if !self.muted {
            self.lines.push(Line { title, text: text.into() });
        }
    }

    fn line(&mut self, text: impl AsRef<str>) {
        let text = format!("{INDENT}{}", text.as_ref());
        let indent = text.len().saturating_sub(text.trim_start().len()).saturating_add(4);
        for text in wrap(text.trim_end(), self.width, indent).lines() {
            self.push(false, text);
        }
    }

    fn blank(&mut self) {
        self.push(false, "");
    }

    fn event(&mut self, event: &Event) {
        let is_gathered =
            matches!(event, Event::Import(_) | Event::Patch(_) | Event::Relocations(_) | Event::Slot(_));
        if !is_gathered {
            self.gathered();
        }
        match event {
            Event::Begin(begin) => self.begin(begin),
            Event::Step(step) => self.begin_step(step),
            Event::Facts(facts) => self.facts(facts),
            Event::Sections(sections) => self.section_headers(sections),
            Event::Memory(memory) => self.memory(memory),
            Event::Table(table) => {
                self.line(format!(
                    "{:<30} {} {:>8} bytes",
                    one_line(&table.name),
                    hex(table.addr.0),
                    table.size
                ));
            }
            Event::Symbols(symbols) => {
                let moved = symbols.symbols.iter().filter(|symbol| symbol.section != 0).count();
                let imported = symbols.symbols.len().saturating_sub(moved);
                self.line(format!("{moved} symbols of its own, {imported} undefined"));
            }
            Event::Import(import) => self.import(import),
            Event::Relocations(table) => {
                for record in &table.records {
                    let (count, example) = self.by_type.entry(record.kind.to_string()).or_default();
                    *count = count.saturating_add(1);
                    if example.is_empty() || (self.verbose && *count <= SHOWN as u64) {
                        example.extend(relocation(&table.name, &table.target_name, record));
                    }
                }
            }
            Event::Slot(slot) => self.slots.push(format!(
                "{} {} -> {}",
                one_line(&slot.section),
                hex(slot.addr.0),
                hex(slot.target.0)
            )),
            Event::Changed(changed) => self.changed(changed),
            Event::Patch(patch) => self.patch(patch),
            Event::Runtime(runtime) => {
                if self.verbose {
                    let (at, size) = (hex(runtime.addr.0), runtime.size);
                    self.line(format!(
                        "{at} {size} bytes: known to the running kernel only: {}",
                        one_line(&runtime.what)
                    ));
                }
            }
            Event::Unknown(unknown) => self.line(format!("not known: {}", one_line(&unknown.what))),
            Event::Parameter(parameter) => {
                let value = parameter.value.as_deref().map_or(String::new(), |v| format!("={}", one_line(v)));
                let kind = parameter.kind.as_deref().unwrap_or("no parameter of this module");
                self.line(format!("{}{value}  ({})", one_line(&parameter.name), one_line(kind)));
            }
            Event::State(state) => self.state(state),
            Event::Call(call) => self.call(call),
            Event::Freed(freed) => self.freed(freed),
            Event::Finding(finding) => self.finding(finding),
            Event::Unjudged(rule) => {
                self.line(format!("unjudged [{}]: needs {}", rule.code, one_line(&rule.needs)))
            }
            Event::Stop(stop) => self.stop(stop),
            Event::Asked(asked) => {
                self.muted = self.only.is_some_and(|only| only != StepOf::Unload);
                self.blank();
                let text = format!("$ {}: {}", one_line(&asked.step), asked.result);
                self.push(true, text);
                for line in asked.output.iter().flat_map(|output| output.lines()) {
                    self.line(one_line(line));
                }
            }
        }
    }

    /// What was gathered of many events alike.
    fn gathered(&mut self) {
        for line in std::mem::take(&mut self.imports) {
            self.line(line);
        }
        if self.imports_hidden != 0 {
            let more = self.imports_hidden;
            self.line(format!("{more} more imports with -v"));
            self.imports_hidden = 0;
        }
        for (kind, (count, example)) in std::mem::take(&mut self.by_type) {
            self.line(format!("{kind}: {count}"));
            example.into_iter().for_each(|line| self.line(format!("  {line}")));
        }
        let slots = std::mem::take(&mut self.slots);
        if !slots.is_empty() {
            self.line(format!("slots of linkage tables: {}", slots.len()));
        }
        let most = if self.verbose { usize::MAX } else { SHOWN };
        let hidden = slots.len().saturating_sub(most);
        slots.into_iter().take(most).for_each(|slot| self.line(format!("  {slot}")));
        if hidden != 0 {
            self.line(format!("  {hidden} more with -v"));
        }
        for (what, shown, count) in std::mem::take(&mut self.patches) {
            let places = if count == 1 { "place" } else { "places" };
            self.line(format!("{what}: {count} {places}"));
            shown.into_iter().for_each(|line| self.line(format!("  {line}")));
        }
    }

    fn begin(&mut self, begin: &Begin) {
        let module = begin.module.as_deref().unwrap_or("no module");
        let arch = begin.arch.unwrap_or("unknown architecture");
        let text = format!(
            "{}: {} for {} ({arch}), {} bytes",
            one_line(&begin.file),
            one_line(module),
            one_line(&begin.kernel),
            begin.size
        );
        self.sections.clear();
        self.muted = false;
        for text in wrap(&text, self.width, 4).lines() {
            self.push(true, text);
        }
        if !begin.params.is_empty() {
            self.line(format!("parameters: {}", one_line(&begin.params)));
        }
        if !begin.loaded.is_empty() {
            let count = begin.loaded.len();
            let names: Vec<_> = begin.loaded.iter().take(8).map(|name| one_line(name)).collect();
            let more = if count > names.len() { ", ..." } else { "" };
            self.line(format!("loaded already: {count}: {}{more}", names.join(", ")));
        }
        self.muted = self.only.is_some();
    }

    fn begin_step(&mut self, step: &Step) {
        let position = STEPS.iter().position(|known| known.name() == step.name);
        let number = position.map_or(0, |at| at.saturating_add(1));
        self.step = step.name;
        self.muted = self.only.is_some_and(|only| only.name() != step.name);
        self.blank();
        let key = format!("step.{}.title", step.name);
        let text = format!("{number:>2} {}: {}", step.name, self.words.get(&key));
        for text in wrap(&text, self.width, 4).lines() {
            self.push(true, text);
        }
        self.line(step.functions.join(", "));
        if !step.reached {
            self.line("not reached: what follows would have come");
            return;
        }
        let key = format!("step.{}.text", step.name);
        for text in wrap(self.words.get(&key), self.width.map(|w| w.saturating_sub(INDENT.len())), 0).lines()
        {
            self.push(false, format!("{INDENT}{text}"));
        }
    }

    fn facts(&mut self, facts: &Facts) {
        for fact in &facts.facts {
            let key = format!("fact.{}", fact.name);
            let name = self.words.get(&key).to_owned();
            let value = if fact.value.is_empty() { "-" } else { &fact.value };
            self.line(format!("{name:<30} {}", one_line(value)));
        }
    }

    /// The headers, as far as the step has changed them.
    fn section_headers(&mut self, sections: &Sections) {
        let old = std::mem::replace(&mut self.sections, sections.sections.clone());
        let before = |index: usize| old.iter().find(|section| section.index == index);
        let rows = || sections.sections.iter();
        match self.step {
            "elf" => {
                self.line("idx type      flags    offset       size  align  name");
                for s in rows() {
                    self.line(format!(
                        "{:>3} {:<9} {:<5} {:>9} {:>10} {:>6}  {}",
                        s.index,
                        cut(&s.kind, 9),
                        s.flags,
                        format!("{:#x}", s.offset),
                        s.size,
                        s.align,
                        one_line(&s.name)
                    ));
                }
            }
            "rewrite" => {
                self.line("idx sh_addr        flags         name");
                for s in rows() {
                    let was = before(s.index).map_or("", |old| old.flags.as_str());
                    let flags = match was == s.flags {
                        true => s.flags.clone(),
                        false => format!("{was} -> {}", or_dash(&s.flags)),
                    };
                    self.line(format!("{:>3} {:<14} {flags:<13} {}", s.index, s.addr, one_line(&s.name)));
                }
            }
            "layout" => {
                self.line("idx region             offset       size  name");
                for s in rows().filter(|s| s.region.is_some()) {
                    let (region, offset) = (s.region.unwrap_or("-"), s.region_offset.unwrap_or(0));
                    let offset = format!("{offset:#x}");
                    self.line(format!(
                        "{:>3} {region:<14} {offset:>10} {:>10}  {}",
                        s.index,
                        s.size,
                        one_line(&s.name)
                    ));
                }
            }
            "move" => {
                self.line("idx hdr             sh_addr             region           name");
                for s in rows().filter(|s| s.region.is_some()) {
                    let from =
                        if s.kind == "NOBITS" { "zeros".into() } else { format!("hdr+{:#x}", s.offset) };
                    let place = s.region.map(|r| format!("{r}+{:#x}", s.region_offset.unwrap_or(0)));
                    let place = place.unwrap_or_default();
                    self.line(format!(
                        "{:>3} {from:<14} {}  {place:<15}  {}",
                        s.index,
                        s.addr,
                        one_line(&s.name)
                    ));
                }
            }
            _ => {
                let mut same = true;
                for s in rows() {
                    let Some(old) = before(s.index).filter(|old| *old != s) else { continue };
                    same = false;
                    let mut what = Vec::new();
                    if old.flags != s.flags {
                        what.push(format!("flags {} -> {}", or_dash(&old.flags), or_dash(&s.flags)));
                    }
                    if old.kind != s.kind {
                        what.push(format!("type {} -> {}", old.kind, s.kind));
                    }
                    if old.size != s.size {
                        what.push(format!("size {} -> {}", old.size, s.size));
                    }
                    if old.align != s.align {
                        what.push(format!("alignment {} -> {}", old.align, s.align));
                    }
                    self.line(format!("{:>3} {}: {}", s.index, one_line(&s.name), what.join(", ")));
                }
                if same {
                    self.line("no section changes");
                }
            }
        }
    }

    /// The memory map: each region with a bar of what it uses of its pages, and its sections.
    fn memory(&mut self, memory: &Memory) {
        self.blank();
        for region in &memory.regions {
            let base = region.base.map_or(String::from("                  "), |base| hex(base.0));
            let used = region.size.saturating_mul(BAR).checked_div(region.allocated).unwrap_or(0).min(BAR);
            let used = if region.size == 0 { 0 } else { used.max(1) };
            let bar = format!("{}{}", mark('#', used), mark('.', BAR.saturating_sub(used)));
            let init = if region.init { " init" } else { "" };
            self.line(format!("{base} +{bar}+ {} {}{init}", region.name, region.permissions));
            // Where they go is told by the table; the map follows when there are addresses.
            let is_placed = |_: &&Section| region.base.is_some();
            let here = self
                .sections
                .iter()
                .filter(is_placed)
                .filter(|s| s.region == Some(region.name))
                .collect::<Vec<_>>();
            let mut here: Vec<(u64, String)> = here
                .iter()
                .map(|s| (s.region_offset.unwrap_or(0), format!("{} {}", one_line(&s.name), s.size)))
                .collect();
            here.sort();
            for (offset, text) in here {
                let offset = format!("+{offset:#x}");
                self.line(format!("{offset:>18} | {text}"));
            }
            let (size, allocated) = (region.size, region.allocated);
            self.line(format!("{:>18} +{}+ {size} of {allocated} bytes", "", mark('-', BAR)));
        }
    }

    fn import(&mut self, import: &Import) {
        let shown = self.imports.len() < IMPORTS_SHOWN.saturating_mul(3);
        if !self.verbose && !shown && import.owner.is_some() {
            self.imports_hidden = self.imports_hidden.saturating_add(1);
            return;
        }
        let weak = if import.weak { " (weak)" } else { "" };
        let asked: Vec<_> = import.asked.iter().map(|asked| one_line(asked)).collect();
        let many = asked.len() > 6;
        let mut list = match (many, asked.as_slice()) {
            (true, [first, second, .., last]) => format!("{first}, {second}, ... ({}), {last}", asked.len()),
            _ => asked.join(", "),
        };
        if list.is_empty() {
            list = String::from("nobody");
        }
        self.imports.push(format!("{}{weak}", one_line(&import.name)));
        self.imports.push(format!("  asked: {} of {list}", import.tables.join(", ")));
        let Some(owner) = &import.owner else {
            self.imports.push(String::from("  nobody has it"));
            return;
        };
        let at = import.addr.map_or(String::from("not known"), |addr| hex(addr.0));
        let license = if import.gpl_only { "GPL only" } else { "for everybody" };
        let crc = match (&import.crc, &import.expected_crc) {
            (Some(crc), Some(expected)) if crc == expected => format!("CRC {crc} as expected"),
            (Some(crc), Some(expected)) => format!("CRC {crc}, expected {expected}"),
            (Some(crc), None) => format!("CRC {crc}, none expected"),
            (None, Some(expected)) => format!("CRC not known, expected {expected}"),
            (None, None) => String::from("no CRC"),
        };
        let namespace = match &import.namespace {
            None => String::from("no namespace"),
            Some(name) if import.namespace_imported => format!("namespace {}, imported", one_line(name)),
            Some(name) => format!("namespace {}, not imported", one_line(name)),
        };
        let table = import.table.unwrap_or("its tables");
        self.imports.push(format!("  {at} in {table} of {}; {license}; {crc}; {namespace}", one_line(owner)));
    }

    fn changed(&mut self, changed: &Changed) {
        let place = changed.section.as_deref().unwrap_or("behind the sections");
        self.line(format!(
            "{}: {}, {} bytes differ, the first at {}",
            changed.function,
            one_line(place),
            changed.count,
            hex(changed.addr.0)
        ));
        self.line(format!("  before {}", bytes(&changed.before.0)));
        self.line(format!("  after  {}", bytes(&changed.after.0)));
    }

    fn patch(&mut self, patch: &Patch) {
        let same = self.patches.iter().position(|(what, ..)| *what == patch.what);
        let at = same.unwrap_or_else(|| {
            self.patches.push((patch.what, Vec::new(), 0));
            self.patches.len().saturating_sub(1)
        });
        let (verbose, most) = (self.verbose, SHOWN as u64);
        let Some((_, shown, count)) = self.patches.get_mut(at) else { return };
        *count = count.saturating_add(1);
        if !verbose && *count > most {
            return;
        }
        let symbol = patch.symbol.as_deref().map_or(String::new(), |symbol| format!(" {}", one_line(symbol)));
        let section = patch.section.as_deref().map_or(String::new(), |name| format!(" {}", one_line(name)));
        let reason = patch.reason.as_deref().map_or(String::new(), |why| format!(": {}", one_line(why)));
        shown.push(format!("{}{section}{symbol}, {} bytes{reason}", hex(patch.addr.0), patch.size));
        match &patch.code {
            Some(code) => shown.extend(both(&patch.before.0, &patch.after.0, Some(code))),
            None => shown.extend(both(&patch.before.0, &patch.after.0, None)),
        }
    }

    fn state(&mut self, state: &State) {
        self.line(format!("{}: state {}", one_line(&state.module), state.state));
        if !state.notifiers.is_empty() {
            let all: Vec<String> =
                state.notifiers.iter().map(|n| format!("{} ({})", n.function, n.priority)).collect();
            self.line(format!("  notifiers: {}", all.join(", ")));
        }
    }

    fn call(&mut self, call: &Call) {
        let at = call.addr.map_or(String::new(), |addr| format!(" at {}", hex(addr.0)));
        let returns = match call.returns.as_deref() {
            None => String::new(),
            Some("crash") => String::from(": it never returns"),
            Some(value) => format!(": told to return {value}"),
        };
        self.line(format!("{}: {}{at}{returns}", one_line(&call.module), call.function));
    }

    fn freed(&mut self, freed: &Freed) {
        if freed.regions.is_empty() {
            self.line("nothing to free");
        }
        for Region { name, base, allocated, .. } in &freed.regions {
            let base = base.map_or(String::from("not known"), |base| hex(base.0));
            self.line(format!("freed: {name} at {base}, {allocated} bytes"));
        }
    }

    fn finding(&mut self, finding: &FindingEntry) {
        let errno = finding.errno.map_or(String::new(), |errno| format!(" ({})", errno.name()));
        let text = one_line(&finding.explanation).into_owned();
        self.line(format!("{} [{}]: {text}{errno}", finding.severity.word(), finding.code));
        for line in finding.dmesg.iter().flat_map(|lines| lines.lines()) {
            self.line(format!("  kernel: {}", one_line(line)));
        }
    }

    fn stop(&mut self, stop: &Stop) {
        let how = match stop.errno {
            Some(errno) => format!("with {errno}"),
            None => String::from("in a crash"),
        };
        self.line(format!("=> the kernel stops here {how}"));
    }
}

/// One relocation with its arithmetic, line by line.
fn relocation(section: &str, target: &str, record: &Relocation) -> Vec<String> {
    let addend = match record.a {
        a if a < 0 => format!("-{:#x}", a.unsigned_abs()),
        a => format!("{a:#x}"),
    };
    let mut lines = vec![format!(
        "record {} of {}: {}+{:#x}, {}",
        record.entry,
        one_line(section),
        one_line(target),
        record.offset,
        one_line(&record.symbol_name)
    )];
    let s = record.s.map_or(String::from("not known"), |s| hex(s.0));
    lines.push(format!("S = {s}, A = {addend}, P = {}", hex(record.p.0)));
    if let (Some(formula), Some(result)) = (record.formula, record.result) {
        let slot = record
            .slot
            .map_or(String::new(), |slot| format!(", out of reach: by the slot at {}", hex(slot.0)));
        lines.push(format!("{formula} = {}{slot}", hex(result.0)));
    }
    lines.extend(both(&record.before.0, &record.after.0, record.code.as_ref()));
    lines
}

/// Bytes before and after, with instructions.
fn both(before: &[u8], after: &[u8], code: Option<&Code>) -> Vec<String> {
    let mut lines = vec![format!("  before {}", bytes(before)), format!("  after  {}", bytes(after))];
    if let Some(code) = code {
        lines.push(format!("  before {}", one_line(&code.before)));
        lines.push(format!("  after  {}", one_line(&code.after)));
    }
    lines
}

/// Bytes as they lie in memory; the first ones of many.
fn bytes(bytes: &[u8]) -> String {
    const MOST: usize = 16;
    let shown: Vec<String> = bytes.iter().take(MOST).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > MOST { " ..." } else { "" };
    format!("{}{more}", shown.join(" "))
}

fn hex(address: u64) -> String {
    format!("{address:#018x}")
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text)
}

fn mark(with: char, count: u64) -> String {
    std::iter::repeat_n(with, usize::try_from(count).unwrap_or(0)).collect()
}
