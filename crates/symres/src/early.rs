//! The checks of a load that come before and around the layout: names, versions
//! and what taints (spec 00 steps 5 to 21).

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use kernel::exports::missed;
use kernel::{Kernel, ModuleState, Owner, RunningKernel, Taint, Taints, Told};

use elf_layout::bytes::{printed, slice};
use elf_layout::ksymtab::ModuleExport;
use elf_layout::{Change, Errno, Finding, Findings, LoadInfo, ModuleFile, Setting, Severity, needs};

use crate::hints;
use crate::license::license_is_gpl_compatible;
use crate::resolve::{Resolver, measured_without_end, name_has_no_end};

/// finit_module flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadFlags {
    /// MODULE_INIT_IGNORE_MODVERSIONS
    pub ignore_modversions: bool,
    /// MODULE_INIT_IGNORE_VERMAGIC
    pub ignore_vermagic: bool,
}

impl LoadFlags {
    /// The number that finit_module takes (include/uapi/linux/module.h).
    pub fn bits(self) -> u64 {
        u64::from(self.ignore_modversions) | u64::from(self.ignore_vermagic) << 1
    }
}

/// `kernel/module/main.c: early_mod_check` after the blacklist ([`blacklisted`]) and the first rewrite: version of `struct module`,
/// vermagic. Up to 6.3 these are steps of load_module in the same order.
pub fn early_mod_check(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    flags: LoadFlags,
    taints: &mut Taints,
    said: &mut Findings,
) {
    said.stage_at_first(|said| {
        check_modstruct_version(kernel, file, taints, said);
        check_vermagic(kernel, file, flags, taints, said);
        // Before v6.4 check_modinfo had said by then what taints.
        if kernel.config.has(Change::TaintsAfterInsertion) {
            check_modinfo_livepatch(kernel, file, said);
        }
        // LIFE-3: since v6.4 here too, before anything is allocated.
        if kernel.config.has(Change::DuplicateCheckedEarly) {
            module_patient_check_exists(kernel, file, said);
        }
    });
}

/// `kernel/module/main.c: blacklisted` (VAL-70).
pub fn blacklisted(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    if kernel.boot.module_blacklist.iter().any(|name| *name == file.info_name()) {
        let name = file.info_name_text();
        let why = format!("{name} is on module_blacklist= of the kernel's command line");
        let finding =
            Finding::error("VAL-70", Errno::EPERM, why).says(format!("Module {name} is blacklisted"));
        said.refuse(finding.hint(format!("remove {name} from module_blacklist= and boot again")));
    }
}

/// `kernel/module/version.c: check_modstruct_version` (VER-10): the CRC of `module_layout`, which stands for
/// `struct module`.
fn check_modstruct_version(kernel: &Kernel, file: &ModuleFile<'_>, taints: &mut Taints, said: &mut Findings) {
    // The kernel's own table only.
    let Some((owner, export)) = kernel.find_symbol(b"module_layout", true, file.name()) else {
        if kernel.config.known(Setting::Modversions) != Some(false)
            && kernel.exports().told() != Told::Records
        {
            said.unjudged("VER-10", needs::EXPORTS);
        }
        return;
    };
    let mut resolver = Resolver::new(kernel, file, *taints);
    let mut own = Findings::new();
    let checked = resolver.check_version(
        b"module_layout",
        owner,
        export.crc,
        &|| elf_layout::Subject::Module,
        &mut own,
    );
    *taints = resolver.taints();
    own.open_rules().iter().for_each(|rule| said.unjudged("VER-10", rule.needs.clone()));
    for mut finding in own.into_list() {
        if checked.is_err() && finding.severity.refuses() {
            finding.errno = Some(Errno::ENOEXEC);
            finding.hint = Some(hints::rebuild(kernel));
        }
        said.push(finding);
    }
}

