//! What of a kernel's configuration makes lockdown and Secure Boot keep modules out.

/// Options that decide it (SIG-16, SIG-17). `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockdownConfig {
    /// CONFIG_SECURITY_LOCKDOWN_LSM: lockdown is built in.
    pub lsm: Option<bool>,
    /// CONFIG_SECURITY_LOCKDOWN_LSM_EARLY: it is on whatever the list of security modules says.
    pub early: Option<bool>,
    /// CONFIG_LSM names it: the list where the command line gives none.
    pub listed: Option<bool>,
    /// CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY or CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY.
    pub forced: Option<bool>,
    /// CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT, which distributions add to upstream.
    pub in_secure_boot: Option<bool>,
    /// CONFIG_IMA_ARCH_POLICY: under Secure Boot signatures are enforced.
    pub ima_arch_policy: Option<bool>,
}

impl LockdownConfig {
    /// What a `.config` says; `value` gives what stands behind `CONFIG_NAME=`.
    pub fn of_config<'c>(value: impl Fn(&str) -> Option<&'c [u8]>) -> Self {
        let is_set = |name: &str| value(name) == Some(b"y");
        let list = value("CONFIG_LSM").unwrap_or_default();
        LockdownConfig {
            lsm: Some(is_set("CONFIG_SECURITY_LOCKDOWN_LSM")),
            early: Some(is_set("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY")),
            listed: Some(names_lockdown(list.trim_ascii())),
            forced: Some(
                is_set("CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY")
                    || is_set("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY"),
            ),
            in_secure_boot: Some(is_set("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT")),
            ima_arch_policy: Some(is_set("CONFIG_IMA_ARCH_POLICY")),
        }
    }

    /// What the functions of a kernel's image show, where no `.config` tells; `has` says whether there is one of a name.
    pub fn of_symbols(&mut self, has: impl Fn(&str) -> bool) {
        // `lock_kernel_down` is in security/lockdown/lockdown.c, `arch_get_ima_policy` in
        // security/integrity/ima/ima_efi.c: each is built with its option only.
        self.lsm.get_or_insert_with(|| has("lock_kernel_down"));
        self.ima_arch_policy.get_or_insert_with(|| has("arch_get_ima_policy"));
        if self.lsm == Some(false) {
            self.forced.get_or_insert(false);
        }
        if self.lsm == Some(false) || !has("efi_set_secure_boot") {
            // drivers/firmware/efi/secureboot.c, of the patch that adds the option.
            self.in_secure_boot.get_or_insert(false);
        }
    }
}

/// Does a list of security modules, with or without quotes, name lockdown (security/security.c: ordered_lsm_parse)?
pub fn names_lockdown(list: &[u8]) -> bool {
    list.split(|b| matches!(b, b',' | b'"')).any(|name| name == b"lockdown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> LockdownConfig {
        LockdownConfig::of_config(|name| {
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::as_bytes)
        })
    }

    #[test]
    fn sig_16_and_17_options_of_a_configuration() {
        let none = of("");
        assert_eq!(
            none,
            LockdownConfig {
                lsm: Some(false),
                early: Some(false),
                listed: Some(false),
                forced: Some(false),
                in_secure_boot: Some(false),
                ima_arch_policy: Some(false)
            },
            "SIG-16: what is not mentioned is off"
        );
        type Get = fn(&LockdownConfig) -> bool;
        let options: [(&str, Get); 8] = [
            ("CONFIG_SECURITY_LOCKDOWN_LSM=y", |c| c.lsm == Some(true)),
            ("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y", |c| c.early == Some(true)),
            ("CONFIG_LSM=\"yama,lockdown,bpf\"", |c| c.listed == Some(true)),
            ("CONFIG_LSM=\"yama,lockdownx\"", |c| c.listed == Some(false)),
            ("CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y", |c| c.forced == Some(true)),
            ("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y", |c| c.forced == Some(true)),
            ("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y", |c| c.in_secure_boot == Some(true)),
            ("CONFIG_IMA_ARCH_POLICY=y", |c| c.ima_arch_policy == Some(true)),
        ];
        for (text, get) in options {
            assert!(get(&of(text)), "SIG-16, SIG-17: {text}");
        }
    }

    #[test]
    fn sig_16_and_17_what_functions_show() {
        let mut all = LockdownConfig::default();
        all.of_symbols(|_| true);
        assert_eq!((all.lsm, all.ima_arch_policy), (Some(true), Some(true)), "SIG-16, SIG-17");
        assert_eq!(all.in_secure_boot, None, "SIG-17: the function is there with and without the option");
        let mut none = LockdownConfig::default();
        none.of_symbols(|_| false);
        let told = (none.lsm, none.ima_arch_policy, none.in_secure_boot);
        assert_eq!(told, (Some(false), Some(false), Some(false)), "SIG-16, SIG-17");
        let mut known = of("CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y");
        known.of_symbols(|_| false);
        assert_eq!((known.lsm, known.in_secure_boot), (Some(true), Some(true)), "a configuration says more");
    }
}
