//! From the files that describe a kernel to a [`KernelDescription`].
//!
//! Every file adds to a [`KernelDescriptionBuilder`]: an image ([`image`]), a SPEC ([`spec_file`]), a tree
//! ([`tree`]), or a single text.

pub mod image;
mod own_modules;
pub mod spec_file;
pub mod tree;

use std::path::{Path, PathBuf};

use elf_layout::KernelVersion;
use kernel::{KernelDescription, KernelDescriptionBuilder, KernelSymbols, Needs, Symvers};
use reloc::{ARCHITECTURES, MACHINES};

use crate::error::Error;
use crate::input::read_decompressed;
use crate::keyring::KeyringFile;

/// What the stages after relocation read of a kernel.
pub fn needs() -> Needs {
    finalize::needs(ARCHITECTURES)
}

/// The files that describe a kernel, in any combination.
#[derive(Clone, Debug, Default)]
pub struct KernelSource {
    /// vmlinuz, vmlinux, Image, a SPEC or a tree.
    pub kernel: Option<PathBuf>,
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

    /// Reads all files.
    pub fn read(&self) -> Result<KernelDescriptionBuilder, Error> {
        let mut out = match &self.kernel {
            Some(path) => read(path)?,
            None => KernelDescriptionBuilder::new(),
        };
        if let Some(path) = &self.config {
            out = add_config(out, path)?;
        }
        if let Some(path) = &self.symvers {
            out = add_symvers(out, path)?;
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
        let mut builder = self.read()?;
        if !cmdline.is_empty() {
            builder = builder.cmdline("--cmdline", cmdline);
        }
        if builder.own_release().is_none() {
            builder = builder.assume_version(version());
        }
        let at_fault = self.symtab.as_deref().or(self.kernel.as_deref()).unwrap_or(Path::new("-"));
        builder.build(MACHINES).map_err(|source| Error::Kernel { path: at_fault.to_owned(), source })
    }
}

/// The release in the text of `/proc/version` (`Linux version 6.12.0 (...`), or the text itself.
fn release_of(text: &str) -> &str {
    let banner = text.trim().strip_prefix("Linux version ");
    banner.map_or(text.trim(), |rest| rest.split_ascii_whitespace().next().unwrap_or_default())
}

/// Reads an image, a SPEC or a tree.
pub fn read(path: &Path) -> Result<KernelDescriptionBuilder, Error> {
    if path.is_dir() {
        return tree::read(path);
    }
    of_file(path, &crate::input::read(path)?)
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
    let text = read_decompressed(path)?;
    not_a_config(&text).map_or(Ok(()), |what| Err(Error::unusable(path, what)))?;
    Ok(to.config_text(&path.display().to_string(), text.to_vec()))
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

fn add_symvers(to: KernelDescriptionBuilder, path: &Path) -> Result<KernelDescriptionBuilder, Error> {
    let text = read_decompressed(path)?;
    let symvers = Symvers::parse(&text).map_err(|source| Error::Kernel { path: path.to_owned(), source })?;
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
