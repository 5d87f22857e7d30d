//! The modules that one run checks, as files (SET-1).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use crate::error::Error;

/// How names of module files end.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];
/// Threads share so many directories at least, if there are as many.
const SHARES: usize = 64;

/// The files of a set, in the order of the command line, those of a directory sorted by path.
#[derive(Clone, Debug, Default)]
pub struct Set {
    files: Vec<PathBuf>,
    /// By the name that a file's name gives its module: the files, best first (SET-2).
    by_name: HashMap<Vec<u8>, Vec<usize>, RandomState>,
    /// Was a directory named?
    pub has_directory: bool,
    /// The first so many are no help for others.
    apart: usize,
}

/// The search for the files of a set, which threads share: looking through the 900 directories of a distribution takes
/// a tenth of the time that checking what is in them takes.
#[derive(Debug)]
pub struct Search<'a> {
    /// Each argument, and what is to be found there, in order.
    paths: Vec<(&'a Path, Vec<Place>)>,
    has_directory: bool,
    /// How many of the directories were begun.
    begun: AtomicUsize,
}

/// What was found, and if that is a directory, what is below.
#[derive(Debug)]
struct Place {
    found: Found,
    below: Below,
}

type Below = OnceLock<Vec<Result<PathBuf, Error>>>;

impl From<Found> for Place {
    fn from(found: Found) -> Self {
        Place { found, below: OnceLock::new() }
    }
}

impl<'a> Search<'a> {
    /// Begins to look for files and, recursively, directories: as far as it takes to have some to share.
    pub fn new(paths: &'a [PathBuf]) -> Self {
        let place = |path: &'a PathBuf| (path.as_path(), vec![Place::from(Found::named(path))]);
        let paths = paths.iter().map(place).collect();
        let mut search = Search { paths, has_directory: false, begun: AtomicUsize::new(0) };
        let has_directory = search.directories().next().is_some();
        search.has_directory = has_directory;
        while (1..SHARES).contains(&search.directories().count()) {
            for (_, places) in &mut search.paths {
                let open = |place: Place| match place.found {
                    Found::Directory(path) => list(&path).into_iter().map(Place::from).collect(),
                    _ => vec![place],
                };
                *places = std::mem::take(places).into_iter().flat_map(open).collect();
            }
        }
        search
    }

    fn directories(&self) -> impl Iterator<Item = (&PathBuf, &Below)> {
        let places = self.paths.iter().flat_map(|(_, places)| places);
        places.filter_map(|place| match &place.found {
            Found::Directory(path) => Some((path, &place.below)),
            _ => None,
        })
    }

    /// Looks through directories that no other thread has begun with, until there are none.
    pub fn work(&self) {
        let directories: Vec<_> = self.directories().collect();
        while let Some((path, files)) = directories.get(self.begun.fetch_add(1, Ordering::Relaxed)) {
            files.get_or_init(|| below(Found::Directory(PathBuf::clone(path))).collect());
        }
    }

    /// The set. What cannot be read, and a directory without modules, goes to `complain`; the rest still counts. A
    /// file that is named twice counts once.
    pub fn into_set(self, mut complain: impl FnMut(Error)) -> Set {
        self.work();
        let mut set = Set { has_directory: self.has_directory, ..Set::default() };
        let mut seen = HashSet::new();
        let several = self.paths.len() != 1;
        for (path, places) in self.paths {
            let files = places.into_iter().flat_map(|Place { found, below }| match found {
                Found::File(path) => vec![Ok(path)],
                Found::Error(error) => vec![Err(error)],
                Found::Directory(_) => below.into_inner().unwrap_or_default(),
            });
            let mut is_empty = true;
            for file in files.filter_map(|file| file.map_err(&mut complain).ok()) {
                is_empty = false;
                if !several || seen.insert(file.clone()) {
                    set.files.push(file);
                }
            }
            if is_empty {
                let what = "no modules in this directory (.ko, .ko.gz, .ko.xz, .ko.zst)";
                complain(Error::unusable(path, what));
            }
        }
        set.by_name.reserve(set.files.len());
        for (index, file) in set.files.iter().enumerate() {
            set.by_name.entry(name_of(file)).or_default().push(index);
        }
        for named in set.by_name.values_mut() {
            named.sort_by_key(|index| !set.files.get(*index).is_some_and(|file| is_update(file)));
        }
        set
    }
}

impl Set {
    /// With these files behind the others: those that it has already are left out. They are at hand for what needs them.
    pub fn add(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let there: HashSet<PathBuf> = self.files.iter().cloned().collect();
        for file in files.into_iter().filter(|file| !there.contains(file)) {
            let index = self.files.len();
            self.by_name.entry(name_of(&file)).or_default().push(index);
            self.files.push(file);
        }
    }

    /// The files that are there by now are judged each by itself: none of them is at hand for others.
    pub fn set_apart(&mut self) {
        self.apart = self.files.len();
        self.by_name.clear();
    }

    /// Is a file at hand for others?
    pub fn is_at_hand(&self, index: usize) -> bool {
        index >= self.apart
    }

