//! What the options and the terminal say about text: colours, width, how much of it.

use std::sync::OnceLock;

use anstream::ColorChoice;
use clap::ValueEnum;
use terminal_size::{Width, terminal_size_of};

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How much is told beside the result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// Errors only.
    pub quiet: bool,
    /// Everything.
    pub verbose: bool,
}

static AMOUNT: OnceLock<Amount> = OnceLock::new();

/// Takes over what the options say. Once, before anything is printed.
pub fn set(color: ColorArg, amount: Amount) {
    match color {
        ColorArg::Auto => {}
        ColorArg::Always => ColorChoice::Always.write_global(),
        ColorArg::Never => ColorChoice::Never.write_global(),
    }
    let _ = AMOUNT.set(amount);
}

/// How much to tell.
pub fn amount() -> Amount {
    AMOUNT.get().copied().unwrap_or_default()
}

/// Columns of what stdout goes to: a terminal's, else those of COLUMNS; lines go on as long as they like if neither is known.
pub fn stdout_width() -> Option<usize> {
    static WIDTH: OnceLock<Option<usize>> = OnceLock::new();
    *WIDTH.get_or_init(|| width(terminal_size_of(std::io::stdout())))
}

/// The same of stderr.
pub fn stderr_width() -> Option<usize> {
    static WIDTH: OnceLock<Option<usize>> = OnceLock::new();
    *WIDTH.get_or_init(|| width(terminal_size_of(std::io::stderr())))
}

/// Narrower than this nothing can be read.
const NARROWEST: usize = 20;

fn width(size: Option<(Width, terminal_size::Height)>) -> Option<usize> {
    let of_terminal = size.map(|(Width(width), _)| usize::from(width));
    let given = || std::env::var("COLUMNS").ok()?.parse::<usize>().ok();
    of_terminal.or_else(given).filter(|width| *width > 0).map(|width| width.max(NARROWEST))
}

/// Columns of a text: characters of Chinese, Japanese and Korean take two.
pub fn columns(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

/// Is this a character of two columns? The blocks that Unicode calls wide (UAX 11) and that texts of people have.
const fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{20000}'..='\u{3fffd}')
}

/// May no line begin with it?
const fn stays_behind(c: char) -> bool {
    matches!(c, '，' | '。' | '、' | '：' | '；' | '？' | '！' | '）' | '”' | '》')
}

/// May no line end with it?
const fn stays_before(c: char) -> bool {
    matches!(c, '（' | '“' | '《')
}

/// Where a line may be broken: behind blanks, and on both sides of a wide character.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let mut chars = rest.char_indices().peekable();
        while let Some((_, c)) = chars.next() {
            let Some((at, next)) = chars.peek().copied() else { break };
            let is_wide = (is_wide(c) || is_wide(next)) && next != ' ';
            if (c == ' ' && next != ' ') || (is_wide && c != ' ' && !stays_behind(next) && !stays_before(c)) {
                let piece = rest.get(..at)?;
                rest = rest.get(at..)?;
                return Some(piece);
            }
        }
        Some(std::mem::take(&mut rest)).filter(|piece| !piece.is_empty())
    })
}

/// A line in lines of at most `width` columns, broken between words only; those after the first begin with `indent`
/// blanks. Blanks within a line stay as they are.
pub fn wrap(line: &str, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width.filter(|width| columns(line) > *width) else {
        return line.to_owned();
    };
    let mut out = String::with_capacity(line.len());
    let mut column = 0usize;
    let mut gap = String::new();
    let mut is_empty = true;
    for piece in pieces(line) {
        let word = piece.trim_end_matches(' ');
        if !word.is_empty() {
            let (gap_len, len) = (gap.len(), columns(word));
            if !is_empty && column.saturating_add(gap_len).saturating_add(len) > width {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                out.push_str(&gap);
                column = column.saturating_add(gap_len);
            }
            out.push_str(word);
            column = column.saturating_add(len);
            gap.clear();
            is_empty = false;
        }
        gap.extend(std::iter::repeat_n(' ', piece.len().saturating_sub(word.len())));
    }
    out
}

/// Every line of a text wrapped, behind its own indent and some more.
pub fn wrap_lines(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let wrapped = text.split_inclusive('\n').map(|line| {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let own = body.len().saturating_sub(body.trim_start_matches(' ').len());
        let indent = own.saturating_add(4).min(width / 2);
        format!("{}{end}", wrap(body, Some(width), indent))
    });
    wrapped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        for (line, width, want) in [
            ("one two three", 80, "one two three"),
            ("one two three", 8, "one two\n  three"),
            ("  one two", 6, "  one\n  two"),
            ("/a/very/long/path/that/stays/whole is", 10, "/a/very/long/path/that/stays/whole\n  is"),
            ("a  b", 2, "a\n  b"),
            ("a  b    c", 5, "a  b\n  c"),
            ("", 5, ""),
        ] {
            assert_eq!(wrap(line, Some(width), 2), want, "{line:?} in {width}");
        }
        assert_eq!(wrap("one two", None, 2), "one two");
        // Two columns each, and a line may end behind each, but not before a full stop.
        assert_eq!(columns("内核 a。"), 8);
        for (line, width, want) in [
            ("检查并截去签名。", 8, "检查并截\n  去签\n  名。"),
            ("检查 hdr 视图", 9, "检查 hdr\n  视图"),
            ("（内核）停止", 6, "（内\n  核）\n  停止"),
        ] {
            assert_eq!(wrap(line, Some(width), 2), want, "{line:?} in {width}");
        }
        assert_eq!(wrap_lines("  one two\nthree\n", Some(6)), "  one\n   two\nthree\n");
    }
}
