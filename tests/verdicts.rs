//! What real kernels said of broken modules, and of good ones. KMODLD_TRUTH names the folder that holds
//! `verdicts/RELEASE.tar.xz` and `kernels/RELEASE/`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;

use common::captures::{packs, read_json, set_name, unpack};
use serde_json::Value;

/// The module's own init refuses the machine: what a loader does is over by then.
const OF_INIT: [&str; 1] = ["init_fails"];

/// Lines that a kernel prints once per boot.
const ONCE: [&str; 6] = [
    "Disabling lock debugging",
    "tainting kernel",
    "taints kernel",
    "kernel tainted",
    "Spectre V2 :",
    "not compiled with retpoline",
];

/// The taint letters and their bits in `/proc/sys/kernel/tainted`.
const TAINTS: [(char, u64); 5] = [('P', 1), ('F', 2), ('C', 1 << 10), ('O', 1 << 12), ('E', 1 << 13)];

fn errno_name(number: i64) -> &'static str {
    let names = [
        (1, "EPERM"),
        (2, "ENOENT"),
        (8, "ENOEXEC"),
        (12, "ENOMEM"),
        (14, "EFAULT"),
        (16, "EBUSY"),
        (17, "EEXIST"),
        (19, "ENODEV"),
        (22, "EINVAL"),
        (28, "ENOSPC"),
        (34, "ERANGE"),
        (65, "ENOPKG"),
        (74, "EBADMSG"),
        (126, "ENOKEY"),
        (127, "EKEYEXPIRED"),
        (129, "EKEYREJECTED"),
    ];
    names.iter().find(|(n, _)| *n == number).unwrap_or_else(|| panic!("errno {number}")).1
}

/// Lines that are compared, with what differs from boot to boot made equal. `None` where the allocator
/// reports: that log is another machine's.
fn lines(log: &Value, fresh: bool) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut splat = false;
    for line in log.as_array().unwrap().iter().map(|l| l.as_str().unwrap()) {
        let of_init = line.starts_with("initcall ") && line.contains(" blacklisted");
        let once = !fresh && ONCE.iter().any(|o| line.contains(o));
        if line.trim().is_empty() || of_init || once {
            continue;
        }
        splat |= line.contains("cut here");
        if !splat {
            out.push(without_hashed_pointer(line));
        }
        splat &= !line.contains("end trace");
    }
    let allocator = |l: &String| l.contains("vmap allocation for size") || l.contains("Call trace");
    (!out.iter().any(allocator)).then_some(out)
}

/// `loc` is a hashed pointer: any value.
fn without_hashed_pointer(line: &str) -> String {
    let Some((before, after)) = line.split_once("loc ") else { return line.to_owned() };
    let rest = after.trim_start_matches(|c: char| matches!(c, '0'..='9' | 'a'..='f' | 'x'));
    if rest.len() == after.len() { line.to_owned() } else { format!("{before}loc PTR{rest}") }
}

/// A word that is an address or as large as one.
fn large_number(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    let hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (hex && (9..=16).contains(&digits.len())).then(|| u64::from_str_radix(digits, 16).unwrap())
}

/// A line with its large numbers cut out, and those.
fn numbers(line: &str) -> (Vec<&str>, Vec<u64>) {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let found: Vec<(&str, u64)> = words.filter_map(|w| Some((w, large_number(w)?))).collect();
    let mut rest = line;
    let mut text = Vec::new();
    for (word, _) in &found {
        let (before, after) = rest.split_once(word).unwrap();
        text.push(before);
        rest = after;
    }
    text.push(rest);
    (text, found.into_iter().map(|(_, n)| n).collect())
}

/// Equal, but for whole pages where the module was not the first of its boot.
fn same_line(want: &str, got: &str, fresh: bool) -> bool {
    if want == got || fresh {
        return want == got;
    }
    let ((want_text, want), (got_text, got)) = (numbers(want), numbers(got));
    want_text == got_text && want.iter().zip(&got).all(|(w, g)| w.wrapping_sub(*g) % 4096 == 0)
}

fn same_log(want: &Value, got: &Value, fresh: bool) -> bool {
    let Some(want) = lines(want, fresh) else { return true };
    lines(got, fresh).is_some_and(|got| {
        want.len() == got.len() && want.iter().zip(&got).all(|(w, g)| same_line(w, g, fresh))
    })
}

fn outcome(case: &Value) -> &'static str {
    match (case["outcome"].as_str().unwrap(), case["errno"].as_i64()) {
        ("loads", _) => "loads",
        (_, None | Some(0)) => "oops",
        (_, Some(number)) => errno_name(number),
    }
}

