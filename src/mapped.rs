//! Large files as they lie in the system's memory, without a copy. The one place of kmodld that has `unsafe`: its other
//! crates forbid it, and this one denies it but for three functions here.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::Mmap;

/// The bytes of a file that nobody can write to or truncate as long as this lives.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    /// What the lease is on.
    leased: File,
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Mapped {
    /// Maps a file and brings it in. The file itself comes back where that cannot be done safely: it is to be read instead.
    pub fn new(file: File) -> Result<Mapped, File> {
        Mapped::with(file, bring_in)
    }

    /// As [`Mapped::new`], for a file that is little looked at: what the system has in memory is not gone through. Should it drop
    /// a page and the disk then fail to give it back, the process ends with a signal.
    pub fn loosely(file: File) -> Result<Mapped, File> {
        Mapped::with(file, |map| if is_resident(map) { Ok(()) } else { bring_in(map) })
    }

    /// Goes through all of it, as [`Mapped::new`] does.
    pub fn bring_in(&self) -> io::Result<()> {
        bring_in(&self.map)
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.leased
    }

    #[allow(unsafe_code)]
    fn with(file: File, bring_in: impl FnOnce(&Mmap) -> io::Result<()>) -> Result<Mapped, File> {
        if local(&file).is_none() || !lease(&file) {
            return Err(file);
        }
        // SAFETY: the bytes of a mapping must not change, nor may its pages go, while there are references to them.
        // Whoever could do that has the file open for writing, maps it so, or truncates it by name. Where a read lease is
        // given there is nobody who has; while it is held, the kernel makes whoever comes wait (with O_NONBLOCK it
        // refuses), and on these file systems all come to this kernel. A lease lasts as long as the open file does, which
        // both fields keep, and for at most /proc/sys/fs/lease-break-time (45 s) after somebody came; SECURITY.md tells
        // what follows. Nothing here writes to the mapping.
        let map = unsafe { Mmap::map(&file) };
        match map {
            Ok(map) if bring_in(&map).is_ok() => Ok(Mapped { map, leased: file }),
            _ => Err(file),
        }
    }
}

/// Brings all of it in. What the disk fails to give is found here, and then by read(), which tells why: no signal.
#[cfg(target_os = "linux")]
fn bring_in(map: &Mmap) -> io::Result<()> {
    if is_resident(map) {
        // A page fault maps what lies around it, 64 KiB: half of what MADV_POPULATE_READ takes.
        map.iter().step_by(64 << 10).for_each(|byte| {
            std::hint::black_box(*byte);
        });
        return Ok(());
    }
    // Piece by piece: other threads that map memory wait for each.
    const PIECE: usize = 256 << 10;
    let piece = |at: usize| {
        let len = map.len().saturating_sub(at).min(PIECE);
        map.advise_range(memmap2::Advice::PopulateRead, at, len)
    };
    (0..map.len()).step_by(PIECE).try_for_each(piece)
}

/// Is all of it in memory already?
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn is_resident(map: &Mmap) -> bool {
    // One byte for each page; there are none smaller.
    let mut resident = vec![1u8; map.len().div_ceil(4096)];
    // SAFETY: mincore(2) reads nothing of the mapping, and writes a byte for each page of `map`, for which there is room.
    let known =
        unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), resident.as_mut_ptr()) } == 0;
    known && resident.iter().all(|page| page & 1 != 0)
}

/// A file system that only this kernel writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// On a disk.
    Disk,
    /// In memory.
    Memory,
}

/// Which one a file lies on, if on such a one. The leases of others bind neither a server nor who changes the layers below
/// an overlay.
#[cfg(target_os = "linux")]
pub(crate) fn local(file: &File) -> Option<Local> {
    use libc::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC};
    let disks = [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, XFS_SUPER_MAGIC];
    let system = rustix::fs::fstatfs(file).ok()?.f_type as u64;
    if disks.iter().any(|magic| *magic as u64 == system) {
        return Some(Local::Disk);
    }
    (system == TMPFS_MAGIC as u64).then_some(Local::Memory)
}

/// Takes a read lease, `F_SETLEASE` in fcntl(2). It is not given for what is open for writing, nor for the file of
/// somebody else without CAP_LEASE.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn lease(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    /// From fcntl.h; libc has it for some systems only.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open as long as `file` is, and these commands take a number: they touch no memory of the process.
    // The signal that tells a holder of somebody who waits is SIGIO otherwise, which kills; SIGURG is ignored.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    }
}

