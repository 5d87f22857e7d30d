//! Many modules on many kernels: parts, their join, lists of files, and the schemas of what programs read.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, facts, fixtures, kernel_args, kmodld, ko};
use serde_json::{Value, json};

const KERNEL: &str = "6.12-amd64";

fn check(more: &[&str]) -> Ran {
    kmodld(["check"].iter().chain(more))
}

/// All fixtures of 6.12 on two kernels.
fn matrix(dir: &Path) -> Vec<String> {
    let mut args = vec![fixtures(KERNEL).display().to_string()];
    for kernel in [KERNEL, "6.1-amd64"] {
        // facts() writes to one place for each kernel.
        let spec = dir.join(format!("{kernel}.spec"));
        fs::copy(facts(kernel), &spec).unwrap();
        args.extend([String::from("--kernel"), spec.display().to_string()]);
    }
    args
}

#[test]
fn parts_are_joined_to_what_one_run_says() {
    let dir = tempfile::tempdir().unwrap();
    let missing = String::from("/nonexistent/x.ko");
    let args: Vec<String> = matrix(dir.path()).into_iter().chain([missing]).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let whole = check(&[&args[..], &["--jsonl"]].concat());
    let summary: String = {
        let text = check(&args).stdout;
        let at = text.find(" modules on ").map(|at| text[..at].rfind('\n').unwrap() + 1).unwrap();
        text[at..].to_owned()
    };
    let pairs = whole.stdout.lines().count();
    for of in [1, 2, 7, pairs, pairs + 3] {
        let mut files = Vec::new();
        let mut codes = Vec::new();
        for part in 0..of {
            let (index, count) = (part.to_string(), of.to_string());
            let ran =
                check(&[&args[..], &["--jsonl", "--shard-index", &index, "--shard-count", &count]].concat());
            let path = dir.path().join(format!("{part}-of-{of}.jsonl"));
            fs::write(&path, &ran.stdout).unwrap();
            codes.push(ran.code);
            files.push(path.display().to_string());
        }
        let joined: String = files.iter().map(|f| fs::read_to_string(f).unwrap()).collect();
        assert_eq!(joined, whole.stdout, "{of} parts");
        assert!(codes.iter().all(|code| [0, 1, 3, 4].contains(code)), "{codes:?}");

        let sarif = dir.path().join("merged.sarif").display().to_string();
        let merged =
            kmodld(["merge", "--sarif", &sarif].iter().copied().chain(files.iter().map(String::as_str)));
        let merged = merged.exits(whole.code);
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(String::from).collect();
            lines.sort();
            lines
        };
        // Kernels are named by their releases in one and in the other.
        assert_eq!(sorted(&merged.stdout), sorted(&summary), "{of} parts");
        let merged: Value = serde_json::from_str(&fs::read_to_string(&sarif).unwrap()).unwrap();
        let one = check(&[&args[..], &["--sarif"]].concat()).json();
        assert_eq!(merged, one, "{of} parts: one SARIF document");
    }
    let ids = ["1/2", "2/2"].map(|part| {
        let sarif = check(&[&args[..], &["--sarif", "--shard", part]].concat()).json();
        sarif["runs"][0]["automationDetails"]["id"].as_str().unwrap().to_owned()
    });
    assert_eq!(ids, ["kmodld/1-of-2/", "kmodld/2-of-2/"]);
    for wrong in
        [&["--shard-index", "2", "--shard-count", "2"][..], &["--shard-index", "0"], &["--shard-count", "2"]]
    {
        check(&[&args[..], wrong].concat()).exits(2);
    }
}

#[test]
fn what_is_no_output_of_check_is_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    for (text, why) in [
        ("rubbish\n", "line 1: not JSON"),
        ("{\"schema\":1}\n", "its schema is 1, not 2"),
        ("\n[]\n", "line 2: no verdict"),
        ("{\"schema\":2}\n", "verdict is missing"),
    ] {
        fs::write(&path, text).unwrap();
        let ran = kmodld(["merge", path.to_str().unwrap()]).exits(3);
        assert!(ran.stderr.contains(why) && ran.stderr.contains("x.jsonl"), "{text:?}: {}", ran.stderr);
    }
    fs::write(&path, "").unwrap();
    assert_eq!(kmodld(["merge", path.to_str().unwrap()]).exits(0).stdout, "no verdict in 1 file\n");
}