/// VER-20 to VER-24.
fn check_vermagic(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    flags: LoadFlags,
    taints: &mut Taints,
    said: &mut Findings,
) {
    let me = file.info_name_text();
    let vermagic = file.modinfo().get("vermagic").filter(|_| !flags.ignore_vermagic);
    let Some(vermagic) = vermagic else {
        if kernel.config.assumes(Setting::ModuleForceLoad) {
            said.unjudged("VER-21", needs::CONFIG);
            return;
        }
        if !kernel.config.module_force_load {
            let why = format!("{me} has no vermagic, and this kernel does not force modules in");
            said.push(Finding::error("VER-21", Errno::ENOEXEC, why).hint(hints::rebuild(kernel)));
            return;
        }
        let why = format!("the vermagic of {me} is absent or ignored: it is forced in, taint F");
        said.push(taints.force_load(&file.name_text(), "bad vermagic", why).hint(hints::rebuild(kernel)));
        return;
    };
    // VER-22: with CRCs the release does not count.
    let has_versions = file.index().vers != 0 && kernel.config.modversions;
    let Some(ours) = &kernel.vermagic else {
        // Of a kernel without its string the release may be known still, or the words behind it.
        let (release, words) =
            vermagic.split_at(vermagic.iter().position(|b| *b == b' ').unwrap_or(vermagic.len()));
        let release_counts =
            file.index().vers == 0 || kernel.config.known(Setting::Modversions) == Some(false);
        let other_release = !kernel.release.is_empty() && release != kernel.release.as_bytes();
        let other_words = kernel.vermagic_words.as_ref().is_some_and(|ours| *ours != words);
        if other_words || (release_counts && other_release) {
            let ours = kernel.vermagic_words.as_deref().map_or(Cow::from("..."), printed);
            let theirs = printed(vermagic);
            let release = if kernel.release.is_empty() { "..." } else { &kernel.release };
            let why = format!("{me} was built for {theirs}, this kernel is {release}{ours}");
            said.push(Finding::error("VER-23", Errno::ENOEXEC, why).hint(hints::rebuild(kernel)));
        } else if kernel.vermagic_words.is_none() {
            said.unjudged(
                "VER-23",
                "the kernel's image (--kernel), or its configuration and release (--config, --release)",
            );
        } else if kernel.release.is_empty() && !has_versions {
            said.unjudged("VER-23", needs::RELEASE);
        }
        return;
    };
    let compared = |magic: &[u8]| -> Vec<u8> {
        let skip =
            if has_versions { magic.iter().position(|b| *b == b' ').unwrap_or(magic.len()) } else { 0 };
        magic.get(skip..).unwrap_or(&[]).to_vec()
    };
    if compared(vermagic) != compared(ours) {
        let differs = hints::vermagic_difference(vermagic, ours, !has_versions);
        let (theirs, ours) = (printed(vermagic), printed(ours));
        let line = format!("{}: version magic '{theirs}' should be '{ours}'", file.info_name_text());
        let why = format!("{me} was built for another kernel: {differs}");
        let hint = hints::rebuild(kernel);
        said.push(Finding::error("VER-23", Errno::ENOEXEC, why).says(line).hint(hint));
    }
}

/// `kernel/module/main.c: check_modinfo_livepatch` (LIC-8).
fn check_modinfo_livepatch(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    if file.modinfo().get("livepatch").is_none() {
        return;
    }
    match kernel.config.known(Setting::Livepatch) {
        Some(true) => {}
        Some(false) => {
            let me = file.name_text();
            let line =
                format!("{me}: module is marked as livepatch module, but livepatch support is disabled");
            let why = format!("{me} is a livepatch, and this kernel is built without CONFIG_LIVEPATCH");
            let hint = "take a kernel with CONFIG_LIVEPATCH=y";
            said.push(Finding::error("LIC-8", Errno::ENOEXEC, why).says(line).hint(hint));
        }
        None => said.unjudged("LIC-8", needs::CONFIG),
    }
}

/// `kernel/module/main.c: add_unformed_module`, as far as it looks for the name. Since v6.4 that was done before
/// (LIFE-3), and nothing else has been loaded meanwhile.
pub fn already_loaded(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    name_is_terminated(kernel, file, said);
    if !kernel.config.has(Change::DuplicateCheckedEarly) {
        said.stage(|said| module_patient_check_exists(kernel, file, said));
    }
}

/// VAL-55: up to 6.3 the length of the name is measured here.
fn name_is_terminated(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    if name_has_no_end(kernel, file) && !kernel.config.has(Change::DuplicateCheckedEarly) {
        measured_without_end(said);
    }
}

/// Is there a module of that name (LIFE-1, LIFE-2)? Modules that only a symbol table
/// lists are not counted: a load of one of them is judged as if the kernel did not have it yet.
fn module_patient_check_exists(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    let Some(old) = kernel.module(file.name()).filter(|m| !m.listed) else { return };
    let me = file.name_text();
    said.push(match old.state {
        ModuleState::Live => {
            Finding::error("LIFE-2", Errno::EEXIST, format!("a module {me} is loaded already"))
                .hint(format!("unload the other one first: rmmod {me}"))
        }
        // Before v6.1 the load waits for the other to be gone.
        ModuleState::Going if kernel.config.has(Change::DuplicateOfGoingIsBusy) => {
            Finding::error("LIFE-2", Errno::EBUSY, format!("a module {me} is being removed"))
        }
        ModuleState::Going | ModuleState::Coming => {
            let why = format!(
                "a module {me} is there whose load or removal never ends: this load sleeps until a signal ends it"
            );
            Finding::error("LIFE-1", Errno::EINTR, why)
        }
    });
}

