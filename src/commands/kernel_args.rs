//! From the options that describe a kernel to a [`Loader`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel::{Init, KernelState, Piece, Taints};
use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use kmodld::load::{Args, open};
use kmodld::running::parse_pieces;
use kmodld::{Error, Loader, Stage};
use reloc::Cpu;
use reloc::aarch64::has_erratum_843419;
use symres::LoadFlags;

use crate::cli::Live;
use crate::report;

impl Live {
    /// finit_module flags.
    pub fn flags(&self) -> LoadFlags {
        LoadFlags { ignore_modversions: self.force_modversion, ignore_vermagic: self.force_vermagic }
    }
}

/// The kernel that the options describe, with the modules of `--with` loaded. If they do not tell its
/// release, `release` does. `None`, all said, if the kernel refuses one of `--with`.
pub fn prepare(
    source: &KernelSource,
    live: &Live,
    with: &[PathBuf],
    release: impl FnOnce() -> Option<String>,
) -> Result<Option<Loader>, Error> {
    let kernel = source.describe(release, &live.cmdline)?;
    if !kernel.is_described() {
        let what = "nothing describes the kernel: give its image, a SPEC or a tree (--kernel), or its /proc/kallsyms (--symtab) and Module.symvers (--symvers)";
        return Err(Error::Usage(what.into()));
    }
    let mut state = KernelState::booted(&kernel);
    state.taints = Taints::of_kernel(live.tainted);
    state.live = Arc::new(live.memory.as_deref().map(read_memory).transpose()?.unwrap_or_default());
    state.cpu_caps = live.cpu_caps.as_ref().map(|caps| caps.0.clone());
    state.cpus = live.cpus;
    let mut loader = Loader::new(kernel, state);
    let args = Args { cpu: cpu(live, &loader), stage: Stage::Relocated, ..Args::default() };
    for path in with {
        if !load_before(&mut loader, &args, path)? {
            return Ok(None);
        }
    }
    Ok(Some(loader))
}

/// Pieces of the running kernel's memory.
fn read_memory(path: &Path) -> Result<Vec<Piece>, Error> {
    let text = read_decompressed(path)?;
    parse_pieces(&text).map_err(|what| Error::unusable(path, what))
}

/// What of the CPUs changes the bytes of a module.
pub fn cpu(live: &Live, loader: &Loader) -> Cpu {
    let version = loader.kernel.config.version;
    let from_caps = live.cpu_caps.as_ref().and_then(|caps| has_erratum_843419(version, &caps.0));
    Cpu { erratum_843419: live.erratum_843419 || from_caps.unwrap_or(false) }
}

/// A module of `--with`: it stays in the kernel. False if the kernel would refuse it.
fn load_before(loader: &mut Loader, args: &Args<'_>, path: &Path) -> Result<bool, Error> {
    let bytes = read_decompressed(path)?;
    let opened = open(&bytes, &loader.kernel, args.flags);
    let said = loader.insmod(&opened, args, Init::Returns(0));
    if said.refused() {
        report::refusal(path, &said, false)?;
        return Ok(false);
    }
    Ok(true)
}
