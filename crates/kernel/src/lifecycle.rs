//! The life of a module in the kernel's list: states, references, init, exit, removal (spec 08).
//!
//! Here a module has no code: the caller says what its init and exit functions do.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::printed;
use elf_layout::{Change, Errno, Finding, Findings, Severity};

use crate::history::{Event, Exit, Happening, Init, UnloadedTaint};
use crate::kernel::Kernel;
use crate::module::{LoadedModule, ModuleState, REF_BASE};
use crate::taint::{Taint, letters};

/// `MODULE_NAME_LEN`: bytes of a name with its NUL.
const MODULE_NAME_LEN: usize = 56;

/// A function on the kernel's module notifier chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notifier {
    /// Its name; that of trace events and of their enum names is the same.
    pub function: &'static str,
    /// Higher ones are called first.
    pub priority: i32,
}

impl Kernel {
    /// From `add_unformed_module` to `prepare_coming_module`: a module whose load has come so far
    /// enters the list, holds a reference on every module it depends on, and is announced.
    pub fn prepare_coming_module(&mut self, module: LoadedModule, depends: &[Box<[u8]>]) {
        let name = module.name.clone();
        // module_unload_init (LIFE-20): one more reference until init is over.
        let refcnt = REF_BASE.saturating_add(1);
        self.state.insert_module(LoadedModule { state: ModuleState::Coming, refcnt, ..module });
        depends.iter().for_each(|owner| self.ref_module(&name, owner));
        self.notify(&name, ModuleState::Coming);
    }

    /// `kernel/module/main.c: ref_module` and `add_module_usage` (LIFE-23, DEP-1, DEP-2): `user` uses `used`.
    fn ref_module(&mut self, user: &[u8], used: &[u8]) {
        let unloads = self.config.module_unload;
        // DEP-3: without CONFIG_MODULE_UNLOAD there are neither counts nor edges.
        let Some(b) = self.state.module_mut(used).filter(|_| unloads) else { return };
        if !b.try_module_get() {
            return;
        }
        b.source_list.insert(0, user.into());
        if let Some(a) = self.state.module_mut(user) {
            a.target_list.insert(0, used.into());
        }
    }

    /// `kernel/module/main.c: module_unload_free`: drops the references that a module holds (DEP-5).
    fn module_unload_free(&mut self, name: &[u8]) {
        let targets = self.state.module_mut(name).map(|m| core::mem::take(&mut m.target_list));
        for target in targets.into_iter().flatten() {
            if let Some(used) = self.state.module_mut(&target) {
                used.module_put();
                used.source_list.retain(|user| **user != *name);
            }
        }
    }

    /// The end of a load that fails when the module has been announced already: `coming_cleanup`
    /// of load_module (LIFE-45).
    pub fn coming_cleanup(&mut self, name: &[u8]) {
        self.going(name);
        self.module_unload_free(name);
        self.remove(name);
    }

    /// `kernel/module/main.c: do_init_module`: calls init and does what follows (LIFE-10 to LIFE-14). False if the
    /// module is not live then.
    pub fn do_init_module(&mut self, name: &[u8], init: Init, said: &mut Findings) -> bool {
        // LIFE-10: a module without init is live at once.
        let has_init = self.module(name).is_some_and(|m| m.has_init);
        let ended = if has_init { init } else { Init::Returns(0) };
        if has_init {
            self.happens(name, Happening::InitCalled(ended));
        }
        said.stage(|said| match ended {
            Init::Returns(value) => {
                if value > 0 {
                    said.push(self.suspicious_init(name, value));
                }
                self.live(name);
            }
            Init::Fails(errno) => {
                self.fail_init(name);
                said.push(self.failed_init(name, errno));
            }
            Init::Crashes => {
                let why = format!(
                    "{} crashes in its init function: its load never ends, and it stays as it is until the next boot",
                    printed(name)
                );
                said.push(Finding::note("LIFE-15", Severity::Oops, why));
            }
        });
        matches!(ended, Init::Returns(_))
    }

