//! The specification, the code and the tests tell the same story: every rule that
//! `docs/spec/IMPLEMENTED.md` lists exists in `docs/spec/`, is cited by code and by a test, and no
//! rule is cited anywhere that does not exist. The rules of a library crate are shown by tests of that crate.
//! `docs/spec/README.md` says what counts as a citation.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

const LIST: &str = "docs/spec/IMPLEMENTED.md";
const THIS_FILE: &str = "tests/spec_citations.rs";
/// The table of changes: its rows name the rules that are forked, and other code follows them.
const CHANGES: &str = "crates/elf-layout/src/changes/";

/// Crate, rules, reason: what the code of a crate cites and no test of that crate shows, because only the whole can.
const SHOWN_BY_THE_WHOLE: &[(&str, &[&str], &str)] = &[
    ("elf-layout", &["VAL-2"], "the system call's own check, before any of this crate: src/load.rs makes it"),
    ("elf-layout", &["VAL-65"], "what comes of a missing vermagic: symres does it"),
    ("elf-layout", &["LAYOUT-61"], "what the per-cpu address of a placement means; the loader finds it"),
    ("elf-layout", &["LIFE-10"], "where struct module has its init: the loader reads it there"),
    ("elf-layout", &["LIC-2", "LIFE-46"], "facts of a machine: symres and the loader go by them"),
    (
        "elf-layout",
        &["SYM-2", "SYM-3", "SYM-4", "SYM-6", "SYM-7"],
        "the values of a module's symbols: symres gives them",
    ),
    ("symres", &["LIFE-3", "DUP-3"], "what comes before layout and relocation, and what after"),
    ("symres", &["LAYOUT-30"], "the moved symbol table, as add_kallsyms finds it"),
    ("reloc", &["LAYOUT-50"], "the module area that an architecture has: the loader looks for room in it"),
    ("finalize", &["LAYOUT-60", "LIFE-20"], "what other stages have done to the module before"),
    (
        "finalize",
        &["FIN-42", "FIN-43", "FIN-46", "FIN-54", "FIN-60", "FIN-61"],
        "what an architecture does in the step: the tests of reloc",
    ),
    (
        "reloc",
        &["FIN-1", "FIN-41", "FIN-50", "FIN-51", "FIN-52", "FIN-86"],
        "what steps leave in the record: finalize does them",
    ),
    (
        "reloc",
        &["IMG-1", "IMG-3", "IMG-4"],
        "the headers of images: the tests of kernel-image open such images",
    ),
    (
        "signature",
        &["SIG-1", "SIG-2", "SIG-3", "SIG-4", "SIG-5", "SIG-6", "SIG-7"],
        "how a signature is cut off: the tests of elf-layout, and tests/rules_signature.rs",
    ),
    (
        "signature",
        &["SIG-10", "SIG-12", "SIG-13", "SIG-14"],
        "signed modules on kernels with keys: tests/rules_signature.rs",
    ),
];

/// A rule id: `SYM-5b` is family `SYM`, number 5, suffix `b`. Ordered as in the specification.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    family: String,
    number: u32,
    suffix: String,
}

impl Rule {
    /// `[A-Z0-9]+(-GEN)?-[0-9]+[a-z]?`, and `OV-DEB`.
    fn parse(word: &str) -> Option<Rule> {
        let (family, tail) = word.rsplit_once('-')?;
        let plain = family.strip_suffix("-GEN").unwrap_or(family);
        let family_is_one = plain.contains(|c: char| c.is_ascii_uppercase())
            && plain.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if !family_is_one {
            return None;
        }
        let family = family.to_owned();
        if word == "OV-DEB" {
            return Some(Rule { family, number: u32::MAX, suffix: String::from("DEB") });
        }
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let suffix = tail[digits..].to_owned();
        let suffix_is_one = suffix.len() <= 1 && suffix.chars().all(|c| c.is_ascii_lowercase());
        let number = tail[..digits].parse().ok().filter(|_| suffix_is_one)?;
        Some(Rule { family, number, suffix })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            u32::MAX => write!(f, "{}-{}", self.family, self.suffix),
            number => write!(f, "{}-{number}{}", self.family, self.suffix),
        }
    }
}

/// The rules of docs/spec/, by definition: a line or the first cell of a table row begins with the id.
struct Spec {
    rules: BTreeSet<Rule>,
    families: BTreeSet<String>,
}

