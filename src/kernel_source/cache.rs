//! Kernel images that were read once, kept as SPECs in a folder of the user's.
//!
//! A file is known again by its device, inode, size and times: the time of its last change nobody can set back, so the same
//! of all is the same content. A SPEC is written under another name and then renamed, so several processes do no harm to
//! each other. What is not as it should be is as good as not there.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kernel::Records;

use super::spec_file;
use crate::error::Error;

/// The folder holds no more files and bytes than this.
const FILES_MAX: usize = 16;
const BYTES_MAX: u64 = 256 << 20;
/// A file that was changed so short ago may be changed again within the same tick of its clock.
const SETTLED: Duration = Duration::from_secs(2);
/// SPECs of the cache end so.
const ENDING: &str = ".spec";
/// Little time rather than little size.
const LEVEL: i32 = 1;

/// A folder with SPECs of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    /// What tells programs apart that may make different SPECs of one image.
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

    /// What an image told, if it was read before.
    pub fn get(&self, image: &Path) -> Option<Records> {
        let path = self.folder.join(self.name(image)?);
        if !is_mine(&self.folder) || !is_mine(&path) {
            return None;
        }
        let bytes = crate::input::read(&path).ok()?;
        let parsed = spec_file::parse(&bytes);
        // A file that is mapped is leased: nobody may wait for that.
        drop(bytes);
        match parsed {
            Ok(records) => {
                // The one that was used last goes last.
                touch(&path);
                Some(records)
            }
            Err(_) => {
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps what an image told, if the folder lets; `before` is what [`Cache::name`] said before it was read. A cache that
    /// cannot be written is none.
    pub fn put(&self, image: &Path, before: Option<String>, records: &Records) {
        if let Some(name) = self.name(image).filter(|name| before.as_ref() == Some(name)) {
            let _ = self.write(&name, records);
        }
    }

    fn write(&self, name: &str, records: &Records) -> std::io::Result<()> {
        make_folder(&self.folder)?;
        if !is_mine(&self.folder) {
            return Ok(());
        }
        let scratch = self.folder.join(format!("{}.{name}.tmp", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&scratch)?;
        let written = spec_file::write_at(LEVEL, records, &mut BufWriter::new(file));
        let renamed = written.and_then(|()| fs::rename(&scratch, self.folder.join(name)));
        if renamed.is_err() {
            let _ = fs::remove_file(&scratch);
        }
        self.shrink();
        renamed
    }

    /// The name of the SPEC of an image: what the file is. `None` if it is no file, or was changed this very moment.
    pub fn name(&self, image: &Path) -> Option<String> {
        let metadata = fs::metadata(image).ok().filter(fs::Metadata::is_file)?;
        let identity = identity(&metadata)?;
        Some(format!("{identity}-{}{ENDING}", self.program))
    }

    /// Its SPECs and what writers left, the newest first, with their sizes.
    fn files(&self) -> Vec<(SystemTime, PathBuf, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.ends_with(ENDING) || name.ends_with(".spec.tmp")
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
        let mut sum = 0u64;
        for ((_, path, size), count) in self.files().into_iter().zip(1usize..) {
            sum = sum.saturating_add(size);
            if count > FILES_MAX || sum > BYTES_MAX {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes all; how many there were.
    pub fn clear(&self) -> Result<usize, Error> {
        let files = self.files();
        for (_, path, _) in &files {
            fs::remove_file(path).map_err(|e| Error::write(path, e))?;
        }
        Ok(files.len())
    }
}

/// Device, inode, size and times of a file that has settled.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds = |seconds: i64, rest: i64| {
        let seconds = u64::try_from(seconds).ok()?;
        Duration::from_secs(seconds).checked_add(Duration::from_nanos(u64::try_from(rest).ok()?))
    };
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    if now.checked_sub(changed)? < SETTLED {
        return None;
    }
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec())?;
    Some(format!(
        "{:x}-{:x}-{:x}-{:x}-{:x}",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        modified.as_nanos(),
        changed.as_nanos()
    ))
}

/// Where files have no such numbers, nothing is kept.
#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<String> {
    None
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

/// Sets the time of the last change to now, without opening the file: others may have it mapped.
#[cfg(target_os = "linux")]
fn touch(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
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

    /// A file that was last changed long enough ago: the kernel's own.
    fn image() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn what_was_read_once_is_there_again() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("a/kmodld"), "1.0/x y");
        let image = image();
        let name = cache.name(&image);
        assert_eq!(cache.get(&image), None);
        cache.put(&image, name.clone(), &records("6.9"));
        assert_eq!(cache.get(&image), Some(records("6.9")));
        assert!(name.as_ref().unwrap().ends_with("-1.0xy.spec"), "{name:?}");
        let mode = fs::metadata(cache.folder()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(Cache::new(cache.folder().to_owned(), "other").get(&image), None, "another program");
        // Changed while it was read.
        cache.put(&image, Some(String::from("another")), &records("6.1"));
        assert_eq!(cache.get(&image), Some(records("6.9")));
        // Damaged: as if it were not there, and no longer there.
        let file = cache.folder().join(name.unwrap());
        fs::write(&file, "rubbish").unwrap();
        assert_eq!((cache.get(&image), file.exists()), (None, false));
    }

    #[test]
    fn a_file_that_changes_is_not_kept() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let image = top.path().join("image");
        fs::write(&image, "new").unwrap();
        assert_eq!(cache.name(&image), None, "just written");
        assert_eq!(cache.name(top.path()), None, "a folder");
        assert_eq!(cache.name(&top.path().join("none")), None);
        cache.put(&image, None, &records("6.9"));
        assert!(!cache.folder().exists());
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().join("kmodld"), "x");
        let image = image();
        cache.put(&image, cache.name(&image), &records("6.9"));
        let set = |mode| fs::set_permissions(cache.folder(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o777);
        assert_eq!(cache.get(&image), None);
        set(0o700);
        assert_eq!(cache.get(&image), Some(records("6.9")));
    }

    #[test]
    fn it_has_bounds_and_can_be_cleared() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().to_owned(), "x");
        for n in 0..40 {
            cache.write(&format!("{n}.spec"), &records("6.9")).unwrap();
        }
        assert_eq!(cache.files().len(), FILES_MAX);
        fs::write(top.path().join("not ours"), "").unwrap();
        assert_eq!(cache.clear().unwrap(), FILES_MAX);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let top = tempfile::tempdir().unwrap();
        let cache = Cache::new(top.path().to_owned(), "x");
        let image = image();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (cache, image) = (&cache, &image);
                scope.spawn(move || {
                    for _ in 0..20 {
                        cache.put(image, cache.name(image), &records(&"6".repeat(n + 1)));
                        let got = cache.get(image);
                        assert!(
                            got.is_none_or(|got| got.text("release").is_some_and(|r| r.starts_with('6')))
                        );
                    }
                });
            }
        });
        assert!(cache.get(&image).is_some());
    }
}
