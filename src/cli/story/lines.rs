//! Lines of stories: columns, numbers, bytes, the arithmetic of a relocation.

use kmodld::trace::event::{Code, Entered, Relocation};
use kmodld::trace::words::{Table, with};

use super::super::report::one_line;
use super::super::terminal::columns;

/// One relocation with its arithmetic, line by line.
pub fn relocation(words: &Table, section: &str, target: &str, record: &Relocation) -> Vec<String> {
    let addend = match record.a {
        a if a < 0 => format!("-{:#x}", a.unsigned_abs()),
        a => format!("{a:#x}"),
    };
    let mut lines = vec![words.fill(
        "story.record",
        &[
            with("entry", &record.entry),
            with("section", &one_line(section)),
            with("place", &format_args!("{}+{:#x}", one_line(target), record.offset)),
            with("symbol", &one_line(&record.symbol_name)),
        ],
    )];
    let s = record.s.map_or(words.get("story.not_known").to_owned(), |s| hex(s.0));
    lines.push(format!("S = {s}, A = {addend}, P = {}", hex(record.p.0)));
    if let (Some(formula), Some(result)) = (record.formula, record.result) {
        let by = |slot: u64| words.fill("story.by_slot", &[with("addr", &hex(slot))]);
        let slot = record.slot.map_or(String::new(), |slot| by(slot.0));
        lines.push(format!("{formula} = {}{slot}", hex(result.0)));
    }
    if record.formula.is_none() && record.after.0.is_empty() {
        lines.push(words.get("story.nothing").to_owned());
        return lines;
    }
    if let (Some(slot), Some(_)) = (record.slot, record.entered) {
        let distance = hex(slot.0.wrapping_sub(record.p.0));
        lines.push(words.fill("story.to_slot", &[with("distance", &distance)]));
    }
    lines.extend(record.entered.map(|Entered { from, to, inverted, value, .. }| {
        let key = if inverted { "story.entered_inverted" } else { "story.entered" };
        let value = format!("{value:#x}");
        words.fill(key, &[with("from", &from), with("to", &to), with("value", &value)])
    }));
    lines.extend(both(words, &record.before.0, &record.after.0, record.code.as_ref()));
    lines
}

/// Bytes before and after, with instructions.
pub fn both(words: &Table, before: &[u8], after: &[u8], code: Option<&Code>) -> Vec<String> {
    let two = |before: &str, after: &str| {
        [("story.before", before), ("story.after", after)]
            .map(|(key, what)| format!("  {}", words.fill(key, &[with("what", &what)])))
    };
    let mut lines = two(&bytes(before), &bytes(after)).to_vec();
    if let Some(code) = code {
        lines.extend(two(&one_line(&code.before), &one_line(&code.after)));
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

pub fn hex(address: u64) -> String {
    format!("{address:#018x}")
}

/// A text with blanks behind it, up to `width` columns.
pub fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

pub fn cut(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text)
}

pub fn mark(with: char, count: u64) -> String {
    std::iter::repeat_n(with, usize::try_from(count).unwrap_or(0)).collect()
}
