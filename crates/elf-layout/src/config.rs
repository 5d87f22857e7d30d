//! What of a kernel's version and configuration steers the loader.

use alloc::vec::Vec;

use crate::changes::{Change, Changes};
use crate::keys::KeyConfig;
use crate::lockdown::LockdownConfig;
use crate::machine::Machine;
use crate::region::Generation;
use crate::setting::{Setting, Settings};
use crate::version::KernelVersion;

/// Whose kernel it is, where distributions differ from upstream (OV-DEB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// kernel.org.
    Upstream,
    /// Debian and its derivatives.
    Debian,
}

impl Flavour {
    /// Debian's releases are `6.12.117+deb12-amd64` or `6.1.0-56-cloud-amd64`, with the name of one of the machines
    /// `known` at the end.
    pub fn of_release(release: &[u8], known: &[&Machine]) -> Self {
        let release = release.strip_suffix(b"\"").unwrap_or(release);
        let debian = memchr::memmem::find(release, b"+deb").is_some()
            || known.iter().any(|machine| {
                let rest = release.strip_suffix(machine.debian_arch.as_bytes());
                rest.is_some_and(|rest| rest.ends_with(b"-"))
            });
        if debian { Flavour::Debian } else { Flavour::Upstream }
    }
}

/// How the kernel itself decompresses module files (DEC-1, DEC-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleDecompress {
    /// Not at all: CONFIG_MODULE_DECOMPRESS is off.
    No,
    /// CONFIG_MODULE_COMPRESS_GZIP.
    Gzip,
    /// CONFIG_MODULE_COMPRESS_XZ.
    Xz,
    /// CONFIG_MODULE_COMPRESS_ZSTD.
    Zstd,
}

/// Version and configuration facts. Defaults are Debian's, which are also those
/// of most distributions; [`KernelConfig::apply`] reads a `.config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// The version; what forks behaviour is in `changes`.
    version: KernelVersion,
    /// Is the version only assumed?
    assumed: bool,
    /// What every fork of behaviour asks.
    changes: Changes,
    /// Settings whose values are only assumed: nothing tells them.
    assumes: Settings,
    /// Upstream or Debian.
    pub flavour: Flavour,
    /// CONFIG_MODULES (VAL-1).
    pub modules: bool,
    /// CONFIG_KALLSYMS: symbol tables are moved into module memory.
    pub kallsyms: bool,
    /// CONFIG_KALLSYMS_ALL: data symbols are kept too (LAYOUT-31). `None`: not known.
    pub kallsyms_all: Option<bool>,
    /// CONFIG_MODULE_UNLOAD (LAYOUT-10).
    pub module_unload: bool,
    /// CONFIG_MODULE_FORCE_UNLOAD (LIFE-36).
    pub module_force_unload: bool,
    /// CONFIG_MODULE_UNLOAD_TAINT_TRACKING (LIFE-39).
    pub module_unload_taint_tracking: bool,
    /// CONFIG_STRICT_MODULE_RWX (LAYOUT-4, LAYOUT-16).
    pub strict_module_rwx: bool,
    /// CONFIG_SMP (LAYOUT-62).
    pub smp: bool,
    /// CONFIG_MODVERSIONS (VER-1).
    pub modversions: bool,
    /// CONFIG_MODULE_FORCE_LOAD (VER-40).
    pub module_force_load: bool,
    /// CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS (NS-2).
    pub allow_missing_namespace_imports: bool,
    /// CONFIG_MODULE_SIG (SIG-13).
    pub module_sig: bool,
    /// CONFIG_MODULE_SIG_FORCE (SIG-11).
    pub module_sig_force: bool,
    /// CONFIG_MODULE_DECOMPRESS and its algorithm (DEC-1, DEC-2). `None`: not known.
    pub module_decompress: Option<ModuleDecompress>,
    /// What makes lockdown and Secure Boot keep modules out (SIG-16, SIG-17).
    pub lockdown: LockdownConfig,
    /// Which keyrings are asked, and which algorithms there are (SIG-8, SIG-18).
    pub keys: KeyConfig,
    /// CONFIG_RANDOMIZE_BASE: KASLR is built in, and arm64 counts PLT entries for branches (PLT-4).
    pub randomize_base: bool,
    /// CONFIG_DYNAMIC_FTRACE (FIN-30).
    pub dynamic_ftrace: bool,
    /// CONFIG_DYNAMIC_FTRACE_WITH_REGS, which arm64 has from 5.5 to 6.1 (FIN-43).
    pub dynamic_ftrace_with_regs: bool,
    /// CONFIG_DYNAMIC_FTRACE_WITH_ARGS, which arm64 has instead since 6.2 (FIN-43).
    pub dynamic_ftrace_with_args: bool,
    /// CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS, which arm64 has since 6.3 (FIN-44).
    pub dynamic_ftrace_with_call_ops: bool,
    /// CONFIG_ARM64_MTE (RELOC-GEN-11). `None`: not known.
    pub mte: Option<bool>,
    /// CONFIG_DEBUG_INFO_BTF_MODULES (BTF-1).
    pub btf_modules: bool,
    /// CONFIG_MODULE_ALLOW_BTF_MISMATCH (BTF-3).
    pub allow_btf_mismatch: bool,
    /// CONFIG_LIVEPATCH (RELOC-GEN-5, LIC-8).
    pub livepatch: bool,
    /// PAGE_SIZE in bytes.
    pub page_size: u64,
    /// sizeof(struct module) in bytes, if known (VAL-48).
    pub struct_module_size: Option<u64>,
    /// Byte offsets of `init` and `exit` in struct module, if known (LIFE-10).
    pub struct_module_init_exit: Option<(u64, u64)>,
}

