//! Finding the kallsyms tables by their structure (spec 09 §9.3, steps 1 to 4).
//!
//! The token table gives itself away: the tokens of the ten digits are the
//! digits. The u16 offsets behind it prove it. The markers before it prove the
//! names, and the names prove the markers.

use alloc::vec::Vec;

use memchr::{memchr, memmem};

use crate::Error;
use crate::bytes::{align_up, le16, le32, size32, slice};

/// Tokens 0x30 to 0x39.
const DIGITS: &[u8; 20] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
/// Longest token table: 256 tokens of at most so many bytes.
const TOKENS_MAX: usize = 256 * 64;
/// Symbols between two markers.
const GROUP: usize = 256;
/// Least and most bytes of one group of compressed names.
const GROUP_MIN: usize = GROUP * 2;
const GROUP_MAX: usize = GROUP * 514;
/// How far before the token table the markers may begin: 3 bytes of seqs and a
/// 64th of a marker per symbol lie between.
const MARKERS_REACH: usize = 12 << 20;
/// Most symbols that are believed.
const COUNT_MAX: usize = 1 << 22;
/// Words that the whole search may look at.
const BUDGET: usize = 1 << 26;

/// The tables that the names need.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// `kallsyms_num_syms`: where it stands, and what it says.
    pub(crate) count_at: usize,
    pub(crate) count: usize,
    /// `kallsyms_names`.
    pub(crate) names: usize,
    /// Where each token starts, and where the last ends.
    token_starts: Vec<usize>,
    /// `kallsyms_token_index`.
    pub(crate) token_index: usize,
}

impl Tables {
    /// The 256 tokens.
    pub(crate) fn tokens<'d>(&self, data: &'d [u8]) -> Vec<&'d [u8]> {
        let ends = self.token_starts.iter().skip(1);
        let token = |(start, end): (&usize, &usize)| data.get(*start..end.saturating_sub(1)).unwrap_or(&[]);
        self.token_starts.iter().zip(ends).map(token).collect()
    }

    /// The end of the token index, where later tables follow since 6.4.
    pub(crate) fn end(&self) -> usize {
        self.token_index.saturating_add(512)
    }
}

/// What a hostile image may cost.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, words: usize) -> Option<()> {
        let left = self.0.checked_sub(words);
        self.0 = left.unwrap_or(0);
        left.map(|_| ())
    }
}

/// Finds the tables.
pub(crate) fn find(data: &[u8]) -> Result<Tables, Error> {
    let mut budget = Budget(BUDGET);
    let mut nothing =
        "no token table (the digits 0 to 9 as NUL-terminated strings); built without CONFIG_KALLSYMS?";
    for hit in memmem::find_iter(data, DIGITS) {
        let Some((token_starts, token_index)) = tokens_around(data, hit, &mut budget) else {
            continue;
        };
        nothing = "a token table, but no names and markers that fit together before it";
        let table = token_starts.first().copied().unwrap_or(0);
        let Some((count_at, count, names)) = names_before(data, table, &mut budget) else {
            continue;
        };
        return Ok(Tables { count_at, count, names, token_starts, token_index });
    }
    if budget.0 == 0 {
        nothing = "gave up: endlessly many places that look like tables";
    }
    Err(Error::NoKallsyms(nothing))
}

/// Steps 1 and 2: the token table around the digits at `hit`, and its index.
fn tokens_around(data: &[u8], hit: usize, budget: &mut Budget) -> Option<(Vec<usize>, usize)> {
    budget.spend(TOKENS_MAX / 4)?;
    // Backwards: the ends of tokens 0x2f down to 0, and of whatever lies before the table.
    let window_at = hit.saturating_sub(TOKENS_MAX);
    let before = data.get(window_at..hit)?;
    let mut ends = memchr::memrchr_iter(0, before).map(|i| window_at.saturating_add(i)).take(48);
    let mut starts = Vec::with_capacity(257);
    // Token 0 starts somewhere before its end: the index will tell.
    starts.resize(49, 0);
    for slot in starts.iter_mut().rev() {
        match ends.next() {
            Some(end) => *slot = end.saturating_add(1),
            None => break,
        }
    }
    if *starts.get(1)? == 0 {
        return None;
    }
    // Forwards: the tokens from '0' on.
    let after = data.get(hit..hit.saturating_add(TOKENS_MAX).min(data.len()))?;
    starts.extend(memchr::memchr_iter(0, after).map(|i| hit.saturating_add(i).saturating_add(1)).take(208));
    let first = align_up(*starts.get(256)?, 4);
    (0..16usize).map(|i| first.saturating_add(i.saturating_mul(4))).find_map(|index| {
        let offset_1 = usize::from(le16(data, index.checked_add(2)?)?);
        let table = starts.get(1)?.checked_sub(offset_1).filter(|t| offset_1 != 0 && *t >= window_at)?;
        if memchr(0, slice(data, table, offset_1)?)? != offset_1.checked_sub(1)? {
            return None;
        }
        let offsets = starts.iter().take(256).skip(1).map(|start| start.checked_sub(table));
        let good = offsets.zip(1usize..).all(|(offset, i)| {
            let said = index.checked_add(i.saturating_mul(2)).and_then(|at| le16(data, at));
            said.map(usize::from) == offset && offset.is_some()
        });
        (good && le16(data, index)? == 0).then(|| {
            let mut starts = starts.clone();
            if let Some(slot) = starts.first_mut() {
                *slot = table;
            }
            (starts, index)
        })
    })
}

