//! Findings as a person wants them: what refuses the module first, repeats folded into one, consequences left out.
//! Everything is still in the findings themselves.

use std::borrow::Cow;
use std::collections::HashMap;

use elf_layout::validity::THIS_MODULE;
use elf_layout::{Errno, Severity};
use symres::hints::is_of_other_headers;

use crate::document::FindingEntry;

/// More names than these are counted, not listed.
const NAMES_SHOWN: usize = 4;

/// Where findings that are one point log more lines, only those of the first are shown.
const LOG_SHOWN: usize = 4;

/// One thing to tell.
#[derive(Debug)]
#[non_exhaustive]
pub struct Point<'f> {
    /// Rule of the specification.
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// What the system call returns because of it.
    pub errno: Option<Errno>,
    /// What is wrong.
    pub text: Cow<'f, str>,
    /// What the kernel logs: of a few findings all, of many what it says of the first.
    pub dmesg: Vec<&'f str>,
    /// What to do.
    pub hint: Option<&'f str>,
    /// Other headers explain it.
    pub is_of_other_headers: bool,
    /// The kernel stops at one of them.
    pub stops_here: bool,
}

/// What to tell of one module.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Digest<'f> {
    /// The points: where the kernel stops, other refusals, the rest.
    pub points: Vec<Point<'f>>,
    /// The codes of the findings that no point stands for, with how many there are, in the order of the findings.
    pub hidden: Vec<(&'static str, usize)>,
}

impl Digest<'_> {
    /// How many findings no point stands for.
    pub fn hidden_findings(&self) -> usize {
        self.hidden.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// Findings that are one point.
struct Group<'f> {
    first: &'f FindingEntry,
    names: Vec<&'f str>,
    count: usize,
    /// What the kernel logs of them, up to a line more than is shown of several.
    dmesg: Vec<&'f str>,
    /// How many of these lines are of the first.
    of_first: usize,
    stops_here: bool,
}

impl<'f> Group<'f> {
    /// Takes lines of the finding that was counted last.
    fn log(&mut self, lines: impl Iterator<Item = &'f str>) {
        let room = LOG_SHOWN.saturating_add(1).saturating_sub(self.dmesg.len());
        // The first one's lines are all kept.
        let room = if self.count == 1 { usize::MAX } else { room };
        self.dmesg.extend(lines.take(room));
        if self.count == 1 {
            self.of_first = self.dmesg.len();
        }
    }
}

/// The findings of a module, folded. `has_cause` says that one cause is told for all that comes of other headers.
pub fn fold(findings: &[FindingEntry], has_cause: bool) -> Digest<'_> {
    let stop = findings.iter().position(|f| f.stops_here).unwrap_or(usize::MAX);
    let is_refused = findings.iter().any(|f| f.severity.refuses());
    let mut digest = Digest::default();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut index: HashMap<(&str, u16, String), usize> = HashMap::new();
    let mut last: Option<usize> = None;
    for (at, f) in findings.iter().enumerate() {
        let log = || f.dmesg.iter().filter(|_| at <= stop).flat_map(|lines| lines.lines());
        let explained = has_cause && !f.stops_here && is_explained(f);
        // Of a module that is refused, what does not refuse it is of little interest, but for what somebody has just typed.
        let beside = is_refused && !f.severity.refuses() && f.code != "PARAM-32";
        if is_consequence(f) || beside || explained {
            hide(&mut digest.hidden, f.code);
            // What the kernel says of the consequence belongs to what it follows from.
            if let Some(cause) = last.and_then(|last| groups.get_mut(last)).filter(|_| is_consequence(f)) {
                cause.stops_here |= f.stops_here;
                cause.log(log());
            }
            continue;
        }
        let key = (f.code, f.errno.map_or(0, Errno::number), shape(f));
        let new = groups.len();
        let here = *index.entry(key).or_insert(new);
        if here == new {
            let group = Group {
                first: f,
                names: Vec::new(),
                count: 0,
                dmesg: Vec::new(),
                of_first: 0,
                stops_here: false,
            };
            groups.push(group);
        }
        last = Some(here);
        if let Some(group) = groups.get_mut(here) {
            group.count = group.count.saturating_add(1);
            group.log(log());
            group.stops_here |= f.stops_here;
            group.names.extend(Some(name(f)).filter(|_| group.names.len() <= NAMES_SHOWN));
        }
    }
    // A stable sort: the kernel's own order stays within each kind.
    groups.sort_by_key(|group| (!group.stops_here, rank(group.first.severity)));
    digest.points = groups.into_iter().map(point).collect();
    digest
}

