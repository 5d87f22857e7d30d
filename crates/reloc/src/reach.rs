//! What the kernel finds at an address that a table of a module names.

use alloc::format;

use elf_layout::place::Windows;
use elf_layout::{Finding, Module, SectionPlace, Severity};
use kernel::RunningKernel;

pub use crate::arch::Reach;
use crate::{Architecture, Finalizer};

/// What is at an address of the kernel's image, where `_text`, `_end` and the bounds of its init memory are known: `None` if
/// it is outside.
pub fn in_image(kernel: &dyn RunningKernel, address: u64) -> Option<Reach> {
    let bound = |name| kernel.symbol(name);
    let (text, end) = bound("_text").zip(bound("_end"))?;
    if !(text..end).contains(&address) {
        return None;
    }
    // What only init needs is freed and used for anything.
    let init = bound("__init_begin").zip(bound("__init_end"));
    let stays = init.is_some_and(|(begin, end)| !(begin..end).contains(&address));
    Some(if stays { Reach::Image } else { Reach::Unknown })
}

/// Does an address lie in the code or the constants of the kernel, which nobody writes once it is booted?
pub fn in_constants(kernel: &dyn RunningKernel, address: u64) -> bool {
    let within = |start, end| {
        let bounds = kernel.symbol(start).zip(kernel.symbol(end));
        bounds.is_some_and(|(start, end)| (start..end).contains(&address))
    };
    within("_text", "_etext") || within("__start_rodata", "__end_rodata")
}

/// What is at `address`, for a module that is in memory.
pub fn reach(
    module: &Module<'_>,
    kernel: &dyn RunningKernel,
    arch: &dyn Architecture,
    address: u64,
) -> Reach {
    if let Some(place) = module.place_of(address) {
        return Reach::Own(place);
    }
    let found = arch.reach(module.info.config, kernel, address);
    if found == Reach::Image {
        return found;
    }
    let windows = arch.module_area(module.info.config, &|name| kernel.symbol(name));
    match found {
        _ if in_block_of_code(module, &windows, address) => Reach::Unknown,
        _ if beside(module, &windows, address) => Reach::Nothing,
        // Where other modules are is not always known.
        Reach::Free if kernel.has_modules() => Reach::Unknown,
        Reach::Free => Reach::Nothing,
        found => found,
    }
}

/// Does an address lie in a block that the module's code comes from (LAYOUT-55)? There is memory all over: other code, and
/// breakpoints where none is.
fn in_block_of_code(module: &Module<'_>, windows: &Windows, address: u64) -> bool {
    let Some(size) = windows.code_block else { return false };
    let block = |address: u64| address.checked_div(size);
    module.segments().filter(|segment| windows.caches(segment.region) && segment.size != 0).any(|segment| {
        let last = segment.base.wrapping_add(segment.size).wrapping_sub(1);
        (block(segment.base)..=block(last)).contains(&block(address))
    })
}

/// Is an address in the page before or behind a region? There is never memory: each area of vmalloc ends with a guard page.
/// Since v6.15 (64f6a4e10c05) x86 takes code from a cache without such pages (LAYOUT-55).
fn beside(module: &Module<'_>, windows: &Windows, address: u64) -> bool {
    let page = module.layout.page_size;
    module.segments().filter(|segment| !windows.caches(segment.region)).any(|segment| {
        let before = segment.base.wrapping_sub(page)..segment.base;
        let end = segment.base.wrapping_add(segment.size);
        before.contains(&address) || (end..end.wrapping_add(page)).contains(&address)
    })
}