    /// With the first `len` files only.
    pub fn truncate(&mut self, len: usize) {
        self.files.truncate(len);
        self.by_name.values_mut().for_each(|indices| indices.retain(|index| *index < len));
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Are these the same files in the same order?
    pub fn has_same_files(&self, other: &Set) -> bool {
        self.files == other.files
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
        self.all_named(module).first().copied()
    }

    /// All files whose names give this module, best first.
    pub fn all_named(&self, module: &[u8]) -> &[usize] {
        self.by_name.get(module).map_or(&[], Vec::as_slice)
    }

    /// Is this file preferred to others (SET-2)?
    pub fn is_update(&self, index: usize) -> bool {
        is_update(self.file(index))
    }
}

/// Part `part` of `of`, from 1, of `all` things: neighbours, so that the parts one after the other are the whole.
pub fn share(all: usize, part: usize, of: usize) -> Range<usize> {
    let end = |part: usize| {
        let end = (part as u128).saturating_mul(all as u128).checked_div(of as u128);
        end.and_then(|end| usize::try_from(end).ok()).unwrap_or(0)
    };
    end(part.saturating_sub(1))..end(part)
}

/// `snd_hda_intel` of `.../snd-hda-intel.ko.xz`: the name that kbuild gave the module.
pub fn name_of(file: &Path) -> Vec<u8> {
    let name = file.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    stem_of(name).iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect()
}

/// The name of a file without the ending of module files.
pub fn stem_of(name: &[u8]) -> &[u8] {
    ENDINGS.iter().find_map(|ending| name.strip_suffix(ending.as_bytes())).unwrap_or(name)
}

/// Does a name end as those of module files do?
pub fn module_name(name: &[u8]) -> bool {
    ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// depmod's default search order is `updates` before the rest.
pub fn is_update(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "updates")
}

/// A file by itself, or the module files below a directory, sorted by path, and what cannot be read of it. Each is
/// looked for when it is asked for.
pub fn module_files(path: &Path) -> impl Iterator<Item = Result<PathBuf, Error>> {
    below(Found::named(path))
}

/// The same of what was found already.
fn below(first: Found) -> impl Iterator<Item = Result<PathBuf, Error>> {
    // What was found and not yet looked at, the next one last.
    let mut pending = vec![first];
    std::iter::from_fn(move || {
        loop {
            match pending.pop()? {
                Found::File(path) => return Some(Ok(path)),
                Found::Error(error) => return Some(Err(error)),
                Found::Directory(path) => pending.extend(list(&path).into_iter().rev()),
            }
        }
    })
}

/// What of a directory counts.
#[derive(Debug)]
enum Found {
    /// A module file.
    File(PathBuf),
    Directory(PathBuf),
    Error(Error),
}

impl Found {
    /// What somebody named: a file whatever it is called, or a directory.
    fn named(path: &Path) -> Self {
        if path.is_dir() { Found::Directory(path.to_owned()) } else { Found::File(path.to_owned()) }
    }
}

/// The entries of a directory that count, sorted by name, after what cannot be read of it. Links to files are followed
/// (weak-updates are such), links to directories are not: `build` and `source` lead out of the tree, others may lead in
/// circles.
fn list(directory: &Path) -> Vec<Found> {
    let (mut entries, mut found) = (Vec::new(), Vec::new());
    match fs::read_dir(directory) {
        Ok(all) => {
            for entry in all {
                match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
                    Ok(entry) => entries.push(entry),
                    Err(source) => found.push(Found::Error(Error::read(directory, source))),
                }
            }
        }
        Err(source) => found.push(Found::Error(Error::read(directory, source))),
    }
    // Paths of one directory have the order of their bytes.
    entries.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    found.extend(entries.into_iter().filter_map(|(path, kind)| which(path, kind)));
    found
}

/// What an entry of a directory is, if it counts.
fn which(path: PathBuf, kind: FileType) -> Option<Found> {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    let is_module = module_name(name);
    if kind.is_dir() {
        return Some(Found::Directory(path));
    }
    if !is_module || kind.is_file() {
        return is_module.then_some(Found::File(path));
    }
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Some(Found::File(path)),
        // A link to a directory.
        Ok(metadata) if metadata.is_dir() => None,
        // Reading a pipe or a device might never end.
        Ok(_) => Some(Found::Error(Error::unusable(&path, "neither a file nor a directory"))),
        Err(source) => Some(Found::Error(Error::read(&path, source))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(paths: &[PathBuf]) -> Set {
        Search::new(paths).into_set(|e| panic!("{e}"))
    }

    fn set(names: &[&str]) -> Set {
        collect(&names.iter().map(PathBuf::from).collect::<Vec<_>>())
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
        let found = collect(&[top.path().to_owned()]).files;
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!((found.len(), &found), (8, &sorted), "SET-1");
        let twice = [top.path().to_owned(), top.path().join("b.ko"), top.path().join("a")];
        assert_eq!(collect(&twice).files, found, "SET-1: each once");
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
                let all: Vec<usize> = (1..=of).flat_map(|part| share(set.len(), part, of)).collect();
                assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len} files in {of} parts");
                let sizes: Vec<usize> = (1..=of).map(|part| share(set.len(), part, of).len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}
