//! The members of `struct module` that follow from the file, its place and the kernel, at the offsets
//! that the kernel's BTF gives. A kernel has a member if its configuration has what it is for, so no
//! option is asked for here. `docs/final-bytes.md` lists the members that only the running kernel knows.

mod before;
mod members;

use alloc::format;
use alloc::vec::Vec;

use elf_layout::bytes::{le32, printed, slice};
use elf_layout::elf::{SHF_ALLOC, SHT_NOTE};
use elf_layout::layout::read_later;
use elf_layout::{Change, Finding, Findings, Generation, Layout, LoadInfo, PerRegion, Region, Severity};
use kernel::{Member, RunningKernel};

pub use before::{Before, struct_module_layout};
use members::{ANY_OBJS, OBJS, Objs, RUNTIME, Size};
pub use members::{LAYOUT_MEMBERS, MEMBERS, MEMORY_MEMBERS};
use reloc::Architecture;
use reloc::Finalizer;
use reloc::Step;

/// `MODULE_STATE_COMING`
const COMING: u64 = 1;
/// `MODULE_REF_BASE`, and the reference that the load itself holds (LIFE-20).
const REFCNT: u64 = 2;

/// Position of a member in [`MEMBERS`].
pub fn detail_of(path: &str) -> u64 {
    MEMBERS.iter().position(|m| *m == path).map_or(u64::MAX, |at| at as u64)
}

/// Writes them as they are when init is about to run (FIN-86).
pub fn write_struct_module(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let Some(table) = module.table(module.info.file.index().module) else { return };
    if module.kernel.struct_size("module").is_none() {
        module.record.not_known("the layout of struct module, which the BTF of a kernel image tells");
        module.runtime(table.address, table.size, "struct module, whose layout is not known");
        return;
    }
    let mut this = This { module, base: table.address };
    this.sections(arch);
    this.memory(arch);
    for (path, value) in arch.mod_arch_specific(this.module) {
        this.put(path, value);
    }
    this.kallsyms();
    this.state();
    for (path, what) in RUNTIME {
        this.runtime(path, what);
    }
}

/// VAL-56: before v6.4 nobody looks whether `struct module` is whole. The kernel takes where the memory of init is from it
/// (`add_kallsyms`), and from a piece of it takes zeros, or what another section has there.
pub fn struct_module_has_places(module: &mut Finalizer<'_, '_>) {
    let (info, index) = (&module.info, module.info.file.index().module);
    let own = info.sechdrs.get(index).map_or(0, |s| s.sh_size);
    let init_layout = module.kernel.member("module", "init_layout");
    let missing = init_layout.filter(|m| index != 0 && own < m.offset.saturating_add(POINTER));
    if missing.is_none() || module.changes().has(Change::ElfValidityCacheCopy) {
        return;
    }
    let why = format!(
        "struct module has {own:#x} bytes, fewer than up to where the kernel keeps the places of its memory: it crashes"
    );
    let finding = Finding::note("VAL-56", Severity::Oops, why).about(info.file.section_subject(index));
    module.said.refuse(finding);
}

/// Bytes of a pointer.
const POINTER: u64 = 8;

/// The `struct module` of the module that is being loaded.
struct This<'m, 'a, 'd> {
    module: &'m mut Finalizer<'a, 'd>,
    /// `mod`
    base: u64,
}