impl Finalizer<'_, '_> {
    /// FIN-78: a step touches `len` bytes at an address that a table names. False if the kernel crashes there; `what` says
    /// what leads there.
    pub fn touches(&mut self, arch: &dyn Architecture, address: u64, len: u64, what: &str) -> bool {
        let last = address.wrapping_add(len.saturating_sub(1));
        if len == 0 || self.read(address, len).is_some() {
            if len != 0 && self.is_struct_module(address) {
                let needs =
                    format!("what the kernel has written to struct module by then, where {what} leads");
                self.said.may_crash("FIN-78", needs);
            }
            return true;
        }
        let found = [address, last].map(|address| reach(self, self.kernel, arch, address));
        if found.contains(&Reach::Nothing) {
            let why = format!("{what} leads to {address:#x}, where there is no memory: the kernel crashes");
            self.said.refuse(Finding::note("FIN-78", Severity::Oops, why));
            return false;
        }
        // Where the kernel's symbols are not all known, what it exports is memory all the same.
        if found.contains(&Reach::Unknown) && self.name_of(address).is_none() {
            let needs =
                format!("what the running kernel has in its memory at {address:#x}, where {what} leads");
            self.said.may_crash("FIN-78", needs);
        }
        true
    }

    /// Does an address lie in the module's `struct module`, of which the file has but a few members?
    pub(crate) fn is_struct_module(&self, address: u64) -> bool {
        let table = self.table(self.info.file.index().module);
        table.is_some_and(|table| address.wrapping_sub(table.address) < table.size)
    }

    /// FIN-87: a step writes to `len` bytes of data once the module is formed, when its code and constants cannot be
    /// written any more. False if the kernel crashes there.
    pub fn writes_data(&mut self, arch: &dyn Architecture, address: u64, len: u64, what: &str) -> bool {
        if !self.touches(arch, address, len, what) {
            return false;
        }
        match self.place_of(address) {
            Some(place) => self.writes_place(place, what),
            None if in_constants(self.kernel, address) || self.kernel.in_constants_of_modules(address) => {
                self.said.refuse(read_only(what, address));
                false
            }
            None => true,
        }
    }

    /// As [`Finalizer::writes_data`], for a place of the module.
    pub fn writes_place(&mut self, place: SectionPlace, what: &str) -> bool {
        if self.is_read_only(place) {
            let address = self.placement.address(place);
            self.said.refuse(read_only(what, address));
            return false;
        }
        true
    }
}

