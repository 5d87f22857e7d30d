//! The kernel that a module is loaded into.

use alloc::sync::Arc;
use core::ops::Deref;

use elf_layout::KernelConfig;

use crate::description::KernelDescription;
use crate::exports::{Export, ExportTable, Lookup, Told};
use crate::module::LoadedModule;
use crate::state::KernelState;

/// The name that a symbol's owner has in `/proc/kallsyms` terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'k> {
    /// The kernel itself.
    Vmlinux,
    /// A loaded module.
    Module(&'k [u8]),
}

impl<'k> Owner<'k> {
    /// `vmlinux`, or the module's name.
    pub fn name(self) -> &'k [u8] {
        match self {
            Owner::Vmlinux => b"vmlinux",
            Owner::Module(name) => name,
        }
    }
}

/// What a module is loaded into: a kernel as it is described, and as it runs. Facts of the description are read
/// through it (`kernel.config`). Loading a module does not change it; [`Kernel::prepare_coming_module`] and what
/// follows that does.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What does not change.
    pub description: Arc<KernelDescription>,
    /// What does.
    pub state: KernelState,
}

impl Deref for Kernel {
    type Target = KernelDescription;

    fn deref(&self) -> &KernelDescription {
        &self.description
    }
}

impl Kernel {
    /// A kernel of both.
    pub fn new(description: impl Into<Arc<KernelDescription>>, state: KernelState) -> Self {
        Kernel { description: description.into(), state }
    }

    /// A kernel just booted, with the modules that its symbol table lists; see [`KernelState::booted`].
    pub fn booted(description: impl Into<Arc<KernelDescription>>) -> Self {
        let description = description.into();
        let state = KernelState::booted(&description);
        Kernel { description, state }
    }

    /// A kernel of which nothing is known but its version and configuration.
    pub fn unknown(config: KernelConfig) -> Self {
        Kernel::booted(KernelDescription::unknown(config))
    }

    /// `kernel/module/main.c: find_symbol`: the kernel's tables, then those of each module, newest
    /// first (SYM-30). `but` is the module being loaded, which is not searched (DEP-6).
    pub fn find_symbol(&self, name: &[u8], gplok: bool, but: &[u8]) -> Option<(Owner<'_>, Export<'_>)> {
        let mut lookup = Lookup::new(name);
        self.searched(but).find_map(|(owner, exports)| Some((owner, exports.find_next(&mut lookup, gplok)?)))
    }

    /// Whose tables [`Kernel::find_symbol`] searches, in its order (SYM-30).
    pub fn searched<'k>(&'k self, but: &[u8]) -> impl Iterator<Item = (Owner<'k>, &'k ExportTable)> {
        let others = self.modules().filter(move |m| *m.name != *but);
        let others = others.map(|m| (Owner::Module(&m.name), &m.exports));
        core::iter::once((Owner::Vmlinux, self.description.exports())).chain(others)
    }

    /// What is known of the exports of one owner.
    pub fn told(&self, owner: Owner<'_>) -> Told {
        match owner {
            Owner::Vmlinux => self.description.exports().told(),
            Owner::Module(name) => self.module(name).map_or(Told::Records, |m| m.exports.told()),
        }
    }

    /// May there be exports that are not known, whether of the kernel or of a loaded module? `but` is the module being
    /// loaded.
    pub fn may_export_more(&self, but: &[u8]) -> bool {
        let others = self.modules().filter(|m| *m.name != *but).map(|m| m.exports.told());
        let mut all = others.chain([self.description.exports().told()]);
        all.any(|told| matches!(told, Told::Globals | Told::Nothing))
    }

    /// The loaded modules, newest first.
    pub fn modules(&self) -> impl Iterator<Item = &LoadedModule> {
        self.state.modules()
    }

    /// The loaded module of that name.
    pub fn module(&self, name: &[u8]) -> Option<&LoadedModule> {
        self.state.module(name)
    }

    /// [`KernelState::insert_module`]
    pub fn insert_module(&mut self, module: impl Into<Arc<LoadedModule>>) {
        self.state.insert_module(module);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KernelDescriptionBuilder, KernelSymbols, Symvers, newest};

    fn kernel(symtab: &[u8], symvers: Option<&[u8]>) -> Kernel {
        let builder = KernelDescriptionBuilder::new()
            .config("test", newest())
            .symbols("test", KernelSymbols::parse(symtab).unwrap())
            .symvers("test", symvers.map(|s| Symvers::parse(s).unwrap()));
        Kernel::booted(builder.build(&[]).unwrap())
    }

    const SYMTAB: &[u8] =
        b"1000 T plain\n1008 r __ksymtab_plain\n1010 t hidden\n2000 t gpl\t[b]\n2008 r __ksymtab_gpl\t[b]\n\
        3000 T plain\t[a]\n3008 r __ksymtab_plain\t[a]\n";

    #[test]
    fn sym_30_kernel_first_then_newest_module() {
        let symvers = b"0x01\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x02\tgpl\tx/b\tEXPORT_SYMBOL_GPL\tNS\n0x03\tlater\tx/c\tEXPORT_SYMBOL\t\n";
        let kernel = kernel(SYMTAB, Some(symvers));
        let (owner, export) = kernel.find_symbol(b"plain", true, b"me").unwrap();
        assert_eq!((owner, export.address, export.crc), (Owner::Vmlinux, Some(0x1000), Some(1)), "SYM-30");
        let (owner, export) = kernel.find_symbol(b"gpl", true, b"me").unwrap();
        assert_eq!((owner.name(), export.address, export.namespace), (&b"b"[..], Some(0x2000), &b"NS"[..]));
        assert!(kernel.find_symbol(b"gpl", false, b"me").is_none(), "SYM-31");
        assert!(kernel.find_symbol(b"gpl", true, b"b").is_none(), "DEP-6");
        assert_eq!(kernel.exporter_not_loaded(b"later").map(|n| n.module), Some(&b"c"[..]));
    }

    #[test]
    fn ksym_2_labels_stand_in_for_symvers() {
        let kernel = kernel(SYMTAB, None);
        assert!(kernel.find_symbol(b"hidden", true, b"me").is_none(), "KSYM-2: not exported");
        assert!(kernel.find_symbol(b"plain", false, b"me").is_some());
        let (_, export) = kernel.find_symbol(b"gpl", true, b"me").unwrap();
        assert!(export.gpl_only, "LIFE-51: a lower-case export of a module is GPL-only");
    }
}
