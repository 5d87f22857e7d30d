//! Files that were read before and have not changed since: told without reading them, by what the file system says of them.
//!
//! A file is the same while device, inode, size and both times are (ctime(3) changes with every write, and nobody can set it). What
//! could change without it is not noted: a file that was changed just now, in the same tick of the clock; one that somebody
//! may have mapped for writing; one of a file system that others write to as well. A note holds until the system starts
//! again: what was read in this run came from its memory, and no crash has lost it since.

use std::fs::File;

/// How a file was held while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// By a lease: nobody had it open for writing, nor mapped so.
    Leased,
    /// Not at all. Writes through a mapping show in ctime only after the system wrote its pages back.
    Open,
}

/// A file as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The same for the same file, unchanged.
    name: String,
    /// Seconds since it was changed.
    age: u64,
    /// Do its pages get written back at all?
    is_on_disk: bool,
}

impl Seen {
    /// What the name of a note ends with.
    pub(super) const ENDING: &'static str = ".seen";

    /// `None` where nothing tells whether it changes. `what` is what is noted of it.
    #[cfg(target_os = "linux")]
    pub(super) fn of(file: &File, what: &str) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let place = crate::mapped::local(file)?;
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        let told = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        let age = now.checked_sub(u64::try_from(told.ctime()).ok()?)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&boot);
        for number in [told.dev(), told.ino(), told.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [told.mtime(), told.mtime_nsec(), told.ctime(), told.ctime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
        let name = format!("{what}-{}{}", hasher.finalize().to_hex(), Self::ENDING);
        Some(Seen { name, age, is_on_disk: place == crate::mapped::Local::Disk })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_: &File, _: &str) -> Option<Self> {
        None
    }

    /// The name of its note.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Would every change since show?
    pub(super) fn is_settled(&self, held: Held) -> bool {
        /// Ticks are 10 ms at most; clocks of file systems count seconds at most.
        const TICK: u64 = 2;
        /// Pages are written back after half a minute (/proc/sys/vm/dirty_expire_centisecs), with laptop_mode after ten.
        const WRITTEN_BACK: u64 = 3600;
        match held {
            Held::Leased => self.age >= TICK,
            Held::Open => self.is_on_disk && self.age >= WRITTEN_BACK,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_changed_is_another() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a");
        fs::write(&path, "6.9").unwrap();
        let seen = || Seen::of(&File::open(&path).unwrap(), "x").map(|seen| seen.name);
        let Some(first) = seen() else {
            eprintln!("skipped: a_file_that_changed_is_another: no local file system");
            return;
        };
        assert_eq!(seen().as_ref(), Some(&first));
        // A tick of the clock of the file system.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let times = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "6.1").unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(times).unwrap();
        assert_ne!(seen(), Some(first), "same size, same mtime");
        assert_eq!(Seen::of(&File::open("/proc/self/maps").unwrap(), "x"), None, "no file of a disk");
    }

    #[test]
    fn what_was_changed_just_now_is_not_noted() {
        let seen = |age, is_on_disk| Seen { name: String::new(), age, is_on_disk };
        for (age, leased, open) in
            [(0, false, false), (1, false, false), (2, true, false), (3600, true, true)]
        {
            let held = |held| seen(age, true).is_settled(held);
            assert_eq!((held(Held::Leased), held(Held::Open)), (leased, open), "{age} s");
            assert!(!seen(age, false).is_settled(Held::Open), "its pages are never written back");
        }
    }
}
