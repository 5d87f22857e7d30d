//! What modprobe does before the kernel is asked (kmod 30; SET-8): names become files, and other modules are loaded first.
//!
//! [`settings`] are what it is told, [`tables`] what depmod or the files tell of a folder of modules, [`providers`] what a file
//! outside of them needs.

pub mod pattern;
pub mod providers;
pub mod settings;
pub mod tables;
pub mod text;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::input::STDIN;
use crate::kernel_source::tree::Tree;
use settings::{Setting, Settings, Softdep};
use tables::{Tables, module_name};
use text::underscores;

/// Softdeps lead from module to module; no deeper than this.
const DEPTH_MAX: usize = 64;

/// modprobe for the modules of one kernel.
#[derive(Debug)]
#[non_exhaustive]
pub struct Modprobe {
    /// Where they are.
    pub tree: Tree,
    /// What it is told of modules.
    pub settings: Settings,
    /// The tables of its folder.
    pub tables: Tables,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// These modules: one, or all those of an alias.
    Modules(Vec<Chosen>),
    /// This module is built into the kernel.
    BuiltIn(String),
    /// Nothing.
    Nothing {
        /// There is no table of aliases, so it might be one.
        without_aliases: bool,
    },
}

/// A module that a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Was it found by an alias?
    pub by_alias: bool,
}

/// One module that is loaded on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its file; `None` if there is none.
    pub file: Option<PathBuf>,
    /// Its parameters, of `modprobe.d` and the kernel's command line.
    pub options: String,
    /// What is run instead of loading it.
    pub command: Option<Setting>,
    /// Does what it is loaded for need it? Else modprobe goes on without it.
    pub required: bool,
    /// Does it only lie in the folder of what needs it, unknown to modprobe? Somebody has to load it then, and cannot if the
    /// kernel refuses it.
    pub is_neighbour: bool,
}

/// What is loaded for a module, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Before it.
    pub before: Vec<Step>,
    /// Its own parameters.
    pub options: String,
    /// What is run instead of loading it.
    pub command: Option<Setting>,
    /// After it.
    pub after: Vec<Step>,
}

/// May an argument be the name of a module? A path has a slash, or ends as module files do; `-` is stdin.
pub fn may_be_name(argument: &Path) -> Option<&str> {
    let text = argument.to_str()?;
    let is_path = text.contains('/') || text.is_empty() || [".", "..", STDIN].contains(&text);
    let ends = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|ending| text.ends_with(ending));
    (!is_path && !ends).then_some(text)
}

impl Modprobe {
    /// Reads what modprobe reads of the modules of a tree. `cmdline` is the command line of the running kernel.
    pub fn open(tree: Tree, cmdline: Option<&str>) -> Result<Self, Error> {
        let folder = tree.folder();
        let settings = Settings::read(&tree.root, &folder, cmdline)?;
        Ok(Modprobe { settings, tables: Tables::open(&folder)?, tree })
    }

    /// What a name or alias means (libkmod: kmod_module_new_from_lookup).
    pub fn lookup(&self, given: &str) -> Result<Meant, Error> {
        let name = underscores(given);
        let chosen = |module: &str, by_alias| {
            let file = self.tables.file(module)?;
            Some(Chosen { name: module.to_owned(), file, by_alias })
        };
        let aliases = self.settings.aliases.iter();
        let aliased = aliases.filter(|s| pattern::matches(s.of.as_bytes(), name.as_bytes()));
        let aliased: Vec<Chosen> = aliased.filter_map(|setting| chosen(&setting.text, true)).collect();
        if !aliased.is_empty() {
            return Ok(Meant::Modules(aliased));
        }
        if let Some(module) = chosen(&name, false) {
            return Ok(Meant::Modules(vec![module]));
        }
        if let Some(symbol) = given.strip_prefix("symbol:")
            && let Some(exporters) = self.tables.exporters(&HashSet::from([symbol]))?
        {
            let modules: Vec<Chosen> = exporters.values().filter_map(|module| chosen(module, true)).collect();
            if !modules.is_empty() {
                return Ok(Meant::Modules(modules));
            }
        }
        let aliases = self.tables.aliases(&name)?;
        let modules = aliases.iter().flatten().filter_map(|module| chosen(module, true));
        let modules: Vec<Chosen> = modules.collect();
        if !modules.is_empty() {
            return Ok(Meant::Modules(modules));
        }
        Ok(match self.tables.built_in(&name)? {
            Some(module) => Meant::BuiltIn(module),
            None => Meant::Nothing { without_aliases: aliases.is_none() },
        })
    }

