//! What stands in a kernel: entries of its file systems, work queues, references; and what there is that leads to code of modules. All
//! of it is read from memory, by the types of the image.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::machine::{Failed, Machine, Platform};

/// Members of structs whose offsets are needed. Not every kernel has all of them.
pub const OFFSETS: &[(&str, &str)] = &[
    ("delayed_work", "timer"),
    ("delayed_work", "work"),
    ("dentry", "d_child"),
    ("dentry", "d_children"),
    ("dentry", "d_inode"),
    ("dentry", "d_name.name"),
    ("dentry", "d_sib"),
    ("dentry", "d_subdirs"),
    ("hrtimer", "function"),
    ("hrtimer", "node.node"),
    ("hrtimer_clock_base", "active.rb_root"),
    ("hrtimer_cpu_base", "clock_base"),
    ("irq_desc", "action"),
    ("irqaction", "handler"),
    ("irqaction", "name"),
    ("irqaction", "next"),
    ("kernfs_node", "dir.children"),
    ("kernfs_node", "flags"),
    ("kernfs_node", "name"),
    ("kernfs_node", "rb"),
    ("kprobe", "hlist"),
    ("kthread", "threadfn"),
    ("module", "refcnt"),
    ("net", "proc_net"),
    ("notifier_block", "next"),
    ("notifier_block", "notifier_call"),
    ("proc_dir_entry", "name"),
    ("proc_dir_entry", "subdir"),
    ("proc_dir_entry", "subdir_node"),
    ("rb_node", "rb_left"),
    ("rb_node", "rb_right"),
    ("task_struct", "flags"),
    ("task_struct", "tasks"),
    ("task_struct", "worker_private"),
    ("timer_base", "vectors"),
    ("timer_list", "entry"),
    ("timer_list", "function"),
    ("vfsmount", "mnt_root"),
    ("work_struct", "entry"),
    ("work_struct", "func"),
    ("worker_pool", "hash_node"),
    ("worker_pool", "worklist"),
    ("workqueue_struct", "list"),
    ("workqueue_struct", "name"),
];
/// Structs whose sizes are needed.
pub const SIZES: &[&str] = &["hrtimer_clock_base", "hrtimer_cpu_base", "timer_base", "worker_pool"];

/// Nodes of one list or tree at most; so that a loop in memory ends.
const NODES_MAX: usize = 1 << 17;
/// Directories within one another at most.
const DEPTH_MAX: usize = 40;
/// Interrupts that are asked for at most.
const INTERRUPTS_MAX: u64 = 512;

type Result<T> = core::result::Result<T, Failed>;

/// What stands in a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Paths in procfs, sysfs and debugfs.
    pub files: BTreeSet<String>,
    /// Work queues: address and name.
    pub queues: BTreeSet<(u64, String)>,
    /// Modules, and how many references there are to each.
    pub references: BTreeMap<String, i64>,
    /// Of what of this nothing is known, as this kernel is not understood.
    pub unknown: Vec<&'static str>,
}

/// Something that leads to code of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stray {
    /// What it is: `timer`, `work`, `thread`, `notifier`, `interrupt`, `probe`.
    pub kind: &'static str,
    /// More about it.
    pub what: String,
    /// The function.
    pub function: u64,
}

