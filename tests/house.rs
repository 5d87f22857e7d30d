//! Laws of the code that the source itself shows (CONTRIBUTING.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "house/modules.rs"]
mod modules;
#[path = "house/source.rs"]
mod source;

use std::fs;

use modules::{Modules, circles, trees, words};
use source::{
    File, code_only, end_of_item, is_for_tests, line_of, root, rust_files, without_comments, without_tests,
};

/// Where versions may be looked at: the table of changes and the type itself.
const HOME_OF_VERSIONS: [&str; 3] = [
    "crates/elf-layout/src/version.rs",
    "crates/elf-layout/src/changes.rs",
    "crates/elf-layout/src/changes/",
];

/// What no code outside an architecture's directory and its registration may name.
const ARCHITECTURE_NAMES: [&str; 6] = ["x86", "amd64", "aarch64", "arm64", "em_x86_64", "em_aarch64"];

/// Directories of architectures.
const HOMES_OF_ARCHITECTURES: [&str; 4] = [
    "crates/reloc/src/aarch64/",
    "crates/reloc/src/x86_64/",
    "crates/run/src/aarch64/",
    "crates/run/src/x86_64/",
];

/// Where architectures are registered, and how such a line begins.
const REGISTRATIONS: [(&str, &[&str]); 2] = [
    ("crates/reloc/src/lib.rs", &["pub mod ", "pub static ARCHITECTURES:", "pub static MACHINES:"]),
    ("crates/run/src/lib.rs", &["pub mod ", "pub static PROCESSORS:"]),
];

/// Where documents are named, whose names have an architecture in them.
const DOCUMENTS: [(&str, [&str; 2]); 2] = [
    ("src/explain/mod.rs", ["docs/findings/X86REL.md", "docs/findings/A64REL.md"]),
    ("src/explain/spec.rs", ["04-reloc-x86_64", "05-reloc-aarch64"]),
];

/// Each crate may depend on those before it.
const ORDER_OF_CRATES: [&str; 12] = [
    "elf-layout",
    "kernel-image",
    "kernel",
    "symres",
    "reloc",
    "finalize",
    "module-signature",
    "memory-image",
    "run",
    "kmodld",
    "capi",
    "python",
];

/// All Rust files of the workspace that are no tests, benchmarks or examples.
fn all_sources() -> Vec<File> {
    let folders = source::crates().into_iter().chain([root().to_owned(), root().join("fuzz")]);
    let files: Vec<_> = folders.flat_map(|folder| rust_files(&folder.join("src"))).collect();
    assert!(files.len() > 100, "only {} files: is this the workspace?", files.len());
    files
}

