//! What loading and removing modules changes of a kernel, and what only a running one has.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::description::KernelDescription;
use crate::history::History;
use crate::memory::{LiveMemory, Piece};
use crate::module::LoadedModule;
use crate::space::AddressSpace;
use crate::taint::Taints;

/// A kernel as it runs: its modules and their addresses, its taints, what it remembers; its CPUs and live memory.
#[derive(Clone, Debug)]
pub struct KernelState {
    /// Oldest first.
    modules: Vec<Arc<LoadedModule>>,
    /// Its taints before the next load.
    pub taints: Taints,
    /// What it remembers of modules that came and went.
    pub history: History,
    /// The addresses that its modules take.
    pub space: AddressSpace,
    /// Number of CPUs found at boot, if known.
    pub cpus: Option<u32>,
    /// Errata of its CPUs that were given: the makers' numbers.
    pub errata: Vec<String>,
    /// The capability bitmap of its CPUs, low word first, if known.
    pub cpu_caps: Option<Vec<u64>>,
    /// Pieces of its memory as it runs; they come before what the description holds.
    pub live: Arc<Vec<Piece>>,
    /// All of its memory as it runs, where that is at hand; the pieces come before it.
    pub whole: Option<Arc<dyn LiveMemory>>,
}

impl KernelState {
    /// Fills `out` with its memory as it runs; false if not all of it is known.
    pub fn read_live(&self, address: u64, out: &mut [u8]) -> bool {
        Piece::read_any(&self.live, address, out)
            || self.whole.as_ref().is_some_and(|whole| whole.read(address, out))
    }
}

impl KernelState {
    /// That of a kernel just booted: no taints, no history, the modules that its symbol table lists.
    pub fn booted(description: &KernelDescription) -> Self {
        KernelState {
            modules: description.modules_listed().to_vec(),
            taints: Taints::default(),
            history: History::default(),
            space: AddressSpace::booted(&description.symbols),
            cpus: None,
            errata: Vec::new(),
            cpu_caps: None,
            live: Arc::default(),
            whole: None,
        }
    }

    /// Adds a module at the head of the module list (LIFE-4). One of the same name is replaced; who
    /// uses that one uses the new one.
    pub fn insert_module(&mut self, module: impl Into<Arc<LoadedModule>>) {
        let mut module = module.into();
        if let Some(old) = self.remove_module(&module.name) {
            let module = Arc::make_mut(&mut module);
            module.refcnt = module.refcnt.saturating_add(old.refcount().max(0));
            module.source_list.extend(old.source_list);
        }
        self.modules.push(module);
    }

    /// [`KernelState::insert_module`] of several, oldest first.
    pub fn insert_modules(&mut self, modules: impl IntoIterator<Item = Arc<LoadedModule>>) {
        let modules: Vec<Arc<LoadedModule>> = modules.into_iter().collect();
        let mut names: BTreeSet<&[u8]> = self.modules.iter().map(|m| &*m.name).collect();
        if modules.iter().all(|module| names.insert(&module.name)) {
            self.modules.extend(modules);
        } else {
            modules.into_iter().for_each(|module| self.insert_module(module));
        }
    }

    /// Takes a module from the list, and its exports with it.
    pub fn remove_module(&mut self, name: &[u8]) -> Option<LoadedModule> {
        let at = self.modules.iter().position(|m| *m.name == *name)?;
        Some(Arc::unwrap_or_clone(self.modules.remove(at)))
    }

    /// The loaded modules, newest first.
    pub fn modules(&self) -> impl Iterator<Item = &LoadedModule> {
        self.modules.iter().rev().map(|m| &**m)
    }

    /// The loaded module of that name.
    pub fn module(&self, name: &[u8]) -> Option<&LoadedModule> {
        self.modules.iter().find(|m| *m.name == *name).map(|m| &**m)
    }

    /// The loaded module of that name, to be changed.
    pub fn module_mut(&mut self, name: &[u8]) -> Option<&mut LoadedModule> {
        self.modules.iter_mut().find(|m| *m.name == *name).map(Arc::make_mut)
    }
}
