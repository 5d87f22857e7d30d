//! Loading through the library, in one place.

use std::path::Path;

use elf_layout::{Findings, KernelConfig, Layout};
use kernel::{Init, Kernel};
use kmodld::load::{Args, Opened};
use kmodld::{Load, Loader, Place, Stage};
use reloc::{Cpu, architecture};
use symres::LoadFlags;

/// The ELF checks of a kernel of which nothing but the configuration is known.
pub fn open<'d>(file: &'d [u8], config: &KernelConfig) -> Opened<'d> {
    let kernel = Kernel::unknown(config.clone());
    kmodld::load::open(file, &kernel, LoadFlags::default())
}

/// What they say.
pub fn check(file: &[u8], config: &KernelConfig) -> Findings {
    open(file, config).said
}

/// The memory plan of a module that passes the ELF checks, and what is said on the way.
pub fn lay_out(file: &[u8], config: &KernelConfig) -> (Option<Layout>, Findings) {
    let opened = open(file, config);
    assert!(!opened.said.refused(), "the module is good: {:?}", opened.said);
    let (module, mut said) = (opened.module.expect("a module"), Findings::new());
    let laid_out = kmodld::load::lay_out(
        config,
        &module,
        architecture(module.e_machine()).unwrap(),
        Cpu::default(),
        &mut said,
    );
    (laid_out.map(|l| l.layout), said)
}

/// The ELF checks of this kernel.
pub fn open_on<'d>(loader: &Loader, file: &'d [u8]) -> Opened<'d> {
    kmodld::load::open(file, &loader.kernel, LoadFlags::default())
}

/// Loads a module where the kernel would put it, up to relocation.
pub fn load<'d>(loader: &'d Loader, opened: &'d Opened<'_>) -> (Option<Load<'d>>, Findings) {
    let args = Args { stage: Stage::Relocated, ..Args::default() };
    loader.load(opened, &args, &Place::Kernel, None).whatever_it_says()
}

/// Everything a kernel says about a file, from its first byte to its last stage.
pub fn say(loader: &Loader, file: &[u8]) -> Findings {
    let opened = open_on(loader, file);
    loader.load(&opened, &Args::default(), &Place::Kernel, None).whatever_it_says().1
}

/// Loads a module and keeps it in the kernel; how many relocations that took.
pub fn keep(loader: &mut Loader, file: &[u8]) -> Result<u64, String> {
    let opened = open_on(loader, file);
    let (loaded, mut said) = load(loader, &opened);
    let Some(loaded) = loaded.filter(|_| !said.refused()) else {
        let errno = said.errno().map_or("", |e| e.name());
        let codes = said.iter().filter(|f| f.severity.refuses()).map(|f| f.code).collect::<Vec<_>>();
        return Err(format!("{errno} {codes:?} {:?}", said.dmesg().collect::<Vec<_>>()));
    };
    let unknown = loaded.resolution.imports.iter().filter(|i| i.address.is_none()).count();
    if unknown != 0 {
        return Err(format!("{unknown} imports have no address"));
    }
    let (kept, relocations) = (loader.keep(&loaded), loaded.relocations());
    drop(loaded);
    loader.insert(kept, Init::Returns(0), &mut said);
    Ok(relocations)
}

/// Loads a module at this address, up to relocation; how many slots of its linkage tables it uses.
pub fn slots_at(loader: &Loader, file: &[u8], base: u64) -> Result<u64, String> {
    let opened = open_on(loader, file);
    let args = Args { stage: Stage::Relocated, ..Args::default() };
    let (load, said) = loader.load(&opened, &args, &Place::Base(base), None).whatever_it_says();
    let load = load.filter(|_| !said.refused()).ok_or_else(|| said.dmesg().collect::<Vec<_>>().join("; "))?;
    Ok(load.plts().map(|table| table.slots.len() as u64).sum())
}

/// A loader for a kernel that has loaded these files before.
#[track_caller]
pub fn loader_with(kernel: Kernel, before: &[&Path]) -> Loader {
    let mut loader = Loader::from(kernel);
    for path in before {
        keep(&mut loader, &super::read(path)).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
    loader
}

/// (code, errno, dmesg lines) of the finding where the kernel stops.
pub fn stop(said: &Findings) -> Option<(&'static str, Option<&'static str>, Vec<String>)> {
    let finding = said.iter().find(|f| f.stops_here)?;
    Some((finding.code, finding.errno.map(|e| e.name()), finding.dmesg.clone()))
}

/// Codes of all findings in order.
pub fn codes(said: &Findings) -> Vec<&'static str> {
    said.iter().map(|f| f.code).collect()
}

/// Asserts that the kernel stops with ENOEXEC, at this rule, saying just this line.
#[track_caller]
pub fn stops_at(elf: &super::Elf, config: &KernelConfig, code: &str, line: &str, what: &str) {
    let said = check(&elf.bytes, config);
    let (found, errno, lines) = stop(&said).unwrap_or_else(|| panic!("{code}: {what}: not refused"));
    assert_eq!((found, errno), (code, Some("ENOEXEC")), "{what}: {lines:?}");
    assert_eq!(lines, [line], "{code}: {what}");
    assert_eq!(
        said.dmesg().collect::<Vec<_>>(),
        [line],
        "{code}: {what}: the log ends where the kernel stops"
    );
}
