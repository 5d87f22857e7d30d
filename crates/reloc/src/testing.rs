//! A small module in memory and a kernel around it, for tests of single steps.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code, which other crates see through a feature"
)]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE};
use elf_layout::layout::layout_sections;
use elf_layout::module::{HeapMemory, move_module};
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Findings, KernelConfig, LoadInfo, Placement};
use testkit::elf::{Builder, ET_REL, GLOBAL, Rela, UNDEF};

use crate::finalizer::LoadFacts;
use crate::{Finalizer, ModArch, Record, Step};
use kernel::{Folder, Member, RunningKernel};

/// Flags of code.
pub const CODE: u64 = SHF_ALLOC | SHF_EXECINSTR;
/// Flags of constants.
pub const RODATA: u64 = SHF_ALLOC;
/// Flags of data.
pub const DATA: u64 = SHF_ALLOC | SHF_WRITE;
/// Where the module's first region goes.
pub const BASE: u64 = 0xffff_ffff_c000_0000;

/// What a kernel knows of itself.
#[derive(Debug, Default)]
pub struct TestKernel {
    /// Its own symbols.
    pub symbols: BTreeMap<&'static str, u64>,
    /// Pieces of its memory.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Capabilities of its CPUs, as far as they are known.
    pub capabilities: BTreeMap<u32, bool>,
    /// Errata of its CPUs that were named.
    pub errata: Vec<String>,
    /// Number of CPUs.
    pub cpus: Option<u32>,
    /// Command line.
    pub cmdline: &'static str,
    /// Addresses of code and constants of modules.
    pub read_only: Vec<core::ops::Range<u64>>,
    /// The folder that a built-in module of any name has in /sys/module.
    pub folder: Option<Folder>,
    /// Members by struct and path with a dot between them, and structs by name.
    pub types: BTreeMap<String, Member>,
    /// What may be asked for.
    pub listed: Types,
}

/// Structs and the paths of their members.
pub type Types = &'static [(&'static str, &'static [&'static str])];

impl TestKernel {
    /// A kernel with all that `listed` lists but for the paths in `without`: members one after the other, of
    /// 8 bytes unless `sizes` tells others.
    pub fn with_types(listed: Types, without: &[&str], sizes: &[(&str, u64)]) -> Self {
        let mut types = BTreeMap::new();
        for (of, paths) in listed {
            let mut end = 0;
            for path in paths.iter().map(|path| format!("{of}.{path}")) {
                if without.contains(&path.as_str()) {
                    continue;
                }
                let size = sizes.iter().find(|(p, _)| *p == path).map_or(8, |(_, size)| *size);
                types.insert(path, Member { offset: end, size });
                end += size;
            }
            types.insert((*of).into(), Member { offset: 0, size: end.max(8) });
        }
        TestKernel { types, listed, ..TestKernel::default() }
    }

    /// Offset of a member.
    pub fn offset(&self, path: &str) -> u64 {
        self.types[path].offset
    }
}

impl RunningKernel for TestKernel {
    fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }
    fn symbols_with(&self, prefix: &str) -> Vec<u64> {
        self.symbols.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, at)| *at).collect()
    }
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.memory.iter().any(|(at, bytes)| {
            let from = address.checked_sub(*at).map(|from| from as usize);
            let bytes = from.and_then(|from| bytes.get(from..from + out.len()));
            bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
        })
    }
    fn pointer(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }
    fn capability(&self, number: u32) -> Option<bool> {
        self.capabilities.get(&number).copied()
    }
    fn errata(&self) -> &[String] {
        &self.errata
    }
    fn cpus(&self) -> Option<u32> {
        self.cpus
    }
    fn cmdline(&self) -> &str {
        self.cmdline
    }
    fn has_modules(&self) -> bool {
        !self.read_only.is_empty()
    }
    fn in_constants_of_modules(&self, address: u64) -> bool {
        self.read_only.iter().any(|range| range.contains(&address))
    }
    fn folder(&self, _: &[u8]) -> Option<Folder> {
        self.folder
    }
    fn member(&self, of: &str, path: &str) -> Option<Member> {
        let mut lists = self.listed.iter();
        let listed =
            self.listed.is_empty() || lists.any(|(name, paths)| *name == of && paths.contains(&path));
        assert!(listed, "{of}.{path} is in no line of the list");
        self.types.get(&format!("{of}.{path}")).copied()
    }
    fn struct_size(&self, of: &str) -> Option<u64> {
        let listed = self.listed.is_empty() || self.listed.iter().any(|(name, _)| *name == of);
        assert!(listed, "{of} is in no line of the list");
        Some(self.types.get(of)?.size)
    }
}

