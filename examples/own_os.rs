//! own_os MODULE: loads a Linux module into memory of one's own, with symbols of one's own. `load` is what an operating system
//! without a standard library would do; `main` stands for that system.

use std::error::Error;
use std::io::Write;

use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{BlockMemory, Findings, KernelConfig, LoadInfo, ModuleFile};
use reloc::{Cpu, MACHINES, apply_relocations, architecture};
use symres::{SymbolSource, simplify_symbols_from};

/// Loads into memory that lies at `base`; gives the module's memory and the address of its init function.
pub fn load(
    file: &ModuleFile<'_>,
    config: &KernelConfig,
    (memory, base): (Vec<u8>, u64),
    symbols: &dyn SymbolSource,
    said: &mut Findings,
) -> Option<(Vec<u8>, u64)> {
    let arch = architecture(file.e_machine())?;
    let mut info = LoadInfo::rewrite_section_headers(file, config);
    let mut tables = arch.module_frob_arch_sections(&mut info, Cpu::default(), said);
    info.edit_flags();
    let layout = layout_sections(&info, said)?;
    let memory = BlockMemory::new(&layout, memory)?;
    let placement = memory.placement(base);
    let mut module = move_module(info, layout, placement, Box::new(memory));
    simplify_symbols_from(&mut module, symbols, |name| arch.ignores_undefined(name), said);
    apply_relocations(arch, &mut tables, &mut module, &|_, _| None, said);
    let init = file.symbols().iter().position(|symbol| file.symbol_name(symbol) == b"init_module")?;
    let bytes = module.segments().flat_map(|s| module.memory.region(s.region).iter().copied()).collect();
    (!said.refused()).then_some((bytes, *module.values.get(init)?))
}

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [path] = args else { return Err("own_os MODULE".into()) };
    let (bytes, mut said) = (std::fs::read(path)?, Findings::new());
    let config = kernel::newest();
    let expected = Expected { config: &config, machine: None, known: MACHINES, ignore_modversions: true };
    let file = elf_validity(&bytes, &expected, &mut said).ok_or("no module")?;
    let mut said = Findings::new();
    // Every import is served from one page of stubs, 16 bytes each.
    let names: Vec<&[u8]> = file.imports().collect();
    let stubs = |name: &[u8]| {
        let number = names.iter().position(|other| *other == name)? as u64;
        Some(number.wrapping_mul(16).wrapping_add(0xffff_ffff_c000_0000))
    };
    let loaded = load(&file, &config, (vec![0; 1 << 20], 0xffff_ffff_c100_0000), &stubs, &mut said);
    let (memory, init) = loaded.ok_or_else(|| said.dmesg().collect::<Vec<_>>().join("; "))?;
    writeln!(out, "{} bytes of memory, init_module at {init:#x}", memory.len())?;
    Ok(())
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