impl Spec {
    fn read() -> Spec {
        let mut rules = BTreeSet::new();
        for file in files("docs/spec", "md") {
            if !file.file_name().is_some_and(|n| n.as_encoded_bytes()[0].is_ascii_digit()) {
                continue; // the chapters are numbered; README.md and IMPLEMENTED.md define nothing
            }
            for line in fs::read_to_string(&file).unwrap().lines() {
                let line = line.strip_prefix("| ").unwrap_or(line);
                rules.extend(line.split(' ').next().and_then(Rule::parse));
            }
        }
        Spec::of(rules)
    }

    fn of(rules: BTreeSet<Rule>) -> Spec {
        let families = rules.iter().map(|r| r.family.clone()).collect();
        Spec { rules, families }
    }

    /// All rules from one to another, both included.
    fn between(&self, first: &Rule, last: &Rule) -> Vec<Rule> {
        let inside = |r: &&Rule| r.family == first.family && first <= *r && *r <= last;
        self.rules.iter().filter(inside).cloned().collect()
    }
}

/// One mention of a rule.
#[derive(Debug)]
struct Citation {
    rule: Rule,
    line: usize,
}

/// All rules that a text mentions. A range stands for every rule in it; its ends are mentioned
/// whether they exist or not.
fn citations(text: &str, spec: &Spec) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut rest = text;
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    while let Some(start) = rest.find(part_of_word) {
        let word_on = &rest[start..];
        let end = word_on.find(|c| !part_of_word(c)).unwrap_or(word_on.len());
        let (word, after) = word_on.split_at(end);
        rest = after;
        let Some(rule) = Rule::parse(word).filter(|r| spec.families.contains(&r.family)) else { continue };
        let line = text[..text.len() - word_on.len()].matches('\n').count() + 1;
        if let Some(last) = range_end(after).filter(|last| last.family == rule.family) {
            found.extend(spec.between(&rule, &last).into_iter().map(|rule| Citation { rule, line }));
        }
        found.push(Citation { rule, line });
    }
    found
}

/// The other end of a range whose first end stands before `after`: `A-1 to A-9`, `A-1..A-9`.
fn range_end(after: &str) -> Option<Rule> {
    let after = skip_gap(after);
    let after = match after.strip_prefix("..") {
        Some(after) => after.strip_prefix('=').unwrap_or(after),
        None => after.strip_prefix("to").filter(|a| a.starts_with(char::is_whitespace))?,
    };
    let after = skip_gap(after);
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(after.len());
    Rule::parse(&after[..end])
}

/// Blanks, and the line break and leader inside a comment.
fn skip_gap(mut text: &str) -> &str {
    loop {
        let shorter =
            text.trim_start().trim_start_matches("//!").trim_start_matches("//").trim_start_matches('/');
        if shorter.len() == text.len() {
            return text;
        }
        text = shorter;
    }
}

/// Rules that names of test functions mention: `fn reloc_gen_11_...`, `fn sym_30_and_31_...`,
/// `fn val_60_to_63_...`.
fn named_by_functions(text: &str, spec: &Spec) -> Vec<Rule> {
    let mut found = Vec::new();
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
    for name in names.filter_map(|rest| rest.split('(').next()) {
        let words: Vec<String> = name.split('_').map(str::to_ascii_uppercase).collect();
        let family = [2, 1].into_iter().find_map(|n| {
            let family = words.get(..n)?.join("-");
            spec.families.contains(&family).then_some((family, n))
        });
        let Some((family, skipped)) = family else { continue };
        let mut previous: Option<Rule> = None;
        let mut is_range = false;
        for word in &words[skipped..] {
            let digits = word.trim_end_matches(|c: char| c.is_ascii_uppercase());
            let id = match word.as_str() {
                "DEB" => format!("{family}-DEB"),
                word => format!("{family}-{digits}{}", word[digits.len()..].to_ascii_lowercase()),
            };
            match (word.as_str(), Rule::parse(&id)) {
                ("TO", _) => is_range = previous.is_some(),
                ("AND", _) => {}
                (_, Some(rule)) => {
                    if let Some(first) = previous.take().filter(|_| is_range) {
                        found.extend(spec.between(&first, &rule));
                    }
                    is_range = false;
                    found.push(rule.clone());
                    previous = Some(rule);
                }
                _ => break,
            }
        }
    }
    found
}

