//! Alarms as SARIF 2.1.0.

use serde_json::{Value, json};

use super::report::{Kind, Report, hex};
use crate::document::address;

/// The document: a result for each alarm.
pub fn sarif(report: &Report) -> Value {
    let mut kinds: Vec<Kind> = report.alarms.iter().map(|alarm| alarm.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let rules: Vec<Value> = kinds
        .iter()
        .map(|kind| json!({ "id": kind.name(), "shortDescription": { "text": kind.message() } }))
        .collect();
    let results: Vec<Value> = report
        .alarms
        .iter()
        .map(|alarm| {
            let symbol = alarm.symbol.as_ref().map(|symbol| json!({ "fullyQualifiedName": symbol }));
            json!({
                "ruleId": alarm.kind.name(),
                "ruleIndex": kinds.iter().position(|kind| *kind == alarm.kind),
                "level": "error",
                "message": { "text": alarm.message },
                "locations": [{
                    "physicalLocation": {
                        "address": { "absoluteAddress": alarm.address, "length": alarm.size }
                    },
                    "logicalLocations": symbol.into_iter().collect::<Vec<_>>(),
                }],
                "properties": {
                    "addr": address(alarm.address),
                    "module": alarm.module,
                    "expected": hex(&alarm.expected),
                    "found": hex(&alarm.found),
                },
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kmodld",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    })
}
