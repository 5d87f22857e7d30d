//! Text for people: widths, colours, how much of it, stdin and stdout, parameters; with and without a terminal.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Ran, kernel_args, kmodld, ko, on_terminal, program, read, skipped};

const KERNEL: &str = "6.12-amd64";

fn check_args(module: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![String::from("check"), ko(KERNEL, module).display().to_string()];
    args.extend(kernel_args(KERNEL));
    args.extend(more.iter().map(|s| String::from(*s)));
    args
}

fn with_columns<S: AsRef<std::ffi::OsStr>>(columns: usize, args: &[S]) -> String {
    let output = program().args(args).env("COLUMNS", columns.to_string()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// No line is wider, but for single words that are.
fn fits(text: &str, columns: usize, what: &str) {
    for line in text.lines() {
        let width = line.chars().count();
        assert!(
            width <= columns || line.split_whitespace().count() == 1,
            "{what}: {width} columns: {line:?}"
        );
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Without what colours it.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |out, piece| out + piece.split_once(['m', 'K']).map_or("", |(_, rest)| rest))
}

#[test]
fn verdicts_wrap_at_the_width_and_never_inside_a_word() {
    for args in [
        check_args("ns_forgot", &["--no-deps"]),
        check_args("params", &["an_int=x"]),
        check_args("hello", &["-v"]),
    ] {
        let ran = kmodld(&args);
        let free = format!("{}{}", ran.stdout, ran.stderr);
        for columns in [80, 40] {
            let wrapped = with_columns(columns, &args);
            fits(&wrapped, columns, &args[1]);
            assert_eq!(words(&wrapped), words(&free), "the same words");
        }
    }
}

#[test]
fn help_and_explanations_wrap_as_well() {
    for args in [
        &["--help"][..],
        &["check", "--help"],
        &["link", "-h"],
        &["simulate", "--help"],
        &["trace", "--help"],
        &["explain", "VER-6"],
        &["explain"],
        &["explain", "FIN-9"],
    ] {
        for columns in [80, 40] {
            fits(&with_columns(columns, args), columns, &format!("{args:?}"));
        }
    }
    fits(&kmodld(["explain", "SIG-11"]).exits(0).stdout, 80, "a page without a terminal");
}

#[test]
fn on_a_terminal_lines_wrap_and_are_coloured() {
    let args = check_args("ns_forgot", &["--no-deps"]);
    for columns in [80, 40] {
        let Some((seen, _)) = on_terminal(columns, &args) else {
            return skipped("on_a_terminal_lines_wrap_and_are_coloured", "script (util-linux) is not here");
        };
        assert!(seen.contains("\x1b["), "colours: {seen:?}");
        let seen = plain(&seen);
        assert!(seen.contains("error[SYM-5]"), "{seen}");
        fits(&seen, columns, "a terminal");
        // The verdict is said first.
        assert!(seen.contains("refused with ENOENT"), "{seen}");
        assert!(seen.find("refused").unwrap() < seen.find("error[SYM-5]").unwrap(), "{seen}");
    }
    let (never, _) = on_terminal(80, &check_args("ns_forgot", &["--no-deps", "--color", "never"])).unwrap();
    assert!(!never.contains('\x1b'), "{never:?}");
}

#[test]
fn colours_and_amount_are_chosen() {
    let always = kmodld(check_args("ns_forgot", &["--no-deps", "--color", "always"]));
    assert!(always.stderr.contains("\x1b["), "{always:?}");
    assert!(!kmodld(check_args("ns_forgot", &["--no-deps"])).stderr.contains('\x1b'));
    kmodld(check_args("hello", &["--color", "sometimes"])).exits(2);

    let quiet = kmodld(check_args("ns_forgot", &["--no-deps", "-q"])).exits(1);
    assert_eq!((quiet.stdout.lines().count(), &*quiet.stderr), (1, ""), "{quiet:?}");
    let some = kmodld(check_args("ns_forgot", &["--no-deps"])).exits(1);
    let all = kmodld(check_args("ns_forgot", &["--no-deps", "-v"])).exits(1);
    assert!(!some.stderr.contains("error[LIC-2]") && some.stderr.contains("with -v also LIC-2"), "{some:?}");
    assert!(all.stderr.contains("warning[LIC-2]") && all.stderr.contains("symbol "), "{all:?}");
    assert_eq!(all.stderr.matches("error[SYM-5]").count(), 2, "each by itself: {all:?}");
    assert_eq!(some.stderr.matches("error[SYM-5]").count(), 1, "folded: {some:?}");
    assert_eq!(some.stderr.matches("hint:").count(), 1, "one hint: {some:?}");
    kmodld(check_args("hello", &["-q", "-v"])).exits(2);
    // What cannot be read is an error, however quiet.
    let missing = kmodld(check_args("hello", &["-q", "/nonexistent/x.ko"])).exits(3);
    assert!(
        missing.stderr.contains("/nonexistent/x.ko") && missing.stderr.lines().count() == 1,
        "{missing:?}"
    );
}

fn with_stdin(args: &[String], bytes: &[u8]) -> (Ran, Vec<u8>) {
    let mut child = program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses the options reads nothing.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    (ran, output.stdout)
}

#[test]
fn a_dash_is_stdin_or_stdout() {
    let (path, bytes) = (ko(KERNEL, "hello"), read(&ko(KERNEL, "hello")));
    let dash = |command: &str, more: &[&str]| -> Vec<String> {
        let mut args = vec![String::from(command), String::from("-")];
        args.extend(more.iter().map(|s| String::from(*s)));
        if command != "inspect" {
            args.extend(kernel_args(KERNEL));
        }
        args
    };
    let (checked, _) = with_stdin(&dash("check", &["--jsonl"]), &bytes);
    let want = kmodld(check_args("hello", &["--jsonl"])).stdout;
    assert_eq!(checked.stdout, want.replace(path.to_str().unwrap(), "-"));
    let (inspected, _) = with_stdin(&dash("inspect", &["-F", "license"]), &bytes);
    assert_eq!(inspected.stdout, "GPL\n");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.elf");
    let (linked, elf) = with_stdin(&dash("link", &["-o", "-"]), &bytes);
    assert_eq!(linked.code, 0, "{linked:?}");
    let mut args = vec![String::from("link"), path.display().to_string(), String::from("-o")];
    args.push(file.display().to_string());
    args.extend(kernel_args(KERNEL));
    kmodld(args).exits(0);
    assert_eq!(elf, read(&file), "nothing but the file");
    let (raw, _) = with_stdin(&dash("link", &["-o", "-", "--format", "raw"]), &bytes);
    assert_eq!(raw.code, 2, "{raw:?}");
}

/// PARAM-20: a parameter is the same however it is given.
#[test]
fn parameters_are_given_alike() {
    let want = kmodld(check_args("params", &["--params", "an_int=x a_byte=256", "--jsonl"])).stdout;
    for more in [&["an_int=x", "a_byte=256"][..], &["--params", "an_int=x", "a_byte=256"]] {
        assert_eq!(kmodld(check_args("params", &[more, &["--jsonl"]].concat())).stdout, want, "{more:?}");
    }
    let link = |more: &[&str]| {
        let mut args = vec![String::from("link"), ko(KERNEL, "params").display().to_string()];
        args.extend(kernel_args(KERNEL));
        args.extend(more.iter().map(|s| String::from(*s)));
        kmodld(args)
    };
    assert_eq!(
        link(&["an_int=5", "--json"]).exits(0).stdout,
        link(&["--params", "an_int=5", "--json"]).stdout
    );
    let refused = link(&["an_int=x"]).exits(1);
    assert!(refused.stderr.contains("error: ") && refused.stderr.contains("would refuse"), "{refused:?}");
    assert!(!refused.stderr.contains("warning: "), "a refusal is an error: {refused:?}");
    let second = ko(KERNEL, "hello").display().to_string();
    assert!(link(&[&second]).exits(2).stderr.contains("where a parameter is expected"));
}

#[test]
fn counts_agree_in_number() {
    let one = kmodld(check_args("hello", &[ko(KERNEL, "ns_exporter").to_str().unwrap()])).exits(0).stdout;
    assert!(one.contains("2 modules on ") && one.contains(": 2 load, "), "{one}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(ko(KERNEL, "hello"), dir.path().join("hello.ko")).unwrap();
    let mut args = vec![String::from("check"), dir.path().display().to_string()];
    args.extend(kernel_args(KERNEL));
    let one = kmodld(args).exits(0).stdout;
    assert!(one.contains("1 module on ") && one.contains(": 1 loads, "), "{one}");
}

/// VAL-11, VAL-45: text, and an ELF file that is something else.
#[test]
fn what_is_no_module_is_not_inspected() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for path in [manifest.to_str().unwrap(), env!("CARGO_BIN_EXE_kmodld")] {
        let ran = kmodld(["inspect", path]).exits(3);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("no kernel module"), "{ran:?}");
    }
}

/// Man pages and completions are made from the command line's own definition.
#[test]
fn pages_and_completions_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    kmodld(["man", dir.path().to_str().unwrap()]).exits(0);
    let help = kmodld(["--help"]).exits(0).stdout;
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let commands: Vec<&str> = commands
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .map(|l| l.split_whitespace().next().unwrap())
        .filter(|c| *c != "help")
        .collect();
    assert!(commands.contains(&"check") && commands.len() >= 8, "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let completions = kmodld(["completions", shell]).exits(0).stdout;
        for command in &commands {
            assert!(completions.contains(command), "{shell}: {command}");
            let page = dir.path().join(format!("kmodld-{command}.1"));
            assert!(std::fs::read_to_string(&page).is_ok_and(|p| p.contains(".TH")), "{}", page.display());
        }
    }
}
