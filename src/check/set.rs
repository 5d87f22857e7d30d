//! The modules that one run checks, as files (SET-1).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// How names of module files end.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// The files of a set, in the order of the command line, those of a directory sorted by path.
#[derive(Debug, Default)]
pub struct Set {
    files: Vec<PathBuf>,
    /// By the name that a file's name gives its module: the files, best first (SET-2).
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// Was a directory named?
    pub has_directory: bool,
}

impl Set {
    /// Collects files and, recursively, directories. What cannot be read, and a directory without modules, goes
    /// to `complain`; the rest still counts. A file that is named twice counts once.
    pub fn collect(paths: &[PathBuf], mut complain: impl FnMut(Error)) -> Set {
        let mut set = Set::default();
        let mut seen = HashSet::new();
        let mut is_new = |file: &PathBuf| paths.len() == 1 || seen.insert(file.clone());
        for path in paths {
            let mut found = Vec::new();
            for file in module_files(path) {
                file.map_or_else(&mut complain, |file| found.push(file));
            }
            set.has_directory |= path.is_dir();
            if found.is_empty() {
                let what = "no modules in this directory (.ko, .ko.gz, .ko.xz, .ko.zst)";
                complain(Error::unusable(path, what));
            }
            set.files.extend(found.into_iter().filter(&mut is_new));
        }
        for (index, file) in set.files.iter().enumerate() {
            set.by_name.entry(name_of(file)).or_default().push(index);
        }
        for named in set.by_name.values_mut() {
            named.sort_by_key(|index| !set.files.get(*index).is_some_and(|file| is_update(file)));
        }
        set
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// No file at all?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A file of the set.
    pub fn file(&self, index: usize) -> &Path {
        self.files.get(index).map_or(Path::new(""), PathBuf::as_path)
    }

    /// The file that modprobe would take for a module of this name (SET-2).
    pub fn named(&self, module: &[u8]) -> Option<usize> {
        self.by_name.get(module)?.first().copied()
    }

    /// Is this file preferred to others (SET-2)?
    pub fn is_update(&self, index: usize) -> bool {
        is_update(self.file(index))
    }

    /// Part `part` of `of`, from 1: neighbouring files, so that the parts one after the other are the whole.
    pub fn part(&self, part: usize, of: usize) -> Range<usize> {
        let end = |part: usize| {
            let end = (part as u128).saturating_mul(self.len() as u128).checked_div(of as u128);
            end.and_then(|end| usize::try_from(end).ok()).unwrap_or(0)
        };
        end(part.saturating_sub(1))..end(part)
    }
}

/// `snd_hda_intel` of `.../snd-hda-intel.ko.xz`: the name that kbuild gave the module.
pub fn name_of(file: &Path) -> Vec<u8> {
    let name = file.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    let end = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending.as_bytes()));
    end.unwrap_or(name).iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect()
}

/// depmod's default search order is `updates` before the rest.
fn is_update(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "updates")
}

/// A file by itself, or the module files below a directory, sorted by path, and what cannot be read of it. Each is
/// looked for when it is asked for.
pub fn module_files(path: &Path) -> impl Iterator<Item = Result<PathBuf, Error>> {
    let is_directory = path.is_dir();
    let below = Walk { pending: Vec::from_iter(is_directory.then(|| list(path))) };
    below.chain((!is_directory).then(|| Ok(path.to_owned())))
}

/// The way through a directory. Links to files are followed (weak-updates are such), links to directories are not:
/// `build` and `source` lead out of the tree, others may lead in circles.
struct Walk {
    /// Directories that were begun, each with what it has left, the next entry last.
    pending: Vec<Vec<Entry>>,
}

type Entry = Result<(PathBuf, FileType), Error>;

impl Iterator for Walk {
    type Item = Result<PathBuf, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(entries) = self.pending.last_mut() {
            let (path, kind) = match entries.pop() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.pending.pop();
                    continue;
                }
            };
            let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
            let is_module = ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()));
            if kind.is_dir() {
                self.pending.push(list(&path));
            } else if is_module && kind.is_file() {
                return Some(Ok(path));
            } else if is_module {
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => return Some(Ok(path)),
                    // A link to a directory.
                    Ok(metadata) if metadata.is_dir() => {}
                    // Reading a pipe or a device might never end.
                    Ok(_) => return Some(Err(Error::unusable(&path, "neither a file nor a directory"))),
                    Err(source) => return Some(Err(Error::read(&path, source))),
                }
            }
        }
        None
    }
}

/// The entries of a directory, sorted by name, the last one first; behind them what cannot be read of it.
fn list(directory: &Path) -> Vec<Entry> {
    let (mut list, mut errors) = (Vec::new(), Vec::new());
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
                    Ok(entry) => list.push(entry),
                    Err(source) => errors.push(Err(Error::read(directory, source))),
                }
            }
        }
        Err(source) => errors.push(Err(Error::read(directory, source))),
    }
    // Paths of one directory have the order of their bytes.
    list.sort_unstable_by(|(a, _), (b, _)| b.as_os_str().cmp(a.as_os_str()));
    list.into_iter().map(Ok).chain(errors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Set {
        Set::collect(&names.iter().map(PathBuf::from).collect::<Vec<_>>(), |e| panic!("{e}"))
    }

    #[test]
    fn files_of_directories_are_sorted_by_path() {
        let top = tempfile::tempdir().unwrap();
        let names = [
            "b.ko",
            "b/a.ko",
            "b-c/z.ko",
            "b.d/x.ko.xz",
            "a/b/c.ko",
            "a/b.ko",
            "a/a/a/a.ko",
            "c.ko",
            "b/skip.txt",
        ];
        for name in names {
            let path = top.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = Set::collect(&[top.path().to_owned()], |e| panic!("{e}")).files;
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!((found.len(), &found), (8, &sorted), "SET-1");
        let twice = [top.path().to_owned(), top.path().join("b.ko"), top.path().join("a")];
        assert_eq!(Set::collect(&twice, |e| panic!("{e}")).files, found, "SET-1: each once");
    }

    #[test]
    fn set_2_names_and_updates() {
        let set =
            set(&["/k/kernel/snd-hda.ko.xz", "/k/updates/dkms/snd_hda.ko", "/k/kernel/a.b.ko", "/k/plain"]);
        assert_eq!(set.named(b"snd_hda"), Some(1), "SET-2: updates before the rest");
        assert_eq!(set.named(b"a.b"), Some(2));
        assert_eq!(set.named(b"plain"), Some(3));
        assert_eq!(set.named(b"snd-hda"), None);
    }

    #[test]
    fn parts_are_the_whole() {
        for len in 0..40 {
            let names: Vec<String> = (0..len).map(|n| format!("/nowhere/{n}.ko")).collect();
            let set = set(&names.iter().map(String::as_str).collect::<Vec<_>>());
            for of in 1..50 {
                let all: Vec<usize> = (1..=of).flat_map(|part| set.part(part, of)).collect();
                assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len} files in {of} parts");
                let sizes: Vec<usize> = (1..=of).map(|part| set.part(part, of).len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}
