//! What a run begins with: a kernel as files describe it, how it runs, and the modules that are loaded before.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elf_layout::{Findings, KernelVersion};
use kernel::{
    ExportTable, Init, KernelDescription, KernelDescriptionBuilder, KernelState, KernelSymbols, Keyring,
    LoadedModule, Piece, Shown, Symvers, Taints,
};
use reloc::{ARCHITECTURES, Architecture};

use crate::error::Error;
use crate::input::read_decompressed;
use crate::kernel_source::KernelSource;
use crate::kernel_source::running::OwnerKeys;
use crate::kernel_source::unread::Unread;
use crate::load::{Args, open};
use crate::loader::Loader;
use crate::memory_file::parse_pieces;
use symres::LoadFlags;

/// What only the running system knows.
#[derive(Clone, Debug, Default)]
pub struct RunningFacts {
    /// Kernel command line.
    pub cmdline: String,
    /// Was it started by UEFI with Secure Boot on?
    pub secure_boot: bool,
    /// Number of CPUs.
    pub cpus: Option<u32>,
    /// CPU capability bitmap as the kernel holds it.
    pub cpu_caps: Option<Vec<u8>>,
    /// Errata that the CPUs have, whatever the bitmap says: the numbers that their makers gave them.
    pub errata: Vec<String>,
    /// Taint mask before the first load, if not that of the running kernel.
    pub tainted: Option<u64>,
    /// A file with pieces of the kernel's memory, as [`parse_pieces`] reads it.
    pub memory: Option<PathBuf>,
}

/// What comes of preparing a kernel.
#[derive(Debug)]
pub enum Prepared {
    /// The kernel with its modules.
    Ready {
        /// The kernel.
        loader: Box<Loader>,
        /// What the system of a running kernel did not show.
        unread: Vec<Unread>,
        /// The modules that are loaded before, and what it says of each.
        before: Vec<(PathBuf, Findings)>,
    },
    /// It refuses one of the modules that are to be loaded before.
    Refused {
        /// The module.
        file: PathBuf,
        /// Why.
        said: Findings,
    },
}

/// What describes a kernel beside the files of a [`KernelSource`], where there is no file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// An image or SPEC, in place of that of the source.
    pub(crate) image: Option<KernelDescriptionBuilder>,
    pub(crate) config: Option<String>,
    pub(crate) symvers: Option<Symvers>,
    pub(crate) symtab: Option<KernelSymbols>,
}

impl Texts {
    fn add(self, source: &KernelSource, unread: &mut Vec<Unread>) -> Result<KernelDescriptionBuilder, Error> {
        let given = "text";
        let mut builder = match self.image {
            Some(image) => source.refine(image)?,
            None => source.read_noting(unread)?,
        };
        if let Some(config) = self.config {
            builder = builder.config_text(given, config.into_bytes());
        }
        if let Some(symvers) = self.symvers {
            builder = builder.symvers(given, symvers);
        }
        Ok(match self.symtab {
            Some(symtab) => builder.live_symbols(given, symtab),
            None => builder,
        })
    }
}

/// The kernel that `source` describes and that runs as `facts` say, with the modules of `with` loaded in this order. If the
/// files do not tell its version, the rules of `version` are taken. Fails if a file cannot be used, or if nothing describes
/// the kernel.
pub fn prepare(
    source: &KernelSource,
    facts: &RunningFacts,
    with: &[PathBuf],
    version: impl FnOnce() -> Option<KernelVersion>,
) -> Result<Prepared, Error> {
    let (mut loader, unread) = boot(source, facts, Texts::default(), ARCHITECTURES, version)?;
    let args = Args::verdict(LoadFlags::default(), b"");
    let mut before = Vec::new();
    for path in with {
        let said = load_before(&mut loader, &args, path)?;
        if said.refused() {
            return Ok(Prepared::Refused { file: path.clone(), said });
        }
        before.push((path.clone(), said));
    }
    Ok(Prepared::Ready { loader: Box::new(loader), unread, before })
}

