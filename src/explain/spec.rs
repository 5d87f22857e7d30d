//! Rules of the specification: also those that no finding has, which documents and comments cite.

/// The chapters, with their names.
const CHAPTERS: [(&str, &str); 12] = [
    ("00-overview", include_str!("../../docs/spec/00-overview.md")),
    ("01-elf-validity", include_str!("../../docs/spec/01-elf-validity.md")),
    ("02-layout", include_str!("../../docs/spec/02-layout.md")),
    ("03-symbols", include_str!("../../docs/spec/03-symbols.md")),
    ("04-reloc-x86_64", include_str!("../../docs/spec/04-reloc-x86_64.md")),
    ("05-reloc-aarch64", include_str!("../../docs/spec/05-reloc-aarch64.md")),
    ("06-finalize", include_str!("../../docs/spec/06-finalize.md")),
    ("07-params", include_str!("../../docs/spec/07-params.md")),
    ("08-lifecycle", include_str!("../../docs/spec/08-lifecycle.md")),
    ("09-kallsyms-and-kernel-images", include_str!("../../docs/spec/09-kallsyms-and-kernel-images.md")),
    ("10-chardev", include_str!("../../docs/spec/10-chardev.md")),
    ("12-sets", include_str!("../../docs/spec/12-sets.md")),
];

/// A rule as its chapter has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its id, such as `FIN-9`.
    pub id: &'static str,
    /// The name of the file in `docs/spec/`, without `.md`.
    pub chapter: &'static str,
    /// Its words: of a table, each cell behind the head of its column.
    pub text: String,
}

/// The rule of that id, however its letters are written; dashes may be missing.
pub fn rule(id: &str) -> Option<Rule> {
    let wanted = super::bare(id);
    if wanted.is_empty() {
        return None;
    }
    CHAPTERS.into_iter().find_map(|(chapter, text)| {
        let mut head: Option<&str> = None;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let row = line.strip_prefix("| ");
            // The head of a table is followed by a line of dashes.
            if row.is_some() && lines.peek().is_some_and(|next| next.starts_with("|-")) {
                head = row;
                continue;
            }
            let id = row.unwrap_or(line).split([' ', ':']).next().unwrap_or_default();
            if !id.contains('-') || super::bare(id) != wanted {
                continue;
            }
            let text = match row {
                Some(row) => of_row(head.unwrap_or_default(), row),
                None => {
                    let more = lines.take_while(|line| !line.is_empty() && !begins_a_rule(line));
                    std::iter::once(line).chain(more).collect::<Vec<_>>().join("\n")
                }
            };
            return Some(Rule { id, chapter, text });
        }
        None
    })
}

fn begins_a_rule(line: &str) -> bool {
    let word = line.split([' ', ':']).next().unwrap_or_default();
    let family = word.split('-').next().unwrap_or_default();
    word.contains('-')
        && family.len() > 1
        && family.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

/// The cells behind the first, each with the head of its column.
fn of_row(head: &str, row: &str) -> String {
    let cells = |line: &'_ str| -> Vec<String> {
        let line = line.trim_end().trim_end_matches('|');
        line.replace("\\|", "\0").split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
    };
    let (heads, cells) = (cells(head), cells(row));
    let named = cells.iter().zip(heads.iter().map(String::as_str).chain(std::iter::repeat("")));
    let lines = named.skip(1).filter(|(cell, _)| !cell.is_empty()).map(|(cell, head)| match head {
        "" => cell.clone(),
        head => format!("{head}: {cell}"),
    });
    lines.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_no_findings() {
        let fin_9 = rule("fin9").unwrap();
        assert_eq!((fin_9.id, fin_9.chapter), ("FIN-9", "06-finalize"));
        assert!(fin_9.text.contains("heapsort"), "{fin_9:?}");
        assert!(rule("NOTHING-9").is_none() && rule("").is_none());
    }
}