/// What stands there now.
pub fn standing<C: Platform>(m: &Machine<C>) -> Standing {
    let mut all = Standing::default();
    let kinds: [(&'static str, Kind<C>); 5] = [
        ("entries of procfs", proc),
        ("entries of sysfs", sys),
        ("entries of debugfs", debug),
        ("work queues", queues),
        ("references to modules", references),
    ];
    for (name, look) in kinds {
        if look(m, &mut all).is_err() {
            all.unknown.push(name);
        }
    }
    all
}

/// Kinds of [`Stray`]s.
pub const KINDS: [&str; 7] =
    ["timers", "timers of high resolution", "work", "threads", "notifiers", "interrupts", "probes"];

/// What there is whose function, or the object itself, lies where `is_owned` says, and the kinds of which nothing is known.
pub fn strays<C: Platform>(
    m: &mut Machine<C>,
    is_owned: &dyn Fn(u64) -> bool,
) -> (Vec<Stray>, Vec<&'static str>) {
    let (mut all, mut unknown) = (Vec::new(), Vec::new());
    let looks: [Look<C>; 7] = [timers, precise_timers, work, threads, notifiers, interrupts, probes];
    for (name, look) in KINDS.into_iter().zip(looks) {
        let mut found = Vec::new();
        match look(m, &mut found) {
            Ok(()) => all.extend(
                found.into_iter().filter(|(object, stray)| is_owned(stray.function) || is_owned(*object)),
            ),
            Err(_) => unknown.push(name),
        }
    }
    (all.into_iter().map(|(_, stray)| stray).collect(), unknown)
}

/// Notes what there is of one kind.
type Kind<C> = fn(&Machine<C>, &mut Standing) -> Result<()>;
/// Objects with what they lead to.
type Look<C> = fn(&mut Machine<C>, &mut Vec<(u64, Stray)>) -> Result<()>;

/// Memory of modules that are gone is still there, where nothing else leads to.
fn reachable<C: Platform>(m: &Machine<C>, at: u64) -> u64 {
    let gone = m.watch.as_ref().filter(|_| m.memory.protection(at).is_none());
    gone.and_then(|watch| watch.alias(at)).unwrap_or(at)
}

fn word<C: Platform>(m: &Machine<C>, at: u64) -> Result<u64> {
    Ok(m.memory.u64(reachable(m, at))?)
}

fn member<C: Platform>(m: &Machine<C>, at: u64, name: &str) -> Result<u64> {
    word(m, at.wrapping_add(m.offset(name)?))
}

fn name<C: Platform>(m: &Machine<C>, at: u64) -> Result<String> {
    Ok(String::from_utf8_lossy(&m.memory.cstr(reachable(m, at), 256)?).into_owned())
}

fn too_many() -> Failed {
    Failed::Because("too many of them".into())
}

/// The nodes of a red-black tree, in no order.
fn tree<C: Platform>(m: &Machine<C>, root: u64) -> Result<Vec<u64>> {
    let (mut open, mut all) = (Vec::from([word(m, root)?]), Vec::new());
    while let Some(node) = open.pop() {
        if node == 0 {
            continue;
        }
        if all.len() >= NODES_MAX {
            return Err(too_many());
        }
        all.push(node);
        open.push(member(m, node, "rb_node.rb_left")?);
        open.push(member(m, node, "rb_node.rb_right")?);
    }
    Ok(all)
}

/// The nodes of a list whose head is `head`: a `list_head` leads back to it, an `hlist_head` ends in 0.
fn list<C: Platform>(m: &Machine<C>, head: u64) -> Result<Vec<u64>> {
    let (mut node, mut all) = (word(m, head)?, Vec::new());
    while node != 0 && node != head {
        if all.len() >= NODES_MAX {
            return Err(too_many());
        }
        all.push(node);
        node = word(m, node)?;
    }
    Ok(all)
}

/// The struct of which a member lies at an address.
fn container<C: Platform>(m: &Machine<C>, at: u64, name: &str) -> Result<u64> {
    Ok(at.wrapping_sub(m.offset(name)?))
}

/// A directory and what is in it, by a function that gives names and whether there may be more inside.
fn walk(
    path: &str,
    at: u64,
    depth: usize,
    files: &mut BTreeSet<String>,
    inside: &dyn Fn(u64) -> Result<Vec<(String, u64, bool)>>,
) -> Result<()> {
    if depth == 0 || files.len() >= NODES_MAX {
        return Err(too_many());
    }
    for (name, entry, is_folder) in inside(at)? {
        let path = format!("{path}/{name}");
        if is_folder {
            walk(&path, entry, depth.saturating_sub(1), files, inside)?;
        }
        files.insert(path);
    }
    Ok(())
}

fn proc<C: Platform>(m: &Machine<C>, all: &mut Standing) -> Result<()> {
    let inside = |at: u64| {
        let nodes = tree(m, at.wrapping_add(m.offset("proc_dir_entry.subdir")?))?;
        let entry = |node: u64| {
            let entry = container(m, node, "proc_dir_entry.subdir_node")?;
            Ok((name(m, member(m, entry, "proc_dir_entry.name")?)?, entry, true))
        };
        nodes.into_iter().map(entry).collect()
    };
    walk("/proc", m.symbol("proc_root")?, DEPTH_MAX, &mut all.files, &inside)?;
    let net = member(m, m.symbol("init_net")?, "net.proc_net")?;
    if net != 0 {
        walk("/proc/net", net, DEPTH_MAX, &mut all.files, &inside)?;
    }
    Ok(())
}

fn sys<C: Platform>(m: &Machine<C>, all: &mut Standing) -> Result<()> {
    /// KERNFS_DIR
    const FOLDER: u64 = 1;
    let inside = |at: u64| {
        let nodes = tree(m, at.wrapping_add(m.offset("kernfs_node.dir.children")?))?;
        let entry = |node: u64| {
            let entry = container(m, node, "kernfs_node.rb")?;
            let flags = u64::from(m.memory.u32(entry.wrapping_add(m.offset("kernfs_node.flags")?))?);
            Ok((name(m, member(m, entry, "kernfs_node.name")?)?, entry, flags & FOLDER != 0))
        };
        nodes.into_iter().map(entry).collect()
    };
    walk("/sys", word(m, m.symbol("sysfs_root_kn")?)?, DEPTH_MAX, &mut all.files, &inside)
}

fn debug<C: Platform>(m: &Machine<C>, all: &mut Standing) -> Result<()> {
    let mount = word(m, m.symbol("debugfs_mount")?)?;
    if mount == 0 {
        return Ok(());
    }
    // Since v6.8 (dentry: switch the lists of children to hlist).
    let (head, node) = match m.offset("dentry.d_children") {
        Ok(head) => (head, m.offset("dentry.d_sib")?),
        Err(_) => (m.offset("dentry.d_subdirs")?, m.offset("dentry.d_child")?),
    };
    let inside = |at: u64| {
        let mut found = Vec::new();
        for child in list(m, at.wrapping_add(head))? {
            let entry = child.wrapping_sub(node);
            // What was removed may still be known.
            if member(m, entry, "dentry.d_inode")? != 0 {
                found.push((name(m, member(m, entry, "dentry.d_name.name")?)?, entry, true));
            }
        }
        Ok(found)
    };
    walk("/sys/kernel/debug", member(m, mount, "vfsmount.mnt_root")?, DEPTH_MAX, &mut all.files, &inside)
}

fn queues<C: Platform>(m: &Machine<C>, all: &mut Standing) -> Result<()> {
    for node in list(m, m.symbol("workqueues")?)? {
        let queue = container(m, node, "workqueue_struct.list")?;
        all.queues.insert((queue, name(m, queue.wrapping_add(m.offset("workqueue_struct.name")?))?));
    }
    Ok(())
}

fn references<C: Platform>(m: &Machine<C>, all: &mut Standing) -> Result<()> {
    for node in list(m, m.symbol("modules")?)? {
        let module = container(m, node, "module.list")?;
        let count = m.memory.u32(module.wrapping_add(m.offset("module.refcnt")?))?;
        let name = name(m, module.wrapping_add(m.offset("module.name")?))?;
        // MODULE_REF_BASE
        all.references.insert(name, i64::from(count.cast_signed()).saturating_sub(1));
    }
    Ok(())
}

/// `timer_bases`: the wheels of the processor.
fn timers<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    let (first, size) = (m.symbol("timer_bases")?, m.offset("sizeof timer_base")?);
    // Two or three of them, aligned to cache lines.
    let each = size.checked_next_multiple_of(64).unwrap_or(size);
    let behind = m.symbols.next(first).unwrap_or(first);
    let (vectors, later) = (m.offset("timer_base.vectors")?, m.symbols.address("delayed_work_timer_fn"));
    let mut base = first;
    while base.wrapping_add(size) <= behind {
        let mut at = base.wrapping_add(vectors);
        while at.wrapping_add(8) <= base.wrapping_add(size) {
            for node in list(m, m.percpu(at))? {
                let timer = container(m, node, "timer_list.entry")?;
                let function = member(m, timer, "timer_list.function")?;
                if Some(function) == later {
                    let delayed = container(m, timer, "delayed_work.timer")?;
                    let work = delayed.wrapping_add(m.offset("delayed_work.work")?);
                    let function = member(m, work, "work_struct.func")?;
                    all.push((delayed, Stray { kind: "work", what: "delayed work".into(), function }));
                } else {
                    all.push((
                        timer,
                        Stray { kind: "timer", what: "a timer that is pending".into(), function },
                    ));
                }
            }
            at = at.wrapping_add(8);
        }
        base = base.wrapping_add(each);
    }
    Ok(())
}

