//! What stands in for functions of the kernel on every architecture, each with its reason.
//!
//! Everything that is not listed is the image's own code.

use alloc::format;
use alloc::vec::Vec;

use crate::machine::{Answer, Failed, Machine, Platform, Row, TICK};
use crate::memory::{PAGE, Protection};
use crate::world::{Cache, Event, Inits, Kind, Message};

/// What a stub gives.
type Given = Result<Answer, Failed>;

/// Longest message of the kernel (PRINTKRB_RECORD_MAX).
const MESSAGE_MAX: u64 = 1024;
/// Rounds of the idle loop without anything else to do, at most: that is an hour.
const IDLE_MAX: u64 = 900_000;
/// Callbacks that wait at most.
const CALLBACKS_MAX: usize = 1 << 20;
/// Per-cpu memory that a module gets in any case.
const PERCPU_SURE: u64 = 2048;
/// KMALLOC_MAX_SIZE: more is refused, with a warning that stubs do not give.
const KMALLOC_MAX: u64 = 4 << 20;
/// Of memory that is not there.
const SHORT: &str = "it asks for more memory than this machine has, or gives in one piece";
/// ZERO_SIZE_PTR
const ZERO_SIZE: u64 = 16;

/// The functions and what stands in for them.
pub fn rows<C: Platform>() -> Vec<Row<C>> {
    let rows = [
        Row {
            names: &[
                "__kmalloc_noprof",
                "__kmalloc_node_noprof",
                "__kmalloc_node_track_caller_noprof",
                "__kmalloc_large_noprof",
                "__kmalloc_large_node_noprof",
                "__kvmalloc_node_noprof",
                "___kmalloc_large_node",
                "_kmalloc_nolock_noprof",
                "kmalloc_nolock_noprof",
                "__kmalloc",
                "__kmalloc_node",
                "__kmalloc_node_track_caller",
                "kmalloc_large",
                "kmalloc_large_node",
                "kvmalloc_node",
            ],
            stub: |m| allocate(m, 0),
            why: "memory comes from the machine's own heap, which needs no memory zones",
        },
        Row {
            names: &[
                "vmalloc_noprof",
                "vzalloc_noprof",
                "__vmalloc_noprof",
                "__vmalloc_node_noprof",
                "vmalloc_user_noprof",
                "__vmalloc_node_range_noprof",
                "vmalloc_32_noprof",
                "vmalloc_huge_noprof",
                "vmalloc_huge_node_noprof",
                "vmalloc_node_noprof",
                "vzalloc_node_noprof",
                "vmalloc_32_user_noprof",
                "vmalloc",
                "vzalloc",
                "__vmalloc",
                "__vmalloc_node",
                "__vmalloc_node_range",
                "vmalloc_user",
                "vmalloc_32",
                "vmalloc_huge",
                "vmalloc_node",
                "vzalloc_node",
                "vmalloc_32_user",
            ],
            stub: vmalloc,
            why: "memory comes from the machine's own heap; between two pieces is a page that nobody may touch",
        },
        Row {
            names: &["vmalloc_to_page"],
            stub: |m| Ok(Answer::Value(page_of(m, m.argument(0)?))),
            why: "there are no page tables",
        },
        Row {
            names: &["vmalloc_to_pfn"],
            stub: |m| Ok(Answer::Value(m.memory.physical(m.argument(0)?).unwrap_or(0) / PAGE)),
            why: "there are no page tables",
        },
        Row {
            names: &["__kmalloc_cache_noprof", "kmalloc_trace", "kmalloc_trace_noprof"],
            stub: |m| allocate(m, 2),
            why: "memory comes from the machine's own heap",
        },
        Row {
            names: &["__kmalloc_cache_node_noprof", "kmalloc_node_trace", "kmalloc_node_trace_noprof"],
            stub: |m| allocate(m, 3),
            why: "memory comes from the machine's own heap",
        },
        Row {
            names: &[
                "kfree",
                "kvfree",
                "kfree_sensitive",
                "vfree",
                "vfree_atomic",
                "kvfree_sensitive",
                "kfree_const_real",
                "kfree_nolock",
            ],
            stub: |m| free(m, 0),
            why: "memory comes from the machine's own heap; what is freed is never given out again",
        },
        Row {
            names: &[
                "krealloc_noprof",
                "krealloc",
                "krealloc_node_align_noprof",
                "kvrealloc_noprof",
                "kvrealloc_node_align_noprof",
                "vrealloc_noprof",
                "vrealloc_node_align_noprof",
            ],
            stub: reallocate,
            why: "memory comes from the machine's own heap",
        },
        Row { names: &["ksize", "__ksize"], stub: size_of, why: "memory comes from the machine's own heap" },
        Row {
            names: &["kmalloc_size_roundup"],
            stub: |m| Ok(Answer::Value(m.argument(0)?)),
            why: "the machine's own heap has no sizes of objects",
        },
        Row {
            names: &["__kmem_cache_create_args"],
            stub: create_cache_by_args,
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_create_usercopy"],
            stub: |m| create_cache(m, 6),
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_create"],
            stub: |m| create_cache(m, 4),
            why: "caches are the machine's own",
        },
        Row {
            names: &[
                "kmem_cache_alloc_noprof",
                "kmem_cache_alloc_lru_noprof",
                "kmem_cache_alloc_node_noprof",
                "kmem_cache_alloc",
                "kmem_cache_alloc_lru",
                "kmem_cache_alloc_node",
            ],
            stub: cache_allocate,
            why: "caches are the machine's own",
        },
        Row { names: &["kmem_cache_free"], stub: |m| free(m, 1), why: "caches are the machine's own" },
        Row { names: &["kmem_cache_free_bulk"], stub: cache_free_bulk, why: "caches are the machine's own" },
        Row {
            names: &["kmem_cache_alloc_bulk_noprof", "kmem_cache_alloc_bulk"],
            stub: cache_allocate_bulk,
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_prefill_sheaf"],
            stub: |m| {
                let (at, count) = (m.allocate(64, 64)?, m.argument(2)? as u32);
                m.memory.write(at, &count.to_le_bytes())?;
                Ok(Answer::Value(at))
            },
            why: "caches are the machine's own: a sheaf is how many objects it still has",
        },
        Row {
            names: &["kmem_cache_refill_sheaf"],
            stub: |m| {
                let (at, count) = (m.memory.u64(m.argument(2)?)?, m.argument(3)? as u32);
                let count = count.max(m.memory.u32(at)?);
                m.memory.write(at, &count.to_le_bytes())?;
                Ok(Answer::Value(0))
            },
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_alloc_from_sheaf_noprof"],
            stub: |m| {
                let (cache, at) = (m.argument(0)?, m.argument(2)?);
                let Some(left) = m.memory.u32(at)?.checked_sub(1) else { return Ok(Answer::Value(0)) };
                m.memory.write(at, &left.to_le_bytes())?;
                Ok(Answer::Value(object_of(m, cache)?))
            },
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_return_sheaf"],
            stub: |m| free(m, 2),
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_sheaf_size"],
            stub: |m| Ok(Answer::Value(m.memory.u32(m.argument(0)?)?.into())),
            why: "caches are the machine's own",
        },
        Row {
            names: &["kmem_cache_destroy", "kmem_cache_shrink", "kmem_buckets_create"],
            stub: nothing,
            why: "caches are the machine's own, and cost nothing",
        },
        Row {
            names: &[
                "__alloc_pages_noprof",
                "alloc_pages_noprof",
                "alloc_pages_mpol_noprof",
                "__alloc_pages",
                "alloc_pages",
                "folio_alloc_noprof",
                "__folio_alloc_noprof",
                "folio_alloc",
                "__folio_alloc",
                "__alloc_frozen_pages_noprof",
                "alloc_frozen_pages_noprof",
            ],
            stub: allocate_pages,
            why: "pages come from the machine's own heap, which needs no memory zones",
        },
        Row {
            names: &["__free_pages", "__folio_put", "free_unref_page", "free_frozen_pages"],
            stub: free_page,
            why: "pages are never given out again",
        },
        Row {
            names: &["free_pages"],
            stub: |m| {
                let address = m.argument(0)?;
                give_back(m, address);
                Ok(Answer::Value(0))
            },
            why: "pages are never given out again",
        },
        Row {
            names: &[
                "free_unref_folios",
                "free_unref_page_list",
                "free_pages_nolock",
                "free_frozen_pages_nolock",
            ],
            stub: nothing,
            why: "pages are never given out again",
        },
        Row {
            names: &["pcpu_alloc_noprof", "pcpu_alloc"],
            stub: allocate_percpu,
            why: "there is one processor, with one area",
        },
        Row { names: &["free_percpu"], stub: nothing, why: "per-cpu memory is never given out again" },
        Row {
            names: &[
                "memblock_alloc_try_nid",
                "memblock_alloc_try_nid_raw",
                "memblock_alloc_exact_nid_raw",
                "memblock_alloc_try_nid_noprof",
            ],
            stub: |m| {
                let (size, align) = (m.argument(0)?, m.argument(1)?);
                Ok(Answer::Value(m.allocate(size, power(align.max(64)))?))
            },
            why: "early memory comes from the machine's own heap",
        },
        Row {
            names: &["find_vm_area"],
            stub: find_vm_area,
            why: "vmalloc memory comes from the machine's own heap",
        },
        Row {
            names: &["find_vmap_area"],
            stub: find_vmap_area,
            why: "vmalloc memory comes from the machine's own heap",
        },
        Row {
            names: &["vprintk_emit"],
            stub: vprintk_emit,
            why: "the log is the machine's; vscnprintf formats it",
        },
        Row { names: &["console_trylock"], stub: nothing, why: "there is no console" },
        Row {
            names: &[
                "synchronize_rcu",
                "synchronize_rcu_expedited",
                "synchronize_srcu",
                "synchronize_srcu_expedited",
                "synchronize_rcu_tasks",
                "synchronize_rcu_tasks_rude",
                "synchronize_rcu_tasks_trace",
            ],
            stub: called_back,
            why: "one processor that nothing interrupts: every grace period is over",
        },
        Row {
            names: &["rcu_barrier", "srcu_barrier", "rcu_barrier_tasks", "rcu_barrier_tasks_trace"],
            stub: called_back,
            why: "one processor that nothing interrupts: callbacks are called here",
        },
        Row {
            names: &["call_rcu", "call_rcu_hurry", "call_rcu_tasks", "call_rcu_tasks_trace"],
            stub: |m| wait_for_grace(m, 0),
            why: "callbacks are called when the kernel is idle",
        },
        Row {
            names: &["call_srcu"],
            stub: |m| wait_for_grace(m, 1),
            why: "callbacks are called when the kernel is idle",
        },
        Row { names: &["kvfree_call_rcu"], stub: nothing, why: "freed memory is never given out again" },
        Row {
            names: &[
                "sched_clock",
                "local_clock",
                "sched_clock_cpu",
                "native_sched_clock",
                "sched_clock_noinstr",
                "local_clock_noinstr",
            ],
            stub: |m| {
                m.world.time = m.world.time.wrapping_add(1000);
                Ok(Answer::Value(m.world.time))
            },
            why: "time is the machine's, so that every run is the same",
        },
        Row {
            names: &["read_persistent_clock64"],
            stub: |m| {
                let at = m.argument(0)?;
                m.memory.write(at, &1_700_000_000u64.to_le_bytes())?;
                m.memory.write(at.wrapping_add(8), &[0; 8])?;
                Ok(Answer::Value(0))
            },
            why: "there is no clock: every boot is at the same moment",
        },
        Row { names: &["__delay"], stub: nothing, why: "time is the machine's" },
        Row { names: &["__udelay"], stub: |m| delay(m, 1000, 1), why: "time is the machine's" },
        Row { names: &["__ndelay"], stub: |m| delay(m, 1, 1), why: "time is the machine's" },
        // 2^32 / 10^6
        Row { names: &["__const_udelay"], stub: |m| delay(m, 1000, 0x10c7), why: "time is the machine's" },
        Row {
            names: &["get_random_bytes"],
            stub: random_bytes,
            why: "random numbers are the machine's, so that every run is the same",
        },
        Row {
            names: &["get_random_u8"],
            stub: |m| Ok(Answer::Value(m.world.random() & 0xff)),
            why: "random numbers are the machine's",
        },
        Row {
            names: &["get_random_u16"],
            stub: |m| Ok(Answer::Value(m.world.random() & 0xffff)),
            why: "random numbers are the machine's",
        },
        Row {
            names: &["get_random_u32"],
            stub: |m| Ok(Answer::Value(m.world.random() & 0xffff_ffff)),
            why: "random numbers are the machine's",
        },
        Row {
            names: &["get_random_u64"],
            stub: |m| Ok(Answer::Value(m.world.random())),
            why: "random numbers are the machine's",
        },
        Row {
            names: &["__get_random_u32_below"],
            stub: |m| {
                let ceil = m.argument(0)? & 0xffff_ffff;
                let value = m.world.random();
                Ok(Answer::Value(value.checked_rem(ceil).unwrap_or(0)))
            },
            why: "random numbers are the machine's",
        },
        Row {
            names: &[
                "__memcg_kmem_charge_page",
                "mem_cgroup_from_obj",
                "__mod_memcg_lruvec_state",
                "__mod_lruvec_page_state",
                "__mod_lruvec_kmem_state",
                "mod_node_page_state",
                "__mod_node_page_state",
                "mod_zone_page_state",
                "__inc_node_page_state",
                "__dec_node_page_state",
                "inc_node_page_state",
                "dec_node_page_state",
                "mod_lruvec_kmem_state",
                "mod_lruvec_page_state",
                "mod_memcg_lruvec_state",
                "lruvec_stat_mod_folio",
                "__lruvec_stat_mod_folio",
                "mod_lruvec_state",
                "__mod_lruvec_state",
                "__mod_zone_page_state",
            ],
            stub: nothing,
            why: "statistics of memory zones, which there are none of",
        },
        Row {
            names: &[
                "shrinker_register",
                "register_shrinker",
                "unregister_shrinker",
                "shrinker_free",
                "lru_gen_online_memcg",
                "lru_gen_init_memcg",
                "numa_default_policy",
            ],
            stub: nothing,
            why: "memory is never reclaimed, and has no nodes",
        },
        Row {
            names: &["si_mem_available"],
            stub: |_| Ok(Answer::Value(50_000)),
            why: "memory has no zones: most of it is free",
        },
        Row {
            names: &["trace_event_update_all", "trace_event_eval_update"],
            stub: |m| {
                let (start, end, _) = m.space.image;
                let of_kernel = (start..end).contains(&m.argument(0)?);
                Ok(if of_kernel { Answer::Value(0) } else { Answer::Pass })
            },
            why: "it would write the values of enums into all formats of the kernel's events, which takes longer than the boot; for those of \
                  modules it is executed",
        },
        Row {
            names: &["shrinker_alloc"],
            stub: |m| Ok(Answer::Value(m.allocate(512, 64)?)),
            why: "memory is never reclaimed",
        },
        Row {
            names: &[
                "irq_work_queue",
                "defer_console_output",
                "wake_up_klogd",
                "dump_stack",
                "nbcon_kthreads_wake",
                "printk_trigger_flush",
            ],
            stub: nothing,
            why: "they show messages, which the machine does",
        },
        Row {
            names: &[
                "sync_rcu_do_polled_gp",
                "start_poll_synchronize_rcu_expedited",
                "rcu_scheduler_starting",
                "sched_mm_cid_fork0",
                "perf_event_task_tick",
                "rcu_sched_clock_irq",
                "calc_global_load_tick",
            ],
            stub: nothing,
            why: "one processor that nothing interrupts: nothing to do",
        },
        Row {
            names: &["execmem_alloc", "execmem_alloc_rw"],
            stub: executable_memory,
            why: "the module area is the machine's",
        },
        Row {
            names: &["module_alloc"],
            stub: |m| {
                let size = m.argument(0)?;
                Ok(Answer::Value(module_memory(m, size, PAGE)?))
            },
            why: "the module area is the machine's",
        },
        Row {
            names: &["execmem_free", "module_memfree"],
            stub: free_module_memory,
            why: "the module area is the machine's",
        },
        Row {
            names: &["set_memory_ro", "execmem_restore_rox"],
            stub: |m| protect(m, Protection { write: false, ..Protection::ALL }, true),
            why: "there are no page tables: permissions are the machine's",
        },
        Row {
            names: &["set_memory_rw", "execmem_make_temp_rw"],
            stub: |m| protect(m, Protection { write: true, ..Protection::ALL }, true),
            why: "there are no page tables: permissions are the machine's",
        },
        Row {
            names: &["set_memory_nx"],
            stub: |m| protect(m, Protection::DATA, false),
            why: "there are no page tables: permissions are the machine's",
        },
        Row {
            names: &["set_memory_x"],
            stub: |m| protect(m, Protection::ALL, false),
            why: "there are no page tables: permissions are the machine's",
        },
        Row {
            names: &["set_memory_rox"],
            stub: |m| protect_as(m, Protection::CODE),
            why: "there are no page tables: permissions are the machine's",
        },
        Row {
            names: &[
                "set_direct_map_invalid_noflush",
                "set_direct_map_default_noflush",
                "set_direct_map_valid_noflush",
                "execmem_is_rox",
                "module_enable_nx",
                "execmem_reset",
            ],
            stub: nothing,
            why: "there are no page tables",
        },
        Row {
            names: &["kernel_init_freeable"],
            stub: arrive,
            why: "from here on the machine says what process 1 does",
        },
        Row { names: &["panic", "vpanic"], stub: panics, why: "the kernel would stop" },
        Row {
            names: &["do_init_module"],
            stub: comes,
            why: "it is executed; the module that comes is noted",
        },
        Row {
            names: &["notifier_chain_register"],
            stub: |m| {
                let link = (m.argument(0)?, m.argument(1)?);
                m.world.notifiers.push(link);
                Ok(Answer::Pass)
            },
            why: "it is executed; who is in which chain is noted",
        },
        Row {
            names: &["notifier_chain_unregister"],
            stub: |m| {
                let link = (m.argument(0)?, m.argument(1)?);
                m.world.notifiers.retain(|other| *other != link);
                Ok(Answer::Pass)
            },
            why: "it is executed; who is in which chain is noted",
        },
        Row { names: &["do_one_initcall"], stub: before_init, why: "load_module may be all that is wanted" },
        Row {
            names: &["verify_pkcs7_signature"],
            stub: |m| Ok(m.world.trust.map_or(Answer::Pass, |result| Answer::Value(result as u64))),
            why: "no certificate is in the keyrings: who asks may know the answer",
        },
        Row {
            names: &["pkcs7_verify"],
            stub: |m| {
                m.world.doubt("no certificate is in the keyrings, and a signature is verified");
                Ok(Answer::Pass)
            },
            why: "it is executed; that it decides is noted",
        },
    ];
    rows.into()
}

