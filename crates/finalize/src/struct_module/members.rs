//! The members of `struct module` in tables: what points to sections, what only the running kernel knows, and all
//! that is looked up in the kernel's BTF.

/// How large one record of a section is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// So many bytes on all 64-bit kernels.
    Bytes(u64),
    /// As the kernel's struct of that name.
    Struct(&'static str),
}

/// `section_objs`: a member that points to a section, the member that counts its records, the sections
/// of which the first that there is counts, and the size of a record.
pub(super) type Objs = (&'static str, Option<&'static str>, &'static [&'static str], Size);

/// What `find_module_sections` sets.
pub(super) const OBJS: &[Objs] = &[
    ("kp", Some("num_kp"), &["__param"], Size::Struct("kernel_param")),
    ("syms", Some("num_syms"), &["__ksymtab"], Size::Struct("kernel_symbol")),
    ("crcs", None, &["__kcrctab"], Size::Bytes(4)),
    // Since v7.1 (one export table).
    ("flagstab", None, &["__kflagstab"], Size::Bytes(1)),
    ("gpl_syms", Some("num_gpl_syms"), &["__ksymtab_gpl"], Size::Struct("kernel_symbol")),
    ("gpl_crcs", None, &["__kcrctab_gpl"], Size::Bytes(4)),
    ("ctors", Some("num_ctors"), &[".ctors", ".init_array"], Size::Bytes(8)),
    ("noinstr_text_start", Some("noinstr_text_size"), &[".noinstr.text"], Size::Bytes(1)),
    // CONFIG_HAVE_ARCH_PREL32_RELOCATIONS: tracepoint_ptr_t is self-relative.
    ("tracepoints_ptrs", Some("num_tracepoints"), &["__tracepoints_ptrs"], Size::Bytes(4)),
    ("srcu_struct_ptrs", Some("num_srcu_structs"), &["___srcu_struct_ptrs"], Size::Bytes(8)),
    ("bpf_raw_events", Some("num_bpf_raw_events"), &["__bpf_raw_tp_map"], Size::Struct("bpf_raw_event_map")),
    ("jump_entries", Some("num_jump_entries"), &["__jump_table"], Size::Struct("jump_entry")),
    ("trace_events", Some("num_trace_events"), &["_ftrace_events"], Size::Bytes(8)),
    ("trace_evals", Some("num_trace_evals"), &["_ftrace_eval_map"], Size::Bytes(8)),
    ("trace_bprintk_fmt_start", Some("num_trace_bprintk_fmt"), &["__trace_printk_fmt"], Size::Bytes(8)),
    (
        "ei_funcs",
        Some("num_ei_funcs"),
        &["_error_injection_whitelist"],
        Size::Struct("error_injection_entry"),
    ),
    ("kprobes_text_start", Some("kprobes_text_size"), &[".kprobes.text"], Size::Bytes(1)),
    ("kprobe_blacklist", Some("num_kprobe_blacklist"), &["_kprobe_blacklist"], Size::Bytes(8)),
    ("printk_index_start", Some("printk_index_size"), &[".printk_index"], Size::Bytes(8)),
    (
        "static_call_sites",
        Some("num_static_call_sites"),
        &[".static_call_sites"],
        Size::Struct("static_call_site"),
    ),
    ("kunit_suites", Some("num_kunit_suites"), &[".kunit_test_suites"], Size::Bytes(8)),
    ("kunit_init_suites", Some("num_kunit_init_suites"), &[".kunit_init_test_suites"], Size::Bytes(8)),
    ("extable", Some("num_exentries"), &["__ex_table"], Size::Struct("exception_table_entry")),
    // In struct module since v6.4-rc4 (3ac23a3f4f1c); before that only load_info has it.
    ("dyndbg_info.descs", Some("dyndbg_info.num_descs"), &["__dyndbg"], Size::Struct("_ddebug")),
    (
        "dyndbg_info.classes",
        Some("dyndbg_info.num_classes"),
        &["__dyndbg_classes"],
        Size::Struct("ddebug_class_map"),
    ),
];

/// As [`OBJS`], but of sections that need not be in memory (`any_section_objs`, and the loops of
/// `module_bug_finalize`, `module_cfi_finalize`: FIN-7, FIN-8).
pub(super) const ANY_OBJS: &[Objs] = &[
    ("btf_data", Some("btf_data_size"), &[".BTF"], Size::Bytes(1)),
    ("btf_base_data", Some("btf_base_data_size"), &[".BTF.base"], Size::Bytes(1)),
    ("bug_table", Some("num_bugs"), &["__bug_table"], Size::Struct("bug_entry")),
    ("kcfi_traps", None, &["__kcfi_traps"], Size::Bytes(4)),
];

