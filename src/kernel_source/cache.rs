//! Kernel images and Module.symvers that were read once, kept as SPECs in a folder of the user's, and machines that were booted once.
//!
//! A file is known again by what it holds: the name of its SPEC has a hash of all its bytes ([`Key`]). So a copy of it is known too,
//! and a file that was changed is not, whatever its name, size and times are. The hash of a file that has not changed since it was
//! hashed is noted (`kernel_source::seen`), and that the checksums of a SPEC were right. A SPEC is written under another name and then
//! renamed, so several processes do no harm to each other. What is not as it should be is as good as not there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kernel::Records;

use super::seen::{Held, Seen};
use super::spec_file::{self, Checksums, Packing};
use crate::error::Error;
use crate::mapped::Mapped;

/// The folder holds no more files and bytes than this, of each ending.
const FILES_MAX: usize = 32;
/// Notes: two for a file and its SPEC, of each time that the system started.
const NOTES_MAX: usize = 256;
const BYTES_MAX: u64 = 256 << 20;
/// SPECs of the cache end so.
const SPEC: &str = ".spec";
/// Machines.
const MACHINE: &str = ".machine";
/// What is being written.
const SCRATCH: &str = ".tmp";
/// A SPEC that was used within this time counts as just used.
const JUST_USED: Duration = Duration::from_secs(3600);

/// What a file is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel image.
    Image,
    /// A Module.symvers.
    Symvers,
    /// A kernel image, which is booted.
    Machine,
}

impl Kind {
    /// What the names of files end with that hold what came of it.
    fn ending(self) -> &'static str {
        match self {
            Kind::Image | Kind::Symvers => SPEC,
            Kind::Machine => MACHINE,
        }
    }
}

/// All bytes of a file and what it is read as, by a cryptographic hash (BLAKE3): nobody can make a file that is taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: String,
    ending: &'static str,
}

impl Key {
    /// Of bytes at hand.
    pub fn of(kind: Kind, bytes: &[u8]) -> Self {
        Key::new(kind, &blake3::hash(bytes))
    }

    /// The same file with `more`, which changes what comes of it.
    #[must_use]
    pub fn with(self, more: &[u8]) -> Self {
        let (kind, _) = self.name.split_once('-').unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        // One hash for the file and one for the rest, so that no two pairs are the same bytes.
        hasher.update(self.name.as_bytes()).update(blake3::hash(more).as_bytes());
        Key { name: format!("{kind}-{}", hasher.finalize().to_hex()), ending: self.ending }
    }

    fn new(kind: Kind, hash: &blake3::Hash) -> Self {
        let name = match kind {
            Kind::Image => "image",
            Kind::Symvers => "symvers",
            Kind::Machine => "machine",
        };
        Key { name: format!("{name}-{}", hash.to_hex()), ending: kind.ending() }
    }
}

fn parse_checked(bytes: impl AsRef<[u8]> + Send + 'static) -> Option<Records> {
    spec_file::parse_shared(&Bytes::from_owner(bytes), Checksums::Checked).ok()
}

/// A file that can be read again, unlike a pipe.
fn open_plain(path: &Path) -> Option<File> {
    let file = path.is_file().then(|| File::open(path).ok())??;
    file.metadata().ok()?.is_file().then_some(file)
}

/// The hash of all bytes of a file, and how it was held meanwhile.
fn hash_of(file: File) -> Option<(blake3::Hash, Held)> {
    // A mapping saves the copy; not everybody can have one of every file.
    match Mapped::new(file) {
        Ok(map) => Some((blake3::hash(&map), Held::Leased)),
        Err(file) => Some((blake3::Hasher::new().update_reader(file).ok()?.finalize(), Held::Open)),
    }
}

/// A folder with SPECs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    /// What tells programs apart that may make different SPECs of one file.
    program: String,
}

