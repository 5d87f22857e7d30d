//! From the files that describe a kernel to a [`KernelDescription`].
//!
//! Every file adds to a [`KernelDescriptionBuilder`]: an image ([`image`]), a SPEC ([`spec_file`]), a tree
//! ([`tree`]), a single text, or the system that the kernel runs on ([`running`]).

pub mod cache;
pub mod image;
mod kcore;
mod named;
mod own_modules;
pub mod running;
mod seen;
pub mod spec_file;
pub mod tree;
pub mod unread;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use elf_layout::{KernelVersion, Machine};
use kernel::spec::SYMVERS;
use kernel::{KernelDescription, KernelDescriptionBuilder, KernelSymbols, Needs, Records, Symvers};
use reloc::{ARCHITECTURES, MACHINES};

use crate::error::Error;
use crate::input::{decompressed, read_decompressed};
use crate::keyring::KeyringFile;
use crate::root::Root;

use cache::{Cache, Kind};
use running::Running;
use tree::Tree;
use unread::Unread;

/// What the stages after relocation read of a kernel.
pub fn needs() -> Needs {
    finalize::needs(ARCHITECTURES)
}

/// The files that describe a kernel, in any combination.
#[derive(Clone, Debug, Default)]
pub struct KernelSource {
    /// vmlinuz, vmlinux, Image, a SPEC or a tree. The configuration beside an image is read as well, unless `config` is given.
    pub kernel: Option<PathBuf>,
    /// Instead: what a root holds of a release.
    pub tree: Option<Tree>,
    /// Instead: the kernel that runs, and what its system shows.
    pub running: Option<Running>,
    /// Where modules are looked for, if neither of these has them.
    pub root: Root,
    /// Where images that were read are kept.
    pub cache: Option<Cache>,
    /// `/proc/kallsyms` or System.map.
    pub symtab: Option<PathBuf>,
    /// Module.symvers.
    pub symvers: Option<PathBuf>,
    /// `.config`.
    pub config: Option<PathBuf>,
    /// Certificates of its keyrings beside those built in.
    pub keyring: Vec<KeyringFile>,
    /// Its release, or the text of its `/proc/version`.
    pub release: Option<String>,
}

