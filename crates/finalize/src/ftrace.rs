//! `ftrace_module_init`: the sites of the function tracer (FIN-40 to FIN-47).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::{Finding, Severity};

use elf_layout::Table;
use reloc::Architecture;
use reloc::Finalizer;
use reloc::Step;

/// Sorts the list of sites (FIN-41) and makes each a nop that the tracer can turn into a call.
/// Without CONFIG_DYNAMIC_FTRACE the list is not used (FIN-45).
pub fn ftrace_module_init(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let config = module.info.config;
    let section = arch.ftrace_callsites(config);
    let Some(table) = module.section(section).filter(|_| config.dynamic_ftrace) else { return };
    for site in ftrace_process_locs(module, &table) {
        if !arch.ftrace_init_nop(module, site) {
            ftrace_bug(module, section, site);
            return;
        }
    }
}

/// Sorts the list in place, as the kernel does of its modules in every version, and gives the sites.
/// Zeros are what a linker puts between the lists of two objects.
fn ftrace_process_locs(module: &mut Finalizer<'_, '_>, table: &Table) -> Vec<u64> {
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let (entries, _) = bytes.as_chunks();
    let mut sites: Vec<u64> = entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
    // Equal ones cannot be told apart, so any sort does.
    sites.sort_unstable();
    let sorted: Vec<u8> = sites.iter().flat_map(|site| site.to_le_bytes()).collect();
    module.write(table.address, &sorted, Step::SortFtraceSites, 0);
    sites.retain(|site| *site != 0);
    sites
}

/// `ftrace_bug` (FIN-47): the tracer is off from here on, the module loads.
fn ftrace_bug(module: &mut Finalizer<'_, '_>, section: &str, site: u64) {
    let why = match module.name_of(site) {
        Some(place) => format!("{section} lists {place}, which does not hold what the compiler puts there"),
        None => format!("{section} lists {site:#x}, which is no code of the module"),
    };
    let finding = Finding::note("FIN-47", Severity::Warning, why)
        .says("------------[ ftrace bug ]------------")
        .hint("the kernel turns its function tracer off until it boots again");
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
        fn relocation_width(&self, _: u32) -> u64 {
            0
        }
        fn ftrace_callsites(&self, _: &KernelConfig) -> &'static str {
            self.0
        }
        fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> bool {
            site.is_multiple_of(2) && module.write(site, &[0xee], Step::FtraceSite, 0)
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
}
