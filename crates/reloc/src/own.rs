//! Linux modules in an operating system of one's own: its memory, its symbols, none of Linux's rules about who may have them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::{BlockMemory, Findings, KernelConfig, LoadInfo, Module, ModuleFile};

use crate::{Architecture, Cpu, apply_relocations, architecture};

/// Why [`load_into`] gives no module.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnError {
    /// What Linux would refuse the module for as well, or a symbol that is not there.
    #[error("the module is refused: {}", lines(.0))]
    Refused(Findings),
    /// The machine of the module is none of those known: its `e_machine`.
    #[error("the module is for machine {0}, which is not known")]
    Machine(u16),
    /// The memory is too small: so many bytes are needed.
    #[error("the module needs {0} bytes")]
    TooSmall(u64),
}

fn lines(said: &Findings) -> String {
    said.iter().filter(|f| f.severity.refuses()).map(|f| &*f.explanation).collect::<Vec<_>>().join("; ")
}

/// Loads a module into one block of memory that lies at `base`: layout, symbols and relocation as Linux does them, and
/// nothing that follows. `symbols` gives the symbols their values; `symres::simplify_symbols_from` does it from any function
/// from names to addresses. [`Module::segments`] and [`Module::memory`] tell what lies where; [`Module::init`] is to be called.
///
/// # Errors
///
/// Why there is no such module.
pub fn load_into<'d, B>(
    file: &'d ModuleFile<'d>,
    config: &'d KernelConfig,
    (memory, base): (B, u64),
    symbols: impl FnOnce(&mut Module<'d>, &dyn Architecture, &mut Findings),
) -> Result<Module<'d>, OwnError>
where
    B: AsRef<[u8]> + AsMut<[u8]> + Debug + Send + Sync + 'static,
{
    let arch = architecture(file.e_machine()).ok_or(OwnError::Machine(file.e_machine()))?;
    let mut said = Findings::new();
    let mut info = LoadInfo::rewrite_section_headers(file, config);
    let mut mod_arch = arch.module_frob_arch_sections(&mut info, Cpu::default(), &mut said);
    info.edit_flags();
    let Some(layout) = layout_sections(&info, &mut said) else { return Err(OwnError::Refused(said)) };
    let needed = BlockMemory::size(&layout);
    let memory = BlockMemory::new(&layout, memory).ok_or(OwnError::TooSmall(needed))?;
    let placement = memory.placement(base);
    let mut module = move_module(info, layout, placement, Box::new(memory));
    symbols(&mut module, arch, &mut said);
    apply_relocations(arch, &mut mod_arch, &mut module, &|_, _| None, &mut said);
    if said.refused() { Err(OwnError::Refused(said)) } else { Ok(module) }
}
