//! What a person reads: the result on stdout, everything else on stderr.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use elf_layout::{Findings, Severity};
use kmodld::Error;
use kmodld::digest::{Digest, Point, fold, unfolded};
use kmodld::document::{
    CauseEntry, FindingEntry, Refusal, RegionEntry, SCHEMA, SectionEntry, UnjudgedEntry, findings as entries,
};
use serde::Serialize;

use super::terminal::{Amount, amount, stderr_width, stdout_width, wrap, wrap_lines};

const BOLD: Style = Style::new().bold();

fn colour(severity: Severity) -> Style {
    match severity {
        Severity::Error | Severity::Oops => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default().bold(),
        Severity::Note => AnsiColor::Cyan.on_default(),
    }
}

/// Prints to stdout, wrapped where its width is known.
pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(wrap_lines(&harmless(text), stdout_width()).as_bytes())
}

/// Names come from hostile files: what would drive a terminal, or turn what it shows around, is shown as its escape.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| drives(c) && c != '\n' && c != '\t')
}

/// A name or message in a text, on one line: what has line ends in it could add lines that nobody has written.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, drives)
}

/// Control characters; the ends of lines that are none; what sets the direction of text.
fn drives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Nothing else is in nearly every text.
    let is_printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if is_printable || !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    // As the kernel's log shows it (`\x1b`), where that has it.
    let escape = |c: char| match c {
        '\n' | '\r' | '\t' => c.escape_default().to_string(),
        _ if c.is_ascii() => format!("\\x{:02x}", u32::from(c)),
        _ => c.escape_default().to_string(),
    };
    let shown = |c: char| if is_bad(c) { escape(c) } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// A line of the story.
#[derive(Debug)]
pub struct Line {
    /// It is the title of a step.
    pub title: bool,
    /// Without line end; names are harmless in it.
    pub text: String,
}

/// Prints a story to stdout: titles of steps stand out where there are colours.
pub fn story(lines: &[Line]) -> Result<(), Error> {
    let has_colours = AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
    let mut out = String::new();
    for Line { title, text } in lines {
        let text = harmless(text);
        if *title && has_colours {
            out.push_str(&format!("{BOLD}{text}{BOLD:#}\n"));
        } else {
            out.push_str(&format!("{text}\n"));
        }
    }
    print_bytes(out.as_bytes())
}

/// Prints bytes to stdout: names of the kernel need not be UTF-8.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever reads stdout has seen enough. Files are written all the same, and the exit code tells the rest.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Error::write(Path::new("stdout"), e)),
    }
}

/// Prints one JSON document on a line.
pub fn json(document: &impl Serialize) -> Result<(), Error> {
    print_bytes(format!("{}\n", json_text(document)?).as_bytes())
}

/// A JSON document, which escapes what it must by itself.
pub fn json_text(document: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(document).map_err(|e| Error::write(Path::new("stdout"), e.into()))
}

/// How far a long run is, on one line of a terminal; elsewhere nothing.
#[derive(Debug)]
pub struct Progress {
    on_terminal: bool,
    shown: bool,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Progress { on_terminal: std::io::stderr().is_terminal() && !amount().quiet, shown: false }
    }

    /// Shows how much of how much is done.
    pub fn show(&mut self, done: usize, of: usize) {
        // What is one step is over by then.
        if !self.on_terminal || of <= 1 {
            return;
        }
        const WIDTH: usize = 30;
        let numbers = format!("{done}/{of}");
        // The brackets, a blank, and the last column, which would begin a line.
        let room =
            stderr_width().map_or(WIDTH, |width| width.saturating_sub(numbers.len().saturating_add(4)));
        let room = room.min(WIDTH);
        let full = done.saturating_mul(room).checked_div(of).unwrap_or(0).min(room);
        let (full, empty) = ("#".repeat(full), ".".repeat(room.saturating_sub(full)));
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K[{full}{empty}] {numbers}");
        self.shown = true;
    }

    /// Clears the line for something else.
    pub fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The rules that were not judged of a module, a line each, on stderr.
pub fn unjudged(rules: &[UnjudgedEntry]) {
    if amount().quiet {
        return;
    }
    on_stderr(|out| {
        for UnjudgedEntry { code, needs, .. } in rules {
            out.line(AnsiColor::Yellow.on_default().bold(), "unjudged", &format!("[{code}]: needs {needs}"));
        }
    });
}

/// An error on stderr.
pub fn error(error: &Error) {
    say(Severity::Error, &error.to_string());
}

