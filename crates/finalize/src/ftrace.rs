//! `ftrace_module_init`: the sites of the function tracer (FIN-40 to FIN-47).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::{Change, Finding, Severity};

use elf_layout::Table;
use reloc::Architecture;
use reloc::Step;
use reloc::{Finalizer, FtraceBug};

/// Sorts the list of sites (FIN-41) and makes each a nop that the tracer can turn into a call.
/// Without CONFIG_DYNAMIC_FTRACE the list is not used (FIN-45).
pub fn ftrace_module_init(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let config = module.info.config;
    let section = arch.ftrace_callsites(config);
    let Some(table) = module.section(section).filter(|_| config.dynamic_ftrace) else { return };
    for site in ftrace_process_locs(module, arch, &table) {
        if let Err(bug) = arch.ftrace_init_nop(module, site) {
            ftrace_bug(module, section, site, &bug);
            return;
        }
    }
}

/// `ftrace_module_enable`, where the names of sites are looked up (FIN-48): that reads the names of all symbols of the module.
/// Not after a bug, which has turned the tracer off.
pub fn ftrace_module_enable(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let config = module.info.config;
    let sites = module.section(arch.ftrace_callsites(config)).filter(|table| table.size >= 8);
    let traced = sites.is_some() && config.dynamic_ftrace && arch.ftrace_looks_up_sites(config);
    if !traced || module.said.iter().any(|finding| finding.code == "FIN-47") {
        return;
    }
    let file = module.info.file;
    let size = file.strtab().len() as u64;
    let strings = module.info.sechdrs.get(file.index().str).map_or(0, |s| s.sh_addr);
    let named = file.symbols().iter().skip(1).filter(|symbol| symbol.shndx() != SHN_UNDEF);
    let behind: Vec<u64> = named.map(|s| u64::from(s.name_offset())).filter(|name| *name >= size).collect();
    for name in behind {
        if !module.touches(arch, strings.wrapping_add(name), 1, "the name of a symbol") {
            return;
        }
    }
}

/// Sorts the list in place, as the kernel does of its modules in every version, and gives the sites.
/// Zeros are what a linker puts between the lists of two objects.
fn ftrace_process_locs(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, table: &Table) -> Vec<u64> {
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let (entries, _) = bytes.as_chunks();
    let mut sites: Vec<u64> = entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
    let lost = module.left_out(table.index);
    if !lost.is_empty() {
        let known = sites.iter().zip((table.address..).step_by(8));
        let known = known.filter(|(_, at)| lost.binary_search(at).is_err());
        sites = known.map(|(site, _)| *site).filter(|site| *site != 0).collect();
        sites.sort_unstable();
        let needs = "the addresses of all sites of the function tracer: some lie outside of the module";
        if lost.iter().all(|at| arch.ftrace_site_in_copy(module, table.index, *at)) {
            module.record.not_known(needs);
        } else {
            module.said.may_crash("FIN-47", needs);
        }
        return sites;
    }
    // Equal ones cannot be told apart, so any sort does.
    sites.sort_unstable();
    let sorted: Vec<u8> = sites.iter().flat_map(|site| site.to_le_bytes()).collect();
    module.write(table.address, &sorted, Step::SortFtraceSites, 0);
    sites.retain(|site| *site != 0);
    sites
}

