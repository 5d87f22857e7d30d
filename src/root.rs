//! The root directory that paths of a system are read under: `/`, or that of an image or chroot.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// Symbolic links followed in one path (the kernel's MAXSYMLINKS).
const LINKS_MAX: usize = 40;

/// A root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    /// Do links that lead to nothing inside lead where they do on this system?
    is_open: bool,
}

impl Default for Root {
    fn default() -> Self {
        Root { path: PathBuf::from("/"), is_open: false }
    }
}

impl Root {
    /// The folder of an image or chroot. It has to be there.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let absolute = path.canonicalize().map_err(|e| Error::read(path, e))?;
        if !absolute.is_dir() {
            return Err(Error::unusable(path, "no directory: --root takes the root of an image or chroot"));
        }
        Ok(Root { path: absolute, is_open: false })
    }

    /// The folder of a kernel tree that was put together here, perhaps of links to where its parts are.
    pub fn of_tree(path: &Path) -> Result<Self, Error> {
        Ok(Root { is_open: true, ..Root::new(path)? })
    }

    /// Is it that of the running system?
    pub fn is_system(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a path of that system is. Symbolic links lead where they would if this were `/`, and out of it only in a tree
    /// ([`Root::of_tree`]), where nothing is there.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if self.is_system() {
            return self.path.join(path);
        }
        let inside = self.inside(path);
        if self.is_open && !inside.exists() {
            let here = self.path.join(path.strip_prefix("/").unwrap_or(path));
            let goes_up = path.components().any(|part| part == Component::ParentDir);
            if !goes_up && let Ok(there) = here.canonicalize() {
                return there;
            }
        }
        inside
    }

    fn inside(&self, path: &Path) -> PathBuf {
        let mut out = self.path.clone();
        // What is left of the path, the next component last.
        let mut left = components(path);
        let mut links = 0usize;
        while let Some(next) = left.pop() {
            if next == ".." {
                if out != self.path {
                    out.pop();
                }
                continue;
            }
            out.push(&next);
            let Ok(target) = fs::read_link(&out) else { continue };
            links = links.saturating_add(1);
            if links > LINKS_MAX {
                // Nothing is there: opening this fails.
                return out.join("too many symbolic links");
            }
            out.pop();
            if target.is_absolute() {
                out.clone_from(&self.path);
            }
            left.extend(components(&target));
        }
        out
    }
}

/// The components of a path that count, the first last.
fn components(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("usr/lib/modules")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/usr/lib/modules", root.join("absolute")).unwrap();
        symlink("../../../../usr/./lib", root.join("usr/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let root = Root::new(&root).unwrap();
        let at = |path: &str| root.at(path).strip_prefix(root.path()).unwrap().display().to_string();
        assert_eq!(at("/lib/modules/6.1"), "usr/lib/modules/6.1");
        assert_eq!(at("absolute/6.1"), "usr/lib/modules/6.1");
        assert_eq!(at("usr/up/modules"), "usr/lib/modules");
        assert_eq!(at("../../etc/passwd"), "etc/passwd");
        assert!(!root.at("loop/x").exists());
        assert!(!root.is_system() && Root::default().is_system());
        assert_eq!(Root::default().at("/proc/modules"), Path::new("/proc/modules"));
        // Out of a tree leads what is not in it.
        fs::write(top.path().join("vmlinuz"), "").unwrap();
        symlink(top.path().join("vmlinuz"), root.path().join("image")).unwrap();
        let tree = Root::of_tree(root.path()).unwrap();
        assert!(!root.at("image").exists());
        assert_eq!(tree.at("image"), top.path().canonicalize().unwrap().join("vmlinuz"));
        assert_eq!(tree.at("absolute/6.1"), root.path().join("usr/lib/modules/6.1"), "as in the root");
        assert!(!tree.at("../../vmlinuz").exists());
        assert!(Root::new(&top.path().join("none")).unwrap_err().to_string().contains("none"));
        fs::write(top.path().join("file"), "").unwrap();
        assert!(Root::new(&top.path().join("file")).unwrap_err().to_string().contains("--root"));
    }
}
