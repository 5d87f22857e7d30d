//! What the code of a finding stands for, at length: the texts of `docs/findings/`, one section a code.

pub mod search;
pub mod spec;

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One file per family of rules; a code's section begins with its heading, `## CODE: TITLE`.
const FAMILIES: [&str; 19] = [
    include_str!("../../docs/findings/OV.md"),
    include_str!("../../docs/findings/DEC.md"),
    include_str!("../../docs/findings/SIG.md"),
    include_str!("../../docs/findings/VAL.md"),
    include_str!("../../docs/findings/LIFE.md"),
    include_str!("../../docs/findings/LAYOUT.md"),
    include_str!("../../docs/findings/SYM.md"),
    include_str!("../../docs/findings/VER.md"),
    include_str!("../../docs/findings/NS.md"),
    include_str!("../../docs/findings/LIC.md"),
    include_str!("../../docs/findings/DUP.md"),
    include_str!("../../docs/findings/RELOC-GEN.md"),
    include_str!("../../docs/findings/X86REL.md"),
    include_str!("../../docs/findings/A64REL.md"),
    include_str!("../../docs/findings/PLT.md"),
    include_str!("../../docs/findings/FIN.md"),
    include_str!("../../docs/findings/BTF.md"),
    include_str!("../../docs/findings/PARAM.md"),
    include_str!("../../docs/findings/SET.md"),
];

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The code, such as `VAL-22`.
    pub code: &'static str,
    /// In one line.
    pub title: &'static str,
    /// At length, without the heading.
    pub text: &'static str,
}

/// All explanations, in the order in which a kernel comes to their checks, by and large.
pub fn all() -> impl Iterator<Item = Explanation> {
    let sections = FAMILIES.into_iter().flat_map(|file| file.split("\n## ").skip(1));
    sections.filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (code, title) = heading.split_once(": ")?;
        Some(Explanation { code, title, text: text.trim() })
    })
}

impl Explanation {
    /// One of the items at its end: `Kernel`, `Result`, `Log`, `Versions`, `Example`, `Mended`, `Fix`.
    pub fn item(&self, name: &str) -> Option<&'static str> {
        let (_, rest) = self.text.split_once(&format!("\n- {name}: "))?;
        Some(rest.split_once("\n- ").map_or(rest, |(item, _)| item))
    }

    /// The family of its code: `VAL`, `RELOC-GEN`.
    pub fn family(&self) -> &'static str {
        self.code.rsplit_once('-').map_or(self.code, |(family, _)| family)
    }

    /// Codes that its text names, and those whose texts name it.
    pub fn see_also(&self) -> Vec<&'static str> {
        let names = |e: &Explanation, code: &str| words(e.text).any(|word| word == code);
        let related = |e: &Explanation| e.code != self.code && (names(self, e.code) || names(e, self.code));
        all().filter(related).map(|e| e.code).collect()
    }
}

/// Words as codes are words.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
}

/// A family of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// What its codes begin with.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// How many codes it has.
    pub codes: usize,
}

/// All families, in the order of [`all`].
pub fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().filter_map(|file| {
        let title = file.lines().next()?.strip_prefix("# ")?;
        let first = file.split("\n## ").nth(1)?.split(':').next()?;
        let codes = file.matches("\n## ").count();
        Some(Family { name: first.rsplit_once('-')?.0, title, codes })
    })
}

/// The family of that name, however its letters are written.
pub fn family(name: &str) -> Option<Family> {
    families().find(|family| bare(family.name) == bare(name))
}

/// The explanation of a code, however its letters are written; dashes may be missing.
pub fn explain(code: &str) -> Option<Explanation> {
    all().find(|e| bare(e.code) == bare(code))
}

/// What to do about a finding of this code in general, where it has no advice for its own case.
pub fn fix(code: &str) -> Option<&'static str> {
    static FIXES: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
        let fix = |e: Explanation| Some((e.code, e.item("Fix")?));
        all().filter_map(fix).collect()
    });
    FIXES.get(code).copied()
}

/// Codes that `code` may have been meant for, best first: few letters apart, or of the same family.
pub fn similar(code: &str) -> Vec<&'static str> {
    let wanted = bare(code);
    // What no code comes near to is not compared letter by letter.
    if wanted.is_empty() || wanted.len() > LONGEST {
        return Vec::new();
    }
    // What the code ends with is its number, which a letter may follow.
    let number = wanted.strip_suffix('B').unwrap_or(&wanted);
    let family = number.trim_end_matches(|c: char| c.is_ascii_digit());
    let mut found: Vec<(usize, &'static str)> = all()
        .filter_map(|e| {
            let apart = distance(&bare(e.code), &wanted);
            let related = !family.is_empty() && bare(e.code).starts_with(family);
            (apart <= 1 || related).then_some((apart, e.code))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, code)| code).take(SHOWN).collect()
}

/// No code has more letters and digits.
const LONGEST: usize = 16;
/// More suggestions than these help nobody.
const SHOWN: usize = 6;

/// A code as it is compared: letters and digits, in capitals.
fn bare(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

/// How many letters have to be changed, added or left out to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (y, above) in b.bytes().zip(row.iter().skip(1)) {
            let here = diagonal.saturating_add(usize::from(x != y));
            left = here.min(left.saturating_add(1)).min(above.saturating_add(1));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_they_are_written() {
        for written in ["VER-6", "ver-6", "ver6", "Ver_6"] {
            assert_eq!(explain(written).map(|e| e.code), Some("VER-6"), "{written}");
        }
        assert_eq!(explain("sym-5b").map(|e| e.code), Some("SYM-5b"));
        assert_eq!(explain("ver-60"), None);
        assert_eq!(explain(""), None);
    }

    #[test]
    fn every_code_has_a_fix() {
        for e in all() {
            let fix = fix(e.code).unwrap_or_default();
            assert!(!fix.is_empty() && !fix.contains('\n'), "{}: {fix:?}", e.code);
        }
        assert_eq!(fix("nothing"), None);
    }

    #[test]
    fn similar_codes() {
        assert_eq!(similar("ver-66").first(), Some(&"VER-6"));
        assert!(similar("vet-23").contains(&"VER-23"));
        assert!(similar("sig-99").iter().all(|code| code.starts_with("SIG-")), "{:?}", similar("sig-99"));
        assert!(!similar("sig-99").is_empty());
        assert!(similar("").is_empty());
        assert!(similar("nonsense").is_empty());
        assert!(similar(&"VER-6".repeat(10_000)).is_empty());
    }

    #[test]
    fn distances() {
        for (a, b, want) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ac", 1), ("a", "xyz", 3)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
