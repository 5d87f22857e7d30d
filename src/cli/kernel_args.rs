//! From the options that describe a kernel to a [`Loader`].

use std::path::{Path, PathBuf};

use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use kmodld::load::{Args, open};
use kmodld::running::Piece;
use kmodld::{Error, Loader, Stage};
use symres::{BootParams, Init, LoadFlags, Taints};

use super::options::Live;
use super::report;

impl Live {
    /// finit_module flags.
    pub fn flags(&self) -> LoadFlags {
        LoadFlags { ignore_modversions: self.force_modversion, ignore_vermagic: self.force_vermagic }
    }

    /// The errata of the CPUs that the options name.
    fn errata(&self) -> Vec<String> {
        self.erratum_843419.then(|| String::from("843419")).into_iter().collect()
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
    let (mut kernel, mut machine) = source.kernel_or_release(release)?;
    if !kernel.is_described() {
        let what = "nothing describes the kernel: give its image, a SPEC or a tree (--kernel), or its /proc/kallsyms (--symtab) and Module.symvers (--symvers)";
        return Err(Error::Usage(what.into()));
    }
    kernel.boot = BootParams::parse(&live.cmdline);
    kernel.taints = Taints::of_kernel(live.tainted);
    machine.live = live.memory.as_deref().map(read_memory).transpose()?.unwrap_or_default();
    machine.cpu_caps = live.cpu_caps.as_ref().map(|caps| caps.0.clone());
    machine.cpus = live.cpus;
    machine.errata = live.errata();
    machine.cmdline.clone_from(&live.cmdline);
    let mut loader = Loader::new(kernel);
    loader.machine = machine;
    let args = Args { stage: Stage::Relocated, ..Args::default() };
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
    Piece::parse_all(&text).map_err(|what| Error::unusable(path, what))
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
