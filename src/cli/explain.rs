//! `kmodld explain`

use std::path::Path;

use kmodld::Error;
use kmodld::explain::search::{errno, of_errno, of_log_line};
use kmodld::explain::spec::rule;
use kmodld::explain::{Explanation, all, explain, families, family, similar};
use kmodld::input::{STDIN, read};

use super::Outcome;
use super::options::Explain;
use super::report;
use super::terminal::{stdout_width, wrap};

/// Columns of a page where nothing tells how wide it may be, and at most: longer lines are hard to read.
const PAGE: usize = 80;

pub fn run(args: &Explain) -> Result<Outcome, Error> {
    let [word] = args.words.as_slice() else {
        // Several words are a line of the log that nobody has quoted.
        let text = args.words.join(" ");
        return if text.is_empty() { shown(&of_families()) } else { of_log(&text) };
    };
    if word == STDIN {
        return of_log_lines();
    }
    if let Some(found) = explain(word) {
        return shown(&page(&found));
    }
    if let Some(family) = family(word) {
        let codes = all().filter(|e| e.family() == family.name);
        return shown(&format!("{}: {}\n\n{}", family.name, family.title, list(codes)));
    }
    if let Some(errno) = errno(word) {
        let codes = list(of_errno(errno));
        return if codes.is_empty() {
            Err(Error::Usage(format!(
                "no finding has the errno {errno}: a module's own init function may return it (LIFE-12)"
            )))
        } else {
            shown(&format!("{} ({}) comes of\n\n{codes}", errno.name(), errno.number()))
        };
    }
    if let Some(rule) = rule(word) {
        let text = format!(
            "{}: a rule that is no finding\n\n{}\n\nSee also: docs/spec/{}.md\n",
            rule.id, rule.text, rule.chapter
        );
        return shown(&reflowed(&text));
    }
    if word.contains(char::is_whitespace) {
        return of_log(word);
    }
    let similar = similar(word);
    let codes = if similar.is_empty() { list(that_speak_of(word)) } else { String::new() };
    if !codes.is_empty() {
        return shown(&format!("pages that speak of {}\n\n{codes}", report::one_line(word)));
    }
    Err(Error::Usage(match similar.as_slice() {
        [] => format!(
            "{word} is no code, family, rule or errno, nor a line of the kernel's log; `kmodld explain` lists the families"
        ),
        codes => format!("no finding has the code {word}; did you mean {}?", codes.join(", ")),
    }))
}

/// The pages that have a word, such as `vermagic`, in their title or their first paragraph.
fn that_speak_of(word: &str) -> impl Iterator<Item = Explanation> {
    let word = word.to_lowercase();
    // What is shorter is in most of them.
    let is_word = word.len() >= 3 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let speaks = move |e: &Explanation| {
        let first = e.text.split("\n\n").next().unwrap_or_default();
        is_word && [e.title, first].iter().any(|text| text.to_lowercase().contains(&word))
    };
    all().filter(speaks)
}

fn shown(text: &str) -> Result<Outcome, Error> {
    report::print(text)?;
    Ok(Outcome::Done)
}

/// The findings that a line of the log may belong to: the page, if it is one.
fn of_log(line: &str) -> Result<Outcome, Error> {
    match of_log_line(line).as_slice() {
        [] => Err(Error::Usage(format!(
            "nothing that the kernel says of loading modules looks like this: {}",
            report::one_line(line)
        ))),
        [one] => shown(&page(one)),
        several => shown(&format!("this may come of\n\n{}", list(several.iter().copied()))),
    }
}

/// The lines of stdin that say something about modules, each with its codes.
fn of_log_lines() -> Result<Outcome, Error> {
    let bytes = read(Path::new(STDIN))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut out = String::new();
    for line in text.lines() {
        let found = of_log_line(line);
        if !found.is_empty() {
            out.push_str(&format!("{}\n", report::one_line(line)));
            out.push_str(&list(found.into_iter()));
        }
    }
    if out.is_empty() {
        return Err(Error::Usage(String::from(
            "stdin: no line of it is one that the kernel says of loading modules",
        )));
    }
    shown(&out)
}

/// One family a line.
fn of_families() -> String {
    let line = |f: kmodld::explain::Family| {
        let codes = report::counted(f.codes, "code", "codes");
        row(&format!("  {:<10} {codes:<9} {}", f.name, f.title), 23)
    };
    let lines: String = families().map(line).collect();
    let more = reflowed(
        "`kmodld explain VER` lists the codes of one, `kmodld explain VER-6` explains a code, \
         `kmodld explain ENOEXEC` and `kmodld explain \"LINE OF DMESG\"` find what it may come of",
    );
    format!("families of findings\n\n{lines}\n{more}")
}

/// One code a line.
fn list(codes: impl Iterator<Item = Explanation>) -> String {
    codes.map(|e| row(&format!("  {:<13} {}", e.code, e.title), 16)).collect()
}

/// A line of a table, whose last columns go on below where they begin.
fn row(line: &str, column: usize) -> String {
    let width = stdout_width();
    let most = |width: usize| width.saturating_mul(2) / 3;
    format!("{}\n", wrap(line, width, width.map_or(column, |width| column.min(most(width)))))
}

fn page(e: &Explanation) -> String {
    let mut text = format!("{}: {}\n\n{}\n", e.code, e.title, e.text);
    let related = e.see_also();
    let chapter = rule(e.code).map(|rule| format!("docs/spec/{}.md", rule.chapter));
    let also: Vec<String> = related.into_iter().map(String::from).chain(chapter).collect();
    if !also.is_empty() {
        text.push_str(&format!("- See also: {}\n", also.join(", ")));
    }
    reflowed(&text)
}

/// Paragraphs and items with lines of the page's width.
fn reflowed(text: &str) -> String {
    let width = stdout_width().map_or(PAGE, |width| width.min(PAGE));
    let mut out = String::new();
    let mut paragraph = String::new();
    let flush = |paragraph: &mut String, out: &mut String| {
        if !paragraph.is_empty() {
            let indent = if paragraph.starts_with("- ") { 2 } else { 0 };
            out.push_str(&wrap(paragraph, Some(width), indent));
            out.push('\n');
            paragraph.clear();
        }
    };
    for line in text.lines() {
        if line.is_empty() || line.starts_with("- ") {
            flush(&mut paragraph, &mut out);
        }
        if line.is_empty() {
            out.push('\n');
            continue;
        }
        if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        paragraph.push_str(line.trim());
    }
    flush(&mut paragraph, &mut out);
    out
}
