//! What an image shows of the kernel's configuration beside its functions: texts that only one form of the code has, and
//! initial values.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use elf_layout::lockdown::names_lockdown;
use elf_layout::{Change, KernelConfig, Setting};
use kernel_image::KernelImage;
use memchr::memmem;

use crate::kallsyms::KernelSymbols;

/// Options of a configuration, on or off, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown(BTreeMap<String, bool>);

/// Options that stand for what settles [`elf_layout::LockdownConfig`].
const LOCK_DOWN_FORCED: &str = "CONFIG_LOCK_DOWN_KERNEL_FORCE";
const LOCKDOWN_EARLY: &str = "CONFIG_SECURITY_LOCKDOWN_LSM_EARLY";
const LOCK_DOWN_IN_SECURE_BOOT: &str = "CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT";
const LSM_NAMES_LOCKDOWN: &str = "CONFIG_LSM";

/// Texts of the kernel, with the option that they stand for and what it is then. A text is looked for with what stands
/// before it, which tells its level.
const TEXTS: &[(Setting, &[u8], bool)] = &[
    // kernel/module/main.c: try_to_force_load, pr_warn
    (Setting::ModuleForceLoad, b"\x014%s: %s: kernel tainted.\n\0", true),
    // kernel/module/main.c: verify_namespace_is_imported, pr_err or pr_warn
    (Setting::AllowMissingNamespaceImports, b"\x013%s: module uses symbol (%s) from namespace %s", false),
    (Setting::AllowMissingNamespaceImports, b"\x014%s: module uses symbol (%s) from namespace %s", true),
    // kernel/bpf/btf.c: btf_module_notify
    (Setting::AllowBtfMismatch, b"\x014Kernel module BTF mismatch detected", true),
];

/// `struct kernel_param`: where `arg` is.
const PARAM_ARG: u64 = 32;

impl Shown {
    /// What an image shows. `config` tells its changes.
    pub(super) fn of_image(image: &KernelImage<'_>, symbols: &KernelSymbols, config: &KernelConfig) -> Self {
        let mut shown = Shown::default();
        let has = |text: &[u8]| memmem::find(image.bytes(), text).is_some();
        for (setting, text, value) in TEXTS {
            if !shown.0.contains_key(setting.option()) && has(text) {
                shown.0.insert(setting.option().to_string(), *value);
            }
        }
        // A kernel that prints nothing has none of these texts: the one that is there in any case tells.
        let prints = shown.0.contains_key(Setting::AllowMissingNamespaceImports.option());
        if prints {
            shown.0.entry(Setting::ModuleForceLoad.option().to_string()).or_insert(false);
        }
        if prints && config.has(Change::BtfMismatchToldOnce) {
            shown.0.entry(Setting::AllowBtfMismatch.option().to_string()).or_insert(false);
        }
        if let Some(enforces) = sig_enforce(image, symbols) {
            shown.0.insert(Setting::ModuleSigForce.option().to_string(), enforces);
        }
        if symbols.address("lock_kernel_down").is_some() {
            // security/lockdown/lockdown.c: lockdown_lsm_init
            shown.0.insert(LOCK_DOWN_FORCED.to_string(), has(b"\0Kernel configuration\0"));
            shown.0.insert(LOCK_DOWN_IN_SECURE_BOOT.to_string(), has(b"\0EFI Secure Boot"));
            let early = [("__early_lsm_lockdown", true), ("__lsm_lockdown", false)];
            if let Some((_, early)) = early.iter().find(|(name, _)| symbols.address(name).is_some()) {
                shown.0.insert(LOCKDOWN_EARLY.to_string(), *early);
            }
        }
        if let Some(listed) = lsm_list(image, symbols) {
            shown.0.insert(LSM_NAMES_LOCKDOWN.to_string(), listed);
        }
        shown
    }

    /// Teaches a configuration what is not known otherwise.
    pub(super) fn teach(&self, config: &mut KernelConfig) {
        for (option, value) in &self.0 {
            if let Some(setting) = Setting::of_option(option) {
                config.learn(setting, *value);
            }
        }
        let get = |option: &str| self.0.get(option).copied();
        let lockdown = &mut config.lockdown;
        for (fact, option) in [
            (&mut lockdown.forced, LOCK_DOWN_FORCED),
            (&mut lockdown.early, LOCKDOWN_EARLY),
            (&mut lockdown.in_secure_boot, LOCK_DOWN_IN_SECURE_BOOT),
            (&mut lockdown.listed, LSM_NAMES_LOCKDOWN),
        ] {
            *fact = fact.or_else(|| get(option));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lines of a SPEC's record: `CONFIG_NAME=y` or `CONFIG_NAME=n`.
    pub(super) fn to_text(&self) -> String {
        let line =
            |(option, on): (&String, &bool)| [option.as_str(), if *on { "=y\n" } else { "=n\n" }].concat();
        self.0.iter().map(line).collect()
    }

    /// Reads these lines; others are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (option, value) = line.split_once('=')?;
            let value = [("y", true), ("n", false)].into_iter().find(|(word, _)| *word == value)?.1;
            Some((option.to_string(), value))
        };
        Shown(text.lines().filter_map(line).collect())
    }
}

/// The initial value of `module.sig_enforce`: CONFIG_MODULE_SIG_FORCE (kernel/module/signing.c). kexec has a variable of that
/// name as well, but no such parameter.
fn sig_enforce(image: &KernelImage<'_>, symbols: &KernelSymbols) -> Option<bool> {
    // Without CONFIG_KALLSYMS_ALL the parameter has no symbol, but it begins with its name.
    let param = symbols.address("__param_sig_enforce");
    let param = param.or_else(|| match image.pointers_to(b"module.sig_enforce")[..] {
        [only] => Some(only),
        _ => None,
    })?;
    let arg = image.read_relocated(param.checked_add(PARAM_ARG)?, 8)?;
    let variable = u64::from_le_bytes(arg.as_ref().try_into().ok()?);
    if variable >> 63 == 0 {
        return None;
    }
    // What the file does not hold is in .bss.
    Some(image.read(variable, 1).is_some_and(|byte| byte != [0]))
}

/// Does the list of security modules that the kernel is built with (CONFIG_LSM) name lockdown?
fn lsm_list(image: &KernelImage<'_>, symbols: &KernelSymbols) -> Option<bool> {
    let pointer = image.read_relocated(symbols.address("builtin_lsm_order")?, 8)?;
    let list = image.read_cstr(u64::from_le_bytes(pointer.as_ref().try_into().ok()?))?;
    Some(names_lockdown(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf_layout::KernelVersion;

    #[test]
    fn what_is_shown_survives_its_text_and_beats_no_configuration() {
        let text = "CONFIG_LOCK_DOWN_KERNEL_FORCE=n\nCONFIG_MODULE_FORCE_LOAD=n\nCONFIG_MODULE_SIG_FORCE=y\n";
        let shown = Shown::parse(text);
        assert_eq!((shown.to_text().as_str(), shown.is_empty()), (text, false));
        assert!(Shown::parse("no line\nCONFIG_X=m\n").is_empty());
        let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0)).with_settings_assumed();
        config.set(Setting::ModuleSigForce, false);
        shown.teach(&mut config);
        let known = |setting| config.known(setting);
        assert_eq!(known(Setting::ModuleForceLoad), Some(false), "VER-40");
        assert_eq!(known(Setting::ModuleSigForce), Some(false), "SIG-11: a configuration says more");
        assert_eq!(known(Setting::Modversions), None);
        assert_eq!(config.lockdown.forced, Some(false), "SIG-16");
    }
}