/// Steps 3 and 4: walking back from the token table, the first place that
/// markers, names and count agree upon. Gives the place of the count, the count
/// and the start of the names.
fn names_before(data: &[u8], tokens: usize, budget: &mut Budget) -> Option<(usize, usize, usize)> {
    let lowest = tokens.saturating_sub(MARKERS_REACH);
    let mut markers = tokens & !3;
    while let Some(at) = markers.checked_sub(4).filter(|at| *at >= lowest) {
        markers = at;
        budget.spend(1)?;
        if le32(data, at)? != 0 || !follows(0, size32(data, at.saturating_add(4))?) {
            continue;
        }
        let mut last = 0usize;
        let mut all = Vec::new();
        for word in data.get(at..tokens)?.chunks_exact(4) {
            let value = size32(word, 0)?;
            if !all.is_empty() && !follows(last, value) {
                break;
            }
            last = value;
            all.push(value);
            budget.spend(1)?;
        }
        // What follows the markers may by chance look like one or two more.
        for surplus in 0..3usize {
            let Some(markers) = all.get(..all.len().saturating_sub(surplus)).filter(|m| m.len() >= 2) else {
                break;
            };
            if let Some(found) = names_with(data, at, markers, budget) {
                return Some(found);
            }
        }
    }
    None
}

/// Can a group of names lie between two markers?
fn follows(before: usize, marker: usize) -> bool {
    matches!(marker.checked_sub(before), Some(GROUP_MIN..=GROUP_MAX))
}

/// Step 4: names that end where `markers` begin, with the count before them.
fn names_with(
    data: &[u8],
    at: usize,
    markers: &[usize],
    budget: &mut Budget,
) -> Option<(usize, usize, usize)> {
    let most = markers.len().checked_mul(GROUP)?;
    let counts = most.checked_sub(GROUP)?.checked_add(1)?..=most;
    let highest = at.checked_sub(*markers.last()?)?;
    let lowest = highest.saturating_sub(GROUP_MAX);
    let mut names = highest & !3;
    while let Some(start) = names.checked_sub(4).filter(|start| *start >= lowest.max(8)) {
        names = start;
        budget.spend(1)?;
        // Labels are 8-byte aligned, 4-byte since 7.0.
        let near = start.checked_sub(4)?;
        let far = start.checked_sub(8)?;
        let count_at = match size32(data, near)? {
            0 => far,
            _ => near,
        };
        let count = size32(data, count_at)?;
        if counts.contains(&count) && count <= COUNT_MAX && walk(data, start, count, at, markers, budget)? {
            return Some((count_at, count, start));
        }
    }
    None
}

/// Do `count` names from `start` agree with `markers`, and end where these begin? `None`: out of budget.
fn walk(
    data: &[u8],
    start: usize,
    count: usize,
    end: usize,
    markers: &[usize],
    budget: &mut Budget,
) -> Option<bool> {
    let mut at = start;
    for index in 0..count {
        if index % GROUP == 0 {
            budget.spend(GROUP)?;
            if markers.get(index / GROUP).copied() != at.checked_sub(start) {
                return Some(false);
            }
        }
        match compressed_name(data, at) {
            Some((_, next)) if next <= end => at = next,
            _ => return Some(false),
        }
    }
    Some(end.wrapping_sub(at) < 8 && data.get(at..end).is_some_and(|padding| padding.iter().all(|b| *b == 0)))
}

/// The codes of the compressed name at `at`, and where the next one starts. A
/// length with bit 7 set has a second byte (6.1 and later).
pub(crate) fn compressed_name(data: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (len, start) = match *data.get(at)? {
        0 => return None,
        short @ 1..=0x7f => (usize::from(short), at.checked_add(1)?),
        low => {
            let high = usize::from(*data.get(at.checked_add(1)?)?);
            (usize::from(low & 0x7f) | high.checked_shl(7)?, at.checked_add(2)?)
        }
    };
    Some((slice(data, start, len)?, start.checked_add(len)?))
}
