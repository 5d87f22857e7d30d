//! What the code of modules does to others.

use alloc::format;
use alloc::string::String;

use super::{Failed, Machine, Platform};
use crate::watch::{Allocation, Frame, Watch};
use crate::world::{Event, Kind};

/// Bytes around the stack pointer that are the stack's.
const STACK: u64 = 1 << 15;
/// Bytes of `struct list_head`.
const LIST: u64 = 16;

/// Functions that write to their first argument as many bytes as the third says.
const COPIES: &[&str] = &[
    "memcpy",
    "__memcpy",
    "memmove",
    "__memmove",
    "memset",
    "__memset",
    "copy_to_kernel_nofault",
    "copy_from_kernel_nofault",
];
/// Of them those that write nothing unless they return 0.
const CAREFUL: &[&str] = &["copy_to_kernel_nofault", "copy_from_kernel_nofault"];
/// Functions that write code.
const POKES: &[&str] = &[
    "text_poke",
    "text_poke_bp",
    "text_poke_early",
    "text_poke_copy",
    "text_poke_kgdb",
    "text_poke_set",
    "smp_text_poke_single",
];
/// Functions that change what may be done with pages.
const PERMITS: &[&str] =
    &["set_memory_rw", "set_memory_x", "set_memory_rox", "set_memory_nx", "set_memory_ro"];

/// What memory holds that is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// Something, or it is not known what.
    Written,
    /// Nothing, unless __GFP_ZERO is among the flags, which are the argument of this number.
    By(usize),
    /// Nothing.
    Nothing,
}
use Content::{By, Nothing, Written};

/// Functions that give memory: names, which argument is its size, and what it holds.
const GIVERS: &[(&str, Option<usize>, Content)] = &[
    ("__kmalloc_noprof", Some(0), By(1)),
    ("__kmalloc", Some(0), By(1)),
    ("__kmalloc_node_noprof", Some(0), Written),
    ("__kmalloc_node", Some(0), Written),
    ("__kmalloc_cache_noprof", Some(2), By(1)),
    ("__kmalloc_cache_node_noprof", None, Written),
    ("kmalloc_trace", Some(2), By(1)),
    ("kmalloc_node_trace", None, Written),
    ("__kmalloc_large_noprof", Some(0), By(1)),
    ("kmalloc_large", Some(0), By(1)),
    ("__kvmalloc_node_noprof", Some(0), Written),
    ("kvmalloc_node", Some(0), Written),
    ("krealloc_noprof", Some(1), Written),
    ("krealloc", Some(1), Written),
    ("kmem_cache_alloc_noprof", None, By(1)),
    ("kmem_cache_alloc", None, By(1)),
    ("kmem_cache_alloc_node_noprof", None, Written),
    ("kmem_cache_alloc_node", None, Written),
    ("vmalloc_noprof", Some(0), Nothing),
    ("vmalloc", Some(0), Nothing),
    ("vzalloc_noprof", Some(0), Written),
    ("vzalloc", Some(0), Written),
    ("__vmalloc_noprof", Some(0), By(1)),
    ("__vmalloc", Some(0), By(1)),
    ("vmalloc_user_noprof", Some(0), Written),
    ("vmalloc_user", Some(0), Written),
    ("kstrdup_noprof", None, Written),
    ("kstrdup", None, Written),
    ("kstrndup_noprof", None, Written),
    ("kstrndup", None, Written),
    ("kmemdup_noprof", Some(1), Written),
    ("kmemdup", Some(1), Written),
    ("kmemdup_nul", None, Written),
    ("kasprintf", None, Written),
    ("kvasprintf", None, Written),
    ("memdup_user", Some(1), Written),
    ("memdup_user_nul", Some(1), Written),
    ("strndup_user", None, Written),
    ("__get_free_pages", None, Written),
    ("get_free_pages_noprof", None, Written),
    ("get_zeroed_page", None, Written),
    ("get_zeroed_page_noprof", None, Written),
];
/// Functions that give what only another takes back, which is here told its first argument: giver, taker, and what it is.
const PAIRS: &[(&str, &str, &str)] = &[
    ("pcpu_alloc_noprof", "free_percpu", "per-cpu memory"),
    ("pcpu_alloc", "free_percpu", "per-cpu memory"),
    ("__alloc_percpu", "free_percpu", "per-cpu memory"),
    ("__kmem_cache_create_args", "kmem_cache_destroy", "a cache of objects"),
    ("kmem_cache_create", "kmem_cache_destroy", "a cache of objects"),
];

