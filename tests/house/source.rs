//! Reads Rust source as far as the tests on the tree need it: without comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the workspace.
pub struct File {
    /// Its path from the root of the workspace.
    pub name: String,
    pub source: String,
}

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders of the crates under `crates/`, in the order of their names.
pub fn crates() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.join("Cargo.toml").is_file()).collect();
    folders.sort();
    folders
}

/// The Rust files under a folder, in the order of their names.
pub fn rust_files(folder: &Path) -> Vec<File> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            files.push(File { name, source: fs::read_to_string(&path).unwrap() });
        }
    }
    files
}

/// Is it compiled for tests only, by its name?
pub fn is_for_tests(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    let name = format!("/{name}");
    file == "tests.rs"
        || file == "testing.rs"
        || file.ends_with("_tests.rs")
        || name.contains("/tests/")
        || name.contains("/testkit/")
}

/// The number of the line, from 1, in which a byte stands.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The source without comments. Every byte keeps its place.
pub fn without_comments(source: &str) -> String {
    blank(source, false)
}

/// The source without comments and without what stands in strings. Every byte keeps its place.
pub fn code_only(source: &str) -> String {
    blank(source, true)
}

fn blank(source: &str, strings: bool) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let comment = comment(rest);
        let literal = if comment == 0 { literal(rest, c) } else { 0 };
        let (skipped, keep) = (comment + literal, comment == 0 && !strings);
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let (piece, after) = rest.split_at(skipped);
            if keep {
                code.push_str(piece);
            } else {
                code.extend(piece.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
            }
            rest = after;
        }
    }
    code
}

/// Bytes of the comment at the start; 0 if there is none.
fn comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        rest.find("*/").map_or(rest.len(), |end| end + 2)
    } else {
        0
    }
}

/// Bytes of the string or character at the start, which begins with `c`; 0 if there is none.
fn literal(rest: &str, c: char) -> usize {
    if rest.starts_with("r\"") || rest.starts_with("r#") {
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
            (Some(c), Some((_, '\''))) => 1 + c.len_utf8() + 1,
            _ => 0,
        }
    } else {
        0
    }
}

/// `text` without the items that `code`, the same source without comments and strings, marks as `#[cfg(test)]`.
/// Every byte keeps its place.
pub fn without_tests(text: &str, code: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[cfg(").map(|at| from + at) {
        from = start + 1;
        let condition = &code[start + "#[cfg(".len()..];
        if ["test)", "all(test", "any(test"].iter().any(|test| condition.starts_with(test)) {
            from = end_of_item(code, start);
            bytes[start..from].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Where the item ends whose attributes begin at `start`: at its `;`, or at the end of its braces.
pub fn end_of_item(code: &str, start: usize) -> usize {
    let (mut round, mut curly) = (0, 0);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => curly += 1,
            b'}' => curly -= 1,
            _ => {}
        }
        // A field, a variant or an argument ends with a comma.
        if (curly == 0 && round == 0 && matches!(byte, b'}' | b';' | b',')) || curly < 0 {
            return at + 1;
        }
    }
    code.len()
}
