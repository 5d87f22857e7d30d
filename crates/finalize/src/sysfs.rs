//! `mod_sysfs_setup`: the module's folder in /sys/module (LIFE-40 to LIFE-44).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use elf_layout::bytes::{cstr, le64, printed};
use elf_layout::elf::SHF_ALLOC;
use elf_layout::params::{KERNEL_PARAM_SIZE, field};
use elf_layout::{Change, Errno, Finding, Findings, Module, Severity};
use kernel::{Folder, RunningKernel};
use reloc::Architecture;
use reloc::reach::{Reach, reach};

/// `kernel/module/sysfs.c: mod_sysfs_setup`, as far as the module decides how it ends: its name, its parameters, and the names
/// of its sections. The kernel leaves at the first failure.
pub fn mod_sysfs_setup(
    module: &Module<'_>,
    kernel: &dyn RunningKernel,
    arch: &dyn Architecture,
    said: &mut Findings,
) {
    said.stage_at_first(|said| {
        let mut own = Findings::new();
        mod_sysfs_init(module, kernel, &mut own);
        module_param_sysfs_setup(module, kernel, arch, &mut own);
        add_sect_attrs(module, &mut own);
        said.take_open_rules(&own);
        for mut finding in own.into_list() {
            finding.stops_here = false;
            let refused = finding.severity == Severity::Error;
            said.push(finding);
            if refused && let Some(address) = operations_nowhere(module, kernel, arch) {
                let why = format!(
                    "the load has failed, and the parameters are freed by operations at {address:#x}, where there is no memory: the kernel crashes"
                );
                // It does not come to the errno.
                said.replace_last(|failed| Finding::note("LIFE-44", Severity::Oops, why).says_all(failed.dmesg));
            }
        }
    });
}

/// LIFE-44: `module_destroy_params` asks the operations of every parameter whether they free its value. The address of the
/// first ones that are nowhere.
fn operations_nowhere(
    module: &Module<'_>,
    kernel: &dyn RunningKernel,
    arch: &dyn Architecture,
) -> Option<u64> {
    let table = module.section("__param")?;
    let unknown = module.left_out(table.index);
    let records = table.records(KERNEL_PARAM_SIZE).map(|record| record.wrapping_add(field::OPS));
    let operations = records.filter(|at| unknown.binary_search(at).is_err()).filter_map(|at| module.u64(at));
    operations.into_iter().find(|ops| {
        let found = reach(module, kernel, arch, ops.wrapping_add(FREE));
        matches!(found, Reach::Nothing | Reach::Free)
    })
}

/// Byte offset of `free` in `struct kernel_param_ops`.
const FREE: u64 = 24;

/// LIFE-41, LIFE-43: a folder needs a name, and one that no other has.
fn mod_sysfs_init(module: &Module<'_>, kernel: &dyn RunningKernel, said: &mut Findings) {
    let name = module.name_in_memory();
    let me = printed(name);
    match kernel.folder(name) {
        Some(Folder::Exists) => {
            let why = format!("{me} is built into this kernel, and has its folder in /sys/module");
            let finding = Finding::error("LIFE-41", Errno::EINVAL, why);
            let hint = "do without the module: the kernel has it; another driver needs another name";
            said.refuse(finding.says(format!("{me}: module is already loaded")).hint(hint));
        }
        Some(Folder::Perhaps) => {
            let needs = format!(
                "whether the running kernel has /sys/module/{me}: {me} is built in, and a driver in it makes this folder once it is registered"
            );
            said.unjudged("LIFE-41", needs);
        }
        None => {}
    }
    if name.is_empty() {
        let why = "its struct module has no name: sysfs has no folder for it";
        said.refuse(Finding::error("LIFE-43", Errno::EINVAL, why));
    }
}