/// Every finding by itself, in the kernel's order, with what it is about.
pub fn unfolded(findings: &[FindingEntry]) -> Vec<Point<'_>> {
    let stop = findings.iter().position(|f| f.stops_here).unwrap_or(usize::MAX);
    let point = |(at, f): (usize, _)| {
        let f: &FindingEntry = f;
        Point {
            code: f.code,
            severity: f.severity,
            errno: f.errno,
            text: if f.subject == "module" {
                Cow::Borrowed(&*f.explanation)
            } else {
                Cow::Owned(format!("{}: {}", f.subject, f.explanation))
            },
            dmesg: f.dmesg.iter().filter(|_| at <= stop).flat_map(|lines| lines.lines()).collect(),
            hint: f.hint.as_deref(),
            is_of_other_headers: is_explained(f),
            stops_here: f.stops_here,
        }
    };
    findings.iter().enumerate().map(point).collect()
}

/// Do other headers explain it? A struct module of another layout takes its relocations for the kernel's own fields.
fn is_explained(f: &FindingEntry) -> bool {
    is_of_other_headers(f.code, f.exporter.as_deref())
        || (f.subject.starts_with("relocation ") && f.subject.contains(THIS_MODULE))
}

/// Rules that say again what a rule named before has said.
fn is_consequence(f: &FindingEntry) -> bool {
    matches!(f.code, "SYM-5b" | "PARAM-22" | "LIC-4")
}

fn hide(hidden: &mut Vec<(&'static str, usize)>, code: &'static str) {
    match hidden.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count = count.saturating_add(1),
        None => hidden.push((code, 1)),
    }
}

/// The worst comes first.
fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Error | Severity::Oops => 0,
        Severity::Warning => 1,
        Severity::Note => 2,
    }
}

/// The name that a finding is about: a symbol's, or the whole subject.
fn name(f: &FindingEntry) -> &str {
    symbol(f).unwrap_or(&f.subject)
}

/// `printk` of `symbol 26 printk`.
fn symbol(f: &FindingEntry) -> Option<&str> {
    let (_, name) = f.subject.strip_prefix("symbol ")?.split_once(' ')?;
    Some(name).filter(|name| !name.is_empty())
}

/// What findings that can be told as one have in common.
fn shape(f: &FindingEntry) -> String {
    if f.code == "VER-6" {
        let stop = if f.stops_here { "stop " } else { "" };
        return format!("{stop}{}", f.exporter.as_deref().unwrap_or_default());
    }
    if f.subject == "module" {
        return f.explanation.to_string();
    }
    let text = match symbol(f) {
        Some(symbol) => f.explanation.replace(symbol, "\0"),
        None => f.explanation.to_string(),
    };
    let kind = f.subject.split(' ').next().unwrap_or_default();
    let mut shape = format!("{kind}\0");
    let mut in_number = false;
    for c in text.chars() {
        let is_digit = c.is_ascii_digit() || (in_number && (c.is_ascii_hexdigit() || c == 'x'));
        if !is_digit {
            shape.push(c);
        } else if !in_number {
            shape.push('#');
        }
        in_number = is_digit;
    }
    shape
}

fn point(group: Group<'_>) -> Point<'_> {
    let Group { first, names, count, mut dmesg, of_first, stops_here } = group;
    if dmesg.len() > LOG_SHOWN {
        dmesg.truncate(of_first);
    }
    let text = if count == 1 { with_subject(first) } else { folded(first, &names, count) };
    Point {
        code: first.code,
        severity: first.severity,
        errno: first.errno,
        text,
        dmesg,
        hint: first.hint.as_deref(),
        is_of_other_headers: is_explained(first),
        stops_here,
    }
}

/// What it is about, unless the explanation says so.
fn with_subject(f: &FindingEntry) -> Cow<'_, str> {
    if f.subject == "module" || symbol(f).is_some_and(|symbol| f.explanation.contains(symbol)) {
        return Cow::Borrowed(&f.explanation);
    }
    Cow::Owned(format!("{}: {}", f.subject, f.explanation))
}

