//! Findings as SARIF 2.1.0, the format of code scanning services. The document is written piece by piece: what names
//! the rules comes last, when they are known.

use std::collections::HashMap;

use elf_layout::{Errno, Severity};
use serde_json::{Value, json};

use crate::check::Verdict;
use crate::document::{FindingEntry, UnjudgedEntry};
use crate::explain::explain;

/// What the document begins with; results follow, separated by commas, then [`Sarif::end`].
pub const BEGIN: &str = "{\"$schema\":\"https://json.schemastore.org/sarif-2.1.0.json\",\"version\":\"2.1.0\",\
    \"runs\":[{\"results\":[";

/// A document while it is written.
#[derive(Debug, Default)]
pub struct Sarif {
    /// Codes in the order of their first result.
    rules: Vec<&'static str>,
    index: HashMap<&'static str, usize>,
    notifications: Vec<Value>,
    /// Part and number of parts, if it is of one part.
    shard: Option<(usize, usize)>,
}

impl Sarif {
    /// Nothing in it yet; `shard` are the number of the part that it is of, and how many there are.
    pub fn new(shard: Option<(usize, usize)>) -> Self {
        Sarif { shard, ..Sarif::default() }
    }

    /// The results of a module, one for each finding, and one of the kind `open` for each rule that was not judged.
    pub fn results(&mut self, verdict: &Verdict) -> Vec<Value> {
        let mut results: Vec<Value> =
            verdict.findings.iter().map(|finding| self.result(verdict, finding)).collect();
        results.extend(verdict.unjudged.iter().map(|open| self.unjudged(verdict, open)));
        results
    }

    /// The position of a rule in the document.
    fn rule(&mut self, code: &'static str) -> usize {
        let next = self.rules.len();
        let rule = *self.index.entry(code).or_insert(next);
        if rule == next {
            self.rules.push(code);
        }
        rule
    }

    fn unjudged(&mut self, verdict: &Verdict, open: &UnjudgedEntry) -> Value {
        json!({
            "ruleId": open.code,
            "ruleIndex": self.rule(open.code),
            "kind": "open",
            "level": "none",
            "message": { "text": format!("not judged: needs {}", open.needs) },
            "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&verdict.file) } } }],
            "properties": {
                "kernel": verdict.kernel,
                "coverage": verdict.coverage,
                "module": verdict.module,
                "verdict": verdict.word(),
            },
        })
    }

    fn result(&mut self, verdict: &Verdict, finding: &FindingEntry) -> Value {
        let rule = self.rule(finding.code);
        let hint = finding.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        json!({
            "ruleId": finding.code,
            "ruleIndex": rule,
            "level": level(finding.severity),
            "message": { "text": format!("{}: {}{hint}", finding.subject, finding.explanation) },
            "locations": [{
                "physicalLocation": { "artifactLocation": { "uri": uri(&verdict.file) } },
                "logicalLocations": [{ "name": finding.subject, "kind": "member" }],
            }],
            "properties": {
                "kernel": verdict.kernel,
                "coverage": verdict.coverage,
                "module": verdict.module,
                "verdict": verdict.word(),
                "errno": finding.errno.map(Errno::name),
                "dmesg": finding.dmesg,
                "stops_here": finding.stops_here,
            },
        })
    }

    /// A file that cannot be read.
    pub fn unreadable(&mut self, message: &str) {
        self.notifications.push(json!({ "level": "error", "message": { "text": message } }));
    }

    /// What the document ends with.
    pub fn end(self) -> String {
        let rules: Vec<Value> = self.rules.iter().map(|code| rule(code)).collect();
        let driver = json!({
            "name": "kmodld",
            "version": env!("CARGO_PKG_VERSION"),
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        });
        let invocations = json!([{
            "executionSuccessful": self.notifications.is_empty(),
            "toolExecutionNotifications": self.notifications,
        }]);
        // What is before the last slash is the category, by which services tell runs apart.
        let id = self.shard.map_or(String::from("kmodld/"), |(part, of)| format!("kmodld/{part}-of-{of}/"));
        let details = json!({ "id": id });
        format!(
            "],\"tool\":{{\"driver\":{driver}}},\"automationDetails\":{details},\"invocations\":{invocations}}}]}}\n"
        )
    }
}

/// A `reportingDescriptor`: what `kmodld explain` says of a code; the code alone, if it says nothing.
fn rule(code: &str) -> Value {
    match explain(code) {
        Some(e) => {
            let help = json!({ "text": e.text, "markdown": e.text });
            json!({ "id": code, "shortDescription": { "text": e.title }, "help": help })
        }
        None => json!({ "id": code, "shortDescription": { "text": code } }),
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error | Severity::Oops => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// A path as a URI reference (RFC 3986): absolute paths with their scheme.
fn uri(path: &str) -> String {
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    let mut out = String::from(scheme);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/+@,=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(uri("/a b/ü.ko"), "file:///a%20b/%C3%BC.ko");
        assert_eq!(uri("x+y.ko"), "x+y.ko");
        assert_eq!(uri("a:b#?.ko"), "a%3Ab%23%3F.ko");
    }

    #[test]
    fn rules_have_texts() {
        let descriptor = rule("VAL-11");
        assert_eq!(descriptor["shortDescription"]["text"], "not an ELF file");
        let help = descriptor["help"]["text"].as_str().unwrap();
        assert!(help.contains("- Kernel: `elf_validity_ehdr`") && help.contains("- Fix: "), "{help}");
        assert_eq!(rule("NO-1"), json!({ "id": "NO-1", "shortDescription": { "text": "NO-1" } }));
    }
}