/// Splits a source file into code and tests: what follows `#[cfg(test)]` up to its closing brace is
/// a test. Lines that belong to the other half are empty, so that line numbers stay.
fn split_tests(text: &str) -> (String, String) {
    let (mut code, mut tests) = (String::new(), String::new());
    let mut until: Option<String> = None; // the line that closes the test item
    let mut attribute = false;
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let mut is_test = true;
        if let Some(close) = &until {
            if line == close || (line.starts_with(close.as_str()) && line.trim_start().starts_with("})")) {
                until = None;
            }
        } else if line.trim() == "#[cfg(test)]" {
            attribute = true;
        } else if attribute {
            if line.ends_with('{') {
                until = Some(format!("{indent}}}"));
            }
            attribute = line.trim_start().starts_with('#') || !line.ends_with(['{', ';', '}']);
        } else {
            is_test = false;
        }
        let (to, other) = if is_test { (&mut tests, &mut code) } else { (&mut code, &mut tests) };
        to.push_str(line);
        to.push('\n');
        other.push('\n');
    }
    (code, tests)
}

/// Modules that are tests and stand in files of their own: `mod NAME;` after `#[cfg(test)]`, or the file that `#[path]`
/// between the two names.
fn test_modules(text: &str) -> Vec<String> {
    let (_, tests) = split_tests(text);
    let name = |line: &str| {
        let module = |line: &str| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
        let path = |line: &str| Some(line.strip_prefix("#[path = \"")?.strip_suffix(".rs\"]")?.to_owned());
        module(line.trim()).or_else(|| path(line.trim()))
    };
    tests.lines().filter_map(name).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the project with that extension; none if there is no such folder.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The library crates of the workspace beside the root package, as folders. What the tests share is none of them.
fn crates() -> Vec<String> {
    let names = fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap()).filter(|name| name != "testkit");
    let mut names: Vec<String> = names.map(|name| format!("crates/{name}")).collect();
    names.sort();
    names
}

/// The source files of a package: path, code, tests.
fn sources(package: &str) -> Vec<(PathBuf, String, String)> {
    let paths = files(&format!("{package}/src"), "rs");
    let texts: Vec<String> = paths.iter().map(|p| fs::read_to_string(p).unwrap()).collect();
    let test_modules: BTreeSet<String> = texts.iter().flat_map(|t| test_modules(t)).collect();
    let split = |(path, text): (PathBuf, String)| {
        let inside = path.strip_prefix(root()).unwrap();
        let mut parts = inside.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs"));
        let is_test = parts.any(|part| test_modules.contains(part));
        let (code, tests) = if is_test { (String::new(), text) } else { split_tests(&text) };
        (path, code, tests)
    };
    paths.into_iter().zip(texts).map(split).collect()
}

/// What each part of the project cites: rule to `file:line`.
#[derive(Default)]
struct Cited {
    by_code: BTreeMap<Rule, Vec<String>>,
    by_tests: BTreeMap<Rule, Vec<String>>,
    elsewhere: BTreeMap<Rule, Vec<String>>,
}

impl Cited {
    /// What code and tests of one package cite.
    fn note_package(&mut self, package: &str, spec: &Spec) {
        for (path, code, tests) in sources(package) {
            let by = if shown(&path).starts_with(CHANGES) { &mut self.elsewhere } else { &mut self.by_code };
            note(by, &path, &code, spec);
            note_test(&mut self.by_tests, &path, &tests, spec);
        }
        for path in files(&format!("{package}/tests"), "rs").iter().filter(|p| shown(p) != THIS_FILE) {
            note_test(&mut self.by_tests, path, &fs::read_to_string(path).unwrap(), spec);
        }
    }

    fn read(spec: &Spec) -> Cited {
        let mut cited = Cited::default();
        let packages = [vec![String::from(".")], crates()].concat();
        for package in &packages {
            cited.note_package(package, spec);
            for folder in ["benches", "examples"] {
                for path in files(&format!("{package}/{folder}"), "rs") {
                    note(&mut cited.elsewhere, &path, &fs::read_to_string(&path).unwrap(), spec);
                }
            }
        }
        let documents = files("docs", "md").into_iter();
        let at_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name));
        for path in documents.chain(at_root.into_iter().filter(|p| p.exists())) {
            note(&mut cited.elsewhere, &path, &fs::read_to_string(&path).unwrap(), spec);
        }
        cited
    }
}

fn note(map: &mut BTreeMap<Rule, Vec<String>>, path: &Path, text: &str, spec: &Spec) {
    for citation in citations(text, spec) {
        let at = format!("{}:{}", shown(path), citation.line);
        let places = map.entry(citation.rule).or_default();
        if places.last() != Some(&at) {
            places.push(at);
        }
    }
}