impl Cache {
    /// In this folder, which need not be there yet. `program` is part of the names of files.
    pub fn new(folder: PathBuf, program: &str) -> Self {
        let program = program.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        Cache { folder, program }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a file told, if it was read before.
    pub fn get(&self, key: &Key) -> Option<Records> {
        let path = self.path(key);
        self.kept(&path, || match Mapped::loosely(File::open(&path).ok()?) {
            Ok(map) => self.records_in(map),
            Err(_) => parse_checked(crate::input::read(&path).ok()?),
        })
    }

    /// The records of a mapped SPEC. Its checksums are looked at once.
    fn records_in(&self, map: Mapped) -> Option<Records> {
        // Under the lease nobody changes it any more.
        let seen = Seen::of(map.file(), "right");
        if seen.as_ref().is_some_and(|seen| self.noted(seen).is_some()) {
            return spec_file::parse_shared(&Bytes::from_owner(map), Checksums::Known).ok();
        }
        map.bring_in().ok()?;
        let records = parse_checked(map)?;
        seen.iter().filter(|seen| seen.is_settled(Held::Leased)).for_each(|seen| self.note(seen, "right"));
        Some(records)
    }

    /// What `take` makes of the bytes that were kept, if they are there as they were given ([`Cache::put_bytes`]). Where `take` makes
    /// nothing of them, they are removed.
    pub fn get_bytes<T>(&self, key: &Key, take: impl FnOnce(Bytes) -> Option<T>) -> Option<T> {
        self.taken(key, |mut bytes| {
            let sum = (bytes.len() >= blake3::OUT_LEN).then(|| bytes.split_to(blake3::OUT_LEN))?;
            (*self.sum(key, &bytes).as_bytes() == *sum).then(|| take(bytes))?
        })
    }

    fn taken<T>(&self, key: &Key, take: impl FnOnce(Bytes) -> Option<T>) -> Option<T> {
        let path = self.path(key);
        // What is mapped stays so as long as its tables are in use. It is leased, but nobody waits for that: no file of a cache
        // is ever opened to be written again.
        self.kept(&path, || take(Bytes::from_owner(crate::input::read(&path).ok()?)))
    }

    /// What `take` makes of a file that is kept; one of which it makes nothing is removed.
    fn kept<T>(&self, path: &Path, take: impl FnOnce() -> Option<T>) -> Option<T> {
        if !is_mine(&self.folder) || !is_mine(path) {
            return None;
        }
        let taken = take();
        if taken.is_some() {
            // The one that was used last goes last.
            touch(path);
        } else {
            let _ = fs::remove_file(path);
        }
        taken
    }

    /// The key of a file, which is not kept in memory, and not read if its hash was noted and it has not changed. `None` if it is
    /// no plain file that can be read.
    pub fn key_of_file(&self, kind: Kind, path: &Path) -> Option<Key> {
        let file = open_plain(path)?;
        let Some(seen) = Seen::of(&file, "hash") else { return Some(Key::new(kind, &hash_of(file)?.0)) };
        if let Some(hash) = self.noted(&seen).and_then(|hash| blake3::Hash::from_hex(hash).ok()) {
            return Some(Key::new(kind, &hash));
        }
        let again = file.try_clone().ok();
        let (hash, held) = hash_of(file)?;
        // Only if it was the same all the time.
        let is_same =
            || again.and_then(|file| Seen::of(&file, "hash")).is_some_and(|now| now.name() == seen.name());
        if seen.is_settled(held) && is_same() {
            self.note(&seen, &hash.to_hex());
        }
        Some(Key::new(kind, &hash))
    }

    /// What was noted of a file that is as it was.
    fn noted(&self, seen: &Seen) -> Option<String> {
        let path = self.folder.join(seen.name());
        let is_ours = is_mine(&self.folder) && is_mine(&path);
        let text = is_ours.then(|| fs::read_to_string(path).ok())??;
        text.strip_suffix('\n').map(String::from)
    }

    fn note(&self, seen: &Seen, what: &str) {
        let _ = self.write(seen.name(), |file| {
            writeln!(file, "{what}")?;
            file.flush()
        });
    }

    /// Keeps what a file told, if the folder lets. A cache that cannot be written is none.
    pub fn put(&self, key: &Key, records: &Records) {
        let _ = self.write(&self.name(key), |file| spec_file::write_as(Packing::Plain, records, file));
    }

    /// Keeps bytes, with a checksum that no damage leaves right.
    pub fn put_bytes(&self, key: &Key, bytes: &[u8]) {
        let _ = self.write(&self.name(key), |file| {
            file.write_all(self.sum(key, bytes).as_bytes())?;
            file.write_all(bytes)?;
            file.flush()
        });
    }

    /// The checksum of bytes that are kept, with the name they are kept by: so those of another file are not taken for them.
    fn sum(&self, key: &Key, bytes: &[u8]) -> blake3::Hash {
        blake3::Hasher::new().update(self.name(key).as_bytes()).update(&[0]).update(bytes).finalize()
    }

    fn name(&self, key: &Key) -> String {
        format!("{}-{}{}", key.name, self.program, key.ending)
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(self.name(key))
    }

    /// What the file at `path` tells: `restore` makes it of the SPEC, if it was read before; else it is read now by `read`, and
    /// kept as what `keep` makes of it.
    pub fn through<T>(
        &self,
        kind: Kind,
        path: &Path,
        restore: impl FnOnce(&Records) -> Option<T>,
        read: impl FnOnce(&[u8]) -> Result<T, Error>,
        keep: impl FnOnce(&T) -> Records,
    ) -> Result<T, Error> {
        let Some(key) = self.key_of_file(kind, path) else { return read(&crate::input::read(path)?) };
        if let Some(told) = self.get(&key).and_then(|records| restore(&records)) {
            return Ok(told);
        }
        let bytes = crate::input::read(path)?;
        let told = read(&bytes)?;
        // By the bytes that were read: the file may be another by now.
        self.put(&Key::of(kind, &bytes), &keep(&told));
        Ok(told)
    }

    fn write(
        &self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        make_folder(&self.folder)?;
        if !is_mine(&self.folder) {
            return Ok(());
        }
        let scratch = self.folder.join(format!("{}.{name}{SCRATCH}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&scratch)?;
        let written = content(&mut BufWriter::new(file));
        let renamed = written.and_then(|()| fs::rename(&scratch, self.folder.join(name)));
        if renamed.is_err() {
            let _ = fs::remove_file(&scratch);
        }
        self.shrink();
        renamed
    }

    /// Its files of this ending and what their writers left, the newest first, with their sizes.
    fn files(&self, ending: &str) -> Vec<(SystemTime, PathBuf, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.strip_suffix(SCRATCH).unwrap_or(&name).ends_with(ending)
            })
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?, entry.path(), metadata.len()))
            })
            .collect();
        files.sort();
        files.reverse();
        files
    }

    /// Removes the oldest until the rest is within bounds.
    fn shrink(&self) {
        for (ending, most) in [(SPEC, FILES_MAX), (MACHINE, FILES_MAX), (Seen::ENDING, NOTES_MAX)] {
            let mut sum = 0u64;
            for ((_, path, size), count) in self.files(ending).into_iter().zip(1usize..) {
                sum = sum.saturating_add(size);
                if count > most || sum > BYTES_MAX {
                    let _ = fs::remove_file(path);
                }
            }
        }
    }

    /// Removes all; how many there were, without the notes.
    pub fn clear(&self) -> Result<usize, Error> {
        let files = [self.files(SPEC), self.files(MACHINE)].concat();
        for (_, path, _) in files.iter().chain(&self.files(Seen::ENDING)) {
            fs::remove_file(path).map_err(|e| Error::write(path, e))?;
        }
        Ok(files.len())
    }
}

