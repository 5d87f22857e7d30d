//! What stands in for functions of the kernel on every architecture, each with its reason.
//!
//! Everything that is not listed is the image's own code.

mod memory;
mod modules;
mod running;

use alloc::format;
use alloc::vec::Vec;

use crate::machine::{Answer, Failed, Machine, Platform, Row};
use crate::memory::{PAGE, Protection};
use crate::world::{Event, Kind};
use memory::*;
use modules::*;
pub(crate) use running::idle;
use running::*;

/// What a stub gives.
type Given = Result<Answer, Failed>;

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
            names: &["alg_test"],
            stub: |m| Ok(if m.world.is_up { Answer::Pass } else { Answer::Value(0) }),
            why: "testing the kernel's own algorithms would take three times as long as all the rest of the boot",
        },
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
