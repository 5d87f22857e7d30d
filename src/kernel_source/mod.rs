//! From the files that describe a kernel to a [`Kernel`].

use std::path::PathBuf;

use elf_layout::modinfo::Modinfo;
use elf_layout::{KernelConfig, KernelVersion, ModuleFile};
use symres::kallsyms::KernelSymbols;
use symres::symvers::parse_symvers;
use symres::{Kernel, KernelParts};

use crate::error::Error;
use crate::input::read_decompressed;

/// The files that describe a kernel, in any combination.
#[derive(Clone, Debug, Default)]
pub struct KernelSource {
    /// `/proc/kallsyms` or System.map.
    pub symtab: Option<PathBuf>,
    /// Module.symvers.
    pub symvers: Option<PathBuf>,
    /// `.config`.
    pub config: Option<PathBuf>,
}

impl KernelSource {
    /// Reads the files. What they do not tell (version, configuration) is taken
    /// from the vermagic of `module`, the one to be loaded.
    pub fn kernel_for(&self, module: &[u8]) -> Result<Kernel, Error> {
        let release = vermagic_release(module).unwrap_or_default();
        let mut config = KernelConfig::of_release(&release).unwrap_or_else(newest);
        if let Some(path) = &self.config {
            config.apply(&read_decompressed(path)?);
        }
        let mut parts = KernelParts { release, ..KernelParts::default() };
        if let Some(path) = &self.symtab {
            let text = read_decompressed(path)?;
            let symbols =
                KernelSymbols::parse(&text).map_err(|source| Error::Kernel { path: path.clone(), source })?;
            parts.symbols = Some(symbols);
        }
        if let Some(path) = &self.symvers {
            let text = read_decompressed(path)?;
            let symvers =
                parse_symvers(&text).map_err(|source| Error::Kernel { path: path.clone(), source })?;
            parts.symvers = Some(symvers);
        }
        Ok(Kernel::new(config, parts))
    }
}

/// For a module that tells no version: the newest whose rules are exact.
pub fn newest() -> KernelConfig {
    KernelConfig::new(KernelVersion::new(6, 12, 0))
}

/// The release that a module's vermagic begins with.
pub fn vermagic_release(module: &[u8]) -> Option<String> {
    // Only to learn which rules apply: the checks themselves come later.
    let opened = crate::load::open(module, &newest(), None);
    let release = |modinfo: Modinfo<'_>| {
        let vermagic = String::from_utf8_lossy(modinfo.get("vermagic")?).into_owned();
        Some(vermagic.split(' ').next().unwrap_or_default().to_owned())
    };
    opened.module.as_ref().map(ModuleFile::modinfo).and_then(release)
}