/// A module that is to be made: its sections are empty, of `size` bytes.
#[derive(Clone, Debug)]
pub struct TestModule {
    /// The kernel it is for.
    pub config: KernelConfig,
    /// `e_machine`
    pub machine: u16,
    /// Name, flags and size in bytes of its sections.
    pub sections: Vec<(&'static str, u64, usize)>,
    /// Name and value of its undefined symbols.
    pub imports: Vec<(&'static str, u64)>,
    /// Relocations that are not applied: section, offset, type and symbol.
    pub relocations: Vec<(&'static str, u64, u32, u32)>,
}

impl TestModule {
    /// One of arm64.
    pub fn arm64(release: &str, sections: &[(&'static str, u64, usize)]) -> Self {
        let config = KernelConfig::of_release(release, crate::MACHINES).unwrap();
        TestModule {
            config,
            machine: crate::aarch64::MACHINE.e_machine,
            sections: sections.to_vec(),
            imports: Vec::new(),
            relocations: Vec::new(),
        }
    }

    /// One of x86_64.
    pub fn x86(release: &str, sections: &[(&'static str, u64, usize)]) -> Self {
        TestModule { machine: crate::x86_64::MACHINE.e_machine, ..TestModule::arm64(release, sections) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut builder = Builder::new(ET_REL, self.machine);
        for (name, flags, size) in &self.sections {
            builder.section(name, *flags, 16).zeros(*size as u64);
        }
        for (name, _) in &self.imports {
            builder.symbol(name, GLOBAL, 0, UNDEF, 0);
        }
        for (section, offset, kind, symbol) in &self.relocations {
            let record = Rela { offset: *offset, kind: *kind, symbol: *symbol, addend: 0 };
            builder.relocations(section, &[record]);
        }
        builder.build()
    }

    /// Brings the module into memory for `test`.
    pub fn run<T>(&self, kernel: &TestKernel, test: impl FnOnce(&mut Finalizer<'_, '_>) -> T) -> T {
        let bytes = self.bytes();
        let known = crate::MACHINES;
        let expected = Expected { config: &self.config, machine: None, known, ignore_modversions: false };
        let mut said = Findings::new();
        let file = elf_validity(&bytes, &expected, &mut said).unwrap();
        let mut info = LoadInfo::rewrite_section_headers(&file, &self.config);
        info.edit_flags();
        let layout = layout_sections(&info, &mut said).unwrap();
        let placement = Placement::consecutive(&layout, BASE);
        let memory = Box::new(HeapMemory::new(&layout));
        let mut module = move_module(info, layout, placement, memory);
        module.values = [0].into_iter().chain(self.imports.iter().map(|i| i.1)).collect();
        let mut record = Record::default();
        test(&mut Finalizer {
            module: &mut module,
            load: LoadFacts {
                mod_arch: &ModArch::default(),
                taints: 0,
                using_gplonly_symbols: false,
                sig_ok: false,
            },
            kernel,
            record: &mut record,
            said: &mut Findings::new(),
            choices: true,
            verdict_only: false,
        })
    }
}

/// Sets a word of 8 bytes as relocation left it.
pub fn put_word(module: &mut Finalizer<'_, '_>, at: u64, word: u64) {
    put(module, at, &word.to_le_bytes());
}

/// Address, length and reason of what is run-time state, in order.
pub fn runtime(module: &Finalizer<'_, '_>) -> Vec<(u64, u64)> {
    module.record.runtime.iter().map(|r| (module.placement.address(r.place), r.len)).collect()
}

/// Address of a section.
pub fn address(module: &Finalizer<'_, '_>, section: &str) -> u64 {
    module.section(section).unwrap().address
}

/// Sets bytes as relocation left them; nothing is noted.
pub fn put(module: &mut Finalizer<'_, '_>, at: u64, bytes: &[u8]) {
    let patches = module.record.patches.len();
    assert!(module.write(at, bytes, Step::SortExtable, 0), "{at:#x} is in the module");
    module.record.patches.truncate(patches);
}

/// Sets instructions.
pub fn put_words(module: &mut Finalizer<'_, '_>, at: u64, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    put(module, at, &bytes);
}

/// Instructions in memory.
pub fn words(module: &Finalizer<'_, '_>, at: u64, count: u64) -> Vec<u32> {
    (0..count).map(|n| module.u32(at + 4 * n).unwrap()).collect()
}

/// The steps that changed bytes, in order.
pub fn steps(module: &Finalizer<'_, '_>) -> Vec<Step> {
    module.record.patches.iter().map(|p| p.step).collect()
}
