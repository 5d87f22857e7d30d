//! Texts and names, as kmod reads them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::Error;

/// No table of a distribution is a tenth as large.
const TEXT_MAX: u64 = 64 << 20;

/// A text, if there is such a file.
pub fn read_text(path: &Path) -> Result<Option<String>, Error> {
    let failed = |e| Error::read(path, e);
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(TEXT_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > TEXT_MAX {
        return Err(Error::unusable(path, "larger than 64 MiB: not a table of modules"));
    }
    Ok(Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())))
}

/// The name as kmod compares it: dashes are underscores, but between brackets.
pub fn underscores(name: &str) -> String {
    let mut inside = false;
    let letter = |letter: char| {
        inside = (inside || letter == '[') && letter != ']';
        if letter == '-' && !inside { '_' } else { letter }
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_are_underscores() {
        assert_eq!(underscores("a-b[0-9]-c"), "a_b[0-9]_c");
    }
}