/// Lines that ask for a version where they should ask for a change, as `(line, what)`.
fn version_forks(source: &str) -> Vec<(usize, &'static str)> {
    let code = code_only(source);
    let code = without_tests(&code, &code);
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
    let mut found = Vec::new();
    for File { name, source } in all_sources() {
        if HOME_OF_VERSIONS.iter().any(|home| name.starts_with(home)) {
            continue;
        }
        for (line, what) in version_forks(&source) {
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
        "if said.refused_since(6, 4) {}",
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

/// Lines of a file that name an architecture, as `(line, what)`.
fn architecture_names(name: &str, source: &str) -> Vec<(usize, &'static str)> {
    if is_for_tests(name) || HOMES_OF_ARCHITECTURES.iter().any(|home| name.starts_with(home)) {
        return Vec::new();
    }
    let text = without_tests(&without_comments(source), &code_only(source));
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let registers = |(registry, starts): &(&str, &[&str])| {
            name == *registry && starts.iter().any(|start| line.starts_with(start))
        };
        if REGISTRATIONS.iter().any(registers) {
            continue;
        }
        let mut line = line.to_owned();
        for document in
            DOCUMENTS.iter().filter(|(index, _)| name == *index).flat_map(|(_, documents)| documents)
        {
            line = line.replace(document, "");
        }
        let line = line.to_ascii_lowercase();
        let named = ARCHITECTURE_NAMES.into_iter().filter(|word| line.contains(word));
        found.extend(named.map(|word| (n + 1, word)));
    }
    found
}

#[test]
fn only_its_directory_and_its_registration_name_an_architecture() {
    let mut found = Vec::new();
    for File { name, source } in all_sources().iter().filter(|file| !file.name.starts_with("fuzz/")) {
        let named = architecture_names(name, source).into_iter();
        found.extend(named.map(|(line, what)| format!("{name}:{line}: names {what}")));
    }
    assert!(
        found.is_empty(),
        "what differs between architectures is a method of `Architecture` or a fact of `Machine`:\n{}",
        found.join("\n")
    );
}

#[test]
fn names_of_architectures_are_seen() {
    let seen = |name, source| {
        let found = architecture_names(name, source);
        found.into_iter().map(|found| found.0).collect::<Vec<_>>()
    };
    let file = "crates/finalize/src/ftrace.rs";
    for (name, source, lines) in [
        (file, "use reloc::x86_64::X86_64;", &[1][..]),
        (file, "\nlet name = \"Amd64\";", &[2]),
        (file, "// x86\n/// arm64\n/* aarch64 */ fn f() {}", &[]),
        (file, "#[cfg(test)]\nmod tests {\n    use x86_64::{};\n}\nconst ARM64: u8 = 0;", &[5]),
        (file, "#[cfg(test)]\nuse x86_64::X;\nfn f() -> u8 { let [a, _] = aarch64(); a }", &[3]),
        (file, "#[cfg(not(test))]\nfn arm64() {}", &[2]),
        ("crates/finalize/src/parse_args/tests.rs", "use x86_64::X;", &[]),
        ("crates/reloc/src/x86_64/cpu.rs", "use x86_64::X;", &[]),
        ("crates/reloc/src/lib.rs", "pub mod x86_64;\nuse x86_64::X;", &[2]),
        ("src/explain/mod.rs", "include_str!(\"../../docs/findings/X86REL.md\")\n\"X86REL\"", &[2]),
        (file, "\"../docs/findings/X86REL.md\"", &[1]),
    ] {
        assert_eq!(seen(name, source), lines, "{name}: {source}");
    }
}

/// What is wrong with the dependencies of a manifest, as `(line, what)`.
fn arrows_upward(manifest: &str) -> Vec<(usize, String)> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    // Where a registry has another package of that name.
    let name = name.map(|name| name.strip_prefix("kmodld-").unwrap_or(name)).expect("a package has a name");
    let place = |name: &str| ORDER_OF_CRATES.iter().position(|other| *other == name);
    if name == "testkit" {
        let arrows = dependencies(manifest).filter(|(_, to)| place(to).is_some());
        return arrows.map(|(line, to)| (line, format!("testkit depends on {to}"))).collect();
    }
    let Some(mine) = place(name) else {
        return vec![(1, format!("{name} has no place in the order of the crates"))];
    };
    // A feature `testing`, with which other crates share parts of this crate's tests, may bring testkit in.
    let brings_testkit: Vec<_> = manifest.lines().filter(|line| line.contains("dep:testkit")).collect();
    let for_testing = matches!(brings_testkit[..], [line] if line.starts_with("testing = "));
    let wrong = dependencies(manifest).filter_map(|(line, to)| match place(to) {
        _ if to == "testkit" && for_testing => None,
        _ if to == "testkit" => Some((line, format!("{name} depends on testkit, which is for tests"))),
        Some(other) if other >= mine => {
            Some((line, format!("{name} depends on {to}, which stands after it")))
        }
        _ => None,
    });
    wrong.collect()
}

/// What a package depends on, other than for its tests, as `(line, crate)`.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut table = false;
    manifest.lines().enumerate().filter_map(move |(n, line)| {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end().trim_end_matches(']');
            let (_, last) = header.rsplit_once("ependencies").unwrap_or_default();
            let normal = header.contains("dependencies")
                && !header.contains("dev-dependencies")
                && !header.starts_with("workspace.");
            table = normal && last.is_empty();
            // `[dependencies.NAME]`
            return last.strip_prefix('.').filter(|_| normal).map(|name| (n + 1, name));
        }
        let name =
            line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#'));
        name.filter(|_| table).map(|name| (n + 1, name))
    })
}

