//! The notifiers of a coming module that change little of it: SRCU, dynamic debug, `trace_printk` (spec 06,
//! 6.7). Those for tracepoints, BPF, KUnit and error injection only keep lists of their own.

use elf_layout::bytes::cstr;
use elf_layout::{Change, Errno, Finding, KernelConfig, Setting, Severity, Table, needs};

use reloc::Step;
use reloc::{Architecture, Finalizer};

/// Members of `struct srcu_struct` that are set when its module comes.
pub const SRCU_MEMBERS: &[&str] = &[
    "sda",
    "srcu_sup",
    "node",
    "level",
    "srcu_size_state",
    "srcu_last_gp_end",
    "srcu_cb_mutex.wait_list",
    "srcu_gp_mutex.wait_list",
    "srcu_barrier_mutex.wait_list",
    "work.work.data",
    "work.work.entry",
    "work.work.func",
    "work.timer.function",
    "work.timer.flags",
];

/// Names of modules are shorter (MODULE_NAME_LEN).
const NAME_MAX: u64 = 64;

/// LIFE-58: livepatches name the kernel itself `vmlinux`, so that no module may be named so.
pub fn klp_module_coming(module: &mut Finalizer<'_, '_>) {
    match refuses_name(module.info.config, module.info.file.name()) {
        Some(true) => {
            let why = "the name in its struct module is vmlinux, which livepatches call the kernel";
            let finding = Finding::error("LIFE-58", Errno::EINVAL, why).hint("give the module another name");
            module.said.refuse(finding.says("livepatch: vmlinux.ko: invalid module name"));
        }
        Some(false) => {}
        None => module.said.unjudged("LIFE-58", needs::CONFIG),
    }
}

/// Does a kernel refuse a module of that name? `None`: whether it has livepatches is not known.
fn refuses_name(config: &KernelConfig, name: &[u8]) -> Option<bool> {
    if name == b"vmlinux" && config.has(Change::VmlinuxNameRefused) {
        config.known(Setting::Livepatch)
    } else {
        Some(false)
    }
}

/// FIN-83: `srcu_module_coming` writes to each `srcu_struct` of the list. False if the kernel crashes there.
pub fn srcu_structs_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let Some(table) = module.section("___srcu_struct_ptrs") else { return true };
    let left_out = module.left_out(table.index);
    let mut records = table.records(8).filter(|record| left_out.binary_search(record).is_err());
    records.all(|record| {
        module
            .u64(record)
            .is_none_or(|ssp| module.writes_data(arch, ssp, 8, "an entry of ___srcu_struct_ptrs"))
    })
}

/// The notice of `trace_printk_init_buffers` (kernel/trace/trace.c).
const TRACE_PRINTK_NOTICE: [&str; 13] = [
    "**********************************************************",
    "**   NOTICE NOTICE NOTICE NOTICE NOTICE NOTICE NOTICE   **",
    "**                                                      **",
    "** trace_printk() being used. Allocating extra memory.  **",
    "**                                                      **",
    "** This means that this is a DEBUG kernel and it is     **",
    "** unsafe for production use.                           **",
    "**                                                      **",
    "** If you see this message and you are not debugging    **",
    "** the kernel, report this immediately to your vendor!  **",
    "**                                                      **",
    "**   NOTICE NOTICE NOTICE NOTICE NOTICE NOTICE NOTICE   **",
    "**********************************************************",
];

/// FIN-85: the notice of a module with `trace_printk`, and its formats, which are copied. False if the kernel crashes there.
pub fn trace_printk_formats_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let Some(table) = module.section("__trace_printk_fmt").filter(|table| table.size >= 8) else {
        return true;
    };
    let kernel = module.kernel;
    // CONFIG_TRACING=n
    if kernel.struct_size("module").is_some() && kernel.member("module", "trace_bprintk_fmt_start").is_none()
    {
        return true;
    }
    let why = "the module calls trace_printk: the kernel allocates buffers for it once, and warns";
    let notice = Finding::note("FIN-85", Severity::Warning, why);
    module.said.push(TRACE_PRINTK_NOTICE.iter().fold(notice, |finding, line| finding.says(*line)));
    let left_out = module.left_out(table.index);
    table.records(8).all(|record| {
        let is_known = left_out.binary_search(&record).is_err();
        let format = module.u64(record).filter(|_| is_known);
        // lookup_format passes over NULL.
        format == Some(0)
            || format.is_none_or(|format| module.touches(arch, format, 1, "an entry of __trace_printk_fmt"))
                && module.writes_place(table.place, "the table __trace_printk_fmt")
    })
}

