//! Which kernel is meant: `--kernel` and `--root`.

use std::ffi::OsStr;
use std::path::Path;

use super::KernelSource;
use super::running::Running;
use super::tree::Tree;
use crate::error::Error;
use crate::root::Root;

impl KernelSource {
    /// The kernel that is called so: a release, `running`, or a path; of the system under `root`. Without a name it is
    /// the one that runs, or the only one of a root; if other files describe it already, it is theirs.
    pub fn named(mut self, kernel: Option<&OsStr>, root: Option<&Path>) -> Result<Self, Error> {
        self.root = root.map(Root::new).transpose()?.unwrap_or_default();
        let is_described = [&self.symtab, &self.symvers, &self.config].into_iter().any(Option::is_some)
            || self.release.is_some();
        match kernel.map(|name| (name, name.to_str())) {
            None if is_described => {}
            None if self.root.is_system() => self.running = Some(Running::here()?),
            None => self.tree = Some(Tree::only_one(&self.root, root.unwrap_or(self.root.path()))?),
            Some((_, Some("running"))) if self.root.is_system() => self.running = Some(Running::here()?),
            Some((_, Some("running"))) => {
                let what = "--kernel running with --root: the running kernel is that of /; name a release of this root";
                return Err(Error::Usage(what.into()));
            }
            Some((name, text)) => {
                let release = text.filter(|text| !text.contains('/'));
                self.tree = release.and_then(|release| Tree::of_release(&self.root, release));
                if self.tree.is_none() {
                    if let Some(release) = release.filter(|_| !Path::new(name).exists()) {
                        return Err(self.no_kernel(release));
                    }
                    self.kernel = Some(name.into());
                }
            }
        }
        Ok(self)
    }

    fn no_kernel(&self, name: &str) -> Error {
        let there = match Tree::releases(&self.root).as_slice() {
            [] => String::from("there are no kernels"),
            releases => format!("there are {}", releases.join(", ")),
        };
        Error::unusable(
            Path::new(name),
            format!(
                "no such file, and no such release: under {} {there} (lib/modules, boot)",
                self.root.path().display()
            ),
        )
    }

    /// Its release, read from as little as it takes.
    pub fn own_release(&self) -> Result<String, Error> {
        if let Some(running) = &self.running {
            return Ok(running.release.clone());
        }
        if let Some(tree) = &self.tree {
            return Ok(tree.release.clone());
        }
        match &self.kernel {
            Some(path) if path.is_dir() => Ok(Tree::find(path)?.release),
            _ => Ok(self.read()?.own_release().unwrap_or_default().to_owned()),
        }
    }

    /// What it is called, where several are told apart.
    pub fn label(&self) -> Option<String> {
        let tree = self.tree.as_ref().map(|tree| tree.folder().display().to_string());
        let running = self.running.as_ref().map(|_| String::from("running"));
        running.or(tree).or_else(|| self.kernel.as_ref().map(|path| path.display().to_string()))
    }

    /// The folder of the modules of this kernel, whose release is known by now: that of its tree; of the tree that its
    /// image lies in; else that of its release under the root.
    pub fn modules_of(&self, release: &str) -> Option<Tree> {
        let found = |tree: Tree| tree.folder().is_dir().then_some(tree);
        if let Some(running) = &self.running {
            return found(running.tree());
        }
        if let Some(tree) = &self.tree {
            return found(tree.clone());
        }
        if let Some(path) = &self.kernel {
            if path.is_dir() {
                return Tree::find(path).ok().and_then(found);
            }
            let absolute = path.canonicalize().ok()?;
            let beside = absolute.ancestors().skip(1).take(3);
            let trees = beside.filter_map(|folder| Tree::of_release(&Root::of_tree(folder).ok()?, release));
            let own = absolute.parent().filter(|folder| folder.ends_with(Path::new("modules").join(release)));
            let own = own.and_then(|folder| Tree::find(folder).ok());
            if let Some(tree) = own.into_iter().chain(trees).find_map(found) {
                return Some(tree);
            }
        }
        Tree::of_release(&self.root, release).and_then(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn named(kernel: Option<&str>, root: Option<&Path>) -> Result<KernelSource, Error> {
        KernelSource::default().named(kernel.map(OsStr::new), root)
    }

    #[test]
    fn a_kernel_is_a_release_or_a_path() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("lib/modules/6.9.1-x")).unwrap();
        fs::create_dir_all(top.path().join("boot")).unwrap();
        fs::write(top.path().join("boot/vmlinuz-6.1.0"), "").unwrap();
        let root = Some(top.path());
        let tree = |source: KernelSource| source.tree.map(|tree| tree.release);
        assert_eq!(tree(named(Some("6.9.1-x"), root).unwrap()).as_deref(), Some("6.9.1-x"));
        assert_eq!(tree(named(Some("6.1.0"), root).unwrap()).as_deref(), Some("6.1.0"), "its image alone");
        assert_eq!(tree(named(None, root).unwrap()).as_deref(), Some("6.9.1-x"), "the only one");
        let path = top.path().join("boot/vmlinuz-6.1.0");
        let image = named(Some(path.to_str().unwrap()), None).unwrap();
        assert_eq!((image.tree.clone(), image.kernel.clone()), (None, Some(path)));
        assert_eq!(image.modules_of("6.9.1-x").unwrap().root.path(), top.path().canonicalize().unwrap());
        assert_eq!(image.modules_of("6.1.0"), None);
        let said = |kernel, root| named(kernel, root).unwrap_err().to_string();
        assert!(said(Some("6.2.0"), root).contains("there are 6.9.1-x"), "{}", said(Some("6.2.0"), root));
        assert!(said(Some("running"), root).contains("--root"));
        fs::create_dir_all(top.path().join("lib/modules/6.9.2")).unwrap();
        assert!(said(None, root).contains("name one"));
        #[cfg(target_os = "linux")]
        for kernel in [None, Some("running")] {
            for root in [None, Some(Path::new("/"))] {
                assert!(named(kernel, root).unwrap().running.is_some(), "{kernel:?} {root:?}");
            }
        }
        let given = KernelSource { symtab: Some("x".into()), ..KernelSource::default() };
        assert_eq!(given.named(None, None).unwrap().running, None, "other files describe it");
    }
}
