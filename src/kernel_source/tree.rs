//! Kernel trees: a root with `boot/` and `lib/modules/RELEASE`, or
//! `lib/modules/RELEASE` itself. Every piece found adds to the description.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kernel::KernelDescriptionBuilder;

use super::cache::Cache;
use super::unread::{Unread, cannot_read};
use super::{add_config, add_symvers, image, own_modules, read_symbols};
use crate::error::Error;
use crate::root::Root;

/// Where distributions keep what belongs to a release; `{r}` is the release, `{m}` its folder under
/// `lib/modules`, `{p}` the name of its package where there is one. Paths are relative to the root.
const IMAGES: [&str; 9] = [
    "boot/vmlinuz-{r}",
    "boot/vmlinux-{r}",
    "boot/Image-{r}",
    "{m}/vmlinuz",
    "{m}/vmlinux",
    "usr/lib/debug/boot/vmlinux-{r}",
    "usr/lib/debug/lib/modules/{r}/vmlinux",
    // Arch Linux; the package's newest kernel, whatever its release.
    "boot/vmlinuz-{p}",
    "boot/Image-{p}",
];
/// Where boot loaders have `MACHINE-ID/RELEASE/linux` (the boot loader specification).
const ENTRIES: [&str; 3] = ["boot", "boot/efi", "efi"];
const CONFIGS: [&str; 4] =
    ["boot/config-{r}", "{m}/config", "{m}/build/.config", "usr/src/linux-headers-{r}/.config"];
const SYMVERS: [&str; 5] = [
    "{m}/build/Module.symvers",
    "usr/src/linux-headers-{r}/Module.symvers",
    "{m}/symvers.gz",
    "{m}/symvers.xz",
    "boot/symvers-{r}.gz",
];
const SYSTEM_MAPS: [&str; 3] = ["boot/System.map-{r}", "{m}/System.map", "{m}/build/System.map"];
/// Where `lib/modules` is.
const FOLDERS: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// What a root holds of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tree {
    /// The root.
    pub root: Root,
    /// The release's module folder, relative to the root. It may be missing.
    pub modules: PathBuf,
    /// Its release.
    pub release: String,
}