impl KernelSource {
    /// The files and trees that are named.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let one = [&self.kernel, &self.symtab, &self.symvers, &self.config];
        one.into_iter().flatten().chain(self.keyring.iter().map(|file| &file.path)).map(PathBuf::as_path)
    }

    /// Is there anything that says which kernel is meant?
    pub fn is_empty(&self) -> bool {
        self.paths().next().is_none()
            && self.release.is_none()
            && self.tree.is_none()
            && self.running.is_none()
    }

    /// The file of its image.
    ///
    /// # Errors
    ///
    /// [`Error`], if there is none, or if it is a SPEC, which has no code.
    pub fn image(&self) -> Result<PathBuf, Error> {
        let path = match (&self.running, &self.tree, &self.kernel) {
            (Some(running), ..) => first_image(&running.tree()),
            (_, Some(tree), _) => first_image(tree),
            (_, _, Some(path)) if path.is_dir() => first_image(&Tree::find(path)?),
            (_, _, path) => path.clone(),
        };
        let path = path.ok_or_else(|| {
            Error::Usage(
                "the image of the kernel is needed: name it, or a tree that has it (--kernel)".into(),
            )
        })?;
        if spec_file::is_spec(&crate::input::read(&path)?) {
            return Err(Error::unusable(&path, "is a SPEC, which has no code: the image itself is needed"));
        }
        Ok(path)
    }

    /// Reads all files.
    pub fn read(&self) -> Result<KernelDescriptionBuilder, Error> {
        self.read_noting(&mut Vec::new())
    }

    /// Reads all files. What a running kernel does not show is noted.
    pub fn read_noting(&self, unread: &mut Vec<Unread>) -> Result<KernelDescriptionBuilder, Error> {
        let out = match (&self.running, &self.tree, &self.kernel) {
            (Some(running), ..) => running.read(unread, self.cache.as_ref())?,
            (_, Some(tree), _) => tree.read(self.cache.as_ref())?,
            (_, _, Some(path)) => self.with_config_beside(path, read_kept(path, self.cache.as_ref())?)?,
            _ => KernelDescriptionBuilder::new(),
        };
        self.refine(out)
    }

    /// Adds the configuration that lies beside an image, if no other is given.
    fn with_config_beside(
        &self,
        image: &Path,
        out: KernelDescriptionBuilder,
    ) -> Result<KernelDescriptionBuilder, Error> {
        let wanted = self.config.is_none() && !out.has_config_text() && image.is_file();
        match out.own_release().filter(|_| wanted).and_then(|release| config_beside(image, release)) {
            Some(config) => add_config(out, &config),
            None => Ok(out),
        }
    }

    /// Adds the files that refine an image.
    pub(crate) fn refine(
        &self,
        mut out: KernelDescriptionBuilder,
    ) -> Result<KernelDescriptionBuilder, Error> {
        if let Some(path) = &self.config {
            out = add_config(out, path)?;
        }
        if let Some(path) = &self.symvers {
            out = add_symvers(out, path, self.cache.as_ref())?;
        }
        if let Some(path) = &self.symtab {
            out = out.live_symbols(&path.display().to_string(), read_symbols(path)?);
        }
        if let Some(text) = &self.release {
            let release = release_of(text);
            if let Some(other) = out.own_release().filter(|own| *own != release) {
                return Err(Error::Usage(format!(
                    "--release {release}: the kernel that is described is {other}"
                )));
            }
            out = out.release("--release", release);
        }
        for file in &self.keyring {
            out = file.add(out)?;
        }
        Ok(out)
    }

    /// Reads all files and joins them. `version` gives the version whose rules to take if nothing tells the kernel's;
    /// `cmdline` is the kernel's command line.
    pub fn describe(
        &self,
        version: impl FnOnce() -> Option<KernelVersion>,
        cmdline: &str,
    ) -> Result<KernelDescription, Error> {
        let builder = self.read()?;
        let builder = if cmdline.is_empty() { builder } else { builder.cmdline("--cmdline", cmdline) };
        self.build(builder, version)
    }

    /// Joins what was read.
    pub fn build(
        &self,
        builder: KernelDescriptionBuilder,
        version: impl FnOnce() -> Option<KernelVersion>,
    ) -> Result<KernelDescription, Error> {
        self.build_for(builder, version, MACHINES)
    }

    /// As [`KernelSource::build`], where the machines `known` are those that it may be of.
    pub fn build_for(
        &self,
        mut builder: KernelDescriptionBuilder,
        version: impl FnOnce() -> Option<KernelVersion>,
        known: &[&'static Machine],
    ) -> Result<KernelDescription, Error> {
        if builder.own_release().is_none() {
            builder = builder.assume_version(version());
        }
        let at_fault =
            || self.symtab.clone().or_else(|| self.label().map(PathBuf::from)).unwrap_or_else(|| "-".into());
        builder.build(known).map_err(|source| Error::Kernel { path: at_fault(), source })
    }
}

/// The image of a tree, if it has one.
fn first_image(tree: &Tree) -> Option<PathBuf> {
    tree.images().find(|path| path.is_file())
}

/// The configuration that distributions put beside an image of a release: `/boot/config-RELEASE`, or `config` in the release's own
/// folder.
fn config_beside(image: &Path, release: &str) -> Option<PathBuf> {
    let image = image.canonicalize().ok()?;
    let own = image.parent().is_some_and(|folder| folder.ends_with(release));
    let names = [Some(format!("config-{release}")), own.then(|| String::from("config"))];
    names.into_iter().flatten().map(|name| image.with_file_name(name)).find(|path| path.is_file())
}

/// The release in the text of `/proc/version` (`Linux version 6.12.0 (...`), or the text itself.
fn release_of(text: &str) -> &str {
    let banner = text.trim().strip_prefix("Linux version ");
    banner.map_or(text.trim(), |rest| rest.split_ascii_whitespace().next().unwrap_or_default())
}

/// Reads an image, a SPEC or a tree.
pub fn read(path: &Path) -> Result<KernelDescriptionBuilder, Error> {
    read_kept(path, None)
}

/// The same, with images that a cache has.
fn read_kept(path: &Path, cache: Option<&Cache>) -> Result<KernelDescriptionBuilder, Error> {
    if path.is_dir() {
        return Tree::find(path)?.read(cache);
    }
    // What is no plain file can be read once only.
    if cache.is_some() && path.is_file() && !begins_as_spec(path) {
        return image::read_kept(path, cache);
    }
    of_file(path, &crate::input::read(path)?)
}

/// Is a file a SPEC? What cannot be read is told when it is.
fn begins_as_spec(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && spec_file::is_spec(&head)
}