// Leases are Linux's.
#[cfg(not(target_os = "linux"))]
pub(crate) fn local(_: &File) -> Option<Local> {
    None
}

#[cfg(not(target_os = "linux"))]
fn is_resident(_: &Mmap) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn lease(_: &File) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn bring_in(_: &Mmap) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::ErrorKind;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    static CONTENT: [u8; 700_001] = [7; 700_001];

    /// A file in a folder, and itself mapped; `None`, and that the test is skipped, where there are no leases.
    fn mapped(dir: &tempfile::TempDir, test: &str) -> Option<(PathBuf, Mapped)> {
        let path = dir.path().join("module.ko");
        let mapped = fs::write(&path, CONTENT).and_then(|()| File::open(&path)).ok().map(Mapped::new);
        let Some(Ok(mapped)) = mapped else {
            eprintln!("skipped: {test}: no read lease on a file of {}", dir.path().display());
            return None;
        };
        Some((path, mapped))
    }

    #[test]
    fn nobody_writes_to_what_is_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let Some((path, mapped)) = mapped(&dir, "nobody_writes_to_what_is_mapped") else { return };
        assert!(*mapped == CONTENT);
        let now = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(now.unwrap_err().kind(), ErrorKind::WouldBlock, "a writer that does not wait");
        let (done, truncated) = channel();
        let waits = std::thread::spawn(move || done.send(File::create(&path)).unwrap());
        assert!(truncated.recv_timeout(Duration::from_millis(200)).is_err(), "truncated while it is mapped");
        assert!(*mapped == CONTENT);
        drop(mapped);
        // It waits no longer than this: the lease ends with what holds it.
        assert!(truncated.recv_timeout(Duration::from_secs(20)).unwrap().is_ok());
        waits.join().unwrap();
    }

    #[test]
    fn what_is_open_for_writing_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let Some((path, mapped)) = mapped(&dir, "what_is_open_for_writing_is_not_mapped") else { return };
        drop(mapped);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(Mapped::new(File::open(&path).unwrap()).is_err());
        drop(writer);
        assert!(Mapped::new(File::open(&path).unwrap()).is_ok());
    }

    /// Only a mapping that is written to is left of its descriptor.
    #[test]
    fn what_is_mapped_for_writing_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let Some((path, mapped)) = mapped(&dir, "what_is_mapped_for_writing_is_not_mapped") else { return };
        drop(mapped);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: nothing refers to the bytes of this mapping.
        let writer = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
        drop(file);
        assert!(Mapped::new(File::open(&path).unwrap()).is_err());
        drop(writer);
        assert!(Mapped::new(File::open(&path).unwrap()).is_ok());
    }

    #[test]
    fn no_other_file_has_unsafe_code() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pending: Vec<PathBuf> =
            ["src", "crates", "fuzz", "benches", "tests"].map(|dir| root.join(dir)).into();
        let mut crates = 0;
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            // A C caller hands over addresses (crates/capi); the macros of pyo3 write unsafe code (crates/python).
            let explained = ["src/mapped.rs", "crates/capi/src/lib.rs", "crates/python/src/lib.rs"];
            let explained = explained.map(|file| root.join(file));
            if path.extension().is_none_or(|extension| extension != "rs") || explained.contains(&path) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let allows =
                ["allow(unsafe_code)", "expect(unsafe_code)"].iter().any(|allow| text.contains(allow));
            assert!(!allows, "{} allows unsafe code", path.display());
            let begins_a_crate = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
            if begins_a_crate && path != root.join("src/lib.rs") {
                crates += 1;
                assert!(text.contains("#![forbid(unsafe_code)]"), "{} does not forbid it", path.display());
            }
        }
        assert!(crates >= 8, "{crates} crates were found");
    }

    #[test]
    fn an_empty_file_and_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Mapped::new(File::open(dir.path()).unwrap()).is_err(), "a folder");
        assert!(Mapped::new(File::open("/proc/self/maps").unwrap()).is_err(), "not a local file system");
        let path = dir.path().join("empty");
        fs::write(&path, b"").unwrap();
        // Either is fine, and has no bytes.
        assert!(Mapped::new(File::open(&path).unwrap()).map_or(true, |mapped| mapped.is_empty()));
    }
}
