//! Agreement with kmod's `modinfo` on every field, of the fixtures and of whole distributions.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use common::trees::{sampled, trees};
use serde_json::Value;

/// Fields of one module in order.
type Fields = Vec<(String, String)>;

/// What `modinfo -0` says, per file.
fn modinfo(files: &[PathBuf]) -> HashMap<String, Fields> {
    let output = Command::new("modinfo").arg("-0").args(files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut all: Vec<(String, Fields)> = Vec::new();
    for record in text.split('\0').filter(|r| !r.is_empty()) {
        if let Some(path) = record.strip_prefix("filename:") {
            all.push((path.trim_start().to_owned(), Vec::new()));
            continue;
        }
        let (key, value) = match record.strip_prefix("parm:") {
            Some(value) => ("parm", value.trim_start()),
            None => record.split_once('=').unwrap_or((record, "")),
        };
        // A signature is printed on several lines.
        let value = if key == "signature" { value.split_whitespace().collect() } else { value.to_owned() };
        if let Some((_, fields)) = all.last_mut() {
            fields.push((key.to_owned(), value));
        }
    }
    all.into_iter().collect()
}

/// What `kmodld inspect --json` says, as modinfo would print it.
fn inspect(files: &[PathBuf]) -> HashMap<String, Fields> {
    let args = ["inspect", "--json"].map(std::ffi::OsStr::new).into_iter();
    let ran = common::kmodld(args.chain(files.iter().map(|f| f.as_os_str()))).exits(0);
    ran.stdout.lines().map(|line| as_modinfo(&serde_json::from_str(line).unwrap())).collect()
}

fn as_modinfo(document: &Value) -> (String, Fields) {
    let mut fields = Fields::new();
    // parm=NAME:DESCRIPTION and parmtype=NAME:TYPE become one line at the end, the last one first.
    let mut parameters: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    for entry in document["modinfo"].as_array().unwrap() {
        let (tag, value) = (entry[0].as_str().unwrap(), entry[1].as_str().unwrap());
        if !["parm", "parmtype"].contains(&tag) {
            fields.push((tag.to_owned(), value.to_owned()));
            continue;
        }
        let Some((name, rest)) = value.split_once(':') else { continue };
        let at = parameters.iter().position(|p| p.0 == name).unwrap_or_else(|| {
            parameters.push((name.to_owned(), None, None));
            parameters.len() - 1
        });
        let slot = if tag == "parm" { &mut parameters[at].1 } else { &mut parameters[at].2 };
        *slot = Some(rest.to_owned());
    }
    if !document["signature"].is_null() {
        for key in ["sig_id", "signer", "sig_key", "sig_hashalgo", "signature"] {
            fields.push((key.to_owned(), document["signature"][key].as_str().unwrap_or_default().to_owned()));
        }
    }
    for (name, description, kind) in parameters.into_iter().rev() {
        let value = match (description, kind) {
            (Some(description), Some(kind)) => format!("{name}:{description} ({kind})"),
            (one, other) => format!("{name}:{}", one.or(other).unwrap_or_default()),
        };
        fields.push(("parm".to_owned(), value));
    }
    (document["file"].as_str().unwrap().to_owned(), fields)
}

/// Where the two disagree.
fn disagreements(files: &[PathBuf]) -> (usize, Vec<String>) {
    let (theirs, ours) = (modinfo(files), inspect(files));
    let mut complaints = Vec::new();
    let mut fields = 0;
    for file in files {
        let name = file.display().to_string();
        let (Some(theirs), Some(ours)) = (theirs.get(&name), ours.get(&name)) else {
            complaints.push(format!("{name}: one of the two does not know it"));
            continue;
        };
        fields += theirs.len();
        if let Some(at) = (0..theirs.len().max(ours.len())).find(|i| theirs.get(*i) != ours.get(*i)) {
            complaints.push(format!("{name}: {}", difference(theirs.get(at), ours.get(at))));
        }
    }
    (fields, complaints)
}

/// The part of two fields where they begin to differ.
fn difference(theirs: Option<&(String, String)>, ours: Option<&(String, String)>) -> String {
    let text = |field: Option<&(String, String)>| {
        field.map_or(String::new(), |(key, value)| format!("{key}={value}"))
    };
    let (theirs, ours) = (text(theirs), text(ours));
    let at = theirs.bytes().zip(ours.bytes()).take_while(|(a, b)| a == b).count();
    let tail = |s: &str| String::from_utf8_lossy(&s.as_bytes()[at..]).chars().take(60).collect::<String>();
    let start: String = theirs.chars().take(30).collect();
    format!("field {start:?}..., byte {at}: modinfo says {:?}, kmodld {:?}", tail(&theirs), tail(&ours))
}

#[test]
fn fixtures_as_modinfo_reads_them() {
    if !common::has_tool("fixtures_as_modinfo_reads_them", "modinfo") {
        return;
    }
    let files: Vec<PathBuf> = common::KERNELS
        .into_iter()
        .flat_map(|k| common::modules(k).into_iter().map(move |m| common::ko(k, &m)))
        .collect();
    let (fields, complaints) = disagreements(&files);
    assert!(complaints.is_empty(), "VAL-60: {}", common::first_of(&complaints));
    assert!(fields > 7 * files.len(), "only {fields} fields compared");
}

#[test]
fn whole_distributions_as_modinfo_reads_them() {
    let test = "whole_distributions_as_modinfo_reads_them";
    if !common::has_tool(test, "modinfo") {
        return;
    }
    let mut wrong = Vec::new();
    for tree in trees(test) {
        let modules = sampled(&tree);
        let batches: Vec<&[PathBuf]> = modules.chunks(200).collect();
        let results = common::in_parallel(&batches, |batch| disagreements(batch));
        let fields: usize = results.iter().map(|r| r.0).sum();
        let complaints: Vec<String> = results.into_iter().flat_map(|r| r.1).collect();
        common::tell(&format!(
            "{}: {}/{} modules read as by modinfo, {fields} fields",
            tree.release,
            modules.len() - complaints.len(),
            modules.len()
        ));
        wrong.extend(complaints);
    }
    assert!(wrong.is_empty(), "VAL-60: {}", common::first_of(&wrong));
}

/// `inspect -F` and `-0` print, byte for byte, what modinfo prints.
#[test]
fn fields_are_printed_as_modinfo_prints_them() {
    if Command::new("modinfo").arg("--version").output().is_err() {
        return common::skipped("fields_are_printed_as_modinfo_prints_them", "modinfo is not here");
    }
    let same = |modinfo: &[&str], inspect: &[&str], file: &str| {
        let theirs = Command::new("modinfo").args(modinfo).arg(file).output().unwrap();
        let ours = common::program().arg("inspect").args(inspect).arg(file).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ours.stdout),
            String::from_utf8_lossy(&theirs.stdout),
            "{inspect:?} {file}"
        );
    };
    let of =
        |kernel: &'static str| common::modules(kernel).into_iter().map(move |name| common::ko(kernel, &name));
    for file in of("6.12-amd64").chain(of("6.1-arm64")) {
        let file = file.to_str().unwrap();
        same(&["-0"], &["-0"], file);
        for field in
            ["filename", "license", "parm", "parmtype", "vermagic", "depends", "signer", "signature", "none"]
        {
            same(&["-F", field], &["-F", field], file);
            same(&["-0", "-F", field], &["-0", "-F", field], file);
        }
    }
}
