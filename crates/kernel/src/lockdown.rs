//! Does a kernel keep modules out that are not signed by a key that it trusts?

use elf_layout::Setting;

use crate::description::KernelDescription;

/// What makes a kernel do it, in words; `None` if it does not.
impl KernelDescription {
    /// Are signatures enforced (SIG-11, SIG-17; kernel/module/signing.c: is_module_sig_enforced)?
    pub fn sig_enforced_by(&self) -> Option<&'static str> {
        if let Some(enforced) = self.boot.shown.sig_enforced {
            return enforced
                .then_some("the running kernel shows so in /sys/module/module/parameters/sig_enforce");
        }
        if self.config.known(Setting::ModuleSigForce) == Some(true) {
            return Some("it is built with CONFIG_MODULE_SIG_FORCE");
        }
        if self.boot.sig_enforce {
            return Some("module.sig_enforce is on its command line");
        }
        // security/integrity/ima/ima_efi.c: arch_get_ima_policy, when IMA starts.
        let by_ima = self.boot.secure_boot && self.config.lockdown.ima_arch_policy == Some(true);
        by_ima.then_some("under Secure Boot CONFIG_IMA_ARCH_POLICY makes it do so")
    }

    /// Is the kernel locked down (SIG-16, SIG-17; security/lockdown/lockdown.c: lockdown_is_locked_down)? Both levels keep
    /// unsigned modules out.
    pub fn locked_down_by(&self) -> Option<&'static str> {
        if let Some(locked_down) = self.boot.shown.locked_down {
            return locked_down.then_some("the running kernel shows so in /sys/kernel/security/lockdown");
        }
        if self.has_lockdown() != Some(true) {
            return None;
        }
        if self.config.lockdown.forced == Some(true) {
            return Some("it is built to be locked down (CONFIG_LOCK_DOWN_KERNEL_FORCE_...)");
        }
        if self.boot.lockdown {
            return Some("lockdown= is on its command line");
        }
        // drivers/firmware/efi/secureboot.c: efi_set_secure_boot
        let by_firmware = self.boot.secure_boot && self.config.lockdown.in_secure_boot == Some(true);
        by_firmware.then_some("under Secure Boot CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT locks it down")
    }

    /// The rule that may keep an unsigned module out and that is not known enough to judge; `None` where it is known that
    /// one does, or that none does.
    pub fn may_keep_unsigned_out(&self) -> Option<&'static str> {
        if self.sig_enforced_by().is_some() {
            return None;
        }
        let options = &self.config.lockdown;
        let boot = &self.boot;
        if boot.shown.sig_enforced.is_none() {
            let no_signatures = self.config.known(Setting::ModuleSig) == Some(false);
            if self.config.assumes(Setting::ModuleSigForce) && !no_signatures {
                return Some("SIG-11");
            }
            if boot.secure_boot && options.ima_arch_policy.is_none() {
                return Some("SIG-17");
            }
        }
        if boot.shown.locked_down.is_some() {
            return None;
        }
        if self.locked_down_by().is_some() || self.has_lockdown() == Some(false) {
            return None;
        }
        if options.forced.is_none() || boot.lockdown {
            return Some("SIG-16");
        }
        (boot.secure_boot && options.in_secure_boot != Some(false)).then_some("SIG-17")
    }

    /// Is the lockdown module on? `None` if that is not known.
    fn has_lockdown(&self) -> Option<bool> {
        let options = &self.config.lockdown;
        // Early ones are on whatever the list says (security/security.c: early_security_init).
        let listed = self.boot.lsm_names_lockdown.or(options.listed);
        match (options.lsm, options.early, listed) {
            (Some(false), ..) => Some(false),
            (Some(true), Some(true), _) | (Some(true), _, Some(true)) => Some(true),
            (Some(true), Some(false), Some(false)) => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::BootParams;
    use elf_layout::{KernelConfig, KernelVersion, LockdownConfig};

    fn kernel(cmdline: &str, secure_boot: bool, options: LockdownConfig) -> KernelDescription {
        let mut config = KernelConfig::new(KernelVersion::new(6, 1, 0));
        config.lockdown = options;
        let mut kernel = KernelDescription::unknown(config);
        kernel.boot = BootParams { secure_boot, ..BootParams::parse(cmdline) };
        kernel
    }

    const DEBIAN: LockdownConfig = LockdownConfig {
        lsm: Some(true),
        early: Some(true),
        listed: Some(true),
        forced: Some(false),
        in_secure_boot: Some(true),
        ima_arch_policy: Some(true),
    };

    #[test]
    fn sig_16_what_locks_a_kernel_down() {
        let off = LockdownConfig { lsm: Some(false), ..DEBIAN };
        let late = LockdownConfig { early: Some(false), ..DEBIAN };
        let unlisted = LockdownConfig { listed: Some(false), ..late };
        let forced = LockdownConfig { forced: Some(true), ..DEBIAN };
        for (cmdline, options, want) in [
            ("", DEBIAN, false),
            ("lockdown=integrity", DEBIAN, true),
            ("lockdown=confidentiality", DEBIAN, true),
            ("lockdown=none", DEBIAN, false),
            ("lockdown=integrity", LockdownConfig::default(), false),
            ("lockdown=integrity", off, false),
            ("lockdown=integrity lsm=yama", DEBIAN, true),
            ("lockdown=integrity lsm=yama", late, false),
            ("lockdown=integrity", unlisted, false),
            ("lockdown=integrity lsm=lockdown", unlisted, true),
            ("", forced, true),
        ] {
            let is = kernel(cmdline, false, options).locked_down_by().is_some();
            assert_eq!(is, want, "SIG-16: {cmdline:?} with {options:?}");
        }
    }

    #[test]
    fn sig_17_what_secure_boot_does() {
        let both = kernel("", true, DEBIAN);
        assert!(both.sig_enforced_by().is_some_and(|by| by.contains("IMA_ARCH_POLICY")), "SIG-17");
        assert!(
            both.locked_down_by().is_some_and(|by| by.contains("LOCK_DOWN_IN_EFI_SECURE_BOOT")),
            "SIG-17"
        );
        let quiet = kernel("", false, DEBIAN);
        assert_eq!((quiet.sig_enforced_by(), quiet.locked_down_by()), (None, None), "SIG-17: no Secure Boot");
        let lockdown = kernel("", true, LockdownConfig { ima_arch_policy: Some(false), ..DEBIAN });
        assert_eq!((lockdown.sig_enforced_by(), lockdown.locked_down_by().is_some()), (None, true), "SIG-17");
        let neither = LockdownConfig { ima_arch_policy: Some(false), in_secure_boot: Some(false), ..DEBIAN };
        let neither = kernel("", true, neither);
        assert_eq!((neither.sig_enforced_by(), neither.locked_down_by()), (None, None), "SIG-17: upstream");
    }

    #[test]
    fn sig_11_and_16_what_a_running_kernel_shows_beats_the_rest() {
        let mut unknown = kernel("", true, LockdownConfig::default());
        unknown.config = unknown.config.with_settings_assumed();
        unknown.boot.shown.sig_enforced = Some(false);
        assert_eq!(unknown.may_keep_unsigned_out(), Some("SIG-16"), "SIG-16 is not known yet");
        unknown.boot.shown.locked_down = Some(false);
        assert_eq!(unknown.may_keep_unsigned_out(), None, "SIG-11, SIG-16: both shown");
        let mut debian = kernel("module.sig_enforce lockdown=integrity", true, DEBIAN);
        debian.boot.shown =
            crate::boot::Shown { sig_enforced: Some(false), locked_down: Some(false), ..Default::default() };
        assert_eq!((debian.sig_enforced_by(), debian.locked_down_by()), (None, None));
        debian.boot.shown =
            crate::boot::Shown { sig_enforced: Some(true), locked_down: Some(true), ..Default::default() };
        assert!(debian.sig_enforced_by().is_some_and(|by| by.contains("sig_enforce")), "SIG-11");
        assert!(debian.locked_down_by().is_some_and(|by| by.contains("lockdown")), "SIG-16");
    }

    #[test]
    fn sig_11_16_and_17_what_is_not_known() {
        let nothing = LockdownConfig::default();
        let open =
            |cmdline, secure_boot, options| kernel(cmdline, secure_boot, options).may_keep_unsigned_out();
        for cmdline in ["", "lockdown=integrity"] {
            assert_eq!(open(cmdline, false, DEBIAN), None, "{cmdline}");
            assert_eq!(open(cmdline, true, DEBIAN), None, "{cmdline}");
            assert_eq!(open(cmdline, false, nothing), Some("SIG-16"), "{cmdline}");
            assert_eq!(open(cmdline, true, nothing), Some("SIG-17"), "{cmdline}");
        }
        let quiet = LockdownConfig { ima_arch_policy: Some(false), in_secure_boot: None, ..DEBIAN };
        assert_eq!((open("", true, quiet), open("", false, quiet)), (Some("SIG-17"), None));
        let off = LockdownConfig { lsm: Some(false), ..nothing };
        assert_eq!((open("", false, off), open("lockdown=integrity", false, off)), (None, None), "SIG-16");
        let list = LockdownConfig { listed: None, early: Some(false), ..DEBIAN };
        assert_eq!((open("", false, list), open("lockdown=integrity", false, list)), (None, Some("SIG-16")));
        let mut unknown = kernel("", false, DEBIAN);
        unknown.config = unknown.config.with_settings_assumed();
        assert_eq!(unknown.may_keep_unsigned_out(), Some("SIG-11"), "MODULE_SIG_FORCE is not known");
        unknown.boot = BootParams::parse("module.sig_enforce");
        assert_eq!(unknown.may_keep_unsigned_out(), None, "SIG-11: it is enforced in any case");
    }
}
