//! The tables of a folder of modules: what depmod wrote, or else what the files themselves say.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use kernel::Kernel;
use symres::LoadFlags;

use super::pattern::matches;
use super::settings::Softdep;
use super::text::{read_text, underscores};
use crate::check::set::{is_update, module_files, name_of, stem_of};
use crate::error::Error;
use crate::input::read_decompressed;
use crate::load::open;

/// A folder of modules.
#[derive(Debug)]
pub struct Tables {
    /// `lib/modules/RELEASE`
    pub folder: PathBuf,
    dep: Option<Dep>,
    /// Without modules.dep: the file of each module.
    files: OnceCell<BTreeMap<String, PathBuf>>,
    /// Without modules.dep: what files say of what they need.
    told: RefCell<HashMap<String, Told>>,
}

/// What a file says of the modules that are loaded with it.
#[derive(Clone, Debug, Default)]
struct Told {
    /// `depends=`, the first last.
    depends: Vec<String>,
    /// `softdep=`
    softdep: Softdep,
}

/// modules.dep.
#[derive(Debug)]
struct Dep {
    text: String,
    /// The hash of each module's name, and where its line begins; sorted. Most questions ask for a few of thousands.
    lines: Vec<(u64, usize)>,
}

impl Dep {
    /// Fails with the number of a line that is none.
    fn new(text: String) -> Result<Self, usize> {
        let (mut lines, mut at) = (Vec::new(), 0usize);
        for (line, number) in text.split('\n').zip(1usize..) {
            let from = at;
            at = from.saturating_add(line.len()).saturating_add(1);
            if !line.trim_start().is_empty() && !line.starts_with('#') {
                let (file, _) = line.split_once(':').ok_or(number)?;
                lines.push((hash(name_in(file)), from));
            }
        }
        lines.sort_unstable();
        Ok(Dep { text, lines })
    }

    /// The last line of a module.
    fn line(&self, module: &str) -> Option<&str> {
        let hash = hash(module.bytes());
        let from = self.lines.partition_point(|(other, _)| *other < hash);
        let same = self.lines.get(from..)?.iter().take_while(|(other, _)| *other == hash);
        let line = |at: usize| self.text.get(at..)?.split('\n').next();
        let is_it =
            |line: &&str| line.split_once(':').is_some_and(|(file, _)| name_in(file).eq(module.bytes()));
        same.filter_map(|(_, at)| line(*at)).filter(is_it).last()
    }
}

/// The name of a module, as [`module_name`] gives it.
fn name_in(file: &str) -> impl Iterator<Item = u8> {
    stem_of(file.rsplit('/').next().unwrap_or_default().as_bytes())
        .iter()
        .map(|b| if *b == b'-' { b'_' } else { *b })
}

