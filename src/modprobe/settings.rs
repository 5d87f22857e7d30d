//! What modprobe is told of modules: `modprobe.d`, `modules.softdep`, and the kernel's command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::pattern::matches;
use super::text::{read_text, underscores};
use crate::error::Error;
use crate::root::Root;

/// Where its files are, the first first: a name that an earlier folder has hides the same name of later ones.
const FOLDERS: [&str; 5] =
    ["etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"];

/// What stands where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// A name, or a pattern of names.
    pub of: String,
    /// What is said of it.
    pub text: String,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 for the kernel's command line.
    pub line: usize,
}

/// Modules that are loaded before and after another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Softdep {
    /// Before it.
    pub pre: Vec<String>,
    /// After it.
    pub post: Vec<String>,
}

/// Everything that modprobe is told, in the order in which it reads it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// `alias PATTERN MODULE`
    pub aliases: Vec<Setting>,
    /// `blacklist MODULE`
    pub blacklist: Vec<Setting>,
    /// `options MODULE TEXT`
    pub options: Vec<Setting>,
    /// `install PATTERN COMMAND`
    pub installs: Vec<Setting>,
    /// `softdep PATTERN pre: ... post: ...`
    pub softdeps: Vec<Setting>,
    /// Lines that say nothing to modprobe.
    pub doubts: Vec<String>,
}

impl Settings {
    /// Reads those of a root, of the modules in a folder, and of the running kernel's command line.
    pub fn read(root: &Root, modules: &Path, cmdline: Option<&str>) -> Result<Self, Error> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for folder in FOLDERS.iter().map(|folder| root.at(folder)) {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let counts = name.ends_with(".conf") || name.ends_with(".alias");
                if counts && !name.starts_with('.') && !entry.path().is_dir() {
                    files.entry(name).or_insert_with(|| root.at(in_root(root, &entry.path())));
                }
            }
        }
        let softdeps = modules.join("modules.softdep");
        if softdeps.is_file() {
            files.insert(String::from("modules.softdep"), softdeps);
        }
        let mut settings = Settings::default();
        for file in files.values() {
            if let Some(text) = read_text(file)? {
                settings.add(file, &text);
            }
        }
        cmdline.iter().for_each(|cmdline| settings.add_cmdline(cmdline));
        Ok(settings)
    }

    fn add(&mut self, file: &Path, text: &str) {
        let mut lines = text.lines().zip(1usize..);
        while let Some((first, line)) = lines.next() {
            let mut whole = first.to_owned();
            while whole.ends_with('\\') {
                whole.pop();
                let Some((next, _)) = lines.next() else { break };
                whole.push_str(next);
            }
            let whole = whole.trim();
            if !whole.is_empty() && !whole.starts_with('#') && !self.add_line(file, line, whole) {
                self.doubts
                    .push(format!("{}: line {line} says nothing to modprobe: {whole}", file.display()));
            }
        }
    }

    fn add_line(&mut self, file: &Path, line: usize, text: &str) -> bool {
        let (word, rest) = split_word(text);
        let (of, rest) = split_word(rest);
        let list = match word {
            "alias" if !rest.is_empty() => &mut self.aliases,
            "blacklist" => &mut self.blacklist,
            "options" if !rest.is_empty() => &mut self.options,
            "install" if !rest.is_empty() => &mut self.installs,
            "softdep" if !rest.is_empty() => &mut self.softdeps,
            // Of no matter to loading.
            "remove" | "weakdep" => return true,
            _ => return false,
        };
        if of.is_empty() {
            return false;
        }
        let text = if word == "alias" { underscores(split_word(rest).0) } else { rest.to_owned() };
        list.push(Setting { of: underscores(of), text, file: file.to_owned(), line });
        true
    }

    /// `MODULE.PARAM=VALUE` and `modprobe.blacklist=A,B`.
    fn add_cmdline(&mut self, cmdline: &str) {
        let setting = |of: &str, text: &str| {
            let file = PathBuf::from("/proc/cmdline");
            Setting { of: underscores(of), text: text.to_owned(), file, line: 0 }
        };
        for word in words(cmdline).into_iter().take_while(|word| word != "--") {
            let Some((module, param)) = word.split_once('.') else { continue };
            // A dot in the value of a word is none between module and parameter.
            if module.contains('=') || module.is_empty() {
                continue;
            }
            match param.strip_prefix("blacklist=").filter(|_| module == "modprobe") {
                Some(list) => self.blacklist.extend(list.split(',').map(|name| setting(name, ""))),
                None if !param.is_empty() => self.options.push(setting(module, param)),
                None => {}
            }
        }
    }

    /// Is a module blacklisted, and where?
    pub fn blacklisted(&self, module: &str) -> Option<&Setting> {
        self.blacklist.iter().find(|setting| setting.of == module)
    }

    /// Parameters of a module, also under the alias that it was asked for by.
    pub fn options_of(&self, module: &str, alias: Option<&str>) -> String {
        let of = self.options.iter().filter(|s| s.of == module || Some(&*s.of) == alias);
        of.map(|setting| setting.text.trim()).collect::<Vec<_>>().join(" ")
    }

    /// The command that is run instead of loading a module.
    pub fn install_of(&self, module: &str) -> Option<&Setting> {
        self.installs.iter().find(|setting| matches(setting.of.as_bytes(), module.as_bytes()))
    }

    /// What goes with a module: the first line that is about it counts.
    pub fn softdep_of(&self, module: &str) -> Option<Softdep> {
        let setting = self.softdeps.iter().find(|s| matches(s.of.as_bytes(), module.as_bytes()))?;
        Some(Softdep::parse(&setting.text))
    }
}

