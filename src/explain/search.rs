//! Which findings an errno or a line of the kernel's log may come from.

use elf_layout::Errno;

use super::{Explanation, all};

/// `ENOEXEC`, `enoexec`, `8` or `-8`.
pub fn errno(text: &str) -> Option<Errno> {
    let by_number = || text.trim_start_matches('-').parse().ok().and_then(Errno::from_number);
    Errno::from_name(&text.to_ascii_uppercase()).or_else(by_number)
}

/// The findings with which the system call returns this errno.
pub fn of_errno(errno: Errno) -> impl Iterator<Item = Explanation> {
    // EAGAIN is how the kernel's sources and errno.h call it.
    let other = (errno == Errno::EWOULDBLOCK).then_some("EAGAIN");
    all().filter(move |e| {
        let result = e.item("Result").unwrap_or_default();
        let mut words = result.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| word == errno.name() || Some(word) == other)
    })
}

/// So many words must agree at least, if the line has as many.
const WORDS_MIN: usize = 3;
/// More than these help nobody.
const SHOWN: usize = 8;
/// No line of the kernel's log has more words; a longer one is cut.
const WORDS_MAX: usize = 64;

/// The findings that a line of the log may belong to, the likeliest first. Stamps of time before it do not count, nor
/// the names in it.
pub fn of_log_line(line: &str) -> Vec<Explanation> {
    let words = words(without_stamp(line));
    let mut found: Vec<(usize, Explanation)> = all()
        .filter_map(|e| {
            let log = e.item("Log")?;
            // Between backticks stand lines as the kernel logs them.
            let samples = log.split('`').skip(1).step_by(2);
            let best = samples.filter_map(|sample| agreement(&words, &self::words(sample))).max()?;
            Some((best, e))
        })
        .collect();
    // A stable sort: equal ones stay in the kernel's order.
    found.sort_by_key(|(agreement, _)| std::cmp::Reverse(*agreement));
    let best = found.first().map_or(0, |(best, _)| *best);
    // What agrees far less than the best is none.
    let near =
        found.into_iter().filter(|(agreement, _)| agreement.saturating_mul(4) >= best.saturating_mul(3));
    near.map(|(_, e)| e).take(SHOWN).collect()
}

/// `[   12.345678] ` and `Nov 29 12:00:00 host kernel: ` before a line.
fn without_stamp(line: &str) -> &str {
    let line = line.split_once("kernel: ").map_or(line, |(_, line)| line).trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((stamp, rest)) if stamp.chars().all(|c| c.is_ascii_digit() || " .T".contains(c)) => rest.trim(),
        _ => line,
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || "_.-".contains(c)));
    words.filter(|word| !word.is_empty()).take(WORDS_MAX).map(str::to_lowercase).collect()
}

/// How far two lines agree, in percent: the words of the longest common subsequence, of the shorter line's and of both.
/// `None` if that may be chance.
fn agreement(a: &[String], b: &[String]) -> Option<usize> {
    let mut row = vec![0usize; b.len().saturating_add(1)];
    for x in a {
        let mut diagonal = 0usize;
        let mut left = 0;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            *cell = if x == y { diagonal.saturating_add(1) } else { above.max(left) };
            diagonal = above;
            left = *cell;
        }
    }
    let common = row.last().copied().unwrap_or(0);
    let shorter = a.len().min(b.len());
    let percent = |of: usize| common.saturating_mul(100).checked_div(of).unwrap_or(0);
    let is_enough = common >= WORDS_MIN.min(a.len()) && common > 1 && percent(shorter) >= 60;
    is_enough.then(|| percent(shorter).saturating_add(percent(a.len())).saturating_add(percent(b.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_dmesg_lead_to_their_rules() {
        for (line, code) in [
            ("disagrees about version of symbol", "VER-6"),
            ("[  123.456789] nvidia: disagrees about version of symbol module_layout", "VER-6"),
            ("Nov 29 12:00:00 host kernel: [   12.3] foo: Unknown symbol bar (err -2)", "SYM-5"),
            ("foo: Unknown symbol bar (err -22)", "SYM-5b"),
            ("Loading of unsigned module is rejected", "SIG-11"),
            (
                "hello: module verification failed: signature and/or required key missing - tainting kernel",
                "SIG-12",
            ),
            ("Module hello is blacklisted", "VAL-70"),
            ("hello: version magic '6.1 SMP mod_unload ' should be '6.12 SMP preempt mod_unload '", "VER-23"),
        ] {
            let found = of_log_line(line);
            assert!(
                found.first().is_some_and(|e| e.code == code),
                "{line}: {:?}",
                found.iter().map(|e| e.code).collect::<Vec<_>>()
            );
        }
        for line in ["", "x", "the weather is fine today", "eth0: link is up"] {
            assert!(of_log_line(line).is_empty(), "{line}");
        }
        assert!(of_log_line(&"a b ".repeat(100_000)).is_empty(), "bounded");
    }

    #[test]
    fn errnos_by_name_and_number() {
        for text in ["ENOEXEC", "enoexec", "8", "-8"] {
            assert_eq!(errno(text), Some(Errno::ENOEXEC), "{text}");
        }
        for text in ["", "-", "VER-6", "0", "-4096"] {
            assert_eq!(errno(text), None, "{text}");
        }
        let codes: Vec<&str> = of_errno(Errno::ENOENT).map(|e| e.code).collect();
        assert!(codes.contains(&"SYM-5") && !codes.contains(&"VAL-13"), "{codes:?}");
    }
}
