//! The first half of `load_module`, as far as this crate does it.

use elf_layout::layout::{layout_sections, sections_inside};
use elf_layout::module::move_module;
use elf_layout::signature::module_sig_check;
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Findings, HeapMemory, KernelConfig, Layout, LoadInfo, Memory, ModuleFile, Placement};
use reloc::MACHINES;
use testkit::elf::Elf;
use testkit::fixtures;

/// A module after its ELF checks.
pub struct Opened<'d> {
    pub module: Option<ModuleFile<'d>>,
    pub said: Findings,
}

/// The signature cut off, and the ELF checks of a kernel with this configuration.
pub fn open<'d>(file: &'d [u8], config: &KernelConfig) -> Opened<'d> {
    open_with(file, config, false)
}

/// The same, maybe with the flag IGNORE_MODVERSIONS.
pub fn open_with<'d>(file: &'d [u8], config: &KernelConfig, ignore_modversions: bool) -> Opened<'d> {
    let mut said = Findings::new();
    let (signature, bad) = module_sig_check(file);
    let mark = said.mark();
    bad.into_iter().for_each(|finding| said.push(finding));
    said.end_stage(mark);
    let expected = Expected { config, machine: None, known: MACHINES, ignore_modversions };
    let module = elf_validity(signature.module, &expected, &mut said);
    Opened { module, said }
}

/// What the ELF checks say.
pub fn check(file: &[u8], config: &KernelConfig) -> Findings {
    open(file, config).said
}

/// A module with a memory plan. Nothing of it is what an architecture adds.
#[track_caller]
pub fn with_layout<R>(
    file: &[u8],
    config: &KernelConfig,
    show: impl FnOnce(LoadInfo<'_>, Option<Layout>, &Findings) -> R,
) -> R {
    let opened = open(file, config);
    assert!(!opened.said.refused(), "the module is good: {:?}", opened.said);
    let (module, mut said) = (opened.module.expect("a module"), Findings::new());
    let mut info = LoadInfo::rewrite_section_headers(&module, config);
    info.module_enforce_rwx_sections(&mut said);
    info.edit_flags();
    let mut layout = layout_sections(&info, &mut said);
    let planned = layout.as_mut().and_then(|layout| {
        layout_symtab(&mut info, layout, &mut said)?;
        sections_inside(&info, layout, &mut said);
        Some(())
    });
    show(info, layout.filter(|_| planned.is_some()), &said)
}

/// The memory plan of a module that passes the ELF checks, and what is said on the way.
pub fn lay_out(file: &[u8], config: &KernelConfig) -> (Option<Layout>, Findings) {
    with_layout(file, config, |_, layout, said| (layout, said.clone()))
}

/// A module in memory.
pub struct Moved {
    pub layout: Layout,
    pub placement: Placement,
    /// `sh_addr` of every section.
    pub addresses: Vec<u64>,
    pub memory: Box<dyn Memory>,
}

/// Moves a good module to this address, one region behind the other.
#[track_caller]
pub fn move_to(base: u64, file: &[u8], config: &KernelConfig) -> Moved {
    with_layout(file, config, |info, layout, said| {
        let layout = layout.unwrap_or_else(|| panic!("no layout: {said:?}"));
        let placement = Placement::consecutive(&layout, base);
        let memory = Box::new(HeapMemory::new(&layout));
        let module = move_module(info, layout, placement, memory);
        let addresses = module.info.sechdrs.iter().map(|s| s.sh_addr).collect();
        Moved { layout: module.layout, placement: module.placement, addresses, memory: module.memory }
    })
}

/// The configuration of a fixture kernel.
pub fn config(kernel: &str) -> KernelConfig {
    let mut config = KernelConfig::of_release(&fixtures::release(kernel), MACHINES).unwrap();
    config.apply(&fixtures::read(&fixtures::fixtures(kernel).join("config")), MACHINES);
    config
}

/// The fixture `hello` of a kernel.
pub fn hello(kernel: &str) -> Elf {
    Elf::new(fixtures::read(&fixtures::ko(kernel, "hello")))
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
pub fn stops_at(elf: &Elf, config: &KernelConfig, code: &str, line: &str, what: &str) {
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
