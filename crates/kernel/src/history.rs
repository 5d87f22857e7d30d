//! What a kernel remembers of modules that came and went (spec 08).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::Errno;

use crate::module::ModuleState;

/// How a module's init function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// It returns 0, or a positive number, which counts as success.
    Returns(u32),
    /// It returns an error.
    Fails(Errno),
    /// It never returns: the kernel kills the task that loads the module.
    Crashes,
}

/// How a module's exit function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As it should.
    Returns,
    /// It never returns: the kernel kills the task that removes the module.
    Crashes,
}

/// Something that others can see of a module's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The notifier chain is called with this state (LIFE-45).
    Notified(ModuleState),
    /// The init function is called.
    InitCalled(Init),
    /// The exit function is called.
    ExitCalled(Exit),
    /// `do_free_init`: the memory of init is free again.
    InitFreed,
    /// The module's memory is free again and its name is gone from the list.
    Freed,
}

/// One entry of [`History::events`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The module.
    pub module: Box<[u8]>,
    /// What happens.
    pub happening: Happening,
}

/// What a kernel remembers of modules beside those that it has.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Everything that happened, oldest first.
    pub events: Vec<Event>,
    /// `last_unloaded_module`: name and flags of the last one that was removed.
    pub(crate) last_unloaded: Option<(Box<[u8]>, String)>,
    /// `unloaded_tainted_modules`, newest first (LIFE-39).
    pub(crate) unloaded_tainted: Vec<UnloadedTaint>,
}

/// `struct mod_unload_taint`
#[derive(Clone, Debug)]
pub(crate) struct UnloadedTaint {
    pub(crate) name: Box<[u8]>,
    pub(crate) taints: u64,
    pub(crate) count: u64,
}
