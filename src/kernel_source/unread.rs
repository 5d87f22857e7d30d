//! What a system does not show, why, and how it does.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A source that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// What it would have told.
    pub what: &'static str,
    /// The file, if it is one.
    pub path: PathBuf,
    /// Why it tells nothing.
    pub why: String,
    /// What makes it readable; empty if nothing is known to.
    pub way: &'static str,
}

impl Unread {
    /// Of a file that the system calls do not let read.
    pub fn new(what: &'static str, path: PathBuf, why: io::Error) -> Self {
        let way = if why.kind() == ErrorKind::PermissionDenied { "run kmodld with sudo" } else { "" };
        Unread { what, path, why: reason(&why), way }
    }

    /// Of a file that says nothing of use.
    pub fn because(what: &'static str, path: PathBuf, why: impl Into<String>, way: &'static str) -> Self {
        Unread { what, path, why: why.into(), way }
    }
}

/// The words of the system, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => String::from("permission denied"),
        ErrorKind::NotFound => String::from("there is no such file"),
        _ => error.to_string(),
    }
}

/// Why a file cannot be opened; `None` if it can.
pub fn cannot_read(path: &Path) -> Option<io::Error> {
    File::open(path).err()
}
