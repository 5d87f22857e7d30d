//! A `struct module` that is not laid out as the kernel's (spec 04).

use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Errno, Findings, HeapMemory, KernelConfig, LoadInfo, Placement, Region};
use finalize::initcall::initcall_blacklisted;
use finalize::struct_module::{sizes_in_file, struct_module_layout};
use finalize::sysfs::mod_sysfs_setup;
use kernel::{Kernel, RunningKernel};
use reloc::testing::TestKernel;
use reloc::{Architecture, Cpu, Finalizer, LoadFacts, MACHINES, Record, aarch64, apply_relocations, x86_64};
use symres::simplify::{simplify_symbols, write_symtab};
use testkit::elf::{ALLOC, Builder, ET_REL, EXEC, GLOBAL, LOCAL, Rela, WRITE};

const THIS: &str = ".gnu.linkonce.this_module";
/// Offsets of init and exit in this kernel's `struct module`: behind all members that are looked up.
const INIT_EXIT: (u64, u64) = (0xff0, 0xff8);
const BASE: u64 = 0xffff_ffff_c010_0000;
const SIZES: &[(&str, u64)] = &[
    ("module.mem", 7 * 32),
    ("module.core_layout", 96),
    ("module.init_layout", 96),
    ("module.list", 16),
    ("module.source_list", 16),
    ("module.target_list", 16),
    ("module.state", 4),
    ("module.refcnt", 4),
    ("module.sig_ok", 1),
    ("module_memory.mtn.node", 48),
    ("module_layout.mtn.node", 48),
];

/// What was said, and the pointers at init, exit and `looked_at`, each as it is after relocation; others are zero.
struct Told {
    codes: Vec<&'static str>,
    errno: Option<Errno>,
    why: String,
    at: [bool; 3],
    others_are_zero: bool,
    blacklisted: [bool; 3],
    open: Vec<&'static str>,
}

fn load(arch: &dyn Architecture, release: &str, size: u64, init: u64, exit: u64) -> Told {
    load_with(arch, release, size, (init, exit), &[])
}