/// Does a file or folder belong to the user who runs this, and may nobody else write it? What others put there is not read.
#[cfg(target_os = "linux")]
fn is_mine(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|m| m.uid() == me && m.mode() & 0o022 == 0 && !m.is_symlink())
}

#[cfg(not(target_os = "linux"))]
fn is_mine(path: &Path) -> bool {
    path.exists()
}

/// Sets the time of the last change to now, without opening the file: others may have it mapped. Not each time: what is known
/// of the file ends with it.
#[cfg(target_os = "linux")]
fn touch(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
    let last = fs::metadata(path).and_then(|told| told.modified()).ok();
    if last.and_then(|last| last.elapsed().ok()).is_some_and(|since| since < JUST_USED) {
        return;
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty());
}

#[cfg(not(target_os = "linux"))]
fn touch(_: &Path) {}

/// For its owner alone.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn records(release: &str) -> Records {
        let mut records = Records::default();
        records.set("release", release);
        records
    }

    fn key(bytes: &[u8]) -> Key {
        Key::of(Kind::Image, bytes)
    }

    #[test]
    fn what_goes_with_a_file_is_part_of_its_key() {
        let machine = |bytes: &[u8]| Key::of(Kind::Machine, bytes);
        let keys = [
            machine(b"an image"),
            machine(b"an image").with(b""),
            machine(b"an image").with(b"a"),
            machine(b"an image").with(b"b"),
            machine(b"an imag").with(b"ea"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(one.name.starts_with("machine-"), "{one:?}");
            assert_eq!(keys.iter().position(|other| other == one), Some(at), "{one:?}");
        }
    }

    #[test]
    fn what_was_read_once_is_there_again() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("a/kmodld"), "1.0/x y");
        let key = key(b"an image");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &records("6.9"));
        assert_eq!(cache.get(&key), Some(records("6.9")));
        let file = cache.path(&key);
        assert!(file.display().to_string().ends_with("-1.0xy.spec"), "{}", file.display());
        let mode = fs::metadata(cache.folder()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(Cache::new(cache.folder().to_owned(), "other").get(&key), None, "another program");
        assert_eq!(cache.get(&Key::of(Kind::Symvers, b"an image")), None, "read as something else");
        // Damaged: as if it were not there, and no longer there.
        fs::write(&file, "rubbish").unwrap();
        assert_eq!((cache.get(&key), file.exists()), (None, false));
    }

    #[test]
    fn a_file_is_known_by_what_it_holds() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let path = |name: &str| top.path().join(name);
        let read = |path: &Path| {
            let mut was_read = false;
            let told = cache.through(
                Kind::Image,
                path,
                |records| records.text("release"),
                |bytes| {
                    was_read = true;
                    Ok(String::from_utf8_lossy(bytes).into_owned())
                },
                |told| records(told),
            );
            told.map(|told| (told, was_read)).map_err(|e| e.to_string())
        };
        fs::write(path("a"), "6.9").unwrap();
        assert_eq!(read(&path("a")), Ok(("6.9".into(), true)));
        assert_eq!(read(&path("a")), Ok(("6.9".into(), false)));
        fs::copy(path("a"), path("copy")).unwrap();
        assert_eq!(read(&path("copy")), Ok(("6.9".into(), false)), "a copy");
        // Of the same size and times.
        let times = fs::metadata(path("a")).unwrap().modified().unwrap();
        let file = File::options().write(true).open(path("a")).unwrap();
        std::io::Write::write_all(&mut &file, b"6.1").unwrap();
        file.set_modified(times).unwrap();
        assert_eq!(read(&path("a")), Ok(("6.1".into(), true)));
        assert!(read(&path("none")).unwrap_err().contains("none"));
        assert_eq!(cache.key_of_file(Kind::Image, top.path()), None, "a folder");
        assert_eq!(cache.key_of_file(Kind::Image, &path("a")), Some(key(b"6.1")));
    }

    #[test]
    fn a_file_is_hashed_again_only_if_it_changed() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let path = top.path().join("a");
        fs::write(&path, "6.9").unwrap();
        let key_of = || cache.key_of_file(Kind::Image, &path);
        let notes = || cache.files(Seen::ENDING).len();
        assert_eq!((key_of(), notes()), (Some(key(b"6.9")), 0), "it was changed just now");
        std::thread::sleep(Duration::from_millis(2100));
        if Seen::of(&File::open(&path).unwrap(), "hash").is_none()
            || Mapped::new(File::open(&path).unwrap()).is_err()
        {
            eprintln!("skipped: a_file_is_hashed_again_only_if_it_changed: no leases here");
            return;
        }
        assert_eq!((key_of(), notes()), (Some(key(b"6.9")), 1));
        // What was noted is what counts.
        let (_, note, _) = cache.files(Seen::ENDING).remove(0);
        fs::write(&note, format!("{}\n", blake3::hash(b"6.1").to_hex())).unwrap();
        assert_eq!(key_of(), Some(key(b"6.1")));
        fs::write(&note, "rubbish").unwrap();
        assert_eq!(key_of(), Some(key(b"6.9")), "a note that is none");
        fs::write(&path, "6.2").unwrap();
        assert_eq!(key_of(), Some(key(b"6.2")), "of the same size");
        cache.clear().unwrap();
        assert_eq!(notes(), 0);
    }

    #[test]
    fn checksums_are_looked_at_again_if_the_spec_changed() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let key = key(b"an image");
        cache.put(&key, &records("6.9"));
        std::thread::sleep(Duration::from_millis(2100));
        for _ in 0..2 {
            assert_eq!(cache.get(&key), Some(records("6.9")));
        }
        if cache.files(Seen::ENDING).len() != 1 {
            eprintln!("skipped: checksums_are_looked_at_again_if_the_spec_changed: no leases here");
            return;
        }
        let path = cache.path(&key);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!((cache.get(&key), path.exists()), (None, false), "damaged since");
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let key = key(b"an image");
        cache.put(&key, &records("6.9"));
        let set = |mode| fs::set_permissions(cache.folder(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o777);
        assert_eq!(cache.get(&key), None);
        set(0o700);
        assert_eq!(cache.get(&key), Some(records("6.9")));
    }

    #[test]
    fn it_has_bounds_and_can_be_cleared() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().to_owned(), "x");
        let machine = Key::of(Kind::Machine, b"an image");
        cache.put_bytes(&machine, b"a machine");
        for n in 0..FILES_MAX + 20 {
            cache.write(&format!("{n}.spec"), |_| Ok(())).unwrap();
        }
        assert_eq!((cache.files(SPEC).len(), cache.files(MACHINE).len()), (FILES_MAX, 1));
        fs::write(top.path().join("not ours"), "").unwrap();
        assert_eq!(cache.clear().unwrap(), FILES_MAX + 1);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn bytes_that_are_not_as_they_were_are_not_there() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().to_owned(), "x");
        let key = Key::of(Kind::Machine, b"an image");
        let get = || cache.get_bytes(&key, |bytes| Some(bytes.to_vec()));
        let bytes: Vec<u8> = (0..200u8).collect();
        cache.put_bytes(&key, &bytes);
        assert_eq!(get().as_deref(), Some(&*bytes));
        let whole = fs::read(cache.path(&key)).unwrap();
        let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            other
        });
        for damaged in cut.chain(flipped).chain([[&*whole, b"x"].concat()]) {
            fs::write(cache.path(&key), &damaged).unwrap();
            assert_eq!(get(), None);
            assert!(!cache.path(&key).exists(), "and is removed");
        }
        let other = Key::of(Kind::Machine, b"another image");
        cache.put_bytes(&other, &bytes);
        fs::rename(cache.path(&other), cache.path(&key)).unwrap();
        assert_eq!(get(), None, "of another image");
        cache.put_bytes(&key, &bytes);
        assert_eq!(cache.get_bytes(&key, |_| None::<()>), None, "of no use");
        assert_eq!(get(), None);
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().to_owned(), "x");
        let key = key(b"an image");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (cache, key) = (&cache, &key);
                scope.spawn(move || {
                    for _ in 0..20 {
                        cache.put(key, &records(&"6".repeat(n + 1)));
                        let got = cache.get(key);
                        assert!(
                            got.is_none_or(|got| got.text("release").is_some_and(|r| r.starts_with('6')))
                        );
                    }
                });
            }
        });
        assert!(cache.get(&key).is_some());
    }
}