fn note_test(map: &mut BTreeMap<Rule, Vec<String>>, path: &Path, text: &str, spec: &Spec) {
    note(map, path, text, spec);
    for rule in named_by_functions(text, spec) {
        map.entry(rule).or_default().push(shown(path));
    }
}

/// The rules that the list names, each with its line.
fn listed() -> Vec<(Rule, usize)> {
    let text = fs::read_to_string(root().join(LIST)).unwrap();
    let mut rules = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let Some(entry) = text.strip_prefix("- ") else { continue };
        let id = entry.split(' ').next().unwrap_or_default();
        let rule =
            Rule::parse(id).unwrap_or_else(|| panic!("{LIST}:{line}: an entry begins with a rule: {text}"));
        rules.push((rule, line));
    }
    assert!(!rules.is_empty(), "{LIST} lists no rules");
    rules
}

/// Codes that findings have: string literals that are a rule and nothing else, in code, not in tests.
fn codes_of_findings() -> BTreeMap<Rule, String> {
    let mut codes = BTreeMap::new();
    for package in [vec![String::from(".")], crates()].concat() {
        for (path, code, _) in sources(&package) {
            for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
                // Every second part of a line stands between quotes.
                let literals = line.split('"').skip(1).step_by(2);
                codes.extend(literals.filter_map(Rule::parse).map(|rule| (rule, shown(&path))));
            }
        }
    }
    codes
}

fn fail_with(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}\n", problems.len(), problems.join("\n"));
}

#[test]
fn every_code_is_explained_and_every_explanation_has_a_code() {
    let codes = codes_of_findings();
    assert!(codes.len() > 80, "the codes are no longer found: {codes:?}");
    let mut problems = Vec::new();
    let mut explained = BTreeSet::new();
    for e in kmodld::explain::all() {
        let rule = Rule::parse(e.code).unwrap_or_else(|| panic!("docs/findings: {} is no code", e.code));
        if !codes.contains_key(&rule) {
            problems.push(format!("docs/findings explains {rule}, which no finding has"));
        }
        if !explained.insert(rule) {
            problems.push(format!("docs/findings explains {} twice", e.code));
        }
        // What every text has: a paragraph on the rule, then these items.
        let mut at = 0;
        for item in ["Kernel", "Result", "Log", "Versions", "Example", "Mended", "Fix"] {
            match e.text[at..].find(&format!("\n- {item}: ")) {
                Some(found) => at += found + 1,
                None => problems
                    .push(format!("docs/findings: {} lacks \"- {item}: \", or it is misplaced", e.code)),
            }
        }
        if e.text.starts_with("- ") || e.title.is_empty() {
            problems.push(format!("docs/findings: {} has no paragraph or no title", e.code));
        }
    }
    for (code, path) in codes.iter().filter(|(code, _)| !explained.contains(code)) {
        problems.push(format!("{path}: findings with the code {code} are not explained in docs/findings"));
    }
    fail_with(problems);
}

#[test]
fn listed_rules_exist_once() {
    let spec = Spec::read();
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for (rule, line) in listed() {
        if !spec.rules.contains(&rule) {
            problems.push(format!("{rule}, listed in {LIST}:{line}, is defined in no chapter of docs/spec/"));
        }
        if !seen.insert(rule.clone()) {
            problems.push(format!("{rule} is listed twice, again in {LIST}:{line}"));
        }
    }
    fail_with(problems);
}

#[test]
fn listed_rules_are_cited_by_code() {
    let cited = Cited::read(&Spec::read()).by_code;
    let without = listed().into_iter().filter(|(rule, _)| !cited.contains_key(rule));
    let say = |(rule, line)| {
        format!(
            "{rule}, listed in {LIST}:{line}, is cited by no code in src/ or crates/*/src (outside #[cfg(test)])"
        )
    };
    fail_with(without.map(say).collect());
}

#[test]
fn listed_rules_are_cited_by_a_test() {
    let cited = Cited::read(&Spec::read());
    let without = listed().into_iter().filter(|(rule, _)| !cited.by_tests.contains_key(rule));
    let say = |(rule, line): (Rule, usize)| {
        let code = cited.by_code.get(&rule).map_or(String::new(), |at| format!(" (code: {})", at.join(", ")));
        format!(
            "{rule}, listed in {LIST}:{line}, is cited by no test in tests/, crates/*/tests or #[cfg(test)]{code}"
        )
    };
    fail_with(without.map(say).collect());
}