/// Members that only the running kernel knows, whatever the module.
pub(super) const RUNTIME: &[(&str, &str)] = &[
    ("list", "struct module: list, its place in the kernel's list of modules"),
    ("mkobj", "struct module: mkobj, its kobject in sysfs"),
    ("modinfo_attrs", "struct module: modinfo_attrs, allocated for sysfs"),
    ("holders_dir", "struct module: holders_dir, allocated for sysfs"),
    ("sect_attrs", "struct module: sect_attrs, allocated for sysfs"),
    ("notes_attrs", "struct module: notes_attrs, allocated for sysfs"),
    ("bug_list", "struct module: bug_list, its place in the list of bug tables"),
    ("args", "struct module: args, a copy of the parameters"),
    ("source_list", "struct module: source_list, modules that use it"),
    ("target_list", "struct module: target_list, modules that it uses"),
    ("its_num_pages", "struct module: its_num_pages, on CPUs that need ITS thunks"),
    ("its_page_array", "struct module: its_page_array, allocated on CPUs that need ITS thunks"),
];

/// The members of `struct module` that are looked up in the kernel's BTF. [`Patch::detail`] of
/// [`reloc::Step::StructModule`] is a position in this list.
///
/// [`Patch::detail`]: reloc::Patch::detail
pub const MEMBERS: &[&str] = &[
    "state",
    "list",
    "build_id",
    "mkobj",
    "mkobj.mp",
    "modinfo_attrs",
    "version",
    "srcversion",
    "imported_namespaces",
    "holders_dir",
    "syms",
    "crcs",
    "flagstab",
    "num_syms",
    "kcfi_traps",
    "kcfi_traps_end",
    "param_lock.owner",
    "param_lock.wait_list",
    "kp",
    "num_kp",
    "num_gpl_syms",
    "gpl_syms",
    "gpl_crcs",
    "using_gplonly_symbols",
    "sig_ok",
    "async_probe_requested",
    "num_exentries",
    "extable",
    "mem",
    "core_layout",
    "init_layout",
    "arch.num_orcs",
    "arch.orc_unwind_ip",
    "arch.orc_unwind",
    "arch.core.plt_shndx",
    "arch.core.plt_num_entries",
    "arch.core.plt_max_entries",
    "arch.init.plt_shndx",
    "arch.init.plt_num_entries",
    "arch.init.plt_max_entries",
    "arch.ftrace_trampolines",
    "arch.init_ftrace_trampolines",
    "taints",
    "num_bugs",
    "bug_list",
    "bug_table",
    "kallsyms",
    "core_kallsyms.symtab",
    "core_kallsyms.num_symtab",
    "core_kallsyms.strtab",
    "core_kallsyms.typetab",
    "sect_attrs",
    "notes_attrs",
    "args",
    "percpu",
    "percpu_size",
    "noinstr_text_start",
    "noinstr_text_size",
    "num_tracepoints",
    "tracepoints_ptrs",
    "num_srcu_structs",
    "srcu_struct_ptrs",
    "num_bpf_raw_events",
    "bpf_raw_events",
    "btf_data_size",
    "btf_base_data_size",
    "btf_data",
    "btf_base_data",
    "jump_entries",
    "num_jump_entries",
    "num_trace_bprintk_fmt",
    "trace_bprintk_fmt_start",
    "trace_events",
    "num_trace_events",
    "trace_evals",
    "num_trace_evals",
    "num_ftrace_callsites",
    "ftrace_callsites",
    "kprobes_text_start",
    "kprobes_text_size",
    "kprobe_blacklist",
    "num_kprobe_blacklist",
    "num_static_call_sites",
    "static_call_sites",
    "num_kunit_suites",
    "kunit_suites",
    "num_kunit_init_suites",
    "kunit_init_suites",
    "klp",
    "klp_alive",
    "klp_info",
    "printk_index_size",
    "printk_index_start",
    "source_list",
    "target_list",
    "refcnt",
    "its_num_pages",
    "its_page_array",
    "ctors",
    "num_ctors",
    "ei_funcs",
    "num_ei_funcs",
    "dyndbg_info.descs",
    "dyndbg_info.classes",
    "dyndbg_info.num_descs",
    "dyndbg_info.num_classes",
];

/// Those of `struct module_memory` (since v6.4).
pub const MEMORY_MEMBERS: &[&str] = &["base", "is_rox", "size", "mtn.mod", "mtn.node"];
/// Those of `struct module_layout` (up to 6.3).
pub const LAYOUT_MEMBERS: &[&str] =
    &["base", "size", "text_size", "ro_size", "ro_after_init_size", "mtn.mod", "mtn.node"];