impl<C: Platform> Machine<C> {
    fn note(&mut self, watch: &mut Watch, kind: Kind, at: u64, of: Option<u64>, what: String) {
        // What begins at a symbol counts once.
        let symbol = of.map(|address| self.name_in(watch, address));
        let base = of.map_or(0, |address| match self.symbols.lookup(address) {
            Some((_, offset)) => address.wrapping_sub(offset),
            None => watch.module_at(address).map_or(address, |loaded| loaded.module),
        });
        if watch.is_new(kind, at, base) {
            let by = self.name_in(watch, at);
            self.world.event(|| Event { kind, instruction: at, by, address: of, symbol, what, memory: None });
        }
    }

    /// Is what lies at an address of the image or of a module, or around it, exported?
    fn is_exported(&self, watch: &Watch, address: u64) -> bool {
        match watch.module_at(address) {
            Some(module) => module.symbol(address).is_some_and(|symbol| {
                let wanted = format!("__ksymtab_{}", symbol.name);
                module.symbols.iter().any(|other| other.name == wanted)
            }),
            None => self
                .symbols
                .lookup(address)
                .is_none_or(|(name, _)| self.symbols.address(&format!("__ksymtab_{name}")).is_some()),
        }
    }

    /// The instruction at `at` has written `len` bytes.
    pub(super) fn wrote(&mut self, watch: &mut Watch, at: u64, address: u64, len: u64) {
        if self.hides(watch, at, address, len) {
            return;
        }
        let (start, end, _) = self.space.image;
        let of_image = (start..end).contains(&address);
        let protection = self.memory.protection(address);
        let (writable, code) = protection.map_or((true, false), |now| (now.write, now.execute));
        if watch.module_at(address).is_some_and(|owner| owner.watched) {
            return;
        }
        let sp = self.cpu.sp();
        let is_near = address.wrapping_sub(sp).wrapping_add(STACK) <= STACK << 1;
        let is_stack = is_near && self.world.heap.around(address) == self.world.heap.around(sp);
        if is_stack && !of_image || self.rights(watch, at, address) {
            return;
        }
        let owner = watch.module_at(address);
        if !of_image && owner.is_none() {
            return;
        }
        let whose = owner.map_or_else(|| "the kernel".into(), |owner| format!("module {}", owner.name));
        let of_struct = owner.is_some_and(|owner| address.wrapping_sub(owner.module) < owner.module_size);
        let (kind, what) = match (writable, code) {
            (_, true) => (Kind::Text, format!("writes {len} bytes to the code of {whose}")),
            (false, _) => (Kind::Table, format!("writes {len} bytes to read-only data of {whose}")),
            _ if of_struct => (Kind::Write, format!("writes {len} bytes to struct module of {whose}")),
            // A stack of the boot lies in the image.
            _ if is_stack => return,
            _ if self.is_exported(watch, address) => return,
            _ => (Kind::Write, format!("writes {len} bytes to memory of {whose} that is not exported")),
        };
        self.note(watch, kind, at, Some(address), what);
    }