fn folded<'f>(first: &'f FindingEntry, names: &[&str], count: usize) -> Cow<'f, str> {
    let list = |names: &[&str], count: usize| {
        let shown = names.get(..names.len().min(NAMES_SHOWN)).unwrap_or(names);
        match count.saturating_sub(shown.len()) {
            0 => shown.join(", "),
            more => format!("{} and {more} more (-v lists them)", shown.join(", ")),
        }
    };
    let text = match first.exporter.as_deref().filter(|_| first.code == "VER-6") {
        Some(exporter) => {
            let from = if exporter == "vmlinux" { "the kernel itself" } else { exporter };
            format!("{count} symbols with another CRC, all from {from}: {}", list(names, count))
        }
        None => {
            let others = names.get(1..).unwrap_or(&[]);
            let others = list(others, count.saturating_sub(1));
            format!("{}; likewise {others}", with_subject(first))
        }
    };
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: &'static str, subject: &str, explanation: &str) -> FindingEntry {
        FindingEntry {
            code,
            errno: Some(Errno::EINVAL),
            dmesg: Some(format!("log of {subject}")),
            severity: Severity::Error,
            subject: subject.to_owned(),
            explanation: explanation.to_owned().into(),
            hint: Some(String::from("mend it")),
            exporter: None,
            stops_here: false,
        }
    }

    #[test]
    fn repeats_are_one_point() {
        let crc = |n: usize, exporter: &str| FindingEntry {
            exporter: Some(exporter.to_owned()),
            ..finding("VER-6", &format!("symbol {n} s{n}"), &format!("built against s{n} with CRC {n}"))
        };
        let mut findings: Vec<FindingEntry> = (0..12).map(|n| crc(n, "nf_conntrack")).collect();
        findings.push(crc(12, "vmlinux"));
        findings.push(finding("SYM-5", "symbol 1 one", "nothing exports one"));
        findings.push(finding("SYM-5", "symbol 2 two", "nothing exports two"));
        findings.push(finding("SYM-5", "symbol 3 three", "module x exports three"));
        let digest = fold(&findings, false);
        let texts: Vec<&str> = digest.points.iter().map(|p| &*p.text).collect();
        let want = [
            "12 symbols with another CRC, all from nf_conntrack: s0, s1, s2, s3 and 8 more (-v lists them)",
            "built against s12 with CRC 12",
            "nothing exports one; likewise two",
            "module x exports three",
        ];
        assert_eq!(texts, want);
        assert_eq!(digest.points[0].dmesg, ["log of symbol 0 s0"]);
        assert_eq!(unfolded(&findings).len(), findings.len());
    }

    #[test]
    fn the_stop_comes_first_and_consequences_not_at_all() {
        let warning = FindingEntry {
            severity: Severity::Warning,
            errno: None,
            ..finding("LIC-2", "module", "taint O")
        };
        let stop = FindingEntry { stops_here: true, ..finding("SYM-5b", "symbol 2 b", "b exists, but") };
        let findings = [
            warning,
            finding("NS-2", "symbol 1 a", "a is in a namespace"),
            finding("SYM-5b", "symbol 1 a", "a exists, but"),
            finding("VER-7", "symbol 2 b", "b has no CRC"),
            stop,
            finding("SYM-5", "symbol 3 c", "nothing exports c"),
        ];
        let digest = fold(&findings, false);
        let codes: Vec<(&str, bool)> = digest.points.iter().map(|p| (p.code, p.stops_here)).collect();
        assert_eq!(codes, [("VER-7", true), ("NS-2", false), ("SYM-5", false)]);
        assert_eq!(digest.points[0].dmesg, ["log of symbol 2 b", "log of symbol 2 b"]);
        assert_eq!(digest.points[2].dmesg, [""; 0], "the kernel has stopped before");
        assert_eq!(digest.hidden, [("LIC-2", 1), ("SYM-5b", 2)]);
        assert_eq!(digest.hidden_findings(), 3);
    }

    #[test]
    fn a_cause_stands_for_what_comes_of_it() {
        let stop = FindingEntry { stops_here: true, ..finding("VAL-48", "section 1 .x", "has 1 byte") };
        let findings = [
            stop,
            finding("VER-23", "module", "another release"),
            finding("SYM-5", "symbol 3 c", "nothing exports c"),
        ];
        let codes = |cause| -> Vec<&str> { fold(&findings, cause).points.iter().map(|p| p.code).collect() };
        assert_eq!(codes(true), ["VAL-48", "SYM-5"]);
        assert_eq!(codes(false), ["VAL-48", "VER-23", "SYM-5"]);
    }
}