    /// LIFE-14: what follows a successful init.
    fn live(&mut self, name: &[u8]) {
        if let Some(module) = self.state.module_mut(name) {
            module.state = ModuleState::Live;
        }
        self.notify(name, ModuleState::Live);
        if let Some(module) = self.state.module_mut(name) {
            module.module_put();
            module.init_size = 0;
        }
        self.happens(name, Happening::InitFreed);
    }

    /// The `fail` path of do_init_module (LIFE-12): exit is not called.
    pub fn fail_init(&mut self, name: &[u8]) {
        if let Some(module) = self.state.module_mut(name) {
            module.state = ModuleState::Going;
            module.module_put();
        }
        self.notify(name, ModuleState::Going);
        self.free_module(name);
    }

    fn failed_init(&self, name: &[u8], errno: Errno) -> Finding {
        let why = format!("the init function of {} returns -{errno}", printed(name));
        // Since v7.1 (743f8cae549a): EEXIST is left to the loader itself.
        let errno = match errno {
            Errno::EEXIST if self.config.has(Change::InitExistIsBusy) => Errno::EBUSY,
            errno => errno,
        };
        Finding::error("LIFE-12", errno, why)
    }

    /// LIFE-13: a positive value counts as success, and is complained about.
    fn suspicious_init(&self, name: &[u8], value: u32) -> Finding {
        let me = printed(name);
        let why = format!("the init function of {me} returns {value}, which counts as success");
        let finding = Finding::note("LIFE-13", Severity::Warning, why);
        let suspicious = format!("init suspiciously returned {value}, it should follow 0/-E convention");
        // Since v7.1 (663385f9155f): one line, and no stack dump.
        if self.config.has(Change::SuspiciousInitInOneLine) {
            return finding.says(format!("{me}: {suspicious}"));
        }
        let finding = finding.says(format!("do_init_module: '{me}'->{suspicious}"));
        finding.says("do_init_module: loading module anyway...")
    }

    /// `kernel/module/main.c: delete_module` (spec 08 §8.5). `force` is O_TRUNC; O_NONBLOCK says nothing. True if
    /// the module is gone.
    pub fn delete_module(&mut self, name: &[u8], force: bool, exit: Exit, said: &mut Findings) -> bool {
        if let Some(refusal) = self.refuses_to_delete(name, force) {
            said.refuse(refusal);
            return false;
        }
        // Nothing but force gets here with either (LIFE-35, LIFE-36).
        if self.module(name).is_some_and(|m| m.is_permanent() || m.refcnt != REF_BASE) {
            let why = format!("{} is removed by force: taint R of the kernel", printed(name));
            let finding = Finding::note("LIFE-36", Severity::Warning, why);
            said.push(self.state.taints.add_taint(Taint::ForcedRmmod, finding));
        }
        self.try_stop_module(name);
        let has_exit = self.module(name).is_some_and(|m| m.has_exit);
        if has_exit {
            self.happens(name, Happening::ExitCalled(exit));
        }
        if has_exit && exit == Exit::Crashes {
            let why = format!(
                "{} crashes in its exit function: its removal never ends, and it stays as it is until the next boot",
                printed(name)
            );
            said.refuse(Finding::note("LIFE-37", Severity::Oops, why));
            return false;
        }
        self.notify(name, ModuleState::Going);
        let flags = self.module(name).map(|m| m.flags(false)).unwrap_or_default();
        self.state.history.last_unloaded = Some((name.into(), flags));
        self.free_module(name);
        true
    }

