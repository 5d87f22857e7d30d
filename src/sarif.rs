//! Findings as SARIF 2.1.0, the format of code scanning services. The document is written piece by piece: what names
//! the rules comes last, when they are known.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::check::Verdict;
use crate::document::FindingEntry;

/// What the document begins with; results follow, separated by commas, then [`Sarif::end`].
pub const BEGIN: &str = "{\"$schema\":\"https://json.schemastore.org/sarif-2.1.0.json\",\"version\":\"2.1.0\",\
    \"runs\":[{\"results\":[";

/// The rules that exist, a line each: `- CODE text`.
const RULES: &str = include_str!("../docs/spec/IMPLEMENTED.md");
/// Where they are explained.
const HELP: &str = "docs/spec/README.md";

/// A document while it is written.
#[derive(Debug, Default)]
pub struct Sarif {
    /// Codes in the order of their first result.
    rules: Vec<&'static str>,
    index: HashMap<&'static str, usize>,
    notifications: Vec<Value>,
}

impl Sarif {
    /// The results of a module, one for each finding.
    pub fn results(&mut self, verdict: &Verdict) -> Vec<Value> {
        verdict.findings.iter().map(|finding| self.result(verdict, finding)).collect()
    }

    fn result(&mut self, verdict: &Verdict, finding: &FindingEntry) -> Value {
        let next = self.rules.len();
        let rule = *self.index.entry(finding.code).or_insert(next);
        if rule == next {
            self.rules.push(finding.code);
        }
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
                "module": verdict.module,
                "verdict": verdict.verdict,
                "errno": finding.errno,
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
        let rule = |code: &&'static str| {
            let text = text_of(code);
            json!({ "id": code, "shortDescription": { "text": text }, "help": { "text": format!("Rule {code}: see {HELP}.") } })
        };
        let rules: Vec<Value> = self.rules.iter().map(rule).collect();
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
        format!("],\"tool\":{{\"driver\":{driver}}},\"invocations\":{invocations}}}]}}\n")
    }
}

/// What a rule is about, in a few words; its code, if nothing is written about it.
fn text_of(code: &str) -> &str {
    let of_line = |line: &'static str| line.strip_prefix("- ")?.strip_prefix(code)?.strip_prefix(' ');
    RULES.lines().find_map(of_line).map_or(code, |text| text.strip_prefix("in part: ").unwrap_or(text))
}

fn level(severity: &str) -> &'static str {
    match severity {
        "error" | "oops" => "error",
        "warning" => "warning",
        _ => "note",
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
        assert_eq!(text_of("SIG-2"), "marker");
        assert_eq!(text_of("VAL-4"), "the largest file size");
        assert_eq!(text_of("NO-1"), "NO-1");
    }
}