/// The same with more sections, of so many bytes.
fn load_with(
    arch: &dyn Architecture,
    release: &str,
    size: u64,
    (init, exit): (u64, u64),
    more: &[(&str, u64)],
) -> Told {
    let kernel = TestKernel::with_types(finalize::TYPES, &[], SIZES);
    let config = KernelConfig::of_release(release, MACHINES).unwrap().with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.struct_module_init_exit = Some(INIT_EXIT);
        c.struct_module_size = Some(0x1000);
    });
    let mut b = Builder::new(ET_REL, arch.e_machine());
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(THIS, ALLOC | WRITE, 64).zeros(size);
    for name in [".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"] {
        b.section(name, ALLOC | EXEC, 1).zeros(1);
    }
    for (name, size) in more {
        b.section(name, ALLOC, 8).zeros(*size);
    }
    let text = b.index(".text");
    // In the kernel's order of names: local ones first.
    for (name, value) in [("$x", 0), ("", 0), ("hello_init", 0), ("later", 8)] {
        b.symbol(name, LOCAL, 2, text, value);
    }
    let symbols = ["init_module", "cleanup_module"].map(|name| b.symbol(name, GLOBAL, 2, text, 0));
    let kind = if arch.e_machine() == x86_64::X86_64.e_machine() { 1 } else { 257 };
    let records = [(init, symbols[0]), (exit, symbols[1])];
    let records = records.map(|(offset, symbol)| Rela { offset, symbol, kind, addend: 0 });
    b.relocations(THIS, &records);
    let bytes = b.build();
    let of_kernel = Kernel::unknown(config);
    let (config, mut said) = (&of_kernel.config, Findings::new());
    let expected = Expected { config, machine: None, known: MACHINES, ignore_modversions: false };
    let file = elf_validity(&bytes, &expected, &mut said).expect("a module");
    let mut info = LoadInfo::rewrite_section_headers(&file, config);
    let mut mod_arch = arch.module_frob_arch_sections(&mut info, Cpu::default(), &mut said);
    info.edit_flags();
    let layout = layout_sections(&info, &mut said).expect("a layout");
    let placement = Placement::consecutive(&layout, BASE);
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    let mut said = Findings::new();
    simplify_symbols(&mut module, &of_kernel, of_kernel.state.taints, |_| false, &mut said);
    write_symtab(&mut module);
    let mut record = Record::default();
    let (before, crashes) = struct_module_layout(
        &mut Finalizer {
            module: &mut module,
            load: LoadFacts { mod_arch: &mod_arch, taints: 0, using_gplonly_symbols: false, sig_ok: false },
            kernel: &kernel,
            record: &mut record,
            said: &mut said,
            choices: false,
            verdict_only: false,
        },
        arch,
    );
    apply_relocations(arch, &mut mod_arch, &mut module, &|_, _| Some(Err(String::new())), &mut said);
    crashes.into_iter().for_each(|crash| said.refuse(crash));
    if let Some(before) = before {
        before.take_back(&mut module);
    }
    let lists = [vec!["init_module", "later", "$x", ""], vec![], vec!["a", "hello_init"]];
    let blacklisted = lists.map(|list: Vec<&str>| {
        let mut said = Findings::new();
        let list: Vec<Vec<u8>> = list.iter().map(|name| name.as_bytes().to_vec()).collect();
        let is = initcall_blacklisted(&module, &list, &mut said);
        assert_eq!(is.then_some(Errno::EPERM), said.errno(), "LIFE-16");
        assert_eq!(said.dmesg().count(), 0, "LIFE-16: pr_debug");
        assert!(said.iter().all(|f| f.code == "LIFE-16"));
        is
    });
    let table = module.section(THIS).unwrap();
    let pointer = module.section(".text").unwrap().address;
    let points = |at| module.u64(table.address.wrapping_add(at)) == Some(pointer);
    let set = [init, exit].into_iter().filter(|at| points(*at)).count() as u64 * 8;
    let zeros = module.read(table.address, table.size).unwrap().iter().filter(|b| **b == 0).count() as u64;
    let pointer_zeros = pointer.to_le_bytes().iter().filter(|b| **b == 0).count() as u64;
    Told {
        codes: said.iter().map(|f| f.code).collect(),
        errno: said.errno(),
        why: said.iter().map(|f| f.explanation.to_string()).collect(),
        at: [points(INIT_EXIT.0), points(INIT_EXIT.1), points(exit)],
        blacklisted,
        open: said.open_rules().iter().map(|rule| rule.code).collect(),
        others_are_zero: zeros == size - set + set / 8 * pointer_zeros,
    }
}

fn offset(path: &str) -> u64 {
    TestKernel::with_types(finalize::TYPES, &[], SIZES).offset(&format!("module.{path}"))
}

#[test]
fn reloc_gen_15_a_struct_module_as_the_kernels() {
    for (arch, release) in [(&x86_64::X86_64 as &dyn Architecture, "6.1.0"), (&aarch64::Aarch64, "6.12.0")] {
        let told = load(arch, release, 0x1000, INIT_EXIT.0, INIT_EXIT.1);
        assert!(told.codes.is_empty(), "RELOC-GEN-15: {:?}", told.codes);
        assert_eq!(told.at, [true; 3], "RELOC-GEN-15");
        assert!(told.others_are_zero, "RELOC-GEN-15");
    }
}

#[test]
fn life_16_the_name_that_the_kernel_finds_for_init() {
    let told = load(&x86_64::X86_64, "6.12.0", 0x1000, INIT_EXIT.0, INIT_EXIT.1);
    assert_eq!(
        told.blacklisted,
        [false, false, true],
        "LIFE-16, LIFE-54: hello_init comes before init_module"
    );
    let told = load(&x86_64::X86_64, "6.12.0", 0x1000, offset("extable"), INIT_EXIT.1);
    assert_eq!(told.blacklisted, [false; 3], "LIFE-16: the kernel calls none");
}

