//! A module in the kernel's list: `struct module`, as far as others see it (spec 08).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::exports::ExportTable;
use crate::taint::letters;

/// `kernel/module/main.c: MODULE_REF_BASE`: the reference that the loader itself holds (LIFE-20).
pub(crate) const REF_BASE: i32 = 1;

/// `include/linux/module.h: enum module_state` (spec 08 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModuleState {
    /// Its init has run.
    #[default]
    Live,
    /// Complete, its init still to end.
    Coming,
    /// It is being removed.
    Going,
}

impl ModuleState {
    /// The word of `/proc/modules`.
    pub const fn proc_word(self) -> &'static str {
        match self {
            ModuleState::Live => "Live",
            ModuleState::Coming => "Loading",
            ModuleState::Going => "Unloading",
        }
    }

    /// The name that `MODULE_STATE_` is put before.
    pub const fn name(self) -> &'static str {
        match self {
            ModuleState::Live => "LIVE",
            ModuleState::Coming => "COMING",
            ModuleState::Going => "GOING",
        }
    }
}

/// A module in the kernel's list: `struct module` of include/linux/module.h, as far as others see it.
#[derive(Clone, Debug)]
pub struct LoadedModule {
    /// Its name.
    pub name: Box<[u8]>,
    /// What it exports.
    pub exports: ExportTable,
    /// It has taint P (LIC-5).
    pub proprietary: bool,
    /// Only a symbol table lists it; nothing else is known of it.
    pub listed: bool,
    /// Where in its life it is.
    pub state: ModuleState,
    /// `refcnt` as it is held, the loader's own reference included (LIFE-20).
    pub refcnt: i32,
    /// Modules that use this one, newest first (LIFE-23).
    pub source_list: Vec<Box<[u8]>>,
    /// Modules that this one uses, newest first (LIFE-23).
    pub target_list: Vec<Box<[u8]>>,
    /// Has it an init function (LIFE-10)?
    pub has_init: bool,
    /// Has it an exit function?
    pub has_exit: bool,
    /// Its taints, one bit each.
    pub taints: u64,
    /// Address of its code: MOD_TEXT, before v6.4 core_layout. 0 if there is none.
    pub base: u64,
    /// Bytes of its memory without init, as `/proc/modules` counts them.
    pub size: u32,
    /// Bytes of its init memory; 0 once that is freed.
    pub init_size: u32,
    /// Addresses of its code and constants, which nobody can write (FIN-87), as far as they are known.
    pub read_only: Vec<Range<u64>>,
}

impl LoadedModule {
    /// A module that is live, with nothing known of it but its name.
    pub fn named(name: &[u8]) -> Self {
        LoadedModule { name: name.into(), ..LoadedModule::default() }
    }

    /// `kernel/module/main.c: module_refcount` (LIFE-20): 1 while it is being loaded, 0 when nobody uses it, -1
    /// when it is going.
    pub fn refcount(&self) -> i32 {
        self.refcnt.saturating_sub(REF_BASE)
    }

    /// Has it an init function and no exit function, so that only force removes it (LIFE-35)? Exit without init, or
    /// neither, keeps nobody from removing it (LIFE-31).
    pub(crate) fn is_permanent(&self) -> bool {
        self.has_init && !self.has_exit
    }

    /// `module_flags`: taints and state in parentheses, as an oops lists them; in `/proc/modules` only
    /// modules with a taint have them.
    pub(crate) fn flags(&self, show_state: bool) -> String {
        let state = match self.state {
            ModuleState::Going if show_state => "-",
            ModuleState::Coming if show_state => "+",
            _ => "",
        };
        if self.taints == 0 && (!show_state || self.state == ModuleState::Live) {
            return String::new();
        }
        format!("({}{state})", letters(self.taints))
    }

    /// `kernel/module/main.c: try_module_get` (LIFE-21, LIFE-22): takes a reference, unless the module is going.
    pub fn try_module_get(&mut self) -> bool {
        let gets = self.state != ModuleState::Going && self.refcnt > 0;
        if gets {
            self.refcnt = self.refcnt.saturating_add(1);
        }
        gets
    }

    /// `kernel/module/main.c: module_put` (LIFE-21): drops a reference. False, with a warning of the kernel, if
    /// there is none.
    pub fn module_put(&mut self) -> bool {
        let puts = self.refcnt > 0;
        if puts {
            self.refcnt = self.refcnt.saturating_sub(1);
        }
        puts
    }
}

impl Default for LoadedModule {
    fn default() -> Self {
        LoadedModule {
            name: Box::default(),
            exports: ExportTable::default(),
            proprietary: false,
            listed: false,
            state: ModuleState::Live,
            refcnt: REF_BASE,
            source_list: Vec::new(),
            target_list: Vec::new(),
            has_init: false,
            has_exit: false,
            taints: 0,
            base: 0,
            size: 0,
            init_size: 0,
            read_only: Vec::new(),
        }
    }
}
