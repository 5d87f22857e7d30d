//! Which modules of a crate use which, as far as paths that begin with `crate`, `self`, `super` or a child tell.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, code_only, is_for_tests, line_of, without_tests};

/// The path of a module in its crate; empty for the root.
pub type Path = Vec<String>;

/// One use of a module by another.
#[derive(Debug, Clone)]
pub struct Use {
    /// File and line.
    pub at: String,
    /// The module used.
    pub of: Path,
}

/// The modules of one crate.
pub struct Modules {
    files: BTreeMap<Path, Text>,
    /// Names that a module binds by `use`, with their paths.
    bound: BTreeMap<Path, BTreeMap<String, Path>>,
}

struct Text {
    name: String,
    code: String,
}

impl Modules {
    /// The files of a crate, whose sources are in the folder `folder`.
    pub fn new(files: &[File], folder: &str) -> Self {
        let mut modules = Modules { files: BTreeMap::new(), bound: BTreeMap::new() };
        for File { name, source } in files.iter().filter(|file| !is_for_tests(&file.name)) {
            let path =
                name.strip_prefix(folder).unwrap().trim_start_matches('/').strip_suffix(".rs").unwrap();
            let mut path: Path = path.split('/').map(str::to_owned).collect();
            if path.last().is_some_and(|last| last == "mod")
                || matches!(path[..], [ref one] if one == "lib" || one == "main")
            {
                path.pop();
            }
            let code = code_only(source);
            let code = without_tests(&code, &code);
            modules.files.insert(path, Text { name: name.clone(), code });
        }
        let bound =
            modules.files.iter().map(|(path, text)| (path.clone(), modules.bindings(path, &text.code)));
        modules.bound = bound.collect();
        modules
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Names that a module binds by `use`.
    fn bindings(&self, module: &Path, code: &str) -> BTreeMap<String, Path> {
        let starts = words(code).filter(|(_, word)| *word == "use");
        let trees = starts.flat_map(|(at, word)| trees(code[at + word.len()..].trim_start()));
        let absolute = trees.filter_map(|(path, name)| Some((name, self.absolute(module, &path)?)));
        absolute.collect()
    }

    /// A path as it stands in `module`, from the root of the crate; `None` if it is of another crate.
    fn absolute(&self, module: &Path, path: &[String]) -> Option<Path> {
        let mut from = module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                from.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    from.pop()?;
                    rest = &rest[1..];
                }
            }
            child => {
                from.push(child.to_owned());
                self.files.contains_key(&from).then_some(())?;
                rest = &path[1..];
            }
        }
        from.extend(rest.iter().cloned());
        Some(from)
    }

    /// The module in which the item of this path is defined: re-exports are followed.
    fn home(&self, path: &[String], depth: usize) -> Path {
        let mut home = path.to_vec();
        while !self.files.contains_key(&home) && home.pop().is_some() {}
        let named = path.get(home.len()).and_then(|name| self.bound.get(&home)?.get(name));
        match named {
            Some(named) if depth != 0 => self.home(named, depth - 1),
            _ => home,
        }
    }

    /// What each module uses of the others, but for its parents and children.
    pub fn uses(&self) -> BTreeMap<Path, Vec<Use>> {
        self.files.iter().map(|(module, text)| (module.clone(), self.used_by(module, text))).collect()
    }

    fn used_by(&self, module: &Path, text: &Text) -> Vec<Use> {
        let mut uses = Vec::new();
        for (at, word) in words(&text.code) {
            let is_start = ["crate", "super", "self"].contains(&word) && !text.code[..at].ends_with("::");
            if !is_start || !text.code[at + word.len()..].starts_with("::") {
                continue;
            }
            for (path, _) in trees(&text.code[at..]) {
                let Some(path) = self.absolute(module, &path) else { continue };
                let of = self.home(&path, 8);
                let related = of.starts_with(module) || module.starts_with(&of);
                if !related {
                    uses.push(Use { at: format!("{}:{}", text.name, line_of(&text.code, at)), of });
                }
            }
        }
        uses
    }
}

/// The identifiers of `code` and where they begin.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |len| start + len);
        at = end;
        Some((start, &code[start..end]))
    })
}

/// The paths of the use tree at the start of `code`, and the name that each binds.
pub fn trees(code: &str) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    tree(code, &[], &mut found);
    found
}

/// Reads one tree; what follows it.
fn tree<'c>(mut code: &'c str, prefix: &[String], found: &mut Vec<(Path, String)>) -> &'c str {
    let mut path = prefix.to_vec();
    loop {
        code = code.trim_start();
        if let Some(inner) = code.strip_prefix('{') {
            code = inner;
            loop {
                code = code.trim_start();
                if let Some(after) = code.strip_prefix('}') {
                    return after;
                }
                let after = tree(code, &path, found).trim_start();
                code = after.strip_prefix(',').unwrap_or(after);
                if after.len() == code.len() && !code.starts_with('}') {
                    // No use tree.
                    return code;
                }
            }
        }
        if let Some(after) = code.strip_prefix('*') {
            found.push((path, String::from("*")));
            return after;
        }
        let Some((0, word)) = words(code).next() else {
            // The end of something like `Vec::<T>`.
            found.push((path, String::new()));
            return code;
        };
        code = &code[word.len()..];
        // `self` in braces is the module itself.
        if word != "self" || path.is_empty() {
            path.push(word.to_owned());
        }
        let Some(after) = code.trim_start().strip_prefix("::") else { break };
        code = after;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some(alias) = code.trim_start().strip_prefix("as ") {
        let alias = alias.trim_start();
        if let Some((0, word)) = words(alias).next() {
            name = word.to_owned();
            code = &alias[word.len()..];
        }
    }
    found.push((path, name));
    code
}

/// Groups of more than one module that use one another, directly or through others.
pub fn circles(uses: &BTreeMap<Path, Vec<Use>>) -> Vec<BTreeSet<Path>> {
    let reached = |from: &Path| {
        let (mut reached, mut new) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = new.pop() {
            for Use { of, .. } in uses.get(&module).into_iter().flatten() {
                if reached.insert(of.clone()) {
                    new.push(of.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|module| (module.clone(), reached(module))).collect();
    let mut circles: Vec<BTreeSet<Path>> = Vec::new();
    for (module, reach) in &reached {
        let back = |other: &Path| reached.get(other).is_some_and(|others| others.contains(module));
        let circle: BTreeSet<Path> = reach.iter().filter(|other| back(other)).cloned().collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}