impl Tree {
    /// The tree at a path: a root with one kernel, or a kernel's folder of modules.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let absolute = path.canonicalize().map_err(|e| Error::read(path, e))?;
        let parts: Vec<_> = absolute.components().rev().take(3).collect();
        if let [release, modules, lib] = parts.as_slice()
            && modules.as_os_str() == "modules"
            && lib.as_os_str() == "lib"
        {
            let lib = absolute.ancestors().nth(2).unwrap_or(&absolute);
            // /usr/lib/modules, where /lib is a link to it.
            let usr =
                lib.parent().filter(|p| p.file_name().is_some_and(|n| n == "usr")).and_then(Path::parent);
            let root = usr.or(lib.parent()).unwrap_or(&absolute).to_owned();
            let modules = absolute.strip_prefix(&root).unwrap_or(&absolute).to_owned();
            let release = release.as_os_str().to_string_lossy().into_owned();
            return Ok(Tree { root: Root::of_tree(&root)?, modules, release });
        }
        Tree::only_one(&Root::of_tree(&absolute)?, path)
    }

    /// The only kernel of a root; `path` is how that was called.
    pub fn only_one(root: &Root, path: &Path) -> Result<Self, Error> {
        let several = match Tree::releases(root).as_slice() {
            [] => {
                let what = "not a kernel tree: there is no lib/modules/RELEASE in it, nor is it one";
                return Err(Error::unusable(path, what));
            }
            [release] => return Ok(Tree::at(root, release)),
            several => several.join(","),
        };
        let what = format!("holds several kernels, name one: lib/modules/{{{several}}}");
        Err(Error::unusable(path, what))
    }

    /// The releases that a root has modules of.
    pub fn releases(root: &Root) -> Vec<String> {
        let entries = FOLDERS.iter().filter_map(|folder| fs::read_dir(root.at(folder)).ok());
        let folders = entries.flatten().flatten().filter(|e| e.path().is_dir());
        let mut releases: Vec<String> =
            folders.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        releases.sort();
        releases.dedup();
        releases
    }

    /// The tree of a release, if a root has its modules or its image.
    pub fn of_release(root: &Root, release: &str) -> Option<Self> {
        if release.is_empty() || release == "." || release == ".." || release.contains('/') {
            return None;
        }
        let tree = Tree::at(root, release);
        (tree.folder().is_dir() || tree.images().any(|path| path.is_file())).then_some(tree)
    }

    /// The tree of a release, whatever is there of it.
    pub fn at(root: &Root, release: &str) -> Self {
        let folders = FOLDERS.iter().map(|folder| Path::new(folder).join(release));
        let there = folders.clone().find(|folder| root.at(folder).is_dir());
        let modules = there.or_else(|| folders.clone().next()).unwrap_or_default();
        Tree { root: root.clone(), modules, release: release.to_owned() }
    }

    /// The folder of its modules.
    pub fn folder(&self) -> PathBuf {
        self.root.at(&self.modules)
    }

    /// Candidates with their names filled in.
    fn fill<'a>(&'a self, candidates: &'a [&str]) -> impl Iterator<Item = PathBuf> + 'a {
        let modules = self.modules.to_string_lossy().into_owned();
        let package = candidates.iter().any(|c| c.contains("{p}")).then(|| self.package()).flatten();
        candidates.iter().filter_map(move |candidate| {
            let path = candidate.replace("{r}", &self.release).replace("{m}", &modules);
            let path = match (&package, path.contains("{p}")) {
                (Some(package), true) => path.replace("{p}", package),
                (None, true) => return None,
                _ => path,
            };
            Some(self.root.at(path))
        })
    }

    /// The name of the package that a kernel is of (Arch Linux).
    fn package(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder().join("pkgbase")).ok()?;
        let name = text.trim();
        (!name.is_empty() && name.len() < 256 && !name.contains(['/', '\n'])).then(|| name.to_owned())
    }

    /// Where its image may be.
    pub fn images(&self) -> impl Iterator<Item = PathBuf> {
        let entries = ENTRIES.iter().flat_map(|folder| {
            let mut ids: Vec<PathBuf> = fs::read_dir(self.root.at(folder))
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect();
            ids.sort();
            ids.into_iter().filter(|id| id.is_dir()).map(|id| id.join(&self.release).join("linux"))
        });
        self.fill(&IMAGES).chain(entries)
    }

    /// Where its configuration may be.
    pub fn configs(&self) -> impl Iterator<Item = PathBuf> {
        self.fill(&CONFIGS)
    }

    /// Reads what is there; an image that a cache has is not read again.
    pub fn read(&self, cache: Option<&Cache>) -> Result<KernelDescriptionBuilder, Error> {
        let mut out = match self.images().find(|p| p.is_file()) {
            Some(path) => image::read_kept(&path, cache)?,
            None => KernelDescriptionBuilder::new(),
        };
        if out.own_release().is_none() {
            out = out.release(&self.folder().display().to_string(), &self.release);
        }
        if let Some(path) = self.configs().find(|p| p.is_file()).filter(|_| !out.has_config_text()) {
            out = add_config(out, &path)?;
        }
        out = self.add_texts(out, None, cache)?;
        if out.is_empty() {
            let what = format!(
                "nothing under it describes kernel {}: no image, no Module.symvers, no System.map",
                self.release
            );
            return Err(Error::unusable(&self.folder(), what));
        }
        Ok(out)
    }

    /// Adds Module.symvers, and System.map where there are no symbols yet. With `unread`, what may not be read is noted there.
    pub fn add_texts(
        &self,
        mut out: KernelDescriptionBuilder,
        mut unread: Option<&mut Vec<Unread>>,
        cache: Option<&Cache>,
    ) -> Result<KernelDescriptionBuilder, Error> {
        if let Some(path) = self.fill(&SYMVERS).find(|p| p.is_file()) {
            match (cannot_read(&path), &mut unread) {
                (Some(why), Some(unread)) => unread.push(Unread::new("Module.symvers", path, why)),
                _ => out = add_symvers(out, &path, cache)?,
            }
        }
        if let Some(path) = self.fill(&["{m}/modules.builtin"]).find(|p| p.is_file()) {
            out = out.modules_builtin(&path.display().to_string(), &crate::input::read(&path)?);
        }
        // What was put there later (updates, extra) may be of another kernel.
        out = own_modules::add(out, &self.folder().join("kernel"));
        let map = self.fill(&SYSTEM_MAPS).find(|p| p.is_file());
        if out.link_symbols().is_some() || map.is_none() {
            return Ok(out);
        }
        let path = map.unwrap_or_default();
        let from = path.display().to_string();
        Ok(match read_symbols(&path) {
            Ok(symbols) => out.symbols(&from, symbols),
            // Debian ships a stub, which is no reason to refuse the rest.
            Err(Error::Kernel { source, .. }) => out.found_nothing("no symbols", &from, &source.to_string()),
            Err(Error::Read { source, .. })
                if unread.is_some() && source.kind() == ErrorKind::PermissionDenied =>
            {
                out.found_nothing("no symbols", &from, &source.to_string())
            }
            Err(error) => return Err(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_found_where_distributions_have_it() {
        for (folder, image) in [
            ("lib/modules/6.9.1-x", "boot/vmlinuz-6.9.1-x"),
            ("usr/lib/modules/6.9.1-x", "usr/lib/modules/6.9.1-x/vmlinuz"),
            ("lib/modules/6.9.1-x", "boot/vmlinuz-linux-lts"),
            ("lib/modules/6.9.1-x", "boot/0123456789abcdef/6.9.1-x/linux"),
            ("lib/modules/6.9.1-x", "efi/0123456789abcdef/6.9.1-x/linux"),
        ] {
            let top = tempfile::tempdir().unwrap();
            let image = top.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            fs::create_dir_all(top.path().join(folder)).unwrap();
            fs::write(top.path().join(folder).join("pkgbase"), "linux-lts\n").unwrap();
            let root = Root::new(top.path()).unwrap();
            let tree = Tree::of_release(&root, "6.9.1-x").unwrap();
            assert_eq!(tree.modules, Path::new(folder));
            assert_eq!(
                tree.images().find(|p| p.is_file()).as_deref().map(Path::file_name),
                Some(image.file_name())
            );
            for other in ["6.9.1", "", ".", "..", "../modules/6.9.1-x"] {
                assert_eq!(Tree::of_release(&root, other), None, "{other}");
            }
            assert_eq!(Tree::releases(&root), ["6.9.1-x"]);
            assert_eq!(Tree::only_one(&root, top.path()).unwrap(), tree);
            fs::create_dir_all(top.path().join(folder).with_file_name("6.1.0")).unwrap();
            let said = Tree::only_one(&root, top.path()).unwrap_err().to_string();
            assert!(said.contains("name one: lib/modules/{6.1.0,6.9.1-x}"), "{said}");
        }
    }
}