#[test]
fn reloc_gen_15_places_that_the_kernel_has_filled() {
    for release in ["6.1.0", "6.12.0"] {
        let area = if release == "6.1.0" { "core_layout" } else { "mem" };
        for member in ["state", "list", "source_list", "target_list", "refcnt", area] {
            let told = load(&x86_64::X86_64, release, 0x1000, INIT_EXIT.0, offset(member));
            assert_eq!(told.codes, ["RELOC-GEN-15", "X86REL-3"], "RELOC-GEN-15: {release}: {member}");
            assert_eq!(told.errno, Some(Errno::ENOEXEC), "RELOC-GEN-15: {release}: {member}");
            assert!(told.why.contains("has written there"), "RELOC-GEN-15: {}", told.why);
            assert_eq!(told.at, [true, false, false], "RELOC-GEN-15: {release}: {member}");
            assert!(told.others_are_zero, "RELOC-GEN-15: {release}: {member}: as in the file again");
        }
    }
}

#[test]
fn reloc_gen_15_places_that_are_empty_by_then() {
    // kallsyms and args are set after relocation; the module has no exception table and no parameters.
    for member in ["kallsyms", "args", "extable", "kp", "holders_dir"] {
        let told = load(&x86_64::X86_64, "6.12.0", 0x1000, INIT_EXIT.0, offset(member));
        assert_eq!((told.codes, told.errno), (vec!["RELOC-GEN-15"], None), "RELOC-GEN-15: {member}");
        assert!(told.why.contains(&format!("has {member},")), "RELOC-GEN-15: {}", told.why);
        assert!(told.why.contains("rmmod says EBUSY"), "RELOC-GEN-15: {}", told.why);
        assert_eq!(told.at, [true, false, true], "RELOC-GEN-15: {member}");
    }
    let told = load(&x86_64::X86_64, "6.12.0", 0x1000, offset("extable"), INIT_EXIT.1);
    assert_eq!((told.codes, told.errno), (vec!["RELOC-GEN-15"], None), "RELOC-GEN-15: init");
    assert!(told.why.contains("calls none"), "RELOC-GEN-15: {}", told.why);
    let told = load(&x86_64::X86_64, "6.12.0", 0x1000, INIT_EXIT.1, INIT_EXIT.0);
    assert_eq!(told.codes, ["RELOC-GEN-15"; 2], "RELOC-GEN-15: the one in the place of the other");
}

#[test]
fn reloc_gen_15_without_a_test_for_zeros() {
    let told = load(&aarch64::Aarch64, "6.12.0", 0x1000, INIT_EXIT.0, offset("source_list"));
    assert_eq!((told.codes, told.errno), (vec!["RELOC-GEN-15"], None), "RELOC-GEN-15: arm64");
    assert_eq!(told.at, [true, false, true], "RELOC-GEN-15: it is written all the same");
}

#[test]
fn reloc_gen_15_another_size_before_6_4() {
    let told = load(&x86_64::X86_64, "6.1.0", 0x1040, INIT_EXIT.0, INIT_EXIT.1);
    assert_eq!((told.codes, told.errno), (vec!["RELOC-GEN-15"], None), "RELOC-GEN-15: {}", told.why);
    assert!(told.why.contains("0x1040 bytes, that of this kernel 0x1000"), "RELOC-GEN-15: {}", told.why);
}

#[test]
fn reloc_gen_16_tables_that_are_overwritten() {
    // The module has none of these tables: a pointer to one does no harm, a number of records does.
    for (member, crashes) in [
        ("num_kp", true),
        ("num_exentries", true),
        ("num_srcu_structs", true),
        ("num_static_call_sites", true),
        ("dyndbg_info.num_descs", false),
        ("num_ftrace_callsites", true),
        ("kp", false),
        ("num_tracepoints", false),
    ] {
        for arch in [&aarch64::Aarch64 as &dyn Architecture, &x86_64::X86_64] {
            let told = load(arch, "6.12.0", 0x1000, INIT_EXIT.0, offset(member));
            let mut want = vec!["RELOC-GEN-15"];
            want.extend(crashes.then_some("RELOC-GEN-16"));
            assert_eq!((told.codes, told.errno), (want, None), "RELOC-GEN-16: {member} on {}", arch.name());
        }
    }
}