impl This<'_, '_, '_> {
    /// Address and size of a member.
    fn member(&self, path: &str) -> Option<Member> {
        Some(self.at(self.module.kernel.member("module", path)?))
    }

    /// A member by address.
    fn at(&self, member: Member) -> Member {
        Member { offset: self.base.wrapping_add(member.offset), size: member.size }
    }

    /// Sets a member, as far as it is wide.
    fn put(&mut self, path: &str, value: u64) {
        if let Some(member) = self.member(path) {
            self.write(member, value, path);
        }
    }

    /// Sets a member inside of another one.
    fn put_in(&mut self, outer: Member, of: &str, path: &str, value: u64, outer_path: &str) {
        if let Some(inner) = self.module.kernel.member(of, path) {
            let at = Member { offset: outer.offset.wrapping_add(inner.offset), size: inner.size };
            self.write(at, value, outer_path);
        }
    }

    fn write(&mut self, at: Member, value: u64, path: &str) {
        let bytes = value.to_le_bytes();
        let bytes = usize::try_from(at.size).ok().and_then(|len| bytes.get(..len)).unwrap_or(&bytes);
        self.module.write(at.offset, bytes, Step::StructModule, detail_of(path));
    }

    fn runtime(&mut self, path: &str, what: &'static str) {
        if let Some(member) = self.member(path) {
            self.module.runtime(member.offset, member.size, what);
        }
    }

    /// `find_module_sections`, `module_bug_finalize`, `module_cfi_finalize`.
    fn sections(&mut self, arch: &dyn Architecture) {
        self.module_sections(&ANY_OBJS.iter().collect::<Vec<_>>(), arch);
        let traps = self.module.table(self.module.info.file.find_any_sec("__kcfi_traps"));
        self.put("kcfi_traps_end", traps.map_or(0, |t| t.address.wrapping_add(t.size)));
    }

    /// `find_module_sections`, with those of `any` that need not be in memory.
    fn module_sections(&mut self, any: &[&Objs], arch: &dyn Architecture) {
        for objs in OBJS {
            let index = objs.2.iter().map(|name| self.module.info.find_sec(name)).find(|index| *index != 0);
            self.objs(objs, index.unwrap_or(0));
        }
        for objs in any {
            let file = self.module.info.file;
            let index = objs.2.iter().map(|name| file.find_any_sec(name)).find(|index| *index != 0);
            self.objs(objs, index.unwrap_or(0));
        }
        // FIN-40
        let index = self.module.info.find_sec(arch.ftrace_callsites(self.module.info.config));
        self.objs(&("ftrace_callsites", Some("num_ftrace_callsites"), &[], Size::Bytes(8)), index);
    }

    fn objs(&mut self, (pointer, count, _, size): &Objs, index: usize) {
        if self.member(pointer).is_none() {
            return;
        }
        match self.module.table(index) {
            Some(table) => self.put(pointer, table.address),
            None if index == 0 => self.put(pointer, 0),
            None => self.runtime(pointer, "struct module: address of a section that is not kept"),
        }
        let Some(count) = count else { return };
        let size = match size {
            Size::Bytes(size) => Some(*size),
            Size::Struct(name) => self.module.kernel.struct_size(name),
        };
        // No section is section 0, which has no size.
        let bytes = self.module.info.sechdrs.get(index).filter(|_| index != 0).map_or(0, |s| s.sh_size);
        match size {
            Some(size) => self.put(count, bytes.checked_div(size).unwrap_or(0)),
            None if bytes == 0 => self.put(count, 0),
            None => {
                self.module.record.not_known("sizes of the kernel's structs, which its BTF tells");
                self.runtime(count, "struct module: a count of records whose size is not known");
            }
        }
    }

    /// `mem[]`, or `core_layout` and `init_layout`, and their places in the tree of addresses.
    fn memory(&mut self, arch: &dyn Architecture) {
        match self.module.layout.generation {
            Generation::ModMemType => self.mem(arch),
            Generation::CoreInit => self.core_and_init(),
        }
    }

    /// Since v6.4 (mod_mem_type).
    fn mem(&mut self, arch: &dyn Architecture) {
        let windows = arch.module_area(self.module.info.config, &|name| self.module.kernel.symbol(name));
        for (region, area) in areas(self.module.kernel, self.module.layout.generation) {
            let at = self.at(area);
            let size = self.module.layout.allocated(region);
            let base = if size == 0 { 0 } else { self.module.placement.bases.get(region) };
            self.put_in(at, "module_memory", "base", base, "mem");
            // execmem_is_rox: memory of this kind comes from a cache of pages that cannot be written (LAYOUT-55).
            let is_rox = size != 0 && windows.caches(region);
            self.put_in(at, "module_memory", "is_rox", u64::from(is_rox), "mem");
            self.put_in(at, "module_memory", "size", size, "mem");
            self.put_in(at, "module_memory", "mtn.mod", self.base, "mem");
            if size != 0 {
                self.tree_node(at, "module_memory");
            }
        }
    }

    /// Up to 6.3.
    fn core_and_init(&mut self) {
        let marks = self.module.layout.marks;
        for (((region, area), marks), path) in
            areas(self.module.kernel, self.module.layout.generation).into_iter().zip(marks).zip(LAYOUTS)
        {
            let at = self.at(area);
            let size = self.module.layout.sizes.get(region);
            let base = if size == 0 { 0 } else { self.module.placement.bases.get(region) };
            let values = [
                ("base", base),
                ("size", size),
                ("text_size", marks.text_size),
                ("ro_size", marks.ro_size),
                ("ro_after_init_size", marks.ro_after_init_size),
                ("mtn.mod", self.base),
            ];
            for (inner, value) in values {
                self.put_in(at, "module_layout", inner, value, path);
            }
            if size != 0 {
                self.tree_node(at, "module_layout");
            }
        }
    }

    /// `mod_tree_insert`: where the tree of module addresses has its links.
    fn tree_node(&mut self, outer: Member, of: &str) {
        if let Some(node) = self.module.kernel.member(of, "mtn.node") {
            let at = outer.offset.wrapping_add(node.offset);
            self.module.runtime(at, node.size, "struct module: mtn.node, its place in the tree of addresses");
        }
    }

    /// `add_kallsyms` (FIN-3)
    fn kallsyms(&mut self) {
        let Some(plan) = &self.module.layout.symtab else { return };
        let bases = &self.module.placement.bases;
        let (core, init) = (bases.get(plan.core_region), bases.get(plan.init_region));
        let values = [
            ("kallsyms", init.wrapping_add(plan.mod_kallsyms_init_off)),
            ("core_kallsyms.symtab", core.wrapping_add(plan.symoffs)),
            ("core_kallsyms.num_symtab", plan.core_symbols.len() as u64),
            ("core_kallsyms.strtab", core.wrapping_add(plan.stroffs)),
            ("core_kallsyms.typetab", core.wrapping_add(plan.core_typeoffs)),
        ];
        for (path, value) in values {
            self.put(path, value);
        }
    }

    /// The rest, each as the load has left it.
    fn state(&mut self) {
        self.load_so_far();
        self.put("state", COMING);
        // klp_module_coming sets klp_alive of every module.
        self.put("klp_alive", 1);
        if self.module.info.file.modinfo().get("livepatch").is_some() {
            self.runtime("klp_info", "struct module: klp_info, a copy of the section headers");
        }
        self.build_id();
    }

    /// What relocation finds already.
    fn load_so_far(&mut self) {
        let load = self.module.load;
        let file = self.module.info.file;
        self.put("refcnt", REFCNT);
        self.put("taints", load.taints);
        self.put("using_gplonly_symbols", u64::from(load.using_gplonly_symbols));
        self.put("sig_ok", u64::from(load.sig_ok));
        // mutex_init: its list of waiters is empty.
        self.put("param_lock.owner", 0);
        if let Some(waiters) = self.member("param_lock.wait_list").filter(|m| m.size == 16) {
            let link = waiters.offset.to_le_bytes();
            let detail = detail_of("param_lock.wait_list");
            self.module.write(waiters.offset, &[link, link].concat(), Step::StructModule, detail);
        }
        for (path, tag, what) in [
            ("version", "version", "struct module: version, a copy of its modinfo"),
            ("srcversion", "srcversion", "struct module: srcversion, a copy of its modinfo"),
            (
                "imported_namespaces",
                "import_ns",
                "struct module: imported_namespaces, a list of its import_ns",
            ),
        ] {
            match file.modinfo().get(tag) {
                Some(_) => self.runtime(path, what),
                None => self.put(path, 0),
            }
        }
        if file.modinfo().get("livepatch").is_some() {
            self.put("klp", 1);
        }
        self.percpu();
    }

    /// `percpu_modalloc` (LAYOUT-60)
    fn percpu(&mut self) {
        let pcpu = self.module.info.file.index().pcpu;
        let size = self.module.info.sechdrs.get(pcpu).filter(|_| pcpu != 0).map_or(0, |s| s.sh_size);
        if size == 0 {
            return;
        }
        self.put("percpu_size", size);
        match self.module.placement.percpu {
            Some(percpu) => self.put("percpu", percpu),
            None => self.runtime("percpu", "struct module: percpu, where its per-cpu area was put"),
        }
    }

    /// `init_build_id` (FIN-6): of the first note section that has one.
    fn build_id(&mut self) {
        let Some(member) = self.member("build_id") else { return };
        let info = &self.module.info;
        let notes = info.sechdrs.iter().enumerate();
        let mut notes = notes
            .filter(|(_, s)| s.sh_type == SHT_NOTE && s.sh_flags & SHF_ALLOC != 0 && s.sh_size != 0)
            .filter_map(|(index, _)| gnu_build_id(info.file.section_bytes(index)));
        let Some(id) = notes.next() else { return };
        let mut bytes: Vec<u8> = id.to_vec();
        bytes.resize(usize::try_from(member.size.min(BUILD_ID_SIZE_MAX)).unwrap_or(0), 0);
        self.module.write(member.offset, &bytes, Step::StructModule, detail_of("build_id"));
    }
}