/// FIN-84: `ddebug_attach_module_classes` compares the name in each class map. False if the kernel crashes there.
pub fn class_maps_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let Some(table) = class_maps(module) else { return true };
    let member = module.kernel.member("ddebug_class_map", "mod_name");
    let Some((mod_name, size)) = member.zip(module.kernel.struct_size("ddebug_class_map")) else {
        return true;
    };
    let left_out = module.left_out(table.index);
    table.records(size).all(|map| {
        let at = map.wrapping_add(mod_name.offset);
        let name = module.u64(at).filter(|_| left_out.binary_search(&at).is_err());
        name.is_none_or(|name| module.touches(arch, name, 1, "the name in an entry of __dyndbg_classes"))
    })
}

/// `__dyndbg_classes`, which is looked at only beside descriptors.
fn class_maps(module: &Finalizer<'_, '_>) -> Option<Table> {
    let descs = module.section("__dyndbg").filter(|descs| descs.size != 0);
    descs.and_then(|_| module.section("__dyndbg_classes"))
}

/// The small notifiers, whose order among each other changes nothing.
pub fn module_coming(module: &mut Finalizer<'_, '_>) {
    srcu_module_coming(module);
    ddebug_attach_module_classes(module);
    module_trace_bprintk_format_notify(module);
}

/// `srcu_module_coming` (FIN-83): per-cpu data for each `srcu_struct`. Since v6.4 (srcu_usage) the rest of it is
/// initialised by the compiler; before that `init_srcu_struct` does it all.
fn srcu_module_coming(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.section("___srcu_struct_ptrs") else { return };
    // At a NULL the kernel crashes.
    let structs: alloc::vec::Vec<u64> =
        table.records(8).filter_map(|at| module.u64(at)).take_while(|ssp| *ssp != 0).collect();
    let member = |module: &Finalizer<'_, '_>, path| module.kernel.member("srcu_struct", path);
    if member(module, "sda").is_none() {
        module.record.not_known("the layout of struct srcu_struct, which the BTF of a kernel image tells");
        return;
    }
    let whole = member(module, "srcu_sup").is_none();
    for ssp in structs {
        runtime(module, ssp, "sda", "srcu_struct: sda, its per-cpu data");
        if whole {
            init_srcu_struct(module, ssp);
        }
    }
}

/// `init_srcu_struct` up to 6.3: what of it is always the same.
fn init_srcu_struct(module: &mut Finalizer<'_, '_>, ssp: u64) {
    /// `WORK_STRUCT_NO_POOL`: WORK_OFFQ_POOL_NONE, 31 bits, above the 5 bits of flags.
    const NO_POOL: u64 = 0x7fff_ffff << 5;
    for path in [
        "srcu_cb_mutex.wait_list",
        "srcu_gp_mutex.wait_list",
        "srcu_barrier_mutex.wait_list",
        "work.work.entry",
    ] {
        if let Some(list) = module.kernel.member("srcu_struct", path) {
            let at = ssp.wrapping_add(list.offset);
            module.write(at, &[at.to_le_bytes(), at.to_le_bytes()].concat(), Step::Srcu, 0);
        }
    }
    let values = [
        ("work.work.data", Some(NO_POOL)),
        ("work.work.func", module.kernel.symbol("process_srcu")),
        ("work.timer.function", module.kernel.symbol("delayed_work_timer_fn")),
    ];
    for (path, value) in values {
        let Some(member) = module.kernel.member("srcu_struct", path) else { continue };
        match value {
            Some(value) => {
                module.write(ssp.wrapping_add(member.offset), &value.to_le_bytes(), Step::Srcu, 0);
            }
            None => {
                module.record.not_known("addresses of process_srcu and delayed_work_timer_fn (--symtab)");
                runtime(module, ssp, path, "srcu_struct: work, with functions whose address is not known");
            }
        }
    }
    for (path, what) in [
        ("node", "srcu_struct: node, allocated on large machines"),
        ("level", "srcu_struct: level, allocated on large machines"),
        ("srcu_size_state", "srcu_struct: srcu_size_state, which is another on large machines"),
        ("srcu_last_gp_end", "srcu_struct: srcu_last_gp_end, the time of its load"),
        ("work.timer.flags", "srcu_struct: work.timer.flags, the CPU that loaded it"),
    ] {
        runtime(module, ssp, path, what);
    }
}

fn runtime(module: &mut Finalizer<'_, '_>, ssp: u64, path: &str, what: &'static str) {
    if let Some(member) = module.kernel.member("srcu_struct", path) {
        module.runtime(ssp.wrapping_add(member.offset), member.size, what);
    }
}

