//! `link --format raw`: one file per region, and `layout.json`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use elf_layout::Region;

use crate::document::{Document, file_name};
use crate::error::Error;
use crate::input::STDIN;
use crate::load::Load;

/// Name of the file that describes the others.
pub const LAYOUT: &str = "layout.json";

/// The files that may be written into the folder `dir`.
pub fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let regions = Region::ALL.into_iter().map(file_name);
    regions.chain([LAYOUT.to_owned()]).map(|name| dir.join(name))
}

/// Writes the regions and `layout.json` into the folder `dir`, which is made
/// if need be. `layout.json` comes last, so that where it stands all is there.
pub fn write(dir: &Path, load: &Load<'_>, document: &Document) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    // A layout.json of before must not describe half-written regions.
    match fs::remove_file(dir.join(LAYOUT)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::write(&dir.join(LAYOUT), e)),
        _ => {}
    }
    for region in load.module.layout.regions() {
        let path = dir.join(file_name(region));
        replace(&path, |file| write_sparse(file, load.module.memory.region(region)))?;
    }
    let path = dir.join(LAYOUT);
    replace(&path, |file| {
        serde_json::to_writer_pretty(&mut *file, document)?;
        file.write_all(b"\n")
    })
}

/// Writes a file under a temporary name and renames it, so that no half-written one is ever found under its own,
/// and of two that are written at once one is there whole. A device or a pipe is written to as it is; `-` is stdout.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    if path == Path::new(STDIN) {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let written = stdout.and_then(|stdout| write(&mut File::from(stdout)));
        return written.map_err(|e| Error::write(Path::new("stdout"), e));
    }
    let name = path.file_name().ok_or_else(|| Error::unusable(path, "not a file name"))?;
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let written = OpenOptions::new().write(true).open(path).and_then(|mut file| write(&mut file));
        return written.map_err(|e| Error::write(path, e));
    }
    let (temporary, mut file) = temporary(path, name).map_err(|e| Error::write(path, e))?;
    let written = write(&mut file).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::write(path, e)
    })
}

/// A new file beside `path`: never one that is there already, nor what a link of somebody else leads to.
fn temporary(path: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    const TRIES: u32 = 100;
    let mut tries = 0u32..TRIES;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.{}.tmp", std::process::id(), tries.next().unwrap_or(TRIES)));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !tries.is_empty() => {}
            Err(e) => return Err(e),
            Ok(file) => return Ok((temporary, file)),
        }
    }
}

/// Zero pages become holes: a module may have hundreds of megabytes of `.bss`.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut at = 0u64;
    for page in bytes.chunks(PAGE) {
        if page.iter().any(|b| *b != 0) {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(page)?;
        }
        at = at.saturating_add(page.len() as u64);
    }
    file.set_len(at)
}