#[test]
fn files_come_from_a_list() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    let [hello, params] = ["hello", "params"].map(|m| ko(KERNEL, m).display().to_string());
    let kernel = kernel_args(KERNEL);
    let kernel: Vec<&str> = kernel.iter().map(String::as_str).collect();
    let want = check(&[&[&*hello, &*params, "--jsonl"], &kernel[..]].concat()).stdout;
    for text in [format!("{hello}\n{params}\n"), format!("{hello}\0{params}\0")] {
        fs::write(&list, text).unwrap();
        let from = ["--files-from", list.to_str().unwrap(), "--jsonl"];
        assert_eq!(check(&[&from, &kernel[..]].concat()).stdout, want);
    }
    check(&[&["--files-from", "/nonexistent"], &kernel[..]].concat()).exits(3);
}

/// A file that cannot be read is an object with the fields of a verdict.
#[test]
fn unreadable_files_are_objects() {
    let spec = facts(KERNEL).display().to_string();
    let ran = check(&["/nonexistent/x.ko", "--jsonl", "--kernel", &spec]).exits(3);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(object["verdict"], "unreadable");
    assert_eq!((&object["file"], &object["errno"]), (&json!("/nonexistent/x.ko"), &Value::Null));
    assert!(object["error"].as_str().unwrap().contains("No such file"), "{object}");
    conforms("check", &object);
}

/// Does a document conform to a schema? What of JSON Schema the schemas here use; anything else fails the test.
fn valid(root: &Value, schema: &Value, document: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if *schema == json!(true) { Ok(()) } else { Err(format!("{at}: schema {schema}")) };
    };
    // A tag beside the struct that it tags: the fields are those of both.
    if let (Some(of), Some(own)) = (schema.get("$ref"), schema.get("properties")) {
        let mut whole = root.pointer(of.as_str().unwrap().strip_prefix('#').unwrap()).unwrap().clone();
        let fields = whole["properties"].as_object_mut().unwrap();
        fields.extend(own.as_object().unwrap().iter().map(|(name, rule)| (name.clone(), rule.clone())));
        return valid(root, &whole, document, at);
    }
    for (keyword, rule) in schema {
        let wrong = |what: String| Err(format!("{at}: {what}: {document}"));
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" | "format" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                valid(root, root.pointer(pointer).unwrap(), document, at)?;
            }
            "const" if rule != document => return wrong(format!("not {rule}")),
            "const" => {}
            "anyOf" | "oneOf" => {
                let tried: Vec<_> =
                    rule.as_array().unwrap().iter().map(|one| valid(root, one, document, at)).collect();
                if tried.iter().all(Result::is_err) {
                    return wrong(format!("none of {tried:?}"));
                }
            }
            "type" => {
                let is = |kind: &str| match kind {
                    "null" => document.is_null(),
                    "string" => document.is_string(),
                    "boolean" => document.is_boolean(),
                    "integer" => document.is_i64() || document.is_u64(),
                    "array" => document.is_array(),
                    "object" => document.is_object(),
                    other => panic!("type {other}"),
                };
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| is(kind.as_str().unwrap())) {
                    return wrong(format!("not {rule}"));
                }
            }
            "minimum" if document.is_number() => {
                if document.as_i64().is_some_and(|n| n < rule.as_i64().unwrap()) {
                    return wrong(format!("below {rule}"));
                }
            }
            "maximum" if document.is_number() => {
                if document.as_u64().is_some_and(|n| n > rule.as_u64().unwrap()) {
                    return wrong(format!("above {rule}"));
                }
            }
            "minimum" | "maximum" => {}
            "items" => {
                for (n, item) in document.as_array().into_iter().flatten().enumerate() {
                    valid(root, rule, item, &format!("{at}[{n}]"))?;
                }
            }
            "prefixItems" => {
                for (n, (item, rule)) in
                    document.as_array().into_iter().flatten().zip(rule.as_array().unwrap()).enumerate()
                {
                    valid(root, rule, item, &format!("{at}[{n}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let len = document.as_array().map_or(0, Vec::len) as u64;
                if document.is_array() && len != rule.as_u64().unwrap() {
                    return wrong(format!("{keyword} {rule}"));
                }
            }
            "properties" => {
                for (name, value) in document.as_object().into_iter().flatten() {
                    // No field without its description.
                    let Some(rule) = rule.get(name) else {
                        return wrong(format!("field {name} is in no schema"));
                    };
                    valid(root, rule, value, &format!("{at}.{name}"))?;
                }
            }
            "required" => {
                if let Some(name) = rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|name| document.get(name.as_str().unwrap()).is_none())
                {
                    return wrong(format!("{name} is missing"));
                }
            }
            other => panic!("{at}: this test does not know the keyword {other}"),
        }
    }
    Ok(())
}