#[test]
fn crates_depend_on_those_before_them() {
    let mut found = Vec::new();
    let folders: Vec<_> = source::crates().into_iter().chain([root().to_owned()]).collect();
    assert!(folders.len() > ORDER_OF_CRATES.len(), "{folders:?}: is this the workspace?");
    for manifest in folders.iter().map(|folder| folder.join("Cargo.toml")) {
        let text = fs::read_to_string(&manifest).unwrap();
        let name = manifest.strip_prefix(root()).unwrap().display();
        found.extend(arrows_upward(&text).iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    assert!(
        found.is_empty(),
        "the order of the crates is {}:\n{}",
        ORDER_OF_CRATES.join(", "),
        found.join("\n")
    );
}

#[test]
fn dependencies_against_the_order_are_seen() {
    let seen = |name, rest: &str| {
        let manifest = format!("[package]\nname = \"{name}\"\n{rest}");
        arrows_upward(&manifest).into_iter().map(|found| found.0).collect::<Vec<_>>()
    };
    assert_eq!(seen("symres", "[dependencies]\nkernel.workspace = true\nreloc = { workspace = true }"), [5]);
    assert_eq!(seen("symres", "[dependencies.reloc]\nworkspace = true\n[lints]\nworkspace = true"), [3]);
    assert_eq!(seen("symres", "[target.'cfg(unix)'.dependencies]\n# one\ntestkit.workspace = true"), [5]);
    assert_eq!(seen("symres", "[build-dependencies]\nsymres.workspace = true"), [4]);
    assert_eq!(seen("symres", "[dev-dependencies]\nreloc.workspace = true\ntestkit.workspace = true"), []);
    assert_eq!(seen("kmodld", "[workspace.dependencies]\ntestkit = { path = \"crates/testkit\" }"), []);
    assert_eq!(seen("testkit", "[dependencies]\nobject.workspace = true\nkernel.workspace = true"), [5]);
    let optional = "[dependencies]\ntestkit = { workspace = true, optional = true }";
    assert_eq!(seen("reloc", &format!("[features]\ntesting = [\"dep:testkit\"]\n{optional}")), []);
    assert_eq!(seen("reloc", &format!("[features]\ndefault = [\"dep:testkit\"]\n{optional}")), [6]);
    assert_eq!(seen("another", ""), [1]);
}

/// The circles of a crate, each with the uses that make it.
fn circles_of(crate_name: &str, modules: &Modules) -> Vec<String> {
    let uses = modules.uses();
    let name = |module: &[String]| if module.is_empty() { String::from("lib") } else { module.join("::") };
    let describe = |circle: std::collections::BTreeSet<modules::Path>| {
        let mut text = format!(
            "{crate_name}: {} use one another:",
            circle.iter().map(|module| name(module)).collect::<Vec<_>>().join(", ")
        );
        for of in circle.iter().flat_map(|module| &uses[module]).filter(|of| circle.contains(&of.of)) {
            let line = format!("\n    {} uses {}", of.at, name(&of.of));
            if !text.ends_with(&line) {
                text += &line;
            }
        }
        text
    };
    circles(&uses).into_iter().map(describe).collect()
}

#[test]
fn no_modules_of_a_crate_use_one_another_in_a_circle() {
    let mut found = Vec::new();
    for folder in source::crates() {
        let name = folder.strip_prefix(root()).unwrap().join("src");
        let modules = Modules::new(&rust_files(&folder.join("src")), name.to_str().unwrap());
        found.extend(circles_of(name.to_str().unwrap(), &modules));
    }
    let of_program = |file: &File| file.name.starts_with("src/cli/") || file.name == "src/main.rs";
    let (program, library): (Vec<_>, Vec<_>) =
        rust_files(&root().join("src")).into_iter().partition(of_program);
    for (name, files) in [("src", library), ("src/cli", program)] {
        let modules = Modules::new(&files, "src");
        assert!(modules.len() > 5, "only {} modules in {name}", modules.len());
        found.extend(circles_of(name, &modules));
    }
    assert!(found.is_empty(), "a type belongs where what uses it can reach it:\n{}", found.join("\n"));
}

#[test]
fn circles_are_seen() {
    let circles = |files: &[(&str, &str)]| {
        let file = |(name, source): &(&str, &str)| File {
            name: format!("src/{name}"),
            source: (*source).to_owned(),
        };
        let files: Vec<_> = files.iter().map(file).collect();
        circles_of("it", &Modules::new(&files, "src")).join("\n")
    };
    let lib = ("lib.rs", "mod a; mod b; mod c;\npub use b::{B, inner::C as D};");
    let none: [&[(&str, &str)]; 5] = [
        &[lib, ("a.rs", "use crate::b::B;"), ("b.rs", "#[cfg(test)]\nmod tests { use crate::a::A; }")],
        &[lib, ("a.rs", "use crate::b::B;"), ("b.rs", "// crate::a\nconst TEXT: &str = \"crate::a::A\";")],
        // Parents and children.
        &[lib, ("a.rs", "mod x; use x::X;"), ("a/x.rs", "use super::A; use crate::A;")],
        &[lib, ("a.rs", "fn f() -> crate::Own { b::B }"), ("b.rs", "use kernel::a::A;")],
        &[lib, ("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c/tests.rs", "use crate::a;")],
    ];
    for files in none {
        assert_eq!(circles(files), "", "{files:?}");
    }
    let some: [(&[(&str, &str)], &str); 5] = [
        (
            &[lib, ("a.rs", "\nuse crate::{b::{self, B}, c};"), ("b.rs", "fn f() { crate::a::f() }")],
            "it: a, b use one another:\n    src/a.rs:2 uses b\n    src/b.rs:1 uses a",
        ),
        (
            &[lib, ("a/mod.rs", "use crate::B;"), ("b.rs", "use super::a::A as Other;")],
            "it: a, b use one another:\n    src/a/mod.rs:1 uses b\n    src/b.rs:1 uses a",
        ),
        (
            &[lib, ("a.rs", "use crate::D;"), ("b.rs", ""), ("b/inner.rs", "use crate::a;")],
            "it: a, b::inner use one another:\n    src/a.rs:1 uses b::inner\n    src/b/inner.rs:1 uses a",
        ),
        (
            &[("a/mod.rs", ""), ("a/x.rs", "use super::y::Y;"), ("a/y.rs", "pub use super::{x::X};")],
            "it: a::x, a::y use one another:\n    src/a/x.rs:1 uses a::y\n    src/a/y.rs:1 uses a::x",
        ),
        (
            &[("a.rs", "use super::b;"), ("b.rs", "use crate::c::*;"), ("c.rs", "use crate::a;")],
            "it: a, b, c use one another:\n    src/a.rs:1 uses b\n    src/b.rs:1 uses c\n    src/c.rs:1 uses a",
        ),
    ];
    for (files, expected) in some {
        assert_eq!(circles(files), expected, "{files:?}");
    }
}

/// Lines of public items whose types are those of the crate `object`, which may get another major version without a word of ours.
fn object_in_public(source: &str) -> Vec<usize> {
    let code = code_only(source);
    let code = without_tests(&code, &code);
    let mut names = vec![String::from("object")];
    for (at, _) in code.match_indices("use object::") {
        names.extend(trees(&code[at + "use ".len()..]).into_iter().map(|(_, name)| name));
    }
    let mut found = Vec::new();
    for (at, word) in words(&code).filter(|(_, word)| *word == "pub") {
        let item = &code[at + word.len()..];
        let kind = words(item).next().map_or("", |(_, kind)| kind);
        let is_function = words(item).take(3).any(|(_, word)| word == "fn");
        let end = match kind {
            _ if item.starts_with('(') => continue,
            "enum" | "trait" => end_of_item(&code, at) - at - word.len(),
            _ if is_function => item.find(['{', ';']).unwrap_or(item.len()),
            "const" | "static" => item.find(['=', ';']).unwrap_or(item.len()),
            _ => ["{", ";", ",\n"].iter().filter_map(|end| item.find(end)).min().unwrap_or(item.len()),
        };
        // What is not imported has the name of the crate before it. A field may be called so.
        let is_field = |at: usize, word: &str| {
            let rest = item[at + word.len()..].trim_start();
            rest.starts_with(':') && !rest.starts_with("::")
        };
        let mut mentioned = words(&item[..end]).filter(|(at, word)| !is_field(*at, word));
        if mentioned.any(|(_, word)| names.iter().any(|name| name == word)) {
            found.push(line_of(&code, at));
        }
    }
    found
}

#[test]
fn no_public_item_has_a_type_of_object() {
    let of_program = |file: &File| file.name.starts_with("src/cli/") || file.name.starts_with("fuzz/");
    let files = all_sources().into_iter().filter(|file| !of_program(file));
    let found: Vec<String> = files
        .flat_map(|file| {
            let lines = object_in_public(&file.source);
            lines.into_iter().map(move |line| format!("{}:{line}", file.name))
        })
        .collect();
    assert!(found.is_empty(), "a type of object is part of the public interface:\n{}", found.join("\n"));
}

#[test]
fn types_of_object_are_seen() {
    let seen = |code: &str| object_in_public(code);
    assert_eq!(seen("pub use object::elf::Sym64;"), [1]);
    assert!(seen("struct A { pub object: u32 }").is_empty(), "a field of this name");
    assert_eq!(seen("struct A { pub object: object::elf::Sym64 }"), [1]);
    assert_eq!(seen("use object::elf::{Rela64 as Raw};\npub fn all(\n    x: u8,\n) -> Raw {\n}"), [2]);
    assert_eq!(seen("pub enum E {\n    A(u8),\n    B(object::elf::Sym64),\n}"), [1]);
    assert_eq!(seen("use object::elf;\npub const A: u16 = elf::ET_REL.0;\nfn b() -> elf::X {}"), []);
    assert_eq!(
        seen("use object::elf;\npub(crate) fn b() -> elf::X {}\npub struct S {\n    pub a: elf::X,\n}"),
        [4]
    );
}