fn precise_timers<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    let (bases, size) = (m.symbol("hrtimer_bases")?, m.offset("sizeof hrtimer_clock_base")?);
    let first = m.percpu(bases).wrapping_add(m.offset("hrtimer_cpu_base.clock_base")?);
    // HRTIMER_MAX_CLOCK_BASES
    for number in 0..8u64 {
        let base = first.wrapping_add(number.wrapping_mul(size));
        for node in tree(m, base.wrapping_add(m.offset("hrtimer_clock_base.active.rb_root")?))? {
            let timer = container(m, node, "hrtimer.node.node")?;
            let function = member(m, timer, "hrtimer.function")?;
            all.push((
                timer,
                Stray { kind: "timer", what: "a timer of high resolution that is pending".into(), function },
            ));
        }
    }
    Ok(())
}

/// Work that waits in the pools of workers.
fn work<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    let (size, list_at) = (m.offset("sizeof worker_pool")?, m.offset("worker_pool.worklist")?);
    // NR_STD_WORKER_POOLS, aligned to cache lines
    let each = size.checked_next_multiple_of(64).unwrap_or(size);
    let own = m.percpu(m.symbol("cpu_worker_pools")?);
    let mut pools = Vec::from([own, own.wrapping_add(each)]);
    let unbound = m.symbol("unbound_pool_hash")?;
    for slot in 0..64u64 {
        for node in list(m, unbound.wrapping_add(slot.wrapping_mul(8)))? {
            pools.push(container(m, node, "worker_pool.hash_node")?);
        }
    }
    for pool in pools {
        for node in list(m, pool.wrapping_add(list_at))? {
            let work = container(m, node, "work_struct.entry")?;
            let function = member(m, work, "work_struct.func")?;
            all.push((work, Stray { kind: "work", what: "work that waits".into(), function }));
        }
    }
    Ok(())
}