/// FIN-87
fn read_only(what: &str, address: u64) -> Finding {
    let why = format!(
        "{what}, at {address:#x}, is written to when the memory that it lies in can only be read: the kernel crashes"
    );
    Finding::note("FIN-87", Severity::Oops, why)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use elf_layout::Findings;

    use super::*;
    use crate::testing::*;
    use crate::{aarch64, x86_64};

    const SECTIONS: [(&str, u64, usize); 3] =
        [(".text", CODE, 64), (".rodata", RODATA, 64), (".data", DATA, 64)];

    #[test]
    fn fin_78_what_is_at_an_address() {
        let symbols = [
            ("_text", 0xffff_ffff_8100_0000),
            ("__init_begin", 0xffff_ffff_8240_0000),
            ("__init_end", 0xffff_ffff_8260_0000),
            ("_end", 0xffff_ffff_8300_1000),
        ]
        .into();
        let kernel = TestKernel { symbols, ..TestKernel::default() };
        TestModule::x86("6.12.0", &SECTIONS).run(&kernel, |m| {
            let text = address(m, ".text");
            for (address, want) in [
                (0, Reach::Nothing),
                (0x7fff_0000_0000, Reach::Nothing),
                (0xffff_8880_0000_0000, Reach::Unknown),
                (0xffff_ffff_4000_0000, Reach::Nothing),
                (0xffff_ffff_80ff_ffff, Reach::Nothing),
                (0xffff_ffff_8100_0000, Reach::Image),
                (0xffff_ffff_8250_0000, Reach::Unknown),
                (0xffff_ffff_8300_0fff, Reach::Image),
                (0xffff_ffff_8300_1000, Reach::Unknown),
                (0xffff_ffff_8320_0000, Reach::Nothing),
                (0xffff_ffff_c100_0000, Reach::Nothing),
                (0xffff_ffff_ff60_0000, Reach::Unknown),
            ] {
                assert_eq!(reach(m, m.kernel, &x86_64::X86_64, address), want, "FIN-78: {address:#x}");
            }
            assert!(matches!(reach(m, m.kernel, &x86_64::X86_64, text), Reach::Own(_)));
        });
        TestModule::arm64("6.12.0", &SECTIONS).run(&TestKernel::default(), |m| {
            // The last three differ from addresses of the kernel's half by their top byte, or lie in the other half.
            for (address, want) in [
                (0x1000, Reach::Nothing),
                (0xffff_0000_0000_0000, Reach::Unknown),
                (0x7fff_0000_0000_0000, Reach::Unknown),
                (0x7fff_ffff_ffff_ffff, Reach::Nothing),
                (0x8000_0000_0000_0000, Reach::Nothing),
            ] {
                assert_eq!(reach(m, m.kernel, &aarch64::Aarch64, address), want, "FIN-78: {address:#x}");
            }
        });
    }

    #[test]
    fn fin_78_and_layout_55_the_block_that_code_comes_from() {
        for (arch, release, cached) in [
            (&x86_64::X86_64 as &dyn Architecture, "6.14.0", false),
            (&x86_64::X86_64, "7.3.0", true),
            // It takes no code from a cache.
            (&aarch64::Aarch64, "7.3.0", false),
        ] {
            let e_machine = arch.e_machine();
            TestModule { machine: e_machine, ..TestModule::x86(release, &SECTIONS) }.run(
                &TestKernel::default(),
                |m| {
                    let windows = arch.module_area(m.info.config, &|_| None);
                    let block = address(m, ".text") & !0x1f_ffff;
                    for (address, inside) in [
                        (block - 1, false),
                        (block, true),
                        (block + 0x1f_ffff, true),
                        (block + 0x20_0000, false),
                    ] {
                        let what = format!("FIN-78, LAYOUT-55: {} {release}: {address:#x}", arch.name());
                        assert_eq!(in_block_of_code(m, &windows, address), inside && cached, "{what}");
                        if inside && cached && m.place_of(address).is_none() {
                            assert_eq!(reach(m, m.kernel, arch, address), Reach::Unknown, "{what}");
                        }
                    }
                },
            );
        }
    }

    #[test]
    fn fin_87_code_of_another_module() {
        const OTHER: u64 = 0xffff_ffff_c040_0000;
        let kernel = TestKernel {
            read_only: core::iter::once(OTHER..OTHER + 0x1000).collect(),
            ..TestKernel::default()
        };
        TestModule::x86("6.12.0", &SECTIONS).run(&kernel, |m| {
            for (address, writes) in [(OTHER, false), (OTHER + 0xff8, false), (OTHER + 0x1000, true)] {
                let mut said = Findings::new();
                let mut m = Finalizer { said: &mut said, module: m.module, record: m.record, ..*m };
                assert_eq!(
                    m.writes_data(&x86_64::X86_64, address, 8, "a test"),
                    writes,
                    "FIN-87: {address:#x}"
                );
                assert_eq!(said.iter().any(|f| f.code == "FIN-87"), !writes, "FIN-87: {address:#x}");
            }
        });
    }

    #[test]
    fn fin_78_and_87_touching_and_writing() {
        let kernel = TestKernel::default();
        TestModule::x86("6.12.0", &SECTIONS).run(&kernel, |m| {
            let arch = &x86_64::X86_64;
            let [text, rodata, data] = [".text", ".rodata", ".data"].map(|name| address(m, name));
            // To the end of its page, and one byte more.
            assert!(m.touches(arch, data, 0x1000, "a test") && !m.said.refused(), "FIN-78");
            assert!(m.touches(arch, 0x1000, 0, "a test"), "FIN-78: no byte of it");
            assert!(m.writes_data(arch, data, 64, "a test") && !m.said.refused(), "FIN-87");
            for (address, len, code) in
                [(rodata, 0x1001, "FIN-78"), (text, 8, "FIN-87"), (rodata, 8, "FIN-87"), (64, 8, "FIN-78")]
            {
                let mut said = Findings::new();
                let mut m = Finalizer { said: &mut said, module: m.module, record: m.record, ..*m };
                assert!(!m.writes_data(arch, address, len, "a test"), "{code}: {address:#x}");
                assert_eq!(said.iter().map(|f| f.code).collect::<Vec<_>>(), [code], "{address:#x}");
            }
        });
        let mut loose = TestModule::x86("6.12.0", &SECTIONS);
        loose.config.strict_module_rwx = false;
        loose.run(&kernel, |m| {
            let text = address(m, ".text");
            assert!(m.writes_data(&x86_64::X86_64, text, 8, "a test"), "FIN-87: CONFIG_STRICT_MODULE_RWX=n");
        });
    }

    /// What follows an incomplete record belongs to it, and a list outside of memory is walked where nobody knows.
    #[test]
    fn fin_88_incomplete_records_and_lists_outside_of_memory() {
        let symbols = [
            ("__x86_return_thunk", 0xffff_ffff_8200_0000),
            ("__x86_indirect_thunk_array", 0xffff_ffff_8200_0100),
        ];
        let kernel = TestKernel { symbols: symbols.into(), ..TestKernel::default() };
        for list in [".return_sites", ".retpoline_sites"] {
            for (size, crashes) in [(4, false), (5, true), (8, true)] {
                let sections = [(".text", CODE, 64), (list, RODATA, size), (".rodata", RODATA, 16)];
                TestModule::x86("6.12.0", &sections).run(&kernel, |m| {
                    let at = address(m, list);
                    // The first record leads to itself, the second one far away.
                    put(m, at + 4, &0x7fff_ffffu32.to_le_bytes());
                    crate::Architecture::module_finalize(&x86_64::X86_64, m);
                    assert_eq!(m.said.refused(), crashes, "FIN-88: {list}: {size} bytes: {:?}", m.said);
                });
            }
            // In the temporary copy it leads to itself, where nothing is that would be patched.
            for (flags, size, open) in [(0, 4, false), (0, 0, false), (RODATA, 4, false)] {
                TestModule::x86("6.12.0", &[(".text", CODE, 64), (list, flags, size)]).run(&kernel, |m| {
                    crate::Architecture::module_finalize(&x86_64::X86_64, m);
                    let rules: Vec<_> = m.said.open_rules().iter().map(|rule| rule.code).collect();
                    assert_eq!(rules.contains(&"FIN-88"), open, "FIN-88: {list}: {size} bytes: {rules:?}");
                });
            }
        }
    }

    #[test]
    fn fin_78_lists_of_sites() {
        let symbols = [
            ("__x86_return_thunk", 0xffff_ffff_8200_0000),
            ("__x86_indirect_thunk_array", 0xffff_ffff_8200_0100),
        ]
        .into();
        let kernel = TestKernel { symbols, ..TestKernel::default() };
        for list in [".return_sites", ".retpoline_sites"] {
            let sections = [(".text", CODE, 64), (list, RODATA, 4)];
            for (distance, crashes) in [(0u32, false), (0x7fff_ffff, true), (0x8000_0000, true)] {
                TestModule::x86("6.12.0", &sections).run(&kernel, |m| {
                    let at = address(m, list);
                    put(m, at, &distance.to_le_bytes());
                    crate::Architecture::module_finalize(&x86_64::X86_64, m);
                    let found: Vec<_> =
                        m.said.iter().filter(|f| f.severity == Severity::Oops).map(|f| f.code).collect();
                    assert_eq!(
                        found,
                        if crashes { vec!["FIN-78"] } else { vec![] },
                        "FIN-78: {list} {distance:#x}"
                    );
                });
            }
        }
    }
}