/// FNV-1a.
fn hash(name: impl Iterator<Item = u8>) -> u64 {
    name.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Tables {
    /// Reads modules.dep, if there is one.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("modules.dep");
        let dep = match read_text(&path)? {
            Some(text) => {
                let is_wrong =
                    |line| Error::unusable(&path, format!("line {line} is not FILE: FILES; run depmod"));
                Some(Dep::new(text).map_err(is_wrong)?)
            }
            None => None,
        };
        Ok(Tables { folder: folder.to_owned(), dep, files: OnceCell::new(), told: RefCell::default() })
    }

    /// Has depmod written modules.dep?
    pub fn has_dep(&self) -> bool {
        self.dep.is_some()
    }

    /// The file of a module, by the name that the kernel knows it under.
    pub fn file(&self, module: &str) -> Option<PathBuf> {
        match &self.dep {
            Some(_) => {
                self.line(module).and_then(|line| Some(self.folder.join(line.split_once(':')?.0.trim())))
            }
            None => self.files().get(module).cloned(),
        }
    }

    fn line(&self, module: &str) -> Option<&str> {
        self.dep.as_ref()?.line(module)
    }

    /// The files of the modules that are there.
    pub fn files(&self) -> &BTreeMap<String, PathBuf> {
        self.files.get_or_init(|| {
            let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
            for file in module_files(&self.folder).chain(linked(&self.folder)).flatten() {
                let name = module_name(&file);
                // depmod looks into `updates` first.
                if !files.contains_key(&name) || is_update(&file) {
                    files.insert(name, file);
                }
            }
            files
        })
    }

    /// What a module needs, directly or not: in the order in which modprobe loads it. With modules.dep that is its line from the
    /// end; without it, `depends=` of the files.
    pub fn dependencies(&self, module: &str) -> Result<Vec<String>, Error> {
        if self.dep.is_some() {
            let files =
                self.line(module).and_then(|line| line.split_once(':')).map_or("", |(_, files)| files);
            return Ok(files
                .split_ascii_whitespace()
                .rev()
                .map(|file| module_name(Path::new(file)))
                .collect());
        }
        let mut order = Vec::new();
        let mut seen = HashSet::from([module.to_owned()]);
        // Depth first, without recursion: a module, and which of those that it needs were not looked at, the next one last.
        let mut path = vec![(module.to_owned(), self.depends_of(module)?)];
        while let Some((name, left)) = path.last_mut() {
            match left.pop() {
                None => {
                    order.push(std::mem::take(name));
                    path.pop();
                }
                Some(next) if seen.insert(next.clone()) => {
                    let depends = self.depends_of(&next)?;
                    path.push((next, depends));
                }
                Some(_) => {}
            }
        }
        order.pop();
        Ok(order)
    }

    /// `depends=` of a module's file, the first last.
    fn depends_of(&self, module: &str) -> Result<Vec<String>, Error> {
        Ok(self.told(module)?.depends)
    }

    /// What a module's file says goes with it, where no modules.softdep can.
    pub fn softdep_of(&self, module: &str) -> Option<Softdep> {
        if self.dep.is_some() {
            return None;
        }
        self.told(module).ok().map(|told| told.softdep)
    }

    fn told(&self, module: &str) -> Result<Told, Error> {
        if let Some(told) = self.told.borrow().get(module) {
            return Ok(told.clone());
        }
        let told = match self.file(module) {
            Some(file) => Told::of(&read_decompressed(&file)?),
            None => Told::default(),
        };
        self.told.borrow_mut().insert(module.to_owned(), told.clone());
        Ok(told)
    }

    /// The modules of `modules.alias` that an alias means. `None` if there is no such table.
    pub fn aliases(&self, alias: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(text) = read_text(&self.folder.join("modules.alias"))? else { return Ok(None) };
        let mut modules = Vec::new();
        for line in text.lines() {
            if let Some((pattern, module)) = line.strip_prefix("alias ").and_then(|l| l.rsplit_once(' '))
                && matches(underscores(pattern).as_bytes(), alias.as_bytes())
            {
                let module = underscores(module);
                if !modules.contains(&module) {
                    modules.push(module);
                }
            }
        }
        Ok(Some(modules))
    }

    /// The module that exports each of these names, by `modules.symbols`; `None` without that table.
    pub fn exporters(&self, names: &HashSet<&str>) -> Result<Option<HashMap<String, String>>, Error> {
        let Some(text) = read_text(&self.folder.join("modules.symbols"))? else { return Ok(None) };
        let mut exporters = HashMap::new();
        for line in text.lines() {
            if let Some((name, module)) = line.strip_prefix("alias symbol:").and_then(|l| l.split_once(' '))
                && names.contains(name)
            {
                exporters.entry(name.to_owned()).or_insert_with(|| underscores(module.trim()));
            }
        }
        Ok(Some(exporters))
    }

    /// The module that is built into the kernel and has this name or alias.
    pub fn built_in(&self, name: &str) -> Result<Option<String>, Error> {
        let text = read_text(&self.folder.join("modules.builtin"))?.unwrap_or_default();
        if text.lines().any(|line| module_name(Path::new(line.trim())) == name) {
            return Ok(Some(name.to_owned()));
        }
        let text = read_text(&self.folder.join("modules.builtin.modinfo"))?.unwrap_or_default();
        let found = text.split('\0').find_map(|entry| {
            let (module, rest) = entry.split_once('.')?;
            let alias = rest.strip_prefix("alias=");
            let is_it =
                module == name || alias.is_some_and(|a| matches(underscores(a).as_bytes(), name.as_bytes()));
            is_it.then(|| underscores(module))
        });
        Ok(found)
    }
}

/// The module files of a folder that is put together of links, such as `kernel`; `build` and `source` have none.
fn linked(folder: &Path) -> impl Iterator<Item = Result<PathBuf, Error>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let links =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).map(|e| e.path());
    let folders = links.filter(|path| path.is_dir() && !path.ends_with("build") && !path.ends_with("source"));
    folders.flat_map(|path| module_files(&path).collect::<Vec<_>>())
}

/// `snd_hda_intel` of `.../snd-hda-intel.ko.xz`.
pub fn module_name(file: &Path) -> String {
    String::from_utf8_lossy(&name_of(file)).into_owned()
}

impl Told {
    /// Nothing of what is no module.
    fn of(bytes: &[u8]) -> Self {
        let kernel = Kernel::unknown(kernel::newest());
        let opened = open(bytes, &kernel, LoadFlags::default());
        let value = |key| opened.module.as_ref().and_then(|file| file.modinfo().get(key)).unwrap_or_default();
        let text = |key| String::from_utf8_lossy(value(key)).into_owned();
        Told { depends: names(&text("depends")), softdep: Softdep::parse(&text("softdep")) }
    }
}

/// Names with commas between them, the first last.
pub fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).rev().map(underscores).collect()
}