    /// What modprobe loads for a module of the tree (libkmod: kmod_module_get_probe_list). `alias` is what it was asked for
    /// as, if that was another name.
    pub fn plan(&self, module: &str, alias: Option<&str>) -> Result<Plan, Error> {
        let mut list =
            List { modprobe: self, visited: HashSet::new(), order: Vec::new(), required: HashSet::new() };
        let needed = self.tables.dependencies(module)?;
        list.required.extend(needed.iter().cloned());
        list.probe(module, &needed, 0)?;
        let List { order, required, .. } = list;
        let at = order.iter().position(|(name, _)| name == module).unwrap_or(order.len());
        let step = |(name, ignores_command): &(String, bool)| {
            self.step(name, *ignores_command, required.contains(name))
        };
        let (before, rest) = order.split_at_checked(at).unwrap_or_default();
        // A softdep of its own makes a command pointless (libkmod: ignorecmd).
        let has_softdep = self.softdep(module).is_some_and(|s| !s.pre.is_empty() || !s.post.is_empty());
        Ok(Plan {
            before: before.iter().map(step).collect(),
            options: self.settings.options_of(module, alias),
            command: self.settings.install_of(module).filter(|_| !has_softdep).cloned(),
            after: rest.iter().skip(1).map(step).collect(),
        })
    }

    fn step(&self, name: &str, ignores_command: bool, required: bool) -> Step {
        Step {
            name: name.to_owned(),
            file: self.tables.file(name),
            options: self.settings.options_of(name, None),
            command: self.settings.install_of(name).filter(|_| !ignores_command).cloned(),
            required,
            is_neighbour: false,
        }
    }

    /// What `modprobe.d` or `modules.softdep` say, else the file itself.
    fn softdep(&self, module: &str) -> Option<Softdep> {
        self.settings.softdep_of(module).or_else(|| self.tables.softdep_of(module))
    }

    /// The file of a module by its name.
    pub fn file(&self, module: &str) -> Option<PathBuf> {
        self.tables.file(module)
    }

    /// The name that a file's name gives.
    pub fn name_of(file: &Path) -> String {
        module_name(file)
    }
}

/// A list of modules to load that grows.
struct List<'m> {
    modprobe: &'m Modprobe,
    visited: HashSet<String>,
    /// In the order of loading, each once, and whether its install command does not count.
    order: Vec<(String, bool)>,
    required: HashSet<String>,
}