/// A member of up to 8 bytes of the `struct module` in the file; 0 where the kernel's layout is not known.
fn in_struct_module(kernel: &Kernel, file: &ModuleFile<'_>, path: &str) -> u64 {
    let member = kernel.member("module", path);
    let bytes = member.and_then(|m| slice(file.section_bytes(file.index().module), m.offset, m.size));
    bytes.map_or(0, |bytes| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// LIC-7: the taints that a module brings with it in its own `struct module`: the kernel adds others, and never clears the field.
pub fn taints_of_file(kernel: &Kernel, file: &ModuleFile<'_>) -> u64 {
    in_struct_module(kernel, file, "taints")
}

/// What of `.modinfo` taints, in the kernel's order: `check_modinfo` up to 6.3,
/// `module_augment_kernel_taints` from 6.4.
pub fn check_modinfo_taints(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    taints: &mut Taints,
    said: &mut Findings,
) {
    let tags = ["intree", "retpoline", "staging", "livepatch", "license", "test"];
    let [intree, retpoline, staging, livepatch, license, test] = file.modinfo().get_each(tags);
    let me = file.name_text();
    let warn = |code, why: String| Finding::note(code, Severity::Warning, why);
    if intree.is_none() {
        let mut finding = warn("LIC-2", format!("{me} is not from the kernel's own tree: taint O"));
        if !taints.kernel_has(Taint::OutOfTreeModule) {
            finding = finding.says(format!("{me}: loading out-of-tree module taints kernel."));
        }
        said.push(taints.add_taint_module(Taint::OutOfTreeModule, finding));
    }
    let retpoline = retpoline.is_some() || kernel.boot.spectre_v2_off;
    if file.machine().is_some_and(|m| m.asks_for_retpoline) && !retpoline {
        let finding = warn("LIC-2", format!("{me} was built without retpolines"));
        let finding = finding.says("Spectre V2 : System may be vulnerable to spectre v2");
        said.push(finding.says(format!("{me}: loading module not compiled with retpoline compiler.")));
    }
    if staging.is_some() {
        let line = format!(
            "{me}: module is from the staging directory, the quality is unknown, you have been warned."
        );
        let finding = warn("LIC-2", format!("{me} is a staging driver: taint C")).says(line);
        said.push(taints.add_taint_module(Taint::Crap, finding));
    }
    if !kernel.config.has(Change::TaintsAfterInsertion) {
        said.stage(|said| check_modinfo_livepatch(kernel, file, said));
    }
    // LIC-7: what sets mod->klp, and since v6.4 also a file that has it set.
    let is_livepatch =
        kernel.config.has(Change::TaintsAfterInsertion) && in_struct_module(kernel, file, "klp") != 0;
    if livepatch.is_some() || is_livepatch {
        said.push(taints.livepatch(&me));
    }
    let license = license.unwrap_or(b"unspecified");
    if !license_is_gpl_compatible(license) {
        let text = printed(license);
        let mut finding = warn("LIC-2", format!("licence '{text}' is not GPL compatible: taint P"));
        if !taints.kernel_has(Taint::ProprietaryModule) {
            finding = finding.says(format!("{me}: module license '{text}' taints kernel."));
        }
        said.push(taints.add_taint_module(Taint::ProprietaryModule, finding));
    }
    if test.is_some() {
        let mut finding = warn("LIC-2", format!("{me} is a test module: taint N"));
        if !taints.kernel_has(Taint::Test) {
            finding = finding.says(format!("{me}: loading test module taints kernel."));
        }
        said.push(taints.add_taint_module(Taint::Test, finding));
    }
}

/// Taint E, and those that go by the module's name. `unsigned` tells what is against the signature,
/// and what to do about it.
pub fn signature_and_name_taints(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    unsigned: Option<(&str, &str)>,
    taints: &mut Taints,
    said: &mut Findings,
) {
    let me = file.name_text();
    if let Some((why, hint)) = unsigned.filter(|_| kernel.config.module_sig) {
        said.push(taints.unsigned(&me, format!("{me} {why}: taint E")).hint(hint));
    }
    // LIC-4: since v6.4 what was tainted before the whole counts, before that before this step.
    let before =
        if kernel.config.has(Change::TaintsAfterInsertion) { &kernel.state.taints } else { &*taints };
    let was_proprietary = before.kernel_has(Taint::ProprietaryModule);
    name_taints(file, was_proprietary, taints, said);
}

/// LIC-3, LIC-4: modules that are known by name to be proprietary.
fn name_taints(file: &ModuleFile<'_>, was_proprietary: bool, taints: &mut Taints, said: &mut Findings) {
    let me = file.name_text();
    let mut finding = Finding::note("LIC-4", Severity::Warning, format!("the kernel is tainted P by {me}"));
    match file.name() {
        b"ndiswrapper" => finding = taints.add_taint(Taint::ProprietaryModule, finding),
        b"driverloader" | b"lve" => finding = taints.add_taint_module(Taint::ProprietaryModule, finding),
        _ => {}
    }
    if !was_proprietary && taints.kernel_has(Taint::ProprietaryModule) {
        said.push(finding.says(format!("{me}: module license taints kernel.")));
    }
}

/// `kernel/module/main.c: find_module_sections`, as far as it says something (SYM-40): parameters of Linux 2.4.
pub fn find_module_sections(file: &ModuleFile<'_>, said: &mut Findings) {
    if file.find_sec("__obsparm") != 0 {
        let line = format!("{}: Ignoring obsolete parameters", file.name_text());
        let why = "its parameters are declared as they were before Linux 2.6: the kernel does not know them";
        said.push(Finding::note("SYM-40", Severity::Warning, why).says(line));
    }
}

/// `kernel/module/main.c: setup_modinfo` since v6.16 (NS-4): namespaces that name modules cannot be imported.
pub fn setup_modinfo(kernel: &Kernel, file: &ModuleFile<'_>, said: &mut Findings) {
    if !kernel.config.has(Change::ModuleNamespaces) {
        return;
    }
    if file.modinfo().ends_within("import_ns") {
        let why =
            ".modinfo ends within a tag import_ns: the kernel reads on to the end of its memory, and crashes";
        said.refuse(Finding::note("NS-7", Severity::Oops, why));
        return;
    }
    said.stage_at_first(|said| {
        for namespace in file.modinfo().all("import_ns").filter(|ns| ns.starts_with(b"module:")) {
            let (me, namespace) = (file.name_text(), printed(namespace));
            let line = format!("{me}: module tries to import module namespace: {namespace}");
            let why = format!("{me} imports {namespace}, which only the modules named there may use");
            let hint = "do without MODULE_IMPORT_NS of it: a symbol for certain modules needs no import";
            said.push(Finding::error("NS-4", Errno::EPERM, why).says(line).hint(hint));
        }
    });
}

/// VER-11: exports without CRCs on a kernel that has them.
pub fn check_export_symbol_versions(
    kernel: &Kernel,
    info: &LoadInfo<'_>,
    taints: &mut Taints,
    said: &mut Findings,
) {
    said.stage_at_first(|said| {
        let records = |name| info.sechdrs.get(info.find_sec(name)).map_or(0, |s| s.sh_size / 12);
        let me = info.file.name_text();
        if kernel.config.has(Change::OneExportTable) {
            one_table_only(info, records("__ksymtab") != 0, said);
        }
        let lacks = |table, crcs| records(table) != 0 && info.find_sec(crcs) == 0;
        let without = lacks("__ksymtab", "__kcrctab")
            || (!kernel.config.has(Change::OneExportTable) && lacks("__ksymtab_gpl", "__kcrctab_gpl"));
        let config = &kernel.config;
        let may_matter = config.known(Setting::Modversions) != Some(false) && without;
        let settings = [Setting::Modversions, Setting::ModuleForceLoad];
        if may_matter && settings.iter().any(|setting| config.assumes(*setting)) {
            said.unjudged("VER-11", needs::CONFIG);
        } else if may_matter {
            if config.module_force_load {
                let why = format!("{me} exports symbols without CRCs: it is forced in, taint F");
                let finding = taints.force_load(&me, "no versions for exported symbols", why);
                said.push(finding.hint(hints::rebuild(kernel)));
            } else {
                let why =
                    format!("{me} exports symbols without CRCs, and this kernel does not force modules in");
                said.push(Finding::error("VER-11", Errno::ENOEXEC, why).hint(hints::rebuild(kernel)));
            }
        }
    });
}

/// SYM-39: since v7.1 licences stand beside the one table of exports, and the other does not count.
fn one_table_only(info: &LoadInfo<'_>, exports: bool, said: &mut Findings) {
    let me = info.file.name_text();
    let hint = "build the module for this kernel: its tools write __kflagstab";
    for section in ["__ksymtab_gpl", "__kcrctab_gpl"] {
        if info.find_sec(section) != 0 {
            let why = format!("{section} is not read since 7.1: what {me} exports there does not exist");
            let line = format!("{me}: ignoring obsolete section {section}");
            said.push(Finding::note("SYM-39", Severity::Warning, why).says(line).hint(hint));
        }
    }
    if exports && info.find_sec("__kflagstab") == 0 {
        let why = format!("{me} does not tell which of its exports are GPL-only (__kflagstab)");
        let line = format!("{me}: no flags for exported symbols");
        said.push(Finding::error("SYM-39", Errno::ENOEXEC, why).says(line).hint(hint));
    }
}

/// SYM-33: exports that the kernel's binary search will not find, because they are not sorted.
pub fn warn_unsorted(kernel: &Kernel, exports: &[ModuleExport<'_>], said: &mut Findings) {
    let all = || missed(exports, kernel.config.has(Change::OneExportTable));
    let missed = all().count();
    let names: Vec<_> = all().take(3).map(|e| printed(e.name)).collect();
    if missed != 0 {
        let why = format!(
            "its exports are not sorted by name: the kernel's binary search misses {missed} of them ({})",
            names.join(", ")
        );
        let hint = "link the module with the kernel's scripts/module.lds (kbuild does), which sorts them";
        said.push(Finding::note("SYM-33", Severity::Warning, why).hint(hint));
    }
}

/// `kernel/module/main.c: verify_exported_symbols` (DUP-1 to DUP-4): no name may be exported twice.
pub fn verify_exported_symbols(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    exports: &[ModuleExport<'_>],
    said: &mut Findings,
) {
    said.stage_at_first(|said| {
        if !exports.is_empty() && kernel.may_export_more(file.name()) {
            said.unjudged("DUP-1", needs::EXPORTS);
        }
        for ModuleExport { name, .. } in exports {
            let found = kernel.find_symbol(name, true, file.name());
            // A symbol that is only taken to be exported is no proof.
            if let Some((owner, _)) = found.filter(|(owner, _)| kernel.told(*owner) != Told::Globals) {
                said.push(duplicate_export(file, name, owner));
            }
        }
    });
    exported_by_others(kernel, file, exports, said);
}

/// DUP-5: names that modules export which are not loaded, as Module.symvers tells.
fn exported_by_others(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    exports: &[ModuleExport<'_>],
    said: &mut Findings,
) {
    let mut by_owner: BTreeMap<&[u8], Vec<Cow<'_, str>>> = BTreeMap::new();
    for ModuleExport { name, .. } in exports {
        let Some(other) = kernel.not_loaded(name).filter(|other| *other.name != *file.name()) else {
            continue;
        };
        // One that was loaded since is DUP-1.
        if kernel.module(&other.name).is_none() {
            by_owner.entry(&other.name).or_default().push(printed(name));
        }
    }
    for (owner, names) in by_owner {
        let (me, owner, count) = (file.name_text(), printed(owner), names.len());
        let some = names.iter().take(3).map(|name| &**name).collect::<Vec<_>>().join(", ");
        let more = if count > 3 { format!(" and {} more", count.saturating_sub(3)) } else { String::new() };
        let why = format!(
            "{owner} exports {some}{more} too (Module.symvers): the kernel refuses the one of both that is loaded last"
        );
        let hint = format!(
            "keep {owner} from being loaded (blacklist it) if {me} stands in for it; else rename the exports"
        );
        said.push(Finding::note("DUP-5", Severity::Note, why).hint(hint));
    }
}

/// DUP-1: a name that the kernel or a module exports already.
fn duplicate_export(file: &ModuleFile<'_>, name: &[u8], owner: Owner<'_>) -> Finding {
    let owner = match owner {
        Owner::Vmlinux => &b"kernel"[..],
        Owner::Module(name) => name,
    };
    let (me, symbol, owner) = (file.name_text(), printed(name), printed(owner));
    let line = format!("{me}: exports duplicate symbol {symbol} (owned by {owner})");
    let why = format!("{symbol} is exported by {owner} already; no name may be exported twice");
    let hint = match owner.as_ref() {
        "kernel" => format!("rename the export: the kernel has {symbol} built in"),
        owner => format!(
            "unload {owner} first, or keep it from being loaded, if both do the same; else rename the export"
        ),
    };
    Finding::error("DUP-1", Errno::ENOEXEC, why).says(line).hint(hint)
}
