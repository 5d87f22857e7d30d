//! Options of a kernel's configuration that a verdict hangs on, and which of them are known.

/// An option that decides whether a module loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Setting {
    /// CONFIG_MODULES (VAL-1).
    Modules,
    /// CONFIG_MODULE_SIG (SIG-13).
    ModuleSig,
    /// CONFIG_MODULE_SIG_FORCE (SIG-11).
    ModuleSigForce,
    /// CONFIG_MODVERSIONS (VER-1).
    Modversions,
    /// CONFIG_MODULE_FORCE_LOAD (VER-40).
    ModuleForceLoad,
    /// CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS (NS-2).
    AllowMissingNamespaceImports,
    /// CONFIG_DEBUG_INFO_BTF_MODULES (BTF-1).
    BtfModules,
    /// CONFIG_MODULE_ALLOW_BTF_MISMATCH (BTF-3).
    AllowBtfMismatch,
    /// CONFIG_LIVEPATCH (RELOC-GEN-5, LIC-8).
    Livepatch,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 9] = [
        Setting::Modules,
        Setting::ModuleSig,
        Setting::ModuleSigForce,
        Setting::Modversions,
        Setting::ModuleForceLoad,
        Setting::AllowMissingNamespaceImports,
        Setting::BtfModules,
        Setting::AllowBtfMismatch,
        Setting::Livepatch,
    ];

    /// Its name in a `.config`.
    pub const fn option(self) -> &'static str {
        match self {
            Setting::Modules => "CONFIG_MODULES",
            Setting::ModuleSig => "CONFIG_MODULE_SIG",
            Setting::ModuleSigForce => "CONFIG_MODULE_SIG_FORCE",
            Setting::Modversions => "CONFIG_MODVERSIONS",
            Setting::ModuleForceLoad => "CONFIG_MODULE_FORCE_LOAD",
            Setting::AllowMissingNamespaceImports => "CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS",
            Setting::BtfModules => "CONFIG_DEBUG_INFO_BTF_MODULES",
            Setting::AllowBtfMismatch => "CONFIG_MODULE_ALLOW_BTF_MISMATCH",
            Setting::Livepatch => "CONFIG_LIVEPATCH",
        }
    }

    /// The setting of that name in a `.config`.
    pub fn of_option(option: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.option() == option)
    }
}

/// A set of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings(u16);

impl Settings {
    /// None of them.
    pub const NONE: Settings = Settings(0);
    /// All of them.
    pub const ALL: Settings = Settings((1 << Setting::ALL.len()) - 1);

    /// Is it one of them?
    pub const fn contains(self, setting: Setting) -> bool {
        self.0 >> setting as u8 & 1 != 0
    }

    /// The same without it.
    #[must_use]
    pub const fn without(self, setting: Setting) -> Settings {
        Settings(self.0 & !(1 << setting as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_found_by_its_option_and_in_the_set_of_all() {
        for (n, setting) in Setting::ALL.into_iter().enumerate() {
            assert_eq!(setting as usize, n, "{setting:?}");
            assert_eq!(Setting::of_option(setting.option()), Some(setting));
            assert!(Settings::ALL.contains(setting) && !Settings::NONE.contains(setting));
            assert!(!Settings::ALL.without(setting).contains(setting));
        }
        assert_eq!(Setting::of_option("CONFIG_SMP"), None);
    }
}
