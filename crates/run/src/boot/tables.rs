//! What the boot does, as tables.

/// Members of structs whose offsets are needed; `sizeof` for the size of a struct. Not every kernel has all of them.
pub(super) const OFFSETS: &[(&str, &str)] = &[
    ("cdev", "dev"),
    ("cdev", "ops"),
    ("cdev", "owner"),
    ("char_device_struct", "baseminor"),
    ("char_device_struct", "major"),
    ("char_device_struct", "minorct"),
    ("char_device_struct", "name"),
    ("char_device_struct", "next"),
    ("kernel_param", "name"),
    ("kernel_param", "ops"),
    ("kernel_param_ops", "set"),
    ("kmem_cache", "object_size"),
    ("kmem_cache", "size"),
    ("kmem_cache_args", "align"),
    ("kmem_cache_args", "ctor"),
    ("kobj_map", "probes"),
    ("module", "name"),
    ("module", "taints"),
    ("obs_kernel_param", "setup_func"),
    ("obs_kernel_param", "str"),
    ("page", "_mapcount"),
    ("page", "_refcount"),
    ("pcpu_hot", "current_task"),
    ("pcpu_hot", "hardirq_stack_ptr"),
    ("probe", "data"),
    ("probe", "dev"),
    ("probe", "get"),
    ("probe", "next"),
    ("probe", "range"),
    ("task_struct", "comm"),
    ("vm_struct", "addr"),
    ("vm_struct", "flags"),
    ("vm_struct", "nr_pages"),
    ("vm_struct", "pages"),
    ("vm_struct", "size"),
    ("vmap_area", "va_end"),
    ("vmap_area", "va_start"),
];

/// Functions of `start_kernel` that are called, in its order. Those of memory zones, of the time source of a machine and of its interrupt
/// controllers are left out. Not every kernel has all of them.
pub(super) const INIT_FUNCTIONS: &[&str] = &[
    "jump_label_init",
    "static_call_init",
    "ftrace_init",
    "early_trace_init",
    "vfs_caches_init_early",
    "sort_main_extable",
    "sched_init",
    "radix_tree_init",
    "maple_tree_init",
    "housekeeping_init",
    "workqueue_init_early",
    "rcu_init",
    "kvfree_rcu_init",
    "trace_init",
    "early_irq_init",
    "tick_init",
    "init_timers",
    "timers_init",
    "srcu_init",
    "hrtimers_init",
    "softirq_init",
    "vdso_setup_data_pages",
    "timekeeping_init",
    "perf_event_init",
    "arch_cpu_finalize_init",
    "pid_idr_init",
    "anon_vma_init",
    "cred_init",
    "fork_init",
    "proc_caches_init",
    "uts_ns_init",
    "time_ns_init",
    "buffer_init",
    "key_init",
    "net_ns_init",
    "vfs_caches_init",
    "pagecache_init",
    "signals_init",
    "seq_file_init",
    "proc_root_init",
    "nsfs_init",
    "pidfs_init",
    "cgroup_init_early",
    "cpuset_init",
    "mem_cgroup_init",
    "cgroup_init",
    "con_init",
    // Up to v6.4, where arch_cpu_finalize_init is now.
    "check_bugs",
];

/// Initcalls that are not called.
pub const SKIPPED: &[(&str, &str)] = &[
    ("init_per_zone_wmark_min", "there are no memory zones"),
    ("kcompactd_init", "there are no memory zones"),
    ("ksm_init", "pages of programs are never merged"),
    ("populate_rootfs", "there is no initramfs"),
    ("tomoyo_initerface_init", "security modules are not initialised"),
];

/// The last level of initcalls that is called as a whole: device_initcall and late_initcall are drivers for what is not there, and
/// in sum they spoil one another.
pub(super) const LAST_LEVEL: usize = 5;

/// Initcalls of later levels that are called: those that modules rely on.
pub(super) const LATER: &[(&str, &str)] = &[
    ("cryptomgr_init", "templates of algorithms; of an earlier level up to v6.12, as the next ones are"),
    ("hmac_module_init", "algorithms that are in the kernel"),
    ("crypto_md5_mod_init", "algorithms that are in the kernel"),
    ("crypto_sha1_mod_init", "algorithms that are in the kernel"),
    ("crypto_sha256_mod_init", "algorithms that are in the kernel"),
    ("crypto_sha512_mod_init", "algorithms that are in the kernel"),
    ("crypto_ecb_module_init", "algorithms that are in the kernel"),
    ("crypto_cbc_module_init", "algorithms that are in the kernel"),
    ("crypto_ctr_module_init", "algorithms that are in the kernel"),
    ("crypto_aes_mod_init", "algorithms that are in the kernel"),
    ("blackhole_netdev_init", "the network device that takes what has nowhere to go: IPv6 needs it"),
    ("inet6_init", "IPv6, where it is in the kernel"),
    ("perf_event_sysfs_init", "devices of performance counters"),
    ("proc_modules_init", "/proc/modules"),
    ("blkdev_init", "block devices"),
    ("param_sysfs_builtin_init", "folders of what is built in, whose names no module can have"),
    ("blacklist_init", "the hashes and keys that signatures cannot have"),
    ("trace_eval_sync", "trace events, which hear of each module"),
    ("init_srcu_module_notifier", "the SRCU structures of modules"),
    (
        "crypto_algapi_init",
        "from here on algorithms are tested that are registered; the kernel's own ones count as tested",
    ),
    ("system_trusted_keyring_init", "the keyrings, empty, in which the keys of signatures are looked for"),
];

/// What mounts process 1 makes: directory and type.
pub(super) const MOUNTS: &[(&str, &str)] =
    &[("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs"), ("/sys/kernel/debug", "debugfs")];
