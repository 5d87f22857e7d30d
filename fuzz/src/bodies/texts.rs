//! Texts that people and other programs give: outputs of `check` for `merge`, and words for `explain`.

use kmodld::check::read::Line;
use kmodld::check::summary::Summary;
use kmodld::explain::search::{errno, of_errno, of_log_line};
use kmodld::explain::{all, explain as explained, family, similar, spec};
use kmodld::sarif::{BEGIN, Sarif};
use serde_json::Value;

/// `merge`: lines of `check --jsonl` to a summary and a SARIF document.
pub fn merge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut summary, mut sarif, mut results, mut read) =
        (Summary::default(), Sarif::default(), Vec::new(), 0usize);
    for line in text.lines() {
        match Line::read(line) {
            Err(why) => assert!(!why.is_empty(), "a line is refused without a reason"),
            Ok(Line::Unreadable(why)) => sarif.unreadable(&why),
            Ok(Line::Verdict(verdict)) => {
                read += 1;
                let json = serde_json::to_string(&verdict).expect("a verdict is JSON");
                match Line::read(&json) {
                    Ok(Line::Verdict(again)) => {
                        let again = serde_json::to_string(&again).expect("a verdict is JSON");
                        assert_eq!(again, json, "read, written and read again");
                    }
                    other => panic!("{json}: {other:?}"),
                }
                summary.add(&verdict);
                results.extend(sarif.results(&verdict).iter().map(Value::to_string));
            }
        }
    }
    let Summary { modules, loads, oops, undecided, .. } = summary;
    assert_eq!(
        (modules, loads + oops + undecided + summary.all_refused()),
        (read, read),
        "modules are counted once"
    );
    let document = [BEGIN, &results.join(","), &sarif.end()].concat();
    let document: Value = serde_json::from_str(&document).expect("SARIF is JSON");
    assert_eq!(document["runs"][0]["results"].as_array().map(Vec::len), Some(results.len()));
}

/// `explain`: codes, families, errnos, rules and lines of dmesg.
pub fn explain(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines().take(2) {
        let found = of_log_line(line);
        assert!(found.len() <= 8, "{} candidates", found.len());
        if let Some(errno) = errno(line) {
            let _ = of_errno(errno).count();
        }
        let letters =
            |text: &str| text.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        match explained(line) {
            Some(e) => assert_eq!(letters(e.code), letters(line), "the code that was asked for"),
            None => assert!(similar(line).iter().all(|code| all().any(|e| e.code == *code))),
        }
        let _ = (family(line), spec::rule(line));
    }
}
