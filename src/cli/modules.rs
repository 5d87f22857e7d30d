//! Arguments that are modules: names as modprobe takes them, files, directories.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kmodld::input::read_decompressed;
use kmodld::modprobe::providers::{Home, Way};
use kmodld::modprobe::settings::Setting;
use kmodld::modprobe::{Chosen, Meant, Step, may_be_name};
use kmodld::{Error, Loader};
use symres::LoadFlags;

use super::report::{self, one_line};

/// What the arguments mean on one kernel.
#[derive(Debug, Default)]
pub struct Meaning {
    /// Files and directories, in the order of the arguments.
    pub paths: Vec<PathBuf>,
    /// The modules that were named, by their files, and the alias that each was asked for by.
    named: HashMap<PathBuf, (Chosen, Option<String>)>,
    /// Lines about what there is no file of.
    pub lines: Vec<String>,
    /// Arguments that mean nothing.
    pub errors: Vec<Error>,
}

impl Meaning {
    /// Looks all arguments up. A file wins only if the argument is a path, or if no module has this name.
    pub fn of(arguments: &[PathBuf], home: Option<&Home>, release: &str) -> Result<Self, Error> {
        let mut meaning = Meaning::default();
        for argument in arguments {
            let looked_up =
                may_be_name(argument).zip(home).map(|(name, home)| Ok((name, home.lookup(name)?, home)));
            match looked_up.transpose()? {
                Some((name, Meant::Modules(all), home)) => meaning.add(name, all, home),
                Some((name, Meant::BuiltIn(module), _)) => {
                    let alias =
                        if module == name.replace('-', "_") { String::new() } else { format!(" ({module})") };
                    meaning
                        .lines
                        .push(format!("{name}{alias} is built into {release}: there is nothing to load"));
                }
                Some((name, Meant::Nothing { without_aliases }, home)) if !argument.exists() => {
                    meaning.errors.push(no_such_module(name, without_aliases, home));
                }
                _ => meaning.paths.push(argument.clone()),
            }
        }
        Ok(meaning)
    }

    fn add(&mut self, name: &str, all: Vec<Chosen>, home: &Home) {
        let settings = home.modprobe.as_ref().map(|modprobe| &modprobe.settings);
        for chosen in all {
            let blacklisted = settings.and_then(|s| s.blacklisted(&chosen.name)).filter(|_| chosen.by_alias);
            if let Some(setting) = blacklisted {
                let module = &chosen.name;
                self.lines.push(format!(
                    "{name} means {module}, which modprobe does not load by an alias: blacklist {module} ({})",
                    place(setting)
                ));
                continue;
            }
            if chosen.by_alias {
                report::note(&format!("{name} means {}", chosen.name));
            }
            let alias = chosen.by_alias.then(|| name.to_owned());
            self.paths.push(chosen.file.clone());
            self.named.insert(chosen.file.clone(), (chosen, alias));
        }
    }

    /// The only file that an argument means. The error is why there is none, or that there are several.
    pub fn only_file(&mut self, argument: &Path) -> Result<PathBuf, Error> {
        if let Some(error) = self.errors.pop() {
            return Err(error);
        }
        match self.paths.as_slice() {
            [path] => Ok(path.clone()),
            [] => Err(Error::Usage(self.lines.join("; "))),
            several => {
                let files: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
                let what = format!("means several modules, name one: {}", files.join(", "));
                Err(Error::unusable(argument, what))
            }
        }
    }

    /// How the module of a file gets into the kernel.
    pub fn way(&self, file: &Path, home: &mut Home, loader: &mut Loader) -> Result<Way, Error> {
        match self.named.get(file) {
            Some((chosen, alias)) => home.way_of(chosen, alias.as_deref(), loader),
            None => home.way_of_file(file, loader),
        }
    }
}

fn no_such_module(name: &str, without_aliases: bool, home: &Home) -> Error {
    let Some(modprobe) = &home.modprobe else {
        let what = "no such file; and no modules of this kernel are known that could have this name (--kernel takes a tree or a release, --root the root of an image)";
        return Error::unusable(Path::new(name), what);
    };
    let folder = modprobe.tables.folder.display();
    let aliases = if without_aliases {
        "; it has no modules.alias, so aliases are not known (depmod makes it)"
    } else {
        ""
    };
    Error::unusable(Path::new(name), format!("no such file, and no such module under {folder}{aliases}"))
}

