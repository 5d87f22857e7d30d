//! The story as one HTML page that needs nothing else: no network, no tool that builds it. Its script makes everything from the events
//! that the page carries. What is large of them is packed, in chunks that are unpacked when they are looked at.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::thread;

use flate2::{Compression, GzBuilder};
use serde::Serialize;

use super::event::{Address, Event, Patch, Relocation, Relocations, Symbol};
use super::words::Lang;

/// So many rows are in one chunk.
const ROWS: usize = 20_000;
/// A story with more rows than that is packed faster, and less.
const MANY: usize = 100_000;

/// One event of the page: as it is, or what stands for it with its rows in chunks.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'e> {
    Whole(&'e Event),
    Relocations {
        event: &'static str,
        section: usize,
        name: &'e str,
        target: usize,
        target_name: &'e str,
        target_addr: Address,
        count: usize,
        chunks: Vec<usize>,
    },
    Rows {
        event: &'static str,
        count: usize,
        chunks: Vec<usize>,
    },
}

/// Rows of a chunk, column by column: alike values next to each other pack well.
#[derive(Serialize)]
#[serde(untagged)]
enum Chunk<'e> {
    Relocations(Box<RelocationColumns<'e>>),
    Symbols(SymbolColumns<'e>),
    Patches(&'e [&'e Patch]),
}

/// S, P and the names of symbols follow from other rows.
#[derive(Default, Serialize)]
struct RelocationColumns<'e> {
    /// The values of `type`, by number.
    types: Vec<&'e str>,
    /// The values of `formula`, by number.
    formulas: Vec<Option<&'static str>>,
    offset: Vec<u64>,
    kind: Vec<usize>,
    symbol: Vec<u32>,
    a: Vec<i64>,
    result: Vec<Option<Address>>,
    /// Number, and value.
    slots: Vec<(usize, Address)>,
    /// By number of the type: the lowest and the highest bit that go into an instruction.
    bits: Vec<Option<(u32, u32)>>,
    entered: Vec<Option<u64>>,
    /// Numbers of those whose bits are inverted.
    inverted: Vec<usize>,
    /// Numbers of those that others overlap.
    shared: Vec<usize>,
    /// Bytes of all of them in a row; how many each has.
    width: Vec<usize>,
    before: String,
    after: String,
    /// Where the instruction begins: bytes before the place; its bytes. Null if it is no code.
    code: Vec<Option<(u64, u64)>>,
    code_before: Vec<&'e str>,
    code_after: Vec<&'e str>,
}

#[derive(Default, Serialize)]
struct SymbolColumns<'e> {
    index: Vec<usize>,
    name: Vec<&'e str>,
    section: Vec<u16>,
    file_value: Vec<u64>,
    value: Vec<Option<Address>>,
    size: Vec<u64>,
}

impl<'e> RelocationColumns<'e> {
    fn of(records: &'e [Relocation]) -> Self {
        let mut columns = RelocationColumns::default();
        let mut types: HashMap<&str, usize> = HashMap::new();
        for (n, record) in records.iter().enumerate() {
            let kind = *types.entry(&record.kind).or_insert_with(|| {
                columns.types.push(&record.kind);
                columns.formulas.push(record.formula);
                columns.bits.push(None);
                columns.types.len().saturating_sub(1)
            });
            if let Some((bits @ None, entered)) = columns.bits.get_mut(kind).zip(record.entered) {
                *bits = Some((entered.from, entered.to));
            }
            columns.offset.push(record.offset);
            columns.kind.push(kind);
            columns.symbol.push(record.symbol);
            columns.a.push(record.a);
            columns.result.push(record.result);
            columns.slots.extend(record.slot.map(|slot| (n, slot)));
            columns.entered.push(record.entered.map(|entered| entered.value));
            columns.inverted.extend(record.entered.is_some_and(|entered| entered.inverted).then_some(n));
            columns.shared.extend(record.shared.then_some(n));
            columns.width.push(record.after.0.len());
            columns.before.push_str(&record.before.hex());
            columns.after.push_str(&record.after.hex());
            let code = record.code.as_ref();
            columns.code.push(code.map(|code| (record.p.0.saturating_sub(code.addr.0), code.size)));
            columns.code_before.push(code.map_or("", |code| &code.before));
            columns.code_after.push(code.map_or("", |code| &code.after));
        }
        columns
    }
}

impl<'e> SymbolColumns<'e> {
    fn of(symbols: &'e [Symbol]) -> Self {
        SymbolColumns {
            index: symbols.iter().map(|symbol| symbol.index).collect(),
            name: symbols.iter().map(|symbol| symbol.name.as_str()).collect(),
            section: symbols.iter().map(|symbol| symbol.section).collect(),
            file_value: symbols.iter().map(|symbol| symbol.file_value).collect(),
            value: symbols.iter().map(|symbol| symbol.value).collect(),
            size: symbols.iter().map(|symbol| symbol.size).collect(),
        }
    }
}

