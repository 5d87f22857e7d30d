//! Laws of the code that the source itself shows (CONTRIBUTING.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Where versions may be looked at: the table of changes and the type itself.
const HOME_OF_VERSIONS: [&str; 3] = [
    "crates/elf-layout/src/version.rs",
    "crates/elf-layout/src/changes.rs",
    "crates/elf-layout/src/changes/",
];

/// The `src` folders of the workspace.
fn source_folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> =
        crates.chain([root.to_owned(), root.join("fuzz")]).map(|p| p.join("src")).collect();
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The Rust files under a folder.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source without comments and without what stands in strings; lines stay lines.
fn code_only(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
            let body = 1 + hashes + 1;
            match rest.get(1 + hashes..body) {
                Some("\"") => {
                    let end = format!("\"{}", "#".repeat(hashes));
                    rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
                }
                // A raw identifier.
                _ => 0,
            }
        } else if c == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else if let Some(literal) = rest.strip_prefix('\'') {
            // A character, not a lifetime.
            let mut chars = literal.char_indices();
            match (chars.next().map(|c| c.1), chars.next()) {
                (Some('\\'), Some((at, escaped))) => {
                    let after = 1 + at + escaped.len_utf8();
                    rest[after..].find('\'').map_or(rest.len(), |end| after + end + 1)
                }
                (Some(_), Some((at, '\''))) => 1 + at + 1,
                _ => 0,
            }
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Lines that ask for a version where they should ask for a change, as `(line, what)`.
fn version_forks(source: &str) -> Vec<(usize, &'static str)> {
    let code = code_only(source);
    let field = |line: &str, name: &str| {
        line.match_indices(name).any(|(at, _)| {
            let after = line[at + name.len()..].chars().next();
            !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    };
    let compares = |text: &str| ["<", ">", "==", "!="].iter().any(|op| text.trim_start().starts_with(op));
    let what = |line: &str| {
        if line.contains(".since(") || line.contains("::since(") {
            return Some("calls since()");
        }
        if field(line, ".major") || field(line, ".minor") {
            return Some("looks at a number of a version");
        }
        let pattern =
            line.match_indices("KernelVersion {").any(|(at, _)| !line[..at].trim_end().ends_with("->"));
        if pattern {
            return Some("takes a version apart");
        }
        let compared = line.split(".version()").skip(1).any(compares)
            || line.match_indices("KernelVersion::new(").any(|(at, _)| {
                let before = line[..at].trim_end();
                ["<", ">", "<=", ">=", "==", "!="].iter().any(|op| before.ends_with(&format!(" {op}")))
            });
        compared.then_some("compares a version")
    };
    code.lines().enumerate().filter_map(|(n, line)| Some((n + 1, what(line)?))).collect()
}

#[test]
fn no_code_forks_on_a_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut found) = (Vec::new(), Vec::new());
    source_folders().iter().for_each(|folder| rust_files(folder, &mut files));
    assert!(files.len() > 100, "only {} files: is this the workspace?", files.len());
    for path in files {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if HOME_OF_VERSIONS.iter().any(|home| name.starts_with(home)) {
            continue;
        }
        for (line, what) in version_forks(&fs::read_to_string(&path).unwrap()) {
            found.push(format!("{name}:{line}: {what}"));
        }
    }
    assert!(
        found.is_empty(),
        "behaviour forks on a row of crates/elf-layout/src/changes/, with has(Change::...):\n{}",
        found.join("\n")
    );
}

#[test]
fn forks_on_a_version_are_seen() {
    let seen = |source| version_forks(source);
    for (source, line) in [
        ("fn f() {\n    config.version().since(6, 4)\n}", 2),
        ("KernelVersion::since(v, 6, 4)", 1),
        ("\n\nif version.major >= 6 {}", 3),
        ("let series = (v.major, v.minor);", 1),
        ("let KernelVersion { major, minor, .. } = version;", 1),
        ("if config.version() >= oldest {}", 1),
        ("if v >= KernelVersion::new(6, 4, 0) {}", 1),
        ("/* one\ntwo */ let quote = '\"'; v.since(6, 4)", 2),
        ("let text = \"\\\"\"; v.since(6, 4)", 1),
        ("let text = r#\"\"\"#; v.since(6, 4)", 1),
    ] {
        assert_eq!(seen(source).iter().map(|found| found.0).collect::<Vec<_>>(), [line], "{source}");
    }
    for source in [
        "// version.since(6, 4)",
        "/// Up to `version.major` 6\nfn f() {}",
        "if said.refused_since(mark) {}",
        "let text = \".since(\";",
        "let text = r\"v.minor\";",
        "fn f() -> KernelVersion {",
        "assert_eq!(config.version(), KernelVersion::new(6, 1, 176));",
        "let numbers = device.majority;",
        "fn f<'a>(x: &'a str) {} // v.since(6, 4)",
    ] {
        assert_eq!(seen(source), [], "{source}");
    }
}