    /// The tests of delete_module in their order (LIFE-32 to LIFE-36, LIFE-38).
    fn refuses_to_delete(&self, name: &[u8], force: bool) -> Option<Finding> {
        let me = printed(name);
        if !self.config.module_unload {
            let why = "this kernel is built without CONFIG_MODULE_UNLOAD: it has no such system call";
            return Some(Finding::error("LIFE-38", Errno::ENOSYS, why));
        }
        // Before v6.17 a name that is too long is cut, and not found either.
        let found = self.module(name).filter(|_| !name.is_empty() && name.len() < MODULE_NAME_LEN);
        let Some(module) = found else {
            return Some(Finding::error("LIFE-32", Errno::ENOENT, format!("no module {me} is loaded")));
        };
        if !module.source_list.is_empty() {
            let users: Vec<_> = module.source_list.iter().map(|user| printed(user)).collect();
            let why = format!("{me} is used by {}: remove that first", users.join(", "));
            return Some(Finding::error("LIFE-33", Errno::EWOULDBLOCK, why));
        }
        if module.state != ModuleState::Live {
            let state = module.state.proc_word().to_lowercase();
            let why = format!("{me} is {state}: only a live module can be removed");
            return Some(Finding::error("LIFE-34", Errno::EBUSY, why));
        }
        let can_force = force && self.config.module_force_unload;
        let hint = match self.config.module_force_unload {
            true => "force removes it (rmmod -f), at your own risk",
            false => "this kernel is built without CONFIG_MODULE_FORCE_UNLOAD: it forces no module out",
        };
        if module.is_permanent() && !can_force {
            let why = format!("{me} has an init function and no exit function: it is permanent");
            return Some(Finding::error("LIFE-35", Errno::EBUSY, why).hint(hint));
        }
        // LIFE-30
        if module.refcnt < REF_BASE {
            let why = format!("more references to {me} were dropped than taken: the kernel's BUG_ON strikes");
            return Some(Finding::note("LIFE-30", Severity::Oops, why));
        }
        if module.refcnt > REF_BASE && !can_force {
            let why = format!("{me} is in use: references held on it: {}", module.refcount());
            return Some(Finding::error("LIFE-36", Errno::EWOULDBLOCK, why).hint(hint));
        }
        None
    }

    /// A reference on a module by name, as an open file holds one (LIFE-21).
    pub fn get(&mut self, name: &[u8]) -> Findings {
        self.refer(name, LoadedModule::try_module_get, |me| {
            Finding::error("LIFE-21", Errno::ENODEV, format!("{me} is going: try_module_get fails"))
        })
    }

    /// Drops a reference on a module by name (LIFE-21).
    pub fn put(&mut self, name: &[u8]) -> Findings {
        self.refer(name, LoadedModule::module_put, |me| {
            let why = format!("{me} has no reference left to drop: the kernel warns in module_put");
            Finding::note("LIFE-21", Severity::Warning, why)
        })
    }

    fn refer(
        &mut self,
        name: &[u8],
        change: impl FnOnce(&mut LoadedModule) -> bool,
        fails: impl FnOnce(&str) -> Finding,
    ) -> Findings {
        let mut said = Findings::new();
        let me = printed(name);
        said.stage(|said| match self.state.module_mut(name).map(change) {
            None => said.push(Finding::error("LIFE-32", Errno::ENOENT, format!("no module {me} is loaded"))),
            Some(true) => {}
            Some(false) => said.push(fails(&me)),
        });
        said
    }

    /// `kernel/module/main.c: try_stop_module`, once it may (LIFE-30): the loader's own reference goes, unless
    /// others stay.
    fn try_stop_module(&mut self, name: &[u8]) {
        if let Some(module) = self.state.module_mut(name) {
            if module.refcnt == REF_BASE {
                module.refcnt = 0;
            }
            module.state = ModuleState::Going;
        }
    }

    /// `kernel/module/main.c: free_module` (LIFE-37).
    fn free_module(&mut self, name: &[u8]) {
        self.module_unload_free(name);
        self.try_add_tainted_module(name);
        self.remove(name);
    }