/// LIFE-42: a file for each parameter that has a mode.
fn module_param_sysfs_setup(
    module: &Module<'_>,
    kernel: &dyn RunningKernel,
    arch: &dyn Architecture,
    said: &mut Findings,
) {
    let Some(table) = module.section("__param") else { return };
    let mut seen = BTreeSet::new();
    let unknown = module.left_out(table.index);
    let copied = module.in_temporary_copy(table.index);
    for record in table.records(KERNEL_PARAM_SIZE) {
        let perm = module.u16(record.wrapping_add(field::PERM));
        let name = record.wrapping_add(field::NAME);
        if perm != Some(0) && copied.binary_search(&name).is_ok() {
            let needs = "what the kernel's temporary copy of the file has for the name of a parameter with a file in sysfs";
            said.may_crash("LIFE-42", needs);
            return;
        }
        let is_known = unknown.binary_search(&name).is_err();
        let name = module.u64(name).filter(|_| is_known && perm != Some(0));
        let Some(address) = name else { continue };
        if seen.is_empty() && !attributes_are_none(module, kernel, arch, said) {
            return;
        }
        let of_parameter = format!("the name of a parameter with a file in sysfs, at {address:#x},");
        match reach(module, kernel, arch, address) {
            _ if address == 0 => {
                let why = "a parameter with a file in sysfs has no name: the kernel cannot add it, and crashes as it takes all of them back";
                said.refuse(Finding::note("LIFE-42", Severity::Oops, why));
            }
            Reach::Own(place) => {
                let name = cstr(module.memory.region(place.region), place.offset).unwrap_or(&[]);
                if !seen.insert(name) {
                    said.refuse(duplicate(module, "LIFE-42", "parameters", name));
                }
            }
            Reach::Nothing | Reach::Free => {
                let why = format!("{of_parameter} is where there is no memory: the kernel crashes");
                said.refuse(Finding::note("LIFE-42", Severity::Oops, why));
            }
            Reach::Unknown => {
                let needs = format!("what the running kernel has in its memory for {of_parameter} if any");
                said.may_crash("LIFE-42", needs);
            }
            Reach::Image => {}
        }
    }
}

/// LIFE-42: `add_sysfs_param` adds to `mkobj.mp` if it is not NULL, and nobody clears what the file has there. False if the kernel
/// crashes, or may.
fn attributes_are_none(
    module: &Module<'_>,
    kernel: &dyn RunningKernel,
    arch: &dyn Architecture,
    said: &mut Findings,
) -> bool {
    let this = module.info.file.section_bytes(module.info.file.index().module);
    let member = kernel.member("module", "mkobj.mp");
    let Some(mp) = member.and_then(|mp| le64(this, mp.offset)).filter(|mp| *mp != 0) else { return true };
    if matches!(reach(module, kernel, arch, mp), Reach::Nothing | Reach::Free) {
        let why = format!(
            "its struct module has {mp:#x} as mkobj.mp, to which the kernel adds the files of parameters: the kernel crashes"
        );
        said.refuse(Finding::note("LIFE-42", Severity::Oops, why));
    } else {
        let needs = format!("what the kernel makes of memory at {mp:#x} as mkobj.mp of struct module");
        said.may_crash("LIFE-42", needs);
    }
    false
}

/// LIFE-40: a file for each section in memory, under its name. What goes wrong there was not looked at before v6.12.
fn add_sect_attrs(module: &Module<'_>, said: &mut Findings) {
    let info = &module.info;
    if !info.config.kallsyms {
        return;
    }
    let sections = info.sechdrs.iter().enumerate();
    let shown = sections.filter(|(_, s)| s.sh_flags & SHF_ALLOC != 0 && s.sh_size != 0);
    let mut names: Vec<(&[u8], usize)> = shown.map(|(i, _)| (info.file.section_name(i), i)).collect();
    // The first one, by its place in the table, whose name another has already.
    names.sort_unstable();
    let again = names.windows(2).filter_map(|pair| match pair {
        [(a, _), (b, index)] if a == b => Some(*index),
        _ => None,
    });
    let Some(index) = again.min() else { return };
    let finding = duplicate(module, "LIFE-40", "sections", info.file.section_name(index));
    said.push(finding.about(info.file.section_subject(index)));
}

