//! What `load_module` does up to its relocations, in its order, with nothing but the checks of this crate and those that it
//! builds on.

use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Findings, HeapMemory, KernelConfig, LoadInfo, Module, Placement};
use kernel::{Kernel, KernelDescriptionBuilder, KernelSymbols, Symvers};
use reloc::{Cpu, MACHINES, ModArch, apply_relocations, architecture};
use symres::simplify::{simplify_symbols, write_symtab};
use testkit::elf::Builder;

const KALLSYMS: &str = "ffff800040000000 T _text\nffff800040000100 T first\nffff800040000200 T second\nffff800040000300 T third\n";
const EXPORTS: &str = "0x00000000\tfirst\tvmlinux\tEXPORT_SYMBOL\t\n0x00000000\tsecond\tvmlinux\tEXPORT_SYMBOL\t\n\
    0x00000000\tthird\tvmlinux\tEXPORT_SYMBOL\t\n0x00000000\tunplaced\tvmlinux\tEXPORT_SYMBOL\t\n";
/// Where the per-cpu area goes.
const PERCPU: u64 = 0x30000;

/// Loads a module at this address into a kernel that exports `first`, `second`, `third`, and `unplaced` without an
/// address, and shows it.
pub fn with_load<R>(
    config: KernelConfig,
    b: &Builder,
    base: u64,
    show: impl FnOnce(&Module<'_>, &ModArch, &Findings) -> R,
) -> R {
    with_load_of(config, &b.build(), base, show)
}

/// The same of a file.
pub fn with_load_of<R>(
    config: KernelConfig,
    bytes: &[u8],
    base: u64,
    show: impl FnOnce(&Module<'_>, &ModArch, &Findings) -> R,
) -> R {
    let builder = KernelDescriptionBuilder::new()
        .config("test", config)
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(EXPORTS.as_bytes()).unwrap());
    let kernel = Kernel::booted(builder.build(MACHINES).unwrap());
    let (config, mut said) = (&kernel.config, Findings::new());
    let expected = Expected { config, machine: None, known: MACHINES, ignore_modversions: false };
    let file = elf_validity(bytes, &expected, &mut said).expect("a module");
    let arch = architecture(file.e_machine()).expect("an architecture");
    let mut info = LoadInfo::rewrite_section_headers(&file, config);
    let mut mod_arch = arch.module_frob_arch_sections(&mut info, Cpu::default(), &mut said);
    info.module_enforce_rwx_sections(&mut said);
    info.edit_flags();
    let mut layout = layout_sections(&info, &mut said).expect("a layout");
    layout_symtab(&mut info, &mut layout, &mut said).expect("room for the symbols");
    let placement = Placement { percpu: Some(PERCPU), ..Placement::consecutive(&layout, base) };
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    let ignores = |name: &[u8]| arch.ignores_undefined(name);
    simplify_symbols(&mut module, &kernel, kernel.state.taints, ignores, &mut said);
    let nothing = |_: &[u8], _| Some(Err(String::new()));
    write_symtab(&mut module);
    apply_relocations(arch, &mut mod_arch, &mut module, &nothing, &mut said);
    arch.refuse_in_module_finalize(&module.info, &mut said);
    show(&module, &mod_arch, &said)
}

/// (code, errno, dmesg lines) of the finding where the kernel stops.
pub fn stop(said: &Findings) -> Option<(&'static str, Option<&'static str>, Vec<String>)> {
    let finding = said.iter().find(|f| f.stops_here)?;
    Some((finding.code, finding.errno.map(|e| e.name()), finding.dmesg.clone()))
}