fn say(severity: Severity, text: &str) {
    if amount().quiet && !severity.refuses() {
        return;
    }
    on_stderr(|out| out.line(colour(severity), severity.word(), &format!(": {}", one_line(text))));
}

/// A text for stderr while it is made.
struct Lines {
    text: String,
    has_colours: bool,
    width: Option<usize>,
}

impl Lines {
    /// A line that begins with a word in colour.
    fn line(&mut self, style: Style, word: &str, rest: &str) {
        self.indented(0, style, word, rest);
    }

    /// The same behind some blanks.
    fn indented(&mut self, indent: usize, style: Style, word: &str, rest: &str) {
        let style = if self.has_colours { style } else { Style::new() };
        let line = format!("{}{word}{rest}", " ".repeat(indent));
        let line = wrap(&line, self.width, indent.saturating_add(4));
        // The word comes first and is in one piece.
        let behind = line.get(indent.saturating_add(word.len())..).unwrap_or_default();
        self.text.push_str(&format!("{}{style}{word}{style:#}{behind}\n", " ".repeat(indent)));
    }
}

/// Writes a text to stderr in one piece, with colours if it is a terminal. There may be thousands of lines, and every
/// write to stderr is a system call.
fn on_stderr(write: impl FnOnce(&mut Lines)) {
    let stderr = std::io::stderr();
    let has_colours = AutoStream::choice(&stderr) != ColorChoice::Never;
    let mut lines = Lines { text: String::new(), has_colours, width: stderr_width() };
    write(&mut lines);
    // Nobody is left to tell that stderr is closed.
    let _ = stderr.lock().write_all(lines.text.as_bytes());
}

/// A warning on stderr.
pub fn warn(text: &str) {
    say(Severity::Warning, text);
}

/// Something worth knowing, on stderr.
pub fn note(text: &str) {
    say(Severity::Note, text);
}

/// What a run has told already, and need not tell again.
#[derive(Debug, Default)]
pub struct Told {
    hints: HashSet<String>,
    /// Warnings without the name of the module.
    warnings: HashSet<String>,
}

/// Is it in the set for the first time?
fn is_new(set: &mut HashSet<String>, text: &str) -> bool {
    if set.contains(text) {
        return false;
    }
    if set.len() < KEPT {
        set.insert(text.to_owned());
    }
    true
}

/// A hostile tree can have a hint of its own for every module.
const KEPT: usize = 1000;

impl Told {
    /// Is the hint new?
    fn is_new(&mut self, hint: &str) -> bool {
        is_new(&mut self.hints, hint)
    }

    /// Of many modules, each warning is shown of the first that has it. The summary counts them.
    fn is_new_warning(&mut self, name: &str, point: &Point<'_>) -> bool {
        point.severity.refuses()
            || is_new(&mut self.warnings, &format!("{} {}", point.code, point.text.replace(name, "\0")))
    }

    /// What is found of a module, on stderr: the cause, what refuses it, the rest. At most `most` points, unless all of it is wanted.
    pub fn findings(
        &mut self,
        name: &str,
        cause: Option<&CauseEntry>,
        findings: &[FindingEntry],
        most: usize,
    ) {
        let Amount { quiet, verbose } = amount();
        if quiet {
            return;
        }
        let (points, hidden) = if verbose {
            (unfolded(findings), Vec::new())
        } else {
            let Digest { points, hidden, .. } = fold(findings, cause.is_some());
            (points, hidden)
        };
        let mut points = points;
        if most != usize::MAX {
            points.retain(|point| self.is_new_warning(name, point));
        }
        // One cause is enough of a module among many.
        let most = if most != usize::MAX && cause.is_some() { 0 } else { most };
        let (shown, rest) = points.split_at(most.min(points.len()));
        on_stderr(|out| {
            if let Some(CauseEntry { text, hint, .. }) = cause {
                out.line(colour(Severity::Error), "cause", &format!(": {}", one_line(text)));
                self.hint(out, hint);
            }
            for point in shown {
                self.point(out, name, point, cause.is_some());
            }
            if most == usize::MAX && !hidden.is_empty() {
                let each = hidden.iter().map(|(code, count)| match count {
                    1 => String::from(*code),
                    _ => format!("{code} ({count} times)"),
                });
                let each = each.collect::<Vec<_>>().join(", ");
                out.line(colour(Severity::Note), "note", &format!(": with -v also {each}"));
            } else if most != 0 && !rest.is_empty() {
                let more = counted(rest.len(), "more point is", "more points are");
                out.line(colour(Severity::Note), "note", &format!(": {name}: {more} shown with -v"));
            }
        });
    }