/// The same kernel without modules beside those that its sources list, and what the system of a running one did not show.
pub(crate) fn boot(
    source: &KernelSource,
    facts: &RunningFacts,
    texts: Texts,
    architectures: &'static [&'static dyn Architecture],
    version: impl FnOnce() -> Option<KernelVersion>,
) -> Result<(Loader, Vec<Unread>), Error> {
    let mut unread = Vec::new();
    let mut builder = texts.add(source, &mut unread)?;
    if source.is_empty() && builder.is_empty() {
        let what = "nothing describes the kernel: give its image, a SPEC or a tree (--kernel), or its /proc/kallsyms (--symtab) and Module.symvers (--symvers)";
        return Err(Error::Usage(what.into()));
    }
    let shows = source.running.as_ref().map(|running| running.shows(&mut unread));
    match shows.as_ref().and_then(|shows| shows.cmdline.as_deref()) {
        _ if !facts.cmdline.is_empty() => builder = builder.cmdline("--cmdline", &facts.cmdline),
        Some(cmdline) => builder = builder.cmdline("/proc/cmdline", cmdline),
        None => {}
    }
    let known: Vec<_> = architectures.iter().map(|arch| arch.machine()).collect();
    let mut kernel = source.build_for(builder, version, &known)?;
    kernel.boot.secure_boot = facts.secure_boot;
    let mut state = KernelState::booted(&kernel);
    state.cpus = facts.cpus;
    if let Some(shows) = shows {
        kernel.boot.secure_boot |= shows.secure_boot == Some(true);
        let OwnerKeys { certificates, trusted } = shows.owner_keys;
        // certs/platform_certs/keyring_handler.c: get_handler_for_mok
        let ring = if trusted && kernel.config.keys.machine != Some(false) {
            Keyring::Machine
        } else {
            Keyring::Platform
        };
        kernel.keyring.extend(certificates.into_iter().map(|der| (ring, der)));
        // What is given is meant: a question about another state than the one that is.
        let asks_otherwise = facts.secure_boot || !facts.cmdline.is_empty();
        kernel.boot.shown = if asks_otherwise { Shown::default() } else { shows.shown };
        state.taints = Taints::of_kernel(shows.tainted.unwrap_or(0));
        state.cpus = facts.cpus.or(shows.cpus);
        shows.modules.into_iter().for_each(|modules| are_loaded(&mut state, modules));
    }
    facts.tainted.iter().for_each(|mask| state.taints = Taints::of_kernel(*mask));
    let mut live = facts.memory.as_deref().map(read_memory).transpose()?.unwrap_or_default();
    if let Some(running) = source.running.as_ref().filter(|_| facts.cpu_caps.is_none()) {
        live.extend(running.cpu_caps(&kernel, &mut unread));
    }
    state.live = Arc::new(live);
    if let Some(caps) = &facts.cpu_caps {
        fits(&kernel, caps)?;
        state.cpu_caps = Some(words(caps));
    }
    state.errata.clone_from(&facts.errata);
    Ok((Loader::new(kernel, state).with_architectures(architectures), unread))
}

/// The modules that a running kernel lists, newest first, in place of those that its symbol table lists: of these stays what
/// they export.
fn are_loaded(state: &mut KernelState, modules: Vec<LoadedModule>) {
    let listed: Vec<Box<[u8]>> = state.modules().map(|module| module.name.clone()).collect();
    let mut exports: HashMap<Box<[u8]>, ExportTable> = listed
        .into_iter()
        .filter_map(|name| Some((name.clone(), state.remove_module(&name)?.exports)))
        .collect();
    for mut module in modules.into_iter().rev() {
        if let Some(exports) = exports.remove(&module.name) {
            module.exports = exports;
        }
        state.insert_module(module);
    }
}