impl KernelConfig {
    /// The configuration to expect of a kernel of this release, `None` if it begins with no version.
    pub fn of_release(release: &str, known: &[&Machine]) -> Option<Self> {
        let version = KernelVersion::parse(release)?;
        let flavour = Flavour::of_release(release.as_bytes(), known);
        Some(KernelConfig { flavour, ..KernelConfig::new(version) })
    }

    /// What a distribution kernel of this version is built with.
    pub fn new(version: KernelVersion) -> Self {
        let changes = Changes::of(version);
        KernelConfig {
            version,
            assumed: false,
            changes,
            assumes: Settings::NONE,
            flavour: Flavour::Upstream,
            modules: true,
            kallsyms: true,
            kallsyms_all: None,
            mte: None,
            module_unload: true,
            module_force_unload: true,
            module_unload_taint_tracking: false,
            strict_module_rwx: true,
            smp: true,
            modversions: true,
            module_force_load: true,
            allow_missing_namespace_imports: false,
            module_sig: true,
            module_sig_force: false,
            module_decompress: None,
            lockdown: LockdownConfig::default(),
            keys: KeyConfig::default(),
            randomize_base: true,
            dynamic_ftrace: true,
            // arm64's, as no other architecture asks: since v5.5 (3b23e4991fb6); instead since v6.2
            // (26299b3f6ba2); CALL_OPS since v6.3 (baaf553d3bc3), not with kCFI.
            dynamic_ftrace_with_regs: changes.has(Change::FtraceWithRegs)
                && !changes.has(Change::FtraceWithArgs),
            dynamic_ftrace_with_args: changes.has(Change::FtraceWithArgs),
            dynamic_ftrace_with_call_ops: changes.has(Change::FtraceCallOps),
            btf_modules: true,
            allow_btf_mismatch: true,
            livepatch: true,
            page_size: 4096,
            struct_module_size: None,
            struct_module_init_exit: None,
        }
    }

    /// The same for a kernel whose version is not known: the rules of `version` are assumed.
    pub fn assumed(version: KernelVersion) -> Self {
        KernelConfig { assumed: true, ..KernelConfig::new(version) }
    }

