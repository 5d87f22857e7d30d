//! Reads verdicts back: lines of `check --jsonl`, also from other machines.

use elf_layout::{Errno, Severity};
use serde_json::Value;

use super::by_kernel::ByKernel;
use super::{Ending, SCHEMA, Verdict};
use crate::document::{CauseEntry, FindingEntry, UnjudgedEntry};
use crate::explain::explain;

/// One line of `check --jsonl`.
#[derive(Debug)]
pub enum Line {
    /// What a kernel makes of a module.
    Verdict(Box<Verdict>),
    /// A file that could not be read: why.
    Unreadable(String),
}

impl Line {
    /// Reads a line. The error says what is wrong with it.
    pub fn read(text: &str) -> Result<Line, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let schema = value.get("schema").and_then(Value::as_u64);
        if schema != Some(u64::from(SCHEMA)) {
            let found = schema.map_or(String::from("none"), |schema| schema.to_string());
            return Err(format!("no verdict of `kmodld check --jsonl`: its schema is {found}, not {SCHEMA}"));
        }
        if text_of(&value, "verdict")? == "unreadable" {
            return Ok(Line::Unreadable(text_of(&value, "error")?.to_owned()));
        }
        verdict(&value).map(|verdict| Line::Verdict(Box::new(verdict)))
    }
}

fn verdict(value: &Value) -> Result<Verdict, String> {
    let coverage = text_of(value, "coverage")?;
    let known = ["exact", "rules", "unknown"].into_iter().find(|known| *known == coverage);
    let list = |field: &str| list_of(value, field);
    let open = |rule: &Value| -> Result<UnjudgedEntry, String> {
        Ok(UnjudgedEntry { code: code(rule)?, needs: text_of(rule, "needs")?.to_owned() })
    };
    Ok(Verdict {
        schema: SCHEMA,
        file: text_of(value, "file")?.to_owned(),
        module: optional(value, "module"),
        kernel: optional(value, "kernel"),
        coverage: known.ok_or_else(|| format!("coverage is {coverage:?}"))?,
        verdict: ending(value)?,
        errno: errno(value)?,
        dmesg: lines(value)?,
        taints: text_of(value, "taints")?.to_owned(),
        cause: value.get("cause").filter(|cause| !cause.is_null()).map(cause).transpose()?,
        unjudged: list("unjudged")?.iter().map(open).collect::<Result<_, _>>()?,
        with: value.get("with").map_or(Ok(Vec::new()), |with| {
            let names = with.as_array().ok_or("with is no array")?;
            let name =
                |name: &Value| name.as_str().map(String::from).ok_or("with holds something that is no text");
            names.iter().map(name).collect::<Result<_, _>>()
        })?,
        findings: list("findings")?.iter().map(finding).collect::<Result<_, _>>()?,
        suppressed: value.get("suppressed").and_then(Value::as_u64).unwrap_or(0),
        by_kernel: value.get("by_kernel").map(by_kernel).transpose()?,
    })
}

fn by_kernel(value: &Value) -> Result<ByKernel, String> {
    const DIFFERS: [&str; 3] = ["verdict", "errno", "log"];
    let warnings = list_of(value, "warnings")?.iter().filter_map(Value::as_u64);
    let differs = list_of(value, "differs")?;
    Ok(ByKernel {
        verdict: ending(value)?,
        errno: errno(value)?,
        dmesg: lines(value)?,
        warnings: warnings.filter_map(|at| usize::try_from(at).ok()).collect(),
        taints: text_of(value, "taints")?.to_owned(),
        stopped: optional(value, "stopped"),
        differs: DIFFERS.into_iter().filter(|word| differs.iter().any(|d| d == word)).collect(),
        instructions: value.get("instructions").and_then(Value::as_u64).unwrap_or(0),
    })
}

fn ending(value: &Value) -> Result<Ending, String> {
    let word = text_of(value, "verdict")?;
    let ending = Ending::ALL.into_iter().find(|ending| ending.word("loads") == word);
    ending.ok_or_else(|| format!("verdict is {word:?}"))
}

fn list_of<'v>(value: &'v Value, field: &str) -> Result<&'v Vec<Value>, String> {
    value.get(field).and_then(Value::as_array).ok_or_else(|| format!("{field} is missing, or no array"))
}

fn lines(value: &Value) -> Result<Vec<String>, String> {
    let line = |line: &Value| line.as_str().map(String::from).ok_or("dmesg holds something that is no text");
    Ok(list_of(value, "dmesg")?.iter().map(line).collect::<Result<_, _>>()?)
}

fn cause(value: &Value) -> Result<CauseEntry, String> {
    Ok(CauseEntry {
        built_for: optional(value, "built_for"),
        text: text_of(value, "text")?.to_owned(),
        hint: text_of(value, "hint")?.to_owned(),
    })
}

fn finding(value: &Value) -> Result<FindingEntry, String> {
    let word = text_of(value, "severity")?;
    let severity = Severity::ALL.into_iter().find(|severity| severity.word() == word);
    Ok(FindingEntry {
        code: code(value)?,
        errno: errno(value)?,
        dmesg: optional(value, "dmesg"),
        severity: severity.ok_or_else(|| format!("severity is {word:?}"))?,
        subject: text_of(value, "subject")?.to_owned(),
        explanation: text_of(value, "explanation")?.to_owned().into(),
        hint: optional(value, "hint"),
        exporter: optional(value, "exporter"),
        stops_here: value.get("stops_here").and_then(Value::as_bool).ok_or("stops_here is missing")?,
    })
}

fn text_of<'v>(value: &'v Value, field: &str) -> Result<&'v str, String> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| format!("{field} is missing, or no text"))
}

fn optional(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(Value::as_str).map(String::from)
}

fn errno(value: &Value) -> Result<Option<Errno>, String> {
    let Some(name) = optional(value, "errno") else { return Ok(None) };
    Errno::from_name(&name).map(Some).ok_or_else(|| format!("no errno is called {name:?}"))
}

/// A code that this version knows.
fn code(value: &Value) -> Result<&'static str, String> {
    let code = text_of(value, "code")?;
    let known = explain(code).filter(|e| e.code == code);
    known
        .map(|e| e.code)
        .ok_or_else(|| format!("no finding has the code {code:?}: another version of kmodld wrote it"))
}