#[test]
fn reloc_gen_16_an_exception_table_elsewhere() {
    // A record has 12 bytes. One is not sorted, and nothing else walks the table.
    for (size, open) in [(12, false), (16, false), (24, true)] {
        let at = (INIT_EXIT.0, offset("extable"));
        let told = load_with(&aarch64::Aarch64, "6.12.0", 0x1000, at, &[("__ex_table", size)]);
        assert_eq!((told.codes, told.errno), (vec!["RELOC-GEN-15"], None), "RELOC-GEN-16: {size} bytes");
        assert_eq!(told.open.contains(&"RELOC-GEN-16"), open, "RELOC-GEN-16: {size} bytes: {:?}", told.open);
    }
}

#[test]
fn reloc_gen_15_a_node_of_the_tree_without_a_parent() {
    // Parent and colour, which is not zero in the first byte, then two children; twice.
    let node = offset("core_layout")
        + TestKernel::with_types(finalize::TYPES, &[], SIZES).offset("module_layout.mtn.node");
    for (at, refused) in [(0, true), (1, false), (2, false), (7, false), (8, false), (24, true), (25, false)]
    {
        let told = load(&x86_64::X86_64, "6.1.0", 0x1000, INIT_EXIT.0, node + at);
        assert_eq!(told.codes.contains(&"X86REL-3"), refused, "RELOC-GEN-15: node + {at}: {:?}", told.codes);
        assert!(told.open.contains(&"RELOC-GEN-15"), "RELOC-GEN-15: node + {at}: {:?}", told.open);
    }
}

#[test]
fn reloc_gen_18_links_that_are_followed() {
    // (member, bytes behind its start, crashes, open)
    for (member, behind, crashes, open) in [
        ("target_list", 0, true, false),
        ("target_list", 8, false, false),
        ("source_list", 0, false, false),
        // Without exports nobody walks the list of modules.
        ("list", 0, false, false),
        ("mem", 0, false, true),
        ("mem", 24, false, true),
        ("kallsyms", 0, false, false),
        ("btf_data", 0, false, true),
        ("btf_data_size", 0, false, true),
        ("btf_base_data_size", 0, false, true),
    ] {
        let told = load(&aarch64::Aarch64, "6.12.0", 0x1000, INIT_EXIT.0, offset(member) + behind);
        let mut want = vec!["RELOC-GEN-15"];
        want.extend(crashes.then_some("RELOC-GEN-18"));
        assert_eq!((told.codes, told.errno), (want, None), "RELOC-GEN-18: {member} + {behind}");
        assert_eq!(
            told.open.contains(&"RELOC-GEN-18"),
            open,
            "RELOC-GEN-18: {member} + {behind}: {:?}",
            told.open
        );
    }
}

#[test]
fn reloc_gen_18_a_place_with_another_top_byte() {
    // The record is written where the processor ignores that byte; x86_64 has no such place.
    for (arch, followed) in [(&aarch64::Aarch64 as &dyn Architecture, true), (&x86_64::X86_64, false)] {
        let told = load(arch, "6.12.0", 0x1000, INIT_EXIT.0, offset("target_list") | 0x8000 << 48);
        assert_eq!(
            told.codes.contains(&"RELOC-GEN-18"),
            followed,
            "RELOC-GEN-11, RELOC-GEN-18: {:?}",
            told.codes
        );
    }
}

#[test]
fn reloc_gen_18_a_place_that_begins_with_zeros() {
    // The lowest byte of a base is zero, so a record that ends there is not refused.
    let base = offset("core_layout")
        + TestKernel::with_types(finalize::TYPES, &[], SIZES).offset("module_layout.base");
    for (at, open) in [(base - 7, true), (base - 8, false)] {
        let told = load(&x86_64::X86_64, "6.1.0", 0x1000, INIT_EXIT.0, at);
        assert_eq!(told.open.contains(&"RELOC-GEN-18"), open, "RELOC-GEN-18: {at:#x}: {:?}", told.open);
        assert!(!told.codes.contains(&"X86REL-3"), "RELOC-GEN-18: {at:#x}: {:?}", told.codes);
    }
}