/// `cargo test -p CRATE` alone shows the rules that the code of the crate cites.
#[test]
fn rules_of_a_crate_are_shown_by_its_own_tests() {
    let spec = Spec::read();
    let listed: BTreeSet<Rule> = listed().into_iter().map(|(rule, _)| rule).collect();
    let mut problems = Vec::new();
    let mut exceptions = BTreeSet::new();
    for (of, rules, _) in SHOWN_BY_THE_WHOLE {
        exceptions.extend(rules.iter().map(|rule| ((*of).to_owned(), Rule::parse(rule).unwrap())));
    }
    for package in crates() {
        let name = package.strip_prefix("crates/").unwrap();
        let mut cited = Cited::default();
        cited.note_package(&package, &spec);
        cited.by_code.retain(|rule, _| listed.contains(rule) && !cited.by_tests.contains_key(rule));
        for (rule, at) in cited.by_code {
            if !exceptions.remove(&(name.to_owned(), rule.clone())) {
                problems.push(format!("{}: {rule} is cited by no test of {package}", at.join(", ")));
            }
        }
    }
    let needless = exceptions.iter().map(|(of, rule)| {
        format!("{rule} of {of} is shown by its tests, or cited by no code of it: SHOWN_BY_THE_WHOLE need not name it")
    });
    problems.extend(needless);
    fail_with(problems);
}

#[test]
fn cited_rules_exist() {
    let spec = Spec::read();
    let cited = Cited::read(&spec);
    let mut problems = Vec::new();
    for (rule, at) in [cited.by_code, cited.by_tests, cited.elsewhere].into_iter().flatten() {
        if !spec.rules.contains(&rule) {
            problems.push(format!("{}: {rule} is defined in no chapter of docs/spec/", at.join(", ")));
        }
    }
    fail_with(problems);
}

#[test]
fn this_test_reads_what_it_should() {
    let rule = |text: &str| Rule::parse(text).unwrap();
    for id in ["VAL-1", "RELOC-GEN-11", "SYM-5b", "X86REL-3", "A64REL-30", "OV-DEB"] {
        assert_eq!(rule(id).to_string(), id);
    }
    for other in ["VAL-", "VAL-x", "val-1", "-1", "86-1", "SYM-5bc", "VAL-1-2", "OV-DEX"] {
        assert_eq!(Rule::parse(other), None, "{other}");
    }

    let spec = Spec::of(["SYM-1", "SYM-2", "SYM-5b", "SYM-9", "RELOC-GEN-1", "RELOC-GEN-2"].map(rule).into());
    let cites = |text: &str| -> Vec<String> {
        let mut ids: Vec<String> = citations(text, &spec).iter().map(|c| c.rule.to_string()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    assert_eq!(cites("(SYM-1), \"SYM-9\": SHA-256, ASYM-1, SYM-1x2, SYM-4"), ["SYM-1", "SYM-4", "SYM-9"]);
    assert_eq!(cites("/// SYM-2 to\n    /// SYM-9."), ["SYM-2", "SYM-5b", "SYM-9"]);
    assert_eq!(cites("RELOC-GEN-1..RELOC-GEN-2"), ["RELOC-GEN-1", "RELOC-GEN-2"]);
    assert_eq!(cites("SYM-1 to 9, SYM-2 tom SYM-9"), ["SYM-1", "SYM-2", "SYM-9"], "not ranges");
    assert_eq!(citations("\n\n SYM-1", &spec)[0].line, 3);

    let names =
        |text: &str| -> Vec<String> { named_by_functions(text, &spec).iter().map(Rule::to_string).collect() };
    assert_eq!(names("    fn sym_1_and_5b_then_2() {"), ["SYM-1", "SYM-5b"]);
    assert_eq!(
        names("fn reloc_gen_1_to_2_all()"),
        ["RELOC-GEN-1", "RELOC-GEN-1", "RELOC-GEN-2", "RELOC-GEN-2"]
    );
    assert_eq!(names("fn symbols_1()"), [""; 0]);

    let source =
        "code\n#[cfg(test)]\nuse x;\ncode\n#[cfg(test)]\nmod tests {\n    fn a() {\n    }\n}\ncode\n";
    let (code, tests) = split_tests(source);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["code"; 3]);
    assert_eq!(tests.lines().nth(6), Some("    fn a() {"));
    assert_eq!(test_modules("mod a;\n#[cfg(test)]\nmod b;\nmod c;\n"), ["b"]);
    assert_eq!(test_modules("#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n"), ["a_tests", "tests"]);
}