/// Up to 6.3 (`struct module_layout`).
const LAYOUTS: [&str; 2] = ["core_layout", "init_layout"];

/// LAYOUT-23: the sizes of the regions that the `struct module` of a file has: `layout_sections` adds to them. Of one that is too
/// small the kernel reads what follows in the file (VAL-56).
pub fn sizes_in_file(kernel: &dyn RunningKernel, info: &LoadInfo<'_>) -> PerRegion<u64> {
    let mut sizes = PerRegion::default();
    let generation = info.config.generation();
    let of = match generation {
        Generation::ModMemType => "module_memory",
        Generation::CoreInit => "module_layout",
    };
    let Some(size) = kernel.member(of, "size") else { return sizes };
    let index = info.file.index().module;
    let Some(this) = info.file.sections().get(index).filter(|_| index != 0).map(|s| s.sh_offset) else {
        return sizes;
    };
    for (region, area) in areas(kernel, generation) {
        let at = this.saturating_add(area.offset).saturating_add(size.offset);
        *sizes.get_mut(region) = le32(info.file.bytes(), at).map_or(0, u64::from);
    }
    sizes
}

/// VAL-56: up to 6.3 struct module may be smaller in the file than the kernel's. The kernel then writes its sizes, places and
/// taints over what follows in the temporary copy.
pub fn small_struct_module(
    kernel: &dyn RunningKernel,
    info: &LoadInfo<'_>,
    layout: &Layout,
    said: &mut Findings,
) {
    let generation = info.config.generation();
    let Some(this) =
        info.sechdrs.get(info.file.index().module).filter(|_| generation == Generation::CoreInit)
    else {
        return;
    };
    let areas = areas(kernel, generation).into_iter().map(|(_, area)| area);
    let members = areas.chain(kernel.member("module", "taints"));
    let end = |member: &Member| member.offset.saturating_add(member.size);
    let behind = members.filter(|member| end(member) > this.sh_size);
    let in_file = |offset: u64| this.sh_offset.saturating_add(offset);
    let places: Vec<_> =
        behind.map(|member| in_file(member.offset.max(this.sh_size))..in_file(end(&member))).collect();
    if let Some(section) = read_later(info, layout, &places) {
        let name = printed(info.file.section_name(section)).into_owned();
        let needs = format!(
            "what the kernel has written over {name}: it lies where struct module, which is too small, would go on"
        );
        said.may_crash("VAL-56", needs);
    }
}