    /// This one after `edit`.
    #[must_use]
    pub fn with(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    /// The kernel's version. It is for people to read: what forks behaviour asks [`KernelConfig::has`].
    pub fn version(&self) -> KernelVersion {
        self.version
    }

    /// Is this the version of the kernel, and not an assumed one ([`KernelConfig::assumed`])?
    pub fn is_version_known(&self) -> bool {
        !self.assumed
    }

    /// The same where no setting is known: what it has of them is assumed.
    #[must_use]
    pub fn with_settings_assumed(self) -> Self {
        KernelConfig { assumes: Settings::ALL, ..self }
    }

    /// Is the value of this setting only assumed? What hangs on it cannot be judged then.
    pub fn assumes(&self, setting: Setting) -> bool {
        self.assumes.contains(setting)
    }

    /// The value of a setting; `None` if it is only assumed.
    pub fn known(&self, setting: Setting) -> Option<bool> {
        let value = match setting {
            Setting::Modules => self.modules,
            Setting::ModuleSig => self.module_sig,
            Setting::ModuleSigForce => self.module_sig_force,
            Setting::Modversions => self.modversions,
            Setting::ModuleForceLoad => self.module_force_load,
            Setting::AllowMissingNamespaceImports => self.allow_missing_namespace_imports,
            Setting::BtfModules => self.btf_modules,
            Setting::AllowBtfMismatch => self.allow_btf_mismatch,
            Setting::Livepatch => self.livepatch,
        };
        (!self.assumes(setting)).then_some(value)
    }

    /// Takes over what shows a setting of which nothing tells yet.
    pub fn learn(&mut self, setting: Setting, value: bool) {
        if self.assumes(setting) {
            self.set(setting, value);
        }
    }

    /// Takes over what something tells of a setting.
    pub fn set(&mut self, setting: Setting, value: bool) {
        self.assumes = self.assumes.without(setting);
        *match setting {
            Setting::Modules => &mut self.modules,
            Setting::ModuleSig => &mut self.module_sig,
            Setting::ModuleSigForce => &mut self.module_sig_force,
            Setting::Modversions => &mut self.modversions,
            Setting::ModuleForceLoad => &mut self.module_force_load,
            Setting::AllowMissingNamespaceImports => &mut self.allow_missing_namespace_imports,
            Setting::BtfModules => &mut self.btf_modules,
            Setting::AllowBtfMismatch => &mut self.allow_btf_mismatch,
            Setting::Livepatch => &mut self.livepatch,
        } = value;
    }

    /// Takes over a version and the changes that it has. Those that were measured stay, and so do the options.
    pub fn set_version(&mut self, version: KernelVersion) {
        self.version = version;
        self.assumed = false;
        self.changes = self.changes.at(version);
    }

    /// Does the kernel have that change?
    pub fn has(&self, change: Change) -> bool {
        self.changes.has(change)
    }

    /// All changes that the kernel has.
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// Takes over that an image or a file shows `change`, or shows that it is missing. This beats the version,
    /// also one that comes later.
    pub fn measured(&mut self, change: Change, has: bool) {
        self.changes = self.changes.with(change, has);
    }

    /// Does the processor ignore the top byte of an address in the kernel's half (TBI1, RELOC-GEN-11)? `None`: not known. Asked
    /// of arm64 alone.
    pub fn ignores_top_byte(&self) -> Option<bool> {
        if self.has(Change::MteIgnoresTopByte) { self.mte } else { Some(false) }
    }

    /// How the kernel divides a module's memory.
    pub fn generation(&self) -> Generation {
        // Since v6.4 (mod_mem_type); before that core_layout and init_layout.
        if self.has(Change::ModMemType) { Generation::ModMemType } else { Generation::CoreInit }
    }

    /// CONFIG_KALLSYMS_ALL, taken as set if it is not known.
    pub fn keeps_data_symbols(&self) -> bool {
        self.kallsyms_all.unwrap_or(true)
    }

    /// Takes over what a kernel's vermagic string says (VER-20).
    pub fn apply_vermagic(&mut self, vermagic: &[u8]) {
        let has = |word: &[u8]| vermagic.split(|b| *b == b' ').any(|w| w == word);
        self.smp = has(b"SMP");
        self.module_unload = has(b"mod_unload");
        self.set(Setting::Modules, true);
        self.set(Setting::Modversions, has(b"modversions"));
    }

    /// Takes over what the functions of the kernel show, where no `.config` tells; `has` says whether there is one of a name.
    pub fn of_symbols(&mut self, has: impl Fn(&str) -> bool) {
        let decompresses = ["module_decompress", "module_decompress_cleanup", "module_decompress_sysfs_init"];
        if !decompresses.into_iter().any(&has) {
            self.module_decompress.get_or_insert(ModuleDecompress::No);
        }
        // kernel/module/main.c; without the option none of them is built. The system calls have their names in any case.
        let loads = ["load_module", "do_init_module", "__do_sys_init_module", "init_module_from_file"];
        self.learn(Setting::Modules, loads.into_iter().any(&has));
        // kernel/module/signing.c, and kernel/module_signing.c before.
        let verifies = ["module_sig_check", "mod_verify_sig", "set_module_sig_enforced"];
        self.learn(Setting::ModuleSig, verifies.into_iter().any(&has));
        if !self.module_sig {
            self.learn(Setting::ModuleSigForce, false);
        }
        // kernel/livepatch/core.c
        self.learn(Setting::Livepatch, ["klp_module_coming", "klp_enable_patch"].into_iter().any(&has));
        self.learn(Setting::BtfModules, ["btf_module_notify", "btf_parse_module"].into_iter().any(&has));
        // arch/arm64/kernel/mte.c
        let tags = ["mte_sync_tags", "mte_thread_switch", "mte_copy_tags_to_user"];
        self.mte.get_or_insert_with(|| tags.into_iter().any(&has));
        self.lockdown.of_symbols(&has);
        self.keys.of_symbols(has);
    }

    /// Takes over what the text of a kernel `.config` says. Options that it
    /// does not mention are off, as in Kconfig. Its head names the version.
    pub fn apply(&mut self, config: &[u8], known: &[&Machine]) {
        let lines = || config.split(|&b| b == b'\n');
        // Sorted once, by lengths first: some seventy options are asked for, of ten thousand. The first line of a name counts.
        let option = |line| {
            let (name, value): (&[u8], &[u8]) = split_at_equals(line)?;
            Some(((name.len(), name), value.trim_ascii()))
        };
        let mut options: Vec<_> =
            lines().filter(|line| line.starts_with(b"CONFIG_")).filter_map(option).collect();
        options.sort_by_key(|(name, _)| *name);
        let value = |name: &str| {
            let name = (name.len(), name.as_bytes());
            let at = options.partition_point(|(other, _)| *other < name);
            options.get(at).filter(|(other, _)| *other == name).map(|(_, value)| *value)
        };
        let is_set = |name: &str| value(name) == Some(b"y");
        if let Some(version) = lines().take(8).find_map(version_comment) {
            self.set_version(version);
        }
        // A whole `.config` mentions CONFIG_MODULES in any case.
        let is_whole = lines().any(|line| {
            line.starts_with(b"CONFIG_MODULES=") || line.starts_with(b"# CONFIG_MODULES is not set")
        });
        for setting in Setting::ALL.into_iter().filter(|s| *s != Setting::Modules || is_whole) {
            self.set(setting, is_set(setting.option()));
        }
        self.kallsyms = is_set("CONFIG_KALLSYMS");
        self.kallsyms_all = Some(is_set("CONFIG_KALLSYMS_ALL"));
        // The option has the name of the one architecture that has it.
        self.mte = Some(options.iter().any(|((_, name), value)| name.ends_with(b"_MTE") && *value == b"y"));
        self.module_unload = is_set("CONFIG_MODULE_UNLOAD");
        self.module_force_unload = is_set("CONFIG_MODULE_FORCE_UNLOAD");
        self.module_unload_taint_tracking = is_set("CONFIG_MODULE_UNLOAD_TAINT_TRACKING");
        self.strict_module_rwx = is_set("CONFIG_STRICT_MODULE_RWX");
        self.smp = is_set("CONFIG_SMP");
        self.module_decompress = Some(if !is_set("CONFIG_MODULE_DECOMPRESS") {
            ModuleDecompress::No
        } else if is_set("CONFIG_MODULE_COMPRESS_GZIP") {
            ModuleDecompress::Gzip
        } else if is_set("CONFIG_MODULE_COMPRESS_ZSTD") {
            ModuleDecompress::Zstd
        } else {
            ModuleDecompress::Xz
        });
        self.lockdown = LockdownConfig::of_config(value);
        self.keys = KeyConfig::of_config(value);
        self.dynamic_ftrace = is_set("CONFIG_DYNAMIC_FTRACE");
        self.dynamic_ftrace_with_regs = is_set("CONFIG_DYNAMIC_FTRACE_WITH_REGS");
        self.dynamic_ftrace_with_args = is_set("CONFIG_DYNAMIC_FTRACE_WITH_ARGS");
        self.dynamic_ftrace_with_call_ops = is_set("CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS");
        self.randomize_base = is_set("CONFIG_RANDOMIZE_BASE");
        let mut page_sizes = known.iter().flat_map(|machine| machine.page_sizes);
        self.page_size = page_sizes.find(|(option, _)| is_set(option)).map_or(0x1000, |(_, size)| *size);
        if let Some(salt) = value("CONFIG_BUILD_SALT") {
            self.flavour = Flavour::of_release(salt.strip_prefix(b"\"").unwrap_or(salt), known);
        }
    }
}

/// What stands before the first `=` of a line, and behind it.
fn split_at_equals(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at_checked(memchr::memchr(b'=', line)?)?;
    Some((name, value.get(1..)?))
}

/// `# Linux/x86 6.12.117 Kernel Configuration`
pub fn version_comment(line: &[u8]) -> Option<KernelVersion> {
    let line = core::str::from_utf8(line).ok()?.strip_prefix("# Linux/")?;
    let (_, rest) = line.split_once(' ')?;
    KernelVersion::parse(rest.strip_suffix(" Kernel Configuration")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    use crate::machine::tests::KNOWN;

    #[test]
    fn ov_deb_flavour_follows_the_release() {
        for (release, want) in [
            ("6.12.117+deb12-amd64", Flavour::Debian),
            ("6.1.0-56-cloud-arm64", Flavour::Debian),
            ("6.8.0-45-generic", Flavour::Upstream),
            ("6.12.0", Flavour::Upstream),
        ] {
            assert_eq!(
                KernelConfig::of_release(release, KNOWN).map(|c| c.flavour),
                Some(want),
                "OV-DEB: {release}"
            );
        }
    }

    #[test]
    fn config_text_is_read() {
        let mut config = KernelConfig::new(KernelVersion::new(5, 4, 0));
        config.apply(
            b"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/arm64 6.1.176 Kernel Configuration\n#\n\
              CONFIG_KALLSYMS=y\n# CONFIG_KALLSYMS_ALL is not set\nCONFIG_SMP=y\nCONFIG_PAGE_SIZE_16KB=y\n",
            KNOWN,
        );
        assert_eq!(config.version(), KernelVersion::new(6, 1, 176));
        assert_eq!(config.kallsyms_all, Some(false));
        assert!(config.kallsyms && config.smp && !config.modversions);
        assert_eq!(config.page_size, 0x4000);
    }

    /// Every option alone, with the rule that asks for it.
    #[test]
    fn options_are_read_one_by_one() {
        type Get = fn(&KernelConfig) -> bool;
        let options: [(&str, &str, Get); 23] = [
            ("LAYOUT-36", "KALLSYMS", |c| c.kallsyms),
            ("LAYOUT-31", "KALLSYMS_ALL", |c| c.kallsyms_all == Some(true)),
            ("RELOC-GEN-11", "ARM64_MTE", |c| c.mte == Some(true)),
            ("LAYOUT-10", "MODULE_UNLOAD", |c| c.module_unload),
            ("LIFE-36", "MODULE_FORCE_UNLOAD", |c| c.module_force_unload),
            ("LIFE-39", "MODULE_UNLOAD_TAINT_TRACKING", |c| c.module_unload_taint_tracking),
            ("LAYOUT-4", "STRICT_MODULE_RWX", |c| c.strict_module_rwx),
            ("LAYOUT-62", "SMP", |c| c.smp),
            ("VER-1", "MODVERSIONS", |c| c.modversions),
            ("VER-40", "MODULE_FORCE_LOAD", |c| c.module_force_load),
            ("NS-2", "MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS", |c| c.allow_missing_namespace_imports),
            ("SIG-13", "MODULE_SIG", |c| c.module_sig),
            ("SIG-11", "MODULE_SIG_FORCE", |c| c.module_sig_force),
            ("PLT-4", "RANDOMIZE_BASE", |c| c.randomize_base),
            ("FIN-30", "DYNAMIC_FTRACE", |c| c.dynamic_ftrace),
            ("FIN-43", "DYNAMIC_FTRACE_WITH_REGS", |c| c.dynamic_ftrace_with_regs),
            ("FIN-43", "DYNAMIC_FTRACE_WITH_ARGS", |c| c.dynamic_ftrace_with_args),
            ("FIN-44", "DYNAMIC_FTRACE_WITH_CALL_OPS", |c| c.dynamic_ftrace_with_call_ops),
            ("BTF-1", "DEBUG_INFO_BTF_MODULES", |c| c.btf_modules),
            ("BTF-3", "MODULE_ALLOW_BTF_MISMATCH", |c| c.allow_btf_mismatch),
            ("RELOC-GEN-5, LIC-8", "LIVEPATCH", |c| c.livepatch),
            ("LAYOUT-40", "ARM64_64K_PAGES", |c| c.page_size == 0x1_0000),
            ("LAYOUT-40", "ARM64_16K_PAGES", |c| c.page_size == 0x4000),
        ];
        for (_, option, _) in options {
            let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
            config.apply(format!("CONFIG_{option}=y\n").as_bytes(), KNOWN);
            for (rule, other, get) in options {
                assert_eq!(get(&config), other == option, "{rule}: CONFIG_{option}=y alone: CONFIG_{other}");
            }
        }
    }

    #[test]
    fn dec_1_and_2_who_decompresses() {
        let of = |text: &str| {
            let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
            config.apply(text.as_bytes(), KNOWN);
            config.module_decompress
        };
        let on = "CONFIG_MODULE_DECOMPRESS=y\nCONFIG_MODULE_COMPRESS_";
        for (text, want) in [
            (String::new(), ModuleDecompress::No),
            (String::from("CONFIG_MODULE_COMPRESS_XZ=y\n"), ModuleDecompress::No),
            (format!("{on}XZ=y\n"), ModuleDecompress::Xz),
            (format!("{on}GZIP=y\n"), ModuleDecompress::Gzip),
            (format!("{on}ZSTD=y\n"), ModuleDecompress::Zstd),
        ] {
            assert_eq!(of(&text), Some(want), "DEC-1, DEC-2: {text}");
        }
        let mut shown = KernelConfig::new(KernelVersion::new(6, 12, 0));
        assert_eq!(shown.ignores_top_byte(), None, "RELOC-GEN-11");
        shown.of_symbols(|name| name == "module_decompress_cleanup");
        assert_eq!(shown.ignores_top_byte(), Some(false), "RELOC-GEN-11: no function of MTE");
        assert_eq!(shown.module_decompress, None, "DEC-2: functions do not tell the algorithm");
        shown.of_symbols(|_| false);
        assert_eq!(shown.module_decompress, Some(ModuleDecompress::No), "DEC-1");
    }

    #[test]
    fn ver_20_what_vermagic_tells() {
        for word in ["SMP", "mod_unload", "modversions"] {
            let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
            config.apply_vermagic(format!("6.12.0 preempt {word} aarch64 ").as_bytes());
            let told = [
                ("SMP", config.smp),
                ("mod_unload", config.module_unload),
                ("modversions", config.modversions),
            ];
            for (of, set) in told {
                assert_eq!(set, of == word, "VER-20: {word} alone: {of}");
            }
        }
    }

    #[test]
    fn a_config_text_sets_the_changes_but_not_those_that_were_measured() {
        let text = b"# Linux/x86 6.1.176 Kernel Configuration\n";
        let mut config = KernelConfig::assumed(KernelVersion::new(7, 1, 0));
        assert!(config.has(Change::ModMemType) && config.has(Change::OneExportTable));
        config.measured(Change::OneExportTable, true);
        config.measured(Change::LastUnloadedTaints, false);
        assert!(!config.is_version_known());
        config.apply(text, KNOWN);
        assert!(config.is_version_known());
        assert!(!config.has(Change::ModMemType), "6.1 has no mod_mem_type");
        assert!(config.has(Change::FtraceWithRegs), "6.1 has it");
        assert!(config.has(Change::OneExportTable), "measured");
        assert!(!config.has(Change::LastUnloadedTaints), "measured");
        assert_eq!(config.changes().with(Change::OneExportTable, false), {
            let own = Changes::of(KernelVersion::new(6, 1, 176));
            own.with(Change::LastUnloadedTaints, false).with(Change::OneExportTable, false)
        });
    }

    #[test]
    fn layout_18_generation_changes_with_6_4() {
        let generation = |major, minor| KernelConfig::new(KernelVersion::new(major, minor, 13)).generation();
        assert_eq!(generation(6, 3), Generation::CoreInit);
        assert_eq!(generation(6, 4), Generation::ModMemType);
        assert_eq!(generation(5, 10), Generation::CoreInit);
        assert_eq!(generation(7, 0), Generation::ModMemType);
    }
}
