//! own_os MODULE: loads a Linux module into memory of one's own, with symbols of one's own. `load` is what an operating system
//! without a standard library would do; `main` stands for that system.

use std::error::Error;
use std::io::Write;

use elf_layout::{KernelConfig, KernelVersion, Module, ModuleFile};
use reloc::{MACHINES, OwnError, load_into};
use symres::{SymbolSource, simplify_symbols_from};

/// The module in memory that lies at an address.
pub fn load<'d>(
    file: &'d ModuleFile<'d>,
    config: &'d KernelConfig,
    memory: (Vec<u8>, u64),
    symbols: &dyn SymbolSource,
) -> Result<Module<'d>, OwnError> {
    load_into(file, config, memory, |module, arch, said| {
        simplify_symbols_from(module, symbols, |name| arch.ignores_undefined(name), said);
    })
}

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [path] = args else { return Err("own_os MODULE".into()) };
    let (bytes, config) = (std::fs::read(path)?, KernelConfig::assumed(KernelVersion::new(6, 12, 0)));
    let file = ModuleFile::parse(&bytes, &config, MACHINES).map_err(OwnError::Refused)?;
    // Every import is served from one page of stubs, 16 bytes each.
    let names: Vec<&[u8]> = file.imports().collect();
    let stub = |number: usize| 0xffff_ffff_c000_0000_u64.wrapping_add((number as u64).wrapping_mul(16));
    let stubs = |name: &[u8]| names.iter().position(|n| *n == name).map(stub);
    let module = load(&file, &config, (vec![0; 1 << 20], 0xffff_ffff_c100_0000), &stubs)?;
    let bytes: u64 = module.segments().map(|segment| segment.size).sum();
    writeln!(out, "{bytes} bytes of memory, init at {:#x}", module.init().ok_or("no init function")?)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