/// Rows that become chunks.
enum Rows<'e> {
    Relocations(&'e [Relocation]),
    Symbols(&'e [Symbol]),
    Patches(Vec<&'e Patch>),
}

/// The page of these events; it opens at `step`, if that is given.
///
/// # Errors
///
/// If packing fails, which memory alone can make it.
pub fn page(events: &[Event], lang: Lang, step: Option<&str>) -> io::Result<String> {
    let mut chunks: Vec<Rows<'_>> = Vec::new();
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut patches: Vec<&Patch> = Vec::new();
    for event in events {
        if let Event::Patch(patch) = event {
            patches.push(patch);
            continue;
        }
        flush(&mut patches, &mut chunks, &mut entries);
        match event {
            Event::Relocations(table) => {
                let numbers = add(&mut chunks, table.records.chunks(ROWS).map(Rows::Relocations));
                let Relocations { section, name, target, target_name, target_addr, records } = table;
                entries.push(Entry::Relocations {
                    event: "relocations",
                    section: *section,
                    name,
                    target: *target,
                    target_name,
                    target_addr: *target_addr,
                    count: records.len(),
                    chunks: numbers,
                });
            }
            Event::Symbols(table) => {
                let numbers = add(&mut chunks, table.symbols.chunks(ROWS).map(Rows::Symbols));
                entries.push(Entry::Rows { event: "symbols", count: table.symbols.len(), chunks: numbers });
            }
            event => entries.push(Entry::Whole(event)),
        }
    }
    flush(&mut patches, &mut chunks, &mut entries);
    let rows = chunks.iter().map(|rows| match rows {
        Rows::Relocations(rows) => rows.len(),
        Rows::Symbols(rows) => rows.len(),
        Rows::Patches(rows) => rows.len(),
    });
    let level = if rows.sum::<usize>() > MANY { Compression::fast() } else { Compression::default() };
    let overview = packed(&entries, level)?;
    let packed = in_threads(&chunks, level)?;
    Ok(html(events, lang, step, &overview, &packed))
}

/// Consecutive patches become one entry.
fn flush<'e>(patches: &mut Vec<&'e Patch>, chunks: &mut Vec<Rows<'e>>, entries: &mut Vec<Entry<'e>>) {
    if patches.is_empty() {
        return;
    }
    let count = patches.len();
    let parts: Vec<Rows<'e>> = patches.chunks(ROWS).map(|part| Rows::Patches(part.to_vec())).collect();
    patches.clear();
    entries.push(Entry::Rows { event: "patches", count, chunks: add(chunks, parts) });
}

/// Adds chunks; their numbers.
fn add<'e>(chunks: &mut Vec<Rows<'e>>, more: impl IntoIterator<Item = Rows<'e>>) -> Vec<usize> {
    let from = chunks.len();
    chunks.extend(more);
    (from..chunks.len()).collect()
}

/// All chunks packed, on as many threads as there are processors.
fn in_threads(chunks: &[Rows<'_>], level: Compression) -> io::Result<Vec<String>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = chunks.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = chunks
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(|rows| chunk(rows, level)).collect()))
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            let part: io::Result<Vec<String>> =
                worker.join().map_err(|_| io::Error::other("a thread that packs has died"))?;
            all.extend(part?);
        }
        Ok(all)
    })
}

fn chunk(rows: &Rows<'_>, level: Compression) -> io::Result<String> {
    match rows {
        Rows::Relocations(rows) => packed(&Chunk::Relocations(Box::new(RelocationColumns::of(rows))), level),
        Rows::Symbols(rows) => packed(&Chunk::Symbols(SymbolColumns::of(rows)), level),
        Rows::Patches(rows) => packed(&Chunk::Patches(rows), level),
    }
}

/// A value as JSON, packed, in the letters of base64.
fn packed(value: &impl Serialize, level: Compression) -> io::Result<String> {
    // Without name and time the same story makes the same page.
    let mut out = GzBuilder::new().write(Vec::new(), level);
    out.write_all(&serde_json::to_vec(value)?)?;
    Ok(base64(&out.finish()?))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |n: u32| LETTERS.get((n & 63) as usize).copied().map_or('=', char::from);
    let mut out = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        out.push(letter(word >> 18));
        out.push(letter(word >> 12));
        out.push(if chunk.len() > 1 { letter(word >> 6) } else { '=' });
        out.push(if chunk.len() > 2 { letter(word) } else { '=' });
    }
    out
}

fn html(events: &[Event], lang: Lang, step: Option<&str>, overview: &str, chunks: &[String]) -> String {
    let module = events.iter().find_map(|event| match event {
        Event::Begin(begin) => Some(begin.module.as_deref().unwrap_or(&begin.file)),
        _ => None,
    });
    let words = lang.table();
    let title = words.get("ui.title").replace("{module}", module.unwrap_or_default());
    let mut data = String::with_capacity(chunks.iter().map(String::len).sum::<usize>().saturating_add(4096));
    data.push_str(&script("overview", overview));
    for (number, chunk) in chunks.iter().enumerate() {
        data.push_str(&script(&format!("chunk-{number}"), chunk));
    }
    let mut out = String::with_capacity(data.len().saturating_add(1 << 17));
    // In one go: nothing that is filled in is looked at for more.
    for (n, part) in include_str!("page/page.html").split("@@").enumerate() {
        out.push_str(&match part {
            part if n.is_multiple_of(2) => Cow::Borrowed(part),
            "lang" => Cow::Borrowed(lang.tag()),
            "title" => escaped(&title),
            "no_script" => escaped(words.get("ui.no_script")),
            "css" => Cow::Borrowed(include_str!("page/page.css")),
            "js" => Cow::Borrowed(include_str!("page/page.js")),
            "words" => Cow::Owned(lang.json().replace('<', "\\u003c")),
            "step" => Cow::Borrowed(step.unwrap_or_default()),
            "data" => Cow::Borrowed(data.as_str()),
            _ => Cow::Borrowed(""),
        });
    }
    out
}

/// A block of data that the script finds by its id.
fn script(id: &str, text: &str) -> String {
    format!("<script type=\"application/gzip\" id=\"{id}\">{text}</script>\n")
}

/// Text in HTML.
fn escaped(text: &str) -> Cow<'_, str> {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    Cow::Owned(text)
}

#[cfg(test)]
#[allow(clippy::restriction, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (bytes, want) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn names_do_not_become_tags() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