/// What the bytes of an image or a SPEC tell; `path` is for messages.
pub fn of_file(path: &Path, bytes: &[u8]) -> Result<KernelDescriptionBuilder, Error> {
    if spec_file::is_spec(bytes) {
        let records = spec_file::parse(bytes).map_err(|e| Error::unusable(path, e.to_string()))?;
        let told = KernelDescriptionBuilder::new().records(&path.display().to_string(), &records);
        return told.map_err(|source| Error::Kernel { path: path.to_owned(), source });
    }
    image::read(path, bytes)
}

fn add_config(to: KernelDescriptionBuilder, path: &Path) -> Result<KernelDescriptionBuilder, Error> {
    Ok(to.config_text(&path.display().to_string(), read_config(path)?))
}

fn read_config(path: &Path) -> Result<Vec<u8>, Error> {
    let text = read_decompressed(path)?;
    not_a_config(&text).map_or(Ok(()), |what| Err(Error::unusable(path, what)))?;
    Ok(text.to_vec())
}

/// What keeps a text from being a kernel configuration; `None` if it is one.
fn not_a_config(text: &[u8]) -> Option<String> {
    let lines = || text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).zip(1u64..);
    let is_option = |line: &[u8]| line.starts_with(b"CONFIG_") && line.contains(&b'=');
    let other = lines().find(|(line, _)| !(line.is_empty() || line.starts_with(b"#") || is_option(line)));
    if let Some((_, number)) = other {
        return Some(format!("no kernel configuration (.config): line {number} is not CONFIG_NAME=VALUE"));
    }
    let is_unset = |line: &[u8]| line.starts_with(b"# CONFIG_") && line.ends_with(b" is not set");
    let none = !lines().any(|(line, _)| is_option(line) || is_unset(line));
    none.then(|| String::from("no kernel configuration (.config): no CONFIG_NAME=VALUE is in it"))
}

fn add_symvers(
    to: KernelDescriptionBuilder,
    path: &Path,
    cache: Option<&Cache>,
) -> Result<KernelDescriptionBuilder, Error> {
    let failed = |source| Error::Kernel { path: path.to_owned(), source };
    let symvers = match cache {
        None => Symvers::parse(&read_decompressed(path)?).map_err(failed)?,
        Some(cache) => cache.through(
            Kind::Symvers,
            path,
            |records| Symvers::of_record(records.shared(SYMVERS)?),
            |bytes| Symvers::parse(&decompressed(path, bytes)?).map_err(failed),
            |symvers| {
                let mut records = Records::default();
                records.set(SYMVERS, symvers.to_record());
                records
            },
        )?,
    };
    Ok(to.symvers(&path.display().to_string(), symvers))
}

/// Reads kallsyms or System.map.
fn read_symbols(path: &Path) -> Result<KernelSymbols, Error> {
    let text = read_decompressed(path)?;
    KernelSymbols::parse(&text).map_err(|source| Error::Kernel { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_lies_beside_the_image() {
        let top = tempfile::tempdir().unwrap();
        for (image, config, is) in [
            ("boot/vmlinuz-6.1.0", "boot/config-6.1.0", true),
            ("a/bzImage", "a/config-6.1.0", true),
            ("lib/modules/6.1.0/vmlinuz", "lib/modules/6.1.0/config", true),
            ("b/vmlinuz-6.1.0", "b/config-6.1.1", false),
            ("c/vmlinuz-6.1.0", "c/config", false),
        ] {
            let [image, config] = [image, config].map(|name| top.path().join(name));
            std::fs::create_dir_all(image.parent().unwrap()).unwrap();
            std::fs::write(&image, "").unwrap();
            std::fs::write(&config, "").unwrap();
            let found = config_beside(&image, "6.1.0");
            assert_eq!(found, is.then(|| config.canonicalize().unwrap()), "{}", image.display());
        }
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        for good in [
            "CONFIG_SMP=y\n",
            "# CONFIG_SMP is not set\n",
            "#\n# Linux/x86 6.1.1 Kernel Configuration\n#\n\nCONFIG_SMP=y\nCONFIG_LSM=\"a b\"\n",
        ] {
            assert_eq!(not_a_config(good.as_bytes()), None, "{good}");
        }
        for (bad, what) in [
            ("root:x:0:0:root:/root:/bin/bash\n", "line 1 is not"),
            ("CONFIG_SMP=y\nffffffff81000000 T _text\n", "line 2 is not"),
            ("CONFIG_SMP\n", "line 1 is not"),
            ("# a comment\n", "no CONFIG_NAME=VALUE"),
            ("", "no CONFIG_NAME=VALUE"),
        ] {
            assert!(not_a_config(bad.as_bytes()).is_some_and(|said| said.contains(what)), "{bad}");
        }
    }
}