/// `ddebug_add_module` (FIN-84): class maps of this module's name are put into a list.
fn ddebug_attach_module_classes(module: &mut Finalizer<'_, '_>) {
    let Some(classes) = class_maps(module) else { return };
    let member = |path| module.kernel.member("ddebug_class_map", path);
    let known = member("link").zip(member("mod_name")).zip(module.kernel.struct_size("ddebug_class_map"));
    let Some(((link, mod_name), size)) = known else {
        module
            .record
            .not_known("the layout of struct ddebug_class_map, which the BTF of a kernel image tells");
        return;
    };
    for map in classes.records(size) {
        // strcmp of a NULL crashes.
        let Some(name) = module.u64(map.wrapping_add(mod_name.offset)).filter(|at| *at != 0) else { return };
        if name_at(module, name) == Some(module.info.file.name()) {
            let what = "ddebug_class_map: link, its place in a list of dynamic debug";
            module.runtime(map.wrapping_add(link.offset), link.size, what);
        }
    }
}

/// A short string of the module.
fn name_at<'m>(module: &'m Finalizer<'_, '_>, address: u64) -> Option<&'m [u8]> {
    // It may stand at the very end of a region.
    let bytes = (1..=NAME_MAX).rev().find_map(|len| module.read(address, len))?;
    cstr(bytes, 0)
}

/// `hold_module_trace_bprintk_format` (FIN-85): each format is copied, and the pointer goes to the copy.
fn module_trace_bprintk_format_notify(module: &mut Finalizer<'_, '_>) {
    let Some(formats) = module.section("__trace_printk_fmt") else { return };
    let pointers = (formats.size / 8).saturating_mul(8);
    module.runtime(formats.address, pointers, "trace_printk formats, copied by the kernel");
}

#[cfg(test)]
mod tests {
    use super::*;
    use reloc::testing::{DATA, RODATA, TestKernel, TestModule, address, put, put_word, runtime};

    const LISTS: &[(&str, u64)] = &[
        ("srcu_struct.srcu_cb_mutex.wait_list", 16),
        ("srcu_struct.srcu_gp_mutex.wait_list", 16),
        ("srcu_struct.srcu_barrier_mutex.wait_list", 16),
        ("srcu_struct.work.work.entry", 16),
        ("ddebug_class_map.link", 16),
    ];

    #[test]
    fn life_58_the_name_of_the_kernel() {
        for (release, livepatch, name, want) in [
            ("5.8.0", Some(true), "vmlinux", Some(true)),
            ("5.4.0", Some(true), "vmlinux", Some(false)),
            ("6.12.0", Some(false), "vmlinux", Some(false)),
            ("6.12.0", None, "vmlinux", None),
            ("6.12.0", None, "vmlinux2", Some(false)),
        ] {
            let mut config = KernelConfig::of_release(release, reloc::MACHINES).unwrap();
            match livepatch {
                Some(livepatch) => config.set(Setting::Livepatch, livepatch),
                None => config = config.with_settings_assumed(),
            }
            assert_eq!(
                refuses_name(&config, name.as_bytes()),
                want,
                "LIFE-58: {release} {livepatch:?} {name}"
            );
        }
    }

    #[test]
    fn fin_83_srcu_since_6_4_is_one_pointer() {
        let kernel = TestKernel::with_types(crate::TYPES, &[], LISTS);
        TestModule::x86("6.12.0", &[("___srcu_struct_ptrs", DATA, 8), (".data", DATA, 256)]).run(
            &kernel,
            |m| {
                let (table, ssp) = (address(m, "___srcu_struct_ptrs"), address(m, ".data"));
                put_word(m, table, ssp);
                module_coming(m);
                assert_eq!(runtime(m), [(ssp + kernel.offset("srcu_struct.sda"), 8)], "FIN-83");
                assert!(m.record.patches.is_empty(), "FIN-83: the rest is as compiled");
            },
        );
    }