/// What is wrong with the verdict on one case.
fn compare(dir: &Path, release: &str, spec: &str, case: &Value) -> Result<(), String> {
    let file = dir.join(case["file"].as_str().unwrap()).display().to_string();
    let mut args = vec!["check", &file, "--kernel", spec, "--jsonl"];
    args.extend(["--cmdline", case["cmdline"].as_str().unwrap()]);
    let params = case["params"].as_str().unwrap_or_default();
    if !params.is_empty() {
        args.extend(["--params", params]);
    }
    let before = case["loaded_before"].as_array().unwrap().iter();
    let before: Vec<String> = before
        .map(|m| dir.join(release).join("loaded").join(format!("{}.ko", m.as_str().unwrap())))
        .map(|p| p.display().to_string())
        .collect();
    before.iter().for_each(|m| args.extend(["--with", m]));
    let flags = case["finit_flags"].as_u64().unwrap_or(0);
    args.extend((flags & 1 != 0).then_some("--force-modversion"));
    args.extend((flags & 2 != 0).then_some("--force-vermagic"));
    let ran = common::kmodld(&args);
    let Some(got) = ran.stdout.lines().last().and_then(|l| serde_json::from_str::<Value>(l).ok()) else {
        return Err(format!("exit {}, no verdict: {}", ran.code, ran.stderr.trim()));
    };
    let (want, have) =
        (outcome(case), got["errno"].as_str().unwrap_or_else(|| got["verdict"].as_str().unwrap()));
    if want != have {
        return Err(format!("errno: wanted {want}, got {have}; {}", got["dmesg"]));
    }
    let code = i32::from(want != "loads");
    if ran.code != code {
        return Err(format!("exit code: wanted {code}, got {}", ran.code));
    }
    let fresh = case["fresh_boot"].as_bool().unwrap();
    if want != "oops" && !same_log(&case["dmesg"], &got["dmesg"], fresh) {
        return Err(format!("log: wanted {}\n      got {}", case["dmesg"], got["dmesg"]));
    }
    // Only after a fresh boot are the kernel's taints those of the module alone.
    if let Some(tainted) = case["kernel_tainted"].as_str().filter(|_| fresh) {
        let letters = got["taints"].as_str().unwrap();
        let bits: u64 = TAINTS.iter().filter(|(l, _)| letters.contains(*l)).map(|(_, bit)| bit).sum();
        if tainted != bits.to_string() {
            return Err(format!("taints: wanted {tainted}, got {letters} ({bits})"));
        }
    }
    Ok(())
}

/// A SPEC of that kernel.
fn spec_of(top: &Path, release: &str, scratch: &Path) -> Option<String> {
    let folder = top.join("kernels").join(release);
    let image = ["vmlinuz", "vmlinuz.xz"].map(|n| folder.join(n)).into_iter().find(|p| p.exists())?;
    let plain = scratch.join("vmlinuz");
    std::fs::write(&plain, kmodld::input::read_decompressed(&image).unwrap()).unwrap();
    let spec = scratch.join("spec").display().to_string();
    common::kmodld(["kernel", plain.to_str().unwrap(), "-o", &spec]).exits(0);
    Some(spec)
}

#[test]
fn kernels_said_the_same() {
    let test = "kernels_said_the_same";
    let Some(top) = common::from_environment(test, "KMODLD_TRUTH") else { return };
    let packs = packs(&top.join("verdicts"));
    if packs.is_empty() {
        return common::skipped(test, &format!("no verdicts/RELEASE.tar.xz in {}", top.display()));
    }
    let mut wrong = Vec::new();
    for pack in packs {
        let release = set_name(&pack);
        let scratch = tempfile::tempdir().unwrap();
        let Some(spec) = spec_of(&top, &release, scratch.path()) else {
            common::skipped(&format!("{test} ({release})"), &format!("no kernels/{release}/vmlinuz"));
            continue;
        };
        unpack(&pack, scratch.path(), |_| true);
        let cases = read_json(&scratch.path().join(&release).join("cases.json"));
        let cases: Vec<(&String, &Value)> =
            cases.as_object().unwrap().iter().filter(|(name, _)| !OF_INIT.contains(&name.as_str())).collect();
        let results = common::in_parallel(&cases, |(_, case)| compare(scratch.path(), &release, &spec, case));
        let good = results.iter().filter(|r| r.is_ok()).count();
        common::tell(&format!("{release}: {good}/{} identical", cases.len()));
        assert!(!cases.is_empty(), "{release}: no cases");
        for ((name, _), result) in cases.iter().zip(results) {
            wrong.extend(result.err().map(|why| format!("{release}/{name}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", common::first_of(&wrong));
}

#[test]
fn the_rules_of_comparison() {
    let log = |lines: &[&str]| Value::from(lines.to_vec());
    let first = log(&["x: loading out-of-tree module taints kernel.", "x: Unknown symbol a (err -2)"]);
    let later = log(&["x: Unknown symbol a (err -2)"]);
    assert!(same_log(&first, &later, false), "lines once per boot");
    assert!(!same_log(&first, &later, true), "a fresh boot shows all lines");
    assert!(!same_log(&later, &log(&["x: Unknown symbol a (err -22)"]), false));
    let splat = log(&["------------[ cut here ]------------", "WARNING", "---[ end trace 0 ]---"]);
    assert!(same_log(&splat, &log(&[]), true), "warning splats");
    let at = |loc: &str, val: &str| log(&[&format!("overflow in relocation type 10 val {val}, loc {loc}")]);
    let (here, page, byte) = ("0xffffffffc0000010", "0xffffffffc0003010", "0xffffffffc0000011");
    assert!(same_log(&at("0000000012345678", here), &at(here, here), true), "loc is any value");
    assert!(same_log(&at(here, here), &at(here, page), false), "whole pages away");
    assert!(
        !same_log(&at(here, here), &at(here, page), true),
        "the first module of a boot lies at one place"
    );
    assert!(!same_log(&at(here, here), &at(here, byte), false));
}