#[track_caller]
fn conforms(command: &str, document: &Value) {
    let schema = kmodld(["schema", command]).exits(0).json();
    if let Err(why) = valid(&schema, &schema, document, command) {
        panic!("{why}");
    }
}

#[test]
fn outputs_conform_to_their_schemas() {
    let kernel = kernel_args(KERNEL);
    let kernel: Vec<&str> = kernel.iter().map(String::as_str).collect();
    let folder = fixtures(KERNEL).display().to_string();
    let checked = check(&[&[&*folder, "--jsonl"], &kernel[..]].concat()).exits(1);
    for line in checked.stdout.lines() {
        conforms("check", &serde_json::from_str(line).unwrap());
    }
    let other = ko("6.1-amd64", "hello").display().to_string();
    let refused = check(&[&[&*other, "--jsonl"], &kernel[..]].concat()).exits(1).json();
    assert!(refused["cause"]["text"].as_str().unwrap().contains("was built for"), "{refused}");
    conforms("check", &refused);

    let [params, gpl] = ["params", "proprietary_gpl"].map(|m| ko(KERNEL, m).display().to_string());
    let linked = [&["link", &*params, "--json"], &kernel[..]].concat();
    let plain = kmodld(&linked).exits(0).json();
    assert!(plain.get("symbols").is_none() && plain.get("relocations").is_none(), "only on request");
    conforms("link", &plain);
    let full = kmodld(linked.iter().chain(&["--symbols", "--relocations"])).exits(0).json();
    conforms("link", &full);
    let symbols = full["symbols"].as_array().unwrap();
    let init = symbols.iter().find(|s| s["name"] == "init_module").unwrap();
    assert!(init["value"].as_str().unwrap().starts_with("0xffff") && init["type"] == 2, "{init}");
    let relocations = full["relocations"].as_array().unwrap();
    assert!(relocations.iter().any(|r| r["type"] == "R_X86_64_PLT32"), "{relocations:?}");
    conforms("link", &kmodld([&["link", &*gpl, "--json"], &kernel[..]].concat()).exits(1).json());

    conforms("inspect", &kmodld(["inspect", "--json", &params]).exits(0).json());
    let signed = ko(KERNEL, "hello_signed").display().to_string();
    conforms("inspect", &kmodld(["inspect", "--json", &signed]).exits(0).json());
    let spec = facts(KERNEL).display().to_string();
    conforms("kernel", &kmodld(["kernel", "--json", &spec]).exits(0).json());
    let step = format!("insmod {params} an_int=5");
    let steps = ["simulate", "--json", &*step, "rmmod params", "lsmod"];
    conforms("simulate", &kmodld([&steps, &kernel[..]].concat()).exits(0).json());
    let schema = kmodld(["schema", "trace"]).exits(0).json();
    let (exporter, insmod) = (ko(KERNEL, "exporter").display().to_string(), format!("insmod {gpl}"));
    let trace =
        ["trace", &*params, "an_int=5", "--json", "--with", &*exporter, "--then", &*insmod, "--unload"];
    let events = kmodld([&trace, &kernel[..]].concat()).exits(1).stdout;
    for event in events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if let Err(why) = valid(&schema, &schema, &event, "trace") {
            panic!("{why}");
        }
    }
    let tags = |event: &str| events.contains(&format!("{{\"event\":\"{event}\""));
    for event in
        ["begin", "step", "sections", "import", "relocations", "patch", "state", "stop", "asked", "freed"]
    {
        assert!(tags(event), "{event}");
    }
    assert!(kmodld(["schema", "explain"]).exits(2).stderr.contains("prints no JSON"));
}
