//! Who watches a load on its way. Nothing is made for a load that nobody watches.

use elf_layout::{Findings, Layout, LoadInfo, Module};
use kernel::Taints;
use reloc::{ModArch, Record};
use symres::Resolution;

/// A point of `load_module`, named after what is over then. In the kernel's order; the program comes to some of them in
/// another one, where nothing that they say depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The system call, decompression, `module_sig_check`.
    Signature,
    /// The ELF checks.
    Elf,
    /// `blacklisted`
    Blacklist,
    /// `rewrite_section_headers`: the first rewrite.
    Rewrite,
    /// `check_modstruct_version`, `check_modinfo`, early test for duplicates.
    Versions,
    /// `module_frob_arch_sections`
    Frob,
    /// `module_enforce_rwx_sections`, and the flag edits behind it.
    Flags,
    /// `layout_sections`, `layout_symtab`
    Layout,
    /// `move_module`: the second rewrite.
    Move,
    /// `add_unformed_module`, taints, `percpu_modalloc`.
    Unformed,
    /// `find_module_sections`, `check_export_symbol_versions`, `setup_modinfo`
    Tables,
    /// `simplify_symbols`
    Symbols,
    /// `apply_relocations`
    Relocations,
    /// `post_relocation` up to `module_finalize`.
    PostRelocation,
    /// `module_finalize`, `ftrace_module_init`
    Finalize,
    /// `complete_formation`
    Formation,
    /// `prepare_coming_module`
    Coming,
    /// `parse_args`
    Parameters,
    /// `mod_sysfs_setup`
    Sysfs,
}

/// What there is of a module at a point; what a step has not made yet is `None`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Scene<'s, 'd> {
    /// The edited section headers.
    pub info: Option<&'s LoadInfo<'d>>,
    /// The memory plan.
    pub layout: Option<&'s Layout>,
    /// The module in memory.
    pub module: Option<&'s Module<'d>>,
    /// What the architecture keeps of it.
    pub mod_arch: Option<&'s ModArch>,
    /// Imports and dependencies.
    pub resolution: Option<&'s Resolution<'d>>,
    /// What was done after relocation.
    pub record: Option<&'s Record>,
    /// Taints of kernel and module.
    pub taints: Option<Taints>,
}

impl<'s, 'd> Scene<'s, 'd> {
    /// A module in memory.
    pub fn of(module: &'s Module<'d>) -> Self {
        let (info, layout) = (Some(&module.info), Some(&module.layout));
        Scene { info, layout, module: Some(module), ..Scene::default() }
    }
}

/// Who watches a load.
pub trait Observer {
    /// A step is over: what there is then, and what the kernel would have said so far.
    fn reached(&mut self, point: Point, scene: &Scene<'_, '_>, said: &Findings);
}

/// The observer of a load, if it has one.
#[derive(Default)]
pub struct Watch<'w>(pub Option<&'w mut dyn Observer>);

impl Watch<'_> {
    /// Does anybody watch?
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the observer, if there is one.
    pub fn tell<'s, 'd: 's>(&mut self, point: Point, said: &Findings, scene: impl FnOnce() -> Scene<'s, 'd>) {
        if let Some(observer) = &mut self.0 {
            observer.reached(point, &scene(), said);
        }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.is_on()).finish()
    }
}
