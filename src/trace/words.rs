//! The texts of stories: one table for each language, which translators edit without looking at code.

use std::collections::BTreeMap;
use std::fmt::Display;

/// A language that stories can be told in: a file of `words`, and a line of [`Lang::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lang {
    tag: &'static str,
    json: &'static str,
}

impl Default for Lang {
    fn default() -> Self {
        let [english, ..] = Lang::ALL;
        english
    }
}

impl Lang {
    /// All of them. The first one is taken if nobody asks for another.
    pub const ALL: [Lang; 2] = [
        Lang { tag: "en", json: include_str!("words/en.json") },
        Lang { tag: "zh", json: include_str!("words/zh.json") },
    ];

    /// Its tag in HTML, and as `--lang` takes it.
    pub const fn tag(self) -> &'static str {
        self.tag
    }

    /// The language of a tag.
    pub fn of_tag(tag: &str) -> Option<Self> {
        Lang::ALL.into_iter().find(|lang| lang.tag == tag)
    }

    /// Its table as JSON: texts by key.
    pub const fn json(self) -> &'static str {
        self.json
    }

    /// Its table.
    pub fn table(self) -> Table {
        Table(serde_json::from_str(self.json()).unwrap_or_default())
    }
}

/// What stands for a `{name}` of a text.
#[derive(Clone, Copy)]
pub struct Value<'v> {
    name: &'static str,
    value: &'v dyn Display,
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}={}", self.name, self.value)
    }
}

/// A value of a text, for [`Table::fill`].
pub const fn with<'v>(name: &'static str, value: &'v dyn Display) -> Value<'v> {
    Value { name, value }
}

/// Texts by key.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, String>);

impl Table {
    /// The text of a key; the key itself if there is none.
    pub fn get<'t>(&'t self, key: &'t str) -> &'t str {
        self.0.get(key).map_or(key, String::as_str)
    }

    /// The text of a key with its values; what has no value stays as it is.
    pub fn fill(&self, key: &str, values: &[Value<'_>]) -> String {
        let mut out = String::new();
        let mut rest = self.get(key);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let filled = after.split_once('}').and_then(|(name, after)| {
                let known = values.iter().find(|known| known.name == name)?;
                Some((known.value.to_string(), after))
            });
            let (value, after) = filled.unwrap_or_else(|| (String::from("{"), after));
            out.push_str(&value);
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
#[allow(clippy::restriction, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::trace::steps::STEPS;

    #[test]
    fn every_language_has_every_text() {
        let english = Lang::default().table();
        for lang in Lang::ALL {
            let table = lang.table();
            let (ours, theirs): (Vec<&str>, Vec<&str>) = (table.keys().collect(), english.keys().collect());
            assert_eq!(ours, theirs, "{}", lang.tag());
            assert!(table.keys().all(|key| !table.get(key).trim().is_empty()), "{}", lang.tag());
        }
        for lang in Lang::ALL.into_iter().skip(1) {
            assert_eq!(Lang::of_tag(lang.tag()), Some(lang));
            let table = lang.table();
            let same: Vec<&str> = english.keys().filter(|key| english.get(key) == table.get(key)).collect();
            assert!(same.len() * 10 < english.keys().count(), "{}: not translated: {same:?}", lang.tag());
        }
    }

    #[test]
    fn every_step_has_a_title_and_a_text() {
        let table = Lang::default().table();
        for step in STEPS {
            for what in ["title", "text"] {
                let key = format!("step.{}.{what}", step.name());
                assert_ne!(table.get(&key), key);
            }
        }
    }

    /// A translation has the same values in it.
    #[test]
    fn every_language_has_the_same_values() {
        let values = |text: &str| {
            let pieces = text.split('{').skip(1).filter_map(|piece| piece.split_once('}'));
            let mut names: Vec<String> = pieces.map(|(name, _)| name.to_owned()).collect();
            names.sort();
            names
        };
        let english = Lang::default().table();
        for lang in Lang::ALL {
            let table = lang.table();
            for key in english.keys() {
                assert_eq!(values(table.get(key)), values(english.get(key)), "{}: {key}", lang.tag());
            }
        }
    }

    #[test]
    fn values_are_filled_in() {
        let table = Table([(String::from("a"), String::from("{x} of {y}, {z} {"))].into());
        assert_eq!(table.fill("a", &[with("x", &1), with("y", &"{x}")]), "1 of {x}, {z} {");
    }

    #[test]
    fn what_patches_and_findings_are_called_has_a_text() {
        let table = Lang::default().table();
        let patches = reloc::Step::ALL.map(|step| format!("patch.{}", step.name()));
        let severities = elf_layout::Severity::ALL.map(|severity| format!("severity.{}", severity.word()));
        for key in patches.iter().chain(&severities) {
            assert_ne!(table.get(key), key);
        }
    }

    /// What the page asks for, and what events name.
    #[test]
    fn keys_in_use_are_there() {
        let table = Lang::default().table();
        let page = include_str!("page/page.js");
        let mut asked = 0;
        for (at, _) in page.match_indices("t(\"") {
            let key = page[at + 3..].split('"').next().unwrap();
            // Of names that events tell, the beginning: facts.rs has the rest.
            let is_beginning = ["fact.", "patch.", "severity."].contains(&key);
            assert!(table.get(key) != key || is_beginning, "page.js asks for {key}");
            asked += 1;
        }
        assert!(asked > 20, "{asked}");
        let story = [include_str!("story.rs"), include_str!("facts.rs")].concat();
        for (at, _) in story.match_indices("fact(\"") {
            let key = format!("fact.{}", story[at + 6..].split('"').next().unwrap());
            assert_ne!(table.get(&key), key, "the story tells {key}");
        }
    }

    /// The story on the terminal takes its words from the table, all of them, and has none of its own.
    #[test]
    fn the_terminal_has_no_words_of_its_own() {
        let table = Lang::default().table();
        let files = ["mod", "lines", "sections"].map(|file| {
            let path = format!("{}/src/cli/story/{file}.rs", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap()
        });
        let code = files.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().starts_with("//"));
        let mut used = Vec::new();
        for line in code {
            for literal in line.split('"').skip(1).step_by(2) {
                let words = literal.split(' ').filter(|word| word.starts_with(|c: char| c.is_alphabetic()));
                assert!(words.filter(|word| word.len() > 1).count() < 2, "not of the table: {literal}");
                if literal.starts_with("story.") {
                    assert_ne!(table.get(literal), literal);
                    used.push(literal);
                }
            }
        }
        let unused = table.keys().filter(|key| key.starts_with("story.") && !used.contains(key));
        assert_eq!(unused.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