/// Notes a call of a function, which is executed all the same.
pub fn watched<C: Platform>(m: &mut Machine<C>) -> Given {
    let arguments = (0..4).map(|number| m.argument(number)).collect::<Result<Vec<_>, _>>()?;
    let (function, instruction) = (m.cpu.pc(), m.cpu.return_address(&m.memory)?);
    let (name, by) = (m.text(function), m.text(instruction));
    let what = format!("{name}({arguments:#x?})").replace(['\n', ' '], "");
    let (address, symbol) = (Some(function), Some(name));
    m.world.event(|| Event { kind: Kind::Call, instruction, by, address, symbol, what, memory: None });
    Ok(Answer::Pass)
}

/// The next power of two.
fn power(align: u64) -> u64 {
    align.checked_next_power_of_two().unwrap_or(PAGE)
}

fn nothing<C: Platform>(_: &mut Machine<C>) -> Given {
    Ok(Answer::Value(0))
}

/// kmalloc: sizes that are powers of two are aligned to themselves, up to a page.
fn kmalloc<C: Platform>(m: &mut Machine<C>, size: u64) -> Result<u64, Failed> {
    let align = match size {
        0 => return Ok(ZERO_SIZE),
        _ if size >= PAGE => PAGE,
        _ if size.is_power_of_two() => size.max(16),
        _ => 16,
    };
    if size > KMALLOC_MAX {
        m.world.doubt(SHORT);
    }
    // What asks for more than there is gets nothing, as in a kernel.
    Ok(m.allocate(size, align).unwrap_or(0))
}