fn threads<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    /// PF_KTHREAD
    const KERNEL: u32 = 0x20_0000;
    /// PF_EXITING
    const EXITING: u32 = 4;
    let first = m.symbol("init_task")?.wrapping_add(m.offset("task_struct.tasks")?);
    for node in list(m, first)? {
        let task = container(m, node, "task_struct.tasks")?;
        let flags = m.memory.u32(task.wrapping_add(m.offset("task_struct.flags")?))?;
        let kthread = member(m, task, "task_struct.worker_private")?;
        if flags & (KERNEL | EXITING) == KERNEL && kthread != 0 {
            let function = member(m, kthread, "kthread.threadfn")?;
            let what = name(m, task.wrapping_add(m.offset("task_struct.comm")?))?;
            all.push((task, Stray { kind: "thread", what, function }));
        }
    }
    Ok(())
}

/// What `notifier_chain_register` was given.
fn notifiers<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    m.symbol("notifier_chain_register")?;
    let gone = m.watch.as_ref().map(|watch| watch.memory()).unwrap_or_default();
    for (chain, block) in &m.world.notifiers {
        // A chain of the module's own is gone as well.
        if gone.iter().any(|region| region.has(*chain)) {
            continue;
        }
        // Where the compiler has put the other function into its callers, nobody sees that a block leaves.
        let (mut link, mut is_there) = (word(m, *chain)?, false);
        for _ in 0..NODES_MAX {
            is_there |= link == *block;
            if link == 0 || is_there {
                break;
            }
            link = member(m, link, "notifier_block.next")?;
        }
        if !is_there || all.iter().any(|(other, _)| other == block) {
            continue;
        }
        // The chain is a member of its head.
        let head = m.symbols.lookup(*chain).map_or_else(|| m.text(*chain), |(name, _)| name.into());
        let function = member(m, *block, "notifier_block.notifier_call").unwrap_or(0);
        all.push((*block, Stray { kind: "notifier", what: head, function }));
    }
    Ok(())
}

fn interrupts<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    let count = m.symbol("nr_irqs").or_else(|_| m.symbol("total_nr_irqs"))?;
    let count = u64::from(m.memory.u32(count)?).min(INTERRUPTS_MAX);
    for number in 0..count {
        let description = m.call("irq_to_desc", &[number])?;
        if description == 0 {
            continue;
        }
        let mut action = member(m, description, "irq_desc.action")?;
        for _ in 0..NODES_MAX {
            if action == 0 {
                break;
            }
            let function = member(m, action, "irqaction.handler")?;
            let label = match member(m, action, "irqaction.name")? {
                0 => String::new(),
                at => name(m, at).unwrap_or_default(),
            };
            all.push((action, Stray { kind: "interrupt", what: format!("{number} {label}"), function }));
            action = member(m, action, "irqaction.next")?;
        }
    }
    Ok(())
}

fn probes<C: Platform>(m: &mut Machine<C>, all: &mut Vec<(u64, Stray)>) -> Result<()> {
    let table = m.symbol("kprobe_table")?;
    // KPROBE_TABLE_SIZE
    for slot in 0..64u64 {
        for node in list(m, table.wrapping_add(slot.wrapping_mul(8)))? {
            let probe = container(m, node, "kprobe.hlist")?;
            let at = member(m, probe, "kprobe.addr")?;
            all.push((probe, Stray { kind: "probe", what: m.text(at), function: 0 }));
        }
    }
    Ok(())
}
