//! What would be lost if it were written over.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::input::STDIN;

/// Refuses an output that would take the place of a file that is read, or of another output.
pub fn keep_apart<'p>(outputs: &[PathBuf], inputs: impl IntoIterator<Item = &'p Path>) -> Result<(), Error> {
    let names = |path: &Path| [Some(place(path)), fs::canonicalize(path).ok()];
    let read: HashSet<PathBuf> = inputs.into_iter().flat_map(names).flatten().collect();
    let mut written = HashSet::new();
    // A device or a pipe keeps nothing, nor does stdout.
    let is_kept = |path: &&PathBuf| {
        path.as_os_str() != STDIN && fs::metadata(path).map_or(true, |there| there.is_file())
    };
    for output in outputs.iter().filter(is_kept) {
        let place = place(output);
        let what = if read.contains(&place) {
            "it is read as well: what it holds would be lost"
        } else if !written.insert(place) {
            "two outputs are to go there: one of them would be lost"
        } else {
            continue;
        };
        return Err(Error::Usage(format!("{}: {what}", output.display())));
    }
    Ok(())
}

/// The name that an output replaces, whatever leads to its folder. Unlike an input it is not followed if it is a link.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    path.file_name().map_or_else(|| path.to_owned(), |name| folder.join(name))
}