/// Memory of whole pages in the vmalloc area. Before there is a process 1 it is on the heap as it is.
fn vmalloc<C: Platform>(m: &mut Machine<C>) -> Given {
    let size = m.argument(0)?;
    if !m.world.is_booted {
        return Ok(Answer::Value(kmalloc(m, size)?));
    }
    Ok(Answer::Value(vmalloc_pages(m, size, Protection::DATA)?))
}

/// Whole pages of the vmalloc area, with one that nobody may touch behind them; 0 if there is no room.
fn vmalloc_pages<C: Platform>(m: &mut Machine<C>, size: u64, protection: Protection) -> Result<u64, Failed> {
    let pages = size.div_ceil(PAGE).saturating_mul(PAGE);
    let start = m.world.vmalloc_area;
    let next = start.checked_add(pages).and_then(|end| end.checked_add(PAGE));
    let next = next.filter(|next| *next <= m.space.vmalloc.1 && pages != 0);
    let room = next.and_then(|next| Some((next, m.allocate(pages, PAGE).ok()?)));
    let Some((next, memory)) = room else {
        m.world.doubt(SHORT);
        return Ok(0);
    };
    let physical = m.memory.physical(memory).unwrap_or(u64::MAX);
    if !m.memory.map(start, pages, physical, protection) {
        return Ok(0);
    }
    m.world.vmalloc_area = next;
    m.world.vmalloc_pieces.push((start, pages, memory));
    Ok(start)
}