/// `ftrace_bug` (FIN-47): the tracer is off from here on, the module loads.
fn ftrace_bug(module: &mut Finalizer<'_, '_>, section: &str, site: u64, bug: &FtraceBug) {
    let place = module.name_of(site).unwrap_or_else(|| format!("{site:#x}"));
    if let FtraceBug::Crash(how) = bug {
        let why = format!("{section} lists {place}, which {how}: the kernel crashes (BUG)");
        module.said.refuse(Finding::note("FIN-44", Severity::Oops, why));
        return;
    }
    let why = match module.place_of(site) {
        Some(_) => format!("{section} lists {place}, which does not hold what the compiler puts there"),
        None => format!("{section} lists {site:#x}, which is no code of the module"),
    };
    let mut finding = Finding::note("FIN-47", Severity::Warning, why)
        .says("------------[ ftrace bug ]------------")
        .hint("the kernel turns its function tracer off until it boots again");
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    // The module is still unformed, so that its addresses have no names.
    let symbol = |at: u64| format!("[<{at:016x}>] {at:#x}");
    match bug {
        FtraceBug::Faulted(at) => {
            finding = finding.says("ftrace faulted on modifying ").says(symbol(*at));
        }
        FtraceBug::Unexpected { at, shown, expected } => {
            finding = finding.says("ftrace failed to modify ").says(symbol(*at));
            let mut of_kernel = alloc::vec![0; usize::try_from(*shown).unwrap_or(0)];
            let now = module.read(*at, *shown).map(<[u8]>::to_vec);
            let now = now.or_else(|| module.kernel.read(*at, &mut of_kernel).then_some(of_kernel));
            finding = match now {
                Some(now) => finding.says(format!(" actual:   {}", bytes(&now))),
                None => finding,
            };
            if let Some(expected) = expected {
                finding = finding.says(format!(" expected: {}", bytes(expected)));
            }
        }
        FtraceBug::Crash(_) => {}
    }
    finding = finding.says("Initializing ftrace call sites").says("ftrace record flags: 2000000");
    // Since v6.3 (cbad0fb2d8d9) a third column.
    finding = finding.says(if module.has(Change::FtraceCallOps) { " (0)    " } else { " (0)  " });
    if let Some(caller) = module.kernel.symbol("ftrace_caller") {
        finding = finding.says(format!(" expected tramp: {caller:x}"));
    }
    module.said.push(finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use elf_layout::place::Windows;
    use elf_layout::{Findings, KernelConfig, Machine};
    use kernel_image::ImageArch;
    use reloc::testing::*;
    use reloc::{ModArch, Records, RelaSection};

    /// Sites at odd addresses are no good to it.
    #[derive(Debug)]
    struct Picky(&'static str);

    impl ImageArch for Picky {
        fn machine(&self) -> &'static Machine {
            reloc::x86_64::X86_64.machine()
        }
    }

    impl Architecture for Picky {
        fn module_area(&self, config: &KernelConfig, symbol: &dyn Fn(&str) -> Option<u64>) -> Windows {
            reloc::x86_64::X86_64.module_area(config, symbol)
        }
        fn apply_relocate_add(
            &self,
            _: &mut RelaSection<'_>,
            _: Records<'_>,
            _: &mut ModArch,
            _: &mut Findings,
        ) {
        }
        fn howto(&self, _: u32) -> Option<reloc::Howto> {
            None
        }
        fn ftrace_callsites(&self, _: &KernelConfig) -> &'static str {
            self.0
        }
        fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> Result<(), FtraceBug> {
            let written = site.is_multiple_of(2) && module.write(site, &[0xee], Step::FtraceSite, 0);
            if written { Ok(()) } else { Err(FtraceBug::Faulted(site)) }
        }
    }

    const LIST: &str = "__mcount_loc";

    /// The list after the step, relative to .text; the steps; the rules that were broken.
    fn run(module: &TestModule, list: &[u64]) -> (Vec<u64>, Vec<Step>, Vec<&'static str>) {
        module.run(&TestKernel::default(), |m| {
            let (text, at) = (address(m, ".text"), address(m, LIST));
            let absolute = |site: &u64| if *site == 0 { 0 } else { text + site };
            put(m, at, &list.iter().flat_map(|site| absolute(site).to_le_bytes()).collect::<Vec<u8>>());
            ftrace_module_init(m, &Picky(LIST));
            let after = (0..list.len() as u64).map(|n| m.u64(at + 8 * n).unwrap());
            let after = after.map(|site| site.saturating_sub(text)).collect();
            (after, steps(m), m.said.iter().map(|f| f.code).collect())
        })
    }

    fn module() -> TestModule {
        // An incomplete entry at the end is none.
        TestModule::x86("6.12.0", &[(".text", CODE, 64), (LIST, RODATA, 8 * 4 + 4)])
    }

    #[test]
    fn fin_40_and_41_sorted_and_zeros_skipped() {
        let (list, steps, said) = run(&module(), &[32, 0, 8, 16]);
        assert_eq!(list, [0, 8, 16, 32], "FIN-41");
        let site = Step::FtraceSite;
        assert_eq!(steps, [Step::SortFtraceSites, site, site, site], "FIN-40: all but the zero");
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(run(&module(), &[8, 16, 24, 32]).1, [site; 4], "nothing to sort");
    }

    #[test]
    fn fin_45_without_dynamic_ftrace() {
        let mut module = module();
        module.config.dynamic_ftrace = false;
        assert_eq!(run(&module, &[32, 0, 8, 16]), (vec![32, 0, 8, 16], vec![], vec![]), "FIN-45");
    }

    #[test]
    fn fin_47_the_first_bug_ends_it() {
        let (list, steps, said) = run(&module(), &[32, 9, 8, 11]);
        assert_eq!(list, [8, 9, 11, 32], "FIN-41: sorted before");
        assert_eq!(steps, [Step::SortFtraceSites, Step::FtraceSite], "FIN-47: the site before 9 only");
        assert_eq!(said, ["FIN-47"]);
    }

    #[test]
    fn fin_47_and_44_what_the_log_says() {
        let caller = TestKernel {
            symbols: [("ftrace_caller", 0xffff_ffff_8109_3b20)].into(),
            ..TestKernel::default()
        };
        let unexpected = |expected| FtraceBug::Unexpected { at: 0, shown: 5, expected };
        let begin = "------------[ ftrace bug ]------------";
        for (release, flags) in [("6.1.0", " (0)  "), ("6.12.0", " (0)    ")] {
            TestModule::x86(release, &[(".text", CODE, 64), (LIST, RODATA, 8)]).run(&caller, |m| {
                let text = address(m, ".text");
                put(m, text, &[0x55, 0x53, 0x48, 0x83, 0xec]);
                let end = [
                    "Initializing ftrace call sites",
                    "ftrace record flags: 2000000",
                    flags,
                    " expected tramp: ffffffff81093b20",
                ];
                let at = format!("[<{text:016x}>] {text:#x}");
                for (bug, lines) in [
                    (FtraceBug::Faulted(text), vec!["ftrace faulted on modifying ", &at]),
                    (unexpected(None), vec!["ftrace failed to modify ", &at, " actual:   55:53:48:83:ec"]),
                    (
                        unexpected(Some(vec![0xe8, 0xc7, 0xaa, 0xe8, 0xc0])),
                        vec![
                            "ftrace failed to modify ",
                            &at,
                            " actual:   55:53:48:83:ec",
                            " expected: e8:c7:aa:e8:c0",
                        ],
                    ),
                ] {
                    let bug = match bug {
                        FtraceBug::Unexpected { shown, expected, .. } => {
                            FtraceBug::Unexpected { at: text, shown, expected }
                        }
                        bug => bug,
                    };
                    let mut said = Findings::new();
                    let mut own = Finalizer { said: &mut said, module: m.module, record: m.record, ..*m };
                    ftrace_bug(&mut own, LIST, text, &bug);
                    let want: Vec<&str> = [&[begin][..], &lines, &end].concat();
                    assert_eq!(said.dmesg().collect::<Vec<_>>(), want, "FIN-47: {release} {bug:?}");
                }
                let mut said = Findings::new();
                let mut own = Finalizer { said: &mut said, module: m.module, record: m.record, ..*m };
                ftrace_bug(&mut own, LIST, text, &FtraceBug::Crash("is nowhere"));
                assert!(said.refused() && said.errno().is_none() && said.dmesg().next().is_none(), "FIN-44");
            });
        }
    }
}