/// `sysfs_warn_dup`: two files of one name in a folder.
fn duplicate(module: &Module<'_>, code: &'static str, folder: &str, name: &[u8]) -> Finding {
    let (me, name) = (module.info.file.name_text().replace('/', "!"), printed(name));
    let line = format!("sysfs: cannot create duplicate filename '/module/{me}/{folder}/{name}'");
    let why = format!("sysfs would show {name} twice among the {folder} of {me}");
    if folder == "parameters" || module.info.config.has(Change::SysfsErrorsCount) {
        return Finding::error(code, Errno::EEXIST, why).says(line);
    }
    Finding::note(code, Severity::Warning, format!("{why}: the module has no such folder")).says(line)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use reloc::testing::*;
    use reloc::x86_64::X86_64;

    /// errno, code and log of what ends it.
    fn run(
        module: &TestModule,
        fill: impl FnOnce(&mut reloc::Finalizer<'_, '_>),
    ) -> Vec<(Option<&'static str>, &'static str, Vec<String>)> {
        module.run(&TestKernel::default(), |m| {
            fill(m);
            let mut said = Findings::new();
            mod_sysfs_setup(m, m.kernel, &X86_64, &mut said);
            said.iter()
                .filter(|f| f.code != "LIFE-43")
                .map(|f| (f.errno.map(Errno::name), f.code, f.dmesg.clone()))
                .collect()
        })
    }

    #[test]
    fn life_40_sections_of_one_name() {
        let line = vec![String::from("sysfs: cannot create duplicate filename '/module//sections/.data'")];
        for (release, errno) in [("6.1.0", None), ("6.11.0", None), ("6.12.0", Some("EEXIST"))] {
            let twice = [(".data", DATA, 8), (".text", CODE, 8), (".data", CODE, 8)];
            let found = run(&TestModule::x86(release, &twice), |_| {});
            assert_eq!(found, [(errno, "LIFE-40", line.clone())], "LIFE-40: {release}");
            for (what, flags, size) in [("empty", DATA, 0), ("not in memory", 0, 8)] {
                let sections = [(".data", DATA, 8), (".data", flags, size)];
                assert!(
                    run(&TestModule::x86(release, &sections), |_| {}).is_empty(),
                    "LIFE-40: {release}: {what}"
                );
            }
        }
    }

    #[test]
    fn life_42_names_of_parameters() {
        let sections = [("__param", RODATA, 80), (".rodata", RODATA, 16)];
        // Names of two parameters, in .rodata or elsewhere, and the mode of the second one.
        let cases = [
            (Some(0), Some(4), 0o644, None),
            (Some(0), Some(0), 0o644, Some((Some("EEXIST"), 1))),
            (Some(0), Some(0), 0, None),
            (Some(0), Some(8), 0o644, Some((Some("EEXIST"), 1))),
            (Some(0), None, 0o644, Some((None, 0))),
            (Some(0), Some(u64::MAX), 0o644, Some((None, 0))),
        ];
        for release in ["6.1.0", "6.12.0"] {
            for (first, second, mode, want) in cases {
                let found = run(&TestModule::x86(release, &sections), |m| {
                    let [table, names] = ["__param", ".rodata"].map(|name| address(m, name));
                    put(m, names, b"one\0two\0one\0");
                    for (record, name, mode) in [(table, first, 0o444), (table + 40, second, mode)] {
                        let name = match name {
                            Some(u64::MAX) => 0,
                            Some(offset) => names + offset,
                            None => 0x1_0000_0001,
                        };
                        put_word(m, record, name);
                        put_word(m, record + 16, names);
                        put(m, record + 24, &u16::to_le_bytes(mode));
                    }
                });
                let found: Vec<_> =
                    found.into_iter().map(|(errno, code, log)| (code, errno, log.len())).collect();
                let want: Vec<_> = want.into_iter().map(|(errno, lines)| ("LIFE-42", errno, lines)).collect();
                assert_eq!(found, want, "LIFE-42: {release}: {first:?} {second:?} {mode:o}");
            }
        }
    }

    #[test]
    fn life_44_operations_that_are_nowhere() {
        let sections = [("__param", RODATA, 40), (".data", DATA, 8), (".data", DATA, 8)];
        for (ops, want) in [
            (None, (Some("EEXIST"), "LIFE-40")),
            (Some(0), (None, "LIFE-44")),
            (Some(0x1000), (None, "LIFE-44")),
        ] {
            let found = run(&TestModule::x86("6.12.0", &sections), |m| {
                let [table, data] = ["__param", ".data"].map(|name| address(m, name));
                put_word(m, table + 16, ops.unwrap_or(data));
            });
            let found: Vec<_> =
                found.into_iter().map(|(errno, code, log)| ((errno, code), log.len())).collect();
            assert_eq!(found.last(), Some(&(want, 1)), "LIFE-44: {ops:x?}");
        }
    }

    #[test]
    fn life_42_a_name_in_memory_that_is_not_known() {
        let sections = [("__param", RODATA, 80), (".rodata", RODATA, 16)];
        // The names of two parameters: the second is where the running kernel may have anything.
        for (first_is_bad, want) in [(false, 1), (true, 0)] {
            TestModule::x86("6.12.0", &sections).run(&TestKernel::default(), |m| {
                let [table, names] = ["__param", ".rodata"].map(|name| address(m, name));
                put(m, names, b"one\0");
                let somewhere = 0xffff_8880_0000_1000;
                let first = if first_is_bad { 0x1_0000_0001 } else { names };
                for (record, name) in [(table, first), (table + 40, somewhere)] {
                    put_word(m, record, name);
                    put_word(m, record + 16, names);
                    put(m, record + 24, &u16::to_le_bytes(0o444));
                }
                let mut said = Findings::new();
                module_param_sysfs_setup(m, m.kernel, &X86_64, &mut said);
                let open = said.open_rules().iter().filter(|rule| rule.code == "LIFE-42" && rule.may_crash);
                assert_eq!(open.count(), want, "LIFE-42: {said:?}");
            });
        }
    }

    #[test]
    fn life_41_a_name_that_a_built_in_module_has() {
        for (folder, errno, open) in [
            (Some(Folder::Exists), Some(Errno::EINVAL), 0),
            (Some(Folder::Perhaps), None, 1),
            (None, None, 0),
        ] {
            let kernel = TestKernel { folder, ..TestKernel::default() };
            TestModule::x86("6.12.0", &[(".data", DATA, 8)]).run(&kernel, |m| {
                let mut said = Findings::new();
                mod_sysfs_init(m, m.kernel, &mut said);
                let open_rules = said.open_rules().iter().filter(|rule| rule.code == "LIFE-41");
                assert_eq!(open_rules.count(), open, "LIFE-41: {folder:?}");
                let found = said.iter().find(|f| f.code == "LIFE-41");
                assert_eq!(found.and_then(|f| f.errno), errno, "LIFE-41: {folder:?}");
                let line = found.map(|f| f.dmesg.concat());
                assert_eq!(line, errno.map(|_| String::from(": module is already loaded")));
            });
        }
    }

    #[test]
    fn life_43_a_module_without_a_name() {
        // The test module has none.
        TestModule::x86("6.12.0", &[(".data", DATA, 8)]).run(&TestKernel::default(), |m| {
            let mut said = Findings::new();
            mod_sysfs_setup(m, m.kernel, &X86_64, &mut said);
            assert_eq!(said.errno(), Some(Errno::EINVAL), "LIFE-43");
        });
        // A relocation may give it one, or take it.
        const THIS: &str = ".gnu.linkonce.this_module";
        TestModule::x86("6.12.0", &[(THIS, DATA, 64)]).run(&TestKernel::default(), |m| {
            let at = reloc::testing::address(m, THIS) + 0x18;
            for (first, errno) in [(b'x', None), (0, Some(Errno::EINVAL))] {
                reloc::testing::put(m, at, &[first, b'y']);
                let mut said = Findings::new();
                mod_sysfs_init(m, m.kernel, &mut said);
                assert_eq!(said.errno(), errno, "LIFE-43, RELOC-GEN-15: {first}");
            }
        });
    }
}