    /// Is that a write to the list of modules?
    fn hides(&mut self, watch: &mut Watch, at: u64, address: u64, len: u64) -> bool {
        let Ok(list) = self.offset("module.list") else { return false };
        let touches = |node: u64| address < node.wrapping_add(LIST) && node < address.wrapping_add(len);
        let head = self.symbols.address("modules").is_some_and(touches);
        let found = watch.loaded.iter().position(|loaded| touches(loaded.module.wrapping_add(list)));
        if !head && found.is_none() {
            return false;
        }
        let own = watch.loaded.iter_mut().rev().find(|loaded| loaded.watched && loaded.has(at));
        // Of the writes that this takes one is enough.
        if let Some(own) = own.filter(|own| !own.hidden) {
            own.hidden = true;
            let what = format!("takes {} out of the list of modules, in which others find it", own.name);
            let node = own.module.wrapping_add(list);
            self.note(watch, Kind::Hiding, at, Some(node), what);
        }
        true
    }

    /// Is that a write to the rights of the task that runs?
    fn rights(&mut self, watch: &mut Watch, at: u64, address: u64) -> bool {
        let found = || {
            let (from, to) = (self.offset("cred.uid")?, self.offset("cred.cap_ambient")?.wrapping_add(8));
            let task = C::current(self)?;
            for member in ["task_struct.cred", "task_struct.real_cred"] {
                let cred = self.memory.u64(task.wrapping_add(self.offset(member)?))?;
                if (from..to).contains(&address.wrapping_sub(cred)) {
                    return Ok::<_, Failed>(true);
                }
            }
            Ok(false)
        };
        let found = found().unwrap_or(false);
        if found {
            let what = "writes to the credentials of the task that runs".into();
            self.note(watch, Kind::Credentials, at, Some(address), what);
        }
        found
    }

    /// Has the instruction changed whether read-only memory can be written?
    pub(super) fn protects(&mut self, watch: &mut Watch, at: u64) {
        let now = self.memory.ignores_protection();
        if now != watch.unprotected {
            watch.unprotected = now;
            let what = if now { C::UNPROTECTED } else { "read-only memory is read-only again" };
            self.note(watch, Kind::Protection, at, None, what.into());
        }
    }

    /// The module's code calls a function.
    pub(super) fn asks(&mut self, watch: &mut Watch, frame: &Frame) {
        let [first, second, _] = frame.arguments;
        let pointer = |at: u64| self.memory.u64(at).unwrap_or(0);
        let member =
            |at: u64, name: &str| self.offset(name).ok().map(|offset| pointer(at.wrapping_add(offset)));
        let text = |at: u64| self.string_at(at).unwrap_or_else(|| "something".into());
        let probed = |probe: u64| match member(probe, "kprobe.symbol_name") {
            Some(0) | None => (member(probe, "kprobe.addr"), String::new()),
            Some(name) => {
                let name = text(name);
                match self.symbols.address(&name) {
                    Some(address) => (Some(address), String::new()),
                    None => (None, format!(" {name}")),
                }
            }
        };
        let (kind, of, what) = match frame.name.as_str() {
            "register_kprobe" => {
                let (of, name) = probed(first);
                (Kind::Probe, of, format!("sets a probe{name}"))
            }
            "register_kretprobe" => {
                let (of, name) = probed(first.wrapping_add(self.offset("kretprobe.kp").unwrap_or(0)));
                (Kind::Probe, of, format!("sets a probe on returns{name}"))
            }
            "register_kprobes" | "register_kretprobes" => {
                (Kind::Probe, None, format!("sets {} probes", second as u32))
            }
            "register_ftrace_function" | "register_ftrace_function_nolock" => {
                (Kind::Tracing, None, "has functions of the kernel traced".into())
            }
            "ftrace_set_filter_ip" => (Kind::Tracing, Some(second), "chooses a function to be traced".into()),
            "ftrace_set_filter" => (Kind::Tracing, None, format!("chooses {} to be traced", text(second))),
            "register_fprobe" => (Kind::Tracing, None, format!("has {} traced", text(second))),
            "register_fprobe_ips" | "register_fprobe_syms" => {
                (Kind::Tracing, None, "has functions of the kernel traced".into())
            }
            "call_usermodehelper" | "call_usermodehelper_setup" => {
                (Kind::Program, None, format!("has the kernel start {}", text(first)))
            }
            "nf_register_net_hook" => {
                let hook = member(second, "nf_hook_ops.hook");
                (Kind::Packets, hook, "has packets shown to it (netfilter)".into())
            }
            "nf_register_net_hooks" => (Kind::Packets, None, "has packets shown to it (netfilter)".into()),
            "commit_creds" => {
                let uid =
                    self.offset("cred.uid").ok().and_then(|at| self.memory.u32(first.wrapping_add(at)).ok());
                let uid = uid.map(|uid| format!(", with uid {uid}")).unwrap_or_default();
                (Kind::Credentials, None, format!("gives the task that runs other credentials{uid}"))
            }
            "kobject_del" => {
                let Ok(offset) = self.offset("module.mkobj") else { return };
                let mut all = watch.loaded.iter().filter(|loaded| loaded.watched);
                let Some(own) = all.find(|loaded| loaded.module.wrapping_add(offset) == first) else {
                    return;
                };
                (Kind::Hiding, Some(first), format!("takes {} out of /sys/module", own.name))
            }
            name if POKES.contains(&name) => (Kind::Text, Some(first), "has code rewritten".into()),
            name if PERMITS.contains(&name) => {
                let (start, end, _) = self.space.image;
                let of_other = watch.module_at(first).is_some_and(|owner| !owner.watched);
                if !(start..end).contains(&first) && !of_other {
                    return;
                }
                (Kind::Protection, Some(first), format!("changes what may be done with memory: {name}"))
            }
            name => {
                if PAIRS.iter().any(|(_, taker, _)| *taker == name) {
                    watch.allocations.remove(&first);
                }
                return;
            }
        };
        self.note(watch, kind, frame.at, of, what);
    }