/// False if no vmalloc memory begins there.
fn vfree<C: Platform>(m: &mut Machine<C>, address: u64) -> bool {
    let pieces = &mut m.world.vmalloc_pieces;
    let Some(at) = pieces.iter().position(|(start, ..)| *start == address) else { return false };
    let (start, size, memory) = pieces.swap_remove(at);
    m.memory.unmap(start, start.wrapping_add(size));
    m.world.heap.free(memory);
    true
}

/// The size of the memory that begins at an address.
fn size_at<C: Platform>(m: &Machine<C>, address: u64) -> Option<u64> {
    m.world.heap.size(address).or_else(|| m.world.vmalloc_piece(address).map(|(size, _)| size))
}

fn allocate<C: Platform>(m: &mut Machine<C>, number: usize) -> Given {
    let size = m.argument(number)?;
    Ok(Answer::Value(kmalloc(m, size)?))
}

fn free<C: Platform>(m: &mut Machine<C>, number: usize) -> Given {
    let address = m.argument(number)?;
    if give_back(m, address) || address <= ZERO_SIZE || !m.world.is_booted {
        return Ok(Answer::Value(0));
    }
    if m.sanitizes() || is_on_heap(m, address) {
        let instruction = m.cpu.return_address(&m.memory)?;
        let by = m.text(instruction);
        let memory = m.freed_wrongly(address);
        let freed = memory
            .as_ref()
            .and_then(|memory| memory.object.as_ref())
            .is_some_and(|object| object.address == address && object.freed.is_some());
        let what = match freed {
            true => format!("free of {address:#x} for the second time"),
            false => format!("free of {address:#x}, which is not allocated"),
        };
        let address = Some(address);
        m.world.event(|| Event { kind: Kind::Free, instruction, by, address, symbol: None, what, memory });
    }
    Ok(Answer::Value(0))
}

