//! The verdict of a kernel's own code on a module, beside that of the rules.

use elf_layout::Errno;
use serde::Serialize;

use super::{Ending, Verdict, verdict_word};
use crate::document::errno_name;

/// How the log begins that a kernel writes when it crashes: what it says before is the loader's.
const CRASH: [&str; 15] = [
    "BUG: ",
    "Oops",
    "detected buffer overflow",
    "general protection fault",
    "invalid opcode",
    "Unable to handle",
    "kernel BUG at",
    "Kernel panic",
    "Unexpected kernel",
    "Internal error",
    "int3: ",
    "stack segment",
    "double fault",
    "divide error",
    "Bad mode",
];

/// What the kernel's own `load_module` makes of a module, executed by kmodld.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ByKernel {
    /// `loads`, `refused`, `oops` or `undecided`.
    #[serde(serialize_with = "verdict_word")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub verdict: Ending,
    /// What the system call returns. Null if the module loads, the kernel crashes, or the verdict is undecided.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// What the kernel logs, in order, up to the call of the init function.
    pub dmesg: Vec<String>,
    /// Which of its lines are messages of warnings, whose reports are left out: their numbers, from 0.
    pub warnings: Vec<usize>,
    /// Taint letters of the module, if it loads.
    pub taints: String,
    /// Where the kernel crashes, or why the verdict is undecided.
    pub stopped: Option<String>,
    /// In what the rules say otherwise: `verdict`, `errno`, `log`. Addresses count as equal. Empty where either is undecided.
    pub differs: Vec<&'static str>,
    /// Instructions that were executed.
    pub instructions: u64,
}

impl ByKernel {
    /// That it cannot be told.
    pub fn undecided(why: impl Into<String>) -> Self {
        ByKernel {
            verdict: Ending::Undecided,
            errno: None,
            dmesg: Vec::new(),
            warnings: Vec::new(),
            taints: String::new(),
            stopped: Some(why.into()),
            differs: Vec::new(),
            instructions: 0,
        }
    }

    /// Notes in what the rules say otherwise.
    pub fn compare(&mut self, rules: &Verdict) {
        self.differs.clear();
        if self.verdict == Ending::Undecided || rules.verdict == Ending::Undecided {
            return;
        }
        if self.verdict != rules.verdict {
            self.differs.push("verdict");
        } else if self.errno != rules.errno {
            self.differs.push("errno");
        }
        if !self.logs_alike(&rules.dmesg) {
            self.differs.push("log");
        }
    }

    /// Is that the log, with the messages of warnings or without?
    fn logs_alike(&self, lines: &[String]) -> bool {
        let crashed = self.verdict == Ending::Oops;
        let of_rules = cleaned(lines.iter(), crashed);
        let quiet = self.dmesg.iter().enumerate().filter(|(at, _)| !self.warnings.contains(at));
        of_rules == cleaned(self.dmesg.iter(), crashed)
            || of_rules == cleaned(quiet.map(|(_, line)| line), crashed)
    }
}

/// Lines with the kernel's pointers made equal, up to the report of a crash.
fn cleaned<'l>(lines: impl Iterator<Item = &'l String>, crashed: bool) -> Vec<String> {
    let is_report = |line: &&String| crashed && CRASH.iter().any(|begin| line.contains(begin));
    lines.take_while(|line| !is_report(line)).map(|line| clean(line)).collect()
}

/// A line with numbers of 9 to 16 hex digits, and what is called a location, made equal.
fn clean(line: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest, mut is_place) = (String::with_capacity(line.len()), line, false);
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(len);
        rest = behind;
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let digits = part.strip_prefix("0x").unwrap_or(part);
        if is_place && part == " " {
            out.push(' ');
            continue;
        }
        if is_place && hex(digits) {
            out.push_str("PTR");
        } else if (9..=16).contains(&digits.len()) && hex(digits) {
            out.push('N');
        } else {
            out.push_str(part);
        }
        is_place = part == "loc";
    }
    // Bytes that are no ASCII differ by how they are written.
    let mut ascii = String::with_capacity(out.len());
    for c in out.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else if !ascii.ends_with('\u{1}') {
            ascii.push('\u{1}');
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_as_equal() {
        for (line, same) in [
            ("m: loc 00000000ab123456 of", "m: loc (1) of"),
            ("loc 0xc000, val ffffffffc0000000", "loc 1a, val ffffffff81234567"),
            ("at 0xffffffffc0000000+4", "at 0xffff888012345678+4"),
            ("name \u{fffd}\u{fffd}x", "name \u{e9}x"),
        ] {
            let same = same.replace("(1)", "1");
            assert_eq!(clean(line), clean(&same));
        }
        for (line, other) in
            [("val 12345678", "val 12345679"), ("location 5", "location 6"), ("x123456789", "x123456780")]
        {
            assert_ne!(clean(line), clean(other));
        }
    }

    #[test]
    fn warnings_may_be_told_or_not() {
        let mut kernel = ByKernel::undecided("");
        kernel.dmesg = vec!["a".into(), "warned".into(), "b".into()];
        kernel.warnings = vec![1];
        assert!(kernel.logs_alike(&["a".into(), "b".into()]));
        assert!(kernel.logs_alike(&["a".into(), "warned".into(), "b".into()]));
        assert!(!kernel.logs_alike(&["a".into(), "warned".into()]));
        kernel.verdict = Ending::Oops;
        assert!(kernel.logs_alike(&["a".into(), "b".into(), "BUG: c".into()]), "a crash reports itself");
    }
}