    #[test]
    fn fin_83_srcu_before_6_4_is_initialised() {
        let mut kernel = TestKernel::with_types(crate::TYPES, &["srcu_struct.srcu_sup"], LISTS);
        kernel.symbols = [("process_srcu", 0x11), ("delayed_work_timer_fn", 0x22)].into();
        TestModule::x86("6.1.0", &[("___srcu_struct_ptrs", DATA, 8), (".data", DATA, 256)]).run(
            &kernel,
            |m| {
                let (table, ssp) = (address(m, "___srcu_struct_ptrs"), address(m, ".data"));
                put_word(m, table, ssp);
                module_coming(m);
                let at = |path| ssp + kernel.offset(path);
                for list in &LISTS[..4] {
                    let head = at(list.0);
                    assert_eq!(
                        (m.u64(head), m.u64(head + 8)),
                        (Some(head), Some(head)),
                        "FIN-83: {}",
                        list.0
                    );
                }
                assert_eq!(m.u64(at("srcu_struct.work.work.data")), Some(0xf_ffff_ffe0), "FIN-83");
                assert_eq!(m.u64(at("srcu_struct.work.work.func")), Some(0x11), "FIN-83");
                assert_eq!(m.u64(at("srcu_struct.work.timer.function")), Some(0x22), "FIN-83");
                assert_eq!(runtime(m).len(), 6, "FIN-83: sda, the time, the CPU, what large machines have");
            },
        );
    }

    #[test]
    fn fin_84_only_classes_of_this_module_are_listed() {
        let kernel = TestKernel::with_types(crate::TYPES, &[], LISTS);
        let size = kernel.types["ddebug_class_map"].size;
        let sections =
            [("__dyndbg", DATA, 8), ("__dyndbg_classes", DATA, 2 * size as usize), (".data", DATA, 64)];
        TestModule::x86("6.12.0", &sections).run(&kernel, |m| {
            let (maps, names) = (address(m, "__dyndbg_classes"), address(m, ".data"));
            put(m, names, b"another\0");
            let mod_name = kernel.offset("ddebug_class_map.mod_name");
            put_word(m, maps + mod_name, names);
            // The test module has no name.
            put_word(m, maps + size + mod_name, names + 7);
            module_coming(m);
            assert_eq!(runtime(m), [(maps + size, 16)], "FIN-84");
            assert!(class_maps_in_reach(m, &reloc::x86_64::X86_64), "FIN-84");
            put_word(m, maps + mod_name, 0);
            assert!(!class_maps_in_reach(m, &reloc::x86_64::X86_64), "FIN-84: strcmp of NULL");
        });
        TestModule::x86("6.12.0", &sections[1..]).run(&kernel, |m| {
            module_coming(m);
            assert!(runtime(m).is_empty(), "FIN-84: without descriptors there is no list");
        });
    }

    #[test]
    fn fin_83_and_85_pointers_that_lead_nowhere() {
        let kernel = TestKernel::with_types(crate::TYPES, &[], LISTS);
        for (list, code, notice) in
            [("___srcu_struct_ptrs", "FIN-83", 0), ("__trace_printk_fmt", "FIN-85", 13)]
        {
            let module = TestModule::x86("6.12.0", &[(list, DATA, 16), (".data", DATA, 256)]);
            // lookup_format passes over NULL.
            for (last, crashes) in
                [(None, false), (Some(0x1000), true), (Some(0), list != "__trace_printk_fmt")]
            {
                module.run(&kernel, |m| {
                    let [table, data] = [list, ".data"].map(|name| address(m, name));
                    put_word(m, table, data);
                    put_word(m, table + 8, last.unwrap_or(data));
                    let arch = &reloc::x86_64::X86_64;
                    let reached = srcu_structs_in_reach(m, arch) && trace_printk_formats_in_reach(m, arch);
                    assert_eq!((reached, m.said.refused()), (!crashes, crashes), "{code}: {list}: {last:?}");
                    let before: usize = m.said.iter().filter(|f| f.code == code).map(|f| f.dmesg.len()).sum();
                    assert_eq!(before, notice, "{code}: {list}");
                });
            }
        }
    }

    #[test]
    fn fin_85_and_87_a_table_that_cannot_be_written() {
        let kernel = TestKernel::with_types(crate::TYPES, &[], LISTS);
        let sections = [("__trace_printk_fmt", RODATA, 8), (".data", DATA, 8)];
        for (format, crashes) in [(true, true), (false, false)] {
            TestModule::x86("6.12.0", &sections).run(&kernel, |m| {
                let [table, data] = ["__trace_printk_fmt", ".data"].map(|name| address(m, name));
                put_word(m, table, if format { data } else { 0 });
                let reached = trace_printk_formats_in_reach(m, &reloc::x86_64::X86_64);
                assert_eq!((reached, m.said.refused()), (!crashes, crashes), "FIN-85, FIN-87: {format}");
            });
        }
    }

    #[test]
    fn fin_85_formats_go_to_copies() {
        TestModule::x86("6.12.0", &[("__trace_printk_fmt", DATA, 20)]).run(&TestKernel::default(), |m| {
            module_coming(m);
            assert_eq!(runtime(m), [(address(m, "__trace_printk_fmt"), 16)], "FIN-85");
        });
    }
}