#[test]
fn reloc_gen_18_exports_are_looked_for_by_state() {
    for (member, more, open) in [
        ("state", &[("__ksymtab", 16)][..], true),
        ("state", &[("__ksymtab_gpl", 16)], true),
        ("state", &[], false),
        ("list", &[("__ksymtab", 16)], true),
        ("source_list", &[("__ksymtab", 16)], false),
    ] {
        let told = load_with(&aarch64::Aarch64, "6.12.0", 0x1000, (INIT_EXIT.0, offset(member)), more);
        assert_eq!(told.open.contains(&"RELOC-GEN-18"), open, "RELOC-GEN-18: {member} with {more:?}");
    }
}

#[test]
fn layout_23_sizes_of_regions_in_the_file() {
    let kernel = TestKernel::with_types(finalize::TYPES, &[], SIZES);
    // The third region, and the init area.
    let places = [
        (
            "6.12.0",
            Region::Rodata,
            2 * kernel.struct_size("module_memory").unwrap(),
            "mem",
            "module_memory.size",
        ),
        ("6.1.0", Region::Init, 0, "init_layout", "module_layout.size"),
    ];
    for (release, region, behind, path, size) in places {
        let config = KernelConfig::of_release(release, MACHINES).unwrap();
        let mut b = Builder::new(ET_REL, x86_64::X86_64.e_machine());
        let mut this = vec![0; 0x1000];
        let at = usize::try_from(offset(path) + behind + kernel.offset(size)).unwrap();
        this[at..at + 4].copy_from_slice(&0x18u32.to_le_bytes());
        // Of a small one the kernel reads on in the section behind it (VAL-56).
        let behind = this.split_off(if release == "6.1.0" { 64 } else { this.len() });
        b.section(THIS, ALLOC | WRITE, 64).data(this);
        b.section(".behind", ALLOC, 64).data(behind);
        let bytes = b.build();
        let expected =
            Expected { config: &config, machine: None, known: MACHINES, ignore_modversions: false };
        let file = elf_validity(&bytes, &expected, &mut Findings::new()).expect("a module");
        let sizes = sizes_in_file(&kernel, &LoadInfo::rewrite_section_headers(&file, &config));
        for other in [Region::Text, Region::Rodata, Region::Core, Region::Init] {
            let want = if other == region { 0x18 } else { 0 };
            assert_eq!(sizes.get(other), want, "LAYOUT-23: {release} {other:?}");
        }
    }
}

#[test]
fn life_42_files_of_parameters_are_added_to_what_the_file_has() {
    let kernel = TestKernel::with_types(finalize::TYPES, &[], SIZES);
    let config = KernelConfig::of_release("6.12.0", MACHINES).unwrap();
    for (mp, mode, want) in
        [(0u64, 0o444u16, vec![]), (0xfffff, 0o444, vec!["LIFE-42"]), (0xfffff, 0, vec![])]
    {
        let mut b = Builder::new(ET_REL, x86_64::X86_64.e_machine());
        b.section(".text", ALLOC | EXEC, 16).zeros(64);
        let mut this = vec![0; 0x1000];
        let at = usize::try_from(offset("mkobj.mp")).unwrap();
        this[at..at + 8].copy_from_slice(&mp.to_le_bytes());
        b.section(THIS, ALLOC | WRITE, 64).data(this);
        let mut parameter = vec![0; 40];
        parameter[..8].copy_from_slice(&BASE.to_le_bytes());
        parameter[24..26].copy_from_slice(&mode.to_le_bytes());
        b.section("__param", ALLOC, 8).data(parameter);
        let bytes = b.build();
        let mut said = Findings::new();
        let expected =
            Expected { config: &config, machine: None, known: MACHINES, ignore_modversions: false };
        let file = elf_validity(&bytes, &expected, &mut said).expect("a module");
        let mut info = LoadInfo::rewrite_section_headers(&file, &config);
        info.edit_flags();
        let layout = layout_sections(&info, &mut said).expect("a layout");
        let placement = Placement::consecutive(&layout, BASE);
        let memory = Box::new(HeapMemory::new(&layout));
        let module = move_module(info, layout, placement, memory);
        let mut said = Findings::new();
        mod_sysfs_setup(&module, &kernel, &x86_64::X86_64, &mut said);
        let codes: Vec<_> = said.iter().map(|f| f.code).filter(|code| *code == "LIFE-42").collect();
        assert_eq!(codes, want, "LIFE-42: {mp:#x} {mode:o}: {said:?}");
    }
}
