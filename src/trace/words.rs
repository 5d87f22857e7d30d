//! The texts of stories: one table for each language, which translators edit without looking at code.

use std::collections::BTreeMap;

/// A language that a page can be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// English
    #[default]
    En,
    /// Chinese, in simplified characters.
    Zh,
}

impl Lang {
    /// All of them.
    pub const ALL: [Lang; 2] = [Lang::En, Lang::Zh];

    /// Its tag in HTML.
    pub const fn tag(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Zh => "zh",
        }
    }

    /// Its table as JSON: texts by key.
    pub const fn json(self) -> &'static str {
        match self {
            Lang::En => include_str!("words/en.json"),
            Lang::Zh => include_str!("words/zh.json"),
        }
    }

    /// Its table.
    pub fn table(self) -> Table {
        Table(serde_json::from_str(self.json()).unwrap_or_default())
    }
}

/// Texts by key.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, String>);

impl Table {
    /// The text of a key; the key itself if there is none.
    pub fn get<'t>(&'t self, key: &'t str) -> &'t str {
        self.0.get(key).map_or(key, String::as_str)
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
        let english = Lang::En.table();
        for lang in Lang::ALL {
            let table = lang.table();
            let (ours, theirs): (Vec<&str>, Vec<&str>) = (table.keys().collect(), english.keys().collect());
            assert_eq!(ours, theirs, "{}", lang.tag());
            assert!(table.keys().all(|key| !table.get(key).trim().is_empty()), "{}", lang.tag());
        }
        let same = |key: &&str| english.get(key) == Lang::Zh.table().get(key);
        let same: Vec<&str> = english.keys().filter(same).collect();
        assert!(same.len() * 10 < english.keys().count(), "not translated: {same:?}");
    }

    #[test]
    fn every_step_has_a_title_and_a_text() {
        let table = Lang::En.table();
        for step in STEPS {
            for what in ["title", "text"] {
                let key = format!("step.{}.{what}", step.name());
                assert_ne!(table.get(&key), key);
            }
        }
    }

    /// What the page asks for, and what events name.
    #[test]
    fn keys_in_use_are_there() {
        let table = Lang::En.table();
        let page = include_str!("page/page.js");
        let mut asked = 0;
        for (at, _) in page.match_indices("t(\"") {
            let key = page[at + 3..].split('"').next().unwrap();
            // Of names that events tell, the beginning: story.rs has the rest.
            assert!(table.get(key) != key || key == "fact.", "page.js asks for {key}");
            asked += 1;
        }
        assert!(asked > 20, "{asked}");
        let story = include_str!("story.rs");
        for (at, _) in story.match_indices("fact(\"") {
            let key = format!("fact.{}", story[at + 6..].split('"').next().unwrap());
            assert_ne!(table.get(&key), key, "story.rs tells {key}");
        }
    }
}
