//! The story of a load as text. It is made from events and from nothing else; its words are those of a table
//! (`src/trace/words`), so that it can be told in each language that has one.

mod lines;
mod sections;

use std::collections::BTreeMap;

use kmodld::document::FindingEntry;
use kmodld::trace::event::{
    AskedOwner, Begin, Call, Changed, Event, Facts, Freed, Import, Notified, Patch, Protected, ProtectedPart,
    Region, Section, State, Step, Stop,
};
use kmodld::trace::steps::{STEPS, StepOf};
use kmodld::trace::words::{Table, Value, with};

use self::lines::{both, hex, left, relocation};
use super::report::{Line, one_line};
use super::terminal::wrap;

/// Of many alike, so many are shown unless all are asked for.
const SHOWN: usize = 3;
/// The same of imports, each of which has its own reasons.
const IMPORTS_SHOWN: usize = 12;
/// Columns of a name before its value.
const NAME: usize = 30;
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
    unknown: Vec<String>,
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
            unknown: Vec::new(),
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

    /// A text of the table with its values.
    fn say(&self, key: &str, values: &[Value<'_>]) -> String {
        self.words.fill(key, values)
    }

    fn blank(&mut self) {
        self.push(false, "");
    }

    fn event(&mut self, event: &Event) {
        let is_gathered = matches!(
            event,
            Event::Import(_) | Event::Patch(_) | Event::Relocations(_) | Event::Slot(_) | Event::Unknown(_)
        );
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
                let size = format!("{:>8}", table.size);
                let size = self.say("story.bytes", &[with("count", &size)]);
                self.line(format!("{} {} {size}", left(&one_line(&table.name), NAME), hex(table.addr.0)));
            }
            Event::Symbols(symbols) => {
                let moved = symbols.symbols.iter().filter(|symbol| symbol.section != 0).count();
                let imported = symbols.symbols.len().saturating_sub(moved);
                self.line(self.say("story.symbols", &[with("own", &moved), with("undefined", &imported)]));
            }
            Event::Import(import) => self.import(import),
            Event::Relocations(table) => {
                for record in &table.records {
                    let (count, example) = self.by_type.entry(record.kind.to_string()).or_default();
                    *count = count.saturating_add(1);
                    if example.is_empty() || (self.verbose && *count <= SHOWN as u64) {
                        example.extend(relocation(self.words, &table.name, &table.target_name, record));
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
                    let (at, what) = (hex(runtime.addr.0), one_line(&runtime.what));
                    self.line(self.say(
                        "story.runtime",
                        &[with("addr", &at), with("count", &runtime.size), with("what", &what)],
                    ));
                }
            }
            Event::Unknown(unknown) => self.unknown.push(one_line(&unknown.what).into_owned()),
            Event::Parameter(parameter) => {
                let value = parameter.value.as_deref().map_or(String::new(), |v| format!("={}", one_line(v)));
                let kind = parameter.kind.as_deref().unwrap_or(self.words.get("story.no_parameter"));
                self.line(format!("{}{value}  ({})", one_line(&parameter.name), one_line(kind)));
            }
            Event::State(state) => self.state(state),
            Event::Notified(notified) => self.notified(notified),
            Event::Protected(protected) => self.protected(protected),
            Event::Call(call) => self.call(call),
            Event::Freed(freed) => self.freed(freed),
            Event::Finding(finding) => self.finding(finding),
            Event::Unjudged(rule) => {
                self.line(self.say(
                    "story.unjudged",
                    &[with("code", &rule.code), with("needs", &one_line(&rule.needs))],
                ));
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
            self.line(self.say("story.more_imports", &[with("count", &self.imports_hidden)]));
            self.imports_hidden = 0;
        }
        for (kind, (count, example)) in std::mem::take(&mut self.by_type) {
            self.line(format!("{kind}: {count}"));
            example.into_iter().for_each(|line| self.line(format!("  {line}")));
        }
        let slots = std::mem::take(&mut self.slots);
        if !slots.is_empty() {
            self.line(self.say("story.slots", &[with("count", &slots.len())]));
        }
        let most = if self.verbose { usize::MAX } else { SHOWN };
        let hidden = slots.len().saturating_sub(most);
        slots.into_iter().take(most).for_each(|slot| self.line(format!("  {slot}")));
        if hidden != 0 {
            self.line(format!("  {}", self.say("story.more", &[with("count", &hidden)])));
        }
        for (what, shown, count) in std::mem::take(&mut self.patches) {
            let what = self.words.get(&format!("patch.{what}")).to_owned();
            let key = if count == 1 { "story.place" } else { "story.places" };
            self.line(self.say(key, &[with("what", &what), with("count", &count)]));
            shown.into_iter().for_each(|line| self.line(format!("  {line}")));
        }
        let unknown = std::mem::take(&mut self.unknown);
        if !unknown.is_empty() {
            self.line(self.say("story.unknown", &[with("what", &unknown.join("; "))]));
        }
    }

    fn begin(&mut self, begin: &Begin) {
        let module = begin.module.as_deref().unwrap_or(self.words.get("story.no_module"));
        let text = self.say(
            "story.begin",
            &[
                with("file", &one_line(&begin.file)),
                with("module", &one_line(module)),
                with("kernel", &one_line(&begin.kernel)),
                with("arch", &begin.arch.unwrap_or(self.words.get("story.no_arch"))),
                with("count", &begin.size),
            ],
        );
        self.sections.clear();
        self.muted = false;
        for text in wrap(&text, self.width, 4).lines() {
            self.push(true, text);
        }
        if !begin.params.is_empty() {
            self.line(self.say("story.parameters", &[with("params", &one_line(&begin.params))]));
        }
        if !begin.loaded.is_empty() {
            let count = begin.loaded.len();
            let names: Vec<_> = begin.loaded.iter().take(8).map(|name| one_line(name)).collect();
            let more = if count > names.len() { ", ..." } else { "" };
            let names = format!("{}{more}", names.join(", "));
            self.line(self.say("story.loaded", &[with("count", &count), with("names", &names)]));
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
            self.line(self.words.get("story.not_reached"));
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
            self.line(format!("{} {}", left(&name, NAME), one_line(value)));
        }
    }

    fn import(&mut self, import: &Import) {
        let shown = self.imports.len() < IMPORTS_SHOWN.saturating_mul(3);
        if !self.verbose && !shown && import.owner.is_some() {
            self.imports_hidden = self.imports_hidden.saturating_add(1);
            return;
        }
        let told = self.told_of(import);
        self.imports.extend(told);
    }

    /// An import: who was asked, who has it, and on what terms.
    fn told_of(&self, import: &Import) -> Vec<String> {
        let weak = if import.weak { self.words.get("story.weak") } else { "" };
        let asked = self.asked(&import.asked);
        let mut told = vec![
            format!("{}{weak}", one_line(&import.name)),
            format!("  {}", self.say("story.asked", &[with("asked", &asked)])),
        ];
        let Some(owner) = &import.owner else {
            told.push(format!("  {}", self.words.get("story.no_answer")));
            return told;
        };
        let not_known = self.words.get("story.not_known");
        let at = import.addr.map_or(not_known.to_owned(), |addr| hex(addr.0));
        let license = self.words.get(if import.gpl_only { "story.gpl_only" } else { "story.everybody" });
        let key = match (&import.crc, &import.expected_crc) {
            (Some(crc), Some(expected)) if crc == expected => "story.crc.same",
            (Some(_), Some(_)) => "story.crc.other",
            (Some(_), None) => "story.crc.not_expected",
            (None, Some(_)) => "story.crc.not_known",
            (None, None) => "story.crc.none",
        };
        let of = |crc: &Option<_>| crc.as_ref().map_or(String::new(), ToString::to_string);
        let crc =
            self.say(key, &[with("crc", &of(&import.crc)), with("expected", &of(&import.expected_crc))]);
        let name = import.namespace.as_deref().map(one_line).unwrap_or_default();
        let key = match &import.namespace {
            None => "story.namespace.none",
            Some(_) if import.namespace_imported => "story.namespace.imported",
            Some(_) => "story.namespace.missing",
        };
        let namespace = self.say(key, &[with("name", &name)]);
        told.push(format!(
            "  {}",
            self.say(
                "story.answer",
                &[
                    with("addr", &at),
                    with("table", &import.table.unwrap_or_default()),
                    with("owner", &one_line(owner)),
                    with("license", &license),
                    with("crc", &crc),
                    with("namespace", &namespace),
                ]
            )
        ));
        if !import.taken {
            told.push(format!("  {}", self.words.get("story.not_taken")));
        }
        told
    }

    /// Who was asked, in order: those with the same tables together.
    fn asked(&self, asked: &[AskedOwner]) -> String {
        let mut groups: Vec<String> = Vec::new();
        for alike in asked.chunk_by(|one, other| one.tables == other.tables) {
            let owners: Vec<_> = alike.iter().map(|asked| one_line(&asked.owner)).collect();
            let list = match (owners.len() > 6, owners.as_slice()) {
                (true, [first, second, .., last]) => {
                    format!("{first}, {second}, ... ({}), {last}", owners.len())
                }
                _ => owners.join(", "),
            };
            let tables = alike.first().map_or(&[][..], |asked| asked.tables).join(", ");
            groups.push(self.say("story.asked_of", &[with("tables", &tables), with("list", &list)]));
        }
        match groups.is_empty() {
            true => self.words.get("story.nobody").to_owned(),
            false => groups.join("; "),
        }
    }

    fn changed(&mut self, changed: &Changed) {
        let place = changed.section.as_deref().unwrap_or(self.words.get("story.behind"));
        self.line(self.say(
            "story.changed",
            &[
                with("function", &changed.function),
                with("place", &one_line(place)),
                with("count", &changed.count),
                with("addr", &hex(changed.addr.0)),
            ],
        ));
        for line in both(self.words, &changed.before.0, &changed.after.0, None) {
            self.line(line);
        }
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
        let size = self.words.fill("story.bytes", &[with("count", &patch.size)]);
        let shown_at = match patch.shown {
            Some(at) if at == patch.addr => String::new(),
            Some(at) => self.words.fill("story.first_change", &[with("addr", &hex(at.0))]),
            None => self.words.get("story.unchanged").to_owned(),
        };
        shown.push(format!("{}{section}{symbol}, {size}{shown_at}{reason}", hex(patch.addr.0)));
        if patch.shown.is_some() {
            shown.extend(both(self.words, &patch.before.0, &patch.after.0, patch.code.as_ref()));
        }
    }

    fn state(&mut self, state: &State) {
        self.line(
            self.say("story.state", &[with("module", &one_line(&state.module)), with("state", &state.state)]),
        );
    }

    fn notified(&mut self, told: &Notified) {
        let all: Vec<String> =
            told.notifiers.iter().map(|n| format!("{} ({})", n.function, n.priority)).collect();
        let text = self.say("story.notifiers", &[with("state", &told.state), with("list", &all.join(", "))]);
        self.line(text);
    }

    fn protected(&mut self, protected: &Protected) {
        for ProtectedPart { region, addr, size, permissions, .. } in &protected.parts {
            self.line(self.say(
                "story.part",
                &[
                    with("region", region),
                    with("permissions", permissions),
                    with("addr", &hex(addr.0)),
                    with("count", size),
                ],
            ));
        }
    }

    fn call(&mut self, call: &Call) {
        let at = |addr: u64| self.say("story.at", &[with("addr", &hex(addr))]);
        let at = call.addr.map_or(String::new(), |addr| at(addr.0));
        let returns = match call.returns.as_deref() {
            None => String::new(),
            Some("crash") => self.words.get("story.crash").to_owned(),
            Some(value) => self.say("story.returns", &[with("value", &value)]),
        };
        self.line(format!("{}: {}{at}{returns}", one_line(&call.module), call.function));
    }

    fn freed(&mut self, freed: &Freed) {
        if freed.regions.is_empty() {
            self.line(self.words.get("story.nothing_freed"));
        }
        for Region { name, base, allocated, .. } in &freed.regions {
            let base = base.map_or(self.words.get("story.not_known").to_owned(), |base| hex(base.0));
            self.line(
                self.say(
                    "story.freed",
                    &[with("region", name), with("addr", &base), with("count", allocated)],
                ),
            );
        }
    }

    fn finding(&mut self, finding: &FindingEntry) {
        let errno = finding.errno.map_or(String::new(), |errno| format!(" ({})", errno.name()));
        let text = one_line(&finding.explanation).into_owned();
        let severity = self.words.get(&format!("severity.{}", finding.severity.word())).to_owned();
        self.line(format!("{severity} [{}]: {text}{errno}", finding.code));
        for line in finding.dmesg.iter().flat_map(|lines| lines.lines()) {
            self.line(format!("  {}", self.say("story.kernel", &[with("line", &one_line(line))])));
        }
    }

    fn stop(&mut self, stop: &Stop) {
        let text = match stop.errno {
            Some(errno) => self.say("story.stop", &[with("errno", &errno)]),
            None => self.words.get("story.stop_crash").to_owned(),
        };
        self.line(text);
    }
}