/// Is a bitmap of CPU capabilities as long as that of this kernel, where its types tell?
fn fits(kernel: &KernelDescription, caps: &[u8]) -> Result<(), Error> {
    let mut bitmaps = kernel.machine.iter().flat_map(|machine| machine.cpu_capabilities);
    // Of a bitmap that is a variable of its own the size is not known.
    let sized = bitmaps.find_map(|bitmap| {
        let (of, member) = bitmap.member?;
        Some((bitmap.symbol, of, member, kernel.types.member(of, member)?.size))
    });
    match sized {
        Some((symbol, of, member, size)) if size != caps.len() as u64 => Err(Error::Usage(format!(
            "--cpu-caps has {} bytes: the bitmap of this kernel has {size} ({of}.{member} of {symbol})",
            caps.len(),
        ))),
        _ => Ok(()),
    }
}

/// Little-endian words of 64 bits.
fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut whole = [0u8; 8];
        whole.iter_mut().zip(chunk).for_each(|(w, b)| *w = *b);
        u64::from_le_bytes(whole)
    };
    bytes.chunks(8).map(word).collect()
}

/// Pieces of the running kernel's memory.
fn read_memory(path: &Path) -> Result<Vec<Piece>, Error> {
    let text = read_decompressed(path)?;
    parse_pieces(&text).map_err(|what| Error::unusable(path, what))
}

/// Loads a module that modprobe loads on the way; what the kernel says of it.
pub fn load_step(loader: &mut Loader, path: &Path, options: &str) -> Result<Findings, Error> {
    load_before(loader, &Args::verdict(LoadFlags::default(), options.as_bytes()), path)
}

/// A module that stays in the kernel, if this does not refuse it.
fn load_before(loader: &mut Loader, args: &Args<'_>, path: &Path) -> Result<Findings, Error> {
    let bytes = read_decompressed(path)?;
    let kernel = &loader.kernel;
    let opened = open(&bytes, kernel, args.flags).out_of(bytes.packed(), &kernel.config);
    Ok(loader.insmod(&opened, args, Init::Returns(0)))
}

/// `mod->args` as modprobe makes it of its arguments: what has spaces gets quotes.
pub fn modprobe_parameters(given: &[String]) -> String {
    let quoted = |param: &String| match param.split_once('=') {
        Some((name, value)) if value.contains(' ') && !value.starts_with('"') => {
            format!("{name}=\"{value}\"")
        }
        _ => param.clone(),
    };
    given.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Parameters in one word, then those that stand by themselves.
pub fn parameters(together: &str, single: &[String]) -> String {
    let single = modprobe_parameters(single);
    let gap = if together.is_empty() || single.is_empty() { "" } else { " " };
    format!("{together}{gap}{single}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{Types, newest};

    #[test]
    fn a_bitmap_of_capabilities_has_the_length_of_the_kernels() {
        let mut kernel = KernelDescription::unknown(newest());
        assert!(fits(&kernel, &[0; 3]).is_ok(), "nothing tells");
        let machine = reloc::MACHINES.iter().copied().find(|machine| machine.name == "x86_64").unwrap();
        let (of, member) = machine.cpu_capabilities[0].member.unwrap();
        kernel.machine = Some(machine);
        assert!(fits(&kernel, &[0; 3]).is_ok(), "nothing tells");
        let types = format!("{of}.{member} 16 96\n");
        kernel.types = Arc::new(Types::parse(&types));
        assert!(fits(&kernel, &[0; 96]).is_ok());
        for len in [0, 88, 95, 97, 104] {
            let error = fits(&kernel, &vec![0; len]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("--cpu-caps has {len} bytes")) && error.contains("has 96"),
                "{error}"
            );
        }
        kernel.machine = reloc::MACHINES.iter().copied().find(|machine| machine.name == "aarch64");
        assert!(fits(&kernel, &[0; 16]).is_ok(), "a variable of its own has no size that is known");
        assert_eq!(words(&[1, 0, 0, 0, 0, 0, 0, 2, 3]), [0x0200_0000_0000_0001, 3]);
    }
}
