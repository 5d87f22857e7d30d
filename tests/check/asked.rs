//! How the tests of `check` ask, and what they expect of every answer.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{self, Ran, kernel_args, kmodld, ko};

pub const KERNEL: &str = "6.12-amd64";

/// `check FILE` on a fixture kernel with more arguments.
pub fn check(kernel: &str, file: &Path, more: &[&str]) -> Ran {
    let mut args = vec![String::from("check"), file.display().to_string()];
    args.extend(kernel_args(kernel));
    args.extend(more.iter().map(|s| String::from(*s)));
    kmodld(args)
}

/// The verdict on a fixture module, after modules loaded before, and the exit code that goes with it.
#[track_caller]
pub fn verdict(kernel: &str, module: &str, before: &[&str], more: &[&str]) -> Value {
    let before: Vec<String> = before.iter().map(|m| ko(kernel, m).display().to_string()).collect();
    // What the kernel says to insmod: fixtures lie beside what they need.
    let mut args = vec!["--jsonl", "--no-deps"];
    before.iter().for_each(|m| args.extend(["--with", m]));
    args.extend(more);
    parsed(check(kernel, &ko(kernel, module), &args))
}

#[track_caller]
pub fn parsed(ran: Ran) -> Value {
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "one line a module: {ran:?}");
    let verdict: Value = serde_json::from_str(lines[0]).unwrap();
    let code = match verdict["verdict"].as_str() {
        Some("loads") => 0,
        Some("undecided") => 4,
        _ => 1,
    };
    assert_eq!(ran.code, code, "exit code of {verdict}");
    assert_eq!(verdict["schema"], 2);
    let unjudged = verdict["unjudged"].as_array().unwrap();
    if verdict["verdict"] == "undecided" {
        assert!(!unjudged.is_empty(), "what is not judged: {verdict}");
        assert_eq!((&verdict["errno"], &verdict["dmesg"]), (&Value::Null, &json!([])), "{verdict}");
        return verdict;
    }
    // What all verdicts have in common.
    let findings = verdict["findings"].as_array().unwrap();
    let stops: Vec<&Value> = findings.iter().filter(|f| f["stops_here"] == true).collect();
    assert_eq!(stops.len(), usize::from(verdict["verdict"] != "loads"), "one stop at most: {verdict}");
    let stop_errno = stops.first().map_or(&Value::Null, |f| &f["errno"]);
    assert_eq!(&verdict["errno"], stop_errno, "errno is that of the finding where the kernel stops");
    let upto = findings.iter().position(|f| f["stops_here"] == true).unwrap_or(findings.len());
    let said = findings.iter().take(upto + 1).filter_map(|f| f["dmesg"].as_str());
    let said: Vec<&str> = said.flat_map(str::lines).collect();
    assert_eq!(verdict["dmesg"], json!(said), "the log ends where the kernel stops");
    assert_eq!(verdict["suppressed"], 0);
    verdict
}

/// (code, errno) of all findings, in order.
pub fn codes(verdict: &Value) -> Vec<(&str, Option<&str>)> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings.map(|f| (f["code"].as_str().unwrap(), f["errno"].as_str())).collect()
}

/// The codes of what is not judged.
pub fn open(verdict: &Value) -> Vec<&str> {
    verdict["unjudged"].as_array().unwrap().iter().map(|u| u["code"].as_str().unwrap()).collect()
}

#[track_caller]
pub fn finding<'v>(verdict: &'v Value, code: &str) -> &'v Value {
    let found = verdict["findings"].as_array().unwrap().iter().find(|f| f["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {verdict}"))
}

pub fn out_of_tree(module: &str) -> String {
    format!("{module}: loading out-of-tree module taints kernel.")
}

pub fn unsigned(module: &str) -> String {
    format!("{module}: module verification failed: signature and/or required key missing - tainting kernel")
}

pub fn unknown(module: &str, symbol: &str, errno: i32) -> String {
    format!("{module}: Unknown symbol {symbol} (err {errno})")
}

/// Those of these symbols that a fixture leaves undefined, in the order of its symbol table: the kernel's.
pub fn in_file_order(kernel: &str, module: &str, names: &[&str]) -> Vec<String> {
    let elf = common::Elf::new(common::read(&ko(kernel, module)));
    let undefined = elf.symbols().into_iter().filter(|s| s.shndx == common::elf::UNDEF).map(|s| s.name);
    let order: Vec<String> = undefined.filter(|n| names.contains(&n.as_str())).collect();
    assert_eq!(order.len(), names.len(), "{kernel}/{module}: {order:?}");
    order
}