    /// A function that the module's code has called returns.
    pub(super) fn answered(&mut self, watch: &mut Watch, frame: &Frame, value: u64) {
        let name = frame.name.as_str();
        let [first, _, third] = frame.arguments;
        if COPIES.contains(&name) && (value & 0xffff_ffff == 0 || !CAREFUL.contains(&name)) && third != 0 {
            self.wrote(watch, frame.at, first, third);
        }
        let giver = GIVERS.iter().find(|(giver, ..)| *giver == name);
        let pair = PAIRS.iter().find(|(giver, ..)| *giver == name);
        if value == 0 || (giver.is_none() && pair.is_none()) || value > u64::MAX.wrapping_sub(4095) {
            return;
        }
        let number = giver.and_then(|(_, number, _)| *number);
        let size = number.and_then(|number| frame.arguments.get(number)).copied();
        if let Some((.., content)) = giver {
            self.tracks(watch, frame, value, size, *content);
        }
        let site = self.name_in(watch, frame.at);
        let function = pair.map_or(name, |(_, _, what)| what).into();
        watch.asked = watch.asked.saturating_add(1);
        watch.allocations.insert(value, (watch.asked, Allocation { address: value, size, function, site }));
    }

    /// What the modules' code has asked for and nobody has given back.
    pub fn kept_allocations(&self) -> alloc::vec::Vec<Allocation> {
        let Some(watch) = &self.watch else { return alloc::vec::Vec::new() };
        let is_pair = |one: &Allocation| PAIRS.iter().any(|(_, _, what)| *what == one.function);
        let mut kept = alloc::vec::Vec::new();
        let mut all: alloc::vec::Vec<_> = watch.allocations.values().collect();
        all.sort_by_key(|(number, _)| *number);
        for (_, one) in all {
            let size = self.world.heap.size(one.address);
            let size = size.or_else(|| self.world.vmalloc_piece(one.address).map(|(size, _)| size));
            if is_pair(one) || size.is_some() {
                kept.push(Allocation { size: one.size.or(size), ..one.clone() });
            }
        }
        kept
    }
}