    /// What refuses a step, on stderr, without what the kernel logs.
    pub fn reasons(&mut self, step: &str, findings: &[FindingEntry]) {
        let Amount { quiet, verbose } = amount();
        if quiet {
            return;
        }
        let points = if verbose { unfolded(findings) } else { fold(findings, false).points };
        on_stderr(|out| {
            for point in points.iter().filter(|point| point.severity.refuses()) {
                let errno = point.errno.map_or(String::new(), |e| format!(" ({})", e.name()));
                let text = format!("[{}]: {step}: {}{errno}", point.code, point.text);
                out.line(colour(point.severity), point.severity.word(), &one_line(&text));
                if let Some(hint) = point.hint {
                    self.hint(out, hint);
                }
            }
        });
    }

    fn hint(&mut self, out: &mut Lines, hint: &str) {
        if self.is_new(hint) {
            out.indented(4, BOLD, "hint", &format!(": {}", one_line(hint)));
        }
    }

    /// One point; `name` is the module's.
    fn point(&mut self, out: &mut Lines, name: &str, point: &Point<'_>, has_cause: bool) {
        let Point { code, severity, errno, text, dmesg, hint, is_of_other_headers, stops_here, .. } = point;
        let errno = errno.map_or(String::new(), |e| format!(" ({})", e.name()));
        let name = if text.starts_with(name) { String::new() } else { format!("{name}: ") };
        let text = format!("[{code}]: {name}{text}{errno}");
        out.line(colour(*severity), severity.word(), &one_line(&text));
        for line in dmesg {
            out.indented(4, Style::new(), "kernel:", &format!(" {}", one_line(line)));
        }
        // The hint of the cause is enough.
        if let Some(hint) = hint.filter(|_| !(has_cause && *is_of_other_headers)) {
            self.hint(out, hint);
        }
        if *stops_here {
            out.indented(4, Style::new(), "the", " kernel stops here");
        }
    }
}

/// `1 module`, `2 modules`.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What a module is called where its file is named already.
pub fn short_name<'n>(module: Option<&'n str>, file: &'n str) -> &'n str {
    module.unwrap_or_else(|| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.split_once(".ko").map_or(name, |(name, _)| name)
    })
}

/// A module that the kernel refuses, or that is none.
pub fn refusal(path: &Path, cause: Option<&CauseEntry>, said: &Findings, as_json: bool) -> Result<(), Error> {
    let refusal = Refusal {
        schema: SCHEMA,
        file: path.display().to_string(),
        errno: said.errno(),
        findings: entries(said),
    };
    if as_json {
        json(&refusal)?;
    }
    let Refusal { file, findings, .. } = refusal;
    let errno = said.errno().map_or(String::new(), |e| format!(" with {e}"));
    say(Severity::Error, &format!("{file}: the kernel would refuse this module{errno}"));
    Told::default().findings(short_name(None, &file), cause, &findings, usize::MAX);
    if said.suppressed() != 0 {
        warn(&format!("{} more findings are not kept", said.suppressed()));
    }
    Ok(())
}

/// A table of regions.
pub fn write_regions(out: &mut String, regions: &[RegionEntry]) -> fmt::Result {
    use fmt::Write;
    writeln!(out, "  {:<14} {:<18} {:>9}", "name", "base", "size")?;
    regions.iter().try_for_each(|r| writeln!(out, "  {:<14} {} {:>9}", r.name, r.base, r.size))
}

/// A table of sections.
pub fn write_sections<'s>(
    out: &mut String,
    sections: impl IntoIterator<Item = &'s SectionEntry>,
) -> fmt::Result {
    use fmt::Write;
    writeln!(
        out,
        "  {:>5}  {:<18} {:<14} {:>8} {:>9}  name",
        "index", "address", "region", "offset", "size"
    )?;
    for s in sections {
        let offset = s.offset.map_or(String::from("-"), |o| format!("{o:#x}"));
        let (addr, region) = (s.addr.as_deref().unwrap_or("-"), s.region.unwrap_or("-"));
        writeln!(
            out,
            "  {:>5}  {addr:<18} {region:<14} {offset:>8} {:>9}  {}",
            s.index,
            s.size,
            one_line(&s.name)
        )?;
    }
    Ok(())
}