impl Softdep {
    /// `pre: a b post: c`
    pub fn parse(text: &str) -> Self {
        let mut softdep = Softdep::default();
        let mut list: Option<bool> = None;
        for word in text.split_ascii_whitespace() {
            match (word, list) {
                ("pre:", _) => list = Some(true),
                ("post:", _) => list = Some(false),
                (name, Some(true)) => softdep.pre.push(name.to_owned()),
                (name, Some(false)) => softdep.post.push(name.to_owned()),
                (_, None) => {}
            }
        }
        softdep
    }
}

/// A path under a root, as that system has it.
fn in_root<'p>(root: &Root, path: &'p Path) -> &'p Path {
    path.strip_prefix(root.path()).unwrap_or(path)
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once([' ', '\t']).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// Words between blanks; blanks between double quotes belong to a word, and the quotes stay.
pub fn words(text: &str) -> Vec<String> {
    let mut quoted = false;
    let mut words = vec![String::new()];
    for c in text.chars() {
        quoted ^= c == '"';
        match words.last_mut() {
            Some(word) if quoted || !c.is_whitespace() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let mut settings = Settings::default();
        settings.add(Path::new("a.conf"), text);
        settings
    }

    #[test]
    fn lines_are_read_as_modprobe_reads_them() {
        let s = settings(
            "# comment\nalias char-major-10-* my-mod\nblacklist pc-spkr\noptions snd-hda-intel power_save=1 \\\n model=\"a b\"\n\
             options snd_hda_intel x=2\ninstall floppy /bin/false\nsoftdep uhci-hcd pre: ehci-hcd post: x y\n\
             softdep uhci_hcd pre: other\nremove a b\n\ninclude /etc/x\nalias lonely\nblacklist\n",
        );
        assert_eq!((&*s.aliases[0].of, &*s.aliases[0].text), ("char_major_10_*", "my_mod"));
        assert_eq!(s.blacklisted("pc_spkr").map(|s| s.line), Some(3));
        assert_eq!(s.options_of("snd_hda_intel", None), "power_save=1  model=\"a b\" x=2");
        assert_eq!(s.install_of("floppy").map(|s| &*s.text), Some("/bin/false"));
        let softdep = s.softdep_of("uhci_hcd").unwrap();
        assert_eq!(
            (softdep.pre, softdep.post),
            (vec!["ehci-hcd".to_owned()], vec!["x".to_owned(), "y".to_owned()])
        );
        assert_eq!(s.doubts.len(), 3, "{:?}", s.doubts);
        assert!(s.doubts[0].contains("a.conf: line 12"), "{:?}", s.doubts);
    }

    #[test]
    fn the_command_line_counts_too() {
        let mut s = Settings::default();
        s.add_cmdline("root=/dev/sda1.x modprobe.blacklist=a-b,c snd-hda.model=\"x y\" quiet -- d.e=1");
        assert!(s.blacklisted("a_b").is_some() && s.blacklisted("c").is_some());
        assert_eq!(s.options_of("snd_hda", None), "model=\"x y\"");
        assert_eq!(s.options.len(), 1);
    }

    #[test]
    fn files_of_earlier_folders_hide_those_of_later_ones() {
        let top = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/modprobe.d/b.conf", "blacklist own\n");
        write("usr/lib/modprobe.d/b.conf", "blacklist hidden\n");
        write("usr/lib/modprobe.d/a.conf", "softdep m pre: first\n");
        write("lib/modprobe.d/z.conf", "softdep m pre: last\n");
        write("etc/modprobe.d/.hidden.conf", "blacklist hidden\n");
        write("etc/modprobe.d/readme", "blacklist hidden\n");
        write("modules/modules.softdep", "softdep m pre: second\nsoftdep n pre: n1\n");
        let root = Root::new(top.path()).unwrap();
        let s = Settings::read(&root, &top.path().join("modules"), None).unwrap();
        assert!(s.blacklisted("own").is_some() && s.blacklisted("hidden").is_none());
        assert_eq!(s.softdep_of("m").unwrap().pre, ["first"], "by the names of the files");
        assert_eq!(s.softdep_of("n").unwrap().pre, ["n1"]);
    }
}