impl List<'_> {
    /// libkmod: __kmod_module_get_probe_list
    fn probe(&mut self, module: &str, needed: &[String], depth: usize) -> Result<(), Error> {
        if !self.visited.insert(module.to_owned()) {
            return Ok(());
        }
        for name in needed {
            self.with_softdeps(name, depth)?;
        }
        self.with_softdeps(module, depth)
    }

    /// libkmod: __kmod_module_fill_softdep
    fn with_softdeps(&mut self, module: &str, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            let what = format!("softdeps lead deeper than {DEPTH_MAX} modules (at {module})");
            return Err(Error::unusable(&self.modprobe.tree.folder(), what));
        }
        let softdep = self.modprobe.softdep(module).unwrap_or_default();
        let Softdep { pre, post } = softdep;
        self.softdeps(&pre, depth)?;
        if !self.order.iter().any(|(name, _)| name == module) {
            self.order.push((module.to_owned(), !pre.is_empty() || !post.is_empty()));
        }
        self.softdeps(&post, depth)
    }

    fn softdeps(&mut self, names: &[String], depth: usize) -> Result<(), Error> {
        for name in names {
            if let Meant::Modules(modules) = self.modprobe.lookup(name)? {
                for module in modules {
                    let needed = self.modprobe.tables.dependencies(&module.name)?;
                    self.probe(&module.name, &needed, depth.saturating_add(1))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::root::Root;

    const R: &str = "6.9.1-x";

    fn modprobe(files: &[(&str, &str)]) -> (tempfile::TempDir, Modprobe) {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path.replace("{m}", &format!("lib/modules/{R}")));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::new(top.path()).unwrap();
        let modprobe = Modprobe::open(Tree::at(&root, R), None).unwrap();
        (top, modprobe)
    }

    const DEP: (&str, &str) = (
        "{m}/modules.dep",
        "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz\n\
         kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
         updates/snd-hda.ko: kernel/fs/mbcache.ko.xz\nkernel/crc32c.ko: kernel/lib/crc16.ko.xz\n",
    );

    fn order(modprobe: &Modprobe, module: &str) -> Vec<String> {
        let plan = modprobe.plan(module, None).unwrap();
        let names = |steps: &[Step]| steps.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        [names(&plan.before), vec![module.to_uppercase()], names(&plan.after)].concat()
    }

    #[test]
    fn set_8_dependencies_come_in_the_order_of_modprobe() {
        let (_top, modprobe) = modprobe(&[DEP]);
        assert_eq!(
            order(&modprobe, "ext4"),
            ["mbcache", "crc16", "jbd2", "EXT4"],
            "SET-8: the line from its end"
        );
        assert_eq!(order(&modprobe, "crc16"), ["CRC16"]);
        let file = modprobe.plan("ext4", None).unwrap().before[0].file.clone().unwrap();
        assert!(file.ends_with(format!("lib/modules/{R}/kernel/fs/mbcache.ko.xz")), "{file:?}");
    }

    #[test]
    fn set_8_softdeps_are_loaded_before_and_after() {
        let softdep = (
            "{m}/modules.softdep",
            "softdep ext4 pre: crc32c post: snd-hda\nsoftdep jbd2 pre: crc32c ext4\n",
        );
        let options =
            ("etc/modprobe.d/o.conf", "options crc32c a=1\noptions ext4 b=2\ninstall mbcache /bin/false\n");
        let (_top, modprobe) = modprobe(&[DEP, softdep, options]);
        assert_eq!(
            order(&modprobe, "ext4"),
            ["mbcache", "crc16", "crc32c", "jbd2", "EXT4", "snd_hda"],
            "SET-8"
        );
        let plan = modprobe.plan("ext4", None).unwrap();
        let by_name = |name: &str| plan.before.iter().find(|s| s.name == name).unwrap();
        assert!(
            by_name("mbcache").required && !by_name("crc32c").required,
            "SET-8: a softdep may be missing"
        );
        assert_eq!((&*by_name("crc32c").options, &*plan.options), ("a=1", "b=2"));
        assert_eq!(by_name("mbcache").command.as_ref().map(|s| &*s.text), Some("/bin/false"));
    }

    #[test]
    fn softdeps_in_circles_and_chains_end() {
        let circle =
            ("{m}/modules.softdep", "softdep ext4 pre: crc32c\nsoftdep crc32c pre: ext4 post: ext4\n");
        let (_top, circle) = modprobe(&[DEP, circle]);
        assert_eq!(order(&circle, "ext4"), ["mbcache", "crc16", "jbd2", "crc32c", "EXT4"]);
        let dep: String = (0..500).map(|n| format!("m{n}.ko:\n")).collect();
        let soft: String = (0..500).map(|n| format!("softdep m{n} pre: m{}\n", n + 1)).collect();
        let (_top, chain) = modprobe(&[("{m}/modules.dep", &dep), ("{m}/modules.softdep", &soft)]);
        let said = chain.plan("m0", None).unwrap_err().to_string();
        assert!(said.contains("deeper than 64"), "{said}");
    }

    #[test]
    fn names_and_aliases_mean_what_modprobe_says() {
        let (_top, modprobe) = modprobe(&[
            DEP,
            (
                "{m}/modules.alias",
                "# x\nalias fs-ext4 ext4\nalias fs-ext3 ext4\nalias pci:v1*d* snd_hda\nalias pci:v1*d2 jbd2\n",
            ),
            ("{m}/modules.symbols", "alias symbol:jbd2_start jbd2\n"),
            ("{m}/modules.builtin", "kernel/fs/binfmt-elf.ko\n"),
            ("{m}/modules.builtin.modinfo", "vfat.alias=fs-vfat\0vfat.license=GPL\0printk.parm=x\0"),
            ("etc/modprobe.d/a.conf", "alias my-sound snd-hda\nalias crc16 jbd2\nblacklist snd_hda\n"),
        ]);
        let names = |given: &str| match modprobe.lookup(given).unwrap() {
            Meant::Modules(all) => all
                .iter()
                .map(|m| format!("{}{}", m.name, if m.by_alias { "*" } else { "" }))
                .collect::<Vec<_>>()
                .join(" "),
            Meant::BuiltIn(name) => format!("built in {name}"),
            Meant::Nothing { without_aliases } => format!("nothing {without_aliases}"),
        };
        for (given, want) in [
            ("ext4", "ext4"),
            ("snd-hda", "snd_hda"),
            ("snd_hda", "snd_hda"),
            ("my-sound", "snd_hda*"),
            ("crc16", "jbd2*"),
            ("fs-ext3", "ext4*"),
            ("pci:v12d2", "snd_hda* jbd2*"),
            ("symbol:jbd2_start", "jbd2*"),
            ("binfmt_elf", "built in binfmt_elf"),
            ("fs-vfat", "built in vfat"),
            ("printk", "built in printk"),
            ("nothing", "nothing false"),
            ("symbol:nothing", "nothing false"),
        ] {
            assert_eq!(names(given), want, "{given}");
        }
        assert!(modprobe.settings.blacklisted("snd_hda").is_some());
    }

    #[test]
    fn what_may_be_a_name() {
        for (argument, is) in [
            ("ext4", true),
            ("snd-hda", true),
            ("pci:v1d2", true),
            ("ext4.ko", false),
            ("ext4.ko.xz", false),
            ("./ext4", false),
            ("/ext4", false),
            (".", false),
            ("..", false),
            ("", false),
        ] {
            assert_eq!(may_be_name(Path::new(argument)).is_some(), is, "{argument}");
        }
    }

    #[test]
    fn a_damaged_table_is_named() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("modules.dep"), "a.ko:\nrubbish\n").unwrap();
        let said = Tables::open(top.path()).unwrap_err().to_string();
        assert!(said.contains("modules.dep: line 2") && said.contains("depmod"), "{said}");
        fs::write(top.path().join("modules.dep"), b"\xff\xfe.ko:\0\n: :\na.ko: ../../../x.ko\n").unwrap();
        assert!(Tables::open(top.path()).is_ok());
    }
}