/// Where in `struct module` each region is described: an element of `mem[]`, or up to 6.3 `core_layout` and `init_layout`. None
/// if the kernel's types are not known.
fn areas(kernel: &dyn RunningKernel, generation: Generation) -> Vec<(Region, Member)> {
    let regions = generation.regions().iter().copied();
    let member = |path| kernel.member("module", path);
    match generation {
        Generation::ModMemType => {
            let each = kernel.struct_size("module_memory").filter(|each| *each != 0);
            let (Some(mem), Some(each)) = (member("mem"), each) else { return Vec::new() };
            let starts = (0..mem.size).step_by(usize::try_from(each).unwrap_or(usize::MAX));
            let at = |start| Member { offset: mem.offset.wrapping_add(start), size: each };
            regions.zip(starts.map(at)).collect()
        }
        Generation::CoreInit => match LAYOUTS.map(member) {
            [Some(core), Some(init)] => regions.zip([core, init]).collect(),
            _ => Vec::new(),
        },
    }
}

/// Bytes of a SHA-1.
const BUILD_ID_SIZE_MAX: u64 = 20;

/// `parse_build_id`: the build id among the notes of a section.
fn gnu_build_id(notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let mut at = 0u64;
    loop {
        let (name_len, len) = (le32(notes, at)?, le32(notes, at.checked_add(4)?)?);
        let name = slice(notes, at.checked_add(12)?, u64::from(name_len))?;
        let id_at = at.checked_add(12)?.checked_add(u64::from(name_len).next_multiple_of(4))?;
        let fits = (1..=BUILD_ID_SIZE_MAX).contains(&u64::from(len));
        if le32(notes, at.checked_add(8)?)? == NT_GNU_BUILD_ID && name == b"GNU\0" && fits {
            return slice(notes, id_at, u64::from(len));
        }
        at = id_at.checked_add(u64::from(len).next_multiple_of(4))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reloc::testing::{CODE, DATA, RODATA, TestKernel, TestModule, address, runtime};
    use reloc::x86_64::X86_64;

    const THIS: &str = ".gnu.linkonce.this_module";
    const SIZES: &[(&str, u64)] = &[
        ("module.mem", 7 * 32),
        ("module.core_layout", 56),
        ("module.init_layout", 56),
        ("module.list", 16),
        ("module.build_id", 20),
        ("module.param_lock.wait_list", 16),
        ("module.sig_ok", 1),
        ("module.num_kp", 4),
    ];
    const SECTIONS: &[(&str, u64, usize)] = &[
        (THIS, DATA, 4096),
        (".text", CODE, 64),
        ("__param", RODATA, 24),
        (".orc_unwind_ip", RODATA, 12),
        (".orc_unwind", RODATA, 18),
        (".init.text", CODE, 16),
        ("__mcount_loc", DATA, 16),
    ];

    #[test]
    fn val_56_a_piece_of_struct_module() {
        let kernel = TestKernel::with_types(crate::TYPES, &[], SIZES);
        let needed = kernel.offset("module.init_layout") as usize + 8;
        for (release, size, crashes) in
            [("6.1.0", 8, true), ("6.1.0", needed - 1, true), ("6.1.0", needed, false), ("6.12.0", 8, false)]
        {
            TestModule::x86(release, &[(THIS, DATA, size)]).run(&kernel, |m| {
                struct_module_has_places(m);
                let codes: Vec<_> = m.said.iter().map(|f| (f.code, f.severity)).collect();
                let want = crashes.then_some(("VAL-56", Severity::Oops));
                assert_eq!(codes, Vec::from_iter(want), "VAL-56: {release}, {size:#x} bytes");
            });
        }
    }

    /// The value of a member; its size is as the kernel has it.
    fn value(m: &Finalizer<'_, '_>, kernel: &TestKernel, path: &str) -> u64 {
        let member = kernel.types[path];
        let bytes = m.read(address(m, THIS) + member.offset, member.size.min(8)).unwrap();
        bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    #[test]
    fn fin_86_members_since_6_4() {
        let kernel = TestKernel::with_types(crate::TYPES, &["module_memory.is_rox"], SIZES);
        TestModule::x86("6.12.0", SECTIONS).run(&kernel, |m| {
            m.load.taints = 0x3000;
            m.load.sig_ok = true;
            write_struct_module(m, &X86_64);
            let this = address(m, THIS);
            for (path, want) in [
                ("state", 1),
                ("refcnt", 2),
                ("taints", 0x3000),
                ("sig_ok", 1),
                ("using_gplonly_symbols", 0),
                ("kp", address(m, "__param")),
                ("num_kp", 3),
                ("syms", 0),
                ("num_syms", 0),
                ("arch.num_orcs", 3),
                ("arch.orc_unwind", address(m, ".orc_unwind")),
                ("ftrace_callsites", address(m, "__mcount_loc")),
                ("num_ftrace_callsites", 2),
                ("param_lock.wait_list", this + kernel.offset("module.param_lock.wait_list")),
                ("klp", 0),
                ("klp_alive", 1),
                ("version", 0),
            ] {
                assert_eq!(value(m, &kernel, &alloc::format!("module.{path}")), want, "FIN-86: {path}");
            }
            // base, size, mtn.mod, mtn.node of mem[MOD_TEXT], mem[MOD_DATA], mem[MOD_RO_AFTER_INIT].
            let mem = this + kernel.offset("module.mem");
            let word = |m: &Finalizer<'_, '_>, n: u64, at: u64| m.u64(mem + 32 * n + at).unwrap();
            assert_eq!([word(m, 0, 0), word(m, 0, 8), word(m, 0, 16)], [address(m, ".text"), 4096, this]);
            assert_eq!([word(m, 1, 0), word(m, 1, 8)], [this, 8192], "FIN-86: mem[MOD_DATA]");
            assert_eq!([word(m, 3, 0), word(m, 3, 8), word(m, 3, 16)], [0, 0, this], "FIN-86: an empty type");
            assert!(runtime(m).contains(&(mem + 24, 8)), "FIN-86: the links of a type in the tree");
            assert!(!runtime(m).contains(&(mem + 32 * 3 + 24, 8)), "FIN-86: an empty type is in no tree");
            assert!(runtime(m).contains(&(this + kernel.offset("module.list"), 16)), "FIN-86: list");
        });
    }

    #[test]
    fn fin_86_members_since_6_16_and_7_1() {
        const EACH: u64 = 40;
        // The first that is named counts.
        let sizes = [&[("module.mem", 7 * EACH)], SIZES].concat();
        let kernel = TestKernel::with_types(crate::TYPES, &[], &sizes);
        let sections = [SECTIONS, &[("__kflagstab", RODATA, 4)]].concat();
        let run = |release: &str, arch: &dyn Architecture| {
            TestModule::x86(release, &sections).run(&kernel, |m| {
                write_struct_module(m, arch);
                let mem = address(m, THIS) + kernel.offset("module.mem");
                let rox = (0..7).map(|n| m.u64(mem + EACH * n + 8).unwrap()).collect::<Vec<_>>();
                let flags = value(m, &kernel, "module.flagstab");
                assert_eq!(flags, address(m, "__kflagstab"), "FIN-86: flagstab");
                assert_eq!(value(m, &kernel, "module.imported_namespaces"), 0, "FIN-86: none are imported");
                rox
            })
        };
        // MOD_TEXT and MOD_INIT_TEXT.
        assert_eq!(run("7.3.0", &X86_64), [1, 0, 0, 0, 1, 0, 0], "FIN-86, LAYOUT-55: is_rox");
        assert_eq!(run("6.12.0", &X86_64), [0; 7], "FIN-86: before 6.15 code has pages of its own");
        assert_eq!(run("7.3.0", &reloc::aarch64::Aarch64), [0; 7], "FIN-86: arm64 has no such cache");
    }

    #[test]
    fn fin_86_layouts_up_to_6_3() {
        let kernel = TestKernel::with_types(crate::TYPES, &["module.mem"], SIZES);
        TestModule::x86("6.1.0", SECTIONS).run(&kernel, |m| {
            write_struct_module(m, &X86_64);
            let this = address(m, THIS);
            let core = this + kernel.offset("module.core_layout");
            let words: Vec<u64> = (0..6).map(|n| m.u64(core + 8 * n).unwrap()).collect();
            // base, size, text_size, ro_size, ro_after_init_size, mtn.mod
            assert_eq!(words, [address(m, ".text"), 4096 * 4, 4096, 8192, 8192, this], "FIN-86: core_layout");
            let init = this + kernel.offset("module.init_layout");
            assert_eq!(m.u64(init), Some(address(m, ".init.text")), "FIN-86: init_layout");
        });
    }

    #[test]
    fn fin_86_without_types_nothing_is_predicted() {
        TestModule::x86("6.12.0", SECTIONS).run(&TestKernel::default(), |m| {
            write_struct_module(m, &X86_64);
            assert_eq!(runtime(m), [(address(m, THIS), 4096)], "FIN-86");
            assert_eq!(m.record.unknown.len(), 1, "FIN-86");
        });
    }

    #[test]
    fn fin_6_the_build_id_among_notes() {
        let note = |kind: u8, name: &[u8; 4], id: &[u8]| {
            let head = [4, 0, 0, 0, id.len() as u8, 0, 0, 0, kind, 0, 0, 0];
            let mut note = [&head[..], name, id].concat();
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let other = note(1, b"Linu", b"12345");
        for (notes, want) in [
            (note(3, b"GNU\0", b"abc"), Some(&b"abc"[..])),
            ([other.clone(), note(3, b"GNU\0", &[7; 20])].concat(), Some(&[7; 20][..])),
            (note(3, b"GNU\0", &[7; 21]), None),
            (note(3, b"GNU\0", b""), None),
            (other, None),
            (note(3, b"GNU\0", b"abcd")[..18].to_vec(), None),
        ] {
            assert_eq!(gnu_build_id(&notes), want, "FIN-6: {notes:?}");
        }
    }
}