    /// `kernel/module/tracking.c: try_add_tainted_module` (LIFE-39).
    fn try_add_tainted_module(&mut self, name: &[u8]) {
        let taints = self.module(name).map_or(0, |m| m.taints);
        if !self.config.module_unload_taint_tracking || taints == 0 {
            return;
        }
        let list = &mut self.state.history.unloaded_tainted;
        match list.iter_mut().find(|u| *u.name == *name && u.taints & taints != 0) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => list.insert(0, UnloadedTaint { name: name.into(), taints, count: 1 }),
        }
    }

    fn going(&mut self, name: &[u8]) {
        if let Some(module) = self.state.module_mut(name) {
            module.state = ModuleState::Going;
        }
        self.notify(name, ModuleState::Going);
    }

    fn remove(&mut self, name: &[u8]) {
        self.state.remove_module(name);
        self.happens(name, Happening::Freed);
    }

    fn notify(&mut self, name: &[u8], state: ModuleState) {
        self.happens(name, Happening::Notified(state));
    }

    fn happens(&mut self, name: &[u8], happening: Happening) {
        self.state.history.events.push(Event { module: name.into(), happening });
    }

    /// The functions on the module notifier chain, in the order in which they are called, whatever the
    /// state (LIFE-46). Where the symbol table has some of them, those that it lacks are not built in.
    pub fn notifiers(&self) -> Vec<Notifier> {
        let config = &self.config;
        // By priority, then by registration: early, core, fs, device and late initcalls.
        let all = [
            // Before v6.1 its priority was 1.
            (
                "trace_kprobe_module_callback",
                if config.has(Change::KprobeEventsNotifiedFirst) { 2 } else { 1 },
                true,
            ),
            ("jump_label_module_notify", 1, true),
            // trace_events.c
            ("trace_module_notify", 1, true),
            ("kprobes_module_callback", 0, true),
            ("module_trace_bprintk_format_notify", 0, true),
            ("static_call_module_notify", 0, self.machine.is_none_or(|m| m.inline_static_calls)),
            // Since v6.4 (7deabd674988) a notifier, before that calls of load_module and free_module.
            ("ddebug_module_notify", 0, config.has(Change::DynamicDebugNotifier)),
            // trace.c
            ("trace_module_notify", 0, true),
            ("bpf_event_notify", 0, true),
            ("btf_module_notify", 0, true),
            ("tracepoint_module_notify", 0, true),
            ("srcu_module_notify", 0, true),
        ];
        let known = |function: &str| self.symbols.named(function.as_bytes()).any(|s| s.module.is_none());
        let whole = all.iter().any(|(function, ..)| known(function));
        let of_kernel =
            all.into_iter().filter(|(function, _, exists)| *exists && (!whole || known(function)));
        of_kernel.map(|(function, priority, _)| Notifier { function, priority }).collect()
    }

    /// `/proc/modules` as root reads it (LIFE-60). Modules that only a symbol table lists are not in it:
    /// what their lines say is not known.
    pub fn proc_modules(&self) -> String {
        let mut text = String::new();
        for module in self.modules().filter(|m| !m.listed) {
            let refcount = match self.config.module_unload {
                true => format!("{}", module.refcount()),
                false => String::from("-"),
            };
            let mut users: String =
                module.source_list.iter().map(|user| format!("{},", printed(user))).collect();
            if self.config.module_unload && module.is_permanent() {
                users.push_str("[permanent],");
            }
            if users.is_empty() {
                users.push('-');
            }
            let flags = if module.taints == 0 { String::new() } else { format!(" {}", module.flags(true)) };
            text.push_str(&format!(
                "{} {} {refcount} {users} {} {:#018x}{flags}\n",
                printed(&module.name),
                module.size.wrapping_add(module.init_size),
                module.state.proc_word(),
                module.base
            ));
        }
        text
    }

    /// `kernel/module/main.c: print_modules`: the lines of an oops that list modules (LIFE-61).
    pub fn print_modules(&self) -> String {
        let mut text = String::from("Modules linked in:");
        for module in self.modules().filter(|m| !m.listed) {
            text.push_str(&format!(" {}{}", printed(&module.name), module.flags(true)));
        }
        if !self.state.history.unloaded_tainted.is_empty() {
            text.push_str("\nUnloaded tainted modules:");
            for gone in &self.state.history.unloaded_tainted {
                text.push_str(&format!(" {}({}):{}", printed(&gone.name), letters(gone.taints), gone.count));
            }
        }
        if let Some((name, flags)) = &self.state.history.last_unloaded {
            // Since v6.1 (6f1dae1d84b6) with its taints.
            let flags = if self.config.has(Change::LastUnloadedTaints) { flags.as_str() } else { "" };
            text.push_str(&format!(" [last unloaded: {}{flags}]", printed(name)));
        }
        text.push('\n');
        text
    }
}