/// Memory is free from now on. False if nothing begins there that is in use.
fn give_back<C: Platform>(m: &mut Machine<C>, address: u64) -> bool {
    if size_at(m, address).is_none() {
        return false;
    }
    m.frees(address);
    m.world.heap.free(address) || vfree(m, address)
}

fn is_on_heap<C: Platform>(m: &Machine<C>, address: u64) -> bool {
    address >= m.space.direct && address.wrapping_sub(m.space.direct) < m.memory.size()
}

fn reallocate<C: Platform>(m: &mut Machine<C>) -> Given {
    let (old, size) = (m.argument(0)?, m.argument(1)?);
    let had = size_at(m, old).unwrap_or(0);
    if size == 0 {
        give_back(m, old);
        return Ok(Answer::Value(ZERO_SIZE));
    }
    if size <= had {
        return Ok(Answer::Value(old));
    }
    let new = kmalloc(m, size)?;
    if new != 0 {
        let bytes = m.memory.bytes(old, usize::try_from(had).unwrap_or(0));
        if had != 0 {
            m.memory.write(new, &bytes?)?;
        }
        give_back(m, old);
    }
    Ok(Answer::Value(new))
}

fn size_of<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    Ok(Answer::Value(size_at(m, address).unwrap_or(0)))
}

/// A `struct kmem_cache` of which only the sizes are set.
fn new_cache<C: Platform>(m: &mut Machine<C>, size: u64, align: u64, constructor: u64) -> Given {
    let size = size & 0xffff_ffff;
    let cache = m.allocate(1024, 64)?;
    for member in ["kmem_cache.size", "kmem_cache.object_size"] {
        let at = cache.wrapping_add(m.offset(member)?);
        m.memory.write(at, &(size as u32).to_le_bytes())?;
    }
    m.world
        .caches
        .insert(cache, Cache { size, align: power((align & 0xffff_ffff).clamp(64, PAGE)), constructor });
    Ok(Answer::Value(cache))
}

/// `(name, object_size, struct kmem_cache_args *, flags)`
fn create_cache_by_args<C: Platform>(m: &mut Machine<C>) -> Given {
    let (size, args) = (m.argument(1)?, m.argument(2)?);
    let (mut align, mut constructor) = (0, 0);
    if args != 0 {
        align = m.memory.u32(args.wrapping_add(m.offset("kmem_cache_args.align")?))?.into();
        constructor = m.memory.u64(args.wrapping_add(m.offset("kmem_cache_args.ctor")?))?;
    }
    new_cache(m, size, align, constructor)
}

/// `(name, size, align, flags, ..., ctor)`
fn create_cache<C: Platform>(m: &mut Machine<C>, constructor: usize) -> Given {
    let (size, align, constructor) = (m.argument(1)?, m.argument(2)?, m.argument(constructor)?);
    new_cache(m, size, align, constructor)
}

fn object_of<C: Platform>(m: &mut Machine<C>, cache: u64) -> Result<u64, Failed> {
    let known = m.world.caches.get(&cache).copied();
    let cache = known.ok_or_else(|| Failed::Because(format!("{cache:#x} is no kmem_cache")))?;
    let object = m.allocate(cache.size, cache.align)?;
    if cache.constructor != 0 {
        m.call_at(cache.constructor, &[object])?;
    }
    Ok(object)
}

fn cache_allocate<C: Platform>(m: &mut Machine<C>) -> Given {
    let cache = m.argument(0)?;
    Ok(Answer::Value(object_of(m, cache)?))
}

/// `(cache, size, void **)`
fn cache_free_bulk<C: Platform>(m: &mut Machine<C>) -> Given {
    let (count, list) = (m.argument(1)?, m.argument(2)?);
    for number in 0..count {
        let object = m.memory.u64(list.wrapping_add(number.wrapping_mul(8)))?;
        give_back(m, object);
    }
    Ok(Answer::Value(0))
}