/// What is loaded for the modules of a run, and what is to be said of it.
#[derive(Debug, Default)]
pub struct Ways {
    /// By file: how its module gets into the kernel.
    ways: HashMap<PathBuf, Way>,
    /// The files of everything that is loaded before.
    pub before: Vec<PathBuf>,
    /// Parameters by module.
    pub options: BTreeMap<Box<[u8]>, String>,
    /// Said once each.
    said: Vec<String>,
}

impl Ways {
    /// Adds how a module gets into the kernel.
    pub fn add(&mut self, file: &Path, mut way: Way) {
        let module = kmodld::modprobe::Modprobe::name_of(file);
        way.before.retain(|step| self.is_loaded_by(step));
        if let Some(setting) = &way.command {
            self.say(format!(
                "modprobe does not load {module} itself: it runs `{}' ({})",
                setting.text,
                place(setting)
            ));
        }
        if way.is_loaded {
            self.say(format!(
                "{module} is loaded already, so modprobe has nothing to do: judged as if it were not; --no-deps judges insmod"
            ));
        }
        for step in &way.before {
            let file = step.file.iter().filter(|file| !self.before.contains(file));
            self.before.extend(file.cloned().collect::<Vec<_>>());
            self.set_options(&step.name, &step.options);
        }
        self.set_options(&module, &way.options);
        self.ways.insert(file.to_owned(), way);
    }

    /// Leaves out the neighbours of which `fails` says that the kernel refuses them: nobody can load them before. Their files.
    pub fn leave_out(&mut self, fails: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut left_out = Vec::new();
        for step in self.ways.values_mut().flat_map(|way| {
            way.before.extract_if(.., |step| step.is_neighbour && step.file.as_deref().is_some_and(&fails))
        }) {
            left_out.extend(step.file);
        }
        self.before.retain(|file| !left_out.contains(file));
        left_out
    }

    /// Does modprobe load a module on the way, as far as that is known?
    fn is_loaded_by(&mut self, step: &Step) -> bool {
        let name = &step.name;
        if let Some(setting) = &step.command {
            let (command, place) = (&setting.text, place(setting));
            if is_nothing(command) {
                self.say(format!("{name} is not loaded: modprobe runs `{command}' instead ({place})"));
                return false;
            }
            self.say(format!(
                "modprobe runs `{command}' instead of loading {name} ({place}): taken as if that loads it"
            ));
        }
        step.file.is_some()
    }

    fn say(&mut self, text: String) {
        if !self.said.contains(&text) {
            report::note(&text);
            self.said.push(text);
        }
    }

    fn set_options(&mut self, module: &str, options: &str) {
        if !options.is_empty() {
            self.options.insert(module.as_bytes().into(), options.to_owned());
        }
    }

    /// The names of what is loaded before the module of a file.
    pub fn with(&self, file: &str) -> Vec<String> {
        let way = self.ways.get(Path::new(file));
        way.into_iter().flat_map(|way| &way.before).map(|step| step.name.clone()).collect()
    }

    /// What is loaded before the module of a file, with parameters.
    pub fn steps(&self, file: &Path) -> &[Step] {
        self.ways.get(file).map_or(&[], |way| &way.before)
    }
}

/// Commands that load nothing: how modules are kept from being loaded.
fn is_nothing(command: &str) -> bool {
    let mut words = command.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    matches!(first.rsplit('/').next(), Some("true" | "false" | ":")) && words.next().is_none()
}

/// `FILE: line 3`
fn place(setting: &Setting) -> String {
    match setting.line {
        0 => setting.file.display().to_string(),
        line => format!("{}: line {line}", setting.file.display()),
    }
}

/// Modules that a running kernel has loaded are judged as if they were not: else it would refuse all of them (LIFE-2).
/// But those are loaded that `--with` names.
pub fn judge_loaded_ones(loader: &mut Loader, but: &[PathBuf]) {
    // The kernel knows a module by its own name, whatever its file is called (LIFE-3).
    let own_name = |file: &PathBuf| {
        let bytes = read_decompressed(file).ok()?;
        let opened = loader.open(&bytes, LoadFlags::default());
        Some(opened.module.as_ref()?.name().to_vec())
    };
    let given: Vec<Vec<u8>> = but.iter().filter_map(own_name).collect();
    let names: Vec<Box<[u8]>> = loader.kernel.modules().map(|module| module.name.clone()).collect();
    for name in names.iter().filter(|name| !given.iter().any(|g| **g == ***name)) {
        if let Some(module) = loader.kernel.state.module_mut(name) {
            module.listed = true;
        }
    }
}

/// `, with crc16, mbcache, jbd2`
pub fn with_words(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| one_line(name)).collect();
    if names.is_empty() { String::new() } else { format!(", with {}", names.join(", ")) }
}
