//! The text of a story has no number that its events have not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::common::{self, ALL_KERNELS, hex, modules};
use crate::{events, of, trace};

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// What is in an event, as numbers: its own, those in its texts, and how many of a kind there are.
fn numbers_of(value: &Value, all: &mut BTreeSet<u64>) {
    match value {
        Value::Number(number) => all.extend(number.as_u64().or(number.as_i64().map(i64::unsigned_abs))),
        Value::String(text) => all.extend(words(text)),
        Value::Array(values) => values.iter().for_each(|value| numbers_of(value, all)),
        Value::Object(fields) => fields.values().for_each(|value| numbers_of(value, all)),
        _ => {}
    }
}

/// The numbers of a text.
fn words(text: &str) -> impl Iterator<Item = u64> + '_ {
    let pieces = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    pieces.filter_map(|word| match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    })
}

/// The text has no number that its events have not, and that is not a count of them.
#[test]
fn texts_tell_the_numbers_of_their_events() {
    let mut seen = 0;
    for kernel in ALL_KERNELS {
        let counts = common::in_parallel(&modules(kernel), |module| {
            let text = trace(kernel, module, &["--unload"]).stdout;
            let told = events(&trace(kernel, module, &["--unload", "--json"]));
            let mut all = BTreeSet::new();
            told.iter().for_each(|event| numbers_of(event, &mut all));
            let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
            for event in &told {
                let records = event["records"].as_array().into_iter().flatten();
                let kinds = records.map(|r| format!("{} {}", r["type"], event["event"]));
                let own = [format!("{} {}", event["event"], event["what"])];
                kinds.chain(own).for_each(|kind| *by_kind.entry(kind).or_default() += 1);
            }
            all.extend(by_kind.values());
            let symbols = of(&told, "symbols").into_iter().flat_map(|e| list(&e["symbols"]));
            let (own, undefined): (Vec<_>, Vec<_>) = symbols.partition(|symbol| symbol["section"] != 0);
            all.extend([own.len() as u64, undefined.len() as u64]);
            all.extend(of(&told, "begin").iter().map(|begin| list(&begin["loaded"]).len() as u64));
            let hidden = (of(&told, "import").len() as u64).checked_sub(12);
            all.extend(hidden);
            let slots = of(&told, "slot").len() as u64;
            all.extend([slots, slots.saturating_sub(3)]);
            let records = of(&told, "relocations").into_iter().flat_map(|e| list(&e["records"]));
            let by_slot = records.filter(|record| !record["slot"].is_null());
            all.extend(by_slot.map(|record| hex(&record["slot"]).wrapping_sub(hex(&record["p"]))));
            // Titles begin with the number of the step; bytes of memory are compared elsewhere.
            let is_step = |line: &str| !line.starts_with("   ");
            let is_bytes =
                |line: &str| ["before ", "after  "].iter().any(|word| line.trim().starts_with(word));
            let mut count = 0;
            for line in text.lines().filter(|line| !is_step(line) && !is_bytes(line)) {
                for number in words(line) {
                    assert!(all.contains(&number), "{kernel}/{module}: {number:#x} ({number}): {line}");
                    count += 1;
                }
            }
            count
        });
        seen += counts.into_iter().sum::<usize>();
    }
    assert!(seen > 10_000, "{seen}");
}