/// `(cache, flags, size, void **)`
fn cache_allocate_bulk<C: Platform>(m: &mut Machine<C>) -> Given {
    let (cache, count, list) = (m.argument(0)?, m.argument(2)?, m.argument(3)?);
    for number in 0..count {
        let object = object_of(m, cache)?;
        m.memory.write(list.wrapping_add(number.wrapping_mul(8)), &object.to_le_bytes())?;
    }
    Ok(Answer::Value(count))
}

/// `(gfp, order, ...)`: a `struct page` with one reference and no mapping.
fn allocate_pages<C: Platform>(m: &mut Machine<C>) -> Given {
    let order = m.argument(1)? & 0x1f;
    let size = PAGE.checked_shl(order as u32).unwrap_or(u64::MAX);
    let Ok(address) = m.allocate(size, size) else { return Ok(Answer::Value(0)) };
    let page = page_of(m, address);
    let (count, mapped) = (m.offset("page._refcount")?, m.offset("page._mapcount")?);
    m.memory.write(page.wrapping_add(count), &1u32.to_le_bytes())?;
    m.memory.write(page.wrapping_add(mapped), &u32::MAX.to_le_bytes())?;
    Ok(Answer::Value(page))
}

/// The `struct page` of an address.
fn page_of<C: Platform>(m: &Machine<C>, address: u64) -> u64 {
    let frame = m.memory.physical(address).unwrap_or(0) / PAGE;
    m.space.pages.wrapping_add(frame.wrapping_mul(m.space.page_struct))
}

/// `(page, ...)`: one reference fewer; without any, the memory counts as free.
fn free_page<C: Platform>(m: &mut Machine<C>) -> Given {
    let page = m.argument(0)?;
    let count = m.memory.u32(page.wrapping_add(m.offset("page._refcount")?))?;
    if count <= 1 {
        let number = page.wrapping_sub(m.space.pages).checked_div(m.space.page_struct).unwrap_or(0);
        give_back(m, m.space.direct.wrapping_add(number.wrapping_mul(PAGE)));
    }
    Ok(Answer::Value(0))
}

/// `(size, align, reserved, ...)`
fn allocate_percpu<C: Platform>(m: &mut Machine<C>) -> Given {
    let (size, wanted, reserved) = (m.argument(0)?, m.argument(1)?, m.argument(2)? & 1 != 0);
    // What the kernel keeps for modules has 8 KiB, and is laid out by code that is not executed.
    if reserved && (size > PERCPU_SURE || !(1..=PAGE).contains(&wanted) || !wanted.is_power_of_two()) {
        m.world.doubt("per-cpu memory of modules has no end here, and any alignment");
    }
    let align = power(wanted.max(8));
    let (next, end) = m.world.percpu;
    let start = next.wrapping_add(align.wrapping_sub(1)) & !align.wrapping_sub(1);
    match start.checked_add(size).filter(|next| *next <= end) {
        Some(next) => {
            m.world.percpu.0 = next;
            Ok(Answer::Value(start))
        }
        // PCPU memory is short: NULL.
        None => Ok(Answer::Value(0)),
    }
}

/// A `struct vm_struct` with the pages of the piece of memory at an address.
fn find_vm_area<C: Platform>(m: &mut Machine<C>) -> Given {
    /// VM_ALLOC
    const VM_ALLOC: u64 = 2;
    let address = m.argument(0)?;
    let piece = m.world.module_pieces.iter().find(|(start, _)| *start == address).map(|(_, size)| *size);
    let Some(size) = size_at(m, address).or(piece) else { return Ok(Answer::Value(0)) };
    let count = size.div_ceil(PAGE);
    let pages = m.allocate(count.saturating_mul(8), 64)?;
    for number in 0..count {
        let page = page_of(m, address.wrapping_add(number.wrapping_mul(PAGE)));
        m.memory.write(pages.wrapping_add(number.wrapping_mul(8)), &page.to_le_bytes())?;
    }
    let area = m.allocate(128, 64)?;
    for (member, value) in [
        ("vm_struct.addr", address),
        ("vm_struct.size", count.wrapping_mul(PAGE)),
        ("vm_struct.pages", pages),
    ] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &value.to_le_bytes())?;
    }
    for (member, value) in [("vm_struct.flags", VM_ALLOC), ("vm_struct.nr_pages", count)] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &(value as u32).to_le_bytes())?;
    }
    Ok(Answer::Value(area))
}

/// The `struct vmap_area` of the vmalloc memory around an address.
fn find_vmap_area<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    let around = |(start, size, _): &&(u64, u64, u64)| address.wrapping_sub(*start) < *size;
    let Some((start, size, _)) = m.world.vmalloc_pieces.iter().find(around).copied() else {
        return Ok(Answer::Value(0));
    };
    let area = m.allocate(128, 64)?;
    for (member, value) in [("vmap_area.va_start", start), ("vmap_area.va_end", start.wrapping_add(size))] {
        let at = area.wrapping_add(m.offset(member)?);
        m.memory.write(at, &value.to_le_bytes())?;
    }
    Ok(Answer::Value(area))
}

