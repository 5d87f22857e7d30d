//! The book in docs/guide: every block of output in it is what its command prints now, and no number stands elsewhere.
//! `UPDATE_GOLDEN=1 cargo test --test guide` writes the blocks anew.
//!
//! A block stands between `<!-- kmodld trace ARGUMENTS -->` and `<!-- end -->`. Behind a `|` comes what is shown of the output:
//! `from TEXT lines N`: that many lines from the first one that has TEXT.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fixtures, kernel_args, words};

/// The fixtures that the commands stand in.
const HERE: &str = "6.12-amd64";
/// More lines than this are cut in the middle.
const LONG: usize = 64;

fn chapters() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/src");
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// What a command prints of a fixture.
fn output(command: &str) -> String {
    let args = words(command);
    // A module of another machine is loaded into a kernel of that machine; one of another release is refused by this one.
    let kernel = if args.iter().any(|word| word.contains("arm64/")) { "6.12-arm64" } else { HERE };
    let mut program = common::program();
    program.args(&args[1..]).args(kernel_args(kernel)).current_dir(fixtures(HERE)).env("COLUMNS", "80");
    let output = program.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.stdout.is_empty(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is shown of an output.
fn part(text: &str, filter: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let filter = words(filter);
    match filter.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {}
        ["from", start, "lines", count] => {
            let from = lines.iter().position(|line| line.contains(start)).unwrap();
            lines = lines[from..].iter().take(count.parse().unwrap()).cloned().collect();
            lines.insert(0, String::from("   ..."));
        }
        other => panic!("unknown filter: {other:?}"),
    }
    if lines.len() > LONG {
        lines.truncate(LONG);
        lines.push(String::from("   ..."));
    }
    lines
}

/// A chapter with its blocks made anew; how many there are.
fn made_anew(text: &str) -> (String, usize) {
    let (mut out, mut count) = (String::new(), 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(&format!("{line}\n"));
        let Some(command) = line.strip_prefix("<!-- kmodld ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        let (command, filter) = command.split_once(" | ").unwrap_or((command, ""));
        let shown = part(&output(&format!("kmodld {command}")), filter);
        out.push_str(&format!("```text\n$ kmodld {command}\n"));
        shown.iter().for_each(|line| out.push_str(&format!("{line}\n")));
        out.push_str("```\n<!-- end -->\n");
        lines.by_ref().find(|line| *line == "<!-- end -->").expect("a block without end");
        count += 1;
    }
    (out, count)
}

#[test]
fn blocks_are_what_commands_print() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let (mut wrong, mut blocks) = (Vec::new(), 0);
    for path in chapters() {
        let text = common::text(&path);
        let (now, count) = made_anew(&text);
        blocks += count;
        if update {
            fs::write(&path, now).unwrap();
        } else if now != text {
            wrong.push(format!("{} differs; now it is:\n{now}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks >= 20, "{blocks} blocks");
}

/// Numbers that could be wrong come from blocks: the prose has no addresses and no long numbers.
#[test]
fn prose_has_no_numbers_of_its_own() {
    for path in chapters() {
        let mut inside = false;
        for (n, line) in common::text(&path).lines().enumerate() {
            inside ^= line.starts_with("```");
            let is_prose = !inside && !line.starts_with("<!--");
            let digits = line.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
            assert!(
                !is_prose || (digits < 4 && !line.contains("0x")),
                "{}:{}: {line}",
                path.display(),
                n + 1
            );
        }
    }
}

#[test]
fn the_summary_has_every_chapter() {
    let summary = common::text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/src/SUMMARY.md"));
    let files = chapters().into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let files: Vec<String> = files.filter(|name| name != "SUMMARY.md").collect();
    for file in &files {
        assert!(summary.contains(&format!("({file})")), "SUMMARY.md does not name {file}");
    }
    assert_eq!(files.len(), 11);
    // Links between chapters lead somewhere.
    for path in chapters() {
        let text = common::text(&path);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(files.iter().any(|file| file == link), "{}: {link}", path.display());
        }
    }
}
