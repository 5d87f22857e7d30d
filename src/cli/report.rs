//! What a person reads: the result on stdout, everything else on stderr.

use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use elf_layout::{Errno, Findings, Severity};
use kmodld::Error;
use kmodld::document::{FindingEntry, RegionEntry, SectionEntry, UnjudgedEntry, findings as entries};
use serde::Serialize;

const BOLD: Style = Style::new().bold();

fn colour(severity: Severity) -> Style {
    match severity {
        Severity::Error | Severity::Oops => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default().bold(),
        Severity::Note => AnsiColor::Cyan.on_default(),
    }
}

/// Prints to stdout.
pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(harmless(text).as_bytes())
}

/// Names come from hostile files: what would drive a terminal, or turn what it shows around, is shown as its escape.
fn harmless(text: &str) -> Cow<'_, str> {
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
    let shown = |c: char| if is_bad(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
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
        Progress { on_terminal: std::io::stderr().is_terminal(), shown: false }
    }

    /// Shows how much of how much is done.
    pub fn show(&mut self, done: usize, of: usize) {
        if !self.on_terminal || of == 0 {
            return;
        }
        const WIDTH: usize = 30;
        let full = done.saturating_mul(WIDTH).checked_div(of).unwrap_or(0).min(WIDTH);
        let (full, empty) = ("#".repeat(full), ".".repeat(WIDTH.saturating_sub(full)));
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K[{full}{empty}] {done}/{of}");
        self.shown = true;
    }

    /// Clears the line for something else.
    pub fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The rules that were not judged, a line each, on stderr.
pub fn unjudged(file: &str, rules: &[UnjudgedEntry]) {
    on_stderr(|err, colours| {
        let style = colours.of(AnsiColor::Yellow.on_default().bold());
        for UnjudgedEntry { code, needs } in rules {
            writeln!(err, "{style}unjudged{style:#}[{code}]: {}: needs {needs}", one_line(file))?;
        }
        Ok(())
    });
}

/// An error on stderr.
pub fn error(error: &Error) {
    say(Severity::Error, &error.to_string());
}

fn say(severity: Severity, text: &str) {
    on_stderr(|err, colours| {
        let (style, word) = (colours.of(colour(severity)), severity.word());
        writeln!(err, "{style}{word}{style:#}: {}", one_line(text))
    });
}

/// Are there any?
#[derive(Clone, Copy, Debug)]
struct Colours(bool);

impl Colours {
    fn of(self, style: Style) -> Style {
        if self.0 { style } else { Style::new() }
    }
}

/// Writes a text to stderr in one piece, with colours if it is a terminal. There may be thousands of lines, and every
/// write to stderr is a system call.
fn on_stderr(write: impl FnOnce(&mut Vec<u8>, Colours) -> std::io::Result<()>) {
    let stderr = std::io::stderr();
    let mut text = Vec::new();
    let colours = Colours(AutoStream::choice(&stderr) != ColorChoice::Never);
    // Nobody is left to tell that stderr is closed.
    let _ = write(&mut text, colours).and_then(|()| stderr.lock().write_all(&text));
}

/// A warning on stderr.
pub fn warn(text: &str) {
    say(Severity::Warning, text);
}

/// Something worth knowing, on stderr.
pub fn note(text: &str) {
    say(Severity::Note, text);
}

/// Findings on stderr, each with what the kernel logs of it: nothing behind the one where it stops.
pub fn findings(file: &str, findings: &[FindingEntry]) {
    let stop = findings.iter().position(|f| f.stops_here).unwrap_or(usize::MAX);
    let mut numbered = findings.iter().enumerate();
    on_stderr(|err, colours| {
        numbered.try_for_each(|(at, f)| write_finding(err, colours, file, f, at <= stop))
    });
}

/// One finding on stderr, without what the kernel would log.
pub fn reason(what: &str, f: &FindingEntry) {
    let errno = f.errno.map_or(String::new(), |e| format!(" ({})", e.name()));
    let text = one_line(&f.explanation);
    on_stderr(|err, colours| {
        let (style, bold) = (colours.of(colour(f.severity)), colours.of(BOLD));
        writeln!(
            err,
            "{style}{}[{}]{style:#}: {}: {text}{errno}",
            f.severity.word(),
            f.code,
            one_line(what)
        )?;
        f.hint.iter().try_for_each(|hint| writeln!(err, "    {bold}hint{bold:#}: {}", one_line(hint)))
    });
}

fn write_finding(
    err: &mut impl Write,
    colours: Colours,
    file: &str,
    f: &FindingEntry,
    is_logged: bool,
) -> std::io::Result<()> {
    let (style, bold) = (colours.of(colour(f.severity)), colours.of(BOLD));
    let errno = f.errno.map_or(String::new(), |e| format!(" ({})", e.name()));
    let text = format!("{file}: {}: {}{errno}", f.subject, f.explanation);
    writeln!(err, "{style}{}[{}]{style:#}: {}", f.severity.word(), f.code, one_line(&text))?;
    for line in f.dmesg.iter().filter(|_| is_logged).flat_map(|lines| lines.lines()) {
        writeln!(err, "    kernel: {}", one_line(line))?;
    }
    if let Some(hint) = &f.hint {
        writeln!(err, "    {bold}hint{bold:#}: {}", one_line(hint))?;
    }
    if f.stops_here {
        writeln!(err, "    the kernel stops here")?;
    }
    Ok(())
}

/// A module that the kernel refuses, or that is none.
pub fn refusal(path: &Path, said: &Findings, as_json: bool) -> Result<(), Error> {
    let findings_of = entries(said);
    findings(&path.display().to_string(), &findings_of);
    if said.suppressed() != 0 {
        warn(&format!("{} more findings are not shown", said.suppressed()));
    }
    if as_json {
        let errno = said.errno().map(Errno::name);
        json(
            &serde_json::json!({ "file": path.display().to_string(), "errno": errno, "findings": findings_of }),
        )?;
    }
    let errno = said.errno().map_or(String::new(), |e| format!(" with {e}"));
    warn(&format!("{}: the kernel would refuse this module{errno}", path.display()));
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