/// `(facility, level, dev_info, fmt, args)`
fn vprintk_emit<C: Platform>(m: &mut Machine<C>) -> Given {
    let (level, format, args) = (m.argument(1)? as u32 as i32, m.argument(3)?, m.argument(4)?);
    let buffer = m.world.buffer;
    let len = m.call("vscnprintf", &[buffer, MESSAGE_MAX, format, args])? & 0xffff_ffff;
    let text = m.memory.bytes(buffer, usize::try_from(len.min(MESSAGE_MAX)).unwrap_or(0))?;
    // printk_parse_prefix: KERN_SOH and a level, or 'c' for what goes on.
    let (mut text, mut level, mut goes_on) = (text.as_slice(), u8::try_from(level).ok(), false);
    while let [1, kind, rest @ ..] = text {
        match kind {
            b'0'..=b'7' => level = level.or(Some(kind & 7)),
            b'c' => goes_on = true,
            _ => {}
        }
        text = rest;
    }
    let ended = text.last() == Some(&b'\n');
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let time = m.world.time;
    let log = &mut m.world.log;
    match log.last_mut().filter(|last| goes_on && !last.ended) {
        Some(last) => {
            last.text.extend_from_slice(text);
            last.ended = ended;
        }
        None => log.push(Message { level: level.unwrap_or(4), time, text: text.into(), ended }),
    }
    Ok(Answer::Value(len))
}

/// Callbacks whose grace period is over: that of all.
fn call_back<C: Platform>(m: &mut Machine<C>) -> Result<(), Failed> {
    let waiting = core::mem::take(&mut m.world.callbacks);
    for (head, function) in waiting {
        m.call_at(function, &[head])?;
    }
    Ok(())
}

fn called_back<C: Platform>(m: &mut Machine<C>) -> Given {
    call_back(m)?;
    Ok(Answer::Value(0))
}

fn wait_for_grace<C: Platform>(m: &mut Machine<C>, head: usize) -> Given {
    let callback = (m.argument(head)?, m.argument(head.saturating_add(1))?);
    if m.world.callbacks.len() >= CALLBACKS_MAX {
        return Err(Failed::Because("too many callbacks wait for a grace period".into()));
    }
    m.world.callbacks.push_back(callback);
    Ok(Answer::Value(0))
}

/// A delay of `argument * factor / divisor` nanoseconds. The kernel is told of the ticks in it.
fn delay<C: Platform>(m: &mut Machine<C>, factor: u64, divisor: u64) -> Given {
    let time = m.argument(0)?.wrapping_mul(factor).checked_div(divisor).unwrap_or(0);
    m.world.time = m.world.time.wrapping_add(time);
    m.world.since_tick = m.world.since_tick.wrapping_add(time);
    // A long delay is as good as its last second.
    m.world.since_tick = m.world.since_tick.min(TICK.wrapping_mul(250));
    while m.world.is_booted && m.world.since_tick >= TICK {
        m.world.since_tick = m.world.since_tick.wrapping_sub(TICK);
        m.call("do_timer", &[1])?;
        m.call("update_wall_time", &[])?;
        m.call("update_process_times", &[0])?;
    }
    Ok(Answer::Value(0))
}

/// The idle loop: callbacks, then a tick, then what it has woken.
pub(crate) fn idle<C: Platform>(m: &mut Machine<C>) -> Given {
    m.world.idle = m.world.idle.wrapping_add(1);
    if m.world.idle > IDLE_MAX {
        return Err(Failed::Because("everything waits, and nothing comes".into()));
    }
    m.world.time = m.world.time.wrapping_add(TICK);
    call_back(m)?;
    m.call("do_timer", &[1])?;
    m.call("update_wall_time", &[])?;
    match m.symbols.address("run_local_timers") {
        Some(function) => m.call_at(function, &[])?,
        None => m.call("update_process_times", &[0])?,
    };
    m.call("do_softirq", &[])?;
    Ok(Answer::Value(0))
}

fn random_bytes<C: Platform>(m: &mut Machine<C>) -> Given {
    let (at, len) = (m.argument(0)?, m.argument(1)?);
    // Each byte costs as much as an instruction.
    if len > m.budget {
        return Err(Failed::Because("the instruction budget is used up by random bytes".into()));
    }
    m.budget = m.budget.saturating_sub(len);
    for number in 0..len {
        let byte = m.world.random() as u8;
        m.memory.write(at.wrapping_add(number), &[byte])?;
    }
    Ok(Answer::Value(0))
}

/// The lowest address of the module area that has room for `size` bytes and a page behind them, as vmalloc finds it.
fn first_hole<C: Platform>(m: &Machine<C>, size: u64, align: u64) -> u64 {
    let up = |address: u64| address.checked_next_multiple_of(align).unwrap_or(u64::MAX);
    let mut start = up(m.space.modules.0);
    for (piece, len) in &m.world.module_pieces {
        if start.saturating_add(size).saturating_add(PAGE) <= *piece {
            break;
        }
        start = up(piece.saturating_add(*len).saturating_add(PAGE));
    }
    start
}

/// Pages of the module area, with one that nobody may touch behind them.
fn module_memory<C: Platform>(m: &mut Machine<C>, size: u64, align: u64) -> Result<u64, Failed> {
    if size == 0 {
        // Since v6.10 (execmem_vmalloc) with a line.
        if m.symbols.address("execmem_alloc").is_some() {
            let line = m.string(b"\x013execmem: unable to allocate memory\n")?;
            m.call("_printk", &[line])?;
        }
        return Ok(0);
    }
    let size = size.div_ceil(PAGE).saturating_mul(PAGE);
    let start = first_hole(m, size, align);
    let behind = start.checked_add(size).and_then(|end| end.checked_add(PAGE));
    if behind.is_none_or(|end| end > m.space.modules.1) {
        m.world.doubt(SHORT);
        return Ok(0);
    }
    let Ok(memory) = m.allocate(size, PAGE) else {
        m.world.doubt(SHORT);
        return Ok(0);
    };
    let physical = m.memory.physical(memory).unwrap_or(u64::MAX);
    // Writable until the kernel says what may be done with it.
    if !m.memory.map(start, size, physical, Protection::ALL) {
        return Ok(0);
    }
    insert(&mut m.world.module_pieces, (start, size));
    Ok(start)
}

fn insert(pieces: &mut Vec<(u64, u64)>, piece: (u64, u64)) {
    let at = pieces.partition_point(|(other, _)| *other < piece.0);
    pieces.insert(at, piece);
}

/// `(type, size)`: code of modules comes out of blocks, without pages between, where the kernel has such a cache (LAYOUT-55).
fn executable_memory<C: Platform>(m: &mut Machine<C>) -> Given {
    /// PMD_SIZE
    const BLOCK: u64 = 2 << 20;
    let (kind, size) = (m.argument(0)? & 0xffff_ffff, m.argument(1)?);
    if C::EXECMEM_IN_VMALLOC.contains(&kind) {
        return Ok(Answer::Value(vmalloc_pages(m, size, Protection::ALL)?));
    }
    // EXECMEM_MODULE_TEXT is 0.
    if kind != 0 || m.symbols.address("execmem_cache").is_none() {
        return Ok(Answer::Value(module_memory(m, size, PAGE)?));
    }
    let size = size.max(1).div_ceil(PAGE).saturating_mul(PAGE);
    let mut found = None;
    for (block, len) in &m.world.code_blocks {
        let (mut start, end) = (*block, block.saturating_add(*len));
        for (piece, len) in m.world.code_pieces.iter().filter(|(piece, _)| (*block..end).contains(piece)) {
            if start.saturating_add(size) <= *piece {
                break;
            }
            start = piece.saturating_add(*len);
        }
        if start.saturating_add(size) <= end {
            found = Some(start);
            break;
        }
    }
    let start = match found {
        Some(start) => start,
        None => {
            let len = size.div_ceil(BLOCK).saturating_mul(BLOCK);
            let block = module_memory(m, len, BLOCK)?;
            if block == 0 {
                return Ok(Answer::Value(0));
            }
            insert(&mut m.world.code_blocks, (block, len));
            block
        }
    };
    m.memory.protect(start, start.wrapping_add(size), Protection::ALL);
    insert(&mut m.world.code_pieces, (start, size));
    Ok(Answer::Value(start))
}

fn free_module_memory<C: Platform>(m: &mut Machine<C>) -> Given {
    let address = m.argument(0)?;
    if vfree(m, address) {
        return Ok(Answer::Value(0));
    }
    m.world.code_pieces.retain(|(start, _)| *start != address);
    if m.world.code_blocks.iter().any(|(start, _)| *start == address) {
        return Ok(Answer::Value(0));
    }
    if let Some(at) = m.world.module_pieces.iter().position(|(start, _)| *start == address) {
        let (start, size) = m.world.module_pieces.remove(at);
        m.memory.unmap(start, start.wrapping_add(size));
    }
    Ok(Answer::Value(0))
}

/// Is an address in the module area?
fn in_module_area<C: Platform>(m: &Machine<C>, address: u64) -> bool {
    (m.space.modules.0..m.space.modules.1).contains(&address)
}

/// `(address, pages)`: pages of the module area may be written, or executed, as `new` says; the other permission stays.
fn protect<C: Platform>(m: &mut Machine<C>, new: Protection, changes_write: bool) -> Given {
    let (start, pages) = (m.argument(0)?, m.argument(1)? & 0x7fff_ffff);
    if in_module_area(m, start) {
        for page in 0..pages.min(1 << 18) {
            let at = start.wrapping_add(page.wrapping_mul(PAGE));
            if let Some(old) = m.memory.protection(at) {
                let both = if changes_write {
                    Protection { write: new.write, ..old }
                } else {
                    Protection { execute: new.execute, ..old }
                };
                if both != old {
                    m.memory.protect(at, at.wrapping_add(PAGE), both);
                }
            }
        }
    }
    Ok(Answer::Value(0))
}

fn protect_as<C: Platform>(m: &mut Machine<C>, protection: Protection) -> Given {
    let (start, pages) = (m.argument(0)?, m.argument(1)? & 0x7fff_ffff);
    if in_module_area(m, start) {
        m.memory.protect(start, start.wrapping_add(pages.wrapping_mul(PAGE)), protection);
    }
    Ok(Answer::Value(0))
}

fn arrive<C: Platform>(m: &mut Machine<C>) -> Given {
    m.world.is_booted = true;
    Ok(Answer::Leave)
}

fn panics<C: Platform>(m: &mut Machine<C>) -> Given {
    let text = m.memory.cstr(m.argument(0)?, 200)?;
    Err(Failed::Crash(format!("Kernel panic: {}", alloc::string::String::from_utf8_lossy(&text).trim_end())))
}

/// What `do_init_module` is asked to load.
fn comes<C: Platform>(m: &mut Machine<C>) -> Given {
    let module = m.argument(0)?;
    m.world.coming = Some(module);
    m.module_comes(module);
    // Without an init function this is where it would be called.
    let init = m.offset("module.init").and_then(|at| Ok(m.memory.u64(module.wrapping_add(at))?));
    if m.world.inits == Inits::End && matches!(init, Ok(0)) {
        m.world.has_left = true;
        return Ok(Answer::Leave);
    }
    Ok(Answer::Pass)
}

/// `load_module` is over: here init functions are called.
fn before_init<C: Platform>(m: &mut Machine<C>) -> Given {
    Ok(match m.world.inits {
        Inits::Run => Answer::Pass,
        Inits::Succeed => Answer::Value(0),
        Inits::End => {
            m.world.has_left = true;
            Answer::Leave
        }
    })
}
